// SPDX-License-Identifier: GPL-2.0-only

//! The structures of the socket options, as bytes: what they are read from and written to.
//!
//! C: `struct ip_vs_service_user` and the others of `include/uapi/linux/ip_vs.h`, as a 64-bit machine lays them out.
//! Addresses, ports and netmasks are in memory order, everything else in host order. Padding is zero when it is written
//! and ignored when it is read.

use crate::{
    addr::{
        Be16,
        Be32, //
    },
    estimate::{
        Counters,
        Shown, //
    },
    uapi::{
        IFNAME_MAXLEN,
        SCHEDNAME_MAXLEN,
        VERSION_CODE, //
    },
};

/// Takes fields off the front of a structure.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; zeros past the end.
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => [0; N],
        }
    }

    fn u16(&mut self) -> u16 {
        u16::from_ne_bytes(self.bytes())
    }

    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.bytes())
    }

    fn i32(&mut self) -> i32 {
        i32::from_ne_bytes(self.bytes())
    }

    /// A 16-bit field and the two bytes that align the next one.
    fn padded_u16(&mut self) -> u16 {
        let value = self.u16();
        self.u16();
        value
    }
}

/// Puts fields into a structure of `N` bytes, one after the other.
struct Filler<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Filler<N> {
    const fn new() -> Self {
        Filler {
            bytes: [0; N],
            at: 0,
        }
    }

    /// Adds a field; what does not fit is left out.
    fn put(&mut self, field: &[u8]) -> &mut Self {
        let room = self.bytes.get_mut(self.at..).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(field) {
            *to = *from;
        }
        self.at = self.at.saturating_add(field.len());
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_ne_bytes())
    }

    /// A 16-bit field and the two bytes that align the next one.
    fn padded_u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_ne_bytes()).put(&[0; 2])
    }
}

/// The text in a field that is to end in NUL; `None` if it does not.
pub fn text(field: &[u8]) -> Option<&[u8]> {
    let end = field.iter().position(|byte| *byte == 0)?;
    field.get(..end)
}

/// A service to change or to look for; C `struct ip_vs_service_user`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceUser {
    /// IP protocol.
    pub protocol: u16,
    /// Virtual address.
    pub addr: Be32,
    /// Virtual port.
    pub port: Be16,
    /// Firewall mark, or zero.
    pub fwmark: u32,
    /// Scheduler, to read with [`text()`].
    pub sched_name: [u8; SCHEDNAME_MAXLEN],
    /// Flags of [`super::svc_flag`].
    pub flags: u32,
    /// Persistence timeout in seconds.
    pub timeout: u32,
    /// Which clients persistence takes for one.
    pub netmask: Be32,
}

impl ServiceUser {
    /// Bytes of the structure.
    pub const LEN: usize = 44;

    fn read(fields: &mut Fields<'_>) -> Self {
        ServiceUser {
            protocol: fields.padded_u16(),
            addr: fields.u32(),
            port: fields.padded_u16(),
            fwmark: fields.u32(),
            sched_name: fields.bytes(),
            flags: fields.u32(),
            timeout: fields.u32(),
            netmask: fields.u32(),
        }
    }

    /// Reads the structure.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self::read(&mut Fields(bytes))
    }
}

/// A destination to change; C `struct ip_vs_dest_user`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DestUser {
    /// Address.
    pub addr: Be32,
    /// Port.
    pub port: Be16,
    /// Flags of [`super::conn_flag`].
    pub conn_flags: u32,
    /// Weight.
    pub weight: i32,
    /// Upper connection threshold.
    pub u_threshold: u32,
    /// Lower connection threshold.
    pub l_threshold: u32,
}

/// A destination with its service; C `struct ip_vs_svcdest_user`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SvcDestUser {
    /// Which service; the rest of it means nothing.
    pub service: ServiceUser,
    /// The destination.
    pub dest: DestUser,
}

impl SvcDestUser {
    /// Bytes of the structure.
    pub const LEN: usize = ServiceUser::LEN + 24;

