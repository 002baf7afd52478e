// SPDX-License-Identifier: GPL-2.0-or-later

//! Conversations between a client and a real server, of which much goes wrong: the same ones for the same seed.
//!
//! A conversation is a second's worth of packets of one client that nobody else shares, so that no timeout of a
//! connection or of a reassembly can pass within one.

use std::net::IpAddr;

use super::build::{self, Head, AH, ESP, SCTP};
use crate::pkt::{ACK, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP};
use crate::rig::Side;
use crate::scenario::Rng;
use crate::topo::Family;

/// Time to live of what the director sends of its own; no generated packet has it, nor one more or less.
pub const OWN_TTL: u8 = 201;

/// The port that all services but ISAKMP's have.
pub const PORT: u16 = 80;
/// The port of persistent TCP services.
pub const PERSISTENT: u16 = 443;
/// The port of one-packet UDP services.
pub const ONE_PACKET: u16 = 81;
const ISAKMP: u16 = 500;

/// The longest payload of an IP packet that is not to be segmented.
const MOST: usize = 8000;

/// One way through the director.
#[derive(Debug, Clone)]
pub struct Way {
    pub name: String,
    /// Of the client's packets.
    pub family: Family,
    /// Where clients send to.
    pub vip: IpAddr,
    /// Who answers in the real server's name, if not the director itself.
    pub server: Option<IpAddr>,
    /// What the real server's port is when the service's is [`PORT`].
    pub port: u16,
    /// Errors about the tunnel itself can come back: the packet that it would send to the real server, up to the
    /// inner packet.
    pub tunnel: Option<Tunnel>,
}

/// What an error about a tunnel quotes in front of the inner packet.
#[derive(Debug, Clone)]
pub struct Tunnel {
    pub director: IpAddr,
    pub server: IpAddr,
    /// IP protocol of the outer packet, and the bytes behind the outer IP header.
    pub proto: u8,
    pub bytes: Vec<u8>,
}

/// What a device is told to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Where the checksum begins, from the IP header on, and where it goes from there.
    pub start: usize,
    pub offset: usize,
    /// Bytes of payload per segment, or 0, and of headers.
    pub segment: u16,
    pub headers: usize,
}

/// A packet to be sent.
#[derive(Debug, Clone)]
pub struct Shot {
    pub from: Side,
    /// From the IP header on.
    pub bytes: Vec<u8>,
    pub offload: Option<Offload>,
    /// To everybody on the link, not to the director alone.
    pub broadcast: bool,
}

/// Conversations of at least `n` packets in all, mixed, each from a client of its own; `client` is the number of the
/// next one.
pub fn batch(rng: &mut Rng, way: &Way, n: usize, client: &mut u16) -> Vec<Shot> {
    let mut talks: Vec<std::vec::IntoIter<Shot>> = Vec::new();
    let mut have = 0;
    while have < n {
        // Neither network, nor broadcast, nor the fences' address.
        *client = client.wrapping_add(1);
        if matches!(*client, 0 | 0xffff) {
            *client = 1;
        }
        let shots = Talk::new(rng, way, *client).run();
        have += shots.len();
        talks.push(shots.into_iter());
    }
    let mut out = Vec::new();
    while !talks.is_empty() {
        let which = rng.below(talks.len());
        match talks[which].next() {
            Some(shot) => out.push(shot),
            None => drop(talks.swap_remove(which)),
        }
    }
    out
}

fn any<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.below(all.len())]
}

/// At least `least` and fewer than `most` bytes.
fn some(rng: &mut Rng, least: usize, most: usize) -> Vec<u8> {
    let len = least + rng.below(most - least);
    rng.bytes(len)
}

/// One client's packets and the answers to them.
struct Talk<'a> {
    rng: &'a mut Rng,
    way: &'a Way,
    client: IpAddr,
    cport: u16,
    vport: u16,
    seq: u32,
    ack: u32,
    out: Vec<Shot>,
    /// What was last sent towards the server and towards the client, as the receiver sees it.
    last: [Option<Vec<u8>>; 2],
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dir {
    Request,
    Reply,
}

