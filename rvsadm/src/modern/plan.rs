// SPDX-License-Identifier: GPL-2.0-or-later

//! From the table that is to the table that shall be, in as few requests as possible.

use std::collections::{HashMap, HashSet};

use rvs_netlink::{Dest, LocalAddress, Message, Service, ServiceId};

use super::model::{words, Method, ServiceState, TunnelState};
use super::output::{Paint, Tone};
use super::pool::Change;
use super::{Entry, Table};
use crate::extension::local_text;

/// One line of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// `+`, `-` or `~`; a blank heads the lines of a service that stays.
    pub(super) sign: char,
    /// What is changed.
    pub(super) text: String,
}

/// A request, and what it is for.
type Step = (Message, String);

/// Requests, and what each is for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Additions and changes come before removals, so that no service is without real servers in between.
    pub(super) steps: Vec<Step>,
    /// For people, by service.
    pub(super) lines: Vec<Line>,
}

/// What a request sets, in words.
fn service_facts(service: &Service) -> Vec<(&'static str, String)> {
    let state = ServiceState::of(service, &[], &[]);
    let number = |number: Option<u8>| number.map_or("off".to_owned(), |n| n.to_string());
    vec![
        ("scheduler", state.scheduler),
        ("flags", state.scheduler_flags.join(",")),
        (
            "persistent",
            state.persistent.map_or("no".to_owned(), |s| s.to_string()),
        ),
        ("netmask", state.netmask.unwrap_or("host".to_owned())),
        ("pe", state.pe.unwrap_or("none".to_owned())),
        ("one_packet", state.one_packet.to_string()),
        (
            "local_ports",
            state.local_ports.unwrap_or("1024-65535".to_owned()),
        ),
        ("toa", number(state.toa)),
        ("toa_on_syn", state.toa_on_syn.to_string()),
        ("proxy_protocol", number(state.proxy_protocol)),
        (
            "tunnel_sources",
            match state.tunnel_sources.as_slice() {
                [] => "none".to_owned(),
                some => some.join(","),
            },
        ),
        ("tunnel_mss_clamp", state.tunnel_mss_clamp.to_string()),
    ]
}

fn dest_facts(dest: &Dest) -> Vec<(&'static str, String)> {
    let tunnel = TunnelState::of(dest).map_or("ipip".to_owned(), |t| {
        format!(
            "{:?}:{}:{:?}",
            t.kind,
            t.port.unwrap_or_default(),
            t.checksum
        )
        .to_lowercase()
    });
    vec![
        ("method", Method::of_kernel(dest.method).to_string()),
        ("weight", dest.weight.to_string()),
        ("upper", dest.u_thresh.to_string()),
        ("lower", dest.l_thresh.to_string()),
        ("tunnel", tunnel),
    ]
}

/// `weight 1 -> 2`, for what differs.
fn differences(was: &[(&str, String)], is: &[(&str, String)]) -> Vec<String> {
    was.iter()
        .zip(is)
        .filter(|((_, was), (_, is))| was != is)
        .map(|((name, was), (_, is))| format!("{name} {was} -> {is}"))
        .collect()
}

fn dest_text(dest: &Dest) -> String {
    format!(
        "real {} {} weight {}",
        dest.addr,
        Method::of_kernel(dest.method),
        dest.weight
    )
}

/// What has to be said of a service that is there: what only rvs has is mentioned if it differs, and then all of it.
fn changed(was: &Service, is: &Service) -> Service {
    let mut service = is.clone();
    let options = |s: &Service| s.fullnat.unwrap_or_default();
    let tunnels = |s: &Service| s.tunnels.unwrap_or_default();
    service.fullnat = (options(was) != options(is)).then(|| options(is));
    service.tunnels = (tunnels(was) != tunnels(is)).then(|| tunnels(is));
    service
}

