// SPDX-License-Identifier: GPL-2.0-or-later

//! rvsadm where no module is loaded and none can be: it says which `modprobe` would help, whatever was asked for. And where the module is
//! there, but not that of a scheduler or persistence engine.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use nix::mount::{mount, MsFlags};

use super::rvsadm::Tool;
use crate::modules;
use crate::ns::Ns;
use crate::scenario::{Cx, Peer, Scenario};

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
    if cx.peer == Peer::C {
        cx.modules.load()?;
        modules::unload(&["ip_vs_fo", "ip_vs_pe_sip"])?;
    }
    fs::write(HELPER, "/bin/false\n")?;
    let engines = match cx.peer {
        Peer::C => engines(cx),
        // rvs has all in one module.
        Peer::Rvs => Ok(()),
    };
    if cx.peer == Peer::C {
        cx.modules.unload()?;
    }
    let asked = engines.and_then(|()| asked(cx));
    fs::write(HELPER, helper)?;
    asked
}

/// Schedulers are modules of C ip_vs, which the kernel loads when they are asked for, if it can.
fn engines(cx: &Cx) -> Result<()> {
    let ns = Ns::new("engines")?;
    let tool = Tool::new(cx, &ns)?;
    let rr = "service add udp 192.0.2.1:53 -s rr";
    tool.ok(rr)?;
    for (line, code, words) in [
        (
            "service add tcp 192.0.2.1:80 --scheduler fo",
            1,
            ["scheduler fo", "modprobe ip_vs_fo"],
        ),
        (
            "service edit udp 192.0.2.1:53 --scheduler fo",
            1,
            ["scheduler fo", "modprobe ip_vs_fo"],
        ),
        (
            "service add udp 192.0.2.1:5060 -s rr --pe sip --persistent 60",
            1,
            ["sip", "modprobe ip_vs_pe_sip"],
        ),
        (
            "-A -t 192.0.2.1:80 -s fo",
            255,
            [
                "Scheduler or persistence engine not found: tcp 192.0.2.1:80",
                "modprobe ip_vs_fo",
            ],
        ),
        (
            "apply -f /run/fo.yaml",
            1,
            ["adding service tcp 192.0.2.1:80", "modprobe ip_vs_fo"],
        ),
    ] {
        fs::write(
            "/run/fo.yaml",
            "services: [{service: udp 192.0.2.1:53, scheduler: rr}, {service: tcp 192.0.2.1:80, scheduler: fo}]\n",
        )?;
        let out = tool.run(line, "")?;
        ensure!(
            out.code == Some(code) && words.iter().all(|word| out.stderr.contains(word)),
            "`{line}`, expected {code} and {words:?}: {out:?}"
        );
    }
    ensure!(tool.ok("service list")? == "udp 192.0.2.1:53 rr\n");
    Ok(())
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
