// SPDX-License-Identifier: GPL-2.0-or-later

//! UDP through FullNAT: datagrams of all sizes, fragments included, both ways.

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, is_local, local, locals, tracked};
use crate::ipvs::Ipvs;
use crate::pkt::UDP;
use crate::proc;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_udp",
    "datagrams and fragments through FullNAT, v4 and v6",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let topo = fullnat::topo(2)?;
        let vip = at(family.vip(), 53);
        fullnat::track(&topo.director)?;
        let ipvs = Ipvs::open(&topo.director)?;
        let mut servers = Vec::new();
        topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        fullnat::add(&ipvs, UDP, vip, local(family, 1))?;
        for (n, ns) in (1..).zip(&topo.rs) {
            let rs = at(family.rs(n), 5353);
            servers.push(Server::udp(ns, rs, ns.name())?);
            topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        }
        let mut names = std::collections::BTreeSet::new();
        for i in 0..10 {
            let socket = serve::udp(&topo.client, vip)?;
            for n in [10, 1_000, 2_000, 9_000, 60_000] {
                let text = format!("{i}{}", "x".repeat(n));
                let answer = serve::ask_udp(&socket, &text)
                    .with_context(|| format!("{family:?}, {n} bytes"))?;
                let mut words = answer.split(' ');
                names.insert(words.next().unwrap_or_default().to_owned());
                let peer: std::net::SocketAddr = words.next().unwrap_or_default().parse()?;
                ensure!(
                    is_local(peer.ip()) && answer.ends_with(&text),
                    "{} bytes came back from {peer}",
                    answer.len()
                );
            }
        }
        ensure!(names.len() == 2, "{names:?}");
        let conns = proc::conns(&topo.director)?;
        ensure!(
            conns.len() == 10 && conns.iter().all(|c| c.state == "UDP"),
            "{conns:#?}"
        );
        ensure!(locals(&ipvs, UDP, vip)?[0].conns == 10, "not all counted");
        ensure!(tracked(&topo.director)? == 0, "datagrams are tracked");
        drop(servers);
    }
    Ok(())
}
