// SPDX-License-Identifier: GPL-2.0-or-later

//! What a master says, and when: the bytes of both versions of the protocol against what the C module said to the same packets
//! (`rvs/core/tests/sync_golden.txt`), thresholds, periods, refreshes and retries, templates, and a queue without room.
//!
//! Proves checklist items 128 (without persistence engines), 129, 130, 132 (the queue) and, with `sync_backup`, 136.

use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, FIN, RST, SYN, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::sync::{
    datagram_v1, hex, Backup, Master, Record, CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT, INACTIVE,
    SEQ, TEMPLATE,
};
use crate::topo::{at, Family};
use crate::wait::{pass, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "sync_master",
    "what a master director says about its connections, and when",
    &[129, 130],
    run,
)
.partly(&[128, 132, 136]);

/// What the C module said.
pub(super) const GOLDEN: &str = include_str!("../../../rvs/core/tests/sync_golden.txt");

type Part = (&'static str, fn(&mut Master) -> Result<()>);

fn run(cx: &Cx) -> Result<()> {
    let mut m = Master::new("")?;
    services(&m.rig)?;
    golden(cx, &mut m)?;
    relayed(cx, &mut m).context("relayed")?;
    let parts: &[Part] = &[
        ("thresholds", thresholds),
        ("refresh", refresh),
        ("persist mode", persist_mode),
        ("an end that is put off", deferred),
        ("no room in the queue", no_queue),
    ];
    for (what, part) in parts {
        part(&mut m).context(*what)?;
    }
    Ok(())
}

pub(super) const TCP_PORT: u16 = 80;
pub(super) const UDP_PORT: u16 = 53;
const STICKY_PORT: u16 = 81;
const DIRECT_PORT: u16 = 82;
const SHORT_PORT: u16 = 83;
const ONE_PACKET_PORT: u16 = 54;
/// Packets to this port have a mark.
const MARKED_PORT: u16 = 90;
const MARK: u32 = 0x1234;

/// The services of both families, all with one crafted server.
pub(super) fn services(rig: &Rig) -> Result<()> {
    let director = &rig.topo.director;
    director.cmd("nft add table inet t")?;
    director.cmd("nft add chain inet t pre { type filter hook prerouting priority -150 ; }")?;
    director.cmd(&format!(
        "nft add rule inet t pre udp dport {MARKED_PORT} meta mark set {MARK}"
    ))?;
    let mut table = String::new();
    for family in Family::BOTH {
        let (vip, rs) = (family.vip(), family.raw_rs(1));
        let v6 = if family == Family::V6 { " -6" } else { "" };
        table += &format!(
            "-A -t {} -s rr\n-a -t {} -r {} -m\n",
            at(vip, TCP_PORT),
            at(vip, TCP_PORT),
            at(rs, 8080)
        );
        table += &format!(
            "-A -u {} -s rr\n-a -u {} -r {} -m\n",
            at(vip, UDP_PORT),
            at(vip, UDP_PORT),
            at(rs, 5300)
        );
        table += &format!(
            "-A -t {} -s rr -p 100 -M {}\n-a -t {} -r {} -m\n",
            at(vip, STICKY_PORT),
            if v6.is_empty() { "255.255.255.0" } else { "64" },
            at(vip, STICKY_PORT),
            at(rs, 8081)
        );
        table += &format!(
            "-A -t {} -s rr\n-a -t {} -r {} -g\n",
            at(vip, DIRECT_PORT),
            at(vip, DIRECT_PORT),
            at(rs, DIRECT_PORT)
        );
        table += &format!(
            "-A -u {} -s rr -p 300 -o\n-a -u {} -r {} -m\n",
            at(vip, ONE_PACKET_PORT),
            at(vip, ONE_PACKET_PORT),
            at(rs, 5400)
        );
        table += &format!(
            "-A -t {} -s rr -p 1\n-a -t {} -r {} -m\n",
            at(vip, SHORT_PORT),
            at(vip, SHORT_PORT),
            at(rs, 8083)
        );
        table += &format!(
            "-A -f {MARK}{v6} -s rr -p 200\n-a -f {MARK}{v6} -r {} -m\n",
            at(rs, 9090)
        );
    }
    director.cmd_stdin("ipvsadm -R", &table).map(drop)
}

/// The same packets for each version and peer; what is said about them is the same, byte for byte.
fn golden(cx: &Cx, m: &mut Master) -> Result<()> {
    let mut lines = Vec::new();
    for version in [1, 0] {
        m.rig
            .topo
            .director
            .set_sysctl("net.ipv4.vs.sync_version", version)?;
        // What was said in the other version is behind us.
        m.since()?;
        for family in Family::BOTH {
            for (what, from, pkts) in conversation(family, version) {
                let heard = m.heard(from, &pkts)?;
                let name = format!("v{version} {family:?} {what}");
                for h in &heard {
                    ensure!(h.said.version == version, "{name}: {h:?}");
                    lines.push(format!("{name}: {}", hex(&h.pkt.body)));
                }
                let records: Vec<Record> = heard.into_iter().flat_map(|h| h.said.records).collect();
                plausible(&name, version, family, &what, &records)
                    .with_context(|| format!("{name}: {records:#?}"))?;
            }
        }
    }
    m.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.sync_version", 1)?;
    m.since()?;
    if cx.peer == Peer::C {
        for line in &lines {
            println!("golden {line}");
        }
    }
    let want: Vec<&str> = GOLDEN
        .lines()
        .filter(|l| !l.starts_with('#') && !l.contains(RELAYED))
        .collect();
    let wrong: Vec<String> = lines
        .iter()
        .zip(want.iter())
        .filter(|(a, b)| a != b)
        .map(|(a, b)| format!("said\n  {a}\nC said\n  {b}"))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(lines.len() == want.len(), "{lines:#?}\nC said {want:#?}");
    Ok(())
}

/// In the names of those datagrams of [`GOLDEN`] that tell of connections that the master was told of itself.
const RELAYED: &str = "relayed";

/// A director that is backup and master at once. C tells of sequence data that it was told of (it has none of its own); rvs does
/// not keep any. Packets of a connection that came by synchronisation are counted from the threshold on.
fn relayed(cx: &Cx, m: &mut Master) -> Result<()> {
    let seq: Vec<u8> = (1..=24).collect();
    let mut is_new = false;
    for version in [1, 0] {
        let director = &m.rig.topo.director;
        director.set_sysctl("net.ipv4.vs.sync_version", version)?;
        let client = at(Family::V4.raw_client(0x4100 + version), 1000);
        let vip = at(Family::V4.vip(), TCP_PORT);
        let record = Record::new(
            TCP,
            client,
            vip,
            at(Family::V4.raw_rs(1), 8080),
            SEQ,
            ESTABLISHED,
        )
        .with(|r| r.options = vec![(1, seq.clone())]);
        let backup = Backup::start(director, &m.link, "")?;
        backup.say(&[datagram_v1(0, &[record.v1()])])?;
        drop(backup);
        m.rig.ipvsadm("--stop-daemon backup")?;
        m.since()?;
        let heard = m.heard(Side::Client, &[Pkt::tcp(client, vip, FIN | ACK)])?;
        ensure!(
            heard.len() == 1 && heard[0].said.records[0].state == CLOSE_WAIT,
            "{heard:#?}"
        );
        let said = &heard[0].said.records[0];
        if cx.peer == Peer::Rvs {
            ensure!(
                said.flags & SEQ == 0 && said.options.is_empty() && said.seq0.is_none(),
                "{said:?}"
            );
            continue;
        }
        let line = format!("v{version} V4 {RELAYED}: {}", hex(&heard[0].pkt.body));
        println!("golden {line}");
        ensure!(
            said.flags & SEQ == SEQ && (version == 0 || said.options == record.options),
            "{said:?}"
        );
        is_new |= !GOLDEN.lines().any(|l| l == line);
    }
    ensure!(!is_new, "not what C said before");
    let director = &m.rig.topo.director;
    director.set_sysctl("net.ipv4.vs.sync_version", 1)?;
    let client = at(Family::V4.raw_client(0x4102), 1000);
    let vip = at(Family::V4.vip(), UDP_PORT);
    let rs = at(Family::V4.raw_rs(1), 5300);
    let record = Record::new(UDP, client, vip, rs, INACTIVE, 0);
    let backup = Backup::start(director, &m.link, "")?;
    backup.say(&[datagram_v1(0, &[record.v1()])])?;
    drop(backup);
    m.rig.ipvsadm("--stop-daemon backup")?;
    m.since()?;
    // 3 + 49 is not 53.
    for (n, want) in [(49, 0), (1, 1), (1, 0)] {
        let pkts = vec![Pkt::udp(client, vip, b"x"); n];
        let said = m.announced(Side::Client, &pkts)?;
        ensure!(said.len() == want, "after {n} packets: {said:#?}");
    }
    Ok(())
}

/// A template whose time is over while it has connections is announced with the time that it got.
fn deferred(m: &mut Master) -> Result<()> {
    let client = at(Family::V4.raw_client(0x4200), 1000);
    let vip = at(Family::V4.vip(), SHORT_PORT);
    let said = m.announced(
        Side::Client,
        &[SYN, ACK].map(|flags| Pkt::tcp(client, vip, flags)),
    )?;
    let is_template =
        |r: &Record, timeout| r.vip == vip && r.flags & TEMPLATE != 0 && r.timeout == timeout;
    ensure!(said.iter().any(|r| is_template(r, 1)), "{said:#?}");
    // On a slow guest that was long enough.
    let mut is_again = said.iter().any(|r| is_template(r, 60));
    until_true("the template is announced again", 4.0, || {
        let heard = m.since()?;
        is_again |= heard
            .iter()
            .flat_map(|h| &h.said.records)
            .any(|r| is_template(r, 60));
        Ok(is_again)
    })
}

type Exchange = (String, Side, Vec<Pkt>);

/// What clients and servers send.
fn conversation(family: Family, version: u8) -> Vec<Exchange> {
    // The connections of the other version live on.
    let port = 4000 + 100 * u16::from(version);
    let client = |n: u16| at(family.raw_client(n), port + n);
    let to = |port| at(family.vip(), port);
    let rs = at(family.raw_rs(1), 8080);
    let tcp = |n, port, flags| Pkt::tcp(client(n), to(port), flags);
    let (c, s) = (Side::Client, Side::Server);
    let named = |(what, side, pkts): (&str, Side, Vec<Pkt>)| (what.to_owned(), side, pkts);
    [
        ("SYN", c, vec![tcp(1, TCP_PORT, SYN)]),
        ("SYN-ACK", s, vec![Pkt::tcp(rs, client(1), SYN | ACK)]),
        ("second packet", c, vec![tcp(1, TCP_PORT, ACK)]),
        ("third packet", c, vec![tcp(1, TCP_PORT, ACK)]),
        ("fourth packet", c, vec![tcp(1, TCP_PORT, ACK)]),
        ("server FIN", s, vec![Pkt::tcp(rs, client(1), FIN | ACK)]),
        ("after FIN", c, vec![tcp(1, TCP_PORT, ACK)]),
        ("client FIN", c, vec![tcp(1, TCP_PORT, FIN | ACK)]),
        ("again", c, vec![tcp(1, TCP_PORT, ACK)]),
        (
            "reset",
            c,
            vec![
                tcp(2, TCP_PORT, SYN),
                tcp(2, TCP_PORT, ACK),
                tcp(2, TCP_PORT, RST),
            ],
        ),
        (
            "direct",
            c,
            vec![
                tcp(3, DIRECT_PORT, SYN),
                tcp(3, DIRECT_PORT, ACK),
                tcp(3, DIRECT_PORT, ACK),
                tcp(3, DIRECT_PORT, FIN | ACK),
            ],
        ),
        ("UDP", c, vec![Pkt::udp(client(4), to(UDP_PORT), b"x"); 54]),
        (
            "sticky",
            c,
            vec![
                tcp(5, STICKY_PORT, SYN),
                tcp(5, STICKY_PORT, ACK),
                tcp(5, STICKY_PORT, RST),
            ],
        ),
        ("sticky again", c, vec![tcp(6, STICKY_PORT, SYN)]),
        (
            "marked",
            c,
            vec![Pkt::udp(client(7), to(MARKED_PORT), b"x"); 3],
        ),
        (
            "one packet",
            c,
            vec![Pkt::udp(client(8), to(ONE_PACKET_PORT), b"x"); 2],
        ),
    ]
    .map(named)
    .into()
}

/// What is known of the records without having heard C.
fn plausible(
    name: &str,
    version: u8,
    family: Family,
    what: &str,
    records: &[Record],
) -> Result<()> {
    if version == 0 && family == Family::V6 {
        ensure!(records.is_empty(), "IPv6 in version 0");
        return Ok(());
    }
    let states = |proto: u8| -> Vec<u16> {
        records
            .iter()
            .filter(|r| r.flags & TEMPLATE == 0 && r.proto == proto)
            .map(|r| r.state)
            .collect()
    };
    let want: &[u16] = match what {
        "third packet" => &[ESTABLISHED],
        "after FIN" => &[FIN_WAIT],
        "reset" => &[CLOSE],
        "sticky" => &[CLOSE],
        "direct" => &[ESTABLISHED, FIN_WAIT],
        "SYN" | "SYN-ACK" | "second packet" | "fourth packet" | "server FIN" | "again"
        | "sticky again" | "UDP" | "marked" | "one packet" => &[],
        _ => return Ok(()),
    };
    ensure!(states(TCP) == want, "states {:?}", states(TCP));
    let want = match what {
        "UDP" => 2,
        "marked" => 1,
        _ => 0,
    };
    ensure!(states(UDP).len() == want, "{name}");
    Ok(())
}

/// With which packets a connection is announced.
fn thresholds(m: &mut Master) -> Result<()> {
    for (n, (setting, want)) in [
        ("3 50", vec![3, 53]),
        ("0 10", vec![10, 20, 30, 40, 50]),
        ("2 7", vec![2, 9, 16, 23, 30, 37, 44, 51]),
        ("5 0", vec![5]),
        ("0 1", (1..=54).collect()),
        ("0 0", vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        m.rig
            .topo
            .director
            .set_sysctl("net.ipv4.vs.sync_threshold", setting)?;
        let client = at(Family::V4.raw_client(100 + n as u16), 1000);
        let pkt = Pkt::udp(client, at(Family::V4.vip(), UDP_PORT), b"x");
        let said = |m: &mut Master, n: u64| -> Result<usize> {
            Ok(m.announced(Side::Client, &vec![pkt.clone(); n as usize])?
                .len())
        };
        // The first two to the packet, the others by number: each time costs 50 ms.
        let mut sent = 0;
        for next in want.iter().copied().take(2) {
            let before = said(m, next - sent - 1)?;
            ensure!(before == 0, "{setting}: {before} before packet {next}");
            let then = said(m, 1)?;
            ensure!(then == 1, "{setting}: {then} with packet {next}");
            sent = next;
        }
        let rest = said(m, 54 - sent)?;
        ensure!(
            rest == want.len().saturating_sub(2),
            "{setting}: {rest} with packets {sent} to 54"
        );
    }
    // Without a period a template is announced once, too.
    m.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.sync_threshold", "2 0")?;
    let client = at(Family::V4.raw_client(0x2001), 1000);
    let pkt = Pkt::tcp(client, at(Family::V4.vip(), STICKY_PORT), ACK);
    let syn = Pkt::tcp(client, at(Family::V4.vip(), STICKY_PORT), SYN);
    let counts: Vec<usize> = [syn, pkt.clone(), pkt.clone(), pkt]
        .iter()
        .map(|p| Ok(m.announced(Side::Client, std::slice::from_ref(p))?.len()))
        .collect::<Result<_>>()?;
    ensure!(
        counts[1] >= 1 && counts[2..] == [0, 0],
        "templates: {counts:?}"
    );
    m.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.sync_threshold", "3 50")
}

/// With a refresh period the number of packets does not matter, but time does.
fn refresh(m: &mut Master) -> Result<()> {
    let set = |m: &Master, period: u32, retries: u32| -> Result<()> {
        let director = &m.rig.topo.director;
        director.set_sysctl("net.ipv4.vs.sync_threshold", "0 0")?;
        director.set_sysctl("net.ipv4.vs.sync_refresh_period", period)?;
        director.set_sysctl("net.ipv4.vs.sync_retries", retries)
    };
    let pkt = |n: u16| {
        Pkt::udp(
            at(Family::V4.raw_client(n), 1000),
            at(Family::V4.vip(), UDP_PORT),
            b"x",
        )
    };
    let said = |m: &mut Master, n: u16, times: usize| -> Result<usize> {
        Ok(m.announced(Side::Client, &vec![pkt(n); times])?.len())
    };
    // Long enough for any guest: once.
    set(m, 600, 0)?;
    for round in 0..3 {
        let got = said(m, 200, 10)?;
        ensure!(got == usize::from(round == 0), "{got} in round {round}");
    }
    // Also for templates, and for what is established; what ends is said at once.
    let tcp = |flags| {
        Pkt::tcp(
            at(Family::V4.raw_client(201), 1000),
            at(Family::V4.vip(), STICKY_PORT),
            flags,
        )
    };
    let got = m.announced(Side::Client, &[tcp(SYN), tcp(ACK), tcp(ACK)])?;
    let templates = |r: &[Record]| r.iter().filter(|r| r.flags & TEMPLATE != 0).count();
    ensure!(templates(&got) <= 1, "{got:#?}");
    let got = m.announced(Side::Client, &[tcp(ACK), tcp(RST)])?;
    ensure!(
        templates(&got) == 0 && got.len() == 1 && got[0].state == CLOSE,
        "{got:#?}"
    );
    // An eighth of the period later it is said again, as often as the retries say.
    let begin = std::time::Instant::now();
    set(m, 4, 2)?;
    let mut all = said(m, 202, 3)?;
    ensure!(
        all == 1 || begin.elapsed() > Duration::from_millis(500),
        "{all} at once"
    );
    for _ in 0..3 {
        pass(0.55);
        let got = said(m, 202, 3)?;

        all += got;
    }
    ensure!(
        all == 3 || begin.elapsed() > Duration::from_millis(3500),
        "{all} in {:?}",
        begin.elapsed()
    );
    // And when the period is over.
    set(m, 1, 0)?;
    let got = said(m, 202, 1)?;
    pass(1.05);
    let again = said(m, 202, 1)?;
    ensure!(got <= 1 && again == 1, "{got}, {again} a period later");
    set(m, 0, 0)?;
    m.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.sync_threshold", "3 50")
}

/// Connections under templates are left out, templates and others are not.
fn persist_mode(m: &mut Master) -> Result<()> {
    m.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.sync_persist_mode", 1)?;
    let pkt = |n: u16, port: u16, flags| {
        Pkt::tcp(
            at(Family::V4.raw_client(0x3000 + n), 1000),
            at(Family::V4.vip(), port),
            flags,
        )
    };
    let got = m.announced(
        Side::Client,
        &[
            pkt(1, STICKY_PORT, SYN),
            pkt(1, STICKY_PORT, ACK),
            pkt(1, STICKY_PORT, RST),
        ],
    )?;
    ensure!(
        got.len() == 3 && got.iter().all(|r| r.flags & TEMPLATE != 0),
        "{got:#?}"
    );
    let got = m.announced(
        Side::Client,
        &[
            pkt(2, TCP_PORT, SYN),
            pkt(2, TCP_PORT, ACK),
            pkt(2, TCP_PORT, RST),
        ],
    )?;
    ensure!(got.len() == 1, "{got:#?}");
    m.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.sync_persist_mode", 0)
}

/// What finds no room in the queue is lost.
fn no_queue(m: &mut Master) -> Result<()> {
    let director = "net.ipv4.vs.sync_qlen_max";
    let before = m.rig.topo.director.sysctl(director)?;
    m.since()?;
    let begin = std::time::Instant::now();
    m.rig.topo.director.set_sysctl(director, 0)?;
    let pkt = |n: u16, flags| {
        Pkt::tcp(
            at(Family::V4.raw_client(0x4000 + n), 1000),
            at(Family::V4.vip(), TCP_PORT),
            flags,
        )
    };
    let pkts: Vec<Pkt> = (0..20)
        .flat_map(|n| [pkt(n, SYN), pkt(n, ACK), pkt(n, RST)])
        .collect();
    m.rig.exchange(Side::Client, &pkts)?;
    m.rig.topo.director.set_sysctl(director, before)?;
    let got = m.since()?;
    // One was not full yet, and what waited for two seconds needs no queue.
    let most = 1.0 + (begin.elapsed().as_secs_f64() / 2.0).floor();
    ensure!(got.len() as f64 <= most, "{got:#?}");
    Ok(())
}
