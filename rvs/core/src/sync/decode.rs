// SPDX-License-Identifier: GPL-2.0-only

//! From datagrams to connections; C `ip_vs_process_message()`, `ip_vs_proc_sync_conn()`, `ip_vs_process_message_v0()`.
//!
//! ```
//! use rvs_core::sync::decode::Datagram;
//!
//! let bytes = [0, 7, 0, 8, 0, 1, 0, 0];
//! let datagram = Datagram::parse(&bytes, 0).unwrap();
//! for record in datagram.records() {
//!     match record {
//!         Ok(_connection) => { /* look it up, create or update it */ }
//!         // The iterator ends by itself after one that aborts the datagram.
//!         Err(bad) if bad.aborts() => eprintln!("datagram dropped"),
//!         Err(_) => {}
//!     }
//! }
//! ```

use super::{
    fixed_len_v1,
    option,
    Pe,
    Record,
    Seq,
    SeqPair,
    Version,
    FIXED_LEN_V0,
    TYPE_INET6, //
};
use crate::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    proto,
    uapi::{
        conn_flag,
        PENAME_MAXLEN, //
    },
};

/// Why a datagram is not looked into. None of these is worth a word in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ignored {
    /// It has no header.
    Short,
    /// It is not as long as it says.
    Size,
    /// It is from another group.
    SyncId,
}

/// Why a record is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// There are fewer records than the header says, or the last one is cut off: aborts.
    Short,
    /// The record is of a version that nobody knows: aborts.
    Version,
    /// The record is of neither family: aborts.
    Type,
    /// The record is shorter than any of its family: aborts.
    Length,
    /// An option is cut off, or empty, or not as long as it must be, or there twice: aborts.
    Option,
    /// An option that must be understood is not.
    UnknownOption,
    /// Flags that no connection has: [`conn_flag::ONE_PACKET`], or [`conn_flag::NO_CPORT`] of a template.
    Flags,
    /// A connection of a protocol that is not balanced.
    Protocol,
    /// A state that the protocol, or a template, does not have.
    State,
    /// Data of a persistence engine without its name.
    PeName,
}

impl Bad {
    /// Whether the rest of the datagram is dropped, too.
    #[inline]
    pub const fn aborts(self) -> bool {
        matches!(
            self,
            Bad::Short | Bad::Version | Bad::Type | Bad::Length | Bad::Option
        )
    }
}

/// A datagram with a valid header.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    version: Version,
    syncid: u8,
    count: u8,
    rest: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Looks at the header. `syncid` is the sync ID of the backup daemon, zero for any; one above 255 matches none.
    pub fn parse(bytes: &'a [u8], syncid: u32) -> Result<Self, Ignored> {
        let (v0, rest) = bytes.split_first_chunk::<4>().ok_or(Ignored::Short)?;
        if bytes.len() != usize::from(u16::from_be_bytes([v0[2], v0[3]])) {
            return Err(Ignored::Size);
        }
        if syncid != 0 && syncid != u32::from(v0[1]) {
            return Err(Ignored::SyncId);
        }
        // Whatever is not version 1 is taken for version 0.
        let (version, count, rest) = match bytes.split_first_chunk::<8>() {
            Some((&[0, _, _, _, count, 1, 0, 0], rest)) => (Version::V1, count, rest),
            _ => (Version::V0, v0[0], rest),
        };
        Ok(Self {
            version,
            syncid: v0[1],
            count,
            rest,
        })
    }

    /// The version of the protocol.
    #[inline]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The sender's sync ID.
    #[inline]
    pub const fn syncid(&self) -> u8 {
        self.syncid
    }

    /// How many records there are, if the header is right.
    #[inline]
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// The records, one after another, at most 255. Bytes behind the last one are of no interest.
    #[inline]
    pub const fn records(&self) -> Records<'a> {
        Records {
            version: self.version,
            left: self.count,
            rest: self.rest,
        }
    }
}

