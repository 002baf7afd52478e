// SPDX-License-Identifier: GPL-2.0-only

//! What a packet does to its connection's state and lifetime: C `ip_vs_set_state()`.

use super::packet::{
    Bytes,
    Iph, //
};
use crate::{
    conn::{
        Conn,
        ConnTable, //
    },
    netns::Netns,
    os::{
        skb::Skb,
        table::Ref, //
    },
};
use rvs_core::{
    proto::{
        sctp,
        tcp,
        udp,
        Direction,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    uapi::conn_flag, //
};

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Where TCP's flags are in its header.
const TCP_FLAGS: usize = 13;

/// Moves the state on and puts the end of the connection off.
///
/// `reply` tells the direction. A request of a connection whose replies don't come by here is a direction of its own.
#[inline(always)]
pub(super) fn advance(
    netns: &Netns,
    conns: &ConnTable,
    skb: &Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    reply: bool,
) {
    if iph.proto != IPPROTO_TCP {
        return others(netns, conns, skb, iph, conn, reply);
    }
    let old = conn.state();
    let mut state = old;
    // A later fragment has no flags to read. Without the whole header C does not look at them, either.
    if !iph.later_fragment && skb.len() as usize >= iph.l4.wrapping_add(TCP_HEADER) {
        if let Some([flags]) = skb.read::<1>(iph.l4.wrapping_add(TCP_FLAGS)) {
            let (dir, drop_flags) = direction(conn, reply);
            state = tcp::transition(netns.defense.tcp_table(), dir, old, flags);
            if state != old || drop_flags != 0 {
                conn.enter(state, drop_flags, &netns.events);
                if state != old && state == tcp::State::ESTABLISHED {
                    conn.assure_template(&netns.events);
                }
            }
        }
    }
    conns.refresh(conn, netns.timeouts.tcp(state));
}

/// The protocols but TCP.
#[inline(always)]
fn others(
    netns: &Netns,
    conns: &ConnTable,
    skb: &Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    reply: bool,
) {
    match iph.proto {
        IPPROTO_UDP => {
            if reply {
                conn.assure_template(&netns.events);
            }
            conns.refresh(conn, netns.timeouts.udp(udp::State::NORMAL));
        }
        IPPROTO_SCTP => {
            let state = sctp_state(netns, skb, iph, conn, reply);
            conns.refresh(conn, netns.timeouts.sctp(state));
        }
        // AH and ESP have no states of their own.
        _ => conns.renew(conn),
    }
}

/// Moves an SCTP association's state on: C `set_sctp_state()`.
#[inline(never)]
fn sctp_state(netns: &Netns, skb: &Skb<'_>, iph: &Iph, conn: Ref<'_, Conn>, reply: bool) -> u8 {
    let old = conn.state();
    if iph.later_fragment {
        return old;
    }
    let Some(event) = sctp::event(&Bytes(skb), iph.l4) else {
        return old;
    };
    let (dir, drop_flags) = direction(conn, reply);
    let state = sctp::transition(dir, old, event);
    if state != old || drop_flags != 0 {
        conn.enter(state, drop_flags, &netns.events);
        if state != old && state == sctp::State::ESTABLISHED {
            conn.assure_template(&netns.events);
        }
    }
    state
}

/// The direction that a packet counts as, and the flags that it ends.
#[inline(always)]
fn direction(conn: Ref<'_, Conn>, reply: bool) -> (Direction, u32) {
    match (reply, conn.flags() & conn_flag::NOOUTPUT) {
        (true, no_output) => (Direction::Output, no_output),
        (false, 0) => (Direction::Input, 0),
        (false, _) => (Direction::InputOnly, 0),
    }
}
