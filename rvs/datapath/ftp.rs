// SPDX-License-Identifier: GPL-2.0-only

//! FTP control connections, and the data connections that they agree on: C `ip_vs_ftp.c`. What is said there is read and written
//! by `rvs_core::ftp`.
//!
//! Nothing here is inlined: other connections pay one branch.

use super::{
    hooks::Ctx,
    packet::Iph, //
};
use crate::{
    conn::{
        Conn,
        ConnTable,
        Created,
        Param,
        Tuple, //
    },
    os::{
        conntrack::{
            self,
            Expected, //
        },
        rcu::Held,
        skb::{
            Facts,
            Skb, //
        },
        table::Ref, //
    }, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    ftp::{
        self,
        Endpoint,
        Mode,
        Request,
        Text, //
    },
    proto::{
        tcp,
        IPPROTO_TCP, //
    },
    uapi::{
        conn_flag,
        FwdMethod, //
    }, //
};

/// What becomes of a packet.
type Outcome = core::result::Result<(), Lost>;

/// The packet is dropped.
struct Lost;

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;

/// Reads what the client says, before the packet goes to the real server. Returns what is known of the packet now; `None`: it is
/// lost. C: `ip_vs_ftp_in()`.
#[cold]
#[inline(never)]
pub(super) fn request<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
) -> Option<Facts> {
    let family = if V6 { Family::V6 } else { Family::V4 };
    if let Some(payload) = payload(skb, iph, family, conn).ok()? {
        let said = skb
            .head()
            .get(payload..)
            .and_then(|data| ftp::request(family, data));
        match said {
            None => {}
            Some(Request::Wait(mode)) => conn.set_app_mode(mode),
            Some(Request::Connect(at)) => {
                conn.set_app_mode(Mode::Active);
                expect_active(ctx, skb, conn, &at).ok()?;
            }
        }
    }
    Some(skb.facts())
}

/// Reads what the real server says, before the packet goes to the client, and writes where the client can connect to in place of
/// where the server waits. See [`request()`]. C: `ip_vs_ftp_out()`.
#[cold]
#[inline(never)]
pub(super) fn reply<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
) -> Option<Facts> {
    let family = if V6 { Family::V6 } else { Family::V4 };
    if let Some(payload) = payload(skb, iph, family, conn).ok()? {
        let mode = conn.app_mode();
        let said = skb
            .head()
            .get(payload..)
            .and_then(|data| ftp::reply(mode, family, &conn.daddr(), data));
        if let Some(said) = said {
            let waiting = expect_passive(ctx, skb, conn, &said.at).ok()?;
            let at = Endpoint {
                addr: waiting.vaddr(),
                port: waiting.vport(),
            };
            let text = Text::new(mode, &at);
            let tracked = skb.has_track();
            let range =
                payload.checked_add(said.range.start)?..payload.checked_add(said.range.end)?;
            if tracked && !rewrite(skb, iph, family, range, text.bytes()) {
                // The server will say it again.
                return None;
            }
            conn.set_app_mode(Mode::Active);
            if !tracked {
                return None;
            }
            skb.expect(
                IPPROTO_TCP,
                &waiting.caddr().0,
                &waiting.vaddr().0,
                waiting.vport(),
            );
        }
    }
    Some(skb.facts())
}

/// Where the payload of a packet of an established control connection begins, all of which is linear and private then; `None`
/// where nothing is to be read.
#[inline(never)]
fn payload(
    skb: &mut Skb<'_>,
    iph: &Iph,
    family: Family,
    conn: Ref<'_, Conn>,
) -> core::result::Result<Option<usize>, Lost> {
    if iph.later_fragment {
        return Ok(None);
    }
    // The checksum would cover up what is wrong now.
    if skb.writable(iph.l4.wrapping_add(TCP_HEADER)).is_none()
        || !skb.csum_ok(iph.l4 as u32, IPPROTO_TCP, family.af())
    {
        return Err(Lost);
    }
    if conn.state() != tcp::State::ESTABLISHED {
        return Ok(None);
    }
    let bytes = skb.writable(skb.len() as usize).ok_or(Lost)?;
    let words = bytes
        .get(iph.l4.wrapping_add(12))
        .map_or(0, |byte| byte >> 4);
    let header = usize::from(words).wrapping_mul(4);
    let start = iph.l4.wrapping_add(header);
    Ok((header >= TCP_HEADER && start < bytes.len()).then_some(start))
}

/// Puts `text` in the place of a range of a packet; numbers of others will follow. `false`: there is no memory.
fn rewrite(
    skb: &mut Skb<'_>,
    iph: &Iph,
    family: Family,
    range: core::ops::Range<usize>,
    text: &[u8],
) -> bool {
    let old = range.end.saturating_sub(range.start);
    if !skb.replace(family == Family::V6, iph.l4, range, text) {
        return false;
    }
    let by = (text.len() as i32).wrapping_sub(old as i32);
    if let (true, Some(seq)) = (by != 0, skb.read::<4>(iph.l4.wrapping_add(4))) {
        skb.shifted(u32::from_ne_bytes(seq), by);
    }
    true
}

