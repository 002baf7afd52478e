// SPDX-License-Identifier: GPL-2.0-or-later

//! `--list` and `--save`, byte for byte as ipvsadm prints them.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rvs_netlink::client::Error;
use rvs_netlink::{
    AddressFamily, Command, DaemonState, Dest, ForwardMethod, FullNat, LocalAddress, Protocol,
    Service, ServiceFlags, ServiceId, Stats, TunnelType,
};

use super::entry::{Format, PLAIN_FLAGS, SCHEDULER_FLAGS};
use super::{texts, Session, Stop};
use crate::extension;
use crate::names::Names;
use crate::progress::Progress;

const CONNECTIONS: &str = "/proc/net/ip_vs_conn";
/// The buffer that ipvsadm puts an address and port into has 60 bytes with the NUL.
const LONGEST_ADDRESS: usize = 59;

/// What heads a list and how a line of it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Stats,
    Rate,
    Thresholds,
    Persistent,
    Tunnels,
    Plain,
    /// Commands that make the table.
    Rules,
}

impl Layout {
    fn of(format: &Format, rules: bool) -> Self {
        match format {
            _ if rules => Self::Rules,
            Format { stats: true, .. } => Self::Stats,
            Format { rate: true, .. } => Self::Rate,
            Format {
                thresholds: true, ..
            } => Self::Thresholds,
            Format {
                persistent: true, ..
            } => Self::Persistent,
            Format { tunnels: true, .. } => Self::Tunnels,
            _ => Self::Plain,
        }
    }

    fn title(self) -> String {
        let columns: &[(&str, usize)] = match self {
            Self::Stats => &[
                ("Conns", 8),
                ("InPkts", 8),
                ("OutPkts", 8),
                ("InBytes", 8),
                ("OutBytes", 8),
            ],
            Self::Rate => &[
                ("CPS", 8),
                ("InPPS", 8),
                ("OutPPS", 8),
                ("InBPS", 8),
                ("OutBPS", 8),
            ],
            Self::Thresholds => &[
                ("Uthreshold", 10),
                ("Lthreshold", 10),
                ("ActiveConn", 10),
                ("InActConn", 10),
            ],
            Self::Persistent => &[
                ("Weight", 9),
                ("PersistConn", 11),
                ("ActiveConn", 10),
                ("InActConn", 10),
            ],
            Self::Tunnels => {
                return "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n".to_owned()
            }
            Self::Plain => {
                return "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n".to_owned()
            }
            Self::Rules => return String::new(),
        };
        let right = matches!(self, Self::Stats | Self::Rate);
        let mut title = format!("{:<33}", "Prot LocalAddress:Port");
        for (name, width) in columns {
            title.push_str(&if right {
                format!(" {name:>width$}")
            } else {
                format!(" {name:<width$}")
            });
        }
        title + "\n  -> RemoteAddress:Port\n"
    }
}

/// The first bytes of a text that has no other characters than ASCII (names of hosts may, in theory).
fn cut(text: &mut String, at: usize) {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.truncate(at);
}

/// Address and port, as names unless `numeric`.
fn address(addr: SocketAddr, protocol: Protocol, numeric: bool, names: &mut Names) -> String {
    let (host, port) = if numeric {
        (addr.ip().to_string(), addr.port().to_string())
    } else {
        (
            names.of_host(addr.ip()),
            names.of_port(addr.port(), protocol),
        )
    };
    let mut text = if addr.is_ipv4() {
        format!("{host}:{port}")
    } else {
        format!("[{host}]:{port}")
    };
    cut(&mut text, LONGEST_ADDRESS);
    text
}

