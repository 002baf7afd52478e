// SPDX-License-Identifier: GPL-2.0-only

//! Connection synchronisation: the C module's bytes read and written, each rule of what is malformed, when connections are announced
//! against a model in plain numbers, and what records do.
//!
//! Checklist items 128, 129, 130, 135 and 136.

mod fuzzed;

use proptest::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    proto::{
        self,
        sctp,
        tcp,
        IPPROTO_AH,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    sync::{
        announce::{
            self,
            due,
            Asked,
            Due,
            Policy, //
        },
        daemon::{
            self,
            Role, //
        },
        decode::{
            Bad,
            Datagram,
            Ignored, //
        },
        encode::{
            self,
            Refused,
            Writer, //
        },
        receive::{
            self,
            Known, //
        },
        Pe,
        Record,
        Seq,
        SeqPair,
        Version,
        SENT_MASK, //
    },
    timeout::{
        Deadline,
        Hz, //
    },
    uapi::conn_flag::*,
};

const HZ: Hz = Hz::new(250);

/// What the C module sent, by name; see the file.
fn golden() -> Vec<(&'static str, Vec<u8>)> {
    include_str!("sync_golden.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, hex) = line.split_once(": ").unwrap();
            let byte =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            (name, hex.as_bytes().chunks(2).map(byte).collect())
        })
        .collect()
}

fn datagram(version: Version, syncid: u8, records: &[Record<'_>]) -> Vec<u8> {
    let mut bytes = vec![0xa5; 4096];
    let mut writer = Writer::new(version, syncid, &mut bytes).unwrap();
    for record in records {
        writer.push(&mut bytes, record).unwrap();
    }
    bytes.truncate(writer.len());
    bytes
}

fn read(bytes: &[u8]) -> Vec<Result<Record<'_>, Bad>> {
    Datagram::parse(bytes, 0).unwrap().records().collect()
}

#[test]
fn what_c_sent_is_read_and_written() {
    let golden = golden();
    assert!(golden.len() > 40, "{}", golden.len());
    let mut kinds = [0; 5];
    for (name, bytes) in &golden {
        let datagram_ = Datagram::parse(bytes, 0).unwrap();
        let version = if name.starts_with("v1") {
            Version::V1
        } else {
            Version::V0
        };
        assert_eq!(datagram_.version(), version, "{name}");
        let records: Vec<_> = datagram_.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 1, "{name}");
        let mut record = records[0];
        assert!(record.pe.is_none());
        kinds[0] += usize::from(record.family == Family::V6);
        kinds[1] += usize::from(record.is_template());
        kinds[2] += usize::from(record.fwmark != 0);
        kinds[3] += usize::from(version == Version::V0);
        if name.contains("relayed") {
            let word = |n: u8| u32::from_be_bytes([n, n + 1, n + 2, n + 3]);
            let seq = |n| Seq {
                init_seq: word(n),
                delta: word(n + 4),
                previous_delta: word(n + 8),
            };
            assert_eq!((seq(1), seq(13)), {
                let pair = record.seq.unwrap();
                (pair.incoming, pair.outgoing)
            });
            kinds[4] += 1;
        } else {
            assert!(record.seq.is_none());
            // This master was not told itself.
            record.flags &= !SYNC;
        }
        assert_eq!(&datagram(version, 0, &[record]), bytes, "{name}");
    }
    assert!(kinds.iter().all(|n| *n > 0), "{kinds:?}");
}

fn v4(octets: [u8; 4]) -> Addr {
    Addr::from_slice(Family::V4, &octets).unwrap()
}

fn record() -> Record<'static> {
    Record {
        family: Family::V4,
        proto: IPPROTO_TCP,
        cport: 0x1234_u16.to_be(),
        vport: 80_u16.to_be(),
        dport: 8080_u16.to_be(),
        caddr: v4([10, 9, 8, 7]),
        vaddr: v4([192, 0, 2, 1]),
        daddr: v4([172, 16, 0, 5]),
        flags: SYNC,
        state: tcp::State::ESTABLISHED,
        fwmark: 0xdead_beef,
        timeout: 900,
        seq: None,
        pe: None,
    }
}

const SEQS: SeqPair = SeqPair {
    incoming: Seq {
        init_seq: 0x0102_0304,
        delta: 5,
        previous_delta: 0xffff_fffe,
    },
    outgoing: Seq {
        init_seq: 0x0506_0708,
        delta: 0,
        previous_delta: 9,
    },
};

