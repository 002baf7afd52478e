// SPDX-License-Identifier: GPL-2.0-or-later

//! The module parameter `conn_tab_bits` is how large connection tables may get, within limits.
//!
//! Proves checklist item 31 (this parameter).

use anyhow::{ensure, Result};

use crate::ipvs::Ipvs;
use crate::pkt::Pkt;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "conn_tab_bits",
    "conn_tab_bits limits the connection table",
    &[],
    run,
)
.partly(&[31])
.own_modules();

fn run(cx: &Cx) -> Result<()> {
    // 300 connections want 2,048 buckets.
    for (bits, largest) in [
        ("8", 256),
        ("9", 512),
        ("3", 256),
        ("-1", 256),
        ("99", 2048),
    ] {
        cx.modules.load_with(&format!("conn_tab_bits={bits}"))?;
        let rig = Rig::new()?;
        let (vip, rs) = (at(Family::V4.vip(), 53), at(Family::V4.raw_rs(1), 53));
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        let ipvs = Ipvs::open(&rig.topo.director)?;
        ensure!(ipvs.info()?.1 == 256, "it begins with {}", ipvs.info()?.1);
        let packets: Vec<Pkt> = (0..300)
            .map(|n| Pkt::udp(at(Family::V4.raw_client(n), 1000), vip, b"x"))
            .collect();
        for _ in 0..2 {
            let io = rig.exchange(Side::Client, &packets)?;
            ensure!(io.server.len() == packets.len(), "packets were lost");
            until_true(&format!("{bits} bits: {largest} buckets"), 10.0, || {
                Ok(ipvs.info()?.1 == largest)
            })?;
        }
        drop(ipvs);
        drop(rig);
        cx.modules.unload()?;
    }
    Ok(())
}
