// SPDX-License-Identifier: GPL-2.0-or-later

//! The error matrix of the netlink interface, errno by errno; that a refused request changes nothing, and that rvs explains each
//! refusal.
//!
//! Proves checklist items 4 and 18 (while no daemon runs; see `sync_daemon`), 8 (flags), 11 (limits), 63 and, as to how it is
//! refused, 14.

use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Result};

use crate::genl::{genl_header, Attrs, Reply, NLM_F_ACK, NLM_F_REQUEST};
use crate::ipvs::{
    addr16, cmd, dest, dest_full, dest_id, for_dest, for_svc, svc, svc_full, svc_id, top, Ipvs,
};
use crate::matrix::*;
use crate::pkt::{TCP, UDP};
use crate::proc;
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_errors",
    "the netlink error matrix, errno by errno",
    &[4, 8, 11, 18, 63],
    run,
)
.partly(&[14]);

struct Matrix {
    ipvs: Ipvs,
    tally: Tally,
    /// Each refusal must be explained.
    explained: bool,
}

impl Matrix {
    fn note(&mut self, what: &str, reply: &Reply, want: i32) {
        self.tally
            .note(what, reply.errno, reply.text.as_deref(), want);
        if self.explained && reply.errno != OK && reply.text.as_deref().unwrap_or("").is_empty() {
            self.tally.note(&format!("{what}, not a word"), 0, None, -1);
        }
    }

    fn case(&mut self, what: &str, cmd: u8, attrs: &Attrs, want: i32) -> Result<()> {
        let reply = self.ipvs.call(cmd, attrs)?;
        self.note(what, &reply, want);
        Ok(())
    }

    fn dump(&mut self, what: &str, cmd: u8, attrs: &Attrs, want: i32) -> Result<()> {
        let reply = self.ipvs.dump(cmd, attrs)?;
        self.note(what, &reply, want);
        Ok(())
    }
}

fn run(cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let mut m = Matrix {
        ipvs: Ipvs::open(&topo.director)?,
        tally: Tally::default(),
        explained: false,
    };
    // The kernel's own refusals of commands that no family has are without words.
    commands(&mut m)?;
    m.explained = cx.peer == Peer::Rvs;
    let (vip4, vip6) = (at(Family::V4.vip(), 80), at(Family::V6.vip(), 80));
    for vip in [vip4, vip6] {
        services(&mut m, vip)?;
        destinations(&mut m, vip)?;
    }
    addresses(&mut m, vip4, vip6)?;
    config(&mut m)?;
    daemons(&mut m)?;
    m.tally.finish()
}

/// Which commands there are, as a single request and as a dump.
fn commands(m: &mut Matrix) -> Result<()> {
    for cmd in [0, 8, 11, 14, 21, 22, 63, 64, 127, 255] {
        m.case(&format!("command {cmd}"), cmd, &Attrs::new(), EOPNOTSUPP)?;
    }
    for cmd in [0, 1, 2, 3, 5, 6, 7, 9, 10, 12, 13, 14, 15, 16, 17, 18, 255] {
        m.dump(
            &format!("dump of command {cmd}"),
            cmd,
            &Attrs::new(),
            EOPNOTSUPP,
        )?;
    }
    m.dump("dump of daemons", cmd::GET_DAEMON, &Attrs::new(), OK)?;
    m.dump("dump of services", cmd::GET_SERVICE, &Attrs::new(), OK)?;
    // The version of a request is nobody's business.
    for version in [0, 1, 2, 255] {
        let reply = m.ipvs.genl.request(
            m.ipvs.family,
            NLM_F_REQUEST | NLM_F_ACK,
            &genl_header(cmd::GET_INFO, version),
            &[],
        )?;
        m.note(&format!("version {version}"), &reply, OK);
    }
    let reply = m
        .ipvs
        .genl
        .request_bytes(m.ipvs.family, NLM_F_REQUEST | NLM_F_ACK, &[13, 1])?;
    m.note("half a header", &reply, EINVAL);
    Ok(())
}

