// SPDX-License-Identifier: GPL-2.0-only

//! Weighted least connections; C file: `ip_vs_wlc.c`.

use super::{
    least_weighted,
    overhead,
    Pick,
    Pool, //
};

/// The destination with the least load per weight, the first of equals.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    least_weighted(pool, |i| overhead(pool, i))
}
