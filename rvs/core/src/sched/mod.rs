// SPDX-License-Identifier: GPL-2.0-only

//! Schedulers: which destination gets a new connection.
//!
//! C files: `ip_vs_sched.c` and one per scheduler. A scheduler sees its service's destinations as a
//! [`Pool`], an array in list order: **index 0 is the head of the list, the destination added
//! last**, and the new connection as a [`Flow`]. It answers with an index. What it must remember
//! between two picks, it keeps in a [`State`]; dh, sh and mh look into a [`table`] that is made when
//! the configuration changes; lblc and lblcr have a cache that this crate cannot hold, for want of
//! memory: [`lblc`] and [`lblcr`] are what they decide by.
//!
//! The array is a snapshot: a configuration change makes a new one. Whoever publishes it calls
//! [`State::on_change`] with the new array, under the lock under which [`State::pick`] is called
//! with the current one. An index that outlived its array is not an error: it counts as the list
//! head, and no pick ever leaves the array it was given.

mod dh;
mod fo;
pub mod lblc;
pub mod lblcr;
mod lc;
pub mod mh;
mod nq;
mod ovf;
pub mod rr;
mod sed;
mod sh;
pub mod table;
mod twos;
mod wlc;
pub mod wrr;

use crate::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    uapi::svc_flag, //
};
use table::Slot;

/// The destinations of a service, in list order, as a scheduler sees them.
///
/// Weight and counters may change while a scheduler looks.
pub trait Pool {
    /// How many destinations there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of destination `i`; zero means: no new connections. Never negative.
    fn weight(&self, i: usize) -> i32;

    /// Whether destination `i` has more connections than its thresholds allow;
    /// C `IP_VS_DEST_F_OVERLOAD`.
    fn overloaded(&self, i: usize) -> bool;

    /// Active connections of destination `i`.
    fn active(&self, i: usize) -> u32;

    /// All connections of destination `i`, active and inactive; C `totalconns`.
    fn total(&self, i: usize) -> u32;

    /// The table that [`table::fill`] made of these destinations, for the schedulers that have one.
    #[inline]
    fn table(&self) -> &[Slot] {
        &[]
    }
}

/// A new connection, as a scheduler sees it.
pub trait Flow {
    /// The service's address family.
    fn family(&self) -> Family;

    /// The client's address.
    fn client(&self) -> &Addr;

    /// The client's port, in memory order; zero for a protocol without ports.
    fn client_port(&self) -> Be16;

    /// The address that the packet goes to: the service's, or any if it is known by a mark.
    fn target(&self) -> &Addr;

    /// A random number from 0 to `max`, both included; all are equally likely.
    fn random(&self, max: u32) -> u32;
}

/// What a service's flags say to sh and mh.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// If the destination of the client takes no connections, another one is looked for.
    pub fallback: bool,
    /// The client's port is hashed with its address.
    pub port: bool,
}

impl Options {
    /// Those of a service with these flags, of [`svc_flag`].
    #[inline]
    pub const fn from_flags(flags: u32) -> Self {
        Options {
            fallback: flags & svc_flag::SCHED1 != 0,
            port: flags & svc_flag::SCHED2 != 0,
        }
    }
}

/// What a scheduler answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// This destination.
    Dest(usize),
    /// No destination takes connections.
    NoneAvailable,
    /// There are destinations with weight, but all are overloaded. Only wrr tells the difference.
    AllOverloaded,
    /// No destination takes connections, of which nothing is said: lblcr does so for an address that
    /// it does not know.
    NoneSilently,
}

impl Pick {
    /// The destination, if there is one.
    #[inline]
    pub const fn dest(self) -> Option<usize> {
        match self {
            Pick::Dest(i) => Some(i),
            Pick::NoneAvailable | Pick::AllOverloaded | Pick::NoneSilently => None,
        }
    }