fn services(m: &mut Matrix, vip: SocketAddr) -> Result<()> {
    let id = svc_id(TCP, vip);
    let full = svc_full(TCP, vip, "rr");
    m.case(
        "NEW_SERVICE without attributes",
        cmd::NEW_SERVICE,
        &Attrs::new(),
        EINVAL,
    )?;
    m.case(
        "NEW_SERVICE with an empty nest",
        cmd::NEW_SERVICE,
        &for_svc(&Attrs::new()),
        EINVAL,
    )?;
    for (kind, name) in [
        (svc::AF, "AF"),
        (svc::PROTOCOL, "PROTOCOL"),
        (svc::ADDR, "ADDR"),
        (svc::PORT, "PORT"),
    ] {
        for cmd in [
            cmd::NEW_SERVICE,
            cmd::SET_SERVICE,
            cmd::DEL_SERVICE,
            cmd::GET_SERVICE,
            cmd::ZERO,
            cmd::NEW_DEST,
        ] {
            m.case(
                &format!("command {cmd} without {name}"),
                cmd,
                &for_svc(&full.without(kind)),
                EINVAL,
            )?;
        }
    }
    for (kind, name) in [
        (svc::SCHED_NAME, "SCHED_NAME"),
        (svc::FLAGS, "FLAGS"),
        (svc::TIMEOUT, "TIMEOUT"),
        (svc::NETMASK, "NETMASK"),
    ] {
        for cmd in [cmd::NEW_SERVICE, cmd::SET_SERVICE] {
            m.case(
                &format!("command {cmd} without {name}"),
                cmd,
                &for_svc(&full.without(kind)),
                EINVAL,
            )?;
        }
    }
    for af in [0u16, 1, 3, 9, 11, 0xffff] {
        m.case(
            &format!("AF {af}"),
            cmd::NEW_SERVICE,
            &for_svc(&full.with(svc::AF, &af.to_ne_bytes())),
            EAFNOSUPPORT,
        )?;
    }
    // Lengths.
    for (what, kind, value, want) in [
        ("ADDR of 17 bytes", svc::ADDR, vec![10; 17], EINVAL),
        ("AF of 1 byte", svc::AF, vec![2], EINVAL),
        ("PROTOCOL of 1 byte", svc::PROTOCOL, vec![6], EINVAL),
        ("PORT of 1 byte", svc::PORT, vec![0], EINVAL),
        ("PORT of no byte", svc::PORT, vec![], EINVAL),
        ("TIMEOUT of 2 bytes", svc::TIMEOUT, vec![0; 2], EINVAL),
        ("NETMASK of 3 bytes", svc::NETMASK, vec![0; 3], EINVAL),
        ("FLAGS of 9 bytes", svc::FLAGS, vec![0; 9], EINVAL),
        (
            "SCHED_NAME of 16 characters",
            svc::SCHED_NAME,
            vec![b'r'; 16],
            EINVAL,
        ),
        (
            "SCHED_NAME of 16 characters and NUL",
            svc::SCHED_NAME,
            b"rrrrrrrrrrrrrrrr\0".to_vec(),
            EINVAL,
        ),
        (
            "SCHED_NAME without NUL",
            svc::SCHED_NAME,
            b"rr".to_vec(),
            EINVAL,
        ),
        (
            "PE_NAME of 17 characters",
            svc::PE_NAME,
            vec![b'p'; 17],
            EINVAL,
        ),
        ("FWMARK of 2 bytes", svc::FWMARK, vec![0; 2], EINVAL),
        (
            "an unknown scheduler",
            svc::SCHED_NAME,
            b"nonesuch\0".to_vec(),
            ENOENT,
        ),
        (
            "an unknown persistence engine",
            svc::PE_NAME,
            b"nonesuch\0".to_vec(),
            ENOENT,
        ),
        (
            "an empty scheduler name",
            svc::SCHED_NAME,
            b"\0".to_vec(),
            ENOENT,
        ),
    ] {
        m.case(
            what,
            cmd::NEW_SERVICE,
            &for_svc(&full.with(kind, &value)),
            want,
        )?;
    }
    // Not found.
    for cmd in [
        cmd::SET_SERVICE,
        cmd::DEL_SERVICE,
        cmd::GET_SERVICE,
        cmd::NEW_DEST,
        cmd::SET_DEST,
        cmd::DEL_DEST,
        cmd::ZERO,
    ] {
        m.case(
            &format!("command {cmd} on no service"),
            cmd,
            &for_svc(&full),
            ESRCH,
        )?;
    }
    m.case(
        "GET_SERVICE without a service",
        cmd::GET_SERVICE,
        &Attrs::new(),
        EINVAL,
    )?;
    if vip.is_ipv6() {
        for prefix in [0u32, 129, u32::MAX] {
            let attrs = for_svc(&full.with(svc::NETMASK, &prefix.to_ne_bytes()));
            m.case(
                &format!("prefix {prefix}"),
                cmd::NEW_SERVICE,
                &attrs,
                EINVAL,
            )?;
        }
    }
    ensure!(
        m.ipvs.services()?.is_empty(),
        "a refused request left {:?}",
        m.ipvs.services()?
    );

    // Accepted: nested flag, unknown attributes at both levels, long numbers, short flags and
    // addresses, any protocol number.
    m.case("NEW_SERVICE", cmd::NEW_SERVICE, &for_svc(&full), OK)?;
    m.case(
        "NEW_SERVICE again",
        cmd::NEW_SERVICE,
        &for_svc(&full),
        EEXIST,
    )?;
    m.case(
        "again, without SCHED_NAME",
        cmd::NEW_SERVICE,
        &for_svc(&full.without(svc::SCHED_NAME)),
        EINVAL,
    )?;
    m.case(
        "again, unknown scheduler",
        cmd::NEW_SERVICE,
        &for_svc(&full.with(svc::SCHED_NAME, b"x\0")),
        EEXIST,
    )?;
    let unknown = Attrs::new()
        .put(top::SERVICE | 0x8000, &full.clone().u32(40, 1).0)
        .u32(99, 7);
    m.case("unknown attributes", cmd::SET_SERVICE, &unknown, OK)?;
    let bad = full.with(svc::SCHED_NAME, b"nonesuch\0");
    m.case(
        "SET_SERVICE, unknown scheduler",
        cmd::SET_SERVICE,
        &for_svc(&bad),
        ENOENT,
    )?;
    ensure!(
        m.ipvs.service(TCP, vip)?.sched == "rr",
        "the scheduler is {}",
        m.ipvs.service(TCP, vip)?.sched
    );
    if vip.is_ipv6() {
        let bad = full.with(svc::NETMASK, &0u32.to_ne_bytes());
        m.case(
            "SET_SERVICE, prefix 0",
            cmd::SET_SERVICE,
            &for_svc(&bad),
            EINVAL,
        )?;
    }
    m.case("GET_SERVICE", cmd::GET_SERVICE, &for_svc(&id), OK)?;

    // Flags: only what the mask covers changes.
    let flags = |flags: u32, mask: u32| {
        let mut value = flags.to_ne_bytes().to_vec();
        value.extend(mask.to_ne_bytes());
        for_svc(&full.with(svc::FLAGS, &value))
    };
    for (set, mask, want) in [
        (0x8, 0x18, 0x8),
        (0x10, 0x10, 0x18),
        (0, 0x8, 0x10),
        (0x8, 0, 0x10),
        (0, u32::MAX, 0),
        (0x2, 0x2, 0),
    ] {
        m.case(
            &format!("flags {set:#x} mask {mask:#x}"),
            cmd::SET_SERVICE,
            &flags(set, mask),
            OK,
        )?;
        let got = m.ipvs.service(TCP, vip)?.flags;
        ensure!(
            got == want | 2,
            "flags {set:#x} mask {mask:#x} made {got:#x}, expected {:#x}",
            want | 2
        );
    }
    m.case(
        "FLAGS of 4 bytes",
        cmd::SET_SERVICE,
        &for_svc(&full.with(svc::FLAGS, &[0xff; 4])),
        OK,
    )?;
    ensure!(
        m.ipvs.service(TCP, vip)?.flags == 2,
        "flags without a mask changed something"
    );

    let other = at(vip.ip(), 81);
    for proto in [UDP, 132, 1, 255] {
        m.case(
            &format!("protocol {proto}"),
            cmd::NEW_SERVICE,
            &for_svc(&svc_full(proto, other, "rr")),
            OK,
        )?;
        m.case(
            &format!("protocol {proto}, gone"),
            cmd::DEL_SERVICE,
            &for_svc(&svc_id(proto, other)),
            OK,
        )?;
    }
    if let IpAddr::V4(ip) = vip.ip() {
        let short = svc_id(TCP, vip).with(svc::ADDR, &ip.octets());
        m.case("ADDR of 4 bytes", cmd::GET_SERVICE, &for_svc(&short), OK)?;
    }
    Ok(())
}

