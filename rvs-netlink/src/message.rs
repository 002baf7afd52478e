// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages: a command and its attributes.

use netlink_packet_core::{
    DecodeError, Emitable, ErrorContext, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
    NlaBuffer, NlasIterator, ParseableParametrized,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

use crate::attribute::{emit_all, fitting, required, within, EncodeError, Table, Unknown};
use crate::conn::{Conn, ConnAttribute, ConnFilter};
use crate::daemon::{Daemon, DaemonAttribute};
use crate::dest::{Dest, DestAttribute, ForwardMethod};
use crate::event::{unknown_command, Change, Event, EventCounts, Subject};
use crate::fullnat::{LocalAddress, LocalAttribute};
use crate::service::{AddressFamily, Service, ServiceAttribute, ServiceId};

/// The name under which the kernel's controller knows the family.
pub const FAMILY_NAME: &str = "IPVS";
/// The family's version, in every message.
pub const FAMILY_VERSION: u8 = 1;

macro_rules! commands {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, )*) => {
        /// A command (`IPVS_CMD_*`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Command {
            $( $(#[$doc])* $name, )*
            /// A number that this crate has no name for.
            Other(u8),
        }

        impl From<Command> for u8 {
            fn from(command: Command) -> Self {
                match command {
                    $( Command::$name => $number, )*
                    Command::Other(number) => number,
                }
            }
        }

        impl From<u8> for Command {
            fn from(number: u8) -> Self {
                match number {
                    $( $number => Self::$name, )*
                    other => Self::Other(other),
                }
            }
        }
    };
}

commands! {
    /// Adds a service; also the command of answers that describe one.
    NewService = 1,
    /// Changes a service.
    SetService = 2,
    /// Removes a service and its destinations.
    DelService = 3,
    /// Describes one service, or all as a dump.
    GetService = 4,
    /// Adds a destination; also the command of answers that describe one.
    NewDest = 5,
    /// Changes a destination.
    SetDest = 6,
    /// Removes a destination.
    DelDest = 7,
    /// Dumps the destinations of a service; none for a service that isn't there.
    GetDest = 8,
    /// Starts a synchronisation daemon; also the command of answers that describe one.
    NewDaemon = 9,
    /// Stops a synchronisation daemon.
    DelDaemon = 10,
    /// Dumps the daemons.
    GetDaemon = 11,
    /// Sets timeouts; also the command of the answer to `GetConfig`.
    SetConfig = 12,
    /// Asks for the timeouts.
    GetConfig = 13,
    /// The command of the answer to `GetInfo`.
    SetInfo = 14,
    /// Asks for version and table size.
    GetInfo = 15,
    /// Zeroes the counters of one service, or of everything.
    Zero = 16,
    /// Removes all services.
    Flush = 17,
    /// Adds a local address to a service; also the command of answers that describe one. This command and those below need rvs.
    NewLaddr = 18,
    /// Removes a local address of a service; connections that have it go on.
    DelLaddr = 19,
    /// Dumps the local addresses of a service.
    GetLaddr = 20,
    /// Dumps connections.
    GetConn = 64,
    /// The command of answers that describe a connection.
    Conn = 65,
    /// Asks how many events there were.
    GetEvents = 66,
    /// The command of the answer to `GetEvents`.
    Events = 67,
    /// Announces what happened to a service.
    ServiceEvent = 68,
    /// Announces what happened to a destination.
    DestEvent = 69,
    /// Announces what happened to a connection.
    ConnEvent = 70,
}

attributes! {
    /// A top-level attribute of any message but the answer to `GetInfo`.
    pub enum Attribute: "message" {
        /// A service.
        Service(Vec<ServiceAttribute> as Nest) = 1,
        /// A destination.
        Dest(Vec<DestAttribute> as Nest) = 2,
        /// A synchronisation daemon.
        Daemon(Vec<DaemonAttribute> as Nest) = 3,
        /// Seconds that an idle established TCP connection stays.
        TimeoutTcp(u32 as Native) = 4,
        /// Seconds that a TCP connection stays after a FIN.
        TimeoutTcpFin(u32 as Native) = 5,
        /// Seconds that an idle UDP flow stays.
        TimeoutUdp(u32 as Native) = 6,
        /// A local address. This one and those below need rvs.
        Laddr(Vec<LocalAttribute> as Nest) = 7,
        /// A connection, or in a request what it must be like.
        Conn(Vec<ConnAttribute> as Nest) = 64,
        /// What happened: a [`Change`] as a number.
        Event(u8 as Native) = 65,
        /// The number of an event.
        Seq(u64 as Native) = 66,
        /// Events of connections that were lost before they were sent.
        Lost(u64 as Native) = 67,
        /// The last number of the group of services and destinations.
        ConfigSeq(u64 as Native) = 68,
        /// The last number of the group of connections.
        ConnSeq(u64 as Native) = 69,
    }
}

