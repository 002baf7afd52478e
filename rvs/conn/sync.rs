// SPDX-License-Identifier: GPL-2.0-only

//! Connections as other directors are told of them, and as they are taken over: what C keeps in `old_state` and
//! `sync_endtime`, and what `ip_vs_proc_conn()` does.

use super::{
    app::Bound,
    Conn,
    ConnTable,
    NoConn,
    Param,
    Tuple,
    REPLACED,
    STALE,
    STATE_SHIFT, //
};
use crate::{
    control::netlink::events::Events,
    dest::Dest,
    os::{
        atomic::U32,
        rcu::Held,
        table::{
            Entry,
            Inserted,
            Ref,
            Unlinked,
            Unlisted, //
        },
        time, //
    },
    HZ, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    sync::{
        announce::{
            self,
            Asked,
            Policy, //
        },
        receive,
        Record,
        Version, //
    },
    uapi::{
        conn_flag,
        ext::event, //
    },
};

/// How many connections a connection controls; and, above that, the state that other directors were told last (C `old_state`).
pub(super) struct Children(U32);

/// Where the state is.
const TOLD_SHIFT: u32 = 28;

// It fits.
kernel::static_assert!(rvs_core::proto::tcp::State::LAST <= 16);
kernel::static_assert!(rvs_core::proto::sctp::State::LAST <= 16);

impl Children {
    pub(super) const fn none() -> Self {
        Self(U32::new(0))
    }

    /// How many there are.
    #[inline(always)]
    pub(super) fn load(&self) -> u32 {
        self.0.load() & ((1 << TOLD_SHIFT) - 1)
    }

    pub(super) fn add(&self, n: u32) {
        self.0.add(n);
    }

    pub(super) fn sub(&self, n: u32) {
        self.0.sub(n);
    }

    /// The state that others were told last.
    fn told(&self) -> u8 {
        (self.0.load() >> TOLD_SHIFT) as u8
    }

    /// Others are told of this state.
    fn tell(&self, state: u8) {
        loop {
            let old = self.0.load();
            let new = old & ((1 << TOLD_SHIFT) - 1) | u32::from(state) << TOLD_SHIFT;
            if old == new || self.0.replace(old, new) {
                return;
            }
        }
    }
}

/// A connection to take over.
pub(crate) struct Restore<'a, 'b> {
    /// Client to virtual service.
    pub(crate) flow: Tuple,
    /// What was told of it.
    pub(crate) record: &'a Record<'b>,
    /// How long it lasts without a packet, in jiffies.
    pub(crate) timeout: u32,
    /// How many packets it is taken to have had.
    pub(crate) pkts: u32,
}

impl Restore<'_, '_> {
    /// State and flags.
    fn status(&self, flags: u32) -> u32 {
        flags | u32::from(self.record.state) << STATE_SHIFT
    }
}

impl Conn {
    /// What is told of it.
    pub(crate) fn record(&self) -> Record<'static> {
        Record {
            family: self.family(),
            proto: self.proto,
            cport: self.cport,
            vport: self.vport,
            dport: self.shown_dport(),
            caddr: self.caddr(),
            vaddr: self.vaddr(),
            daddr: self.daddr(),
            flags: self.flags(),
            state: self.state(),
            fwmark: self.fwmark,
            timeout: HZ.to_secs_u32(self.timeout()),
            seq: None,
            pe: None,
        }
    }

    /// What controls it: a template, or another connection.
    pub(crate) fn controller(&self) -> Option<&Conn> {
        Some(self.control.as_ref()?.entry().get())
    }

    /// Counts a packet and says which it is. Two at the same time are different ones.
    pub(crate) fn count_exactly(&self) -> u32 {
        self.in_pkts.fetch_add(1).wrapping_add(1)
    }

    fn in_persistence(&self) -> bool {
        let mut at = self.controller();
        for _ in 0..3 {
            match at {
                Some(conn) if conn.is_template() => return true,
                Some(conn) => at = conn.controller(),
                None => return false,
            }
        }
        false
    }

    /// Whether it is announced now, with its packet number `pkts`; then it is taken to be: C `ip_vs_sync_conn_needed()`.
    pub(crate) fn is_due(&self, version: Version, policy: &Policy, pkts: u32) -> bool {
        // Nobody else has the local address of FullNAT.
        if self.is_fullnat() || !announce::can_be(version, self.family(), self.is_one_packet()) {
            return false;
        }
        let status = self.status.load();
        let endtime = self.sync_endtime.load();
        let asked = Asked {
            proto: self.proto,
            template: status & conn_flag::TEMPLATE != 0,
            in_persistence: policy.persist_mode && self.in_persistence(),
            state: (status >> STATE_SHIFT) as u8,
            old_state: self.children.told(),
            timeout: self.timeout(),
            endtime,
            pkts,
            now: time::jiffies(),
        };
        let Some(due) = announce::due(policy, HZ, &asked) else {
            return false;
        };
        self.children.tell(due.state);
        self.sync_endtime.replace(endtime, due.endtime) || due.forced
    }

    /// Whether it leads where a record says.
    pub(crate) fn leads_to(&self, record: &Record<'_>) -> bool {
        self.dport == record.dport && self.daddr() == record.daddr
    }
}

