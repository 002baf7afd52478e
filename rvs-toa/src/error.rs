// SPDX-License-Identifier: GPL-2.0-or-later

//! What can go wrong, in words that say what is missing.

use std::path::PathBuf;
use std::{fmt, io};

/// Why the programs were not attached.
#[derive(Debug)]
pub enum Error {
    /// The cgroup's folder cannot be opened.
    Cgroup {
        /// Its path.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The folder is not one of cgroup version 2.
    NotCgroup2(PathBuf),
    /// BPF programs may not be loaded.
    Permission,
    /// The kernel has no `bpf()`.
    NoBpf,
    /// The kernel does not keep a program's memory with a socket.
    NoStorage,
    /// The kernel has no BPF programs for cgroups.
    NoCgroupBpf,
    /// Somebody has attached a program that tolerates no other.
    Taken {
        /// Which of ours.
        program: &'static str,
        /// Where.
        cgroup: PathBuf,
    },
    /// The maps were refused.
    Load(String),
    /// A program was refused.
    Program {
        /// Which.
        program: &'static str,
        /// What the kernel said.
        why: String,
    },
    /// A program was not attached.
    Attach {
        /// Which.
        program: &'static str,
        /// Where.
        cgroup: PathBuf,
        /// What the kernel said.
        why: String,
    },
    /// The compiled programs are not those that this was written for.
    Object,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup { path, error } => write!(f, "cgroup {}: {error}", path.display()),
            Self::NotCgroup2(path) => write!(
                f,
                "{} is not a cgroup of version 2 (`mount -t cgroup2 none {0}` makes the folder the root of them)",
                path.display()
            ),
            Self::Permission => write!(
                f,
                "loading BPF programs is not permitted: this needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (root has them)"
            ),
            Self::NoBpf => write!(f, "this kernel has no BPF (CONFIG_BPF_SYSCALL)"),
            Self::NoStorage => write!(
                f,
                "this kernel does not keep the memory of BPF programs with sockets (BPF_MAP_TYPE_SK_STORAGE: no memory)"
            ),
            Self::NoCgroupBpf => write!(
                f,
                "this kernel attaches no such BPF programs to cgroups: it needs CONFIG_CGROUP_BPF, and Linux 5.10 or newer"
            ),
            Self::Taken { program, cgroup } => write!(
                f,
                "{program}: a BPF program is attached to {} or above that allows no other (see `bpftool cgroup tree`)",
                cgroup.display()
            ),
            Self::Load(why) => write!(f, "loading the BPF programs: {why}"),
            Self::Program { program, why } => write!(
                f,
                "{program}: this kernel refuses the BPF program, which needs Linux 5.10 or newer: {why}"
            ),
            Self::Attach {
                program,
                cgroup,
                why,
            } => write!(f, "{program}: attaching it to {}: {why}", cgroup.display()),
            Self::Object => write!(f, "the BPF programs in this executable are not what it expects"),
        }
    }
}

impl std::error::Error for Error {}
