// SPDX-License-Identifier: GPL-2.0-only

//! TCP as the balancer sees it; C file: `ip_vs_proto_tcp.c`.
//!
//! The director sees both directions of a NATed connection, and only the client's half of the
//! others, so that its states are guesses. A SYN in `SYN_SENT` means an active FTP data
//! connection: the first SYN came from the server.
//!
//! ```text
//!  client SYN           server SYN+ACK          client ACK
//!  NONE ────► SYN_RECV ───────────────► SYN_RECV ─────────► ESTABLISHED
//!
//!  ESTABLISHED ── client FIN ──► CLOSE_WAIT ── server FIN ──► TIME_WAIT
//!  ESTABLISHED ── server FIN ──► FIN_WAIT ─── client FIN ──► TIME_WAIT
//!  any ── RST ──► CLOSE
//! ```

use super::{
    states::Row,
    Direction,
    ERR, //
};

/// The states; C `IP_VS_TCP_S_*`. A name space: states are plain `u8`.
#[derive(Clone, Copy, Debug)]
pub enum State {}

#[allow(missing_docs)]
impl State {
    pub const NONE: u8 = 0;
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT: u8 = 4;
    pub const TIME_WAIT: u8 = 5;
    pub const CLOSE: u8 = 6;
    pub const CLOSE_WAIT: u8 = 7;
    pub const LAST_ACK: u8 = 8;
    pub const LISTEN: u8 = 9;
    pub const SYNACK: u8 = 10;
    /// How many there are; C `IP_VS_TCP_S_LAST`.
    pub const LAST: u8 = 11;
}

/// The names of the states, by number.
pub const NAMES: [&str; State::LAST as usize] = [
    "NONE",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
];

/// How long a connection stays in each state without a packet, in seconds; C `tcp_timeouts`. The
/// last entry is C's sentinel. Of these only `ESTABLISHED` and `FIN_WAIT` can be configured.
pub const DEFAULT_TIMEOUT_SECS: [u32; State::LAST as usize + 1] =
    [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 2];

/// The flags of a TCP header, its byte 13.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;

    /// FIN is set.
    #[inline]
    pub const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// SYN is set.
    #[inline]
    pub const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// RST is set.
    #[inline]
    pub const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }

    /// ACK is set.
    #[inline]
    pub const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }

    /// Whether a packet may create a connection: no RST, and SYN unless `sloppy` (sysctl
    /// `sloppy_tcp`). ACK does not matter, for active FTP.
    #[inline]
    pub const fn may_schedule(self, sloppy: bool) -> bool {
        !self.rst() && (sloppy || self.syn())
    }

    /// Whether a packet that matches a connection starts another one; C `is_new_conn()`.
    #[inline]
    pub const fn is_new_conn(self) -> bool {
        self.syn()
    }
}

/// What a packet means to the state machine; C `tcp_state_idx()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Event {
    Syn = 0,
    Fin = 1,
    Ack = 2,
    Rst = 3,
}

/// The event of a packet: the first of RST, SYN, FIN, ACK that is set.
#[inline]
pub const fn event(flags: Flags) -> Option<Event> {
    if flags.rst() {
        Some(Event::Rst)
    } else if flags.syn() {
        Some(Event::Syn)
    } else if flags.fin() {
        Some(Event::Fin)
    } else if flags.ack() {
        Some(Event::Ack)
    } else {
        None
    }
}

/// Which transitions apply; sysctl `secure_tcp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Table {
    /// C `tcp_states`.
    Normal = 0,
    /// Distrusts half-open connections; C `tcp_states_dos`.
    Dos = 1,
}

const NO: u8 = State::NONE;
const ES: u8 = State::ESTABLISHED;
const SS: u8 = State::SYN_SENT;
const SR: u8 = State::SYN_RECV;
const FW: u8 = State::FIN_WAIT;
const TW: u8 = State::TIME_WAIT;
const CL: u8 = State::CLOSE;
const CW: u8 = State::CLOSE_WAIT;
const LA: u8 = State::LAST_ACK;
const LI: u8 = State::LISTEN;
const SA: u8 = State::SYNACK;

const fn row(next: [u8; State::LAST as usize]) -> Row {
    Row::new(next, CL)
}

/// `STAY` in place of a row keeps every state as it is; a filler that is never reached.
const STAY: Row = row([NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA]);

/// The rows in the order table, direction (four places for three), event.
#[rustfmt::skip]
static ROWS: [Row; 32] = [
    // From:        NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    // Normal, input.
    /* SYN */ row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]),
    /* FIN */ row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]),
    /* ACK */ row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
    /* RST */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]),
    // Normal, output.
    /* SYN */ row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]),
    /* FIN */ row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]),
    /* ACK */ row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]),
    /* RST */ row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]),
    // Normal, input only.
    /* SYN */ row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]),
    /* FIN */ row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]),
    /* ACK */ row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
    /* RST */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
    STAY, STAY, STAY, STAY,
    // DoS, input.
    /* SYN */ row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA]),
    /* FIN */ row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA]),
    /* ACK */ row([ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA]),
    /* RST */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
    // DoS, output.
    /* SYN */ row([SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA]),
    /* FIN */ row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]),
    /* ACK */ row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]),
    /* RST */ row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]),
    // DoS, input only.
    /* SYN */ row([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]),
    /* FIN */ row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]),
    /* ACK */ row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]),
    /* RST */ row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]),
    STAY, STAY, STAY, STAY,
];

/// The state after a packet; the core of C `set_tcp_state()`.
///
/// `flags_byte` is byte 13 of the TCP header. A packet without any of RST, SYN, FIN and ACK closes
/// the connection, and so does any packet in a state that does not exist.
#[inline]
pub fn transition(table: Table, dir: Direction, state: u8, flags_byte: u8) -> u8 {
    match event(Flags(flags_byte)) {
        Some(event) => {
            let at = ((table as usize) << 4) | ((dir as usize) << 2) | event as usize;
            ROWS.get(at).map_or(CL, |row| row.next(state))
        }
        None => CL,
    }
}

/// Whether a connection in this state counts as active; C `tcp_state_active()`.
#[inline]
pub const fn is_active(state: u8) -> bool {
    matches!(
        state,
        State::ESTABLISHED | State::SYN_SENT | State::SYN_RECV | State::SYNACK
    )
}

/// The name of a state, `ERR!` for one that does not exist; C `tcp_state_name()`.
pub fn state_name(state: u8) -> &'static str {
    NAMES.get(usize::from(state)).copied().unwrap_or(ERR)
}

/// Whether a connection in this state may be replaced by a new one from the same client port, with
/// sysctl `conn_reuse_mode` at `mode`, not zero; the TCP part of C `is_new_conn_expected()`.
///
/// `no_output`: replies do not pass here (`IP_VS_CONN_F_NOOUTPUT`).
#[inline]
pub const fn expects_new_conn(state: u8, mode: u32, no_output: bool) -> bool {
    match state {
        State::TIME_WAIT | State::CLOSE => true,
        State::FIN_WAIT => mode & 2 != 0 && no_output,
        _ => false,
    }
}
