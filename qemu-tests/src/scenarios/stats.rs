// SPDX-License-Identifier: GPL-2.0-or-later

//! Counters after a known traffic, exactly: of the service, of each destination and in total, by
//! netlink and in the files.
//!
//! The C module shows what its estimator has summed up to two seconds ago; the scenario waits for
//! it.
//!
//! Proves checklist items 7, 24 and 62.

use anyhow::{ensure, Context, Result};

use crate::ipvs::{Ipvs, Stats};
use crate::pkt::{Pkt, ACK, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "stats",
    "exact counters after a known traffic",
    &[7, 24],
    run,
)
.partly(&[62]);

fn add(stats: &mut Stats, side: Side, pkt: &Pkt) {
    let len = pkt.bytes().len() as u64;
    if side == Side::Client {
        stats.inpkts += 1;
        stats.inbytes += len;
    } else {
        stats.outpkts += 1;
        stats.outbytes += len;
    }
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        one(family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

fn one(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let vip = at(family.vip(), 80);
    let servers = [at(family.raw_rs(1), 8080), at(family.raw_rs(2), 8080)];
    let mut dests = [[Stats::default(); 2]; 2];
    for kind in ["t", "u"] {
        rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
        for rs in servers {
            rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
        }
    }
    for n in 0..40u16 {
        let client = at(family.raw_client(n), 4000 + n);
        for (p, tcp) in [true, false].into_iter().enumerate() {
            let first = if tcp {
                Pkt::tcp(client, vip, SYN)
            } else {
                Pkt::udp(client, vip, &vec![1; usize::from(n)])
            };
            let came = rig.forwarded(&first)?;
            let d = servers
                .iter()
                .position(|s| *s == came.dest())
                .context("whose packet is this")?;
            let stats = &mut dests[p][d];
            stats.conns += 1;
            add(stats, Side::Client, &first);
            for i in 0..n % 5 {
                let body = vec![2; usize::from(n * 7 + i)];
                let there = Pkt {
                    body: body.clone(),
                    ..if tcp {
                        Pkt::tcp(client, vip, ACK)
                    } else {
                        first.clone()
                    }
                };
                let back = Pkt {
                    body,
                    ..if tcp {
                        Pkt::tcp(came.dest(), client, ACK)
                    } else {
                        Pkt::udp(came.dest(), client, b"")
                    }
                };
                rig.forwarded(&there)?;
                add(stats, Side::Client, &there);
                if i % 2 == 0 {
                    rig.returned(&back)?;
                    add(stats, Side::Server, &back);
                }
            }
        }
    }
    let sum = |all: &[Stats]| {
        all.iter().fold(Stats::default(), |a, s| Stats {
            conns: a.conns + s.conns,
            inpkts: a.inpkts + s.inpkts,
            outpkts: a.outpkts + s.outpkts,
            inbytes: a.inbytes + s.inbytes,
            outbytes: a.outbytes + s.outbytes,
        })
    };
    let total = sum(&[sum(&dests[0]), sum(&dests[1])]);
    let row = |s: &Stats| [s.conns, s.inpkts, s.outpkts, s.inbytes, s.outbytes];
    let ipvs = Ipvs::open(&rig.topo.director)?;

    let mut last = String::new();
    until_true("all counters have arrived", 6.0, || {
        last.clear();
        for (p, proto) in [TCP, UDP].into_iter().enumerate() {
            let service = ipvs.service(proto, vip)?;
            let want = sum(&dests[p]);
            if service.stats != want || service.stats64 != want {
                last = format!("service of protocol {proto}: {service:?}, expected {want:?}");
            }
            for (d, rs) in servers.iter().enumerate() {
                let dest = ipvs.dest(proto, vip, *rs)?;
                if dest.stats != dests[p][d] || dest.stats64 != dests[p][d] {
                    last = format!("{dest:?}, expected {:?}", dests[p][d]);
                }
            }
        }
        let seen = proc::totals(&rig.topo.director)?;
        if seen != row(&total) {
            last = format!("totals {seen:?}, expected {:?}", row(&total));
        }
        Ok(last.is_empty())
    })
    .with_context(|| last)?;

    // The files agree among themselves: a row per CPU, live, and their sum.
    let text = rig.topo.director.read("/proc/net/ip_vs_stats_percpu")?;
    let mut cpus = [0; 5];
    for line in text.lines().skip(2) {
        let (cpu, rest) = line.split_at_checked(3).context("short line")?;
        let row = proc::hex_row(rest)?;
        if cpu.trim() == "~" {
            ensure!(row == cpus, "{text}");
            break;
        }
        for (sum, n) in cpus.iter_mut().zip(row) {
            *sum += n;
        }
    }
    ensure!(
        cpus == row(&total),
        "the CPUs have {cpus:?}, expected {:?}",
        row(&total)
    );
    let listing = rig.ipvsadm("-Ln --stats --exact")?;
    let tcp = sum(&dests[0]);
    let line = listing
        .lines()
        .find(|l| l.starts_with("TCP"))
        .context("no TCP service")?;
    let words: Vec<String> = row(&tcp).iter().map(u64::to_string).collect();
    ensure!(
        line.split_whitespace()
            .skip(2)
            .eq(words.iter().map(String::as_str)),
        "{line:?}, expected {words:?}"
    );
    // Counters of active and inactive connections.
    let dest = ipvs.dest(TCP, vip, servers[0])?;
    ensure!(
        u64::from(dest.active + dest.inact) == dests[0][0].conns && dest.persist == 0,
        "{dest:?}"
    );
    let dest = ipvs.dest(UDP, vip, servers[0])?;
    ensure!(
        (u64::from(dest.inact), dest.active) == (dests[1][0].conns, 0),
        "{dest:?}"
    );
    Ok(())
}
