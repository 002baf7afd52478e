// SPDX-License-Identifier: GPL-2.0-or-later

//! The half of `rvs-test` that runs inside a guest, as root, started by `scripts/lab boot`.
//!
//! It speaks to the other half over the console. `RVS-NEXT number` asks for a scenario, whose name the other half then writes
//! into a file in the folder that both see. `RVS-BEGIN name` follows, then whatever the scenario prints, then exactly one
//! `RVS-VERDICT ok|FAIL seconds name`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::{Args, Subcommand};
use nix::mount::{mount, MsFlags};
use nix::sched::{unshare, CloneFlags};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

use crate::ext;
use crate::genl::{Attrs, Genl};
use crate::ipvs::Ipvs;
use crate::klog::{is_trouble, Klog};
use crate::modules::{loaded, Modules};
use crate::scenario::{Cx, Guest, Peer, Scenario};
use crate::scenarios;
use crate::wait::{pass, scaled, set_slow, slow};
use netlink_sys::protocols::NETLINK_GENERIC;

#[derive(Subcommand)]
pub enum InGuest {
    /// Runs scenarios one after the other, each with the peer freshly loaded, until no more are given.
    Run {
        #[command(flatten)]
        place: Place,
    },
    /// Sends one IPVS command here and prints the errno (used by scenarios in other user
    /// namespaces).
    Errno {
        cmd: u8,
        #[arg(long)]
        dump: bool,
    },
    /// Joins a multicast group of the family here and prints the errno.
    Join { group: String },
    /// Runs one scenario in this process (used by `run`).
    One {
        #[command(flatten)]
        place: Place,
        name: String,
    },
}

/// Where scenarios run.
#[derive(Args, Clone)]
pub struct Place {
    #[arg(long)]
    peer: Peer,
    #[arg(long)]
    guest: Guest,
    /// The module under test.
    #[arg(long)]
    rvs: Option<PathBuf>,
    /// The static rvsadm.
    #[arg(long)]
    rvsadm: Option<PathBuf>,
    /// The folder of the examples of rvs-netlink.
    #[arg(long)]
    examples: Option<PathBuf>,
    /// The static rvs-toa.
    #[arg(long)]
    rvs_toa: Option<PathBuf>,
    /// Where files for the host go.
    #[arg(long)]
    out: Option<PathBuf>,
    /// By how much deadlines are stretched.
    #[arg(long, default_value_t = 1.0)]
    slow: f64,
    /// Of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Place {
    fn modules(&self) -> Modules {
        Modules {
            peer: self.peer,
            rvs: self.rvs.clone(),
        }
    }

    fn args(&self) -> Vec<String> {
        let mut args = vec![
            format!("--peer={}", self.peer),
            format!("--guest={}", self.guest),
            format!("--seed={}", self.seed),
            format!("--slow={}", self.slow),
        ];
        if let Some(rvs) = &self.rvs {
            args.push(format!("--rvs={}", rvs.display()));
        }
        if let Some(rvsadm) = &self.rvsadm {
            args.push(format!("--rvsadm={}", rvsadm.display()));
        }
        if let Some(examples) = &self.examples {
            args.push(format!("--examples={}", examples.display()));
        }
        if let Some(rvs_toa) = &self.rvs_toa {
            args.push(format!("--rvs-toa={}", rvs_toa.display()));
        }
        args
    }
}

impl InGuest {
    pub fn start(self) -> ExitCode {
        let result = match self {
            Self::Run { place } => run(&place),
            Self::One { place, name } => one(&place, &name).map(|()| true),
            Self::Errno { cmd, dump } => errno(cmd, dump).map(|()| true),
            Self::Join { group } => join(&group).map(|()| true),
        };
        match result {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => {
                println!("Error: {e}");
                for cause in e.chain().skip(1) {
                    println!("  because: {cause}");
                }
                ExitCode::FAILURE
            }
        }
    }
}

fn errno(cmd: u8, dump: bool) -> Result<()> {
    let ipvs = Ipvs::of(Genl::open_here(NETLINK_GENERIC)?)?;
    let reply = if dump {
        ipvs.dump(cmd, &Attrs::new())?
    } else {
        ipvs.call(cmd, &Attrs::new())?
    };
    println!("{}", reply.errno);
    Ok(())
}

fn join(group: &str) -> Result<()> {
    let genl = Genl::open_here(NETLINK_GENERIC)?;
    let number = ext::group(&genl, group)?;
    let joined = ext::membership(&genl, number, true);
    let errno = joined.err().and_then(|e| e.raw_os_error()).unwrap_or(0);
    println!("{errno}");
    Ok(())
}

