// SPDX-License-Identifier: GPL-2.0-or-later

//! What comes back from a real server: un-NATed when it belongs to a connection, passed on
//! untouched when it doesn't, and refused with
//! `nat_icmp_send`.
//!
//! The answers of a server by direct routing or a tunnel that come by are known by the service's address, and stay as they are.
//!
//! Proves checklist items 65, 99 and 117 (the default).

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "replies",
    "replies are un-NATed, other packets of a server are not",
    &[65, 99],
    run,
)
.partly(&[117]);

/// Answers from the service's own address that come by the director: they are the connection's, whose state and counters they
/// move, and stay as they are. What the server sends from its own address is nobody's.
fn direct(family: Family, way: &str) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let ipvs = Ipvs::open(director)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 80));
    let client = at(family.raw_client(1), 4000);
    // Their source is an address of the director.
    director.set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} {way}"))?;
    let state = || -> Result<String> {
        let conn = proc::conn(director, client)?.context("no connection")?;
        Ok(conn.state)
    };
    let there = |flags| rig.forwarded(&Pkt::tcp(client, vip, flags)).map(drop);
    let back = |from: SocketAddr, flags: u8| -> Result<()> {
        let sent = Pkt::tcp(from, client, flags);
        let came = rig.returned(&sent)?;
        ensure!(
            came.source() == from
                && came.dest() == client
                && came.ttl == sent.ttl - 1
                && came.flags == flags
                && came.csum_ok,
            "{came:?}"
        );
        Ok(())
    };
    there(SYN)?;
    ensure!(state()? == "SYN_RECV", "{}", state()?);
    back(vip, SYN | ACK)?;
    there(ACK)?;
    back(rs, ACK)?;
    ensure!(state()? == "ESTABLISHED", "{}", state()?);
    back(vip, FIN | ACK)?;
    ensure!(state()? == "FIN_WAIT", "{}", state()?);
    there(FIN | ACK)?;
    ensure!(state()? == "TIME_WAIT", "{}", state()?);
    // Another port of the service's address is not the service.
    back(at(vip.ip(), 81), ACK)?;
    until_true("three packets in, two out", 8.0, || {
        let stats = ipvs.dest(TCP, vip, rs)?.stats64;
        Ok((stats.inpkts, stats.outpkts) == (3, 2))
    })
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for way in ["-g", "-i"] {
            direct(family, way).with_context(|| format!("{family:?} {way}"))?;
        }
        let rig = Rig::new()?;
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        let (client, stranger) = (
            at(family.raw_client(1), 4000),
            at(family.raw_client(2), 4000),
        );
        for kind in ["t", "u"] {
            rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
        }
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
        for pkt in [Pkt::tcp(rs, client, SYN | ACK), Pkt::udp(rs, client, b"y")] {
            let came = rig.returned(&pkt)?;
            ensure!(
                came.source() == vip && came.dest() == client && came.csum_ok,
                "{came:?}"
            );
        }
        // Another client, another client port, another server port: not a reply to anything.
        for (from, to) in [
            (rs, stranger),
            (rs, at(client.ip(), 4001)),
            (at(rs.ip(), 8081), client),
        ] {
            for pkt in [Pkt::tcp(from, to, SYN | ACK), Pkt::udp(from, to, b"y")] {
                let came = rig.returned(&pkt)?;
                ensure!(
                    came.source() == from && came.dest() == to && came.csum_ok,
                    "{came:?}"
                );
            }
        }
        // With nat_icmp_send a known server is told, unless it sends a reset; strangers' ports
        // still pass.
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.nat_icmp_send", 1)?;
        for pkt in [
            Pkt::tcp(rs, stranger, SYN | ACK),
            Pkt::udp(rs, stranger, b"y"),
        ] {
            let io = rig.exchange(Side::Server, &[pkt])?;
            ensure!(io.client.is_empty() && io.server.len() == 1, "{io:#?}");
            let told = &io.server[0].pkt;
            let kind = if family == Family::V4 {
                (ICMP, 3, 3)
            } else {
                (ICMPV6, 1, 4)
            };
            ensure!(
                (told.proto, told.icmp_type, told.icmp_code) == kind,
                "{told:?}"
            );
            ensure!(told.dst == rs.ip() && told.csum_ok, "{told:?}");
        }
        rig.returned(&Pkt::tcp(rs, stranger, RST))?;
        rig.returned(&Pkt::tcp(at(rs.ip(), 8081), stranger, SYN | ACK))?;
        // So it is with SCTP and an abort.
        rig.ipvsadm(&format!("-A --sctp-service {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a --sctp-service {vip} -r {rs} -m"))?;
        let sctp = |chunk: u8| {
            let mut body = Vec::new();
            body.extend(rs.port().to_be_bytes());
            body.extend(stranger.port().to_be_bytes());
            body.extend([0; 8]);
            body.extend([chunk, 0, 0, 4]);
            Pkt {
                body,
                ..Pkt::new(rs.ip(), stranger.ip(), 132)
            }
        };
        rig.returned(&sctp(6))?;
        let io = rig.exchange(Side::Server, &[sctp(4)])?;
        ensure!(io.client.is_empty() && io.server.len() == 1, "{io:#?}");
        // Replies of connections are not concerned.
        let came = rig.returned(&Pkt::tcp(rs, client, ACK))?;
        ensure!(came.source() == vip, "{came:?}");
    }
    Ok(())
}
