// SPDX-License-Identifier: GPL-2.0-or-later

//! Local ports: one serves several real servers; sockets, reserved ports and virtual services keep theirs; what has just been
//! given back rests; when there are no more, clients are told so, it is counted, and passes by itself. Two addresses carry more
//! than 64,000 connections to one server, TCP and UDP, IPv4 and IPv6.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, is_local, local, locals, number, one, set, Segment};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, FIN, ICMP, ICMPV6, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Guest, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_ports",
    "which local ports connections get, and what happens when there are none",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1)
.timeout(180.0);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        exhaustion(family).with_context(|| format!("{family:?}, exhaustion"))?;
        others(family).with_context(|| format!("{family:?}, ports of others"))?;
        rest(family).with_context(|| format!("{family:?}, rest"))?;
        for proto in [UDP, TCP] {
            many(cx, family, proto).with_context(|| format!("{family:?}, {proto}, many"))?;
        }
    }
    Ok(())
}

fn ports(min: u16, max: u16) -> Attrs {
    Attrs::new()
        .u16(fullnat::PORT_MIN, min)
        .u16(fullnat::PORT_MAX, max)
}

/// A client's first datagram; where it comes from for the server, if it gets there.
fn knock(rig: &Rig, client: SocketAddr, vip: SocketAddr) -> Result<Option<Pkt>> {
    let io = rig.exchange(Side::Client, &[Pkt::udp(client, vip, b"knock")])?;
    if let [frame] = &io.server[..] {
        ensure!(io.client.is_empty(), "{io:#?}");
        ensure!(is_local(frame.pkt.src) && frame.pkt.csum_ok, "{io:#?}");
        return Ok(Some(frame.pkt.clone()));
    }
    // The refusal.
    let answer = io.one_at_client()?;
    let kind = (answer.proto, answer.icmp_type, answer.icmp_code);
    ensure!(kind == (ICMP, 3, 3) || kind == (ICMPV6, 1, 4), "{answer:?}");
    Ok(None)
}

fn exhaustion(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let vip = at(family.vip(), 53);
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    for n in 1..=2 {
        rig.ipvsadm(&format!("-a -u {vip} -r {} -m", at(family.raw_rs(n), 53)))?;
    }
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, UDP, vip, local(family, 1))?;
    fullnat::add(&ipvs, UDP, vip, local(family, 2))?;
    set(&ipvs, UDP, vip, "rr", &ports(5000, 5002))?.ok()?;

    // Two servers, two addresses, three ports: twelve, each another for its server.
    let mut seen = BTreeSet::new();
    for n in 0..12 {
        let came = knock(&rig, at(family.raw_client(n), 4000), vip)?
            .with_context(|| format!("connection {n} was refused"))?;
        ensure!((5000..=5002).contains(&came.sport), "{came:?}");
        ensure!(seen.insert((came.dst, came.source())), "twice: {came:?}");
    }
    ensure!(number(&ipvs, UDP, vip, fullnat::EXHAUSTED)? == 0);
    for n in 12..15 {
        ensure!(
            knock(&rig, at(family.raw_client(n), 4000), vip)?.is_none(),
            "a thirteenth"
        );
    }
    ensure!(number(&ipvs, UDP, vip, fullnat::EXHAUSTED)? == 3);
    let pool = locals(&ipvs, UDP, vip)?;
    ensure!(
        pool.iter().all(|l| l.conns == 6 && l.conflicts > 0),
        "{pool:#?}"
    );
    // Those that are there go on.
    let came = knock(&rig, at(family.raw_client(0), 4000), vip)?.context("refused")?;
    ensure!(seen.contains(&(came.dst, came.source())), "{came:?}");

    // It passes when connections end. What they live for counts from their next packets on.
    rig.ipvsadm("--set 0 0 1")?;
    for n in 0..12 {
        knock(&rig, at(family.raw_client(n), 4000), vip)?.context("refused")?;
    }
    until_true("connections end", 10.0, || {
        Ok(proc::conns(&rig.topo.director)?.is_empty())
    })?;
    knock(&rig, at(family.raw_client(20), 4000), vip)?.context("still refused")?;
    Ok(())
}

fn others(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let (vip, seat) = (at(family.vip(), 53), local(family, 1));
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {} -m", at(family.raw_rs(1), 53)))?;
    let ipvs = Ipvs::open(director)?;
    fullnat::add(&ipvs, UDP, vip, seat)?;
    set(&ipvs, UDP, vip, "rr", &ports(5000, 5007))?.ok()?;

    director.ip(&format!(
        "addr add {seat}/{} dev lo{}",
        if family == Family::V4 { 32 } else { 128 },
        if family == Family::V4 { "" } else { " nodad" }
    ))?;
    director.set_sysctl("net.ipv4.ip_local_reserved_ports", "5000-5001")?;
    let any = if family == Family::V4 {
        "0.0.0.0"
    } else {
        "[::]"
    };
    let _own = director.run(|| UdpSocket::bind(at(seat, 5002)))?;
    let _all = director.run(|| UdpSocket::bind(format!("{any}:5003")))?;
    rig.ipvsadm(&format!("-A -u {} -s rr", at(seat, 5004)))?;

    let mut seen = BTreeSet::new();
    for n in 0..3 {
        let came = knock(&rig, at(family.raw_client(n), 4000), vip)?.context("refused")?;
        seen.insert(came.sport);
    }
    ensure!(seen == BTreeSet::from([5005, 5006, 5007]), "ports {seen:?}");
    let fourth = knock(&rig, at(family.raw_client(3), 4000), vip)?;
    ensure!(fourth.is_none(), "somebody's port: {fourth:?}");
    // Privileged ones only if they are asked for.
    set(&ipvs, UDP, vip, "rr", &ports(1, 1))?.ok()?;
    let came = knock(&rig, at(family.raw_client(3), 4000), vip)?.context("refused")?;
    ensure!(came.sport == 1, "port {}", came.sport);
    Ok(())
}

