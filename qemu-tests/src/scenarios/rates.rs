// SPDX-License-Identifier: GPL-2.0-or-later

//! Rates: a burst, then silence. What is shown, period after period, is what C's formula makes of it: an average that moves
//! by a quarter of the difference every two seconds. The settings of the estimator stop it and let it go on.
//!
//! rvs shows counters as they are at the moment, and they go on without the estimator; C shows what its estimator has seen, which
//! stands still without it.
//!
//! Proves checklist items 138, 139 and 140.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use crate::genl::find;
use crate::ipvs::{cmd, for_svc, number, svc, svc_id, top, Ipvs};
use crate::ns::Ns;
use crate::pkt::{Pkt, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family};
use crate::wait::{pass, until};

pub const SCENARIO: Scenario = Scenario::new(
    "rates",
    "rates rise and fall by C's formula; the estimator's settings",
    &[138, 139, 140],
    run,
)
.timeout(120.0);

/// Connections of the burst; as many packets.
const BURST: u16 = 800;

/// Connections, packets and bytes in, per second.
type Rates = [u64; 3];

/// What is shown after each period from the first on, if the burst fell into one.
fn model(packets: u64, bytes: u64) -> Vec<Rates> {
    let mut averages = [0i64; 3];
    let mut deltas = [packets << 9, packets << 9, bytes << 4].map(|n| n as i64);
    let mut shown = Vec::new();
    for _ in 0..40 {
        for (average, delta) in averages.iter_mut().zip(&mut deltas) {
            *average += (*delta - *average) >> 2;
            *delta = 0;
        }
        let [conns, pkts, bytes] = averages.map(|a| a as u64);
        shown.push([
            (conns + 0x1ff) >> 10,
            (pkts + 0x1ff) >> 10,
            (bytes + 0xf) >> 5,
        ]);
    }
    shown
}

fn rates(ipvs: &Ipvs, vip: std::net::SocketAddr) -> Result<Rates> {
    let reply = ipvs.ok(cmd::GET_SERVICE, &for_svc(&svc_id(UDP, vip)))?;
    let attrs = &reply.msgs.first().context("no service")?.attrs;
    let nest = find(attrs, top::SERVICE).context("no service")?;
    let stats = find(nest, svc::STATS64).context("no statistics")?;
    Ok([number(stats, 6)?, number(stats, 7)?, number(stats, 9)?])
}

fn burst(rig: &Rig, round: u16) -> Result<u64> {
    let vip = at(Family::V4.vip(), 53);
    let pkts: Vec<Pkt> = (0..BURST)
        .map(|n| {
            let client = at(Family::V4.raw_client(n % 251), 1000 + round * BURST + n);
            Pkt::udp(client, vip, &[1; 100])
        })
        .collect();
    for chunk in pkts.chunks(200) {
        let io = rig.exchange(Side::Client, chunk)?;
        ensure!(io.server.len() == chunk.len(), "packets were lost");
    }
    Ok(pkts.iter().map(|p| p.bytes().len() as u64).sum())
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    let (vip, rs) = (at(Family::V4.vip(), 53), at(Family::V4.raw_rs(1), 53));
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    // C's estimator begins by measuring itself.
    pass(3.0);

    // A burst may be cut in two by the end of a period: then once more, when it is forgotten.
    let mut round = 0;
    let seen = loop {
        let bytes = burst(&rig, round)?;
        round += 1;
        if cx.peer == Peer::Rvs {
            let stats = ipvs.service(UDP, vip)?.stats64;
            let all = u64::from(round) * u64::from(BURST);
            ensure!(
                (stats.conns, stats.inpkts) == (all, all),
                "counters are not as of now: {stats:?}"
            );
        }
        let want = model(BURST.into(), bytes);
        let first = until("rates rise", 6.0, || {
            let now = rates(&ipvs, vip)?;
            Ok((now != [0; 3]).then_some(now))
        })?;
        if first == want[0] {
            // From here on each value as the formula says, two seconds apart.
            let mut seen = vec![(Instant::now(), 0)];
            until("rates fall", 14.0, || {
                let now = rates(&ipvs, vip)?;
                let (_, last) = *seen.last().context("nothing seen")?;
                if now != want[last] {
                    let at = last
                        + 1
                        + want[last + 1..]
                            .iter()
                            .take(2)
                            .position(|w| *w == now)
                            .with_context(|| {
                                format!(
                                    "{now:?} after {:?}, expected {:?}",
                                    want[last],
                                    want[last + 1]
                                )
                            })?;
                    seen.push((Instant::now(), at));
                }
                Ok((seen.len() > 4).then_some(()))
            })?;
            break seen;
        }
        println!("{first:?} is not {:?}: once more", want[0]);
        ensure!(round < 6, "never the rates of a whole burst");
        until("rates are forgotten", 150.0, || {
            Ok((rates(&ipvs, vip)? == [0; 3]).then_some(()))
        })?;
    };
    println!("values {:?}", seen.iter().map(|s| s.1).collect::<Vec<_>>());
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    let period = (last.0 - first.0).as_secs_f64() / (last.1 - first.1) as f64;
    ensure!((1.6..2.6).contains(&period), "a period of {period:.2} s");

    settings(cx.peer, &ipvs, &rig, vip, round)
}

