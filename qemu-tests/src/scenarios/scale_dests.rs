// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of destinations in one service, with each kind of scheduler: packets find their way while they are added, all are
//! listed, newest first, edited ones keep their places, and they go one by one. How long each of that takes is printed.
//!
//! `RVS_DESTS=10000 make test SCENARIO=scale_dests` adds as many; with `PEER=c` it is what to compare with.
//!
//! Proves checklist item 6 in part.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, dest_id, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "scale_dests",
    "one service of thousands of destinations",
    &[],
    run,
)
.partly(&[6])
.timeout(120.0);

fn many() -> Result<usize> {
    match std::env::var("RVS_DESTS") {
        Ok(n) => n.parse().context("RVS_DESTS is no number"),
        Err(_) => Ok(rounds(2_000)),
    }
}

/// Of the service on `port`; none is another's, which would come back with its connections.
fn server(port: u16, n: usize) -> SocketAddr {
    let port = 1000 * port + (n / 200) as u16;
    at(Family::V4.raw_rs((n % 200) as u8), port)
}

fn run(_cx: &Cx) -> Result<()> {
    let many = many()?;
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    for (port, sched) in (1..).zip(["rr", "wrr", "wlc", "sh", "mh"]) {
        let vip = at(Family::V4.vip(), port);
        let id = svc_id(UDP, vip);
        let server = |n| server(port, n);
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(UDP, vip, sched)))?;
        let began = Instant::now();
        for n in 0..many {
            ipvs.ok(cmd::NEW_DEST, &for_dest(&id, &dest_full(server(n), 1)))?;
            if n % (many / 10) == 0 {
                let client = at(Family::V4.raw_client(n as u16), 2000);
                let came = rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
                let known = (0..=n).map(server).any(|server| server == came.dest());
                // The newest of those who have no connection.
                let right = sched != "wlc" || came.dest() == server(n);
                ensure!(known && right, "{sched}, {n}: {came:?}");
            }
        }
        let added = began.elapsed();
        let began = Instant::now();
        let dests = ipvs.dests(UDP, vip)?;
        let listed = began.elapsed();
        let order = dests.iter().map(|d| d.addr);
        ensure!(order.eq((0..many).rev().map(server)), "{sched}: order");
        let began = Instant::now();
        for n in (0..many).step_by(10) {
            ipvs.ok(cmd::SET_DEST, &for_dest(&id, &dest_full(server(n), 2)))?;
        }
        let edited = began.elapsed();
        let dests = ipvs.dests(UDP, vip)?;
        ensure!(
            dests.iter().filter(|d| d.weight == 2).count() == many.div_ceil(10),
            "{sched}: edited"
        );
        let began = Instant::now();
        for n in (0..many).step_by(2) {
            ipvs.ok(cmd::DEL_DEST, &for_dest(&id, &dest_id(server(n))))?;
        }
        let removed = began.elapsed();
        let dests = ipvs.dests(UDP, vip)?;
        let left = (0..many).rev().filter(|n| n % 2 == 1).map(server);
        ensure!(
            dests.iter().map(|d| d.addr).eq(left),
            "{sched}: what is left"
        );
        let began = Instant::now();
        ipvs.ok(cmd::FLUSH, &Attrs::new())?;
        println!(
            "{sched}: {many} added in {added:.2?}, listed in {listed:.2?}, a tenth edited in {edited:.2?}, half removed in \
             {removed:.2?}, flushed in {:.2?}",
            began.elapsed()
        );
    }
    Ok(())
}
