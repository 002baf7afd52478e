// SPDX-License-Identifier: GPL-2.0-only

//! Schedulers: known answers, and every one of them against a slow model.
//!
//! The models walk a list of destinations with a place in it, step by step, as the description in
//! the C files has it; the code under test works on indices and skips what must fail.

use proptest::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    sched::{
        lblc,
        lblcr::{
            self,
            Set, //
        },
        pick_stateless,
        table::{
            self,
            Planned,
            Slot, //
        },
        Change,
        Cursor,
        Flow,
        Kind,
        Options,
        Pick,
        Pool,
        State, //
    }, //
};
use std::cell::RefCell;

/// A destination, with a name to follow it through changes.
#[derive(Clone, Debug)]
struct Dest {
    id: u32,
    weight: i32,
    overloaded: bool,
    active: u32,
    total: u32,
}

#[derive(Clone, Debug, Default)]
struct List(Vec<Dest>, Vec<Slot>);

impl List {
    fn of(dests: Vec<Dest>) -> Self {
        List(dests, Vec::new())
    }

    /// With the table that `kind` wants.
    fn tabled(&self, kind: Kind) -> Self {
        let dests = self.0.clone();
        let mut table = vec![table::EMPTY; table::size(kind).unwrap_or(0)];
        let mut scratch = vec![Default::default(); table::scratch(kind, dests.len())];
        let addrs: Vec<_> = dests.iter().map(|d| Addr::v4(d.id.to_be())).collect();
        let plan = dests.iter().zip(&addrs).map(|(d, addr)| Planned {
            addr,
            port: 0,
            weight: d.weight,
            last_weight: d.weight,
        });
        table::fill(kind, Family::V4, plan, &mut table, &mut scratch);
        List(dests, table)
    }
}

/// A connection of which only the random numbers matter; the last of them again and again.
#[derive(Debug, Default)]
struct Draws(RefCell<Vec<u32>>);

impl Draws {
    fn new(draws: &[u32]) -> Self {
        Draws(RefCell::new(draws.iter().rev().copied().collect()))
    }
}

impl Flow for Draws {
    fn family(&self) -> Family {
        Family::V4
    }
    fn client(&self) -> &Addr {
        &Addr::ZERO
    }
    fn client_port(&self) -> Be16 {
        0
    }
    fn target(&self) -> &Addr {
        &Addr::ZERO
    }
    fn random(&self, max: u32) -> u32 {
        let mut draws = self.0.borrow_mut();
        let draw = if draws.len() > 1 {
            draws.pop().unwrap()
        } else {
            draws.first().copied().unwrap_or(0)
        };
        // Whatever a test draws, it is in the range.
        match max.checked_add(1) {
            Some(n) => draw % n,
            None => draw,
        }
    }
}

/// What sh and mh need to find a destination wherever there is one.
const FALLBACK: Options = Options {
    fallback: true,
    port: false,
};

impl Pool for List {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn weight(&self, i: usize) -> i32 {
        self.0[i].weight
    }
    fn overloaded(&self, i: usize) -> bool {
        self.0[i].overloaded
    }
    fn active(&self, i: usize) -> u32 {
        self.0[i].active
    }
    fn total(&self, i: usize) -> u32 {
        self.0[i].total
    }
    fn table(&self) -> &[Slot] {
        &self.1
    }
}

/// Destinations whose id is even are gone from their service.
impl Set for List {
    fn available(&self, i: usize) -> bool {
        self.0[i].id % 2 != 0
    }
}

/// Destinations in list order, of weights; ids are letters from `A`.
fn weights(list: &[i32]) -> List {
    List::of(
        list.iter()
            .zip(u32::from('A')..)
            .map(|(&weight, id)| Dest {
                id,
                weight,
                overloaded: false,
                active: 0,
                total: 0,
            })
            .collect(),
    )
}

/// Destinations in list order, of (weight, active, inactive).
fn loads(list: &[(i32, u32, u32)]) -> List {
    let mut pool = weights(&list.iter().map(|l| l.0).collect::<Vec<_>>());
    for (dest, (_, active, inactive)) in pool.0.iter_mut().zip(list) {
        dest.active = *active;
        dest.total = active + inactive;
    }
    pool
}

/// The next `n` picks as letters; `-` for none available, `!` for all overloaded.
fn picks(state: &mut State, pool: &List, n: usize) -> String {
    (0..n)
        .map(|_| match pick(state, pool) {
            Pick::Dest(i) => char::from_u32(pool.0[i].id).unwrap(),
            Pick::NoneAvailable => '-',
            Pick::AllOverloaded => '!',
            Pick::NoneSilently => '.',
        })
        .collect()
}

fn pick(state: &mut State, pool: &List) -> Pick {
    state.pick(pool, &Draws::default(), FALLBACK)
}

