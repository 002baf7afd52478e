// SPDX-License-Identifier: GPL-2.0-or-later

//! The socket options of IPVS, from plain bytes.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};

use crate::ns::Ns;

/// Options that are set.
pub mod set {
    pub const BASE: i32 = 1152;
    pub const ADD: i32 = 1154;
    pub const EDIT: i32 = 1155;
    pub const DEL: i32 = 1156;
    pub const FLUSH: i32 = 1157;
    pub const ADDDEST: i32 = 1159;
    pub const DELDEST: i32 = 1160;
    pub const EDITDEST: i32 = 1161;
    pub const TIMEOUT: i32 = 1162;
    pub const STARTDAEMON: i32 = 1163;
    pub const STOPDAEMON: i32 = 1164;
    pub const ZERO: i32 = 1167;
}

/// Options that are asked for.
pub mod get {
    pub const VERSION: i32 = 1152;
    pub const INFO: i32 = 1153;
    pub const SERVICES: i32 = 1154;
    pub const SERVICE: i32 = 1155;
    pub const DESTS: i32 = 1156;
    pub const DEST: i32 = 1157;
    pub const TIMEOUT: i32 = 1158;
    pub const DAEMON: i32 = 1159;
}

/// Sizes of the structures.
pub const SERVICE_LEN: usize = 44;
pub const SVCDEST_LEN: usize = 68;
pub const TIMEOUT_LEN: usize = 12;
pub const DAEMON_LEN: usize = 24;
pub const SERVICE_ENTRY_LEN: usize = 104;
pub const DEST_ENTRY_LEN: usize = 96;

/// `struct ip_vs_service_user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub proto: u16,
    pub vip: SocketAddrV4,
    pub fwmark: u32,
    pub sched: [u8; 16],
    pub flags: u32,
    pub timeout: u32,
    pub netmask: Ipv4Addr,
}

/// A name in its field.
pub fn name16(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    field
}

impl Service {
    pub fn new(proto: u8, vip: SocketAddrV4, sched: &str) -> Self {
        Self {
            proto: proto.into(),
            vip,
            fwmark: 0,
            sched: name16(sched),
            flags: 0,
            timeout: 0,
            netmask: Ipv4Addr::BROADCAST,
        }
    }

    /// One with a firewall mark.
    pub fn marked(proto: u8, fwmark: u32, sched: &str) -> Self {
        Self {
            fwmark,
            ..Self::new(proto, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), sched)
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut b = self.proto.to_ne_bytes().to_vec();
        b.extend([0xaa; 2]);
        b.extend(self.vip.ip().octets());
        b.extend(self.vip.port().to_be_bytes());
        b.extend([0xbb; 2]);
        b.extend(self.fwmark.to_ne_bytes());
        b.extend(self.sched);
        b.extend(self.flags.to_ne_bytes());
        b.extend(self.timeout.to_ne_bytes());
        b.extend(self.netmask.octets());
        b
    }
}

/// `struct ip_vs_dest_user`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dest {
    pub addr: SocketAddrV4,
    pub conn_flags: u32,
    pub weight: i32,
    pub upper: u32,
    pub lower: u32,
}

impl Dest {
    /// One that is forwarded to by NAT.
    pub fn new(addr: SocketAddrV4, weight: i32) -> Self {
        Self {
            addr,
            conn_flags: 0,
            weight,
            upper: 0,
            lower: 0,
        }
    }

    /// With the service before it.
    pub fn of(&self, service: &Service) -> Vec<u8> {
        let mut b = service.bytes();
        b.extend(self.addr.ip().octets());
        b.extend(self.addr.port().to_be_bytes());
        b.extend([0xcc; 2]);
        b.extend(self.conn_flags.to_ne_bytes());
        b.extend(self.weight.to_ne_bytes());
        b.extend(self.upper.to_ne_bytes());
        b.extend(self.lower.to_ne_bytes());
        b
    }
}

/// A number at an offset of an answer.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_ne_bytes([bytes[at], bytes[at + 1]])
}

/// A number at an offset of an answer.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A number at an offset of an answer.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)
}

/// An address at one offset and a port at another.
pub fn addr_at(bytes: &[u8], addr: usize, port: usize) -> SocketAddrV4 {
    let ip = Ipv4Addr::new(
        bytes[addr],
        bytes[addr + 1],
        bytes[addr + 2],
        bytes[addr + 3],
    );
    SocketAddrV4::new(ip, u16::from_be_bytes([bytes[port], bytes[port + 1]]))
}

