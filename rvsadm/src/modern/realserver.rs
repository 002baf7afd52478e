// SPDX-License-Identifier: GPL-2.0-or-later

//! `realserver`: what direct routing and tunnels need on a real server. Each step says what it wants; setup makes it so,
//! check compares, undo takes it back.
//!
//! What takes packets out of tunnels is, without an address for tunnels, the device that a module makes (`tunl0`, `ip6tnl0`, `gre0`,
//! `ip6gre0`), which takes tunnels to any address of this machine, of the family that they carry. With one it is a device of its own,
//! bound to that address: IPv6 in IPv4, IPv4 in IPv6, and GRE with checksums, of which a device takes all packets or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::{Deserialize, Serialize};

use super::cli::{Realserver, RealserverVerb};
use super::json;
use super::model::{Checksum, TunnelKind, TunnelState};
use super::output::{Failure, Paint, Tone};

/// Where each network namespace has its file of what was before, and for which set-ups it isn't any more: [`Memory`].
const MEMORIES: &str = "/run/rvsadm";

/// One thing that has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Want {
    /// An address of the machine, which setup doesn't give it.
    Own { ip: IpAddr },
    /// An address on a device.
    Address { ip: IpAddr, device: String },
    /// A device that a module makes, set up.
    Device {
        device: &'static str,
        module: &'static Module,
    },
    /// A tunnel device for one local address, set up.
    Tunnel {
        device: String,
        kind: &'static str,
        module: &'static Module,
        local: IpAddr,
        checksums: bool,
    },
    /// A UDP port whose packets are GUE.
    Gue { port: u16, v6: bool },
    /// A sysctl, at least at this value, or (for `rp_filter`) exactly.
    Sysctl {
        key: String,
        value: u8,
        exactly: bool,
    },
}

/// A module of the kernel.
#[derive(Debug, PartialEq, Eq)]
struct Module {
    name: &'static str,
    /// The kernel's option for it.
    config: &'static str,
    takes: &'static str,
}

const IPIP: Module = Module {
    name: "ipip",
    config: "CONFIG_NET_IPIP",
    takes: "IPv4 in IPv4",
};
const SIT: Module = Module {
    name: "sit",
    config: "CONFIG_IPV6_SIT",
    takes: "IPv6 in IPv4",
};
const IP6_TUNNEL: Module = Module {
    name: "ip6_tunnel",
    config: "CONFIG_IPV6_TUNNEL",
    takes: "tunnels over IPv6",
};
const IP_GRE: Module = Module {
    name: "ip_gre",
    config: "CONFIG_NET_IPGRE",
    takes: "GRE over IPv4",
};
const IP6_GRE: Module = Module {
    name: "ip6_gre",
    config: "CONFIG_IPV6_GRE",
    takes: "GRE over IPv6",
};
const FOU: Module = Module {
    name: "fou",
    config: "CONFIG_NET_FOU",
    takes: "GUE",
};

/// How one of those things is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Fine,
    /// And setup can change that.
    Missing(String),
    /// And it can't.
    Wrong(String),
}

/// A device, as `ip -json -details address` has it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    ifname: String,
    flags: Vec<String>,
    addr_info: Vec<OnDevice>,
    linkinfo: LinkInfo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LinkInfo {
    info_data: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OnDevice {
    local: Option<IpAddr>,
    prefixlen: u8,
}

/// How the machine is. Not from /sys, which may be another namespace's.
#[derive(Debug)]
struct Machine {
    devices: Vec<Device>,
    /// What `ip fou show` prints.
    fou: String,
}

impl Machine {
    fn look(wants: &[Needed]) -> Result<Self, Failure> {
        let output = start("ip", &["-json", "-details", "address", "show"])?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::Failed(format!(
                "ip -json -details address show: {}",
                said.trim()
            )));
        }
        let mut fou = String::new();
        if wants
            .iter()
            .any(|(want, _)| matches!(want, Want::Gue { .. }))
        {
            // It fails while the module isn't there.
            let output = start("ip", &["fou", "show"])?;
            fou = String::from_utf8_lossy(&output.stdout).into_owned();
        }
        Ok(Self {
            devices: serde_json::from_slice(&output.stdout)?,
            fou,
        })
    }

    fn device(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|d| d.ifname == name)
    }

    fn device_state(&self, name: &str, module: &Module) -> State {
        match self.device(name) {
            None => State::Missing(format!(
                "{name} is not there ({}, module {})",
                module.takes, module.name
            )),
            Some(device) if device.flags.iter().any(|flag| flag == "UP") => State::Fine,
            Some(_) => State::Missing(format!("{name} is not up")),
        }
    }
}

