// SPDX-License-Identifier: MIT OR Apache-2.0

//! Destinations, the real servers of a service (`IPVS_DEST_ATTR_*`).

use std::net::SocketAddr;

use netlink_packet_core::DecodeError;

use crate::attribute::{required, Address};
use crate::service::AddressFamily;
use crate::stats::{Stats, Stats64Attribute, StatsAttribute};

attributes! {
    /// A member of a `DEST` nest.
    pub enum DestAttribute: "destination" {
        /// Address.
        Addr(Address as Fixed) = 1,
        /// Port. Network byte order on the wire.
        Port(u16 as Network) = 2,
        /// Forwarding method and, in answers, other connection flags.
        FwdMethod(u32 as Native) = 3,
        /// Weight; 0 takes no new connections.
        Weight(i32 as Native) = 4,
        /// Upper threshold of connections; 0 for none.
        UThresh(u32 as Native) = 5,
        /// Lower threshold of connections; 0 for the default.
        LThresh(u32 as Native) = 6,
        /// Active connections. In answers only.
        ActiveConns(u32 as Native) = 7,
        /// Inactive connections. In answers only.
        InactConns(u32 as Native) = 8,
        /// Persistence templates. In answers only.
        PersistConns(u32 as Native) = 9,
        /// Counters, the old form. In answers only.
        Stats(Vec<StatsAttribute> as Nest) = 10,
        /// Address family, if it isn't the service's.
        AddrFamily(u16 as Native) = 11,
        /// Counters, each of 64 bits. In answers only.
        Stats64(Vec<Stats64Attribute> as Nest) = 12,
        /// Tunnel type.
        TunType(u8 as Native) = 13,
        /// Tunnel port (GUE). Network byte order on the wire.
        TunPort(u16 as Network) = 14,
        /// Tunnel checksum flags.
        TunFlags(u16 as Native) = 15,
        /// 1: it was configured as FullNAT, which `FwdMethod` shows as NAT. In answers of rvs only.
        FullNat(u8 as Native) = 72,
    }
}

/// How packets get to a destination: the low three bits of its connection flags (`IP_VS_CONN_F_FWD_MASK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ForwardMethod(pub u32);

impl ForwardMethod {
    /// Network address translation.
    pub const MASQ: Self = Self(0);
    /// The destination is this machine.
    pub const LOCAL: Self = Self(1);
    /// Encapsulation.
    pub const TUNNEL: Self = Self(2);
    /// Direct routing: only the link-layer address changes.
    pub const ROUTE: Self = Self(3);
    /// Past the balancer, where the packet wanted to go.
    pub const BYPASS: Self = Self(4);
    /// Network address translation of both ends, with a local address of the service for the client. Needs rvs, which
    /// shows it to other programs as [`ForwardMethod::MASQ`]. (A NAT destination is FullNAT as well while its service has local
    /// addresses.)
    pub const FULLNAT: Self = Self(5);

    /// The method among connection flags.
    pub fn of_flags(flags: u32) -> Self {
        Self(flags & 0x7)
    }
}

/// Tunnel types (`IP_VS_CONN_F_TUNNEL_TYPE_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TunnelType(pub u8);

impl TunnelType {
    /// IP in IP.
    pub const IPIP: Self = Self(0);
    /// Generic UDP encapsulation.
    pub const GUE: Self = Self(1);
    /// Generic routing encapsulation.
    pub const GRE: Self = Self(2);
}

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dest {
    /// Address and port.
    pub addr: SocketAddr,
    /// How packets get there.
    pub method: ForwardMethod,
    /// Weight; 0 takes no new connections.
    pub weight: i32,
    /// Upper threshold of connections; 0 for none.
    pub u_thresh: u32,
    /// Lower threshold of connections; 0 for the default.
    pub l_thresh: u32,
    /// Tunnel type.
    pub tun_type: TunnelType,
    /// Tunnel port, in host byte order.
    pub tun_port: u16,
    /// Tunnel checksum flags: 0 none, 1 with checksum, 2 remote checksum offload.
    pub tun_flags: u16,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Counters, as far as there were any in the answer.
    pub stats: Option<Stats>,
}

