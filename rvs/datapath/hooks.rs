// SPDX-License-Identifier: GPL-2.0-only

//! The six hooks of a family, as the C module has them (`ip_vs_ops4`, `ip_vs_ops6`).

use super::{
    fullnat,
    icmp,
    input,
    output,
    packet::{
        self,
        Iph, //
    }, //
};
use crate::{
    conn::Way,
    dest::Dest,
    netns::Netns,
    os::{
        net::Net,
        netfilter::{
            self,
            Hook,
            Point,
            Spec,
            Verdict, //
        },
        percpu::Trio,
        rcu::Held,
        skb::{
            Facts,
            Skb, //
        }, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::Family,
    proto::{
        is_known,
        wants_defrag,
        IPPROTO_ICMP,
        IPPROTO_ICMPV6, //
    }, //
};

/// What the hook functions share about a packet.
pub(super) struct Ctx<'g> {
    pub(super) netns: &'g Netns,
    pub(super) net: &'g Net,
    pub(super) point: Point,
    pub(super) g: &'g Held,
}

/// The transport protocol of ICMP for the family.
pub(super) const fn icmp_proto<const V6: bool>() -> u8 {
    if V6 {
        IPPROTO_ICMPV6
    } else {
        IPPROTO_ICMP
    }
}

/// The hooks of a family in a namespace, registered until this is dropped (which waits for those that run).
pub(crate) struct Hooks(
    #[expect(dead_code, reason = "dropping it is what it is for")] netfilter::Hooks<Netns>,
);

impl Hooks {
    /// Registers the hooks of a family. May sleep.
    pub(crate) fn register(netns: &Arc<Netns>, family: Family) -> Result<Self> {
        let hooks = match family {
            Family::V4 => {
                netfilter::Hooks::new(netns.handle(), false, &specs::<false>(), netns.clone())
            }
            Family::V6 => {
                netfilter::Hooks::new(netns.handle(), true, &specs::<true>(), netns.clone())
            }
        };
        Ok(Self(hooks?))
    }

    /// Registers the hook of a family that replies to local addresses need. May sleep.
    pub(crate) fn register_local(netns: &Arc<Netns>, family: Family) -> Result<Self> {
        let hooks = match family {
            Family::V4 => {
                let specs = [Spec::new::<LocalReply<false>>(Point::PreRouting, -201)];
                netfilter::Hooks::new(netns.handle(), false, &specs, netns.clone())
            }
            Family::V6 => {
                let specs = [Spec::new::<LocalReply<true>>(Point::PreRouting, -201)];
                netfilter::Hooks::new(netns.handle(), true, &specs, netns.clone())
            }
        };
        Ok(Self(hooks?))
    }
}

impl Ctx<'_> {
    /// The counters that a packet of a destination counts in.
    #[inline(always)]
    pub(super) fn counters<'a>(&'a self, dest: &'a Arc<Dest>) -> Trio<'a> {
        if !dest.stats.is_watched() {
            self.netns.watch(dest);
        }
        Trio {
            dest: &dest.stats.counters,
            svc: &dest.service().stats.counters,
            total: &self.netns.totals.counters,
        }
    }
}

/// Points and priorities are those of the C module: just before source NAT (100) on the way in, just after destination NAT
/// (-100) on the way out, after the filter on the way through.
fn specs<const V6: bool>() -> [Spec<Netns>; 6] {
    [
        Spec::new::<Established<V6, IN>>(Point::LocalIn, 98),
        Spec::new::<Schedule<V6, IN>>(Point::LocalIn, 99),
        Spec::new::<Established<V6, OUT>>(Point::LocalOut, -99),
        Spec::new::<Schedule<V6, OUT>>(Point::LocalOut, -98),
        Spec::new::<ForwardIcmp<V6>>(Point::Forward, 99),
        Spec::new::<ForwardReply<V6>>(Point::Forward, 100),
    ]
}

const IN: bool = false;
const OUT: bool = true;

const fn point(out: bool) -> Point {
    if out {
        Point::LocalOut
    } else {
        Point::LocalIn
    }
}

/// Packets of connections, either way.
struct Established<const V6: bool, const OUT: bool>;

/// Packets of none: those that may begin one.
struct Schedule<const V6: bool, const OUT: bool>;

/// Replies of real servers elsewhere: `ip_vs_out_hook()` at FORWARD.
struct ForwardReply<const V6: bool>;

/// ICMP errors on their way to addresses that are not this host's: `ip_vs_forward_icmp()`.
struct ForwardIcmp<const V6: bool>;

/// Replies of real servers to local addresses of FullNAT, before connection tracking (-200).
struct LocalReply<const V6: bool>;

