// SPDX-License-Identifier: GPL-2.0-only

//! The way to a real server: C `__ip_vs_get_out_rt()` and `__ip_vs_get_out_rt_v6()`.

use super::super::{
    hooks::Ctx,
    packet::Iph, //
};
use crate::{
    conn::Conn,
    dest::Dest,
    os::{
        route::{
            Found,
            Target,
            Versions, //
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
        Family,
        V6Type, //
    },
    uapi::{
        conn_flag,
        FwdMethod, //
    },
    wire::{
        icmp,
        icmpv6, //
    },
};

/// The least room that a tunnel over IPv4 must leave: C's 68.
pub(in super::super) const V4_MIN_MTU: u32 = 68;
/// The same over IPv6: `IPV6_MIN_MTU`.
const V6_MIN_MTU: u32 = 1280;

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
                tunnel: false,
            };
            let keep = dest.available();
            let versions = Versions::same(V6);
            dest.route.get(ctx.net, versions, to, skb, keep, ctx.g)
        }
        None => {
            let to = Target {
                addr: addr.0,
                next_hop: conn.method() == FwdMethod::Route as u32,
                tunnel: false,
            };
            Found::once(ctx.net, Versions::same(V6), &to, skb)
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
        // The entry's replies would be those of the connection that was taken over, too.
        if mode.redirect && conn.flags() & conn_flag::SYNC != 0 && skb.has_track() {
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
    fits::<V6>(ctx, skb, iph, route.mtu, true).then_some(Way::There(found))
}

/// Finds the way of a packet that is put into another one with `overhead` bytes of headers, as [`find()`] does for others.
pub(super) fn find_tunnel<'g, const V6: bool>(
    ctx: &Ctx<'g>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    dest: &'g Dest,
    overhead: usize,
    facts: Facts,
) -> Option<Way<'g>> {
    let outer_v6 = dest.family() == Family::V6;
    let to = || Target {
        addr: dest.addr().0,
        next_hop: false,
        tunnel: true,
    };
    let versions = Versions {
        route_v6: outer_v6,
        packet_v6: V6,
    };
    let keep = dest.available();
    let Some((found, route)) = dest.route.get(ctx.net, versions, to, skb, keep, ctx.g) else {
        skb.link_failure();
        return None;
    };
    if route.local() {
        return route.old_local().then_some(Way::Here);
    }
    if from_loopback::<V6>(skb, facts) {
        return None;
    }
    if outer_ttl::<V6>(skb)? <= 1 {
        skb.ttl_exceeded(ctx.net, V6);
        return None;
    }
    let mtu = route.mtu.saturating_sub(overhead as u32);
    if mtu < if outer_v6 { V6_MIN_MTU } else { V4_MIN_MTU } {
        return None;
    }
    skb.update_pmtu(mtu);
    fits::<V6>(ctx, skb, iph, mtu, ctx.netns.sysctl.pmtu_disc()).then_some(Way::There(found))
}

/// Whether a packet is short enough; tells the sender if not. IPv4 packets that may be fragmented are, and so are all of
/// them unless `heed_df`.
#[inline(always)]
fn fits<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    mtu: u32,
    heed_df: bool,
) -> bool {
    if V6 {
        if skb.exceeds(mtu, true) {
            // Only the first fragment is worth an answer, and an error never.
            if !iph.later_fragment && !iph.embedded {
                skb.icmpv6_error(ctx.net, icmpv6::PKT_TOOBIG, 0, mtu);
            }
            return false;
        }
    } else if heed_df && !iph.embedded && iph.df && skb.exceeds(mtu, false) {
        skb.icmp_error(icmp::DEST_UNREACH, icmp::FRAG_NEEDED, mtu);
        return false;
    }
    true
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
