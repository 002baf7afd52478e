// SPDX-License-Identifier: GPL-2.0-or-later

//! Colour on a terminal only, and nowhere if NO_COLOR is set: everything of rvsadm that prints in colour, in a real terminal (tmux), with
//! NO_COLOR, with a terminal that has no colours, and in a pipe. `rvsadm watch` itself: `rvsadm_watch`.

use std::fs;

use anyhow::{ensure, Context, Result};

use super::rvsadm::{Terminal, Tool};
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_terminal",
    "rvsadm prints in colour on a terminal, unless NO_COLOR is set, and nowhere else",
    &[],
    run,
)
.with_rvsadm();

const STATE: &str = "/run/colours.yaml";

/// What prints in colour, with the exit code that it has here.
const COLOURED: [(&str, i32); 7] = [
    ("service list", 0),
    ("stats", 0),
    ("conns", 0),
    ("apply -f /run/colours.yaml --dry-run", 0),
    ("check", 1),
    ("check -f /run/colours.yaml", 1),
    ("realserver check --dr 192.0.2.1", 1),
];

/// What never does: ipvsadm's lists, what is for programs, and errors.
const PLAIN: [(&str, i32); 6] = [
    ("-Ln", 0),
    ("-Sn", 0),
    ("--json service list", 0),
    ("--json check", 1),
    ("service add tcp 192.0.2.1", 2),
    ("save", 0),
];

fn run(cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let tool = Tool::new(cx, &topo.director)?;
    let (vip, real) = (at(Family::V4.vip(), 80), at(Family::V4.rs(1), 8080));
    let _server = Server::tcp(&topo.rs[0], real, "rs1")?;
    tool.ok(&format!("service add tcp {vip} -s rr"))?;
    tool.ok(&format!("real add tcp {vip} {real}"))?;
    let _open = serve::connect(&topo.client, vip)?;
    tool.ok(&format!("real set tcp {vip} {real} --weight 0"))?;
    fs::write(STATE, "services: [{service: tcp 192.0.2.7:80}]\n")?;
    let mut coloured = COLOURED.to_vec();
    if cx.peer == Peer::Rvs {
        tool.ok(&format!("pool add tcp {vip} 10.77.0.1"))?;
        coloured.push(("pool list", 0));
    }

    // In a pipe: none, whatever is asked for.
    for (line, code) in coloured.iter().chain(&PLAIN) {
        let out = tool.run(line, "")?;
        ensure!(
            out.code == Some(*code) && !out.stdout.contains('\x1b') && !out.stderr.contains('\x1b'),
            "`{line}`: {out:?}"
        );
    }
    for (name, before, wanted) in [
        ("colour", "", true),
        // Set to nothing, it isn't.
        ("empty", "NO_COLOR= ", true),
        ("no_color", "NO_COLOR=1 ", false),
        ("dumb", "TERM=dumb ", false),
    ] {
        terminal(&tool, (name, before), &coloured, wanted).with_context(|| name.to_owned())?;
        terminal(&tool, (name, before), &PLAIN, false).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// Runs each in one terminal after the other, and looks at the colours of its part of the screen.
fn terminal(
    tool: &Tool<'_>,
    (name, before): (&str, &str),
    lines: &[(&str, i32)],
    wanted: bool,
) -> Result<()> {
    let mut script = String::new();
    for (number, (line, _)) in lines.iter().enumerate() {
        script += &format!(
            "echo part {number}; {before}{} {line}; echo code $?; ",
            tool.path.display()
        );
    }
    let name = format!("terminal_{name}_{}", lines.len());
    let terminal = Terminal::new(tool.ns, &name, 150, 200, &format!("{script}true"))?;
    terminal.has("ended 0")?;
    let screen = terminal.tmux("capture-pane -p -e")?;
    for (number, (line, code)) in lines.iter().enumerate() {
        let part = screen
            .split_once(&format!("part {number}"))
            .and_then(|(_, rest)| rest.split_once("code "))
            .with_context(|| format!("no part of `{line}`:\n{screen}"))?;
        let (part, rest) = part;
        ensure!(
            rest.starts_with(&code.to_string()),
            "`{line}` has another code:\n{part}{rest}"
        );
        ensure!(
            coloured(part) == wanted,
            "`{line}`, in colour: {}\n{part:?}",
            !wanted
        );
    }
    Ok(())
}

/// Whether something is bold, red, green or yellow: what takes that back again says nothing.
fn coloured(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        let codes = rest.split('m').next().unwrap_or_default();
        codes
            .split(';')
            .any(|code| matches!(code, "1" | "31" | "32" | "33"))
    })
}
