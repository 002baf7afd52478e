// SPDX-License-Identifier: GPL-2.0-or-later

//! SCTP by NAT and direct routing: ports, CRC32c and states; what begins an association; and AH and
//! ESP, which follow the ISAKMP connection.
//!
//! Proves checklist items 87, 88 and 89; for SCTP, 62 and 68.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use rvs_core::proto::sctp::{self, ChunkType, Event};
use rvs_core::proto::Direction;

use crate::ipvs::Ipvs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id};
use crate::pkt::{Pkt, ICMP, ICMPV6};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "sctp",
    "SCTP, and AH and ESP behind ISAKMP",
    &[87, 88, 89],
    run,
)
.partly(&[62, 68])
.timeout(60.0);

const SCTP: u8 = 132;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        packets(family).with_context(|| format!("packets, {family:?}"))?;
        begins(family).with_context(|| format!("what begins, {family:?}"))?;
        states(family, &mut Rng::new(cx.seed)).with_context(|| format!("states, {family:?}"))?;
        ipsec(family).with_context(|| format!("ipsec, {family:?}"))?;
    }
    Ok(())
}

/// An SCTP packet of one chunk after another.
fn sctp(src: SocketAddr, dst: SocketAddr, chunks: &[u8]) -> Pkt {
    let mut body = Vec::new();
    body.extend(src.port().to_be_bytes());
    body.extend(dst.port().to_be_bytes());
    body.extend(0x0102_0304u32.to_be_bytes());
    body.extend([0; 4]);
    for kind in chunks {
        body.extend([*kind, 0, 0, 8, 1, 2, 3, 4]);
    }
    let sum = CRC.checksum(&body).to_le_bytes();
    body[8..12].copy_from_slice(&sum);
    Pkt {
        body,
        ..Pkt::new(src.ip(), dst.ip(), SCTP)
    }
}

/// Ports and whether the checksum is right.
fn look(pkt: &Pkt) -> Result<(u16, u16, bool)> {
    ensure!(pkt.proto == SCTP && pkt.body.len() >= 16, "{pkt:?}");
    let mut body = pkt.body.clone();
    let sum = <[u8; 4]>::try_from(&body[8..12])?;
    body[8..12].fill(0);
    let port = |at: usize| u16::from_be_bytes([pkt.body[at], pkt.body[at + 1]]);
    Ok((port(0), port(2), CRC.checksum(&body).to_le_bytes() == sum))
}

fn rig(family: Family, port: u16, method: u32) -> Result<Rig> {
    let rig = Rig::new()?;
    let vip = at(family.vip(), 80);
    let ipvs = Ipvs::open(&rig.topo.director)?;
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(SCTP, vip, "rr")))?;
    let dest = dest_full(at(family.raw_rs(1), port), 1)
        .with(crate::ipvs::dest::FWD_METHOD, &method.to_ne_bytes());
    ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(SCTP, vip), &dest))?;
    Ok(rig)
}

fn packets(family: Family) -> Result<()> {
    let vip = at(family.vip(), 80);
    let client = at(family.raw_client(1), 4000);
    for port in [80, 9000] {
        let rig = rig(family, port, 0)?;
        let rs = at(family.raw_rs(1), port);
        let came = rig.forwarded(&sctp(client, vip, &[ChunkType::INIT]))?;
        ensure!(
            came.dst == rs.ip() && look(&came)? == (4000, port, true),
            "{came:?}: {:?}",
            look(&came)?
        );
        let back = rig.returned(&sctp(rs, client, &[ChunkType::INIT_ACK]))?;
        ensure!(
            back.src == vip.ip() && look(&back)? == (80, 4000, true),
            "{back:?}: {:?}",
            look(&back)?
        );
        // Where the port stays, so does the checksum, right or wrong.
        if port == 80 {
            let mut bad = sctp(client, vip, &[ChunkType::DATA]);
            bad.body[11] ^= 0x55;
            let came = rig.forwarded(&bad)?;
            ensure!(
                came.body[8..12] == bad.body[8..12] && !look(&came)?.2,
                "{came:?}"
            );
        }
        // An error about an answer finds the server.
        let answer = sctp(vip, client, &[ChunkType::DATA]);
        let (kind, code) = if family == Family::V4 { (3, 2) } else { (1, 4) };
        let error = Pkt::icmp_error(client.ip(), vip.ip(), kind, code, 0, &answer.bytes());
        let came = rig.forwarded(&error)?;
        ensure!(
            matches!(came.proto, ICMP | ICMPV6) && came.dst == rs.ip() && came.csum_ok,
            "{came:?}"
        );
    }
    // Direct routing leaves all as it is.
    let rig = rig(family, 80, 3)?;
    let sent = sctp(client, vip, &[ChunkType::INIT]);
    let came = rig.forwarded(&sent)?;
    ensure!(came.dst == vip.ip() && came.body == sent.body, "{came:?}");
    let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
    ensure!(conn.proto == "SCTP" && conn.state == "INIT1", "{conn:?}");
    Ok(())
}

