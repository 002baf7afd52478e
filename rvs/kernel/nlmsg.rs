// SPDX-License-Identifier: GPL-2.0-only

//! Netlink messages that are being written.
//!
//! C headers: `include/net/netlink.h`, `include/net/genetlink.h`

use crate::bindings;
use core::{
    cell::Cell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*, //
};

/// Whether the machine wants eight bytes aligned, so that there must be padding.
const PADDED: bool = bindings::RVS_NLA_PADDED != 0;

/// The attributes of a message that has room up to the end of its buffer; every function fails with `EMSGSIZE` where
/// that is reached.
///
/// They are written behind the message, which gets them when the writer is dropped.
///
/// # Invariants
///
/// `skb` is a netlink message buffer, valid for `'a`, that nobody else writes; it is linear. Behind its data are `room` bytes
/// from `start` on that nobody else uses, of which the first `len` are written; `len <= room`.
pub(crate) struct Writer<'a> {
    skb: *mut bindings::sk_buff,
    start: *mut u8,
    room: usize,
    len: Cell<usize>,
    _message: PhantomData<&'a ()>,
}

/// Bytes of an attribute's header.
const HEADER: usize = size_of::<bindings::nlattr>();

impl Writer<'_> {
    /// Writes to `skb`.
    ///
    /// # Safety
    ///
    /// `skb` must be a netlink message buffer that is valid, and written by nobody else, while the writer lives.
    pub(super) unsafe fn new(skb: *mut bindings::sk_buff) -> Self {
        let mut room = 0;
        // SAFETY: `skb` is valid by the requirement.
        let start = unsafe { bindings::rvs_helper_skb_tailroom(skb, &mut room) };
        // INVARIANT: By the requirement, and what the helper returns.
        Self {
            skb,
            start,
            room: room as usize,
            len: Cell::new(0),
            _message: PhantomData,
        }
    }

    /// Takes `size` bytes of the room: zeros, for the caller to write over.
    // Each call gives other bytes away.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    fn take(&self, size: usize) -> Result<&mut [u8]> {
        let at = self.len.get();
        // Both are far below the limits of the type.
        let end = at.wrapping_add(size);
        if end > self.room {
            return Err(EMSGSIZE);
        }
        // INVARIANT: `end <= room`.
        self.len.set(end);
        // SAFETY: By the type invariant that many bytes are there from `start` on.
        let to = unsafe { self.start.add(at) };
        // SAFETY: `at..end` is in the room, which nobody else uses.
        unsafe { to.write_bytes(0, size) };
        // SAFETY: As above, and just initialised. The bytes are given away once: `len` is past them now, and who has what a
        // nest that failed takes back does not use it any more.
        Ok(unsafe { core::slice::from_raw_parts_mut(to, size) })
    }

    /// Adds the header of an attribute of `len` bytes and returns where they go.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    fn reserve(&self, number: u16, len: usize) -> Result<&mut [u8]> {
        let whole = HEADER.wrapping_add(len);
        let short = u16::try_from(whole).map_err(|_| EMSGSIZE)?;
        let bytes = self.take(whole.wrapping_add(3) & !3)?;
        let Some(([l0, l1, n0, n1], value)) = bytes.split_first_chunk_mut::<HEADER>() else {
            return Err(EMSGSIZE);
        };
        [*l0, *l1] = short.to_ne_bytes();
        [*n0, *n1] = number.to_ne_bytes();
        value.get_mut(..len).ok_or(EMSGSIZE)
    }

    /// Adds an attribute of these bytes.
    pub(crate) fn bytes(&self, number: u16, value: &[u8]) -> Result {
        let to = self.reserve(number, value.len())?;
        for (to, from) in to.iter_mut().zip(value) {
            *to = *from;
        }
        Ok(())
    }

    /// Adds an attribute of `N` bytes.
    #[inline(always)]
    fn array<const N: usize>(&self, number: u16, value: [u8; N]) -> Result {
        let to = self.reserve(number, N)?;
        *<&mut [u8; N]>::try_from(to).map_err(|_| EMSGSIZE)? = value;
        Ok(())
    }

    /// Adds one byte.
    pub(crate) fn u8(&self, number: u16, value: u8) -> Result {
        self.array(number, [value])
    }

    /// Adds two bytes as they lie in memory.
    pub(crate) fn u16(&self, number: u16, value: u16) -> Result {
        self.array(number, value.to_ne_bytes())
    }

    /// Adds four bytes as they lie in memory.
    pub(crate) fn u32(&self, number: u16, value: u32) -> Result {
        self.array(number, value.to_ne_bytes())
    }

    /// Adds eight bytes, and before them padding of number `pad` on machines that need them aligned.
    #[inline(always)]
    pub(crate) fn u64(&self, number: u16, value: u64, pad: u16) -> Result {
        let at = (self.start as usize).wrapping_add(self.len.get());
        // What comes behind the header is aligned otherwise.
        if PADDED && at & 7 == 0 {
            self.array(pad, [])?;
        }
        self.array(number, value.to_ne_bytes())
    }

    /// Adds a nest of numbers, each of four bytes or of eight; attributes of eight bytes as by [`Self::u64()`].
    pub(crate) fn numbers<const N: usize>(
        &self,
        nest: u16,
        numbers: &[(u16, u64); N],
        is_long: impl Fn(u16) -> bool,
        pad: u16,
    ) -> Result {
        self.nest(nest, |msg| {
            for (number, value) in numbers {
                if is_long(*number) {
                    msg.u64(*number, *value, pad)?;
                } else {
                    msg.u32(*number, *value as u32)?;
                }
            }
            Ok(())
        })
    }

    /// Adds a string and a terminating zero.
    pub(crate) fn string(&self, number: u16, value: &[u8]) -> Result {
        let to = self.reserve(number, value.len().checked_add(1).ok_or(EMSGSIZE)?)?;
        for (to, from) in to.iter_mut().zip(Iterator::chain(value.iter(), &[0])) {
            *to = *from;
        }
        Ok(())
    }

    /// Adds an attribute of what `fill` adds, without the flag that says so; nothing at all if that fails.
    pub(crate) fn nest(&self, number: u16, fill: impl FnOnce(&Self) -> Result) -> Result {
        let before = self.len.get();
        let [l0, l1, ..] = self.take(HEADER).and_then(|header| {
            let header = <&mut [u8; HEADER]>::try_from(header).map_err(|_| EMSGSIZE)?;
            let [_, _, n0, n1] = &mut *header;
            [*n0, *n1] = number.to_ne_bytes();
            Ok(header)
        })?;
        let filled = fill(self).and_then(|()| {
            let len = u16::try_from(self.len.get().wrapping_sub(before));
            [*l0, *l1] = len.map_err(|_| EMSGSIZE)?.to_ne_bytes();
            Ok(())
        });
        if filled.is_err() {
            // INVARIANT: What it was before.
            self.len.set(before);
        }
        filled
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants these bytes are written, and there is room for them.
        unsafe { bindings::skb_put(self.skb, self.len.get() as c_uint) };
    }
}

