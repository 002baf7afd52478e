// SPDX-License-Identifier: GPL-2.0-only

//! Packets from the client: C `ip_vs_in_hook()`, `ip_vs_schedule()`, `ip_vs_leave()`.

use super::{
    hooks::Ctx,
    output,
    packet::Iph,
    state,
    xmit, //
};
use crate::{
    conn::{
        Conn,
        ConnTable,
        NoConn,
        Param,
        Tuple, //
    },
    os::{
        netfilter::Verdict,
        skb::{
            Facts,
            Skb, //
        },
        table::Ref, //
    },
    service::{
        self,
        Flow,
        Service, //
    },
};
use kernel::prelude::*;
use rvs_core::{
    addr::{
        Be16,
        Family, //
    },
    proto::{
        schedule_len,
        tcp,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    uapi::conn_flag, //
};

/// FTP's control and data ports, memory order.
const FTP: Be16 = 21u16.to_be();
const FTP_DATA: Be16 = 20u16.to_be();

/// Deals with a packet of a known connection, which it may turn out to begin anew.
#[inline(always)]
pub(super) fn packet<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    if conn.proto() == IPPROTO_TCP && begins_anew(ctx, &skb, iph, conn) {
        if !conn.has_children() {
            conns.end(conn, ctx.g);
        }
        // The next hook schedules it.
        return Verdict::Accept(skb);
    }
    if let Some(dest) = conn.get().dest() {
        if !dest.available() {
            if !ctx.netns.sysctl.expire_nodest_conn() {
                return Verdict::Drop(skb);
            }
            conns.end(conn, ctx.g);
            return Verdict::Accept(skb);
        }
    }
    forward::<V6>(ctx, conns, skb, iph, conn, facts)
}

/// Whether a packet begins a new connection in place of the one it matches: a SYN on one that is over
/// (`conn_reuse_mode`), or on one whose server takes no more (`expire_nodest_conn`).
#[inline(always)]
fn begins_anew(ctx: &Ctx<'_>, skb: &Skb<'_>, iph: &Iph, conn: Ref<'_, Conn>) -> bool {
    if iph.later_fragment {
        return false;
    }
    // C reads the whole header; without one this is no new connection.
    match skb.read::<20>(iph.l4) {
        Some(th) if th[13] & tcp::Flags::SYN != 0 => reschedules(ctx, conn),
        _ => false,
    }
}

#[cold]
fn reschedules(ctx: &Ctx<'_>, conn: Ref<'_, Conn>) -> bool {
    if ctx.netns.sysctl.expire_nodest_conn()
        && conn.get().dest().is_some_and(|dest| dest.weight() == 0)
    {
        return true;
    }
    let mode = ctx.netns.sysctl.conn_reuse_mode();
    mode != 0 && tcp::expects_new_conn(conn.state(), mode, conn.flags() & conn_flag::NOOUTPUT != 0)
}

/// Counts a packet, moves the connection's state and sends the packet to the real server.
#[inline(always)]
fn forward<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    account(ctx, &skb, conn);
    state::advance(ctx.netns, conns, &skb, iph, conn, false);
    conn.count_packet();
    xmit::send::<V6>(ctx, skb, iph, conn, facts)
}

/// Counts a packet from the client.
#[inline(always)]
pub(super) fn account(ctx: &Ctx<'_>, skb: &Skb<'_>, conn: Ref<'_, Conn>) {
    if let Some(dest) = conn.get().dest() {
        if dest.available() {
            ctx.counters(dest).packet_in(skb.len(), ctx.g);
        }
    }
}

/// Why a packet was not scheduled.
enum Left {
    /// It is none of ours, or not to be scheduled: it goes on.
    Ignore,
    /// There is no destination for it.
    NoDest,
    /// It is lost.
    Drop,
}

