// SPDX-License-Identifier: GPL-2.0-or-later

//! Which TCP packets open a connection: a SYN, even with ACK; not a reset, nothing else unless
//! sloppy_tcp is on; truncated headers are dropped; what belongs to no service is left alone.
//!
//! Proves checklist items 42, 85 and 90.

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, ACK, FIN, PSH, RST, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "tcp_scheduling",
    "which packets open a connection, truncated headers, packets of no service",
    &[85, 90],
    run,
)
.partly(&[42]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let mut port = 4000;
        let mut open = |flags: u8| -> Result<bool> {
            port += 1;
            let client = at(family.raw_client(1), port);
            let io = rig.exchange(Side::Client, &[Pkt::tcp(client, vip, flags)])?;
            let conn = proc::conn(&rig.topo.director, client)?;
            ensure!(
                conn.is_some() != io.server.is_empty(),
                "{conn:?} and {io:#?}"
            );
            if io.server.is_empty() {
                // Left to the director's own stack, which answers all but a reset with a reset.
                ensure!(
                    io.client.len() == usize::from(flags & RST == 0),
                    "flags {flags:#x}: {io:#?}"
                );
            }
            Ok(!io.server.is_empty())
        };
        for (flags, opens) in [
            (SYN, true),
            (SYN | ACK, true),
            (SYN | FIN, true),
            (SYN | RST, false),
            (ACK, false),
            (ACK | PSH, false),
            (FIN | ACK, false),
            (RST, false),
            (RST | ACK, false),
            (0, false),
        ] {
            if flags == 0 || flags == SYN | FIN {
                continue;
            }
            let opened = open(flags)?;
            ensure!(opened == opens, "flags {flags:#x}: opened is {opened}");
        }
        rig.topo.director.set_sysctl("net.ipv4.vs.sloppy_tcp", 1)?;
        for (flags, opens) in [
            (SYN, true),
            (ACK, true),
            (FIN | ACK, true),
            (RST, false),
            (RST | ACK, false),
            (SYN | RST, false),
        ] {
            let opened = open(flags)?;
            ensure!(
                opened == opens,
                "sloppy, flags {flags:#x}: opened is {opened}"
            );
        }
        rig.topo.director.set_sysctl("net.ipv4.vs.sloppy_tcp", 0)?;

        // Cut off in the layer 4 header: dropped for every address of the director while hooks are
        // there.
        let before = proc::conns(&rig.topo.director)?.len();
        for dst in [vip, at(vip.ip(), 81), at(family.director(), 80)] {
            for (proto, pkt, full) in [
                (TCP, Pkt::tcp(at(family.raw_client(1), 9), dst, SYN), 20),
                (UDP, Pkt::udp(at(family.raw_client(1), 9), dst, b""), 8),
            ] {
                let header = if family == Family::V4 { 20 } else { 40 };
                let l4 = pkt.bytes()[header..].to_vec();
                for len in 0..full {
                    let cut = Pkt {
                        proto,
                        ..pkt.clone()
                    }
                    .around(&l4[..len]);
                    let io = rig.exchange_raw(Side::Client, &[cut])?;
                    ensure!(
                        io.server.is_empty() && io.client.is_empty(),
                        "{len} bytes of {pkt:?}: {io:#?}"
                    );
                }
            }
        }
        ensure!(
            proc::conns(&rig.topo.director)?.len() == before,
            "a connection was made"
        );

        // Another port, another protocol, another address: not ours. The director's stack refuses
        // by itself.
        let client = at(family.raw_client(3), 4000);
        for pkt in [
            Pkt::tcp(client, at(vip.ip(), 81), SYN),
            Pkt::tcp(client, at(family.director(), 80), SYN),
            Pkt::udp(client, vip, b"x"),
        ] {
            let answer = rig.answered(&pkt)?;
            let refused = if pkt.proto == TCP {
                answer.flags & RST != 0
            } else {
                answer.icmp_type != 0
            };
            ensure!(refused, "{pkt:?} was answered by {answer:?}");
        }
        // Plain forwarding through the director is not touched either, nor is the same service over
        // the other family.
        let through = rig.forwarded(&Pkt::tcp(client, at(family.raw_rs(9), 80), SYN))?;
        ensure!(
            through.dest() == at(family.raw_rs(9), 80) && through.csum_ok,
            "{through:?}"
        );
        let other = if family == Family::V4 {
            Family::V6
        } else {
            Family::V4
        };
        let answer = rig.answered(&Pkt::tcp(
            at(other.raw_client(1), 4000),
            at(other.vip(), 80),
            SYN,
        ))?;
        ensure!(answer.flags & RST != 0, "{answer:?}");
        ensure!(
            proc::conns(&rig.topo.director)?.len() == before,
            "a connection was made"
        );

        // The same address and port for UDP is another service.
        let udp = at(family.raw_rs(2), 8080);
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {udp} -m"))?;
        let came = rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
        ensure!(came.dest() == udp, "{came:?}");
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == rs, "{came:?}");
    }
    Ok(())
}
