// SPDX-License-Identifier: GPL-2.0-only

//! From connections to datagrams; C `ip_vs_sync_conn()`, `ip_vs_sync_conn_v0()`.
//!
//! A [`Writer`] is the state of a datagram that is being filled; the bytes are the caller's. The caller keeps both, adds records
//! until one is refused with [`Refused::Full`], sends [`Writer::len()`] bytes and begins anew.
//!
//! ```
//! use rvs_core::sync::{encode::*, *};
//!
//! # let connection = Record { family: rvs_core::addr::Family::V4, proto: 6, cport: 1, vport: 2, dport: 3,
//! #     caddr: Default::default(), vaddr: Default::default(), daddr: Default::default(),
//! #     flags: 0, state: 1, fwmark: 0, timeout: 900, seq: None, pe: None };
//! let len = room(Version::V1, &connection, 1472).unwrap();
//! let mut bytes = vec![0; len];
//! let mut writer = Writer::new(Version::V1, 7, &mut bytes).unwrap();
//! writer.push(&mut bytes, &connection).unwrap();
//! let datagram = &bytes[..writer.len()];
//! assert_eq!(datagram[..8], [0, 7, 0, 44, 1, 1, 0, 0]);
//! ```

use super::{
    fixed_len_v1,
    option,
    Record,
    Seq,
    SeqPair,
    Version,
    FIXED_LEN_V0,
    MAX_RECORDS,
    SENT_MASK,
    TYPE_INET6, //
};
use crate::{
    addr::{
        Addr,
        Family, //
    },
    uapi::{
        conn_flag,
        PEDATA_MAXLEN,
        PENAME_MAXLEN, //
    },
};

/// Why a record was not added. Nothing was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is no room for it, or the datagram has 255 records, or it is of the other version: it is time to send, and to begin
    /// anew with [`room()`] bytes.
    Full,
    /// It can be said in no datagram of this version: IPv6 in version 0, or a persistence engine's name or data of more bytes than
    /// C's limits.
    Unspeakable,
}

/// How many bytes a record has, without the padding in front of it; `None` if it is [`Refused::Unspeakable`].
pub const fn record_len(version: Version, record: &Record<'_>) -> Option<usize> {
    let seq = record.flags & conn_flag::SEQ_MASK != 0;
    match version {
        Version::V0 => match record.family {
            Family::V4 => Some(if seq {
                FIXED_LEN_V0.wrapping_add(SeqPair::LEN)
            } else {
                FIXED_LEN_V0
            }),
            Family::V6 => None,
        },
        Version::V1 => {
            // At most 72 + 26 + 257 + 18.
            let mut len = fixed_len_v1(record.family);
            if seq {
                len = len.wrapping_add(SeqPair::LEN + 2);
            }
            if let Some(pe) = &record.pe {
                if pe.data.len() > PEDATA_MAXLEN || pe.name.len() > PENAME_MAXLEN {
                    return None;
                }
                if !pe.data.is_empty() {
                    len = len.wrapping_add(pe.data.len()).wrapping_add(2);
                    if !pe.name.is_empty() {
                        len = len.wrapping_add(pe.name.len()).wrapping_add(2);
                    }
                }
            }
            Some(len)
        }
    }
}

/// How many bytes to reserve for a datagram that begins with `record`: `maxlen`, the daemon's `sync_maxlen`, or more if the record
/// alone needs more. `None` if it is [`Refused::Unspeakable`].
pub const fn room(version: Version, record: &Record<'_>, maxlen: u16) -> Option<usize> {
    match record_len(version, record) {
        Some(len) => {
            let least = len.wrapping_add(version.header_len());
            let maxlen = maxlen as usize;
            Some(if least > maxlen { least } else { maxlen })
        }
        None => None,
    }
}

/// A datagram that is being filled; C `struct ip_vs_sync_buff`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    version: Version,
    /// Bytes written.
    len: u16,
    /// Records written.
    count: u8,
}

impl Writer {
    /// Begins a datagram in `bytes`: writes the header. `None` if there is no room for it. The C module puts the low byte of a
    /// greater sync ID here, too.
    pub fn new(version: Version, syncid: u8, bytes: &mut [u8]) -> Option<Self> {
        let len = match version {
            Version::V0 => {
                *bytes.first_chunk_mut()? = [0, syncid, 0, 4];
                4
            }
            Version::V1 => {
                *bytes.first_chunk_mut()? = [0, syncid, 0, 8, 0, 1, 0, 0];
                8
            }
        };
        Some(Self {
            version,
            len,
            count: 0,
        })
    }

