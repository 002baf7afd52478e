// SPDX-License-Identifier: GPL-2.0-or-later

//! Source hashing: 256 slots, given to the servers in turn, as many in a row as their weights say;
//! the hash of the client's address chooses, with its port on request, and on request the next
//! server that takes connections stands in.
//!
//! Proves checklist items 53 and, for sh, 57.

use anyhow::{ensure, Result};

use super::sched_marked::{fold, hash8, Marked, FALLBACK, PORT};
use crate::pkt::Pkt;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_sh",
    "source hashing, with weights, ports and fallback",
    &[53],
    run,
)
.partly(&[57]);

const CLIENTS: u16 = 150;

/// The 256 slots of servers (host, weight).
fn table(servers: &[(u8, usize)]) -> Vec<u8> {
    servers
        .iter()
        .flat_map(|&(host, weight)| std::iter::repeat_n(host, weight.max(1)))
        .cycle()
        .take(if servers.is_empty() { 0 } else { 256 })
        .collect()
}

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    for (mark, family) in (80..).zip(Family::BOTH) {
        let service = m.service(family, mark, "sh", 0)?;
        let mut port = 1000;
        // The newest server first; `out` take nothing.
        let mut expect = |servers: &[(u8, usize)], out: &[u8], flags: u32, what: &str| {
            m.change(&service, "sh", flags)?;
            port += 200;
            let pkts: Vec<Pkt> = (1..=CLIENTS)
                .map(|n| service.udp(n, port + n, n % 3))
                .collect();
            let table = table(servers);
            let want: Vec<u8> = pkts
                .iter()
                .map(|p| {
                    let key = if flags & PORT != 0 { p.sport } else { 0 };
                    let slot = hash8(fold(p.src).wrapping_add(key.into()));
                    // Who stands in is as far from the slot as the slot is from the start.
                    let others = (0..256).map(|n| (slot + slot + n) % 256);
                    std::iter::once(slot)
                        .chain(others.filter(|_| flags & FALLBACK != 0))
                        .filter_map(|slot| table.get(slot).copied())
                        .find(|host| !out.contains(host))
                        .unwrap_or(0)
                })
                .collect();
            let got = m.connect(&pkts)?;
            ensure!(got == want, "{what}, {flags}: {got:?}, expected {want:?}");
            Ok(())
        };
        expect(&[], &[], FALLBACK, "no server")?;
        for (host, weight) in [(1, 1), (2, 20), (3, 4)] {
            m.add(&service, host, weight)?;
        }
        let servers = [(3, 4), (2, 20), (1, 1)];
        for flags in [0, PORT, FALLBACK, FALLBACK | PORT] {
            expect(&servers, &[], flags, "three servers")?;
        }
        m.edit(&service, 2, 0, 0)?;
        let servers = [(3, 4), (2, 0), (1, 1)];
        for flags in [0, PORT, FALLBACK, FALLBACK | PORT] {
            expect(&servers, &[2], flags, "weight 0")?;
        }
        m.edit(&service, 2, 20, 0)?;
        m.edit(&service, 3, 50, 1)?;
        let servers = [(3, 50), (2, 20), (1, 1)];
        for flags in [0, PORT, FALLBACK, FALLBACK | PORT] {
            expect(&servers, &[3], flags, "overloaded")?;
        }
        m.edit(&service, 1, 0, 0)?;
        m.edit(&service, 2, 0, 0)?;
        let servers = [(3, 50), (2, 0), (1, 0)];
        expect(&servers, &[1, 2, 3], 0, "nobody")?;
        expect(&servers, &[1, 2, 3], FALLBACK, "nobody")?;
        m.edit(&service, 2, 5, 0)?;
        m.delete(&service, 3)?;
        expect(&[(2, 5), (1, 0)], &[1], 0, "one is gone")?;
        m.add(&service, 3, 1000)?;
        expect(&[(3, 1000)], &[], 0, "more weight than slots")?;
    }
    Ok(())
}
