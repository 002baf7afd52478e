// SPDX-License-Identifier: GPL-2.0-only

//! FullNAT: local ports for new connections, and replies that arrive at local addresses.
//!
//! Replies are met before they are routed, as their destination need not be an address of this host, and as a packet from
//! the virtual address would not pass for one that comes from outside. They are routed here and sent as packets of this
//! host, out of connection tracking's sight.

use super::{
    carry::{
        self,
        Prepared, //
    },
    hooks::Ctx,
    output,
    packet::{
        self,
        Iph, //
    },
    state,
    xmit::{
        self,
        rewrite,
        route, //
    }, //
};
use crate::{
    conn::{
        Conn,
        ConnTable,
        Created,
        FullNat,
        NoConn,
        Param,
        Seat,
        Tuple, //
    },
    fullnat::{
        Past,
        PortSet,
        Realm, //
    },
    os::{
        net::End,
        netfilter::{
            Point,
            Verdict, //
        },
        route::{
            Found,
            Route,
            Target,
            Versions, //
        },
        skb::{
            Facts,
            Skb, //
        },
        table::Ref,
        time, //
    },
    service::{
        self,
        pool::{
            option_room,
            Carry,
            Local,
            Pool, //
        },
        Service, //
    },
};
use kernel::sync::Arc;
use rvs_core::{
    addr::Family,
    fullnat::{
        ports::{
            self,
            Probe, //
        },
        proxy::{
            self,
            Header, //
        },
        tcp::{
            self,
            Space,
            Translate,
            MAX_HEADER, //
        },
    },
    proto::{
        tcp::Flags,
        IPPROTO_TCP, //
    },
    wire::{
        icmp,
        icmpv6,
        tcp::Tcp, //
    },
};

/// What a new connection is going to have towards its real server, whatever its port.
struct Plan<'a> {
    param: &'a Param<'a>,
    realm: &'a Realm,
    /// The client's first sequence number, if the packet is a SYN; and its timestamp.
    syn: Option<(u32, Option<u32>)>,
    carry: Carry,
    max: i64,
}

/// Makes a connection of `param` with a local address and port of the service's pool. Its real server is NAT by its flags.
#[inline(never)]
pub(super) fn connect<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    service: &Service,
    skb: &Skb<'_>,
    param: &Param<'_>,
) -> Result<Created<'g>, NoConn> {
    let (Some(realm), Some(pool)) = (ctx.netns.fullnat(), service.fullnat.pool(ctx.g)) else {
        service.fullnat.no_port();
        return Err(NoConn::Exhausted);
    };
    let options = service.fullnat.options();
    let syn = numbers(skb, param.flow);
    let plan = Plan {
        param,
        realm,
        syn,
        carry: options.carry,
        max: i64::from(ctx.netns.sysctl.conn_max()),
    };
    let interface = if pool.by_interface {
        leaves_by(ctx, skb, param)
    } else {
        0
    };
    match search(ctx, conns, pool, &plan, options.ports, interface)? {
        Some(created) => Ok(created),
        None => {
            service.fullnat.no_port();
            Err(NoConn::Exhausted)
        }
    }
}

/// The number of the interface by which packets go to the real server; 0 if nobody knows.
#[cold]
fn leaves_by(ctx: &Ctx<'_>, skb: &Skb<'_>, param: &Param<'_>) -> u32 {
    let Some(dest) = param.dest else {
        return 0;
    };
    let to = || Target {
        addr: dest.addr().0,
        next_hop: false,
        tunnel: false,
    };
    let versions = Versions::same(param.flow.v6);
    let found = dest
        .route
        .get(ctx.net, versions, to, skb, dest.available(), ctx.g);
    found.map_or(0, |(found, _)| found.ifindex())
}

