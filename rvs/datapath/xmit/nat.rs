// SPDX-License-Identifier: GPL-2.0-only

//! NAT: C `ip_vs_nat_xmit()`, `ip_vs_nat_send_or_cont()`.

use super::{
    super::{
        ftp,
        hooks::Ctx,
        packet::Iph,
        track, //
    },
    go,
    rewrite,
    route, //
};
use crate::{
    conn::Conn,
    os::{
        netfilter::Verdict,
        skb::{
            Facts,
            Skb, //
        },
        table::Ref, //
    },
};
use rvs_core::nat::Side;

/// Rewrites the packet's destination and sends it there, or lets it go on if the real server is this host.
#[inline(always)]
pub(super) fn send<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    let to = rewrite::To {
        addr: conn.daddr(),
        port: conn.dport(),
    };
    let Some(way) = route::find::<V6>(ctx, &mut skb, iph, conn, &to.addr, facts, route::NAT) else {
        skb.free();
        return Verdict::Stolen;
    };
    let mut facts = facts;
    if conn.has_app() {
        match ftp::request::<V6>(ctx, &mut skb, iph, conn) {
            Some(now) => facts = now,
            None => {
                skb.free();
                return Verdict::Stolen;
            }
        }
    }
    if !rewrite::packet::<V6>(&mut skb, iph, Side::Dst, &to, facts, !way.local()) {
        skb.free();
        return Verdict::Stolen;
    }
    finish::<V6>(ctx, skb, conn, way)
}

/// Sends a rewritten packet along, or lets it go on if it stays here.
#[inline(always)]
pub(in super::super) fn finish<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    conn: Ref<'_, Conn>,
    way: route::Way<'_>,
) -> Verdict<'a> {
    skb.set_seen();
    track::request(&mut skb, conn);
    match way {
        route::Way::Here => {
            // A socket that was guessed from the addresses before holds only if they are still the same.
            if conn.vport() != conn.dport() || conn.vaddr() != conn.daddr() {
                skb.orphan();
            }
            Verdict::Accept(skb)
        }
        route::Way::There(found) => go::<V6>(ctx, skb, &found),
    }
}
