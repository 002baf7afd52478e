// SPDX-License-Identifier: GPL-2.0-only

//! Connection tracking: a packet's entry, and an entry by its flow.
//!
//! On a kernel that is built without `CONFIG_IP_VS_NFCT` nothing here does anything.
//!
//! C headers: `include/net/netfilter/nf_conntrack.h`, `include/net/netfilter/nf_conntrack_core.h`

use super::{
    net::Net,
    skb::Skb, //
};
use crate::bindings;

/// Whether the kernel is built for it.
pub(crate) const AVAILABLE: bool = bindings::RVS_NFCT != 0;

/// A flow as its first packet has it; addresses as words in memory order, IPv4 in the first; ports in memory order.
pub(crate) struct Flow {
    /// Whether the addresses are IPv6.
    pub(crate) v6: bool,
    /// The transport protocol.
    pub(crate) proto: u8,
    /// The source address.
    pub(crate) src: [u32; 4],
    /// The source port.
    pub(crate) sport: u16,
    /// The destination address.
    pub(crate) dst: [u32; 4],
    /// The destination port.
    pub(crate) dport: u16,
}

/// Ends the entry of a flow in the default zone: `nf_ct_kill()`. In any context, without spinlocks; the namespace's conntrack
/// must not have been taken down, which namespaces do after their devices.
pub(crate) fn kill(net: &Net, flow: &Flow) {
    // SAFETY: The namespace is alive; the addresses have the 16 bytes that are read.
    unsafe {
        bindings::rvs_helper_ct_kill(
            net.as_ptr(),
            flow.v6,
            flow.proto,
            flow.src.as_ptr(),
            flow.sport,
            flow.dst.as_ptr(),
            flow.dport,
        )
    };
}

impl Skb<'_> {
    /// Takes the entry off, and has the packet untracked from here on: `ip_vs_notrack()`.
    #[inline(always)]
    pub(crate) fn untrack(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_untrack(self.as_ptr()) };
    }

    /// Nobody shall track the packet from here on, also if nobody has looked at it yet.
    pub(crate) fn notrack(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_notrack(self.as_ptr()) };
    }

    /// Whether the packet belongs to an entry that was confirmed, which cannot be changed any more.
    pub(crate) fn is_of_old_track(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_ct_confirmed(self.as_ptr()) }
    }

    /// Whether the packet belongs to an entry: `nf_ct_get()`.
    pub(crate) fn has_track(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_ct_there(self.as_ptr()) }
    }

    /// Says where replies to this packet will come from (`source`) or go to, if it is the first of its flow:
    /// `nf_conntrack_alter_reply()`. The port, in memory order, is left as it is for ICMP.
    pub(crate) fn alter_reply(&mut self, source: bool, addr: &[u32; 4], port: u16) {
        // SAFETY: By the type invariant; the address has the 16 bytes that are read.
        unsafe { bindings::rvs_helper_ct_alter_reply(self.as_ptr(), source, addr.as_ptr(), port) };
    }

    /// Makes the entry one that others see: `nf_conntrack_confirm()`. `None`: the packet is gone, because its flow is
    /// another's meanwhile.
    pub(crate) fn confirm(self) -> Option<Self> {
        // SAFETY: By the type invariant.
        let verdict = unsafe { bindings::rvs_helper_ct_confirm(self.as_ptr()) } as u32;
        if verdict == bindings::NF_ACCEPT {
            return Some(self);
        }
        if verdict == bindings::NF_DROP {
            self.free();
        }
        None
    }
}
