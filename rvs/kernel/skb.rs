// SPDX-License-Identifier: GPL-2.0-only

//! A packet in the hands of a netfilter hook.
//!
//! All offsets count from `skb->data`, which is where the network header lies at the IP layer's hooks.
//!
//! C header: `include/linux/skbuff.h`

use super::net::Net;
use crate::bindings;
use core::{
    marker::PhantomData,
    ops::Range,
    ptr::NonNull, //
};

/// What one look at a packet tells: see `RVS_SKB_*` in `shim.h`.
#[derive(Clone, Copy)]
pub(crate) struct Facts(u32);

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident = $bit:ident),* $(,)?) => {
        impl Facts {
            $(
                $(#[$doc])*
                #[inline(always)]
                pub(crate) const fn $name(self) -> bool {
                    self.0 & bindings::$bit != 0
                }
            )*
        }
    };
}

facts! {
    /// IPVS has dealt with it: `ipvs_property`.
    seen = RVS_SKB_SEEN,
    /// It was sent to this host's link address: `PACKET_HOST`.
    to_host = RVS_SKB_TO_HOST,
    /// It has a route.
    routed = RVS_SKB_ROUTED,
    /// It comes from an IPv4 socket that wants no defragmentation.
    nodefrag = RVS_SKB_NODEFRAG,
    /// It has no device: it was made on this host.
    no_dev = RVS_SKB_NO_DEV,
    /// Its device is a loopback.
    loopback = RVS_SKB_LOOPBACK,
    /// The device will fill in the checksum, over the pseudo-header's: `CHECKSUM_PARTIAL`.
    partial = RVS_SKB_PARTIAL,
    /// The device summed the packet up: `CHECKSUM_COMPLETE`.
    complete = RVS_SKB_COMPLETE,
}

/// A packet.
///
/// # Invariants
///
/// `raw` is a valid `sk_buff` that nobody else uses until the hook returns or gives it away.
pub(crate) struct Skb<'a> {
    raw: NonNull<bindings::sk_buff>,
    _life: PhantomData<&'a mut bindings::sk_buff>,
}

