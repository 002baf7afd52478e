// SPDX-License-Identifier: GPL-2.0-only

//! The numbers that userspace knows; C header: `include/uapi/linux/ip_vs.h`.
//!
//! One module per C enum, without its prefix: `IPVS_SVC_ATTR_AF` is [`svc_attr::AF`].

#![allow(missing_docs)]

pub mod ext;
pub mod sockopt;

/// Version 1.2.1; C `IP_VS_VERSION_CODE`.
pub const VERSION_CODE: u32 = 0x0001_0201;

/// The version as three numbers; C `NVERSION()`.
pub const VERSION: (u8, u8, u8) = (1, 2, 1);

/// Generic netlink family name; C `IPVS_GENL_NAME`.
pub const GENL_NAME: &str = "IPVS";
/// Generic netlink family version; C `IPVS_GENL_VERSION`.
pub const GENL_VERSION: u8 = 1;

/// Bytes of a scheduler name with its NUL; C `IP_VS_SCHEDNAME_MAXLEN`.
pub const SCHEDNAME_MAXLEN: usize = 16;
/// Bytes of the name of a persistence engine; C `IP_VS_PENAME_MAXLEN`. Netlink allows that many
/// without the NUL.
pub const PENAME_MAXLEN: usize = 16;
/// Bytes of an interface name with its NUL; C `IP_VS_IFNAME_MAXLEN`.
pub const IFNAME_MAXLEN: usize = 16;
/// Bytes of persistence engine data; C `IP_VS_PEDATA_MAXLEN`.
pub const PEDATA_MAXLEN: usize = 255;

/// Port 21, in memory order; C `FTPPORT`.
pub const FTP_PORT: crate::addr::Be16 = 21_u16.to_be();
/// Port 20, in memory order; C `FTPDATA`.
pub const FTP_DATA_PORT: crate::addr::Be16 = 20_u16.to_be();

/// Generic netlink commands; C `IPVS_CMD_*`.
pub mod cmd {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    /// Only the reply to `GET_INFO`.
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
    pub const MAX: u8 = 17;
    /// Adds a local address to a service's pool. This and the next two are Alibaba's numbers.
    pub const NEW_LADDR: u8 = 18;
    pub const DEL_LADDR: u8 = 19;
    /// A dump: a `NEW_LADDR` for each address.
    pub const GET_LADDR: u8 = 20;
}

/// Attributes of commands; C `IPVS_CMD_ATTR_*`.
pub mod attr {
    /// Nested, of [`super::svc_attr`].
    pub const SERVICE: u16 = 1;
    /// Nested, of [`super::dest_attr`].
    pub const DEST: u16 = 2;
    /// Nested, of [`super::daemon_attr`].
    pub const DAEMON: u16 = 3;
    /// `u32`, seconds.
    pub const TIMEOUT_TCP: u16 = 4;
    /// `u32`, seconds.
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    /// `u32`, seconds.
    pub const TIMEOUT_UDP: u16 = 6;
    /// Nested, of [`super::laddr_attr`]; Alibaba's number.
    pub const LADDR: u16 = 7;
    pub const MAX: u16 = 7;
}

/// Attributes of a service; C `IPVS_SVC_ATTR_*`.
pub mod svc_attr {
    /// `u16`, `AF_INET` or `AF_INET6`.
    pub const AF: u16 = 1;
    /// `u16`, host order.
    pub const PROTOCOL: u16 = 2;
    /// Up to 16 bytes.
    pub const ADDR: u16 = 3;
    /// `u16`, network order.
    pub const PORT: u16 = 4;
    /// `u32`, host order.
    pub const FWMARK: u16 = 5;
    /// String.
    pub const SCHED_NAME: u16 = 6;
    /// Two `u32`: flags of [`super::svc_flag`], mask.
    pub const FLAGS: u16 = 7;
    /// `u32`, seconds.
    pub const TIMEOUT: u16 = 8;
    /// `u32`: IPv4 mask in network order, IPv6 prefix length in host order.
    pub const NETMASK: u16 = 9;
    /// Nested, of [`super::stats`], with `u32` numbers but for bytes.
    pub const STATS: u16 = 10;
    /// String.
    pub const PE_NAME: u16 = 11;
    /// Nested, of [`super::stats`], with `u64` numbers.
    pub const STATS64: u16 = 12;
    pub const MAX: u16 = 12;

