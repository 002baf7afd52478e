// SPDX-License-Identifier: GPL-2.0-only

//! The tables of dh, sh and mh: hash to destination.
//!
//! A table belongs to one array of destinations and is made with it, in memory of the caller's:
//! [`size`] says how much, [`fill`] fills it, [`super::Pool::table`] hands it out again.
//!
//! C: `ip_vs_dh_reassign()`, `ip_vs_sh_reassign()`, `ip_vs_mh_reassign()`.

use super::{
    dh,
    eligible,
    mh,
    sh,
    Change,
    Kind,
    Pick,
    Pool, //
};
use crate::addr::{
    Addr,
    Be16,
    Family, //
};

/// The index of a destination, or [`EMPTY`].
pub type Slot = u32;

/// No destination.
pub const EMPTY: Slot = Slot::MAX;

/// A destination as a table is made of it.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// Its address.
    pub addr: &'a Addr,
    /// Its port, in memory order.
    pub port: Be16,
    /// Its weight.
    pub weight: i32,
    /// The latest weight that was not zero, or the one it was added with; C `last_weight`.
    pub last_weight: i32,
}

/// How many slots the table of a scheduler has, if it has one.
pub const fn size(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Dh => Some(dh::SIZE),
        Kind::Sh => Some(sh::SIZE),
        Kind::Mh => Some(mh::SIZE),
        _ => None,
    }
}

/// Whether a destination that is edited makes for another table.
pub const fn is_changed_by(kind: Kind, old: Planned<'_>, new: Planned<'_>) -> bool {
    match kind {
        Kind::Sh => sh::slots(old.weight) != sh::slots(new.weight),
        Kind::Mh => old.last_weight != new.last_weight,
        _ => false,
    }
}

/// Whether the table of a scheduler has room for so many destinations.
pub const fn has_room(kind: Kind, dests: usize) -> bool {
    !matches!(kind, Kind::Mh) || dests <= mh::SIZE
}

/// How many [`mh::Walk`]s [`fill`] needs for so many destinations.
pub const fn scratch(kind: Kind, dests: usize) -> usize {
    match kind {
        Kind::Mh => dests,
        _ => 0,
    }
}

/// Fills a table of [`size`] slots, all [`EMPTY`], for destinations in list order, for which there is
/// room ([`has_room`]). `family` is the service's.
pub fn fill<'a>(
    kind: Kind,
    family: Family,
    plan: impl Iterator<Item = Planned<'a>> + Clone,
    table: &mut [Slot],
    scratch: &mut [mh::Walk],
) {
    match kind {
        Kind::Dh => dh::fill(plan, table),
        Kind::Sh => sh::fill(plan, table),
        Kind::Mh => mh::fill(family, plan, table, scratch),
        _ => {}
    }
}

/// Where the destination of a slot is after a change: [`EMPTY`] if it is gone. For a table that
/// cannot be made anew, since there are too many destinations.
pub const fn moved(slot: Slot, change: Change) -> Slot {
    let at = slot as usize;
    match change {
        _ if slot == EMPTY => EMPTY,
        Change::Added(i) if i <= at => slot.saturating_add(1),
        Change::Removed(i) if i == at => EMPTY,
        Change::Removed(i) if i < at => slot.saturating_sub(1),
        Change::Added(_) | Change::Removed(_) | Change::Updated(_) => slot,
        Change::Reset => EMPTY,
    }
}

/// The four words of an address as one number: they are summed without carry. Of an IPv4 service's
/// address only the first word counts, whatever family the destination has.
#[inline]
pub(super) fn folded(family: Family, addr: &Addr) -> u32 {
    let [a, b] = addr.words64();
    let words = match family {
        Family::V4 => a & u64::from(u32::MAX),
        Family::V6 => a ^ b,
    };
    u32::from_be(words as u32 ^ (words >> 32) as u32)
}

/// The kernel's `hash_32()`: the upper `bits` bits of a product.
#[inline]
pub(super) fn hash_32(value: u32, bits: u32) -> u32 {
    let hash = value.wrapping_mul(0x61c8_8647);
    hash.checked_shr(32_u32.saturating_sub(bits)).unwrap_or(0)
}

/// The destination in a slot of the pool's table.
#[inline]
pub(super) fn at<P: Pool + ?Sized>(pool: &P, slot: u32) -> Option<usize> {
    let i = *pool.table().get(slot as usize)? as usize;
    (i < pool.len()).then_some(i)
}

/// The destination in slot `slot(0)`; with `fallback`, if that takes no connections, the first that
/// does in the slots `slot(n)` for `n` from `slot(0)` on, of `size`, all around.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(
    pool: &P,
    fallback: bool,
    size: u32,
    slot: impl Fn(u32) -> u32,
) -> Pick {
    let first = slot(0);
    let Some(i) = at(pool, first) else {
        return Pick::NoneAvailable;
    };
    if eligible(pool, i) {
        return Pick::Dest(i);
    }
    // If there is nothing to be found it is found out here, not by `size` hashes.
    if !fallback || !(0..pool.len()).any(|i| eligible(pool, i)) {
        return Pick::NoneAvailable;
    }
    let found = (first..size)
        .chain(0..first.min(size))
        .map_while(|n| at(pool, slot(n)))
        .find(|&i| eligible(pool, i));
    Pick::from_option(found)
}
