// SPDX-License-Identifier: GPL-2.0-only

//! The schedulers that hash, bit for bit: dh, sh, mh. Proves checklist items 52, 53 and 54.
//!
//! The golden values come from a program that is not part of rvs and was written after what
//! `ip_vs_dh.c`, `ip_vs_sh.c` and `ip_vs_mh.c` do; the models below go through lists step by step as those do.

use proptest::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    sched::{
        pick_stateless,
        table::{
            self,
            Planned,
            Slot,
            EMPTY, //
        },
        Change,
        Flow,
        Kind,
        Options,
        Pick,
        Pool, //
    },
    siphash::hsiphash_u32, //
};
use std::net::IpAddr;

#[derive(Clone, Debug)]
struct Dest {
    addr: Addr,
    port: u16,
    weight: i32,
    last_weight: i32,
    overloaded: bool,
}

#[derive(Clone, Debug)]
struct List {
    dests: Vec<Dest>,
    table: Vec<Slot>,
}

impl Pool for List {
    fn len(&self) -> usize {
        self.dests.len()
    }
    fn weight(&self, i: usize) -> i32 {
        self.dests[i].weight
    }
    fn overloaded(&self, i: usize) -> bool {
        self.dests[i].overloaded
    }
    fn active(&self, _: usize) -> u32 {
        0
    }
    fn total(&self, _: usize) -> u32 {
        0
    }
    fn table(&self) -> &[Slot] {
        &self.table
    }
}

impl List {
    fn new(kind: Kind, family: Family, dests: Vec<Dest>) -> Self {
        let mut table = vec![EMPTY; table::size(kind).unwrap()];
        let mut scratch = vec![Default::default(); table::scratch(kind, dests.len())];
        let plan = dests.iter().map(|d| Planned {
            addr: &d.addr,
            port: d.port.to_be(),
            weight: d.weight,
            last_weight: d.last_weight,
        });
        table::fill(kind, family, plan, &mut table, &mut scratch);
        List { dests, table }
    }

    fn pick(&self, kind: Kind, client: &Client, options: Options) -> Option<usize> {
        match pick_stateless(kind, self, client, options) {
            Some(Pick::Dest(i)) => Some(i),
            Some(Pick::NoneAvailable) => None,
            other => panic!("{other:?}"),
        }
    }
}

/// A flow between two addresses; sh and mh see the first, dh the second.
#[derive(Clone, Debug)]
struct Client {
    family: Family,
    addr: Addr,
    port: u16,
    target: Addr,
}

impl Flow for Client {
    fn family(&self) -> Family {
        self.family
    }
    fn client(&self) -> &Addr {
        &self.addr
    }
    fn client_port(&self) -> Be16 {
        self.port.to_be()
    }
    fn target(&self) -> &Addr {
        &self.target
    }
    fn random(&self, _: u32) -> u32 {
        panic!("nothing here is random")
    }
}

const PLAIN: Options = Options {
    fallback: false,
    port: false,
};

fn addr(text: &str) -> (Family, Addr) {
    match text.parse().unwrap() {
        IpAddr::V4(a) => (Family::V4, Addr::v4(u32::from_ne_bytes(a.octets()))),
        IpAddr::V6(a) => (Family::V6, Addr::from_bytes(a.octets())),
    }
}

/// A flow that both ends of are this address.
fn client(text: &str, port: u16) -> Client {
    let (family, addr) = addr(text);
    Client {
        family,
        addr,
        port,
        target: addr,
    }
}

fn dests(addrs: impl Fn(usize) -> String, port: u16, weights: &[i32]) -> Vec<Dest> {
    (1..)
        .zip(weights)
        .map(|(i, &weight)| Dest {
            addr: addr(&addrs(i)).1,
            port,
            weight,
            last_weight: weight,
            overloaded: false,
        })
        .collect()
}

fn dests4(weights: &[i32]) -> Vec<Dest> {
    dests(|i| format!("10.8.1.{i}"), 80, weights)
}

