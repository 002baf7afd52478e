// SPDX-License-Identifier: GPL-2.0-only

//! Least connections; C file: `ip_vs_lc.c`.

use super::{
    overhead,
    Pick,
    Pool, //
};

/// The least loaded destination that takes connections, the first of equals. Weights matter only in
/// being zero or not.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    let mut least = None;
    let mut least_load = 0;
    for i in 0..pool.len() {
        if pool.overloaded(i) || pool.weight(i) == 0 {
            continue;
        }
        let load = overhead(pool, i);
        if least.is_none() || load < least_load {
            least = Some(i);
            least_load = load;
        }
    }
    Pick::from_option(least)
}
