// SPDX-License-Identifier: GPL-2.0-or-later

//! Packets with every freedom that the formats leave, and some that they don't.

use std::net::IpAddr;

use crate::pkt::{octets, pseudo, sum, ICMP, ICMPV6, TCP, UDP};

const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

pub const SCTP: u8 = 132;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;

const HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DEST: u8 = 60;

/// The IP header around a payload.
#[derive(Debug, Clone)]
pub struct Head {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    /// TOS, or traffic class.
    pub tos: u8,
    pub label: u32,
    pub id: u32,
    pub df: bool,
    /// IPv4 options, padded.
    pub options: Vec<u8>,
    /// IPv6 extension headers in front of a fragment header: type and bytes, of which the first will be the next
    /// header.
    pub before: Vec<(u8, Vec<u8>)>,
    /// Those behind it.
    pub behind: Vec<(u8, Vec<u8>)>,
}

impl Head {
    pub fn new(src: IpAddr, dst: IpAddr) -> Self {
        Self {
            src,
            dst,
            ttl: 64,
            tos: 0,
            label: 0,
            id: 0,
            df: false,
            options: Vec::new(),
            before: Vec::new(),
            behind: Vec::new(),
        }
    }

    /// Where the payload of [`Head::whole`] begins.
    pub fn payload_at(&self) -> usize {
        if self.src.is_ipv4() {
            return 20 + self.options.len();
        }
        let ext = self.before.iter().chain(&self.behind);
        40 + ext.map(|(_, b)| b.len()).sum::<usize>()
    }

    /// One packet around the payload.
    pub fn whole(&self, proto: u8, l4: &[u8]) -> Vec<u8> {
        let (proto, inner) = self.with_behind(proto, l4);
        self.around(proto, &inner, None)
    }

    /// The same cut into pieces that begin at `cuts` (multiples of 8, the first 0), the last with more to come if
    /// `open`.
    pub fn pieces(&self, proto: u8, l4: &[u8], cuts: &[usize], open: bool) -> Vec<Vec<u8>> {
        let (proto, inner) = self.with_behind(proto, l4);
        let mut out = Vec::new();
        for (n, &from) in cuts.iter().enumerate() {
            let to = cuts.get(n + 1).copied().unwrap_or(inner.len());
            let last = n + 1 == cuts.len();
            let piece = inner.get(from..to.min(inner.len())).unwrap_or_default();
            out.push(self.around(proto, piece, Some((from as u16, !last || open))));
        }
        out
    }

    /// A single piece at any place.
    pub fn piece(&self, proto: u8, bytes: &[u8], offset: u16, more: bool) -> Vec<u8> {
        self.around(proto, bytes, Some((offset, more)))
    }

    fn with_behind(&self, proto: u8, l4: &[u8]) -> (u8, Vec<u8>) {
        chain(&self.behind, proto, l4)
    }

    fn around(&self, proto: u8, payload: &[u8], frag: Option<(u16, bool)>) -> Vec<u8> {
        let mut b = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (offset, more) = frag.unwrap_or_default();
                let word =
                    (offset / 8) | if more { 0x2000 } else { 0 } | if self.df { 0x4000 } else { 0 };
                let ihl = 5 + self.options.len() / 4;
                b.extend([0x40 | ihl as u8, self.tos]);
                b.extend(((ihl * 4 + payload.len()) as u16).to_be_bytes());
                b.extend((self.id as u16).to_be_bytes());
                b.extend(word.to_be_bytes());
                b.extend([self.ttl, proto, 0, 0]);
                b.extend(src.octets());
                b.extend(dst.octets());
                b.extend(&self.options);
                b.extend(payload);
                fix_v4(&mut b);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (mut proto, mut inner) = (proto, payload.to_vec());
                if let Some((offset, more)) = frag {
                    let mut header = vec![proto, 0];
                    header.extend((offset | u16::from(more)).to_be_bytes());
                    header.extend(self.id.to_be_bytes());
                    header.extend(&inner);
                    (proto, inner) = (FRAGMENT, header);
                }
                (proto, inner) = chain(&self.before, proto, &inner);
                let word = (6 << 28) | (u32::from(self.tos) << 20) | (self.label & 0xf_ffff);
                b.extend(word.to_be_bytes());
                b.extend((inner.len() as u16).to_be_bytes());
                b.extend([proto, self.ttl]);
                b.extend(src.octets());
                b.extend(dst.octets());
                b.extend(inner);
            }
            _ => panic!("addresses of two families in {self:?}"),
        }
        b
    }
}

/// Extension headers in front of a payload; each one's first byte tells what follows.
fn chain(headers: &[(u8, Vec<u8>)], proto: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut next = proto;
    let mut bytes = payload.to_vec();
    for (kind, header) in headers.iter().rev() {
        let mut one = header.clone();
        one[0] = next;
        one.extend(&bytes);
        bytes = one;
        next = *kind;
    }
    (next, bytes)
}