attributes! {
    /// A top-level attribute of the answer to `GetInfo`, whose numbers mean something else elsewhere.
    pub enum InfoAttribute: "info" {
        /// Version, as `0x010201` for 1.2.1.
        Version(u32 as Native) = 1,
        /// Buckets of the connection table.
        ConnTabSize(u32 as Native) = 2,
    }
}

/// Version and size of the kernel's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// Version, as `0x010201` for 1.2.1.
    pub version: u32,
    /// Buckets of the connection table; 0 before the first service.
    pub conn_tab_size: u32,
}

impl Info {
    /// The three parts of the version.
    pub fn version_parts(&self) -> [u8; 3] {
        let [_, major, minor, patch] = self.version.to_be_bytes();
        [major, minor, patch]
    }
}

/// Timeouts in seconds. In requests, 0 leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// An idle established TCP connection.
    pub tcp: u32,
    /// A TCP connection after a FIN.
    pub tcp_fin: u32,
    /// An idle UDP flow.
    pub udp: u32,
}

/// A message of the family. Implements what [`GenlMessage`] wants of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The command.
    pub command: Command,
    /// The attributes, of every command but `SetInfo`.
    pub attributes: Vec<Attribute>,
    /// The attributes of `SetInfo`.
    pub info: Vec<InfoAttribute>,
}

impl Message {
    /// A message with the given attributes.
    pub fn new(command: Command, attributes: Vec<Attribute>) -> Self {
        Self {
            command,
            attributes,
            info: Vec::new(),
        }
    }

    fn of_service(command: Command, attributes: Vec<ServiceAttribute>) -> Self {
        Self::new(command, vec![Attribute::Service(attributes)])
    }

    fn of_dest(command: Command, service: &ServiceId, dest: Vec<DestAttribute>) -> Self {
        Self::new(
            command,
            vec![
                Attribute::Service(service.attributes()),
                Attribute::Dest(dest),
            ],
        )
    }

    /// Adds a service.
    pub fn new_service(service: &Service) -> Self {
        Self::of_service(Command::NewService, service.attributes())
    }

    /// Changes a service.
    pub fn set_service(service: &Service) -> Self {
        Self::of_service(Command::SetService, service.attributes())
    }

    /// Removes a service.
    pub fn del_service(id: &ServiceId) -> Self {
        Self::of_service(Command::DelService, id.attributes())
    }

    /// Asks for one service.
    pub fn get_service(id: &ServiceId) -> Self {
        Self::of_service(Command::GetService, id.attributes())
    }

    /// Asks for all services; to be sent as a dump.
    pub fn get_services() -> Self {
        Self::new(Command::GetService, Vec::new())
    }

    /// Adds a destination.
    pub fn new_dest(service: &ServiceId, dest: &Dest) -> Self {
        Self::of_dest(Command::NewDest, service, dest.attributes())
    }

    /// Changes a destination.
    pub fn set_dest(service: &ServiceId, dest: &Dest) -> Self {
        Self::of_dest(Command::SetDest, service, dest.attributes())
    }

    /// Removes a destination.
    pub fn del_dest(service: &ServiceId, dest: std::net::SocketAddr) -> Self {
        Self::of_dest(Command::DelDest, service, Dest::id_attributes(dest))
    }

    /// Asks for the destinations of a service; to be sent as a dump.
    pub fn get_dests(service: &ServiceId) -> Self {
        Self::of_service(Command::GetDest, service.attributes())
    }

    /// Starts a daemon.
    pub fn new_daemon(daemon: &Daemon) -> Self {
        Self::new(
            Command::NewDaemon,
            vec![Attribute::Daemon(daemon.attributes())],
        )
    }

