// SPDX-License-Identifier: GPL-2.0-only

//! Packets on their way to the client: C `ip_vs_out_hook()`, `handle_response()`.

use super::{
    ftp,
    fullnat,
    hooks::Ctx,
    input,
    packet::Iph,
    state,
    track,
    xmit::{
        self,
        rewrite, //
    }, //
};
use crate::{
    conn::{
        Conn,
        ConnTable,
        Tuple, //
    },
    os::{
        netfilter::{
            Point,
            Verdict, //
        },
        skb::{
            Facts,
            Skb, //
        },
        table::Ref, //
    },
};
use rvs_core::{
    addr::Family,
    nat::Side,
    proto::{
        has_ports,
        sctp,
        tcp,
        IPPROTO_SCTP,
        IPPROTO_TCP, //
    },
    uapi::FwdMethod,
    wire::{
        icmp,
        icmpv6, //
    },
};

/// Deals with a reply: the virtual address and port become its source, and it goes on its way.
#[inline(always)]
pub(super) fn reply<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    if conn.method() == FwdMethod::Masq as u32 {
        let mut facts = facts;
        if conn.has_app() {
            match ftp::reply::<V6>(ctx, &mut skb, iph, conn) {
                Some(now) => facts = now,
                None => {
                    skb.free();
                    return Verdict::Stolen;
                }
            }
        }
        let to = rewrite::To {
            addr: conn.vaddr(),
            port: conn.vport(),
        };
        if !rewrite::packet::<V6>(&mut skb, iph, Side::Src, &to, facts, false)
            || !reroute::<V6>(ctx, &mut skb)
        {
            skb.free();
            return Verdict::Stolen;
        }
    } else if conn.method() == FwdMethod::Tunnel as u32 {
        xmit::tunnel_reply::<V6>(ctx, &mut skb, iph, conn);
    } else if conn.is_fullnat() {
        return fullnat::reply::<V6>(ctx, conns, skb, iph, conn, facts);
    }
    account(ctx, &skb, conn);
    state::advance(ctx.netns, conns, &skb, iph, conn, true);
    skb.set_seen();
    track::reply(&mut skb, conn);
    Verdict::Accept(skb)
}

/// Counts a packet to the client.
#[inline(always)]
pub(super) fn account(ctx: &Ctx<'_>, skb: &Skb<'_>, conn: Ref<'_, Conn>) {
    if let Some(dest) = conn.get().dest() {
        if dest.available() {
            ctx.counters(dest).packet_out(skb.len(), ctx.g);
            conn.account_out(skb.len());
        }
    }
}

/// Routes a reply as one of this host's own, where `snat_reroute` says so: C `ip_vs_route_me_harder()`.
#[inline(always)]
pub(super) fn reroute<const V6: bool>(ctx: &Ctx<'_>, skb: &mut Skb<'_>) -> bool {
    ctx.point == Point::LocalIn || !ctx.netns.sysctl.snat_reroute() || skb.reroute(ctx.net, V6)
}

/// Deals with a packet of no connection: with `nat_icmp_send`, one that comes from a real server is refused, so that the
/// server stops.
#[inline(always)]
pub(super) fn unknown<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
    tuple: &Tuple,
) -> Verdict<'a> {
    if !ctx.netns.sysctl.nat_icmp_send() {
        return Verdict::Accept(skb);
    }
    refuse::<V6>(ctx, skb, iph, tuple)
}

#[cold]
fn refuse<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    tuple: &Tuple,
) -> Verdict<'a> {
    let family = if V6 { Family::V6 } else { Family::V4 };
    if !has_ports(iph.proto)
        || !ctx
            .netns
            .services
            .is_real_server(family, iph.proto, &iph.src, tuple.sport, ctx.g)
    {
        return Verdict::Accept(skb);
    }
    // Who ends a connection need not be told.
    let ends = match iph.proto {
        IPPROTO_TCP => skb
            .read::<20>(iph.l4)
            .is_some_and(|th| th[13] & tcp::Flags::RST != 0),
        IPPROTO_SCTP => input::first_chunk(&skb, iph) == Some(sctp::ChunkType::ABORT),
        _ => false,
    };
    if ends {
        return Verdict::Accept(skb);
    }
    port_unreachable::<V6>(ctx, &mut skb);
    Verdict::Drop(skb)
}

/// Tells a packet's sender that nobody listens there.
pub(super) fn port_unreachable<const V6: bool>(ctx: &Ctx<'_>, skb: &mut Skb<'_>) {
    if V6 {
        skb.icmpv6_error(ctx.net, icmpv6::DEST_UNREACH, icmpv6::PORT_UNREACH, 0);
    } else {
        skb.icmp_error(icmp::DEST_UNREACH, icmp::PORT_UNREACH, 0);
    }
}
