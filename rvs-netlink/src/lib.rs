// SPDX-License-Identifier: MIT OR Apache-2.0

//! The generic netlink family `IPVS` of the Linux kernel: what configures its layer-4 load balancer, whether the
//! module behind it is `ip_vs` or `rvs`.
//!
//! The crate has three layers, each usable without the ones above it:
//!
//! - **Attributes and messages** as they are on the wire, on [`netlink_packet_core`] and [`netlink_packet_generic`]:
//!   [`Message`] with [`Attribute`], [`ServiceAttribute`], [`DestAttribute`], [`DaemonAttribute`], [`StatsAttribute`].
//!   Every attribute of the family is there; what the crate doesn't know is kept as [`Unknown`] and emitted again.
//! - **Objects**: [`Service`], [`Dest`], [`Daemon`], [`Timeouts`], [`Info`], made from attributes and turned into them.
//! - **A client** (feature `client`): [`client::Client`] asks, lists and changes, one request or a batch in
//!   a single system call, and turns extended acknowledgements into errors.
//!
//! rvs's own extensions are there too: connections and events ([`Conn`], [`ConnFilter`], [`Event`]), FullNAT ([`LocalAddress`],
//! [`FullNat`], [`ForwardMethod::FULLNAT`]) and what tunnels have beyond C ([`TunnelExtras`]). The client knows whether the module
//! that is loaded has them, and sends no request to one that would ignore part of it. With the feature `tokio` there is an
//! asynchronous client as well.
//!
//! Parsing checks every length and never panics. Emission through the `Emitable` trait can't fail by its
//! signature; what can't be represented (an attribute holds at most 65531 bytes) is left out there, while
//! [`Message::encode`] reports it.
//!
//! ```
//! use rvs_netlink::{Command, Message, Protocol, Service, ServiceId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // ipvsadm -A -t 192.0.2.1:80 -s wrr
//! let id = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse()?);
//! let request = Message::new_service(&Service::new(id, "wrr"));
//! assert_eq!(request.command, Command::NewService);
//!
//! // 7 is the number that the kernel gave to the family, 1 a sequence number.
//! let bytes = request.encode(7, 1, 0x5)?;
//! assert_eq!(bytes.len() % 4, 0);
//! assert_eq!(&bytes[4..6], &7u16.to_ne_bytes());
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

#[macro_use]
mod attribute;
#[cfg(feature = "client")]
pub mod client;
mod conn;
mod daemon;
mod dest;
mod event;
mod fullnat;
mod message;
mod service;
mod stats;
#[cfg(feature = "tokio")]
pub mod tokio;
mod tunnel;

pub use attribute::{Address, EncodeError, Unknown, MAX_VALUE_LEN};
pub use conn::{Conn, ConnAttribute, ConnCounters, ConnFilter, ConnFlags};
pub use daemon::{Daemon, DaemonAttribute, DaemonState};
pub use dest::{Dest, DestAttribute, ForwardMethod, TunnelType};
pub use event::{Change, Event, EventCounts, Gaps, Group, Subject};
pub use fullnat::{FullNat, FullNatStats, LocalAddress, LocalAttribute};
pub use message::{
    Attribute, Command, Info, InfoAttribute, Message, Timeouts, FAMILY_NAME, FAMILY_VERSION,
};
pub use service::{
    AddressFamily, Flags, Protocol, Service, ServiceAttribute, ServiceFlags, ServiceId,
};
pub use stats::{Stats, Stats64Attribute, StatsAttribute};
pub use tunnel::{Sources, TunnelExtras};

pub use netlink_packet_core::DecodeError;
