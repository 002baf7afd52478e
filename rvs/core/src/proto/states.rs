// SPDX-License-Identifier: GPL-2.0-only

//! Transition tables, packed.
//!
//! A row says for one direction and event what each state becomes. With at most 16 states, four
//! bits each, a row is one word: looking a transition up is a load and a shift, and needs no bounds
//! check.

/// For each state, the next one.
#[derive(Clone, Copy)]
pub(super) struct Row(u64);

impl Row {
    /// From the next states, in the order of the states. States that do not exist become `other`.
    pub(super) const fn new<const N: usize>(next: [u8; N], other: u8) -> Self {
        let mut packed = 0_u64;
        let mut state: usize = 16;
        while state > 0 {
            state = state.wrapping_sub(1);
            // Evaluated at compile time, where indexing out of bounds would be an error.
            #[allow(clippy::indexing_slicing)]
            let to = if state < N { next[state] } else { other };
            packed = (packed << 4) | (to & 0xf) as u64;
        }
        Row(packed)
    }

    /// What `state` becomes.
    #[inline(always)]
    pub(super) const fn next(self, state: u8) -> u8 {
        // The shift is at most 60.
        ((self.0 >> ((state & 0xf) << 2)) & 0xf) as u8
    }
}
