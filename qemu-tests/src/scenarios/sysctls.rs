// SPDX-License-Identifier: GPL-2.0-or-later

//! The sysctls under net.ipv4.vs: which there are, modes, defaults, ranges; other namespaces and
//! other users.
//!
//! Proves checklist items 27, 28 and 30 (settings).

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};

use crate::ns::Ns;
use crate::scenario::{Cx, Peer, Scenario};

pub const SCENARIO: Scenario = Scenario::new(
    "sysctls",
    "presence, defaults, modes and ranges of the sysctls",
    &[27, 28, 30],
    run,
);

struct Sysctl {
    name: &'static str,
    /// In init_net; none if it depends on the machine.
    init: Option<&'static str>,
    /// In other namespaces.
    other: Option<&'static str>,
    /// Values taken.
    good: &'static [&'static str],
    /// Values refused with EINVAL.
    bad: &'static [&'static str],
    /// Read only for the owner of a user namespace of its own.
    locked: bool,
}

const fn int(name: &'static str, default: &'static str) -> Sysctl {
    let good = &["0", "1", "2", "-1", "2147483647", "-2147483648"];
    let bad = &["x", "2147483648"];
    Sysctl {
        name,
        init: Some(default),
        other: Some(default),
        good,
        bad,
        locked: false,
    }
}

const fn range(
    name: &'static str,
    default: &'static str,
    good: &'static [&'static str],
    bad: &'static [&'static str],
) -> Sysctl {
    Sysctl {
        name,
        init: Some(default),
        other: Some(default),
        good,
        bad,
        locked: false,
    }
}

/// Defence modes. 2 is taken as well and turns into 1 at once where memory is plenty.
const MODES: &[&str] = &["0", "1", "3"];

const ALL: &[Sysctl] = &[
    int("amemthresh", "1024"),
    int("am_droprate", "10"),
    range(
        "conn_max",
        "1073741824",
        &["0", "1", "65536", "1073741824"],
        &["-1", "1073741825", "x"],
    ),
    range("drop_entry", "0", MODES, &["4", "-1", "x"]),
    range("drop_packet", "0", MODES, &["4", "-1", "x"]),
    int("conntrack", "0"),
    range("secure_tcp", "0", MODES, &["4", "-1", "x"]),
    int("snat_reroute", "1"),
    range("sync_version", "1", &["0", "1"], &["2", "-1", "x"]),
    range(
        "sync_ports",
        "1",
        &["1", "2", "64", "128"],
        &["0", "3", "-1", "x"],
    ),
    int("sync_persist_mode", "0"),
    Sysctl {
        name: "sync_qlen_max",
        init: None,
        other: None,
        good: &["0", "1", "100000"],
        bad: &["x"],
        locked: true,
    },
    Sysctl {
        name: "sync_sock_size",
        init: Some("0"),
        other: Some("0"),
        good: &["0", "1000000", "-1"],
        bad: &["x"],
        locked: true,
    },
    int("cache_bypass", "0"),
    int("expire_nodest_conn", "0"),
    int("sloppy_tcp", "0"),
    int("sloppy_sctp", "0"),
    int("expire_quiescent_template", "0"),
    range(
        "sync_threshold",
        "3\t50",
        &["3 50", "0 0", "1 2", "5 0"],
        &["5 5", "6 5", "-1 5", "x"],
    ),
    range("sync_refresh_period", "0", &["0", "1", "100"], &["x"]),
    range("sync_retries", "0", &["0", "1", "3"], &["4", "-1", "x"]),
    int("nat_icmp_send", "0"),
    int("pmtu_disc", "1"),
    int("backup_only", "0"),
    int("conn_reuse_mode", "1"),
    int("schedule_icmp", "0"),
    int("ignore_tunneled", "0"),
    Sysctl {
        name: "run_estimation",
        init: Some("1"),
        other: Some("1"),
        good: &["0", "1"],
        bad: &["x"],
        locked: true,
    },
    Sysctl {
        name: "est_cpulist",
        init: None,
        other: None,
        good: &["0"],
        bad: &["x"],
        locked: true,
    },
    Sysctl {
        name: "est_nice",
        init: Some("0"),
        other: Some("0"),
        good: &["-20", "19", "0"],
        bad: &["-21", "20", "x"],
        locked: true,
    },
    Sysctl {
        name: "conn_lfactor",
        init: Some("-4"),
        other: Some("-2"),
        good: &["-8", "8", "0"],
        bad: &["-9", "9", "x"],
        locked: true,
    },
    Sysctl {
        name: "svc_lfactor",
        init: Some("-3"),
        other: Some("-2"),
        good: &["-8", "8", "0"],
        bad: &["-9", "9", "x"],
        locked: true,
    },
];

