// SPDX-License-Identifier: GPL-2.0-or-later

//! What `watch` knows, and what keys do to it. No terminal and no kernel here.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use rvs_netlink::{Dest, Service, ServiceId, Stats};

use crate::modern::conns::Conn;
use crate::modern::model::words;

/// Samples that are kept of a rate, for the sparklines.
pub(super) const HISTORY: usize = 240;
/// With more services than this, they begin folded: the real servers of each are another request.
const UNFOLDED: usize = 300;

/// A service with its real servers, if these were asked for.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) service: Service,
    pub(super) dests: Option<Vec<Dest>>,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RowId {
    pub(super) service: ServiceId,
    /// None: the service itself.
    pub(super) real: Option<SocketAddr>,
}

/// A line of the table, as places in `entries` and there in `dests`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) entry: usize,
    pub(super) dest: Option<usize>,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Fold,
    Drain,
    Undo,
    Conns,
    Locals,
    Sort,
    Pause,
    Back,
    Quit,
}

/// What is to be done about a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Set a weight; it is `from` as far as is known.
    Weight {
        row: RowId,
        from: i32,
        to: i32,
        undo: bool,
    },
    /// Ask the kernel again, now.
    Refresh,
    Quit,
}

/// A drained real server, and its weight before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Drained {
    row: RowId,
    weight: i32,
}

/// What is below the table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Below {
    /// Connections of the selected line.
    #[default]
    Conns,
    /// Local addresses of its service.
    Locals,
}

/// What is below the table looks like this.
#[derive(Debug, Default)]
pub(super) struct Pane {
    pub(super) below: Below,
    pub(super) locals: Vec<String>,
    pub(super) conns: Vec<Conn>,
    /// There are more than these.
    pub(super) more: bool,
    /// Why there are none, if something is wrong.
    pub(super) trouble: Option<String>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) entries: Vec<Entry>,
    pub(super) rows: Vec<Row>,
    selected: Option<RowId>,
    /// Lines above the first that is shown.
    pub(super) offset: usize,
    /// Lines that fit; drawing says so.
    pub(super) page: usize,
    /// Services that are not as [`UNFOLDED`] says.
    toggled: HashSet<ServiceId>,
    history: HashMap<RowId, VecDeque<u64>>,
    pub(super) totals: Totals,
    drained: Vec<Drained>,
    /// The last thing that happened.
    pub(super) note: Option<String>,
    pub(super) pane: Option<Pane>,
    pub(super) busiest_first: bool,
    pub(super) paused: bool,
}

/// Rates of all services together, the newest last.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) conns: VecDeque<u64>,
    pub(super) packets: VecDeque<u64>,
    pub(super) bytes: VecDeque<u64>,
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

impl App {
    fn many(&self) -> bool {
        self.entries.len() > UNFOLDED
    }

    /// Whether the real servers of a service are shown, and so have to be asked for.
    pub(super) fn unfolded(&self, services: usize, id: &ServiceId) -> bool {
        (services <= UNFOLDED) != self.toggled.contains(id)
    }

    /// Takes in what the kernel said.
    pub(super) fn update(&mut self, mut entries: Vec<Entry>) {
        let place = self.place();
        if self.busiest_first {
            entries.sort_by_key(|e| std::cmp::Reverse(rate(e.service.stats)));
            for entry in &mut entries {
                if let Some(dests) = &mut entry.dests {
                    dests.sort_by_key(|d| std::cmp::Reverse(rate(d.stats)));
                }
            }
        }
        self.entries = entries;
        let mut history = std::mem::take(&mut self.history);
        let mut sum = Stats::default();
        for entry in &self.entries {
            let stats = entry.service.stats.unwrap_or_default();
            sum.cps = sum.cps.saturating_add(stats.cps);
            sum.in_pps = sum
                .in_pps
                .saturating_add(stats.in_pps)
                .saturating_add(stats.out_pps);
            sum.in_bps = sum
                .in_bps
                .saturating_add(stats.in_bps)
                .saturating_add(stats.out_bps);
            let mut keep = |real, stats: Option<Stats>| {
                let id = RowId {
                    service: entry.service.id,
                    real,
                };
                let mut samples = history.remove(&id).unwrap_or_default();
                push(&mut samples, rate(stats));
                self.history.insert(id, samples);
            };
            keep(None, entry.service.stats);
            for dest in entry.dests.iter().flatten() {
                keep(Some(dest.addr), dest.stats);
            }
        }
        push(&mut self.totals.conns, sum.cps);
        push(&mut self.totals.packets, sum.in_pps);
        push(&mut self.totals.bytes, sum.in_bps);
        self.arrange(place);
    }

