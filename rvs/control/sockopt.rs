// SPDX-License-Identifier: GPL-2.0-only

//! The socket options `IP_VS_SO_SET_*` and `IP_VS_SO_GET_*`: what ipvsadm and others used before there was netlink, and
//! use where that is missing. They know IPv4 only.
//!
//! Order of checks and error numbers are C's (`do_ip_vs_set_ctl()`, `do_ip_vs_get_ctl()`).

use super::{
    common::{
        self,
        Timeouts, //
    },
    Control, //
};
use crate::{
    dest::{
        self,
        Dest, //
    },
    netns::Netns,
    os::{
        net::Net,
        pernet,
        rcu,
        sockopt::{
            Get,
            Handler,
            Set,
            Slot, //
        }, //
    },
    refusal::Refusal,
    service::{
        self,
        Backends,
        Service, //
    },
    stats::Stats,
    sync::Config,
    HZ, //
};
use core::ops::Range;
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Be32,
        Family, //
    },
    fmt::{
        Text,
        Version, //
    },
    proto::{
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    sched::Kind,
    thresholds::Thresholds,
    timeout::OutOfRange,
    uapi::{
        conn_flag,
        daemon_state,
        so_get,
        so_set,
        sockopt::{
            text,
            DaemonUser,
            DestEntry,
            DestUser,
            GetDests,
            GetInfo,
            GetServices,
            ServiceEntry,
            ServiceQuery,
            ServiceUser,
            StatsUser,
            SvcDestUser,
            TimeoutUser, //
        },
        tun_type, //
    }, //
};

static SLOT: Slot<Options> = Slot::new();

/// The options of all namespaces.
pub(crate) struct Options {
    namespaces: Arc<pernet::Registration<Control>>,
}

impl Handler for Options {
    const SET: Range<i32> = so_set::BASE..so_set::MAX + 1;
    const GET: Range<i32> = so_get::BASE..so_get::MAX + 1;

    fn slot() -> &'static Slot<Self> {
        &SLOT
    }

    fn set(&self, request: &Set<'_>) -> Result {
        let control = self.control(request.net())?;
        match request.number() {
            so_set::ADD | so_set::EDIT | so_set::DEL | so_set::ZERO => {
                let user = ServiceUser::from_bytes(&request.read()?);
                set_service(control, request.number(), &user)
            }
            so_set::ADDDEST | so_set::EDITDEST | so_set::DELDEST => {
                let user = SvcDestUser::from_bytes(&request.read()?);
                set_dest(control, request.number(), &user)
            }
            so_set::FLUSH => {
                request.read::<0>()?;
                control.flush();
                Ok(())
            }
            so_set::TIMEOUT => set_timeouts(control, &TimeoutUser::from_bytes(&request.read()?)),
            so_set::STARTDAEMON => start_daemon(control, &DaemonUser::from_bytes(&request.read()?)),
            so_set::STOPDAEMON => {
                let user = DaemonUser::from_bytes(&request.read()?);
                control.daemons().stop(user.state as u32).map_err(errno)
            }
            _ => Err(EINVAL),
        }
    }

    fn get(&self, request: &mut Get<'_>) -> Result {
        let control = self.control(request.net())?;
        match request.number() {
            so_get::VERSION => get_version(control, request),
            so_get::INFO => get_info(control, request),
            so_get::SERVICES => get_services(control, request),
            so_get::SERVICE => get_service(control, request),
            so_get::DESTS => get_dests(control, request),
            so_get::TIMEOUT => get_timeouts(control, request),
            so_get::DAEMON => get_daemons(control, request),
            _ => Err(EINVAL),
        }
    }
}

impl Options {
    /// Makes the options of these namespaces.
    pub(crate) fn new(namespaces: Arc<pernet::Registration<Control>>) -> Self {
        Self { namespaces }
    }

    /// The namespace of a socket.
    fn control<'a>(&'a self, net: &'a Net) -> Result<&'a Control> {
        self.namespaces.get(net).ok_or(EAGAIN)
    }
}

