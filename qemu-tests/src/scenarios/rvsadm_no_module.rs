// SPDX-License-Identifier: GPL-2.0-or-later

//! rvsadm where no module is loaded and none can be: it says which `modprobe` would help, whatever was asked for.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use nix::mount::{mount, MsFlags};

use super::rvsadm::Tool;
use crate::ns::Ns;
use crate::scenario::{Cx, Scenario};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_no_module",
    "without a module, rvsadm says which modprobe to run",
    &[],
    run,
)
.own_modules()
.with_rvsadm();

const HELPER: &str = "/proc/sys/kernel/modprobe";

fn run(cx: &Cx) -> Result<()> {
    // Neither the kernel nor a program loads one.
    let helper = fs::read_to_string(HELPER)?;
    fs::write(HELPER, "/bin/false\n")?;
    let asked = asked(cx);
    fs::write(HELPER, helper)?;
    asked
}

fn asked(cx: &Cx) -> Result<()> {
    let modprobe = fs::canonicalize("/sbin/modprobe")?;
    // A link to kmod in Debian: what it is called by is what counts, so the folder's entry is covered.
    fs::create_dir_all("/run/sbin")?;
    fs::copy("/bin/false", "/run/sbin/false")?;
    mount(
        Some(Path::new("/run/sbin/false")),
        &modprobe,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .context("hiding modprobe")?;
    let ns = Ns::new("empty")?;
    let tool = Tool::new(cx, &ns)?;
    let advice = ["modprobe rvs", "modprobe ip_vs"];
    for line in [
        "service list",
        "service add tcp 192.0.2.1:80",
        "stats",
        "conns",
        "conns --count",
        "events",
        "save",
        "check",
        "--json service list",
        "--json watch",
        "apply -f /run/state",
    ] {
        fs::write("/run/state", "services: []\n")?;
        tool.fails(line, 1, &advice)
            .with_context(|| line.to_owned())?;
    }
    // ipvsadm's exit code.
    for line in ["-Ln", "-A -t 192.0.2.1:80", "-Lc"] {
        tool.fails(line, 2, &advice)?;
    }
    // What needs no kernel.
    for line in [
        "--version",
        "--help",
        "-h",
        "check -f /run/state",
        "generate completions bash",
    ] {
        let out = tool.run(line, "")?;
        ensure!(out.code == Some(0), "{line}: {out:?}");
    }
    Ok(())
}
