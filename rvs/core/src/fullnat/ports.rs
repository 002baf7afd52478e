// SPDX-License-Identifier: GPL-2.0-only

//! Which local port a connection gets.
//!
//! There is no list of free ports: a port is free if no connection has it towards the same real server, which the
//! connection table tells. [`Probe`] says in which order to ask.

use crate::addr::Addr;
use crate::siphash::{
    self,
    Key, //
};

/// The ports that connections may get, both ends included, as numbers in host order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    min: u16,
    max: u16,
}

impl Range {
    /// All but the privileged ones.
    pub const DEFAULT: Self = Range {
        min: 1024,
        max: u16::MAX,
    };

    /// From `min` to `max`; `None` if there is nothing between, or port 0.
    pub const fn new(min: u16, max: u16) -> Option<Self> {
        if min == 0 || min > max {
            return None;
        }
        Some(Range { min, max })
    }

    /// The lowest port.
    pub const fn min(self) -> u16 {
        self.min
    }

    /// The highest port.
    pub const fn max(self) -> u16 {
        self.max
    }

    /// How many there are: never 0.
    pub const fn count(self) -> u32 {
        (self.max as u32)
            .saturating_sub(self.min as u32)
            .saturating_add(1)
    }
}

/// How many ports share a word of a [`pick()`].
pub const WORD: u16 = 64;

impl Range {
    /// Which of the ports from `base`, a multiple of [`WORD`], on are in it.
    const fn bits(self, base: u16) -> u64 {
        let low = self.min.saturating_sub(base);
        if low >= WORD || self.max < base {
            return 0;
        }
        let high = self.max.saturating_sub(base);
        let above = if high >= WORD - 1 {
            0
        } else {
            u64::MAX << high << 1
        };
        (u64::MAX << low) & !above
    }
}

/// A port near `port` that nobody is known to have: of the [`WORD`] ports of which `port` is one, the next in the range whose
/// bit in `taken` is not set, itself first and round to those before it. `None`: all have theirs set.
pub fn pick(taken: u64, port: u16, range: Range) -> Option<u16> {
    let bit = port % WORD;
    let base = port & !(WORD - 1);
    let free = !taken & range.bits(base);
    if free == 0 {
        return None;
    }
    let ahead = free.rotate_right(bit.into()).trailing_zeros() as u16;
    Some(base | (bit.wrapping_add(ahead) % WORD))
}

/// Strides: primes, so that one that does not divide the number of ports visits them all.
const STRIDES: [u32; 16] = [
    7919, 9001, 10007, 13331, 17389, 20011, 23003, 31337, 35023, 38011, 41011, 44017, 48017, 52009,
    56003, 60013,
];

/// The highest index of them: all bits are set.
const LAST_STRIDE: usize = STRIDES.len() - 1;

/// The least number of ports that are asked for on each address, and the most.
const ATTEMPTS: (u32, u32) = (16, 256);
/// How many ports are asked for on all addresses of a pool together, where the least number allows.
const ALL_ATTEMPTS: u32 = 2048;

/// How many ports of one address are asked for, in a pool of `addresses`. The more there are, the less is a crowded one
/// worth.
pub fn attempts(addresses: usize) -> u32 {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    ALL_ATTEMPTS
        .checked_div(addresses)
        .unwrap_or(0)
        .clamp(ATTEMPTS.0, ATTEMPTS.1)
}

/// Where the search for a connection begins: unguessable without the key, and the same for the same flow.
pub fn seed(key: &Key, client: &Addr, server: &Addr, ports: u32) -> u64 {
    let [a, b] = client.words64();
    let [c, d] = server.words64();
    siphash::siphash13(key, &[a, b, c, d, u64::from(ports)])
}

/// With which address of `count` a search begins. 0 if there are none.
pub fn first_address(seed: u64, count: usize) -> usize {
    // The upper bits: ports begin with the lower ones.
    let seed = (seed >> 40) as usize;
    seed.checked_rem(count).unwrap_or(0)
}

/// Ports to ask for, in host order: a start from the seed, then one stride after the other. No port comes twice.
#[derive(Clone, Debug)]
pub struct Probe {
    range: Range,
    at: u32,
    stride: u32,
    left: u32,
}

impl Probe {
    /// Asks for `most` ports, or all of them if there are no more.
    pub fn new(range: Range, seed: u64, most: u32) -> Self {
        let count = range.count();
        let at = (seed as u32).checked_rem(count).unwrap_or(0);
        let choice = (seed >> 32) as usize;
        let stride = (0..STRIDES.len())
            .filter_map(|i| STRIDES.get(choice.wrapping_add(i) & LAST_STRIDE))
            .filter_map(|stride| stride.checked_rem(count))
            .find(|stride| coprime(*stride, count))
            .unwrap_or(1);
        Probe {
            range,
            at,
            stride,
            left: most.min(count),
        }
    }
}

/// Whether a stride (less than `count`) visits all of `count`. Few steps: both are below 2^17.
fn coprime(stride: u32, count: u32) -> bool {
    let (mut a, mut b) = (count, stride);
    while b != 0 {
        (a, b) = (b, a.checked_rem(b).unwrap_or(0));
    }
    a == 1
}

impl Iterator for Probe {
    type Item = u16;