    /// Stops a daemon.
    pub fn del_daemon(daemon: &Daemon) -> Self {
        Self::new(
            Command::DelDaemon,
            vec![Attribute::Daemon(daemon.attributes())],
        )
    }

    /// Asks for the daemons; to be sent as a dump.
    pub fn get_daemons() -> Self {
        Self::new(Command::GetDaemon, Vec::new())
    }

    /// Sets timeouts.
    pub fn set_config(timeouts: &Timeouts) -> Self {
        Self::new(
            Command::SetConfig,
            vec![
                Attribute::TimeoutTcp(timeouts.tcp),
                Attribute::TimeoutTcpFin(timeouts.tcp_fin),
                Attribute::TimeoutUdp(timeouts.udp),
            ],
        )
    }

    /// Asks for the timeouts.
    pub fn get_config() -> Self {
        Self::new(Command::GetConfig, Vec::new())
    }

    /// Asks for version and table size.
    pub fn get_info() -> Self {
        Self::new(Command::GetInfo, Vec::new())
    }

    /// Zeroes the counters of a service, or of everything.
    pub fn zero(id: Option<&ServiceId>) -> Self {
        match id {
            Some(id) => Self::of_service(Command::Zero, id.attributes()),
            None => Self::new(Command::Zero, Vec::new()),
        }
    }

    /// Removes all services.
    pub fn flush() -> Self {
        Self::new(Command::Flush, Vec::new())
    }

    fn of_local(command: Command, service: &ServiceId, local: &LocalAddress) -> Self {
        Self::new(
            command,
            vec![
                Attribute::Service(service.attributes()),
                Attribute::Laddr(local.attributes()),
            ],
        )
    }

    /// Adds a local address, or a prefix of them, to a service. Needs rvs.
    pub fn new_local(service: &ServiceId, local: &LocalAddress) -> Self {
        Self::of_local(Command::NewLaddr, service, local)
    }

    /// Removes a local address, or a prefix of them, as it was added. Needs rvs.
    pub fn del_local(service: &ServiceId, local: &LocalAddress) -> Self {
        Self::of_local(Command::DelLaddr, service, local)
    }

    /// Asks for the local addresses of a service; to be sent as a dump. Needs rvs.
    pub fn get_locals(service: &ServiceId) -> Self {
        Self::of_service(Command::GetLaddr, service.attributes())
    }