/// Whether a module is in the kernel, if that can be seen.
fn is_loaded(module: &Module) -> bool {
    Path::new("/sys/module").join(module.name).exists()
}

fn start(program: &str, args: &[&str]) -> Result<Output, Failure> {
    Command::new(program).args(args).output().map_err(|e| {
        Failure::Failed(match (e.kind(), program) {
            (io::ErrorKind::NotFound, "ip") => "`ip` is missing (iproute2 has it)".to_owned(),
            (io::ErrorKind::NotFound, "modprobe") => {
                format!(
                    "{program} {} is needed, but there is no modprobe (kmod has it)",
                    args.join(" ")
                )
            }
            _ => format!("{program} {}: {e}", args.join(" ")),
        })
    })
}

impl Want {
    fn sysctl(key: &str, value: u8, exactly: bool) -> Self {
        Self::Sysctl {
            key: key.to_owned(),
            value,
            exactly,
        }
    }

    fn address(ip: IpAddr) -> String {
        format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
    }

    /// Under which it is remembered.
    fn key(&self) -> String {
        match self {
            Self::Own { ip } => format!("own {ip}"),
            Self::Address { ip, device } => format!("address {ip} {device}"),
            Self::Device { device, .. } => format!("device {device}"),
            Self::Tunnel { device, .. } => format!("tunnel {device}"),
            Self::Gue { port, v6 } => format!("gue{} {port}", if *v6 { "6" } else { "" }),
            Self::Sysctl { key, .. } => format!("sysctl {key}"),
        }
    }

    /// The order of making: a director must not hear ARP answers for an address before it is silenced, and a device has
    /// no sysctls before it is there.
    fn stage(&self) -> u8 {
        match self {
            Self::Own { .. } => 0,
            Self::Sysctl { exactly: false, .. } => 1,
            Self::Gue { .. } => 2,
            Self::Device { .. } | Self::Tunnel { .. } => 3,
            Self::Sysctl { exactly: true, .. } => 4,
            Self::Address { .. } => 5,
        }
    }

