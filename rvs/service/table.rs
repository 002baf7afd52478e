// SPDX-License-Identifier: GPL-2.0-only

//! Finding services by address or mark, and real servers by address.
//!
//! C: `svc_table` and `rs_table` of `struct netns_ipvs`.

use super::{
    Id,
    Service, //
};
use crate::{
    dest::{
        self,
        Dest, //
    },
    os::{
        atomic::{
            I32,
            U32, //
        },
        net::Net,
        rcu::{
            self,
            Held, //
        },
        slab,
        table::{
            self,
            Node,
            Ref,
            Table,
            Unlinked, //
        }, //
    }, //
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
    mix,
    proto::IPPROTO_TCP,
    table::{
        self as sizing,
        Limits, //
    },
    uapi::{
        tun_type,
        FwdMethod,
        FTP_DATA_PORT,
        FTP_PORT, //
    }, //
};

/// Where the service table's entries are allocated.
pub(crate) static SERVICES: slab::Cache<Node<Entry>> = slab::Cache::new();
/// Where the real-server table's entries are allocated.
pub(crate) static SERVERS: slab::Cache<Node<Server>> = slab::Cache::new();

/// The least size of both tables in bits: `IP_VS_SVC_TAB_MIN_BITS`, `IP_VS_RTAB_BITS`.
pub(super) const MIN_BITS: u32 = 4;

/// Something for each address family.
#[derive(Default)]
pub(crate) struct PerFamily<T> {
    v4: T,
    v6: T,
}

impl<T> PerFamily<T> {
    /// One for each.
    pub(crate) const fn new(v4: T, v6: T) -> Self {
        Self { v4, v6 }
    }

    /// That of a family.
    #[inline]
    pub(crate) fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// That of a family, to change.
    pub(crate) fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// How many services of a family there are, by what lookups must know.
#[derive(Default)]
struct Counts {
    all: U32,
    fwmark: U32,
    address: U32,
    ftp: U32,
    any_port: U32,
}

impl Counts {
    /// Changes all that `id` counts in by `by`.
    fn add(&self, id: &Id, by: u32) {
        self.all.add(by);
        if id.fwmark != 0 {
            self.fwmark.add(by);
        } else {
            self.address.add(by);
        }
        if id.port == FTP_PORT {
            self.ftp.add(by);
        } else if id.port == 0 && id.fwmark == 0 {
            self.any_port.add(by);
        }
    }
}

/// A service in the table.
pub(crate) struct Entry(pub(super) Arc<Service>);

/// What a real server is recognised by its packets as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The origin of replies behind NAT, to services of this protocol; of any if it is for a mark.
    Nat(Option<u16>),
    /// The end of a tunnel of this type.
    Tunnel(u8),
}

impl Role {
    fn nat(dest: &Dest) -> Self {
        let service = dest.service().id();
        Self::Nat((service.fwmark == 0).then_some(service.protocol))
    }
}

/// What packets of a real server are recognised by.
#[derive(Clone, Copy, PartialEq, Eq)]
struct ServerId {
    family: Family,
    role: Role,
    addr: Addr,
    port: Be16,
}

impl ServerId {
    /// That of a destination with this method and tunnel (type and port); `None` if packets from it say nothing. Behind FullNAT
    /// it is one behind NAT: it is when its service has no pool, and nothing else may come from there. C:
    /// `ip_vs_rs_hash()`.
    fn new(dest: &Dest, method: Option<FwdMethod>, tunnel: (u8, Be16)) -> Option<Self> {
        let (role, port) = match (method?, tunnel) {
            (FwdMethod::Masq, _) => (Role::nat(dest), dest.port()),
            (FwdMethod::Tunnel, (kind @ tun_type::GUE, port)) => (Role::Tunnel(kind), port),
            (FwdMethod::Tunnel, (kind @ (tun_type::IPIP | tun_type::GRE), 0)) => {
                (Role::Tunnel(kind), 0)
            }
            _ => return None,
        };
        Some(Self {
            family: dest.family(),
            role,
            addr: *dest.addr(),
            port,
        })
    }

    /// That of a destination as it is.
    fn of(dest: &Dest) -> Option<Self> {
        let (kind, port, _) = dest.tunnel();
        let method = FwdMethod::from_flags(dest.conn_flags());
        Self::new(dest, method, (kind, port))
    }

    /// That of a destination as it will be.
    fn of_settings(dest: &Dest, settings: &dest::Settings) -> Option<Self> {
        Self::new(
            dest,
            settings.forwarding(),
            (settings.tun_type, settings.tun_port),
        )
    }

