// SPDX-License-Identifier: GPL-2.0-or-later

//! ICMP errors about tunnelled packets: the client hears of them as of its own packet, from the virtual address, with the length
//! that a tunnel leaves; the director remembers the path's MTU. Errors about what is no tunnel of its own, or about no
//! connection, are the director's.
//!
//! Proves checklist item 98.

use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Context, Result};

use crate::pkt::{octets, sum, Pkt, ACK, ICMP, SYN};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::tap::Frame;
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "icmp_tunnels",
    "errors about tunnels are told to the client",
    &[98],
    run,
);

const PORT: u16 = 6080;

const KINDS: [(&str, usize); 5] = [
    ("-i", 20),
    ("-i --tun-type gue --tun-port 6080 --tun-nocsum", 32),
    ("-i --tun-type gue --tun-port 6080 --tun-csum", 32),
    ("-i --tun-type gre --tun-nocsum", 24),
    ("-i --tun-type gre --tun-csum", 28),
];

fn run(_cx: &Cx) -> Result<()> {
    for (flags, overhead) in KINDS {
        relayed(flags, overhead).with_context(|| flags.to_owned())?;
    }
    left_alone()?;
    six()
}

struct Test {
    rig: Rig,
    vip: SocketAddr,
    rs: IpAddr,
    client: SocketAddr,
}

fn test(family: Family, flags: &str) -> Result<Test> {
    let rig = Rig::new()?;
    rig.topo.director.cmd("ethtool -K s1 tx off")?;
    let (vip, rs) = (at(family.vip(), 80), family.raw_rs(1));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {} {flags}", at(rs, 80)))?;
    Ok(Test {
        rig,
        vip,
        rs,
        client: at(family.raw_client(1), 4000),
    })
}

impl Test {
    /// Sends a request; the tunnel's packet as it arrives.
    fn tunnelled(&self, pkt: &Pkt) -> Result<Frame> {
        let io = self.rig.exchange(Side::Client, std::slice::from_ref(pkt))?;
        ensure!(
            io.server.len() == 1 && io.client.is_empty(),
            "sent {pkt:?}: {io:#?}"
        );
        io.server.into_iter().next().context("no frame")
    }

    fn error(&self, from: IpAddr, kind: (u8, u8), rest: u32, about: &[u8]) -> Pkt {
        let to = Family::of(self.rs).director_at(1);
        Pkt::icmp_error(from, to, kind.0, kind.1, rest, about)
    }
}

fn relayed(flags: &str, overhead: usize) -> Result<()> {
    let t = test(Family::V4, flags)?;
    t.tunnelled(&Pkt::tcp(t.client, t.vip, SYN))?;
    let big = Pkt {
        df: true,
        body: vec![7; 1000],
        ..Pkt::tcp(t.client, t.vip, ACK)
    };
    let there = t.tunnelled(&big)?.raw;
    let told = |came: &Pkt, kind: (u8, u8), rest: u32| -> Result<()> {
        ensure!(
            came.proto == ICMP
                && came.src == t.vip.ip()
                && came.dst == t.client.ip()
                && (came.icmp_type, came.icmp_code, came.icmp_rest) == (kind.0, kind.1, rest)
                && came.csum_ok,
            "expected {kind:?} with {rest}: {came:?}"
        );
        // It is about what the client sent, as far as the error quotes it: addresses and ports.
        ensure!(
            came.body.len() >= 28 && came.body[12..28] == big.bytes()[12..28],
            "it quotes {:02x?}",
            came.body
        );
        Ok(())
    };
    // From the server itself and a router before it; with all of the packet, and with as little as may be.
    let least = overhead + 20 + 8;
    for (kind, rest) in [((3, 1), 0), ((3, 13), 0), ((11, 0), 0), ((4, 0), 0)] {
        for from in [t.rs, Family::V4.raw_rs(99)] {
            for len in [there.len(), least] {
                let error = t.error(from, kind, rest, &there[..len]);
                let io = t.rig.exchange(Side::Server, &[error])?;
                told(&io.one_at_client()?, kind, rest)?;
            }
        }
    }
    // Too short for the ports: nothing to tell.
    let short = t.error(t.rs, (3, 1), 0, &there[..least - 5]);
    t.rig.dropped(Side::Server, &short)?;
    // A broken checksum.
    let error = t.error(t.rs, (3, 1), 0, &there);
    let right = Pkt::parse(&error.bytes(), false)?
        .csum
        .context("checksum")?;
    t.rig.dropped(
        Side::Server,
        &Pkt {
            csum: Some(right ^ 0x0400),
            ..error
        },
    )?;

    // The path is narrower than the director knows: a client that does not let its packets be fragmented hears of it. The
    // director may tell the length that it went by itself; the next packet finds what is true.
    let narrow = 900;
    let answer = t.error(t.rs, (3, 4), narrow, &there);
    let io = t.rig.exchange(Side::Server, &[answer])?;
    let came = io.one_at_client()?;
    let room = came.icmp_rest as usize;
    ensure!(
        room == narrow as usize - overhead || room == 1500 - overhead,
        "room for {room}"
    );
    told(&came, (3, 4), came.icmp_rest)?;
    let again = t.rig.answered(&big)?;
    ensure!(
        (again.icmp_type, again.icmp_code) == (3, 4)
            && again.icmp_rest as usize == narrow as usize - overhead,
        "{again:?}"
    );
    // From now on the director tells that number.
    let io = t.rig.exchange(
        Side::Server,
        &[t.error(t.rs, (3, 4), narrow, &there[..least])],
    )?;
    told(&io.one_at_client()?, (3, 4), narrow - overhead as u32)?;
    let fits = Pkt {
        body: vec![7; narrow as usize - overhead - 40],
        ..big.clone()
    };
    ensure!(
        t.tunnelled(&fits)?.raw.len() == narrow as usize,
        "what fits does not arrive"
    );

    // Whoever lets its packets be fragmented is not told.
    let loose = Pkt { df: false, ..fits };
    let there = t.tunnelled(&loose)?.raw;
    t.rig
        .dropped(Side::Server, &t.error(t.rs, (3, 4), 800, &there))?;
    let count = t.rig.exchange(Side::Client, &[loose])?.server.len();
    ensure!(count == 2, "{count} packets, where two fragments are due");
    Ok(())
}

