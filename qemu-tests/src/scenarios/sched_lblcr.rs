// SPDX-License-Identifier: GPL-2.0-or-later

//! Locality-based least connections with replication: a target has a set of servers, to which one
//! more comes when the least loaded one has more than it should while others are idle; from a set
//! that is old the most loaded one goes.
//!
//! Proves checklist items 56, 28 for the sysctl and, for lblcr, 57.

use anyhow::Result;

use super::sched_lblc::{expiration, full, Play};
use super::sched_marked::Marked;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_lblcr",
    "locality-based least connections with replication",
    &[56],
    run,
)
.partly(&[27, 28, 57])
.timeout(90.0);

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    expiration(&m, "lblcr_expiration")?;
    for (mark, family) in (80..).zip(Family::BOTH) {
        let service = m.service(family, mark, "lblcr", 0)?;
        let mut p = Play::new(&m, service);
        p.syn(1, "--")?;
        for host in [1, 2, 3] {
            m.add(&service, host, 2)?;
        }
        // One after the other comes into the set; once all are in, the least loaded one is taken,
        // the newest in the set of equals.
        p.syn(1, "cccbbbaaaabcabc")?;
        // From now on sets are always too old: with each connection one server goes, after the choice.
        let key = "net.ipv4.vs.lblcr_expiration";
        m.rig.topo.director.set_sysctl(key, -1)?;
        p.syn(1, "abcccc")?;
        m.rig.topo.director.set_sysctl(key, 86_400)?;
        // The only one in the set has no weight: another one comes in.
        m.edit(&service, 3, 0, 0)?;
        p.udp(1, "bb")?;
        // Both are in: b has six and two, c nine.
        m.edit(&service, 3, 2, 0)?;
        p.udp(1, "bb")?;
        m.edit(&service, 2, 2, 1)?;
        p.udp(1, "cc")?;
        m.edit(&service, 2, 2, 0)?;
        // A deleted server is in the set no more, and in again when it comes back.
        m.delete(&service, 2)?;
        p.udp(1, "cc")?;
        m.add(&service, 2, 2)?;
        p.udp(1, "bb")?;
        // Another scheduler forgets all.
        m.change(&service, "rr", 0)?;
        m.change(&service, "lblcr", 0)?;
        m.edit(&service, 1, 1000, 0)?;
        p.udp(1, "aa")?;
    }
    full(&m, "lblcr")
}
