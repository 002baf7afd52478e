// SPDX-License-Identifier: GPL-2.0-or-later

//! The subcommands.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use rvs_netlink::{AddressFamily, LocalAddress, Protocol, ServiceFlags, ServiceId};

use super::model::{Checksum, Method, TunnelKind};
use crate::extension::{parse_local, parse_ports, parse_proxy, parse_sources, parse_toa};

/// Administers the layer-4 load balancer of the Linux kernel (rvs, ip_vs).
///
/// ipvsadm's command line is understood as well: what begins with a dash (rvsadm -Ln; rvsadm -h lists it), and
/// everything under the name of ipvsadm.
#[derive(Debug, Parser)]
#[command(name = "rvsadm", version, after_help = AFTER)]
pub(crate) struct Cli {
    /// Print JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const AFTER: &str = "\
A service is named by protocol and address (tcp 192.0.2.1:80, udp [2001:db8::1]:53, sctp ...), or by a firewall mark \
(fwmark 5, fwmark6 5).

Exit codes: 0 done, 1 refused or failed, 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Virtual services.
    #[command(subcommand)]
    Service(ServiceVerb),
    /// Real servers of a service.
    #[command(subcommand)]
    Real(RealVerb),
    /// Local addresses of services, which make their nat real servers FullNAT (needs rvs).
    #[command(subcommand)]
    Pool(PoolVerb),
    /// List connections as they are in the kernel's table, filtered by the kernel where the module is rvs.
    Conns(Conns),
    /// Tell what happens to services, real servers and connections, as it happens (needs rvs).
    Events(Events),
    /// List counters and rates.
    Stats(Listed),
    /// Services, real servers, rates and connections, live on the whole screen; real servers can be drained there.
    ///
    /// Keys: up and down (or k and j), page up and down, home and end select; d drains the selected real server, u takes
    /// that back; c shows the connections of the selected line, l the local addresses of its service (FullNAT); space folds a service's real servers; s puts
    /// the busiest first; p pauses; q or escape quits.
    Watch(Watch),
    /// Print the table as a state that `apply` makes.
    Save(Save),
    /// Make the kernel's table what a file says, with as few changes as possible.
    Apply(Apply),
    /// Look for what is wrong in the kernel's table and around it, or in a file.
    Check(Check),
    /// Prepare a real server for direct routing or tunnels.
    #[command(subcommand)]
    Realserver(RealserverVerb),
    /// Write the man pages, or print a shell's completions.
    Generate(Generate),
}

#[derive(Debug, Subcommand)]
pub(super) enum ServiceVerb {
    /// Add a service.
    Add(ServiceArgs),
    /// Change a service; what isn't given stays as it is.
    Edit(ServiceArgs),
    /// Remove a service with its real servers.
    Del(ServiceName),
    /// List services and their real servers.
    List(Listed),
}

/// A service.
#[derive(Debug, Args)]
pub(super) struct ServiceName {
    /// tcp, udp, sctp, fwmark or fwmark6.
    #[arg(value_name = "PROTOCOL")]
    pub(super) kind: Kind,
    /// Address and port (192.0.2.1:80, [2001:db8::1]:80), or firewall mark.
    #[arg(value_name = "SERVICE")]
    pub(super) service: String,
}

/// What a service is told by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Sctp,
    Fwmark,
    Fwmark6,
}

impl ServiceName {
    pub(super) fn id(&self) -> Result<ServiceId, String> {
        id_of(self.kind, &self.service)
    }
}

/// The service of two words.
pub(super) fn id_of(kind: Kind, service: &str) -> Result<ServiceId, String> {
    let protocol = match kind {
        Kind::Tcp => Protocol::TCP,
        Kind::Udp => Protocol::UDP,
        Kind::Sctp => Protocol::SCTP,
        Kind::Fwmark | Kind::Fwmark6 => {
            let family = if kind == Kind::Fwmark6 {
                AddressFamily::INET6
            } else {
                AddressFamily::INET
            };
            return match service.parse() {
                Ok(mark) if mark > 0 => Ok(ServiceId::fwmark(family, mark)),
                _ => Err(format!(
                    "`{service}` is no firewall mark: a number from 1 to {} would be one",
                    u32::MAX
                )),
            };
        }
    };
    Ok(ServiceId::address(protocol, socket_addr(service)?))
}