    /// The module without which it can't be.
    fn module(&self) -> Option<&'static Module> {
        match self {
            Self::Device { module, .. } | Self::Tunnel { module, .. } => Some(module),
            Self::Gue { .. } => Some(&FOU),
            _ => None,
        }
    }

    /// The commands that make it so, where some modules are loaded and some devices there.
    fn setup(&self, loaded: impl Fn(&Module) -> bool, there: impl Fn(&str) -> bool) -> Vec<String> {
        let module = self.module().filter(|module| !loaded(module));
        let mut lines: Vec<String> = module
            .map(|module| format!("modprobe {}", module.name))
            .into_iter()
            .collect();
        match self {
            Self::Own { .. } => {}
            Self::Address { ip, device } => {
                let address = Self::address(*ip);
                lines.push(format!("ip address add {address} dev {device}"));
            }
            Self::Device { device, .. } => lines.push(format!("ip link set {device} up")),
            Self::Tunnel {
                device,
                kind,
                local,
                checksums,
                ..
            } => {
                if !there(device) {
                    let remote = if local.is_ipv4() { "any" } else { "::" };
                    let mode = if *kind == "ip6tnl" { " mode any" } else { "" };
                    let checksums = if *checksums { " icsum" } else { "" };
                    lines.push(format!(
                    "ip link add {device} type {kind} local {local} remote {remote}{mode}{checksums}"
                ));
                }
                lines.push(format!("ip link set {device} up"));
            }
            Self::Gue { port, v6 } => {
                lines.push(format!("ip {}fou add port {port} gue", six(*v6)));
            }
            Self::Sysctl { key, value, .. } => lines.push(format!("sysctl -w {key}={value}")),
        }
        lines
    }

    /// The command that makes it what it was.
    fn undo(&self, was: &str) -> Option<String> {
        match self {
            Self::Own { .. } => None,
            Self::Address { ip, device } => Some(format!(
                "ip address del {} dev {device}",
                Self::address(*ip)
            )),
            // The device goes with its module, which may have other users.
            Self::Device { device, .. } => Some(format!("ip link set {device} down")),
            Self::Tunnel { device, .. } => Some(format!("ip link del {device}")),
            Self::Gue { port, v6 } => Some(format!("ip {}fou del port {port}", six(*v6))),
            Self::Sysctl { key, .. } => (!was.is_empty()).then(|| format!("sysctl -w {key}={was}")),
        }
    }

    /// What it is now, for [`Want::undo`].
    fn now(&self) -> String {
        match self {
            Self::Sysctl { key, .. } => read_sysctl(key).unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn state(&self, machine: &Machine) -> State {
        let missing = |there: bool, text: String| {
            if there {
                State::Fine
            } else {
                State::Missing(text)
            }
        };
        match self {
            Self::Own { ip: own } => {
                let mut all = machine.devices.iter().flat_map(|d| &d.addr_info);
                if all.any(|a| a.local == Some(*own)) {
                    State::Fine
                } else {
                    State::Wrong(format!(
                        "{own} is no address of this machine, no tunnel ends there"
                    ))
                }
            }
            Self::Address {
                ip: address,
                device,
            } => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let there = machine.device(device).is_some_and(|d| {
                    d.addr_info
                        .iter()
                        .any(|a| a.local == Some(*address) && a.prefixlen == bits)
                });
                missing(
                    there,
                    format!("{} is not on {device}", Self::address(*address)),
                )
            }
            Self::Device { device, module } => machine.device_state(device, module),
            Self::Tunnel {
                device,
                module,
                local,
                checksums,
                ..
            } => match machine.device(device) {
                Some(is) if is.linkinfo.info_data.contains_key("icsum") != *checksums => {
                    let (is, other) = if *checksums {
                        ("without", "with")
                    } else {
                        ("with", "without")
                    };
                    State::Wrong(format!(
                        "{device} takes GRE {is} checksums at {local}, and none {other} them: undo that, or give another address"
                    ))
                }
                _ => machine.device_state(device, module),
            },
            Self::Gue { port, v6 } => gue_among(&machine.fou, *port, *v6),
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
                missing(
                    fine,
                    format!(
                        "{key} is {}, {value} is right",
                        now.as_deref().unwrap_or("not there")
                    ),
                )
            }
        }
    }

    /// Why one of its commands may have failed, and what to do.
    fn hint(&self, line: &str, said: &str) -> Option<String> {
        let module = self.module()?;
        if line.starts_with("modprobe ") {
            return Some(format!(
                "without the kernel's module {} ({}) this machine does not take {}",
                module.name, module.config, module.takes
            ));
        }
        match self {
            Self::Device { .. } if said.contains("Cannot find device") => Some(
                "a network namespace has none if net.core.fb_tunnels_only_for_init_net is set; with --tunnel-address one is made"
                    .to_owned(),
            ),
            Self::Tunnel { kind, local, .. } if said.contains("File exists") => Some(format!(
                "another device has the tunnels to {local} (ip -d link show type {kind})"
            )),
            Self::Gue { port, .. } if said.contains("in use") => {
                Some(format!("something else has UDP port {port}"))
            }
            _ => None,
        }
    }
}

/// Whether what comes to a UDP port is GUE.
fn gue_among(listed: &str, port: u16, v6: bool) -> State {
    let over = if v6 { "IPv6" } else { "IPv4" };
    let found = listed.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at_port = words.windows(2).any(|pair| {
            pair.first() == Some(&"port") && pair.get(1) == Some(&port.to_string().as_str())
        });
        (at_port && words.contains(&"-6") == v6).then_some(words)
    });
    match found {
        None => State::Missing(format!("UDP port {port} over {over} is not for GUE")),
        Some(words) if words.contains(&"gue") => State::Fine,
        Some(_) => State::Wrong(format!(
            "UDP port {port} over {over} is for another encapsulation than GUE (ip fou show)"
        )),
    }
}

fn six(v6: bool) -> &'static str {
    if v6 {
        "-6 "
    } else {
        ""
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

/// The name of a device for tunnels to one address, at most 15 characters: an IPv4 address is legible in it.
fn device_name(kind: &str, local: IpAddr) -> String {
    let number = match local {
        IpAddr::V4(v4) => u32::from(v4),
        // FNV-1a.
        IpAddr::V6(v6) => v6.octets().iter().fold(0x811c_9dc5, |hash: u32, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        }),
    };
    format!("{kind}-{number:08x}")
}

