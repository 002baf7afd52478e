// SPDX-License-Identifier: GPL-2.0-only

//! The ICMPv6 header, RFC 4443; C `struct icmp6hdr`.

use core::borrow::{
    Borrow,
    BorrowMut, //
};

/// Length of the header.
pub const HEADER_LEN: usize = 8;

/// Where the checksum is; C `offsetof(struct icmp6hdr, icmp6_cksum)`.
pub const CHECK_OFFSET: usize = 2;

/// Destination unreachable; C `ICMPV6_DEST_UNREACH`.
pub const DEST_UNREACH: u8 = 1;
/// Packet too big; C `ICMPV6_PKT_TOOBIG`.
pub const PKT_TOOBIG: u8 = 2;
/// Time exceeded; C `ICMPV6_TIME_EXCEED`.
pub const TIME_EXCEED: u8 = 3;
/// Parameter problem; C `ICMPV6_PARAMPROB`.
pub const PARAMPROB: u8 = 4;

/// Code of [`DEST_UNREACH`]: port unreachable; C `ICMPV6_PORT_UNREACH`.
pub const PORT_UNREACH: u8 = 4;

type Fixed = [u8; HEADER_LEN];

/// An ICMPv6 header.
#[derive(Clone, Copy, Debug)]
pub struct Icmpv6<B>(B);

impl<'a> Icmpv6<&'a Fixed> {
    /// The header at the start of `bytes`: 8 bytes of any contents.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Icmpv6)
    }

    /// As [`Icmpv6::parse`], of exactly 8 bytes.
    #[inline]
    pub const fn new(bytes: &'a Fixed) -> Self {
        Icmpv6(bytes)
    }
}

impl<'a> Icmpv6<&'a mut Fixed> {
    /// As [`Icmpv6::parse`], to be written.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Icmpv6)
    }
}

impl<B: Borrow<Fixed>> Icmpv6<B> {
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

    /// The MTU in a "packet too big" message.
    #[inline]
    pub fn mtu(&self) -> u32 {
        let h = self.h();
        u32::from_be_bytes([h[4], h[5], h[6], h[7]])
    }

    /// Whether this is an error, which carries the packet that caused it, rather than
    /// information.
    #[inline]
    pub fn is_error(&self) -> bool {
        self.kind() & 0x80 == 0
    }
}

impl<B: BorrowMut<Fixed>> Icmpv6<B> {
    /// Sets the checksum.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        let b = check.to_ne_bytes();
        let h = self.0.borrow_mut();
        (h[2], h[3]) = (b[0], b[1]);
    }
}
