// SPDX-License-Identifier: GPL-2.0-only

//! The states of persistence templates; C `IP_VS_CTPL_S_*`.

use super::ERR;

/// No connection of the template has got through yet.
pub const NONE: u8 = 0;
/// A connection of the template was established.
pub const ASSURED: u8 = 1;
/// How many states there are.
pub const LAST: u8 = 2;

/// The name of a state, `ERR!` for one that does not exist.
pub const fn state_name(state: u8) -> &'static str {
    match state {
        NONE => "NONE",
        ASSURED => "ASSURED",
        _ => ERR,
    }
}
