// SPDX-License-Identifier: GPL-2.0-only

//! Counters of one connection, for those who ask: sysctl `rvs_conn_counters`.

use crate::os::{
    atomic::I64,
    time, //
};
use kernel::{
    alloc::flags::*,
    prelude::*, //
};

/// What a connection has sent and got.
pub(super) struct Account {
    /// When it began, in milliseconds since the machine did.
    began: u64,
    in_pkts: I64,
    in_bytes: I64,
    out_pkts: I64,
    out_bytes: I64,
}

/// What an [`Account`] says at one time.
#[derive(Clone, Copy)]
pub(crate) struct Counts {
    /// Packets from the client.
    pub(crate) in_pkts: u64,
    /// Bytes from the client, from the network header on.
    pub(crate) in_bytes: u64,
    /// Packets to the client.
    pub(crate) out_pkts: u64,
    /// Bytes to the client.
    pub(crate) out_bytes: u64,
    /// Milliseconds since the connection began.
    pub(crate) age: u64,
}

impl Account {
    /// Begins to count; does not sleep. Without memory nothing is counted.
    pub(super) fn new() -> Option<KBox<Self>> {
        let new = Self {
            began: time::uptime_ms(),
            in_pkts: I64::new(0),
            in_bytes: I64::new(0),
            out_pkts: I64::new(0),
            out_bytes: I64::new(0),
        };
        KBox::new(new, GFP_ATOMIC | __GFP_NOWARN).ok()
    }

    /// Counts a packet from the client. Nothing is lost, whatever other CPUs count.
    #[cold]
    pub(super) fn packet_in(&self, bytes: u32) {
        self.in_pkts.add(1);
        self.in_bytes.add(bytes.into());
    }

    /// Counts a packet to the client.
    #[cold]
    pub(super) fn packet_out(&self, bytes: u32) {
        self.out_pkts.add(1);
        self.out_bytes.add(bytes.into());
    }

    /// What was counted up to now.
    pub(super) fn read(&self) -> Counts {
        let number = |word: &I64| word.load() as u64;
        Counts {
            in_pkts: number(&self.in_pkts),
            in_bytes: number(&self.in_bytes),
            out_pkts: number(&self.out_pkts),
            out_bytes: number(&self.out_bytes),
            age: time::uptime_ms().saturating_sub(self.began),
        }
    }
}