    /// Lines anew; the selection stays at what it was at, or at the place of that.
    fn arrange(&mut self, place: usize) {
        self.rows.clear();
        let many = self.entries.len();
        for (at, entry) in self.entries.iter().enumerate() {
            self.rows.push(Row {
                entry: at,
                dest: None,
            });
            let unfolded = self.unfolded(many, &entry.service.id);
            if let (Some(dests), true) = (&entry.dests, unfolded) {
                self.rows.extend((0..dests.len()).map(|dest| Row {
                    entry: at,
                    dest: Some(dest),
                }));
            }
        }
        let still = self
            .selected
            .is_some_and(|id| self.rows.iter().any(|row| self.id(*row) == Some(id)));
        if !still {
            self.select(place);
        }
        self.scroll();
    }

    /// What a line is about.
    pub(super) fn id(&self, row: Row) -> Option<RowId> {
        let entry = self.entries.get(row.entry)?;
        let real = match row.dest {
            None => None,
            Some(dest) => Some(entry.dests.as_ref()?.get(dest)?.addr),
        };
        Some(RowId {
            service: entry.service.id,
            real,
        })
    }

    /// The number of the selected line.
    pub(super) fn place(&self) -> usize {
        self.rows
            .iter()
            .position(|row| self.id(*row) == self.selected)
            .unwrap_or_default()
    }

    fn select(&mut self, place: usize) {
        let last = self.rows.len().saturating_sub(1);
        self.selected = self.rows.get(place.min(last)).and_then(|row| self.id(*row));
    }

    /// The selected line is one of those that are shown.
    pub(super) fn scroll(&mut self) {
        let place = self.place();
        let page = self.page.max(1);
        if place < self.offset {
            self.offset = place;
        } else if place >= self.offset.saturating_add(page) {
            self.offset = place.saturating_sub(page - 1);
        }
        let last = self.rows.len().saturating_sub(page);
        self.offset = self.offset.min(last);
    }

    /// Line, service and real server that are selected.
    pub(super) fn selection(&self) -> Option<(RowId, &Entry, Option<&Dest>)> {
        let id = self.selected?;
        let entry = self.entries.iter().find(|e| e.service.id == id.service)?;
        let dest = match id.real {
            None => None,
            Some(addr) => Some(entry.dests.as_ref()?.iter().find(|d| d.addr == addr)?),
        };
        Some((id, entry, dest))
    }

    pub(super) fn samples(&self, id: &RowId) -> Option<&VecDeque<u64>> {
        self.history.get(id)
    }

    /// The weight that a real server had before it was drained here.
    pub(super) fn weight_before(&self, id: &RowId) -> Option<i32> {
        self.drained
            .iter()
            .rev()
            .find(|d| d.row == *id)
            .map(|d| d.weight)
    }

