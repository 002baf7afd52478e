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
