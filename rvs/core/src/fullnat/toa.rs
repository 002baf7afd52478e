// SPDX-License-Identifier: GPL-2.0-only

//! TOA: the client's address in an option of TCP's header, for real servers that look there.
//!
//! Kind, length, port and address; 8 bytes for IPv4 and 20 for IPv6, right behind the fixed part of the header.

use super::tcp::{
    option,
    Options,
    MAX_HEADER, //
};
use crate::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    checksum::{
        csum_partial,
        Delta, //
    },
    wire::tcp::{
        Tcp,
        HEADER_LEN, //
    }, //
};

/// The kind that most readers know.
pub const KIND: u8 = 254;

/// Whether an option of this kind can carry an address: it means nothing else.
pub const fn is_free(kind: u8) -> bool {
    // What RFCs have given out, up to 35 and 69 to 172 but for a few; and MD5, AO, MPTCP and TFO among them.
    !matches!(kind, 0..=35 | 69..=79 | 172)
}

/// How many bytes the option has.
pub const fn len(family: Family) -> usize {
    match family {
        Family::V4 => 8,
        Family::V6 => 20,
    }
}

/// An option, ready to be put in.
#[derive(Clone, Copy, Debug)]
pub struct Toa {
    bytes: [u8; 20],
    len: usize,
}

impl Toa {
    /// Makes the option of a client; `port` in memory order.
    pub fn new(kind: u8, family: Family, addr: &Addr, port: Be16) -> Self {
        let mut bytes = [0; 20];
        let len = len(family);
        let [p0, p1] = port.to_ne_bytes();
        let start = [kind, len as u8, p0, p1];
        let all = Iterator::chain(start.into_iter(), addr.bytes());
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = from;
        }
        Toa { bytes, len }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A TCP header as it shall be.
#[derive(Clone, Debug)]
pub struct Planned {
    bytes: [u8; MAX_HEADER],
    len: usize,
    /// Whether the option is in.
    pub inserted: bool,
    /// Whether one of the kind was there before, which is not any more.
    pub removed: bool,
}

/// Bytes that are put together.
struct Builder {
    bytes: [u8; MAX_HEADER],
    len: usize,
}

impl Builder {
    fn new(fixed: &[u8]) -> Option<Self> {
        let mut this = Builder {
            bytes: [0; MAX_HEADER],
            len: 0,
        };
        this.add(fixed)?;
        Some(this)
    }

    fn add(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        let to = self.bytes.get_mut(self.len..end)?;
        for (to, from) in to.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.len = end;
        Some(())
    }

    /// Fills up with NOPs to whole words and to `least` bytes.
    fn pad(&mut self, least: usize) -> Option<()> {
        while self.len % 4 != 0 || self.len < least {
            self.add(&[option::NOP])?;
        }
        Some(())
    }
}

impl Planned {
    /// The header. Its checksum is still the old one: see [`Planned::checksum()`].
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The checksum that belongs to it, if `check` belonged to `old`. `partial`: that of the pseudo header, as devices get it.
    pub fn checksum(&self, old: &[u8], check: u16, partial: bool) -> u16 {
        let grown = self.len.saturating_sub(old.len()) as u16;
        let delta = Delta::new().word16(0, grown.to_be());
        if partial {
            return delta.update_partial(check);
        }
        // Both hold the same old checksum, which cancels out.
        delta
            .word32(csum_partial(old, 0), csum_partial(self.bytes(), 0))
            .update(check)
    }

