// SPDX-License-Identifier: GPL-2.0-or-later

//! Services, destinations and daemons come and go while packets of clients and datagrams of another director tell of the same
//! connections. When all stop, and each connection was told of once more, destinations count the connections that there are.
//!
//! Proves checklist items 134 and 143 (with daemons).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::stress::{agree, configure, packets};
use crate::ipvs::Ipvs;
use crate::pkt::{TCP, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::sync::{
    datagram_v0, datagram_v1, rows, Backup, Link, Record, DIRECT, ESTABLISHED, FIN_WAIT, GROUP,
    INACTIVE, NAT, PORT, TUNNEL,
};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "sync_stress",
    "daemons, datagrams, configuration and traffic all at once",
    &[],
    run,
)
.partly(&[134, 143])
.timeout(90.0);

/// Tells of connections that clients may have at this moment, to servers that may be there.
fn speak(backup: &Backup<'_>, rng: &mut Rng) -> Result<()> {
    for _ in 0..10 {
        let family = Family::BOTH[rng.below(2)];
        let records: Vec<Record> = (0..1 + rng.below(15))
            .map(|_| {
                let proto = [TCP, UDP][rng.below(2)];
                let state = if proto == UDP {
                    0
                } else {
                    [0, ESTABLISHED, FIN_WAIT][rng.below(3)]
                };
                let method = [NAT, NAT, TUNNEL, DIRECT][rng.below(4)];
                Record::new(
                    proto,
                    at(
                        family.raw_client(rng.below(300) as u16),
                        4000 + rng.below(3) as u16,
                    ),
                    at(family.vip(), 1000 + rng.below(4) as u16),
                    at(family.raw_rs(rng.below(6) as u8), 80),
                    method | [0, INACTIVE][rng.below(2)],
                    state,
                )
                .with(|r| r.timeout = 600)
            })
            .collect();
        let bytes = if family == Family::V4 && rng.chance(3) {
            datagram_v0(0, &records.iter().map(Record::v0).collect::<Vec<_>>())
        } else {
            datagram_v1(0, &records.iter().map(Record::v1).collect::<Vec<_>>())
        };
        // Where no daemon listens at this moment the answer is an error.
        let _ = backup.socket.send(&bytes);
    }
    Ok(())
}

/// Starts and stops daemons.
fn daemons(rig: &Rig, rng: &mut Rng) -> Result<()> {
    let state = ["master", "backup"][rng.below(2)];
    rig.topo
        .try_ipvsadm(&format!("--stop-daemon {state}"))
        .map(drop)?;
    let director = &rig.topo.director;
    director.set_sysctl("net.ipv4.vs.sync_ports", 1 << rng.below(3))?;
    director.set_sysctl(
        "net.ipv4.vs.sync_threshold",
        ["3 50", "0 1", "1 2"][rng.below(3)],
    )?;
    director.set_sysctl("net.ipv4.vs.sync_version", rng.below(2))?;
    director.set_sysctl("net.ipv4.vs.sync_refresh_period", rng.below(2))?;
    rig.topo
        .try_ipvsadm(&format!("--start-daemon {state} --mcast-interface m0"))
        .map(drop)?;
    crate::wait::pass(0.05);
    Ok(())
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    // Few enough for comparing them all, and at times too many.
    director.set_sysctl("net.ipv4.vs.conn_max", 600)?;
    let link = Link::new(director)?;
    for state in ["master", "backup"] {
        rig.ipvsadm(&format!("--start-daemon {state} --mcast-interface m0"))?;
    }
    let backup = Backup::of(director, &link, at(GROUP.into(), PORT))?;
    let end = Instant::now() + Duration::from_secs(5);
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    type Job<'a> = &'a (dyn Fn(&mut Rng) -> Result<()> + Sync);
    let (change, traffic) = (
        |rng: &mut Rng| configure(&rig, rng),
        |rng: &mut Rng| packets(&rig, rng),
    );
    let say = |rng: &mut Rng| speak(&backup, rng);
    let switch = |rng: &mut Rng| daemons(&rig, rng);
    let list = |_: &mut Rng| director.read("/proc/net/ip_vs_conn_sync").map(drop);
    let mut jobs: Vec<Job<'_>> = vec![&change, &traffic, &say, &say, &list];
    if cx.peer == Peer::Rvs {
        // C says nothing to who stops a daemon that has only just been started.
        jobs.push(&switch);
    }
    std::thread::scope(|s| -> Result<()> {
        let mut threads = Vec::new();
        for (n, job) in jobs.into_iter().enumerate() {
            let (stop, rounds) = (&stop, &rounds);
            threads.push(s.spawn(move || -> Result<()> {
                let mut rng = Rng::new(cx.seed * 100 + n as u64);
                while !stop.load(Ordering::Relaxed) {
                    job(&mut rng)?;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        while Instant::now() < end && threads.iter().all(|t| !t.is_finished()) {
            crate::wait::pass(0.02);
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => anyhow::bail!("a thread panicked"),
            }
        }
        Ok(())
    })?;
    println!(
        "{} rounds, {} connections",
        rounds.load(Ordering::Relaxed),
        rows(director)?.len()
    );

    director.set_sysctl("net.ipv4.vs.conn_max", 10_000)?;
    // Who has no destination gets the one that there is now.
    for state in ["master", "backup"] {
        rig.topo
            .try_ipvsadm(&format!("--stop-daemon {state}"))
            .map(drop)?;
    }
    rig.ipvsadm("--start-daemon backup --mcast-interface m0")?;
    let ipvs = Ipvs::open(director)?;
    let mut problem = String::new();
    until_true("all interfaces agree", 20.0, || {
        let again: Vec<Vec<u8>> = rows(director)?
            .iter()
            .filter_map(|row| {
                let proto = match row.proto.as_str() {
                    "TCP" => TCP,
                    "UDP" => UDP,
                    _ => return None,
                };
                let state = u16::from(proto == TCP);
                let record = Record::new(proto, row.client, row.vip, row.dest, NAT, state);
                Some(record.with(|r| r.timeout = 600).v1())
            })
            .collect();
        let datagrams: Vec<Vec<u8>> = again.chunks(15).map(|some| datagram_v1(0, some)).collect();
        for some in datagrams.chunks(20) {
            backup.say(some)?;
        }
        problem = match agree(&rig, &ipvs) {
            Ok(()) => String::new(),
            Err(e) => format!("{e:#}"),
        };
        Ok(problem.is_empty())
    })
    .with_context(|| problem)
}
