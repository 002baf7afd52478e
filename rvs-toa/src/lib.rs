// SPDX-License-Identifier: GPL-2.0-or-later

//! A reader of TOA for real servers: the address that a director puts into a TCP option is what an unmodified server gets
//! from `getpeername()` and `accept()`.
//!
//! The work is done by the BPF programs of `toa.bpf.c`, attached to a cgroup for as long as a [`Reader`] lives.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapError};
use aya::programs::{CgroupAttachMode, CgroupSockAddr, ProgramError, SockOps};
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::errno::Errno;
use nix::sys::statfs::{fstatfs, CGROUP2_SUPER_MAGIC};

mod error;

pub use error::Error;

/// The programs, compiled by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/toa.bpf.o"));

/// The size of `struct client`.
const CLIENT: usize = 20;

/// How many prefixes there may be: `max_entries` of the map.
pub const MOST_PREFIXES: usize = 1024;

/// Addresses of directors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    addr: Ipv6Addr,
    bits: u8,
}

impl Prefix {
    /// How many bits of an IPv6 address are the same for all; IPv4 addresses are mapped ones.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The first address.
    pub fn addr(self) -> Ipv6Addr {
        self.addr
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// `ADDRESS` or `ADDRESS/BITS`, with nothing behind the bits.
    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (text, None),
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| format!("{addr:?} is no IP address"))?;
        let (mapped, most) = match addr {
            IpAddr::V4(addr) => (addr.to_ipv6_mapped(), 32),
            IpAddr::V6(addr) => (addr, 128),
        };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("{bits:?} is no number of bits up to {most}"))?,
        };
        let bits = bits + (128 - most);
        let rest = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
        if u128::from(mapped) & rest != 0 {
            return Err(format!("{text} has bits behind its prefix"));
        }
        Ok(Self { addr: mapped, bits })
    }
}

/// What a [`Reader`] shall do.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose options are believed: the local addresses of the directors.
    pub from: Vec<Prefix>,
    /// The folder of a cgroup, version 2: sockets made by its processes, and those below, have their clients' addresses.
    pub cgroup: PathBuf,
    /// The option's kind.
    pub kind: u8,
}

/// How often what happened since the programs were attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections whose client became known.
    pub connections: u64,
    /// Times that a server was told a client's address.
    pub answers: u64,
    /// Connections from directors that began without the option.
    pub without: u64,
    /// Connections from elsewhere that began with it, which was ignored.
    pub refused: u64,
    /// Options that there was no memory for.
    pub no_memory: u64,
}

/// The attached programs: dropped, or gone with its process, they are detached.
pub struct Reader {
    bpf: Ebpf,
}

impl Reader {
    /// Loads the programs and attaches them. Needs the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN.
    pub fn attach(config: &Config) -> Result<Self, Error> {
        let cgroup = open_cgroup(&config.cgroup)?;
        if !may_load() {
            return Err(Error::Permission);
        }
        let mut bpf = EbpfLoader::new()
            // The programs touch no structure of the kernel's own.
            .btf(None)
            // Memory of sockets, which nobody but the programs looks at.
            .allow_unsupported_maps()
            .set_global("KIND", &config.kind, true)
            .load(OBJECT)
            .map_err(|e| loading(&e))?;
        let maps = |e: MapError| loading(&EbpfError::MapError(e));
        let mut directors: LpmTrie<_, [u8; 16], u32> = bpf
            .map_mut("directors")
            .ok_or(Error::Object)?
            .try_into()
            .map_err(maps)?;
        for prefix in &config.from {
            let key = Key::new(prefix.bits.into(), prefix.addr.octets());
            directors.insert(&key, 1, 0).map_err(maps)?;
        }
        const NAMES: [&str; 2] = ["toa_name4", "toa_name6"];
        const READ: &str = "toa_read";
        for name in NAMES {
            let program: &mut CgroupSockAddr = program(&mut bpf, name)?;
            program.load().map_err(|e| refused(name, &e))?;
        }
        let reading: &mut SockOps = program(&mut bpf, READ)?;
        reading.load().map_err(|e| refused(READ, &e))?;
        // From here on the programs hold it.
        keeps_memory(bpf.take_map("clients").ok_or(Error::Object)?)?;
        // Whoever asks before the first client is known is told what the kernel knows.
        for name in NAMES {
            let program: &mut CgroupSockAddr = program(&mut bpf, name)?;
            program
                .attach(&cgroup, CgroupAttachMode::Single)
                .map_err(|e| attaching(name, &config.cgroup, &e))?;
        }
        let reading: &mut SockOps = program(&mut bpf, READ)?;
        reading
            .attach(&cgroup, CgroupAttachMode::Single)
            .map_err(|e| attaching(READ, &config.cgroup, &e))?;
        Ok(Self { bpf })
    }

    /// What happened since.
    pub fn counts(&self) -> Result<Counts, Error> {
        let maps = |e: MapError| loading(&EbpfError::MapError(e));
        let map = self.bpf.map("counts").ok_or(Error::Object)?;
        let counts: Array<_, u64> = map.try_into().map_err(maps)?;
        let get = |n| counts.get(&n, 0).map_err(maps);
        Ok(Counts {
            connections: get(0)?,
            answers: get(1)?,
            without: get(2)?,
            refused: get(3)?,
            no_memory: get(4)?,
        })
    }
}

