// SPDX-License-Identifier: GPL-2.0-or-later

//! Generic netlink from plain bytes, so that malformed requests are as easy to send as right ones.

use std::cell::Cell;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{bail, ensure, Context, Result};
use netlink_sys::{protocols::NETLINK_GENERIC, protocols::NETLINK_NETFILTER, Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::ns::Ns;
use crate::wait::scaled;

pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_MULTI: u16 = 2;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const GENL_ID_CTRL: u16 = 16;

/// Attributes being written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attrs(pub Vec<u8>);

impl Attrs {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.put(kind, &[value])
    }

    pub fn u16(self, kind: u16, value: u16) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.put(kind, &inner.0)
    }

    /// The same attributes without those of one kind.
    pub fn without(&self, kind: u16) -> Self {
        parse(&self.0)
            .unwrap_or_default()
            .into_iter()
            .filter(|(k, _)| *k != kind)
            .fold(Self::new(), |a, (k, v)| a.put(k, v))
    }

    /// The same attributes with one replaced (or added at the end).
    pub fn with(&self, kind: u16, value: &[u8]) -> Self {
        self.without(kind).put(kind, value)
    }
}

/// Splits attributes; the type keeps its flag bits.
pub fn parse(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        ensure!(
            bytes.len() >= 4,
            "{} stray bytes after the attributes",
            bytes.len()
        );
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        let value = bytes
            .get(4..len)
            .with_context(|| format!("attribute {kind} of {len} bytes is cut short"))?;
        out.push((kind, value));
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(out)
}

/// The value of the first attribute of a kind.
pub fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    parse(bytes)
        .ok()?
        .into_iter()
        .find(|(k, _)| k & 0x3fff == kind)
        .map(|(_, v)| v)
}

/// One message of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    pub port: u32,
    /// Generic netlink header, of the reserved field nothing is expected.
    pub cmd: u8,
    pub version: u8,
    pub attrs: Vec<u8>,
}

/// All that came back for one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// 0, or the positive errno.
    pub errno: i32,
    /// The extended-ack text, if any.
    pub text: Option<String>,
    pub msgs: Vec<Msg>,
    /// Datagrams that a dump took.
    pub datagrams: usize,
}

impl Reply {
    /// Fails unless the request did.
    pub fn ok(self) -> Result<Self> {
        if self.errno != 0 {
            bail!(
                "netlink: {} {:?}",
                std::io::Error::from_raw_os_error(self.errno),
                self.text
            );
        }
        Ok(self)
    }
}

/// A netlink socket of one namespace.
pub struct Genl {
    sock: Socket,
    seq: Cell<u32>,
    port: u32,
}

impl Genl {
    /// Opens a generic netlink socket in `ns`.
    pub fn open(ns: &Ns) -> Result<Self> {
        ns.run(|| Self::open_here(NETLINK_GENERIC))
    }

    /// Opens a nfnetlink socket in `ns`.
    pub fn open_netfilter(ns: &Ns) -> Result<Self> {
        ns.run(|| Self::open_here(NETLINK_NETFILTER))
    }

