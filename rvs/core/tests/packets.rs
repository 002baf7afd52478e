// SPDX-License-Identifier: GPL-2.0-only

//! Headers, checksums and rewriting, on bytes.

use proptest::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    checksum::{
        self,
        Delta, //
    },
    nat::{
        self,
        CsumMode,
        L4Result,
        Side,
        Truncated, //
    },
    proto::{
        IPPROTO_ICMP,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    wire::{
        icmp::{
            self,
            Icmp, //
        },
        icmpv6::Icmpv6,
        ipv4::{
            self,
            Ipv4, //
        },
        ipv6::{
            self,
            find_transport,
            Ipv6,
            Malformed,
            Transport, //
        },
        sctp::Sctp,
        tcp::Tcp,
        udp::Udp,
        Ports,
        Source, //
    },
};

/// The checksum field's value as RFC 1071 has it: 16-bit big-endian words, one by one.
fn naive_checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u64;
    for pair in bytes.chunks(2) {
        sum += (u64::from(pair[0]) << 8) | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be()
}

fn sum(bytes: &[u8]) -> u16 {
    checksum::fold(checksum::csum_partial(bytes, 0))
}

/// The pseudo header as bytes.
fn pseudo_bytes(family: Family, src: &Addr, dst: &Addr, proto: u8, len: u32) -> Vec<u8> {
    let n = family.addr_len();
    let mut b = Vec::new();
    b.extend(&src.bytes()[..n]);
    b.extend(&dst.bytes()[..n]);
    match family {
        Family::V4 => {
            b.extend([0, proto]);
            b.extend((len as u16).to_be_bytes());
        }
        Family::V6 => {
            b.extend(len.to_be_bytes());
            b.extend([0, 0, 0, proto]);
        }
    }
    b
}

/// The layer 4 checksum in full; the field must hold zero.
fn full_l4_checksum(family: Family, src: &Addr, dst: &Addr, proto: u8, l4: &[u8]) -> u16 {
    let mut b = pseudo_bytes(family, src, dst, proto, l4.len() as u32);
    b.extend(l4);
    naive_checksum(&b)
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> Addr {
    Addr::from_slice(Family::V4, &[a, b, c, d]).unwrap()
}

#[test]
fn rfc1071_example() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(
        checksum::fold_sum(checksum::csum_partial(&bytes, 0)),
        0xddf2_u16.to_be()
    );
    assert_eq!(sum(&bytes), 0x220d_u16.to_be());
}

#[test]
fn known_ipv4_header() {
    let mut h = [
        0x45, 0x00, 0x00, 0x73, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];
    // The well-known example has an identification of zero.
    h[4] = 0;
    h[5] = 0;
    assert!(ipv4::checksum_ok(&h));
    assert_eq!(ipv4::header_checksum(&h), Some(0xb861_u16.to_be()));
    let ip = Ipv4::parse(&h).unwrap();
    assert_eq!(ip.header_len(), 20);
    assert_eq!(ip.tos(), 0);
    assert_eq!(ip.total_len(), 115);
    assert_eq!(ip.id(), 0);
    assert!(ip.dont_fragment() && !ip.more_fragments() && !ip.is_fragment());
    assert_eq!(ip.frag_offset(), 0);
    assert_eq!(ip.ttl(), 64);
    assert_eq!(ip.protocol(), IPPROTO_UDP);
    assert_eq!(ip.check(), 0xb861_u16.to_be());
    assert_eq!(ip.src(), v4(192, 168, 0, 1));
    assert_eq!(ip.dst().v4_host(), 0xc0a8_00c7);

    h[10] = 0xa5;
    assert!(!ipv4::checksum_ok(&h));
    ipv4::fill_checksum(&mut h).unwrap();
    assert!(ipv4::checksum_ok(&h));
    Ipv4::parse_mut(&mut h).unwrap().decrease_ttl();
    assert_eq!(h[8], 63);
    assert!(ipv4::checksum_ok(&h));
}

#[test]
fn ipv4_refuses() {
    let good = [0x45_u8; 20];
    assert!(Ipv4::parse(&good).is_some());
    assert!(Ipv4::parse(&good[..19]).is_none());
    assert!(Ipv4::parse(&[]).is_none());
    for first in [0x44, 0x40, 0x65, 0x05] {
        let mut bad = good;
        bad[0] = first;
        assert!(Ipv4::parse(&bad).is_none());
        assert!(Ipv4::parse_mut(&mut bad).is_none());
        assert_eq!(ipv4::header_checksum(&bad), None);
        assert_eq!(ipv4::fill_checksum(&mut bad), None);
        assert_eq!(&bad[1..], &good[1..]);
    }
    // Options that are not there.
    let mut cut = [0x46; 23];
    assert!(Ipv4::parse(&cut).is_some());
    assert_eq!(ipv4::fill_checksum(&mut cut), None);
    assert!(!ipv4::checksum_ok(&cut));
    assert_eq!(cut, [0x46; 23]);
}

