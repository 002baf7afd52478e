// SPDX-License-Identifier: GPL-2.0-or-later

//! When two captures are the same.
//!
//! Byte for byte from the Ethernet header on, with what the device is told beside it, but for
//!
//! - the identification of IPv4 packets that the director makes itself, tunnels and ICMP errors: the kernel chooses it with a key
//!   that is random for each namespace. What is forwarded keeps the identification of the client or server and is compared with it.
//!   Fragments of one packet must still have the same one. The header's checksum follows it, so it must be right instead. (An ICMP error
//!   of the director's about a reply goes to the real server, by its method: so also within a tunnel. A checksum over
//!   a whole header does not change with what is in it.)
//! - the identification in IPv6 fragment headers, which the kernel chooses at random when it fragments a packet that it
//!   reassembled before. Fragments of one packet must still have the same one;
//! - how many bytes of a packet to be segmented are in its linear part, which the virtio-net header shows: it is about
//!   memory, nothing of it leaves the machine.
//!
//! GUE's source port is a hash of the flow whose key is random for each boot, and both modules run in one: it is compared.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::gen::OWN_TTL;
use crate::pkt::{sum, ICMP, ICMPV6};
use crate::tap::{ETH_LEN, VNET_LEN};

/// A captured frame, virtio-net header first.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen(pub Vec<u8>);

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vnet, rest) = self.0.split_at(VNET_LEN.min(self.0.len()));
        let (ether, ip) = rest.split_at(ETH_LEN.min(rest.len()));
        for (n, part) in [vnet, ether, ip].iter().enumerate() {
            if n != 0 {
                f.write_str(" | ")?;
            }
            for byte in *part {
                write!(f, "{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Which packets the director makes itself.
#[derive(Debug, Clone, Copy)]
pub struct Own {
    /// Source of its tunnels' packets.
    pub tunnels: (Ipv4Addr, Ipv6Addr),
    pub gue_port: u16,
}

/// Where the IP header begins.
pub const IP: usize = VNET_LEN + ETH_LEN;

/// What is written over an identification: whether it is that of the fragment before.
#[derive(Debug, Default)]
pub struct Masks {
    last: Option<u32>,
}

impl Masks {
    fn mask(&mut self, id: u32, later: bool) -> u32 {
        if later {
            return u32::from(self.last != Some(id));
        }
        self.last = Some(id);
        0
    }

    /// Makes a frame comparable.
    pub fn apply(&mut self, mut frame: Seen, own: Own) -> Seen {
        let b = &mut frame.0;
        // hdr_len.
        if let Some(len) = b.get_mut(2..4) {
            len.fill(0);
        }
        match b.get(IP).map(|v| v >> 4) {
            Some(4) if b.len() >= IP + 20 => {
                let ip = &mut b[IP..];
                if ip[12..16] == own.tunnels.0.octets() {
                    let len = usize::from(ip[0] & 15) * 4;
                    if u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff == 0 {
                        self.tunnelled(ip[9], ip.get_mut(len..), own);
                    }
                    self.v4(ip);
                } else {
                    self.own_v4(ip);
                }
            }
            Some(6) if b.len() >= IP + 40 => {
                let ip = &mut b[IP..];
                if ip[8..24] == own.tunnels.1.octets() {
                    let next = ip[6];
                    let first = next == 44 && ip.get(42..44).is_some_and(|w| w[0] == 0 && w[1] < 8);
                    match (first, ip.get(40)) {
                        (true, Some(next)) => self.tunnelled(*next, ip.get_mut(48..), own),
                        _ => self.tunnelled(next, ip.get_mut(40..), own),
                    }
                }
                self.v6(ip);
            }
            _ => {}
        }
        frame
    }

    /// What the director makes itself: with its own time to live, or one less if it then was forwarded.
    fn own_v4(&mut self, b: &mut [u8]) {
        if b.len() >= 20 && b[0] >> 4 == 4 && [OWN_TTL, OWN_TTL - 1].contains(&b[8]) {
            self.v4(b);
        }
    }

    /// What is in a tunnel's packet, behind its IP header.
    fn tunnelled(&mut self, proto: u8, payload: Option<&mut [u8]>, own: Own) {
        let Some(b) = payload else { return };
        let at = match (proto, &*b) {
            (4, _) => 0,
            (47, [flags, _, 8, 0, ..]) => 4 + if flags & 0x80 != 0 { 4 } else { 0 },
            (17, [_, _, hi, lo, _, _, _, _, words, 4, ..])
                if u16::from_be_bytes([*hi, *lo]) == own.gue_port =>
            {
                12 + usize::from(words & 31) * 4
            }
            _ => return,
        };
        if let Some(inner) = b.get_mut(at..) {
            self.own_v4(inner);
        }
    }

    fn v4(&mut self, b: &mut [u8]) {
        let len = usize::from(b[0] & 15) * 4;
        let right = b.get(..len).is_some_and(|h| sum(h, 0) == 0xffff);
        let later = u16::from_be_bytes([b[6], b[7]]) & 0x1fff != 0;
        let id = u32::from(u16::from_be_bytes([b[4], b[5]]));
        let mask = self.mask(id, later) as u16;
        b[4..6].copy_from_slice(&mask.to_be_bytes());
        if right {
            b[10..12].fill(0);
        }
    }

    /// Walks to the fragment header, if there is one.
    fn v6(&mut self, b: &mut [u8]) {
        let (mut next, mut at) = match b.get(6) {
            Some(next) => (*next, 40),
            None => return,
        };
        while let Some(header) = b.get_mut(at..at + 8) {
            match next {
                44 => {
                    let later = u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0;
                    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    let mask = self.mask(id, later);
                    header[4..8].copy_from_slice(&mask.to_be_bytes());
                    return;
                }
                0 | 43 | 60 => {
                    next = header[0];
                    at += (usize::from(header[1]) + 1) * 8;
                }
                _ => return,
            }
        }
    }
}

/// Differences that are meant (docs/differences.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meant {
    /// An ICMP error about a packet that is too long quotes it as it came, not with its time to live taken down.
    QuotedTtl,
    /// A wrong CRC32c of SCTP stays wrong.
    SctpCrc,
    /// Of SCTP that goes on as it came, C says that it is right, whether it is or not (VIRTIO_NET_HDR_F_DATA_VALID).
    SctpChecked,
}

/// Why two frames that are not the same are as they should be, if they are.
pub fn meant(rvs: &Seen, c: &Seen) -> Option<Meant> {
    if rvs.0.len() != c.0.len() || rvs.0.len() < IP + 20 || rvs.0[1..IP] != c.0[1..IP] {
        return None;
    }
    let same_flags = rvs.0[0] == c.0[0];
    let partial = c.0[0] & 1 != 0;
    // Of what it has made right C says so (VIRTIO_NET_HDR_F_DATA_VALID).
    let may_be_wrong = same_flags || (rvs.0[0], c.0[0]) == (0, 2);
    let (rvs, c) = (&rvs.0[IP..], &c.0[IP..]);
    let quoted = || quoted_ttl(rvs, c, partial).or_else(|| quoted_crc(rvs, c, partial));
    if !same_flags && may_be_wrong && rvs == c && sctp_at(rvs).is_some() {
        return Some(Meant::SctpChecked);
    }
    let found = if same_flags { quoted() } else { None };
    found.or_else(|| may_be_wrong.then(|| sctp_crc(rvs, c)).flatten())
}

/// Whether all bytes are the same but those at some places.
fn same_but(a: &[u8], b: &[u8], at: impl Fn(usize) -> bool) -> bool {
    let mut pairs = a.iter().zip(b).enumerate();
    pairs.all(|(n, (a, b))| a == b || at(n))
}

fn quoted_ttl(rvs: &[u8], c: &[u8], partial: bool) -> Option<Meant> {
    let v4 = rvs[0] >> 4 == 4;
    let (l4, proto, kind) = if v4 {
        (usize::from(rvs[0] & 15) * 4, ICMP, [3, 4])
    } else {
        (40, ICMPV6, [2, 0])
    };
    let is_error = rvs.get(if v4 { 9 } else { 6 }) == Some(&proto)
        && rvs.get(l4..l4 + 2) == Some(&kind)
        && rvs.len() >= l4 + 8 + 20;
    if !is_error {
        return None;
    }
    let quoted = l4 + 8;
    let ttl = quoted + if v4 { 8 } else { 7 };
    if *rvs.get(ttl)? != c.get(ttl)?.wrapping_add(1) {
        return None;
    }
    if partial {
        // The checksum is the device's to make; what is there for it does not depend on the payload.
        return (!v4 && same_but(rvs, c, |n| n == ttl)).then_some(Meant::QuotedTtl);
    }
    let check = l4 + 2..l4 + 4;
    let inner_check = quoted + 10..quoted + 12;
    // The checksums must be right, each for its own bytes.
    // So must be the quoted header's: all of it, or as wrong as the kernel has left it when it wrote into its options.
    let header = |b: &[u8]| {
        let header = b.get(quoted..quoted + usize::from(b[quoted] & 15) * 4);
        header.map(|h| sum(h, 0))
    };
    let right = |b: &[u8]| icmp_right(b, v4, l4);
    let same = same_but(rvs, c, |n| {
        n == ttl || check.contains(&n) || (v4 && inner_check.contains(&n))
    });
    let sums = right(rvs) && right(c) && (!v4 || header(rvs) == header(c));
    (same && sums).then_some(Meant::QuotedTtl)
}

/// Whether two ICMP errors are the same and have right checksums, but for the checksum of SCTP in what they quote.
fn quoted_crc(rvs: &[u8], c: &[u8], partial: bool) -> Option<Meant> {
    let v4 = rvs[0] >> 4 == 4;
    let l4 = if v4 { usize::from(rvs[0] & 15) * 4 } else { 40 };
    let proto = rvs[if v4 { 9 } else { 6 }];
    if proto != if v4 { ICMP } else { ICMPV6 } || rvs.len() < l4 + 8 + 20 {
        return None;
    }
    let (at, _) = sctp_at(&rvs[l4 + 8..])?;
    let at = l4 + 8 + at;
    if partial {
        return same_but(rvs, c, |n| (at + 8..at + 12).contains(&n)).then_some(Meant::SctpCrc);
    }
    let same = same_but(rvs, c, |n| {
        (l4 + 2..l4 + 4).contains(&n) || (at + 8..at + 12).contains(&n)
    });
    (same && icmp_right(rvs, v4, l4) && icmp_right(c, v4, l4)).then_some(Meant::SctpCrc)
}

/// Whether an ICMP message's checksum is right.
fn icmp_right(b: &[u8], v4: bool, l4: usize) -> bool {
    let start = if v4 {
        0
    } else {
        let src = <[u8; 16]>::try_from(&b[8..24]).map(IpAddr::from);
        let dst = <[u8; 16]>::try_from(&b[24..40]).map(IpAddr::from);
        let (Ok(src), Ok(dst)) = (src, dst) else {
            return false;
        };
        crate::pkt::pseudo(src, dst, ICMPV6, b.len() - 40)
    };
    sum(&b[l4..], start) == 0xffff
}

/// Where SCTP's header is in a packet or in its first fragment, and whether it is all there.
fn sctp_at(b: &[u8]) -> Option<(usize, bool)> {
    if b[0] >> 4 == 4 && b.len() >= 20 {
        let word = u16::from_be_bytes([b[6], b[7]]);
        let at = usize::from(b[0] & 15) * 4;
        return (b[9] == super::build::SCTP && word & 0x1fff == 0)
            .then_some((at, word & 0x2000 == 0));
    }
    let (mut next, mut at, mut whole) = (*b.get(6)?, 40, true);
    loop {
        let header = b.get(at..at + 8)?;
        match next {
            super::build::SCTP => return Some((at, whole)),
            44 => {
                if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
                    return None;
                }
                whole = header[3] & 1 == 0;
                next = header[0];
                at += 8;
            }
            0 | 43 | 60 => {
                next = header[0];
                at += (usize::from(header[1]) + 1) * 8;
            }
            51 => {
                next = header[0];
                at += (usize::from(header[1]) + 2) * 4;
            }
            _ => return None,
        }
    }
}

fn sctp_crc(rvs: &[u8], c: &[u8]) -> Option<Meant> {
    let (at, whole) = sctp_at(rvs)?;
    if !same_but(rvs, c, |n| (at + 8..at + 12).contains(&n)) {
        return None;
    }
    // C's is right and so ours is not; of a fragment nobody can tell.
    let mut sealed = c.get(at..)?.to_vec();
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    super::build::seal(any, any, super::build::SCTP, &mut sealed);
    (!whole || sealed == c[at..]).then_some(Meant::SctpCrc)
}
