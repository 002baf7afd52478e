// SPDX-License-Identifier: GPL-2.0-or-later

//! What the `rvsadm_*` scenarios share: rvsadm in a namespace, and terminals.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::ns::{Ns, Output};
use crate::scenario::Cx;
use crate::wait::{pass, until};

/// rvsadm in a namespace.
#[derive(Debug, Clone, Copy)]
pub struct Tool<'a> {
    pub path: &'a Path,
    pub ns: &'a Ns,
}

impl<'a> Tool<'a> {
    pub fn new(cx: &'a Cx, ns: &'a Ns) -> Result<Self> {
        let path = cx.rvsadm.as_deref().context("no rvsadm was built")?;
        Ok(Self { path, ns })
    }

    /// Runs it, whatever comes of it; `line` is split at blanks.
    pub fn run(&self, line: &str, stdin: &str) -> Result<Output> {
        let line = format!("{} {line}", self.path.display());
        self.ns.try_cmd_stdin(&line, stdin)
    }

    /// Runs it; it must succeed, and say nothing on standard error.
    pub fn ok(&self, line: &str) -> Result<String> {
        self.feed(line, "")
    }

    /// As [`Tool::ok`], with something on standard input.
    pub fn feed(&self, line: &str, stdin: &str) -> Result<String> {
        let out = self.run(line, stdin)?;
        ensure!(
            out.code == Some(0) && out.stderr.is_empty(),
            "`rvsadm {line}`: {out:?}"
        );
        Ok(out.stdout)
    }

    /// What jq makes of what it prints as JSON, one line a result.
    pub fn json(&self, line: &str, filter: &str) -> Result<String> {
        let out = self.run(&format!("--json {line}"), "")?;
        ensure!(out.code == Some(0), "`rvsadm --json {line}`: {out:?}");
        jq(&out.stdout, filter)
    }

    /// Runs it; it must fail with this exit code, nothing on standard output and these words among those of its error.
    pub fn fails(&self, line: &str, code: i32, words: &[&str]) -> Result<()> {
        let out = self.run(line, "")?;
        ensure!(
            out.code == Some(code)
                && out.stdout.is_empty()
                && words.iter().all(|w| out.stderr.contains(w)),
            "`rvsadm {line}`, expected {code} and {words:?}: {out:?}"
        );
        Ok(())
    }
}

/// Runs a filter of jq over a text.
pub fn jq(text: &str, filter: &str) -> Result<String> {
    let mut child = Command::new("jq")
        .args(["-r", "-c", filter])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting jq")?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    pipe.write_all(text.as_bytes())?;
    drop(pipe);
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "jq {filter}: {out:?}\n{text}");
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// A terminal of tmux, in a namespace.
#[derive(Debug)]
pub struct Terminal<'a> {
    ns: &'a Ns,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// A shell that runs a command line and then waits, so that the screen after it can be seen.
    pub fn new(ns: &'a Ns, name: &str, width: u16, height: u16, line: &str) -> Result<Self> {
        let terminal = Self {
            ns,
            socket: format!("/run/tmux-{name}"),
        };
        let script = format!("/run/{name}.sh");
        std::fs::write(
            &script,
            format!("echo before; {line}; echo \"ended $?\"; exec cat\n"),
        )?;
        terminal.tmux(&format!(
            "-u -f /dev/null new-session -d -x {width} -y {height} sh {script}"
        ))?;
        Ok(terminal)
    }

    /// Runs a command of tmux.
    pub fn tmux(&self, line: &str) -> Result<String> {
        self.ns.cmd(&format!("tmux -S {} {line}", self.socket))
    }

    /// Types keys, by tmux's names.
    pub fn keys(&self, keys: &str) -> Result<()> {
        self.tmux(&format!("send-keys {keys}")).map(drop)
    }

    fn screen(&self) -> Result<String> {
        self.tmux("capture-pane -p")
    }

    /// Waits until the screen is as wanted.
    pub fn shows(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        until(what, 20.0, || {
            last = self.screen()?;
            let seen = wanted(&last).then(|| last.clone());
            if seen.is_none() {
                // Each look is a process, for which a User-Mode kernel needs the time of many.
                pass(0.1);
            }
            Ok(seen)
        })
        .with_context(|| format!("the screen is\n{last}"))
    }

    /// Waits until the screen has a text.
    pub fn has(&self, text: &str) -> Result<String> {
        self.shows(text, |screen| screen.contains(text))
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux("kill-server");
    }
}
