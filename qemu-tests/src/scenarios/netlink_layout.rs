// SPDX-License-Identifier: GPL-2.0-or-later

//! Every answer byte by byte: headers, the order, types and lengths of attributes, padding.
//!
//! Proves checklist items 2, 3, 7, 9, 10 ("none"; persistence engines are not there yet) and 12.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::genl::{parse, Attrs, Reply, NLM_F_MULTI};
use crate::ipvs::{
    addr16, cmd, dest, dest_full, for_dest, for_svc, svc, svc_full, svc_id, top, Ipvs,
};
use crate::pkt::{TCP, UDP};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_layout",
    "every netlink answer byte by byte",
    &[2, 3, 7, 9, 10, 12],
    run,
);

/// STATS and STATS64 of something that no packet went through.
fn no_stats(attrs: Attrs, stats: u16, stats64: u16) -> Attrs {
    let mut short = Attrs::new();
    let mut long = Attrs::new();
    for kind in 1..=10 {
        short = if matches!(kind, 4 | 5) {
            short.put(kind, &[0; 8])
        } else {
            short.put(kind, &[0; 4])
        };
        long = long.put(kind, &[0; 8]);
    }
    attrs.nest(stats, &short).nest(stats64, &long)
}

/// The attributes without the padding (attribute 11 in a STATS nest) that architectures without
/// unaligned access need.
fn unpadded(bytes: &[u8], stats: &[u16]) -> Result<Attrs> {
    let mut out = Attrs::new();
    for (kind, value) in parse(bytes)? {
        out = if stats.contains(&kind) {
            out.nest(
                kind,
                &parse(value)?
                    .into_iter()
                    .filter(|(k, _)| *k != 11)
                    .fold(Attrs::new(), |a, (k, v)| a.put(k, v)),
            )
        } else {
            out.put(kind, value)
        };
    }
    Ok(out)
}

fn same(what: &str, ipvs: &Ipvs, reply: &Reply, cmd: u8, multi: bool, want: &Attrs) -> Result<()> {
    ensure!(reply.errno == 0, "{what}: errno {}", reply.errno);
    let msg = reply
        .msgs
        .first()
        .with_context(|| format!("{what}: no answer"))?;
    ensure!(
        reply.msgs.len() == 1,
        "{what}: {} answers",
        reply.msgs.len()
    );
    ensure!(
        msg.kind == ipvs.family && msg.cmd == cmd && msg.version == 1,
        "{what}: header {msg:?}"
    );
    ensure!(
        msg.flags == if multi { NLM_F_MULTI } else { 0 },
        "{what}: flags {:#x}",
        msg.flags
    );
    ensure!(msg.port == ipvs.genl.port(), "{what}: to port {}", msg.port);
    let got = match parse(&msg.attrs)?[..] {
        [(kind @ (top::SERVICE | top::DEST), nest)] => Attrs::new().nest(
            kind,
            &unpadded(
                nest,
                &[svc::STATS, svc::STATS64, dest::STATS, dest::STATS64],
            )?,
        ),
        _ => Attrs(msg.attrs.clone()),
    };
    let show = |a: &Attrs| {
        parse(&a.0).map(|top| {
            top.iter()
                .map(|(k, v)| format!("{k}: {:x?}", parse(v).unwrap_or_default()))
                .collect::<Vec<_>>()
        })
    };
    ensure!(
        &got == want,
        "{what}:\ngot      {:?}\nexpected {:?}",
        show(&got),
        show(want)
    );
    Ok(())
}

