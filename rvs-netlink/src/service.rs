// SPDX-License-Identifier: MIT OR Apache-2.0

//! Virtual services (`IPVS_SVC_ATTR_*`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{BitOr, BitOrAssign};

use netlink_packet_core::DecodeError;

use crate::attribute::{copy, exact, required, Address, Codec, Fixed};
use crate::fullnat::{FullNat, FullNatStats};
use crate::stats::{Stats, Stats64Attribute, StatsAttribute};
use crate::tunnel::{Sources, TunnelExtras};

attributes! {
    /// A member of a `SERVICE` nest.
    pub enum ServiceAttribute: "service" {
        /// Address family.
        Af(u16 as Native) = 1,
        /// IP protocol.
        Protocol(u16 as Native) = 2,
        /// Virtual address.
        Addr(Address as Fixed) = 3,
        /// Virtual port. Network byte order on the wire.
        Port(u16 as Network) = 4,
        /// Firewall mark; stands in for protocol, address and port.
        Fwmark(u32 as Native) = 5,
        /// Scheduler, at most 15 bytes.
        SchedName(String as Text) = 6,
        /// Flags and which of them are meant.
        Flags(Flags as Fixed) = 7,
        /// Persistence timeout in seconds.
        Timeout(u32 as Native) = 8,
        /// Persistence granularity. IPv4: a mask in network byte order, so its memory is the address' octets;
        /// IPv6: a prefix length in the machine's order.
        Netmask(u32 as Native) = 9,
        /// Counters, the old form. In answers only.
        Stats(Vec<StatsAttribute> as Nest) = 10,
        /// Persistence engine, at most 16 bytes.
        PeName(String as Text) = 11,
        /// Counters, each of 64 bits. In answers only.
        Stats64(Vec<Stats64Attribute> as Nest) = 12,
        /// Sources of tunnels over IPv4. This one and those below need rvs.
        TunSourcesV4(Sources<Ipv4Addr> as Fixed) = 64,
        /// Sources of tunnels over IPv6.
        TunSourcesV6(Sources<Ipv6Addr> as Fixed) = 65,
        /// 1: segments are made to fit tunnels; 0: not.
        TunMss(u8 as Native) = 66,
        /// Kind of the TCP option with the client's address; 0: none.
        ToaKind(u8 as Native) = 72,
        /// Not 0: the option is on SYNs, too.
        ToaSyn(u8 as Native) = 73,
        /// Version of the PROXY protocol, 1 or 2; 0: none.
        ProxyVersion(u8 as Native) = 74,
        /// The lowest local port.
        PortMin(u16 as Native) = 75,
        /// The highest local port.
        PortMax(u16 as Native) = 76,
        /// Local addresses. In answers only.
        Locals(u32 as Native) = 77,
        /// Connections that were refused for want of a local port. In answers only.
        Exhausted(u64 as Native) = 78,
        /// Segments that got the option. In answers only.
        ToaAdded(u64 as Native) = 79,
        /// Segments that had no room for it. In answers only.
        ToaNoRoom(u64 as Native) = 80,
        /// Segments from which a client's own was removed. In answers only.
        ToaRemoved(u64 as Native) = 81,
    }
}

impl ServiceAttribute {
    /// What it is of, if only rvs knows it.
    pub(crate) fn extension(&self) -> Option<&'static str> {
        match self {
            Self::TunSourcesV4(_) | Self::TunSourcesV6(_) => Some("source addresses of tunnels"),
            Self::TunMss(_) => Some("segment sizes of tunnels"),
            Self::ToaKind(_) | Self::ToaSyn(_) => Some("TCP option with the client's address"),
            Self::ProxyVersion(_) => Some("PROXY protocol"),
            Self::PortMin(_) | Self::PortMax(_) => Some("range of local ports"),
            _ => None,
        }
    }
}

/// Flags of a service with a mask: a bit is set or cleared where the mask has it, and left alone elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flags {
    /// The values.
    pub flags: ServiceFlags,
    /// Which of them are meant.
    pub mask: u32,
}

impl Codec<Flags> for Fixed {
    fn len(_: &Flags) -> usize {
        8
    }
    fn emit(value: &Flags, out: &mut [u8]) {
        let mut bytes = [0; 8];
        let (flags, mask) = bytes.split_at_mut(4);
        copy(flags, &value.flags.0.to_ne_bytes());
        copy(mask, &value.mask.to_ne_bytes());
        copy(out, &bytes);
    }
    fn parse(bytes: &[u8]) -> Result<Flags, DecodeError> {
        let [a, b, c, d, e, f, g, h] = exact::<8>(bytes)?;
        Ok(Flags {
            flags: ServiceFlags(u32::from_ne_bytes([a, b, c, d])),
            mask: u32::from_ne_bytes([e, f, g, h]),
        })
    }
}

