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
    /// The hash of the flow: SipHash-1-3, as the kernel uses it for tables (`hsiphash()` on 64 bits). It is the same for both
    /// directions, so that a connection whose packets are not rewritten needs one node only.
    #[inline(always)]
    pub(crate) fn hash(&self, key: &Key) -> u32 {
        self.long_hash(key) as u32
    }

    /// All of that hash.
    #[inline(always)]
    pub(crate) fn long_hash(&self, key: &Key) -> u64 {
        let what = u64::from(self.proto) << 48 | u64::from(self.kind()) << 56;
        if self.v6 {
            // Each word of one end beside that of the other: who is given one end (a service's) can make no more than eight flows of
            // the same words.
            let [a, b] = self.src.words64();
            let [c, d] = self.dst.words64();
            let ports = u64::from(self.sport.min(self.dport))
                | u64::from(self.sport.max(self.dport)) << 16
                | what;
            siphash::siphash13(key, &[a.min(c), a.max(c), b.min(d), b.max(d), ports])
        } else {
            let src = u64::from(self.src.v4_be()) | u64::from(self.sport) << 32;
            let dst = u64::from(self.dst.v4_be()) | u64::from(self.dport) << 32;
            siphash::siphash13(key, &[src.min(dst) | what, src.max(dst)])
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
