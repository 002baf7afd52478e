// SPDX-License-Identifier: GPL-2.0-or-later

//! A packet socket on one interface: sees every frame, sends any.
//!
//! The socket carries a virtio-net header with each frame, so a test sees which checksums are still
//! to be filled in (CHECKSUM_PARTIAL) and can send such frames itself.

use std::cell::LazyCell;
use std::collections::VecDeque;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

use crate::ns::Ns;
use crate::pkt::Pkt;
use crate::wait::patience;

const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `struct virtio_net_hdr`: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
pub const VNET_LEN: usize = 10;
pub const ETH_LEN: usize = 14;

/// A frame as it was seen.
#[derive(Clone)]
pub struct Frame {
    pub pkt: Pkt,
    /// From the IP header on.
    pub raw: Vec<u8>,
    /// Sent by this side rather than received.
    pub outgoing: bool,
    /// The layer 4 checksum is left to the device.
    pub partial: bool,
    /// Payload bytes per segment, 0 for a single packet.
    pub gso_size: u16,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.pkt)?;
        if self.partial {
            f.write_str(" partial")?;
        }
        if self.gso_size != 0 {
            write!(f, " gso {}", self.gso_size)?;
        }
        Ok(())
    }
}

/// How many frames go with one system call, each of which costs a User-Mode kernel several switches of processes.
const BATCH: usize = 64;
/// No frame is longer: 64 KiB of a super-packet, with its headers.
const LONGEST: usize = 70_000;

/// A packet socket.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    ifindex: i32,
    from: [u8; 6],
    to: [u8; 6],
    what: String,
    inbox: Mutex<Inbox>,
}

/// What has been read from the socket and not been asked for yet.
#[derive(Debug)]
struct Inbox {
    frames: VecDeque<Bytes>,
    /// Room for [`BATCH`] frames of [`LONGEST`].
    room: Vec<u8>,
}

/// A frame, virtio-net header first.
#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    outgoing: bool,
}

impl Inbox {
    /// Reads what waits at the socket; false if nothing does.
    fn fill(&mut self, fd: &OwnedFd) -> std::io::Result<bool> {
        // SAFETY: sockaddr_ll is plain data, zero is a valid value.
        let mut addrs: [libc::sockaddr_ll; BATCH] = unsafe { std::mem::zeroed() };
        let mut vecs: Vec<libc::iovec> = self
            .room
            .chunks_exact_mut(LONGEST)
            .map(|slot| libc::iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: slot.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vecs
            .iter_mut()
            .zip(&mut addrs)
            .map(|(vec, addr)| message(vec, addr))
            .collect();
        // SAFETY: the messages point to addresses and buffers that are live and as long as they say.
        let n = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            let e = std::io::Error::last_os_error();
            return match e.kind() {
                std::io::ErrorKind::WouldBlock => Ok(false),
                _ => Err(e),
            };
        }
        let lengths: Vec<usize> = messages
            .iter()
            .take(n as usize)
            .map(|m| m.msg_len as usize)
            .collect();
        for ((len, addr), slot) in lengths
            .into_iter()
            .zip(&addrs)
            .zip(self.room.chunks_exact(LONGEST))
        {
            self.frames.push_back(Bytes {
                bytes: slot[..len].to_vec(),
                outgoing: addr.sll_pkttype == libc::PACKET_OUTGOING,
            });
        }
        Ok(true)
    }
}

