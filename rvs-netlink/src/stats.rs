// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counters and rates (`IPVS_STATS_ATTR_*`).

attributes! {
    /// A member of a `STATS` nest: the old form, of which all but the byte counters wrap at 32 bits.
    pub enum StatsAttribute: "statistics" {
        /// Connections scheduled.
        Conns(u32 as Native) = 1,
        /// Packets from clients.
        InPkts(u32 as Native) = 2,
        /// Packets to clients.
        OutPkts(u32 as Native) = 3,
        /// Bytes from clients.
        InBytes(u64 as Native) = 4,
        /// Bytes to clients.
        OutBytes(u64 as Native) = 5,
        /// Connections a second.
        Cps(u32 as Native) = 6,
        /// Packets a second from clients.
        InPps(u32 as Native) = 7,
        /// Packets a second to clients.
        OutPps(u32 as Native) = 8,
        /// Bytes a second from clients.
        InBps(u32 as Native) = 9,
        /// Bytes a second to clients.
        OutBps(u32 as Native) = 10,
    }
}

attributes! {
    /// A member of a `STATS64` nest: the same numbers as [`StatsAttribute`], each of 64 bits.
    pub enum Stats64Attribute: "64-bit statistics" {
        /// Connections scheduled.
        Conns(u64 as Native) = 1,
        /// Packets from clients.
        InPkts(u64 as Native) = 2,
        /// Packets to clients.
        OutPkts(u64 as Native) = 3,
        /// Bytes from clients.
        InBytes(u64 as Native) = 4,
        /// Bytes to clients.
        OutBytes(u64 as Native) = 5,
        /// Connections a second.
        Cps(u64 as Native) = 6,
        /// Packets a second from clients.
        InPps(u64 as Native) = 7,
        /// Packets a second to clients.
        OutPps(u64 as Native) = 8,
        /// Bytes a second from clients.
        InBps(u64 as Native) = 9,
        /// Bytes a second to clients.
        OutBps(u64 as Native) = 10,
    }
}

/// Counters since the last zeroing, and rates as the kernel's estimator has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub in_pkts: u64,
    /// Packets to clients.
    pub out_pkts: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
    /// Connections a second.
    pub cps: u64,
    /// Packets a second from clients.
    pub in_pps: u64,
    /// Packets a second to clients.
    pub out_pps: u64,
    /// Bytes a second from clients.
    pub in_bps: u64,
    /// Bytes a second to clients.
    pub out_bps: u64,
}

macro_rules! from_attributes {
    ($($table:ident),*) => {$(
        impl From<&[$table]> for Stats {
            fn from(attributes: &[$table]) -> Self {
                let mut stats = Self::default();
                for attribute in attributes {
                    match attribute {
                        $table::Conns(v) => stats.conns = (*v).into(),
                        $table::InPkts(v) => stats.in_pkts = (*v).into(),
                        $table::OutPkts(v) => stats.out_pkts = (*v).into(),
                        $table::InBytes(v) => stats.in_bytes = *v,
                        $table::OutBytes(v) => stats.out_bytes = *v,
                        $table::Cps(v) => stats.cps = (*v).into(),
                        $table::InPps(v) => stats.in_pps = (*v).into(),
                        $table::OutPps(v) => stats.out_pps = (*v).into(),
                        $table::InBps(v) => stats.in_bps = (*v).into(),
                        $table::OutBps(v) => stats.out_bps = (*v).into(),
                        $table::Other(_) => {}
                    }
                }
                stats
            }
        }
    )*};
}
from_attributes!(StatsAttribute, Stats64Attribute);
