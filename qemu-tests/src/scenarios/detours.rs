// SPDX-License-Identifier: GPL-2.0-or-later

//! Ways that are not straight: out by the link it came in; from one real server to another; routes chosen by policy, of which only
//! the server's address counts; a tunnel's source, which is the route's; and devices in a VRF, whose tables the director's own
//! packets do not use.
//!
//! Proves checklist item 113, with routes: a tunnel's source, and policies.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN};
use crate::rig::{one_cpu, Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::tap::Tap;
use crate::topo::{at, mac, Family, Topo};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "detours",
    "hairpins, servers as clients, policy routing, tunnel sources, VRFs",
    &[113],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        hairpin(family).with_context(|| format!("hairpin, {family:?}"))?;
        server_as_client(family).with_context(|| format!("a server as client, {family:?}"))?;
        policy(family).with_context(|| format!("policy, {family:?}"))?;
        source(family).with_context(|| format!("tunnel source, {family:?}"))?;
        vrf(family).with_context(|| format!("VRF, {family:?}"))?;
    }
    Ok(())
}

fn hairpin(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, client) = (at(family.vip(), 80), at(family.raw_client(1), 4000));
    // The server is where the clients are.
    let rs = at(family.raw_client(200), 8080);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    for flags in [SYN, ACK] {
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client, vip, flags)])?;
        // Nobody is told of a shorter way.
        let came = io.one_at_client()?;
        ensure!(
            came.source() == client && came.dest() == rs && came.csum_ok && came.ttl == 63,
            "{came:?}"
        );
    }
    let io = rig.exchange(Side::Client, &[Pkt::tcp(rs, client, SYN | ACK)])?;
    let back: Vec<_> = io
        .client_pkts()
        .into_iter()
        .filter(|p| p.proto == crate::pkt::TCP)
        .cloned()
        .collect();
    ensure!(
        back.len() == 1 && back[0].source() == vip && back[0].dest() == client && back[0].csum_ok,
        "{io:#?}"
    );
    // As the client sent it, and in a tunnel.
    for (n, flags) in (0u16..).zip(["-g", "-i"]) {
        let (vip, rs) = (at(vip.ip(), 81 + n), at(rs.ip(), 81 + n));
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} {flags}"))?;
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client, vip, SYN)])?;
        let came = io.one_at_client()?;
        let (src, dst) = if flags == "-g" {
            (client.ip(), vip.ip())
        } else {
            (family.director(), rs.ip())
        };
        ensure!(
            came.src == src && came.dst == dst && came.ttl == 63,
            "{flags}: {came:?}"
        );
    }
    Ok(())
}

fn server_as_client(family: Family) -> Result<()> {
    let topo = Topo::new(2)?;
    let vip = at(family.vip(), 80);
    let rs = |n| at(family.rs(n), 8080);
    let _servers = [
        Server::tcp(&topo.rs[0], rs(1), "rs1")?,
        Server::tcp(&topo.rs[1], rs(2), "rs2")?,
    ];
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {} -m", rs(2)))?;
    let body = serve::http_get(&topo.rs[0], vip)?;
    ensure!(serve::name(&body) == "rs2", "{body:?}");
    topo.ipvsadm(&format!("-a -t {vip} -r {} -m", rs(1)))?;
    topo.ipvsadm(&format!("-d -t {vip} -r {}", rs(2)))?;
    let body = serve::http_get(&topo.rs[1], vip)?;
    ensure!(serve::name(&body) == "rs1", "{body:?}");
    Ok(())
}

/// The first network has two ways; which one is taken is a matter of the server's address alone.
fn policy(family: Family) -> Result<()> {
    one_cpu()?;
    let rig = Rig::around(Topo::new(2)?)?;
    let director = &rig.topo.director;
    let second = Tap::open(&rig.topo.rs[1], "eth0", mac(2, 2), mac(2, 1))?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 80),
        at(family.raw_client(1), 4000),
    );
    let (six, via) = match family {
        Family::V4 => ("", "10.0.2.2"),
        Family::V6 => ("-6 ", "fd00:0:0:2::2"),
    };
    director.cmd(&format!("ip {six}route add default via {via} table 100"))?;
    director.cmd("nft add table inet t")?;
    director.cmd("nft add chain inet t pre { type filter hook prerouting priority -150 ; }")?;
    director.cmd("nft add rule inet t pre tcp dport 80 meta mark set 9")?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    for (n, flags) in (0u16..).zip(["-m", "-g"]) {
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} {flags}"))?;
        for (rule, moved) in [
            (format!("from {}", client.ip()), false),
            (format!("to {}", rs.ip()), true),
        ] {
            director.cmd(&format!("ip {six}rule add {rule} lookup 100"))?;
            // The device of what comes in must not match, or the client's packet would not get here.
            rig.drain()?;
            second.drain()?;
            let from = at(client.ip(), client.port() + n);
            rig.ctap.send(&Pkt::tcp(from, vip, SYN))?;
            let (here, there) = if moved {
                (&second, &rig.stap)
            } else {
                (&rig.stap, &second)
            };
            here.expect("the packet", 2.0, |f| !f.outgoing && f.pkt.source() == from)
                .with_context(|| format!("{flags}, {rule}"))?;
            ensure!(
                there
                    .drain()?
                    .iter()
                    .all(|f| f.outgoing || f.pkt.source() != from),
                "{flags}, {rule}: it went both ways"
            );
            director.cmd(&format!("ip {six}rule del {rule} lookup 100"))?;
        }
        rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
    }
    Ok(())
}

