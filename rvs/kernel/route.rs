// SPDX-License-Identifier: GPL-2.0-only

//! Routes: looking them up, remembering them, sending along them.
//!
//! C headers: `include/net/dst.h`, `include/net/route.h`, `include/net/ip6_route.h`

use super::{
    net::Net,
    rcu::{
        Held,
        RcuBox,
        RcuCell, //
    },
    skb::Skb, //
};
use crate::bindings;
use core::ptr::NonNull;
use kernel::alloc::flags::*;

/// A reference to a route.
///
/// # Invariants
///
/// `dst` is a counted reference.
pub(crate) struct Route {
    dst: NonNull<bindings::dst_entry>,
    cookie: u32,
    source: [u32; 4],
}

// SAFETY: A `dst_entry` is reference counted atomically and used from any CPU.
unsafe impl Send for Route {}
// SAFETY: As above.
unsafe impl Sync for Route {}

impl Drop for Route {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours to give back.
        unsafe { bindings::rvs_helper_dst_release(self.dst.as_ptr()) };
    }
}

/// What a route means for a packet.
#[derive(Clone, Copy)]
pub(crate) struct RouteFacts {
    bits: u32,
    /// The path's MTU in bytes.
    pub(crate) mtu: u32,
}

impl RouteFacts {
    /// The route leads to this host.
    #[inline(always)]
    pub(crate) fn local(self) -> bool {
        self.bits & bindings::RVS_RT_LOCAL != 0
    }

    /// Both this route and the packet's present one lead to this host.
    #[inline(always)]
    pub(crate) fn old_local(self) -> bool {
        self.bits & bindings::RVS_RT_OLD_LOCAL != 0
    }

    /// The packet came in from a device.
    #[inline(always)]
    pub(crate) fn old_input(self) -> bool {
        self.bits & bindings::RVS_RT_OLD_INPUT != 0
    }
}

/// Where a route is to lead.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// The address: words in memory order, IPv4 in the first.
    pub(crate) addr: [u32; 4],
    /// Whether packets are for others and the address is but the next hop: `FLOWI_FLAG_KNOWN_NH`.
    pub(crate) next_hop: bool,
    /// Whether packets are put into others, which get a source address of this host's.
    pub(crate) tunnel: bool,
}

impl Target {
    fn flags(&self) -> u32 {
        let next_hop = if self.next_hop {
            bindings::RVS_RT_NEXT_HOP
        } else {
            0
        };
        let tunnel = if self.tunnel {
            bindings::RVS_RT_TUNNEL
        } else {
            0
        };
        next_hop | tunnel
    }
}

/// Which IP versions a route and a packet are of; they differ in tunnels only.
#[derive(Clone, Copy)]
pub(crate) struct Versions {
    /// Whether the route is IPv6.
    pub(crate) route_v6: bool,
    /// Whether the packet is.
    pub(crate) packet_v6: bool,
}

impl Versions {
    /// The packet's way is its own.
    #[inline(always)]
    pub(crate) const fn same(v6: bool) -> Self {
        Self {
            route_v6: v6,
            packet_v6: v6,
        }
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        let route = if self.route_v6 {
            bindings::RVS_RT_V6
        } else {
            0
        };
        let packet = if self.packet_v6 {
            bindings::RVS_RT_SKB_V6
        } else {
            0
        };
        route | packet
    }
}

/// Whether an IPv4 address (memory order) is another host's, or one of ours: neither broadcast nor multicast.
pub(crate) fn is_unicast_v4(net: &Net, addr: u32) -> bool {
    // SAFETY: The namespace is alive.
    unsafe { bindings::rvs_helper_is_unicast4(net.as_ptr(), addr) }
}