    /// What the C module logs (rate limited, after `IPVS: <scheduler>: <service> - `), if there is
    /// no destination. A service without scheduler ([`Kind::None`]) logs nothing.
    pub const fn message(self) -> Option<&'static str> {
        match self {
            Pick::Dest(_) | Pick::NoneSilently => None,
            Pick::NoneAvailable => Some("no destination available"),
            Pick::AllOverloaded => {
                Some("no destination available: all destinations are overloaded")
            }
        }
    }

    #[inline]
    const fn from_option(dest: Option<usize>) -> Self {
        match dest {
            Some(i) => Pick::Dest(i),
            None => Pick::NoneAvailable,
        }
    }
}

/// What happened to a service's destinations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The destination now at this index is new; those after it moved up by one.
    Added(usize),
    /// The destination that was at this index is gone; those after it moved down by one.
    Removed(usize),
    /// The destination at this index was edited.
    Updated(usize),
    /// Anything else: nothing is known about where a destination went.
    Reset,
}

/// A place in the list of destinations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Cursor {
    /// The list head, before the first destination.
    #[default]
    Head,
    /// A destination.
    At(usize),
}

impl Cursor {
    /// Where the same place is after a change; when its destination went away, its predecessor.
    #[inline]
    #[must_use]
    pub const fn moved(self, change: Change) -> Self {
        match (self, change) {
            (Cursor::Head, _) | (_, Change::Reset) => Cursor::Head,
            (Cursor::At(c), Change::Added(i)) if i <= c => Cursor::At(c.saturating_add(1)),
            (Cursor::At(c), Change::Removed(i)) if i <= c => match c.checked_sub(1) {
                Some(c) => Cursor::At(c),
                None => Cursor::Head,
            },
            (Cursor::At(c), _) => Cursor::At(c),
        }
    }

    /// The same place in an array of `len`: a place outside is the head.
    #[inline]
    const fn within(self, len: usize) -> Self {
        match self {
            Cursor::At(c) if c < len => self,
            _ => Cursor::Head,
        }
    }

    /// The index a walk from here starts with.
    #[inline]
    const fn next(self) -> usize {
        match self {
            Cursor::Head => 0,
            Cursor::At(c) => c.saturating_add(1),
        }
    }
}

/// A [`Cursor`] in half a word: a place too far down to be said is the head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place(u32);

impl Place {
    const HEAD: Self = Place(u32::MAX);

    #[inline]
    const fn new(cursor: Cursor) -> Self {
        match cursor {
            Cursor::At(c) if c < u32::MAX as usize => Place(c as u32),
            _ => Place::HEAD,
        }
    }

