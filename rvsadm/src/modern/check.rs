// SPDX-License-Identifier: GPL-2.0-or-later

//! `check`: what is wrong, or likely to be.

use std::fs;
use std::io::Write;

use rvs_netlink::client::Client;
use rvs_netlink::{ForwardMethod, ServiceFlags, ServiceId};
use serde::Serialize;

use super::cli::Check;
use super::model::{translates, words};
use super::output::{Failure, Paint, Tone};
use super::{json, parse_file, table, Entry};

/// Something that is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    remedy: String,
}

fn finding(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        what: what.into(),
        remedy: remedy.into(),
    }
}

/// What can be said of a table alone.
fn of_table(table: &[Entry]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for entry in table {
        let Entry { service, dests, .. } = entry;
        let name = words(&service.id);
        if dests.is_empty() {
            findings.push(finding(
                format!("service {name} has no real servers"),
                "rvsadm real add",
            ));
        } else if dests.iter().all(|d| d.weight == 0) {
            findings.push(finding(
                format!(
                    "every real server of service {name} has weight 0: it takes no connections"
                ),
                "rvsadm real set ... --weight 1",
            ));
        }
        for dest in dests {
            if let ServiceId::Address { addr, .. } = service.id {
                if !translates(dest) && addr.port() != 0 && dest.addr.port() != addr.port() {
                    findings.push(finding(
                        format!("real server {} of service {name} has another port, which only nat can change", dest.addr),
                        format!("port {}, or --method nat", addr.port()),
                    ));
                }
                if !translates(dest) && dest.addr.ip() == addr.ip() {
                    findings.push(finding(
                        format!(
                            "real server {} of service {name} is the service's own address",
                            dest.addr
                        ),
                        "the address of the real server's interface",
                    ));
                }
            }
            if dest.u_thresh != 0 && dest.active.saturating_add(dest.inactive) >= dest.u_thresh {
                findings.push(finding(
                    format!(
                        "real server {} of service {name} has reached its upper threshold, {}",
                        dest.addr, dest.u_thresh
                    ),
                    "more real servers, or a larger --upper",
                ));
            }
        }
        findings.extend(of_extensions(entry));
        let persistent = service.flags.contains(ServiceFlags::PERSISTENT);
        if persistent && service.timeout > 86400 {
            findings.push(finding(
                format!(
                    "service {name} is persistent for {} s, more than a day",
                    service.timeout
                ),
                "--persistent 300 is usual",
            ));
        }
    }
    findings
}

/// What doesn't go together of what only rvs has.
fn of_extensions(entry: &Entry) -> Vec<Finding> {
    let Entry {
        service,
        dests,
        locals,
    } = entry;
    let name = words(&service.id);
    let mut findings = Vec::new();
    let fullnat = |d: &&rvs_netlink::Dest| d.method == ForwardMethod::FULLNAT;
    let add = "rvsadm pool add (in a file, local_addresses)";
    if let Some(dest) = dests.iter().find(fullnat).filter(|_| locals.is_empty()) {
        findings.push(finding(
            format!(
                "real server {} of service {name} has method fullnat, but the service has no local addresses: clients are refused",
                dest.addr
            ),
            add,
        ));
    }
    if !locals.is_empty() && !dests.is_empty() && !dests.iter().any(translates) {
        findings.push(finding(
            format!("service {name} has local addresses, but no real server with method nat or fullnat: nothing uses them"),
            "rvsadm pool del, or real servers with method nat",
        ));
    }
    let told = service.fullnat.unwrap_or_default();
    if (told.toa_kind, told.proxy_version) != (0, 0)
        && locals.is_empty()
        && !dests.iter().any(|d| fullnat(&d))
    {
        findings.push(finding(
            format!("service {name} is to tell the client's address (toa, PROXY protocol), which FullNAT does, but has no local addresses"),
            add,
        ));
    }
    let tunnels = service.tunnels.unwrap_or_default();
    let tunnel = |d: &rvs_netlink::Dest| d.method == ForwardMethod::TUNNEL;
    let extras = tunnels.clamp_mss || tunnels.sources().next().is_some();
    if extras && !dests.is_empty() && !dests.iter().any(tunnel) {
        findings.push(finding(
            format!("service {name} has sources or segment sizes for tunnels, but no real server with method tunnel"),
            "--tunnel-sources none --tunnel-mss-clamp=false, or real servers with --method tunnel",
        ));
    }
    if let Some(stats) = service.fullnat_stats.filter(|stats| stats.exhausted > 0) {
        findings.push(finding(
            format!(
                "service {name} has refused {} connections so far because no local port was free",
                stats.exhausted
            ),
            "more local addresses (rvsadm pool add), or a wider range with --local-ports",
        ));
    }
    findings
}

