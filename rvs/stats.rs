// SPDX-License-Identifier: GPL-2.0-only

//! Statistics of a service, a destination or a namespace: `struct ip_vs_stats`.
//!
//! Packets count in per-CPU counters, which only ever grow. What is shown is their sum at that very moment less the sum
//! when they were zeroed last (C shows what its estimator saw, up to two seconds ago). Rates are what C's estimator
//! computes from the same counters.
//!
//! The estimator looks at nobody who has no traffic: the first packet of a destination since the estimator lost interest
//! tells it so ([`Watch`]). It loses interest when all rates are zero.

use crate::os::{
    lock::Shared,
    percpu::{
        Counters,
        Sums, //
    },
    stack::{
        Link,
        Linked,
        Stack, //
    },
    time, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::estimate::{
    self,
    Rates,
    Shown, //
};

/// Counters, and what makes numbers to show of them. What packets read comes first.
#[repr(C)]
pub(crate) struct Stats {
    /// What packets count in.
    pub(crate) counters: Counters,
    /// For the list of those that the estimator looks at; the mark says that it does.
    link: Link,
    seen: Shared<Seen>,
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
            link: Link::default(),
            seen: Shared::new(Seen {
                base: ZERO,
                last: ZERO,
                rates: Rates::ZERO,
            }),
        })
    }

    fn now(&self) -> estimate::Counters {
        let sums: Sums = self.counters.sum();
        estimate::Counters::from_all(sums)
    }

    /// What to show: `ip_vs_copy_stats()`.
    pub(crate) fn read(&self) -> Snapshot {
        // Summed under the lock: never less than a base that somebody takes at the same time.
        self.seen.with(|seen| Snapshot {
            total: self.now().since(&seen.base),
            rates: seen.rates.read(),
        })
    }

    /// Starts over: `ip_vs_zero_stats()`.
    pub(crate) fn zero(&self) {
        self.seen.with(|seen| {
            let now = self.now();
            seen.base = now;
            seen.last = now;
            seen.rates = Rates::ZERO;
        })
    }

    /// Takes account of the estimator's period that just ended: one round of `ip_vs_chain_estimation()`.
    pub(crate) fn step(&self) -> Step {
        self.seen.with(|seen| {
            let now = self.now();
            let delta = now.since(&seen.last);
            seen.last = now;
            seen.rates.step(&delta);
            Step {
                traffic: delta != ZERO,
                quiet: seen.rates.is_zero(),
            }
        })
    }

    /// Whether the estimator looks at it.
    #[inline(always)]
    pub(crate) fn is_watched(&self) -> bool {
        self.link.mark.load()
    }

    /// For [`Linked`].
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }
}

/// What the estimator saw.
pub(crate) struct Step {
    /// Something was counted.
    pub(crate) traffic: bool,
    /// All rates are zero.
    pub(crate) quiet: bool,
}

/// What has statistics that the estimator looks at.
pub(crate) trait Estimated: Linked {
    /// The statistics.
    fn stats(&self) -> &Stats;

    /// Whether packets may count in them: otherwise their rates stay as they are.
    fn is_live(&self) -> bool;
}

/// Those whose rates the estimator computes.
pub(crate) struct Watch<T: Linked>(Stack<T>);

/// How many are looked at before others may run.
const BATCH: usize = 64;

impl<T: Estimated> Watch<T> {
    /// Looks at nobody.
    pub(crate) const fn new() -> Self {
        Self(Stack::new())
    }

    /// Sees to it that `new` is looked at. Any context.
    pub(crate) fn add(&self, new: &Arc<T>) {
        if !new.link().mark.swap(true) {
            self.0.push(new);
        }
    }

    /// One period: C `ip_vs_tick_estimation()`. Calls `f` for those that had traffic. Sleeps. Returns whether there is
    /// anybody to look at.
    ///
    /// Who is quiet is looked at once more a period later before it is forgotten: a packet that has just seen that it is
    /// watched may be counted a moment later.
    pub(crate) fn step(&self, mut f: impl FnMut(&T)) -> bool {
        let mut any = false;
        let mut n: usize = 0;
        for one in self.0.take() {
            n = n.wrapping_add(1);
            if n % BATCH == 0 {
                time::yield_cpu();
            }
            let stats = one.stats();
            let mark = &one.link().mark;
            if !one.is_live() {
                mark.store(false);
                continue;
            }
            let was_watched = mark.load();
            let step = stats.step();
            if step.traffic {
                mark.store(true);
                f(&one);
            } else if step.quiet && !was_watched {
                continue;
            } else if step.quiet {
                mark.store(false);
            }
            any = true;
            self.0.push(&one);
        }
        any
    }
}
