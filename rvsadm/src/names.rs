// SPDX-License-Identifier: GPL-2.0-or-later

//! Names of hosts and of ports.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};

use rvs_netlink::Protocol;

/// The names of ports in /etc/services, and hosts that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    services: Option<Vec<PortName>>,
    hosts: HashMap<IpAddr, Option<String>>,
}

#[derive(Debug)]
struct PortName {
    name: String,
    port: u16,
    protocol: String,
    aliases: Vec<String>,
}

/// The lines of /etc/services: a name, port/protocol, more names.
fn parse_services(text: &str) -> Vec<PortName> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?;
            let mut words = line.split_whitespace();
            let name = words.next()?.to_owned();
            let (port, protocol) = words.next()?.split_once('/')?;
            Some(PortName {
                name,
                port: port.parse().ok()?,
                protocol: protocol.to_owned(),
                aliases: words.map(str::to_owned).collect(),
            })
        })
        .collect()
}

impl Names {
    fn services(&mut self, protocol: Protocol) -> impl Iterator<Item = &PortName> {
        let all = self.services.get_or_insert_with(|| {
            parse_services(&std::fs::read_to_string("/etc/services").unwrap_or_default())
        });
        let name = protocol.name().unwrap_or_default();
        all.iter().filter(move |s| s.protocol == name)
    }

    /// The port of a name.
    pub(crate) fn port(&mut self, name: &str, protocol: Protocol) -> Option<u16> {
        self.services(protocol)
            .find(|s| s.name == name || s.aliases.iter().any(|a| a == name))
            .map(|s| s.port)
    }

    /// The name of a port, or its number.
    pub(crate) fn of_port(&mut self, port: u16, protocol: Protocol) -> String {
        self.services(protocol)
            .find(|s| s.port == port)
            .map_or_else(|| port.to_string(), |s| s.name.clone())
    }

    /// The name of a host, or its address.
    pub(crate) fn of_host(&mut self, ip: IpAddr) -> String {
        let name = self
            .hosts
            .entry(ip)
            .or_insert_with(|| dns_lookup::lookup_addr(&ip).ok());
        name.clone().unwrap_or_else(|| ip.to_string())
    }
}

/// The IPv4 address of a host's name.
pub(crate) fn host_v4(name: &str) -> Option<Ipv4Addr> {
    if name.is_empty() {
        return None;
    }
    (name, 0)
        .to_socket_addrs()
        .ok()?
        .find_map(|addr| match addr.ip() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services() {
        let services = parse_services(
            "# comment\nhttp\t80/tcp\twww # WorldWideWeb\nhttp 80/udp\nbroken\nx y\n",
        );
        let mut names = Names {
            services: Some(services),
            ..Names::default()
        };
        assert_eq!(names.port("www", Protocol::TCP), Some(80));
        assert_eq!(names.port("www", Protocol::UDP), None);
        assert_eq!(names.port("http", Protocol::SCTP), None);
        assert_eq!(names.of_port(80, Protocol::UDP), "http");
        assert_eq!(names.of_port(81, Protocol::UDP), "81");
        assert_eq!(names.of_port(80, Protocol(0)), "80");
    }
}
