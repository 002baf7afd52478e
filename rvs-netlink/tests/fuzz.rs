// SPDX-License-Identifier: MIT OR Apache-2.0

//! The body of the fuzz target over a corpus: every message of `golden.txt`, cut short anywhere, and with each byte changed in the ways
//! in which lengths and types go wrong.

mod fuzzed;

/// Commands with their attributes.
fn corpus() -> Vec<Vec<u8>> {
    include_str!("golden.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ').skip(1);
            let command: u8 = words.next().unwrap().parse().unwrap();
            let hex = words.next().unwrap_or_default().as_bytes();
            let byte =
                |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            std::iter::once(command)
                .chain(hex.chunks(2).map(byte))
                .collect()
        })
        .collect()
}

#[test]
fn corpus_and_what_is_near_it() {
    let corpus = corpus();
    assert!(corpus.len() > 40, "{} messages", corpus.len());
    for message in &corpus {
        fuzzed::message(message);
        for len in 0..message.len() {
            fuzzed::message(&message[..len]);
        }
        let mut damaged = message.clone();
        for at in 0..message.len() {
            for change in [0x01, 0x04, 0x40, 0x80, 0xff] {
                damaged[at] ^= change;
                fuzzed::message(&damaged);
                damaged[at] ^= change;
            }
        }
        // The same attributes under any command.
        for command in 0..=u8::MAX {
            damaged[0] = command;
            fuzzed::message(&damaged);
        }
    }
    // One message's attributes after another's.
    for a in &corpus {
        for b in &corpus {
            let both: Vec<u8> = a.iter().chain(&b[1..]).copied().collect();
            fuzzed::message(&both);
        }
    }
}
