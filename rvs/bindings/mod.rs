// SPDX-License-Identifier: GPL-2.0-only

//! Bindings of the C interfaces that rvs needs.
//!
//! `generated.rs` is made by bindgen from `helper.h` and holds only what `kernel::bindings` lacks. What both have
//! resolves to the kernel crate's own type, so that values pass between the two. Only `crate::os` may use this module.

#![allow(
    clippy::all,
    clippy::as_underscore,
    clippy::cast_lossless,
    clippy::ptr_as_ptr,
    clippy::ref_as_ptr,
    clippy::undocumented_unsafe_blocks,
    dead_code,
    improper_ctypes,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    unused_imports
)]

pub(crate) use ::kernel::bindings::*;
use ::kernel::ffi;

include!(concat!(env!("RVS_OBJ"), "/bindings/generated.rs"));
