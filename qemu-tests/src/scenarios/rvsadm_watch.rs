// SPDX-License-Identifier: GPL-2.0-or-later

//! `rvsadm watch` in a real terminal: what the screen shows, what keys do to the kernel's table, and how it ends.

use std::path::Path;

use anyhow::{ensure, Result};

use super::rvsadm::{jq, Terminal, Tool};
use crate::ipvs::Ipvs;
use crate::pkt::TCP;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_watch",
    "rvsadm watch shows what there is, drains a real server and takes that back",
    &[],
    run,
)
.with_rvsadm();

/// The words of the line that has these.
fn line<'a>(screen: &'a str, part: &str) -> Vec<&'a str> {
    screen
        .lines()
        .find(|line| line.contains(part))
        .map(|line| line.split_whitespace().collect())
        .unwrap_or_default()
}

fn run(cx: &Cx) -> Result<()> {
    let topo = Topo::new(2)?;
    let tool = Tool::new(cx, &topo.director)?;
    let ipvs = Ipvs::open(&topo.director)?;
    let vip = at(Family::V4.vip(), 80);
    let real = |n| at(Family::V4.rs(n), 8080);
    let _servers = [
        Server::tcp(&topo.rs[0], real(1), "rs1")?,
        Server::tcp(&topo.rs[1], real(2), "rs2")?,
    ];
    for line in [
        format!("service add tcp {vip} -s rr"),
        format!("real add tcp {vip} {} --weight 3", real(1)),
        format!("real add tcp {vip} {} --weight 4", real(2)),
        "service add fwmark 7 -s wrr".to_owned(),
    ] {
        tool.ok(&line)?;
    }
    let program = format!("{} watch --interval 0.2", tool.path.display());
    let terminal = Terminal::new(&topo.director, "watch", 130, 30, &program)?;

    // Everything is there, in its place.
    // The terminal may be looked at while it is being drawn, from the top.
    let screen = terminal.shows("all parts of the first screen", |screen| {
        [
            "2 services, 2 real servers",
            "IPVS 1.2.1",
            "conn/s 0",
            "packets/s 0",
            "bytes/s 0",
            "q quit",
        ]
        .iter()
        .all(|part| screen.contains(part))
    })?;
    ensure!(
        line(&screen, &format!("tcp {vip}"))[..3] == ["tcp", &vip.to_string(), "rr"],
        "{screen}"
    );
    ensure!(
        line(&screen, "10.0.1.2:8080")[1..5] == ["nat", "3", "0", "0"],
        "{screen}"
    );
    ensure!(
        line(&screen, "fwmark 7")[..3] == ["fwmark", "7", "wrr"],
        "{screen}"
    );

    // Connections show as they come, and in rates and sparklines.
    let open: Vec<_> = (0..6)
        .map(|_| {
            let stream = serve::connect(&topo.client, vip)?;
            for _ in 0..20 {
                serve::ask(&stream, "hello")?;
            }
            Ok(stream)
        })
        .collect::<Result<_>>()?;
    let screen = terminal.shows("three active connections at each", |screen| {
        ["10.0.1.2:8080", "10.0.2.2:8080"]
            .iter()
            .all(|addr| line(screen, addr).get(3) == Some(&"3"))
    })?;
    ensure!(
        line(&screen, &format!("tcp {vip}")).get(3) == Some(&"6"),
        "{screen}"
    );
    terminal.shows("rates that are not 0", |screen| {
        !screen.contains("packets/s 0 ")
            && line(screen, &format!("tcp {vip}"))
                .last()
                .is_some_and(|spark| spark.contains('\u{2588}'))
    })?;

    // The connections of the selected line.
    terminal.keys("Down c")?;
    let title = format!("connections of tcp {vip} to 10.0.1.2:8080");
    terminal.shows("the connections of one real server", |screen| {
        let Some((_, below)) = screen.split_once(&title) else {
            return false;
        };
        below.matches("ESTABLISHED").count() == 3 && below.matches("-> ").count() == 0
    })?;
    terminal.keys("c")?;
    terminal.shows("no connections", |screen| {
        !screen.contains("connections of")
    })?;

    // One real server is drained: the kernel has weight 0, new connections go to the other.
    terminal.keys("d")?;
    let screen = terminal.has("gets no new connections (its weight was 3)")?;
    ensure!(
        line(&screen, "10.0.1.2:8080").get(2) == Some(&"0<3"),
        "{screen}"
    );
    ensure!(ipvs.dest(TCP, vip, real(1))?.weight == 0);
    for _ in 0..3 {
        ensure!(serve::http_get(&topo.client, vip)?.starts_with("rs2"));
    }
    // Again: said, and not done twice. Then the other one too; the last comes back first.
    terminal.keys("d")?;
    terminal.has("has weight 0 already")?;
    terminal.keys("Down d")?;
    terminal.has("(its weight was 4)")?;
    terminal.keys("u")?;
    terminal.has("10.0.2.2:8080 of tcp 10.0.100.1:80 has its weight back")?;
    ensure!(ipvs.dest(TCP, vip, real(2))?.weight == 4);
    ensure!(ipvs.dest(TCP, vip, real(1))?.weight == 0);
    // Somebody else has changed the weight meanwhile: it isn't overwritten.
    tool.ok(&format!("real set tcp {vip} {} --weight 9", real(1)))?;
    terminal.keys("u")?;
    terminal.has("has weight 9 by now; it is left alone")?;
    ensure!(ipvs.dest(TCP, vip, real(1))?.weight == 9);
    terminal.keys("u")?;
    terminal.has("nothing to undo")?;

    // What others add and remove shows too; folding hides real servers.
    tool.ok("service add udp 192.0.2.1:53")?;
    terminal.has("3 services, 2 real servers")?;
    tool.ok("service del udp 192.0.2.1:53")?;
    terminal.has("2 services, 2 real servers")?;
    terminal.keys("Home Space")?;
    terminal.shows("the service is folded", |screen| {
        screen.contains(&format!("+tcp {vip}")) && !screen.contains("10.0.1.2:8080")
    })?;
    terminal.keys("Space")?;
    terminal.has("10.0.1.2:8080")?;

    // A smaller terminal.
    terminal.tmux("resize-window -x 80 -y 10")?;
    terminal.shows("fits 80 columns", |screen| {
        screen.contains("10.0.2.2:8080")
            && screen.contains("up/down select")
            && !screen.contains("bytes/s")
    })?;

    // The shell's screen is there again at the end, after a key and after a signal.
    terminal.keys("q")?;
    terminal.shows("ended as it should", |screen| {
        screen.contains("before") && screen.contains("ended 0") && !screen.contains("q quit")
    })?;
    drop(terminal);
    signals(&tool, &program)?;
    colours(&tool, &program)?;
    lines(&tool)?;
    drop(open);
    Ok(())
}