/// A number in nine columns, shortened if it would not fit.
fn large(number: u64, exact: bool) -> String {
    if exact {
        let text = number.to_string();
        let width = if text.len() <= 8 { 9 } else { text.len() + 1 };
        return format!("{text:>width$}");
    }
    match number {
        ..100_000_000 => format!("{number:>9}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

/// The counters of a line.
fn counters(stats: &Stats) -> [u64; 5] {
    [
        stats.conns,
        stats.in_pkts,
        stats.out_pkts,
        stats.in_bytes,
        stats.out_bytes,
    ]
}

/// The rates of a line.
fn rates(stats: &Stats) -> [u64; 5] {
    [
        stats.cps,
        stats.in_pps,
        stats.out_pps,
        stats.in_bps,
        stats.out_bps,
    ]
}

/// A merge sort that asks in the same order as the C library's qsort: ipvsadm's comparison subtracts, wraps, and so isn't
/// an order; what comes out depends on what is compared with what.
fn sort<T>(items: Vec<T>, compare: &impl Fn(&T, &T) -> i32) -> Vec<T> {
    if items.len() <= 1 {
        return items;
    }
    let mut left = items;
    let right = left.split_off(left.len() / 2);
    let mut left = sort(left, compare).into_iter().peekable();
    let mut right = sort(right, compare).into_iter().peekable();
    let mut sorted = Vec::with_capacity(left.len() + right.len());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        let next = if compare(l, r) <= 0 {
            left.next()
        } else {
            right.next()
        };
        sorted.extend(next);
    }
    sorted.extend(left);
    sorted.extend(right);
    sorted
}

/// The difference of two 32-bit numbers as a signed one, as C has it.
fn difference(a: u32, b: u32) -> i32 {
    i32::from_ne_bytes(a.wrapping_sub(b).to_ne_bytes())
}

fn words(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(v4) => [v4.into(), 0, 0, 0],
        IpAddr::V6(v6) => {
            let bits = u128::from(v6);
            [96, 64, 32, 0].map(|shift| {
                u32::try_from((bits >> shift) & u128::from(u32::MAX)).unwrap_or_default()
            })
        }
    }
}

fn compare_addresses(a: SocketAddr, b: SocketAddr) -> i32 {
    words(a.ip())
        .into_iter()
        .zip(words(b.ip()))
        .map(|(a, b)| difference(a, b))
        .find(|d| *d != 0)
        .unwrap_or_else(|| i32::from(a.port()) - i32::from(b.port()))
}

fn compare_services(a: &Service, b: &Service) -> i32 {
    let key = |s: &Service| match s.id {
        ServiceId::Fwmark { family, mark } => (mark, family.0, 0, None),
        ServiceId::Address { protocol, addr } => {
            (0, AddressFamily::of(addr.ip()).0, protocol.0, Some(addr))
        }
        _ => (0, 0, 0, None),
    };
    let (a, b) = (key(a), key(b));
    let marks = difference(a.0, b.0);
    if marks != 0 {
        return marks;
    }
    let ordering = a.1.cmp(&b.1).then(a.2.cmp(&b.2));
    match (ordering, a.3, b.3) {
        (Ordering::Less, ..) => -1,
        (Ordering::Greater, ..) => 1,
        (Ordering::Equal, Some(a), Some(b)) => compare_addresses(a, b),
        _ => 0,
    }
}

/// Looks at the first one's family only: an IPv4 address beside an IPv6 one is its first word.
fn compare_dests(a: &Dest, b: &Dest) -> i32 {
    let count = if a.addr.is_ipv6() { 4 } else { 1 };
    words(a.addr.ip())
        .into_iter()
        .zip(words(b.addr.ip()))
        .take(count)
        .map(|(a, b)| difference(a, b))
        .find(|d| *d != 0)
        .unwrap_or_else(|| i32::from(a.addr.port()) - i32::from(b.addr.port()))
}

fn method_name(method: ForwardMethod) -> &'static str {
    match method {
        ForwardMethod::MASQ => "Masq",
        ForwardMethod::LOCAL => "Local",
        ForwardMethod::TUNNEL => "Tunnel",
        ForwardMethod::ROUTE => "Route",
        _ => "(null)",
    }
}

/// FullNAT as rvs has it and rvsadm writes it. The number that it has on the wire, a C module may have as well: it knows nothing of
/// it, and neither does ipvsadm.
const FULLNAT_OF_RVS: ForwardMethod = ForwardMethod(u32::MAX);

