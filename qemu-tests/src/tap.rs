// SPDX-License-Identifier: GPL-2.0-or-later

//! A packet socket on one interface: sees every frame, sends any.
//!
//! The socket carries a virtio-net header with each frame, so a test sees which checksums are still
//! to be filled in (CHECKSUM_PARTIAL) and can send such frames itself.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
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

/// A packet socket.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    ifindex: i32,
    from: [u8; 6],
    to: [u8; 6],
    what: String,
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
            })
        })
    }

    /// Sends an IP packet given as bytes.
    pub fn send_raw(&self, ip: &[u8]) -> Result<()> {
        self.send_vnet([0; VNET_LEN], ip)
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

    fn send_frame(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: sockaddr_ll is plain data, zero is a valid value.
        let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        addr.sll_family = libc::AF_PACKET as u16;
        addr.sll_ifindex = self.ifindex;
        addr.sll_halen = 6;
        // Network order in the structure: the two bytes of the Ethernet type as they stand in the
        // frame.
        addr.sll_protocol = u16::from_ne_bytes([frame[VNET_LEN + 12], frame[VNET_LEN + 13]]);
        addr.sll_addr[..6].copy_from_slice(&self.to);
        // SAFETY: buffer and address are live and their sizes are given.
        let rc = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const addr).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if rc < 0 {
            bail!(
                "sending {} bytes on {}: {}",
                frame.len(),
                self.what,
                std::io::Error::last_os_error()
            );
        }
        Ok(())
    }

    /// Leaves out what this side sends, from now on.
    pub fn received_only(&self) -> Result<()> {
        set_option(&self.fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
            .with_context(|| format!("PACKET_IGNORE_OUTGOING on {}", self.what))
    }

    /// Sends an IP packet given as bytes to any Ethernet address, with any virtio-net header whose offsets count from
    /// the Ethernet header.
    pub fn send_as(&self, vnet: [u8; VNET_LEN], to: [u8; 6], ip: &[u8]) -> Result<()> {
        let mut frame = vnet.to_vec();
        frame.extend(to);
        frame.extend(self.from);
        frame.extend(ethertype(ip).to_be_bytes());
        frame.extend(ip);
        self.send_frame(&frame)
    }

    /// The next frame whatever it is, within `wait`, into `buf`: its length, virtio-net header first.
    pub fn recv_bytes(&self, buf: &mut [u8], wait: Duration) -> Result<Option<usize>> {
        let end = Instant::now() + wait;
        loop {
            // SAFETY: the buffer is live and its size is given.
            let n = unsafe {
                libc::recv(
                    self.fd.as_raw_fd(),
                    buf.as_mut_ptr().cast(),
                    buf.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            if n >= 0 {
                return Ok(Some(n as usize));
            }
            let e = std::io::Error::last_os_error();
            if e.kind() != std::io::ErrorKind::WouldBlock {
                bail!("receiving on {}: {e}", self.what);
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

    /// The next frame with IP in it, within `wait`.
    pub fn recv(&self, wait: Duration) -> Result<Option<Frame>> {
        let end = Instant::now() + wait;
        let mut buf = vec![0; 70_000];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(
                left.as_millis().min(60_000) as u32 + u32::from(!left.is_zero()),
            )?;
            match poll(&mut fds, timeout) {
                Ok(0) if left.is_zero() => return Ok(None),
                Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
                Ok(_) => {}
                Err(e) => bail!("waiting for {}: {e}", self.what),
            }
            // SAFETY: sockaddr_ll is plain data, zero is a valid value.
            let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut addr_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            // SAFETY: buffer, address and length are live and their sizes are given.
            let n = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buf.as_mut_ptr().cast(),
                    buf.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut addr).cast(),
                    &raw mut addr_len,
                )
            };
            if n < 0 {
                let e = std::io::Error::last_os_error();
                if e.kind() == std::io::ErrorKind::WouldBlock {
                    continue;
                }
                bail!("receiving on {}: {e}", self.what);
            }
            let frame = buf.get(..n as usize).unwrap_or_default();
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
                outgoing: addr.sll_pkttype == libc::PACKET_OUTGOING,
                partial,
                gso_size: u16::from_ne_bytes([frame[4], frame[5]]),
            }));
        }
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