/// Whether packets with these facts are none of ours at any hook.
#[inline(always)]
fn ignored<const V6: bool, const OUT: bool>(facts: Facts) -> bool {
    facts.seen() || !facts.routed() || (!V6 && OUT && facts.nodefrag())
}

/// Whether a packet may be a client's: `ip_vs_in_hook()` wants those that were sent to this host, and its own.
#[inline(always)]
fn may_be_request<const OUT: bool>(facts: Facts) -> bool {
    OUT || facts.to_host()
}

/// Reassembles an IPv4 fragment and reads the header again; `None` if the packet is gone or makes no sense.
#[cold]
fn gather(ctx: &Ctx<'_>, skb: &mut Skb<'_>) -> Gathered {
    if !skb.defragment_v4(ctx.net, ctx.point as u32) {
        return Gathered::Gone;
    }
    match packet::parse_v4(skb, 0) {
        Some(iph) => Gathered::Whole(iph),
        None => Gathered::Bad,
    }
}

enum Gathered {
    Whole(Iph),
    Gone,
    Bad,
}

impl<const V6: bool, const OUT: bool> Hook<Netns> for Established<V6, OUT> {
    #[inline(always)]
    fn run<'a>(netns: &Netns, mut skb: Skb<'a>, net: &Net, g: &Held) -> Verdict<'a> {
        let facts = skb.facts();
        if ignored::<V6, OUT>(facts) {
            return Verdict::Accept(skb);
        }
        let ctx = Ctx {
            netns,
            net,
            point: point(OUT),
            g,
        };
        let Some(mut iph) = packet::parse::<V6>(&skb, 0) else {
            return Verdict::Accept(skb);
        };
        if iph.proto == icmp_proto::<V6>() {
            if !V6 && iph.fragment {
                match gather(&ctx, &mut skb) {
                    Gathered::Whole(whole) => iph = whole,
                    Gathered::Gone => return Verdict::Stolen,
                    Gathered::Bad => return Verdict::Accept(skb),
                }
            }
            let may_be_request = may_be_request::<OUT>(facts) && !netns.stands_by();
            return icmp::established::<V6>(&ctx, skb, &iph, may_be_request);
        }
        if !is_known(iph.proto) {
            return Verdict::Accept(skb);
        }
        if !V6 && iph.fragment && wants_defrag(iph.proto) {
            match gather(&ctx, &mut skb) {
                Gathered::Whole(whole) => iph = whole,
                Gathered::Gone => return Verdict::Stolen,
                Gathered::Bad => return Verdict::Accept(skb),
            }
        }
        let Some(conns) = netns.conns() else {
            return Verdict::Accept(skb);
        };
        let Some(tuple) = iph.tuple::<V6>(&skb) else {
            // Too short for ports: the next hook drops it.
            return Verdict::Accept(skb);
        };
        match conns.find(&tuple, g) {
            Some((conn, Way::Request)) if may_be_request::<OUT>(facts) && !netns.stands_by() => {
                input::packet::<V6>(&ctx, conns, skb, &iph, conn, facts)
            }
            Some((conn, Way::Reply)) => output::reply::<V6>(&ctx, conns, skb, &iph, conn, facts),
            None if conns.has_waiting(V6) && may_be_request::<OUT>(facts) && !netns.stands_by() => {
                input::first::<V6>(&ctx, conns, skb, &iph, &tuple, facts)
            }
            _ => output::unknown::<V6>(&ctx, skb, &iph, &tuple),
        }
    }
}

/// Lets a packet of a protocol that is not balanced go on. If tunnels are to be ignored, what comes out of it will be none
/// of ours either.
#[cold]
#[inline(never)]
fn other<'a, const V6: bool>(ctx: &Ctx<'_>, mut skb: Skb<'a>, iph: &Iph) -> Verdict<'a> {
    let ignore = ctx.netns.sysctl.ignore_tunneled();
    if ignore && !(iph.proto == icmp_proto::<V6>() && icmp::is_error::<V6>(&skb, iph)) {
        skb.set_seen();
    }
    Verdict::Accept(skb)
}

impl<const V6: bool, const OUT: bool> Hook<Netns> for Schedule<V6, OUT> {
    #[inline(always)]
    fn run<'a>(netns: &Netns, skb: Skb<'a>, net: &Net, g: &Held) -> Verdict<'a> {
        let facts = skb.facts();
        if ignored::<V6, OUT>(facts) || !may_be_request::<OUT>(facts) || netns.stands_by() {
            return Verdict::Accept(skb);
        }
        let ctx = Ctx {
            netns,
            net,
            point: point(OUT),
            g,
        };
        let Some(iph) = packet::parse::<V6>(&skb, 0) else {
            return Verdict::Accept(skb);
        };
        if !is_known(iph.proto) {
            return other::<V6>(&ctx, skb, &iph);
        }
        input::schedule::<V6>(&ctx, skb, &iph, facts)
    }
}