fn run(_cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let ipvs = Ipvs::open(&topo.director)?;

    // Nothing there yet: version 1.2.1, no table.
    let reply = ipvs.call(cmd::GET_INFO, &Attrs::new())?;
    same(
        "GET_INFO",
        &ipvs,
        &reply,
        cmd::SET_INFO,
        false,
        &Attrs::new().u32(1, 0x0001_0201).u32(2, 0),
    )?;
    let reply = ipvs.call(cmd::GET_CONFIG, &Attrs::new())?;
    let config = Attrs::new()
        .u32(top::TIMEOUT_TCP, 900)
        .u32(top::TIMEOUT_TCP_FIN, 120)
        .u32(top::TIMEOUT_UDP, 300);
    same("GET_CONFIG", &ipvs, &reply, cmd::SET_CONFIG, false, &config)?;

    for family in Family::BOTH {
        for proto in [TCP, UDP] {
            let vip = at(family.vip(), 8080);
            let mask: u32 = if family == Family::V4 {
                0x00ff_ffff
            } else {
                64
            };
            let flags = |f: u32| [f.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
            let new = svc_full(proto, vip, "wlc")
                .with(svc::NETMASK, &mask.to_ne_bytes())
                .with(svc::FLAGS, &flags(0x18))
                .with(svc::TIMEOUT, &0u32.to_ne_bytes());
            ipvs.ok(cmd::NEW_SERVICE, &for_svc(&new))?;
            // Attribute order, and HASHED (2) among the flags.
            let want = no_stats(
                Attrs::new()
                    .u16(svc::AF, family.af())
                    .u16(svc::PROTOCOL, proto.into())
                    .put(svc::ADDR, &addr16(vip.ip()))
                    .put(svc::PORT, &8080u16.to_be_bytes())
                    .text(svc::SCHED_NAME, "wlc")
                    .put(svc::FLAGS, &flags(0x1a))
                    .u32(svc::TIMEOUT, 0)
                    .u32(svc::NETMASK, mask),
                svc::STATS,
                svc::STATS64,
            );
            let want = for_svc(&want);
            let reply = ipvs.call(cmd::GET_SERVICE, &for_svc(&svc_id(proto, vip)))?;
            same("GET_SERVICE", &ipvs, &reply, cmd::NEW_SERVICE, false, &want)?;
            let reply = ipvs.dump(cmd::GET_SERVICE, &Attrs::new())?;
            same(
                "dump of services",
                &ipvs,
                &reply,
                cmd::NEW_SERVICE,
                true,
                &want,
            )?;
            destination(&ipvs, family, proto, vip)?;
            ipvs.ok(cmd::DEL_SERVICE, &for_svc(&svc_id(proto, vip)))?;
        }

        // A service by firewall mark: the mark instead of protocol, address and port. Protocol and
        // port given are not kept.
        let mark = Attrs::new()
            .u16(svc::AF, family.af())
            .u32(svc::FWMARK, 0x8000_0001);
        let mask: u32 = if family == Family::V4 { u32::MAX } else { 128 };
        let new = mark
            .clone()
            .text(svc::SCHED_NAME, "none")
            .put(svc::FLAGS, &[0; 8])
            .u32(svc::TIMEOUT, 0)
            .u32(svc::NETMASK, mask)
            .u16(svc::PROTOCOL, 17)
            .put(svc::PORT, &[1, 2]);
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&new))?;
        let want = no_stats(
            Attrs::new()
                .u16(svc::AF, family.af())
                .u32(svc::FWMARK, 0x8000_0001)
                .text(svc::SCHED_NAME, "none")
                .put(
                    svc::FLAGS,
                    &[2u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat(),
                )
                .u32(svc::TIMEOUT, 0)
                .u32(svc::NETMASK, mask),
            svc::STATS,
            svc::STATS64,
        );
        let reply = ipvs.call(cmd::GET_SERVICE, &for_svc(&mark))?;
        same(
            "GET_SERVICE by mark",
            &ipvs,
            &reply,
            cmd::NEW_SERVICE,
            false,
            &for_svc(&want),
        )?;
        ipvs.ok(cmd::DEL_SERVICE, &for_svc(&mark))?;
    }

    // The table is there since the first service, and stays.
    let reply = ipvs.call(cmd::GET_INFO, &Attrs::new())?;
    same(
        "GET_INFO",
        &ipvs,
        &reply,
        cmd::SET_INFO,
        false,
        &Attrs::new().u32(1, 0x0001_0201).u32(2, 256),
    )
}

