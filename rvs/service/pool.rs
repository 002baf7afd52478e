// SPDX-License-Identifier: GPL-2.0-only

//! Pools of local addresses: what FullNAT connections of a service come from, as their real servers see it.

use crate::{
    dest::Dest,
    fullnat::Realm,
    os::{
        atomic::{
            Bool,
            I64,
            U32, //
        },
        once::Once,
        rcu::{
            self,
            Held,
            RcuBox,
            RcuCell, //
        }, //
    },
    refusal::Refusal, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Family,
        V6Type, //
    },
    fullnat::{
        ports::Range,
        proxy::Version,
        toa, //
    }, //
};

/// How many addresses a pool may have.
pub(crate) const MOST_LOCALS: usize = 1024;

/// The name of an interface, with its terminating zero.
pub(crate) type IfName = [u8; 16];

/// A prefix, or an address by itself, that a pool has or shall have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Address family.
    pub(crate) family: Family,
    /// The first address.
    pub(crate) addr: Addr,
    /// How many bits are the same for all.
    pub(crate) len: u8,
}

impl Prefix {
    /// Checks that all addresses may be local ones.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let bits = self.bits();
        if self.len > bits {
            return Err(Refusal::new(
                EINVAL,
                c"the prefix is longer than an address",
            ));
        }
        let masked = match self.family {
            Family::V4 => {
                let mask = u32::MAX
                    .checked_shl(u32::from(bits.saturating_sub(self.len)))
                    .unwrap_or(0);
                self.addr.masked(Family::V4, mask.to_be())
            }
            Family::V6 => self.addr.prefix(self.len.into()),
        };
        if masked != self.addr {
            return Err(Refusal::new(
                EINVAL,
                c"the local address has bits behind its prefix",
            ));
        }
        let good = match self.family {
            Family::V4 => {
                let addr = &self.addr;
                !(addr.v4_is_multicast()
                    || addr.v4_is_loopback()
                    || addr.v4_host() >> 24 == 0
                    || addr.v4_host() >> 28 == 0xf)
            }
            Family::V6 => {
                let kind = self.addr.v6_type();
                kind.is(V6Type::UNICAST)
                    && !kind.is(V6Type::LINKLOCAL)
                    && !kind.is(V6Type::LOOPBACK)
                    && !kind.is(V6Type::COMPAT_V4)
            }
        };
        if !good {
            return Err(Refusal::new(
                EINVAL,
                c"a local address must be global unicast",
            ));
        }
        if self.count().is_none() {
            return Err(Refusal::new(
                E2BIG,
                c"a pool has at most 1024 local addresses",
            ));
        }
        Ok(())
    }

    fn bits(&self) -> u8 {
        match self.family {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// How many addresses it has; `None`: too many for a pool.
    fn count(&self) -> Option<usize> {
        let free = u32::from(self.bits().checked_sub(self.len)?);
        1usize
            .checked_shl(free)
            .filter(|n| free <= 10 && *n <= MOST_LOCALS)
    }

    /// The `n`th address.
    fn nth(&self, n: usize) -> Addr {
        let [a, b, c, d] = self.addr.0;
        let add = |word: u32| u32::from_be(word).wrapping_add(n as u32).to_be();
        // No more than ten bits are free.
        match self.family {
            Family::V4 => Addr([add(a), b, c, d]),
            Family::V6 => Addr([a, b, c, add(d)]),
        }
    }
}

/// A local address of a pool.
pub(crate) struct Local {
    realm: Arc<Realm>,
    prefix: Prefix,
    addr: Addr,
    ifname: IfName,
    ifindex: u32,
    withdrawn: Bool,
    /// Connections that have a port of it now.
    pub(crate) conns: U32,
    /// Ports that were asked for and not free.
    pub(crate) conflicts: I64,
}

impl Local {
    /// The namespace's FullNAT.
    pub(crate) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// Address family.
    pub(crate) fn family(&self) -> Family {
        self.prefix.family
    }

    /// The address.
    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    /// What it was added with.
    pub(crate) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The interface whose packets may have it as their source; `None`: any.
    pub(crate) fn ifname(&self) -> Option<&[u8]> {
        let name = self.ifname.split(|b| *b == 0).next()?;
        (!name.is_empty()).then_some(name)
    }

    /// The number of that interface; 0: any.
    pub(crate) fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Whether packets to it may still be replies: it is in a pool, or some connection has it.
    pub(crate) fn in_use(&self) -> bool {
        !self.withdrawn.load() || self.conns.load() != 0
    }
}

/// Puts an address into a list that has room for it. One function, so that the compiler sees that it cannot panic.
#[inline(never)]
pub(crate) fn put(list: &mut KVec<Arc<Local>>, local: Arc<Local>) -> Result {
    list.push_within_capacity(local).map_err(|_| ENOMEM)
}

/// The local addresses of a service at one time.
pub(crate) struct Pool {
    locals: KVec<Arc<Local>>,
    /// Whether any of them is for one interface only.
    pub(crate) by_interface: bool,
}

impl Pool {
    /// All of them.
    pub(crate) fn locals(&self) -> &[Arc<Local>] {
        &self.locals
    }
}

/// How a client's address gets to the real servers of a service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carry {
    /// Not at all.
    Nothing,
    /// In a TCP option.
    Toa {
        /// Its kind.
        kind: u8,
        /// Whether SYNs have it, too.
        on_syn: bool,
    },
    /// In front of the payload.
    Proxy(Version),
}