/// The options of a service that only rvs has.
fn extension_options(service: &Service) -> String {
    let mut options = String::new();
    let fullnat = service.fullnat.unwrap_or_default();
    let default = FullNat::default();
    if (fullnat.port_min, fullnat.port_max) != (default.port_min, default.port_max) {
        let (min, max) = (fullnat.port_min, fullnat.port_max);
        options.push_str(&format!(" --local-ports {min}-{max}"));
    }
    if fullnat.toa_kind != 0 {
        options.push_str(&format!(" --toa {}", fullnat.toa_kind));
    }
    if fullnat.toa_on_syn {
        options.push_str(" --toa-syn on");
    }
    if fullnat.proxy_version != 0 {
        options.push_str(&format!(" --proxy-protocol {}", fullnat.proxy_version));
    }
    let tunnels = service.tunnels.unwrap_or_default();
    let sources = extension::source_texts(&tunnels);
    if !sources.is_empty() {
        options.push_str(&format!(" --tun-sources {}", sources.join(",")));
    }
    if tunnels.clamp_mss {
        options.push_str(" --tun-mss-clamp on");
    }
    options
}

/// The options that name a local address.
fn local_options(local: &LocalAddress) -> String {
    let mut plain = local.clone();
    let interface = plain.interface.take();
    let mut options = format!("-z {}", extension::local_text(&plain));
    if let Some(name) = interface {
        options.push_str(&format!(" -F {name}"));
    }
    options
}

fn method_option(method: ForwardMethod) -> &'static str {
    match method {
        ForwardMethod::MASQ => "-m",
        ForwardMethod::TUNNEL => "-i",
        ForwardMethod::LOCAL | ForwardMethod::ROUTE => "-g",
        FULLNAT_OF_RVS => "--fullnat",
        _ => "(null)",
    }
}

/// Name of a tunnel type, and whether it has a port and flags.
fn tunnel(kind: TunnelType) -> Option<(&'static str, bool, bool)> {
    match kind {
        TunnelType::IPIP => Some(("ipip", false, false)),
        TunnelType::GUE => Some(("gue", true, true)),
        TunnelType::GRE => Some(("gre", false, true)),
        _ => None,
    }
}

fn tunnel_flag<'a>(flags: u16, names: &[&'a str; 3]) -> &'a str {
    names.get(usize::from(flags)).copied().unwrap_or("(null)")
}

fn tunnel_info(dest: &Dest) -> String {
    let known = tunnel(dest.tun_type).filter(|_| dest.method == ForwardMethod::TUNNEL);
    let Some((name, port, flags)) = known else {
        return "n/a".to_owned();
    };
    let mut info = name.to_owned();
    if port {
        info.push_str(&format!(":{}", dest.tun_port));
    }
    if flags {
        info.push(':');
        info.push_str(tunnel_flag(dest.tun_flags, &["-c", "+c", "r+c"]));
    }
    // A buffer of 16 bytes.
    cut(&mut info, 15);
    info
}

/// The options after the weight that make a tunnel.
fn tunnel_options(dest: &Dest) -> String {
    let known = tunnel(dest.tun_type).filter(|_| dest.method == ForwardMethod::TUNNEL);
    let Some((name, port, flags)) = known else {
        return String::new();
    };
    let mut options = format!(" --tun-type {name}");
    if port {
        options.push_str(&format!(" --tun-port {}", dest.tun_port));
    }
    if flags {
        options.push(' ');
        options.push_str(tunnel_flag(
            dest.tun_flags,
            &["--tun-nocsum", "--tun-csum", "--tun-remcsum"],
        ));
    }
    options
}

/// The scheduler's flags with commas, if any is set. Where a scheduler has names of its own, a flag without one isn't
/// shown, even if it is the only one.
fn scheduler_flags(service: &Service) -> Option<String> {
    let all = ServiceFlags::SCHED1 | ServiceFlags::SCHED2 | ServiceFlags::SCHED3;
    if service.flags.0 & all.0 == 0 {
        return None;
    }
    let own: Vec<_> = SCHEDULER_FLAGS
        .iter()
        .filter(|(of, ..)| *of == service.scheduler)
        .map(|(_, name, bit)| (*name, *bit))
        .collect();
    let known = if own.is_empty() {
        PLAIN_FLAGS.to_vec()
    } else {
        own
    };
    let names: Vec<&str> = known
        .into_iter()
        .filter(|(_, bit)| service.flags.contains(*bit))
        .map(|(name, _)| name)
        .collect();
    Some(names.join(","))
}

/// ` mask 255.255.255.0`, ` -M 64` and the like; nothing for single hosts.
fn netmask(service: &Service, word: &str) -> String {
    if service.id.family() == AddressFamily::INET6 {
        match service.netmask {
            128 => String::new(),
            prefix => format!(" {word} {prefix}"),
        }
    } else {
        match service.netmask {
            u32::MAX => String::new(),
            mask => format!(" {word} {}", Ipv4Addr::from(mask)),
        }
    }
}