#[test]
fn ipv4_fragments() {
    let mut h = [0x45_u8; 20];
    (h[6], h[7]) = (0x20, 0x00);
    let ip = Ipv4::parse(&h).unwrap();
    assert!(ip.is_fragment() && ip.more_fragments() && ip.frag_offset() == 0);
    (h[6], h[7]) = (0x1f, 0xff);
    let ip = Ipv4::parse(&h).unwrap();
    assert!(ip.is_fragment() && !ip.more_fragments() && ip.frag_offset() == 65528);
}

#[test]
fn tcp_header() {
    let mut h = [
        0x30, 0x39, // source port 12345
        0x00, 0x50, // destination port 80
        0x01, 0x02, 0x03, 0x04, // sequence
        0x0a, 0x0b, 0x0c, 0x0d, // acknowledgement
        0x80, 0x12, // 32 bytes, SYN and ACK
        0xfa, 0xf0, // window
        0xbe, 0xef, // checksum
        0x00, 0x00, // urgent
    ];
    let th = Tcp::parse(&h).unwrap();
    assert_eq!(th.ports().src, 12345_u16.to_be());
    assert_eq!(th.ports().dst, 80_u16.to_be());
    assert_eq!((th.seq(), th.ack_seq()), (0x0102_0304, 0x0a0b_0c0d));
    assert_eq!(th.header_len(), 32);
    assert!(th.flags().syn() && th.flags().ack() && !th.flags().rst() && !th.flags().fin());
    assert_eq!(th.window(), 64240);
    assert_eq!(th.check(), 0xbeef_u16.to_be());
    assert!(Tcp::parse(&h[..19]).is_none());

    let mut th = Tcp::parse_mut(&mut h).unwrap();
    th.set_src(0x1122_u16.to_be());
    th.set_dst(0x3344_u16.to_be());
    th.set_check(0x5566_u16.to_be());
    assert_eq!(&h[..5], [0x11, 0x22, 0x33, 0x44, 0x01]);
    assert_eq!(&h[15..18], [0xf0, 0x55, 0x66]);
}

#[test]
fn udp_sctp_and_icmp_headers() {
    let h = [
        0x00, 0x35, 0x30, 0x39, 0x00, 0x08, 0xca, 0xfe, 0, 0, 0x12, 0x34,
    ];
    let uh = Udp::parse(&h).unwrap();
    assert_eq!(uh.ports().src, 53_u16.to_be());
    assert_eq!(uh.length(), 8);
    assert_eq!(uh.check(), 0xcafe_u16.to_be());
    assert!(Udp::parse(&h[..7]).is_none());

    let sh = Sctp::parse(&h).unwrap();
    assert_eq!(sh.ports, uh.ports());
    assert_eq!(sh.vtag, 0x0008_cafe_u32.to_be());
    assert_eq!(sh.checksum, 0x1234_u32.to_be());
    assert!(Sctp::parse(&h[..11]).is_none());

    let h = [3, 4, 0xab, 0xcd, 0, 0, 0x05, 0x78];
    let ih = Icmp::parse(&h).unwrap();
    assert_eq!((ih.kind(), ih.code(), ih.mtu()), (3, 4, 1400));
    assert_eq!(ih.check(), 0xabcd_u16.to_be());
    assert!(ih.is_related_error());
    assert!(Icmp::parse(&h[..7]).is_none());
    let related: Vec<u8> = (0..=255)
        .filter(|kind| Icmp::new(&[*kind, 0, 0, 0, 0, 0, 0, 0]).is_related_error())
        .collect();
    assert_eq!(related, [3, 4, 11]);

    let h = [2, 0, 0xab, 0xcd, 0, 1, 0x05, 0x00];
    let ih = Icmpv6::parse(&h).unwrap();
    assert_eq!((ih.kind(), ih.code(), ih.mtu()), (2, 0, 0x10500));
    assert!(ih.is_error());
    assert!(!Icmpv6::new(&[128, 0, 0, 0, 0, 0, 0, 0]).is_error());
    assert!(Icmpv6::parse(&h[..7]).is_none());
}

#[test]
fn ports() {
    let p = Ports::parse(&[0, 80, 1, 2, 9]).unwrap();
    assert_eq!((p.src, p.dst), (80_u16.to_be(), 258_u16.to_be()));
    assert_eq!(p.bytes(), [0, 80, 1, 2]);
    assert_eq!(p.swapped().bytes(), [1, 2, 0, 80]);
    assert_eq!(Ports::parse(&[0, 80, 1]), None);
}

/// An IPv6 header and what follows it.
fn v6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut p = vec![0x60, 0, 0, 0];
    p.extend((rest.len() as u16).to_be_bytes());
    p.extend([next, 64]);
    p.extend((0..16).map(|i| 0x20 + i));
    p.extend((0..16).map(|i| 0x40 + i));
    p.extend(rest);
    p
}

fn at(protocol: u8, offset: usize) -> Result<Transport, Malformed> {
    Ok(Transport {
        protocol,
        offset,
        frag_offset: 0,
        is_fragment: false,
    })
}

