// SPDX-License-Identifier: GPL-2.0-or-later

//! How what a master says leaves it: when a datagram is full, or two seconds after its first record, by several threads, with the
//! group, port and TTL of the configuration, in fragments if it is larger than the interface takes.
//!
//! Proves checklist items 131, 132 (but for the queue's length, which `sync_master` proves) and 133.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::sync_master::{services, TCP_PORT};
use crate::pkt::{Pkt, ACK, FIN, RST, SYN};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::sync::{Datagram, Link, Master, CLOSE_WAIT, ESTABLISHED, GROUP, LINK4, LINK6, PORT};
use crate::topo::{at, Family};
use crate::wait::{patience, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "sync_send",
    "how and when a master's datagrams leave",
    &[131, 132, 133],
    run,
);

fn run(cx: &Cx) -> Result<()> {
    flush().context("flush")?;
    ports(cx.peer).context("ports")?;
    wire().context("wire")?;
    large().context("large")?;
    match cx.peer {
        Peer::Rvs => full_of_records().context("255 records"),
        // C counts on from zero, and who hears it passes over 256 records.
        Peer::C => Ok(()),
    }
}

/// Opens and resets connections `first..first + n`: each is announced.
fn resets(rig: &Rig, first: u16, n: u16) -> Result<()> {
    let pkts: Vec<Pkt> = (first..first + n)
        .flat_map(|n| {
            [SYN, ACK, RST].map(|flags| {
                Pkt::tcp(
                    at(Family::V4.raw_client(n), 1000),
                    at(Family::V4.vip(), TCP_PORT),
                    flags,
                )
            })
        })
        .collect();
    rig.exchange(Side::Client, &pkts).map(drop)
}

/// A datagram leaves when it is full, or two seconds after its first record.
fn flush() -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let link = Link::new(&rig.topo.director)?;
    rig.ipvsadm("--start-daemon master --mcast-interface m0 --syncid 5")?;
    let begin = Instant::now();
    resets(&rig, 1, 41)?;
    let sent = begin.elapsed();
    let heard = link.hear_until("the flush", 5.0, |all| all.len() == 2)?;
    // (1472 - 8) / 36.
    let sizes: Vec<usize> = heard.iter().map(|h| h.said.records.len()).collect();
    ensure!(
        sizes == [40, 1] || sent > Duration::from_secs(2),
        "records in datagrams: {sizes:?}"
    );
    ensure!(heard.iter().all(|h| h.said.syncid == 5), "{heard:?}");
    let full = heard[0].when - begin;
    let late = heard[1].when - begin;
    println!(
        "41 records sent in {sent:?}: the full datagram after {full:?}, the other after {late:?}"
    );
    // 2 s after the 41st record, give or take a tick, and the thread looks each second.
    ensure!(
        late >= Duration::from_millis(1980),
        "flushed after {late:?}"
    );
    ensure!(full < late, "{full:?}, {late:?}");
    // Stopped in between, what was not sent is forgotten.
    let begin = Instant::now();
    resets(&rig, 100, 1)?;
    rig.ipvsadm("--stop-daemon master")?;
    let stopped = begin.elapsed();
    rig.ipvsadm("--start-daemon master --mcast-interface m0 --syncid 6 --sync-maxlen 80")?;
    resets(&rig, 200, 3)?;
    let mut heard = link.hear_until("the second daemon", 5.0, |all| {
        all.last().is_some_and(|h| h.said.syncid == 6)
    })?;
    let last = heard.pop().context("nothing")?.said;
    ensure!(
        heard.is_empty() || stopped > Duration::from_millis(1900),
        "{heard:#?}"
    );
    ensure!(
        last.records.len() == 2 && last.records[0].client.ip() == Family::V4.raw_client(200),
        "{last:#?}"
    );
    Ok(())
}

