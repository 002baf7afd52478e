// SPDX-License-Identifier: GPL-2.0-or-later

//! A director whose backup daemon runs leaves requests alone with `backup_only`, also those of connections that it knows; replies and
//! errors for clients are dealt with all the same. Without a backup daemon the setting means nothing.
//!
//! Proves checklist item 119.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, RST, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario =
    Scenario::new("backup_only", "a backup leaves requests alone", &[119], run);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        one(cx, family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

fn one(_cx: &Cx, family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let client = at(family.raw_client(1), 4000);
    let other = at(family.raw_client(2), 4000);
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    let is_balanced = || -> Result<()> {
        for pkt in [Pkt::tcp(client, vip, ACK), Pkt::tcp(other, vip, SYN)] {
            let came = rig.forwarded(&pkt)?;
            ensure!(came.dest() == rs, "{came:?}");
        }
        Ok(())
    };
    let only = "net.ipv4.vs.backup_only";
    ensure!(director.sysctl(only)? == "0", "it is on by default");
    director.set_sysctl(only, 1)?;
    is_balanced()?;
    rig.ipvsadm("--start-daemon backup --mcast-interface c0")?;
    for on in [1, 0] {
        director.set_sysctl(only, on)?;
        if on == 0 {
            is_balanced()?;
            continue;
        }
        for pkt in [Pkt::tcp(client, vip, ACK), Pkt::tcp(other, vip, SYN)] {
            let came = rig.answered(&pkt)?;
            ensure!(
                came.flags & RST != 0 && came.source() == vip && came.dest() == pkt.source(),
                "{came:?}"
            );
        }
        let came = rig.returned(&Pkt::tcp(rs, client, ACK))?;
        ensure!(came.source() == vip, "{came:?}");
    }
    rig.ipvsadm("--stop-daemon backup")?;
    director.set_sysctl(only, 1)?;
    is_balanced()
}
