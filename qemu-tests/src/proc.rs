// SPDX-License-Identifier: GPL-2.0-or-later

//! The files of IPVS under /proc/net, parsed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{bail, Context, Result};

use crate::ns::Ns;

/// A row of /proc/net/ip_vs_conn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conn {
    pub proto: String,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub dest: SocketAddr,
    pub state: String,
    pub expires: u32,
}

fn addr(text: &str, port: &str) -> Result<SocketAddr> {
    let ip = match text.len() {
        8 => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(text, 16)?)),
        39 => IpAddr::V6(text.parse::<Ipv6Addr>()?),
        n => bail!("address {text:?} of {n} characters"),
    };
    Ok(SocketAddr::new(ip, u16::from_str_radix(port, 16)?))
}

/// The connections of a namespace.
pub fn conns(ns: &Ns) -> Result<Vec<Conn>> {
    conns_of(&ns.read("/proc/net/ip_vs_conn")?)
}

/// The connections that a text of that form lists.
pub fn conns_of(text: &str) -> Result<Vec<Conn>> {
    text.lines()
        .skip(1)
        .map(|line| {
            let w: Vec<&str> = line.split_whitespace().collect();
            let [proto, ca, cp, va, vp, da, dp, state, expires, ..] = w[..] else {
                bail!("row {line:?}")
            };
            Ok(Conn {
                proto: proto.to_owned(),
                client: addr(ca, cp)?,
                vip: addr(va, vp)?,
                dest: addr(da, dp)?,
                state: state.to_owned(),
                expires: expires.parse()?,
            })
        })
        .collect::<Result<_>>()
        .with_context(|| format!("in {text}"))
}

/// The connection of one client, if it is there.
pub fn conn(ns: &Ns, client: SocketAddr) -> Result<Option<Conn>> {
    Ok(conns(ns)?.into_iter().find(|c| c.client == client))
}

/// The counters of /proc/net/ip_vs_stats: connections, packets in and out, bytes in and out.
pub fn totals(ns: &Ns) -> Result<[u64; 5]> {
    let text = ns.read("/proc/net/ip_vs_stats")?;
    let row = text
        .lines()
        .nth(2)
        .with_context(|| format!("third line of {text:?}"))?;
    hex_row(row)
}

/// Five hexadecimal columns.
pub fn hex_row(row: &str) -> Result<[u64; 5]> {
    let numbers: Vec<u64> = row
        .split_whitespace()
        .map(|w| u64::from_str_radix(w, 16))
        .collect::<Result<_, _>>()
        .with_context(|| row.to_owned())?;
    <[u64; 5]>::try_from(numbers).map_err(|n| anyhow::anyhow!("{} columns in {row:?}", n.len()))
}

/// Ticks per second of the running kernel: what jiffies in the files and limits of IPVS mean.
pub fn hz() -> Result<u32> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let config = crate::modules::run("zcat", &["/proc/config.gz"])
        .or_else(|_| std::fs::read_to_string(format!("/boot/config-{}", release.trim())));
    if let Ok(config) = config {
        if let Some(hz) = config.lines().find_map(|l| l.strip_prefix("CONFIG_HZ=")) {
            return Ok(hz.parse()?);
        }
    }
    // Otherwise count them: /proc/timer_list says how many there were.
    let jiffies = || -> Result<u64> {
        let text =
            std::fs::read_to_string("/proc/timer_list").context("reading /proc/timer_list")?;
        let line = text
            .lines()
            .find_map(|l| l.trim().strip_prefix("jiffies:"))
            .context("no jiffies")?;
        Ok(line.trim().parse()?)
    };
    let (begin, first) = (std::time::Instant::now(), jiffies()?);
    crate::wait::pass(1.0);
    let rate = (jiffies()? - first) as f64 / begin.elapsed().as_secs_f64();
    [100u32, 250, 300, 1000]
        .into_iter()
        .min_by_key(|hz| (f64::from(*hz) - rate).abs() as u32)
        .context("no tick rate")
}
