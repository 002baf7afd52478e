// SPDX-License-Identifier: GPL-2.0-only

//! FullNAT: what is decided about connections whose both ends are rewritten.
//!
//! The design is in `docs/fullnat.md`.

pub mod ports;
pub mod proxy;
pub mod tcp;
pub mod toa;

use crate::{
    addr::Family,
    checksum::udp_nonzero,
    nat::{
        L4Result,
        Truncated, //
    },
    wire::{
        ipv4::{
            self,
            Ipv4, //
        },
        ipv6::Ipv6,
        udp::Udp,
        Ports, //
    },
};
use tcp::Ends;

/// Rewrites both ports of a UDP header and its checksum; `partial`: that of the pseudo header.
#[inline]
pub fn rewrite_udp(l4: &mut [u8], ends: &Ends<'_>, partial: bool) -> Result<L4Result, Truncated> {
    let mut uh = Udp::parse_mut(l4).ok_or(Truncated)?;
    let old = uh.ports();
    uh.set_src(ends.ports.src);
    uh.set_dst(ends.ports.dst);
    let delta = ends.addresses();
    if partial {
        uh.set_check(delta.update_partial(uh.check()));
        return Ok(L4Result::Done);
    }
    if uh.check() == 0 {
        return Ok(L4Result::NeedsFullUdp);
    }
    let delta = delta
        .word16(old.src, ends.ports.src)
        .word16(old.dst, ends.ports.dst);
    uh.set_check(udp_nonzero(delta.update(uh.check())));
    Ok(L4Result::Done)
}

/// Sets both ports of a header whose checksum covers no addresses: SCTP's.
pub fn rewrite_ports(l4: &mut [u8], ends: &Ends<'_>) -> Result<L4Result, Truncated> {
    let header: &mut [u8; 12] = l4.first_chunk_mut().ok_or(Truncated)?;
    let [a, b, c, d, ..] = header;
    let old = Ports::from_bytes([*a, *b, *c, *d]);
    if old == ends.ports {
        return Ok(L4Result::Unchanged);
    }
    [*a, *b, *c, *d] = ends.ports.bytes();
    Ok(L4Result::NeedsSctpCrc)
}

/// Sets both addresses of the header at the start of `l3`, takes one from its time to live if `age`, and computes IPv4's
/// checksum anew.
#[inline]
pub fn rewrite_addresses(l3: &mut [u8], ends: &Ends<'_>, age: bool) -> Result<(), Truncated> {
    match ends.family {
        Family::V4 => {
            let len = Ipv4::parse(l3).ok_or(Truncated)?.header_len();
            let header = l3.get_mut(..len).ok_or(Truncated)?;
            let mut iph = Ipv4::parse_mut(header).ok_or(Truncated)?;
            iph.set_src(ends.new.0.v4_be());
            iph.set_dst(ends.new.1.v4_be());
            if age {
                iph.decrease_ttl();
            }
            ipv4::fill_checksum(header).ok_or(Truncated)
        }
        Family::V6 => {
            let mut iph = Ipv6::parse_mut(l3).ok_or(Truncated)?;
            iph.set_src(ends.new.0);
            iph.set_dst(ends.new.1);
            if age {
                iph.decrease_hop_limit();
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        addr::Addr,
        checksum, //
    };
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn udp_checksums_hold(words: [[u32; 4]; 4], ports: (u16, u16), payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let [a, b, c, d] = words.map(Addr);
            let mut packet: Vec<u8> = [1, 2, 3, 4, 0, 8 + payload.len() as u8, 0, 0].to_vec();
            packet.extend(&payload);
            let len = packet.len() as u32;
            let pseudo = |s, d, sum| checksum::pseudo(Family::V6, s, d, 17, len, sum);
            let sum = checksum::csum_partial(&packet, 0);
            let check = udp_nonzero(checksum::fold(pseudo(&a, &b, sum)));
            packet[6..8].copy_from_slice(&check.to_ne_bytes());
            let ends = Ends {
                family: Family::V6,
                old: (&a, &b),
                new: (&c, &d),
                ports: Ports { src: ports.0, dst: ports.1 },
            };
            let mut partial = packet.clone();
            prop_assert_eq!(rewrite_udp(&mut packet, &ends, false), Ok(L4Result::Done));
            let sum = checksum::csum_partial(&packet, 0);
            prop_assert_eq!(checksum::fold_sum(pseudo(&c, &d, sum)), 0xffff);

            let seed = checksum::fold_sum(pseudo(&a, &b, 0));
            partial[6..8].copy_from_slice(&seed.to_ne_bytes());
            rewrite_udp(&mut partial, &ends, true).unwrap();
            let now = u16::from_ne_bytes([partial[6], partial[7]]);
            prop_assert_eq!(now % 0xffff, checksum::fold_sum(pseudo(&c, &d, 0)) % 0xffff);

            packet[6..8].fill(0);
            prop_assert_eq!(rewrite_udp(&mut packet, &ends, false), Ok(L4Result::NeedsFullUdp));
            prop_assert_eq!(rewrite_udp(&mut packet[..7], &ends, false), Err(Truncated));
        }
    }

    #[test]
    fn addresses_and_ttl() {
        let (a, b, c) = (Addr::v4(1), Addr::v4(2), Addr::ZERO);
        let ends = |family| Ends {
            family,
            old: (&c, &c),
            new: (&a, &b),
            ports: Ports::default(),
        };
        let mut v4 = [0; 24];
        (v4[0], v4[8]) = (0x46, 9);
        rewrite_addresses(&mut v4, &ends(Family::V4), true).unwrap();
        assert_eq!(v4[8], 8);
        assert!(ipv4::checksum_ok(&v4));
        assert_eq!(
            rewrite_addresses(&mut v4[..23], &ends(Family::V4), true),
            Err(Truncated)
        );
        let mut v6 = [0; 40];
        (v6[0], v6[7]) = (0x60, 9);
        rewrite_addresses(&mut v6, &ends(Family::V6), false).unwrap();
        assert_eq!(v6[7], 9);
        assert_eq!(v6[24..40], b.bytes());
    }

    #[test]
    fn sctp_ports() {
        let ends = Ends {
            family: Family::V4,
            old: (&Addr::ZERO, &Addr::ZERO),
            new: (&Addr::ZERO, &Addr::ZERO),
            ports: Ports::from_bytes([1, 2, 3, 4]),
        };
        let mut header = [0; 12];
        assert_eq!(
            rewrite_ports(&mut header, &ends),
            Ok(L4Result::NeedsSctpCrc)
        );
        assert_eq!(rewrite_ports(&mut header, &ends), Ok(L4Result::Unchanged));
        assert_eq!(rewrite_ports(&mut header[..11], &ends), Err(Truncated));
    }
}
