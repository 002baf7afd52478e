// SPDX-License-Identifier: GPL-2.0-only

//! Connections: `struct ip_vs_conn` and its table (`ip_vs_conn.c`).
//!
//! One table per network namespace holds both directions of a flow. Node 0 is found by what the client sends (client to
//! virtual address), node 1 by what the real server answers (real server to client), so one lookup tells connection and
//! direction. A lookup takes no reference: a connection seen under RCU stays in memory until the section ends.

mod tuple;

pub(crate) use tuple::Tuple;

use crate::{
    dest::Dest,
    os::{
        atomic::{
            I32,
            U32, //
        },
        rcu::Held,
        slab,
        table::{
            self,
            Entry,
            Inserted,
            Node,
            Ref,
            Table,
            Unlinked, //
        },
        time::{
            self,
            HZ, //
        },
        wheel::TICK, //
    },
};
use kernel::{
    alloc::flags::*,
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    fmt::TableStatus,
    proto::{
        tcp,
        IPPROTO_TCP, //
    },
    table::{
        self as sizing,
        Limits, //
    },
    uapi::{
        conn_flag,
        FwdMethod, //
    },
};

/// Where connections are allocated.
pub(crate) static CACHE: slab::Cache<Node<Conn>> = slab::Cache::new();

/// Seconds that a connection lives before its first packet has set a state: C `ip_vs_conn_new()`.
const FIRST_TIMEOUT: u32 = 3;

/// The state is kept above the flags (which have 17 bits).
const STATE_SHIFT: u32 = 24;
const FLAGS: u32 = (1 << STATE_SHIFT) - 1;

/// What only some connections need.
struct Extension {
    /// Client, virtual and destination address of an IPv6 connection.
    caddr: Addr,
    vaddr: Addr,
    daddr: Addr,
}

/// A connection: what the client, the virtual service and the real server are to each other.
///
/// Ports and addresses are in memory order. What a lookup compares comes first, what packets write last.
///
/// # Invariants
///
/// `extension` is there exactly if the connection is IPv6; the short addresses are zero then.
#[repr(C)]
pub(crate) struct Conn {
    caddr: u32,
    vaddr: u32,
    daddr: u32,
    cport: Be16,
    vport: Be16,
    dport: Be16,
    proto: u8,
    v6: bool,
    extension: Option<KBox<Extension>>,
    dest: Option<Arc<Dest>>,
    fwmark: u32,
    /// State and flags; see [`Conn::flags()`] and [`Conn::state()`].
    status: U32,
    /// What the state allows between two packets, in jiffies.
    timeout: U32,
    /// Packets from the client.
    in_pkts: U32,
    /// Connections that this one controls: `n_control`.
    children: U32,
}

// Two cache lines with both hash nodes, the wheel's links and RCU's head: less than half of C's 320 bytes.
kernel::static_assert!(size_of::<Node<Conn>>() <= 128);

/// What makes a connection.
pub(crate) struct Param<'a> {
    /// Client to virtual service, as the client's packet has it.
    pub(crate) flow: &'a Tuple,
    /// The real server's address and port, memory order.
    pub(crate) daddr: Addr,
    /// See `daddr`.
    pub(crate) dport: Be16,
    /// The real server.
    pub(crate) dest: Arc<Dest>,
    /// The packet's mark.
    pub(crate) fwmark: u32,
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From the client.
    Request,
    /// To the client.
    Reply,
}

#[allow(dead_code)]
impl Conn {
    fn new(param: &Param<'_>) -> Result<Self> {
        let flow = param.flow;
        let extension = if flow.v6 {
            Some(KBox::new(
                Extension {
                    caddr: flow.src,
                    vaddr: flow.dst,
                    daddr: param.daddr,
                },
                GFP_ATOMIC | __GFP_NOWARN,
            )?)
        } else {
            None
        };
        let short = |a: &Addr| if flow.v6 { 0 } else { a.v4_be() };
        let method = param.dest.conn_flags() & conn_flag::FWD_MASK;
        let mut flags = method | conn_flag::INACTIVE;
        if method != FwdMethod::Masq as u32 {
            flags |= conn_flag::NOOUTPUT;
        }
        // INVARIANT: The extension is made for IPv6 only.
        Ok(Self {
            caddr: short(&flow.src),
            vaddr: short(&flow.dst),
            daddr: short(&param.daddr),
            cport: flow.sport,
            vport: flow.dport,
            dport: param.dport,
            proto: flow.proto,
            v6: flow.v6,
            extension,
            dest: Some(param.dest.clone()),
            fwmark: param.fwmark,
            status: U32::new(flags),
            timeout: U32::new(FIRST_TIMEOUT.wrapping_mul(HZ)),
            in_pkts: U32::new(0),
            children: U32::new(0),
        })
    }

