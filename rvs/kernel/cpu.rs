// SPDX-License-Identifier: GPL-2.0-only

//! The machine's CPUs.
//!
//! C header: `include/linux/cpumask.h`

use crate::bindings;

/// One more than the highest CPU number there can be: `nr_cpu_ids`.
pub(crate) fn ids() -> u32 {
    kernel::cpu::nr_cpu_ids()
}

/// Whether there can be a CPU of this number: `cpu_possible()`.
pub(crate) fn is_possible(cpu: u32) -> bool {
    // SAFETY: The number is checked.
    cpu < ids() && unsafe { bindings::rvs_helper_cpu_possible(cpu) }
}