/// The bytes of a datagram with options and padding, field by field.
#[test]
fn options_and_padding() {
    let first = Record {
        pe: Some(Pe {
            name: b"sip",
            data: b"call1",
        }),
        ..record()
    };
    let second = Record {
        flags: SYNC | IN_SEQ | HASHED | (1 << 30),
        seq: Some(SEQS),
        fwmark: 0,
        state: tcp::State::FIN_WAIT,
        ..record()
    };
    let bytes = datagram(Version::V1, 7, &[first, second]);
    #[rustfmt::skip]
    let want = [
        // Header: zero, sync ID, size, records, version, spare.
        &[0, 7, 0, 8 + 48 + 62, 2, 1, 0, 0][..],
        // IPv4, TCP, version 0 and length 36 + 7 + 5.
        &[0, 6, 0, 48],
        // Flags, state, ports.
        &[0, 0, 0, 0x20, 0, 1, 0x12, 0x34, 0, 80, 0x1f, 0x90],
        // Mark, timeout.
        &[0xde, 0xad, 0xbe, 0xef, 0, 0, 3, 0x84],
        &[10, 9, 8, 7, 192, 0, 2, 1, 172, 16, 0, 5],
        // The engine's data, its name.
        &[2, 5], b"call1", &[3, 3], b"sip",
        // The second record; the first had a length that needs no padding.
        &[0, 6, 0, 62],
        // Whether it is hashed, and what no version of C knows, is not said.
        &[0, 0, 4, 0x20, 0, 4, 0x12, 0x34, 0, 80, 0x1f, 0x90],
        &[0, 0, 0, 0, 0, 0, 3, 0x84],
        &[10, 9, 8, 7, 192, 0, 2, 1, 172, 16, 0, 5],
        &[1, 24],
        &[1, 2, 3, 4, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xfe],
        &[5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9],
    ].concat();
    assert_eq!(bytes, want);
    let second = Record {
        flags: SYNC | IN_SEQ,
        ..second
    };
    assert_eq!(read(&bytes), [Ok(first), Ok(second)]);

    // A length of 36 + 6 + 5 takes a byte of padding, which belongs to no record, and none behind the last.
    let odd = Record {
        pe: Some(Pe {
            name: b"sip",
            data: b"call",
        }),
        ..record()
    };
    let bytes = datagram(Version::V1, 7, &[odd, odd]);
    assert_eq!(bytes.len(), 8 + 48 + 47);
    assert_eq!(bytes[8 + 47], 0);
    assert_eq!((bytes[8 + 3], bytes[8 + 48 + 3]), (47, 47));
    assert_eq!(read(&bytes), [Ok(odd), Ok(odd)]);
    // With padding behind it, it is read as well.
    let mut padded = bytes.clone();
    padded.push(0);
    padded[3] += 1;
    assert_eq!(read(&padded), [Ok(odd), Ok(odd)]);
}

#[test]
fn ipv6() {
    let mut addr = [0; 16];
    addr.iter_mut().zip(1..).for_each(|(b, n)| *b = n);
    let record = Record {
        family: Family::V6,
        caddr: Addr::from_bytes(addr),
        vaddr: Addr::from_bytes(addr.map(|b| b + 0x20)),
        daddr: Addr::from_bytes(addr.map(|b| b + 0x40)),
        ..record()
    };
    let bytes = datagram(Version::V1, 0, &[record]);
    assert_eq!(bytes[..12], [0, 0, 0, 80, 1, 1, 0, 0, 1, 6, 0, 72]);
    let addrs: Vec<u8> = [0, 0x20, 0x40]
        .iter()
        .flat_map(|plus| addr.map(|b| b + plus))
        .collect();
    assert_eq!(bytes[8 + 24..], addrs);
    assert_eq!(read(&bytes), [Ok(record)]);
    let mut room = [0; 100];
    let mut writer = Writer::new(Version::V0, 0, &mut room).unwrap();
    assert_eq!(writer.push(&mut room, &record), Err(Refused::Unspeakable));
    assert_eq!(encode::room(Version::V0, &record, 1000), None);
}

#[test]
fn version_0() {
    let plain = Record {
        fwmark: 0,
        timeout: 0,
        flags: SYNC | INACTIVE,
        ..record()
    };
    let with_seq = Record {
        flags: SYNC | OUT_SEQ,
        seq: Some(SEQS),
        ..plain
    };
    let sent = Record {
        // Beyond 16 bits, nothing is said.
        flags: with_seq.flags | NFCT | HASHED,
        fwmark: 7,
        timeout: 9,
        ..with_seq
    };
    let bytes = datagram(Version::V0, 3, &[plain, sent]);
    let native = |word: u32| word.to_ne_bytes();
    #[rustfmt::skip]
    let want = [
        &[2, 3, 0, 4 + 24 + 48][..],
        &[0, 6, 0x12, 0x34, 0, 80, 0x1f, 0x90],
        &[10, 9, 8, 7, 192, 0, 2, 1, 172, 16, 0, 5],
        &[1, 0x20, 0, 1],
        &[0, 6, 0x12, 0x34, 0, 80, 0x1f, 0x90],
        &[10, 9, 8, 7, 192, 0, 2, 1, 172, 16, 0, 5],
        &[2, 0x20, 0, 1],
        &native(0x0102_0304), &native(5), &native(0xffff_fffe),
        &native(0x0506_0708), &native(0), &native(9),
    ].concat();
    assert_eq!(bytes, want);
    assert_eq!(read(&bytes), [Ok(plain), Ok(with_seq)]);
    // The engine is not said.
    let pe = Record {
        pe: Some(Pe {
            name: b"sip",
            data: b"x",
        }),
        ..plain
    };
    assert_eq!(
        datagram(Version::V0, 3, &[pe]),
        datagram(Version::V0, 3, &[plain])
    );
}