fn destinations(m: &mut Matrix, vip: SocketAddr) -> Result<()> {
    let service = svc_id(TCP, vip);
    let nobody = svc_id(TCP, at(vip.ip(), 9999));
    let family = Family::of(vip.ip());
    let rs = at(family.raw_rs(1), 80);
    let full = dest_full(rs, 1);
    let with = |kind: u16, value: u32| full.with(kind, &value.to_ne_bytes());
    m.case(
        "NEW_DEST without a destination",
        cmd::NEW_DEST,
        &for_svc(&service),
        EINVAL,
    )?;
    m.case(
        "no service, no destination",
        cmd::NEW_DEST,
        &for_svc(&nobody),
        ESRCH,
    )?;
    m.case(
        "no service, bad destination",
        cmd::NEW_DEST,
        &for_dest(&nobody, &Attrs::new()),
        ESRCH,
    )?;
    m.case(
        "no service at all",
        cmd::NEW_DEST,
        &Attrs::new().nest(top::DEST, &full),
        EINVAL,
    )?;
    for cmd in [cmd::NEW_DEST, cmd::SET_DEST, cmd::DEL_DEST] {
        m.case(
            &format!("command {cmd}, empty"),
            cmd,
            &for_dest(&service, &Attrs::new()),
            EINVAL,
        )?;
        for (kind, name) in [(dest::ADDR, "ADDR"), (dest::PORT, "PORT")] {
            m.case(
                &format!("command {cmd} without {name}"),
                cmd,
                &for_dest(&service, &full.without(kind)),
                EINVAL,
            )?;
        }
    }
    for (kind, name) in [
        (dest::FWD_METHOD, "FWD_METHOD"),
        (dest::WEIGHT, "WEIGHT"),
        (dest::U_THRESH, "U_THRESH"),
        (dest::L_THRESH, "L_THRESH"),
    ] {
        for cmd in [cmd::NEW_DEST, cmd::SET_DEST] {
            m.case(
                &format!("command {cmd} without {name}"),
                cmd,
                &for_dest(&service, &full.without(kind)),
                EINVAL,
            )?;
        }
    }
    for (what, kind, value) in [
        ("ADDR of 17 bytes", dest::ADDR, vec![0; 17]),
        ("PORT of 1 byte", dest::PORT, vec![0]),
        ("WEIGHT of 2 bytes", dest::WEIGHT, vec![0; 2]),
        ("FWD_METHOD of 1 byte", dest::FWD_METHOD, vec![0]),
        ("U_THRESH of 3 bytes", dest::U_THRESH, vec![0; 3]),
        ("ADDR_FAMILY of 1 byte", dest::ADDR_FAMILY, vec![2]),
        ("TUN_TYPE of no byte", dest::TUN_TYPE, vec![]),
        ("TUN_PORT of 1 byte", dest::TUN_PORT, vec![0]),
        ("TUN_FLAGS of 1 byte", dest::TUN_FLAGS, vec![0]),
    ] {
        m.case(
            what,
            cmd::NEW_DEST,
            &for_dest(&service, &full.with(kind, &value)),
            EINVAL,
        )?;
    }
    for af in [1u16, 3, 255] {
        for cmd in [cmd::NEW_DEST, cmd::SET_DEST, cmd::DEL_DEST] {
            let attrs = for_dest(&service, &full.with(dest::ADDR_FAMILY, &af.to_ne_bytes()));
            m.case(
                &format!("command {cmd}, family {af}"),
                cmd,
                &attrs,
                EAFNOSUPPORT,
            )?;
        }
    }
    let other = if family == Family::V4 {
        Family::V6
    } else {
        Family::V4
    };
    let mixed = dest_full(at(other.raw_rs(1), 80), 1);
    m.case(
        "another family by NAT",
        cmd::NEW_DEST,
        &for_dest(&service, &mixed),
        EINVAL,
    )?;
    m.case(
        "another family, SET",
        cmd::SET_DEST,
        &for_dest(&service, &mixed),
        EINVAL,
    )?;
    m.case(
        "another family, DEL",
        cmd::DEL_DEST,
        &for_dest(&service, &mixed),
        ENOENT,
    )?;
    // Only through a tunnel: methods 0, 1, 3 and those that there are not.
    for method in [0u32, 1, 3, 4, 7] {
        let attrs = mixed.with(dest::FWD_METHOD, &method.to_ne_bytes());
        for cmd in [cmd::NEW_DEST, cmd::SET_DEST] {
            let what = format!("command {cmd}, another family, method {method}");
            m.case(&what, cmd, &for_dest(&service, &attrs), EINVAL)?;
        }
    }
    // The family is looked at before the rest.
    let worse = mixed.with(dest::WEIGHT, &u32::MAX.to_ne_bytes());
    m.case(
        "another family, and weight -1",
        cmd::NEW_DEST,
        &for_dest(&service, &worse),
        EINVAL,
    )?;
    let tunnel = mixed.with(dest::FWD_METHOD, &2u32.to_ne_bytes());
    let tunnel_of = |attrs: &Attrs| for_dest(&service, attrs);
    m.case(
        "another family through a tunnel",
        cmd::NEW_DEST,
        &tunnel_of(&tunnel),
        OK,
    )?;
    m.case(
        "another family, again",
        cmd::NEW_DEST,
        &tunnel_of(&tunnel),
        EEXIST,
    )?;
    m.case(
        "another family, from tunnel to NAT",
        cmd::SET_DEST,
        &tunnel_of(&mixed),
        EINVAL,
    )?;
    m.case(
        "another family, by another tunnel",
        cmd::SET_DEST,
        &tunnel_of(&tunnel.clone().u8(dest::TUN_TYPE, 2)),
        OK,
    )?;
    // Whatever is said of the method.
    m.case(
        "another family, DEL by NAT",
        cmd::DEL_DEST,
        &tunnel_of(&mixed),
        OK,
    )?;
    let odd = |a: Attrs| for_dest(&service, &a);
    let gue = full.clone().u8(dest::TUN_TYPE, 1);
    let limits: Vec<(&str, Attrs, i32)> = vec![
        ("weight -1", odd(with(dest::WEIGHT, u32::MAX)), ERANGE),
        (
            "the least weight",
            odd(with(dest::WEIGHT, 0x8000_0000)),
            ERANGE,
        ),
        (
            "lower above upper threshold",
            odd(with(dest::L_THRESH, 1)),
            ERANGE,
        ),
        (
            "upper threshold 2^31",
            odd(with(dest::U_THRESH, 0x8000_0000)),
            EINVAL,
        ),
        (
            "upper 2^31, lower more",
            odd(with(dest::U_THRESH, 1 << 31).with(dest::L_THRESH, &u32::MAX.to_ne_bytes())),
            ERANGE,
        ),
        (
            "weight -1, upper 2^31",
            odd(with(dest::U_THRESH, 1 << 31).with(dest::WEIGHT, &u32::MAX.to_ne_bytes())),
            ERANGE,
        ),
        ("gue without a port", odd(gue), EINVAL),
    ];
    for (what, attrs, want) in &limits {
        m.case(what, cmd::NEW_DEST, attrs, *want)?;
    }
    for cmd in [cmd::SET_DEST, cmd::DEL_DEST] {
        m.case(
            &format!("command {cmd}, no such destination"),
            cmd,
            &for_dest(&service, &full),
            ENOENT,
        )?;
    }
    ensure!(
        m.ipvs.dests(TCP, vip)?.is_empty(),
        "a refused request left {:?}",
        m.ipvs.dests(TCP, vip)?
    );

    m.case("NEW_DEST", cmd::NEW_DEST, &for_dest(&service, &full), OK)?;
    m.case(
        "NEW_DEST again",
        cmd::NEW_DEST,
        &for_dest(&service, &full),
        EEXIST,
    )?;
    for (what, attrs, want) in &limits {
        m.case(
            &format!("NEW_DEST again, {what}"),
            cmd::NEW_DEST,
            attrs,
            *want,
        )?;
        m.case(&format!("SET_DEST, {what}"), cmd::SET_DEST, attrs, *want)?;
    }
    let before = m.ipvs.dest(TCP, vip, rs)?;
    ensure!(
        before.weight == 1 && before.u_thresh == 0,
        "a refused request changed {before:?}"
    );
    // The family may be left out, and say nothing.
    m.case(
        "SET_DEST without a family",
        cmd::SET_DEST,
        &for_dest(&service, &full.without(dest::ADDR_FAMILY)),
        OK,
    )?;
    m.case(
        "SET_DEST with family 0",
        cmd::SET_DEST,
        &odd(full.with(dest::ADDR_FAMILY, &[0, 0])),
        OK,
    )?;
    m.case(
        "greatest weight",
        cmd::SET_DEST,
        &odd(with(dest::WEIGHT, 0x7fff_ffff)),
        OK,
    )?;
    m.case(
        "greatest threshold",
        cmd::SET_DEST,
        &odd(with(dest::U_THRESH, 0x7fff_ffff)),
        OK,
    )?;
    m.case(
        "DEL_DEST by identity",
        cmd::DEL_DEST,
        &for_dest(&service, &dest_id(rs)),
        OK,
    )?;
    m.case(
        "DEL_DEST again",
        cmd::DEL_DEST,
        &for_dest(&service, &dest_id(rs)),
        ENOENT,
    )?;
    m.dump(
        "destinations of no service",
        cmd::GET_DEST,
        &for_svc(&nobody),
        OK,
    )?;
    m.dump("destinations of nothing", cmd::GET_DEST, &Attrs::new(), OK)?;
    m.case("DEL_SERVICE", cmd::DEL_SERVICE, &for_svc(&service), OK)?;
    m.case(
        "DEL_SERVICE again",
        cmd::DEL_SERVICE,
        &for_svc(&service),
        ESRCH,
    )
}

