// SPDX-License-Identifier: GPL-2.0-only

//! How large hash tables should be.
//!
//! C counterpart: `ip_vs_rht_desired_size()`, `ip_vs_rht_set_thresholds()`. A table has a power of
//! two of buckets. Its load factor `lfactor`, a sysctl from -8 to 8, says how many entries per
//! bucket make it grow: 2^lfactor. It shrinks when it holds 16 times less.

/// The least load factor.
pub const LFACTOR_MIN: i32 = -8;
/// The greatest load factor.
pub const LFACTOR_MAX: i32 = 8;

/// Default of sysctl `conn_lfactor` in the initial network namespace.
pub const CONN_LFACTOR_INIT_NET: i32 = -4;
/// Default of sysctl `svc_lfactor` in the initial network namespace.
pub const SVC_LFACTOR_INIT_NET: i32 = -3;
/// Default of both in the others.
pub const LFACTOR_OTHER_NET: i32 = -2;

/// The least size of a connection table, in bits; C `IP_VS_CONN_TAB_MIN_BITS`.
pub const CONN_MIN_BITS: u32 = 8;
/// The greatest size of a connection table, in bits; C `IP_VS_CONN_TAB_MAX_BITS`.
pub const CONN_MAX_BITS: u32 = if usize::BITS == 64 { 27 } else { 20 };
/// Default of the module parameter `conn_tab_bits`.
pub const CONN_DEFAULT_BITS: u32 = 12;

/// Between which sizes a table may be, in bits.
///
/// # Invariants
///
/// `min <= max <= 30`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    min: u32,
    max: u32,
}

impl Limits {
    /// The service table; C `IP_VS_SVC_TAB_MIN_BITS`, `IP_VS_SVC_TAB_MAX_BITS`.
    pub const SERVICES: Self = Limits { min: 4, max: 20 };

    /// Of at most 2^30 buckets; limits that cross become equal.
    pub const fn new(min: u32, max: u32) -> Self {
        // INVARIANT: `max` is cut first, `min` to it.
        let max = if max > 30 { 30 } else { max };
        Limits {
            min: if min > max { max } else { min },
            max,
        }
    }

    /// The connection tables, by the module parameter `conn_tab_bits` and the machine's memory in
    /// bytes; C `ip_vs_conn_init()`.
    ///
    /// C allows as many buckets as memory would hold connections: with its 296 bytes each, counted
    /// as 512, and its rounding of memory up to a power of two. The numbers are visible in
    /// netlink, so that they are C's here, whatever the size of a connection.
    pub const fn connections(conn_tab_bits: i32, memory: u64) -> Self {
        let avail = match memory.checked_next_power_of_two() {
            Some(p) => p.trailing_zeros().saturating_sub(9),
            None => CONN_MAX_BITS,
        };
        let max = if avail < CONN_MIN_BITS {
            CONN_MIN_BITS
        } else if avail > CONN_MAX_BITS {
            CONN_MAX_BITS
        } else {
            avail
        };
        let bits = if conn_tab_bits < CONN_MIN_BITS as i32 {
            CONN_MIN_BITS
        } else {
            conn_tab_bits.unsigned_abs()
        };
        Limits::new(CONN_MIN_BITS, if bits > max { max } else { bits })
    }

    /// The size of a new table, and the least.
    #[inline]
    pub const fn min_size(self) -> u32 {
        1 << (self.min & 31)
    }

    /// The greatest size.
    #[inline]
    pub const fn max_size(self) -> u32 {
        1 << (self.max & 31)
    }

    /// The greatest size in bits.
    #[inline]
    pub const fn max_bits(self) -> u32 {
        self.max
    }

    const fn clamp(self, size: u32) -> u32 {
        if size < self.min_size() {
            self.min_size()
        } else if size > self.max_size() {
            self.max_size()
        } else {
            size
        }
    }
}

/// A table as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Buckets.
    pub size: u32,
    /// The load factor it was made with.
    pub lfactor: i32,
}

/// Between which numbers of entries a table fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// With more entries than this it should grow; `i32::MAX` if it cannot.
    pub upper: u32,
    /// With fewer than this it should shrink; zero if it cannot.
    pub lower: u32,
}

