// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first byte is the command, the rest the attributes. Whatever can be read can be written. The test `fuzz` of the crate
//! does the same with a corpus, wherever tests are run.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|data: &[u8]| fuzzed::message(data));
