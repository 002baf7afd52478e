// SPDX-License-Identifier: GPL-2.0-only

//! A list that anybody may put things on without a lock, and from which all are taken at once.
//!
//! C header: `include/linux/llist.h`

use super::atomic::{
    Bool,
    Usize, //
};
use core::marker::PhantomData;
use kernel::sync::Arc;

/// What can be on a [`Stack`]: it has a [`Link`] for that, so that nothing is allocated.
pub(crate) trait Linked: Send + Sync + Sized + 'static {
    /// Its link. Always the same.
    fn link(&self) -> &Link;
}

/// The place of a thing on a stack.
///
/// # Invariants
///
/// `next` belongs to whoever has turned `is_on` from false to true, and then to the stack.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Link {
    /// For whoever uses the stack.
    pub(crate) mark: Bool,
    is_on: Bool,
    next: Usize,
}

/// The list.
///
/// # Invariants
///
/// `head` is 0 or the address of a `T` from `Arc::into_raw()` whose `next` is such a word again; each of them is on this
/// stack only.
pub(crate) struct Stack<T: Linked> {
    head: Usize,
    _owns: PhantomData<Arc<T>>,
}

// SAFETY: The stack owns references to `T: Send + Sync`.
unsafe impl<T: Linked> Send for Stack<T> {}
// SAFETY: As above; all access to the words is atomic.
unsafe impl<T: Linked> Sync for Stack<T> {}

impl<T: Linked> Stack<T> {
    /// Makes an empty one.
    pub(crate) const fn new() -> Self {
        // INVARIANT: 0 is empty.
        Self {
            head: Usize::new(0),
            _owns: PhantomData,
        }
    }

    /// Puts `new` on, unless it is on a stack already. Any context.
    pub(crate) fn push(&self, new: &Arc<T>) {
        let link = new.link();
        if link.is_on.swap(true) {
            return;
        }
        let raw = Arc::into_raw(new.clone()) as usize;
        loop {
            let head = self.head.load();
            link.next.store(head);
            // INVARIANT: The address is from `into_raw()`, and `next` was the head. The exchange is fully ordered, so
            // that whoever takes the list finds `next` written.
            if self.head.replace(head, raw) {
                return;
            }
        }
    }

    /// Takes all off: what was put on last comes first.
    pub(crate) fn take(&self) -> Taken<T> {
        // INVARIANT: The list belongs to the new owner now.
        Taken {
            head: self.head.swap(0),
            _owns: PhantomData,
        }
    }
}

impl<T: Linked> Drop for Stack<T> {
    fn drop(&mut self) {
        self.take().for_each(drop);
    }
}

/// What was taken off a stack; each can be put on again from when it comes out.
///
/// # Invariants
///
/// As for the `head` of a [`Stack`], but nobody else has the word.
pub(crate) struct Taken<T: Linked> {
    head: usize,
    _owns: PhantomData<Arc<T>>,
}

impl<T: Linked> Iterator for Taken<T> {
    type Item = Arc<T>;

    fn next(&mut self) -> Option<Arc<T>> {
        if self.head == 0 {
            return None;
        }
        // SAFETY: By the type invariant the word is from `Arc::into_raw()`; the next line takes it out.
        let first = unsafe { Arc::from_raw(self.head as *const T) };
        self.head = first.link().next.load();
        // From here on others may write the link.
        first.link().is_on.swap(false);
        Some(first)
    }
}

impl<T: Linked> Drop for Taken<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}