/// An address with a port.
pub(super) fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let hint = if text.matches(':').count() > 1 && !text.starts_with('[') {
            "an IPv6 address with a port stands in brackets, as [2001:db8::1]:80"
        } else if text.parse::<IpAddr>().is_ok() {
            "the port is missing"
        } else if text.rsplit_once(':').is_some_and(|(ip, port)| {
            let ip = ip.trim_matches(['[', ']']);
            ip.parse::<IpAddr>().is_ok() && port.parse::<u64>().is_ok()
        }) {
            "a port from 0 to 65535 is right"
        } else {
            "192.0.2.1:80 or [2001:db8::1]:80 would be one"
        };
        format!("`{text}` is no address with a port: {hint}")
    })
}

#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    #[command(flatten)]
    pub(super) name: ServiceName,
    /// How real servers are chosen: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos [default: wlc]
    #[arg(long, short, value_name = "NAME")]
    pub(super) scheduler: Option<String>,
    /// Flags of the scheduler, separated by commas: fallback, port (of sh and mh), flag-1, flag-2, flag-3.
    #[arg(long, value_name = "FLAGS", value_delimiter = ',')]
    pub(super) scheduler_flags: Option<Vec<SchedulerFlag>>,
    /// Clients come back to the same real server, for this number of seconds after their last connection; 0 switches it off.
    #[arg(long, short, value_name = "SECONDS", value_parser = in_range::<u32>(0, 2_678_400), allow_negative_numbers = true)]
    pub(super) persistent: Option<u32>,
    /// Clients of the same network count as one for persistence: a mask or prefix length.
    #[arg(long, value_name = "MASK", value_parser = parse_mask)]
    pub(super) netmask: Option<Mask>,
    /// Persistence engine (sip); none switches it off.
    #[arg(long, value_name = "NAME")]
    pub(super) pe: Option<String>,
    /// Schedule each packet anew (UDP).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(super) one_packet: Option<bool>,
    /// FullNAT: connections to nat real servers come from these addresses, or all addresses of a prefix (10.77.0.16/28);
    /// %eth1 behind it: only to real servers there. Several with commas; `edit` replaces all; none removes all.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = parse_pool, help_heading = RVS)]
    pub(super) local_address: Option<Vec<PoolMember>>,
    /// Ports of local addresses [default: 1024-65535]
    #[arg(long, value_name = "MIN-MAX", value_parser = parse_ports, help_heading = RVS)]
    pub(super) local_ports: Option<(u16, u16)>,
    /// FullNAT: tell real servers the client's address in a TCP option of this kind [254 if none is given]; off switches it off.
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "254", value_parser = parse_toa, help_heading = RVS)]
    pub(super) toa: Option<u8>,
    /// The option is on SYNs, too.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = RVS)]
    pub(super) toa_on_syn: Option<bool>,
    /// FullNAT: tell real servers the client's address with the PROXY protocol, version 1 (tcp) or 2 (tcp, udp) [2 if none is
    /// given]; off switches it off.
    #[arg(long, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = parse_proxy, help_heading = RVS)]
    pub(super) proxy_protocol: Option<u8>,
    /// Tunnels come from addresses of this network, by the flow: one of IPv4, one of IPv6, with a comma between; none
    /// switches it off.
    #[arg(long, value_name = "NETWORK", value_parser = parse_networks, help_heading = RVS)]
    pub(super) tunnel_sources: Option<Networks>,
    /// Lower the maximum segment size in TCP SYNs to what tunnels carry.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = RVS)]
    pub(super) tunnel_mss_clamp: Option<bool>,
}

const RVS: &str = "Options that need rvs";

impl ServiceArgs {
    /// Those options that were given and that only rvs has.
    pub(super) fn needs_rvs(&self) -> Vec<String> {
        [
            ("--local-address", self.local_address.is_some()),
            ("--local-ports", self.local_ports.is_some()),
            ("--toa", self.toa.is_some()),
            ("--toa-on-syn", self.toa_on_syn.is_some()),
            ("--proxy-protocol", self.proxy_protocol.is_some()),
            ("--tunnel-sources", self.tunnel_sources.is_some()),
            ("--tunnel-mss-clamp", self.tunnel_mss_clamp.is_some()),
        ]
        .into_iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| name.to_owned())
        .collect()
    }
}

/// A part of a pool, or the word for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PoolMember {
    Nothing,
    Local(LocalAddress),
}

fn parse_pool(text: &str) -> Result<PoolMember, String> {
    match text {
        "none" => Ok(PoolMember::Nothing),
        _ => parse_local(text).map(PoolMember::Local),
    }
}

/// Networks that tunnels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Networks(pub(super) Vec<(IpAddr, u8)>);

fn parse_networks(text: &str) -> Result<Networks, String> {
    parse_sources(text).map(Networks)
}

