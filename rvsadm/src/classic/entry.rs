// SPDX-License-Identifier: GPL-2.0-or-later

//! What a command line means: its options one by one, then the rules between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::Command;
use rvs_netlink::{
    AddressFamily, Attribute, Daemon, DaemonState, Dest, ForwardMethod, LocalAddress, Message,
    Protocol, Service, ServiceAttribute, ServiceFlags, ServiceId, Sources, Timeouts, TunnelType,
};

use super::options::{option_name, Rule, Verb, COMMANDS, EXTENSIONS, OPTIONS};
use super::popt::Popt;
use super::Stop;
use crate::extension;
use crate::names::{host_v4, Names};
use crate::numbers::{atoi, inet_aton, number, strtol};
use crate::refusals::words;

const MAX_TIMEOUT: i64 = 86400 * 31;
const DEFAULT_PERSISTENCE: u32 = 360;
/// The largest weight and threshold.
const MOST: i64 = i32::MAX as i64;

/// How lists are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) numeric: bool,
    pub(super) stats: bool,
    pub(super) rate: bool,
    pub(super) thresholds: bool,
    pub(super) persistent: bool,
    pub(super) nosort: bool,
    pub(super) exact: bool,
    pub(super) tunnels: bool,
}

/// A service as typed so far: which options have been seen decides what later ones mean.
#[derive(Debug, Clone)]
pub(super) struct TypedService {
    family: Option<AddressFamily>,
    protocol: Protocol,
    addr: IpAddr,
    port: u16,
    fwmark: u32,
    scheduler: String,
    flags: ServiceFlags,
    timeout: u32,
    netmask: u32,
    pe: Option<String>,
}

impl TypedService {
    /// The service for the kernel.
    pub(super) fn id(&self) -> ServiceId {
        if self.fwmark != 0 {
            ServiceId::fwmark(self.family.unwrap_or(AddressFamily::INET), self.fwmark)
        } else {
            ServiceId::address(self.protocol, SocketAddr::new(self.addr, self.port))
        }
    }

    /// Whether it is none: ipvsadm takes the address 0.0.0.0:0 for that.
    pub(super) fn is_nothing(&self) -> bool {
        self.fwmark == 0 && self.addr.is_unspecified() && self.port == 0
    }

    /// The whole service for the kernel.
    pub(super) fn service(&self) -> Service {
        let mut service = Service::new(self.id(), &self.scheduler);
        service.flags = self.flags;
        service.timeout = self.timeout;
        service.netmask = self.netmask;
        service.pe_name.clone_from(&self.pe);
        service
    }
}

/// What was read of an address.
struct Parsed {
    addr: IpAddr,
    port: Option<u16>,
}

/// Reads `host[:port]`, `address`, `[address]:port`.
fn parse_address(text: &str, protocol: Protocol, names: &mut Names) -> Option<Parsed> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, port) = inner.split_once(']')?;
            (host, Some(port.strip_prefix(':')?))
        }
        None => (text, None),
    };
    let (addr, port) = match host.parse::<Ipv6Addr>() {
        Ok(v6) => (IpAddr::V6(v6), port),
        Err(_) => {
            // With brackets around it, an IPv4 address has no port for ipvsadm.
            let (host, port) = match host.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (host, None),
            };
            let v4 = inet_aton(host).or_else(|| host_v4(host))?;
            (IpAddr::V4(v4), port)
        }
    };
    let port = match port {
        Some(port) => Some(number(port, 0, 65535).or_else(|| names.port(port, protocol))?),
        None => None,
    };
    Some(Parsed { addr, port })
}

/// Reads an address into a service. Whether it was one.
fn parse_service(text: &str, service: &mut TypedService, names: &mut Names) -> bool {
    match parse_address(text, service.protocol, names) {
        Some(Parsed { addr, port }) => {
            service.addr = addr;
            service.family = Some(AddressFamily::of(addr));
            if addr.is_ipv6() {
                service.netmask = 128;
            }
            if let Some(port) = port {
                service.port = port;
            }
            true
        }
        None => false,
    }
}

fn parse_timeout(option: &str, text: &str, min: i64) -> Result<u32, Stop> {
    number(text, min, MAX_TIMEOUT).ok_or_else(|| {
        Stop::fail(format!(
            "invalid timeout value `{text}' specified: --{option}: {min} to {MAX_TIMEOUT} seconds are right"
        ))
    })
}