impl<'a> Talk<'a> {
    fn new(rng: &'a mut Rng, way: &'a Way, client: u16) -> Self {
        let usual = 1024 + rng.below(60_000) as u16;
        let cport = match rng.below(12) {
            // C takes each packet from port 0 for the first of its connection, rvs does not (docs/differences.md).
            0 => any(rng, &[1, 20, 21, 53, PORT, ISAKMP, 0xffff]),
            _ => usual,
        };
        let vport = match rng.below(12) {
            // An error about a reply from port 0 may begin a connection; see above.
            0 if way.tunnel.is_some() => any(rng, &[PERSISTENT, ONE_PACKET, 7, 9, 21]),
            0 => any(rng, &[PERSISTENT, ONE_PACKET, 0, 9, 21]),
            _ => PORT,
        };
        Self {
            client: way.family.raw_client(client),
            cport,
            vport,
            seq: rng.word() as u32,
            ack: rng.word() as u32,
            out: Vec::new(),
            last: [None, None],
            rng,
            way,
        }
    }

    fn run(mut self) -> Vec<Shot> {
        match self.rng.below(16) {
            0..=4 => self.tcp(),
            5..=8 => self.udp(),
            9..=10 => self.sctp(),
            11 => self.echo(),
            12 => self.ipsec(),
            13 => self.others(),
            14 => self.junk(),
            _ => {
                self.tcp();
                self.udp();
            }
        }
        self.out
    }

    fn v6(&self) -> bool {
        self.way.family == Family::V6
    }

    /// Both ends as they are on the wire of the side that `dir` comes from.
    fn ends(&self, dir: Dir) -> (IpAddr, IpAddr) {
        match dir {
            Dir::Request => (self.client, self.way.vip),
            Dir::Reply => (self.way.server.unwrap_or(self.way.vip), self.client),
        }
    }

    /// The real server's port.
    fn rport(&self) -> u16 {
        if self.vport == PORT {
            self.way.port
        } else {
            self.vport
        }
    }

    fn ports(&self, dir: Dir) -> (u16, u16) {
        match dir {
            Dir::Request => (self.cport, self.vport),
            Dir::Reply => (self.rport(), self.cport),
        }
    }

    /// A direction in which somebody can send.
    fn dir(&mut self) -> Dir {
        if self.way.server.is_some() && self.rng.chance(2) {
            Dir::Reply
        } else {
            Dir::Request
        }
    }

    fn body(&mut self) -> Vec<u8> {
        let usual = self.rng.below(64);
        let len = match self.rng.below(12) {
            0 => 0,
            1 => 1200 + self.rng.below(220),
            2 => 512,
            _ => usual,
        };
        self.rng.bytes(len)
    }

    // ---- headers ----

    fn head(&mut self, dir: Dir) -> Head {
        let (src, dst) = self.ends(dir);
        self.head_between(src, dst)
    }

    fn head_between(&mut self, src: IpAddr, dst: IpAddr) -> Head {
        let rng = &mut *self.rng;
        let mut head = Head::new(src, dst);
        head.ttl = match rng.below(16) {
            0 => any(rng, &[0, 1, 2]),
            1 => any(rng, &[3, 63, 128, 254]),
            _ => 64,
        };
        head.tos = if rng.chance(3) { rng.word() as u8 } else { 0 };
        head.label = if rng.chance(3) { rng.word() as u32 } else { 0 };
        head.id = rng.word() as u32;
        head.df = rng.chance(2);
        if rng.chance(10) {
            if src.is_ipv4() {
                head.options = v4_options(rng, src);
            } else {
                v6_headers(rng, &mut head);
            }
        }
        head
    }

    // ---- on to the wire ----

    fn shoot(&mut self, dir: Dir, bytes: Vec<u8>) {
        let from = match dir {
            Dir::Request => Side::Client,
            Dir::Reply => Side::Server,
        };
        let broadcast = self.rng.chance(80);
        self.out.push(Shot {
            from,
            bytes,
            offload: None,
            broadcast,
        });
    }

