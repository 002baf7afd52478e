// SPDX-License-Identifier: GPL-2.0-or-later

//! Dumps of hundreds: in many messages, each object once, destinations with the newest first, and
//! sane while things change.
//!
//! Proves checklist item 6.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{ensure, Result};

use crate::genl::{genl_header, Attrs, NLM_F_DUMP, NLM_F_MULTI, NLM_F_REQUEST};
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::TCP;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_dumps",
    "dumps of hundreds of services and destinations",
    &[6],
    run,
);

const MANY: u16 = 400;

fn run(_cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let ipvs = Ipvs::open(&topo.director)?;
    let mut all = BTreeSet::new();
    for n in 0..MANY {
        let family = if n % 3 == 0 { Family::V6 } else { Family::V4 };
        let vip = at(family.vip(), 1000 + n);
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, vip, "rr")))?;
        all.insert(vip);
    }
    let reply = ipvs.dump(cmd::GET_SERVICE, &Attrs::new())?.ok()?;
    ensure!(
        reply.datagrams > 2,
        "{} services came in {} datagrams",
        MANY,
        reply.datagrams
    );
    ensure!(
        reply.msgs.iter().all(|m| m.flags == NLM_F_MULTI),
        "flags of the messages"
    );
    // The table of services still follows their number in the background; a dump that it overtakes may repeat and leave
    // out, in C as well. Soon it is settled.
    let mut tries = 0;
    loop {
        let seen: Vec<SocketAddr> = ipvs.services()?.iter().filter_map(|s| s.vip).collect();
        if seen.len() == all.len() && seen.iter().copied().collect::<BTreeSet<_>>() == all {
            break;
        }
        tries += 1;
        ensure!(tries < 50, "{} of {MANY}", seen.len());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }

    for family in Family::BOTH {
        let vip = at(family.vip(), if family == Family::V6 { 1000 } else { 1001 });
        let mut want = Vec::new();
        for n in 0..MANY {
            let rs = at(family.raw_rs((n % 250) as u8), 2000 + n);
            ipvs.ok(
                cmd::NEW_DEST,
                &for_dest(&svc_id(TCP, vip), &dest_full(rs, i32::from(n))),
            )?;
            want.insert(0, rs);
        }
        let dests = ipvs.dests(TCP, vip)?;
        ensure!(
            dests.iter().map(|d| d.addr).collect::<Vec<_>>() == want,
            "order of {} destinations",
            dests.len()
        );
        // An edited one keeps its place.
        ipvs.ok(
            cmd::SET_DEST,
            &for_dest(&svc_id(TCP, vip), &dest_full(want[17], 5)),
        )?;
        let dests = ipvs.dests(TCP, vip)?;
        ensure!(
            dests[17].addr == want[17] && dests[17].weight == 5,
            "{:?}",
            dests[17]
        );
    }

    // Deleting and adding while a dump is under way: it ends, and knows nobody twice who was there
    // all the time.
    for _ in 0..5 {
        let other = Ipvs::open(&topo.director)?;
        let seq = ipvs.genl.send(
            ipvs.family,
            NLM_F_REQUEST | NLM_F_DUMP,
            &genl_header(cmd::GET_SERVICE, 1),
        )?;
        let first = ipvs.genl.receive_datagram()?;
        ensure!(first.len() > 1000, "{} bytes", first.len());
        for n in 300..350 {
            let family = if n % 3 == 0 { Family::V6 } else { Family::V4 };
            let vip = at(family.vip(), 1000 + n);
            other.ok(cmd::DEL_SERVICE, &for_svc(&svc_id(TCP, vip)))?;
        }
        let rest = ipvs.genl.receive(seq)?.ok()?;
        ensure!(
            rest.msgs.len() <= usize::from(MANY),
            "{} messages",
            rest.msgs.len()
        );
        for n in 300..350 {
            let family = if n % 3 == 0 { Family::V6 } else { Family::V4 };
            other.ok(
                cmd::NEW_SERVICE,
                &for_svc(&svc_full(TCP, at(family.vip(), 1000 + n), "rr")),
            )?;
        }
    }
    // A dump that nobody reads to its end.
    for _ in 0..20 {
        let idle = Ipvs::open(&topo.director)?;
        idle.genl.send(
            idle.family,
            NLM_F_REQUEST | NLM_F_DUMP,
            &genl_header(cmd::GET_SERVICE, 1),
        )?;
    }
    ensure!(
        ipvs.services()?.len() == usize::from(MANY),
        "{} services",
        ipvs.services()?.len()
    );
    let listing = topo.ipvsadm("-Ln")?;
    ensure!(
        listing.lines().count() == 3 + 3 * usize::from(MANY),
        "ipvsadm lists {} lines",
        listing.lines().count()
    );
    topo.ipvsadm("-C")?;
    ensure!(ipvs.services()?.is_empty(), "services after -C");
    Ok(())
}
