// SPDX-License-Identifier: GPL-2.0-only

//! The TCP header, RFC 9293; C `struct tcphdr`.

use core::borrow::{
    Borrow,
    BorrowMut, //
};

use super::Ports;
use crate::{
    addr::Be16,
    proto::tcp::Flags, //
};

/// Length without options.
pub const HEADER_LEN: usize = 20;

/// Where the checksum is.
pub const CHECK_OFFSET: usize = 16;

type Fixed = [u8; HEADER_LEN];

/// The fixed part of a TCP header.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<B>(B);

impl<'a> Tcp<&'a Fixed> {
    /// The header at the start of `bytes`: 20 bytes of any contents.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        bytes.first_chunk().map(Tcp)
    }

    /// As [`Tcp::parse`], of exactly 20 bytes.
    #[inline]
    pub const fn new(bytes: &'a Fixed) -> Self {
        Tcp(bytes)
    }
}

impl<'a> Tcp<&'a mut Fixed> {
    /// As [`Tcp::parse`], to be written.
    #[inline]
    pub fn parse_mut(bytes: &'a mut [u8]) -> Option<Self> {
        bytes.first_chunk_mut().map(Tcp)
    }
}

impl<B: Borrow<Fixed>> Tcp<B> {
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

    /// Sequence number.
    #[inline]
    pub fn seq(&self) -> u32 {
        let h = self.h();
        u32::from_be_bytes([h[4], h[5], h[6], h[7]])
    }

    /// Acknowledgement number.
    #[inline]
    pub fn ack_seq(&self) -> u32 {
        let h = self.h();
        u32::from_be_bytes([h[8], h[9], h[10], h[11]])
    }

    /// Header length in bytes as the header says: 0 to 60, less than 20 being nonsense.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.h()[12] >> 4) << 2
    }

    /// The flags, byte 13.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags(self.h()[13])
    }

    /// Window.
    #[inline]
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.h()[14], self.h()[15]])
    }

    /// Checksum.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_ne_bytes([self.h()[16], self.h()[17]])
    }
}

impl<B: BorrowMut<Fixed>> Tcp<B> {
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

    /// Sets the sequence number. The checksum is then wrong.
    #[inline]
    pub fn set_seq(&mut self, seq: u32) {
        let [a, b, c, d] = seq.to_be_bytes();
        let h = self.m();
        (h[4], h[5], h[6], h[7]) = (a, b, c, d);
    }

    /// Sets the acknowledgement number. The checksum is then wrong.
    #[inline]
    pub fn set_ack_seq(&mut self, ack: u32) {
        let [a, b, c, d] = ack.to_be_bytes();
        let h = self.m();
        (h[8], h[9], h[10], h[11]) = (a, b, c, d);
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        let b = check.to_ne_bytes();
        let h = self.m();
        (h[16], h[17]) = (b[0], b[1]);
    }
}
