// SPDX-License-Identifier: GPL-2.0-only

//! Counters and the rates estimated from them; C file: `ip_vs_est.c`.
//!
//! Every [`PERIOD_SECS`] the counters' growth moves an exponentially weighted average by a quarter of
//! the difference. Averages are fixed point: connections and packets per second times 1024, bytes per
//! second times 32.

/// Time between two steps.
pub const PERIOD_SECS: u32 = 2;

/// What is counted; C `struct ip_vs_counters`, and the first half of `struct ip_vs_kstats`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub inpkts: u64,
    /// Packets to clients.
    pub outpkts: u64,
    /// Bytes from clients, from the network header on.
    pub inbytes: u64,
    /// Bytes to clients.
    pub outbytes: u64,
}

impl Counters {
    /// All of them, in the order of [`crate::uapi::stats`].
    #[inline]
    pub const fn all(&self) -> [u64; 5] {
        [
            self.conns,
            self.inpkts,
            self.outpkts,
            self.inbytes,
            self.outbytes,
        ]
    }

    /// From [`Counters::all`].
    #[inline]
    pub const fn from_all([conns, inpkts, outpkts, inbytes, outbytes]: [u64; 5]) -> Self {
        Counters {
            conns,
            inpkts,
            outpkts,
            inbytes,
            outbytes,
        }
    }

    /// The sum, as over CPUs.
    #[inline]
    #[must_use]
    pub const fn plus(&self, other: &Counters) -> Self {
        Counters {
            conns: self.conns.wrapping_add(other.conns),
            inpkts: self.inpkts.wrapping_add(other.inpkts),
            outpkts: self.outpkts.wrapping_add(other.outpkts),
            inbytes: self.inbytes.wrapping_add(other.inbytes),
            outbytes: self.outbytes.wrapping_add(other.outbytes),
        }
    }

    /// What was counted since `earlier`.
    #[inline]
    #[must_use]
    pub const fn since(&self, earlier: &Counters) -> Self {
        Counters {
            conns: self.conns.wrapping_sub(earlier.conns),
            inpkts: self.inpkts.wrapping_sub(earlier.inpkts),
            outpkts: self.outpkts.wrapping_sub(earlier.outpkts),
            inbytes: self.inbytes.wrapping_sub(earlier.inbytes),
            outbytes: self.outbytes.wrapping_sub(earlier.outbytes),
        }
    }
}

/// Rates per second, as shown; the second half of C `struct ip_vs_kstats`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// Connections.
    pub cps: u64,
    /// Packets from clients.
    pub inpps: u64,
    /// Packets to clients.
    pub outpps: u64,
    /// Bytes from clients.
    pub inbps: u64,
    /// Bytes to clients.
    pub outbps: u64,
}

impl Shown {
    /// All of them, in the order of [`crate::uapi::stats`].
    #[inline]
    pub const fn all(&self) -> [u64; 5] {
        [self.cps, self.inpps, self.outpps, self.inbps, self.outbps]
    }
}

/// The averages, in fixed point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// Connections per second, times 2^10.
    pub cps: u64,
    /// Packets per second from clients, times 2^10.
    pub inpps: u64,
    /// Packets per second to clients, times 2^10.
    pub outpps: u64,
    /// Bytes per second from clients, times 2^5.
    pub inbps: u64,
    /// Bytes per second to clients, times 2^5.
    pub outbps: u64,
}

/// Moves an average a quarter of the way; the shift is arithmetic, the sum wraps, as in C.
#[inline]
const fn quarter(average: u64, rate: u64) -> u64 {
    average.wrapping_add((rate.wrapping_sub(average) as i64 >> 2) as u64)
}

impl Rates {
    /// No traffic.
    pub const ZERO: Self = Rates {
        cps: 0,
        inpps: 0,
        outpps: 0,
        inbps: 0,
        outbps: 0,
    };

    /// Takes account of one period, in which the counters grew by `delta`.
    ///
    /// The rates are scaled by 2^10 or 2^5, and divided by the two seconds of the period.
    pub const fn step(&mut self, delta: &Counters) {
        self.cps = quarter(self.cps, delta.conns << 9);
        self.inpps = quarter(self.inpps, delta.inpkts << 9);
        self.outpps = quarter(self.outpps, delta.outpkts << 9);
        self.inbps = quarter(self.inbps, delta.inbytes << 4);
        self.outbps = quarter(self.outbps, delta.outbytes << 4);
    }

