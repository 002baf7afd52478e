// SPDX-License-Identifier: GPL-2.0-only

//! The machine's memory.
//!
//! C header: `include/linux/mm.h`

use crate::bindings;
use kernel::{
    alloc::Flags,
    prelude::*, //
};

/// Bytes that the kernel manages: `totalram_pages()`.
pub(crate) fn total() -> u64 {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_total_memory() }
}

/// Pages that are free or in use as buffers: `si_meminfo()`. Process context.
pub(crate) fn available_pages() -> u64 {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_available_pages() }
}

/// Pages that could be socket buffers: `nr_free_buffer_pages()`.
pub(crate) fn buffer_pages() -> usize {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_free_buffer_pages() }
}

/// `len` zeros.
pub(crate) fn zeros(len: usize, flags: Flags) -> Result<KVec<u8>> {
    let mut bytes = KVec::with_capacity(len, flags | __GFP_ZERO)?;
    // SAFETY: There is room for them, and all of it was zeroed when it was allocated.
    unsafe { bytes.inc_len(len) };
    Ok(bytes)
}
