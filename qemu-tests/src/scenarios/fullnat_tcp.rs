// SPDX-License-Identifier: GPL-2.0-or-later

//! TCP through FullNAT: real servers that know no way to the client, local addresses that no interface has, set up by
//! unmodified ipvsadm but for the pool. Both ends agree on timestamps, SACK, window scale and ECN, as without a director. Nothing
//! is tracked.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, is_local, local, locals, tracked};
use crate::ipvs::Ipvs;
use crate::pkt::TCP;
use crate::proc;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};
use crate::wait::until_true;

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
        serve::give(&stream, n)?;

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
    }
    Ok(())
}
