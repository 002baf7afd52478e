// SPDX-License-Identifier: GPL-2.0-only

//! What a packet does to its connection's state and lifetime: C `ip_vs_set_state()`.

use super::packet::Iph;
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
        tcp,
        udp,
        Direction,
        IPPROTO_TCP, //
    },
    uapi::conn_flag, //
};

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
    if conn.proto() != IPPROTO_TCP {
        if reply {
            conn.assure_template();
        }
        conns.refresh(conn, netns.timeouts.udp(udp::State::NORMAL));
        return;
    }
    let old = conn.state();
    let mut state = old;
    // A later fragment has no flags to read.
    if !iph.later_fragment {
        if let Some([flags]) = skb.read::<1>(iph.l4.wrapping_add(TCP_FLAGS)) {
            let conn_flags = conn.flags();
            let no_output = conn_flags & conn_flag::NOOUTPUT != 0;
            let dir = match (reply, no_output) {
                (true, _) => Direction::Output,
                (false, true) => Direction::InputOnly,
                (false, false) => Direction::Input,
            };
            state = tcp::transition(netns.defense.tcp_table(), dir, old, flags);
            let drop_flags = if reply && no_output {
                conn_flag::NOOUTPUT
            } else {
                0
            };
            if state != old || drop_flags != 0 {
                conn.enter(state, drop_flags);
                if state != old && state == tcp::State::ESTABLISHED {
                    conn.assure_template();
                }
            }
        }
    }
    conns.refresh(conn, netns.timeouts.tcp(state));
}
