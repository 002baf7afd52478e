// SPDX-License-Identifier: GPL-2.0-only

//! The files `/proc/net/ip_vs*`.
//!
//! A record of a file over a table is a chain of that table, so that a large table is read in one pass.

use crate::{
    conn::{
        Conn,
        ConnTable,
        Shown, //
    },
    netns::Netns,
    os::{
        app,
        cpu,
        proc::{
            File,
            Out,
            Records, //
        },
        rcu::{
            self,
            Held, //
        },
        table::Ref,
        time, //
    },
    HZ, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::Family,
    estimate::Counters,
    fmt::{
        self,
        ConnRow,
        ConnSyncRow,
        PercpuRow,
        PercpuTotals,
        ServicesHeader,
        TableStatus, //
    },
    timeout::Deadline,
    uapi::conn_flag, //
};

/// The chain that record `at` shows; record 0 is the header.
fn chain(at: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(1)?).ok()
}

/// The first record from `at` on whose chain is not empty. `first_used` is that of a table, which may have many that are.
fn first_used(at: u64, first_used: impl Fn(usize, &Held) -> (usize, bool)) -> Option<u64> {
    let Some(mut index) = chain(at) else {
        return Some(at);
    };
    loop {
        match rcu::read(|g| first_used(index, g)) {
            (usize::MAX, _) => return None,
            (found, true) => return u64::try_from(found).ok()?.checked_add(1),
            (next, false) => index = next,
        }
        time::yield_cpu();
    }
}

/// A file of one record.
fn only_first(at: u64) -> Option<u64> {
    (at == 0).then_some(0)
}

/// `/proc/net/ip_vs`: C `ip_vs_info_seq_show()`.
struct Services;

impl Records for Services {
    type Data = Netns;

    fn seek(netns: &Netns, at: u64) -> Option<u64> {
        first_used(at, |index, g| netns.services.first_used(index, g))
    }

    fn show(netns: &Netns, at: u64, out: &Out<'_>) {
        let Some(index) = chain(at) else {
            out.put(ServicesHeader {
                conn_tab_size: netns.conn_tab_size(),
            });
            return;
        };
        rcu::read(|g| {
            netns.services.visit(index, g, |service| {
                if let Some(backends) = service.backends(g) {
                    out.put(service.row(backends));
                    for dest in backends.dests() {
                        out.put(dest.row());
                    }
                }
                true
            })
        });
    }
}

/// `/proc/net/ip_vs_conn`: C `ip_vs_conn_seq_show()`.
struct Conns;

impl Records for Conns {
    type Data = Netns;

    fn seek(netns: &Netns, at: u64) -> Option<u64> {
        first_used(at, |index, g| match netns.conns() {
            Some(conns) => conns.first_used(index, g),
            None => (usize::MAX, false),
        })
    }

    fn show(netns: &Netns, at: u64, out: &Out<'_>) {
        let Some(index) = chain(at) else {
            out.put(fmt::CONNS_HEADER);
            return;
        };
        if let Some(conns) = netns.conns() {
            rcu::read(|g| {
                conns.visit(index, g, |conn| {
                    show_conn(conn, out);
                    true
                })
            });
        }
    }
}

/// `/proc/net/ip_vs_conn_sync`: C `ip_vs_conn_sync_seq_show()`.
struct ConnsSync;

impl Records for ConnsSync {
    type Data = Netns;

    fn seek(netns: &Netns, at: u64) -> Option<u64> {
        Conns::seek(netns, at)
    }

    fn show(netns: &Netns, at: u64, out: &Out<'_>) {
        let Some(index) = chain(at) else {
            out.put(fmt::CONNS_SYNC_HEADER);
            return;
        };
        if let Some(conns) = netns.conns() {
            rcu::read(|g| {
                conns.visit(index, g, |conn| {
                    show_conn_origin(conn, out);
                    true
                })
            });
        }
    }
}

fn show_conn(conn: Ref<'_, Conn>, out: &Out<'_>) {
    columns(conn, |conn| out.put(ConnRow::new(conn)));
}

fn show_conn_origin(conn: Ref<'_, Conn>, out: &Out<'_>) {
    let from_sync = conn.flags() & conn_flag::SYNC != 0;
    columns(conn, |conn| out.put(ConnSyncRow { conn, from_sync }));
}

/// Calls `show` with what both files show of a connection.
fn columns(conn: Ref<'_, Conn>, show: impl FnOnce(fmt::Conn<'_>)) {
    let shown = Shown::of(conn.get());
    show(fmt::Conn {
        family: shown.family,
        protocol: shown.proto,
        caddr: &shown.caddr,
        cport: shown.cport,
        vaddr: &shown.vaddr,
        vport: shown.vport,
        dest_family: shown.dest_family,
        daddr: &shown.daddr,
        dport: shown.dport,
        state: shown.state_name(),
        expires: Deadline(conn.deadline()).secs_left(time::jiffies() as usize, HZ),
    });
}

