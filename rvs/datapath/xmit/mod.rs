// SPDX-License-Identifier: GPL-2.0-only

//! On to the real server (`ip_vs_xmit.c`), one file for each forwarding method.

mod direct;
mod nat;
pub(super) mod rewrite;
pub(super) mod route;
mod tunnel;

use super::{
    fullnat,
    hooks::Ctx,
    packet::Iph, //
};
use crate::{
    conn::Conn,
    os::{
        netfilter::Verdict,
        route::Found,
        skb::{
            Facts,
            Skb, //
        },
        table::Ref, //
    },
};
use rvs_core::uapi::FwdMethod;

/// Sends a packet to the real server of its connection, by the connection's method: C `cp->packet_xmit`.
#[inline(always)]
pub(super) fn send<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    if conn.method() == FwdMethod::Masq as u32 {
        return nat::send::<V6>(ctx, skb, iph, conn, facts);
    }
    match FwdMethod::from_flags(conn.method()) {
        Some(FwdMethod::Route) => direct::send::<V6>(ctx, skb, iph, conn, facts),
        Some(FwdMethod::Bypass) => direct::bypass::<V6>(ctx, skb, iph, conn, facts),
        Some(FwdMethod::Local) => direct::here(skb, conn),
        Some(FwdMethod::Tunnel) => tunnel::send::<V6>(ctx, skb, iph, conn, facts),
        None if conn.is_fullnat() => fullnat::send::<V6>(ctx, skb, iph, conn, facts),
        // A number that is no method has no transmitter: C lets the packet go on.
        Some(FwdMethod::Masq) | None => Verdict::Accept(skb),
    }
}

/// Sends a packet that is ready along its route.
#[inline(always)]
fn go<'a, const V6: bool>(ctx: &Ctx<'_>, mut skb: Skb<'a>, found: &Found<'_>) -> Verdict<'a> {
    skb.orphan();
    skb.set_route(found);
    skb.send(ctx.net, V6);
    Verdict::Stolen
}

pub(super) use nat::finish;
pub(super) use tunnel::reply as tunnel_reply;