    /// Remembers how the receiver would see a packet, for errors that quote it.
    fn remember(&mut self, dir: Dir, head: &Head, proto: u8, l4: &[u8]) {
        let mut head = head.clone();
        let mut l4 = l4.to_vec();
        match (dir, self.way.server) {
            (Dir::Request, Some(server)) => {
                head.dst = server;
                if l4.len() >= 4 && [TCP, UDP, SCTP].contains(&proto) {
                    l4[2..4].copy_from_slice(&self.rport().to_be_bytes());
                }
            }
            (Dir::Request, None) => {}
            (Dir::Reply, _) => {
                head.src = self.way.vip;
                if l4.len() >= 4 && [TCP, UDP, SCTP].contains(&proto) {
                    l4[..2].copy_from_slice(&self.vport.to_be_bytes());
                }
            }
        }
        head.ttl = head.ttl.saturating_sub(1);
        self.last[usize::from(dir == Dir::Reply)] = Some(head.whole(proto, &l4));
    }

    /// Sends what follows the IP header, whose checksum is still to be written: as it should be, or not.
    fn send(&mut self, dir: Dir, proto: u8, mut l4: Vec<u8>) {
        let head = self.head(dir);
        l4.truncate(MOST);
        build::seal(head.src, head.dst, proto, &mut l4);
        self.remember(dir, &head, proto, &l4);
        match self.rng.below(24) {
            0 | 1 => self.fragments(dir, &head, proto, &l4),
            2 if l4.len() > 4 => {
                // The right packet with the wrong checksum, or none.
                if let Some(at) = build::check_at(proto) {
                    if l4.len() >= at + 2 {
                        let wrong = any(self.rng, &[0, 0xffff, 0x1234]);
                        l4[at..at + 2].copy_from_slice(&u16::to_be_bytes(wrong));
                    }
                }
                self.shoot(dir, head.whole(proto, &l4));
            }
            3 if proto == UDP => {
                l4[6..8].fill(0);
                self.shoot(dir, head.whole(proto, &l4));
            }
            4 | 5 => {
                let bytes = head.whole(proto, &l4);
                let bytes = mutated(self.rng, bytes, head.payload_at());
                self.shoot(dir, bytes);
            }
            6 if [TCP, UDP].contains(&proto) => {
                build::seal_partly(head.src, head.dst, proto, &mut l4);
                self.offloaded(dir, &head, proto, &l4, 0, 0);
            }
            _ => self.shoot(dir, head.whole(proto, &l4)),
        }
    }

    fn offloaded(
        &mut self,
        dir: Dir,
        head: &Head,
        proto: u8,
        l4: &[u8],
        segment: u16,
        header: usize,
    ) {
        let start = head.payload_at();
        self.shoot(dir, head.whole(proto, l4));
        if let Some(shot) = self.out.last_mut() {
            shot.broadcast = false;
            shot.offload = Some(Offload {
                start,
                offset: build::check_at(proto).unwrap_or_default(),
                segment,
                headers: start + header,
            });
        }
    }

    /// A packet that a device is to segment.
    fn large(&mut self, dir: Dir) {
        let head = self.head(dir);
        let header = 20;
        let len = 2000 + self.rng.below(6000);
        let body = self.rng.bytes(len);
        let segment = any(self.rng, &[536, 1000, 1220, 1300, 1340, 1440]);
        let mut l4 = build::tcp(self.ports(dir), self.seq, self.ack, ACK | PSH, &[], &body);
        build::seal_partly(head.src, head.dst, TCP, &mut l4);
        // The kernel segments neither IPv4 options nor extension headers of all kinds alike.
        let head = Head {
            options: Vec::new(),
            before: Vec::new(),
            behind: Vec::new(),
            ..head
        };
        self.offloaded(dir, &head, TCP, &l4, segment, header);
    }

