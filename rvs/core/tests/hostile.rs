// SPDX-License-Identifier: GPL-2.0-only

//! Any bytes at all, as if they were packets: nothing panics, every length that comes out lies within what went in, what is
//! refused is left as it was, and what is rewritten changes nowhere else.
//!
//! Overflow checks are on, so that what would trap in the kernel fails here. `PROPTEST_CASES=100000` looks longer.

use proptest::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    nat::{
        self,
        CsumMode,
        L4Result,
        Side, //
    },
    proto::{
        has_ports,
        sctp,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    wire::{
        icmp::Icmp,
        icmpv6::Icmpv6,
        ipv4::{
            self,
            Ipv4, //
        },
        ipv6::{
            self,
            find_transport,
            Ipv6, //
        },
        outer::Inner,
        tcp::Tcp,
        Ports,
        Source, //
    },
};

/// Bytes of which some mean something to a parser: versions, lengths, protocols.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        4 => any::<u8>(),
        2 => Just(0),
        1 => Just(0xff),
        3 => prop::sample::select(&[0x45_u8, 0x46, 0x4f, 0x60, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132][..]),
    ]
}

/// A packet that is one at least at first sight, mostly.
fn packet(most: usize) -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec(byte(), 0..most), 0..4_u8).prop_map(|(mut bytes, kind)| {
        if let Some(first) = bytes.first_mut() {
            match kind {
                0 => *first = 0x45,
                1 => *first = 0x40 | (*first & 15),
                2 => *first = 0x60,
                _ => {}
            }
        }
        bytes
    })
}

/// The places where two of the same length differ.
fn changed(before: &[u8], after: &[u8]) -> Vec<usize> {
    assert_eq!(before.len(), after.len());
    (0..before.len())
        .filter(|n| before[*n] != after[*n])
        .collect()
}

/// Where protocol and transport header of a packet are, as the data path finds them.
fn transport(p: &[u8]) -> Option<(u8, usize)> {
    if let Some(iph) = Ipv4::parse(p) {
        return Some((iph.protocol(), iph.header_len()));
    }
    let t = find_transport(p, 0).ok()?;
    Some((t.protocol, t.offset))
}

