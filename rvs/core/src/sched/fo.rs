// SPDX-License-Identifier: GPL-2.0-only

//! Weighted failover; C file: `ip_vs_fo.c`.

use super::{
    heaviest,
    Pick,
    Pool, //
};

/// The destination of the highest weight, the first of equals.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    heaviest(pool, |_, _| true)
}
