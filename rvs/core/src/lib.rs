// SPDX-License-Identifier: GPL-2.0-only

//! The pure logic of rvs: everything IPVS decides that needs no kernel.
//!
//! No `unsafe`, no allocation, no dependency but `core`, no state of its own. The crate is
//! compiled twice: by Kbuild as an object of `rvs.ko` (whose rules inject `no_std` and the
//! kernel's lints), and by Cargo on the host, for tests.
//!
//! # Byte order
//!
//! Two kinds of integers appear here, and every item says which it takes:
//!
//! - *memory order*: the bytes as they lie in a packet or in a kernel structure, read as a native
//!   integer. C calls these `__be16`, `__be32`, `__sum16`. They are compared, hashed, copied and
//!   summed, never ordered or added as numbers. [`addr::Be16`] and [`addr::Be32`] mark them.
//! - *host order*: numbers.
//!
//! # No panics
//!
//! In the kernel a panic is a `BUG()` in softirq: a dead machine. Integers of foreign origin are
//! therefore never indexed with, nor added with the plain operators, which trap on overflow in the
//! kernel build. The lints below make that a build failure; tests are exempt.
//!
//! # Running Miri
//!
//! `make test-miri`, with few cases, and access to files, since proptest looks for its regression file.

#![crate_name = "rvs_core"]
#![cfg_attr(not(CONFIG_RUST), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::float_arithmetic,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_used,
    )
)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod checksum;
pub mod defense;
pub mod estimate;
pub mod fmt;
pub mod ftp;
pub mod fullnat;
pub mod mix;
pub mod nat;
pub mod proto;
pub mod sched;
pub mod siphash;
pub mod sort;
pub mod sync;
pub mod table;
pub mod thresholds;
pub mod timeout;
pub mod tunnel;
pub mod uapi;
pub mod wire;