/// Writes the right header checksum if there is a whole IPv4 header.
pub fn fix_v4(b: &mut [u8]) {
    let Some(len) = b.first().map(|v| usize::from(v & 15) * 4) else {
        return;
    };
    if len < 20 || b.len() < len {
        return;
    }
    b[10..12].fill(0);
    let check = !sum(&b[..len], 0) as u16;
    b[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Where the checksum of a protocol is in its header.
pub fn check_at(proto: u8) -> Option<usize> {
    match proto {
        TCP => Some(16),
        UDP => Some(6),
        ICMP | ICMPV6 => Some(2),
        SCTP => Some(8),
        _ => None,
    }
}

/// Writes the right checksum into a transport header, if it is all there.
pub fn seal(src: IpAddr, dst: IpAddr, proto: u8, l4: &mut [u8]) {
    let Some(at) = check_at(proto) else { return };
    if proto == SCTP {
        if l4.len() >= 12 {
            l4[8..12].fill(0);
            let crc = CRC.checksum(l4).to_le_bytes();
            l4[8..12].copy_from_slice(&crc);
        }
        return;
    }
    if l4.len() < at + 2 {
        return;
    }
    l4[at..at + 2].fill(0);
    let start = match proto {
        ICMP => 0,
        _ => pseudo(src, dst, proto, l4.len()),
    };
    let mut check = !sum(l4, start) as u16;
    if proto == UDP && check == 0 {
        check = 0xffff;
    }
    l4[at..at + 2].copy_from_slice(&check.to_be_bytes());
}

/// Writes the sum of the pseudo header alone, for a device to finish.
pub fn seal_partly(src: IpAddr, dst: IpAddr, proto: u8, l4: &mut [u8]) {
    let Some(at) = check_at(proto) else { return };
    let start = pseudo(src, dst, proto, l4.len()) as u16;
    l4[at..at + 2].copy_from_slice(&start.to_be_bytes());
}

/// A TCP header and what follows, its checksum still to be written. Options are padded.
pub fn tcp(
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    options: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4).min(40), 0);
    let mut b = Vec::new();
    b.extend(ports.0.to_be_bytes());
    b.extend(ports.1.to_be_bytes());
    b.extend(seq.to_be_bytes());
    b.extend(ack.to_be_bytes());
    b.extend([((5 + options.len() / 4) << 4) as u8, flags]);
    b.extend(0x2000_u16.to_be_bytes());
    b.extend([0; 4]);
    b.extend(options);
    b.extend(body);
    b
}

/// A UDP header and what follows.
pub fn udp(ports: (u16, u16), body: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(ports.0.to_be_bytes());
    b.extend(ports.1.to_be_bytes());
    b.extend(((8 + body.len()) as u16).to_be_bytes());
    b.extend([0; 2]);
    b.extend(body);
    b
}

/// An SCTP header and chunks: type and value each.
pub fn sctp(ports: (u16, u16), tag: u32, chunks: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(ports.0.to_be_bytes());
    b.extend(ports.1.to_be_bytes());
    b.extend(tag.to_be_bytes());
    b.extend([0; 4]);
    for (kind, value) in chunks {
        b.extend([*kind, 0]);
        b.extend(((4 + value.len()) as u16).to_be_bytes());
        b.extend(value);
        b.resize(b.len().next_multiple_of(4), 0);
    }
    b
}

/// An ICMP or ICMPv6 message.
pub fn icmp(kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
    let mut b = vec![kind, code, 0, 0];
    b.extend(rest.to_be_bytes());
    b.extend(body);
    b
}

/// An extension header of options: hop by hop, or for the destination.
pub fn options_header(hop: bool, options: &[u8]) -> (u8, Vec<u8>) {
    let mut b = vec![0, 0];
    b.extend(options);
    while b.len() % 8 != 0 {
        match 8 - b.len() % 8 {
            1 => b.push(0),
            n => {
                b.extend([1, (n - 2) as u8]);
                b.resize(b.len() + n - 2, 0);
            }
        }
    }
    b[1] = (b.len() / 8 - 1) as u8;
    (if hop { HOP } else { DEST }, b)
}

/// A routing header with one address.
pub fn routing_header(kind: u8, left: u8, via: IpAddr) -> (u8, Vec<u8>) {
    let mut b = vec![0, 2, kind, left, 0, 0, 0, 0];
    b.extend(octets(via));
    b.resize(24, 0);
    (ROUTING, b)
}

/// A fragment header of a packet that is whole.
pub fn atomic_fragment(id: u32) -> (u8, Vec<u8>) {
    let mut b = vec![0, 0, 0, 0];
    b.extend(id.to_be_bytes());
    (FRAGMENT, b)
}

/// An authentication header in front of something.
pub fn authentication(words: u8) -> (u8, Vec<u8>) {
    let mut b = vec![0, words, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 1];
    b.resize((usize::from(words) + 2) * 4, 0xa5);
    (AH, b)
}
