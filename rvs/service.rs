// SPDX-License-Identifier: GPL-2.0-only

//! Virtual services: `struct ip_vs_service`.
//!
//! A service's destinations are a snapshot: an immutable array, newest first, that packets read under RCU and that
//! configuration replaces as a whole. Weights and counters live in the destinations and change in place.

mod table;
pub(crate) mod trash;

pub(crate) use table::{
    PerFamily,
    Services,
    SERVERS,
    SERVICES, //
};

use crate::{
    dest::{
        self,
        Dest, //
    },
    os::{
        atomic::U32,
        lock::SpinBh,
        log,
        rcu::{
            self,
            Held,
            RcuBox,
            RcuCell, //
        }, //
    },
    stats::Stats,
    HZ, //
};
use kernel::{
    c_str,
    prelude::*,
    static_lock_class,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    fmt::{
        Persistent,
        ServiceId,
        ServiceName,
        ServiceRow, //
    },
    sched::{
        self,
        Change,
        Kind,
        Pick,
        Pool,
        State, //
    },
    uapi::svc_flag, //
};

/// What a service is known by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    /// Address family.
    pub(crate) family: Family,
    /// Firewall mark; not zero: the rest does not count.
    pub(crate) fwmark: u32,
    /// IP protocol; netlink lets it be any 16-bit number. TCP with a mark.
    pub(crate) protocol: u16,
    /// Virtual address.
    pub(crate) addr: Addr,
    /// Virtual port, in memory order.
    pub(crate) port: Be16,
}

impl Id {
    /// Whether both mean the same service.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        if other.fwmark != 0 {
            self.fwmark == other.fwmark && self.family == other.family
        } else {
            self == other
        }
    }

    /// As the core's texts want it.
    pub(crate) fn shown(&self) -> ServiceId<'_> {
        if self.fwmark != 0 {
            ServiceId::Fwmark(self.fwmark)
        } else {
            ServiceId::Addr {
                family: self.family,
                protocol: self.protocol,
                addr: &self.addr,
                port: self.port,
            }
        }
    }
}

/// What can be configured: the rest of `struct ip_vs_service_user_kern`.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Scheduler.
    pub(crate) scheduler: Kind,
    /// Flags of `svc_flag`.
    pub(crate) flags: u32,
    /// Persistence timeout in jiffies.
    pub(crate) timeout: u32,
    /// See [`Addr::masked`].
    pub(crate) netmask: u32,
}

/// A service's destinations at one time, with the scheduler that chooses among them.
pub(crate) struct Backends {
    kind: Kind,
    dests: KVec<Arc<Dest>>,
}

impl Backends {
    /// The destinations, newest first.
    pub(crate) fn dests(&self) -> &[Arc<Dest>] {
        &self.dests
    }

    /// The scheduler.
    pub(crate) fn scheduler(&self) -> Kind {
        self.kind
    }
}

impl Pool for Backends {
    #[inline]
    fn len(&self) -> usize {
        self.dests.len()
    }

    #[inline]
    fn weight(&self, i: usize) -> i32 {
        self.dests.get(i).map_or(0, |dest| dest.weight())
    }

    #[inline]
    fn overloaded(&self, i: usize) -> bool {
        self.dests.get(i).is_none_or(|dest| dest.overloaded())
    }

    #[inline]
    fn active(&self, i: usize) -> u32 {
        self.dests.get(i).map_or(0, |dest| dest.active())
    }

    #[inline]
    fn total(&self, i: usize) -> u32 {
        self.dests.get(i).map_or(0, |dest| dest.total())
    }
}

/// A prepared change of a service's destinations, which cannot fail any more.
pub(crate) struct Prepared {
    backends: RcuBox<Backends>,
    change: Change,
}

/// A virtual service.
///
/// Functions that change it are called with the namespace's configuration locked.
pub(crate) struct Service {
    id: Id,
    flags: U32,
    timeout: U32,
    netmask: U32,
    backends: RcuCell<Backends>,
    /// What the scheduler remembers between two picks: C `sched_data`, `sched_lock`.
    state: SpinBh<State>,
    /// How often it was removed and came back, with its destinations: see [`trash`].
    life: U32,
    /// How many of its destinations are in the trash.
    in_trash: U32,
    /// Traffic.
    pub(crate) stats: Stats,
}

