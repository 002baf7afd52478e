// SPDX-License-Identifier: GPL-2.0-only

//! Packets from the client: C `ip_vs_in_hook()`, `ip_vs_schedule()`, `ip_vs_leave()`.

use super::{
    ftp,
    fullnat,
    hooks::Ctx,
    output,
    packet::Iph,
    state,
    xmit, //
};
use crate::{
    conn::{
        Conn,
        ConnTable,
        Created,
        NoConn,
        Param,
        Tuple, //
    },
    dest::Dest,
    os::{
        self,
        log,
        netfilter::Verdict,
        skb::{
            Facts,
            Skb, //
        },
        table::{
            Ref,
            Unlisted, //
        }, //
    },
    service::{
        self,
        Flow,
        Service, //
    },
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family,
        V6Type, //
    },
    proto::{
        has_ports,
        schedule_len,
        sctp,
        tcp,
        IPPROTO_IP,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    uapi::{
        conn_flag,
        svc_flag,
        FwdMethod, //
    }, //
};

/// FTP's control and data ports, memory order.
const FTP: Be16 = 21u16.to_be();
const FTP_DATA: Be16 = 20u16.to_be();

/// Deals with a packet of a known connection, which it may turn out to begin anew.
#[inline(always)]
pub(super) fn packet<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    if iph.proto != IPPROTO_UDP && begins_anew(ctx, &skb, iph, conn) {
        return give_up(ctx, conns, skb, conn);
    }
    if let Some(dest) = conn.get().dest() {
        if !dest.available() {
            if !ctx.netns.sysctl.expire_nodest_conn() {
                return Verdict::Drop(skb);
            }
            return give_up(ctx, conns, skb, conn);
        }
    }
    forward::<V6>(ctx, conns, skb, iph, conn, facts)
}

/// Deals with a packet of no connection while there are connections that wait for their first one.
#[cold]
#[inline(never)]
pub(super) fn first<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    tuple: &Tuple,
    facts: Facts,
) -> Verdict<'a> {
    match ftp::meet(ctx, conns, tuple) {
        ftp::Met::Conn(conn) => packet::<V6>(ctx, conns, skb, iph, conn, facts),
        ftp::Met::Nobody => output::unknown::<V6>(ctx, skb, iph, tuple),
        ftp::Met::Lost => Verdict::Drop(skb),
    }
}

/// Ends the connection that a packet matches, so that the next hook schedules it; but a packet of an entry that netfilter
/// can't direct elsewhere any more has to come again when that is gone.
#[cold]
#[inline(never)]
fn give_up<'a>(ctx: &Ctx<'_>, conns: &ConnTable, skb: Skb<'a>, conn: Ref<'_, Conn>) -> Verdict<'a> {
    let old_track = skb.is_of_old_track();
    if !old_track {
        conn.forget_track();
    }
    if !conn.has_children() {
        conns.end(conn, ctx.g);
    }
    if old_track {
        return Verdict::Drop(skb);
    }
    Verdict::Accept(skb)
}

/// Whether a packet begins a new connection in place of the one it matches: a SYN on one that is over
/// (`conn_reuse_mode`), or on one whose server takes no more (`expire_nodest_conn`).
#[inline(always)]
fn begins_anew(ctx: &Ctx<'_>, skb: &Skb<'_>, iph: &Iph, conn: Ref<'_, Conn>) -> bool {
    if iph.later_fragment {
        return false;
    }
    // C reads the whole header; without one this is no new connection.
    if iph.proto == IPPROTO_TCP {
        return match skb.read::<20>(iph.l4) {
            Some(th) if th[13] & tcp::Flags::SYN != 0 => reschedules(ctx, skb, conn),
            _ => false,
        };
    }
    iph.proto == IPPROTO_SCTP && first_chunk(skb, iph) == Some(sctp::ChunkType::INIT) && {
        reschedules(ctx, skb, conn)
    }
}

/// The type of an SCTP packet's first chunk.
#[inline(never)]
pub(super) fn first_chunk(skb: &Skb<'_>, iph: &Iph) -> Option<u8> {
    const LEN: usize = schedule_len(IPPROTO_SCTP);
    skb.read::<LEN>(iph.l4).map(|header| header[LEN - 4])
}

