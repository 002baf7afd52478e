// SPDX-License-Identifier: GPL-2.0-only

//! Per-CPU traffic counters.
//!
//! C header: `include/linux/percpu.h`

use super::rcu::Held;
use crate::bindings;
use core::ptr::NonNull;
use kernel::prelude::*;

/// Connections, packets in and out, bytes in and out; in this order wherever they are an array.
pub(crate) type Sums = [u64; 5];

/// One set of counters on each CPU: `struct ip_vs_cpu_stats`.
///
/// # Invariants
///
/// `ptr` is per-CPU memory of a `struct rvs_counters`, from `rvs_helper_counters_alloc()`.
pub(crate) struct Counters {
    ptr: NonNull<bindings::rvs_counters>,
}

// SAFETY: Per-CPU memory may be used and freed from any CPU.
unsafe impl Send for Counters {}
// SAFETY: Each CPU writes its own set, with operations that are atomic against interrupts; readers read whole words.
unsafe impl Sync for Counters {}

impl Counters {
    /// Allocates counters that are all zero. May sleep.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: No requirement beside process context.
        let raw = unsafe { bindings::rvs_helper_counters_alloc() };
        // INVARIANT: Just allocated.
        Ok(Self {
            ptr: NonNull::new(raw).ok_or(ENOMEM)?,
        })
    }

    /// The counters of one CPU.
    pub(crate) fn cpu(&self, cpu: u32) -> Sums {
        let mut out = [0; 5];
        // SAFETY: By the type invariant; `out` has room for the five numbers.
        unsafe { bindings::rvs_helper_counters_cpu(self.ptr.as_ptr(), cpu, out.as_mut_ptr()) };
        out
    }

    /// The sum over all CPUs.
    pub(crate) fn sum(&self) -> Sums {
        let mut out = [0; 5];
        // SAFETY: As in `cpu()`.
        unsafe { bindings::rvs_helper_counters_sum(self.ptr.as_ptr(), out.as_mut_ptr()) };
        out
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody else has the allocation any more.
        unsafe { bindings::rvs_helper_counters_free(self.ptr.as_ptr()) };
    }
}

/// The three sets that a packet counts in: destination, service, network namespace.
#[derive(Clone, Copy)]
pub(crate) struct Trio<'g> {
    /// The destination's.
    pub(crate) dest: &'g Counters,
    /// The service's.
    pub(crate) svc: &'g Counters,
    /// The namespace's totals.
    pub(crate) total: &'g Counters,
}

impl Trio<'_> {
    /// Counts a packet from the client: `ip_vs_in_stats()`. Softirq or bottom halves disabled.
    #[inline]
    pub(crate) fn packet_in(&self, bytes: u32, _: &Held) {
        // SAFETY: By the type invariant of `Counters` all three are live per-CPU allocations.
        unsafe {
            bindings::rvs_helper_count_in(
                self.dest.ptr.as_ptr(),
                self.svc.ptr.as_ptr(),
                self.total.ptr.as_ptr(),
                bytes,
            )
        };
    }

    /// Counts a packet to the client: `ip_vs_out_stats()`.
    #[inline]
    pub(crate) fn packet_out(&self, bytes: u32, _: &Held) {
        // SAFETY: As in `packet_in()`.
        unsafe {
            bindings::rvs_helper_count_out(
                self.dest.ptr.as_ptr(),
                self.svc.ptr.as_ptr(),
                self.total.ptr.as_ptr(),
                bytes,
            )
        };
    }

    /// Counts a new connection: `ip_vs_conn_stats()`.
    pub(crate) fn conn(&self, _: &Held) {
        // SAFETY: As in `packet_in()`.
        unsafe {
            bindings::rvs_helper_count_conn(
                self.dest.ptr.as_ptr(),
                self.svc.ptr.as_ptr(),
                self.total.ptr.as_ptr(),
            )
        };
    }
}
