// SPDX-License-Identifier: GPL-2.0-or-later

//! One long history for each scheduler: servers come, go, come back and get other weights and
//! thresholds, and between all that connections of many clients go to many targets. Which server
//! each of them went to is written down, and what is written must be what it was with the C module.
//!
//! The digests below were recorded with `PEER=c`. The text that a wrong one belongs to is printed:
//! compare it with that of the other peer.
//!
//! Proves checklist items 46 to 50 and 57; for what is exact in them, 52 to 56. twos is random: see
//! `sched_twos`.

use anyhow::{ensure, Result};

use super::sched_marked::{letter, Marked, Server, Service};
use crate::ipvs::cmd;
use crate::pkt::{Pkt, TCP, UDP};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::Family;
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_history",
    "every choice of every scheduler, digested, is as recorded from the C module",
    &[46, 47, 48, 49, 50, 52, 53, 54, 57],
    run,
)
.partly(&[55, 56, 61])
.timeout(120.0);

/// Scheduler, flags (8: fallback, 16: port), `lblcr_expiration`, and the digests for IPv4 and IPv6.
type Case = (&'static str, u32, Option<i32>, u64, u64);

const CASES: &[Case] = &[
    ("rr", 0, None, 0xfc8745982711e532, 0x9ec6ffe94c86154a),
    ("wrr", 0, None, 0x2dda4802e056b7bd, 0xd8c82299422ad816),
    ("lc", 0, None, 0x2fe0a696bf055676, 0xeea1c24f149178fc),
    ("wlc", 0, None, 0x19ae1d29faa34d4c, 0x8e7bb29684a03249),
    ("sed", 0, None, 0x915302094b00d787, 0x7c2ec5f23ec0ebd8),
    ("nq", 0, None, 0x2d1ea1e372b970e3, 0x9ebb18ceda127b2a),
    ("fo", 0, None, 0x749a6e01a7f443ba, 0x3923411d8a4a884f),
    ("ovf", 0, None, 0x021d58be7652b797, 0x773d4243a3f3cc90),
    ("dh", 0, None, 0xfdd108a10653d3f0, 0xa5cca95f6f688edd),
    ("sh", 0, None, 0x928d23e8ed59c480, 0xe6c5a661b4b92d27),
    ("sh", 8, None, 0x46ecd51c8c673150, 0xdd79594fe795402f),
    ("sh", 16, None, 0xe7bc842282a234f7, 0xa5ae3633d4c42499),
    ("sh", 24, None, 0x0b5abba7f3b62c18, 0xb56d1ac7e39f87c5),
    ("mh", 0, None, 0x9d75fb3712f7880e, 0xc25bfb085f3a83f3),
    ("mh", 8, None, 0xc992549171d55920, 0x38111805c3f0dc97),
    ("mh", 16, None, 0x7697fbd91e8b24d5, 0x18ee902c999b1ee5),
    ("mh", 24, None, 0x58b7548de19e4442, 0xdd73f9faf60e3271),
    ("lblc", 0, None, 0x150b2f915a0572b9, 0xf96e65ecfb118950),
    ("lblcr", 0, None, 0x68e41156bcbb5e9e, 0x11b69e6ca801537b),
    // Sets that are always too old: each lookup of a larger one takes a server away.
    ("lblcr", 0, Some(-1), 0x4692970f3545b968, 0x24933c08f5695c3f),
];

const STEPS: usize = 150;
const HOSTS: u8 = 9;
const CLIENTS: usize = 60;
const TARGETS: usize = 12;

struct History<'a> {
    m: &'a Marked,
    service: Service,
    rng: Rng,
    /// Those that are there, the newest last.
    servers: Vec<Server>,
    port: u16,
    text: String,
}

impl History<'_> {
    fn weight(&mut self) -> i32 {
        [0, 1, 1, 2, 3, 5, 9, 40][self.rng.below(8)]
    }

    fn upper(&mut self) -> u32 {
        [0, 0, 0, 2, 5, 10, 30, 60][self.rng.below(8)]
    }

    fn note(&mut self, what: char, server: Server) {
        self.text.push_str(&format!(
            " {what}{}{}/{}\n",
            letter(server.host),
            server.weight,
            server.upper
        ));
    }

    fn add(&mut self) -> Result<()> {
        let absent: Vec<u8> = (1..=HOSTS)
            .filter(|h| self.servers.iter().all(|s| s.host != *h))
            .collect();
        if absent.is_empty() {
            return Ok(());
        }
        let server = Server {
            host: absent[self.rng.below(absent.len())],
            weight: self.weight(),
            upper: self.upper(),
        };
        self.m.set(cmd::NEW_DEST, &self.service, server)?;
        self.servers.push(server);
        self.note('+', server);
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        if self.servers.len() > 1 {
            let at = self.rng.below(self.servers.len());
            let server = self.servers.remove(at);
            self.m.delete(&self.service, server.host)?;
            self.note('-', server);
        }
        Ok(())
    }

    fn edit(&mut self) -> Result<()> {
        if !self.servers.is_empty() {
            let at = self.rng.below(self.servers.len());
            let mut server = self.servers[at];
            if self.rng.chance(3) {
                server.upper = self.upper();
            } else {
                server.weight = self.weight();
            }
            self.m.set(cmd::SET_DEST, &self.service, server)?;
            self.servers[at] = server;
            self.note('=', server);
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        let n = 1 + self.rng.below(10);
        let pkts: Vec<Pkt> = (0..n)
            .map(|_| {
                self.port += 1;
                let proto = if self.rng.chance(2) { TCP } else { UDP };
                let client = 1 + self.rng.below(CLIENTS) as u16;
                let target = 1 + self.rng.below(TARGETS) as u16;
                self.service.first(proto, client, self.port, target)
            })
            .collect();
        let hosts = self.m.letters(&pkts)?;
        self.text.push_str(&hosts);
        self.text.push('\n');
        Ok(())
    }

    fn play(&mut self) -> Result<()> {
        for _ in 0..3 {
            self.add()?;
        }
        for _ in 0..STEPS {
            match self.rng.below(12) {
                0 | 1 => self.add()?,
                2 => self.delete()?,
                3 | 4 => self.edit()?,
                _ => self.connect()?,
            }
        }
        Ok(())
    }
}

/// FNV-1a.
fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    let mut wrong = Vec::new();
    let mut mark = 100;
    for (case, &(sched, flags, expiration, v4, v6)) in CASES.iter().enumerate() {
        let want = [v4, v6];
        let mut got = want;
        for (at, family) in Family::BOTH.into_iter().enumerate() {
            mark += 1;
            // Where each takes long, every other one is left to the other guests.
            if slow() > 1.0 && (case + at) % 2 == 0 {
                continue;
            }
            let service = m.service(family, mark, sched, flags)?;
            if let Some(seconds) = expiration {
                let key = format!("net.ipv4.vs.{sched}_expiration");
                m.rig.topo.director.set_sysctl(&key, seconds)?;
            }
            let mut history = History {
                m: &m,
                service,
                rng: Rng::new(mark.into()),
                servers: Vec::new(),
                port: 10_000,
                text: String::new(),
            };
            history.play()?;
            got[at] = digest(&history.text);
            if got[at] != want[at] {
                println!("{sched} {flags} {family:?}:\n{}", history.text);
            }
        }
        let [v4, v6] = got;
        println!("(\"{sched}\", {flags}, {expiration:?}, {v4:#018x}, {v6:#018x}),");
        if got != want {
            wrong.push(format!("{sched} with flags {flags}"));
        }
    }
    ensure!(wrong.is_empty(), "other choices than C's: {wrong:?}");
    Ok(())
}
