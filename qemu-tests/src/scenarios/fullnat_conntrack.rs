// SPDX-License-Identifier: GPL-2.0-or-later

//! Connection tracking beside FullNAT: whatever the sysctl `conntrack` says, no packet of a FullNAT connection has an entry,
//! by any protocol, nor has an error about one; a masquerading rule changes none of them; and a filter that lets only
//! established connections through, and requests, lets them through.

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, is_local, local, one, tracked, Segment};
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, FENCE, SYN, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};

use super::fullnat_icmp::{packet, SCTP};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_conntrack",
    "FullNAT is never tracked, with the sysctl conntrack or without",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for on in [0, 1] {
            real(family, on).with_context(|| format!("{family:?}, conntrack={on}"))?;
            crafted(family, on).with_context(|| format!("{family:?}, conntrack={on}, crafted"))?;
        }
    }
    Ok(())
}

/// Tracking, a rule that masquerades all that goes to servers, and a filter.
fn rules(ns: &Ns) -> Result<()> {
    ns.cmd_stdin(
        "nft -f -",
        "table inet t {\n\
         counter bare { }\n counter known { }\n\
         chain out { type nat hook postrouting priority srcnat; oifname s1 masquerade; }\n\
         chain in { type filter hook input priority filter; policy drop;\n\
         ct state established,related accept\n meta l4proto ipv6-icmp accept\n\
         meta l4proto { tcp, udp } ct state new accept\n }\n\
         chain through { type filter hook forward priority filter; policy drop; ct state established,related accept; }\n\
         chain post { type filter hook postrouting priority filter;\n\
         meta l4proto { tcp, udp } ct state untracked counter name bare\n\
         meta l4proto { tcp, udp } ct state new,established,related,invalid counter name known\n }\n}\n",
    )
    .map(drop)
}

fn counter(ns: &Ns, name: &str) -> Result<u64> {
    let text = ns.cmd(&format!("nft list counter inet t {name}"))?;
    text.split_whitespace()
        .skip_while(|w| *w != "packets")
        .nth(1)
        .and_then(|w| w.parse().ok())
        .with_context(|| text.clone())
}

fn real(family: Family, on: u8) -> Result<()> {
    let topo = fullnat::topo(1)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
    rules(&topo.director)?;
    topo.director.set_sysctl("net.ipv4.vs.conntrack", on)?;
    let ipvs = Ipvs::open(&topo.director)?;
    for (proto, flag) in [(TCP, "-t"), (UDP, "-u")] {
        topo.ipvsadm(&format!("-A {flag} {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a {flag} {vip} -r {rs} -m"))?;
        fullnat::add(&ipvs, proto, vip, local(family, 1))?;
    }
    let _servers = [
        Server::tcp(&topo.rs[0], rs, "rs1")?,
        Server::udp(&topo.rs[0], rs, "rs1")?,
    ];
    for _ in 0..3 {
        let body = serve::http_get(&topo.client, vip)?;
        let (_, peer) = body.split_once(' ').context("no peer")?;
        let peer: std::net::SocketAddr = peer.parse()?;
        ensure!(is_local(peer.ip()), "the server saw {peer}");
    }
    let stream = serve::connect(&topo.client, vip)?;
    let n = 300_000;
    serve::fetch(&stream, n)?;
    let socket = serve::udp(&topo.client, vip)?;
    for n in [10, 1_000, 9_000] {
        let text = "x".repeat(n);
        let answer = serve::ask_udp(&socket, &text).with_context(|| format!("{n} bytes"))?;
        let peer: std::net::SocketAddr = answer.split(' ').nth(1).unwrap_or_default().parse()?;
        ensure!(
            is_local(peer.ip()) && answer.ends_with(&text),
            "{} bytes from {peer}",
            answer.len()
        );
    }
    let (bare, known) = (
        counter(&topo.director, "bare")?,
        counter(&topo.director, "known")?,
    );
    ensure!(bare > 20 && known == 0, "untracked {bare}, tracked {known}");
    ensure!(
        tracked(&topo.director)? == 0,
        "tracked: {}",
        topo.director.cmd("conntrack -L")?
    );
    Ok(())
}

/// Entries but those of fences, which are forwarded plainly.
fn entries(ns: &Ns) -> Result<Vec<String>> {
    let text = ns.read("/proc/net/nf_conntrack")?;
    let fence = FENCE.to_string();
    Ok(text
        .lines()
        .filter(|line| line.split_whitespace().nth(3) != Some(&fence))
        .map(str::to_owned)
        .collect())
}

fn crafted(family: Family, on: u8) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    fullnat::track(director)?;
    director.set_sysctl("net.ipv4.vs.conntrack", on)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(family.raw_client(1), 4000);
    let ipvs = Ipvs::open(director)?;
    for proto in [TCP, SCTP] {
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(proto, vip, "rr")))?;
        let dest = for_dest(&svc_id(proto, vip), &dest_full(rs, 1));
        ipvs.ok(cmd::NEW_DEST, &dest)?;
        fullnat::add(&ipvs, proto, vip, local(family, 1))?;
    }
    // SCTP: INIT there, INIT ACK back.
    let came = rig.forwarded(&packet(client, vip, 1))?;
    let port = u16::from_be_bytes([came.body[0], came.body[1]]);
    let back = rig.returned(&packet(rs, at(came.src, port), 2))?;
    ensure!(back.src == vip.ip() && back.dst == client.ip(), "{back:?}");
    // Errors about a TCP connection, both ways.
    let syn = one(&rig, Side::Client, &Segment::new(client, vip, SYN, 100, 0))?;
    let (seat, first) = (syn.from, syn.seq.wrapping_add(1));
    let reply = Segment::new(rs, seat, SYN | ACK, 800, first);
    one(&rig, Side::Server, &reply)?;
    let (kind, code) = if family == Family::V4 { (3, 1) } else { (1, 0) };
    let inner = Segment::new(seat, rs, ACK, first, 801).bytes();
    let error = Pkt::icmp_error(rs.ip(), seat.ip(), kind, code, 0, &inner);
    ensure!(rig.returned(&error)?.src == vip.ip());
    let inner = Segment::new(vip, client, ACK, 801, 101).bytes();
    let error = Pkt::icmp_error(client.ip(), vip.ip(), kind, code, 0, &inner);
    ensure!(rig.forwarded(&error)?.src == seat.ip());
    let all = entries(director)?;
    ensure!(all.is_empty(), "{all:#?}");
    Ok(())
}