/// Local addresses that come and go. Those that go last are left for `removals`.
fn pool(
    plan: &mut Plan,
    is: &[LocalAddress],
    entry: &Entry,
    removals: &mut Vec<Step>,
) -> Vec<Line> {
    let id = &entry.service.id;
    let name = words(id);
    let change = Change::new(is, &entry.locals);
    let mut lines = Vec::new();
    let mut line = |sign, local| {
        lines.push(Line {
            sign,
            text: format!("  local {}", local_text(local)),
        });
    };
    let removing = |local: &LocalAddress| {
        (
            Message::del_local(id, local),
            format!("removing local address {} from {name}", local_text(local)),
        )
    };
    for local in change.first {
        plan.steps.push(removing(local));
        line('-', local);
    }
    for local in change.add {
        plan.steps.push((
            Message::new_local(id, local),
            format!("adding local address {} to {name}", local_text(local)),
        ));
        line('+', local);
    }
    for local in change.last {
        removals.push(removing(local));
        line('-', local);
    }
    lines
}

/// How to get from one to the other.
pub(super) fn plan(is: &Table, shall: &Table) -> Plan {
    let mut plan = Plan::default();
    let mut removals = Vec::new();
    let before: HashMap<ServiceId, &Entry> =
        is.iter().map(|entry| (entry.service.id, entry)).collect();
    let after: HashSet<ServiceId> = shall.iter().map(|entry| entry.service.id).collect();
    for entry in shall {
        let Entry { service, dests, .. } = entry;
        let name = words(&service.id);
        let mut lines = Vec::new();
        let mut sign = ' ';
        let (old, old_locals): (&[Dest], &[LocalAddress]) = match before.get(&service.id) {
            None => {
                sign = '+';
                plan.steps.push((
                    Message::new_service(service),
                    format!("adding service {name}"),
                ));
                let plain = service_facts(&Service::new(service.id, ""));
                let facts = service_facts(service);
                for (_, (fact, value)) in plain.iter().zip(&facts).filter(|(a, b)| a != b) {
                    lines.push(Line {
                        sign: '+',
                        text: format!("  {fact} {value}"),
                    });
                }
                (&[], &[])
            }
            Some(entry) => {
                let was = &entry.service;
                let changes = differences(&service_facts(was), &service_facts(service));
                if !changes.is_empty() {
                    plan.steps.push((
                        Message::set_service(&changed(was, service)),
                        format!("changing service {name}"),
                    ));
                }
                lines.extend(changes.into_iter().map(|change| Line {
                    sign: '~',
                    text: format!("  {change}"),
                }));
                (&entry.dests, &entry.locals)
            }
        };
        lines.extend(pool(&mut plan, old_locals, entry, &mut removals));
        let old_by_addr: HashMap<_, _> = old.iter().map(|d| (d.addr, d)).collect();
        for dest in dests {
            match old_by_addr.get(&dest.addr) {
                None => {
                    plan.steps.push((
                        Message::new_dest(&service.id, dest),
                        format!("adding real server {} to {name}", dest.addr),
                    ));
                    lines.push(Line {
                        sign: '+',
                        text: format!("  {}", dest_text(dest)),
                    });
                }
                Some(was) => {
                    let changes = differences(&dest_facts(was), &dest_facts(dest));
                    if !changes.is_empty() {
                        plan.steps.push((
                            Message::set_dest(&service.id, dest),
                            format!("changing real server {} of {name}", dest.addr),
                        ));
                        lines.push(Line {
                            sign: '~',
                            text: format!("  real {} {}", dest.addr, changes.join(", ")),
                        });
                    }
                }
            }
        }
        for gone in old
            .iter()
            .filter(|old| dests.iter().all(|d| d.addr != old.addr))
        {
            removals.push((
                Message::del_dest(&service.id, gone.addr),
                format!("removing real server {} from {name}", gone.addr),
            ));
            lines.push(Line {
                sign: '-',
                text: format!("  {}", dest_text(gone)),
            });
        }
        if !lines.is_empty() {
            plan.lines.push(Line {
                sign,
                text: format!("service {name}"),
            });
            plan.lines.extend(lines);
        }
    }
    for entry in is {
        let Entry { service, dests, .. } = entry;
        if after.contains(&service.id) {
            continue;
        }
        let name = words(&service.id);
        removals.push((
            Message::del_service(&service.id),
            format!("removing service {name}"),
        ));
        plan.lines.push(Line {
            sign: '-',
            text: format!("service {name}"),
        });
        plan.lines.extend(dests.iter().map(|dest| Line {
            sign: '-',
            text: format!("  {}", dest_text(dest)),
        }));
    }
    plan.steps.append(&mut removals);
    plan
}

