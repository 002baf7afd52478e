// SPDX-License-Identifier: GPL-2.0-or-later

//! What `watch` looks like.

use std::collections::VecDeque;

use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row as Cells, Sparkline, Table};
use ratatui::Frame;
use rvs_netlink::Stats;

use super::app::{App, Below, Entry, Pane, Row};
use crate::modern::model::{words, Method};
use crate::modern::show::short;

/// Styles, or none but those that have no colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) colour: bool,
}

impl Look {
    fn of(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}

const KEYS: &str =
    " up/down select  d drain  u undo  c connections  l locals  space fold  s busiest  p pause  q quit";
const COLUMNS: [&str; 11] = [
    "service / real server",
    "method",
    "weight",
    "active",
    "inactive",
    "conn/s",
    "pkt/s in",
    "out",
    "B/s in",
    "out",
    "packets/s",
];
const LEVELS: [&str; 9] = [
    " ", "\u{2581}", "\u{2582}", "\u{2583}", "\u{2584}", "\u{2585}", "\u{2586}", "\u{2587}",
    "\u{2588}",
];

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, title: &str, look: Look) {
    let area = frame.area();
    let tall = area.height >= 16;
    let [head, sparks, table, pane, note, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if tall { 4 } else { 0 }),
        Constraint::Fill(2),
        if app.pane.is_some() {
            Constraint::Fill(1)
        } else {
            Constraint::Length(0)
        },
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(headline(app, title, look), head);
    if tall {
        totals(frame, sparks, app, look);
    }
    list(frame, table, app, look);
    if app.pane.is_some() {
        below(frame, pane, app, look);
    }
    let text = app.note.as_deref().unwrap_or_default();
    frame.render_widget(
        Paragraph::new(format!(" {text}")).style(look.of(Color::Yellow)),
        note,
    );
    frame.render_widget(Paragraph::new(KEYS).style(look.of(Color::Cyan)), keys);
}

fn headline(app: &App, title: &str, look: Look) -> Paragraph<'static> {
    let reals: usize = app
        .entries
        .iter()
        .flat_map(|e| &e.dests)
        .map(Vec::len)
        .sum();
    let asked = app.entries.iter().filter(|e| e.dests.is_some()).count();
    let mut text = format!(
        " {title}  {} services, {reals} real servers",
        app.entries.len()
    );
    if asked < app.entries.len() {
        text.push_str(&format!(" in {asked} of them"));
    }
    if app.folded_hint() {
        text.push_str(" (space unfolds)");
    }
    if app.paused {
        text.push_str("  PAUSED");
    }
    Paragraph::new(text).style(look.head())
}

/// Three rates of everything.
fn totals(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let areas: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3])
        .spacing(1)
        .areas(area);
    let all = [
        ("conn/s", &app.totals.conns, Color::Green),
        ("packets/s", &app.totals.packets, Color::Blue),
        ("bytes/s", &app.totals.bytes, Color::Magenta),
    ];
    for (area, (name, samples, colour)) in areas.into_iter().zip(all) {
        let now = short(samples.back().copied().unwrap_or_default());
        let block = Block::new()
            .borders(Borders::TOP)
            .title(Span::styled(format!(" {name} {now} "), look.head()));
        let width = usize::from(area.width);
        let skip = samples.len().saturating_sub(width);
        let data: Vec<u64> = samples.iter().skip(skip).copied().collect();
        frame.render_widget(
            Sparkline::default()
                .block(block)
                .data(data)
                .style(look.of(colour)),
            area,
        );
    }
}

/// The newest samples as one line of characters, the largest as high as can be.
fn spark(samples: Option<&VecDeque<u64>>, width: usize) -> String {
    let Some(samples) = samples else {
        return String::new();
    };
    let shown: Vec<u64> = samples
        .iter()
        .skip(samples.len().saturating_sub(width))
        .copied()
        .collect();
    let top = shown.iter().copied().max().unwrap_or_default().max(1);
    let mut text = " ".repeat(width.saturating_sub(shown.len()));
    for value in shown {
        // Anything above nothing can be seen.
        let level = u128::from(value)
            .saturating_mul(8)
            .div_ceil(u128::from(top));
        let level = usize::try_from(level).unwrap_or_default();
        text.push_str(LEVELS.get(level).copied().unwrap_or(" "));
    }
    text
}

/// The rates of a line.
fn rates(stats: Option<Stats>) -> [String; 5] {
    let s = stats.unwrap_or_default();
    [s.cps, s.in_pps, s.out_pps, s.in_bps, s.out_bps].map(short)
}

/// A text in the right half of its column.
fn right(text: String, width: u16) -> Cell<'static> {
    Cell::from(format!("{text:>width$}", width = usize::from(width)))
}

