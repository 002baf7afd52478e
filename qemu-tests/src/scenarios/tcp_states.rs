// SPDX-License-Identifier: GPL-2.0-or-later

//! The TCP state table for NAT: every transition of every state, packet by packet, with the timeout
//! that each state gives.
//!
//! Each state is reached by a short history; from it, each of SYN, FIN, ACK, RST and none of them
//! is sent in either direction, each time on a connection of its own. The expected state comes from
//! the table in IPVS-SPEC.md 6.3.
//!
//! Proves checklist items 62 (active and inactive), 68 (for TCP), 82 and 84.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, FIN, RST, SYN, TCP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "tcp_states",
    "every TCP state, transition and timeout of a NAT connection",
    &[84],
    run,
)
.partly(&[62, 68, 82]);

/// The normal table never enters SYNACK nor LAST_ACK; LISTEN is for FTP data connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Es,
    Ss,
    Sr,
    Fw,
    Tw,
    Cl,
    Cw,
}
use State::{Cl, Cw, Es, Fw, Sr, Ss, Tw};

impl State {
    fn name(self) -> &'static str {
        match self {
            Es => "ESTABLISHED",
            Ss => "SYN_SENT",
            Sr => "SYN_RECV",
            Fw => "FIN_WAIT",
            Tw => "TIME_WAIT",
            Cl => "CLOSE",
            Cw => "CLOSE_WAIT",
        }
    }

    fn timeout(self) -> u32 {
        match self {
            Es => 900,
            Ss | Fw | Tw => 120,
            Sr | Cw => 60,
            Cl => 10,
        }
    }

    fn active(self) -> bool {
        matches!(self, Es | Ss | Sr)
    }
}

/// In or out, and the flag that decides.
type Event = (Side, u8);
const IN: Side = Side::Client;
const OUT: Side = Side::Server;

/// Where an event leads; states not named stay.
fn next(state: State, event: Event) -> State {
    match (event, state) {
        ((Side::Client, SYN), Fw | Tw | Cl | Cw) => Sr,
        ((Side::Client, SYN), Ss) => Es,
        ((Side::Client, FIN), Es) => Cw,
        ((Side::Client, FIN), Sr | Fw) => Tw,
        ((Side::Client, ACK), Sr) => Es,
        ((Side::Client, RST), Es | Ss | Fw | Tw | Cw) => Cl,
        ((Side::Server, SYN), Fw | Tw | Cl | Cw) => Ss,
        ((Side::Server, FIN), Sr | Cw) => Tw,
        ((Side::Server, FIN), Es) => Fw,
        ((Side::Server, ACK), Sr) => Es,
        ((Side::Server, RST), Es | Sr | Fw | Cw) => Cl,
        // Neither SYN, FIN, ACK nor RST.
        ((_, 0), _) => Cl,
        _ => state,
    }
}

/// How each state is reached that NAT can reach: a SYN opens the connection in SYN_RECV.
fn history(state: State) -> &'static [Event] {
    match state {
        Sr => &[],
        Es => &[(IN, ACK)],
        Fw => &[(IN, ACK), (OUT, FIN)],
        Tw => &[(IN, ACK), (OUT, FIN), (IN, FIN)],
        Cl => &[(IN, ACK), (OUT, RST)],
        Cw => &[(IN, ACK), (IN, FIN)],
        Ss => &[(IN, ACK), (OUT, RST), (OUT, SYN)],
    }
}

struct Test {
    rig: Rig,
    vip: SocketAddr,
    rs: SocketAddr,
    port: u16,
}

impl Test {
    fn client(&self, port: u16) -> SocketAddr {
        at(Family::of(self.vip.ip()).raw_client(7), port)
    }

    fn send(&self, port: u16, (side, flags): Event) -> Result<()> {
        match side {
            Side::Client => {
                let p = self
                    .rig
                    .forwarded(&Pkt::tcp(self.client(port), self.vip, flags))?;
                ensure!(
                    p.dest() == self.rs
                        && p.source() == self.client(port)
                        && p.flags == flags
                        && p.csum_ok,
                    "{p:?}"
                );
            }
            Side::Server => {
                let p = self
                    .rig
                    .returned(&Pkt::tcp(self.rs, self.client(port), flags))?;
                ensure!(
                    p.source() == self.vip
                        && p.dest() == self.client(port)
                        && p.flags == flags
                        && p.csum_ok,
                    "{p:?}"
                );
            }
        }
        Ok(())
    }

    /// A new connection in the given state; its port.
    fn reach(&mut self, state: State) -> Result<u16> {
        self.port += 1;
        let port = self.port;
        self.send(port, (IN, SYN))?;
        for event in history(state) {
            self.send(port, *event)?;
        }
        Ok(port)
    }
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        states(family).with_context(|| format!("{family:?}"))?;
    }
    timeouts()
}

