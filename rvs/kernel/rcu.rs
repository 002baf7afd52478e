// SPDX-License-Identifier: GPL-2.0-only

//! RCU: evidence of a read-side section, pointers that readers follow, freeing after a grace period.
//!
//! C header: `include/linux/rcupdate.h`

use super::atomic::Usize;
use crate::bindings;
use core::{
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    }, //
};
use kernel::{
    alloc::Flags,
    prelude::*,
    types::NotThreadSafe, //
};

/// Evidence that the RCU read side is held: by [`read()`], or by the caller of a hook.
///
/// # Invariants
///
/// While a reference to the value exists, the current context is in an RCU read-side critical section.
pub(crate) struct Held(NotThreadSafe);

impl Held {
    /// Makes the evidence for a context in which the C caller holds the read side.
    ///
    /// # Safety
    ///
    /// The RCU read side must be held until the value is dropped.
    #[inline(always)]
    pub(super) unsafe fn assume() -> Self {
        // INVARIANT: By the safety requirement.
        Held(NotThreadSafe)
    }
}

/// Runs `f` in an RCU read-side critical section. `f` must not sleep.
#[inline]
pub(crate) fn read<R>(f: impl FnOnce(&Held) -> R) -> R {
    let _guard = kernel::sync::rcu::read_lock();
    // SAFETY: `_guard` holds the read side and is dropped after the evidence.
    let held = unsafe { Held::assume() };
    f(&held)
}

/// A heap allocation that can be freed after a grace period without allocating anything then.
#[repr(C)]
struct Inner<T> {
    head: MaybeUninit<bindings::callback_head>,
    value: T,
}

/// An owned value made ready for deferred freeing.
pub(crate) struct RcuBox<T: Send + 'static>(KBox<Inner<T>>);

impl<T: Send + 'static> RcuBox<T> {
    /// Allocates `value`.
    pub(crate) fn new(value: T, flags: Flags) -> Result<Self> {
        Ok(Self(KBox::new(
            Inner {
                head: MaybeUninit::uninit(),
                value,
            },
            flags,
        )?))
    }

    /// Gives up ownership; [`RcuBox::from_raw()`] takes it back.
    pub(super) fn into_raw(self) -> *mut T {
        let raw = KBox::into_raw(self.0);
        // SAFETY: `raw` is a valid allocation, so its field has an address inside it.
        unsafe { core::ptr::addr_of_mut!((*raw).value) }
    }

    /// Takes ownership back.
    ///
    /// # Safety
    ///
    /// `raw` must come from [`RcuBox::into_raw()`], and be used once.
    pub(super) unsafe fn from_raw(raw: *mut T) -> Self {
        // SAFETY: By the requirement `raw` is the `value` of an `Inner<T>`.
        let inner = unsafe { raw.byte_sub(core::mem::offset_of!(Inner<T>, value)) };
        // SAFETY: By the requirement the allocation was given up by `into_raw()`.
        Self(unsafe { KBox::from_raw(inner.cast::<Inner<T>>()) })
    }

    /// Drops the value after a grace period, from softirq context: its destructor must not sleep.
    pub(crate) fn drop_deferred(self) {
        let raw = KBox::into_raw(self.0);
        // SAFETY: `raw` came from `into_raw()`, nobody else has it; `head` is its first field and is written by
        // `call_rcu()` only. The callback takes the ownership that is given up here. The module waits for callbacks with
        // `rcu_barrier()` before its text goes.
        unsafe { bindings::call_rcu(raw.cast::<bindings::callback_head>(), Some(free_inner::<T>)) };
    }
}

impl<T: Send + 'static> core::ops::Deref for RcuBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// The callback of [`RcuBox::drop_deferred()`].
///
/// # Safety
///
/// `head` must be the `head` of an `Inner<T>` that was given up by `drop_deferred()`.
unsafe extern "C" fn free_inner<T>(head: *mut bindings::callback_head) {
    // SAFETY: By the requirement `head` is the first field of an `Inner<T>` that came from `KBox::into_raw()`.
    drop(unsafe { KBox::from_raw(head.cast::<Inner<T>>()) });
}

/// A value that nobody finds any more, but that readers may still have: it is dropped a grace period after this is.
pub(crate) struct Retired<T: Send + 'static>(ManuallyDrop<RcuBox<T>>);

