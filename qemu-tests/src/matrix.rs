// SPDX-License-Identifier: GPL-2.0-or-later

//! Many small cases that each end in an errno; all of them run before any is complained about.

use anyhow::{ensure, Result};

pub const OK: i32 = 0;
pub const EPERM: i32 = libc::EPERM;
pub const ENOENT: i32 = libc::ENOENT;
pub const ESRCH: i32 = libc::ESRCH;
pub const EFAULT: i32 = libc::EFAULT;
pub const EEXIST: i32 = libc::EEXIST;
pub const ENODEV: i32 = libc::ENODEV;
pub const EINVAL: i32 = libc::EINVAL;
pub const ERANGE: i32 = libc::ERANGE;
pub const ENOPROTOOPT: i32 = libc::ENOPROTOOPT;
pub const EOPNOTSUPP: i32 = libc::EOPNOTSUPP;
pub const EAFNOSUPPORT: i32 = libc::EAFNOSUPPORT;

/// What the cases came to so far.
#[derive(Debug, Default)]
pub struct Tally {
    wrong: Vec<String>,
    cases: usize,
}

impl Tally {
    /// One more; `more` is what else was said.
    pub fn note(&mut self, what: &str, errno: i32, more: Option<&str>, want: i32) {
        self.cases += 1;
        if errno != want {
            let more = more.map(|more| format!(" ({more:?})")).unwrap_or_default();
            self.wrong
                .push(format!("{what}: errno {errno}{more}, expected {want}"));
        }
    }

    /// Fails if any was wrong.
    pub fn finish(&self) -> Result<()> {
        println!("{} cases", self.cases);
        ensure!(
            self.wrong.is_empty(),
            "{} of {} cases:\n{}",
            self.wrong.len(),
            self.cases,
            self.wrong.join("\n")
        );
        Ok(())
    }
}
