// SPDX-License-Identifier: GPL-2.0-only

//! Connection synchronisation between directors: C `ip_vs_sync.c`.
//!
//! A *master* tells others about its connections, in multicast datagrams; a *backup* makes the connections that it is told of its
//! own, so that it can go on with them. Both are a few threads, started and stopped by [`daemons`]. What a packet has to do with
//! it is in [`Sender::offer()`]; what is not done here but decided is in `rvs_core::sync`.

mod backup;
mod daemons;
mod lane;

pub(crate) use daemons::{
    Config,
    Daemons, //
};

use crate::{
    conn::Conn,
    os::{
        atomic::{
            Usize, //
            I32,
            I64,
            U32,
        },
        memory,
        rcu::{
            Held,
            RcuCell, //
        }, //
    },
};
use kernel::{
    ffi::c_int,
    prelude::*,
    sync::Arc, //
};
use lane::Lanes;
use rvs_core::sync::{
    announce::{
        Asked,
        Policy, //
    },
    Version, //
};

/// How many namespaces there have been: each has a number in the names of its threads, as in C.
static GENERATIONS: U32 = U32::new(0);

/// The sysctls of both daemons.
pub(crate) struct Settings {
    pub(crate) version: I32,
    pub(crate) ports: I32,
    pub(crate) persist_mode: I32,
    pub(crate) qlen_max: Usize,
    pub(crate) sock_size: I32,
    /// In jiffies.
    pub(crate) refresh_period: I32,
    pub(crate) retries: I32,
    /// Threshold and period, which only make sense together: the second one above the first.
    threshold: I64,
}

impl Settings {
    fn new() -> Self {
        Self {
            version: I32::new(1),
            ports: I32::new(1),
            persist_mode: I32::new(0),
            qlen_max: Usize::new(memory::buffer_pages() / 32),
            sock_size: I32::new(0),
            refresh_period: I32::new(0),
            retries: I32::new(0),
            threshold: I64::new(3 | 50 << 32),
        }
    }

    /// Sysctl `sync_threshold`: the packet that a connection is announced with first, and every how many it is again.
    pub(crate) fn thresholds(&self) -> [c_int; 2] {
        let both = self.threshold.load();
        [both as c_int, (both >> 32) as c_int]
    }

    /// Sets `sync_threshold`: C `proc_do_sync_threshold()`.
    pub(crate) fn set_thresholds(&self, [threshold, period]: [c_int; 2]) -> Result {
        if threshold < 0 || period < 0 || (threshold >= period && period != 0) {
            return Err(EINVAL);
        }
        self.threshold
            .store(i64::from(threshold) | i64::from(period) << 32);
        Ok(())
    }

    /// The packet that a connection is announced with first.
    pub(crate) fn threshold(&self) -> u32 {
        self.threshold.load() as u32
    }

    fn version(&self) -> Version {
        if self.version.load() == 0 {
            Version::V0
        } else {
            Version::V1
        }
    }

    fn policy(&self) -> Policy {
        let [threshold, period] = self.thresholds();
        Policy {
            threshold: threshold as u32,
            period: period as u32,
            refresh: self.refresh_period.load() as u32,
            retries: self.retries.load() as u32,
            persist_mode: self.persist_mode.load() != 0,
        }
    }
}

/// What a namespace has to tell others about its connections.
pub(crate) struct Sender {
    pub(crate) settings: Settings,
    /// Where announcements go, while there is a master.
    lanes: RcuCell<Lanes>,
    /// The number in the names of the namespace's threads.
    generation: u32,
}

impl Sender {
    /// Makes that of a new namespace.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let new = Self {
            settings: Settings::new(),
            lanes: RcuCell::empty(),
            generation: GENERATIONS.fetch_add(1),
        };
        Ok(Arc::new(new, GFP_KERNEL)?)
    }

    /// Announces a connection, if it is time to, and then those that control it: C `ip_vs_sync_conn()`. `pkts` is the number of
    /// the packet, or the threshold where it is not about a packet. Does not sleep.
    #[cold]
    #[inline(never)]
    pub(crate) fn offer(&self, conn: &Conn, pkts: u32, g: &Held) {
        let Some(lanes) = self.lanes.load(g) else {
            return;
        };
        let version = self.settings.version();
        let policy = self.settings.policy();
        let (mut at, mut pkts) = (conn, pkts);
        // A data connection, its control connection, the template of that: there is no longer chain.
        for _ in 0..3 {
            let announced = at.is_due(version, &policy, pkts)
                && lanes.add(version, self.settings.qlen_max.load(), at);
            if !Asked::goes_on_to_controller(version, announced) {
                return;
            }
            let Some(control) = at.controller() else {
                return;
            };
            pkts = policy.controller_pkts(control.is_template(), || control.count_exactly());
            at = control;
        }
    }

    /// Announces a connection whose end is put off.
    pub(crate) fn offer_deferred(&self, conn: &Conn) {
        crate::os::rcu::read(|g| {
            if !self.lanes.is_empty() {
                self.offer(conn, self.settings.threshold(), g);
            }
        });
    }

    /// Announces the connection of a packet, if it is time to, and counts the packet.
    #[cold]
    #[inline(never)]
    pub(crate) fn packet(&self, conn: &Conn, g: &Held) {
        let pkts = if conn.is_one_packet() {
            self.settings.threshold()
        } else {
            conn.count_exactly()
        };
        self.offer(conn, pkts, g);
    }
}
