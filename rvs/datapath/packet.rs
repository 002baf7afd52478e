// SPDX-License-Identifier: GPL-2.0-only

//! What a packet's network header says: `struct ip_vs_iphdr`.

use crate::{
    conn::Tuple,
    os::skb::Skb, //
};
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    proto::{
        ah_esp,
        has_ports, //
    },
    wire::{
        Ports,
        Source, //
    }, //
};

/// A packet's bytes, for core's readers.
pub(super) struct Bytes<'s, 'a>(pub(super) &'s Skb<'a>);

impl Source for Bytes<'_, '_> {
    fn size(&self) -> usize {
        self.0.len() as usize
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.read(offset)
    }
}

/// The network header of a packet, or of one embedded in an ICMP error.
#[derive(Clone, Copy)]
pub(super) struct Iph {
    /// Source address.
    pub(super) src: Addr,
    /// Destination address.
    pub(super) dst: Addr,
    /// The protocol after all extension headers.
    pub(super) proto: u8,
    /// Where the network header starts.
    pub(super) at: usize,
    /// Where the transport header starts.
    pub(super) l4: usize,
    /// Whether the packet is a fragment.
    pub(super) fragment: bool,
    /// Whether it is one that does not begin with the transport header: `fragoffs`.
    pub(super) later_fragment: bool,
    /// IPv4's "don't fragment".
    pub(super) df: bool,
    /// Whether this is the header embedded in an ICMP error: `IP_VS_HDR_ICMP`.
    pub(super) embedded: bool,
}

/// Reads an IPv4 header at `at`; `None` for what is not one. C: `ip_vs_fill_iph_skb_off()`.
#[inline(always)]
pub(super) fn parse_v4(skb: &Skb<'_>, at: usize) -> Option<Iph> {
    let h: [u8; 20] = skb.read(at)?;
    let ihl = usize::from(h[0] & 0x0f).wrapping_mul(4);
    if h[0] >> 4 != 4 || ihl < 20 {
        return None;
    }
    let frag = u16::from_be_bytes([h[6], h[7]]);
    Some(Iph {
        src: Addr::v4(u32::from_ne_bytes([h[12], h[13], h[14], h[15]])),
        dst: Addr::v4(u32::from_ne_bytes([h[16], h[17], h[18], h[19]])),
        proto: h[9],
        at,
        l4: at.wrapping_add(ihl),
        fragment: frag & 0x3fff != 0,
        later_fragment: frag & 0x1fff != 0,
        df: frag & 0x4000 != 0,
        embedded: false,
    })
}

/// Reads an IPv6 header at `at` and walks its extension headers; `None` for what is not one.
#[inline(always)]
pub(super) fn parse_v6(skb: &Skb<'_>, at: usize) -> Option<Iph> {
    let h: [u8; 40] = skb.read(at)?;
    if h[0] >> 4 != 6 {
        return None;
    }
    let (src, dst) = (h.get(8..24)?, h.get(24..40)?);
    let mut iph = Iph {
        src: Addr::from_slice(Family::V6, src)?,
        dst: Addr::from_slice(Family::V6, dst)?,
        proto: h[6],
        at,
        l4: at.wrapping_add(40),
        fragment: false,
        later_fragment: false,
        df: false,
        embedded: false,
    };
    if !matches!(iph.proto, 6 | 17 | 58) {
        let last = skb.find_v6_header(at as u32)?;
        iph.proto = last.proto;
        // Behind the fragment header of a later fragment nothing begins: it is left at the start.
        iph.l4 = (last.offset as usize).max(iph.l4);
        iph.fragment = last.fragment;
        iph.later_fragment = last.frag_offset != 0;
    }
    Some(iph)
}

/// Reads a header of either family.
#[inline(always)]
pub(super) fn parse<const V6: bool>(skb: &Skb<'_>, at: usize) -> Option<Iph> {
    if V6 {
        parse_v6(skb, at)
    } else {
        parse_v4(skb, at)
    }
}

impl Iph {
    /// The flow of the packet; `None` without ports. Later fragments of IPv6 have none: C `frag_safe_skb_hp()`.
    #[inline(always)]
    pub(super) fn tuple<const V6: bool>(&self, skb: &Skb<'_>) -> Option<Tuple> {
        if !has_ports(self.proto) {
            return Some(self.isakmp(V6));
        }
        if self.later_fragment {
            return None;
        }
        let ports = Ports::from_bytes(skb.read::<4>(self.l4)?);
        Some(Tuple {
            src: self.src,
            dst: self.dst,
            sport: ports.src,
            dport: ports.dst,
            proto: self.proto,
            v6: V6,
            template: false,
        })
    }

    /// What AH and ESP follow: the connection by which the two ends agreed on keys.
    #[cold]
    #[inline(never)]
    fn isakmp(&self, v6: bool) -> Tuple {
        Tuple {
            src: self.src,
            dst: self.dst,
            sport: ah_esp::LOOKUP_PORT,
            dport: ah_esp::LOOKUP_PORT,
            proto: ah_esp::LOOKUP_PROTO,
            v6,
            template: false,
        }
    }
}
