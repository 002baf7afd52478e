// SPDX-License-Identifier: GPL-2.0-or-later

//! What rvsadm promises in numbers: its size, and how long a restore of thousands of services of 10 real servers takes beside `ipvsadm -R` on
//! the same module. How soon it starts, a host test says (rvsadm/tests/start.rs): a page fault takes ten times as long in this guest as
//! on a machine. Long lists of connections: `rvsadm_stream`.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::rvsadm::{Terminal, Tool};
use crate::ns::Ns;
use crate::scenario::{Cx, Guest, Scenario};
use crate::wait::{pass, until};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_speed",
    "rvsadm is small and restores faster than ipvsadm",
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
/// `RVS_SERVICES=10000` takes minutes, most of them ipvsadm's.
const SERVICES: u32 = 2_000;
const REALS: u32 = 10;

fn run(cx: &Cx) -> Result<()> {
    let ns = Ns::new("speed")?;
    let tool = Tool::new(cx, &ns)?;
    let size = fs::metadata(tool.path)?.len();
    println!("size: {size} bytes");
    ensure!(size < LARGEST, "rvsadm has {size} bytes");
    progress(&ns, &tool).context("progress")?;
    restore(&tool).context("restore")
}

fn services() -> Result<u32> {
    match std::env::var("RVS_SERVICES") {
        Ok(n) => n.parse().context("RVS_SERVICES is no number"),
        Err(_) => Ok(SERVICES),
    }
}

fn rules(services: u32) -> String {
    let mut text = String::new();
    for n in 0..services {
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

/// Long work on a terminal shows how far it is, and nothing of that at the end. Here it takes long because its input does, or because it is
/// stopped again and again.
fn progress(ns: &Ns, tool: &Tool<'_>) -> Result<()> {
    fs::write(RULES, rules(services()?))?;
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
    tool.feed("apply -f -", "services: []\n")?;
    tool.feed("-R", &rules(SERVICES))?;
    for (args, what) in [
        ("save", "services read"),
        ("check", "services read"),
        ("-Sn", "services listed"),
    ] {
        slowed(ns, tool, args, what, || Ok(())).with_context(|| args.to_owned())?;
    }
    tool.feed("apply -f -", "services: []\n")?;
    tool.feed("-R", &rules(SERVICES / 2))?;
    fs::write("/run/saved.json", tool.run("--json save", "")?.stdout)?;
    slowed(ns, tool, "apply -f /run/saved.json", "changes made", || {
        tool.feed("apply -f -", "services: []\n").map(drop)
    })
    .context("apply")?;
    tool.feed("apply -f -", "services: []\n").map(drop)
}

/// Runs it in a terminal, with its output in a file: standard error shows how far it is, and at the end nothing. Then with
/// standard error in a file, which stays empty. `before` makes that there is something to do.
pub fn slowed(
    ns: &Ns,
    tool: &Tool<'_>,
    args: &str,
    what: &str,
    before: impl Fn() -> Result<()>,
) -> Result<()> {
    // It waits for its first slice before it begins.
    let run = |error: &str| {
        let program = tool.path.display();
        format!("sh -c 'echo $$ >{PID}; kill -STOP $$; exec {program} {args}' >/run/out {error}")
    };
    // A server of tmux that goes away takes its time: each has its own.
    let name: String = args.chars().filter(char::is_ascii_alphanumeric).collect();
    // Where the machine has other things to do, who stops the program comes too late now and then.
    let mut attempts = 0..5;
    loop {
        let n = attempts
            .next()
            .with_context(|| format!("{what:?} was not to be seen in five attempts"))?;
        before()?;
        let _ = fs::remove_file(PID);
        let terminal = Terminal::new(ns, &format!("slowed{n}_{name}"), 100, 10, &run(""))?;
        let shown = in_slices(|| {
            terminal.shows(what, |screen| {
                screen.contains(what) || screen.contains("ended ")
            })
        })?;
        let screen = terminal.shows("the end", |screen| screen.contains("ended "))?;
        ensure!(!screen.contains(what), "{screen}");
        ensure!(fs::metadata("/run/out")?.len() > 0, "there is no output");
        if shown.contains(what) {
            break;
        }
    }

    fs::remove_file(PID)?;
    let terminal = Terminal::new(ns, &format!("quiet_{name}"), 100, 10, &run("2>/run/err"))?;
    in_slices(|| {
        pass(1.0);
        Ok(())
    })?;
    terminal.has("ended ")?;
    let said = fs::read_to_string("/run/err")?;
    ensure!(said.is_empty(), "not on a terminal: {said:?}");
    Ok(())
}

/// Lets the process of `PID` run for a millisecond now and then as long as `during` takes, and then as it likes.
fn in_slices<T>(during: impl FnOnce() -> Result<T>) -> Result<T> {
    let pid = until("a process to be slowed", 10.0, || {
        let text = fs::read_to_string(PID).unwrap_or_default();
        Ok(text.trim().parse().ok().map(Pid::from_raw))
    })?;
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            // One that has ended gets no signal.
            while !over.load(Ordering::Relaxed) && kill(pid, Signal::SIGCONT).is_ok() {
                // A sleep takes two ticks of the clock at least.
                let slice = Instant::now();
                while slice.elapsed() < Duration::from_millis(1) {
                    std::hint::spin_loop();
                }
                let _ = kill(pid, Signal::SIGSTOP);
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = kill(pid, Signal::SIGCONT);
        });
        let result = during();
        over.store(true, Ordering::Relaxed);
        result
    })
}

const RULES: &str = "/run/rules";
const PID: &str = "/run/slowed.pid";

/// rvsadm restores all of them before ipvsadm has restored a tenth.
fn restore(tool: &Tool<'_>) -> Result<()> {
    let services = services()?;
    let run = |program: &Path, services: u32| -> Result<Duration> {
        fs::write(RULES, rules(services))?;
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
        ensure!(rows == (services * (REALS + 1)) as usize, "{rows} rows");
        Ok(took)
    };
    // By turns, the best of each, more often if need be: the machine has other things to do as well.
    let (mut theirs, mut ours) = (Duration::MAX, Duration::MAX);
    let some = services.div_ceil(10);
    for _ in 0..3 {
        theirs = theirs.min(run(Path::new("ipvsadm"), some)?);
        ours = ours.min(run(tool.path, services)?);
        if ours < theirs {
            break;
        }
    }
    println!("services of {REALS} real servers: ipvsadm restored {some} in {theirs:.2?}, rvsadm {services} in {ours:.2?}");
    ensure!(
        ours < theirs,
        "ipvsadm took {theirs:?} for a tenth, rvsadm {ours:?}"
    );
    Ok(())
}
