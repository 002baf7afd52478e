// SPDX-License-Identifier: GPL-2.0-or-later

//! What the `clients_*` scenarios share: programs that run in the director until they are stopped, and health
//! checkers that take a dead real server out and back in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{ensure, Context, Result};
use nix::sys::signal::{kill, killpg, Signal};
use nix::unistd::Pid;

use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::TCP;
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::{until, until_true};

/// A program in a namespace, with what it says in a file. Dropped, it dies with all its children.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `line` (split at blanks).
    pub fn start(ns: &Ns, name: &str, line: &str) -> Result<Self> {
        let log = PathBuf::from(format!("/run/{name}.log"));
        let out = std::fs::File::create(&log).context("making a log")?;
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command")?;
        let child = ns.run(|| -> Result<Child> {
            Command::new(program)
                .args(words)
                .stdin(Stdio::null())
                .stdout(out.try_clone()?)
                .stderr(out)
                .process_group(0)
                .spawn()
                .with_context(|| format!("starting `{line}`"))
        })?;
        Ok(Self { child, log })
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Asks it to end and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        kill(self.pid(), Signal::SIGTERM)?;
        let ended = until("the program ends", 10.0, || Ok(self.child.try_wait()?));
        ended.with_context(|| self.log())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

/// The virtual service that the checkers are configured for.
pub fn vip() -> SocketAddr {
    at(Family::V4.vip(), 80)
}

/// Its real servers.
pub fn real(n: u8) -> SocketAddr {
    at(Family::V4.rs(n), 8080)
}

/// A director with two real servers that answer HTTP.
pub struct Site {
    pub topo: Topo,
    servers: [Option<Server>; 2],
}

impl Site {
    pub fn new() -> Result<Self> {
        let topo = Topo::new(2)?;
        let mut site = Self {
            topo,
            servers: [None, None],
        };
        site.up(1)?;
        site.up(2)?;
        Ok(site)
    }

    /// Starts server `n`.
    pub fn up(&mut self, n: u8) -> Result<()> {
        let i = usize::from(n) - 1;
        let ns = &self.topo.rs[i];
        self.servers[i] = Some(Server::tcp(ns, real(n), ns.name())?);
        Ok(())
    }

    /// Ends server `n`: connections to it are refused.
    pub fn down(&mut self, n: u8) {
        self.servers[usize::from(n) - 1] = None;
    }

    /// Clients are served, by exactly these servers.
    pub fn served_by(&self, want: &[u8]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for _ in 0..6 {
            let body = serve::http_get(&self.topo.client, vip())?;
            seen.insert(serve::name(&body).to_owned());
        }
        let want: BTreeSet<String> = want.iter().map(|n| format!("rs{n}")).collect();
        ensure!(seen == want, "served by {seen:?} and not {want:?}");
        Ok(())
    }
}

/// Lets `checker` run: it makes the service, takes server 1 out when it is dead and back in when it is not, and
/// removes everything when it is stopped.
pub fn health(site: &mut Site, checker: Program) -> Result<()> {
    health_until(site, checker, || Ok(()))
}

/// As [`health`], with something that is waited for before the checker is stopped.
pub fn health_until(
    site: &mut Site,
    checker: Program,
    last: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let outcome = watch(site, &checker).and_then(|()| last());
    let ended = match outcome {
        Ok(()) => checker.stop()?,
        Err(e) => {
            println!("{}", checker.log());
            return Err(e);
        }
    };
    println!("ended with {ended}");
    let ipvs = Ipvs::open(&site.topo.director)?;
    until_true("the service is removed", 5.0, || {
        Ok(ipvs.services()?.is_empty())
    })
}

fn watch(site: &mut Site, checker: &Program) -> Result<()> {
    let ipvs = Ipvs::open(&site.topo.director)?;
    let serving = |what: &str, want: &[u8]| {
        let what = format!("{what}: servers {want:?} have weight");
        until_true(&what, 20.0, || {
            if ipvs.service(TCP, vip()).is_err() {
                return Ok(false);
            }
            let dests = ipvs.dests(TCP, vip())?;
            let there: BTreeSet<SocketAddr> = dests
                .iter()
                .filter(|d| d.weight > 0)
                .map(|d| d.addr)
                .collect();
            let want: BTreeSet<SocketAddr> = want.iter().map(|n| real(*n)).collect();
            Ok(there == want)
        })
    };
    serving("at first", &[1, 2])?;
    site.served_by(&[1, 2])?;
    let begin = std::time::Instant::now();
    site.down(1);
    serving("one is dead", &[2])?;
    println!("taken out after {:.2?}", begin.elapsed());
    site.served_by(&[2])?;
    let begin = std::time::Instant::now();
    site.up(1)?;
    serving("it is back", &[1, 2])?;
    println!("taken back in after {:.2?}", begin.elapsed());
    site.served_by(&[1, 2])?;
    ensure!(
        !checker.log().to_lowercase().contains("ipvs command"),
        "{}",
        checker.log()
    );
    Ok(())
}
