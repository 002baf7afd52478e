// SPDX-License-Identifier: GPL-2.0-only

//! The PROXY protocol, versions 1 and 2: the client's address in front of what it sends.
//!
//! Specification: `doc/proxy-protocol.txt` of HAProxy.

use crate::{
    addr::{
        Addr,
        Be16,
        Family,
        Pretty, //
    },
    checksum::{
        self,
        csum_partial, //
    },
    proto::IPPROTO_TCP,
    wire::{
        ipv4::{
            self,
            Ipv4, //
        },
        ipv6::Ipv6, //
    },
};
use core::fmt::{
    self,
    Write, //
};

/// The longest header: version 1 with IPv6 addresses.
pub const MAX: usize = 107;

/// Which version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// A line of text; TCP only.
    One,
    /// Binary.
    Two,
}

impl Version {
    /// By its number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Version::One),
            2 => Some(Version::Two),
            _ => None,
        }
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Family of both addresses.
    pub family: Family,
    /// UDP, not TCP.
    pub udp: bool,
    /// The client.
    pub src: &'a Addr,
    /// The virtual service.
    pub dst: &'a Addr,
    /// The client's port, memory order.
    pub sport: Be16,
    /// The service's.
    pub dport: Be16,
}

/// A header, ready to be sent.
#[derive(Clone, Copy)]
pub struct Header {
    bytes: [u8; MAX],
    len: usize,
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

impl Header {
    /// Writes the header of a flow. Version 1 knows no UDP: it is taken for TCP.
    pub fn new(version: Version, flow: &Flow<'_>) -> Self {
        let mut this = Header {
            bytes: [0; MAX],
            len: 0,
        };
        match version {
            Version::One => {
                let name = match flow.family {
                    Family::V4 => "TCP4",
                    Family::V6 => "TCP6",
                };
                // It has room for the longest.
                let _ = write!(
                    this,
                    "PROXY {name} {} {} {} {}\r\n",
                    Pretty(flow.family, flow.src),
                    Pretty(flow.family, flow.dst),
                    u16::from_be(flow.sport),
                    u16::from_be(flow.dport)
                );
            }
            Version::Two => this.binary(flow),
        }
        this
    }