/// See [`Datagram::records()`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    version: Version,
    left: u8,
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let record = match self.version {
            Version::V0 => self.next_v0(),
            Version::V1 => self.next_v1(),
        };
        if record.is_err_and(Bad::aborts) {
            self.left = 0;
        }
        Some(record)
    }
}

impl core::iter::FusedIterator for Records<'_> {}

impl<'a> Records<'a> {
    fn next_v1(&mut self) -> Result<Record<'a>, Bad> {
        let head = self.rest.first_chunk::<36>().ok_or(Bad::Short)?;
        let version_size = u16::from_be_bytes([head[2], head[3]]);
        let size = usize::from(version_size & 0x0fff);
        let record = self.rest.get(..size).ok_or(Bad::Short)?;
        if version_size >> 12 != 0 {
            return Err(Bad::Version);
        }
        // The padding may be missing at the end of the datagram.
        let next = size.wrapping_add(3) & !3;
        self.rest = self.rest.get(next..).unwrap_or_default();
        record_v1(record)
    }

    fn next_v0(&mut self) -> Result<Record<'a>, Bad> {
        let (r, rest) = self
            .rest
            .split_first_chunk::<FIXED_LEN_V0>()
            .ok_or(Bad::Short)?;
        self.rest = rest;
        let word = |at: [u8; 4]| Addr::v4(u32::from_ne_bytes(at));
        let flags = u32::from(u16::from_be_bytes([r[20], r[21]]));
        let seq = if flags & conn_flag::SEQ_MASK != 0 {
            let (seq, rest) = rest
                .split_first_chunk::<{ SeqPair::LEN }>()
                .ok_or(Bad::Short)?;
            self.rest = rest;
            Some(seq_pair(seq, u32::from_ne_bytes))
        } else {
            None
        };
        let state = u16::from_be_bytes([r[22], r[23]]);
        let (flags, state) = check(flags, r[1], state)?;
        Ok(Record {
            family: Family::V4,
            proto: r[1],
            cport: port(r[2], r[3]),
            vport: port(r[4], r[5]),
            dport: port(r[6], r[7]),
            caddr: word([r[8], r[9], r[10], r[11]]),
            vaddr: word([r[12], r[13], r[14], r[15]]),
            daddr: word([r[16], r[17], r[18], r[19]]),
            flags,
            state,
            fwmark: 0,
            timeout: 0,
            seq,
            pe: None,
        })
    }
}

#[inline]
const fn port(a: u8, b: u8) -> Be16 {
    Be16::from_ne_bytes([a, b])
}

/// A record of version 1, whose bytes are these; C `ip_vs_proc_sync_conn()`.
fn record_v1(bytes: &[u8]) -> Result<Record<'_>, Bad> {
    // C looks at the type first, which is there even if the record says that it has no bytes: both ways end the same.
    let family = match bytes.first() {
        // Any odd type is IPv6.
        Some(kind) if kind & TYPE_INET6 != 0 => Family::V6,
        Some(0) => Family::V4,
        Some(_) => return Err(Bad::Type),
        None => return Err(Bad::Length),
    };
    let (fixed, options) = bytes
        .split_at_checked(fixed_len_v1(family))
        .ok_or(Bad::Length)?;
    let (h, addrs) = fixed.split_first_chunk::<24>().ok_or(Bad::Length)?;
    let options = Options::parse(options)?;

    let flags = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
    let state = u16::from_be_bytes([h[8], h[9]]);
    let (flags, state) = check(flags, h[1], state)?;
    let pe = match (options.pe_data, options.pe_name) {
        (Some(data), Some(name)) => Some(Pe { name, data }),
        (Some(_), None) => return Err(Bad::PeName),
        (None, _) => None,
    };

    let len = family.addr_len();
    let (caddr, addrs) = addrs.split_at_checked(len).ok_or(Bad::Length)?;
    let (vaddr, daddr) = addrs.split_at_checked(len).ok_or(Bad::Length)?;
    let addr = |bytes| Addr::from_slice(family, bytes).ok_or(Bad::Length);
    Ok(Record {
        family,
        proto: h[1],
        cport: port(h[10], h[11]),
        vport: port(h[12], h[13]),
        dport: port(h[14], h[15]),
        caddr: addr(caddr)?,
        vaddr: addr(vaddr)?,
        daddr: addr(daddr)?,
        flags,
        state,
        fwmark: u32::from_be_bytes([h[16], h[17], h[18], h[19]]),
        timeout: u32::from_be_bytes([h[20], h[21], h[22], h[23]]),
        seq: options.seq,
        pe,
    })
}