/// What takes packets for a virtual address out of tunnels.
fn tunnel_device(vip: IpAddr, kind: TunnelKind, checksum: Checksum, local: Option<IpAddr>) -> Want {
    let gre = kind == TunnelKind::Gre;
    let Some(local) = local else {
        let (device, module) = match (gre, vip.is_ipv4()) {
            (false, true) => ("tunl0", &IPIP),
            (false, false) => ("ip6tnl0", &IP6_TUNNEL),
            (true, true) => ("gre0", &IP_GRE),
            (true, false) => ("ip6gre0", &IP6_GRE),
        };
        return Want::Device { device, module };
    };
    let (kind, module) = match (gre, local.is_ipv4(), vip.is_ipv4()) {
        (false, true, true) => ("ipip", &IPIP),
        (false, true, false) => ("sit", &SIT),
        (false, false, _) => ("ip6tnl", &IP6_TUNNEL),
        (true, true, _) => ("gre", &IP_GRE),
        (true, false, _) => ("ip6gre", &IP6_GRE),
    };
    Want::Tunnel {
        device: device_name(kind, local),
        kind,
        module,
        local,
        checksums: gre && checksum == Checksum::Csum,
    }
}

/// All that one address needs.
fn wants_of(args: &Realserver, vip: IpAddr) -> Vec<Want> {
    let mut wants = Vec::new();
    if vip.is_ipv4() {
        // Answer ARP for addresses of the asked interface only, and announce only those.
        wants.push(Want::sysctl("net.ipv4.conf.all.arp_ignore", 1, false));
        wants.push(Want::sysctl("net.ipv4.conf.all.arp_announce", 2, false));
    }
    if !args.tunnel {
        wants.push(Want::Address {
            ip: vip,
            device: "lo".to_owned(),
        });
        return wants;
    }
    let local = args.tunnel_address;
    wants.extend(local.map(|ip| Want::Own { ip }));
    if let Some(port) = args.tunnel_port {
        let v6 = local.unwrap_or(vip).is_ipv6();
        wants.push(Want::Gue { port, v6 });
    }
    let want = tunnel_device(
        vip,
        args.tunnel_type.unwrap_or_default(),
        args.tunnel_checksum.unwrap_or_default(),
        local,
    );
    let device = match &want {
        Want::Tunnel { device, .. } => device.clone(),
        Want::Device { device, .. } => (*device).to_owned(),
        _ => String::new(),
    };
    wants.push(want);
    if vip.is_ipv4() {
        // Decapsulated packets come from clients, whose way back is another interface. The larger of
        // the two values counts.
        wants.push(Want::sysctl("net.ipv4.conf.all.rp_filter", 0, true));
        let key = format!("net.ipv4.conf.{device}.rp_filter");
        wants.push(Want::sysctl(&key, 0, true));
    }
    wants.push(Want::Address { ip: vip, device });
    wants
}

/// What an address is set up for, in the words of the command line.
fn setup_name(args: &Realserver, vip: IpAddr) -> String {
    if !args.tunnel {
        return format!("dr {vip}");
    }
    let kind = match args.tunnel_type.unwrap_or_default() {
        TunnelKind::Ipip => "ipip",
        TunnelKind::Gue => "gue",
        TunnelKind::Gre => "gre",
    };
    let port = args
        .tunnel_port
        .map(|p| format!(" {p}"))
        .unwrap_or_default();
    let local = args
        .tunnel_address
        .map(|a| format!(" at {a}"))
        .unwrap_or_default();
    format!("tunnel {kind}{port}{local} {vip}")
}

/// A thing and the set-ups that need it.
type Needed = (Want, BTreeSet<String>);

/// All that these addresses need, in the order of making.
fn wants(args: &Realserver) -> Vec<Needed> {
    let mut all: Vec<Needed> = Vec::new();
    for vip in &args.vips {
        let name = setup_name(args, *vip);
        for want in wants_of(args, *vip) {
            match all.iter_mut().find(|(known, _)| *known == want) {
                Some((_, names)) => {
                    names.insert(name.clone());
                }
                None => all.push((want, BTreeSet::from([name.clone()]))),
            }
        }
    }
    all.sort_by_key(|(want, _)| want.stage());
    all
}

