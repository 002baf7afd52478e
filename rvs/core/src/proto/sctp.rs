// SPDX-License-Identifier: GPL-2.0-only

//! SCTP as the balancer sees it; C file: `ip_vs_proto_sctp.c`.

use super::{
    states::Row,
    Direction,
    ERR, //
};
use crate::wire::{
    sctp as wire,
    Source, //
};

/// The states; C `IP_VS_SCTP_S_*`. A name space: states are plain `u8`.
#[derive(Clone, Copy, Debug)]
pub enum State {}

#[allow(missing_docs)]
impl State {
    pub const NONE: u8 = 0;
    pub const INIT1: u8 = 1;
    pub const INIT: u8 = 2;
    pub const COOKIE_SENT: u8 = 3;
    pub const COOKIE_REPLIED: u8 = 4;
    pub const COOKIE_WAIT: u8 = 5;
    pub const COOKIE: u8 = 6;
    pub const COOKIE_ECHOED: u8 = 7;
    pub const ESTABLISHED: u8 = 8;
    pub const SHUTDOWN_SENT: u8 = 9;
    pub const SHUTDOWN_RECEIVED: u8 = 10;
    pub const SHUTDOWN_ACK_SENT: u8 = 11;
    pub const REJECTED: u8 = 12;
    pub const CLOSED: u8 = 13;
    /// How many there are; C `IP_VS_SCTP_S_LAST`.
    pub const LAST: u8 = 14;
}

