// SPDX-License-Identifier: GPL-2.0-only

//! Defense against floods, as the sysctls `drop_entry`, `drop_packet` and `secure_tcp` tell: C `update_defense_level()`,
//! `defense_work_handler()`.

use super::{
    Conn,
    ConnTable, //
};
use crate::os::{
    atomic::{
        Bool,
        I32, //
    },
    lock::SpinBh,
    memory,
    random,
    rcu,
    table::Ref,
    time::{
        self,
        HZ, //
    }, //
};
use kernel::{
    c_str,
    static_lock_class, //
};
use rvs_core::{
    defense::{
        self,
        Fate,
        Idle, //
    },
    proto::{
        tcp,
        template, //
    },
    timeout::DEFERRED_SECS, //
};

/// What part of the connection table is looked through each second: one of so many chains.
const PART: usize = 32;

/// How long a connection must have been idle.
const IDLE: u32 = DEFERRED_SECS.wrapping_mul(HZ);

/// What the defense does at present.
pub(crate) struct Defense {
    /// Of so many new connections one is dropped; 0: none.
    drop_rate: I32,
    /// Until the next.
    drop_counter: I32,
    drops_entries: Bool,
    secure_tcp: Bool,
    idle: SpinBh<Idle>,
}

/// The sysctls that steer it; they change themselves in the automatic modes.
pub(crate) struct Knobs<'a> {
    pub(crate) amemthresh: i32,
    pub(crate) am_droprate: i32,
    pub(crate) drop_entry: &'a I32,
    pub(crate) drop_packet: &'a I32,
    pub(crate) secure_tcp: &'a I32,
}

impl Knobs<'_> {
    /// Whether anything is on, or may come on.
    pub(crate) fn any(&self) -> bool {
        [self.drop_entry, self.drop_packet, self.secure_tcp]
            .iter()
            .any(|mode| mode.load() != defense::OFF)
    }
}

impl Defense {
    /// Everything is off.
    pub(crate) fn new() -> Self {
        Self {
            drop_rate: I32::new(0),
            drop_counter: I32::new(0),
            drops_entries: Bool::new(false),
            secure_tcp: Bool::new(false),
            idle: SpinBh::new(Idle::new(), c_str!("rvs_idle"), static_lock_class!()),
        }
    }

    /// Whether this packet, which would begin a connection, is to be dropped: C `ip_vs_todrop()`.
    #[inline(always)]
    pub(crate) fn drops_packet(&self) -> bool {
        let rate = self.drop_rate.load();
        rate != 0 && self.counts_down(rate)
    }

    /// Two CPUs at once may count as one, as in C.
    #[cold]
    fn counts_down(&self, rate: i32) -> bool {
        let left = self.drop_counter.load().wrapping_sub(1);
        self.drop_counter.store(if left > 0 { left } else { rate });
        left <= 0
    }

    /// TCP's transitions.
    #[inline(always)]
    pub(crate) fn tcp_table(&self) -> tcp::Table {
        if self.secure_tcp.load() {
            tcp::Table::Dos
        } else {
            tcp::Table::Normal
        }
    }

    /// Looks at the memory that is left, and at the modes.
    pub(crate) fn update(&self, knobs: &Knobs<'_>) {
        let available = i32::try_from(memory::available_pages()).unwrap_or(i32::MAX);
        let is_short = available < knobs.amemthresh.max(0);

        let set = |knob: &I32| {
            let old = knob.load();
            let (mode, active) = defense::level(old, is_short);
            if mode != old {
                // Not over what is written at the same time.
                knob.replace(old, mode);
            }
            (mode, active)
        };
        self.drops_entries.store(set(knobs.drop_entry).1);
        self.secure_tcp.store(set(knobs.secure_tcp).1);
        let rate = match set(knobs.drop_packet) {
            (defense::ALWAYS, _) => knobs.am_droprate,
            (_, true) => {
                let rate = defense::drop_rate(knobs.amemthresh, available);
                self.drop_counter.store(rate);
                rate
            }
            _ => 0,
        };
        self.drop_rate.store(rate);
    }

    /// Drops connections, if that is on, from a part of the table that chance chooses: C `ip_vs_random_dropentry()`. May
    /// sleep.
    pub(crate) fn drop_entries(&self, conns: &ConnTable) {
        if !self.drops_entries.load() {
            return;
        }
        let size = conns.size();
        let [start, _] = random::bytes16();
        for i in 0..size / PART {
            rcu::read(|g| {
                let chains = conns.chains(g);
                let index = (start as usize).wrapping_add(i).checked_rem(chains);
                conns.visit(index.unwrap_or(0), g, |conn| {
                    if self.condemns(conn) {
                        conns.discard(conn, g);
                    }
                    true
                })
            });
            time::yield_cpu();
        }
    }

    fn condemns(&self, conn: Ref<'_, Conn>) -> bool {
        if conn.has_children() {
            return false;
        }
        let fate = if !conn.is_template() {
            defense::fate(conn.proto(), conn.state())
        } else if conn.is_of_one_packet_service() {
            Fate::DropIdle
        } else if conn.state() & template::ASSURED == 0 {
            Fate::Drop
        } else {
            Fate::Keep
        };
        match fate {
            Fate::Keep => false,
            Fate::Drop => true,
            Fate::DropIdle => self.is_idle(conn) && self.idle.lock().drops(conn.in_pkts()),
        }
    }

    fn is_idle(&self, conn: Ref<'_, Conn>) -> bool {
        let left = conn.deadline().wrapping_sub(time::jiffies()) as i32;
        let past = i64::from(conn.timeout()) - i64::from(left);
        past >= i64::from(IDLE)
    }
}
