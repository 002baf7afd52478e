// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of services, each with its own real servers: each is listed once, packets find theirs among them, also while
//! somebody lists, counts and removes them; who is idle has no rates and who is not has; when all are gone they can come again.
//! Nobody's traffic is counted at somebody else's expense: the estimator takes no time with rvs while there is none, and does not
//! hold packets up when all have had some.
//!
//! `RVS_SERVICES=100000 make test SCENARIO=scale_services` takes as many; with `PEER=c` it is what to compare with.
//!
//! Proves checklist items 142 and, in part, 6.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::{pass, rounds, scaled, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "scale_services",
    "thousands of services are listed, found and removed without holding anything up",
    &[142],
    run,
)
.partly(&[6])
.timeout(240.0);

/// How long a packet may take on its way through a director whose services are listed, counted and removed.
const LONGEST: f64 = 2.0;

fn vip(n: usize) -> SocketAddr {
    let addr = Ipv4Addr::from(0xc612_0000 + n as u32);
    SocketAddr::new(IpAddr::V4(addr), 53)
}

fn server(n: usize) -> SocketAddr {
    at(Family::V4.raw_rs((n % 100) as u8), 1000 + (n / 100) as u16)
}

/// Adds services, each with a real server of its own and one for all.
fn add(ipvs: &Ipvs, many: usize) -> Result<()> {
    for n in 0..many {
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(UDP, vip(n), "wlc")))?;
        let id = svc_id(UDP, vip(n));
        ipvs.ok(cmd::NEW_DEST, &for_dest(&id, &dest_full(server(n), 1)))?;
        let spare = at(Family::V4.raw_rs(200), 53);
        ipvs.ok(cmd::NEW_DEST, &for_dest(&id, &dest_full(spare, 0)))?;
    }
    Ok(())
}

/// Sends a packet to one of them, which must come to its own server.
fn find(rig: &Rig, n: usize, client: u16) -> Result<Duration> {
    let began = Instant::now();
    let client = at(Family::V4.raw_client(client % 250), 2000 + client / 250);
    let came = rig.forwarded(&Pkt::udp(client, vip(n), b"x"))?;
    ensure!(came.dest() == server(n), "service {n}: {came:?}");
    Ok(began.elapsed())
}

/// As many services as there are, unless RVS_SERVICES says otherwise.
fn many() -> Result<usize> {
    match std::env::var("RVS_SERVICES") {
        Ok(n) => n.parse().context("RVS_SERVICES is no number"),
        Err(_) => Ok(rounds(3_000)),
    }
}

/// Which part of `seconds` the processors were at work, with nothing to do; the least of three times, as others may have given
/// them something.
fn at_work(seconds: f64) -> Result<f64> {
    let ticks = || -> Result<[f64; 2]> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let all: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        // Idle, and idle because of a device.
        let idle = all.get(3).context("short")? + all.get(4).context("short")?;
        Ok([
            all.iter().take(8).sum::<f64>() - idle,
            all.iter().take(8).sum(),
        ])
    };
    let mut least = f64::MAX;
    for _ in 0..3 {
        let before = ticks()?;
        pass(seconds);
        let after = ticks()?;
        least = least.min((after[0] - before[0]) / (after[1] - before[1]).max(1.0));
    }
    Ok(least)
}

/// Sends a packet to each, and then watches how long packets take while the estimator sees them all.
fn all_at_once(rig: &Rig, many: usize) -> Result<Duration> {
    for first in (0..many).step_by(200) {
        let last = many.min(first + 200);
        let client = at(Family::V4.raw_client(1000), 5353);
        let pkts: Vec<Pkt> = (first..last)
            .map(|n| Pkt::udp(client, vip(n), b"x"))
            .collect();
        let io = rig.exchange(Side::Client, &pkts)?;
        ensure!(io.server.len() == pkts.len(), "packets were lost");
    }
    // Three periods.
    let (end, mut slowest) = (Instant::now() + Duration::from_secs(6), Duration::ZERO);
    while Instant::now() < end {
        slowest = slowest.max(find(rig, 0, 7)?);
        pass(0.001);
    }
    Ok(slowest)
}

