// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of broken packets at the VIP and at the server's side: truncated, of wrong lengths, of
//! odd protocols and flags, random bytes in random places. Nothing may warn, and the service works
//! as before.
//!
//! Proves checklist items 90, 97 and 143 (packets).

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, ACK, SYN};
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
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        let client = at(family.raw_client(999), 4000);
        let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        ensure!(came.dest() == rs && came.csum_ok, "{came:?}");
        let back = rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
        ensure!(back.source() == vip && back.csum_ok, "{back:?}");
    }
    Ok(())
}
