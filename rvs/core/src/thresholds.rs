// SPDX-License-Identifier: GPL-2.0-only

//! When a destination counts as overloaded.
//!
//! C counterpart: `__ip_vs_dest_update_overload()` and its callers. The flag is raised when the
//! connections reach the upper threshold, and lowered when they fall below the lower one; in
//! between it stays. Persistence templates do not count.

/// The thresholds of a destination, in connections. An upper threshold of zero means that there is
/// none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Thresholds {
    /// Upper threshold.
    pub upper: u32,
    /// Lower threshold as configured; zero means three quarters of the upper one.
    pub lower: u32,
}

/// Why thresholds cannot be configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// The lower is above the upper one: `ERANGE`.
    Crossed,
    /// The upper one is above `INT_MAX`: `EINVAL`.
    TooHigh,
}

impl Thresholds {
    /// Whether these can be configured, in the order of C's questions.
    pub const fn check(self) -> Result<(), Invalid> {
        if self.lower > self.upper {
            Err(Invalid::Crossed)
        } else if self.upper > i32::MAX as u32 {
            Err(Invalid::TooHigh)
        } else {
            Ok(())
        }
    }

    /// The lower threshold that counts; C `l_threshold_val`.
    #[inline]
    pub const fn low(self) -> u32 {
        if self.lower != 0 {
            self.lower
        } else {
            self.upper.wrapping_sub(self.upper >> 2)
        }
    }

    /// Whether a connection that brought the total up to `total` reached the upper threshold: then
    /// the flag is [`Thresholds::raised`] of the total.
    #[inline]
    pub const fn reached_by_bind(self, total: u32) -> bool {
        total == self.upper
    }

    /// Whether a connection that ended, leaving `total`, fell below the lower threshold: then the
    /// flag is [`Thresholds::lowered`] of the total.
    #[inline]
    pub const fn left_by_unbind(self, total: u32) -> bool {
        total.wrapping_add(1) == self.low()
    }

    /// The flag after the upper threshold was reached; C mode 1. `total` is read anew: if others
    /// ended meanwhile, down to below the lower threshold, nothing is overloaded.
    #[inline]
    pub const fn raised(self, total: u32) -> bool {
        self.upper != 0 && total >= self.low()
    }

    /// The flag after the connections fell below the lower threshold; C mode -1. `total` is read
    /// anew: if others came meanwhile, up to the upper threshold, the destination is overloaded.
    #[inline]
    pub const fn lowered(self, total: u32) -> bool {
        self.upper != 0 && total >= self.upper
    }

    /// The flag after the thresholds were edited to these; C mode 0.
    #[inline]
    pub const fn edited(self, total: u32, overloaded: bool) -> bool {
        self.upper != 0 && (total >= self.upper || (overloaded && total >= self.low()))
    }
}
