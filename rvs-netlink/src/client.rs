// SPDX-License-Identifier: MIT OR Apache-2.0

//! A blocking client (feature `client`).
//!
//! ```no_run
//! use rvs_netlink::client::Client;
//! use rvs_netlink::{Dest, ForwardMethod, Protocol, Service, ServiceId};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = Client::open()?;
//! let web = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse()?);
//! client.add_service(&Service::new(web, "wlc"))?;
//! client.add_dest(&web, &Dest::new("10.0.0.1:8080".parse()?, ForwardMethod::MASQ))?;
//! for service in client.services()? {
//!     println!("{} {}", service.id, service.scheduler);
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr as InetAddr;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{
    DecodeError, NetlinkMessage, NetlinkPayload, NlasIterator, NLM_F_ACK, NLM_F_ACK_TLVS,
    NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
};
use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, McastGrpAttrs, OpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::GenlMessage;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use crate::attribute::EncodeError;
use crate::{
    Command, Conn, ConnFilter, Daemon, Dest, Event, EventCounts, Gaps, Group, Info, LocalAddress,
    Message, Service, ServiceId, Timeouts, FAMILY_NAME,
};

/// A refusal by the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelError {
    /// The errno, positive.
    pub errno: i32,
    /// The text of the extended acknowledgement. `rvs` always gives one, `ip_vs` hardly ever.
    pub text: Option<String>,
    /// Where in the request the attribute is that the kernel complains of, in bytes.
    pub offset: Option<u32>,
}