/// What can be configured beside the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Local ports.
    pub(crate) ports: Range,
    /// The client's address.
    pub(crate) carry: Carry,
}

impl Options {
    /// Nothing configured.
    pub(crate) const NONE: Self = Self {
        ports: Range::DEFAULT,
        carry: Carry::Nothing,
    };

    fn words(&self) -> (u32, u32) {
        let ports = u32::from(self.ports.min()) << 16 | u32::from(self.ports.max());
        let carry = match self.carry {
            Carry::Nothing => 0,
            Carry::Toa { kind, on_syn } => u32::from(kind) | u32::from(on_syn) << 8,
            Carry::Proxy(Version::One) => 1 << 16,
            Carry::Proxy(Version::Two) => 2 << 16,
        };
        (ports, carry)
    }

    fn from_words(ports: u32, carry: u32) -> Self {
        let [kind, on_syn, proxy, _] = carry.to_le_bytes();
        Self {
            ports: Range::new((ports >> 16) as u16, ports as u16).unwrap_or(Range::DEFAULT),
            carry: match (Version::from_number(proxy), kind) {
                (Some(version), _) => Carry::Proxy(version),
                (None, 0) => Carry::Nothing,
                (None, kind) => Carry::Toa {
                    kind,
                    on_syn: on_syn != 0,
                },
            },
        }
    }
}

/// FullNAT of a service: a word, until something of it is configured for the first time.
///
/// Functions that change it are called with the namespace's configuration locked.
pub(crate) struct FullNat(Once<Parts>);

/// What a service has once it had something of FullNAT.
pub(crate) struct Parts {
    pool: RcuCell<Pool>,
    ports: U32,
    carry: U32,
    /// Connections that there was no local port for.
    pub(crate) exhausted: I64,
    /// Segments that got the client's address as an option.
    pub(crate) toa_added: I64,
    /// Segments that should have, but had no room.
    pub(crate) toa_no_room: I64,
    /// Segments of which a client's own was removed.
    pub(crate) toa_removed: I64,
}

/// Changed options, which nothing can fail about any more.
pub(crate) struct Prepared {
    options: Options,
    parts: KBox<Parts>,
}

impl Options {
    /// Gets ready to give these to a service. May sleep.
    pub(crate) fn prepare(self) -> Result<Prepared> {
        Ok(Prepared {
            options: self,
            parts: KBox::new(Parts::new(), GFP_KERNEL)?,
        })
    }
}

impl Parts {
    fn new() -> Self {
        let (ports, carry) = Options::NONE.words();
        Self {
            pool: RcuCell::empty(),
            ports: U32::new(ports),
            carry: U32::new(carry),
            exhausted: I64::new(0),
            toa_added: I64::new(0),
            toa_no_room: I64::new(0),
            toa_removed: I64::new(0),
        }
    }

    fn set_options(&self, options: &Options) {
        let (ports, carry) = options.words();
        self.ports.store(ports);
        self.carry.store(carry);
    }
}

impl FullNat {
    /// Nothing configured.
    pub(crate) fn new() -> Self {
        Self(Once::new())
    }

    /// Gets ready to count what happens, and for a pool. May sleep.
    pub(crate) fn prepare(&self) -> Result {
        if self.0.get().is_none() {
            self.0.set(KBox::new(Parts::new(), GFP_KERNEL)?);
        }
        Ok(())
    }

    /// The counters, if anything of FullNAT was ever configured.
    pub(crate) fn counts(&self) -> Option<&Parts> {
        self.0.get()
    }

    /// Counts a connection that there was no local port for.
    pub(crate) fn no_port(&self) {
        if let Some(parts) = self.0.get() {
            parts.exhausted.add(1);
        }
    }

    /// The pool as it is now; `None` if there is none.
    #[inline]
    pub(crate) fn pool<'g>(&'g self, g: &'g Held) -> Option<&'g Pool> {
        self.0.get()?.pool.load(g)
    }

    /// Whether connections to `dest` are FullNAT: it is so by itself, or would be NAT and the service has a pool.
    #[inline(always)]
    pub(crate) fn covers(&self, dest: &Dest, g: &Held) -> bool {
        dest.is_masq() && (self.pool(g).is_some() || dest.is_fullnat())
    }

    /// How many local addresses there are.
    pub(crate) fn len(&self) -> usize {
        rcu::read(|g| self.pool(g).map_or(0, |pool| pool.locals.len()))
    }

    /// What is configured.
    pub(crate) fn options(&self) -> Options {
        self.0.get().map_or(Options::NONE, |parts| {
            Options::from_words(parts.ports.load(), parts.carry.load())
        })
    }

