// SPDX-License-Identifier: MIT OR Apache-2.0

//! Synchronisation daemons (`IPVS_DAEMON_ATTR_*`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::DecodeError;

use crate::attribute::required;

attributes! {
    /// A member of a `DAEMON` nest.
    pub enum DaemonAttribute: "daemon" {
        /// Master or backup.
        State(u32 as Native) = 1,
        /// Interface, at most 15 bytes.
        McastIfn(String as Text) = 2,
        /// Synchronisation identity.
        SyncId(u32 as Native) = 3,
        /// Longest datagram in bytes; 0 for what the interface's MTU allows.
        SyncMaxlen(u16 as Native) = 4,
        /// IPv4 multicast group.
        McastGroup(Ipv4Addr as Network) = 5,
        /// IPv6 multicast group.
        McastGroup6(Ipv6Addr as Network) = 6,
        /// UDP port. The machine's byte order, unlike other ports.
        McastPort(u16 as Native) = 7,
        /// Hops that the datagrams go.
        McastTtl(u8 as Native) = 8,
    }
}

/// What a daemon does (`IP_VS_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DaemonState(pub u32);

impl DaemonState {
    /// Sends connections.
    pub const MASTER: Self = Self(1);
    /// Receives connections.
    pub const BACKUP: Self = Self(2);
}

/// A synchronisation daemon. What is `None` is left to the kernel's default in requests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Daemon {
    /// Master or backup.
    pub state: DaemonState,
    /// Interface.
    pub interface: String,
    /// Synchronisation identity; 0 in a backup accepts all.
    pub sync_id: u32,
    /// Longest datagram in bytes.
    pub max_len: Option<u16>,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: Option<u16>,
    /// Hops.
    pub ttl: Option<u8>,
}

impl Daemon {
    /// A daemon with the kernel's defaults.
    pub fn new(state: DaemonState, interface: &str, sync_id: u32) -> Self {
        Self {
            state,
            interface: interface.to_owned(),
            sync_id,
            max_len: None,
            group: None,
            port: None,
            ttl: None,
        }
    }

    /// The members of a request that starts or stops the daemon.
    pub fn attributes(&self) -> Vec<DaemonAttribute> {
        let mut attributes = vec![
            DaemonAttribute::State(self.state.0),
            DaemonAttribute::McastIfn(self.interface.clone()),
            DaemonAttribute::SyncId(self.sync_id),
        ];
        attributes.extend(self.max_len.map(DaemonAttribute::SyncMaxlen));
        attributes.extend(self.group.map(|group| match group {
            IpAddr::V4(v4) => DaemonAttribute::McastGroup(v4),
            IpAddr::V6(v6) => DaemonAttribute::McastGroup6(v6),
        }));
        attributes.extend(self.port.map(DaemonAttribute::McastPort));
        attributes.extend(self.ttl.map(DaemonAttribute::McastTtl));
        attributes
    }
}

impl TryFrom<&[DaemonAttribute]> for Daemon {
    type Error = DecodeError;

    fn try_from(attributes: &[DaemonAttribute]) -> Result<Self, DecodeError> {
        let (mut state, mut interface, mut sync_id) = (None, None, None);
        let (mut max_len, mut group, mut port, mut ttl) = (None, None, None, None);
        for attribute in attributes {
            match attribute {
                DaemonAttribute::State(v) => state = Some(DaemonState(*v)),
                DaemonAttribute::McastIfn(v) => interface = Some(v.clone()),
                DaemonAttribute::SyncId(v) => sync_id = Some(*v),
                DaemonAttribute::SyncMaxlen(v) => max_len = Some(*v),
                DaemonAttribute::McastGroup(v) => group = Some(IpAddr::V4(*v)),
                DaemonAttribute::McastGroup6(v) => group = Some(IpAddr::V6(*v)),
                DaemonAttribute::McastPort(v) => port = Some(*v),
                DaemonAttribute::McastTtl(v) => ttl = Some(*v),
                DaemonAttribute::Other(_) => {}
            }
        }
        Ok(Self {
            state: required(state, "daemon attribute State")?,
            interface: required(interface, "daemon attribute McastIfn")?,
            sync_id: required(sync_id, "daemon attribute SyncId")?,
            max_len,
            group,
            port,
            ttl,
        })
    }
}