fn open_cgroup(path: &Path) -> Result<File, Error> {
    let io = |error: io::Error| Error::Cgroup {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(io)?;
    let kind = fstatfs(&file).map_err(|e| io(e.into()))?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        return Err(Error::NotCgroup2(path.to_owned()));
    }
    Ok(file)
}

/// Checks that the kernel keeps memory with a socket, by one of our own: some kernels can't on some processors (that of 7.3 where
/// two words can't be exchanged at once).
fn keeps_memory(clients: Map) -> Result<(), Error> {
    let Map::Unsupported(data) = clients else {
        return Err(Error::Object);
    };
    // The system call is that of any map with keys; the key is a file descriptor.
    let mut clients: HashMap<_, RawFd, [u8; CLIENT]> =
        Map::HashMap(data).try_into().map_err(|_| Error::Object)?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
        .map_err(|e| Error::Load(e.to_string()))?;
    match clients.insert(socket.as_raw_fd(), [0; CLIENT], 0) {
        Ok(()) => Ok(()),
        Err(e) if errno(&e) == Some(Errno::ENOMEM) => Err(Error::NoStorage),
        Err(e) => Err(loading(&EbpfError::MapError(e))),
    }
}

/// Whether the process has CAP_BPF, CAP_PERFMON (the programs look into packets) and CAP_NET_ADMIN, or CAP_SYS_ADMIN, which
/// stands for all of them. Without them some kernels allow the first steps and fail later with other errors.
fn may_load() -> bool {
    const NET_ADMIN: u32 = 12;
    const SYS_ADMIN: u32 = 21;
    const PERFMON: u32 = 38;
    const BPF: u32 = 39;
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        // Let the kernel say it.
        return true;
    };
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
    let Some(effective) = effective else {
        return true;
    };
    let has = |capability: u32| (effective >> capability) & 1 != 0;
    has(SYS_ADMIN) || [BPF, PERFMON, NET_ADMIN].into_iter().all(has)
}

fn program<'a, P>(bpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program>,
{
    let program = bpf.program_mut(name).ok_or(Error::Object)?;
    program.try_into().map_err(|_| Error::Object)
}

/// The system's error at the bottom of one of aya's.
fn errno(e: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return io.raw_os_error().map(Errno::from_raw);
        }
        next = e.source();
    }
    None
}

/// An error with all that caused it.
fn said(e: &(dyn std::error::Error + 'static)) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        text.push_str(": ");
        text.push_str(&e.to_string());
        next = e.source();
    }
    text
}

fn loading(e: &EbpfError) -> Error {
    match errno(e) {
        Some(Errno::EPERM) => Error::Permission,
        Some(Errno::ENOSYS) => Error::NoBpf,
        _ => Error::Load(said(e)),
    }
}

fn refused(program: &'static str, e: &ProgramError) -> Error {
    match errno(e) {
        Some(Errno::EPERM) => Error::Permission,
        Some(Errno::ENOSYS) => Error::NoBpf,
        _ => Error::Program {
            program,
            why: said(e),
        },
    }
}

fn attaching(program: &'static str, cgroup: &Path, e: &ProgramError) -> Error {
    match errno(e) {
        Some(Errno::EPERM) => Error::Taken {
            program,
            cgroup: cgroup.to_owned(),
        },
        Some(Errno::EINVAL) => Error::NoCgroupBpf,
        _ => Error::Attach {
            program,
            cgroup: cgroup.to_owned(),
            why: said(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Result<(String, u8), String> {
        let prefix: Prefix = text.parse()?;
        Ok((prefix.addr().to_string(), prefix.bits()))
    }

    #[test]
    fn prefixes() {
        let ok = |text, addr: &str, bits| assert_eq!(prefix(text), Ok((addr.to_owned(), bits)));
        ok("10.77.0.0/16", "::ffff:10.77.0.0", 112);
        ok("10.77.0.1", "::ffff:10.77.0.1", 128);
        ok("0.0.0.0/0", "::ffff:0.0.0.0", 96);
        ok("fd77::/64", "fd77::", 64);
        ok("fd77::1", "fd77::1", 128);
        ok("::/0", "::", 0);
        for (text, why) in [
            ("", "no IP address"),
            ("10.77.0.0/33", "number of bits up to 32"),
            ("fd77::/129", "number of bits up to 128"),
            ("10.77.0.0/", "number of bits"),
            ("10.77.0.0/-1", "number of bits"),
            ("10.77.0.1/16", "behind its prefix"),
            ("::1/0", "behind its prefix"),
            ("name/16", "no IP address"),
        ] {
            let said = prefix(text).expect_err(text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn what_caused_an_error_is_said() {
        let inner = io::Error::from_raw_os_error(1);
        let e = EbpfError::MapError(MapError::CreateError {
            name: "clients".to_owned(),
            code: -1,
            io_error: inner,
        });
        assert_eq!(errno(&e), Some(Errno::EPERM));
        assert!(said(&e).contains("Operation not permitted"), "{}", said(&e));
        assert!(matches!(loading(&e), Error::Permission));
    }
}
