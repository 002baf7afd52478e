// SPDX-License-Identifier: GPL-2.0-or-later

//! The kernel's own test of IPVS, tools/testing/selftests/net/netfilter/ipvs.sh, as it lies in the kernel's source: direct
//! routing, NAT and a tunnel from end to end.
//!
//! Proves checklist item 146.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::modules;
use crate::scenario::{Cx, Scenario};
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "selftest_ipvs",
    "the kernel's own ipvs.sh passes",
    &[146],
    run,
)
.timeout(120.0);

/// How often it may be tried.
const TRIES: usize = 2;

const TEST: &str = "tools/testing/selftests/net/netfilter/ipvs.sh";

/// The test in the lab's source of the kernel, the newest if there are several.
fn script() -> Result<PathBuf> {
    let cache = std::env::var("LAB_CACHE").context("LAB_CACHE is not set")?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&cache).with_context(|| cache.clone())? {
        let entry = entry?;
        let test = entry.path().join(TEST);
        if entry.file_name().to_string_lossy().starts_with("source-") && test.exists() {
            found.push((entry.metadata()?.modified()?, test));
        }
    }
    found.sort();
    let (_, test) = found
        .pop()
        .with_context(|| format!("no {TEST} in {cache}"))?;
    Ok(test)
}

fn run(_cx: &Cx) -> Result<()> {
    let script = script()?;
    // It says itself that it wants the drivers to be there.
    for name in ["veth", "bridge", "ipip"] {
        modules::run("modprobe", &[name])?;
    }
    let tools = slow_tools()?;
    // Nobody is surprised if a machine that has more to do needs another try.
    for n in 1..=TRIES {
        if passes(&script, tools)? {
            println!("passed at try {n} of {TRIES}");
            return Ok(());
        }
    }
    bail!("{} failed {TRIES} times", script.display())
}

/// The test's own times, 0.2 seconds for a server to start and two for a connection, are a native machine's. On a slow one what it
/// calls to measure them has as many times as long: a folder with `sleep` and `timeout`.
fn slow_tools() -> Result<&'static Path> {
    let folder = Path::new("/run/slow-tools");
    std::fs::create_dir_all(folder).context("a folder for tools")?;
    let times = slow().ceil() as usize;
    // GNU's sleeps for the sum of its arguments.
    let sleep = " \"$1\"".repeat(times);
    for (name, script) in [
        ("sleep", format!("exec /usr/bin/sleep{sleep}")),
        (
            "timeout",
            format!("n=$(($1 * {times}))\nshift\nexec /usr/bin/timeout \"$n\" \"$@\""),
        ),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n"))
            .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .with_context(|| format!("making {}", path.display()))?;
    }
    Ok(folder)
}

fn passes(script: &Path, tools: &Path) -> Result<bool> {
    let folder = script.parent().context("a script without a folder")?;
    let name = script.file_name().context("a script without a name")?;
    let path = std::env::var("PATH").context("no PATH")?;
    let out = Command::new("bash")
        .arg(name)
        .current_dir(folder)
        .env("PATH", format!("{}:{path}", tools.display()))
        .output()
        .with_context(|| format!("starting {}", script.display()))?;
    let text = String::from_utf8_lossy(&out.stdout);
    print!("{text}{}", String::from_utf8_lossy(&out.stderr));
    ensure!(
        out.status.code() != Some(4),
        "the test was skipped: something that it needs is not there"
    );
    // Its exit status is that of the last step; it must have got that far.
    Ok(out.status.success() && text.contains("PASS"))
}
