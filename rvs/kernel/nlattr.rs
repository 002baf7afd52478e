// SPDX-License-Identifier: GPL-2.0-only

//! Netlink attributes that were received.
//!
//! C header: `include/net/netlink.h`

use super::genl::Explain;
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*, //
};

/// What an attribute must look like: `struct nla_policy`.
#[repr(transparent)]
pub(crate) struct Rule(bindings::nla_policy);

// SAFETY: Rules are read-only; none holds a pointer.
unsafe impl Sync for Rule {}

impl Rule {
    /// Anything goes.
    pub(crate) const ANY: Self = Self::new(bindings::NLA_UNSPEC, 0);
    /// Attributes inside.
    pub(crate) const NESTED: Self = Self::new(bindings::NLA_NESTED, 0);
    /// At least one byte.
    pub(crate) const U8: Self = Self::new(bindings::NLA_U8, 0);
    /// At least two bytes.
    pub(crate) const U16: Self = Self::new(bindings::NLA_U16, 0);
    /// At least four bytes.
    pub(crate) const U32: Self = Self::new(bindings::NLA_U32, 0);

    /// At most `len` bytes.
    pub(crate) const fn binary(len: u16) -> Self {
        Self::new(bindings::NLA_BINARY, len)
    }

    /// At least `len` bytes.
    pub(crate) const fn at_least(len: u16) -> Self {
        Self::new(bindings::NLA_UNSPEC, len)
    }

    /// A string of at most `len` bytes and a terminating zero.
    pub(crate) const fn string(len: u16) -> Self {
        Self::new(bindings::NLA_NUL_STRING, len)
    }

    const fn new(kind: u32, len: u16) -> Self {
        Self(bindings::nla_policy {
            type_: kind as u8,
            len,
            ..pin_init::zeroed()
        })
    }
}

/// Rules for the attributes 0 to `N - 1` of one level.
pub(crate) type Policy<const N: usize> = [Rule; N];

/// A received attribute.
///
/// # Invariants
///
/// `raw` is valid for `'a`, and so are the bytes that its length says belong to it; the length covers its header.
#[derive(Clone, Copy)]
pub(crate) struct Attr<'a> {
    raw: &'a bindings::nlattr,
}

impl<'a> Attr<'a> {
    /// Views what a parser found.
    ///
    /// # Safety
    ///
    /// `raw` must be null or point to an attribute that the kernel's parser accepted, in a message that lives for `'a`.
    pub(super) unsafe fn from_raw(raw: *const bindings::nlattr) -> Option<Self> {
        // SAFETY: By the requirement.
        let raw = unsafe { raw.as_ref() }?;
        // INVARIANT: The parser accepts only attributes that lie in the message as a whole.
        Some(Self { raw })
    }

    /// The C pointer.
    pub(super) fn as_ptr(&self) -> *const bindings::nlattr {
        self.raw
    }

    /// The bytes of the attribute.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        let header = size_of::<bindings::nlattr>();
        let len = usize::from(self.raw.nla_len).saturating_sub(header);
        // SAFETY: By the type invariant the bytes behind the header, up to its length, belong to the attribute.
        unsafe {
            core::slice::from_raw_parts(
                (&raw const *self.raw).cast::<u8>().wrapping_add(header),
                len,
            )
        }
    }

    /// The first `M` bytes, zeros where the attribute is shorter: `nla_memcpy()` into a zeroed buffer.
    #[inline]
    pub(crate) fn padded<const M: usize>(&self) -> [u8; M] {
        if let Some(bytes) = self.bytes().first_chunk() {
            return *bytes;
        }
        let mut out = [0; M];
        for (to, from) in out.iter_mut().zip(self.bytes()) {
            *to = *from;
        }
        out
    }

    /// A byte.
    pub(crate) fn u8(&self) -> u8 {
        u8::from_ne_bytes(self.padded())
    }

    /// Two bytes as they lie in memory: a number in host order, or a port in network order.
    pub(crate) fn u16(&self) -> u16 {
        u16::from_ne_bytes(self.padded())
    }

    /// Four bytes as they lie in memory.
    pub(crate) fn u32(&self) -> u32 {
        u32::from_ne_bytes(self.padded())
    }

    /// The last attribute with this number inside a nest that the kernel's parser has gone through: one that its policy does
    /// not know.
    pub(crate) fn find_inside(&self, number: u16) -> Option<&'a [u8]> {
        const HEADER: usize = size_of::<bindings::nlattr>();
        let (mut rest, mut found) = (self.bytes(), None);
        while let Some(&[l0, l1, t0, t1]) = rest.first_chunk::<HEADER>() {
            let len = usize::from(u16::from_ne_bytes([l0, l1]));
            let Some(value) = rest.get(HEADER..len) else {
                break;
            };
            if u16::from_ne_bytes([t0, t1]) & bindings::NLA_TYPE_MASK as u16 == number {
                found = Some(value);
            }
            // Attributes begin at multiples of four.
            match rest.get(len.wrapping_add(3) & !3..) {
                Some(next) => rest = next,
                None => break,
            }
        }
        found
    }

    /// The bytes before the first zero.
    pub(crate) fn string(&self) -> &'a [u8] {
        let bytes = self.bytes();
        bytes.split(|b| *b == 0).next().unwrap_or(bytes)
    }
}