fn signals(tool: &Tool<'_>, program: &str) -> Result<()> {
    let terminal = Terminal::new(tool.ns, "signals", 100, 20, program)?;
    terminal.has("q quit")?;
    tool.ns.cmd("pkill -TERM -x rvsadm")?;
    terminal.shows("the screen is back", |screen| {
        screen.contains("ended 0") && !screen.contains("q quit")
    })?;
    Ok(())
}

/// Colours, and none with NO_COLOR.
fn colours(tool: &Tool<'_>, program: &str) -> Result<()> {
    for (name, before, wanted) in [("plain", "NO_COLOR=1 ", false), ("colour", "", true)] {
        let terminal = Terminal::new(tool.ns, name, 100, 20, &format!("{before}{program}"))?;
        terminal.has("q quit")?;
        let raw = terminal.tmux("capture-pane -p -e")?;
        // SGR 30 to 37 and 38: colours of the foreground.
        ensure!(raw.contains("\x1b[3") == wanted, "{name}: {raw:?}");
    }
    Ok(())
}

/// For programs: a line of JSON each time.
fn lines(tool: &Tool<'_>) -> Result<()> {
    let path = Path::new(tool.path).display();
    std::fs::write(
        "/run/lines.sh",
        format!("{path} --json watch --interval 0.1 | head -n 3\n"),
    )?;
    let text = tool.ns.cmd("sh /run/lines.sh")?;
    ensure!(text.lines().count() == 3, "{text}");
    for line in text.lines() {
        ensure!(jq(line, ".services | length")? == "2", "{line}");
    }
    Ok(())
}