/// What a real server's address may be.
fn addresses(m: &mut Matrix, vip4: SocketAddr, vip6: SocketAddr) -> Result<()> {
    for (vip, addr, want) in [
        (vip4, "0.0.0.0", EINVAL),
        (vip4, "255.255.255.255", EINVAL),
        (vip4, "224.0.0.1", EINVAL),
        (vip4, "239.1.2.3", EINVAL),
        (vip4, "10.0.1.255", EINVAL),
        (vip4, "127.0.0.1", OK),
        (vip4, "10.0.0.1", OK),
        (vip4, "10.0.1.2", OK),
        (vip4, "192.0.2.1", OK),
        (vip6, "::", EINVAL),
        (vip6, "ff02::1", EINVAL),
        (vip6, "ff0e::1", EINVAL),
        (vip6, "fe80::1", EINVAL),
        (vip6, "::1", OK),
        (vip6, "fd00::1", OK),
        (vip6, "fd00:0:0:1::2", OK),
        (vip6, "2001:db8::1", OK),
    ] {
        if vip == vip4 && addr == "0.0.0.0" || vip == vip6 && addr == "::" {
            m.ipvs
                .ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, vip, "rr")))?;
        }
        let attrs = for_dest(&svc_id(TCP, vip), &dest_full(at(addr.parse()?, 80), 1));
        m.case(&format!("a server at {addr}"), cmd::NEW_DEST, &attrs, want)?;
        if want != OK {
            // Only adding looks at the address.
            m.case(&format!("editing {addr}"), cmd::SET_DEST, &attrs, ENOENT)?;
        }
    }
    // A short address is padded with zeros.
    let short = dest_full(vip4, 1).with(dest::ADDR, &addr16(vip4.ip())[..4]);
    m.case(
        "a server's ADDR of 4 bytes",
        cmd::NEW_DEST,
        &for_dest(&svc_id(TCP, vip4), &short),
        OK,
    )?;
    m.case("FLUSH", cmd::FLUSH, &Attrs::new(), OK)?;
    ensure!(m.ipvs.services()?.is_empty(), "services after FLUSH");
    m.case("FLUSH of nothing", cmd::FLUSH, &Attrs::new(), OK)?;
    m.case("ZERO of nothing", cmd::ZERO, &Attrs::new(), OK)
}

