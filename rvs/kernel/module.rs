// SPDX-License-Identifier: GPL-2.0-only

//! References to the module itself.
//!
//! C header: `include/linux/module.h`

use crate::bindings;
use kernel::{
    module,
    prelude::*, //
};

/// The module whose code runs: `THIS_MODULE`.
pub(super) fn this_module() -> *mut bindings::module {
    module::this_module::<crate::LocalModule>().as_ptr()
}

/// A reference that keeps the module from being unloaded: `try_module_get(THIS_MODULE)`.
pub(crate) struct Ref(());

impl Ref {
    /// Takes a reference; fails with `ENOPROTOOPT` if the module is going.
    pub(crate) fn get() -> Result<Self> {
        // SAFETY: `THIS_MODULE` is the module whose code runs.
        if unsafe { bindings::try_module_get(this_module()) } {
            Ok(Self(()))
        } else {
            Err(ENOPROTOOPT)
        }
    }
}

impl Drop for Ref {
    fn drop(&mut self) {
        // SAFETY: The reference was taken in `get()`. The code that runs is kept by another one, or by the syscall or
        // callback of a registration that module exit waits for.
        unsafe { bindings::module_put(this_module()) };
    }
}

/// Takes a reference to a module that may be going: `try_module_get()`.
///
/// # Safety
///
/// The module must be in memory until this returns.
pub(super) unsafe fn try_get(module: *mut bindings::module) -> bool {
    // SAFETY: By the requirement.
    unsafe { bindings::try_module_get(module) }
}

/// Gives a reference back.
///
/// # Safety
///
/// The caller must have it, from [`try_get()`], and not use it any more.
pub(super) unsafe fn put(module: *mut bindings::module) {
    // SAFETY: By the requirement.
    unsafe { bindings::module_put(module) };
}

/// Waits, when dropped, until everything that was to be freed after a grace period is freed: `rcu_barrier()`.
///
/// Field of a module after all that defers freeing, and before the memory that it is freed to.
pub(crate) struct Barrier(());

impl Barrier {
    /// Promises to wait.
    pub(crate) fn new() -> Self {
        Self(())
    }
}

impl Drop for Barrier {
    fn drop(&mut self) {
        // SAFETY: Process context: modules start and go there.
        unsafe { bindings::rcu_barrier() };
    }
}
