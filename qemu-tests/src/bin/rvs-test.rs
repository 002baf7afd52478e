// SPDX-License-Identifier: GPL-2.0-or-later

//! Boots guests and runs scenarios in them.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure, Context, Result};
use clap::{Args, Parser, Subcommand};
use libtest_mimic::{Arguments, Trial};
use nix::sched::{sched_getaffinity, CpuSet};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

use qemu_tests::guest::{answer, InGuest, ASKS, BEGINS, LEAKS, VERDICT};
use qemu_tests::klog::is_trouble;
use qemu_tests::scenario::{Guest, Peer, Scenario};
use qemu_tests::scenarios;

#[derive(Parser)]
#[command(about = "Boots guests and runs scenarios in them")]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Runs scenarios; all of them unless some are named.
    Run(Run),
    /// Lists the scenarios.
    List,
    /// Lists which scenarios prove which item of the checklist.
    Items,
    /// What runs in the guest.
    #[command(subcommand, hide = true)]
    InGuest(InGuest),
}

#[derive(Args)]
struct Run {
    /// uml, qemu, lockdep, kasan or virtme.
    #[arg(long, default_value = "uml")]
    guest: Guest,
    /// rvs, or c for the kernel's own module.
    #[arg(long, default_value = "rvs")]
    peer: Peer,
    /// A scenario's name; can be repeated.
    #[arg(long = "scenario", value_name = "NAME")]
    scenarios: Vec<String>,
    /// Guests at the same time [default: as many as cores and memory allow].
    #[arg(long)]
    jobs: Option<usize>,
    /// Scenarios per boot.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    chunk: usize,
    /// Processors of each guest [default: 2; 1 on lockdep and kasan].
    #[arg(long)]
    cpus: Option<usize>,
    /// How many scenarios may fail and pass at a second attempt, which is reported. Never those whose guest had a report of the
    /// kernel or died.
    #[arg(long, value_name = "N", default_value_t = 0)]
    again: usize,
    /// Of everything random; printed with each failure.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The module under test [default: what `scripts/lab module GUEST` makes].
    #[arg(long)]
    module: Option<PathBuf>,
    /// Print the console of each guest as it comes.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Sub::Run(run) => run.start(),
        Sub::List => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        Sub::Items => {
            items();
            Ok(ExitCode::SUCCESS)
        }
        Sub::InGuest(half) => Ok(half.start()),
    };
    result.unwrap_or_else(|e| {
        eprintln!("rvs-test: {e:#}");
        ExitCode::from(2)
    })
}

fn list() {
    for s in scenarios::ALL {
        let peer = s.only_peer.map_or(String::new(), |(peer, why)| {
            format!(" [{peer} only: {why}]")
        });
        let guests = s
            .only_guests
            .map_or(String::new(), |(_, why)| format!(" [{why}]"));
        println!("{:24} {}{peer}{guests}", s.name, s.doc);
    }
}

/// One line an item: its number, a tab, and the scenarios that prove it for rvs; `(part)` where not
/// all of it.
fn items() {
    for item in 1..=146u16 {
        let names: Vec<String> = scenarios::ALL
            .iter()
            .filter(|s| s.only_peer.is_none_or(|(peer, _)| peer == Peer::Rvs))
            .filter_map(|s| {
                if s.items.contains(&item) {
                    Some(s.name.to_owned())
                } else {
                    s.partly
                        .contains(&item)
                        .then(|| format!("{}(part)", s.name))
                }
            })
            .collect();
        println!("{item}\t{}", names.join(" "));
    }
}

/// What became of a scenario.
#[derive(Debug, Clone)]
enum Outcome {
    Passed,
    Failed(String),
}

/// Outcomes as they come in.
#[derive(Default)]
struct Board {
    outcomes: Mutex<HashMap<&'static str, Outcome>>,
    news: Condvar,
}

impl Board {
    fn post(&self, name: &'static str, outcome: Outcome) {
        self.outcomes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, outcome);
        self.news.notify_all();
    }

    fn wait(&self, name: &str) -> Outcome {
        let guard = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        let guard = self
            .news
            .wait_while(guard, |o| !o.contains_key(name))
            .unwrap_or_else(PoisonError::into_inner);
        guard[name].clone()
    }
}

/// What the guests are given to run, where a scenario of the run wants it.
struct Built {
    module: Option<PathBuf>,
    rvsadm: Option<PathBuf>,
    examples: Option<PathBuf>,
    rvs_toa: Option<PathBuf>,
}

