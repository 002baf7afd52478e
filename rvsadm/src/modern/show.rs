// SPDX-License-Identifier: GPL-2.0-or-later

//! Lists of services.

use std::io::Write;

use rvs_netlink::client::Client;
use rvs_netlink::{Dest, LocalAddress, Service, ServiceId, Stats};
use serde::Serialize;

use super::model::{words, Connections, Method, RealState, ServiceState};
use super::output::{Failure, Paint, Tone};
use super::{json, pool, table, the_service, Entry, Table};

/// What is listed: everything, or one service.
pub(super) fn entries(id: Option<&ServiceId>) -> Result<Table, Failure> {
    let mut client = Client::open()?;
    match id {
        None => Ok(table(&mut client)?),
        Some(id) => {
            let service = the_service(&mut client, id)?;
            Ok(vec![Entry::of(&mut client, service)?])
        }
    }
}

/// A service with all that is known of it.
pub(super) fn full(service: &Service, dests: &[Dest], locals: &[LocalAddress]) -> ServiceState {
    let mut state = ServiceState::of(service, &[], locals);
    state.fullnat = pool::state(service, locals);
    state.stats = service.stats.map(Into::into);
    state.real_servers = dests.iter().map(full_real).collect();
    state
}

/// A real server with all that is known of it.
pub(super) fn full_real(dest: &Dest) -> RealState {
    let mut real = RealState::of(dest);
    real.connections = Some(Connections {
        active: dest.active,
        inactive: dest.inactive,
        persistent: dest.persistent,
    });
    real.stats = dest.stats.map(Into::into);
    real
}

/// Services with all that is known of them.
#[derive(Serialize)]
pub(crate) struct Listing {
    services: Vec<ServiceState>,
}

/// What is printed as JSON.
pub(crate) fn listing(entries: &[Entry]) -> Listing {
    Listing {
        services: entries
            .iter()
            .map(|e| full(&e.service, &e.dests, &e.locals))
            .collect(),
    }
}

/// A service in one line.
pub(super) fn headline(service: &Service) -> String {
    let state = ServiceState::of(service, &[], &[]);
    let mut line = format!("{} {}", words(&service.id), service.scheduler);
    if !state.scheduler_flags.is_empty() {
        line.push_str(&format!(" ({})", state.scheduler_flags.join(",")));
    }
    if let Some(seconds) = state.persistent {
        line.push_str(&format!(" persistent {seconds} s"));
    }
    if let Some(mask) = &state.netmask {
        line.push_str(&format!(" netmask {mask}"));
    }
    if let Some(pe) = &state.pe {
        line.push_str(&format!(" pe {pe}"));
    }
    if state.one_packet {
        line.push_str(" one-packet");
    }
    if let Some(ports) = &state.local_ports {
        line.push_str(&format!(" local-ports {ports}"));
    }
    if let Some(kind) = state.toa {
        let syn = if state.toa_on_syn { " on-syn" } else { "" };
        line.push_str(&format!(" toa {kind}{syn}"));
    }
    if let Some(version) = state.proxy_protocol {
        line.push_str(&format!(" proxy-protocol {version}"));
    }
    if !state.tunnel_sources.is_empty() {
        let sources = state.tunnel_sources.join(",");
        line.push_str(&format!(" tunnel-sources {sources}"));
    }
    if state.tunnel_mss_clamp {
        line.push_str(" tunnel-mss-clamp");
    }
    line
}

/// `service list`.
pub(super) fn services(
    id: Option<&ServiceId>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let entries = entries(id)?;
    if as_json {
        return Ok(json(&listing(&entries), out)?);
    }
    let paint = Paint::stdout();
    for Entry {
        service,
        dests,
        locals,
    } in &entries
    {
        let line = headline(service);
        writeln!(out, "{}", paint.paint(Tone::Head, &line))?;
        for line in pool::listed(service, locals) {
            writeln!(out, "  {line}")?;
        }
        let width = dests
            .iter()
            .map(|d| d.addr.to_string().len())
            .max()
            .unwrap_or_default();
        for dest in dests {
            let mut line = format!(
                "  {:width$} {:6} weight {:<5} {} active, {} inactive",
                dest.addr.to_string(),
                Method::in_effect(service, dest),
                dest.weight,
                dest.active,
                dest.inactive
            );
            if dest.persistent != 0 {
                line.push_str(&format!(", {} persistent", dest.persistent));
            }
            if dest.u_thresh != 0 {
                line.push_str(&format!(
                    ", limit {} (again below {})",
                    dest.u_thresh, dest.l_thresh
                ));
            }
            let tone = if dest.weight == 0 {
                Tone::Changed
            } else {
                Tone::Plain
            };
            writeln!(out, "{}", paint.paint(tone, &line))?;
        }
    }
    Ok(())
}

/// A number in few characters.
pub(super) fn short(number: u64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut value = number;
    let mut tenth = 0;
    let mut unit = 0;
    while value >= 10_000 && unit + 1 < UNITS.len() {
        tenth = value % 1000 / 100;
        value /= 1000;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit > 0 && value < 100 {
        format!("{value}.{tenth}{name}")
    } else {
        format!("{value}{name}")
    }
}

fn row(stats: Option<Stats>) -> String {
    let s = stats.unwrap_or_default();
    [
        s.conns,
        s.in_pkts,
        s.out_pkts,
        s.in_bytes,
        s.out_bytes,
        s.cps,
        s.in_pps,
        s.out_pps,
        s.in_bps,
        s.out_bps,
    ]
    .iter()
    .map(|n| format!(" {:>7}", short(*n)))
    .collect::<Vec<_>>()
    .concat()
}

/// `stats`.
pub(super) fn stats(
    id: Option<&ServiceId>,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let entries = entries(id)?;
    if as_json {
        return Ok(json(&listing(&entries), out)?);
    }
    let paint = Paint::stdout();
    let names = entries.iter().flat_map(|entry| {
        std::iter::once(words(&entry.service.id).len())
            .chain(entry.dests.iter().map(|d| d.addr.to_string().len() + 2))
    });
    let width = names.max().unwrap_or_default();
    let title = [
        "conns", "pkt in", "pkt out", "B in", "B out", "conn/s", "pkt/s in", "out", "B/s in", "out",
    ]
    .iter()
    .map(|name| format!(" {name:>7}"))
    .collect::<Vec<_>>()
    .concat();
    writeln!(
        out,
        "{}",
        paint.paint(Tone::Head, &format!("{:width$}{title}", ""))
    )?;
    for Entry { service, dests, .. } in &entries {
        writeln!(out, "{:width$}{}", words(&service.id), row(service.stats))?;
        for dest in dests {
            let name = format!("  {}", dest.addr);
            writeln!(out, "{name:width$}{}", row(dest.stats))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn short_numbers() {
        assert_eq!(short(0), "0");
        assert_eq!(short(9999), "9999");
        assert_eq!(short(10_000), "10.0k");
        assert_eq!(short(123_456), "123k");
        assert_eq!(short(12_345_678), "12.3M");
        assert_eq!(short(u64::MAX), "18.4E");
    }
}
