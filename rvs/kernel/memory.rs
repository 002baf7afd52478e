// SPDX-License-Identifier: GPL-2.0-only

//! The machine's memory.
//!
//! C header: `include/linux/mm.h`

use crate::bindings;

/// Bytes that the kernel manages: `totalram_pages()`.
pub(crate) fn total() -> u64 {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_total_memory() }
}