/// All that the threads which boot guests share.
struct Hall {
    top: PathBuf,
    guest: Guest,
    peer: Peer,
    seed: u64,
    cpus: usize,
    /// Nanoseconds since 1970: process numbers are not unique where each run has its own PID
    /// namespace.
    started: u128,
    guest_bin: PathBuf,
    built: Built,
    verbose: bool,
    /// Scenarios per boot, at most.
    chunk: usize,
    queue: Mutex<VecDeque<&'static Scenario>>,
    board: Board,
    /// How many may fail once.
    again: usize,
    /// Those that did, with the message of that.
    once: Mutex<Vec<(&'static str, String)>>,
}

/// The checkout: the folder above that has `scripts/lab`.
fn top() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    here.ancestors()
        .find(|d| d.join("scripts/lab").exists())
        .map(Path::to_owned)
        .context("no scripts/lab here or above; run this inside the checkout")
}

fn memory_mib(guest: Guest) -> usize {
    match guest {
        Guest::Uml => 768,
        Guest::Lockdep | Guest::Qemu | Guest::Virtme => 1024,
        Guest::Kasan => 2048,
    }
}

fn default_jobs(guest: Guest) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|t| {
            t.lines().find_map(|l| {
                l.strip_prefix("MemAvailable:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .trim()
                    .parse()
                    .ok()
            })
        })
        .unwrap_or(4 << 20);
    let by_memory = available / 1024 / memory_mib(guest);
    // Scenarios wait for much, longest where deadlines are stretched: more guests than processors keep those busy.
    let guests = match guest {
        Guest::Qemu | Guest::Virtme => cores,
        Guest::Uml => cores.saturating_mul(2),
        Guest::Lockdep | Guest::Kasan => cores.saturating_mul(3),
    };
    guests.min(by_memory).max(1)
}

impl Run {
    fn start(self) -> Result<ExitCode> {
        let top = top()?;
        let mut chosen: Vec<&'static Scenario> = Vec::new();
        for name in &self.scenarios {
            chosen.push(
                scenarios::find(name)
                    .with_context(|| format!("no scenario {name}; `rvs-test list`"))?,
            );
        }
        if chosen.is_empty() {
            chosen.extend(scenarios::ALL);
        }
        // The guest sees this program at the same path and runs it too.
        let guest_bin = std::env::current_exe()?;
        let (run, skipped): (Vec<_>, Vec<_>) = chosen
            .iter()
            .copied()
            .partition(|s| s.skip(self.peer, self.guest).is_none());
        let built = self.build(&top, &run)?;
        let jobs = self.jobs.unwrap_or_else(|| default_jobs(self.guest)).max(1);
        // Those that may take longest first, so that no guest is left alone with one of them at the end.
        let mut queue = run.clone();
        queue.sort_by(|a, b| b.timeout.total_cmp(&a.timeout));
        let hall = Arc::new(Hall {
            top,
            guest: self.guest,
            peer: self.peer,
            seed: self.seed,
            cpus: self.cpus.unwrap_or(match self.guest {
                Guest::Lockdep | Guest::Kasan => 1,
                Guest::Uml | Guest::Qemu | Guest::Virtme => 2,
            }),
            started: SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos(),
            guest_bin,
            built,
            verbose: self.verbose,
            chunk: self.chunk.max(1),
            queue: Mutex::new(queue.into()),
            board: Board::default(),
            again: self.again,
            once: Mutex::default(),
        });
        for s in &run {
            let folder = hall.folder(s.name);
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("removing {}", folder.display()))?;
            }
        }
        let workers: Vec<_> = (0..jobs)
            .map(|n| {
                let hall = hall.clone();
                std::thread::spawn(move || hall.work(n))
            })
            .collect();

        let mut trials = Vec::new();
        for s in chosen {
            if skipped.iter().any(|t| t.name == s.name) {
                let why = s.skip(hall.peer, hall.guest).unwrap_or_default();
                trials.push(
                    Trial::test(s.name, || Ok(()))
                        .with_kind(why)
                        .with_ignored_flag(true),
                );
                continue;
            }
            let hall = hall.clone();
            trials.push(Trial::test(s.name, move || match hall.board.wait(s.name) {
                Outcome::Passed => Ok(()),
                Outcome::Failed(why) => Err(why.into()),
            }));
        }
        // Each waits for its scenario in a thread of its own, so that they are shown in the order in which they end.
        let args = Arguments {
            test_threads: Some(trials.len().max(1)),
            ..Arguments::default()
        };
        let conclusion = libtest_mimic::run(&args, trials);
        for worker in workers {
            if worker.join().is_err() {
                bail!("a thread of the runner failed");
            }
        }
        let once = hall.once.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, why) in once.iter() {
            if matches!(hall.board.wait(name), Outcome::Passed) {
                println!("---- {name} passed at the second attempt only; the first: {why}\n");
            }
        }
        Ok(conclusion.exit_code())
    }

    /// Has everything built that `run` wants, the module beside the programs: the linkers leave a processor idle for long.
    fn build(&self, top: &Path, run: &[&Scenario]) -> Result<Built> {
        let printed = |wanted: bool, script: &str, args: &[&str]| -> Result<Option<PathBuf>> {
            wanted.then(|| printed_path(top, script, args)).transpose()
        };
        std::thread::scope(|s| {
            let module = s.spawn(|| match (&self.module, self.peer) {
                (_, Peer::C) => Ok(None),
                (Some(path), _) => fs::canonicalize(path)
                    .map(Some)
                    .with_context(|| path.display().to_string()),
                (None, Peer::Rvs) => {
                    printed(true, "scripts/lab", &["module", &self.guest.to_string()])
                }
            });
            let rvsadm = run.iter().any(|s| s.rvsadm);
            let examples = run.iter().any(|s| s.examples);
            let rvs_toa = run.iter().any(|s| s.rvs_toa);
            let rvsadm = printed(rvsadm, "scripts/build-rvsadm", &[]);
            let examples = printed(examples, "scripts/build-examples", &[]);
            let rvs_toa = printed(rvs_toa, "scripts/build-rvs-toa", &[]);
            let module = module
                .join()
                .unwrap_or_else(|_| bail!("a thread of the runner failed"));
            Ok(Built {
                module: module?,
                rvsadm: rvsadm?,
                examples: examples?,
                rvs_toa: rvs_toa?,
            })
        })
    }
}

