// SPDX-License-Identifier: GPL-2.0-or-later

//! Destination hashing: 256 slots, given to the servers in turn, whatever their weights; the hash of
//! the target's address chooses, and no other server stands in.
//!
//! Proves checklist items 52 and, for dh, 57.

use anyhow::{ensure, Result};

use super::sched_marked::{fold, hash8, Marked};
use crate::pkt::{octets, Pkt};
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario =
    Scenario::new("sched_dh", "destination hashing", &[52], run).partly(&[57]);

const TARGETS: u16 = 150;

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    for (mark, family) in (80..).zip(Family::BOTH) {
        let service = m.service(family, mark, "dh", 0)?;
        let mut port = 1000;
        // Servers by slot, the newest first; those that take nothing are 0.
        let mut expect = |servers: &[u8], what: &str| -> Result<()> {
            port += 1;
            let pkts: Vec<Pkt> = (1..=TARGETS).map(|n| service.udp(n % 7, port, n)).collect();
            let want: Vec<u8> = pkts
                .iter()
                .map(|p| {
                    let slot = hash8(fold(p.dst));
                    servers
                        .get(slot % servers.len().max(1))
                        .copied()
                        .unwrap_or(0)
                })
                .collect();
            let got = m.connect(&pkts)?;
            ensure!(
                got == want,
                "{what}: {got:?}, expected {want:?} for {:?}",
                pkts.iter().map(|p| octets(p.dst)).collect::<Vec<_>>()
            );
            Ok(())
        };
        expect(&[], "no server")?;
        for (host, weight) in [(1, 1), (2, 100), (3, 7)] {
            m.add(&service, host, weight)?;
        }
        expect(&[3, 2, 1], "three servers")?;
        m.edit(&service, 2, 0, 0)?;
        expect(&[3, 0, 1], "weight 0")?;
        m.edit(&service, 2, 3, 1)?;
        expect(&[3, 0, 1], "overloaded")?;
        m.edit(&service, 2, 3, 0)?;
        expect(&[3, 2, 1], "available again")?;
        m.delete(&service, 3)?;
        expect(&[2, 1], "one is gone")?;
        m.add(&service, 3, 1)?;
        m.add(&service, 4, 0)?;
        expect(&[0, 3, 2, 1], "it came back, and another one with weight 0")?;
    }
    Ok(())
}