/// `/proc/net/ip_vs_app`: C `ip_vs_app_seq_show()`. A record for each port of the only helper, if that is loaded.
struct Apps;

impl Records for Apps {
    type Data = Netns;

    fn seek(_: &Netns, at: u64) -> Option<u64> {
        match chain(at) {
            Some(index) => app::port(index).map(|_| at),
            None => Some(at),
        }
    }

    fn show(netns: &Netns, at: u64, out: &Out<'_>) {
        let Some(index) = chain(at) else {
            out.put(fmt::APPS_HEADER);
            return;
        };
        if let Some(port) = app::port(index) {
            out.put(fmt::AppRow {
                port: u16::from_be(port),
                uses: netns.apps.uses(index),
            });
        }
    }
}

/// `/proc/net/ip_vs_status`: C `ip_vs_status_show()`.
struct Status;

impl Records for Status {
    type Data = Netns;

    const MODE: u16 = 0o440;

    fn seek(_: &Netns, at: u64) -> Option<u64> {
        only_first(at)
    }

    fn show(netns: &Netns, _: u64, out: &Out<'_>) {
        let conns = netns.conns();
        let [v4, v6] = [Family::V4, Family::V6].map(|family| netns.services.count(family));
        out.put(fmt::Status {
            conns: conns.map_or(0, ConnTable::count),
            conn_table: conns.map_or(TableStatus::NONE, ConnTable::status),
            services: v4.saturating_add(v6),
            service_table: netns.services.status(),
            // One work item estimates them all, as soon as there was a service.
            est_slots: 1,
            est_slots_max: conns.is_some().into(),
            est_chain_max: 0,
            est_per_slot: 0,
        });
    }
}

/// `/proc/net/ip_vs_stats`: C `ip_vs_stats_show()`.
struct Totals;

impl Records for Totals {
    type Data = Netns;

    fn seek(_: &Netns, at: u64) -> Option<u64> {
        only_first(at)
    }

    fn show(netns: &Netns, _: u64, out: &Out<'_>) {
        let totals = netns.totals.read();
        out.put(fmt::Stats {
            total: totals.total,
            rates: totals.rates,
        });
    }
}

/// `/proc/net/ip_vs_stats_percpu`: C `ip_vs_stats_percpu_show()`. A record for each CPU number, then one for the totals.
struct PerCpu;

impl Records for PerCpu {
    type Data = Netns;

    fn seek(_: &Netns, at: u64) -> Option<u64> {
        (at <= u64::from(cpu::ids()).saturating_add(1)).then_some(at)
    }

    fn show(netns: &Netns, at: u64, out: &Out<'_>) {
        let Some(number) = at.checked_sub(1) else {
            out.put(fmt::PERCPU_HEADER);
            return;
        };
        match u32::try_from(number) {
            Ok(number) if number < cpu::ids() => {
                if cpu::is_possible(number) {
                    let counters = netns.totals.counters.cpu(number);
                    out.put(PercpuRow {
                        cpu: number,
                        counters: Counters::from_all(counters),
                    });
                }
            }
            _ => {
                let totals = netns.totals.read();
                out.put(PercpuTotals {
                    total: totals.total,
                    rates: totals.rates,
                });
            }
        }
    }
}

/// The files of a namespace.
pub(super) struct Files {
    _services: File<Services>,
    _conns: File<Conns>,
    _totals: File<Totals>,
    _percpu: File<PerCpu>,
    _status: File<Status>,
    _conns_sync: File<ConnsSync>,
    _apps: File<Apps>,
}

impl Files {
    /// Creates them.
    #[inline(never)]
    pub(super) fn new(netns: &Arc<Netns>) -> Result<KBox<Self>> {
        let net = netns.net();
        // Written where they stay, one by one: together they are large for a stack.
        let init = try_init!(Self {
            _services: File::new(net, c"ip_vs", netns.clone())?,
            _conns: File::new(net, c"ip_vs_conn", netns.clone())?,
            _totals: File::new(net, c"ip_vs_stats", netns.clone())?,
            _percpu: File::new(net, c"ip_vs_stats_percpu", netns.clone())?,
            _status: File::new(net, c"ip_vs_status", netns.clone())?,
            _conns_sync: File::new(net, c"ip_vs_conn_sync", netns.clone())?,
            _apps: File::new(net, c"ip_vs_app", netns.clone())?,
        }? Error);
        KBox::try_init(init, GFP_KERNEL)
    }
}
