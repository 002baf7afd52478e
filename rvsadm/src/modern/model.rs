// SPDX-License-Identifier: GPL-2.0-or-later

//! The table as a file says it. JSON is the same in other brackets.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use clap::ValueEnum;
use rvs_netlink::{
    AddressFamily, Daemon, DaemonState, Dest, ForwardMethod, FullNat, LocalAddress, Protocol,
    Service, ServiceFlags, ServiceId, Stats, Timeouts, TunnelExtras, TunnelType,
};
use serde::{Deserialize, Serialize};

use super::cli::{id_of, parse_mask, socket_addr, Kind};
use super::{Entry, Table};
use crate::extension;

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
    /// FullNAT: `10.77.0.1`, `10.77.0.16/28`, `10.77.0.1%eth1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) local_addresses: Vec<String>,
    /// `1024-65535`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) local_ports: Option<String>,
    /// Kind of the TCP option with the client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) toa: Option<u8>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) toa_on_syn: bool,
    /// Version of the PROXY protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) proxy_protocol: Option<u8>,
    /// Networks that tunnels' packets come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tunnel_sources: Vec<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) tunnel_mss_clamp: bool,
    #[serde(default, skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(super) fullnat: Option<FullNatState>,
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

/// What a service counts of FullNAT, and its local addresses with theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FullNatState {
    pub(super) locals: u32,
    pub(super) exhausted: u64,
    pub(super) toa_added: u64,
    pub(super) toa_no_room: u64,
    pub(super) toa_removed: u64,
    pub(super) pool: Vec<LocalState>,
}

/// A local address or a prefix of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LocalState {
    pub(super) address: String,
    pub(super) connections: u32,
    pub(super) port_conflicts: u64,
}

