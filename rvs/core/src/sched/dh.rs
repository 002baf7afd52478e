// SPDX-License-Identifier: GPL-2.0-only

//! Destination hashing; C file: `ip_vs_dh.c`.
//!
//! For caches: whoever asks for the same address goes to the same destination. Weights matter only
//! in being zero or not.

use super::{
    eligible,
    table::{
        at,
        folded,
        hash_32,
        Planned,
        Slot,
        EMPTY, //
    },
    Flow,
    Options,
    Pick,
    Pool, //
};

/// Bits of a hash.
const BITS: u32 = 8;

/// Slots of the table.
pub(super) const SIZE: usize = 1 << BITS;

/// Destinations in turn, one slot each.
pub(super) fn fill<'a>(plan: impl Iterator<Item = Planned<'a>> + Clone, table: &mut [Slot]) {
    let turns = (0..EMPTY).zip(plan).map(|(i, _)| i).cycle();
    for (slot, i) in table.iter_mut().zip(turns) {
        *slot = i;
    }
}

/// The destination in the slot of the packet's destination address; no other takes its place.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P, flow: &impl Flow, _options: Options) -> Pick {
    let hash = hash_32(folded(flow.family(), flow.target()), BITS);
    Pick::from_option(at(pool, hash).filter(|&i| eligible(pool, i)))
}
