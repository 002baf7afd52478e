// SPDX-License-Identifier: GPL-2.0-or-later

//! Power of two choices: servers are drawn by weight, two for each connection, and the less loaded
//! one is taken. By their frequencies; each of these tests fails once in a million runs or less
//! often.
//!
//! Proves checklist items 51 and, for twos, 57.

use anyhow::{ensure, Result};

use super::sched_marked::{Marked, Service};
use crate::pkt::Pkt;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_twos",
    "the frequencies of power of two choices",
    &[51],
    run,
)
.partly(&[57]);

struct Test {
    m: Marked,
    service: Service,
    port: u16,
}

impl Test {
    /// How many of `n` connections the servers 1 to 3 got; and how many nobody got, first.
    fn share(&mut self, n: u16) -> Result<[usize; 4]> {
        let pkts: Vec<Pkt> = (0..n)
            .map(|i| self.service.udp(i % 5, self.port + i, 1))
            .collect();
        self.port += n;
        let hosts = self.m.connect(&pkts)?;
        Ok([0, 1, 2, 3].map(|host| hosts.iter().filter(|h| **h == host).count()))
    }

    fn want(&mut self, n: u16, ranges: [std::ops::RangeInclusive<usize>; 4]) -> Result<()> {
        let got = self.share(n)?;
        println!("{:?} got {got:?} of {n}", self.service.family);
        ensure!(
            got.iter()
                .zip(&ranges)
                .all(|(got, range)| range.contains(got)),
            "of {n}: {got:?}, expected {ranges:?}"
        );
        Ok(())
    }
}

fn run(_cx: &Cx) -> Result<()> {
    let mut m = Marked::new()?;
    for (mark, family) in (80..).zip(Family::BOTH) {
        let service = m.service(family, mark, "twos", 0)?;
        let mut t = Test {
            m,
            service,
            port: 1000,
        };
        t.want(5, [5..=5, 0..=0, 0..=0, 0..=0])?;
        // Weights as drawn: 3, the newest, has one draw more than its weight. The better one of two
        // evens out what chance does.
        for (host, weight) in [(1, 100), (2, 200), (3, 300)] {
            t.m.add(&service, host, weight)?;
        }
        t.want(900, [0..=0, 110..=190, 255..=345, 400..=500])?;
        // Without weight, or overloaded, a server is not drawn.
        t.m.edit(&service, 3, 0, 0)?;
        t.m.edit(&service, 2, 200, 1)?;
        t.want(200, [0..=0, 200..=200, 0..=0, 0..=0])?;
        t.m.edit(&service, 1, 0, 0)?;
        t.want(5, [5..=5, 0..=0, 0..=0, 0..=0])?;
        // Two servers, of which one has everything: it gets another one only if both draws are for
        // it. With weights 100 it is the newer one, of 101 draws in 201, with weights 1 of 2 in 3.
        t.m.delete(&service, 1)?;
        t.m.delete(&service, 2)?;
        t.m.delete(&service, 3)?;
        t.m.change(&service, "rr", 0)?;
        t.m.add(&service, 4, 100)?;
        t.m.connect(
            &(0..2000)
                .map(|i| service.udp(7, 20_000 + i, 2))
                .collect::<Vec<_>>(),
        )?;
        t.m.delete(&service, 4)?;
        t.m.add(&service, 1, 100)?;
        t.m.add(&service, 4, 100)?;
        t.m.change(&service, "twos", 0)?;
        let others = t.share(1000)?[1];
        ensure!(
            (670..=820).contains(&others),
            "the idle server got {others} of 1000"
        );
        t.m.edit(&service, 1, 1, 0)?;
        t.m.edit(&service, 4, 1, 0)?;
        let others = t.share(900)?[1];
        ensure!(
            (420..=580).contains(&others),
            "the idle server got {others} of 900"
        );
        m = t.m;
    }
    Ok(())
}
