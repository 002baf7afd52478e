// SPDX-License-Identifier: GPL-2.0-or-later

//! `pool`: local addresses of services, which make NAT FullNAT.

use std::io::Write;

use rvs_netlink::client::Client;
use rvs_netlink::{LocalAddress, Message, Service, ServiceId};
use serde::Serialize;

use super::cli::{PoolArgs, PoolVerb};
use super::model::{words, FullNatState, LocalState};
use super::output::{Failure, Paint, Tone};
use super::{all_or_nothing, json, key, show, the_service};
use crate::extension;

/// A request, and the one that takes it back.
pub(super) type Step = (Message, Option<Message>);

pub(super) fn adding(id: &ServiceId, local: &LocalAddress) -> Step {
    (
        Message::new_local(id, local),
        Some(Message::del_local(id, local)),
    )
}

pub(super) fn removing(id: &ServiceId, local: &LocalAddress) -> Step {
    let (add, remove) = (Message::new_local(id, local), Message::del_local(id, local));
    (remove, Some(add))
}

/// How to get from one pool to another.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    /// Removals that have to come before the additions, which want the same addresses or the room.
    pub(super) first: Vec<&'a LocalAddress>,
    pub(super) add: Vec<&'a LocalAddress>,
    /// All other removals: connections find addresses meanwhile.
    pub(super) last: Vec<&'a LocalAddress>,
}

fn same(a: &LocalAddress, b: &LocalAddress) -> bool {
    (a.addr, a.prefix_len, &a.interface) == (b.addr, b.prefix_len, &b.interface)
}

impl<'a> Change<'a> {
    pub(super) fn new(is: &'a [LocalAddress], shall: &'a [LocalAddress]) -> Self {
        let mut change = Self::default();
        for local in shall {
            if is.iter().all(|other| !same(local, other)) {
                change.add.push(local);
            }
        }
        let both: Vec<LocalAddress> = is
            .iter()
            .chain(change.add.iter().copied())
            .cloned()
            .collect();
        let full = extension::too_many(&both);
        for local in is {
            if shall.iter().any(|other| same(local, other)) {
                continue;
            }
            let in_the_way = change
                .add
                .iter()
                .any(|other| extension::overlap(local, other));
            if full || in_the_way {
                change.first.push(local);
            } else {
                change.last.push(local);
            }
        }
        change
    }
}

/// What a service counts of FullNAT.
pub(super) fn state(service: &Service, locals: &[LocalAddress]) -> Option<FullNatState> {
    let stats = service.fullnat_stats?;
    Some(FullNatState {
        locals: stats.locals,
        exhausted: stats.exhausted,
        toa_added: stats.toa_added,
        toa_no_room: stats.toa_no_room,
        toa_removed: stats.toa_removed,
        pool: locals.iter().map(LocalState::of).collect(),
    })
}

/// A service and its pool, to be printed.
#[derive(Serialize)]
struct Pool {
    service: String,
    local_ports: String,
    toa: Option<u8>,
    toa_on_syn: bool,
    proxy_protocol: Option<u8>,
    #[serde(flatten)]
    state: FullNatState,
}

impl Pool {
    fn of(service: &Service, locals: &[LocalAddress]) -> Self {
        let fullnat = service.fullnat.unwrap_or_default();
        Self {
            service: words(&service.id),
            local_ports: format!("{}-{}", fullnat.port_min, fullnat.port_max),
            toa: Some(fullnat.toa_kind).filter(|kind| *kind != 0),
            toa_on_syn: fullnat.toa_on_syn,
            proxy_protocol: Some(fullnat.proxy_version).filter(|version| *version != 0),
            state: state(service, locals).unwrap_or_default(),
        }
    }

