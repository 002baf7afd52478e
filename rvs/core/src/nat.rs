// SPDX-License-Identifier: GPL-2.0-only

//! Rewriting addresses and ports in packets, and their checksums with them.
//!
//! C counterparts: `tcp_snat_handler()`, `tcp_dnat_handler()` and their UDP kin, `ip_vs_nat_icmp()`.
//! Everything takes the writable bytes of a header that the kernel side has made linear; whatever
//! does not fit in them is refused before anything is changed.

use crate::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    checksum::{
        self,
        udp_nonzero,
        Delta, //
    },
    proto::{
        has_ports,
        IPPROTO_SCTP,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    wire::{
        icmp,
        ipv4::{
            self,
            Ipv4, //
        },
        ipv6::{
            self,
            Ipv6, //
        },
        tcp,
        udp,
        Ports, //
    },
};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Source address and port: replies, on their way to the client.
    Src,
    /// Destination address and port: requests, on their way to a server.
    Dst,
}

impl Side {
    /// The other one.
    #[inline]
    pub const fn other(self) -> Self {
        match self {
            Side::Src => Side::Dst,
            Side::Dst => Side::Src,
        }
    }
}

/// How a packet's layer 4 checksum is to be treated; from C `skb->ip_summed`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CsumMode {
    /// The field holds a checksum: `CHECKSUM_NONE`, `CHECKSUM_UNNECESSARY` and `CHECKSUM_COMPLETE`
    /// (which the caller turns to `NONE` afterwards). It is updated incrementally.
    None,
    /// The field holds the sum of the pseudo header, for the device to finish: `CHECKSUM_PARTIAL`.
    Partial {
        /// Length of header and payload before the packet was changed, in bytes modulo 2^16.
        old_len: u16,
        /// The same now; equal unless an application helper changed the payload.
        new_len: u16,
    },
}

/// What [`rewrite_l4`] did about the checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum L4Result {
    /// Port and checksum were rewritten.
    Done,
    /// The port was rewritten; the UDP checksum was zero ("none") and still is. As in C, the caller
    /// computes it in full and marks the packet `CHECKSUM_UNNECESSARY`.
    NeedsFullUdp,
    /// The port was rewritten and is not what it was. SCTP's CRC32c is for the caller to renew, as
    /// [`CsumMode`] and offloads have it.
    NeedsSctpCrc,
    /// SCTP whose port stays the same: nothing changed, since the CRC does not cover addresses.
    Unchanged,
    /// The protocol has no ports; nothing changed.
    NoPorts,
}

/// There are fewer bytes than the header takes, or it is another header than the one that was read before; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncated;

/// Rewrites a port and updates the checksum for it and for the address that changes with it.
///
/// `l4` starts at the layer 4 header and holds at least its fixed part (TCP 20, UDP 8, SCTP 12
/// bytes). The address itself is in another header: see [`rewrite_ipv4`] and [`rewrite_ipv6`].
/// `family` is that of the addresses.
#[inline]
#[expect(clippy::too_many_arguments, reason = "all of them plain values")]
pub fn rewrite_l4(
    proto: u8,
    l4: &mut [u8],
    side: Side,
    new_port: Be16,
    old_addr: &Addr,
    new_addr: &Addr,
    family: Family,
    csum: CsumMode,
) -> Result<L4Result, Truncated> {
    match proto {
        IPPROTO_TCP => {
            let mut th = tcp::Tcp::parse_mut(l4).ok_or(Truncated)?;
            let ports = th.ports();
            let delta = Delta::new().addr(family, old_addr, new_addr);
            let old_port = match side {
                Side::Src => {
                    th.set_src(new_port);
                    ports.src
                }
                Side::Dst => {
                    th.set_dst(new_port);
                    ports.dst
                }
            };
            let check = match csum {
                CsumMode::None => delta.word16(old_port, new_port).update(th.check()),
                CsumMode::Partial { old_len, new_len } => delta
                    .word16(old_len.to_be(), new_len.to_be())
                    .update_partial(th.check()),
            };
            th.set_check(check);
            Ok(L4Result::Done)
        }
        IPPROTO_UDP => {
            let mut uh = udp::Udp::parse_mut(l4).ok_or(Truncated)?;
            let ports = uh.ports();
            let delta = Delta::new().addr(family, old_addr, new_addr);
            let old_port = match side {
                Side::Src => {
                    uh.set_src(new_port);
                    ports.src
                }
                Side::Dst => {
                    uh.set_dst(new_port);
                    ports.dst
                }
            };
            let check = match csum {
                CsumMode::None if uh.check() == 0 => return Ok(L4Result::NeedsFullUdp),
                CsumMode::None => udp_nonzero(delta.word16(old_port, new_port).update(uh.check())),
                CsumMode::Partial { old_len, new_len } => delta
                    .word16(old_len.to_be(), new_len.to_be())
                    .update_partial(uh.check()),
            };
            uh.set_check(check);
            Ok(L4Result::Done)
        }
        IPPROTO_SCTP => {
            let header: &mut [u8; 12] = l4.first_chunk_mut().ok_or(Truncated)?;
            let [a, b, c, d, ..] = *header;
            let before = Ports::from_bytes([a, b, c, d]);
            let mut after = before;
            match side {
                Side::Src => after.src = new_port,
                Side::Dst => after.dst = new_port,
            }
            if after == before {
                return Ok(L4Result::Unchanged);
            }
            let [a, b, c, d, ..] = header;
            [*a, *b, *c, *d] = after.bytes();
            Ok(L4Result::NeedsSctpCrc)
        }
        _ => Ok(L4Result::NoPorts),
    }
}