    /// The rates per second, rounded; C `ip_vs_read_estimator()`.
    pub const fn read(&self) -> Shown {
        Shown {
            cps: self.cps.wrapping_add(0x1ff) >> 10,
            inpps: self.inpps.wrapping_add(0x1ff) >> 10,
            outpps: self.outpps.wrapping_add(0x1ff) >> 10,
            inbps: self.inbps.wrapping_add(0xf) >> 5,
            outbps: self.outbps.wrapping_add(0xf) >> 5,
        }
    }

    /// Whether all averages are zero, so that steps without growth change nothing.
    #[inline]
    pub const fn is_zero(&self) -> bool {
        (self.cps | self.inpps | self.outpps | self.inbps | self.outbps) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn counters(n: u64) -> Counters {
        Counters::from_all([n, 2 * n, 3 * n, 1000 * n, 2000 * n])
    }

    #[test]
    fn counters_add_and_wrap() {
        let a = counters(5);
        assert_eq!(a.all(), [5, 10, 15, 5000, 10000]);
        assert_eq!(a.plus(&counters(1)), counters(6));
        assert_eq!(a.since(&counters(2)), counters(3));
        let max = Counters::from_all([u64::MAX; 5]);
        let one = Counters::from_all([1; 5]);
        assert_eq!(max.plus(&one), Counters::default());
        assert_eq!(Counters::default().since(&max), one);
    }

    /// 100 connections per second, step by step: a quarter of the way each time.
    #[test]
    fn known_steps() {
        let mut rates = Rates::ZERO;
        let mut shown = Vec::new();
        for _ in 0..5 {
            rates.step(&counters(200));
            shown.push(rates.read().cps);
        }
        // 25, 43.75, 57.8, 68.4, 76.3
        assert_eq!(shown, [25, 44, 58, 68, 76]);
        let read = rates.read();
        assert_eq!(read.all(), [76, 153, 229, 76270, 152539]);

        shown.clear();
        for _ in 0..4 {
            rates.step(&Counters::default());
            shown.push(rates.read().cps);
        }
        assert_eq!(shown, [57, 43, 32, 24]);
    }

    #[test]
    fn settles_and_dies_out() {
        let mut rates = Rates::ZERO;
        assert!(rates.is_zero());
        for _ in 0..100 {
            rates.step(&counters(200));
        }
        assert_eq!(rates.read().all(), [100, 200, 300, 100_000, 200_000]);
        let mut steps = 0;
        while !rates.is_zero() {
            rates.step(&Counters::default());
            steps += 1;
            assert!(steps < 100);
        }
        assert_eq!(rates.read(), Shown::default());
    }

    proptest! {
        /// As exact integers: the average moves by a quarter of the difference, rounded down.
        #[test]
        fn steps(start in 0..1_u64 << 40, deltas in prop::collection::vec(0..1_u64 << 30, 1..20)) {
            let mut rates = Rates { cps: start, inbps: start, ..Rates::ZERO };
            let (mut cps, mut bps) = (i128::from(start), i128::from(start));
            for delta in deltas {
                rates.step(&Counters { conns: delta, inbytes: delta, ..Counters::default() });
                let d = i128::from(delta);
                cps += (d * 512 - cps).div_euclid(4);
                bps += (d * 16 - bps).div_euclid(4);
                prop_assert_eq!(i128::from(rates.cps), cps);
                prop_assert_eq!(i128::from(rates.inbps), bps);
                prop_assert_eq!(i128::from(rates.read().cps), (cps + 511) / 1024);
                prop_assert_eq!(i128::from(rates.read().inbps), (bps + 15) / 32);
            }
        }

        #[test]
        fn nothing_overflows(rates: [u64; 5], delta: [u64; 5]) {
            let [cps, inpps, outpps, inbps, outbps] = rates;
            let mut rates = Rates { cps, inpps, outpps, inbps, outbps };
            rates.step(&Counters::from_all(delta));
            rates.read();
        }
    }
}
