// SPDX-License-Identifier: GPL-2.0-or-later

//! FullNAT and what is not TCP or UDP: ICMP errors both ways with what they embed, path MTU discovery both ways, SCTP; and
//! replies to local addresses that the director has on an interface.

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, is_local, local, one, Segment};
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, ACK, ICMP, ICMPV6, SYN, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_icmp",
    "ICMP errors, path MTU and SCTP through FullNAT",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

pub(super) const SCTP: u8 = 132;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        errors(family).with_context(|| format!("errors, {family:?}"))?;
        sctp(family).with_context(|| format!("SCTP, {family:?}"))?;
        for side in [Side::Client, Side::Server] {
            transfer(family, side).with_context(|| format!("{family:?}, narrow at {side:?}"))?;
        }
    }
    Ok(())
}

fn errors(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 8080),
        at(family.raw_client(1), 4000),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
    let syn = one(&rig, Side::Client, &Segment::new(client, vip, SYN, 100, 0))?;
    let (seat, first) = (syn.from, syn.seq.wrapping_add(1));
    one(
        &rig,
        Side::Server,
        &Segment::new(rs, seat, SYN | ACK, 800, first),
    )?;
    one(
        &rig,
        Side::Client,
        &Segment::new(client, vip, ACK, 101, 801),
    )?;

    let kinds: &[(u8, u8, u32)] = if family == Family::V4 {
        &[(3, 1, 0), (3, 3, 0), (3, 4, 1200), (11, 0, 0)]
    } else {
        &[(1, 0, 0), (1, 4, 0), (2, 0, 1300), (3, 0, 0)]
    };
    for &(icmp_type, code, rest) in kinds {
        // From the server's side, about a request.
        for from in [rs.ip(), family.raw_rs(99)] {
            let inner = Segment::new(seat, rs, ACK, first, 801)
                .body(b"some data")
                .bytes();
            let error = Pkt::icmp_error(from, seat.ip(), icmp_type, code, rest, &inner);
            let came = rig
                .returned(&error)
                .with_context(|| format!("type {icmp_type} code {code} from {from}"))?;
            ensure!(
                came.csum_ok && came.src == vip.ip() && came.dst == client.ip(),
                "{came:?}"
            );
            ensure!(
                (came.icmp_type, came.icmp_code, came.icmp_rest) == (icmp_type, code, rest),
                "{came:?}"
            );
            let quoted = Pkt::parse(&came.body, false)?;
            ensure!(
                quoted.source() == client && quoted.dest() == vip && quoted.seq == 101,
                "it quotes {quoted:?}"
            );
        }
        // From the client's side, about a reply.
        for from in [client.ip(), family.raw_client(99)] {
            let inner = Segment::new(vip, client, ACK, 801, 101).bytes();
            let error = Pkt::icmp_error(from, vip.ip(), icmp_type, code, rest, &inner);
            let came = rig
                .forwarded(&error)
                .with_context(|| format!("type {icmp_type} code {code} from {from}"))?;
            ensure!(
                came.csum_ok && came.src == seat.ip() && came.dst == rs.ip(),
                "{came:?}"
            );
            let quoted = Pkt::parse(&came.body, false)?;
            ensure!(
                quoted.source() == rs && quoted.dest() == seat && quoted.seq == 801,
                "it quotes {quoted:?}"
            );
        }
    }
    // A reply whose time is over: the server is told.
    let reply = Segment::new(rs, seat, ACK, 801, first).bytes();
    let mut late = Pkt::parse(&reply, false)?;
    late.ttl = 1;
    let told = rig.exchange(Side::Server, &[late])?.one_at_server()?;
    let over = if family == Family::V4 {
        (ICMP, 11)
    } else {
        (ICMPV6, 3)
    };
    ensure!(
        (told.proto, told.icmp_type) == over && told.dst == rs.ip(),
        "{told:?}"
    );
    let quoted = Pkt::parse(&told.body, false)?;
    ensure!(
        quoted.source() == rs && quoted.dest() == seat,
        "it quotes {quoted:?}"
    );
    Ok(())
}