fn scenario(name: &str) -> Result<&'static Scenario> {
    scenarios::find(name).with_context(|| format!("no scenario {name}"))
}

/// How the lines begin that this half prints for the other.
pub const ASKS: &str = "RVS-NEXT ";
pub const BEGINS: &str = "RVS-BEGIN ";
pub const VERDICT: &str = "RVS-VERDICT ";
pub const LEAKS: &str = "RVS-LEAKS ";

/// The other half's answer to the question `number`: the scenario to run, or that there is none. `out` is its name for the
/// folder that both see.
pub fn answer(out: &Path, number: usize, scenario: Option<&Scenario>) -> Result<()> {
    let [written, file] = ["answer", "next"].map(|name| out.join(format!(".{name}-{number}")));
    let name = scenario.map_or("", |s| s.name);
    fs::write(&written, name)
        .and_then(|()| fs::rename(&written, &file))
        .with_context(|| format!("telling the guest in {}", file.display()))
}

/// Asks the other half for a scenario.
fn ask(out: &Path, number: usize) -> Result<Option<String>> {
    println!("{ASKS}{number}");
    let file = out.join(format!(".next-{number}"));
    let end = Instant::now() + scaled(60.0);
    loop {
        match fs::read_to_string(&file) {
            Ok(name) => return Ok(Some(name).filter(|n| !n.is_empty())),
            Err(e) if e.kind() == ErrorKind::NotFound && Instant::now() < end => pass(0.01),
            Err(e) => return Err(e).with_context(|| format!("no scenario in {}", file.display())),
        }
    }
}

/// All scenarios that the other half has for it; whether every one passed.
fn run(place: &Place) -> Result<bool> {
    set_slow(place.slow);
    let mut log = Klog::new()?;
    if place.guest == Guest::Uml {
        // Half of the time of loading, unloading and taking namespaces down is spent waiting for
        // grace periods. The debug guests keep to the usual ones.
        fs::write("/sys/kernel/rcu_expedited", "1").context("rcu_expedited")?;
    }
    let leaks = match place.guest {
        Guest::Kasan => Some(Kmemleak::new()?),
        _ => None,
    };
    let mut all = true;
    let out = place.out.as_deref().context("no --out")?;
    for number in 0.. {
        let Some(name) = ask(out, number)? else { break };
        let name = name.as_str();
        println!("{BEGINS}{name}");
        let begin = Instant::now();
        let mut problems = Vec::new();
        if let Err(e) = attend(place, name) {
            problems.push(format!("{e:#}"));
        }
        problems.extend(look_around(place, name, &mut log)?);
        for problem in &problems {
            println!("PROBLEM {name}: {problem}");
        }
        let verdict = if problems.is_empty() { "ok" } else { "FAIL" };
        println!(
            "{VERDICT}{verdict} {:.2} {name}",
            begin.elapsed().as_secs_f64()
        );
        all &= problems.is_empty();
    }
    if let Some(leaks) = leaks {
        all &= leaks.nothing_left()?;
    }
    Ok(all)
}

/// Loads the peer, runs one scenario in a process of its own, unloads the peer.
fn attend(place: &Place, name: &str) -> Result<()> {
    let scenario = scenario(name)?;
    let modules = place.modules();
    let begin = Instant::now();
    if !scenario.own_modules {
        modules.load().context("loading the peer")?;
    }
    let ready = begin.elapsed();
    let mut child = Command::new("/proc/self/exe")
        .args(["in-guest", "one"])
        .args(place.args())
        .arg(name)
        .env("RUST_BACKTRACE", "0")
        .process_group(0)
        .spawn()
        .context("starting the scenario's process")?;
    let outcome = wait(&mut child, scaled(scenario.timeout));
    // Whatever it left behind dies with it; its namespaces go with their last process.
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    let ran = begin.elapsed();
    let stray = match place.peer {
        Peer::Rvs => "ip_vs",
        Peer::C => "rvs",
    };
    let mixed = loaded(stray)?;
    let unloaded = modules.unload().context("unloading the peer");
    println!(
        "loaded in {:.2?}, ran {:.2?}, unloaded in {:.2?}",
        ready,
        ran - ready,
        begin.elapsed() - ran
    );
    outcome?;
    ensure!(!mixed, "{stray} is loaded as well: what was tested?");
    unloaded
}

fn wait(child: &mut Child, patience: Duration) -> Result<()> {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "the scenario failed ({status})");
            return Ok(());
        }
        if Instant::now() > end {
            for task in fs::read_dir(format!("/proc/{}/task", child.id()))?.flatten() {
                let stack = fs::read_to_string(task.path().join("stack")).unwrap_or_default();
                println!("{}:\n{stack}", task.path().display());
            }
            child.kill()?;
            child.wait()?;
            bail!(
                "the scenario took more than {:.0} s",
                patience.as_secs_f64()
            );
        }
        pass(0.005);
    }
}

