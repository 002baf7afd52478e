// SPDX-License-Identifier: GPL-2.0-only

//! Maglev hashing; C file: `ip_vs_mh.c`.
//!
//! From "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4. Each
//! destination walks through the table in an order of its own, which only its address and port
//! decide, and takes the first slots that are free; they do so in turn, as many slots a turn as
//! their weights say. So a destination that comes or goes moves few slots of the others.
//!
//! Weights count as they were before a destination was given none: a server that is taken out of
//! service for a while does not move anything.

use super::{
    gcd,
    sh::client,
    table::{
        self,
        folded,
        Planned,
        Slot,
        EMPTY, //
    },
    Flow,
    Options,
    Pick,
    Pool, //
};
use crate::{
    addr::Family,
    siphash::{
        hsiphash_u32,
        Key, //
    }, //
};

/// Slots of the table: a prime; C with `CONFIG_IP_VS_MH_TAB_INDEX` 12.
pub const SIZE: usize = PRIME as usize;

const PRIME: u32 = 4093;

/// Bits of the most slots that a destination takes in a turn; C `IP_VS_MH_TAB_BITS`.
const TURN_BITS: u32 = 6;

/// The keys of C's two hashes, which are no secret: every machine must come to the same table.
const KEY1: Key = [2_654_435_761; 2];
const KEY2: Key = [2_654_446_892; 2];

/// A destination's walk through the table.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// The slot that is looked at next.
    at: u32,
    /// The way from one to the next; less than their number, which is prime.
    skip: u32,
    /// How many slots are taken in a turn.
    turn: u32,
}

impl Walk {
    /// That of a destination; a turn is its weight over `divisor` without the last `shift` bits.
    fn new(family: Family, dest: Planned<'_>, divisor: i32, shift: u32) -> Self {
        let value = folded(family, dest.addr).wrapping_add(u16::from_be(dest.port).into());
        let shares = dest.last_weight.max(0).checked_div(divisor).unwrap_or(0);
        let turn = shares.unsigned_abs().checked_shr(shift).unwrap_or(0);
        Walk {
            at: hsiphash_u32(&KEY1, value) % PRIME,
            skip: (hsiphash_u32(&KEY2, value) % (PRIME - 1)).wrapping_add(1),
            turn: turn.max(u32::from(dest.last_weight > 0)),
        }
    }

    /// Takes the next free slot for destination `i`, if there is one.
    fn take(&mut self, table: &mut [Slot], i: Slot) -> bool {
        for _ in 0..PRIME {
            match table.get_mut(self.at as usize) {
                Some(slot) if *slot == EMPTY => {
                    *slot = i;
                    return true;
                }
                _ => self.at = self.at.wrapping_add(self.skip) % PRIME,
            }
        }
        false
    }
}

/// Destinations in turn, until the table is full; those that were added with weight zero get none.
pub(super) fn fill<'a>(
    family: Family,
    plan: impl Iterator<Item = Planned<'a>> + Clone,
    table: &mut [Slot],
    walks: &mut [Walk],
) {
    let weights = || plan.clone().map(|dest| dest.last_weight.max(0));
    let divisor = weights().fold(0, gcd);
    let most = weights().max().unwrap_or(0);
    let Some(shares) = most.checked_div(divisor) else {
        return;
    };
    let bits = 32_u32.saturating_sub(shares.leading_zeros());
    let shift = bits.saturating_sub(TURN_BITS);
    for (walk, dest) in walks.iter_mut().zip(plan) {
        *walk = Walk::new(family, dest, divisor, shift);
    }

    // Every round takes a slot at least: that of the highest weight.
    for _round in 0..PRIME {
        for (i, walk) in (0..EMPTY).zip(walks.iter_mut()) {
            for _ in 0..walk.turn {
                if !walk.take(table, i) {
                    return;
                }
            }
        }
    }
}

/// The destination in the slot of the client's address, and port if the service wants that.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P, flow: &impl Flow, options: Options) -> Pick {
    let client = client(flow, options);
    table::pick(pool, options.fallback, PRIME, |offset| {
        hsiphash_u32(&KEY1, client.wrapping_add(offset)) % PRIME
    })
}
