// SPDX-License-Identifier: GPL-2.0-only

//! Random numbers from the kernel.
//!
//! C header: `include/linux/random.h`

use crate::bindings;

/// 128 random bits, for a hash key.
pub(crate) fn bytes16() -> [u64; 2] {
    let mut out = [0u64; 2];
    // SAFETY: `out` is valid for writes of its 16 bytes.
    unsafe { bindings::rvs_helper_random(out.as_mut_ptr().cast(), size_of_val(&out)) };
    out
}

/// A random number from 0 to `max`, both included, all equally likely. Any context.
pub(crate) fn up_to(max: u32) -> u32 {
    // SAFETY: Takes and returns plain numbers.
    unsafe { bindings::rvs_helper_random_up_to(max) }
}
