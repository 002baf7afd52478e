// SPDX-License-Identifier: GPL-2.0-or-later

//! `rvsadm events` tells what happens, as it happens; `rvsadm conns` has the kernel filter, and counters. Where the module offers
//! neither, rvsadm says so, and what would.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{ensure, Context, Result};

use super::rvsadm::{jq, Tool};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::until;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_events",
    "rvsadm tells events and lists connections by rvs's extension, or says what is missing",
    &[],
    run,
)
.with_rvsadm();

fn run(cx: &Cx) -> Result<()> {
    let topo = Topo::new(2)?;
    let tool = Tool::new(cx, &topo.director)?;
    if !offers(&tool)? {
        return missing(&tool);
    }
    ensure!(cx.peer == Peer::Rvs, "C has an extension");
    configuration(&tool).context("configuration")?;
    connections(&topo, &tool).context("connections")
}

/// Whether there is a dump of connections.
fn offers(tool: &Tool<'_>) -> Result<bool> {
    Ok(Ipvs::open(tool.ns)?.dump(64, &Attrs::new())?.errno == 0)
}

fn missing(tool: &Tool<'_>) -> Result<()> {
    for line in [
        "events",
        "events conns",
        "--json events all",
        "conns --counters",
    ] {
        tool.fails(line, 1, &["has no", "modprobe rvs"])?;
    }
    let out = tool.run("conns", "")?;
    ensure!(
        out.code == Some(0) && out.stderr.contains("reading /proc/net/ip_vs_conn"),
        "{out:?}"
    );
    Ok(())
}

/// `rvsadm --json events`, which runs until it is dropped.
struct Listener {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Listener {
    /// Returns once it listens: it holds a netlink socket with a group.
    fn new(tool: &Tool<'_>, topic: &str) -> Result<Self> {
        let before = listeners(tool)?;
        let mut child = tool.ns.run(|| {
            Command::new(tool.path)
                .args(["--json", "events", topic])
                .stdout(Stdio::piped())
                .spawn()
        })?;
        until("it listens", 10.0, || {
            Ok((listeners(tool)? > before).then_some(()))
        })?;
        let lines = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, lines })
    }

    /// What jq makes of the next event.
    fn next(&mut self, filter: &str) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        jq(&line, filter)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sockets of generic netlink that are in a group, in the namespace.
fn listeners(tool: &Tool<'_>) -> Result<usize> {
    let text = tool.ns.read("/proc/net/netlink")?;
    // sk, protocol (16), port, groups ...
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let protocol = words.next()?;
            let groups = words.nth(1)?;
            (protocol == "16" && !groups.trim_start_matches('0').is_empty()).then_some(())
        })
        .count())
}

