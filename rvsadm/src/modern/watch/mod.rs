// SPDX-License-Identifier: GPL-2.0-or-later

//! `watch`: services, real servers, rates and connections, live on the whole screen.

mod app;
mod view;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use rvs_netlink::client::{Client, Error};
use rvs_netlink::{Message, ServiceId};

use super::cli::Watch;
use super::conns;
use super::output::{no_colour, Failure};
use super::{change, key, pool, show, the_dest};
use app::{Action, App, Below, Entry, Key, Pane, RowId};
use view::Look;

/// Rows that are read for the connections of a line.
const CONNS: usize = 200;
/// How long that may take: the table may have millions.
const CONNS_TIME: Duration = Duration::from_millis(200);

/// The services and those real servers that are on show.
fn fetch(client: &mut Client, only: Option<&ServiceId>, app: &App) -> Result<Vec<Entry>, Error> {
    let mut services = match only {
        Some(id) => vec![client.service(id)?],
        None => client.services()?,
    };
    services.sort_by_key(|s| key(&s.id));
    let count = services.len();
    services
        .into_iter()
        .map(|service| {
            let dests = if app.unfolded(count, &service.id) {
                let mut dests = client.dests(&service.id)?;
                dests.sort_by_key(|d| d.addr);
                Some(dests)
            } else {
                None
            };
            Ok(Entry { service, dests })
        })
        .collect()
}

fn meaning(key: KeyEvent) -> Option<Key> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Key::Quit);
    }
    Some(match key.code {
        KeyCode::Up | KeyCode::Char('k') => Key::Up,
        KeyCode::Down | KeyCode::Char('j') => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Key::Home,
        KeyCode::End | KeyCode::Char('G') => Key::End,
        KeyCode::Enter | KeyCode::Char(' ') => Key::Fold,
        KeyCode::Char('d') => Key::Drain,
        KeyCode::Char('u') => Key::Undo,
        KeyCode::Char('c') => Key::Conns,
        KeyCode::Char('l') => Key::Locals,
        KeyCode::Char('s') => Key::Sort,
        KeyCode::Char('p') => Key::Pause,
        KeyCode::Esc => Key::Back,
        KeyCode::Char('q') => Key::Quit,
        _ => return None,
    })
}

/// Sets a weight, unless somebody else has done so meanwhile.
fn set_weight(client: &mut Client, row: RowId, from: i32, to: i32) -> Result<(), String> {
    let Some(real) = row.real else {
        return Ok(());
    };
    let failed = |e: Failure| e.to_string();
    let mut dest = the_dest(client, &row.service, real).map_err(failed)?;
    if dest.weight != from {
        return Err(format!(
            "{real} has weight {} by now; it is left alone",
            dest.weight
        ));
    }
    dest.weight = to;
    change(
        client,
        &Message::set_dest(&row.service, &dest),
        &row.service,
    )
    .map_err(failed)
}

/// The local addresses of the selected line's service.
fn locals(client: &mut Client, app: &App) -> Pane {
    let mut pane = Pane {
        below: Below::Locals,
        ..Pane::default()
    };
    if let Some((_, entry, _)) = app.selection() {
        match pool::watched(client, &entry.service) {
            Ok(lines) => pane.locals = lines,
            Err(e) => pane.trouble = Some(e.to_string()),
        }
    }
    pane
}

/// The connections of the selected line.
fn pane(app: &App) -> Pane {
    let Some((id, entry, dest)) = app.selection() else {
        return Pane::default();
    };
    let filter = conns::Filter::of_service(
        &id.service,
        dest.map(|d| d.addr),
        entry.dests.as_deref().unwrap_or_default(),
    );
    let until = Instant::now() + CONNS_TIME;
    match conns::some(&filter, CONNS, until) {
        Ok((conns, more)) => Pane {
            conns,
            more,
            ..Pane::default()
        },
        Err(e) => Pane {
            trouble: Some(e.to_string()),
            ..Pane::default()
        },
    }
}

