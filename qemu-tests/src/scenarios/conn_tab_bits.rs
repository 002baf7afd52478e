// SPDX-License-Identifier: GPL-2.0-or-later

//! The module parameter `conn_tab_bits` is how large connection tables may get, within limits.
//!
//! Proves checklist item 31 (this parameter).
//!
//! How large a table may get at most, each module says in the log when it is loaded: as many buckets as connections would fill
//! half of the memory, from 2^8 to 2^27.

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::klog::Klog;
use crate::pkt::Pkt;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "conn_tab_bits",
    "conn_tab_bits limits the connection table",
    &[31],
    run,
)
.own_modules();

/// The number of buckets in what a module says when it is loaded.
fn said(peer: Peer, lines: &[String]) -> Result<u64> {
    let (before, after) = match peer {
        Peer::C => ("table configured (size=", ","),
        Peer::Rvs => ("connection tables of up to ", " buckets"),
    };
    let line = lines.iter().find_map(|line| line.split_once(before));
    let (_, rest) = line.with_context(|| format!("{lines:#?}"))?;
    let (number, _) = rest.split_once(after).context("no number")?;
    Ok(number.parse()?)
}

/// What this machine's memory allows: a connection is of 512 bytes, rounded up as the memory is.
fn most_bits() -> Result<i32> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next());
    let bytes = kilobytes.context("MemTotal")?.parse::<u64>()? * 1024;
    let bits = bytes.next_power_of_two().ilog2() as i32 - 9;
    Ok(bits.clamp(8, 27))
}

fn run(cx: &Cx) -> Result<()> {
    // 300 connections want 2,048 buckets.
    for (bits, largest) in [
        ("8", 256),
        ("9", 512),
        ("3", 256),
        ("-1", 256),
        ("99", 2048),
    ] {
        let mut log = Klog::new()?;
        cx.modules.load_with(&format!("conn_tab_bits={bits}"))?;
        let most = said(cx.peer, &log.read()?)?;
        let asked: i32 = bits.parse()?;
        let want = 1 << asked.clamp(8, most_bits()?);
        ensure!(most == want, "{bits} bits: {most} and not {want} buckets");
        let rig = Rig::new()?;
        let (vip, rs) = (at(Family::V4.vip(), 53), at(Family::V4.raw_rs(1), 53));
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        let ipvs = Ipvs::open(&rig.topo.director)?;
        ensure!(ipvs.info()?.1 == 256, "it begins with {}", ipvs.info()?.1);
        let packets: Vec<Pkt> = (0..300)
            .map(|n| Pkt::udp(at(Family::V4.raw_client(n), 1000), vip, b"x"))
            .collect();
        for _ in 0..2 {
            let io = rig.exchange(Side::Client, &packets)?;
            ensure!(io.server.len() == packets.len(), "packets were lost");
            until_true(&format!("{bits} bits: {largest} buckets"), 10.0, || {
                Ok(ipvs.info()?.1 == largest)
            })?;
        }
        drop(ipvs);
        drop(rig);
        cx.modules.unload()?;
    }
    Ok(())
}
