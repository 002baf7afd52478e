// SPDX-License-Identifier: GPL-2.0-or-later

//! What rvs has beyond C ip_vs, in the words that people type and read: local addresses and their ports, how the
//! client's address is told, where tunnels come from.

use std::net::IpAddr;

use rvs_netlink::client::Client;
use rvs_netlink::{Command, FullNat, LocalAddress, Protocol, ServiceId, TunnelExtras};

/// As many addresses as rvs lets a service have.
const MOST_LOCALS: u64 = 1024;

/// Says which of the things that were asked for the loaded module hasn't. To be asked before anything is sent: C ip_vs ignores
/// what it doesn't know, and does the rest.
pub(crate) fn refuse_without_rvs(client: &Client, asked: &[String]) -> Result<(), String> {
    if asked.is_empty() || client.offers(Command::NewLaddr) {
        return Ok(());
    }
    Err(format!(
        "{}: only rvs has that, and the module that is loaded is another one; nothing was changed (`modprobe -r ip_vs`, then \
         `modprobe rvs`)",
        asked.join(", ")
    ))
}

fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() {
        32
    } else {
        128
    }
}

/// The address of the network that an address is in.
fn masked(ip: IpAddr, prefix_len: u8) -> IpAddr {
    let free = u32::from(bits(ip).saturating_sub(prefix_len));
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(free).unwrap_or_default();
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(free).unwrap_or_default();
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// Reads `ADDRESS[/LENGTH]`, without bits behind the length; the length, if it was given.
fn parse_prefix(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let (addr, prefix_len) = match text.split_once('/') {
        None => (text, None),
        Some((addr, len)) => (addr, Some(len)),
    };
    let Ok(ip) = addr.parse::<IpAddr>() else {
        return Err(format!(
            "`{addr}` is no address: 10.77.0.1, 10.77.0.16/28 or 2001:db8:77::/120 would be right"
        ));
    };
    let Some(text) = prefix_len else {
        return Ok((ip, None));
    };
    let prefix_len = match text.parse::<u8>() {
        Ok(len) if len <= bits(ip) => len,
        _ => {
            return Err(format!(
                "`{text}` is no prefix length: 0 to {} is right",
                bits(ip)
            ))
        }
    };
    let network = masked(ip, prefix_len);
    if network != ip {
        return Err(format!(
            "{ip}/{prefix_len} has bits behind the prefix: {network}/{prefix_len} would be right"
        ));
    }
    Ok((ip, Some(prefix_len)))
}

/// Reads `ADDRESS[/LENGTH][%INTERFACE]`.
pub(crate) fn parse_local(text: &str) -> Result<LocalAddress, String> {
    let (prefix, interface) = match text.split_once('%') {
        None => (text, None),
        Some((prefix, name)) => (prefix, Some(name)),
    };
    let (ip, prefix_len) = parse_prefix(prefix)?;
    let mut local = match prefix_len {
        None => LocalAddress::new(ip),
        Some(len) => LocalAddress::prefix(ip, len),
    };
    if count(&local) > MOST_LOCALS {
        return Err(format!(
            "`{text}` is more than {MOST_LOCALS} addresses, which a service can have: /{} or longer is right",
            bits(ip) - 10
        ));
    }
    if let Some(name) = interface {
        if name.is_empty() || name.len() > 15 {
            return Err(format!(
                "`{name}` is no name of an interface: 1 to 15 characters are right"
            ));
        }
        local.interface = Some(name.to_owned());
    }
    Ok(local)
}

/// As [`parse_local`] reads it.
pub(crate) fn local_text(local: &LocalAddress) -> String {
    let mut text = local.addr.to_string();
    if local.prefix_len != bits(local.addr) {
        text.push_str(&format!("/{}", local.prefix_len));
    }
    if let Some(name) = &local.interface {
        text.push_str(&format!("%{name}"));
    }
    text
}

/// How many addresses a prefix has.
fn count(local: &LocalAddress) -> u64 {
    let free = u32::from(bits(local.addr).saturating_sub(local.prefix_len));
    1u64.checked_shl(free).unwrap_or(u64::MAX)
}

/// Whether these are more than a service can have.
pub(crate) fn too_many(locals: &[LocalAddress]) -> bool {
    locals
        .iter()
        .fold(0u64, |sum, local| sum.saturating_add(count(local)))
        > MOST_LOCALS
}

/// Whether two prefixes have an address in common.
pub(crate) fn overlap(a: &LocalAddress, b: &LocalAddress) -> bool {
    let len = a.prefix_len.min(b.prefix_len);
    a.addr.is_ipv4() == b.addr.is_ipv4() && masked(a.addr, len) == masked(b.addr, len)
}

/// From the kernel's list of addresses to the prefixes that they were added as, with the sums of what they count.
pub(crate) fn prefixes(locals: Vec<LocalAddress>) -> Vec<LocalAddress> {
    let mut found: Vec<LocalAddress> = Vec::new();
    for mut local in locals {
        local.addr = masked(local.addr, local.prefix_len);
        // Those of a prefix come one after the other.
        match found.last_mut() {
            Some(last)
                if (last.addr, last.prefix_len, &last.interface)
                    == (local.addr, local.prefix_len, &local.interface) =>
            {
                last.conns = last.conns.saturating_add(local.conns);
                last.conflicts = last.conflicts.saturating_add(local.conflicts);
            }
            _ => found.push(local),
        }
    }
    found
}

/// Whether a service can have such local addresses.
pub(crate) fn check_locals(id: &ServiceId, locals: &[LocalAddress]) -> Result<(), String> {
    let v4 = id.family() == rvs_netlink::AddressFamily::INET;
    let mut total = 0u64;
    for (at, local) in locals.iter().enumerate() {
        let text = local_text(local);
        if local.addr.is_ipv4() != v4 {
            let family = if v4 { "IPv4" } else { "IPv6" };
            return Err(format!(
                "local address {text}: one of {family}, as the service, is right"
            ));
        }
        if let Some(other) = locals.iter().take(at).find(|other| overlap(other, local)) {
            return Err(format!(
                "local address {text}: {} has it already",
                local_text(other)
            ));
        }
        total = total.saturating_add(count(local));
    }
    if total > MOST_LOCALS {
        return Err(format!(
            "{total} local addresses: up to {MOST_LOCALS} are right"
        ));
    }
    Ok(())
}

/// Reads `MIN-MAX`.
pub(crate) fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let ports = text
        .split_once('-')
        .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
    match ports {
        Some((min, max)) if 0 < min && min <= max => Ok((min, max)),
        _ => Err(format!(
            "`{text}` is no range of ports: 1024-65535 would be one"
        )),
    }
}