#[allow(dead_code)]
impl Service {
    /// Makes a service without destinations that nobody knows yet. May sleep.
    #[inline(never)]
    pub(crate) fn new(id: Id, settings: &Settings) -> Result<Arc<Self>> {
        // Written where it stays: the structure is large for a stack.
        let init = try_init!(Self {
            id,
            flags: U32::new(settings.flags | svc_flag::HASHED),
            timeout: U32::new(settings.timeout),
            netmask: U32::new(settings.netmask),
            backends: RcuCell::new(Self::prepare_return(settings.scheduler)?),
            state: SpinBh::new(
                State::new(settings.scheduler),
                c_str!("rvs_sched"),
                static_lock_class!(),
            ),
            life: U32::new(0),
            in_trash: U32::new(0),
            stats: Stats::new()?,
        }? Error);
        Arc::try_init(init, GFP_KERNEL)
    }

    /// Gets ready to bring a removed service back, without destinations. May sleep.
    pub(crate) fn prepare_return(scheduler: Kind) -> Result<RcuBox<Backends>> {
        let backends = Backends {
            kind: scheduler,
            dests: KVec::new(),
        };
        RcuBox::new(backends, GFP_KERNEL)
    }

    /// Brings a removed service back as a new one that only shares its memory, and that of its destinations, with the
    /// old. `prepared` is for the scheduler of `settings`.
    pub(crate) fn return_as(&self, settings: &Settings, prepared: RcuBox<Backends>) {
        self.life.add(1);
        self.stats.zero();
        self.store(settings);
        let mut state = self.state.lock();
        *state = State::new(settings.scheduler);
        self.backends.replace(Some(prepared));
    }

    /// Tells one life of the service from another.
    pub(crate) fn life(&self) -> u32 {
        self.life.load()
    }

    /// What it is known by.
    #[inline]
    pub(crate) fn id(&self) -> &Id {
        &self.id
    }

    /// Flags of `svc_flag`.
    #[inline]
    pub(crate) fn flags(&self) -> u32 {
        self.flags.load()
    }

    /// Persistence timeout in jiffies.
    pub(crate) fn timeout(&self) -> u32 {
        self.timeout.load()
    }

    /// See [`Addr::masked`].
    pub(crate) fn netmask(&self) -> u32 {
        self.netmask.load()
    }

    /// The destinations as they are now; `None` once the service is gone.
    #[inline]
    pub(crate) fn backends<'g>(&'g self, g: &'g Held) -> Option<&'g Backends> {
        self.backends.load(g)
    }

    /// Chooses a destination for a new connection, and logs if there is none.
    pub(crate) fn schedule<'g>(&'g self, g: &'g Held) -> Option<&'g Arc<Dest>> {
        let backends = self.backends.load(g)?;
        let (backends, pick) = match sched::pick_stateless(backends.kind, backends) {
            Some(pick) => (backends, pick),
            None => {
                let mut state = self.state.lock();
                // The snapshot that belongs to the state: both change under the lock.
                let backends = self.backends.load(g)?;
                (backends, state.pick(backends))
            }
        };
        match pick {
            Pick::Dest(index) => backends.dests.get(index),
            none => {
                self.complain(backends.kind, none);
                None
            }
        }
    }

    /// Logs, at a limited rate, that there is no destination: C `ip_vs_scheduler_err()`.
    #[cold]
    fn complain(&self, kind: Kind, pick: Pick) {
        if let (Some(text), true) = (pick.message(), log::may_log()) {
            let name = ServiceName(self.id.shown());
            pr_err!("{}\n", format_args!("{}: {name} - {text}", kind.name()));
        }
    }

    /// Takes over settings; nothing changes on failure. C `ip_vs_edit_service()`.
    pub(crate) fn configure(&self, settings: &Settings) -> Result {
        let old = rcu::read(|g| self.backends(g).map(Backends::scheduler));
        if old.is_some_and(|kind| kind != settings.scheduler) {
            self.change_scheduler(settings.scheduler)?;
        }
        self.store(settings);
        Ok(())
    }

    fn store(&self, settings: &Settings) {
        self.flags.store(settings.flags | svc_flag::HASHED);
        self.timeout.store(settings.timeout);
        self.netmask.store(settings.netmask);
    }

    fn change_scheduler(&self, kind: Kind) -> Result {
        let new = self.copy(Some(kind), None, None)?;
        let mut state = self.state.lock();
        *state = State::with_pool(kind, &*new);
        self.backends.replace(Some(new));
        Ok(())
    }

