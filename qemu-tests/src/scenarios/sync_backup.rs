// SPDX-License-Identifier: GPL-2.0-or-later

//! What a backup makes of what it hears: what a C master says is in its table, what is malformed is not, connections are created,
//! updated, bound and replaced, and packets go where the master's would.
//!
//! Proves checklist items 134, 135 (with `sync_hostile`) and, with `sync_master`, 136.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use super::sync_master::{services, GOLDEN, TCP_PORT, UDP_PORT};
use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::sync::{
    datagram_v0, datagram_v1, sized, unhex, Backup, Datagram, Link, Record, Row, CLOSE, DIRECT,
    ESTABLISHED, FIN_WAIT, INACTIVE, NAT, NO_CPORT, ONE_PACKET, SEQ, TEMPLATE,
};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "sync_backup",
    "what a backup makes of what a master says",
    &[134],
    run,
)
.partly(&[135, 136]);

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let link = Link::new(&rig.topo.director)?;
    let backup = Backup::start(&rig.topo.director, &link, "")?;
    replay(&backup).context("what C said")?;
    validation(&backup).context("validation")?;
    headers(&backup).context("headers")?;
    timeouts(&backup).context("timeouts")?;
    updates(&rig, &backup).context("updates")?;
    elsewhere(&rig, &backup).context("another server")?;
    packets(&rig, &backup).context("packets")?;
    late(&rig, &backup).context("late binding")?;
    no_room(&rig, &backup).context("no room")?;
    drop(backup);
    rig.ipvsadm("--stop-daemon backup")?;
    sync_id(&rig, &link).context("sync ID")
}

fn name(proto: u8) -> &'static str {
    match proto {
        0 => "IP",
        TCP => "TCP",
        UDP => "UDP",
        132 => "SCTP",
        _ => "?",
    }
}

/// The row of a record's connection.
fn find<'a>(rows: &'a [Row], record: &Record) -> Option<&'a Row> {
    rows.iter().find(|row| {
        row.proto == name(record.proto) && row.client == record.client && row.vip == record.vip
    })
}

/// All that the C module said, in the order in which it did.
fn replay(backup: &Backup<'_>) -> Result<()> {
    let mut last: BTreeMap<(u8, SocketAddr, SocketAddr), Record> = BTreeMap::new();
    let mut rows = Vec::new();
    for line in GOLDEN.lines().filter(|l| !l.starts_with('#')) {
        let (_, bytes) = line.split_once(": ").context("no name")?;
        let bytes = unhex(bytes)?;
        for record in Datagram::parse(&bytes)?.records {
            last.insert((record.proto, record.client, record.vip), record);
        }
        backup.socket.send(&bytes)?;
        // No more at once than any socket's buffer takes.
        if last.len() % 8 == 0 {
            rows = backup.settled()?;
        }
    }
    rows.clear();
    rows.extend(backup.settled()?);
    for record in last.values() {
        let row = find(&rows, record).with_context(|| format!("not there: {record:?}"))?;
        let state = match (record.proto, record.flags & TEMPLATE != 0, record.state) {
            (_, true, 0) => "NONE",
            (_, true, _) => "ASSURED",
            (TCP, _, 4) => "FIN_WAIT",
            (TCP, _, 5) => "TIME_WAIT",
            (TCP, _, 6) => "CLOSE",
            (TCP, _, 7) => "CLOSE_WAIT",
            (UDP, _, 0) => "UDP",
            other => anyhow::bail!("{other:?}"),
        };
        ensure!(
            row.synced && row.dest == record.dest && row.state == state,
            "{record:?}: {row:?}"
        );
        if record.timeout != 0 {
            ensure!(row.expires <= record.timeout, "{record:?}: {row:?}");
        }
    }
    ensure!(rows.len() == last.len(), "{rows:#?}");
    Ok(())
}

/// A good connection of a client that only this number has.
fn good(n: u16) -> Record {
    Record::new(
        TCP,
        at(Family::V4.raw_client(n), 7000),
        at(Family::V4.vip(), TCP_PORT),
        at(Family::V4.raw_rs(1), 8080),
        NAT,
        ESTABLISHED,
    )
    .with(|r| r.timeout = 500)
}

