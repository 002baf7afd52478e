// SPDX-License-Identifier: GPL-2.0-only

//! Starting and stopping daemons: C `start_sync_thread()`, `stop_sync_thread()`.

use super::{
    backup::Receiving,
    lane::{
        Announcing,
        Lane,
        Lanes, //
    }, //
};
use crate::{
    netns::Netns,
    os::{
        kthread::{
            Thread,
            Work, //
        },
        memory,
        module,
        rcu::RcuBox,
        udp::{
            Buffer,
            Device,
            Rtnl,
            Udp, //
        }, //
    },
    refusal::Refusal,
    service::pool::IfName,
};
use kernel::{
    new_mutex,
    prelude::*,
    str::{
        CStr,
        CString, //
    },
    sync::{
        Arc,
        Mutex, //
    }, //
};
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    sync::daemon::{
        self,
        Role, //
    },
    uapi::daemon_state, //
};

/// How a daemon is configured; C `struct ipvs_sync_daemon_cfg`.
#[derive(Clone, Copy)]
pub(crate) struct Config {
    /// The interface that datagrams come or go by, ended by a zero.
    pub(crate) ifname: IfName,
    /// What directors of a group have in common; in datagrams its low byte.
    pub(crate) syncid: u32,
    /// The most bytes in a datagram; 0: whatever fits into a packet.
    pub(crate) maxlen: u16,
    /// The multicast group; none: the usual one.
    pub(crate) group: Option<(Family, Addr)>,
    /// The port of the first thread, host order; 0: the usual one.
    pub(crate) port: u16,
    /// The time to live of datagrams; 0: the usual one.
    pub(crate) ttl: u8,
}

impl Config {
    fn name(&self) -> Result<&CStr, Refusal> {
        CStr::from_bytes_until_nul(&self.ifname)
            .map_err(|_| Refusal::new(EINVAL, c"the interface's name is too long"))
    }

    /// The interface's name without its end.
    pub(crate) fn ifname(&self) -> &[u8] {
        self.ifname.split(|byte| *byte == 0).next().unwrap_or(&[])
    }

    /// The group, given or not.
    pub(crate) fn group(&self) -> (Family, Addr) {
        self.group.unwrap_or((Family::V4, daemon::GROUP))
    }

    /// The port of a thread.
    fn port_of(&self, thread: usize) -> u16 {
        self.port.wrapping_add(thread as u16)
    }
}

/// A daemon that runs. Its threads stop when it is dropped, which sleeps.
struct Daemon<W: Work> {
    config: Config,
    _threads: KVec<Thread<W>>,
    _module: module::Ref,
}

/// What runs.
struct Running {
    /// How many threads a daemon has; the same for both.
    threads: usize,
    master: Option<Daemon<Announcing>>,
    backup: Option<Daemon<Receiving>>,
}

/// The daemons of a namespace.
#[pin_data]
pub(crate) struct Daemons {
    netns: Arc<Netns>,
    /// Taken after the configuration, before [`Rtnl`]: C `sync_mutex`.
    #[pin]
    running: Mutex<Running>,
}

impl Daemons {
    /// None yet.
    pub(crate) fn new(netns: Arc<Netns>) -> Result<Arc<Self>> {
        let init = pin_init!(Self {
            netns,
            running <- new_mutex!(
                Running {
                    threads: 0,
                    master: None,
                    backup: None,
                },
                "rvs_daemons"
            ),
        });
        Arc::pin_init(init, GFP_KERNEL)
    }

    /// Starts a daemon. `state` is of `daemon_state`; `checks_families`: not if there are destinations that others could not be told
    /// of. Sleeps.
    #[inline(never)]
    pub(crate) fn start(
        &self,
        state: u32,
        config: Config,
        checks_families: bool,
    ) -> Result<(), Refusal> {
        // From the look at destinations to what keeps others from coming.
        self.netns.configure(|netns_config| {
            if checks_families && self.netns.has_mixed_dests(netns_config) {
                return Err(Refusal::new(
                    EINVAL,
                    c"a destination is of another address family than its service",
                ));
            }
            let module = module::Ref::get()
                .map_err(|err| Refusal::new(err, c"the module is being unloaded"))?;
            if state == daemon_state::BACKUP {
                self.netns.make_conns(netns_config)?;
            }
            self.start_locked(&mut self.running.lock(), state, config, module)
        })
    }

