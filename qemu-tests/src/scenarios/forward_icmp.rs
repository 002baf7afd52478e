// SPDX-License-Identifier: GPL-2.0-or-later

//! A service by firewall mark whose address is not the director's own: its packets are delivered here by policy routing, but ICMP errors
//! about its replies carry no mark and are met on their way through.
//!
//! Proves checklist item 95.

use std::net::IpAddr;

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "forward_icmp",
    "ICMP errors to addresses that are not local",
    &[95],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        one(family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

fn one(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let (far, any, six, via): (IpAddr, _, _, _) = match family {
        Family::V4 => ("10.7.0.1".parse()?, "0.0.0.0/0", "", "10.0.1.2"),
        Family::V6 => ("fd07::1".parse()?, "::/0", "-6 ", "fd00:0:0:1::2"),
    };
    let (vip, rs, client) = (
        at(far, 80),
        at(family.raw_rs(1), 80),
        at(family.raw_client(1), 4000),
    );
    director.cmd("nft add table inet t")?;
    director.cmd("nft add chain inet t pre { type filter hook prerouting priority -150 ; }")?;
    director.cmd("nft add rule inet t pre tcp dport 80 meta mark set 7")?;
    director.cmd(&format!("ip {six}rule add fwmark 7 lookup 100"))?;
    director.cmd(&format!("ip {six}route add local {any} dev lo table 100"))?;
    // The way that unmarked packets would take.
    director.cmd(&format!("ip {six}route add {far} via {via}"))?;
    rig.ipvsadm(&format!("-A -f 7 {six}-s rr"))?;
    rig.ipvsadm(&format!("-a -f 7 {six}-r {} -m", at(rs.ip(), 0)))?;

    let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    ensure!(came.dest() == rs && came.csum_ok, "{came:?}");
    let answer = rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    ensure!(answer.source() == vip && answer.csum_ok, "{answer:?}");

    let (icmp_type, code) = if family == Family::V4 { (3, 3) } else { (1, 4) };
    for from in [client.ip(), family.raw_client(99)] {
        let error = Pkt::icmp_error(from, far, icmp_type, code, 0, &answer.bytes());
        let came = rig.forwarded(&error)?;
        ensure!(
            came.dst == rs.ip() && came.src == from && came.csum_ok,
            "{came:?}"
        );
        let quoted = Pkt::parse(&came.body, false)?;
        ensure!(
            quoted.source() == rs && quoted.dest() == client,
            "it quotes {quoted:?}"
        );
    }
    // About something else it goes on to where it was sent.
    let other = Pkt::tcp(vip, at(family.raw_client(2), 4000), ACK);
    let error = Pkt::icmp_error(
        family.raw_client(2),
        far,
        icmp_type,
        code,
        0,
        &other.bytes(),
    );
    let came = rig.forwarded(&error)?;
    ensure!(came.dst == far && came.body == other.bytes(), "{came:?}");
    Ok(())
}
