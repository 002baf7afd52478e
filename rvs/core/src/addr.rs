// SPDX-License-Identifier: GPL-2.0-only

//! Addresses and ports as IPVS keeps them.
//!
//! C counterparts: `union nf_inet_addr`, `ipv6_addr_type()`, `ipv6_addr_prefix()`.

use core::fmt;

/// A 16-bit value in memory order, `__be16`: ports.
pub type Be16 = u16;

/// A 32-bit value in memory order, `__be32`: IPv4 addresses and netmasks.
pub type Be32 = u32;

/// An address family that IPVS balances.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// IPv4, `AF_INET`.
    V4,
    /// IPv6, `AF_INET6`.
    V6,
}

impl Family {
    /// The number Linux gives the family: `AF_INET` 2, `AF_INET6` 10.
    #[inline]
    pub const fn af(self) -> u16 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// The family of a Linux `AF_` number.
    #[inline]
    pub const fn from_af(af: u16) -> Option<Self> {
        match af {
            2 => Some(Family::V4),
            10 => Some(Family::V6),
            _ => None,
        }
    }

    /// Bytes in an address of the family.
    #[inline]
    pub const fn addr_len(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}

/// An IPv4 or IPv6 address; C `union nf_inet_addr`.
///
/// Four words in memory order. An IPv4 address is the first word, the rest is zero, so that two
/// addresses of one family are equal exactly when all 16 bytes are. The family itself is not
/// stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Addr(pub [u32; 4]);

impl Addr {
    /// `0.0.0.0` and `::`.
    pub const ZERO: Self = Addr([0; 4]);

    /// An IPv4 address from its word in memory order.
    #[inline]
    pub const fn v4(be: Be32) -> Self {
        Addr([be, 0, 0, 0])
    }

    /// An address from its 16 bytes on the wire (IPv4: 4 bytes and 12 zeros).
    #[inline]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Addr([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// An address from its bytes on the wire: as many as the family has, or more, of which the rest
    /// is ignored.
    #[inline]
    pub fn from_slice(family: Family, b: &[u8]) -> Option<Self> {
        match family {
            Family::V4 => Some(Addr::v4(u32::from_ne_bytes(*b.first_chunk()?))),
            Family::V6 => Some(Addr::from_bytes(*b.first_chunk()?)),
        }
    }

    /// The 16 bytes on the wire.
    #[inline]
    pub const fn bytes(&self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (
            a.to_ne_bytes(),
            b.to_ne_bytes(),
            c.to_ne_bytes(),
            d.to_ne_bytes(),
        );
        [
            a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1],
            d[2], d[3],
        ]
    }

    /// The IPv4 address in memory order.
    #[inline]
    pub const fn v4_be(&self) -> Be32 {
        self.0[0]
    }

    /// The words behind the first; zero if this is an IPv4 address.
    #[inline]
    pub const fn tail(&self) -> [u32; 3] {
        let [_, b, c, d] = self.0;
        [b, c, d]
    }

    /// An address from its first word, which is all of an IPv4 address, and the others.
    #[inline]
    pub const fn from_parts(first: u32, [b, c, d]: [u32; 3]) -> Self {
        Addr([first, b, c, d])
    }

    /// The IPv4 address as a number (`10.0.0.1` is `0x0a00_0001`).
    #[inline]
    pub const fn v4_host(&self) -> u32 {
        u32::from_be(self.0[0])
    }

    /// The two halves as 64-bit words, for hashing.
    #[inline]
    pub const fn words64(&self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [
            (a as u64) | ((b as u64) << 32),
            (c as u64) | ((d as u64) << 32),
        ]
    }

    /// Whether this is the unspecified address.
    #[inline]
    pub const fn is_zero(&self) -> bool {
        (self.0[0] | self.0[1] | self.0[2] | self.0[3]) == 0
    }

