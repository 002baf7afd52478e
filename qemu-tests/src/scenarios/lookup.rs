// SPDX-License-Identifier: GPL-2.0-or-later

//! Which service a packet belongs to: by firewall mark, by protocol, address and port, and what a
//! service of port 0 does without persistence; a live service's scheduler is changed.
//!
//! Proves checklist items 9, 41 (without FTP), 43 (non-persistent), 44 and 58.

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, for_svc, svc, svc_full, Ipvs};
use crate::pkt::{Pkt, SYN, TCP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "lookup",
    "service lookup by mark, address and port 0; changing schedulers",
    &[9, 44, 58],
    run,
)
.partly(&[41, 43]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let rs = |host| at(family.raw_rs(host), 80);
        let vip = at(family.vip(), 80);
        let mut port = 4000;
        let mut to = |dst, expect: Option<std::net::SocketAddr>| -> Result<()> {
            port += 1;
            let io = rig.exchange(
                crate::rig::Side::Client,
                &[Pkt::tcp(at(family.raw_client(1), port), dst, SYN)],
            )?;
            let got = io.server.first().map(|f| f.pkt.dest());
            ensure!(got == expect, "to {dst}: {got:?}, expected {expect:?}");
            Ok(())
        };
        let six = if family == Family::V6 { " -6" } else { "" };
        let zero = at(family.vip(), 0);
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {} -m", rs(1)))?;
        to(vip, Some(rs(1)))?;

        // Every packet to ports 80 to 99 gets the mark 7. A mark without a service changes nothing.
        rig.topo.director.cmd("nft add table inet t")?;
        rig.topo
            .director
            .cmd("nft add chain inet t pre { type filter hook prerouting priority -150 ; }")?;
        rig.topo
            .director
            .cmd("nft add rule inet t pre tcp dport 80-99 meta mark set 7")?;
        to(vip, Some(rs(1)))?;
        // With one, the mark comes first, and protocol and port do not matter: the port is kept
        // when the server's is 0.
        rig.ipvsadm(&format!("-A -f 7{six} -s rr"))?;
        let any = if family == Family::V4 {
            "10.8.1.2:0".to_owned()
        } else {
            "[fd08:1::2]:0".to_owned()
        };
        rig.ipvsadm(&format!("-a -f 7{six} -r {any} -m"))?;
        to(vip, Some(rs(2)))?;
        to(at(family.vip(), 99), Some(at(family.raw_rs(2), 99)))?;
        to(at(family.vip(), 100), None)?;
        // Another family's mark is another service.
        rig.ipvsadm(&format!("-D -f 7{six}"))?;
        to(vip, Some(rs(1)))?;
        rig.topo.director.cmd("nft delete table inet t")?;

        // A service of port 0 takes no packet without persistence: those of other ports are
        // refused, those of port 80 have their own.
        let ipvs = Ipvs::open(&rig.topo.director)?;
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, zero, "rr")))?;
        rig.ipvsadm(&format!("-a -t {zero} -r {any} -m"))
            .context("a server of a port 0 service")?;
        to(at(family.vip(), 81), None)?;
        to(vip, Some(rs(1)))?;
        rig.ipvsadm(&format!("-D -t {zero}"))?;

        // The scheduler of a live service: rr goes around, wlc looks at the connections made so far
        // (1 has them all).
        rig.ipvsadm(&format!("-a -t {vip} -r {} -m", rs(3)))?;
        rig.ipvsadm(&format!("-E -t {vip} -s wlc"))?;
        for _ in 0..3 {
            to(vip, Some(rs(3)))?;
        }
        rig.ipvsadm(&format!("-E -t {vip} -s rr"))?;
        to(vip, Some(rs(3)))?;
        to(vip, Some(rs(1)))?;
        to(vip, Some(rs(3)))?;
        // An unknown one leaves the old one at work; "none" finds nobody.
        let bad = svc_full(TCP, vip, "nonesuch");
        ensure!(
            ipvs.call(cmd::SET_SERVICE, &for_svc(&bad))?.errno == libc::ENOENT,
            "an unknown scheduler"
        );
        to(vip, Some(rs(1)))?;
        let none: Attrs = svc_full(TCP, vip, "rr").with(svc::SCHED_NAME, b"none\0");
        ipvs.ok(cmd::SET_SERVICE, &for_svc(&none))?;
        to(vip, None)?;
        ensure!(
            ipvs.service(TCP, vip)?.sched == "none",
            "{:?}",
            ipvs.service(TCP, vip)?
        );
        rig.ipvsadm(&format!("-E -t {vip} -s lc"))?;
        to(vip, Some(rs(1))).or_else(|_| to(vip, Some(rs(3))))?;
    }
    Ok(())
}
