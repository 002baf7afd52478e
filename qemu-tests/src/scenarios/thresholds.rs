// SPDX-License-Identifier: GPL-2.0-or-later

//! Upper and lower thresholds: a server is left out from the moment its connections reach the upper
//! one until they fall below the lower one (or three quarters of the upper one).
//!
//! Proves checklist items 59, 60 and, for overload, 57.

use std::net::SocketAddr;

use anyhow::{ensure, Result};

use crate::pkt::{Pkt, RST, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "thresholds",
    "connection thresholds overload and relieve a server",
    &[59, 60],
    run,
)
.partly(&[57]);

struct Test {
    rig: Rig,
    vip: SocketAddr,
    port: u16,
}

impl Test {
    /// Opens a connection; the last byte of its server's address, 0 if refused.
    fn connect(&mut self) -> Result<u8> {
        self.port += 1;
        let syn = Pkt::tcp(at(Family::V4.raw_client(1), self.port), self.vip, SYN);
        let io = self.rig.exchange(Side::Client, &[syn])?;
        match (&io.server_pkts()[..], &io.client_pkts()[..]) {
            ([p], []) => Ok(crate::pkt::octets(p.dst)[3]),
            ([], [p]) if p.icmp_type == 3 && p.icmp_code == 3 => Ok(0),
            _ => anyhow::bail!("{io:?}"),
        }
    }

    fn connects(&mut self, want: &[u8]) -> Result<()> {
        let got = want
            .iter()
            .map(|_| self.connect())
            .collect::<Result<Vec<_>>>()?;
        ensure!(got == want, "expected {want:?}, got {got:?}");
        Ok(())
    }

    /// Ends connection number `port` by a reset from the server: it expires after the CLOSE timeout
    /// of ten seconds.
    fn reset(&self, port: u16, host: u8) -> Result<()> {
        let rst = Pkt::tcp(
            at(Family::V4.raw_rs(host), 80),
            at(Family::V4.raw_client(1), port),
            RST,
        );
        self.rig.returned(&rst).map(drop)
    }
}

fn run(_cx: &Cx) -> Result<()> {
    let mut t = Test {
        rig: Rig::new()?,
        vip: at(Family::V4.vip(), 80),
        port: 1000,
    };
    for (n, sched) in (1..).zip(["rr", "wrr", "lc", "wlc"]) {
        // Each at a port of its own: a deleted destination keeps its counters for when the same one
        // comes back.
        t.vip.set_port(n);
        let vip = t.vip;
        t.rig.ipvsadm(&format!("-A -t {vip} -s {sched}"))?;
        t.rig
            .ipvsadm(&format!("-a -t {vip} -r 10.8.1.1:80 -m -x 2"))?;
        t.rig
            .ipvsadm(&format!("-a -t {vip} -r 10.8.1.2:80 -m -x 1"))?;
        // The third would exceed what both may have.
        t.connects(&[2, 1, 1, 0, 0])?;
        // Without a limit it takes all.
        t.rig
            .ipvsadm(&format!("-e -t {vip} -r 10.8.1.1:80 -m -x 0"))?;
        t.connects(&[1, 1, 1])?;
        // An upper threshold that is reached already counts at once: five connections are there.
        t.rig
            .ipvsadm(&format!("-e -t {vip} -r 10.8.1.1:80 -m -x 5"))?;
        t.connects(&[0])?;
        // Between lower (6) and upper (8) threshold an edit changes nothing.
        t.rig
            .ipvsadm(&format!("-e -t {vip} -r 10.8.1.1:80 -m -x 6 -y 5"))?;
        t.connects(&[0])?;
        t.rig
            .ipvsadm(&format!("-e -t {vip} -r 10.8.1.1:80 -m -x 7 -y 6"))?;
        t.connects(&[1, 1, 0])?;
        t.rig.ipvsadm(&format!("-D -t {vip}"))?;
    }

    t.vip.set_port(80);
    let vip = t.vip;
    // Relief: upper 4, so lower is 3; four connections, then two end.
    t.rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    t.rig
        .ipvsadm(&format!("-a -t {vip} -r 10.8.1.3:80 -m -x 4"))?;
    t.connects(&[3, 3, 3, 3, 0])?;
    let first = t.port - 4;
    t.reset(first, 3)?;
    let gone = |t: &Test, port: u16| {
        until_true("a closed connection expires", 15.0, || {
            Ok(proc::conn(&t.rig.topo.director, at(Family::V4.raw_client(1), port))?.is_none())
        })
    };
    gone(&t, first)?;
    // Three are left: not below three, so still overloaded.
    t.connects(&[0])?;
    t.reset(first + 1, 3)?;
    gone(&t, first + 1)?;
    t.connects(&[3, 3, 0])
}