impl KernelError {
    fn new(errno: i32, tlvs: &[u8]) -> Self {
        // NLMSGERR_ATTR_MSG and NLMSGERR_ATTR_OFFS. A malformed addition must not hide the errno.
        let (mut text, mut offset) = (None, None);
        for nla in NlasIterator::new(tlvs).flatten() {
            match (nla.kind(), nla.value()) {
                (1, value) => {
                    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
                    let value = value.get(..end).unwrap_or_default();
                    text = Some(String::from_utf8_lossy(value).into_owned());
                }
                (2, &[a, b, c, d]) => offset = Some(u32::from_ne_bytes([a, b, c, d])),
                _ => {}
            }
        }
        Self {
            errno,
            text,
            offset,
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => write!(f, "{text}")?,
            None => f.write_str("the kernel refused")?,
        }
        write!(f, " ({})", io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for KernelError {}

/// What can go wrong between here and the kernel.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    Io(io::Error),
    /// The kernel has no family `IPVS`: no module is loaded that offers it.
    NoFamily,
    /// The kernel refused the request.
    Kernel(KernelError),
    /// The kernel's answer made no sense.
    Decode(DecodeError),
    /// The request can't be written.
    Encode(EncodeError),
    /// The table changed while it was dumped, so that entries may be missing; asking again may help.
    Interrupted,
    /// There was no answer where one had to be.
    NoAnswer,
    /// The module that is loaded doesn't have this part of rvs's extensions. Nothing was sent.
    NoExtension(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => write!(f, "netlink: {e}"),
            Self::NoFamily => {
                f.write_str("the kernel has no IPVS: neither rvs nor ip_vs is loaded")
            }
            Self::Kernel(e) => e.fmt(f),
            Self::Decode(e) => write!(f, "an answer that can't be read: {e}"),
            Self::Encode(e) => write!(f, "a request that can't be sent: {e}"),
            Self::Interrupted => f.write_str("the table changed while it was being listed"),
            Self::NoAnswer => f.write_str("the kernel answered nothing"),
            Self::NoExtension(what) => write!(f, "the module that is loaded has no {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(e) => Some(e),
            Self::Kernel(e) => Some(e),
            Self::Decode(e) => Some(e),
            Self::Encode(e) => Some(e),
            Self::NoFamily | Self::Interrupted | Self::NoAnswer | Self::NoExtension(_) => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<DecodeError> for Error {
    fn from(e: DecodeError) -> Self {
        Self::Decode(e)
    }
}

impl From<EncodeError> for Error {
    fn from(e: EncodeError) -> Self {
        Self::Encode(e)
    }
}

/// The largest datagram that the kernel builds for a dump is 32 KiB.
pub(crate) const RECEIVE: usize = 64 * 1024;
/// The receive buffer of a listener.
pub(crate) const RECEIVE_EVENTS: i32 = 4 * 1024 * 1024;
/// Requests in one system call. Each that is refused is answered, and all answers must fit into the socket's
/// receive buffer, of which each takes about a kilobyte.
const BATCH: usize = 128;
/// Bytes in one system call, below the default send buffer.
const BATCH_BYTES: usize = 96 * 1024;

/// What the kernel's controller says of the family.
#[derive(Debug, Clone, Default)]
pub(crate) struct Family {
    /// The number that messages carry.
    pub(crate) id: u16,
    commands: Vec<Command>,
    /// Multicast groups by name.
    groups: Vec<(String, u32)>,
}

impl Family {
    /// Adds what one message of the answer says.
    pub(crate) fn learn(&mut self, attributes: &[GenlCtrlAttrs]) {
        for attribute in attributes {
            match attribute {
                GenlCtrlAttrs::FamilyId(id) => self.id = *id,
                GenlCtrlAttrs::Ops(ops) => {
                    let numbers = ops.iter().flatten().filter_map(|a| match a {
                        OpAttrs::Id(id) => u8::try_from(*id).ok(),
                        OpAttrs::Flags(_) => None,
                    });
                    self.commands.extend(numbers.map(Command::from));
                }
                GenlCtrlAttrs::McastGroups(groups) => {
                    for group in groups {
                        let (mut name, mut number) = (None, None);
                        for attribute in group {
                            match attribute {
                                McastGrpAttrs::Name(v) => name = Some(v.clone()),
                                McastGrpAttrs::Id(v) => number = Some(*v),
                            }
                        }
                        self.groups.extend(name.zip(number));
                    }
                }
                _ => {}
            }
        }
    }

    pub(crate) fn offers(&self, command: Command) -> bool {
        self.commands.contains(&command)
    }

    /// Whether the module understands all of a request. One that doesn't know an attribute ignores it and does the rest.
    pub(crate) fn understands(&self, message: &Message) -> Result<(), Error> {
        match message.extension() {
            // There is no module that has FullNAT and not the others.
            Some(what) if !self.offers(Command::NewLaddr) => Err(Error::NoExtension(what)),
            _ => Ok(()),
        }
    }

    pub(crate) fn group(&self, group: Group) -> Result<u32, Error> {
        let found = self.groups.iter().find(|(name, _)| name == group.name());
        found
            .map(|(_, number)| *number)
            .ok_or(Error::NoExtension(group.name()))
    }
}

/// The request that asks the controller for the family.
pub(crate) fn family_request(sequence: u32) -> Vec<u8> {
    let mut message = NetlinkMessage::from(GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY_NAME.to_owned())],
    }));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    message.header.sequence_number = sequence;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// What came of that request.
pub(crate) fn family_found(end: Result<(), KernelError>, family: Family) -> Result<Family, Error> {
    match end {
        Ok(()) if family.id != 0 => Ok(family),
        Ok(()) => Err(Error::NoAnswer),
        // ENOENT
        Err(e) if e.errno == 2 => Err(Error::NoFamily),
        Err(e) => Err(Error::Kernel(e)),
    }
}

/// A socket of family `IPVS` in the network namespace of the thread that opened it.
pub struct Client {
    socket: Socket,
    family: Family,
    sequence: u32,
    buffer: Vec<u8>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("family", &self.family.id)
            .finish_non_exhaustive()
    }
}

/// One message of an answer.
pub(crate) enum Item<T> {
    /// Of the family; whether it belongs to a dump during which the table has changed.
    Message(T, bool),
    /// The end of a dump, an acknowledgement, or a refusal.
    End(Result<(), KernelError>),
    /// The end of a dump during which the table has changed.
    Torn,
}

/// Gives the messages of a datagram to `each`, with their sequence numbers; whether it said of one of them that it is the last.
pub(crate) fn items<T>(
    datagram: &[u8],
    mut each: impl FnMut(u32, Item<T>) -> Result<bool, Error>,
) -> Result<bool, Error>
where
    T: netlink_packet_core::NetlinkDeserializable,
{
    let mut rest = datagram;
    let mut last = false;
    while !rest.is_empty() {
        let message = NetlinkMessage::<T>::deserialize(rest)?;
        let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
        rest = len
            .checked_next_multiple_of(4)
            .and_then(|len| rest.get(len..))
            .unwrap_or_default();
        let (header, payload) = message.into_parts();
        let torn = header.flags & NLM_F_DUMP_INTR != 0;
        let item = match payload {
            NetlinkPayload::InnerMessage(inner) => Item::Message(inner, torn),
            NetlinkPayload::Error(e) => Item::End(match e.code {
                None => Ok(()),
                Some(code) => {
                    let tlvs = if header.flags & NLM_F_ACK_TLVS != 0 {
                        after_request(&e.header, header.flags & NLM_F_CAPPED != 0)
                    } else {
                        &[]
                    };
                    Err(KernelError::new(code.get().saturating_neg(), tlvs))
                }
            }),
            NetlinkPayload::Done(done) => match done.code {
                0 if torn => Item::Torn,
                0 => Item::End(Ok(())),
                code => Item::End(Err(KernelError::new(
                    code.saturating_neg(),
                    &done.extended_ack,
                ))),
            },
            // Nothing else has a meaning here.
            _ => continue,
        };
        last |= each(header.sequence_number, item)?;
    }
    Ok(last)
}

impl Client {
    /// Opens a socket and asks the kernel for the family's number, upon which it may load the module.
    ///
    /// [`Error::NoFamily`] if there is none.
    pub fn open() -> Result<Self, Error> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Kernels before 4.12 don't know these; nothing depends on them.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let mut client = Self {
            socket,
            family: Family::default(),
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE),
        };
        client.family = client.resolve()?;
        Ok(client)
    }

    /// The number that the kernel gave to the family.
    pub fn family(&self) -> u16 {
        self.family.id
    }

    /// Whether the module has a command: those from [`Command::NewLaddr`] on need rvs.
    pub fn offers(&self, command: Command) -> bool {
        self.family.offers(command)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn resolve(&mut self) -> Result<Family, Error> {
        let sequence = self.next();
        self.send(&family_request(sequence))?;
        let mut family = Family::default();
        let end = self.receive::<GenlMessage<GenlCtrl>>(sequence, |answer| {
            family.learn(&answer.payload.nlas);
            Ok(())
        })?;
        family_found(end, family)
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.socket.send(bytes, 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }

    /// Reads one datagram and gives its messages to `each`, with their sequence numbers; whether `each` said of one of
    /// them that it is the last.
    fn datagram<T>(
        &mut self,
        each: impl FnMut(u32, Item<T>) -> Result<bool, Error>,
    ) -> Result<bool, Error>
    where
        T: netlink_packet_core::NetlinkDeserializable,
    {
        self.buffer.clear();
        while let Err(e) = self.socket.recv(&mut self.buffer, 0) {
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e.into());
            }
        }
        items(&self.buffer, each)
    }

    /// Reads datagrams until `each` says that it has seen the last message.
    fn read<T>(
        &mut self,
        mut each: impl FnMut(u32, Item<T>) -> Result<bool, Error>,
    ) -> Result<(), Error>
    where
        T: netlink_packet_core::NetlinkDeserializable,
    {
        while !self.datagram(&mut each)? {}
        Ok(())
    }

    /// Reads the answer to one request.
    fn receive<T>(
        &mut self,
        sequence: u32,
        mut each: impl FnMut(T) -> Result<(), Error>,
    ) -> Result<Result<(), KernelError>, Error>
    where
        T: netlink_packet_core::NetlinkDeserializable,
    {
        let mut end = Ok(());
        self.read::<T>(|of, item| {
            // Anything else belongs to a dump that was given up.
            if of == sequence {
                match item {
                    // What was dumped so far may not have everything.
                    Item::Message(_, true) | Item::Torn => return Err(Error::Interrupted),
                    Item::Message(message, false) => each(message)?,
                    Item::End(result) => {
                        end = result;
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })?;
        Ok(end)
    }

    /// Sends a request, gives each message of the answer to `each`, and waits for the end.
    fn exchange(
        &mut self,
        message: &Message,
        flags: u16,
        mut each: impl FnMut(Message) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.family.understands(message)?;
        let sequence = self.next();
        let bytes = message.encode(self.family.id, sequence, NLM_F_REQUEST | flags)?;
        self.send(&bytes)?;
        self.receive::<GenlMessage<Message>>(sequence, |answer| each(answer.payload))?
            .map_err(Error::Kernel)
    }

    /// Sends a request that changes something, and waits until it is done.
    pub fn request(&mut self, message: &Message) -> Result<(), Error> {
        self.exchange(message, NLM_F_ACK, |_| Ok(()))
    }

    /// Sends a request that asks for one thing.
    pub fn get(&mut self, message: &Message) -> Result<Message, Error> {
        let mut answer = None;
        self.exchange(message, NLM_F_ACK, |message| {
            answer.get_or_insert(message);
            Ok(())
        })?;
        answer.ok_or(Error::NoAnswer)
    }

    /// Asks for a list; `each` gets the entries as they come.
    pub fn dump(
        &mut self,
        message: &Message,
        each: impl FnMut(Message) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.exchange(message, NLM_F_DUMP, each)
    }

    /// Sends many requests in as few system calls as possible. They are carried out in order, each whether or not those
    /// before it were refused. Returns the refusals with the index of their request, in that order.
    ///
    /// An error means that it is unknown how many were carried out, except [`Error::Encode`] and [`Error::NoExtension`], before which
    /// nothing was sent.
    pub fn batch(&mut self, messages: &[Message]) -> Result<Vec<(usize, KernelError)>, Error> {
        for message in messages {
            message.check()?;
            self.family.understands(message)?;
        }
        let mut refused = Vec::new();
        let mut done = 0;
        while done < messages.len() {
            // Only the last one asks for an acknowledgement: a refusal is answered in any case.
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut last = 0;
            let mut count = 0;
            for message in messages.iter().skip(done).take(BATCH) {
                let sequence = self.next();
                let one = message.encode(self.family.id, sequence, NLM_F_REQUEST)?;
                if count > 0 && bytes.len().saturating_add(one.len()) > BATCH_BYTES {
                    self.sequence = sequence.wrapping_sub(1);
                    break;
                }
                last = bytes.len();
                bytes.extend(one);
                count += 1;
            }
            let flags = (NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes();
            for (byte, flag) in bytes.iter_mut().skip(last.saturating_add(6)).zip(flags) {
                *byte = flag;
            }
            self.send(&bytes)?;
            let end = self.sequence;
            self.read::<GenlMessage<Message>>(|of, item| {
                if let Item::End(result) = item {
                    let index = usize::try_from(of.wrapping_sub(first)).unwrap_or(usize::MAX);
                    if let (Err(e), true) = (result, index < count) {
                        refused.push((done + index, e));
                    }
                    return Ok(of == end);
                }
                Ok(false)
            })?;
            done += count;
        }
        Ok(refused)
    }

    /// All services, in the kernel's order.
    pub fn services(&mut self) -> Result<Vec<Service>, Error> {
        let mut services = Vec::new();
        self.dump(&Message::get_services(), |message| {
            services.push(message.service()?);
            Ok(())
        })?;
        Ok(services)
    }

    /// One service. The kernel answers ESRCH if it isn't there.
    pub fn service(&mut self, id: &ServiceId) -> Result<Service, Error> {
        Ok(self.get(&Message::get_service(id))?.service()?)
    }

    /// The destinations of a service, in the kernel's order; none if the service isn't there.
    pub fn dests(&mut self, id: &ServiceId) -> Result<Vec<Dest>, Error> {
        let mut dests = Vec::new();
        self.dump(&Message::get_dests(id), |message| {
            dests.push(message.dest(id.family())?);
            Ok(())
        })?;
        Ok(dests)
    }

    /// Adds a service.
    pub fn add_service(&mut self, service: &Service) -> Result<(), Error> {
        self.request(&Message::new_service(service))
    }

    /// Changes a service.
    pub fn set_service(&mut self, service: &Service) -> Result<(), Error> {
        self.request(&Message::set_service(service))
    }

    /// Removes a service with its destinations.
    pub fn del_service(&mut self, id: &ServiceId) -> Result<(), Error> {
        self.request(&Message::del_service(id))
    }

    /// Adds a destination.
    pub fn add_dest(&mut self, id: &ServiceId, dest: &Dest) -> Result<(), Error> {
        self.request(&Message::new_dest(id, dest))
    }

    /// Changes a destination.
    pub fn set_dest(&mut self, id: &ServiceId, dest: &Dest) -> Result<(), Error> {
        self.request(&Message::set_dest(id, dest))
    }

    /// Removes a destination; its connections go on.
    pub fn del_dest(&mut self, id: &ServiceId, dest: InetAddr) -> Result<(), Error> {
        self.request(&Message::del_dest(id, dest))
    }

    /// The local addresses of a service, each by itself; none if the service isn't there. Needs rvs.
    pub fn locals(&mut self, id: &ServiceId) -> Result<Vec<LocalAddress>, Error> {
        let mut locals = Vec::new();
        self.dump(&Message::get_locals(id), |message| {
            locals.push(message.local(id.family())?);
            Ok(())
        })?;
        Ok(locals)
    }

    /// Adds a local address, or a prefix of them, to a service, whose NAT destinations are FullNAT from then on. Needs rvs.
    pub fn add_local(&mut self, id: &ServiceId, local: &LocalAddress) -> Result<(), Error> {
        self.request(&Message::new_local(id, local))
    }

    /// Removes a local address, or a prefix of them, as it was added; connections that have it go on. Needs rvs.
    pub fn del_local(&mut self, id: &ServiceId, local: &LocalAddress) -> Result<(), Error> {
        self.request(&Message::del_local(id, local))
    }

    /// Removes all services.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.request(&Message::flush())
    }

    /// Zeroes the counters of a service, or of everything.
    pub fn zero(&mut self, id: Option<&ServiceId>) -> Result<(), Error> {
        self.request(&Message::zero(id))
    }

    /// The timeouts.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        Ok(self.get(&Message::get_config())?.timeouts()?)
    }

    /// Sets timeouts; those that are 0 stay.
    pub fn set_timeouts(&mut self, timeouts: &Timeouts) -> Result<(), Error> {
        self.request(&Message::set_config(timeouts))
    }

    /// Version and table size.
    pub fn info(&mut self) -> Result<Info, Error> {
        Ok(self.get(&Message::get_info())?.info()?)
    }

    /// The synchronisation daemons that run, the master first.
    pub fn daemons(&mut self) -> Result<Vec<Daemon>, Error> {
        let mut daemons = Vec::new();
        self.dump(&Message::get_daemons(), |message| {
            if message.command == Command::NewDaemon {
                daemons.push(message.daemon()?);
            }
            Ok(())
        })?;
        Ok(daemons)
    }

    /// How many events there were; needs rvs.
    pub fn event_counts(&mut self) -> Result<EventCounts, Error> {
        if !self.offers(Command::GetEvents) {
            return Err(Error::NoExtension("command GET_EVENTS"));
        }
        Ok(self.get(&Message::get_events())?.event_counts()?)
    }

    /// The connections that a filter lets through, as they come: no more than one datagram of them is kept. Needs rvs.
    ///
    /// Takes the client along, because a dump that is given up half-way occupies its socket.
    pub fn conns(mut self, filter: &ConnFilter) -> Result<Conns, Error> {
        if !self.offers(Command::GetConn) {
            return Err(Error::NoExtension("command GET_CONN"));
        }
        let sequence = self.next();
        let message = Message::get_conns(filter);
        self.send(&message.encode(self.family.id, sequence, NLM_F_REQUEST | NLM_F_DUMP)?)?;
        Ok(Conns {
            client: self,
            sequence,
            waiting: VecDeque::new(),
            over: false,
        })
    }

    /// What happens from now on, in some groups; needs rvs.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), rvs_netlink::client::Error> {
    /// use rvs_netlink::{client::Client, Group};
    ///
    /// for event in Client::open()?.events(&[Group::Config])? {
    ///     let (event, missed) = event?;
    ///     if missed > 0 {
    ///         println!("{missed} events are missing here");
    ///     }
    ///     println!("{:?} {:?}", event.change, event.subject);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(self, groups: &[Group]) -> Result<Events, Error> {
        for group in groups {
            let number = self.family.group(*group)?;
            // They come in bursts; the system's limit holds.
            let _ = self.socket.set_rx_buf_sz(RECEIVE_EVENTS);
            self.socket.add_membership(number)?;
        }
        Ok(Events {
            client: self,
            waiting: VecDeque::new(),
            gaps: Gaps::default(),
        })
    }

    /// Starts a synchronisation daemon.
    pub fn start_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        self.request(&Message::new_daemon(daemon))
    }

    /// Stops a synchronisation daemon.
    pub fn stop_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        self.request(&Message::del_daemon(daemon))
    }
}