/// What the kernel has to say after a scenario.
fn look_around(place: &Place, name: &str, log: &mut Klog) -> Result<Vec<String>> {
    let lines = log.read()?;
    if let Some(out) = &place.out {
        fs::write(out.join(format!("{name}.kmsg")), lines.join("\n"))
            .context("writing the kernel log")?;
    }
    let mut problems: Vec<String> = lines
        .iter()
        .filter(|l| is_trouble(l))
        .map(|l| format!("kernel log: {l}"))
        .collect();
    if place.guest == Guest::Lockdep {
        let stats = fs::read_to_string("/proc/lockdep_stats").context("lockdep is not there")?;
        let on = stats
            .lines()
            .any(|l| l.split(':').map(str::trim).eq(["debug_locks", "1"]));
        if !on {
            problems.push("lockdep has switched itself off (debug_locks is not 1)".to_owned());
        }
    }
    Ok(problems)
}

/// The kernel's memory that nothing points to any more, as kmemleak sees it.
///
/// kmemleak does not look into `.lbss`, where clang puts the User-Mode kernel's large static variables, so some of
/// what the kernel allocates for itself looks lost: most of that at boot, [`KERNELS_OWN`] later. It shows up
/// at any scan. Objects from before the scenarios are therefore told by their age.
struct Kmemleak {
    file: &'static Path,
    /// In jiffies, the unit of the report.
    since: u64,
}

/// Functions that keep what they allocate in a variable of `.lbss`: TCP's memory of addresses, in a namespace that is still ending;
/// and the netlink sockets' table, which grows with their number.
const KERNELS_OWN: &[&str] = &[
    "tcp_get_metrics",
    "pcpu_create_chunk",
    "pcpu_populate_chunk",
    "rhashtable_rehash_alloc",
];

impl Kmemleak {
    fn new() -> Result<Self> {
        let file = Path::new("/sys/kernel/debug/kmemleak");
        if !file.exists() {
            mount(
                Some("debugfs"),
                "/sys/kernel/debug",
                Some("debugfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .context("mounting debugfs")?;
        }
        let timers = fs::read_to_string("/proc/timer_list").context("/proc/timer_list")?;
        let since = timers
            .lines()
            .find_map(|l| l.strip_prefix("jiffies: ")?.trim().parse().ok())
            .context("/proc/timer_list has no jiffies")?;
        Ok(Self { file, since })
    }

    /// Whether no scenario left anything behind; prints what was left.
    fn nothing_left(&self) -> Result<bool> {
        let begin = Instant::now();
        // It reports what two scans didn't find and what is older than five seconds.
        pass(5.5);
        for _ in 0..2 {
            fs::write(self.file, "scan").context("kmemleak scan")?;
        }
        let report = fs::read_to_string(self.file).context("reading kmemleak")?;
        println!("kmemleak scans: {:.1?}", begin.elapsed());
        let mut objects = Vec::<String>::new();
        for line in report.lines() {
            match objects.last_mut() {
                Some(object) if !line.starts_with("unreferenced object") => {
                    object.push_str(line);
                    object.push('\n');
                }
                _ => objects.push(format!("{line}\n")),
            }
        }
        let since = |object: &str| -> Option<u64> {
            let (_, tail) = object.split_once("jiffies ")?;
            tail.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        };
        // Modules that the kernel loads when somebody first needs them stay; rvs is loaded by insmod.
        let others_module = |o: &str| o.contains("comm \"modprobe\"") && o.contains("load_module");
        objects.retain(|o| {
            since(o).is_none_or(|s| s >= self.since)
                && !KERNELS_OWN.iter().any(|f| o.contains(f))
                && !others_module(o)
        });
        print!("{}", objects.concat());
        println!("{LEAKS}{}", objects.len());
        Ok(objects.is_empty())
    }
}

/// One scenario, here.
fn one(place: &Place, name: &str) -> Result<()> {
    set_slow(place.slow);
    let scenario = scenario(name)?;
    // What tools keep under /run must not outlive the scenario, nor meet another guest on the same
    // file system.
    unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )?;
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("tmpfs on /run")?;
    let cx = Cx {
        peer: place.peer,
        guest: place.guest,
        modules: place.modules(),
        seed: place.seed,
        rvsadm: place.rvsadm.clone(),
        examples: place.examples.clone(),
        rvs_toa: place.rvs_toa.clone(),
    };
    println!(
        "{} (peer {}, guest {}, slow {})",
        scenario.doc,
        cx.peer,
        cx.guest,
        slow()
    );
    (scenario.run)(&cx)
}
