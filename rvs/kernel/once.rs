// SPDX-License-Identifier: GPL-2.0-only

//! A value that comes once and stays.
//!
//! Like the kernel crate's `SetOnce`, but reading it is one load without a call, for values that every packet needs.

use super::atomic::Usize;
use core::marker::PhantomData;
use kernel::prelude::*;

/// A place for a heap value that is set at most once.
///
/// # Invariants
///
/// The word is 0 or the address of a `T` from `KBox::into_raw()` that the place owns; once not 0 it stays as it is.
pub(crate) struct Once<T: Send + Sync> {
    ptr: Usize,
    _owns: PhantomData<KBox<T>>,
}

// SAFETY: The place owns a `T`, which is `Send`.
unsafe impl<T: Send + Sync> Send for Once<T> {}
// SAFETY: Shared references give `&T` only, and whoever sets the value gives it away: `T: Send + Sync`.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T: Send + Sync> Once<T> {
    /// Makes an empty place.
    pub(crate) const fn new() -> Self {
        // INVARIANT: 0 is the empty place.
        Self {
            ptr: Usize::new(0),
            _owns: PhantomData,
        }
    }

    /// The value, if it is there.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&T> {
        // SAFETY: By the type invariant. The dependency from the loaded address orders the accesses.
        unsafe { (self.ptr.load() as *const T).as_ref() }
    }

    /// Sets the value; if there is one, the new one is dropped. Returns whether it was set.
    pub(crate) fn set(&self, value: KBox<T>) -> bool {
        let raw = KBox::into_raw(value);
        // INVARIANT: The address is from `into_raw()`. The exchange is fully ordered, so the value is initialised for
        // whoever finds it.
        if self.ptr.replace(0, raw as usize) {
            return true;
        }
        // SAFETY: `raw` is from `into_raw()` above and was not stored.
        drop(unsafe { KBox::from_raw(raw) });
        false
    }
}

impl<T: Send + Sync> Drop for Once<T> {
    fn drop(&mut self) {
        let raw = self.ptr.load() as *mut T;
        if !raw.is_null() {
            // SAFETY: By the type invariant the place owns the value, and `&mut self` means that nobody borrows it.
            drop(unsafe { KBox::from_raw(raw) });
        }
    }
}