    /// The client part of a persistence key: the address cut to a service's netmask.
    ///
    /// `netmask` is what the service holds and netlink carries: for IPv4 the mask in memory order,
    /// for IPv6 the prefix length, of which more than 128 counts as 128.
    #[inline]
    pub fn masked(&self, family: Family, netmask: u32) -> Self {
        match family {
            Family::V4 => Addr::v4(self.v4_be() & netmask),
            Family::V6 => self.prefix(netmask),
        }
    }

    /// The first `len` bits, the others zero; C `ipv6_addr_prefix()`.
    #[inline]
    pub fn prefix(&self, len: u32) -> Self {
        let mut left = len;
        Addr(self.0.map(|word| {
            let bits = left.min(32);
            left = left.saturating_sub(32);
            // Shifting by 32 yields `None`: that word keeps nothing.
            word & u32::MAX
                .checked_shl(32_u32.saturating_sub(bits))
                .unwrap_or(0)
                .to_be()
        }))
    }

    /// IPv4 multicast, 224.0.0.0/4; C `ipv4_is_multicast()`.
    #[inline]
    pub const fn v4_is_multicast(&self) -> bool {
        self.v4_host() & 0xf000_0000 == 0xe000_0000
    }

    /// The limited broadcast address 255.255.255.255; C `ipv4_is_lbcast()`.
    #[inline]
    pub const fn v4_is_broadcast(&self) -> bool {
        self.v4_be() == u32::MAX
    }

    /// 0.0.0.0; C `ipv4_is_zeronet()`.
    #[inline]
    pub const fn v4_is_zero(&self) -> bool {
        self.v4_be() == 0
    }

    /// 127.0.0.0/8; C `ipv4_is_loopback()`.
    #[inline]
    pub const fn v4_is_loopback(&self) -> bool {
        self.v4_host() & 0xff00_0000 == 0x7f00_0000
    }

    /// What kind of IPv6 address this is; C `ipv6_addr_type()`.
    pub const fn v6_type(&self) -> V6Type {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (
            u32::from_be(a),
            u32::from_be(b),
            u32::from_be(c),
            u32::from_be(d),
        );

        // Neither 000 nor 111 in the first three bits: a global unicast address, the usual case.
        match a >> 29 {
            0 | 7 => {}
            _ => return V6Type(V6Type::UNICAST.0),
        }
        if a & 0xff00_0000 == 0xff00_0000 {
            return V6Type::MULTICAST;
        }
        if a & 0xffc0_0000 == 0xfe80_0000 {
            return V6Type(V6Type::LINKLOCAL.0 | V6Type::UNICAST.0);
        }
        if a & 0xffc0_0000 == 0xfec0_0000 {
            return V6Type(V6Type::SITELOCAL.0 | V6Type::UNICAST.0);
        }
        match (a, b, c, d) {
            (0, 0, 0, 0) => V6Type::ANY,
            (0, 0, 0, 1) => V6Type(V6Type::LOOPBACK.0 | V6Type::UNICAST.0),
            (0, 0, 0, _) => V6Type(V6Type::COMPAT_V4.0 | V6Type::UNICAST.0),
            (0, 0, 0xffff, _) => V6Type::MAPPED,
            _ => V6Type::UNICAST,
        }
    }
}

/// Kinds of IPv6 addresses, a bit set; C `IPV6_ADDR_*`, without the scopes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct V6Type(u16);

impl V6Type {
    /// `::`.
    pub const ANY: Self = V6Type(0);
    /// Any unicast address, which includes link-local and loopback, but not IPv4-mapped.
    pub const UNICAST: Self = V6Type(0x0001);
    /// ff00::/8.
    pub const MULTICAST: Self = V6Type(0x0002);
    /// `::1`.
    pub const LOOPBACK: Self = V6Type(0x0010);
    /// fe80::/10.
    pub const LINKLOCAL: Self = V6Type(0x0020);
    /// fec0::/10.
    pub const SITELOCAL: Self = V6Type(0x0040);
    /// ::/96, but `::` and `::1`.
    pub const COMPAT_V4: Self = V6Type(0x0080);
    /// ::ffff:0:0/96.
    pub const MAPPED: Self = V6Type(0x1000);