/// The names of the states, by number.
pub const NAMES: [&str; State::LAST as usize] = [
    "NONE",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "ESTABLISHED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];

/// How long an association stays in each state without a packet, in seconds; C `sctp_timeouts`. The
/// last entry is C's sentinel. None can be configured.
pub const DEFAULT_TIMEOUT_SECS: [u32; State::LAST as usize + 1] =
    [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61, 2];

/// Chunk types that matter here; C `SCTP_CID_*`. A name space.
#[derive(Clone, Copy, Debug)]
pub enum ChunkType {}

#[allow(missing_docs)]
impl ChunkType {
    pub const DATA: u8 = 0;
    pub const INIT: u8 = 1;
    pub const INIT_ACK: u8 = 2;
    pub const SACK: u8 = 3;
    pub const HEARTBEAT: u8 = 4;
    pub const HEARTBEAT_ACK: u8 = 5;
    pub const ABORT: u8 = 6;
    pub const SHUTDOWN: u8 = 7;
    pub const SHUTDOWN_ACK: u8 = 8;
    pub const ERROR: u8 = 9;
    pub const COOKIE_ECHO: u8 = 10;
    pub const COOKIE_ACK: u8 = 11;
    pub const ECN_ECNE: u8 = 12;
    pub const ECN_CWR: u8 = 13;
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// What a packet means to the state machine; C `enum ipvs_sctp_event_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Event {
    Data = 0,
    Init = 1,
    InitAck = 2,
    CookieEcho = 3,
    CookieAck = 4,
    Shutdown = 5,
    ShutdownAck = 6,
    ShutdownComplete = 7,
    Error = 8,
    Abort = 9,
}

impl Event {
    /// The event of a chunk type; what is unknown counts as data.
    #[inline]
    pub const fn of_chunk(kind: u8) -> Self {
        match kind {
            ChunkType::INIT => Event::Init,
            ChunkType::INIT_ACK => Event::InitAck,
            ChunkType::ABORT => Event::Abort,
            ChunkType::SHUTDOWN => Event::Shutdown,
            ChunkType::SHUTDOWN_ACK => Event::ShutdownAck,
            ChunkType::ERROR => Event::Error,
            ChunkType::COOKIE_ECHO => Event::CookieEcho,
            ChunkType::COOKIE_ACK => Event::CookieAck,
            ChunkType::SHUTDOWN_COMPLETE => Event::ShutdownComplete,
            _ => Event::Data,
        }
    }
}

/// The event of the SCTP packet whose common header is at `offset`: its first chunk, or an ABORT
/// bundled right after a cookie chunk. `None`, no change of state, if there is no chunk.
pub fn event<S: Source + ?Sized>(packet: &S, offset: usize) -> Option<Event> {
    let at = offset.checked_add(wire::HEADER_LEN)?;
    let first = wire::chunk(packet, at)?;

    if matches!(first.kind, ChunkType::COOKIE_ECHO | ChunkType::COOKIE_ACK)
        && usize::from(first.length) >= wire::CHUNK_HEADER_LEN
    {
        // Chunks are padded to four bytes; 65535 rounds up to 65536.
        let padded = usize::from(first.length).wrapping_add(3) & !3;
        let second = at
            .checked_add(padded)
            .and_then(|next| wire::chunk(packet, next));
        if second.is_some_and(|chunk| chunk.kind == ChunkType::ABORT) {
            return Some(Event::Abort);
        }
    }
    Some(Event::of_chunk(first.kind))
}

/// Whether a packet with this first chunk may create an association: no ABORT, and INIT unless
/// `sloppy` (sysctl `sloppy_sctp`).
#[inline]
pub const fn may_schedule(first_chunk: u8, sloppy: bool) -> bool {
    first_chunk != ChunkType::ABORT && (sloppy || first_chunk == ChunkType::INIT)
}

const I1: u8 = State::INIT1;
const IN: u8 = State::INIT;
const CS: u8 = State::COOKIE_SENT;
const CR: u8 = State::COOKIE_REPLIED;
const CW: u8 = State::COOKIE_WAIT;
const CO: u8 = State::COOKIE;
const CE: u8 = State::COOKIE_ECHOED;
const ES: u8 = State::ESTABLISHED;
const SS: u8 = State::SHUTDOWN_SENT;
const SR: u8 = State::SHUTDOWN_RECEIVED;
const SA: u8 = State::SHUTDOWN_ACK_SENT;
const RJ: u8 = State::REJECTED;
const CL: u8 = State::CLOSED;

const fn row(next: [u8; State::LAST as usize]) -> Row {
    Row::new(next, CL)
}

/// The rows in the order direction, event.
#[rustfmt::skip]
static ROWS: [[Row; 10]; 3] = [
    // Input.
    [
        // From:                     NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
        /* DATA              */ row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* INIT              */ row([I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN]),
        /* INIT-ACK          */ row([CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* COOKIE-ECHO       */ row([CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* COOKIE-ACK        */ row([ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]),
        /* SHUTDOWN          */ row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
        /* SHUTDOWN-ACK      */ row([CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL]),
        /* SHUTDOWN-COMPLETE */ row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL]),
        /* ERROR             */ row([CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL]),
        /* ABORT             */ row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
    ],
    // Output.
    [
        /* DATA              */ row([ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* INIT              */ row([CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW]),
        /* INIT-ACK          */ row([CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* COOKIE-ECHO       */ row([CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL]),
        /* COOKIE-ACK        */ row([ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL]),
        /* SHUTDOWN          */ row([SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL]),
        /* SHUTDOWN-ACK      */ row([SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL]),
        /* SHUTDOWN-COMPLETE */ row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* ERROR             */ row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* ABORT             */ row([CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]),
    ],
    // Input only.
    [
        /* DATA              */ row([ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* INIT              */ row([I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN]),
        /* INIT-ACK          */ row([CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* COOKIE-ECHO       */ row([ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* COOKIE-ACK        */ row([ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL]),
        /* SHUTDOWN          */ row([SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]),
        /* SHUTDOWN-ACK      */ row([CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]),
        /* SHUTDOWN-COMPLETE */ row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL]),
        /* ERROR             */ row([CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]),
        /* ABORT             */ row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]),
    ],
];

/// The state after a packet; the core of C `set_sctp_state()`. Any packet in a state that does not
/// exist closes the association.
#[inline]
pub fn transition(dir: Direction, state: u8, event: Event) -> u8 {
    ROWS.get(dir as usize)
        .and_then(|rows| rows.get(event as usize))
        .map_or(CL, |row| row.next(state))
}

/// Whether an association in this state counts as active.
#[inline]
pub const fn is_active(state: u8) -> bool {
    state == State::ESTABLISHED
}

/// Whether an association in this state may be replaced by a new one from the same client port,
/// with sysctl `conn_reuse_mode` not zero.
#[inline]
pub const fn expects_new_conn(state: u8) -> bool {
    state == State::CLOSED
}

/// The name of a state, `ERR!` for one that does not exist; C `sctp_state_name()`.
pub fn state_name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or(ERR)
}