    /// A packet in pieces: in order or not, whole or not, once or more often.
    fn fragments(&mut self, dir: Dir, head: &Head, proto: u8, l4: &[u8]) {
        let mut head = head.clone();
        head.df &= self.rng.chance(4);
        let len = l4.len() + head.behind.iter().map(|(_, b)| b.len()).sum::<usize>();
        let mut cuts = vec![0];
        let at_most = any(self.rng, &[8, 16, 24, 64, 600]);
        while let Some(last) = cuts.last().copied() {
            let next = last + 8 * (1 + self.rng.below(at_most / 8));
            if next >= len || cuts.len() > 12 {
                break;
            }
            cuts.push(next);
        }
        let open = self.rng.chance(12);
        let mut pieces = head.pieces(proto, l4, &cuts, open);
        match self.rng.below(8) {
            0 => pieces.reverse(),
            1 => {
                for n in (1..pieces.len()).rev() {
                    pieces.swap(n, self.rng.below(n + 1));
                }
            }
            2 => drop(pieces.remove(self.rng.below(pieces.len()))),
            3 => {
                let twice = pieces[self.rng.below(pieces.len())].clone();
                pieces.insert(self.rng.below(pieces.len() + 1), twice);
            }
            4 => {
                let offset = 8 * self.rng.below(len / 8 + 2) as u16;
                let bytes = some(self.rng, 8, 56);
                let more = self.rng.chance(2);
                let overlap = head.piece(proto, &bytes, offset, more);
                pieces.insert(self.rng.below(pieces.len() + 1), overlap);
            }
            5 => {
                let which = self.rng.below(pieces.len());
                let piece = pieces[which].clone();
                pieces[which] = mutated(self.rng, piece, head.payload_at());
            }
            _ => {}
        }
        for piece in pieces {
            self.shoot(dir, piece);
        }
    }

    // ---- conversations ----

    fn tcp(&mut self) {
        let natural: &[(Dir, u8)] = &[
            (Dir::Request, SYN),
            (Dir::Reply, SYN | ACK),
            (Dir::Request, ACK),
            (Dir::Request, PSH | ACK),
            (Dir::Reply, PSH | ACK),
            (Dir::Reply, ACK),
            (Dir::Request, PSH | ACK),
            (Dir::Reply, FIN | ACK),
            (Dir::Request, ACK),
            (Dir::Request, FIN | ACK),
            (Dir::Reply, ACK),
            (Dir::Request, SYN),
        ];
        let end = 2 + self.rng.below(natural.len() - 1);
        for (dir, flags) in &natural[..end] {
            self.beside();
            let (dir, flags) = match self.rng.below(10) {
                0 => (self.dir(), self.rng.word() as u8),
                1 => (
                    self.dir(),
                    any(
                        self.rng,
                        &[SYN, RST, FIN, RST | ACK, 0, 0x3f, SYN | FIN, 0xc2],
                    ),
                ),
                _ => (*dir, *flags),
            };
            if dir == Dir::Reply && self.way.server.is_none() {
                continue;
            }
            if flags & PSH != 0 && self.rng.chance(12) {
                self.large(dir);
                continue;
            }
            let options = match self.rng.below(8) {
                0 => some(self.rng, 0, 40),
                1..=3 => vec![
                    2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
                ],
                _ => Vec::new(),
            };
            let body = if flags & PSH != 0 {
                self.body()
            } else {
                Vec::new()
            };
            let mut l4 = build::tcp(self.ports(dir), self.seq, self.ack, flags, &options, &body);
            if self.rng.chance(40) {
                l4[12] = self.rng.word() as u8;
            }
            self.seq = self.seq.wrapping_add(body.len() as u32 + 1);
            self.send(dir, TCP, l4);
        }
    }

    fn udp(&mut self) {
        for n in 0..2 + self.rng.below(8) {
            self.beside();
            let dir = if n == 0 { Dir::Request } else { self.dir() };
            let body = self.body();
            let mut l4 = build::udp(self.ports(dir), &body);
            if self.rng.chance(24) {
                let len = any(self.rng, &[0, 7, 8, 9, 12, 0xffff]);
                l4[4..6].copy_from_slice(&u16::to_be_bytes(len));
            }
            self.send(dir, UDP, l4);
        }
    }

