// SPDX-License-Identifier: GPL-2.0-only

//! What goes over an FTP control connection (RFC 959, RFC 2428), as far as IPVS cares: C `ip_vs_ftp.c`.
//!
//! A data connection has addresses and ports that only the control connection tells. A client says where it waits (`PORT`,
//! `EPRT`), or asks the server to wait (`PASV`, `EPSV`), whose answer (227, 229) names the real server, so that another text
//! goes to the client. Only what is whole in one packet counts, as in C. Checklist item 124.

use crate::addr::{
    Addr,
    Be16,
    Family, //
};
use core::ops::Range;

/// Which reply of the server is to be looked for: C `app_data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// None.
    Active,
    /// The one to `PASV`: 227.
    Passive,
    /// The one to `EPSV`: 229.
    Extended,
}

/// An address and a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// The address.
    pub addr: Addr,
    /// The port, memory order.
    pub port: Be16,
}

/// What a client wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// The server is to wait for the data connection, and to say where.
    Wait(Mode),
    /// The client waits here.
    Connect(Endpoint),
}

/// What a server has said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Where it waits.
    pub at: Endpoint,
    /// The bytes of the reply that say so.
    pub range: Range<usize>,
}

/// Looks at what a client sends: `PASV` and `EPSV` anywhere in it, `PORT` and `EPRT` at the start. C: `ip_vs_ftp_in()`.
///
/// ```
/// use rvs_core::{addr::{Addr, Family}, ftp::*};
///
/// assert_eq!(request(Family::V4, b"pasv\r\n"), Some(Request::Wait(Mode::Passive)));
/// assert_eq!(request(Family::V6, b"EPSV 2\r\n"), Some(Request::Wait(Mode::Extended)));
/// let at = Endpoint { addr: Addr::v4(u32::from_ne_bytes([10, 0, 0, 2])), port: 1025_u16.to_be() };
/// assert_eq!(request(Family::V4, b"PORT 10,0,0,2,4,1\r\n"), Some(Request::Connect(at)));
/// assert_eq!(request(Family::V4, b"EPRT |1|10.0.0.2|1025|\r\n"), Some(Request::Connect(at)));
/// assert_eq!(request(Family::V4, b"RETR pasv\n"), None);
/// ```
pub fn request(family: Family, data: &[u8]) -> Option<Request> {
    let mut rest = data;
    while let [a, b, c, d, e, f, tail @ ..] = rest {
        let word = [*a, *b, *c, *d].map(|byte| byte.to_ascii_uppercase());
        if family == Family::V4 && word == *b"PASV" && [*e, *f] == *b"\r\n" {
            return Some(Request::Wait(Mode::Passive));
        }
        if word == *b"EPSV" {
            match (*e, *f) {
                (b'\r', _) => return Some(Request::Wait(Mode::Extended)),
                (b' ', number) => {
                    // Another family is none of ours, and nothing behind that is looked at.
                    let whole = tail.first() == Some(&b'\r') && number == number_of(family);
                    return whole.then_some(Request::Wait(Mode::Extended));
                }
                _ => {}
            }
        }
        rest = rest.get(1..)?;
    }
    let old = if family == Family::V4 {
        classic(data, b"PORT", b' ')
    } else {
        None
    };
    let found = old.or_else(|| extended(data, b"EPRT", b' ', family, None))?;
    Some(Request::Connect(found.at))
}

/// Looks at what a server sends for the reply that `mode` waits for, which must begin there. `server` is where the control
/// connection goes, which 229 does not repeat. C: `ip_vs_ftp_out()`.
///
/// ```
/// use rvs_core::{addr::{Addr, Family}, ftp::*};
///
/// let server = Addr::v4(u32::from_ne_bytes([10, 0, 0, 2]));
/// let text = b"227 Entering Passive Mode (10,0,0,2,4,1).\r\n";
/// let found = reply(Mode::Passive, Family::V4, &server, text).unwrap();
/// assert_eq!((found.at.addr, found.at.port), (server, 1025_u16.to_be()));
/// assert_eq!(&text[found.range], b"10,0,0,2,4,1");
/// let text = b"229 Entering Extended Passive Mode (|||1025|)\r\n";
/// let found = reply(Mode::Extended, Family::V4, &server, text).unwrap();
/// assert_eq!((found.at.addr, found.at.port), (server, 1025_u16.to_be()));
/// assert_eq!(&text[found.range], b"|||1025|");
/// ```
pub fn reply(mode: Mode, family: Family, server: &Addr, data: &[u8]) -> Option<Reply> {
    match mode {
        Mode::Active => None,
        Mode::Passive => classic(data, b"227 ", b'('),
        Mode::Extended => extended(data, b"229 ", b'(', family, Some(server)),
    }
}

