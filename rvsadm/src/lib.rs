// SPDX-License-Identifier: GPL-2.0-or-later

//! Administers the layer-4 load balancer of the Linux kernel, rvs or ip_vs.
//!
//! `rvsadm` is two programs in one: ipvsadm, to the byte, for scripts and habits (`classic`), and subcommands that a
//! person can remember. What begins with a dash is the former.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

mod classic;
mod names;
mod numbers;

/// What to do when the kernel has no IPVS.
pub(crate) const NO_MODULE: &str =
    "the kernel has no IPVS; load it with `modprobe rvs`, or `modprobe ip_vs` for the kernel's own";

/// Runs the command line; the first argument is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_else(|| "rvsadm".to_owned());
    let args: Vec<String> = args.collect();
    ExitCode::from(classic::run(&program, &args))
}
