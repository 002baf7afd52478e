// SPDX-License-Identifier: GPL-2.0-only

//! Connections: `struct ip_vs_conn` and its table (`ip_vs_conn.c`).
//!
//! One table per network namespace holds both directions of a flow. Node 0 is found by what the client sends (client to
//! virtual address), node 1 by what the real server answers (real server to client), so one lookup tells connection and
//! direction. A lookup takes no reference: a connection seen under RCU stays in memory until the section ends.

mod account;
mod app;
pub(crate) mod defense;
mod fullnat;
mod shown;
mod sync;
mod tuple;

pub(crate) use {
    app::Apps,
    fullnat::{
        FullNat,
        Seat, //
    },
    shown::Shown,
    sync::Restore,
    tuple::Tuple, //
};

use account::Account;

use crate::{
    control::netlink::events::Events,
    dest::Dest,
    os::{
        atomic::{
            Bool,
            I32,
            I64,
            U32, //
        },
        conntrack,
        net::{
            Handle,
            WhileOpen, //
        },
        one_of::{
            OneOf,
            Which, //
        },
        rcu::Held,
        slab::{
            self,
            Pooled, //
        },
        table::{
            self,
            Entry,
            Inserted,
            Node,
            Ref,
            Table,
            Tie,
            Unlinked,
            Unlisted,
            Walk, //
        },
        time::{
            self,
            HZ, //
        },
        wheel::TICK, //
    },
    sync::Sender, //
};
use kernel::{
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
        sctp,
        tcp,
        template,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    sync::announce,
    table::{
        self as sizing,
        Limits, //
    },
    timeout::{
        DEFERRED_SECS,
        NEW_CONN_SECS, //
    },
    uapi::{
        conn_flag,
        ext::event,
        svc_flag,
        FwdMethod, //
    },
};

/// Where connections are allocated.
pub(crate) static CACHE: slab::Cache<Node<Conn>> = slab::Cache::new();

/// How long a connection lives before its first packet has set a state: C `ip_vs_conn_new()`.
const FIRST_TIMEOUT: u32 = NEW_CONN_SECS.wrapping_mul(HZ);

/// The state is kept above the flags (which have 17 bits).
const STATE_SHIFT: u32 = 24;
const FLAGS: u32 = (1 << STATE_SHIFT) - 1;
/// C's of them; the others are ours, and shown to nobody.
const SHOWN: u32 = (1 << 17) - 1;
/// A flag of ours: a template whose destination takes no more. C writes 0xffff to its destination port.
const STALE: u32 = 1 << 23;
/// A flag of ours: another entry has taken, or takes, the place of one for the same connection.
const REPLACED: u32 = 1 << 17;

/// How long the end of a connection that controls others is put off.
const DEFERRED: u32 = DEFERRED_SECS.wrapping_mul(HZ);

/// Where the rest of IPv6 addresses is allocated.
pub(crate) static TAILS: slab::Cache<Tails> = slab::Cache::new();

/// What a connection has no room for of its addresses: all words but the first.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Tails {
    caddr: [u32; 3],
    vaddr: [u32; 3],
    daddr: [u32; 3],
}

// With a connection's 128 bytes less than half of C's 320 and what a slab loses of them.
kernel::static_assert!(size_of::<Tails>() <= 40);

impl Pooled for Tails {
    fn cache() -> &'static slab::Cache<Self> {
        &TAILS
    }
}

/// What a FullNAT connection has beside others.
#[repr(C)]
struct Far {
    tails: Tails,
    full: FullNat,
}

kernel::static_assert!(size_of::<Far>() <= 128);

