// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of netlink requests that were right once: bytes changed, attributes dropped, doubled,
//! cut, of random lengths, on random commands. Whatever the answer, nothing may warn, and the
//! module works as before.
//!
//! Proves checklist items 4 and 143 (configuration).

use anyhow::{ensure, Result};

use crate::fullnat;
use crate::genl::{genl_header, parse, Attrs, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ipvs::{cmd, dest, dest_full, svc, svc_full, top, Ipvs};
use crate::pkt::{Pkt, SYN, TCP, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_fuzz",
    "malformed netlink requests by the thousand",
    &[143],
    run,
)
.partly(&[4])
.timeout(90.0);

fn mutate(rng: &mut Rng, attrs: &Attrs) -> Attrs {
    let mut list: Vec<(u16, Vec<u8>)> = parse(&attrs.0)
        .unwrap_or_default()
        .into_iter()
        .map(|(k, v)| (k, v.to_vec()))
        .collect();
    for _ in 0..rng.below(3) {
        if list.is_empty() {
            break;
        }
        let at = rng.below(list.len());
        match rng.below(7) {
            0 => drop(list.remove(at)),
            1 => {
                let twice = list[at].clone();
                list.push(twice);
            }
            2 => {
                let keep = rng.below(list[at].1.len() + 1);
                list[at].1.truncate(keep);
            }
            3 => {
                let more = rng.below(20);
                let tail = rng.bytes(more);
                list[at].1.extend(tail);
            }
            4 => list[at].0 = rng.below(20) as u16,
            5 => list[at].0 ^= [0x8000, 0x4000, 0x0100][rng.below(3)],
            _ => {
                let len = list[at].1.len();
                if len > 0 {
                    let byte = rng.below(len);
                    list[at].1[byte] = [0, 1, 0x7f, 0x80, 0xff, rng.word() as u8][rng.below(6)];
                }
            }
        }
    }
    list.into_iter()
        .fold(Attrs::new(), |a, (k, v)| a.put(k, &v))
}

/// A request on a few services and servers, most of the time almost right.
pub fn request(rng: &mut Rng) -> (u8, Attrs) {
    let family = Family::BOTH[rng.below(2)];
    let proto = [TCP, UDP][rng.below(2)];
    let vip = at(family.vip(), 1000 + rng.below(6) as u16);
    let sched = ["rr", "wrr", "lc", "wlc", "none"][rng.below(5)];
    let mut service = svc_full(proto, vip, sched);
    if rng.chance(6) {
        service = service.u32(svc::FWMARK, rng.below(4) as u32);
    }
    let mut server = dest_full(
        at(family.raw_rs(rng.below(5) as u8), 80),
        rng.below(10) as i32,
    );
    if rng.chance(4) {
        server = server
            .u8(dest::TUN_TYPE, rng.below(4) as u8)
            .u16(dest::TUN_PORT, 0x1234)
            .u16(dest::TUN_FLAGS, 1);
    }
    let (mut service, mut server) = (service, server);
    if rng.chance(2) {
        service = mutate(rng, &service);
    }
    if rng.chance(2) {
        server = mutate(rng, &server);
    }
    // Not the daemons: they start threads and sockets and have scenarios of their own.
    let cmd = [
        cmd::NEW_SERVICE,
        cmd::NEW_SERVICE,
        cmd::SET_SERVICE,
        cmd::DEL_SERVICE,
        cmd::GET_SERVICE,
        cmd::NEW_DEST,
        cmd::NEW_DEST,
        cmd::SET_DEST,
        cmd::DEL_DEST,
        cmd::GET_DEST,
        cmd::SET_CONFIG,
        cmd::GET_CONFIG,
        cmd::GET_INFO,
        cmd::ZERO,
        cmd::GET_DAEMON,
    ][rng.below(15)];
    let mut attrs = Attrs::new().nest(top::SERVICE, &service);
    if rng.chance(2) || (cmd::NEW_DEST..=cmd::DEL_DEST).contains(&cmd) {
        attrs = attrs.nest(top::DEST, &server);
    }
    if cmd == cmd::SET_CONFIG || rng.chance(20) {
        attrs = attrs.u32(4 + rng.below(3) as u16, 1 + rng.below(1000) as u32);
    }
    if rng.chance(4) {
        attrs = mutate(rng, &attrs);
    }
    (if rng.chance(400) { cmd::FLUSH } else { cmd }, attrs)
}

/// As [`request`], about local addresses and what belongs to them.
fn local_request(rng: &mut Rng) -> (u8, Attrs) {
    let family = Family::BOTH[rng.below(2)];
    let proto = [TCP, UDP][rng.below(2)];
    let vip = at(family.vip(), 1000 + rng.below(6) as u16);
    let whole: u8 = if family == Family::V4 { 32 } else { 128 };
    let mut local = fullnat::laddr(fullnat::local(family, 64 * rng.below(4) as u16));
    if rng.chance(2) {
        local = local.u8(fullnat::PREFIX_LEN, whole - rng.below(12) as u8);
    }
    if rng.chance(3) {
        local = local.text(fullnat::IFNAME, ["s1", "lo", "nobody"][rng.below(3)]);
    }
    let mut service = svc_full(proto, vip, "rr");
    for kind in fullnat::TOA_KIND..=fullnat::PORT_MAX {
        if rng.chance(4) {
            service = match kind {
                fullnat::PORT_MIN | fullnat::PORT_MAX => service.u16(kind, rng.word() as u16),
                _ => service.u8(kind, [0, 1, 2, 254, rng.word() as u8][rng.below(5)]),
            };
        }
    }
    if rng.chance(2) {
        service = mutate(rng, &service);
    }
    if rng.chance(3) {
        local = mutate(rng, &local);
    }
    let cmd = [
        fullnat::NEW_LADDR,
        fullnat::NEW_LADDR,
        fullnat::DEL_LADDR,
        fullnat::GET_LADDR,
        cmd::NEW_SERVICE,
        cmd::SET_SERVICE,
    ][rng.below(6)];
    let attrs = Attrs::new()
        .nest(top::SERVICE, &service)
        .nest(fullnat::LADDR, &local);
    (cmd, attrs)
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let mut rng = Rng::new(cx.seed);
    let rounds = if slow() > 5.0 { 2_000 } else { 20_000 };
    let mut tally = std::collections::BTreeMap::new();
    for round in 0..rounds {
        let (cmd, attrs) = if cx.peer == Peer::Rvs && rng.chance(4) {
            local_request(&mut rng)
        } else {
            request(&mut rng)
        };
        let mut payload = genl_header(cmd, 1).to_vec();
        payload.extend(&attrs.0);
        if rng.chance(10) && payload.len() > 4 {
            let at = 4 + rng.below(payload.len() - 4);
            payload[at] = rng.word() as u8;
        }
        if rng.chance(30) {
            payload.truncate(rng.below(payload.len() + 1));
        }
        let dump = if rng.chance(8) || cmd == cmd::GET_DEST || cmd == fullnat::GET_LADDR {
            NLM_F_DUMP
        } else {
            0
        };
        let reply =
            ipvs.genl
                .request_bytes(ipvs.family, NLM_F_REQUEST | NLM_F_ACK | dump, &payload)?;
        *tally.entry(reply.errno).or_insert(0) += 1;
        if round % 200 == 0 {
            // Traffic meets whatever stands there now.
            for family in Family::BOTH {
                for port in 1000..1006 {
                    let client = at(family.raw_client(round as u16), 4000);
                    rig.ctap
                        .send(&Pkt::tcp(client, at(family.vip(), port), SYN))?;
                    rig.ctap
                        .send(&Pkt::udp(client, at(family.vip(), port), b"x"))?;
                }
            }
            rig.finish(crate::rig::Side::Client)?;
            // What is there can be listed, and everything listed can be deleted.
            for service in ipvs.services()? {
                if let Some(vip) = service.vip {
                    ipvs.dests(service.proto as u8, vip).map(drop)?;
                }
            }
        }
    }
    println!("answers by errno: {tally:?}");
    ensure!(
        tally.get(&0).copied().unwrap_or_default() > rounds / 20,
        "hardly any request was right: {tally:?}"
    );

    rig.ipvsadm("-C")?;
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    let vip = at(Family::V4.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r 10.8.1.77:80 -m"))?;
    let came = rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(7777), 1), vip, SYN))?;
    ensure!(came.dst == Family::V4.raw_rs(77), "{came:?}");
    Ok(())
}
