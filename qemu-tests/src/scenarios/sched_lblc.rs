// SPDX-License-Identifier: GPL-2.0-or-later

//! Locality-based least connections: a target stays with its server until that has more active
//! connections than its weight while another one has less than half of its own; at most 24576
//! targets are remembered.
//!
//! Proves checklist items 55 (without what takes hours), 28 for the sysctl and, for lblc, 57.

use anyhow::{ensure, Context, Result};

use super::sched_marked::{Marked, Service};
use crate::pkt::Pkt;
use crate::proc;
use crate::scenario::{Cx, Scenario};
use crate::topo::Family;
use crate::wait::slow;

pub const SCENARIO: Scenario =
    Scenario::new("sched_lblc", "locality-based least connections", &[55], run)
        .partly(&[27, 28, 57])
        .timeout(90.0);

/// Connections by TCP (active) and UDP (inactive) to targets.
pub struct Play<'a> {
    m: &'a Marked,
    pub service: Service,
    port: u16,
}

impl<'a> Play<'a> {
    pub fn new(m: &'a Marked, service: Service) -> Self {
        Self {
            m,
            service,
            port: 1000,
        }
    }

    /// As many active connections to a target as there are letters go to these servers.
    pub fn syn(&mut self, target: u16, want: &str) -> Result<()> {
        self.expect(Service::syn, target, want)
    }

    /// The same, inactive.
    pub fn udp(&mut self, target: u16, want: &str) -> Result<()> {
        self.expect(Service::udp, target, want)
    }

    fn expect(
        &mut self,
        first: impl Fn(&Service, u16, u16, u16) -> Pkt,
        target: u16,
        want: &str,
    ) -> Result<()> {
        let n = want.len() as u16;
        let pkts: Vec<Pkt> = (0..n)
            .map(|i| first(&self.service, 1, self.port + i, target))
            .collect();
        self.port += n;
        let got = self.m.letters(&pkts)?;
        ensure!(
            got == want,
            "target {target} goes to {got}, expected {want}; {:?}",
            self.service
        );
        Ok(())
    }
}

fn run(_cx: &Cx) -> Result<()> {
    let m = Marked::new()?;
    expiration(&m, "lblc_expiration")?;
    for (mark, family) in (80..).zip(Family::BOTH) {
        let service = m.service(family, mark, "lblc", 0)?;
        let mut p = Play::new(&m, service);
        p.syn(1, "--")?;
        for host in [1, 2, 3] {
            m.add(&service, host, 2)?;
        }
        // Three active ones are more than the weight, and others have none; at last nobody is idle.
        p.syn(1, "cccbbbaaaaaa")?;
        // b and c have three, a has six.
        p.udp(2, "ccc")?;
        // Inactive ones do not overload it.
        p.udp(2, "cccccccc")?;
        // Without weight it loses its targets for good.
        m.edit(&service, 3, 0, 0)?;
        p.udp(2, "bb")?;
        m.edit(&service, 3, 2, 0)?;
        p.udp(2, "b")?;
        // A server above its threshold keeps its targets, but gets no further ones.
        m.edit(&service, 2, 2, 1)?;
        p.udp(2, "bb")?;
        p.udp(3, "cc")?;
        m.edit(&service, 2, 2, 0)?;
        p.udp(4, "bb")?;
        // A deleted one loses those that are asked for; what nobody asked for is its own again when
        // it comes back.
        m.delete(&service, 2)?;
        p.udp(2, "cc")?;
        m.add(&service, 2, 2)?;
        p.udp(2, "cc")?;
        p.udp(4, "bb")?;
        p.udp(3, "cc")?;
        // Another scheduler forgets all. b has less than c.
        m.change(&service, "rr", 0)?;
        m.change(&service, "lblc", 0)?;
        p.udp(3, "bb")?;
        p.udp(2, "bb")?;
    }
    full(&m, "lblc")
}

/// `net.ipv4.vs.KEY`, in seconds.
pub fn expiration(m: &Marked, key: &str) -> Result<()> {
    let director = &m.rig.topo.director;
    let name = format!("net.ipv4.vs.{key}");
    ensure!(director.sysctl(&name)? == "86400", "{key} by default");
    let most = i32::MAX / proc::hz()? as i32;
    for value in [0, 1, 10, -5, most] {
        director.set_sysctl(&name, value)?;
        let got = director.sysctl(&name)?;
        ensure!(got == value.to_string(), "{key} is {got} after {value}");
    }
    for value in [(most + 1).to_string(), "x".to_owned()] {
        let errno = director
            .try_set_sysctl(&name, &value)
            .err()
            .and_then(|e| e.raw_os_error());
        ensure!(errno == Some(libc::EINVAL), "{key} = {value}: {errno:?}");
    }
    director.set_sysctl(&name, 86400)?;
    // Not for who is not the host's administrator.
    let list = director.cmd("unshare --user --map-root-user --net ls /proc/sys/net/ipv4/vs")?;
    ensure!(
        list.contains("conn_max") && !list.contains(key),
        "an unprivileged namespace has {list}"
    );
    Ok(())
}

/// 24576 targets are remembered, further ones are not.
pub fn full(m: &Marked, sched: &str) -> Result<()> {
    if slow() > 2.0 {
        println!("this guest is too slow for as many targets");
        return Ok(());
    }
    const MOST: u16 = 24_576;
    let service = m.service(Family::V6, 90, sched, 0)?;
    m.add(&service, 1, 1)?;
    m.add(&service, 2, 1)?;
    let pkts: Vec<Pkt> = (0..MOST).map(|n| service.udp(1, 1000, n)).collect();
    let hosts = m.connect(&pkts)?;
    let twice = |target: u16| -> Result<[u8; 4]> {
        let pkts: Vec<Pkt> = (2001..2005)
            .map(|port| service.udp(1, port, target))
            .collect();
        let hosts = m.connect(&pkts)?;
        hosts.try_into().ok().context("four connections")
    };
    for target in [0, 1, MOST / 2, MOST - 1] {
        let host = hosts[usize::from(target)];
        let got = twice(target)?;
        ensure!(got == [host; 4], "{target} went to {host}, then {got:?}");
    }
    for target in [MOST, MOST + 1] {
        let got = twice(target)?;
        ensure!(
            got.contains(&1) && got.contains(&2),
            "{target} is remembered: {got:?}"
        );
    }
    Ok(())
}