#[test]
fn full_datagrams() {
    let record = record();
    for version in [Version::V0, Version::V1] {
        let (header, len) = (
            version.header_len(),
            encode::record_len(version, &record).unwrap(),
        );
        // As many as there is room for.
        for room in [
            0,
            header - 1,
            header,
            header + len - 1,
            header + 3 * len + 5,
        ] {
            let mut bytes = vec![0xa5; room];
            let Some(mut writer) = Writer::new(version, 1, &mut bytes) else {
                assert!(room < header);
                continue;
            };
            assert!(writer.is_empty() && writer.len() == header);
            let mut n = 0;
            while writer.push(&mut bytes, &record).is_ok() {
                n += 1;
            }
            assert_eq!(n, (room - header) / len);
            assert_eq!(writer.len(), header + n * len);
            assert!(bytes[writer.len()..].iter().all(|b| *b == 0xa5));
            assert_eq!(writer.push(&mut bytes, &record), Err(Refused::Full));
        }
        // As many as can be counted: C would go on, and count them from zero again.
        let mut bytes = vec![0xa5; 65_507];
        let mut writer = Writer::new(version, 1, &mut bytes).unwrap();
        for n in 1..=255 {
            assert_eq!(writer.push(&mut bytes, &record), Ok(()));
            assert_eq!(writer.count(), n);
        }
        assert_eq!(writer.push(&mut bytes, &record), Err(Refused::Full));
        assert_eq!(read(&bytes[..writer.len()]).len(), 255);
        // A record that is larger than a datagram should be has one for itself.
        assert_eq!(encode::room(version, &record, 1), Some(header + len));
        assert_eq!(encode::room(version, &record, 1472), Some(1472));
    }
    // As many bytes as can be counted, however large the buffer is.
    let large = Record {
        family: Family::V6,
        flags: SEQ_MASK,
        pe: Some(Pe {
            name: &[b'n'; 16],
            data: &[b'd'; 255],
        }),
        ..record
    };
    assert_eq!(encode::record_len(Version::V1, &large), Some(373));
    let mut bytes = vec![0; 100_000];
    let mut writer = Writer::new(Version::V1, 1, &mut bytes).unwrap();
    while writer.push(&mut bytes, &large).is_ok() {}
    assert_eq!(usize::from(writer.count()), (65_535 - 8 + 3) / 376);
    assert!(read(&bytes[..writer.len()]).iter().all(Result::is_ok));
    for pe in [
        Pe {
            name: &[0; 17],
            data: &[0],
        },
        Pe {
            name: &[0],
            data: &[0; 256],
        },
    ] {
        let record = Record {
            pe: Some(pe),
            ..record
        };
        assert_eq!(writer.push(&mut bytes, &record), Err(Refused::Unspeakable));
    }
}

#[test]
fn headers() {
    let bytes = datagram(Version::V1, 7, &[record()]);
    let parse = |bytes: &[u8], syncid| Datagram::parse(bytes, syncid).map(|d| d.count());
    assert_eq!(parse(&bytes, 0), Ok(1));
    assert_eq!(parse(&bytes, 7), Ok(1));
    for syncid in [1, 8, 7 + 256, u32::MAX] {
        assert_eq!(parse(&bytes, syncid), Err(Ignored::SyncId));
    }
    assert_eq!(parse(&bytes[1..], 0), Err(Ignored::Size));
    assert_eq!(parse(&bytes[..bytes.len() - 1], 0), Err(Ignored::Size));
    assert_eq!(parse(&[0, 7, 0], 7), Err(Ignored::Short));
    assert_eq!(parse(&[], 0), Err(Ignored::Short));
    // What is not quite version 1 is version 0.
    for (at, byte) in [(0, 1), (5, 0), (5, 2), (6, 1), (7, 1)] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        let datagram = Datagram::parse(&bytes, 0).unwrap();
        assert_eq!(datagram.version(), Version::V0);
        assert_eq!(datagram.count(), if at == 0 { 1 } else { 0 });
    }
    for len in 4..8 {
        let mut bytes = vec![0; len];
        (bytes[3], bytes[4.min(len - 1)]) = (len as u8, len as u8);
        let datagram = Datagram::parse(&bytes, 0).unwrap();
        assert_eq!(datagram.version(), Version::V0);
        assert_eq!(datagram.records().next(), None);
    }
}

/// A datagram of a record of these bytes between two good ones.
fn between(record_: &[u8]) -> Vec<u8> {
    let good = datagram(Version::V1, 0, &[record()]);
    let mut bytes = good.clone();
    bytes.extend(record_);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(&good[8..]);
    bytes[4] = 3;
    let len = (bytes.len() as u16).to_be_bytes();
    bytes[2..4].copy_from_slice(&len);
    bytes
}

/// What comes of a record between two good ones.
fn fate(record: &[u8]) -> Result<(), Bad> {
    let bytes = between(record);
    let read = read(&bytes);
    assert!(read[0].is_ok());
    match read[1] {
        Err(bad) if bad.aborts() => assert_eq!(read.len(), 2),
        _ => assert!(read.len() == 3 && read[2].is_ok()),
    }
    read[1].map(drop)
}

