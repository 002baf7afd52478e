// SPDX-License-Identifier: GPL-2.0-only

//! AH and ESP: they follow the ISAKMP connection between the same two hosts; C file:
//! `ip_vs_proto_ah_esp.c`.

use super::IPPROTO_UDP;
use crate::addr::Be16;

/// The protocol to look an AH or ESP packet up with.
pub const LOOKUP_PROTO: u8 = IPPROTO_UDP;

/// The port to look an AH or ESP packet up with, on both sides, in memory order; C `PORT_ISAKMP`.
pub const LOOKUP_PORT: Be16 = 500_u16.to_be();
