// SPDX-License-Identifier: GPL-2.0-or-later

//! UDP: one state, which is never active, its timeout reloaded by every packet in either direction, settable; and a template that
//! only a reply assures.
//!
//! Proves checklist item 86 and, for UDP, 11 and 68.

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{pass, slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "udp_timeout",
    "the UDP timeout and its reload, and templates",
    &[11, 86],
    run,
)
.partly(&[68]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        template(family).with_context(|| format!("templates, {family:?}"))?;
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
        let ipvs = Ipvs::open(&rig.topo.director)?;
        for reply in [false, true] {
            if reply {
                rig.returned(&answer)?;
            }
            let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
            let dest = ipvs.dest(UDP, vip, rs)?;
            ensure!(
                conn.state == "UDP" && (dest.active, dest.inact) == (0, 1),
                "{conn:?}, {dest:?}"
            );
        }
        // A change holds from the next packet on, whichever way it goes.
        rig.ipvsadm("--set 0 0 100")?;
        near(300)?;
        rig.returned(&answer)?;
        near(100)?;
        rig.ipvsadm("--set 0 0 60")?;
        rig.forwarded(&query)?;
        near(60)?;
        // Reloaded by each packet, it outlives its timeout; left alone it goes. One family's does for slow guests, whose timeouts must
        // be longer.
        if slow() > 1.0 && family == Family::V6 {
            continue;
        }
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

/// A client's packets do not make its template worth keeping; the server's do, by NAT and, where they pass by, by direct routing.
fn template(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    director.set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    let client = at(family.raw_client(1), 4000);
    for (port, flag) in [(53, "-m"), (54, "-g")] {
        let (vip, rs) = (at(family.vip(), port), at(family.raw_rs(1), port));
        rig.ipvsadm(&format!("-A -u {vip} -s rr -p 100"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} {flag}"))?;
        let state = || -> Result<String> {
            let rows = proc::conns(director)?;
            let template = rows.iter().find(|c| c.vip == vip && c.client.port() == 0);
            Ok(template
                .with_context(|| format!("no template: {rows:#?}"))?
                .state
                .clone())
        };
        for _ in 0..3 {
            rig.forwarded(&Pkt::udp(client, vip, b"query"))?;
            ensure!(state()? == "NONE", "{flag}, requests alone: {}", state()?);
        }
        let from = if flag == "-m" { rs } else { vip };
        rig.returned(&Pkt::udp(from, client, b"answer"))?;
        ensure!(state()? == "ASSURED", "{flag}, with a reply: {}", state()?);
    }
    Ok(())
}
