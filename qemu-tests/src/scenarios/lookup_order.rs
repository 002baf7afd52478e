// SPDX-License-Identifier: GPL-2.0-or-later

//! The order in which services are looked up: by address and port, then the FTP service of the address for what may be one of its
//! data connections, then the service of all ports; and the same address and port for different protocols and families.
//!
//! Proves checklist items 41 (with lookup), 42, 43 and 45.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ICMP, ICMPV6, RST, SYN};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "lookup_order",
    "address and port, FTP, all ports; protocols and families apart",
    &[41, 42, 45],
    run,
)
.partly(&[43]);

const SCTP: u8 = 132;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        order(family).with_context(|| format!("order, {family:?}"))?;
    }
    apart()
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It went to this server, to this port.
    To(u8, u16),
    /// It was let through to the director's own stack, where nobody listens.
    Here,
    /// The client was told that nobody is there.
    Unreachable,
}

fn order(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let mut port = 4000;
    // Another one where the templates of the last must not count: those of an FTP service and of one of all ports are found
    // by the same key.
    let host = std::cell::Cell::new(1);
    let mut expect = |dport: u16, udp: bool, want: Fate| -> Result<()> {
        port += 1;
        let (from, to) = (
            at(family.raw_client(host.get()), port),
            at(family.vip(), dport),
        );
        let pkt = if udp {
            Pkt::udp(from, to, b"x")
        } else {
            Pkt::tcp(from, to, SYN)
        };
        let io = rig.exchange(Side::Client, &[pkt])?;
        let got = match (io.server_pkts().as_slice(), io.client_pkts().as_slice()) {
            ([there], []) => (1..=6)
                .find(|n| there.dst == family.raw_rs(*n))
                .map(|n| Fate::To(n, there.dport)),
            ([], [back]) if back.flags & RST != 0 => Some(Fate::Here),
            ([], [back]) if [ICMP, ICMPV6].contains(&back.proto) => Some(Fate::Unreachable),
            _ => None,
        };
        ensure!(
            got == Some(want),
            "port {dport}: {got:?}, not {want:?}: {io:#?}"
        );
        Ok(())
    };
    let vip = |port| at(family.vip(), port);
    let rs = |n, port| at(family.raw_rs(n), port);
    let add = |kind: &str, service: SocketAddr, more: &str, server: SocketAddr| -> Result<()> {
        rig.ipvsadm(&format!("-A {kind} {service} -s rr {more}"))?;
        rig.ipvsadm(&format!("-a {kind} {service} -r {server} -m"))
            .map(drop)
    };
    add("-t", vip(8000), "", rs(1, 80))?;
    expect(8000, false, Fate::To(1, 80))?;
    expect(8001, false, Fate::Here)?;

    // All ports.
    add("-t", vip(0), "-p 60", rs(2, 0))?;
    expect(8000, false, Fate::To(1, 80))?;
    expect(8001, false, Fate::To(2, 8001))?;
    expect(21, false, Fate::To(2, 21))?;

    host.set(2);
    // An FTP service attracts what may be one of its data connections, but has no server for it without persistence.
    add("-t", vip(21), "", rs(3, 21))?;
    expect(21, false, Fate::To(3, 21))?;
    expect(8000, false, Fate::To(1, 80))?;
    expect(8001, false, Fate::Here)?;
    expect(20, false, Fate::Here)?;
    // Privileged ports are none of them; what those are is the namespace's to say.
    expect(99, false, Fate::To(2, 99))?;
    director.set_sysctl("net.ipv4.ip_unprivileged_port_start", 90)?;
    expect(99, false, Fate::Here)?;
    director.set_sysctl("net.ipv4.ip_unprivileged_port_start", 1024)?;
    host.set(3);
    // With it, they go where the client's control connection goes.
    rig.ipvsadm(&format!("-E -t {} -s rr -p 60", vip(21)))?;
    expect(21, false, Fate::To(3, 21))?;
    expect(8001, false, Fate::To(3, 8001))?;
    expect(20, false, Fate::To(3, 20))?;
    // UDP has no such thing.
    add("-u", vip(0), "-p 60", rs(4, 0))?;
    add("-u", vip(21), "", rs(5, 21))?;
    expect(21, true, Fate::To(5, 21))?;
    expect(8001, true, Fate::To(4, 8001))?;

    // Nobody to send it to: a client of the control port is told, others are not.
    rig.ipvsadm(&format!("-d -t {} -r {}", vip(21), rs(3, 21)))?;
    rig.ipvsadm(&format!("-E -t {} -s rr", vip(21)))?;
    expect(21, false, Fate::Unreachable)?;
    expect(8001, false, Fate::Here)?;
    rig.ipvsadm(&format!("-d -t {} -r {}", vip(8000), rs(1, 80)))?;
    expect(8000, false, Fate::Unreachable)?;

    // A mark before them all.
    let six = if family == Family::V6 { " -6" } else { "" };
    director.cmd("nft add table inet t")?;
    director.cmd("nft add chain inet t pre { type filter hook prerouting priority -150 ; }")?;
    director.cmd("nft add rule inet t pre tcp dport { 21, 8000 } meta mark set 7")?;
    rig.ipvsadm(&format!("-A -f 7{six} -s rr"))?;
    rig.ipvsadm(&format!("-a -f 7{six} -r {} -m", rs(6, 0)))?;
    expect(21, false, Fate::To(6, 21))?;
    expect(8000, false, Fate::To(6, 8000))
}

/// One address and port, three protocols, two families.
fn apart() -> Result<()> {
    let rig = Rig::new()?;
    let mut all = Vec::new();
    for family in Family::BOTH {
        for (n, kind) in (1u8..).zip(["-t", "-u", "--sctp-service"]) {
            let vip = at(family.vip(), 80);
            let rs = at(family.raw_rs(n), 8000 + u16::from(n));
            rig.ipvsadm(&format!("-A {kind} {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a {kind} {vip} -r {rs} -m"))?;
            let client = at(family.raw_client(1), 4000);
            let pkt = match n {
                1 => Pkt::tcp(client, vip, SYN),
                2 => Pkt::udp(client, vip, b"x"),
                _ => {
                    // Ports, a verification tag of zero, a checksum that is not looked at, INIT.
                    let mut body = Vec::new();
                    body.extend(client.port().to_be_bytes());
                    body.extend(vip.port().to_be_bytes());
                    body.extend([0; 8]);
                    body.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
                    Pkt {
                        body,
                        ..Pkt::new(client.ip(), vip.ip(), SCTP)
                    }
                }
            };
            all.push((pkt, rs));
        }
    }
    for (pkt, rs) in &all {
        let came = rig.forwarded(pkt)?;
        let port = if came.proto == SCTP {
            came.body
                .get(2..4)
                .map(|p| u16::from_be_bytes([p[0], p[1]]))
                .context("no port")?
        } else {
            came.dport
        };
        ensure!(at(came.dst, port) == *rs, "{came:?}, not to {rs}");
    }
    Ok(())
}
