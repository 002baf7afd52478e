// SPDX-License-Identifier: GPL-2.0-or-later

//! What the tunnels of a service have beyond C (docs/tunnel-extras.md): source addresses by the flow, from a network, and segments that
//! fit. Attributes that nobody sees who has not set them, and that stay when others change the service.

use std::collections::HashMap;
use std::net::IpAddr;

use anyhow::{ensure, Context, Result};

use super::rvsadm::Tool;
use crate::genl::{find, Attrs};
use crate::ipvs::{cmd, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{octets, Pkt, ACK, SYN, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::tap::{Frame, Tap};
use crate::topo::{at, mac, Family, Topo};
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "tunnel_extras",
    "a tunnel's source by the flow, segments that fit",
    &[],
    run,
)
.only_peer(Peer::Rvs, "C has neither")
.with_rvsadm();

const SOURCES_V4: u16 = 64;
const SOURCES_V6: u16 = 65;
const MSS: u16 = 66;

fn sources(addr: IpAddr, len: u8) -> (u16, Vec<u8>) {
    let mut value = octets(addr);
    value.extend([len, 0, 0, 0]);
    let number = if addr.is_ipv4() {
        SOURCES_V4
    } else {
        SOURCES_V6
    };
    (number, value)
}

fn network(outer: Family) -> Result<(IpAddr, u8)> {
    Ok(match outer {
        Family::V4 => ("10.77.0.0".parse()?, 22),
        Family::V6 => ("fd77::".parse()?, 64),
    })
}

fn run(cx: &Cx) -> Result<()> {
    attributes()?;
    for outer in Family::BOTH {
        for (inner, kind) in [
            (Family::V4, ""),
            (Family::V6, "--tun-type gue --tun-port 6080 --tun-csum"),
        ] {
            spread(inner, outer, kind).with_context(|| format!("{inner:?} in {outer:?} {kind}"))?;
        }
    }
    for family in Family::BOTH {
        fits(cx, family).with_context(|| format!("segments, {family:?}"))?;
    }
    Ok(())
}

fn attributes() -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let vip = at(Family::V4.vip(), 80);
    let full = || svc_full(TCP, vip, "rr");
    let shown = |number: u16| -> Result<Option<Vec<u8>>> {
        let reply = ipvs.ok(cmd::GET_SERVICE, &for_svc(&svc_id(TCP, vip)))?;
        let attrs = &reply.msgs.first().context("no service")?.attrs;
        let nest = find(attrs, 1).context("no nest")?;
        Ok(find(nest, number).map(<[u8]>::to_vec))
    };
    let refused = |what: &str, attrs: &Attrs| -> Result<()> {
        let errno = ipvs.call(cmd::SET_SERVICE, &for_svc(attrs))?.errno;
        ensure!(errno == libc::EINVAL, "{what}: {errno}");
        Ok(())
    };
    let (v4, four) = sources("10.77.0.0".parse()?, 16);
    let (v6, six) = sources("fd77::".parse()?, 64);

    // Nobody sees what nobody has set.
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&full()))?;
    for number in [v4, v6, MSS] {
        ensure!(shown(number)?.is_none(), "attribute {number}");
    }
    // One at a time: the others stay.
    ipvs.ok(cmd::SET_SERVICE, &for_svc(&full().put(v4, &four)))?;
    ipvs.ok(cmd::SET_SERVICE, &for_svc(&full().put(v6, &six)))?;
    ipvs.ok(cmd::SET_SERVICE, &for_svc(&full().u8(MSS, 1)))?;
    let all = || -> Result<bool> {
        Ok(shown(v4)?.as_ref() == Some(&four)
            && shown(v6)?.as_ref() == Some(&six)
            && shown(MSS)? == Some(vec![1]))
    };
    ensure!(all()?, "what was set is not shown");
    // Clients that know nothing of it leave it alone, and are not confused.
    rig.ipvsadm(&format!("-E -t {vip} -s wrr"))?;
    ensure!(all()?, "ipvsadm -E took it away");
    let listing = rig.ipvsadm("-Ln")?;
    ensure!(listing.contains("wrr"), "{listing}");
    // Refused, and nothing changes.
    for (what, number, value) in [
        ("short", v4, vec![10, 0, 0, 0]),
        ("long prefix", v4, sources("10.77.0.0".parse()?, 33).1),
        ("short prefix", v4, sources("10.0.0.0".parse()?, 7).1),
        (
            "bits behind the prefix",
            v4,
            sources("10.77.0.1".parse()?, 16).1,
        ),
        ("multicast", v4, sources("224.0.0.0".parse()?, 16).1),
        ("loopback", v4, sources("127.0.0.0".parse()?, 16).1),
        ("nothing", v4, vec![]),
        ("multicast", v6, sources("ff00::".parse()?, 64).1),
        ("of the other family", v6, four.clone()),
        ("neither", MSS, vec![2]),
        ("two bytes", MSS, vec![1, 0]),
    ] {
        refused(what, &full().put(number, &value))?;
        ensure!(all()?, "{what}: refused, but changed");
    }
    // Off again.
    let off = full().put(v4, &[0; 8]).put(v6, &[0; 20]).u8(MSS, 0);
    ipvs.ok(cmd::SET_SERVICE, &for_svc(&off))?;
    for number in [v4, v6, MSS] {
        ensure!(
            shown(number)?.is_none(),
            "attribute {number} is still there"
        );
    }
    // A service that goes takes it along, also if it comes back soon.
    ipvs.ok(cmd::SET_SERVICE, &for_svc(&full().put(v4, &four)))?;
    rig.ipvsadm(&format!("-a -t {vip} -r 10.8.1.1:80 -i"))?;
    ipvs.ok(cmd::DEL_SERVICE, &for_svc(&svc_id(TCP, vip)))?;
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&full()))?;
    ensure!(shown(v4)?.is_none(), "it came back");
    // And a new one may have it at once.
    ipvs.ok(cmd::DEL_SERVICE, &for_svc(&svc_id(TCP, vip)))?;
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&full().put(v6, &six)))?;
    ensure!(shown(v6)?.is_some(), "a new one does not have it");
    Ok(())
}

