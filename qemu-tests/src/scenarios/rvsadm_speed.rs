// SPDX-License-Identifier: GPL-2.0-or-later

//! What rvsadm promises in numbers: its size, how long a restore of 10,000 services of 10 real servers takes beside `ipvsadm -R` on
//! the same module, and that a long list of connections streams. How soon it starts, a host test says (rvsadm/tests/start.rs): a page fault
//! takes ten times as long in this guest as on a machine.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use super::rvsadm::{Terminal, Tool};
use crate::ns::Ns;
use crate::pkt::Pkt;
use crate::rig::Rig;
use crate::scenario::{Cx, Guest, Scenario};
use crate::topo::at;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_speed",
    "rvsadm is small, restores faster than ipvsadm and streams long lists",
    &[],
    run,
)
.only_guests(
    &[Guest::Uml],
    "time is measured where the processor runs natively, without checks",
)
.with_rvsadm()
.timeout(240.0);

const LARGEST: u64 = 5_000_000;
const SERVICES: u32 = 10_000;
const REALS: u32 = 10;

fn run(cx: &Cx) -> Result<()> {
    let ns = Ns::new("speed")?;
    let tool = Tool::new(cx, &ns)?;
    let size = fs::metadata(tool.path)?.len();
    println!("size: {size} bytes");
    ensure!(size < LARGEST, "rvsadm has {size} bytes");
    progress(&ns, &tool).context("progress")?;
    restore(&tool).context("restore")?;
    stream(cx).context("a list of connections")
}

fn rules() -> String {
    let mut text = String::new();
    for n in 0..SERVICES {
        let vip = Ipv4Addr::from(0x0a40_0000 + n);
        // Writing to a string doesn't fail.
        let _ = writeln!(text, "-A -t {vip}:80 -s rr");
        for r in 0..REALS {
            let real = Ipv4Addr::from(0x0a80_0000 + n * REALS + r);
            let _ = writeln!(text, "-a -t {vip}:80 -r {real}:8080 -m -w 1");
        }
    }
    text
}

/// Long work on a terminal shows how far it is, and nothing of that at the end. Here it takes long because its input does.
fn progress(ns: &Ns, tool: &Tool<'_>) -> Result<()> {
    fs::write(RULES, rules())?;
    let line = format!(
        "(head -n 2000 {RULES}; sleep 1; sed -n 2001,4000p {RULES}; sleep 3) | {} -R",
        tool.path.display()
    );
    let terminal = Terminal::new(ns, "progress", 100, 10, &line)?;
    terminal.has("rules restored")?;
    terminal.shows("the end", |screen| {
        screen.contains("ended 0") && !screen.contains("rules restored")
    })?;
    drop(terminal);
    tool.feed("apply -f -", "services: []\n").map(drop)
}

const RULES: &str = "/run/rules";

fn restore(tool: &Tool<'_>) -> Result<()> {
    let run = |program: &Path| -> Result<Duration> {
        let ns = Ns::new("restore")?;
        let took = ns.run(|| -> Result<Duration> {
            let begin = Instant::now();
            let status = Command::new(program)
                .arg("-R")
                .stdin(fs::File::open(RULES)?)
                .status()?;
            ensure!(status.success(), "{}: {status}", program.display());
            Ok(begin.elapsed())
        })?;
        let tool = Tool {
            path: tool.path,
            ns: &ns,
        };
        let rows = tool.ok("-Sn")?.lines().count();
        ensure!(rows == (SERVICES * (REALS + 1)) as usize, "{rows} rows");
        Ok(took)
    };
    // By turns, the best of each, more often if need be: the machine has other things to do as well.
    let (mut theirs, mut ours) = (Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        theirs = theirs.min(run(Path::new("ipvsadm"))?);
        ours = ours.min(run(tool.path)?);
        if ours < theirs {
            break;
        }
    }
    println!("restore of {SERVICES} services of {REALS} real servers: ipvsadm {theirs:.2?}, rvsadm {ours:.2?}");
    ensure!(ours < theirs, "ipvsadm took {theirs:?}, rvsadm {ours:?}");
    Ok(())
}

/// The program's largest size so far in memory, in KiB.
fn peak(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().split(' ').next()?.parse().ok())
        .context("no VmHWM")
}

/// Lists connections: the first line comes at once, and memory doesn't grow with the list.
fn stream(cx: &Cx) -> Result<()> {
    const CONNS: u32 = 100_000;
    let rig = Rig::new()?;
    let vip = at(IpAddr::V4(Ipv4Addr::new(10, 0, 100, 1)), 53);
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r 10.8.1.1:53 -m"))?;
    let begin = Instant::now();
    for n in 0..CONNS {
        let [_, _, high, low] = (n / 60_000).to_be_bytes();
        let client = at(
            IpAddr::V4(Ipv4Addr::new(10, 9, high, low)),
            2000 + (n % 60_000) as u16,
        );
        rig.ctap.send(&Pkt::udp(client, vip, b"x"))?;
    }
    println!("{CONNS} packets sent in {:.2?}", begin.elapsed());
    let tool = Tool::new(cx, &rig.topo.director)?;
    for args in [&["conns"][..], &["--json", "conns"], &["-Lcn"]] {
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
            let mut count = 1usize;
            let mut late = early;
            line.clear();
            while rows.read_line(&mut line)? > 0 {
                line.clear();
                count += 1;
                if count % 10_000 == 0 {
                    late = peak(child.id()).unwrap_or(late);
                }
            }
            ensure!(child.wait()?.success());
            println!(
                "{args:?}: first row after {first:.2?}, {count} rows in {:.2?}, {early} and {late} KiB",
                begin.elapsed()
            );
            ensure!(count >= CONNS as usize, "{args:?}: {count} rows");
            ensure!(first < Duration::from_millis(200), "{args:?}: the first row came after {first:?}");
            ensure!(late < early + 1024, "{args:?}: {early} KiB at first, {late} KiB later");
            Ok(())
        })?;
    }
    Ok(())
}
