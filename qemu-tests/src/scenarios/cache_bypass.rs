// SPDX-License-Identifier: GPL-2.0-or-later

//! A service by mark without servers, as before a cache: with cache_bypass its clients get through
//! to where they wanted.
//!
//! Proves checklist item 111.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "cache_bypass",
    "clients of dead caches get through",
    &[111],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let six = if family == Family::V6 { "-6" } else { "" };
        for line in [
            "nft add table inet t".to_owned(),
            "nft add chain inet t pre { type filter hook prerouting priority -150 ; }".to_owned(),
            "nft add rule inet t pre tcp dport 80 meta mark set 10".to_owned(),
            "nft add rule inet t pre udp dport 80 meta mark set 10".to_owned(),
            // What has the mark is this host's.
            format!("ip {six} rule add fwmark 10 lookup 100"),
            format!("ip {six} route add local default dev lo table 100"),
        ] {
            rig.topo.director.cmd(&line)?;
        }
        rig.ipvsadm(&format!("-A -f 10 {six} -s rr"))?;
        let wanted = at(family.raw_rs(3), 80);
        let client = |port| at(family.raw_client(1), port);

        // Without the sysctl nothing gets through, nor back: the answer would need the wanted address as its source.
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client(4000), wanted, SYN)])?;
        ensure!(io.server.is_empty(), "{io:#?}");
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.cache_bypass", 1)?;
        for flags in [SYN, ACK] {
            let sent = Pkt {
                ttl: 20,
                ..Pkt::tcp(client(4001), wanted, flags)
            };
            let came = rig.forwarded(&sent)?;
            ensure!(
                came.source() == sent.source()
                    && came.dest() == wanted
                    && came.ttl == 19
                    && came.csum_ok,
                "{came:?}"
            );
        }
        let conn = proc::conn(&rig.topo.director, client(4001))?.context("no connection")?;
        ensure!(
            conn.vip == wanted && conn.dest.ip().is_unspecified() && conn.dest.port() == 0,
            "{conn:?}"
        );
        // With a server it is a service like any other; who got past stays there.
        let rs = at(family.raw_rs(1), 80);
        rig.ipvsadm(&format!("-a -f 10 {six} -r {rs} -m"))?;
        let came = rig.forwarded(&Pkt::tcp(client(4002), wanted, SYN))?;
        ensure!(came.dest() == rs, "{came:?}");
        let came = rig.forwarded(&Pkt::tcp(client(4001), wanted, ACK))?;
        ensure!(came.dest() == wanted, "{came:?}");
        rig.ipvsadm(&format!("-d -f 10 {six} -r {rs}"))?;
        // One packet at a time.
        rig.ipvsadm(&format!("-E -f 10 {six} -s rr -o"))?;
        let came = rig.forwarded(&Pkt::udp(client(4003), wanted, b"x"))?;
        ensure!(came.dest() == wanted && came.csum_ok, "{came:?}");
        ensure!(
            proc::conn(&rig.topo.director, client(4003))?.is_none(),
            "a one-packet connection stayed"
        );
        rig.drain()?;
        let io = rig.finish(Side::Client)?;
        ensure!(io.server.is_empty(), "{io:#?}");
    }
    Ok(())
}