/// A connection: what the client, the virtual service and the real server are to each other.
///
/// Ports and addresses are in memory order. What a lookup compares comes first, what packets write last.
///
/// # Invariants
///
/// The addresses here are their first words; `extension` is there exactly if the connection is IPv6 or FullNAT. `kind` is the
/// [`Tuple::kind()`] of what finds it. `rport` is where replies go: the client's port, or with FullNAT the local one.
#[repr(C)]
pub(crate) struct Conn {
    caddr: u32,
    vaddr: u32,
    daddr: u32,
    cport: Be16,
    vport: Be16,
    dport: Be16,
    rport: Be16,
    proto: u8,
    kind: u8,
    extension: Option<OneOf<Tails, Far>>,
    dest: Option<Arc<Dest>>,
    /// The connection or template that controls this one; it does not end before.
    control: Option<Tie<Conn>>,
    fwmark: u32,
    /// State and flags; see [`Conn::flags()`] and [`Conn::state()`].
    status: U32,
    /// What the state allows between two packets, in jiffies.
    timeout: U32,
    /// Packets from the client.
    in_pkts: U32,
    /// Connections that this one controls: `n_control`; and what other directors were told last.
    children: sync::Children,
    /// Until when other directors know of it: C `sync_endtime`.
    sync_endtime: U32,
    /// What counts its packets, if it was asked for.
    account: Option<KBox<Account>>,
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
    /// The real server; none of a connection that bypasses them all.
    pub(crate) dest: Option<&'a Arc<Dest>>,
    /// The packet's mark.
    pub(crate) fwmark: u32,
    /// `ONE_PACKET`, `BYPASS`, `NFCT`.
    pub(crate) flags: u32,
    /// The template that it belongs to.
    pub(crate) control: Option<Ref<'a, Conn>>,
    /// A template's timeout in jiffies.
    pub(crate) timeout: Option<u32>,
}

impl Param<'_> {
    /// What replies will be like with NAT.
    #[inline(always)]
    fn reply(&self) -> Tuple {
        Tuple {
            src: self.daddr,
            sport: self.dport,
            dst: self.flow.src,
            dport: self.flow.sport,
            ..*self.flow
        }
    }
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From the client.
    Request,
    /// To the client.
    Reply,
}

impl Conn {
    #[inline(always)]
    fn new(param: &Param<'_>, counts: bool) -> Result<Self> {
        let flow = param.flow;
        // A tunnel may lead to a real server of the other family, whose address is the destination's only.
        let mixed = param
            .dest
            .is_some_and(|d| (d.family() == Family::V6) != flow.v6);
        let daddr = if mixed { Addr::ZERO } else { param.daddr };
        let extension = if flow.v6 {
            Some(OneOf::pooled(Tails {
                caddr: flow.src.tail(),
                vaddr: flow.dst.tail(),
                daddr: daddr.tail(),
            })?)
        } else {
            None
        };
        // `INACTIVE`, and `NOOUTPUT` unless the way back is ours, come with the destination.
        let mut flags = param.flags | param.dest.map_or(0, |dest| dest.conn_flags());
        if flow.template {
            flags |= conn_flag::TEMPLATE;
        }
        if flow.template || flow.proto != IPPROTO_UDP {
            flags &= !conn_flag::ONE_PACKET;
        }
        // INVARIANT: The extension is made for IPv6; FullNAT comes later.
        Ok(Self {
            caddr: flow.src.v4_be(),
            vaddr: flow.dst.v4_be(),
            daddr: daddr.v4_be(),
            cport: flow.sport,
            vport: flow.dport,
            dport: param.dport,
            rport: flow.sport,
            proto: flow.proto,
            kind: flow.kind(),
            extension,
            dest: param.dest.cloned(),
            control: param.control.map(Ref::tie),
            fwmark: param.fwmark,
            status: U32::new(flags),
            timeout: U32::new(param.timeout.unwrap_or(FIRST_TIMEOUT)),
            in_pkts: U32::new(0),
            children: sync::Children::none(),
            sync_endtime: U32::new(announce::first_endtime(time::jiffies())),
            account: if counts { Account::new() } else { None },
        })
    }

    #[inline(always)]
    fn is_v6(&self) -> bool {
        Tuple::is_v6_kind(self.kind)
    }

