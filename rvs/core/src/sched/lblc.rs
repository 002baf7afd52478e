// SPDX-License-Identifier: GPL-2.0-only

//! Locality-based least connections; C file: `ip_vs_lblc.c`.
//!
//! For caches: an address that connections go to stays with the destination that was chosen for the
//! first one (by weighted least connections), until that is overloaded while another one is idle.
//! What was chosen is remembered in a cache; here is when it holds, how large it may be and what
//! leaves it when.

use super::{
    wlc,
    Pick,
    Pool, //
};

/// Chains of a cache; C `IP_VS_LBLC_TAB_SIZE`.
pub const CHAINS: usize = 1 << 10;

/// From how many entries on idle ones go early; C `max_size`.
pub const LARGE: u32 = 16 << 10;

/// The most entries; further addresses are not remembered.
pub const MOST: u32 = LARGE / 2 * 3;

/// How often the cache is cleared of what is not used, in seconds; C `CHECK_EXPIRE_INTERVAL`.
pub const PERIOD_SECS: u32 = 60;

/// How long an entry of a large cache stays without being used, in seconds; C `ENTRY_TIMEOUT`.
pub const IDLE_SECS: u32 = 6 * 60;

/// The same for any cache unless something else is configured, in seconds; C
/// `DEFAULT_EXPIRATION`. For lblcr also how long a set stays as it is.
pub const EXPIRATION_SECS: u32 = 24 * 60 * 60;

/// Every how many periods all entries are looked at; C `COUNT_FOR_FULL_EXPIRATION`.
const FULL: u32 = 30;

/// The destination for an address that is not in the cache.
#[inline]
pub fn pick<P: Pool + ?Sized>(pool: &P) -> Pick {
    wlc::pick(pool)
}

/// Whether the address of destination `i` must go elsewhere: it has more active connections than its
/// weight, while another one has not even half as many.
#[inline]
pub fn is_overloaded<P: Pool + ?Sized>(pool: &P, i: usize) -> bool {
    i64::from(pool.active(i)) > i64::from(pool.weight(i))
        && (0..pool.len())
            .any(|i| i64::from(pool.active(i)).saturating_mul(2) < i64::from(pool.weight(i)))
}

/// For how many jiffies at `now` the `period` that began at `since` has been over; negative if it is
/// not. Everything wraps.
#[inline]
pub const fn overdue(now: u32, since: u32, period: i32) -> i32 {
    now.wrapping_sub(since.wrapping_add_signed(period)) as i32
}

/// What to do with a cache now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clearing {
    /// Nothing.
    None,
    /// Let go what was not used for [`IDLE_SECS`], chain by chain until so many have gone.
    Idle(u32),
    /// Let go what was not used for as long as is configured.
    Expired,
}

/// Counts the periods of a cache; C `ip_vs_lblc_check_expire()`.
#[derive(Clone, Debug)]
pub struct Clock(u32);

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// For a new cache.
    pub const fn new() -> Self {
        Clock(1)
    }

    /// What to do at the end of a period.
    pub fn tick(&mut self, entries: u32) -> Clearing {
        if self.0 >= FULL {
            self.0 = 1;
            return Clearing::Expired;
        }
        match entries.saturating_sub(LARGE) {
            0 => {
                self.0 = self.0.saturating_add(1);
                Clearing::None
            }
            excess => Clearing::Idle((excess.saturating_mul(4) / 3).min(LARGE / 2)),
        }
    }
}
