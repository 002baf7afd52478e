// SPDX-License-Identifier: GPL-2.0-only

//! ICMP and ICMPv6 errors about packets of connections: C `ip_vs_out_icmp()`, `ip_vs_in_icmp()` and their IPv6 kin.
//!
//! An error embeds the beginning of the packet it is about. Seen backwards, that packet is one of the connection: an error
//! about a forwarded request embeds it as the real server got it and concerns the client (*reply direction*); an error
//! about a reply embeds it as the client got it and concerns the real server (*request direction*).

use super::{
    fullnat,
    hooks::{
        icmp_proto,
        Ctx, //
    },
    input::{
        self,
        Embedded, //
    },
    output,
    packet::{
        self,
        Iph, //
    },
    track,
    xmit::{
        self,
        route, //
    }, //
};
use crate::{
    conn::{
        Conn,
        ConnTable,
        Created,
        FullNat,
        Tuple, //
    },
    os::{
        netfilter::{
            Point,
            Verdict, //
        },
        skb::Skb,
        table::Ref, //
    },
    service::pool::option_room,
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    checksum,
    nat::{
        self,
        Side, //
    },
    proto::{
        has_ports,
        is_known,
        wants_defrag,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    uapi::{
        tun_type,
        FwdMethod, //
    },
    wire::{
        gue,
        icmp::{
            self,
            Icmp, //
        },
        icmpv6::{
            self,
            Icmpv6, //
        }, //
    },
};

const IPPROTO_IPIP: u8 = 4;
const IPPROTO_GRE: u8 = 47;

/// Length of an ICMP or ICMPv6 header.
const HEADER: usize = 8;

/// What an ICMP message is to us.
enum Kind {
    /// An error about a packet of this flow, seen backwards; with the embedded header.
    Error(Tuple, Iph),
    /// An error that does not quote as much as the ports.
    NoPorts,
    /// Nothing of ours: it goes on.
    Other,
    /// Broken: it is dropped.
    Broken,
}

/// Reads an ICMP message up to the ports of the packet it embeds.
fn classify<const V6: bool>(skb: &Skb<'_>, iph: &Iph) -> Kind {
    if iph.later_fragment {
        return if V6 { Kind::Broken } else { Kind::Other };
    }
    let Some(header) = skb.read::<HEADER>(iph.l4) else {
        return Kind::Broken;
    };
    if V6 {
        if !Icmpv6::new(&header).is_error() {
            return Kind::Other;
        }
        // An error is never fragmented.
        if iph.fragment {
            return Kind::Broken;
        }
    } else if !Icmp::new(&header).is_related_error() {
        return Kind::Other;
    }
    let Some(mut inner) = packet::parse::<V6>(skb, iph.l4.wrapping_add(HEADER)) else {
        return Kind::Other;
    };
    inner.embedded = true;
    if !is_known(inner.proto) || (inner.later_fragment && wants_defrag(inner.proto)) {
        return Kind::Other;
    }
    match inner.tuple::<V6>(skb) {
        Some(tuple) => Kind::Error(tuple.reversed(), inner),
        None => Kind::NoPorts,
    }
}

/// Deals with an error that does not quote as much as the ports: where errors begin connections, it is broken.
fn without_ports<'a>(ctx: &Ctx<'_>, skb: Skb<'a>) -> Verdict<'a> {
    if ctx.netns.sysctl.schedule_icmp() && ctx.netns.conns().is_some() {
        return Verdict::Drop(skb);
    }
    Verdict::Accept(skb)
}

/// Whether an ICMP message is an error that might be about a connection.
pub(super) fn is_error<const V6: bool>(skb: &Skb<'_>, iph: &Iph) -> bool {
    skb.read::<HEADER>(iph.l4).is_none_or(|header| {
        if V6 {
            Icmpv6::new(&header).is_error()
        } else {
            Icmp::new(&header).is_related_error()
        }
    })
}

/// Deals with an ICMP message to or from this host. `may_be_request` is false for what was not sent to this host.
#[cold]
pub(super) fn established<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
    may_be_request: bool,
) -> Verdict<'a> {
    let embedded = match classify::<V6>(&skb, iph) {
        Kind::Error(tuple, inner) => Some((tuple, inner)),
        Kind::NoPorts if may_be_request => return without_ports(ctx, skb),
        Kind::Other | Kind::NoPorts => None,
        Kind::Broken => return Verdict::Drop(skb),
    };
    let Some(conns) = ctx.netns.conns() else {
        return Verdict::Accept(skb);
    };
    // Seen backwards, a packet that the real server got is a reply of the connection. An error may have begun another one, of which
    // it is a request: C looks for replies first.
    if let Some((tuple, inner)) = &embedded {
        if let Some(conn) = conns.find_reply(tuple, ctx.g) {
            return to_client::<V6>(ctx, skb, iph, inner, conn);
        }
    }
    if !may_be_request {
        return Verdict::Accept(skb);
    }
    if !V6 {
        match Tunnelled::read(ctx, &skb, iph) {
            Carried::Request(tunnelled) => return about_tunnel(ctx, conns, skb, iph, &tunnelled),
            Carried::Unclear => return Verdict::Accept(skb),
            Carried::Not => {}
        }
    }
    match embedded {
        Some((tuple, inner)) => request::<V6>(ctx, conns, skb, iph, &inner, &tuple),
        None => Verdict::Accept(skb),
    }
}

