// SPDX-License-Identifier: GPL-2.0-or-later

//! `realserver`: what direct routing and tunnels need on a real server. Each step says what it wants; setup makes it so,
//! check compares, undo takes it back.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use super::cli::{Realserver, RealserverVerb};
use super::json;
use super::output::{Failure, Paint, Tone};

/// What the sysctls were before, by name, and the devices of addresses, by [`address_key`].
const MEMORY: &str = "/run/rvsadm/realserver.json";

/// One thing that has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    /// An address on a device.
    Address { ip: IpAddr, device: &'static str },
    /// A device that a module makes, set up.
    Device {
        device: &'static str,
        module: &'static str,
    },
    /// A sysctl, at least at this value, or (for `rp_filter`) exactly.
    Sysctl {
        key: String,
        value: u8,
        exactly: bool,
    },
}

impl Want {
    fn address(ip: IpAddr) -> String {
        format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
    }

    /// The commands that make it so.
    fn setup(&self) -> Vec<String> {
        match self {
            Self::Address { ip, device } => {
                vec![format!(
                    "ip address add {} dev {device}",
                    Self::address(*ip)
                )]
            }
            Self::Device { device, module } => vec![
                format!("modprobe {module}"),
                format!("ip link set {device} up"),
            ],
            Self::Sysctl { key, value, .. } => vec![format!("sysctl -w {key}={value}")],
        }
    }

    /// What is missing, if anything.
    fn missing(&self) -> Option<String> {
        match self {
            Self::Address { ip, device } => {
                let listed = Command::new("ip")
                    .args(["-o", "address", "show", "dev", device])
                    .output();
                let wanted = format!(" {} ", Self::address(*ip));
                // A host's address is printed without its prefix where there is a peer only.
                let there = listed.is_ok_and(|o| {
                    String::from_utf8_lossy(&o.stdout)
                        .lines()
                        .any(|line| format!("{line} ").contains(&wanted))
                });
                (!there).then(|| format!("{} is not on {device}", Self::address(*ip)))
            }
            Self::Device { device, .. } => {
                // Not from /sys, which may be another namespace's.
                let listed = Command::new("ip")
                    .args(["-o", "link", "show", "dev", device, "up"])
                    .output();
                let up = listed.is_ok_and(|o| o.status.success() && !o.stdout.is_empty());
                (!up).then(|| format!("{device} is not there, or not up"))
            }
            Self::Sysctl {
                key,
                value,
                exactly,
            } => {
                let now = read_sysctl(key);
                let fine = now
                    .as_deref()
                    .and_then(|t| t.parse::<u8>().ok())
                    .is_some_and(|now| {
                        if *exactly {
                            now == *value
                        } else {
                            now >= *value
                        }
                    });
                (!fine).then(|| {
                    format!(
                        "{key} is {}, {value} is right",
                        now.as_deref().unwrap_or("not there")
                    )
                })
            }
        }
    }
}

fn sysctl_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn read_sysctl(key: &str) -> Option<String> {
    fs::read_to_string(sysctl_path(key))
        .ok()
        .map(|text| text.trim().to_owned())
}

/// All that these addresses need, in the order of making: a director must not hear ARP answers for an address before
/// it is silenced.
fn wants(args: &Realserver) -> Vec<Want> {
    let v4 = args.vips.iter().any(IpAddr::is_ipv4);
    let v6 = args.vips.iter().any(IpAddr::is_ipv6);
    let mut wants = Vec::new();
    let sysctl = |key: &str, value: u8, exactly: bool| Want::Sysctl {
        key: key.to_owned(),
        value,
        exactly,
    };
    if v4 {
        // Answer ARP for addresses of the asked interface only, and announce only those.
        wants.push(sysctl("net.ipv4.conf.all.arp_ignore", 1, false));
        wants.push(sysctl("net.ipv4.conf.all.arp_announce", 2, false));
    }
    if args.tunnel {
        if v4 {
            wants.push(Want::Device {
                device: "tunl0",
                module: "ipip",
            });
            // Decapsulated packets come from clients, whose way back is another interface. The larger of
            // the two values counts.
            wants.push(sysctl("net.ipv4.conf.all.rp_filter", 0, true));
            wants.push(sysctl("net.ipv4.conf.tunl0.rp_filter", 0, true));
        }
        if v6 {
            wants.push(Want::Device {
                device: "ip6tnl0",
                module: "ip6_tunnel",
            });
        }
    }
    for ip in &args.vips {
        let device = match (args.tunnel, ip.is_ipv4()) {
            (false, _) => "lo",
            (true, true) => "tunl0",
            (true, false) => "ip6tnl0",
        };
        wants.push(Want::Address { ip: *ip, device });
    }
    wants
}

