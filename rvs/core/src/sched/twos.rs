// SPDX-License-Identifier: GPL-2.0-only

//! Power of two choices; C file: `ip_vs_twos.c`.

use super::{
    eligible,
    factor,
    heavier,
    overhead,
    Flow,
    Options,
    Pick,
    Pool, //
};

/// The destination at which the weights from the head of the list on add up to `place`.
#[inline]
fn reach<P: Pool + ?Sized>(pool: &P, place: u64) -> Option<usize> {
    let mut sum = 0_u64;
    let mut last = None;
    for i in (0..pool.len()).filter(|&i| eligible(pool, i)) {
        sum = sum.saturating_add(factor(pool.weight(i)));
        last = Some(i);
        if sum >= place {
            break;
        }
    }
    // The last one if weights have changed meanwhile.
    last
}

/// Draws two destinations, each as likely as its weight says, and takes the less loaded one, the
/// first of equals.
///
/// C draws from one more than the sum of weights, all of which it counts from the head of the list:
/// the first destination is as likely as if its weight were greater by one.
///
/// C adds up and multiplies in an `int`, which overflows with weights above 2^31 in sum; here only
/// the resolution of the draw gets coarser.
#[inline]
pub(super) fn pick<P: Pool + ?Sized>(pool: &P, flow: &impl Flow, _options: Options) -> Pick {
    let sum = (0..pool.len())
        .filter(|&i| eligible(pool, i))
        .fold(0_u64, |sum, i| sum.saturating_add(factor(pool.weight(i))));
    if sum == 0 {
        return Pick::NoneAvailable;
    }
    let coarse = 32_u32.saturating_sub(sum.leading_zeros());
    let max = sum.checked_shr(coarse).unwrap_or(sum);
    let max = u32::try_from(max).unwrap_or(u32::MAX);
    let draw = || {
        let place = u64::from(flow.random(max));
        reach(pool, place.checked_shl(coarse).unwrap_or(place))
    };
    let (Some(first), Some(second)) = (draw(), draw()) else {
        return Pick::NoneAvailable;
    };
    let load = |i| (overhead(pool, i), pool.weight(i));
    Pick::Dest(if heavier(load(first), load(second)) {
        second
    } else {
        first
    })
}