fn config(m: &mut Matrix) -> Result<()> {
    let max = 0x7fff_ffff / proc::hz()?;
    let set = |kind: u16, value: u32| Attrs::new().u32(kind, value);
    let before = m.ipvs.config()?;
    ensure!(before == [900, 120, 300], "the defaults are {before:?}");
    for kind in [top::TIMEOUT_TCP, top::TIMEOUT_TCP_FIN, top::TIMEOUT_UDP] {
        m.case(
            &format!("timeout {kind} too big"),
            cmd::SET_CONFIG,
            &set(kind, max + 1),
            EINVAL,
        )?;
        m.case(
            &format!("timeout {kind} negative"),
            cmd::SET_CONFIG,
            &set(kind, u32::MAX),
            EINVAL,
        )?;
        m.case(
            &format!("timeout {kind} of 2 bytes"),
            cmd::SET_CONFIG,
            &Attrs::new().u16(kind, 1),
            ERANGE,
        )?;
        m.case(
            &format!("timeout {kind} zero"),
            cmd::SET_CONFIG,
            &set(kind, 0),
            OK,
        )?;
    }
    let half = set(top::TIMEOUT_TCP, 77).u32(top::TIMEOUT_UDP, max + 1);
    m.case("one right, one wrong", cmd::SET_CONFIG, &half, EINVAL)?;
    m.case("no timeout", cmd::SET_CONFIG, &Attrs::new(), OK)?;
    ensure!(
        m.ipvs.config()? == before,
        "refused timeouts changed {before:?} into {:?}",
        m.ipvs.config()?
    );
    for (n, kind) in [top::TIMEOUT_TCP, top::TIMEOUT_TCP_FIN, top::TIMEOUT_UDP]
        .into_iter()
        .enumerate()
    {
        m.case(
            &format!("greatest timeout {kind}"),
            cmd::SET_CONFIG,
            &set(kind, max),
            OK,
        )?;
        ensure!(m.ipvs.config()?[n] == max, "{:?}", m.ipvs.config()?);
        m.case(
            &format!("least timeout {kind}"),
            cmd::SET_CONFIG,
            &set(kind, 1),
            OK,
        )?;
        ensure!(m.ipvs.config()?[n] == 1, "{:?}", m.ipvs.config()?);
    }
    Ok(())
}