/// The service as it begins its line.
fn service_name(service: &Service, layout: Layout, numeric: bool, names: &mut Names) -> String {
    let rules = layout == Layout::Rules;
    match service.id {
        ServiceId::Fwmark { family, mark } => {
            // ipvsadm prints marks as signed numbers.
            let mark = difference(mark, 0);
            match (rules, family == AddressFamily::INET6) {
                (true, true) => format!("-f {mark} -6"),
                (true, false) => format!("-f {mark}"),
                (false, true) => format!("FWM  {mark} IPv6"),
                (false, false) => format!("FWM  {mark}"),
            }
        }
        ServiceId::Address { protocol, addr } => {
            let address = address(addr, protocol, numeric, names);
            if rules {
                let option = match protocol {
                    Protocol::TCP => "-t",
                    Protocol::UDP => "-u",
                    Protocol::SCTP => "--sctp-service",
                    _ => "--xxx-service",
                };
                return format!("{option} {address}");
            }
            let protocol = match protocol {
                Protocol::TCP => "TCP",
                Protocol::UDP => "UDP",
                Protocol::SCTP => "SCTP",
                _ => "?",
            };
            let mut name = format!("{protocol:<4} {address}");
            if addr.is_ipv4() {
                cut(&mut name, 33);
            }
            name
        }
        _ => String::new(),
    }
}

/// The line of a service.
fn service_line(service: &Service, name: &str, layout: Layout, exact: bool) -> String {
    let stats = service.stats.unwrap_or_default();
    let numbers = match layout {
        Layout::Stats => counters(&stats),
        Layout::Rate => rates(&stats),
        Layout::Rules => {
            let mut line = format!("-A {name} -s {}", service.scheduler);
            if service.flags.contains(ServiceFlags::PERSISTENT) {
                line.push_str(&format!(" -p {}", service.timeout));
                line.push_str(&netmask(service, "-M"));
            }
            if let Some(pe) = &service.pe_name {
                line.push_str(&format!(" --pe {pe}"));
            }
            if service.flags.contains(ServiceFlags::ONE_PACKET) {
                line.push_str(" -o");
            }
            // ipvsadm would write an option without its value, which can't be restored.
            if let Some(flags) = scheduler_flags(service).filter(|f| !f.is_empty()) {
                line.push_str(&format!(" -b {flags}"));
            }
            return line;
        }
        _ => {
            let mut line = format!("{name} {}", service.scheduler);
            if let Some(flags) = scheduler_flags(service) {
                line.push_str(&format!(" ({flags})"));
            }
            if service.flags.contains(ServiceFlags::PERSISTENT) {
                line.push_str(&format!(" persistent {}", service.timeout));
                line.push_str(&netmask(service, "mask"));
                if let Some(pe) = &service.pe_name {
                    line.push_str(&format!(" pe {pe}"));
                }
            }
            if service.flags.contains(ServiceFlags::ONE_PACKET) {
                line.push_str(" ops");
            }
            return line;
        }
    };
    let numbers: String = numbers.iter().map(|n| large(*n, exact)).collect();
    format!("{name:<33}{numbers}")
}

/// The line of a destination.
fn dest_line(dest: &Dest, name: &str, layout: Layout, exact: bool) -> String {
    let stats = dest.stats.unwrap_or_default();
    let large = |numbers: &[u64]| -> String { numbers.iter().map(|n| large(*n, exact)).collect() };
    let Dest {
        weight,
        active,
        inactive,
        ..
    } = dest;
    let method = method_name(dest.method);
    match layout {
        Layout::Stats => format!("  -> {name:<28}{}", large(&counters(&stats))),
        Layout::Rate => format!(
            "  -> {name:<28} {:>8} {:>8} {:>8}{}",
            stats.cps,
            stats.in_pps,
            stats.out_pps,
            large(&[stats.in_bps, stats.out_bps])
        ),
        Layout::Thresholds => format!(
            "  -> {name:<28} {:<10} {:<10} {active:<10} {inactive:<10}",
            dest.u_thresh, dest.l_thresh
        ),
        Layout::Persistent => format!(
            "  -> {name:<28} {:<9} {:<11} {active:<10} {inactive:<10}",
            weight, dest.persistent
        ),
        Layout::Tunnels => format!(
            "  -> {name:<28} {method:<7} {:<13} {weight:<6} {active:<10} {inactive:<10}",
            tunnel_info(dest)
        ),
        Layout::Plain | Layout::Rules => {
            format!("  -> {name:<28} {method:<7} {weight:<6} {active:<10} {inactive:<10}")
        }
    }
}

