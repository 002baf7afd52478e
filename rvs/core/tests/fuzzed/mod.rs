// SPDX-License-Identifier: GPL-2.0-only

//! What the fuzz target (`fuzz/fuzz_targets/sync.rs`) and the test `sync` do with a datagram that comes in.

use rvs_core::{
    sync::{
        decode::{
            Bad,
            Datagram, //
        },
        encode::{
            self,
            Refused,
            Writer, //
        },
        receive,
        Record,
        Version, //
    },
    timeout::{
        Deadline,
        Hz, //
    },
    uapi::conn_flag,
};

/// Nothing panics; records lie within the datagram; what was read can be written, and is then read the same.
pub(crate) fn datagram(bytes: &[u8]) {
    let Ok(datagram) = Datagram::parse(bytes, 0) else {
        return;
    };
    assert!(Datagram::parse(bytes, u32::from(datagram.syncid()) + 256).is_err());
    let mut seen = 0_usize;
    let mut records = datagram.records();
    for record in records.by_ref() {
        seen += 1;
        match record {
            Ok(record) => {
                used(&record);
                again(datagram.version(), &record);
            }
            Err(bad) if bad.aborts() => break,
            Err(bad) => assert!(bad != Bad::Short),
        }
    }
    assert!(records.next().is_none() && records.next().is_none());
    assert!(seen <= usize::from(datagram.count()));
    let least = match datagram.version() {
        Version::V0 => 24,
        Version::V1 => 36,
    };
    assert!(seen.saturating_sub(1) * least <= bytes.len());
}

/// What any record that is used is like.
fn used(record: &Record<'_>) {
    assert_eq!(
        record.flags & !(conn_flag::BACKUP_MASK | conn_flag::SYNC),
        0
    );
    assert!(record.flags & conn_flag::SYNC != 0);
    assert!(!record.is_template() || record.flags & conn_flag::NO_CPORT == 0);
    if let Some(pe) = record.pe {
        assert!((1..=255).contains(&pe.data.len()) && (1..=16).contains(&pe.name.len()));
    }
    for hz in [100, 250, 1000] {
        assert!(receive::timeout(record, Hz::new(hz), |_, _| Some(7)) <= Deadline::MAX_TIMEOUT);
    }
}

/// Writes a record and reads it. Sequence data goes with the flags only.
fn again(version: Version, record: &Record<'_>) {
    let mut want = *record;
    if want.flags & conn_flag::SEQ_MASK == 0 {
        want.seq = None;
    } else {
        want.seq = Some(want.seq.unwrap_or_default());
    }
    let room = encode::room(version, record, 0).expect("what was read can be written");
    let mut bytes = vec![0xa5; room];
    let mut writer = Writer::new(version, 1, &mut bytes).expect("room for a header");
    writer.push(&mut bytes, record).expect("room for a record");
    assert_eq!((writer.len(), writer.count()), (room, 1));
    let before = bytes.clone();
    assert_eq!(writer.push(&mut bytes, record), Err(Refused::Full));
    assert_eq!(before, bytes);
    let datagram = Datagram::parse(&bytes, 1).expect("a right header");
    assert_eq!(datagram.version(), version);
    let read: Vec<_> = datagram.records().collect();
    assert_eq!(read, [Ok(want)]);
}