fn good6(n: u16) -> Record {
    Record {
        client: at(Family::V6.raw_client(n), 7000),
        vip: at(Family::V6.vip(), TCP_PORT),
        dest: at(Family::V6.raw_rs(1), 8080),
        ..good(n)
    }
}

/// What becomes of a record between two good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Used,
    Skipped,
    /// With all behind it.
    Aborts,
}

/// Changes bytes of a record.
fn patched(record: &Record, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut b = record.v1();
    b[at..at + bytes.len()].copy_from_slice(bytes);
    b
}

/// A record with raw bytes for options.
fn with_options(record: &Record, options: &[u8]) -> Vec<u8> {
    let mut b = record.v1();
    b.extend(options);
    let len = (b.len() as u16).to_be_bytes();
    b[2..4].copy_from_slice(&len);
    b
}

fn option(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut b = vec![kind, value.len() as u8];
    b.extend(value);
    b
}

fn validation(backup: &Backup<'_>) -> Result<()> {
    use Fate::{Aborts, Skipped, Used};
    let mut n = 0x5000;
    let mut record = |f: &dyn Fn(&mut Record)| {
        n += 1;
        good(n).with(|r| f(r))
    };
    let plain = &|_: &mut Record| {};
    let seq = [7; 24];
    // The record that is looked for, its bytes, and what becomes of it.
    let mut cases: Vec<(&str, Record, Vec<u8>, Fate)> = Vec::new();
    let mut case = |what, record: Record, bytes: Option<Vec<u8>>, fate| {
        let bytes = bytes.unwrap_or_else(|| record.v1());
        cases.push((what, record, bytes, fate));
    };

    case("plain", record(plain), None, Used);
    for (what, flags, fate) in [
        ("ONE_PACKET", ONE_PACKET, Skipped),
        ("ONE_PACKET template", ONE_PACKET | TEMPLATE, Skipped),
        ("NO_CPORT template", NO_CPORT | TEMPLATE, Skipped),
        ("all flags above", 0xffff_0000, Used),
        ("SYNC and HASHED", 0x60, Used),
        ("INACTIVE", INACTIVE, Used),
        ("without client port", NO_CPORT, Used),
        ("with sequence flags", SEQ, Used),
        ("of an unknown method", 6, Used),
    ] {
        let r = record(&|r| {
            r.flags = flags;
            if flags == NO_CPORT {
                r.client.set_port(0);
            }
        });
        case(what, r, None, fate);
    }
    for (what, proto, state, fate) in [
        ("TCP state 10", TCP, 10, Used),
        ("TCP state 11", TCP, 11, Skipped),
        ("TCP state 257", TCP, 257, Skipped),
        ("TCP state 65535", TCP, 65_535, Skipped),
        ("UDP state 0", UDP, 0, Used),
        ("UDP state 1", UDP, 1, Skipped),
        ("SCTP state 13", 132, 13, Used),
        ("SCTP state 14", 132, 14, Skipped),
        ("ICMP", 1, 0, Skipped),
        ("protocol 255", 255, 0, Skipped),
        ("protocol 0", 0, 0, Skipped),
    ] {
        let r = record(&|r| (r.proto, r.state) = (proto, state));
        case(what, r, None, fate);
    }
    for (what, state, fate) in [
        ("template state 0", 0, Used),
        ("template state 1", 1, Used),
        ("template state 2", 2, Skipped),
        ("template state 256", 256, Skipped),
    ] {
        let r = record(&|r| {
            (r.flags, r.state) = (TEMPLATE, state);
            r.client.set_port(0);
        });
        case(what, r, None, fate);
    }

    let opt = |r: &Record, options: &[Vec<u8>]| Some(with_options(r, &options.concat()));
    for (what, options, fate) in [
        ("sequence option", vec![option(1, &seq)], Used),
        ("optional sequence option", vec![option(0x41, &seq)], Used),
        ("sequence option of 23", vec![option(1, &seq[1..])], Aborts),
        ("sequence option of 25", vec![option(1, &[0; 25])], Aborts),
        (
            "sequence option twice",
            vec![option(1, &seq), option(1, &seq)],
            Aborts,
        ),
        (
            "sequence option by two names",
            vec![option(1, &seq), option(0x41, &seq)],
            Aborts,
        ),
        ("engine name only", vec![option(3, b"sip")], Used),
        ("engine name of 16", vec![option(3, &[b'x'; 16])], Used),
        ("engine name of 17", vec![option(3, &[b'x'; 17])], Aborts),
        (
            "engine name twice",
            vec![option(3, b"a"), option(3, b"b")],
            Aborts,
        ),
        ("engine data only", vec![option(2, b"data")], Skipped),
        (
            "engine data twice",
            vec![option(2, b"a"), option(2, b"b")],
            Aborts,
        ),
        (
            "engine that is not there",
            vec![option(2, &[1; 255]), option(3, b"nosuch")],
            Skipped,
        ),
        (
            "engine that is not there, name first",
            vec![option(3, b"nosuch"), option(2, b"x")],
            Skipped,
        ),
        ("unknown option", vec![option(9, b"x")], Skipped),
        ("unknown option 0", vec![option(0, b"x")], Skipped),
        ("unknown option 0x80", vec![option(0x80, b"x")], Skipped),
        ("unknown optional option", vec![option(0x49, b"x")], Used),
        (
            "unknown optional options",
            vec![option(0x40, b"x"), option(0xff, &[9; 255])],
            Used,
        ),
        (
            "unknown option, then garbage",
            vec![option(9, b"x"), vec![1]],
            Skipped,
        ),
        (
            "garbage, then unknown option",
            vec![option(1, b"x"), option(9, b"x")],
            Aborts,
        ),
        ("empty option", vec![vec![0x49, 0]], Aborts),
        ("option without length", vec![vec![0x49]], Aborts),
        ("option beyond the record", vec![vec![0x49, 2, 0]], Aborts),
        ("odd length", vec![option(0x49, b"abc")], Used),
        ("length 2 of 4", vec![option(0x49, b"abcd")], Used),
        ("length 3 of 4", vec![option(0x49, b"abcde")], Used),
    ] {
        let r = record(plain);
        let bytes = opt(&r, &options);
        case(what, r, bytes, fate);
    }
    for (what, offset, bytes, fate) in [
        ("version 1 of the record", 2, &[0x10, 36][..], Aborts),
        ("length 35", 2, &[0, 35], Aborts),
        ("length 0", 2, &[0, 0], Aborts),
        ("length beyond the datagram", 2, &[0x0f, 0xff], Aborts),
        ("type 2", 0, &[2], Aborts),
        ("type 128", 0, &[128], Aborts),
        ("IPv6 that is too short", 0, &[1], Aborts),
    ] {
        let r = record(plain);
        let bytes = patched(&r, offset, bytes);
        case(what, r, Some(bytes), fate);
    }
    n += 1;
    let r = good6(n);
    case("IPv6", r.clone(), None, Used);
    n += 1;
    let r = good6(n);
    let bytes = patched(&r, 0, &[0xff]);
    case("IPv6, any odd type", r, Some(bytes), Used);

    let mut wrong = Vec::new();
    for (first, (what, record, bytes, fate)) in (0x6000..).step_by(2).zip(&cases) {
        let (before, after) = (good(first), good(first + 1));
        let rows = backup.say(&[datagram_v1(0, &[before.v1(), bytes.clone(), after.v1()])])?;
        let there = [&before, record, &after].map(|r| find(&rows, r).is_some());
        let want = [true, *fate == Used, *fate != Aborts];
        if there != want {
            wrong.push(format!("{what}: {fate:?}, but {there:?}"));
        }
    }
    println!("{} records", cases.len());
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    // Version 0 has fewer ways to be wrong.
    let seqs = |r: &mut Record| (r.flags, r.seq0) = (SEQ, Some([1; 6]));
    for (n, (what, f, fate)) in [
        (
            "plain",
            Box::new(|_: &mut Record| {}) as Box<dyn Fn(&mut Record)>,
            Used,
        ),
        ("sequence data", Box::new(seqs), Used),
        ("ONE_PACKET", Box::new(|r| r.flags = ONE_PACKET), Skipped),
        (
            "NO_CPORT template",
            Box::new(|r| r.flags = NO_CPORT | TEMPLATE),
            Skipped,
        ),
        ("state 11", Box::new(|r| r.state = 11), Skipped),
        ("template", Box::new(|r| r.flags = TEMPLATE), Used),
        (
            "template state 2",
            Box::new(|r| (r.flags, r.state) = (TEMPLATE, 2)),
            Skipped,
        ),
        ("ICMP", Box::new(|r| r.proto = 1), Skipped),
    ]
    .into_iter()
    .enumerate()
    {
        let n = 0x7000 + 3 * n as u16;
        let record = good(n).with(|r| f(r));
        let (before, after) = (good(n + 1), good(n + 2));
        let rows = backup.say(&[datagram_v0(0, &[before.v0(), record.v0(), after.v0()])])?;
        let there = [&before, &record, &after].map(|r| find(&rows, r).is_some());
        ensure!(
            there == [true, fate == Used, fate != Aborts],
            "version 0, {what}: {there:?}"
        );
    }
    Ok(())
}

