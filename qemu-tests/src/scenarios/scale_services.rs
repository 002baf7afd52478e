// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of services, each with its own real servers: each is listed once, packets find theirs among them, also while
//! somebody lists, counts and removes them; who is idle has no rates and who is not has; when all are gone they can come again.
//!
//! Proves checklist items 6 and 142 in part.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::{rounds, scaled, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "scale_services",
    "thousands of services are listed, found and removed without holding anything up",
    &[],
    run,
)
.partly(&[6, 142])
.timeout(120.0);

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

fn run(cx: &Cx) -> Result<()> {
    let many = rounds(3_000);
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

    // Exact counters for who has packets, nothing for the others. Of two that had none so far: C zeroes to what it knew at its
    // last estimate, seconds ago.
    let mut spare = (0..many).filter(|n| !busy.contains(n));
    let (Some(one), Some(idle)) = (spare.next(), spare.next()) else {
        bail!("all are busy");
    };
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
            rig.exchange(crate::rig::Side::Client, &[])?;
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
