// SPDX-License-Identifier: GPL-2.0-only

//! Connection synchronisation: what a master director says about its connections, and what a backup makes of it.
//!
//! C file: `ip_vs_sync.c`. Sockets, threads and the connection table are elsewhere; here is what can be decided without them:
//! when a connection is announced ([`announce`]), the bytes of a datagram ([`encode`], [`decode`]), what a received record does
//! to a connection ([`receive`]), and what a daemon's configuration comes to ([`daemon`]).
//!
//! # The protocol
//!
//! A datagram is a header and up to 255 records, one for each connection. Version 1, the usual one:
//!
//! | at | header | | at | record | |
//! | --- | --- | --- | --- | --- | --- |
//! | 0 | 0 | u8 | 0 | 0 IPv4, 1 IPv6 | u8 |
//! | 1 | sync ID | u8 | 1 | transport protocol | u8 |
//! | 2 | bytes in all | be16 | 2 | 4 bits 0, 12 bits bytes in the record with its options | be16 |
//! | 4 | records | u8 | 4 | flags, [`SENT_MASK`] | be32 |
//! | 5 | 1 | u8 | 8 | state | be16 |
//! | 6 | 0 | u16 | 10 | client, virtual, destination port | be16 each |
//! | | | | 16 | firewall mark | be32 |
//! | | | | 20 | timeout in seconds | be32 |
//! | | | | 24 | client, virtual, destination address | 4 or 16 each |
//! | | | | 36, 72 | options: type, length, value | |
//!
//! Records begin at multiples of four; the zeros in front of one are counted in the header's size, not in the record's.
//!
//! Version 0 knows IPv4 only, and neither mark nor timeout nor persistence engine:
//!
//! | at | header | | at | record | |
//! | --- | --- | --- | --- | --- | --- |
//! | 0 | records | u8 | 0 | 0 | u8 |
//! | 1 | sync ID | u8 | 1 | transport protocol | u8 |
//! | 2 | bytes in all | be16 | 2 | client, virtual, destination port | be16 each |
//! | | | | 8 | client, virtual, destination address | 4 each |
//! | | | | 20 | flags, the low 16 bits | be16 |
//! | | | | 22 | state | be16 |
//! | | | | 24 | with a sequence flag: [`SeqPair`] in the machine's byte order | 24 |

pub mod announce;
pub mod daemon;
pub mod decode;
pub mod encode;
pub mod receive;

use crate::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    uapi::conn_flag, //
};

/// The version of the protocol that is sent: sysctl `sync_version`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// The old one.
    V0,
    /// The usual one; C `SYNC_PROTO_VER`.
    V1,
}

impl Version {
    /// Bytes in the header.
    #[inline]
    pub const fn header_len(self) -> usize {
        match self {
            Version::V0 => 4,
            Version::V1 => 8,
        }
    }
}

/// The greatest number of records in a datagram: the header has one byte for it.
pub const MAX_RECORDS: u8 = u8::MAX;

/// The flags of a connection that are told to others: all that the C module has, but whether it is hashed.
pub const SENT_MASK: u32 = conn_flag::FWD_MASK
    | conn_flag::SYNC
    | conn_flag::NOOUTPUT
    | conn_flag::INACTIVE
    | conn_flag::SEQ_MASK
    | conn_flag::NO_CPORT
    | conn_flag::TEMPLATE
    | conn_flag::ONE_PACKET
    | conn_flag::NFCT;

/// How TCP sequence numbers of one direction are moved; C `struct ip_vs_seq`. Host order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Seq {
    /// The sequence number from which on `delta` counts.
    pub init_seq: u32,
    /// What is added from there on.
    pub delta: u32,
    /// What is added before.
    pub previous_delta: u32,
}

/// Both directions; C `struct ip_vs_sync_conn_options`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SeqPair {
    /// From the client.
    pub incoming: Seq,
    /// From the real server.
    pub outgoing: Seq,
}

impl SeqPair {
    /// Bytes on the wire.
    pub const LEN: usize = 24;
}

/// What a persistence engine knows of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pe<'a> {
    /// The engine's name, at most [`PENAME_MAXLEN`](crate::uapi::PENAME_MAXLEN) bytes, without a NUL at the end. A received one
    /// may have any bytes.
    pub name: &'a [u8],
    /// Its data, 1 to [`PEDATA_MAXLEN`](crate::uapi::PEDATA_MAXLEN) bytes.
    pub data: &'a [u8],
}

/// One connection or template as it is told to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The family of all three addresses.
    pub family: Family,
    /// The transport protocol. Zero, or any other, in templates.
    pub proto: u8,
    /// The client's port.
    pub cport: Be16,
    /// The virtual port.
    pub vport: Be16,
    /// The real server's port; 0xffff in a template that is no longer valid.
    pub dport: Be16,
    /// The client's address.
    pub caddr: Addr,
    /// The virtual address; in templates of fwmark services the mark in network order.
    pub vaddr: Addr,
    /// The real server's address.
    pub daddr: Addr,
    /// [`conn_flag`]. What is encoded is cut to [`SENT_MASK`] (version 0: and 16 bits); what was decoded is cut to
    /// [`conn_flag::BACKUP_MASK`], with [`conn_flag::SYNC`] set.
    pub flags: u32,
    /// The state, by protocol; of a template [`crate::proto::template`]. What was decoded exists.
    pub state: u8,
    /// The firewall mark; zero in version 0.
    pub fwmark: u32,
    /// The timeout in seconds; zero in version 0, and if the sender does not say.
    pub timeout: u32,
    /// How sequence numbers are moved. Encoded if, and only if, the flags have one of [`conn_flag::SEQ_MASK`], as zeros if there
    /// is nothing here; decoded if the datagram has it, which in version 1 does not depend on the flags.
    pub seq: Option<SeqPair>,
    /// What the persistence engine knows; none in version 0.
    pub pe: Option<Pe<'a>>,
}

impl Record<'_> {
    /// Whether this is a persistence template.
    #[inline]
    pub const fn is_template(&self) -> bool {
        self.flags & conn_flag::TEMPLATE != 0
    }
}

/// Types of options of version 1; C `IPVS_OPT_*`.
pub mod option {
    /// [`super::SeqPair`], in network order.
    pub const SEQ_DATA: u8 = 1;
    /// [`super::Pe::data`].
    pub const PE_DATA: u8 = 2;
    /// [`super::Pe::name`].
    pub const PE_NAME: u8 = 3;
    /// Set in the type of an option that may be passed over by who does not know it; C `IPVS_OPT_F_PARAM`.
    pub const OPTIONAL: u8 = 0x40;
}

/// In the type of a record of version 1: the addresses are IPv6; C `STYPE_F_INET6`.
const TYPE_INET6: u8 = 1;

/// Bytes in a record of version 1 without options.
const fn fixed_len_v1(family: Family) -> usize {
    match family {
        Family::V4 => 36,
        Family::V6 => 72,
    }
}

/// Bytes in a record of version 0 without sequence data; C `SIMPLE_CONN_SIZE`.
const FIXED_LEN_V0: usize = 24;