/// Deals with an error about what, seen backwards, is a request or of no connection.
fn request<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    inner: &Iph,
    tuple: &Tuple,
) -> Verdict<'a> {
    match conns.find_request(tuple, ctx.g) {
        Some(conn) => to_server::<V6>(ctx, skb, iph, inner, conn),
        None => unknown::<V6>(ctx, conns, skb, iph, inner, tuple),
    }
}

/// Deals with an ICMP message that passes through, from inside: C `ip_vs_out_icmp()` at FORWARD.
#[cold]
pub(super) fn forwarded_reply<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
) -> Verdict<'a> {
    let (tuple, inner) = match classify::<V6>(&skb, iph) {
        Kind::Error(tuple, inner) => (tuple, inner),
        Kind::Other | Kind::NoPorts => return Verdict::Accept(skb),
        Kind::Broken => return Verdict::Drop(skb),
    };
    match ctx
        .netns
        .conns()
        .and_then(|conns| conns.find_reply(&tuple, ctx.g))
    {
        Some(conn) => to_client::<V6>(ctx, skb, iph, &inner, conn),
        None => Verdict::Accept(skb),
    }
}

/// Deals with an ICMP message that passes through, from outside: C `ip_vs_forward_icmp()`.
#[cold]
pub(super) fn forwarded_request<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
) -> Verdict<'a> {
    let (tuple, inner) = match classify::<V6>(&skb, iph) {
        Kind::Error(tuple, inner) => (tuple, inner),
        Kind::NoPorts => return without_ports(ctx, skb),
        Kind::Other => return Verdict::Accept(skb),
        Kind::Broken => return Verdict::Drop(skb),
    };
    let Some(conns) = ctx.netns.conns() else {
        return Verdict::Accept(skb);
    };
    request::<V6>(ctx, conns, skb, iph, &inner, &tuple)
}

/// Deals with an error about a packet of no connection, which `schedule_icmp` lets begin one.
#[inline(never)]
fn unknown<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    inner: &Iph,
    tuple: &Tuple,
) -> Verdict<'a> {
    if !ctx.netns.sysctl.schedule_icmp() {
        return Verdict::Accept(skb);
    }
    match input::schedule_embedded::<V6>(ctx, conns, &skb, inner.proto, tuple) {
        Embedded::Begun(Created::New(conn) | Created::Exists(conn)) => {
            to_server::<V6>(ctx, skb, iph, inner, conn)
        }
        Embedded::Begun(Created::Once(once)) => to_server::<V6>(ctx, skb, iph, inner, once.entry()),
        Embedded::Accept => Verdict::Accept(skb),
        Embedded::Drop => Verdict::Drop(skb),
    }
}

/// An error about a packet that this host put a request into: the tunnel's IPv4 packet comes back in it, and the
/// request in that.
struct Tunnelled {
    /// The request's header.
    inner: Iph,
    /// The request's flow.
    tuple: Tuple,
    /// The length of the tunnel's IP header.
    outer: usize,
    /// The length of what follows it before the request.
    carrier: usize,
}

