// SPDX-License-Identifier: GPL-2.0-only

//! Locality-based least connections with replication; C file: `ip_vs_lblcr.c`.
//!
//! As [`lblc`](super::lblc), but an address goes to the least loaded one of a set of destinations.
//! Instead of moving to another destination when that is overloaded, it gets one more; from a set
//! that has not changed for long the most loaded one is taken away.

pub use super::lblc::pick;
use super::{
    heavier,
    least_weighted_of,
    overhead,
    Pool, //
};

/// The destinations of an address, the newest first. Some may be gone from the service.
pub trait Set: Pool {
    /// Whether destination `i` is still the service's; C `IP_VS_DEST_CF_AVAILABLE`.
    fn available(&self, i: usize) -> bool;
}

/// The destination of a set with the least load per weight; C `ip_vs_dest_set_min()`.
#[inline]
pub fn least<S: Set + ?Sized>(set: &S) -> Option<usize> {
    least_weighted_of(set, |i| overhead(set, i), |i| set.available(i))
}

/// The destination of a set with the most load per weight, of those that have weight: the one to take
/// away. C `ip_vs_dest_set_max()`.
#[inline]
pub fn most<S: Set + ?Sized>(set: &S) -> Option<usize> {
    let load = |i| (overhead(set, i), set.weight(i));
    (0..set.len())
        .filter(|&i| set.weight(i) > 0)
        .reduce(|most, i| {
            if heavier(load(i), load(most)) {
                i
            } else {
                most
            }
        })
}
