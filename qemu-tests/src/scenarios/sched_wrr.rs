// SPDX-License-Identifier: GPL-2.0-or-later

//! Weighted round robin: interleaved by the greatest common divisor, starting over with every
//! change.
//!
//! Proves checklist items 47 and, for wrr, 57.

use anyhow::Result;

use super::sched::{Kind, Play};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_wrr",
    "the exact order of weighted round robin",
    &[47],
    run,
)
.partly(&[57]);

fn run(cx: &Cx) -> Result<()> {
    let mut play = Play::new(Kind::Wrr, Family::V6)?;
    play.sequence(&[0])?;
    for (host, weight) in [(1, 4), (2, 3), (3, 2)] {
        play.add(host, weight)?;
    }
    // The first server alone had divisor 4, which put the current weight at 1; from there on the
    // full cycle of 4, 3, 2, 1.
    play.sequence(&[3, 2, 1])?;
    for _ in 0..2 {
        play.sequence(&[1, 2, 1, 3, 2, 1, 3, 2, 1])?;
    }
    // Weights with a common divisor.
    play.set_weight(1, 40)?;
    play.set_weight(2, 20)?;
    play.set_weight(3, 20)?;
    for _ in 0..9 {
        play.connect()?;
    }
    // A change in the middle of a cycle.
    play.set_weight(2, 60)?;
    for _ in 0..13 {
        play.connect()?;
    }
    play.delete(2)?;
    for _ in 0..7 {
        play.connect()?;
    }
    for host in [1, 3] {
        play.set_weight(host, 0)?;
    }
    play.sequence(&[0, 0])?;
    play.set_weight(3, 1)?;
    play.sequence(&[3, 3])?;
    play.compare()?;
    play.random(&mut Rng::new(cx.seed), 200)
}