/// Whether an error is about a tunnel of ours.
enum Carried {
    /// It is, and this is what the tunnel carried.
    Request(Tunnelled),
    /// It is, and there is no telling what the tunnel carried.
    Unclear,
    /// It is not.
    Not,
}

impl Tunnelled {
    /// Reads an error about one of our own tunnels, which is for this host.
    #[inline(never)]
    fn read(ctx: &Ctx<'_>, skb: &Skb<'_>, iph: &Iph) -> Carried {
        match Self::tunnel(ctx, skb, iph) {
            Some((tunnel, carrier)) => match Self::request(skb, &tunnel, carrier) {
                Some(request) => Carried::Request(request),
                None => Carried::Unclear,
            },
            None => Carried::Not,
        }
    }

    /// The header of the tunnel's packet in an error about one, and how many bytes follow it before the request.
    fn tunnel(ctx: &Ctx<'_>, skb: &Skb<'_>, iph: &Iph) -> Option<(Iph, usize)> {
        if !skb.is_for_here_v4() {
            return None;
        }
        let header: [u8; HEADER] = skb.read(iph.l4)?;
        if !Icmp::new(&header).is_related_error() {
            return None;
        }
        let tunnel = packet::parse_v4(skb, iph.l4.wrapping_add(HEADER))?;
        if tunnel.later_fragment {
            return None;
        }
        Some((tunnel, Self::carrier(ctx, skb, &tunnel)?))
    }

    /// The request in the tunnel's packet.
    fn request(skb: &Skb<'_>, tunnel: &Iph, carrier: usize) -> Option<Self> {
        let mut inner = packet::parse_v4(skb, tunnel.l4.wrapping_add(carrier))?;
        inner.embedded = true;
        if !is_known(inner.proto) || (inner.later_fragment && wants_defrag(inner.proto)) {
            return None;
        }
        Some(Self {
            tuple: inner.tuple::<false>(skb)?,
            inner,
            outer: tunnel.l4.wrapping_sub(tunnel.at),
            carrier,
        })
    }

