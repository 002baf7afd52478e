// SPDX-License-Identifier: GPL-2.0-only

//! What the configuration of a sync daemon comes to; C `start_sync_thread()`, and the constants of the sender.

use crate::addr::{
    Addr,
    Family, //
};

/// Which daemon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Tells others about its connections.
    Master,
    /// Takes over those of others.
    Backup,
}

/// The default multicast group, 224.0.0.81; C `IP_VS_SYNC_GROUP`. There is none for IPv6.
pub const GROUP: Addr = Addr::v4(0xe000_0051_u32.to_be());

/// The default port, host order; C `IP_VS_SYNC_PORT`. Thread `i` uses this one plus `i`.
pub const PORT: u16 = 8848;

/// The default TTL.
pub const TTL: u8 = 1;

/// The greatest number of threads of a daemon; C `IPVS_SYNC_PORTS_MAX`.
pub const MAX_THREADS: u32 = 64;

/// After how many seconds a datagram that is not full is sent; C `IPVS_SYNC_FLUSH_TIME`.
pub const FLUSH_SECS: u32 = 2;

/// How often a thread looks for such, in seconds; C `IPVS_SYNC_CHECK_PERIOD`.
pub const CHECK_SECS: u32 = 1;

/// How long a full datagram waits for others at most: one part in so many of a second; C `IPVS_SYNC_SEND_DELAY`.
pub const SEND_DELAY_DIVISOR: u32 = 50;

/// How many full datagrams are not waited with; C `IPVS_SYNC_WAKEUP_RATE`.
pub const WAKEUP_RATE: u32 = 8;

/// The number of threads of the first daemon of a network namespace, given sysctl `sync_ports`. A second daemon has as many as the
/// first.
#[inline]
pub const fn threads(sync_ports: u32) -> u32 {
    if sync_ports < 1 {
        1
    } else if sync_ports > MAX_THREADS {
        MAX_THREADS
    } else {
        sync_ports
    }
}

/// Bytes of IP and UDP header in front of a datagram's.
const fn header_len(family: Family) -> u16 {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}

/// `sync_maxlen` as it counts: the most bytes in a datagram, without IP and UDP headers.
///
/// `given` is what the administrator said, zero for nothing; `mtu` that of the interface; `family` that of the group.
pub const fn maxlen(role: Role, family: Family, given: u16, mtu: u32) -> u16 {
    let headers = header_len(family);
    let most = u16::MAX.wrapping_sub(headers);
    if given != 0 {
        let least = match role {
            Role::Master => 1,
            Role::Backup => 1024,
        };
        return if given < least {
            least
        } else if given > most {
            most
        } else {
            given
        };
    }
    let mtu = match role {
        Role::Backup if mtu > u16::MAX as u32 => u16::MAX,
        Role::Backup if mtu > 1500 => mtu as u16,
        _ => 1500,
    };
    // At least 1500 less 48.
    mtu.wrapping_sub(headers)
}
