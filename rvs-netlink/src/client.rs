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

use std::fmt;
use std::io;
use std::net::SocketAddr as InetAddr;

use netlink_packet_core::{
    DecodeError, NetlinkMessage, NetlinkPayload, NlasIterator, NLM_F_ACK, NLM_F_ACK_TLVS,
    NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::GenlMessage;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

use crate::attribute::EncodeError;
use crate::{Command, Daemon, Dest, Info, Message, Service, ServiceId, Timeouts, FAMILY_NAME};

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
            Self::NoFamily | Self::Interrupted | Self::NoAnswer => None,
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
const RECEIVE: usize = 64 * 1024;
/// Requests in one system call. Each that is refused is answered, and all answers must fit into the socket's
/// receive buffer, of which each takes about a kilobyte.
const BATCH: usize = 128;
/// Bytes in one system call, below the default send buffer.
const BATCH_BYTES: usize = 96 * 1024;

/// A socket of family `IPVS` in the network namespace of the thread that opened it.
pub struct Client {
    socket: Socket,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("family", &self.family)
            .finish_non_exhaustive()
    }
}

/// One message of an answer.
enum Item<T> {
    /// Of the family.
    Message(T),
    /// The end: of a dump, or an acknowledgement, or a refusal.
    End(Result<(), KernelError>),
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
            family: 0,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE),
        };
        client.family = client.resolve()?;
        Ok(client)
    }

    /// The number that the kernel gave to the family.
    pub fn family(&self) -> u16 {
        self.family
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn resolve(&mut self) -> Result<u16, Error> {
        let sequence = self.next();
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY_NAME.to_owned())],
        }));
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes)?;
        let mut family = None;
        let end = self.receive::<GenlMessage<GenlCtrl>>(sequence, |answer| {
            family = family.or(answer.payload.nlas.iter().find_map(|a| match a {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            }));
            Ok(())
        })?;
        match (end, family) {
            (Ok(()), Some(family)) => Ok(family),
            (Ok(()), None) => Err(Error::NoAnswer),
            // ENOENT
            (Err(e), _) if e.errno == 2 => Err(Error::NoFamily),
            (Err(e), _) => Err(Error::Kernel(e)),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        let sent = self.socket.send(bytes, 0)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }

    /// Reads datagrams until `each` says that it has seen the last message; it gets sequence number and content.
    fn read<T>(
        &mut self,
        mut each: impl FnMut(u32, Item<T>) -> Result<bool, Error>,
    ) -> Result<(), Error>
    where
        T: netlink_packet_core::NetlinkDeserializable,
    {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let mut rest = self.buffer.as_slice();
            let mut last = false;
            while !rest.is_empty() {
                let message = NetlinkMessage::<T>::deserialize(rest)?;
                let len = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = len
                    .checked_next_multiple_of(4)
                    .and_then(|len| rest.get(len..))
                    .unwrap_or_default();
                let (header, payload) = message.into_parts();
                if header.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(Error::Interrupted);
                }
                let item = match payload {
                    NetlinkPayload::InnerMessage(inner) => Item::Message(inner),
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
                    NetlinkPayload::Done(done) => Item::End(match done.code {
                        0 => Ok(()),
                        code => Err(KernelError::new(code.saturating_neg(), &done.extended_ack)),
                    }),
                    // Nothing else has a meaning here.
                    _ => continue,
                };
                last |= each(header.sequence_number, item)?;
            }
            if last {
                return Ok(());
            }
        }
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
                    Item::Message(message) => each(message)?,
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
        let sequence = self.next();
        let bytes = message.encode(self.family, sequence, NLM_F_REQUEST | flags)?;
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
    /// An error means that it is unknown how many were carried out, except [`Error::Encode`], before which nothing was sent.
    pub fn batch(&mut self, messages: &[Message]) -> Result<Vec<(usize, KernelError)>, Error> {
        for message in messages {
            message.check()?;
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
                let one = message.encode(self.family, sequence, NLM_F_REQUEST)?;
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

    /// Starts a synchronisation daemon.
    pub fn start_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        self.request(&Message::new_daemon(daemon))
    }

    /// Stops a synchronisation daemon.
    pub fn stop_daemon(&mut self, daemon: &Daemon) -> Result<(), Error> {
        self.request(&Message::del_daemon(daemon))
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