/// Tries port after port, on each address, and makes the connection with the first that is free: first those that nobody is known
/// to have, then any.
fn search<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    pool: &Pool,
    plan: &Plan<'_>,
    range: ports::Range,
    interface: u32,
) -> Result<Option<Created<'g>>, NoConn> {
    let flow = plan.param.flow;
    let both = u32::from(flow.sport) | u32::from(plan.param.dport) << 16;
    let seed = ports::seed(plan.realm.key(), &flow.src, &plan.param.daddr, both);
    let locals = pool.locals();
    let first = ports::first_address(seed, locals.len());
    let attempts = ports::attempts(locals.len());
    let (before, from) = locals.split_at_checked(first).unwrap_or((&[], locals));
    // Making the connection asks the table, too. To ask it before that is worth it only where the bits were wrong once.
    let mut ask = false;
    for known in [true, false] {
        ask |= !known;
        for local in Iterator::chain(from.iter(), before) {
            if local.ifindex() != 0 && local.ifindex() != interface {
                continue;
            }
            let set = plan.realm.port_set(&plan.reply(local, 0));
            for number in Probe::new(range, seed, attempts) {
                let number = if known {
                    let near = ports::pick(plan.realm.taken(set, number), number, range);
                    if near != Some(number) {
                        local.conflicts.add(1);
                    }
                    let Some(near) = near else { continue };
                    near
                } else {
                    number
                };
                match sit(ctx, conns, plan, local, (set, number), ask)? {
                    Seated::Yes(created) => return Ok(Some(created)),
                    Seated::Taken => ask = true,
                    Seated::No => {}
                }
            }
        }
    }
    Ok(None)
}

/// What came of a port.
enum Seated<'g> {
    /// The connection has it.
    Yes(Created<'g>),
    /// Another connection had it when this one was to be inserted.
    Taken,
    /// It is not to be had.
    No,
}

/// Makes the connection at a local port, unless that is not free; asks the table first if `ask`.
#[inline(never)]
fn sit<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    plan: &Plan<'_>,
    local: &Arc<Local>,
    (set, number): (PortSet, u16),
    ask: bool,
) -> Result<Seated<'g>, NoConn> {
    let reply = plan.reply(local, number);
    if ask && conns.find_reply(&reply, ctx.g).is_some() {
        local.conflicts.add(1);
        plan.realm.take(set, number);
        return Ok(Seated::No);
    }
    // Only TCP's are remembered.
    let past = if reply.proto == IPPROTO_TCP {
        plan.realm.past(&reply)
    } else {
        Past::default()
    };
    if past.rests {
        local.conflicts.add(1);
        return Ok(Seated::No);
    }
    if is_others(ctx, &reply) {
        return Ok(Seated::No);
    }
    let (space, ts) = plan.numbers(&reply, past);
    let seat = Seat {
        local,
        port: reply.dport,
        space,
        ts,
        carry: plan.carry,
    };
    // Before there can be an end of it, which gives it back.
    plan.realm.take(set, number);
    match conns.create_at(plan.param, &seat, plan.max, ctx.g) {
        Ok(Some(created)) => Ok(Seated::Yes(created)),
        Ok(None) => {
            local.conflicts.add(1);
            // Its end gave back what the other has.
            plan.realm.take(set, number);
            Ok(Seated::Taken)
        }
        Err(e) => {
            plan.realm.give_back(set, number);
            Err(e)
        }
    }
}

/// Whether what arrives in such a reply is somebody else's: the port is reserved, belongs to a socket of this host, or to a
/// virtual service.
fn is_others(ctx: &Ctx<'_>, reply: &Tuple) -> bool {
    if ctx.net.is_port_reserved(u16::from_be(reply.dport)) {
        return true;
    }
    let id = service::Id {
        family: if reply.v6 { Family::V6 } else { Family::V4 },
        fwmark: 0,
        protocol: reply.proto.into(),
        addr: reply.dst,
        port: reply.dport,
    };
    if ctx.netns.services.lookup(ctx.net, id, ctx.g).is_some() {
        return true;
    }
    let end = |addr, port| End { addr, port };
    ctx.net.has_socket(
        reply.v6,
        reply.proto,
        end(&reply.src.0, reply.sport),
        end(&reply.dst.0, reply.dport),
        ctx.g,
    )
}

impl Plan<'_> {
    /// What a reply is like that arrives at this local address and port (a number).
    fn reply(&self, local: &Local, number: u16) -> Tuple {
        Tuple {
            src: self.param.daddr,
            dst: *local.addr(),
            sport: self.param.dport,
            dport: number.to_be(),
            ..*self.param.flow
        }
    }

    /// How many bytes are put in front of the client's first.
    fn header(&self) -> u32 {
        let Carry::Proxy(version) = self.carry else {
            return 0;
        };
        let flow = self.param.flow;
        let header = Header::new(
            version,
            &proxy::Flow {
                family: if flow.v6 { Family::V6 } else { Family::V4 },
                udp: false,
                src: &flow.src,
                dst: &flow.dst,
                sport: flow.sport,
                dport: flow.dport,
            },
        );
        header.bytes().len() as u32
    }

    /// How the client's TCP numbers are translated if replies arrive so, where there was such a past.
    fn numbers(&self, reply: &Tuple, past: Past) -> (Space, u32) {
        let Some((seq, value)) = self.syn else {
            return (Space::default(), 0);
        };
        let clock = self.realm.initial_seq(reply);
        let initial = past.next.map_or(clock, |next| tcp::seq_after(next, clock));
        let space = Space {
            delta: initial.wrapping_sub(seq),
            first: seq.wrapping_add(1),
            header: self.header(),
        };
        let ts = value.map_or(0, |value| {
            tcp::timestamp(self.realm.key(), &reply.dst, time::now_ns()).wrapping_sub(value)
        });
        (space, ts)
    }
}