fn headers(backup: &Backup<'_>) -> Result<()> {
    let r = |n: u16| good(0x7100 + n);
    let two = |n: u16| datagram_v1(0, &[r(n).v1(), r(n + 1).v1()]);
    let change = |mut b: Vec<u8>, at: usize, byte: u8| {
        b[at] = byte;
        b
    };
    let cut = |mut b: Vec<u8>, less: usize| {
        b.truncate(b.len() - less);
        b
    };
    let more = |mut b: Vec<u8>, more: usize| {
        b.resize(b.len() + more, 0);
        b
    };
    let two0 = |n: u16| datagram_v0(0, &[r(n).v0(), r(n + 1).v0()]);
    // Datagram and how many of the two are used.
    for (what, n, bytes, want) in [
        ("right", 0, two(0), 2),
        ("size too small", 10, cut(two(10), 1), 0),
        ("size too large", 20, more(two(20), 1), 0),
        ("bytes behind", 30, sized(more(two(30), 5)), 2),
        ("cut off, and says so", 40, sized(cut(two(40), 1)), 1),
        ("count 1", 50, change(two(50), 4, 1), 1),
        ("count 0", 60, change(two(60), 4, 0), 0),
        ("count 255", 70, change(two(70), 4, 255), 2),
        ("version 2", 80, change(two(80), 5, 2), 0),
        ("version 0 without records", 90, change(two(90), 5, 0), 0),
        ("spare byte", 100, change(two(100), 6, 1), 0),
        ("other spare byte", 110, change(two(110), 7, 1), 0),
        ("version 0", 120, two0(120), 2),
        ("version 0, bytes behind", 130, sized(more(two0(130), 9)), 2),
        ("version 0, cut off", 140, sized(cut(two0(140), 1)), 1),
        ("version 0, count 255", 150, change(two0(150), 0, 255), 2),
        ("version 0, count 1", 160, change(two0(160), 0, 1), 1),
        // The first 8 bytes are those of version 1, but for the first.
        (
            "version 0, sequence data cut off",
            170,
            datagram_v0(0, &[r(170).v0(), r(171).with(|r| r.flags = SEQ).v0()]),
            1,
        ),
        ("no byte", 180, vec![], 0),
        ("one byte", 180, vec![0], 0),
        ("four bytes", 180, sized(vec![0; 4]), 0),
        ("four bytes and a count", 180, sized(vec![9; 4]), 0),
        ("seven bytes", 180, sized(vec![0, 0, 0, 0, 9, 1, 0]), 0),
        ("header only", 180, sized(vec![0, 0, 0, 0, 9, 1, 0, 0]), 0),
    ] {
        let rows = backup.say(&[bytes])?;
        let there = [n, n + 1].map(|n| find(&rows, &r(n)).is_some());
        let want = [want > 0, want > 1];
        ensure!(there == want, "{what}: {there:?}");
    }
    Ok(())
}

