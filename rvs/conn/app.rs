// SPDX-License-Identifier: GPL-2.0-only

//! Connections with an application helper, which is FTP's, and those that wait for their client's port (C `ip_vs_app.c`,
//! `ip_vs_conn_fill_cport()`).
//!
//! All that such a connection has beside others are bits of its status: who needs more should put it into the extension, as
//! FullNAT does ([`Far`](super::Far)). The bits from 17 up are ours; 20 to 23 are taken.

use super::{
    Conn,
    ConnTable,
    Created,
    Home,
    Param,
    Tuple,
    STATE_SHIFT, //
};
use crate::os::{
    app,
    atomic::I32,
    rcu::Held,
    table::Ref, //
};
use rvs_core::{
    addr::Be16,
    ftp::Mode,
    proto::{
        tcp,
        IPPROTO_TCP, //
    },
    uapi::conn_flag, //
};

/// The connection is one of a helper's: C `cp->app`.
pub(super) const APP: u32 = 1 << 22;

/// Which reply of the server the helper waits for: C `cp->app_data`.
const MODE_SHIFT: u32 = 20;
const MODE: u32 = 3 << MODE_SHIFT;

/// How many connections of a namespace use each port of the helper: C `inc->usecnt`.
pub(crate) struct Apps([I32; app::MOST]);

impl Apps {
    pub(crate) fn new() -> Self {
        Self([const { I32::new(0) }; app::MOST])
    }

    /// How many use the port with this index.
    pub(crate) fn uses(&self, index: usize) -> i32 {
        self.0.get(index).map_or(0, I32::load)
    }

    /// Takes a use of a port, if it is one of the helper's: C `tcp_app_conn_bind()`.
    #[inline(always)]
    fn bind(&self, port: Be16, g: &Held) -> Option<Bound<'_>> {
        app::get(port, g).map(|held| self.counted(held))
    }

    #[cold]
    fn counted(&self, held: app::Use) -> Bound<'_> {
        if let Some(uses) = self.0.get(held.index()) {
            uses.add(1);
        }
        Bound {
            apps: self,
            held: Some(held),
        }
    }

    /// Gives back what a connection has kept.
    #[cold]
    fn unbind(&self, port: Be16) {
        drop(Bound {
            apps: self,
            held: app::kept(port),
        });
    }
}

/// A use of a port of the helper; given back when dropped.
pub(super) struct Bound<'a> {
    apps: &'a Apps,
    held: Option<app::Use>,
}

impl Bound<'_> {
    /// The connection has it from now on, and gives it back when it has left the table.
    #[cold]
    pub(super) fn keep(mut self) {
        if let Some(held) = self.held.take() {
            held.keep();
        }
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            // Before the owner can go.
            if let Some(uses) = self.apps.0.get(held.index()) {
                uses.sub(1);
            }
        }
    }
}

impl Conn {
    /// Whether packets are for the helper first.
    #[inline(always)]
    pub(crate) fn has_app(&self) -> bool {
        self.status.load() & APP != 0
    }

    /// Which reply of the server the helper waits for.
    pub(crate) fn app_mode(&self) -> Mode {
        match (self.status.load() & MODE) >> MODE_SHIFT {
            1 => Mode::Passive,
            2 => Mode::Extended,
            _ => Mode::Active,
        }
    }

    /// See [`Conn::app_mode()`].
    pub(crate) fn set_app_mode(&self, mode: Mode) {
        let number = match mode {
            Mode::Active => 0,
            Mode::Passive => 1,
            Mode::Extended => 2_u32,
        };
        self.change(|status| (status & !MODE) | number << MODE_SHIFT);
    }

    /// Whether the client's port is not known yet.
    fn is_waiting(&self) -> bool {
        self.status.load() & conn_flag::NO_CPORT != 0
    }

    /// Becomes one of the helper's, if it is to: only NAT is, and then netfilter knows it.
    #[inline(always)]
    pub(super) fn bind_app<'a>(&mut self, apps: &'a Apps, g: &Held) -> Option<Bound<'a>> {
        if self.proto != IPPROTO_TCP || !self.is_masq() {
            return None;
        }
        let bound = apps.bind(self.vport, g)?;
        let status = self.status.load();
        self.status.store(status | APP | conn_flag::NFCT);
        Some(bound)
    }

    /// Is about to be found.
    #[inline(always)]
    pub(super) fn app_enters(&self, home: &Home) {
        if self.is_waiting() {
            home.waiting(self.is_v6()).add(1);
        }
    }

    /// Cannot be found any more.
    #[inline(always)]
    pub(super) fn app_left(&self, home: &Home) {
        if self.status.load() & (APP | conn_flag::NO_CPORT) != 0 {
            self.app_ended(home);
        }
    }

    #[cold]
    fn app_ended(&self, home: &Home) {
        if self.is_waiting() {
            home.waiting(self.is_v6()).sub(1);
        }
        if self.has_app() {
            home.apps.unbind(self.vport);
        }
    }
}

impl ConnTable {
    /// Whether there are connections of a family that wait for their client's port: all others pay for them is this, and only
    /// packets of no connection.
    #[inline(always)]
    pub(crate) fn has_waiting(&self, v6: bool) -> bool {
        self.table.home().waiting(v6).load() != 0
    }

    /// Finds the connection that a request may be the first of, whatever port it comes from.
    pub(crate) fn find_waiting<'g>(&'g self, t: &Tuple, g: &'g Held) -> Option<Ref<'g, Conn>> {
        let wanted = Tuple { sport: 0, ..*t };
        self.find_request(&wanted, g)
            .filter(|conn| conn.is_waiting())
    }

    /// The first packet of a connection that waits has come: another one takes its place that has the port, as an entry of a
    /// table never changes its key. `None`: there is no memory, or another packet was faster. C: `ip_vs_conn_fill_cport()`.
    pub(crate) fn fill_client_port<'g>(
        &'g self,
        waiting: Ref<'g, Conn>,
        t: &Tuple,
        g: &'g Held,
    ) -> Option<Ref<'g, Conn>> {
        let param = Param {
            flow: t,
            daddr: waiting.daddr(),
            dport: waiting.dport(),
            dest: waiting.get().dest(),
            fwmark: waiting.fwmark(),
            flags: 0,
            control: waiting.get().control.as_ref().map(|tie| tie.entry()),
            timeout: Some(waiting.timeout()),
        };
        let conn = Conn::new(&param, self.counting.load()).ok()?;
        // It stays what it was, whatever its destination has become since; as one that has just been counted by that.
        let flags = waiting.flags() & !conn_flag::NO_CPORT;
        let state = u32::from(tcp::State::LISTEN) << STATE_SHIFT;
        conn.status.store(flags | conn_flag::INACTIVE | state);
        match self.enter(conn, &param, g) {
            Ok(Created::New(conn)) => {
                if self.table.remove(waiting, g) {
                    return Some(conn);
                }
                // It was filled with another port, or its time was over.
                self.end(conn, g);
                None
            }
            Ok(Created::Exists(conn)) => Some(conn),
            _ => None,
        }
    }
}
