// SPDX-License-Identifier: GPL-2.0-only

//! Statistics of a service, a destination or a namespace: `struct ip_vs_stats`.
//!
//! Packets count in per-CPU counters, which only ever grow. What is shown is their sum at that very moment less the sum
//! when they were zeroed last (C shows what its estimator saw, up to two seconds ago). Rates are what C's estimator
//! computes from the same counters.

use crate::os::{
    lock::SpinBh,
    percpu::{
        Counters,
        Sums, //
    }, //
};
use kernel::{
    c_str,
    prelude::*,
    static_lock_class, //
};
use rvs_core::estimate::{
    self,
    Rates,
    Shown, //
};

/// Counters, and what makes numbers to show of them.
pub(crate) struct Stats {
    /// What packets count in.
    pub(crate) counters: Counters,
    seen: SpinBh<Seen>,
}

/// What was seen of the counters.
struct Seen {
    /// When they were zeroed: C `kstats0`.
    base: estimate::Counters,
    /// When the estimator looked last.
    last: estimate::Counters,
    rates: Rates,
}

/// Statistics as shown: C `struct ip_vs_kstats`.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot {
    /// Counters since they were zeroed.
    pub(crate) total: estimate::Counters,
    /// Rates per second.
    pub(crate) rates: Shown,
}

const ZERO: estimate::Counters = estimate::Counters::from_all([0; 5]);

impl Stats {
    /// Makes statistics that are all zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            counters: Counters::new()?,
            seen: SpinBh::new(
                Seen {
                    base: ZERO,
                    last: ZERO,
                    rates: Rates::ZERO,
                },
                c_str!("rvs_stats"),
                static_lock_class!(),
            ),
        })
    }

    fn now(&self) -> estimate::Counters {
        let sums: Sums = self.counters.sum();
        estimate::Counters::from_all(sums)
    }

    /// What to show: `ip_vs_copy_stats()`.
    pub(crate) fn read(&self) -> Snapshot {
        let seen = self.seen.lock();
        // Summed under the lock: never less than a base that somebody takes at the same time.
        Snapshot {
            total: self.now().since(&seen.base),
            rates: seen.rates.read(),
        }
    }

    /// Starts over: `ip_vs_zero_stats()`.
    pub(crate) fn zero(&self) {
        let mut seen = self.seen.lock();
        let now = self.now();
        seen.base = now;
        seen.last = now;
        seen.rates = Rates::ZERO;
    }

    /// Takes account of the estimator's period that just ended: one round of `ip_vs_chain_estimation()`. Returns whether
    /// all rates are zero.
    pub(crate) fn step(&self) -> bool {
        let mut seen = self.seen.lock();
        let now = self.now();
        let delta = now.since(&seen.last);
        seen.last = now;
        seen.rates.step(&delta);
        seen.rates.is_zero()
    }
}
