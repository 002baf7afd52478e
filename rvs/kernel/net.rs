// SPDX-License-Identifier: GPL-2.0-only

//! A network namespace, and what only it can answer.
//!
//! C headers: `include/net/net_namespace.h`, `include/net/route.h`, `include/net/ip6_route.h`

use super::{
    atomic::Bool,
    rcu::Held, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    error::to_result,
    prelude::*,
    str::CStr,
    types::Opaque, //
};

/// A `struct net` that is alive while it is borrowed.
#[repr(transparent)]
pub(crate) struct Net(Opaque<bindings::net>);

// SAFETY: Everything below that touches the C structure may run on any thread.
unsafe impl Sync for Net {}

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

    /// The number of the interface of this name (without its terminating zero at most 15 bytes), 0 if there is none.
    pub(crate) fn ifindex(&self, name: &CStr) -> u32 {
        // SAFETY: The namespace is alive while borrowed; the name ends with a zero.
        unsafe { bindings::rvs_helper_ifindex(self.as_ptr(), name.as_char_ptr()) }
    }

    /// Whether the host keeps a local port (host order) for somebody: sysctl `net.ipv4.ip_local_reserved_ports`.
    pub(crate) fn is_port_reserved(&self, port: u16) -> bool {
        // SAFETY: The namespace is alive while borrowed.
        unsafe { bindings::rvs_helper_port_reserved(self.as_ptr(), port) }
    }

    /// Whether a TCP or UDP socket of this host would get what the remote end sends to the local one.
    pub(crate) fn has_socket(
        &self,
        v6: bool,
        proto: u8,
        remote: End<'_>,
        local: End<'_>,
        _: &Held,
    ) -> bool {
        let lport = u16::from_be(local.port);
        if v6 {
            // SAFETY: The namespace is alive while borrowed; addresses have 16 bytes; RCU is held.
            return unsafe {
                bindings::rvs_helper_port_used6(
                    self.as_ptr(),
                    proto,
                    remote.addr.as_ptr(),
                    remote.port,
                    local.addr.as_ptr(),
                    lport,
                )
            };
        }
        let ([raddr, ..], [laddr, ..]) = (*remote.addr, *local.addr);
        // SAFETY: The namespace is alive while borrowed; RCU is held.
        unsafe {
            bindings::rvs_helper_port_used4(self.as_ptr(), proto, raddr, remote.port, laddr, lport)
        }
    }

    /// Sends an empty TCP segment with RST and ACK, which nobody waits for.
    pub(crate) fn reset_tcp(&self, v6: bool, from: End<'_>, to: End<'_>, seq: u32, ack: u32) {
        // SAFETY: The namespace is alive while borrowed; addresses have the 4 or 16 bytes that are read.
        unsafe {
            bindings::rvs_helper_tcp_reset(
                self.as_ptr(),
                v6,
                from.addr.as_ptr(),
                to.addr.as_ptr(),
                from.port,
                to.port,
                seq,
                ack,
            )
        };
    }

    /// Turns IPv6 defragmentation on for the rest of the namespace's life: `nf_defrag_ipv6_enable()`.
    pub(crate) fn enable_v6_defrag(&self) -> Result {
        // SAFETY: The namespace is alive while borrowed.
        to_result(unsafe { bindings::rvs_helper_v6_defrag_enable(self.as_ptr()) })
    }
}

/// One end of a flow, in memory order.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// The address: words, IPv4 in the first.
    pub(crate) addr: &'a [u32; 4],
    /// The port.
    pub(crate) port: u16,
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

    /// Another handle, for a part of what this one belongs to.
    pub(crate) fn again(&self) -> Self {
        // INVARIANT: It goes with the rest of the namespace's data, as `self` does.
        Self(self.0)
    }
}

/// A namespace that may be used until it is closed, by those who may live longer than it.
pub(crate) struct WhileOpen {
    net: Handle,
    open: Bool,
}

impl WhileOpen {
    /// The namespace of `net`, open.
    ///
    /// Whoever makes one for a namespace's data must [`close()`](Self::close) it when the namespace goes
    /// ([`super::pernet::PerNet::pre_exit()`]), and use it only from what is stopped before that data is dropped.
    pub(crate) fn new(net: &Handle) -> Self {
        Self {
            // It is given away by `get()` only while open, which ends with the namespace's `pre_exit()`; who got it before is
            // stopped (hooks with a grace period, jobs, table walks) before the data is dropped.
            net: net.again(),
            open: Bool::new(true),
        }
    }

    /// The namespace; `None` once it goes.
    pub(crate) fn get(&self) -> Option<&Net> {
        self.open.load().then_some(&*self.net)
    }

    /// The namespace goes.
    pub(crate) fn close(&self) {
        self.open.store(false);
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
