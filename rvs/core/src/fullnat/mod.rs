// SPDX-License-Identifier: GPL-2.0-only

//! FullNAT: what is decided about connections whose both ends are rewritten.
//!
//! The design is in `docs/fullnat.md`.

pub mod ports;
pub mod proxy;
pub mod tcp;
pub mod toa;