    /// Changes that, for connections to come; `None` leaves it as it is.
    pub(crate) fn set_options(&self, prepared: Option<Prepared>) {
        let Some(Prepared { options, parts }) = prepared else {
            return;
        };
        // One that is there stays.
        self.0.set(parts);
        if let Some(parts) = self.0.get() {
            parts.set_options(&options);
        }
    }

    /// Everything is gone: the service is removed.
    pub(super) fn retire(&self) {
        let Some(parts) = self.0.get() else {
            return;
        };
        rcu::read(|g| {
            for local in self.pool(g).map_or(&[][..], Pool::locals) {
                local.withdrawn.store(true);
            }
        });
        parts.pool.clear();
        parts.set_options(&Options::NONE);
        for count in [
            &parts.exhausted,
            &parts.toa_added,
            &parts.toa_no_room,
            &parts.toa_removed,
        ] {
            count.swap(0);
        }
    }

    /// The pool's addresses but those of `without`. Sleeps.
    fn copy(&self, without: Option<&Prefix>, more: usize) -> Result<KVec<Arc<Local>>> {
        let room = self.len().checked_add(more).ok_or(ENOMEM)?;
        let mut locals = KVec::with_capacity(room, GFP_KERNEL)?;
        rcu::read(|g| {
            for local in self.pool(g).map_or(&[][..], Pool::locals) {
                if without != Some(&local.prefix) {
                    put(&mut locals, local.clone())?;
                }
            }
            Ok::<_, Error>(())
        })?;
        Ok(locals)
    }

    /// Gets ready to add a prefix, for one interface or (0) for any. Sleeps.
    pub(crate) fn prepare_add(
        &self,
        realm: &Arc<Realm>,
        prefix: &Prefix,
        ifname: IfName,
        ifindex: u32,
    ) -> Result<Change, Refusal> {
        prefix.check()?;
        self.prepare()?;
        let count = prefix.count().unwrap_or(0);
        if self.len().saturating_add(count) > MOST_LOCALS {
            return Err(Refusal::new(
                E2BIG,
                c"a pool has at most 1024 local addresses",
            ));
        }
        let mut locals = self.copy(None, count)?;
        let mut new = KVec::with_capacity(count, GFP_KERNEL)?;
        for addr in (0..count).map(|n| prefix.nth(n)) {
            if locals.iter().any(|local| local.addr == addr) {
                return Err(Refusal::new(
                    EEXIST,
                    c"the pool has the local address already",
                ));
            }
            let local = Local {
                realm: realm.clone(),
                prefix: *prefix,
                addr,
                ifname,
                ifindex,
                withdrawn: Bool::new(false),
                conns: U32::new(0),
                conflicts: I64::new(0),
            };
            put(&mut new, Arc::new(local, GFP_KERNEL)?)?;
        }
        for local in &new {
            put(&mut locals, local.clone())?;
        }
        Change::new(locals, new, KVec::new())
    }

    /// Gets ready to remove a prefix as it was added. Sleeps.
    pub(crate) fn prepare_remove(&self, prefix: &Prefix) -> Result<Change, Refusal> {
        let locals = self.copy(Some(prefix), 0)?;
        let removed = self.len().saturating_sub(locals.len());
        if removed == 0 {
            return Err(Refusal::new(ENOENT, c"the pool has no such local address"));
        }
        let mut old = KVec::with_capacity(removed, GFP_KERNEL)?;
        rcu::read(|g| {
            for local in self.pool(g).map_or(&[][..], Pool::locals) {
                if local.prefix == *prefix {
                    put(&mut old, local.clone())?;
                }
            }
            Ok::<_, Error>(())
        })?;
        Change::new(locals, KVec::new(), old)
    }

    /// Makes a prepared change visible.
    pub(crate) fn publish(&self, change: Change) {
        for local in &change.removed {
            local.withdrawn.store(true);
        }
        // A change was prepared, so there is something to change.
        if let Some(parts) = self.0.get() {
            parts.pool.replace(change.pool);
        }
    }
}

/// A prepared change of a pool, which cannot fail any more.
pub(crate) struct Change {
    pool: Option<RcuBox<Pool>>,
    /// The addresses that come.
    pub(crate) added: KVec<Arc<Local>>,
    /// Those that go.
    removed: KVec<Arc<Local>>,
}

impl Change {
    fn new(
        locals: KVec<Arc<Local>>,
        added: KVec<Arc<Local>>,
        removed: KVec<Arc<Local>>,
    ) -> Result<Self, Refusal> {
        let by_interface = locals.iter().any(|local| local.ifindex != 0);
        let pool = if locals.is_empty() {
            None
        } else {
            Some(RcuBox::new(
                Pool {
                    locals,
                    by_interface,
                },
                GFP_KERNEL,
            )?)
        };
        Ok(Self {
            pool,
            added,
            removed,
        })
    }
}

/// How many bytes of a segment the client must leave to an option with its address.
pub(crate) fn option_room(carry: Carry, family: Family) -> u16 {
    match carry {
        Carry::Toa { .. } => toa::len(family) as u16,
        _ => 0,
    }
}
