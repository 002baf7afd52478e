// SPDX-License-Identifier: GPL-2.0-only

//! A hash table that owns its entries: read under RCU, resized while it is used, with deadlines on request.
//!
//! # How it works
//!
//! An entry has one or two nodes, each in the chain of its own hash, so that one table answers for both directions of a
//! flow. A link is the address of the entry with the number of the node in bit 0; 0 ends a chain.
//!
//! Readers walk a chain under RCU and take no lock. Writers lock a *stripe*: the low bits of the hash. No table
//! is smaller than the number of stripes, so a stripe covers the bucket of a hash in the old table and in the new one alike.
//!
//! Resizing publishes the new buckets as the *future* of the old ones, waits for a grace period (from here on everybody
//! inserts into the future), then moves chain after chain, the last entry first. A reader that meets a moved entry walks on
//! in a chain of the new table, having seen all that the old chain holds; one that finds nothing looks into the
//! future, too. So no entry is ever missed, and nobody waits for more than one chain.
//!
//! An entry dies once: whoever turns `dead` from 0 to 1 takes it off the wheel and out of the chains, tells it so
//! ([`Entry::removed()`]) and frees it after a grace period.
//!
//! # Deadlines
//!
//! A packet that keeps an entry alive writes the new deadline into it, one store. The [wheel](super::wheel) looks at an
//! entry when the deadline that it had then is over, and frees it or puts it where it is due next. Only a deadline that
//! comes nearer must be told ([`Table::hasten()`]).

use super::{
    atomic::{
        Usize, //
        I64,
        U32,
    },
    lock::SpinBh,
    rcu::{
        Held,
        RcuBox, //
    },
    slab::Cache,
    wheel::{
        Links,
        Wheel, //
    }, //
};
use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        offset_of,
        MaybeUninit, //
    },
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    alloc::flags::GFP_KERNEL,
    c_str,
    prelude::*,
    static_lock_class,
    sync::barrier::{
        smp_mb,
        Read, //
    }, //
};

/// A key for the hash: 128 random bits.
pub(crate) type Key = [u64; 2];

/// What a [`Table`] can hold.
pub(crate) trait Entry: Send + Sync + Sized + 'static {
    /// What a table has for its entries.
    type Home: Send + Sync;

    /// How many nodes the entry has: 1 or 2. Never changes.
    fn nodes(&self) -> usize;

    /// The hash of node 0 or 1, the same for the entry's whole life. (The table trusts no implementation with its memory: an
    /// entry that is not found where its hash says is never freed, and the kernel warned.)
    fn hash(&self, node: usize, key: &Key) -> u32;

    /// Where entries are allocated.
    fn cache() -> &'static Cache<Node<Self>>;

    /// Asks, when the deadline is over at `now`, for another one. Runs under a lock with bottom halves off.
    fn postpone(&self, _now: u32, _home: &Self::Home) -> Option<u32> {
        None
    }

    /// Tells the entry that it is about to be found in the table; nothing can go wrong any more. Must not sleep, and runs
    /// with its stripe locked. Not for those that are [`Unlisted`] or come by [`Table::add()`].
    fn enters(&self, _home: &Self::Home) {}

    /// Tells the entry that it left the table; readers may still see it. Runs once, in any context, without locks.
    fn removed(&self) {}

    /// Tells an entry that was told [`Entry::enters()`] that it leaves the table, while it can still be found.
    fn leaves(&self, _home: &Self::Home) {}

    /// Tells the same entry that it cannot be found any more, just before [`Entry::removed()`]. In any context, without
    /// locks.
    fn left(&self, _home: &Self::Home) {}
}

/// The last words of a node: on the wheel while the entry lives, RCU's head afterwards.
#[repr(C)]
union Tail {
    links: Links,
    rcu: MaybeUninit<bindings::callback_head>,
}

/// An entry as it lies in memory.
///
/// # Invariants
///
/// - `next[n]` links the chain of node `n`; it is written under the stripe of that node's hash only, or before the
///   node is published.
/// - `tail.links` belongs to the wheel's lock until the entry is off the wheel for good; then to RCU.
/// - `refs` counts who holds the memory: one for the table, or for the [`Unlinked`] or [`Unlisted`] that owns the node,
///   and one for each [`Tie`]. The table's goes after a grace period.
#[repr(C, align(64))]
pub(crate) struct Node<T> {
    next: [Usize; 2],
    /// When the entry expires, in jiffies.
    pub(super) deadline: U32,
    /// The tick of the wheel at which the entry is looked at. Under the wheel's lock.
    pub(super) armed: U32,
    dead: U32,
    refs: U32,
    value: T,
    tail: UnsafeCell<Tail>,
}

// SAFETY: The links are atomic words or guarded by locks (see the invariants); the value is `Send`.
unsafe impl<T: Send> Send for Node<T> {}
// SAFETY: As above, with `T: Sync` for the value.
unsafe impl<T: Sync> Sync for Node<T> {}

