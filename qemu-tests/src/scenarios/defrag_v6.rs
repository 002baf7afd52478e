// SPDX-License-Identifier: GPL-2.0-or-later

//! IPv6 fragments are put together in a namespace from its first IPv6 service or destination on, and for ever: they then leave in
//! their order, whichever way they came.
//!
//! Proves checklist item 34.

use anyhow::{ensure, Result};

use crate::pkt::Pkt;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "defrag_v6",
    "IPv6 defragmentation comes with the first service or destination",
    &[34],
    run,
);

/// Whether fragments that pass through, last one first, leave first one first.
fn are_put_together(rig: &Rig, id: u32) -> Result<bool> {
    let pkt = Pkt {
        id,
        ..Pkt::udp(
            at(Family::V6.raw_client(1), 1),
            at(Family::V6.raw_rs(1), 2),
            &[9; 2000],
        )
    };
    let mut parts = pkt.fragments(1240);
    parts.reverse();
    let io = rig.exchange_raw(Side::Client, &parts)?;
    let offsets: Vec<_> = io
        .server
        .iter()
        .filter_map(|f| f.pkt.frag.map(|(offset, _)| offset))
        .collect();
    ensure!(offsets.len() == 2, "{io:#?}");
    Ok(offsets[0] == 0)
}

fn run(_cx: &Cx) -> Result<()> {
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 80));
    let (vip6, rs6) = (at(Family::V6.vip(), 80), at(Family::V6.raw_rs(1), 80));
    // A destination is enough.
    let rig = Rig::new()?;
    ensure!(!are_put_together(&rig, 1)?, "before anything");
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    ensure!(!are_put_together(&rig, 2)?, "with IPv4 only");
    rig.ipvsadm(&format!("-a -t {vip} -r {rs6} -i"))?;
    ensure!(are_put_together(&rig, 3)?, "with an IPv6 destination");
    rig.ipvsadm("-C")?;
    ensure!(are_put_together(&rig, 4)?, "without services again");
    // So is a service.
    let rig = Rig::new()?;
    ensure!(!are_put_together(&rig, 1)?, "in another namespace");
    rig.ipvsadm(&format!("-A -t {vip6} -s rr"))?;
    ensure!(are_put_together(&rig, 2)?, "with an IPv6 service");
    rig.ipvsadm("-C")?;
    ensure!(are_put_together(&rig, 3)?, "without services again");
    Ok(())
}
