// SPDX-License-Identifier: GPL-2.0-only

//! Keeping another module out.
//!
//! Two modules that own the same files warn when the second makes them, if it does not ask first. So it is refused before
//! it runs at all.
//!
//! C header: `include/linux/module.h`

use crate::bindings;
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong,
        c_void, //
    },
    prelude::*,
    str::CStr,
    types::Opaque, //
};

/// While this lives, a module of a certain name cannot be loaded: `EBUSY`.
///
/// # Invariants
///
/// `block` is registered and the first field, so that its address is that of the value.
#[repr(C)]
#[pin_data(PinnedDrop)]
pub(crate) struct Refused {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    name: &'static CStr,
}

// SAFETY: The C side serialises access to `block`; the name is shared.
unsafe impl Send for Refused {}
// SAFETY: As above.
unsafe impl Sync for Refused {}

impl Refused {
    /// Refuses modules called `name` from now on. May sleep.
    pub(crate) fn new(name: &'static CStr) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            name,
            block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                let block = bindings::notifier_block {
                    notifier_call: Some(call),
                    ..Default::default()
                };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(block) };
                // INVARIANT: Registered here; the structure is `repr(C)`, with the block first. `name` is initialised
                // before.
                //
                // SAFETY: `slot` is pinned and stays until it is unregistered in `drop()`.
                to_result(unsafe { bindings::register_module_notifier(slot) })
            }),
        }? Error)
    }
}

#[pinned_drop]
impl PinnedDrop for Refused {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the block is registered. The only error there is says that it is not.
        unsafe { bindings::unregister_module_notifier(self.block.get()) };
    }
}

/// Answers the question whether a module may come.
///
/// # Safety
///
/// Called by the kernel for the `block` of a `Refused`, with what module notifiers get.
unsafe extern "C" fn call(
    block: *mut bindings::notifier_block,
    state: c_ulong,
    module: *mut c_void,
) -> c_int {
    // SAFETY: By the type invariant the block's address is that of the whole, which unregisters before it goes.
    let this = unsafe { &*block.cast::<Refused>() };
    // SAFETY: The module is alive during the call; the name ends in NUL.
    if !unsafe { bindings::rvs_helper_module_is_coming(module, state, this.name.as_char_ptr()) } {
        return bindings::RVS_NOTIFY_DONE as c_int;
    }
    pr_err!(
        "module {} cannot be loaded beside this one; rmmod rvs first\n",
        this.name
    );
    bindings::RVS_NOTIFY_REFUSE as c_int
}
