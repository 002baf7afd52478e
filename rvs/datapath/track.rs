// SPDX-License-Identifier: GPL-2.0-only

//! Netfilter's connection tracking: what becomes of a packet's entry. C: `ip_vs_notrack()` and `ip_vs_nfct.c`.
//!
//! A packet of an ordinary connection goes on untracked. With the sysctl `conntrack` a connection is tracked: its packets keep
//! their entries, and where addresses are rewritten a new entry learns what replies will look like.

use crate::{
    conn::Conn,
    os::{
        skb::Skb,
        table::Ref, //
    }, //
};
use rvs_core::uapi::FwdMethod;

/// For a packet that goes on as it is, to the real server or from it.
#[inline(always)]
pub(super) fn unchanged(skb: &mut Skb<'_>, conn: Ref<'_, Conn>) {
    if !conn.is_tracked() {
        skb.untrack();
    }
}

/// For a packet whose destination became the real server: replies will come from there.
#[inline(always)]
pub(super) fn request(skb: &mut Skb<'_>, conn: Ref<'_, Conn>) {
    if conn.is_tracked() {
        return alter(skb, conn, true);
    }
    skb.untrack();
}

/// For a packet to the client: if it is the first of its flow, what answers it will be for the virtual service.
#[inline(always)]
pub(super) fn reply(skb: &mut Skb<'_>, conn: Ref<'_, Conn>) {
    if conn.is_tracked() {
        return alter(skb, conn, false);
    }
    skb.untrack();
}

/// C `ip_vs_update_conntrack()`.
#[cold]
#[inline(never)]
fn alter(skb: &mut Skb<'_>, conn: Ref<'_, Conn>, request: bool) {
    // Nothing answers a connection of one packet, and nothing is rewritten by the other methods.
    if conn.method() != FwdMethod::Masq as u32 || conn.is_one_packet() {
        return;
    }
    // A helper may change how long payload is.
    let shifts = conn.has_app();
    if request {
        skb.alter_reply(true, &conn.daddr().0, conn.dport(), shifts);
    } else {
        skb.alter_reply(false, &conn.vaddr().0, conn.vport(), shifts);
    }
}
