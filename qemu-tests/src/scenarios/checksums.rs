// SPDX-License-Identifier: GPL-2.0-or-later

//! Checksums through NAT: updated, not recomputed, so a corrupted packet stays corrupted; filled in
//! by the device where they were left to it; a UDP checksum of zero becomes a real one on the way
//! in.
//!
//! Proves checklist item 91.

use anyhow::{ensure, Context, Result};

use crate::pkt::{pseudo, Pkt, ACK, PSH, SYN, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Rng, Scenario};
use crate::serve::{self, Server};
use crate::tap::Frame;
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "checksums",
    "checksums are updated, kept wrong, left partial or filled in",
    &[],
    run,
)
.partly(&[91, 110]);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        crafted(family, cx.seed).with_context(|| format!("{family:?}"))?;
        offload(family).with_context(|| format!("{family:?}, offloads"))?;
    }
    Ok(())
}

/// One packet from one side, as a frame on the other.
fn through(rig: &Rig, side: Side, pkt: &Pkt) -> Result<Frame> {
    let io = rig.exchange(side, std::slice::from_ref(pkt))?;
    let frames = if side == Side::Client {
        &io.server
    } else {
        &io.client
    };
    match &frames[..] {
        [frame] => Ok(frame.clone()),
        _ => anyhow::bail!("{pkt:?} became {io:#?}"),
    }
}

fn crafted(family: Family, seed: u64) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    for kind in ["t", "u"] {
        rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
    }
    let client = at(family.raw_client(1), 4000);

    // Right ones stay right, whatever the bytes: carries, odd lengths, sums next to zero.
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    let mut rng = Rng::new(seed);
    for len in (0..rounds(60)).chain([511, 1400]) {
        let body = rng.bytes(len);
        for (there, back) in [
            (
                Pkt::tcp(client, vip, ACK | PSH),
                Pkt::tcp(rs, client, ACK | PSH),
            ),
            (Pkt::udp(client, vip, b""), Pkt::udp(rs, client, b"")),
        ] {
            let there = rig.forwarded(&Pkt {
                body: body.clone(),
                ..there
            })?;
            ensure!(
                there.csum_ok
                    && there.dest() == rs
                    && there.source() == client
                    && there.body == body,
                "{there:?}"
            );
            let back = rig.returned(&Pkt {
                body: body.clone(),
                ..back
            })?;
            ensure!(
                back.csum_ok && back.source() == vip && back.dest() == client && back.body == body,
                "{back:?}"
            );
        }
    }

    // A UDP sum that comes out as zero is sent as ffff: try every value of two payload bytes that
    // make it so.
    let probe = Pkt::udp(client, vip, &[0, 0]);
    let after = rig.forwarded(&probe)?;
    let fill = after.csum.context("checksum")?;
    let zero = Pkt::udp(client, vip, &fill.to_be_bytes());
    let after = rig.forwarded(&zero)?;
    ensure!(
        after.csum == Some(0xffff),
        "the sum of {after:?} should be ffff"
    );

    // Wrong ones stay wrong by the same difference.
    for (side, pkt) in [
        (Side::Client, Pkt::tcp(client, vip, ACK)),
        (Side::Server, Pkt::tcp(rs, client, ACK)),
        (Side::Client, Pkt::udp(client, vip, b"x")),
        (Side::Server, Pkt::udp(rs, client, b"x")),
    ] {
        let right = through(&rig, side, &pkt)?.pkt.csum.context("checksum")?;
        let sent = Pkt::parse(&pkt.bytes(), false)?.csum.context("checksum")?;
        let wrong = Pkt {
            csum: Some(sent ^ 0x0100),
            ..pkt
        };
        let came = through(&rig, side, &wrong)?.pkt;
        ensure!(!came.csum_ok, "repaired: {came:?}");
        ensure!(came.csum != Some(right), "repaired: {came:?}");
    }

    // No UDP checksum at all: computed on the way in (IPv6 too, where none is not allowed); on the
    // way back over IPv4 as well.
    let none = Pkt {
        csum: Some(0),
        ..Pkt::udp(client, vip, b"no checksum")
    };
    let came = rig.forwarded(&none)?;
    ensure!(came.csum_ok && came.csum != Some(0), "{came:?}");
    Ok(())
}

fn offload(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    for kind in ["t", "u"] {
        rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
    }
    let client = at(family.raw_client(1), 4000);
    let (start, proto_at) = if family == Family::V4 {
        (20, 16)
    } else {
        (40, 16)
    };

    // Left to the device and the device takes it: the pseudo header sum is updated and it stays
    // partial. The device does without: it is computed in full.
    for offloaded in [true, false] {
        let state = if offloaded { "on" } else { "off" };
        for dev in ["c0", "s1"] {
            rig.topo
                .director
                .cmd(&format!("ethtool -K {dev} tx {state}"))?;
        }
        for (proto, at) in [(TCP, proto_at), (UDP, 6)] {
            for side in [Side::Client, Side::Server] {
                let (from, to) = if side == Side::Client {
                    (client, vip)
                } else {
                    (rs, client)
                };
                let body = b"partial".to_vec();
                let pkt = if proto == TCP {
                    Pkt {
                        body,
                        ..Pkt::tcp(from, to, if side == Side::Client { SYN } else { ACK })
                    }
                } else {
                    Pkt {
                        body,
                        ..Pkt::udp(from, to, b"")
                    }
                };
                let len = pkt.bytes().len() - usize::from(start);
                let partial = Pkt {
                    csum: Some(pseudo(pkt.src, pkt.dst, proto, len) as u16),
                    ..pkt
                };
                let tap = if side == Side::Client {
                    &rig.ctap
                } else {
                    &rig.stap
                };
                tap.send_partial(&partial.bytes(), start, at, 0)?;
                let io = rig.finish(side)?;
                let frames = if side == Side::Client {
                    &io.server
                } else {
                    &io.client
                };
                let [frame] = &frames[..] else {
                    anyhow::bail!("{partial:?} became {io:#?}")
                };
                ensure!(frame.pkt.csum_ok, "{frame:?}");
                ensure!(
                    frame.partial == offloaded,
                    "tx {state}: partial is {}: {frame:?}",
                    frame.partial
                );
                let want = if side == Side::Client { rs } else { vip };
                let got = if side == Side::Client {
                    frame.pkt.dest()
                } else {
                    frame.pkt.source()
                };
                ensure!(got == want, "{frame:?}");
            }
        }
    }
    drop(rig);

    // Real sockets, with what their kernels leave to the devices: super-packets both ways, and
    // segmented by the director's device.
    let topo = crate::topo::Topo::new(1)?;
    let rs = at(family.rs(1), 8080);
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    for state in ["on", "off"] {
        for dev in ["c0", "s1"] {
            topo.director.cmd(&format!(
                "ethtool -K {dev} tx {state} tso {state} gso {state}"
            ))?;
        }
        let stream = serve::connect(&topo.client, vip)?;
        let n = 1_000_000;
        serve::fetch(&stream, n)?;
        std::io::Write::write_all(&mut &stream, format!("TAKE {n}\n").as_bytes())?;
        std::io::Write::write_all(&mut &stream, &serve::pattern(n))?;
        let answer = serve::ask(&stream, "")?;
        ensure!(answer.ends_with("right"), "offloads {state}: {answer:?}");
    }
    drop(server);
    // Local clients of the director send partial checksums as well: covered by local_client.
    Ok(())
}