/// How an address family is written.
const fn number_of(family: Family) -> u8 {
    match family {
        Family::V4 => b'1',
        Family::V6 => b'2',
    }
}

/// Whether `data` begins with a word, in whatever case.
fn begins(data: &[u8], word: &[u8; 4]) -> bool {
    data.first_chunk::<4>()
        .is_some_and(|first| first.eq_ignore_ascii_case(word))
}

/// Where the description of an address begins behind the first four bytes: behind `mark`, however often it comes. An old one
/// may do without and begins with its first digit.
fn start(data: &[u8], mark: u8, old: bool) -> Option<usize> {
    let mut marked = false;
    let mut at = 4_usize;
    loop {
        let byte = *data.get(at)?;
        if marked && byte != mark {
            return Some(at);
        }
        if !marked && old && byte.is_ascii_digit() {
            return Some(at);
        }
        marked |= byte == mark;
        at = at.wrapping_add(1);
    }
}

/// What is before a byte, and what behind it, if it is there.
fn cut(data: &[u8], wanted: u8) -> (&[u8], Option<&[u8]>) {
    // Iterators that count are checked for overflow in the kernel, where that is a panic.
    let mut at = 0_usize;
    while let Some(byte) = data.get(at) {
        let behind = at.wrapping_add(1);
        if *byte == wanted {
            return (data.get(..at).unwrap_or(data), data.get(behind..));
        }
        at = behind;
    }
    (data, None)
}

/// Six numbers up to 255: address and port of IPv4. What follows them must have come, too.
fn classic(data: &[u8], word: &[u8; 4], mark: u8) -> Option<Reply> {
    if !begins(data, word) {
        return None;
    }
    let start = start(data, mark, true)?;
    let mut numbers = [0_u8; 6];
    let mut which = 0_usize;
    let mut end = start;
    loop {
        let byte = *data.get(end)?;
        let number = numbers.get_mut(which)?;
        if byte.is_ascii_digit() {
            *number = number
                .checked_mul(10)?
                .checked_add(byte.wrapping_sub(b'0'))?;
        } else if byte == b',' && which < 5 {
            which = which.wrapping_add(1);
        } else {
            break;
        }
        end = end.wrapping_add(1);
    }
    if which != 5 {
        return None;
    }
    let [a, b, c, d, hi, lo] = numbers;
    Some(Reply {
        at: Endpoint {
            addr: Addr::v4(u32::from_ne_bytes([a, b, c, d])),
            port: u16::from_ne_bytes([hi, lo]),
        },
        range: start..end,
    })
}

/// Family, address and port, each between two delimiters that are all the same. Without the first two it is `server`'s address,
/// if there is one.
fn extended(
    data: &[u8],
    word: &[u8; 4],
    mark: u8,
    family: Family,
    server: Option<&Addr>,
) -> Option<Reply> {
    if !begins(data, word) {
        return None;
    }
    let start = start(data, mark, false)?;
    let (delimiter, rest) = data.get(start..)?.split_first()?;
    let delimiter = *delimiter;
    if !(33..=126).contains(&delimiter) {
        return None;
    }
    let (addr, rest) = match rest {
        [first, rest @ ..] if *first == delimiter => match rest {
            [second, rest @ ..] if *second == delimiter => (*server?, rest),
            _ => return None,
        },
        [number, second, rest @ ..] if *number == number_of(family) && *second == delimiter => {
            let (text, rest) = cut(rest, delimiter);
            let addr = match family {
                Family::V4 => Addr::v4(u32::from_ne_bytes(v4(text)?)),
                Family::V6 => v6(text)?,
            };
            (addr, rest?)
        }
        _ => return None,
    };
    let mut port = 0_u16;
    let mut left = rest;
    let rest = loop {
        let (byte, rest) = left.split_first()?;
        if !byte.is_ascii_digit() {
            break (*byte == delimiter && port != 0).then_some(rest)?;
        }
        port = port
            .checked_mul(10)?
            .checked_add(byte.wrapping_sub(b'0').into())?;
        left = rest;
    };
    Some(Reply {
        at: Endpoint {
            addr,
            port: port.to_be(),
        },
        range: start..data.len().checked_sub(rest.len())?,
    })
}