fn begins(family: Family) -> Result<()> {
    let rig = rig(family, 80, 0)?;
    let vip = at(family.vip(), 80);
    let passes = |port: u16, chunks: &[u8]| -> Result<bool> {
        let client = at(family.raw_client(1), port);
        let io = rig.exchange(Side::Client, &[sctp(client, vip, chunks)])?;
        Ok(io.server.iter().any(|f| f.pkt.proto == SCTP))
    };
    ensure!(passes(1, &[ChunkType::INIT])?, "INIT");
    for kind in [ChunkType::DATA, ChunkType::COOKIE_ECHO, ChunkType::ABORT] {
        ensure!(!passes(10 + u16::from(kind), &[kind])?, "chunk {kind}");
    }
    // Too short for a chunk.
    ensure!(!passes(2, &[])?, "no chunk");
    rig.topo.director.set_sysctl("net.ipv4.vs.sloppy_sctp", 1)?;
    ensure!(passes(3, &[ChunkType::DATA])?, "sloppy DATA");
    ensure!(!passes(4, &[ChunkType::ABORT])?, "sloppy ABORT");
    Ok(())
}

fn states(family: Family, rng: &mut Rng) -> Result<()> {
    const KINDS: [u8; 11] = [
        ChunkType::DATA,
        ChunkType::INIT_ACK,
        ChunkType::SACK,
        ChunkType::ABORT,
        ChunkType::SHUTDOWN,
        ChunkType::SHUTDOWN_ACK,
        ChunkType::ERROR,
        ChunkType::COOKIE_ECHO,
        ChunkType::COOKIE_ACK,
        ChunkType::ECN_CWR,
        ChunkType::SHUTDOWN_COMPLETE,
    ];
    let rig = rig(family, 80, 0)?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 80));
    let mut active = 0;
    for walk in 0..rounds(40) as u16 {
        let client = at(family.raw_client(1), 5000 + walk);
        rig.forwarded(&sctp(client, vip, &[ChunkType::INIT]))?;
        let mut state = sctp::transition(Direction::Input, 0, Event::Init);
        for step in 0..6 {
            // The first steps lead somewhere.
            let (kind, from_client) = match (walk % 2, step) {
                (0, 0) => (ChunkType::INIT_ACK, false),
                (0, 1) => (ChunkType::COOKIE_ECHO, true),
                (0, 2) => (ChunkType::COOKIE_ACK, false),
                _ => (KINDS[rng.below(KINDS.len())], rng.chance(2)),
            };
            let (dir, side, pkt) = if from_client {
                (Direction::Input, Side::Client, sctp(client, vip, &[kind]))
            } else {
                (Direction::Output, Side::Server, sctp(rs, client, &[kind]))
            };
            rig.exchange(side, &[pkt])?;
            state = sctp::transition(dir, state, Event::of_chunk(kind));
            let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
            ensure!(
                conn.state == sctp::state_name(state),
                "walk {walk}: chunk {kind} ({dir:?}) leads to {}, expected {}",
                conn.state,
                sctp::state_name(state)
            );
            let limit = sctp::DEFAULT_TIMEOUT_SECS[usize::from(state)];
            ensure!(conn.expires <= limit, "{conn:?}, at most {limit}");
        }
        active += u32::from(sctp::is_active(state));
    }
    let dest = ipvs.dest(SCTP, vip, rs)?;
    ensure!(active > 0 && dest.active == active, "{active}: {dest:?}");
    Ok(())
}

/// AH and ESP go where UDP from port 500 to port 500 went.
fn ipsec(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 500), at(family.raw_rs(1), 500));
    let client = at(family.raw_client(1), 500);
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    // Bytes that IPv6 can take for a header: 24 of them, the first ones with no meaning here.
    let packet = |src: SocketAddr, dst: SocketAddr, proto: u8| Pkt {
        body: vec![
            59, 4, 0, 0, 9, 9, 9, 9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        ],
        ..Pkt::new(src.ip(), dst.ip(), proto)
    };
    let protos: &[u8] = if family == Family::V4 {
        &[50, 51]
    } else {
        &[50]
    };
    for proto in protos {
        let io = rig.exchange(Side::Client, &[packet(client, vip, *proto)])?;
        ensure!(io.server.is_empty(), "before ISAKMP: {io:#?}");
    }
    rig.forwarded(&Pkt::udp(client, vip, b"isakmp"))?;
    for proto in protos {
        let sent = packet(client, vip, *proto);
        let came = rig.forwarded(&sent)?;
        ensure!(
            came.dst == rs.ip() && came.proto == *proto && came.body == sent.body,
            "{came:?}"
        );
        let back = rig.returned(&packet(rs, client, *proto))?;
        ensure!(back.src == vip.ip() && back.proto == *proto, "{back:?}");
        // Another client's have no connection to follow.
        let other = at(family.raw_client(2), 500);
        let io = rig.exchange(Side::Client, &[packet(other, vip, *proto)])?;
        ensure!(io.server.is_empty(), "another client: {io:#?}");
    }
    let conns = proc::conns(&rig.topo.director)?;
    ensure!(conns.len() == 1 && conns[0].proto == "UDP", "{conns:#?}");
    Ok(())
}
