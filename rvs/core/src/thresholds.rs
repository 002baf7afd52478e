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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn t(upper: u32, lower: u32) -> Thresholds {
        Thresholds { upper, lower }
    }

    #[test]
    fn configuration() {
        assert_eq!(t(0, 0).check(), Ok(()));
        assert_eq!(t(10, 10).check(), Ok(()));
        assert_eq!(t(10, 11).check(), Err(Invalid::Crossed));
        assert_eq!(t(0, 1).check(), Err(Invalid::Crossed));
        assert_eq!(t(i32::MAX as u32, 0).check(), Ok(()));
        assert_eq!(t(1 << 31, 0).check(), Err(Invalid::TooHigh));
        // Both wrong: the first question decides.
        assert_eq!(t(1 << 31, u32::MAX).check(), Err(Invalid::Crossed));
    }

    #[test]
    fn low_mark() {
        assert_eq!(t(100, 20).low(), 20);
        assert_eq!(t(100, 0).low(), 75);
        assert_eq!(t(10, 0).low(), 8);
        assert_eq!(t(3, 0).low(), 3);
        assert_eq!(t(1, 0).low(), 1);
        assert_eq!(t(0, 0).low(), 0);
    }

    #[test]
    fn edits() {
        let th = t(10, 5);
        for old in [false, true] {
            assert!(th.edited(10, old) && th.edited(11, old));
            assert!(!th.edited(4, old) && !th.edited(0, old));
            assert_eq!(th.edited(5, old), old);
            assert_eq!(th.edited(9, old), old);
            assert!(!t(0, 0).edited(1000, old));
        }
    }

    #[test]
    fn races() {
        let th = t(10, 5);
        // Another connection ended, or came, between counting and looking.
        assert!(th.raised(10) && th.raised(9) && th.raised(5) && !th.raised(4));
        assert!(!th.lowered(4) && !th.lowered(9) && th.lowered(10));
        assert!(!t(0, 0).raised(1) && !t(0, 0).lowered(1));
        assert!(!t(0, 0).reached_by_bind(1));
        assert!(!t(0, 0).left_by_unbind(0));
    }

    proptest! {
        /// One connection at a time, the flag is that of the plain rule: up at the upper threshold,
        /// down below the lower one.
        #[test]
        fn hysteresis(
            (upper, lower) in (0..12_u32).prop_flat_map(|upper| (Just(upper), 0..=upper)),
            steps in prop::collection::vec(any::<bool>(), 0..100),
        ) {
            let th = t(upper, lower);
            let (mut total, mut flag) = (0_u32, false);
            let mut want = false;
            for up in steps {
                if up {
                    total += 1;
                    if th.reached_by_bind(total) {
                        flag = th.raised(total);
                    }
                } else if total > 0 {
                    total -= 1;
                    if th.left_by_unbind(total) {
                        flag = th.lowered(total);
                    }
                }
                if upper > 0 && total >= upper {
                    want = true;
                } else if total < th.low() {
                    want = false;
                }
                prop_assert_eq!(flag, want, "{} of {:?}", total, th);
                // An edit that changes nothing changes nothing.
                prop_assert_eq!(th.edited(total, flag), flag);
            }
        }
    }
}