fn spread(inner: Family, outer: Family, kind: &str) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, rs) = (at(inner.vip(), 80), outer.raw_rs(1));
    let (net, len) = network(outer)?;
    let (number, value) = sources(net, len);
    ipvs.ok(
        cmd::NEW_SERVICE,
        &for_svc(&svc_full(TCP, vip, "rr").put(number, &value)),
    )?;
    rig.ipvsadm(&format!("-a -t {vip} -r {} -i {kind}", at(rs, 80)))?;
    let flows: u16 = if slow() == 1.0 { 1000 } else { 400 };
    let mut by_flow = HashMap::new();
    for flags in [SYN, ACK] {
        for first in (0..flows).step_by(50) {
            let pkts: Vec<Pkt> = (first..first + 50)
                .map(|n| {
                    let client = at(inner.raw_client(1 + n % 7), 4000 + n);
                    Pkt::tcp(client, vip, flags).with(|p| p.body = n.to_be_bytes().to_vec())
                })
                .collect();
            let io = rig.exchange(Side::Client, &pkts)?;
            ensure!(
                io.server.len() == 50 && io.client.is_empty(),
                "{} packets",
                io.server.len()
            );
            for frame in &io.server {
                let came = &frame.pkt;
                ensure!(came.dst == rs && came.csum_ok, "{came:?}");
                // The last two bytes of the request say which flow it is of.
                let n = match frame.raw[..] {
                    [.., a, b] => u16::from_be_bytes([a, b]),
                    _ => 0,
                };
                ensure!(inside(came.src, outer), "from {}", came.src);
                let known = by_flow.entry(n).or_insert(came.src);
                ensure!(
                    *known == came.src,
                    "flow {n}: from {known}, then {}",
                    came.src
                );
            }
        }
    }
    let mut all: Vec<IpAddr> = by_flow.values().copied().collect();
    all.sort();
    all.dedup();
    println!("{} flows from {} addresses", by_flow.len(), all.len());
    ensure!(
        by_flow.len() == usize::from(flows) && all.len() >= 200,
        "{} flows from {} addresses",
        by_flow.len(),
        all.len()
    );
    // Without it: the route's source.
    let off = svc_full(TCP, vip, "rr").put(number, &vec![0; value.len()]);
    ipvs.ok(cmd::SET_SERVICE, &for_svc(&off))?;
    let came = rig.forwarded(&Pkt::tcp(at(inner.raw_client(1), 4000), vip, ACK))?;
    ensure!(came.src == outer.director_at(1), "from {}", came.src);
    Ok(())
}

