// SPDX-License-Identifier: GPL-2.0-only

//! Packets that are not changed: direct routing (C `ip_vs_dr_xmit()`), past the real servers (`ip_vs_bypass_xmit()`), and to
//! this host (`ip_vs_null_xmit()`).

use super::{
    super::{
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
use rvs_core::addr::Addr;

/// Sends the packet by way of the real server, or lets it go on if that is this host.
#[inline(never)]
pub(super) fn send<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    let addr = conn.daddr();
    let way = route::find::<V6>(ctx, &mut skb, iph, conn, &addr, facts, route::DIRECT);
    along::<V6>(ctx, skb, conn, way, facts)
}

/// Sends the packet to where it is addressed.
#[cold]
#[inline(never)]
pub(super) fn bypass<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    // Of an ICMP error `iph` is what it quotes, which went the other way.
    let to = if iph.embedded {
        destination::<V6>(&skb)
    } else {
        Some(iph.dst)
    };
    let way =
        to.and_then(|to| route::find::<V6>(ctx, &mut skb, iph, conn, &to, facts, route::BYPASS));
    along::<V6>(ctx, skb, conn, way, facts)
}

/// Where the packet itself is addressed to.
fn destination<const V6: bool>(skb: &Skb<'_>) -> Option<Addr> {
    if V6 {
        skb.read::<16>(24).map(Addr::from_bytes)
    } else {
        skb.read::<4>(16).map(u32::from_ne_bytes).map(Addr::v4)
    }
}

/// Lets the packet go on.
#[cold]
pub(super) fn here<'a>(mut skb: Skb<'a>, conn: Ref<'_, Conn>) -> Verdict<'a> {
    skb.set_seen();
    track::unchanged(&mut skb, conn);
    Verdict::Accept(skb)
}

#[inline(always)]
fn along<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    conn: Ref<'_, Conn>,
    way: Option<route::Way<'_>>,
    facts: Facts,
) -> Verdict<'a> {
    let found = match way {
        Some(route::Way::Here) => return here(skb, conn),
        Some(route::Way::There(found)) if rewrite::age::<V6>(&mut skb) => found,
        _ => {
            skb.free();
            return Verdict::Stolen;
        }
    };
    if facts.complete() {
        // What the device summed has another time to live.
        skb.csum_none();
    }
    skb.set_seen();
    track::unchanged(&mut skb, conn);
    go::<V6>(ctx, skb, &found)
}
