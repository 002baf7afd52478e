// SPDX-License-Identifier: GPL-2.0-or-later

//! With `schedule_icmp` an ICMP error about a flow of a service that nobody knows is scheduled as the flow's packet would be, and
//! the flow then follows it: another director may have known it, or it may never have come by. Without, it ends here. Errors about
//! tunnels begin something only where nobody can tell that they are: IPv6 in them, or around them.
//!
//! Proves checklist items 96 and, for a connection that has had no packet of its own, 68.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "schedule_icmp",
    "an ICMP error may begin a connection",
    &[96],
    run,
)
.partly(&[68]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for proto in [TCP, UDP] {
            one(family, proto).with_context(|| format!("{family:?}, protocol {proto}"))?;
        }
        tunnels(family).with_context(|| format!("tunnels over {family:?}"))?;
    }
    Ok(())
}

/// A service by mark takes whatever is marked: also errors about tunnels of ours that C does not know for such, with IPv6 in them or
/// around them. They are about UDP then. What is known for a tunnel begins nothing.
fn tunnels(outer: Family) -> Result<()> {
    const GUE_PORT: u16 = 6080;
    for inner in Family::BOTH {
        let rig = Rig::new()?;
        let director = &rig.topo.director;
        director.set_sysctl("net.ipv4.vs.schedule_icmp", 1)?;
        let (vip, client) = (at(inner.vip(), 80), at(inner.raw_client(1), 4000));
        let (rs, marked) = (outer.raw_rs(1), outer.raw_rs(5));
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!(
            "-a -t {vip} -r {} -i --tun-type gue --tun-port {GUE_PORT}",
            at(rs, 80)
        ))?;
        let six = if outer == Family::V6 { "-6" } else { "" };
        rig.ipvsadm(&format!("-A -f 10 {six} -s rr"))?;
        rig.ipvsadm(&format!("-a -f 10 {six} -r {} -m", at(marked, 0)))?;
        for line in [
            "nft add table inet t",
            "nft add chain inet t pre { type filter hook prerouting priority -150 ; }",
            "nft add rule inet t pre iif s1 meta l4proto { icmp, ipv6-icmp } meta mark set 10",
        ] {
            director.cmd(line)?;
        }
        for (n, begun) in [(0u16, false), (1, true)] {
            let client = at(client.ip(), client.port() + n);
            let request = Pkt::tcp(client, vip, SYN);
            if begun {
                rig.forwarded(&request)?;
            }
            let tunnel = Pkt::udp(
                at(outer.director_at(1), 50_000 + n),
                at(rs, GUE_PORT),
                &[
                    &[0, if inner == Family::V4 { 4 } else { 41 }, 0, 0],
                    &request.bytes()[..],
                ]
                .concat(),
            );
            let (kind, code) = if outer == Family::V4 { (3, 1) } else { (1, 0) };
            let error = Pkt::icmp_error(
                outer.raw_rs(99),
                outer.director_at(1),
                kind,
                code,
                0,
                &tunnel.bytes(),
            );
            let io = rig.exchange(Side::Server, &[error])?;
            let server = at(rs, GUE_PORT);
            let conn = proc::conn(director, server)?;
            if (inner, outer) != (Family::V4, Family::V4) {
                let came = io.one_at_server()?;
                ensure!(came.dst == marked && came.csum_ok, "{came:?}");
                let quoted = Pkt::parse(&came.body, false)?;
                let vport = 50_000 + n;
                ensure!(
                    quoted.source() == at(marked, vport) && quoted.dest() == server,
                    "{inner:?}, {begun}: it quotes {quoted:?}"
                );
                let conn = conn.context("no connection")?;
                ensure!(
                    conn.proto == "UDP" && conn.dest.ip() == marked,
                    "{inner:?}, {begun}: {conn:?}"
                );
                continue;
            }
            ensure!(conn.is_none(), "{begun}: {conn:?}");
            if begun {
                let told = io.one_at_client()?;
                ensure!(
                    told.dst == client.ip() && (told.icmp_type, told.icmp_code) == (kind, code),
                    "{told:?}"
                );
            } else {
                ensure!(io.server.is_empty() && io.client.is_empty(), "{io:#?}");
            }
        }
    }
    Ok(())
}

