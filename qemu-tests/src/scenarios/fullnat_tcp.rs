// SPDX-License-Identifier: GPL-2.0-or-later

//! TCP through FullNAT: real servers that know no way to the client, local addresses that no interface has, set up by
//! unmodified ipvsadm but for the pool. Both ends agree on timestamps, SACK, window scale and ECN, as without a director; urgent
//! data stays where it is; bulk passes the director in packets larger than any device's, with GSO and GRO on. Nothing is tracked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{recv, send, MsgFlags};

use crate::fullnat::{self, is_local, local, locals, set, tracked};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::TCP;
use crate::proc;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};
use crate::wait::{until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_tcp",
    "HTTP and bulk through FullNAT, real servers without a way to the client, v4 and v6",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

const REQUESTS: usize = 30;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let topo = fullnat::topo(3)?;
        let vip = at(family.vip(), 80);
        fullnat::track(&topo.director)?;
        for ns in [&topo.client].into_iter().chain(&topo.rs) {
            ns.set_sysctl("net.ipv4.tcp_ecn", 1)?;
        }
        let ipvs = Ipvs::open(&topo.director)?;
        let mut servers = Vec::new();
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        fullnat::add_prefix(
            &ipvs,
            TCP,
            vip,
            local(family, 16),
            if family == Family::V4 { 30 } else { 126 },
        )?;
        for (n, ns) in (1..).zip(&topo.rs) {
            let rs = at(family.rs(n), 8080);
            servers.push(Server::tcp(ns, rs, ns.name())?);
            topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        }
        let mut seen = BTreeMap::new();
        for _ in 0..REQUESTS {
            let body = serve::http_get(&topo.client, vip)?;
            let (name, peer) = body.split_once(' ').unwrap_or_default();
            let peer: SocketAddr = peer.parse()?;
            ensure!(
                is_local(peer.ip()) && peer.port() >= 1024,
                "a server saw {body:?}"
            );
            *seen.entry(name.to_owned()).or_insert(0) += 1;
        }
        ensure!(
            seen.len() == 3 && seen.values().all(|&n| n == REQUESTS / 3),
            "uneven: {seen:?}"
        );

        // A long conversation, in both directions and in bulk: more than one window, segments as large as devices like.
        let stream = serve::connect(&topo.client, vip)?;
        let first = serve::ask(&stream, "hello")?;
        for i in 0..20 {
            let answer = serve::ask(&stream, &format!("line {i}"))?;
            ensure!(
                serve::name(&answer) == serve::name(&first),
                "{first:?}, then {answer:?}"
            );
        }
        let n = 3_000_000;
        serve::fetch(&stream, n)?;
        let before = sent_to_servers(&topo.director)?;
        serve::give(&stream, n)?;
        let packets = sent_to_servers(&topo.director)? - before;
        println!("{family:?}: {n} bytes in {packets} packets");
        ensure!(packets < n as u64 / 3000, "{packets} packets to servers");

        // Both ends have agreed on all they know, and see each other's congestion marks.
        let server = topo.rs.iter().find(|ns| ns.name() == serve::name(&first));
        for ns in [Some(&topo.client), server] {
            let ns = ns.context("no such server")?;
            let text = ns.cmd("ss -Htnio state established")?;
            for word in ["ts", "sack", "ecn", "ecnseen", "wscale:"] {
                ensure!(
                    text.split_whitespace().any(|w| w.starts_with(word)),
                    "no {word} in {}: {text}",
                    ns.name()
                );
            }
        }

        // It is listed as any other, and the pool counts it.
        let client = stream.local_addr()?;
        let conn = proc::conn(&topo.director, client)?;
        ensure!(
            conn.as_ref()
                .is_some_and(|c| c.state == "ESTABLISHED" && c.vip == vip && c.proto == "TCP"),
            "{conn:?}"
        );
        let pool = locals(&ipvs, TCP, vip)?;
        ensure!(pool.len() == 4, "{pool:#?}");
        // Some of the first may have ended by now.
        until_true("the pool counts what there is", 10.0, || {
            let there = proc::conns(&topo.director)?.len();
            let conns: u32 = locals(&ipvs, TCP, vip)?.iter().map(|l| l.conns).sum();
            Ok(conns as usize == there && there > 0)
        })?;
        let listing = topo.ipvsadm("-Ln")?;
        ensure!(
            listing.matches("Masq").count() == 3,
            "not NAT to ipvsadm: {listing}"
        );
        ensure!(
            tracked(&topo.director)? == 0,
            "connections are tracked: {}",
            topo.director.cmd("conntrack -L")?
        );
        drop(stream);
        until_true("the connection leaves ESTABLISHED", 5.0, || {
            Ok(proc::conn(&topo.director, client)?.is_some_and(|c| c.state != "ESTABLISHED"))
        })?;
        drop(servers);
        for (kind, proxy) in [(0, 0), (254, 0), (0, 1)] {
            urgent(family, kind, proxy)
                .with_context(|| format!("{family:?}, urgent data, {kind}, {proxy}"))?;
        }
    }
    Ok(())
}

/// How many packets have left for servers.
fn sent_to_servers(director: &Ns) -> Result<u64> {
    let text = director.read("/proc/net/dev")?;
    text.lines()
        .filter_map(|line| line.trim().split_once(':'))
        .filter(|(name, _)| name.starts_with('s'))
        .map(|(_, numbers)| {
            let packets = numbers.split_whitespace().nth(9);
            packets
                .and_then(|n| n.parse::<u64>().ok())
                .with_context(|| text.clone())
        })
        .sum()
}

/// An urgent byte amid others, with the client's address in options or in front, or not.
fn urgent(family: Family, kind: u8, proxy: u8) -> Result<()> {
    let (topo, ipvs, vip, rs) = fullnat::service(family, 80, 8080)?;
    let extra = Attrs::new()
        .u8(fullnat::TOA_KIND, kind)
        .u8(fullnat::PROXY, proxy);
    set(&ipvs, TCP, vip, "rr", &extra)?.ok()?;
    let listener = topo.rs[0].run(|| TcpListener::bind(rs))?;
    let mut stream = serve::connect(&topo.client, vip)?;
    let (mut there, _) = listener.accept()?;
    stream.write_all(b"abc")?;
    ensure!(send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB)? == 1);
    stream.write_all(b"def")?;
    stream.shutdown(Shutdown::Write)?;
    let mut byte = [0];
    until("the urgent byte", 5.0, || {
        match recv(there.as_raw_fd(), &mut byte, MsgFlags::MSG_OOB) {
            Ok(n) => Ok((n == 1).then_some(())),
            // Not announced yet, or announced only.
            Err(Errno::EINVAL | Errno::EAGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    })?;
    let mut rest = Vec::new();
    there.read_to_end(&mut rest)?;
    let text = String::from_utf8_lossy(&rest);
    let data = if proxy == 0 {
        &text[..]
    } else {
        let (front, data) = text.split_once("\r\n").context("no header")?;
        ensure!(front.starts_with("PROXY TCP"), "{text:?}");
        data
    };
    ensure!(byte == *b"!" && data == "abcdef", "{byte:?}, {text:?}");
    Ok(())
}
