// SPDX-License-Identifier: GPL-2.0-only

//! Announcements to the multicast groups: see `docs/netlink-extensions.md`.
//!
//! What happens to services and destinations is sent at once, by whoever changes them. What happens to connections is
//! noted under a lock, in the order in which it happens, and sent in the background.
//!
//! Nothing is built for nobody. Whether a group has members is known for the machine as a whole only, so a namespace that
//! finds that it has sent to nobody stops to do so until somebody joins again, anywhere.

use super::{
    conns,
    fill,
    FAMILY, //
};
use crate::{
    conn::{
        Conn,
        Shown, //
    },
    dest::Dest,
    os::{
        atomic::{
            I64,
            U32, //
        },
        genl::Batch,
        lock::SpinBh,
        net::Handle,
        rcu,
        time,
        work::Job, //
    },
    service::Service,
    HZ, //
};
use kernel::{
    c_str,
    prelude::*,
    static_lock_class,
    sync::Arc, //
};
use rvs_core::uapi::ext::{
    attr,
    cmd,
    event, //
};

/// Indices of the groups.
pub(super) const CONFIG: usize = 0;
pub(super) const CONNS: usize = 1;

/// How many events of connections may wait to be sent.
const MOST: usize = 16_384;

/// How many of them are in one allocation, of a page.
const CHUNK: usize = 4096 / size_of::<Note>();

/// For how long after somebody has begun to join a group it may seem to have no members.
const PATIENCE: u32 = HZ.from_secs_u32(10);

/// Who has joined a group, in all namespaces.
struct Joins {
    /// How often somebody did.
    count: U32,
    /// When, in jiffies.
    last: U32,
}

impl Joins {
    const fn none() -> Self {
        Self {
            count: U32::new(0),
            last: U32::new(0),
        }
    }
}

static JOINS: [Joins; 2] = [Joins::none(), Joins::none()];

/// Whether a group has members in a namespace.
struct Audience {
    group: u32,
    joins: &'static Joins,
    /// How many joins there had been when it turned out that none was for here.
    deaf: U32,
    /// When it was told otherwise, in jiffies.
    woken: U32,
}

impl Audience {
    fn new(group: u32, joins: &'static Joins) -> Self {
        Self {
            group,
            joins,
            deaf: U32::new(0),
            woken: U32::new(0),
        }
    }

    /// Whether there may be somebody.
    #[inline(always)]
    fn is_possible(&self) -> bool {
        self.joins.count.load() != self.deaf.load()
    }

    /// Whether somebody is there, at least somewhere.
    fn is_there(&self, net: &Handle) -> bool {
        let count = self.joins.count.load();
        if count == self.deaf.load() {
            return false;
        }
        let is_there = rcu::read(|g| FAMILY.has_listeners(net, self.group, g));
        if !is_there {
            self.nobody(count);
        }
        is_there
    }

    /// Nobody was there, `count` joins having begun. Who has just begun to may not be a member yet.
    fn nobody(&self, count: u32) {
        let now = time::jiffies();
        let is_old = |then: &U32| now.wrapping_sub(then.load()) > PATIENCE;
        if is_old(&self.joins.last) && is_old(&self.woken) {
            self.deaf.store(count);
        }
    }

    /// Somebody joins in this namespace.
    fn wake(&self) {
        self.woken.store(time::jiffies());
        self.deaf.store(self.joins.count.load().wrapping_sub(1));
    }

