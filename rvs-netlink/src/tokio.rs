// SPDX-License-Identifier: MIT OR Apache-2.0

//! An asynchronous client on tokio (feature `tokio`): the requests of [`crate::client`], awaited.
//!
//! A future that is dropped before it is done leaves the kernel's answer in the socket. It is skipped by the next request;
//! only a dump that is given up occupies the socket, and wants a new client.
//!
//! ```no_run
//! use rvs_netlink::{tokio::Client, Group};
//!
//! # async fn example() -> Result<(), rvs_netlink::client::Error> {
//! let mut client = Client::open().await?;
//! for service in client.services().await? {
//!     println!("{} {}", service.id, service.scheduler);
//! }
//! let mut events = client.events(&[Group::Config])?;
//! loop {
//!     let (event, _missed) = events.next().await?;
//!     println!("{:?} {:?}", event.change, event.subject);
//! }
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_generic::ctrl::GenlCtrl;
use netlink_packet_generic::GenlMessage;
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::client::{
    family_found, family_request, items, take_event, Error, Family, Item, KernelError, ENOBUFS,
    RECEIVE, RECEIVE_EVENTS,
};
use crate::{Command, Dest, Event, Gaps, Group, LocalAddress, Message, Service, ServiceId};

/// A socket of family `IPVS` in the network namespace of the thread that opened it.
pub struct Client {
    socket: TokioSocket,
    family: Family,
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

impl Client {
    /// Opens a socket and asks the kernel for the family's number, upon which it may load the module.
    ///
    /// [`Error::NoFamily`] if there is none.
    pub async fn open() -> Result<Self, Error> {
        let mut socket = TokioSocket::new(NETLINK_GENERIC)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        // Kernels before 4.12 don't know these; nothing depends on them.
        let _ = socket.socket_ref().set_ext_ack(true);
        let _ = socket.socket_ref().set_cap_ack(true);
        let mut client = Self {
            socket,
            family: Family::default(),
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE),
        };
        let sequence = client.next();
        client.send(&family_request(sequence)).await?;
        let mut family = Family::default();
        let end = client
            .receive::<GenlMessage<GenlCtrl>>(sequence, |answer| {
                family.learn(&answer.payload.nlas);
                Ok(())
            })
            .await?;
        client.family = family_found(end, family)?;
        Ok(client)
    }

    /// Whether the module has a command: those from [`Command::NewLaddr`] on need rvs.
    pub fn offers(&self, command: Command) -> bool {
        self.family.offers(command)
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.socket.send(bytes).await? == bytes.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }

    async fn receive<T>(
        &mut self,
        sequence: u32,
        mut each: impl FnMut(T) -> Result<(), Error>,
    ) -> Result<Result<(), KernelError>, Error>
    where
        T: netlink_packet_core::NetlinkDeserializable,
    {
        let mut end = None;
        while end.is_none() {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer).await?;
            items::<T>(&self.buffer, |of, item| {
                match item {
                    // Of a request that was given up.
                    _ if of != sequence => {}
                    Item::Message(_, true) | Item::Torn => return Err(Error::Interrupted),
                    Item::Message(message, false) => each(message)?,
                    Item::End(result) => end = Some(result),
                }
                Ok(false)
            })?;
        }
        Ok(end.unwrap_or(Ok(())))
    }

    async fn exchange(
        &mut self,
        message: &Message,
        flags: u16,
        mut each: impl FnMut(Message) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.family.understands(message)?;
        let sequence = self.next();
        let bytes = message.encode(self.family.id, sequence, NLM_F_REQUEST | flags)?;
        self.send(&bytes).await?;
        self.receive::<GenlMessage<Message>>(sequence, |answer| each(answer.payload))
            .await?
            .map_err(Error::Kernel)
    }

    /// Sends a request that changes something, and waits until it is done.
    pub async fn request(&mut self, message: &Message) -> Result<(), Error> {
        self.exchange(message, NLM_F_ACK, |_| Ok(())).await
    }

    /// Sends a request that asks for one thing.
    pub async fn get(&mut self, message: &Message) -> Result<Message, Error> {
        let mut answer = None;
        self.exchange(message, NLM_F_ACK, |message| {
            answer.get_or_insert(message);
            Ok(())
        })
        .await?;
        answer.ok_or(Error::NoAnswer)
    }

    /// Asks for a list; `each` gets the entries as they come.
    pub async fn dump(
        &mut self,
        message: &Message,
        each: impl FnMut(Message) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.exchange(message, NLM_F_DUMP, each).await
    }

    /// All services, in the kernel's order.
    pub async fn services(&mut self) -> Result<Vec<Service>, Error> {
        let mut services = Vec::new();
        self.dump(&Message::get_services(), |message| {
            services.push(message.service()?);
            Ok(())
        })
        .await?;
        Ok(services)
    }

    /// The destinations of a service, in the kernel's order; none if the service isn't there.
    pub async fn dests(&mut self, id: &ServiceId) -> Result<Vec<Dest>, Error> {
        let mut dests = Vec::new();
        self.dump(&Message::get_dests(id), |message| {
            dests.push(message.dest(id.family())?);
            Ok(())
        })
        .await?;
        Ok(dests)
    }

    /// The local addresses of a service, each by itself; none if the service isn't there. Needs rvs.
    pub async fn locals(&mut self, id: &ServiceId) -> Result<Vec<LocalAddress>, Error> {
        let mut locals = Vec::new();
        self.dump(&Message::get_locals(id), |message| {
            locals.push(message.local(id.family())?);
            Ok(())
        })
        .await?;
        Ok(locals)
    }

    /// What happens from now on, in some groups; needs rvs.
    pub fn events(self, groups: &[Group]) -> Result<Events, Error> {
        for group in groups {
            let number = self.family.group(*group)?;
            // They come in bursts; the system's limit holds.
            let _ = self.socket.socket_ref().set_rx_buf_sz(RECEIVE_EVENTS);
            self.socket.socket_ref().add_membership(number)?;
        }
        Ok(Events {
            client: self,
            waiting: VecDeque::new(),
            gaps: Gaps::default(),
        })
    }
}

/// Announcements; see [`Client::events`].
#[derive(Debug)]
pub struct Events {
    client: Client,
    waiting: VecDeque<Event>,
    gaps: Gaps,
}

impl Events {
    /// The next one, and how many of its group were missed just before it. Can be dropped half-way.
    pub async fn next(&mut self) -> Result<(Event, u64), Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                let missed = self.gaps.before(&event);
                return Ok((event, missed));
            }
            let Client { socket, buffer, .. } = &mut self.client;
            buffer.clear();
            match socket.recv(buffer).await {
                // The socket was full. What was missed, the next event's number tells.
                Err(e) if e.raw_os_error() == Some(ENOBUFS) => continue,
                other => other?,
            }
            items::<GenlMessage<Message>>(buffer, |_, item| take_event(item, &mut self.waiting))?;
        }
    }
}