fn one(family: Family, proto: u8) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let kind = if proto == TCP { "-t" } else { "-u" };
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    rig.ipvsadm(&format!("-A {kind} {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a {kind} {vip} -r {rs} -m"))?;
    let make = |from, to| {
        if proto == TCP {
            Pkt::tcp(from, to, ACK)
        } else {
            Pkt::udp(from, to, b"payload")
        }
    };
    // What a router on the way to the client says of a reply.
    let too_big = match family {
        Family::V4 => (3, 4, 1280),
        Family::V6 => (2, 0, 1280),
    };
    let error = |vip, client| {
        Pkt::icmp_error(
            family.raw_client(99),
            family.vip(),
            too_big.0,
            too_big.1,
            too_big.2,
            &make(vip, client).bytes(),
        )
    };
    let client = at(family.raw_client(1), 4000);
    let schedule = "net.ipv4.vs.schedule_icmp";
    ensure!(director.sysctl(schedule)? == "0", "it is on by default");
    rig.dropped(Side::Client, &error(vip, client))?;
    ensure!(proc::conns(director)?.is_empty(), "a connection");

    director.set_sysctl(schedule, 1)?;
    let came = rig.forwarded(&error(vip, client))?;
    ensure!(
        came.dst == rs.ip()
            && came.src == family.raw_client(99)
            && (came.icmp_type, came.icmp_code, came.icmp_rest) == too_big
            && came.csum_ok,
        "{came:?}"
    );
    let quoted = Pkt::parse(&came.body, false)?;
    ensure!(
        quoted.source() == rs && quoted.dest() == client,
        "it quotes {quoted:?}"
    );
    let conn = proc::conn(director, client)?.context("no connection")?;
    ensure!(
        conn.vip == vip && conn.dest == rs && conn.expires <= 3,
        "{conn:?}"
    );
    ensure!(proto == UDP || conn.state == "NONE", "{conn:?}");
    // The flow's own packets follow, both ways.
    let came = rig.forwarded(&make(client, vip))?;
    ensure!(came.dest() == rs, "{came:?}");
    let came = rig.returned(&make(rs, client))?;
    ensure!(came.source() == vip, "{came:?}");

    // About no service, it ends here.
    rig.dropped(Side::Client, &error(at(vip.ip(), 81), client))?;
    // Nobody to send it to: nobody is told.
    let other = at(family.raw_client(2), 4000);
    rig.ipvsadm(&format!("-e {kind} {vip} -r {rs} -m -w 0"))?;
    rig.dropped(Side::Client, &error(vip, other))?;
    ensure!(proc::conn(director, other)?.is_none(), "a connection");
    // From the side of the servers: about a request, so that it is no service's.
    rig.ipvsadm(&format!("-e {kind} {vip} -r {rs} -m -w 1"))?;
    let about = |quoted: &[u8]| {
        Pkt::icmp_error(rs.ip(), other.ip(), too_big.0, too_big.1, too_big.2, quoted)
    };
    let quoted = make(other, rs).bytes();
    let came = rig.returned(&about(&quoted))?;
    ensure!(came.src == rs.ip(), "{came:?}");
    ensure!(proc::conn(director, other)?.is_none(), "a connection");
    // Without the ports that would tell it passes as long as it begins nothing.
    let header = if family == Family::V4 { 20 } else { 40 };
    let short = about(&quoted[..header + 2]);
    rig.dropped(Side::Server, &short)?;
    director.set_sysctl(schedule, 0)?;
    let came = rig.returned(&short)?;
    ensure!(came.body == short.body, "{came:?}");
    director.set_sysctl(schedule, 1)?;

    // By direct routing the error goes to the server as it is.
    rig.ipvsadm(&format!("-d {kind} {vip} -r {rs}"))?;
    rig.ipvsadm(&format!(
        "-a {kind} {vip} -r {} -g",
        at(rs.ip(), vip.port())
    ))?;
    let sent = error(vip, other);
    let came = rig.forwarded(&sent)?;
    ensure!(
        came.dst == vip.ip() && came.body == sent.body && came.ttl == sent.ttl - 1,
        "{came:?}"
    );
    // Its checksum is the server's to check.
    let right = Pkt::parse(&sent.bytes(), false)?.csum.context("checksum")?;
    let bad = Pkt {
        csum: Some(right ^ 0x0400),
        ..sent
    };
    let came = rig.forwarded(&bad)?;
    ensure!(!came.csum_ok && came.body == bad.body, "{came:?}");
    if proto == TCP {
        // A template makes it go where the client's others go.
        rig.ipvsadm(&format!("-E {kind} {vip} -s rr -p 60"))?;
        rig.ipvsadm(&format!(
            "-a {kind} {vip} -r {} -g",
            at(family.raw_rs(2), vip.port())
        ))?;
        let third = family.raw_client(3);
        rig.forwarded(&Pkt::tcp(at(third, 4000), vip, SYN))?;
        let first = proc::conn(director, at(third, 4000))?.context("no connection")?;
        for port in 4001..4004 {
            rig.forwarded(&error(vip, at(third, port)))?;
            let conn = proc::conn(director, at(third, port))?.context("no connection")?;
            ensure!(conn.dest == first.dest, "{conn:?}, first {first:?}");
        }
    }
    Ok(())
}
