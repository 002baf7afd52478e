// SPDX-License-Identifier: GPL-2.0-only

//! The machine's CPUs.
//!
//! C header: `include/linux/cpumask.h`

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    str::CStr, //
};

/// One more than the highest CPU number there can be: `nr_cpu_ids`.
pub(crate) fn ids() -> u32 {
    kernel::cpu::nr_cpu_ids()
}

/// Whether there can be a CPU of this number: `cpu_possible()`.
pub(crate) fn is_possible(cpu: u32) -> bool {
    // SAFETY: The number is checked.
    cpu < ids() && unsafe { bindings::rvs_helper_cpu_possible(cpu) }
}

/// A list of CPUs, as sysctls write it: `0-3,7`.
///
/// # Invariants
///
/// The pointer is from `rvs_helper_cpulist_parse()`, and owned.
pub(crate) struct List(NonNull<bindings::cpumask>);

// SAFETY: Plain memory, which nobody writes.
unsafe impl Send for List {}
// SAFETY: As above.
unsafe impl Sync for List {}

impl List {
    /// Those CPUs of a list that the current task may run on.
    pub(crate) fn parse(text: &CStr) -> Result<Self> {
        let mut raw = core::ptr::null_mut();
        // SAFETY: `text` ends with a zero; `raw` is valid for writes.
        to_result(unsafe { bindings::rvs_helper_cpulist_parse(text.as_char_ptr(), &mut raw) })?;
        // INVARIANT: Just made.
        Ok(Self(NonNull::new(raw).ok_or(ENOMEM)?))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_cpulist_empty(self.0.as_ptr()) }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; it is not used again.
        unsafe { bindings::rvs_helper_cpulist_free(self.0.as_ptr()) };
    }
}

fn raw(list: Option<&List>) -> *mut bindings::cpumask {
    list.map_or(core::ptr::null_mut(), |list| list.0.as_ptr())
}

/// Writes a list and a newline, as much as there is room for; no list: the CPUs that kernel threads use. Returns how many
/// bytes were written.
pub(crate) fn show(list: Option<&List>, out: &mut [u8]) -> usize {
    // SAFETY: The list is null or live; `out` is writable for its length.
    unsafe { bindings::rvs_helper_cpulist_show(raw(list), out.as_mut_ptr().cast(), out.len()) }
}

/// Runs `f` in a kernel worker, which the caller must be, with a nice value: on one of the CPUs of the list, if there is one
/// and a CPU of it is online. Waits until it is done.
pub(crate) fn run_on<F: FnMut() + Send>(list: Option<&List>, nice: i32, mut f: F) {
    // SAFETY: The list is null or live; `call::<F>` gets `f`, which lives until the call returns.
    unsafe {
        bindings::rvs_helper_run_on(
            raw(list),
            c_int::from(nice),
            Some(call::<F>),
            (&raw mut f).cast::<c_void>(),
        )
    };
}

/// # Safety
///
/// `f` must point to an `F` that nobody else uses.
unsafe extern "C" fn call<F: FnMut() + Send>(f: *mut c_void) {
    // SAFETY: By the requirement.
    if let Some(f) = unsafe { f.cast::<F>().as_mut() } {
        f();
    }
}
