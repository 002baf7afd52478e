// SPDX-License-Identifier: GPL-2.0-only

//! The IPv6 header and its extension headers, RFC 8200; C `struct ipv6hdr`, `ipv6_find_hdr()`.

use core::borrow::{
    Borrow,
    BorrowMut, //
};

use super::Source;
use crate::addr::Addr;

/// Length of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Hop-by-hop options; C `NEXTHDR_HOP`.
pub const NEXTHDR_HOP: u8 = 0;
/// Routing header; C `NEXTHDR_ROUTING`.
pub const NEXTHDR_ROUTING: u8 = 43;
/// Fragment header; C `NEXTHDR_FRAGMENT`.
pub const NEXTHDR_FRAGMENT: u8 = 44;
/// Authentication header; C `NEXTHDR_AUTH`.
pub const NEXTHDR_AUTH: u8 = 51;
/// Nothing follows; C `NEXTHDR_NONE`.
pub const NEXTHDR_NONE: u8 = 59;
/// Destination options; C `NEXTHDR_DEST`.
pub const NEXTHDR_DEST: u8 = 60;

/// How many extension headers are followed; C `IP6_MAX_EXT_HDRS_CNT`.
pub const MAX_EXT_HEADERS: usize = 12;

type Fixed = [u8; HEADER_LEN];

/// The fixed IPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<B>(B);

impl<'a> Ipv6<&'a Fixed> {
    /// The header at the start of `bytes`: 40 bytes, version 6.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::new(bytes.first_chunk()?)
    }

    /// As [`Ipv6::parse`], of exactly 40 bytes.
    #[inline]
    pub fn new(bytes: &'a Fixed) -> Option<Self> {
        (bytes[0] >> 4 == 6).then_some(Ipv6(bytes))
    }
}

impl<'a> Ipv6<&'a mut Fixed> {
    /// As [`Ipv6::parse`], to be written.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Option<Self> {
        let bytes: &mut Fixed = bytes.first_chunk_mut()?;
        (bytes[0] >> 4 == 6).then_some(Ipv6(bytes))
    }
}

impl<B: Borrow<Fixed>> Ipv6<B> {
    #[inline]
    fn h(&self) -> &Fixed {
        self.0.borrow()
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.h()[0] << 4) | (self.h()[1] >> 4)
    }

    /// Flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.h()[1] & 0xf, self.h()[2], self.h()[3]])
    }

    /// Payload length in bytes, extension headers included.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.h()[4], self.h()[5]])
    }

    /// The type of the header that follows.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.h()[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.h()[7]
    }

    /// The source address.
    #[inline]
    pub fn src(&self) -> Addr {
        let [_, _, _, _, _, _, _, _, a @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            *self.h();
        Addr::from_bytes(a)
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> Addr {
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, a @ ..] =
            *self.h();
        Addr::from_bytes(a)
    }
}

impl<B: BorrowMut<Fixed>> Ipv6<B> {
    /// Sets the source address.
    #[inline]
    pub fn set_src(&mut self, addr: &Addr) {
        let [_, _, _, _, _, _, _, _, a @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            self.0.borrow_mut();
        *a = addr.bytes();
    }

    /// Sets the destination address.
    #[inline]
    pub fn set_dst(&mut self, addr: &Addr) {
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, a @ ..] =
            self.0.borrow_mut();
        *a = addr.bytes();
    }

    /// Takes one from the hop limit, unless it is zero.
    #[inline]
    pub fn decrease_hop_limit(&mut self) {
        let h = self.0.borrow_mut();
        h[7] = h[7].saturating_sub(1);
    }
}

/// Whether a next-header number means an extension header rather than a protocol (and
/// [`NEXTHDR_NONE`] counts as the former); C `ipv6_ext_hdr()`.
#[inline]
pub const fn is_ext_header(next: u8) -> bool {
    matches!(
        next,
        NEXTHDR_HOP
            | NEXTHDR_ROUTING
            | NEXTHDR_FRAGMENT
            | NEXTHDR_AUTH
            | NEXTHDR_NONE
            | NEXTHDR_DEST
    )
}

/// Where the payload of an IPv6 packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transport {
    /// The first header that is no extension header; or [`NEXTHDR_NONE`].
    pub protocol: u8,
    /// Where that header starts. In a fragment other than the first there is none, and this is, as
    /// in C, the `offset` of the IPv6 header itself.
    pub offset: usize,
    /// The fragment offset in bytes; not zero exactly in fragments other than the first.
    pub frag_offset: u16,
    /// Whether there is a fragment header; C `IP6_FH_F_FRAG`.
    pub is_fragment: bool,
}

/// The extension headers are cut off, too many, or lead nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Walks the extension headers of the IPv6 packet at `offset` to its payload; C `ipv6_find_hdr()`
/// with target -1, as `ip_vs_fill_iph_skb_off()` calls it. AH counts as an extension header.
pub fn find_transport<S: Source + ?Sized>(
    packet: &S,
    offset: usize,
) -> Result<Transport, Malformed> {
    let fixed = packet.read::<HEADER_LEN>(offset).ok_or(Malformed)?;
    let next = Ipv6::new(&fixed).ok_or(Malformed)?.next_header();

    if !is_ext_header(next) {
        // No extension header at all: nearly every packet.
        return Ok(Transport {
            protocol: next,
            offset: offset.wrapping_add(HEADER_LEN),
            frag_offset: 0,
            is_fragment: false,
        });
    }
    walk(packet, offset, next)
}

fn walk<S: Source + ?Sized>(packet: &S, offset: usize, next: u8) -> Result<Transport, Malformed> {
    let mut at = offset.checked_add(HEADER_LEN).ok_or(Malformed)?;
    let mut next = next;
    let mut is_fragment = false;

    // One more than there may be headers: the last round only sees that the walk is over.
    for round in 0..=MAX_EXT_HEADERS {
        if !is_ext_header(next) || next == NEXTHDR_NONE {
            return Ok(Transport {
                protocol: next,
                offset: at,
                frag_offset: 0,
                is_fragment,
            });
        }
        if round == MAX_EXT_HEADERS {
            break;
        }

        let [following, len] = packet.read::<2>(at).ok_or(Malformed)?;
        let header_len = match next {
            NEXTHDR_FRAGMENT => {
                is_fragment = true;
                let [_, _, hi, lo] = packet.read::<4>(at).ok_or(Malformed)?;
                let frag_offset = u16::from_be_bytes([hi, lo]) & !7;
                if frag_offset != 0 {
                    if is_ext_header(following) && following != NEXTHDR_NONE {
                        return Err(Malformed);
                    }
                    return Ok(Transport {
                        protocol: following,
                        offset,
                        frag_offset,
                        is_fragment,
                    });
                }
                8
            }
            NEXTHDR_AUTH => usize::from(len).wrapping_add(2) << 2,
            NEXTHDR_ROUTING => {
                packet.read::<4>(at).ok_or(Malformed)?;
                usize::from(len).wrapping_add(1) << 3
            }
            _ => usize::from(len).wrapping_add(1) << 3,
        };
        at = at
            .checked_add(header_len)
            .filter(|end| *end <= packet.size())
            .ok_or(Malformed)?;
        next = following;
    }
    Err(Malformed)
}