/// The connections of a dump; see [`Client::conns`].
#[derive(Debug)]
pub struct Conns {
    client: Client,
    sequence: u32,
    waiting: VecDeque<Conn>,
    over: bool,
}

impl Conns {
    fn fill(&mut self) -> Result<(), Error> {
        let (sequence, waiting) = (self.sequence, &mut self.waiting);
        self.over = self
            .client
            .datagram::<GenlMessage<Message>>(|of, item| match item {
                _ if of != sequence => Ok(false),
                // A connection that was there all the time is in the dump even so.
                Item::Message(message, _) => {
                    waiting.push_back(message.payload.conn()?);
                    Ok(false)
                }
                Item::End(Err(e)) => Err(Error::Kernel(e)),
                Item::End(Ok(())) | Item::Torn => Ok(true),
            })?;
        Ok(())
    }
}

impl Iterator for Conns {
    type Item = Result<Conn, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.waiting.is_empty() && !self.over {
            if let Err(e) = self.fill() {
                self.over = true;
                return Some(Err(e));
            }
        }
        self.waiting.pop_front().map(Ok)
    }
}

/// The socket was full, and something was lost.
pub(crate) const ENOBUFS: i32 = 105;

/// Puts an announcement into the queue. A later module may announce other things too.
pub(crate) fn take_event(
    item: Item<GenlMessage<Message>>,
    waiting: &mut VecDeque<Event>,
) -> Result<bool, Error> {
    match item {
        Item::Message(message, _) if message.payload.announces() => {
            waiting.push_back(message.payload.event()?);
        }
        _ => {}
    }
    Ok(false)
}

