// SPDX-License-Identifier: GPL-2.0-or-later

//! The client's address in a TCP option: where, on which segments and until when; a client's own is taken out; what has no
//! room is counted; and real transfers with it, segmented and with loss.

use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, local, number, one, set, stamps, Segment};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::pkt::{octets, ACK, SYN, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_toa",
    "clients' addresses in TCP options through FullNAT",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        crafted(family, 254, false).with_context(|| format!("{family:?}"))?;
        crafted(family, 200, true).with_context(|| format!("{family:?}, other kind"))?;
        transfer(family).with_context(|| format!("{family:?}, transfer"))?;
    }
    Ok(())
}

/// The option of a client.
fn toa(kind: u8, client: SocketAddr) -> Vec<u8> {
    let addr = octets(client.ip());
    let mut b = vec![kind, 4 + addr.len() as u8];
    b.extend(client.port().to_be_bytes());
    b.extend(addr);
    b
}

fn toa_on(ipvs: &Ipvs, vip: SocketAddr, kind: u8, syn: bool) -> Result<()> {
    let extra = Attrs::new()
        .u8(fullnat::TOA_KIND, kind)
        .u8(fullnat::TOA_SYN, syn.into());
    set(ipvs, TCP, vip, "rr", &extra)?.ok().map(drop)
}

fn crafted(family: Family, kind: u8, on_syn: bool) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(family.raw_client(1), 4000);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
    toa_on(&ipvs, vip, kind, on_syn)?;
    let option = toa(kind, client);
    let mut added = 0;

    let syn = Segment::new(client, vip, SYN, 100, 0).options(&[2, 4, 5, 0xb4]);
    let came = one(&rig, Side::Client, &syn)?;
    if on_syn {
        added += 1;
        ensure!(
            came.options == [&option[..], &syn.options].concat(),
            "{came:?}"
        );
    } else {
        ensure!(came.options == syn.options, "{came:?}");
    }
    let (seat, first) = (came.from, came.seq.wrapping_add(1));
    // The server's MSS leaves room.
    let synack = Segment::new(rs, seat, SYN | ACK, 800, first).options(&[2, 4, 5, 0xb4]);
    let back = one(&rig, Side::Server, &synack)?;
    let mss = u16::from_be_bytes([back.options[2], back.options[3]]);
    ensure!(usize::from(mss) == 1460 - option.len(), "{back:?}");

    // The handshake's end and data have it, with timestamps or without, until data is acknowledged.
    let ack = Segment::new(client, vip, ACK, 101, 801);
    let stamped = Segment {
        options: stamps(1, 2),
        ..ack.clone().body(b"data")
    };
    for segment in [&ack, &stamped, &stamped] {
        let came = one(&rig, Side::Client, segment)?;
        added += 1;
        ensure!(
            came.options == [&option[..], &segment.options].concat() && came.body == segment.body,
            "{came:?}"
        );
        ensure!(came.seq == first, "{came:?}");
    }
    // One of the client's own goes, and so does what hides behind padding.
    let mut forged = option.clone();
    forged[4] ^= 0x55;
    let mut hidden = vec![1, 1, 1, 1];
    hidden.extend(&forged);
    for options in [&forged, &hidden] {
        let came = one(&rig, Side::Client, &ack.clone().options(options))?;
        added += 1;
        ensure!(
            came.options[..option.len()] == option
                && came.options[option.len()..].iter().all(|b| *b == 1),
            "{came:?}"
        );
    }
    // A full-sized segment that the client had no right to send has no room.
    let full = 1500 - if family == Family::V4 { 40 } else { 60 };
    let came = one(&rig, Side::Client, &ack.clone().body(&vec![7; full]))?;
    ensure!(
        came.options.is_empty() && came.body.len() == full,
        "{came:?}"
    );
    // One that is as long as it may be has.
    let came = one(
        &rig,
        Side::Client,
        &ack.clone().body(&vec![7; full - option.len()]),
    )?;
    added += 1;
    ensure!(came.options == option, "{came:?}");

    one(
        &rig,
        Side::Server,
        &Segment::new(rs, seat, ACK, 801, first.wrapping_add(4)),
    )?;
    let came = one(&rig, Side::Client, &ack.clone().options(&stamps(3, 2)))?;
    ensure!(came.options == stamps(3, 2), "still there: {came:?}");
    // A client's own still goes.
    let came = one(&rig, Side::Client, &ack.clone().options(&forged))?;
    ensure!(came.options == vec![1; forged.len()], "{came:?}");

    let count = |attr| number(&ipvs, TCP, vip, attr);
    ensure!(
        (
            count(fullnat::TOA_ADDED)?,
            count(fullnat::TOA_NO_ROOM)?,
            count(fullnat::TOA_REMOVED)?
        ) == (added, 1, 3),
        "{added} added, shown {}, {}, {}",
        count(fullnat::TOA_ADDED)?,
        count(fullnat::TOA_NO_ROOM)?,
        count(fullnat::TOA_REMOVED)?
    );
    Ok(())
}

/// Real stacks, both ways in bulk; the client sends so much at once that segments are put together on the way.
fn transfer(family: Family) -> Result<()> {
    let (topo, ipvs, vip, rs) = fullnat::service(family, 80, 8080)?;
    toa_on(&ipvs, vip, 254, true)?;
    let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    let client: IpAddr = family.client();
    let stream = serve::connect(&topo.client, vip)?;
    ensure!(stream.local_addr()?.ip() == client);
    let n = 3_000_000;
    serve::fetch(&stream, n)?;
    std::io::Write::write_all(&mut &stream, format!("TAKE {n}\n").as_bytes())?;
    serve::write_pattern(&mut &stream, n)?;
    ensure!(serve::ask(&stream, "")?.ends_with("right"));
    ensure!(
        number(&ipvs, TCP, vip, fullnat::TOA_NO_ROOM)? == 0,
        "no room"
    );
    ensure!(
        number(&ipvs, TCP, vip, fullnat::TOA_ADDED)? >= 2,
        "not put in"
    );
    drop(server);
    Ok(())
}
