// SPDX-License-Identifier: GPL-2.0-or-later

//! TTL and hop limit: one less on the way through, and an ICMP time exceeded where none is left.
//!
//! Proves checklist item 108.

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, ACK, ICMP, ICMPV6, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "ttl",
    "TTL is decremented, time exceeded is sent",
    &[108],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs, client) = (
            at(family.vip(), 80),
            at(family.raw_rs(1), 8080),
            at(family.raw_client(1), 4000),
        );
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let syn = Pkt::tcp(client, vip, SYN);
        for ttl in [255, 64, 2] {
            let came = rig.forwarded(&Pkt { ttl, ..syn.clone() })?;
            ensure!(
                came.ttl == ttl - 1 && came.csum_ok,
                "sent with {ttl}: {came:?}"
            );
            // Type of service, identification and "don't fragment" are kept.
            let came = rig.forwarded(&Pkt {
                ttl,
                tos: 0xb8,
                df: family == Family::V4,
                id: 0x4242,
                ..syn.clone()
            })?;
            ensure!(came.tos == 0xb8, "{came:?}");
            ensure!(
                family == Family::V6 || came.df && came.id == 0x4242,
                "{came:?}"
            );
            let back = rig.returned(&Pkt {
                ttl,
                ..Pkt::tcp(rs, client, SYN | ACK)
            })?;
            ensure!(
                back.ttl == ttl - 1 && back.csum_ok,
                "sent with {ttl}: {back:?}"
            );
        }
        // Time is up at the director: on the way in it says so itself.
        for ttl in [1, 0] {
            if ttl == 0 && family == Family::V6 {
                continue;
            }
            let sent = Pkt {
                ttl,
                ..Pkt::tcp(at(client.ip(), 4001), vip, SYN)
            };
            let io = rig.exchange(Side::Client, std::slice::from_ref(&sent))?;
            ensure!(io.server.is_empty(), "{io:#?}");
            let answer = io.one_at_client()?;
            let kind = if family == Family::V4 {
                (ICMP, 11, 0)
            } else {
                (ICMPV6, 3, 0)
            };
            ensure!(
                (answer.proto, answer.icmp_type, answer.icmp_code) == kind,
                "{answer:?}"
            );
            ensure!(answer.dst == client.ip() && answer.csum_ok, "{answer:?}");
            // It quotes the packet as the client sent it.
            let quoted = Pkt::parse(&answer.body, false)?;
            ensure!(
                quoted.source() == sent.source() && quoted.dest() == vip,
                "it quotes {quoted:?}"
            );
        }
        ensure!(
            proc::conns(&rig.topo.director)?.len() == 2,
            "{:?}",
            proc::conns(&rig.topo.director)?
        );
        // On the way back the director's routing does it.
        let io = rig.exchange(
            Side::Server,
            &[Pkt {
                ttl: 1,
                ..Pkt::tcp(rs, client, ACK)
            }],
        )?;
        ensure!(io.client.is_empty() && io.server.len() == 1, "{io:#?}");
    }
    Ok(())
}