/// The least width of a name.
const NAME: u16 = 22;
/// Of the columns between name and sparkline.
const WIDTHS: [u16; 9] = [8, 6, 7, 8, 7, 8, 7, 7, 7];

/// A line of the table with so many columns after the name, and a sparkline so wide.
fn cells(
    app: &App,
    row: Row,
    entry: &Entry,
    (columns, width): (usize, u16),
    look: Look,
) -> Option<Cells<'static>> {
    let id = app.id(row)?;
    let mut style = Style::new();
    let mut line: Vec<Cell<'static>> = Vec::new();
    let mut numbers: Vec<String> = Vec::new();
    match row.dest {
        None => {
            let dests = entry.dests.as_deref().unwrap_or_default();
            let shown = app.unfolded(app.entries.len(), &id.service) && entry.dests.is_some();
            let mark = if shown { ' ' } else { '+' };
            line.push(Cell::from(format!("{mark}{}", words(&id.service))));
            line.push(Cell::from(entry.service.scheduler.clone()));
            numbers.push(String::new());
            let sum = |of: fn(&rvs_netlink::Dest) -> u32| -> String {
                if entry.dests.is_none() {
                    return String::new();
                }
                short(dests.iter().map(|d| u64::from(of(d))).sum())
            };
            numbers.push(sum(|d| d.active));
            numbers.push(sum(|d| d.inactive));
            numbers.extend(rates(entry.service.stats));
            style = look.head();
        }
        Some(at) => {
            let dest = entry.dests.as_ref()?.get(at)?;
            line.push(Cell::from(format!("   {}", dest.addr)));
            let method = Method::in_effect(&entry.service, dest);
            line.push(Cell::from(method.to_string()));
            numbers.push(match app.weight_before(&id) {
                Some(was) if dest.weight == 0 => format!("0<{was}"),
                _ => dest.weight.to_string(),
            });
            numbers.push(short(dest.active.into()));
            numbers.push(short(dest.inactive.into()));
            numbers.extend(rates(dest.stats));
            if dest.weight == 0 {
                style = look.of(Color::Yellow);
            }
        }
    }
    line.extend(
        numbers
            .into_iter()
            .zip(WIDTHS.into_iter().skip(1))
            .map(|(text, width)| right(text, width)),
    );
    line.truncate(columns + 1);
    line.push(Cell::from(spark(app.samples(&id), usize::from(width))).style(look.of(Color::Blue)));
    Some(Cells::new(line).style(style))
}

fn list(frame: &mut Frame<'_>, area: Rect, app: &mut App, look: Look) {
    app.page = usize::from(area.height.saturating_sub(1));
    app.scroll();
    // The columns that fit; whatever is left is shared by names and sparklines.
    let needed = |columns: usize| -> u16 { WIDTHS.iter().take(columns).map(|w| w + 1).sum() };
    let columns = (0..=WIDTHS.len())
        .rev()
        .find(|n| NAME + needed(*n) <= area.width)
        .unwrap_or_default();
    let left = area.width.saturating_sub(needed(columns));
    let name = (left * 3 / 5).clamp(NAME, 60);
    let trend = left.saturating_sub(name + 1).min(60);
    let mut widths = vec![Constraint::Length(name)];
    widths.extend(
        WIDTHS
            .into_iter()
            .take(columns)
            .chain([trend])
            .map(Constraint::Length),
    );
    let place = app.place();
    let rows: Vec<Cells<'static>> = app
        .rows
        .iter()
        .enumerate()
        .skip(app.offset)
        .take(app.page)
        .filter_map(|(at, row)| {
            let entry = app.entries.get(row.entry)?;
            let line = cells(app, *row, entry, (columns, trend), look)?;
            Some(if at == place {
                line.style(look.chosen())
            } else {
                line
            })
        })
        .collect();
    let head = COLUMNS
        .iter()
        .enumerate()
        .filter(|(at, _)| *at <= columns || *at > WIDTHS.len())
        .map(|(at, title)| match at {
            2..=9 => right(
                (*title).to_owned(),
                WIDTHS.get(at - 1).copied().unwrap_or_default(),
            ),
            _ => Cell::from(*title),
        });
    let table = Table::new(rows, widths)
        .header(Cells::new(head).style(look.head().add_modifier(Modifier::UNDERLINED)))
        .column_spacing(1);
    frame.render_widget(table, area);
    if app.entries.is_empty() && area.height > 2 {
        let middle = Rect {
            y: area.y + 1,
            height: 1,
            ..area
        };
        frame.render_widget(
            Paragraph::new(" no services; `rvsadm service add` makes one"),
            middle,
        );
    }
}