const NODE_BIT: usize = 1;

impl<T: Entry> Node<T> {
    /// The wheel's links, valid under the wheel's lock while the entry is not freed.
    pub(super) fn links(&self) -> *mut Links {
        // CAST: `links` is a field of the union, so both start at the same address.
        self.tail.get().cast::<Links>()
    }

    /// Claims the entry's death; `true` for exactly one caller.
    pub(super) fn claim(&self) -> bool {
        self.dead.load() == 0 && self.dead.replace(0, 1)
    }

    /// Whether somebody claimed the entry's death.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load() != 0
    }

    pub(super) fn value(&self) -> &T {
        &self.value
    }

    fn link(&self, node: usize) -> usize {
        core::ptr::from_ref(self) as usize | (node & NODE_BIT)
    }

    /// Follows a link.
    ///
    /// # Safety
    ///
    /// `link` must not be 0, and come from a chain that was read under the RCU section `'g` or under the stripe's lock.
    #[inline(always)]
    unsafe fn follow<'g>(link: usize) -> (&'g Node<T>, usize) {
        // SAFETY: By the requirement this is the address of a node that is freed only after a grace period.
        let entry = unsafe { &*((link & !NODE_BIT) as *const Node<T>) };
        (entry, link & NODE_BIT)
    }

    fn next_of(&self, node: usize) -> &Usize {
        if node == 0 {
            &self.next[0]
        } else {
            &self.next[1]
        }
    }
}

/// An entry found in a table, good for one RCU section.
pub(crate) struct Ref<'g, T>(pub(super) &'g Node<T>);

impl<T> Clone for Ref<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Ref<'_, T> {}

impl<'g, T: Entry> Ref<'g, T> {
    /// The entry, for as long as the RCU section.
    #[inline(always)]
    pub(crate) fn get(self) -> &'g T {
        &self.0.value
    }

    /// Takes a reference that outlives the section.
    pub(crate) fn tie(self) -> Tie<T> {
        // The table's reference, or the owner's, is there as long as this value: never from 0.
        self.0.refs.add(1);
        // INVARIANT: Just counted.
        Tie(NonNull::from(self.0))
    }

    /// When the entry expires, in jiffies.
    pub(crate) fn deadline(self) -> u32 {
        self.0.deadline.load()
    }

    /// Puts the deadline off: one store. See [`Table::hasten()`] for a nearer one.
    #[inline(always)]
    pub(crate) fn defer(self, deadline: u32) {
        self.0.deadline.store(deadline);
    }
}

impl<T: Entry> Deref for Ref<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// An allocated entry that is not in a table yet.
pub(crate) struct Unlinked<T: Entry>(NonNull<Node<T>>);

impl<T: Entry> Unlinked<T> {
    /// Allocates an entry; does not sleep. On failure the value is dropped.
    pub(crate) fn new(value: T) -> Result<Self> {
        let mem = T::cache().alloc().ok_or(ENOMEM)?;
        // SAFETY: `mem` is valid for writes of a `Node<T>` and belongs to this call.
        unsafe {
            mem.write(Node {
                next: [Usize::new(0), Usize::new(0)],
                deadline: U32::new(0),
                armed: U32::new(0),
                dead: U32::new(0),
                refs: U32::new(1),
                value,
                tail: UnsafeCell::new(Tail {
                    links: Links::unlinked(),
                }),
            })
        };
        Ok(Self(mem))
    }
}

impl<T: Entry> Drop for Unlinked<T> {
    fn drop(&mut self) {
        // SAFETY: The node was never published, and the reference is that of `self`.
        unsafe { put_node(self.0) };
    }
}

/// An entry that is never found: for one packet. It ends when it is dropped.
///
/// # Invariants
///
/// The node is dead, in no chain and on no wheel.
pub(crate) struct Unlisted<T: Entry>(Unlinked<T>);

impl<T: Entry> Unlisted<T> {
    /// Uses `new` without putting it into a table.
    pub(crate) fn new(new: Unlinked<T>) -> Self {
        // SAFETY: The node belongs to `new`.
        unsafe { new.0.as_ref() }.dead.store(1);
        // INVARIANT: It was never in a table, and nobody can claim its death any more.
        Self(new)
    }

    /// The entry, for as long as it is used. Tables take it for one that has ended.
    pub(crate) fn entry(&self) -> Ref<'_, T> {
        // SAFETY: The node lives as long as `self`.
        Ref(unsafe { self.0 .0.as_ref() })
    }
}

impl<T: Entry> Drop for Unlisted<T> {
    fn drop(&mut self) {
        self.entry().removed();
    }
}

/// A counted reference to an entry: to its memory, not its place in the table, which it may lose meanwhile.
///
/// # Invariants
///
/// The node holds a reference for this value.
pub(crate) struct Tie<T: Entry>(NonNull<Node<T>>);