/// A service with its destinations.
fn print_service(
    service: &Service,
    (dests, locals): (Vec<Dest>, Option<Vec<LocalAddress>>),
    (layout, format): (Layout, &Format),
    names: &mut Names,
    out: &mut impl Write,
) -> Result<(), Stop> {
    let service_name = service_name(service, layout, format.numeric, names);
    let mut line = service_line(service, &service_name, layout, format.exact);
    if locals.is_some() {
        line.push_str(&extension_options(service));
    }
    writeln!(out, "{line}")?;
    for local in locals.iter().flatten() {
        writeln!(out, "-P {service_name} {}", local_options(local))?;
    }
    let protocol = match service.id {
        ServiceId::Address { protocol, .. } => protocol,
        _ => Protocol(0),
    };
    let dests = if format.nosort {
        dests
    } else {
        sort(dests, &compare_dests)
    };
    for dest in &dests {
        let mut name = address(dest.addr, protocol, format.numeric, names);
        if layout == Layout::Rules {
            writeln!(
                out,
                "-a {service_name} -r {name} {} -w {}{}",
                method_option(dest.method),
                dest.weight,
                tunnel_options(dest)
            )?;
        } else {
            if dest.addr.is_ipv4() {
                cut(&mut name, 28);
            }
            writeln!(out, "{}", dest_line(dest, &name, layout, format.exact))?;
        }
    }
    Ok(())
}

/// A row of the connection file.
fn print_connection(
    line: &str,
    format: &Format,
    names: &mut Names,
    out: &mut impl Write,
) -> Result<(), Stop> {
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let protocol_name = word();
    let protocol = match protocol_name {
        "TCP" => Protocol::TCP,
        "UDP" => Protocol::UDP,
        "SCTP" => Protocol::SCTP,
        _ => Protocol(0),
    };
    let mut addresses = Vec::with_capacity(3);
    for _ in 0..3 {
        let (ip, port) = (word(), word());
        let ip = match ip.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) => IpAddr::V4(u32::from_str_radix(ip, 16).unwrap_or_default().into()),
        };
        let port = u16::from_str_radix(port, 16).unwrap_or_default();
        addresses.push(address(
            SocketAddr::new(ip, port),
            protocol,
            format.numeric,
            names,
        ));
    }
    let [client, service, dest] = addresses.as_slice() else {
        return Ok(());
    };
    let (state, expires) = (word(), word());
    let expires: u32 = expires.parse().unwrap_or_default();
    let expires = format!("{:02}:{:02}", expires / 60, expires % 60);
    let (pe, data) = (word(), word());
    if format.persistent && !data.is_empty() {
        writeln!(
            out,
            "{protocol_name:<3} {expires:<6} {state:<11} {client:<18} {service:<18} {dest:<16} {pe:<18} {data}"
        )?;
    } else {
        writeln!(
            out,
            "{protocol_name:<3} {expires:<6} {state:<11} {client:<18} {service:<18} {dest}"
        )?;
    }
    Ok(())
}

impl Session {
    fn broken(command: Command) -> impl Fn(Error) -> Stop {
        move |e| Stop::Broken(texts::refusal(Some(command), &e))
    }

    pub(super) fn list_all(
        &mut self,
        format: &Format,
        rules: bool,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        let layout = Layout::of(format, rules);
        let kernel = self.kernel()?;
        if !rules {
            let [major, minor, patch] = kernel.info.version_parts();
            writeln!(
                out,
                "IP Virtual Server version {major}.{minor}.{patch} (size={})",
                kernel.info.conn_tab_size
            )?;
        }
        let mut services = kernel
            .client
            .services()
            .map_err(Self::broken(Command::GetService))?;
        if !format.nosort {
            services = sort(services, &compare_services);
        }
        out.write_all(layout.title().as_bytes())?;
        let mut progress = Progress::of_rows("services listed", Some(services.len() as u64));
        for service in &services {
            self.list_one(service, layout, format, out)?;
            progress.advance(1);
        }
        Ok(())
    }