/// The attributes of one level, each by its number; of attributes with the same number the last counts.
///
/// # Invariants
///
/// Each entry is null or was put there by the kernel's parser, from a message that lives for `'a`.
pub(crate) struct Attrs<'a, const N: usize> {
    table: [*mut bindings::nlattr; N],
    _message: PhantomData<&'a ()>,
}

impl<'a, const N: usize> Attrs<'a, N> {
    const EMPTY: Self = Self {
        table: [core::ptr::null_mut(); N],
        _message: PhantomData,
    };

    /// The highest number: that of the last rule.
    const MAX: c_int = {
        assert!(N > 0 && N < 0x8000);
        N as c_int - 1
    };

    /// Parses what is inside `nest`.
    pub(crate) fn inside(
        nest: Attr<'a>,
        policy: &'static Policy<N>,
        explain: Explain<'_>,
    ) -> Result<Self> {
        let mut attrs = Self::EMPTY;
        // INVARIANT: The parser fills the table.
        //
        // SAFETY: `nest` is an attribute; the table and the policy have `MAX + 1` entries; `Rule` is transparent.
        to_result(unsafe {
            bindings::rvs_helper_nla_parse_nested(
                attrs.table.as_mut_ptr(),
                Self::MAX,
                nest.as_ptr(),
                policy.as_ptr().cast::<bindings::nla_policy>(),
                explain.as_ptr(),
            )
        })?;
        Ok(attrs)
    }

    /// Parses what is inside `nest` strictly: what has no rule is refused, and the nest must say that it is one.
    pub(crate) fn strictly_inside(
        nest: Attr<'a>,
        policy: &'static Policy<N>,
        explain: Explain<'_>,
    ) -> Result<Self> {
        let mut attrs = Self::EMPTY;
        // INVARIANT: The parser fills the table.
        //
        // SAFETY: As in `inside()`.
        to_result(unsafe {
            bindings::rvs_helper_nla_parse_strict(
                attrs.table.as_mut_ptr(),
                Self::MAX,
                nest.as_ptr(),
                policy.as_ptr().cast::<bindings::nla_policy>(),
                explain.as_ptr(),
            )
        })?;
        Ok(attrs)
    }

    /// Parses the attributes of a generic netlink message without a header of its own.
    ///
    /// # Safety
    ///
    /// `header` must be the header of a message that is valid for `'a`.
    pub(super) unsafe fn of_message(
        header: *const bindings::nlmsghdr,
        policy: &'static Policy<N>,
        explain: Explain<'_>,
    ) -> Result<Self> {
        let mut attrs = Self::EMPTY;
        // INVARIANT: The parser fills the table.
        //
        // SAFETY: `header` by the requirement; the rest as in `inside()`.
        to_result(unsafe {
            bindings::rvs_helper_genlmsg_parse(
                header,
                attrs.table.as_mut_ptr(),
                Self::MAX,
                policy.as_ptr().cast::<bindings::nla_policy>(),
                explain.as_ptr(),
            )
        })?;
        Ok(attrs)
    }

    /// The attribute `number`, if it is there.
    pub(crate) fn get(&self, number: u16) -> Option<Attr<'a>> {
        let raw = *self.table.get(usize::from(number))?;
        // SAFETY: By the type invariant.
        unsafe { Attr::from_raw(raw) }
    }
}
