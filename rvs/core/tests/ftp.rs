// SPDX-License-Identifier: GPL-2.0-only

//! FTP's texts: what one side writes the other reads, and whatever bytes come, nothing panics and what is found lies within them.
//!
//! `PROPTEST_CASES=100000` looks longer.

use core::net::{
    Ipv4Addr,
    Ipv6Addr, //
};
use proptest::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    ftp::{
        reply,
        request,
        Endpoint,
        Mode,
        Request,
        Text,
        MOST, //
    }, //
};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const MODES: [Mode; 3] = [Mode::Active, Mode::Passive, Mode::Extended];

fn four(addr: Ipv4Addr) -> Addr {
    Addr::v4(u32::from_ne_bytes(addr.octets()))
}

fn six(addr: Ipv6Addr) -> Addr {
    Addr::from_bytes(addr.octets())
}

fn endpoint(addr: Addr, port: u16) -> Endpoint {
    Endpoint {
        addr,
        port: port.to_be(),
    }
}

/// A piece of what goes over a control connection, or what looks like one.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "PASV\r\n",
        "EPSV",
        "EPSV ",
        "EPSV 1\r",
        "EPSV 2\r",
        "PORT ",
        "EPRT ",
        "227 ",
        "229 ",
        "(",
        ")",
        "|",
        "||",
        "|||",
        "|1|",
        "|2|",
        ",",
        ",,,,,",
        "10,0,0,2,4,1",
        "255",
        "256",
        "65535",
        "65536",
        "10.0.0.2",
        "fd00::2",
        "::",
        ":",
        ".",
        "99999999999999999999",
        "\r\n",
        "\r",
        "\n",
        " ",
        "0",
        "1",
        "2",
        "00000000000000000000000000",
        "!",
        "~",
        "\0",
    ];
    prop_oneof![
        6 => prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ]
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..80),
    ]
}

proptest! {
    /// Any bytes.
    #[test]
    fn whatever_comes(data in line(), server: [u8; 16]) {
        let server = Addr::from_bytes(server);
        for family in FAMILIES {
            if let Some(Request::Wait(mode)) = request(family, &data) {
                prop_assert!(mode == Mode::Extended || (mode == Mode::Passive && family == Family::V4));
            }
            for mode in MODES {
                let Some(found) = reply(mode, family, &server, &data) else { continue };
                prop_assert!(mode != Mode::Active);
                prop_assert!(4 <= found.range.start && found.range.start < found.range.end);
                prop_assert!(found.range.end <= data.len());
                // What takes its place is found in its place.
                let text = Text::new(mode, &found.at);
                prop_assert!(text.bytes().len() <= MOST);
                let mut other = data[..found.range.start].to_vec();
                other.extend(text.bytes());
                other.extend(&data[found.range.end..]);
                if mode == Mode::Passive {
                    let again = reply(mode, family, &server, &other);
                    prop_assert_eq!(again.map(|found| found.at), Some(found.at));
                } else {
                    // Its address is that of the control connection.
                    let again = reply(mode, family, &server, &other).map(|found| found.at);
                    prop_assert_eq!(again, Some(Endpoint { addr: server, ..found.at }));
                }
            }
        }
    }

    /// A part of a text is found nowhere, or found to be the whole.
    #[test]
    fn cut_off(data in line(), server: [u8; 16], at in 0..80_usize) {
        let server = Addr::from_bytes(server);
        let part = &data[..at.min(data.len())];
        for family in FAMILIES {
            for mode in MODES {
                let found = reply(mode, family, &server, part);
                prop_assert!(found.is_none() || found == reply(mode, family, &server, &data));
            }
        }
    }

    /// What clients write, the older way and the newer.
    #[test]
    fn clients(addr4: u32, addr6: u128, port in 1_u16.., lower: bool, delimiter in "[!-/|~]") {
        prop_assume!(delimiter != ".");
        let [addr4, addr6] = [Ok(Ipv4Addr::from(addr4)), Err(Ipv6Addr::from(addr6))];
        let (Ok(v4), Err(v6)) = (addr4, addr6) else { unreachable!() };
        let [hi, lo] = port.to_be_bytes();
        let classic = format!("PORT {},{hi},{lo}\r\n", v4.to_string().replace('.', ","));
        let d = &delimiter;
        let case = |text: String| if lower { text.to_lowercase() } else { text };
        for (family, text, addr) in [
            (Family::V4, classic, four(v4)),
            (Family::V4, format!("EPRT {d}1{d}{v4}{d}{port}{d}\r\n"), four(v4)),
            (Family::V6, format!("EPRT {d}2{d}{v6}{d}{port}{d}\r\n"), six(v6)),
        ] {
            let want = Some(Request::Connect(endpoint(addr, port)));
            prop_assert_eq!(request(family, case(text.clone()).as_bytes()), want, "{}", text);
        }
    }

    /// What servers write, and what is written in its place.
    #[test]
    fn servers(addr4: u32, addr6: u128, other: u32, port in 1_u16..) {
        let [hi, lo] = port.to_be_bytes();
        let (v4, v6) = (Ipv4Addr::from(addr4), Ipv6Addr::from(addr6));
        let commas = v4.to_string().replace('.', ",");
        let text = format!("227 Entering Passive Mode ({commas},{hi},{lo}).\r\n");
        let found = reply(Mode::Passive, Family::V4, &Addr::ZERO, text.as_bytes()).expect("it is there");
        prop_assert_eq!(found.at, endpoint(four(v4), port));
        let new = endpoint(four(other.into()), port);
        let mut written = text.into_bytes();
        written.splice(found.range, Text::new(Mode::Passive, &new).bytes().iter().copied());
        let found = reply(Mode::Passive, Family::V4, &Addr::ZERO, &written).expect("it is there");
        prop_assert_eq!(found.at, new);
        for (family, addr) in [(Family::V4, four(v4)), (Family::V6, six(v6))] {
            let text = format!("229 Extended Passive Mode OK (|||{port}|)\r\n");
            let found = reply(Mode::Extended, family, &addr, text.as_bytes()).expect("it is there");
            prop_assert_eq!(found.at, endpoint(addr, port));
            let written = Text::new(Mode::Extended, &found.at);
            prop_assert_eq!(&text.as_bytes()[found.range], written.bytes());
        }
    }
}