    /// The address family of the client's side.
    pub(crate) fn family(&self) -> Family {
        if self.is_v6() {
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

    /// The rest of the addresses, where they may have one.
    #[inline(always)]
    fn tails(&self) -> Option<&Tails> {
        Some(match self.extension.as_ref()?.get() {
            Which::Pooled(tails) => tails,
            Which::Boxed(far) => &far.tails,
        })
    }

    /// The client's address.
    #[inline(always)]
    pub(crate) fn caddr(&self) -> Addr {
        match self.tails() {
            None => Addr::v4(self.caddr),
            Some(tails) => Addr::from_parts(self.caddr, tails.caddr),
        }
    }

    /// The virtual address.
    #[inline(always)]
    pub(crate) fn vaddr(&self) -> Addr {
        match self.tails() {
            None => Addr::v4(self.vaddr),
            Some(tails) => Addr::from_parts(self.vaddr, tails.vaddr),
        }
    }

    /// The real server's address.
    #[inline(always)]
    pub(crate) fn daddr(&self) -> Addr {
        match self.tails() {
            None => Addr::v4(self.daddr),
            Some(tails) => Addr::from_parts(self.daddr, tails.daddr),
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

    /// The real server's port as C shows it: 0xffff marks a template that is not used any more.
    pub(crate) fn shown_dport(&self) -> Be16 {
        if self.status.load() & STALE != 0 {
            0xffff
        } else {
            self.dport
        }
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
        self.status.load() & SHOWN
    }

    /// The forwarding method: `IP_VS_FWD_METHOD()`.
    #[inline(always)]
    pub(crate) fn method(&self) -> u32 {
        self.status.load() & conn_flag::FWD_MASK
    }

    /// Whether packets are rewritten.
    #[inline(always)]
    fn is_masq(&self) -> bool {
        self.method() == FwdMethod::Masq as u32
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

    /// Whether the connection is for one packet only.
    #[inline(always)]
    pub(crate) fn is_one_packet(&self) -> bool {
        self.status.load() & conn_flag::ONE_PACKET != 0
    }

    /// Whether netfilter's connection tracking is kept informed: `IP_VS_CONN_F_NFCT`.
    #[inline(always)]
    pub(crate) fn is_tracked(&self) -> bool {
        self.status.load() & conn_flag::NFCT != 0
    }

    /// Leaves netfilter's entry alone from here on, also at the end.
    pub(crate) fn forget_track(&self) {
        self.change(|status| status & !conn_flag::NFCT);
    }

    /// Whether another connection or a template controls this one.
    pub(crate) fn has_control(&self) -> bool {
        self.control.is_some()
    }

    /// Whether this is a persistence template.
    pub(crate) fn is_template(&self) -> bool {
        self.status.load() & conn_flag::TEMPLATE != 0
    }

    fn is_stale(&self) -> bool {
        self.status.load() & STALE != 0
    }

    /// Whether a template's destination still takes connections; otherwise the template is not used any more. C
    /// `ip_vs_check_template()`.
    pub(crate) fn check_template(&self, expire_quiescent: bool) -> bool {
        let good = self
            .dest()
            .is_some_and(|dest| dest.available() && !(expire_quiescent && dest.weight() == 0));
        if !good {
            self.change(|status| status | STALE);
        }
        good
    }

    /// Whether a template's service schedules each packet by itself: C `ip_vs_conn_ops_mode()`.
    fn is_of_one_packet_service(&self) -> bool {
        self.dest()
            .is_some_and(|dest| dest.service().flags() & svc_flag::ONEPACKET != 0)
    }

    /// Packets from the client.
    fn in_pkts(&self) -> u32 {
        self.in_pkts.load()
    }

    /// Tells the template, if there is one, that a connection of it got through: C `ip_vs_control_assure_ct()`.
    #[inline(always)]
    pub(crate) fn assure_template(&self, events: &Events) {
        if let Some(control) = &self.control {
            control.entry().get().assure(events);
        }
    }

    #[cold]
    fn assure(&self, events: &Events) {
        if self.is_template() && self.state() & template::ASSURED == 0 {
            self.change(|status| status | u32::from(template::ASSURED) << STATE_SHIFT);
            events.conn(event::CHANGED, self);
        }
    }

    /// Counts a packet from the client, if that was asked for.
    #[inline(always)]
    pub(crate) fn account_in(&self, bytes: u32) {
        if let Some(account) = &self.account {
            account.packet_in(bytes);
        }
    }

    /// Counts a packet to the client, if that was asked for.
    #[inline(always)]
    pub(crate) fn account_out(&self, bytes: u32) {
        if let Some(account) = &self.account {
            account.packet_out(bytes);
        }
    }

    /// Sets or clears bits of the status and loses no other change.
    fn change(&self, new: impl Fn(u32) -> u32) {
        loop {
            let old = self.status.load();
            if new(old) == old || self.status.replace(old, new(old)) {
                return;
            }
        }
    }

    /// Whether a template or another connection controls this one.
    pub(crate) fn is_controlled(&self) -> bool {
        self.control.is_some()
    }

    /// Whether the connection controls others.
    pub(crate) fn has_children(&self) -> bool {
        self.children.load() != 0
    }

    /// When the end of a connection that controls others comes instead of now. Other directors are told.
    fn put_off(&self, now: u32, home: &Home) -> Option<u32> {
        // As in C the connection keeps the shorter timeout.
        self.has_children().then(|| {
            self.timeout.store(DEFERRED);
            home.sender.offer_deferred(self);
            now.wrapping_add(DEFERRED)
        })
    }

    /// Counts a packet from the client; of a one-packet connection, where it belongs to a template.
    #[inline(always)]
    pub(crate) fn count_packet(&self) {
        if self.is_one_packet() {
            if let Some(control) = &self.control {
                return control.entry().get().count_one();
            }
        }
        self.count_one();
    }

    #[inline(always)]
    fn count_one(&self) {
        // A plain store: the number only steers rare decisions, a lost one of two at the same time does not matter, and an
        // atomic would cost every packet.
        self.in_pkts.store(self.in_pkts.load().wrapping_add(1));
    }

    /// Enters a state, with what that means for the destination's counters: C `set_tcp_state()`. `drop_flags` are taken
    /// off. Loses no change, whatever other CPUs do at the same time.
    pub(crate) fn enter(&self, state: u8, drop_flags: u32, events: &Events) {
        loop {
            let old = self.status.load();
            let mut new = (old & FLAGS & !drop_flags) | u32::from(state) << STATE_SHIFT;
            let was_active = old & conn_flag::INACTIVE == 0;
            let is_active = match self.proto {
                IPPROTO_TCP => tcp::is_active(state),
                IPPROTO_SCTP => sctp::is_active(state),
                _ => false,
            };
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
                if new >> STATE_SHIFT != old >> STATE_SHIFT && !self.is_one_packet() {
                    events.conn(event::CHANGED, self);
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
            || self.kind != t.kind()
            || self.caddr != t.src.v4_be()
            || self.vaddr != t.dst.v4_be()
        {
            return false;
        }
        match self.tails() {
            None => true,
            Some(tails) => tails.caddr == t.src.tail() && tails.vaddr == t.dst.tail(),
        }
    }

    /// Whether a packet is a reply of the connection, of which it has met this node.
    #[inline(always)]
    fn is_reply_to(&self, node: usize, t: &Tuple) -> bool {
        if node == 0 {
            self.is_direct_reply(t)
        } else {
            self.is_reply(t)
        }
    }

    /// Whether a packet is a reply to what node 1 is for: addresses and ports of its request were rewritten.
    #[inline(always)]
    fn is_reply(&self, t: &Tuple) -> bool {
        if self.proto != t.proto || self.rport != t.dport || self.kind != t.kind() {
            return false;
        }
        if !self.is_masq() {
            return self.is_local_reply(t);
        }
        if self.dport != t.sport || self.daddr != t.src.v4_be() || self.caddr != t.dst.v4_be() {
            return false;
        }
        match self.tails() {
            None => true,
            Some(tails) => tails.daddr == t.src.tail() && tails.caddr == t.dst.tail(),
        }
    }

    /// Whether a packet is a reply as node 0 finds it: a real server that gets packets unchanged answers as the virtual
    /// service, which has the same hash.
    #[inline(always)]
    fn is_direct_reply(&self, t: &Tuple) -> bool {
        // All that a packet of another flow is told by is in the cache line of the links.
        self.vport == t.sport
            && self.cport == t.dport
            && self.proto == t.proto
            && self.kind == t.kind()
            && !self.has_other_end()
            && self.vaddr() == t.src
            && self.caddr() == t.dst
    }

    /// Whether the real server sees other addresses or ports than the client does. Never changes.
    #[inline(always)]
    fn has_other_end(&self) -> bool {
        self.is_masq() || self.is_fullnat()
    }

    fn request(&self) -> Tuple {
        Tuple {
            src: self.caddr(),
            dst: self.vaddr(),
            sport: self.cport,
            dport: self.vport,
            proto: self.proto,
            v6: self.is_v6(),
            template: self.is_template(),
        }
    }

    fn reply(&self) -> Tuple {
        let (src, sport) = if self.has_other_end() {
            (self.daddr(), self.dport)
        } else {
            (self.vaddr(), self.vport)
        };
        let dst = match self.fullnat() {
            Some(full) => *full.addr(),
            None => self.caddr(),
        };
        Tuple {
            src,
            dst,
            sport,
            dport: self.rport,
            proto: self.proto,
            v6: self.is_v6(),
            template: self.is_template(),
        }
    }
}

/// What a table has for its connections.
pub(crate) struct Home {
    /// When the namespace goes its conntrack entries go without our help.
    net: WhileOpen,
    events: Arc<Events>,
    sender: Arc<Sender>,
    apps: Arc<Apps>,
    /// How many wait for their client's port, IPv4 and IPv6: C `no_cport_conns`.
    waiting: [I32; 2],
}

impl Home {
    #[inline(always)]
    fn waiting(&self, v6: bool) -> &I32 {
        let [four, six] = &self.waiting;
        if v6 {
            six
        } else {
            four
        }
    }
}

impl Entry for Conn {
    type Home = Home;

    fn nodes(&self) -> usize {
        if self.has_other_end() && !self.is_template() {
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

    fn postpone(&self, now: u32, home: &Home) -> Option<u32> {
        let later = self.put_off(now, home);
        if let (None, Some(full)) = (later, self.fullnat()) {
            full.set_expired();
        }
        later
    }

    fn enters(&self, home: &Home) {
        self.app_enters(home);
        let is_new = self.status.load() & REPLACED == 0;
        let kind = if is_new { event::NEW } else { event::CHANGED };
        home.events.conn(kind, self);
    }

    fn leaves(&self, home: &Home) {
        if self.status.load() & REPLACED == 0 {
            home.events.conn(event::DELETED, self);
        }
    }

    fn left(&self, home: &Home) {
        self.app_left(home);
        // A template has no flow, as a connection without its client's port has not.
        if !self.is_tracked() || self.cport == 0 {
            return;
        }
        if let Some(net) = home.net.get() {
            conntrack::kill(
                net,
                &conntrack::Flow {
                    v6: self.is_v6(),
                    proto: self.proto,
                    src: self.caddr().0,
                    sport: self.cport,
                    dst: self.vaddr().0,
                    dport: self.vport,
                },
            );
        }
    }

    fn removed(&self) {
        if let Some(control) = &self.control {
            control.entry().children.sub(1);
        }
        if let Some(dest) = self.dest() {
            if self.is_template() {
                dest.template_unbound();
            } else {
                dest.conn_unbound(self.flags() & conn_flag::INACTIVE == 0);
            }
        }
        if let Some(full) = self.fullnat() {
            full.ended(self);
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
    /// No local port.
    Exhausted,
    /// The real server was removed at this moment.
    Removed,
}

/// The connections of a network namespace.
pub(crate) struct ConnTable {
    table: Table<Conn>,
    limits: Limits,
    lfactor: I32,
    /// The load factor that the present size was chosen with.
    sized_for: I32,
    /// With more connections than these the table should grow at once.
    most: I64,
    /// Whether new connections count their packets.
    counting: Bool,
}

impl ConnTable {
    /// Makes a table of the least size, whose changes `events` and `sender` are told. `lfactor` is `conn_lfactor`, `counting`
    /// `rvs_conn_counters`. May sleep.
    pub(crate) fn new(
        net: &Handle,
        limits: Limits,
        lfactor: i32,
        counting: bool,
        events: Arc<Events>,
        sender: Arc<Sender>,
        apps: Arc<Apps>,
    ) -> Result<Self> {
        const BITS: u32 = sizing::CONN_MIN_BITS;
        let home = Home {
            net: WhileOpen::new(net),
            events,
            sender,
            apps,
            waiting: [const { I32::new(0) }; 2],
        };
        let first = sizing::Table {
            size: 1 << BITS,
            lfactor,
        };
        let most = sizing::bounds(first, limits).upper;
        Ok(Self {
            table: Table::new(BITS, BITS, true, home)?,
            limits,
            lfactor: I32::new(lfactor),
            sized_for: I32::new(lfactor),
            most: I64::new(most.into()),
            counting: Bool::new(counting),
        })
    }

    /// Finds the connection of a packet of this host's or to it, and which way the packet goes.
    #[inline(always)]
    pub(crate) fn find<'g>(&'g self, t: &Tuple, g: &'g Held) -> Option<(Ref<'g, Conn>, Way)> {
        let mut way = Way::Request;
        let found = self.table.find(t.hash(self.table.key()), g, |conn, node| {
            if node == 0 {
                way = Way::Request;
                if conn.is_request(t) {
                    return true;
                }
            }
            way = Way::Reply;
            conn.is_reply_to(node, t)
        });
        found.map(|(conn, _)| (conn, way))
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
                conn.is_reply_to(node, t)
            })
            .map(|(conn, _)| conn)
    }

    /// Finds the template of a key, if it is still used: C `ip_vs_ct_in_get()`.
    pub(crate) fn find_template<'g>(&'g self, key: &Tuple, g: &'g Held) -> Option<Ref<'g, Conn>> {
        self.table
            .find(key.hash(self.table.key()), g, |conn, node| {
                node == 0 && conn.is_request(key) && !conn.is_stale()
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
        let conn = Conn::new(param, self.counting.load()).map_err(|_| NoConn::Memory)?;
        self.enter(conn, param, g)
    }

    /// Puts a new connection into the table: the rest of [`ConnTable::create()`].
    #[inline(always)]
    fn enter<'g>(
        &'g self,
        mut conn: Conn,
        param: &Param<'_>,
        g: &'g Held,
    ) -> Result<Created<'g>, NoConn> {
        let bound = conn.bind_app(&self.table.home().apps, g);
        let (timeout, is_one_packet) = (conn.timeout(), conn.is_one_packet());
        let reply = (conn.nodes() > 1).then(|| param.reply());
        let hashes = self.hashes(param.flow, reply.as_ref());
        let new = Unlinked::new(conn).map_err(|_| NoConn::Memory)?;
        // From here on its end takes back what is counted.
        if let Some(control) = param.control {
            control.children.add(1);
        }
        match param.dest {
            Some(dest) if param.flow.template => dest.template_bound(),
            Some(dest) if !dest.conn_bound() => {
                drop(Unlisted::new(new));
                return Err(NoConn::Removed);
            }
            _ => {}
        }
        if is_one_packet {
            return Ok(Created::Once(Unlisted::new(new)));
        }
        let deadline = time::jiffies().wrapping_add(timeout);
        Ok(
            match self.table.insert(new, hashes, deadline, g, |other, node| {
                node == 0 && other.is_request(param.flow) && !other.is_stale()
            }) {
                Inserted::New(conn) => {
                    if let Some(bound) = bound {
                        bound.keep();
                    }
                    Created::New(conn)
                }
                Inserted::Exists(conn) => Created::Exists(conn),
                // What asks for no unique node is never told so.
                Inserted::Taken => return Err(NoConn::Memory),
            },
        )
    }

    /// The hashes of a connection's nodes, of what is at hand: what was just written to its memory would have to come back.
    #[inline(always)]
    fn hashes(&self, request: &Tuple, reply: Option<&Tuple>) -> [u32; 2] {
        let key = self.table.key();
        [request.hash(key), reply.map_or(0, |reply| reply.hash(key))]
    }

    /// A number that is the same for all packets of a connection, and else random.
    pub(crate) fn flow_hash(&self, conn: Ref<'_, Conn>) -> u32 {
        conn.request().hash(self.table.key())
    }

    /// Lets a connection live for another of its timeouts: C `ip_vs_conn_put()`.
    pub(crate) fn renew(&self, conn: Ref<'_, Conn>) {
        conn.defer(time::jiffies().wrapping_add(conn.timeout()));
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

    /// Ends a connection now, unless it controls others: C `ip_vs_conn_expire_now()`.
    #[cold]
    pub(crate) fn end(&self, conn: Ref<'_, Conn>, g: &Held) {
        match conn.put_off(time::jiffies(), self.table.home()) {
            Some(later) => conn.defer(later),
            None => {
                self.table.remove(conn, g);
            }
        }
    }

    /// Ends a connection to make room, and then what controlled it and controls nobody else, but for a template that has
    /// proved useful: C `ip_vs_conn_del()`.
    pub(crate) fn discard<'g>(&'g self, conn: Ref<'g, Conn>, g: &'g Held) {
        let mut at = conn;
        // A data connection, its control connection, the template of that: there is no longer chain.
        for _ in 0..3 {
            if let Some(later) = at.put_off(time::jiffies(), self.table.home()) {
                return at.defer(later);
            }
            if !self.table.remove(at, g) {
                return;
            }
            let Some(control) = &at.get().control else {
                return;
            };
            let control = control.entry();
            let assured = control.is_template() && control.state() & template::ASSURED != 0;
            if assured || control.has_children() {
                return;
            }
            at = control;
        }
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

    /// Sets `rvs_conn_counters`, for new connections.
    pub(crate) fn set_counting(&self, counting: bool) {
        self.counting.store(counting);
    }

    /// Goes on with a walk through all connections: see [`Table::walk()`].
    pub(crate) fn walk<'g>(
        &'g self,
        walk: &mut Walk,
        g: &'g Held,
        f: impl FnMut(Ref<'g, Conn>) -> bool,
    ) -> bool {
        self.table.walk(walk, g, f)
    }

    /// See [`Table::first_used()`].
    pub(crate) fn first_used(&self, index: usize, g: &Held) -> (usize, bool) {
        self.table.first_used(index, g)
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

    /// The namespace goes: connections that end leave netfilter's entries alone.
    pub(crate) fn close(&self) {
        self.table.home().net.close();
    }

    /// Ends all connections. Sleeps. C: `ip_vs_conn_flush()`.
    pub(crate) fn flush(&self) {
        self.table.clear();
    }

    /// Ends all connections whose destination was removed: C `ip_vs_expire_nodest_conn_flush()`. Sleeps.
    pub(crate) fn flush_nodest(&self) {
        self.table.each(|conn, g| {
            let gone = conn.dest().is_some_and(|dest| !dest.available());
            if gone && !conn.has_children() {
                self.discard(conn, g);
            }
        });
    }

    /// What must be done now and then: ends what is due. Process context, one caller at a time. Returns in how many jiffies
    /// to come again.
    pub(crate) fn tick(&self) -> u32 {
        self.table.expire(time::jiffies());
        TICK
    }

    fn now(&self) -> sizing::Table {
        sizing::Table {
            size: u32::try_from(self.size()).unwrap_or(u32::MAX),
            lfactor: self.sized_for.load(),
        }
    }

    /// Whether there are more connections than the table is made for: looked at for each new one.
    #[inline(always)]
    pub(crate) fn is_crowded(&self) -> bool {
        self.table.count() > self.most.load()
    }

    /// Somebody was asked to fit the size: nobody else need.
    pub(crate) fn will_fit(&self) {
        self.most.store(i64::MAX);
    }

    /// Whether the table should have another size.
    pub(crate) fn is_unfit(&self) -> bool {
        let now = self.now();
        let count = u32::try_from(self.count()).unwrap_or(0);
        let bounds = sizing::bounds(now, self.limits);
        count > bounds.upper || count < bounds.lower || self.lfactor.load() != now.lfactor
    }

    /// Fits the size to the count. Sleeps for a grace period; callers must not overlap.
    pub(crate) fn fit(&self) {
        self.will_fit();
        if self.is_unfit() {
            let (now, lfactor) = (self.now(), self.lfactor.load());
            let count = u32::try_from(self.count()).unwrap_or(0);
            let want = sizing::desired_size(Some(now), count, lfactor, self.limits);
            // Without memory the next tick tries again.
            if want == now.size || self.table.resize(want.trailing_zeros()).is_ok() {
                self.sized_for.store(lfactor);
            }
        }
        // Where it could not be fitted, not at once again: with the next tick.
        if !self.is_unfit() {
            let bounds = sizing::bounds(self.now(), self.limits);
            self.most.store(bounds.upper.into());
        }
    }
}

/// The outcome of [`ConnTable::create()`].
pub(crate) enum Created<'g> {
    /// This call made it.
    New(Ref<'g, Conn>),
    /// It was there.
    Exists(Ref<'g, Conn>),
    /// It is for this packet only, and in no table.
    Once(Unlisted<Conn>),
}
