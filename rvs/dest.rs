// SPDX-License-Identifier: GPL-2.0-only

//! Destinations: the real servers of a service; `struct ip_vs_dest`.
//!
//! A destination is found through its service's list, through the table of real servers, or through a connection. All of
//! these give their reference back a grace period after they were taken out, so that a destination seen under RCU stays.

use crate::{
    os::{
        atomic::{
            Bool,
            I32,
            U32, //
        },
        lock::SpinBh,
        route::RouteCache,
        stack::{
            Link,
            Linked, //
        }, //
    },
    service::Service,
    stats::{
        Estimated,
        Stats, //
    }, //
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
    fmt::DestRow,
    thresholds::Thresholds,
    uapi::{
        conn_flag,
        FwdMethod, //
    }, //
};

/// What a destination is known by inside its service.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    /// Address family.
    pub(crate) family: Family,
    /// Address.
    pub(crate) addr: Addr,
    /// Port, in memory order.
    pub(crate) port: Be16,
}

/// What can be configured: the rest of `struct ip_vs_dest_user_kern`.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Forwarding method, a value of `FwdMethod` or one that has no meaning; and `ONE_PACKET`, if datagrams to it are scheduled
    /// one by one, and `NFCT`, if netfilter's connection tracking shall know its connections.
    pub(crate) method: u32,
    /// Weight; never negative.
    pub(crate) weight: i32,
    /// Connection thresholds.
    pub(crate) thresholds: Thresholds,
    /// Type of tunnel.
    pub(crate) tun_type: u8,
    /// Port of the tunnel, in memory order.
    pub(crate) tun_port: Be16,
    /// Flags of the tunnel.
    pub(crate) tun_flags: u16,
}

impl Settings {
    /// The forwarding method, if it is one; that of FullNAT is NAT's.
    pub(crate) fn forwarding(&self) -> Option<FwdMethod> {
        if self.is_fullnat() {
            return Some(FwdMethod::Masq);
        }
        FwdMethod::from_flags(self.method)
    }

    /// Whether connections shall be FullNAT, whether the service has a pool or not.
    pub(crate) fn is_fullnat(&self) -> bool {
        self.method & conn_flag::FWD_MASK == conn_flag::FULLNAT
    }
}

/// Counts of connections.
#[repr(C)]
struct Load {
    active: U32,
    total: U32,
    persistent: U32,
    overloaded: Bool,
    /// Serialises changes of `overloaded`: the overload part of C's `dst_lock`.
    lock: SpinBh<()>,
}

/// A real server of a service.
///
/// With its reference count it fills four cache lines, the size of an allocation (half of C's). The first is read for every packet; the
/// last is written for every connection; between them is what the estimator writes.
#[repr(C)]
pub(crate) struct Dest {
    id: Id,
    weight: I32,
    conn_flags: U32,
    available: Bool,
    svc: Arc<Service>,
    /// The way to the server.
    pub(crate) route: RouteCache,
    /// Traffic.
    pub(crate) stats: Stats,
    /// The latest weight that was not zero: C `last_weight`.
    last_weight: I32,
    /// The tunnel's type, its flags above [`TUN_FLAGS_SHIFT`], and [`FULLNAT`].
    tun_type: U32,
    tun_port: U32,
    /// The service's life in which the statistics began.
    life: U32,
    /// When it was seen without connections first since it was removed, in jiffies; 0: not yet.
    pub(crate) idle_since: U32,
    upper: U32,
    lower: U32,
    load: Load,
}

// With its count it fits into an allocation of 256 bytes, unless the kernel keeps more of a lock.
#[cfg(not(any(CONFIG_DEBUG_SPINLOCK, CONFIG_DEBUG_LOCK_ALLOC)))]
kernel::static_assert!(size_of::<Dest>() <= 256 - size_of::<usize>());

/// Where the flags are in the word that they share with the type.
const TUN_FLAGS_SHIFT: u32 = 16;
/// FullNAT by itself, whether its service has a pool or not; between the two.
const FULLNAT: u32 = 1 << 8;

impl Linked for Dest {
    fn link(&self) -> &Link {
        self.stats.link()
    }
}

impl Estimated for Dest {
    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn is_live(&self) -> bool {
        self.available()
    }
}