/// Every transition.
fn states(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    // A state that holds for an instant must not expire while others are tried: CLOSE lasts ten
    // seconds.
    let mut t = Test {
        rig,
        vip: at(family.vip(), 80),
        rs: at(family.raw_rs(1), 8080),
        port: 1000,
    };
    t.rig.ipvsadm(&format!("-A -t {} -s rr", t.vip))?;
    t.rig.ipvsadm(&format!("-a -t {} -r {} -m", t.vip, t.rs))?;
    let ipvs = Ipvs::open(&t.rig.topo.director)?;

    for state in [Sr, Es, Fw, Tw, Cl, Cw, Ss] {
        let mut expected = HashMap::new();
        for side in [IN, OUT] {
            for flag in [SYN, FIN, ACK, RST, 0] {
                if (side, flag) == (IN, SYN) && matches!(state, Tw | Cl) {
                    // A new connection, see conn_reuse.
                    continue;
                }
                let port = t.reach(state)?;
                t.send(port, (side, flag))?;
                expected.insert(port, ((side, flag), next(state, (side, flag))));
            }
        }
        // The C module's file can miss connections while its table is being resized.
        let conns = until("all connections are listed", 3.0, || {
            let conns = proc::conns(&t.rig.topo.director)?;
            let all = expected
                .keys()
                .all(|port| conns.iter().any(|c| c.client == t.client(*port)));
            Ok(all.then_some(conns))
        })?;
        for (port, (event, want)) in &expected {
            let conn = conns
                .iter()
                .find(|c| c.client == t.client(*port))
                .with_context(|| format!("{event:?} in {state:?}: the connection is gone"))?;
            ensure!(
                conn.state == want.name(),
                "{event:?} in {}: expected {}, it is {}",
                state.name(),
                want.name(),
                conn.state
            );
            let age = want.timeout() - conn.expires.min(want.timeout());
            ensure!(
                conn.expires <= want.timeout() && f64::from(age) <= 3.0 * crate::wait::slow(),
                "{event:?} in {}: {} should expire in {} s, it says {}",
                state.name(),
                want.name(),
                want.timeout(),
                conn.expires
            );
        }
        let mut last = String::new();
        until_true("the destination counts its connections", 3.0, || {
            let conns = proc::conns(&t.rig.topo.director)?;
            let active = conns
                .iter()
                .filter(|c| {
                    [Es, Ss, Sr]
                        .iter()
                        .any(|s| s.active() && s.name() == c.state)
                })
                .count();
            let dest = ipvs.dest(TCP, t.vip, t.rs)?;
            last = format!("{active} active of {}, {dest:?}", conns.len());
            Ok(
                (dest.active as usize, (dest.active + dest.inact) as usize)
                    == (active, conns.len()),
            )
        })
        .with_context(|| last)?;
    }

    // The priority of flags set together: RST, SYN, FIN, ACK.
    let port = t.reach(Es)?;
    t.send(port, (OUT, SYN | FIN | ACK))?;
    let state = |port| -> Result<String> {
        Ok(proc::conn(&t.rig.topo.director, t.client(port))?
            .context("the connection is gone")?
            .state)
    };
    ensure!(
        state(port)? == "ESTABLISHED",
        "SYN+FIN+ACK from the server: {}",
        state(port)?
    );
    t.send(port, (OUT, FIN | ACK))?;
    ensure!(
        state(port)? == "FIN_WAIT",
        "FIN+ACK from the server: {}",
        state(port)?
    );
    t.send(port, (OUT, RST | SYN | FIN | ACK))?;
    ensure!(
        state(port)? == "CLOSE",
        "all flags from the server: {}",
        state(port)?
    );
    Ok(())
}

/// `ipvsadm --set` holds for packets from then on.
fn timeouts() -> Result<()> {
    let rig = Rig::new()?;
    let mut t = Test {
        rig,
        vip: at(Family::V4.vip(), 80),
        rs: at(Family::V4.raw_rs(1), 80),
        port: 1000,
    };
    t.rig.ipvsadm("--set 50 40 0")?;
    t.rig.ipvsadm(&format!("-A -t {} -s rr", t.vip))?;
    t.rig.ipvsadm(&format!("-a -t {} -r {} -m", t.vip, t.rs))?;
    let port = t.reach(Es)?;
    let expires = |t: &Test| -> Result<u32> {
        Ok(proc::conn(&t.rig.topo.director, t.client(port))?
            .context("the connection is gone")?
            .expires)
    };
    let near =
        |got: u32, want: u32| got <= want && f64::from(want - got) <= 2.0 * crate::wait::slow();
    ensure!(
        near(expires(&t)?, 50),
        "ESTABLISHED expires in {}",
        expires(&t)?
    );
    t.send(port, (OUT, FIN))?;
    ensure!(
        near(expires(&t)?, 40),
        "FIN_WAIT expires in {}",
        expires(&t)?
    );
    t.rig.ipvsadm("--set 0 77 0")?;
    t.send(port, (OUT, ACK))?;
    ensure!(
        near(expires(&t)?, 77),
        "FIN_WAIT expires in {}",
        expires(&t)?
    );
    let listing = t.rig.ipvsadm("-L --timeout")?;
    ensure!(listing.contains("50 77 300"), "{listing}");
    Ok(())
}