/// The sequence number of a TCP packet that is a SYN, and its timestamp if it has one.
#[inline(never)]
fn numbers(skb: &Skb<'_>, flow: &Tuple) -> Option<(u32, Option<u32>)> {
    if flow.proto != IPPROTO_TCP {
        return None;
    }
    let iph = if flow.v6 {
        packet::parse_v6(skb, 0)
    } else {
        packet::parse_v4(skb, 0)
    }?;
    let fixed: [u8; 20] = skb.read(iph.l4)?;
    let th = Tcp::new(&fixed);
    if th.flags().0 & (Flags::SYN | Flags::ACK) != Flags::SYN {
        return None;
    }
    let (header, len) = header(skb, iph.l4, th.header_len())?;
    Some((th.seq(), tcp::timestamp_value(header.get(..len)?)))
}

/// A TCP header of `len` bytes at `at`.
pub(super) fn header(skb: &Skb<'_>, at: usize, len: usize) -> Option<([u8; MAX_HEADER], usize)> {
    let mut header = [0; MAX_HEADER];
    let words = header.get_mut(..len)?.chunks_exact_mut(4);
    for (n, word) in words.enumerate() {
        let bytes: [u8; 4] = skb.read(at.wrapping_add(n.wrapping_mul(4)))?;
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = from;
        }
    }
    Some((header, len))
}

/// Deals with a packet that has not been routed yet and goes to a local address: a reply, an ICMP error, or none of ours.
#[inline(never)]
pub(super) fn arrived<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
    facts: Facts,
) -> Verdict<'a> {
    let Some(conns) = ctx.netns.conns() else {
        return Verdict::Accept(skb);
    };
    let Some(tuple) = iph.tuple::<V6>(&skb) else {
        return Verdict::Accept(skb);
    };
    match conns.find_reply(&tuple, ctx.g) {
        Some(conn) if conn.is_fullnat() => reply::<V6>(ctx, conns, skb, iph, conn, facts),
        _ => Verdict::Accept(skb),
    }
}

/// The way of a packet from the virtual address to the client, which the packet takes.
pub(super) fn way_back(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    conn: Ref<'_, Conn>,
    v6: bool,
) -> Option<u32> {
    let (from, to) = (conn.vaddr(), conn.caddr());
    let route = Route::from(ctx.net, v6, &from.0, &to.0, skb.mark())?;
    let mtu = route.mtu();
    skb.set_route(&Found::Own(route));
    Some(mtu)
}

/// Deals with a reply: virtual address and port become its source, the client its destination, and it is sent.
#[inline(never)]
pub(super) fn reply<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    let passes = way_back(ctx, &mut skb, conn, V6).is_some_and(|mtu| {
        // What is sent by this host itself is not forwarded.
        let forwarded = ctx.point != Point::LocalOut;
        may_pass::<V6>(ctx, &mut skb, iph, mtu, forwarded)
            && rewrite_reply::<V6>(&mut skb, iph, conn, facts, forwarded)
    });
    if !passes {
        skb.free();
        return Verdict::Stolen;
    }
    output::account(ctx, &skb, conn);
    state::advance(ctx.netns, conns, &skb, iph, conn, true);
    skb.set_seen();
    skb.notrack();
    skb.orphan();
    skb.send(ctx.net, V6);
    Verdict::Stolen
}

/// Whether a reply's time is not up and it is short enough; tells the real server if not.
fn may_pass<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    mtu: u32,
    forwarded: bool,
) -> bool {
    if forwarded
        && skb
            .read::<1>(if V6 { 7 } else { 8 })
            .is_none_or(|[ttl]| ttl <= 1)
    {
        skb.ttl_exceeded(ctx.net, V6);
        return false;
    }
    if !skb.exceeds(mtu, V6) {
        return true;
    }
    if V6 {
        if !iph.later_fragment {
            skb.icmpv6_error(ctx.net, icmpv6::PKT_TOOBIG, 0, mtu);
        }
        return false;
    }
    if iph.df {
        skb.icmp_error(icmp::DEST_UNREACH, icmp::FRAG_NEEDED, mtu);
    }
    !iph.df
}

