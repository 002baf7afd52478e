// SPDX-License-Identifier: GPL-2.0-only

//! A datagram of connection synchronisation, as a backup hears it. The test `sync` of the crate does the same with a corpus,
//! wherever tests are run.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|data: &[u8]| fuzzed::datagram(data));