/// Writes the full checksum of a UDP packet whose field held zero, given `payload_sum`, the unfolded
/// sum of header (with the zero) and payload, and the addresses as they are now. `len` of header and
/// payload.
pub fn fill_udp_checksum(
    l4: &mut [u8],
    family: Family,
    src: &Addr,
    dst: &Addr,
    len: u32,
    payload_sum: u32,
) -> Result<(), Truncated> {
    let mut uh = udp::Udp::parse_mut(l4).ok_or(Truncated)?;
    let sum = checksum::pseudo(family, src, dst, IPPROTO_UDP, len, payload_sum);
    uh.set_check(udp_nonzero(checksum::fold(sum)));
    Ok(())
}

/// Sets an address in the IPv4 header at the start of `l3` and computes the header checksum anew.
#[inline]
pub fn rewrite_ipv4(l3: &mut [u8], side: Side, addr: &Addr) -> Result<(), Truncated> {
    // Options have to be there for the checksum: make sure before anything is changed.
    let len = Ipv4::parse(l3).ok_or(Truncated)?.header_len();
    let header = l3.get_mut(..len).ok_or(Truncated)?;
    let mut iph = Ipv4::parse_mut(header).ok_or(Truncated)?;
    match side {
        Side::Src => iph.set_src(addr.v4_be()),
        Side::Dst => iph.set_dst(addr.v4_be()),
    }
    ipv4::fill_checksum(header).ok_or(Truncated)
}

/// Sets an address in the IPv6 header at the start of `l3`.
#[inline]
pub fn rewrite_ipv6(l3: &mut [u8], side: Side, addr: &Addr) -> Result<(), Truncated> {
    let mut iph = Ipv6::parse_mut(l3).ok_or(Truncated)?;
    match side {
        Side::Src => iph.set_src(addr),
        Side::Dst => iph.set_dst(addr),
    }
    Ok(())
}

/// Sets an address in the header at the start of `l3`.
#[inline]
pub fn rewrite_l3(family: Family, l3: &mut [u8], side: Side, addr: &Addr) -> Result<(), Truncated> {
    match family {
        Family::V4 => rewrite_ipv4(l3, side, addr),
        Family::V6 => rewrite_ipv6(l3, side, addr),
    }
}

