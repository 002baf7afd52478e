// SPDX-License-Identifier: GPL-2.0-or-later

//! `conns`: connections from rvs's dump, or where there is none the rows of /proc/net/ip_vs_conn, printed as they come.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rvs_netlink::client::{Client, Conns as Dump, Error};
use rvs_netlink::{Command, ConnFilter, ConnFlags, Dest, Protocol, ServiceId};
use serde::Serialize;

use super::cli::{Conns, Endpoint, Network, Transport};
use super::model::Method;
use super::output::{Failure, Paint, Tone};
use super::show::short;
use crate::progress::Progress;

const FILE: &str = "/proc/net/ip_vs_conn";

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Conn {
    pub(super) protocol: String,
    pub(super) client: SocketAddr,
    pub(super) service: SocketAddr,
    pub(super) real: SocketAddr,
    pub(super) state: String,
    /// Seconds.
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pe_data: Option<String>,
    /// What the file doesn't tell.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    more: Option<More>,
}

/// What rvs tells of a connection beyond a row of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct More {
    method: Method,
    /// Of persistence.
    template: bool,
    /// Seconds.
    timeout: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fwmark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    counters: Option<Counters>,
}

/// What has passed along it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Counters {
    in_pkts: u64,
    in_bytes: u64,
    out_pkts: u64,
    out_bytes: u64,
    /// Seconds.
    age: u64,
}

impl From<rvs_netlink::Conn> for Conn {
    fn from(conn: rvs_netlink::Conn) -> Self {
        let protocol = match (conn.protocol.name(), conn.protocol.0) {
            (Some(name), _) => name.to_owned(),
            (_, 0) => "ip".to_owned(),
            (_, 50) => "esp".to_owned(),
            (_, 51) => "ah".to_owned(),
            (_, number) => number.to_string(),
        };
        Self {
            protocol,
            client: conn.client,
            service: conn.virt,
            real: conn.dest,
            state: conn.state_name,
            expires: conn.expires.as_secs(),
            pe: None,
            pe_data: None,
            more: Some(More {
                method: Method::of_kernel(conn.flags.method()),
                template: conn.flags.contains(ConnFlags::TEMPLATE),
                timeout: conn.timeout.as_secs(),
                fwmark: conn.service_fwmark,
                counters: conn.counters.map(|c| Counters {
                    in_pkts: c.in_pkts,
                    in_bytes: c.in_bytes,
                    out_pkts: c.out_pkts,
                    out_bytes: c.out_bytes,
                    age: c.age.as_secs(),
                }),
            }),
        }
    }
}

impl Conn {
    /// A row of the file.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let protocol = words.next()?.to_lowercase();
        let mut addr = || {
            let ip = words.next()?;
            let ip: IpAddr = match ip.parse() {
                Ok(ip) => ip,
                Err(_) => IpAddr::V4(u32::from_str_radix(ip, 16).ok()?.into()),
            };
            let port = u16::from_str_radix(words.next()?, 16).ok()?;
            Some(SocketAddr::new(ip, port))
        };
        let (client, service, real) = (addr()?, addr()?, addr()?);
        Some(Self {
            protocol,
            client,
            service,
            real,
            state: words.next()?.to_owned(),
            expires: words.next()?.parse().ok()?,
            pe: words.next().map(str::to_owned),
            pe_data: words.next().map(str::to_owned),
            more: None,
        })
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        format!(
            "{:<5}{:<24}{:<24}{:<24}{:<13}{:>5} s",
            self.protocol,
            self.client.to_string(),
            self.service.to_string(),
            self.real.to_string(),
            self.state,
            self.expires
        )
    }

    /// Packets and bytes from and to the client, and its age; dashes where it doesn't count.
    fn counters(&self) -> String {
        match self.more.as_ref().and_then(|more| more.counters) {
            None => format!("{0:>9}{0:>9}{0:>9}{0:>9}{0:>8}", "-"),
            Some(c) => format!(
                "{:>9}{:>9}{:>9}{:>9}{:>6} s",
                short(c.in_pkts),
                short(c.in_bytes),
                short(c.out_pkts),
                short(c.out_bytes),
                c.age
            ),
        }
    }
}