/// The connection that a real server waits for, from a port of the client's that is not known yet: the one that is there, or a new
/// one.
fn expect_passive<'g>(
    ctx: &Ctx<'g>,
    skb: &Skb<'_>,
    conn: Ref<'g, Conn>,
    at: &Endpoint,
) -> core::result::Result<Ref<'g, Conn>, Lost> {
    let conns = ctx.netns.conns().ok_or(Lost)?;
    let caddr = conn.caddr();
    let from_server = tuple(conn, (at.addr, at.port), (caddr, 0));
    let found = conns.find_reply(&from_server, ctx.g);
    let waiting = match found {
        Some(known) => known,
        None => {
            let flow = tuple(conn, (caddr, 0), (conn.vaddr(), at.port));
            let flags = conn_flag::NO_CPORT | conn_flag::NFCT;
            begin(ctx, conns, skb, conn, &flow, (at.addr, at.port), flags)?
        }
    };
    listen(ctx, conns, waiting);
    Ok(waiting)
}

/// Gets ready for the connection of the real server to where the client waits.
fn expect_active(ctx: &Ctx<'_>, skb: &Skb<'_>, conn: Ref<'_, Conn>, at: &Endpoint) -> Outcome {
    let conns = ctx.netns.conns().ok_or(Lost)?;
    let flow = tuple(
        conn,
        (at.addr, at.port),
        (conn.vaddr(), before(conn.vport())),
    );
    let data = match conns.find_request(&flow, ctx.g) {
        Some(known) => known,
        None => {
            let server = (conn.daddr(), before(conn.dport()));
            begin(ctx, conns, skb, conn, &flow, server, conn_flag::NFCT)?
        }
    };
    listen(ctx, conns, data);
    Ok(())
}

/// The port before another one: that of data connections that servers begin.
fn before(port: Be16) -> Be16 {
    u16::from_be(port).wrapping_sub(1).to_be()
}

/// A flow of the same kind as that of a connection.
fn tuple(conn: Ref<'_, Conn>, (src, sport): (Addr, Be16), (dst, dport): (Addr, Be16)) -> Tuple {
    Tuple {
        src,
        dst,
        sport,
        dport,
        proto: conn.proto(),
        v6: conn.family() == Family::V6,
        template: false,
    }
}

/// Makes a data connection, which `control` controls.
#[inline(never)]
fn begin<'g>(
    ctx: &Ctx<'g>,
    conns: &'g ConnTable,
    skb: &Skb<'_>,
    control: Ref<'g, Conn>,
    flow: &Tuple,
    (daddr, dport): (Addr, Be16),
    flags: u32,
) -> core::result::Result<Ref<'g, Conn>, Lost> {
    let param = Param {
        flow,
        daddr,
        dport,
        dest: Some(control.get().dest().ok_or(Lost)?),
        fwmark: skb.mark(),
        flags,
        control: Some(control),
        timeout: None,
    };
    let max = i64::from(ctx.netns.sysctl.conn_max());
    let created = conns.create(&param, max, ctx.g).map_err(|_| Lost)?;
    if conns.is_crowded() {
        ctx.netns.needs_fitting();
    }
    match created {
        Created::New(conn) | Created::Exists(conn) => Ok(conn),
        Created::Once(_) => Err(Lost),
    }
}

/// C: `ip_vs_tcp_conn_listen()`.
fn listen(ctx: &Ctx<'_>, conns: &ConnTable, conn: Ref<'_, Conn>) {
    conn.enter(tcp::State::LISTEN, 0, &ctx.netns.events);
    conns.refresh(conn, ctx.netns.timeouts.tcp(tcp::State::LISTEN));
}

/// What waits for a request of no connection, if anything does.
pub(super) enum Met<'g> {
    /// Nothing.
    Nobody,
    /// This connection, whose client's port is known now.
    Conn(Ref<'g, Conn>),
    /// Something, but the packet is lost.
    Lost,
}

/// Meets the first request of a connection that waits for its client's port.
#[cold]
#[inline(never)]
pub(super) fn meet<'g>(ctx: &Ctx<'g>, conns: &'g ConnTable, tuple: &Tuple) -> Met<'g> {
    let Some(waiting) = conns.find_waiting(tuple, ctx.g) else {
        return Met::Nobody;
    };
    match conns.fill_client_port(waiting, tuple, ctx.g) {
        Some(conn) => Met::Conn(conn),
        None => Met::Lost,
    }
}

/// What replies to the first packet of an expected flow will be like: C `ip_vs_nfct_expect_callback()`.
pub(crate) fn expected(conns: &ConnTable, flow: &conntrack::Flow, g: &Held) -> Expected {
    let tuple = Tuple {
        src: Addr(flow.src),
        dst: Addr(flow.dst),
        sport: flow.sport,
        dport: flow.dport,
        proto: flow.proto,
        v6: flow.v6,
        template: false,
    };
    let is_nat = |conn: Ref<'_, Conn>| conn.method() == FwdMethod::Masq as u32;
    if let Some(conn) = conns.find_reply(&tuple, g) {
        if is_nat(conn) {
            return Expected::Reply(conn.vaddr().0, conn.vport());
        }
    } else if let Some(conn) = conns
        .find_request(&tuple, g)
        .or_else(|| conns.find_waiting(&tuple, g))
    {
        if is_nat(conn) {
            return Expected::Request(conn.daddr().0, conn.dport());
        }
    }
    Expected::Unknown
}
