// SPDX-License-Identifier: GPL-2.0-only

//! The outer IP header of a tunnel. Length, identification and IPv4's checksum are the sender's (`ip_local_out()`).

use crate::{
    addr::Addr,
    wire::{
        ipv4,
        ipv6, //
    }, //
};

/// What the outer header takes over from the inner one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Whether the packet may not be fragmented.
    pub df: bool,
}

impl Inner {
    /// From the first 20 bytes of an IPv4 header.
    pub const fn v4(header: &[u8; ipv4::HEADER_LEN]) -> Self {
        Inner {
            tos: header[1],
            ttl: header[8],
            df: header[6] & 0x40 != 0,
        }
    }

    /// From an IPv6 header. Its packets are fragmented by nobody, but what carries them may be.
    pub const fn v6(header: &[u8; ipv6::HEADER_LEN]) -> Self {
        Inner {
            tos: (header[0] << 4) | (header[1] >> 4),
            ttl: header[7],
            df: false,
        }
    }

    /// The outer type of service, by RFC 3168: "congestion experienced" stays inside; C `INET_ECN_encapsulate()`.
    pub const fn outer_tos(self) -> u8 {
        const MASK: u8 = 3;
        const CE: u8 = 3;
        const ECT_0: u8 = 2;

        match self.tos & MASK {
            CE => (self.tos & !MASK) | ECT_0,
            _ => self.tos,
        }
    }

    /// An IPv4 header in front.
    pub const fn in_v4(self, proto: u8, src: &Addr, dst: &Addr) -> [u8; ipv4::HEADER_LEN] {
        let [s0, s1, s2, s3] = src.v4_be().to_ne_bytes();
        let [d0, d1, d2, d3] = dst.v4_be().to_ne_bytes();
        let frag = if self.df { 0x40 } else { 0 };
        [
            0x45,
            self.outer_tos(),
            0,
            0,
            0,
            0,
            frag,
            0,
            self.ttl,
            proto,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ]
    }

    /// An IPv6 header in front.
    pub fn in_v6(self, proto: u8, src: &Addr, dst: &Addr) -> [u8; ipv6::HEADER_LEN] {
        let mut header = [0; ipv6::HEADER_LEN];
        let tos = self.outer_tos();
        let (fixed, addrs) = header.split_at_mut(8);
        let (from, to) = addrs.split_at_mut(16);
        fixed.copy_from_slice(&[0x60 | (tos >> 4), tos << 4, 0, 0, 0, 0, proto, self.ttl]);
        from.copy_from_slice(&src.bytes());
        to.copy_from_slice(&dst.bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;

    #[test]
    fn ecn() {
        let outer = |tos| {
            Inner {
                tos,
                ttl: 1,
                df: false,
            }
            .outer_tos()
        };
        assert_eq!(
            [0, 1, 2, 3, 0xb8, 0xbb].map(outer),
            [0, 1, 2, 2, 0xb8, 0xba]
        );
    }

    #[test]
    fn headers() {
        let inner = Inner::v4(&[
            0x45, 0x28, 0, 40, 1, 2, 0x40, 0, 63, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        assert_eq!(
            inner,
            Inner {
                tos: 0x28,
                ttl: 63,
                df: true
            }
        );
        let v4 = |a: [u8; 4]| Addr::from_slice(Family::V4, &a).unwrap();
        let outer = inner.in_v4(4, &v4([1, 2, 3, 4]), &v4([5, 6, 7, 8]));
        assert_eq!(
            outer,
            [0x45, 0x28, 0, 0, 0, 0, 0x40, 0, 63, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
        );
        let v6 = |last: u8| {
            let mut a = [0; 16];
            a[0] = 0xfd;
            a[15] = last;
            Addr::from_slice(Family::V6, &a).unwrap()
        };
        let outer = inner.in_v6(41, &v6(1), &v6(2));
        assert_eq!(outer[..8], [0x62, 0x80, 0, 0, 0, 0, 41, 63]);
        assert_eq!(
            (outer[8], outer[23], outer[24], outer[39]),
            (0xfd, 1, 0xfd, 2)
        );
        assert_eq!(Inner::v6(&outer), Inner { df: false, ..inner });
    }
}