#[derive(Debug, Subcommand)]
pub(super) enum PoolVerb {
    /// List local addresses, how many connections have them, and what went wrong.
    List(PoolListed),
    /// Add local addresses to a service.
    Add(PoolArgs),
    /// Remove local addresses from a service, as they were added; connections that have them go on.
    Del(PoolArgs),
}

#[derive(Debug, Args)]
pub(super) struct PoolListed {
    #[command(flatten)]
    pub(super) listed: Listed,
    /// Each address of a prefix by itself.
    #[arg(long)]
    pub(super) each: bool,
}

#[derive(Debug, Args)]
pub(super) struct PoolArgs {
    #[command(flatten)]
    pub(super) name: ServiceName,
    /// Address, prefix (10.77.0.16/28), or either for one interface (10.77.0.1%eth1).
    #[arg(required = true, value_name = "ADDRESS", value_parser = parse_local)]
    pub(super) locals: Vec<LocalAddress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum SchedulerFlag {
    Fallback,
    Port,
    #[value(name = "flag-1")]
    Flag1,
    #[value(name = "flag-2")]
    Flag2,
    #[value(name = "flag-3")]
    Flag3,
}

impl SchedulerFlag {
    pub(super) fn bit(self) -> ServiceFlags {
        match self {
            Self::Fallback | Self::Flag1 => ServiceFlags::SCHED1,
            Self::Port | Self::Flag2 => ServiceFlags::SCHED2,
            Self::Flag3 => ServiceFlags::SCHED3,
        }
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(mask) => Ipv4Addr::from(*mask).fmt(f),
            Self::Prefix(len) => len.fmt(f),
        }
    }
}

/// How many bits of a client's address count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    V4(u32),
    Prefix(u32),
}

impl Mask {
    pub(super) fn of(self, family: AddressFamily) -> Result<u32, String> {
        match (self, family == AddressFamily::INET6) {
            (Self::Prefix(n @ 1..=128), true) => Ok(n),
            (Self::Prefix(n @ 1..=32), false) => {
                Ok(u32::MAX.checked_shl(32u32.saturating_sub(n)).unwrap_or(0))
            }
            (Self::V4(mask), false) => Ok(mask),
            (Self::V4(_), true) => {
                Err("an IPv6 service has a prefix length for a netmask, from 1 to 128".to_owned())
            }
            (Self::Prefix(_), v6) => Err(format!(
                "a prefix length from 1 to {}{} is right",
                if v6 { 128 } else { 32 },
                if v6 {
                    ""
                } else {
                    ", or a mask as 255.255.255.0,"
                }
            )),
        }
    }
}