/// The options of a record.
#[derive(Default)]
struct Options<'a> {
    seq: Option<SeqPair>,
    pe_data: Option<&'a [u8]>,
    pe_name: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(mut rest: &'a [u8]) -> Result<Self, Bad> {
        let mut found = Self::default();
        // Each round takes at least three bytes.
        while !rest.is_empty() {
            let (&[kind, len], behind) = rest.split_first_chunk().ok_or(Bad::Option)?;
            let (value, behind) = behind
                .split_at_checked(usize::from(len))
                .ok_or(Bad::Option)?;
            if value.is_empty() {
                return Err(Bad::Option);
            }
            rest = behind;
            // Those that are known are known by either name.
            match kind & !option::OPTIONAL {
                option::SEQ_DATA => {
                    let bytes: &[u8; SeqPair::LEN] = value.try_into().map_err(|_| Bad::Option)?;
                    once(&mut found.seq, seq_pair(bytes, u32::from_be_bytes))?;
                }
                option::PE_DATA => once(&mut found.pe_data, value)?,
                option::PE_NAME if value.len() > PENAME_MAXLEN => return Err(Bad::Option),
                option::PE_NAME => once(&mut found.pe_name, value)?,
                _ if kind & option::OPTIONAL != 0 => {}
                // What follows in this record is not looked at.
                _ => return Err(Bad::UnknownOption),
            }
        }
        Ok(found)
    }
}

/// An option may be there once.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Bad> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Bad::Option),
    }
}

fn seq_pair(b: &[u8; SeqPair::LEN], word: fn([u8; 4]) -> u32) -> SeqPair {
    SeqPair {
        incoming: Seq {
            init_seq: word([b[0], b[1], b[2], b[3]]),
            delta: word([b[4], b[5], b[6], b[7]]),
            previous_delta: word([b[8], b[9], b[10], b[11]]),
        },
        outgoing: Seq {
            init_seq: word([b[12], b[13], b[14], b[15]]),
            delta: word([b[16], b[17], b[18], b[19]]),
            previous_delta: word([b[20], b[21], b[22], b[23]]),
        },
    }
}

/// Flags and state as they are used, if they can be; C `ip_vs_sync_validate_flags()` and what follows it.
fn check(flags: u32, proto: u8, state: u16) -> Result<(u32, u8), Bad> {
    let template = flags & conn_flag::TEMPLATE != 0;
    if flags & conn_flag::ONE_PACKET != 0 || (template && flags & conn_flag::NO_CPORT != 0) {
        return Err(Bad::Flags);
    }
    let states = if template {
        proto::template::LAST
    } else {
        states_of(proto).ok_or(Bad::Protocol)?
    };
    match u8::try_from(state) {
        Ok(state) if state < states => {
            Ok((flags & conn_flag::BACKUP_MASK | conn_flag::SYNC, state))
        }
        _ => Err(Bad::State),
    }
}

/// How many states connections of a protocol have; C `num_states`.
const fn states_of(proto: u8) -> Option<u8> {
    match proto {
        proto::IPPROTO_TCP => Some(proto::tcp::State::LAST),
        proto::IPPROTO_UDP => Some(proto::udp::State::LAST),
        proto::IPPROTO_SCTP => Some(proto::sctp::State::LAST),
        proto::IPPROTO_AH | proto::IPPROTO_ESP => Some(1),
        _ => None,
    }
}
