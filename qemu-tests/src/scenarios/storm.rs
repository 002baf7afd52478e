// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of broken packets at the VIP and at the server's side: truncated, of wrong lengths, of
//! odd protocols and flags, random bytes in random places. Nothing may warn, and the service works
//! as before. Packets of known flows with wrong checksums: none of them gets to the other side with a right one.
//!
//! On the kasan guest nothing of them may be left in memory.
//!
//! Proves checklist items 90, 97 and 143 (packets).

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "storm",
    "malformed packets by the thousand",
    &[90, 143],
    run,
)
.partly(&[97])
.timeout(90.0);

/// A packet that was right once.
fn packet(rng: &mut Rng, family: Family, side: Side) -> Vec<u8> {
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(
        family.raw_client(rng.below(50) as u16),
        4000 + rng.below(20) as u16,
    );
    let len = [0, 1, 7, 40, 600][rng.below(5)];
    let body = rng.bytes(len);
    let (from, to) = if side == Side::Client {
        (client, vip)
    } else {
        (rs, client)
    };
    let flags = rng.word() as u8;
    let inner = |from, to| match flags & 3 {
        0 => Pkt::udp(from, to, b"inner").bytes(),
        _ => Pkt::tcp(from, to, flags).bytes(),
    };
    let base = match rng.below(6) {
        0 | 1 => Pkt {
            body,
            ..Pkt::tcp(from, to, flags)
        },
        2 => Pkt {
            body,
            ..Pkt::udp(from, to, b"")
        },
        3 => {
            // An error about a packet of the other direction.
            let quoted = if side == Side::Client {
                inner(vip, client)
            } else {
                inner(client, rs)
            };
            let kind = if family == Family::V4 {
                [3, 4, 11, 5, 12][rng.below(5)]
            } else {
                [1, 2, 3, 4, 100][rng.below(5)]
            };
            let cut = rng.below(quoted.len() + 1);
            let error = Pkt::icmp_error(
                from.ip(),
                to.ip(),
                kind,
                flags & 7,
                rng.word() as u32,
                &quoted[..cut],
            );
            let mut bytes = error.bytes();
            if rng.chance(2) {
                // Broken inside, with a checksum that fits.
                let start = bytes.len() - cut;
                for _ in 0..3 {
                    if cut > 0 {
                        bytes[start + rng.below(cut)] = rng.word() as u8;
                    }
                }
                let at = if family == Family::V4 { 20 } else { 40 };
                let fixed = Pkt {
                    body: bytes[at + 8..].to_vec(),
                    ..error
                };
                bytes = fixed.bytes();
            }
            return bytes;
        }
        4 => Pkt {
            body,
            ..Pkt::new(
                from.ip(),
                to.ip(),
                [0, 4, 41, 43, 44, 47, 50, 51, 59, 60, 132, 255][rng.below(12)],
            )
        },
        _ => {
            let offset = (rng.below(40) * 8) as u16;
            Pkt {
                body,
                frag: Some((offset, rng.chance(2))),
                id: rng.below(8) as u32,
                ..Pkt::udp(from, to, b"")
            }
        }
    };
    base.bytes()
}

fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    match rng.below(5) {
        // Cut off.
        0 => bytes.truncate(1 + rng.below(bytes.len())),
        // A few bytes changed, anywhere.
        1 => {
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.word() as u8;
            }
        }
        // Behind the addresses only, so that it gets there.
        2 => {
            let header = if bytes[0] >> 4 == 4 { 20 } else { 40 };
            for _ in 0..1 + rng.below(6) {
                let rest = bytes.len().saturating_sub(header);
                if rest > 0 {
                    bytes[header + rng.below(rest)] = rng.word() as u8;
                }
            }
        }
        // Cut off with lengths that fit what is left, checksum too.
        3 => {
            let keep = 1 + rng.below(bytes.len());
            bytes.truncate(keep);
            if bytes[0] >> 4 == 4 && keep >= 20 {
                bytes[2..4].copy_from_slice(&(keep as u16).to_be_bytes());
                bytes[10..12].fill(0);
                let csum = !crate::pkt::sum(&bytes[..20], 0) as u16;
                bytes[10..12].copy_from_slice(&csum.to_be_bytes());
            } else if keep >= 40 {
                bytes[4..6].copy_from_slice(&((keep - 40) as u16).to_be_bytes());
            }
        }
        _ => {}
    }
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        for kind in ["t", "u"] {
            rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
        }
    }
    let rounds = rounds(3_000);
    let mut rng = Rng::new(cx.seed);
    for round in 0..rounds {
        let family = Family::BOTH[rng.below(2)];
        let side = if rng.chance(3) {
            Side::Server
        } else {
            Side::Client
        };
        let mut batch = Vec::new();
        for _ in 0..8 {
            let mut bytes = packet(&mut rng, family, side);
            damage(&mut rng, &mut bytes);
            batch.push(bytes);
        }
        let tap = if side == Side::Client {
            &rig.ctap
        } else {
            &rig.stap
        };
        for bytes in &batch {
            // The packet socket itself refuses some.
            let _ = tap.send_raw(bytes);
        }
        if round % 50 == 0 {
            rig.finish(side).with_context(|| format!("round {round}"))?;
        }
    }
    rig.finish(Side::Client)?;
    for family in Family::BOTH {
        never_mended(&rig, family, &mut rng).with_context(|| format!("{family:?}"))?;
    }
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        let client = at(family.raw_client(999), 4000);
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == rs && came.csum_ok, "{came:?}");
        let back = rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
        ensure!(back.source() == vip && back.csum_ok, "{back:?}");
    }
    Ok(())
}

