// SPDX-License-Identifier: GPL-2.0-or-later

//! rvsadm starts in less than 5 ms, also as it is built for tests.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn starts_at_once() {
    for args in [["--version"], ["--help"], ["-h"]] {
        // The best of many: what else the machine does only adds to it.
        let mut best = Duration::MAX;
        for _ in 0..60 {
            let begin = Instant::now();
            let status = Command::new(env!("CARGO_BIN_EXE_rvsadm"))
                .args(args)
                .stdout(Stdio::null())
                .status()
                .unwrap();
            best = best.min(begin.elapsed());
            assert!(status.success(), "{args:?}: {status}");
        }
        println!("{args:?}: {best:?}");
        assert!(best < Duration::from_millis(5), "{args:?} took {best:?}");
    }
}