/// A load factor as a shift to the left (true) or to the right, and by how much, in range.
const fn shift(lfactor: i32) -> (bool, u32) {
    let by = lfactor.unsigned_abs();
    (lfactor > 0, if by > 30 { 30 } else { by })
}

/// When a table of this size should be resized; C `ip_vs_rht_set_thresholds()`.
pub const fn bounds(table: Table, limits: Limits) -> Bounds {
    let Table { size, lfactor } = table;
    let upper = if size >= limits.max_size() {
        i32::MAX as u32
    } else {
        match shift(lfactor) {
            (true, by) => {
                let most = 1 << (30_u32.saturating_sub(by) & 31);
                (if size < most { size } else { most }) << (by & 31)
            }
            (false, by) => size >> ((if by < limits.max { by } else { limits.max }) & 31),
        }
    };
    let lower = if size >= limits.max_size() {
        limits.max_size() >> 4
    } else if size > limits.min_size() {
        upper >> 4
    } else {
        0
    };
    Bounds { upper, lower }
}

const fn at_most(n: u64, most: u32) -> u32 {
    if n < most as u64 {
        n as u32
    } else {
        most
    }
}

/// How many buckets a table should have for `count` entries at load factor `lfactor`; C
/// `ip_vs_rht_desired_size()`. `current` is the table as it is, if there is one.
///
/// The answer is always a power of two within the limits; the current size means: leave it.
pub const fn desired_size(current: Option<Table>, count: u32, lfactor: i32, limits: Limits) -> u32 {
    let Some(current) = current else {
        return limits.min_size();
    };
    // In 64 bits every count has a power of two above it.
    let n = match (count as u64).checked_next_power_of_two() {
        Some(n) => n,
        None => 1 << 32,
    };
    let n = match shift(lfactor) {
        (true, by) => at_most(n >> (by & 31), limits.max_size()),
        (false, by) => {
            let by = if by < limits.max { by } else { limits.max };
            at_most(n, limits.max_size() >> (by & 31)) << (by & 31)
        }
    };

    if lfactor != current.lfactor {
        return limits.clamp(n);
    }
    if n > current.size {
        // Not below the least size either: the current one is not.
        return n;
    }
    if n > current.size >> 4 {
        return current.size;
    }
    // Twice what is needed, so that it does not grow again at once. `n` is at most 2^30.
    limits.clamp(n << 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONNS: Limits = Limits::new(8, 12);

    fn table(size: u32, lfactor: i32) -> Table {
        Table { size, lfactor }
    }

    #[test]
    fn limits() {
        const GIB: u64 = 1 << 30;
        let sizes = |l: Limits| (l.min_size(), l.max_size());
        assert_eq!(sizes(Limits::SERVICES), (16, 1 << 20));
        assert_eq!(sizes(CONNS), (256, 4096));
        assert_eq!(sizes(Limits::connections(12, GIB)), (256, 4096));
        assert_eq!(sizes(Limits::connections(0, GIB)), (256, 256));
        assert_eq!(sizes(Limits::connections(-5, GIB)), (256, 256));
        assert_eq!(sizes(Limits::connections(i32::MIN, GIB)), (256, 256));
        // Memory is the limit: 1 GiB holds 2^21, 64 GiB 2^27 connections.
        assert_eq!(Limits::connections(99, GIB).max_bits(), 21);
        assert_eq!(Limits::connections(99, GIB + 1).max_bits(), 22);
        assert_eq!(Limits::connections(99, 0).max_bits(), 8);
        if usize::BITS == 64 {
            assert_eq!(Limits::connections(99, 64 * GIB).max_bits(), 27);
            assert_eq!(Limits::connections(i32::MAX, u64::MAX).max_bits(), 27);
        }
        assert_eq!(sizes(Limits::new(40, 50)), (1 << 30, 1 << 30));
        assert_eq!(sizes(Limits::new(9, 5)), (32, 32));
    }

    /// The example of the specification: 256 buckets until 16 connections, then 512.
    #[test]
    fn example_of_the_initial_namespace() {
        let f = CONN_LFACTOR_INIT_NET;
        assert_eq!(desired_size(None, 0, f, CONNS), 256);
        assert_eq!(desired_size(None, 1 << 20, f, CONNS), 256);
        let t = table(256, f);
        assert_eq!(
            bounds(t, CONNS),
            Bounds {
                upper: 16,
                lower: 0
            }
        );
        assert_eq!(desired_size(Some(t), 16, f, CONNS), 256);
        assert_eq!(desired_size(Some(t), 17, f, CONNS), 512);
        assert_eq!(desired_size(Some(t), 1000, f, CONNS), 4096);
        assert_eq!(desired_size(Some(t), u32::MAX, f, CONNS), 4096);

        let t = table(512, f);
        assert_eq!(
            bounds(t, CONNS),
            Bounds {
                upper: 32,
                lower: 2
            }
        );
        // Shrinks at a sixteenth, to twice what is needed.
        let t = table(4096, f);
        assert_eq!(
            bounds(t, CONNS),
            Bounds {
                upper: i32::MAX as u32,
                lower: 256
            }
        );
        assert_eq!(desired_size(Some(t), 17, f, CONNS), 4096);
        assert_eq!(desired_size(Some(t), 16, f, CONNS), 512);
        assert_eq!(desired_size(Some(t), 0, f, CONNS), 256);
    }

    #[test]
    fn positive_load_factors() {
        let t = table(256, 3);
        assert_eq!(bounds(t, CONNS).upper, 2048);
        assert_eq!(desired_size(Some(t), 2048, 3, CONNS), 256);
        assert_eq!(desired_size(Some(t), 2049, 3, CONNS), 512);
        // Does not overflow.
        let big = Limits::new(8, 27);
        assert_eq!(bounds(table(1 << 26, 8), big).upper, 1 << 30);
    }

    #[test]
    fn a_new_load_factor_applies_at_once() {
        let t = table(1024, -4);
        assert_eq!(desired_size(Some(t), 60, -4, CONNS), 1024);
        assert_eq!(desired_size(Some(t), 60, -2, CONNS), 256);
        assert_eq!(desired_size(Some(t), 60, -6, CONNS), 4096);
        assert_eq!(desired_size(Some(t), 0, 8, CONNS), 256);
    }

    /// The specification's words (8.3), in plain integers.
    fn model(current: Option<Table>, count: u64, f: i32, (min, max): (u64, u64)) -> u64 {
        let Some(t) = current else { return min };
        let n = count.next_power_of_two();
        let target = if f < 0 {
            // min(n, 2^(max + f)) << -f, of a shift not larger than max.
            let by = (-f as u32).min(max.ilog2());
            n.min(max >> by) << by
        } else {
            (n >> f).min(max)
        };
        let size = u64::from(t.size);
        if t.lfactor != f {
            target.clamp(min, max)
        } else if target > size {
            target
        } else if target > size / 16 {
            size
        } else {
            (2 * target).clamp(min, max)
        }
    }

    proptest! {
        #[test]
        fn as_specified(
            min in 0..9_u32,
            more in 0..19_u32,
            size_bits in 0..27_u32,
            count in prop_oneof![0..100_u32, 0..1_u32 << 24, any::<u32>()],
            old in LFACTOR_MIN..=LFACTOR_MAX,
            new in LFACTOR_MIN..=LFACTOR_MAX,
            same: bool,
        ) {
            let limits = Limits::new(min, min + more);
            let sizes = (u64::from(limits.min_size()), u64::from(limits.max_size()));
            let size = 1 << size_bits.clamp(min, min + more);
            let t = table(size, if same { new } else { old });
            let got = desired_size(Some(t), count, new, limits);
            prop_assert_eq!(u64::from(got), model(Some(t), u64::from(count), new, sizes));
            prop_assert!(got.is_power_of_two() && got >= limits.min_size() && got <= limits.max_size());

            // Thresholds and sizes agree: within the bounds no growth, outside of them growth.
            let t = table(size, new);
            let b = bounds(t, limits);
            prop_assert!(b.lower <= b.upper && b.upper <= i32::MAX as u32);
            if count <= 1 << 30 {
                let got = desired_size(Some(t), count, new, limits);
                prop_assert_eq!(got > size, count.max(1) > b.upper, "{:?}", b);
                if got < size && new <= 0 {
                    prop_assert!(count <= b.lower.max(1), "{:?}", b);
                }
            }
            // A size once chosen for a new load factor is kept, unless it has to grow.
            let settled = table(got, new);
            let again = desired_size(Some(settled), count, new, limits);
            prop_assert!(again >= got || got == again, "{} {}", got, again);
        }
    }
}
