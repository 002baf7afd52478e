// SPDX-License-Identifier: GPL-2.0-only

//! TCP between a client and a real server that see each other's numbers translated.
//!
//! Many clients appear to a real server as one host. What TCP expects of one host must hold: on the same ports initial
//! sequence numbers rise (RFC 6528; so that a socket in TIME-WAIT accepts a new SYN, RFC 1122 4.2.2.13), and timestamps
//! rise from one connection to the next (PAWS, RFC 7323).

use crate::{
    addr::{
        Addr,
        Family, //
    },
    checksum::{
        csum_partial,
        Delta, //
    },
    nat::Truncated,
    proto::tcp::Flags,
    siphash::{
        self,
        Key, //
    },
    wire::{
        tcp::{
            Tcp,
            HEADER_LEN, //
        },
        Ports, //
    },
};

/// The longest TCP header.
pub const MAX_HEADER: usize = 60;

/// Options: kinds, and lengths of those that have one length.
pub mod option {
    #![allow(missing_docs)]
    pub const END: u8 = 0;
    pub const NOP: u8 = 1;
    pub const MSS: u8 = 2;
    pub const MSS_LEN: usize = 4;
    pub const WINDOW: u8 = 3;
    pub const SACK_PERMITTED: u8 = 4;
    pub const SACK: u8 = 5;
    pub const TIMESTAMP: u8 = 8;
    pub const TIMESTAMP_LEN: usize = 10;
}

/// The initial sequence number towards a real server: unguessable without the key, and rising with time (a megabyte a
/// second, so for 36 minutes) on the same addresses and ports. `now` in nanoseconds, `ports` both of them.
pub fn initial_seq(key: &Key, local: &Addr, server: &Addr, ports: u32, now: u64) -> u32 {
    let [a, b] = local.words64();
    let [c, d] = server.words64();
    let hash = siphash::siphash24(key, &[a, b, c, d, u64::from(ports)]);
    (hash as u32).wrapping_add((now >> 10) as u32)
}

/// By how much an initial sequence number is ahead of what the last connection would have sent next: more than a window
/// without scaling, as for ports that Linux itself uses again (`tcp_twsk_unique()`).
const BEYOND: u32 = (1 << 16) + 1;

/// Whether a connection that would have sent `next` next has sent so fast that [`initial_seq()`], now `clock`, is not ahead of
/// it.
pub const fn outran(next: u32, clock: u32) -> bool {
    clock.wrapping_sub(next) as i32 <= 0
}

/// The initial sequence number after a connection on the same ends that would have sent `next` next: `clock`, as
/// [`initial_seq()`] says, or a bit more than `next` if that is ahead of it.
pub const fn seq_after(next: u32, clock: u32) -> u32 {
    if outran(next, clock) {
        next.wrapping_add(BEYOND)
    } else {
        clock
    }
}

/// The timestamp clock of a local address: a millisecond a tick, from a start that the key hides. `now` in nanoseconds.
pub fn timestamp(key: &Key, local: &Addr, now: u64) -> u32 {
    let [a, b] = local.words64();
    // Another number of words than above: another hash.
    let hash = siphash::siphash24(key, &[a, b]);
    (hash as u32).wrapping_add((now / 1_000_000) as u32)
}

/// One side's bytes in the numbers of the client and of the real server.
///
/// The real server's are `delta` ahead; from the client's first data byte on, `header` more, which were put in front of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Space {
    /// What is added to the client's numbers.
    pub delta: u32,
    /// The client's first data byte, in its own numbers; counts only with a header.
    pub first: u32,
    /// How many bytes are put in front of it.
    pub header: u32,
}

impl Space {
    /// A client's sequence number, for the real server.
    #[inline]
    pub const fn to_server(&self, seq: u32) -> u32 {
        let seq = seq.wrapping_add(self.delta);
        if self.header == 0 || (seq.wrapping_sub(self.delta).wrapping_sub(self.first) as i32) < 0 {
            return seq;
        }
        seq.wrapping_add(self.header)
    }

    /// What the real server says about a client's byte, for the client. Of the header the client knows nothing.
    #[inline]
    pub const fn to_client(&self, ack: u32) -> u32 {
        let ack = ack.wrapping_sub(self.delta);
        if self.header == 0 {
            return ack;
        }
        let ahead = ack.wrapping_sub(self.first);
        if ahead as i32 <= 0 {
            ack
        } else if ahead <= self.header {
            self.first
        } else {
            ack.wrapping_sub(self.header)
        }
    }