impl Route {
    /// Looks up a route. Does not sleep.
    pub(crate) fn lookup(net: &Net, v6: bool, to: &Target) -> Option<Self> {
        let mut cookie = 0;
        let mut source = [0; 4];
        let (src, flags) = (source.as_mut_ptr(), to.flags());
        let raw = if v6 {
            let addr = to.addr.as_ptr();
            // SAFETY: The namespace is alive; both addresses have 16 bytes.
            unsafe { bindings::rvs_helper_route6(net.as_ptr(), addr, flags, src, &mut cookie) }
        } else {
            let [v4, ..] = to.addr;
            // SAFETY: The namespace is alive; the first word of the source is written.
            unsafe { bindings::rvs_helper_route4(net.as_ptr(), v4, flags, src) }
        };
        // INVARIANT: The C functions return a reference.
        Some(Self {
            dst: NonNull::new(raw)?,
            cookie,
            source,
        })
    }

    /// What the route means for `skb`; `None` if the route is out of date. `skb` must have a route.
    #[inline(always)]
    pub(crate) fn facts(&self, skb: &Skb<'_>, versions: Versions) -> Option<RouteFacts> {
        let mut mtu = 0;
        // SAFETY: By the type invariants; the cookie belongs to the route.
        let bits = unsafe {
            bindings::rvs_helper_route_facts(
                skb.as_ptr(),
                self.dst.as_ptr(),
                self.cookie,
                versions.bits(),
                &mut mtu,
            )
        };
        (bits & bindings::RVS_RT_VALID != 0).then_some(RouteFacts { bits, mtu })
    }

    /// Looks up the route of packets that go out under a source address which need not be this host's; addresses as in
    /// [`Target::addr`]. Does not sleep.
    pub(crate) fn from(
        net: &Net,
        v6: bool,
        source: &[u32; 4],
        to: &[u32; 4],
        mark: u32,
    ) -> Option<Self> {
        let raw = if v6 {
            // SAFETY: The namespace is alive; both addresses have 16 bytes.
            unsafe {
                bindings::rvs_helper_route_from6(net.as_ptr(), source.as_ptr(), to.as_ptr(), mark)
            }
        } else {
            let ([source, ..], [to, ..]) = (*source, *to);
            // SAFETY: The namespace is alive.
            unsafe { bindings::rvs_helper_route_from4(net.as_ptr(), source, to, mark) }
        };
        // INVARIANT: The C functions return a reference. A cookie is for routes that are remembered.
        Some(Self {
            dst: NonNull::new(raw)?,
            cookie: 0,
            source: *source,
        })
    }

    /// The path's MTU in bytes.
    #[inline(always)]
    pub(crate) fn mtu(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_dst_mtu(self.dst.as_ptr()) }
    }

    /// The number of the interface that packets leave by.
    fn ifindex(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_dst_ifindex(self.dst.as_ptr()) }
    }

    /// Whether the route's device is going down.
    fn device_down(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_route_dev_down(self.dst.as_ptr()) }
    }
}

/// One remembered route: `ip_vs_dest_dst`.
pub(crate) struct RouteCache(RcuCell<Route>);

/// A route for one packet: remembered, or looked up just for it.
pub(crate) enum Found<'g> {
    /// From the cache; good for the RCU section.
    Cached(&'g Route),
    /// The packet's own.
    Own(Route),
}

impl Found<'_> {
    #[inline(always)]
    fn parts(&self) -> (&Route, bool) {
        match self {
            Found::Cached(route) => (route, false),
            Found::Own(route) => (route, true),
        }
    }
}

impl<'g> Found<'g> {
    /// The source address of packets that this host sends this way (words as in [`Target::addr`]).
    pub(crate) fn source(&self) -> [u32; 4] {
        self.parts().0.source
    }

    /// The path's MTU in bytes.
    #[inline(always)]
    pub(crate) fn mtu(&self) -> u32 {
        self.parts().0.mtu()
    }

    /// The number of the interface that packets leave by.
    pub(crate) fn ifindex(&self) -> u32 {
        self.parts().0.ifindex()
    }

    /// A route that nobody remembers, and what it means for `skb`.
    #[cold]
    pub(crate) fn once(
        net: &Net,
        versions: Versions,
        to: &Target,
        skb: &Skb<'_>,
    ) -> Option<(Found<'g>, RouteFacts)> {
        let route = Route::lookup(net, versions.route_v6, to)?;
        let facts = route.facts(skb, versions)?;
        Some((Found::Own(route), facts))
    }
}