    /// Whether all bits of `kind` are set; of [`V6Type::ANY`], whether none is.
    #[inline]
    pub const fn is(self, kind: V6Type) -> bool {
        if kind.0 == 0 {
            self.0 == 0
        } else {
            self.0 & kind.0 == kind.0
        }
    }

    /// Whether a destination may have such an address even though no route says it is local:
    /// unicast and not link-local. Part of C `ip_vs_new_dest()`.
    #[inline]
    pub const fn is_remote_dest(self) -> bool {
        self.is(V6Type::UNICAST) && !self.is(V6Type::LINKLOCAL)
    }
}

/// An address with its family, for people: `10.0.0.1`, `2001:db8::1` (as `%pI4` and `%pI6c`).
#[derive(Clone, Copy, Debug)]
pub struct Pretty<'a>(pub Family, pub &'a Addr);

impl fmt::Display for Pretty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Family::V4 => core::net::Ipv4Addr::from_bits(self.1.v4_host()).fmt(f),
            Family::V6 => core::net::Ipv6Addr::from(self.1.bytes()).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{
        Ipv4Addr,
        Ipv6Addr, //
    };
    use proptest::prelude::*;
    use std::string::ToString;

    fn v6(text: &str) -> Addr {
        Addr::from_bytes(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    fn v4(text: &str) -> Addr {
        Addr::from_slice(Family::V4, &text.parse::<Ipv4Addr>().unwrap().octets()).unwrap()
    }

    #[test]
    fn families() {
        assert_eq!((Family::V4.af(), Family::V6.af()), (2, 10));
        assert_eq!(Family::from_af(2), Some(Family::V4));
        assert_eq!(Family::from_af(10), Some(Family::V6));
        for af in [0, 1, 3, 9, 11, 0x200, 0xffff] {
            assert_eq!(Family::from_af(af), None);
        }
        assert_eq!((Family::V4.addr_len(), Family::V6.addr_len()), (4, 16));
    }

    #[test]
    fn bytes_and_words() {
        let a = v4("192.0.2.1");
        assert_eq!(a.bytes()[..5], [192, 0, 2, 1, 0]);
        assert_eq!(a.v4_host(), 0xc000_0201);
        assert_eq!(a.v4_be(), 0xc000_0201_u32.to_be());
        assert_eq!(a, Addr::v4(a.v4_be()));
        assert!(!a.is_zero() && Addr::ZERO.is_zero() && !v6("::1").is_zero());
        assert_eq!(Addr::from_slice(Family::V4, &[1, 2, 3]), None);
        assert_eq!(Addr::from_slice(Family::V6, &[0; 15]), None);
        // Longer than needed, as netlink may have it.
        assert_eq!(Addr::from_slice(Family::V4, &[192, 0, 2, 1, 9, 9]), Some(a));
    }

    #[test]
    fn v4_masks() {
        let mask = |bits: u32| u32::MAX.checked_shl(32 - bits).unwrap_or(0).to_be();
        let a = v4("10.1.2.3");
        assert_eq!(a.masked(Family::V4, mask(32)), a);
        assert_eq!(a.masked(Family::V4, mask(24)), v4("10.1.2.0"));
        assert_eq!(a.masked(Family::V4, mask(9)), v4("10.0.0.0"));
        assert_eq!(a.masked(Family::V4, mask(0)), Addr::ZERO);
    }

    #[test]
    fn v6_prefixes() {
        let a = v6("2001:db8:1234:5678:9abc:def0:1234:5678");
        for (len, want) in [
            (0, "::"),
            (1, "::"),
            (3, "2000::"),
            (32, "2001:db8::"),
            (33, "2001:db8::"),
            (36, "2001:db8:1000::"),
            (64, "2001:db8:1234:5678::"),
            (65, "2001:db8:1234:5678:8000::"),
            (127, "2001:db8:1234:5678:9abc:def0:1234:5678"),
            (128, "2001:db8:1234:5678:9abc:def0:1234:5678"),
            (129, "2001:db8:1234:5678:9abc:def0:1234:5678"),
            (u32::MAX, "2001:db8:1234:5678:9abc:def0:1234:5678"),
        ] {
            assert_eq!(a.masked(Family::V6, len), v6(want), "/{len}");
        }
    }

    #[test]
    fn v4_kinds() {
        assert!(v4("224.0.0.81").v4_is_multicast() && v4("239.255.255.255").v4_is_multicast());
        assert!(!v4("223.255.255.255").v4_is_multicast() && !v4("240.0.0.0").v4_is_multicast());
        assert!(v4("255.255.255.255").v4_is_broadcast());
        assert!(!v4("10.255.255.255").v4_is_broadcast());
        assert!(v4("0.0.0.0").v4_is_zero() && !v4("0.0.0.1").v4_is_zero());
        assert!(v4("127.9.9.9").v4_is_loopback() && !v4("128.0.0.1").v4_is_loopback());
    }

    #[test]
    fn v6_kinds() {
        let unicast = [
            "2001:db8::1",
            "fc00::1",
            "fdff::",
            "fec0::1",
            "::1",
            "::2",
            "::192.0.2.1",
            "1::",
            "0:0:1::",
            "::1:0:0:0",
            "fe00::1",
        ];
        for a in unicast {
            let kind = v6(a).v6_type();
            assert!(kind.is(V6Type::UNICAST) && kind.is_remote_dest(), "{a}");
            assert!(!kind.is(V6Type::MULTICAST) && !kind.is(V6Type::ANY), "{a}");
        }
        for a in [
            "::",
            "ff02::1",
            "ff00::",
            "::ffff:192.0.2.1",
            "fe80::1",
            "febf::",
        ] {
            assert!(!v6(a).v6_type().is_remote_dest(), "{a}");
        }
        assert!(v6("::").v6_type().is(V6Type::ANY));
        assert!(v6("::1").v6_type().is(V6Type::LOOPBACK));
        assert!(!v6("::2").v6_type().is(V6Type::LOOPBACK));
        assert!(v6("::2").v6_type().is(V6Type::COMPAT_V4));
        assert!(v6("ff05::2").v6_type().is(V6Type::MULTICAST));
        assert!(v6("::ffff:0:1").v6_type() == V6Type::MAPPED);
        assert!(v6("fe80::1").v6_type().is(V6Type::LINKLOCAL));
        assert!(v6("fe80::1").v6_type().is(V6Type::UNICAST));
        assert!(v6("feff::1").v6_type().is(V6Type::SITELOCAL));
    }

    #[test]
    fn pretty() {
        assert_eq!(Pretty(Family::V4, &v4("10.0.0.1")).to_string(), "10.0.0.1");
        assert_eq!(
            Pretty(Family::V6, &v6("2001:db8::1")).to_string(),
            "2001:db8::1"
        );
    }

    proptest! {
        #[test]
        fn round_trips(b: [u8; 16]) {
            let a = Addr::from_bytes(b);
            prop_assert_eq!(a.bytes(), b);
            prop_assert_eq!(Addr::from_slice(Family::V6, &b), Some(a));
            prop_assert_eq!(a.words64() == [0, 0], a.is_zero());
        }

        #[test]
        fn prefixes_bit_by_bit(b: [u8; 16], len in 0..140_u32) {
            let got = Addr::from_bytes(b).prefix(len).bytes();
            for bit in 0..128 {
                let of = |b: &[u8; 16]| (b[bit / 8] >> (7 - bit % 8)) & 1;
                let want = if (bit as u32) < len { of(&b) } else { 0 };
                prop_assert_eq!(of(&got), want);
            }
        }
    }
}
