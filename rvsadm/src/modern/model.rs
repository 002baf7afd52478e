// SPDX-License-Identifier: GPL-2.0-or-later

//! The table as a file says it. JSON is the same in other brackets.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use clap::ValueEnum;
use rvs_netlink::{
    AddressFamily, Daemon, DaemonState, Dest, ForwardMethod, Protocol, Service, ServiceFlags,
    ServiceId, Stats, Timeouts, TunnelType,
};
use serde::{Deserialize, Serialize};

use super::cli::{id_of, parse_mask, socket_addr, Kind};

/// A whole table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Left alone where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timeouts: Option<TimeoutsState>,
    #[serde(default)]
    pub(super) services: Vec<ServiceState>,
}

/// Seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TimeoutsState {
    pub(super) tcp: u32,
    pub(super) tcp_fin: u32,
    pub(super) udp: u32,
}

impl From<Timeouts> for TimeoutsState {
    fn from(t: Timeouts) -> Self {
        Self {
            tcp: t.tcp,
            tcp_fin: t.tcp_fin,
            udp: t.udp,
        }
    }
}

/// A synchronisation daemon, to be printed.
pub(crate) fn daemon(daemon: &Daemon) -> serde_json::Value {
    serde_json::json!({
        "state": if daemon.state == DaemonState::MASTER { "master" } else { "backup" },
        "interface": daemon.interface,
        "syncid": daemon.sync_id,
        "max_len": daemon.max_len,
        "group": daemon.group,
        "port": daemon.port,
        "ttl": daemon.ttl,
    })
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServiceState {
    /// `tcp 192.0.2.1:80`, `fwmark 5`.
    pub(super) service: String,
    #[serde(default = "wlc")]
    pub(super) scheduler: String,
    /// `fallback`, `port`, `flag-1` ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) scheduler_flags: Vec<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) persistent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) netmask: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pe: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) one_packet: bool,
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<StatsState>,
    #[serde(default)]
    pub(super) real_servers: Vec<RealState>,
}

fn wlc() -> String {
    "wlc".to_owned()
}

fn one() -> i32 {
    1
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A real server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RealState {
    pub(super) address: String,
    #[serde(default)]
    pub(super) method: Method,
    #[serde(default = "one")]
    pub(super) weight: i32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) upper: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) lower: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tunnel: Option<TunnelState>,
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(super) connections: Option<Connections>,
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(super) stats: Option<StatsState>,
}

/// How many there are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Connections {
    pub(super) active: u32,
    pub(super) inactive: u32,
    pub(super) persistent: u32,
}

/// Counters and rates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StatsState {
    pub(super) conns: u64,
    pub(super) in_pkts: u64,
    pub(super) out_pkts: u64,
    pub(super) in_bytes: u64,
    pub(super) out_bytes: u64,
    pub(super) cps: u64,
    pub(super) in_pps: u64,
    pub(super) out_pps: u64,
    pub(super) in_bps: u64,
    pub(super) out_bps: u64,
}

impl From<Stats> for StatsState {
    fn from(s: Stats) -> Self {
        Self {
            conns: s.conns,
            in_pkts: s.in_pkts,
            out_pkts: s.out_pkts,
            in_bytes: s.in_bytes,
            out_bytes: s.out_bytes,
            cps: s.cps,
            in_pps: s.in_pps,
            out_pps: s.out_pps,
            in_bps: s.in_bps,
            out_bps: s.out_bps,
        }
    }
}

/// How packets get to a real server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Method {
    /// Network address translation.
    #[default]
    Nat,
    /// Direct routing.
    Dr,
    /// Encapsulation.
    Tunnel,
    /// The kernel's word for a real server on the director itself.
    #[value(skip)]
    Local,
    /// Something this program doesn't know.
    #[value(skip)]
    Other,
}

impl Method {
    pub(super) fn to_kernel(self) -> Option<ForwardMethod> {
        match self {
            Self::Nat => Some(ForwardMethod::MASQ),
            Self::Dr => Some(ForwardMethod::ROUTE),
            Self::Tunnel => Some(ForwardMethod::TUNNEL),
            Self::Local => Some(ForwardMethod::LOCAL),
            Self::Other => None,
        }
    }