#[test]
fn malformed_records() {
    let plain = datagram(Version::V1, 0, &[record()])[8..].to_vec();
    let patched = |at: usize, to: &[u8]| {
        let mut bytes = plain.clone();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    let with = |options: &[&[u8]]| {
        let mut bytes = plain.clone();
        bytes.extend(options.concat());
        bytes[3] = bytes.len() as u8;
        bytes
    };
    let of = |f: &dyn Fn(&mut Record<'_>)| {
        let mut r = record();
        f(&mut r);
        datagram(Version::V1, 0, &[r])[8..].to_vec()
    };
    let state = |proto: u8, state: u16| {
        let mut bytes = patched(1, &[proto]);
        bytes[8..10].copy_from_slice(&state.to_be_bytes());
        bytes
    };
    let seq = [[1, 24].as_slice(), &[9; 24]].concat();
    let seq_optional = [[0x41, 24].as_slice(), &[9; 24]].concat();

    assert_eq!(fate(&plain), Ok(()));
    for (bytes, want) in [
        (patched(2, &[0x10, 36]), Bad::Version),
        (patched(2, &[0, 35]), Bad::Length),
        (patched(2, &[0, 0]), Bad::Length),
        (patched(2, &[0x0f, 0xff]), Bad::Short),
        (patched(2, &[0x1f, 0xff]), Bad::Short),
        (patched(0, &[2]), Bad::Type),
        (patched(0, &[0x80]), Bad::Type),
        (patched(0, &[1]), Bad::Length),
        (patched(0, &[0xff]), Bad::Length),
        (with(&[&[9]]), Bad::Option),
        (with(&[&[0x49, 0]]), Bad::Option),
        (with(&[&[0x49, 2, 0]]), Bad::Option),
        (with(&[&[1, 23], &[0; 23]]), Bad::Option),
        (with(&[&[1, 25], &[0; 25]]), Bad::Option),
        (with(&[&seq, &seq]), Bad::Option),
        (with(&[&seq, &seq_optional]), Bad::Option),
        (with(&[&[2, 1, 0, 2, 1, 0]]), Bad::Option),
        (with(&[&[3, 1, 0, 3, 1, 0]]), Bad::Option),
        (with(&[&[3, 17], &[0; 17]]), Bad::Option),
        (with(&[&[2, 1, 0]]), Bad::PeName),
        (with(&[&[9, 1, 0]]), Bad::UnknownOption),
        (with(&[&[0, 1, 0]]), Bad::UnknownOption),
        (with(&[&[0x80, 1, 0]]), Bad::UnknownOption),
        // Nothing behind it is looked at; what is in front is.
        (with(&[&[9, 1, 0], &[1]]), Bad::UnknownOption),
        (with(&[&[1, 1, 0], &[9, 1, 0]]), Bad::Option),
        (of(&|r| r.flags = ONE_PACKET), Bad::Flags),
        (of(&|r| r.flags = ONE_PACKET | TEMPLATE), Bad::Flags),
        (of(&|r| r.flags = NO_CPORT | TEMPLATE), Bad::Flags),
        // The flags come first, then the protocol, then the state, then the engine.
        (
            of(&|r| (r.flags, r.proto, r.state) = (ONE_PACKET, 1, 99)),
            Bad::Flags,
        ),
        (state(1, 99), Bad::Protocol),
        (state(0, 0), Bad::Protocol),
        (state(IPPROTO_TCP, 11), Bad::State),
        (state(IPPROTO_TCP, 256 + 1), Bad::State),
        (state(IPPROTO_UDP, 1), Bad::State),
        (state(IPPROTO_SCTP, 14), Bad::State),
        (state(IPPROTO_AH, 1), Bad::State),
        (of(&|r| (r.flags, r.state) = (TEMPLATE, 2)), Bad::State),
    ] {
        assert_eq!(fate(&bytes), Err(want), "{bytes:x?}");
        let aborts = matches!(
            want,
            Bad::Short | Bad::Version | Bad::Type | Bad::Length | Bad::Option
        );
        assert_eq!(want.aborts(), aborts);
    }
    for bytes in [
        state(IPPROTO_TCP, 10),
        state(IPPROTO_SCTP, 13),
        state(IPPROTO_AH, 0),
        of(&|r| (r.flags, r.state, r.proto) = (TEMPLATE, 1, 0)),
        of(&|r| (r.flags, r.cport) = (NO_CPORT, 0)),
        with(&[&seq]),
        with(&[&seq_optional]),
        with(&[&[3, 1, 0]]),
        with(&[&[0x49, 3, 1, 2, 3]]),
        with(&[&[0x40, 1, 0], &[0xff, 1, 0], &[0xc9, 1, 0]]),
    ] {
        assert_eq!(fate(&bytes), Ok(()), "{bytes:x?}");
    }
    // What is there of the options is what is read, whatever the flags say.
    let bytes = between(&with(&[&seq, &[3, 1, b'x'], &[2, 2, 5, 6]]));
    let middle = read(&bytes)[1].unwrap();
    assert_eq!(middle.seq.unwrap().incoming.delta, 0x0909_0909);
    assert_eq!(
        middle.pe,
        Some(Pe {
            name: b"x",
            data: &[5, 6]
        })
    );
    // Of all flags those of a backup are left.
    let bytes = between(&of(&|r| (r.flags, r.state) = (!(ONE_PACKET | NO_CPORT), 1)));
    let middle = read(&bytes)[1].unwrap();
    assert_eq!(middle.flags, BACKUP_MASK & !NO_CPORT | SYNC);
}

#[test]
fn corpus_and_what_is_near_it() {
    for (_, bytes) in golden() {
        fuzzed::datagram(&bytes);
        for len in 0..bytes.len() {
            fuzzed::datagram(&bytes[..len]);
            // As long as it says.
            let mut cut = bytes[..len].to_vec();
            if len >= 4 {
                cut[3] = len as u8;
                fuzzed::datagram(&cut);
            }
        }
        let mut damaged = bytes.clone();
        for at in 0..bytes.len() {
            for change in [0x01, 0x04, 0x40, 0x80, 0xff] {
                damaged[at] ^= change;
                fuzzed::datagram(&damaged);
                damaged[at] ^= change;
            }
        }
    }
}

const POLICY: Policy = Policy {
    threshold: 3,
    period: 50,
    refresh: 0,
    retries: 0,
    persist_mode: false,
};

const ASKED: Asked = Asked {
    proto: IPPROTO_UDP,
    template: false,
    in_persistence: false,
    state: 0,
    old_state: 0,
    timeout: 300 * 250,
    endtime: 1000,
    pkts: 3,
    now: 1000,
};

fn is_due(policy: Policy, asked: Asked) -> bool {
    due(&policy, HZ, &asked).is_some()
}

#[test]
fn packets_that_are_announced() {
    let with = |threshold, period| -> Vec<u32> {
        let policy = Policy {
            threshold,
            period,
            ..POLICY
        };
        (0..=120)
            .filter(|pkts| {
                is_due(
                    policy,
                    Asked {
                        pkts: *pkts,
                        ..ASKED
                    },
                )
            })
            .collect()
    };
    assert_eq!(with(3, 50), [3, 53, 103]);
    assert_eq!(with(0, 50), [0, 50, 100]);
    assert_eq!(with(5, 0), [5]);
    assert_eq!(with(0, 0), [0]);
    assert_eq!(with(0, 1).len(), 121);
    // A template: with each packet, unless there is neither period.
    let template = Asked {
        template: true,
        pkts: 7,
        ..ASKED
    };
    assert!(is_due(POLICY, template));
    let once = Policy {
        period: 0,
        ..POLICY
    };
    assert!(!is_due(once, template));
    assert!(is_due(
        once,
        Asked {
            pkts: 3,
            ..template
        }
    ));
    // Beyond 2^31, where C's numbers turn negative.
    assert!(is_due(
        POLICY,
        Asked {
            pkts: 0x8000_0000 - 0x8000_0000 % 50 + 53,
            ..ASKED
        }
    ));
}

#[test]
fn states_that_are_announced() {
    let quiet = Asked { pkts: 7, ..ASKED };
    // Announced with any packet after a change; only when it is time; never.
    let tell = |proto, state: u8| {
        let changed = due(
            &POLICY,
            HZ,
            &Asked {
                proto,
                state,
                old_state: 15,
                ..quiet
            },
        );
        let same = is_due(
            POLICY,
            Asked {
                proto,
                state,
                old_state: state,
                pkts: 3,
                ..ASKED
            },
        );
        match (changed, same) {
            (Some(due), true) => {
                assert!(due.forced && due.state == state);
                'c'
            }
            (None, true) => 't',
            (None, false) => '-',
            (Some(_), false) => panic!("{proto} {state}"),
        }
    };
    let all = |proto, states: u8| -> String { (0..states).map(|s| tell(proto, s)).collect() };
    // NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN SYNACK
    assert_eq!(all(IPPROTO_TCP, tcp::State::LAST), "-t--cccc---");
    // ESTABLISHED is the ninth; SHUTDOWN_SENT, _RECEIVED, _ACK_SENT, then REJECTED and CLOSED.
    assert_eq!(all(IPPROTO_SCTP, sctp::State::LAST), "--------tccc-c");
    assert_eq!(all(IPPROTO_UDP, 1), "t");
    assert_eq!(all(IPPROTO_AH, 1), "t");
    // States that do not exist.
    assert_eq!(tell(IPPROTO_TCP, 31), '-');
    assert_eq!(tell(IPPROTO_TCP, 200), '-');
    // Established at last, with the packet that is announced: forced as well.
    let begun = Asked {
        proto: IPPROTO_TCP,
        state: tcp::State::ESTABLISHED,
        old_state: 0,
        ..ASKED
    };
    assert!(due(&POLICY, HZ, &begun).unwrap().forced);
    // Of a template the state means nothing.
    let template = Asked {
        proto: IPPROTO_TCP,
        template: true,
        state: proto::template::NONE,
        ..ASKED
    };
    assert!(!due(&POLICY, HZ, &template).unwrap().forced);
}

#[test]
fn under_templates() {
    let policy = Policy {
        persist_mode: true,
        ..POLICY
    };
    let child = Asked {
        in_persistence: true,
        ..ASKED
    };
    assert!(is_due(POLICY, child) && !is_due(policy, child) && is_due(policy, ASKED));
    // Not even what ends.
    assert!(!is_due(
        policy,
        Asked {
            proto: IPPROTO_TCP,
            state: tcp::State::CLOSE,
            ..child
        }
    ));
    // A template under a template.
    assert!(is_due(
        policy,
        Asked {
            template: true,
            ..child
        }
    ));
}

/// One connection as time passes: the seconds in which a packet is announced, of packets four times a second.
fn seconds(refresh: u32, retries: u32, timeout: u32, for_: u32) -> Vec<u32> {
    let policy = Policy {
        threshold: 0,
        period: 0,
        refresh: refresh * 250,
        retries,
        persist_mode: false,
    };
    // The clock wraps on the way.
    let begin = 0_u32.wrapping_sub(5 * 250);
    let mut endtime = announce::first_endtime(begin);
    let mut announced = Vec::new();
    for quarter in 0..for_ * 4 {
        let asked = Asked {
            timeout: timeout * 250,
            endtime,
            now: begin.wrapping_add(quarter * 250 / 4),
            pkts: quarter,
            ..ASKED
        };
        if let Some(due) = due(&policy, HZ, &asked) {
            endtime = due.endtime;
            announced.push(quarter / 4);
        }
    }
    announced
}

#[test]
fn refreshes_and_retries() {
    assert_eq!(seconds(10, 0, 300, 35), [0, 10, 20, 30]);
    // No more often than each half timeout, which is ten seconds at least.
    assert_eq!(seconds(100, 0, 60, 70), [0, 30, 60]);
    // Of a short timeout also the first time: it counts as announced when it was made.
    assert_eq!(seconds(100, 0, 4, 25), [6, 16]);
    // An eighth of the period later.
    assert_eq!(seconds(80, 1, 300, 100), [0, 10, 90]);
    assert_eq!(seconds(80, 3, 300, 120), [0, 10, 20, 30, 110]);
    // The count is kept in two bits.
    let full = due(
        &Policy {
            refresh: 80 * 250,
            retries: 3,
            ..POLICY
        },
        HZ,
        &Asked {
            endtime: (1000 + 300 * 250) | 2,
            now: 1000 + 11 * 250,
            ..ASKED
        },
    );
    assert_eq!(full.unwrap().endtime & 3, 3);
}

/// The rule once more, in wide numbers and in the words of the manual.
fn model(policy: &Policy, asked: &Asked) -> Option<Due> {
    let (now, timeout) = (i64::from(asked.now), i64::from(asked.timeout));
    let last = i64::from(asked.endtime);
    let mut forced = false;
    let mut endtime = (now + timeout) / 4 * 4;
    let send = |endtime: i64, forced| {
        Some(Due {
            endtime: endtime as u32,
            state: asked.state,
            forced,
        })
    };
    if !asked.template {
        if policy.persist_mode && asked.in_persistence {
            return None;
        }
        let (established, ending): (u8, &[u8]) = match asked.proto {
            IPPROTO_TCP => (1, &[4, 5, 6, 7]),
            IPPROTO_SCTP => (8, &[9, 10, 11, 13]),
            _ => (asked.state, &[]),
        };
        if ending.contains(&asked.state) {
            forced = asked.state != asked.old_state;
            if forced {
                return send(endtime, true);
            }
        } else if asked.state != established {
            return None;
        } else if matches!(asked.proto, IPPROTO_TCP | IPPROTO_SCTP) {
            forced = asked.state != asked.old_state;
        }
    }
    let refresh = i64::from(policy.refresh);
    if refresh > 0 && (endtime - last).abs() < refresh.min((timeout / 2).max(2500)) {
        let retries = asked.endtime & 3;
        if retries >= policy.retries || now < last - timeout + refresh / 8 {
            return None;
        }
        endtime += i64::from(retries) + 1;
    }
    let right = if policy.period > 0 {
        asked.template || asked.pkts % policy.period == policy.threshold
    } else {
        refresh > 0 || asked.pkts == policy.threshold
    };
    if right {
        send(endtime, forced)
    } else {
        None
    }
}

fn few() -> impl Strategy<Value = u32> {
    prop_oneof![0..8_u32, any::<u32>()]
}

prop_compose! {
    fn policies()(
        threshold in few(), period in few(), refresh in prop_oneof![Just(0), 1..10_000_u32, 1..1_000_000_u32],
        retries in 0..4_u32, persist_mode: bool,
    ) -> Policy {
        Policy { threshold, period, refresh, retries, persist_mode }
    }
}

prop_compose! {
    fn questions()(
        proto in prop::sample::select(&[IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_AH][..]),
        template: bool, in_persistence: bool, state in 0..16_u8, old_state in 0..16_u8,
        timeout in prop_oneof![0..10_000_u32, 0..1_000_000_u32],
        now in 10_000_000..20_000_000_u32,
        apart in prop_oneof![-5_000..5_000_i32, -1_000_000..1_000_000_i32],
        pkts in few(),
    ) -> Asked {
        // Not far from where it would be after an announcement.
        let endtime = (now + timeout).wrapping_add_signed(apart);
        Asked { proto, template, in_persistence, state, old_state, timeout, endtime, pkts, now }
    }
}

prop_compose! {
    fn addrs(family: Family)(bytes: [u8; 16]) -> Addr {
        Addr::from_slice(family, &bytes).unwrap()
    }
}

fn seqs() -> impl Strategy<Value = Seq> {
    any::<[u32; 3]>().prop_map(|[init_seq, delta, previous_delta]| Seq {
        init_seq,
        delta,
        previous_delta,
    })
}

type Fields = (Record<'static>, Option<(Vec<u8>, Vec<u8>)>);

/// A record that any backup takes, and its engine's name and data.
fn records() -> impl Strategy<Value = Fields> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    family.prop_flat_map(|family| {
        let endpoints = (
            any::<[u16; 3]>(),
            addrs(family),
            addrs(family),
            addrs(family),
        );
        let what = prop_oneof![
            (Just(IPPROTO_TCP), 0..11_u8, Just(0)),
            (Just(IPPROTO_UDP), Just(0), Just(0)),
            (Just(IPPROTO_SCTP), 0..14_u8, Just(NO_CPORT)),
            (any::<u8>(), 0..2_u8, Just(TEMPLATE)),
        ];
        let rest = (
            any::<[u32; 3]>(),
            seqs(),
            seqs(),
            prop::option::of((
                prop::collection::vec(any::<u8>(), 1..=16),
                prop::collection::vec(any::<u8>(), 1..=255),
            )),
        );
        (endpoints, what, rest).prop_map(
            move |(
                ([cport, vport, dport], caddr, vaddr, daddr),
                (proto, state, flags),
                ([more_flags, fwmark, timeout], incoming, outgoing, pe),
            )| {
                let more_flags = more_flags & (FWD_MASK | NOOUTPUT | INACTIVE | SEQ_MASK);
                let flags = flags | more_flags | SYNC;
                let record = Record {
                    family,
                    proto,
                    cport,
                    vport,
                    dport,
                    caddr,
                    vaddr,
                    daddr,
                    flags,
                    state,
                    fwmark,
                    timeout,
                    seq: (flags & SEQ_MASK != 0).then_some(SeqPair { incoming, outgoing }),
                    pe: None,
                };
                (record, pe)
            },
        )
    })
}

fn whole<'a>((record, pe): &'a Fields) -> Record<'a> {
    Record {
        pe: pe.as_ref().map(|(name, data)| Pe { name, data }),
        ..*record
    }
}

