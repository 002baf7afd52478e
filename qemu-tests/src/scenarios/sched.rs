// SPDX-License-Identifier: GPL-2.0-or-later

//! What the `sched_*` scenarios share: a plain model of each scheduler, and random histories played
//! to both.
//!
//! Every connection of a history is one SYN (active from then on); some are closed by a FIN
//! (inactive). Destinations are added, deleted and given other weights in between. The model keeps
//! its destinations as the module's dumps show them: the newest first.

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{self, cmd, Ipvs};
use crate::pkt::{Pkt, ACK, FIN, SYN, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::Rng;
use crate::topo::{at, Family};

#[derive(Debug, Clone)]
pub struct Server {
    pub host: u8,
    pub weight: i32,
    pub active: u32,
    pub total: u32,
}

impl Server {
    fn overhead(&self) -> u64 {
        u64::from(self.active) * 256 + u64::from(self.total)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Rr,
    Wrr,
    Lc,
    Wlc,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
        }
    }
}

/// A service as the model sees it.
#[derive(Debug, Clone)]
pub struct Model {
    kind: Kind,
    pub servers: Vec<Server>,
    /// The server chosen last; none is the head of the list.
    cursor: Option<u8>,
    cw: i32,
    mw: i32,
    di: i32,
}

fn gcd(a: i32, b: i32) -> i32 {
    if b == 0 {
        a
    } else {
        gcd(b, a % b)
    }
}

impl Model {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            servers: Vec::new(),
            cursor: None,
            cw: 0,
            mw: 0,
            di: 1,
        }
    }

    fn position(&self, host: u8) -> Option<usize> {
        self.servers.iter().position(|s| s.host == host)
    }

    /// wrr forgets its place with every change.
    fn changed(&mut self) {
        if self.kind != Kind::Wrr {
            return;
        }
        self.cursor = None;
        self.di = self
            .servers
            .iter()
            .map(|s| s.weight)
            .filter(|&w| w > 0)
            .fold(0, gcd)
            .max(1);
        let max = self
            .servers
            .iter()
            .map(|s| s.weight)
            .max()
            .unwrap_or_default();
        self.mw = max - (self.di - 1);
        if self.cw > self.mw || self.cw == 0 {
            self.cw = self.mw;
        } else if self.di > 1 {
            self.cw = self.cw / self.di * self.di + 1;
        }
    }

    pub fn add(&mut self, host: u8, weight: i32) {
        self.servers.insert(
            0,
            Server {
                host,
                weight,
                active: 0,
                total: 0,
            },
        );
        self.changed();
    }

    pub fn delete(&mut self, host: u8) {
        let Some(at) = self.position(host) else {
            return;
        };
        if self.cursor == Some(host) {
            // rr steps back to the one before, or to the head.
            self.cursor = at.checked_sub(1).map(|before| self.servers[before].host);
        }
        self.servers.remove(at);
        self.changed();
    }

    pub fn set_weight(&mut self, host: u8, weight: i32) {
        if let Some(at) = self.position(host) {
            self.servers[at].weight = weight;
        }
        self.changed();
    }

    /// The next server.
    pub fn schedule(&mut self) -> Option<u8> {
        let chosen = match self.kind {
            Kind::Rr => self.rr(),
            Kind::Wrr => self.wrr(),
            Kind::Lc => self
                .servers
                .iter()
                .filter(|s| s.weight > 0)
                .reduce(|best, s| {
                    if s.overhead() < best.overhead() {
                        s
                    } else {
                        best
                    }
                })
                .map(|s| s.host),
            Kind::Wlc => self
                .servers
                .iter()
                .filter(|s| s.weight > 0)
                .reduce(|best, s| {
                    if best.overhead() * s.weight as u64 > s.overhead() * best.weight as u64 {
                        s
                    } else {
                        best
                    }
                })
                .map(|s| s.host),
        }?;
        let at = self.position(chosen)?;
        self.servers[at].active += 1;
        self.servers[at].total += 1;
        Some(chosen)
    }

    fn rr(&mut self) -> Option<u8> {
        let n = self.servers.len();
        // Behind the last one, around, and the last one itself at the end.
        let start = self
            .cursor
            .and_then(|c| self.position(c))
            .map_or(0, |at| at + 1);
        let host = (0..n)
            .map(|i| &self.servers[(start + i) % n])
            .find(|s| s.weight > 0)?
            .host;
        self.cursor = Some(host);
        Some(host)
    }

    fn wrr(&mut self) -> Option<u8> {
        if self.mw == 0 {
            return None;
        }
        let mut start = self
            .cursor
            .and_then(|c| self.position(c))
            .map_or(0, |at| at + 1);
        // Without thresholds someone has the maximal weight, so two rounds find one.
        for _ in 0..2 * self.mw + 2 {
            if let Some(s) = self.servers[start..].iter().find(|s| s.weight >= self.cw) {
                self.cursor = Some(s.host);
                return self.cursor;
            }
            start = 0;
            self.cw -= self.di;
            if self.cw <= 0 {
                self.cw = self.mw;
            }
        }
        None
    }
}

/// A module and the model side by side.
pub struct Play {
    pub rig: Rig,
    pub ipvs: Ipvs,
    pub model: Model,
    family: Family,
    port: u16,
}