    pub(super) fn of_kernel(method: ForwardMethod) -> Self {
        match method {
            ForwardMethod::MASQ => Self::Nat,
            ForwardMethod::ROUTE => Self::Dr,
            ForwardMethod::TUNNEL => Self::Tunnel,
            ForwardMethod::LOCAL => Self::Local,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nat => "nat",
            Self::Dr => "dr",
            Self::Tunnel => "tunnel",
            Self::Local => "local",
            Self::Other => "other",
        })
    }
}

/// What packets are put into.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

/// Checksums of a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Checksum {
    /// None.
    #[default]
    None,
    /// Of the tunnel's header.
    Csum,
    /// Remote checksum offload.
    Remcsum,
}

/// A tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TunnelState {
    #[serde(default, rename = "type")]
    pub(super) kind: TunnelKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) port: Option<u16>,
    #[serde(default)]
    pub(super) checksum: Checksum,
}

impl TunnelState {
    /// The tunnel of a destination, if it is more than the default.
    pub(super) fn of(dest: &Dest) -> Option<Self> {
        let tunnel = Self {
            kind: match dest.tun_type {
                TunnelType::GUE => TunnelKind::Gue,
                TunnelType::GRE => TunnelKind::Gre,
                _ => TunnelKind::Ipip,
            },
            port: Some(dest.tun_port).filter(|port| *port != 0),
            checksum: match dest.tun_flags {
                1 => Checksum::Csum,
                2 => Checksum::Remcsum,
                _ => Checksum::None,
            },
        };
        (tunnel != Self::default()).then_some(tunnel)
    }

    /// Puts the tunnel into a destination, or says why that can't be.
    pub(super) fn put(self, dest: &mut Dest) -> Result<(), String> {
        match (self.kind, self.port) {
            (TunnelKind::Gue, None) => {
                return Err("a tunnel of type gue needs a port".to_owned());
            }
            (TunnelKind::Ipip | TunnelKind::Gre, Some(port)) => {
                return Err(format!("port {port} is for tunnels of type gue only"));
            }
            _ => {}
        }
        match (self.kind, self.checksum) {
            (TunnelKind::Ipip, Checksum::Csum | Checksum::Remcsum)
            | (TunnelKind::Gre, Checksum::Remcsum) => {
                return Err("csum is for tunnels of type gue and gre, remcsum for gue".to_owned());
            }
            _ => {}
        }
        dest.tun_type = match self.kind {
            TunnelKind::Ipip => TunnelType::IPIP,
            TunnelKind::Gue => TunnelType::GUE,
            TunnelKind::Gre => TunnelType::GRE,
        };
        dest.tun_port = self.port.unwrap_or_default();
        dest.tun_flags = match self.checksum {
            Checksum::None => 0,
            Checksum::Csum => 1,
            Checksum::Remcsum => 2,
        };
        Ok(())
    }
}

/// The words of a service.
pub(super) fn words(id: &ServiceId) -> String {
    match id {
        ServiceId::Fwmark { family, mark } if *family == AddressFamily::INET6 => {
            format!("fwmark6 {mark}")
        }
        other => other.to_string(),
    }
}

/// Which one two words mean.
pub(super) fn parse_words(text: &str) -> Result<ServiceId, String> {
    let mut words = text.split_whitespace();
    let kind = words
        .next()
        .and_then(|kind| Kind::from_str(kind, false).ok());
    match (kind, words.next(), words.next()) {
        (Some(kind), Some(service), None) => id_of(kind, service),
        _ => Err(format!(
            "`{text}` is no service: `tcp 192.0.2.1:80` or `fwmark 5` would be one"
        )),
    }
}

/// Names of the scheduler's flags.
fn flag_names(service: &Service) -> Vec<String> {
    let named = matches!(service.scheduler.as_str(), "sh" | "mh");
    [
        (ServiceFlags::SCHED1, "fallback", "flag-1"),
        (ServiceFlags::SCHED2, "port", "flag-2"),
        (ServiceFlags::SCHED3, "flag-3", "flag-3"),
    ]
    .into_iter()
    .filter(|(bit, ..)| service.flags.contains(*bit))
    .map(|(_, name, plain)| if named { name } else { plain }.to_owned())
    .collect()
}

fn parse_flag(name: &str) -> Result<ServiceFlags, String> {
    match name {
        "fallback" | "flag-1" => Ok(ServiceFlags::SCHED1),
        "port" | "flag-2" => Ok(ServiceFlags::SCHED2),
        "flag-3" => Ok(ServiceFlags::SCHED3),
        _ => Err(format!(
            "`{name}` is no flag of a scheduler: fallback, port, flag-1, flag-2 and flag-3 are"
        )),
    }
}

