// SPDX-License-Identifier: GPL-2.0-or-later

//! What the `rvsadm_*` scenarios share: rvsadm in a namespace.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::ns::{Ns, Output};
use crate::scenario::Cx;

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
