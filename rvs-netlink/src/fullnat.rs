// SPDX-License-Identifier: MIT OR Apache-2.0

//! FullNAT (`LADDR` and what a service has of it). Needs rvs.

use std::net::IpAddr;

use netlink_packet_core::DecodeError;

use crate::attribute::{required, Address};
use crate::service::{AddressFamily, ServiceAttribute};

attributes! {
    /// A member of a `LADDR` nest: a local address of a service. Needs rvs.
    pub enum LocalAttribute: "local address" {
        /// Address.
        Addr(Address as Fixed) = 1,
        /// Ports that were tried and not free. In answers only.
        PortConflict(u64 as Native) = 2,
        /// Connections that have a port of it now. In answers only.
        ConnCounts(u32 as Native) = 3,
        /// All addresses of the prefix of this length are meant, not one.
        PrefixLen(u8 as Native) = 72,
        /// For packets that leave by this interface only, at most 15 bytes.
        IfName(String as Text) = 73,
    }
}

/// A local address of a service, or in requests a prefix of them: where its FullNAT connections come from, as
/// real servers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalAddress {
    /// The address; in requests the first of the prefix.
    pub addr: IpAddr,
    /// How many bits of it are the prefix. In answers, which list each address by itself, that of the prefix that it was added
    /// with.
    pub prefix_len: u8,
    /// The interface that packets must leave by to have it.
    pub interface: Option<String>,
    /// Ports that were tried and not free. In answers only.
    pub conflicts: u64,
    /// Connections that have a port of it now. In answers only.
    pub conns: u32,
}

impl LocalAddress {
    /// One address, for any interface.
    pub fn new(addr: IpAddr) -> Self {
        Self {
            addr,
            prefix_len: if addr.is_ipv4() { 32 } else { 128 },
            interface: None,
            conflicts: 0,
            conns: 0,
        }
    }

    /// All addresses of a prefix, for any interface. rvs takes up to 1024 of them for each service.
    pub fn prefix(addr: IpAddr, prefix_len: u8) -> Self {
        Self {
            prefix_len,
            ..Self::new(addr)
        }
    }

    /// The members of a request that adds or removes it.
    pub fn attributes(&self) -> Vec<LocalAttribute> {
        let mut attributes = vec![LocalAttribute::Addr(self.addr.into())];
        if self.prefix_len != Self::new(self.addr).prefix_len {
            attributes.push(LocalAttribute::PrefixLen(self.prefix_len));
        }
        if let Some(name) = &self.interface {
            attributes.push(LocalAttribute::IfName(name.clone()));
        }
        attributes
    }

    /// Reads an answer; `family` is the service's.
    pub fn from_attributes(
        attributes: &[LocalAttribute],
        family: AddressFamily,
    ) -> Result<Self, DecodeError> {
        let mut addr = None;
        for attribute in attributes {
            if let LocalAttribute::Addr(v) = attribute {
                addr = Some(*v);
            }
        }
        let addr = required(addr, "local address attribute Addr")?
            .to_ip(family)
            .ok_or_else(|| format!("local address of address family {}", family.0))?;
        let mut local = Self::new(addr);
        for attribute in attributes {
            match attribute {
                LocalAttribute::PortConflict(v) => local.conflicts = *v,
                LocalAttribute::ConnCounts(v) => local.conns = *v,
                LocalAttribute::PrefixLen(v) => local.prefix_len = *v,
                LocalAttribute::IfName(v) => local.interface = Some(v.clone()),
                LocalAttribute::Addr(_) | LocalAttribute::Other(_) => {}
            }
        }
        Ok(local)
    }
}

/// What can be configured of a service's FullNAT beside its local addresses, for connections to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FullNat {
    /// Kind of the TCP option that tells real servers the client's address and port (TOA); 0: none. Usual is
    /// [`FullNat::TOA`].
    pub toa_kind: u8,
    /// The option is on SYNs, too.
    pub toa_on_syn: bool,
    /// Version of the PROXY protocol that tells it, 1 or 2; 0: none. Excludes the option.
    pub proxy_version: u8,
    /// The lowest local port.
    pub port_min: u16,
    /// The highest local port.
    pub port_max: u16,
}

impl Default for FullNat {
    /// Nothing is told, ports from 1024 on.
    fn default() -> Self {
        Self {
            toa_kind: 0,
            toa_on_syn: false,
            proxy_version: 0,
            port_min: 1024,
            port_max: u16::MAX,
        }
    }
}

impl FullNat {
    /// The kind of option that readers of the client's address look for.
    pub const TOA: u8 = 254;

    /// The members of a request that makes it so; all of them, so nothing stays as it was.
    pub(crate) fn attributes(&self) -> [ServiceAttribute; 5] {
        [
            ServiceAttribute::ToaKind(self.toa_kind),
            ServiceAttribute::ToaSyn(self.toa_on_syn.into()),
            ServiceAttribute::ProxyVersion(self.proxy_version),
            ServiceAttribute::PortMin(self.port_min),
            ServiceAttribute::PortMax(self.port_max),
        ]
    }

    /// What an answer says, if it says anything of it.
    pub(crate) fn of(attributes: &[ServiceAttribute]) -> Option<Self> {
        let mut found = None;
        for attribute in attributes {
            let mut now: Self = found.unwrap_or_default();
            match attribute {
                ServiceAttribute::ToaKind(v) => now.toa_kind = *v,
                ServiceAttribute::ToaSyn(v) => now.toa_on_syn = *v != 0,
                ServiceAttribute::ProxyVersion(v) => now.proxy_version = *v,
                ServiceAttribute::PortMin(v) => now.port_min = *v,
                ServiceAttribute::PortMax(v) => now.port_max = *v,
                _ => continue,
            }
            found = Some(now);
        }
        found
    }
}

/// What a service counts of FullNAT.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FullNatStats {
    /// Local addresses that the service has.
    pub locals: u32,
    /// Connections that were refused because no local port was free.
    pub exhausted: u64,
    /// Segments that got the option with the client's address.
    pub toa_added: u64,
    /// Segments that should have got it and had no room.
    pub toa_no_room: u64,
    /// Segments from which a client's own option of that kind was removed.
    pub toa_removed: u64,
}

impl FullNatStats {
    pub(crate) fn of(attributes: &[ServiceAttribute]) -> Option<Self> {
        let mut found = None;
        for attribute in attributes {
            let mut now: Self = found.unwrap_or_default();
            match attribute {
                ServiceAttribute::Locals(v) => now.locals = *v,
                ServiceAttribute::Exhausted(v) => now.exhausted = *v,
                ServiceAttribute::ToaAdded(v) => now.toa_added = *v,
                ServiceAttribute::ToaNoRoom(v) => now.toa_no_room = *v,
                ServiceAttribute::ToaRemoved(v) => now.toa_removed = *v,
                _ => continue,
            }
            found = Some(now);
        }
        found
    }
}
