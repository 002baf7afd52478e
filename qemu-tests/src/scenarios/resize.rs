// SPDX-License-Identifier: GPL-2.0-or-later

//! The connection table grows with its connections and shrinks when told to, under traffic, and no
//! packet of any connection gets lost.
//!
//! Proves checklist items 12 (live size), 66 and 67.

use anyhow::{ensure, Result};

use crate::ipvs::Ipvs;
use crate::pkt::Pkt;
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "resize",
    "the connection table grows and shrinks under traffic",
    &[12, 66, 67],
    run,
)
.timeout(90.0);

/// Sends one packet of each connection and counts those that came through, to the server and back.
fn all(rig: &Rig, clients: &[Pkt]) -> Result<()> {
    for chunk in clients.chunks(200) {
        let there = rig.exchange(Side::Client, chunk)?;
        ensure!(
            there.server.len() == chunk.len(),
            "{} of {} packets came through",
            there.server.len(),
            chunk.len()
        );
        let back: Vec<Pkt> = there.server.iter().map(|f| f.pkt.back()).collect();
        let io = rig.exchange(Side::Server, &back)?;
        ensure!(
            io.client.len() == back.len(),
            "{} of {} answers came through",
            io.client.len(),
            back.len()
        );
        let vip = chunk[0].dest();
        ensure!(
            io.client
                .iter()
                .all(|f| f.pkt.source() == vip && f.pkt.csum_ok),
            "an answer was not un-NATed"
        );
    }
    Ok(())
}

fn run(_cx: &Cx) -> Result<()> {
    let many: u16 = if slow() > 2.0 { 1_500 } else { 6_000 };
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let mut clients = Vec::new();
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 53), at(family.raw_rs(1), 53));
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        let list: Vec<Pkt> = (0..many / 2)
            .map(|n| Pkt::udp(at(family.raw_client(n % 251), 1000 + n), vip, b"x"))
            .collect();
        clients.push(list);
    }
    ensure!(
        ipvs.info()?.1 == 256,
        "the table starts with {} buckets",
        ipvs.info()?.1
    );
    // Growing as they come.
    for list in &clients {
        all(&rig, list)?;
    }
    // Four buckets a connection, but no more than conn_tab_bits allows: 2^12.
    let grown = 4096;
    until_true(
        &format!("the table has grown to {grown} buckets"),
        10.0,
        || Ok(ipvs.info()?.1 == grown),
    )?;
    for list in &clients {
        all(&rig, list)?;
    }
    until_true("all connections are listed", 5.0, || {
        Ok(proc::conns(&rig.topo.director)?.len() == usize::from(many))
    })?;
    let text = rig.topo.director.read("/proc/net/ip_vs")?;
    ensure!(
        text.starts_with(&format!("IP Virtual Server version 1.2.1 (size={grown})\n")),
        "{text}"
    );

    // Told to be smaller and bigger while packets flow. What is listed twice or not at all during
    // that is counted at the end.
    if rig.topo.director.sysctl("net.ipv4.vs.conn_lfactor").is_ok() {
        for factor in ["1", "-1", "3", "-2"] {
            rig.topo
                .director
                .set_sysctl("net.ipv4.vs.conn_lfactor", factor)?;
            for list in &clients {
                all(&rig, list)?;
            }
        }
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.conn_lfactor", 4)?;
        let want = (u32::from(many).next_power_of_two() >> 4).max(256);
        until_true(
            &format!("the table has shrunk to {want} buckets"),
            10.0,
            || Ok(ipvs.info()?.1 == want),
        )?;
        for list in &clients {
            all(&rig, list)?;
        }
    }
    until_true("all connections are listed", 5.0, || {
        let mut clients: Vec<_> = proc::conns(&rig.topo.director)?
            .iter()
            .map(|c| c.client)
            .collect();
        clients.sort();
        clients.dedup();
        Ok(clients.len() == usize::from(many))
    })?;

    // They all expire and the table is the smaller for it.
    rig.topo.director.cmd("ipvsadm --set 0 0 1")?;
    for list in &clients {
        for chunk in list.chunks(200) {
            rig.exchange(Side::Client, chunk)?;
        }
    }
    until_true("all connections expire", 15.0, || {
        Ok(proc::conns(&rig.topo.director)?.is_empty())
    })
}
