// SPDX-License-Identifier: GPL-2.0-only

//! Tunnels: C `ip_vs_tunnel_xmit()`, `ip_vs_tunnel_xmit_v6()`.

use super::{
    super::{
        hooks::Ctx,
        packet::Iph, //
    },
    direct,
    rewrite,
    route, //
};
use crate::{
    conn::Conn,
    dest::Dest,
    os::{
        net::Net,
        netfilter::Verdict,
        skb::{
            Facts,
            Skb, //
        },
        table::Ref,
        tunnel::Carrier, //
    },
    service::extras::TunnelExtras, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    proto::IPPROTO_TCP,
    tunnel,
    uapi::{
        tun_flag,
        tun_type, //
    },
    wire::{
        gue,
        ipv4,
        ipv6,
        outer::Inner, //
    },
};

const IPPROTO_IPIP: u8 = 4;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_GRE: u8 = 47;

const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// How a destination wants its packets.
struct Plan {
    outer_v6: bool,
    carrier: Carrier,
    port: Be16,
    /// Whether the receiver sums up those packets whose sum a device would have filled in.
    may_remcsum: bool,
}

impl Plan {
    fn new(dest: &Dest, facts: Facts) -> Self {
        let (kind, port, flags) = dest.tunnel();
        let csum = flags & tun_flag::CSUM != 0;
        let remcsum = flags & tun_flag::REMCSUM != 0;
        Self {
            outer_v6: dest.family() == Family::V6,
            carrier: match kind {
                tun_type::GUE => Carrier::Udp {
                    csum: csum || remcsum,
                    remcsum: remcsum && facts.partial(),
                },
                tun_type::GRE => Carrier::Gre { csum },
                _ => Carrier::Ip,
            },
            port,
            may_remcsum: remcsum,
        }
    }

    /// Bytes of all headers, where they are the most.
    fn most(&self) -> usize {
        let remcsum = match self.carrier {
            Carrier::Udp { remcsum: false, .. } if self.may_remcsum => gue::REMCSUM,
            _ => 0,
        };
        self.overhead().saturating_add(remcsum)
    }

    /// Bytes of all headers.
    fn overhead(&self) -> usize {
        let ip = if self.outer_v6 {
            ipv6::HEADER_LEN
        } else {
            ipv4::HEADER_LEN
        };
        let rest = match self.carrier {
            Carrier::Ip => 0,
            Carrier::Udp { remcsum: false, .. } => const { UDP_HEADER + gue::HEADER },
            Carrier::Udp { remcsum: true, .. } => const { UDP_HEADER + gue::HEADER + gue::REMCSUM },
            Carrier::Gre { csum: false } => 4,
            Carrier::Gre { csum: true } => 8,
        };
        ip.saturating_add(rest)
    }
}

/// Puts the packet into one to the real server and sends that, or lets it go on if the real server is this host.
#[inline(never)]
pub(super) fn send<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    let Some(dest) = conn.get().dest() else {
        skb.free();
        return Verdict::Stolen;
    };
    let plan = Plan::new(dest, facts);
    let overhead = plan.overhead();
    let found = match route::find_tunnel::<V6>(ctx, &mut skb, iph, dest, overhead, facts) {
        Some(route::Way::Here) => return direct::here(skb, conn),
        Some(route::Way::There(found)) if rewrite::age::<V6>(&mut skb) => found,
        _ => {
            skb.free();
            return Verdict::Stolen;
        }
    };
    let mut source = Addr(found.source());
    if let Some(extras) = dest.service().tunnel_extras(ctx.g) {
        source =
            extra::<V6>(ctx, &mut skb, iph, conn, &plan, extras, found.mtu()).unwrap_or(source);
    }
    skb.set_route(&found);
    skb.orphan();
    let Some(mut skb) = skb.make_room(overhead) else {
        return Verdict::Stolen;
    };
    let df = ctx.netns.sysctl.pmtu_disc();
    if wrap::<V6>(ctx.net, &mut skb, &plan, &source, dest.addr(), df).is_none() {
        skb.free();
        return Verdict::Stolen;
    }
    if conn.is_tracked() {
        // The outer packet has another entry, so this is the last time that netfilter sees that of the inner one.
        let Some(confirmed) = skb.confirm() else {
            return Verdict::Stolen;
        };
        skb = confirmed;
    }
    skb.send_tunnelled(ctx.net, plan.outer_v6);
    Verdict::Stolen
}