impl ServiceState {
    /// As the kernel describes it.
    pub(super) fn of(service: &Service, dests: &[Dest]) -> Self {
        let v6 = service.id.family() == AddressFamily::INET6;
        let persistent = service.flags.contains(ServiceFlags::PERSISTENT);
        Self {
            service: words(&service.id),
            scheduler: service.scheduler.clone(),
            scheduler_flags: flag_names(service),
            persistent: persistent.then_some(service.timeout),
            netmask: match (v6, service.netmask) {
                (true, 128) | (false, u32::MAX) => None,
                (true, prefix) => Some(prefix.to_string()),
                (false, mask) => Some(Ipv4Addr::from(mask).to_string()),
            },
            pe: service.pe_name.clone(),
            one_packet: service.flags.contains(ServiceFlags::ONE_PACKET),
            stats: None,
            real_servers: dests.iter().map(RealState::of).collect(),
        }
    }

    /// For the kernel.
    pub(super) fn to_kernel(&self) -> Result<(Service, Vec<Dest>), String> {
        let id = parse_words(&self.service)?;
        let within = |e: String| format!("service {}: {e}", self.service);
        let mut service = Service::new(id, &self.scheduler);
        if self.scheduler.is_empty() || self.scheduler.len() > 15 {
            return Err(within(format!(
                "`{}` is no name of a scheduler: it has 1 to 15 characters",
                self.scheduler
            )));
        }
        for flag in &self.scheduler_flags {
            service.flags |= parse_flag(flag).map_err(within)?;
        }
        if let Some(seconds) = self.persistent {
            if !(1..=2_678_400).contains(&seconds) {
                return Err(within(format!(
                    "persistent: {seconds} is not in 1..=2678400 seconds"
                )));
            }
            service.flags |= ServiceFlags::PERSISTENT;
            service.timeout = seconds;
        }
        if let Some(mask) = &self.netmask {
            service.netmask = parse_mask(mask)
                .and_then(|mask| mask.of(id.family()))
                .map_err(|e| within(format!("netmask {mask}: {e}")))?;
        }
        service.pe_name.clone_from(&self.pe);
        if self.one_packet {
            service.flags |= ServiceFlags::ONE_PACKET;
        }
        if let ServiceId::Address { protocol, addr } = id {
            if addr.port() == 0 && self.persistent.is_none() {
                return Err(within(
                    "port 0, which means all ports, needs `persistent`".to_owned(),
                ));
            }
            if self.one_packet && protocol != Protocol::UDP {
                return Err(within("one_packet is for UDP only".to_owned()));
            }
        }
        let mut dests = Vec::with_capacity(self.real_servers.len());
        let mut seen = HashSet::new();
        for real in &self.real_servers {
            let dest = real
                .to_kernel(&id)
                .map_err(|e| within(format!("real server {}: {e}", real.address)))?;
            if !seen.insert(dest.addr) {
                return Err(within(format!("real server {} stands twice", dest.addr)));
            }
            dests.push(dest);
        }
        Ok((service, dests))
    }
}

impl RealState {
    /// As the kernel describes it.
    pub(super) fn of(dest: &Dest) -> Self {
        Self {
            address: dest.addr.to_string(),
            method: Method::of_kernel(dest.method),
            weight: dest.weight,
            upper: dest.u_thresh,
            lower: dest.l_thresh,
            tunnel: TunnelState::of(dest),
            connections: None,
            stats: None,
        }
    }

    fn to_kernel(&self, service: &ServiceId) -> Result<Dest, String> {
        let addr: SocketAddr = socket_addr(&self.address)?;
        let method = self
            .method
            .to_kernel()
            .ok_or("method `other`: nat, dr and tunnel are right")?;
        let mut dest = Dest::new(addr, method);
        if self.weight < 0 {
            return Err(format!("weight {}: 0 or more is right", self.weight));
        }
        dest.weight = self.weight;
        if self.lower > self.upper {
            return Err(format!(
                "lower threshold {} above the upper one, {}",
                self.lower, self.upper
            ));
        }
        (dest.u_thresh, dest.l_thresh) = (self.upper, self.lower);
        if let Some(tunnel) = self.tunnel {
            tunnel.put(&mut dest)?;
        }
        fits(service, &dest)?;
        Ok(dest)
    }
}