    /// What a request asks for that only rvs knows, by the name that a client shows: the kernel's own module would ignore an
    /// attribute that it doesn't know, and do the rest. The clients of this crate refuse to send such a request to it.
    pub fn extension(&self) -> Option<&'static str> {
        match self.command {
            Command::NewLaddr | Command::DelLaddr | Command::GetLaddr => {
                return Some("local addresses (FullNAT)");
            }
            Command::NewService | Command::SetService => {}
            Command::NewDest | Command::SetDest => {
                let fullnat = |a: &DestAttribute| matches!(a, DestAttribute::FwdMethod(flags) if ForwardMethod::of_flags(*flags) == ForwardMethod::FULLNAT);
                let asked = self.attributes.iter().any(|a| match a {
                    Attribute::Dest(nest) => nest.iter().any(fullnat),
                    _ => false,
                });
                return asked.then_some("forwarding method FullNAT");
            }
            _ => return None,
        }
        self.attributes.iter().find_map(|a| match a {
            Attribute::Service(nest) => nest.iter().find_map(ServiceAttribute::extension),
            _ => None,
        })
    }

    /// The local address of an answer; `family` is its service's.
    pub fn local(&self, family: AddressFamily) -> Result<LocalAddress, DecodeError> {
        let nest = self.attributes.iter().find_map(|a| match a {
            Attribute::Laddr(nest) => Some(nest.as_slice()),
            _ => None,
        });
        LocalAddress::from_attributes(required(nest, "message attribute Laddr")?, family)
    }

    /// Asks for connections; to be sent as a dump. Needs rvs.
    pub fn get_conns(filter: &ConnFilter) -> Self {
        let mut attributes = Vec::new();
        if let Some(service) = &filter.service {
            attributes.push(Attribute::Service(service.attributes()));
        }
        let conn = filter.attributes();
        if !conn.is_empty() {
            attributes.push(Attribute::Conn(conn));
        }
        Self::new(Command::GetConn, attributes)
    }

    /// Asks how many events there were. Needs rvs.
    pub fn get_events() -> Self {
        Self::new(Command::GetEvents, Vec::new())
    }

    /// The connection of an answer.
    pub fn conn(&self) -> Result<Conn, DecodeError> {
        let nest = self.attributes.iter().find_map(|a| match a {
            Attribute::Conn(nest) => Some(nest.as_slice()),
            _ => None,
        });
        Conn::try_from(required(nest, "message attribute Conn")?)
    }

    /// The number in one of the 64-bit attributes.
    fn number(
        &self,
        of: impl Fn(&Attribute) -> Option<u64>,
        what: &str,
    ) -> Result<u64, DecodeError> {
        required(self.attributes.iter().find_map(of), what)
    }

    fn lost(&self) -> Option<u64> {
        self.attributes.iter().find_map(|a| match a {
            Attribute::Lost(v) => Some(*v),
            _ => None,
        })
    }

    /// How many events there were, of the answer to [`Message::get_events`].
    pub fn event_counts(&self) -> Result<EventCounts, DecodeError> {
        let config = |a: &Attribute| match a {
            Attribute::ConfigSeq(v) => Some(*v),
            _ => None,
        };
        let conns = |a: &Attribute| match a {
            Attribute::ConnSeq(v) => Some(*v),
            _ => None,
        };
        Ok(EventCounts {
            config: self.number(config, "message attribute ConfigSeq")?,
            conns: self.number(conns, "message attribute ConnSeq")?,
            lost: self.lost().unwrap_or_default(),
        })
    }

    /// Whether this is an announcement that [`Message::event`] can read.
    pub fn announces(&self) -> bool {
        matches!(
            self.command,
            Command::ServiceEvent | Command::DestEvent | Command::ConnEvent
        )
    }

    /// What an announcement says.
    pub fn event(&self) -> Result<Event, DecodeError> {
        let change = self.attributes.iter().find_map(|a| match a {
            Attribute::Event(v) => Some(Change::from(*v)),
            _ => None,
        });
        let sequence = |a: &Attribute| match a {
            Attribute::Seq(v) => Some(*v),
            _ => None,
        };
        Ok(Event {
            subject: match self.command {
                Command::ServiceEvent => Subject::Service(self.service()?),
                Command::DestEvent => {
                    let id = self.service_id()?;
                    Subject::Dest(id, self.dest(id.family())?)
                }
                Command::ConnEvent => Subject::Conn(self.conn()?),
                other => return Err(unknown_command(other.into())),
            },
            change: required(change, "message attribute Event")?,
            sequence: self.number(sequence, "message attribute Seq")?,
            lost: self.lost().unwrap_or_default(),
        })
    }

    /// What identifies the service of an answer.
    pub fn service_id(&self) -> Result<ServiceId, DecodeError> {
        let nest = self.attributes.iter().find_map(|a| match a {
            Attribute::Service(nest) => Some(nest.as_slice()),
            _ => None,
        });
        ServiceId::try_from(required(nest, "message attribute Service")?)
    }

    /// The service of an answer.
    pub fn service(&self) -> Result<Service, DecodeError> {
        let nest = self.attributes.iter().find_map(|a| match a {
            Attribute::Service(nest) => Some(nest.as_slice()),
            _ => None,
        });
        Service::try_from(required(nest, "message attribute Service")?)
    }

    /// The destination of an answer; `family` is its service's.
    pub fn dest(&self, family: AddressFamily) -> Result<Dest, DecodeError> {
        let nest = self.attributes.iter().find_map(|a| match a {
            Attribute::Dest(nest) => Some(nest.as_slice()),
            _ => None,
        });
        Dest::from_attributes(required(nest, "message attribute Dest")?, family)
    }

    /// The daemon of an answer.
    pub fn daemon(&self) -> Result<Daemon, DecodeError> {
        let nest = self.attributes.iter().find_map(|a| match a {
            Attribute::Daemon(nest) => Some(nest.as_slice()),
            _ => None,
        });
        Daemon::try_from(required(nest, "message attribute Daemon")?)
    }

    /// The timeouts of an answer.
    pub fn timeouts(&self) -> Result<Timeouts, DecodeError> {
        let (mut tcp, mut tcp_fin, mut udp) = (None, None, None);
        for attribute in &self.attributes {
            match attribute {
                Attribute::TimeoutTcp(v) => tcp = Some(*v),
                Attribute::TimeoutTcpFin(v) => tcp_fin = Some(*v),
                Attribute::TimeoutUdp(v) => udp = Some(*v),
                _ => {}
            }
        }
        Ok(Timeouts {
            tcp: required(tcp, "message attribute TimeoutTcp")?,
            tcp_fin: required(tcp_fin, "message attribute TimeoutTcpFin")?,
            udp: required(udp, "message attribute TimeoutUdp")?,
        })
    }

    /// Version and size of an answer.
    pub fn info(&self) -> Result<Info, DecodeError> {
        let (mut version, mut size) = (None, None);
        for attribute in &self.info {
            match attribute {
                InfoAttribute::Version(v) => version = Some(*v),
                InfoAttribute::ConnTabSize(v) => size = Some(*v),
                InfoAttribute::Other(_) => {}
            }
        }
        Ok(Info {
            version: required(version, "info attribute Version")?,
            conn_tab_size: required(size, "info attribute ConnTabSize")?,
        })
    }

    /// Reports what can't be written, which emission would leave out.
    pub fn check(&self) -> Result<(), EncodeError> {
        self.attributes.iter().try_for_each(Table::check)?;
        self.info.iter().try_for_each(Table::check)
    }

    /// The bytes of a whole netlink message: header, generic netlink header, attributes. `family` is the number
    /// that the kernel's controller gave, `flags` those of the header (`NLM_F_REQUEST` and others).
    pub fn encode(&self, family: u16, sequence: u32, flags: u16) -> Result<Vec<u8>, EncodeError> {
        self.check()?;
        let mut header = NetlinkHeader::default();
        header.sequence_number = sequence;
        header.flags = flags;
        let mut genl = GenlMessage::from_payload(self.clone());
        genl.set_resolved_family_id(family);
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(genl));
        if u32::try_from(message.buffer_len()).is_err() {
            return Err(EncodeError::MessageTooLong);
        }
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        Ok(bytes)
    }

    /// Reads the payload of a generic netlink message: what follows its header.
    pub fn decode(command: Command, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut message = Self::new(command, Vec::new());
        for nla in NlasIterator::new(bytes) {
            let nla: NlaBuffer<&[u8]> = within(nla, "message of family IPVS")?;
            if command == Command::SetInfo {
                message
                    .info
                    .push(InfoAttribute::read(&nla).context("answer to GetInfo")?);
            } else {
                message
                    .attributes
                    .push(Attribute::read(&nla).context("message of family IPVS")?);
            }
        }
        Ok(message)
    }

    /// Attributes that no version of this crate knew when it was made.
    pub fn unknown(&self) -> impl Iterator<Item = &Unknown> {
        self.attributes.iter().filter_map(|a| match a {
            Attribute::Other(other) => Some(other),
            _ => None,
        })
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command.into()
    }

    fn version(&self) -> u8 {
        FAMILY_VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        fitting(&self.attributes, usize::MAX).saturating_add(fitting(&self.info, usize::MAX))
    }

    fn emit(&self, buffer: &mut [u8]) {
        let middle = fitting(&self.attributes, usize::MAX).min(buffer.len());
        let (attributes, info) = buffer.split_at_mut(middle);
        emit_all(&self.attributes, attributes);
        emit_all(&self.info, info);
        if self.command == Command::GetConn {
            mark_nests(&self.attributes, attributes);
        }
    }
}

/// Sets the flag of nests, which rvs's own requests must have and those of C don't.
fn mark_nests(attributes: &[Attribute], out: &mut [u8]) {
    const NESTED: u16 = 0x8000;
    let mut at = 0usize;
    for attribute in attributes {
        if matches!(attribute, Attribute::Service(_) | Attribute::Conn(_)) {
            let kind = (attribute.kind() | NESTED).to_ne_bytes();
            for (byte, flagged) in out.iter_mut().skip(at.saturating_add(2)).zip(kind) {
                *byte = flagged;
            }
        }
        at = at.saturating_add(attribute.buffer_len());
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Self::decode(header.cmd.into(), bytes)
    }
}
