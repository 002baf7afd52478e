// SPDX-License-Identifier: GPL-2.0-only

//! What identifies a flow.

use crate::os::table::Key;
use rvs_core::{
    addr::{
        Addr,
        Be16, //
    },
    siphash,
};

/// Addresses, ports and protocol as a packet has them; all in memory order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuple {
    /// The source address.
    pub(crate) src: Addr,
    /// The destination address.
    pub(crate) dst: Addr,
    /// The source port.
    pub(crate) sport: Be16,
    /// The destination port.
    pub(crate) dport: Be16,
    /// The transport protocol.
    pub(crate) proto: u8,
    /// Whether the addresses are IPv6.
    pub(crate) v6: bool,
    /// Whether this is a persistence template's key, and no packet's flow.
    pub(crate) template: bool,
}

impl Tuple {
    /// The hash of the flow: SipHash-1-3, as the kernel uses it for tables (`hsiphash()` on 64 bits).
    #[inline(always)]
    pub(crate) fn hash(&self, key: &Key) -> u32 {
        self.long_hash(key) as u32
    }

    /// All of that hash.
    #[inline(always)]
    pub(crate) fn long_hash(&self, key: &Key) -> u64 {
        let rest = u64::from(self.sport)
            | u64::from(self.dport) << 16
            | u64::from(self.proto) << 32
            | u64::from(self.kind()) << 40;
        if self.v6 {
            let [a, b] = self.src.words64();
            let [c, d] = self.dst.words64();
            siphash::siphash13(key, &[a, b, c, d, rest])
        } else {
            let addrs = u64::from(self.src.v4_be()) | u64::from(self.dst.v4_be()) << 32;
            siphash::siphash13(key, &[addrs, rest])
        }
    }

    /// What flows of one protocol differ in, in one number.
    #[inline(always)]
    pub(super) fn kind(&self) -> u8 {
        u8::from(self.v6) | u8::from(self.template) << 1
    }

    /// Whether a [`Tuple::kind()`] is that of IPv6.
    #[inline(always)]
    pub(super) fn is_v6_kind(kind: u8) -> bool {
        kind & 1 != 0
    }

    /// The same flow seen from the other end.
    pub(crate) fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..*self
        }
    }
}