/// Those of lblc and lblcr, which `sched_lblc` and `sched_lblcr` look into.
fn is_lblc(name: &str) -> bool {
    name == "lblc_expiration" || name == "lblcr_expiration"
}

/// Names and modes, as seen from a namespace.
fn listing(ns: &Ns) -> Result<BTreeMap<String, String>> {
    let text = ns.cmd("find /proc/sys/net/ipv4/vs -type f -printf %f\\040%m\\n")?;
    text.lines()
        .map(|l| {
            l.split_once(' ')
                .map(|(n, m)| (n.to_owned(), m.to_owned()))
                .with_context(|| format!("line {l:?}"))
        })
        .collect()
}

fn run(cx: &Cx) -> Result<()> {
    let init = Ns::init()?;
    let other = Ns::new("other")?;
    let third = Ns::new("third")?;
    let there = listing(&init)?;
    println!("{} sysctls: {:?}", there.len(), there.keys());
    for name in there.keys() {
        let is_extra = cx.peer == Peer::Rvs && name.starts_with("rvs_");
        if !ALL.iter().any(|s| s.name == name)
            && !is_lblc(name)
            && name != "debug_level"
            && !is_extra
        {
            bail!("{name} is not one of the C module's sysctls");
        }
    }
    for s in ALL {
        if !there.contains_key(s.name) {
            bail!("{} is missing", s.name);
        }
    }
    ensure!(
        there == listing(&other)?,
        "other namespaces have {:?}",
        listing(&other)?
    );
    let mut wrong = Vec::new();
    for s in ALL.iter().filter(|s| there.contains_key(s.name)) {
        let key = format!("net.ipv4.vs.{}", s.name);
        if there[s.name] != "644" {
            wrong.push(format!("{}: mode {}", s.name, there[s.name]));
        }
        for (ns, want) in [(&init, s.init), (&other, s.other)] {
            let got = ns.sysctl(&key)?;
            if want.is_some_and(|w| w != got) {
                wrong.push(format!(
                    "{} in {}: {got:?}, expected {want:?}",
                    s.name,
                    ns.name()
                ));
            }
        }
        let before = third.sysctl(&key)?;
        for value in s.good {
            if let Err(e) = other.try_set_sysctl(&key, value) {
                wrong.push(format!("{} refuses {value}: {e}", s.name));
                continue;
            }
            let got = other.sysctl(&key)?;
            if got.split_whitespace().ne(value.split_whitespace()) {
                wrong.push(format!("{} is {got:?} after {value} was written", s.name));
            }
        }
        let kept = other.sysctl(&key)?;
        for value in s.bad {
            match other.try_set_sysctl(&key, value) {
                Ok(()) => wrong.push(format!("{} takes {value}", s.name)),
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
                Err(e) => wrong.push(format!("{} refuses {value} by {e}", s.name)),
            }
        }
        if other.sysctl(&key)? != kept {
            wrong.push(format!(
                "{} is {} after refused values, it was {kept}",
                s.name,
                other.sysctl(&key)?
            ));
        }
        // Nobody else has changed.
        if third.sysctl(&key)? != before
            || s.init
                .is_some_and(|w| init.sysctl(&key).ok().as_deref() != Some(w))
        {
            wrong.push(format!("{} changed in another namespace", s.name));
        }
    }

    // A network namespace that a user namespace of its own owns: some are read only.
    let text = other.cmd("unshare --user --map-root-user --net find /proc/sys/net/ipv4/vs -type f -printf %f\\040%m\\n")?;
    let mut left: Vec<&str> = there
        .keys()
        .map(String::as_str)
        .filter(|name| !is_lblc(name))
        .collect();
    for line in text.lines() {
        let (name, mode) = line
            .split_once(' ')
            .with_context(|| format!("line {line:?}"))?;
        ensure!(!is_lblc(name), "{name} shows in a user namespace");
        left.retain(|other| *other != name);
        let Some(s) = ALL.iter().find(|s| s.name == name) else {
            continue;
        };
        let want = if s.locked { "444" } else { "644" };
        if mode != want {
            wrong.push(format!(
                "{name} in a user namespace: mode {mode}, expected {want}"
            ));
        }
    }
    ensure!(left.is_empty(), "{left:?} do not show in a user namespace");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