// SAFETY: A tie gives `&T` on any thread, and drops the value on any.
unsafe impl<T: Entry> Send for Tie<T> {}
// SAFETY: As above.
unsafe impl<T: Entry> Sync for Tie<T> {}

impl<T: Entry> Tie<T> {
    /// The entry.
    #[inline]
    pub(crate) fn entry(&self) -> Ref<'_, T> {
        // SAFETY: By the type invariant the node is not freed while `self` is there.
        Ref(unsafe { self.0.as_ref() })
    }
}

impl<T: Entry> Drop for Tie<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is there, and it is not used again.
        unsafe { put_node(self.0) };
    }
}

/// Gives one reference back, and frees the node with the last.
///
/// # Safety
///
/// The caller must own a reference of `node`, and not use the node any more.
unsafe fn put_node<T: Entry>(node: NonNull<Node<T>>) {
    // SAFETY: By the requirement the node is there. The subtraction is fully ordered, so what was done with the node
    // under other references comes before.
    if unsafe { node.as_ref() }.refs.fetch_sub(1) == 1 {
        // SAFETY: That was the last reference.
        unsafe { free_node(node) };
    }
}

/// Drops a node's value and frees its memory.
///
/// # Safety
///
/// `node` must be an initialised node from `T::cache()` that nobody can reach any more.
unsafe fn free_node<T: Entry>(node: NonNull<Node<T>>) {
    // SAFETY: By the requirement; the tail needs no drop.
    unsafe { core::ptr::drop_in_place(core::ptr::addr_of_mut!((*node.as_ptr()).value)) };
    // SAFETY: By the requirement the memory came from this cache, and its value is dropped.
    unsafe { T::cache().free(node) };
}

/// The RCU callback that frees a node.
///
/// # Safety
///
/// `head` must be the tail of a dead `Node<T>` that is out of all chains and off the wheel.
unsafe extern "C" fn free_node_rcu<T: Entry>(head: *mut bindings::callback_head) {
    // SAFETY: By the requirement `head` is the tail of a node.
    let node = unsafe { head.byte_sub(offset_of!(Node<T>, tail)) }.cast::<Node<T>>();
    // SAFETY: The grace period is over, so no reader has the node, and the table's reference goes; `node` is not null.
    unsafe { put_node(NonNull::new_unchecked(node)) };
}

/// One array of chains.
struct Buckets {
    mask: usize,
    heads: KVVec<Usize>,
    /// The buckets that take over, or 0.
    future: Usize,
}

impl Buckets {
    fn new(bits: u32) -> Result<RcuBox<Self>> {
        let n = 1usize.checked_shl(bits).ok_or(EINVAL)?;
        let mut heads = KVVec::with_capacity(n, GFP_KERNEL)?;
        for _ in 0..n {
            heads
                .push_within_capacity(Usize::new(0))
                .map_err(|_| ENOMEM)?;
        }
        RcuBox::new(
            Self {
                mask: n.wrapping_sub(1),
                heads,
                future: Usize::new(0),
            },
            GFP_KERNEL,
        )
    }

    #[inline(always)]
    fn head(&self, hash: u32) -> &Usize {
        let i = hash as usize & self.mask;
        // SAFETY: `mask` is the length of `heads` less one, and the length is a power of two: `i` is in range.
        unsafe { &*self.heads.as_ptr().add(i) }
    }
}

/// What an insertion came to.
pub(crate) enum Inserted<'g, T> {
    /// The entry is in.
    New(Ref<'g, T>),
    /// Another one with the same key was there first; the new one was freed.
    Exists(Ref<'g, T>),
    /// Node 1 of another one is the same; the new one was freed.
    Taken,
}

/// How many chains are looked at in one RCU section.
const CHAINS: usize = 512;

/// How many chains are worked on before others may run.
const RUN: usize = 32;

/// Where a walk through a table is: see [`Table::walk()`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Walk {
    /// The chain.
    pub(crate) chain: usize,
    /// The link of the entry in it that came last, or 0. Only ever compared: the entry may be gone, or be another one, which
    /// then is newer than all that are still to come.
    pub(crate) last: usize,
    /// How often the table had begun or ended to be resized then. When chains were joined or split since, what comes before
    /// the last entry need not have come.
    pub(crate) resizes: usize,
}

/// The table. See the [module's documentation](self).
///
/// # Invariants
///
/// - `cur` is the address of a `Buckets` from `RcuBox::into_raw()`, as is each `future` that is not 0. They are freed a
///   grace period after `cur` has moved past them.
/// - Every node in a chain is live, or dead and freed a grace period after it is taken out.
pub(crate) struct Table<T: Entry> {
    cur: Usize,
    key: Key,
    stripes: KVec<SpinBh<()>>,
    count: I64,
    wheel: Option<Wheel<T>>,
    /// Counts what has changed where entries are: each resize twice, after its buckets were published and at its end.
    resizes: Usize,
    home: T::Home,
    _owns: PhantomData<T>,
}

