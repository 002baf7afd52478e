// SPDX-License-Identifier: GPL-2.0-or-later

//! IP packets as plain values: built with checksums that are right unless told otherwise, parsed
//! with every checksum checked.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{bail, ensure, Context, Result};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
/// An experimental protocol that nobody handles; [`crate::rig`] marks the end of an exchange with
/// it.
pub const FENCE: u8 = 253;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// A packet, one struct for all: fields that a protocol hasn't are zero.
#[derive(Clone, PartialEq, Eq)]
pub struct Pkt {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub ttl: u8,
    pub tos: u8,
    pub id: u32,
    pub df: bool,
    /// Offset in bytes of a fragment, and whether more follow.
    pub frag: Option<(u16, bool)>,
    pub proto: u8,
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub win: u16,
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// Bytes 4 to 8 of the ICMP header.
    pub icmp_rest: u32,
    /// What follows the layer 4 header; the whole layer 4 of an unknown protocol or of a later
    /// fragment.
    pub body: Vec<u8>,
    /// Built: the checksum to write instead of the right one. Parsed: the checksum that was there.
    pub csum: Option<u16>,
    /// Parsed: whether all checksums were right (a UDP checksum of zero counts as right over IPv4).
    pub csum_ok: bool,
}

impl fmt::Debug for Pkt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.proto {
            TCP | UDP => write!(
                f,
                "{} {}.{} > {}.{}",
                if self.proto == TCP { "TCP" } else { "UDP" },
                self.src,
                self.sport,
                self.dst,
                self.dport
            )?,
            ICMP | ICMPV6 => write!(
                f,
                "ICMP {} > {} type {} code {} rest {:#x}",
                self.src, self.dst, self.icmp_type, self.icmp_code, self.icmp_rest
            )?,
            p => write!(f, "proto {p} {} > {}", self.src, self.dst)?,
        }
        if self.proto == TCP {
            for (bit, name) in [(SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, ".")] {
                if self.flags & bit != 0 {
                    f.write_str(if name == "S" { " S" } else { name })?;
                }
            }
            write!(f, " seq {} ack {}", self.seq, self.ack)?;
        }
        if let Some((offset, more)) = self.frag {
            write!(f, " frag {offset}{}", if more { "+" } else { "" })?;
        }
        write!(
            f,
            " ttl {} len {} csum {:x?}",
            self.ttl,
            self.body.len(),
            self.csum
        )?;
        if !self.csum_ok {
            f.write_str(" BAD-CSUM")?;
        }
        Ok(())
    }
}

/// The ones' complement sum of RFC 1071, not yet inverted.
pub fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut acc = u64::from(start);
    for pair in bytes.chunks(2) {
        acc += u64::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while acc > 0xffff {
        acc = (acc & 0xffff) + (acc >> 16);
    }
    acc as u32
}

/// The sum over the pseudo header.
pub fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u32 {
    let mut acc = sum(&octets(src), u32::from(proto));
    acc = sum(&octets(dst), acc);
    sum(&(len as u32).to_be_bytes(), acc)
}

pub fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