/// What is wrong with an address, for one that isn't.
fn address_hint(text: &str) -> &'static str {
    let port = text.rsplit_once(':').map(|(_, port)| port);
    if text.bytes().all(|b| b.is_ascii_digit()) {
        "an address comes before the port, as 192.0.2.1:80"
    } else if port.is_some_and(|port| strtol(port).is_some_and(|(n, _)| !(0..=65535).contains(&n)))
    {
        "a port from 0 to 65535 is right"
    } else if text.matches(':').count() > 1 && !text.starts_with('[') {
        "an IPv6 address with a port stands in brackets, as [2001:db8::1]:80"
    } else if text.starts_with('[') {
        "an IPv6 address in brackets has a port behind them, as [2001:db8::1]:80"
    } else {
        "192.0.2.1:80, [2001:db8::1]:80 or host.example.org:http would be right, with a host and a port that have such names"
    }
}

/// What an option of [`OPTIONS`] is called on a command line.
fn called(option: &str) -> String {
    match option {
        "service-address" => {
            "--tcp-service, --udp-service, --sctp-service or --fwmark-service".to_owned()
        }
        "forwarding-method" => "--gatewaying, --ipip or --masquerading".to_owned(),
        other => format!("--{other}"),
    }
}

/// The commands that an option goes with.
fn where_right(option: &str) -> String {
    let commands: Vec<String> = COMMANDS
        .into_iter()
        .filter(|name| !EXTENSIONS.contains(name) || EXTENSIONS.contains(&option))
        .filter(|name| Verb::of(name).is_some_and(|verb| verb.rule(option) != Rule::Refused))
        .map(|name| format!("--{name}"))
        .collect();
    commands.join(", ")
}

fn parse_fwmark(text: &str) -> Result<u32, Stop> {
    match strtol(text) {
        Some((mark, "")) if mark > 0 => u32::try_from(mark).ok(),
        _ => None,
    }
    .ok_or_else(|| {
        Stop::fail(format!(
            "invalid fwmark value `{text}' specified: --fwmark-service: 1 to {} is right",
            u32::MAX
        ))
    })
}

fn parse_group(text: &str) -> Result<IpAddr, Stop> {
    if text.contains(':') {
        text.parse::<Ipv6Addr>()
            .ok()
            .filter(Ipv6Addr::is_multicast)
            .map(IpAddr::V6)
            .ok_or_else(|| {
                Stop::fail(format!(
                    "invalid IPv6 mcast-group `{text}': --mcast-group: a multicast address as ff05::81 is right"
                ))
            })
    } else {
        text.parse::<Ipv4Addr>()
            .ok()
            .filter(Ipv4Addr::is_multicast)
            .map(IpAddr::V4)
            .ok_or_else(|| {
                Stop::fail(format!(
                    "invalid IPv4 mcast-group `{text}': --mcast-group: a multicast address as 224.0.0.81 is right"
                ))
            })
    }
}

fn parse_state(option: &str, text: &str, complaint: &str) -> Result<DaemonState, Stop> {
    match text {
        "master" => Ok(DaemonState::MASTER),
        "backup" => Ok(DaemonState::BACKUP),
        _ => Err(Stop::fail(format!(
            "{complaint}: --{option} {text}: master and backup are right"
        ))),
    }
}

/// Flags of schedulers that have a name: the scheduler they are for, the name, the bit.
pub(super) const SCHEDULER_FLAGS: [(&str, &str, ServiceFlags); 4] = [
    ("sh", "sh-fallback", ServiceFlags::SCHED1),
    ("sh", "sh-port", ServiceFlags::SCHED2),
    ("mh", "mh-fallback", ServiceFlags::SCHED1),
    ("mh", "mh-port", ServiceFlags::SCHED2),
];

/// The names that fit any scheduler.
pub(super) const PLAIN_FLAGS: [(&str, ServiceFlags); 3] = [
    ("flag-1", ServiceFlags::SCHED1),
    ("flag-2", ServiceFlags::SCHED2),
    ("flag-3", ServiceFlags::SCHED3),
];

