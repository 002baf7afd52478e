// SPDX-License-Identifier: GPL-2.0-or-later

//! Numbers and addresses as the C library reads them, for ipvsadm does so with what is typed.

use std::net::Ipv4Addr;

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// What `strtol(text, &end, 10)` reads, saturated, and what it leaves; `None` where there is no number.
pub(crate) fn strtol(text: &str) -> Option<(i64, &str)> {
    let text = text.trim_start_matches(is_space);
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() {
        return None;
    }
    let value = digits.bytes().fold(0i64, |value, digit| {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        value.saturating_mul(10).saturating_add(digit)
    });
    Some((
        if negative {
            value.saturating_neg()
        } else {
            value
        },
        rest,
    ))
}

/// A number within a range and nothing after it.
pub(crate) fn number<T: TryFrom<i64>>(text: &str, min: i64, max: i64) -> Option<T> {
    match strtol(text) {
        Some((value, "")) if (min..=max).contains(&value) => T::try_from(value).ok(),
        _ => None,
    }
}

/// `atoi`: whatever number the text begins with.
pub(crate) fn atoi(text: &str) -> i64 {
    strtol(text).map_or(0, |(value, _)| value)
}

/// `inet_aton`: one to four parts, each decimal, octal or hexadecimal, the last of which fills what is left.
pub(crate) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    // It stops at white space, whatever follows.
    let text = text.split(is_space).next().unwrap_or_default();
    let mut parts = Vec::new();
    for part in text.split('.') {
        if parts.len() == 4 || !part.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let hex = part.strip_prefix("0x").or_else(|| part.strip_prefix("0X"));
        let value = match (hex, part.strip_prefix('0')) {
            (Some(hex), _) => u32::from_str_radix(hex, 16),
            (None, Some(octal)) if !octal.is_empty() => u32::from_str_radix(octal, 8),
            _ => part.parse(),
        };
        parts.push(value.ok()?);
    }
    let last = parts.pop()?;
    let mut address = 0u32;
    for (part, shift) in parts.iter().zip([24u32, 16, 8]) {
        address |= u32::from(u8::try_from(*part).ok()?) << shift;
    }
    let room = match parts.len() {
        0 => u32::MAX,
        1 => 0xff_ffff,
        2 => 0xffff,
        _ => 0xff,
    };
    (last <= room).then(|| Ipv4Addr::from(address | last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(strtol(" +12x"), Some((12, "x")));
        assert_eq!(strtol("-7"), Some((-7, "")));
        assert_eq!(strtol("99999999999999999999"), Some((i64::MAX, "")));
        assert_eq!(strtol("- 7"), None);
        assert_eq!(strtol(""), None);
        assert_eq!(number::<u16>("65535", 0, 65535), Some(65535));
        assert_eq!(number::<u16>("65536", 0, 65535), None);
        assert_eq!(number::<u16>("1 ", 0, 65535), None);
        assert_eq!(atoi("64abc"), 64);
        assert_eq!(atoi("abc"), 0);
    }

    #[test]
    fn addresses() {
        let cases = [
            ("10.0.0.1", Some([10, 0, 0, 1])),
            ("10.1", Some([10, 0, 0, 1])),
            ("10.1.258", Some([10, 1, 1, 2])),
            ("1", Some([0, 0, 0, 1])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("010.0.0.1", Some([8, 0, 0, 1])),
            ("0", Some([0; 4])),
            ("4294967295", Some([255; 4])),
            ("4294967296", None),
            ("1.2.3.256", None),
            ("1.256.3", None),
            ("1.2.3.4.5", None),
            ("1.2.3.", None),
            ("1..3", None),
            ("08.1.1.1", None),
            ("host", None),
            ("", None),
            ("1.2.3.4 x", Some([1, 2, 3, 4])),
        ];
        for (text, want) in cases {
            assert_eq!(inet_aton(text), want.map(Ipv4Addr::from), "{text}");
        }
    }
}