    /// Not C's: 4 bytes of address in network order, `u8` prefix length, three zeros. See [`crate::tunnel::Sources`].
    pub const TUN_SOURCES_V4: u16 = 64;
    /// Not C's: 16 bytes of address, `u8` prefix length, three zeros.
    pub const TUN_SOURCES_V6: u16 = 65;
    /// Not C's: `u8`, whether segments are made to fit.
    pub const TUN_MSS: u16 = 66;
}

/// Attributes of a service that rvs alone has: FullNAT. Absent in a request: as it was.
pub mod svc_fullnat {
    /// `u8`: kind of the TCP option that carries the client's address; 0: none.
    pub const TOA_KIND: u16 = 72;
    /// `u8`: not 0: on SYNs, too.
    pub const TOA_SYN: u16 = 73;
    /// `u8`: version of the PROXY protocol, 1 or 2; 0: none.
    pub const PROXY: u16 = 74;
    /// `u16`, host order: the lowest local port, not 0.
    pub const PORT_MIN: u16 = 75;
    /// `u16`, host order: the highest one, not below the lowest.
    pub const PORT_MAX: u16 = 76;
    /// `u32`, output only: how many local addresses there are.
    pub const LOCALS: u16 = 77;
    /// `u64`, output only: connections that there was no local port for.
    pub const EXHAUSTED: u16 = 78;
    /// `u64`, output only: segments that got the option.
    pub const TOA_ADDED: u16 = 79;
    /// `u64`, output only: segments that had no room for it.
    pub const TOA_NO_ROOM: u16 = 80;
    /// `u64`, output only: segments of which a client's own was removed.
    pub const TOA_REMOVED: u16 = 81;
    /// Filler.
    pub const PAD: u16 = 82;
}

/// Attributes of a destination that rvs alone has.
pub mod dest_fullnat {
    /// `u8`, output only: 1 if the destination was configured as FullNAT, which `FWD_METHOD` shows as NAT.
    pub const FULLNAT: u16 = 72;
}

/// Attributes of a local address; the first three are Alibaba's.
pub mod laddr_attr {
    /// Up to 16 bytes.
    pub const ADDR: u16 = 1;
    /// `u64`, output only: ports that were asked for and not free.
    pub const PORT_CONFLICT: u16 = 2;
    /// `u32`, output only: connections.
    pub const CONN_COUNTS: u16 = 3;
    /// `u8`: a prefix of this length, not one address.
    pub const PREFIX_LEN: u16 = 72;
    /// String: for packets that leave by this interface only.
    pub const IFNAME: u16 = 73;
    /// Filler.
    pub const PAD: u16 = 74;
}

/// Attributes of a destination; C `IPVS_DEST_ATTR_*`.
pub mod dest_attr {
    /// Up to 16 bytes.
    pub const ADDR: u16 = 1;
    /// `u16`, network order.
    pub const PORT: u16 = 2;
    /// `u32`, of [`super::FwdMethod`].
    pub const FWD_METHOD: u16 = 3;
    /// `u32`, read as `i32`.
    pub const WEIGHT: u16 = 4;
    /// `u32`.
    pub const U_THRESH: u16 = 5;
    /// `u32`.
    pub const L_THRESH: u16 = 6;
    /// `u32`, output only.
    pub const ACTIVE_CONNS: u16 = 7;
    /// `u32`, output only.
    pub const INACT_CONNS: u16 = 8;
    /// `u32`, output only.
    pub const PERSIST_CONNS: u16 = 9;
    /// Nested, as of a service.
    pub const STATS: u16 = 10;
    /// `u16`; absent or zero: the service's.
    pub const ADDR_FAMILY: u16 = 11;
    /// Nested, as of a service.
    pub const STATS64: u16 = 12;
    /// `u8`, of [`super::tun_type`].
    pub const TUN_TYPE: u16 = 13;
    /// `u16`, network order.
    pub const TUN_PORT: u16 = 14;
    /// `u16`, of [`super::tun_flag`].
    pub const TUN_FLAGS: u16 = 15;
    pub const MAX: u16 = 15;
}