/// What can't be, and why.
fn refuse(args: &Realserver) -> Result<(), String> {
    let some = args.tunnel_type.is_some()
        || args.tunnel_port.is_some()
        || args.tunnel_checksum.is_some()
        || args.tunnel_address.is_some();
    if !args.tunnel {
        return if some {
            Err("--tunnel-type, --tunnel-port, --tunnel-checksum and --tunnel-address go with --tunnel".to_owned())
        } else {
            Ok(())
        };
    }
    let tunnel = TunnelState {
        kind: args.tunnel_type.unwrap_or_default(),
        port: args.tunnel_port,
        checksum: args.tunnel_checksum.unwrap_or_default(),
    };
    tunnel.fits()?;
    match args.tunnel_address {
        None if tunnel.kind == TunnelKind::Gre && tunnel.checksum == Checksum::Csum => Err(
            "gre0 and ip6gre0 take no GRE with checksums: with --tunnel-address, this machine's address to which \
             the director sends it, a device is made that does"
                .to_owned(),
        ),
        Some(ip)
            if ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_loopback()
                || matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()) =>
        {
            Err(format!(
                "--tunnel-address {ip}: an address of this machine that the director can send to is right"
            ))
        }
        Some(ip) if args.vips.contains(&ip) => Err(format!(
            "--tunnel-address {ip}: it is the service's address, which the director has as well"
        )),
        _ => Ok(()),
    }
}

/// Runs one of our own command lines.
fn execute(want: &Want, line: &str) -> Result<(), Failure> {
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
    let output = start(program, &args)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let hint = want
        .hint(line, said)
        .map(|hint| format!(": {hint}"))
        .unwrap_or_default();
    Err(Failure::Failed(format!("{line}: {said}{hint}")))
}

/// What setup has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    /// The sysctl's value before.
    was: String,
    /// The set-ups that need it as it is now.
    needed_by: BTreeSet<String>,
}

/// All that setup has changed, by [`Want::key`].
type Memory = BTreeMap<String, Changed>;

/// The file of this network namespace.
fn memory_path() -> Result<PathBuf, Failure> {
    // `net:[4026531840]`
    let link = fs::read_link("/proc/self/ns/net")
        .map_err(|e| Failure::Failed(format!("/proc/self/ns/net: {e}")))?;
    let number: String = link
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    Ok(Path::new(MEMORIES).join(format!("realserver-{number}.json")))
}

fn remembered() -> Result<Memory, Failure> {
    Ok(fs::read_to_string(memory_path()?)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default())
}

fn remember(memory: &Memory) -> Result<(), Failure> {
    let path = memory_path()?;
    let failed = |e: io::Error| Failure::Failed(format!("writing {}: {e}", path.display()));
    if memory.is_empty() {
        return match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => Ok(()),
        };
    }
    fs::create_dir_all(MEMORIES).map_err(failed)?;
    let text = serde_json::to_string_pretty(memory)?;
    fs::write(&path, text).map_err(failed)
}

/// The commands that take back what setup has changed and no other set-up needs, last things first, and what is to be
/// remembered then. What was there before setup stays.
fn undo(wants: &[Needed], mut memory: Memory) -> (Vec<(&Want, String)>, Memory) {
    let mut lines = Vec::new();
    for (want, names) in wants.iter().rev() {
        let key = want.key();
        let Some(changed) = memory.get_mut(&key) else {
            continue;
        };
        changed.needed_by.retain(|name| !names.contains(name));
        if changed.needed_by.is_empty() {
            lines.extend(want.undo(&changed.was).map(|line| (want, line)));
            memory.remove(&key);
        }
    }
    (lines, memory)
}