#[test]
fn ipv6_header() {
    let mut p = v6(6, &[0; 20]);
    (p[0], p[1], p[2], p[3]) = (0x6a, 0xbc, 0xde, 0xf1);
    let ip = Ipv6::parse(&p).unwrap();
    assert_eq!(ip.traffic_class(), 0xab);
    assert_eq!(ip.flow_label(), 0xcdef1);
    assert_eq!(ip.payload_len(), 20);
    assert_eq!((ip.next_header(), ip.hop_limit()), (6, 64));
    assert_eq!(ip.src().bytes()[0], 0x20);
    assert_eq!(ip.dst().bytes()[15], 0x4f);
    let (src, dst) = (ip.src(), ip.dst());
    let mut ip = Ipv6::parse_mut(&mut p).unwrap();
    ip.set_src(&dst);
    ip.set_dst(&src);
    ip.decrease_hop_limit();
    let ip = Ipv6::parse(&p).unwrap();
    assert_eq!((ip.src(), ip.dst(), ip.hop_limit()), (dst, src, 63));
    assert_eq!((ip.next_header(), p[40]), (6, 0));
    assert!(Ipv6::parse(&p[..39]).is_none());
    p[0] = 0x45;
    assert!(Ipv6::parse(&p).is_none());
}

#[test]
fn ipv6_extension_headers() {
    assert_eq!(find_transport(&v6(6, &[])[..], 0), at(6, 40));
    assert_eq!(find_transport(&v6(58, &[0; 8])[..], 0), at(58, 40));
    // Hop-by-hop of 8 and destination options of 16 bytes.
    let opts: Vec<u8> = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &[17, 1], &[0; 14]].concat();
    assert_eq!(find_transport(&v6(0, &opts)[..], 0), at(17, 64));
    // Not at the start.
    let embedded = [vec![0xa5; 48], v6(0, &opts)].concat();
    assert_eq!(find_transport(&embedded[..], 48), at(17, 112));
    // Routing; AH counts in units of four.
    assert_eq!(
        find_transport(&v6(43, &[6, 0, 0, 0, 0, 0, 0, 0])[..], 0),
        at(6, 48)
    );
    let ah = [&[6, 1][..], &[0; 10]].concat();
    assert_eq!(find_transport(&v6(51, &ah)[..], 0), at(6, 52));
    // Nothing follows.
    assert_eq!(find_transport(&v6(59, &[])[..], 0), at(59, 40));
    // ESP is no extension header here.
    assert_eq!(find_transport(&v6(50, &[])[..], 0), at(50, 40));
}

#[test]
fn ipv6_fragments() {
    let fragment = |next, offset: u16| {
        v6(
            44,
            &[next, 0, (offset >> 8) as u8, offset as u8, 0, 0, 0, 1],
        )
    };
    // The first one, with more to come.
    assert_eq!(
        find_transport(&fragment(17, 1)[..], 0),
        Ok(Transport {
            protocol: 17,
            offset: 48,
            frag_offset: 0,
            is_fragment: true
        })
    );
    // A later one.
    assert_eq!(
        find_transport(&fragment(17, 1448 | 1)[..], 0),
        Ok(Transport {
            protocol: 17,
            offset: 0,
            frag_offset: 1448,
            is_fragment: true
        })
    );
    // A later one whose extension headers are elsewhere.
    assert_eq!(find_transport(&fragment(60, 1448)[..], 0), Err(Malformed));
}

