// SPDX-License-Identifier: GPL-2.0-or-later

//! What a real server sees of a client's TCP through FullNAT: sequence numbers, acknowledgements and SACK blocks translated
//! both ways, timestamps that rise from client to client, everything else as it was; and resets at both ends when an
//! established connection ends by timeout or by an operator.

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, is_local, local, one, stamps, Segment};
use crate::ipvs::Ipvs;
use crate::pkt::{ACK, FIN, PSH, RST, SYN, TCP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_numbers",
    "TCP's numbers through FullNAT, and resets at both ends",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        translated(family).with_context(|| format!("{family:?}"))?;
        resets(family, false).with_context(|| format!("{family:?}, timeout"))?;
        resets(family, true).with_context(|| format!("{family:?}, operator"))?;
    }
    Ok(())
}

fn rig(family: Family) -> Result<(Rig, Ipvs)> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
    Ok((rig, ipvs))
}

/// The value and the echo of timestamps that lie where they mostly do.
fn stamped(options: &[u8]) -> Result<(u32, u32)> {
    ensure!(options[..4] == [1, 1, 8, 10], "{options:?}");
    Ok((
        u32::from_be_bytes(options[4..8].try_into()?),
        u32::from_be_bytes(options[8..12].try_into()?),
    ))
}

fn translated(family: Family) -> Result<()> {
    let (rig, _ipvs) = rig(family)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(family.raw_client(1), 4000);
    let (isn, rs_isn) = (0xffff_ff00u32, 7000u32);

    // MSS, SACK permitted, timestamps, NOP, window scale: as Linux sends them.
    let hello = |value: u32| {
        let mut options = vec![2, 4, 5, 0xb4, 4, 2, 8, 10];
        options.extend(value.to_be_bytes());
        options.extend([0, 0, 0, 0, 1, 3, 3, 7]);
        options
    };
    let syn = Segment::new(client, vip, SYN, isn, 0).options(&hello(500));
    let came = one(&rig, Side::Client, &syn)?;
    ensure!(came.to == rs && is_local(came.from.ip()), "{came:?}");
    ensure!(came.seq != isn && came.ack == 0, "{came:?}");
    let base = u32::from_be_bytes(came.options[8..12].try_into()?).wrapping_sub(500);
    ensure!(
        came.options[..8] == syn.options[..8] && came.options[12..] == syn.options[12..],
        "{came:?}"
    );
    let (seat, delta) = (came.from, came.seq.wrapping_sub(isn));
    // Sent again it is the same.
    ensure!(one(&rig, Side::Client, &syn)? == came, "not the same again");

    let synack = Segment::new(rs, seat, SYN | ACK, rs_isn, came.seq.wrapping_add(1));
    let mut options = hello(900);
    options[12..16].copy_from_slice(&base.wrapping_add(500).to_be_bytes());
    let back = one(&rig, Side::Server, &synack.options(&options))?;
    ensure!(back.from == vip && back.to == client, "{back:?}");
    ensure!(
        back.seq == rs_isn && back.ack == isn.wrapping_add(1),
        "{back:?}"
    );
    ensure!(
        back.options[8..16] == [0, 0, 3, 0x84, 0, 0, 1, 0xf4],
        "{back:?}"
    );

    // Data with everything that a flags byte holds, and an urgent pointer; across the end of the number space.
    let mut seq = isn.wrapping_add(1);
    for (n, flags) in [(0u32, ACK), (1, ACK | PSH), (2, 0xf8), (3, ACK | 0x40)] {
        let data = Segment {
            urgent: 3 * n as u16,
            ..Segment::new(client, vip, flags, seq, rs_isn + 1)
        }
        .options(&stamps(510 + n, 900))
        .body(&[n as u8; 200]);
        let came = one(&rig, Side::Client, &data)?;
        let want = Segment {
            from: seat,
            to: rs,
            seq: seq.wrapping_add(delta),
            options: stamps(base.wrapping_add(510 + n), 900),
            ..data
        };
        ensure!(came == want, "{came:?}, not {want:?}");
        seq = seq.wrapping_add(200);
    }

    // The server has the first and the third.
    let ack = isn.wrapping_add(201).wrapping_add(delta);
    let (left, right) = (ack.wrapping_add(200), ack.wrapping_add(400));
    let mut options = stamps(901, base.wrapping_add(512));
    options.extend([1, 1, 5, 10]);
    options.extend(left.to_be_bytes());
    options.extend(right.to_be_bytes());
    let back = one(
        &rig,
        Side::Server,
        &Segment::new(rs, seat, ACK, rs_isn + 1, ack).options(&options),
    )?;
    ensure!(back.ack == isn.wrapping_add(201), "{back:?}");
    ensure!(stamped(&back.options)? == (901, 512), "{back:?}");
    let edge =
        |at: usize| -> Result<u32> { Ok(u32::from_be_bytes(back.options[at..at + 4].try_into()?)) };
    ensure!(
        edge(16)? == isn.wrapping_add(401) && edge(20)? == isn.wrapping_add(601),
        "{back:?}"
    );
    // The client's SACK blocks are about the server's numbers, which are nobody else's.
    let mut options = stamps(520, 901);
    options.extend([1, 1, 5, 10, 0, 0, 0x1c, 0, 0, 0, 0x1d, 0]);
    let came = one(
        &rig,
        Side::Client,
        &Segment::new(client, vip, ACK, seq, rs_isn + 1).options(&options),
    )?;
    ensure!(came.options[12..] == options[12..], "{came:?}");

    // Timestamps of other clients, whatever their clocks say, begin where the address's clock is.
    let mut last = base.wrapping_add(500);
    for (n, value) in [(2, 0xf000_0000u32), (3, 1), (4, 0x7fff_ffff)] {
        let other = at(family.raw_client(n), 4000);
        let syn = Segment::new(other, vip, SYN, 1, 0).options(&hello(value));
        let came = one(&rig, Side::Client, &syn)?;
        let now = u32::from_be_bytes(came.options[8..12].try_into()?);
        let ahead = now.wrapping_sub(last) as i32;
        ensure!((0..600_000).contains(&ahead), "from {last} to {now}");
        last = now;
    }
    // Who has none gets none.
    let bare = Segment::new(at(family.raw_client(5), 1), vip, SYN, 1, 0);
    let came = one(&rig, Side::Client, &bare)?;
    ensure!(came.options.is_empty(), "{came:?}");

    // A reset of the client is translated like the rest.
    let came = one(&rig, Side::Client, &Segment::new(client, vip, RST, seq, 0))?;
    ensure!(
        came.flags == RST && came.seq == seq.wrapping_add(delta),
        "{came:?}"
    );
    // Simultaneous close: both FINs before either is acknowledged.
    let other = at(family.raw_client(6), 1);
    let (seat, delta) = established(&rig, family, other)?;
    let came = one(
        &rig,
        Side::Client,
        &Segment::new(other, vip, FIN | ACK, 101, 8001),
    )?;
    ensure!(came.seq == 101u32.wrapping_add(delta), "{came:?}");
    let first = 101u32.wrapping_add(delta);
    let back = one(
        &rig,
        Side::Server,
        &Segment::new(rs, seat, FIN | ACK, 8001, first),
    )?;
    ensure!((back.seq, back.ack) == (8001, 101), "{back:?}");
    let came = one(
        &rig,
        Side::Client,
        &Segment::new(other, vip, ACK, 102, 8002),
    )?;
    ensure!(came.ack == 8002, "{came:?}");
    let back = one(
        &rig,
        Side::Server,
        &Segment::new(rs, seat, ACK, 8002, first.wrapping_add(1)),
    )?;
    ensure!(back.ack == 102, "{back:?}");
    Ok(())
}

