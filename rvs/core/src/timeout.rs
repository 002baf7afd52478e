// SPDX-License-Identifier: GPL-2.0-only

//! Jiffies: the kernel's clock ticks, [`Hz`] of them a second.
//!
//! The tick counter wraps. A moment is after another if it is less than half the range ahead of it,
//! by signed difference; C `time_after()`. Moments are `usize`, C's `unsigned long`, or, in
//! [`Deadline`], the low 32 bits of one.

use core::num::NonZeroU32;

/// How long a connection lives that has no packet yet and no state, in seconds.
pub const NEW_CONN_SECS: u32 = 3;

/// How long the end of a connection is put off while others depend on it, in seconds.
pub const DEFERRED_SECS: u32 = 60;

/// Ticks per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hz(NonZeroU32);

impl Hz {
    /// From the kernel's configuration. Zero, which no kernel has, counts as one.
    #[inline]
    pub const fn new(hz: u32) -> Self {
        match NonZeroU32::new(hz) {
            Some(hz) => Hz(hz),
            None => Hz(NonZeroU32::MIN),
        }
    }

    /// The number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The greatest timeout, in seconds, that can be configured; C `INT_MAX / HZ`.
    #[inline]
    pub const fn config_limit(self) -> u32 {
        // Neither division by zero nor overflow is possible.
        match (i32::MAX as u32).checked_div(self.0.get()) {
            Some(limit) => limit,
            None => 0,
        }
    }

    /// Seconds as ticks, exactly.
    #[inline]
    pub const fn from_secs(self, secs: u32) -> u64 {
        (secs as u64).wrapping_mul(self.0.get() as u64)
    }

    /// Seconds as ticks, at most `u32::MAX`.
    ///
    /// C lets a service's persistence timeout wrap around here.
    #[inline]
    pub const fn from_secs_u32(self, secs: u32) -> u32 {
        secs.saturating_mul(self.0.get())
    }

    /// Ticks as whole seconds, rounded down.
    #[inline]
    pub const fn to_secs(self, ticks: u64) -> u64 {
        match ticks.checked_div(self.0.get() as u64) {
            Some(secs) => secs,
            None => 0,
        }
    }

    /// Ticks as milliseconds, rounded down.
    #[inline]
    pub const fn to_ms(self, ticks: u32) -> u64 {
        match (ticks as u64)
            .wrapping_mul(1000)
            .checked_div(self.0.get() as u64)
        {
            Some(ms) => ms,
            None => 0,
        }
    }

    /// Ticks as whole seconds, rounded down.
    #[inline]
    pub const fn to_secs_u32(self, ticks: u32) -> u32 {
        match ticks.checked_div(self.0.get()) {
            Some(secs) => secs,
            None => 0,
        }
    }
}

/// A timeout as netlink and sockopt configure it, in ticks: `Ok(None)` for zero, which means "keep",
/// `Err` for what is negative or too long; C `ip_vs_set_timeout()`.
pub const fn configured(secs: i32, hz: Hz) -> Result<Option<u32>, OutOfRange> {
    if secs < 0 || secs as u32 > hz.config_limit() {
        Err(OutOfRange)
    } else if secs == 0 {
        Ok(None)
    } else {
        Ok(Some(hz.from_secs_u32(secs as u32)))
    }
}

/// A timeout that cannot be configured: `EINVAL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfRange;

/// Whether moment `a` is after `b`; C `time_after()`.
#[inline]
pub const fn after(a: usize, b: usize) -> bool {
    (b.wrapping_sub(a) as isize) < 0
}

/// Whether moment `a` is before `b`; C `time_before()`.
#[inline]
pub const fn before(a: usize, b: usize) -> bool {
    after(b, a)
}

/// Whether moment `a` is after `b` or the same; C `time_after_eq()`.
#[inline]
pub const fn after_eq(a: usize, b: usize) -> bool {
    !before(a, b)
}

/// Ticks from `now` until `deadline`, zero if it is not ahead.
#[inline]
pub const fn remaining(deadline: usize, now: usize) -> usize {
    if after(deadline, now) {
        deadline.wrapping_sub(now)
    } else {
        0
    }
}

/// When something ends: the low 32 bits of a moment, so that it takes half a word on a 64-bit
/// machine and is written in one go on all.
///
/// It must be looked at within 2^31 ticks after it passed, and be at most as far ahead: at 1000 Hz
/// 24 days, at 250 Hz 99. No timeout that can be configured is longer ([`Hz::config_limit`]);
/// longer ones are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline(pub u32);

impl Deadline {
    /// The longest timeout, in ticks.
    pub const MAX_TIMEOUT: u32 = i32::MAX as u32;

    /// `timeout` ticks after `now`.
    #[inline]
    pub const fn after(now: usize, timeout: u32) -> Self {
        let timeout = if timeout > Self::MAX_TIMEOUT {
            Self::MAX_TIMEOUT
        } else {
            timeout
        };
        Deadline((now as u32).wrapping_add(timeout))
    }