    /// How many bytes there are between the tunnel's IP header and the request, if a destination has such a tunnel. Requests
    /// are IPv4, as in C. C: `ipvs_udp_decap()`, `ipvs_gre_decap()`.
    fn carrier(ctx: &Ctx<'_>, skb: &Skb<'_>, tunnel: &Iph) -> Option<usize> {
        let is_tunnel = |port: Be16, kind: u8| {
            let services = &ctx.netns.services;
            services.is_tunnel(Family::V4, &tunnel.dst, port, kind, ctx.g)
        };
        match tunnel.proto {
            IPPROTO_IPIP => is_tunnel(0, tun_type::IPIP).then_some(0),
            IPPROTO_UDP => {
                let udp: [u8; 8] = skb.read(tunnel.l4)?;
                if !is_tunnel(u16::from_ne_bytes([udp[2], udp[3]]), tun_type::GUE) {
                    return None;
                }
                let gue: [u8; gue::HEADER] = skb.read(tunnel.l4.wrapping_add(udp.len()))?;
                let options = gue::options_len(&gue, IPPROTO_IPIP)?;
                Some(udp.len().wrapping_add(gue.len()).wrapping_add(options))
            }
            IPPROTO_GRE => {
                let gre: [u8; 4] = skb.read(tunnel.l4)?;
                if !is_tunnel(0, tun_type::GRE) {
                    return None;
                }
                // Version 0, with a checksum or without, around IPv4.
                match gre {
                    [0, 0, 0x08, 0] => Some(4),
                    [0x80, 0, 0x08, 0] => Some(8),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// An error about a tunnel, for the client: what is wrong on the way to the real server is told as if it were about the
/// request itself. The end of C `ip_vs_in_icmp()`.
#[inline(never)]
fn about_tunnel<'a>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    mut skb: Skb<'a>,
    iph: &Iph,
    about: &Tunnelled,
) -> Verdict<'a> {
    let Some(conn) = conns.find_request(&about.tuple, ctx.g) else {
        return Verdict::Accept(skb);
    };
    let proto = icmp_proto::<false>();
    if !skb.csum_ok(iph.l4 as u32, proto, Family::V4.af()) {
        return Verdict::Drop(skb);
    }
    if relay(ctx, &mut skb, iph, about, conn) {
        // The answer may be shorter, but this is what C counts.
        output::account(ctx, &skb, conn);
    }
    skb.consume();
    Verdict::Stolen
}

/// Sends the error on; `false` if there is nothing to tell.
fn relay(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    about: &Tunnelled,
    conn: Ref<'_, Conn>,
) -> bool {
    let Some([kind, code, _, _, i0, i1, i2, i3]) = skb.read::<HEADER>(iph.l4) else {
        return false;
    };
    let mut info = u32::from_be_bytes([i0, i1, i2, i3]);
    let mut strip = about.inner.at;
    if kind == icmp::DEST_UNREACH && code == icmp::FRAG_NEEDED {
        let before = iph.l4.wrapping_add(HEADER);
        if !skb.strip_v4(before, about.outer) {
            return false;
        }
        strip = strip.wrapping_sub(before);
        let mut mtu = u32::from(u16::from_be_bytes([i2, i3]));
        skb.note_path_mtu_v4(ctx.net, mtu);
        if !about.inner.df {
            // Whoever lets packets be fragmented does not want to know.
            return false;
        }
        // What the path's MTU has become now.
        if let Some(path) = conn.get().dest().and_then(|dest| dest.route.mtu(ctx.g)) {
            mtu = path;
        }
        let overhead = about.outer.wrapping_add(about.carrier) as u32;
        info = match mtu.checked_sub(overhead) {
            Some(room) if room > route::V4_MIN_MTU => room,
            _ => mtu,
        };
    }
    let header = about.inner.l4.wrapping_sub(about.inner.at);
    if !skb.strip_v4(strip, header) {
        return false;
    }
    // The header may have been read from elsewhere than it lies now: C checks again, too.
    match packet::parse_v4(skb, 0) {
        Some(now) if now.l4 == header => skb.icmp_error(kind, code, info),
        _ => return false,
    }
    true
}

/// Deals with an ICMP message to a local address of FullNAT, which has no route yet.
#[cold]
#[inline(never)]
pub(super) fn arrived<'a, const V6: bool>(ctx: &Ctx<'_>, skb: Skb<'a>, iph: &Iph) -> Verdict<'a> {
    // What is broken is dropped by who sees it next.
    let Kind::Error(tuple, inner) = classify::<V6>(&skb, iph) else {
        return Verdict::Accept(skb);
    };
    match ctx
        .netns
        .conns()
        .and_then(|conns| conns.find_reply(&tuple, ctx.g))
    {
        Some(conn) if conn.is_fullnat() => fullnat_to_client::<V6>(ctx, skb, iph, &inner, conn),
        _ => Verdict::Accept(skb),
    }
}

/// What of an error's both addresses, outside and inside, is replaced.
struct BothEnds {
    src: (Addr, Be16),
    dst: (Addr, Be16),
}

/// Rewrites both ends of an error, outside and inside.
fn rewrite_both<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    inner: &Iph,
    to: &BothEnds,
    age: bool,
) -> bool {
    let (addr, port) = to.dst;
    if !rewrite::<V6>(skb, iph, inner, Side::Dst, &addr, port, age) {
        return false;
    }
    let iph = Iph { dst: addr, ..*iph };
    let (addr, port) = to.src;
    rewrite::<V6>(skb, &iph, inner, Side::Src, &addr, port, false)
}

/// Translates what an error embeds of the client's TCP numbers, and takes from the MTU that it names what packets grow by.
fn translate_embedded<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    inner: &Iph,
    full: &FullNat,
) -> Option<()> {
    const SEQ: usize = 4;

    let family = if V6 { Family::V6 } else { Family::V4 };
    let grown = option_room(full.carry, family);
    if grown != 0 {
        let at = iph.l4;
        let bytes = skb.writable(at.checked_add(HEADER)?)?.get_mut(at..)?;
        match bytes {
            [2, _, _, _, mtu @ ..] if V6 => {
                let mtu: &mut [u8; 4] = mtu.first_chunk_mut()?;
                let less = u32::from_be_bytes(*mtu).saturating_sub(grown.into());
                *mtu = less.max(1280).to_be_bytes();
            }
            [3, 4, _, _, _, _, mtu @ ..] if !V6 => {
                let mtu: &mut [u8; 2] = mtu.first_chunk_mut()?;
                *mtu = u16::from_be_bytes(*mtu).saturating_sub(grown).to_be_bytes();
            }
            _ => {}
        }
    }
    if inner.proto == IPPROTO_TCP && !inner.later_fragment {
        let at = inner.l4.checked_add(SEQ)?;
        // Not everybody embeds as much.
        if let Some(seq) = skb
            .writable(at.checked_add(4)?)
            .and_then(|bytes| bytes.get_mut(at..)?.first_chunk_mut::<4>())
        {
            *seq = full.space.to_client(u32::from_be_bytes(*seq)).to_be_bytes();
        }
    }
    Some(())
}

/// An error about a FullNAT request, for the client: nothing in it speaks of local addresses or real servers.
#[inline(never)]
fn fullnat_to_client<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    inner: &Iph,
    conn: Ref<'_, Conn>,
) -> Verdict<'a> {
    let family = if V6 { Family::V6 } else { Family::V4 };
    let Some(full) = conn.get().fullnat() else {
        return Verdict::Drop(skb);
    };
    let ends = BothEnds {
        src: (conn.vaddr(), conn.vport()),
        dst: (conn.caddr(), conn.cport()),
    };
    let [ttl] = skb.read::<1>(if V6 { 7 } else { 8 }).unwrap_or([0]);
    let forwarded = ctx.point != Point::LocalOut;
    if (forwarded && ttl <= 1)
        || !skb.csum_ok(iph.l4 as u32, icmp_proto::<V6>(), family.af())
        || fullnat::way_back(ctx, &mut skb, conn, V6).is_none()
        || translate_embedded::<V6>(&mut skb, iph, inner, full).is_none()
        || !rewrite_both::<V6>(&mut skb, iph, inner, &ends, forwarded)
    {
        skb.free();
        return Verdict::Stolen;
    }
    output::account(ctx, &skb, conn);
    skb.set_seen();
    skb.notrack();
    skb.orphan();
    skb.send(ctx.net, V6);
    Verdict::Stolen
}

