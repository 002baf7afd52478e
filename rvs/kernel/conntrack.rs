// SPDX-License-Identifier: GPL-2.0-only

//! Connection tracking: a packet's entry, and an entry by its flow.
//!
//! On a kernel that is built without `CONFIG_IP_VS_NFCT` nothing here does anything.
//!
//! C headers: `include/net/netfilter/nf_conntrack.h`, `include/net/netfilter/nf_conntrack_core.h`,
//! `include/net/netfilter/nf_conntrack_expect.h`, `include/net/netfilter/nf_conntrack_seqadj.h`

use super::{
    net::Net,
    pernet::{
        self,
        PerNet, //
    },
    rcu,
    skb::Skb, //
};
use crate::bindings;
use kernel::{
    ffi::c_void,
    sync::Arc, //
};

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

/// Has netfilter look at the packets of a family in a namespace, also where no rule asks for it: `nf_ct_netns_get()`. Whether it
/// does, and [`untrack()`] is to be called once more. Sleeps.
pub(crate) fn track(net: &Net, v6: bool) -> bool {
    // SAFETY: The namespace is alive.
    unsafe { bindings::rvs_helper_ct_track(net.as_ptr(), v6) }
}

/// Takes one [`track()`] back. Sleeps.
pub(crate) fn untrack(net: &Net, v6: bool) {
    // SAFETY: The namespace is alive.
    unsafe { bindings::rvs_helper_ct_untrack(net.as_ptr(), v6) };
}

/// What is known of a flow that was expected.
pub(crate) enum Expected {
    /// Nothing, or its replies are as they seem.
    Unknown,
    /// Replies come from here.
    Request([u32; 4], u16),
    /// Replies go there.
    Reply([u32; 4], u16),
}

/// Who knows what expected flows are.
pub(crate) trait Expects: PerNet {
    /// What is known of an expected flow by its first packet. Must not sleep.
    fn expected(&self, flow: &Flow, g: &rcu::Held) -> Expected;
}

/// Asks the data of a namespace about its expected flows, until dropped, which ends the expectations that there still are. There is
/// one of it at most, and nothing may be expected without.
///
/// # Invariants
///
/// The helpers hold the registration's address.
pub(crate) struct Expectations<T: Expects>(
    #[expect(dead_code, reason = "what the helpers have the address of")]
    Arc<pernet::Registration<T>>,
);

impl<T: Expects> Expectations<T> {
    /// Starts to ask.
    pub(crate) fn new(data: Arc<pernet::Registration<T>>) -> Self {
        let raw = (&raw const *data).cast_mut().cast::<c_void>();
        // SAFETY: The function takes what is given here, which stays until `drop()`.
        unsafe { bindings::rvs_helper_ct_expect_begin(Some(expected::<T>), raw) };
        // INVARIANT: Just told.
        Self(data)
    }
}

impl<T: Expects> Drop for Expectations<T> {
    fn drop(&mut self) {
        // SAFETY: Process context. Who could expect anything are hooks, which the fields before this one have taken down.
        unsafe { bindings::rvs_helper_ct_expect_end() };
    }
}

/// Passes the question on.
///
/// # Safety
///
/// Called under RCU with the data of [`Expectations::new()`] for the same `T`, a namespace that is alive, and a flow of the
/// caller's.
unsafe extern "C" fn expected<T: Expects>(
    data: *mut c_void,
    net: *mut bindings::net,
    flow: *mut bindings::rvs_ct_flow,
) -> u32 {
    // SAFETY: By the requirement; the registration stays until `rvs_helper_ct_expect_end()` has waited for readers.
    let data = unsafe { &*data.cast::<pernet::Registration<T>>() };
    // SAFETY: By the requirement.
    let (net, flow) = unsafe { (Net::from_raw(net), &mut *flow) };
    let seen = Flow {
        v6: flow.v6,
        proto: flow.proto,
        src: flow.saddr,
        sport: flow.sport,
        dst: flow.daddr,
        dport: flow.dport,
    };
    let answer = rcu::read(|g| match data.get(net) {
        Some(data) => data.expected(&seen, g),
        None => Expected::Unknown,
    });
    let (what, addr, port) = match answer {
        Expected::Unknown => return bindings::RVS_CT_UNKNOWN,
        Expected::Request(addr, port) => (bindings::RVS_CT_REQUEST, addr, port),
        Expected::Reply(addr, port) => (bindings::RVS_CT_REPLY, addr, port),
    };
    (flow.saddr, flow.sport) = (addr, port);
    what
}

impl Skb<'_> {
    /// The payload of this TCP packet, with the number `seq` (memory order), has become longer by `by` bytes: the numbers of
    /// packets to come follow, and netfilter puts them right on both ways. `nf_ct_seqadj_set()`
    pub(crate) fn shifted(&mut self, seq: u32, by: i32) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_ct_shifted(self.as_ptr(), seq, by) };
    }

    /// Expects a flow, from any port, that belongs to that of this packet, and of which [`Expects`] knows. Without memory it
    /// comes unexpected. `nf_ct_expect_related()`
    pub(crate) fn expect(&mut self, proto: u8, src: &[u32; 4], dst: &[u32; 4], dport: u16) {
        // SAFETY: By the type invariant; the addresses have the 16 bytes that are read at most.
        unsafe {
            bindings::rvs_helper_ct_expect(self.as_ptr(), proto, src.as_ptr(), dst.as_ptr(), dport)
        };
    }

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
    /// `nf_conntrack_alter_reply()`. The port, in memory order, is left as it is for ICMP. With `shifts`, [`Skb::shifted()`] may be
    /// called for the flow.
    pub(crate) fn alter_reply(&mut self, source: bool, addr: &[u32; 4], port: u16, shifts: bool) {
        // SAFETY: By the type invariant; the address has the 16 bytes that are read.
        unsafe {
            bindings::rvs_helper_ct_alter_reply(self.as_ptr(), source, addr.as_ptr(), port, shifts)
        };
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