    fn hash(&self, key: &table::Key) -> u32 {
        let role = match self.role {
            Role::Nat(Some(protocol)) => u64::from(protocol),
            Role::Nat(None) => 1 << 16,
            Role::Tunnel(kind) => (1 << 17) | u64::from(kind),
        };
        let family = u64::from(self.family.af());
        hash(
            key,
            &self.addr,
            (family << 40) | (role << 16) | u64::from(self.port),
        )
    }
}

/// A real server behind NAT, or at the end of a tunnel. There is one for all destinations that look the same from outside.
pub(crate) struct Server {
    /// The first of them, even if it was removed before others: what it is known by takes more room than a reference.
    first: Arc<Dest>,
    /// How many destinations it stands for.
    dests: U32,
    /// What of its identity a destination can change.
    port: Be16,
    /// The type of its tunnel; `None` behind NAT.
    tunnel: Option<u8>,
}

impl Server {
    fn id(&self) -> ServerId {
        ServerId {
            family: self.first.family(),
            role: match self.tunnel {
                Some(kind) => Role::Tunnel(kind),
                None => Role::nat(&self.first),
            },
            addr: *self.first.addr(),
            port: self.port,
        }
    }
}

// One cache line.
kernel::static_assert!(size_of::<Node<Server>>() <= 64);

/// Hashes an address and what else tells entries apart. Only the administrator adds entries.
#[inline]
pub(super) fn hash(key: &table::Key, addr: &Addr, rest: u64) -> u32 {
    let [a, b] = addr.words64();
    let hash = if b == 0 {
        mix::hash(key, &[a, rest])
    } else {
        mix::hash(key, &[a, b, rest])
    };
    hash as u32
}

/// The hash of a service. Ports and protocol tell apart what an address has; a mark has a bit of its own.
pub(super) fn service_hash(key: &table::Key, id: &Id) -> u32 {
    let family = u64::from(id.family.af()) << 32;
    if id.fwmark != 0 {
        hash(key, &Addr::v4(id.fwmark), family | (1 << 63))
    } else {
        let rest = (u64::from(id.protocol) << 16) | u64::from(id.port);
        hash(key, &id.addr, family | rest)
    }
}

impl table::Entry for Entry {
    type Home = ();

    fn nodes(&self) -> usize {
        1
    }

    fn hash(&self, _node: usize, key: &table::Key) -> u32 {
        service_hash(key, self.0.id())
    }

    fn cache() -> &'static slab::Cache<Node<Self>> {
        &SERVICES
    }
}

impl table::Entry for Server {
    type Home = ();

    fn nodes(&self) -> usize {
        1
    }

    fn hash(&self, _node: usize, key: &table::Key) -> u32 {
        self.id().hash(key)
    }

    fn cache() -> &'static slab::Cache<Node<Self>> {
        &SERVERS
    }
}

/// The services and real servers of a namespace.
///
/// Functions that change something are called with the namespace's configuration locked.
pub(crate) struct Services {
    table: Table<Entry>,
    servers: Table<Server>,
    counts: PerFamily<Counts>,
    /// The load factor that the present size was chosen with.
    sized_for: I32,
}

/// A new entry of the service table.
pub(crate) struct NewService(Unlinked<Entry>);

/// A real server to add: a new entry, or none if there is one already.
pub(crate) struct NewServer(Option<Unlinked<Server>>);

impl Services {
    /// Makes empty tables.
    pub(crate) fn new(lfactor: i32) -> impl Init<Self, Error> {
        try_init!(Self {
            table: Table::new(MIN_BITS, 0, false, ())?,
            servers: Table::new(MIN_BITS, 0, false, ())?,
            counts: PerFamily::default(),
            sized_for: I32::new(lfactor),
        }? Error)
    }

    /// How many services of a family there are.
    pub(crate) fn count(&self, family: Family) -> u32 {
        self.counts.get(family).all.load()
    }

    /// Whether there are any services.
    pub(crate) fn is_empty(&self) -> bool {
        self.count(Family::V4) == 0 && self.count(Family::V6) == 0
    }

    /// Finds a service by exactly what it is known by: `__ip_vs_service_find()`, `__ip_vs_svc_fwm_find()`.
    pub(crate) fn find<'g>(&'g self, id: &Id, g: &'g Held) -> Option<&'g Arc<Service>> {
        let hash = service_hash(self.table.key(), id);
        let (entry, _) = self
            .table
            .find(hash, g, |entry, _| entry.0.id().is_same(id))?;
        Some(&entry.get().0)
    }