/// Attributes of a sync daemon; C `IPVS_DAEMON_ATTR_*`.
pub mod daemon_attr {
    /// `u32`, of [`super::daemon_state`].
    pub const STATE: u16 = 1;
    /// String.
    pub const MCAST_IFN: u16 = 2;
    /// `u32`.
    pub const SYNC_ID: u16 = 3;
    /// `u16`.
    pub const SYNC_MAXLEN: u16 = 4;
    /// IPv4 address, network order.
    pub const MCAST_GROUP: u16 = 5;
    /// IPv6 address.
    pub const MCAST_GROUP6: u16 = 6;
    /// `u16`, host order.
    pub const MCAST_PORT: u16 = 7;
    /// `u8`.
    pub const MCAST_TTL: u16 = 8;
    pub const MAX: u16 = 8;
}

/// Attributes of statistics; C `IPVS_STATS_ATTR_*`.
pub mod stats {
    pub const CONNS: u16 = 1;
    pub const INPKTS: u16 = 2;
    pub const OUTPKTS: u16 = 3;
    pub const INBYTES: u16 = 4;
    pub const OUTBYTES: u16 = 5;
    pub const CPS: u16 = 6;
    pub const INPPS: u16 = 7;
    pub const OUTPPS: u16 = 8;
    pub const INBPS: u16 = 9;
    pub const OUTBPS: u16 = 10;
    /// Filler before a `u64` where the machine wants it aligned.
    pub const PAD: u16 = 11;
    pub const MAX: u16 = 11;
}

/// Attributes of the reply to [`cmd::GET_INFO`]; C `IPVS_INFO_ATTR_*`.
pub mod info_attr {
    /// `u32`, [`super::VERSION_CODE`].
    pub const VERSION: u16 = 1;
    /// `u32`, buckets of the connection table.
    pub const CONN_TAB_SIZE: u16 = 2;
    pub const MAX: u16 = 2;
}

/// Flags of a service; C `IP_VS_SVC_F_*`.
pub mod svc_flag {
    /// Clients stay with their destination.
    pub const PERSISTENT: u32 = 0x0001;
    /// The service is in the table; not for userspace to change.
    pub const HASHED: u32 = 0x0002;
    /// Schedule every UDP packet by itself.
    pub const ONEPACKET: u32 = 0x0004;
    pub const SCHED1: u32 = 0x0008;
    pub const SCHED2: u32 = 0x0010;
    pub const SCHED3: u32 = 0x0020;
    pub const SCHED_SH_FALLBACK: u32 = SCHED1;
    pub const SCHED_SH_PORT: u32 = SCHED2;
    pub const SCHED_MH_FALLBACK: u32 = SCHED1;
    pub const SCHED_MH_PORT: u32 = SCHED2;
}

/// States of a destination, kernel internal; C `IP_VS_DEST_CF_AVAILABLE`,
/// `IP_VS_DEST_F_OVERLOAD`.
pub mod dest_flag {
    pub const AVAILABLE: u32 = 0x0001;
    pub const OVERLOAD: u32 = 0x0002;
}

/// States of a sync daemon; C `IP_VS_STATE_*`.
pub mod daemon_state {
    pub const NONE: u32 = 0;
    pub const MASTER: u32 = 1;
    pub const BACKUP: u32 = 2;
}

/// Flags of a connection; C `IP_VS_CONN_F_*`.
pub mod conn_flag {
    /// The bits of the forwarding method.
    pub const FWD_MASK: u32 = 0x0007;
    /// FullNAT among the forwarding methods: the number of Alibaba's fork. To other clients it is NAT.
    pub const FULLNAT: u32 = 5;
    /// Made by the sync daemon.
    pub const SYNC: u32 = 0x0020;
    /// In the connection table.
    pub const HASHED: u32 = 0x0040;
    /// Replies do not pass here.
    pub const NOOUTPUT: u32 = 0x0080;
    /// Does not count as active.
    pub const INACTIVE: u32 = 0x0100;
    pub const OUT_SEQ: u32 = 0x0200;
    pub const IN_SEQ: u32 = 0x0400;
    pub const SEQ_MASK: u32 = 0x0600;
    /// The client port is not known yet.
    pub const NO_CPORT: u32 = 0x0800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    pub const ONE_PACKET: u32 = 0x2000;
    /// Keeps netfilter conntrack informed.
    pub const NFCT: u32 = 0x0001_0000;
    /// What a destination's configuration can set.
    pub const DEST_MASK: u32 = FWD_MASK | ONE_PACKET | NFCT;
    /// What a backup takes over with a new connection.
    pub const BACKUP_MASK: u32 = FWD_MASK | NOOUTPUT | INACTIVE | SEQ_MASK | NO_CPORT | TEMPLATE;
    /// What a backup takes over with a connection it knows.
    pub const BACKUP_UPD_MASK: u32 = INACTIVE | SEQ_MASK;
}

