// SPDX-License-Identifier: GPL-2.0-or-later

//! `--restore`: command lines from standard input. Changes are collected and sent many at a time.

use std::io::{self, BufRead, Write};

use rvs_netlink::client::Error;
use rvs_netlink::Message;

use super::options::Verb;
use super::{texts, Session, Step, Stop};
use crate::progress::Progress;

/// As many as are sent with a few system calls; until then they wait for each other.
const AT_ONCE: usize = 1024;

impl Session {
    pub(super) fn restore(&mut self, out: &mut impl Write) -> Result<u8, Stop> {
        self.kernel()?;
        let mut waiting = Vec::with_capacity(AT_ONCE);
        let mut progress = Progress::new("rules restored", None);
        let mut last = 0;
        for line in io::stdin().lock().split(b'\n') {
            let line = line.map_err(|e| Stop::Broken(format!("reading standard input: {e}")))?;
            let line = String::from_utf8_lossy(&line);
            let args: Vec<String> = line
                .split([' ', '\t', '\r'])
                .filter(|word| !word.is_empty() && *word != "ipvsadm" && *word != "rvsadm")
                .map(str::to_owned)
                .collect();
            if args.first().is_none_or(|word| word.starts_with('#')) {
                continue;
            }
            // What comes before a line that is wrong has happened by then.
            match self.step(&args) {
                Ok(Step::Change(message)) => {
                    waiting.push(message);
                    if waiting.len() == AT_ONCE {
                        last = self.flush(&mut waiting, &mut progress)?;
                    }
                }
                Ok(Step::Other(entry)) => {
                    self.flush(&mut waiting, &mut progress)?;
                    if entry.verb == Verb::Restore {
                        return Err(Stop::TryHelp);
                    }
                    self.print(&entry, out)?;
                    last = 0;
                }
                // A word that isn't known is no reason to leave out the rest.
                Err(Stop::Popt(text)) => {
                    self.flush(&mut waiting, &mut progress)?;
                    progress.say(&text);
                    last = 255;
                }
                Err(stop) => {
                    self.flush(&mut waiting, &mut progress)?;
                    return Err(stop);
                }
            }
        }
        if waiting.is_empty() {
            Ok(last)
        } else {
            self.flush(&mut waiting, &mut progress)
        }
    }

    /// Carries out what waits; the exit code of the last one.
    fn flush(&mut self, waiting: &mut Vec<Message>, progress: &mut Progress) -> Result<u8, Stop> {
        let messages = std::mem::take(waiting);
        let refused = self
            .kernel()?
            .client
            .batch(&messages)
            .map_err(|e| match e {
                Error::Kernel(_) => {
                    let command = messages.last().map(|m| m.command);
                    Stop::Popt(texts::refusal(command, &e))
                }
                other => Stop::Broken(other.to_string()),
            })?;
        progress.advance(messages.len() as u64);
        let mut code = 0;
        for (index, e) in refused {
            if let Some(message) = messages.get(index) {
                progress.say(&texts::refusal_of(message, &Error::Kernel(e)));
            }
            if index + 1 == messages.len() {
                code = 255;
            }
        }
        Ok(code)
    }
}