/// Rewrites an IPv4 packet that carries an ICMP error, outside and inside; C `ip_vs_nat_icmp()`.
///
/// `packet` starts at the outer IPv4 header and must hold the whole packet for the ICMP checksum,
/// which is computed anew, if `whole`; else the checksum is left for the caller. `icmp_at` is where
/// the ICMP header starts, `l4_at` where the embedded packet's layer 4 was found to start: its header may have been read from
/// memory that others can write to, before it was copied to where `packet` is, and must still say the same.
///
/// `side` is the outer address to be replaced by `addr`: the source in errors about forwarded
/// requests ("inout" in C), the destination in errors about replies. Inside, the other side is
/// replaced: the embedded packet went the other way. Its port becomes `port`, if its protocol has
/// ports; its layer 4 checksum stays as it was.
pub fn rewrite_icmp_v4(
    packet: &mut [u8],
    icmp_at: usize,
    l4_at: usize,
    side: Side,
    addr: &Addr,
    port: Be16,
    whole: bool,
) -> Result<(), Truncated> {
    let outer_len = Ipv4::parse(packet).ok_or(Truncated)?.header_len();
    if outer_len > icmp_at {
        return Err(Truncated);
    }
    let (outer, message) = packet.split_at_mut_checked(icmp_at).ok_or(Truncated)?;
    let (_, inner) = message
        .split_at_mut_checked(icmp::HEADER_LEN)
        .ok_or(Truncated)?;

    // Everything that can fail comes before the first change.
    let embedded = Ipv4::parse(inner).ok_or(Truncated)?;
    let ports = has_ports(embedded.protocol());
    let inner_len = embedded.header_len();
    if icmp_at.checked_add(icmp::HEADER_LEN.wrapping_add(inner_len)) != Some(l4_at) {
        return Err(Truncated);
    }
    let l4 = inner.get(inner_len..).ok_or(Truncated)?;
    if ports && l4.len() < Ports::LEN {
        return Err(Truncated);
    }

    rewrite_ipv4(outer, side, addr)?;
    rewrite_ipv4(inner, side.other(), addr)?;
    if ports {
        rewrite_embedded_port(inner, inner_len, side.other(), port)?;
    }
    if whole {
        icmp::fill_checksum(message).ok_or(Truncated)?;
    }
    Ok(())
}

/// Rewrites an IPv6 packet that carries an ICMPv6 error, outside and inside; C
/// `ip_vs_nat_icmp_v6()` but for the checksum: the caller writes the pseudo-header sum of the new
/// addresses and marks the packet `CHECKSUM_PARTIAL`.
///
/// `packet` starts at the outer IPv6 header. `inner_at` is where the embedded IPv6 header starts,
/// `ports_at` where its ports are, if its protocol has any. For `side`, `addr` and `port` see
/// [`rewrite_icmp_v4`].
pub fn rewrite_icmp_v6(
    packet: &mut [u8],
    inner_at: usize,
    ports_at: Option<usize>,
    side: Side,
    addr: &Addr,
    port: Be16,
) -> Result<(), Truncated> {
    // Everything that can fail comes before the first change.
    Ipv6::parse(packet).ok_or(Truncated)?;
    if inner_at < ipv6::HEADER_LEN {
        return Err(Truncated);
    }
    let (_, inner) = packet.split_at_mut_checked(inner_at).ok_or(Truncated)?;
    Ipv6::parse(inner).ok_or(Truncated)?;
    if let Some(at) = ports_at {
        packet
            .get(at..)
            .filter(|l4| l4.len() >= Ports::LEN)
            .ok_or(Truncated)?;
    }

    rewrite_ipv6(packet, side, addr)?;
    let inner = packet.get_mut(inner_at..).ok_or(Truncated)?;
    rewrite_ipv6(inner, side.other(), addr)?;
    if let Some(at) = ports_at {
        rewrite_embedded_port(packet, at, side.other(), port)?;
    }
    Ok(())
}

/// Sets one of the ports at `at`, and nothing else.
fn rewrite_embedded_port(
    bytes: &mut [u8],
    at: usize,
    side: Side,
    port: Be16,
) -> Result<(), Truncated> {
    let ports: &mut [u8; Ports::LEN] = bytes
        .get_mut(at..)
        .and_then(|l4| l4.first_chunk_mut())
        .ok_or(Truncated)?;
    let mut new = Ports::from_bytes(*ports);
    match side {
        Side::Src => new.src = port,
        Side::Dst => new.dst = port,
    }
    *ports = new.bytes();
    Ok(())
}