    /// The address family of the client's side.
    pub(crate) fn family(&self) -> Family {
        if self.v6 {
            Family::V6
        } else {
            Family::V4
        }
    }

    /// The transport protocol.
    #[inline(always)]
    pub(crate) fn proto(&self) -> u8 {
        self.proto
    }

    /// The client's address.
    #[inline(always)]
    pub(crate) fn caddr(&self) -> Addr {
        match &self.extension {
            None => Addr::v4(self.caddr),
            Some(ext) => ext.caddr,
        }
    }

    /// The virtual address.
    #[inline(always)]
    pub(crate) fn vaddr(&self) -> Addr {
        match &self.extension {
            None => Addr::v4(self.vaddr),
            Some(ext) => ext.vaddr,
        }
    }

    /// The real server's address.
    #[inline(always)]
    pub(crate) fn daddr(&self) -> Addr {
        match &self.extension {
            None => Addr::v4(self.daddr),
            Some(ext) => ext.daddr,
        }
    }

    /// The client's port.
    #[inline(always)]
    pub(crate) fn cport(&self) -> Be16 {
        self.cport
    }

    /// The virtual port.
    #[inline(always)]
    pub(crate) fn vport(&self) -> Be16 {
        self.vport
    }

    /// The real server's port.
    #[inline(always)]
    pub(crate) fn dport(&self) -> Be16 {
        self.dport
    }

    /// The mark of the packet that made the connection.
    pub(crate) fn fwmark(&self) -> u32 {
        self.fwmark
    }

    /// The real server.
    #[inline(always)]
    pub(crate) fn dest(&self) -> Option<&Arc<Dest>> {
        self.dest.as_ref()
    }

    /// `IP_VS_CONN_F_*`.
    #[inline(always)]
    pub(crate) fn flags(&self) -> u32 {
        self.status.load() & FLAGS
    }

    /// The forwarding method: `IP_VS_FWD_METHOD()`.
    #[inline(always)]
    pub(crate) fn method(&self) -> u32 {
        self.status.load() & conn_flag::FWD_MASK
    }

    /// The protocol's state.
    #[inline(always)]
    pub(crate) fn state(&self) -> u8 {
        (self.status.load() >> STATE_SHIFT) as u8
    }

    /// The present timeout in jiffies.
    pub(crate) fn timeout(&self) -> u32 {
        self.timeout.load()
    }

    /// Whether the connection controls others.
    pub(crate) fn has_children(&self) -> bool {
        self.children.load() != 0
    }

    /// Counts a packet from the client.
    #[inline(always)]
    pub(crate) fn count_packet(&self) {
        // A plain store: the number only steers rare decisions, a lost one of two at the same time does not matter, and an
        // atomic would cost every packet.
        self.in_pkts.store(self.in_pkts.load().wrapping_add(1));
    }

    /// Enters a state, with what that means for the destination's counters: C `set_tcp_state()`. `drop_flags` are taken
    /// off. Loses no change, whatever other CPUs do at the same time.
    pub(crate) fn enter(&self, state: u8, drop_flags: u32) {
        loop {
            let old = self.status.load();
            let mut new = (old & FLAGS & !drop_flags) | u32::from(state) << STATE_SHIFT;
            let was_active = old & conn_flag::INACTIVE == 0;
            let is_active = self.proto == IPPROTO_TCP && tcp::is_active(state);
            if is_active {
                new &= !conn_flag::INACTIVE;
            } else {
                new |= conn_flag::INACTIVE;
            }
            if new == old {
                return;
            }
            if self.status.replace(old, new) {
                if let (Some(dest), true) = (self.dest(), was_active != is_active) {
                    dest.set_active(is_active);
                }
                return;
            }
        }
    }

    #[inline(always)]
    fn is_request(&self, t: &Tuple) -> bool {
        if self.proto != t.proto
            || self.cport != t.sport
            || self.vport != t.dport
            || self.v6 != t.v6
        {
            return false;
        }
        match &self.extension {
            None => self.caddr == t.src.v4_be() && self.vaddr == t.dst.v4_be(),
            Some(ext) => ext.caddr == t.src && ext.vaddr == t.dst,
        }
    }