    #[inline(never)]
    fn start_locked(
        &self,
        running: &mut Running,
        state: u32,
        mut config: Config,
        module: module::Ref,
    ) -> Result<(), Refusal> {
        let settings = &self.netns.sender.settings;
        let threads = if running.master.is_some() || running.backup.is_some() {
            running.threads
        } else {
            let ports = u32::try_from(settings.ports.load()).unwrap_or(0);
            daemon::threads(ports) as usize
        };
        let group = config.group();
        let mut sockets = KVec::with_capacity(threads, GFP_KERNEL)?;
        for _ in 0..threads {
            let socket = Udp::open(self.netns.net(), group.0 == Family::V6)
                .map_err(|err| Refusal::new(err, c"cannot open a socket"))?;
            push(&mut sockets, socket)?;
        }
        let role = {
            // Those sockets are closed without this lock, whatever happens.
            let rtnl = Rtnl::lock();
            let device = rtnl
                .device(self.netns.net(), config.name()?)
                .ok_or(Refusal::new(ENODEV, c"no such interface"))?;
            let role = match state {
                daemon_state::MASTER if running.master.is_none() => Role::Master,
                daemon_state::BACKUP if running.backup.is_none() => Role::Backup,
                daemon_state::MASTER | daemon_state::BACKUP => {
                    return Err(Refusal::new(EEXIST, c"the daemon runs already"))
                }
                _ => return Err(Refusal::new(EINVAL, c"neither master nor backup")),
            };
            config.group = Some(group);
            config.maxlen = daemon::maxlen(role, group.0, config.maxlen, device.mtu);
            if config.port == 0 {
                config.port = daemon::PORT;
            }
            if config.ttl == 0 {
                config.ttl = daemon::TTL;
            }
            for (thread, socket) in sockets.iter_mut().enumerate() {
                match role {
                    Role::Master => self.prepare_to_send(socket, &config, thread, &device)?,
                    Role::Backup => {
                        self.prepare_to_receive(socket, &config, thread, &device, &rtnl)?
                    }
                }
            }
            role
        };
        match role {
            Role::Master => running.master = Some(self.master(config, sockets, module)?),
            Role::Backup => running.backup = Some(self.backup(config, sockets, module)?),
        }
        running.threads = threads;
        self.netns.set_daemon(state, true);
        Ok(())
    }

    /// C `make_send_sock()`.
    #[inline(never)]
    fn prepare_to_send(
        &self,
        socket: &Udp,
        config: &Config,
        thread: usize,
        device: &Device,
    ) -> Result<(), Refusal> {
        let (family, group) = config.group();
        socket.set_multicast(device.index, config.ttl);
        let size = self.netns.sender.settings.sock_size.load();
        if size > 0 {
            socket.set_buffer(Buffer::Send, size);
        }
        if family == Family::V4 {
            if device.addr == 0 {
                pr_err!("sync: the multicast interface should have an IP address\n");
            }
            socket
                .bind(&Addr::v4(device.addr).0, 0)
                .map_err(|err| Refusal::new(err, c"cannot bind to the interface's address"))?;
        }
        socket
            .connect(&group.0, config.port_of(thread))
            .map_err(|err| Refusal::new(err, c"cannot connect to the multicast group"))
    }

    /// C `make_receive_sock()`.
    #[inline(never)]
    fn prepare_to_receive(
        &self,
        socket: &mut Udp,
        config: &Config,
        thread: usize,
        device: &Device,
        rtnl: &Rtnl,
    ) -> Result<(), Refusal> {
        let (_, group) = config.group();
        socket.set_device(device.index);
        let size = self.netns.sender.settings.sock_size.load();
        if size > 0 {
            socket.set_buffer(Buffer::Receive, size);
        }
        socket
            .bind(&group.0, config.port_of(thread))
            .map_err(|err| Refusal::new(err, c"cannot bind to the multicast group"))?;
        socket
            .join(&group.0, device.index, rtnl)
            .map_err(|err| Refusal::new(err, c"cannot join the multicast group"))
    }

