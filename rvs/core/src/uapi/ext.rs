// SPDX-License-Identifier: GPL-2.0-only

//! What the family `IPVS` has beyond C's: announcements, and a dump of connections. `docs/netlink-extensions.md` says what
//! each message holds.
//!
//! Numbers from 64 up are rvs's. Of these, 80 to 95 of the commands are for FullNAT.

/// Multicast groups of the family.
pub mod group {
    /// Services and destinations.
    pub const CONFIG: &str = "rvs_config";
    /// Connections.
    pub const CONNS: &str = "rvs_conns";
}

/// Commands.
pub mod cmd {
    /// Dump only: the connections that a filter lets through.
    pub const GET_CONN: u8 = 64;
    /// A connection, in the answer to [`GET_CONN`].
    pub const CONN: u8 = 65;
    /// How many events there were.
    pub const GET_EVENTS: u8 = 66;
    /// Only the reply to [`GET_EVENTS`].
    pub const EVENTS: u8 = 67;
    /// To group [`super::group::CONFIG`]: a service is new, was changed or is gone.
    pub const SERVICE_EVENT: u8 = 68;
    /// To group [`super::group::CONFIG`]: a destination is new, was changed or is gone.
    pub const DEST_EVENT: u8 = 69;
    /// To group [`super::group::CONNS`]: a connection is new, entered another state or has ended.
    pub const CONN_EVENT: u8 = 70;
}

/// Attributes of commands, beside C's [`SERVICE`](crate::uapi::attr::SERVICE) and [`DEST`](crate::uapi::attr::DEST).
pub mod attr {
    /// Nested, of [`super::conn_attr`]: a connection, or in a request what it must be like.
    pub const CONN: u16 = 64;
    /// `u8`, of [`super::event`].
    pub const EVENT: u16 = 65;
    /// `u64`: the number of an event of its group and namespace, from 1 on, without a gap.
    pub const SEQ: u16 = 66;
    /// `u64`: how many events of the group were numbered and then lost before they were sent.
    pub const LOST: u16 = 67;
    /// `u64`: the last number of group [`super::group::CONFIG`].
    pub const CONFIG_SEQ: u16 = 68;
    /// `u64`: the last number of group [`super::group::CONNS`].
    pub const CONN_SEQ: u16 = 69;
    /// Filler before a `u64` where the machine wants it aligned.
    pub const PAD: u16 = 70;
    pub const MAX: u16 = 70;
}

/// What an event tells: values of [`attr::EVENT`].
pub mod event {
    /// It is new.
    pub const NEW: u8 = 1;
    /// It was changed; of a connection: it entered another state.
    pub const CHANGED: u8 = 2;
    /// It is gone.
    pub const DELETED: u8 = 3;
}

/// Attributes of a connection. Addresses have 4 or 16 bytes; addresses and ports are in network order.
pub mod conn_attr {
    /// `u16`: the address family of client and virtual address.
    pub const AF: u16 = 1;
    /// `u8`: IP protocol; of a template for a mark 0.
    pub const PROTOCOL: u16 = 2;
    /// Address.
    pub const CLIENT_ADDR: u16 = 3;
    /// `u16`.
    pub const CLIENT_PORT: u16 = 4;
    /// Address; of a template for a mark the mark, in network order.
    pub const VIRT_ADDR: u16 = 5;
    /// `u16`.
    pub const VIRT_PORT: u16 = 6;
    /// Address: the real server's, perhaps of the other family.
    pub const DEST_ADDR: u16 = 7;
    /// `u16`.
    pub const DEST_PORT: u16 = 8;
    /// `u32`, of [`crate::uapi::conn_flag`], with the forwarding method.
    pub const FLAGS: u16 = 9;
    /// `u8`: the protocol's state, as C numbers them.
    pub const STATE: u16 = 10;
    /// String: the state's name, as in `/proc/net/ip_vs_conn`.
    pub const STATE_NAME: u16 = 11;
    /// `u64`, milliseconds: how long the connection lives if no more packet comes.
    pub const EXPIRES: u16 = 12;
    /// `u64`, milliseconds: how long it lives after a packet.
    pub const TIMEOUT: u16 = 13;
    /// `u32`, host order: the mark of the packet that began it.
    pub const FWMARK: u16 = 14;
    /// `u32`, host order: the mark that its service is known by. Absent: the service has an address.
    pub const SERVICE_FWMARK: u16 = 15;
    /// `u16`: the port of its service, where that is not [`VIRT_PORT`] (a service of all ports has 0).
    pub const SERVICE_PORT: u16 = 16;
    /// `u64`: packets from the client. This and the next four are there if the connection counts.
    pub const IN_PKTS: u16 = 17;
    /// `u64`: bytes from the client, from the network header on.
    pub const IN_BYTES: u16 = 18;
    /// `u64`: packets to the client.
    pub const OUT_PKTS: u16 = 19;
    /// `u64`: bytes to the client.
    pub const OUT_BYTES: u16 = 20;
    /// `u64`, milliseconds: since it began.
    pub const AGE: u16 = 21;
    /// `u8`, only in a request: how many bits of [`CLIENT_ADDR`] must be the same.
    pub const CLIENT_PREFIX: u16 = 22;
    /// Filler before a `u64` where the machine wants it aligned.
    pub const PAD: u16 = 23;
    pub const MAX: u16 = 23;
}
