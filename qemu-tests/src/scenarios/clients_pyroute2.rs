// SPDX-License-Identifier: GPL-2.0-or-later

//! pyroute2 as the client: its generic netlink finds the family, dumps services and destinations and parses them.
//!
//! Proves checklist items 2, 3, 6 and 7 (as another implementation of netlink sees them).

use anyhow::{ensure, Result};

use crate::ipvs::{Ipvs, Stats};
use crate::pkt::{Pkt, SYN, TCP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "clients_pyroute2",
    "pyroute2 lists services and destinations",
    &[],
    run,
)
.partly(&[2, 3, 6, 7]);

const SCRIPT: &str = include_str!("clients_pyroute2.py");

fn show(stats: &Stats) -> String {
    format!(
        "{} {} {} {}",
        stats.conns, stats.inpkts, stats.outpkts, stats.inbytes
    )
}

/// Each service with its destinations, the services sorted.
fn grouped<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let mut groups: Vec<Vec<&str>> = Vec::new();
    for line in lines {
        match groups.last_mut() {
            Some(group) if line.starts_with("dest ") => group.push(line),
            _ => groups.push(vec![line]),
        }
    }
    groups.sort();
    groups
}

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let list = || ns.cmd_stdin("python3 -", SCRIPT);
    ensure!(list()? == "config 900 120 300\n", "{}", list()?);

    let ipvs = Ipvs::open(ns)?;
    let mut want = vec!["config 901 121 301".to_owned()];
    rig.ipvsadm("--set 901 121 301")?;
    for family in Family::BOTH {
        for (kind, port) in [("t", 80), ("u", 53)] {
            let vip = at(family.vip(), port);
            rig.ipvsadm(&format!("-A -{kind} {vip} -s wlc"))?;
            for host in 1..=3 {
                let real = at(family.raw_rs(host), 8080);
                rig.ipvsadm(&format!("-a -{kind} {vip} -r {real} -m -w {host}"))?;
            }
        }
        let (vip, client) = (at(family.vip(), 80), at(family.raw_client(1), 4000));
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        until_true("the connection is counted", 6.0, || {
            Ok(ipvs.service(TCP, vip)?.stats.conns == 1)
        })?;
    }
    rig.ipvsadm("-A -f 26 -s rr")?;
    for service in ipvs.services()? {
        let Some(vip) = service.vip else {
            want.push("service mark 26 rr 0 0 0 0".to_owned());
            continue;
        };
        want.push(format!(
            "service {} {} {} wlc {}",
            service.proto,
            vip.ip(),
            vip.port(),
            show(&service.stats)
        ));
        for dest in ipvs.dests(service.proto as u8, vip)? {
            want.push(format!(
                "dest {} {} {} {} {} {} {}",
                dest.addr.ip(),
                dest.addr.port(),
                dest.method,
                dest.weight,
                dest.active,
                dest.inact,
                show(&dest.stats)
            ));
        }
    }
    // The order of services hangs on a random key; that of the destinations of each does not.
    let got = list()?;
    ensure!(
        grouped(got.lines()) == grouped(want.iter().map(String::as_str)),
        "pyroute2:\n{got}netlink:\n{}",
        want.join("\n")
    );
    ensure!(want.len() == 1 + 4 * 4 + 1, "{want:#?}");
    Ok(())
}
