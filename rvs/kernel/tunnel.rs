// SPDX-License-Identifier: GPL-2.0-only

//! Putting a packet into another one.
//!
//! C headers: `include/net/ip_tunnels.h`, `include/net/gre.h`, `include/net/udp_tunnel.h`

use super::{
    net::Net,
    skb::Skb, //
};
use crate::bindings;
use core::ptr::NonNull;

/// What carries the inner packet, for segmentation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The outer IP header alone.
    Ip,
    /// UDP, with a checksum or without.
    Udp {
        /// Whether UDP's checksum is filled in.
        csum: bool,
        /// Whether the receiver sums up the inner packet.
        remcsum: bool,
    },
    /// GRE, with a checksum or without.
    Gre {
        /// Whether GRE's checksum is there.
        csum: bool,
    },
}

impl Carrier {
    fn bits(self) -> u32 {
        match self {
            Carrier::Ip => 0,
            Carrier::Udp { csum, remcsum } => {
                let sum = if csum {
                    bindings::RVS_TUN_UDP_CSUM
                } else {
                    bindings::RVS_TUN_UDP
                };
                sum | if remcsum {
                    bindings::RVS_TUN_REMCSUM
                } else {
                    0
                }
            }
            Carrier::Gre { csum: false } => bindings::RVS_TUN_GRE,
            Carrier::Gre { csum: true } => bindings::RVS_TUN_GRE_CSUM,
        }
    }
}

impl<'a> Skb<'a> {
    /// Makes the packet private, with room for `extra` bytes in front besides those of its route's device. `None`: there
    /// is no memory, and the packet is freed.
    pub(crate) fn make_room(self, extra: usize) -> Option<Skb<'a>> {
        let extra = u32::try_from(extra).unwrap_or(u32::MAX);
        // SAFETY: By the type invariant; the packet has a route and is given away.
        let raw = unsafe { bindings::rvs_helper_tunnel_room(self.as_ptr(), extra) };
        // SAFETY: What comes back is a packet at the same place in its way, and nobody else's.
        NonNull::new(raw).map(|raw| unsafe { Skb::from_raw(raw) })
    }

    /// Tells a local sender's route that its packets may be no longer than `mtu`.
    pub(crate) fn update_pmtu(&mut self, mtu: u32) {
        // SAFETY: By the type invariant; the packet has a route.
        unsafe { bindings::rvs_helper_tunnel_pmtu(self.as_ptr(), mtu) };
    }

    /// The packet becomes the inner one, of protocol `proto`: `iptunnel_handle_offloads()`. `false` without memory.
    pub(crate) fn begin_tunnel(&mut self, outer_v6: bool, carrier: Carrier, proto: u8) -> bool {
        let v6 = if outer_v6 { bindings::RVS_TUN_V6 } else { 0 };
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_tunnel_begin(self.as_ptr(), v6 | carrier.bits(), proto) }
    }

    /// A header of `N` bytes in front of all; `None` if there is no room.
    pub(crate) fn push<const N: usize>(&mut self) -> Option<&mut [u8; N]> {
        let len = u32::try_from(N).ok()?;
        // SAFETY: By the type invariant; the function checks for room.
        let data = unsafe { bindings::rvs_helper_tunnel_push(self.as_ptr(), len) };
        // SAFETY: `skb_push()` returns the start of `N` bytes of the packet's headroom, which is private.
        unsafe { data.cast::<[u8; N]>().as_mut() }
    }

    /// What was pushed last is the transport header.
    pub(crate) fn begin_transport(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_tunnel_transport(self.as_ptr()) };
    }

    /// A source port (memory order) by the flow: `udp_flow_src_port()`.
    pub(crate) fn flow_port(&mut self, net: &Net) -> u16 {
        // SAFETY: By the type invariant; the namespace is alive.
        unsafe { bindings::rvs_helper_tunnel_port(net.as_ptr(), self.as_ptr()) }
    }

    /// Where the device would sum up from, and where from there the sum goes. Of a packet with a partial checksum.
    pub(crate) fn csum_place(&self) -> (u16, u16) {
        let (mut start, mut offset) = (0, 0);
        // SAFETY: By the type invariant; the pointers are to locals.
        unsafe { bindings::rvs_helper_tunnel_csum_place(self.as_ptr(), &mut start, &mut offset) };
        (start, offset)
    }

    /// The receiver sums up the inner packet, not the device.
    pub(crate) fn leave_csum_to_receiver(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_tunnel_remcsum(self.as_ptr()) };
    }

    /// Fills in the checksum of the UDP header pushed last, for the outer addresses, or says that there is `none`.
    pub(crate) fn outer_udp_csum(&mut self, v6: bool, none: bool, src: &[u32; 4], dst: &[u32; 4]) {
        // SAFETY: By the type invariant; the addresses have the 4 or 16 bytes that are read.
        unsafe {
            bindings::rvs_helper_tunnel_udp_csum(
                self.as_ptr(),
                v6,
                none,
                src.as_ptr(),
                dst.as_ptr(),
            )
        };
    }

    /// Pushes a GRE header of 4 or, with `csum`, 8 bytes: `gre_build_header()`. `false` if there is no room.
    pub(crate) fn push_gre(&mut self, inner_v6: bool, csum: bool) -> bool {
        // SAFETY: By the type invariant; the function checks for room.
        unsafe { bindings::rvs_helper_tunnel_gre(self.as_ptr(), inner_v6, csum) }
    }

    /// Sends the packet, whose outer IP header was pushed last, as one of this host: `ip_local_out()`.
    pub(crate) fn send_tunnelled(self, net: &Net, v6: bool) {
        // SAFETY: By the type invariant; the packet has a route and is given away.
        unsafe { bindings::rvs_helper_tunnel_out(self.as_ptr(), net.as_ptr(), v6) };
    }
}
