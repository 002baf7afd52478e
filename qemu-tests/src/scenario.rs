// SPDX-License-Identifier: GPL-2.0-or-later

//! What a scenario is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{bail, Result};

use crate::modules::Modules;

/// The implementation under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    C,
    Rvs,
}

impl FromStr for Peer {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "c" => Ok(Self::C),
            "rvs" => Ok(Self::Rvs),
            _ => bail!("a peer is c or rvs, not {s:?}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::C => "c",
            Self::Rvs => "rvs",
        })
    }
}

/// The kernel that a scenario runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    Uml,
    Qemu,
    Lockdep,
    Kasan,
    Virtme,
}

impl Guest {
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::Uml, "uml"),
        (Self::Qemu, "qemu"),
        (Self::Lockdep, "lockdep"),
        (Self::Kasan, "kasan"),
        (Self::Virtme, "virtme"),
    ];

    /// By how much deadlines are stretched.
    pub fn slow(self) -> f64 {
        match self {
            Self::Uml => 1.0,
            Self::Lockdep => 3.0,
            Self::Kasan => 4.0,
            Self::Qemu | Self::Virtme => 10.0,
        }
    }

    /// Runs at a tenth of the machine's speed.
    pub fn emulated(self) -> bool {
        matches!(self, Self::Qemu | Self::Virtme)
    }
}

impl FromStr for Guest {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        match Self::ALL.iter().find(|(_, name)| *name == s) {
            Some((guest, _)) => Ok(*guest),
            None => bail!("a guest is one of uml, qemu, lockdep, kasan and virtme, not {s:?}"),
        }
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(guest, _)| guest == self)
            .map_or("?", |(_, name)| name);
        f.write_str(name)
    }
}

/// What a scenario is told about where it runs.
#[derive(Debug, Clone)]
pub struct Cx {
    pub peer: Peer,
    pub guest: Guest,
    pub modules: Modules,
    /// Of whatever is random.
    pub seed: u64,
    /// The static rvsadm, for scenarios that say they use it.
    pub rvsadm: Option<PathBuf>,
    /// The folder of the examples of rvs-netlink, for scenarios that say they use them.
    pub examples: Option<PathBuf>,
    /// The static rvs-toa, for scenarios that say they use it.
    pub rvs_toa: Option<PathBuf>,
}

/// One behaviour, tested.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// Which items of the checklist (IPVS-SPEC.md section 17) a pass proves.
    pub items: &'static [u16],
    /// Items of which it proves what there is in this peer so far, or one side of it.
    pub partly: &'static [u16],
    pub run: fn(&Cx) -> Result<()>,
    /// The only peer it is for, and why.
    pub only_peer: Option<(Peer, &'static str)>,
    /// The only guests it is for, and why.
    pub only_guests: Option<(&'static [Guest], &'static str)>,
    /// Seconds (scaled) after which it is given up.
    pub timeout: f64,
    /// The scenario loads and unloads modules itself.
    pub own_modules: bool,
    /// rvsadm is to be built for it.
    pub rvsadm: bool,
    /// The examples of rvs-netlink are to be built for it.
    pub examples: bool,
    /// rvs-toa is to be built for it.
    pub rvs_toa: bool,
}

impl Scenario {
    pub const fn new(
        name: &'static str,
        doc: &'static str,
        items: &'static [u16],
        run: fn(&Cx) -> Result<()>,
    ) -> Self {
        Self {
            name,
            doc,
            items,
            partly: &[],
            run,
            only_peer: None,
            only_guests: None,
            timeout: 60.0,
            own_modules: false,
            rvsadm: false,
            examples: false,
            rvs_toa: false,
        }
    }

    pub const fn partly(mut self, items: &'static [u16]) -> Self {
        self.partly = items;
        self
    }

    pub const fn only_peer(mut self, peer: Peer, why: &'static str) -> Self {
        self.only_peer = Some((peer, why));
        self
    }

    pub const fn only_guests(mut self, guests: &'static [Guest], why: &'static str) -> Self {
        self.only_guests = Some((guests, why));
        self
    }

    pub const fn timeout(mut self, seconds: f64) -> Self {
        self.timeout = seconds;
        self
    }

    pub const fn own_modules(mut self) -> Self {
        self.own_modules = true;
        self
    }

    pub const fn with_rvsadm(mut self) -> Self {
        self.rvsadm = true;
        self
    }

    pub const fn with_examples(mut self) -> Self {
        self.examples = true;
        self
    }

    /// rvs-toa is built for it.
    #[must_use]
    pub const fn with_rvs_toa(mut self) -> Self {
        self.rvs_toa = true;
        self
    }

    /// Why it is not for this peer and guest, if so.
    pub fn skip(&self, peer: Peer, guest: Guest) -> Option<String> {
        match (self.only_peer, self.only_guests) {
            (Some((only, why)), _) if only != peer => Some(format!("{only} only: {why}")),
            (_, Some((only, why))) if !only.contains(&guest) => Some(why.to_owned()),
            _ => None,
        }
    }
}

/// A small generator (xorshift64*) for tests that must be random and repeatable.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Less than `n`, which is not zero.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.word() >> 16) % n as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.word().to_be_bytes()[1]).collect()
    }
}
