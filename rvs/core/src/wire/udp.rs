// SPDX-License-Identifier: GPL-2.0-only

//! The UDP header, RFC 768; C `struct udphdr`.

use core::borrow::{
    Borrow,
    BorrowMut, //
};

use super::Ports;
use crate::addr::Be16;

/// Length of the header.
pub const HEADER_LEN: usize = 8;

/// Where the checksum is.
pub const CHECK_OFFSET: usize = 6;

type Fixed = [u8; HEADER_LEN];

/// A UDP header.
#[derive(Clone, Copy, Debug)]
pub struct Udp<B>(B);

impl<'a> Udp<&'a Fixed> {
    /// The header at the start of `bytes`: 8 bytes of any contents.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Udp)
    }

    /// As [`Udp::parse`], of exactly 8 bytes.
    #[inline]
    pub const fn new(bytes: &'a Fixed) -> Self {
        Udp(bytes)
    }
}

impl<'a> Udp<&'a mut Fixed> {
    /// As [`Udp::parse`], to be written.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Udp)
    }
}

impl<B: Borrow<Fixed>> Udp<B> {
    #[inline]
    fn h(&self) -> &Fixed {
        self.0.borrow()
    }

    /// Both ports.
    #[inline]
    pub fn ports(&self) -> Ports {
        let h = self.h();
        Ports::from_bytes([h[0], h[1], h[2], h[3]])
    }

    /// Length of header and payload.
    #[inline]
    pub fn length(&self) -> u16 {
        u16::from_be_bytes([self.h()[4], self.h()[5]])
    }

    /// Checksum; zero means that there is none.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_ne_bytes([self.h()[6], self.h()[7]])
    }
}

impl<B: BorrowMut<Fixed>> Udp<B> {
    #[inline]
    fn m(&mut self) -> &mut Fixed {
        self.0.borrow_mut()
    }

    /// Sets the source port. The checksum is then wrong.
    #[inline]
    pub fn set_src(&mut self, port: Be16) {
        let b = port.to_ne_bytes();
        let h = self.m();
        (h[0], h[1]) = (b[0], b[1]);
    }

    /// Sets the destination port. The checksum is then wrong.
    #[inline]
    pub fn set_dst(&mut self, port: Be16) {
        let b = port.to_ne_bytes();
        let h = self.m();
        (h[2], h[3]) = (b[0], b[1]);
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        let b = check.to_ne_bytes();
        let h = self.m();
        (h[6], h[7]) = (b[0], b[1]);
    }
}