    /// What to do about a key.
    pub(super) fn press(&mut self, key: Key) -> Option<Action> {
        let page = self.page.max(2) - 1;
        let place = self.place();
        match key {
            Key::Up => self.select(place.saturating_sub(1)),
            Key::Down => self.select(place.saturating_add(1)),
            Key::PageUp => self.select(place.saturating_sub(page)),
            Key::PageDown => self.select(place.saturating_add(page)),
            Key::Home => self.select(0),
            Key::End => self.select(usize::MAX),
            Key::Quit => return Some(Action::Quit),
            Key::Back => {
                if self.pane.take().is_none() {
                    return Some(Action::Quit);
                }
            }
            Key::Fold => {
                let (id, ..) = self.selection()?;
                if !self.toggled.remove(&id.service) {
                    self.toggled.insert(id.service);
                }
                self.selected = Some(RowId { real: None, ..id });
                self.arrange(place);
                return Some(Action::Refresh);
            }
            Key::Conns => return self.toggle(Below::Conns),
            Key::Locals => return self.toggle(Below::Locals),
            Key::Sort => {
                self.busiest_first = !self.busiest_first;
                return Some(Action::Refresh);
            }
            Key::Pause => self.paused = !self.paused,
            Key::Drain => return self.drain(),
            Key::Undo => return self.undo(),
        }
        self.scroll();
        // The connections are those of the selected line.
        self.pane.is_some().then_some(Action::Refresh)
    }

    fn toggle(&mut self, below: Below) -> Option<Action> {
        self.pane = match &self.pane {
            Some(pane) if pane.below == below => None,
            _ => Some(Pane {
                below,
                ..Pane::default()
            }),
        };
        Some(Action::Refresh)
    }

    fn drain(&mut self) -> Option<Action> {
        let Some((row, entry, Some(dest))) = self.selection() else {
            self.note = Some("a real server can be drained; select one".to_owned());
            return None;
        };
        if dest.weight == 0 {
            self.note = Some(format!(
                "{} of {} has weight 0 already",
                dest.addr,
                words(&entry.service.id)
            ));
            return None;
        }
        Some(Action::Weight {
            row,
            from: dest.weight,
            to: 0,
            undo: false,
        })
    }

    fn undo(&mut self) -> Option<Action> {
        let Some(last) = self.drained.last() else {
            self.note = Some("nothing to undo".to_owned());
            return None;
        };
        Some(Action::Weight {
            row: last.row,
            from: 0,
            to: last.weight,
            undo: true,
        })
    }

    /// A weight was set, or not.
    pub(super) fn done(&mut self, row: RowId, from: i32, undo: bool, result: Result<(), String>) {
        let name = row.real.map(|real| real.to_string()).unwrap_or_default();
        let service = words(&row.service);
        if undo {
            self.drained.pop();
        }
        self.note = Some(match (result, undo) {
            (Err(e), _) => e,
            (Ok(()), true) => format!("{name} of {service} has its weight back"),
            (Ok(()), false) => {
                self.drained.push(Drained { row, weight: from });
                format!("{name} of {service} gets no new connections (its weight was {from}); u undoes this")
            }
        });
    }

    /// Says how far the services are folded.
    pub(super) fn folded_hint(&self) -> bool {
        self.many()
    }
}

/// What the sparkline of a line is of.
fn rate(stats: Option<Stats>) -> u64 {
    let stats = stats.unwrap_or_default();
    stats.in_pps.saturating_add(stats.out_pps)
}

#[cfg(test)]
pub(super) mod tests {
    use rvs_netlink::{ForwardMethod, Protocol};

    use super::*;

    pub(in super::super) fn entries() -> Vec<Entry> {
        let service = |addr: &str, cps, pps| {
            let id = ServiceId::address(Protocol::TCP, addr.parse().unwrap());
            let mut service = Service::new(id, "wlc");
            let mut stats = Stats::default();
            (stats.cps, stats.in_pps, stats.in_bps) = (cps, pps, pps * 1000);
            service.stats = Some(stats);
            service
        };
        let dest = |addr: &str, weight, active| {
            let mut dest = Dest::new(addr.parse().unwrap(), ForwardMethod::MASQ);
            dest.weight = weight;
            dest.active = active;
            dest
        };
        vec![
            Entry {
                service: service("192.0.2.1:80", 12, 3400),
                dests: Some(vec![
                    dest("10.0.0.1:8080", 3, 7),
                    dest("10.0.0.2:8080", 0, 2),
                ]),
            },
            Entry {
                service: service("192.0.2.2:443", 1, 9000),
                dests: Some(vec![dest("10.0.0.3:443", 1, 0)]),
            },
        ]
    }