    /// Sends what `fill` adds to a batch.
    fn send(&self, net: &Handle, fill: impl FnOnce(&mut Batch<'_>) -> Result) -> Result {
        let count = self.joins.count.load();
        if !FAMILY.announce(net, self.group, fill)? {
            self.nobody(count);
        }
        Ok(())
    }
}

/// Something that happened to a connection.
struct Note {
    seq: u64,
    kind: u8,
    conn: Shown,
}

/// What happened to connections and was not sent yet.
struct Queue {
    /// The number of the last event.
    seq: u64,
    /// How many were lost.
    lost: u64,
    /// How many are in `chunks`, or are being sent.
    waiting: usize,
    chunks: KVec<KVec<Note>>,
}

impl Queue {
    fn push(&mut self, kind: u8, conn: Shown) -> Result {
        self.seq = self.seq.wrapping_add(1);
        if self.waiting >= MOST {
            return Err(ENOBUFS);
        }
        let seq = self.seq;
        let has_room = |chunk: &KVec<Note>| chunk.len() < chunk.capacity();
        if !self.chunks.last().is_some_and(has_room) {
            self.add_chunk()?;
        }
        let chunk = self.chunks.last_mut().ok_or(ENOMEM)?;
        chunk
            .push_within_capacity(Note { seq, kind, conn })
            .map_err(|_| ENOMEM)?;
        self.waiting = self.waiting.wrapping_add(1);
        Ok(())
    }

    /// Makes room for another [`CHUNK`] of them.
    #[inline(never)]
    fn add_chunk(&mut self) -> Result {
        let flags = GFP_ATOMIC | __GFP_NOWARN;
        let new = KVec::with_capacity(CHUNK, flags)?;
        let room = self.chunks.capacity();
        // `KVec::push()` has sums in it that might panic.
        if self.chunks.len() >= room {
            let mut larger = KVec::with_capacity(room.wrapping_mul(2).max(8), flags)?;
            for chunk in core::mem::take(&mut self.chunks) {
                larger.push_within_capacity(chunk).map_err(|_| ENOMEM)?;
            }
            self.chunks = larger;
        }
        self.chunks.push_within_capacity(new).map_err(|_| ENOMEM)
    }
}

/// The events of a namespace.
pub(crate) struct Events {
    shared: Arc<Shared>,
    sender: Job<Shared>,
}

struct Shared {
    net: Handle,
    config: Audience,
    conns: Audience,
    /// The number of the last event of the configuration; written with the configuration locked.
    config_seq: I64,
    queue: SpinBh<Queue>,
}

/// How many events there were.
pub(super) struct Numbers {
    /// The number of the last one of the configuration.
    pub(super) config: u64,
    /// The number of the last one of connections.
    pub(super) conns: u64,
    /// How many of those were lost.
    pub(super) lost: u64,
}

/// Notes that somebody joins a group, from any namespace.
pub(super) fn joined(group: usize) {
    if let Some(joins) = JOINS.get(group) {
        joins.last.store(time::jiffies());
        joins.count.fetch_add(1);
    }
}

impl Events {
    /// No events yet. May sleep.
    #[inline(never)]
    pub(crate) fn new(net: &Handle) -> Result<Arc<Self>> {
        let queue = Queue {
            seq: 0,
            lost: 0,
            waiting: 0,
            chunks: KVec::new(),
        };
        let [config, conns] = &JOINS;
        let shared = Shared {
            net: net.again(),
            config: Audience::new(CONFIG as u32, config),
            conns: Audience::new(CONNS as u32, conns),
            config_seq: I64::new(0),
            queue: SpinBh::new(queue, c_str!("rvs_events"), static_lock_class!()),
        };
        let shared = Arc::new(shared, GFP_KERNEL)?;
        let sender = Job::new(shared.clone(), send)?;
        Ok(Arc::new(Self { shared, sender }, GFP_KERNEL)?)
    }

    /// Somebody joins a group in this namespace.
    pub(super) fn wake(&self, group: usize) {
        match group {
            CONFIG => self.shared.config.wake(),
            _ => self.shared.conns.wake(),
        }
    }

    /// The numbers of events up to now.
    pub(super) fn numbers(&self) -> Numbers {
        let queue = self.shared.queue.lock();
        Numbers {
            config: self.shared.config_seq.load() as u64,
            conns: queue.seq,
            lost: queue.lost,
        }
    }