struct Watcher {
    client: Option<Client>,
    only: Option<ServiceId>,
    interval: Duration,
    app: App,
    title: String,
    look: Look,
}

impl Watcher {
    /// Asks the kernel; what goes wrong is a note, the screen stays.
    fn refresh(&mut self) {
        if self.client.is_none() {
            // The module may have gone, and come back under another number.
            match Client::open() {
                Ok(client) => self.client = Some(client),
                Err(e) => self.app.note = Some(Failure::from(e).to_string()),
            }
        }
        let Some(client) = &mut self.client else {
            self.app.update(Vec::new());
            return;
        };
        match fetch(client, self.only.as_ref(), &self.app) {
            Ok(entries) => self.app.update(entries),
            // The next round sees it whole.
            Err(Error::Interrupted) => {}
            Err(e) => {
                self.app.note = Some(Failure::from(e).to_string());
                self.client = None;
                return;
            }
        }
        self.app.pane = match self.app.pane.as_ref().map(|pane| pane.below) {
            None => None,
            Some(Below::Conns) => Some(pane(&self.app)),
            Some(Below::Locals) => Some(locals(client, &self.app)),
        };
    }

    /// Carries out what a key asks for; whether to go on.
    fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Quit => return false,
            Action::Refresh => {}
            Action::Weight {
                row,
                from,
                to,
                undo,
            } => {
                let result = match &mut self.client {
                    Some(client) => set_weight(client, row, from, to),
                    None => Err(crate::NO_MODULE.to_owned()),
                };
                self.app.done(row, from, undo, result);
            }
        }
        self.refresh();
        true
    }

    fn run(&mut self, terminal: &mut DefaultTerminal, ended: &AtomicBool) -> io::Result<()> {
        self.refresh();
        let mut next = Instant::now() + self.interval;
        loop {
            terminal.draw(|frame| view::draw(frame, &mut self.app, &self.title, self.look))?;
            let wait = next.saturating_duration_since(Instant::now());
            let there = match event::poll(wait) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => false,
                other => other?,
            };
            if ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            if there {
                if let Event::Key(key) = event::read()? {
                    let action = meaning(key).and_then(|key| self.app.press(key));
                    if action.is_some_and(|action| !self.act(action)) {
                        return Ok(());
                    }
                }
            }
            if Instant::now() >= next {
                if !self.app.paused {
                    self.refresh();
                }
                next = Instant::now() + self.interval;
            }
        }
    }
}

/// For programs: what `stats --json` prints, on a line of its own, again and again.
fn lines(
    only: Option<&ServiceId>,
    interval: Duration,
    out: &mut impl Write,
) -> Result<(), Failure> {
    loop {
        let listing = show::listing(&show::entries(only)?);
        serde_json::to_writer(&mut *out, &listing)?;
        out.write_all(b"\n")?;
        out.flush()?;
        std::thread::sleep(interval);
    }
}

pub(super) fn run(args: &Watch, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let only = args.listed.id().map_err(Failure::Usage)?;
    let interval = Duration::from_secs_f64(args.interval);
    if as_json {
        return lines(only.as_ref(), interval, out);
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "watch draws on a terminal, which standard output isn't; `rvsadm stats` prints once, `rvsadm --json watch` \
             prints lines"
                .to_owned(),
        ));
    }
    let mut client = Client::open()?;
    if let Some(id) = &only {
        super::the_service(&mut client, id)?;
    }
    let [major, minor, patch] = client.info()?.version_parts();
    let mut watcher = Watcher {
        client: Some(client),
        only,
        interval,
        app: App::default(),
        title: format!("IPVS {major}.{minor}.{patch}"),
        look: Look {
            colour: !no_colour(),
        },
    };
    // The screen comes back as it was, whatever ends this; but for SIGHUP there is no screen any more.
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let mut terminal = ratatui::try_init()?;
    let result = watcher.run(&mut terminal, &ended);
    ratatui::restore();
    Ok(result?)
}