fn rewrite_reply<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
    age: bool,
) -> bool {
    let Some(full) = conn.get().fullnat() else {
        return false;
    };
    let to = rewrite::Both {
        src: rewrite::To {
            addr: conn.vaddr(),
            port: conn.vport(),
        },
        dst: rewrite::To {
            addr: conn.caddr(),
            port: conn.cport(),
        },
    };
    let mut less_mss = 0;
    if full.carry != Carry::Nothing {
        let family = if V6 { Family::V6 } else { Family::V4 };
        less_mss = option_room(full.carry, family);
        if !full.is_told() {
            carry::learn(skb, iph, full);
        }
    }
    let how = Translate::Reply {
        space: full.space,
        ts: full.ts,
        less_mss,
    };
    rewrite::both::<V6>(skb, iph, &to, &how, facts, age)
}

/// Rewrites a packet of the client and sends it to the real server, or lets it go on if that is this host.
#[inline(never)]
pub(super) fn send<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    let Some(full) = conn.get().fullnat() else {
        skb.free();
        return Verdict::Stolen;
    };
    let addr = conn.daddr();
    let Some(way) = route::find::<V6>(ctx, &mut skb, iph, conn, &addr, facts, route::NAT) else {
        skb.free();
        return Verdict::Stolen;
    };
    if iph.proto == IPPROTO_TCP && !iph.later_fragment {
        note(&skb, iph, full);
    }
    if full.carry != Carry::Nothing {
        return send_carrying::<V6>(ctx, skb, iph, conn, full, way);
    }
    if !rewrite_request::<V6>(&mut skb, iph, conn, full, facts, !way.local()) {
        skb.free();
        return Verdict::Stolen;
    }
    // A socket that was guessed from the addresses before is another's.
    skb.orphan();
    xmit::finish::<V6>(ctx, skb, conn, way)
}

/// Sends a packet of a client whose address the real server is to learn.
#[inline(never)]
fn send_carrying<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    mut skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    full: &FullNat,
    way: route::Way<'_>,
) -> Verdict<'a> {
    let mtu = match &way {
        route::Way::Here => u32::from(u16::MAX),
        route::Way::There(found) => found.mtu(),
    };
    let prepared = carry::prepare::<V6>(&mut skb, iph, conn, full, mtu);
    // Its checksum may be another kind now.
    let facts = skb.facts();
    if matches!(prepared, Prepared::Lost)
        || !rewrite_request::<V6>(&mut skb, iph, conn, full, facts, !way.local())
    {
        skb.free();
        return Verdict::Stolen;
    }
    if let Prepared::Behind(header) = prepared {
        if carry::go_ahead::<V6>(ctx, &skb, iph, conn, full, &header) != Some(true) {
            skb.free();
            return Verdict::Stolen;
        }
    }
    skb.orphan();
    xmit::finish::<V6>(ctx, skb, conn, way)
}

#[inline(always)]
fn rewrite_request<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    full: &FullNat,
    facts: Facts,
    age: bool,
) -> bool {
    let to = rewrite::Both {
        src: rewrite::To {
            addr: *full.addr(),
            port: full.port(),
        },
        dst: rewrite::To {
            addr: conn.daddr(),
            port: conn.dport(),
        },
    };
    let how = Translate::Request {
        space: full.space,
        ts: full.ts,
    };
    rewrite::both::<V6>(skb, iph, &to, &how, facts, age)
}

/// Notes what both ends expect next, for a reset and for the next connection on the same ports. Not what a reset of the client
/// says: nobody need believe it.
#[inline(always)]
fn note(skb: &Skb<'_>, iph: &Iph, full: &FullNat) {
    let Some(fixed) = skb.read::<20>(iph.l4) else {
        return;
    };
    let th = Tcp::new(&fixed);
    let headers = iph.l4.wrapping_add(th.header_len());
    let payload = (skb.len() as usize).saturating_sub(headers) as u32;
    let flags = th.flags().0;
    if flags & Flags::RST != 0 {
        return;
    }
    let ends = u32::from(flags & Flags::SYN != 0).wrapping_add(u32::from(flags & Flags::FIN != 0));
    let next = th.seq().wrapping_add(payload).wrapping_add(ends);
    full.next_seq.store(full.space.to_server(next));
    if flags & Flags::ACK != 0 {
        full.next_ack.store(th.ack_seq());
    }
}