fn inside(addr: IpAddr, outer: Family) -> bool {
    let bytes = octets(addr);
    match outer {
        Family::V4 => {
            bytes[..2] == [10, 77]
                && bytes[2] < 4
                && bytes != [10, 77, 0, 0]
                && bytes != [10, 77, 3, 255]
        }
        Family::V6 => bytes[..8] == [0xfd, 0x77, 0, 0, 0, 0, 0, 0] && bytes[8..] != [0; 8],
    }
}

/// The maximum segment size that a SYN announces.
fn mss(frame: &Frame) -> Option<u16> {
    let l4 = frame.raw.get(if frame.pkt.is_v4() { 20 } else { 40 }..)?;
    let end = usize::from(l4.get(12)? >> 4) * 4;
    let mut options = l4.get(20..end)?;
    while let [kind, rest @ ..] = options {
        match (kind, rest) {
            (1, rest) => options = rest,
            (2, [4, a, b, ..]) => return Some(u16::from_be_bytes([*a, *b])),
            (0, _) => return None,
            (_, [size, ..]) => options = options.get(usize::from(*size).max(2)..)?,
            _ => return None,
        }
    }
    None
}

/// A client that lets its packets be fragmented sends a lot through a tunnel over a narrow link: fragments, and none if
/// segments are made to fit. The server's replies pass the director.
fn fits(cx: &Cx, family: Family) -> Result<()> {
    let topo = Topo::new(1)?;
    let (vip, rs) = (at(family.vip(), 80), family.rs(1));
    let here = &topo.rs[0];
    topo.director
        .set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    topo.client.set_sysctl("net.ipv4.ip_no_pmtu_disc", 1)?;
    // What comes out of the tunnel is not looked at: the tap sees what goes in.
    let (six, net, via) = match family {
        Family::V4 => ("", "10.0.1.0/24", ""),
        Family::V6 => ("-6 ", "fd00:0:0:1::/64", " metric 256"),
    };
    topo.director.cmd(&format!(
        "ip {six}route replace {net} dev s1{via} mtu lock 1400"
    ))?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {} -i", at(rs, 80)))?;
    let ipvs = Ipvs::open(&topo.director)?;
    let (stap, ctap) = (
        Tap::open(here, "eth0", mac(1, 2), mac(1, 1))?,
        Tap::open(&topo.client, "eth0", mac(0, 2), mac(0, 1))?,
    );
    Tool::new(cx, here)?.ok(&format!("realserver setup --tunnel {}", vip.ip()))?;
    let _server = Server::tcp(here, vip, "rs1")?;
    let overhead = if family == Family::V4 {
        20 + 40
    } else {
        40 + 60
    };
    for on in [0u8, 1] {
        let set = svc_full(TCP, vip, "rr").u8(MSS, on);
        ipvs.ok(cmd::SET_SERVICE, &for_svc(&set))?;
        stap.drain()?;
        ctap.drain()?;
        let stream = serve::connect(&topo.client, vip)?;
        let n = 30_000;
        serve::give(&stream, n)?;
        let told: Vec<u16> = ctap
            .drain()?
            .iter()
            .filter(|f| !f.outgoing && f.pkt.flags == SYN | ACK)
            .filter_map(|f| {
                assert!(f.pkt.csum_ok || f.partial, "{f:?}");
                mss(f)
            })
            .collect();
        let room = 1400 - overhead;
        let full = if family == Family::V4 { 1460 } else { 1440 };
        ensure!(
            told.iter().all(|m| *m == if on == 1 { room } else { full }) && !told.is_empty(),
            "{on}: told {told:?}, room {room}"
        );
        let seen = stap.drain()?;
        let fragments = seen
            .iter()
            .filter(|f| !f.outgoing && f.pkt.frag.is_some())
            .count();
        println!(
            "{family:?}, {on}: {} frames, {fragments} fragments",
            seen.len()
        );
        // IPv6 senders never let their packets be fragmented; they are told instead.
        ensure!(
            (fragments == 0) == (on == 1 || family == Family::V6),
            "{on}: {fragments} fragments"
        );
    }
    Ok(())
}
