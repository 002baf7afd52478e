// SPDX-License-Identifier: GPL-2.0-or-later

//! The examples of the crate rvs-netlink, as they are in its documentation: each runs against the kernel, and prints what it should.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::ns::Ns;
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "rvs_netlink_examples",
    "the examples of rvs-netlink run",
    &[],
    run,
)
.with_examples();

fn run(cx: &Cx) -> Result<()> {
    let folder = cx.examples.as_deref().context("no examples were built")?;
    let topo = Topo::new(1)?;
    let ns = &topo.director;
    let example = |name: &str, args: &str| -> Result<String> {
        ns.cmd(&format!("{} {args}", folder.join(name).display()))
    };

    let said = example("balance", "")?;
    let fullnat = match cx.peer {
        Peer::Rvs => "16 local addresses\n",
        Peer::C => "this module has no local addresses (FullNAT)\n",
    };
    for part in [
        "request 2 was refused: ",
        fullnat,
        "tcp 192.0.2.1:80 wlc 300 s\n",
        "  10.0.0.1:8080 weight 0\n",
        "  10.0.0.2:8080 weight 1\n",
        "gone: ",
    ] {
        ensure!(said.contains(part), "{part}\n{said}");
    }

    let (vip, real) = (at(Family::V4.vip(), 80), at(Family::V4.rs(1), 8080));
    let _server = Server::tcp(&topo.rs[0], real, "rs1")?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {real} -m"))?;
    let said = example("services", "")?;
    ensure!(
        said.starts_with("IPVS 1.2.1, ")
            && said.ends_with(&format!("tcp {vip} rr\n  {real} weight 1 active 0\n")),
        "{said}"
    );
    if cx.peer == Peer::C {
        for name in ["events", "conns"] {
            let out = ns.try_cmd(&folder.join(name).display().to_string())?;
            ensure!(
                out.code == Some(1) && out.stderr.contains("NoExtension"),
                "{name}: {out:?}"
            );
        }
        return Ok(());
    }

    let stream = serve::connect(&topo.client, vip)?;
    serve::ask(&stream, "hello")?;
    let client = stream.local_addr()?;
    let want = format!("tcp {client} -> {vip} -> {real} ESTABLISHED\n1 connections\n");
    ensure!(example("conns", "")? == want, "{}", example("conns", "")?);
    ensure!(example("conns", &client.ip().to_string())? == want);
    ensure!(example("conns", "192.0.2.77")? == "0 connections\n");
    events(ns, &folder.join("events"))
}

/// Tells two events and ends.
fn events(ns: &Ns, program: &Path) -> Result<()> {
    let child = ns.run(|| {
        Command::new(program)
            .arg("2")
            .stdout(Stdio::piped())
            .spawn()
            .context("events")
    })?;
    // Nothing tells that it listens but the group itself.
    let listens = || -> Result<bool> {
        let text = ns.read("/proc/net/netlink")?;
        let pid = child.id().to_string();
        // sk Eth Pid Groups ...: generic netlink is 16.
        Ok(text.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1) == Some(&"16")
                && words.get(2) == Some(&pid.as_str())
                && words
                    .get(3)
                    .is_some_and(|groups| groups.bytes().any(|b| b != b'0'))
        }))
    };
    until_true("it listens", 10.0, listens)?;
    ns.cmd("ipvsadm -A -u 192.0.2.1:53 -s rr")?;
    ns.cmd("ipvsadm -D -u 192.0.2.1:53")?;
    let out = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stdout);
    ensure!(
        out.status.success() && said == "New udp 192.0.2.1:53\nDeleted udp 192.0.2.1:53\n",
        "{said}"
    );
    Ok(())
}