    fn sctp(&mut self) {
        const CHUNKS: [u8; 18] = [
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 63, 130, 193,
        ];
        let natural: &[(Dir, u8)] = &[
            (Dir::Request, 1),
            (Dir::Reply, 2),
            (Dir::Request, 10),
            (Dir::Reply, 11),
            (Dir::Request, 0),
            (Dir::Reply, 3),
            (Dir::Reply, 0),
            (Dir::Request, 7),
            (Dir::Reply, 8),
            (Dir::Request, 14),
        ];
        let end = 2 + self.rng.below(natural.len() - 1);
        for (dir, kind) in &natural[..end] {
            self.beside();
            let (dir, kind) = match self.rng.below(6) {
                0 => (self.dir(), any(self.rng, &CHUNKS)),
                _ => (*dir, *kind),
            };
            if dir == Dir::Reply && self.way.server.is_none() {
                continue;
            }
            let mut chunks = vec![(kind, self.body())];
            while self.rng.chance(4) {
                chunks.push((any(self.rng, &CHUNKS), self.body()));
            }
            let mut l4 = build::sctp(self.ports(dir), self.seq, &chunks);
            if self.rng.chance(12) && l4.len() > 15 {
                let len = any(self.rng, &[0, 1, 3, 4, 8, 0xffff]);
                l4[14..16].copy_from_slice(&u16::to_be_bytes(len));
            }
            if self.rng.chance(20) {
                l4.truncate(self.rng.below(l4.len()));
            }
            self.send(dir, SCTP, l4);
        }
    }

    /// Pings, to the virtual address and through the director.
    fn echo(&mut self) {
        let (proto, request, reply) = if self.v6() {
            (ICMPV6, 128, 129)
        } else {
            (ICMP, 8, 0)
        };
        for _ in 0..2 + self.rng.below(5) {
            let dir = self.dir();
            let kind = match self.rng.below(6) {
                // No neighbour discovery, no multicast listeners.
                0 if self.v6() => any(self.rng, &[100, 127, 144, 150, 200, 255]),
                0 => self.rng.word() as u8,
                1 => reply,
                _ => request,
            };
            // What redirects say would be believed, or not, by the kernel's own lights.
            let kind = if !self.v6() && kind == 5 { 0 } else { kind };
            // The kernel answers time stamps with the time.
            let kind = if !self.v6() && kind == 13 { 15 } else { kind };
            let body = self.body();
            let rest = self.rng.word() as u32;
            let l4 = build::icmp(kind, 0, rest, &body);
            self.send(dir, proto, l4);
        }
    }

    /// AH and ESP, behind an ISAKMP exchange or not.
    fn ipsec(&mut self) {
        if !self.rng.chance(4) {
            (self.cport, self.vport) = (ISAKMP, ISAKMP);
            let body = self.body();
            let l4 = build::udp(self.ports(Dir::Request), &body);
            self.send(Dir::Request, UDP, l4);
        }
        for _ in 0..1 + self.rng.below(5) {
            let dir = self.dir();
            let proto = any(self.rng, &[AH, ESP]);
            let len = self.rng.below(60);
            let mut l4 = self.rng.bytes(len);
            if proto == AH && l4.len() > 1 {
                // What it claims to protect, and its length.
                l4[0] = any(self.rng, &[TCP, UDP, 59, ESP]);
                l4[1] = any(self.rng, &[1, 4, 0, 200]);
            }
            self.send(dir, proto, l4);
        }
    }

    /// Protocols that are no business of ours.
    fn others(&mut self) {
        for _ in 0..1 + self.rng.below(4) {
            let dir = self.dir();
            let proto = any(self.rng, &[2, 33, 47, 88, 103, 112, 115, 136, 254, 255]);
            let body = self.body();
            self.send(dir, proto, body);
        }
    }