/// Flag bits of a service (`IP_VS_SVC_F_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// Clients come back to the same destination.
    pub const PERSISTENT: Self = Self(0x1);
    /// The service is in the kernel's table; only the kernel sets this.
    pub const HASHED: Self = Self(0x2);
    /// Each packet is scheduled anew (UDP).
    pub const ONE_PACKET: Self = Self(0x4);
    /// First flag of the scheduler: `sh-fallback`, `mh-fallback`.
    pub const SCHED1: Self = Self(0x8);
    /// Second flag of the scheduler: `sh-port`, `mh-port`.
    pub const SCHED2: Self = Self(0x10);
    /// Third flag of the scheduler.
    pub const SCHED3: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those that a client sets: all but [`ServiceFlags::HASHED`].
    pub fn settable(self) -> Self {
        Self(self.0 & !Self::HASHED.0)
    }
}

impl BitOr for ServiceFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ServiceFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// An IP protocol number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u16);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// The lower-case name of those that IPVS balances with ports.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::TCP => Some("tcp"),
            Self::UDP => Some("udp"),
            Self::SCTP => Some("sctp"),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "protocol {}", self.0),
        }
    }
}

/// An address family number (`AF_INET`, `AF_INET6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressFamily(pub u16);

impl AddressFamily {
    /// IPv4.
    pub const INET: Self = Self(2);
    /// IPv6.
    pub const INET6: Self = Self(10);

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::INET,
            IpAddr::V6(_) => Self::INET6,
        }
    }
}

/// What tells a service from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServiceId {
    /// By protocol, address and port.
    Address {
        /// TCP, UDP or SCTP.
        protocol: Protocol,
        /// Virtual address and port.
        addr: SocketAddr,
    },
    /// By the firewall mark of packets.
    Fwmark {
        /// IPv4 or IPv6.
        family: AddressFamily,
        /// Not zero.
        mark: u32,
    },
}

impl ServiceId {
    /// A service of an address and port.
    pub fn address(protocol: Protocol, addr: SocketAddr) -> Self {
        Self::Address { protocol, addr }
    }

    /// A service of a firewall mark.
    pub fn fwmark(family: AddressFamily, mark: u32) -> Self {
        Self::Fwmark { family, mark }
    }

    /// The address family of its clients.
    pub fn family(&self) -> AddressFamily {
        match self {
            Self::Address { addr, .. } => AddressFamily::of(addr.ip()),
            Self::Fwmark { family, .. } => *family,
        }
    }

    /// The members that identify the service, in the order that the kernel emits them in.
    pub fn attributes(&self) -> Vec<ServiceAttribute> {
        let af = ServiceAttribute::Af(self.family().0);
        match self {
            Self::Address { protocol, addr } => vec![
                af,
                ServiceAttribute::Protocol(protocol.0),
                ServiceAttribute::Addr(addr.ip().into()),
                ServiceAttribute::Port(addr.port()),
            ],
            Self::Fwmark { mark, .. } => vec![af, ServiceAttribute::Fwmark(*mark)],
        }
    }
}

impl TryFrom<&[ServiceAttribute]> for ServiceId {
    type Error = DecodeError;

