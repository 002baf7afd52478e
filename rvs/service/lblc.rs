// SPDX-License-Identifier: GPL-2.0-only

//! The caches of lblc and lblcr: which address goes to which destination, or to which of a set; `struct ip_vs_lblc_table`,
//! `struct ip_vs_lblcr_table`.
//!
//! Cached destinations keep their memory, but are used only while the service has them. What is kept of removed ones goes
//! with the next clearing, and everything with the service or its scheduler.

use super::{
    Backends,
    Flow, //
};
use crate::{
    dest::Dest,
    os::{
        random,
        time, //
    },
    HZ, //
};
use kernel::{
    alloc::flags::__GFP_NOWARN,
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::Addr,
    sched::{
        lblc::{
            self,
            Clearing,
            Clock, //
        },
        lblcr,
        Flow as _,
        Pick,
        Pool, //
    },
    siphash, //
};

/// How often caches are cleared, in jiffies.
pub(crate) const PERIOD: u32 = HZ.from_secs_u32(lblc::PERIOD_SECS);

/// How long an entry of a large cache stays unused, in jiffies.
const IDLE: i32 = HZ.from_secs_u32(lblc::IDLE_SECS) as i32;

/// The cache of lblc: a destination for each address.
pub(crate) type Lblc = Cache<Arc<Dest>>;

/// The cache of lblcr: a set of destinations for each address.
pub(crate) type Lblcr = Cache<Set>;

/// What a cache holds for an address.
pub(crate) trait Cached {
    /// Forgets destinations that the service has no more; returns whether anything is left.
    fn forget_removed(&mut self) -> bool;
}

impl Cached for Arc<Dest> {
    fn forget_removed(&mut self) -> bool {
        self.available()
    }
}

/// The destinations of an address: `struct ip_vs_dest_set`.
pub(crate) struct Set {
    /// The newest last.
    dests: KVec<Arc<Dest>>,
    /// When a destination came or went last, in jiffies.
    changed: u32,
}

impl Set {
    /// A set of one; `None` without memory.
    fn of(dest: Arc<Dest>, now: u32) -> Option<Self> {
        let mut set = Self {
            dests: KVec::new(),
            changed: now,
        };
        set.add(dest, now);
        (!set.dests.is_empty()).then_some(set)
    }

    /// Adds a destination unless it is in already. Without memory the set stays as it is.
    fn add(&mut self, dest: Arc<Dest>, now: u32) {
        if self.dests.iter().any(|other| Arc::ptr_eq(other, &dest)) {
            return;
        }
        if push(&mut self.dests, dest) {
            self.changed = now;
        }
    }

    /// Where destination `i` is: the newest is the first, and the last in memory.
    fn place(&self, i: usize) -> usize {
        self.dests.len().wrapping_sub(i).wrapping_sub(1)
    }

    /// Destination `i`.
    fn get(&self, i: usize) -> Option<&Arc<Dest>> {
        self.dests.get(self.place(i))
    }

    fn remove(&mut self, i: usize, now: u32) {
        let at = self.place(i);
        if take(&mut self.dests, at).is_some() {
            self.changed = now;
        }
    }
}

impl Cached for Set {
    fn forget_removed(&mut self) -> bool {
        for at in (0..self.dests.len()).rev() {
            if self.dests.get(at).is_some_and(|dest| !dest.available()) {
                drop(take(&mut self.dests, at));
            }
        }
        !self.dests.is_empty()
    }
}

impl Pool for Set {
    fn len(&self) -> usize {
        self.dests.len()
    }

    fn weight(&self, i: usize) -> i32 {
        self.get(i).map_or(0, |dest| dest.weight())
    }

    fn overloaded(&self, i: usize) -> bool {
        self.get(i).is_none_or(|dest| dest.overloaded())
    }

    fn active(&self, i: usize) -> u32 {
        self.get(i).map_or(0, |dest| dest.active())
    }

    fn total(&self, i: usize) -> u32 {
        self.get(i).map_or(0, |dest| dest.total())
    }
}

