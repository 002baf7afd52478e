// SPDX-License-Identifier: GPL-2.0-only

//! Data of each network namespace.
//!
//! The data is made when a namespace starts (or, for those that are there, when the module loads) and goes before the
//! namespace's devices do: registration is that of a *device* subsystem, so that routes and devices held by the data
//! are given back in time.
//!
//! C header: `include/net/net_namespace.h`

use super::{
    net::{
        Handle,
        Net, //
    },
    rcu::Held, //
};
use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::c_uint,
    prelude::*,
    types::Opaque, //
};

/// Where the kernel writes the number under which a namespace finds its data. Meant for a `static`.
pub(crate) struct Id(UnsafeCell<c_uint>);

// SAFETY: Written by `register_pernet_device()` only, before any callback runs.
unsafe impl Sync for Id {}

impl Id {
    /// An id that is not registered.
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(0))
    }
}

/// Data that each network namespace has one of.
pub(crate) trait PerNet: Sized + Send + Sync + 'static {
    /// The static id of this kind of data; no other kind may have the same.
    fn id() -> &'static Id;

    /// Makes the data of a namespace. May sleep.
    ///
    /// Nothing that holds `net` may outlive the value returned.
    fn init(net: Handle) -> Result<KBox<Self>>;

    /// The namespace is going: stop whatever packets reach. A grace period follows, then the value is dropped, which
    /// may sleep.
    fn pre_exit(&self);

    /// A network device of the namespace went down. Must not sleep. Comes from [`super::notifier`] only.
    fn device_down(&self, _: &Held) {}
}

/// Keeps a kind of data registered; dropping it ends the data of all namespaces.
///
/// # Invariants
///
/// `ops` is registered, and the slot of `T::id()` in every namespace is null or came from `KBox::into_raw()`.
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: PerNet> {
    #[pin]
    ops: Opaque<bindings::pernet_operations>,
    _data: PhantomData<KBox<T>>,
}

// SAFETY: The registration is a token; what it reaches is `T: Send + Sync`.
unsafe impl<T: PerNet> Send for Registration<T> {}
// SAFETY: As above.
unsafe impl<T: PerNet> Sync for Registration<T> {}

/// What the kernel allocates for each namespace, zeroed, and frees after the exit callback.
#[repr(C)]
struct Slot<T> {
    /// What can be found: null before `init()` and after `pre_exit()`.
    live: *mut T,
    /// What `exit()` drops.
    owned: *mut T,
}

impl<T: PerNet> Registration<T> {
    /// Registers, which runs [`PerNet::init()`] for every namespace there is; if one fails, all are undone.
    ///
    /// At most one registration of a kind can exist; a second one fails with `EBUSY`.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            ops <- Opaque::try_ffi_init(|slot: *mut bindings::pernet_operations| {
                // SAFETY: Plain data of the static; only written below, under the rule that one registration of a kind
                // exists.
                if unsafe { *T::id().0.get() } != 0 {
                    return Err(EBUSY);
                }
                let ops = bindings::pernet_operations {
                    init: Some(init::<T>),
                    pre_exit: Some(pre_exit::<T>),
                    exit: Some(exit::<T>),
                    id: T::id().0.get(),
                    size: size_of::<Slot<T>>(),
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(ops) };
                // SAFETY: `slot` is pinned and stays until `unregister_pernet_device()` in `drop()`; the callbacks have
                // the types the structure asks for; `size` and `id` belong together.
                to_result(unsafe { bindings::register_pernet_device(slot) }).inspect_err(|_| {
                    // SAFETY: The registration failed, so nobody uses the number.
                    unsafe { *T::id().0.get() = 0 };
                })
            }),
            _data: PhantomData,
        }? Error)
    }

    /// The data of a namespace; `None` while the namespace starts or goes.
    pub(crate) fn get<'a>(&'a self, net: &'a Net) -> Option<&'a T> {
        // SAFETY: `self` proves that `T` is registered, and the namespace is alive.
        let live = unsafe { (&raw const (*slot::<T>(net.as_ptr())).live).read_volatile() };
        // SAFETY: What is in the slot is valid until a namespace without users goes, which one with a borrowed `Net` is
        // not, or until `self` goes.
        unsafe { live.as_ref() }
    }
}

#[pinned_drop]
impl<T: PerNet> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant `ops` is registered.
        unsafe { bindings::unregister_pernet_device(self.ops.get()) };
        // SAFETY: No callback runs any more and no other registration can exist.
        unsafe { *T::id().0.get() = 0 };
    }
}

/// The slot of a namespace: null before it is assigned.
///
/// # Safety
///
/// `net` must be alive, and `T` registered.
unsafe fn slot<T: PerNet>(net: *mut bindings::net) -> *mut Slot<T> {
    // SAFETY: By the requirement; the id is constant while `T` is registered.
    unsafe { bindings::rvs_helper_net_generic(net, *T::id().0.get()) }.cast()
}

/// Makes the data of a namespace.
///
/// # Safety
///
/// Called by the kernel for `pernet_operations.init`.
unsafe extern "C" fn init<T: PerNet>(net: *mut bindings::net) -> core::ffi::c_int {
    from_result(|| {
        let raw = NonNull::new(net).ok_or(EINVAL)?;
        // SAFETY: The namespace lives until after `exit()`, which drops the data and with it the handle.
        let data = T::init(unsafe { Handle::new(raw) })?;
        // SAFETY: The kernel assigned a zeroed allocation of `size` bytes to the slot before it called.
        let slot = unsafe { slot::<T>(net).as_mut() }.ok_or(EINVAL)?;
        // The other end is in `exit()`.
        slot.owned = KBox::into_raw(data);
        slot.live = slot.owned;
        Ok(0)
    })
}

/// Passes the end of a namespace on.
///
/// # Safety
///
/// Called by the kernel for `pernet_operations.pre_exit`, after `init()` for the same namespace succeeded.
unsafe extern "C" fn pre_exit<T: PerNet>(net: *mut bindings::net) {
    // SAFETY: `init()` filled the slot, and only this function and `exit()`, which comes later, write it.
    let Some(slot) = (unsafe { slot::<T>(net).as_mut() }) else {
        return;
    };
    slot.live = core::ptr::null_mut();
    // SAFETY: What `init()` left there is dropped by `exit()` only.
    if let Some(data) = unsafe { slot.owned.as_ref() } {
        data.pre_exit();
    }
}

/// Drops the data of a namespace.
///
/// # Safety
///
/// Called by the kernel for `pernet_operations.exit`, a grace period after `pre_exit()`.
unsafe extern "C" fn exit<T: PerNet>(net: *mut bindings::net) {
    // SAFETY: The slot is there until the kernel frees it after this call; nobody else writes it.
    let Some(slot) = (unsafe { slot::<T>(net).as_mut() }) else {
        return;
    };
    let data = core::mem::replace(&mut slot.owned, core::ptr::null_mut());
    if !data.is_null() {
        // SAFETY: The pointer came from `KBox::into_raw()` in `init()`, and it was just taken out. Nobody finds it since
        // `pre_exit()`, and a grace period has passed.
        drop(unsafe { KBox::from_raw(data) });
    }
}