    fn app() -> App {
        let mut app = App {
            page: 10,
            ..App::default()
        };
        app.update(entries());
        app
    }

    #[test]
    fn selection_stays_at_what_it_was_at() {
        let mut app = app();
        assert_eq!(app.rows.len(), 5);
        app.press(Key::Down);
        app.press(Key::Down);
        let (id, ..) = app.selection().unwrap();
        assert_eq!(id.real.unwrap().to_string(), "10.0.0.2:8080");
        // One above it goes.
        let mut fewer = entries();
        fewer[0].dests.as_mut().unwrap().remove(0);
        app.update(fewer.clone());
        assert_eq!(app.selection().unwrap().0, id);
        assert_eq!(app.place(), 1);
        // It goes itself: the next one has its place.
        fewer[0].dests.as_mut().unwrap().clear();
        app.update(fewer);
        assert_eq!(app.place(), 1);
        app.press(Key::End);
        assert_eq!(app.place(), 2);
        // Nothing is left.
        app.update(Vec::new());
        assert!(app.selection().is_none());
        for key in [
            Key::Up,
            Key::Down,
            Key::Drain,
            Key::Undo,
            Key::Fold,
            Key::End,
        ] {
            assert_eq!(app.press(key), None);
        }
    }

    #[test]
    fn drain_and_undo() {
        let mut app = app();
        assert_eq!(app.press(Key::Drain), None);
        assert!(app.note.as_ref().unwrap().contains("select one"));
        app.press(Key::Down);
        let Some(Action::Weight {
            row,
            from: 3,
            to: 0,
            undo: false,
        }) = app.press(Key::Drain)
        else {
            panic!("{app:?}")
        };
        app.done(row, 3, false, Ok(()));
        assert_eq!(app.weight_before(&row), Some(3));
        let undo = Some(Action::Weight {
            row,
            from: 0,
            to: 3,
            undo: true,
        });
        assert_eq!(app.press(Key::Undo), undo);
        app.done(row, 0, true, Ok(()));
        assert_eq!(app.press(Key::Undo), None);
        // A refused one isn't remembered.
        app.done(row, 3, false, Err("no".to_owned()));
        assert_eq!(app.weight_before(&row), None);
        // One that takes nothing already.
        app.press(Key::Down);
        assert_eq!(app.press(Key::Drain), None);
        assert!(app.note.as_ref().unwrap().contains("already"));
    }

    #[test]
    fn folding_and_order() {
        let mut app = app();
        assert_eq!(app.press(Key::Fold), Some(Action::Refresh));
        assert_eq!(app.rows.len(), 3);
        assert!(!app.unfolded(2, &entries()[0].service.id));
        app.press(Key::Fold);
        assert_eq!(app.rows.len(), 5);
        app.press(Key::Sort);
        app.update(entries());
        assert_eq!(app.entries[0].service.id, entries()[1].service.id);
        // Many services begin folded: nobody asks for their real servers.
        assert!(!app.unfolded(UNFOLDED + 1, &entries()[0].service.id));
    }

    #[test]
    fn scrolling() {
        let mut app = App {
            page: 3,
            ..App::default()
        };
        app.update(entries());
        for _ in 0..4 {
            app.press(Key::Down);
        }
        assert_eq!((app.place(), app.offset), (4, 2));
        app.press(Key::PageUp);
        assert_eq!((app.place(), app.offset), (2, 2));
        app.press(Key::Home);
        assert_eq!((app.place(), app.offset), (0, 0));
    }

    #[test]
    fn histories_end_with_what_they_are_of() {
        let mut app = app();
        for _ in 0..HISTORY + 5 {
            app.update(entries());
        }
        assert_eq!(app.totals.conns.len(), HISTORY);
        assert_eq!(app.totals.conns.back(), Some(&13));
        assert_eq!(app.history.len(), 5);
        app.update(Vec::new());
        assert!(app.history.is_empty());
    }
}