    #[inline(always)]
    fn is_reply(&self, t: &Tuple) -> bool {
        if self.proto != t.proto
            || self.dport != t.sport
            || self.cport != t.dport
            || self.v6 != t.v6
        {
            return false;
        }
        match &self.extension {
            None => self.daddr == t.src.v4_be() && self.caddr == t.dst.v4_be(),
            Some(ext) => ext.daddr == t.src && ext.caddr == t.dst,
        }
    }

    fn request(&self) -> Tuple {
        Tuple {
            src: self.caddr(),
            dst: self.vaddr(),
            sport: self.cport,
            dport: self.vport,
            proto: self.proto,
            v6: self.v6,
        }
    }

    fn reply(&self) -> Tuple {
        Tuple {
            src: self.daddr(),
            dst: self.caddr(),
            sport: self.dport,
            dport: self.cport,
            proto: self.proto,
            v6: self.v6,
        }
    }
}

impl Entry for Conn {
    fn nodes(&self) -> usize {
        // Only what is rewritten on the way back is looked up on the way back.
        if self.method() == FwdMethod::Masq as u32 {
            2
        } else {
            1
        }
    }

    fn hash(&self, node: usize, key: &table::Key) -> u32 {
        if node == 0 {
            self.request().hash(key)
        } else {
            self.reply().hash(key)
        }
    }

    fn cache() -> &'static slab::Cache<Node<Self>> {
        &CACHE
    }

    fn postpone(&self, now: u32) -> Option<u32> {
        // C defers the end of a connection that controls others by a minute.
        self.has_children()
            .then(|| now.wrapping_add(HZ.wrapping_mul(60)))
    }

    fn removed(&self) {
        if let Some(dest) = self.dest() {
            dest.conn_unbound(self.flags() & conn_flag::INACTIVE == 0);
        }
    }
}

/// Why there is no new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoConn {
    /// `conn_max` is reached.
    Limit,
    /// No memory.
    Memory,
}

/// The connections of a network namespace.
pub(crate) struct ConnTable {
    table: Table<Conn>,
    limits: Limits,
    lfactor: I32,
    /// The load factor that the present size was chosen with.
    sized_for: I32,
}

#[allow(dead_code)]
impl ConnTable {
    /// Makes a table of the least size. `lfactor` is `conn_lfactor`. May sleep.
    pub(crate) fn new(limits: Limits, lfactor: i32) -> Result<Self> {
        Ok(Self {
            table: Table::new(sizing::CONN_MIN_BITS, sizing::CONN_MIN_BITS, true)?,
            limits,
            lfactor: I32::new(lfactor),
            sized_for: I32::new(lfactor),
        })
    }