fn parse_sched_flags(scheduler: &str, text: &str) -> Result<ServiceFlags, Stop> {
    let mut flags = ServiceFlags::default();
    for flag in text.split(',').filter(|f| !f.is_empty()) {
        if let Some((_, bit)) = PLAIN_FLAGS.iter().find(|(name, _)| *name == flag) {
            flags |= *bit;
        } else if let Some((of, _, bit)) = SCHEDULER_FLAGS.iter().find(|(_, name, _)| *name == flag)
        {
            if *of != scheduler {
                let scheduler = if scheduler.is_empty() {
                    "wlc"
                } else {
                    scheduler
                };
                return Err(Stop::fail(format!(
                    "incompatible scheduler flag `{flag}': --sched-flags: it is of scheduler {of}; flag-1, flag-2 and flag-3 are right \
                     for {scheduler}"
                )));
            }
            flags |= *bit;
        } else {
            return Err(Stop::fail(format!(
                "invalid scheduler flag `{flag}': --sched-flags: sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2 and \
                 flag-3 are right"
            )));
        }
    }
    Ok(flags)
}

/// A command line, understood.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) verb: Verb,
    pub(super) service: TypedService,
    pub(super) dest: Dest,
    pub(super) timeouts: Timeouts,
    pub(super) daemon: Daemon,
    pub(super) format: Format,
    /// The local address of `--add-laddr` and `--del-laddr`.
    local: Option<LocalAddress>,
    /// What is said of a service that only rvs knows; what isn't said stays as it is.
    extensions: Vec<ServiceAttribute>,
    /// Options that only rvs has, as they are called.
    needs_rvs: Vec<String>,
    given: Vec<&'static str>,
}

impl Entry {
    /// Whether an option of [`OPTIONS`] was given.
    pub(super) fn has(&self, option: &str) -> bool {
        self.given.contains(&option)
    }

    fn has_any(&self, options: &[&str]) -> bool {
        options.iter().any(|option| self.has(option))
    }

    /// Those of the options that were given, as they are written.
    fn those_of(&self, options: &[&str]) -> String {
        let given: Vec<String> = options
            .iter()
            .filter(|option| self.has(option))
            .map(|option| called(option))
            .collect();
        given.join(", ")
    }