/// What of a record's flags a connection can have here: nothing moves sequence numbers.
fn flags_of(record: &Record<'_>) -> u32 {
    record.flags & !conn_flag::SEQ_MASK
}

/// A connection that is about to be in the table.
struct Restored<'a> {
    new: Unlinked<Conn>,
    hashes: [u32; 2],
    /// Its use of the helper, if it is one of its.
    bound: Option<Bound<'a>>,
}

impl ConnTable {
    /// Makes the connection of a record, with this destination. If it is there by now, that one is returned. Does not sleep.
    #[inline(never)]
    pub(crate) fn restore<'g>(
        &'g self,
        restore: &Restore<'_, '_>,
        dest: Option<&Arc<Dest>>,
        max: i64,
        g: &'g Held,
    ) -> Result<Option<Ref<'g, Conn>>, NoConn> {
        if self.table.count() >= max {
            return Err(NoConn::Limit);
        }
        let (record, flow) = (restore.record, &restore.flow);
        let Restored { new, hashes, bound } = self.restored(restore, dest, g)?;
        let deadline = time::jiffies().wrapping_add(restore.timeout);
        match self.table.insert(new, hashes, deadline, g, |other, node| {
            node == 0
                && other.is_request(flow)
                && !other.is_stale()
                && (flow.template || other.leads_to(record))
        }) {
            Inserted::Exists(conn) => Ok(Some(conn)),
            Inserted::New(_) => {
                if let Some(bound) = bound {
                    bound.keep();
                }
                Ok(None)
            }
            Inserted::Taken => Ok(None),
        }
    }

    // For who makes connections for packets, which shall have it inlined.
    #[inline(never)]
    fn made(&self, param: &Param<'_>) -> Option<Conn> {
        Conn::new(param, self.counting.load()).ok()
    }

    /// The hashes of a connection with so many nodes.
    #[inline(never)]
    fn hashes_of(&self, param: &Param<'_>, nodes: usize) -> [u32; 2] {
        let reply = (nodes > 1).then(|| param.reply());
        self.hashes(param.flow, reply.as_ref())
    }

    /// The connection of a record, bound and not in the table yet.
    // By itself, for the frame.
    #[inline(never)]
    fn restored<'a>(
        &'a self,
        restore: &Restore<'_, '_>,
        dest: Option<&Arc<Dest>>,
        g: &Held,
    ) -> Result<Restored<'a>, NoConn> {
        let (record, flow) = (restore.record, &restore.flow);
        let param = Param {
            flow,
            daddr: record.daddr,
            dport: record.dport,
            dest,
            fwmark: record.fwmark,
            flags: 0,
            control: None,
            timeout: Some(restore.timeout),
        };
        let mut flags = flags_of(record);
        if let Some(dest) = dest {
            flags = receive::bound_flags(flags, dest.conn_flags());
        }
        let mut conn = self.made(&param).ok_or(NoConn::Memory)?;
        conn.status = U32::new(restore.status(flags));
        conn.children.tell(record.state);
        conn.in_pkts = U32::new(restore.pkts);
        if conn.is_fullnat() {
            // Without the address that replies come to.
            return Err(NoConn::Exhausted);
        }
        if flow.template && record.dport == 0xffff {
            // The master does not use it any more.
            conn.change(|status| status | STALE);
        }
        let bound = conn.bind_app(&self.table.home().apps, g);
        let hashes = self.hashes_of(&param, conn.nodes());
        let new = Unlinked::new(conn).map_err(|_| NoConn::Memory)?;
        Ok(Restored {
            new: bind(new, dest, flow.template, flags)?,
            hashes,
            bound,
        })
    }

    /// Changes a connection into what a record says of it.
    #[inline(never)]
    pub(crate) fn update(&self, restore: &Restore<'_, '_>, conn: Ref<'_, Conn>, events: &Events) {
        let record = restore.record;
        loop {
            let old = conn.status.load();
            let flags = old & super::FLAGS;
            let new_flags = receive::updated_flags(flags, record) & !conn_flag::SEQ_MASK
                | flags & conn_flag::SEQ_MASK;
            let new = restore.status(new_flags);
            if old != new && !conn.status.replace(old, new) {
                continue;
            }
            if let Some(dest) = conn.get().dest() {
                match receive::active_change(flags, record) {
                    0 => {}
                    change => dest.set_active(change > 0),
                }
            }
            if old >> STATE_SHIFT != new >> STATE_SHIFT {
                events.conn(event::CHANGED, conn.get());
            }
            break;
        }
        conn.children.tell(record.state);
        conn.in_pkts.store(restore.pkts);
        self.refresh(conn, restore.timeout);
    }

    /// Puts a connection that has a destination into the place of one that has none, and is else the same: C
    /// `ip_vs_try_bind_dest()`. What packets read does not change under them.
    #[inline(never)]
    pub(crate) fn rebind<'g>(&'g self, old: Ref<'g, Conn>, dest: &Arc<Dest>, g: &'g Held) {
        let flow = old.request();
        let param = Param {
            flow: &flow,
            daddr: old.daddr(),
            dport: old.dport(),
            dest: Some(dest),
            fwmark: old.fwmark(),
            flags: 0,
            control: old.control.as_ref().map(|control| control.entry()),
            timeout: Some(old.timeout()),
        };
        let Some(mut conn) = self.made(&param) else {
            return;
        };
        let status = old.status.load();
        // Without the helper's bits: it is the helper's only if that is said now.
        let flags = receive::bound_flags(status & super::SHOWN, dest.conn_flags());
        conn.status = U32::new(status & !super::FLAGS | flags | REPLACED);
        conn.in_pkts = U32::new(old.in_pkts());
        conn.children.tell(old.children.told());
        conn.sync_endtime = U32::new(old.sync_endtime.load());
        let bound = conn.bind_app(&self.table.home().apps, g);
        let hashes = self.hashes_of(&param, conn.nodes());
        let Ok(new) = Unlinked::new(conn) else {
            return;
        };
        if let Some(control) = param.control {
            control.children.add(1);
        }
        let Ok(new) = bind(new, Some(dest), flow.template, flags) else {
            return;
        };
        let place = core::ptr::from_ref(old.get());
        let inserted = self
            .table
            .insert(new, hashes, old.deadline(), g, |other, node| {
                node == 0
                    && !core::ptr::eq(other, place)
                    && other.is_request(&flow)
                    && !other.is_stale()
            });
        if let Inserted::New(new) = inserted {
            if let Some(bound) = bound {
                bound.keep();
            }
            // Both can be found now, the new one first.
            old.change(|status| status | REPLACED);
            self.table.remove(old, g);
            new.change(|status| status & !REPLACED);
        }
    }
}

/// Counts a connection that is not in the table yet where its destination counts them. Its end takes that back.
fn bind(
    new: Unlinked<Conn>,
    dest: Option<&Arc<Dest>>,
    template: bool,
    flags: u32,
) -> Result<Unlinked<Conn>, NoConn> {
    match dest {
        Some(dest) if template => dest.template_bound(),
        Some(dest) => {
            if flags & conn_flag::INACTIVE == 0 {
                dest.set_active(true);
            }
            if !dest.conn_bound() {
                drop(Unlisted::new(new));
                return Err(NoConn::Removed);
            }
        }
        None => {}
    }
    Ok(new)
}
