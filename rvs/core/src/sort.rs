// SPDX-License-Identifier: GPL-2.0-only

//! Sorting in place.
//!
//! The standard library's sorts can panic if an order contradicts itself, which the kernel build does not allow.

/// Sorts numbers, or what else is ordered as they are: heap sort, `n log n` steps, no memory.
pub fn sort<T: Copy + Ord>(items: &mut [T]) {
    let len = items.len();
    for root in (0..len / 2).rev() {
        sift(items, root, len);
    }
    for end in (1..len).rev() {
        if let Some((first, [.., last])) = items
            .get_mut(..=end)
            .and_then(|items| items.split_first_mut())
        {
            core::mem::swap(first, last);
        }
        sift(items, 0, end);
    }
}

/// Moves the item at `root` down to where both below are smaller, among the first `end`.
fn sift<T: Copy + Ord>(items: &mut [T], root: usize, end: usize) {
    let mut root = root;
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let (Some(at), Some(a)) = (items.get(root).copied(), items.get(left).copied()) else {
            return;
        };
        if left >= end {
            return;
        }
        let child = match items.get(right).filter(|_| right < end) {
            Some(b) if *b > a => right,
            _ => left,
        };
        let Some(below) = items.get(child).copied().filter(|below| *below > at) else {
            return;
        };
        if let Some(to) = items.get_mut(root) {
            *to = below;
        }
        if let Some(to) = items.get_mut(child) {
            *to = at;
        }
        root = child;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn as_the_standard_sort(items in prop::collection::vec(any::<u16>(), 0..200)) {
            let mut items: Vec<u16> = items;
            let mut want = items.clone();
            want.sort_unstable();
            super::sort(&mut items);
            prop_assert_eq!(items, want);
        }
    }
}