/// Runs one of our own command lines.
fn execute(line: &str) -> Result<(), Failure> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let args: Vec<&str> = words.collect();
    if let ("sysctl", ["-w", setting]) = (program, args.as_slice()) {
        // Written here, so that the program isn't needed.
        if let Some((key, value)) = setting.split_once('=') {
            return fs::write(sysctl_path(key), format!("{value}\n"))
                .map_err(|e| Failure::Failed(format!("{line}: {e}")));
        }
    }
    let output = Command::new(program)
        .args(&args)
        .output()
        .map_err(|e| Failure::Failed(format!("{line}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

type Memory = BTreeMap<String, String>;

fn remembered() -> Memory {
    fs::read_to_string(MEMORY)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

fn remember(memory: &Memory) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::Failed(format!("writing {MEMORY}: {e}"));
    if let Some(folder) = Path::new(MEMORY).parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let text = serde_json::to_string_pretty(memory)?;
    fs::write(MEMORY, text).map_err(failed)
}

/// Under which an address is remembered.
fn address_key(ip: IpAddr) -> String {
    format!("address {ip}")
}

/// Whether setup was run for other addresses too, which need the sysctls as they are.
fn others_left(memory: &Memory, vips: &[IpAddr]) -> bool {
    let these: Vec<String> = vips.iter().map(|ip| address_key(*ip)).collect();
    memory
        .keys()
        .any(|key| key.starts_with("address ") && !these.contains(key))
}

/// The commands that take back what is there, last things first. A sysctl goes back to what it was when setup changed it;
/// without a memory of that, or while other addresses need it, it stays.
fn undo(wants: &[Want], memory: &Memory, others_left: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for want in wants.iter().rev() {
        match want {
            Want::Address { ip, device } if want.missing().is_none() => {
                lines.push(format!(
                    "ip address del {} dev {device}",
                    Want::address(*ip)
                ));
            }
            Want::Sysctl { key, .. } if !others_left => {
                if let Some(was) = memory.get(key) {
                    lines.push(format!("sysctl -w {key}={was}"));
                }
            }
            // The tunnel device belongs to its module, which may have other users.
            _ => {}
        }
    }
    lines
}

pub(super) fn run(
    verb: &RealserverVerb,
    as_json: bool,
    out: &mut impl Write,
) -> Result<u8, Failure> {
    let (RealserverVerb::Setup(args) | RealserverVerb::Check(args) | RealserverVerb::Undo(args)) =
        verb;
    let wants = wants(args);
    let missing: Vec<(&Want, String)> = wants
        .iter()
        .filter_map(|want| Some((want, want.missing()?)))
        .collect();
    let paint = Paint::stdout();
    match verb {
        RealserverVerb::Check(_) => {
            let texts: Vec<&String> = missing.iter().map(|(_, text)| text).collect();
            if as_json {
                json(&serde_json::json!({ "missing": texts }), out)?;
            } else {
                for text in &texts {
                    writeln!(out, "{} {text}", paint.paint(Tone::Bad, "-"))?;
                }
                if texts.is_empty() {
                    writeln!(out, "nothing is missing")?;
                }
            }
            Ok(u8::from(!texts.is_empty()))
        }
        RealserverVerb::Setup(_) => {
            let lines: Vec<String> = missing.iter().flat_map(|(want, _)| want.setup()).collect();
            let mut memory = remembered();
            for (want, _) in &missing {
                match want {
                    Want::Sysctl { key, .. } => {
                        if let Some(was) = read_sysctl(key) {
                            memory.entry(key.clone()).or_insert(was);
                        }
                    }
                    Want::Address { ip, device } => {
                        memory.insert(address_key(*ip), (*device).to_owned());
                    }
                    Want::Device { .. } => {}
                }
            }
            if !args.dry_run && !lines.is_empty() {
                remember(&memory)?;
            }
            carry_out(&lines, args.dry_run, as_json, out)
        }
        RealserverVerb::Undo(_) => {
            let memory = remembered();
            let others = others_left(&memory, &args.vips);
            let lines = undo(&wants, &memory, others);
            let code = carry_out(&lines, args.dry_run, as_json, out)?;
            if !args.dry_run && !memory.is_empty() {
                let forgotten: Vec<String> = wants
                    .iter()
                    .filter_map(|want| match want {
                        Want::Sysctl { key, .. } if !others => Some(key.clone()),
                        Want::Address { ip, .. } => Some(address_key(*ip)),
                        _ => None,
                    })
                    .collect();
                let left: Memory = memory
                    .into_iter()
                    .filter(|(key, _)| !forgotten.contains(key))
                    .collect();
                remember(&left)?;
            }
            Ok(code)
        }
    }
}

/// Shows the commands and, unless that is all, runs them.
fn carry_out(
    lines: &[String],
    dry_run: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<u8, Failure> {
    if as_json {
        json(
            &serde_json::json!({ "commands": lines, "run": !dry_run }),
            out,
        )?;
    } else if lines.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    for line in lines {
        if !as_json {
            writeln!(out, "{line}")?;
        }
        if !dry_run {
            execute(line)?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(tunnel: bool, vips: &[&str]) -> Realserver {
        Realserver {
            dr: !tunnel,
            tunnel,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            dry_run: true,
        }
    }

    fn lines(args: &Realserver) -> Vec<String> {
        wants(args).iter().flat_map(Want::setup).collect()
    }

    #[test]
    fn direct_routing() {
        assert_eq!(
            lines(&args(false, &["192.0.2.1", "2001:db8::1"])),
            [
                "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                "sysctl -w net.ipv4.conf.all.arp_announce=2",
                "ip address add 192.0.2.1/32 dev lo",
                "ip address add 2001:db8::1/128 dev lo",
            ]
        );
    }

    #[test]
    fn tunnels() {
        assert_eq!(
            lines(&args(true, &["192.0.2.1"])),
            [
                "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                "sysctl -w net.ipv4.conf.all.arp_announce=2",
                "modprobe ipip",
                "ip link set tunl0 up",
                "sysctl -w net.ipv4.conf.all.rp_filter=0",
                "sysctl -w net.ipv4.conf.tunl0.rp_filter=0",
                "ip address add 192.0.2.1/32 dev tunl0",
            ]
        );
    }

    #[test]
    fn undo_remembers() {
        let wants = wants(&args(false, &["198.51.100.77"]));
        let memory = Memory::from([("net.ipv4.conf.all.arp_ignore".to_owned(), "0".to_owned())]);
        assert_eq!(
            undo(&wants, &memory, false),
            ["sysctl -w net.ipv4.conf.all.arp_ignore=0"]
        );
        assert_eq!(undo(&wants, &Memory::new(), false), [] as [String; 0]);
        // Another address still needs them.
        let mut memory = memory;
        memory.insert("address 198.51.100.77".to_owned(), "lo".to_owned());
        assert!(!others_left(&memory, &["198.51.100.77".parse().unwrap()]));
        memory.insert("address 198.51.100.78".to_owned(), "lo".to_owned());
        assert!(others_left(&memory, &["198.51.100.77".parse().unwrap()]));
        assert_eq!(undo(&wants, &memory, true), [] as [String; 0]);
    }
}
