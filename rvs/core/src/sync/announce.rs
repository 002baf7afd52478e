// SPDX-License-Identifier: GPL-2.0-only

//! Whether a master announces a connection now; C `ip_vs_sync_conn_needed()`.
//!
//! A master asks after each packet from the client, with the packet's number, and when the end of a connection that others depend
//! on is put off, with [`Policy::threshold`] for a number. Then it asks for the connection's controller
//! ([`Asked::goes_on_to_controller()`], [`Policy::controller_pkts()`]).
//!
//! Moments are the low 32 bits of jiffies. They wrap: a connection that was not announced for 2^31 jiffies (24 days at 1000 Hz)
//! may, with a refresh period, be announced up to that period late, once.

use super::Version;
use crate::{
    addr::Family,
    proto::{
        sctp,
        tcp,
        IPPROTO_SCTP,
        IPPROTO_TCP, //
    },
    timeout::Hz, //
};

/// What the administrator configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The packet with which a connection is announced first: the first number of sysctl `sync_threshold`.
    pub threshold: u32,
    /// Every how many packets it is announced again, zero for never: the second number.
    pub period: u32,
    /// How long an announcement lasts, in jiffies, zero for no limit: sysctl `sync_refresh_period`.
    pub refresh: u32,
    /// How often one is repeated meanwhile: sysctl `sync_retries`, 0 to 3.
    pub retries: u32,
    /// Whether connections under a template are left out: sysctl `sync_persist_mode`.
    pub persist_mode: bool,
}

impl Policy {
    /// The packet number to ask with for the controller of a connection: a template counts another packet (`count`, C
    /// `atomic_inc_return(&cp->in_pkts)`), whatever else controls connections is asked as if it were time.
    #[inline]
    pub fn controller_pkts(&self, is_template: bool, count: impl FnOnce() -> u32) -> u32 {
        if is_template {
            count()
        } else {
            self.threshold
        }
    }
}

/// A connection, and the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its transport protocol.
    pub proto: u8,
    /// Whether it is a template.
    pub template: bool,
    /// Whether it is controlled by a template, or by one that is; C `in_persistence()`. Asked only with [`Policy::persist_mode`].
    pub in_persistence: bool,
    /// Its state.
    pub state: u8,
    /// Its state when it was announced last; what [`Due::state`] said. C `old_state`; zero at first.
    pub old_state: u8,
    /// Its timeout, in jiffies.
    pub timeout: u32,
    /// What [`Due::endtime`] said last; [`first_endtime()`] at first. C `sync_endtime`.
    pub endtime: u32,
    /// The packet's number.
    pub pkts: u32,
    /// The moment.
    pub now: u32,
}

impl Asked {
    /// Whether to ask for the controller of a connection, too. `announced` is what came of this one.
    ///
    /// In version 1 always. In version 0 only after a connection that was announced; a one-packet connection, which never is,
    /// leaves its controller out.
    #[inline]
    pub const fn goes_on_to_controller(version: Version, announced: bool) -> bool {
        match version {
            Version::V0 => announced,
            Version::V1 => true,
        }
    }
}

/// Whether a connection can be announced at all: not if it lasts for one packet, nor in version 0 an IPv6 one.
#[inline]
pub const fn can_be(version: Version, family: Family, one_packet: bool) -> bool {
    !one_packet && !matches!((version, family), (Version::V0, Family::V6))
}

/// What a new connection's `endtime` is.
#[inline]
pub const fn first_endtime(now: u32) -> u32 {
    now & !RETRIES
}

/// The lowest bits of an `endtime` count repetitions.
const RETRIES: u32 = 3;

/// An announcement is due.
///
/// The caller sets the connection's `old_state` to `state`, exchanges its `endtime`, if it is still the one asked with, for this one,
/// and announces the connection if that succeeded (no other CPU was faster) or `forced`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// When the announcement will have ended, and how often it was repeated.
    pub endtime: u32,
    /// The state announced.
    pub state: u8,
    /// Whether the state changed: it is announced even if another CPU announces the same connection.
    pub forced: bool,
}

/// Whether the connection is announced now.
pub fn due(policy: &Policy, hz: Hz, asked: &Asked) -> Option<Due> {
    let Asked {
        now,
        timeout,
        endtime,
        ..
    } = *asked;
    let mut due = Due {
        endtime: now.wrapping_add(timeout) & !RETRIES,
        state: asked.state,
        forced: false,
    };

    if !asked.template {
        if policy.persist_mode && asked.in_persistence {
            return None;
        }
        // UDP and others have one state only.
        if let Some(states) = announced_states(asked.proto) {
            if states & 1_u32.checked_shl(u32::from(asked.state)).unwrap_or(0) == 0 {
                return None;
            }
            due.forced = asked.state != asked.old_state;
            // What ends is announced at once, what begins as often as it should be.
            if due.forced && !is_established(asked.proto, asked.state) {
                return Some(due);
            }
        }
    }

    if policy.refresh > 0 {
        // By signed difference: the timeout may have become shorter.
        let apart = (due.endtime.wrapping_sub(endtime) as i32).unsigned_abs();
        let least = (timeout >> 1).max(hz.from_secs_u32(10));
        if apart < policy.refresh.min(least) {
            let retries = endtime & RETRIES;
            let again = endtime
                .wrapping_sub(timeout)
                .wrapping_add(policy.refresh >> 3);
            if retries >= policy.retries || (now.wrapping_sub(again) as i32) < 0 {
                return None;
            }
            // Fewer than `policy.retries`, at most three.
            due.endtime |= retries.wrapping_add(1) & RETRIES;
        }
    }
    match asked.pkts.checked_rem(policy.period) {
        // Templates are announced with every packet, unless the refresh period says otherwise.
        Some(nth) if nth != policy.threshold && !asked.template => None,
        None if policy.refresh == 0 && asked.pkts != policy.threshold => None,
        _ => Some(due),
    }
}

/// The states in which connections of a protocol are announced, as bits; `None` of a protocol with one state.
const fn announced_states(proto: u8) -> Option<u32> {
    match proto {
        IPPROTO_TCP => Some(
            (1 << tcp::State::ESTABLISHED)
                | (1 << tcp::State::FIN_WAIT)
                | (1 << tcp::State::CLOSE)
                | (1 << tcp::State::CLOSE_WAIT)
                | (1 << tcp::State::TIME_WAIT),
        ),
        IPPROTO_SCTP => Some(
            (1 << sctp::State::ESTABLISHED)
                | (1 << sctp::State::SHUTDOWN_SENT)
                | (1 << sctp::State::SHUTDOWN_RECEIVED)
                | (1 << sctp::State::SHUTDOWN_ACK_SENT)
                | (1 << sctp::State::CLOSED),
        ),
        _ => None,
    }
}

/// Whether this is the state of a connection in use.
const fn is_established(proto: u8, state: u8) -> bool {
    match proto {
        IPPROTO_TCP => state == tcp::State::ESTABLISHED,
        _ => state == sctp::State::ESTABLISHED,
    }
}