    /// Reads the structure.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut fields = Fields(bytes);
        SvcDestUser {
            service: ServiceUser::read(&mut fields),
            dest: DestUser {
                addr: fields.u32(),
                port: fields.padded_u16(),
                conn_flags: fields.u32(),
                weight: fields.i32(),
                u_threshold: fields.u32(),
                l_threshold: fields.u32(),
            },
        }
    }
}

/// Timeouts in seconds; C `struct ip_vs_timeout_user`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeoutUser {
    /// Of established TCP connections.
    pub tcp: i32,
    /// Of TCP connections after a FIN.
    pub tcp_fin: i32,
    /// Of UDP.
    pub udp: i32,
}

impl TimeoutUser {
    /// Bytes of the structure.
    pub const LEN: usize = 12;

    /// Reads the structure.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut fields = Fields(bytes);
        TimeoutUser {
            tcp: fields.i32(),
            tcp_fin: fields.i32(),
            udp: fields.i32(),
        }
    }

    /// The structure.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut to = Filler::new();
        to.u32(self.tcp as u32)
            .u32(self.tcp_fin as u32)
            .u32(self.udp as u32);
        to.bytes
    }
}

/// A synchronisation daemon; C `struct ip_vs_daemon_user`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DaemonUser {
    /// A number of [`super::daemon_state`].
    pub state: i32,
    /// Interface, to read with [`text()`].
    pub mcast_ifn: [u8; IFNAME_MAXLEN],
    /// What tells directors' groups apart.
    pub syncid: i32,
}

impl DaemonUser {
    /// Bytes of the structure.
    pub const LEN: usize = 24;

    /// Reads the structure.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut fields = Fields(bytes);
        DaemonUser {
            state: fields.i32(),
            mcast_ifn: fields.bytes(),
            syncid: fields.i32(),
        }
    }

    /// The structure.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut to = Filler::new();
        to.u32(self.state as u32)
            .put(&self.mcast_ifn)
            .u32(self.syncid as u32);
        to.bytes
    }
}

/// What [`super::so_get::INFO`] answers; C `struct ip_vs_getinfo`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetInfo {
    /// Buckets of the connection table.
    pub size: u32,
    /// How many IPv4 services there are.
    pub num_services: u32,
}

impl GetInfo {
    /// Bytes of the structure.
    pub const LEN: usize = 12;

    /// The structure, with the version.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut to = Filler::new();
        to.u32(VERSION_CODE).u32(self.size).u32(self.num_services);
        to.bytes
    }
}

/// What [`super::so_get::SERVICES`] asks: how many; C `struct ip_vs_get_services` without its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetServices {
    /// For how many services the caller has room.
    pub num_services: u32,
}

impl GetServices {
    /// Bytes before the table.
    pub const LEN: usize = 8;

    /// Reads the structure.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        GetServices {
            num_services: Fields(bytes).u32(),
        }
    }

    /// Bytes of the whole answer.
    pub const fn whole(&self) -> u64 {
        (Self::LEN as u64)
            .saturating_add((ServiceEntry::LEN as u64).saturating_mul(self.num_services as u64))
    }
}

/// What [`super::so_get::DESTS`] asks: how many of which service; C `struct ip_vs_get_dests` without its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GetDests {
    /// IP protocol.
    pub protocol: u16,
    /// Virtual address.
    pub addr: Be32,
    /// Virtual port.
    pub port: Be16,
    /// Firewall mark, or zero.
    pub fwmark: u32,
    /// For how many destinations the caller has room.
    pub num_dests: u32,
}

impl GetDests {
    /// Bytes before the table.
    pub const LEN: usize = 24;

    /// Reads the structure.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let mut fields = Fields(bytes);
        GetDests {
            protocol: fields.padded_u16(),
            addr: fields.u32(),
            port: fields.padded_u16(),
            fwmark: fields.u32(),
            num_dests: fields.u32(),
        }
    }

    /// Bytes of the whole answer.
    pub const fn whole(&self) -> u64 {
        (Self::LEN as u64)
            .saturating_add((DestEntry::LEN as u64).saturating_mul(self.num_dests as u64))
    }
}

