// SPDX-License-Identifier: GPL-2.0-only

//! UDP as the balancer sees it: one state; C file: `ip_vs_proto_udp.c`.

use super::{
    Direction,
    ERR, //
};

/// The states; C `IP_VS_UDP_S_*`. A name space: states are plain `u8`.
#[derive(Clone, Copy, Debug)]
pub enum State {}

impl State {
    /// The only state.
    pub const NORMAL: u8 = 0;
    /// How many there are; C `IP_VS_UDP_S_LAST`.
    pub const LAST: u8 = 1;
}

/// The names of the states, by number.
pub const NAMES: [&str; State::LAST as usize] = ["UDP"];

/// How long a connection lasts without a packet, in seconds; C `udp_timeouts`. The last entry is
/// C's sentinel. The first can be configured.
pub const DEFAULT_TIMEOUT_SECS: [u32; State::LAST as usize + 1] = [300, 2];

/// The state after a packet: always [`State::NORMAL`].
#[inline]
pub const fn transition(_dir: Direction, _state: u8) -> u8 {
    State::NORMAL
}

/// Whether a connection counts as active: never.
#[inline]
pub const fn is_active(_state: u8) -> bool {
    false
}

/// The name of a state, `ERR!` for one that does not exist; C `udp_state_name()`.
pub fn state_name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or(ERR)
}
