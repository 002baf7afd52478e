// SPDX-License-Identifier: GPL-2.0-only

//! Shortest expected delay; C file: `ip_vs_sed.c`.

use super::{
    least_weighted,
    Pick,
    Pool, //
};

/// The cost of one more connection: only active ones count.
#[inline]
pub(super) fn cost<P: Pool + ?Sized>(pool: &P, i: usize) -> u32 {
    pool.active(i).saturating_add(1)
}

/// The destination with the least (active + 1) per weight, the first of equals.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    least_weighted(pool, |i| cost(pool, i))
}