pub(super) fn parse_mask(text: &str) -> Result<Mask, String> {
    match (
        text.parse::<Ipv4Addr>(),
        text.trim_start_matches('/').parse(),
    ) {
        (Ok(v4), _) => Ok(Mask::V4(v4.into())),
        (_, Ok(prefix)) => Ok(Mask::Prefix(prefix)),
        _ => Err("a mask (255.255.255.0) or a prefix length (24) is right".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum RealVerb {
    /// Add a real server to a service.
    Add(RealArgs),
    /// Change a real server; what isn't given stays as it is.
    Set(RealArgs),
    /// Remove a real server; its connections end as the sysctl expire_nodest_conn has it.
    Del(RealName),
    /// Give a real server no new connections, wait until those it has are over, and say so.
    Drain(Drain),
}

/// A real server of a service.
#[derive(Debug, Args)]
pub(super) struct RealName {
    #[command(flatten)]
    pub(super) service: ServiceName,
    /// Address and port of the real server.
    #[arg(value_parser = socket_addr, value_name = "REAL")]
    pub(super) real: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct RealArgs {
    #[command(flatten)]
    pub(super) name: RealName,
    /// How packets get there: nat, dr (direct routing), tunnel, or fullnat [default: nat]
    #[arg(long, short, value_name = "METHOD")]
    pub(super) method: Option<Method>,
    /// As --method fullnat: never without a local address of the service (needs rvs). A nat real server is FullNAT as well
    /// while its service has local addresses.
    #[arg(long, conflicts_with = "method")]
    pub(super) fullnat: bool,
    /// Share of new connections; 0 gives none.
    #[arg(long, short, value_parser = in_range::<i32>(0, i32::MAX), allow_negative_numbers = true)]
    pub(super) weight: Option<i32>,
    /// No new connections from this number on; 0 for no limit.
    #[arg(long, value_name = "N", value_parser = in_range::<u32>(0, MOST_CONNS), allow_negative_numbers = true)]
    pub(super) upper: Option<u32>,
    /// New connections again below this number.
    #[arg(long, value_name = "N", value_parser = in_range::<u32>(0, MOST_CONNS), allow_negative_numbers = true)]
    pub(super) lower: Option<u32>,
    /// Tunnel type.
    #[arg(long, value_name = "TYPE")]
    pub(super) tunnel_type: Option<TunnelKind>,
    /// Tunnel port, for gue.
    #[arg(long, value_name = "PORT", value_parser = in_range::<u16>(1, u16::MAX), allow_negative_numbers = true)]
    pub(super) tunnel_port: Option<u16>,
    /// Checksums of the tunnel, for gue and gre.
    #[arg(long, value_name = "WHICH")]
    pub(super) tunnel_checksum: Option<Checksum>,
}

#[derive(Debug, Args)]
pub(super) struct Drain {
    #[command(flatten)]
    pub(super) name: RealName,
    /// Seconds to wait at most; 0 doesn't wait.
    #[arg(
        long,
        default_value_t = 60,
        value_name = "SECONDS",
        value_parser = in_range::<u64>(0, 86400),
        allow_negative_numbers = true
    )]
    pub(super) wait: u64,
    /// Remove the real server once it has no connections left.
    #[arg(long)]
    pub(super) remove: bool,
}

/// As many connections as a threshold can have.
const MOST_CONNS: u32 = i32::MAX.unsigned_abs();

/// Reads a number from one to another, or says that.
fn in_range<T>(min: T, max: T) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync
where
    T: std::str::FromStr + PartialOrd + fmt::Display + Copy + Send + Sync + 'static,
{
    move |text| match text.parse() {
        Ok(number) if min <= number && number <= max => Ok(number),
        _ => Err(format!("a number from {min} to {max} is right")),
    }
}

/// The names of connections' states in the kernel's lists; those of TCP, of the others, of SCTP.
const STATES: [&str; 26] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "SYNACK",
    "UDP",
    "NONE",
    "ASSURED",
    "ERR!",
    "INIT1",
    "INIT",
    "C-SENT",
    "C-REPLIED",
    "C-WAIT",
    "COOKIE",
    "C-ECHOED",
    "S-SENT",
    "S-RECEIVED",
    "S-ACK-SENT",
    "REJECTED",
    "CLOSED",
];

/// All services, or one.
#[derive(Debug, Args)]
pub(super) struct Listed {
    /// tcp, udp, sctp, fwmark or fwmark6.
    #[arg(value_name = "PROTOCOL", requires = "service")]
    pub(super) kind: Option<Kind>,
    /// Address and port, or firewall mark.
    #[arg(value_name = "SERVICE")]
    pub(super) service: Option<String>,
}

impl Listed {
    pub(super) fn id(&self) -> Result<Option<ServiceId>, String> {
        match (self.kind, &self.service) {
            (Some(kind), Some(service)) => id_of(kind, service).map(Some),
            _ => Ok(None),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    #[command(flatten)]
    pub(super) listed: Listed,
    /// How often the kernel is asked; its rates are new every two seconds.
    #[arg(long, short, value_name = "SECONDS", default_value = "1", value_parser = parse_interval, allow_negative_numbers = true)]
    pub(super) interval: f64,
}

fn parse_interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 3600 is right".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(super) struct Conns {
    /// Only those of this protocol.
    #[arg(long, short, value_name = "PROTOCOL")]
    pub(super) protocol: Option<Transport>,
    /// Only those from this client, or from clients of this network (10.1.0.0/16).
    #[arg(long, value_name = "ADDRESS", value_parser = parse_network)]
    pub(super) client: Option<Network>,
    /// Only those to this address of a service, with port or without.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_endpoint)]
    pub(super) service: Option<Endpoint>,
    /// Only those to this real server, with port or without.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_endpoint)]
    pub(super) real: Option<Endpoint>,
    /// Only those in this state.
    #[arg(long, value_name = "STATE", ignore_case = true, value_parser = clap::builder::PossibleValuesParser::new(STATES), hide_possible_values = true)]
    pub(super) state: Option<String>,
    /// Show packets, bytes and age as well, of those that count: needs rvs, and the sysctl net.ipv4.vs.rvs_conn_counters
    /// when they began.
    #[arg(long, conflicts_with = "count")]
    pub(super) counters: bool,
    /// Print how many there are, and nothing else.
    #[arg(long)]
    pub(super) count: bool,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl Transport {
    pub(super) fn number(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::TCP,
            Self::Udp => Protocol::UDP,
            Self::Sctp => Protocol::SCTP,
        }
    }
}

/// The addresses that begin with the first bits of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

fn parse_network(text: &str) -> Result<Network, String> {
    let wrong = || "an address (192.0.2.1) or a network (192.0.2.0/24) is right".to_owned();
    let (ip, prefix) = match text.split_once('/') {
        Some((ip, prefix)) => (ip, Some(prefix)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(prefix) => match prefix.parse() {
            Ok(prefix) if prefix <= bits => prefix,
            _ => return Err(format!("a prefix length from 0 to {bits} is right")),
        },
    };
    Ok(Network { ip, prefix })
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// What to tell.
    #[arg(value_enum, default_value_t = Topic::Config)]
    pub(super) topic: Topic,
    /// End after this number of events.
    #[arg(long, value_name = "N", value_parser = in_range::<u64>(1, u64::MAX), allow_negative_numbers = true)]
    pub(super) count: Option<u64>,
}

/// What events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Topic {
    /// Services and real servers.
    Config,
    /// Connections.
    Conns,
    /// Both.
    All,
}

/// An address, with or without a port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endpoint {
    pub(super) ip: IpAddr,
    pub(super) port: Option<u16>,
}

fn parse_endpoint(text: &str) -> Result<Endpoint, String> {
    if let Ok(ip) = text.parse() {
        return Ok(Endpoint { ip, port: None });
    }
    let addr = socket_addr(text);
    addr.map(|addr| Endpoint {
        ip: addr.ip(),
        port: Some(addr.port()),
    })
    .map_err(|e| format!("{e}; an address alone is right, too"))
}

#[derive(Debug, Args)]
pub(super) struct Save {
    // --json is the other format.
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// YAML or JSON; - for standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(super) file: PathBuf,
    /// Show what would be changed, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Check this file instead of the kernel; - for standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RealserverVerb {
    /// Set this machine up as a real server.
    Setup(Realserver),
    /// Say what is missing for that, or wrong; exit code 1 if something is.
    Check(Realserver),
    /// Take back what setup did with the same options; what was there before, or is needed otherwise, stays.
    Undo(Realserver),
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| "an address without a port, as 192.0.2.1 or 2001:db8::1, is right".to_owned())
}