fn timeouts(backup: &Backup<'_>) -> Result<()> {
    let r = |n: u16, f: &dyn Fn(&mut Record)| good(0x7200 + n).with(|r| f(r));
    let v1 = |r: &Record| datagram_v1(0, &[r.v1()]);
    let v0 = |r: &Record| datagram_v0(0, &[r.v0()]);
    let udp = |r: &mut Record| {
        (r.proto, r.state, r.timeout) = (UDP, 0, 0);
        r.vip.set_port(UDP_PORT);
    };
    let cases: Vec<(&str, Record, bool, u32)> = vec![
        ("77 s", r(1, &|r| r.timeout = 77), false, 77),
        ("none, established", r(2, &|r| r.timeout = 0), false, 900),
        (
            "none, FIN_WAIT",
            r(3, &|r| (r.timeout, r.state) = (0, FIN_WAIT)),
            false,
            120,
        ),
        ("none, UDP", r(4, &udp), false, 300),
        (
            "none, template",
            r(5, &|r| (r.timeout, r.flags, r.state) = (0, TEMPLATE, 0)),
            false,
            180,
        ),
        (
            "template",
            r(6, &|r| (r.timeout, r.flags, r.state) = (42, TEMPLATE, 0)),
            false,
            42,
        ),
        ("version 0, established", r(7, &|_| {}), true, 900),
        (
            "version 0, closed",
            r(8, &|r| (r.state, r.flags) = (CLOSE, INACTIVE)),
            true,
            10,
        ),
        (
            "version 0, template",
            r(9, &|r| (r.flags, r.state) = (TEMPLATE, 1)),
            true,
            180,
        ),
        (
            "three weeks",
            r(10, &|r| r.timeout = 1_814_400),
            false,
            1_814_400,
        ),
    ];
    let all: Vec<Vec<u8>> = cases
        .iter()
        .map(|(_, r, old, _)| if *old { v0(r) } else { v1(r) })
        .collect();
    let rows = backup.say(&all)?;
    for (what, record, _, want) in &cases {
        let row = find(&rows, record).with_context(|| (*what).to_owned())?;
        ensure!(
            row.expires <= *want && row.expires + 30 > *want,
            "{what}: {row:?}"
        );
    }
    // As long as can be: longer than any that can be configured, however it is cut.
    let long = r(11, &|r| r.timeout = u32::MAX);
    let rows = backup.say(&[v1(&long)])?;
    let row = find(&rows, &long).context("the longest")?;
    ensure!(row.expires > 2_000_000, "{row:?}");
    Ok(())
}