    fn list_one(
        &mut self,
        service: &Service,
        layout: Layout,
        format: &Format,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        let extended = self.extended && layout == Layout::Rules;
        let client = &mut self.kernel()?.client;
        let mut dests = client
            .dests(&service.id)
            .map_err(Self::broken(Command::GetDest))?;
        let mut locals = None;
        if client.offers(Command::NewLaddr) {
            for dest in &mut dests {
                if dest.method == ForwardMethod::FULLNAT {
                    // As rvs shows it to ipvsadm.
                    dest.method = if extended {
                        FULLNAT_OF_RVS
                    } else {
                        ForwardMethod::MASQ
                    };
                }
            }
            if extended {
                let has = service.fullnat_stats.is_some_and(|s| s.locals > 0);
                let all = if has {
                    let all = client.locals(&service.id);
                    all.map_err(Self::broken(Command::GetLaddr))?
                } else {
                    Vec::new()
                };
                locals = Some(extension::prefixes(all));
            }
        }
        let lists = (dests, locals);
        print_service(service, lists, (layout, format), &mut self.names, out)
    }

    /// The local addresses of a service, or of all that have some, in the layout of ipvsadm's forks.
    pub(super) fn list_locals(
        &mut self,
        id: Option<&ServiceId>,
        format: &Format,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        let client = &mut self.kernel()?.client;
        let services = match id {
            Some(id) => vec![client
                .service(id)
                .map_err(Self::broken(Command::GetService))?],
            None => {
                let all = client.services();
                let mut all = all.map_err(Self::broken(Command::GetService))?;
                all.retain(|s| s.fullnat_stats.is_some_and(|s| s.locals > 0));
                sort(all, &compare_services)
            }
        };
        let row = |a: &str, b: &str, c: &str, d: &str, e: &str| {
            let text = format!("{a:<20} {b:<8} {c:<20} {d:<10} {e}");
            text.trim_end().to_owned()
        };
        let title = row("VIP:VPORT", "TOTAL", "SNAT_IP", "CONFLICTS", "CONNS");
        writeln!(out, "{title}")?;
        for service in &services {
            let client = &mut self.kernel()?.client;
            let locals = client
                .locals(&service.id)
                .map_err(Self::broken(Command::GetLaddr))?;
            let name = match service.id {
                ServiceId::Address { protocol, addr } => {
                    address(addr, protocol, format.numeric, &mut self.names)
                }
                _ => service_name(service, Layout::Plain, true, &mut self.names),
            };
            writeln!(out, "{}", row(&name, &locals.len().to_string(), "", "", ""))?;
            for local in &locals {
                let numbers = [u64::from(local.conns), local.conflicts].map(|n| n.to_string());
                let [conns, conflicts] = &numbers;
                let line = row("", "", &local.addr.to_string(), conflicts, conns);
                writeln!(out, "{line}")?;
            }
        }
        Ok(())
    }

    pub(super) fn list_service(
        &mut self,
        id: &ServiceId,
        format: &Format,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        let layout = Layout::of(format, false);
        let service = self
            .kernel()?
            .client
            .service(id)
            .map_err(Self::broken(Command::GetService))?;
        out.write_all(layout.title().as_bytes())?;
        self.list_one(&service, layout, format, out)
    }

    pub(super) fn list_timeouts(&mut self, out: &mut impl Write) -> Result<(), Stop> {
        let timeouts = self
            .kernel()?
            .client
            .timeouts()
            .map_err(Self::broken(Command::GetConfig))?;
        writeln!(
            out,
            "Timeout (tcp tcpfin udp): {} {} {}",
            timeouts.tcp, timeouts.tcp_fin, timeouts.udp
        )?;
        Ok(())
    }

    pub(super) fn list_daemons(&mut self, out: &mut impl Write) -> Result<(), Stop> {
        let daemons = self
            .kernel()?
            .client
            .daemons()
            .map_err(Self::broken(Command::GetDaemon))?;
        for daemon in daemons {
            let state = if daemon.state == DaemonState::MASTER {
                "master"
            } else {
                "backup"
            };
            write!(
                out,
                "{state} sync daemon (mcast={}, syncid={}",
                daemon.interface, daemon.sync_id
            )?;
            if let Some(len) = daemon.max_len.filter(|len| *len != 0) {
                write!(out, ", maxlen={len}")?;
            }
            if let Some(group) = daemon.group {
                write!(out, ", group={group}")?;
            }
            if let Some(port) = daemon.port.filter(|port| *port != 0) {
                write!(out, ", port={port}")?;
            }
            if let Some(ttl) = daemon.ttl.filter(|ttl| *ttl != 0) {
                write!(out, ", ttl={ttl}")?;
            }
            writeln!(out, ")")?;
        }
        Ok(())
    }

