// SPDX-License-Identifier: GPL-2.0-or-later

//! rvs's netlink extension (docs/netlink-extensions.md): the dump of connections, and what is announced.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use anyhow::{bail, ensure, Context, Result};
use rvs_core::uapi::ext::{attr, cmd, conn_attr};

use crate::genl::{find, parse, Attrs, Genl, Msg};
use crate::ipvs::{number, top, Ipvs};
use crate::ns::Ns;
use crate::pkt::octets;

pub use rvs_core::uapi::ext::event;

const NESTED: u16 = 1 << 15;
const NETLINK_ADD_MEMBERSHIP: libc::c_int = 1;
const NETLINK_DROP_MEMBERSHIP: libc::c_int = 2;

/// A connection as dumped or announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conn {
    pub proto: u8,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub dest: SocketAddr,
    pub flags: u32,
    pub state: u8,
    pub state_name: String,
    pub expires: u64,
    pub timeout: u64,
    pub fwmark: u32,
    pub service_fwmark: Option<u32>,
    pub service_port: Option<u16>,
    pub counts: Option<Counts>,
}

/// What it has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub in_pkts: u64,
    pub in_bytes: u64,
    pub out_pkts: u64,
    pub out_bytes: u64,
    pub age: u64,
}

fn small<T: TryFrom<u64>>(nest: &[u8], kind: u16) -> Result<T> {
    T::try_from(number(nest, kind)?)
        .ok()
        .with_context(|| format!("attribute {kind} is out of range"))
}

fn ip(bytes: &[u8]) -> Result<IpAddr> {
    Ok(match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes)?).into(),
        16 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes)?).into(),
        n => bail!("an address of {n} bytes"),
    })
}

impl Conn {
    /// The CONN nest of a message.
    pub fn parse(attrs: &[u8]) -> Result<Self> {
        let nest = find(attrs, attr::CONN).context("no connection in the message")?;
        // Nothing but what is documented.
        for (kind, _) in parse(nest)? {
            ensure!(
                (1..conn_attr::CLIENT_PREFIX).contains(&kind),
                "attribute {kind}"
            );
        }
        let addr = |addr, port| -> Result<SocketAddr> {
            let port = find(nest, port).context("no port")?;
            Ok(SocketAddr::new(
                ip(find(nest, addr).context("no address")?)?,
                u16::from_be_bytes(port.try_into()?),
            ))
        };
        let client = addr(conn_attr::CLIENT_ADDR, conn_attr::CLIENT_PORT)?;
        let af: u16 = small(nest, conn_attr::AF)?;
        ensure!(af == if client.is_ipv4() { 2 } else { 10 }, "AF {af}");
        let counts = match find(nest, conn_attr::IN_PKTS) {
            None => None,
            Some(_) => Some(Counts {
                in_pkts: number(nest, conn_attr::IN_PKTS)?,
                in_bytes: number(nest, conn_attr::IN_BYTES)?,
                out_pkts: number(nest, conn_attr::OUT_PKTS)?,
                out_bytes: number(nest, conn_attr::OUT_BYTES)?,
                age: number(nest, conn_attr::AGE)?,
            }),
        };
        let name = find(nest, conn_attr::STATE_NAME).context("no name of the state")?;
        Ok(Self {
            proto: small(nest, conn_attr::PROTOCOL)?,
            client,
            vip: addr(conn_attr::VIRT_ADDR, conn_attr::VIRT_PORT)?,
            dest: addr(conn_attr::DEST_ADDR, conn_attr::DEST_PORT)?,
            flags: small(nest, conn_attr::FLAGS)?,
            state: small(nest, conn_attr::STATE)?,
            state_name: String::from_utf8_lossy(name)
                .trim_end_matches('\0')
                .to_owned(),
            expires: number(nest, conn_attr::EXPIRES)?,
            timeout: number(nest, conn_attr::TIMEOUT)?,
            fwmark: small(nest, conn_attr::FWMARK)?,
            service_fwmark: match find(nest, conn_attr::SERVICE_FWMARK) {
                Some(_) => Some(small(nest, conn_attr::SERVICE_FWMARK)?),
                None => None,
            },
            service_port: match find(nest, conn_attr::SERVICE_PORT) {
                Some(port) => Some(u16::from_be_bytes(port.try_into()?)),
                None => None,
            },
            counts,
        })
    }
}

/// A filter of connections: pairs of an attribute and its value.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub service: Option<Attrs>,
    pub conn: Attrs,
}

impl Filter {
    pub fn service(service: &Attrs) -> Self {
        Self {
            service: Some(service.clone()),
            conn: Attrs::new(),
        }
    }

    pub fn u8(mut self, kind: u16, value: u8) -> Self {
        self.conn = self.conn.u8(kind, value);
        self
    }

    pub fn af(mut self, af: u16) -> Self {
        self.conn = self.conn.u16(conn_attr::AF, af);
        self
    }

    pub fn port(mut self, kind: u16, port: u16) -> Self {
        self.conn = self.conn.put(kind, &port.to_be_bytes());
        self
    }

    pub fn addr(mut self, kind: u16, addr: IpAddr) -> Self {
        self.conn = self.conn.put(kind, &octets(addr));
        self
    }

