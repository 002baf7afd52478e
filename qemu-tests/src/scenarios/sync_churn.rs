// SPDX-License-Identifier: GPL-2.0-or-later

//! Daemons are started, stopped and configured anew, services flushed and restored, and at last the namespaces taken down, all while
//! connections come and go by packets and by datagrams.
//!
//! Proves checklist items 38 and 131 (under traffic).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{ensure, Context, Result};

use super::sync_master::{services, TCP_PORT};
use crate::pkt::{Pkt, ACK, FIN, RST, SYN, TCP};
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::sync::{begun, datagram_v0, datagram_v1, Link, Record, GROUP, PORT};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario =
    Scenario::new("sync_churn", "daemons come and go under traffic", &[], run).partly(&[38, 131]);

/// One connection from its first packet to its last, mostly.
fn life(rng: &mut Rng) -> Vec<Pkt> {
    let family = Family::BOTH[rng.below(2)];
    let client = at(
        family.raw_client(rng.below(400) as u16),
        1000 + rng.below(4) as u16,
    );
    let vip = at(family.vip(), [TCP_PORT, 81, 82][rng.below(3)]);
    let all = [SYN, ACK, ACK, ACK, FIN | ACK, RST];
    all.iter()
        .take(1 + rng.below(all.len()))
        .map(|flags| Pkt::tcp(client, vip, *flags))
        .collect()
}

/// What another director says of the same connections.
fn rumour(rng: &mut Rng) -> Vec<u8> {
    let records: Vec<Record> = (0..1 + rng.below(20))
        .map(|_| {
            let client = at(
                Family::V4.raw_client(rng.below(400) as u16),
                1000 + rng.below(4) as u16,
            );
            let dest = at(Family::V4.raw_rs(1 + rng.below(2) as u8), 8080);
            let flags = [0, 0x100, 0x1000][rng.below(3)];
            let vip = at(Family::V4.vip(), TCP_PORT);
            Record::new(TCP, client, vip, dest, flags, rng.below(2) as u16)
                .with(|r| r.timeout = rng.below(3) as u32)
        })
        .collect();
    if rng.chance(2) {
        datagram_v1(0, &records.iter().map(Record::v1).collect::<Vec<_>>())
    } else {
        datagram_v0(0, &records.iter().map(Record::v0).collect::<Vec<_>>())
    }
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    services(&rig)?;
    let director = &rig.topo.director;
    let link = Link::new(director)?;
    let speakers = (0..4)
        .map(|n| link.speaker(at(GROUP.into(), PORT + n)))
        .collect::<Result<Vec<_>>>()?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|s| -> Result<()> {
        let traffic = s.spawn(|| -> Result<()> {
            let mut rng = Rng::new(cx.seed);
            while !stop.load(Ordering::Relaxed) {
                for pkt in life(&mut rng) {
                    rig.ctap.send(&pkt)?;
                }
                // Nobody may be there to hear it.
                let _ = speakers[rng.below(4)].send(&rumour(&mut rng));
                if sent.fetch_add(1, Ordering::Relaxed) % 64 == 0 {
                    rig.drain()?;
                    while link.hear_raw()? {}
                }
            }
            Ok(())
        });
        let done = churn(cx, &rig, &sent);
        stop.store(true, Ordering::Relaxed);
        traffic.join().expect("the traffic's thread")?;
        done
    })?;
    println!("{} lives of connections", sent.load(Ordering::Relaxed));
    // With both daemons, and packets just sent.
    for role in ["master", "backup"] {
        rig.ipvsadm(&format!("--start-daemon {role} --mcast-interface m0"))?;
    }
    let mut rng = Rng::new(cx.seed + 1);
    for _ in 0..50 {
        for pkt in life(&mut rng) {
            rig.ctap.send(&pkt)?;
        }
        speakers[0].send(&rumour(&mut rng))?;
    }
    Ok(())
}

fn churn(cx: &Cx, rig: &Rig, sent: &AtomicU64) -> Result<()> {
    let director = &rig.topo.director;
    let mut rng = Rng::new(cx.seed + 2);
    let mut running = [false; 2];
    let names = ["master", "backup"];
    let saved = rig.ipvsadm("-Sn")?;
    for round in 0..rounds(80) {
        let which = rng.below(2);
        let name = names[which];
        if running[which] {
            if cx.peer == Peer::C {
                begun()?;
            }
            rig.ipvsadm(&format!("--stop-daemon {name}"))?;
        } else {
            let maxlen = [1, 100, 1472, 9000][rng.below(4)];
            rig.ipvsadm(&format!(
                "--start-daemon {name} --mcast-interface m0 --sync-maxlen {maxlen}"
            ))?;
        }
        running[which] = !running[which];
        let (key, values): (&str, &[&str]) = [
            ("sync_version", &["0", "1"][..]),
            ("sync_ports", &["1", "2", "4"]),
            ("sync_threshold", &["0 1", "3 50", "0 0"]),
            ("sync_refresh_period", &["0", "1"]),
            ("sync_qlen_max", &["0", "10", "10000"]),
            ("sync_persist_mode", &["0", "1"]),
        ][rng.below(6)];
        director.set_sysctl(
            &format!("net.ipv4.vs.{key}"),
            values[rng.below(values.len())],
        )?;
        if round % 16 == 7 {
            rig.ipvsadm("-C")?;
            director.cmd_stdin("ipvsadm -R", &saved)?;
        }
        // Some packets see each state.
        let begin = sent.load(Ordering::Relaxed);
        crate::wait::until_true("there is traffic", 5.0, || {
            Ok(sent.load(Ordering::Relaxed) > begin)
        })?;
    }
    for which in 0..2 {
        if running[which] {
            if cx.peer == Peer::C {
                begun()?;
            }
            rig.ipvsadm(&format!("--stop-daemon {}", names[which]))?;
        }
    }
    let listed = rig.ipvsadm("-L --daemon").context("the list")?;
    ensure!(listed.is_empty(), "{listed}");
    Ok(())
}
