// SPDX-License-Identifier: GPL-2.0-or-later

//! The defense against floods: drop_packet, drop_entry and secure_tcp, by hand and by memory.
//!
//! Proves checklist items 78, 79, 80, 81 and 83.

use anyhow::{ensure, Context, Result};
use rvs_core::proto::tcp::{self, Table};
use rvs_core::proto::Direction;

use crate::pkt::{Pkt, ACK, FIN, RST, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "defense",
    "drop_packet, drop_entry and secure_tcp",
    &[78, 79, 80, 81, 83],
    run,
)
.timeout(90.0);

fn run(cx: &Cx) -> Result<()> {
    modes()?;
    packets()?;
    entries()?;
    secure_tcp(&mut Rng::new(cx.seed))
}

fn rig() -> Result<Rig> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 80));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    Ok(rig)
}

fn set(rig: &Rig, name: &str, value: impl ToString) -> Result<()> {
    rig.topo
        .director
        .set_sysctl(&format!("net.ipv4.vs.{name}"), value)
}

/// The automatic modes show whether memory is short, as soon as they are set.
fn modes() -> Result<()> {
    let rig = rig()?;
    for name in ["drop_entry", "drop_packet", "secure_tcp"] {
        let shown = || rig.topo.director.sysctl(&format!("net.ipv4.vs.{name}"));
        set(&rig, "amemthresh", 0)?;
        set(&rig, name, 1)?;
        ensure!(shown()? == "1", "{name}: {}", shown()?);
        set(&rig, name, 2)?;
        ensure!(shown()? == "1", "{name} with memory: {}", shown()?);
        set(&rig, name, 0)?;
        set(&rig, "amemthresh", i32::MAX)?;
        set(&rig, name, 1)?;
        ensure!(shown()? == "2", "{name} without memory: {}", shown()?);
        // Memory comes back: the mode follows within seconds.
        set(&rig, "amemthresh", 0)?;
        until_true("memory is noticed", 4.0, || Ok(shown()? == "1"))?;
        set(&rig, name, 3)?;
        ensure!(shown()? == "3", "{name}: {}", shown()?);
        set(&rig, name, 0)?;
    }
    Ok(())
}

fn packets() -> Result<()> {
    let rig = rig()?;
    let vip = at(Family::V4.vip(), 80);
    let client = |port| at(Family::V4.raw_client(1), port);
    let passes = |port, flags| -> Result<bool> {
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client(port), vip, flags)])?;
        Ok(!io.server.is_empty())
    };
    ensure!(passes(1000, SYN)?, "without defense");
    set(&rig, "am_droprate", 3)?;
    set(&rig, "drop_packet", 3)?;
    let mut passed = Vec::new();
    for port in 2000..2012 {
        passed.push(passes(port, SYN)?);
    }
    // One of three, wherever the count began; and only what would be scheduled.
    let first = passed.iter().position(|p| !p).context("none dropped")?;
    for (i, passed) in passed.iter().enumerate() {
        ensure!(*passed == (i % 3 != first % 3), "packet {i}: {passed}");
    }
    for _ in 0..9 {
        ensure!(passes(1000, ACK)?, "a packet of a connection");
    }
    // All of them.
    set(&rig, "drop_packet", 0)?;
    set(&rig, "am_droprate", 1)?;
    set(&rig, "drop_packet", 3)?;
    for port in 3000..3005 {
        ensure!(!passes(port, SYN)? || port == 3000, "port {port}");
    }
    set(&rig, "drop_packet", 0)?;
    ensure!(passes(4000, SYN)?, "switched off");
    Ok(())
}

/// Half-open connections go first; established ones that had a packet lately stay.
fn entries() -> Result<()> {
    let rig = rig()?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 80));
    let client = |port| at(Family::V4.raw_client(1), port);
    let half: Vec<Pkt> = (1..=200)
        .map(|n| Pkt::tcp(client(1000 + n), vip, SYN))
        .collect();
    rig.exchange(Side::Client, &half)?;
    for n in 1..=40 {
        let from = client(2000 + n);
        rig.forwarded(&Pkt::tcp(from, vip, SYN))?;
        rig.returned(&Pkt::tcp(rs, from, SYN | ACK))?;
        rig.forwarded(&Pkt::tcp(from, vip, ACK))?;
    }
    set(&rig, "drop_entry", 3)?;
    let count = |state: &str| -> Result<usize> {
        let rows = proc::conns(&rig.topo.director)?;
        Ok(rows.iter().filter(|c| c.state == state).count())
    };
    // A thirty-second part of the table each second, somewhere.
    until_true("half-open connections are dropped", 15.0, || {
        Ok(count("SYN_RECV")? < 195)
    })?;
    let (open, half) = (count("ESTABLISHED")?, count("SYN_RECV")?);
    ensure!(
        open == 40 && half > 50,
        "{open} established, {half} half-open"
    );
    set(&rig, "drop_entry", 0)?;
    Ok(())
}

/// Random walks through the states, with the other table.
fn secure_tcp(rng: &mut Rng) -> Result<()> {
    let rig = rig()?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 80));
    set(&rig, "secure_tcp", 3)?;
    let mut differ = 0;
    for walk in 0..60u16 {
        let client = at(Family::V4.raw_client(1), 5000 + walk);
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        let first = |table| tcp::transition(table, Direction::Input, tcp::State::NONE, SYN);
        let (mut state, mut usual) = (first(Table::Dos), first(Table::Normal));
        for _ in 0..5 {
            let flags = [SYN, SYN | ACK, ACK, FIN | ACK, RST | ACK][rng.below(5)];
            let from_client = rng.below(2) == 0;
            // A SYN on a connection that is over begins another.
            if from_client && flags & SYN != 0 {
                continue;
            }
            let (dir, side, pkt) = if from_client {
                (Direction::Input, Side::Client, Pkt::tcp(client, vip, flags))
            } else {
                (Direction::Output, Side::Server, Pkt::tcp(rs, client, flags))
            };
            rig.exchange(side, &[pkt])?;
            state = tcp::transition(Table::Dos, dir, state, flags);
            usual = tcp::transition(Table::Normal, dir, usual, flags);
            differ += u32::from(state != usual);
            let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
            ensure!(
                conn.state == tcp::state_name(state),
                "walk {walk}: {flags:#x} ({dir:?}) leads to {}, expected {}",
                conn.state,
                tcp::state_name(state)
            );
        }
    }
    ensure!(differ > 10, "the walks do not tell the tables apart");
    Ok(())
}