    /// Whether the real server, which says that it expects `ack` next, has all that was put in front.
    #[inline]
    pub const fn has_header(&self, ack: u32) -> bool {
        ack.wrapping_sub(self.delta)
            .wrapping_sub(self.first)
            .wrapping_sub(self.header) as i32
            >= 0
    }
}

/// Which way a segment goes, with what is translated.
#[derive(Clone, Copy, Debug)]
pub enum Translate {
    /// To the real server: sequence number and timestamp value.
    Request {
        /// The client's bytes.
        space: Space,
        /// What is added to timestamp values.
        ts: u32,
    },
    /// To the client: acknowledgement, SACK blocks and timestamp echo; of a SYN the MSS.
    Reply {
        /// The client's bytes.
        space: Space,
        /// What was added to timestamp values.
        ts: u32,
        /// How much less than it says the real server accepts in one segment.
        less_mss: u16,
    },
}

/// Both ends of a packet, before and after.
#[derive(Clone, Copy, Debug)]
pub struct Ends<'a> {
    /// Family of the addresses.
    pub family: Family,
    /// Source and destination as they are.
    pub old: (&'a Addr, &'a Addr),
    /// Source and destination as they will be.
    pub new: (&'a Addr, &'a Addr),
    /// Ports as they will be, memory order.
    pub ports: Ports,
}

impl Ends<'_> {
    /// What the addresses do to a checksum.
    #[inline]
    pub fn addresses(&self) -> Delta {
        Delta::new().addr(self.family, self.old.0, self.new.0).addr(
            self.family,
            self.old.1,
            self.new.1,
        )
    }
}

/// Rewrites a whole TCP header, options included, and its checksum; `partial`: the checksum field holds the sum of the pseudo
/// header only. Nothing is changed if it fails.
#[inline]
pub fn rewrite(
    header: &mut [u8],
    ends: &Ends<'_>,
    how: &Translate,
    partial: bool,
) -> Result<(), Truncated> {
    let len = Tcp::parse(header).ok_or(Truncated)?.header_len();
    if !(HEADER_LEN..=header.len()).contains(&len) {
        return Err(Truncated);
    }
    let (fixed, rest) = header.split_at_mut_checked(HEADER_LEN).ok_or(Truncated)?;
    let options = rest
        .get_mut(..len.saturating_sub(HEADER_LEN))
        .ok_or(Truncated)?;
    let mut th = Tcp::parse_mut(fixed).ok_or(Truncated)?;

    let old = th.ports();
    let mut delta = ends.addresses();
    let seed = delta;
    delta = delta
        .word16(old.src, ends.ports.src)
        .word16(old.dst, ends.ports.dst);
    th.set_src(ends.ports.src);
    th.set_dst(ends.ports.dst);
    match how {
        Translate::Request { space, ts } => {
            let seq = th.seq();
            let new = space.to_server(seq);
            th.set_seq(new);
            delta = delta.word32(seq.to_be(), new.to_be());
            if *ts != 0 {
                delta = shift_timestamp(options, *ts, 2, delta);
            }
        }
        Translate::Reply {
            space,
            ts,
            less_mss,
        } => {
            let flags = th.flags().0;
            if flags & Flags::ACK != 0 {
                let ack = th.ack_seq();
                let new = space.to_client(ack);
                th.set_ack_seq(new);
                delta = delta.word32(ack.to_be(), new.to_be());
            }
            if *ts != 0 && flags & Flags::ACK != 0 {
                delta = shift_timestamp(options, ts.wrapping_neg(), 6, delta);
            }
            if options.len() > 12 || flags & Flags::SYN != 0 {
                delta = rare_options(options, flags & Flags::SYN != 0, space, *less_mss, delta);
            }
        }
    }
    let check = if partial {
        seed.update_partial(th.check())
    } else {
        delta.update(th.check())
    };
    th.set_check(check);
    Ok(())
}

/// What most segments have: two NOPs and timestamps.
const USUAL: [u8; 4] = [
    option::NOP,
    option::NOP,
    option::TIMESTAMP,
    option::TIMESTAMP_LEN as u8,
];