    /// The service that a packet is for, which has this mark and goes to this address: `ip_vs_service_find()`.
    ///
    /// In this order: by mark; by address and port; the FTP service of the address, for what may be one of its data
    /// connections; the service of all ports of the address.
    pub(crate) fn lookup<'g>(&'g self, net: &Net, id: Id, g: &'g Held) -> Option<&'g Arc<Service>> {
        let mut id = id;
        let port = id.port;
        let counts = self.counts.get(id.family);
        if id.fwmark != 0 && counts.fwmark.load() != 0 {
            if let Some(service) = self.find(&id, g) {
                return Some(service);
            }
        }
        id.fwmark = 0;

        if counts.address.load() == 0 {
            return None;
        }
        if let Some(service) = self.find(&id, g) {
            return Some(service);
        }
        if id.protocol == u16::from(IPPROTO_TCP)
            && counts.ftp.load() != 0
            && (port == FTP_DATA_PORT || !net.is_port_privileged(u16::from_be(port)))
        {
            id.port = FTP_PORT;
            if let Some(service) = self.find(&id, g) {
                return Some(service);
            }
        }
        if counts.any_port.load() != 0 {
            id.port = 0;
            return self.find(&id, g);
        }
        None
    }

    /// Whether a packet from this address and port comes from a real server behind NAT: `ip_vs_has_real_service()`.
    pub(crate) fn is_real_server(
        &self,
        family: Family,
        protocol: u8,
        addr: &Addr,
        port: Be16,
        g: &Held,
    ) -> bool {
        let mut id = ServerId {
            family,
            role: Role::Nat(Some(protocol.into())),
            addr: *addr,
            port,
        };
        if self.server(&id, g).is_some() {
            return true;
        }
        id.role = Role::Nat(None);
        self.server(&id, g).is_some()
    }

    /// Whether packets are put into others for this address (and port, which only GUE has), in tunnels of type `kind`: C
    /// `ip_vs_find_tunnel()`.
    pub(crate) fn is_tunnel(
        &self,
        family: Family,
        addr: &Addr,
        port: Be16,
        kind: u8,
        g: &Held,
    ) -> bool {
        let id = ServerId {
            family,
            role: Role::Tunnel(kind),
            addr: *addr,
            port,
        };
        self.server(&id, g).is_some()
    }

    /// Whether a destination would be another real server with these settings.
    pub(crate) fn moves_server(&self, dest: &Dest, settings: &dest::Settings) -> bool {
        ServerId::of(dest) != ServerId::of_settings(dest, settings)
    }

    fn server<'g>(&'g self, id: &ServerId, g: &'g Held) -> Option<Ref<'g, Server>> {
        let hash = id.hash(self.servers.key());
        let found = self.servers.find(hash, g, |server, _| server.id() == *id);
        found.map(|(server, _)| server)
    }

    /// Gets ready to add a service.
    pub(crate) fn prepare(service: Arc<Service>) -> Result<NewService> {
        Unlinked::new(Entry(service)).map(NewService)
    }

    /// Adds a service, of an id that is not there.
    pub(crate) fn add(&self, new: NewService, id: &Id) {
        // Counted first, so that whoever finds it finds the counts, too.
        self.counts.get(id.family).add(id, 1);
        rcu::read(|g| {
            self.table.add(new.0, 0, g);
        });
    }

    /// Removes a service; those who found it before keep it until their RCU section ends.
    pub(crate) fn remove(&self, service: &Service) {
        let id = service.id();
        let hash = service_hash(self.table.key(), id);
        let removed = rcu::read(|g| {
            let found = self
                .table
                .find(hash, g, |entry, _| core::ptr::eq(&*entry.0, service));
            found.is_some_and(|(entry, _)| self.table.remove(entry, g))
        });
        if removed {
            self.counts.get(id.family).add(id, u32::MAX);
        }
    }

    /// Gets ready to add a real server.
    pub(crate) fn prepare_server(
        &self,
        dest: &Arc<Dest>,
        settings: &dest::Settings,
    ) -> Result<NewServer> {
        let Some(id) = ServerId::of_settings(dest, settings) else {
            return Ok(NewServer(None));
        };
        if rcu::read(|g| self.server(&id, g).is_some()) {
            return Ok(NewServer(None));
        }
        Ok(NewServer(Some(Unlinked::new(Server {
            first: dest.clone(),
            dests: U32::new(0),
            port: id.port,
            tunnel: match id.role {
                Role::Nat(_) => None,
                Role::Tunnel(kind) => Some(kind),
            },
        })?)))
    }

