// SPDX-License-Identifier: GPL-2.0-only

//! One of two allocations behind one word.

use super::slab::Pooled;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::prelude::*;

/// Owns an `A` from its slab cache, or a `B` in a box.
///
/// # Invariants
///
/// The address is that of an `A` from `A::cache()`, or one byte behind a `B` from [`KBox::into_raw()`]. Both are aligned to two
/// bytes at least, so bit 0 tells which. The value belongs to this one.
pub(crate) struct OneOf<A: Pooled, B> {
    at: NonNull<u8>,
    _of: PhantomData<(A, KBox<B>)>,
}

// SAFETY: It owns an `A` or a `B`, and gives no more than references to it.
unsafe impl<A: Pooled + Send, B: Send> Send for OneOf<A, B> {}
// SAFETY: As above.
unsafe impl<A: Pooled + Sync, B: Sync> Sync for OneOf<A, B> {}

/// What a [`OneOf`] holds.
pub(crate) enum Which<'a, A, B> {
    /// It came from the slab cache.
    Pooled(&'a A),
    /// It came in a box.
    Boxed(&'a B),
}

impl<A: Pooled, B> OneOf<A, B> {
    const ALIGNED: () = assert!(align_of::<A>() > 1 && align_of::<B>() > 1);

    /// Puts `value` into memory of its cache; does not sleep.
    #[inline]
    pub(crate) fn pooled(value: A) -> Result<Self> {
        let () = Self::ALIGNED;
        let at = A::cache().alloc().ok_or(ENOMEM)?;
        // SAFETY: The memory is for one `A` and belongs to this call.
        unsafe { at.write(value) };
        // INVARIANT: An initialised `A` of the cache, and bit 0 is clear.
        Ok(Self {
            at: at.cast(),
            _of: PhantomData,
        })
    }

    /// Takes a box.
    #[inline]
    pub(crate) fn boxed(value: KBox<B>) -> Self {
        let () = Self::ALIGNED;
        let behind = KBox::into_raw(value).cast::<u8>().wrapping_add(1);
        // INVARIANT: One byte behind a box's value, so that bit 0 is set.
        Self {
            // SAFETY: Nothing that is allocated ends at the last byte of all memory.
            at: unsafe { NonNull::new_unchecked(behind) },
            _of: PhantomData,
        }
    }

    #[inline(always)]
    fn is_boxed(&self) -> bool {
        self.at.addr().get() & 1 != 0
    }

    /// The address of a `B` that is held.
    #[inline(always)]
    fn box_at(&self) -> *mut B {
        self.at.as_ptr().wrapping_sub(1).cast()
    }

    /// What is held.
    #[inline(always)]
    pub(crate) fn get(&self) -> Which<'_, A, B> {
        if self.is_boxed() {
            // SAFETY: By the type invariant that is a live `B` of ours.
            Which::Boxed(unsafe { &*self.box_at() })
        } else {
            // SAFETY: By the type invariant that is a live `A` of ours.
            Which::Pooled(unsafe { self.at.cast::<A>().as_ref() })
        }
    }
}

impl<A: Pooled, B> Drop for OneOf<A, B> {
    fn drop(&mut self) {
        if self.is_boxed() {
            // SAFETY: By the type invariant the address is from `into_raw()`, and nobody uses it after this.
            drop(unsafe { KBox::from_raw(self.box_at()) });
            return;
        }
        let at = self.at.cast::<A>();
        // SAFETY: By the type invariant that is a live `A` of ours, not used after this.
        unsafe { at.drop_in_place() };
        // SAFETY: It came from this cache, and its value is gone.
        unsafe { A::cache().free(at) };
    }
}
