// SPDX-License-Identifier: GPL-2.0-only

//! What a FullNAT connection has beside what others have.

use super::{
    Conn,
    ConnTable,
    Created,
    Far,
    NoConn,
    Param,
    Tuple, //
};
use crate::{
    os::{
        atomic::{
            Bool,
            U32, //
        },
        net::End,
        one_of::{
            OneOf,
            Which, //
        },
        rcu::Held,
        table::{
            Inserted,
            Unlinked,
            Unlisted, //
        },
        time, //
    },
    service::pool::{
        Carry,
        Local, //
    }, //
};
use kernel::{
    alloc::flags::*,
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    fullnat::tcp::Space,
    proto::{
        tcp,
        IPPROTO_TCP, //
    },
    uapi::conn_flag, //
};

/// Where a connection sits towards its real server.
#[derive(Clone, Copy)]
pub(crate) struct Seat<'a> {
    /// The local address.
    pub(crate) local: &'a Arc<Local>,
    /// The local port, memory order.
    pub(crate) port: Be16,
    /// The client's TCP sequence numbers.
    pub(crate) space: Space,
    /// What is added to the client's TCP timestamps.
    pub(crate) ts: u32,
    /// How the real server learns the client's address.
    pub(crate) carry: Carry,
}

/// The part of a connection that is there with FullNAT only.
pub(crate) struct FullNat {
    addr: Addr,
    port: Be16,
    /// Whether the deadline was reached, so that nobody else ends the connection.
    expired: Bool,
    /// Whether the real server has learnt the client's address.
    told: Bool,
    /// The client's TCP sequence numbers.
    pub(crate) space: Space,
    /// What is added to the client's TCP timestamps.
    pub(crate) ts: u32,
    /// How the real server learns the client's address.
    pub(crate) carry: Carry,
    /// The sequence number that the client is going to use next, as the real server sees it.
    pub(crate) next_seq: U32,
    /// What the client expects next of the real server.
    pub(crate) next_ack: U32,
    local: Arc<Local>,
}

impl FullNat {
    fn new(seat: &Seat<'_>) -> Self {
        Self {
            addr: *seat.local.addr(),
            port: seat.port,
            expired: Bool::new(false),
            told: Bool::new(false),
            space: seat.space,
            ts: seat.ts,
            carry: seat.carry,
            next_seq: U32::new(0),
            next_ack: U32::new(0),
            local: seat.local.clone(),
        }
    }

    /// The local address.
    #[inline(always)]
    pub(crate) fn addr(&self) -> &Addr {
        &self.addr
    }

    /// The local port, memory order.
    #[inline(always)]
    pub(crate) fn port(&self) -> Be16 {
        self.port
    }

    /// Whether the real server has learnt the client's address.
    pub(crate) fn is_told(&self) -> bool {
        self.told.load()
    }

    /// It has.
    pub(crate) fn set_told(&self) {
        self.told.store(true);
    }

    /// Notes that the connection ends because its time is over.
    pub(super) fn set_expired(&self) {
        self.expired.store(true);
    }

    /// The connection has left the table: its port is free or rests, and an established TCP connection is reset.
    #[inline(never)]
    pub(super) fn ended(&self, conn: &Conn) {
        self.local.conns.sub(1);
        let realm = self.local.realm();
        realm.give_back(realm.port_set(&conn.reply()), u16::from_be(self.port));
        if conn.proto != IPPROTO_TCP {
            return;
        }
        match conn.state() {
            tcp::State::ESTABLISHED => {
                if let Some(net) = realm.net() {
                    self.reset(net, conn);
                }
            }
            // No bytes were sent.
            tcp::State::NONE | tcp::State::SYN_SENT | tcp::State::SYN_RECV => {}
            // The real server may still remember it. After the whole of TIME-WAIT it hardly does.
            state => {
                let rests = matches!(
                    state,
                    tcp::State::FIN_WAIT
                        | tcp::State::CLOSE_WAIT
                        | tcp::State::LAST_ACK
                        | tcp::State::TIME_WAIT
                ) && !(state == tcp::State::TIME_WAIT && self.expired.load());
                realm.remember(&conn.reply(), self.next_seq.load(), rests);
            }
        }
    }