pub(super) fn run(
    verb: &RealserverVerb,
    as_json: bool,
    out: &mut impl Write,
) -> Result<u8, Failure> {
    let (RealserverVerb::Setup(args) | RealserverVerb::Check(args) | RealserverVerb::Undo(args)) =
        verb;
    refuse(args).map_err(Failure::Usage)?;
    let wants = wants(args);
    match verb {
        RealserverVerb::Check(_) => check(&wants, as_json, out),
        RealserverVerb::Setup(_) => setup(&wants, args.dry_run, as_json, out),
        RealserverVerb::Undo(_) => {
            let (lines, left) = undo(&wants, remembered()?);
            // What somebody else has taken back already is no reason to stop.
            let machine = Machine::look(&wants)?;
            let mut there = Vec::new();
            for (want, line) in lines {
                if want.state(&machine) == State::Fine {
                    there.push((want, line));
                }
            }
            show(
                there.iter().map(|(_, line)| line),
                args.dry_run,
                as_json,
                out,
            )?;
            if !args.dry_run {
                for (want, line) in there {
                    execute(want, &line)?;
                }
                remember(&left)?;
            }
            Ok(0)
        }
    }
}

/// Says what is missing or wrong; exit code 1 if something is.
fn check(wants: &[Needed], as_json: bool, out: &mut impl Write) -> Result<u8, Failure> {
    let machine = Machine::look(wants)?;
    let mut texts = Vec::new();
    for (want, _) in wants {
        match want.state(&machine) {
            State::Fine => {}
            State::Missing(text) | State::Wrong(text) => texts.push(text),
        }
    }
    if as_json {
        json(&serde_json::json!({ "missing": texts }), out)?;
    } else {
        let paint = Paint::stdout();
        for text in &texts {
            writeln!(out, "{} {text}", paint.paint(Tone::Bad, "-"))?;
        }
        if texts.is_empty() {
            writeln!(out, "nothing is missing")?;
        }
    }
    Ok(u8::from(!texts.is_empty()))
}

