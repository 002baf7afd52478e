// SPDX-License-Identifier: GPL-2.0-or-later

//! Long lists of connections stream: the first row comes long before the last, and rvsadm needs no more memory for many than for few.
//!
//! `RVS_CONNS=1000000 make test SCENARIO=rvsadm_stream` lists as many.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use super::rvsadm::Tool;
use super::rvsadm_speed::slowed;
use crate::modules;
use crate::pkt::Pkt;
use crate::rig::Rig;
use crate::scenario::{Cx, Guest, Peer, Scenario};
use crate::topo::at;
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_stream",
    "rvsadm lists any number of connections in little memory, from the first row on at once",
    &[],
    run,
)
.only_guests(
    &[Guest::Uml],
    "time and memory are measured where the processor runs natively, without checks",
)
.own_modules()
.with_rvsadm()
.timeout(600.0);

/// As many connections as there are, unless RVS_CONNS says otherwise.
const CONNS: u32 = 100_000;
/// The most memory that a list may take, in KiB.
const MOST: u64 = 12 * 1024;

fn run(cx: &Cx) -> Result<()> {
    let conns = match std::env::var("RVS_CONNS") {
        Ok(n) => n.parse().context("RVS_CONNS is no number")?,
        Err(_) => CONNS,
    };
    load(cx).context("loading")?;
    lists(cx, conns)?;
    // A million connections take a while to go.
    until_true("the module is unloaded", 240.0, || {
        Ok(cx.modules.unload().is_ok())
    })
}

/// The module with a table for more connections than it expects of a guest as small as this.
fn load(cx: &Cx) -> Result<()> {
    const BITS: &str = "conn_tab_bits=20";
    match (cx.peer, &cx.modules.rvs) {
        (Peer::C, _) => {
            modules::run("modprobe", &["ip_vs", BITS])?;
            cx.modules.load()
        }
        (Peer::Rvs, Some(path)) => {
            // With what it depends on, which stays.
            cx.modules.load()?;
            cx.modules.unload()?;
            modules::run("insmod", &[&path.display().to_string(), BITS]).map(drop)
        }
        (Peer::Rvs, None) => bail!("no rvs was built"),
    }
}

fn lists(cx: &Cx, conns: u32) -> Result<()> {
    let rig = Rig::new()?;
    let vip = at(IpAddr::V4(Ipv4Addr::new(10, 0, 100, 1)), 53);
    rig.ipvsadm("--set 0 0 100000")?;
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r 10.8.1.1:53 -m"))?;
    let begin = Instant::now();
    for first in (0..conns).step_by(1000) {
        let packets: Vec<Vec<u8>> = (first..conns.min(first + 1000))
            .map(|n| {
                let [_, _, high, low] = (n / 60_000).to_be_bytes();
                let client = at(
                    IpAddr::V4(Ipv4Addr::new(10, 9, high, low)),
                    2000 + (n % 60_000) as u16,
                );
                Pkt::udp(client, vip, b"x").bytes()
            })
            .collect();
        rig.ctap.send_all(&packets)?;
    }
    println!("{conns} packets sent in {:.2?}", begin.elapsed());
    let tool = Tool::new(cx, &rig.topo.director)?;
    let count = tool.run("conns --count", "")?.stdout;
    ensure!(count.trim() == conns.to_string(), "{count} connections");
    for args in [&["conns"][..], &["--json", "conns"], &["-Lnc"]] {
        list(&tool, args, conns as usize).with_context(|| format!("{args:?}"))?;
    }
    // What takes long shows how far it is; rows into a file as well.
    for (args, what) in [
        ("conns --count", "connections looked at"),
        ("conns", "connections looked at"),
        ("-Lnc", "connections listed"),
    ] {
        // C ip_vs has no dump, which rvsadm says.
        let told = cx.peer == Peer::Rvs || args == "-Lnc";
        if told && conns <= CONNS {
            slowed(&rig.topo.director, &tool, args, what, || Ok(()))
                .with_context(|| args.to_owned())?;
        }
    }
    Ok(())
}

/// The program's largest size so far in memory, in KiB.
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok())
        .context("no VmHWM")
}

fn list(tool: &Tool<'_>, args: &[&str], conns: usize) -> Result<()> {
    tool.ns.run(|| -> Result<()> {
        let begin = Instant::now();
        let mut child = Command::new(tool.path)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut rows = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut line = String::new();
        // A heading, and the first row.
        rows.read_line(&mut line)?;
        rows.read_line(&mut line)?;
        let first = begin.elapsed();
        // The pipe is full by now and the program waits: what it has is what it needed for the first rows.
        let early = peak(child.id())?;
        let mut count = usize::from(line.contains("10.9."));
        let mut late = early;
        line.clear();
        while rows.read_line(&mut line)? > 0 {
            count += usize::from(line.contains("10.9."));
            line.clear();
            if count % 10_000 == 0 {
                late = peak(child.id()).unwrap_or(late);
            }
        }
        ensure!(child.wait()?.success());
        let all = begin.elapsed();
        println!(
            "{args:?}: first row after {first:.2?}, {count} in {all:.2?}, {early} and {late} KiB"
        );
        ensure!(count == conns, "{count} rows of {conns} connections");
        ensure!(
            first < Duration::from_millis(200) && first < all / 2,
            "the first row came after {first:?} of {all:?}"
        );
        ensure!(
            late < early + 1024 && late < MOST,
            "{early} KiB at first, {late} KiB later"
        );
        Ok(())
    })
}