    /// Makes a copy of the present snapshot: with another scheduler, with a destination at the head, without the one at
    /// an index. Nobody else changes the snapshot meanwhile: the configuration is locked. May sleep.
    #[inline(never)]
    fn copy(
        &self,
        kind: Option<Kind>,
        add: Option<&Arc<Dest>>,
        skip: Option<usize>,
    ) -> Result<RcuBox<Backends>> {
        let len = rcu::read(|g| self.backends(g).map_or(0, |old| old.dests.len()));
        let room = len.checked_add(1).ok_or(ENOMEM)?;
        let mut dests = KVec::with_capacity(room, GFP_KERNEL)?;
        let kind = rcu::read(|g| {
            let old = self.backends(g).ok_or(ESRCH)?;
            let kept = Iterator::zip(0..old.dests.len(), &old.dests);
            let kept = kept.filter(|(i, _)| Some(*i) != skip).map(|(_, dest)| dest);
            for dest in Iterator::chain(add.into_iter(), kept) {
                dests
                    .push_within_capacity(dest.clone())
                    .map_err(|_| ENOMEM)?;
            }
            Ok::<_, Error>(kind.unwrap_or(old.kind))
        })?;
        RcuBox::new(Backends { kind, dests }, GFP_KERNEL)
    }

    /// The destination with this id, and where it is.
    pub(crate) fn find(&self, id: &dest::Id) -> Option<(usize, Arc<Dest>)> {
        rcu::read(|g| {
            let backends = self.backends.load(g)?;
            let mut dests = backends.dests.iter().enumerate();
            dests
                .find(|(_, dest)| dest.id() == id)
                .map(|(i, dest)| (i, dest.clone()))
        })
    }

    /// Gets ready to add `dest`. May sleep.
    pub(crate) fn prepare_add(&self, dest: &Arc<Dest>) -> Result<Prepared> {
        Ok(Prepared {
            backends: self.copy(None, Some(dest), None)?,
            change: Change::Added(0),
        })
    }

    /// Gets ready to remove the destination at `index`. May sleep.
    pub(crate) fn prepare_remove(&self, index: usize) -> Result<Prepared> {
        Ok(Prepared {
            backends: self.copy(None, None, Some(index))?,
            change: Change::Removed(index),
        })
    }

    /// Makes a prepared change visible. The configuration must have been locked since it was prepared.
    pub(crate) fn publish(&self, prepared: Prepared) {
        let mut state = self.state.lock();
        state.on_change(prepared.change, &*prepared.backends);
        self.backends.replace(Some(prepared.backends));
    }

    /// Tells the scheduler that the destination at `index` was edited.
    pub(crate) fn edited(&self, index: usize) {
        rcu::read(|g| {
            let mut state = self.state.lock();
            if let Some(backends) = self.backends.load(g) {
                state.on_change(Change::Updated(index), backends);
            }
        });
    }

    /// Lets all destinations go: the service is going. Breaks the circle of references between them.
    pub(crate) fn retire(&self) {
        self.backends.clear();
    }

    /// Calls `f` for each destination, newest first.
    pub(crate) fn each_dest<'g>(&'g self, g: &'g Held, f: impl FnMut(&'g Arc<Dest>)) {
        if let Some(backends) = self.backends.load(g) {
            backends.dests.iter().for_each(f);
        }
    }

    /// Starts its statistics and those of its destinations over: C `ip_vs_zero_service()`.
    pub(crate) fn zero(&self, g: &Held) {
        self.each_dest(g, |dest| dest.stats.zero());
        self.stats.zero();
    }

    /// Its row in `/proc/net/ip_vs`.
    pub(crate) fn row<'a>(&'a self, backends: &Backends) -> ServiceRow<'a> {
        let flags = self.flags();
        ServiceRow {
            id: self.id.shown(),
            scheduler: backends.kind.name(),
            one_packet: flags & svc_flag::ONEPACKET != 0,
            persistent: (flags & svc_flag::PERSISTENT != 0).then(|| Persistent {
                timeout: self.timeout(),
                netmask: self.netmask(),
            }),
        }
    }

    /// Persistence timeout in seconds, as it was configured.
    pub(crate) fn timeout_secs(&self) -> u32 {
        HZ.to_secs_u32(self.timeout())
    }
}