    /// Finds the connection of a packet of this host's or to it, and which way the packet goes.
    #[inline(always)]
    pub(crate) fn find<'g>(&'g self, t: &Tuple, g: &'g Held) -> Option<(Ref<'g, Conn>, Way)> {
        let found = self.table.find(t.hash(self.table.key()), g, |conn, node| {
            if node == 0 {
                conn.is_request(t)
            } else {
                conn.is_reply(t)
            }
        });
        match found {
            Some((conn, 0)) => Some((conn, Way::Request)),
            Some((conn, _)) => Some((conn, Way::Reply)),
            None => None,
        }
    }

    /// Finds the connection of which `t` is a request: C `ip_vs_conn_in_get()`.
    #[inline(always)]
    pub(crate) fn find_request<'g>(&'g self, t: &Tuple, g: &'g Held) -> Option<Ref<'g, Conn>> {
        self.table
            .find(t.hash(self.table.key()), g, |conn, node| {
                node == 0 && conn.is_request(t)
            })
            .map(|(conn, _)| conn)
    }

    /// Finds the connection of which `t` is a reply: C `ip_vs_conn_out_get()`.
    #[inline(always)]
    pub(crate) fn find_reply<'g>(&'g self, t: &Tuple, g: &'g Held) -> Option<Ref<'g, Conn>> {
        self.table
            .find(t.hash(self.table.key()), g, |conn, node| {
                node != 0 && conn.is_reply(t)
            })
            .map(|(conn, _)| conn)
    }

    /// Makes a connection, unless there is one of the same flow already (another CPU was faster): then that one. `max` is
    /// `conn_max`. Does not sleep. C: `ip_vs_conn_new()`.
    pub(crate) fn create<'g>(
        &'g self,
        param: &Param<'_>,
        max: i64,
        g: &'g Held,
    ) -> Result<Created<'g>, NoConn> {
        if self.table.count() >= max {
            return Err(NoConn::Limit);
        }
        let conn = Conn::new(param).map_err(|_| NoConn::Memory)?;
        let timeout = conn.timeout();
        let new = Unlinked::new(conn).map_err(|_| NoConn::Memory)?;
        param.dest.conn_bound();
        let deadline = time::jiffies().wrapping_add(timeout);
        Ok(
            match self.table.insert(new, deadline, g, |other, node| {
                node == 0 && other.is_request(param.flow)
            }) {
                Inserted::New(conn) => Created { conn, is_new: true },
                Inserted::Exists(conn) => Created {
                    conn,
                    is_new: false,
                },
            },
        )
    }

    /// Notes a packet: the connection lives for `timeout` jiffies from now. The end of C `ip_vs_conn_put()`, without its
    /// timer.
    #[inline(always)]
    pub(crate) fn refresh(&self, conn: Ref<'_, Conn>, timeout: u32) {
        let deadline = time::jiffies().wrapping_add(timeout);
        let before = conn.timeout.load();
        if timeout == before {
            conn.defer(deadline);
            return;
        }
        conn.timeout.store(timeout);
        if timeout > before {
            conn.defer(deadline);
        } else {
            self.table.hasten(conn, deadline);
        }
    }

    /// Ends a connection now: C `ip_vs_conn_expire_now()`.
    #[cold]
    pub(crate) fn end(&self, conn: Ref<'_, Conn>, g: &Held) {
        self.table.remove(conn, g);
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> i64 {
        self.table.count()
    }

    /// The number of buckets.
    pub(crate) fn size(&self) -> usize {
        crate::os::rcu::read(|g| self.table.size(g))
    }

    /// The table as `/proc/net/ip_vs_status` shows it. Sleeps.
    pub(crate) fn status(&self) -> TableStatus {
        TableStatus {
            size: u32::try_from(self.size()).unwrap_or(u32::MAX),
            lfactor: self.sized_for.load(),
            census: (self.count() != 0).then(|| self.table.census()),
        }
    }

    /// Sets `conn_lfactor`; the table follows at the next tick.
    pub(crate) fn set_lfactor(&self, lfactor: i32) {
        self.lfactor.store(lfactor);
    }

    /// The number of chains for [`ConnTable::visit()`].
    pub(crate) fn chains(&self, g: &Held) -> usize {
        self.table.chains(g)
    }

    /// Calls `f` for each connection of a chain, newest first, until it returns `false`.
    pub(crate) fn visit<'g>(
        &'g self,
        index: usize,
        g: &'g Held,
        f: impl FnMut(Ref<'g, Conn>) -> bool,
    ) {
        self.table.visit(index, g, f)
    }

    /// Ends all connections. Sleeps. C: `ip_vs_conn_flush()`.
    pub(crate) fn flush(&self) {
        self.table.clear();
    }

    /// Ends all connections whose destination was removed: C `ip_vs_expire_nodest_conn_flush()`. Sleeps.
    pub(crate) fn flush_nodest(&self) {
        self.table
            .retain(|conn| conn.has_children() || conn.dest().is_none_or(|dest| dest.available()));
    }

    /// What must be done now and then: ends what is due and fits the size to the count. Process context, one caller at a
    /// time. Returns in how many jiffies to come again.
    pub(crate) fn tick(&self) -> Option<u32> {
        self.table.expire(time::jiffies());
        let lfactor = self.lfactor.load();
        let now = sizing::Table {
            size: u32::try_from(self.size()).unwrap_or(u32::MAX),
            lfactor: self.sized_for.load(),
        };
        let count = u32::try_from(self.count()).unwrap_or(0);
        let bounds = sizing::bounds(now, self.limits);
        if count > bounds.upper || count < bounds.lower || lfactor != now.lfactor {
            let want = sizing::desired_size(Some(now), count, lfactor, self.limits);
            // Without memory the next tick tries again.
            if want == now.size || self.table.resize(want.trailing_zeros()).is_ok() {
                self.sized_for.store(lfactor);
            }
        }
        Some(TICK)
    }
}

/// The outcome of [`ConnTable::create()`].
pub(crate) struct Created<'g> {
    /// The connection.
    pub(crate) conn: Ref<'g, Conn>,
    /// Whether this call made it.
    pub(crate) is_new: bool,
}
