// SPDX-License-Identifier: GPL-2.0-only

//! Virtual services: `struct ip_vs_service`.
//!
//! A service's destinations are a snapshot: an immutable array, newest first, that packets read under RCU and that
//! configuration replaces as a whole. Weights and counters live in the destinations and change in place.

pub(crate) mod extras;
mod flow;
pub(crate) mod lblc;
mod memory;
pub(crate) mod pool;
mod table;
pub(crate) mod trash;

pub(crate) use {
    flow::Flow,
    table::{
        PerFamily,
        Services,
        SERVERS,
        SERVICES, //
    },
};

use memory::Memory;

use crate::{
    control::sysctl::Sysctl,
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
            RcuCell,
            Retired, //
        },
        stack::{
            Link,
            Linked, //
        }, //
    },
    refusal::Refusal,
    stats::{
        Estimated,
        Stats, //
    },
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
        table::{
            Planned,
            Slot,
            EMPTY, //
        },
        Change,
        Kind,
        Options,
        Pick,
        Pool, //
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
    /// The table of a scheduler that has one; none without destinations.
    table: Option<KVVec<Slot>>,
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

    #[inline]
    fn table(&self) -> &[Slot] {
        self.table.as_deref().unwrap_or(&[])
    }
}

/// A prepared change of a service's destinations, which cannot fail any more.
pub(crate) struct Prepared {
    /// `None`: those that there are.
    backends: Option<RcuBox<Backends>>,
    change: Change,
}

/// A prepared start of a scheduler, which cannot fail any more.
pub(crate) struct Start {
    backends: RcuBox<Backends>,
    memory: Memory,
}

/// The destinations that a snapshot is made of, seen from the present one.
struct Draft<'a> {
    /// Another scheduler than at present.
    kind: Option<Kind>,
    /// A destination at the head.
    add: Option<&'a Arc<Dest>>,
    /// The index of one to leave out.
    skip: Option<usize>,
    /// The index, in the new snapshot, of one whose weight is going to change to this, and its latest one that was not
    /// zero.
    weights: Option<(usize, i32, i32)>,
    change: Change,
}

impl Draft<'_> {
    const SAME: Self = Draft {
        kind: None,
        add: None,
        skip: None,
        weights: None,
        change: Change::Reset,
    };
}

/// A destination as tables are made of it.
fn planned(dest: &Dest, weight: i32, last_weight: i32) -> Planned<'_> {
    Planned {
        addr: dest.addr(),
        port: dest.port(),
        weight,
        last_weight,
    }
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
    /// What its tunnels have beyond C.
    tunnel: RcuCell<extras::TunnelExtras>,
    /// What the scheduler remembers between two picks: C `sched_data`, `sched_lock`.
    memory: SpinBh<Memory>,
    /// How often it was removed and came back, with its destinations ([`trash`]), in steps of [`LIFE`]; below that, whether
    /// netfilter tracks connections for it.
    life: U32,
    /// How many of its destinations are in the trash.
    in_trash: U32,
    /// Local addresses and what belongs to them.
    pub(crate) fullnat: pool::FullNat,
    /// Traffic.
    pub(crate) stats: Stats,
}

// With its count it fits into an allocation of 256 bytes, half of C's, unless the kernel keeps more of a lock.
#[cfg(not(any(CONFIG_DEBUG_SPINLOCK, CONFIG_DEBUG_LOCK_ALLOC)))]
kernel::static_assert!(size_of::<Service>() <= 256 - size_of::<usize>());

/// One life more.
const LIFE: u32 = 2;
const TRACKS: u32 = 1;

impl Linked for Service {
    fn link(&self) -> &Link {
        self.stats.link()
    }
}

impl Estimated for Service {
    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn is_live(&self) -> bool {
        rcu::read(|g| self.backends(g).is_some())
    }
}

impl Service {
    /// Makes a service without destinations that nobody knows yet. May sleep.
    #[inline(never)]
    pub(crate) fn new(id: Id, settings: &Settings) -> Result<Arc<Self>> {
        let Start { backends, memory } = Self::prepare_return(settings.scheduler)?;
        // Written where it stays: the structure is large for a stack.
        let init = try_init!(Self {
            id,
            flags: U32::new(settings.flags | svc_flag::HASHED),
            timeout: U32::new(settings.timeout),
            netmask: U32::new(settings.netmask),
            backends: RcuCell::new(backends),
            tunnel: RcuCell::empty(),
            memory: SpinBh::new(memory, c_str!("rvs_sched"), static_lock_class!()),
            life: U32::new(0),
            in_trash: U32::new(0),
            fullnat: pool::FullNat::new(),
            stats: Stats::new()?,
        }? Error);
        Arc::try_init(init, GFP_KERNEL)
    }

