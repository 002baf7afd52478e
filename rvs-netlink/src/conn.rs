// SPDX-License-Identifier: MIT OR Apache-2.0

//! Connections (`CONN` of rvs's extension).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::DecodeError;

use crate::attribute::required;
use crate::dest::ForwardMethod;
use crate::service::{AddressFamily, Protocol, ServiceId};

attributes! {
    /// A member of a `CONN` nest. Needs rvs.
    pub enum ConnAttribute: "connection" {
        /// Address family of client and virtual address.
        Af(u16 as Native) = 1,
        /// IP protocol; 0 of a template for a mark.
        Protocol(u8 as Native) = 2,
        /// The client's address.
        ClientAddr(IpAddr as Network) = 3,
        /// The client's port; 0 of a template. Network byte order on the wire.
        ClientPort(u16 as Network) = 4,
        /// Virtual address; of a template for a mark: the mark in network byte order.
        VirtAddr(IpAddr as Network) = 5,
        /// Virtual port. Network byte order on the wire.
        VirtPort(u16 as Network) = 6,
        /// The real server's address, perhaps of the other family.
        DestAddr(IpAddr as Network) = 7,
        /// The real server's port. Network byte order on the wire.
        DestPort(u16 as Network) = 8,
        /// Connection flags (`IP_VS_CONN_F_*`), the forwarding method in the lowest three bits.
        Flags(u32 as Native) = 9,
        /// State, as C numbers those of the protocol.
        State(u8 as Native) = 10,
        /// The state's name.
        StateName(String as Text) = 11,
        /// Milliseconds that are left without a packet.
        Expires(u64 as Native) = 12,
        /// Milliseconds that a packet gives.
        Timeout(u64 as Native) = 13,
        /// Mark of the packet that began it.
        Fwmark(u32 as Native) = 14,
        /// The mark of its service, if that is one by mark.
        ServiceFwmark(u32 as Native) = 15,
        /// The port of its service, if that is not the virtual port. Network byte order on the wire.
        ServicePort(u16 as Network) = 16,
        /// Packets from the client.
        InPkts(u64 as Native) = 17,
        /// Bytes from the client, from the network header on.
        InBytes(u64 as Native) = 18,
        /// Packets to the client.
        OutPkts(u64 as Native) = 19,
        /// Bytes to the client.
        OutBytes(u64 as Native) = 20,
        /// Milliseconds since it began.
        Age(u64 as Native) = 21,
        /// Bits of the client's address that must be the same. In requests only.
        ClientPrefix(u8 as Native) = 22,
    }
}

/// Flags of a connection (`IP_VS_CONN_F_*`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ConnFlags(pub u32);

impl ConnFlags {
    /// The connection came from another director.
    pub const SYNC: Self = Self(0x20);
    /// Not counted as active.
    pub const INACTIVE: Self = Self(0x100);
    /// No client port: a template of persistence.
    pub const TEMPLATE: Self = Self(0x1000);
    /// Each packet on its own.
    pub const ONE_PACKET: Self = Self(0x2000);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// How its packets get to the real server.
    pub fn method(self) -> ForwardMethod {
        ForwardMethod::of_flags(self.0)
    }
}

/// What has passed along a connection. Only those that began while the sysctl `rvs_conn_counters` was on have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnCounters {
    /// Packets from the client.
    pub in_pkts: u64,
    /// Bytes from the client.
    pub in_bytes: u64,
    /// Packets to the client.
    pub out_pkts: u64,
    /// Bytes to the client.
    pub out_bytes: u64,
    /// Since it began.
    pub age: Duration,
}

/// A connection, or a template of persistence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conn {
    /// IP protocol; 0 of a template for a mark.
    pub protocol: Protocol,
    /// The client; port 0 of a template.
    pub client: SocketAddr,
    /// Where the client's packets go to; of a template for a mark, the mark is the address.
    pub virt: SocketAddr,
    /// The real server.
    pub dest: SocketAddr,
    /// Flags and method.
    pub flags: ConnFlags,
    /// State, as C numbers those of the protocol.
    pub state: u8,
    /// The state's name, as in `/proc/net/ip_vs_conn`.
    pub state_name: String,
    /// How long it lives without another packet.
    pub expires: Duration,
    /// How long it lives after a packet.
    pub timeout: Duration,
    /// Mark of the packet that began it.
    pub fwmark: u32,
    /// The mark of its service, if that is one by mark.
    pub service_fwmark: Option<u32>,
    /// The port of its service, if that is not the one of `virt`.
    pub service_port: Option<u16>,
    /// Counters, if it has any.
    pub counters: Option<ConnCounters>,
}

impl Conn {
    /// The service that it is of.
    pub fn service(&self) -> ServiceId {
        match self.service_fwmark {
            Some(mark) => ServiceId::fwmark(AddressFamily::of(self.client.ip()), mark),
            None => {
                let port = self.service_port.unwrap_or(self.virt.port());
                ServiceId::address(self.protocol, SocketAddr::new(self.virt.ip(), port))
            }
        }
    }
}

impl TryFrom<&[ConnAttribute]> for Conn {
    type Error = DecodeError;

