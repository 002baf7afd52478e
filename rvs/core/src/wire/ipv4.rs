// SPDX-License-Identifier: GPL-2.0-only

//! The IPv4 header, RFC 791; C `struct iphdr`.

use core::borrow::{
    Borrow,
    BorrowMut, //
};

use crate::{
    addr::{
        Addr,
        Be16,
        Be32, //
    },
    checksum,
};

/// Length without options.
pub const HEADER_LEN: usize = 20;

type Fixed = [u8; HEADER_LEN];

/// The fixed part of an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<B>(B);

impl<'a> Ipv4<&'a Fixed> {
    /// The header at the start of `bytes`: 20 bytes, version 4 and a header length of at least 20.
    ///
    /// Options need not be there.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        Self::new(bytes.first_chunk()?)
    }

    /// As [`Ipv4::parse`], of exactly 20 bytes.
    #[inline]
    pub fn new(bytes: &'a Fixed) -> Option<Self> {
        sane(bytes).then_some(Ipv4(bytes))
    }
}

impl<'a> Ipv4<&'a mut Fixed> {
    /// As [`Ipv4::parse`], to be written.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Option<Self> {
        let bytes = bytes.first_chunk_mut()?;
        sane(bytes).then_some(Ipv4(bytes))
    }
}

#[inline]
const fn sane(h: &Fixed) -> bool {
    h[0] >> 4 == 4 && h[0] & 0xf >= 5
}

impl<B: Borrow<Fixed>> Ipv4<B> {
    #[inline]
    fn h(&self) -> &Fixed {
        self.0.borrow()
    }

    /// Header length in bytes, options included: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.h()[0] & 0xf) << 2
    }

    /// The whole TOS byte: DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.h()[1]
    }

    /// Total length in bytes.
    #[inline]
    pub fn total_len(&self) -> u16 {
        u16::from_be_bytes([self.h()[2], self.h()[3]])
    }

    /// Identification.
    #[inline]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.h()[4], self.h()[5]])
    }

    #[inline]
    fn frag_word(&self) -> u16 {
        u16::from_be_bytes([self.h()[6], self.h()[7]])
    }

    /// Whether routers may not fragment this packet.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.frag_word() & 0x4000 != 0
    }

    /// Whether fragments follow this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.frag_word() & 0x2000 != 0
    }

    /// Fragment offset in bytes.
    #[inline]
    pub fn frag_offset(&self) -> u16 {
        (self.frag_word() & 0x1fff) << 3
    }

    /// Whether this is a fragment, the first one included; C `ip_is_fragment()`.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.frag_word() & 0x3fff != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.h()[8]
    }

    /// The protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.h()[9]
    }

    /// The header checksum.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_ne_bytes([self.h()[10], self.h()[11]])
    }

    /// The source address.
    #[inline]
    pub fn src_be(&self) -> Be32 {
        let h = self.h();
        u32::from_ne_bytes([h[12], h[13], h[14], h[15]])
    }

    /// The destination address.
    #[inline]
    pub fn dst_be(&self) -> Be32 {
        let h = self.h();
        u32::from_ne_bytes([h[16], h[17], h[18], h[19]])
    }

    /// The source address.
    #[inline]
    pub fn src(&self) -> Addr {
        Addr::v4(self.src_be())
    }

    /// The destination address.
    #[inline]
    pub fn dst(&self) -> Addr {
        Addr::v4(self.dst_be())
    }
}

impl<B: BorrowMut<Fixed>> Ipv4<B> {
    #[inline]
    fn m(&mut self) -> &mut Fixed {
        self.0.borrow_mut()
    }

    /// Sets the source address. The checksum is then wrong.
    #[inline]
    pub fn set_src(&mut self, be: Be32) {
        let b = be.to_ne_bytes();
        let h = self.m();
        (h[12], h[13], h[14], h[15]) = (b[0], b[1], b[2], b[3]);
    }

    /// Sets the destination address. The checksum is then wrong.
    #[inline]
    pub fn set_dst(&mut self, be: Be32) {
        let b = be.to_ne_bytes();
        let h = self.m();
        (h[16], h[17], h[18], h[19]) = (b[0], b[1], b[2], b[3]);
    }

    /// Sets the header checksum.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        let b = check.to_ne_bytes();
        let h = self.m();
        (h[10], h[11]) = (b[0], b[1]);
    }

    /// Takes one from the time to live and mends the checksum; C `ip_decrease_ttl()`.
    ///
    /// A time to live of zero stays.
    #[inline]
    pub fn decrease_ttl(&mut self) {
        let before: Be16 = u16::from_ne_bytes([self.h()[8], self.h()[9]]);
        let h = self.m();
        h[8] = h[8].saturating_sub(1);
        let after: Be16 = u16::from_ne_bytes([h[8], h[9]]);
        let check = checksum::replace2(self.check(), before, after);
        self.set_check(check);
    }
}

/// The checksum of the header at the start of `packet`, computed as if its field were zero; C
/// `ip_fast_csum()`. `None` if the header, options included, is not all there.
#[inline]
pub fn header_checksum(packet: &[u8]) -> Option<u16> {
    let fixed: &Fixed = packet.first_chunk()?;
    let hdr = Ipv4::new(fixed)?;
    let len = hdr.header_len();
    let options = packet.get(HEADER_LEN..len)?;

    let h = fixed;
    let sum = u64::from(u32::from_ne_bytes([h[0], h[1], h[2], h[3]]))
        .wrapping_add(u64::from(u32::from_ne_bytes([h[4], h[5], h[6], h[7]])))
        .wrapping_add(u64::from(u32::from_ne_bytes([h[8], h[9], 0, 0])))
        .wrapping_add(u64::from(hdr.src_be()))
        .wrapping_add(u64::from(hdr.dst_be()));
    let sum = checksum::fold64(sum);
    Some(checksum::fold(if options.is_empty() {
        sum
    } else {
        checksum::csum_partial(options, sum)
    }))
}

/// Writes the right checksum into the header at the start of `packet`; C `ip_send_check()`.
/// `None`, and nothing changed, if the header is not all there.
#[inline]
pub fn fill_checksum(packet: &mut [u8]) -> Option<()> {
    let check = header_checksum(packet)?;
    Ipv4::parse_mut(packet)?.set_check(check);
    Some(())
}

/// Whether the header at the start of `packet` is whole and its checksum right.
pub fn checksum_ok(packet: &[u8]) -> bool {
    match Ipv4::parse(packet).and_then(|h| packet.get(..h.header_len())) {
        Some(header) => checksum::fold(checksum::csum_partial(header, 0)) == 0,
        None => false,
    }
}