fn configuration(tool: &Tool<'_>) -> Result<()> {
    let mut listener = Listener::new(tool, "config")?;
    let mut told = 0;
    let mut after = |command: &str, want: &str| -> Result<()> {
        tool.ok(command)?;
        told += 1;
        let got = listener.next(
            "[.event, (.service | if type == \"object\" then .service + \" \" + .scheduler else . end), \
             .real_server.address, .real_server.weight]",
        )?;
        ensure!(got == want, "after `{command}`: {got}, not {want}");
        Ok(())
    };
    after(
        "service add tcp 192.0.2.1:80 -s rr",
        r#"["new","tcp 192.0.2.1:80 rr",null,null]"#,
    )?;
    after(
        "service edit tcp 192.0.2.1:80 -s wrr",
        r#"["changed","tcp 192.0.2.1:80 wrr",null,null]"#,
    )?;
    after(
        "real add tcp 192.0.2.1:80 10.0.1.2:8080 --weight 3",
        r#"["new","tcp 192.0.2.1:80","10.0.1.2:8080",3]"#,
    )?;
    after(
        "real set tcp 192.0.2.1:80 10.0.1.2:8080 --weight 4",
        r#"["changed","tcp 192.0.2.1:80","10.0.1.2:8080",4]"#,
    )?;
    after(
        "real del tcp 192.0.2.1:80 10.0.1.2:8080",
        r#"["deleted","tcp 192.0.2.1:80","10.0.1.2:8080",4]"#,
    )?;
    after(
        "service add fwmark6 7",
        r#"["new","fwmark6 7 wlc",null,null]"#,
    )?;
    after(
        "service del fwmark6 7",
        r#"["deleted","fwmark6 7 wlc",null,null]"#,
    )?;
    // By another program, and for people.
    let mut child = tool.ns.run(|| {
        Command::new(tool.path)
            .args(["events", "--count", "1"])
            .stdout(Stdio::piped())
            .spawn()
    })?;
    until("both listen", 10.0, || {
        Ok((listeners(tool)? >= 2).then_some(()))
    })?;
    tool.ns.cmd("ipvsadm -D -t 192.0.2.1:80")?;
    ensure!(listener.next(".event")? == "deleted");
    let mut text = String::new();
    let mut lines = BufReader::new(child.stdout.take().context("no pipe")?);
    lines.read_line(&mut text)?;
    ensure!(
        text.ends_with("Z deleted service tcp 192.0.2.1:80 wrr\n"),
        "{text}"
    );
    ensure!(child.wait()?.success());
    Ok(())
}

fn connections(topo: &Topo, tool: &Tool<'_>) -> Result<()> {
    let vip = at(Family::V4.vip(), 80);
    let real = |n| at(Family::V4.rs(n), 8080);
    let _servers = [
        Server::tcp(&topo.rs[0], real(1), "rs1")?,
        Server::tcp(&topo.rs[1], real(2), "rs2")?,
    ];
    tool.ns.set_sysctl("net.ipv4.vs.rvs_conn_counters", 1)?;
    tool.ok(&format!("service add tcp {vip} -s rr"))?;
    for n in 1..=2 {
        tool.ok(&format!("real add tcp {vip} {}", real(n)))?;
    }
    let mut listener = Listener::new(tool, "conns")?;
    let stream = serve::connect(&topo.client, vip)?;
    serve::ask(&stream, "hello")?;
    let facts = "[.event, .connection.service, .connection.state]";
    let first = listener.next(facts)?;
    ensure!(first.starts_with(r#"["new","10.0.100.1:80","#), "{first}");
    // By way of what states there are.
    let mut event = first;
    while event != r#"["changed","10.0.100.1:80","ESTABLISHED"]"# {
        event = listener.next(facts)?;
        ensure!(
            event.starts_with(r#"["changed","10.0.100.1:80","#),
            "{event}"
        );
    }
    let second = serve::connect(&topo.client, vip)?;
    serve::ask(&second, "hello")?;

    // The kernel filters; nothing is said about the file.
    for (filter, want) in [
        ("", 2),
        ("--protocol tcp", 2),
        ("--protocol sctp", 0),
        ("--client 10.0.0.0/24", 2),
        ("--client 10.0.0.3", 0),
        ("--service 10.0.100.1:80", 2),
        ("--service 10.0.100.1:81", 0),
        ("--real 10.0.1.2:8080", 1),
        ("--real 10.0.2.2", 1),
        ("--state established", 2),
        ("--state syn_recv", 0),
    ] {
        let count = tool.ok(&format!("conns --count {filter}"))?;
        ensure!(count.trim() == want.to_string(), "{filter}: {count}");
    }
    let listed = tool.json(
        "conns --real 10.0.1.2:8080",
        ".[] | [.method, .template, .state, .counters.in_pkts > 2, .counters.out_bytes > 100, .expires <= .timeout]",
    )?;
    ensure!(
        listed == r#"["nat",false,"ESTABLISHED",true,true,true]"#,
        "{listed}"
    );
    let table = tool.ok("conns --counters")?;
    ensure!(
        table.contains("B out") && table.lines().all(|l| !l.contains(" - ")),
        "{table}"
    );
    Ok(())
}