pub(super) fn packet(from: std::net::SocketAddr, to: std::net::SocketAddr, chunk: u8) -> Pkt {
    let mut body = Vec::new();
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    body.extend([1, 2, 3, 4, 0, 0, 0, 0, chunk, 0, 0, 8, 1, 2, 3, 4]);
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI)
        .checksum(&body)
        .to_le_bytes();
    body[8..12].copy_from_slice(&sum);
    Pkt {
        body,
        ..Pkt::new(from.ip(), to.ip(), SCTP)
    }
}

/// The ports of an SCTP packet whose checksum is right.
fn ports(pkt: &Pkt) -> Result<(u16, u16)> {
    ensure!(pkt.proto == SCTP && pkt.body.len() >= 16, "{pkt:?}");
    let port = |at: usize| u16::from_be_bytes([pkt.body[at], pkt.body[at + 1]]);
    let mut body = pkt.body.clone();
    body[8..12].fill(0);
    let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI).checksum(&body);
    ensure!(sum.to_le_bytes() == pkt.body[8..12], "CRC of {pkt:?}");
    Ok((port(0), port(2)))
}

fn sctp(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs, client) = (
        at(family.vip(), 80),
        at(family.raw_rs(1), 9000),
        at(family.raw_client(1), 4000),
    );
    let ipvs = Ipvs::open(&rig.topo.director)?;
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(SCTP, vip, "rr")))?;
    ipvs.ok(
        cmd::NEW_DEST,
        &for_dest(&svc_id(SCTP, vip), &dest_full(rs, 1)),
    )?;
    fullnat::add(&ipvs, SCTP, vip, local(family, 1))?;
    let came = rig.forwarded(&packet(client, vip, 1))?;
    let (port, to) = ports(&came)?;
    ensure!(
        is_local(came.src) && came.dst == rs.ip() && to == 9000,
        "{came:?}"
    );
    let back = rig.returned(&packet(rs, at(came.src, port), 2))?;
    ensure!(
        back.src == vip.ip() && back.dst == client.ip() && ports(&back)? == (80, 4000),
        "{back:?}"
    );
    Ok(())
}

/// A bulk transfer over a way that is narrower than both ends think, at the director's one or other side.
fn transfer(family: Family, narrow: Side) -> Result<()> {
    let topo = fullnat::topo(1)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
    let device = if narrow == Side::Client { "c0" } else { "s1" };
    topo.director
        .cmd(&format!("ip link set {device} mtu 1300"))?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&topo.director)?;
    // An address of the director's, on the server's link: no route is needed at all.
    let seat = match family {
        Family::V4 => "10.0.1.77".parse()?,
        Family::V6 => "fd00:0:0:1::77".parse::<std::net::IpAddr>()?,
    };
    topo.director.ip(&format!(
        "addr add {seat}/{} dev s1{}",
        if family == Family::V4 { 32 } else { 128 },
        if family == Family::V4 { "" } else { " nodad" }
    ))?;
    topo.rs[0].ip(&format!(
        "neigh add {seat} lladdr 02:00:00:00:01:01 dev eth0 nud permanent"
    ))?;
    fullnat::add(&ipvs, TCP, vip, seat)?;
    let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    let stream = serve::connect(&topo.client, vip)?;
    let n = 400_000;
    let answer = serve::ask(&stream, "who")?;
    ensure!(answer.contains(&format!("{seat}")), "{answer:?}");
    // In the direction in which the director meets the narrow device as it sends.
    match narrow {
        Side::Client => {
            serve::fetch(&stream, n)?;
        }
        Side::Server => {
            serve::give(&stream, n)?;
        }
    }
    let (ns, to) = match narrow {
        Side::Server => (&topo.client, vip.ip()),
        Side::Client => (&topo.rs[0], seat),
    };
    let route = ns.cmd(&format!("ip route get {to}"))?;
    ensure!(route.contains("mtu 1300"), "{route}");
    drop(server);
    Ok(())
}
