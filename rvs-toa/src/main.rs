// SPDX-License-Identifier: GPL-2.0-or-later

//! The command: attaches the reader and stays until a signal ends it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use rvs_toa::{Config, Counts, Prefix, Reader, MOST_PREFIXES};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Gives servers the addresses of their clients behind a load balancer that names them in a TCP option (TOA).
///
/// Runs on a real server. As long as it runs, getpeername() and accept() return the client's address for connections that
/// are accepted from then on, to servers that know nothing of it. SIGUSR1 makes it say what it has done so far; a signal to
/// end detaches everything, as does its death.
#[derive(Parser, Debug)]
#[command(name = "rvs-toa", version, after_help = AFTER)]
struct Arguments {
    /// Believe options from these addresses only: the local addresses of the load balancer (FullNAT). 0.0.0.0/0 and ::/0
    /// believe everybody, which lets everybody pretend to be anybody.
    #[arg(long, required = true, value_name = "PREFIX", num_args = 1.., value_delimiter = ',')]
    from: Vec<Prefix>,
    /// Sockets made by processes of this cgroup (version 2) and those below.
    #[arg(long, value_name = "DIRECTORY", default_value = "/sys/fs/cgroup")]
    cgroup: PathBuf,
    /// The kind of the option.
    #[arg(long, value_name = "NUMBER", default_value_t = 254, value_parser = clap::value_parser!(u8).range(2..))]
    kind: u8,
}

const AFTER: &str = "\
Exit status: 0 when a signal ended it, 1 when it could not work, 2 when it was called wrongly.

Example:
  rvs-toa --from 10.77.0.0/24,fd77::/64 --cgroup /sys/fs/cgroup/system.slice/nginx.service";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rvs-toa: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config {
        from: arguments.from,
        cgroup: arguments.cgroup,
        kind: arguments.kind,
    };
    if config.from.len() > MOST_PREFIXES {
        return Err(format!(
            "--from: {} prefixes, of which there may be {MOST_PREFIXES}",
            config.from.len()
        )
        .into());
    }
    // Before anything is attached, so that no signal finds it half done.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1])?;
    let reader = Reader::attach(&config)?;
    say(&format!(
        "reading option {} for the sockets of {}",
        config.kind,
        config.cgroup.display()
    ));
    for signal in &mut signals {
        say(&told(&reader.counts()?));
        if signal != SIGUSR1 {
            break;
        }
    }
    Ok(())
}

fn told(counts: &Counts) -> String {
    let Counts {
        connections,
        answers,
        without,
        refused,
        no_memory,
    } = counts;
    format!(
        "connections {connections}, answers {answers}, begun without the option {without}, options from strangers {refused}, \
         no memory for {no_memory}"
    )
}

/// One line. Whoever has closed the other end does not want it.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