/// What the rest of the machine has to have for a table.
fn of_machine(table: &[Entry], sysctl: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Replies to local addresses are taken before anybody asks whether to forward them.
    let dests = || {
        table
            .iter()
            .filter(|entry| entry.locals.is_empty())
            .flat_map(|entry| &entry.dests)
    };
    let nat = |v6: bool| dests().any(|d| d.method == ForwardMethod::MASQ && d.addr.is_ipv6() == v6);
    for (v6, key) in [
        (false, "net.ipv4.ip_forward"),
        (true, "net.ipv6.conf.all.forwarding"),
    ] {
        if nat(v6) && sysctl(key).as_deref() == Some("0") {
            findings.push(finding(
                format!("{key} is 0, but there are real servers with method nat: their replies are dropped"),
                format!("sysctl -w {key}=1"),
            ));
        }
    }
    let backup = sysctl("net.ipv4.vs.backup_only");
    if backup.as_deref().is_some_and(|value| value != "0") && !table.is_empty() {
        findings.push(finding(
            "net.ipv4.vs.backup_only is set: while the backup daemon runs, nothing is balanced",
            "sysctl -w net.ipv4.vs.backup_only=0, if this is the active director",
        ));
    }
    findings
}

fn read_sysctl(key: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

pub(super) fn check(args: &Check, as_json: bool, out: &mut impl Write) -> Result<u8, Failure> {
    let findings = match &args.file {
        Some(path) => of_table(&parse_file(path)?.1),
        None => {
            let table = table(&mut Client::open()?)?;
            let mut findings = of_table(&table);
            findings.extend(of_machine(&table, read_sysctl));
            findings
        }
    };
    if as_json {
        json(&serde_json::json!({ "findings": findings }), out)?;
    } else {
        let paint = Paint::stdout();
        for Finding { what, remedy } in &findings {
            writeln!(
                out,
                "{} {what}\n  right would be: {remedy}",
                paint.paint(Tone::Bad, "-")
            )?;
        }
        if findings.is_empty() {
            writeln!(out, "nothing is wrong")?;
        }
    }
    Ok(u8::from(!findings.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::super::model::State;
    use super::*;

    #[test]
    fn findings() {
        let table = State::parse(
            "services:
- {service: 'tcp 10.0.0.1:80'}
- service: tcp 10.0.0.2:80
  real_servers: [{address: '10.1.0.1:80', weight: 0}]
- service: tcp 10.0.0.3:80
  persistent: 100000
  real_servers: [{address: '10.0.0.3:80', method: dr}]
- service: tcp 10.0.0.4:80
  real_servers: [{address: '10.1.0.1:8080', method: fullnat}]
- service: tcp 10.0.0.5:80
  local_addresses: [10.7.0.1]
  real_servers: [{address: '10.1.0.1:80', method: dr}]
- service: tcp 10.0.0.6:80
  toa: 254
  real_servers: [{address: '10.1.0.1:80', method: dr}]
- service: tcp 10.0.0.7:80
  tunnel_sources: ['2001:db8:7::/64']
  real_servers: [{address: '10.1.0.1:80'}]
- service: tcp 10.0.0.8:80
  local_addresses: [10.7.0.1]
",
        )
        .unwrap()
        .to_kernel()
        .unwrap();
        let texts: Vec<String> = of_table(&table).into_iter().map(|f| f.what).collect();
        assert_eq!(texts.len(), 9, "{texts:?}");
        assert!(texts[0].contains("has no real servers"));
        assert!(texts[1].contains("weight 0"));
        assert!(texts[2].contains("own address"));
        assert!(texts[3].contains("more than a day"));
        assert!(texts[4].contains("has method fullnat, but"));
        assert!(texts[5].contains("nothing uses them"));
        assert!(texts[6].contains("is to tell the client's address"));
        assert!(texts[7].contains("for tunnels, but no real server with method tunnel"));
        assert!(texts[8].contains("no real servers"));
        let machine = |forward: &'static str| {
            of_machine(&table, |key| {
                (key == "net.ipv4.ip_forward").then(|| forward.to_owned())
            })
        };
        assert_eq!(machine("0").len(), 1);
        assert_eq!(machine("1"), []);
    }
}
