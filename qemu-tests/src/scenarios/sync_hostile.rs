// SPDX-License-Identifier: GPL-2.0-or-later

//! A backup that hears anything at all: random bytes, and datagrams of a master with bytes changed, cut off and put together anew.
//! The kernel has no word about it, the director balances all the while, and hears what is right afterwards.
//!
//! Proves checklist item 135 (with `sync_backup`).

use std::time::Instant;

use anyhow::{ensure, Result};

use super::sync_master::{services, GOLDEN, TCP_PORT, UDP_PORT};
use crate::pkt::{Pkt, ACK, SYN, TCP, UDP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Rng, Scenario};
use crate::sync::{
    datagram_v0, datagram_v1, rows, sized, unhex, Backup, Link, Record, ESTABLISHED, NAT,
};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "sync_hostile",
    "a backup survives whatever it hears",
    &[135],
    run,
);

/// A record of which each field is often right.
fn record(rng: &mut Rng) -> Record {
    let family = Family::BOTH[usize::from(rng.chance(3))];
    let port = [TCP_PORT, UDP_PORT, 81, 90, 0][rng.below(5)];
    let vip = match rng.below(4) {
        0 => at(family.raw_rs(rng.below(4) as u8), port),
        _ => at(family.vip(), port),
    };
    let flags = match rng.below(4) {
        0 => rng.word() as u32,
        _ => [0, 0x100, 0x1000, 0x600, 0x800, 3, 2, 5][rng.below(8)],
    };
    Record::new(
        [TCP, UDP, 132, 51, 0, rng.word() as u8][rng.below(6)],
        at(
            family.raw_client(0x8000 + rng.below(300) as u16),
            rng.below(3) as u16,
        ),
        vip,
        at(
            family.raw_rs(rng.below(3) as u8),
            [8080, 5300][rng.below(2)],
        ),
        flags,
        rng.below(16) as u16,
    )
    .with(|r| {
        r.fwmark = [0, 0x1234, rng.word() as u32][rng.below(3)];
        r.timeout = [0, 1, 100, rng.word() as u32][rng.below(4)];
        for _ in 0..rng.below(3) {
            let kind = [1, 2, 3, 0x41, 0x49, rng.word() as u8][rng.below(6)];
            let len = [24, 3, 1, 16, 255, 0][rng.below(6)];
            r.options.push((kind, rng.bytes(len)));
        }
    })
}

/// A datagram of which most is right, most of the time.
fn datagram(rng: &mut Rng, golden: &[Vec<u8>]) -> Vec<u8> {
    let count = rng.below(12);
    let mut b = match rng.below(8) {
        0 => {
            let len = [0, 1, 4, 8, 44, 300, 1400][rng.below(7)];
            rng.bytes(len)
        }
        1 => golden[rng.below(golden.len())].clone(),
        2 | 3 => {
            let records: Vec<_> = (0..count).map(|_| record(rng).v0()).collect();
            datagram_v0(rng.below(3) as u8, &records)
        }
        _ => {
            let records: Vec<_> = (0..count).map(|_| record(rng).v1()).collect();
            datagram_v1(rng.below(3) as u8, &records)
        }
    };
    for _ in 0..[0, 0, 1, 3, 20][rng.below(5)] {
        if b.is_empty() {
            break;
        }
        let n = rng.below(b.len());
        match rng.below(4) {
            0 => b[n] ^= 1 << rng.below(8),
            1 => b[n] = [0, 1, 0xff, 36, 72][rng.below(5)],
            2 => b.truncate(n),
            _ => b.insert(n, rng.word() as u8),
        }
    }
    // Mostly it is as long as it says: otherwise nobody looks further.
    if b.len() >= 4 && !rng.chance(20) {
        b = sized(b);
    }
    b
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let director = &rig.topo.director;
    // However much it hears, the table has an end.
    director.set_sysctl("net.ipv4.vs.conn_max", 20_000)?;
    let link = Link::new(director)?;
    let backup = Backup::start(director, &link, "")?;
    let golden: Vec<Vec<u8>> = GOLDEN
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| unhex(l.split_once(": ")?.1).ok())
        .collect();
    let mut rng = Rng::new(cx.seed);
    let begin = Instant::now();
    let (vip, rs) = (
        at(Family::V4.vip(), TCP_PORT),
        at(Family::V4.raw_rs(1), 8080),
    );
    for round in 0..rounds(100) as u16 {
        for _ in 0..100 {
            // A full buffer loses some: on the way, that is.
            backup.socket.send(&datagram(&mut rng, &golden))?;
        }
        backup.heard()?;
        let client = at(Family::V4.raw_client(0x100 + round), 4000);
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == rs, "{came:?}");
        let came = rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
        ensure!(came.source() == vip, "{came:?}");
        let mine = proc::conn(director, client)?;
        ensure!(mine.is_some(), "round {round}: my connection is gone");
        if round % 10 == 0 {
            // Packets of connections that nobody opened, and the lists of all.
            for row in rows(director)?
                .iter()
                .filter(|row| row.proto == "TCP")
                .take(20)
            {
                rig.ctap.send(&Pkt::tcp(row.client, row.vip, ACK))?;
            }
            rig.drain()?;
            let listed = rig.ipvsadm("-Lnc")?;
            ensure!(listed.lines().count() > 2, "{listed}");
        }
    }
    let made = rows(director)?.iter().filter(|row| row.synced).count();
    println!(
        "{} datagrams made {made} connections in {:.1?}",
        100 * rounds(100),
        begin.elapsed()
    );
    ensure!(made > 100, "{made}: nobody listened");
    // What is right is heard.
    let right = Record::new(
        TCP,
        at(Family::V4.raw_client(0x7fff), 1),
        vip,
        rs,
        NAT,
        ESTABLISHED,
    );
    let there = backup.say(&[datagram_v1(0, &[right.v1()])])?;
    ensure!(there.iter().any(|row| row.client == right.client), "deaf");
    rig.ipvsadm("--stop-daemon backup")?;
    Ok(())
}
