// SPDX-License-Identifier: GPL-2.0-or-later

//! The files ip_vs_status, ip_vs_conn_sync and ip_vs_app under /proc/net: modes, and every line with nothing and with
//! something in the tables.
//!
//! Proves checklist items 23 (connections of this host's own), 25 and 26 (without helpers).

use anyhow::{ensure, Context, Result};

use super::proc_files::{modes, rows};
use crate::ns::Ns;
use crate::pkt::{Pkt, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until;

pub const SCENARIO: Scenario = Scenario::new(
    "proc_status",
    "ip_vs_status, ip_vs_conn_sync and ip_vs_app byte for byte",
    &[23, 25, 26],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    modes(
        ns,
        &[
            ("ip_vs_status", 0o440),
            ("ip_vs_conn_sync", 0o444),
            ("ip_vs_app", 0o444),
        ],
    )?;
    let apps = ns.read("/proc/net/ip_vs_app")?;
    ensure!(apps == "prot port    usecnt name\n", "{apps:?}");
    status(&rig)?;
    sync(&rig)
}

/// Of the first line the text before the colon and what stands behind the tab.
fn take<'a>(lines: &mut std::str::Lines<'a>, name: &str) -> Result<&'a str> {
    let line = lines.next().with_context(|| format!("no line {name}"))?;
    let (key, value) = line.split_once(":\t").with_context(|| line.to_owned())?;
    ensure!(key == name, "line {line:?} and not {name}");
    Ok(value)
}

/// `N (P%)`.
fn share(value: &str) -> Result<(u64, u64)> {
    let (count, percent) = value.split_once(" (").context("no share")?;
    let percent = percent.strip_suffix("%)").context("no percent")?;
    Ok((count.parse()?, percent.parse()?))
}

/// The lines of a table of `size` buckets with `nodes` in it.
fn table(
    lines: &mut std::iter::Peekable<std::str::Lines<'_>>,
    what: &str,
    size: u64,
    lfactor: i32,
    nodes: u64,
) -> Result<()> {
    let mut next = |name: &str| -> Result<String> {
        let line = lines.next().with_context(|| format!("no line {name}"))?;
        let value = line.strip_prefix(&format!("{name}:\t"));
        Ok(value
            .with_context(|| format!("line {line:?} and not {name}"))?
            .to_owned())
    };
    let head = next(&format!("{what} buckets"))?;
    let want = format!("{size} ({} bits, lfactor {lfactor})", size.max(1).ilog2());
    ensure!(head == want, "{head} and not {want}");
    if nodes == 0 {
        return Ok(());
    }
    let (empty, percent) = share(&next(&format!("{what} buckets empty"))?)?;
    ensure!(percent == empty * 100 / size, "{percent}% of {size} empty");
    let (mut used, mut seen, mut shares) = (0, 0, Vec::new());
    for len in 1..8 {
        let prefix = format!("{what} buckets len-{len}:\t");
        let Some(line) = lines.next_if(|line| line.starts_with(&prefix)) else {
            continue;
        };
        let (count, percent) = share(&line[prefix.len()..])?;
        ensure!(count > 0, "{line}");
        used += count;
        seen += len * count;
        shares.push((count, percent));
    }
    ensure!(empty + used == size, "{empty} and {used} of {size} buckets");
    // A chain of seven may be longer.
    ensure!(seen == nodes, "{seen} of {nodes} nodes");
    for (count, percent) in shares {
        ensure!(percent == count * 100 / used, "{percent}% of {used} used");
    }
    Ok(())
}

/// The whole file.
fn check(
    ns: &Ns,
    conns: u64,
    conn_table: (u64, i32, u64),
    services: u64,
    service_table: (u64, i32),
) -> Result<()> {
    let text = ns.read("/proc/net/ip_vs_status")?;
    let result = (|| {
        let mut lines = text.lines().peekable();
        ensure!(lines.next() == Some(&format!("Conns:\t{conns}")), "Conns");
        let (size, lfactor, nodes) = conn_table;
        table(&mut lines, "Conn", size, lfactor, nodes)?;
        ensure!(
            lines.next() == Some(&format!("Services:\t{services}")),
            "Services"
        );
        let (size, lfactor) = service_table;
        table(&mut lines, "Service", size, lfactor, services)?;
        let rest: Vec<&str> = lines.collect();
        let mut rest = rest.join("\n");
        rest.push('\n');
        let mut rest = rest.lines();
        let slots = take(&mut rest, "Stats thread slots")?;
        let (used, max) = slots.split_once(" (max ").context("no maximum")?;
        let max = max.strip_suffix(')').context("no maximum")?;
        let (used, max): (u64, u64) = (used.parse()?, max.parse()?);
        // Nothing is estimated before there is a service.
        ensure!(used == 1 && (max == 0) == (conn_table.0 == 0), "{slots}");
        let chain: u64 = take(&mut rest, "Stats chain max len")?.parse()?;
        let tests: u64 = take(&mut rest, "Stats thread ests")?.parse()?;
        // So many chains in so many ticks.
        ensure!(
            tests % 50 == 0 && (chain == 0) == (tests == 0),
            "{chain} {tests}"
        );
        ensure!(rest.next().is_none() && text.ends_with('\n'), "more lines");
        Ok(())
    })();
    result.with_context(|| text)
}

fn status(rig: &Rig) -> Result<()> {
    let ns = &rig.topo.director;
    check(ns, 0, (0, 0, 0), 0, (0, 0))?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 8080));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    check(ns, 0, (256, -2, 0), 1, (16, -2))?;
    for n in 0..5 {
        let client = at(Family::V4.raw_client(1), 4000 + n);
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    }
    // NAT: each connection is found from both sides.
    check(ns, 5, (256, -2, 10), 1, (16, -2))?;
    let vip6 = at(Family::V6.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip6} -s rr"))?;
    rig.ipvsadm("-A -f 5 -s rr")?;
    check(ns, 5, (256, -2, 10), 3, (16, -2))?;
    // Load factors show once the tables follow them.
    ns.set_sysctl("net.ipv4.vs.svc_lfactor", 3)?;
    ns.set_sysctl("net.ipv4.vs.conn_lfactor", -6)?;
    let settled = until("the tables follow", 10.0, || {
        let text = ns.read("/proc/net/ip_vs_status")?;
        Ok((text.contains("lfactor 3)") && text.contains("lfactor -6)")).then_some(text))
    })?;
    let size = |what: &str| -> Result<u64> {
        let line = settled.lines().find_map(|l| l.strip_prefix(what));
        let size = line.and_then(|l| l.split(' ').next()).context("no size")?;
        Ok(size.parse()?)
    };
    let (conns, services) = (size("Conn buckets:\t")?, size("Service buckets:\t")?);
    ensure!((conns, services) == (512, 16), "{settled}");
    check(ns, 5, (conns, -6, 10), 3, (services, 3))?;
    rig.ipvsadm("-C")?;
    // The services' table goes with the last of them, the connections stay.
    check(ns, 5, (conns, -6, 10), 0, (0, 0))
}

fn sync(rig: &Rig) -> Result<()> {
    let header = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
    let fresh = Ns::new("fresh")?;
    let text = fresh.read("/proc/net/ip_vs_conn_sync")?;
    ensure!(text == header, "{text:?}");
    rows(rig, "ip_vs_conn_sync", header, "LOCAL  ")
}