fn below(frame: &mut Frame<'_>, area: Rect, app: &App, look: Look) {
    let Some(pane) = &app.pane else { return };
    if pane.below == Below::Locals {
        return locals(frame, area, app, pane, look);
    }
    let of = match app.selection() {
        None => String::new(),
        Some((id, _, None)) => format!(" of {}", words(&id.service)),
        Some((id, _, Some(dest))) => format!(" of {} to {}", words(&id.service), dest.addr),
    };
    let room = usize::from(area.height.saturating_sub(1));
    let shown = pane.conns.len().min(room);
    let more = if pane.more || pane.conns.len() > room {
        format!(", the first {shown}")
    } else {
        String::new()
    };
    let title = format!(" connections{of}{more} ");
    let block = Block::new()
        .borders(Borders::TOP)
        .title(Span::styled(title, look.head()));
    let lines: Vec<Line<'static>> = match &pane.trouble {
        Some(trouble) => vec![Line::from(format!(" {trouble}"))],
        None if pane.conns.is_empty() => vec![Line::from(" none")],
        None => pane
            .conns
            .iter()
            .take(room)
            .map(|conn| Line::from(format!(" {}", conn.line())))
            .collect(),
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn locals(frame: &mut Frame<'_>, area: Rect, app: &App, pane: &Pane, look: Look) {
    let of = app
        .selection()
        .map(|(id, ..)| format!(" of {}", words(&id.service)))
        .unwrap_or_default();
    let block = Block::new()
        .borders(Borders::TOP)
        .title(Span::styled(format!(" local addresses{of} "), look.head()));
    let lines: Vec<Line<'static>> = match &pane.trouble {
        Some(trouble) => vec![Line::from(format!(" {trouble}"))],
        None => pane
            .locals
            .iter()
            .map(|line| Line::from(format!(" {line}")))
            .collect(),
    };
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;

    use super::super::app::tests::entries;
    use super::super::app::{Key, Pane};
    use super::*;

    fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| draw(frame, app, "rvs", Look { colour: false }))
            .unwrap();
        let buffer = terminal.backend().buffer();
        (0..height)
            .map(|y| {
                let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn everything_is_on_the_screen() {
        let mut app = App::default();
        app.update(entries());
        let lines = screen(&mut app, 130, 24);
        let text = lines.join("\n");
        for part in [
            "rvs  2 services, 3 real servers",
            "conn/s 13",
            "packets/s 12.4k",
            "bytes/s 12.4M",
            " tcp 192.0.2.1:80",
            "   10.0.0.2:8080",
            "d drain",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let busy = lines.iter().find(|l| l.contains("192.0.2.2:443")).unwrap();
        let words: Vec<&str> = busy.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "tcp",
                "192.0.2.2:443",
                "wlc",
                "0",
                "0",
                "1",
                "9000",
                "0",
                "9000k",
                "0",
                "\u{2588}"
            ]
        );
    }

    #[test]
    fn any_size_will_do() {
        let mut app = App::default();
        app.update(entries());
        app.press(Key::End);
        app.press(Key::Conns);
        for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 24), (300, 100)] {
            screen(&mut app, width, height);
        }
        // The selected line is on the screen however low that is.
        let mut app = App::default();
        app.update(entries());
        app.press(Key::End);
        let lines = screen(&mut app, 80, 6);
        assert!(
            lines.iter().any(|l| l.contains("10.0.0.3:443")),
            "{lines:?}"
        );
    }

    #[test]
    fn panes_and_notes() {
        let mut app = App::default();
        app.update(entries());
        app.press(Key::Down);
        app.press(Key::Conns);
        app.note = Some("something happened".to_owned());
        let text = screen(&mut app, 100, 30).join("\n");
        assert!(
            text.contains("connections of tcp 192.0.2.1:80 to 10.0.0.1:8080"),
            "{text}"
        );
        assert!(text.contains("something happened"));
        app.press(Key::Locals);
        app.pane.as_mut().unwrap().locals = vec!["10.77.0.1  3 connections".to_owned()];
        let text = screen(&mut app, 100, 30).join("\n");
        assert!(
            text.contains("local addresses of tcp 192.0.2.1:80")
                && text.contains("10.77.0.1  3 connections"),
            "{text}"
        );
        app.pane = Some(Pane {
            trouble: Some("no such file".to_owned()),
            ..Pane::default()
        });
        assert!(screen(&mut app, 100, 30)
            .join("\n")
            .contains("no such file"));
    }

    #[test]
    fn sparks() {
        let samples = VecDeque::from([0, 1, 50, 100]);
        assert_eq!(spark(Some(&samples), 6), "   \u{2581}\u{2584}\u{2588}");
        assert_eq!(spark(Some(&samples), 2), "\u{2584}\u{2588}");
        assert_eq!(spark(Some(&VecDeque::from([u64::MAX])), 1), "\u{2588}");
        assert_eq!(spark(None, 3), "");
    }
}