    /// Reads and checks arguments (without the program's name).
    pub(super) fn parse(
        command: &Command,
        args: &[String],
        names: &mut Names,
    ) -> Result<Self, Stop> {
        let mut popt = Popt::new(command, args);
        let first = match popt.option() {
            Some(Ok(first)) => first,
            _ => return Err(Stop::TryHelp),
        };
        let verb = match first.name.as_str() {
            "help" => return Err(Stop::Help),
            "version" => return Err(Stop::Version),
            other => Verb::of(other).ok_or(Stop::TryHelp)?,
        };
        let mut entry = Self {
            verb,
            service: TypedService {
                family: None,
                protocol: Protocol(0),
                addr: Ipv4Addr::UNSPECIFIED.into(),
                port: 0,
                fwmark: 0,
                scheduler: String::new(),
                flags: ServiceFlags::default(),
                timeout: 0,
                netmask: u32::MAX,
                pe: None,
            },
            dest: Dest::new((Ipv4Addr::UNSPECIFIED, 0).into(), ForwardMethod::ROUTE),
            timeouts: Timeouts::default(),
            daemon: Daemon::new(DaemonState(0), "", 0),
            format: Format::default(),
            local: None,
            extensions: Vec::new(),
            needs_rvs: Vec::new(),
            given: Vec::new(),
        };
        if matches!(verb, Verb::AddServer | Verb::EditServer) {
            // There ipvsadm refuses its --sched-flags, and its forks have this.
            popt.instead('b', "fullnat");
        }
        entry.note_extension(&first.name);
        let value = first.value.unwrap_or_default();
        match verb {
            Verb::StartDaemon => {
                entry.daemon.state = parse_state(
                    "start-daemon",
                    &value,
                    "illegal start-daemon parameter specified",
                )?;
            }
            Verb::StopDaemon => {
                entry.daemon.state =
                    parse_state("stop-daemon", &value, "illegal start_daemon specified")?;
            }
            _ => {}
        }
        let (mut sched_flags, mut ifname) = (String::new(), String::new());
        while let Some(option) = popt.option() {
            let option = match option {
                Ok(option) => option,
                Err(complaint) => {
                    let (word, text) = (popt.last(), complaint.text());
                    return Err(Stop::Popt(match popt.wanted() {
                        Some(wanted) => format!("{word}: {text}: {wanted} is right"),
                        None => format!("{word}: {text}"),
                    }));
                }
            };
            if Verb::of(&option.name).is_some() || ["help", "version"].contains(&&*option.name) {
                return Err(Stop::fail(format!(
                    "invalid option `{}': a command line has one command, which comes first, here --{}",
                    popt.last(),
                    first.name
                )));
            }
            entry.note(&option.name)?;
            entry.note_extension(&option.name);
            let value = option.value.as_deref();
            let text = value.unwrap_or_default();
            match option.name.as_str() {
                "sched-flags" => text.clone_into(&mut sched_flags),
                "ifname" => text.clone_into(&mut ifname),
                name if EXTENSIONS.contains(&name) && name != "fullnat" => {
                    entry.extension(name, value)?;
                }
                name => entry.option(name, value, names)?,
            }
        }
        let mut rest = popt.rest();
        if verb == Verb::Set {
            match (rest.next(), rest.next(), rest.next()) {
                (Some(tcp), Some(tcp_fin), Some(udp)) => {
                    entry.timeouts = Timeouts {
                        tcp: parse_timeout("set", &tcp, 0)?,
                        tcp_fin: parse_timeout("set", &tcp_fin, 0)?,
                        udp: parse_timeout("set", &udp, 0)?,
                    };
                }
                _ => return Err(Stop::fail(
                        "--set option requires 3 timeout values: of TCP, of TCP after a FIN and of UDP in seconds, as --set 900 120 300",
                    )),
            }
        }
        if let Some(argument) = rest.next() {
            return Err(Stop::fail(format!(
                "unexpected argument {argument}: options are right here, which begin with - or --"
            )));
        }
        entry.service.flags |= parse_sched_flags(&entry.service.scheduler, &sched_flags)?;
        entry.check_options()?;
        entry.check_meaning()?;
        entry.check_extensions(&ifname)?;
        Ok(entry)
    }

    fn note_extension(&mut self, long: &str) {
        if EXTENSIONS.contains(&long) {
            self.needs_rvs.push(format!("--{long}"));
        }
    }

    /// Options that only rvs has, as they are called.
    pub(super) fn needs_rvs(&self) -> &[String] {
        &self.needs_rvs
    }

    /// The local address that a command is about.
    pub(super) fn local(&self) -> Result<&LocalAddress, Stop> {
        self.local
            .as_ref()
            .ok_or_else(|| Stop::fail("illegal local address specified"))
    }

    /// Adds what only rvs knows to a request about the service.
    pub(super) fn extend(&self, mut message: Message) -> Message {
        for attribute in &mut message.attributes {
            if let Attribute::Service(nest) = attribute {
                nest.extend(self.extensions.iter().cloned());
            }
        }
        message
    }

    /// Options that only rvs has.
    fn extension(&mut self, name: &str, value: Option<&str>) -> Result<(), Stop> {
        use ServiceAttribute as A;
        let text = value.unwrap_or_default();
        let wrong = |e: String| Stop::fail(format!("--{name}: {e}"));
        let on = || match value {
            None | Some("on") => Ok(1),
            Some("off") => Ok(0),
            Some(other) => Err(wrong(format!("`{other}`: on and off are right"))),
        };
        match name {
            "local-address" => self.local = Some(extension::parse_local(text).map_err(wrong)?),
            "toa" => {
                let kind = extension::parse_toa(value.unwrap_or("254")).map_err(wrong)?;
                self.extensions.push(A::ToaKind(kind));
            }
            "toa-syn" => self.extensions.push(A::ToaSyn(on()?)),
            "proxy-protocol" => {
                let version = extension::parse_proxy(text).map_err(wrong)?;
                self.extensions.push(A::ProxyVersion(version));
            }
            "local-ports" => {
                let (min, max) = extension::parse_ports(text).map_err(wrong)?;
                self.extensions.extend([A::PortMin(min), A::PortMax(max)]);
            }
            "tun-sources" => {
                let (mut v4, mut v6) = (
                    Sources::new(Ipv4Addr::UNSPECIFIED, 0),
                    Sources::new(Ipv6Addr::UNSPECIFIED, 0),
                );
                for (ip, len) in extension::parse_sources(text).map_err(wrong)? {
                    match ip {
                        IpAddr::V4(ip) => v4 = Sources::new(ip, len),
                        IpAddr::V6(ip) => v6 = Sources::new(ip, len),
                    }
                }
                self.extensions
                    .extend([A::TunSourcesV4(v4), A::TunSourcesV6(v6)]);
            }
            "tun-mss-clamp" => self.extensions.push(A::TunMss(on()?)),
            _ => {}
        }
        Ok(())
    }