/// Active and inactive connections of the server of the TCP service.
fn counts(rig: &Rig) -> Result<[u32; 3]> {
    let dest = Ipvs::open(&rig.topo.director)?.dest(
        TCP,
        at(Family::V4.vip(), TCP_PORT),
        at(Family::V4.raw_rs(1), 8080),
    )?;
    Ok([dest.active, dest.inact, dest.persist])
}

fn updates(rig: &Rig, backup: &Backup<'_>) -> Result<()> {
    let record = good(0x7300);
    let [active, inactive, persist] = counts(rig)?;
    let say = |backup: &Backup<'_>, f: &dyn Fn(&mut Record)| -> Result<(Row, [u32; 3])> {
        let record = record.clone().with(|r| f(r));
        let rows = backup.say(&[datagram_v1(0, &[record.v1()])])?;
        let row = find(&rows, &record).context("gone")?;
        ensure!(row.synced, "{row:?}");
        let [a, i, p] = counts(rig)?;
        Ok((
            row.clone(),
            [a - active, i.wrapping_sub(inactive), p - persist],
        ))
    };
    let (row, counted) = say(backup, &|_| {})?;
    ensure!(
        row.state == "ESTABLISHED" && counted == [1, 0, 0],
        "created: {row:?} {counted:?}"
    );
    let (row, counted) = say(backup, &|r| {
        (r.flags, r.state, r.timeout) = (INACTIVE, FIN_WAIT, 50);
    })?;
    ensure!(
        row.state == "FIN_WAIT" && row.expires <= 50 && counted == [0, 1, 0],
        "inactive: {row:?} {counted:?}"
    );
    let (_, counted) = say(backup, &|r| r.flags = INACTIVE)?;
    ensure!(counted == [0, 1, 0], "inactive again: {counted:?}");
    let (_, counted) = say(backup, &|_| {})?;
    ensure!(counted == [1, 0, 0], "active again: {counted:?}");
    // Templates count as persistent, whatever they say of activity.
    let template = good(0x7301).with(|r| {
        (r.flags, r.state) = (TEMPLATE, 0);
        r.client.set_port(0);
    });
    for flags in [TEMPLATE, TEMPLATE | INACTIVE, TEMPLATE] {
        let record = template.clone().with(|r| r.flags = flags);
        backup.say(&[datagram_v1(0, &[record.v1()])])?;
        let now = counts(rig)?;
        ensure!(
            now == [active + 1, inactive, persist + 1],
            "{flags:#x}: {now:?}, before {active} {inactive} {persist}"
        );
    }
    Ok(())
}