/// A message from or to `addr` with its bytes in one piece.
fn message(bytes: &mut libc::iovec, addr: &mut libc::sockaddr_ll) -> libc::mmsghdr {
    // SAFETY: mmsghdr is plain data, zero is a valid value.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_name = (&raw mut *addr).cast();
    message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    message.msg_hdr.msg_iov = bytes;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// What the Ethernet header says of an IP packet.
fn ethertype(ip: &[u8]) -> u16 {
    if ip.first().is_some_and(|b| b >> 4 == 6) {
        0x86dd
    } else {
        0x0800
    }
}

fn set_option(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> std::io::Result<()> {
    // SAFETY: `value` is a c_int and its size is given.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

impl Tap {
    /// Opens a tap on `ifname`; frames are sent from Ethernet address `from` to `to`.
    pub fn open(ns: &Ns, ifname: &str, from: [u8; 6], to: [u8; 6]) -> Result<Self> {
        let what = format!("{ifname} in {}", ns.name());
        ns.run(|| {
            let ifindex = nix::net::if_::if_nametoindex(ifname)
                .with_context(|| format!("no interface {what}"))? as i32;
            let proto = (libc::ETH_P_ALL as u16).to_be();
            // SAFETY: plain system call; the result is checked before use.
            let fd =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if fd < 0 {
                bail!(
                    "packet socket on {what}: {}",
                    std::io::Error::last_os_error()
                );
            }
            // SAFETY: `fd` is a new descriptor that nobody else owns.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            for (level, option, value) in [
                (libc::SOL_PACKET, PACKET_VNET_HDR, 1),
                (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 32 << 20),
                (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 8 << 20),
            ] {
                set_option(&fd, level, option, value)
                    .with_context(|| format!("setsockopt({option}) on {what}"))?;
            }
            // SAFETY: sockaddr_ll is plain data, zero is a valid value.
            let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            addr.sll_family = libc::AF_PACKET as u16;
            addr.sll_protocol = proto;
            addr.sll_ifindex = ifindex;
            // SAFETY: `addr` is a sockaddr_ll and its size is given.
            let rc = unsafe {
                libc::bind(
                    fd.as_raw_fd(),
                    (&raw const addr).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            if rc < 0 {
                bail!(
                    "binding a packet socket to {what}: {}",
                    std::io::Error::last_os_error()
                );
            }
            Ok(Self {
                fd,
                ifindex,
                from,
                to,
                what: what.clone(),
                inbox: Mutex::new(Inbox {
                    frames: VecDeque::new(),
                    room: vec![0; BATCH * LONGEST],
                }),
            })
        })
    }

    /// Sends an IP packet given as bytes.
    pub fn send_raw(&self, ip: &[u8]) -> Result<()> {
        self.send_vnet([0; VNET_LEN], ip)
    }

    /// Sends IP packets given as bytes, one after the other.
    pub fn send_all(&self, packets: &[Vec<u8>]) -> Result<()> {
        let frames: Vec<Vec<u8>> = packets
            .iter()
            .map(|ip| self.frame([0; VNET_LEN], self.to, ip))
            .collect();
        self.send_frames(&frames)
    }

    /// Sends a packet.
    pub fn send(&self, pkt: &Pkt) -> Result<()> {
        self.send_raw(&pkt.bytes())
    }

    /// Sends a packet whose checksum is left to be filled in at `offset` of the layer 4 header that
    /// starts at `start`. With `gso_size` it is a TCP super-packet.
    pub fn send_partial(&self, ip: &[u8], start: u16, offset: u16, gso_size: u16) -> Result<()> {
        let mut vnet = [0; VNET_LEN];
        vnet[0] = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM
        if gso_size != 0 {
            vnet[1] = if ip[0] >> 4 == 4 { 1 } else { 4 }; // VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6
            vnet[2..4].copy_from_slice(&(ETH_LEN as u16 + start + 20).to_ne_bytes());
            vnet[4..6].copy_from_slice(&gso_size.to_ne_bytes());
        }
        vnet[6..8].copy_from_slice(&(ETH_LEN as u16 + start).to_ne_bytes());
        vnet[8..10].copy_from_slice(&offset.to_ne_bytes());
        self.send_vnet(vnet, ip)
    }

    fn send_vnet(&self, vnet: [u8; VNET_LEN], ip: &[u8]) -> Result<()> {
        self.send_as(vnet, self.to, ip)
    }

    /// An Ethernet frame with what the socket wants before it.
    fn frame(&self, vnet: [u8; VNET_LEN], to: [u8; 6], ip: &[u8]) -> Vec<u8> {
        let mut frame = vnet.to_vec();
        frame.extend(to);
        frame.extend(self.from);
        frame.extend(ethertype(ip).to_be_bytes());
        frame.extend(ip);
        frame
    }

    fn send_frames(&self, frames: &[Vec<u8>]) -> Result<()> {
        for frames in frames.chunks(BATCH) {
            let mut addrs: Vec<libc::sockaddr_ll> = frames.iter().map(|f| self.addr(f)).collect();
            let mut vecs: Vec<libc::iovec> = frames
                .iter()
                .map(|f| libc::iovec {
                    iov_base: f.as_ptr().cast_mut().cast(),
                    iov_len: f.len(),
                })
                .collect();
            let mut messages: Vec<libc::mmsghdr> = vecs
                .iter_mut()
                .zip(&mut addrs)
                .map(|(vec, addr)| message(vec, addr))
                .collect();
            let mut sent = 0;
            while let Some(rest) = messages.get_mut(sent..).filter(|rest| !rest.is_empty()) {
                // SAFETY: the messages point to addresses and frames that are live and as long as they say; sending
                // only reads them.
                let n = unsafe {
                    libc::sendmmsg(
                        self.fd.as_raw_fd(),
                        rest.as_mut_ptr(),
                        rest.len() as libc::c_uint,
                        0,
                    )
                };
                if n < 0 {
                    bail!(
                        "sending {} bytes on {}: {}",
                        frames[sent].len(),
                        self.what,
                        std::io::Error::last_os_error()
                    );
                }
                sent += n as usize;
            }
        }
        Ok(())
    }

    /// Where a frame goes.
    fn addr(&self, frame: &[u8]) -> libc::sockaddr_ll {
        // SAFETY: sockaddr_ll is plain data, zero is a valid value.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_ifindex = self.ifindex;
        addr.sll_halen = 6;
        // Network order in the structure: the two bytes of the Ethernet type as they stand in the
        // frame.
        addr.sll_protocol = u16::from_ne_bytes([frame[VNET_LEN + 12], frame[VNET_LEN + 13]]);
        addr.sll_addr[..6].copy_from_slice(&self.to);
        addr
    }

    /// Leaves out what this side sends, from now on.
    pub fn received_only(&self) -> Result<()> {
        set_option(&self.fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            .with_context(|| format!("PACKET_IGNORE_OUTGOING on {}", self.what))
    }

    /// Sends an IP packet given as bytes to any Ethernet address, with any virtio-net header whose offsets count from
    /// the Ethernet header.
    pub fn send_as(&self, vnet: [u8; VNET_LEN], to: [u8; 6], ip: &[u8]) -> Result<()> {
        self.send_frames(&[self.frame(vnet, to, ip)])
    }

    /// The next frame whatever it is, until `end`. Looks at the clock only where there is none: that is a system call on a
    /// User-Mode kernel.
    fn next(&self, end: &LazyCell<Instant, impl FnOnce() -> Instant>) -> Result<Option<Bytes>> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(frame) = inbox.frames.pop_front() {
                return Ok(Some(frame));
            }
            if inbox
                .fill(&self.fd)
                .with_context(|| format!("receiving on {}", self.what))?
            {
                continue;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(
                &mut fds,
                PollTimeout::try_from(left.as_millis().clamp(1, 60_000) as u32)?,
            ) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => bail!("waiting for {}: {e}", self.what),
            }
        }
    }

    /// The bytes of the next frame whatever it is, within `wait`, virtio-net header first.
    pub fn recv_bytes(&self, wait: Duration) -> Result<Option<Vec<u8>>> {
        let end = LazyCell::new(|| Instant::now() + wait);
        Ok(self.next(&end)?.map(|frame| frame.bytes))
    }

    /// The next frame with IP in it, within `wait`.
    pub fn recv(&self, wait: Duration) -> Result<Option<Frame>> {
        let end = LazyCell::new(|| Instant::now() + wait);
        while let Some(Bytes {
            bytes: frame,
            outgoing,
        }) = self.next(&end)?
        {
            let Some(ip) = frame.get(VNET_LEN + ETH_LEN..) else {
                continue;
            };
            let ethertype = u16::from_be_bytes([frame[VNET_LEN + 12], frame[VNET_LEN + 13]]);
            if ethertype != 0x0800 && ethertype != 0x86dd {
                continue;
            }
            let partial = frame[0] & 1 != 0;
            let Ok(pkt) = Pkt::parse(ip, partial) else {
                continue;
            };
            return Ok(Some(Frame {
                pkt,
                raw: ip.to_vec(),
                outgoing,
                partial,
                gso_size: u16::from_ne_bytes([frame[4], frame[5]]),
            }));
        }
        Ok(None)
    }

    /// The next received frame that `pred` accepts, within `seconds` ([`patience`]). Others are thrown
    /// away.
    pub fn expect(
        &self,
        what: &str,
        seconds: f64,
        mut pred: impl FnMut(&Frame) -> bool,
    ) -> Result<Frame> {
        let end = Instant::now() + patience(seconds);
        let mut others = Vec::new();
        while let Some(frame) = self.recv(end.saturating_duration_since(Instant::now()))? {
            if pred(&frame) {
                return Ok(frame);
            }
            others.push(frame.pkt);
        }
        bail!("{what} did not show up on {}; seen: {others:#?}", self.what)
    }

    /// Everything that waits to be read.
    pub fn drain(&self) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.recv(Duration::ZERO)? {
            frames.push(frame);
        }
        Ok(frames)
    }
}