    fn binary(&mut self, flow: &Flow<'_>) {
        let family = match flow.family {
            Family::V4 => 0x10,
            Family::V6 => 0x20,
        };
        let addr = flow.family.addr_len();
        let rest = addr.saturating_add(2).saturating_mul(2) as u16;
        self.put(&SIGNATURE);
        self.put(&[0x21, family | if flow.udp { 2 } else { 1 }]);
        self.put(&rest.to_be_bytes());
        for end in [flow.src, flow.dst] {
            self.put(end.bytes().get(..addr).unwrap_or_default());
        }
        self.put(&flow.sport.to_ne_bytes());
        self.put(&flow.dport.to_ne_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len = self.len.saturating_add(bytes.len()).min(MAX);
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for Header {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// Makes a packet right whose headers are those of another, and whose payload is a header of ours: lengths, checksums, the
/// first sequence number `seq`, and no flag but ACK and PSH. `packet` is all of it, its TCP header at `l4`. `None` if it is
/// no such packet.
pub fn finish(packet: &mut [u8], family: Family, l4: usize, seq: u32) -> Option<()> {
    const FLAGS: u8 = 0x18;

    let len = packet.len();
    let l4_len = u32::try_from(len.checked_sub(l4)?).ok()?;
    let (src, dst) = match family {
        Family::V4 => {
            let total = u16::try_from(len).ok()?;
            let [high, low] = total.to_be_bytes();
            *packet.get_mut(2)? = high;
            *packet.get_mut(3)? = low;
            ipv4::fill_checksum(packet.get_mut(..l4)?)?;
            let header = Ipv4::parse(packet)?;
            (header.src(), header.dst())
        }
        Family::V6 => {
            let payload = u16::try_from(len.checked_sub(40)?).ok()?;
            let [high, low] = payload.to_be_bytes();
            *packet.get_mut(4)? = high;
            *packet.get_mut(5)? = low;
            let header = Ipv6::parse(packet)?;
            (header.src(), header.dst())
        }
    };
    let segment = packet.get_mut(l4..)?;
    for (to, from) in segment.get_mut(4..8)?.iter_mut().zip(seq.to_be_bytes()) {
        *to = from;
    }
    *segment.get_mut(13)? = FLAGS;
    segment.get_mut(16..20)?.fill(0);
    let sum = csum_partial(segment, 0);
    let check = checksum::fold(checksum::pseudo(
        family,
        &src,
        &dst,
        IPPROTO_TCP,
        l4_len,
        sum,
    ));
    for (to, from) in segment.get_mut(16..18)?.iter_mut().zip(check.to_ne_bytes()) {
        *to = from;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{
        Ipv4Addr,
        Ipv6Addr, //
    };
    use std::vec::Vec;

    fn v4(text: &str) -> Addr {
        Addr::from_slice(Family::V4, &text.parse::<Ipv4Addr>().unwrap().octets()).unwrap()
    }

    fn v6(text: &str) -> Addr {
        Addr::from_bytes(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    fn flow<'a>(family: Family, udp: bool, src: &'a Addr, dst: &'a Addr) -> Flow<'a> {
        Flow {
            family,
            udp,
            src,
            dst,
            sport: 56324_u16.to_be(),
            dport: 443_u16.to_be(),
        }
    }

    #[test]
    fn text() {
        let (a, b) = (v4("192.168.0.1"), v4("192.168.0.11"));
        let header = Header::new(Version::One, &flow(Family::V4, false, &a, &b));
        assert_eq!(
            header.bytes(),
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        );
        let (a, b) = (v6("2001:db8::1"), v6("fd00:100::1"));
        let header = Header::new(Version::One, &flow(Family::V6, false, &a, &b));
        assert_eq!(
            header.bytes(),
            b"PROXY TCP6 2001:db8::1 fd00:100::1 56324 443\r\n"
        );
        let long = v6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        let header = Header::new(
            Version::One,
            &Flow {
                sport: 0xffff,
                dport: 0xffff,
                ..flow(Family::V6, false, &long, &long)
            },
        );
        // The specification's 107 count a family name that is longer.
        assert_eq!(header.bytes().len(), 104);
        assert!(header.bytes().ends_with(b" 65535 65535\r\n"));
    }

    #[test]
    fn binary() {
        let (a, b) = (v4("10.0.0.2"), v4("10.0.100.1"));
        let header = Header::new(Version::Two, &flow(Family::V4, false, &a, &b));
        let mut want: Vec<u8> = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a".to_vec();
        want.extend([
            0x21, 0x11, 0, 12, 10, 0, 0, 2, 10, 0, 100, 1, 0xdc, 4, 1, 0xbb,
        ]);
        assert_eq!(header.bytes(), want);
        let header = Header::new(Version::Two, &flow(Family::V4, true, &a, &b));
        assert_eq!((header.bytes().len(), header.bytes()[13]), (28, 0x12));
        let (a, b) = (v6("::1"), v6("::2"));
        let header = Header::new(Version::Two, &flow(Family::V6, true, &a, &b));
        assert_eq!((header.bytes().len(), header.bytes()[13]), (52, 0x22));
        assert_eq!(header.bytes()[14..16], [0, 36]);
        assert_eq!((header.bytes()[31], header.bytes()[47]), (1, 2));
    }

    #[test]
    fn packets() {
        for family in [Family::V4, Family::V6] {
            let l4 = if family == Family::V4 { 20 } else { 40 };
            let mut packet = std::vec![0; l4 + 32 + 28];
            packet[0] = if family == Family::V4 { 0x45 } else { 0x60 };
            packet[l4 + 12] = 0x80;
            packet[l4 + 13] = 0x11;
            finish(&mut packet, family, l4, 0x0102_0304).unwrap();
            assert_eq!(packet[l4 + 4..l4 + 8], [1, 2, 3, 4]);
            assert_eq!(packet[l4 + 13], 0x18);
            let zero = Addr::ZERO;
            let sum = csum_partial(&packet[l4..], 0);
            let sum = checksum::pseudo(family, &zero, &zero, 6, 60, sum);
            assert_eq!(checksum::fold_sum(sum), 0xffff);
            if family == Family::V4 {
                assert_eq!(packet[2..4], [0, 80]);
                assert_eq!(checksum::fold_sum(csum_partial(&packet[..20], 0)), 0xffff);
            } else {
                assert_eq!(packet[4..6], [0, 60]);
            }
            assert!(finish(&mut packet[..l4 + 10], family, l4, 1).is_none());
        }
    }
}