// SAFETY: The table owns its entries, which are `Send`.
unsafe impl<T: Entry> Send for Table<T> {}
// SAFETY: Entries are `Sync`; chains are changed under the stripes' locks.
unsafe impl<T: Entry> Sync for Table<T> {}

impl<T: Entry> Table<T> {
    /// Makes a table of `2^bits` buckets with `2^stripe_bits` locks, which is its least size from then on. With `wheel`,
    /// entries have deadlines. May sleep.
    pub(crate) fn new(bits: u32, stripe_bits: u32, wheel: bool, home: T::Home) -> Result<Self> {
        let n = 1usize.checked_shl(stripe_bits).ok_or(EINVAL)?;
        let mut stripes = KVec::with_capacity(n, GFP_KERNEL)?;
        for _ in 0..n {
            stripes
                .push_within_capacity(SpinBh::new(
                    (),
                    c_str!("rvs_table_stripe"),
                    static_lock_class!(),
                ))
                .map_err(|_| ENOMEM)?;
        }
        let wheel = if wheel { Some(Wheel::new()?) } else { None };
        let buckets = Buckets::new(bits.max(stripe_bits))?;
        // INVARIANT: `cur` is from `into_raw()`; there is no future yet.
        Ok(Self {
            cur: Usize::new(buckets.into_raw() as usize),
            key: super::random::bytes16(),
            stripes,
            count: I64::new(0),
            wheel,
            resizes: Usize::new(0),
            home,
            _owns: PhantomData,
        })
    }

    /// What the table has for its entries.
    pub(crate) fn home(&self) -> &T::Home {
        &self.home
    }

    /// The key that hashes of this table are made with.
    #[inline(always)]
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// How many entries there are.
    pub(crate) fn count(&self) -> i64 {
        self.count.load()
    }

