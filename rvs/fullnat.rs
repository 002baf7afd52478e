// SPDX-License-Identifier: GPL-2.0-only

//! What FullNAT needs of a namespace: which addresses are local ones, and which ports are taken or rest.
//!
//! The design is in `docs/fullnat.md`. Pools belong to services ([`crate::service::pool`]); what a connection has of its own
//! is in [`crate::conn`], what happens to packets in [`crate::datapath`].

use crate::{
    conn::Tuple,
    os::{
        atomic::{
            I64,
            U32, //
        },
        net::{
            Handle,
            Net,
            WhileOpen, //
        },
        random,
        rcu::{
            Held,
            RcuBox,
            RcuCell, //
        },
        time, //
    },
    service::{
        pool::Local,
        PerFamily, //
    },
    HZ, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    fullnat::{
        ports,
        tcp, //
    },
    sort::sort, //
};

/// How long a port rests towards a real server that may still remember the connection, in seconds: TIME-WAIT of Linux and
/// most others.
const REST_SECS: u32 = 60;
/// For how long it is remembered what a connection would have sent next: no TIME-WAIT is longer.
const MEMORY_SECS: u32 = 240;
/// Places for ports that have the same low bits of their hash: one cache line.
const WAYS: usize = 8;
/// How many times that, a power of two.
const SETS: usize = 1 << 13;

/// What is remembered of connections that had a local port towards some real server, for a while: half of a hash, until when the
/// port rests, and what would have been sent next.
///
/// Another one with the same half is taken for it, which does no harm. Where more are remembered than have room, the one gives
/// way whose rest ends first: rising sequence numbers and timestamps make up for it.
struct Memory {
    slots: KVVec<I64>,
    /// A number for each slot.
    seqs: KVVec<U32>,
}

/// What a local port was to a real server.
#[derive(Clone, Copy, Default)]
pub(crate) struct Past {
    /// It is not to be used again yet.
    pub(crate) rests: bool,
    /// The sequence number that would have followed.
    pub(crate) next: Option<u32>,
}

impl Memory {
    fn new() -> Result<Self> {
        let mut slots = KVVec::with_capacity(SETS * WAYS, GFP_KERNEL)?;
        let mut seqs = KVVec::with_capacity(SETS * WAYS, GFP_KERNEL)?;
        for _ in 0..SETS * WAYS {
            slots
                .push_within_capacity(I64::new(0))
                .map_err(|_| ENOMEM)?;
            seqs.push_within_capacity(U32::new(0)).map_err(|_| ENOMEM)?;
        }
        Ok(Self { slots, seqs })
    }

    fn set(&self, hash: u64) -> impl Iterator<Item = (&I64, &U32)> {
        let at = (hash as usize & (SETS - 1)).wrapping_mul(WAYS);
        let end = at.wrapping_add(WAYS);
        let slots = self.slots.get(at..end).unwrap_or_default();
        let seqs = self.seqs.get(at..end).unwrap_or_default();
        slots.iter().zip(seqs)
    }

    /// What a place holds: nothing is 0, as no hash is.
    fn parts(word: i64) -> (u32, u32) {
        ((word as u64 >> 32) as u32, word as u32)
    }

    fn tag(hash: u64) -> u32 {
        ((hash >> 32) as u32).max(1)
    }

    fn add(&self, hash: u64, now: u32, until: u32, next: u32) {
        let tag = Self::tag(hash);
        // How long each has still to rest; less than nothing the free ones, and the place that this one has.
        let left = |(slot, _): &(&I64, &U32)| match Self::parts(slot.load()) {
            (have, _) if have == tag => i64::MIN,
            (0, _) => i64::MIN + 1,
            (_, until) => (until.wrapping_sub(now) as i32).into(),
        };
        if let Some((slot, seq)) = self.set(hash).min_by_key(left) {
            seq.store(next);
            slot.store((u64::from(tag) << 32 | u64::from(until)) as i64);
        }
    }

    fn find(&self, hash: u64, now: u32) -> Past {
        let tag = Self::tag(hash);
        for (slot, seq) in self.set(hash) {
            let (have, until) = Self::parts(slot.load());
            if have == tag {
                let left = until.wrapping_sub(now) as i32;
                let age = left.saturating_neg();
                return Past {
                    rests: left > 0,
                    next: (age < HZ.from_secs_u32(MEMORY_SECS) as i32).then(|| seq.load()),
                };
            }
        }
        Past::default()
    }
}

