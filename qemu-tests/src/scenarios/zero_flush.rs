// SPDX-License-Identifier: GPL-2.0-or-later

//! ZERO of one service and of everything, FLUSH, and the ipvsadm commands for them.
//!
//! Proves checklist items 13 and 141 (counters), and 20 for -Z, -C, -S and -R.

use anyhow::{ensure, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, for_svc, svc_id, Ipvs, Stats};
use crate::pkt::{Pkt, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "zero_flush",
    "zeroing counters of one service and of all; flushing",
    &[13, 141],
    run,
)
.partly(&[20]);

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 8080));
    for kind in ["t", "u"] {
        rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
    }
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let mut port = 4000;
    let mut traffic = || -> Result<()> {
        port += 1;
        let client = at(Family::V4.raw_client(1), port);
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
        rig.exchange(Side::Server, &[Pkt::udp(rs, client, b"yy")])?;
        Ok(())
    };
    let conns = |tcp: u64, udp: u64, total: u64| -> Result<()> {
        until_true(
            &format!("{tcp}, {udp} and {total} connections are counted"),
            6.0,
            || {
                Ok(ipvs.service(TCP, vip)?.stats.conns == tcp
                    && ipvs.service(UDP, vip)?.stats64.conns == udp
                    && ipvs.dest(TCP, vip, rs)?.stats.conns == tcp
                    && proc::totals(&rig.topo.director)?[0] == total)
            },
        )
    };
    traffic()?;
    conns(1, 1, 2)?;
    // One service, its destinations with it; the other one and the totals stay.
    ipvs.ok(cmd::ZERO, &for_svc(&svc_id(TCP, vip)))?;
    let (service, dest) = (ipvs.service(TCP, vip)?, ipvs.dest(TCP, vip, rs)?);
    ensure!(
        service.stats == Stats::default() && service.stats64 == Stats::default(),
        "{service:?}"
    );
    ensure!(
        dest.stats == Stats::default() && dest.stats64 == Stats::default(),
        "{dest:?}"
    );
    ensure!(
        dest.active == 1,
        "zeroing touched the connections: {dest:?}"
    );
    conns(0, 1, 2)?;
    traffic()?;
    conns(1, 2, 4)?;
    rig.ipvsadm(&format!("-Z -u {vip}"))?;
    conns(1, 0, 4)?;
    // Everything, totals too. The rows per CPU go on counting from the beginning.
    rig.ipvsadm("-Z")?;
    conns(0, 0, 0)?;
    let percpu = rig.topo.director.read("/proc/net/ip_vs_stats_percpu")?;
    let mut sum = 0;
    for row in percpu.lines().skip(2) {
        let Some((cpu, rest)) = row.split_at_checked(3) else {
            break;
        };
        if cpu.trim() == "~" {
            ensure!(proc::hex_row(rest)? == [0; 5], "{row:?} after zeroing");
            break;
        }
        sum += proc::hex_row(rest)?[0];
    }
    ensure!(
        sum == 4,
        "the CPUs have counted {sum} connections: {percpu}"
    );
    traffic()?;
    conns(1, 1, 2)?;
    ipvs.ok(cmd::ZERO, &Attrs::new())?;
    conns(0, 0, 0)?;

    // Save, flush, restore.
    let saved = rig.ipvsadm("-Sn")?;
    ensure!(
        saved.contains(&format!("-a -u {vip} -r {rs} -m -w 1")),
        "{saved}"
    );
    let before = proc::conns(&rig.topo.director)?.len();
    rig.ipvsadm("-C")?;
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    // Connections outlive their services.
    ensure!(
        proc::conns(&rig.topo.director)?.len() == before,
        "{} of {before} connections",
        proc::conns(&rig.topo.director)?.len()
    );
    rig.topo.director.cmd_stdin("ipvsadm -R", &saved)?;
    let again = rig.ipvsadm("-Sn")?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    ensure!(
        sorted(&saved) == sorted(&again),
        "saved {saved}, restored {again}"
    );
    traffic()?;
    Ok(())
}
