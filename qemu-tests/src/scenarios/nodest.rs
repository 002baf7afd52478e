// SPDX-License-Identifier: GPL-2.0-or-later

//! Connections whose server is deleted: dropped in silence by default, kept for when the server
//! comes back; with expire_nodest_conn given up at once and scheduled anew.
//!
//! Proves checklist items 61 (revival), 75 and 76.

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, SYN, TCP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "nodest",
    "deleted servers: silent drop, revival, expire_nodest_conn",
    &[75, 76],
    run,
)
.partly(&[61]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let vip = at(family.vip(), 80);
        let (one, two) = (at(family.raw_rs(1), 80), at(family.raw_rs(2), 80));
        let client = at(family.raw_client(1), 4000);
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {one} -m"))?;
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.returned(&Pkt::tcp(one, client, SYN | ACK))?;
        rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
        let ipvs = Ipvs::open(&rig.topo.director)?;

        // Gone: what the client sends is dropped without a word, though another server is there.
        rig.ipvsadm(&format!("-a -t {vip} -r {two} -m"))?;
        rig.ipvsadm(&format!("-d -t {vip} -r {one}"))?;
        rig.dropped(Side::Client, &Pkt::tcp(client, vip, ACK))?;
        rig.dropped(Side::Client, &Pkt::tcp(client, vip, SYN))?;
        ensure!(
            proc::conn(&rig.topo.director, client)?.is_some(),
            "the connection is gone"
        );
        // The server's own packets still find their way.
        let back = rig.returned(&Pkt::tcp(one, client, ACK))?;
        ensure!(back.source() == vip, "{back:?}");
        // Back again, it has its connection back and counts it.
        rig.ipvsadm(&format!("-a -t {vip} -r {one} -m"))?;
        let came = rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
        ensure!(came.dest() == one, "{came:?}");
        let dest = ipvs.dest(TCP, vip, one)?;
        ensure!((dest.active, dest.inact) == (1, 0), "{dest:?}");

        // With the sysctl: deleted in the background as soon as the server is.
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
        rig.ipvsadm(&format!("-d -t {vip} -r {one}"))?;
        until_true("the connections of a deleted server go", 3.0, || {
            Ok(proc::conn(&rig.topo.director, client)?.is_none())
        })?;
        // What comes now is a new connection: an ACK alone doesn't make one, a SYN does.
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client, vip, ACK)])?;
        ensure!(io.server.is_empty(), "{io:#?}");
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == two, "{came:?}");
        // A SYN of a connection whose server has weight 0 is scheduled anew too.
        rig.ipvsadm(&format!("-a -t {vip} -r {one} -m"))?;
        rig.ipvsadm(&format!("-e -t {vip} -r {two} -m -w 0"))?;
        let came = rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
        ensure!(came.dest() == two, "{came:?}");
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == one, "{came:?}");
        let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
        ensure!(conn.dest == one, "{conn:?}");
    }
    Ok(())
}
