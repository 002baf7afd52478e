// SPDX-License-Identifier: GPL-2.0-only

//! Headers as typed views over bytes.
//!
//! A view holds a reference to a whole fixed header, checked for length once, when it is parsed;
//! after that no accessor can fail. `parse` borrows the bytes, `parse_mut` gives a view that can
//! also be written. A header that exists is long enough; whether its contents make sense is for the
//! caller to ask, except where a view says otherwise.
//!
//! Ports, addresses and checksums are in memory order, everything else in host order.

pub mod gue;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod outer;
pub mod sctp;
pub mod tcp;
pub mod udp;

use crate::addr::Be16;

/// Bytes that can be read in pieces: a slice here, a packet whose data is scattered in the kernel.
pub trait Source {
    /// How many bytes there are.
    fn size(&self) -> usize;

    /// `N` bytes from `offset`, if all of them are there; C `skb_header_pointer()`.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Source for [u8] {
    #[inline]
    fn size(&self) -> usize {
        self.len()
    }

    #[inline]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// The ports of a TCP, UDP or SCTP header: its first four bytes, in memory order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ports {
    /// Source port.
    pub src: Be16,
    /// Destination port.
    pub dst: Be16,
}

impl Ports {
    /// Bytes taken.
    pub const LEN: usize = 4;

    /// From the four bytes.
    #[inline]
    pub const fn from_bytes(b: [u8; 4]) -> Self {
        Ports {
            src: u16::from_ne_bytes([b[0], b[1]]),
            dst: u16::from_ne_bytes([b[2], b[3]]),
        }
    }

    /// From the start of a layer 4 header.
    #[inline]
    pub fn parse(l4: &[u8]) -> Option<Self> {
        l4.first_chunk().map(|b| Ports::from_bytes(*b))
    }

    /// The four bytes.
    #[inline]
    pub const fn bytes(self) -> [u8; 4] {
        let (s, d) = (self.src.to_ne_bytes(), self.dst.to_ne_bytes());
        [s[0], s[1], d[0], d[1]]
    }

    /// Source and destination exchanged.
    #[inline]
    #[must_use]
    pub const fn swapped(self) -> Self {
        Ports {
            src: self.dst,
            dst: self.src,
        }
    }
}
