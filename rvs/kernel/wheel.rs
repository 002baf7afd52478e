// SPDX-License-Identifier: GPL-2.0-only

//! The timer wheel of a [`Table`]: finds entries whose deadline is over without a timer for each.
//!
//! Time runs in ticks of a quarter second or so; the wheel has [`SLOTS`] of them before it comes round. An entry whose
//! deadline lies beyond is put into the farthest slot and looked at again there. To spare CPUs that create
//! connections from each other there are several wheels; an entry's address tells which one is its own.

use super::{
    atomic::U32,
    lock::SpinBh,
    rcu,
    table::{
        Entry,
        Node,
        Table, //
    },
    time::{
        self,
        HZ, //
    },
};
use crate::bindings;
use kernel::{
    alloc::flags::GFP_KERNEL,
    c_str,
    prelude::*,
    static_lock_class, //
};

/// `2^SHIFT` jiffies are a tick: between an eighth and a half of a second.
const SHIFT: u32 = (HZ / 4).ilog2() + 1;
/// Slots of a wheel.
const SLOTS: usize = 512;
/// How many entries are looked at before the lock is given up for a moment.
const BATCH: usize = 32;
/// Wheels of a table.
const WHEELS: usize = 16;

/// How long a tick is, in jiffies.
pub(crate) const TICK: u32 = 1 << SHIFT;

/// Where an entry hangs. All under the lock of its wheel.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Links {
    /// The next entry's node, or null.
    next: *mut (),
    /// The word that points here, or null while the entry is on no wheel.
    pprev: *mut *mut (),
}

impl Links {
    pub(super) const fn unlinked() -> Self {
        Self {
            next: core::ptr::null_mut(),
            pprev: core::ptr::null_mut(),
        }
    }
}

/// One wheel.
///
/// # Invariants
///
/// Each slot is null or the address of a `Node<T>` whose `links` chain the slot's entries; none of them is freed, since an
/// entry is taken off under the lock before.
struct Slots {
    heads: KVec<*mut ()>,
    /// The last tick that was looked at, or is being looked at.
    done: u32,
}

// SAFETY: The pointers are used under the lock around the structure only.
unsafe impl Send for Slots {}

impl Slots {
    /// Hangs `entry` into the slot for its deadline.
    ///
    /// # Safety
    ///
    /// `entry` must be of the table of this wheel, live, and on no wheel.
    unsafe fn hang<T: Entry>(&mut self, entry: &Node<T>) {
        let deadline_tick = (entry.deadline.load() >> SHIFT).wrapping_add(1);
        // Not before the next tick, and not farther than the wheel reaches.
        let ahead = ticks_after(deadline_tick, self.done).clamp(1, SLOTS as i32 - 1);
        let tick = self.done.wrapping_add(ahead as u32);
        let Some(head) = self.heads.get_mut(tick as usize & (SLOTS - 1)) else {
            return;
        };
        entry.armed.store(tick);
        let links = entry.links();
        let raw = core::ptr::from_ref(entry).cast_mut().cast::<()>();
        let first = *head;
        // SAFETY: The wheel's lock is held (`&mut self`), and by the requirement the links are the wheel's to write.
        unsafe {
            *links = Links {
                next: first,
                pprev: head,
            }
        };
        if !first.is_null() {
            // SAFETY: By the type invariant `first` is a live node of this wheel.
            let first = unsafe { &*first.cast::<Node<T>>() }.links();
            // SAFETY: Its links are under the held lock. The word that points to it is now in `entry`.
            unsafe { (*first).pprev = core::ptr::addr_of_mut!((*links).next) };
        }
        *head = raw;
    }

    /// Takes `entry` off, if it is on.
    ///
    /// # Safety
    ///
    /// `entry` must be of the table of this wheel, and not freed.
    unsafe fn unhang<T: Entry>(&mut self, entry: &Node<T>) -> bool {
        // SAFETY: The links are under the held lock.
        let links = unsafe { &mut *entry.links() };
        if links.pprev.is_null() {
            return false;
        }
        // SAFETY: By the type invariant the word is a slot or the `next` of a node on this wheel.
        unsafe { *links.pprev = links.next };
        if !links.next.is_null() {
            // SAFETY: By the type invariant `next` is a live node on this wheel.
            let next = unsafe { &*links.next.cast::<Node<T>>() }.links();
            // SAFETY: Its links are under the held lock.
            unsafe { (*next).pprev = links.pprev };
        }
        *links = Links::unlinked();
        true
    }
}

/// How many ticks `a` comes after `b`. Ticks have `32 - SHIFT` bits.
fn ticks_after(a: u32, b: u32) -> i32 {
    (a.wrapping_sub(b) << SHIFT) as i32 >> SHIFT
}

/// The wheels of a table.
pub(super) struct Wheel<T: Entry> {
    wheels: KVec<SpinBh<Slots>>,
    /// The last tick that [`Wheel::turn()`] finished.
    turned: U32,
    _of: core::marker::PhantomData<fn(T)>,
}