    /// Gets ready to bring a removed service back, without destinations. May sleep.
    #[inline(never)]
    pub(crate) fn prepare_return(scheduler: Kind) -> Result<Start> {
        let backends = Backends {
            kind: scheduler,
            dests: KVec::new(),
            table: None,
        };
        Ok(Start {
            backends: RcuBox::new(backends, GFP_KERNEL)?,
            memory: Memory::new(scheduler)?,
        })
    }

    /// Brings a removed service back as a new one that only shares its memory, and that of its destinations, with the
    /// old. `prepared` is for the scheduler of `settings`.
    #[inline(never)]
    pub(crate) fn return_as(&self, settings: &Settings, prepared: Start) {
        self.life.add(LIFE);
        self.stats.zero();
        self.tunnel.clear();
        self.store(settings);
        self.start(prepared);
    }

    /// Puts a scheduler to work.
    fn start(&self, prepared: Start) {
        let old = {
            let mut memory = self.memory.lock();
            self.backends.replace(Some(prepared.backends));
            core::mem::replace(&mut *memory, prepared.memory)
        };
        // It may be large: not under the lock.
        drop(old);
    }

    /// Tells one life of the service from another.
    pub(crate) fn life(&self) -> u32 {
        self.life.load() & !TRACKS
    }

    /// Notes whether netfilter tracks connections for it; returns whether it did.
    pub(crate) fn set_tracks(&self, tracks: bool) -> bool {
        let old = self.life.load();
        self.life.store((old & !TRACKS) | u32::from(tracks));
        old & TRACKS != 0
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
    pub(crate) fn schedule<'g>(&'g self, flow: &Flow<'_>, g: &'g Held) -> Option<&'g Arc<Dest>> {
        let options = Options::from_flags(self.flags());
        let backends = self.backends.load(g)?;
        let (backends, pick) = match sched::pick_stateless(backends.kind, backends, flow, options) {
            Some(pick) => (backends, pick),
            None => {
                let mut memory = self.memory.lock();
                // The snapshot that belongs to the memory: both change under the lock.
                let backends = self.backends.load(g)?;
                (backends, memory.pick(backends, flow, options))
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

    /// Takes over settings; nothing changes on failure. C `ip_vs_edit_service()`. May sleep.
    pub(crate) fn configure(&self, settings: &Settings) -> Result<(), Refusal> {
        if settings.flags & svc_flag::ONEPACKET != 0 && self.has_fullnat() {
            return Err(Refusal::new(
                EINVAL,
                c"one-packet scheduling and FullNAT exclude each other",
            ));
        }
        let old = rcu::read(|g| self.backends(g).map(Backends::scheduler));
        if old.is_some_and(|kind| kind != settings.scheduler) {
            self.change_scheduler(settings.scheduler)?;
        }
        self.store(settings);
        Ok(())
    }

    /// Whether it has a pool, or a destination that is FullNAT by itself.
    fn has_fullnat(&self) -> bool {
        rcu::read(|g| {
            let mut any = self.fullnat.pool(g).is_some();
            self.each_dest(g, |dest| any |= dest.is_fullnat());
            any
        })
    }

    fn store(&self, settings: &Settings) {
        self.flags.store(settings.flags | svc_flag::HASHED);
        self.timeout.store(settings.timeout);
        self.netmask.store(settings.netmask);
    }

    fn change_scheduler(&self, kind: Kind) -> Result<(), Refusal> {
        let backends = self.copy(Draft {
            kind: Some(kind),
            ..Draft::SAME
        })?;
        let memory = Memory::with_pool(kind, &backends)?;
        self.start(Start { backends, memory });
        Ok(())
    }

    /// Makes another snapshot. Nobody else changes the present one meanwhile: the configuration is locked. May sleep.
    #[inline(never)]
    fn copy(&self, draft: Draft<'_>) -> Result<RcuBox<Backends>, Refusal> {
        let len = rcu::read(|g| self.backends(g).map_or(0, |old| old.dests.len()));
        let room = len.checked_add(1).ok_or(ENOMEM)?;
        let mut dests = KVec::with_capacity(room, GFP_KERNEL)?;
        let kind = rcu::read(|g| {
            let old = self.backends(g).ok_or(ESRCH)?;
            let kept = Iterator::zip(0..old.dests.len(), &old.dests);
            let kept = kept
                .filter(|(i, _)| Some(*i) != draft.skip)
                .map(|(_, dest)| dest);
            for dest in Iterator::chain(draft.add.into_iter(), kept) {
                dests
                    .push_within_capacity(dest.clone())
                    .map_err(|_| ENOMEM)?;
            }
            Ok::<_, Error>(draft.kind.unwrap_or(old.kind))
        })?;
        let table = self.table(kind, &dests, &draft)?;
        Ok(RcuBox::new(Backends { kind, dests, table }, GFP_KERNEL)?)
    }

    /// Makes the table of a scheduler that has one. May sleep.
    #[inline(never)]
    fn table(
        &self,
        kind: Kind,
        dests: &[Arc<Dest>],
        draft: &Draft<'_>,
    ) -> Result<Option<KVVec<Slot>>, Refusal> {
        let size = match sched::table::size(kind) {
            Some(size) if !dests.is_empty() => size,
            _ => return Ok(None),
        };
        let mut table = KVVec::from_elem(EMPTY, size, GFP_KERNEL)?;
        if sched::table::has_room(kind, dests.len()) {
            let walks = sched::table::scratch(kind, dests.len());
            let mut walks = KVVec::from_elem(Default::default(), walks, GFP_KERNEL)?;
            let plan = Iterator::zip(0..dests.len(), dests).map(|(i, dest)| {
                let (weight, last_weight) = match draft.weights {
                    Some((at, weight, last)) if at == i => (weight, last),
                    _ => (dest.weight(), dest.last_weight()),
                };
                planned(dest, weight, last_weight)
            });
            sched::table::fill(kind, self.id.family, plan, &mut table, &mut walks);
        } else if draft.kind.is_some() {
            return Err(Refusal::new(
                EINVAL,
                c"the service has more destinations than the scheduler's table has slots",
            ));
        } else {
            // As in C the others keep their slots, and a new one gets none.
            rcu::read(|g| {
                let old = self.backends(g).map_or(&[][..], |old| old.table());
                for (new, old) in Iterator::zip(table.iter_mut(), old) {
                    *new = sched::table::moved(*old, draft.change);
                }
            });
        }
        Ok(Some(table))
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

    /// Gets ready to add `dest`, which is going to have these settings. May sleep.
    pub(crate) fn prepare_add(
        &self,
        dest: &Arc<Dest>,
        settings: &dest::Settings,
    ) -> Result<Prepared, Refusal> {
        let change = Change::Added(0);
        let backends = self.copy(Draft {
            add: Some(dest),
            weights: Some((0, settings.weight, settings.weight)),
            change,
            ..Draft::SAME
        })?;
        Ok(Prepared {
            backends: Some(backends),
            change,
        })
    }

    /// Gets ready to remove the destination at `index`. May sleep.
    pub(crate) fn prepare_remove(&self, index: usize) -> Result<Prepared, Refusal> {
        let change = Change::Removed(index);
        let backends = self.copy(Draft {
            skip: Some(index),
            change,
            ..Draft::SAME
        })?;
        Ok(Prepared {
            backends: Some(backends),
            change,
        })
    }

    /// Gets ready to give the destination at `index` these settings. May sleep.
    pub(crate) fn prepare_edit(
        &self,
        (index, dest): (usize, &Dest),
        settings: &dest::Settings,
    ) -> Result<Prepared, Refusal> {
        let change = Change::Updated(index);
        let last_weight = match settings.weight {
            0 => dest.last_weight(),
            weight => weight,
        };
        let old = planned(dest, dest.weight(), dest.last_weight());
        let new = planned(dest, settings.weight, last_weight);
        let kind = rcu::read(|g| self.backends(g).map(Backends::scheduler));
        let backends = match kind {
            Some(kind) if sched::table::is_changed_by(kind, old, new) => {
                Some(self.copy(Draft {
                    weights: Some((index, settings.weight, last_weight)),
                    change,
                    ..Draft::SAME
                })?)
            }
            _ => None,
        };
        Ok(Prepared { backends, change })
    }

    /// Makes a prepared change visible. The configuration must have been locked since it was prepared.
    pub(crate) fn publish(&self, prepared: Prepared) {
        let mut memory = self.memory.lock();
        match prepared.backends {
            Some(backends) => {
                memory.on_change(prepared.change, &backends);
                self.backends.replace(Some(backends));
            }
            None => rcu::read(|g| {
                if let Some(backends) = self.backends.load(g) {
                    memory.on_change(prepared.change, backends);
                }
            }),
        }
    }

    /// Lets all destinations go, and returns them: the service is going. Breaks the circle of references between them.
    pub(crate) fn retire(&self) -> Option<Retired<Backends>> {
        self.fullnat.retire();
        let (backends, old) = {
            let mut memory = self.memory.lock();
            let old = core::mem::replace(&mut *memory, Memory::none());
            (self.backends.take(), old)
        };
        // It may be large: not under the lock.
        drop(old);
        backends
    }

    /// Clears the cache of a scheduler that has one, which it must be asked for once every [`lblc::PERIOD`]; returns
    /// whether it has one. C `ip_vs_lblc_check_expire()`.
    pub(crate) fn clear_cache(&self, sysctl: &Sysctl) -> bool {
        let Some(mut work) = self.memory.lock().tick(sysctl) else {
            return false;
        };
        while self.memory.lock().clear_some(&mut work) {}
        true
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