    /// Adds a real server that was prepared since the configuration was locked: `ip_vs_rs_hash()`.
    pub(crate) fn add_server(&self, new: NewServer, dest: &Dest) {
        let Some(id) = ServerId::of(dest) else {
            return;
        };
        rcu::read(|g| {
            if let Some(new) = new.0 {
                self.servers.add(new, 0, g);
            }
            if let Some(server) = self.server(&id, g) {
                server.dests.add(1);
            }
        });
    }

    /// Removes a real server that was added: `ip_vs_rs_unhash()`.
    pub(crate) fn remove_server(&self, dest: &Dest) {
        let Some(id) = ServerId::of(dest) else {
            return;
        };
        rcu::read(|g| {
            if let Some(server) = self.server(&id, g) {
                if server.dests.fetch_sub(1) == 1 {
                    self.servers.remove(server, g);
                }
            }
        });
    }

    /// Fits the sizes to the numbers of entries. Sleeps for grace periods; callers must not overlap. Without memory the
    /// sizes stay as they are.
    pub(crate) fn fit(&self, lfactor: i32) {
        fit(&self.table, Some(&self.sized_for), lfactor);
        // C has 16 buckets of real servers for ever.
        fit(&self.servers, None, 0);
    }

    /// The table as `/proc/net/ip_vs_status` shows it: none without services, as C has it then. Sleeps.
    pub(crate) fn status(&self) -> TableStatus {
        if self.is_empty() {
            return TableStatus::NONE;
        }
        TableStatus {
            size: u32::try_from(rcu::read(|g| self.table.size(g))).unwrap_or(u32::MAX),
            lfactor: self.sized_for.load(),
            census: Some(self.table.census()),
        }
    }

    /// See [`Table::first_used()`].
    pub(crate) fn first_used(&self, index: usize, g: &Held) -> (usize, bool) {
        self.table.first_used(index, g)
    }

    /// The number of chains for [`Services::visit()`].
    pub(crate) fn chains(&self, g: &Held) -> usize {
        self.table.chains(g)
    }

    /// Calls `f` for each service of a chain, newest first, until it returns `false`.
    pub(crate) fn visit<'g>(
        &'g self,
        index: usize,
        g: &'g Held,
        mut f: impl FnMut(&'g Arc<Service>) -> bool,
    ) {
        self.table
            .visit(index, g, |entry: Ref<'g, Entry>| f(&entry.get().0))
    }

    /// Calls `f` for each service of the chains from `first` on, in RCU sections of one chain each, until it returns
    /// `false`. Sleeps. It sees each that stays, exactly once if the table is not resized meanwhile.
    pub(crate) fn each(
        &self,
        first: usize,
        mut f: impl FnMut(usize, &Arc<Service>, &Held) -> bool,
    ) {
        let mut index = first;
        let mut more = true;
        while more {
            more = rcu::read(|g| {
                self.visit(index, g, |service| {
                    more = f(index, service, g);
                    more
                });
                more && index < self.chains(g)
            });
            index = index.wrapping_add(1);
        }
    }

    /// The `n`th service of the chain `index`, counted from 0.
    pub(crate) fn nth_of(&self, index: usize, n: usize) -> Option<Arc<Service>> {
        rcu::read(|g| {
            let (mut nth, mut left) = (None, n);
            self.visit(index, g, |service| {
                match left.checked_sub(1) {
                    Some(less) => left = less,
                    None => nth = Some(service.clone()),
                }
                nth.is_none()
            });
            nth
        })
    }
}

/// Fits the size of a table to the number of its entries, as C does for its service table. `sized_for` is the load factor
/// that the present size was chosen with, for a table that follows changes of it.
pub(super) fn fit<T: table::Entry>(table: &Table<T>, sized_for: Option<&I32>, lfactor: i32) {
    let now = sizing::Table {
        size: u32::try_from(rcu::read(|g| table.size(g))).unwrap_or(u32::MAX),
        lfactor: sized_for.map_or(lfactor, I32::load),
    };
    let count = u32::try_from(table.count()).unwrap_or(0);
    let bounds = sizing::bounds(now, Limits::SERVICES);
    if count > bounds.upper || count <= bounds.lower || lfactor != now.lfactor {
        let want = sizing::desired_size(Some(now), count, lfactor, Limits::SERVICES);
        let done = want == now.size || table.resize(want.trailing_zeros()).is_ok();
        if let (true, Some(sized_for)) = (done, sized_for) {
            sized_for.store(lfactor);
        }
    }
}
