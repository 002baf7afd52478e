// SPDX-License-Identifier: GPL-2.0-only

//! What a received record does to a backup's connections; C `ip_vs_proc_conn()`.
//!
//! The lookup is the caller's: a template by client, virtual service and persistence engine, any other as a packet from the client
//! would find it (also one without a client port). What was found or made gets the record's sequence data, if it has some, its state
//! (also as the state last announced, [`super::announce::Asked::old_state`]), its [`timeout()`], and as number of packets the sync
//! threshold.

use super::Record;
use crate::{
    timeout::{
        Deadline,
        Hz, //
    },
    uapi::conn_flag, //
};

/// What to do with a record whose connection is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// It is the same one: update it, and bind it to a destination if it has none.
    Update,
    /// It leads elsewhere, so the old one ended: let it end, and make a new one.
    Replace,
    /// It leads elsewhere, but this is only the end of one that was replaced before: nothing.
    Ignore,
}

/// What to do with `record`, whose connection is there. `same_server` is whether that has the record's destination address and port.
pub const fn known(record: &Record<'_>, same_server: bool) -> Known {
    if same_server || record.is_template() {
        Known::Update
    } else if record.flags & conn_flag::INACTIVE != 0 {
        Known::Ignore
    } else {
        Known::Replace
    }
}

/// The flags of a connection after a record's.
#[inline]
pub const fn updated_flags(flags: u32, record: &Record<'_>) -> u32 {
    flags & !conn_flag::BACKUP_UPD_MASK | record.flags & conn_flag::BACKUP_UPD_MASK
}

/// By how much the number of the destination's active connections changes when a bound connection with `flags` is updated from
/// `record`: -1, 0 or 1.
pub const fn active_change(flags: u32, record: &Record<'_>) -> i32 {
    if record.is_template() || (flags ^ record.flags) & conn_flag::INACTIVE == 0 {
        0
    } else if record.flags & conn_flag::INACTIVE != 0 {
        -1
    } else {
        1
    }
}

/// The flags of a connection with `flags`, which came with a record, once it is bound to a destination whose connections have
/// `dest_flags` (C `dest->conn_flags`): the way of forwarding is the destination's, whether it is active the record's.
/// C `ip_vs_bind_dest()`.
pub const fn bound_flags(flags: u32, dest_flags: u32) -> u32 {
    let mut from_dest = dest_flags & !conn_flag::ONE_PACKET;
    if flags & conn_flag::TEMPLATE == 0 {
        from_dest &= !conn_flag::INACTIVE;
    }
    flags & !(conn_flag::FWD_MASK | conn_flag::NOOUTPUT) | from_dest
}

/// How long a connection of unknown timeout lasts without a packet, in seconds.
const DEFAULT_SECS: u32 = 180;

/// The timeout of a received connection, in jiffies: the record's; or, if it has none, what `of_state` says that its protocol allows
/// in its state; or, of templates and protocols without such, three minutes.
///
/// One that no [`Deadline`] can hold is cut to the longest.
pub fn timeout(record: &Record<'_>, hz: Hz, of_state: impl FnOnce(u8, u8) -> Option<u32>) -> u32 {
    let ticks = if record.timeout != 0 {
        hz.from_secs_u32(record.timeout)
    } else if record.is_template() {
        hz.from_secs_u32(DEFAULT_SECS)
    } else {
        of_state(record.proto, record.state).unwrap_or(hz.from_secs_u32(DEFAULT_SECS))
    };
    ticks.min(Deadline::MAX_TIMEOUT)
}
