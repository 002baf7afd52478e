// SPDX-License-Identifier: GPL-2.0-or-later

//! Checksums through NAT: updated, not recomputed, so a corrupted packet stays corrupted; filled in
//! by the device where they were left to it; a sum that the kernel has made over the whole packet (CHECKSUM_COMPLETE) is
//! forgotten with what it was made over; a UDP checksum of zero becomes a real one on the way in.
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
    &[91],
    run,
)
.partly(&[110]);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        crafted(family, cx.seed).with_context(|| format!("{family:?}"))?;
        offload(family).with_context(|| format!("{family:?}, offloads"))?;
        complete(family).with_context(|| format!("{family:?}, complete sums"))?;
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
        serve::write_pattern(&mut &stream, n)?;
        let answer = serve::ask(&stream, "")?;
        ensure!(answer.ends_with("right"), "offloads {state}: {answer:?}");
    }
    drop(server);
    // Local clients of the director send partial checksums as well: covered by local_client.
    Ok(())
}

/// Where connections are tracked, the kernel checks packets as they come and keeps the sum of each with it. UDP believes such a sum:
/// left as it was, it would have what NAT has rewritten thrown away; and it would make a packet right that is not, for
/// a client who knows the real server.
fn complete(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let topo = &rig.topo;
    let rules = "table inet t {\n chain pre {\n type filter hook prerouting priority 0; ct state invalid accept;\n}\n}\n";
    topo.director.cmd_stdin("nft -f -", rules)?;
    for (ns, dev) in [
        (&topo.client, "eth0"),
        (&topo.director, "c0"),
        (&topo.director, "s1"),
        (&topo.rs[0], "eth0"),
    ] {
        ns.cmd(&format!("ethtool -K {dev} tx off gro off"))?;
    }
    for (n, (ns, host)) in (0u16..).zip([
        (&topo.rs[0], family.rs(1)),
        (&topo.director, family.director_at(1)),
    ]) {
        let (vip, rs) = (at(family.vip(), 80 + n), at(host, 8080 + n));
        rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        let server = Server::udp(ns, rs, "here")?;
        // Short ones are summed up at once wherever they come by, long ones are not.
        let socket = serve::udp(&topo.client, vip)?;
        for len in [1, 20, 500, 1300] {
            let body = "x".repeat(len);
            let answer = serve::ask_udp(&socket, &body)?;
            ensure!(
                serve::name(&answer) == "here" && answer.ends_with(&body),
                "{host}, {len} bytes: {answer:?}"
            );
        }
        // The checksum of what NAT would make of it without touching the checksum.
        let client = at(family.client(), 4000);
        let count = server.count();
        let to_rs = Pkt {
            csum: None,
            ..Pkt::udp(client, at(rs.ip(), vip.port()), b"deceit")
        };
        let sum = Pkt::parse(&to_rs.bytes(), false)?.csum;
        let deceit = Pkt {
            csum: Some(sum.context("checksum")?),
            ..Pkt::udp(client, vip, b"deceit")
        };
        rig.ctap.send(&deceit)?;
        rig.finish(Side::Client)?;
        // Whatever comes after it is answered.
        serve::ask_udp(&socket, "after")?;
        ensure!(
            server.count() == count + 1,
            "{host}: a packet with a wrong checksum was made right"
        );
    }
    Ok(())
}
