// SPDX-License-Identifier: GPL-2.0-only

//! Netlink messages that are being written.
//!
//! C headers: `include/net/netlink.h`, `include/net/genetlink.h`

use crate::bindings;
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};

/// Whether the machine wants eight bytes aligned, so that there must be padding.
const PADDED: bool = bindings::RVS_NLA_PADDED != 0;

/// The attributes of a message that has room up to the end of its buffer; every function fails with `EMSGSIZE` where
/// that is reached.
///
/// # Invariants
///
/// `skb` is a netlink message buffer, valid for `'a`, that nobody else writes.
pub(crate) struct Writer<'a> {
    skb: *mut bindings::sk_buff,
    _message: PhantomData<&'a ()>,
}

impl Writer<'_> {
    /// Writes to `skb`.
    ///
    /// # Safety
    ///
    /// `skb` must be a netlink message buffer that is valid, and written by nobody else, while the writer lives.
    pub(super) unsafe fn new(skb: *mut bindings::sk_buff) -> Self {
        // INVARIANT: By the requirement.
        Self {
            skb,
            _message: PhantomData,
        }
    }

    /// Adds an attribute of these bytes.
    pub(crate) fn bytes(&self, number: u16, value: &[u8]) -> Result {
        let len = u16::try_from(value.len()).map_err(|_| EMSGSIZE)?;
        // SAFETY: By the type invariant; `value` is readable for `len` bytes.
        let err = unsafe {
            bindings::nla_put(
                self.skb,
                number.into(),
                len.into(),
                value.as_ptr().cast::<c_void>(),
            )
        };
        // The one error that there is.
        if err == 0 {
            Ok(())
        } else {
            Err(EMSGSIZE)
        }
    }

    /// Adds one byte.
    pub(crate) fn u8(&self, number: u16, value: u8) -> Result {
        self.bytes(number, &[value])
    }

    /// Adds two bytes as they lie in memory.
    pub(crate) fn u16(&self, number: u16, value: u16) -> Result {
        self.bytes(number, &value.to_ne_bytes())
    }

    /// Adds four bytes as they lie in memory.
    pub(crate) fn u32(&self, number: u16, value: u32) -> Result {
        self.bytes(number, &value.to_ne_bytes())
    }

    /// Adds eight bytes, and before them padding of number `pad` on machines that need them aligned.
    pub(crate) fn u64(&self, number: u16, value: u64, pad: u16) -> Result {
        if !PADDED {
            return self.bytes(number, &value.to_ne_bytes());
        }
        // SAFETY: By the type invariant.
        to_result(unsafe {
            bindings::rvs_helper_nla_put_u64(self.skb, number.into(), value, pad.into())
        })
    }

    /// Adds a nest of numbers, each of four bytes or of eight; attributes of eight bytes as by [`Self::u64()`].
    pub(crate) fn numbers<const N: usize>(
        &self,
        nest: u16,
        numbers: &[(u16, u64); N],
        is_long: impl Fn(u16) -> bool,
        pad: u16,
    ) -> Result {
        if PADDED {
            return self.nest(nest, |msg| {
                for (number, value) in numbers {
                    if is_long(*number) {
                        msg.u64(*number, *value, pad)?;
                    } else {
                        msg.u32(*number, *value as u32)?;
                    }
                }
                Ok(())
            });
        }
        // All in one piece: these are most of what a listing is made of.
        let mut bytes = [0u8; 128];
        let mut len = 0usize;
        for (number, value) in numbers {
            let size = if is_long(*number) { 8u16 } else { 4 };
            let whole = size.wrapping_add(4);
            let end = len.wrapping_add(whole.into());
            let Some([l0, l1, n0, n1, rest @ ..]) = bytes.get_mut(len..end) else {
                return Err(EMSGSIZE);
            };
            [*l0, *l1] = whole.to_ne_bytes();
            [*n0, *n1] = number.to_ne_bytes();
            let value = *value;
            match <&mut [u8; 8]>::try_from(&mut *rest) {
                Ok(rest) => *rest = value.to_ne_bytes(),
                Err(_) => {
                    if let Ok(rest) = <&mut [u8; 4]>::try_from(rest) {
                        *rest = (value as u32).to_ne_bytes();
                    }
                }
            }
            len = end;
        }
        self.bytes(nest, bytes.get(..len).unwrap_or(&[]))
    }

    /// Adds a string and a terminating zero.
    pub(crate) fn string(&self, number: u16, value: &str) -> Result {
        let len = value.len().checked_add(1).ok_or(EMSGSIZE)?;
        let len = u16::try_from(len).map_err(|_| EMSGSIZE)?;
        // SAFETY: By the type invariant.
        let attr = unsafe { bindings::rvs_helper_nla_reserve(self.skb, number.into(), len.into()) };
        let attr = NonNull::new(attr).ok_or(EMSGSIZE)?;
        // SAFETY: `attr` points to the attribute's `len` bytes, which nobody else knows yet.
        let to = unsafe { core::slice::from_raw_parts_mut(attr.as_ptr(), len.into()) };
        for (to, from) in to.iter_mut().zip(Iterator::chain(value.bytes(), Some(0))) {
            *to = from;
        }
        Ok(())
    }

    /// Adds an attribute of what `fill` adds, without the flag that says so; nothing at all if that fails.
    pub(crate) fn nest(&self, number: u16, fill: impl FnOnce(&Self) -> Result) -> Result {
        // SAFETY: By the type invariant.
        let start = unsafe { bindings::rvs_helper_nla_nest_start(self.skb, number.into()) };
        let start = NonNull::new(start).ok_or(EMSGSIZE)?;
        let filled = fill(self);
        match filled {
            // SAFETY: `start` was returned for this buffer, and only complete attributes were added behind it.
            Ok(()) => unsafe { bindings::rvs_helper_nla_nest_end(self.skb, start.as_ptr()) },
            // SAFETY: As above; cuts off everything from `start` on.
            Err(_) => unsafe { bindings::rvs_helper_nla_nest_cancel(self.skb, start.as_ptr()) },
        }
        filled
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

    /// Where the attributes go.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        // SAFETY: By the type invariant; the writer borrows the message.
        unsafe { Writer::new(self.skb.as_ptr()) }
    }

    /// Sends the answer.
    pub(crate) fn send(self) -> Result {
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
