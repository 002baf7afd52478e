// SPDX-License-Identifier: GPL-2.0-or-later

//! The kernel's log, and what in it means that something is broken.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};

/// Any of these in a line of the log fails the scenario that was running.
const TROUBLE: &[&str] = &[
    "WARNING:",
    "BUG:",
    "kernel BUG",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "Unable to handle kernel",
    "Kernel mode fault",
    "Segfault with no mm",
    "INFO: possible",
    "INFO: trying to register non-static key",
    "INFO: rcu",
    "INFO: task",
    "inconsistent lock state",
    "invalid wait context",
    "bad unlock balance",
    "held lock freed",
    "lock held when returning to user space",
    "suspicious RCU usage",
    "Illegal context switch in RCU",
    "scheduling while atomic",
    "sleeping function called from invalid context",
    "KASAN",
    "KCSAN",
    "UBSAN",
    "unreferenced object",
    "Objects remaining",
    "still has objects",
    "Slab cache still has objects",
    "ODEBUG",
    "refcount_t:",
    "blocked for more than",
    "self-detected stall",
    "detected stalls",
    "soft lockup",
    "hard LOCKUP",
    "workqueue lockup",
    "corruption",
    "slab error",
    "Bad page",
    "use-after-free",
    "double free",
    "unregister_netdevice: waiting for",
    "panicked at",
    "hw csum failure",
    "attempt to subtract with overflow",
    "cut here",
];

/// Lines that contain one of [`TROUBLE`] and mean no harm.
const HARMLESS: &[&str] = &[
    "KASAN: Kernel",
    "KernelAddressSanitizer initialized",
    "stack guard",
    "lockdep: fixing up",
    // Most of them are the kernel's own: guest.rs reads the report and says what is new.
    "new suspected memory leaks",
];

/// Whether a line of the kernel log means trouble.
pub fn is_trouble(line: &str) -> bool {
    TROUBLE.iter().any(|t| line.contains(t)) && !HARMLESS.iter().any(|h| line.contains(h))
}

/// Reads the log from where it was opened.
#[derive(Debug)]
pub struct Klog {
    file: File,
}

impl Klog {
    /// From the messages still to come.
    pub fn new() -> Result<Self> {
        let mut log = Self::from_boot()?;
        log.read()?;
        Ok(log)
    }

    /// From the first message that is kept.
    pub fn from_boot() -> Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("opening /dev/kmsg")?;
        Ok(Self { file })
    }

    /// The lines since the last call, each with its time stamp.
    pub fn read(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut buf = [0; 8192];
        loop {
            match self.file.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => {
                    let record = String::from_utf8_lossy(&buf[..n]);
                    let (head, text) = record.split_once(';').unwrap_or(("", &record));
                    let micros: u64 = head
                        .split(',')
                        .nth(2)
                        .and_then(|t| t.parse().ok())
                        .unwrap_or_default();
                    let text = text.lines().next().unwrap_or_default();
                    lines.push(format!(
                        "[{:5}.{:06}] {text}",
                        micros / 1_000_000,
                        micros % 1_000_000
                    ));
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // Overrun: the oldest lines are lost, go on with what is there.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {
                    lines.push("(lines lost)".to_owned())
                }
                Err(e) => return Err(e).context("reading /dev/kmsg"),
            }
        }
        Ok(lines)
    }
}