impl Plan {
    /// As a diff.
    pub(super) fn show(&self, paint: Paint) -> String {
        let mut text = String::new();
        for line in &self.lines {
            let tone = match line.sign {
                '+' => Tone::Good,
                '-' => Tone::Bad,
                '~' => Tone::Changed,
                _ => Tone::Plain,
            };
            text.push_str(&paint.paint(tone, &format!("{} {}", line.sign, line.text)));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::State;
    use super::*;
    use rvs_netlink::Command;

    fn table(text: &str) -> Table {
        State::parse(text).unwrap().to_kernel().unwrap()
    }

    #[test]
    fn smallest_set_of_changes() {
        let is = table(
            "services:
- service: tcp 10.0.0.1:80
  scheduler: rr
  real_servers: [{address: '10.1.0.1:80'}, {address: '10.1.0.2:80'}, {address: '10.1.0.3:80', weight: 2}]
- service: udp 10.0.0.1:53
  real_servers: [{address: '10.1.0.1:53'}]
- service: tcp 10.0.0.9:80
",
        );
        let shall = table(
            "services:
- service: tcp 10.0.0.1:80
  scheduler: wrr
  real_servers: [{address: '10.1.0.3:80', weight: 2}, {address: '10.1.0.2:80', weight: 5}, {address: '10.1.0.4:80'}]
- service: tcp 10.0.0.9:80
- service: tcp 10.0.0.2:80
  real_servers: [{address: '10.1.0.1:80'}]
",
        );
        let plan = plan(&is, &shall);
        let commands: Vec<Command> = plan.steps.iter().map(|(m, _)| m.command).collect();
        use Command::*;
        assert_eq!(
            commands,
            [SetService, SetDest, NewDest, NewService, NewDest, DelDest, DelService]
        );
        assert_eq!(
            plan.show(Paint::never()),
            "\x20 service tcp 10.0.0.1:80
~   scheduler rr -> wrr
~   real 10.1.0.2:80 weight 1 -> 5
+   real 10.1.0.4:80 nat weight 1
-   real 10.1.0.1:80 nat weight 1
+ service tcp 10.0.0.2:80
+   scheduler wlc
+   real 10.1.0.1:80 nat weight 1
- service udp 10.0.0.1:53
-   real 10.1.0.1:53 nat weight 1
"
        );
        assert!(super::plan(&shall, &shall).steps.is_empty());
    }

    #[test]
    fn extensions() {
        let is = table(
            "services:
- service: tcp 10.0.0.1:80
  local_addresses: [10.7.0.0/28, 10.7.1.1]
  toa: 254
  toa_on_syn: true
- service: fwmark 5
  tunnel_sources: [10.77.0.0/22]
  tunnel_mss_clamp: true
",
        );
        let shall = table(
            "services:
- service: tcp 10.0.0.1:80
  local_addresses: [10.7.0.0/28, 10.7.2.1]
  proxy_protocol: 2
  real_servers: [{address: '10.1.0.1:8080', method: fullnat}]
- service: fwmark 5
  scheduler: rr
  tunnel_sources: [10.77.0.0/22]
  tunnel_mss_clamp: true
- service: udp 10.0.0.2:53
  local_addresses: ['10.7.3.1%eth1']
",
        );
        let plan = plan(&is, &shall);
        let commands: Vec<Command> = plan.steps.iter().map(|(m, _)| m.command).collect();
        use Command::*;
        assert_eq!(
            commands,
            [SetService, NewLaddr, NewDest, SetService, NewService, NewLaddr, DelLaddr]
        );
        assert_eq!(
            plan.show(Paint::never()),
            "\x20 service tcp 10.0.0.1:80
~   toa 254 -> off
~   toa_on_syn true -> false
~   proxy_protocol off -> 2
+   local 10.7.2.1
-   local 10.7.1.1
+   real 10.1.0.1:8080 fullnat weight 1
  service fwmark 5
~   scheduler wlc -> rr
+ service udp 10.0.0.2:53
+   scheduler wlc
+   local 10.7.3.1%eth1
"
        );
        let needs: Vec<Option<&str>> = plan.steps.iter().map(|(m, _)| m.extension()).collect();
        // What doesn't differ isn't sent.
        assert_eq!(needs.iter().filter(|n| n.is_none()).count(), 2);
        assert!(super::plan(&shall, &shall).steps.is_empty());
    }
}