/// Has something built by a script; its path is the last line that the script prints.
fn printed_path(top: &Path, script: &str, args: &[&str]) -> Result<PathBuf> {
    let out = Command::new(top.join(script))
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting {script}"))?;
    ensure!(out.status.success(), "{script} {} failed", args.join(" "));
    let text = String::from_utf8_lossy(&out.stdout);
    let path = text
        .lines()
        .last()
        .with_context(|| format!("{script} printed no path"))?;
    let path = top.join(path.trim());
    fs::canonicalize(&path).with_context(|| path.display().to_string())
}

/// What a scenario has shown so far.
struct Shown {
    scenario: &'static Scenario,
    /// Console lines between its begin and its end.
    said: Vec<String>,
    /// Lines of trouble after its end.
    stray: Vec<String>,
    verdict: Option<bool>,
}

impl Shown {
    /// Why it failed, if so; `ended` is what became of the guest.
    fn why(&self, ended: &str) -> Option<String> {
        let trouble: Vec<&str> = self
            .said
            .iter()
            .filter(|l| is_trouble(l))
            .chain(&self.stray)
            .map(String::as_str)
            .collect();
        match self.verdict {
            Some(true) if trouble.is_empty() => None,
            Some(true) => Some(format!("the console has trouble:\n{}", trouble.join("\n"))),
            Some(false) => Some("failed".to_owned()),
            None => Some(format!("no verdict; {ended}")),
        }
    }
}

impl Hall {
    fn folder(&self, name: &str) -> PathBuf {
        self.top
            .join("build/test")
            .join(format!("{}-{}", self.guest, self.peer))
            .join(name)
    }

    fn next(&self) -> Option<&'static Scenario> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }

    /// Boots guests until nothing is left to do.
    fn work(&self, worker: usize) {
        let mut boots = 0;
        while let Some(first) = self.next() {
            boots += 1;
            let out = self
                .top
                .join("build/test")
                .join(format!("{}-{}", self.guest, self.peer))
                .join(format!(".boot-{}-{worker}-{boots}", self.started));
            if let Err(e) = self.boot(first, &out, worker) {
                let why = format!("the guest did not run: {e:#}");
                self.board.post(first.name, Outcome::Failed(why));
            }
            // Empty or already copied to the folders of those that failed.
            let _ = fs::remove_dir_all(&out);
        }
    }

