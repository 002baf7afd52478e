// SPDX-License-Identifier: GPL-2.0-or-later

//! What a real server is recognised by changes with the method, the port stays: behind NAT its packets of no connection are refused
//! with `nat_icmp_send`; with another method they are anybody's, and they are refused again when it is NAT again. The same when the
//! service that has it by NAT is one of several, and when it is removed.
//!
//! A tunnel is recognised by its type and its port: errors of routers on its way come through, of the one that was before they do
//! not.
//!
//! Proves checklist item 64.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, ICMP, ICMPV6, SYN};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "edit_method",
    "a destination that gets another method is recognised by that",
    &[64],
    run,
);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.nat_icmp_send", 1)?;
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 80));
        let stranger = at(family.raw_client(2), 4000);
        let other = at(family.vip(), 81);
        let refused = |expected: bool, when: &str| -> Result<()> {
            let io = rig.exchange(Side::Server, &[Pkt::tcp(rs, stranger, SYN | ACK)])?;
            let told = io
                .server
                .iter()
                .any(|f| [ICMP, ICMPV6].contains(&f.pkt.proto));
            ensure!(
                told == expected && io.client.is_empty() == expected,
                "{when}: {io:#?}"
            );
            Ok(())
        };
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-A -t {other} -s rr"))?;
        refused(false, "nobody's")?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        refused(true, "NAT")?;
        for method in ["-g", "-i"] {
            rig.ipvsadm(&format!("-e -t {vip} -r {rs} {method}"))?;
            refused(false, method)?;
            rig.ipvsadm(&format!("-e -t {vip} -r {rs} -m"))?;
            refused(true, "NAT again")?;
        }
        // Of two destinations that look the same from outside, one is enough.
        rig.ipvsadm(&format!("-a -t {other} -r {rs} -m"))?;
        rig.ipvsadm(&format!("-e -t {vip} -r {rs} -g"))?;
        refused(true, "NAT of the other")?;
        rig.ipvsadm(&format!("-d -t {other} -r {rs}"))?;
        refused(false, "the other is gone")?;
        rig.ipvsadm(&format!("-e -t {vip} -r {rs} -m"))?;
        refused(true, "NAT of the first")?;
        rig.ipvsadm(&format!("-D -t {vip}"))?;
        refused(false, "the service is gone")?;
    }
    tunnels()
}

/// An error about a packet in a tunnel comes to the client if the real server is known by such a tunnel.
fn tunnels() -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 80));
    let client = at(Family::V4.raw_client(1), 4000);
    let ways = [
        "-i --tun-type ipip",
        "-i --tun-type gue --tun-port 6080",
        "-i --tun-type gue --tun-port 6081",
        "-i --tun-type gre",
    ];
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} {}", ways[0]))?;
    // What each way puts out.
    let mut sent = Vec::new();
    for way in ways {
        rig.ipvsadm(&format!("-e -t {vip} -r {rs} {way}"))?;
        let flags = if sent.is_empty() { SYN } else { ACK };
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client, vip, flags)])?;
        let frame = io.server.first().context("nothing came")?;
        sent.push(frame.raw.clone());
    }
    let director = Family::V4.director_at(1);
    let told = |raw: &[u8]| -> Result<bool> {
        let error = Pkt::icmp_error(rs.ip(), director, 3, 1, 0, raw);
        let io = rig.exchange(Side::Server, &[error])?;
        Ok(io.client.iter().any(|f| f.pkt.proto == ICMP))
    };
    // Back and forth, so that each comes after each.
    for now in [0, 1, 2, 3, 2, 1, 3, 0, 2, 0, 3, 1, 0] {
        let way = ways[now];
        rig.ipvsadm(&format!("-e -t {vip} -r {rs} {way}"))?;
        for (old, raw) in sent.iter().enumerate() {
            let told = told(raw)?;
            ensure!(told == (old == now), "{way}: about {}: {told}", ways[old]);
        }
    }
    for other in ["-m", "-g"] {
        rig.ipvsadm(&format!("-e -t {vip} -r {rs} {other}"))?;
        ensure!(!told(&sent[0])?, "{other}: a tunnel is still known");
    }
    Ok(())
}
