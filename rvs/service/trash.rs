// SPDX-License-Identifier: GPL-2.0-only

//! Removed destinations that may come back: C `dest_trash`.
//!
//! A destination that is added again soon after it was removed is the same one as before, so that its connections go on
//! and count. It stays here while it has connections and two minutes longer. C moves it to whatever service has the old
//! one's address now; here the removed service stays with its destinations, and is the one that is added again.
//!
//! Everything here is called with the namespace's configuration locked.

use super::{
    table::{
        fit,
        hash,
        service_hash,
        Entry,
        MIN_BITS, //
    },
    Id,
    Service, //
};
use crate::{
    dest::{
        self,
        Dest, //
    },
    os::{
        rcu,
        slab,
        table::{
            self,
            Node,
            Table,
            Unlinked, //
        },
        time, //
    },
    HZ, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::timeout::Deadline;

/// How long a destination without connections stays, in seconds; it is looked at twice in that time. C
/// `IP_VS_DEST_TRASH_PERIOD`.
const KEEP_SECS: u32 = 120;

/// In how many jiffies to look again: see [`Trash::sweep()`].
pub(crate) const SWEEP: u32 = HZ.from_secs_u32(KEEP_SECS / 2);

/// Where entries are allocated.
pub(crate) static CACHE: slab::Cache<Node<Removed>> = slab::Cache::new();

/// A removed destination.
pub(crate) struct Removed(Arc<Dest>);

fn removed_hash(key: &table::Key, service: &Service, id: &dest::Id) -> u32 {
    // Servers that many services have must not all be in one chain. A service stays where it is.
    let service = core::ptr::from_ref(service) as u64;
    let rest = (service << 16) | u64::from(id.port);
    hash(key, &id.addr, rest)
}

impl table::Entry for Removed {
    type Home = ();

    fn nodes(&self) -> usize {
        1
    }

    fn hash(&self, _node: usize, key: &table::Key) -> u32 {
        removed_hash(key, self.0.service(), self.0.id())
    }

    fn cache() -> &'static slab::Cache<Node<Self>> {
        &CACHE
    }
}

/// Removed destinations, and the removed services that they belong to.
pub(crate) struct Trash {
    dests: Table<Removed>,
    services: Table<Entry>,
}

impl Trash {
    /// Makes an empty one. May sleep.
    // By itself, for the frame of who makes a namespace.
    #[inline(never)]
    pub(crate) fn new() -> Result<KBox<Self>> {
        let init = try_init!(Self {
            dests: Table::new(MIN_BITS, 0, false, ())?,
            services: Table::new(MIN_BITS, 0, false, ())?,
        }? Error);
        KBox::try_init(init, GFP_KERNEL)
    }

    /// Keeps a removed destination. Without memory it cannot come back, that is all.
    pub(crate) fn put(&self, dest: &Arc<Dest>) {
        dest.idle_since.store(0);
        if let Ok(new) = Unlinked::new(Removed(dest.clone())) {
            dest.service().in_trash.add(1);
            rcu::read(|g| {
                self.dests.add(new, 0, g);
            });
        }
    }

    /// Keeps a removed service, if any of its destinations is kept.
    pub(crate) fn put_service(&self, service: &Arc<Service>) {
        if service.in_trash.load() == 0 {
            return;
        }
        if let Ok(new) = Unlinked::new(Entry(service.clone())) {
            rcu::read(|g| {
                self.services.add(new, 0, g);
            });
        }
    }

    /// The destination of `service` with this id: `ip_vs_trash_get_dest()`.
    pub(crate) fn find(&self, service: &Service, id: &dest::Id) -> Option<Arc<Dest>> {
        if service.in_trash.load() == 0 {
            return None;
        }
        let hash = removed_hash(self.dests.key(), service, id);
        rcu::read(|g| {
            let (removed, _) = self.dests.find(hash, g, |removed, _| {
                removed.0.id() == id && core::ptr::eq(&**removed.0.service(), service)
            })?;
            Some(removed.0.clone())
        })
    }

    /// The service with exactly this id, of which a mark's also has what does not count.
    pub(crate) fn find_service(&self, id: &Id) -> Option<Arc<Service>> {
        if self.services.count() == 0 {
            return None;
        }
        let hash = service_hash(self.services.key(), id);
        rcu::read(|g| {
            let (entry, _) = self.services.find(hash, g, |entry, _| entry.0.id() == id)?;
            Some(entry.0.clone())
        })
    }

    /// Takes a destination out that was found here.
    pub(crate) fn take(&self, dest: &Dest) {
        let hash = removed_hash(self.dests.key(), dest.service(), dest.id());
        rcu::read(|g| {
            let found = self
                .dests
                .find(hash, g, |removed, _| core::ptr::eq(&*removed.0, dest));
            if found.is_some_and(|(removed, _)| self.dests.remove(removed, g)) {
                dest.service().in_trash.sub(1);
            }
        });
    }

    /// Takes a service out that was found here.
    pub(crate) fn take_service(&self, service: &Service) {
        let hash = service_hash(self.services.key(), service.id());
        rcu::read(|g| {
            let found = self
                .services
                .find(hash, g, |entry, _| core::ptr::eq(&*entry.0, service));
            if let Some((entry, _)) = found {
                self.services.remove(entry, g);
            }
        });
    }

    /// Lets go what has been idle long enough: `ip_vs_dest_trash_expire()`. Sleeps. Returns whether anything is left.
    pub(crate) fn sweep(&self) -> bool {
        let now = time::jiffies();
        self.dests.retain(|removed| {
            let keep = keeps(&removed.0, now);
            if !keep {
                removed.0.service().in_trash.sub(1);
            }
            keep
        });
        self.services.retain(|entry| entry.0.in_trash.load() != 0);
        self.dests.count() != 0
    }

    /// Fits the sizes to the numbers of entries: see [`super::Services::fit()`].
    pub(crate) fn fit(&self) {
        fit(&self.dests, None, 0);
        fit(&self.services, None, 0);
    }
}

/// Whether a destination stays; notes when it became idle.
fn keeps(dest: &Dest, now: u32) -> bool {
    if dest.has_conns() {
        return true;
    }
    let since = dest.idle_since.load();
    if since == 0 {
        dest.idle_since.store(now.max(1));
        return true;
    }
    let end = Deadline::after(since as usize, HZ.from_secs_u32(KEEP_SECS));
    !end.passed(now as usize)
}
