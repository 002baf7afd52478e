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
