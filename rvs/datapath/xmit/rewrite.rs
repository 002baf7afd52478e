// SPDX-License-Identifier: GPL-2.0-only

//! Rewriting one end of a packet: C `tcp_dnat_handler()`, `udp_snat_handler()` and their kin.

use super::super::packet::Iph;
use crate::os::skb::{
    Facts,
    Skb, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    fullnat::{
        self,
        tcp, //
    },
    nat::{
        self,
        CsumMode,
        L4Result,
        Side, //
    },
    proto::{
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    wire::{
        ipv4::{
            self,
            Ipv4, //
        },
        sctp,
        Ports, //
    }, //
};

/// The new end.
pub(in super::super) struct To {
    /// The address.
    pub(in super::super) addr: Addr,
    /// The port, memory order.
    pub(in super::super) port: Be16,
}

/// Both new ends.
pub(in super::super) struct Both {
    /// Where the packet seems to come from.
    pub(in super::super) src: To,
    /// Where it goes.
    pub(in super::super) dst: To,
}

const fn header_len(proto: u8) -> usize {
    match proto {
        IPPROTO_TCP => 20,
        IPPROTO_UDP => 8,
        IPPROTO_SCTP => sctp::HEADER_LEN,
        _ => 0,
    }
}

/// Rewrites address and port on `side` of the packet, and the checksums for it; with `age`, takes one from the time to
/// live as well. `false` if the packet is too short or there is no memory: nothing was changed then.
#[inline(always)]
pub(in super::super) fn packet<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    side: Side,
    to: &To,
    facts: Facts,
    age: bool,
) -> bool {
    let family = if V6 { Family::V6 } else { Family::V4 };
    // IPv6 fragments but the first have no transport header.
    let l4_len = if iph.later_fragment {
        0
    } else {
        header_len(iph.proto)
    };
    let len = skb.len();
    // What is wrong with the checksum stays wrong with it.
    let error = if iph.proto == IPPROTO_SCTP && l4_len != 0 {
        sctp_error(skb, iph, facts)
    } else {
        0
    };
    let Some(bytes) = skb.writable(iph.l4.wrapping_add(l4_len)) else {
        return false;
    };
    let Some((l3, l4)) = bytes.split_at_mut_checked(iph.l4) else {
        return false;
    };
    let mut result = L4Result::NoPorts;
    if l4_len != 0 {
        let old = match side {
            Side::Src => &iph.src,
            Side::Dst => &iph.dst,
        };
        let csum = if facts.partial() {
            // No helper has changed the payload, so the length stays, and the same twice cancels out.
            CsumMode::Partial {
                old_len: 0,
                new_len: 0,
            }
        } else {
            CsumMode::None
        };
        match nat::rewrite_l4(iph.proto, l4, side, to.port, old, &to.addr, family, csum) {
            Ok(done) => result = done,
            Err(nat::Truncated) => return false,
        }
    }
    if age {
        if V6 {
            if let Some(hops) = l3.get_mut(7) {
                *hops = hops.saturating_sub(1);
            }
        } else if let Some(mut header) = Ipv4::parse_mut(l3) {
            header.decrease_ttl();
        }
    }
    if nat::rewrite_l3(family, l3, side, &to.addr).is_err() {
        return false;
    }
    match result {
        L4Result::NeedsFullUdp => {
            let (src, dst) = match side {
                Side::Src => (&to.addr, &iph.dst),
                Side::Dst => (&iph.src, &to.addr),
            };
            full_udp::<V6>(skb, iph, src, dst, len)
        }
        L4Result::NeedsSctpCrc => full_sctp(skb, iph, error),
        _ if iph.proto == IPPROTO_SCTP && l4_len != 0 => {
            // Addresses are not part of the sum.
            !facts.partial() || full_sctp(skb, iph, 0)
        }
        _ => {
            if facts.complete() {
                skb.csum_none();
            }
            true
        }
    }
}

