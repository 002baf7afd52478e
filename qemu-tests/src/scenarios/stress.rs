// SPDX-License-Identifier: GPL-2.0-or-later

//! Several threads configure, list, zero, flush and change settings while real clients and crafted
//! packets come, on all CPUs. When they stop, all interfaces show the same, and destinations count the
//! connections that there are; then the namespace goes away with all of it.
//!
//! Proves checklist items 38 and 143.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, ACK, RST, SYN, TCP, UDP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Rng, Scenario};
use crate::serve::{self, Server};
use crate::sockopt::Sockopt;
use crate::topo::{at, Family, Topo};
use crate::wait::{patience, slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "stress",
    "configuration, listing and traffic all at once",
    &[143],
    run,
)
.partly(&[38])
.timeout(90.0);

pub(super) fn configure(rig: &Rig, rng: &mut Rng) -> Result<()> {
    let ipvs = Ipvs::open(&rig.topo.director)?;
    for _ in 0..20 {
        let family = Family::BOTH[rng.below(2)];
        let proto = [TCP, UDP][rng.below(2)];
        let vip = at(family.vip(), 1000 + rng.below(4) as u16);
        let sched = ["rr", "wrr", "lc", "wlc"][rng.below(4)];
        let id = svc_id(proto, vip);
        let server = dest_full(
            at(family.raw_rs(rng.below(6) as u8), 80),
            rng.below(5) as i32,
        );
        // Others do the same at this moment: any of these may find things changed.
        match rng.below(12) {
            0 | 1 => ipvs.call(cmd::NEW_SERVICE, &for_svc(&svc_full(proto, vip, sched)))?,
            2 => ipvs.call(cmd::SET_SERVICE, &for_svc(&svc_full(proto, vip, sched)))?,
            3 => ipvs.call(cmd::DEL_SERVICE, &for_svc(&id))?,
            4..=7 => ipvs.call(cmd::NEW_DEST, &for_dest(&id, &server))?,
            8 => ipvs.call(cmd::SET_DEST, &for_dest(&id, &server))?,
            9 => ipvs.call(cmd::DEL_DEST, &for_dest(&id, &server))?,
            10 => ipvs.call(cmd::ZERO, &Attrs::new())?,
            _ if rng.chance(20) => ipvs.call(cmd::FLUSH, &Attrs::new())?,
            _ => ipvs.dump(cmd::GET_SERVICE, &Attrs::new())?,
        };
    }
    Ok(())
}

fn list(rig: &Rig, rng: &mut Rng) -> Result<()> {
    for file in ["ip_vs", "ip_vs_conn", "ip_vs_stats", "ip_vs_stats_percpu"] {
        rig.topo.director.read(&format!("/proc/net/{file}"))?;
    }
    proc::conns(&rig.topo.director)?;
    let key = [
        "expire_nodest_conn",
        "conn_reuse_mode",
        "sloppy_tcp",
        "nat_icmp_send",
        "snat_reroute",
    ][rng.below(5)];
    rig.topo
        .director
        .set_sysctl(&format!("net.ipv4.vs.{key}"), rng.below(2))?;
    // Resizes, where that can be set.
    let _ = rig.topo.director.try_set_sysctl(
        "net.ipv4.vs.conn_lfactor",
        &format!("{}", rng.below(8) as i32 - 4),
    );
    rig.ipvsadm("-Ln --stats").map(drop)
}

pub(super) fn packets(rig: &Rig, rng: &mut Rng) -> Result<()> {
    for _ in 0..200 {
        let family = Family::BOTH[rng.below(2)];
        let vip = at(family.vip(), 1000 + rng.below(4) as u16);
        let client = at(
            family.raw_client(rng.below(300) as u16),
            4000 + rng.below(3) as u16,
        );
        let flags = [SYN, ACK, RST, SYN | ACK][rng.below(4)];
        match rng.below(4) {
            0 => rig.ctap.send(&Pkt::udp(client, vip, b"x"))?,
            1 => rig.stap.send(&Pkt::tcp(
                at(family.raw_rs(rng.below(6) as u8), 80),
                client,
                flags,
            ))?,
            _ => rig.ctap.send(&Pkt::tcp(client, vip, flags))?,
        }
    }
    rig.drain()
}