/// What looks like one of our tunnels and is none.
fn left_alone() -> Result<()> {
    let t = test(Family::V4, KINDS[0].0)?;
    t.tunnelled(&Pkt::tcp(t.client, t.vip, SYN))?;
    let there = t.tunnelled(&Pkt::tcp(t.client, t.vip, ACK))?.raw;
    let refused = |what: &str, about: &[u8]| -> Result<()> {
        t.rig
            .dropped(Side::Server, &t.error(t.rs, (3, 1), 0, about))
            .with_context(|| what.to_owned())
    };
    let edited = |edit: &dyn Fn(&mut Vec<u8>)| -> Vec<u8> {
        let mut raw = there.clone();
        edit(&mut raw);
        raw[10..12].fill(0);
        let check = !(sum(&raw[..20], 0) as u16);
        raw[10..12].copy_from_slice(&check.to_be_bytes());
        raw
    };
    refused(
        "to another server",
        &edited(&|raw| raw[16..20].copy_from_slice(&octets(Family::V4.raw_rs(2)))),
    )?;
    refused("a later fragment", &edited(&|raw| raw[7] = 3))?;
    refused(
        "another client",
        &edited(&|raw| raw[32..36].copy_from_slice(&octets(Family::V4.raw_client(2)))),
    )?;
    refused("GRE", &edited(&|raw| raw[9] = 47))?;
    refused("not IPv4", &edited(&|raw| raw[20] = 0x65))?;
    // A GUE header that is not for data, where the tunnel is GUE.
    t.rig.ipvsadm(&format!(
        "-e -t {} -r {} -i --tun-type gue --tun-port {PORT}",
        t.vip,
        at(t.rs, 80)
    ))?;
    let gue = t.tunnelled(&Pkt::tcp(t.client, t.vip, ACK))?.raw;
    let good = t.error(t.rs, (3, 1), 0, &gue);
    t.rig
        .exchange(Side::Server, &[good])?
        .one_at_client()
        .context("GUE")?;
    for (n, bits) in [(28, 0x20), (28, 0x40), (29, 41), (22, 0xff)] {
        let mut raw = gue.clone();
        raw[n] ^= bits;
        refused(&format!("byte {n}"), &raw)?;
    }
    // IPIP is not this destination's tunnel any more.
    refused("the old tunnel", &there)
}

/// Over IPv6 nothing is told: C has it for IPv4 only.
fn six() -> Result<()> {
    for (flags, _) in KINDS {
        let t = test(Family::V6, flags)?;
        let there = t.tunnelled(&Pkt::tcp(t.client, t.vip, SYN))?.raw;
        for kind in [(1, 0), (3, 0)] {
            t.rig
                .dropped(Side::Server, &t.error(t.rs, kind, 0, &there))
                .with_context(|| flags.to_owned())?;
        }
    }
    Ok(())
}
