// SPDX-License-Identifier: GPL-2.0-or-later

//! Deadlines instead of sleeps.
//!
//! Each is stretched by how much slower the guest is than a native one ([`set_slow`]).

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};

static SLOW: OnceLock<f64> = OnceLock::new();

/// By how much this guest is slower than a native one.
pub fn slow() -> f64 {
    SLOW.get().copied().unwrap_or(1.0)
}

/// Says so, once.
pub fn set_slow(factor: f64) {
    // A second time changes nothing.
    let _ = SLOW.set(factor.max(1.0));
}

/// `n` repetitions on a native guest, fewer on one that takes several times as long for each.
pub fn rounds(n: usize) -> usize {
    let fewer = if slow() > 5.0 {
        10
    } else if slow() > 1.0 {
        4
    } else {
        1
    };
    n.div_ceil(fewer)
}

/// `seconds` on a native guest, as many more as this one needs.
pub fn scaled(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds * slow())
}

/// How long to wait for what takes up to `seconds` (scaled) where this guest has a processor to itself: several guests run at
/// once, and other things may.
pub fn patience(seconds: f64) -> Duration {
    3 * scaled(seconds)
}

/// Polls `f` until it holds a value, for what takes at most `seconds` ([`patience`]); `what` names the hope in the error.
pub fn until<T>(what: &str, seconds: f64, mut f: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience(seconds);
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(value) = f()? {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!(
                "not within {:.1} s: {what}",
                patience(seconds).as_secs_f64()
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Polls a condition; see [`until`].
pub fn until_true(what: &str, seconds: f64, mut f: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, seconds, || Ok(f()?.then_some(())))
}

/// The one place that sleeps: for kernel behaviour that is defined by time passing.
pub fn pass(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}