impl RouteCache {
    /// Makes an empty cache.
    pub(crate) const fn new() -> Self {
        Self(RcuCell::empty())
    }

    /// Forgets the route.
    pub(crate) fn reset(&self) {
        self.0.clear();
    }

    /// The MTU of the remembered route, if there is one.
    pub(crate) fn mtu(&self, g: &Held) -> Option<u32> {
        let route = self.0.load(g)?;
        // SAFETY: By the type invariant of `Route`, which is not freed before the RCU section ends.
        Some(unsafe { bindings::rvs_helper_dst_mtu(route.dst.as_ptr()) })
    }

    /// The route to a destination and what it means for `skb`: the remembered one while it is good, else a new one, which is
    /// remembered if `keep` (and its device is up). `None` if there is no route.
    #[inline(always)]
    pub(crate) fn get<'g>(
        &'g self,
        net: &Net,
        versions: Versions,
        to: impl Fn() -> Target,
        skb: &Skb<'_>,
        keep: bool,
        g: &'g Held,
    ) -> Option<(Found<'g>, RouteFacts)> {
        if let Some(route) = self.0.load(g) {
            if let Some(facts) = route.facts(skb, versions) {
                return Some((Found::Cached(route), facts));
            }
        }
        self.refresh(net, versions, &to(), skb, keep, g)
    }

    #[cold]
    fn refresh<'g>(
        &'g self,
        net: &Net,
        versions: Versions,
        to: &Target,
        skb: &Skb<'_>,
        keep: bool,
        g: &'g Held,
    ) -> Option<(Found<'g>, RouteFacts)> {
        let Some(route) = Route::lookup(net, versions.route_v6, to) else {
            self.0.clear();
            return None;
        };
        let facts = route.facts(skb, versions)?;
        if !keep || route.device_down() {
            return Some((Found::Own(route), facts));
        }
        // Two packets may do this at once: the later one's route stays, both are good.
        match RcuBox::new(route, GFP_ATOMIC | __GFP_NOWARN) {
            Ok(boxed) => Some((Found::Cached(self.0.publish(boxed, g)), facts)),
            // Without memory the packet goes its way all the same.
            Err(_) => Found::once(net, versions, to, skb),
        }
    }
}

impl Skb<'_> {
    /// Gives the packet a new route. A remembered one is good until the RCU section of the hook ends, which is not before
    /// the packet is sent or queued (then the stack takes a reference).
    #[inline(always)]
    pub(crate) fn set_route(&mut self, found: &Found<'_>) {
        let (route, own) = found.parts();
        // SAFETY: By the type invariants. With `own` the packet takes a reference; else the cache's outlives the RCU
        // section in which the packet travels (`skb_dst_set_noref()`).
        unsafe { bindings::rvs_helper_skb_dst_set(self.as_ptr(), route.dst.as_ptr(), own) };
    }

    /// Tells the sender that there is no way: `dst_link_failure()`.
    pub(crate) fn link_failure(&mut self) {
        // SAFETY: By the type invariant; the packet has a route, as at all hooks.
        unsafe { bindings::rvs_helper_link_failure(self.as_ptr()) };
    }

    /// Sends the packet along its route through the LOCAL_OUT hooks, as one of this host: the end of `ip_vs_nat_xmit()`.
    #[inline(always)]
    pub(crate) fn send(self, net: &Net, v6: bool) {
        // SAFETY: By the type invariant; the packet has a route and is given away.
        unsafe { bindings::rvs_helper_local_out(self.as_ptr(), net.as_ptr(), v6) };
    }

    /// Routes the packet again as one of this host, unless its route is local: `ip_vs_route_me_harder()`.
    pub(crate) fn reroute(&mut self, net: &Net, v6: bool) -> bool {
        // SAFETY: By the type invariant; the packet has a route.
        unsafe { bindings::rvs_helper_reroute(self.as_ptr(), net.as_ptr(), v6) == 0 }
    }
}