    fn finish(mut built: Builder, inserted: bool, removed: bool) -> Option<Self> {
        let words = (built.len / 4) as u8;
        let offset = built.bytes.get_mut(12)?;
        *offset = (words << 4) | (*offset & 0x0f);
        Some(Planned {
            bytes: built.bytes,
            len: built.len,
            inserted,
            removed,
        })
    }
}

/// Plans a header with `toa` in it and without any other option of `kind`. The packet may grow by `room` bytes, and the
/// header never shrinks. `None` if the header stays as it is, which with a `toa` means that there is no room for it.
///
/// What stands in the way is given up in this order: padding; SACK blocks, of which there will be others.
pub fn plan(header: &[u8], kind: u8, toa: Option<&Toa>, room: usize) -> Option<Planned> {
    let fixed = header.get(..HEADER_LEN)?;
    let options = header.get(HEADER_LEN..)?;
    if options.len() > MAX_HEADER - HEADER_LEN || options.len() % 4 != 0 {
        return None;
    }
    let removed = Options::new(options).any(|o| o.kind == kind);
    let is_syn = Tcp::parse(header)?.flags().syn();
    if let Some(toa) = toa {
        let most = header.len().saturating_add(room).min(MAX_HEADER);
        let fits = |built: &Builder| built.len <= most;
        if let (false, Some(built)) = (removed, verbatim(fixed, toa, options)) {
            if fits(&built) {
                return Planned::finish(built, true, false);
            }
        }
        for without_sack in [false, true] {
            if without_sack && is_syn {
                break;
            }
            let built = packed(fixed, toa, options, kind, without_sack, header.len());
            if let Some(built) = built.filter(fits) {
                return Planned::finish(built, true, removed);
            }
        }
    }
    if !removed {
        return None;
    }
    blanked(header, options, kind)
}

/// The header with NOPs in place of each option of `kind`.
#[inline(never)]
fn blanked(header: &[u8], options: &[u8], kind: u8) -> Option<Planned> {
    let mut built = Builder::new(header)?;
    for found in Options::new(options).filter(|o| o.kind == kind) {
        let at = HEADER_LEN.checked_add(found.at)?;
        built
            .bytes
            .get_mut(at..)?
            .get_mut(..found.len)?
            .fill(option::NOP);
    }
    Planned::finish(built, false, true)
}

/// The option, then all the others as they are.
#[inline(never)]
fn verbatim(fixed: &[u8], toa: &Toa, options: &[u8]) -> Option<Builder> {
    let mut built = Builder::new(fixed)?;
    built.add(toa.bytes())?;
    built.add(options)?;
    Some(built)
}

/// The option, then the others without what is between them.
#[inline(never)]
fn packed(
    fixed: &[u8],
    toa: &Toa,
    options: &[u8],
    kind: u8,
    without_sack: bool,
    least: usize,
) -> Option<Builder> {
    let mut built = Builder::new(fixed)?;
    built.add(toa.bytes())?;
    for found in Options::new(options) {
        if found.kind == kind || (without_sack && found.kind == option::SACK) {
            continue;
        }
        built.add(options.get(found.at..)?.get(..found.len)?)?;
    }
    built.pad(least)?;
    Some(built)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use proptest::prelude::*;
    use std::{
        vec,
        vec::Vec, //
    };

    fn header(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut h = vec![7; HEADER_LEN];
        h[12] = (((HEADER_LEN + options.len()) / 4) as u8) << 4;
        h[13] = flags;
        h.extend(options);
        h
    }

    fn v4() -> Toa {
        Toa::new(
            254,
            Family::V4,
            &Addr::from_bytes([10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            0x1234_u16.to_be(),
        )
    }

    fn v6() -> Toa {
        Toa::new(
            254,
            Family::V6,
            &Addr::from_bytes([9; 16]),
            0x1234_u16.to_be(),
        )
    }

    const TS: [u8; 12] = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0];
    const SACK: [u8; 12] = [1, 1, 5, 10, 0, 0, 0, 9, 0, 0, 0, 20];

    #[test]
    fn layouts() {
        assert_eq!(v4().bytes(), [254, 8, 0x12, 0x34, 10, 0, 0, 2]);
        let six = v6();
        assert_eq!(six.bytes()[..4], [254, 20, 0x12, 0x34]);
        assert_eq!(six.bytes()[4..], [9; 16]);
        assert!(is_free(254) && is_free(253) && is_free(200) && is_free(252));
        for kind in [0, 1, 2, 3, 4, 5, 8, 19, 28, 29, 30, 34] {
            assert!(!is_free(kind));
        }
    }

    #[test]
    fn in_front_of_the_others() {
        let h = header(0x10, &TS);
        let planned = plan(&h, 254, Some(&v4()), 8).unwrap();
        assert!(planned.inserted && !planned.removed);
        assert_eq!(planned.bytes().len(), 40);
        assert_eq!(planned.bytes()[12] >> 4, 10);
        assert_eq!(&planned.bytes()[20..28], v4().bytes());
        assert_eq!(planned.bytes()[28..], TS);
        assert!(plan(&h, 254, Some(&v4()), 7).is_none());
    }

    #[test]
    fn a_forged_one_goes() {
        let forged = [254, 8, 0, 1, 1, 1, 1, 1];
        let h = header(0x10, &[&forged[..], &TS].concat());
        // It leaves its place to ours, even in a packet that may not grow.
        let planned = plan(&h, 254, Some(&v4()), 0).unwrap();
        assert!(planned.inserted && planned.removed);
        assert_eq!(planned.bytes().len(), 40);
        assert_eq!(&planned.bytes()[20..28], v4().bytes());
        assert_eq!(
            Options::new(&planned.bytes()[20..])
                .filter(|o| o.kind == 254)
                .count(),
            1
        );
        // Without one of ours it becomes nothing.
        let planned = plan(&h, 254, None, 0).unwrap();
        assert!(!planned.inserted && planned.removed);
        assert_eq!(planned.bytes()[20..28], [1; 8]);
        assert!(plan(&header(0x10, &TS), 254, None, 0).is_none());
    }

    #[test]
    fn room_is_made() {
        // 40 bytes of options less padding.
        let many = [&TS[..], &SACK, &[1, 1, 1, 1, 1, 1, 1, 1]].concat();
        let planned = plan(&header(0x10, &many), 254, Some(&v4()), 20).unwrap();
        assert!(planned.inserted);
        let kinds: Vec<u8> = Options::new(&planned.bytes()[20..])
            .map(|o| o.kind)
            .collect();
        assert_eq!(kinds, [254, 8, 5]);
        // IPv6 and timestamps leave no room for two SACK blocks.
        let two_blocks = [&[1, 1, 5, 18][..], &[7; 16]].concat();
        let both = [&TS[..], &two_blocks].concat();
        let planned = plan(&header(0x10, &both), 254, Some(&v6()), 20).unwrap();
        let kinds: Vec<u8> = Options::new(&planned.bytes()[20..])
            .map(|o| o.kind)
            .collect();
        assert_eq!(kinds, [254, 8]);
        // What a SYN says stays.
        let syn = [
            2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        let planned = plan(&header(2, &syn), 254, Some(&v4()), 20).unwrap();
        assert_eq!(planned.bytes()[28..], syn);
        let planned = plan(&header(2, &syn), 254, Some(&v6()), 20).unwrap();
        assert_eq!(planned.bytes().len(), 60);
        let fast_open = [&syn[..], &[34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1]].concat();
        assert!(plan(&header(2, &fast_open), 254, Some(&v6()), 20).is_none());
    }

    proptest! {
        #[test]
        fn checksums_hold(words in prop::collection::vec(any::<[u8; 4]>(), 0..=10), flags: u8, room in 0..30_usize,
                          kind: u8, six: bool, payload in prop::collection::vec(any::<u8>(), 0..9)) {
            let h = header(flags, &words.concat());
            let toa = if six { v6() } else { v4() };
            let total = |header: &[u8]| (header.len() + payload.len()) as u32;
            let sum = |header: &[u8]| {
                let all = [header, &payload].concat();
                checksum::pseudo_v4(1, 2, 6, total(header), checksum::csum_partial(&all, 0))
            };
            let mut right = h.clone();
            right[16..18].fill(0);
            let check = checksum::fold(sum(&right));
            right[16..18].copy_from_slice(&check.to_ne_bytes());
            if let Some(planned) = plan(&right, kind, Some(&toa), room) {
                let new = planned.checksum(&right, check, false);
                let mut bytes = planned.bytes().to_vec();
                prop_assert!(bytes.len() >= h.len() && bytes.len() <= h.len() + room && bytes.len() % 4 == 0);
                prop_assert_eq!(usize::from(bytes[12] >> 4) * 4, bytes.len());
                bytes[16..18].copy_from_slice(&new.to_ne_bytes());
                prop_assert_eq!(checksum::fold_sum(sum(&bytes)), 0xffff);
                let seed = |header: &[u8]| checksum::fold_sum(checksum::pseudo_v4(1, 2, 6, total(header), 0));
                prop_assert_eq!(planned.checksum(&right, seed(&right), true) % 0xffff, seed(&bytes) % 0xffff);
                if kind == 254 {
                    let count = Options::new(&bytes[20..]).filter(|o| o.kind == 254).count();
                    prop_assert_eq!(count, usize::from(planned.inserted));
                }
            }
        }
    }
}
