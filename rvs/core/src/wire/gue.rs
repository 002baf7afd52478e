// SPDX-License-Identifier: GPL-2.0-only

//! Generic UDP Encapsulation, version 0, as the kernel's `fou` speaks it; C header: `include/net/gue.h`.

/// Length of the header without options.
pub const HEADER: usize = 4;
/// Length of the options with which the receiver sums up the inner packet: private flags, then where from and where to.
pub const REMCSUM: usize = 8;

/// Private flags follow; C `GUE_FLAG_PRIV`.
const FLAG_PRIV: u8 = 1;
/// Remote checksum offload; C `GUE_PFLAG_REMCSUM`.
const PFLAG_REMCSUM: u32 = 1 << 31;

/// The header in front of a packet of IP protocol `proto`.
pub const fn header(proto: u8) -> [u8; HEADER] {
    [0, proto, 0, 0]
}

/// The header in front of a packet whose receiver is to sum up from `start` and put the sum `offset` bytes from there.
///
/// ```
/// use rvs_core::wire::gue;
///
/// let header = gue::header_remcsum(4, 20, 16);
/// assert_eq!(header, [2, 4, 0, 1, 0x80, 0, 0, 0, 0, 20, 0, 36]);
/// ```
pub const fn header_remcsum(proto: u8, start: u16, offset: u16) -> [u8; HEADER + REMCSUM] {
    let [p0, p1, p2, p3] = PFLAG_REMCSUM.to_be_bytes();
    let [s0, s1] = start.to_be_bytes();
    let [o0, o1] = start.wrapping_add(offset).to_be_bytes();
    let words = (REMCSUM / 4) as u8;
    [words, proto, 0, FLAG_PRIV, p0, p1, p2, p3, s0, s1, o0, o1]
}

/// The length of the options behind a header, if it is that of a data packet around IP protocol `proto`; control messages and
/// other versions are none.
///
/// ```
/// use rvs_core::wire::gue;
///
/// assert_eq!(gue::options_len(&gue::header(4), 4), Some(0));
/// assert_eq!(gue::options_len(&[2, 4, 0, 1], 4), Some(8));
/// assert_eq!(gue::options_len(&gue::header(41), 4), None);
/// assert_eq!(gue::options_len(&[0x20, 4, 0, 0], 4), None);
/// assert_eq!(gue::options_len(&[0x40, 4, 0, 0], 4), None);
/// ```
pub const fn options_len(header: &[u8; HEADER], proto: u8) -> Option<usize> {
    let [first, inner, ..] = *header;
    // Two bits of version and one for control messages, then the length in words.
    if first & 0xe0 != 0 || inner != proto {
        return None;
    }
    Some(((first & 0x1f) as usize).wrapping_mul(4))
}
