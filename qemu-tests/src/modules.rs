// SPDX-License-Identifier: GPL-2.0-or-later

//! Loading and unloading the peer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::scenario::Peer;
use crate::wait::until_true;

/// What the C peer consists of, in the order of loading.
pub const C_MODULES: &[&str] = &[
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_lc",
    "ip_vs_wlc",
    "ip_vs_fo",
    "ip_vs_ovf",
    "ip_vs_lblc",
    "ip_vs_lblcr",
    "ip_vs_dh",
    "ip_vs_sh",
    "ip_vs_mh",
    "ip_vs_sed",
    "ip_vs_nq",
    "ip_vs_twos",
];

/// Unloads the C peer.
pub fn unload_c() -> Result<()> {
    let names: Vec<&str> = C_MODULES.iter().copied().chain(["ip_vs_ftp"]).collect();
    let names: Vec<&str> = names.into_iter().rev().collect();
    unload(&names)
}

/// Whether a module is in the kernel.
pub fn loaded(name: &str) -> Result<bool> {
    let text = std::fs::read_to_string("/proc/modules").context("reading /proc/modules")?;
    Ok(text.lines().any(|l| l.split(' ').next() == Some(name)))
}

/// Runs a program; its error text is the error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !out.status.success() {
        bail!(
            "{program} {}: {} {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stdout).trim(),
            String::from_utf8_lossy(&out.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The module under test and where it comes from.
#[derive(Debug, Clone)]
pub struct Modules {
    pub peer: Peer,
    /// `rvs.ko`; the C module comes from the guest's module folder.
    pub rvs: Option<PathBuf>,
}

impl Modules {
    pub fn load(&self) -> Result<()> {
        match self.peer {
            Peer::C => load_c(),
            Peer::Rvs => {
                ensure!(!loaded("ip_vs")?, "ip_vs is loaded, rvs can't be");
                self.insert_rvs()
            }
        }
    }

    /// Loads the peer with a module parameter.
    pub fn load_with(&self, parameter: &str) -> Result<()> {
        match self.peer {
            Peer::C => {
                run("modprobe", &["ip_vs", parameter])?;
                load_c()
            }
            Peer::Rvs => self.insert_rvs_with(&[parameter]),
        }
    }

    /// Loads what rvs.ko depends on and then itself.
    pub fn insert_rvs(&self) -> Result<()> {
        self.insert_rvs_with(&[])
    }

    fn insert_rvs_with(&self, parameters: &[&str]) -> Result<()> {
        let path = self.rvs_path()?;
        let depends = run("modinfo", &["-F", "depends", path])?;
        for name in depends.trim().split(',').filter(|n| !n.is_empty()) {
            run("modprobe", &[name])?;
        }
        let line: Vec<&str> =
            Iterator::chain([path].into_iter(), parameters.iter().copied()).collect();
        run("insmod", &line).map(drop)
    }

    fn rvs_path(&self) -> Result<&str> {
        self.rvs
            .as_deref()
            .and_then(Path::to_str)
            .context("no path of rvs.ko was given")
    }

    /// Unloads the peer once nothing holds it any more: namespaces go away in the background.
    pub fn unload(&self) -> Result<()> {
        match self.peer {
            Peer::C => unload_c(),
            Peer::Rvs => unload(&["rvs_ftp", "rvs"]),
        }
    }

    /// The name of the peer's FTP helper.
    pub fn ftp_name(&self) -> &'static str {
        match self.peer {
            Peer::C => "ip_vs_ftp",
            Peer::Rvs => "rvs_ftp",
        }
    }

    /// Loads the peer's FTP helper, which lies beside it.
    pub fn load_ftp(&self, parameters: &[&str]) -> Result<()> {
        let (program, file) = match self.peer {
            Peer::C => ("modprobe", self.ftp_name().to_owned()),
            Peer::Rvs => {
                let path = Path::new(self.rvs_path()?).with_file_name("rvs_ftp.ko");
                ("insmod", path.to_str().context("no path")?.to_owned())
            }
        };
        let line: Vec<&str> =
            Iterator::chain([file.as_str()].into_iter(), parameters.iter().copied()).collect();
        run(program, &line).map(drop)
    }
}

/// Loads the C module and its schedulers.
pub fn load_c() -> Result<()> {
    for name in C_MODULES {
        run("modprobe", &[name])?;
    }
    Ok(())
}

/// Unloads those of the modules that are there, as soon as their last user is gone.
pub fn unload(names: &[&str]) -> Result<()> {
    let mut why = String::new();
    until_true(&format!("rmmod {names:?}"), 15.0, || {
        let mut there = Vec::new();
        for name in names {
            if loaded(name)? {
                there.push(*name);
            }
        }
        if there.is_empty() {
            return Ok(true);
        }
        if let Err(e) = run("rmmod", &there) {
            why = e.to_string();
        }
        Ok(false)
    })
    .with_context(|| why)
}