#[test]
fn ipv6_malformed() {
    let opts = [17, 0, 1, 4, 0, 0, 0, 0];
    let whole = v6(0, &opts);
    assert!(find_transport(&whole[..], 0).is_ok());
    for len in 0..whole.len() {
        assert_eq!(find_transport(&whole[..len], 0), Err(Malformed), "{len}");
    }
    assert_eq!(find_transport(&whole[..], usize::MAX), Err(Malformed));
    assert_eq!(find_transport(&whole[..], usize::MAX - 20), Err(Malformed));
    // As many headers as are followed, and one more.
    let chain = |n: usize| {
        let mut rest = Vec::new();
        for i in 0..n {
            rest.extend([if i + 1 == n { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        v6(60, &rest)
    };
    assert_eq!(find_transport(&chain(12)[..], 0), at(6, 40 + 12 * 8));
    assert_eq!(find_transport(&chain(13)[..], 0), Err(Malformed));
    assert_eq!(ipv6::MAX_EXT_HEADERS, 12);
    // Even if the one too many is a fragment header, which would end the walk.
    let mut p = chain(13);
    p[40 + 11 * 8] = 44;
    (p[40 + 12 * 8 + 2], p[40 + 12 * 8 + 3]) = (0x05, 0xa8);
    assert_eq!(find_transport(&p[..], 0), Err(Malformed));
    p[40 + 10 * 8] = 6;
    assert_eq!(find_transport(&p[..], 0), at(6, 40 + 11 * 8));
}

/// A UDP or TCP packet's layer 4 bytes with a right checksum.
fn l4(
    proto: u8,
    family: Family,
    src: &Addr,
    dst: &Addr,
    ports: [u8; 4],
    payload: &[u8],
) -> Vec<u8> {
    let mut b = ports.to_vec();
    let check_at = match proto {
        IPPROTO_TCP => {
            b.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
            16
        }
        IPPROTO_UDP => {
            b.extend((8 + payload.len() as u16).to_be_bytes());
            b.extend([0, 0]);
            6
        }
        _ => panic!(),
    };
    b.extend(payload);
    let mut check = full_l4_checksum(family, src, dst, proto, &b);
    if proto == IPPROTO_UDP {
        check = checksum::udp_nonzero(check);
    }
    b[check_at..check_at + 2].copy_from_slice(&check.to_ne_bytes());
    b
}

#[test]
fn tcp_dnat_by_hand() {
    let (client, vip, rs) = (v4(10, 0, 0, 1), v4(192, 0, 2, 1), v4(10, 1, 0, 7));
    let mut p = l4(
        IPPROTO_TCP,
        Family::V4,
        &client,
        &vip,
        [0x30, 0x39, 0, 80],
        b"GET /",
    );
    let want = l4(
        IPPROTO_TCP,
        Family::V4,
        &client,
        &rs,
        [0x30, 0x39, 0x1f, 0x90],
        b"GET /",
    );
    let port = 8080_u16.to_be();
    let done = nat::rewrite_l4(
        IPPROTO_TCP,
        &mut p,
        Side::Dst,
        port,
        &vip,
        &rs,
        Family::V4,
        CsumMode::None,
    );
    assert_eq!(done, Ok(L4Result::Done));
    assert_eq!(p, want);
}

#[test]
fn udp_without_checksum() {
    let mut p = vec![0, 53, 0x30, 0x39, 0, 9, 0, 0, b'x'];
    let (src, dst, new) = (v4(10, 0, 0, 1), v4(10, 0, 0, 2), v4(10, 0, 0, 3));
    let port = 5353_u16.to_be();
    let done = nat::rewrite_l4(
        IPPROTO_UDP,
        &mut p,
        Side::Dst,
        port,
        &dst,
        &new,
        Family::V4,
        CsumMode::None,
    );
    assert_eq!(done, Ok(L4Result::NeedsFullUdp));
    assert_eq!(p[..8], [0, 53, 0x14, 0xe9, 0, 9, 0, 0]);
    let payload = checksum::csum_partial(&p, 0);
    nat::fill_udp_checksum(&mut p, Family::V4, &src, &new, 9, payload).unwrap();
    assert_eq!(
        p,
        l4(
            IPPROTO_UDP,
            Family::V4,
            &src,
            &new,
            [0, 53, 0x14, 0xe9],
            b"x"
        )
    );
}

#[test]
#[cfg_attr(miri, ignore = "65536 packets take minutes")]
fn udp_checksum_never_becomes_none() {
    // Choose the new port so that the checksum would be zero.
    let (src, dst) = (v4(10, 0, 0, 1), v4(10, 0, 0, 2));
    let p = l4(
        IPPROTO_UDP,
        Family::V4,
        &src,
        &dst,
        [0, 53, 0x30, 0x39],
        b"zz",
    );
    let mut zeros = 0;
    for port in 0..=u16::MAX {
        let mut q = p.clone();
        let done = nat::rewrite_l4(
            IPPROTO_UDP,
            &mut q,
            Side::Dst,
            port,
            &dst,
            &dst,
            Family::V4,
            CsumMode::None,
        );
        assert_eq!(done, Ok(L4Result::Done));
        let check = Udp::parse(&q).unwrap().check();
        assert_ne!(check, 0);
        zeros += u32::from(check == 0xffff);
    }
    // Two: ports 0 and 0xffff sum to the same.
    assert!(zeros >= 1);
}

#[test]
fn sctp_ports() {
    let mut p = vec![0, 80, 0, 90, 1, 2, 3, 4, 5, 6, 7, 8];
    let (a, b) = (v4(10, 0, 0, 1), v4(10, 0, 0, 2));
    let same = nat::rewrite_l4(
        IPPROTO_SCTP,
        &mut p,
        Side::Dst,
        90_u16.to_be(),
        &a,
        &b,
        Family::V4,
        CsumMode::None,
    );
    assert_eq!(same, Ok(L4Result::Unchanged));
    let other = nat::rewrite_l4(
        IPPROTO_SCTP,
        &mut p,
        Side::Src,
        81_u16.to_be(),
        &a,
        &b,
        Family::V4,
        CsumMode::None,
    );
    assert_eq!(other, Ok(L4Result::NeedsSctpCrc));
    assert_eq!(p, [0, 81, 0, 90, 1, 2, 3, 4, 5, 6, 7, 8]);
    let esp = nat::rewrite_l4(50, &mut p, Side::Src, 1, &a, &b, Family::V4, CsumMode::None);
    assert_eq!(esp, Ok(L4Result::NoPorts));
}

#[test]
fn too_short_changes_nothing() {
    let (a, b) = (v4(10, 0, 0, 1), v4(10, 0, 0, 2));
    for (proto, len) in [(IPPROTO_TCP, 20), (IPPROTO_UDP, 8), (IPPROTO_SCTP, 12)] {
        for n in 0..len {
            let mut p = vec![0xa5; n];
            let done = nat::rewrite_l4(
                proto,
                &mut p,
                Side::Dst,
                1,
                &a,
                &b,
                Family::V4,
                CsumMode::None,
            );
            assert_eq!(done, Err(Truncated));
            assert_eq!(p, vec![0xa5; n]);
        }
    }
    let mut options_cut = [0x46; 23];
    assert_eq!(
        nat::rewrite_ipv4(&mut options_cut, Side::Src, &a),
        Err(Truncated)
    );
    assert_eq!(options_cut, [0x46; 23]);
    let mut cut = [0x60; 39];
    assert_eq!(
        nat::rewrite_l3(Family::V6, &mut cut, Side::Src, &a),
        Err(Truncated)
    );
    assert_eq!(cut, [0x60; 39]);
}

/// An IPv4 packet with right header checksum.
fn ip4(src: &Addr, dst: &Addr, proto: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let mut p = vec![0x40 | (header / 4) as u8, 0];
    p.extend(((header + payload.len()) as u16).to_be_bytes());
    p.extend([0, 7, 0x40, 0, 63, proto, 0, 0]);
    p.extend(&src.bytes()[..4]);
    p.extend(&dst.bytes()[..4]);
    p.extend(options);
    p.extend(payload);
    ipv4::fill_checksum(&mut p).unwrap();
    p
}

/// An ICMP error about `packet`, its checksum right.
fn icmp_error(packet: &[u8]) -> Vec<u8> {
    let mut m = vec![3, 4, 0, 0, 0, 0, 5, 0x78];
    m.extend(packet);
    icmp::fill_checksum(&mut m).unwrap();
    m
}

#[test]
fn icmp_errors_are_rewritten_inside_and_outside() {
    let (client, vip, rs, router) = (
        v4(10, 0, 0, 1),
        v4(192, 0, 2, 1),
        v4(10, 1, 0, 7),
        v4(10, 9, 9, 9),
    );
    for options in [&[][..], &[1, 1, 1, 0]] {
        // A router on the way to the server cannot forward client -> server.
        let inside = |dst, port: u16| {
            let [hi, lo] = port.to_be_bytes();
            ip4(
                &client,
                dst,
                IPPROTO_TCP,
                options,
                &[0x30, 0x39, hi, lo, 1, 2, 3, 4],
            )
        };
        let mut p = ip4(
            &rs,
            &client,
            IPPROTO_ICMP,
            options,
            &icmp_error(&inside(&rs, 8080)),
        );
        let want = ip4(
            &vip,
            &client,
            IPPROTO_ICMP,
            options,
            &icmp_error(&inside(&vip, 80)),
        );
        let icmp_at = 20 + options.len();
        nat::rewrite_icmp_v4(
            &mut p,
            icmp_at,
            icmp_at + 8 + icmp_at,
            Side::Src,
            &vip,
            80_u16.to_be(),
            true,
        )
        .unwrap();
        assert_eq!(p, want);

        // The client's router cannot forward virtual service -> client.
        let inside = |src, port: u16| {
            let [hi, lo] = port.to_be_bytes();
            ip4(
                src,
                &client,
                IPPROTO_UDP,
                &[],
                &[hi, lo, 0x30, 0x39, 0, 8, 0, 0],
            )
        };
        let mut p = ip4(
            &router,
            &vip,
            IPPROTO_ICMP,
            options,
            &icmp_error(&inside(&vip, 80)),
        );
        let want = ip4(
            &router,
            &rs,
            IPPROTO_ICMP,
            options,
            &icmp_error(&inside(&rs, 8080)),
        );
        nat::rewrite_icmp_v4(
            &mut p,
            icmp_at,
            icmp_at + 28,
            Side::Dst,
            &rs,
            8080_u16.to_be(),
            true,
        )
        .unwrap();
        assert_eq!(p, want);
    }
}

#[test]
fn icmp_errors_cut_short_are_left_alone() {
    let (a, b) = (v4(10, 0, 0, 1), v4(192, 0, 2, 1));
    let inside = ip4(&a, &b, IPPROTO_TCP, &[], &[0x30, 0x39, 0, 80]);
    let whole = ip4(&a, &b, IPPROTO_ICMP, &[], &icmp_error(&inside));
    for len in 0..whole.len() {
        let mut p = whole[..len].to_vec();
        let done = nat::rewrite_icmp_v4(&mut p, 20, 48, Side::Src, &b, 80, true);
        assert_eq!(done, Err(Truncated), "{len}");
        assert_eq!(p, whole[..len]);
    }
    // Offsets that make no sense.
    for icmp_at in [0, 19, 28, usize::MAX] {
        let mut p = whole.clone();
        let done = nat::rewrite_icmp_v4(&mut p, icmp_at, 48, Side::Src, &b, 80, true);
        assert_eq!(done, Err(Truncated), "{icmp_at}");
        assert_eq!(p, whole);
    }
    // A protocol without ports needs none.
    let inside = ip4(&a, &b, 50, &[], &[]);
    let mut p = ip4(&a, &b, IPPROTO_ICMP, &[], &icmp_error(&inside));
    nat::rewrite_icmp_v4(&mut p, 20, 48, Side::Src, &b, 80, true).unwrap();
    assert_eq!(
        p,
        ip4(
            &b,
            &b,
            IPPROTO_ICMP,
            &[],
            &icmp_error(&ip4(&a, &b, 50, &[], &[]))
        )
    );
}

/// Item 97: the embedded header's length is looked at once more where it is rewritten; what has changed since it was first read is
/// refused before anything else changes.
#[test]
fn icmp_errors_whose_embedded_header_changes_are_refused() {
    let (a, b) = (v4(10, 0, 0, 1), v4(192, 0, 2, 1));
    let inside = ip4(&a, &b, IPPROTO_TCP, &[1; 40], &[0x30, 0x39, 0, 80]);
    let whole = ip4(&a, &b, IPPROTO_ICMP, &[], &icmp_error(&inside));
    for ihl in 0..16_u8 {
        let mut p = whole.clone();
        p[28] = 0x40 | ihl;
        for read in 5..16_u8 {
            let mut after = p.clone();
            let l4_at = 28 + usize::from(read) * 4;
            let done = nat::rewrite_icmp_v4(&mut after, 20, l4_at, Side::Src, &b, 80, true);
            assert_eq!(done.is_ok(), ihl == read, "read {read}, now {ihl}");
            assert_eq!(done.is_ok(), after != p, "read {read}, now {ihl}");
        }
    }
}

#[test]
fn icmpv6_errors_are_rewritten_inside_and_outside() {
    let inside = v6(6, &[0x30, 0x39, 0, 80, 1, 2, 3, 4]);
    let whole = v6(58, &[vec![2, 0, 0, 0, 0, 0, 5, 0], inside].concat());
    let addr = Addr::from_bytes([0xee; 16]);
    let mut p = whole.clone();
    nat::rewrite_icmp_v6(&mut p, 48, Some(88), Side::Src, &addr, 0x1122_u16.to_be()).unwrap();
    let mut want = whole.clone();
    want[8..24].fill(0xee);
    want[48 + 24..48 + 40].fill(0xee);
    want[90..92].copy_from_slice(&[0x11, 0x22]);
    assert_eq!(p, want);

    let mut p = whole.clone();
    nat::rewrite_icmp_v6(&mut p, 48, None, Side::Dst, &addr, 0).unwrap();
    let mut want = whole.clone();
    want[24..40].fill(0xee);
    want[48 + 8..48 + 24].fill(0xee);
    assert_eq!(p, want);

    for (inner, ports) in [
        (49, None),
        (57, None),
        (usize::MAX, None),
        (48, Some(93)),
        (48, Some(usize::MAX)),
    ] {
        let mut p = whole.clone();
        let done = nat::rewrite_icmp_v6(&mut p, inner, ports, Side::Src, &addr, 0);
        assert_eq!(done, Err(Truncated));
        assert_eq!(p, whole);
    }
}

fn addr(family: Family) -> impl Strategy<Value = Addr> {
    any::<[u8; 16]>().prop_map(move |b| Addr::from_slice(family, &b).unwrap())
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn addrs() -> impl Strategy<Value = (Family, [Addr; 3])> {
    family().prop_flat_map(|f| (Just(f), [addr(f), addr(f), addr(f)]))
}

/// C's `csum_replace2()` and `csum_replace4()`, in its own steps.
mod kernel {
    pub(super) fn csum_add(a: u32, b: u32) -> u32 {
        let sum = u64::from(a) + u64::from(b);
        (sum as u32).wrapping_add((sum >> 32) as u32)
    }
    pub(super) fn csum_fold(sum: u32) -> u16 {
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
    pub(super) fn replace4(check: u16, from: u32, to: u32) -> u16 {
        let without = csum_add(!u32::from(check), !from);
        csum_fold(csum_add(without, to))
    }
    pub(super) fn replace2(check: u16, from: u16, to: u16) -> u16 {
        let add = |a: u16, b: u16| {
            let sum = u32::from(a) + u32::from(b);
            (sum as u16) + (sum >> 16) as u16
        };
        !add(add(!check, !from), to)
    }
}

proptest! {
    #[test]
    fn sums_of_anything(bytes in prop::collection::vec(any::<u8>(), 0..200), seed: u32, cut in 0..100_usize) {
        prop_assert_eq!(sum(&bytes), naive_checksum(&bytes));
        // In two parts, the first of even length.
        let (a, b) = bytes.split_at((cut * 2).min(bytes.len() & !1));
        let parts = checksum::csum_partial(b, checksum::csum_partial(a, 0));
        prop_assert_eq!(checksum::fold(parts), sum(&bytes));
        let seeded = checksum::csum_partial(&bytes, seed);
        let added = checksum::add32(checksum::csum_partial(&bytes, 0), seed);
        prop_assert_eq!(checksum::fold_sum(seeded) % 0xffff, checksum::fold_sum(added) % 0xffff);
    }

    #[test]
    fn replacing_is_as_in_c(check: u16, from: u32, to: u32, a: [u32; 4], b: [u32; 4]) {
        prop_assert_eq!(checksum::replace4(check, from, to), kernel::replace4(check, from, to));
        let (from2, to2) = (from as u16, to as u16);
        prop_assert_eq!(checksum::replace2(check, from2, to2), kernel::replace2(check, from2, to2));
        prop_assert_eq!(Delta::new().word32(from, to).update(check), kernel::replace4(check, from, to));

        let mut sum = !u32::from(check);
        for (from, to) in a.iter().zip(b) {
            sum = kernel::csum_add(kernel::csum_add(sum, !from), to);
        }
        prop_assert_eq!(checksum::replace16(check, &Addr(a), &Addr(b)), kernel::csum_fold(sum));
    }

    #[test]
    fn replacing_is_recomputing(
        mut bytes in prop::collection::vec(any::<u8>(), 8..64),
        at in any::<prop::sample::Index>(),
        to: [u8; 4],
    ) {
        // All zero has two representations of its sum.
        prop_assume!(bytes.iter().any(|b| *b != 0));
        let before = sum(&bytes);
        let at = at.index((bytes.len() - 4) / 2) * 2;
        let from: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        bytes[at..at + 4].copy_from_slice(&to);
        prop_assume!(bytes.iter().any(|b| *b != 0));
        let after = checksum::replace4(before, u32::from_ne_bytes(from), u32::from_ne_bytes(to));
        prop_assert_eq!(after, sum(&bytes));
    }

    #[test]
    fn pseudo_headers((family, [src, dst, _]) in addrs(), proto: u8, len in 0..65536_u32, sum: u32) {
        let bytes = pseudo_bytes(family, &src, &dst, proto, len);
        let got = checksum::fold(checksum::pseudo(family, &src, &dst, proto, len, sum));
        let want = checksum::fold(checksum::csum_partial(&bytes, sum));
        prop_assert_eq!(got, want);
    }

    #[test]
    fn nat_is_recomputing(
        (family, [client, vip, rs]) in addrs(),
        udp: bool,
        ports: [u8; 4],
        port: u16,
        payload in prop::collection::vec(any::<u8>(), 0..40),
        reply: bool,
    ) {
        let proto = if udp { IPPROTO_UDP } else { IPPROTO_TCP };
        let build = |addr: &Addr, ports| if reply {
            l4(proto, family, addr, &client, ports, &payload)
        } else {
            l4(proto, family, &client, addr, ports, &payload)
        };
        let side = if reply { Side::Src } else { Side::Dst };
        let [a, b, c, d] = ports;
        let [hi, lo] = port.to_ne_bytes();
        let new_ports = if reply { [hi, lo, c, d] } else { [a, b, hi, lo] };

        let mut p = build(&vip, ports);
        let done = nat::rewrite_l4(proto, &mut p, side, port, &vip, &rs, family, CsumMode::None);
        prop_assert_eq!(done, Ok(L4Result::Done));
        prop_assert_eq!(&p, &build(&rs, new_ports));

        // There and back.
        let old_port = if reply { u16::from_ne_bytes([a, b]) } else { u16::from_ne_bytes([c, d]) };
        nat::rewrite_l4(proto, &mut p, side, old_port, &rs, &vip, family, CsumMode::None).unwrap();
        prop_assert_eq!(p, build(&vip, ports));
    }

    /// With `CHECKSUM_PARTIAL` the field holds the pseudo header's sum, before and after.
    #[test]
    fn nat_keeps_partial_checksums(
        (family, [client, vip, rs]) in addrs(),
        udp: bool,
        ports: [u8; 4],
        port: u16,
        len: u16,
        grown: u16,
    ) {
        let (proto, check_at) = if udp { (IPPROTO_UDP, 6) } else { (IPPROTO_TCP, 16) };
        let seed = |addr: &Addr, len: u16| checksum::fold_sum(
            checksum::pseudo(family, &client, addr, proto, u32::from(len), 0)
        );
        let mut p = vec![0xa5; 20];
        p[..4].copy_from_slice(&ports);
        p[check_at..check_at + 2].copy_from_slice(&seed(&vip, len).to_ne_bytes());
        let csum = CsumMode::Partial { old_len: len, new_len: grown };
        let done = nat::rewrite_l4(proto, &mut p, Side::Dst, port, &vip, &rs, family, csum);
        prop_assert_eq!(done, Ok(L4Result::Done));
        let got = u16::from_ne_bytes([p[check_at], p[check_at + 1]]);
        prop_assert_eq!(got, seed(&rs, grown));
        prop_assert_eq!(&p[2..4], &port.to_ne_bytes());
        prop_assert_eq!(&p[..2], &ports[..2]);
    }

    #[test]
    fn ipv4_header_rewriting(
        mut header in prop::collection::vec(any::<u8>(), 60),
        words in 5..16_u8,
        addr: u32,
        src: bool,
    ) {
        header[0] = 0x40 | words;
        header[8] = header[8].max(1);
        ipv4::fill_checksum(&mut header).unwrap();
        prop_assert!(ipv4::checksum_ok(&header));
        let before = header.clone();
        let side = if src { Side::Src } else { Side::Dst };
        nat::rewrite_ipv4(&mut header, side, &Addr::v4(addr)).unwrap();
        prop_assert!(ipv4::checksum_ok(&header));
        let at = if src { 12 } else { 16 };
        prop_assert_eq!(&header[at..at + 4], &addr.to_ne_bytes());
        for i in (0..60).filter(|i| !(10..12).contains(i) && !(at..at + 4).contains(i)) {
            prop_assert_eq!(header[i], before[i]);
        }
        let ttl = header[8];
        Ipv4::parse_mut(&mut header).unwrap().decrease_ttl();
        prop_assert_eq!(header[8], ttl - 1);
        prop_assert!(ipv4::checksum_ok(&header));
    }

    /// Whatever comes in: no panic, and the transport lies inside.
    #[test]
    fn extension_headers_of_anything(
        rest in prop::collection::vec(prop_oneof![
            4 => any::<u8>(),
            3 => Just(0),
            3 => prop::sample::select(&[0_u8, 43, 44, 51, 59, 60, 6, 17][..]),
        ], 0..120),
        next in prop::sample::select(&[0_u8, 43, 44, 51, 59, 60, 6][..]),
        offset in 0..3_usize,
    ) {
        let p = [vec![0; offset], v6(next, &rest)].concat();
        if let Ok(t) = find_transport(&p[..], offset) {
            prop_assert!(t.offset <= p.len());
            prop_assert!(!ipv6::is_ext_header(t.protocol) || t.protocol == ipv6::NEXTHDR_NONE);
            prop_assert!(t.frag_offset == 0 || (t.is_fragment && t.offset == offset));
            prop_assert!(t.frag_offset % 8 == 0);
        }
    }

    #[test]
    fn views_of_anything(bytes in prop::collection::vec(any::<u8>(), 0..64), at: usize, icmp_at in 0..64_usize) {
        prop_assert_eq!(Ipv4::parse(&bytes).is_some(), bytes.len() >= 20 && bytes[0] >> 4 == 4 && bytes[0] & 15 >= 5);
        prop_assert_eq!(Ipv6::parse(&bytes).is_some(), bytes.len() >= 40 && bytes[0] >> 4 == 6);
        prop_assert_eq!(Tcp::parse(&bytes).is_some(), bytes.len() >= 20);
        prop_assert_eq!(Udp::parse(&bytes).is_some(), bytes.len() >= 8);
        prop_assert_eq!(Source::size(&bytes[..]), bytes.len());
        let read = Source::read::<4>(&bytes[..], at % 70);
        prop_assert_eq!(read.is_some(), at % 70 + 4 <= bytes.len());
        prop_assert_eq!(Source::read::<4>(&bytes[..], at | (1 << 63)), None);
        ipv4::checksum_ok(&bytes);

        let before = bytes.clone();
        let mut after = bytes;
        let a = Addr::from_bytes([0xee; 16]);
        if nat::rewrite_icmp_v4(&mut after, icmp_at, at % 70, Side::Src, &a, 1, true).is_err() {
            prop_assert_eq!(&after, &before);
        }
        let mut after = before.clone();
        if nat::rewrite_icmp_v6(&mut after, icmp_at, Some(at % 70), Side::Dst, &a, 1).is_err() {
            prop_assert_eq!(&after, &before);
        }
    }
}

/// Zero has two representations; which one comes out is as in C, and is never "all ones" where a
/// 32-bit word or more is replaced.
#[test]
fn zero_sums() {
    let values = [
        0,
        1,
        0xfffe,
        0xffff,
        0x1_0000,
        0xffff_0000,
        0xffff_fffe,
        u32::MAX,
    ];
    for check in [0, 1, 0x8000, 0xfffe, 0xffff] {
        for from in values {
            for to in values {
                let want = kernel::replace4(check, from, to);
                assert_eq!(checksum::replace4(check, from, to), want);
                assert_eq!(Delta::new().word32(from, to).update(check), want);
                assert_ne!(want, 0xffff);
                let (from, to) = (from as u16, to as u16);
                let want = kernel::replace2(check, from, to);
                assert_eq!(checksum::replace2(check, from, to), want);
            }
        }
    }
}

#[test]
fn sums_longer_than_32_bits_can_hold() {
    // A GSO packet may have 256 KiB and more. Miri would take minutes.
    let len = if cfg!(miri) { 300 } else { 300_000 };
    let bytes = vec![0xff; len];
    assert_eq!(sum(&bytes), 0);
    let mut bytes = vec![0xfe; len + 1];
    bytes[0] = 1;
    assert_eq!(sum(&bytes), naive_checksum(&bytes));
}