/// Here there is no room for the reason of a refusal.
fn errno(refusal: Refusal) -> Error {
    refusal.error
}

fn service_id(protocol: u16, addr: Be32, port: Be16, fwmark: u32) -> service::Id {
    service::Id {
        family: Family::V4,
        fwmark,
        protocol,
        addr: Addr::v4(addr),
        port,
    }
}

fn id_of(user: &ServiceUser) -> service::Id {
    service_id(user.protocol, user.addr, user.port, user.fwmark)
}

/// Refuses protocols that nobody balances; the error number is what C says.
fn check_protocol(protocol: u16) -> Result {
    let known = [IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP].map(u16::from);
    if known.contains(&protocol) {
        Ok(())
    } else {
        Err(EFAULT)
    }
}

/// The service that is meant, of which the protocol must be right even if it has a mark.
fn existing(netns: &Netns, user: &ServiceUser) -> Result<Arc<Service>> {
    netns
        .find(&id_of(user))
        .filter(|service| service.id().protocol == user.protocol)
        .ok_or(ESRCH)
}

/// What a service shall be. The flags replace the old ones.
fn service_settings(user: &ServiceUser) -> Result<service::Settings> {
    let scheduler = text(&user.sched_name).and_then(Kind::by_name);
    let scheduler = scheduler.ok_or(ENOENT)?;
    Ok(service::Settings {
        scheduler,
        flags: user.flags,
        timeout: HZ.from_secs_u32(user.timeout),
        netmask: user.netmask,
    })
}

/// ADD, EDIT, DEL, ZERO.
#[inline(never)]
fn set_service(control: &Control, number: i32, user: &ServiceUser) -> Result {
    let netns = control.netns();
    if number == so_set::ZERO && user.fwmark == 0 && user.addr == 0 && user.port == 0 {
        netns.configure(|config| netns.zero(config));
        return Ok(());
    }
    if matches!(number, so_set::ADD | so_set::EDIT) && text(&user.sched_name).is_none() {
        return Err(EINVAL);
    }
    check_protocol(user.protocol)?;
    netns.configure(|config| {
        if number == so_set::ADD {
            let id = id_of(user);
            if netns.find(&id).is_some() {
                return Err(EEXIST);
            }
            let settings = service_settings(user)?;
            netns.add_service(config, &id, &settings).map_err(errno)?;
            control.has_service();
            control.has_scheduler(settings.scheduler);
            return Ok(());
        }
        let service = existing(netns, user)?;
        match number {
            so_set::EDIT => {
                let settings = service_settings(user)?;
                netns
                    .edit_service(config, &service, &settings)
                    .map_err(errno)?;
                control.has_scheduler(settings.scheduler);
            }
            so_set::DEL => {
                netns.remove_service(config, &service);
                control.lost_dest();
            }
            _ => rcu::read(|g| service.zero(g)),
        }
        Ok(())
    })
}

/// What a destination shall be: tunnels are IPIP here.
fn dest_settings(user: &DestUser) -> Result<dest::Settings> {
    let settings = dest::Settings {
        method: user.conn_flags & conn_flag::DEST_MASK,
        weight: user.weight,
        thresholds: Thresholds {
            upper: user.u_threshold,
            lower: user.l_threshold,
        },
        tun_type: tun_type::IPIP,
        tun_port: 0,
        tun_flags: 0,
    };
    common::dest(&settings).map_err(|wrong| errno(wrong.refusal))?;
    Ok(settings)
}

/// ADDDEST, EDITDEST, DELDEST.
#[inline(never)]
fn set_dest(control: &Control, number: i32, user: &SvcDestUser) -> Result {
    check_protocol(user.service.protocol)?;
    let netns = control.netns();
    let user_dest = &user.dest;
    netns.configure(|config| {
        let service = existing(netns, &user.service)?;
        let id = dest::Id {
            family: Family::V4,
            addr: Addr::v4(user_dest.addr),
            port: user_dest.port,
        };
        let done = match number {
            so_set::ADDDEST => {
                let settings = dest_settings(user_dest)?;
                if service.find(&id).is_some() {
                    return Err(EEXIST);
                }
                control.has_dest();
                netns.add_dest(config, &service, &id, &settings)
            }
            so_set::EDITDEST => {
                let settings = dest_settings(user_dest)?;
                let found = service.find(&id).ok_or(ENOENT)?;
                netns.edit_dest(config, &service, found, &settings)
            }
            _ => {
                let found = service.find(&id).ok_or(ENOENT)?;
                let done = netns.remove_dest(config, &service, found);
                control.lost_dest();
                done
            }
        };
        done.map_err(errno)
    })
}