impl<const V6: bool> Hook<Netns> for ForwardReply<V6> {
    #[inline(always)]
    fn run<'a>(netns: &Netns, mut skb: Skb<'a>, net: &Net, g: &Held) -> Verdict<'a> {
        let facts = skb.facts();
        if ignored::<V6, IN>(facts) {
            return Verdict::Accept(skb);
        }
        let ctx = Ctx {
            netns,
            net,
            point: Point::Forward,
            g,
        };
        let Some(mut iph) = packet::parse::<V6>(&skb, 0) else {
            return Verdict::Accept(skb);
        };
        let is_icmp = iph.proto == icmp_proto::<V6>();
        if !is_icmp && !is_known(iph.proto) {
            return Verdict::Accept(skb);
        }
        if !V6 && iph.fragment && (is_icmp || wants_defrag(iph.proto)) {
            match gather(&ctx, &mut skb) {
                Gathered::Whole(whole) => iph = whole,
                Gathered::Gone => return Verdict::Stolen,
                Gathered::Bad => return Verdict::Accept(skb),
            }
        }
        if is_icmp {
            return icmp::forwarded_reply::<V6>(&ctx, skb, &iph);
        }
        let Some(conns) = netns.conns() else {
            return Verdict::Accept(skb);
        };
        let Some(tuple) = iph.tuple::<V6>(&skb) else {
            return Verdict::Accept(skb);
        };
        match conns.find_reply(&tuple, g) {
            Some(conn) => output::reply::<V6>(&ctx, conns, skb, &iph, conn, facts),
            None => output::unknown::<V6>(&ctx, skb, &iph, &tuple),
        }
    }
}

impl<const V6: bool> Hook<Netns> for ForwardIcmp<V6> {
    #[inline(always)]
    fn run<'a>(netns: &Netns, mut skb: Skb<'a>, net: &Net, g: &Held) -> Verdict<'a> {
        if netns.stands_by() {
            return Verdict::Accept(skb);
        }
        let Some(mut iph) = packet::parse::<V6>(&skb, 0) else {
            return Verdict::Accept(skb);
        };
        if iph.proto != icmp_proto::<V6>() {
            return Verdict::Accept(skb);
        }
        let ctx = Ctx {
            netns,
            net,
            point: Point::Forward,
            g,
        };
        if !V6 && iph.fragment {
            match gather(&ctx, &mut skb) {
                Gathered::Whole(whole) => iph = whole,
                Gathered::Gone => return Verdict::Stolen,
                Gathered::Bad => return Verdict::Accept(skb),
            }
        }
        icmp::forwarded_request::<V6>(&ctx, skb, &iph)
    }
}

impl<const V6: bool> Hook<Netns> for LocalReply<V6> {
    #[inline(always)]
    fn run<'a>(netns: &Netns, skb: Skb<'a>, net: &Net, g: &Held) -> Verdict<'a> {
        let Some(realm) = netns.fullnat() else {
            return Verdict::Accept(skb);
        };
        let ours = if V6 {
            skb.read::<16>(24)
                .is_some_and(|addr| realm.has_v6(&addr, g))
        } else {
            skb.read::<4>(16)
                .is_some_and(|addr| realm.has_v4(u32::from_ne_bytes(addr), g))
        };
        if !ours {
            return Verdict::Accept(skb);
        }
        let ctx = Ctx {
            netns,
            net,
            point: Point::PreRouting,
            g,
        };
        arrived::<V6>(&ctx, skb)
    }
}

/// Deals with a packet to a local address.
#[inline(never)]
fn arrived<'a, const V6: bool>(ctx: &Ctx<'_>, mut skb: Skb<'a>) -> Verdict<'a> {
    let facts = skb.facts();
    if facts.seen() || !facts.to_host() {
        return Verdict::Accept(skb);
    }
    let Some(mut iph) = packet::parse::<V6>(&skb, 0) else {
        return Verdict::Accept(skb);
    };
    let is_icmp = iph.proto == icmp_proto::<V6>();
    if !is_icmp && !is_known(iph.proto) {
        return Verdict::Accept(skb);
    }
    if !V6 && iph.fragment && (is_icmp || wants_defrag(iph.proto)) {
        match gather(ctx, &mut skb) {
            Gathered::Whole(whole) => iph = whole,
            Gathered::Gone => return Verdict::Stolen,
            Gathered::Bad => return Verdict::Accept(skb),
        }
    }
    if is_icmp {
        return icmp::arrived::<V6>(ctx, skb, &iph);
    }
    fullnat::arrived::<V6>(ctx, skb, &iph, facts)
}
