// SPDX-License-Identifier: GPL-2.0-or-later

//! A configuration of a thousand services, restored, saved, restored elsewhere and saved again: always the same lines.
//!
//! Proves checklist item 20 (-S, -R).

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{ensure, Context, Result};

use crate::ns::Ns;
use crate::requests::SCHEDULERS;
use crate::scenario::{Cx, Rng, Scenario};
use crate::wait::{slow, until};

pub const SCENARIO: Scenario = Scenario::new(
    "save_restore",
    "a thousand services through ipvsadm -R and -S and back",
    &[],
    run,
)
.partly(&[20])
.timeout(90.0);

/// The lines as `ipvsadm -Sn` would write them.
fn configuration(rng: &mut Rng, services: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for n in 0..services {
        let (hi, lo) = (n / 250, n % 250 + 1);
        let v6 = n % 5 == 4;
        let addr = |net: &str, host: usize| {
            if v6 {
                format!("[fd00:{net}::{}:{host}]", hi + 1)
            } else {
                format!("10.{net}.{hi}.{host}")
            }
        };
        let marked = n % 7 == 6 && !v6;
        let udp = rng.chance(3);
        let id = match (marked, udp) {
            (true, _) => format!("-f {}", n + 1),
            (false, true) => format!("-u {}:53", addr("9", lo)),
            (false, false) => format!("-t {}:80", addr("9", lo)),
        };
        let sched = SCHEDULERS[rng.below(SCHEDULERS.len() - 1)];
        let mut line = format!("-A {id} -s {sched}");
        if rng.chance(4) {
            let _ = write!(line, " -p {}", 1 + rng.below(3600));
            if rng.chance(2) {
                let mask = if v6 { " -M 64" } else { " -M 255.255.255.0" };
                line += mask;
            }
        }
        if udp && !marked && rng.chance(4) {
            line += " -o";
        }
        if sched == "sh" || sched == "mh" {
            let flags = ["", " -b flag-1", " -b flag-2", " -b flag-1,flag-2"];
            line += &flags[rng.below(4)]
                .replace("flag-1", &format!("{sched}-fallback"))
                .replace("flag-2", &format!("{sched}-port"));
        }
        lines.push(line);
        for d in 0..rng.below(4) {
            let port = match (marked, udp) {
                (true, _) => 0,
                (false, true) => 53,
                (false, false) => 80,
            };
            let method = ["-m", "-g", "-i"][rng.below(3)];
            let mut line = format!(
                "-a {id} -r {}:{port} {method} -w {}",
                addr("8", lo + d * 2),
                rng.below(200)
            );
            if rng.chance(5) {
                let _ = write!(line, " -x {} -y {}", 100 + rng.below(100), rng.below(90));
            }
            if method == "-i" {
                line += " --tun-type ipip";
            }
            lines.push(line);
        }
    }
    lines
}

/// What a listing shows. The table of services follows their number in the background, and a dump that it overtakes may
/// repeat and leave out, in C as well: so until it shows the same twice.
fn shown(ns: &Ns, command: &str) -> Result<BTreeSet<String>> {
    let read = || -> Result<BTreeSet<String>> {
        Ok(ns
            .cmd(command)?
            .lines()
            .map(|l| l.trim_end().to_owned())
            .collect())
    };
    let mut last = read()?;
    until(&format!("{command} settles"), 20.0, || {
        let now = read()?;
        let same = now == last;
        last = now;
        Ok(same.then(|| last.clone()))
    })
}

fn saved(ns: &Ns) -> Result<BTreeSet<String>> {
    shown(ns, "ipvsadm -S -n")
}

fn run(cx: &Cx) -> Result<()> {
    let services = if slow() > 2.0 { 250 } else { 1_000 };
    let lines = configuration(&mut Rng::new(cx.seed), services);
    let (one, two) = (Ns::new("one")?, Ns::new("two")?);
    for ns in [&one, &two] {
        // Where the destinations are.
        ns.cmd("ip link add d0 type dummy")?;
        ns.cmd("ip link set d0 up")?;
        ns.cmd("ip addr add 10.0.0.1/8 dev d0")?;
        ns.cmd("ip addr add fd00:8::ffff/32 dev d0 nodad")?;
    }
    one.cmd_stdin("ipvsadm -R", &(lines.join("\n") + "\n"))
        .context("the first restore")?;
    let first = saved(&one)?;
    ensure!(
        first.len() == lines.len(),
        "{} lines restored, {} saved",
        lines.len(),
        first.len()
    );
    // The identity of everything is as it was given; the rest is ipvsadm's way to say it.
    let key = |line: &str| {
        line.split_whitespace()
            .take(5)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let id = |line: &String| {
        if line.starts_with("-A") {
            line.split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        } else {
            key(line)
        }
    };
    let (want, got): (BTreeSet<_>, BTreeSet<_>) = (
        lines.iter().map(id).collect(),
        first.iter().map(id).collect(),
    );
    ensure!(
        want == got,
        "lost {:?}, came from nowhere {:?}",
        want.difference(&got).take(5).collect::<Vec<_>>(),
        got.difference(&want).take(5).collect::<Vec<_>>()
    );
    // All "-A" come before all "-a".
    let text = first.iter().cloned().collect::<Vec<_>>().join("\n") + "\n";
    two.cmd_stdin("ipvsadm -R", &text)
        .context("the second restore")?;
    let second = saved(&two)?;
    ensure!(
        first == second,
        "only in the first {:?}, only in the second {:?}",
        first.difference(&second).take(5).collect::<Vec<_>>(),
        second.difference(&first).take(5).collect::<Vec<_>>()
    );
    // Thresholds are not saved.
    let (one, two) = (shown(&one, "ipvsadm -L -n")?, shown(&two, "ipvsadm -L -n")?);
    ensure!(
        one == two,
        "only in the first list {:?}, only in the second {:?}",
        one.difference(&two).take(5).collect::<Vec<_>>(),
        two.difference(&one).take(5).collect::<Vec<_>>()
    );
    Ok(())
}