/// TIMEOUT.
fn set_timeouts(control: &Control, user: &TimeoutUser) -> Result {
    let parse = |secs| Timeouts::parse(secs).map_err(|_: OutOfRange| EINVAL);
    let timeouts = Timeouts {
        tcp: parse(user.tcp)?,
        tcp_fin: parse(user.tcp_fin)?,
        udp: parse(user.udp)?,
    };
    timeouts.set(control.netns());
    Ok(())
}

/// STARTDAEMON. Here nobody asks whether there are destinations of another family, as in C.
fn start_daemon(control: &Control, user: &DaemonUser) -> Result {
    // One that has no end, or nothing before it, is none.
    if text(&user.mcast_ifn).is_none_or(<[u8]>::is_empty) {
        return Err(EINVAL);
    }
    let config = Config {
        ifname: user.mcast_ifn,
        syncid: user.syncid as u32,
        maxlen: 0,
        group: None,
        port: 0,
        ttl: 0,
    };
    control
        .start_daemon(user.state as u32, config, false)
        .map_err(errno)
}

/// VERSION: a text.
#[inline(never)]
fn get_version(control: &Control, request: &mut Get<'_>) -> Result {
    const ROOM: usize = 64;

    request.read::<ROOM>()?;
    let version = Text::<{ ROOM - 1 }>::new(Version {
        conn_tab_size: control.netns().conn_tab_size(),
    });
    let text = version.bytes();
    request.write(0, text)?;
    request.write(text.len(), b"\0")?;
    request.set_len(text.len().saturating_add(1));
    Ok(())
}

/// INFO.
fn get_info(control: &Control, request: &mut Get<'_>) -> Result {
    request.read::<{ GetInfo::LEN }>()?;
    let info = GetInfo {
        size: control.netns().conn_tab_size(),
        num_services: control.netns().services.count(Family::V4),
    };
    request.write(0, &info.to_bytes())
}

/// Where entry `index` of a table is that begins at `begin`.
fn place(begin: usize, index: usize, len: usize) -> usize {
    begin.saturating_add(index.saturating_mul(len))
}

/// SERVICES: as many as the caller has room for. What it has room for must be what it asks for.
///
/// Nothing is collected: each entry is copied by itself, while the configuration and the table stay as they are.
#[inline(never)]
fn get_services(control: &Control, request: &mut Get<'_>) -> Result {
    let get = GetServices::from_bytes(&request.read()?);
    if request.room() as u64 != get.whole() {
        return Err(EINVAL);
    }
    let netns = control.netns();
    netns.configure(|_| {
        netns.with_stable_services(|services| {
            let mut copied = 0;
            for chain in 0..rcu::read(|g| services.chains(g)) {
                let mut nth = 0;
                while let Some(service) = services.nth_of(chain, nth) {
                    nth = nth.wrapping_add(1);
                    if service.id().family != Family::V4 {
                        continue;
                    }
                    if (copied as u64) >= u64::from(get.num_services) {
                        return Ok(());
                    }
                    let at = place(GetServices::LEN, copied, ServiceEntry::LEN);
                    request.write(at, &service_entry(&service))?;
                    copied = copied.wrapping_add(1);
                }
            }
            Ok(())
        })
    })
}

/// SERVICE.
#[inline(never)]
fn get_service(control: &Control, request: &mut Get<'_>) -> Result {
    let query = ServiceQuery::from_bytes(&request.read()?);
    let id = service_id(query.protocol, query.addr, query.port, query.fwmark);
    let service = control.netns().find(&id).ok_or(ESRCH)?;
    request.write(0, &service_entry(&service))
}