    /// Ticks until then; zero or less once it passed.
    #[inline]
    pub const fn ticks_left(self, now: usize) -> i32 {
        self.0.wrapping_sub(now as u32) as i32
    }

    /// Whether it passed: `now` is this moment or after it.
    #[inline]
    pub const fn passed(self, now: usize) -> bool {
        self.ticks_left(now) <= 0
    }

    /// Whole seconds until then, zero once it passed: what `/proc/net/ip_vs_conn` shows.
    #[inline]
    pub const fn secs_left(self, now: usize, hz: Hz) -> u32 {
        let left = self.ticks_left(now);
        if left > 0 {
            hz.to_secs_u32(left.unsigned_abs())
        } else {
            0
        }
    }

    /// Whether this is later than `other`.
    #[inline]
    pub const fn is_after(self, other: Self) -> bool {
        (other.0.wrapping_sub(self.0) as i32) < 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HZ: Hz = Hz::new(250);

    #[test]
    fn seconds_and_ticks() {
        assert_eq!(HZ.get(), 250);
        assert_eq!(Hz::new(0).get(), 1);
        assert_eq!(HZ.config_limit(), 8_589_934);
        assert_eq!(Hz::new(100).config_limit(), 21_474_836);
        assert_eq!(Hz::new(1000).config_limit(), 2_147_483);
        // The 300 seconds of /proc/net/ip_vs.
        assert_eq!(HZ.from_secs_u32(300), 75_000);
        assert_eq!(HZ.from_secs(u32::MAX), 1_073_741_823_750);
        assert_eq!(HZ.from_secs_u32(u32::MAX), u32::MAX);
        assert_eq!(HZ.to_secs(749), 2);
        assert_eq!(HZ.to_secs_u32(750), 3);
    }

    #[test]
    fn configuration() {
        assert_eq!(configured(0, HZ), Ok(None));
        assert_eq!(configured(1, HZ), Ok(Some(250)));
        assert_eq!(configured(900, HZ), Ok(Some(225_000)));
        assert_eq!(configured(8_589_934, HZ), Ok(Some(2_147_483_500)));
        assert_eq!(configured(8_589_935, HZ), Err(OutOfRange));
        assert_eq!(configured(i32::MAX, HZ), Err(OutOfRange));
        assert_eq!(configured(-1, HZ), Err(OutOfRange));
        assert_eq!(configured(i32::MIN, HZ), Err(OutOfRange));
        // Whatever can be configured fits in a deadline.
        for hz in [100, 250, 300, 1000] {
            let hz = Hz::new(hz);
            assert!(hz.from_secs_u32(hz.config_limit()) <= Deadline::MAX_TIMEOUT);
        }
    }

    #[test]
    fn moments_wrap() {
        let end = usize::MAX;
        assert!(after(end, end - 1) && after(0, end) && after(5, end - 5));
        assert!(before(end, 0) && !after(end, 0));
        assert!(after_eq(7, 7) && !after(7, 7) && !before(7, 7));
        assert_eq!(remaining(4, end - 5), 10);
        assert_eq!(remaining(end - 5, 4), 0);
        assert_eq!(remaining(7, 7), 0);
    }

    #[test]
    fn deadlines_wrap() {
        // Jiffies start five minutes before the low 32 bits wrap.
        let now = 0xffff_ff00_usize;
        let d = Deadline::after(now, 0x200);
        assert_eq!(d, Deadline(0x100));
        assert!(!d.passed(now) && !d.passed(now + 0x1ff));
        assert!(d.passed(now + 0x200) && d.passed(now + 0x300));
        assert_eq!(d.ticks_left(now), 0x200);
        assert_eq!(d.ticks_left(now + 0x201), -1);
        assert_eq!(d.secs_left(now, HZ), 2);
        assert_eq!(d.secs_left(now + 0x201, HZ), 0);
        assert!(d.is_after(Deadline::after(now, 0x1ff)));
        assert!(!d.is_after(d));
        // As long as can be.
        let d = Deadline::after(now, u32::MAX);
        assert_eq!(d.ticks_left(now), i32::MAX);
        assert!(!d.passed(now));
        assert_eq!(d.secs_left(now, HZ), 8_589_934);
        assert!(Deadline::after(now, 0).passed(now));
    }

    proptest! {
        #[test]
        fn deadlines(now: usize, timeout in 0..=Deadline::MAX_TIMEOUT, later in 0..u32::MAX >> 1) {
            let d = Deadline::after(now, timeout);
            let then = now.wrapping_add(later as usize);
            prop_assert_eq!(d.passed(then), later >= timeout);
            prop_assert_eq!(d.ticks_left(then), (i64::from(timeout) - i64::from(later)) as i32);
            let left = timeout.saturating_sub(later);
            prop_assert_eq!(d.secs_left(then, HZ), left / 250);
        }

        #[test]
        fn moments(now: usize, distance in 1..usize::MAX >> 1) {
            let then = now.wrapping_add(distance);
            prop_assert!(after(then, now) && before(now, then));
            prop_assert!(!after(now, then) && !before(then, now));
            prop_assert_eq!(remaining(then, now), distance);
        }
    }
}
