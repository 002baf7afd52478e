// SPDX-License-Identifier: GPL-2.0-or-later

//! Administers the layer-4 load balancer of the Linux kernel, rvs or ip_vs.
//!
//! `rvsadm` is two programs in one: ipvsadm, to the byte, for scripts and habits (`classic`), and subcommands that a
//! person can remember. What begins with a dash is the former.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

mod classic;
mod extension;
mod modern;
mod names;
mod numbers;
mod progress;
mod refusals;

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
    ExitCode::from(if is_classic(&program, &args) {
        // Not under ipvsadm's name: there the option isn't known.
        // Nor what only rvs has.
        let mut args = args;
        let before = args.len();
        if !named_ipvsadm(&program) {
            args.retain(|arg| arg != "--json");
        }
        let json = args.len() < before;
        classic::run(&program, &args, !named_ipvsadm(&program), json)
    } else {
        let mut words = vec!["rvsadm".to_owned()];
        words.extend(args);
        modern::run(&words)
    })
}

fn named_ipvsadm(program: &str) -> bool {
    program
        .rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("ipvsadm"))
}

/// Whether ipvsadm is meant: by the program's name, by saying nothing, or by an option where a subcommand could be.
fn is_classic(program: &str, args: &[String]) -> bool {
    // Where that stands doesn't matter.
    let first = args.iter().find(|arg| *arg != "--json");
    match first.map(String::as_str) {
        None => args.is_empty(),
        _ if named_ipvsadm(program) => true,
        // ipvsadm's help is -h.
        Some("--help") => false,
        Some("--version") => args.len() > 1,
        Some(first) => first.starts_with('-'),
    }
}

#[cfg(test)]
mod tests {
    use super::is_classic;

    #[test]
    fn which_is_meant() {
        let meant = |program: &str, line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            is_classic(program, &args)
        };
        assert!(meant("rvsadm", "-Ln"));
        assert!(meant("/usr/sbin/rvsadm", ""));
        assert!(meant("/usr/sbin/ipvsadm", "service list"));
        assert!(meant("rvsadm", "-h"));
        assert!(meant("rvsadm", "--list"));
        assert!(!meant("rvsadm", "--help"));
        assert!(!meant("rvsadm", "service list"));
        assert!(!meant("rvsadm", "--json service list"));
        assert!(!meant("rvsadm", "--json"));
        assert!(meant("rvsadm", "--json -Ln"));
        assert!(meant("rvsadm", "-Ln --json"));
    }
}
