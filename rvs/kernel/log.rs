// SPDX-License-Identifier: GPL-2.0-only

//! Keeping packets from flooding the log.
//!
//! C header: `include/linux/net.h`

use crate::bindings;

/// Whether something that a packet caused may be logged now: `net_ratelimit()`.
pub(crate) fn may_log() -> bool {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_net_ratelimit() }
}
