// SPDX-License-Identifier: GPL-2.0-only

//! Round robin; C file: `ip_vs_rr.c`.

use super::{
    eligible,
    Change,
    Cursor,
    Pick,
    Place,
    Pool, //
};

/// The destination chosen last.
#[derive(Clone, Default, Debug)]
pub struct State {
    cursor: Place,
}

impl State {
    /// Nothing was chosen yet.
    pub const fn new() -> Self {
        State {
            cursor: Place::HEAD,
        }
    }

    /// The destination chosen last, or the one before it if that was deleted.
    #[inline]
    pub const fn cursor(&self) -> Cursor {
        self.cursor.get()
    }

    /// The next destination after the last one that takes connections, all around; the last one
    /// itself comes last.
    #[inline]
    pub fn pick<P: Pool + ?Sized>(&mut self, pool: &P) -> Pick {
        let len = pool.len();
        let start = self.cursor.get().within(len).next();
        let found = (start..len)
            .chain(0..start.min(len))
            .find(|&i| eligible(pool, i));
        match found {
            Some(i) => {
                self.cursor = Place::new(Cursor::At(i));
                Pick::Dest(i)
            }
            None => Pick::NoneAvailable,
        }
    }

    /// Follows the destination chosen last; when it was deleted, steps back to its predecessor.
    pub fn on_change<P: Pool + ?Sized>(&mut self, change: Change, pool: &P) {
        let moved = self.cursor.get().moved(change);
        self.cursor = Place::new(moved.within(pool.len()));
    }
}
