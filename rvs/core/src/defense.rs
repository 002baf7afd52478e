// SPDX-License-Identifier: GPL-2.0-only

//! Defense against floods: what the modes of the sysctls `drop_entry`, `drop_packet` and `secure_tcp` mean, and which
//! connections go first; C `update_defense_level()`, `ip_vs_todrop()`, `ip_vs_random_dropentry()`.

use crate::proto::{
    sctp,
    tcp,
    IPPROTO_SCTP,
    IPPROTO_TCP, //
};

/// Never.
pub const OFF: i32 = 0;
/// While memory is short; it is not now.
pub const AUTO_IDLE: i32 = 1;
/// While memory is short, as it is now.
pub const AUTO_ACTIVE: i32 = 2;
/// Always.
pub const ALWAYS: i32 = 3;

/// What a mode becomes, given whether memory is short, and whether it is active then.
///
/// ```
/// use rvs_core::defense::*;
///
/// assert_eq!(level(AUTO_IDLE, true), (AUTO_ACTIVE, true));
/// assert_eq!(level(AUTO_ACTIVE, false), (AUTO_IDLE, false));
/// assert_eq!(level(ALWAYS, false), (ALWAYS, true));
/// ```
pub const fn level(mode: i32, is_short: bool) -> (i32, bool) {
    match (mode, is_short) {
        (AUTO_IDLE | AUTO_ACTIVE, true) => (AUTO_ACTIVE, true),
        (AUTO_IDLE | AUTO_ACTIVE, false) => (AUTO_IDLE, false),
        (ALWAYS, _) => (ALWAYS, true),
        _ => (mode, false),
    }
}

/// Of how many packets one is dropped in the automatic modes, when `available` of the pages are left and `threshold` is the
/// sysctl `amemthresh`: the less is left, the more are dropped, in the end all. Zero: none.
pub fn drop_rate(threshold: i32, available: i32) -> i32 {
    let threshold = threshold.max(0);
    let missing = i64::from(threshold).saturating_sub(i64::from(available));
    match i64::from(threshold).checked_div(missing) {
        Some(rate) if missing > 0 => i32::try_from(rate).unwrap_or(i32::MAX),
        _ => 0,
    }
}

/// Packets from the client up to which an idle connection may be dropped.
pub const FEW_PACKETS: usize = 8;

/// Counts down which idle connections are dropped: of those with one packet all, of those with two every second one, and so
/// on; C `dropentry_counters`.
#[derive(Clone, Debug, Default)]
pub struct Idle([u32; FEW_PACKETS]);

impl Idle {
    /// Nothing was counted yet.
    pub const fn new() -> Self {
        Idle([0; FEW_PACKETS])
    }

    /// Whether an idle connection with this many packets goes; C `todrop_entry()`.
    pub fn drops(&mut self, in_pkts: u32) -> bool {
        let index = (in_pkts as usize).wrapping_sub(1);
        let Some(left) = self.0.get_mut(index) else {
            return false;
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        *left = in_pkts;
        true
    }
}

/// What is to become of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It goes.
    Drop,
    /// It goes if it is idle and [`Idle::drops()`].
    DropIdle,
}

/// What is to become of a connection, no template, in this state.
pub const fn fate(proto: u8, state: u8) -> Fate {
    match (proto, state) {
        (IPPROTO_TCP, tcp::State::SYN_RECV | tcp::State::SYNACK) => Fate::Drop,
        (IPPROTO_TCP, tcp::State::ESTABLISHED) => Fate::DropIdle,
        (IPPROTO_SCTP, sctp::State::INIT1 | sctp::State::INIT) => Fate::Drop,
        (IPPROTO_SCTP, sctp::State::ESTABLISHED) => Fate::DropIdle,
        (IPPROTO_TCP | IPPROTO_SCTP, _) => Fate::Keep,
        _ => Fate::DropIdle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for mode in [-1, OFF, 4] {
            assert_eq!(level(mode, true), (mode, false));
        }
        assert_eq!(level(AUTO_IDLE, false), (AUTO_IDLE, false));
        assert_eq!(level(AUTO_ACTIVE, true), (AUTO_ACTIVE, true));
    }

    #[test]
    fn rates() {
        assert_eq!(drop_rate(1024, 1024), 0);
        assert_eq!(drop_rate(1024, 1023), 1024);
        assert_eq!(drop_rate(1024, 512), 2);
        assert_eq!(drop_rate(1024, 0), 1);
        assert_eq!(drop_rate(-5, 0), 0);
        assert_eq!(drop_rate(i32::MAX, i32::MIN), 0);
    }

    #[test]
    fn one_of_n() {
        let mut idle = Idle::new();
        for n in 1..=8 {
            let dropped = (0..8 * n).filter(|_| idle.drops(n)).count();
            assert_eq!(dropped, 8, "{n}");
        }
        assert!(!idle.drops(0) && !idle.drops(9) && !idle.drops(u32::MAX));
    }

    #[test]
    fn half_open_goes_first() {
        assert_eq!(fate(IPPROTO_TCP, tcp::State::SYN_RECV), Fate::Drop);
        assert_eq!(fate(IPPROTO_TCP, tcp::State::TIME_WAIT), Fate::Keep);
        assert_eq!(fate(17, 0), Fate::DropIdle);
    }
}
