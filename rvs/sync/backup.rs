// SPDX-License-Identifier: GPL-2.0-only

//! What a backup makes of the datagrams of others: C `sync_thread_backup()`, `ip_vs_proc_conn()`.

use crate::{
    conn::{
        Conn,
        ConnTable,
        Restore,
        Tuple, //
    },
    dest::Dest,
    netns::Netns,
    os::{
        kthread::{
            Current,
            Work, //
        },
        log,
        rcu::{
            self,
            Held, //
        },
        table::Ref,
        time,
        udp::Udp, //
    },
    service,
    HZ, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::Family,
    proto::{
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    sync::{
        decode::Datagram,
        receive::{
            self,
            Known, //
        },
        Record, //
    },
    uapi::{
        conn_flag,
        FwdMethod, //
    },
};

/// A thread of a backup.
pub(super) struct Receiving {
    pub(super) netns: Arc<Netns>,
    pub(super) socket: Udp,
    /// The sync ID that datagrams must have, 0 for any.
    pub(super) syncid: u32,
    /// As large as a datagram may be.
    pub(super) buffer: KVec<u8>,
}

impl Work for Receiving {
    fn run(&mut self, me: &Current) {
        while !me.should_stop() {
            self.socket.wait_data(me);
            while !me.should_stop() {
                match self.socket.receive(&mut self.buffer) {
                    Ok(bytes) => datagram(&self.netns, bytes, self.syncid),
                    Err(err) => {
                        if err != EAGAIN && log::may_log() {
                            pr_err!("sync: cannot receive: error {}\n", err.to_errno());
                        }
                        break;
                    }
                }
                time::yield_cpu();
            }
        }
    }
}

/// Takes over the connections that a datagram tells of: C `ip_vs_process_message()`.
fn datagram(netns: &Netns, bytes: &[u8], syncid: u32) {
    let Ok(datagram) = Datagram::parse(bytes, syncid) else {
        return;
    };
    let Some(conns) = netns.conns() else {
        return;
    };
    for record in datagram.records() {
        match record {
            Ok(record) => rcu::read(|g| take_over(netns, conns, &record, g)),
            Err(bad) if bad.aborts() && log::may_log() => {
                pr_err!("sync: malformed datagram\n");
            }
            Err(_) => {}
        }
    }
    if conns.is_crowded() {
        netns.needs_fitting();
    }
}

/// Makes or updates one connection.
#[inline(never)]
fn take_over(netns: &Netns, conns: &ConnTable, record: &Record<'_>, g: &Held) {
    // The engine that knows what to do with it would have to be loaded, and there are none.
    if record.pe.is_some() {
        return;
    }
    let restore = Restore {
        flow: Tuple {
            src: record.caddr,
            dst: record.vaddr,
            sport: record.cport,
            dport: record.vport,
            proto: record.proto,
            v6: record.family == Family::V6,
            template: record.is_template(),
        },
        record,
        timeout: receive::timeout(record, HZ, |proto, state| match proto {
            IPPROTO_TCP => Some(netns.timeouts.tcp(state)),
            IPPROTO_UDP => Some(netns.timeouts.udp(state)),
            IPPROTO_SCTP => Some(netns.timeouts.sctp(state)),
            _ => None,
        }),
        pkts: netns.sender.settings.threshold(),
    };
    let found = if record.is_template() {
        conns.find_template(&restore.flow, g)
    } else {
        conns.find_request(&restore.flow, g)
    };
    if let Some(conn) = found {
        match receive::known(record, conn.leads_to(record)) {
            Known::Update => return update(netns, conns, &restore, conn, g),
            Known::Replace => conns.end(conn, g),
            Known::Ignore => return,
        }
    }
    let wanted = Wanted {
        family: record.family,
        mark: record.fwmark,
        flow: &restore.flow,
        flags: record.flags,
    };
    let dest = wanted.find(netns, &record.daddr, record.dport, g);
    let max = i64::from(netns.sysctl.conn_max());
    // It may have come about meanwhile.
    if let Ok(Some(conn)) = conns.restore(&restore, dest, max, g) {
        update(netns, conns, &restore, conn, g);
    }
}

/// Updates a connection, and gives it a destination if it has none.
#[inline(never)]
fn update(
    netns: &Netns,
    conns: &ConnTable,
    restore: &Restore<'_, '_>,
    conn: Ref<'_, Conn>,
    g: &Held,
) {
    conns.update(restore, conn, &netns.events);
    if conn.get().dest().is_some() {
        return;
    }
    let wanted = Wanted {
        family: conn.family(),
        mark: conn.fwmark(),
        flow: &restore.flow,
        flags: conn.flags(),
    };
    if let Some(dest) = wanted.find(netns, &conn.daddr(), conn.dport(), g) {
        conns.rebind(conn, dest, g);
    }
}

/// What is known of the service of a connection.
struct Wanted<'a> {
    family: Family,
    mark: u32,
    flow: &'a Tuple,
    flags: u32,
}

impl Wanted<'_> {
    /// The destination of a connection: C `ip_vs_find_dest()`.
    fn find<'g>(
        &self,
        netns: &'g Netns,
        addr: &rvs_core::addr::Addr,
        port: rvs_core::addr::Be16,
        g: &'g Held,
    ) -> Option<&'g Arc<Dest>> {
        let id = service::Id {
            family: self.family,
            fwmark: self.mark,
            protocol: self.flow.proto.into(),
            addr: self.flow.dst,
            port: self.flow.dport,
        };
        let service = netns.services.lookup(netns.net(), id, g)?;
        let is_masq = self.flags & conn_flag::FWD_MASK == FwdMethod::Masq as u32;
        // What has a mark and is not rewritten has whatever port the client wanted.
        let first = if self.mark != 0 && !is_masq { 0 } else { port };
        let dests = service.backends(g)?.dests();
        let find = |port| {
            dests.iter().find(|dest| {
                let id = dest.id();
                id.family == self.family && id.addr == *addr && id.port == port
            })
        };
        find(first).or_else(|| find(first ^ port))
    }
}
