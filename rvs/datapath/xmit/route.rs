// SPDX-License-Identifier: GPL-2.0-only

//! The way to a real server: C `__ip_vs_get_out_rt()` and `__ip_vs_get_out_rt_v6()`.

use super::super::{
    hooks::Ctx,
    packet::Iph, //
};
use crate::{
    conn::Conn,
    os::{
        route::{
            Found,
            Target, //
        },
        skb::{
            Facts,
            Skb, //
        },
        table::Ref, //
    },
};
use rvs_core::{
    addr::{
        Addr,
        V6Type, //
    },
    wire::{
        icmp,
        icmpv6, //
    },
};

/// Where a packet goes from here.
pub(in super::super) enum Way<'g> {
    /// The real server is this host: the packet keeps its route.
    Here,
    /// To the real server, along this route.
    There(Found<'g>),
}

impl Way<'_> {
    /// Whether the real server is this host.
    #[inline(always)]
    pub(in super::super) fn local(&self) -> bool {
        matches!(self, Way::Here)
    }
}

/// Which ways a forwarding method may take: C `IP_VS_RT_MODE_*`.
pub(in super::super) struct Mode {
    /// To a real server that is this host.
    pub(super) local: bool,
    /// Even if the packet was for another.
    pub(super) redirect: bool,
}

/// NAT.
pub(in super::super) const NAT: Mode = Mode {
    local: true,
    redirect: true,
};

/// NAT of a packet that passes through.
pub(in super::super) const NAT_THROUGH: Mode = Mode {
    local: false,
    redirect: true,
};

/// Direct routing.
pub(super) const DIRECT: Mode = Mode {
    local: true,
    redirect: false,
};

/// Past all real servers.
pub(super) const BYPASS: Mode = Mode {
    local: false,
    redirect: false,
};

/// Finds the way of a packet to `addr`, its real server's, and checks that the packet may go it: time to live, length, and
/// the boundary of this host. `None` means that the packet is to be freed; who ought to know has been told.
#[inline(always)]
pub(in super::super) fn find<'g, const V6: bool>(
    ctx: &Ctx<'g>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'g, Conn>,
    addr: &Addr,
    facts: Facts,
    mode: Mode,
) -> Option<Way<'g>> {
    let found = match conn.get().dest() {
        Some(dest) => {
            let to = || Target {
                addr: addr.0,
                next_hop: dest.is_direct(),
            };
            let keep = dest.available();
            dest.route.get(ctx.net, V6, to, skb, keep, ctx.g)
        }
        None => {
            let to = Target {
                addr: addr.0,
                next_hop: false,
            };
            Found::once(ctx.net, V6, &to, skb)
        }
    };
    let Some((found, route)) = found else {
        skb.link_failure();
        return None;
    };
    if route.local() {
        if !mode.local || !(mode.redirect || route.old_local()) {
            return None;
        }
        // NAT alone changes the address under a packet from elsewhere.
        if mode.redirect && to_loopback::<V6>(addr, route.old_input(), facts) {
            return None;
        }
        return Some(Way::Here);
    }
    if from_loopback::<V6>(skb, facts) {
        return None;
    }
    if outer_ttl::<V6>(skb)? <= 1 {
        skb.ttl_exceeded(ctx.net, V6);
        return None;
    }
    if V6 {
        if skb.exceeds(route.mtu, true) {
            // Only the first fragment is worth an answer, and an error never.
            if !iph.later_fragment && !iph.embedded {
                skb.icmpv6_error(ctx.net, icmpv6::PKT_TOOBIG, 0, route.mtu);
            }
            return None;
        }
    } else if !iph.embedded && iph.df && skb.exceeds(route.mtu, false) {
        skb.icmp_error(icmp::DEST_UNREACH, icmp::FRAG_NEEDED, route.mtu);
        return None;
    }
    Some(Way::There(found))
}

/// The time to live of the packet itself (not of one embedded in it).
#[inline(always)]
fn outer_ttl<const V6: bool>(skb: &Skb<'_>) -> Option<u8> {
    let [ttl] = skb.read::<1>(if V6 { 7 } else { 8 })?;
    Some(ttl)
}

/// Whether a packet from elsewhere would be sent to a loopback address.
#[inline(always)]
fn to_loopback<const V6: bool>(addr: &Addr, input: bool, facts: Facts) -> bool {
    if V6 {
        input && !facts.loopback() && addr.v6_type().is(V6Type::LOOPBACK)
    } else {
        input && addr.v4_is_loopback()
    }
}

/// Whether a packet from a loopback address would leave this host.
#[inline(always)]
fn from_loopback<const V6: bool>(skb: &Skb<'_>, facts: Facts) -> bool {
    if V6 {
        if !(facts.no_dev() || facts.loopback()) {
            return false;
        }
        skb.read::<16>(8)
            .is_some_and(|src| Addr::from_bytes(src).v6_type().is(V6Type::LOOPBACK))
    } else {
        // 127.0.0.0/8.
        skb.read::<1>(12) == Some([127])
    }
}