fn dests6(weights: &[i32]) -> Vec<Dest> {
    dests(|i| format!("fd08:1::{i:x}"), 8000, weights)
}

/// FNV-1a over the little-endian words of a table.
fn digest(table: &[Slot]) -> u64 {
    let bytes = table.iter().flat_map(|slot| slot.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn counts(list: &List) -> Vec<usize> {
    (0..list.len() as Slot)
        .map(|i| list.table.iter().filter(|slot| **slot == i).count())
        .collect()
}

/// As many destinations as slots: what is chosen is the slot.
fn identity(kind: Kind, family: Family) -> List {
    let n = table::size(kind).unwrap();
    let mut list = List::new(kind, family, dests4(&[1]));
    list.dests = vec![list.dests[0].clone(); n];
    list.table = (0..n as Slot).collect();
    list
}

const ADDRS: [&str; 4] = ["10.0.0.1", "192.0.2.77", "fd00::1", "2001:db8:1:2:3:4:5:6"];

#[test]
fn slots_of_addresses() {
    let port = Options {
        port: true,
        ..PLAIN
    };
    for (kind, plain, with_port) in [
        (Kind::Dh, [39, 58, 140, 124], [39, 58, 140, 124]),
        (Kind::Sh, [39, 58, 140, 124], [203, 222, 48, 32]),
        (Kind::Mh, [3711, 3263, 1014, 735], [2940, 3904, 1129, 3591]),
    ] {
        for (i, text) in ADDRS.into_iter().enumerate() {
            let client = client(text, 40_000);
            let list = identity(kind, client.family);
            assert_eq!(list.pick(kind, &client, PLAIN), Some(plain[i]));
            assert_eq!(list.pick(kind, &client, port), Some(with_port[i]));
        }
    }
}

#[test]
fn dh_tables() {
    for (n, want) in [(3, 0xa90a_e9e7_c28a_4d96), (300, 0x8084_b7f6_c938_af25)] {
        // Weights do not matter.
        let weights: Vec<i32> = (0..n).collect();
        let dests = dests(|i| format!("10.8.1.{}", i % 250), 80, &weights);
        let list = List::new(Kind::Dh, Family::V4, dests);
        assert_eq!(digest(&list.table), want, "{n}");
    }
}

#[test]
fn sh_tables() {
    for (weights, want) in [
        (&[1][..], 0x51d8_8627_df28_7325),
        (&[1, 1, 1], 0xa90a_e9e7_c28a_4d96),
        (&[3, 0, 2], 0x8422_859d_47f1_29f4),
        (&[100, 200, 1], 0xef36_e4a0_3563_6b45),
        (&[1000, 1], 0x51d8_8627_df28_7325),
    ] {
        let list = List::new(Kind::Sh, Family::V4, dests4(weights));
        assert_eq!(digest(&list.table), want, "{weights:?}");
    }
}

#[test]
fn mh_tables() {
    for (weights, v4, v6, want) in [
        (
            &[1, 1, 1][..],
            0xeeeb_73a2_1f14_5425,
            0x60c4_9ed1_e605_2f05,
            &[1365, 1364, 1364][..],
        ),
        (
            &[1, 2, 3, 4, 5],
            0xfa16_19f2_36c7_fef3,
            0x27f1_ae25_2acc_6463,
            &[273, 546, 819, 1092, 1363],
        ),
        (
            &[0, 1, 1],
            0xd405_f623_221c_4784,
            0x8735_84bf_722b_c054,
            &[0, 2047, 2046],
        ),
        (
            &[0, 0],
            0x43cf_afed_75d5_c521,
            0x43cf_afed_75d5_c521,
            &[0, 0],
        ),
        (
            &[1000, 1, 500, 333],
            0x7ed6_59bd_bf7e_bad6,
            0x61e7_d53c_beea_96b6,
            &[2232, 36, 1116, 709],
        ),
        (
            &[64, 1],
            0x21fd_f9e7_f852_7505,
            0x07af_7016_1af6_c515,
            &[3969, 124],
        ),
        (
            &[128, 1],
            0x21fd_f9e7_f852_7505,
            0x07af_7016_1af6_c515,
            &[3969, 124],
        ),
        (
            &[i32::MAX, 1, i32::MAX],
            0xd79f_c885_2a97_a4a5,
            0x68a8_e5e7_9e71_6115,
            &[2045, 32, 2016],
        ),
        (
            &[6, 4, 0, 10],
            0xf525_8fde_e322_36d6,
            0x7966_58c2_4b36_b4f6,
            &[1230, 818, 0, 2045],
        ),
    ] {
        let list = List::new(Kind::Mh, Family::V4, dests4(weights));
        assert_eq!(digest(&list.table), v4, "{weights:?}");
        assert_eq!(counts(&list), want);
        let list = List::new(Kind::Mh, Family::V6, dests6(weights));
        assert_eq!(digest(&list.table), v6, "{weights:?}");
    }
}

#[test]
fn mh_destinations_of_one_hash_share_a_walk() {
    let mut dests = dests4(&[1, 1, 1]);
    for (dest, (text, port)) in
        dests
            .iter_mut()
            .zip([("10.8.1.1", 80), ("10.8.1.0", 81), ("10.8.0.255", 82)])
    {
        dest.addr = addr(text).1;
        dest.port = port;
    }
    let list = List::new(Kind::Mh, Family::V4, dests);
    assert_eq!(digest(&list.table), 0xf1d1_3b64_e959_0305);
    assert_eq!(counts(&list), [1365, 1364, 1364]);
}

#[test]
fn mh_ignores_that_a_weight_is_zero_for_a_while() {
    let before = List::new(Kind::Mh, Family::V4, dests4(&[3, 2, 1]));
    let mut dests = before.dests.clone();
    dests[0].weight = 0;
    let after = List::new(Kind::Mh, Family::V4, dests);
    assert_eq!(before.table, after.table);
    // Not so sh.
    let before = List::new(Kind::Sh, Family::V4, dests4(&[3, 2, 1]));
    let mut dests = before.dests.clone();
    dests[0].weight = 0;
    let after = List::new(Kind::Sh, Family::V4, dests);
    assert_ne!(before.table, after.table);
}

#[test]
fn mh_moves_little() {
    let before = List::new(Kind::Mh, Family::V4, dests4(&[1; 20]));
    let mut dests = before.dests.clone();
    dests.remove(7);
    let after = List::new(Kind::Mh, Family::V4, dests);
    let moved = Iterator::zip(before.table.iter(), &after.table)
        .filter(|(old, new)| **old != 7 && **new != table::moved(**old, Change::Removed(7)))
        .count();
    // A twentieth of the slots must move; of the others these have to make room.
    assert!(moved < 4093 / 5, "{moved}");
}

#[test]
fn mh_has_room_for_as_many_as_it_has_slots() {
    assert!(table::has_room(Kind::Mh, 4093));
    assert!(!table::has_room(Kind::Mh, 4094));
    assert!(table::has_room(Kind::Sh, 4094));
    let dests = dests(|i| format!("10.{}.{}.1", i / 250, i % 250), 80, &[1; 4093]);
    let list = List::new(Kind::Mh, Family::V4, dests);
    assert!(counts(&list).iter().all(|n| *n == 1));
}

#[test]
fn of_a_destination_of_the_other_family_the_service_decides_what_counts() {
    let in_v4 = |text| {
        let mut dests = dests4(&[1, 1]);
        dests[0].addr = addr(text).1;
        List::new(Kind::Mh, Family::V4, dests).table
    };
    assert_eq!(in_v4("fd00::1"), in_v4("fd00::2"));
    assert_ne!(in_v4("fd00::1"), in_v4("fd01::1"));
}

#[test]
fn slots_follow_changes() {
    assert_eq!(table::moved(3, Change::Added(0)), 4);
    assert_eq!(table::moved(3, Change::Added(3)), 4);
    assert_eq!(table::moved(3, Change::Added(4)), 3);
    assert_eq!(table::moved(3, Change::Removed(4)), 3);
    assert_eq!(table::moved(3, Change::Removed(3)), EMPTY);
    assert_eq!(table::moved(3, Change::Removed(2)), 2);
    assert_eq!(table::moved(3, Change::Updated(3)), 3);
    assert_eq!(table::moved(3, Change::Reset), EMPTY);
    assert_eq!(table::moved(EMPTY, Change::Added(0)), EMPTY);
}

#[test]
fn an_edit_needs_another_table_only_if_that_differs() {
    let addr = Addr::ZERO;
    let plan = |weight, last_weight| Planned {
        addr: &addr,
        port: 0,
        weight,
        last_weight,
    };
    for (kind, old, new, want) in [
        (Kind::Sh, (1, 1), (2, 2), true),
        (Kind::Sh, (1, 1), (0, 1), false),
        (Kind::Sh, (2, 2), (0, 2), true),
        (Kind::Sh, (0, 2), (0, 7), false),
        (Kind::Mh, (2, 2), (0, 2), false),
        (Kind::Mh, (0, 2), (2, 2), false),
        (Kind::Mh, (0, 2), (3, 3), true),
        (Kind::Dh, (1, 1), (2, 2), false),
        (Kind::Rr, (1, 1), (2, 2), false),
    ] {
        let changed = table::is_changed_by(kind, plan(old.0, old.1), plan(new.0, new.1));
        assert_eq!(changed, want, "{kind:?} {old:?} {new:?}");
    }
}

#[test]
fn options_are_flags() {
    for (flags, fallback, port) in [
        (0x27, false, false),
        (0x08, true, false),
        (0x10, false, true),
        (0x3f, true, true),
    ] {
        assert_eq!(Options::from_flags(flags), Options { fallback, port });
    }
}

/// Slow models: lists walked by hand.
mod model {
    use super::*;

    /// An address as a number, word by word.
    pub(super) fn fold(family: Family, addr: &Addr) -> u32 {
        let bytes = addr.bytes();
        let words = match family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        bytes
            .chunks(4)
            .take(words)
            .fold(0, |sum, w| sum ^ u32::from_be_bytes(w.try_into().unwrap()))
    }

    fn hash_32(value: u32) -> u32 {
        ((u64::from(value) * 0x61c8_8647) as u32) >> 24
    }

    fn hsip(key: u64, value: u32) -> usize {
        hsiphash_u32(&[key, key], value) as usize
    }

    pub(super) fn table(kind: Kind, family: Family, dests: &[Dest]) -> Vec<Slot> {
        match kind {
            Kind::Dh => rows(256, dests, |_| 1),
            Kind::Sh => rows(256, dests, |d| d.weight),
            Kind::Mh => maglev(family, dests),
            _ => panic!("{kind:?}"),
        }
    }

    fn rows(size: usize, dests: &[Dest], weight: impl Fn(&Dest) -> i32) -> Vec<Slot> {
        let mut table = vec![EMPTY; size];
        if dests.is_empty() {
            return table;
        }
        let (mut at, mut taken) = (0, 0);
        for slot in &mut table {
            if at == dests.len() {
                at = 0;
            }
            *slot = at as Slot;
            taken += 1;
            if taken >= weight(&dests[at]) {
                at += 1;
                taken = 0;
            }
        }
        table
    }

    fn maglev(family: Family, dests: &[Dest]) -> Vec<Slot> {
        const M: usize = 4093;
        let mut table = vec![EMPTY; M];
        let most = dests.iter().map(|d| d.last_weight).max().unwrap_or(0);
        // By trial.
        let Some(divisor) = (1..=most)
            .rev()
            .find(|c| dests.iter().all(|d| d.last_weight % c == 0))
        else {
            return table;
        };
        let mut shift = 0;
        while (most / divisor) >> shift >= 64 {
            shift += 1;
        }
        let mut walks: Vec<_> = dests
            .iter()
            .map(|d| {
                let value = fold(family, &d.addr).wrapping_add(d.port.into());
                let start = hsip(2_654_435_761, value) % M;
                let skip = hsip(2_654_446_892, value) % (M - 1) + 1;
                (0..M).map(move |n| (start + n * skip) % M)
            })
            .collect();
        let mut free = M;
        loop {
            for (i, d) in dests.iter().enumerate() {
                let mut turn = (d.last_weight / divisor) >> shift;
                if turn == 0 && d.last_weight != 0 {
                    turn = 1;
                }
                for _ in 0..turn {
                    let slot = walks[i].find(|slot| table[*slot] == EMPTY).unwrap();
                    table[slot] = i as Slot;
                    free -= 1;
                    if free == 0 {
                        return table;
                    }
                }
            }
        }
    }

    pub(super) fn pick(
        kind: Kind,
        list: &List,
        client: &Client,
        options: Options,
    ) -> Option<usize> {
        let (addr, size) = match kind {
            Kind::Dh => (&client.target, 256),
            Kind::Sh => (&client.addr, 256),
            _ => (&client.addr, 4093),
        };
        let (fallback, port) = match kind {
            Kind::Dh => (false, 0),
            _ => (options.fallback, if options.port { client.port } else { 0 }),
        };
        let value = fold(client.family, addr).wrapping_add(port.into());
        let slot = |offset: usize| match kind {
            Kind::Mh => hsip(2_654_435_761, value.wrapping_add(offset as u32)) % size,
            _ => (offset + hash_32(value) as usize) % size,
        };
        let good = |i: Slot| {
            let d = &list.dests[i as usize];
            d.weight > 0 && !d.overloaded
        };
        let first = slot(0);
        let i = list.table[first];
        if i == EMPTY {
            return None;
        }
        if good(i) {
            return Some(i as usize);
        }
        if !fallback {
            return None;
        }
        for n in 0..size {
            let i = list.table[slot((n + first) % size)];
            if i == EMPTY {
                return None;
            }
            if good(i) {
                return Some(i as usize);
            }
        }
        None
    }
}

fn any_addr() -> impl Strategy<Value = Addr> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(Addr::from_bytes),
        // Few, so that some are equal.
        (0..4_u8).prop_map(|b| Addr::v4(u32::from_ne_bytes([10, 0, 0, b]))),
    ]
}