proptest! {
    /// From the first byte to the state machines.
    #[test]
    fn a_packets_way_through_the_parsers(p in packet(160)) {
        if let Some(iph) = Ipv4::parse(&p) {
            prop_assert!((20..=60).contains(&iph.header_len()));
            prop_assert!(iph.frag_offset() % 8 == 0);
            prop_assert_eq!(iph.is_fragment(), iph.more_fragments() || iph.frag_offset() != 0);
            let whole = p.len() >= iph.header_len();
            prop_assert_eq!(ipv4::header_checksum(&p).is_some(), whole);
            prop_assert!(whole || !ipv4::checksum_ok(&p));
        }
        if let Some(iph) = Ipv6::parse(&p) {
            prop_assert!(iph.flow_label() < 1 << 20);
            let t = find_transport(&p[..], 0);
            if !ipv6::is_ext_header(iph.next_header()) {
                prop_assert_eq!(t.map(|t| t.offset), Ok(40));
            }
        }
        if let Some((proto, at)) = transport(&p) {
            let l4 = p.get(at..).unwrap_or_default();
            prop_assert_eq!(Ports::parse(l4).is_some(), l4.len() >= 4);
            prop_assert_eq!(Source::read::<4>(&p[..], at).is_some(), l4.len() >= 4);
            if let Some(th) = Tcp::parse(l4) {
                prop_assert!(th.header_len() <= 60);
                for table in [true, false] {
                    th.flags().may_schedule(table);
                }
            }
            if let Some(event) = sctp::event(&p[..], at) {
                prop_assert!(l4.len() >= 16, "{event:?} without a chunk");
            }
            if let Some(icmp) = Icmp::parse(l4) {
                prop_assert!(!icmp.is_related_error() || [3, 4, 11].contains(&icmp.kind()));
            }
            if let Some(icmp) = Icmpv6::parse(l4) {
                prop_assert_eq!(icmp.is_error(), icmp.kind() < 128);
            }
            prop_assert!(!has_ports(proto) || [IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP].contains(&proto));
        }
    }

    /// An offset that no packet has is not there, and nothing else.
    #[test]
    fn offsets_out_of_this_world(p in packet(80), near in 0..40_usize) {
        for at in [p.len().wrapping_add(near), usize::MAX - near, (usize::MAX / 2) + near] {
            prop_assert_eq!(Source::read::<1>(&p[..], at), None);
            prop_assert_eq!(sctp::event(&p[..], at), None);
            prop_assert!(find_transport(&p[..], at).is_err());
        }
    }

    /// What is too short is refused and left alone; otherwise a port and a checksum change.
    #[test]
    fn ports_of_anything(
        proto in prop_oneof![any::<u8>(), prop::sample::select(&[6_u8, 17, 132][..])],
        l4 in prop::collection::vec(byte(), 0..48),
        port: u16,
        addrs: [[u8; 16]; 2],
        dst: bool,
        v6: bool,
        partial: bool,
        lens: [u16; 2],
    ) {
        let [old, new] = addrs.map(Addr::from_bytes);
        let family = if v6 { Family::V6 } else { Family::V4 };
        let side = if dst { Side::Dst } else { Side::Src };
        let mode = if partial {
            CsumMode::Partial { old_len: lens[0], new_len: lens[1] }
        } else {
            CsumMode::None
        };
        let mut after = l4.clone();
        let done = nat::rewrite_l4(proto, &mut after, side, port, &old, &new, family, mode);
        let at = if dst { 2..4 } else { 0..2 };
        let (needs, check) = match proto {
            IPPROTO_TCP => (20, 16..18),
            IPPROTO_UDP => (8, 6..8),
            IPPROTO_SCTP => (12, 0..0),
            _ => (0, 0..0),
        };
        prop_assert_eq!(done.is_ok(), l4.len() >= needs);
        let mut places = changed(&l4, &after);
        places.retain(|n| !at.contains(n) && !check.contains(n));
        prop_assert!(places.is_empty() , "{places:?}");
        match done {
            Ok(L4Result::NoPorts | L4Result::Unchanged) | Err(_) => prop_assert_eq!(&after, &l4),
            Ok(L4Result::NeedsFullUdp) => prop_assert!(proto == IPPROTO_UDP && after[6..8] == [0, 0]),
            // A UDP checksum that is there stays there.
            Ok(L4Result::Done) if proto == IPPROTO_UDP && !partial => {
                prop_assert!(after[6..8] != [0, 0]);
            }
            Ok(_) => prop_assert_eq!(Ports::parse(&after).map(|p| if dst { p.dst } else { p.src }), Some(port)),
        }
    }

    /// Addresses outside and inside, a port and checksums: nothing beyond.
    #[test]
    fn icmp_errors_of_anything(
        p in packet(140),
        at in 0..150_usize,
        ports_at in prop::option::of(0..150_usize),
        addr: [u8; 16],
        port: u16,
        dst: bool,
        whole: bool,
    ) {
        let addr = Addr::from_bytes(addr);
        let side = if dst { Side::Dst } else { Side::Src };
        let mut after = p.clone();
        let l4_at = ports_at.unwrap_or(at + 8 + p.get(at + 8).map_or(0, |b| usize::from(b & 15) * 4));
        match nat::rewrite_icmp_v4(&mut after, at, l4_at, side, &addr, port, whole) {
            Err(_) => prop_assert_eq!(&after, &p),
            Ok(()) => {
                let inner = at + 8;
                let len = usize::from(p[inner] & 15) * 4;
                let mut places = changed(&p, &after);
                places.retain(|n| {
                    let known = [10..20, at + 2..at + 4, inner + 10..inner + 20, inner + len..inner + len + 4];
                    !known.iter().any(|r| r.contains(n))
                });
                prop_assert!(places.is_empty(), "{places:?}");
                prop_assert!(ipv4::checksum_ok(&after) && ipv4::checksum_ok(&after[inner..]));
            }
        }
        let mut after = p.clone();
        match nat::rewrite_icmp_v6(&mut after, at, ports_at, side, &addr, port) {
            Err(_) => prop_assert_eq!(&after, &p),
            Ok(()) => {
                let mut places = changed(&p, &after);
                places.retain(|n| {
                    let ports = ports_at.map_or(0..0, |at| at..at + 4);
                    ![8..40, at + 8..at + 40, ports].iter().any(|r| r.contains(n))
                });
                prop_assert!(places.is_empty(), "{places:?}");
            }
        }
    }

    /// The outer header of a tunnel is one, whatever is inside.
    #[test]
    fn outer_headers_of_anything(inner4: [u8; 20], inner6: [[u8; 20]; 2], proto: u8, ends: [[u8; 16]; 2]) {
        let [src, dst] = ends.map(Addr::from_bytes);
        let mut six = [0; 40];
        six[..20].copy_from_slice(&inner6[0]);
        six[20..].copy_from_slice(&inner6[1]);
        for inner in [Inner::v4(&inner4), Inner::v6(&six)] {
            let header = inner.in_v4(proto, &src, &dst);
            let iph = Ipv4::parse(&header).expect("an IPv4 header");
            prop_assert_eq!((iph.header_len(), iph.protocol(), iph.ttl()), (20, proto, inner.ttl));
            prop_assert_eq!((iph.src_be(), iph.dst_be()), (src.v4_be(), dst.v4_be()));
            prop_assert_eq!(iph.dont_fragment(), inner.df);
            prop_assert!(!iph.is_fragment());
            // "Congestion experienced" is what the way does to a packet, not what it starts with.
            prop_assert!(iph.tos() & 3 != 3 && iph.tos() >> 2 == inner.tos >> 2);
            let header = inner.in_v6(proto, &src, &dst);
            let iph = Ipv6::parse(&header).expect("an IPv6 header");
            prop_assert_eq!((iph.next_header(), iph.hop_limit(), iph.flow_label()), (proto, inner.ttl, 0));
            prop_assert_eq!((iph.src(), iph.dst()), (src, dst));
            prop_assert!(iph.traffic_class() & 3 != 3);
        }
    }
}
