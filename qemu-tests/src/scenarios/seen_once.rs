// SPDX-License-Identifier: GPL-2.0-or-later

//! A packet that was dealt with once is left alone by all hooks it still meets: one that goes on to a real server whose address
//! is a service itself, and a reply to a client whose address is one.
//!
//! Proves checklist item 35.

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, ACK, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "seen_once",
    "packets already dealt with are left alone",
    &[35],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        requests(family)?;
        replies(family)?;
        forwarded_replies(family)?;
    }
    Ok(())
}

/// The first service's server is the second service; only clients on the director use that.
fn requests(family: Family) -> Result<()> {
    let topo = Topo::new(2)?;
    let (vip, one, two) = (
        at(family.vip(), 80),
        at(family.rs(1), 8080),
        at(family.rs(2), 8080),
    );
    let _servers = [
        Server::tcp(&topo.rs[0], one, "rs1")?,
        Server::tcp(&topo.rs[1], two, "rs2")?,
    ];
    for (service, server) in [(vip, one), (one, two)] {
        topo.ipvsadm(&format!("-A -t {service} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {service} -r {server} -m"))?;
    }
    for (ns, to, who) in [
        (&topo.client, vip, "rs1"),
        (&topo.director, vip, "rs1"),
        (&topo.director, one, "rs2"),
    ] {
        let body = serve::http_get(ns, to)?;
        ensure!(
            serve::name(&body) == who,
            "{} asked {to}: {body:?}",
            ns.name()
        );
    }
    let conns = proc::conns(&topo.director)?;
    ensure!(conns.len() == 3, "{conns:#?}");
    Ok(())
}

/// Replies of the director's own server, to a client whose address and port are a service.
fn replies(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, here, client) = (
        at(family.vip(), 80),
        at(family.director(), 8080),
        at(family.raw_client(1), 4000),
    );
    let _server = Server::tcp(&rig.topo.director, here, "here")?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {here} -m"))?;
    rig.ipvsadm(&format!("-A -t {client} -s rr"))?;
    rig.ipvsadm(&format!(
        "-a -t {client} -r {} -m",
        at(family.raw_rs(1), 80)
    ))?;
    // A SYN+ACK could begin a connection.
    let answer = rig.answered(&Pkt::tcp(client, vip, SYN))?;
    ensure!(
        answer.source() == vip && answer.dest() == client && answer.flags == SYN | ACK,
        "{answer:?}"
    );
    let conns = proc::conns(&rig.topo.director)?;
    ensure!(conns.len() == 1 && conns[0].client == client, "{conns:#?}");
    Ok(())
}

/// The same of a server elsewhere: its replies pass through, and meet fewer hooks.
fn forwarded_replies(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 8080),
        at(family.raw_client(1), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    rig.ipvsadm(&format!("-A -t {client} -s rr"))?;
    rig.ipvsadm(&format!(
        "-a -t {client} -r {} -m",
        at(family.raw_rs(2), 80)
    ))?;
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    let io = rig.exchange(Side::Server, &[Pkt::tcp(rs, client, SYN | ACK)])?;
    let came = io.one_at_client()?;
    ensure!(came.source() == vip, "{came:?}");
    let conns = proc::conns(&rig.topo.director)?;
    ensure!(conns.len() == 1, "{conns:#?}");
    Ok(())
}