fn any_dest() -> impl Strategy<Value = Dest> {
    let weight = prop_oneof![2 => Just(0), 6 => 1..9_i32, 2 => (1..200_i32).prop_map(|w| w * 6)];
    (any_addr(), 0..3_u16, weight.clone(), weight, any::<bool>()).prop_map(
        |(addr, port, weight, last, overloaded)| Dest {
            addr,
            port,
            weight,
            // As the latest weight that was not zero.
            last_weight: if weight == 0 { last } else { weight },
            overloaded,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    #[cfg_attr(miri, ignore = "the models are slow")]
    fn tables_and_choices_are_as_their_models(
        dests in prop::collection::vec(any_dest(), 0..12),
        clients in prop::collection::vec((any_addr(), any_addr(), any::<u16>()), 20),
        v6: bool,
    ) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        for kind in [Kind::Dh, Kind::Sh, Kind::Mh] {
            let list = List::new(kind, family, dests.clone());
            prop_assert_eq!(&list.table, &model::table(kind, family, &dests), "{:?}", kind);
            for (addr, target, port) in &clients {
                let client = Client { family, addr: *addr, port: *port, target: *target };
                for flags in [0, 0x08, 0x10, 0x18] {
                    let options = Options::from_flags(flags);
                    prop_assert_eq!(
                        list.pick(kind, &client, options),
                        model::pick(kind, &list, &client, options),
                        "{:?} {:?}", kind, options
                    );
                }
            }
        }
    }
}