#[cold]
fn reschedules(ctx: &Ctx<'_>, skb: &Skb<'_>, conn: Ref<'_, Conn>) -> bool {
    if ctx.netns.sysctl.expire_nodest_conn()
        && conn.get().dest().is_some_and(|dest| dest.weight() == 0)
    {
        return true;
    }
    // A connection of a template stays what it is.
    if conn.get().is_controlled() {
        return false;
    }
    let mode = ctx.netns.sysctl.conn_reuse_mode();
    // What belongs to another connection or a template stays where that is.
    if mode == 0 || conn.has_control() {
        return false;
    }
    let is_over = if conn.proto() == IPPROTO_SCTP {
        sctp::expects_new_conn(conn.state())
    } else {
        let no_output = conn.flags() & conn_flag::NOOUTPUT != 0;
        tcp::expects_new_conn(conn.state(), mode, no_output)
    };
    // One that others need is not given up while netfilter's entry leads to its server.
    is_over && !(conn.has_children() && skb.is_of_old_track())
}

/// Counts a packet, moves the connection's state and sends the packet to the real server.
#[inline(always)]
fn forward<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    facts: Facts,
) -> Verdict<'a> {
    account(ctx, &skb, conn);
    state::advance(ctx.netns, conns, &skb, iph, conn, false);
    if ctx.netns.is_master() {
        ctx.netns.sender.packet(conn.get(), ctx.g);
    } else {
        conn.count_packet();
    }
    xmit::send::<V6>(ctx, skb, iph, conn, facts)
}

/// Counts a packet from the client.
#[inline(always)]
pub(super) fn account(ctx: &Ctx<'_>, skb: &Skb<'_>, conn: Ref<'_, Conn>) {
    if let Some(dest) = conn.get().dest() {
        if dest.available() {
            ctx.counters(dest).packet_in(skb.len(), ctx.g);
            conn.account_in(skb.len());
        }
    }
}

/// Why a packet was not scheduled.
enum Left {
    /// It is none of ours, or not to be scheduled: it goes on.
    Ignore,
    /// There is no destination for it.
    NoDest,
    /// It is lost.
    Drop,
}

impl From<NoConn> for Left {
    fn from(why: NoConn) -> Self {
        match why {
            NoConn::Limit | NoConn::Memory | NoConn::Removed => Left::Drop,
            // The client is told.
            NoConn::Exhausted => Left::NoDest,
        }
    }
}

/// Deals with a packet of no connection: finds its service, a destination, and makes the connection.
#[inline(always)]
pub(super) fn schedule<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    skb: Skb<'a>,
    iph: &Iph,
    facts: Facts,
) -> Verdict<'a> {
    // AH and ESP follow the connection that agreed on keys, or nothing.
    if iph.later_fragment || !has_ports(iph.proto) {
        return Verdict::Accept(skb);
    }
    // A header that is not all there is dropped, whatever service it might be for, as in C.
    let ok = match iph.proto {
        IPPROTO_TCP => match skb.read::<20>(iph.l4) {
            Some(th) => {
                if !tcp::Flags(th[13]).may_schedule(ctx.netns.sysctl.sloppy_tcp()) {
                    return Verdict::Accept(skb);
                }
                true
            }
            None => false,
        },
        IPPROTO_UDP => {
            const LEN: usize = schedule_len(IPPROTO_UDP);
            skb.read::<LEN>(iph.l4).is_some()
        }
        _ => match first_chunk(&skb, iph) {
            Some(kind) => {
                if !sctp::may_schedule(kind, ctx.netns.sysctl.sloppy_sctp()) {
                    return Verdict::Accept(skb);
                }
                true
            }
            None => false,
        },
    };
    let Some(tuple) = iph.tuple::<V6>(&skb).filter(|_| ok) else {
        return Verdict::Drop(skb);
    };
    let Some(service) = lookup::<V6>(ctx, &skb, &tuple) else {
        return Verdict::Accept(skb);
    };
    let Some(conns) = ctx.netns.conns() else {
        return Verdict::Accept(skb);
    };
    if ctx.netns.defense.drops_packet() {
        return Verdict::Drop(skb);
    }
    match begin(ctx, conns, service, &skb, &tuple, facts) {
        Ok(Created::New(conn) | Created::Exists(conn)) => {
            forward::<V6>(ctx, conns, skb, iph, conn, facts)
        }
        Ok(Created::Once(once)) => forward_once::<V6>(ctx, conns, skb, iph, &once, facts),
        Err(Left::Ignore) => Verdict::Accept(skb),
        Err(Left::NoDest) => leave::<V6>(ctx, conns, skb, iph, service, &tuple, facts),
        Err(Left::Drop) => Verdict::Drop(skb),
    }
}

/// The service of a flow.
#[inline(always)]
fn lookup<'g, const V6: bool>(
    ctx: &Ctx<'g>,
    skb: &Skb<'_>,
    tuple: &Tuple,
) -> Option<&'g Arc<Service>> {
    let wanted = service::Id {
        family: if V6 { Family::V6 } else { Family::V4 },
        fwmark: skb.mark(),
        protocol: tuple.proto.into(),
        addr: tuple.dst,
        port: tuple.dport,
    };
    ctx.netns.services.lookup(ctx.net, wanted, ctx.g)
}

