// SPDX-License-Identifier: GPL-2.0-only

//! SipHash over whole 64-bit words, for hash tables that strangers can fill.
//!
//! C counterpart: `siphash_1u64()` to `siphash_4u64()`. The result for words `a, b` is that of the
//! reference SipHash for their 16 little-endian bytes. Keep the number of words fixed in each
//! table; make keys differ between tables.

/// A 128-bit key: the first word is the first 8 bytes, little-endian.
pub type Key = [u64; 2];

struct Sip([u64; 4]);

impl Sip {
    #[inline(always)]
    const fn new(key: &Key) -> Self {
        // "somepseudorandomlygeneratedbytes"
        Sip([
            key[0] ^ 0x736f_6d65_7073_6575,
            key[1] ^ 0x646f_7261_6e64_6f6d,
            key[0] ^ 0x6c79_6765_6e65_7261,
            key[1] ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.0;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.0 = [a, b, c, d];
    }

    #[inline(always)]
    fn rounds<const N: usize>(&mut self) {
        for _ in 0..N {
            self.round();
        }
    }

    #[inline(always)]
    fn absorb<const C: usize>(&mut self, word: u64) {
        self.0[3] ^= word;
        self.rounds::<C>();
        self.0[0] ^= word;
    }

    #[inline(always)]
    fn finish<const C: usize, const D: usize>(mut self, last: u64) -> u64 {
        self.absorb::<C>(last);
        self.0[2] ^= 0xff;
        self.rounds::<D>();
        let [a, b, c, d] = self.0;
        a ^ b ^ c ^ d
    }
}

#[inline(always)]
fn sip<const C: usize, const D: usize, const N: usize>(key: &Key, words: &[u64; N]) -> u64 {
    let mut state = Sip::new(key);
    for &word in words {
        state.absorb::<C>(word);
    }
    // The last block: the bytes left over (none), and the length in bytes modulo 256 on top.
    state.finish::<C, D>((N as u64) << 59)
}

/// SipHash-2-4 of `N` words.
#[inline]
pub fn siphash24<const N: usize>(key: &Key, words: &[u64; N]) -> u64 {
    sip::<2, 4, N>(key, words)
}

/// SipHash-1-3 of `N` words: what the kernel calls `hsiphash` on 64-bit machines, before it keeps
/// only the low 32 bits.
#[inline]
pub fn siphash13<const N: usize>(key: &Key, words: &[u64; N]) -> u64 {
    sip::<1, 3, N>(key, words)
}

/// SipHash-1-3 of one 32-bit value (4 bytes); C `hsiphash_1u32()` on 64-bit machines.
#[inline]
pub fn hsiphash_u32(key: &Key, value: u32) -> u32 {
    Sip::new(key).finish::<1, 3>((4 << 56) | u64::from(value)) as u32
}

/// SipHash-2-4 of `N` words; the hash of every table.
#[inline]
pub fn hash<const N: usize>(key: &Key, words: &[u64; N]) -> u64 {
    siphash24(key, words)
}

#[cfg(test)]
#[allow(deprecated)]
mod tests {
    use super::*;
    use core::hash::{
        Hasher,
        SipHasher, //
    };
    use proptest::prelude::*;
    use std::collections::hash_map::DefaultHasher;

    /// The key of the paper's test vectors: bytes 00 to 0f.
    const KEY: Key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    /// Bytes 00, 01, 02 ... as words.
    fn words<const N: usize>() -> [u64; N] {
        let mut next = 0_u8;
        [(); N].map(|()| {
            u64::from_le_bytes([(); 8].map(|()| {
                next += 1;
                next - 1
            }))
        })
    }

    #[test]
    fn vectors_of_the_paper() {
        assert_eq!(siphash24(&KEY, &words::<0>()), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash24(&KEY, &words::<1>()), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash24(&KEY, &words::<2>()), 0x3f2a_cc7f_57c2_9bdb);
        assert_eq!(siphash24(&KEY, &words::<3>()), 0xb8ad_50c6_f649_af94);
        assert_eq!(siphash24(&KEY, &words::<4>()), 0x7127_512f_72f2_7cce);
        assert_eq!(hash(&KEY, &words::<3>()), siphash24(&KEY, &words::<3>()));
    }

    /// Of the kernel's own test, for 64-bit machines.
    #[test]
    fn vectors_of_the_kernel() {
        assert_eq!(hsiphash_u32(&KEY, 0x0302_0100), 0x88d3_8328);
        assert_eq!(siphash13(&KEY, &words::<0>()) as u32, 0x050f_c4dc);
        assert_eq!(siphash13(&KEY, &words::<1>()) as u32, 0x8d29_9a8e);
        assert_eq!(siphash13(&KEY, &words::<2>()) as u32, 0x7d90_8b66);
    }

    proptest! {
        #[test]
        fn as_the_standard_library(key: Key, words: [u64; 5], short: u32) {
            let mut std24 = SipHasher::new_with_keys(key[0], key[1]);
            let mut std13 = DefaultHasher::new();
            for word in words {
                std24.write(&word.to_le_bytes());
                std13.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash24(&key, &words), std24.finish());
            prop_assert_eq!(siphash13(&[0, 0], &words), std13.finish());

            let mut std13 = DefaultHasher::new();
            std13.write(&short.to_le_bytes());
            prop_assert_eq!(hsiphash_u32(&[0, 0], short), std13.finish() as u32);
        }
    }
}