/// DESTS: as many as the caller has room for; as [`get_services()`].
#[inline(never)]
fn get_dests(control: &Control, request: &mut Get<'_>) -> Result {
    let get = GetDests::from_bytes(&request.read()?);
    if request.room() as u64 != get.whole() {
        return Err(EINVAL);
    }
    let netns = control.netns();
    let id = service_id(get.protocol, get.addr, get.port, get.fwmark);
    netns.configure(|_| {
        let service = netns.find(&id).ok_or(ESRCH)?;
        let (mut nth, mut copied) = (0, 0);
        while (copied as u64) < u64::from(get.num_dests) {
            let dest = rcu::read(|g| service.backends(g)?.dests().get(nth).cloned());
            let Some(dest) = dest else {
                break;
            };
            nth = nth.wrapping_add(1);
            // The structure has no room for another address.
            if dest.family() != Family::V4 {
                continue;
            }
            let at = place(GetDests::LEN, copied, DestEntry::LEN);
            request.write(at, &dest_entry(&dest))?;
            copied = copied.wrapping_add(1);
        }
        Ok(())
    })
}

/// TIMEOUT.
fn get_timeouts(control: &Control, request: &mut Get<'_>) -> Result {
    request.read::<{ TimeoutUser::LEN }>()?;
    let now = Timeouts::of(control.netns());
    let user = TimeoutUser {
        tcp: now.tcp as i32,
        tcp_fin: now.tcp_fin as i32,
        udp: now.udp as i32,
    };
    request.write(0, &user.to_bytes())
}

/// DAEMON: first the master, then the backup; zeros for one that does not run.
#[inline(never)]
fn get_daemons(control: &Control, request: &mut Get<'_>) -> Result {
    const BOTH: usize = 2 * DaemonUser::LEN;

    request.read::<BOTH>()?;
    let mut users = [[0; DaemonUser::LEN]; 2];
    control.daemons().each(|state, config| {
        let user = DaemonUser {
            state: state as i32,
            mcast_ifn: config.ifname,
            syncid: config.syncid as i32,
        };
        let [master, backup] = &mut users;
        let place = if state == daemon_state::MASTER {
            master
        } else {
            backup
        };
        *place = user.to_bytes();
    });
    request.write(0, &users[0])?;
    request.write(DaemonUser::LEN, &users[1])
}

fn stats_of(stats: &Stats) -> StatsUser {
    let snapshot = stats.read();
    StatsUser {
        total: snapshot.total,
        rates: snapshot.rates,
    }
}

/// C `ip_vs_copy_service()`.
#[inline(never)]
fn service_entry(service: &Service) -> [u8; ServiceEntry::LEN] {
    let (scheduler, dests) = rcu::read(|g| {
        let backends = service.backends(g);
        backends.map_or((Kind::None, 0), |backends: &Backends| {
            (backends.scheduler(), backends.dests().len())
        })
    });
    let id = service.id();
    let entry = ServiceEntry {
        protocol: id.protocol,
        addr: id.addr.v4_be(),
        port: id.port,
        fwmark: id.fwmark,
        sched_name: scheduler.name(),
        flags: service.flags(),
        timeout: service.timeout_secs(),
        netmask: service.netmask(),
        num_dests: u32::try_from(dests).unwrap_or(u32::MAX),
        stats: stats_of(&service.stats),
    };
    entry.to_bytes()
}

/// One round of C `__ip_vs_get_dest_entries()`.
#[inline(never)]
fn dest_entry(dest: &Dest) -> [u8; DestEntry::LEN] {
    let thresholds = dest.thresholds();
    let entry = DestEntry {
        addr: dest.addr().v4_be(),
        port: dest.port(),
        conn_flags: dest.conn_flags(),
        weight: dest.weight(),
        u_threshold: thresholds.upper,
        l_threshold: thresholds.lower,
        activeconns: dest.active(),
        inactconns: dest.inactive(),
        persistconns: dest.persistent(),
        stats: stats_of(&dest.stats),
    };
    entry.to_bytes()
}
