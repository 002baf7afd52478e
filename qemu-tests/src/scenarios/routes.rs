// SPDX-License-Identifier: GPL-2.0-or-later

//! The remembered route to a server: a changed route is followed at once, a device that goes down or away is let go of, and a
//! client is told when there is no way.
//!
//! Proves checklist items 40 and 113 (revalidation, device down).

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::tap::Tap;
use crate::topo::{at, mac, Family, Topo};
use crate::wait::scaled;

pub const SCENARIO: Scenario = Scenario::new(
    "routes",
    "remembered routes follow changes and let devices go",
    &[40],
    run,
)
.partly(&[113]);

/// The network of the crafted servers, and the neighbours behind which it can be.
fn net(family: Family) -> (&'static str, &'static str, &'static str) {
    match family {
        Family::V4 => ("10.8.1.0/24", "10.0.1.2", "10.0.2.2"),
        Family::V6 => ("fd08:1::/32", "fd00:0:0:1::2", "fd00:0:0:2::2"),
    }
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        one(family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

fn one(family: Family) -> Result<()> {
    let rig = Rig::around(Topo::new(2)?)?;
    crate::rig::one_cpu()?;
    let second = Tap::open(&rig.topo.rs[1], "eth0", mac(2, 2), mac(2, 1))?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 8080),
        at(family.raw_client(1), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    let ack = Pkt::tcp(client, vip, ACK);
    let arrives = |tap: &Tap, dest: SocketAddr| -> Result<()> {
        rig.ctap.send(&ack)?;
        let frame = tap.expect("the client's packet", 2.0, |f| {
            !f.outgoing && f.pkt.source() == client
        })?;
        ensure!(frame.pkt.dest() == dest && frame.pkt.csum_ok, "{frame:?}");
        Ok(())
    };
    let director = &rig.topo.director;
    let (prefix, one, two) = net(family);
    arrives(&rig.stap, rs)?;

    // Another way, and back.
    for (via, tap, other) in [
        (two, &second, &rig.stap),
        (one, &rig.stap, &second),
        (two, &second, &rig.stap),
    ] {
        director.ip(&format!("route replace {prefix} via {via}"))?;
        other.drain()?;
        arrives(tap, rs)?;
        ensure!(
            other.drain()?.iter().all(|f| f.pkt.source() != client),
            "it went both ways"
        );
    }

    // No way at all: the client hears of it.
    director.ip(&format!("route del {prefix}"))?;
    rig.ctap.drain()?;
    rig.ctap.send(&ack)?;
    let told = rig
        .ctap
        .expect("an error", 2.0, |f| !f.outgoing && f.pkt.icmp_type != 0)?
        .pkt;
    let unreachable = if family == Family::V4 { (3, 1) } else { (1, 3) };
    ensure!(
        (told.icmp_type, told.icmp_code) == unreachable && told.dst == client.ip(),
        "{told:?}"
    );
    director.ip(&format!("route add {prefix} via {two}"))?;
    arrives(&second, rs)?;

    // The device goes down with a remembered route over it, and comes back with nothing but its addresses.
    director.ip("link set s2 down")?;
    director.ip(&format!("route replace {prefix} via {one}"))?;
    arrives(&rig.stap, rs)?;
    director.ip("link set s2 up")?;
    arrives(&rig.stap, rs)?;

    // It goes away for good: nothing holds it.
    director.ip(&format!(
        "addr replace fd00:0:0:2::1/64 dev s2 nodad\n\
         neigh replace {two} lladdr 02:00:00:00:02:02 dev s2 nud permanent\n\
         route replace {prefix} via {two}"
    ))?;
    arrives(&second, rs)?;
    let begin = Instant::now();
    director.ip("link del s2")?;
    if begin.elapsed() > scaled(4.0) {
        bail!("deleting a device took {:?}", begin.elapsed());
    }
    director.ip(&format!("route replace {prefix} via {one}"))?;
    arrives(&rig.stap, rs)
}
