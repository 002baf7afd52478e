// SPDX-License-Identifier: GPL-2.0-only

//! Shared words.
//!
//! The kernel crate's [`Atomic`] calls an exported C function for every load and store. The words below are read for
//! every packet, so their loads and stores are `READ_ONCE()` and `WRITE_ONCE()` spelled out; read-modify-write
//! operations are the kernel's.
//!
//! C header: `include/asm-generic/rwonce.h`

use kernel::sync::atomic::{
    Atomic,
    Full,
    Relaxed, //
};

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $ty:ty) => {
        $(#[$doc])*
        #[repr(transparent)]
        pub(crate) struct $name(Atomic<$ty>);

        #[allow(dead_code)]
        impl $name {
            /// Makes a word that holds `v`.
            pub(crate) const fn new(v: $ty) -> Self {
                Self(Atomic::new(v))
            }

            /// Reads the word: `READ_ONCE()`.
            #[inline(always)]
            pub(crate) fn load(&self) -> $ty {
                // SAFETY: `as_ptr()` gives a pointer to the live, aligned word of `self`; a volatile access of a machine
                // word is what `READ_ONCE()` is in C, and does not tear.
                unsafe { self.0.as_ptr().read_volatile() }
            }

            /// The word, for C, which must access it as this type does.
            pub(super) fn as_ptr(&self) -> *mut $ty {
                self.0.as_ptr()
            }

            /// Writes the word: `WRITE_ONCE()`.
            #[inline(always)]
            pub(crate) fn store(&self, v: $ty) {
                // SAFETY: As in `load()`; concurrent accesses to the word are atomic or volatile ones only.
                unsafe { self.0.as_ptr().write_volatile(v) }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(Default::default())
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $ty:ty) => {
        word!($(#[$doc])* $name, $ty);

        #[allow(dead_code)]
        impl $name {
            /// Adds `v`, wrapping, and returns what was there before; fully ordered.
            pub(crate) fn fetch_add(&self, v: $ty) -> $ty {
                self.0.fetch_add(v, Full)
            }

            /// Adds `v`, wrapping; not ordered.
            pub(crate) fn add(&self, v: $ty) {
                self.0.add(v, Relaxed)
            }

            /// Subtracts `v`, wrapping, and returns what was there before; fully ordered.
            pub(crate) fn fetch_sub(&self, v: $ty) -> $ty {
                self.0.fetch_add((0 as $ty).wrapping_sub(v), Full)
            }

            /// Subtracts `v`, wrapping; not ordered.
            pub(crate) fn sub(&self, v: $ty) {
                self.0.add((0 as $ty).wrapping_sub(v), Relaxed)
            }

            /// Puts `v` in and returns what was there before; fully ordered.
            pub(crate) fn swap(&self, v: $ty) -> $ty {
                self.0.xchg(v, Full)
            }

            /// Puts `new` in if the word holds `old`; returns whether it did. Fully ordered when it did.
            pub(crate) fn replace(&self, old: $ty, new: $ty) -> bool {
                self.0.cmpxchg(old, new, Full).is_ok()
            }
        }
    };
}

number!(
    /// A shared `u32`.
    U32,
    u32
);
number!(
    /// A shared `i32`.
    I32,
    i32
);
number!(
    /// A shared `i64`.
    I64,
    i64
);
number!(
    /// A shared `usize`.
    Usize,
    usize
);

/// A shared `bool`.
#[derive(Default)]
pub(crate) struct Bool(U32);

#[allow(dead_code)]
impl Bool {
    /// Makes a word that holds `v`.
    pub(crate) const fn new(v: bool) -> Self {
        Self(U32::new(v as u32))
    }

    /// Reads the word: `READ_ONCE()`.
    #[inline(always)]
    pub(crate) fn load(&self) -> bool {
        self.0.load() != 0
    }

    /// Writes the word: `WRITE_ONCE()`.
    #[inline(always)]
    pub(crate) fn store(&self, v: bool) {
        self.0.store(v.into())
    }

    /// Puts `v` in and returns what was there before; fully ordered.
    pub(crate) fn swap(&self, v: bool) -> bool {
        self.0.swap(v.into()) != 0
    }
}