/// The source of a tunnel is what the route says, also when that changes.
fn source(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 80),
        at(family.raw_client(1), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -i"))?;
    let (six, net) = match family {
        Family::V4 => ("", "10.8.1.0/24"),
        Family::V6 => ("-6 ", "fd08:1::/32"),
    };
    for (src, flags) in [
        (family.director_at(1), SYN),
        (family.vip(), ACK),
        (family.director(), ACK),
    ] {
        director.cmd(&format!(
            "ip {six}route replace {net} via {} src {src}",
            family.rs(1)
        ))?;
        // Over IPv6 it is one of the device's, whatever the route prefers.
        let src = if family == Family::V4 {
            src
        } else {
            family.director_at(1)
        };
        let came = rig.forwarded(&Pkt::tcp(client, vip, flags))?;
        ensure!(came.src == src && came.dst == rs.ip(), "{src}: {came:?}");
    }
    Ok(())
}

/// Clients in a VRF. The director sends by the main table, so that is where its servers are; replies are routed there as well.
fn vrf(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 8080),
        at(family.raw_client(1), 4000),
    );
    let (six, clients, bits, gateway) = match family {
        Family::V4 => ("", "10.9.0.0/16", 32, "10.0.0.2"),
        Family::V6 => ("-6 ", "fd09::/32", 128, "fd00::2"),
    };
    director.ip("link add red type vrf table 10\nlink set red up\nlink set c0 master red\n")?;
    // The addresses of IPv6 and all neighbours went.
    director.ip(&format!(
        "addr replace {0}/{1} dev c0{2}\n\
         neigh replace {gateway} lladdr 02:00:00:00:00:02 dev c0 nud permanent\n\
         addr del {vip}/{bits} dev lo\n\
         addr add {vip}/{bits} dev red{2}\n",
        family.director(),
        if family == Family::V4 { 24 } else { 64 },
        if family == Family::V4 { "" } else { " nodad" },
        vip = vip.ip(),
    ))?;
    // The main table must know where the clients are, for replies; that of the VRF, for what is not balanced. The rig's own
    // packets are IPv4.
    director.cmd("ip neigh replace 10.0.0.2 lladdr 02:00:00:00:00:02 dev c0 nud permanent")?;
    for table in ["main", "10"] {
        director.cmd(&format!(
            "ip route replace 10.9.0.0/16 via 10.0.0.2 dev c0 onlink table {table}"
        ))?;
        if family == Family::V6 {
            director.cmd(&format!(
                "ip -6 route replace {clients} via {gateway} dev c0 table {table}"
            ))?;
        }
    }
    // An IPv6 address takes a moment to become this host's.
    until_true("the VIP is local", 5.0, || {
        let local = format!("local {} dev red", vip.ip());
        let routes = director.cmd(&format!("ip {six}route show table 10"))?;
        Ok(routes.contains(&local))
    })?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    ensure!(came.dest() == rs && came.csum_ok, "{came:?}");
    let came = rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    ensure!(came.source() == vip && came.csum_ok, "{came:?}");
    for (n, flags) in (0u16..).zip(["-g", "-i"]) {
        let (vip, rs) = (at(vip.ip(), 81 + n), at(rs.ip(), 81 + n));
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} {flags}"))?;
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        let dst = if flags == "-g" { vip } else { rs };
        ensure!(came.dst == dst.ip() && came.ttl == 63, "{flags}: {came:?}");
    }
    // Servers in the VRF, which the main table does not know: the client is told so.
    let (net, table) = match family {
        Family::V4 => ("10.8.1.0/24", "table 10"),
        Family::V6 => ("fd08:1::/32", "table 10"),
    };
    director.cmd(&format!("ip {six}route del {net}"))?;
    director.cmd(&format!(
        "ip {six}route add {net} via {} dev s1 {table}",
        family.rs(1)
    ))?;
    let told = rig.answered(&Pkt::tcp(client, vip, ACK))?;
    ensure!(told.icmp_type != 0 && told.dst == client.ip(), "{told:?}");
    Ok(())
}