    #[inline]
    fn next(&mut self) -> Option<u16> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at = at.wrapping_add(self.stride);
        if self.at >= self.range.count() {
            self.at = self.at.wrapping_sub(self.range.count());
        }
        u16::try_from(at.saturating_add(u32::from(self.range.min))).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// As going from port to port does it.
        #[test]
        fn the_next_free_port_of_a_word(
            taken: u64, full: bool, port: u16, min in 1u16.., max in 1u16..
        ) {
            // Mostly taken ones, too.
            let taken = if full { taken | taken.rotate_left(21) | !(1 << (port % 61)) } else { taken };
            let Some(range) = Range::new(min.min(max), min.max(max)) else {
                return Ok(());
            };
            let base = port / WORD * WORD;
            let around = (0..WORD).map(|n| base + (port % WORD + n) % WORD);
            let is_free = |p: u16| (taken >> (p % WORD)) & 1 == 0 && (range.min()..=range.max()).contains(&p);
            let want = around.clone().find(|p| is_free(*p));
            prop_assert_eq!(pick(taken, port, range), want);
        }
    }

    #[test]
    fn the_ends_of_a_word() {
        let all = Range::new(1, u16::MAX).unwrap();
        assert_eq!(pick(0, 64, all), Some(64));
        assert_eq!(pick(1, 64, all), Some(65));
        assert_eq!(pick(1 << 63, 127, all), Some(64));
        assert_eq!(pick(u64::MAX, 127, all), None);
        assert_eq!(pick(0, 0, all), Some(1));
        assert_eq!(pick(0, u16::MAX, all), Some(u16::MAX));
        assert_eq!(pick(1 << 63, u16::MAX, all), Some(u16::MAX - 63));
        let few = Range::new(5000, 5002).unwrap();
        assert_eq!(pick(0, 5002, few), Some(5002));
        assert_eq!(pick(1 << (5002 % 64), 5002, few), Some(5000));
        assert_eq!(pick(7 << (5000 % 64), 5001, few), None);
        assert_eq!(pick(0, 6000, few), None);
    }

    #[test]
    fn ranges() {
        assert_eq!(Range::new(0, 5), None);
        assert_eq!(Range::new(6, 5), None);
        assert_eq!(Range::new(5, 5).unwrap().count(), 1);
        assert_eq!(Range::DEFAULT.count(), 64512);
        assert_eq!(Range::new(1, 65535).unwrap().count(), 65535);
    }

    #[test]
    fn attempts_share_a_budget() {
        assert_eq!(attempts(0), 256);
        assert_eq!(attempts(1), 256);
        assert_eq!(attempts(16), 128);
        assert_eq!(attempts(1024), 16);
        assert_eq!(attempts(usize::MAX), 16);
    }

    #[test]
    fn finds_the_only_free_port_of_a_small_range() {
        let range = Range::new(40_000, 40_200).unwrap();
        for seed in 0..500 {
            let seed = crate::siphash::siphash13(&[1, 2], &[seed]);
            let free = 40_000 + (seed % 201) as u16;
            assert!(Probe::new(range, seed, 256).any(|port| port == free));
        }
    }

    /// The number of questions for a port stays small up to 90 % occupancy: 1 / (1 - occupancy) on average.
    #[test]
    fn flat_up_to_ninety_percent() {
        let range = Range::DEFAULT;
        let taken = |port: u16| crate::siphash::siphash13(&[3, 4], &[u64::from(port)]) % 10 < 9;
        let mut asked = 0;
        for client in 0..2_000_u64 {
            let seed = crate::siphash::siphash13(&[5, 6], &[client]);
            let found = Probe::new(range, seed, 256).position(|port| !taken(port));
            asked += found.expect("256 questions are enough at 90 %") + 1;
        }
        assert!(asked < 2_000 * 12, "{asked}");
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "tens of thousands of ports, each by a division")]
        fn each_port_once(min in 1_u16.., span: u16, seed: u64) {
            let max = min.saturating_add(span);
            let range = Range::new(min, max).unwrap();
            let ports: BTreeSet<u16> = Probe::new(range, seed, u32::MAX).collect();
            prop_assert_eq!(ports.len() as u32, range.count());
            prop_assert_eq!(ports.first(), Some(&min));
            prop_assert_eq!(ports.last(), Some(&max));
        }

        #[test]
        fn bounded(seed: u64, most in 0..300_u32) {
            prop_assert_eq!(Probe::new(Range::DEFAULT, seed, most).count() as u32, most);
        }

        #[test]
        fn an_address_of_the_pool(seed: u64, count in 1..2000_usize) {
            prop_assert!(first_address(seed, count) < count);
            prop_assert_eq!(first_address(seed, 0), 0);
        }

        #[test]
        fn seeds_depend_on_everything(a: [u8; 16], b: [u8; 16], ports: u32, key: [u64; 2]) {
            let (a, b) = (Addr::from_bytes(a), Addr::from_bytes(b));
            let one = seed(&key, &a, &b, ports);
            prop_assert_eq!(one, seed(&key, &a, &b, ports));
            prop_assert_ne!(one, seed(&key, &a, &b, ports ^ 1));
            prop_assert_ne!(one, seed(&[!key[0], key[1]], &a, &b, ports));
        }
    }
}
