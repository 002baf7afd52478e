// SPDX-License-Identifier: GPL-2.0-only

//! The SCTP common header and chunk headers, RFC 9260; C `struct sctphdr`, `struct sctp_chunkhdr`.

use super::{
    Ports,
    Source, //
};

/// Length of the common header.
pub const HEADER_LEN: usize = 12;

/// Length of a chunk header.
pub const CHUNK_HEADER_LEN: usize = 4;

/// The head of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// Chunk type, C `SCTP_CID_*`.
    pub kind: u8,
    /// Chunk flags.
    pub flags: u8,
    /// Length in bytes, this header included, padding excluded.
    pub length: u16,
}

/// The common header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sctp {
    /// Both ports.
    pub ports: Ports,
    /// Verification tag, in memory order.
    pub vtag: u32,
    /// CRC32c, as it lies in memory.
    pub checksum: u32,
}

impl Sctp {
    /// The header at the start of `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(Self::from_bytes)
    }

    /// The header of exactly 12 bytes.
    #[inline]
    pub const fn from_bytes(b: &[u8; HEADER_LEN]) -> Self {
        Sctp {
            ports: Ports::from_bytes([b[0], b[1], b[2], b[3]]),
            vtag: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            checksum: u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
        }
    }
}

/// The chunk header at `offset`.
#[inline]
pub fn chunk<S: Source + ?Sized>(packet: &S, offset: usize) -> Option<Chunk> {
    let [kind, flags, hi, lo] = packet.read::<CHUNK_HEADER_LEN>(offset)?;
    Some(Chunk {
        kind,
        flags,
        length: u16::from_be_bytes([hi, lo]),
    })
}