/// Deals with a packet of no connection: finds its service, a destination, and makes the connection.
#[inline(always)]
pub(super) fn schedule<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
    facts: Facts,
) -> Verdict<'a> {
    if iph.later_fragment || !matches!(iph.proto, IPPROTO_TCP | IPPROTO_UDP) {
        return Verdict::Accept(skb);
    }
    // A header that is not all there is dropped, whatever service it might be for, as in C.
    let ok = match iph.proto {
        IPPROTO_TCP => match skb.read::<20>(iph.l4) {
            Some(th) => {
                if !tcp::Flags(th[13]).may_schedule(ctx.netns.sysctl.sloppy_tcp()) {
                    return Verdict::Accept(skb);
                }
                true
            }
            None => false,
        },
        _ => {
            const LEN: usize = schedule_len(IPPROTO_UDP);
            skb.read::<LEN>(iph.l4).is_some()
        }
    };
    let Some(tuple) = iph.tuple::<V6>(&skb).filter(|_| ok) else {
        return Verdict::Drop(skb);
    };
    let family = if V6 { Family::V6 } else { Family::V4 };
    let wanted = service::Id {
        family,
        fwmark: skb.mark(),
        protocol: iph.proto.into(),
        addr: iph.dst,
        port: tuple.dport,
    };
    let Some(service) = ctx.netns.services.lookup(ctx.net, wanted, ctx.g) else {
        return Verdict::Accept(skb);
    };
    let Some(conns) = ctx.netns.conns() else {
        return Verdict::Accept(skb);
    };
    match begin(ctx, conns, service, &skb, &tuple, facts) {
        Ok(conn) => forward::<V6>(ctx, conns, skb, iph, conn, facts),
        Err(Left::Ignore) => Verdict::Accept(skb),
        Err(Left::NoDest) => leave::<V6>(ctx, skb, service, &tuple),
        Err(Left::Drop) => Verdict::Drop(skb),
    }
}

/// Chooses a destination and makes the connection: C `ip_vs_schedule()`.
fn begin<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    service: &'g Service,
    skb: &Skb<'_>,
    tuple: &Tuple,
    facts: Facts,
) -> Result<Ref<'g, Conn>, Left> {
    // FTP's data connections are made by the control connection, not scheduled.
    if tuple.sport == FTP_DATA {
        return Err(Left::Ignore);
    }
    // Replies of a real server on this host are not new connections.
    if (facts.no_dev() || facts.loopback())
        && conns.find_request(&tuple.reversed(), ctx.g).is_some()
    {
        return Err(Left::Ignore);
    }
    if service.id().fwmark == 0 && tuple.dport != service.id().port {
        if service.id().port == 0 {
            pr_err!("Schedule: port zero only supported in persistent services, check your ipvs configuration\n");
        }
        return Err(Left::NoDest);
    }
    let flow = Flow {
        tuple,
        sysctl: &ctx.netns.sysctl,
    };
    let dest = service.schedule(&flow, ctx.g).ok_or(Left::NoDest)?;
    let created = conns
        .create(
            &Param {
                flow: tuple,
                daddr: *dest.addr(),
                dport: if dest.port() != 0 {
                    dest.port()
                } else {
                    tuple.dport
                },
                dest: dest.clone(),
                fwmark: skb.mark(),
            },
            i64::from(ctx.netns.sysctl.conn_max()),
            ctx.g,
        )
        .map_err(|why| match why {
            NoConn::Limit | NoConn::Memory => Left::Drop,
        })?;
    if created.is_new {
        ctx.counters(dest).conn(ctx.g);
    }
    Ok(created.conn)
}

/// Deals with a packet of a service that has no destination for it: C `ip_vs_leave()`.
#[cold]
fn leave<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    service: &Service,
    tuple: &Tuple,
) -> Verdict<'a> {
    // An FTP service also attracts packets to other ports, for its data connections.
    if service.id().port == FTP && tuple.dport != FTP {
        return Verdict::Accept(skb);
    }
    output::port_unreachable::<V6>(ctx, &mut skb);
    Verdict::Drop(skb)
}
