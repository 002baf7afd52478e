// SPDX-License-Identifier: GPL-2.0-only

//! A quick hash for tables that only the administrator fills.
//!
//! It is keyed, so that who does not see the key does not see which chain is long, but strangers who may add entries
//! could find out: their tables take [`siphash`](crate::siphash). A word costs one multiplication; the two halves of the
//! product are laid over each other.

/// A 128-bit key.
pub type Key = [u64; 2];

#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes some words, whose number is always the same in a table, or told by one of them.
#[inline]
pub fn hash(key: &Key, words: &[u64]) -> u64 {
    let mut state = key[1];
    for word in words {
        // What was before stays even if a factor happens to be zero.
        state = state.rotate_left(32) ^ fold(word ^ key[0], state ^ 0x9e37_79b9_7f4a_7c15);
    }
    fold(state, 0xd6e8_feb8_6659_fd93)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::siphash::siphash13;
    use std::vec;

    /// How much longer than by chance the chains are on the average that `n` entries find in `2^bits` chains: 1.
    fn excess(hashes: impl Iterator<Item = u64>, bits: u32) -> f64 {
        let mut chains = vec![0u64; 1 << bits];
        let mut n = 0u64;
        for hash in hashes {
            chains[hash as usize & ((1 << bits) - 1)] += 1;
            n += 1;
        }
        let met: u64 = chains.iter().map(|len| len * len.saturating_sub(1)).sum();
        met as f64 / (n * (n - 1)) as f64 * f64::from(1 << bits)
    }

    #[test]
    fn spreads_what_people_configure() {
        for seed in 0..20 {
            let key = [siphash13(&[1, 1], &[seed]), siphash13(&[2, 2], &[seed])];
            // Addresses one after the other, as they lie in memory; ports, marks; the same with words that say nothing.
            let addresses = |n: u64| u64::from((0x0a00_0000 + n as u32).swap_bytes());
            let ports = |n: u64| u64::from((n as u16).swap_bytes());
            for bits in [10, 14] {
                let counted = [
                    excess(
                        (0..20_000).map(|n| hash(&key, &[addresses(n), 6 << 16])),
                        bits,
                    ),
                    excess(
                        (0..20_000).map(|n| hash(&key, &[7, (6 << 16) | ports(n)])),
                        bits,
                    ),
                    excess((0..20_000).map(|n| hash(&key, &[n, 1 << 63])), bits),
                    excess((0..20_000).map(|n| hash(&key, &[1, n << 32, 0])), bits),
                    excess((0..20_000).map(|n| hash(&key, &[n << 56, n >> 8, 3])), bits),
                ];
                for excess in counted {
                    assert!((0.8..1.2).contains(&excess), "{seed} {bits} {counted:?}");
                }
            }
        }
    }

    #[test]
    fn every_bit_counts() {
        let key = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
        let words = [0x0a09_0001, 0, 0x0006_0050];
        let before = hash(&key, &words);
        for i in 0..words.len() {
            for bit in 0..64 {
                let mut other = words;
                other[i] ^= 1 << bit;
                let changed = (hash(&key, &other) as u32 ^ before as u32).count_ones();
                assert!((4..29).contains(&changed), "word {i} bit {bit}: {changed}");
            }
        }
    }

    #[test]
    fn a_word_that_is_the_key_is_not_the_end() {
        let key = [5, 9];
        assert_ne!(hash(&key, &[5, 1]), hash(&key, &[5, 2]));
        assert_ne!(hash(&key, &[1, 5]), hash(&key, &[2, 5]));
    }
}