fn run(cx: &Cx) -> Result<()> {
    let many = many()?;
    let alone = at_work(2.5)?;
    let mut rng = Rng::new(cx.seed);
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    ns.cmd("ip route add local 198.18.0.0/15 dev lo")?;
    let ipvs = Ipvs::open(ns)?;
    let began = Instant::now();
    add(&ipvs, many)?;
    println!("{many} services added in {:?}", began.elapsed());

    // Each once, as soon as the table has got its size.
    let want: BTreeSet<SocketAddr> = (0..many).map(vip).collect();
    until_true("each service is dumped once", 10.0, || {
        let listed: Vec<_> = ipvs.services()?.iter().filter_map(|s| s.vip).collect();
        Ok(listed.len() == many && listed.into_iter().collect::<BTreeSet<_>>() == want)
    })?;
    let began = Instant::now();
    let text = ns.read("/proc/net/ip_vs")?;
    let took = began.elapsed();
    let rows = text.lines().skip(3);
    let (dests, services): (Vec<&str>, Vec<&str>) = rows.partition(|row| row.starts_with("  ->"));
    ensure!(
        services.len() == many
            && dests.len() == 2 * many
            && services.iter().collect::<BTreeSet<_>>().len() == many,
        "{} services and {} destinations in the file",
        services.len(),
        dests.len()
    );
    println!("listed in {took:?}");
    ensure!(took < scaled(5.0), "a listing takes {took:?}");

    // Nobody has anything to do: neither has the estimator.
    let idle = at_work(2.5)?;
    println!(
        "at work without services {:.1} %, with {many} {:.1} %",
        100.0 * alone,
        100.0 * idle
    );
    ensure!(
        cx.peer == Peer::C || idle < alone + 0.1,
        "{many} services without traffic keep the processors at work for {:.1} % of the time",
        100.0 * idle
    );
    let slowest = all_at_once(&rig, many)?;
    println!("the slowest packet took {slowest:?} while all are counted");
    ensure!(slowest < scaled(LONGEST), "a packet took {slowest:?}");

    // Packets among all that.
    let busy: Vec<usize> = (0..rounds(200)).map(|_| rng.below(many)).collect();
    let stop = AtomicBool::new(false);
    let slowest = std::thread::scope(|s| -> Result<Duration> {
        let lister = s.spawn(|| -> Result<u32> {
            let ipvs = Ipvs::open(ns)?;
            let mut rounds = 0;
            while rounds == 0 || !stop.load(Ordering::Relaxed) {
                ipvs.services()?;
                ns.read("/proc/net/ip_vs")?;
                ipvs.ok(cmd::ZERO, &Attrs::new())?;
                rounds += 1;
            }
            Ok(rounds)
        });
        let mut slowest = Ok(Duration::ZERO);
        for (client, n) in (0..).zip(&busy) {
            slowest = slowest.and_then(|before: Duration| Ok(before.max(find(&rig, *n, client)?)));
        }
        stop.store(true, Ordering::Relaxed);
        let listed = lister.join();
        let rounds = listed.map_err(|_| anyhow::anyhow!("the lister panicked"))??;
        println!("{rounds} times listed and zeroed meanwhile");
        slowest
    })?;
    println!("the slowest packet took {slowest:?}");
    ensure!(slowest < scaled(LONGEST), "a packet took {slowest:?}");

    // Exact counters for who had packets since, nothing for the others. C zeroes to what its
    // estimator has seen, up to two seconds ago.
    if cx.peer == Peer::C {
        pass(4.5);
    }
    ipvs.ok(cmd::ZERO, &Attrs::new())?;
    let (one, idle) = (busy[0], (0..many).find(|n| !busy.contains(n)));
    let idle = idle.context("all are busy")?;
    for client in 0..20 {
        find(&rig, one, client)?;
    }
    until_true("20 packets are counted", 5.0, || {
        let stats = ipvs.dest(UDP, vip(one), server(one))?.stats64;
        Ok(stats.inpkts == 20)
    })?;
    let stats = ipvs.dest(UDP, vip(idle), server(idle))?.stats64;
    ensure!(stats.inpkts == 0 && stats.conns == 0, "{stats:?}");

    // All gone, in a moment that packets of others do not feel; and all there again, as new ones.
    let rest = (vip(0), server(0));
    let slowest = std::thread::scope(|s| -> Result<Duration> {
        let remover = s.spawn(|| -> Result<Duration> {
            let began = Instant::now();
            Ipvs::open(ns)?.ok(cmd::FLUSH, &Attrs::new())?;
            Ok(began.elapsed())
        });
        let mut slowest = Duration::ZERO;
        while !remover.is_finished() {
            let began = Instant::now();
            // Forwarded as it is: the fence of an exchange without packets.
            rig.exchange(Side::Client, &[])?;
            slowest = slowest.max(began.elapsed());
        }
        let removed = remover.join();
        let took = removed.map_err(|_| anyhow::anyhow!("the remover panicked"))??;
        println!("flushed in {took:?}");
        ensure!(took < scaled(5.0), "a flush takes {took:?}");
        Ok(slowest)
    })?;
    println!("the slowest packet took {slowest:?} meanwhile");
    ensure!(slowest < scaled(LONGEST), "a packet took {slowest:?}");
    ensure!(ipvs.services()?.is_empty(), "services are left");
    add(&ipvs, many / 10)?;
    let dest = ipvs.dest(UDP, rest.0, rest.1)?;
    ensure!(dest.stats64.inpkts == 0 && dest.weight == 1, "{dest:?}");
    for n in 0..10 {
        find(&rig, n, 300 + n as u16)?;
    }
    Ok(())
}