    /// Starts the threads of a master, and makes it known to packets.
    #[inline(never)]
    fn master(
        &self,
        config: Config,
        sockets: KVec<Udp>,
        module: module::Ref,
    ) -> Result<Daemon<Announcing>, Refusal> {
        let sender = &self.netns.sender;
        let mut lanes = KVec::with_capacity(sockets.len(), GFP_KERNEL)?;
        let mut threads = KVec::with_capacity(sockets.len(), GFP_KERNEL)?;
        for (id, socket) in sockets.into_iter().enumerate() {
            let lane = Lane::new(config.syncid as u8, config.maxlen)?;
            let work = KBox::new(
                Announcing {
                    lane: lane.clone(),
                    socket,
                },
                GFP_KERNEL,
            )?;
            let name = self.thread_name('m', id)?;
            push(&mut lanes, lane)?;
            push(&mut threads, Thread::start(&name, work)?)?;
            log_start("MASTER", &config, id);
        }
        let lanes = RcuBox::new(Lanes::new(lanes), GFP_KERNEL)?;
        sender.lanes.replace(Some(lanes));
        Ok(Daemon {
            config,
            _threads: threads,
            _module: module,
        })
    }

    /// Starts the threads of a backup.
    #[inline(never)]
    fn backup(
        &self,
        config: Config,
        sockets: KVec<Udp>,
        module: module::Ref,
    ) -> Result<Daemon<Receiving>, Refusal> {
        let mut threads = KVec::with_capacity(sockets.len(), GFP_KERNEL)?;
        for (id, socket) in sockets.into_iter().enumerate() {
            let work = KBox::new(
                Receiving {
                    netns: self.netns.clone(),
                    socket,
                    syncid: config.syncid,
                    buffer: memory::zeros(config.maxlen.into(), GFP_KERNEL)?,
                },
                GFP_KERNEL,
            )?;
            let name = self.thread_name('b', id)?;
            push(&mut threads, Thread::start(&name, work)?)?;
            log_start("BACKUP", &config, id);
        }
        Ok(Daemon {
            config,
            _threads: threads,
            _module: module,
        })
    }

    fn thread_name(&self, kind: char, id: usize) -> Result<CString> {
        let generation = self.netns.sender.generation;
        CString::try_from_fmt(fmt!("ipvs-{kind}:{generation}:{id}"))
    }

    /// Stops a daemon and waits for its end. Sleeps.
    pub(crate) fn stop(&self, state: u32) -> Result<(), Refusal> {
        let mut running = self.running.lock();
        let runs = match state {
            daemon_state::MASTER => running.master.is_some(),
            daemon_state::BACKUP => running.backup.is_some(),
            _ => return Err(Refusal::new(EINVAL, c"neither master nor backup")),
        };
        if !runs {
            return Err(Refusal::new(ESRCH, c"the daemon does not run"));
        }
        self.netns.set_daemon(state, false);
        pr_info!("stopping sync threads: state = {state}\n");
        if state == daemon_state::MASTER {
            // What packets add from here on is lost, a grace period later.
            self.netns.sender.lanes.clear();
            running.master = None;
        } else {
            running.backup = None;
        }
        Ok(())
    }

    /// Stops both. Sleeps. C: `ip_vs_sync_net_cleanup()`.
    pub(crate) fn stop_all(&self) {
        for state in [daemon_state::MASTER, daemon_state::BACKUP] {
            let _ = self.stop(state);
        }
    }

    /// Calls `f` for what runs, first the master.
    pub(crate) fn each(&self, mut f: impl FnMut(u32, &Config)) {
        let running = self.running.lock();
        if let Some(master) = &running.master {
            f(daemon_state::MASTER, &master.config);
        }
        if let Some(backup) = &running.backup {
            f(daemon_state::BACKUP, &backup.config);
        }
    }
}

fn push<T>(to: &mut KVec<T>, value: T) -> Result {
    to.push_within_capacity(value).map_err(|_| ENOMEM)
}

fn log_start(state: &str, config: &Config, id: usize) {
    let ifname = config.name().map_or(c"", |name| name);
    pr_info!(
        "sync thread started: state = {state}, mcast_ifn = {}, syncid = {}, id = {id}\n",
        ifname.to_str().unwrap_or("?"),
        config.syncid as i32
    );
}
