// SPDX-License-Identifier: GPL-2.0-or-later

//! Direct routing: the packet as the client sent it, one hop on, to the real server's link; states
//! without the answers; a local real server; the method "local node"; ICMP errors; too little time
//! and too much length.
//!
//! Proves checklist items 102, and 108 and 109 for direct routing.

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest, dest_full, for_dest, svc_id, Ipvs};
use crate::pkt::{Pkt, ACK, FIN, ICMP, ICMPV6, SYN, TCP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario =
    Scenario::new("direct", "direct routing and local node", &[102], run).partly(&[108, 109]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        packets(family).with_context(|| format!("packets, {family:?}"))?;
        limits(family).with_context(|| format!("limits, {family:?}"))?;
        local(family).with_context(|| format!("local, {family:?}"))?;
    }
    Ok(())
}

fn packets(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 80),
        at(family.raw_client(1), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -g"))?;
    let sent = Pkt {
        ttl: 33,
        tos: 0x28,
        body: b"payload".to_vec(),
        ..Pkt::tcp(client, vip, SYN)
    };
    let came = rig.forwarded(&sent)?;
    let mut want = Pkt::parse(&sent.bytes(), false)?;
    want.ttl = 32;
    let mut got = came.clone();
    // What the wire may have rewritten.
    (got.id, want.id) = (0, 0);
    ensure!(
        format!("{got:?}") == format!("{want:?}") && came.csum_ok,
        "{got:?}, expected {want:?}"
    );

    // Its states go by what the client sends.
    let state = || -> Result<String> {
        let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
        ensure!(conn.dest == rs && conn.vip == vip, "{conn:?}");
        Ok(conn.state)
    };
    ensure!(state()? == "SYN_RECV", "{}", state()?);
    rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
    ensure!(state()? == "ESTABLISHED", "{}", state()?);
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let dest = ipvs.dest(TCP, vip, rs)?;
    ensure!((dest.active, dest.inact) == (1, 0), "{dest:?}");
    rig.forwarded(&Pkt::tcp(client, vip, FIN | ACK))?;
    ensure!(state()? == "FIN_WAIT", "{}", state()?);

    // UDP, and a server with another port: it makes no difference to the packet.
    let (vip, rs) = (at(family.vip(), 53), at(family.raw_rs(2), 5353));
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    let add = dest_full(rs, 1).with(dest::FWD_METHOD, &3u32.to_ne_bytes());
    ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(17, vip), &add))?;
    let came = rig.forwarded(&Pkt::udp(client, vip, b"question"))?;
    ensure!(
        came.source() == client && came.dest() == vip && came.csum_ok,
        "{came:?}"
    );
    // Wrong checksums are the server's business.
    let bad = Pkt {
        csum: Some(0x1234),
        ..Pkt::udp(client, vip, b"question")
    };
    let came = rig.forwarded(&bad)?;
    ensure!(came.csum == Some(0x1234), "{came:?}");

    // An error about an answer goes the same way, unchanged.
    let answer = Pkt::udp(vip, client, b"answer");
    let (kind, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
    let error = Pkt::icmp_error(client.ip(), vip.ip(), kind, code, 0, &answer.bytes());
    let came = rig.forwarded(&error)?;
    ensure!(
        came.dst == vip.ip() && came.icmp_type == kind && came.csum_ok,
        "{came:?}"
    );
    let listing = rig.ipvsadm("-Ln")?;
    ensure!(listing.matches(" Route ").count() == 2, "{listing}");
    Ok(())
}

fn limits(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 80),
        at(family.raw_client(1), 4000),
    );
    rig.topo.director.cmd("ip link set s1 mtu 1300")?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -g"))?;
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    let (late, long) = if family == Family::V4 {
        ((ICMP, 11, 0), (ICMP, 3, 4))
    } else {
        ((ICMPV6, 3, 0), (ICMPV6, 2, 0))
    };
    let answer = rig.answered(&Pkt {
        ttl: 1,
        ..Pkt::tcp(client, vip, ACK)
    })?;
    let kind = (answer.proto, answer.icmp_type, answer.icmp_code);
    ensure!(kind == late, "{answer:?}");
    let answer = rig.answered(&Pkt {
        body: vec![7; 1400],
        df: family == Family::V4,
        ..Pkt::tcp(client, vip, ACK)
    })?;
    let kind = (answer.proto, answer.icmp_type, answer.icmp_code);
    ensure!(
        kind == long && answer.icmp_rest & 0xffff == 1300,
        "{answer:?}"
    );
    // No way to the server.
    rig.topo
        .director
        .cmd(&format!("ip route add unreachable {}", family.raw_rs(9)))?;
    rig.ipvsadm(&format!(
        "-a -t {vip} -r {} -g -w 9",
        at(family.raw_rs(9), 80)
    ))?;
    rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
    let io = rig.exchange(Side::Client, &[Pkt::tcp(at(client.ip(), 4001), vip, SYN)])?;
    ensure!(io.server.is_empty(), "{io:#?}");
    Ok(())
}

/// A real server on the director: the packet is the VIP's own socket's.
fn local(family: Family) -> Result<()> {
    let topo = Topo::new(1)?;
    let vip = at(family.vip(), 80);
    let _server = Server::tcp(&topo.director, vip, "here")?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    let ipvs = Ipvs::open(&topo.director)?;
    let id = svc_id(TCP, vip);
    // By an address of the host with direct routing, and by the method that says so.
    for (addr, method) in [(family.director_at(1), 3u32), (family.rs(1), 1)] {
        let add: Attrs = dest_full(at(addr, 80), 1).with(dest::FWD_METHOD, &method.to_ne_bytes());
        ipvs.ok(cmd::NEW_DEST, &for_dest(&id, &add))?;
        for ns in [&topo.client, &topo.director] {
            for _ in 0..2 {
                let body = serve::http_get(ns, vip)?;
                ensure!(serve::name(&body) == "here", "{body:?}");
            }
        }
        let conns = proc::conns(&topo.director)?;
        ensure!(
            conns.iter().filter(|c| c.dest == at(addr, 80)).count() == 4,
            "{conns:#?}"
        );
        ipvs.ok(cmd::DEL_DEST, &for_dest(&id, &add))?;
    }
    Ok(())
}