    /// What starts the lab for the guest of `worker`. A User-Mode guest with one processor stays on one of the host's: its kernel and its
    /// programs take turns, and waking one another on another processor costs more than either does.
    fn lab(&self, worker: usize) -> Command {
        let lab = self.top.join("scripts/lab");
        if self.cpus > 1 || self.guest.emulated() {
            return Command::new(lab);
        }
        let allowed: Vec<usize> = sched_getaffinity(Pid::from_raw(0)).map_or_else(
            |_| Vec::new(),
            |set| {
                (0..CpuSet::count())
                    .filter(|&n| set.is_set(n).unwrap_or(false))
                    .collect()
            },
        );
        let Some(cpu) = worker
            .checked_rem(allowed.len())
            .and_then(|n| allowed.get(n))
        else {
            return Command::new(lab);
        };
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu.to_string()]).arg(lab);
        command
    }

    /// Boots a guest and has it run `first`, then what it asks for until nothing is left.
    fn boot(&self, first: &'static Scenario, out: &Path, worker: usize) -> Result<()> {
        fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
        let slow = self.guest.slow();
        // However much there is to do: a guest that hangs is told by the scenario it hangs in.
        let total = 7200.0;
        let mut command = self.lab(worker);
        command
            .arg("boot")
            .arg(self.guest.to_string())
            .args(["--mem", &format!("{}M", memory_mib(self.guest))])
            .args(["--cpus", &self.cpus.to_string()])
            .args(["--timeout", &format!("{total:.0}")])
            .arg("--no-module")
            .arg("--out")
            .arg(out)
            .arg("--")
            .arg(&self.guest_bin)
            .args(["in-guest", "run"])
            .arg(format!("--peer={}", self.peer))
            .arg(format!("--guest={}", self.guest))
            .arg(format!("--seed={}", self.seed))
            .arg(format!("--slow={slow}"))
            .arg("--out=/out");
        if let Some(module) = &self.built.module {
            command.arg(format!("--rvs={}", module.display()));
        }
        if let Some(rvsadm) = &self.built.rvsadm {
            command.arg(format!("--rvsadm={}", rvsadm.display()));
        }
        if let Some(examples) = &self.built.examples {
            command.arg(format!("--examples={}", examples.display()));
        }
        if let Some(rvs_toa) = &self.built.rvs_toa {
            command.arg(format!("--rvs-toa={}", rvs_toa.display()));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().context("starting scripts/lab boot")?;
        let group = Pid::from_raw(child.id() as i32);

        let (sender, lines) = channel();
        let stdout = child.stdout.take().context("no stdout")?;
        let stderr = child.stderr.take().context("no stderr")?;
        for pipe in [
            Box::new(stdout) as Box<dyn std::io::Read + Send>,
            Box::new(stderr),
        ] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line)
                        .trim_end_matches('\r')
                        .to_owned();
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);

        let mut console = File::create(out.join("console.log"))?;
        let mut ended = String::new();
        // Given to the guest, which hasn't begun with it.
        let mut given = Some(first);
        let mut asked = 0;
        let mut shown = Vec::<Shown>::new();
        let mut leaks = None;
        let mut end = Instant::now() + Duration::from_secs_f64(120.0 * slow);
        loop {
            let line = match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    ended = "the guest was stopped: it hung".to_owned();
                    break;
                }
            };
            writeln!(console, "{line}")?;
            if self.verbose {
                eprintln!("{line}");
            }
            if line.contains("Kernel panic") {
                end = end.min(Instant::now() + Duration::from_secs(5));
            }
            if let Some(number) = line.strip_prefix(ASKS) {
                let number: usize = number.trim().parse()?;
                if number > 0 && number < self.chunk && given.is_none() {
                    given = self.next();
                }
                asked = number;
                answer(out, number, given)?;
                end = Instant::now() + Duration::from_secs_f64(120.0 * slow);
            } else if let Some(name) = line.strip_prefix(BEGINS) {
                if !matches!(self.guest, Guest::Kasan) {
                    for done in shown.drain(..) {
                        self.judge(&done, "", out);
                    }
                }
                let scenario = given
                    .take()
                    .filter(|s| s.name == name)
                    .with_context(|| format!("the guest began with {name}, unasked"))?;
                // The guest gives up on a scenario by itself, unless its kernel hangs.
                end = Instant::now() + Duration::from_secs_f64((scenario.timeout + 60.0) * slow);
                shown.push(Shown {
                    scenario,
                    said: Vec::new(),
                    stray: Vec::new(),
                    verdict: None,
                });
            } else if let Some(n) = line.strip_prefix(LEAKS) {
                leaks = Some(n.trim().parse::<usize>()?);
            } else if let Some(last) = shown.last_mut() {
                match line.strip_prefix(VERDICT) {
                    Some(verdict) => last.verdict = Some(verdict.starts_with("ok")),
                    None if last.verdict.is_none() => last.said.push(line),
                    None if is_trouble(&line) => last.stray.push(line),
                    None => {}
                }
            }
        }
        // The lab's own children go with it.
        let _ = killpg(
            group,
            if ended.is_empty() {
                Signal::SIGTERM
            } else {
                Signal::SIGKILL
            },
        );
        let status = child.wait()?;
        if ended.is_empty() {
            ended = format!("the guest ended ({status})");
        }

        let leaked = match (self.guest, leaks) {
            (Guest::Kasan, None) => Some(format!("no kmemleak report; {ended}")),
            (Guest::Kasan, Some(n)) if n > 0 => Some(format!(
                "kmemleak reports {n} objects after this boot's scenarios"
            )),
            _ => None,
        };
        // Where the guest died, only the one it died in is to blame: the others run again.
        let died = shown.last().is_some_and(|s| s.verdict.is_none());
        for done in &shown {
            match (&leaked, done.why(&ended)) {
                (Some(_), None) if died => self.again(done.scenario),
                (Some(leaked), None) => self.fail(done, leaked, out),
                _ => self.judge(done, &ended, out),
            }
        }
        match given {
            Some(s) if asked > 0 || died => self.again(s),
            Some(s) => {
                let why = format!("never started; {ended}");
                let none = Shown {
                    scenario: s,
                    said: Vec::new(),
                    stray: Vec::new(),
                    verdict: None,
                };
                self.fail(&none, &why, out);
            }
            None => {}
        }
        Ok(())
    }

    fn again(&self, scenario: &'static Scenario) {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(scenario);
    }

    fn judge(&self, shown: &Shown, ended: &str, out: &Path) {
        match shown.why(ended) {
            None => self.board.post(shown.scenario.name, Outcome::Passed),
            Some(why) if self.may_try_again(shown, &why, out) => self.again(shown.scenario),
            Some(why) => self.fail(shown, &why, out),
        }
    }

    /// Whether a failure is the scenario's first, the kernel had nothing to say, and not too many have failed.
    fn may_try_again(&self, shown: &Shown, why: &str, out: &Path) -> bool {
        let name = shown.scenario.name;
        let mut once = self.once.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.verdict != Some(false)
            || shown.said.iter().chain(&shown.stray).any(|l| is_trouble(l))
            || once.len() >= self.again
            || once.iter().any(|(n, _)| *n == name)
        {
            return false;
        }
        once.push((name, self.keep(name, why, &shown.said, out)));
        true
    }

    fn fail(&self, shown: &Shown, why: &str, out: &Path) {
        let name = shown.scenario.name;
        let outcome = Outcome::Failed(self.keep(name, why, &shown.said, out));
        self.board.post(name, outcome);
    }

    /// Keeps the artefacts of a failed scenario; returns the message to show.
    fn keep(&self, name: &str, why: &str, said: &[String], out: &Path) -> String {
        let folder = self.folder(name);
        let keep = || -> Result<()> {
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("scenario.log"), said.join("\n"))?;
            fs::copy(out.join("console.log"), folder.join("console.log"))?;
            for entry in fs::read_dir(out)?.flatten() {
                let file = entry.file_name();
                let file = file.to_string_lossy();
                if let Some(rest) = file.strip_prefix(&format!("{name}.")) {
                    let rest = if rest == "kmsg" { "kernel.log" } else { rest };
                    fs::copy(entry.path(), folder.join(rest))?;
                }
            }
            Ok(())
        };
        let kept = match keep() {
            Ok(()) => format!(
                "artefacts: {}",
                folder.strip_prefix(&self.top).unwrap_or(&folder).display()
            ),
            Err(e) => format!("the artefacts could not be kept: {e:#}"),
        };
        let tail = &said[said.len().saturating_sub(60)..];
        format!("{why}\n{}\nseed {}; {kept}", tail.join("\n"), self.seed)
    }
}
