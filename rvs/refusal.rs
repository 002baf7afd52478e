// SPDX-License-Identifier: GPL-2.0-only

//! Why a configuration change was refused.

use kernel::{
    alloc::AllocError,
    prelude::*,
    str::CStr, //
};

/// An error number that clients know from C, and a text for people.
pub(crate) struct Refusal {
    /// What the client gets.
    pub(crate) error: Error,
    /// What the extended acknowledgement says.
    pub(crate) text: &'static CStr,
}

impl Refusal {
    /// Makes a refusal.
    pub(crate) const fn new(error: Error, text: &'static CStr) -> Self {
        Self { error, text }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let text = if error == ENOMEM {
            c"out of memory"
        } else {
            c"the kernel refused"
        };
        Self { error, text }
    }
}

impl From<AllocError> for Refusal {
    fn from(error: AllocError) -> Self {
        Error::from(error).into()
    }
}