    /// Resets the connection at both ends.
    fn reset(&self, net: &crate::os::net::Net, conn: &Conn) {
        let v6 = conn.family() == Family::V6;
        let (seq, ack) = (self.next_seq.load(), self.next_ack.load());
        let (caddr, vaddr, daddr) = (conn.caddr(), conn.vaddr(), conn.daddr());
        let end = |addr, port| End { addr, port };
        net.reset_tcp(
            v6,
            end(&self.addr.0, self.port),
            end(&daddr.0, conn.dport),
            seq,
            ack,
        );
        net.reset_tcp(
            v6,
            end(&vaddr.0, conn.vport),
            end(&caddr.0, conn.cport),
            ack,
            self.space.to_client(seq),
        );
    }
}

impl Conn {
    /// What it has with FullNAT.
    #[inline(always)]
    pub(crate) fn fullnat(&self) -> Option<&FullNat> {
        match self.extension.as_ref()?.get() {
            Which::Boxed(far) => Some(&far.full),
            Which::Pooled(_) => None,
        }
    }

    /// Whether both ends of its packets are rewritten.
    #[inline(always)]
    pub(crate) fn is_fullnat(&self) -> bool {
        self.method() == conn_flag::FULLNAT
    }

    /// Whether a packet comes from the real server to the local address. Protocol, kind and destination port are known to be
    /// right.
    pub(super) fn is_local_reply(&self, t: &Tuple) -> bool {
        self.dport == t.sport
            && self.daddr() == t.src
            && self.fullnat().is_some_and(|full| full.addr == t.dst)
    }

    /// Gives a new connection its seat.
    fn sit(&mut self, seat: &Seat<'_>) -> Result {
        let far = Far {
            tails: self.tails().copied().unwrap_or_default(),
            full: FullNat::new(seat),
        };
        // INVARIANT: That of FullNAT has one.
        self.extension = Some(OneOf::boxed(KBox::new(far, GFP_ATOMIC | __GFP_NOWARN)?));
        self.rport = seat.port;
        // Whatever the sysctl `conntrack` says: netfilter never sees both directions of it.
        const OTHERS: u32 = conn_flag::FWD_MASK | conn_flag::ONE_PACKET | conn_flag::NFCT;
        let status = self.status.load() & !OTHERS;
        self.status.store(status | conn_flag::FULLNAT);
        Ok(())
    }
}

impl ConnTable {
    /// As [`ConnTable::create()`], for a connection with a seat; `None`: another CPU was faster and took the seat.
    #[inline(never)]
    pub(crate) fn create_at<'g>(
        &'g self,
        param: &Param<'_>,
        seat: &Seat<'_>,
        max: i64,
        g: &'g Held,
    ) -> Result<Option<Created<'g>>, NoConn> {
        if self.table.count() >= max {
            return Err(NoConn::Limit);
        }
        let mut conn = Conn::new(param, self.counting.load()).map_err(|_| NoConn::Memory)?;
        conn.sit(seat).map_err(|_| NoConn::Memory)?;
        let timeout = conn.timeout();
        let new = Unlinked::new(conn).map_err(|_| NoConn::Memory)?;
        // From here on its end takes back what is counted.
        seat.local.conns.add(1);
        if let Some(control) = param.control {
            control.children.add(1);
        }
        if param.dest.is_some_and(|dest| !dest.conn_bound()) {
            drop(Unlisted::new(new));
            return Err(NoConn::Removed);
        }
        let deadline = time::jiffies().wrapping_add(timeout);
        let reply = Tuple {
            src: param.daddr,
            dst: *seat.local.addr(),
            sport: param.dport,
            dport: seat.port,
            ..*param.flow
        };
        let hashes = self.hashes(param.flow, Some(&reply));
        let inserted =
            self.table
                .insert_unique(new, hashes, deadline, g, |other, node| match node {
                    0 => other.is_request(param.flow) && !other.is_stale(),
                    _ => other.is_reply(&reply),
                });
        Ok(match inserted {
            Inserted::New(conn) => Some(Created::New(conn)),
            Inserted::Exists(conn) => Some(Created::Exists(conn)),
            Inserted::Taken => None,
        })
    }
}