/// How many ports a local address has, in words of a bit each.
const PORT_WORDS: usize = 1 << 16 >> 6;
/// How many sets of ports there are, a power of two.
const PORT_SETS: usize = 1 << 6;
/// How often a bit is tried to be changed while others change its word.
const TRIES: usize = 8;

/// Which ports connections have: a bit for each port, in sets that a hash of local address, real server and protocol chooses.
///
/// It saves asking the connection table for one taken port after the other. It is a hint: sets are shared where there are more
/// pairs of addresses than sets, so a free port may look taken, and a taken one free.
struct Taken {
    words: KVVec<I64>,
}

impl Taken {
    fn new() -> Result<Self> {
        let mut words = KVVec::with_capacity(PORT_SETS * PORT_WORDS, GFP_KERNEL)?;
        for _ in 0..PORT_SETS * PORT_WORDS {
            words
                .push_within_capacity(I64::new(0))
                .map_err(|_| ENOMEM)?;
        }
        Ok(Self { words })
    }

    fn word(&self, set: PortSet, port: u16) -> Option<&I64> {
        self.words
            .get(set.0.wrapping_add(usize::from(port / ports::WORD)))
    }

    fn change(&self, set: PortSet, port: u16, taken: bool) {
        let Some(word) = self.word(set, port) else {
            return;
        };
        let bit = 1 << (port % ports::WORD);
        for _ in 0..TRIES {
            let old = word.load();
            let new = if taken { old | bit } else { old & !bit };
            if new == old || word.replace(old, new) {
                return;
            }
        }
    }
}

/// The ports of a local address towards a real server.
#[derive(Clone, Copy)]
pub(crate) struct PortSet(usize);

/// Addresses of a family, as ranges that neither touch nor overlap, in order.
struct Ranges {
    v4: KVec<(u32, u32)>,
    v6: KVec<(u128, u128)>,
}

/// Sorted values as ranges; `next` is what follows a value. Sleeps.
fn ranges<T: Copy + Ord>(mut all: KVec<T>, next: impl Fn(T) -> Option<T>) -> Result<KVec<(T, T)>> {
    sort(&mut all);
    let mut ranges: KVec<(T, T)> = KVec::with_capacity(all.len(), GFP_KERNEL)?;
    for &value in &all {
        match ranges.last_mut() {
            Some((_, last)) if value <= *last || next(*last) == Some(value) => *last = value,
            _ => ranges
                .push_within_capacity((value, value))
                .map_err(|_| ENOMEM)?,
        }
    }
    Ok(ranges)
}

/// A number of each address of a family. Sleeps.
fn numbers<T>(
    family: Family,
    locals: &[Arc<Local>],
    number: impl Fn(&Addr) -> T,
) -> Result<KVec<T>> {
    let mut all = KVec::with_capacity(locals.len(), GFP_KERNEL)?;
    for local in locals.iter().filter(|local| local.family() == family) {
        all.push_within_capacity(number(local.addr()))
            .map_err(|_| ENOMEM)?;
    }
    Ok(all)
}

/// Whether a value is in one of the ranges.
#[inline(always)]
fn holds<T: Copy + PartialOrd>(ranges: &[(T, T)], value: T) -> bool {
    let (mut low, mut high) = (0, ranges.len());
    while low < high {
        let middle = low.wrapping_add(high) / 2;
        let Some((first, last)) = ranges.get(middle) else {
            return false;
        };
        if value < *first {
            high = middle;
        } else if value > *last {
            low = middle.wrapping_add(1);
        } else {
            return true;
        }
    }
    false
}

fn v6_number(addr: &Addr) -> u128 {
    u128::from_be_bytes(addr.bytes())
}

impl Ranges {
    /// Sleeps.
    fn of(family: Family, locals: &[Arc<Local>]) -> Result<RcuBox<Self>> {
        let (mut v4, mut v6) = (KVec::new(), KVec::new());
        match family {
            Family::V4 => {
                v4 = ranges(numbers(family, locals, Addr::v4_host)?, |a| {
                    a.checked_add(1)
                })?;
            }
            Family::V6 => {
                v6 = ranges(numbers(family, locals, v6_number)?, |a| a.checked_add(1))?;
            }
        }
        RcuBox::new(Self { v4, v6 }, GFP_KERNEL)
    }
}