/// A right packet of a flow of `client`, or an error about one.
fn right(rng: &mut Rng, family: Family, client: SocketAddr, side: Side) -> Pkt {
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    // From where to where, and how a packet the other way looks to the sender.
    let (from, to, back) = match side {
        Side::Client => (client, vip, (vip, client)),
        Side::Server => (rs, client, (client, rs)),
    };
    let len = 1 + rng.below(200);
    let body = rng.bytes(len);
    match rng.below(3) {
        0 => Pkt::tcp(from, to, ACK).with(|p| p.body = body),
        1 => Pkt::udp(from, to, &body),
        _ => {
            let kind = if family == Family::V4 { 3 } else { 1 };
            let about = Pkt::udp(back.0, back.1, &body).bytes();
            Pkt::icmp_error(from.ip(), to.ip(), kind, 1, 0, &about)
        }
    }
}

/// Bytes of a packet that its checksum is not right for; addresses, ports, lengths and the kind of packet stay.
fn wronged(rng: &mut Rng, pkt: &Pkt) -> Result<Vec<u8>> {
    let whole = pkt.bytes();
    let l4 = if pkt.is_v4() { 20 } else { 40 };
    loop {
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(3) {
            let at = l4 + 6 + rng.below(bytes.len() - l4 - 6);
            bytes[at] ^= 1 << rng.below(8);
        }
        let kept = pkt.proto != TCP || bytes[l4 + 12..l4 + 14] == whole[l4 + 12..l4 + 14];
        // None is no wrong one.
        let none = pkt.proto == UDP && bytes[l4 + 6..l4 + 8] == [0, 0];
        if kept && !none && !Pkt::parse(&bytes, false)?.csum_ok {
            return Ok(bytes);
        }
    }
}

fn never_mended(rig: &Rig, family: Family, rng: &mut Rng) -> Result<()> {
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let (mut sent, mut came) = (0, 0);
    for n in 0..rounds(40) as u16 {
        let client = at(family.raw_client(2000 + n), 4000);
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.forwarded(&Pkt::udp(client, vip, b"first"))?;
        for side in [Side::Client, Side::Server] {
            let batch = (0..20)
                .map(|_| {
                    let pkt = right(rng, family, client, side);
                    wronged(rng, &pkt)
                })
                .collect::<Result<Vec<_>>>()?;
            let io = rig.exchange_raw(side, &batch)?;
            let seen = match side {
                Side::Client => io.server_pkts(),
                Side::Server => io.client_pkts(),
            };
            for pkt in &seen {
                let translated = match side {
                    Side::Client => pkt.dst == rs.ip(),
                    Side::Server => pkt.src == vip.ip(),
                };
                // Errors are not translated; those that are about nothing known pass.
                let is_flow = [TCP, UDP].contains(&pkt.proto);
                ensure!(
                    !pkt.csum_ok && translated == is_flow,
                    "from the {side:?} side, wrong: {pkt:?}"
                );
            }
            sent += batch.len();
            came += seen.len();
        }
    }
    println!("{family:?}: {sent} wrong packets, {came} came, as wrong");
    ensure!(came > sent / 3, "{came} of {sent}");
    Ok(())
}