impl Pkt {
    /// An empty packet of a protocol.
    pub fn new(src: IpAddr, dst: IpAddr, proto: u8) -> Self {
        Self {
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0x1234,
            df: false,
            frag: None,
            proto,
            sport: 0,
            dport: 0,
            seq: 0,
            ack: 0,
            flags: 0,
            win: 0x2000,
            icmp_type: 0,
            icmp_code: 0,
            icmp_rest: 0,
            body: Vec::new(),
            csum: None,
            csum_ok: true,
        }
    }

    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        let ack = if flags & ACK != 0 { 0x2002 } else { 0 };
        Self {
            sport: src.port(),
            dport: dst.port(),
            flags,
            seq: 0x1001,
            ack,
            ..Self::new(src.ip(), dst.ip(), TCP)
        }
    }

    pub fn udp(src: SocketAddr, dst: SocketAddr, body: &[u8]) -> Self {
        Self {
            sport: src.port(),
            dport: dst.port(),
            body: body.to_vec(),
            ..Self::new(src.ip(), dst.ip(), UDP)
        }
    }

    /// An ICMP or ICMPv6 error around `inner`, as a router or host would send it.
    pub fn icmp_error(
        src: IpAddr,
        dst: IpAddr,
        icmp_type: u8,
        icmp_code: u8,
        rest: u32,
        inner: &[u8],
    ) -> Self {
        let proto = if src.is_ipv4() { ICMP } else { ICMPV6 };
        Self {
            icmp_type,
            icmp_code,
            icmp_rest: rest,
            body: inner.to_vec(),
            ..Self::new(src, dst, proto)
        }
    }

    pub fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.src, self.sport)
    }

    pub fn dest(&self) -> SocketAddr {
        SocketAddr::new(self.dst, self.dport)
    }

    pub fn with(mut self, f: impl FnOnce(&mut Self)) -> Self {
        f(&mut self);
        self
    }

    /// The answer in the other direction: addresses and ports swapped.
    pub fn back(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            csum: None,
            ..self.clone()
        }
    }

    pub fn l4(&self) -> Vec<u8> {
        let mut b = Vec::new();
        if self.frag.is_some_and(|(offset, _)| offset != 0) {
            return self.body.clone();
        }
        let csum_at = match self.proto {
            TCP => {
                b.extend(self.sport.to_be_bytes());
                b.extend(self.dport.to_be_bytes());
                b.extend(self.seq.to_be_bytes());
                b.extend(self.ack.to_be_bytes());
                b.extend([5 << 4, self.flags]);
                b.extend(self.win.to_be_bytes());
                b.extend([0; 4]);
                16
            }
            UDP => {
                b.extend(self.sport.to_be_bytes());
                b.extend(self.dport.to_be_bytes());
                b.extend(((8 + self.body.len()) as u16).to_be_bytes());
                b.extend([0; 2]);
                6
            }
            ICMP | ICMPV6 => {
                b.extend([self.icmp_type, self.icmp_code, 0, 0]);
                b.extend(self.icmp_rest.to_be_bytes());
                2
            }
            _ => return self.body.clone(),
        };
        b.extend(&self.body);
        let start = if self.proto == ICMP {
            0
        } else {
            pseudo(self.src, self.dst, self.proto, b.len())
        };
        let mut csum = !sum(&b, start) as u16;
        if self.proto == UDP && csum == 0 {
            csum = 0xffff;
        }
        let csum = self.csum.unwrap_or(csum);
        b[csum_at..csum_at + 2].copy_from_slice(&csum.to_be_bytes());
        b
    }

    /// The packet from its IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        self.around(&self.l4())
    }

    /// The IP headers of this packet around a given layer 4.
    pub fn around(&self, l4: &[u8]) -> Vec<u8> {
        let mut b = Vec::new();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (offset, more) = self.frag.unwrap_or_default();
                let frag =
                    (offset / 8) | if more { 0x2000 } else { 0 } | if self.df { 0x4000 } else { 0 };
                b.extend([0x45, self.tos]);
                b.extend(((20 + l4.len()) as u16).to_be_bytes());
                b.extend((self.id as u16).to_be_bytes());
                b.extend(frag.to_be_bytes());
                b.extend([self.ttl, self.proto, 0, 0]);
                b.extend(src.octets());
                b.extend(dst.octets());
                let csum = !sum(&b, 0) as u16;
                b[10..12].copy_from_slice(&csum.to_be_bytes());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ext = if self.frag.is_some() { 8 } else { 0 };
                b.extend([0x60 | (self.tos >> 4), self.tos << 4, 0, 0]);
                b.extend(((ext + l4.len()) as u16).to_be_bytes());
                b.extend([if ext == 0 { self.proto } else { 44 }, self.ttl]);
                b.extend(src.octets());
                b.extend(dst.octets());
                if let Some((offset, more)) = self.frag {
                    b.extend([self.proto, 0]);
                    b.extend((offset | u16::from(more)).to_be_bytes());
                    b.extend(self.id.to_be_bytes());
                }
            }
            _ => panic!("addresses of two families in {self:?}"),
        }
        b.extend(l4);
        b
    }

    /// The packet in fragments whose payloads are `at` bytes (a multiple of 8), the last one
    /// shorter.
    pub fn fragments(&self, at: usize) -> Vec<Vec<u8>> {
        let l4 = self.l4();
        let count = l4.chunks(at).len();
        l4.chunks(at)
            .enumerate()
            .map(|(i, chunk)| {
                Self {
                    frag: Some(((i * at) as u16, i + 1 != count)),
                    ..self.clone()
                }
                .around(chunk)
            })
            .collect()
    }

    /// Parses a packet from its IP header on. `partial`: the layer 4 checksum covers only the
    /// pseudo header so far.
    pub fn parse(raw: &[u8], partial: bool) -> Result<Self> {
        let version = raw.first().context("empty packet")? >> 4;
        let mut ok = true;
        let (mut p, l4) = match version {
            4 => {
                ensure!(raw.len() >= 20, "IPv4 header cut short");
                let ihl = usize::from(raw[0] & 15) * 4;
                let total = usize::from(be16(raw, 2)?);
                ensure!(
                    ihl >= 20 && total >= ihl,
                    "bad IPv4 lengths: ihl {ihl}, total {total}"
                );
                let addr = |at: usize| {
                    IpAddr::V4(Ipv4Addr::new(
                        raw[at],
                        raw[at + 1],
                        raw[at + 2],
                        raw[at + 3],
                    ))
                };
                let mut p = Self::new(addr(12), addr(16), raw[9]);
                ok &= raw.get(..ihl).is_some_and(|h| sum(h, 0) == 0xffff);
                p.tos = raw[1];
                p.id = u32::from(be16(raw, 4)?);
                p.ttl = raw[8];
                let frag = be16(raw, 6)?;
                p.df = frag & 0x4000 != 0;
                if frag & 0x3fff != 0 {
                    p.frag = Some(((frag & 0x1fff) * 8, frag & 0x2000 != 0));
                }
                (p, raw.get(ihl..total.min(raw.len())).unwrap_or_default())
            }
            6 => {
                ensure!(raw.len() >= 40, "IPv6 header cut short");
                let addr = |at: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&raw[at..at + 16]);
                    IpAddr::V6(Ipv6Addr::from(octets))
                };
                let mut p = Self::new(addr(8), addr(24), raw[6]);
                p.tos = (raw[0] << 4) | (raw[1] >> 4);
                p.ttl = raw[7];
                p.id = 0;
                let end = (40 + usize::from(be16(raw, 4)?)).min(raw.len());
                let mut l4 = raw.get(40..end).unwrap_or_default();
                if p.proto == 44 && l4.len() >= 8 {
                    let offset = be16(l4, 2)?;
                    p.frag = Some((offset & 0xfff8, offset & 1 != 0));
                    p.id = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
                    p.proto = l4[0];
                    l4 = &l4[8..];
                }
                (p, l4)
            }
            v => bail!("IP version {v}"),
        };
        let whole = p.frag.is_none();
        let later = p.frag.is_some_and(|(offset, _)| offset != 0);
        let header = match p.proto {
            TCP => 20,
            UDP | ICMP | ICMPV6 => 8,
            _ => 0,
        };
        if later || header == 0 || l4.len() < header {
            p.body = l4.to_vec();
            p.csum_ok = ok;
            return Ok(p);
        }
        let start = if p.proto == ICMP {
            0
        } else {
            pseudo(p.src, p.dst, p.proto, l4.len())
        };
        let mut body_at = header;
        match p.proto {
            TCP => {
                p.sport = be16(l4, 0)?;
                p.dport = be16(l4, 2)?;
                p.seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
                p.ack = u32::from_be_bytes([l4[8], l4[9], l4[10], l4[11]]);
                p.flags = l4[13];
                p.win = be16(l4, 14)?;
                p.csum = Some(be16(l4, 16)?);
                body_at = (usize::from(l4[12] >> 4) * 4).clamp(20, l4.len());
            }
            UDP => {
                p.sport = be16(l4, 0)?;
                p.dport = be16(l4, 2)?;
                p.csum = Some(be16(l4, 6)?);
            }
            _ => {
                p.icmp_type = l4[0];
                p.icmp_code = l4[1];
                p.csum = Some(be16(l4, 2)?);
                p.icmp_rest = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]);
            }
        }
        if whole {
            let unchecked = p.proto == UDP && p.csum == Some(0) && p.is_v4();
            ok &= if partial {
                // CHECKSUM_PARTIAL: the field holds the folded pseudo header sum, not inverted.
                p.csum.map(u32::from) == Some(start)
            } else {
                unchecked || sum(l4, start) == 0xffff
            };
        }
        p.body = l4[body_at..].to_vec();
        p.csum_ok = ok;
        Ok(p)
    }
}

fn be16(b: &[u8], at: usize) -> Result<u16> {
    let pair = b.get(at..at + 2).context("packet cut short")?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}
