// SPDX-License-Identifier: GPL-2.0-or-later

//! The short test of a kernel: load, configure by ipvsadm, HTTP over three real servers, unload, a
//! clean log.
//!
//! Proves checklist items 20 and 100 on the kernel it runs on.

use anyhow::Result;

use super::nat;
use crate::modules;
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "boot",
    "load, balance HTTP over three real servers, unload",
    &[39, 100],
    run,
)
.partly(&[20])
.own_modules()
.timeout(60.0);

fn run(cx: &Cx) -> Result<()> {
    for _ in 0..2 {
        cx.modules.load()?;
        nat::tcp(Family::V4)?;
        cx.modules.unload()?;
    }
    let name = if cx.peer == Peer::C { "ip_vs" } else { "rvs" };
    anyhow::ensure!(!modules::loaded(name)?, "{name} is still loaded");
    Ok(())
}
