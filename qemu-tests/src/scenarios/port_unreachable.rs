// SPDX-License-Identifier: GPL-2.0-or-later

//! No destination to send a new connection to: the client is told "port unreachable", and no
//! connection is made.
//!
//! Proves checklist items 112 and 57 (all at weight 0).

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, ACK, ICMP, ICMPV6, SYN};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "port_unreachable",
    "no destination: port unreachable, v4 and v6",
    &[112],
    run,
)
.partly(&[57]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs, client) = (
            at(family.vip(), 80),
            at(family.raw_rs(1), 8080),
            at(family.raw_client(1), 4000),
        );
        let refused = |pkt: &Pkt| -> Result<()> {
            let answer = rig.answered(pkt)?;
            let kind = if family == Family::V4 {
                (ICMP, 3, 3)
            } else {
                (ICMPV6, 1, 4)
            };
            ensure!(
                (answer.proto, answer.icmp_type, answer.icmp_code) == kind,
                "{answer:?}"
            );
            ensure!(answer.dst == client.ip() && answer.csum_ok, "{answer:?}");
            let quoted = Pkt::parse(&answer.body, false)?;
            ensure!(
                quoted.source() == client && quoted.dest() == vip && quoted.proto == pkt.proto,
                "{quoted:?}"
            );
            Ok(())
        };
        for (kind, pkt) in [
            ("t", Pkt::tcp(client, vip, SYN)),
            ("u", Pkt::udp(client, vip, b"x")),
        ] {
            for sched in ["rr", "wrr", "lc", "wlc"] {
                rig.ipvsadm(&format!("-A -{kind} {vip} -s {sched}"))?;
                refused(&pkt)?;
                rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m -w 0"))?;
                refused(&pkt)?;
                ensure!(
                    proc::conns(&rig.topo.director)?.is_empty(),
                    "a connection was made"
                );
                rig.ipvsadm(&format!("-D -{kind} {vip}"))?;
            }
        }
        // A quiesced server keeps its connections.
        rig.ipvsadm(&format!("-A -t {vip} -s wlc"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.ipvsadm(&format!("-e -t {vip} -r {rs} -m -w 0"))?;
        rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
        rig.returned(&Pkt::tcp(rs, client, ACK))?;
        let other = at(client.ip(), 4001);
        let answer = rig.answered(&Pkt::tcp(other, vip, SYN))?;
        ensure!(answer.icmp_type != 0, "{answer:?}");
    }
    Ok(())
}
