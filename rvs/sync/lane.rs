// SPDX-License-Identifier: GPL-2.0-only

//! What a master's threads send: datagrams that packets fill. C `sync_buff`, `sync_queue` and `sync_thread_master()`.
//!
//! Each thread has a *lane*: the datagram that is being filled, and those that are full. A connection always takes the same
//! lane, so that what is said of it comes in order.

use crate::{
    conn::Conn,
    os::{
        atomic::Usize,
        kthread::{
            Bell,
            Current,
            Work, //
        },
        lock::SpinBh,
        log,
        memory,
        time,
        udp::Udp, //
    },
    HZ, //
};
use kernel::{
    alloc::flags::*,
    c_str,
    prelude::*,
    static_lock_class,
    sync::Arc, //
};
use rvs_core::sync::{
    daemon::{
        CHECK_SECS,
        FLUSH_SECS,
        SEND_DELAY_DIVISOR,
        WAKEUP_RATE, //
    },
    encode::{
        self,
        Refused,
        Writer, //
    },
    Record,
    Version,
    MAX_RECORDS, //
};

/// How long the first full datagram waits for others, in jiffies.
const SEND_DELAY: u32 = {
    let delay = HZ.get() / SEND_DELAY_DIVISOR;
    if delay > 0 {
        delay
    } else {
        1
    }
};

/// More bytes than any record has that is sent from here, with its padding.
const RECORD_ROOM: usize = 100;

/// A datagram.
struct Message {
    writer: Writer,
    bytes: KVec<u8>,
    /// When it was begun, in jiffies.
    began: u32,
    /// The one that was queued before.
    next: Option<KBox<Message>>,
}

impl Message {
    /// Begins a datagram with a record. Does not sleep.
    #[inline(never)]
    fn begin(version: Version, syncid: u8, maxlen: u16, record: &Record<'_>) -> Result<KBox<Self>> {
        const FLAGS: kernel::alloc::Flags = GFP_ATOMIC;

        let room = encode::room(version, record, maxlen).ok_or(EINVAL)?;
        // However long datagrams may be, there are no more than so many records in one.
        let most = const { MAX_RECORDS as usize * RECORD_ROOM + 8 };
        let mut bytes = memory::zeros(room.min(most), FLAGS | __GFP_NOWARN)?;
        let mut writer = Writer::new(version, syncid, &mut bytes).ok_or(EINVAL)?;
        writer.push(&mut bytes, record).map_err(|_| EINVAL)?;
        Ok(KBox::new(
            Self {
                writer,
                bytes,
                began: time::jiffies(),
                next: None,
            },
            FLAGS | __GFP_NOWARN,
        )?)
    }

    fn datagram(&self) -> &[u8] {
        self.bytes.get(..self.writer.len()).unwrap_or(&[])
    }
}

/// Datagrams, the newest first.
#[derive(Default)]
struct Chain(Option<KBox<Message>>);

impl Chain {
    fn push(&mut self, mut message: KBox<Message>) {
        message.next = self.0.take();
        self.0 = Some(message);
    }

    fn pop(&mut self) -> Option<KBox<Message>> {
        let mut message = self.0.take()?;
        self.0 = message.next.take();
        Some(message)
    }

    /// The same, the oldest first.
    fn reversed(mut self) -> Self {
        let mut new = Self::default();
        while let Some(message) = self.pop() {
            new.push(message);
        }
        new
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // One after another: the stack is short.
        while self.pop().is_some() {}
    }
}

/// What is locked of a lane.
#[derive(Default)]
struct Filling {
    /// The datagram that records are added to.
    current: Option<KBox<Message>>,
    /// Those that are full and that the thread has not taken yet.
    full: Chain,
    /// How many they are.
    count: u32,
    /// When the first of them was added, in jiffies.
    since: u32,
}

/// What packets and a thread of a master share; C `struct ipvs_master_sync_state`.
#[pin_data]
pub(super) struct Lane {
    syncid: u8,
    maxlen: u16,
    filling: SpinBh<Filling>,
    /// How many full datagrams there are that the thread has not begun to send.
    waiting: Usize,
    #[pin]
    bell: Bell,
}

/// What a thread does next.
enum Next {
    Send(KBox<Message>),
    /// For so many jiffies.
    Wait(u32),
}

impl Lane {
    /// Makes an empty lane. `maxlen` is the most bytes in a datagram.
    pub(super) fn new(syncid: u8, maxlen: u16) -> Result<Arc<Self>> {
        let init = pin_init!(Self {
            syncid,
            maxlen,
            filling: SpinBh::new(
                Filling::default(),
                c_str!("rvs_sync_lane"),
                static_lock_class!()
            ),
            waiting: Usize::new(0),
            bell <- Bell::new(c_str!("rvs_sync_bell"), static_lock_class!()),
        });
        Arc::pin_init(init, GFP_KERNEL)
    }

