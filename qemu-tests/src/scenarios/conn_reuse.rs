// SPDX-License-Identifier: GPL-2.0-or-later

//! A client's SYN on ports of an old connection: with conn_reuse_mode a connection in TIME_WAIT or
//! CLOSE is given up and the packet scheduled anew; without, it goes where the old one went. With bit 2 so is one in FIN_WAIT
//! whose answers do not come by here. An association of SCTP that is closed is given up in any mode but 0.
//!
//! Proves checklist item 74.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, FIN, RST, SYN, TCP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new("conn_reuse", "conn_reuse_mode 0 to 3", &[74], run);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        persistent(family)?;
        direct(family)?;
        sctp(family)?;
        let rig = Rig::new()?;
        let vip = at(family.vip(), 80);
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        for host in [1, 2] {
            rig.ipvsadm(&format!(
                "-a -t {vip} -r {} -m",
                at(family.raw_rs(host), 80)
            ))?;
        }
        ensure!(
            rig.topo.director.sysctl("net.ipv4.vs.conn_reuse_mode")? == "1",
            "the default is not 1"
        );
        let mut port = 4000;
        for mode in [1, 2, 3, 0] {
            rig.topo
                .director
                .set_sysctl("net.ipv4.vs.conn_reuse_mode", mode)?;
            for (state, reused) in [
                ("SYN_RECV", false),
                ("ESTABLISHED", false),
                ("CLOSE_WAIT", false),
                ("FIN_WAIT", false),
                ("TIME_WAIT", true),
                ("CLOSE", true),
            ] {
                port += 1;
                let client = at(family.raw_client(1), port);
                let there = |flags| rig.forwarded(&Pkt::tcp(client, vip, flags));
                let first = there(SYN)?.dest();
                let back = |flags| rig.returned(&Pkt::tcp(first, client, flags));
                if state != "SYN_RECV" {
                    back(SYN | ACK)?;
                    there(ACK)?;
                }
                match state {
                    "CLOSE_WAIT" => drop(there(FIN | ACK)?),
                    "FIN_WAIT" => drop(back(FIN | ACK)?),
                    "TIME_WAIT" => {
                        there(FIN | ACK)?;
                        back(FIN | ACK)?;
                    }
                    "CLOSE" => drop(back(RST)?),
                    _ => {}
                }
                let is = proc::conn(&rig.topo.director, client)?.context("no connection")?;
                ensure!(is.state == state, "expected {state}, it is {}", is.state);
                let again = there(SYN)?.dest();
                // Round robin: scheduled anew means the other one.
                let expect_new = reused && mode != 0;
                ensure!(
                    (again != first) == expect_new,
                    "mode {mode}, {state}: {first}, then {again}"
                );
                if expect_new {
                    // The old one goes in the background.
                    until_true(
                        "exactly one connection is left for these ports",
                        2.0,
                        || {
                            let all = proc::conns(&rig.topo.director)?;
                            Ok(all.iter().filter(|c| c.client == client).count() == 1)
                        },
                    )?;
                    let now = proc::conn(&rig.topo.director, client)?.context("no connection")?;
                    ensure!(now.state == "SYN_RECV" && now.dest == again, "{now:?}");
                }
            }
        }
    }
    Ok(())
}