/// Adds to the timestamp that is `at` bytes into its option.
#[inline]
fn shift_timestamp(options: &mut [u8], by: u32, at: usize, delta: Delta) -> Delta {
    if options.first_chunk() == Some(&USUAL) {
        let at = at.wrapping_add(2);
        if let Some(field) = options.get_mut(at..).and_then(|o| o.first_chunk_mut::<4>()) {
            let old = u32::from_be_bytes(*field);
            let new = old.wrapping_add(by);
            *field = new.to_be_bytes();
            return delta.word32(old.to_be(), new.to_be());
        }
    }
    if options.is_empty() {
        return delta;
    }
    shift_hidden_timestamp(options, by, at, delta)
}

#[cold]
#[inline(never)]
fn shift_hidden_timestamp(options: &mut [u8], by: u32, at: usize, delta: Delta) -> Delta {
    let before = csum_partial(options, 0);
    for found in Options::new(options) {
        if found.kind == option::TIMESTAMP && found.len == option::TIMESTAMP_LEN {
            if let Some(field) = options
                .get_mut(found.at.wrapping_add(at)..)
                .and_then(|o| o.first_chunk_mut::<4>())
            {
                *field = u32::from_be_bytes(*field).wrapping_add(by).to_be_bytes();
            }
            break;
        }
    }
    delta.word32(before, csum_partial(options, 0))
}

/// SACK blocks, and the MSS of a SYN.
#[cold]
#[inline(never)]
fn rare_options(
    options: &mut [u8],
    syn: bool,
    space: &Space,
    less_mss: u16,
    delta: Delta,
) -> Delta {
    let before = csum_partial(options, 0);
    for found in Options::new(options) {
        let Some(bytes) = options
            .get_mut(found.at..)
            .and_then(|o| o.get_mut(..found.len))
        else {
            break;
        };
        match (found.kind, bytes) {
            (option::SACK, [_, _, edges @ ..]) => {
                for edge in edges.chunks_exact_mut(4) {
                    if let Some(edge) = edge.first_chunk_mut::<4>() {
                        *edge = space.to_client(u32::from_be_bytes(*edge)).to_be_bytes();
                    }
                }
            }
            (option::MSS, [_, _, high, low]) if syn => {
                let mss = u16::from_be_bytes([*high, *low]);
                [*high, *low] = lowered(mss, less_mss).to_be_bytes();
            }
            _ => {}
        }
    }
    delta.word32(before, csum_partial(options, 0))
}

/// An MSS that leaves room for `less` bytes, unless it is very small already.
const fn lowered(mss: u16, less: u16) -> u16 {
    const LEAST: u16 = 88;

    let new = mss.saturating_sub(less);
    if new < LEAST {
        mss
    } else {
        new
    }
}

/// The value of the timestamp option in a header with all its options.
pub fn timestamp_value(header: &[u8]) -> Option<u32> {
    let options = header.get(HEADER_LEN..)?;
    let found = Options::new(options)
        .find(|o| o.kind == option::TIMESTAMP && o.len == option::TIMESTAMP_LEN)?;
    let value = options.get(found.at.wrapping_add(2)..)?.first_chunk()?;
    Some(u32::from_be_bytes(*value))
}

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its kind.
    pub kind: u8,
    /// Where it begins.
    pub at: usize,
    /// How long it is: with kind and length, all inside the options.
    pub len: usize,
}

/// The options of a header, without padding. Ends where they make no sense.
#[derive(Clone, Debug)]
pub struct Options {
    bytes: [u8; MAX_HEADER - HEADER_LEN],
    len: usize,
    at: usize,
}

impl Options {
    /// Walks what follows the fixed part of a header. Works on a copy, so that they may be changed meanwhile.
    pub fn new(options: &[u8]) -> Self {
        let mut bytes = [0; MAX_HEADER - HEADER_LEN];
        for (to, from) in bytes.iter_mut().zip(options) {
            *to = *from;
        }
        Options {
            bytes,
            len: options.len().min(bytes.len()),
            at: 0,
        }
    }
}

