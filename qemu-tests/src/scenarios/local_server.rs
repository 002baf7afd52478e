// SPDX-License-Identifier: GPL-2.0-or-later

//! A real server on the director: by another port of the VIP, by another of the director's
//! addresses, for remote and for local clients.
//!
//! Proves checklist items 101, 116 and 114 (the loopback part).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "local_server",
    "a real server on the director",
    &[101, 116],
    run,
)
.partly(&[114]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for (n, addr) in (0u16..).zip([family.vip(), family.director(), family.director_at(1)]) {
            let topo = Topo::new(1)?;
            let vip = at(family.vip(), 80 + n);
            let rs = at(addr, 8080);
            let mut servers = vec![
                Server::tcp(&topo.director, rs, "here")?,
                Server::udp(&topo.director, rs, "here")?,
            ];
            for kind in ["t", "u"] {
                topo.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
                topo.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
            }
            let listing = topo.ipvsadm("-Ln")?;
            ensure!(listing.contains(&rs.to_string()), "{listing}");
            for ns in [&topo.client, &topo.director] {
                for _ in 0..3 {
                    let body = serve::http_get(ns, vip)?;
                    ensure!(serve::name(&body) == "here", "{body:?}");
                    let socket = serve::udp(ns, vip)?;
                    let answer = serve::ask_udp(&socket, "hello")?;
                    ensure!(
                        serve::name(&answer) == "here" && answer.ends_with("hello"),
                        "{answer:?}"
                    );
                }
            }
            // A reply is not taken for a request: one connection per request, all of them to the
            // server.
            let conns = proc::conns(&topo.director)?;
            ensure!(
                conns.len() == 12 && conns.iter().all(|c| c.vip == vip && c.dest == rs),
                "{conns:#?}"
            );
            servers.clear();
        }
        loopback(family)?;
    }
    Ok(())
}

/// A server at the loopback address is for local clients only: what comes from outside is dropped.
fn loopback(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let addr = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let (vip, rs) = (at(family.vip(), 90), at(addr, 8090));
    let server = Server::tcp(&rig.topo.director, rs, "loopback")?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let body = serve::http_get(&rig.topo.director, vip)?;
    ensure!(serve::name(&body) == "loopback", "{body:?}");
    rig.dropped(
        Side::Client,
        &Pkt::tcp(at(family.raw_client(1), 4000), vip, SYN),
    )?;
    drop(server);
    Ok(())
}
