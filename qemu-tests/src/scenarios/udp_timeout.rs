// SPDX-License-Identifier: GPL-2.0-or-later

//! UDP: one state, its timeout reloaded by every packet in either direction, settable.
//!
//! Proves checklist item 86 (without templates) and, for UDP, 11 and 68.

use anyhow::{ensure, Context, Result};

use crate::pkt::Pkt;
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{pass, slow, until_true};

pub const SCENARIO: Scenario =
    Scenario::new("udp_timeout", "the UDP timeout and its reload", &[11], run).partly(&[68, 86]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs, client) = (
            at(family.vip(), 53),
            at(family.raw_rs(1), 5353),
            at(family.raw_client(1), 4000),
        );
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        let query = Pkt::udp(client, vip, b"query");
        let answer = Pkt::udp(rs, client, b"answer");
        let expires = || -> Result<u32> {
            Ok(proc::conn(&rig.topo.director, client)?
                .context("no connection")?
                .expires)
        };
        let near = |want: u32| -> Result<()> {
            let got = expires()?;
            ensure!(
                got <= want && f64::from(want - got) <= 2.0 * slow(),
                "expected {want} s, it is {got}"
            );
            Ok(())
        };
        rig.forwarded(&query)?;
        near(300)?;
        // A change holds from the next packet on, whichever way it goes.
        rig.ipvsadm("--set 0 0 100")?;
        near(300)?;
        rig.returned(&answer)?;
        near(100)?;
        rig.ipvsadm("--set 0 0 60")?;
        rig.forwarded(&query)?;
        near(60)?;
        // Reloaded by each packet, it outlives its timeout; left alone it goes.
        let short = (2.0 * slow()).ceil().max(3.0);
        rig.ipvsadm(&format!("--set 0 0 {short}"))?;
        for i in 0..6 {
            if i % 2 == 0 {
                rig.exchange(Side::Client, std::slice::from_ref(&query))?;
            } else {
                rig.exchange(Side::Server, std::slice::from_ref(&answer))?;
            }
            pass(short * 0.25);
        }
        ensure!(
            proc::conns(&rig.topo.director)?.len() == 1,
            "the connection is gone or doubled"
        );
        until_true("the connection expires", short + 4.0, || {
            Ok(proc::conns(&rig.topo.director)?.is_empty())
        })?;
    }
    Ok(())
}
