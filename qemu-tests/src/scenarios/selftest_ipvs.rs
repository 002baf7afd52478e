// SPDX-License-Identifier: GPL-2.0-or-later

//! The kernel's own test of IPVS, tools/testing/selftests/net/netfilter/ipvs.sh, as it lies in the kernel's source: direct
//! routing, NAT and a tunnel from end to end.
//!
//! Proves checklist item 146.

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
.timeout(60.0);

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
    // Its own deadlines, two seconds for a connection, are a native machine's: a slow one may need another try.
    let tries = if slow() > 1.0 { 4 } else { 2 };
    for n in 1..=tries {
        if passes(&script)? {
            println!("passed at try {n} of {tries}");
            return Ok(());
        }
    }
    bail!("{} failed {tries} times", script.display())
}

fn passes(script: &Path) -> Result<bool> {
    let folder = script.parent().context("a script without a folder")?;
    let name = script.file_name().context("a script without a name")?;
    let out = Command::new("bash")
        .arg(name)
        .current_dir(folder)
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