/// Statistics; C `struct ip_vs_stats_user`, to which they are cut to 32 bits, but for bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatsUser {
    /// Counters.
    pub total: Counters,
    /// Rates.
    pub rates: Shown,
}

impl StatsUser {
    /// Bytes of the structure.
    pub const LEN: usize = 56;

    fn put<const N: usize>(&self, to: &mut Filler<N>) {
        let Counters {
            conns,
            inpkts,
            outpkts,
            inbytes,
            outbytes,
        } = self.total;
        to.u32(conns as u32)
            .u32(inpkts as u32)
            .u32(outpkts as u32)
            .u32(0)
            .u64(inbytes)
            .u64(outbytes);
        for rate in self.rates.all() {
            to.u32(rate as u32);
        }
        to.u32(0);
    }
}

/// A service as it is; C `struct ip_vs_service_entry`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceEntry<'a> {
    /// IP protocol.
    pub protocol: u16,
    /// Virtual address.
    pub addr: Be32,
    /// Virtual port.
    pub port: Be16,
    /// Firewall mark, or zero.
    pub fwmark: u32,
    /// Scheduler; cut to what leaves room for a NUL.
    pub sched_name: &'a str,
    /// Flags of [`super::svc_flag`].
    pub flags: u32,
    /// Persistence timeout in seconds.
    pub timeout: u32,
    /// Which clients persistence takes for one.
    pub netmask: Be32,
    /// How many destinations it has.
    pub num_dests: u32,
    /// Statistics.
    pub stats: StatsUser,
}

impl ServiceEntry<'_> {
    /// Bytes of the structure.
    pub const LEN: usize = 104;

    /// The structure.
    pub fn to_bytes(&self) -> [u8; ServiceEntry::LEN] {
        let mut name = [0; SCHEDNAME_MAXLEN];
        let room = name.iter_mut().take(SCHEDNAME_MAXLEN - 1);
        for (to, from) in room.zip(self.sched_name.as_bytes()) {
            *to = *from;
        }
        let mut to = Filler::new();
        to.padded_u16(self.protocol)
            .u32(self.addr)
            .padded_u16(self.port)
            .u32(self.fwmark)
            .put(&name)
            .u32(self.flags)
            .u32(self.timeout)
            .u32(self.netmask)
            .u32(self.num_dests);
        self.stats.put(&mut to);
        to.bytes
    }
}

/// What [`super::so_get::SERVICE`] asks: which service. The first members of C's `struct ip_vs_service_entry`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceQuery {
    /// IP protocol.
    pub protocol: u16,
    /// Virtual address.
    pub addr: Be32,
    /// Virtual port.
    pub port: Be16,
    /// Firewall mark, or zero.
    pub fwmark: u32,
}

impl ServiceQuery {
    /// Reads the members.
    pub fn from_bytes(bytes: &[u8; ServiceEntry::LEN]) -> Self {
        let mut fields = Fields(bytes);
        ServiceQuery {
            protocol: fields.padded_u16(),
            addr: fields.u32(),
            port: fields.padded_u16(),
            fwmark: fields.u32(),
        }
    }
}

/// A destination as it is; C `struct ip_vs_dest_entry`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DestEntry {
    /// Address.
    pub addr: Be32,
    /// Port.
    pub port: Be16,
    /// Flags of [`super::conn_flag`], those of new connections.
    pub conn_flags: u32,
    /// Weight.
    pub weight: i32,
    /// Upper connection threshold.
    pub u_threshold: u32,
    /// Lower connection threshold.
    pub l_threshold: u32,
    /// Active connections.
    pub activeconns: u32,
    /// Other connections.
    pub inactconns: u32,
    /// Persistence templates.
    pub persistconns: u32,
    /// Statistics.
    pub stats: StatsUser,
}