    /// Row by row: a table of a million connections isn't kept.
    pub(super) fn list_connections(
        &mut self,
        format: &Format,
        out: &mut impl Write,
    ) -> Result<(), Stop> {
        let file = File::open(CONNECTIONS)
            .map_err(|_| Stop::Broken(format!("cannot open file {CONNECTIONS}")))?;
        let mut rows = BufReader::with_capacity(1 << 16, file);
        let mut line = String::new();
        let broken = |_| Stop::Broken(format!("unexpected input from {CONNECTIONS}"));
        if rows.read_line(&mut line).map_err(broken)? == 0 {
            return Err(Stop::Broken(format!("unexpected input from {CONNECTIONS}")));
        }
        writeln!(out, "IPVS connection entries")?;
        if format.persistent {
            writeln!(
                out,
                "pro expire {:<11} {:<18} {:<18} {:<18} {:<16} pe_data",
                "state", "source", "virtual", "destination", "pe name"
            )?;
        } else {
            writeln!(
                out,
                "pro expire {:<11} {:<18} {:<18} destination",
                "state", "source", "virtual"
            )?;
        }
        let mut progress = Progress::of_rows("connections listed", None);
        loop {
            line.clear();
            if rows.read_line(&mut line).map_err(broken)? == 0 {
                return Ok(());
            }
            progress.advance(1);
            print_connection(&line, format, &mut self.names, out)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases = [
            (0, "        0", "        0"),
            (99_999_999, " 99999999", " 99999999"),
            (100_000_000, "  100000K", " 100000000"),
            (999_999_999, "  999999K", " 999999999"),
            (1_000_000_000, "    1000M", " 1000000000"),
            (99_999_999_999, "   99999M", " 99999999999"),
            (100_000_000_000, "     100G", " 100000000000"),
            (100_000_000_000_000, "     100T", " 100000000000000"),
        ];
        for (number, short, exact) in cases {
            assert_eq!(large(number, false), short);
            assert_eq!(large(number, true), exact);
        }
    }

    #[test]
    fn order() {
        // 192.x - 10.x doesn't fit into 31 bits: ipvsadm has it the other way round.
        let service = |addr: &str| {
            Service::new(
                ServiceId::address(Protocol::TCP, addr.parse().unwrap()),
                "rr",
            )
        };
        let (low, high) = (service("10.0.0.1:80"), service("192.0.2.1:80"));
        assert!(compare_services(&low, &high) > 0);
        assert!(compare_services(&service("10.0.0.1:80"), &service("10.0.0.1:81")) < 0);
        let mark = Service::new(ServiceId::fwmark(AddressFamily::INET, 1), "rr");
        assert!(compare_services(&mark, &low) > 0);
        assert_eq!(sort(vec![3, 1, 2, 1], &|a, b| a - b), [1, 1, 2, 3]);
    }

    #[test]
    fn rows() {
        let row = |line: &str, persistent| {
            let format = Format {
                numeric: true,
                persistent,
                ..Format::default()
            };
            let mut out = Vec::new();
            print_connection(line, &format, &mut Names::default(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            row(
                "TCP C0000201 8235 0A000001 0050 0A000002 1F90 ESTABLISHED     899\n",
                false
            ),
            "TCP 14:59  ESTABLISHED 192.0.2.1:33333    10.0.0.1:80        10.0.0.2:8080\n"
        );
        assert_eq!(
            row("UDP 2001:0db8:0000:0000:0000:0000:0000:0001 0035 C0000201 0050 0A000002 1F90 UDP 3 sip abc", true),
            "UDP 00:03  UDP         [2001:db8::1]:53   192.0.2.1:80       10.0.0.2:8080    sip                abc\n"
        );
        // Whatever it is, it is a row.
        row("", false);
        row("TCP zz zz zz", true);
    }
}
