// SPDX-License-Identifier: GPL-2.0-or-later

//! A local port that comes again to a real server which still has its last connection in TIME-WAIT: the server accepts the SYN
//! at once, whatever the clients' sequence numbers and timestamps are, whether they have timestamps at all, and however much
//! the last one has sent in the meantime. Nothing is sent twice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, local, set, Segment};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::{RST, TCP};
use crate::proc;
use crate::scenario::{Cx, Scenario};
use crate::serve;
use crate::tap::Tap;
use crate::topo::{at, mac, Family};
use crate::wait::{rounds, scaled, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_again",
    "a real server in TIME-WAIT accepts the same local address and port at once",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1)
.timeout(90.0);

/// The only local port there is.
const PORT: u16 = 5000;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        // Of the earlier client and the later ones: with timestamps, or without.
        for stamps in [&[1][..], &[0], &[1, 0]] {
            // Nothing, or far more than the megabyte a second by which initial sequence numbers rise.
            for bytes in [0, 6_000_000] {
                again(family, stamps, bytes).with_context(|| {
                    format!("{family:?}, timestamps {stamps:?}, {bytes} bytes before")
                })?;
            }
        }
    }
    Ok(())
}

/// How often something was sent again in a namespace; only SYNs if `syns`.
fn sent_again(ns: &Ns, syns: bool) -> Result<u64> {
    let (file, group, counter) = if syns {
        ("netstat", "TcpExt:", "TCPSynRetrans")
    } else {
        ("snmp", "Tcp:", "RetransSegs")
    };
    let text = ns.read(&format!("/proc/net/{file}"))?;
    let mut rows = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (
        rows.next().unwrap_or_default(),
        rows.next().unwrap_or_default(),
    );
    std::iter::zip(names.split(' '), values.split(' '))
        .find(|(name, _)| *name == counter)
        .and_then(|(_, value)| value.parse().ok())
        .with_context(|| text.clone())
}

/// Whether the server has a connection with this peer in TIME-WAIT.
fn remembers(ns: &Ns, peer: SocketAddr) -> Result<bool> {
    let text = ns.cmd("ss -Htan state time-wait")?;
    Ok(text.contains(&peer.to_string()))
}

fn again(family: Family, stamps: &[u8], bytes: usize) -> Result<()> {
    let topo = fullnat::topo(1)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
    let (director, client, server) = (&topo.director, &topo.client, &topo.rs[0]);
    director.set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    let ipvs = Ipvs::open(director)?;
    fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
    let ports = Attrs::new()
        .u16(fullnat::PORT_MIN, PORT)
        .u16(fullnat::PORT_MAX, PORT);
    set(&ipvs, TCP, vip, "rr", &ports)?.ok()?;
    let seat = at(local(family, 1), PORT);
    let tap = Tap::open(client, "eth0", mac(0, 2), mac(0, 1))?;
    let listener = server.run(|| TcpListener::bind(rs))?;
    let mut least = Duration::MAX;
    let mut ahead = bytes > 0;
    let body = vec![7; bytes];
    let mut last = Instant::now();
    for round in 0..rounds(if bytes > 0 { 4 } else { 8 }).max(2) {
        let with = stamps[round % stamps.len()];
        client.set_sysctl("net.ipv4.tcp_timestamps", with)?;
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        ensure!(
            remembers(server, seat)? == (round > 0),
            "TIME-WAIT in round {round}"
        );
        let begin = Instant::now();
        let mut stream = serve::connect(client, vip).with_context(|| format!("round {round}"))?;
        let took = begin.elapsed();
        if round > 0 {
            ahead &= bytes as u128 > last.elapsed().as_micros();
        }
        last = begin;
        // Not the second after which a SYN is sent again, and mostly far less.
        ensure!(took < scaled(0.9), "{took:?} in round {round}");
        least = least.min(if round > 0 { took } else { Duration::MAX });
        let from = stream.local_addr()?;
        let (mut there, peer) = listener.accept()?;
        ensure!(peer == seat, "from {peer} in round {round}");
        std::thread::scope(|scope| -> Result<()> {
            let writer = scope.spawn(|| (&stream).write_all(&body));
            let mut taken = vec![0; bytes];
            there.read_exact(&mut taken)?;
            writer.join().ok().context("the writer")??;
            Ok(())
        })?;
        // The server closes first, and remembers.
        there.write_all(b"bye")?;
        drop(there);
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text == "bye", "{text:?}");
        drop(stream);
        until_true("the server is in TIME-WAIT", 5.0, || {
            remembers(server, seat)
        })?;
        // What the director takes for the end, and the server does not believe: its numbers are wrong. No port rests then.
        tap.send_raw(&Segment::new(from, vip, RST, 1, 0).bytes())?;
        until_true("the director takes it for the end", 5.0, || {
            Ok(proc::conn(director, from)?.is_none_or(|c| c.state == "CLOSE"))
        })?;
        topo.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
        until_true("the director forgets", 5.0, || {
            Ok(proc::conn(director, from)?.is_none())
        })?;
    }
    println!(
        "{family:?}, timestamps {stamps:?}, {bytes} bytes (ahead: {ahead}): connected in {least:?}"
    );
    ensure!(least < scaled(0.1), "{least:?} at least");
    // Bulk may be sent twice for reasons of its own.
    for ns in [client, server] {
        let n = sent_again(ns, bytes > 0)?;
        ensure!(n == 0, "{n} segments were sent again in {}", ns.name());
    }
    Ok(())
}
