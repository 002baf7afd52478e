// SPDX-License-Identifier: GPL-2.0-only

//! A slab cache for objects of one type.
//!
//! C header: `include/linux/slab.h`

use super::atomic::Usize;
use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    prelude::*,
    str::CStr, //
};

/// A `kmem_cache` for `T`, made when the module loads and destroyed when it goes. Meant for a `static`.
///
/// # Invariants
///
/// The word is 0 or the address of a cache whose objects are of `T`'s size and alignment.
pub(crate) struct Cache<T> {
    ptr: Usize,
    _of: PhantomData<fn() -> T>,
}

/// What lives in a cache of its own.
pub(crate) trait Pooled: Sized + 'static {
    /// That cache; registered before the first value is made.
    fn cache() -> &'static Cache<Self>;
}

impl<T> Cache<T> {
    /// Makes a cache that is not there yet.
    pub(crate) const fn new() -> Self {
        // INVARIANT: 0 is the missing cache.
        Self {
            ptr: Usize::new(0),
            _of: PhantomData,
        }
    }

    /// Creates the cache; it lives until the registration is dropped. Process context.
    pub(crate) fn register(&'static self, name: &'static CStr) -> Result<Registration> {
        if self.ptr.load() != 0 {
            return Err(EEXIST);
        }
        // SAFETY: `name` lives forever; size and alignment are those of a type.
        let raw = unsafe {
            bindings::rvs_helper_cache_create(
                name.as_char_ptr(),
                size_of::<T>() as u32,
                align_of::<T>() as u32,
            )
        };
        let raw = NonNull::new(raw).ok_or(ENOMEM)?;
        // INVARIANT: Just created for `T`.
        self.ptr.store(raw.as_ptr() as usize);
        Ok(Registration { word: &self.ptr })
    }

    /// Memory for one `T`, not initialised. Does not sleep (`GFP_ATOMIC`).
    #[inline]
    pub(super) fn alloc(&self) -> Option<NonNull<T>> {
        let raw = self.ptr.load() as *mut bindings::kmem_cache;
        if raw.is_null() {
            return None;
        }
        // SAFETY: By the type invariant `raw` is a cache of objects that fit `T`.
        NonNull::new(unsafe { bindings::rvs_helper_cache_alloc(raw) }.cast::<T>())
    }

    /// Gives memory back.
    ///
    /// # Safety
    ///
    /// `obj` must come from [`Cache::alloc()`] of this cache, hold no live value, and not be used again.
    #[inline]
    pub(super) unsafe fn free(&self, obj: NonNull<T>) {
        let raw = self.ptr.load() as *mut bindings::kmem_cache;
        // SAFETY: By the requirement the cache was there to allocate `obj`, and it lives until all objects are back.
        unsafe { bindings::kmem_cache_free(raw, obj.as_ptr().cast()) };
    }
}

/// Destroys the cache when dropped.
///
/// The owner must have waited (`rcu_barrier()`) for what frees objects after a grace period; the C side warns about
/// objects that are left.
pub(crate) struct Registration {
    word: &'static Usize,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let raw = self.word.swap(0) as *mut bindings::kmem_cache;
        // SAFETY: The registration stands for the existing cache; the word is empty now, so nobody can allocate from it.
        unsafe { bindings::kmem_cache_destroy(raw) };
    }
}