impl Dest {
    /// A destination of weight 1.
    pub fn new(addr: SocketAddr, method: ForwardMethod) -> Self {
        Self {
            addr,
            method,
            weight: 1,
            u_thresh: 0,
            l_thresh: 0,
            tun_type: TunnelType::IPIP,
            tun_port: 0,
            tun_flags: 0,
            active: 0,
            inactive: 0,
            persistent: 0,
            stats: None,
        }
    }

    /// The members that identify a destination within its service.
    pub fn id_attributes(addr: SocketAddr) -> Vec<DestAttribute> {
        vec![
            DestAttribute::AddrFamily(AddressFamily::of(addr.ip()).0),
            DestAttribute::Addr(addr.ip().into()),
            DestAttribute::Port(addr.port()),
        ]
    }

    /// The members of a request that creates or changes the destination.
    pub fn attributes(&self) -> Vec<DestAttribute> {
        let mut attributes = Self::id_attributes(self.addr);
        attributes.extend([
            DestAttribute::FwdMethod(self.method.0),
            DestAttribute::Weight(self.weight),
            DestAttribute::TunType(self.tun_type.0),
            DestAttribute::TunPort(self.tun_port),
            DestAttribute::TunFlags(self.tun_flags),
            DestAttribute::UThresh(self.u_thresh),
            DestAttribute::LThresh(self.l_thresh),
        ]);
        attributes
    }

    /// Reads an answer; `family` is the service's, for kernels before 3.18, which don't say it.
    pub fn from_attributes(
        attributes: &[DestAttribute],
        family: AddressFamily,
    ) -> Result<Self, DecodeError> {
        let (mut addr, mut port, mut flags, mut weight) = (None, None, None, None);
        let (mut af, mut fullnat) = (None, false);
        let (mut stats, mut stats64) = (None, None);
        let mut dest = Self::new(SocketAddr::from(([0; 4], 0)), ForwardMethod::MASQ);
        for attribute in attributes {
            match attribute {
                DestAttribute::Addr(v) => addr = Some(*v),
                DestAttribute::Port(v) => port = Some(*v),
                DestAttribute::FwdMethod(v) => flags = Some(*v),
                DestAttribute::Weight(v) => weight = Some(*v),
                DestAttribute::UThresh(v) => dest.u_thresh = *v,
                DestAttribute::LThresh(v) => dest.l_thresh = *v,
                DestAttribute::ActiveConns(v) => dest.active = *v,
                DestAttribute::InactConns(v) => dest.inactive = *v,
                DestAttribute::PersistConns(v) => dest.persistent = *v,
                DestAttribute::Stats(v) => stats = Some(Stats::from(v.as_slice())),
                DestAttribute::AddrFamily(v) => af = Some(AddressFamily(*v)),
                DestAttribute::Stats64(v) => stats64 = Some(Stats::from(v.as_slice())),
                DestAttribute::TunType(v) => dest.tun_type = TunnelType(*v),
                DestAttribute::TunPort(v) => dest.tun_port = *v,
                DestAttribute::TunFlags(v) => dest.tun_flags = *v,
                DestAttribute::FullNat(v) => fullnat = *v != 0,
                DestAttribute::Other(_) => {}
            }
        }
        let family = af.filter(|af| af.0 != 0).unwrap_or(family);
        let ip = required(addr, "destination attribute Addr")?
            .to_ip(family)
            .ok_or_else(|| format!("destination of address family {}", family.0))?;
        dest.addr = SocketAddr::new(ip, required(port, "destination attribute Port")?);
        let method = ForwardMethod::of_flags(required(flags, "destination attribute FwdMethod")?);
        dest.method = match method {
            ForwardMethod::MASQ if fullnat => ForwardMethod::FULLNAT,
            other => other,
        };
        dest.weight = required(weight, "destination attribute Weight")?;
        dest.stats = stats64.or(stats);
        Ok(dest)
    }
}