    /// Remembers an option; most may come once.
    fn note(&mut self, long: &str) -> Result<(), Stop> {
        let name = option_name(long);
        // What has no place in the table may be repeated.
        let Some(name) = OPTIONS.iter().find(|o| **o == name) else {
            return Ok(());
        };
        if self.has(name) {
            return Err(Stop::fail(format!(
                "multiple '{name}' options specified: one is right ({})",
                called(name)
            )));
        }
        self.given.push(name);
        Ok(())
    }

    fn option(&mut self, name: &str, value: Option<&str>, names: &mut Names) -> Result<(), Stop> {
        let text = value.unwrap_or_default();
        let service = &mut self.service;
        let dest = &mut self.dest;
        let format = &mut self.format;
        let illegal = |what: &str, right: &str| {
            Stop::fail(format!(
                "illegal {what} specified: --{name} {text}: {right}"
            ))
        };
        let range =
            |what: &str, min: i64, max: i64| illegal(what, &format!("{min} to {max} is right"));
        match name {
            "tcp-service" | "udp-service" | "sctp-service" => {
                service.protocol = match name {
                    "tcp-service" => Protocol::TCP,
                    "udp-service" => Protocol::UDP,
                    _ => Protocol::SCTP,
                };
                if !parse_service(text, service, names) {
                    return Err(illegal("virtual server address[:port]", address_hint(text)));
                }
            }
            "fwmark-service" => {
                service.family = Some(AddressFamily::INET);
                service.protocol = Protocol::TCP;
                service.fwmark = parse_fwmark(text)?;
            }
            "ipv6" => {
                if service.fwmark == 0 {
                    return Err(Stop::fail(
                        "-6 must follow -f: --fwmark-service 5 --ipv6 is right",
                    ));
                }
                service.family = Some(AddressFamily::INET6);
                service.netmask = 128;
            }
            "scheduler" => text.clone_into(&mut service.scheduler),
            "pe" => service.pe = Some(text.to_owned()).filter(|pe| !pe.is_empty()),
            "persistent" => {
                service.flags |= ServiceFlags::PERSISTENT;
                service.timeout = match value {
                    Some(text) => parse_timeout(name, text, 1)?,
                    None => DEFAULT_PERSISTENCE,
                };
            }
            "netmask" if service.family == Some(AddressFamily::INET6) => {
                service.netmask = u32::try_from(atoi(text))
                    .ok()
                    .filter(|n| (1..=128).contains(n))
                    .ok_or_else(|| range("ipv6 netmask", 1, 128))?;
            }
            "netmask" => {
                service.netmask = inet_aton(text)
                    .or_else(|| host_v4(text))
                    .ok_or_else(|| {
                        illegal(
                            "virtual server persistent mask",
                            "a mask as 255.255.255.0 is right, a prefix length for IPv6",
                        )
                    })?
                    .into();
            }
            "ops" => service.flags |= ServiceFlags::ONE_PACKET,
            "real-server" => {
                let mut typed = service.clone();
                if !parse_service(text, &mut typed, names) {
                    return Err(illegal("real server address[:port]", address_hint(text)));
                }
                // Without a port of its own it has the service's, if that was named before.
                dest.addr = SocketAddr::new(typed.addr, typed.port);
            }
            "ipip" => dest.method = ForwardMethod::TUNNEL,
            "gatewaying" => dest.method = ForwardMethod::ROUTE,
            "masquerading" => dest.method = ForwardMethod::MASQ,
            "fullnat" => dest.method = ForwardMethod::FULLNAT,
            "weight" => {
                dest.weight = number(text, 0, MOST).ok_or_else(|| range("weight", 0, MOST))?;
            }
            "u-threshold" => {
                dest.u_thresh =
                    number(text, 0, MOST).ok_or_else(|| range("u_threshold", 0, MOST))?;
            }
            "l-threshold" => {
                dest.l_thresh =
                    number(text, 0, MOST).ok_or_else(|| range("l_threshold", 0, MOST))?;
            }
            "tun-type" => {
                dest.tun_type = match text {
                    "ipip" => TunnelType::IPIP,
                    "gue" => TunnelType::GUE,
                    "gre" => TunnelType::GRE,
                    _ => return Err(illegal("tunnel type", "ipip, gue and gre are right")),
                };
            }
            "tun-port" => {
                dest.tun_port =
                    number(text, 1, 65535).ok_or_else(|| range("tunnel port", 1, 65535))?;
            }
            "tun-nocsum" => {}
            "tun-csum" => dest.tun_flags |= 1,
            "tun-remcsum" => dest.tun_flags |= 2,
            "mcast-interface" => text.clone_into(&mut self.daemon.interface),
            "syncid" => {
                self.daemon.sync_id =
                    number(text, 0, 255).ok_or_else(|| range("syncid", 0, 255))?;
            }
            "mcast-group" => self.daemon.group = Some(parse_group(text)?),
            "mcast-port" => {
                self.daemon.port =
                    Some(number(text, 1, 65535).ok_or_else(|| range("mcast-port", 1, 65535))?);
            }
            "mcast-ttl" => {
                self.daemon.ttl =
                    Some(number(text, 1, 255).ok_or_else(|| range("mcast-ttl", 1, 255))?);
            }
            "sync-maxlen" => {
                const MOST: i64 = 65535 - 20 - 8;
                self.daemon.max_len =
                    Some(number(text, 1, MOST).ok_or_else(|| range("sync-maxlen", 1, MOST))?);
            }
            "numeric" => format.numeric = true,
            "stats" => format.stats = true,
            "rate" => format.rate = true,
            "thresholds" => format.thresholds = true,
            "persistent-conn" => format.persistent = true,
            "nosort" => format.nosort = true,
            "exact" => format.exact = true,
            "tun-info" => format.tunnels = true,
            // connection, timeout, daemon: that they were given is all there is to them. sort: is the default.
            _ => {}
        }
        Ok(())
    }