impl Iterator for Options {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let bytes = self.bytes.get(..self.len)?.get(self.at..)?;
            let (kind, rest) = bytes.split_first()?;
            match *kind {
                option::END => return None,
                option::NOP => self.at = self.at.wrapping_add(1),
                kind => {
                    let len = usize::from(*rest.first()?);
                    if !(2..=bytes.len()).contains(&len) {
                        return None;
                    }
                    let at = self.at;
                    self.at = at.wrapping_add(len);
                    return Some(Found { kind, at, len });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;
    use std::{
        vec,
        vec::Vec, //
    };

    fn header(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut h = vec![0; HEADER_LEN];
        h[..2].copy_from_slice(&1000_u16.to_be_bytes());
        h[2..4].copy_from_slice(&80_u16.to_be_bytes());
        h[4..8].copy_from_slice(&0x1000_0001_u32.to_be_bytes());
        h[8..12].copy_from_slice(&0x2000_0001_u32.to_be_bytes());
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        h[12] = (((HEADER_LEN + options.len()) / 4) as u8) << 4;
        h[13] = flags;
        h.extend(options);
        h
    }

    fn fill(family: Family, src: &Addr, dst: &Addr, segment: &mut [u8]) {
        segment[16..18].fill(0);
        let sum = checksum::csum_partial(segment, 0);
        let check = checksum::fold(checksum::pseudo(
            family,
            src,
            dst,
            6,
            segment.len() as u32,
            sum,
        ));
        segment[16..18].copy_from_slice(&check.to_ne_bytes());
    }

    fn is_right(family: Family, src: &Addr, dst: &Addr, segment: &[u8]) -> bool {
        let sum = checksum::csum_partial(segment, 0);
        checksum::fold_sum(checksum::pseudo(
            family,
            src,
            dst,
            6,
            segment.len() as u32,
            sum,
        )) == 0xffff
    }

    const TS: [u8; 12] = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0];

    #[test]
    fn isn_rises_on_a_tuple_and_differs_between_them() {
        let (l, r) = (Addr([1, 0, 0, 0]), Addr([2, 0, 0, 0]));
        let key = [7, 8];
        let at = |ports, ms: u64| initial_seq(&key, &l, &r, ports, ms * 1_000_000);
        for ms in [1, 100, 60_000, 30 * 60_000] {
            assert!((at(5, ms).wrapping_sub(at(5, 0)) as i32) > 0, "{ms}");
        }
        assert_ne!(at(5, 0), at(6, 0));
        assert_ne!(at(5, 0), initial_seq(&[7, 9], &l, &r, 5, 0));
    }

    #[test]
    fn numbers_rise_from_connection_to_connection() {
        for next in [0, 5, u32::MAX, 1 << 31] {
            // A slow one: the clock is ahead.
            for ahead in [1, 2, 60_000_000, i32::MAX as u32] {
                let clock = next.wrapping_add(ahead);
                assert!(!outran(next, clock));
                assert_eq!(seq_after(next, clock), clock);
            }
            // One that has sent up to two gigabytes more than the clock has ticks.
            for behind in [0, 1, 100_000_000, 1 << 31] {
                let clock = next.wrapping_sub(behind);
                assert!(outran(next, clock));
                let first = seq_after(next, clock);
                assert!(first.wrapping_sub(next) as i32 > 0);
            }
            // More than that, and the clock is ahead again.
            let clock = next.wrapping_sub(3_000_000_000);
            assert!(seq_after(next, clock).wrapping_sub(next) as i32 > 0);
        }
    }

    #[test]
    fn timestamps_rise_for_an_address() {
        let l = Addr([1, 0, 0, 0]);
        let at = |ms: u64| timestamp(&[7, 8], &l, ms * 1_000_000);
        assert_eq!(at(5).wrapping_sub(at(3)), 2);
        assert_eq!(at(5).wrapping_sub(at(0)), 5);
        assert_ne!(timestamp(&[7, 8], &Addr([2, 0, 0, 0]), 0), at(0));
    }

    #[test]
    fn a_request_and_its_answer() {
        let space = Space {
            delta: 0x4000_0000,
            first: 0,
            header: 0,
        };
        let (a, b, c, d) = (
            Addr([1, 0, 0, 0]),
            Addr([2, 0, 0, 0]),
            Addr([3, 0, 0, 0]),
            Addr([4, 0, 0, 0]),
        );
        let mut h = header(Flags::ACK, &TS);
        fill(Family::V4, &a, &b, &mut h);
        let ends = Ends {
            family: Family::V4,
            old: (&a, &b),
            new: (&c, &d),
            ports: Ports {
                src: 5_u16.to_be(),
                dst: 6_u16.to_be(),
            },
        };
        rewrite(
            &mut h,
            &ends,
            &Translate::Request { space, ts: 0x10 },
            false,
        )
        .unwrap();
        assert!(is_right(Family::V4, &c, &d, &h));
        assert_eq!(h[4..8], [0x50, 0, 0, 1]);
        assert_eq!(h[8..12], [0x20, 0, 0, 1]);
        assert_eq!(h[24..28], [0, 0, 1, 0x10]);
        assert_eq!(h[28..32], [0, 0, 2, 0]);

        let sack = [1, 1, 5, 10, 0x40, 0, 0, 9, 0x40, 0, 0, 20];
        let mut h = header(Flags::ACK, &[&TS[..], &sack].concat());
        fill(Family::V4, &a, &b, &mut h);
        let how = Translate::Reply {
            space,
            ts: 0x10,
            less_mss: 8,
        };
        rewrite(&mut h, &ends, &how, false).unwrap();
        assert!(is_right(Family::V4, &c, &d, &h));
        assert_eq!(h[8..12], [0xe0, 0, 0, 1]);
        assert_eq!(h[28..32], [0, 0, 1, 0xf0]);
        assert_eq!(h[36..44], [0, 0, 0, 9, 0, 0, 0, 20]);
    }

    #[test]
    fn the_mss_of_a_syn_only() {
        let (a, b) = (Addr([1, 0, 0, 0]), Addr([2, 0, 0, 0]));
        let ends = Ends {
            family: Family::V4,
            old: (&a, &b),
            new: (&b, &a),
            ports: Ports { src: 1, dst: 2 },
        };
        let how = |less_mss| Translate::Reply {
            space: Space::default(),
            ts: 0,
            less_mss,
        };
        let mss = [2, 4, 0x05, 0xb4];
        for (flags, less, want) in [
            (Flags::SYN | Flags::ACK, 8, 1452),
            (Flags::SYN | Flags::ACK, 20, 1440),
            (Flags::SYN | Flags::ACK, 1400, 1460),
            (Flags::ACK, 8, 1460),
        ] {
            let mut h = header(flags, &mss);
            fill(Family::V4, &a, &b, &mut h);
            rewrite(&mut h, &ends, &how(less), false).unwrap();
            assert_eq!(u16::from_be_bytes([h[22], h[23]]), want);
            assert!(is_right(Family::V4, &b, &a, &h));
        }
    }

    #[test]
    fn a_header_in_front() {
        let space = Space {
            delta: 100,
            first: u32::MAX - 1,
            header: 28,
        };
        // The SYN comes before, everything else behind.
        assert_eq!(space.to_server(u32::MAX - 2), 97);
        assert_eq!(space.to_server(u32::MAX - 1), 98 + 28);
        assert_eq!(space.to_server(5), 105 + 28);
        assert_eq!(space.to_client(98), u32::MAX - 1);
        assert_eq!(space.to_client(99), u32::MAX - 1);
        assert_eq!(space.to_client(98 + 28), u32::MAX - 1);
        assert_eq!(space.to_client(99 + 28), u32::MAX);
        assert_eq!(space.to_client(105 + 28), 5);
        assert!(!space.has_header(98) && !space.has_header(98 + 27) && space.has_header(98 + 28));
    }

    #[test]
    fn options_that_make_no_sense_end() {
        for bytes in [&[8][..], &[8, 0], &[8, 1, 1], &[8, 10, 0], &[0, 8, 2]] {
            assert_eq!(Options::new(bytes).next(), None, "{bytes:?}");
        }
        let all: Vec<_> = Options::new(&[1, 2, 4, 5, 6, 1, 4, 2, 0, 9])
            .map(|o| (o.kind, o.at, o.len))
            .collect();
        assert_eq!(all, [(2, 1, 4), (4, 6, 2)]);
        assert_eq!(Options::new(&[1; 40]).next(), None);
    }

    #[test]
    fn timestamp_values() {
        assert_eq!(timestamp_value(&header(2, &TS)), Some(0x100));
        let odd = [2, 4, 5, 0xb4, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0];
        assert_eq!(timestamp_value(&header(2, &odd)), Some(7));
        assert_eq!(timestamp_value(&header(2, &[])), None);
        assert_eq!(timestamp_value(&[1, 2]), None);
    }

    fn anything() -> impl Strategy<Value = (Vec<u8>, u8)> {
        (prop::collection::vec(any::<u8>(), 0..=40), any::<u8>())
    }

    proptest! {
        /// Whatever the options are, the checksum stays right, and both ways cancel out.
        #[test]
        fn checksums_hold((options, flags) in anything(), delta: u32, ts: u32, payload: [u8; 7], v6: bool) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let cut = |w: [u32; 4]| if v6 { Addr(w) } else { Addr::v4(w[0]) };
            let (a, b, c, d) = (cut([1, 9, 3, 4]), cut([2, 8, 1, 1]), cut([5, 4, 1, 7]), cut([6, 6, 6, 6]));
            let mut segment = header(flags, &options);
            segment.extend(payload);
            fill(family, &a, &b, &mut segment);
            let before = segment.clone();
            let space = Space { delta, first: 0, header: 0 };
            let ends = |old, new| Ends { family, old, new, ports: Ports { src: 77, dst: 99 } };
            let there = Translate::Request { space, ts };
            let len = Tcp::parse(&segment).unwrap().header_len();
            rewrite(&mut segment[..len], &ends((&a, &b), (&c, &d)), &there, false).unwrap();
            prop_assert!(is_right(family, &c, &d, &segment));
            let back = Translate::Request { space: Space { delta: delta.wrapping_neg(), ..space }, ts: ts.wrapping_neg() };
            let old = Ports::from_bytes([before[0], before[1], before[2], before[3]]);
            let home = Ends { ports: old, ..ends((&c, &d), (&a, &b)) };
            rewrite(&mut segment[..len], &home, &back, false).unwrap();
            prop_assert_eq!(&segment[..16], &before[..16]);
            prop_assert_eq!(&segment[18..], &before[18..]);

            let how = Translate::Reply { space, ts, less_mss: 8 };
            rewrite(&mut segment[..len], &ends((&a, &b), (&c, &d)), &how, false).unwrap();
            prop_assert!(is_right(family, &c, &d, &segment));
        }

        /// With a partial checksum only the addresses are in the sum.
        #[test]
        fn partial_checksums((options, flags) in anything(), delta: u32, ts: u32) {
            let (a, b, c, d) = (Addr([1, 0, 0, 0]), Addr([2, 0, 0, 0]), Addr([3, 0, 0, 0]), Addr([4, 0, 0, 0]));
            let mut h = header(flags, &options);
            let len = h.len() as u32;
            let seed = |s: &Addr, d: &Addr| checksum::fold_sum(checksum::pseudo(Family::V4, s, d, 6, len, 0));
            h[16..18].copy_from_slice(&seed(&a, &b).to_ne_bytes());
            let ends = Ends { family: Family::V4, old: (&a, &b), new: (&c, &d), ports: Ports { src: 1, dst: 2 } };
            let space = Space { delta, first: 0, header: 0 };
            rewrite(&mut h, &ends, &Translate::Request { space, ts }, true).unwrap();
            prop_assert_eq!(u16::from_ne_bytes([h[16], h[17]]) % 0xffff, seed(&c, &d) % 0xffff);
        }

        /// Nothing that is too short panics or is changed.
        #[test]
        fn short_headers(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            let mut h = bytes.clone();
            let a = Addr::ZERO;
            let ends = Ends { family: Family::V6, old: (&a, &a), new: (&a, &a), ports: Ports { src: 1, dst: 2 } };
            if rewrite(&mut h, &ends, &Translate::Request { space: Space::default(), ts: 1 }, false).is_err() {
                prop_assert_eq!(h, bytes);
            }
        }

        /// Numbers go there and back, header or not.
        #[test]
        fn spaces(delta: u32, first: u32, header in 0..108_u32, ahead in 0..1_000_000_u32) {
            let space = Space { delta, first, header };
            let seq = first.wrapping_add(ahead);
            prop_assert_eq!(space.to_client(space.to_server(seq)), seq);
            prop_assert_eq!(space.to_client(space.to_server(first.wrapping_sub(1))), first.wrapping_sub(1));
            prop_assert!(space.has_header(space.to_server(seq)));
        }
    }
}