/// Types of tunnels; C `IP_VS_CONN_F_TUNNEL_TYPE_*`.
pub mod tun_type {
    pub const IPIP: u8 = 0;
    pub const GUE: u8 = 1;
    pub const GRE: u8 = 2;
    pub const MAX: u8 = 3;
}

/// Flags of tunnels; C `IP_VS_TUNNEL_ENCAP_FLAG_*`.
pub mod tun_flag {
    pub const NOCSUM: u16 = 0;
    pub const CSUM: u16 = 1;
    pub const REMCSUM: u16 = 2;
}

/// How packets get to a destination; the values of [`conn_flag::FWD_MASK`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum FwdMethod {
    /// NAT; C `IP_VS_CONN_F_MASQ`.
    Masq = 0,
    /// This host, by configuration; C `IP_VS_CONN_F_LOCALNODE`.
    Local = 1,
    /// Tunnel; C `IP_VS_CONN_F_TUNNEL`.
    Tunnel = 2,
    /// Direct routing; C `IP_VS_CONN_F_DROUTE`.
    Route = 3,
    /// To where the packet says, without a destination; C `IP_VS_CONN_F_BYPASS`.
    Bypass = 4,
}

impl FwdMethod {
    /// From connection or destination flags. Values 5 to 7 are legal to configure but have no
    /// transmitter.
    #[inline]
    pub const fn from_flags(flags: u32) -> Option<Self> {
        match flags & conn_flag::FWD_MASK {
            0 => Some(FwdMethod::Masq),
            1 => Some(FwdMethod::Local),
            2 => Some(FwdMethod::Tunnel),
            3 => Some(FwdMethod::Route),
            4 => Some(FwdMethod::Bypass),
            _ => None,
        }
    }

    /// The value in the flags.
    #[inline]
    pub const fn flags(self) -> u32 {
        self as u32
    }

    /// The name of a method in `/proc/net/ip_vs`, given flags; whatever is not another method is
    /// `Masq`. C `ip_vs_fwd_name()`.
    pub const fn name_of(flags: u32) -> &'static str {
        match Self::from_flags(flags) {
            Some(FwdMethod::Local) => "Local",
            Some(FwdMethod::Tunnel) => "Tunnel",
            Some(FwdMethod::Route) => "Route",
            _ => "Masq",
        }
    }
}

/// Socket options of level `SOL_IP`, set; C `IP_VS_SO_SET_*`.
pub mod so_set {
    pub const BASE: i32 = 64 + 1024 + 64;
    pub const NONE: i32 = BASE;
    pub const INSERT: i32 = BASE + 1;
    pub const ADD: i32 = BASE + 2;
    pub const EDIT: i32 = BASE + 3;
    pub const DEL: i32 = BASE + 4;
    pub const FLUSH: i32 = BASE + 5;
    pub const LIST: i32 = BASE + 6;
    pub const ADDDEST: i32 = BASE + 7;
    pub const DELDEST: i32 = BASE + 8;
    pub const EDITDEST: i32 = BASE + 9;
    pub const TIMEOUT: i32 = BASE + 10;
    pub const STARTDAEMON: i32 = BASE + 11;
    pub const STOPDAEMON: i32 = BASE + 12;
    pub const RESTORE: i32 = BASE + 13;
    pub const SAVE: i32 = BASE + 14;
    pub const ZERO: i32 = BASE + 15;
    pub const MAX: i32 = ZERO;
}

/// Socket options of level `SOL_IP`, get; C `IP_VS_SO_GET_*`.
pub mod so_get {
    pub const BASE: i32 = 64 + 1024 + 64;
    pub const VERSION: i32 = BASE;
    pub const INFO: i32 = BASE + 1;
    pub const SERVICES: i32 = BASE + 2;
    pub const SERVICE: i32 = BASE + 3;
    pub const DESTS: i32 = BASE + 4;
    pub const DEST: i32 = BASE + 5;
    pub const TIMEOUT: i32 = BASE + 6;
    pub const DAEMON: i32 = BASE + 7;
    pub const MAX: i32 = DAEMON;
}