#[derive(Debug, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("mode").required(true))]
pub(super) struct Realserver {
    /// For direct routing: the director changes the link-layer address only.
    #[arg(long, group = "mode")]
    pub(super) dr: bool,
    /// For tunnels: the director puts packets into others.
    #[arg(long, group = "mode")]
    pub(super) tunnel: bool,
    /// Tunnel type, as the director has it for this real server [default: ipip]
    #[arg(long, value_name = "TYPE")]
    pub(super) tunnel_type: Option<TunnelKind>,
    /// Tunnel port, for gue, as the director has it.
    #[arg(long, value_name = "PORT", value_parser = in_range::<u16>(1, u16::MAX), allow_negative_numbers = true)]
    pub(super) tunnel_port: Option<u16>,
    /// Checksums of the tunnel, as the director has it; a port for gue takes all three, a device for gre either with or without.
    #[arg(long, value_name = "WHICH")]
    pub(super) tunnel_checksum: Option<Checksum>,
    /// This machine's address to which the director sends tunnels. Needed if it is of another IP version than VIP, and for gre with
    /// checksums; a device is made for it. Without, tunnels to any address of VIP's IP version are taken.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_ip)]
    pub(super) tunnel_address: Option<IpAddr>,
    /// Addresses of services.
    #[arg(required = true, value_name = "VIP", value_parser = parse_ip)]
    pub(super) vips: Vec<IpAddr>,
    /// Show the commands, and run none.
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct Generate {
    #[command(subcommand)]
    pub(super) what: What,
}

#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// Man pages, one for each subcommand.
    Man {
        /// The folder to write them to.
        folder: PathBuf,
    },
    /// A shell's completions, to standard output.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: Shell,
    },
}

/// Subcommands and ipvsadm's flags in one definition.
pub(super) fn whole() -> clap::Command {
    let mut command = Cli::command().subcommand_required(false);
    for arg in crate::classic::options::command("rvsadm", true).get_arguments() {
        let arg = arg.clone().help_heading("ipvsadm's flags");
        command = command.arg(arg);
    }
    command
        .disable_help_flag(true)
        .disable_version_flag(true)
        .group(clap::ArgGroup::new("command").args(crate::classic::options::COMMANDS))
}
