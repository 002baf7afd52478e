// SPDX-License-Identifier: GPL-2.0-only

//! Weighted round robin; C file: `ip_vs_wrr.c`.
//!
//! The list is walked again and again, each time with a lower threshold `cw`: from the highest
//! weight `mw` down to 1 in steps of `di`, the greatest common divisor of all weights, then from
//! `mw` again. A destination is chosen in every walk in which its weight reaches the threshold:
//! weights 4, 3, 2 give `A AB ABC ABC`.
//!
//! `mw` is the highest weight less `di - 1`, so that the last threshold is 1 and not `di`.

use super::{
    gcd,
    Change,
    Cursor,
    Pick,
    Place,
    Pool, //
};

/// Where the walk is; C `struct ip_vs_wrr_mark`.
///
/// # Invariants
///
/// `di` is at least 1, `cw` and `mw` are not negative.
#[derive(Clone, Debug)]
pub struct State {
    /// The destination chosen last; C `cl`.
    cursor: Place,
    /// The threshold of this walk; C `cw`.
    cw: i32,
    /// The first threshold; zero if no destination has any weight; C `mw`.
    mw: i32,
    /// The step from one threshold to the next; C `di`.
    di: i32,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// For a service without destinations.
    pub const fn new() -> Self {
        State {
            cursor: Place::HEAD,
            cw: 0,
            mw: 0,
            di: 1,
        }
    }

    /// The numbers `(cw, mw, di)`, for tests and debugging.
    pub const fn numbers(&self) -> (i32, i32, i32) {
        (self.cw, self.mw, self.di)
    }

    /// The place of the destination chosen last.
    #[inline]
    pub const fn cursor(&self) -> Cursor {
        self.cursor.get()
    }

    /// Looks at `range` of the list for a destination that reaches the threshold.
    #[inline]
    fn walk<P: Pool + ?Sized>(
        &mut self,
        pool: &P,
        mut range: core::ops::Range<usize>,
    ) -> Option<Pick> {
        let cw = self.cw;
        let i = range.find(|&i| !pool.overloaded(i) && pool.weight(i) >= cw)?;
        self.cursor = Place::new(Cursor::At(i));
        Some(Pick::Dest(i))
    }

    /// The next destination that reaches the threshold, lowering the threshold at each end of the
    /// list, until every destination was looked at with the lowest one.
    #[inline]
    pub fn pick<P: Pool + ?Sized>(&mut self, pool: &P) -> Pick {
        if self.mw == 0 {
            return Pick::NoneAvailable;
        }
        let len = pool.len();
        let last = self.cursor.get().within(len);
        match self.walk(pool, last.next()..len) {
            Some(pick) => pick,
            None => self.pick_slow(pool, last),
        }
    }

    /// The rest of a pick once the end of the list was reached.
    fn pick_slow<P: Pool + ?Sized>(&mut self, pool: &P, last: Cursor) -> Pick {
        let len = pool.len();
        // The highest weight that can still be chosen. Walks with a higher threshold fail.
        let reachable = (0..len)
            .filter(|&i| !pool.overloaded(i))
            .map(|i| pool.weight(i))
            .max()
            .unwrap_or(0);

        let mut last_walk = false;
        let mut restarted = false;
        loop {
            self.cw = self.cw.saturating_sub(self.di);
            if self.cw <= 0 {
                self.cw = self.mw;
                // Everything was looked at with the lowest threshold: either in the walk that just
                // ended, or, having started from the head, in the very first one.
                if last_walk || last == Cursor::Head {
                    self.cursor = Place::HEAD;
                    return Pick::AllOverloaded;
                }
                restarted = true;
            }

            // Leaves out the walks that must fail and are not the last, where C does them all: up
            // to 2^31 of them when a heavy destination is overloaded.
            let target = reachable.max(self.di);
            let excess = self.cw.saturating_sub(target).max(0);
            let steps = excess
                .saturating_add(self.di.saturating_sub(1))
                .checked_div(self.di)
                .unwrap_or(0);
            self.cw = self.cw.saturating_sub(steps.saturating_mul(self.di));

            last_walk = self.cw <= self.di;
            if last_walk && restarted {
                // The destinations after `last` were looked at with the lowest threshold when this
                // pick began. Those up to it remain.
                if let Cursor::At(stop) = last {
                    return match self.walk(pool, 0..stop.saturating_add(1).min(len)) {
                        Some(pick) => pick,
                        None => {
                            self.cursor = Place::new(last);
                            Pick::AllOverloaded
                        }
                    };
                }
            }
            if let Some(pick) = self.walk(pool, 0..len) {
                return pick;
            }
        }
    }

    /// Starts the list over with new numbers after any change; C `ip_vs_wrr_dest_changed()`. The
    /// threshold stays about where it was.
    pub fn on_change<P: Pool + ?Sized>(&mut self, _change: Change, pool: &P) {
        let weights = || (0..pool.len()).map(|i| pool.weight(i)).filter(|w| *w > 0);
        let step = weights().fold(0, gcd).max(1);
        let max = weights().max().unwrap_or(0);

        self.cursor = Place::HEAD;
        self.di = step;
        // `step` divides `max`, unless there is none and it is 1.
        self.mw = max.saturating_sub(step.saturating_sub(1)).max(0);
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if step > 1 {
            let walks = self.cw.checked_div(step).unwrap_or(0);
            self.cw = walks.saturating_mul(step).saturating_add(1);
        }
    }
}
