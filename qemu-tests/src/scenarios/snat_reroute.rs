// SPDX-License-Identifier: GPL-2.0-or-later

//! Replies are routed again from the VIP, where policy routing may want another way for them than for the server's address; not with
//! snat_reroute off.
//!
//! Proves checklist item 117.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN};
use crate::rig::{one_cpu, Rig};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::tap::Tap;
use crate::topo::{at, mac, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "snat_reroute",
    "replies are routed by the VIP's policy, unless told not to",
    &[117],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        one(family).with_context(|| format!("{family:?}"))?;
        local(family).with_context(|| format!("{family:?}, a server on the director"))?;
    }
    Ok(())
}

/// What comes from the VIP leaves by the second network, as if another router were there.
fn policy(topo: &Topo, family: Family) -> Result<()> {
    let (six, via) = match family {
        Family::V4 => ("", "10.0.2.2"),
        Family::V6 => ("-6 ", "fd00:0:0:2::2"),
    };
    topo.director.cmd(&format!(
        "ip {six}rule add from {} lookup 100",
        family.vip()
    ))?;
    topo.director
        .cmd(&format!("ip {six}route add default via {via} table 100"))
        .map(drop)
}

fn one(family: Family) -> Result<()> {
    one_cpu()?;
    let rig = Rig::around(Topo::new(2)?)?;
    let second = Tap::open(&rig.topo.rs[1], "eth0", mac(2, 2), mac(2, 1))?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 8080),
        at(family.raw_client(1), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    policy(&rig.topo, family)?;
    let reply = Pkt::tcp(rs, client, SYN | ACK);
    for (on, other) in [(1, true), (0, false), (1, true)] {
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.snat_reroute", on)?;
        rig.drain()?;
        second.drain()?;
        rig.stap.send(&reply)?;
        let (here, there) = if other {
            (&second, &rig.ctap)
        } else {
            (&rig.ctap, &second)
        };
        let frame = here.expect("the reply", 2.0, |f| !f.outgoing && f.pkt.dest() == client)?;
        ensure!(
            frame.pkt.source() == vip && frame.pkt.csum_ok && frame.pkt.ttl == 63,
            "{frame:?}"
        );
        ensure!(
            there.drain()?.iter().all(|f| f.pkt.dest() != client),
            "it went both ways"
        );
    }
    Ok(())
}

/// Replies of the director's own server as well.
fn local(family: Family) -> Result<()> {
    let topo = Topo::new(2)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.director(), 8080));
    let server = Server::tcp(&topo.director, rs, "here")?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    ensure!(
        serve::name(&serve::http_get(&topo.client, vip)?) == "here",
        "without a policy"
    );
    policy(&topo, family)?;
    // The second real server passes on what it gets, so the client has its answer by a detour.
    let second = Tap::open(&topo.rs[1], "eth0", mac(2, 2), mac(2, 1))?;
    let connecting = serve::begin_connect(&topo.client, vip)?;
    let stream = second.expect("a reply of the local server", 3.0, |f| {
        !f.outgoing && f.pkt.source() == vip
    })?;
    drop(connecting);
    ensure!(
        stream.pkt.flags == SYN | ACK && stream.pkt.dst == family.client(),
        "{stream:?}"
    );
    drop(server);
    Ok(())
}
