// SPDX-License-Identifier: GPL-2.0-only

//! Spinlocks taken with bottom halves disabled.
//!
//! What a hook or a timer takes in softirq context, process context must take with bottom halves off. The kernel crate
//! has no such lock.
//!
//! C header: `include/linux/spinlock.h`

use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ops::{
        Deref,
        DerefMut, //
    }, //
};
use kernel::{
    prelude::*,
    str::CStr,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// A spinlock over a `T`: `spin_lock_bh()`.
///
/// # Invariants
///
/// `raw` is an initialised spinlock. `value` is accessed only while `raw` is held, or through `&mut self`.
pub(crate) struct SpinBh<T> {
    raw: Opaque<bindings::spinlock_t>,
    value: UnsafeCell<T>,
}

// SAFETY: The lock hands out access to `value` to one thread at a time; sending the lock sends the value.
unsafe impl<T: Send> Send for SpinBh<T> {}
// SAFETY: As above: shared references to the lock give exclusive access to the value, to one holder at a time.
unsafe impl<T: Send> Sync for SpinBh<T> {}

impl<T> SpinBh<T> {
    /// Makes an unlocked lock. `key` is lockdep's class: `kernel::static_lock_class!()`.
    pub(crate) fn new(value: T, name: &'static CStr, key: Pin<&'static LockClassKey>) -> Self {
        let raw: Opaque<bindings::spinlock_t> = Opaque::uninit();
        // SAFETY: `raw` is valid for writes, and `name` and `key` live forever.
        unsafe { bindings::__spin_lock_init(raw.get(), name.as_char_ptr(), key.as_ptr()) };
        // INVARIANT: Initialised just above. Moving it is sound: a lock that nobody holds or waits for has no pointer to
        // itself, with or without lockdep.
        Self {
            raw,
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock and disables bottom halves until the guard goes.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        // SAFETY: By the type invariant the lock is initialised; it stays where it is while borrowed.
        unsafe { bindings::rvs_helper_spin_lock_bh(self.raw.get()) };
        Guard {
            lock: self,
            _cpu: NotThreadSafe,
            _t: PhantomData,
        }
    }
}

/// Access to the value of a held [`SpinBh`].
///
/// # Invariants
///
/// The lock is held by this CPU, with bottom halves disabled, while the guard lives.
pub(crate) struct Guard<'a, T> {
    lock: &'a SpinBh<T>,
    _cpu: NotThreadSafe,
    _t: PhantomData<&'a mut T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the lock is held, so nobody else has access to the value.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As in `deref()`, and `&mut self` makes this the only reference made from the guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held by this CPU through this guard.
        unsafe { bindings::rvs_helper_spin_unlock_bh(self.lock.raw.get()) };
    }
}

/// A `T` behind one of a few locks that all such values have together: for what is locked rarely, and is there so often that
/// a lock in each would be felt. Whoever holds one takes no other lock.
///
/// # Invariants
///
/// `value` is accessed only while the lock of its address is held, or through `&mut self`.
pub(crate) struct Shared<T> {
    value: UnsafeCell<T>,
}

// SAFETY: As for [`SpinBh`].
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: As for [`SpinBh`]: the lock gives access to one holder at a time.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Puts `value` behind a lock.
    pub(crate) const fn new(value: T) -> Self {
        Self {
            value: UnsafeCell::new(value),
        }
    }

    /// Runs `f` with the lock held and bottom halves disabled. `f` must not sleep, nor take a lock.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let place = self.value.get();
        // SAFETY: The locks are static; the value stays where it is while borrowed, so that its lock stays the same.
        unsafe { bindings::rvs_helper_shared_lock_bh(place.cast()) };
        // SAFETY: By the type invariant, with the lock held.
        let result = f(unsafe { &mut *place });
        // SAFETY: Taken above by this CPU.
        unsafe { bindings::rvs_helper_shared_unlock_bh(place.cast()) };
        result
    }
}