/// Sync daemons that are not started, or do not run.
fn daemons(m: &mut Matrix) -> Result<()> {
    let daemon = |state: u32, ifn: &str| {
        Attrs::new().nest(
            top::DAEMON,
            &Attrs::new().u32(1, state).text(2, ifn).u32(3, 1),
        )
    };
    m.case(
        "NEW_DAEMON of nothing",
        cmd::NEW_DAEMON,
        &Attrs::new(),
        EINVAL,
    )?;
    m.case(
        "NEW_DAEMON, no such interface",
        cmd::NEW_DAEMON,
        &daemon(1, "nonesuch"),
        ENODEV,
    )?;
    m.case(
        "NEW_DAEMON, bad state",
        cmd::NEW_DAEMON,
        &daemon(7, "c0"),
        EINVAL,
    )?;
    let all = |group: [u8; 4]| {
        let nest = Attrs::new().u32(1, 2).text(2, "c0").u32(3, 255);
        let nest = nest.u16(4, 1400).put(5, &group).u16(7, 9000).u8(8, 5);
        Attrs::new().nest(top::DAEMON, &nest)
    };
    m.case(
        "NEW_DAEMON, no group",
        cmd::NEW_DAEMON,
        &all([10, 0, 0, 1]),
        EINVAL,
    )?;
    for missing in [1, 2, 3] {
        let nest = Attrs::new().u32(1, 1).text(2, "c0").u32(3, 1);
        m.case(
            &format!("NEW_DAEMON without attribute {missing}"),
            cmd::NEW_DAEMON,
            &Attrs::new().nest(top::DAEMON, &nest.without(missing)),
            EINVAL,
        )?;
    }
    m.case(
        "DEL_DAEMON of nothing",
        cmd::DEL_DAEMON,
        &Attrs::new().nest(top::DAEMON, &Attrs::new()),
        EINVAL,
    )?;
    for state in [1, 2] {
        m.case(
            &format!("DEL_DAEMON {state} that is not there"),
            cmd::DEL_DAEMON,
            &daemon(state, "c0"),
            ESRCH,
        )?;
    }
    let daemons = m.ipvs.dump(cmd::GET_DAEMON, &Attrs::new())?.ok()?;
    ensure!(daemons.msgs.is_empty(), "{daemons:?}");
    Ok(())
}
