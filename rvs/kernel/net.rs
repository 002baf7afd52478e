// SPDX-License-Identifier: GPL-2.0-only

//! A network namespace, and what only it can answer.
//!
//! C headers: `include/net/net_namespace.h`, `include/net/route.h`, `include/net/ip6_route.h`

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// A `struct net` that is alive while it is borrowed.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

// SAFETY: Everything below that touches the C structure may run on any thread.
unsafe impl Sync for Net {}

#[allow(dead_code)]
impl Net {
    /// Views a C pointer.
    ///
    /// # Safety
    ///
    /// `raw` must point to a network namespace that stays alive for `'a`.
    #[inline]
    pub(super) unsafe fn from_raw<'a>(raw: *mut bindings::net) -> &'a Self {
        // SAFETY: By the requirement; `Net` is transparent over `struct net`.
        unsafe { &*raw.cast::<Self>() }
    }

    /// The C pointer.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut bindings::net {
        self.0.get()
    }

    /// Whether this is the first namespace: `net_eq(net, &init_net)`.
    pub(crate) fn is_init(&self) -> bool {
        // SAFETY: The namespace is alive while borrowed.
        unsafe { bindings::rvs_helper_net_is_init(self.as_ptr()) }
    }

    /// Whether the namespace belongs to a user namespace other than the initial one, so that its root is not trusted with
    /// what costs the whole machine.
    pub(crate) fn is_unprivileged(&self) -> bool {
        // SAFETY: The namespace is alive while borrowed.
        unsafe { bindings::rvs_helper_net_is_unprivileged(self.as_ptr()) }
    }

    /// Whether the current task may configure the namespace: `CAP_NET_ADMIN` in the user namespace that owns it.
    pub(crate) fn is_admin(&self) -> bool {
        // SAFETY: The namespace is alive while borrowed.
        unsafe { bindings::rvs_helper_net_admin(self.as_ptr()) }
    }

    /// Whether binding to `port` (host order) takes a privilege here: `inet_port_requires_bind_service()`.
    #[inline]
    pub(crate) fn is_port_privileged(&self, port: u16) -> bool {
        // SAFETY: The namespace is alive while borrowed.
        unsafe { bindings::rvs_helper_port_is_privileged(self.as_ptr(), port) }
    }

    /// Whether an IPv4 address (memory order) is local or unicast here: `inet_addr_type()`.
    pub(crate) fn v4_is_local_or_unicast(&self, addr: u32) -> bool {
        // SAFETY: The namespace is alive while borrowed.
        unsafe { bindings::rvs_helper_v4_is_local_or_unicast(self.as_ptr(), addr) }
    }

    /// Whether an IPv6 address is routed through the loopback device: `__ip_vs_addr_is_local_v6()`.
    pub(crate) fn v6_is_local(&self, addr: &[u8; 16]) -> bool {
        // SAFETY: The namespace is alive while borrowed; `addr` is readable for 16 bytes.
        unsafe { bindings::rvs_helper_v6_is_local(self.as_ptr(), addr.as_ptr()) }
    }

    /// Turns IPv6 defragmentation on for the rest of the namespace's life: `nf_defrag_ipv6_enable()`.
    pub(crate) fn enable_v6_defrag(&self) -> Result {
        // SAFETY: The namespace is alive while borrowed.
        to_result(unsafe { bindings::rvs_helper_v6_defrag_enable(self.as_ptr()) })
    }
}

/// Whether the machine speaks IPv6 at all: `ipv6_mod_enabled()`.
pub(crate) fn has_v6() -> bool {
    // SAFETY: No requirement.
    unsafe { bindings::rvs_helper_v6_enabled() }
}

/// The namespace that per-namespace data belongs to.
///
/// # Invariants
///
/// The namespace is alive: a handle is given to [`super::pernet::PerNet::init()`] only, and what that makes is dropped
/// before the namespace goes.
pub(crate) struct Handle(NonNull<bindings::net>);

// SAFETY: See `Net`: nothing here is bound to a thread.
unsafe impl Send for Handle {}
// SAFETY: As above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Makes a handle.
    ///
    /// # Safety
    ///
    /// The namespace must stay alive until the handle is dropped.
    pub(super) unsafe fn new(raw: NonNull<bindings::net>) -> Self {
        // INVARIANT: By the requirement.
        Self(raw)
    }

    /// Another handle, for another part of the same per-namespace data.
    pub(crate) fn again(&self) -> Self {
        // INVARIANT: It is kept where handles may be, and goes with them.
        Self(self.0)
    }
}

impl core::ops::Deref for Handle {
    type Target = Net;

    #[inline]
    fn deref(&self) -> &Net {
        // SAFETY: By the type invariant.
        unsafe { Net::from_raw(self.0.as_ptr()) }
    }
}