/// Several threads: each has its port, a connection always the same one, in order.
fn ports(peer: Peer) -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let director = &rig.topo.director;
    let link = Link::new(director)?;
    director.set_sysctl("net.ipv4.vs.sync_ports", 4)?;
    director.set_sysctl("net.ipv4.vs.sync_threshold", "0 1")?;
    rig.ipvsadm("--start-daemon master --mcast-interface m0 --sync-maxlen 1")?;
    // 100 connections say two things each, all between each other.
    let vip = at(Family::V4.vip(), TCP_PORT);
    for flags in [SYN, ACK, FIN | ACK] {
        let pkts: Vec<Pkt> = (0..100)
            .map(|n| Pkt::tcp(at(Family::V4.raw_client(n), 1000), vip, flags))
            .collect();
        rig.exchange(Side::Client, &pkts)?;
    }
    let mut ports: BTreeMap<u16, usize> = BTreeMap::new();
    let mut of_client: BTreeMap<SocketAddr, (u16, Vec<u16>)> = BTreeMap::new();
    until_true("all records are heard", 6.0, || {
        while let Some(heard) = link.hear(Duration::ZERO)? {
            let dport = heard.pkt.dport;
            *ports.entry(dport).or_default() += 1;
            for record in &heard.said.records {
                let (port, states) = of_client
                    .entry(record.client)
                    .or_insert_with(|| (dport, Vec::new()));
                states.push(record.state);
                ensure!(
                    *port == dport && [ESTABLISHED, CLOSE_WAIT].starts_with(states),
                    "{record:?} by port {dport}, before {port}, states {states:?}"
                );
            }
        }
        // Each thread keeps one back for two seconds.
        Ok(ports.values().sum::<usize>() >= 196)
    })?;
    println!("datagrams by port: {ports:?}");
    // In C it depends on how far apart connections are in memory which threads have any.
    let used = match peer {
        Peer::Rvs => 4..=4,
        Peer::C => 1..=4,
    };
    ensure!(
        ports.keys().all(|port| (PORT..PORT + 4).contains(port)) && used.contains(&ports.len()),
        "{ports:?}"
    );
    Ok(())
}

/// What is around the datagrams.
fn wire() -> Result<()> {
    for (options, group, port, ttl) in [
        ("", GROUP.into(), PORT, 1),
        (
            "--mcast-group 239.1.2.3 --mcast-port 9000 --mcast-ttl 7",
            "239.1.2.3".parse()?,
            9000,
            7,
        ),
        (
            "--mcast-group ff05::81 --mcast-ttl 3",
            "ff05::81".parse::<IpAddr>()?,
            PORT,
            3,
        ),
    ] {
        let mut m = Master::new(options)?;
        services(&m.rig)?;
        let heard = m.heard(
            Side::Client,
            &[SYN, ACK, RST].map(|flags| {
                Pkt::tcp(
                    at(Family::V4.raw_client(1), 1000),
                    at(Family::V4.vip(), TCP_PORT),
                    flags,
                )
            }),
        )?;
        ensure!(heard.len() == 1, "{heard:#?}");
        let pkt = &heard[0].pkt;
        let source: IpAddr = if group.is_ipv4() {
            LINK4[0].into()
        } else {
            LINK6[0].into()
        };
        ensure!(
            pkt.dst == group && pkt.dport == port && pkt.ttl == ttl && pkt.src == source,
            "{options}: {pkt:?}"
        );
        ensure!(!pkt.df, "{options}: fragmentation is not allowed");
    }
    Ok(())
}

/// A datagram that is larger than the interface takes comes in fragments.
fn large() -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let link = Link::new(&rig.topo.director)?;
    rig.ipvsadm("--start-daemon master --mcast-interface m0 --sync-maxlen 4000")?;
    let socket = group_socket(&link)?;
    resets(&rig, 1, 111)?;
    let mut buf = vec![0; 65_536];
    let n = socket.recv(&mut buf).context("the large datagram")?;
    let large = Datagram::parse(&buf[..n])?;
    // (4000 - 8) / 36.
    ensure!(
        large.records.len() == 110,
        "{} records",
        large.records.len()
    );
    Ok(())
}

/// A datagram with as many records as its header can count is full.
fn full_of_records() -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let link = Link::new(&rig.topo.director)?;
    rig.ipvsadm("--start-daemon master --mcast-interface m0 --sync-maxlen 12000")?;
    let socket = group_socket(&link)?;
    let begin = Instant::now();
    resets(&rig, 1, 260)?;
    let is_slow = begin.elapsed() > Duration::from_millis(1900);
    let mut buf = vec![0; 65_536];
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 260 {
        let n = socket.recv(&mut buf)?;
        sizes.push(Datagram::parse(&buf[..n])?.records.len());
    }
    ensure!(sizes == [255, 5] || is_slow, "records: {sizes:?}");
    Ok(())
}

/// A socket of the default group and port.
fn group_socket(link: &Link) -> Result<UdpSocket> {
    link.peer.run(|| {
        let socket = UdpSocket::bind(at(GROUP.into(), PORT))?;
        socket.join_multicast_v4(&GROUP, &LINK4[1])?;
        socket.set_read_timeout(Some(patience(5.0)))?;
        Ok(socket)
    })
}
