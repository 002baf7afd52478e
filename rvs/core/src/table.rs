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

/// How many buckets a table should have for `count` entries at load factor `lfactor`; C
/// `ip_vs_rht_desired_size()`. `current` is the table as it is, if there is one.
///
/// The answer is always a power of two within the limits; the current size means: leave it.
pub const fn desired_size(current: Option<Table>, count: u32, lfactor: i32, limits: Limits) -> u32 {
    let Some(current) = current else {
        return limits.min_size();
    };
    // 2^30 buckets are more than any table has.
    let n = match count.checked_next_power_of_two() {
        Some(n) if n < 1 << 30 => n,
        _ => 1 << 30,
    };
    let n = match shift(lfactor) {
        (true, by) => {
            let n = n >> (by & 31);
            if n < limits.max_size() {
                n
            } else {
                limits.max_size()
            }
        }
        (false, by) => {
            let by = if by < limits.max { by } else { limits.max };
            let most = limits.max_size() >> (by & 31);
            (if n < most { n } else { most }) << (by & 31)
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