proptest! {
    #[test]
    fn when_to_announce(policy in policies(), asked in questions()) {
        prop_assert_eq!(due(&policy, HZ, &asked), model(&policy, &asked));
    }

    /// Nothing overflows, wherever the clock is.
    #[test]
    fn any_moment(
        policy in policies(), asked in questions(), timeout: u32, endtime: u32, now: u32, refresh: u32, hz: u32,
    ) {
        let asked = Asked { timeout, endtime, now, ..asked };
        let policy = Policy { refresh, ..policy };
        if let Some(due) = due(&policy, Hz::new(hz), &asked) {
            prop_assert!(due.endtime & !3 == now.wrapping_add(timeout) & !3);
        }
    }

    #[test]
    fn written_and_read(all in prop::collection::vec(records(), 1..20), syncid: u8, room in 0..2000_usize) {
        let mut bytes = vec![0xa5; room.max(8)];
        let mut writer = Writer::new(Version::V1, syncid, &mut bytes).unwrap();
        let mut want = Vec::new();
        for fields in &all {
            let record = whole(fields);
            let before = (writer, bytes.clone());
            match writer.push(&mut bytes, &record) {
                Ok(()) => want.push(Ok(record)),
                Err(refused) => {
                    prop_assert_eq!(refused, Refused::Full);
                    prop_assert_eq!(&before, &(writer, bytes.clone()));
                    let len = encode::record_len(Version::V1, &record).unwrap();
                    prop_assert!(writer.len() + len + 3 >= bytes.len());
                }
            }
        }
        prop_assert!(bytes[writer.len()..].iter().all(|b| *b == 0xa5));
        prop_assert_eq!(usize::from(writer.count()), want.len());
        let datagram = Datagram::parse(&bytes[..writer.len()], u32::from(syncid)).unwrap();
        prop_assert_eq!(datagram.records().collect::<Vec<_>>(), want);
    }

    #[test]
    fn written_and_read_v0(all in prop::collection::vec(records(), 1..20), syncid: u8) {
        let mut bytes = vec![0xa5; 2000];
        let mut writer = Writer::new(Version::V0, syncid, &mut bytes).unwrap();
        let mut want = Vec::new();
        for fields in &all {
            let record = whole(fields);
            let answer = writer.push(&mut bytes, &record);
            if record.family == Family::V6 {
                prop_assert_eq!(answer, Err(Refused::Unspeakable));
            } else {
                prop_assert_eq!(answer, Ok(()));
                want.push(Ok(Record { fwmark: 0, timeout: 0, pe: None, ..record }));
            }
        }
        let datagram = Datagram::parse(&bytes[..writer.len()], 0).unwrap();
        prop_assert_eq!(datagram.records().collect::<Vec<_>>(), want);
    }

    #[test]
    fn any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..400), honest: bool, v1: bool) {
        if honest && bytes.len() >= 8 {
            let len = (bytes.len() as u16).to_be_bytes();
            bytes[2..4].copy_from_slice(&len);
            if v1 {
                (bytes[0], bytes[5], bytes[6], bytes[7]) = (0, 1, 0, 0);
            }
        }
        fuzzed::datagram(&bytes);
    }

    /// Right datagrams with bytes changed, which get further than any bytes do.
    #[test]
    fn damaged(
        all in prop::collection::vec(records(), 1..6), v1: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(), is_cut: bool,
    ) {
        let version = if v1 { Version::V1 } else { Version::V0 };
        let mut bytes = vec![0; 4000];
        let mut writer = Writer::new(version, 0, &mut bytes).unwrap();
        for fields in &all {
            let _ = writer.push(&mut bytes, &whole(fields));
        }
        bytes.truncate(writer.len());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()).max(4));
        }
        let len = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&len);
        fuzzed::datagram(&bytes);
    }
}