/// Announcements, without end; see [`Client::events`].
///
/// Each comes with the number of those of its group that were missed just before it. An error of the socket is given once and
/// doesn't end it.
#[derive(Debug)]
pub struct Events {
    client: Client,
    waiting: VecDeque<Event>,
    gaps: Gaps,
}

impl Events {
    /// Whether [`Iterator::next`] waits for events (as at first), or gives an error of kind `WouldBlock` if there are none.
    pub fn set_blocking(&self, blocking: bool) -> Result<(), Error> {
        Ok(self.client.socket.set_non_blocking(!blocking)?)
    }

    /// Has this listener missed what happened after these counts and before its first event? From now on, it tells.
    pub fn since(&mut self, counts: &EventCounts) {
        self.gaps = Gaps::since(counts);
    }

    fn fill(&mut self) -> Result<(), Error> {
        let waiting = &mut self.waiting;
        let read = self
            .client
            .datagram::<GenlMessage<Message>>(|_, item| take_event(item, waiting));
        match read {
            // The socket was full. What was missed, the next event's number tells.
            Err(Error::Io(e)) if e.raw_os_error() == Some(ENOBUFS) => Ok(()),
            other => other.map(drop),
        }
    }
}

impl Iterator for Events {
    type Item = Result<(Event, u64), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                let missed = self.gaps.before(&event);
                return Some(Ok((event, missed)));
            }
            if let Err(e) = self.fill() {
                return Some(Err(e));
            }
        }
    }
}