    /// Something happened to a connection. Does not sleep; takes one spinlock.
    #[inline(always)]
    pub(crate) fn conn(&self, kind: u8, conn: &Conn) {
        if self.shared.conns.is_possible() {
            self.note(kind, conn);
        }
    }

    #[cold]
    #[inline(never)]
    fn note(&self, kind: u8, conn: &Conn) {
        let shared = &self.shared;
        if !shared.conns.is_there(&shared.net) {
            return;
        }
        {
            let mut queue = shared.queue.lock();
            // Under the lock: what is said is in the order of the numbers.
            if queue.push(kind, Shown::of(conn)).is_err() {
                queue.lost = queue.lost.wrapping_add(1);
            }
        }
        self.sender.start(0);
    }

    /// Something happened to a service, the configuration being locked. May not be called under a spinlock.
    pub(crate) fn service(&self, kind: u8, service: &Service) {
        if self.shared.config.is_possible() {
            self.config(|batch, seq| {
                batch.message(cmd::SERVICE_EVENT, |msg| {
                    msg.u8(attr::EVENT, kind)?;
                    msg.u64(attr::SEQ, seq, attr::PAD)?;
                    fill::service(msg, service)
                })
            });
        }
    }

    /// Something happened to a destination, the configuration being locked.
    pub(crate) fn dest(&self, kind: u8, dest: &Dest) {
        if self.shared.config.is_possible() {
            self.config(|batch, seq| {
                batch.message(cmd::DEST_EVENT, |msg| {
                    msg.u8(attr::EVENT, kind)?;
                    msg.u64(attr::SEQ, seq, attr::PAD)?;
                    fill::service_id(msg, dest.service())?;
                    fill::dest(msg, dest)
                })
            });
        }
    }

    #[inline(never)]
    fn config(&self, fill: impl FnOnce(&mut Batch<'_>, u64) -> Result) {
        let shared = &self.shared;
        if !shared.config.is_there(&shared.net) {
            return;
        }
        let seq = shared.config_seq.load().wrapping_add(1);
        shared.config_seq.store(seq);
        // Without memory it is lost, and the gap in the numbers says so.
        let _ = shared
            .config
            .send(&shared.net, |batch| fill(batch, seq as u64));
    }
}

/// Sends what happened to connections.
fn send(shared: &Shared) -> Option<u32> {
    let chunks = core::mem::take(&mut shared.queue.lock().chunks);
    for chunk in chunks {
        let mut next = 0;
        while next < chunk.len() {
            let from = next;
            let lost = shared.queue.lock().lost;
            let sent = shared.conns.send(&shared.net, |batch| {
                while let Some(note) = chunk.get(next) {
                    match batch.message(cmd::CONN_EVENT, |msg| show(msg, note, lost)) {
                        Err(err) if next == from => return Err(err),
                        Err(_) => break,
                        Ok(()) => next = next.wrapping_add(1),
                    }
                }
                Ok(())
            });
            if sent.is_err() {
                // No memory: the rest of the chunk is lost.
                let rest = chunk.len().saturating_sub(from) as u64;
                let mut queue = shared.queue.lock();
                queue.lost = queue.lost.wrapping_add(rest);
                next = chunk.len();
            }
            time::yield_cpu();
        }
        let mut queue = shared.queue.lock();
        queue.waiting = queue.waiting.saturating_sub(chunk.len());
    }
    None
}

/// Adds what a note says.
fn show(msg: &crate::os::nlmsg::Writer<'_>, note: &Note, lost: u64) -> Result {
    msg.u8(attr::EVENT, note.kind)?;
    msg.u64(attr::SEQ, note.seq, attr::PAD)?;
    msg.u64(attr::LOST, lost, attr::PAD)?;
    let expires = match note.kind {
        event::DELETED => 0,
        _ => note.conn.timeout,
    };
    conns::fill(msg, &note.conn, expires)
}