impl Dest {
    /// Makes a destination of `svc` that nobody knows yet. May sleep. The first half of C `ip_vs_new_dest()`.
    #[inline(never)]
    pub(crate) fn new(svc: Arc<Service>, id: Id, settings: &Settings) -> Result<Arc<Self>> {
        // Written where it stays: the structure is large for a stack.
        let init = try_init!(Self {
            id,
            weight: I32::new(0),
            last_weight: I32::new(settings.weight),
            conn_flags: U32::new(0),
            available: Bool::new(true),
            upper: U32::new(0),
            lower: U32::new(0),
            tun_type: U32::new(0),
            tun_port: U32::new(0),
            life: U32::new(svc.life()),
            idle_since: U32::new(0),
            svc,
            route: RouteCache::new(),
            stats: Stats::new()?,
            load: Load {
                active: U32::new(0),
                total: U32::new(0),
                persistent: U32::new(0),
                overloaded: Bool::new(false),
                lock: SpinBh::new((), c_str!("rvs_dest"), static_lock_class!()),
            },
        }? Error);
        let dest = Arc::try_init(init, GFP_KERNEL)?;
        dest.configure(settings);
        Ok(dest)
    }

    /// Takes over settings; with the namespace's configuration locked. C `__ip_vs_update_dest()`.
    pub(crate) fn configure(&self, settings: &Settings) {
        if settings.weight != 0 {
            self.last_weight.store(settings.weight);
        }
        self.weight.store(settings.weight);

        let tun_flags = u32::from(settings.tun_flags) << TUN_FLAGS_SHIFT;
        let fullnat = if settings.is_fullnat() { FULLNAT } else { 0 };
        self.tun_type
            .store(u32::from(settings.tun_type) | tun_flags | fullnat);
        self.tun_port.store(settings.tun_port.into());

        let mut flags = (settings.method & conn_flag::DEST_MASK) | conn_flag::INACTIVE;
        if settings.is_fullnat() {
            // To whoever does not know better it is NAT.
            flags &= !conn_flag::FWD_MASK;
        }
        if FwdMethod::from_flags(flags) != Some(FwdMethod::Masq) {
            flags |= conn_flag::NOOUTPUT;
        }
        self.conn_flags.store(flags);

        let thresholds = settings.thresholds;
        if self.thresholds() != thresholds {
            let _lock = self.load.lock.lock();
            self.upper.store(thresholds.upper);
            self.lower.store(thresholds.lower);
            let overloaded = self.load.overloaded.load();
            self.load
                .overloaded
                .store(thresholds.edited(self.total(), overloaded));
        }
        // Method and address family of the way may differ now.
        self.route.reset();
    }

    /// A removed destination comes back to its service, which may have been removed and come back, too. The second half
    /// of C `ip_vs_add_dest()`.
    pub(crate) fn return_as(&self, settings: &Settings) {
        self.last_weight.store(settings.weight);
        self.configure(settings);
        let life = self.svc.life();
        if self.life.load() != life {
            self.stats.zero();
            self.life.store(life);
        }
        self.available.store(true);
    }

    /// The destination is no longer its service's: C `__ip_vs_unlink_dest()`.
    pub(crate) fn retire(&self) {
        self.available.store(false);
        // What takes the route out is a full barrier: see `conn_bound()`.
        self.route.reset();
    }

    /// What it is known by.
    #[inline]
    pub(crate) fn id(&self) -> &Id {
        &self.id
    }

    /// Address family.
    #[inline]
    pub(crate) fn family(&self) -> Family {
        self.id.family
    }

    /// Whether its service is of the other family.
    pub(crate) fn is_mixed(&self) -> bool {
        self.family() != self.svc.id().family
    }

    /// Address.
    #[inline]
    pub(crate) fn addr(&self) -> &Addr {
        &self.id.addr
    }

    /// Port, in memory order; zero: that of the packet.
    #[inline]
    pub(crate) fn port(&self) -> Be16 {
        self.id.port
    }

