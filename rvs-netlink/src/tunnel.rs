// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the tunnels of a service have beyond C: source addresses by the flow, and segments that fit. Needs rvs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DecodeError;

use crate::attribute::{copy, Codec, Fixed, Network as Wire};
use crate::service::ServiceAttribute;

/// A network whose addresses are the sources of tunnels' packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sources<A> {
    /// The network's address.
    pub addr: A,
    /// Its prefix length; 0 stands for no network.
    pub prefix_len: u8,
}

impl<A> Sources<A> {
    /// A network.
    pub fn new(addr: A, prefix_len: u8) -> Self {
        Self { addr, prefix_len }
    }
}

macro_rules! sources {
    ($($addr:ty: $len:literal),*) => {$(
        impl Codec<Sources<$addr>> for Fixed {
            fn len(_: &Sources<$addr>) -> usize {
                $len + 4
            }
            fn emit(value: &Sources<$addr>, out: &mut [u8]) {
                out.fill(0);
                if let Some((addr, rest)) = out.split_at_mut_checked($len) {
                    <Wire as Codec<$addr>>::emit(&value.addr, addr);
                    copy(rest, &[value.prefix_len]);
                }
            }
            fn parse(bytes: &[u8]) -> Result<Sources<$addr>, DecodeError> {
                // What follows the prefix length is zeros today.
                match bytes.split_at_checked($len) {
                    Some((addr, &[prefix_len, _, _, _])) => {
                        Ok(Sources::new(<Wire as Codec<$addr>>::parse(addr)?, prefix_len))
                    }
                    _ => Err(format!("{} bytes where {} are right", bytes.len(), $len + 4).into()),
                }
            }
        }
    )*};
}
sources!(Ipv4Addr: 4, Ipv6Addr: 16);

/// What all tunnels (IPIP, GUE, GRE) of a service have beyond C.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunnelExtras {
    /// Sources of tunnels over IPv4; without, it is the one that the route has.
    pub sources_v4: Option<Sources<Ipv4Addr>>,
    /// Sources of tunnels over IPv6.
    pub sources_v6: Option<Sources<Ipv6Addr>>,
    /// The maximum segment size in TCP SYNs is lowered to what the tunnels carry.
    pub clamp_mss: bool,
}

impl TunnelExtras {
    /// The members of a request that makes it so; all of them, so nothing stays as it was.
    pub(crate) fn attributes(&self) -> [ServiceAttribute; 3] {
        let none4 = Sources::new(Ipv4Addr::UNSPECIFIED, 0);
        let none6 = Sources::new(Ipv6Addr::UNSPECIFIED, 0);
        [
            ServiceAttribute::TunSourcesV4(self.sources_v4.unwrap_or(none4)),
            ServiceAttribute::TunSourcesV6(self.sources_v6.unwrap_or(none6)),
            ServiceAttribute::TunMss(self.clamp_mss.into()),
        ]
    }

    /// What an answer says, if it says anything of it.
    pub(crate) fn of(attributes: &[ServiceAttribute]) -> Option<Self> {
        let mut found = None;
        for attribute in attributes {
            let mut now: Self = found.unwrap_or_default();
            match attribute {
                ServiceAttribute::TunSourcesV4(v) => {
                    now.sources_v4 = Some(*v).filter(|v| v.prefix_len != 0);
                }
                ServiceAttribute::TunSourcesV6(v) => {
                    now.sources_v6 = Some(*v).filter(|v| v.prefix_len != 0);
                }
                ServiceAttribute::TunMss(v) => now.clamp_mss = *v != 0,
                _ => continue,
            }
            found = Some(now);
        }
        found
    }

    /// Sets the sources of the address's family.
    pub fn set_sources(&mut self, addr: IpAddr, prefix_len: u8) {
        match addr {
            IpAddr::V4(v4) => self.sources_v4 = Some(Sources::new(v4, prefix_len)),
            IpAddr::V6(v6) => self.sources_v6 = Some(Sources::new(v6, prefix_len)),
        }
    }

    /// The sources that there are, as addresses and prefix lengths.
    pub fn sources(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v4 = self.sources_v4.map(|s| (s.addr.into(), s.prefix_len));
        let v6 = self.sources_v6.map(|s| (s.addr.into(), s.prefix_len));
        v4.into_iter().chain(v6)
    }
}