    /// The attributes of the request.
    pub fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        if let Some(service) = &self.service {
            attrs = attrs.nest(top::SERVICE | NESTED, service);
        }
        if !self.conn.0.is_empty() {
            attrs = attrs.nest(attr::CONN | NESTED, &self.conn);
        }
        attrs
    }
}

/// The connections that a filter lets through.
pub fn conns(ipvs: &Ipvs, filter: &Filter) -> Result<Vec<Conn>> {
    let reply = ipvs.dump(cmd::GET_CONN, &filter.attrs())?.ok()?;
    reply
        .msgs
        .iter()
        .map(|msg| {
            ensure!(msg.cmd == cmd::CONN, "command {}", msg.cmd);
            Conn::parse(&msg.attrs)
        })
        .collect()
}

/// The numbers of the last events (configuration, connections), and how many were lost.
pub fn numbers(ipvs: &Ipvs) -> Result<[u64; 3]> {
    let reply = ipvs.ok(cmd::GET_EVENTS, &Attrs::new())?;
    let msg = reply.msgs.first().context("no answer to GET_EVENTS")?;
    ensure!(msg.cmd == cmd::EVENTS, "command {}", msg.cmd);
    Ok([
        number(&msg.attrs, attr::CONFIG_SEQ)?,
        number(&msg.attrs, attr::CONN_SEQ)?,
        number(&msg.attrs, attr::LOST)?,
    ])
}

/// The numbers of the family's multicast groups.
pub fn group(genl: &Genl, name: &str) -> Result<u32> {
    let reply = genl.get_family("IPVS")?.ok()?;
    let attrs = &reply.msgs.first().context("no answer")?.attrs;
    for (_, group) in parse(find(attrs, 7).context("no multicast groups")?)? {
        let is = find(group, 1) == Some(format!("{name}\0").as_bytes());
        if is {
            return small(group, 2);
        }
    }
    bail!("no group {name}")
}

/// Joins or leaves a group.
pub fn membership(genl: &Genl, group: u32, member: bool) -> std::io::Result<()> {
    let option = if member {
        NETLINK_ADD_MEMBERSHIP
    } else {
        NETLINK_DROP_MEMBERSHIP
    };
    // SAFETY: the option takes an integer, which lives during the call.
    let done = unsafe {
        libc::setsockopt(
            genl.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&group).cast(),
            4,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Something that was announced.
#[derive(Debug, Clone)]
pub struct Event {
    pub cmd: u8,
    pub kind: u8,
    pub seq: u64,
    pub attrs: Vec<u8>,
}

impl Event {
    pub fn parse(msg: Msg) -> Result<Self> {
        ensure!(
            msg.seq == 0 && msg.port == 0,
            "an answer is no event: {msg:?}"
        );
        Ok(Self {
            cmd: msg.cmd,
            kind: small(&msg.attrs, attr::EVENT)?,
            seq: number(&msg.attrs, attr::SEQ)?,
            attrs: msg.attrs,
        })
    }

    pub fn conn(&self) -> Result<Conn> {
        Conn::parse(&self.attrs)
    }

    /// How many were lost by then.
    pub fn lost(&self) -> Result<u64> {
        number(&self.attrs, attr::LOST)
    }
}

/// Who listens to a group.
pub struct Listener {
    genl: Genl,
}

impl Listener {
    pub fn new(ns: &Ns, name: &str) -> Result<Self> {
        let genl = Genl::open(ns)?;
        let group = group(&genl, name)?;
        membership(&genl, group, true).with_context(|| format!("joining {name}"))?;
        Ok(Self { genl })
    }

    /// The events of the next datagram; none if there is none yet, `Err` of the kernel if it had to drop some.
    pub fn poll(&self) -> Result<std::io::Result<Vec<Event>>> {
        match self.genl.poll_datagram() {
            Ok(bytes) => Ok(Ok(crate::genl::messages(&bytes)?
                .into_iter()
                .map(Event::parse)
                .collect::<Result<_>>()?)),
            Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => Ok(Ok(Vec::new())),
            Err(err) => Ok(Err(err)),
        }
    }

    /// All events that have come, and of the socket's overruns how often.
    pub fn all(&self) -> Result<(Vec<Event>, usize)> {
        let (mut events, mut overruns) = (Vec::new(), 0);
        loop {
            match self.poll()? {
                Ok(more) if more.is_empty() => return Ok((events, overruns)),
                Ok(more) => events.extend(more),
                Err(err) if err.raw_os_error() == Some(libc::ENOBUFS) => overruns += 1,
                Err(err) => return Err(err.into()),
            }
        }
    }

    /// Waits for this many events; there may be no more.
    pub fn exactly(&self, count: usize) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        crate::wait::until_true(&format!("{count} events"), 10.0, || {
            let (more, overruns) = self.all()?;
            ensure!(overruns == 0, "events were dropped");
            events.extend(more);
            Ok(events.len() >= count)
        })
        .with_context(|| format!("{} came: {events:?}", events.len()))?;
        ensure!(events.len() == count, "{} events: {events:?}", events.len());
        Ok(events)
    }
}