/// An error about a FullNAT reply, for the real server: it comes from the local address, as all that the server knows of.
#[inline(never)]
fn fullnat_to_server<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    inner: &Iph,
    conn: Ref<'_, Conn>,
) -> Verdict<'a> {
    let Some(full) = conn.get().fullnat() else {
        return Verdict::Drop(skb);
    };
    let addr = conn.daddr();
    let ends = BothEnds {
        src: (*full.addr(), full.port()),
        dst: (addr, conn.dport()),
    };
    let facts = skb.facts();
    let mode = if ctx.point == Point::Forward {
        route::NAT_THROUGH
    } else {
        route::NAT
    };
    let way = route::find::<V6>(ctx, &mut skb, inner, conn, &addr, facts, mode);
    match way {
        Some(way) if rewrite_both::<V6>(&mut skb, iph, inner, &ends, !way.local()) => {
            xmit::finish::<V6>(ctx, skb, conn, way)
        }
        _ => {
            skb.free();
            Verdict::Stolen
        }
    }
}

/// An error about a request, for the client: the virtual service appears as its source and inside. C:
/// `handle_response_icmp()`.
fn to_client<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    inner: &Iph,
    conn: Ref<'_, Conn>,
) -> Verdict<'a> {
    let family = if V6 { Family::V6 } else { Family::V4 };
    if conn.is_fullnat() {
        return fullnat_to_client::<V6>(ctx, skb, iph, inner, conn);
    }
    if conn.method() != FwdMethod::Masq as u32 {
        // Nothing was rewritten on the way there.
        output::account(ctx, &skb, conn);
        skb.set_seen();
        track::unchanged(&mut skb, conn);
        return Verdict::Accept(skb);
    }
    if !skb.csum_ok(iph.l4 as u32, icmp_proto::<V6>(), family.af())
        || !rewrite::<V6>(
            &mut skb,
            iph,
            inner,
            Side::Src,
            &conn.vaddr(),
            conn.vport(),
            false,
        )
        || !output::reroute::<V6>(ctx, &mut skb)
    {
        return Verdict::Drop(skb);
    }
    output::account(ctx, &skb, conn);
    skb.set_seen();
    track::reply(&mut skb, conn);
    Verdict::Accept(skb)
}