/// Four numbers up to 255: C `in4_pton()`.
fn v4(text: &[u8]) -> Option<[u8; 4]> {
    let mut numbers = [0_u8; 4];
    let mut left = Some(text);
    for number in &mut numbers {
        let (part, behind) = cut(left?, b'.');
        if part.is_empty() {
            return None;
        }
        for byte in part {
            let digit = byte.is_ascii_digit().then(|| byte.wrapping_sub(b'0'))?;
            *number = number.checked_mul(10)?.checked_add(digit)?;
        }
        left = behind;
    }
    left.is_none().then_some(numbers)
}

/// Up to four hexadecimal digits, besides zeros in front.
fn group(text: &[u8]) -> Option<u16> {
    let mut number = 0_u16;
    if text.is_empty() {
        return None;
    }
    for byte in text {
        let digit = char::from(*byte).to_digit(16)?;
        number = number
            .checked_mul(16)?
            .checked_add(u16::try_from(digit).ok()?)?;
    }
    Some(number)
}

/// An IPv6 address: C `in6_pton()`, which lets `::` stand for nothing at all.
fn v6(text: &[u8]) -> Option<Addr> {
    let mut groups = [0_u16; 8];
    let mut count = 0_usize;
    let mut gap = None;
    let mut rest = text;
    if let [b':', b':', tail @ ..] = rest {
        gap = Some(0_usize);
        rest = tail;
    }
    while !rest.is_empty() {
        let (part, behind) = cut(rest, b':');
        if part.contains(&b'.') {
            let [a, b, c, d] = v4(part)?;
            if behind.is_some() || (count != 6 && gap.is_none()) {
                return None;
            }
            for two in [[a, b], [c, d]] {
                *groups.get_mut(count)? = u16::from_be_bytes(two);
                count = count.wrapping_add(1);
            }
            break;
        }
        *groups.get_mut(count)? = group(part)?;
        count = count.wrapping_add(1);
        match behind {
            None => break,
            Some([b':', tail @ ..]) if gap.is_none() && count < 8 => {
                gap = Some(count);
                rest = tail;
            }
            // A colon must not be the last.
            Some([]) => return None,
            Some(tail) => rest = tail,
        }
    }
    let mut whole = [0_u16; 8];
    match gap {
        None if count == 8 => whole = groups,
        None => return None,
        // Those behind it go to the end, and zeros come in between.
        Some(gap) => {
            for (to, from) in whole.iter_mut().zip(groups.get(..gap)?) {
                *to = *from;
            }
            for (to, from) in whole
                .iter_mut()
                .rev()
                .zip(groups.get(gap..count)?.iter().rev())
            {
                *to = *from;
            }
        }
    }
    let [a, b, c, d, e, f, g, h] = whole;
    Some(Addr([[a, b], [c, d], [e, f], [g, h]].map(|[hi, lo]| {
        ((u32::from(hi) << 16) | u32::from(lo)).to_be()
    })))
}

/// How long a [`Text`] can be: `255,255,255,255,255,255`.
pub const MOST: usize = 23;

/// What takes the place of the bytes that a server has said where it waits with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    bytes: [u8; MOST],
    len: usize,
}

impl Text {
    const EMPTY: Self = Text {
        bytes: [0; MOST],
        len: 0,
    };