    #[inline]
    const fn get(self) -> Cursor {
        match self {
            Place::HEAD => Cursor::Head,
            Place(c) => Cursor::At(c as usize),
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Place::HEAD
    }
}

/// Makes [`Kind`], its names, and [`State`] with its dispatch from one table.
///
/// The groups differ in what a choice depends on: `by_load` on the pool, `by_flow` on the flow and
/// the service's flags, too, `cached` on a cache that is kept elsewhere, `stateful` on a state.
macro_rules! schedulers {
    (
        by_load { $( $(#[$ldoc:meta])* $L:ident $lname:literal => $lmod:ident; )* }
        by_flow { $( $(#[$wdoc:meta])* $W:ident $wname:literal => $wmod:ident; )* }
        cached { $( $(#[$cdoc:meta])* $C:ident $cname:literal => $cmod:ident; )* }
        stateful { $( $(#[$fdoc:meta])* $F:ident $fname:literal => $fmod:ident; )* }
    ) => {
        /// The schedulers there are.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind {
            /// No scheduler: a legal choice, that never finds a destination.
            None,
            $( $(#[$ldoc])* $L, )*
            $( $(#[$wdoc])* $W, )*
            $( $(#[$cdoc])* $C, )*
            $( $(#[$fdoc])* $F, )*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[
                Kind::None,
                $( Kind::$L, )*
                $( Kind::$W, )*
                $( Kind::$C, )*
                $( Kind::$F, )*
            ];

            /// The name as netlink carries it.
            pub const fn name(self) -> &'static str {
                match self {
                    Kind::None => "none",
                    $( Kind::$L => $lname, )*
                    $( Kind::$W => $wname, )*
                    $( Kind::$C => $cname, )*
                    $( Kind::$F => $fname, )*
                }
            }

            /// Whether nothing is remembered between two picks, so that they need no lock: see
            /// [`pick_stateless`].
            #[inline]
            pub const fn is_stateless(self) -> bool {
                match self {
                    Kind::None => true,
                    $( Kind::$L => true, )*
                    $( Kind::$W => true, )*
                    $( Kind::$C => false, )*
                    $( Kind::$F => false, )*
                }
            }

            /// Whether choices are remembered for each address: see [`lblc`].
            #[inline]
            pub const fn has_cache(self) -> bool {
                match self {
                    $( Kind::$C => true, )*
                    _ => false,
                }
            }
        }

        /// A scheduler at work for one service.
        #[derive(Clone, Debug)]
        pub enum State {
            /// See [`Kind::None`].
            None,
            $( $(#[$ldoc])* $L, )*
            $( $(#[$wdoc])* $W, )*
            $( $(#[$cdoc])* $C, )*
            $( $(#[$fdoc])* $F($fmod::State), )*
        }

        impl State {
            /// For a service without destinations.
            pub const fn new(kind: Kind) -> Self {
                match kind {
                    Kind::None => State::None,
                    $( Kind::$L => State::$L, )*
                    $( Kind::$W => State::$W, )*
                    $( Kind::$C => State::$C, )*
                    $( Kind::$F => State::$F($fmod::State::new()), )*
                }
            }

            /// Which scheduler this is.
            #[inline]
            pub const fn kind(&self) -> Kind {
                match self {
                    State::None => Kind::None,
                    $( State::$L => Kind::$L, )*
                    $( State::$W => Kind::$W, )*
                    $( State::$C => Kind::$C, )*
                    $( State::$F(_) => Kind::$F, )*
                }
            }

            /// Chooses a destination for a new connection; for a scheduler with a cache, as if that
            /// were empty.
            #[inline]
            pub fn pick<P: Pool + ?Sized>(
                &mut self,
                pool: &P,
                flow: &impl Flow,
                options: Options,
            ) -> Pick {
                match self {
                    State::None => Pick::NoneAvailable,
                    $( State::$L => $lmod::pick(pool), )*
                    $( State::$W => $wmod::pick(pool, flow, options), )*
                    $( State::$C => $cmod::pick(pool), )*
                    $( State::$F(state) => state.pick(pool), )*
                }
            }

            /// Takes note of a configuration change, of which `pool` is the outcome; C
            /// `add_dest()`, `del_dest()`, `upd_dest()`.
            pub fn on_change<P: Pool + ?Sized>(&mut self, change: Change, pool: &P) {
                match self {
                    State::None => {}
                    $( State::$L => {} )*
                    $( State::$W => {} )*
                    $( State::$C => {} )*
                    $( State::$F(state) => state.on_change(change, pool), )*
                }
            }
        }

        /// Chooses a destination, if `kind` remembers nothing and therefore needs no lock to do so.
        #[inline]
        pub fn pick_stateless<P: Pool + ?Sized>(
            kind: Kind,
            pool: &P,
            flow: &impl Flow,
            options: Options,
        ) -> Option<Pick> {
            match kind {
                Kind::None => Some(Pick::NoneAvailable),
                $( Kind::$L => Some($lmod::pick(pool)), )*
                $( Kind::$W => Some($wmod::pick(pool, flow, options)), )*
                $( Kind::$C => None, )*
                $( Kind::$F => None, )*
            }
        }
    };
}

schedulers! {
    by_load {
        /// Least connections.
        Lc "lc" => lc;
        /// Weighted least connections, what ipvsadm uses by default.
        Wlc "wlc" => wlc;
        /// Shortest expected delay.
        Sed "sed" => sed;
        /// Never queue: an idle destination, else shortest expected delay.
        Nq "nq" => nq;
        /// Weighted failover: all to the highest weight.
        Fo "fo" => fo;
        /// Weighted overflow: to the highest weight until it has that many connections.
        Ovf "ovf" => ovf;
    }
    by_flow {
        /// The better one of two random choices.
        Twos "twos" => twos;
        /// Destination hashing: an address always goes to the same destination.
        Dh "dh" => dh;
        /// Source hashing: a client always goes to the same destination.
        Sh "sh" => sh;
        /// Maglev hashing: as source hashing, and a change of destinations moves few clients.
        Mh "mh" => mh;
    }
    cached {
        /// Locality-based least connections: an address stays with a destination while that is not
        /// overloaded.
        Lblc "lblc" => lblc;
        /// The same with replication: an address stays with a set of destinations.
        Lblcr "lblcr" => lblcr;
    }
    stateful {
        /// Round robin.
        Rr "rr" => rr;
        /// Weighted round robin.
        Wrr "wrr" => wrr;
    }
}

impl Kind {
    /// The scheduler of a name, without NUL.
    pub fn by_name(name: &[u8]) -> Option<Kind> {
        Kind::ALL
            .iter()
            .copied()
            .find(|kind| kind.name().as_bytes() == name)
    }
}

impl State {
    /// For a service that has destinations; C `init_service()`.
    pub fn with_pool<P: Pool + ?Sized>(kind: Kind, pool: &P) -> Self {
        let mut state = State::new(kind);
        state.on_change(Change::Reset, pool);
        state
    }
}

/// Whether destination `i` takes connections.
#[inline]
fn eligible<P: Pool + ?Sized>(pool: &P, i: usize) -> bool {
    !pool.overloaded(i) && pool.weight(i) > 0
}

/// Load of a destination: an active connection counts 257 times, an inactive one once; C
/// `ip_vs_dest_conn_overhead()`.
///
/// C computes this in an `int`, which turns negative at 2^23 active connections and so draws all
/// new ones; here it stays at the top from 2^24.
#[inline]
fn overhead<P: Pool + ?Sized>(pool: &P, i: usize) -> u32 {
    pool.active(i)
        .saturating_mul(256)
        .saturating_add(pool.total(i))
}

/// A weight as a factor.
#[inline]
fn factor(weight: i32) -> u64 {
    u64::from(weight.max(0).unsigned_abs())
}

/// Whether `load / weight` of the first is strictly more than that of the second, by cross
/// multiplication. The products stay below 2^63.
#[inline]
fn heavier((load, weight): (u32, i32), (other_load, other_weight): (u32, i32)) -> bool {
    u64::from(load).wrapping_mul(factor(other_weight))
        > u64::from(other_load).wrapping_mul(factor(weight))
}

/// The first destination with the least `cost / weight`: what wlc and sed have in common.
#[inline]
fn least_weighted<P: Pool + ?Sized>(pool: &P, cost: impl Fn(usize) -> u32) -> Pick {
    Pick::from_option(least_weighted_of(pool, cost, |_| true))
}

/// The same among those that `wanted` says.
#[inline]
fn least_weighted_of<P: Pool + ?Sized>(
    pool: &P,
    cost: impl Fn(usize) -> u32,
    wanted: impl Fn(usize) -> bool,
) -> Option<usize> {
    let len = pool.len();
    let first = (0..len).find(|&i| eligible(pool, i) && wanted(i))?;

    let mut least = first;
    let mut least_cost = cost(first);
    for i in first.saturating_add(1)..len {
        if pool.overloaded(i) {
            continue;
        }
        // A weight of zero never wins: nothing is strictly more than infinite load.
        let i_cost = cost(i);
        if heavier((least_cost, pool.weight(least)), (i_cost, pool.weight(i))) && wanted(i) {
            least = i;
            least_cost = i_cost;
        }
    }
    Some(least)
}

/// The first destination of the highest weight above zero, among those that `wanted` says.
#[inline]
fn heaviest<P: Pool + ?Sized>(pool: &P, wanted: impl Fn(usize, i32) -> bool) -> Pick {
    let mut best = None;
    let mut best_weight = 0;
    for i in 0..pool.len() {
        let weight = pool.weight(i);
        if weight > best_weight && !pool.overloaded(i) && wanted(i, weight) {
            best = Some(i);
            best_weight = weight;
        }
    }
    Pick::from_option(best)
}

/// Greatest common divisor; of zero and a number, that number.
fn gcd(mut a: i32, mut b: i32) -> i32 {
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}