/// Reads the kind of a TCP option; `off` is 0.
pub(crate) fn parse_toa(text: &str) -> Result<u8, String> {
    match text {
        "off" | "none" => Ok(0),
        _ => match text.parse() {
            Ok(kind) if toa_is_free(kind) => Ok(kind),
            _ => Err(format!(
                "`{text}` is no kind of TCP option that is free for this: 254 (usual), 253, 200 or others that mean nothing else, \
                 and off, are right"
            )),
        },
    }
}

/// Whether a kind of TCP option means nothing else; rvs asks the same.
pub(crate) fn toa_is_free(kind: u8) -> bool {
    !matches!(kind, 0..=35 | 69..=79 | 172)
}

/// Reads a version of the PROXY protocol; `off` is 0.
pub(crate) fn parse_proxy(text: &str) -> Result<u8, String> {
    match text {
        "off" | "none" | "disable" => Ok(0),
        "1" | "v1" => Ok(1),
        "2" | "v2" => Ok(2),
        _ => Err(format!(
            "`{text}` is no version of the PROXY protocol: 1, 2 and off are right"
        )),
    }
}

/// Reads networks that tunnels' packets come from, up to one of each family, with commas between; `none` is none of either.
pub(crate) fn parse_sources(text: &str) -> Result<Vec<(IpAddr, u8)>, String> {
    if text == "none" || text == "off" {
        return Ok(Vec::new());
    }
    let mut sources: Vec<(IpAddr, u8)> = Vec::new();
    for word in text.split(',') {
        let source = parse_source(word)?;
        if sources
            .iter()
            .any(|(ip, _)| ip.is_ipv4() == source.0.is_ipv4())
        {
            return Err(format!("`{text}`: one network of each family is right"));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Reads a network that tunnels' packets come from.
pub(crate) fn parse_source(text: &str) -> Result<(IpAddr, u8), String> {
    let (ip, len) = parse_prefix(text)?;
    let len = len.unwrap_or(bits(ip));
    let least = if ip.is_ipv4() { 8 } else { 16 };
    if len < least {
        return Err(format!(
            "`{text}`: a prefix length from {least} to {} is right",
            bits(ip)
        ));
    }
    Ok((ip, len))
}

/// What the tunnels of a service come from, as [`parse_source`] reads it.
pub(crate) fn source_texts(extras: &TunnelExtras) -> Vec<String> {
    extras
        .sources()
        .map(|(ip, len)| format!("{ip}/{len}"))
        .collect()
}

/// Replaces the sources of both families.
pub(crate) fn set_sources(extras: &mut TunnelExtras, sources: &[(IpAddr, u8)]) {
    (extras.sources_v4, extras.sources_v6) = (None, None);
    for (ip, len) in sources {
        extras.set_sources(*ip, *len);
    }
}

/// Whether a service can tell the client's address so.
pub(crate) fn check_fullnat(id: &ServiceId, options: &FullNat) -> Result<(), String> {
    let FullNat {
        toa_kind,
        proxy_version,
        ..
    } = *options;
    if toa_kind != 0 && !toa_is_free(toa_kind) {
        parse_toa(&toa_kind.to_string()).map_err(|e| format!("toa: {e}"))?;
    }
    if toa_kind != 0 && proxy_version != 0 {
        return Err(
            "toa and the PROXY protocol exclude each other: switch one off (--toa=off, --proxy-protocol=off)"
                .to_owned(),
        );
    }
    if toa_kind == 0 && options.toa_on_syn {
        return Err("toa on SYNs goes with toa".to_owned());
    }
    if let ServiceId::Address { protocol, .. } = id {
        if toa_kind != 0 && *protocol != Protocol::TCP {
            return Err("toa is an option of TCP: a tcp service can have it".to_owned());
        }
        let fits = match proxy_version {
            0 => true,
            1 => *protocol == Protocol::TCP,
            _ => *protocol == Protocol::TCP || *protocol == Protocol::UDP,
        };
        if !fits {
            return Err(format!(
                "PROXY protocol {proxy_version}: version 1 is for tcp, 2 for tcp and udp"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locals_there_and_back() {
        for text in [
            "10.77.0.1",
            "10.77.0.16/28",
            "10.77.0.16/28%eth1",
            "2001:db8:77::/120",
            "2001:db8:77::1%eth1.100",
        ] {
            assert_eq!(local_text(&parse_local(text).unwrap()), text);
        }
        assert_eq!(
            local_text(&parse_local("10.77.0.1/32").unwrap()),
            "10.77.0.1"
        );
        for (text, want) in [
            ("10.77.0", "is no address"),
            ("10.77.0.1/33", "0 to 32"),
            ("10.77.0.1/28", "10.77.0.0/28 would be right"),
            ("10.77.0.0/16", "/22 or longer"),
            ("2001:db8::/64", "/118 or longer"),
            ("10.77.0.1%", "1 to 15 characters"),
            ("10.77.0.1%abcdefghijklmnop", "1 to 15 characters"),
        ] {
            let e = parse_local(text).unwrap_err();
            assert!(e.contains(want), "{text}: {e}");
        }
    }

    #[test]
    fn addresses_become_prefixes() {
        let one = |addr: &str, len, conns| {
            let mut local = LocalAddress::prefix(addr.parse().unwrap(), len);
            (local.conns, local.conflicts) = (conns, 1);
            local
        };
        let found = prefixes(vec![
            one("10.77.0.16", 30, 1),
            one("10.77.0.17", 30, 2),
            one("10.77.0.18", 30, 3),
            one("10.77.0.19", 30, 4),
            one("10.77.0.1", 32, 5),
            one("10.77.0.2", 32, 6),
        ]);
        let texts: Vec<(String, u32, u64)> = found
            .iter()
            .map(|l| (local_text(l), l.conns, l.conflicts))
            .collect();
        assert_eq!(
            texts,
            [
                ("10.77.0.16/30".to_owned(), 10, 4),
                ("10.77.0.1".to_owned(), 5, 1),
                ("10.77.0.2".to_owned(), 6, 1)
            ]
        );
    }

    #[test]
    fn what_goes_together() {
        let tcp = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse().unwrap());
        let udp = ServiceId::address(Protocol::UDP, "192.0.2.1:53".parse().unwrap());
        let locals = |texts: &[&str]| -> Vec<LocalAddress> {
            texts.iter().map(|t| parse_local(t).unwrap()).collect()
        };
        check_locals(&tcp, &locals(&["10.77.0.0/23", "10.77.2.0/23"])).unwrap();
        for (texts, want) in [
            (&["10.77.0.0/22", "10.78.0.1"][..], "1025 local addresses"),
            (
                &["10.77.0.0/24", "10.77.0.1"],
                "10.77.0.0/24 has it already",
            ),
            (&["2001:db8::1"], "one of IPv4"),
        ] {
            let e = check_locals(&tcp, &locals(texts)).unwrap_err();
            assert!(e.contains(want), "{texts:?}: {e}");
        }
        let options = |toa, proxy| {
            let mut options = FullNat::default();
            (options.toa_kind, options.proxy_version) = (toa, proxy);
            options
        };
        for (id, toa, proxy, fine) in [
            (&tcp, 254, 0, true),
            (&tcp, 0, 1, true),
            (&udp, 0, 2, true),
            (&udp, 254, 0, false),
            (&udp, 0, 1, false),
            (&tcp, 254, 2, false),
            (&tcp, 34, 0, false),
        ] {
            assert_eq!(check_fullnat(id, &options(toa, proxy)).is_ok(), fine);
        }
    }

    #[test]
    fn values() {
        assert_eq!(parse_ports("2000-3000"), Ok((2000, 3000)));
        for text in ["", "0-5", "9-8", "1-65536", "80", "a-b"] {
            assert!(parse_ports(text).is_err(), "{text}");
        }
        assert_eq!(parse_toa("254"), Ok(254));
        assert_eq!(parse_toa("off"), Ok(0));
        assert!(parse_toa("2").is_err() && parse_toa("300").is_err() && parse_toa("").is_err());
        assert_eq!(parse_proxy("v2"), Ok(2));
        assert!(parse_proxy("3").is_err());
        assert_eq!(
            parse_sources("10.77.0.0/22,2001:db8::/64").unwrap().len(),
            2
        );
        assert_eq!(parse_sources("none"), Ok(vec![]));
        for text in ["10.0.0.0/7", "10.77.0.1/22", "10.1.0.0/16,10.2.0.0/16", "x"] {
            assert!(parse_sources(text).is_err(), "{text}");
        }
    }
}