impl lblcr::Set for Set {
    fn available(&self, i: usize) -> bool {
        self.get(i).is_some_and(|dest| dest.available())
    }
}

struct Entry<V> {
    addr: Addr,
    /// When it was asked for last, in jiffies.
    used: u32,
    value: V,
}

/// A hash table of addresses. Who can send to any address must not be able to fill one chain: the hash has a key.
pub(crate) struct Cache<V> {
    chains: KVVec<KVec<Entry<V>>>,
    key: siphash::Key,
    entries: u32,
    clock: Clock,
    /// The chain that was cleared last.
    rover: usize,
    /// Whether there may be removed destinations in it.
    is_stale: bool,
}

impl<V: Cached> Cache<V> {
    /// Makes an empty one. May sleep.
    pub(super) fn new() -> Result<Self> {
        let mut chains = KVVec::with_capacity(lblc::CHAINS, GFP_KERNEL)?;
        for _ in 0..lblc::CHAINS {
            chains
                .push_within_capacity(KVec::new())
                .map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            chains,
            key: random::bytes16(),
            entries: 0,
            clock: Clock::new(),
            rover: 0,
            is_stale: false,
        })
    }

    fn chain(&mut self, addr: &Addr) -> Option<&mut KVec<Entry<V>>> {
        let hash = siphash::siphash13(&self.key, &addr.words64());
        self.chains.get_mut(hash as usize % lblc::CHAINS)
    }

    /// What is remembered of an address, which is in use now.
    fn get(&mut self, addr: &Addr, now: u32) -> Option<&mut V> {
        let entry = self.chain(addr)?.iter_mut().find(|e| e.addr == *addr)?;
        entry.used = now;
        Some(&mut entry.value)
    }

    /// Remembers something of an address that is not there; not if the cache is full, or memory.
    fn put(&mut self, addr: &Addr, value: V, now: u32) {
        if self.entries >= lblc::MOST {
            return;
        }
        let entry = Entry {
            addr: *addr,
            used: now,
            value,
        };
        let chain = self.chain(addr);
        if chain.is_some_and(|chain| push(chain, entry)) {
            self.entries = self.entries.saturating_add(1);
        }
    }

    /// A destination was removed.
    pub(super) fn lost_dest(&mut self) {
        self.is_stale = true;
    }

    /// Plans what to clear at the end of a period; `expiration` is in jiffies.
    pub(super) fn tick(&mut self, expiration: i32) -> Clearance {
        let (idle, goal) = match self.clock.tick(self.entries) {
            Clearing::None => (None, 0),
            Clearing::Idle(goal) => (Some(IDLE), goal),
            Clearing::Expired => (Some(expiration), u32::MAX),
        };
        Clearance {
            now: time::jiffies(),
            idle,
            goal,
            removed: core::mem::take(&mut self.is_stale),
            chains: lblc::CHAINS,
            at: self.rover,
        }
    }

    /// Clears the next chain; returns whether there is more to clear.
    pub(super) fn clear_some(&mut self, work: &mut Clearance) -> bool {
        if (work.idle.is_none() && !work.removed) || work.chains == 0 {
            return false;
        }
        work.chains = work.chains.saturating_sub(1);
        work.at = work.at.wrapping_add(1) % lblc::CHAINS;
        let Some(chain) = self.chains.get_mut(work.at) else {
            return false;
        };
        for i in (0..chain.len()).rev() {
            let Some(entry) = chain.get_mut(i) else {
                continue;
            };
            let is_idle = work
                .idle
                .is_some_and(|idle| lblc::overdue(work.now, entry.used, idle) >= 0);
            if is_idle || (work.removed && !entry.value.forget_removed()) {
                drop(take(chain, i));
                self.entries = self.entries.saturating_sub(1);
                work.goal = work.goal.saturating_sub(u32::from(is_idle));
            }
        }
        if chain.is_empty() {
            *chain = KVec::new();
        }
        if work.idle.is_some() {
            self.rover = work.at;
            if work.goal == 0 {
                work.idle = None;
            }
        }
        true
    }
}