/// As [`packet()`], on both sides at once, and of TCP the numbers as `how` says.
#[inline(always)]
pub(in super::super) fn both<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    to: &Both,
    how: &tcp::Translate,
    facts: Facts,
    age: bool,
) -> bool {
    let family = if V6 { Family::V6 } else { Family::V4 };
    let l4_len = match iph.proto {
        _ if iph.later_fragment => 0,
        IPPROTO_TCP => match skb.read::<1>(iph.l4.wrapping_add(12)) {
            Some([offset]) => usize::from(offset >> 4) << 2,
            None => return false,
        },
        proto => header_len(proto),
    };
    let len = skb.len();
    // What is wrong with the checksum stays wrong with it.
    let error = if iph.proto == IPPROTO_SCTP && l4_len != 0 {
        sctp_error(skb, iph, facts)
    } else {
        0
    };
    let Some(bytes) = skb.writable(iph.l4.wrapping_add(l4_len)) else {
        return false;
    };
    let Some((l3, l4)) = bytes.split_at_mut_checked(iph.l4) else {
        return false;
    };
    let ends = tcp::Ends {
        family,
        old: (&iph.src, &iph.dst),
        new: (&to.src.addr, &to.dst.addr),
        ports: Ports {
            src: to.src.port,
            dst: to.dst.port,
        },
    };
    let result = match iph.proto {
        _ if l4_len == 0 => Ok(L4Result::NoPorts),
        IPPROTO_TCP => tcp::rewrite(l4, &ends, how, facts.partial()).map(|()| L4Result::Done),
        IPPROTO_UDP => fullnat::rewrite_udp(l4, &ends, facts.partial()),
        _ => fullnat::rewrite_ports(l4, &ends),
    };
    let Ok(result) = result else {
        return false;
    };
    if fullnat::rewrite_addresses(l3, &ends, age).is_err() {
        return false;
    }
    match result {
        L4Result::NeedsFullUdp => full_udp::<V6>(skb, iph, &to.src.addr, &to.dst.addr, len),
        L4Result::NeedsSctpCrc => full_sctp(skb, iph, error),
        _ => {
            if facts.complete() {
                skb.csum_none();
            }
            true
        }
    }
}

/// By which bits an SCTP packet's checksum differs from the right one; zero for what the device has checked or will fill in.
#[cold]
#[inline(never)]
fn sctp_error(skb: &Skb<'_>, iph: &Iph, facts: Facts) -> u32 {
    if facts.partial() || skb.csum_checked() {
        return 0;
    }
    let header = skb.read::<{ sctp::HEADER_LEN }>(iph.l4);
    header.map_or(0, |header| {
        sctp::Sctp::from_bytes(&header).checksum ^ skb.crc32c_from(iph.l4 as u32)
    })
}

/// An SCTP packet with another port gets another checksum. Who segments a large packet fills them in.
#[cold]
#[inline(never)]
fn full_sctp(skb: &mut Skb<'_>, iph: &Iph, error: u32) -> bool {
    if skb.is_gso() {
        return true;
    }
    let sum = (skb.crc32c_from(iph.l4 as u32) ^ error).to_ne_bytes();
    let done = skb
        .writable(iph.l4.wrapping_add(sctp::HEADER_LEN))
        .and_then(|bytes| bytes.get_mut(iph.l4..)?.get_mut(8..12))
        .map(|field| field.copy_from_slice(&sum))
        .is_some();
    if done && error == 0 {
        skb.csum_unnecessary();
    }
    done
}

/// A UDP packet without a checksum gets one, as in C.
#[cold]
#[inline(never)]
fn full_udp<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    src: &Addr,
    dst: &Addr,
    len: u32,
) -> bool {
    let family = if V6 { Family::V6 } else { Family::V4 };
    let sum = skb.sum_from(iph.l4 as u32);
    let l4_len = len.saturating_sub(iph.l4 as u32);
    let done = skb
        .writable(iph.l4.wrapping_add(header_len(IPPROTO_UDP)))
        .and_then(|bytes| bytes.get_mut(iph.l4..))
        .is_some_and(|l4| nat::fill_udp_checksum(l4, family, src, dst, l4_len, sum).is_ok());
    if done {
        skb.csum_unnecessary();
    }
    done
}

/// Takes one from the time to live of a packet that stays as it is otherwise. `false` if there is no memory.
pub(super) fn age<const V6: bool>(skb: &mut Skb<'_>) -> bool {
    let Some(bytes) = skb.writable(if V6 { 40 } else { 20 }) else {
        return false;
    };
    if V6 {
        if let Some(hops) = bytes.get_mut(7) {
            *hops = hops.saturating_sub(1);
        }
    } else if let Some(mut header) = Ipv4::parse_mut(bytes) {
        header.decrease_ttl();
        if header.header_len() != ipv4::HEADER_LEN {
            return sum_options(skb);
        }
    }
    true
}

/// Sums up an IPv4 header with options anew: the kernel writes into them (a route to be recorded) and leaves the sum
/// to who sends the packet. C does so for every packet.
#[cold]
#[inline(never)]
fn sum_options(skb: &mut Skb<'_>) -> bool {
    let Some(len) = Ipv4::parse(skb.head()).map(|header| header.header_len()) else {
        return true;
    };
    skb.writable(len).and_then(ipv4::fill_checksum).is_some()
}
