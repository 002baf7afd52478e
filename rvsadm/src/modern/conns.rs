// SPDX-License-Identifier: GPL-2.0-or-later

//! `conns`: rows of /proc/net/ip_vs_conn, filtered and printed as they come.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};

use rvs_netlink::client::Client;
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
}

impl Endpoint {
    fn is(&self, addr: SocketAddr) -> bool {
        self.ip == addr.ip() && self.port.is_none_or(|port| port == addr.port())
    }
}

fn wanted(args: &Conns, conn: &Conn) -> bool {
    args.client.is_none_or(|ip| ip == conn.client.ip())
        && args.service.is_none_or(|e| e.is(conn.service))
        && args.real.is_none_or(|e| e.is(conn.real))
        && args
            .state
            .as_ref()
            .is_none_or(|state| state.eq_ignore_ascii_case(&conn.state))
}

/// Each connection in turn; a table of millions isn't kept.
pub(crate) fn each(
    mut give: impl FnMut(Conn) -> Result<(), std::io::Error>,
) -> Result<(), std::io::Error> {
    let mut rows = BufReader::with_capacity(1 << 16, File::open(FILE)?);
    let mut line = String::new();
    rows.read_line(&mut line)?;
    loop {
        line.clear();
        if rows.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(conn) = Conn::parse(&line) {
            give(conn)?;
        }
    }
}

/// All of them as a JSON array, row by row.
pub(crate) fn json(
    filter: impl Fn(&Conn) -> bool,
    out: &mut impl Write,
) -> Result<(), std::io::Error> {
    let mut first = true;
    each(|conn| {
        if filter(&conn) {
            out.write_all(if first { b"[\n  " } else { b",\n  " })?;
            first = false;
            serde_json::to_writer(&mut *out, &conn)?;
        }
        Ok(())
    })?;
    out.write_all(if first { b"[]\n" } else { b"\n]\n" })
}

pub(super) fn list(args: &Conns, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if !std::path::Path::new(FILE).exists() {
        // Says which module is missing, if that is it.
        Client::open()?;
        return Err(Failure::Failed(format!("there is no {FILE}")));
    }
    if args.count {
        let mut count = 0u64;
        each(|conn| {
            count += u64::from(wanted(args, &conn));
            Ok(())
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
        json(|conn| wanted(args, conn), out)?;
        return Ok(());
    }
    let title = format!(
        "{:<5}{:<24}{:<24}{:<24}{:<13}{:>7}",
        "", "client", "service", "real server", "state", "expires"
    );
    writeln!(out, "{}", Paint::stdout().paint(Tone::Head, &title))?;
    each(|conn| {
        if wanted(args, &conn) {
            writeln!(
                out,
                "{:<5}{:<24}{:<24}{:<24}{:<13}{:>5} s",
                conn.protocol,
                conn.client.to_string(),
                conn.service.to_string(),
                conn.real.to_string(),
                conn.state,
                conn.expires
            )?;
        }
        Ok(())
    })?;
    Ok(())
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
