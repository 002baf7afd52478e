// SPDX-License-Identifier: GPL-2.0-or-later

//! A real server that is an address of this host, whose device goes away: nothing holds the device.
//!
//! The C module remembers the route to such a server. Over IPv6, where direct routing asks for it by its next hop, that is a copy of
//! the address's own route which keeps that route, and the route the device; the copy's device is the loopback, so that the C
//! module does not let go of it when the other one goes down. The device has to wait until a packet has the C module look
//! up the route again (docs/differences.md). When the peer of a veth is taken down with its namespace, all other namespaces of the
//! machine wait for that as well.
//!
//! Proves checklist item 40, for local addresses.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::pkt::{Pkt, RST, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family, Topo};
use crate::wait::{pass, scaled};

pub const SCENARIO: Scenario = Scenario::new(
    "local_address",
    "a real server that is an address of this host does not hold its device",
    &[],
    run,
)
.partly(&[40]);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for method in ["-g", "-i", "-m"] {
            one(cx.peer, family, method).with_context(|| format!("{family:?} {method}"))?;
        }
    }
    Ok(())
}

fn one(peer: Peer, family: Family, method: &str) -> Result<()> {
    let rig = Rig::around(Topo::new(2)?)?;
    let vip = at(family.vip(), 80);
    let here = at(family.director_at(2), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {here} {method}"))?;
    let syn = |host| Pkt::tcp(at(family.raw_client(host), 4000), vip, SYN);
    let refused = rig.answered(&syn(1))?;
    ensure!(refused.flags & RST != 0, "{refused:?}");

    let director = &rig.topo.director;
    std::thread::scope(|s| -> Result<()> {
        let begin = Instant::now();
        let gone = s.spawn(|| director.ip("link del s2"));
        let within = |time: Duration| {
            let end = begin + time;
            while !gone.is_finished() && Instant::now() < end {
                pass(0.01);
            }
            gone.is_finished()
        };
        if peer == Peer::C && family == Family::V6 && method == "-g" {
            // As it is, but not for longer than the kernel waits without a word.
            if within(Duration::from_millis(1500)) {
                println!("the C module let go of the device by itself");
            }
            rig.ctap.send(&syn(2))?;
        }
        if !within(scaled(5.0)) {
            // Here, as the thread can't be given up before the device goes.
            println!("something holds the device");
            bail!("deleting the device took more than {:?}", scaled(5.0));
        }
        gone.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
