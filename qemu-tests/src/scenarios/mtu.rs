// SPDX-License-Identifier: GPL-2.0-or-later

//! Packets too big for the way to the real server: "fragmentation needed" or "packet too big" with
//! the MTU of that way, fragments where that is allowed, and a transfer that finds its size by
//! itself.
//!
//! Proves checklist item 109 for NAT.

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, ACK, ICMP, ICMPV6, SYN};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "mtu",
    "frag needed, packet too big, and path MTU discovery end to end",
    &[],
    run,
)
.partly(&[109]);

const MTU: u32 = 1300;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs, client) = (
            at(family.vip(), 80),
            at(family.raw_rs(1), 8080),
            at(family.raw_client(1), 4000),
        );
        rig.topo
            .director
            .cmd(&format!("ip link set s1 mtu {MTU}"))?;
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let header: usize = if family == Family::V4 { 20 } else { 40 };
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        let of = |total: usize, df: bool| {
            let body = vec![7; total - header - 20];
            Pkt {
                body,
                df,
                ..Pkt::tcp(client, vip, ACK)
            }
        };
        // As big as may be.
        let came = rig.forwarded(&of(MTU as usize, family == Family::V4))?;
        ensure!(
            came.csum_ok && came.body.len() == MTU as usize - header - 20,
            "{came:?}"
        );
        // One byte more.
        let big = of(MTU as usize + 1, family == Family::V4);
        let io = rig.exchange(Side::Client, std::slice::from_ref(&big))?;
        ensure!(io.server.is_empty(), "{io:#?}");
        let answer = io.one_at_client()?;
        let kind = if family == Family::V4 {
            (ICMP, 3, 4)
        } else {
            (ICMPV6, 2, 0)
        };
        ensure!(
            (answer.proto, answer.icmp_type, answer.icmp_code) == kind,
            "{answer:?}"
        );
        ensure!(
            answer.icmp_rest == MTU && answer.dst == client.ip() && answer.csum_ok,
            "{answer:?}"
        );
        let quoted = Pkt::parse(&answer.body, false)?;
        ensure!(
            quoted.source() == client && quoted.dest() == vip,
            "it quotes {quoted:?}"
        );
        if family == Family::V4 {
            // Without "don't fragment" it goes in two.
            let io = rig.exchange(Side::Client, &[of(MTU as usize + 100, false)])?;
            ensure!(io.client.is_empty() && io.server.len() == 2, "{io:#?}");
            ensure!(
                io.server
                    .iter()
                    .all(|f| f.pkt.dst == rs.ip() && f.pkt.frag.is_some()),
                "{io:#?}"
            );
        }
    }

    // A real transfer with big packets from the client, whose own link is wider.
    for family in Family::BOTH {
        let topo = Topo::new(1)?;
        let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
        topo.director.cmd(&format!("ip link set s1 mtu {MTU}"))?;
        topo.rs[0].cmd("ip link set eth0 mtu 1500")?;
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
        let stream = serve::connect(&topo.client, vip)?;
        let n = 200_000;
        serve::give(&stream, n)?;
        // The client has learnt the size from the director's error.
        let route = topo.client.cmd(&format!("ip route get {}", vip.ip()))?;
        ensure!(route.contains(&format!("mtu {MTU}")), "{route}");
        drop(server);
    }
    Ok(())
}
