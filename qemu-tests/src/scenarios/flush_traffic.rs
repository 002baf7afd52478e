// SPDX-License-Identifier: GPL-2.0-or-later

//! Flushing and rebuilding the whole configuration while packets of thousands of connections
//! arrive: what comes is either forwarded right or refused, and afterwards every connection is
//! where it was.
//!
//! Proves checklist items 13, 33 and 61 under traffic.

use anyhow::{ensure, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario =
    Scenario::new("flush_traffic", "flushing under traffic", &[13, 33], run).partly(&[61]);

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let build = || -> Result<()> {
        for family in Family::BOTH {
            let vip = at(family.vip(), 53);
            ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(UDP, vip, "rr")))?;
            for host in 1..=3 {
                let rs = at(family.raw_rs(host), 53);
                ipvs.ok(
                    cmd::NEW_DEST,
                    &for_dest(&svc_id(UDP, vip), &dest_full(rs, 1)),
                )?;
            }
        }
        Ok(())
    };
    build()?;
    let clients: Vec<Pkt> = (0..600u16)
        .map(|n| {
            let family = Family::BOTH[usize::from(n % 2)];
            Pkt::udp(at(family.raw_client(n), 4000), at(family.vip(), 53), b"x")
        })
        .collect();
    let mut home = std::collections::HashMap::new();
    let first = rig.exchange(Side::Client, &clients)?;
    ensure!(
        first.server.len() == clients.len(),
        "{} of {}",
        first.server.len(),
        clients.len()
    );
    for f in &first.server {
        home.insert(f.pkt.source(), f.pkt.dest());
    }
    for round in 0..10 {
        for half in clients.chunks(50) {
            for pkt in half {
                rig.ctap.send(pkt)?;
            }
            if round % 2 == 0 {
                ipvs.ok(cmd::FLUSH, &Attrs::new())?;
                build()?;
            }
        }
        let io = rig.finish(Side::Client)?;
        for f in &io.server {
            ensure!(
                home.get(&f.pkt.source()) == Some(&f.pkt.dest()) && f.pkt.csum_ok,
                "{:?}",
                f.pkt
            );
        }
    }
    let last = rig.exchange(Side::Client, &clients)?;
    ensure!(
        last.server.len() == clients.len() && last.client.is_empty(),
        "{} came back",
        last.server.len()
    );
    let dests: u32 = ipvs
        .dests(UDP, at(Family::V4.vip(), 53))?
        .iter()
        .map(|d| d.inact)
        .sum();
    ensure!(dests == 300, "the servers count {dests} connections");
    Ok(())
}
