// SPDX-License-Identifier: GPL-2.0-or-later

//! What the scenarios lean on, without a guest. Here and not beside the code, which would be compiled once more for it.

mod pkt {
    use std::net::SocketAddr;

    use qemu_tests::pkt::*;

    fn both() -> [(SocketAddr, SocketAddr); 2] {
        [
            ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:2".parse().unwrap()),
            (
                "[fd00::1]:1".parse().unwrap(),
                "[fd00::2]:2".parse().unwrap(),
            ),
        ]
    }

    #[test]
    fn built_packets_parse_with_right_checksums() {
        for (a, b) in both() {
            for p in [
                Pkt::tcp(a, b, SYN),
                Pkt::udp(a, b, b"odd"),
                Pkt::icmp_error(a.ip(), b.ip(), 3, 3, 0, b"inner"),
            ] {
                let q = Pkt::parse(&p.bytes(), false).unwrap();
                assert!(q.csum_ok, "{q:?}");
                assert_eq!(
                    (p.source(), p.dest(), &p.body, p.flags),
                    (q.source(), q.dest(), &q.body, q.flags)
                );
                let bad = Pkt {
                    csum: q.csum.map(|c| c ^ 0x0100),
                    ..p
                };
                assert!(!Pkt::parse(&bad.bytes(), false).unwrap().csum_ok);
            }
        }
    }

    #[test]
    fn known_header_checksum() {
        // The example everybody uses: 45 00 00 73 00 00 40 00 40 11 .. .. c0 a8 00 01 c0 a8 00 c7
        // has b861.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(!sum(&header, 0) as u16, 0xb861);
    }

    #[test]
    fn fragments_carry_the_whole_datagram() {
        for (a, b) in both() {
            let p = Pkt::udp(a, b, &[7; 100]);
            let whole = p.l4();
            let mut glued: Vec<u8> = Vec::new();
            for raw in p.fragments(48) {
                let at = if a.is_ipv4() { 20 } else { 48 };
                glued.extend(&raw[at..]);
                assert!(Pkt::parse(&raw, false).unwrap().csum_ok);
            }
            assert_eq!(glued, whole);
        }
    }
}

mod scenarios {
    use qemu_tests::scenarios::ALL;

    #[test]
    fn names_are_unique_and_items_exist() {
        for (i, s) in ALL.iter().enumerate() {
            assert!(
                ALL[..i].iter().all(|t| t.name != s.name),
                "{} stands twice",
                s.name
            );
            assert!(
                s.items
                    .iter()
                    .chain(s.partly)
                    .all(|n| (1..=146).contains(n)),
                "{}: {:?}",
                s.name,
                s.items
            );
            assert!(!s.doc.is_empty());
        }
    }
}

mod klog {
    use qemu_tests::klog::is_trouble;

    #[test]
    fn trouble_is_told_from_chatter() {
        for line in [
            "WARNING: CPU: 0 PID: 1 at net/netfilter/ipvs/ip_vs_conn.c:1",
            "BUG: sleeping function called from invalid context at mm/slab.h:1",
            "WARNING: suspicious RCU usage",
            "unreferenced object 0x61c1f760 (size 16):",
            "refcount_t: underflow; use-after-free.",
            "rcu: INFO: rcu_sched self-detected stall on CPU",
        ] {
            assert!(is_trouble(line), "{line}");
        }
        for line in [
            "IPVS: Registered protocols (TCP, UDP, SCTP, AH, ESP)",
            "rvs: loading out-of-tree module taints kernel.",
            "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "IPVS: rr: TCP 10.0.100.1:80 - no destination available",
        ] {
            assert!(!is_trouble(line), "{line}");
        }
    }
}

mod gen {
    use qemu_tests::pkt::Pkt;
    use qemu_tests::scenario::Rng;
    use qemu_tests::topo::Family;
    use qemu_tests::wire::gen::*;

    fn way(family: Family) -> Way {
        Way {
            name: "test".to_owned(),
            family,
            vip: family.vip(),
            server: Some(family.raw_rs(1)),
            port: 8080,
            tunnel: None,
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        for family in Family::BOTH {
            let all = || {
                let (mut rng, mut client) = (Rng::new(5), 0);
                batch(&mut rng, &way(family), 500, &mut client)
            };
            let (a, b) = (all(), all());
            assert!(a.len() >= 500);
            assert!(a.iter().zip(&b).all(|(a, b)| a.bytes == b.bytes));
        }
    }

    #[test]
    fn most_packets_are_right_and_some_are_not() {
        for family in Family::BOTH {
            let (mut rng, mut client) = (Rng::new(1), 0);
            let shots = batch(&mut rng, &way(family), 4000, &mut client);
            let right = shots
                .iter()
                .filter(|s| Pkt::parse(&s.bytes, s.offload.is_some()).is_ok_and(|p| p.csum_ok))
                .count();
            assert!(
                (shots.len() / 2..shots.len() * 97 / 100).contains(&right),
                "{right} of {}",
                shots.len()
            );
        }
    }
}

mod compare {
    use qemu_tests::wire::compare::*;

    fn seen(ip: &str) -> Seen {
        let mut bytes = vec![0; IP];
        let digits: Vec<u8> = ip
            .bytes()
            .map(|c| (c as char).to_digit(16).unwrap() as u8)
            .collect();
        bytes.extend(digits.chunks(2).map(|d| (d[0] << 4) | d[1]));
        Seen(bytes)
    }

    #[test]
    fn a_wrong_crc_may_stay_wrong() {
        let c = seen("452b0064732d40003f844f150a00640a0a09009600502e83c1860295f3507d0c03000029bad6c9fb6b8538e4438d9195301ce88b27ecf63c2673f0967307610427f930d64d5a568d020000000d0000173de3630b4c51625a6236064d408061ab9fb19200");
        let mut ours = c.clone();
        ours.0[IP + 28] ^= 1;
        assert_eq!(meant(&ours, &c), Some(Meant::SctpCrc));
        let checked = Seen([&[2], &c.0[1..]].concat());
        assert_eq!(meant(&ours, &checked), Some(Meant::SctpCrc));
        assert_eq!(meant(&c, &ours), None);
        ours.0[IP + 32] ^= 1;
        assert_eq!(meant(&ours, &c), None);
    }
}
