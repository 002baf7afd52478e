// SPDX-License-Identifier: GPL-2.0-or-later

//! Maglev hashing: a table of 4093 slots, in which each server walks its own way and takes free
//! slots, as its weight says; the hash of the client's address chooses, with its port on request,
//! and on request other slots are tried. A server whose weight becomes zero keeps its slots.
//!
//! What goes where was computed by a program that is not part of rvs.
//!
//! Proves checklist items 54, 58 (failure) and, for mh, 57.

use anyhow::{ensure, Result};

use super::sched_marked::{Marked, Server, FALLBACK, PORT};
use crate::ipvs::cmd;
use crate::pkt::Pkt;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_mh",
    "Maglev hashing, with weights, ports and fallback; too many servers",
    &[54],
    run,
)
.partly(&[57, 58]);

/// As many clients, addresses from 1 and ports from 20001 on.
const CLIENTS: u16 = 60;

/// Where they go, over IPv4 and IPv6.
struct Golden {
    /// a, b and c with the weights 1, 2 and 3.
    plain: [&'static str; 2],
    /// b has no weight, others stand in.
    without_b: [&'static str; 2],
    /// With ports.
    ports: [&'static str; 2],
    /// With ports, others than c.
    ports_without_c: [&'static str; 2],
    /// a and b alone.
    two: [&'static str; 2],
    /// b has weight 500.
    heavy: [&'static str; 2],
    /// And d 600.
    four: [&'static str; 2],
}

const GOLDEN: Golden = Golden {
    plain: [
        "bcacccbbabcacccaccabcbbbcacbccccbbacccccccccacccccbcbbcabcbc",
        "bbbacabccbcbcccbbcccccaaabaacccbbcbccbcabbaccacbaabaccccabcc",
    ],
    without_b: [
        "ccacccccaccacccaccaccccccaccccccccacccccccccaccccccccacacccc",
        "cccacaaccaccccccccccccaaacaacccccccccccacaaccaccaaaaccccaacc",
    ],
    ports: [
        "acaccccccbabccbbcbccacacbbbbcbcbbcbacbbbbcabbcacbbcccbcacbcc",
        "abccccbbccbbcbaccacbbcbccbbaccccccccbcbcbccaaabbbababccbbcab",
    ],
    ports_without_c: [
        "aaabbbbbababbabbbbbaabaabbbbbbabbbbabbbbbaabbaaabbaaabbabbbb",
        "ababbabbbabbbbabaabbbbbbbbbaabbabbbbbabbbabaaabbbababbbbbbab",
    ],
    two: [
        "baababbbabaaabbaaaababbbaaabaababbaaabbbbbababbbbabbbbbbbaba",
        "bbbaaabbabbbbaabbbbbbbaaabaabbbbbbbbabbabbabaabbaabaabababbb",
    ],
    heavy: [
        "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        "bbbbbbbbbbbbbbbbbbbcbbaabbbbbbbbbbbbbbbbbbbbbbbbbbbabbbbbbbb",
    ],
    four: [
        "bddbddbddbdbdbbddddbdbbbdbdbddbdbbdcddddbddddbdbdddbdbddbdbd",
        "bbddddbddddbdddbbdbcddaadbdddddbbbbddddbbddddadddddddbddbbdb",
    ],
};

/// Slots of the table.
const SLOTS: u16 = 4093;

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    for (i, (mark, family)) in (80..).zip(Family::BOTH).enumerate() {
        let service = m.service(family, mark, "mh", 0)?;
        let mut target = 0;
        let mut expect = |flags: u32, want: &str, what: &str| -> Result<()> {
            m.change(&service, "mh", flags)?;
            target += 1;
            let pkts: Vec<Pkt> = (1..=CLIENTS)
                .map(|n| service.udp(n, 20_000 + n, target))
                .collect();
            let got = m.letters(&pkts)?;
            ensure!(got == want, "{what}, {flags}:\n{got}, expected\n{want}");
            Ok(())
        };
        let nobody = "-".repeat(CLIENTS.into());
        expect(FALLBACK, &nobody, "no server")?;
        m.add(&service, 4, 0)?;
        expect(FALLBACK, &nobody, "a server that never had weight")?;
        m.delete(&service, 4)?;
        for (host, weight) in [(1, 1), (2, 2), (3, 3)] {
            m.add(&service, host, weight)?;
        }
        expect(0, GOLDEN.plain[i], "three servers")?;
        expect(PORT, GOLDEN.ports[i], "three servers")?;

        // Without weight b keeps its slots.
        m.edit(&service, 2, 0, 0)?;
        expect(0, &GOLDEN.plain[i].replace('b', "-"), "b without weight")?;
        expect(FALLBACK, GOLDEN.without_b[i], "b without weight")?;
        m.edit(&service, 2, 2, 0)?;
        m.edit(&service, 3, 3, 1)?;
        expect(0, &GOLDEN.plain[i].replace('c', "-"), "c overloaded")?;
        expect(FALLBACK | PORT, GOLDEN.ports_without_c[i], "c overloaded")?;
        for host in [1, 2, 3] {
            m.edit(&service, host, 0, 0)?;
        }
        expect(FALLBACK, &nobody, "all without weight")?;
        for (host, weight) in [(1, 1), (2, 2), (3, 3)] {
            m.edit(&service, host, weight, 0)?;
        }
        expect(0, GOLDEN.plain[i], "all have weight again")?;

        m.delete(&service, 3)?;
        expect(0, GOLDEN.two[i], "c is gone")?;
        m.edit(&service, 2, 500, 0)?;
        m.add(&service, 3, 3)?;
        expect(0, GOLDEN.heavy[i], "c came back, b is heavy")?;
        m.add(&service, 4, 0)?;
        expect(0, GOLDEN.heavy[i], "d came without weight")?;
        m.edit(&service, 4, 600, 0)?;
        expect(0, GOLDEN.four[i], "d has weight")?;
        // A new table, from another scheduler.
        m.change(&service, "rr", 0)?;
        expect(0, GOLDEN.four[i], "made for a service with servers")?;
    }
    too_many(&m)
}

/// More servers than slots: mh refuses to begin, and the scheduler before it goes on; while mh is at
/// work further ones are taken in without a slot.
fn too_many(m: &Marked) -> Result<()> {
    let service = m.service(Family::V4, 90, "rr", 0)?;
    for n in 0..=SLOTS {
        m.set_at(cmd::NEW_DEST, &service, Server::new(1, 1), 1000 + n)?;
    }
    let refused = m.try_change(&service, "mh", 0)?;
    ensure!(refused == libc::EINVAL, "mh with 4094 servers: {refused}");
    let ports = |from: u16| -> Result<Vec<u16>> {
        let pkts: Vec<Pkt> = (0..50).map(|n| service.udp(n, from, 1)).collect();
        m.ports(&pkts)
    };
    ensure!(
        ports(1)? == (0..50).map(|n| 1000 + SLOTS - n).collect::<Vec<_>>(),
        "rr does not go on: {:?}",
        ports(2)?
    );
    m.set_at(cmd::DEL_DEST, &service, Server::new(1, 1), 1000 + SLOTS)?;
    m.change(&service, "mh", 0)?;
    let before = ports(3)?;
    // Not all of the same weight: the table would be another one.
    m.set_at(cmd::NEW_DEST, &service, Server::new(1, 60), 1000 + SLOTS)?;
    let with = ports(4)?;
    ensure!(before == with, "{before:?} became {with:?}");
    m.set_at(cmd::DEL_DEST, &service, Server::new(1, 1), 1000 + SLOTS)?;
    let after = ports(5)?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}