impl<T: Entry> Wheel<T> {
    pub(super) fn new() -> Result<Self> {
        let now = time::jiffies() >> SHIFT;
        let mut wheels = KVec::with_capacity(WHEELS, GFP_KERNEL)?;
        for _ in 0..WHEELS {
            let mut heads = KVec::with_capacity(SLOTS, GFP_KERNEL)?;
            for _ in 0..SLOTS {
                heads
                    .push_within_capacity(core::ptr::null_mut())
                    .map_err(|_| ENOMEM)?;
            }
            wheels
                .push_within_capacity(SpinBh::new(
                    // INVARIANT: All slots are empty.
                    Slots { heads, done: now },
                    c_str!("rvs_wheel"),
                    static_lock_class!(),
                ))
                .map_err(|_| ENOMEM)?;
        }
        Ok(Self {
            wheels,
            turned: U32::new(now),
            _of: core::marker::PhantomData,
        })
    }

    fn of(&self, entry: &Node<T>) -> Option<&SpinBh<Slots>> {
        let addr = core::ptr::from_ref(entry) as usize;
        // Nodes are at least 64 bytes apart.
        self.wheels
            .get((addr >> 7 ^ addr >> 12) & WHEELS.wrapping_sub(1))
    }

    /// Puts a new entry on the wheel, unless somebody has ended it already.
    pub(super) fn arm(&self, entry: &Node<T>) {
        let Some(wheel) = self.of(entry) else { return };
        let mut slots = wheel.lock();
        if !entry.is_dead() {
            // SAFETY: The entry is live and new, so it is on no wheel. Who ends it takes it off under this lock.
            unsafe { slots.hang(entry) };
        }
    }

    /// Takes an entry off the wheel for good; its death must have been claimed.
    pub(super) fn disarm(&self, entry: &Node<T>) {
        let Some(wheel) = self.of(entry) else { return };
        // SAFETY: The entry is freed by the caller, later.
        unsafe { wheel.lock().unhang(entry) };
    }

    /// Sees to it that an entry whose deadline came nearer is looked at in time.
    pub(super) fn hasten(&self, entry: &Node<T>) {
        let want = (entry.deadline.load() >> SHIFT).wrapping_add(1);
        if ticks_after(entry.armed.load(), want) <= 0 {
            return;
        }
        let Some(wheel) = self.of(entry) else { return };
        let mut slots = wheel.lock();
        // SAFETY: The caller found the entry under RCU, so it is not freed.
        if unsafe { slots.unhang(entry) } {
            // SAFETY: Just taken off, and nobody has freed it: who claims it must take this lock first.
            unsafe { slots.hang(entry) };
        }
    }

    /// Looks at all entries that are due by `now` (jiffies): those whose deadline is over and who don't ask for more
    /// ([`Entry::postpone()`]) are removed from `table`, the others are put where they are due next.
    ///
    /// Process context; callers must not overlap.
    pub(super) fn turn(&self, table: &Table<T>, now: u32) {
        let now_tick = now >> SHIFT;
        // One full round looks at everything, however long ago the last turn was.
        let rounds = match ticks_after(now_tick, self.turned.load()) {
            0 => return,
            behind => u32::try_from(behind).map_or(SLOTS as u32, |n| n.min(SLOTS as u32)),
        };
        let first = now_tick.wrapping_sub(rounds.wrapping_sub(1));
        for wheel in self.wheels.iter() {
            let mut tick = first;
            while ticks_after(now_tick, tick) >= 0 {
                while self.turn_some(table, wheel, tick, now) {
                    // SAFETY: Process context, no lock held.
                    unsafe { bindings::rvs_helper_cond_resched() };
                }
                tick = tick.wrapping_add(1);
            }
        }
        self.turned.store(now_tick);
    }

    /// Looks at up to [`BATCH`] entries of one slot; returns whether there are more.
    // For its frame, which holds the batch.
    #[inline(never)]
    fn turn_some(&self, table: &Table<T>, wheel: &SpinBh<Slots>, tick: u32, now: u32) -> bool {
        rcu::read(|g| {
            let mut due: [Option<&Node<T>>; BATCH] = [None; BATCH];
            let mut more = false;
            {
                let mut slots = wheel.lock();
                slots.done = tick;
                for place in due.iter_mut() {
                    let Some(&head) = slots.heads.get(tick as usize & (SLOTS - 1)) else {
                        break;
                    };
                    // SAFETY: By the type invariant of `Slots`; the entry is not freed before this RCU section ends.
                    let Some(entry) = (unsafe { head.cast::<Node<T>>().as_ref() }) else {
                        break;
                    };
                    more = true;
                    // SAFETY: The entry is on this wheel.
                    unsafe { slots.unhang(entry) };
                    if entry.is_dead() {
                        continue;
                    }
                    if (now.wrapping_sub(entry.deadline.load()) as i32) >= 0 {
                        match entry.value().postpone(now, table.home()) {
                            Some(later) => entry.deadline.store(later),
                            None => {
                                if entry.claim() {
                                    *place = Some(entry);
                                }
                                continue;
                            }
                        }
                    }
                    // SAFETY: The entry was taken off above, and was live then; who ends it must take this lock to take
                    // it off, before it is freed.
                    unsafe { slots.hang(entry) };
                }
            }
            for entry in due.iter().flatten() {
                table.bury(entry, g);
            }
            more
        })
    }
}