    /// Hardly packets.
    fn junk(&mut self) {
        for _ in 0..2 + self.rng.below(5) {
            let dir = self.dir();
            let head = self.head(dir);
            let proto = any(self.rng, &[TCP, UDP, SCTP, ICMP, ICMPV6, AH, ESP, 0, 59]);
            let len = match self.rng.below(3) {
                0 => self.rng.below(24),
                _ => self.rng.below(120),
            };
            let l4 = self.rng.bytes(len);
            // Bytes that happen to be neighbour discovery don't count.
            let proto = if proto == ICMPV6 && self.v6() {
                UDP
            } else {
                proto
            };
            let mut bytes = head.whole(proto, &l4);
            match self.rng.below(4) {
                0 => bytes.truncate(self.rng.below(bytes.len() + 1)),
                1 => bytes = mutated(self.rng, bytes, head.payload_at()),
                _ => {}
            }
            self.shoot(dir, bytes);
        }
    }

    /// Now and then, an error about the last packet of the conversation.
    fn beside(&mut self) {
        if !self.rng.chance(7) {
            return;
        }
        // About a request, from the server or a router on its side; about a reply, from the client.
        let about = if self.last[1].is_some() && self.rng.chance(2) {
            Dir::Reply
        } else {
            Dir::Request
        };
        let Some(quoted) = self.last[usize::from(about == Dir::Reply)].clone() else {
            return;
        };
        let (mut dir, mut src, dst) = match about {
            Dir::Request => (
                Dir::Reply,
                self.way.server.unwrap_or(self.client),
                self.client,
            ),
            Dir::Reply => (Dir::Request, self.client, self.way.vip),
        };
        if dir == Dir::Reply && self.way.server.is_none() {
            return;
        }
        match self.rng.below(8) {
            // A router's.
            0 | 1 => {
                src = match dir {
                    Dir::Reply => self.way.family.raw_rs(77),
                    Dir::Request => self.way.family.raw_client(0x7777),
                }
            }
            // From where it can't be.
            2 => {
                dir = match dir {
                    Dir::Reply => Dir::Request,
                    Dir::Request if self.way.server.is_some() => Dir::Reply,
                    Dir::Request => Dir::Request,
                }
            }
            _ => {}
        }
        self.error(dir, src, dst, quoted);
        if about == Dir::Request {
            self.tunnel_error();
        }
    }

    fn error(&mut self, dir: Dir, src: IpAddr, dst: IpAddr, mut quoted: Vec<u8>) {
        if self.rng.chance(5) {
            let at = if self.v6() { 40 } else { 20 };
            let at = at.min(quoted.len());
            quoted = mutated(self.rng, quoted, at);
        }
        if self.rng.chance(3) {
            let enough = if self.v6() { 48 } else { 28 };
            let len = match self.rng.below(3) {
                0 => self.rng.below(quoted.len() + 1),
                _ => enough,
            };
            quoted.truncate(len);
        }
        quoted.truncate(1200);
        let (kind, code) = if self.v6() {
            match self.rng.below(8) {
                0 => (2, 0),
                1 => (3, 0),
                2 => (4, self.rng.below(3) as u8),
                3 => (any(self.rng, &[0, 5, 100, 127]), 0),
                _ => (1, self.rng.below(7) as u8),
            }
        } else {
            match self.rng.below(8) {
                0 => (3, 4),
                1 => (11, self.rng.below(2) as u8),
                2 => (4, 0),
                3 => (12, 0),
                _ => (3, self.rng.below(16) as u8),
            }
        };
        let rest = match self.rng.below(3) {
            0 => 1300,
            1 => self.rng.word() as u32,
            _ => 0,
        };
        let proto = if self.v6() { ICMPV6 } else { ICMP };
        let mut l4 = build::icmp(kind, code, rest, &quoted);
        if self.rng.chance(16) {
            l4.truncate(self.rng.below(12));
        }
        let mut head = self.head_between(src, dst);
        spare_options(&mut head);
        build::seal(src, dst, proto, &mut l4);
        match self.rng.below(16) {
            0 if l4.len() > 4 => {
                l4[2] ^= 1;
                self.shoot(dir, head.whole(proto, &l4));
            }
            1 => self.fragments(dir, &head, proto, &l4),
            2 => {
                let bytes = head.whole(proto, &l4);
                // Not the type: it must not become neighbour discovery.
                let bytes = if self.v6() {
                    bytes
                } else {
                    mutated(self.rng, bytes, head.payload_at())
                };
                self.shoot(dir, bytes);
            }
            _ => self.shoot(dir, head.whole(proto, &l4)),
        }
    }