/// An error about a reply, for the real server: it appears as its destination and inside. C: `ip_vs_icmp_xmit()`.
fn to_server<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    inner: &Iph,
    conn: Ref<'_, Conn>,
) -> Verdict<'a> {
    let family = if V6 { Family::V6 } else { Family::V4 };
    let masq = conn.method() == FwdMethod::Masq as u32;
    // What is not changed is passed on as it is.
    if masq && !skb.csum_ok(iph.l4 as u32, icmp_proto::<V6>(), family.af()) {
        return Verdict::Drop(skb);
    }
    input::account(ctx, &skb, conn);
    if conn.is_fullnat() {
        return fullnat_to_server::<V6>(ctx, skb, iph, inner, conn);
    }
    let addr = conn.daddr();
    let facts = skb.facts();
    if !masq {
        let verdict = xmit::send::<V6>(ctx, skb, inner, conn, facts);
        conn.count_packet();
        return verdict;
    }
    // A real server on this host can't be reached from FORWARD.
    let mode = if ctx.point == Point::Forward {
        route::NAT_THROUGH
    } else {
        route::NAT
    };
    let Some(way) = route::find::<V6>(ctx, &mut skb, inner, conn, &addr, facts, mode) else {
        skb.free();
        return Verdict::Stolen;
    };
    if !rewrite::<V6>(
        &mut skb,
        iph,
        inner,
        Side::Dst,
        &addr,
        conn.dport(),
        !way.local(),
    ) {
        skb.free();
        return Verdict::Stolen;
    }
    xmit::finish::<V6>(ctx, skb, conn, way)
}

/// Rewrites an error outside and inside, and its checksum; `age` takes one from its time to live.
fn rewrite<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    inner: &Iph,
    side: Side,
    addr: &Addr,
    port: Be16,
    age: bool,
) -> bool {
    let ports = has_ports(inner.proto) && !inner.later_fragment;
    let end = inner.l4.wrapping_add(if ports { 4 } else { 0 });
    let len = skb.len();
    let Some(bytes) = skb.writable(end) else {
        return false;
    };
    if V6 {
        let ports_at = ports.then_some(inner.l4);
        if nat::rewrite_icmp_v6(bytes, inner.at, ports_at, side, addr, port).is_err() {
            return false;
        }
        if age {
            if let Some(hops) = bytes.get_mut(7) {
                *hops = hops.saturating_sub(1);
            }
        }
        let (src, dst) = match side {
            Side::Src => (addr, &iph.dst),
            Side::Dst => (&iph.src, addr),
        };
        let l4_len = len.saturating_sub(iph.l4 as u32);
        let seed = checksum::fold_sum(checksum::pseudo_v6(src, dst, icmp_proto::<V6>(), l4_len, 0));
        let Some(mut header) = bytes.get_mut(iph.l4..).and_then(Icmpv6::parse_mut) else {
            return false;
        };
        header.set_check(seed);
        skb.csum_partial(iph.l4 as u32, icmpv6::CHECK_OFFSET as u16);
        return true;
    }
    // The embedded header may have been read from elsewhere than it lies now: C checks again, too.
    if nat::rewrite_icmp_v4(bytes, iph.l4, inner.l4, side, addr, port, false).is_err() {
        return false;
    }
    if age {
        if let Some(mut header) = rvs_core::wire::ipv4::Ipv4::parse_mut(bytes) {
            header.decrease_ttl();
        }
    }
    let set_check = |skb: &mut Skb<'_>, check: u16| {
        skb.writable(iph.l4.wrapping_add(HEADER))
            .and_then(|bytes| bytes.get_mut(iph.l4..))
            .and_then(Icmp::parse_mut)
            .map(|mut header| header.set_check(check))
            .is_some()
    };
    if !set_check(skb, 0) {
        return false;
    }
    let check = checksum::fold(skb.sum_from(iph.l4 as u32));
    if !set_check(skb, check) {
        return false;
    }
    skb.csum_unnecessary();
    true
}