    fn try_from(attributes: &[ServiceAttribute]) -> Result<Self, DecodeError> {
        let (mut af, mut protocol, mut addr, mut port, mut fwmark) = (None, None, None, None, None);
        for attribute in attributes {
            match attribute {
                ServiceAttribute::Af(v) => af = Some(AddressFamily(*v)),
                ServiceAttribute::Protocol(v) => protocol = Some(Protocol(*v)),
                ServiceAttribute::Addr(v) => addr = Some(*v),
                ServiceAttribute::Port(v) => port = Some(*v),
                ServiceAttribute::Fwmark(v) => fwmark = Some(*v),
                _ => {}
            }
        }
        let family = required(af, "service attribute Af")?;
        if let Some(mark) = fwmark {
            return Ok(Self::Fwmark { family, mark });
        }
        let protocol = required(protocol, "service attribute Protocol")?;
        let ip = required(addr, "service attribute Addr")?
            .to_ip(family)
            .ok_or_else(|| format!("service of address family {}", family.0))?;
        let port = required(port, "service attribute Port")?;
        Ok(Self::Address {
            protocol,
            addr: SocketAddr::new(ip, port),
        })
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, addr } => write!(f, "{protocol} {addr}"),
            Self::Fwmark { family, mark } if *family == AddressFamily::INET6 => {
                write!(f, "fwmark {mark} ipv6")
            }
            Self::Fwmark { mark, .. } => write!(f, "fwmark {mark}"),
        }
    }
}

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// Which one.
    pub id: ServiceId,
    /// Scheduler; `none` where the kernel has unbound it.
    pub scheduler: String,
    /// Flags. The kernel's answers have [`ServiceFlags::HASHED`] among them.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds.
    pub timeout: u32,
    /// Persistence granularity: significant bits of the client's address as an IPv4 mask in host byte order, or an IPv6 prefix length.
    pub netmask: u32,
    /// Persistence engine.
    pub pe_name: Option<String>,
    /// What its tunnels have beyond C. In requests, `None` leaves it as it is, and anything else needs rvs; in answers, `None`:
    /// nothing was ever configured.
    pub tunnels: Option<TunnelExtras>,
    /// Its FullNAT but for the local addresses; `None` as for [`Service::tunnels`].
    pub fullnat: Option<FullNat>,
    /// What it counts of FullNAT, in answers of services that have anything of it.
    pub fullnat_stats: Option<FullNatStats>,
    /// Counters, as far as there were any in the answer; 64 bits wide where the kernel offers that.
    pub stats: Option<Stats>,
}

impl Service {
    /// A service without persistence.
    pub fn new(id: ServiceId, scheduler: &str) -> Self {
        let netmask = if id.family() == AddressFamily::INET6 {
            128
        } else {
            u32::MAX
        };
        Self {
            id,
            scheduler: scheduler.to_owned(),
            flags: ServiceFlags::default(),
            timeout: 0,
            netmask,
            pe_name: None,
            tunnels: None,
            fullnat: None,
            fullnat_stats: None,
            stats: None,
        }
    }

    /// The members of a request that creates or changes the service.
    pub fn attributes(&self) -> Vec<ServiceAttribute> {
        let mut attributes = self.id.attributes();
        attributes.push(ServiceAttribute::SchedName(self.scheduler.clone()));
        if let Some(pe) = &self.pe_name {
            attributes.push(ServiceAttribute::PeName(pe.clone()));
        }
        attributes.extend([
            ServiceAttribute::Flags(Flags {
                flags: self.flags,
                mask: u32::MAX,
            }),
            ServiceAttribute::Timeout(self.timeout),
            ServiceAttribute::Netmask(self.wire_netmask()),
        ]);
        attributes.extend(self.tunnels.iter().flat_map(TunnelExtras::attributes));
        attributes.extend(self.fullnat.iter().flat_map(FullNat::attributes));
        attributes
    }

    fn wire_netmask(&self) -> u32 {
        if self.id.family() == AddressFamily::INET6 {
            self.netmask
        } else {
            self.netmask.to_be()
        }
    }
}

impl TryFrom<&[ServiceAttribute]> for Service {
    type Error = DecodeError;

    fn try_from(attributes: &[ServiceAttribute]) -> Result<Self, DecodeError> {
        let (mut scheduler, mut flags, mut timeout, mut netmask) = (None, None, None, None);
        let (mut pe_name, mut stats, mut stats64) = (None, None, None);
        for attribute in attributes {
            match attribute {
                ServiceAttribute::SchedName(v) => scheduler = Some(v.clone()),
                ServiceAttribute::Flags(v) => flags = Some(v.flags),
                ServiceAttribute::Timeout(v) => timeout = Some(*v),
                ServiceAttribute::Netmask(v) => netmask = Some(*v),
                ServiceAttribute::PeName(v) => pe_name = Some(v.clone()),
                ServiceAttribute::Stats(v) => stats = Some(Stats::from(v.as_slice())),
                ServiceAttribute::Stats64(v) => stats64 = Some(Stats::from(v.as_slice())),
                // What identifies it, and what isn't known.
                _ => {}
            }
        }
        let id = ServiceId::try_from(attributes)?;
        let family = id.family();
        let netmask = required(netmask, "service attribute Netmask")?;
        Ok(Self {
            id,
            scheduler: required(scheduler, "service attribute SchedName")?,
            flags: required(flags, "service attribute Flags")?,
            timeout: required(timeout, "service attribute Timeout")?,
            netmask: if family == AddressFamily::INET6 {
                netmask
            } else {
                u32::from_be(netmask)
            },
            pe_name,
            tunnels: TunnelExtras::of(attributes),
            fullnat: FullNat::of(attributes),
            fullnat_stats: FullNatStats::of(attributes),
            stats: stats64.or(stats),
        })
    }
}