/// A client that begins anew while the server remembers the last connection gets another port.
fn rest(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 80));
    let client = at(family.raw_client(1), 4000);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
    set(&ipvs, TCP, vip, "rr", &ports(5000, 5002))?.ok()?;

    let mut seen = BTreeSet::new();
    for _ in 0..3 {
        let syn = one(&rig, Side::Client, &Segment::new(client, vip, SYN, 100, 0))?;
        let (seat, first) = (syn.from, syn.seq.wrapping_add(1));
        ensure!(seen.insert(seat), "{seat} again, so soon");
        one(
            &rig,
            Side::Server,
            &Segment::new(rs, seat, SYN | ACK, 800, first),
        )?;
        one(
            &rig,
            Side::Client,
            &Segment::new(client, vip, ACK, 101, 801),
        )?;
        // The server closes first, and will be the one in TIME-WAIT.
        one(
            &rig,
            Side::Server,
            &Segment::new(rs, seat, FIN | ACK, 801, first),
        )?;
        one(
            &rig,
            Side::Client,
            &Segment::new(client, vip, FIN | ACK, 101, 802),
        )?;
        one(
            &rig,
            Side::Server,
            &Segment::new(rs, seat, ACK, 802, first.wrapping_add(1)),
        )?;
        let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
        ensure!(conn.state == "TIME_WAIT", "{conn:?}");
    }
    // Two rest, one is taken until the client's next SYN ends it, then all rest.
    let raw = [Segment::new(client, vip, SYN, 100, 0).bytes()];
    let io = rig.exchange_raw(Side::Client, &raw)?;
    let answer = io.one_at_client()?;
    ensure!([ICMP, ICMPV6].contains(&answer.proto), "{answer:?}");
    ensure!(number(&ipvs, TCP, vip, fullnat::EXHAUSTED)? == 1);
    // Towards another server nothing rests.
    let other = at(family.raw_rs(2), 80);
    rig.ipvsadm(&format!("-a -t {vip} -r {other} -m"))?;
    rig.ipvsadm(&format!("-e -t {vip} -r {rs} -m -w 0"))?;
    let syn = one(&rig, Side::Client, &Segment::new(client, vip, SYN, 100, 0))?;
    ensure!(syn.to == other && seen.contains(&syn.from), "{syn:?}");
    Ok(())
}

/// More connections to one server than an address has ports, at the same time; those of TCP after their handshakes.
fn many(cx: &Cx, family: Family, proto: u8) -> Result<()> {
    // Debug kernels and emulators take too long for all of them.
    let count: u32 = match cx.guest {
        Guest::Uml => 66_000,
        _ => 500,
    };
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 53), at(family.raw_rs(1), 53));
    let letter = if proto == TCP { "t" } else { "u" };
    rig.ipvsadm(&format!("-A -{letter} {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -{letter} {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, proto, vip, local(family, 1))?;
    fullnat::add(&ipvs, proto, vip, local(family, 2))?;
    let mut seen = BTreeSet::new();
    let mut next = 0;
    while next < count {
        let end = (next + 500).min(count);
        let clients: Vec<SocketAddr> = (next..end)
            .map(|n| {
                at(
                    family.raw_client((n >> 12) as u16),
                    1000 + (n & 0xfff) as u16,
                )
            })
            .collect();
        let first: Vec<Vec<u8>> = clients
            .iter()
            .map(|&client| match proto {
                TCP => Segment::new(client, vip, SYN, 100, 0).bytes(),
                _ => Pkt::udp(client, vip, b"").bytes(),
            })
            .collect();
        let io = rig.exchange_raw(Side::Client, &first)?;
        ensure!(io.client.is_empty(), "refused after {next}");
        for frame in &io.server {
            ensure!(frame.pkt.dest() == rs, "{frame:?}");
            let from = frame.pkt.source();
            ensure!(seen.insert(from), "{from} twice");
        }
        if proto == TCP {
            let answers: Vec<Vec<u8>> = io
                .server
                .iter()
                .map(|f| {
                    let ack = f.pkt.seq.wrapping_add(1);
                    Segment::new(rs, f.pkt.source(), SYN | ACK, 800, ack).bytes()
                })
                .collect();
            let back = rig.exchange_raw(Side::Server, &answers)?.client;
            // Each client gets its own.
            let reached: BTreeSet<SocketAddr> = back.iter().map(|f| f.pkt.dest()).collect();
            ensure!(
                reached == clients.iter().copied().collect()
                    && back
                        .iter()
                        .all(|f| f.pkt.source() == vip && f.pkt.ack == 101),
                "answers after {next}"
            );
            let last: Vec<Vec<u8>> = clients
                .iter()
                .map(|&client| Segment::new(client, vip, ACK, 101, 801).bytes())
                .collect();
            ensure!(
                rig.exchange_raw(Side::Client, &last)?.server.len() == last.len(),
                "acknowledgements after {next}"
            );
        }
        next = end;
    }
    ensure!(seen.len() == count as usize, "{} came", seen.len());
    let pool = locals(&ipvs, proto, vip)?;
    println!("{family:?}, {letter}: {count} connections: {pool:?}");
    ensure!(
        pool.iter().map(|l| l.conns).sum::<u32>() == count,
        "{pool:#?}"
    );
    let line = rig.ipvsadm("-Ln")?;
    let active = if proto == TCP { count } else { 0 };
    let numbers = line.lines().last().unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().rev().take(2).collect();
    ensure!(
        numbers == [(count - active).to_string(), active.to_string()],
        "{line}"
    );
    Ok(())
}