impl Play {
    pub fn new(kind: Kind, family: Family) -> Result<Self> {
        let rig = Rig::new()?;
        let ipvs = Ipvs::open(&rig.topo.director)?;
        let play = Self {
            rig,
            ipvs,
            model: Model::new(kind),
            family,
            port: 10_000,
        };
        play.ipvs.ok(
            cmd::NEW_SERVICE,
            &ipvs::for_svc(&ipvs::svc_full(TCP, play.vip(), kind.name())),
        )?;
        Ok(play)
    }

    fn vip(&self) -> std::net::SocketAddr {
        at(self.family.vip(), 80)
    }

    fn dest(&self, host: u8, weight: i32) -> Attrs {
        let rs = at(self.family.raw_rs(host), 8000);
        ipvs::for_dest(&ipvs::svc_id(TCP, self.vip()), &ipvs::dest_full(rs, weight))
    }

    pub fn add(&mut self, host: u8, weight: i32) -> Result<()> {
        self.ipvs.ok(cmd::NEW_DEST, &self.dest(host, weight))?;
        self.model.add(host, weight);
        Ok(())
    }

    pub fn delete(&mut self, host: u8) -> Result<()> {
        self.ipvs.ok(cmd::DEL_DEST, &self.dest(host, 0))?;
        self.model.delete(host);
        Ok(())
    }

    pub fn set_weight(&mut self, host: u8, weight: i32) -> Result<()> {
        self.ipvs.ok(cmd::SET_DEST, &self.dest(host, weight))?;
        self.model.set_weight(host, weight);
        Ok(())
    }

    fn syn(&mut self) -> Pkt {
        self.port += 1;
        Pkt::tcp(at(self.family.raw_client(1), self.port), self.vip(), SYN)
    }

    /// Which server a new connection went to; none if the client was told that the port is
    /// unreachable.
    pub fn send(&mut self, syn: &Pkt) -> Result<Option<u8>> {
        let io = self.rig.exchange(Side::Client, std::slice::from_ref(syn))?;
        match (&io.server_pkts()[..], &io.client_pkts()[..]) {
            ([p], []) => {
                let host = crate::pkt::octets(p.dst)
                    .last()
                    .copied()
                    .context("address")?;
                ensure!(
                    p.dest() == at(self.family.raw_rs(host), 8000) && p.csum_ok,
                    "{p:?}"
                );
                Ok(Some(host))
            }
            ([], [p]) if p.icmp_type != 0 => Ok(None),
            _ => anyhow::bail!("a SYN made {io:#?}"),
        }
    }

    /// One new connection in both.
    pub fn connect(&mut self) -> Result<Option<u8>> {
        let syn = self.syn();
        let got = self.send(&syn)?;
        let want = self.model.schedule();
        ensure!(
            got == want,
            "the module chose {got:?}, the model {want:?}; the model now: {:?}",
            self.model
        );
        Ok(got)
    }

    /// A new connection that becomes inactive at once.
    pub fn connect_and_close(&mut self) -> Result<()> {
        let syn = self.syn();
        let got = self.send(&syn)?;
        let want = self.model.schedule();
        ensure!(
            got == want,
            "the module chose {got:?}, the model {want:?}; the model now: {:?}",
            self.model
        );
        if let Some(host) = got {
            let fin = Pkt {
                flags: FIN | ACK,
                ..syn
            };
            self.rig.forwarded(&fin)?;
            if let Some(s) = self.model.servers.iter_mut().find(|s| s.host == host) {
                s.active -= 1;
            }
        }
        Ok(())
    }

    /// The next `want.len()` connections go to these servers (0 is none).
    pub fn sequence(&mut self, want: &[u8]) -> Result<()> {
        let got: Vec<u8> = want
            .iter()
            .map(|_| Ok(self.connect()?.unwrap_or_default()))
            .collect::<Result<_>>()?;
        ensure!(got == want, "expected the order {want:?}, got {got:?}");
        Ok(())
    }

    /// The counters of both agree.
    pub fn compare(&self) -> Result<()> {
        let dests = self.ipvs.dests(TCP, self.vip())?;
        let seen: Vec<_> = dests
            .iter()
            .map(|d| (d.addr.ip(), d.weight, d.active, d.active + d.inact))
            .collect();
        let want: Vec<_> = self
            .model
            .servers
            .iter()
            .map(|s| (self.family.raw_rs(s.host), s.weight, s.active, s.total))
            .collect();
        ensure!(
            seen == want,
            "destinations {seen:?}, the model has {want:?}"
        );
        Ok(())
    }

    /// A random history of `steps` events. Deleted servers never come back: their counters would.
    pub fn random(&mut self, rng: &mut Rng, steps: usize) -> Result<()> {
        let mut next = 100;
        for _ in 0..steps {
            let n = self.model.servers.len();
            let weight = [0, 1, 1, 2, 3, 4, 6, 9][rng.below(8)];
            match rng.below(12) {
                0 if n < 6 && next < 250 => {
                    next += 1;
                    self.add(next, weight)?;
                }
                1 if n > 2 => self.delete(self.model.servers[rng.below(n)].host)?,
                2 if n > 0 => self.set_weight(self.model.servers[rng.below(n)].host, weight)?,
                3 | 4 => self.connect_and_close()?,
                _ => {
                    self.connect()?;
                }
            }
        }
        self.compare()
    }
}