impl<T: Send + 'static> core::ops::Deref for Retired<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + 'static> Drop for Retired<T> {
    fn drop(&mut self) {
        // SAFETY: The box is not used again.
        unsafe { ManuallyDrop::take(&mut self.0) }.drop_deferred();
    }
}

/// A pointer to an immutable value that readers follow under RCU and a writer replaces.
///
/// # Invariants
///
/// The word is 0 or the address of an `Inner<T>` from `KBox::into_raw()` that the cell owns and that is freed only a
/// grace period after it was taken out.
pub(crate) struct RcuCell<T: Send + Sync + 'static> {
    ptr: Usize,
    _owns: PhantomData<KBox<Inner<T>>>,
}

// SAFETY: The cell owns a `T`, which is `Send`.
unsafe impl<T: Send + Sync + 'static> Send for RcuCell<T> {}
// SAFETY: Readers get `&T` (`T: Sync`); a writer that takes the value out moves it to an RCU callback (`T: Send`).
unsafe impl<T: Send + Sync + 'static> Sync for RcuCell<T> {}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// Makes an empty cell.
    pub(crate) const fn empty() -> Self {
        // INVARIANT: 0 is the empty cell.
        Self {
            ptr: Usize::new(0),
            _owns: PhantomData,
        }
    }

    /// Makes a cell that holds `value`.
    pub(crate) fn new(value: RcuBox<T>) -> Self {
        // INVARIANT: The address comes from `into_raw()`.
        Self {
            ptr: Usize::new(KBox::into_raw(value.0) as usize),
            _owns: PhantomData,
        }
    }

    /// The value as it is now: `rcu_dereference()`.
    #[inline]
    pub(crate) fn load<'g>(&'g self, _: &'g Held) -> Option<&'g T> {
        let raw = self.ptr.load() as *const Inner<T>;
        // SAFETY: By the type invariant `raw` is null or live, and stays so until a grace period after it is replaced,
        // which is not before `'g` ends, nor is the cell dropped before. The dependency from the loaded address orders the
        // accesses.
        unsafe { raw.as_ref() }.map(|inner| &inner.value)
    }

    /// Whether there is no value just now.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ptr.load() == 0
    }

    /// Publishes `value` (`rcu_replace_pointer()`) and drops the old one after a grace period, in softirq context.
    pub(crate) fn replace(&self, value: Option<RcuBox<T>>) {
        drop(self.swap(value))
    }

    /// Publishes `value`, as [`RcuCell::replace()`] does, and returns it as readers see it: it stays for this RCU section even
    /// if another one takes its place.
    pub(crate) fn publish<'g>(&'g self, value: RcuBox<T>, _: &'g Held) -> &'g T {
        let raw: *const Inner<T> = &raw const *value.0;
        self.replace(Some(value));
        // SAFETY: `raw` was live when it was published, and who takes it out since then frees it a grace period later only,
        // which is not before `'g` ends; nor is the cell dropped before.
        unsafe { &(*raw).value }
    }

    /// Publishes `value` and returns the old one.
    fn swap(&self, value: Option<RcuBox<T>>) -> Option<Retired<T>> {
        let new = value.map_or(0, |v| KBox::into_raw(v.0) as usize);
        // INVARIANT: `new` is 0 or from `into_raw()`. The swap is fully ordered, so the initialisation of the new value
        // comes first; what comes out belongs to this call alone.
        let old = self.ptr.swap(new) as *mut Inner<T>;
        if old.is_null() {
            return None;
        }
        // SAFETY: By the type invariant `old` came from `into_raw()`, and it was just taken out.
        let old = RcuBox(unsafe { KBox::from_raw(old) });
        Some(Retired(ManuallyDrop::new(old)))
    }

    /// Empties the cell; the old value is dropped after a grace period.
    pub(crate) fn clear(&self) {
        self.replace(None)
    }

    /// Empties the cell and returns what was in it.
    pub(crate) fn take(&self) -> Option<Retired<T>> {
        self.swap(None)
    }
}

impl<T: Send + Sync + 'static> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let old = self.ptr.load() as *mut Inner<T>;
        if !old.is_null() {
            // SAFETY: By the type invariant the cell owns what it points to; no reference from `load()` outlives the cell.
            drop(unsafe { KBox::from_raw(old) });
        }
    }
}
