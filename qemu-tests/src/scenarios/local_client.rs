// SPDX-License-Identifier: GPL-2.0-or-later

//! Clients on the director itself: their packets are translated on the way out, the replies on the
//! way in.
//!
//! Proves checklist items 115 and 91 (packets of a local sender, whose checksums are left to the
//! device).

use std::collections::BTreeMap;

use anyhow::{ensure, Result};

use crate::proc;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "local_client",
    "a client on the director is balanced",
    &[115],
    run,
)
.partly(&[91]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let topo = Topo::new(2)?;
        let mut servers = Vec::new();
        let vip = at(family.vip(), 80);
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        for (n, ns) in (1..).zip(&topo.rs) {
            let rs = at(family.rs(n), 8080);
            servers.push(Server::tcp(ns, rs, ns.name())?);
            servers.push(Server::udp(ns, rs, ns.name())?);
            topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
            topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        }
        for state in ["on", "off"] {
            for n in 1..=2 {
                topo.director.cmd(&format!("ethtool -K s{n} tx {state}"))?;
            }
            let mut seen = BTreeMap::new();
            for _ in 0..10 {
                let body = serve::http_get(&topo.director, vip)?;
                *seen.entry(serve::name(&body).to_owned()).or_insert(0) += 1;
                let socket = serve::udp(&topo.director, vip)?;
                let answer = serve::ask_udp(&socket, "hello")?;
                *seen
                    .entry(format!("udp {}", serve::name(&answer)))
                    .or_insert(0) += 1;
            }
            ensure!(
                seen.len() == 4 && seen.values().all(|&n| n == 5),
                "tx {state}: {seen:?}"
            );
            let stream = serve::connect(&topo.director, vip)?;
            std::io::Write::write_all(&mut &stream, b"BULK 200000\n")?;
            serve::take_bulk(&stream, 200_000)?;
            std::io::Write::write_all(&mut &stream, b"TAKE 200000\n")?;
            std::io::Write::write_all(&mut &stream, &serve::pattern(200_000))?;
            let answer = serve::ask(&stream, "")?;
            ensure!(answer.ends_with("right"), "{answer:?}");
        }
        let conns = proc::conns(&topo.director)?;
        ensure!(
            conns.iter().all(|c| c.vip == vip && c.dest.port() == 8080),
            "{conns:#?}"
        );
        // Remote clients of the same service are not disturbed.
        serve::http_get(&topo.client, vip)?;
        drop(servers);
    }
    Ok(())
}
