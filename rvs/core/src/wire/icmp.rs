// SPDX-License-Identifier: GPL-2.0-only

//! The ICMP header, RFC 792; C `struct icmphdr`.

use core::borrow::{
    Borrow,
    BorrowMut, //
};

use crate::checksum;

/// Length of the header.
pub const HEADER_LEN: usize = 8;

/// Destination unreachable; C `ICMP_DEST_UNREACH`.
pub const DEST_UNREACH: u8 = 3;
/// Source quench; C `ICMP_SOURCE_QUENCH`.
pub const SOURCE_QUENCH: u8 = 4;
/// Time exceeded; C `ICMP_TIME_EXCEEDED`.
pub const TIME_EXCEEDED: u8 = 11;

/// Code of [`DEST_UNREACH`]: port unreachable; C `ICMP_PORT_UNREACH`.
pub const PORT_UNREACH: u8 = 3;
/// Code of [`DEST_UNREACH`]: fragmentation needed; C `ICMP_FRAG_NEEDED`.
pub const FRAG_NEEDED: u8 = 4;

type Fixed = [u8; HEADER_LEN];

/// An ICMP header.
#[derive(Clone, Copy, Debug)]
pub struct Icmp<B>(B);

impl<'a> Icmp<&'a Fixed> {
    /// The header at the start of `bytes`: 8 bytes of any contents.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Icmp)
    }

    /// As [`Icmp::parse`], of exactly 8 bytes.
    #[inline]
    pub const fn new(bytes: &'a Fixed) -> Self {
        Icmp(bytes)
    }
}

impl<'a> Icmp<&'a mut Fixed> {
    /// As [`Icmp::parse`], to be written.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Icmp)
    }
}

impl<B: Borrow<Fixed>> Icmp<B> {
    #[inline]
    fn h(&self) -> &Fixed {
        self.0.borrow()
    }

    /// Type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.h()[0]
    }

    /// Code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.h()[1]
    }

    /// Checksum.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_ne_bytes([self.h()[2], self.h()[3]])
    }

    /// The MTU in a "fragmentation needed" message.
    #[inline]
    pub fn mtu(&self) -> u16 {
        u16::from_be_bytes([self.h()[6], self.h()[7]])
    }

    /// Whether IPVS looks into this message for the packet that caused it: destination unreachable,
    /// source quench and time exceeded.
    #[inline]
    pub fn is_related_error(&self) -> bool {
        matches!(self.kind(), DEST_UNREACH | SOURCE_QUENCH | TIME_EXCEEDED)
    }
}

impl<B: BorrowMut<Fixed>> Icmp<B> {
    /// Sets the checksum.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        let b = check.to_ne_bytes();
        let h = self.0.borrow_mut();
        (h[2], h[3]) = (b[0], b[1]);
    }
}

/// Writes the right checksum into an ICMP message, given in whole. `None`, and nothing changed, if
/// not even the header is there.
pub fn fill_checksum(message: &mut [u8]) -> Option<()> {
    Icmp::parse_mut(message)?.set_check(0);
    let check = checksum::fold(checksum::csum_partial(message, 0));
    Icmp::parse_mut(message)?.set_check(check);
    Some(())
}
