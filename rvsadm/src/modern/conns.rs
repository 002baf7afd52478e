// SPDX-License-Identifier: GPL-2.0-or-later

//! `conns`: rows of /proc/net/ip_vs_conn, filtered and printed as they come.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rvs_netlink::client::Client;
use rvs_netlink::{Dest, Protocol, ServiceId};
use serde::Serialize;

use super::cli::{Conns, Endpoint};
use super::output::{Failure, Paint, Tone};

const FILE: &str = "/proc/net/ip_vs_conn";

/// A connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Conn {
    protocol: String,
    client: SocketAddr,
    service: SocketAddr,
    real: SocketAddr,
    state: String,
    /// Seconds.
    expires: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pe: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pe_data: Option<String>,
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
    client: Option<IpAddr>,
    service: Option<Endpoint>,
    /// To one of these.
    reals: Option<Vec<Endpoint>>,
    state: Option<String>,
}

impl Filter {
    fn of_args(args: &Conns) -> Self {
        Self {
            protocol: None,
            client: args.client,
            service: args.service,
            reals: args.real.map(|real| vec![real]),
            state: args.state.clone(),
        }
    }

    /// The connections of a service, or those of them to one real server. What came by a mark shows by its real servers only.
    pub(super) fn of_service(id: &ServiceId, real: Option<SocketAddr>, dests: &[Dest]) -> Self {
        let mut filter = Self {
            reals: real.map(|real| vec![Endpoint::of(real)]),
            ..Self::default()
        };
        match id {
            ServiceId::Address { protocol, addr } => {
                filter.protocol = Some(*protocol);
                filter.service = Some(Endpoint::of(*addr));
            }
            _ => {
                let all = || dests.iter().map(|d| Endpoint::of(d.addr)).collect();
                filter.reals = Some(filter.reals.unwrap_or_else(all));
            }
        }
        filter
    }

    fn wants(&self, conn: &Conn) -> bool {
        self.client.is_none_or(|ip| ip == conn.client.ip())
            && self.service.is_none_or(|e| e.is(conn.service))
            && self
                .reals
                .as_ref()
                .is_none_or(|reals| reals.iter().any(|e| e.is(conn.real)))
            && self
                .protocol
                .is_none_or(|p| p.name().is_some_and(|name| name == conn.protocol))
            && self
                .state
                .as_ref()
                .is_none_or(|state| state.eq_ignore_ascii_case(&conn.state))
    }
}

/// The file; says which module is missing, if that is why there is none.
fn open() -> Result<File, Failure> {
    File::open(FILE).or_else(|e| {
        Client::open()?;
        Err(Failure::Failed(format!("{FILE}: {e}")))
    })
}

/// Each connection in turn, until one is enough; a table of millions isn't kept.
fn rows(
    file: File,
    mut give: impl FnMut(Conn) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
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
            if give(conn)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// Some of the connections, and whether there may be more.
pub(super) fn some(
    _client: &mut Client,
    filter: &Filter,
    most: usize,
    until: Instant,
) -> Result<(Vec<Conn>, bool), Failure> {
    let mut found = Vec::new();
    let mut more = false;
    let mut seen = 0u32;
    rows(open()?, |conn| {
        seen = seen.wrapping_add(1);
        if found.len() == most || (seen % 1024 == 0 && Instant::now() > until) {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        if filter.wants(&conn) {
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
}

impl Pace {
    fn new() -> Self {
        Self {
            last: Instant::now(),
            rows: 0,
        }
    }

    fn row(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        self.rows = self.rows.wrapping_add(1);
        if self.rows % 256 == 1 && self.last.elapsed() > Duration::from_millis(100) {
            self.last = Instant::now();
            out.flush()?;
        }
        Ok(())
    }
}

/// Those that are wanted as a JSON array, row by row.
fn as_array(filter: &Filter, out: &mut impl Write) -> Result<(), Failure> {
    let mut first = true;
    let mut pace = Pace::new();
    rows(open()?, |conn| {
        if filter.wants(&conn) {
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
    as_array(&Filter::default(), out)
}

pub(super) fn list(args: &Conns, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let filter = Filter::of_args(args);
    if args.count {
        let mut count = 0u64;
        rows(open()?, |conn| {
            count += u64::from(filter.wants(&conn));
            Ok(ControlFlow::Continue(()))
        })?;
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
        return as_array(&filter, out);
    }
    let title = format!(
        "{:<5}{:<24}{:<24}{:<24}{:<13}{:>7}",
        "", "client", "service", "real server", "state", "expires"
    );
    let file = open()?;
    writeln!(out, "{}", Paint::stdout().paint(Tone::Head, &title))?;
    out.flush()?;
    let mut first = true;
    let mut pace = Pace::new();
    rows(file, |conn| {
        if filter.wants(&conn) {
            writeln!(out, "{}", conn.line())?;
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
        let any = Endpoint {
            ip: "10.0.0.2".parse().unwrap(),
            port: None,
        };
        assert!(any.is("10.0.0.2:1".parse().unwrap()));
        assert!(!any.is("10.0.0.3:1".parse().unwrap()));
    }
}