    #[inline(always)]
    fn buckets<'g>(word: &Usize, _: &'g Held) -> Option<&'g Buckets> {
        // SAFETY: By the type invariant the word is 0 or the address of buckets that are freed a grace period after they
        // went out of use, which is after `'g`.
        unsafe { (word.load() as *const Buckets).as_ref() }
    }

    /// Finds the first entry with `hash` of which `is` approves, with the node that was met.
    #[inline(always)]
    pub(crate) fn find<'g>(
        &'g self,
        hash: u32,
        g: &'g Held,
        mut is: impl FnMut(&'g T, usize) -> bool,
    ) -> Option<(Ref<'g, T>, usize)> {
        self.find_node(hash, g, |entry, node| is(&entry.value, node))
    }

    #[inline(always)]
    fn find_node<'g>(
        &'g self,
        hash: u32,
        g: &'g Held,
        mut is: impl FnMut(&'g Node<T>, usize) -> bool,
    ) -> Option<(Ref<'g, T>, usize)> {
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            let mut link = buckets.head(hash).load();
            while link != 0 {
                // SAFETY: The link was read from a chain inside the RCU section `'g`.
                let (entry, node) = unsafe { Node::<T>::follow(link) };
                if is(entry, node) {
                    return Some((Ref(entry), node));
                }
                link = entry.next_of(node).load();
            }
            if buckets.future.load() == 0 {
                return None;
            }
            // What was moved out of this chain must be seen in the next.
            smp_mb(Read);
            at = Self::buckets(&buckets.future, g);
        }
        None
    }

    fn stripe(&self, hash: u32) -> Option<&SpinBh<()>> {
        self.stripes
            .get(hash as usize & self.stripes.len().wrapping_sub(1))
    }

    /// The buckets that entries go into now.
    fn newest<'g>(&self, g: &'g Held) -> Option<&'g Buckets> {
        let mut at = Self::buckets(&self.cur, g)?;
        while let Some(next) = Self::buckets(&at.future, g) {
            at = next;
        }
        Some(at)
    }

    /// Puts node `node` of `entry` at the head of its chain, whose stripe must be locked.
    fn push(&self, entry: &Node<T>, node: usize, hash: u32, g: &Held) {
        if let Some(buckets) = self.newest(g) {
            let head = buckets.head(hash);
            entry.next_of(node).store(head.load());
            // The swap is fully ordered: who finds the node finds it initialised.
            head.swap(entry.link(node));
        }
    }

    /// Takes node `node` of `entry` out of its chain; returns whether it was there. Readers on it find their way on.
    fn unlink(&self, entry: &Node<T>, node: usize, g: &Held) -> bool {
        self.unlink_from(entry.value.hash(node, &self.key), entry, node, g)
    }

    /// As [`Table::unlink()`]; `hash` is that of the node, in all bits that tell chains apart.
    fn unlink_from(&self, hash: u32, entry: &Node<T>, node: usize, g: &Held) -> bool {
        let _lock = self.stripe(hash).map(SpinBh::lock);
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            let mut word = buckets.head(hash);
            while word.load() != 0 {
                if word.load() == entry.link(node) {
                    word.store(entry.next_of(node).load());
                    return true;
                }
                // SAFETY: The link is from a chain whose stripe is locked.
                let (next, n) = unsafe { Node::<T>::follow(word.load()) };
                word = next.next_of(n);
            }
            at = Self::buckets(&buckets.future, g);
        }
        false
    }

    /// Inserts an entry that expires at `deadline` (where the table has a wheel); `hashes` are what [`Entry::hash()`] says of
    /// its nodes. If node 0 meets a live entry of which `same` approves, that one is returned and the new one freed. Does not
    /// sleep.
    pub(crate) fn insert<'g>(
        &'g self,
        new: Unlinked<T>,
        hashes: [u32; 2],
        deadline: u32,
        g: &'g Held,
        same: impl Fn(&T, usize) -> bool,
    ) -> Inserted<'g, T> {
        self.insert_checked::<false>(new, hashes, deadline, g, same)
    }

    /// As [`Table::insert()`], but node 1 must not meet a live entry of which `same` approves either: then the new one is
    /// freed and [`Inserted::Taken`] returned.
    pub(crate) fn insert_unique<'g>(
        &'g self,
        new: Unlinked<T>,
        hashes: [u32; 2],
        deadline: u32,
        g: &'g Held,
        same: impl Fn(&T, usize) -> bool,
    ) -> Inserted<'g, T> {
        self.insert_checked::<true>(new, hashes, deadline, g, same)
    }

    #[inline(always)]
    fn insert_checked<'g, const UNIQUE: bool>(
        &'g self,
        new: Unlinked<T>,
        [hash0, hash1]: [u32; 2],
        deadline: u32,
        g: &'g Held,
        same: impl Fn(&T, usize) -> bool,
    ) -> Inserted<'g, T> {
        let raw = new.0;
        core::mem::forget(new);
        // SAFETY: The node is initialised, and from here on freed after a grace period only, like all in the table.
        let entry: &'g Node<T> = unsafe { &*raw.as_ptr() };
        entry.deadline.store(deadline);
        self.count.add(1);
        // Node 1 goes first: once node 0 is in, anybody may find the entry and end it.
        let has_two = entry.value.nodes() > 1;
        if has_two {
            let lock = self.stripe(hash1).map(SpinBh::lock);
            let taken = UNIQUE
                && self
                    .find_node(hash1, g, |other, node| {
                        node == 1 && !other.is_dead() && same(&other.value, node)
                    })
                    .is_some();
            if taken {
                drop(lock);
                self.withdraw(entry, None, g);
                return Inserted::Taken;
            }
            self.push(entry, 1, hash1, g);
        }
        let lock = self.stripe(hash0).map(SpinBh::lock);
        // Not this entry's own node 1, which may be in the same chain.
        let other = self.find_node(hash0, g, |other, node| {
            node == 0 && !other.is_dead() && same(&other.value, node)
        });
        if let Some((other, _)) = other {
            drop(lock);
            self.withdraw(entry, has_two.then_some(hash1), g);
            return Inserted::Exists(other);
        }
        entry.value.enters(&self.home);
        self.push(entry, 0, hash0, g);
        drop(lock);
        if let Some(wheel) = &self.wheel {
            wheel.arm(entry);
        }
        Inserted::New(Ref(entry))
    }

    /// Ends an entry that never got into the table, but for its node 1 if that was pushed with the hash `pushed`.
    fn withdraw(&self, entry: &Node<T>, pushed: Option<u32>, g: &Held) {
        if entry.claim() {
            self.count.sub(1);
            let is_out = pushed.is_none_or(|hash| self.unlink_from(hash, entry, 1, g));
            self.release(entry, is_out);
        }
    }

    /// Inserts an entry of which the caller knows that no other one is like it; see [`Table::insert()`].
    pub(crate) fn add<'g>(&'g self, new: Unlinked<T>, deadline: u32, g: &'g Held) -> Ref<'g, T> {
        let raw = new.0;
        core::mem::forget(new);
        // SAFETY: As in `insert()`.
        let entry: &'g Node<T> = unsafe { &*raw.as_ptr() };
        entry.deadline.store(deadline);
        self.count.add(1);
        for node in (0..entry.value.nodes()).rev() {
            let hash = entry.value.hash(node, &self.key);
            let _lock = self.stripe(hash).map(SpinBh::lock);
            self.push(entry, node, hash, g);
        }
        if let Some(wheel) = &self.wheel {
            wheel.arm(entry);
        }
        Ref(entry)
    }

    /// Makes the deadline nearer: writes it and sees to it that the wheel notices.
    pub(crate) fn hasten(&self, entry: Ref<'_, T>, deadline: u32) {
        entry.0.deadline.store(deadline);
        if let Some(wheel) = &self.wheel {
            wheel.hasten(entry.0);
        }
    }

    /// Removes the entry at once, if nobody did so before; returns whether this call did. Does not sleep.
    pub(crate) fn remove(&self, entry: Ref<'_, T>, g: &Held) -> bool {
        if !entry.0.claim() {
            return false;
        }
        self.bury(entry.0, g);
        true
    }

    /// Takes a claimed entry that could be found out of everything and frees it after a grace period.
    pub(super) fn bury(&self, entry: &Node<T>, g: &Held) {
        self.bury_from(entry.value.hash(0, &self.key), entry, g);
    }

    /// As [`Table::bury()`]; `hash` is that of node 0, in all bits that tell chains apart.
    fn bury_from(&self, hash: u32, entry: &Node<T>, g: &Held) {
        entry.value.leaves(&self.home);
        if let Some(wheel) = &self.wheel {
            wheel.disarm(entry);
        }
        let mut is_out = self.unlink_from(hash, entry, 0, g);
        for node in 1..entry.value.nodes() {
            is_out &= self.unlink(entry, node, g);
        }
        self.count.sub(1);
        entry.value.left(&self.home);
        self.release(entry, is_out);
    }

    /// Frees an entry that is off the wheel, after a grace period; but not one that was not in the chain of its hash
    /// (`is_out` is false), which readers may meet for ever.
    fn release(&self, entry: &Node<T>, is_out: bool) {
        entry.value.removed();
        if !is_out {
            // SAFETY: Any context.
            unsafe { bindings::rvs_helper_warn_once() };
            return;
        }
        // SAFETY: The claim was won once, so this runs once for the entry; it is out of all chains and off the wheel, so
        // the tail is RCU's now. The module waits for callbacks (`rcu_barrier()`) before its text goes.
        unsafe {
            bindings::call_rcu(
                entry.tail.get().cast::<bindings::callback_head>(),
                Some(free_node_rcu::<T>),
            )
        };
    }

    /// The number of buckets now.
    pub(crate) fn size(&self, g: &Held) -> usize {
        self.newest(g).map_or(0, |b| b.heads.len())
    }

    /// The number of chains to look at for [`Table::visit()`]: while the table is resized, those of both sizes.
    pub(crate) fn chains(&self, g: &Held) -> usize {
        let mut sum = 0usize;
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            sum = sum.wrapping_add(buckets.heads.len());
            at = Self::buckets(&buckets.future, g);
        }
        sum
    }

    /// Calls `f` for each entry whose node 0 is in chain `index`, newest first, until it returns `false`.
    pub(crate) fn visit<'g>(
        &'g self,
        index: usize,
        g: &'g Held,
        mut f: impl FnMut(Ref<'g, T>) -> bool,
    ) {
        let mut index = index;
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            let Some(head) = buckets.heads.get(index) else {
                index = index.wrapping_sub(buckets.heads.len());
                at = Self::buckets(&buckets.future, g);
                continue;
            };
            let mut link = head.load();
            while link != 0 {
                // SAFETY: The link was read from a chain inside the RCU section `'g`.
                let (entry, node) = unsafe { Node::<T>::follow(link) };
                if node == 0 && !entry.is_dead() && !f(Ref(entry)) {
                    return;
                }
                link = entry.next_of(node).load();
            }
            return;
        }
    }

    /// Goes on with a walk through all entries: calls `f` for those of up to [`CHAINS`] chains, of each the newest first,
    /// until it returns `false`. Returns whether the walk goes on.
    ///
    /// Who is in the table during the whole walk is met, also if it is resized meanwhile, and once if it is not. Chains are
    /// taken in the order of their numbers' bits read backwards, as in the SCAN command of Redis: when the table grows, the
    /// chains that a finished one is split into are finished; when it shrinks, at most some come again.
    pub(crate) fn walk<'g>(
        &'g self,
        walk: &mut Walk,
        g: &'g Held,
        mut f: impl FnMut(Ref<'g, T>) -> bool,
    ) -> bool {
        let resizes = self.resizes.load();
        // Buckets that are older than the number must not be seen any more.
        smp_mb(Read);
        if walk.resizes != resizes {
            walk.last = 0;
            walk.resizes = resizes;
        }
        // The largest of the tables that there are tells chains apart. Nothing goes into one that comes later, before this
        // section ends.
        let (mut mask, mut tables) = (0usize, 0usize);
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            mask |= buckets.mask;
            tables = tables.wrapping_add(1);
            at = Self::buckets(&buckets.future, g);
        }
        for _ in 0..CHAINS {
            let chain = walk.chain & mask;
            match self.walk_chain(chain, (mask, tables > 1), walk, g, &mut f) {
                Some(true) => {}
                Some(false) => return true,
                // The entry left between two looks: the chain comes once more.
                None => {
                    walk.last = 0;
                    continue;
                }
            }
            walk.last = 0;
            walk.chain = (chain | !mask)
                .reverse_bits()
                .wrapping_add(1)
                .reverse_bits();
            if walk.chain == 0 {
                return false;
            }
        }
        true
    }

    /// Walks one chain from behind `walk.last` on. Returns whether `f` wanted all of it; `None` if the last entry was not
    /// met.
    #[inline]
    fn walk_chain<'g>(
        &'g self,
        chain: usize,
        (mask, is_resized): (usize, bool),
        walk: &mut Walk,
        g: &'g Held,
        f: &mut impl FnMut(Ref<'g, T>) -> bool,
    ) -> Option<bool> {
        let mut is_after = walk.last == 0 || !self.is_in(chain, walk.last, g);
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            let mut link = buckets.head(chain as u32).load();
            while link != 0 {
                // SAFETY: The link was read from a chain inside the RCU section `'g`.
                let (entry, node) = unsafe { Node::<T>::follow(link) };
                if is_after {
                    let is_ours = node == 0
                        && !entry.is_dead()
                        && (!is_resized || entry.value.hash(0, &self.key) as usize & mask == chain);
                    if is_ours {
                        if !f(Ref(entry)) {
                            return Some(false);
                        }
                        walk.last = entry.link(0);
                    }
                } else {
                    is_after = link == walk.last;
                }
                link = entry.next_of(node).load();
            }
            if !is_resized {
                break;
            }
            // What was moved out of this chain must be seen in the next.
            smp_mb(Read);
            at = Self::buckets(&buckets.future, g);
        }
        is_after.then_some(true)
    }

    /// The first chain from `index` on that is not empty, and `true`; or, after having looked at so many, where to look
    /// next. Past the end there is none.
    pub(crate) fn first_used(&self, index: usize, g: &Held) -> (usize, bool) {
        let (mut index, mut before) = (index, 0usize);
        let end = index.saturating_add(CHAINS);
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            while let Some(head) = buckets.heads.get(index.wrapping_sub(before)) {
                if head.load() != 0 {
                    return (index, true);
                }
                index = index.wrapping_add(1);
                if index >= end {
                    return (index, false);
                }
            }
            before = before.wrapping_add(buckets.heads.len());
            at = Self::buckets(&buckets.future, g);
        }
        (usize::MAX, false)
    }

    /// Whether a node is in the chain, or one that took over from it.
    fn is_in(&self, chain: usize, wanted: usize, g: &Held) -> bool {
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            let mut link = buckets.head(chain as u32).load();
            while link != 0 {
                if link == wanted {
                    return true;
                }
                // SAFETY: The link was read from a chain inside the RCU section of `g`.
                let (entry, node) = unsafe { Node::<T>::follow(link) };
                link = entry.next_of(node).load();
            }
            smp_mb(Read);
            at = Self::buckets(&buckets.future, g);
        }
        false
    }

    /// How many nodes chain `index` has, but no more than `most`.
    fn chain_len(&self, index: usize, most: usize, g: &Held) -> usize {
        let mut index = index;
        let mut at = Self::buckets(&self.cur, g);
        while let Some(buckets) = at {
            let Some(head) = buckets.heads.get(index) else {
                index = index.wrapping_sub(buckets.heads.len());
                at = Self::buckets(&buckets.future, g);
                continue;
            };
            let mut len = 0usize;
            let mut link = head.load();
            while link != 0 && len < most {
                len = len.wrapping_add(1);
                // SAFETY: The link was read from a chain inside the RCU section of `g`.
                let (entry, node) = unsafe { Node::<T>::follow(link) };
                link = entry.next_of(node).load();
            }
            return len;
        }
        0
    }

    /// How many chains have no node, one, two and so on; the last number is that of all longer ones. While the table is
    /// resized, the chains of both sizes count. Sleeps.
    pub(crate) fn census<const N: usize>(&self) -> [u32; N] {
        let mut counts = [0u32; N];
        let mut index = 0;
        while super::rcu::read(|g| {
            let more = index < self.chains(g);
            if more {
                let len = self.chain_len(index, N.saturating_sub(1), g);
                if let Some(count) = counts.get_mut(len) {
                    *count = count.wrapping_add(1);
                }
            }
            more
        }) {
            index = index.wrapping_add(1);
            // SAFETY: Process context, no lock held.
            unsafe { bindings::rvs_helper_cond_resched() };
        }
        counts
    }

    /// Changes the number of buckets to `2^bits`, moving everything. Sleeps. Callers must not overlap.
    pub(crate) fn resize(&self, bits: u32) -> Result {
        let new = Buckets::new(bits)?;
        if new.heads.len() < self.stripes.len() {
            return Err(EINVAL);
        }
        let old_addr = self.cur.load();
        // SAFETY: Only this function (one caller at a time) replaces and frees buckets, so the current ones stay.
        let Some(old) = (unsafe { (old_addr as *const Buckets).as_ref() }) else {
            return Err(EINVAL);
        };
        if new.heads.len() == old.heads.len() {
            return Ok(());
        }
        // INVARIANT: The future is from `into_raw()`.
        old.future.swap(new.into_raw() as usize);
        self.resizes.fetch_add(1);
        // From here on every insertion goes into the future.
        kernel::sync::rcu::synchronize_rcu();

        for (i, head) in old.heads.iter().enumerate() {
            // A chain that is empty now stays so.
            if head.load() != 0 {
                super::rcu::read(|g| self.drain(old, head, i, g));
            }
            if i % RUN == 0 {
                // SAFETY: Process context, no lock held.
                unsafe { bindings::rvs_helper_cond_resched() };
            }
        }
        // INVARIANT: The future takes over; the old buckets are empty and go after a grace period. Their future stays
        // for those who are still on them.
        self.cur.swap(old.future.load());
        self.resizes.fetch_add(1);
        // SAFETY: The address is from `into_raw()`, and nobody finds it any more.
        unsafe { RcuBox::<Buckets>::from_raw(old_addr as *mut Buckets) }.drop_deferred();
        Ok(())
    }

    /// Moves a chain of `old` into its future, last entry first.
    fn drain(&self, old: &Buckets, head: &Usize, index: usize, g: &Held) {
        let Some(new) = Self::buckets(&old.future, g) else {
            return;
        };
        let Some(stripe) = self.stripe(index as u32) else {
            return;
        };
        let _lock = stripe.lock();
        while head.load() != 0 {
            let mut word = head;
            // SAFETY: The link is from a chain whose stripe is locked; so are the following.
            let (mut last, mut node) = unsafe { Node::<T>::follow(word.load()) };
            while last.next_of(node).load() != 0 {
                word = last.next_of(node);
                // SAFETY: As above.
                let next = unsafe { Node::<T>::follow(word.load()) };
                (last, node) = next;
            }
            let to = new.head(last.value.hash(node, &self.key));
            last.next_of(node).store(to.load());
            to.swap(last.link(node));
            // Only now may a reader miss it here.
            word.swap(0);
        }
    }

    /// Looks at what is due at `now`: see [`Wheel::turn()`]. Process context; callers must not overlap.
    pub(crate) fn expire(&self, now: u32) {
        if let Some(wheel) = &self.wheel {
            wheel.turn(self, now);
        }
    }

    /// Removes every entry that is there. Sleeps. Nothing may be inserted meanwhile if none is to be left.
    pub(crate) fn clear(&self) {
        self.each_in(|chain, entry, g| {
            if !entry.0.claim() {
                return;
            }
            match chain {
                Some(chain) => self.bury_from(chain, entry.0, g),
                None => self.bury(entry.0, g),
            }
        })
    }

    /// Removes each entry for which `keep` says no. Sleeps; `keep` must not.
    pub(crate) fn retain(&self, keep: impl Fn(Ref<'_, T>) -> bool) {
        self.each(|entry, g| {
            if !keep(entry) {
                self.remove(entry, g);
            }
        })
    }

    /// Calls `f`, which must not sleep, for each entry. Sleeps.
    pub(crate) fn each(&self, f: impl for<'g> Fn(Ref<'g, T>, &'g Held)) {
        self.each_in(|_, entry, g| f(entry, g));
    }

    /// As [`Table::each()`], with the number of the chain that node 0 is in, which is as good as its hash; there is none while
    /// the table is resized.
    fn each_in(&self, f: impl for<'g> Fn(Option<u32>, Ref<'g, T>, &'g Held)) {
        let mut index = 0;
        while let Some(next) = super::rcu::read(|g| match self.first_used(index, g) {
            (usize::MAX, _) => None,
            (empty, false) => Some(empty),
            (used, true) => {
                // A table without a future keeps its nodes until this section ends, and stays the current one.
                let chain = Self::buckets(&self.cur, g)
                    .filter(|b| b.future.load() == 0 && used < b.heads.len())
                    .and_then(|_| u32::try_from(used).ok());
                self.visit(used, g, |entry| {
                    f(chain, entry, g);
                    true
                });
                Some(used.wrapping_add(1))
            }
        }) {
            index = next;
            // SAFETY: Process context, no lock held.
            unsafe { bindings::rvs_helper_cond_resched() };
        }
    }
}

impl<T: Entry> Drop for Table<T> {
    fn drop(&mut self) {
        self.clear();
        let mut at = self.cur.load() as *mut Buckets;
        while !at.is_null() {
            // SAFETY: By the type invariant the address is from `into_raw()`; `&mut self` leaves no reader with a right to
            // it, and those who have walked here inside an older RCU section are waited for by `drop_deferred()`.
            let buckets = unsafe { RcuBox::<Buckets>::from_raw(at) };
            at = buckets.future.load() as *mut Buckets;
            buckets.drop_deferred();
        }
    }
}
