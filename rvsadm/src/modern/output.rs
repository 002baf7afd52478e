// SPDX-License-Identifier: GPL-2.0-or-later

//! Colour, and what went wrong.

use std::fmt;
use std::io::{self, IsTerminal};

/// What a piece of text is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Changed,
    Head,
}

/// Whether NO_COLOR is set to something, or the terminal has no colours.
pub(super) fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether to colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    /// On a terminal that has colours, unless NO_COLOR is set to something.
    pub(super) fn stdout() -> Self {
        Self(!no_colour() && io::stdout().is_terminal())
    }

    /// Never.
    pub(super) fn never() -> Self {
        Self(false)
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Bad => 31,
            Tone::Changed => 33,
            Tone::Head => 1,
        };
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Who may do what was asked for.
pub(super) const NOT_ROOT: &str = "only root may (CAP_NET_ADMIN in the network namespace is right)";

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, or a file, is wrong.
    Usage(String),
    /// It was refused, or it didn't work.
    Failed(String),
    /// Writing the output failed.
    Output(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Failed(text) => f.write_str(text),
            Self::Output(e) => e.fmt(f),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        Self::Output(e.into())
    }
}

impl From<rvs_netlink::client::Error> for Failure {
    fn from(e: rvs_netlink::client::Error) -> Self {
        match e {
            rvs_netlink::client::Error::NoFamily => Self::Failed(crate::NO_MODULE.to_owned()),
            rvs_netlink::client::Error::NoExtension(_) => Self::Failed(format!(
                "{e}: that takes rvs (`modprobe -r ip_vs`, then `modprobe rvs`)"
            )),
            rvs_netlink::client::Error::Kernel(e) if e.errno == 1 => {
                Self::Failed(format!("{e}: {NOT_ROOT}"))
            }
            other => Self::Failed(other.to_string()),
        }
    }
}