impl DestEntry {
    /// Bytes of the structure.
    pub const LEN: usize = 96;

    /// The structure.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut to = Filler::new();
        to.u32(self.addr)
            .padded_u16(self.port)
            .u32(self.conn_flags)
            .u32(self.weight as u32)
            .u32(self.u_threshold)
            .u32(self.l_threshold)
            .u32(self.activeconns)
            .u32(self.inactconns)
            .u32(self.persistconns)
            .u32(0);
        self.stats.put(&mut to);
        to.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offsets are those of C on a 64-bit machine: each field holds its own offset.
    #[test]
    fn service() {
        let mut bytes = [0xee; ServiceUser::LEN];
        bytes[0..2].copy_from_slice(&0_u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&4_u32.to_ne_bytes());
        bytes[8..10].copy_from_slice(&8_u16.to_ne_bytes());
        bytes[12..16].copy_from_slice(&12_u32.to_ne_bytes());
        bytes[16..32].copy_from_slice(b"wlc\0xxxxxxxxxxxx");
        for at in [32, 36, 40_u32] {
            bytes[at as usize..at as usize + 4].copy_from_slice(&at.to_ne_bytes());
        }
        let service = ServiceUser::from_bytes(&bytes);
        assert_eq!(
            service,
            ServiceUser {
                protocol: 0,
                addr: 4,
                port: 8,
                fwmark: 12,
                sched_name: *b"wlc\0xxxxxxxxxxxx",
                flags: 32,
                timeout: 36,
                netmask: 40,
            }
        );
        assert_eq!(text(&service.sched_name), Some(&b"wlc"[..]));
        assert_eq!(text(b"0123456789abcdef"), None);
        assert_eq!(text(b"\0"), Some(&b""[..]));

        let mut both = [0xee; SvcDestUser::LEN];
        both[..44].copy_from_slice(&bytes);
        for at in [44, 48, 52, 56, 60, 64_u32] {
            both[at as usize..at as usize + 4].copy_from_slice(&at.to_ne_bytes());
        }
        both[48..50].copy_from_slice(&48_u16.to_ne_bytes());
        both[50..52].fill(0xee);
        let both = SvcDestUser::from_bytes(&both);
        assert_eq!(both.service, service);
        assert_eq!(
            both.dest,
            DestUser {
                addr: 44,
                port: 48,
                conn_flags: 52,
                weight: 56,
                u_threshold: 60,
                l_threshold: 64,
            }
        );
    }

    #[test]
    fn small_ones() {
        let timeouts = TimeoutUser {
            tcp: -1,
            tcp_fin: 2,
            udp: i32::MAX,
        };
        let bytes = timeouts.to_bytes();
        assert_eq!(bytes[..4], [0xff; 4]);
        assert_eq!(bytes[4..8], 2_i32.to_ne_bytes());
        assert_eq!(TimeoutUser::from_bytes(&bytes), timeouts);

        let mut bytes = [0; DaemonUser::LEN];
        bytes[..4].copy_from_slice(&2_i32.to_ne_bytes());
        bytes[4..8].copy_from_slice(b"eth0");
        bytes[20..].copy_from_slice(&77_i32.to_ne_bytes());
        let daemon = DaemonUser::from_bytes(&bytes);
        assert_eq!((daemon.state, daemon.syncid), (2, 77));
        assert_eq!(text(&daemon.mcast_ifn), Some(&b"eth0"[..]));
        assert_eq!(daemon.to_bytes(), bytes);

        let info = GetInfo {
            size: 256,
            num_services: 3,
        };
        let words = info.to_bytes();
        assert_eq!(words[..4], 0x10201_u32.to_ne_bytes());
        assert_eq!(words[4..8], 256_u32.to_ne_bytes());
        assert_eq!(words[8..], 3_u32.to_ne_bytes());
    }