#[test]
fn controllers() {
    assert!(Asked::goes_on_to_controller(Version::V1, false));
    assert!(Asked::goes_on_to_controller(Version::V1, true));
    assert!(!Asked::goes_on_to_controller(Version::V0, false));
    assert!(Asked::goes_on_to_controller(Version::V0, true));
    assert_eq!(POLICY.controller_pkts(true, || 9), 9);
    assert_eq!(POLICY.controller_pkts(false, || unreachable!()), 3);
    for (version, family, one_packet, want) in [
        (Version::V1, Family::V4, false, true),
        (Version::V1, Family::V6, false, true),
        (Version::V1, Family::V4, true, false),
        (Version::V0, Family::V4, false, true),
        (Version::V0, Family::V6, false, false),
        (Version::V0, Family::V4, true, false),
    ] {
        assert_eq!(announce::can_be(version, family, one_packet), want);
    }
    assert_eq!(announce::first_endtime(1007), 1004);
}

#[test]
fn connections_that_are_known() {
    let record = |flags| Record { flags, ..record() };
    for (flags, same, want) in [
        (0, true, Known::Update),
        (INACTIVE, true, Known::Update),
        (0, false, Known::Replace),
        (INACTIVE, false, Known::Ignore),
        (TEMPLATE, false, Known::Update),
        (TEMPLATE | INACTIVE, false, Known::Update),
    ] {
        assert_eq!(receive::known(&record(flags), same), want);
    }
    for (old, new, active) in [
        (0, 0, 0),
        (INACTIVE, INACTIVE, 0),
        (0, INACTIVE, -1),
        (INACTIVE, 0, 1),
        (TEMPLATE | INACTIVE, TEMPLATE, 0),
        (TEMPLATE, TEMPLATE | INACTIVE, 0),
    ] {
        assert_eq!(receive::active_change(old, &record(new)), active);
    }
    // Only activity and sequence data are the record's.
    let all = !0;
    assert_eq!(receive::updated_flags(0, &record(all)), INACTIVE | SEQ_MASK);
    assert_eq!(
        receive::updated_flags(all, &record(0)),
        !(INACTIVE | SEQ_MASK)
    );
    // Method and way back are the destination's, and what it has beside.
    let (direct, nat) = (3 | NOOUTPUT | INACTIVE, NFCT | ONE_PACKET | INACTIVE);
    assert_eq!(receive::bound_flags(SYNC, direct), SYNC | 3 | NOOUTPUT);
    assert_eq!(
        receive::bound_flags(SYNC | 2 | NOOUTPUT | INACTIVE, nat),
        SYNC | INACTIVE | NFCT
    );
    assert_eq!(
        receive::bound_flags(SYNC | TEMPLATE, direct),
        SYNC | TEMPLATE | 3 | NOOUTPUT | INACTIVE
    );
}

