// SPDX-License-Identifier: GPL-2.0-or-later

//! Fragments: put together before lookup over IPv4 in both directions; over IPv6 each forwarded
//! with the connection of the first one.
//!
//! Proves checklist items 92 and 34.

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, UDP};
use crate::rig::{Io, Rig, Side};
use crate::scenario::{Cx, Rng, Scenario};
use crate::serve::{self, Server};
use crate::tap::Frame;
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "fragments",
    "fragmented datagrams both ways, v4 and v6",
    &[92],
    run,
)
.partly(&[34]);

/// Puts the fragments of one datagram together and parses the whole.
fn whole(frames: &[Frame]) -> Result<Pkt> {
    let first = frames.first().context("nothing arrived")?;
    if first.pkt.frag.is_none() {
        ensure!(frames.len() == 1, "{frames:#?}");
        return Ok(first.pkt.clone());
    }
    let mut parts: Vec<(u16, &[u8])> = Vec::new();
    for f in frames {
        let (offset, _) = f.pkt.frag.context("a whole packet among fragments")?;
        let header = if f.pkt.is_v4() { 20 } else { 48 };
        parts.push((offset, &f.raw[header..]));
    }
    parts.sort_by_key(|(offset, _)| *offset);
    let mut l4 = Vec::new();
    for (offset, part) in parts {
        ensure!(
            usize::from(offset) == l4.len(),
            "fragments don't meet at {offset}: {frames:#?}"
        );
        l4.extend(part);
    }
    let template = Pkt::new(first.pkt.src, first.pkt.dst, UDP);
    Pkt::parse(&template.around(&l4), false)
}

fn run(cx: &Cx) -> Result<()> {
    let mut rng = Rng::new(cx.seed);
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs, client) = (
            at(family.vip(), 53),
            at(family.raw_rs(1), 5353),
            at(family.raw_client(1), 4000),
        );
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        // The first datagram makes the connection, later ones use it; in order and, the second half
        // first, out of order.
        for (n, reverse) in [(1, false), (2, false), (3, true)] {
            let body = rng.bytes(3000);
            for side in [Side::Client, Side::Server] {
                let pkt = match side {
                    Side::Client => Pkt {
                        body: body.clone(),
                        id: 100 + n,
                        ..Pkt::udp(client, vip, b"")
                    },
                    Side::Server => Pkt {
                        body: body.clone(),
                        id: 200 + n,
                        ..Pkt::udp(rs, client, b"")
                    },
                };
                let mut parts = pkt.fragments(1240);
                if reverse {
                    parts.reverse();
                }
                let io: Io = rig.exchange_raw(side, &parts)?;
                let frames = if side == Side::Client {
                    &io.server
                } else {
                    &io.client
                };
                let got = whole(frames).with_context(|| {
                    format!("{family:?}, datagram {n} from the {side:?} side: {io:#?}")
                })?;
                ensure!(got.csum_ok && got.body == body, "{got:?}");
                let right = match side {
                    Side::Client => got.source() == client && got.dest() == rs,
                    Side::Server => got.source() == vip && got.dest() == client,
                };
                ensure!(right, "{got:?}");
            }
        }
        // A later fragment alone makes no connection and is not forwarded.
        let lone = Pkt {
            body: rng.bytes(2000),
            id: 999,
            ..Pkt::udp(at(client.ip(), 4001), vip, b"")
        }
        .fragments(1000);
        let io = rig.exchange_raw(Side::Client, &lone[1..2])?;
        ensure!(io.server.is_empty(), "{io:#?}");
        ensure!(
            crate::proc::conns(&rig.topo.director)?.len() == 1,
            "a connection was made"
        );
    }
    // Fragments of real kernels, big datagrams both ways.
    for family in Family::BOTH {
        let topo = Topo::new(1)?;
        let (vip, rs) = (at(family.vip(), 53), at(family.rs(1), 5353));
        topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        let server = Server::udp(&topo.rs[0], rs, "rs1")?;
        let socket = serve::udp(&topo.client, vip)?;
        for n in [1_000, 2_000, 9_000, 60_000] {
            let text = "x".repeat(n);
            let answer =
                serve::ask_udp(&socket, &text).with_context(|| format!("{family:?}, {n} bytes"))?;
            ensure!(
                answer.ends_with(&text) && answer.starts_with("rs1 "),
                "{} bytes came back",
                answer.len()
            );
        }
        drop(server);
    }
    Ok(())
}