    /// The text for a client that is to connect to `at`. An extended reply has the port only: its client connects to the
    /// address that it knows.
    pub fn new(mode: Mode, at: &Endpoint) -> Self {
        let mut text = Self::EMPTY;
        let port = at.port.to_ne_bytes();
        match mode {
            Mode::Active => {}
            Mode::Passive => {
                for byte in at.addr.v4_be().to_ne_bytes() {
                    text.number(byte.into());
                    text.push(b',');
                }
                text.number(port[0].into());
                text.push(b',');
                text.number(port[1].into());
            }
            Mode::Extended => {
                for _ in 0..3 {
                    text.push(b'|');
                }
                text.number(u16::from_be(at.port));
                text.push(b'|');
            }
        }
        text
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len = self.len.wrapping_add(1);
        }
    }

    fn number(&mut self, number: u16) {
        let mut seen = false;
        for unit in [10_000, 1000, 100, 10, 1_u16] {
            let digit = number.checked_div(unit).unwrap_or(0) % 10;
            seen |= digit != 0 || unit == 1;
            if seen {
                self.push(b'0'.wrapping_add(digit as u8));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{
        Ipv4Addr,
        Ipv6Addr, //
    };
    use std::string::{
        String,
        ToString, //
    };

    fn four(text: &str) -> Addr {
        Addr::v4(u32::from_ne_bytes(
            text.parse::<Ipv4Addr>().unwrap().octets(),
        ))
    }

    fn six(text: &str) -> Addr {
        Addr::from_bytes(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    fn at(addr: Addr, port: u16) -> Endpoint {
        Endpoint {
            addr,
            port: port.to_be(),
        }
    }

    #[test]
    fn requests_to_wait() {
        const PASV: Option<Request> = Some(Request::Wait(Mode::Passive));
        const EPSV: Option<Request> = Some(Request::Wait(Mode::Extended));
        for (text, v4, v6) in [
            ("PASV\r\n", PASV, None),
            ("PaSv\r\n", PASV, None),
            ("NOOP\r\nPASV\r\n", PASV, None),
            ("xPASV\r\nrest", PASV, None),
            ("PASV\n", None, None),
            ("PASV\r", None, None),
            ("PASV \r\n", None, None),
            ("EPSV\r\n", EPSV, EPSV),
            ("epsv\r\n", EPSV, EPSV),
            ("EPSV\rx", EPSV, EPSV),
            ("EPSV\r", None, None),
            ("EPSV 1\r\n", EPSV, None),
            ("EPSV 2\r\n", None, EPSV),
            ("EPSV 1\r", EPSV, None),
            ("EPSV 1", None, None),
            ("EPSV 11\r\n", None, None),
            ("EPSV ALL\r\n", None, None),
            ("EPSV 3\r\n", None, None),
            // What a refused one has hidden is not found.
            ("EPSV ALL\r\nPASV\r\n", None, None),
            ("EPSVX EPSV\r\n", EPSV, EPSV),
            ("", None, None),
            ("PORT", None, None),
        ] {
            assert_eq!(request(Family::V4, text.as_bytes()), v4, "{text:?}");
            assert_eq!(request(Family::V6, text.as_bytes()), v6, "{text:?}");
        }
    }

    #[test]
    fn requests_to_connect() {
        let client = four("10.0.0.2");
        let v6_client = six("fd00::2");
        for (text, want) in [
            ("PORT 10,0,0,2,4,1\r\n", Some(at(client, 1025))),
            ("port 10,0,0,2,4,1\r\n", Some(at(client, 1025))),
            ("PORT    10,0,0,2,4,1x", Some(at(client, 1025))),
            ("PORT10,0,0,2,4,1\n", Some(at(client, 1025))),
            ("PORTAL 10,0,0,2,255,255\r\n", Some(at(client, 65535))),
            ("PORT 010,000,0,2,4,01\r\n", Some(at(client, 1025))),
            ("PORT ,,,,,\r\n", Some(at(Addr::ZERO, 0))),
            // More of it may come.
            ("PORT 10,0,0,2,4,1", None),
            ("PORT 10,0,0,2,4\r\n", None),
            ("PORT 10,0,0,2,4,256\r\n", None),
            ("PORT 10,0,0,999,4,1\r\n", None),
            ("PORT x10,0,0,2,4,1\r\n", None),
            (" PORT 10,0,0,2,4,1\r\n", None),
            ("NOOP\r\nPORT 10,0,0,2,4,1\r\n", None),
            ("PORT 10,0,0,2,4,1,7\r\n", Some(at(client, 1025))),
            ("EPRT |1|10.0.0.2|1025|\r\n", Some(at(client, 1025))),
            ("eprt |1|10.0.0.2|1025|", Some(at(client, 1025))),
            ("EPRT ~1~010.0.0.2~65535~", Some(at(client, 65535))),
            ("EPRT  !1!10.0.0.2!1!", Some(at(client, 1))),
            ("EPRT |1|10.0.0.2|65536|\r\n", None),
            ("EPRT |1|10.0.0.2|0|\r\n", None),
            ("EPRT |1|10.0.0.2||\r\n", None),
            ("EPRT |1|10.0.0.2|1025\r\n", None),
            ("EPRT |1|10.0.0.2|1025", None),
            ("EPRT |1|10.0.0.256|1025|\r\n", None),
            ("EPRT |1|10.0.0|1025|\r\n", None),
            ("EPRT |1|10.0.0.2.3|1025|\r\n", None),
            ("EPRT |1||1025|\r\n", None),
            ("EPRT |||1025|\r\n", None),
            ("EPRT |2|fd00::2|1025|\r\n", None),
            ("EPRT|1|10.0.0.2|1025|\r\n", None),
            ("EPRT \x7f1\x7f10.0.0.2\x7f1025\x7f\r\n", None),
            ("EPRT .1.10.0.0.2.1025.\r\n", None),
        ] {
            assert_eq!(
                request(Family::V4, text.as_bytes()),
                want.map(Request::Connect),
                "{text:?}"
            );
        }
        for (text, want) in [
            ("EPRT |2|fd00::2|1025|\r\n", Some(at(v6_client, 1025))),
            (
                "EPRT |2|FD00:0:0:0:0:0:0:2|1025|",
                Some(at(v6_client, 1025)),
            ),
            ("EPRT |2|::10.0.0.2|1|", Some(at(six("::10.0.0.2"), 1))),
            ("EPRT |2|::|1|", Some(at(Addr::ZERO, 1))),
            ("EPRT |1|10.0.0.2|1025|\r\n", None),
            ("EPRT |2|10.0.0.2|1025|\r\n", None),
            ("EPRT |2|fd00::2::|1025|\r\n", None),
            ("EPRT |2|fd00:|1025|\r\n", None),
            ("EPRT |2|12345::|1025|\r\n", None),
            ("PORT 10,0,0,2,4,1\r\n", None),
        ] {
            assert_eq!(
                request(Family::V6, text.as_bytes()),
                want.map(Request::Connect),
                "{text:?}"
            );
        }
    }

    #[test]
    fn replies() {
        let server = four("10.0.1.2");
        let passive = |text: &str| {
            reply(Mode::Passive, Family::V4, &server, text.as_bytes())
                .map(|r| (r.at, text[r.range].to_string()))
        };
        let found = |port, text: &str| Some((at(server, port), text.to_string()));
        for (text, want) in [
            (
                "227 Entering Passive Mode (10,0,1,2,4,1).\r\n",
                found(1025, "10,0,1,2,4,1"),
            ),
            ("227 =10,0,1,2,4,1\r\n", found(1025, "10,0,1,2,4,1")),
            ("227 ((10,0,1,2,4,1)", found(1025, "10,0,1,2,4,1")),
            ("227 (10,0,1,2,4,1", None),
            ("227-(10,0,1,2,4,1)", None),
            ("228 (10,0,1,2,4,1)", None),
            ("x227 (10,0,1,2,4,1)", None),
            ("227 nothing", None),
            ("227 (10,0,1,2,4,1234)", None),
            ("229 (|||1025|)\r\n", None),
            ("227", None),
        ] {
            assert_eq!(passive(text), want, "{text:?}");
        }
        let extended = |text: &str| {
            reply(Mode::Extended, Family::V4, &server, text.as_bytes())
                .map(|r| (r.at, text[r.range].to_string()))
        };
        for (text, want) in [
            (
                "229 Entering Extended Passive Mode (|||1025|)\r\n",
                found(1025, "|||1025|"),
            ),
            ("229 (!!!1025!)", found(1025, "!!!1025!")),
            ("229 (|1|10.0.1.2|1025|)", found(1025, "|1|10.0.1.2|1025|")),
            ("229 (|||0|)", None),
            ("229 (|||65536|)", None),
            ("229 (||||)", None),
            ("229 (||1025|)", None),
            ("229 (|||1025", None),
            ("229 |||1025|", None),
        ] {
            assert_eq!(extended(text), want, "{text:?}");
        }
        let other = reply(
            Mode::Extended,
            Family::V4,
            &server,
            b"229 (|1|10.0.1.3|1025|)",
        );
        assert_eq!(other.map(|r| r.at), Some(at(four("10.0.1.3"), 1025)));
        assert_eq!(
            reply(
                Mode::Active,
                Family::V4,
                &server,
                b"227 (10,0,1,2,4,1).\r\n"
            ),
            None
        );
    }

    #[test]
    fn texts() {
        for (mode, addr, port, want) in [
            (Mode::Passive, "10.0.100.1", 1025, "10,0,100,1,4,1"),
            (
                Mode::Passive,
                "255.255.255.255",
                65535,
                "255,255,255,255,255,255",
            ),
            (Mode::Passive, "0.0.0.0", 0, "0,0,0,0,0,0"),
            (Mode::Extended, "10.0.100.1", 1025, "|||1025|"),
            (Mode::Extended, "10.0.100.1", 65535, "|||65535|"),
            (Mode::Extended, "10.0.100.1", 7, "|||7|"),
            (Mode::Active, "10.0.100.1", 7, ""),
        ] {
            let text = Text::new(mode, &at(four(addr), port));
            assert_eq!(String::from_utf8_lossy(text.bytes()), want);
        }
    }

    #[test]
    fn addresses_of_ipv6() {
        for text in [
            "::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "fe80::1:2",
            "::ffff:10.0.0.1",
            "1:2:3:4:5:6:1.2.3.4",
            "0:0::0:0",
            "ABCD::ef",
        ] {
            assert_eq!(v6(text.as_bytes()), Some(six(text)), "{text}");
        }
        for text in [
            "",
            ":",
            ":::",
            "1",
            "1:",
            ":1",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1::2::3",
            "1:2:3:4:5:6:7:8::",
            "1:2:3:4:5:6:7:1.2.3.4",
            "1.2.3.4",
            "::1.2.3",
            "::1.2.3.4:5",
            "g::",
            "1::12345",
            "::1.2.3.256",
            ":::1",
        ] {
            assert_eq!(v6(text.as_bytes()), None, "{text}");
        }
        // As C, more than others take.
        assert_eq!(v6(b"00000001::"), Some(six("1::")));
        assert_eq!(v6(b"1:2:3:4::5:6:7:8"), Some(six("1:2:3:4:5:6:7:8")));
    }

    #[test]
    fn delimiters() {
        let client = four("10.0.0.2");
        for delimiter in 0..=255_u8 {
            let d = [delimiter];
            let parts: [&[u8]; 9] = [
                b"EPRT ",
                &d,
                b"1",
                &d,
                b"10.0.0.2",
                &d,
                b"1025",
                &d,
                b"\r\n",
            ];
            let text = parts.concat();
            // One that is a part of what it parts does not part it; a blank is skipped.
            let fits =
                (33..=126).contains(&delimiter) && !delimiter.is_ascii_digit() && delimiter != b'.';
            let want = fits.then_some(Request::Connect(at(client, 1025)));
            assert_eq!(request(Family::V4, &text), want, "{delimiter:?}");
        }
    }
}
