// SPDX-License-Identifier: GPL-2.0-or-later

//! Weighted least connections: the overhead of least connections by weight; the newest of equals.
//!
//! Proves checklist items 48, 62 and, for wlc, 57.

use anyhow::Result;

use super::sched::{Kind, Play};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_wlc",
    "the exact order of weighted least connections",
    &[48],
    run,
)
.partly(&[57, 62]);

fn run(cx: &Cx) -> Result<()> {
    let mut play = Play::new(Kind::Wlc, Family::V6)?;
    play.sequence(&[0])?;
    for (host, weight) in [(1, 1), (2, 2), (3, 0)] {
        play.add(host, weight)?;
    }
    // Both empty: 2 is the newer. Then 257/2 against 0, equal at 257/1 against 514/2.
    play.sequence(&[2, 1, 2, 2, 1])?;
    play.connect_and_close()?;
    for _ in 0..12 {
        play.connect()?;
    }
    play.set_weight(3, 65_535)?;
    play.sequence(&[3, 3, 3])?;
    play.compare()?;
    play.random(&mut Rng::new(cx.seed), 200)
}