    fn try_from(attributes: &[ConnAttribute]) -> Result<Self, DecodeError> {
        use ConnAttribute as A;
        let mut protocol = None;
        let (mut client, mut virt, mut dest) = ((None, None), (None, None), (None, None));
        let (mut flags, mut state, mut name) = (None, None, None);
        let (mut expires, mut timeout) = (None, None);
        let (mut fwmark, mut service_fwmark, mut service_port) = (0, None, None);
        let mut counters = ConnCounters::default();
        let mut counts = false;
        for attribute in attributes {
            match attribute {
                A::Protocol(v) => protocol = Some(Protocol((*v).into())),
                A::ClientAddr(v) => client.0 = Some(*v),
                A::ClientPort(v) => client.1 = Some(*v),
                A::VirtAddr(v) => virt.0 = Some(*v),
                A::VirtPort(v) => virt.1 = Some(*v),
                A::DestAddr(v) => dest.0 = Some(*v),
                A::DestPort(v) => dest.1 = Some(*v),
                A::Flags(v) => flags = Some(ConnFlags(*v)),
                A::State(v) => state = Some(*v),
                A::StateName(v) => name = Some(v.clone()),
                A::Expires(v) => expires = Some(Duration::from_millis(*v)),
                A::Timeout(v) => timeout = Some(Duration::from_millis(*v)),
                A::Fwmark(v) => fwmark = *v,
                A::ServiceFwmark(v) => service_fwmark = Some(*v),
                A::ServicePort(v) => service_port = Some(*v),
                A::InPkts(v) => (counters.in_pkts, counts) = (*v, true),
                A::InBytes(v) => (counters.in_bytes, counts) = (*v, true),
                A::OutPkts(v) => (counters.out_pkts, counts) = (*v, true),
                A::OutBytes(v) => (counters.out_bytes, counts) = (*v, true),
                A::Age(v) => (counters.age, counts) = (Duration::from_millis(*v), true),
                A::Af(_) | A::ClientPrefix(_) | A::Other(_) => {}
            }
        }
        let addr = |(ip, port), what: &str| -> Result<SocketAddr, DecodeError> {
            Ok(SocketAddr::new(
                required(ip, &format!("connection attribute {what}Addr"))?,
                required(port, &format!("connection attribute {what}Port"))?,
            ))
        };
        Ok(Self {
            protocol: required(protocol, "connection attribute Protocol")?,
            client: addr(client, "Client")?,
            virt: addr(virt, "Virt")?,
            dest: addr(dest, "Dest")?,
            flags: required(flags, "connection attribute Flags")?,
            state: required(state, "connection attribute State")?,
            state_name: name.unwrap_or_default(),
            expires: required(expires, "connection attribute Expires")?,
            timeout: required(timeout, "connection attribute Timeout")?,
            fwmark,
            service_fwmark,
            service_port,
            counters: counts.then_some(counters),
        })
    }
}

/// Which connections a dump shall have: those that agree with everything that is given.
///
/// The kernel refuses what makes no sense, with a text: a state without a protocol, addresses of two families for
/// client and virtual address, a prefix without a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnFilter {
    /// Those whose real server is of this service.
    pub service: Option<ServiceId>,
    /// Address family of client and virtual address.
    pub family: Option<AddressFamily>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// How many bits of that count; all if missing.
    pub client_prefix: Option<u8>,
    /// The client's port.
    pub client_port: Option<u16>,
    /// The virtual address.
    pub virt: Option<IpAddr>,
    /// The virtual port.
    pub virt_port: Option<u16>,
    /// The real server's address.
    pub dest: Option<IpAddr>,
    /// The real server's port.
    pub dest_port: Option<u16>,
    /// State, as C numbers those of the protocol.
    pub state: Option<u8>,
}

impl ConnFilter {
    /// The members of the request's `CONN` nest.
    pub fn attributes(&self) -> Vec<ConnAttribute> {
        use ConnAttribute as A;
        [
            self.family.map(|v| A::Af(v.0)),
            self.protocol.map(A::Protocol),
            self.client.map(A::ClientAddr),
            self.client_port.map(A::ClientPort),
            self.virt.map(A::VirtAddr),
            self.virt_port.map(A::VirtPort),
            self.dest.map(A::DestAddr),
            self.dest_port.map(A::DestPort),
            self.state.map(A::State),
            self.client_prefix.map(A::ClientPrefix),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl crate::attribute::Codec<IpAddr> for crate::attribute::Network {
    fn len(value: &IpAddr) -> usize {
        match value {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 16,
        }
    }
    fn emit(value: &IpAddr, out: &mut [u8]) {
        match value {
            IpAddr::V4(v4) => crate::attribute::copy(out, &v4.octets()),
            IpAddr::V6(v6) => crate::attribute::copy(out, &v6.octets()),
        }
    }
    fn parse(bytes: &[u8]) -> Result<IpAddr, DecodeError> {
        if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
            return Ok(Ipv4Addr::from(v4).into());
        }
        match <[u8; 16]>::try_from(bytes) {
            Ok(v6) => Ok(Ipv6Addr::from(v6).into()),
            Err(_) => Err(format!("{} bytes where 4 or 16 are right", bytes.len()).into()),
        }
    }
}
