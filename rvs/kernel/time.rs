// SPDX-License-Identifier: GPL-2.0-only

//! Jiffies.
//!
//! C header: `include/linux/jiffies.h`

use crate::bindings;

/// Jiffies per second: `HZ`.
pub(crate) const HZ: u32 = bindings::RVS_HZ;

/// The low 32 bits of `jiffies`; they wrap (after 198 days at 250 Hz), so compare by signed difference only.
#[inline(always)]
pub(crate) fn jiffies() -> u32 {
    // SAFETY: `jiffies` is a C variable that is always there; reading it volatile is what C does.
    (unsafe { core::ptr::addr_of!(bindings::jiffies).read_volatile() }) as u32
}

/// Milliseconds since the machine started, as accurate as jiffies: `ktime_get_coarse()`.
pub(crate) fn uptime_ms() -> u64 {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_uptime_ms() }
}

/// Lets others run: `cond_resched()`. Process context, no lock held, no RCU section.
pub(crate) fn yield_cpu() {
    // SAFETY: Process context; what it must not be called from is said above, and a debugging kernel tells.
    unsafe { bindings::rvs_helper_cond_resched() };
}

/// Nanoseconds since the machine was started, without the time that it slept: `ktime_get_ns()`.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_now_ns() }
}
