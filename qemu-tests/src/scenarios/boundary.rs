// SPDX-License-Identifier: GPL-2.0-or-later

//! The boundary between this host and others: a local client's packet to another host's address may become one to this host by NAT
//! only; what comes from a loopback address does not leave.
//!
//! Proves checklist item 114, with local_server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{ensure, Result};

use crate::ipvs::{cmd, dest, dest_full, for_dest, svc_id, Ipvs};
use crate::pkt::UDP;
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "boundary",
    "what is for this host stays here, what is for others leaves",
    &[114],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        inwards(family)?;
        outwards(family)?;
    }
    Ok(())
}

/// A service at an address that is not this host's, whose real server is this host: for its own clients.
fn inwards(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let here = family.director_at(1);
    let ipvs = Ipvs::open(director)?;
    for (n, (method, may)) in (0u16..).zip([(0u32, true), (3, false), (2, false)]) {
        let service = at(family.raw_rs(77), 5300 + n);
        let port = if may { 53 } else { service.port() };
        let server = Server::udp(director, at(here, port), "here")?;
        rig.ipvsadm(&format!("-A -u {service} -s rr"))?;
        let add = dest_full(at(here, port), 1).with(dest::FWD_METHOD, &method.to_ne_bytes());
        ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(UDP, service), &add))?;
        let socket = serve::udp(director, service)?;
        rig.drain()?;
        socket.send(b"hello")?;
        if may {
            // It may, but keeps its route: it leaves with the new address.
            until_true("the packet leaves", 5.0, || {
                let seen = rig.stap.drain()?;
                Ok(seen
                    .iter()
                    .any(|f| !f.outgoing && f.pkt.dest() == at(here, port)))
            })?;
            continue;
        }
        // It had its connection, and went nowhere.
        let client = socket.local_addr()?;
        ensure!(
            proc::conn(director, client)?.is_some(),
            "method {method}: no connection"
        );
        let io = rig.finish(Side::Client)?;
        ensure!(
            io.server.is_empty() && server.count() == 0,
            "method {method}: {io:#?}, {} requests",
            server.count()
        );
    }
    ended(&rig)
}

/// A service at a loopback address, with a real server elsewhere.
fn outwards(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let lo: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    for (n, flags) in (0u16..).zip(["-m", "-g", "-i"]) {
        let service = at(lo, 5400 + n);
        let rs: SocketAddr = at(family.raw_rs(1), service.port());
        rig.ipvsadm(&format!("-A -u {service} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {service} -r {rs} {flags}"))?;
        rig.drain()?;
        let socket = serve::udp(director, service)?;
        socket.send(b"hello")?;
        ensure!(
            proc::conn(director, socket.local_addr()?)?.is_some(),
            "{flags}: no connection"
        );
        let io = rig.finish(Side::Client)?;
        ensure!(io.server.is_empty(), "{flags}: {io:#?}");
    }
    // From another of its addresses a client gets there.
    let service = at(family.vip(), 5400);
    let rs = at(family.raw_rs(1), 5400);
    rig.ipvsadm(&format!("-A -u {service} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {service} -r {rs} -m"))?;
    let socket = serve::udp(director, service)?;
    socket.send(b"hello")?;
    until_true("the packet arrives", 5.0, || {
        let seen = rig.stap.drain()?;
        Ok(seen.iter().any(|f| !f.outgoing && f.pkt.dest() == rs))
    })?;
    ended(&rig)
}

/// C may keep a route, and with it a device, of a namespace that ends while the table of services gets its size (docs/differences.md): it
/// has none any more then.
fn ended(rig: &Rig) -> Result<()> {
    rig.ipvsadm("-C")?;
    Ok(())
}
