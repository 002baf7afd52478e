// SPDX-License-Identifier: GPL-2.0-only

//! The Internet checksum, RFC 1071, and its incremental update, RFC 1624.
//!
//! C header: `include/net/checksum.h`. Everything is in memory order: the ones' complement sum does
//! not care which end comes first, so no value is ever swapped.
//!
//! An unfolded sum (`__wsum`) is a `u32` that means its value modulo 0xffff; only after
//! [`fold`] are two of them comparable.

use crate::addr::{
    Addr,
    Be16,
    Be32,
    Family, //
};

/// What UDP sends in place of a computed checksum of zero, which would mean "none";
/// C `CSUM_MANGLED_0`.
pub const MANGLED_0: u16 = 0xffff;

/// Ones' complement sum of two folded values; C `csum16_add()`.
#[inline]
pub const fn add16(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u16)
}

/// Ones' complement sum of two unfolded values; C `csum_add()`.
#[inline]
pub const fn add32(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u32)
}

/// Folds 64 bits to an unfolded sum of 32; C `from64to32()`.
#[inline]
pub const fn fold64(sum: u64) -> u32 {
    add32(sum as u32, (sum >> 32) as u32)
}

/// Folds a sum to 16 bits, without the complement.
#[inline]
pub const fn fold_sum(sum: u32) -> u16 {
    add16(sum as u16, (sum >> 16) as u16)
}

/// Folds a sum and complements it: what goes into a checksum field; C `csum_fold()`.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    !fold_sum(sum)
}

/// Sums bytes, starting from `seed`; C `csum_partial()`.
///
/// The result is an unfolded sum. An odd byte at the end counts as if a zero followed.
pub fn csum_partial(bytes: &[u8], seed: u32) -> u32 {
    let mut sum = u64::from(seed);
    let mut rest = bytes;
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let (s, carry) = sum.overflowing_add(u64::from_ne_bytes(*word));
        sum = s.wrapping_add(u64::from(carry));
        rest = tail;
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let (s, carry) = sum.overflowing_add(u64::from_ne_bytes(last));
    fold64(s.wrapping_add(u64::from(carry)))
}

/// The checksum field after a 16-bit field it covers changed; C `csum_replace2()`.
#[inline]
pub const fn replace2(check: u16, from: u16, to: u16) -> u16 {
    !add16(add16(!check, !from), to)
}

/// The checksum field after a 32-bit field it covers changed; C `csum_replace4()`.
#[inline]
pub const fn replace4(check: u16, from: u32, to: u32) -> u16 {
    fold(add32(add32(!(check as u32), !from), to))
}

/// The checksum field after a 16-byte field it covers changed; C `inet_proto_csum_replace16()`.
#[inline]
pub fn replace16(check: u16, from: &Addr, to: &Addr) -> u16 {
    Delta::new().addr(Family::V6, from, to).update(check)
}

/// What a set of changed fields does to a checksum that covers them.
///
/// Collect the changes, then apply them once. Up to 2^31 of them fit.
#[derive(Clone, Copy, Default, Debug)]
#[must_use]
pub struct Delta(u64);

impl Delta {
    /// No change.
    #[inline]
    pub const fn new() -> Self {
        Delta(0)
    }

    /// A 16-bit field changed; C `ip_vs_check_diff2()`.
    #[inline]
    pub const fn word16(self, from: Be16, to: Be16) -> Self {
        Delta(self.0.wrapping_add(!from as u64).wrapping_add(to as u64))
    }

    /// A 32-bit field changed; C `ip_vs_check_diff4()`.
    #[inline]
    pub const fn word32(self, from: Be32, to: Be32) -> Self {
        Delta(self.0.wrapping_add(!from as u64).wrapping_add(to as u64))
    }

    /// An address changed; C `ip_vs_check_diff4()` and `ip_vs_check_diff16()`.
    #[inline]
    pub const fn addr(self, family: Family, from: &Addr, to: &Addr) -> Self {
        let d = self.word32(from.0[0], to.0[0]);
        match family {
            Family::V4 => d,
            Family::V6 => d
                .word32(from.0[1], to.0[1])
                .word32(from.0[2], to.0[2])
                .word32(from.0[3], to.0[3]),
        }
    }

    /// Updates a finished checksum.
    ///
    /// The value the C module computes, which is never 0xffff: see [`udp_nonzero`] for UDP.
    #[inline]
    #[must_use]
    pub const fn update(self, check: u16) -> u16 {
        fold(fold64(self.0.wrapping_add(!(check as u32) as u64)))
    }

    /// Updates the seed that a `CHECKSUM_PARTIAL` packet carries in its checksum field: the sum of
    /// the pseudo header, folded but not complemented.
    #[inline]
    #[must_use]
    pub const fn update_partial(self, seed: u16) -> u16 {
        fold_sum(fold64(self.0.wrapping_add(seed as u64)))
    }
}

/// A UDP checksum as sent: zero means that there is none, so a computed zero becomes
/// [`MANGLED_0`].
#[inline]
pub const fn udp_nonzero(check: u16) -> u16 {
    if check == 0 {
        MANGLED_0
    } else {
        check
    }
}

/// The unfolded sum of an IPv4 pseudo header; C `csum_tcpudp_nofold()`.
///
/// Addresses in memory order, `len` (of header and payload) in host order.
#[inline]
pub const fn pseudo_v4(src: Be32, dst: Be32, proto: u8, len: u32, sum: u32) -> u32 {
    // The two words "zero, protocol" and "length", each as a 32-bit word on the wire, cannot
    // overflow 64 bits.
    fold64(
        (sum as u64)
            .wrapping_add(src as u64)
            .wrapping_add(dst as u64)
            .wrapping_add((proto as u32).to_be() as u64)
            .wrapping_add(len.to_be() as u64),
    )
}

/// The unfolded sum of an IPv6 pseudo header; C `csum_ipv6_magic()` before its fold.
///
/// `len` (of header and payload) in host order.
#[inline]
pub const fn pseudo_v6(src: &Addr, dst: &Addr, proto: u8, len: u32, sum: u32) -> u32 {
    let [a, b, c, d] = src.0;
    let [e, f, g, h] = dst.0;
    fold64(
        (pseudo_v4(a, b, proto, len, sum) as u64)
            .wrapping_add(c as u64)
            .wrapping_add(d as u64)
            .wrapping_add(e as u64)
            .wrapping_add(f as u64)
            .wrapping_add(g as u64)
            .wrapping_add(h as u64),
    )
}

/// The unfolded sum of the pseudo header of either family.
///
/// `fold(pseudo(.., csum_partial(l4, 0)))` is the checksum of a packet whose field holds zero;
/// `fold_sum(pseudo(.., 0))` the seed of `CHECKSUM_PARTIAL`.
#[inline]
pub const fn pseudo(family: Family, src: &Addr, dst: &Addr, proto: u8, len: u32, sum: u32) -> u32 {
    match family {
        Family::V4 => pseudo_v4(src.v4_be(), dst.v4_be(), proto, len, sum),
        Family::V6 => pseudo_v6(src, dst, proto, len, sum),
    }
}
