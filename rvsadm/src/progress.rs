// SPDX-License-Identifier: GPL-2.0-or-later

//! How far long work has got: on a terminal only, and only once it has taken a while.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that takes less shows nothing.
const A_WHILE: Duration = Duration::from_millis(400);

/// A line on standard error, gone at the end.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    begun: Instant,
    wanted: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of so many things (`what`, in the plural), or of nobody knows how many.
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        Self {
            what,
            total,
            done: 0,
            begun: Instant::now(),
            wanted: io::stderr().is_terminal(),
            bar: None,
        }
    }

    /// Of rows that are printed as they come: they show themselves how far it is, unless they go to a file. What is behind a pipe may use the
    /// terminal itself, as a pager does.
    pub(crate) fn of_rows(what: &'static str, total: Option<u64>) -> Self {
        let mut progress = Self::new(what, total);
        progress.wanted = progress.wanted && !io::stdout().is_terminal() && !to_pipe();
        progress
    }

    /// So many more are done.
    pub(crate) fn advance(&mut self, count: u64) {
        self.done = self.done.saturating_add(count);
        if !self.wanted {
            return;
        }
        if self.bar.is_none() && self.begun.elapsed() > A_WHILE {
            self.bar = Some(self.start());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    fn start(&self) -> ProgressBar {
        let template = match self.total {
            Some(_) => "{pos} of {len} {msg} [{bar:30}] {eta} left",
            None => "{pos} {msg}, {per_sec}",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        let target = ProgressDrawTarget::stderr_with_hz(10);
        ProgressBar::with_draw_target(self.total, target)
            .with_style(style)
            .with_message(self.what)
            .with_elapsed(self.begun.elapsed())
    }

    /// Prints a line to standard error, above what is shown.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }
}

/// Whether standard output is a pipe.
fn to_pipe() -> bool {
    let stdout = io::stdout();
    let copy = stdout.as_fd().try_clone_to_owned().map(File::from);
    copy.and_then(|file| file.metadata())
        .is_ok_and(|metadata| metadata.file_type().is_fifo())
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_right() {
        for total in [None, Some(10)] {
            let mut progress = Progress::new("lines", total);
            progress.wanted = true;
            progress.begun -= A_WHILE * 2;
            progress.advance(3);
            progress.advance(4);
            assert_eq!(progress.bar.as_ref().map(ProgressBar::position), Some(7));
        }
    }
}