#[test]
fn timeouts() {
    let of = |timeout, flags, table: Option<u32>| {
        let record = Record {
            timeout,
            flags,
            ..record()
        };
        receive::timeout(&record, HZ, |proto, state| {
            assert_eq!((proto, state), (record.proto, record.state));
            table
        })
    };
    assert_eq!(of(77, 0, Some(1)), 77 * 250);
    assert_eq!(of(77, TEMPLATE, Some(1)), 77 * 250);
    assert_eq!(of(0, 0, Some(123)), 123);
    assert_eq!(of(0, 0, None), 180 * 250);
    assert_eq!(of(0, TEMPLATE, Some(1)), 180 * 250);
    assert_eq!(of(u32::MAX, 0, Some(1)), Deadline::MAX_TIMEOUT);
    assert_eq!(of(0, 0, Some(u32::MAX)), Deadline::MAX_TIMEOUT);
}

#[test]
fn configuration() {
    use Family::{
        V4,
        V6, //
    };
    use Role::{
        Backup,
        Master, //
    };
    for (role, family, given, mtu, want) in [
        (Master, V4, 0, 1500, 1472),
        (Master, V4, 0, 9000, 1472),
        (Master, V6, 0, 9000, 1452),
        (Backup, V4, 0, 1500, 1472),
        (Backup, V4, 0, 576, 1472),
        (Backup, V4, 0, 9000, 8972),
        (Backup, V6, 0, 9000, 8952),
        (Backup, V4, 0, 100_000, 65_507),
        (Master, V4, 1, 1500, 1),
        (Backup, V4, 1, 1500, 1024),
        (Backup, V4, 1400, 9000, 1400),
        (Master, V4, 65_535, 1500, 65_507),
        (Backup, V6, 65_535, 1500, 65_487),
    ] {
        assert_eq!(
            daemon::maxlen(role, family, given, mtu),
            want,
            "{role:?} {family:?} {given} {mtu}"
        );
    }
    for (ports, want) in [(0, 1), (1, 1), (2, 2), (64, 64), (128, 64), (u32::MAX, 64)] {
        assert_eq!(daemon::threads(ports), want);
    }
    assert_eq!(daemon::GROUP, v4([224, 0, 0, 81]));
    assert_eq!(SENT_MASK & HASHED, 0);
    assert_eq!(SENT_MASK | HASHED, 0x1_3fe7);
}