    /// Adds a record. Returns whether it will be sent, if nothing happens. Does not sleep.
    fn add(&self, version: Version, qlen_max: usize, record: &Record<'_>) -> bool {
        let (added, wakes) = self.fill(version, qlen_max, record);
        if wakes {
            self.bell.ring();
        }
        added
    }

    /// Adds a record, and says whether the thread must be woken.
    fn fill(&self, version: Version, qlen_max: usize, record: &Record<'_>) -> (bool, bool) {
        let mut filling = self.filling.lock();
        if let Some(current) = &mut filling.current {
            let Message { writer, bytes, .. } = &mut **current;
            if writer.version() == version {
                match writer.push(bytes, record) {
                    Ok(()) => return (true, false),
                    Err(Refused::Unspeakable) => return (false, false),
                    Err(Refused::Full) => {}
                }
            }
        }
        let mut wakes = false;
        if let Some(full) = filling.current.take() {
            // More than that are lost.
            if self.waiting.load() < qlen_max {
                self.waiting.add(1);
                if filling.count == 0 {
                    filling.since = time::jiffies();
                }
                filling.count = filling.count.wrapping_add(1);
                // The first one makes the thread look when the others must be here.
                wakes = filling.count == 1 || filling.count == WAKEUP_RATE;
                filling.full.push(full);
            }
        }
        filling.current = Message::begin(version, self.syncid, self.maxlen, record).ok();
        let added = filling.current.is_some();
        drop(filling);
        if !added && log::may_log() {
            pr_err!("sync: no memory for a datagram\n");
        }
        (added, wakes)
    }

    /// What the thread does next; `ready` are datagrams that it has taken already.
    fn next(&self, ready: &mut Chain) -> Next {
        if let Some(message) = ready.pop() {
            self.waiting.sub(1);
            return Next::Send(message);
        }
        let now = time::jiffies();
        let mut filling = self.filling.lock();
        if filling.count != 0 {
            let waited = now.wrapping_sub(filling.since);
            if filling.count < WAKEUP_RATE && waited < SEND_DELAY {
                return Next::Wait(SEND_DELAY.wrapping_sub(waited));
            }
            filling.count = 0;
            let full = core::mem::take(&mut filling.full);
            drop(filling);
            *ready = full.reversed();
            if let Some(message) = ready.pop() {
                self.waiting.sub(1);
                return Next::Send(message);
            }
            return Next::Wait(1);
        }
        let is_due = filling
            .current
            .as_ref()
            .is_some_and(|current| now.wrapping_sub(current.began) >= HZ.from_secs_u32(FLUSH_SECS));
        match filling.current.take_if(|_| is_due) {
            Some(message) => Next::Send(message),
            None => Next::Wait(HZ.from_secs_u32(CHECK_SECS)),
        }
    }
}

/// The lanes of a master.
pub(super) struct Lanes(KVec<Arc<Lane>>);

impl Lanes {
    /// Those of a master; their number is a power of two.
    pub(super) fn new(lanes: KVec<Arc<Lane>>) -> Self {
        Self(lanes)
    }

    /// Adds a connection to its lane; see [`Lane::add()`].
    pub(super) fn add(&self, version: Version, qlen_max: usize, conn: &Conn) -> bool {
        // Fibonacci hashing: what is told of addresses of a slab is how far they are apart. Six bits are enough for all lanes.
        const SHIFT: u32 = u64::BITS - 6;
        let place = (core::ptr::from_ref(conn) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> SHIFT;
        match self.0.get(place as usize & self.0.len().wrapping_sub(1)) {
            Some(lane) => lane.add(version, qlen_max, &conn.record()),
            None => false,
        }
    }
}

/// A thread of a master: C `sync_thread_master()`.
pub(super) struct Announcing {
    pub(super) lane: Arc<Lane>,
    pub(super) socket: Udp,
}

impl Work for Announcing {
    fn run(&mut self, me: &Current) {
        let mut ready = Chain::default();
        // What was not sent by the end is lost, as in C.
        while !me.should_stop() {
            match self.lane.next(&mut ready) {
                Next::Send(message) => self.send(&message, me),
                Next::Wait(jiffies) => self.lane.bell.wait(jiffies, me),
            }
        }
    }
}

impl Announcing {
    fn send(&self, message: &Message, me: &Current) {
        while let Err(err) = self.socket.send(message.datagram()) {
            if err != EAGAIN {
                if log::may_log() {
                    pr_err!("sync: cannot send: error {}\n", err.to_errno());
                }
                return;
            }
            self.socket.wait_room(me);
            if me.should_stop() {
                return;
            }
            time::yield_cpu();
        }
    }
}