    /// Which options go with the command.
    fn check_options(&self) -> Result<(), Stop> {
        let command = self.verb.name();
        let mut chosen = None;
        for option in OPTIONS {
            match (self.verb.rule(option), self.has(option)) {
                (Rule::Needed, false) => {
                    return Err(Stop::fail(format!(
                        "You need to supply the '{option}' option for the '{command}' command: {}",
                        called(option)
                    )));
                }
                (Rule::Refused, true) => {
                    return Err(Stop::fail(format!(
                        "Illegal '{option}' option with the '{command}' command: {} goes with {}",
                        called(option),
                        where_right(option)
                    )));
                }
                (Rule::OneOf, true) => {
                    if let Some(first) = chosen.replace(option) {
                        return Err(Stop::fail(format!(
                            "The option '{option}' conflicts with the '{first}' option in the '{command}' command: one of them is right"
                        )));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Defaults, and what doesn't fit together.
    fn check_meaning(&mut self) -> Result<(), Stop> {
        let service = &mut self.service;
        match self.verb {
            Verb::AddService | Verb::EditService => {
                if service.fwmark == 0
                    && service.port == 0
                    && !service.flags.contains(ServiceFlags::PERSISTENT)
                {
                    return Err(Stop::fail(format!(
                        "Zero port specified for non-persistent service: {}: a port from 1 to 65535 is right, or --persistent, \
                         for all ports",
                        words(&service.id())
                    )));
                }
                if service.flags.contains(ServiceFlags::ONE_PACKET)
                    && service.fwmark == 0
                    && service.protocol != Protocol::UDP
                {
                    return Err(Stop::fail(format!(
                        "One-Packet Scheduling is only for UDP virtual services: --ops with {}: --udp-service or --fwmark-service is right",
                        words(&service.id())
                    )));
                }
                if service.scheduler.is_empty() {
                    "wlc".clone_into(&mut service.scheduler);
                }
            }
            Verb::StartDaemon if self.daemon.interface.is_empty() => {
                "eth0".clone_into(&mut self.daemon.interface);
            }
            Verb::AddServer | Verb::EditServer => self.check_server()?,
            Verb::List => {
                let other = self.has_any(&["connection", "timeout", "daemon"]);
                if other && self.has_any(&["stats", "rate", "thresholds"])
                    || self.has_any(&["timeout", "daemon"]) && self.has("persistent-conn")
                {
                    let given = self.those_of(&[
                        "connection",
                        "timeout",
                        "daemon",
                        "stats",
                        "rate",
                        "thresholds",
                        "persistent-conn",
                    ]);
                    return Err(Stop::fail(format!(
                        "options conflicts in the list command: {given}: one of them is right"
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What the kernel can't tell from the request, or would say less of.
    fn check_extensions(&mut self, ifname: &str) -> Result<(), Stop> {
        use ServiceAttribute as A;
        let id = self.service.id();
        if let Some(local) = &mut self.local {
            if self.given.contains(&"ifname") {
                if ifname.is_empty() || ifname.len() > 15 {
                    return Err(Stop::fail(format!(
                        "--ifname: `{ifname}` is no name of an interface: 1 to 15 characters are right"
                    )));
                }
                local.interface = Some(ifname.to_owned());
            }
            extension::check_locals(&id, std::slice::from_ref(local)).map_err(Stop::Fail)?;
        }
        // Without the option, it can't be on SYNs.
        let off = self.extensions.contains(&A::ToaKind(0));
        if off && !self.has("toa-syn") {
            self.extensions.push(A::ToaSyn(0));
        }
        Ok(())
    }

    fn check_server(&mut self) -> Result<(), Stop> {
        let tunnel = self.dest.method == ForwardMethod::TUNNEL;
        let translates = [ForwardMethod::MASQ, ForwardMethod::FULLNAT].contains(&self.dest.method);
        if self.service.fwmark == 0 && !translates {
            // Only translation can change the port.
            self.dest.addr.set_port(self.service.port);
        }
        if !tunnel && Some(AddressFamily::of(self.dest.addr.ip())) != self.service.family {
            return Err(Stop::fail(format!(
                "Different address family is allowed only for tunneling servers: --real-server {}: one of {}'s family is right, or --ipip",
                self.dest.addr,
                words(&self.service.id())
            )));
        }
        const TUNNEL: [&str; 5] = [
            "tun-type",
            "tun-port",
            "tun-nocsum",
            "tun-csum",
            "tun-remcsum",
        ];
        if !tunnel && self.has_any(&TUNNEL) {
            let given = self.those_of(&TUNNEL);
            return Err(Stop::fail(format!(
                "Tunnel options conflict with forward method: {given}: --ipip is right with it"
            )));
        }
        let (kind, rules) = match self.dest.tun_type {
            TunnelType::GUE => ("gue", [Rule::Needed, Rule::OneOf, Rule::OneOf, Rule::OneOf]),
            TunnelType::GRE => (
                "gre",
                [Rule::Refused, Rule::OneOf, Rule::OneOf, Rule::Refused],
            ),
            _ => ("ipip", [Rule::Refused; 4]),
        };
        let mut chosen = None;
        for (option, rule) in TUNNEL.into_iter().skip(1).zip(rules) {
            match (rule, self.has(option)) {
                (Rule::Needed, false) => {
                    return Err(Stop::fail(format!(
                        "You need to supply the '{option}' option for the '{kind}' tunnel type: --{option} 6080 would be right"
                    )));
                }
                (Rule::Refused, true) => {
                    return Err(Stop::fail(format!(
                        "Illegal '{option}' option with the '{kind}' tunnel type: --{option} goes with --tun-type {}",
                        match option {
                            "tun-port" | "tun-remcsum" => "gue",
                            _ => "gue and gre",
                        }
                    )));
                }
                (Rule::OneOf, true) => {
                    if let Some(first) = chosen.replace(option) {
                        return Err(Stop::fail(format!(
                            "The option '{option}' conflicts with the '{first}' option in the '{kind}' tunnel type: one of them is right"
                        )));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}