/// Stopped, nothing changes; going on, it does.
fn settings(
    peer: Peer,
    ipvs: &Ipvs,
    rig: &Rig,
    vip: std::net::SocketAddr,
    round: u16,
) -> Result<()> {
    let ns: &Ns = &rig.topo.director;
    let cpus = ns.sysctl("net.ipv4.vs.est_cpulist")?;
    ensure!(cpus.starts_with('0'), "est_cpulist is {cpus:?} at first");
    burst(rig, round)?;
    let all = (u64::from(round) + 1) * u64::from(BURST);
    until("the burst is counted", 6.0, || {
        Ok((ipvs.service(UDP, vip)?.stats64.inpkts == all).then_some(()))
    })?;
    for (key, off, on) in [("run_estimation", "0", "1"), ("est_cpulist", "", "0")] {
        let key = format!("net.ipv4.vs.{key}");
        ns.set_sysctl(&key, off)?;
        ensure!(ns.sysctl(&key)? == off, "{key}: {:?}", ns.sysctl(&key)?);
        // Whoever is at work still finishes.
        pass(0.5);
        let frozen = rates(ipvs, vip)?;
        let before = ipvs.service(UDP, vip)?.stats64;
        let totals = proc::totals(ns)?;
        let more = 7;
        let client = at(Family::V4.raw_client(252), 1000);
        let pkts = vec![Pkt::udp(client, vip, b"x"); more];
        ensure!(
            rig.exchange(Side::Client, &pkts)?.server.len() == more,
            "lost"
        );
        pass(4.5);
        let now = rates(ipvs, vip)?;
        ensure!(now == frozen, "{key} {off:?}: {frozen:?}, then {now:?}");
        let counted = |after: u64, before: u64| match peer {
            Peer::C => after == before,
            Peer::Rvs => after == before + more as u64,
        };
        let stats = ipvs.service(UDP, vip)?.stats64;
        ensure!(
            counted(stats.inpkts, before.inpkts) && counted(proc::totals(ns)?[1], totals[1]),
            "{key} {off:?}: {before:?}, then {stats:?}"
        );
        ns.set_sysctl(&key, on)?;
        until(&format!("all is counted with {key} {on}"), 12.0, || {
            let stats = ipvs.service(UDP, vip)?.stats64;
            Ok((stats.inpkts == before.inpkts + more as u64).then_some(()))
        })?;
        until(&format!("rates change with {key} {on}"), 12.0, || {
            Ok((rates(ipvs, vip)? != frozen).then_some(()))
        })?;
    }
    // With another nice value all goes on.
    for nice in [19, -20, 0] {
        ns.set_sysctl("net.ipv4.vs.est_nice", nice)?;
        let before = rates(ipvs, vip)?;
        until(&format!("rates change with est_nice {nice}"), 12.0, || {
            Ok((rates(ipvs, vip)? != before).then_some(()))
        })?;
    }
    Ok(())
}