impl Network {
    fn has(&self, ip: IpAddr) -> bool {
        // The bits that are left of the prefix are the same.
        let same = |a: u128, b: u128, bits: u8| {
            (a ^ b)
                .checked_shr(u32::from(bits.saturating_sub(self.prefix)))
                .is_none_or(|rest| rest == 0)
        };
        match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

impl Endpoint {
    fn of(addr: SocketAddr) -> Self {
        Self {
            ip: addr.ip(),
            port: Some(addr.port()).filter(|port| *port != 0),
        }
    }

    fn is(&self, addr: SocketAddr) -> bool {
        self.ip == addr.ip() && self.port.is_none_or(|port| port == addr.port())
    }
}

/// Which connections are wanted: those that are all of this.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    protocol: Option<Protocol>,
    client: Option<Network>,
    virt: Option<Endpoint>,
    /// To one of these.
    reals: Option<Vec<Endpoint>>,
    state: Option<String>,
    /// For the kernel, which doesn't know the names of states.
    kernel: ConnFilter,
}

impl Filter {
    fn of_args(args: &Conns) -> Self {
        Self {
            protocol: args.protocol.map(Transport::number),
            client: args.client,
            virt: args.service,
            reals: args.real.map(|real| vec![real]),
            state: args.state.clone(),
            kernel: ConnFilter {
                protocol: args.protocol.and_then(|p| u8::try_from(p.number().0).ok()),
                client: args.client.map(|c| c.ip),
                client_prefix: args.client.map(|c| c.prefix),
                virt: args.service.map(|e| e.ip),
                virt_port: args.service.and_then(|e| e.port),
                dest: args.real.map(|e| e.ip),
                dest_port: args.real.and_then(|e| e.port),
                ..ConnFilter::default()
            },
        }
    }

    /// The connections of a service, or those of them to one real server. What came by a mark shows in the file by its real
    /// servers only.
    pub(super) fn of_service(id: &ServiceId, real: Option<SocketAddr>, dests: &[Dest]) -> Self {
        let mut filter = Self {
            reals: real.map(|real| vec![Endpoint::of(real)]),
            kernel: ConnFilter {
                service: Some(*id),
                dest: real.map(|r| r.ip()),
                dest_port: real.map(|r| r.port()).filter(|port| *port != 0),
                ..ConnFilter::default()
            },
            ..Self::default()
        };
        match id {
            ServiceId::Address { protocol, addr } => {
                filter.protocol = Some(*protocol);
                filter.virt = Some(Endpoint::of(*addr));
            }
            _ => {
                let all = || dests.iter().map(|d| Endpoint::of(d.addr)).collect();
                filter.reals = Some(filter.reals.unwrap_or_else(all));
            }
        }
        filter
    }

    /// Whether a row of the file is wanted.
    fn wants(&self, conn: &Conn) -> bool {
        self.client.is_none_or(|net| net.has(conn.client.ip()))
            && self.virt.is_none_or(|e| e.is(conn.service))
            && self
                .reals
                .as_ref()
                .is_none_or(|reals| reals.iter().any(|e| e.is(conn.real)))
            && self
                .protocol
                .is_none_or(|p| p.name().is_some_and(|name| name == conn.protocol))
            && self.wants_state(conn)
    }