fn setup(
    wants: &[Needed],
    dry_run: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<u8, Failure> {
    let machine = Machine::look(wants)?;
    let mut missing = Vec::new();
    let mut memory = remembered()?;
    let before = memory.clone();
    for (want, names) in wants {
        match want.state(&machine) {
            State::Wrong(text) => return Err(Failure::Failed(text)),
            State::Missing(_) => missing.push((want, names)),
            // Needed by one more now; nothing to take back if setup has not made it so.
            State::Fine => {
                if let Some(changed) = memory.get_mut(&want.key()) {
                    changed.needed_by.extend(names.iter().cloned());
                }
            }
        }
    }
    let lines: Vec<(&Want, Vec<String>)> = missing
        .iter()
        .map(|(want, _)| {
            (
                *want,
                want.setup(is_loaded, |d| machine.device(d).is_some()),
            )
        })
        .collect();
    show(
        lines.iter().flat_map(|(_, lines)| lines),
        dry_run,
        as_json,
        out,
    )?;
    if dry_run {
        return Ok(0);
    }
    if memory != before {
        remember(&memory)?;
    }
    for ((want, lines), (_, names)) in lines.iter().zip(&missing) {
        // A device has sysctls only now.
        let changed = Changed {
            was: want.now(),
            needed_by: (*names).clone(),
        };
        // Remembered first, for what is half done is taken back, too.
        memory.insert(want.key(), changed);
        remember(&memory)?;
        for line in lines {
            execute(want, line)?;
        }
    }
    Ok(0)
}

/// Shows the commands.
fn show<'a>(
    lines: impl Iterator<Item = &'a String>,
    dry_run: bool,
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let lines: Vec<&String> = lines.collect();
    if as_json {
        json(
            &serde_json::json!({ "commands": lines, "run": !dry_run }),
            out,
        )?;
        return Ok(());
    }
    if lines.is_empty() {
        writeln!(out, "nothing to do")?;
    }
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(tunnel: bool, vips: &[&str]) -> Realserver {
        Realserver {
            dr: !tunnel,
            tunnel,
            tunnel_type: None,
            tunnel_port: None,
            tunnel_checksum: None,
            tunnel_address: None,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            dry_run: true,
        }
    }

    fn lines(args: &Realserver) -> Vec<String> {
        refuse(args).unwrap();
        wants(args)
            .iter()
            .flat_map(|(want, _)| want.setup(|_| false, |_| false))
            .collect()
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
    fn tunnels_of_the_other_family() {
        let v6 = Realserver {
            tunnel_address: Some("10.0.1.2".parse().unwrap()),
            ..args(true, &["2001:db8::1"])
        };
        assert_eq!(
            lines(&v6),
            [
                "modprobe sit",
                "ip link add sit-0a000102 type sit local 10.0.1.2 remote any",
                "ip link set sit-0a000102 up",
                "ip address add 2001:db8::1/128 dev sit-0a000102",
            ]
        );
        let gue = Realserver {
            tunnel_type: Some(TunnelKind::Gue),
            tunnel_port: Some(6080),
            tunnel_address: Some("fd00::2".parse().unwrap()),
            ..args(true, &["192.0.2.1"])
        };
        let device = device_name("ip6tnl", "fd00::2".parse().unwrap());
        assert_eq!(device.len(), 15);
        let got = lines(&gue);
        assert_eq!(got[2..4], ["modprobe fou", "ip -6 fou add port 6080 gue"]);
        assert!(
            got.contains(&format!(
                "ip link add {device} type ip6tnl local fd00::2 remote :: mode any"
            )),
            "{got:?}"
        );
    }

    #[test]
    fn gre_with_checksums() {
        let mut gre = Realserver {
            tunnel_type: Some(TunnelKind::Gre),
            tunnel_checksum: Some(Checksum::Csum),
            ..args(true, &["2001:db8::1"])
        };
        assert!(refuse(&gre).is_err_and(|text| text.contains("--tunnel-address")));
        gre.tunnel_address = Some("10.0.1.2".parse().unwrap());
        assert_eq!(
            lines(&gre)[1],
            "ip link add gre-0a000102 type gre local 10.0.1.2 remote any icsum"
        );
        gre.tunnel_checksum = Some(Checksum::Remcsum);
        assert!(refuse(&gre).is_err());
    }

    #[test]
    fn refusals() {
        let address = |text: &str| Realserver {
            tunnel_address: Some(text.parse().unwrap()),
            ..args(true, &["192.0.2.1"])
        };
        for text in ["0.0.0.0", "224.0.0.1", "::1", "fe80::1", "192.0.2.1"] {
            assert!(refuse(&address(text)).is_err(), "{text}");
        }
        assert!(refuse(&address("10.0.1.2")).is_ok());
        let mut direct = args(false, &["192.0.2.1"]);
        direct.tunnel_port = Some(1);
        assert!(refuse(&direct).is_err());
    }

    #[test]
    fn ports_of_gue() {
        let listed = "port 6080 gue\nport 6081 ipproto 4\nport 6082 gue -6\n";
        assert_eq!(gue_among(listed, 6080, false), State::Fine);
        assert!(matches!(gue_among(listed, 6080, true), State::Missing(_)));
        assert!(matches!(gue_among(listed, 6081, false), State::Wrong(_)));
        assert_eq!(gue_among(listed, 6082, true), State::Fine);
        assert!(matches!(gue_among(listed, 608, false), State::Missing(_)));
    }

    #[test]
    fn undo_remembers() {
        let needed = wants(&args(false, &["198.51.100.77"]));
        let changed = |was: &str, needed_by: &[&str]| Changed {
            was: was.to_owned(),
            needed_by: needed_by.iter().map(|name| (*name).to_owned()).collect(),
        };
        let texts = |memory: &Memory| {
            let (lines, left) = undo(&needed, memory.clone());
            let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
            (lines, left)
        };
        // What was there before setup stays.
        assert_eq!(texts(&Memory::new()), (Vec::new(), Memory::new()));
        let ours = "dr 198.51.100.77";
        let mut memory = Memory::from([
            (
                "sysctl net.ipv4.conf.all.arp_ignore".to_owned(),
                changed("0", &[ours]),
            ),
            ("address 198.51.100.77 lo".to_owned(), changed("", &[ours])),
        ]);
        let (lines, left) = texts(&memory);
        assert_eq!(
            lines,
            [
                "ip address del 198.51.100.77/32 dev lo",
                "sysctl -w net.ipv4.conf.all.arp_ignore=0"
            ]
        );
        assert!(left.is_empty());
        // Another set-up still needs the sysctl.
        memory.insert(
            "sysctl net.ipv4.conf.all.arp_ignore".to_owned(),
            changed("0", &[ours, "dr 198.51.100.78"]),
        );
        let (lines, left) = texts(&memory);
        assert_eq!(lines, ["ip address del 198.51.100.77/32 dev lo"]);
        assert_eq!(
            left,
            Memory::from([(
                "sysctl net.ipv4.conf.all.arp_ignore".to_owned(),
                changed("0", &["dr 198.51.100.78"])
            )])
        );
    }
}
