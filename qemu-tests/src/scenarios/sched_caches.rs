// SPDX-License-Identifier: GPL-2.0-or-later

//! The caches of lblc and lblcr are cleared every minute; then a removed server loses its targets.
//!
//! Proves, of checklist items 55 and 56, that clearing happens.

use anyhow::Result;

use super::sched_lblc::Play;
use super::sched_marked::Marked;
use crate::scenario::{Cx, Guest, Peer, Scenario};
use crate::topo::Family;
use crate::wait::pass;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_caches",
    "the caches of lblc and lblcr forget removed servers",
    &[],
    run,
)
.partly(&[55, 56])
.only_peer(Peer::Rvs, "C keeps removed servers in its caches for a day")
.only_guests(
    &[Guest::Lockdep, Guest::Kasan],
    "it takes minutes, and what can go wrong are locks and life times",
)
.timeout(200.0);

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    let mut plays = Vec::new();
    for (mark, sched) in [(80, "lblc"), (81, "lblcr")] {
        let service = m.service(Family::V6, mark, sched, 0)?;
        m.add(&service, 1, 1)?;
        m.add(&service, 2, 1)?;
        plays.push(Play::new(&m, service));
    }
    // More than once: the work goes on.
    for round in 0..2 {
        for p in &mut plays {
            // Targets of a new b, and one that both know.
            let target = 10 * round;
            p.udp(target, if round == 0 { "bbb" } else { "aaa" })?;
        }
        for p in &mut plays {
            // The other one gets less than the one that goes, which would have the target still.
            let gone = if round == 0 { 2 } else { 1 };
            m.delete(&p.service, gone)?;
        }
        // A minute; timers as long as that are up to five seconds late.
        pass(68.0);
        for p in &mut plays {
            let gone = if round == 0 { 2 } else { 1 };
            m.add(&p.service, gone, 1)?;
            let target = 10 * round;
            p.udp(target, if round == 0 { "aa" } else { "bbb" })?;
        }
    }
    Ok(())
}
