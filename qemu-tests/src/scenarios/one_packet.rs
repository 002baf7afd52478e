// SPDX-License-Identifier: GPL-2.0-or-later

//! One-packet scheduling: each datagram goes its own way, no connection stays, answers are not
//! translated; with persistence the way is the template's.
//!
//! Proves checklist item 72.

use anyhow::{ensure, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "one_packet",
    "each datagram is scheduled by itself",
    &[72],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let ipvs = Ipvs::open(&rig.topo.director)?;
        let vip = at(family.vip(), 53);
        let client = at(family.raw_client(1), 4000);
        let rs = |host| at(family.raw_rs(host), 53);
        rig.ipvsadm(&format!("-A -u {vip} -s rr -o"))?;
        for host in [1, 2, 3] {
            rig.ipvsadm(&format!("-a -u {vip} -r {} -m", rs(host)))?;
        }
        let send =
            || -> Result<_> { Ok(rig.forwarded(&Pkt::udp(client, vip, b"question"))?.dest()) };
        for host in [3, 2, 1, 3, 2, 1, 3] {
            let to = send()?;
            ensure!(to == rs(host), "went to {to}, not to {}", rs(host));
        }
        let conns = proc::conns(&rig.topo.director)?;
        ensure!(conns.is_empty(), "{conns:#?}");
        // Every packet counts as a connection, and none is there afterwards.
        let dests = ipvs.dests(UDP, vip)?;
        ensure!(dests.iter().all(|d| d.active + d.inact == 0), "{dests:#?}");
        // C shows what its estimator has seen.
        until_true("seven connections, seven packets", 8.0, || {
            let stats = ipvs.service(UDP, vip)?.stats;
            Ok((stats.conns, stats.inpkts) == (7, 7))
        })?;
        // An answer is nobody's: it passes as it is.
        let io = rig.exchange(Side::Server, &[Pkt::udp(rs(3), client, b"answer")])?;
        ensure!(
            io.client_pkts().iter().all(|p| p.source() == rs(3)) && io.client.len() == 1,
            "{io:#?}"
        );

        // With persistence: the template says where, and packets are counted there.
        rig.ipvsadm(&format!("-E -u {vip} -s rr -o -p 60"))?;
        let first = send()?;
        for _ in 0..4 {
            let to = send()?;
            ensure!(to == first, "went to {to}, not to {first}");
        }
        until_true("the template is listed", 3.0, || {
            let conns = proc::conns(&rig.topo.director)?;
            Ok(conns.iter().filter(|c| c.proto == "UDP").count() == 1)
        })?;
        let dest = ipvs.dest(UDP, vip, first)?;
        ensure!((dest.persist, dest.inact) == (1, 0), "{dest:?}");
    }
    Ok(())
}
