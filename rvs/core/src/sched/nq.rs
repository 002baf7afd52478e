// SPDX-License-Identifier: GPL-2.0-only

//! Never queue; C file: `ip_vs_nq.c`.

use super::{
    heavier,
    sed::cost,
    Pick,
    Pool, //
};

/// The first destination without active connections; if all have some, shortest expected delay.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    let mut least: Option<(usize, u32)> = None;
    for i in 0..pool.len() {
        if pool.overloaded(i) || pool.weight(i) == 0 {
            continue;
        }
        if pool.active(i) == 0 {
            return Pick::Dest(i);
        }
        let i_cost = cost(pool, i);
        let better = least
            .is_none_or(|(l, l_cost)| heavier((l_cost, pool.weight(l)), (i_cost, pool.weight(i))));
        if better {
            least = Some((i, i_cost));
        }
    }
    Pick::from_option(least.map(|(i, _)| i))
}