/// Whether a service can have such a real server.
pub(super) fn fits(service: &ServiceId, dest: &Dest) -> Result<(), String> {
    let tunnel = dest.method == ForwardMethod::TUNNEL;
    if !tunnel && AddressFamily::of(dest.addr.ip()) != service.family() {
        return Err("a real server of another address family needs method tunnel".to_owned());
    }
    match service {
        ServiceId::Address { addr, .. }
            if dest.method != ForwardMethod::MASQ && addr.port() != dest.addr.port() =>
        {
            Err(format!(
                "port {}: only method nat can change the port, which is {} here",
                dest.addr.port(),
                addr.port()
            ))
        }
        _ => Ok(()),
    }
}

impl State {
    /// From YAML or JSON: JSON is YAML too.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let state: Option<Self> = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|e| e.to_string())?
        } else {
            serde_yaml_ng::from_str(text).map_err(|e| e.to_string())?
        };
        state.ok_or_else(|| {
            "the file is empty; `services: []` says that nothing shall be".to_owned()
        })
    }

    /// For the kernel; what is wrong with it otherwise.
    pub(super) fn to_kernel(&self) -> Result<Vec<(Service, Vec<Dest>)>, String> {
        let mut table = Vec::with_capacity(self.services.len());
        let mut seen = HashSet::new();
        for service in &self.services {
            let (kernel, dests) = service.to_kernel()?;
            if !seen.insert(kernel.id) {
                return Err(format!("service {} stands twice", service.service));
            }
            table.push((kernel, dests));
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
timeouts: {tcp: 900, tcp_fin: 120, udp: 300}
services:
- service: tcp 192.0.2.1:80
  scheduler: mh
  scheduler_flags: [fallback, port]
  persistent: 300
  netmask: 255.255.255.0
  real_servers:
  - address: 10.0.0.1:8080
  - {address: '10.0.0.2:8080', weight: 0, upper: 100, lower: 10}
- service: fwmark6 7
  real_servers:
  - address: '[2001:db8::1]:80'
    method: tunnel
    tunnel: {type: gue, port: 6080, checksum: remcsum}
";

    #[test]
    fn there_and_back() {
        let state = State::parse(TEXT).unwrap();
        let table = state.to_kernel().unwrap();
        let again = State {
            timeouts: state.timeouts,
            services: table
                .iter()
                .map(|(service, dests)| ServiceState::of(service, dests))
                .collect(),
        };
        assert_eq!(again, state);
        let json = serde_json::to_string(&again).unwrap();
        assert_eq!(State::parse(&json).unwrap(), state);
        let yaml = serde_yaml_ng::to_string(&again).unwrap();
        assert_eq!(State::parse(&yaml).unwrap(), state);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("services: [{service: tcp 10.0.0.1}]", "`10.0.0.1` is no address with a port: the port is missing"),
            ("services: [{service: http 10.0.0.1:80}]", "`http 10.0.0.1:80` is no service"),
            ("services: [{service: fwmark 0}]", "`0` is no firewall mark"),
            ("services: [{service: tcp 10.0.0.1:0}]", "port 0, which means all ports, needs `persistent`"),
            ("services: [{service: tcp 10.0.0.1:80}, {service: tcp 10.0.0.1:80}]", "stands twice"),
            ("services: [{service: tcp 10.0.0.1:80, one_packet: true}]", "one_packet is for UDP only"),
            ("services: [{service: tcp 10.0.0.1:80, wait: 3}]", "unknown field `wait`"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '10.0.0.2:81', method: dr}]}]", "only method nat can change the port"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '[::1]:80'}]}]", "needs method tunnel"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '10.0.0.2:80', lower: 5}]}]", "lower threshold 5 above"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '10.0.0.2:80', method: tunnel, tunnel: {type: gue}}]}]", "needs a port"),
            ("services: [{service: 'tcp 2001:db8::1:80'}]", "stands in brackets"),
            ("", "the file is empty"),
        ];
        for (text, want) in cases {
            let e = State::parse(text)
                .and_then(|state| state.to_kernel())
                .unwrap_err();
            assert!(e.contains(want), "{text}: {e}");
        }
    }
}
