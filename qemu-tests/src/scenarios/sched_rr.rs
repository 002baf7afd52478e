// SPDX-License-Identifier: GPL-2.0-or-later

//! Round robin: the newest server first, weight 0 passed over, and the place kept when the chosen
//! server is deleted.
//!
//! Proves checklist items 46 and, for rr, 57.

use anyhow::Result;

use super::sched::{Kind, Play};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario =
    Scenario::new("sched_rr", "the exact order of round robin", &[46], run).partly(&[57]);

fn run(cx: &Cx) -> Result<()> {
    let mut play = Play::new(Kind::Rr, Family::V4)?;
    play.sequence(&[0])?;
    for host in [1, 2, 3] {
        play.add(host, 1)?;
    }
    play.sequence(&[3, 2, 1, 3, 2, 1, 3])?;
    // A new server stands at the head; it is met when the round gets there.
    play.add(4, 7)?;
    play.sequence(&[2, 1, 4, 3, 2])?;
    // The server chosen last goes: on with the one that stood behind it.
    play.delete(2)?;
    play.sequence(&[1, 4, 3, 1])?;
    // It goes while it is the first in the list.
    play.sequence(&[4])?;
    play.delete(4)?;
    play.sequence(&[3, 1, 3])?;
    // Weight 0 is passed over, other weights make no difference.
    play.set_weight(1, 0)?;
    play.sequence(&[3, 3])?;
    play.set_weight(3, 0)?;
    play.sequence(&[0, 0])?;
    play.set_weight(1, 5)?;
    play.sequence(&[1, 1])?;
    play.set_weight(3, 1)?;
    play.sequence(&[3, 1, 3])?;
    play.compare()?;
    play.random(&mut Rng::new(cx.seed), 150)
}
