// SPDX-License-Identifier: GPL-2.0-or-later

//! The TCP state table in its three directions: every transition of every state, packet by packet, with the timeout
//! that each state gives. NAT shows requests and replies; direct routing requests alone, until a reply passes by.
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
    "every TCP state, transition and timeout",
    &[82, 84],
    run,
)
.partly(&[62, 68]);

/// No table ever enters LAST_ACK, only that of `secure_tcp` SYNACK, which is left by the normal one once that is off; LISTEN is
/// for FTP data connections. NONE is how an ICMP error begins a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    No,
    Es,
    Ss,
    Sr,
    Fw,
    Tw,
    Cl,
    Cw,
    Sa,
}
use State::{Cl, Cw, Es, Fw, No, Sa, Sr, Ss, Tw};

impl State {
    fn name(self) -> &'static str {
        match self {
            No => "NONE",
            Sa => "SYNACK",
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
            No => 2,
            Es => 900,
            Ss | Fw | Tw | Sa => 120,
            Sr | Cw => 60,
            Cl => 10,
        }
    }

    fn active(self) -> bool {
        matches!(self, Es | Ss | Sr | Sa)
    }
}

/// In or out, and the flag that decides.
type Event = (Side, u8);
const IN: Side = Side::Client;
const OUT: Side = Side::Server;

/// Where an event leads; states not named stay.
fn next(state: State, event: Event) -> State {
    match (event, state) {
        ((Side::Client, SYN), No | Fw | Tw | Cl | Cw | Sa) => Sr,
        ((Side::Client, SYN), Ss) => Es,
        ((Side::Client, FIN), No) => Cl,
        ((Side::Client, FIN), Es) => Cw,
        ((Side::Client, FIN), Sr | Fw | Sa) => Tw,
        ((Side::Client, ACK), No | Sr | Sa) => Es,
        ((Side::Client, RST), No | Es | Ss | Fw | Tw | Cw) => Cl,
        ((Side::Client, RST), Sa) => Sr,
        ((Side::Server, SYN), No | Fw | Tw | Cl | Cw) => Ss,
        ((Side::Server, SYN), Sa) => Sr,
        ((Side::Server, FIN), No | Sr | Cw | Sa) => Tw,
        ((Side::Server, FIN), Es) => Fw,
        ((Side::Server, ACK), No | Sr | Sa) => Es,
        ((Side::Server, RST), No | Es | Sr | Fw | Cw | Sa) => Cl,
        // Neither SYN, FIN, ACK nor RST.
        ((_, 0), _) => Cl,
        _ => state,
    }
}

/// The same where no reply has been seen: INPUT-ONLY.
fn next_alone(state: State, flag: u8) -> State {
    match (flag, state) {
        (SYN, No | Fw | Tw | Cl | Sa) => Sr,
        (FIN, No) => Cl,
        (FIN, Es) => Fw,
        (FIN, Sr | Sa) => Tw,
        (ACK, No | Sr | Sa) => Es,
        (RST, No | Es | Fw | Tw | Sa) => Cl,
        (0, _) => Cl,
        _ => state,
    }
}

/// How each state is reached from the one that the first SYN opens the connection in, for NAT: SYN_RECV.
fn history(state: State) -> &'static [Event] {
    match state {
        No | Sr => &[],
        Es => &[(IN, ACK)],
        Fw => &[(IN, ACK), (OUT, FIN)],
        Tw => &[(IN, ACK), (OUT, FIN), (IN, FIN)],
        Cl => &[(IN, ACK), (OUT, RST)],
        Cw => &[(IN, ACK), (IN, FIN)],
        Ss => &[(IN, ACK), (OUT, RST), (OUT, SYN)],
        // With secure_tcp.
        Sa => &[(OUT, SYN | ACK)],
    }
}

/// The same for direct routing, where some states need replies.
fn history_alone(state: State) -> &'static [Event] {
    match state {
        Fw => &[(IN, ACK), (IN, FIN)],
        Tw => &[(IN, FIN)],
        Cl => &[(IN, ACK), (IN, RST)],
        // With secure_tcp, where the first SYN leads to it.
        Sa => &[],
        _ => history(state),
    }
}

struct Test {
    rig: Rig,
    vip: SocketAddr,
    /// The real server's address and port.
    rs: SocketAddr,
    /// By direct routing, not NAT.
    direct: bool,
    port: u16,
}

impl Test {
    fn new(family: Family, direct: bool) -> Result<Self> {
        let t = Self {
            rig: Rig::new()?,
            vip: at(family.vip(), 80),
            rs: at(family.raw_rs(1), if direct { 80 } else { 8080 }),
            direct,
            port: 1000,
        };
        // Replies of direct routing come by in the name of an address that is this host's.
        let director = &t.rig.topo.director;
        director.set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
        director.set_sysctl("net.ipv4.vs.schedule_icmp", 1)?;
        let flag = if direct { "-g" } else { "-m" };
        t.rig.ipvsadm(&format!("-A -t {} -s rr", t.vip))?;
        t.rig
            .ipvsadm(&format!("-a -t {} -r {} {flag}", t.vip, t.rs))?;
        Ok(t)
    }

    fn state(&self, port: u16) -> Result<String> {
        let conn = proc::conn(&self.rig.topo.director, self.client(port))?;
        Ok(conn.context("the connection is gone")?.state)
    }

