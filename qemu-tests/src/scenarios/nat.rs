// SPDX-License-Identifier: GPL-2.0-or-later

//! What the `nat_*` scenarios share.

use std::collections::BTreeMap;

use anyhow::{ensure, Result};

use crate::pkt::{TCP, UDP};
use crate::proc;
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::until_true;
use crate::{ipvs::Ipvs, topo::ipvsadm};

/// How many requests; a multiple of three.
const REQUESTS: usize = 60;

/// HTTP through three real servers, each on another port than the virtual service.
pub fn tcp(family: Family) -> Result<()> {
    let topo = Topo::new(3)?;
    let vip = at(family.vip(), 80);
    let mut servers = Vec::new();
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    for (n, ns) in (1..).zip(&topo.rs) {
        let rs = at(family.rs(n), 8080);
        servers.push(Server::tcp(ns, rs, ns.name())?);
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    }

    let mut seen = BTreeMap::new();
    for _ in 0..REQUESTS {
        let body = serve::http_get(&topo.client, vip)?;
        let (name, peer) = body.split_once(' ').unwrap_or_default();
        // NAT leaves the client's address alone.
        ensure!(
            peer.parse::<std::net::SocketAddr>()?.ip() == family.client(),
            "a server saw {body:?}"
        );
        *seen.entry(name.to_owned()).or_insert(0) += 1;
    }
    ensure!(
        seen.len() == 3 && seen.values().all(|&n| n == REQUESTS / 3),
        "uneven: {seen:?}"
    );

    // A long conversation stays on its server, in both directions and in bulk.
    let stream = serve::connect(&topo.client, vip)?;
    let first = serve::ask(&stream, "hello")?;
    for i in 0..20 {
        let answer = serve::ask(&stream, &format!("line {i}"))?;
        ensure!(
            serve::name(&answer) == serve::name(&first),
            "{first:?}, then {answer:?}"
        );
    }
    let n = 300_000;
    serve::fetch(&stream, n)?;
    serve::give(&stream, n)?;

    let local = stream.local_addr()?;
    let conn = proc::conn(&topo.director, local)?;
    ensure!(
        conn.as_ref()
            .is_some_and(|c| c.state == "ESTABLISHED" && c.vip == vip && c.proto == "TCP"),
        "{conn:?}"
    );
    let ipvs = Ipvs::open(&topo.director)?;
    let active: u32 = ipvs.dests(TCP, vip)?.iter().map(|d| d.active).sum();
    ensure!(active == 1, "{active} active connections");
    drop(stream);
    until_true("the connection leaves ESTABLISHED", 5.0, || {
        Ok(proc::conn(&topo.director, local)?.is_some_and(|c| c.state != "ESTABLISHED"))
    })?;
    let listing = topo.ipvsadm("-Ln")?;
    ensure!(listing.contains(&format!("TCP  {vip} rr")), "{listing}");
    drop(servers);
    Ok(())
}

/// Datagrams through three real servers.
pub fn udp(family: Family) -> Result<()> {
    let topo = Topo::new(3)?;
    let vip = at(family.vip(), 53);
    let mut servers = Vec::new();
    topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    for (n, ns) in (1..).zip(&topo.rs) {
        let rs = at(family.rs(n), 5353);
        servers.push(Server::udp(ns, rs, ns.name())?);
        topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    }
    let mut seen = BTreeMap::new();
    for i in 0..30 {
        let socket = serve::udp(&topo.client, vip)?;
        let first = serve::ask_udp(&socket, "one")?;
        ensure!(
            first.contains(&socket.local_addr()?.to_string()) && first.ends_with("one"),
            "{first:?}"
        );
        // The same socket is the same connection.
        let second = serve::ask_udp(&socket, &format!("two {i}"))?;
        ensure!(
            serve::name(&first) == serve::name(&second),
            "{first:?}, then {second:?}"
        );
        *seen.entry(serve::name(&first).to_owned()).or_insert(0) += 1;
    }
    ensure!(
        seen.len() == 3 && seen.values().all(|&n| n == 10),
        "uneven: {seen:?}"
    );
    let conns = proc::conns(&topo.director)?;
    ensure!(
        conns.len() == 30 && conns.iter().all(|c| c.state == "UDP" && c.proto == "UDP"),
        "{conns:#?}"
    );
    let dests = Ipvs::open(&topo.director)?.dests(UDP, vip)?;
    ensure!(
        dests.iter().all(|d| d.active == 0 && d.inact == 10),
        "{dests:#?}"
    );
    ipvsadm(&topo.director, "-C")?;
    drop(servers);
    Ok(())
}
