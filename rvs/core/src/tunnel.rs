// SPDX-License-Identifier: GPL-2.0-only

//! What tunnels have beyond C: source addresses by the flow, and segments that fit (docs/tunnel-extras.md).

use crate::{
    addr::{
        Addr,
        Family, //
    },
    checksum,
};

/// A network whose addresses are the sources of tunnels' packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sources {
    family: Family,
    /// The network's address.
    addr: Addr,
    /// Its prefix length.
    len: u8,
}

/// Why a network cannot be one of sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// The attribute is not as long as it should be.
    Size,
    /// The prefix is too long for the family, or shorter than a network of hosts can be.
    Length,
    /// No host can have these addresses, or there are bits behind the prefix.
    Address,
}

impl Sources {
    /// The length of the attribute: the address, the prefix length, three bytes of nothing.
    pub const fn size(family: Family) -> usize {
        family.addr_len().wrapping_add(4)
    }

    /// Reads an attribute. A prefix of length 0 stands for none.
    ///
    /// ```
    /// use rvs_core::{addr::Family, tunnel::{Invalid, Sources}};
    ///
    /// let parse = |bytes: &[u8]| Sources::parse(Family::V4, bytes);
    /// assert!(parse(&[10, 1, 0, 0, 16, 0, 0, 0]).unwrap().is_some());
    /// assert_eq!(parse(&[0; 8]), Ok(None));
    /// assert_eq!(parse(&[10, 1, 0, 0, 16]), Err(Invalid::Size));
    /// assert_eq!(parse(&[10, 1, 0, 0, 33, 0, 0, 0]), Err(Invalid::Length));
    /// assert_eq!(parse(&[10, 1, 0, 1, 16, 0, 0, 0]), Err(Invalid::Address));
    /// assert_eq!(parse(&[224, 0, 0, 0, 16, 0, 0, 0]), Err(Invalid::Address));
    /// ```
    ///
    /// # Errors
    ///
    /// [`Invalid`] says what is wrong.
    pub fn parse(family: Family, bytes: &[u8]) -> Result<Option<Self>, Invalid> {
        let (addr, rest) = bytes
            .split_at_checked(family.addr_len())
            .ok_or(Invalid::Size)?;
        let [len, 0, 0, 0] = *rest else {
            return Err(Invalid::Size);
        };
        if len == 0 {
            return Ok(None);
        }
        let bits = match family {
            Family::V4 => 8..=32,
            Family::V6 => 16..=128,
        };
        if !bits.contains(&len) {
            return Err(Invalid::Length);
        }
        let addr = Addr::from_slice(family, addr).ok_or(Invalid::Size)?;
        let is_host = match family {
            Family::V4 => {
                !(addr.v4_is_multicast() || addr.v4_is_loopback() || addr.v4_host() >> 24 == 0)
                    && addr.v4_host() >> 28 != 15
            }
            Family::V6 => addr.v6_type().is_remote_dest(),
        };
        let sources = Self { family, addr, len };
        if !is_host || sources.host(0) != addr {
            return Err(Invalid::Address);
        }
        Ok(Some(sources))
    }

    /// The attribute.
    pub fn attribute(&self) -> ([u8; 20], usize) {
        let mut out = [0; 20];
        let all = self.addr.bytes();
        let size = self.family.addr_len();
        for (to, from) in out.iter_mut().zip(all.iter().take(size)) {
            *to = *from;
        }
        if let Some(len) = out.get_mut(size) {
            *len = self.len;
        }
        (out, Self::size(self.family))
    }

    /// The address of host `number` of the network, with bits that do not fit left out.
    fn host(&self, number: u32) -> Addr {
        let own = !u128::MAX.checked_shl(self.host_bits()).unwrap_or(0);
        match self.family {
            Family::V4 => {
                let own = own as u32;
                Addr::v4(((self.addr.v4_host() & !own) | (number & own)).to_be())
            }
            Family::V6 => {
                let network = u128::from_be_bytes(self.addr.bytes());
                Addr::from_bytes(((network & !own) | (u128::from(number) & own)).to_be_bytes())
            }
        }
    }

    fn host_bits(&self) -> u32 {
        (self.family.addr_len() as u32)
            .saturating_mul(8)
            .saturating_sub(self.len.into())
    }

    /// The address for a flow with this hash; never the network's own, nor IPv4's broadcast, where there are others.
    ///
    /// ```
    /// use rvs_core::{addr::{Addr, Family}, tunnel::Sources};
    ///
    /// let at = |len: u8, hash| {
    ///     let sources = Sources::parse(Family::V4, &[10, 1, 0, 0, len, 0, 0, 0]).unwrap().unwrap();
    ///     sources.pick(hash).v4_host().to_be_bytes()
    /// };
    /// assert_eq!(at(24, 0), [10, 1, 0, 1]);
    /// assert_eq!(at(24, 253), [10, 1, 0, 254]);
    /// assert_eq!(at(24, 254), [10, 1, 0, 1]);
    /// assert_eq!(at(31, 7), [10, 1, 0, 1]);
    /// assert_eq!(at(32, 7), [10, 1, 0, 0]);
    /// ```
    pub fn pick(&self, hash: u32) -> Addr {
        let bits = self.host_bits();
        // The first and the last of a network are no hosts.
        let skipped = match (self.family, bits) {
            (_, 0 | 1) => 0,
            (Family::V4, _) => 2,
            (Family::V6, _) => 1,
        };
        let count = if bits >= 32 { u32::MAX } else { 1u32 << bits };
        let first = u32::from(skipped != 0);
        let number = hash
            .checked_rem(count.wrapping_sub(skipped))
            .unwrap_or(0)
            .wrapping_add(first);
        self.host(number)
    }
}

