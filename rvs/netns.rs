// SPDX-License-Identifier: GPL-2.0-only

//! What a network namespace has: `struct netns_ipvs`.
//!
//! Packets read [`Netns`] without locks. Configuration changes it with [`Config`] locked, and does everything that can
//! fail before the first change that a packet can see.

use crate::{
    conn::{
        defense::Defense,
        Apps,
        ConnTable, //
    },
    control::{
        netlink::events::Events,
        sysctl::Sysctl, //
    },
    datapath::Hooks,
    dest::{
        self,
        Dest, //
    },
    fullnat::Realm,
    os::{
        atomic::U32,
        conntrack,
        cpu,
        module,
        net::{
            self,
            Handle,
            Net, //
        },
        once::Once,
        rcu::{
            self,
            Held, //
        },
        time,
        work::Starter, //
    },
    refusal::Refusal,
    service::{
        self,
        pool::{
            self,
            IfName,
            Local,
            Prefix, //
        },
        trash::Trash,
        PerFamily,
        Service,
        Services, //
    },
    stats::{
        Stats,
        Watch, //
    },
    sync::Sender,
    HZ, //
};
use kernel::{
    new_mutex,
    prelude::*,
    str::CStr,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use pin_init::init_array_from_fn;
use rvs_core::{
    addr::Family,
    estimate::PERIOD_SECS,
    proto::{
        sctp,
        tcp,
        udp, //
    },
    table::Limits,
    uapi::{
        daemon_state,
        ext::event,
        svc_flag,
        FwdMethod,
        FTP_PORT, //
    }, //
};

/// How long connections last without packets, by state; in jiffies.
pub(crate) struct Timeouts {
    tcp: [U32; tcp::State::LAST as usize + 1],
    udp: [U32; udp::State::LAST as usize + 1],
    sctp: [U32; sctp::State::LAST as usize + 1],
}

impl Timeouts {
    /// C's defaults, written where they stay: the tables are large for a stack.
    fn init() -> impl Init<Self> {
        fn secs<const N: usize>(table: &'static [u32; N]) -> impl Init<[U32; N]> {
            init_array_from_fn(|i| U32::new(HZ.from_secs_u32(table.get(i).copied().unwrap_or(0))))
        }

        init!(Self {
            tcp <- secs(&tcp::DEFAULT_TIMEOUT_SECS),
            udp <- secs(&udp::DEFAULT_TIMEOUT_SECS),
            sctp <- secs(&sctp::DEFAULT_TIMEOUT_SECS),
        })
    }

    #[inline(always)]
    fn word(table: &[U32], state: u8) -> &U32 {
        static NOTHING: U32 = U32::new(0);

        table
            .get(usize::from(state))
            .or(table.last())
            .unwrap_or(&NOTHING)
    }

    /// That of a TCP state.
    #[inline(always)]
    pub(crate) fn tcp(&self, state: u8) -> u32 {
        Self::word(&self.tcp, state).load()
    }

    /// That of a UDP state.
    #[inline(always)]
    pub(crate) fn udp(&self, state: u8) -> u32 {
        Self::word(&self.udp, state).load()
    }

    /// That of an SCTP state.
    pub(crate) fn sctp(&self, state: u8) -> u32 {
        Self::word(&self.sctp, state).load()
    }

    /// Sets that of a TCP state.
    pub(crate) fn set_tcp(&self, state: u8, jiffies: u32) {
        Self::word(&self.tcp, state).store(jiffies);
    }

    /// Sets that of a UDP state.
    pub(crate) fn set_udp(&self, state: u8, jiffies: u32) {
        Self::word(&self.udp, state).store(jiffies);
    }
}

/// What only configuration needs, under one lock per namespace: C `service_mutex`.
#[derive(Default)]
pub(crate) struct Config {
    /// The hooks of the families that have services.
    hooks: PerFamily<Option<Hooks>>,
    /// Those of the families in which there was a local address while there were services.
    local_hooks: PerFamily<Option<Hooks>>,
    /// Local addresses of pools, and those that connections still have.
    locals: KVec<Arc<Local>>,
    /// One reference for each service: the module stays as long as there are any.
    modules: KVec<module::Ref>,
}

/// What every packet reads, side by side.
#[repr(C, align(16))]
struct Front {
    conns: Once<ConnTable>,
    /// Which synchronisation daemons run, of `daemon_state`: C `sync_state`.
    daemons: U32,
}

/// A network namespace as packets see it.
#[pin_data]
pub(crate) struct Netns {
    net: Handle,
    /// Services and real servers.
    pub(crate) services: Services,
    trash: KBox<Trash>,
    front: Front,
    fullnat: Once<Arc<Realm>>,
    /// Traffic of all services: C `tot_stats`.
    pub(crate) totals: Stats,
    watched_dests: Watch<Dest>,
    watched_services: Watch<Service>,
    /// Timeouts by state.
    pub(crate) timeouts: Timeouts,
    /// `net.ipv4.vs`.
    pub(crate) sysctl: Sysctl,
    /// Defense against floods.
    pub(crate) defense: Defense,
    /// Who wants to know what changes is told.
    pub(crate) events: Arc<Events>,
    /// What is used of application helpers.
    pub(crate) apps: Arc<Apps>,
    /// Other directors are told of connections.
    pub(crate) sender: Arc<Sender>,
    /// Destinations of another family than their service's, of which other directors cannot be told.
    mixed_dests: U32,
    conn_limits: Limits,
    #[pin]
    config: Mutex<KBox<Config>>,
    /// Held while tables are resized, and by walks that must not meet a service twice: C `svc_resize_sem`. Taken after
    /// the configuration, if both are.
    #[pin]
    resizing: Mutex<()>,
    /// Where rates are estimated: sysctl `est_cpulist`, if it was written.
    #[pin]
    est_cpus: Mutex<Option<cpu::List>>,
    /// When the estimator's next period ends, in jiffies.
    est_next: U32,
    /// Fits the sizes of tables.
    sizer: Once<Starter<Netns>>,
}

impl Config {
    // By itself, for the frame of who makes a namespace.
    #[inline(never)]
    fn new() -> Result<KBox<Self>> {
        Ok(KBox::new(Self::default(), GFP_KERNEL)?)
    }
}

impl Netns {
    /// Makes an empty namespace; connection tables will be within `conn_limits`.
    #[inline(never)]
    pub(crate) fn new(net: Handle, conn_limits: Limits) -> Result<Arc<Self>> {
        let lfactor = Sysctl::first_svc_lfactor(&net);
        let sysctl = Sysctl::init(&net);
        let events = Events::new(&net)?;
        let sender = Sender::new()?;
        let init = try_pin_init!(Self {
            net,
            services <- Services::new(lfactor),
            trash: Trash::new()?,
            front: Front {
                conns: Once::new(),
                daemons: U32::new(daemon_state::NONE),
            },
            fullnat: Once::new(),
            totals: Stats::new()?,
            watched_dests: Watch::new(),
            watched_services: Watch::new(),
            timeouts <- Timeouts::init(),
            sysctl <- sysctl,
            defense: Defense::new(),
            events,
            apps: Arc::new(Apps::new(), GFP_KERNEL)?,
            sender,
            mixed_dests: U32::new(0),
            conn_limits,
            config <- new_mutex!(Config::new()?, "rvs_config"),
            resizing <- new_mutex!((), "rvs_resizing"),
            est_cpus <- new_mutex!(None, "rvs_est_cpus"),
            est_next: U32::new(0),
            sizer: Once::new(),
        }? Error);
        Arc::pin_init(init, GFP_KERNEL)
    }

    /// The namespace.
    #[inline]
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// The namespace, for registrations that end with it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.net
    }

    /// The connections; `None` before the first service.
    #[inline(always)]
    pub(crate) fn conns(&self) -> Option<&ConnTable> {
        self.front.conns.get()
    }

    /// FullNAT; `None` before the first local address.
    #[inline(always)]
    pub(crate) fn fullnat(&self) -> Option<&Arc<Realm>> {
        self.fullnat.get()
    }

    /// Buckets of the connection table, 0 before the first service: `get_conn_tab_size()`.
    pub(crate) fn conn_tab_size(&self) -> u32 {
        let size = self.conns().map_or(0, ConnTable::size);
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// Whether requests are left alone because this host only stands by: C `sysctl_backup_only()`.
    #[inline(always)]
    pub(crate) fn stands_by(&self) -> bool {
        self.daemons() & daemon_state::BACKUP != 0 && self.sysctl.backup_only()
    }

    /// Whether other directors are told of connections.
    #[inline(always)]
    pub(crate) fn is_master(&self) -> bool {
        self.daemons() & daemon_state::MASTER != 0
    }

    /// The synchronisation daemons that run, of `daemon_state`.
    #[inline(always)]
    pub(crate) fn daemons(&self) -> u32 {
        self.front.daemons.load()
    }

    /// A daemon runs, or no longer does. Only with the daemons locked.
    pub(crate) fn set_daemon(&self, state: u32, runs: bool) {
        let others = self.daemons() & !state;
        self.front
            .daemons
            .store(if runs { others | state } else { others });
    }

    /// Whether there are destinations of another family than their service's: C `mixed_address_family_dests`.
    pub(crate) fn has_mixed_dests(&self, _: &mut Config) -> bool {
        self.mixed_dests.load() != 0
    }

    /// Runs `f` with the configuration locked.
    pub(crate) fn configure<R>(&self, f: impl FnOnce(&mut Config) -> R) -> R {
        f(&mut self.config.lock())
    }

    /// Calls `f` for each service, once. Sleeps, `f` must not.
    fn each_service(&self, mut f: impl FnMut(&Arc<Service>, &Held)) {
        let _stable = self.resizing.lock();
        self.services.each(0, |_, service, g| {
            f(service, g);
            true
        });
    }

    /// Runs `f`, which may sleep, while the service table is not resized.
    pub(crate) fn with_stable_services<R>(&self, f: impl FnOnce(&Services) -> R) -> R {
        let _stable = self.resizing.lock();
        f(&self.services)
    }

    /// Makes known what runs [`Netns::fit_tables()`].
    pub(crate) fn set_sizer(&self, sizer: Starter<Netns>) -> Result {
        self.sizer.set(KBox::new(sizer, GFP_KERNEL)?);
        Ok(())
    }

    /// Tables do not fit any more. Any context.
    #[cold]
    pub(crate) fn needs_fitting(&self) {
        if let Some(conns) = self.conns() {
            conns.will_fit();
        }
        if let Some(sizer) = self.sizer.get() {
            sizer.start(0);
        }
    }

    /// Fits the sizes of the tables to what they hold. Sleeps for grace periods, without the configuration. Callers must not
    /// overlap.
    pub(crate) fn fit_tables(&self) {
        if let Some(conns) = self.conns() {
            conns.fit();
        }
        let _stable = self.resizing.lock();
        let lfactor = self.sysctl.svc_lfactor();
        self.services.fit(lfactor);
        self.trash.fit();
    }

    /// The service of this id.
    pub(crate) fn find(&self, id: &service::Id) -> Option<Arc<Service>> {
        rcu::read(|g| self.services.find(id, g).cloned())
    }

    /// The connection table, if there is none yet.
    #[inline(never)]
    fn prepare_conns(&self) -> Result<Option<KBox<ConnTable>>> {
        if self.conns().is_some() {
            return Ok(None);
        }
        let conns = ConnTable::new(
            &self.net,
            self.conn_limits,
            self.sysctl.conn_lfactor(),
            self.sysctl.conn_counters(),
            self.events.clone(),
            self.sender.clone(),
            self.apps.clone(),
        )?;
        Ok(Some(KBox::new(conns, GFP_KERNEL)?))
    }

    /// Makes the connection table: a backup needs it, services or not.
    pub(crate) fn make_conns(&self, _: &mut Config) -> Result {
        if let Some(conns) = self.prepare_conns()? {
            self.front.conns.set(conns);
        }
        Ok(())
    }

    /// Adds a service that is not there: `ip_vs_add_service()`.
    #[inline(never)]
    pub(crate) fn add_service(
        self: &Arc<Self>,
        config: &mut Config,
        id: &service::Id,
        settings: &service::Settings,
    ) -> Result<(), Refusal> {
        let module =
            module::Ref::get().map_err(|err| Refusal::new(err, c"the module is being unloaded"))?;
        if id.family == Family::V6 {
            self.enable_v6_defrag()?;
        }
        let conns = self.prepare_conns()?;
        let old = self.trash.find_service(id);
        let returning = match old {
            Some(_) => Some(Service::prepare_return(settings.scheduler)?),
            None => None,
        };
        let service = match old {
            Some(service) => service,
            None => Service::new(*id, settings)?,
        };
        let new = Services::prepare(service.clone())?;
        config.modules.reserve(1, GFP_KERNEL)?;
        let hooks = match self.services.count(id.family) {
            0 => Some(Hooks::register(self, id.family).map_err(|err| {
                Refusal::new(err, c"the family's netfilter hooks cannot be registered")
            })?),
            _ => None,
        };

        // Nothing fails from here on. A connection table that comes now has no connections, and hooks that are there
        // already find no service.
        if let Some(conns) = conns {
            self.front.conns.set(conns);
        }
        if hooks.is_some() {
            *config.hooks.get_mut(id.family) = hooks;
        }
        let _ = config.modules.push_within_capacity(module);
        if let Some(prepared) = returning {
            self.trash.take_service(&service);
            service.return_as(settings, prepared);
        }
        self.services.add(new, id);
        self.events.service(event::NEW, &service);
        Ok(())
    }

    /// Changes a service: `ip_vs_edit_service()`.
    pub(crate) fn edit_service(
        &self,
        _config: &mut Config,
        service: &Service,
        settings: &service::Settings,
    ) -> Result<(), Refusal> {
        service.configure(settings)?;
        self.events.service(event::CHANGED, service);
        Ok(())
    }

    /// Removes a service with all its destinations: `ip_vs_unlink_service()`.
    pub(crate) fn remove_service(&self, config: &mut Config, service: &Arc<Service>) {
        let family = service.id().family;
        if service.set_tracks(false) {
            conntrack::untrack(&self.net, family == Family::V6);
        }
        self.services.remove(service);
        self.events.service(event::DELETED, service);
        if let Some(backends) = service.retire() {
            for dest in backends.dests() {
                self.retire(dest);
                // Where the service is another one then, nothing but its connections tells an old destination from a
                // new one.
                if dest.has_conns() {
                    self.trash.put(dest);
                }
            }
        }
        self.trash.put_service(service);
        self.refresh_locals(config, family);
        if self.services.count(family) == 0 {
            *config.hooks.get_mut(family) = None;
            *config.local_hooks.get_mut(family) = None;
        }
        drop(config.modules.pop());
    }

    /// Adds local addresses to a service's pool, for one interface or (without a name) for any.
    #[inline(never)]
    pub(crate) fn add_local(
        self: &Arc<Self>,
        config: &mut Config,
        service: &Service,
        prefix: &Prefix,
        ifname: IfName,
    ) -> Result<(), Refusal> {
        if service.flags() & svc_flag::ONEPACKET != 0 {
            return Err(Refusal::new(
                EINVAL,
                c"one-packet scheduling and FullNAT exclude each other",
            ));
        }
        let ifindex = if ifname[0] == 0 {
            0
        } else {
            let name = CStr::from_bytes_until_nul(&ifname)
                .map_err(|_| Refusal::new(EINVAL, c"the interface's name is too long"))?;
            match self.net.ifindex(name) {
                0 => return Err(Refusal::new(ENODEV, c"no such interface")),
                index => index,
            }
        };
        let realm = match self.fullnat() {
            Some(realm) => realm.clone(),
            None => {
                let realm = Realm::new(&self.net)?;
                // Only with the configuration locked.
                self.fullnat.set(KBox::new(realm.clone(), GFP_KERNEL)?);
                realm
            }
        };
        let family = prefix.family;
        let change = service
            .fullnat
            .prepare_add(&realm, prefix, ifname, ifindex)?;
        if config.local_hooks.get(family).is_none() {
            let hooks = Hooks::register_local(self, family).map_err(|err| {
                Refusal::new(err, c"the family's netfilter hook cannot be registered")
            })?;
            *config.local_hooks.get_mut(family) = Some(hooks);
        }
        let locals = locals_in_use(&config.locals, &change.added)?;
        realm.set_locals(family, &locals)?;

        // Nothing fails from here on.
        config.locals = locals;
        service.fullnat.publish(change);
        Ok(())
    }

    /// Removes local addresses from a service's pool, as they were added. Connections keep them.
    #[inline(never)]
    pub(crate) fn remove_local(
        &self,
        config: &mut Config,
        service: &Service,
        prefix: &Prefix,
    ) -> Result<(), Refusal> {
        let change = service.fullnat.prepare_remove(prefix)?;
        service.fullnat.publish(change);
        self.refresh_locals(config, prefix.family);
        Ok(())
    }

    /// Forgets local addresses that nobody has any more. Without memory they stay a bit.
    fn refresh_locals(&self, config: &mut Config, family: Family) {
        let Some(realm) = self.fullnat() else {
            return;
        };
        if let Ok(locals) = locals_in_use(&config.locals, &[]) {
            if locals.len() != config.locals.len() && realm.set_locals(family, &locals).is_ok() {
                config.locals = locals;
            }
        }
    }

    /// Refuses what a destination cannot be in this service. Sleeps.
    fn check_method(service: &Service, settings: &dest::Settings) -> Result<(), Refusal> {
        if !settings.is_fullnat() {
            return Ok(());
        }
        if service.flags() & svc_flag::ONEPACKET != 0 {
            return Err(Refusal::new(
                EINVAL,
                c"one-packet scheduling and FullNAT exclude each other",
            ));
        }
        Ok(service.fullnat.prepare()?)
    }

    /// Removes all services: `ip_vs_flush()`.
    pub(crate) fn flush(&self, config: &mut Config) {
        // More than one walk if the table shrinks meanwhile.
        while !self.services.is_empty() {
            let mut index = 0;
            while index < rcu::read(|g| self.services.chains(g)) {
                match self.services.nth_of(index, 0) {
                    Some(service) => self.remove_service(config, &service),
                    None => index = index.wrapping_add(1),
                }
                time::yield_cpu();
            }
        }
    }

    /// Adds a destination that its service does not have: `ip_vs_add_dest()`, `ip_vs_new_dest()`.
    #[inline(never)]
    pub(crate) fn add_dest(
        &self,
        _config: &mut Config,
        service: &Arc<Service>,
        id: &dest::Id,
        settings: &dest::Settings,
    ) -> Result<(), Refusal> {
        Self::check_method(service, settings)?;
        let dest = match self.trash.find(service, id) {
            Some(dest) => dest,
            None => {
                self.check_address(id)?;
                Dest::new(service.clone(), *id, settings)?
            }
        };
        let server = self.services.prepare_server(&dest, settings)?;
        let prepared = service.prepare_add(&dest, settings)?;

        // Nothing fails from here on.
        if !dest.available() {
            self.trash.take(&dest);
            dest.return_as(settings);
            // Its rates go on from where they were.
            self.watch(&dest);
        }
        if dest.is_mixed() {
            self.mixed_dests.add(1);
        }
        self.services.add_server(server, &dest);
        service.publish(prepared);
        self.track_ftp(service, settings);
        self.events.dest(event::NEW, &dest);
        Ok(())
    }

    /// FTP by NAT needs netfilter's connection tracking, also where no rule does: C `__ip_vs_update_dest()`. Sleeps.
    fn track_ftp(&self, service: &Service, settings: &dest::Settings) {
        let id = service.id();
        if id.port != FTP_PORT || settings.forwarding() != Some(FwdMethod::Masq) {
            return;
        }
        let is_tracked =
            service.set_tracks(true) || conntrack::track(&self.net, id.family == Family::V6);
        // It need not be possible: as in C, the packets will tell.
        service.set_tracks(is_tracked);
    }

    /// Refuses addresses that a destination cannot have.
    fn check_address(&self, id: &dest::Id) -> Result<(), Refusal> {
        match id.family {
            Family::V4 => {
                if !self.net.v4_is_local_or_unicast(id.addr.v4_be()) {
                    return Err(Refusal::new(
                        EINVAL,
                        c"destination address is neither local nor unicast",
                    ));
                }
            }
            Family::V6 => {
                if !id.addr.v6_type().is_remote_dest() && !self.net.v6_is_local(&id.addr.bytes()) {
                    return Err(Refusal::new(
                        EINVAL,
                        c"destination address is neither local nor global unicast",
                    ));
                }
                self.enable_v6_defrag()?;
            }
        }
        Ok(())
    }

    /// Changes a destination: `ip_vs_edit_dest()`.
    #[inline(never)]
    pub(crate) fn edit_dest(
        &self,
        _config: &mut Config,
        service: &Service,
        (index, dest): (usize, Arc<Dest>),
        settings: &dest::Settings,
    ) -> Result<(), Refusal> {
        Self::check_method(service, settings)?;
        let server = if self.services.moves_server(&dest, settings) {
            Some(self.services.prepare_server(&dest, settings)?)
        } else {
            None
        };
        let prepared = service.prepare_edit((index, &dest), settings)?;

        // Nothing fails from here on.
        if server.is_some() {
            self.services.remove_server(&dest);
        }
        dest.configure(settings);
        if let Some(server) = server {
            self.services.add_server(server, &dest);
        }
        service.publish(prepared);
        self.track_ftp(service, settings);
        self.events.dest(event::CHANGED, &dest);
        Ok(())
    }

    /// Removes a destination: `ip_vs_del_dest()`.
    #[inline(never)]
    pub(crate) fn remove_dest(
        &self,
        _config: &mut Config,
        service: &Service,
        (index, dest): (usize, Arc<Dest>),
    ) -> Result<(), Refusal> {
        let prepared = service.prepare_remove(index)?;

        // Nothing fails from here on.
        self.retire(&dest);
        self.trash.put(&dest);
        service.publish(prepared);
        self.events.dest(event::DELETED, &dest);
        Ok(())
    }

    /// Takes a destination out of everything but its service: `__ip_vs_del_dest()`.
    fn retire(&self, dest: &Dest) {
        if dest.is_mixed() {
            self.mixed_dests.sub(1);
        }
        dest.retire();
        self.services.remove_server(dest);
    }

    /// Lets removed destinations go for good that have been idle for long. Returns whether there are others.
    pub(crate) fn sweep_trash(&self) -> bool {
        self.configure(|_| self.trash.sweep())
    }

    /// Clears the caches of schedulers, once every [`service::lblc::PERIOD`]. Returns whether there are any.
    pub(crate) fn clear_caches(&self) -> bool {
        let mut any = false;
        self.each_service(|service, _| any |= service.clear_cache(&self.sysctl));
        any
    }

    /// Starts all statistics over: `ip_vs_zero_all()`.
    pub(crate) fn zero(&self, _config: &mut Config) {
        self.each_service(|service, g| service.zero(g));
        self.totals.zero();
    }

    /// Tells the estimator of a destination that a packet is for and that it does not look at.
    #[cold]
    #[inline(never)]
    pub(crate) fn watch(&self, dest: &Arc<Dest>) {
        self.watched_dests.add(dest);
        self.watched_services.add(dest.service());
    }

    /// Runs `f` with the CPUs that rates are estimated on.
    pub(crate) fn with_est_cpus<R>(&self, f: impl FnOnce(&mut Option<cpu::List>) -> R) -> R {
        f(&mut self.est_cpus.lock())
    }

    /// The end of a period of the estimator, unless it is off: C `ip_vs_estimation_kthread()`. Runs in a kernel worker.
    /// Returns after how many jiffies the next one is over, if it must go on.
    pub(crate) fn estimation(&self) -> Option<u32> {
        let mut goes_on = true;
        if self.sysctl.run_estimation() {
            let cpus = self.est_cpus.lock();
            // With an empty list C has no threads.
            if !cpus.as_ref().is_some_and(cpu::List::is_empty) {
                cpu::run_on(cpus.as_ref(), self.sysctl.est_nice(), || {
                    goes_on = self.estimate();
                });
            }
        }
        let period = HZ.from_secs_u32(PERIOD_SECS);
        let now = time::jiffies();
        // From end to end, however long it took; after a pause, from now.
        let late = now.wrapping_sub(self.est_next.load());
        let left = if late < period {
            period.wrapping_sub(late)
        } else {
            period
        };
        self.est_next.store(now.wrapping_add(left));
        goes_on.then_some(left)
    }

    /// One period of the estimator: C `ip_vs_chain_estimation()`. Sleeps. Returns whether it must go on.
    fn estimate(&self) -> bool {
        // Destinations first: one that has traffic again brings its service along.
        let dests = self
            .watched_dests
            .step(|dest| self.watched_services.add(dest.service()));
        let services = self.watched_services.step(|_| ());
        let totals = self.totals.step();
        dests || services || !totals.quiet || !self.services.is_empty()
    }

    /// Forgets all routes: a device went down. C `ip_vs_dst_event()`.
    pub(crate) fn forget_routes(&self, g: &Held) {
        for index in 0..self.services.chains(g) {
            self.services.visit(index, g, |service| {
                service.each_dest(g, |dest| dest.route.reset());
                true
            });
        }
    }

    /// No more packets: the namespace goes. C `__ip_vs_dev_cleanup_batch()`.
    pub(crate) fn stop_hooks(&self) {
        self.configure(|config| {
            *config.hooks.get_mut(Family::V4) = None;
            *config.hooks.get_mut(Family::V6) = None;
            *config.local_hooks.get_mut(Family::V4) = None;
            *config.local_hooks.get_mut(Family::V6) = None;
        });
        if let Some(conns) = self.conns() {
            conns.close();
        }
        if let Some(realm) = self.fullnat() {
            realm.close();
        }
    }

    fn enable_v6_defrag(&self) -> Result<(), Refusal> {
        self.net
            .enable_v6_defrag()
            .map_err(|err| Refusal::new(err, c"IPv6 defragmentation cannot be enabled"))
    }
}

/// Those of `old` that are in a pool or in use, and `new` ones. Sleeps.
fn locals_in_use(old: &[Arc<Local>], new: &[Arc<Local>]) -> Result<KVec<Arc<Local>>> {
    let room = old.len().checked_add(new.len()).ok_or(ENOMEM)?;
    let mut locals = KVec::with_capacity(room, GFP_KERNEL)?;
    let kept = old.iter().filter(|local| local.in_use());
    for local in Iterator::chain(kept, new) {
        pool::put(&mut locals, local.clone())?;
    }
    Ok(locals)
}

/// Whether an `AF_` number is that of a family that can be balanced here: `ip_vs_is_af_valid()`.
pub(crate) fn family_of(af: u16) -> Option<Family> {
    Family::from_af(af).filter(|family| *family == Family::V4 || net::has_v6())
}