/// Two servers by direct routing, of which the director sees no answer; the states follow from the client's packets.
fn direct(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let vip = at(family.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    for host in [1, 2] {
        rig.ipvsadm(&format!(
            "-a -t {vip} -r {} -g",
            at(family.raw_rs(host), 80)
        ))?;
    }
    let mut port = 4000;
    for mode in 0..=3 {
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.conn_reuse_mode", mode)?;
        for (state, last, bits) in [
            ("SYN_RECV", SYN, 0),
            ("ESTABLISHED", ACK, 0),
            ("FIN_WAIT", FIN | ACK, 2),
            ("CLOSE", RST, 3),
        ] {
            port += 1;
            let client = at(family.raw_client(1), port);
            let sends = |flags| rig.forwarded(&Pkt::tcp(client, vip, flags)).map(drop);
            let conns = || -> Result<Vec<proc::Conn>> {
                let mut all = proc::conns(&rig.topo.director)?;
                all.retain(|conn| conn.client == client);
                Ok(all)
            };
            sends(SYN)?;
            if state != "SYN_RECV" {
                sends(ACK)?;
                sends(last)?;
            }
            let old = conns()?;
            ensure!(
                old.len() == 1 && old[0].state == state,
                "mode {mode}: expected {state}, it is {old:?}"
            );
            sends(SYN)?;
            let expect_new = mode & bits != 0;
            // Round robin: scheduled anew means the other one.
            until_true("one connection is left", 2.0, || Ok(conns()?.len() == 1))?;
            let now = conns()?;
            ensure!(
                (now[0].dest != old[0].dest) == expect_new,
                "mode {mode}, {state}: {old:?}, then {now:?}"
            );
        }
    }
    Ok(())
}

/// As for TCP, with INIT for SYN and ABORT for RST.
fn sctp(family: Family) -> Result<()> {
    const INIT: u8 = 1;
    const ABORT: u8 = 6;
    let rig = Rig::new()?;
    let vip = at(family.vip(), 80);
    rig.ipvsadm(&format!("-A --sctp-service {vip} -s rr"))?;
    for host in [1, 2] {
        let rs = at(family.raw_rs(host), 80);
        rig.ipvsadm(&format!("-a --sctp-service {vip} -r {rs} -m"))?;
    }
    let pkt = |from: SocketAddr, to: SocketAddr, chunk: u8| {
        let mut body = Vec::new();
        body.extend(from.port().to_be_bytes());
        body.extend(to.port().to_be_bytes());
        // Nobody looks at the checksum: the ports stay.
        body.extend([0; 8]);
        body.extend([chunk, 0, 0, 4]);
        Pkt {
            body,
            ..Pkt::new(from.ip(), to.ip(), 132)
        }
    };
    let mut port = 4000;
    for mode in 0..=3 {
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.conn_reuse_mode", mode)?;
        for (state, closed) in [("INIT1", false), ("REJECTED", false), ("CLOSED", true)] {
            port += 1;
            let client = at(family.raw_client(1), port);
            let first = rig.forwarded(&pkt(client, vip, INIT))?.dst;
            match state {
                "CLOSED" => drop(rig.forwarded(&pkt(client, vip, ABORT))?),
                "REJECTED" => drop(rig.returned(&pkt(at(first, 80), client, ABORT))?),
                _ => {}
            }
            let is = proc::conn(&rig.topo.director, client)?.context("no connection")?;
            ensure!(is.state == state, "expected {state}, it is {is:?}");
            let again = rig.forwarded(&pkt(client, vip, INIT))?.dst;
            ensure!(
                (again != first) == (closed && mode != 0),
                "mode {mode}, {state}: {first}, then {again}"
            );
        }
    }
    Ok(())
}

/// What a template controls is never given up: the same connection goes on.
fn persistent(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 80));
    rig.ipvsadm(&format!("-A -t {vip} -s rr -p 60"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let (client, other) = (
        at(family.raw_client(1), 4000),
        at(family.raw_client(2), 4000),
    );
    for _ in 0..3 {
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.returned(&Pkt::tcp(rs, client, RST))?;
        let is = proc::conn(&rig.topo.director, client)?.context("no connection")?;
        ensure!(is.state == "CLOSE", "{is:?}");
    }
    rig.forwarded(&Pkt::tcp(other, vip, SYN))?;
    // C shows what its estimator has seen.
    until_true("two connections, four packets", 8.0, || {
        let stats = ipvs.service(TCP, vip)?.stats;
        Ok((stats.conns, stats.inpkts) == (2, 4))
    })
}
