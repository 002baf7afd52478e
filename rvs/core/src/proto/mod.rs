// SPDX-License-Identifier: GPL-2.0-only

//! The protocols IPVS balances: their states, transitions and timeouts, as data.
//!
//! C files: `ip_vs_proto.c`, `ip_vs_proto_tcp.c`, `ip_vs_proto_udp.c`, `ip_vs_proto_sctp.c`,
//! `ip_vs_proto_ah_esp.c`.

pub mod ah_esp;
pub mod sctp;
mod states;
pub mod tcp;
pub mod template;
pub mod udp;

use core::fmt;

/// "Any": the protocol of persistence templates of fwmark services.
pub const IPPROTO_IP: u8 = 0;
/// ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// IPv4 in IP, the ipip tunnel.
pub const IPPROTO_IPIP: u8 = 4;
/// TCP.
pub const IPPROTO_TCP: u8 = 6;
/// UDP.
pub const IPPROTO_UDP: u8 = 17;
/// IPv6 in IP.
pub const IPPROTO_IPV6: u8 = 41;
/// GRE.
pub const IPPROTO_GRE: u8 = 47;
/// IPsec ESP.
pub const IPPROTO_ESP: u8 = 50;
/// IPsec AH.
pub const IPPROTO_AH: u8 = 51;
/// ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// SCTP.
pub const IPPROTO_SCTP: u8 = 132;

/// What a packet tells the state machine about its way; C `IP_VS_DIR_*`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Direction {
    /// From the client.
    Input = 0,
    /// From the server.
    Output = 1,
    /// From the client, on a connection whose replies do not pass here.
    InputOnly = 2,
}

/// Whether IPVS tracks connections of `proto` at all; C `ip_vs_proto_get()` returning one.
#[inline]
pub const fn is_known(proto: u8) -> bool {
    matches!(
        proto,
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP | IPPROTO_AH | IPPROTO_ESP
    )
}

/// Whether headers of `proto` start with two ports.
#[inline]
pub const fn has_ports(proto: u8) -> bool {
    matches!(proto, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP)
}

/// Whether fragments of `proto` must be put together before they are looked at; the opposite of C
/// `dont_defrag`, for known protocols.
#[inline]
pub const fn wants_defrag(proto: u8) -> bool {
    has_ports(proto)
}

/// How much of a layer 4 header a packet must have to be scheduled. For SCTP the header of the
/// first chunk is included; zero for what is never scheduled.
#[inline]
pub const fn schedule_len(proto: u8) -> usize {
    match proto {
        IPPROTO_TCP => 20,
        IPPROTO_UDP => 8,
        IPPROTO_SCTP => 16,
        _ => 0,
    }
}

/// The name of a connection's state as `/proc/net/ip_vs_conn` shows it; C `ip_vs_state_name()`.
///
/// AH and ESP have no names in C, which shows `ERR!`.
pub fn state_name(proto: u8, is_template: bool, state: u8) -> &'static str {
    match proto {
        _ if is_template => template::state_name(state),
        IPPROTO_TCP => tcp::state_name(state),
        IPPROTO_UDP => udp::state_name(state),
        IPPROTO_SCTP => sctp::state_name(state),
        IPPROTO_IP => "NONE",
        _ => ERR,
    }
}

/// What C shows for a state that does not exist.
pub(crate) const ERR: &str = "ERR!";

/// A protocol as people read it; C `ip_vs_proto_name()`. Honours width and alignment.
///
/// ```
/// use rvs_core::proto::ProtoName;
///
/// assert_eq!(format!("{:<3} {:<3} {:<3}|", ProtoName(17), ProtoName(0), ProtoName(51)),
///            "UDP IP  IP_51|");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtoName(pub u16);

impl ProtoName {
    /// The name, if the protocol has one.
    pub const fn known(self) -> Option<&'static str> {
        Some(match self.0 {
            n if n == IPPROTO_IP as u16 => "IP",
            n if n == IPPROTO_UDP as u16 => "UDP",
            n if n == IPPROTO_TCP as u16 => "TCP",
            n if n == IPPROTO_SCTP as u16 => "SCTP",
            n if n == IPPROTO_ICMP as u16 => "ICMP",
            n if n == IPPROTO_ICMPV6 as u16 => "ICMPv6",
            _ => return None,
        })
    }
}

impl fmt::Display for ProtoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(name) => f.pad(name),
            // Longer than any column, so that padding does not matter.
            None => write!(f, "IP_{}", self.0),
        }
    }
}
