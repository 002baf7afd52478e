// SPDX-License-Identifier: GPL-2.0-or-later

//! What a real server is recognised by changes with the method, the port stays: behind NAT its packets of no connection are refused
//! with `nat_icmp_send`; with another method they are anybody's, and they are refused again when it is NAT again. The same when the
//! service that has it by NAT is one of several, and when it is removed.
//!
//! Proves checklist item 64 (methods; of tunnels tunnel and icmp_tunnels say more).

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, ACK, ICMP, ICMPV6, SYN};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "edit_method",
    "a destination that gets another method is recognised by that",
    &[],
    run,
)
.partly(&[64]);

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
    Ok(())
}