/// A handshake with sequence numbers 100 and 8000; returns the seat and how far the server's numbers are ahead.
fn established(
    rig: &Rig,
    family: Family,
    client: std::net::SocketAddr,
) -> Result<(std::net::SocketAddr, u32)> {
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let syn = one(rig, Side::Client, &Segment::new(client, vip, SYN, 100, 0))?;
    let seat = syn.from;
    let ack = syn.seq.wrapping_add(1);
    one(
        rig,
        Side::Server,
        &Segment::new(rs, seat, SYN | ACK, 8000, ack),
    )?;
    one(
        rig,
        Side::Client,
        &Segment::new(client, vip, ACK, 101, 8001),
    )?;
    Ok((seat, syn.seq.wrapping_sub(100)))
}

fn resets(family: Family, operator: bool) -> Result<()> {
    let (rig, ipvs) = rig(family)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(family.raw_client(1), 4000);
    if !operator {
        rig.ipvsadm("--set 1 0 0")?;
    }
    let (seat, delta) = established(&rig, family, client)?;
    let data = Segment::new(client, vip, ACK, 101, 8001).body(b"forty bytes, or some other number");
    one(&rig, Side::Client, &data)?;
    if operator {
        rig.topo
            .director
            .set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
        rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
    }
    let next = 101 + data.body.len() as u32;
    let to_server = rig.stap.expect("a reset for the server", 10.0, |f| {
        !f.outgoing && f.pkt.flags & RST != 0
    })?;
    let seen = Segment::of(&to_server)?;
    ensure!(
        seen.from == seat && seen.to == rs && seen.seq == next.wrapping_add(delta),
        "{seen:?}"
    );
    let to_client = rig.ctap.expect("a reset for the client", 10.0, |f| {
        !f.outgoing && f.pkt.flags & RST != 0
    })?;
    let seen = Segment::of(&to_client)?;
    ensure!(
        seen.from == vip && seen.to == client && (seen.seq, seen.ack) == (8001, next),
        "{seen:?}"
    );
    ensure!(
        proc::conns(&rig.topo.director)?.is_empty(),
        "it is still there"
    );
    ensure!(
        fullnat::locals(&ipvs, TCP, vip)?[0].conns == 0,
        "it still counts"
    );
    Ok(())
}