impl LocalState {
    pub(super) fn of(local: &LocalAddress) -> Self {
        Self {
            address: extension::local_text(local),
            connections: local.conns,
            port_conflicts: local.conflicts,
        }
    }
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
#[value(rename_all = "lower")]
pub(super) enum Method {
    /// Network address translation.
    #[default]
    Nat,
    /// Direct routing.
    Dr,
    /// Encapsulation.
    Tunnel,
    /// Translation of both ends, by a local address of the service (needs rvs).
    FullNat,
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
            Self::FullNat => Some(ForwardMethod::FULLNAT),
            Self::Local => Some(ForwardMethod::LOCAL),
            Self::Other => None,
        }
    }

    /// What happens to packets: NAT with local addresses is FullNAT.
    pub(super) fn in_effect(service: &Service, dest: &Dest) -> Self {
        let pool = service.fullnat_stats.is_some_and(|s| s.locals > 0);
        match Self::of_kernel(dest.method) {
            Self::Nat if pool => Self::FullNat,
            other => other,
        }
    }

    pub(super) fn of_kernel(method: ForwardMethod) -> Self {
        match method {
            ForwardMethod::MASQ => Self::Nat,
            ForwardMethod::ROUTE => Self::Dr,
            ForwardMethod::TUNNEL => Self::Tunnel,
            ForwardMethod::FULLNAT => Self::FullNat,
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
            Self::FullNat => "fullnat",
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

    /// Says why there is no such tunnel, if so.
    pub(super) fn fits(self) -> Result<(), String> {
        match (self.kind, self.port) {
            (TunnelKind::Gue, None) => {
                return Err(
                    "a tunnel of type gue needs a port, as 6080 (--tunnel-port, in a file `port`)"
                        .to_owned(),
                );
            }
            (TunnelKind::Ipip | TunnelKind::Gre, Some(port)) => {
                return Err(format!(
                    "tunnel port {port}: only tunnels of type gue have one (--tunnel-type gue)"
                ));
            }
            _ => {}
        }
        match (self.kind, self.checksum) {
            (TunnelKind::Ipip, Checksum::Csum | Checksum::Remcsum)
            | (TunnelKind::Gre, Checksum::Remcsum) => {
                return Err(
                    "tunnel checksum: csum is for tunnels of type gue and gre, remcsum for gue, none for all"
                        .to_owned(),
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts the tunnel into a destination, or says why that can't be.
    pub(super) fn put(self, dest: &mut Dest) -> Result<(), String> {
        self.fits()?;
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

pub(super) use crate::refusals::words;

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
    pub(super) fn of(service: &Service, dests: &[Dest], locals: &[LocalAddress]) -> Self {
        let fullnat = service.fullnat.unwrap_or_default();
        let tunnels = service.tunnels.unwrap_or_default();
        let ports = (fullnat.port_min, fullnat.port_max);
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
            local_addresses: locals.iter().map(extension::local_text).collect(),
            local_ports: (ports != DEFAULT_PORTS).then(|| format!("{}-{}", ports.0, ports.1)),
            toa: Some(fullnat.toa_kind).filter(|kind| *kind != 0),
            toa_on_syn: fullnat.toa_on_syn,
            proxy_protocol: Some(fullnat.proxy_version).filter(|version| *version != 0),
            tunnel_sources: extension::source_texts(&tunnels),
            tunnel_mss_clamp: tunnels.clamp_mss,
            fullnat: None,
            stats: None,
            real_servers: dests.iter().map(RealState::of).collect(),
        }
    }

    /// As the kernel describes it.
    pub(super) fn of_entry(entry: &Entry) -> Self {
        Self::of(&entry.service, &entry.dests, &entry.locals)
    }

    /// For the kernel.
    pub(super) fn to_kernel(&self) -> Result<Entry, String> {
        let id = parse_words(&self.service)?;
        let within = |e: String| format!("service {}: {e}", self.service);
        let mut service = Service::new(id, &self.scheduler);
        if self.scheduler.is_empty() || self.scheduler.len() > 15 {
            return Err(within(format!(
                "scheduler `{}`: a name of 1 to 15 characters is right, as wlc",
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
        let locals = self.extensions(&mut service).map_err(within)?;
        if let ServiceId::Address { protocol, addr } = id {
            if addr.port() == 0 && self.persistent.is_none() {
                return Err(within(
                    "port 0, which means all ports, needs `persistent` (--persistent), as 300 seconds"
                        .to_owned(),
                ));
            }
            if self.one_packet && protocol != Protocol::UDP {
                return Err(within(
                    "one_packet (--one-packet) is for UDP only: a udp service can have it"
                        .to_owned(),
                ));
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
        Ok(Entry {
            service,
            dests,
            locals,
        })
    }

    /// What only rvs has, into a service; its local addresses.
    fn extensions(&self, service: &mut Service) -> Result<Vec<LocalAddress>, String> {
        let id = service.id;
        let locals = self
            .local_addresses
            .iter()
            .map(|text| extension::parse_local(text).map_err(|e| format!("local_addresses: {e}")))
            .collect::<Result<Vec<_>, _>>()?;
        extension::check_locals(&id, &locals)?;
        if self.one_packet && !locals.is_empty() {
            return Err(
                "one_packet excludes local_addresses: a reply would belong to no connection"
                    .to_owned(),
            );
        }
        let mut fullnat = FullNat::default();
        if let Some(ports) = &self.local_ports {
            (fullnat.port_min, fullnat.port_max) =
                extension::parse_ports(ports).map_err(|e| format!("local_ports: {e}"))?;
        }
        fullnat.toa_kind = self.toa.unwrap_or_default();
        fullnat.toa_on_syn = self.toa_on_syn;
        fullnat.proxy_version = self.proxy_protocol.unwrap_or_default();
        if !(0..=2).contains(&fullnat.proxy_version) {
            return Err(format!(
                "proxy_protocol: {} is not 1 or 2, which are right",
                fullnat.proxy_version
            ));
        }
        extension::check_fullnat(&id, &fullnat)?;
        service.fullnat = Some(fullnat).filter(|fullnat| *fullnat != FullNat::default());
        let mut tunnels = TunnelExtras::default();
        tunnels.clamp_mss = self.tunnel_mss_clamp;
        if !self.tunnel_sources.is_empty() {
            let sources = extension::parse_sources(&self.tunnel_sources.join(","))
                .map_err(|e| format!("tunnel_sources: {e}"))?;
            extension::set_sources(&mut tunnels, &sources);
        }
        service.tunnels = Some(tunnels).filter(|tunnels| *tunnels != TunnelExtras::default());
        Ok(locals)
    }

    /// Those fields that only rvs has.
    pub(super) fn needs_rvs(&self) -> Vec<&'static str> {
        let fullnat = |real: &RealState| real.method == Method::FullNat;
        [
            ("local_addresses", !self.local_addresses.is_empty()),
            ("local_ports", self.local_ports.is_some()),
            ("toa", self.toa.is_some()),
            ("proxy_protocol", self.proxy_protocol.is_some()),
            ("tunnel_sources", !self.tunnel_sources.is_empty()),
            ("tunnel_mss_clamp", self.tunnel_mss_clamp),
            ("method: fullnat", self.real_servers.iter().any(fullnat)),
        ]
        .into_iter()
        .filter(|(_, there)| *there)
        .map(|(name, _)| name)
        .collect()
    }
}

const DEFAULT_PORTS: (u16, u16) = (1024, u16::MAX);

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
            .ok_or("method `other`: nat, dr, tunnel and fullnat are right")?;
        let mut dest = Dest::new(addr, method);
        if self.weight < 0 {
            return Err(format!("weight {}: 0 or more is right", self.weight));
        }
        dest.weight = self.weight;
        if self.lower > self.upper {
            return Err(format!(
                "lower threshold {} above the upper one, {}: 0 to {} is right",
                self.lower, self.upper, self.upper
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

/// Whether the port of a real server may be another than its service's.
pub(super) fn translates(dest: &Dest) -> bool {
    matches!(dest.method, ForwardMethod::MASQ | ForwardMethod::FULLNAT)
}

/// Whether a service can have such a real server.
pub(super) fn fits(service: &ServiceId, dest: &Dest) -> Result<(), String> {
    let tunnel = dest.method == ForwardMethod::TUNNEL;
    if !tunnel && AddressFamily::of(dest.addr.ip()) != service.family() {
        let family = if service.family() == AddressFamily::INET6 {
            "IPv6"
        } else {
            "IPv4"
        };
        return Err(format!(
            "real server {}: one of {family}, as the service, is right; one of another address family needs method tunnel",
            dest.addr
        ));
    }
    match service {
        ServiceId::Address { addr, .. } if !translates(dest) && addr.port() != dest.addr.port() => {
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
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        let rules = ["-A ", "-a ", "ipvsadm ", "rvsadm ", "--add-s"];
        if let Some(line) = first.filter(|line| rules.iter().any(|rule| line.starts_with(rule))) {
            return Err(format!(
                "`{line}`: these are rules, which `rvsadm -R` restores; YAML or JSON as of `rvsadm save` is right"
            ));
        }
        let state: Option<Self> = if text.trim_start().starts_with('{') {
            serde_json::from_str(text)
                .map_err(|e| format!("{e} (JSON as of `rvsadm --json save` is right)"))?
        } else {
            serde_yaml_ng::from_str(text)
                .map_err(|e| format!("{e} (YAML as of `rvsadm save`, or JSON, is right)"))?
        };
        state.ok_or_else(|| {
            "the file is empty; `services: []` says that nothing shall be".to_owned()
        })
    }

    /// For the kernel; what is wrong with it otherwise.
    pub(super) fn to_kernel(&self) -> Result<Table, String> {
        let mut table = Vec::with_capacity(self.services.len());
        let mut seen = HashSet::new();
        for service in &self.services {
            let entry = service.to_kernel()?;
            if !seen.insert(entry.service.id) {
                return Err(format!("service {} stands twice", service.service));
            }
            table.push(entry);
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
- service: tcp 192.0.2.1:443
  scheduler: rr
  local_addresses: [10.77.0.16/28, 10.77.1.1%eth1]
  local_ports: 2000-65000
  toa: 254
  toa_on_syn: true
  real_servers:
  - {address: '10.0.0.1:8443', method: fullnat}
- service: fwmark6 7
  tunnel_sources: [10.77.0.0/22, '2001:db8:77::/64']
  tunnel_mss_clamp: true
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
            services: table.iter().map(ServiceState::of_entry).collect(),
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
            ("services: [{service: tcp 10.0.0.1:80, one_packet: true}]", "is for UDP only"),
            ("services:\n- service: tcp 10.0.0.1:80\n  wait: 3\n", "unknown field `wait`, expected one of"),
            ("services:\n- service: tcp 10.0.0.1:80\n  wait: 3\n", "at line 3 column 3"),
            ("services:\n- service: tcp 10.0.0.1:80\n  persistent: x\n", "services[0].persistent: invalid type: string \"x\", expected u32 at line 3"),
            ("{\"services\": [\n{\"service\": \"tcp 10.0.0.1:80\",\n\"wait\": 3}]}", "unknown field `wait`"),
            ("{\"services\": [\n{\"service\": \"tcp 10.0.0.1:80\",\n\"wait\": 3}]}", "at line 3 column"),
            ("# saved\n-A -t 10.0.0.1:80 -s rr\n", "`-A -t 10.0.0.1:80 -s rr`: these are rules, which `rvsadm -R` restores"),
            ("[vip]\naddress = 1\n", "YAML as of `rvsadm save`"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '10.0.0.2:81', method: dr}]}]", "only method nat can change the port"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '[::1]:80'}]}]", "needs method tunnel"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '10.0.0.2:80', lower: 5}]}]", "lower threshold 5 above"),
            ("services: [{service: tcp 10.0.0.1:80, real_servers: [{address: '10.0.0.2:80', method: tunnel, tunnel: {type: gue}}]}]", "needs a port"),
            ("services: [{service: 'tcp 2001:db8::1:80'}]", "stands in brackets"),
            ("services: [{service: udp 10.0.0.1:53, one_packet: true, local_addresses: [10.7.0.1]}]", "one_packet excludes local_addresses"),
            ("services: [{service: tcp 10.0.0.1:80, local_addresses: ['2001:db8::1']}]", "one of IPv4"),
            ("services: [{service: tcp 10.0.0.1:80, local_addresses: [10.7.0.1/24]}]", "10.7.0.0/24 would be right"),
            ("services: [{service: tcp 10.0.0.1:80, local_ports: 0-5}]", "local_ports: `0-5` is no range"),
            ("services: [{service: tcp 10.0.0.1:80, toa: 254, proxy_protocol: 1}]", "exclude each other"),
            ("services: [{service: tcp 10.0.0.1:80, toa: 2}]", "no kind of TCP option that is free"),
            ("services: [{service: udp 10.0.0.1:53, toa: 254}]", "option of TCP"),
            ("services: [{service: tcp 10.0.0.1:80, proxy_protocol: 3}]", "3 is not 1 or 2"),
            ("services: [{service: tcp 10.0.0.1:80, tunnel_sources: [10.0.0.0/7]}]", "8 to 32 is right"),
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