    /// For people.
    fn print(&self, paint: Paint, out: &mut impl Write) -> std::io::Result<()> {
        let state = &self.state;
        let mut head = format!(
            "{} {}, ports {}",
            self.service,
            plural(u64::from(state.locals), "local address", "local addresses"),
            self.local_ports
        );
        if let Some(kind) = self.toa {
            let syn = if self.toa_on_syn { ", on SYNs too" } else { "" };
            head.push_str(&format!(", toa {kind}{syn}"));
        }
        if let Some(version) = self.proxy_protocol {
            head.push_str(&format!(", proxy-protocol {version}"));
        }
        writeln!(out, "{}", paint.paint(Tone::Head, &head))?;
        for line in lines(&state.pool) {
            writeln!(out, "  {line}")?;
        }
        let tone = if state.exhausted > 0 {
            Tone::Bad
        } else {
            Tone::Plain
        };
        let refused = plural(state.exhausted, "connection", "connections");
        let text = format!("  {refused} refused because no local port was free");
        writeln!(out, "{}", paint.paint(tone, &text))?;
        if self.toa.is_some() || state.toa_added != 0 {
            writeln!(
                out,
                "  toa: {} added, {} without room, {} of clients removed",
                state.toa_added, state.toa_no_room, state.toa_removed
            )?;
        }
        Ok(())
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Local addresses with what they count, a line each.
pub(super) fn lines(pool: &[LocalState]) -> Vec<String> {
    let width = pool.iter().map(|l| l.address.len()).max();
    let width = width.unwrap_or_default();
    pool.iter()
        .map(|local| {
            format!(
                "{:width$}  {}, {}",
                local.address,
                plural(local.connections.into(), "connection", "connections"),
                plural(local.port_conflicts, "port conflict", "port conflicts")
            )
        })
        .collect()
}

/// Those services that have, or had, something of FullNAT; or one.
fn pools(client: &mut Client, id: Option<&ServiceId>, each: bool) -> Result<Vec<Pool>, Failure> {
    let services = match id {
        Some(id) => vec![the_service(client, id)?],
        None => {
            let mut services = client.services()?;
            services.retain(|service| service.fullnat_stats.is_some());
            services.sort_by_key(|service| key(&service.id));
            services
        }
    };
    let mut pools = Vec::with_capacity(services.len());
    for service in services {
        let mut locals = client.locals(&service.id)?;
        if each {
            // By itself, not the prefix that it is of.
            for local in &mut locals {
                local.prefix_len = LocalAddress::new(local.addr).prefix_len;
            }
        } else {
            locals = extension::prefixes(locals);
        }
        pools.push(Pool::of(&service, &locals));
    }
    Ok(pools)
}

fn change(args: &PoolArgs, step: fn(&ServiceId, &LocalAddress) -> Step) -> Result<(), Failure> {
    let id = args.name.id().map_err(Failure::Usage)?;
    extension::check_locals(&id, &args.locals).map_err(Failure::Usage)?;
    let mut client = Client::open()?;
    needs_rvs(&client)?;
    let steps: Vec<Step> = args.locals.iter().map(|local| step(&id, local)).collect();
    all_or_nothing(&mut client, &steps, &id)
}

fn needs_rvs(client: &Client) -> Result<(), Failure> {
    extension::refuse_without_rvs(client, &["pool (FullNAT)".to_owned()]).map_err(Failure::Failed)
}

pub(super) fn run(verb: &PoolVerb, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let args = match verb {
        PoolVerb::Add(args) => return change(args, adding),
        PoolVerb::Del(args) => return change(args, removing),
        PoolVerb::List(args) => args,
    };
    let id = args.listed.id().map_err(Failure::Usage)?;
    let mut client = Client::open()?;
    needs_rvs(&client)?;
    let pools = pools(&mut client, id.as_ref(), args.each)?;
    if as_json {
        return Ok(json(&serde_json::json!({ "pools": pools }), out)?);
    }
    let paint = Paint::stdout();
    for pool in &pools {
        pool.print(paint, out)?;
    }
    Ok(())
}

/// Each address of a service, or of all that have some, as JSON.
pub(crate) fn json_of(
    client: &mut Client,
    id: Option<&ServiceId>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let pools = pools(client, id, true)?;
    Ok(json(&serde_json::json!({ "pools": pools }), out)?)
}

/// What `watch` says of the pool of a service.
pub(super) fn watched(client: &mut Client, service: &Service) -> Result<Vec<String>, Failure> {
    needs_rvs(client)?;
    let locals = extension::prefixes(client.locals(&service.id)?);
    let pool = Pool::of(service, &locals);
    if pool.state.locals == 0 {
        return Ok(vec!["none; `rvsadm pool add` makes one".to_owned()]);
    }
    let mut text = Vec::new();
    pool.print(Paint::never(), &mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

/// What `service list` says of a pool.
pub(super) fn listed(service: &Service, locals: &[LocalAddress]) -> Vec<String> {
    let state = state(service, locals).unwrap_or_default();
    let mut lines: Vec<String> = lines(&state.pool)
        .into_iter()
        .map(|line| format!("local {line}"))
        .collect();
    if state.exhausted > 0 {
        lines.push(format!(
            "{} connections refused because no local port was free",
            show::short(state.exhausted)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extension::{local_text, parse_local};

    #[test]
    fn smallest_change_of_a_pool() {
        let locals = |texts: &[&str]| -> Vec<LocalAddress> {
            texts.iter().map(|t| parse_local(t).unwrap()).collect()
        };
        let texts = |locals: &[&LocalAddress]| -> Vec<String> {
            locals.iter().map(|l| local_text(l)).collect()
        };
        let is = locals(&["10.7.0.1", "10.7.0.16/28", "10.7.1.1%eth0"]);
        let shall = locals(&["10.7.0.1", "10.7.0.0/27%eth1", "10.7.1.1", "10.7.2.1"]);
        // One that stays is in the way of one that comes: that is a mistake of the pool that shall be, not of this.
        let change = Change::new(&is, &shall);
        assert_eq!(texts(&change.first), ["10.7.0.16/28", "10.7.1.1%eth0"]);
        assert_eq!(
            texts(&change.add),
            ["10.7.0.0/27%eth1", "10.7.1.1", "10.7.2.1"]
        );
        assert_eq!(texts(&change.last), [] as [&str; 0]);
        let shall = locals(&["10.7.0.16/28", "10.8.0.0/22"]);
        let change = Change::new(&is, &shall);
        // There is no room for all at once.
        assert_eq!(texts(&change.first), ["10.7.0.1", "10.7.1.1%eth0"]);
        let shall = locals(&["10.7.0.16/28", "10.8.0.0/24"]);
        let change = Change::new(&is, &shall);
        assert_eq!(texts(&change.last), ["10.7.0.1", "10.7.1.1%eth0"]);
        let none = Change::new(&is, &is);
        assert!(none.first.is_empty() && none.add.is_empty() && none.last.is_empty());
    }
}