    /// An error about the tunnel's packet, from a router between the director and the real server.
    fn tunnel_error(&mut self) {
        let Some(tunnel) = self.way.tunnel.clone() else {
            return;
        };
        let Some(inner) = self.last[0].clone() else {
            return;
        };
        let mut payload = tunnel.bytes.clone();
        if let (UDP, Some(port)) = (tunnel.proto, payload.first_chunk_mut()) {
            // A flow of its own, as the client is.
            *port = match self.client {
                IpAddr::V4(a) => [a.octets()[2], a.octets()[3]],
                IpAddr::V6(a) => a.segments()[7].to_be_bytes(),
            };
        }
        payload.extend(&inner);
        let mut outer = Head::new(tunnel.director, tunnel.server);
        outer.df = self.rng.chance(2);
        let mut quoted = outer.whole(tunnel.proto, &payload);
        if self.rng.chance(4) {
            quoted.truncate(self.rng.below(quoted.len() + 1));
        }
        quoted.truncate(1200);
        let src = Family::of(tunnel.server).raw_rs(77);
        let (proto, kind, code) = match tunnel.server {
            IpAddr::V4(_) => (ICMP, 3, any(self.rng, &[0, 1, 3, 4, 4, 4])),
            IpAddr::V6(_) => (ICMPV6, any(self.rng, &[1, 2, 3]), 0),
        };
        // The kernel heeds the length itself, for the whole life of the director: a tunnel over IPv6 that it leaves fewer than 1280
        // bytes would carry nothing from then on.
        let rest = match tunnel.server {
            IpAddr::V4(_) => any(self.rng, &[0, 80, 1000, 1300, 0xffff]),
            IpAddr::V6(_) => any(self.rng, &[1350, 1380, 0xffff]),
        };
        let mut l4 = build::icmp(kind, code, rest, &quoted);
        build::seal(src, tunnel.director, proto, &mut l4);
        let mut head = self.head_between(src, tunnel.director);
        spare_options(&mut head);
        self.shoot(Dir::Reply, head.whole(proto, &l4));
    }
}

/// C drops errors whose header the kernel has written into (docs/differences.md).
fn spare_options(head: &mut Head) {
    if head.options.iter().any(|b| [7, 68].contains(b)) {
        head.options.clear();
    }
}

/// IPv4 options, valid and not. A source route leads back to the sender, so that an answer, which takes it backwards, does
/// not visit the director twice.
fn v4_options(rng: &mut Rng, src: IpAddr) -> Vec<u8> {
    let via = crate::pkt::octets(src);
    let mut b = match rng.below(10) {
        0 => vec![1, 1, 1, 0],
        // Router alert.
        1 => vec![148, 4, 0, 0],
        // Record route, with room and without.
        2 => [&[7, 11, 4][..], &[0; 8]].concat(),
        3 => [&[7, 7, 8][..], &via].concat(),
        // Time stamps, all taken: the kernel would write the time.
        4 => vec![68, 8, 9, 0x10, 1, 2, 3, 4],
        // Source routes, exhausted and not.
        5 => [&[131, 7, 8][..], &via].concat(),
        6 => [&[137, 7, 4][..], &via].concat(),
        // Security; unknown.
        7 => vec![134, 6, 0, 0, 0, 1],
        8 => vec![94, 4, 1, 2],
        _ => {
            // Not time stamps, and nothing that they could be read from.
            let mut b = some(rng, 4, 24);
            b.iter_mut().filter(|b| **b == 68).for_each(|b| *b = 69);
            b
        }
    };
    b.resize(b.len().next_multiple_of(4), 0);
    b
}

