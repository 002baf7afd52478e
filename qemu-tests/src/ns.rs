// SPDX-License-Identifier: GPL-2.0-or-later

//! Network namespaces without names: each is a file descriptor, gone with the process that made it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sched::{setns, unshare, CloneFlags};

use crate::genl::{Genl, NLM_F_ACK, NLM_F_REQUEST};

/// A network namespace.
#[derive(Debug)]
pub struct Ns {
    name: String,
    file: File,
}

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Sets the loopback device of the calling thread's namespace up: RTM_NEWLINK on interface 1, a
/// program less to start.
fn loopback_up() -> Result<()> {
    const RTM_NEWLINK: u16 = 16;
    let up = libc::IFF_UP as u32;
    // struct ifinfomsg: family, padding, type, index, flags, change mask.
    let mut message = vec![0; 4];
    for word in [1, up, up] {
        message.extend(word.to_ne_bytes());
    }
    let reply = Genl::open_here(NETLINK_ROUTE)?.request_bytes(
        RTM_NEWLINK,
        NLM_F_REQUEST | NLM_F_ACK,
        &message,
    )?;
    reply.ok().map(drop)
}

impl Ns {
    /// A new, empty namespace with its loopback up.
    pub fn new(name: &str) -> Result<Self> {
        let file = std::thread::scope(|s| {
            s.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                let file =
                    File::open("/proc/thread-self/ns/net").context("opening the new namespace")?;
                loopback_up().context("setting lo up")?;
                Ok(file)
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(Self {
            name: name.to_owned(),
            file,
        })
    }

    /// The namespace this process was started in.
    pub fn init() -> Result<Self> {
        let file = File::open("/proc/self/ns/net").context("opening the initial namespace")?;
        Ok(Self {
            name: "init".to_owned(),
            file,
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A path under which other programs (`ip ... netns PATH`) find this namespace.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Moves the calling thread into this namespace, for good.
    pub fn enter(&self) -> Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering namespace {}", self.name))
    }

    /// Runs `f` on a thread inside the namespace. Sockets made there stay there.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|s| {
            s.spawn(|| {
                self.enter().expect("setns");
                f()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command line (split at blanks) in the namespace; any exit code will do.
    pub fn try_cmd(&self, line: &str) -> Result<Output> {
        self.try_cmd_stdin(line, "")
    }

    /// As [`Ns::try_cmd`], with something on standard input.
    pub fn try_cmd_stdin(&self, line: &str, stdin: &str) -> Result<Output> {
        let mut words = line.split_whitespace();
        let program = words.next().context("empty command")?;
        let args: Vec<&str> = words.collect();
        self.run(|| {
            let mut child = Command::new(program)
                .args(&args)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("starting `{line}`"))?;
            if let Some(mut pipe) = child.stdin.take() {
                use std::io::Write;
                // A program that doesn't read its input closes the pipe; its exit code says how it
                // went.
                let _ = pipe.write_all(stdin.as_bytes());
            }
            let output = child
                .wait_with_output()
                .with_context(|| format!("waiting for `{line}`"))?;
            Ok(Output {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        })
    }

    /// Runs a command that must succeed; returns its standard output.
    pub fn cmd(&self, line: &str) -> Result<String> {
        self.cmd_stdin(line, "")
    }

    /// As [`Ns::cmd`], with something on standard input.
    pub fn cmd_stdin(&self, line: &str, stdin: &str) -> Result<String> {
        let out = self.try_cmd_stdin(line, stdin)?;
        if out.code != Some(0) {
            bail!(
                "`{line}` in {} ended with {:?}: {}{}",
                self.name,
                out.code,
                out.stdout,
                out.stderr
            );
        }
        Ok(out.stdout)
    }

    /// Runs `ip -batch` over the given lines.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.cmd_stdin("ip -batch -", batch).map(drop)
    }

    /// Reads a file as seen from the namespace (`/proc/thread-self/net` follows the thread).
    pub fn read(&self, path: &str) -> Result<String> {
        let path = path.replace("/proc/net/", "/proc/thread-self/net/");
        self.run(|| std::fs::read_to_string(&path))
            .with_context(|| format!("reading {path} in {}", self.name))
    }

    /// The value of a sysctl, as `net.ipv4.vs.conn_max`, trimmed.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        Ok(self.read(&path)?.trim().to_owned())
    }

    /// Writes a sysctl; the error keeps its errno.
    pub fn try_set_sysctl(&self, key: &str, value: &str) -> std::io::Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| {
            use std::io::Write;
            // One write: that is how sysctl(8) does it, and what a handler's range check sees.
            std::fs::OpenOptions::new()
                .write(true)
                .open(&path)?
                .write_all(format!("{value}\n").as_bytes())
        })
    }

    /// Writes a sysctl that must accept the value.
    pub fn set_sysctl(&self, key: &str, value: impl ToString) -> Result<()> {
        let value = value.to_string();
        self.try_set_sysctl(key, &value)
            .with_context(|| format!("setting {key}={value} in {}", self.name))
    }
}
