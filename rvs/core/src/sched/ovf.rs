// SPDX-License-Identifier: GPL-2.0-only

//! Weighted overflow; C file: `ip_vs_ovf.c`.

use super::{
    heaviest,
    Pick,
    Pool, //
};

/// The destination of the highest weight whose active connections are not more than its weight, the
/// first of equals.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    heaviest(pool, |i, weight| {
        i64::from(pool.active(i)) <= i64::from(weight)
    })
}