    #[test]
    fn questions() {
        let mut bytes = [0; GetServices::LEN];
        bytes[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        let get = GetServices::from_bytes(&bytes);
        assert_eq!(get.whole(), 8 + 104 * 0xffff_ffff_u64);
        assert_eq!(GetServices { num_services: 2 }.whole(), 216);

        let mut bytes = [0xee; GetDests::LEN];
        for at in [4, 12, 16_u32] {
            bytes[at as usize..at as usize + 4].copy_from_slice(&at.to_ne_bytes());
        }
        bytes[0..2].copy_from_slice(&17_u16.to_ne_bytes());
        bytes[8..10].copy_from_slice(&8_u16.to_ne_bytes());
        let get = GetDests::from_bytes(&bytes);
        assert_eq!(
            get,
            GetDests {
                protocol: 17,
                addr: 4,
                port: 8,
                fwmark: 12,
                num_dests: 16,
            }
        );
        assert_eq!(get.whole(), 24 + 96 * 16);

        let mut entry = [0xee; ServiceEntry::LEN];
        entry[..16].copy_from_slice(&bytes[..16]);
        let query = ServiceQuery::from_bytes(&entry);
        assert_eq!(
            (query.protocol, query.addr, query.port, query.fwmark),
            (17, 4, 8, 12)
        );
    }

    const STATS: StatsUser = StatsUser {
        total: Counters {
            conns: 0x1_0000_0001,
            inpkts: 2,
            outpkts: 3,
            inbytes: 0x4_0000_0004,
            outbytes: 5,
        },
        rates: Shown {
            cps: 6,
            inpps: 7,
            outpps: 8,
            inbps: 0x9_0000_0009,
            outbps: 10,
        },
    };

    /// The statistics above from `at` to the end.
    fn check_stats(bytes: &[u8]) {
        assert_eq!(bytes.len(), StatsUser::LEN);
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!([word(0), word(4), word(8), word(12)], [1, 2, 3, 0]);
        assert_eq!([long(16), long(24)], [0x4_0000_0004, 5]);
        assert_eq!(
            [word(32), word(36), word(40), word(44), word(48), word(52)],
            [6, 7, 8, 9, 10, 0]
        );
    }

    #[test]
    fn entries() {
        let entry = ServiceEntry {
            protocol: 6,
            addr: 0x0102_0304,
            port: 0x5060,
            fwmark: 7,
            sched_name: "wlc",
            flags: 2,
            timeout: 300,
            netmask: u32::MAX,
            num_dests: 9,
            stats: STATS,
        };
        let bytes = entry.to_bytes();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes[0..2], 6_u16.to_ne_bytes());
        assert_eq!(bytes[2..4], [0; 2]);
        assert_eq!(word(4), 0x0102_0304);
        assert_eq!(bytes[8..10], 0x5060_u16.to_ne_bytes());
        assert_eq!(bytes[10..12], [0; 2]);
        assert_eq!(word(12), 7);
        assert_eq!(&bytes[16..32], b"wlc\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(
            [word(32), word(36), word(40), word(44)],
            [2, 300, u32::MAX, 9]
        );
        check_stats(&bytes[48..]);
        let long = ServiceEntry {
            sched_name: "a name of more than sixteen bytes",
            ..entry
        };
        assert_eq!(&long.to_bytes()[16..32], b"a name of more \0");

        let entry = DestEntry {
            addr: 1,
            port: 0x5060,
            conn_flags: 3,
            weight: -4,
            u_threshold: 5,
            l_threshold: 6,
            activeconns: 7,
            inactconns: 8,
            persistconns: 9,
            stats: STATS,
        };
        let bytes = entry.to_bytes();
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), 1);
        assert_eq!(bytes[4..6], 0x5060_u16.to_ne_bytes());
        assert_eq!(bytes[6..8], [0; 2]);
        assert_eq!([word(8), word(12) as i32 as u32], [3, -4_i32 as u32]);
        for (n, at) in (5..10).zip((16..36).step_by(4)) {
            assert_eq!(word(at), n);
        }
        assert_eq!(word(36), 0);
        check_stats(&bytes[40..]);
    }
}
