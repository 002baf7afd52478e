// SPDX-License-Identifier: GPL-2.0-only

//! What FullNAT needs of a namespace: which addresses are local ones, and which ports rest.
//!
//! The design is in `docs/fullnat.md`. Pools belong to services ([`crate::service::pool`]); what a connection has of its own
//! is in [`crate::conn`], what happens to packets in [`crate::datapath`].

use crate::{
    conn::Tuple,
    os::{
        net::{
            Handle,
            Net,
            WhileOpen, //
        },
        random,
        rcu::{
            self,
            Held,
            RcuBox,
            RcuCell, //
        },
        slab,
        table::{
            self,
            Node,
            Table,
            Unlinked, //
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
    sort::sort, //
};

/// Where resting ports are allocated.
pub(crate) static CACHE: slab::Cache<Node<Resting>> = slab::Cache::new();

/// How long a port rests towards a real server that may still remember the connection, in seconds: TIME-WAIT of Linux and
/// most others.
const REST_SECS: u32 = 60;
/// How many ports may rest. Beyond, one is used again at once: rising sequence numbers and timestamps make up for it.
const MOST_RESTING: i64 = 1 << 16;
/// Buckets and locks of their table, in bits.
const BUCKET_BITS: u32 = 12;
const STRIPE_BITS: u32 = 6;

/// A local port that is not given to a connection to this real server, for a while. The tuple is that of a reply.
pub(crate) struct Resting(Tuple);

impl table::Entry for Resting {
    fn nodes(&self) -> usize {
        1
    }

    fn hash(&self, _node: usize, key: &table::Key) -> u32 {
        self.0.hash(key)
    }

    fn cache() -> &'static slab::Cache<Node<Self>> {
        &CACHE
    }
}

/// Addresses of a family, as ranges that neither touch nor overlap, in order.
struct Ranges {
    v4: KVec<(u32, u32)>,
    v6: KVec<(u128, u128)>,
}

/// Adds `value` to ranges, to whose last one it may belong.
fn append<T: Copy + PartialOrd>(
    ranges: &mut KVec<(T, T)>,
    value: T,
    follows: impl Fn(T) -> bool,
) -> Result {
    if let Some((_, last)) = ranges.last_mut() {
        if value <= *last {
            return Ok(());
        }
        if follows(*last) {
            *last = value;
            return Ok(());
        }
    }
    Ok(ranges.push((value, value), GFP_KERNEL)?)
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
        let mut this = Self {
            v4: KVec::new(),
            v6: KVec::new(),
        };
        let of_family = || locals.iter().filter(|local| local.family() == family);
        match family {
            Family::V4 => {
                let mut all = KVec::with_capacity(locals.len(), GFP_KERNEL)?;
                for local in of_family() {
                    all.push(local.addr().v4_host(), GFP_KERNEL)?;
                }
                sort(&mut all);
                for addr in all {
                    append(&mut this.v4, addr, |last| addr.checked_sub(1) == Some(last))?;
                }
            }
            Family::V6 => {
                let mut all = KVec::with_capacity(locals.len(), GFP_KERNEL)?;
                for local in of_family() {
                    all.push(v6_number(local.addr()), GFP_KERNEL)?;
                }
                sort(&mut all);
                for addr in all {
                    append(&mut this.v6, addr, |last| addr.checked_sub(1) == Some(last))?;
                }
            }
        }
        RcuBox::new(this, GFP_KERNEL)
    }
}

/// FullNAT in a network namespace.
pub(crate) struct Realm {
    net: WhileOpen,
    key: [u64; 2],
    ranges: PerFamily<RcuCell<Ranges>>,
    resting: Table<Resting>,
}

impl Realm {
    /// Makes it, without any address. May sleep.
    pub(crate) fn new(net: &Handle) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                net: WhileOpen::new(net),
                key: random::bytes16(),
                ranges: PerFamily::new(RcuCell::empty(), RcuCell::empty()),
                resting: Table::new(BUCKET_BITS, STRIPE_BITS, true)?,
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

    /// Lets the local port rest at which this reply would arrive. Does not sleep.
    pub(crate) fn rest(&self, reply: Tuple) {
        if self.resting.count() >= MOST_RESTING {
            return;
        }
        if let Ok(new) = Unlinked::new(Resting(reply)) {
            let deadline = time::jiffies().wrapping_add(HZ.from_secs_u32(REST_SECS));
            rcu::read(|g| {
                self.resting.add(new, deadline, g);
            });
        }
    }

    /// Whether the local port rests at which this reply would arrive.
    pub(crate) fn rests(&self, reply: &Tuple, g: &Held) -> bool {
        self.resting.count() != 0
            && self
                .resting
                .find(reply.hash(self.resting.key()), g, |resting, _| {
                    resting.0 == *reply
                })
                .is_some()
    }

    /// Wakes the ports that have rested. Process context, one caller at a time.
    pub(crate) fn tick(&self) {
        self.resting.expire(time::jiffies());
    }
}