fn pick_once(kind: Kind, pool: &List) -> Pick {
    let pool = &pool.tabled(kind);
    let pick = pick(&mut State::with_pool(kind, pool), pool);
    let stateless = pick_stateless(kind, pool, &Draws::default(), FALLBACK);
    if let Some(stateless) = stateless {
        assert_eq!(pick, stateless);
    }
    assert_eq!(stateless.is_some(), kind.is_stateless());
    pick
}

#[test]
fn names() {
    for kind in Kind::ALL {
        assert_eq!(Kind::by_name(kind.name().as_bytes()), Some(*kind));
        assert_eq!(State::new(*kind).kind(), *kind);
    }
    let names: Vec<_> = Kind::ALL.iter().map(|k| k.name()).collect();
    assert_eq!(names[0], "none");
    for name in [
        "rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "twos", "dh", "sh", "mh", "lblc",
        "lblcr",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert_eq!(names.len(), 15);
    assert_eq!(Kind::by_name(b""), None);
    assert_eq!(Kind::by_name(b"RR"), None);
    assert_eq!(Kind::by_name(b"rr\0"), None);
    assert_eq!(Kind::by_name(b"wrrr"), None);
}

#[test]
fn messages_are_those_of_the_c_module() {
    assert_eq!(Pick::Dest(0).message(), None);
    assert_eq!(Pick::NoneSilently.message(), None);
    assert_eq!(
        Pick::NoneAvailable.message(),
        Some("no destination available")
    );
    assert_eq!(
        Pick::AllOverloaded.message(),
        Some("no destination available: all destinations are overloaded")
    );
}

#[test]
fn empty_pool() {
    let pool = List::default();
    for kind in Kind::ALL {
        assert_eq!(pick_once(*kind, &pool), Pick::NoneAvailable, "{kind:?}");
    }
}

#[test]
fn weight_zero_and_overload_are_left_out() {
    for kind in Kind::ALL.iter().skip(1) {
        if *kind == Kind::Dh {
            // It knows no fallback, nor does it look at weights beforehand.
            continue;
        }
        let mut pool = weights(&[0, 0, 5, 0]);
        assert_eq!(pick_once(*kind, &pool), Pick::Dest(2), "{kind:?}");

        pool.0[2].overloaded = true;
        let none = match kind {
            Kind::Wrr => Pick::AllOverloaded,
            _ => Pick::NoneAvailable,
        };
        assert_eq!(pick_once(*kind, &pool), none, "{kind:?}");

        let pool = weights(&[0, 0]);
        assert_eq!(pick_once(*kind, &pool), Pick::NoneAvailable, "{kind:?}");
    }
    assert_eq!(pick_once(Kind::None, &weights(&[1])), Pick::NoneAvailable);
}

#[test]
fn rr_goes_round_in_list_order() {
    let pool = weights(&[1, 9, 0, 4]);
    let mut state = State::with_pool(Kind::Rr, &pool);
    assert_eq!(picks(&mut state, &pool, 7), "ABDABDA");
}

#[test]
fn rr_tries_the_last_one_last() {
    let mut pool = weights(&[1, 1, 1]);
    let mut state = State::with_pool(Kind::Rr, &pool);
    assert_eq!(picks(&mut state, &pool, 2), "AB");
    pool.0[0].weight = 0;
    pool.0[2].overloaded = true;
    assert_eq!(picks(&mut state, &pool, 2), "BB");
    pool.0[1].weight = 0;
    assert_eq!(picks(&mut state, &pool, 1), "-");
    pool.0[0].weight = 1;
    assert_eq!(picks(&mut state, &pool, 1), "A");
}

#[test]
fn rr_steps_back_when_its_destination_is_deleted() {
    let mut pool = weights(&[1, 1, 1, 1]);
    let mut state = State::with_pool(Kind::Rr, &pool);
    assert_eq!(picks(&mut state, &pool, 2), "AB");
    pool.0.remove(1);
    state.on_change(Change::Removed(1), &pool);
    assert_eq!(picks(&mut state, &pool, 1), "C");

    // The first one: back to the head.
    let mut pool = weights(&[1, 1, 1]);
    let mut state = State::with_pool(Kind::Rr, &pool);
    assert_eq!(picks(&mut state, &pool, 1), "A");
    pool.0.remove(0);
    state.on_change(Change::Removed(0), &pool);
    assert_eq!(picks(&mut state, &pool, 3), "BCB");
}

#[test]
fn rr_follows_its_destination() {
    let mut pool = weights(&[1, 1, 1]);
    let mut state = State::with_pool(Kind::Rr, &pool);
    assert_eq!(picks(&mut state, &pool, 2), "AB");
    // A new one goes to the head, before the place, and is reached after the end.
    pool.0.insert(
        0,
        Dest {
            id: u32::from('N'),
            ..pool.0[0].clone()
        },
    );
    state.on_change(Change::Added(0), &pool);
    assert_eq!(picks(&mut state, &pool, 5), "CNABC");
    // Edits do not matter.
    state.on_change(Change::Updated(2), &pool);
    assert_eq!(picks(&mut state, &pool, 2), "NA");
}

#[test]
fn wrr_interleaves() {
    // 4, 3, 2: the example of every text on it.
    let pool = weights(&[4, 3, 2]);
    let mut state = State::with_pool(Kind::Wrr, &pool);
    assert_eq!(picks(&mut state, &pool, 18), "AABABCABCAABABCABC");

    // A common divisor shortens the cycle but not the shares.
    let pool = weights(&[8, 6, 4]);
    let mut state = State::with_pool(Kind::Wrr, &pool);
    assert_eq!(picks(&mut state, &pool, 18), "AABABCABCAABABCABC");

    let pool = weights(&[1, 1, 1]);
    let mut state = State::with_pool(Kind::Wrr, &pool);
    assert_eq!(picks(&mut state, &pool, 6), "ABCABC");

    let pool = weights(&[0, 1, 0, 2]);
    let mut state = State::with_pool(Kind::Wrr, &pool);
    assert_eq!(picks(&mut state, &pool, 6), "DBDDBD");
}

#[test]
fn wrr_numbers() {
    let numbers = |pool: &List| match State::with_pool(Kind::Wrr, pool) {
        State::Wrr(state) => state.numbers(),
        _ => unreachable!(),
    };
    // (cw, mw, di)
    assert_eq!(numbers(&weights(&[])), (0, 0, 1));
    assert_eq!(numbers(&weights(&[0, 0])), (0, 0, 1));
    assert_eq!(numbers(&weights(&[4, 3, 2])), (4, 4, 1));
    assert_eq!(numbers(&weights(&[8, 6, 4])), (7, 7, 2));
    assert_eq!(numbers(&weights(&[10])), (1, 1, 10));
    assert_eq!(numbers(&weights(&[i32::MAX, 1])), (i32::MAX, i32::MAX, 1));
    assert_eq!(numbers(&weights(&[i32::MAX])), (1, 1, i32::MAX));
}

#[test]
fn wrr_change_starts_the_list_over_and_keeps_the_threshold() {
    let mut pool = weights(&[4, 3, 2]);
    let mut state = State::with_pool(Kind::Wrr, &pool);
    // cw is 3 now, the place B.
    assert_eq!(picks(&mut state, &pool, 3), "AAB");
    pool.0[2].weight = 3;
    state.on_change(Change::Updated(2), &pool);
    assert_eq!(picks(&mut state, &pool, 4), "ABCA");

    // Lower than the threshold: that starts from the top.
    let mut pool = weights(&[9, 1]);
    let mut state = State::with_pool(Kind::Wrr, &pool);
    pool.0[0].weight = 2;
    state.on_change(Change::Updated(0), &pool);
    assert_eq!(picks(&mut state, &pool, 6), "AABAAB");
}

#[test]
fn wrr_does_not_count_down_from_a_heavy_overloaded_one() {
    // 2^31 walks in C.
    let mut pool = weights(&[i32::MAX, 1, 1]);
    pool.0[0].overloaded = true;
    let mut state = State::with_pool(Kind::Wrr, &pool);
    assert_eq!(picks(&mut state, &pool, 4), "BCBC");
    pool.0[1].overloaded = true;
    pool.0[2].overloaded = true;
    assert_eq!(picks(&mut state, &pool, 2), "!!");
    pool.0[1].overloaded = false;
    assert_eq!(picks(&mut state, &pool, 2), "BB");
}

#[test]
fn lc_ignores_weights() {
    assert_eq!(
        pick_once(Kind::Lc, &loads(&[(1, 1, 0), (9, 1, 0)])),
        Pick::Dest(0)
    );
    assert_eq!(
        pick_once(Kind::Lc, &loads(&[(9, 2, 0), (1, 1, 0)])),
        Pick::Dest(1)
    );
    // One active connection is worth 257 inactive ones: 256 for being active, one for being there.
    assert_eq!(
        pick_once(Kind::Lc, &loads(&[(1, 1, 0), (1, 0, 256)])),
        Pick::Dest(1)
    );
    assert_eq!(
        pick_once(Kind::Lc, &loads(&[(1, 1, 0), (1, 0, 257)])),
        Pick::Dest(0)
    );
    assert_eq!(
        pick_once(Kind::Lc, &loads(&[(1, 1, 0), (1, 0, 258)])),
        Pick::Dest(0)
    );
}

#[test]
fn wlc_divides_by_weight() {
    assert_eq!(
        pick_once(Kind::Wlc, &loads(&[(1, 1, 0), (2, 1, 0)])),
        Pick::Dest(1)
    );
    // Equal: first in the list.
    assert_eq!(
        pick_once(Kind::Wlc, &loads(&[(1, 1, 0), (2, 2, 0)])),
        Pick::Dest(0)
    );
    assert_eq!(
        pick_once(Kind::Wlc, &loads(&[(0, 0, 0), (2, 2, 0), (0, 0, 0)])),
        Pick::Dest(1)
    );
    // Without connections all are equal.
    assert_eq!(
        pick_once(Kind::Wlc, &loads(&[(1, 0, 0), (100, 0, 0)])),
        Pick::Dest(0)
    );
}

#[test]
fn sed_prefers_the_faster() {
    assert_eq!(
        pick_once(Kind::Sed, &loads(&[(1, 0, 0), (2, 0, 0)])),
        Pick::Dest(1)
    );
    assert_eq!(
        pick_once(Kind::Sed, &loads(&[(1, 0, 9), (2, 1, 0)])),
        Pick::Dest(0)
    );
    assert_eq!(
        pick_once(Kind::Sed, &loads(&[(1, 0, 0), (3, 1, 0)])),
        Pick::Dest(1)
    );
}

#[test]
fn nq_prefers_the_idle() {
    assert_eq!(
        pick_once(Kind::Nq, &loads(&[(100, 1, 0), (1, 0, 9)])),
        Pick::Dest(1)
    );
    assert_eq!(
        pick_once(Kind::Nq, &loads(&[(1, 1, 0), (100, 1, 0)])),
        Pick::Dest(1)
    );
    assert_eq!(
        pick_once(Kind::Nq, &loads(&[(1, 0, 0), (100, 0, 0)])),
        Pick::Dest(0)
    );
}

#[test]
fn fo_and_ovf_prefer_the_heaviest() {
    let pool = loads(&[(1, 0, 0), (5, 5, 0), (5, 0, 0)]);
    assert_eq!(pick_once(Kind::Fo, &pool), Pick::Dest(1));
    assert_eq!(pick_once(Kind::Ovf, &pool), Pick::Dest(1));
    let pool = loads(&[(1, 0, 0), (5, 6, 0), (5, 0, 0)]);
    assert_eq!(pick_once(Kind::Fo, &pool), Pick::Dest(1));
    assert_eq!(pick_once(Kind::Ovf, &pool), Pick::Dest(2));
    let pool = loads(&[(1, 2, 0), (5, 6, 0)]);
    assert_eq!(pick_once(Kind::Ovf, &pool), Pick::NoneAvailable);
    assert_eq!(
        pick_once(Kind::Ovf, &loads(&[(1, u32::MAX, 0)])),
        Pick::NoneAvailable
    );
}

#[test]
fn twos_takes_the_better_of_two() {
    let twos = |pool: &List, draws: &[u32]| {
        State::new(Kind::Twos).pick(pool, &Draws::new(draws), Options::default())
    };
    // Weights 2, 0, 3, 4 add up to 9. The first one has the draws 0 to 2, one more than its weight.
    let pool = loads(&[(2, 3, 0), (0, 0, 0), (3, 2, 0), (4, 1, 0)]);
    for (draw, dest) in [0, 0, 0, 2, 2, 2, 3, 3, 3, 3].into_iter().enumerate() {
        let draw = draw as u32;
        assert_eq!(twos(&pool, &[draw, draw]), Pick::Dest(dest), "{draw}");
    }
    // The less loaded one by weight, whichever was drawn first.
    assert_eq!(twos(&pool, &[0, 9]), Pick::Dest(3));
    assert_eq!(twos(&pool, &[9, 0]), Pick::Dest(3));
    // The first draw of equals.
    let pool = loads(&[(2, 2, 0), (3, 3, 0)]);
    assert_eq!(twos(&pool, &[0, 5]), Pick::Dest(0));
    assert_eq!(twos(&pool, &[5, 0]), Pick::Dest(1));

    // The sum of these overflows in C.
    let pool = loads(&[(i32::MAX, 9, 0), (i32::MAX, 5, 0), (i32::MAX, 7, 0)]);
    assert_eq!(twos(&pool, &[0, 3_221_225_470]), Pick::Dest(2));
    assert_eq!(twos(&pool, &[0, 1 << 30]), Pick::Dest(1));
}

#[test]
fn lblc_moves_only_to_the_idle() {
    // Active connections above the weight, and another destination with less than half of its own.
    let overloaded = |list: &[(i32, u32, u32)]| lblc::is_overloaded(&loads(list), 0);
    assert!(!overloaded(&[(5, 5, 0), (4, 1, 0)]));
    assert!(overloaded(&[(5, 6, 0), (4, 1, 0)]));
    assert!(!overloaded(&[(5, 6, 0), (4, 2, 0)]));
    assert!(overloaded(&[(5, 6, 0), (4, 2, 0), (1, 0, 0)]));
    assert!(!overloaded(&[(5, 6, 0), (0, 0, 0)]));
    assert!(!overloaded(&[(5, 6, 9)]));
    assert!(overloaded(&[(0, u32::MAX, 0), (1, 0, 0)]));
    assert!(!overloaded(&[
        (i32::MAX, u32::MAX, 0),
        (i32::MAX, u32::MAX / 2, 0)
    ]));
}

#[test]
fn lblc_clears_its_cache() {
    use lblc::Clearing;

    // A small cache: only every 30th time.
    let mut clock = lblc::Clock::new();
    for _ in 0..3 {
        for _ in 0..29 {
            assert_eq!(clock.tick(lblc::LARGE), Clearing::None);
        }
        assert_eq!(clock.tick(lblc::LARGE), Clearing::Expired);
    }
    // A large one: every time, without counting.
    for _ in 0..100 {
        assert_eq!(clock.tick(lblc::LARGE + 1), Clearing::Idle(1));
    }
    assert_eq!(clock.tick(lblc::LARGE + 300), Clearing::Idle(400));
    assert_eq!(clock.tick(lblc::MOST), Clearing::Idle(8192));
    assert_eq!(clock.tick(u32::MAX), Clearing::Idle(8192));
    assert_eq!(lblc::MOST, 24_576);

    assert_eq!(lblc::overdue(100, 90, 11), -1);
    assert_eq!(lblc::overdue(100, 90, 10), 0);
    assert_eq!(lblc::overdue(5, u32::MAX - 4, 9), 1);
    // A negative period is always over.
    assert!(lblc::overdue(100, 100, -1) > 0);
    assert!(lblc::overdue(100, 90, i32::MAX) < 0);
}

#[test]
fn lblcr_sets() {
    // Ids from `A`, which is odd: B and D are gone.
    let set = loads(&[(1, 3, 0), (9, 0, 0), (1, 2, 0), (9, 0, 0), (2, 4, 0)]);
    assert_eq!(lblcr::least(&set), Some(2));
    assert_eq!(lblcr::most(&set), Some(0));
    // Weight zero is never taken, nor taken away.
    let set = loads(&[(0, 9, 0), (1, 1, 0)]);
    assert_eq!(lblcr::least(&set), None);
    assert_eq!(lblcr::most(&set), Some(1));
    // Overload keeps new connections away, not from being taken away.
    let mut set = loads(&[(1, 9, 0), (1, 8, 0), (1, 1, 0)]);
    set.0[2].overloaded = true;
    assert_eq!(lblcr::least(&set), Some(0));
    assert_eq!(lblcr::most(&set), Some(0));
    assert_eq!(lblcr::least(&List::default()), None);
    assert_eq!(lblcr::most(&List::default()), None);
    // The first of equals.
    let set = loads(&[(2, 4, 0), (9, 0, 0), (1, 2, 0)]);
    assert_eq!(lblcr::least(&set), Some(0));
    assert_eq!(lblcr::most(&set), Some(0));
}

#[test]
fn huge_loads_do_not_overflow() {
    let huge = loads(&[(i32::MAX, 1 << 31, 1 << 30), (i32::MAX, u32::MAX, 0)]);
    assert_eq!(pick_once(Kind::Lc, &huge), Pick::Dest(0));
    assert_eq!(pick_once(Kind::Wlc, &huge), Pick::Dest(0));
    assert_eq!(pick_once(Kind::Sed, &huge), Pick::Dest(0));
    assert_eq!(pick_once(Kind::Nq, &huge), Pick::Dest(0));
    assert_eq!(pick_once(Kind::Twos, &huge), Pick::Dest(0));
    assert_eq!(lblcr::least(&huge), Some(0));
}

#[test]
fn cursor_moves() {
    use Cursor::{
        At,
        Head, //
    };
    for change in [
        Change::Added(0),
        Change::Removed(0),
        Change::Updated(0),
        Change::Reset,
    ] {
        assert_eq!(Head.moved(change), Head);
    }
    assert_eq!(At(3).moved(Change::Reset), Head);
    assert_eq!(At(3).moved(Change::Updated(3)), At(3));
    assert_eq!(At(3).moved(Change::Added(0)), At(4));
    assert_eq!(At(3).moved(Change::Added(3)), At(4));
    assert_eq!(At(3).moved(Change::Added(4)), At(3));
    assert_eq!(At(3).moved(Change::Removed(4)), At(3));
    assert_eq!(At(3).moved(Change::Removed(3)), At(2));
    assert_eq!(At(3).moved(Change::Removed(0)), At(2));
    assert_eq!(At(0).moved(Change::Removed(0)), Head);
}

#[test]
fn a_place_that_outlived_its_list_is_the_head() {
    let pool = weights(&[1, 1, 1]);
    for kind in [Kind::Rr, Kind::Wrr] {
        let mut state = State::with_pool(kind, &pool);
        assert_eq!(picks(&mut state, &pool, 3), "ABC");
        let short = weights(&[1]);
        assert_eq!(picks(&mut state, &short, 2), "AA");
        assert!(pick(&mut state, &List::default()).dest().is_none());
    }
}

/// Slow models. They know destinations by id, and the head of the list by `None`.
mod model {
    use super::*;

    /// What comes after a place: the next destination, or nothing at the end of the list.
    fn after(list: &List, place: Option<u32>) -> Option<u32> {
        let at = match place {
            None => 0,
            Some(id) => list.0.iter().position(|d| d.id == id).unwrap() + 1,
        };
        list.0.get(at).map(|d| d.id)
    }

    fn dest(list: &List, id: u32) -> &Dest {
        list.0.iter().find(|d| d.id == id).unwrap()
    }

    #[derive(Clone, Debug, Default)]
    pub(super) struct Rr {
        pub(super) last: Option<u32>,
    }

    impl Rr {
        pub(super) fn pick(&mut self, list: &List) -> Option<u32> {
            let mut place = self.last;
            for _pass in 0..2 {
                while let Some(id) = after(list, place) {
                    place = Some(id);
                    let d = dest(list, id);
                    if !d.overloaded && d.weight > 0 {
                        self.last = place;
                        return place;
                    }
                    if place == self.last {
                        return None;
                    }
                }
                place = None;
                if self.last.is_none() {
                    break;
                }
            }
            None
        }

        pub(super) fn deleted(&mut self, before: &List, id: u32) {
            if self.last == Some(id) {
                let at = before.0.iter().position(|d| d.id == id).unwrap();
                self.last = at.checked_sub(1).map(|p| before.0[p].id);
            }
        }
    }

    #[derive(Clone, Debug)]
    pub(super) struct Wrr {
        pub(super) last: Option<u32>,
        pub(super) cw: i32,
        pub(super) mw: i32,
        pub(super) di: i32,
    }

    impl Wrr {
        pub(super) fn new() -> Self {
            Wrr {
                last: None,
                cw: 0,
                mw: 0,
                di: 1,
            }
        }

        pub(super) fn changed(&mut self, list: &List) {
            let mut g = 0;
            let mut max = 0;
            for d in &list.0 {
                if d.weight > 0 {
                    // By trial.
                    g = if g == 0 {
                        d.weight
                    } else {
                        (1..=g)
                            .rev()
                            .find(|c| g % c == 0 && d.weight % c == 0)
                            .unwrap()
                    };
                }
                max = max.max(d.weight);
            }
            self.last = None;
            self.di = g.max(1);
            self.mw = max - (self.di - 1);
            if self.cw > self.mw || self.cw == 0 {
                self.cw = self.mw;
            } else if self.di > 1 {
                self.cw = (self.cw / self.di) * self.di + 1;
            }
        }

        /// `Err(true)`: all overloaded.
        pub(super) fn pick(&mut self, list: &List) -> Result<u32, bool> {
            if self.mw == 0 {
                return Err(false);
            }
            let start = self.last;
            let mut place = start;
            let mut stop = None;
            let (mut last_pass, mut restarted) = (false, false);
            loop {
                while let Some(id) = after(list, place) {
                    place = Some(id);
                    let d = dest(list, id);
                    if !d.overloaded && d.weight >= self.cw {
                        self.last = place;
                        return Ok(id);
                    }
                    if place == stop {
                        self.last = place;
                        return Err(true);
                    }
                }
                place = None;
                self.cw -= self.di;
                if self.cw <= 0 {
                    self.cw = self.mw;
                    if last_pass || start.is_none() {
                        self.last = None;
                        return Err(true);
                    }
                    restarted = true;
                }
                last_pass = self.cw <= self.di;
                if last_pass && restarted && start.is_some() {
                    stop = start;
                }
            }
        }
    }

    /// Two draws, each a walk down the list that subtracts weights.
    pub(super) fn twos(list: &List, draws: [u32; 2]) -> Option<u32> {
        let open: Vec<&Dest> = list
            .0
            .iter()
            .filter(|d| !d.overloaded && d.weight > 0)
            .collect();
        let sum: i128 = open.iter().map(|d| i128::from(d.weight)).sum();
        let [first, second] = draws.map(|draw| {
            let mut rest = i128::from(draw) % (sum + 1);
            open.iter().find(|d| {
                rest -= i128::from(d.weight);
                rest <= 0
            })
        });
        let load = |d: &Dest| i128::from(d.active) * 256 + i128::from(d.total);
        let (first, second) = (first?, second?);
        let second_wins =
            i128::from(second.weight) * load(first) > i128::from(first.weight) * load(second);
        Some(if second_wins { second.id } else { first.id })
    }

    /// The least loaded of a set, by weight.
    pub(super) fn least(set: &List) -> Option<usize> {
        let good = |d: &Dest| d.weight > 0 && !d.overloaded && d.id % 2 != 0;
        extreme(set, good, false)
    }

    /// The most loaded of a set, by weight.
    pub(super) fn most(set: &List) -> Option<usize> {
        extreme(set, |d| d.weight > 0, true)
    }

    fn extreme(set: &List, good: impl Fn(&Dest) -> bool, most: bool) -> Option<usize> {
        let load = |d: &Dest| i128::from(d.active) * 256 + i128::from(d.total);
        let mut best: Option<usize> = None;
        for (i, d) in set.0.iter().enumerate().filter(|(_, d)| good(d)) {
            let better = best.is_none_or(|b| {
                let b = &set.0[b];
                let (mine, its) = (
                    load(d) * i128::from(b.weight),
                    load(b) * i128::from(d.weight),
                );
                if most {
                    mine > its
                } else {
                    mine < its
                }
            });
            if better {
                best = Some(i);
            }
        }
        best
    }

    /// Whether the destination at an index has too much, while another has next to nothing.
    pub(super) fn is_overloaded(list: &List, i: usize) -> bool {
        let d = &list.0[i];
        if i128::from(d.active) <= i128::from(d.weight) {
            return false;
        }
        list.0
            .iter()
            .any(|d| i128::from(d.active) * 2 < i128::from(d.weight))
    }

    /// The stateless ones: the first destination of the best rank, by exact fractions.
    pub(super) fn stateless(kind: Kind, list: &List) -> Option<u32> {
        let open = || list.0.iter().filter(|d| !d.overloaded && d.weight > 0);
        let load = |d: &Dest| i128::from(d.active) * 256 + i128::from(d.total);
        let cost = |d: &Dest| i128::from(d.active) + 1;
        // `min_by` returns the first of equals.
        let least = |f: &dyn Fn(&Dest) -> i128, weighted: bool| {
            open().min_by(|a, b| {
                let (wa, wb) = if weighted {
                    (i128::from(a.weight), i128::from(b.weight))
                } else {
                    (1, 1)
                };
                (f(a) * wb).cmp(&(f(b) * wa))
            })
        };
        match kind {
            Kind::Lc => least(&load, false),
            Kind::Wlc | Kind::Lblc | Kind::Lblcr => least(&load, true),
            Kind::Sed => least(&cost, true),
            Kind::Nq => open()
                .find(|d| d.active == 0)
                .or_else(|| least(&cost, true)),
            // `max_by_key` returns the last of equals.
            Kind::Fo => open().rev().max_by_key(|d| d.weight),
            Kind::Ovf => open()
                .rev()
                .filter(|d| i64::from(d.active) <= i64::from(d.weight))
                .max_by_key(|d| d.weight),
            _ => panic!("{kind:?} has state"),
        }
        .map(|d| d.id)
    }
}

/// Something that happens to a service.
#[derive(Clone, Debug)]
enum Op {
    Add(i32),
    Delete(prop::sample::Index),
    Edit(prop::sample::Index, i32),
    Overload(prop::sample::Index, bool),
    Pick(u8),
}

fn weight() -> impl Strategy<Value = i32> {
    prop_oneof![
        2 => Just(0),
        6 => 1..8_i32,
        2 => (1..8_i32).prop_map(|w| w * 6),
        1 => 1..300_i32,
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => weight().prop_map(Op::Add),
        2 => any::<prop::sample::Index>().prop_map(Op::Delete),
        3 => (any::<prop::sample::Index>(), weight()).prop_map(|(i, w)| Op::Edit(i, w)),
        3 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, o)| Op::Overload(i, o)),
        9 => (1..20_u8).prop_map(Op::Pick),
    ]
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "the models are slow")]
    fn rr_and_wrr_are_as_their_models(ops in prop::collection::vec(op(), 1..80)) {
        let mut list = List::default();
        let mut rr = State::new(Kind::Rr);
        let mut wrr = State::new(Kind::Wrr);
        let mut rr_model = model::Rr::default();
        let mut wrr_model = model::Wrr::new();
        let mut id = 0;

        for op in ops {
            let change = match op {
                Op::Add(weight) => {
                    id += 1;
                    list.0.insert(0, Dest { id, weight, overloaded: false, active: 0, total: 0 });
                    Some(Change::Added(0))
                }
                Op::Delete(_) | Op::Edit(..) | Op::Overload(..) if list.0.is_empty() => None,
                Op::Delete(at) => {
                    let at = at.index(list.0.len());
                    let id = list.0[at].id;
                    rr_model.deleted(&list, id);
                    list.0.remove(at);
                    Some(Change::Removed(at))
                }
                Op::Edit(at, weight) => {
                    let at = at.index(list.0.len());
                    list.0[at].weight = weight;
                    Some(Change::Updated(at))
                }
                Op::Overload(at, overloaded) => {
                    let at = at.index(list.0.len());
                    list.0[at].overloaded = overloaded;
                    None
                }
                Op::Pick(n) => {
                    for _ in 0..n {
                        let picked = pick(&mut rr, &list).dest().map(|i| list.0[i].id);
                        prop_assert_eq!(picked, rr_model.pick(&list));

                        let picked = match pick(&mut wrr, &list) {
                            Pick::Dest(i) => Ok(list.0[i].id),
                            Pick::NoneAvailable => Err(false),
                            Pick::AllOverloaded => Err(true),
                            Pick::NoneSilently => unreachable!(),
                        };
                        prop_assert_eq!(picked, wrr_model.pick(&list));
                        let State::Wrr(state) = &wrr else { unreachable!() };
                        let model = (wrr_model.cw, wrr_model.mw, wrr_model.di);
                        prop_assert_eq!(state.numbers(), model);
                        let place = match state.cursor() {
                            Cursor::Head => None,
                            Cursor::At(i) => Some(list.0[i].id),
                        };
                        prop_assert_eq!(place, wrr_model.last);
                    }
                    None
                }
            };
            if let Some(change) = change {
                rr.on_change(change, &list);
                wrr.on_change(change, &list);
                wrr_model.changed(&list);
            }
        }
    }

    /// Over a whole cycle each destination is chosen exactly as often as its weight says.
    #[test]
    fn wrr_shares_are_exact(list in prop::collection::vec(0..20_i32, 1..8)) {
        let pool = weights(&list);
        let mut state = State::with_pool(Kind::Wrr, &pool);
        let mut counts = vec![0; list.len()];
        let cycle: i32 = list.iter().sum();
        for _ in 0..cycle {
            counts[pick(&mut state, &pool).dest().unwrap()] += 1;
        }
        prop_assert_eq!(counts, list);
    }

    #[test]
    fn stateless_are_as_their_models(
        dests in prop::collection::vec(
            (weight(), any::<bool>(), prop_oneof![0..5_u32, 0..100_000_u32], 0..1000_u32),
            0..12,
        ),
        draws: [u32; 2],
    ) {
        let list = List::of(dests.into_iter().zip(0..).map(|((weight, overloaded, active, inactive), id)| Dest {
            id, weight, overloaded, active, total: active + inactive,
        }).collect());
        for kind in [
            Kind::Lc, Kind::Wlc, Kind::Sed, Kind::Nq, Kind::Fo, Kind::Ovf, Kind::Lblc, Kind::Lblcr,
        ] {
            let picked = pick_once(kind, &list).dest().map(|i| list.0[i].id);
            prop_assert_eq!(picked, model::stateless(kind, &list), "{:?}", kind);
        }
        let picked = State::new(Kind::Twos).pick(&list, &Draws::new(&draws), Options::default());
        prop_assert_eq!(picked.dest().map(|i| list.0[i].id), model::twos(&list, draws));
        for i in 0..list.len() {
            prop_assert_eq!(lblc::is_overloaded(&list, i), model::is_overloaded(&list, i));
        }
        prop_assert_eq!(lblcr::least(&list), model::least(&list));
        prop_assert_eq!(lblcr::most(&list), model::most(&list));
    }

    /// Whatever the numbers, and whether or not anybody reported changes: a pick is in the list, takes
    /// connections, and comes at once.
    #[test]
    fn picks_are_sane(
        before in prop::collection::vec((0..i32::MAX, any::<bool>(), any::<u32>(), any::<u32>()), 0..6),
        after in prop::collection::vec((0..i32::MAX, any::<bool>(), any::<u32>(), any::<u32>()), 0..6),
    ) {
        let list = |v: Vec<(i32, bool, u32, u32)>| List::of(v.into_iter().map(|(weight, overloaded, active, total)| Dest {
            id: 0, weight, overloaded, active, total,
        }).collect());
        let (before, after) = (list(before), list(after));
        for kind in Kind::ALL {
            let mut state = State::with_pool(*kind, &before);
            // One with a table that belongs to other destinations, too.
            let stray = List(after.0.clone(), before.tabled(*kind).1);
            for pool in [&before, &after, &before.tabled(*kind), &after.tabled(*kind), &stray] {
                for _ in 0..5 {
                    if let Some(i) = pick(&mut state, pool).dest() {
                        prop_assert!(i < pool.len());
                        prop_assert!(pool.weight(i) > 0 && !pool.overloaded(i));
                    }
                }
            }
        }
    }
}