/// The answer to a request.
///
/// # Invariants
///
/// `skb` is a message buffer that the value owns, `header` that of its message, `info` the request.
pub(crate) struct Reply<'a> {
    skb: NonNull<bindings::sk_buff>,
    header: NonNull<c_void>,
    info: &'a bindings::genl_info,
}

impl<'a> Reply<'a> {
    /// Makes an answer without attributes.
    ///
    /// # Safety
    ///
    /// `info` must be the request that is being answered, as the kernel passed it.
    pub(super) unsafe fn new(info: &'a bindings::genl_info, number: u8) -> Result<Self> {
        // SAFETY: No requirement but process context.
        let skb = unsafe { bindings::rvs_helper_genlmsg_new() };
        let skb = NonNull::new(skb).ok_or(ENOMEM)?;
        // SAFETY: `skb` is a new message, `info` a request by the requirement.
        let header =
            unsafe { bindings::rvs_helper_genl_reply_put(skb.as_ptr(), info, c_int::from(number)) };
        let Some(header) = NonNull::new(header) else {
            // SAFETY: The message is owned here and not used again.
            unsafe { bindings::nlmsg_free(skb.as_ptr()) };
            return Err(EMSGSIZE);
        };
        // INVARIANT: Just made.
        Ok(Self { skb, header, info })
    }

    /// Sends the answer with the attributes that `fill` adds.
    pub(crate) fn send(self, fill: impl FnOnce(&Writer<'_>) -> Result) -> Result {
        // SAFETY: By the type invariant; the writer is gone when the message is used again.
        fill(unsafe { &Writer::new(self.skb.as_ptr()) })?;
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: By the type invariant.
        unsafe { bindings::genlmsg_end(this.skb.as_ptr(), this.header.as_ptr()) };
        // SAFETY: As above; the message is given away and, `this` being kept from dropping it, not used again.
        to_result(unsafe { bindings::rvs_helper_genlmsg_reply(this.skb.as_ptr(), this.info) })
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the message is owned here.
        unsafe { bindings::nlmsg_free(self.skb.as_ptr()) };
    }
}