impl<'a> Skb<'a> {
    /// Views a C pointer.
    ///
    /// # Safety
    ///
    /// `raw` must be valid, at a hook of the IP layer, and not be used by anybody else for `'a`.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: NonNull<bindings::sk_buff>) -> Self {
        // INVARIANT: By the requirement.
        Self {
            raw,
            _life: PhantomData,
        }
    }

    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut bindings::sk_buff {
        self.raw.as_ptr()
    }

    /// Bytes from the network header on.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        // SAFETY: By the type invariant.
        unsafe { (*self.raw.as_ptr()).len }
    }

    /// The packet's mark.
    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        // SAFETY: By the type invariant; C reads the field without a lock, too.
        unsafe { bindings::rvs_helper_skb_mark(self.raw.as_ptr()) }
    }

    /// Looks at the packet's metadata.
    #[inline(always)]
    pub(crate) fn facts(&self) -> Facts {
        // SAFETY: By the type invariant.
        Facts(unsafe { bindings::rvs_helper_skb_facts(self.raw.as_ptr()) })
    }

    /// The linear part of the packet.
    #[inline(always)]
    pub(crate) fn head(&self) -> &[u8] {
        // SAFETY: By the type invariant.
        let skb = unsafe { &*self.raw.as_ptr() };
        let len = skb.len.wrapping_sub(skb.data_len) as usize;
        // SAFETY: `len - data_len` bytes from `data` on are the linear part (`skb_headlen()`), initialised and not changed
        // while `self` is borrowed.
        unsafe { core::slice::from_raw_parts(skb.data, len) }
    }

    /// `N` bytes at `offset`, from wherever they are; `None` where the packet ends before: `skb_header_pointer()`.
    #[inline(always)]
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if let Some(bytes) = self.head().get(offset..).and_then(|b| b.first_chunk::<N>()) {
            return Some(*bytes);
        }
        self.read_slow(offset)
    }

    #[cold]
    fn read_slow<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut out = [0u8; N];
        let offset = i32::try_from(offset).ok()?;
        // SAFETY: `out` has room for `N` bytes; the C function checks the range against the packet.
        let ret = unsafe {
            bindings::skb_copy_bits(self.raw.as_ptr(), offset, out.as_mut_ptr().cast(), N as i32)
        };
        (ret == 0).then_some(out)
    }

    /// Makes the first `len` bytes linear and private and returns the linear part: `skb_ensure_writable()`. `None` if
    /// the packet is shorter or there is no memory.
    #[inline(always)]
    pub(crate) fn writable(&mut self, len: usize) -> Option<&mut [u8]> {
        let want = u32::try_from(len).ok()?;
        // SAFETY: By the type invariant.
        if unsafe { bindings::skb_ensure_writable(self.raw.as_ptr(), want) } != 0 {
            return None;
        }
        // SAFETY: By the type invariant.
        let skb = unsafe { &*self.raw.as_ptr() };
        // SAFETY: The first `len` bytes are linear now (the call says so), and in no other packet's hands.
        Some(unsafe { core::slice::from_raw_parts_mut(skb.data, len) })
    }

    /// The IP layer's answer to a fragment: reassembles, or keeps it. `false` means that the packet is gone.
    pub(crate) fn defragment_v4(&mut self, net: &Net, hook: u32) -> bool {
        // SAFETY: By the type invariant; on a nonzero result the queue owns the packet.
        unsafe { bindings::rvs_helper_defrag4(self.raw.as_ptr(), net.as_ptr(), hook) == 0 }
    }

    /// Walks IPv6 extension headers (`ipv6_find_hdr()`): returns protocol, offset, fragment offset in bytes and whether
    /// there is a fragment header.
    pub(crate) fn find_v6_header(&self, start: u32) -> Option<V6Header> {
        let mut offset = start;
        let mut frag = 0u16;
        let mut flags = 0i32;
        // SAFETY: By the type invariant; the pointers are to locals.
        let proto = unsafe {
            bindings::rvs_helper_find_hdr6(
                self.raw.as_ptr(),
                &mut offset,
                -1,
                &mut frag,
                &mut flags,
            )
        };
        Some(V6Header {
            proto: u8::try_from(proto).ok()?,
            offset,
            frag_offset: frag,
            fragment: flags & 1 != 0,
        })
    }

    /// Says that IPVS has dealt with the packet.
    #[inline(always)]
    pub(crate) fn set_seen(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_set_seen(self.raw.as_ptr()) };
    }

    /// Opens a gap of `n` bytes, `at` bytes into the packet: what is before moves up, so that offsets up to there stay.
    /// The gap's contents are arbitrary bytes of the packet. `false`: there is no room or no memory, nothing has changed.
    pub(crate) fn gap(&mut self, at: usize, n: usize) -> bool {
        let (Ok(at), Ok(n)) = (u32::try_from(at), u32::try_from(n)) else {
            return false;
        };
        // SAFETY: By the type invariant; the function checks both numbers against the packet.
        unsafe { bindings::rvs_helper_skb_gap(self.raw.as_ptr(), at, n) }
    }

    /// Puts `text` in the place of a range of the payload of the TCP packet whose header is at `l4`. Lengths and checksums, also of
    /// what a device has summed up or will, stay right. `false`: it does not fit or there is no memory, and nothing has changed.
    pub(crate) fn replace(
        &mut self,
        v6: bool,
        l4: usize,
        range: Range<usize>,
        text: &[u8],
    ) -> bool {
        let Some(old) = range.end.checked_sub(range.start) else {
            return false;
        };
        let [Ok(l4), Ok(at), Ok(old), Ok(len)] =
            [l4, range.start, old, text.len()].map(u32::try_from)
        else {
            return false;
        };
        // SAFETY: By the type invariant; `text` is readable for `len` bytes; the function checks the other numbers against the
        // packet, which begins with the headers of `v6`.
        unsafe {
            bindings::rvs_helper_skb_replace(self.raw.as_ptr(), v6, l4, at, old, text.as_ptr(), len)
        }
    }

    /// Whether the packet may grow by `n` bytes on a way with this MTU. Of a packet to be segmented, each segment must be
    /// able to, and gets less payload if need be.
    pub(crate) fn may_grow(&mut self, mtu: u32, n: usize) -> bool {
        let Ok(n) = u32::try_from(n) else {
            return false;
        };
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_may_grow(self.raw.as_ptr(), mtu, n) }
    }

    /// A packet of our own with the same `head` first bytes and `data` behind them, without a route. `None` without memory.
    pub(crate) fn like(&self, head: usize, data: &[u8]) -> Option<Skb<'static>> {
        let (head, len) = (u32::try_from(head).ok()?, u32::try_from(data.len()).ok()?);
        // SAFETY: By the type invariant; `data` is readable for `len` bytes; the function checks `head` against the packet.
        let raw =
            unsafe { bindings::rvs_helper_skb_like(self.raw.as_ptr(), head, data.as_ptr(), len) };
        // SAFETY: The packet is new, so it is nobody else's.
        NonNull::new(raw).map(|raw| unsafe { Skb::from_raw(raw) })
    }

    /// Takes an early-demuxed socket off a received packet: `ip_vs_drop_early_demux_sk()`.
    #[inline(always)]
    pub(crate) fn orphan(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_orphan(self.raw.as_ptr()) };
    }

    /// The checksum in the packet is not known to be right.
    pub(crate) fn csum_none(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_csum_none(self.raw.as_ptr()) };
    }

    /// The checksum in the packet is right.
    pub(crate) fn csum_unnecessary(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_csum_unnecessary(self.raw.as_ptr()) };
    }

    /// The device shall sum up from `start` and put the result at `offset` from there.
    pub(crate) fn csum_partial(&mut self, start: u32, offset: u16) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_csum_partial(self.raw.as_ptr(), start, offset) };
    }

    /// The sum of all bytes from `offset` on, not folded: `skb_checksum()`.
    pub(crate) fn sum_from(&self, offset: u32) -> u32 {
        let len = self.len().saturating_sub(offset);
        // SAFETY: By the type invariant; the range is inside the packet.
        unsafe {
            bindings::rvs_helper_skb_checksum(self.raw.as_ptr(), offset.min(self.len()), len, 0)
        }
    }

    /// The CRC32c of the SCTP packet from `offset` on, as it lies in the header: `sctp_compute_cksum()`.
    pub(crate) fn crc32c_from(&self, offset: u32) -> u32 {
        // SAFETY: By the type invariant; an offset beyond the packet sums up nothing.
        unsafe { bindings::rvs_helper_skb_crc32c(self.raw.as_ptr(), offset.min(self.len())) }
    }

    /// Whether a device has found the checksum right.
    pub(crate) fn csum_checked(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_csum_checked(self.raw.as_ptr()) }
    }

    /// Whether the packet is to be segmented.
    pub(crate) fn is_gso(&self) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_is_gso(self.raw.as_ptr()) }
    }

    /// Whether the transport checksum of what starts at `offset` holds.
    pub(crate) fn csum_ok(&self, offset: u32, proto: u8, af: u16) -> bool {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_csum_ok(self.raw.as_ptr(), offset, proto, af as u8) }
    }

    /// Whether the packet (or a segment of it) is longer than `mtu`.
    #[inline(always)]
    pub(crate) fn exceeds(&self, mtu: u32, v6: bool) -> bool {
        if !v6 && self.len() <= mtu {
            return false;
        }
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_too_big(self.raw.as_ptr(), mtu, v6) }
    }

    /// Answers the sender with an ICMP error; `info` in host order.
    pub(crate) fn icmp_error(&mut self, kind: u8, code: u8, info: u32) {
        // SAFETY: By the type invariant; the packet has a route, as at all hooks.
        unsafe { bindings::rvs_helper_icmp_send(self.raw.as_ptr(), kind, code, info) };
    }

    /// Answers the sender with an ICMPv6 error; a packet of this host's own gets the loopback device first, as the reply
    /// needs one.
    pub(crate) fn icmpv6_error(&mut self, net: &Net, kind: u8, code: u8, info: u32) {
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_skb_dev_loopback(self.raw.as_ptr(), net.as_ptr()) };
        // SAFETY: By the type invariant.
        unsafe { bindings::rvs_helper_icmpv6_send(self.raw.as_ptr(), kind, code, info) };
    }

    /// Whether the route of an IPv4 packet leads to this host. The packet must have one, as at all hooks.
    pub(crate) fn is_for_here_v4(&self) -> bool {
        // SAFETY: By the type invariant; the packet has a route.
        unsafe { bindings::rvs_helper_route_is_local4(self.raw.as_ptr()) }
    }

    /// Takes `len` bytes off the front, after which the packet begins with an IPv4 header of `header` bytes. `false` if it
    /// is shorter than that, or there is no memory; the packet is then good for nothing but [`Skb::consume()`].
    pub(crate) fn strip_v4(&mut self, len: usize, header: usize) -> bool {
        let (Ok(len), Ok(header)) = (u32::try_from(len), u32::try_from(header)) else {
            return false;
        };
        // SAFETY: By the type invariant; the function checks lengths.
        unsafe { bindings::rvs_helper_skb_strip4(self.raw.as_ptr(), len, header) }
    }

    /// Notes that packets like this IPv4 one may be no longer than `mtu` bytes: `ipv4_update_pmtu()`.
    pub(crate) fn note_path_mtu_v4(&mut self, net: &Net, mtu: u32) {
        // SAFETY: By the type invariant; the namespace is alive.
        unsafe { bindings::rvs_helper_path_mtu4(self.raw.as_ptr(), net.as_ptr(), mtu) };
    }

    /// Frees the packet, which has served its purpose.
    pub(crate) fn consume(self) {
        // SAFETY: By the type invariant; `self` is given up.
        unsafe { bindings::rvs_helper_skb_consume(self.raw.as_ptr()) };
    }

    /// Tells the sender that the packet's time is up, and counts it.
    pub(crate) fn ttl_exceeded(&mut self, net: &Net, v6: bool) {
        // SAFETY: By the type invariant; the packet has a route.
        unsafe { bindings::rvs_helper_ttl_exceeded(self.raw.as_ptr(), net.as_ptr(), v6) };
    }

    /// Frees the packet.
    pub(crate) fn free(self) {
        // SAFETY: By the type invariant; `self` is given up.
        unsafe { bindings::rvs_helper_skb_free(self.raw.as_ptr()) };
    }
}

/// Where IPv6's extension headers end.
pub(crate) struct V6Header {
    /// The protocol that follows.
    pub(crate) proto: u8,
    /// Where it begins.
    pub(crate) offset: u32,
    /// The fragment offset, nonzero for all fragments but the first.
    pub(crate) frag_offset: u16,
    /// Whether there is a fragment header.
    pub(crate) fragment: bool,
}
