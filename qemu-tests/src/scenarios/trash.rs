// SPDX-License-Identifier: GPL-2.0-or-later

//! What becomes of removed destinations: back in their service they have their connections, counts and counters again; back in a
//! service that was removed, too, the connections and counts, but new counters; after two minutes without connections nothing.
//!
//! Proves checklist item 61; the last part, which takes four minutes, only with `RVS_LONG=1`. With what the schedulers make of it: `sched_history`.

use std::net::SocketAddr;

use anyhow::{ensure, Result};

use crate::ipvs::{Dest, Ipvs};
use crate::pkt::{Pkt, ACK, FIN, SYN, TCP, UDP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{pass, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "trash",
    "removed destinations that come back, to the same service or another one",
    &[61],
    run,
)
.timeout(300.0);

fn run(_: &Cx) -> Result<()> {
    for family in Family::BOTH {
        revival(family)?;
        another(family)?;
    }
    if std::env::var_os("RVS_LONG").is_some() {
        forgotten()?;
    }
    Ok(())
}

/// Connections and counters of a destination, once it counts `packets`.
fn counted(ipvs: &Ipvs, vip: SocketAddr, rs: SocketAddr, packets: u64) -> Result<Dest> {
    let mut seen = ipvs.dest(TCP, vip, rs)?;
    until_true(&format!("{packets} packets are counted"), 8.0, || {
        seen = ipvs.dest(TCP, vip, rs)?;
        Ok(seen.stats64.inpkts == packets)
    })?;
    Ok(seen)
}

/// Removed and added again.
fn revival(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let (one, two) = (
        at(family.raw_client(1), 4000),
        at(family.raw_client(2), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr -p 1000"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m -w 7 -x 50 -y 3"))?;
    for client in [one, two] {
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
        rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
    }
    rig.forwarded(&Pkt::tcp(two, vip, FIN | ACK))?;
    let before = counted(&ipvs, vip, rs, 5)?;
    ensure!(
        (before.active, before.inact, before.persist) == (1, 1, 2),
        "{before:?}"
    );
    for round in 0..3 {
        rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
        ensure!(ipvs.dests(TCP, vip)?.is_empty(), "it is still there");
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m -w {round}"))?;
        let after = ipvs.dest(TCP, vip, rs)?;
        let want = Dest {
            weight: round,
            u_thresh: 0,
            l_thresh: 0,
            ..before.clone()
        };
        ensure!(after == want, "{after:?}, it was {before:?}");
    }
    // Its connections are its own, and so is who had a template.
    rig.forwarded(&Pkt::tcp(one, vip, ACK))?;
    let again = at(one.ip(), 4001);
    ensure!(
        rig.forwarded(&Pkt::tcp(again, vip, SYN))?.dest() == rs,
        "another server"
    );
    let after = counted(&ipvs, vip, rs, 7)?;
    ensure!(
        (after.active, after.inact, after.persist) == (2, 1, 2),
        "{after:?}"
    );
    // Another port is another server.
    let other = at(rs.ip(), 8081);
    rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {other} -m"))?;
    let new = ipvs.dest(TCP, vip, other)?;
    ensure!(
        (new.active + new.inact + new.persist, new.stats64.inpkts) == (0, 0),
        "{new:?}"
    );
    Ok(())
}

/// Its service is removed, too, and made again, as another one.
fn another(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(family.raw_client(1), 4000);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
    counted(&ipvs, vip, rs, 2)?;
    for removed_before in [false, true] {
        if removed_before {
            rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
        }
        rig.ipvsadm(&format!("-D -t {vip}"))?;
        rig.ipvsadm(&format!("-A -t {vip} -s wlc"))?;
        ensure!(ipvs.dests(TCP, vip)?.is_empty(), "it came back by itself");
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let dest = ipvs.dest(TCP, vip, rs)?;
        ensure!(
            (dest.active, dest.inact) == (1, 0) && dest.stats64 == Default::default(),
            "{dest:?}"
        );
        // What comes on the old connection is counted for the new service.
        rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
        counted(&ipvs, vip, rs, 1)?;
        until_true("the service counts it", 8.0, || {
            let stats = ipvs.service(TCP, vip)?.stats64;
            Ok((stats.conns, stats.inpkts) == (0, 1))
        })?;
    }
    // For another service with the same real server it is a new one.
    let (other, mark) = (
        at(vip.ip(), 81),
        if family == Family::V6 { " -6" } else { "" },
    );
    rig.ipvsadm(&format!("-D -t {vip}"))?;
    rig.ipvsadm(&format!("-A -t {other} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {other} -r {rs} -m"))?;
    rig.ipvsadm(&format!("-A -f 9{mark} -s rr"))?;
    rig.ipvsadm(&format!("-a -f 9{mark} -r {rs} -m"))?;
    let dest = ipvs.dest(TCP, other, rs)?;
    ensure!((dest.active, dest.stats64.inpkts) == (0, 0), "{dest:?}");
    let text = rig.topo.director.read("/proc/net/ip_vs")?;
    let rows = text.lines().skip(3).filter(|line| line.starts_with("  ->"));
    for row in rows {
        let counts: Vec<&str> = row.split_whitespace().skip(3).collect();
        ensure!(counts == ["1", "0", "0"], "{text}");
    }
    ensure!(proc::conn(&rig.topo.director, client)?.is_some(), "gone");
    Ok(())
}

/// Two minutes after its last connection, and at most one more, it is forgotten with all its counters; with a connection it is
/// not.
fn forgotten() -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let vip = at(Family::V4.vip(), 53);
    let (idle, busy) = (at(Family::V4.raw_rs(1), 53), at(Family::V4.raw_rs(2), 53));
    let client = |n| at(Family::V4.raw_client(n), 4000);
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    let add = |rs: SocketAddr| rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m")).map(drop);
    let remove = |rs: SocketAddr| rig.ipvsadm(&format!("-d -u {vip} -r {rs}")).map(drop);
    let packets = |rs: SocketAddr| -> Result<u64> { Ok(ipvs.dest(UDP, vip, rs)?.stats64.inpkts) };
    add(idle)?;
    rig.ipvsadm("--set 0 0 1")?;
    rig.forwarded(&Pkt::udp(client(1), vip, b"x"))?;
    until_true("a packet is counted", 8.0, || Ok(packets(idle)? == 1))?;
    until_true("the connection ends", 10.0, || {
        Ok(proc::conns(&rig.topo.director)?.is_empty())
    })?;
    remove(idle)?;
    add(busy)?;
    rig.ipvsadm("--set 0 0 1000")?;
    rig.forwarded(&Pkt::udp(client(2), vip, b"x"))?;
    until_true("a packet is counted", 8.0, || Ok(packets(busy)? == 1))?;
    remove(busy)?;
    // Not yet, in either.
    pass(55.0);
    add(idle)?;
    ensure!(packets(idle)? == 1, "forgotten after a minute");
    remove(idle)?;
    pass(190.0);
    add(idle)?;
    ensure!(packets(idle)? == 0, "not forgotten after three minutes");
    add(busy)?;
    ensure!(packets(busy)? == 1, "forgotten with a connection");
    Ok(())
}