/// FullNAT in a network namespace.
pub(crate) struct Realm {
    net: WhileOpen,
    key: [u64; 2],
    ranges: PerFamily<RcuCell<Ranges>>,
    memory: Memory,
    taken: Taken,
}

impl Realm {
    /// Makes it, without any address. May sleep.
    pub(crate) fn new(net: &Handle) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                net: WhileOpen::new(net),
                key: random::bytes16(),
                ranges: PerFamily::new(RcuCell::empty(), RcuCell::empty()),
                memory: Memory::new()?,
                taken: Taken::new()?,
            },
            GFP_KERNEL,
        )?)
    }

    /// The namespace, while packets may be sent there.
    pub(crate) fn net(&self) -> Option<&Net> {
        self.net.get()
    }

    /// No more packets: the namespace goes.
    pub(crate) fn close(&self) {
        self.net.close();
    }

    /// What hides sequence numbers, timestamps and the choice of ports.
    pub(crate) fn key(&self) -> &[u64; 2] {
        &self.key
    }

    /// Whether an IPv4 address (memory order) is a local one.
    #[inline(always)]
    pub(crate) fn has_v4(&self, addr: u32, g: &Held) -> bool {
        let ranges = self.ranges.get(Family::V4).load(g);
        ranges.is_some_and(|ranges| holds(&ranges.v4, u32::from_be(addr)))
    }

    /// Whether an IPv6 address is a local one.
    #[inline(always)]
    pub(crate) fn has_v6(&self, addr: &[u8; 16], g: &Held) -> bool {
        let ranges = self.ranges.get(Family::V6).load(g);
        ranges.is_some_and(|ranges| holds(&ranges.v6, u128::from_be_bytes(*addr)))
    }

    /// Makes these the local addresses of a family. Without memory the old ones stay. Sleeps; callers must not overlap.
    pub(crate) fn set_locals(&self, family: Family, locals: &[Arc<Local>]) -> Result {
        let ranges = Ranges::of(family, locals)?;
        self.ranges.get(family).replace(Some(ranges));
        Ok(())
    }

    /// The initial sequence number of a connection whose replies are like this one, by the clock.
    pub(crate) fn initial_seq(&self, reply: &Tuple) -> u32 {
        let ports = u32::from(reply.dport) | u32::from(reply.sport) << 16;
        tcp::initial_seq(&self.key, &reply.dst, &reply.src, ports, time::now_ns())
    }

    /// A TCP connection has ended that would have sent `next` next, and whose replies were like this one. If it `rests`, its
    /// local port is not used towards the real server for a while.
    pub(crate) fn remember(&self, reply: &Tuple, next: u32, rests: bool) {
        // Most are not faster than the clock.
        if !rests && !tcp::outran(next, self.initial_seq(reply)) {
            return;
        }
        let now = time::jiffies();
        let rest = if rests { REST_SECS } else { 0 };
        let until = now.wrapping_add(HZ.from_secs_u32(rest));
        self.memory
            .add(reply.long_hash(&self.key), now, until, next);
    }

    /// What is remembered of the local port at which this reply would arrive.
    pub(crate) fn past(&self, reply: &Tuple) -> Past {
        self.memory
            .find(reply.long_hash(&self.key), time::jiffies())
    }

    /// The ports at which replies like this one arrive, whatever their own port is.
    pub(crate) fn port_set(&self, reply: &Tuple) -> PortSet {
        let hash = Tuple { dport: 0, ..*reply }.long_hash(&self.key);
        PortSet((hash as usize & (PORT_SETS - 1)).wrapping_mul(PORT_WORDS))
    }

    /// Which of the ports around this one connections seem to have, for [`ports::pick()`].
    pub(crate) fn taken(&self, set: PortSet, port: u16) -> u64 {
        self.taken.word(set, port).map_or(0, I64::load) as u64
    }

    /// A connection is about to have a port.
    pub(crate) fn take(&self, set: PortSet, port: u16) {
        self.taken.change(set, port, true);
    }

    /// No connection has it any more.
    pub(crate) fn give_back(&self, set: PortSet, port: u16) {
        self.taken.change(set, port, false);
    }
}
