// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the kernel announces (rvs's extension).

use netlink_packet_core::DecodeError;

use crate::conn::Conn;
use crate::dest::Dest;
use crate::service::{Service, ServiceId};

/// A multicast group of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Group {
    /// Services and destinations.
    Config,
    /// Connections.
    Conns,
}

impl Group {
    /// The name under which the kernel's controller knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "rvs_config",
            Self::Conns => "rvs_conns",
        }
    }
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// It is new.
    New,
    /// It was changed; of a connection: it entered another state.
    Changed,
    /// It is gone.
    Deleted,
    /// A number that this crate has no name for.
    Other(u8),
}

impl From<u8> for Change {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::New,
            2 => Self::Changed,
            3 => Self::Deleted,
            other => Self::Other(other),
        }
    }
}

impl From<Change> for u8 {
    fn from(change: Change) -> Self {
        match change {
            Change::New => 1,
            Change::Changed => 2,
            Change::Deleted => 3,
            Change::Other(number) => number,
        }
    }
}

/// What it happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A service. Its destinations go with it and aren't announced.
    Service(Service),
    /// A destination of a service.
    Dest(ServiceId, Dest),
    /// A connection or a template.
    Conn(Conn),
}

/// An announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// To what.
    pub subject: Subject,
    /// Its number in its group and namespace: from 1 on, one by one.
    pub sequence: u64,
    /// Of connections: how many events were numbered so far and lost before they were sent.
    pub lost: u64,
}

impl Event {
    /// The group that it came from.
    pub fn group(&self) -> Group {
        match self.subject {
            Subject::Service(_) | Subject::Dest(..) => Group::Config,
            Subject::Conn(_) => Group::Conns,
        }
    }
}

/// How many events there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventCounts {
    /// The number of the last one of [`Group::Config`].
    pub config: u64,
    /// The number of the last one of [`Group::Conns`].
    pub conns: u64,
    /// How many of [`Group::Conns`] were numbered and lost before they were sent.
    pub lost: u64,
}

/// Tells gaps in the numbers of events: what a listener has missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gaps {
    config: Option<u64>,
    conns: Option<u64>,
}

impl Gaps {
    /// A listener that has everything up to here.
    pub fn since(counts: &EventCounts) -> Self {
        Self {
            config: Some(counts.config),
            conns: Some(counts.conns),
        }
    }

    /// How many events of this one's group were missed just before it. Of the first event of a group nothing is known, unless
    /// the listener began with [`Gaps::since`].
    pub fn before(&mut self, event: &Event) -> u64 {
        let last = match event.group() {
            Group::Config => &mut self.config,
            Group::Conns => &mut self.conns,
        };
        let missed = match *last {
            Some(last) => event.sequence.saturating_sub(last.saturating_add(1)),
            None => 0,
        };
        *last = Some(event.sequence);
        missed
    }
}

pub(crate) fn unknown_command(command: u8) -> DecodeError {
    format!("command {command} announces nothing").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Protocol;

    #[test]
    fn gaps_are_what_was_missed() {
        let event = |sequence| {
            let id = ServiceId::address(Protocol::TCP, ([10, 0, 0, 1], 80).into());
            Event {
                change: Change::New,
                subject: Subject::Service(Service::new(id, "rr")),
                sequence,
                lost: 0,
            }
        };
        let mut gaps = Gaps::default();
        let missed: Vec<u64> = [7, 8, 12, 13, 1, 2]
            .into_iter()
            .map(|n| gaps.before(&event(n)))
            .collect();
        // The module was loaded anew before the fifth.
        assert_eq!(missed, [0, 0, 3, 0, 0, 0]);
        let mut gaps = Gaps::since(&EventCounts {
            config: 4,
            ..EventCounts::default()
        });
        assert_eq!(gaps.before(&event(7)), 2);
    }
}