    /// The version of the protocol.
    #[inline]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Bytes written: what to send.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no record yet.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Records written.
    #[inline]
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// Adds a record. `bytes` are those given to [`Writer::new()`], and written by nobody else since.
    ///
    /// # Errors
    ///
    /// See [`Refused`]. Then nothing was written, and the datagram is as it was.
    ///
    /// The C module lets the number of records wrap around, which loses 256 of them; here a datagram is full at 255.
    pub fn push(&mut self, bytes: &mut [u8], record: &Record<'_>) -> Result<(), Refused> {
        let len = record_len(self.version, record).ok_or(Refused::Unspeakable)?;
        if self.count == MAX_RECORDS {
            return Err(Refused::Full);
        }
        let at = usize::from(self.len);
        let pad = match self.version {
            Version::V0 => 0,
            Version::V1 => at.wrapping_neg() & 3,
        };
        // Small numbers all: no overflow.
        let end = at.wrapping_add(pad).wrapping_add(len);
        let Ok(size) = u16::try_from(end) else {
            return Err(Refused::Full);
        };
        let room = bytes.get_mut(at..end).ok_or(Refused::Full)?;
        let mut out = Out(room);
        // `record_len()` counted what is written here, so that the end is not met on the way.
        let written = match self.version {
            Version::V0 => out.record_v0(record),
            Version::V1 => out.zeros(pad).and_then(|()| out.record_v1(record, len)),
        };
        written.ok_or(Refused::Full)?;

        let count = self.count.wrapping_add(1);
        let header = bytes.first_chunk_mut::<5>().ok_or(Refused::Full)?;
        [header[2], header[3]] = size.to_be_bytes();
        match self.version {
            Version::V0 => header[0] = count,
            Version::V1 => header[4] = count,
        }
        (self.len, self.count) = (size, count);
        Ok(())
    }
}

/// What is left of the room for a record.
struct Out<'a>(&'a mut [u8]);

impl Out<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let (to, rest) = core::mem::take(&mut self.0).split_at_mut_checked(bytes.len())?;
        to.copy_from_slice(bytes);
        self.0 = rest;
        Some(())
    }

    fn zeros(&mut self, n: usize) -> Option<()> {
        self.put([0; 3].get(..n)?)
    }

    fn addr(&mut self, family: Family, addr: &Addr) -> Option<()> {
        match family {
            Family::V4 => self.put(&addr.v4_be().to_ne_bytes()),
            Family::V6 => self.put(&addr.bytes()),
        }
    }

    fn seq(&mut self, seq: &Seq, bytes: fn(u32) -> [u8; 4]) -> Option<()> {
        self.put(&bytes(seq.init_seq))?;
        self.put(&bytes(seq.delta))?;
        self.put(&bytes(seq.previous_delta))
    }

    fn seqs(&mut self, record: &Record<'_>, bytes: fn(u32) -> [u8; 4]) -> Option<()> {
        let pair = record.seq.unwrap_or_default();
        self.seq(&pair.incoming, bytes)?;
        self.seq(&pair.outgoing, bytes)
    }

    /// An option. Its length was checked: it fits in a byte.
    fn option(&mut self, kind: u8, value: &[u8]) -> Option<()> {
        self.put(&[kind, u8::try_from(value.len()).ok()?])?;
        self.put(value)
    }

    fn record_v0(&mut self, record: &Record<'_>) -> Option<()> {
        self.put(&[0, record.proto])?;
        self.ports(record)?;
        self.addrs(record)?;
        let flags = (record.flags & SENT_MASK) as u16;
        self.put(&flags.to_be_bytes())?;
        self.put(&u16::from(record.state).to_be_bytes())?;
        if record.flags & conn_flag::SEQ_MASK != 0 {
            self.seqs(record, u32::to_ne_bytes)?;
        }
        Some(())
    }

    fn record_v1(&mut self, record: &Record<'_>, len: usize) -> Option<()> {
        let kind = match record.family {
            Family::V4 => 0,
            Family::V6 => TYPE_INET6,
        };
        self.put(&[kind, record.proto])?;
        // The upper four bits are the record's version, zero.
        self.put(&(len as u16).to_be_bytes())?;
        self.put(&(record.flags & SENT_MASK).to_be_bytes())?;
        self.put(&u16::from(record.state).to_be_bytes())?;
        self.ports(record)?;
        self.put(&record.fwmark.to_be_bytes())?;
        self.put(&record.timeout.to_be_bytes())?;
        self.addrs(record)?;
        if record.flags & conn_flag::SEQ_MASK != 0 {
            self.put(&[option::SEQ_DATA, SeqPair::LEN as u8])?;
            self.seqs(record, u32::to_be_bytes)?;
        }
        if let Some(pe) = record.pe.filter(|pe| !pe.data.is_empty()) {
            self.option(option::PE_DATA, pe.data)?;
            if !pe.name.is_empty() {
                self.option(option::PE_NAME, pe.name)?;
            }
        }
        Some(())
    }

    fn ports(&mut self, record: &Record<'_>) -> Option<()> {
        self.put(&record.cport.to_ne_bytes())?;
        self.put(&record.vport.to_ne_bytes())?;
        self.put(&record.dport.to_ne_bytes())
    }

    fn addrs(&mut self, record: &Record<'_>) -> Option<()> {
        self.addr(record.family, &record.caddr)?;
        self.addr(record.family, &record.vaddr)?;
        self.addr(record.family, &record.daddr)
    }
}