/// Appends an element; returns whether there was memory for it. Does not sleep. `KVec::push()` has checks that panic.
fn push<T>(vec: &mut KVec<T>, element: T) -> bool {
    if vec.len() == vec.capacity() {
        let room = vec.len().saturating_mul(2).max(2);
        let Ok(mut larger) = KVec::with_capacity(room, GFP_ATOMIC | __GFP_NOWARN) else {
            return false;
        };
        while let Some(last) = vec.pop() {
            // There is room for all.
            let _ = larger.push_within_capacity(last);
        }
        larger.reverse();
        *vec = larger;
    }
    vec.push_within_capacity(element).is_ok()
}

/// Removes the element at an index. `KVec::remove()` has checks that panic.
fn take<T>(vec: &mut KVec<T>, at: usize) -> Option<T> {
    if at >= vec.len() {
        return None;
    }
    let mut moving = vec.pop()?;
    for place in vec.get_mut(at..).into_iter().flatten().rev() {
        core::mem::swap(place, &mut moving);
    }
    Some(moving)
}

/// The clearing of a cache, in progress.
pub(crate) struct Clearance {
    now: u32,
    /// How long what goes has been idle, in jiffies.
    idle: Option<i32>,
    /// How many of these are to go.
    goal: u32,
    /// Whether removed destinations go.
    removed: bool,
    /// How many chains are left.
    chains: usize,
    /// The chain that was cleared last.
    at: usize,
}

/// C `ip_vs_lblc_schedule()`.
// Out of the way of the other schedulers.
#[inline(never)]
pub(super) fn lblc(cache: &mut Lblc, backends: &Backends, flow: &Flow<'_>) -> Pick {
    let now = time::jiffies();
    let choose = || lblc::pick(backends);
    let dest_of = |pick: Pick| backends.dests.get(pick.dest()?).cloned();

    if let Some(dest) = cache.get(flow.target(), now) {
        if let Some(i) = usable(dest, backends) {
            if dest.weight() > 0 && !lblc::is_overloaded(backends, i) {
                return Pick::Dest(i);
            }
        }
        let pick = choose();
        if let Some(other) = dest_of(pick) {
            *dest = other;
        }
        return pick;
    }
    let pick = choose();
    if let Some(dest) = dest_of(pick) {
        cache.put(flow.target(), dest, now);
    }
    pick
}

/// C `ip_vs_lblcr_schedule()`.
// As above.
#[inline(never)]
pub(super) fn lblcr(cache: &mut Lblcr, backends: &Backends, flow: &Flow<'_>) -> Pick {
    let now = time::jiffies();
    let choose = || lblcr::pick(backends);
    let dest_of = |pick: Pick| backends.dests.get(pick.dest()?).cloned();

    if let Some(set) = cache.get(flow.target(), now) {
        let least = lblcr::least(set).and_then(|i| usable(set.get(i)?, backends));
        let expiration = flow.sysctl.lblcr_expiration();
        if set.len() > 1 && lblc::overdue(now, set.changed, expiration) > 0 {
            if let Some(most) = lblcr::most(set) {
                set.remove(most, now);
            }
        }
        if let Some(i) = least.filter(|i| !lblc::is_overloaded(backends, *i)) {
            return Pick::Dest(i);
        }
        let pick = choose();
        if let Some(dest) = dest_of(pick) {
            set.add(dest, now);
        }
        return pick;
    }
    let pick = choose();
    let Some(dest) = dest_of(pick) else {
        return Pick::NoneSilently;
    };
    if let Some(set) = Set::of(dest, now) {
        cache.put(flow.target(), set, now);
    }
    pick
}

/// Where a cached destination is among those of the service, if it has it.
fn usable(dest: &Arc<Dest>, backends: &Backends) -> Option<usize> {
    if !dest.available() {
        return None;
    }
    backends
        .dests
        .iter()
        .position(|other| Arc::ptr_eq(other, dest))
}