/// What the service's tunnels have beyond C: the source address of the flow, if it is not the route's, and a segment size that
/// fits the path.
#[cold]
#[inline(never)]
fn extra<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    plan: &Plan,
    extras: &TunnelExtras,
    mtu: u32,
) -> Option<Addr> {
    if extras.clamp {
        clamp::<V6>(skb, iph, plan.most(), mtu);
    }
    let outer = if plan.outer_v6 {
        Family::V6
    } else {
        Family::V4
    };
    let conns = ctx.netns.conns()?;
    extras.source(outer, || conns.flow_hash(conn))
}

/// What the reply of a server behind a tunnel announces must fit the tunnel, too: it is about what the client sends.
#[cold]
#[inline(never)]
pub(in super::super) fn reply<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
) {
    let Some(dest) = conn.get().dest() else {
        return;
    };
    let extras = dest.service().tunnel_extras(ctx.g);
    if !extras.is_some_and(|extras| extras.clamp) {
        return;
    }
    if let Some(mtu) = dest.route.mtu(ctx.g) {
        clamp::<V6>(skb, iph, Plan::new(dest, skb.facts()).most(), mtu);
    }
}

/// Lowers the maximum segment size that a SYN announces to what fits into `mtu` bytes with `overhead` bytes of headers
/// around the packet.
fn clamp<const V6: bool>(skb: &mut Skb<'_>, iph: &Iph, overhead: usize, mtu: u32) {
    if iph.proto != IPPROTO_TCP || iph.later_fragment || iph.embedded {
        return;
    }
    let header = if V6 {
        ipv6::HEADER_LEN
    } else {
        ipv4::HEADER_LEN
    };
    let Some(most) =
        (mtu as usize).checked_sub(overhead.saturating_add(header.saturating_add(TCP_HEADER)))
    else {
        return;
    };
    let most = u16::try_from(most).unwrap_or(u16::MAX);
    let Some([words]) = skb.read::<1>(iph.l4.wrapping_add(12)) else {
        return;
    };
    let end = iph.l4.wrapping_add(usize::from(words >> 4).wrapping_mul(4));
    let facts = skb.facts();
    let Some(header) = skb.writable(end).and_then(|bytes| bytes.get_mut(iph.l4..)) else {
        return;
    };
    let Some(at) = tunnel::large_mss(header, most) else {
        return;
    };
    let _ = tunnel::set_mss(header, at, most, !facts.partial());
    if facts.complete() {
        skb.csum_none();
    }
}

/// Puts the headers in front. `None` if there is no memory, or the packet makes no sense.
fn wrap<const V6: bool>(
    net: &Net,
    skb: &mut Skb<'_>,
    plan: &Plan,
    src: &Addr,
    dst: &Addr,
    copy_df: bool,
) -> Option<()> {
    let (mut inner, inner_proto) = if V6 {
        (Inner::v6(&skb.read(0)?), IPPROTO_IPV6)
    } else {
        (Inner::v4(&skb.read(0)?), IPPROTO_IPIP)
    };
    inner.df &= copy_df;
    if !skb.begin_tunnel(plan.outer_v6, plan.carrier, inner_proto) {
        return None;
    }
    let proto = match plan.carrier {
        Carrier::Ip => inner_proto,
        Carrier::Udp { csum, remcsum } => {
            let source = skb.flow_port(net);
            if remcsum {
                let (start, offset) = skb.csum_place();
                *skb.push()? = gue::header_remcsum(inner_proto, start, offset);
                skb.leave_csum_to_receiver();
            } else {
                *skb.push()? = gue::header(inner_proto);
            }
            let len = (skb.len() as usize).saturating_add(UDP_HEADER);
            // The length of a packet to be segmented does not fit; who segments it writes the right one.
            let [l0, l1] = u16::try_from(len).unwrap_or(0).to_be_bytes();
            let [s0, s1] = source.to_ne_bytes();
            let [d0, d1] = plan.port.to_ne_bytes();
            *skb.push()? = [s0, s1, d0, d1, l0, l1, 0, 0];
            skb.begin_transport();
            skb.outer_udp_csum(plan.outer_v6, !csum, &src.0, &dst.0);
            IPPROTO_UDP
        }
        Carrier::Gre { csum } => {
            if !skb.push_gre(V6, csum) {
                return None;
            }
            IPPROTO_GRE
        }
    };
    if plan.outer_v6 {
        *skb.push()? = inner.in_v6(proto, src, dst);
    } else {
        *skb.push()? = inner.in_v4(proto, src, dst);
    }
    Some(())
}