    /// The service it belongs, or belonged, to.
    #[inline]
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.svc
    }

    /// Weight; zero: no new connections.
    #[inline]
    pub(crate) fn weight(&self) -> i32 {
        self.weight.load()
    }

    /// The latest weight that was not zero, or the one it was added with.
    pub(crate) fn last_weight(&self) -> i32 {
        self.last_weight.load()
    }

    /// Whether the service still has it: `IP_VS_DEST_CF_AVAILABLE`.
    #[inline]
    pub(crate) fn available(&self) -> bool {
        self.available.load()
    }

    /// Whether its thresholds keep new connections away: `IP_VS_DEST_F_OVERLOAD`.
    #[inline]
    pub(crate) fn overloaded(&self) -> bool {
        self.load.overloaded.load()
    }

    /// The flags that a new connection starts with: method, `INACTIVE`, `NOOUTPUT`, `ONE_PACKET`, `NFCT`.
    #[inline]
    pub(crate) fn conn_flags(&self) -> u32 {
        self.conn_flags.load()
    }

    /// Whether packets to it are rewritten, and those from it must be.
    #[inline]
    pub(crate) fn is_masq(&self) -> bool {
        FwdMethod::from_flags(self.conn_flags()) == Some(FwdMethod::Masq)
    }

    /// Whether it was configured as FullNAT; [`Dest::is_masq()`], too, then.
    #[inline]
    pub(crate) fn is_fullnat(&self) -> bool {
        self.tun_type.load() & FULLNAT != 0
    }

    /// Whether packets reach it unchanged, as the next hop.
    #[inline]
    pub(crate) fn is_direct(&self) -> bool {
        FwdMethod::from_flags(self.conn_flags()) == Some(FwdMethod::Route)
    }

    /// Type, port (memory order) and flags of the tunnel.
    pub(crate) fn tunnel(&self) -> (u8, Be16, u16) {
        let tun_type = self.tun_type.load();
        (
            tun_type as u8,
            self.tun_port.load() as u16,
            (tun_type >> TUN_FLAGS_SHIFT) as u16,
        )
    }

    /// Connection thresholds.
    pub(crate) fn thresholds(&self) -> Thresholds {
        Thresholds {
            upper: self.upper.load(),
            lower: self.lower.load(),
        }
    }

    /// Active connections.
    #[inline]
    pub(crate) fn active(&self) -> u32 {
        self.load.active.load()
    }

    /// All connections but templates.
    #[inline]
    pub(crate) fn total(&self) -> u32 {
        self.load.total.load()
    }

    /// Connections that are not active: `ip_vs_dest_inactconns()`.
    pub(crate) fn inactive(&self) -> u32 {
        // Both words change on their own, so that one may be ahead.
        (self.total().wrapping_sub(self.active()) as i32)
            .max(0)
            .unsigned_abs()
    }

    /// Persistence templates.
    pub(crate) fn persistent(&self) -> u32 {
        self.load.persistent.load()
    }

    /// Whether it has connections or templates.
    pub(crate) fn has_conns(&self) -> bool {
        self.total() != 0 || self.persistent() != 0
    }

    /// A connection, not active yet, was bound: C `ip_vs_bind_dest()`. Returns whether the service still has the destination:
    /// who removes it says so before looking at the number of its connections, and the number is changed here before looking
    /// whether it was removed. So no connection is bound to one that was forgotten because it had none.
    #[must_use]
    pub(crate) fn conn_bound(&self) -> bool {
        let total = self.load.total.fetch_add(1).wrapping_add(1);
        if self.thresholds().reached_by_bind(total) {
            let _lock = self.load.lock.lock();
            let raised = self.thresholds().raised(self.total());
            self.load.overloaded.store(raised);
        }
        self.available()
    }

    /// A connection ended, which was active or not: C `ip_vs_unbind_dest()`.
    pub(crate) fn conn_unbound(&self, active: bool) {
        if active {
            self.load.active.sub(1);
        }
        let total = self.load.total.fetch_sub(1).wrapping_sub(1);
        if self.thresholds().left_by_unbind(total) {
            let _lock = self.load.lock.lock();
            let lowered = self.thresholds().lowered(self.total());
            self.load.overloaded.store(lowered);
        }
    }

    /// A persistence template was bound.
    pub(crate) fn template_bound(&self) {
        self.load.persistent.add(1);
    }

    /// A persistence template ended.
    pub(crate) fn template_unbound(&self) {
        self.load.persistent.sub(1);
    }

    /// A connection became active, or ceased to be.
    pub(crate) fn set_active(&self, active: bool) {
        if active {
            self.load.active.add(1);
        } else {
            self.load.active.sub(1);
        }
    }

    /// Its row in `/proc/net/ip_vs`.
    pub(crate) fn row(&self) -> DestRow<'_> {
        DestRow {
            family: self.id.family,
            addr: &self.id.addr,
            port: self.id.port,
            conn_flags: self.conn_flags(),
            weight: self.weight(),
            active: self.active(),
            inactive: self.inactive(),
        }
    }
}