    /// Opens a socket in the calling thread's namespace.
    pub fn open_here(protocol: isize) -> Result<Self> {
        let mut sock = Socket::new(protocol).context("netlink socket")?;
        let addr = sock.bind_auto().context("binding a netlink socket")?;
        sock.connect(&SocketAddr::new(0, 0))
            .context("connecting a netlink socket")?;
        sock.set_ext_ack(true).context("NETLINK_EXT_ACK")?;
        sock.set_cap_ack(true).context("NETLINK_CAP_ACK")?;
        let secs = scaled(10.0).as_secs() as i64;
        // SAFETY: the descriptor is the socket's own and outlives the borrow.
        let fd = unsafe { BorrowedFd::borrow_raw(sock.as_raw_fd()) };
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(secs, 0))?;
        Ok(Self {
            sock,
            seq: Cell::new(0x100),
            port: addr.port_number(),
        })
    }

    pub fn port(&self) -> u32 {
        self.port
    }

    /// The number of a family, or the errno of the question.
    pub fn family(&self, name: &str) -> Result<Result<u16, i32>> {
        let reply = self.get_family(name)?;
        if reply.errno != 0 {
            return Ok(Err(reply.errno));
        }
        let msg = reply
            .msgs
            .first()
            .context("no answer to CTRL_CMD_GETFAMILY")?;
        let id = find(&msg.attrs, 1).context("no family number")?;
        Ok(Ok(u16::from_ne_bytes([id[0], id[1]])))
    }

    /// What the controller says about a family.
    pub fn get_family(&self, name: &str) -> Result<Reply> {
        self.request(
            GENL_ID_CTRL,
            NLM_F_REQUEST | NLM_F_ACK,
            &genl_header(3, 1),
            &Attrs::new().text(2, name).0,
        )
    }

    /// Sends one message made of a header, what follows it and attributes, and reads the whole
    /// answer.
    pub fn request(&self, kind: u16, flags: u16, header: &[u8], attrs: &[u8]) -> Result<Reply> {
        let mut payload = header.to_vec();
        payload.extend(attrs);
        self.request_bytes(kind, flags, &payload)
    }

    /// Sends one message with the given payload and reads the whole answer.
    pub fn request_bytes(&self, kind: u16, flags: u16, payload: &[u8]) -> Result<Reply> {
        let seq = self.send(kind, flags, payload)?;
        self.receive(seq)
    }

    /// Sends one message and returns its sequence number.
    pub fn send(&self, kind: u16, flags: u16, payload: &[u8]) -> Result<u32> {
        let seq = self.seq.get() + 1;
        self.seq.set(seq);
        let mut b = Vec::new();
        b.extend(((16 + payload.len()) as u32).to_ne_bytes());
        b.extend(kind.to_ne_bytes());
        b.extend(flags.to_ne_bytes());
        b.extend(seq.to_ne_bytes());
        b.extend(0u32.to_ne_bytes());
        b.extend(payload);
        self.sock.send(&b, 0).context("sending netlink")?;
        Ok(seq)
    }

    /// One datagram, as it is.
    pub fn receive_datagram(&self) -> Result<Vec<u8>> {
        Ok(self.sock.recv_from_full().context("receiving netlink")?.0)
    }

    /// One datagram, if there is one already.
    pub fn poll_datagram(&self) -> std::io::Result<Vec<u8>> {
        let mut buf = vec![0; 1 << 16];
        let n = self
            .sock
            .recv(&mut buf.as_mut_slice(), libc::MSG_DONTWAIT)?;
        buf.resize(n, 0);
        Ok(buf)
    }

    /// Reads the answer to request `seq` up to its ack or the end of its dump.
    pub fn receive(&self, seq: u32) -> Result<Reply> {
        let mut reply = Reply::default();
        loop {
            let datagram = self.receive_datagram()?;
            reply.datagrams += 1;
            let mut rest = datagram.as_slice();
            while rest.len() >= 16 {
                let u16_at = |at: usize| u16::from_ne_bytes([rest[at], rest[at + 1]]);
                let u32_at = |at: usize| {
                    u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
                };
                let len = u32_at(0) as usize;
                ensure!(
                    len >= 16 && len <= rest.len(),
                    "netlink message of {len} in {} bytes",
                    rest.len()
                );
                let (kind, flags, msg_seq, port) = (u16_at(4), u16_at(6), u32_at(8), u32_at(12));
                let payload = &rest[16..len];
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
                if msg_seq != seq {
                    continue;
                }
                match kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = payload
                            .get(..4)
                            .map_or(0, |c| i32::from_ne_bytes([c[0], c[1], c[2], c[3]]));
                        reply.errno = -code;
                        if flags & NLM_F_ACK_TLVS != 0 {
                            let at = match (kind, flags & NLM_F_CAPPED != 0) {
                                (NLMSG_DONE, _) => 4,
                                (_, true) => 20,
                                (_, false) => {
                                    let inner =
                                        payload.get(4..8).context("error without its message")?;
                                    4 + u32::from_ne_bytes([inner[0], inner[1], inner[2], inner[3]])
                                        as usize
                                }
                            };
                            let tlvs = payload.get(at..).unwrap_or_default();
                            reply.text = find(tlvs, 1).map(|t| {
                                String::from_utf8_lossy(t).trim_end_matches('\0').to_owned()
                            });
                        }
                        return Ok(reply);
                    }
                    _ => {
                        ensure!(payload.len() >= 4, "message without a header");
                        reply.msgs.push(Msg {
                            kind,
                            flags,
                            seq: msg_seq,
                            port,
                            cmd: payload[0],
                            version: payload[1],
                            attrs: payload[4..].to_vec(),
                        });
                    }
                }
            }
        }
    }
}

impl AsRawFd for Genl {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.sock.as_raw_fd()
    }
}

/// The messages of a datagram.
pub fn messages(mut bytes: &[u8]) -> Result<Vec<Msg>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        ensure!(bytes.len() >= 20, "{} stray bytes", bytes.len());
        let u16_at = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let len = u32_at(0) as usize;
        let attrs = bytes.get(20..len).context("message cut short")?;
        out.push(Msg {
            kind: u16_at(4),
            flags: u16_at(6),
            seq: u32_at(8),
            port: u32_at(12),
            cmd: bytes[16],
            version: bytes[17],
            attrs: attrs.to_vec(),
        });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(out)
}

/// The generic netlink header of a command.
pub fn genl_header(cmd: u8, version: u8) -> [u8; 4] {
    [cmd, version, 0, 0]
}
