// SPDX-License-Identifier: GPL-2.0-only

//! How a real server behind FullNAT learns the client's address: TOA, and the PROXY protocol.
//!
//! Both go on until the server shows that it has got what carries the address.

use super::{
    fullnat::header,
    hooks::Ctx,
    packet::Iph, //
};
use crate::{
    conn::{
        Conn,
        FullNat, //
    },
    os::{
        route::{
            Found,
            Route, //
        },
        skb::Skb,
        table::Ref, //
    },
    service::pool::Carry,
};
use rvs_core::{
    addr::Family,
    fullnat::{
        proxy::{
            self,
            Header,
            Version, //
        },
        toa::{
            self,
            Planned,
            Toa, //
        },
    },
    proto::{
        tcp::Flags,
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    wire::{
        tcp::{
            Tcp,
            CHECK_OFFSET,
            HEADER_LEN, //
        },
        udp, //
    },
};

/// What a packet of the client becomes.
pub(super) enum Prepared {
    /// It goes on as it is now.
    Ready,
    /// A segment of our own with this header goes before it.
    Behind(Header),
    /// There is no memory, or no way to put the address in.
    Lost,
}

const fn family<const V6: bool>() -> Family {
    if V6 {
        Family::V6
    } else {
        Family::V4
    }
}

/// The PROXY header of a connection.
fn proxy_header<const V6: bool>(version: Version, iph: &Iph, conn: Ref<'_, Conn>) -> Header {
    let (src, dst) = (conn.caddr(), conn.vaddr());
    Header::new(
        version,
        &proxy::Flow {
            family: family::<V6>(),
            udp: iph.proto == IPPROTO_UDP,
            src: &src,
            dst: &dst,
            sport: conn.cport(),
            dport: conn.vport(),
        },
    )
}

/// Prepares a packet of the client, which has not been rewritten yet. `mtu` is that of the way to the real server.
#[inline(never)]
pub(super) fn prepare<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    full: &FullNat,
    mtu: u32,
) -> Prepared {
    if iph.later_fragment {
        return Prepared::Ready;
    }
    match (full.carry, iph.proto) {
        (Carry::Toa { kind, on_syn }, IPPROTO_TCP) => {
            put_toa::<V6>(skb, iph, conn, full, kind, on_syn, mtu);
            Prepared::Ready
        }
        (Carry::Proxy(version), IPPROTO_TCP) if !full.is_told() && full.space.header != 0 => {
            let Some(fixed) = skb.read::<HEADER_LEN>(iph.l4) else {
                return Prepared::Lost;
            };
            let th = Tcp::new(&fixed);
            let flags = th.flags().0 & (Flags::SYN | Flags::RST | Flags::ACK);
            if flags == Flags::ACK && th.seq() == full.space.first {
                return Prepared::Behind(proxy_header::<V6>(version, iph, conn));
            }
            Prepared::Ready
        }
        (Carry::Proxy(version), IPPROTO_UDP) if !full.is_told() => {
            match put_datagram::<V6>(skb, iph, &proxy_header::<V6>(version, iph, conn)) {
                Some(()) => Prepared::Ready,
                None => Prepared::Lost,
            }
        }
        _ => Prepared::Ready,
    }
}

/// Puts the client's address into a TCP header, or at least takes out what the client itself has put there.
fn put_toa<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    full: &FullNat,
    kind: u8,
    on_syn: bool,
    mtu: u32,
) {
    let Some(fixed) = skb.read::<HEADER_LEN>(iph.l4) else {
        return;
    };
    let th = Tcp::new(&fixed);
    let flags = th.flags();
    let wanted = !full.is_told() && flags.0 & Flags::RST == 0 && (!flags.syn() || on_syn);
    let Some((bytes, len)) = header(skb, iph.l4, th.header_len()) else {
        return;
    };
    let Some(old) = bytes.get(..len) else {
        return;
    };
    let toa = wanted.then(|| Toa::new(kind, family::<V6>(), &conn.caddr(), conn.cport()));
    let grow = |skb: &mut Skb<'_>, planned: &Planned| {
        let more = planned.bytes().len().saturating_sub(len);
        more == 0 || (skb.may_grow(mtu, more) && skb.gap(iph.l4.wrapping_add(HEADER_LEN), more))
    };
    let most = toa.as_ref().map_or(0, |toa| toa.bytes().len());
    let mut planned = toa::plan(old, kind, toa.as_ref(), most);
    if planned.as_ref().is_some_and(|planned| !grow(skb, planned)) {
        planned = toa::plan(old, kind, toa.as_ref(), 0);
    }
    let inserted = planned.as_ref().is_some_and(|planned| planned.inserted);
    let removed = planned.as_ref().is_some_and(|planned| planned.removed);
    let dest = conn.get().dest();
    if let Some(counts) = dest.and_then(|dest| dest.service().fullnat.counts()) {
        if wanted {
            let count = if inserted {
                &counts.toa_added
            } else {
                &counts.toa_no_room
            };
            count.add(1);
        }
        if removed {
            counts.toa_removed.add(1);
        }
    }
    if let Some(planned) = planned {
        let check = planned.checksum(old, th.check(), skb.facts().partial());
        let _ = write_header::<V6>(skb, iph, &planned, len, check);
    }
}

