// SPDX-License-Identifier: GPL-2.0-only

//! Source hashing; C file: `ip_vs_sh.c`.

use super::{
    table::{
        self,
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
use core::iter::repeat_n;

/// Bits of a hash.
const BITS: u32 = 8;

/// Slots of the table.
pub(super) const SIZE: usize = SLOTS as usize;

const SLOTS: u32 = 1 << BITS;

/// How many slots in a row a destination of this weight has.
pub(super) const fn slots(weight: i32) -> u32 {
    if weight > 1 {
        weight.unsigned_abs()
    } else {
        1
    }
}

/// Destinations in turn, each with as many slots in a row as its weight says, and one at least.
pub(super) fn fill<'a>(plan: impl Iterator<Item = Planned<'a>> + Clone, table: &mut [Slot]) {
    let turns = (0..EMPTY)
        .zip(plan)
        .flat_map(|(i, dest)| repeat_n(i, slots(dest.weight) as usize))
        .cycle();
    for (slot, i) in table.iter_mut().zip(turns) {
        *slot = i;
    }
}

/// The destination in the slot of the client's address, and port if the service wants that.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P, flow: &impl Flow, options: Options) -> Pick {
    let client = client(flow, options);
    table::pick(pool, options.fallback, SLOTS, |offset| {
        hash_32(client, BITS).wrapping_add(offset) % SLOTS
    })
}

/// What a client is hashed by.
#[inline]
pub(super) fn client(flow: &impl Flow, options: Options) -> u32 {
    let port = if options.port { flow.client_port() } else { 0 };
    folded(flow.family(), flow.client()).wrapping_add(u16::from_be(port).into())
}
