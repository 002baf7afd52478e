// SPDX-License-Identifier: GPL-2.0-only

//! The files `/proc/net/ip_vs*`.
//!
//! A record of a file over a table is a chain of that table, so that a large table is read in one pass.

use crate::{
    conn::Conn,
    netns::Netns,
    os::{
        cpu,
        proc::{
            File,
            Out,
            Records, //
        },
        rcu,
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
    estimate::Counters,
    fmt::{
        self,
        ConnRow,
        PercpuRow,
        PercpuTotals,
        ServicesHeader, //
    },
    proto,
    timeout::Deadline, //
};

/// The chain that record `at` shows; record 0 is the header.
fn chain(at: u64) -> Option<usize> {
    usize::try_from(at.checked_sub(1)?).ok()
}

/// `/proc/net/ip_vs`: C `ip_vs_info_seq_show()`.
struct Services;

impl Records for Services {
    type Data = Netns;

    fn reaches(netns: &Netns, at: u64) -> bool {
        chain(at).is_none_or(|index| rcu::read(|g| index < netns.services.chains(g)))
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

    fn reaches(netns: &Netns, at: u64) -> bool {
        chain(at).is_none_or(|index| {
            let conns = netns.conns();
            rcu::read(|g| conns.is_some_and(|conns| index < conns.chains(g)))
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

fn show_conn(conn: Ref<'_, Conn>, out: &Out<'_>) {
    let template = conn.is_template();
    // A tunnel's real server may be of the other family: then only the destination has its address.
    let (dest_family, daddr) = match conn.get().dest() {
        Some(dest) => (dest.family(), *dest.addr()),
        None => (conn.family(), conn.daddr()),
    };
    out.put(ConnRow::new(fmt::Conn {
        family: conn.family(),
        protocol: conn.proto(),
        caddr: &conn.caddr(),
        cport: conn.cport(),
        vaddr: &conn.vaddr(),
        vport: conn.vport(),
        dest_family,
        daddr: &daddr,
        dport: conn.shown_dport(),
        state: proto::state_name(conn.proto(), template, conn.state()),
        expires: Deadline(conn.deadline()).secs_left(time::jiffies() as usize, HZ),
    }));
}

/// `/proc/net/ip_vs_stats`: C `ip_vs_stats_show()`.
struct Totals;

impl Records for Totals {
    type Data = Netns;

    fn reaches(_: &Netns, at: u64) -> bool {
        at == 0
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

    fn reaches(_: &Netns, at: u64) -> bool {
        at <= u64::from(cpu::ids()).saturating_add(1)
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
}

impl Files {
    /// Creates them.
    pub(super) fn new(netns: &Arc<Netns>) -> Result<Self> {
        let net = netns.net();
        Ok(Self {
            _services: File::new(net, c"ip_vs", netns.clone())?,
            _conns: File::new(net, c"ip_vs_conn", netns.clone())?,
            _totals: File::new(net, c"ip_vs_stats", netns.clone())?,
            _percpu: File::new(net, c"ip_vs_stats_percpu", netns.clone())?,
        })
    }
}