fn destination(ipvs: &Ipvs, family: Family, proto: u8, vip: SocketAddr) -> Result<()> {
    let other = if family == Family::V4 {
        Family::V6
    } else {
        Family::V4
    };
    let rs = at(family.raw_rs(1), 8000);
    let service = svc_id(proto, vip);
    let new = dest_full(rs, 77)
        .with(dest::U_THRESH, &100u32.to_ne_bytes())
        .with(dest::L_THRESH, &50u32.to_ne_bytes())
        .without(dest::ADDR_FAMILY);
    let shown = |what: &str, want: Shown| -> Result<()> {
        let reply = ipvs.dump(cmd::GET_DEST, &for_svc(&service))?;
        let want = Attrs::new().nest(top::DEST, &want.attrs());
        same(what, ipvs, &reply, cmd::NEW_DEST, true, &want)
    };
    // Without a family it is the service's; without a tunnel's attributes it is IPIP.
    ipvs.ok(cmd::NEW_DEST, &for_dest(&service, &new))?;
    let plain = Shown {
        rs,
        method: 0,
        weight: 77,
        tunnel: (0, [0, 0], 0),
        thresholds: (100, 50),
    };
    shown("a destination", plain)?;
    // Of the method three bits count. Whatever the tunnel is called is kept, if it is not GUE without a port.
    for (method, kind, port, flags) in [
        (2, 1, [0x17, 0xc0], 0),
        (2, 1, [0, 1], 2),
        (2, 2, [0, 0], 1),
        (2, 0, [0xff, 0xff], 0xffff),
        (2, 255, [0, 0], 3),
        (0xa, 2, [0, 0], 0),
        (0xffff_fffb, 0, [0, 0], 0),
        (1, 3, [0, 0], 0),
    ] {
        let set = dest_full(rs, 5)
            .with(dest::FWD_METHOD, &u32::to_ne_bytes(method))
            .u8(dest::TUN_TYPE, kind)
            .put(dest::TUN_PORT, &port)
            .u16(dest::TUN_FLAGS, flags);
        ipvs.ok(cmd::SET_DEST, &for_dest(&service, &set))?;
        let want = Shown {
            method: method & 7,
            weight: 5,
            tunnel: (kind, port, flags),
            thresholds: (0, 0),
            ..plain
        };
        shown(&format!("tunnel {kind}, {port:?}, {flags}"), want)?;
    }
    // An edit without them makes it IPIP again.
    ipvs.ok(cmd::SET_DEST, &for_dest(&service, &new))?;
    shown("edited", plain)?;
    ipvs.ok(cmd::DEL_DEST, &for_dest(&service, &new))?;

    // A new one with a tunnel, and of the other family: all 16 bytes of the address are shown in both.
    let rs = at(other.raw_rs(1), 8000);
    let new = dest_full(rs, 77)
        .with(dest::FWD_METHOD, &2u32.to_ne_bytes())
        .u8(dest::TUN_TYPE, 1)
        .put(dest::TUN_PORT, &[0x17, 0xc0])
        .u16(dest::TUN_FLAGS, 1);
    ipvs.ok(cmd::NEW_DEST, &for_dest(&service, &new))?;
    let want = Shown {
        rs,
        method: 2,
        weight: 77,
        tunnel: (1, [0x17, 0xc0], 1),
        thresholds: (0, 0),
    };
    shown("a destination of the other family", want)?;
    // It is known by its family, too.
    let wrong = new.without(dest::ADDR_FAMILY);
    let missed = ipvs.call(cmd::DEL_DEST, &for_dest(&service, &wrong))?;
    ensure!(missed.errno == libc::ENOENT, "errno {}", missed.errno);
    ipvs.ok(cmd::DEL_DEST, &for_dest(&service, &new))?;
    let reply = ipvs.dump(cmd::GET_DEST, &for_svc(&service))?.ok()?;
    ensure!(reply.msgs.is_empty(), "{} are left", reply.msgs.len());
    Ok(())
}

/// What is shown of a destination without connections.
#[derive(Clone, Copy)]
struct Shown {
    rs: SocketAddr,
    method: u32,
    weight: u32,
    tunnel: (u8, [u8; 2], u16),
    thresholds: (u32, u32),
}

impl Shown {
    fn attrs(self) -> Attrs {
        let (kind, port, flags) = self.tunnel;
        let (upper, lower) = self.thresholds;
        let attrs = Attrs::new()
            .put(dest::ADDR, &addr16(self.rs.ip()))
            .put(dest::PORT, &self.rs.port().to_be_bytes())
            .u32(dest::FWD_METHOD, self.method)
            .u32(dest::WEIGHT, self.weight)
            .u8(dest::TUN_TYPE, kind)
            .put(dest::TUN_PORT, &port)
            .u16(dest::TUN_FLAGS, flags)
            .u32(dest::U_THRESH, upper)
            .u32(dest::L_THRESH, lower)
            .u32(dest::ACTIVE_CONNS, 0)
            .u32(dest::INACT_CONNS, 0)
            .u32(dest::PERSIST_CONNS, 0)
            .u16(dest::ADDR_FAMILY, Family::of(self.rs.ip()).af());
        no_stats(attrs, dest::STATS, dest::STATS64)
    }
}