/// Writes a planned header where the old one of `len` bytes was, room for which has been made.
fn write_header<const V6: bool>(
    skb: &mut Skb<'_>,
    iph: &Iph,
    planned: &Planned,
    len: usize,
    check: u16,
) -> Option<()> {
    let new = planned.bytes();
    let packet = skb.writable(iph.l4.checked_add(new.len())?)?;
    lengthen::<V6>(packet, new.len().saturating_sub(len))?;
    let l4 = packet.get_mut(iph.l4..)?;
    for (to, from) in l4.iter_mut().zip(new) {
        *to = *from;
    }
    let field = l4.get_mut(CHECK_OFFSET..)?.first_chunk_mut()?;
    *field = check.to_ne_bytes();
    Some(())
}

/// Adds to the length in a packet's IP header. IPv4's checksum comes later.
fn lengthen<const V6: bool>(packet: &mut [u8], by: usize) -> Option<()> {
    let field: &mut [u8; 2] = packet
        .get_mut(if V6 { 4 } else { 2 }..)?
        .first_chunk_mut()?;
    *field = u16::from_be_bytes(*field)
        .wrapping_add(by as u16)
        .to_be_bytes();
    Some(())
}

/// Puts a header in front of a datagram's payload. The checksum is left out, to be computed when the rest is done.
fn put_datagram<const V6: bool>(skb: &mut Skb<'_>, iph: &Iph, header: &Header) -> Option<()> {
    let new = header.bytes();
    let payload = iph.l4.checked_add(udp::HEADER_LEN)?;
    if skb.is_gso() || !skb.gap(payload, new.len()) {
        return None;
    }
    skb.csum_none();
    let packet = skb.writable(payload.checked_add(new.len())?)?;
    lengthen::<V6>(packet, new.len())?;
    let (headers, data) = packet.split_at_mut_checked(payload)?;
    for (to, from) in data.iter_mut().zip(new) {
        *to = *from;
    }
    let length: &mut [u8; 4] = headers.get_mut(iph.l4..)?.get_mut(4..)?.first_chunk_mut()?;
    let [l0, l1, ..] = *length;
    let [l0, l1] = u16::from_be_bytes([l0, l1])
        .wrapping_add(new.len() as u16)
        .to_be_bytes();
    *length = [l0, l1, 0, 0];
    Some(())
}

/// Sends a segment with the header before a rewritten one, whose headers it shares. Returns whether the other one still says
/// anything: it has payload, or is the last.
pub(super) fn go_ahead<const V6: bool>(
    ctx: &Ctx<'_>,
    skb: &Skb<'_>,
    iph: &Iph,
    conn: Ref<'_, Conn>,
    full: &FullNat,
    header: &Header,
) -> Option<bool> {
    let fixed: [u8; HEADER_LEN] = skb.read(iph.l4)?;
    let th = Tcp::new(&fixed);
    let head = iph.l4.checked_add(th.header_len())?;
    let (from, to) = (full.addr(), conn.daddr());
    let route = Route::from(ctx.net, V6, &from.0, &to.0, skb.mark())?;
    let mut new = skb.like(head, header.bytes())?;
    let seq = full.space.first.wrapping_add(full.space.delta);
    let len = new.len() as usize;
    let done = new
        .writable(len)
        .and_then(|packet| proxy::finish(packet, family::<V6>(), iph.l4, seq));
    if done.is_none() {
        new.free();
        return None;
    }
    new.set_route(&Found::Own(route));
    new.send(ctx.net, V6);
    Some(skb.len() as usize > head || th.flags().fin())
}

/// Looks whether a reply shows that the real server has learnt the address. Not rewritten yet.
#[inline(never)]
pub(super) fn learn(skb: &Skb<'_>, iph: &Iph, full: &FullNat) {
    if iph.later_fragment {
        return;
    }
    if iph.proto != IPPROTO_TCP {
        return full.set_told();
    }
    let Some(fixed) = skb.read::<HEADER_LEN>(iph.l4) else {
        return;
    };
    let th = Tcp::new(&fixed);
    if th.flags().syn() || th.flags().0 & Flags::ACK == 0 {
        return;
    }
    let has = match full.carry {
        Carry::Nothing => true,
        Carry::Proxy(_) => full.space.has_header(th.ack_seq()),
        Carry::Toa { .. } => {
            let ahead = th
                .ack_seq()
                .wrapping_sub(full.space.delta)
                .wrapping_sub(full.space.first);
            // It answers only after the handshake, of which the last segment had the option.
            ahead as i32 > 0 || skb.len() as usize > iph.l4.wrapping_add(th.header_len())
        }
    };
    if has {
        full.set_told();
    }
}
