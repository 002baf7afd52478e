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