/// What becomes of an ICMP error about a packet of no connection.
pub(super) enum Embedded<'g> {
    /// This is its connection now.
    Begun(Created<'g>),
    /// It goes on.
    Accept,
    /// It is lost.
    Drop,
}

/// Makes the connection of a packet that an ICMP error embeds, seen backwards: sysctl `schedule_icmp`.
#[cold]
#[inline(never)]
pub(super) fn schedule_embedded<'g, const V6: bool>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    skb: &Skb<'_>,
    proto: u8,
    tuple: &Tuple,
) -> Embedded<'g> {
    // AH and ESP follow others only.
    if !has_ports(proto) {
        return Embedded::Accept;
    }
    let Some(service) = lookup::<V6>(ctx, skb, tuple) else {
        return Embedded::Accept;
    };
    if ctx.netns.defense.drops_packet() {
        return Embedded::Drop;
    }
    match begin(ctx, conns, service, skb, tuple, skb.facts()) {
        Ok(created) => Embedded::Begun(created),
        Err(Left::Ignore) => Embedded::Accept,
        // As `leave()` has it: nobody is told of an error about an error.
        Err(Left::NoDest) if service.id().port == FTP && tuple.dport != FTP => Embedded::Accept,
        Err(Left::NoDest | Left::Drop) => Embedded::Drop,
    }
}

/// Sends the only packet of a connection.
#[inline(never)]
fn forward_once<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    once: &Unlisted<Conn>,
    facts: Facts,
) -> Verdict<'a> {
    forward::<V6>(ctx, conns, skb, iph, once.entry(), facts)
}

/// Chooses a destination and makes the connection: C `ip_vs_schedule()`.
#[inline(never)]
fn begin<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    service: &'g Service,
    skb: &Skb<'_>,
    tuple: &Tuple,
    facts: Facts,
) -> Result<Created<'g>, Left> {
    // FTP's data connections are made by the control connection, not scheduled.
    if tuple.sport == FTP_DATA {
        return Err(Left::Ignore);
    }
    // Replies of a real server on this host are not new connections.
    if (facts.no_dev() || facts.loopback())
        && conns.find_request(&tuple.reversed(), ctx.g).is_some()
    {
        return Err(Left::Ignore);
    }
    if service.flags() & svc_flag::PERSISTENT != 0 {
        return persist(ctx, conns, service, skb, tuple);
    }
    if service.id().fwmark == 0 && tuple.dport != service.id().port {
        if service.id().port == 0 && log::may_log() {
            pr_err!("Schedule: port zero only supported in persistent services, check your ipvs configuration\n");
        }
        return Err(Left::NoDest);
    }
    let flow = Flow {
        tuple,
        sysctl: &ctx.netns.sysctl,
    };
    let dest = service.schedule(&flow, ctx.g).ok_or(Left::NoDest)?;
    let dport = if dest.port() != 0 {
        dest.port()
    } else {
        tuple.dport
    };
    connect(ctx, conns, service, skb, tuple, dest, dport, None)
}

/// Makes the connection of a packet to a destination and counts it.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined into its two callers")]
fn connect<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    service: &Service,
    skb: &Skb<'_>,
    tuple: &Tuple,
    dest: &Arc<Dest>,
    dport: Be16,
    control: Option<Ref<'g, Conn>>,
) -> Result<Created<'g>, Left> {
    let once = tuple.proto == IPPROTO_UDP && service.flags() & svc_flag::ONEPACKET != 0;
    let param = Param {
        flow: tuple,
        daddr: *dest.addr(),
        dport,
        dest: Some(dest),
        fwmark: skb.mark(),
        flags: ctx.netns.sysctl.conn_flags() | if once { conn_flag::ONE_PACKET } else { 0 },
        control,
        timeout: None,
    };
    let created = if service.fullnat.covers(dest, ctx.g) {
        fullnat::connect(ctx, conns, service, skb, &param)?
    } else {
        create(ctx, conns, &param)?
    };
    if !matches!(created, Created::Exists(_)) {
        ctx.counters(dest).conn(ctx.g);
    }
    if conns.is_crowded() {
        ctx.netns.needs_fitting();
    }
    Ok(created)
}

#[inline(always)]
fn create<'g>(ctx: &Ctx<'g>, conns: &'g ConnTable, param: &Param<'_>) -> Result<Created<'g>, Left> {
    let max = i64::from(ctx.netns.sysctl.conn_max());
    Ok(conns.create(param, max, ctx.g)?)
}