    fn client(&self, port: u16) -> SocketAddr {
        at(Family::of(self.vip.ip()).raw_client(7), port)
    }

    /// Where requests are seen to go, and replies to come from.
    fn ends(&self) -> (SocketAddr, SocketAddr) {
        if self.direct {
            (self.vip, self.vip)
        } else {
            (self.rs, self.rs)
        }
    }

    fn send(&self, port: u16, (side, flags): Event) -> Result<()> {
        let (to, from) = self.ends();
        match side {
            Side::Client => {
                let p = self
                    .rig
                    .forwarded(&Pkt::tcp(self.client(port), self.vip, flags))?;
                ensure!(
                    p.dest() == to
                        && p.source() == self.client(port)
                        && p.flags == flags
                        && p.csum_ok,
                    "{p:?}"
                );
            }
            Side::Server => {
                let p = self
                    .rig
                    .returned(&Pkt::tcp(from, self.client(port), flags))?;
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
        if state == No {
            self.begin_with_error(port)?;
            return Ok(port);
        }
        let secure = |on: i32| {
            let director = &self.rig.topo.director;
            director.set_sysctl("net.ipv4.vs.secure_tcp", on)
        };
        if state == Sa {
            secure(3)?;
        }
        self.send(port, (IN, SYN))?;
        let history = if self.direct { history_alone } else { history };
        for event in history(state) {
            self.send(port, *event)?;
        }
        if state == Sa {
            secure(0)?;
        }
        Ok(port)
    }

    /// An error about a reply that nobody has seen begins a connection, in no state.
    fn begin_with_error(&self, port: u16) -> Result<()> {
        let (client, family) = (self.client(port), Family::of(self.vip.ip()));
        let (kind, code) = match family {
            Family::V4 => (3, 1),
            Family::V6 => (1, 0),
        };
        let about = Pkt::tcp(self.vip, client, ACK).bytes();
        let error = Pkt::icmp_error(client.ip(), self.vip.ip(), kind, code, 0, &about);
        self.rig.forwarded(&error).map(drop)
    }
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for direct in [false, true] {
            let what = || format!("{family:?}, {}", if direct { "direct" } else { "NAT" });
            states(Test::new(family, direct)?).with_context(what)?;
        }
        reply_of_direct_routing(&mut Test::new(family, true)?)
            .with_context(|| format!("{family:?}, a reply of direct routing"))?;
    }
    timeouts()
}

/// Every transition.
fn states(mut t: Test) -> Result<()> {
    // A state that holds for an instant must not expire while others are tried: CLOSE lasts ten
    // seconds.
    let ipvs = Ipvs::open(&t.rig.topo.director)?;
    let (states, sides): (&[State], &[Side]) = if t.direct {
        (&[No, Sr, Es, Fw, Tw, Cl, Sa], &[IN])
    } else {
        (&[No, Sr, Es, Fw, Tw, Cl, Cw, Ss, Sa], &[IN, OUT])
    };
    for state in states.iter().copied() {
        let mut expected = HashMap::new();
        for side in sides.iter().copied() {
            for flag in [SYN, FIN, ACK, RST, 0] {
                if (side, flag) == (IN, SYN) && matches!(state, Tw | Cl) {
                    // A new connection, see conn_reuse.
                    continue;
                }
                let port = t.reach(state)?;
                let before = t.state(port)?;
                ensure!(
                    before == state.name(),
                    "its history leads to {before}, not {}",
                    state.name()
                );
                t.send(port, (side, flag))?;
                let then = if t.direct {
                    next_alone(state, flag)
                } else {
                    next(state, (side, flag))
                };
                expected.insert(port, ((side, flag), then));
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
                    [Es, Ss, Sr, Sa]
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
    let side = if t.direct { IN } else { OUT };
    let port = t.reach(Es)?;
    for (flags, want) in [
        (SYN | FIN | ACK, "ESTABLISHED"),
        (FIN | ACK, "FIN_WAIT"),
        (RST | SYN | FIN | ACK, "CLOSE"),
    ] {
        t.send(port, (side, flags))?;
        let state = t.state(port)?;
        ensure!(
            state == want,
            "flags {flags:x} from the {side:?} side: {state}"
        );
    }
    Ok(())
}

/// A reply that passes by makes a connection of direct routing one that is seen both ways.
fn reply_of_direct_routing(t: &mut Test) -> Result<()> {
    // Of requests alone, the first FIN is taken for both.
    let alone = t.reach(Es)?;
    let both = t.reach(Es)?;
    t.send(both, (OUT, ACK))?;
    for (port, want) in [(alone, "FIN_WAIT"), (both, "CLOSE_WAIT")] {
        t.send(port, (IN, FIN))?;
        ensure!(t.state(port)? == want, "{}, not {want}", t.state(port)?);
    }
    t.send(both, (OUT, FIN))?;
    ensure!(t.state(both)? == "TIME_WAIT", "{}", t.state(both)?);
    Ok(())
}

/// `ipvsadm --set` holds for packets from then on.
fn timeouts() -> Result<()> {
    let mut t = Test::new(Family::V4, false)?;
    t.rig.ipvsadm("--set 50 40 0")?;
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