/// A record whose connection leads to another server.
fn elsewhere(rig: &Rig, backup: &Backup<'_>) -> Result<()> {
    let vip = at(Family::V4.vip(), TCP_PORT);
    rig.ipvsadm(&format!(
        "-a -t {vip} -r {} -m",
        at(Family::V4.raw_rs(2), 8080)
    ))?;
    let first = good(0x7400);
    let second = first
        .clone()
        .with(|r| r.dest = at(Family::V4.raw_rs(2), 8080));
    let say = |backup: &Backup<'_>, r: &Record| -> Result<Row> {
        let rows = backup.say(&[datagram_v1(0, &[r.v1()])])?;
        let of_it: Vec<&Row> = rows
            .iter()
            .filter(|row| row.client == r.client && row.vip == r.vip)
            .collect();
        // The one that was replaced may not have gone yet; a lookup finds the newer one.
        let row = of_it
            .iter()
            .find(|row| row.dest == r.dest)
            .or(of_it.first());
        Ok((*row.context("gone")?).clone())
    };
    ensure!(say(backup, &first)?.dest == first.dest, "first");
    let row = say(backup, &second.clone().with(|r| r.flags = INACTIVE))?;
    ensure!(row.dest == first.dest, "an end is not for us: {row:?}");
    let row = say(backup, &second)?;
    ensure!(row.dest == second.dest, "replaced: {row:?}");
    crate::wait::until_true("the old one is gone", 3.0, || {
        Ok(backup
            .settled()?
            .iter()
            .filter(|row| row.client == first.client)
            .count()
            == 1)
    })?;
    let row = say(backup, &second.clone().with(|r| r.dest.set_port(1)))?;
    ensure!(row.dest.port() == 1, "another port: {row:?}");
    // A template is kept as it is.
    let template = good(0x7401).with(|r| {
        (r.flags, r.state) = (TEMPLATE, 0);
        r.client.set_port(0);
    });
    say(backup, &template)?;
    let other = template.clone().with(|r| {
        r.dest = at(Family::V4.raw_rs(2), 8080);
        r.timeout = 60;
    });
    let row = say(backup, &other)?;
    ensure!(
        row.dest == template.dest && row.expires <= 60,
        "template: {row:?}"
    );
    rig.ipvsadm(&format!(
        "-d -t {vip} -r {}",
        at(Family::V4.raw_rs(2), 8080)
    ))
    .map(drop)
}

/// Packets of connections that came by synchronisation.
fn packets(rig: &Rig, backup: &Backup<'_>) -> Result<()> {
    for family in Family::BOTH {
        let base = if family == Family::V4 { good } else { good6 };
        let direct = at(family.vip(), 82);
        // No destination of the service: it stays unbound, and goes where the record says.
        let unbound = base(0x7501).with(|r| r.dest = at(family.raw_rs(7), 7777));
        // By the method of the destination, not of the record.
        let by_dest = base(0x7502).with(|r| {
            (r.vip, r.dest) = (direct, at(family.raw_rs(1), 82));
        });
        let by_record = base(0x7503).with(|r| {
            (r.vip, r.dest, r.flags) = (direct, at(family.raw_rs(8), 82), DIRECT);
        });
        let bound = base(0x7500);
        let all = [&bound, &unbound, &by_dest, &by_record];
        backup.say(&all.map(|r| datagram_v1(0, &[r.v1()])))?;
        for record in all {
            let io = rig.exchange(Side::Client, &[Pkt::tcp(record.client, record.vip, ACK)])?;
            let came = io.one_at_server().with_context(|| format!("{record:?}"))?;
            let want = if record.vip == direct {
                direct
            } else {
                record.dest
            };
            ensure!(came.dest() == want, "{record:?}: {came:?}");
        }
        // The way back.
        for record in [&bound, &unbound] {
            let came = rig
                .returned(&Pkt::tcp(record.dest, record.client, ACK))
                .with_context(|| format!("{record:?}"))?;
            ensure!(came.source() == record.vip, "{came:?}");
        }
    }
    Ok(())
}

