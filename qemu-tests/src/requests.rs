// SPDX-License-Identifier: GPL-2.0-or-later

//! Netlink requests by the thousand: right, at the limits and wrong, all of one seed.

use crate::fullnat;
use crate::genl::{genl_header, parse, Attrs, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ipvs::{cmd, dest, dest_full, for_dest, svc, svc_full, top};
use crate::pkt::{TCP, UDP};
use crate::scenario::Rng;
use crate::topo::{at, Family};

/// All that C has, and what stands for none.
pub const SCHEDULERS: &[&str] = &[
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
    "none",
];

/// A request as it goes out.
#[derive(Debug, Clone)]
pub struct Request {
    pub flags: u16,
    pub payload: Vec<u8>,
}

impl Request {
    /// Any request; `edges`: half of them with attributes that are all well formed, many at a limit.
    pub fn any(rng: &mut Rng, edges: bool) -> Self {
        let well_formed = edges && rng.chance(2);
        let (mut command, attrs) = if well_formed {
            at_limits(rng)
        } else {
            almost_right(rng)
        };
        if rng.chance(100) {
            // Of the daemons' commands only what does not start any.
            command = any(rng, &[0, 14, 21, 63, 255]);
        }
        Self::of(rng, well_formed, command, &attrs)
    }

    /// As [`Request::any`] without edges, but about FullNAT, which C has not.
    pub fn local(rng: &mut Rng) -> Self {
        let (command, attrs) = local_request(rng);
        Self::of(rng, false, command, &attrs)
    }

    fn of(rng: &mut Rng, well_formed: bool, command: u8, attrs: &Attrs) -> Self {
        let version = if rng.chance(20) { rng.word() as u8 } else { 1 };
        let mut payload = genl_header(command, version).to_vec();
        payload.extend(&attrs.0);
        if !well_formed && rng.chance(10) && payload.len() > 4 {
            let at = 4 + rng.below(payload.len() - 4);
            payload[at] = rng.word() as u8;
        }
        if !well_formed && rng.chance(30) {
            payload.truncate(rng.below(payload.len() + 1));
        }
        let wants_dump = [cmd::GET_DEST, cmd::GET_DAEMON, fullnat::GET_LADDR].contains(&command);
        let dump = if rng.chance(8) || wants_dump {
            NLM_F_DUMP
        } else {
            0
        };
        Self {
            flags: NLM_F_REQUEST | NLM_F_ACK | dump,
            payload,
        }
    }

    /// A dump of all services, as a client would ask for it.
    pub fn services() -> Self {
        Self {
            flags: NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
            payload: genl_header(cmd::GET_SERVICE, 1).to_vec(),
        }
    }

    /// Whether it is a dump of services, whose order hangs on a random key.
    pub fn dumps_services(&self) -> bool {
        self.payload.first() == Some(&cmd::GET_SERVICE) && self.flags & NLM_F_DUMP == NLM_F_DUMP
    }
}

/// One of them.
fn any<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.below(all.len())]
}

/// Half of the time what it was, else one of the others.
fn or<T: Copy>(rng: &mut Rng, usual: T, others: &[T]) -> T {
    if rng.chance(2) {
        any(rng, others)
    } else {
        usual
    }
}

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
fn almost_right(rng: &mut Rng) -> (u8, Attrs) {
    let family = Family::BOTH[rng.below(2)];
    let proto = [TCP, UDP][rng.below(2)];
    let vip = at(family.vip(), 1000 + rng.below(6) as u16);
    let sched = any(rng, SCHEDULERS);
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

/// As [`almost_right`], about local addresses and what belongs to them.
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

/// Addresses of all kinds, in 16 bytes.
const ADDRS: &[[u8; 16]] = &[
    [0; 16],
    [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [10, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
    [224, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [240, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 0x01, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];

/// A request whose attributes are all well formed, many of them at a limit.
fn at_limits(rng: &mut Rng) -> (u8, Attrs) {
    let af = or(rng, 2, &[0, 1, 2, 10, 10, 10, 11, 0xffff]);
    let mut service = Attrs::new().u16(svc::AF, af);
    if rng.chance(3) {
        service = service.u32(svc::FWMARK, any(rng, &[0, 1, 2, u32::MAX]));
    }
    if !rng.chance(8) {
        let width = or(rng, 16, &[0, 1, 4, 15, 16]);
        service = service
            .u16(svc::PROTOCOL, or(rng, 6, &[0, 17, 132, 255, 256, 0xffff]))
            .put(svc::ADDR, &any(rng, &ADDRS[..4])[..width])
            .u16(svc::PORT, any(rng, &[0, 1, 21u16.to_be(), 0xffff]));
    }
    if !rng.chance(20) {
        let mut flags = any(rng, &[0u32, 1, 2, 4, 0x38, u32::MAX])
            .to_ne_bytes()
            .to_vec();
        flags.extend(any(rng, &[0u32, 1, 5, 0x38, u32::MAX]).to_ne_bytes());
        flags.truncate(or(rng, 8, &[0, 3, 4, 7, 8]));
        let sched = if rng.chance(2) {
            any(rng, SCHEDULERS)
        } else {
            or(rng, "rr", &["", "a23456789012345"])
        };
        service = service
            .text(svc::SCHED_NAME, sched)
            .put(svc::FLAGS, &flags)
            .u32(svc::TIMEOUT, any(rng, &[0, 1, 300, 360_000]))
            .u32(svc::NETMASK, any(rng, &[0, 1, 64, 128, 129, u32::MAX]));
    }
    if rng.chance(6) {
        service = service.text(svc::PE_NAME, any(rng, &["", "nosuch", "a234567890123456"]));
    }
    let mut server = Attrs::new();
    if !rng.chance(10) {
        let width = or(rng, 16, &[0, 1, 4, 15, 16]);
        server = server
            .put(dest::ADDR, &any(rng, ADDRS)[..width])
            .u16(dest::PORT, any(rng, &[0, 1, 0xffff]));
    }
    if !rng.chance(10) {
        let limits = [0, 1, 2, i32::MAX as u32, 1 << 31, u32::MAX];
        server = server
            .u32(
                dest::FWD_METHOD,
                or(rng, 0, &[0, 1, 2, 3, 4, 7, 8, u32::MAX << 3]),
            )
            .u32(dest::WEIGHT, any(rng, &limits))
            .u32(dest::U_THRESH, or(rng, 0, &limits))
            .u32(dest::L_THRESH, or(rng, 0, &limits));
    }
    if rng.chance(3) {
        server = server.u16(dest::ADDR_FAMILY, any(rng, &[0, 2, 10, 3, 0xffff]));
    }
    if rng.chance(3) {
        server = server
            .u8(dest::TUN_TYPE, any(rng, &[0, 1, 2, 3, 255]))
            .u16(dest::TUN_PORT, any(rng, &[0, 1, 0xffff]))
            .u16(dest::TUN_FLAGS, any(rng, &[0, 1, 2, 3, 0xffff]));
    }
    let command = any(
        rng,
        &[
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
        ],
    );
    let mut attrs = for_dest(&service, &server);
    if command == cmd::SET_CONFIG {
        // At any tick rate on the same side of the limit.
        let secs = [0, 1, 2_000_000, 1 << 31, u32::MAX, i32::MAX as u32];
        for kind in [top::TIMEOUT_TCP, top::TIMEOUT_TCP_FIN, top::TIMEOUT_UDP] {
            if rng.chance(2) {
                attrs = attrs.u32(kind, any(rng, &secs));
            }
        }
    }
    (command, attrs)
}
