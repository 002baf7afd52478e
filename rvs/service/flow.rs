// SPDX-License-Identifier: GPL-2.0-only

//! What a scheduler sees of a packet that begins a connection.

use crate::{
    conn::Tuple,
    control::sysctl::Sysctl,
    os::random, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    proto::{
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    sched, //
};

/// A packet from a client, with the settings of its namespace.
pub(crate) struct Flow<'a> {
    /// Addresses, ports and protocol.
    pub(crate) tuple: &'a Tuple,
    /// The settings.
    pub(crate) sysctl: &'a Sysctl,
}

impl sched::Flow for Flow<'_> {
    #[inline]
    fn family(&self) -> Family {
        if self.tuple.v6 {
            Family::V6
        } else {
            Family::V4
        }
    }

    #[inline]
    fn client(&self) -> &Addr {
        &self.tuple.src
    }

    #[inline]
    fn client_port(&self) -> Be16 {
        match self.tuple.proto {
            IPPROTO_TCP | IPPROTO_UDP | IPPROTO_SCTP => self.tuple.sport,
            _ => 0,
        }
    }

    #[inline]
    fn target(&self) -> &Addr {
        &self.tuple.dst
    }

    fn random(&self, max: u32) -> u32 {
        random::up_to(max)
    }
}
