// SPDX-License-Identifier: GPL-2.0-or-later

//! ICMP errors about connections, in both directions: addresses and ports inside and outside are
//! translated, checksums are right, a broken checksum drops the error, and an error about nothing
//! known passes untouched.
//!
//! Proves checklist items 93, 94 and 97: icmp_tunnels has the checksums of errors about tunnels, a host test of `rvs_core` the
//! embedded header that changes while it is read.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, ICMP, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "icmp_errors",
    "ICMP errors are translated in both directions",
    &[93, 94, 97],
    run,
);

/// Type, code and the rest of the header.
fn kinds(family: Family) -> Vec<(u8, u8, u32)> {
    match family {
        Family::V4 => vec![(3, 1, 0), (3, 3, 0), (3, 4, 1200), (11, 0, 0), (4, 0, 0)],
        Family::V6 => vec![(1, 0, 0), (1, 4, 0), (2, 0, 1280), (3, 0, 0), (4, 1, 40)],
    }
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for tcp in [true, false] {
            errors(family, tcp)
                .with_context(|| format!("{family:?}, {}", if tcp { "TCP" } else { "UDP" }))?;
        }
    }
    Ok(())
}

fn errors(family: Family, tcp: bool) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 8080),
        at(family.raw_client(1), 4000),
    );
    let kind = if tcp { "-t" } else { "-u" };
    rig.ipvsadm(&format!("-A {kind} {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a {kind} {vip} -r {rs} -m"))?;
    let make = |from, to, flags| {
        if tcp {
            Pkt::tcp(from, to, flags)
        } else {
            Pkt::udp(from, to, b"payload")
        }
    };
    rig.forwarded(&make(client, vip, SYN))?;
    let answer = rig.returned(&make(rs, client, SYN | ACK))?;

    for (icmp_type, code, rest) in kinds(family) {
        // From the server's side: the server itself, and a router before it (whose address the
        // client must not see).
        for from in [rs.ip(), family.raw_rs(99)] {
            let inner = make(client, rs, ACK);
            let error = Pkt::icmp_error(from, client.ip(), icmp_type, code, rest, &inner.bytes());
            let came = rig
                .returned(&error)
                .with_context(|| format!("type {icmp_type} code {code} from {from}"))?;
            ensure!(came.csum_ok, "{came:?}");
            ensure!(came.src == vip.ip() && came.dst == client.ip(), "{came:?}");
            ensure!(
                (came.icmp_type, came.icmp_code, came.icmp_rest) == (icmp_type, code, rest),
                "{came:?}"
            );
            let quoted = Pkt::parse(&came.body, false)?;
            ensure!(
                quoted.source() == client && quoted.dest() == vip,
                "it quotes {quoted:?}"
            );
        }
        // From the client's side, about a reply.
        for from in [client.ip(), family.raw_client(99)] {
            let error = Pkt::icmp_error(from, vip.ip(), icmp_type, code, rest, &answer.bytes());
            let came = rig
                .forwarded(&error)
                .with_context(|| format!("type {icmp_type} code {code} from {from}"))?;
            ensure!(came.csum_ok, "{came:?}");
            ensure!(came.src == from && came.dst == rs.ip(), "{came:?}");
            ensure!(
                (came.icmp_type, came.icmp_code, came.icmp_rest) == (icmp_type, code, rest),
                "{came:?}"
            );
            ensure!(came.ttl == error.ttl - 1, "{came:?}");
            let quoted = Pkt::parse(&came.body, false)?;
            ensure!(
                quoted.source() == rs && quoted.dest() == client,
                "it quotes {quoted:?}"
            );
        }
    }

    // A broken ICMP checksum: dropped.
    let (icmp_type, code, rest) = kinds(family)[1];
    let error = Pkt::icmp_error(
        rs.ip(),
        client.ip(),
        icmp_type,
        code,
        rest,
        &make(client, rs, ACK).bytes(),
    );
    let right = Pkt::parse(&error.bytes(), false)?
        .csum
        .context("checksum")?;
    rig.dropped(
        Side::Server,
        &Pkt {
            csum: Some(right ^ 0x0400),
            ..error
        },
    )?;
    let error = Pkt::icmp_error(
        client.ip(),
        vip.ip(),
        icmp_type,
        code,
        rest,
        &answer.bytes(),
    );
    let right = Pkt::parse(&error.bytes(), false)?
        .csum
        .context("checksum")?;
    rig.dropped(
        Side::Client,
        &Pkt {
            csum: Some(right ^ 0x0400),
            ..error
        },
    )?;

    // About a connection that is not known: from the server's side it passes as it is.
    let stranger = at(family.raw_client(2), 4000);
    let inner = make(stranger, rs, ACK);
    let error = Pkt::icmp_error(
        rs.ip(),
        stranger.ip(),
        icmp_type,
        code,
        rest,
        &inner.bytes(),
    );
    let came = rig.returned(&error)?;
    ensure!(
        came.src == rs.ip() && came.body == inner.bytes() && came.csum_ok,
        "{came:?}"
    );
    // To the VIP it ends there, without making a connection.
    let about = Pkt::icmp_error(
        stranger.ip(),
        vip.ip(),
        icmp_type,
        code,
        rest,
        &make(vip, stranger, ACK).bytes(),
    );
    rig.dropped(Side::Client, &about)?;
    ensure!(
        proc::conns(&rig.topo.director)?.len() == 1,
        "{:?}",
        proc::conns(&rig.topo.director)?
    );

    // The VIP still answers pings.
    let echo = if family == Family::V4 {
        (8, 0)
    } else {
        (128, 129)
    };
    let mut ping = Pkt::icmp_error(client.ip(), vip.ip(), echo.0, 0, 0x1234_0001, b"ping");
    ping.proto = if family == Family::V4 {
        ICMP
    } else {
        ping.proto
    };
    let pong = rig.answered(&ping)?;
    ensure!(
        pong.icmp_type == echo.1 && pong.src == vip.ip() && pong.body == b"ping",
        "{pong:?}"
    );
    Ok(())
}
