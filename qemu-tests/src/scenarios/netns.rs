// SPDX-License-Identifier: GPL-2.0-or-later

//! Namespaces are independent: services, connections, counters, settings, tables; and one goes away
//! with services and connections alive.
//!
//! Proves checklist items 30 and 38 (without daemons: `sync_daemon`).

use anyhow::{ensure, Result};

use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, SYN, TCP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "netns",
    "namespaces are independent and go away with everything alive",
    &[30, 38],
    run,
);

fn open(rig: &Rig, family: Family, server: u8, clients: u16) -> Result<()> {
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(server), 8080));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    for n in 0..clients {
        let client = at(family.raw_client(n), 4000);
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == rs, "{came:?}");
        rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    }
    Ok(())
}

fn run(_cx: &Cx) -> Result<()> {
    // Two networks of the same addresses.
    let (one, two) = (Rig::new()?, Rig::new()?);
    open(&one, Family::V4, 1, 50)?;
    ensure!(
        Ipvs::open(&two.topo.director)?.services()?.is_empty(),
        "a service shows in another namespace"
    );
    ensure!(
        Ipvs::open(&two.topo.director)?.info()?.1 == 0,
        "a table shows in another namespace"
    );
    ensure!(Ipvs::open(&one.topo.director)?.info()?.1 > 0, "no table");
    open(&two, Family::V4, 2, 20)?;
    ensure!(
        proc::conns(&one.topo.director)?.len() == 50
            && proc::conns(&two.topo.director)?.len() == 20,
        "connections"
    );
    // The same client and service have a connection in each.
    let client = at(Family::V4.raw_client(0), 4000);
    for (rig, server) in [(&one, 1), (&two, 2)] {
        let came = rig.forwarded(&Pkt::tcp(client, at(Family::V4.vip(), 80), ACK))?;
        ensure!(came.dest().ip() == Family::V4.raw_rs(server), "{came:?}");
    }
    one.ipvsadm("--set 1100 1200 1300")?;
    ensure!(
        Ipvs::open(&two.topo.director)?.config()? == [900, 120, 300],
        "timeouts are shared"
    );
    one.ipvsadm("-Z")?;
    one.topo
        .director
        .set_sysctl("net.ipv4.vs.conn_reuse_mode", 0)?;
    ensure!(
        two.topo.director.sysctl("net.ipv4.vs.conn_reuse_mode")? == "1",
        "conn_reuse_mode is shared"
    );
    one.ipvsadm("-C")?;
    ensure!(
        Ipvs::open(&two.topo.director)?
            .dests(TCP, at(Family::V4.vip(), 80))?
            .len()
            == 1,
        "flushed elsewhere"
    );
    let back = two.returned(&Pkt::tcp(at(Family::V4.raw_rs(2), 8080), client, ACK))?;
    ensure!(back.source() == at(Family::V4.vip(), 80), "{back:?}");

    // Gone with services and connections of both families, and packets just sent.
    open(&two, Family::V6, 1, 20)?;
    for n in 0..200 {
        two.ctap.send(&Pkt::tcp(
            at(Family::V4.raw_client(1000 + n), 4000),
            at(Family::V4.vip(), 80),
            SYN,
        ))?;
    }
    drop(two);
    open(&one, Family::V4, 1, 5)?;
    for round in 0..20 {
        let ns = Ns::new("short-lived")?;
        ns.cmd("ip addr add 10.1.1.1/24 dev lo")?;
        let mut table = String::new();
        for n in 1..=10 {
            table += &format!("-A -t 10.1.1.1:{n} -s wlc\n");
            if round % 4 == 0 {
                table += &format!("-a -t 10.1.1.1:{n} -r 10.1.1.2:80 -m\n");
            }
        }
        ns.cmd_stdin("ipvsadm -R", &table)?;
    }
    let io = one.exchange(
        Side::Client,
        &[Pkt::tcp(client, at(Family::V4.vip(), 80), ACK)],
    )?;
    ensure!(io.server.len() == 1, "{io:#?}");
    Ok(())
}