/// IPv6 extension headers, valid and not.
fn v6_headers(rng: &mut Rng, head: &mut Head) {
    if rng.chance(3) {
        let options: &[u8] = match rng.below(6) {
            // Router alert.
            0 => &[5, 2, 0, 0],
            // Unknown ones: skip, drop, drop and tell.
            1 => &[0x1e, 2, 0, 0],
            2 => &[0x5e, 2, 0, 0],
            3 => &[0x9e, 2, 0, 0],
            4 => &[0xde, 2, 0, 0],
            _ => &[],
        };
        head.before.push(build::options_header(true, options));
    }
    if rng.chance(3) {
        let options: &[u8] = any(rng, &[&[][..], &[0x1e, 2, 0, 0], &[0x9e, 2, 0, 0]]);
        head.before.push(build::options_header(false, options));
    }
    if rng.chance(3) {
        let kind = any(rng, &[0, 2, 3, 4, 253]);
        let left = any(rng, &[0, 0, 1]);
        head.before
            .push(build::routing_header(kind, left, head.dst));
    }
    match rng.below(6) {
        0 => head.behind.push(build::atomic_fragment(head.id)),
        1 => head.behind.push(build::options_header(false, &[])),
        2 => head
            .behind
            .push(build::authentication(any(rng, &[1, 4, 7]))),
        3 => head.behind.push(build::options_header(true, &[])),
        _ => {}
    }
    for (_, header) in head.before.iter_mut().chain(&mut head.behind) {
        if rng.chance(12) {
            header[1] = rng.word() as u8;
        }
    }
}

/// A packet with something wrong with it. `l4` is where its payload begins.
fn mutated(rng: &mut Rng, mut b: Vec<u8>, l4: usize) -> Vec<u8> {
    let v4 = b.first().is_some_and(|b| b >> 4 == 4);
    let fixed = if v4 { 20 } else { 40 };
    if b.len() < fixed {
        return b;
    }
    let addresses = if v4 { 12..20 } else { 8..40 };
    match rng.below(9) {
        // Any byte but the addresses', whose change could make anything of it: with the right checksum again, or not.
        0..=2 => {
            for _ in 0..=rng.below(3) {
                let at = rng.below(b.len());
                // Nor IPv4's options (see v4_options()), nor what would turn the rest into an ICMPv6 message.
                let spared = addresses.contains(&at)
                    || (v4 && (20..l4).contains(&at))
                    || (!v4 && (at == 6 || (40..=l4).contains(&at)))
                    || (v4 && at == 0);
                if !spared {
                    b[at] = rng.word() as u8;
                }
            }
            if v4 && !rng.chance(4) {
                build::fix_v4(&mut b);
            }
        }
        // Cut short, with lengths that agree or not.
        3 | 4 => {
            let len = fixed + rng.below(b.len() - fixed + 1);
            b.truncate(len);
            if !rng.chance(3) {
                relength(&mut b);
            }
        }
        5 => {
            let len = l4.min(b.len()) + any(rng, &[0, 1, 3, 4, 7, 8, 11, 12, 13, 15, 16, 19]);
            b.truncate(len.max(fixed));
            relength(&mut b);
        }
        // Something behind its end.
        6 => b.extend(some(rng, 1, 41)),
        // A header that claims another length, or another version.
        7 if v4 => {
            b[0] = any(rng, &[0x44, 0x40, 0x65, 0x05, 0xf5]);
            build::fix_v4(&mut b);
        }
        7 => b[0] = any(rng, &[0x40, 0x00, 0x70]),
        // Fragmentation fields that nobody sends.
        _ if v4 => {
            let word = any(
                rng,
                &[0x8000, 0x6000, 0x2000, 0x1fff, 0x0001, 0x3fff, 0xe000],
            );
            b[6..8].copy_from_slice(&u16::to_be_bytes(word));
            build::fix_v4(&mut b);
        }
        _ => {
            let len = any(rng, &[0, 1, 7, 8, 0xffff]);
            b[4..6].copy_from_slice(&u16::to_be_bytes(len));
        }
    }
    b
}

/// Makes the lengths in the IP header agree with the packet's.
fn relength(b: &mut [u8]) {
    if b[0] >> 4 == 4 {
        let len = b.len() as u16;
        b[2..4].copy_from_slice(&len.to_be_bytes());
        build::fix_v4(b);
    } else {
        let len = (b.len() - 40) as u16;
        b[4..6].copy_from_slice(&len.to_be_bytes());
    }
}