/// Whether netlink, the files and the old socket options show the same, and destinations count the connections that
/// there are. Connections end meanwhile, so that it may take more than one look.
pub(super) fn agree(rig: &Rig, ipvs: &Ipvs) -> Result<()> {
    let ns = &rig.topo.director;
    let services = ipvs.services()?;
    let text = ns.read("/proc/net/ip_vs")?;
    let listed = text
        .lines()
        .skip(3)
        .filter(|l| !l.starts_with("  ->"))
        .count();
    ensure!(
        listed == services.len(),
        "{listed} services in the file, {} by netlink",
        services.len()
    );
    let v4 = services.iter().filter(|s| s.af == 2).count();
    let [_, _, counted] = Sockopt::open(ns)?
        .info()
        .map_err(std::io::Error::from_raw_os_error)?;
    ensure!(
        counted as usize == v4,
        "{counted} by the old interface, {v4} by netlink"
    );
    let conns = proc::conns(ns)?;
    let mut dests = 0;
    for service in services {
        let vip = service.vip.context("a mark")?;
        let proto = service.proto as u8;
        let name = if proto == TCP { "TCP" } else { "UDP" };
        for dest in ipvs.dests(proto, vip)? {
            dests += 1;
            let of_it = conns
                .iter()
                .filter(|c| c.proto == name && c.vip == vip && c.dest == dest.addr)
                .count();
            ensure!(
                of_it == (dest.active + dest.inact) as usize && dest.persist == 0,
                "{of_it} connections of {dest:?}"
            );
        }
    }
    let listed = text
        .lines()
        .skip(3)
        .filter(|l| l.starts_with("  ->"))
        .count();
    ensure!(
        listed == dests,
        "{listed} destinations in the file, {dests} by netlink"
    );
    Ok(())
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::around(Topo::new(1)?)?;
    // Among all that, a service that nobody touches must not lose a request; FLUSH would take it,
    // so it has a director of its own.
    let quiet = Topo::new(1)?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.rs(1), 8080));
    let server = Server::tcp(&quiet.rs[0], rs, "rs1")?;
    quiet.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    quiet.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;

    let end = Instant::now() + Duration::from_secs_f64(5.0);
    let last = Instant::now() + patience(15.0);
    let enough = (20.0 / slow()) as u64;
    let stop = AtomicBool::new(false);
    let (changes, requests) = (AtomicU64::new(0), AtomicU64::new(0));
    type Job = fn(&Rig, &mut Rng) -> Result<()>;
    let jobs: [Job; 5] = [configure, configure, list, packets, packets];
    std::thread::scope(|s| -> Result<()> {
        let mut threads = Vec::new();
        for (n, job) in jobs.into_iter().enumerate() {
            let (rig, stop, changes) = (&rig, &stop, &changes);
            threads.push(s.spawn(move || -> Result<()> {
                let mut rng = Rng::new(cx.seed * 100 + n as u64);
                while !stop.load(Ordering::Relaxed) {
                    job(rig, &mut rng)?;
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        let (quiet, stop_too, requests) = (&quiet, &stop, &requests);
        threads.push(s.spawn(move || -> Result<()> {
            while !stop_too.load(Ordering::Relaxed) {
                let body = serve::http_get(&quiet.client, vip)?;
                ensure!(serve::name(&body) == "rs1", "{body:?}");
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }));
        // A machine with other things to do may take longer for the requests.
        let is_over = || {
            let now = Instant::now();
            now >= last || (now >= end && requests.load(Ordering::Relaxed) >= enough)
        };
        while !is_over() && threads.iter().all(|t| !t.is_finished()) {
            crate::wait::pass(0.02);
        }
        stop.store(true, Ordering::Relaxed);
        let mut problems = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => problems.push(format!("{e:#}")),
                Err(_) => problems.push("a thread panicked".to_owned()),
            }
        }
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    })?;
    println!(
        "{} rounds of changes, {} requests",
        changes.load(Ordering::Relaxed),
        requests.load(Ordering::Relaxed)
    );
    ensure!(
        requests.load(Ordering::Relaxed) >= enough,
        "hardly any request was answered"
    );
    drop(server);

    // Afterwards all is well: whoever is asked says the same.
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let mut problem = String::new();
    until_true("all interfaces agree", 20.0, || {
        problem = match agree(&rig, &ipvs) {
            Ok(()) => String::new(),
            Err(e) => format!("{e:#}"),
        };
        Ok(problem.is_empty())
    })
    .with_context(|| problem)?;
    ipvs.ok(cmd::FLUSH, &Attrs::new())?;
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    drop(quiet);
    drop(rig);
    Ok(())
}