    /// What the kernel leaves to be looked at.
    fn wants_state(&self, conn: &Conn) -> bool {
        let wanted = self.state.as_ref();
        wanted.is_none_or(|state| state.eq_ignore_ascii_case(&conn.state))
    }
}

/// Where connections come from.
enum Source {
    /// The kernel's dump, with the filter done there; the first one is read already.
    Dump(Box<(Option<rvs_netlink::Conn>, Dump)>),
    File(File),
}

/// Opens the better source: rvs's dump, else the file. Says which module is missing, if there is none.
fn open(filter: &Filter) -> Result<Source, Failure> {
    const EPERM: i32 = 1;
    const ESRCH: i32 = 3;
    let client = Client::open()?;
    if client.offers(Command::GetConn) {
        let mut dump = client.conns(&filter.kernel)?;
        match dump.next() {
            None => return Ok(Source::Dump(Box::new((None, dump)))),
            Some(Ok(first)) => return Ok(Source::Dump(Box::new((Some(first), dump)))),
            // Everybody may read the file.
            Some(Err(Error::Kernel(e))) if e.errno == EPERM => {}
            // The service is gone, and so are its connections.
            Some(Err(Error::Kernel(e))) if e.errno == ESRCH => {
                return Ok(Source::Dump(Box::new((None, dump))));
            }
            Some(Err(e)) => return Err(e.into()),
        }
    }
    let file = File::open(FILE).map_err(|e| Failure::Failed(format!("{FILE}: {e}")))?;
    Ok(Source::File(file))
}

/// Each connection in turn and whether it is wanted, until one is enough; a table of millions isn't kept.
fn rows(
    source: Source,
    filter: &Filter,
    mut give: impl FnMut(Conn, bool) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    let file = match source {
        Source::Dump(dump) => {
            let (first, rest) = *dump;
            for conn in first.map(Ok).into_iter().chain(rest) {
                let conn = Conn::from(conn?);
                let wanted = filter.wants_state(&conn);
                if give(conn, wanted)?.is_break() {
                    return Ok(());
                }
            }
            return Ok(());
        }
        Source::File(file) => file,
    };
    let failed = |e: std::io::Error| Failure::Failed(format!("{FILE}: {e}"));
    let mut rows = BufReader::with_capacity(1 << 16, file);
    let mut line = String::new();
    rows.read_line(&mut line).map_err(failed)?;
    loop {
        line.clear();
        if rows.read_line(&mut line).map_err(failed)? == 0 {
            return Ok(());
        }
        if let Some(conn) = Conn::parse(&line) {
            let wanted = filter.wants(&conn);
            if give(conn, wanted)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// Some of the connections, and whether there may be more.
pub(super) fn some(
    filter: &Filter,
    most: usize,
    until: Instant,
) -> Result<(Vec<Conn>, bool), Failure> {
    let mut found = Vec::new();
    let mut more = false;
    let mut seen = 0u32;
    rows(open(filter)?, filter, |conn, wanted| {
        seen = seen.wrapping_add(1);
        if found.len() == most || (seen % 1024 == 0 && Instant::now() > until) {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        if wanted {
            found.push(conn);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((found, more))
}

/// Lets the reader see rows soon, without a system call for each.
struct Pace {
    last: Instant,
    rows: u32,
    progress: Progress,
}

impl Pace {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            rows: 0,
            progress: Progress::of_rows("connections looked at", None),
        }
    }

    fn row(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        self.rows = self.rows.wrapping_add(1);
        self.progress.advance(1);
        if self.rows % 256 == 1 && self.last.elapsed() > Duration::from_millis(100) {
            self.last = Instant::now();
            out.flush()?;
        }
        Ok(())
    }
}

/// Those that are wanted as a JSON array, row by row.
fn as_array(source: Source, filter: &Filter, out: &mut impl Write) -> Result<(), Failure> {
    let mut first = true;
    let mut pace = Pace::new();
    rows(source, filter, |conn, wanted| {
        if wanted {
            out.write_all(if first { b"[\n  " } else { b",\n  " })?;
            serde_json::to_writer(&mut *out, &conn)?;
            if first {
                out.flush()?;
            }
            first = false;
        }
        pace.row(out)?;
        Ok(ControlFlow::Continue(()))
    })?;
    out.write_all(if first { b"[]\n" } else { b"\n]\n" })?;
    Ok(())
}

/// All of them as a JSON array.
pub(crate) fn json(out: &mut impl Write) -> Result<(), Failure> {
    let filter = Filter::default();
    as_array(open(&filter)?, &filter, out)
}

pub(super) fn list(args: &Conns, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let filter = Filter::of_args(args);
    let source = open(&filter)?;
    if let Source::File(_) = source {
        if args.counters {
            return Err(Error::NoExtension("counters of connections").into());
        }
        eprintln!(
            "rvsadm: the module that is loaded has no dump of connections (rvs has); reading {FILE}"
        );
    }
    if args.count {
        let mut count = 0u64;
        let mut progress = Progress::new("connections looked at", None);
        rows(source, &filter, |_, wanted| {
            progress.advance(1);
            count += u64::from(wanted);
            Ok(ControlFlow::Continue(()))
        })?;
        drop(progress);
        if as_json {
            return Ok(super::json(
                &serde_json::json!({ "connections": count }),
                out,
            )?);
        }
        writeln!(out, "{count}")?;
        return Ok(());
    }
    if as_json {
        return as_array(source, &filter, out);
    }
    let mut title = format!(
        "{:<5}{:<24}{:<24}{:<24}{:<13}{:>7}",
        "", "client", "service", "real server", "state", "expires"
    );
    if args.counters {
        title.push_str(&format!(
            "{:>9}{:>9}{:>9}{:>9}{:>8}",
            "pkt in", "B in", "pkt out", "B out", "age"
        ));
    }
    writeln!(out, "{}", Paint::stdout().paint(Tone::Head, &title))?;
    out.flush()?;
    let mut first = true;
    let mut pace = Pace::new();
    rows(source, &filter, |conn, wanted| {
        if wanted {
            let counters = if args.counters {
                conn.counters()
            } else {
                String::new()
            };
            writeln!(out, "{}{counters}", conn.line())?;
            if first {
                out.flush()?;
                first = false;
            }
        }
        pace.row(out)?;
        Ok(ControlFlow::Continue(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let conn = Conn::parse("TCP C0000201 8235 0A000001 0050 0A000002 1F90 ESTABLISHED     899")
            .unwrap();
        assert_eq!(conn.client.to_string(), "192.0.2.1:33333");
        assert_eq!(conn.real.to_string(), "10.0.0.2:8080");
        assert_eq!((conn.state.as_str(), conn.expires), ("ESTABLISHED", 899));
        let conn = Conn::parse("UDP 2001:0db8:0000:0000:0000:0000:0000:0001 0035 2001:0db8:0000:0000:0000:0000:0000:0002 0035 C0000201 0050 UDP 3 sip abc").unwrap();
        assert_eq!(conn.client.to_string(), "[2001:db8::1]:53");
        assert_eq!(conn.pe_data.as_deref(), Some("abc"));
        assert_eq!(Conn::parse("TCP C0000201 8235"), None);
        let net = |ip: &str, prefix| Network {
            ip: ip.parse().unwrap(),
            prefix,
        };
        let ip = |ip: &str| -> IpAddr { ip.parse().unwrap() };
        assert!(net("10.1.2.3", 16).has(ip("10.1.9.9")));
        assert!(!net("10.1.2.3", 24).has(ip("10.1.9.9")));
        assert!(net("10.1.2.3", 0).has(ip("192.0.2.1")));
        assert!(!net("10.1.2.3", 32).has(ip("10.1.2.2")));
        assert!(net("::1", 0).has(ip("2001:db8::1")));
        assert!(!net("::1", 0).has(ip("10.1.2.3")));
        assert!(net("2001:db8::", 32).has(ip("2001:db8:1::1")));
        let any = Endpoint {
            ip: "10.0.0.2".parse().unwrap(),
            port: None,
        };
        assert!(any.is("10.0.0.2:1".parse().unwrap()));
        assert!(!any.is("10.0.0.3:1".parse().unwrap()));
    }
}
