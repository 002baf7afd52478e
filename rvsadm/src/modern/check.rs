// SPDX-License-Identifier: GPL-2.0-or-later

//! `check`: what is wrong, or likely to be.

use std::fs;
use std::io::Write;

use rvs_netlink::client::Client;
use rvs_netlink::{Dest, ForwardMethod, Service, ServiceFlags, ServiceId};
use serde::Serialize;

use super::cli::Check;
use super::model::words;
use super::output::{Failure, Paint, Tone};
use super::{json, parse_file, table};

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
fn of_table(table: &[(Service, Vec<Dest>)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (service, dests) in table {
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
                if dest.method != ForwardMethod::MASQ
                    && addr.port() != 0
                    && dest.addr.port() != addr.port()
                {
                    findings.push(finding(
                        format!("real server {} of service {name} has another port, which only nat can change", dest.addr),
                        format!("port {}, or --method nat", addr.port()),
                    ));
                }
                if dest.method != ForwardMethod::MASQ && dest.addr.ip() == addr.ip() {
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

/// What the rest of the machine has to have for a table.
fn of_machine(
    table: &[(Service, Vec<Dest>)],
    sysctl: impl Fn(&str) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dests = || table.iter().flat_map(|(_, dests)| dests);
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
",
        )
        .unwrap()
        .to_kernel()
        .unwrap();
        let texts: Vec<String> = of_table(&table).into_iter().map(|f| f.what).collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        assert!(texts[0].contains("has no real servers"));
        assert!(texts[1].contains("weight 0"));
        assert!(texts[2].contains("own address"));
        assert!(texts[3].contains("more than a day"));
        let machine = |forward: &'static str| {
            of_machine(&table, |key| {
                (key == "net.ipv4.ip_forward").then(|| forward.to_owned())
            })
        };
        assert_eq!(machine("0").len(), 1);
        assert_eq!(machine("1"), []);
    }
}
