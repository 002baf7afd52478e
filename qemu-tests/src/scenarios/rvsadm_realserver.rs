// SPDX-License-Identifier: GPL-2.0-or-later

//! `rvsadm realserver` makes a host a real server for direct routing and for tunnels: clients are served then and not
//! before, `check` says what is missing, `undo` leaves everything as it was.

use std::net::IpAddr;

use anyhow::{ensure, Context, Result};

use super::rvsadm::Tool;
use crate::ns::Ns;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_realserver",
    "rvsadm prepares real servers for direct routing and tunnels",
    &[],
    run,
)
.with_rvsadm();

fn run(cx: &Cx) -> Result<()> {
    for (mode, method) in [("--dr", "dr"), ("--tunnel", "tunnel")] {
        one(cx, mode, method).with_context(|| mode.to_owned())?;
    }
    Ok(())
}

/// What setup may change.
fn state(ns: &Ns) -> Result<String> {
    let mut text = ns.cmd("ip -br address show dev lo")?;
    text += &ns.cmd("ip -o address show dev tunl0").unwrap_or_default();
    for key in ["arp_ignore", "arp_announce", "rp_filter"] {
        text += &format!(
            "{key} {}\n",
            ns.sysctl(&format!("net.ipv4.conf.all.{key}"))?
        );
    }
    Ok(text)
}

fn one(cx: &Cx, mode: &str, method: &str) -> Result<()> {
    let topo = Topo::new(1)?;
    let director = Tool::new(cx, &topo.director)?;
    let host = Tool::new(cx, &topo.rs[0])?;
    let vip = at(Family::V4.vip(), 80);
    let ip: IpAddr = vip.ip();
    // Answers come straight from the real server; here their way is through the director, which takes them for its own
    // unless it is told otherwise.
    topo.director
        .set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    director.ok(&format!("service add tcp {vip} -s rr"))?;
    director.ok(&format!("real add tcp {vip} 10.0.1.2:80 --method {method}"))?;
    if mode == "--tunnel" {
        // The device that a first tunnel makes.
        topo.rs[0].cmd("modprobe ipip")?;
    }
    let before = state(&topo.rs[0])?;

    // Not ready yet, and said.
    let out = host.run(&format!("realserver check {mode} {ip}"), "")?;
    ensure!(
        out.code == Some(1)
            && out.stdout.contains("arp_ignore")
            && out.stdout.contains("10.0.100.1/32"),
        "{out:?}"
    );
    let plan = host.ok(&format!("realserver setup {mode} {ip} --dry-run"))?;
    ensure!(plan.contains("arp_announce=2"), "{plan}");
    ensure!(
        state(&topo.rs[0])? == before,
        "a dry run has changed something"
    );

    host.ok(&format!("realserver setup {mode} {ip}"))?;
    host.ok(&format!("realserver check {mode} {ip}"))?;
    let server = Server::tcp(&topo.rs[0], at("0.0.0.0".parse()?, 80), "rs1")?;
    let body = serve::http_get(&topo.client, vip)?;
    ensure!(body.starts_with("rs1 10.0.0.2:"), "{body}");
    let ready = state(&topo.rs[0])?;
    // Once more: there is nothing to do.
    host.ok(&format!("realserver setup {mode} {ip}"))?;
    ensure!(state(&topo.rs[0])? == ready);

    drop(server);
    host.ok(&format!("realserver undo {mode} {ip}"))?;
    let after = state(&topo.rs[0])?;
    ensure!(after == before, "before\n{before}after\n{after}");
    Ok(())
}
