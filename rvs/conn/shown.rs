// SPDX-License-Identifier: GPL-2.0-only

//! A connection as it is shown: a copy that outlives it.

use super::{
    account::Counts,
    Conn, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    proto,
    uapi::conn_flag, //
};

/// What is shown of a connection, as it was at one time. Addresses and ports are in memory order.
pub(crate) struct Shown {
    /// The family of client and virtual address.
    pub(crate) family: Family,
    /// That of the real server's address.
    pub(crate) dest_family: Family,
    pub(crate) proto: u8,
    pub(crate) state: u8,
    pub(crate) is_template: bool,
    pub(crate) cport: Be16,
    pub(crate) vport: Be16,
    /// See [`Conn::shown_dport()`].
    pub(crate) dport: Be16,
    pub(crate) caddr: Addr,
    pub(crate) vaddr: Addr,
    pub(crate) daddr: Addr,
    /// `IP_VS_CONN_F_*`.
    pub(crate) flags: u32,
    /// What a packet gives, in jiffies.
    pub(crate) timeout: u32,
    pub(crate) fwmark: u32,
    /// Mark and port of the service, if there is one.
    pub(crate) service: Option<(u32, Be16)>,
    /// What it counted, if it did.
    pub(crate) counts: Option<Counts>,
}

impl Shown {
    /// A connection as it is now.
    pub(crate) fn of(conn: &Conn) -> Self {
        // A tunnel's real server may be of the other family: then only the destination has its address.
        let (dest_family, daddr) = match conn.dest() {
            Some(dest) => (dest.family(), *dest.addr()),
            None => (conn.family(), conn.daddr()),
        };
        Self {
            family: conn.family(),
            dest_family,
            proto: conn.proto(),
            state: conn.state(),
            is_template: conn.is_template(),
            cport: conn.cport(),
            vport: conn.vport(),
            dport: conn.shown_dport(),
            caddr: conn.caddr(),
            vaddr: conn.vaddr(),
            daddr,
            flags: conn.flags() | conn_flag::HASHED,
            timeout: conn.timeout(),
            fwmark: conn.fwmark(),
            service: conn.dest().map(|dest| {
                let id = dest.service().id();
                (id.fwmark, id.port)
            }),
            counts: conn.account.as_ref().map(|account| account.read()),
        }
    }

    /// The name of its state.
    pub(crate) fn state_name(&self) -> &'static str {
        proto::state_name(self.proto, self.is_template, self.state)
    }
}
