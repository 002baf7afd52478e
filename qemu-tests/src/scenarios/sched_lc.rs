// SPDX-License-Identifier: GPL-2.0-or-later

//! Least connections: 256 times the active plus all of a server's connections; the newest of
//! equals.
//!
//! Proves checklist items 48, 62 and, for lc, 57.

use anyhow::Result;

use super::sched::{Kind, Play};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_lc",
    "the exact order of least connections",
    &[48],
    run,
)
.partly(&[57, 62]);

fn run(cx: &Cx) -> Result<()> {
    let mut play = Play::new(Kind::Lc, Family::V4)?;
    play.sequence(&[0])?;
    for host in [1, 2, 3] {
        play.add(host, 1)?;
    }
    play.sequence(&[3, 2, 1, 3, 2, 1])?;
    // Inactive connections count 1, active ones 257.
    play.connect_and_close()?;
    for _ in 0..6 {
        play.connect()?;
    }
    play.set_weight(2, 0)?;
    for _ in 0..4 {
        play.connect()?;
    }
    // Weights make no other difference.
    play.set_weight(2, 100)?;
    for _ in 0..4 {
        play.connect()?;
    }
    play.compare()?;
    play.random(&mut Rng::new(cx.seed), 200)
}