impl AsRawFd for Events {
    /// For those who wait for several things.
    fn as_raw_fd(&self) -> RawFd {
        self.client.socket.as_raw_fd()
    }
}

/// What follows the request that an error repeats: all of it, or its header only.
fn after_request(bytes: &[u8], capped: bool) -> &[u8] {
    const HEADER: usize = 16;
    let len = match bytes {
        _ if capped => HEADER,
        [a, b, c, d, ..] => usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d]))
            .ok()
            .and_then(|len| len.checked_next_multiple_of(4))
            .unwrap_or(usize::MAX),
        _ => return &[],
    };
    bytes.get(len..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_refusals() {
        let tlvs = [
            13u16.to_ne_bytes().as_slice(),
            &1u16.to_ne_bytes(),
            b"bad port\0\0\0\0",
            &8u16.to_ne_bytes(),
            &2u16.to_ne_bytes(),
            &28u32.to_ne_bytes(),
        ]
        .concat();
        let e = KernelError::new(22, &tlvs);
        assert_eq!(e.text.as_deref(), Some("bad port"));
        assert_eq!(e.offset, Some(28));
        assert_eq!(e.to_string(), "bad port (Invalid argument (os error 22))");
        // Cut short anywhere, the errno stays.
        for n in 0..tlvs.len() {
            assert_eq!(KernelError::new(22, tlvs.get(..n).unwrap()).errno, 22);
        }
    }

    /// Refusals as C ip_vs gave them on a socket with extended acknowledgements: of a service that isn't there, of the same with two bytes
    /// behind its attributes (which the kernel has a word about), of a scheduler's name that is too long, and the
    /// last again without the request.
    #[test]
    #[cfg(target_endian = "little")]
    fn refusals_of_the_kernel() {
        const SERVICE: &str = "300001000600010002000000060002000600000014000300c00002010000000000000000000000000600040000500000";
        let cases = [
            (
                format!("58000000020000004d000000cf000000fdffffff44000000170005004d0000000000000003010000{SERVICE}"),
                3,
                None,
            ),
            (
                format!(
                    "88000000020000024d000000cf000000fdffffff46000000170005004d0000000000000003010000{SERVICE}010200002c000100\
                     6279746573206c6566746f7665722061667465722070617273696e67206174747269627574657300"
                ),
                3,
                Some("bytes leftover after parsing attributes"),
            ),
            (
                "24000000020000014d000000cf000000eaffffff74000000170005004d00000000000000".to_owned(),
                22,
                None,
            ),
        ];
        for (hex, errno, text) in cases {
            let bytes: Vec<u8> = hex
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            let mut found = None;
            let last = items::<GenlMessage<Message>>(&bytes, |sequence, item| {
                assert_eq!(sequence, 77);
                if let Item::End(Err(e)) = item {
                    found = Some((e.errno, e.text));
                }
                Ok(true)
            });
            assert!(last.unwrap());
            assert_eq!(found, Some((errno, text.map(str::to_owned))), "{hex}");
            // Damaged anywhere, it is an answer or an error, and it ends.
            for at in 0..bytes.len() {
                for change in [1, 4, 0x80, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] ^= change;
                    let _ = items::<GenlMessage<Message>>(&damaged, |_, _| Ok(false));
                    let _ = items::<GenlMessage<GenlCtrl>>(&damaged, |_, _| Ok(false));
                    let _ = items::<GenlMessage<Message>>(&damaged[..at], |_, _| Ok(false));
                }
            }
        }
    }

    #[test]
    fn extended_acks_follow_the_request() {
        let mut bytes = vec![0u8; 24];
        bytes[..4].copy_from_slice(&18u32.to_ne_bytes());
        assert_eq!(after_request(&bytes, true).len(), 8);
        assert_eq!(after_request(&bytes, false).len(), 4);
        bytes[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(after_request(&bytes, false), &[] as &[u8]);
        assert_eq!(after_request(&[1], false), &[] as &[u8]);
    }
}