/// Makes a connection to the destination that the client's network is bound to by a template, which it makes if there is
/// none: C `ip_vs_sched_persist()`.
#[inline(never)]
fn persist<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    service: &'g Service,
    skb: &Skb<'_>,
    tuple: &Tuple,
) -> Result<Created<'g>, Left> {
    let id = service.id();
    let own_port = tuple.dport == id.port;
    let mut key = Tuple {
        src: tuple.src.masked(id.family, service.netmask()),
        sport: 0,
        dport: 0,
        template: true,
        ..*tuple
    };
    if own_port {
        // A client's data connections go where its FTP control connection goes.
        if id.port != FTP {
            key.dport = tuple.dport;
        }
    } else if id.fwmark != 0 {
        key.proto = IPPROTO_IP;
        key.dst = Addr::v4(id.fwmark.to_be());
    }
    let expire_quiescent = ctx.netns.sysctl.expire_quiescent_template();
    let found = conns.find_template(&key, ctx.g);
    let template = match found.filter(|template| template.check_template(expire_quiescent)) {
        Some(template) => template,
        None => {
            let flow = Flow {
                tuple,
                sysctl: &ctx.netns.sysctl,
            };
            let dest = service.schedule(&flow, ctx.g).ok_or(Left::NoDest)?;
            let created = create(
                ctx,
                conns,
                &Param {
                    flow: &key,
                    daddr: *dest.addr(),
                    dport: if own_port && id.port != FTP {
                        dest.port()
                    } else {
                        0
                    },
                    dest: Some(dest),
                    fwmark: skb.mark(),
                    flags: 0,
                    control: None,
                    timeout: Some(service.timeout()),
                },
            )?;
            match created {
                Created::New(template) | Created::Exists(template) => template,
                Created::Once(_) => return Err(Left::Drop),
            }
        }
    };
    let dest = template.get().dest().ok_or(Left::NoDest)?;
    let dport = if own_port && dest.port() != 0 {
        dest.port()
    } else {
        tuple.dport
    };
    let created = connect(ctx, conns, service, skb, tuple, dest, dport, Some(template));
    conns.renew(template);
    created
}

/// Deals with a packet of a service that has no destination for it: C `ip_vs_leave()`.
#[cold]
#[inline(never)]
fn leave<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    mut skb: Skb<'a>,
    iph: &Iph,
    service: &Service,
    tuple: &Tuple,
    facts: Facts,
) -> Verdict<'a> {
    if service.id().fwmark != 0 && ctx.netns.sysctl.cache_bypass() && is_unicast(ctx, tuple) {
        return bypass::<V6>(ctx, conns, skb, iph, service, tuple, facts);
    }
    // An FTP service also attracts packets to other ports, for its data connections.
    if service.id().port == FTP && tuple.dport != FTP {
        return Verdict::Accept(skb);
    }
    output::port_unreachable::<V6>(ctx, &mut skb);
    Verdict::Drop(skb)
}

fn is_unicast(ctx: &Ctx<'_>, tuple: &Tuple) -> bool {
    if tuple.v6 {
        tuple.dst.v6_type().is(V6Type::UNICAST)
    } else {
        os::route::is_unicast_v4(ctx.net, tuple.dst.v4_be())
    }
}

/// Sends a packet to where it is addressed, past the caches that a service by mark stands for, and so the rest of its
/// connection: sysctl `cache_bypass`.
#[inline(never)]
fn bypass<'a, const V6: bool>(
    ctx: &Ctx<'_>,
    conns: &ConnTable,
    skb: Skb<'a>,
    iph: &Iph,
    service: &Service,
    tuple: &Tuple,
    facts: Facts,
) -> Verdict<'a> {
    let once = tuple.proto == IPPROTO_UDP && service.flags() & svc_flag::ONEPACKET != 0;
    let param = Param {
        flow: tuple,
        daddr: Addr::ZERO,
        dport: 0,
        dest: None,
        fwmark: skb.mark(),
        flags: FwdMethod::Bypass.flags()
            | ctx.netns.sysctl.conn_flags()
            | if once { conn_flag::ONE_PACKET } else { 0 },
        control: None,
        timeout: None,
    };
    match create(ctx, conns, &param) {
        Ok(Created::New(conn) | Created::Exists(conn)) => {
            forward::<V6>(ctx, conns, skb, iph, conn, facts)
        }
        Ok(Created::Once(once)) => forward_once::<V6>(ctx, conns, skb, iph, &once, facts),
        Err(_) => Verdict::Drop(skb),
    }
}