/// Kinds of TCP options.
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const HEADER: usize = 20;

/// Where in a TCP header of a SYN the maximum segment size is, if it is larger than `max`: the offset of its two bytes.
///
/// ```
/// use rvs_core::tunnel::large_mss;
///
/// let mut header = [0u8; 28];
/// header[12] = 7 << 4;
/// header[13] = 2;
/// header[20..].copy_from_slice(&[1, 2, 4, 0x05, 0xb4, 1, 1, 0]);
/// assert_eq!(large_mss(&header, 1400), Some(23));
/// assert_eq!(large_mss(&header, 1460), None);
/// header[13] = 16;
/// assert_eq!(large_mss(&header, 1400), None);
/// ```
pub fn large_mss(header: &[u8], max: u16) -> Option<usize> {
    let len = usize::from(header.get(12)? >> 4).wrapping_mul(4);
    if header.get(13)? & 2 == 0 {
        return None;
    }
    let header = header.get(..len)?;
    let mut at = HEADER;
    // An option has at least one byte, so the loop ends.
    while at < len {
        match *header.get(at)? {
            END => return None,
            NOP => at = at.checked_add(1)?,
            kind => {
                let size = usize::from(*header.get(at.checked_add(1)?)?);
                if size < 2 {
                    return None;
                }
                if kind == MSS && size == 4 {
                    let value = at.checked_add(2)?;
                    let mss = u16::from_be_bytes([
                        *header.get(value)?,
                        *header.get(value.checked_add(1)?)?,
                    ]);
                    return (mss > max).then_some(value);
                }
                at = at.checked_add(size)?;
            }
        }
    }
    None
}

/// Writes `mss` where [`large_mss()`] said. With `csum` the checksum is kept right (or as wrong as it was); without, somebody will
/// fill it in.
pub fn set_mss(header: &mut [u8], at: usize, mss: u16, csum: bool) -> Option<()> {
    let field = header.get_mut(at..)?.get_mut(..2)?;
    let old = u16::from_be_bytes([*field.first()?, *field.get(1)?]);
    field.copy_from_slice(&mss.to_be_bytes());
    if csum {
        // The sum is of words; what lies across two of them counts with its bytes swapped.
        let (from, to) = if at % 2 == 0 {
            (old, mss)
        } else {
            (old.swap_bytes(), mss.swap_bytes())
        };
        let field = header.get_mut(16..18)?;
        let check = u16::from_ne_bytes([*field.first()?, *field.get(1)?]);
        let check = checksum::replace2(check, from.to_be(), to.to_be());
        field.copy_from_slice(&check.to_ne_bytes());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, vec};

    #[test]
    fn flows_spread_and_stay_inside() {
        let sources = Sources::parse(Family::V6, &{
            let mut bytes = [0u8; 20];
            bytes[..2].copy_from_slice(&[0xfd, 0x77]);
            bytes[16] = 56;
            bytes
        })
        .unwrap()
        .unwrap();
        let all: HashSet<_> = (0..1000u32)
            .map(|n| sources.pick(n.wrapping_mul(0x9e37_79b9)).bytes())
            .collect();
        assert!(all.len() > 990);
        assert!(all
            .iter()
            .all(|a| a[..2] == [0xfd, 0x77] && a[2..12] == [0; 10]));
        assert!(all.iter().all(|a| a[12..] != [0; 4]));
        let (bytes, size) = sources.attribute();
        assert_eq!(
            Sources::parse(Family::V6, &bytes[..size]),
            Ok(Some(sources))
        );
    }

    #[test]
    fn checksum_stays_right_at_any_offset() {
        for nops in 0..4usize {
            let mut header = vec![0x11u8; 20];
            header.extend(vec![NOP; nops]);
            header.extend([MSS, 4, 0x05, 0xb4]);
            header.extend(vec![END; 8 - 4 - nops]);
            header[12] = 7 << 4;
            header[13] = 2;
            header[16..18].fill(0);
            let fill = checksum::fold(checksum::csum_partial(&header, 0)).to_ne_bytes();
            header[16..18].copy_from_slice(&fill);
            let at = large_mss(&header, 1300).unwrap();
            set_mss(&mut header, at, 1300, true).unwrap();
            assert_eq!(checksum::fold(checksum::csum_partial(&header, 0)), 0);
            assert_eq!(large_mss(&header, 1300), None);
            assert_eq!(large_mss(&header, 1299), Some(at));
        }
    }

    #[test]
    fn broken_options_end_the_search() {
        for tail in [
            [2u8, 0, 5, 0xb4],
            [3, 1, 2, 4],
            [9, 200, 2, 4],
            [2, 3, 9, 9],
        ] {
            let mut header = vec![0u8; 20];
            header.extend(tail);
            header[12] = 6 << 4;
            header[13] = 2;
            assert_eq!(large_mss(&header, 100), None);
        }
    }
}