fn outcome(code: i32) -> Result<(), i32> {
    if code == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or_default())
    }
}

/// A raw IPv4 socket of one namespace.
#[derive(Debug)]
pub struct Sockopt(OwnedFd);

impl Sockopt {
    pub fn open(ns: &Ns) -> Result<Self> {
        ns.run(|| {
            // SAFETY: no pointers.
            let fd = unsafe {
                libc::socket(
                    libc::AF_INET,
                    libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                    libc::IPPROTO_RAW,
                )
            };
            outcome(fd.min(0))
                .map_err(std::io::Error::from_raw_os_error)
                .context("raw socket")?;
            // SAFETY: the descriptor was just made and belongs to nobody else.
            Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
        })
    }

    /// Sets an option; the error is its errno.
    pub fn set(&self, number: i32, bytes: &[u8]) -> Result<(), i32> {
        // SAFETY: the pointer and the length are those of a slice.
        unsafe { self.set_raw(number, bytes.as_ptr(), bytes.len() as u32) }
    }

    /// As [`Sockopt::set`] from anywhere.
    ///
    /// # Safety
    ///
    /// The kernel only reads, and finds out by itself what it cannot read.
    pub unsafe fn set_raw(&self, number: i32, from: *const u8, len: u32) -> Result<(), i32> {
        // SAFETY: the kernel reads at most `len` bytes.
        outcome(unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_IP,
                number,
                from.cast(),
                len,
            )
        })
    }

    /// Asks for an option, with a buffer for question and answer; returns the length that the kernel
    /// says.
    pub fn get(&self, number: i32, buffer: &mut [u8]) -> Result<usize, i32> {
        // SAFETY: the pointer and the length are those of a slice.
        unsafe { self.get_raw(number, buffer.as_mut_ptr(), buffer.len() as u32) }
    }

    /// As [`Sockopt::get`] to anywhere.
    ///
    /// # Safety
    ///
    /// `to` must be valid for writes of `len` bytes, or not be the program's to write.
    pub unsafe fn get_raw(&self, number: i32, to: *mut u8, len: u32) -> Result<usize, i32> {
        let mut len = len;
        // SAFETY: by the requirement; `len` is a live number.
        outcome(unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::IPPROTO_IP,
                number,
                to.cast(),
                &mut len,
            )
        })?;
        Ok(len as usize)
    }

    /// The services: what `SERVICES` answers to whoever has room for `n`.
    pub fn services(&self, n: usize) -> Result<Vec<[u8; SERVICE_ENTRY_LEN]>, i32> {
        let mut buffer = vec![0; 8 + n * SERVICE_ENTRY_LEN];
        buffer[..4].copy_from_slice(&(n as u32).to_ne_bytes());
        self.get(get::SERVICES, &mut buffer)?;
        Ok(entries(&buffer[8..]))
    }

    /// The destinations of a service: what `DESTS` answers to whoever has room for `n`.
    pub fn dests(&self, service: &Service, n: usize) -> Result<Vec<[u8; DEST_ENTRY_LEN]>, i32> {
        let mut buffer = service.bytes()[..16].to_vec();
        buffer.extend((n as u32).to_ne_bytes());
        buffer.resize(24 + n * DEST_ENTRY_LEN, 0);
        self.get(get::DESTS, &mut buffer)?;
        Ok(entries(&buffer[24..]))
    }

    /// One service.
    pub fn service(&self, service: &Service) -> Result<[u8; SERVICE_ENTRY_LEN], i32> {
        let mut buffer = [0; SERVICE_ENTRY_LEN];
        buffer[..16].copy_from_slice(&service.bytes()[..16]);
        self.get(get::SERVICE, &mut buffer)?;
        Ok(buffer)
    }

    /// Version, size of the connection table, number of services.
    pub fn info(&self) -> Result<[u32; 3], i32> {
        let mut buffer = [0; 12];
        self.get(get::INFO, &mut buffer)?;
        Ok([0, 4, 8].map(|at| u32_at(&buffer, at)))
    }
}

/// Cuts a table into its entries, up to the first that was not filled.
fn entries<const N: usize>(table: &[u8]) -> Vec<[u8; N]> {
    table
        .chunks_exact(N)
        .filter_map(|entry| <[u8; N]>::try_from(entry).ok())
        .take_while(|entry| entry.iter().any(|byte| *byte != 0))
        .collect()
}