/// A connection is bound when it is heard of again, if its destination is there then.
fn late(rig: &Rig, backup: &Backup<'_>) -> Result<()> {
    let vip = at(Family::V4.vip(), 88);
    let rs = at(Family::V4.raw_rs(3), 8888);
    let record = good(0x7600).with(|r| (r.vip, r.dest) = (vip, rs));
    let bytes = datagram_v1(0, &[record.v1()]);
    backup.say(std::slice::from_ref(&bytes))?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let counted = || -> Result<[u32; 2]> {
        let dest = Ipvs::open(&rig.topo.director)?.dest(TCP, vip, rs)?;
        Ok([dest.active, dest.inact])
    };
    ensure!(counted()? == [0, 0], "bound by itself: {:?}", counted()?);
    backup.say(&[bytes])?;
    ensure!(counted()? == [1, 0], "not bound: {:?}", counted()?);
    let came = rig.forwarded(&Pkt::tcp(record.client, vip, ACK))?;
    ensure!(came.dest() == rs, "{came:?}");
    Ok(())
}

/// No more connections than there may be; those that are there are updated all the same.
fn no_room(rig: &Rig, backup: &Backup<'_>) -> Result<()> {
    let director = &rig.topo.director;
    let (known, new) = (good(0x7800), good(0x7801));
    let rows = backup.say(&[datagram_v1(0, &[known.v1()])])?;
    let before = director.sysctl("net.ipv4.vs.conn_max")?;
    // Connections of other tests may end meanwhile, so that there is room: fewer than that.
    director.set_sysctl("net.ipv4.vs.conn_max", rows.len() / 2)?;
    let ended = known
        .clone()
        .with(|r| (r.state, r.flags) = (FIN_WAIT, INACTIVE));
    backup
        .socket
        .send(&datagram_v1(0, &[new.v1(), ended.v1()]))?;
    crate::wait::until_true("the update", 5.0, || {
        let rows = crate::sync::rows(director)?;
        ensure!(find(&rows, &new).is_none(), "made beyond conn_max");
        Ok(find(&rows, &known).is_some_and(|row| row.state == "FIN_WAIT"))
    })?;
    director.set_sysctl("net.ipv4.vs.conn_max", before)?;
    let rows = backup.say(&[datagram_v1(0, &[new.v1()])])?;
    ensure!(find(&rows, &new).is_some(), "not made afterwards");
    Ok(())
}

/// A backup with a sync ID listens to that one only.
fn sync_id(rig: &Rig, link: &Link) -> Result<()> {
    let mut backup = Backup::start(&rig.topo.director, link, "--syncid 7")?;
    backup.syncid = 7;
    let r = |n: u16| good(0x7700 + n);
    let mut rows = Vec::new();
    for (n, syncid) in [(1, 7), (2, 8), (3, 0), (4, 255), (5, 7)] {
        backup.socket.send(&datagram_v1(syncid, &[r(n).v1()]))?;
        rows = backup.say(&[datagram_v0(syncid, &[r(n + 10).v0()])])?;
    }
    for n in [1, 2, 3, 4, 5, 11, 12, 13, 14, 15] {
        let there = find(&rows, &r(n)).is_some();
        ensure!(there == [1, 5, 11, 15].contains(&n), "{n}: {there}");
    }
    drop(backup);
    rig.ipvsadm("--stop-daemon backup")?;
    Ok(())
}
