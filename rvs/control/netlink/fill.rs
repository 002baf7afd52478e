// SPDX-License-Identifier: GPL-2.0-only

//! What is shown, as attributes: C `ip_vs_genl_fill_service()`, `ip_vs_genl_fill_dest()`, in their order and sizes.

use crate::{
    dest::Dest,
    os::{
        nlmsg::Writer,
        rcu, //
    },
    service::{
        Backends,
        Id,
        Service, //
    },
    stats::Snapshot, //
};
use kernel::prelude::*;
use rvs_core::{
    sched::Kind,
    uapi::{
        attr,
        conn_flag,
        dest_attr,
        dest_fullnat,
        stats,
        svc_attr, //
    }, //
};

/// Adds a service.
pub(super) fn service(msg: &Writer<'_>, service: &Service) -> Result {
    let scheduler = rcu::read(|g| service.backends(g).map(Backends::scheduler));
    let scheduler = scheduler.unwrap_or(Kind::None);
    let snapshot = service.stats.read();

    msg.nest(attr::SERVICE, |msg| {
        identity(msg, service.id())?;
        msg.string(svc_attr::SCHED_NAME, scheduler.name().as_bytes())?;
        // `struct ip_vs_flags`: all flags are there.
        let flags = u64::from_ne_bytes(join(service.flags(), u32::MAX));
        msg.bytes(svc_attr::FLAGS, &flags.to_ne_bytes())?;
        msg.u32(svc_attr::TIMEOUT, service.timeout_secs())?;
        msg.u32(svc_attr::NETMASK, service.netmask())?;
        statistics(msg, svc_attr::STATS, svc_attr::STATS64, &snapshot)?;
        tunnel_extras(msg, service)?;
        super::local::fill_service(msg, service)
    })
}

/// Adds what the tunnels of a service have beyond C, if anything.
#[inline(never)]
fn tunnel_extras(msg: &Writer<'_>, service: &Service) -> Result {
    let Some(extras) = rcu::read(|g| service.tunnel_extras(g).copied()) else {
        return Ok(());
    };
    for (number, sources) in [
        (svc_attr::TUN_SOURCES_V4, extras.v4),
        (svc_attr::TUN_SOURCES_V6, extras.v6),
    ] {
        if let Some(sources) = sources {
            let (bytes, size) = sources.attribute();
            msg.bytes(number, bytes.get(..size).unwrap_or(&bytes))?;
        }
    }
    if extras.clamp {
        msg.u8(svc_attr::TUN_MSS, 1)?;
    }
    Ok(())
}

/// Adds what identifies a service, and nothing else.
pub(super) fn service_id(msg: &Writer<'_>, service: &Service) -> Result {
    msg.nest(attr::SERVICE, |msg| identity(msg, service.id()))
}

fn identity(msg: &Writer<'_>, id: &Id) -> Result {
    msg.u16(svc_attr::AF, id.family.af())?;
    if id.fwmark != 0 {
        return msg.u32(svc_attr::FWMARK, id.fwmark);
    }
    msg.u16(svc_attr::PROTOCOL, id.protocol)?;
    msg.bytes(svc_attr::ADDR, &id.addr.bytes())?;
    msg.u16(svc_attr::PORT, id.port)
}

/// Two words, one after the other in memory.
fn join(first: u32, second: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

/// Adds a destination.
pub(super) fn dest(msg: &Writer<'_>, dest: &Dest) -> Result {
    let snapshot = dest.stats.read();
    let (tun_type, tun_port, tun_flags) = dest.tunnel();
    let thresholds = dest.thresholds();

    msg.nest(attr::DEST, |msg| {
        msg.bytes(dest_attr::ADDR, &dest.addr().bytes())?;
        msg.u16(dest_attr::PORT, dest.port())?;
        msg.u32(
            dest_attr::FWD_METHOD,
            dest.conn_flags() & conn_flag::FWD_MASK,
        )?;
        msg.u32(dest_attr::WEIGHT, dest.weight() as u32)?;
        msg.u8(dest_attr::TUN_TYPE, tun_type)?;
        msg.u16(dest_attr::TUN_PORT, tun_port)?;
        msg.u16(dest_attr::TUN_FLAGS, tun_flags)?;
        msg.u32(dest_attr::U_THRESH, thresholds.upper)?;
        msg.u32(dest_attr::L_THRESH, thresholds.lower)?;
        msg.u32(dest_attr::ACTIVE_CONNS, dest.active())?;
        msg.u32(dest_attr::INACT_CONNS, dest.inactive())?;
        msg.u32(dest_attr::PERSIST_CONNS, dest.persistent())?;
        msg.u16(dest_attr::ADDR_FAMILY, dest.family().af())?;
        statistics(msg, dest_attr::STATS, dest_attr::STATS64, &snapshot)?;
        if dest.is_fullnat() {
            msg.u8(dest_fullnat::FULLNAT, 1)?;
        }
        Ok(())
    })
}

/// Adds statistics twice: with numbers of 32 bits, but for bytes, and with numbers of 64.
fn statistics(msg: &Writer<'_>, short: u16, long: u16, snapshot: &Snapshot) -> Result {
    let (total, rates) = (&snapshot.total, &snapshot.rates);
    let numbers = [
        (stats::CONNS, total.conns),
        (stats::INPKTS, total.inpkts),
        (stats::OUTPKTS, total.outpkts),
        (stats::INBYTES, total.inbytes),
        (stats::OUTBYTES, total.outbytes),
        (stats::CPS, rates.cps),
        (stats::INPPS, rates.inpps),
        (stats::OUTPPS, rates.outpps),
        (stats::INBPS, rates.inbps),
        (stats::OUTBPS, rates.outbps),
    ];
    let is_bytes = |number| matches!(number, stats::INBYTES | stats::OUTBYTES);
    msg.numbers(short, &numbers, is_bytes, stats::PAD)?;
    msg.numbers(long, &numbers, |_| true, stats::PAD)
}
