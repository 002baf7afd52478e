// SPDX-License-Identifier: GPL-2.0-or-later

//! Unloading: refused while there are services or synchronisation daemons, clean as soon as there are none, with connections
//! alive and packets under way.
//!
//! Proves checklist item 39.

use anyhow::{ensure, Context, Result};

use crate::modules;
use crate::pkt::{Pkt, ACK, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "unload",
    "unloading is blocked by services and clean under traffic",
    &[39],
    run,
)
.own_modules();

fn run(cx: &Cx) -> Result<()> {
    let name = if cx.peer == Peer::C { "ip_vs" } else { "rvs" };
    // Schedulers hold the C module; without them it stands alone.
    let free = || -> Result<()> {
        for helper in modules::C_MODULES.iter().filter(|name| **name != "ip_vs") {
            if modules::loaded(helper)? {
                modules::run("rmmod", &[*helper])?;
            }
        }
        Ok(())
    };
    for round in 0..rounds(6) as u16 {
        cx.modules.load()?;
        let rig = Rig::new()?;
        let real = at(Family::V4.rs(1), 8080);
        let server = Server::tcp(&rig.topo.rs[0], real, "rs1")?;
        for family in Family::BOTH {
            let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
            for kind in ["t", "u"] {
                rig.ipvsadm(&format!("-A -{kind} {vip} -s wlc"))?;
                rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
            }
        }
        let web = at(Family::V4.vip(), 81);
        rig.ipvsadm(&format!("-A -t {web} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {web} -r {real} -m"))?;
        let stream = serve::connect(&rig.topo.client, web)?;
        serve::ask(&stream, "hello")?;
        let send = |from: u16, n: u16| -> Result<()> {
            for i in from..from + n {
                for family in Family::BOTH {
                    let (vip, rs, client) = (
                        at(family.vip(), 80),
                        at(family.raw_rs(1), 8080),
                        at(family.raw_client(i), 4000),
                    );
                    rig.ctap.send(&Pkt::tcp(client, vip, SYN))?;
                    rig.ctap.send(&Pkt::udp(client, vip, b"x"))?;
                    rig.stap.send(&Pkt::tcp(rs, client, SYN | ACK))?;
                }
            }
            Ok(())
        };
        for state in ["master", "backup"] {
            rig.ipvsadm(&format!("--start-daemon {state} --mcast-interface c0"))?;
        }
        send(0, 100)?;
        ensure!(
            modules::run("rmmod", &[name]).is_err(),
            "{name} was unloaded with services"
        );
        serve::ask(&stream, "still there")?;
        rig.ipvsadm("-C")?;
        free()?;
        for state in ["master", "backup"] {
            ensure!(
                modules::run("rmmod", &[name]).is_err(),
                "{name} was unloaded with a {state}"
            );
            rig.ipvsadm(&format!("--stop-daemon {state}"))?;
        }
        // Traffic of this moment, from another thread.
        std::thread::scope(|s| -> Result<()> {
            let traffic = s.spawn(|| send(1000 * (round + 1), 300));
            crate::wait::until_true(&format!("rmmod {name}"), 10.0, || {
                Ok(modules::run("rmmod", &[name]).is_ok() || !modules::loaded(name)?)
            })?;
            traffic
                .join()
                .map_err(|_| anyhow::anyhow!("the traffic failed"))?
        })
        .with_context(|| format!("round {round}"))?;
        ensure!(!modules::loaded(name)?, "{name} is still there");
        ensure!(
            rig.topo.director.read("/proc/net/ip_vs").is_err(),
            "/proc/net/ip_vs is still there"
        );
        ensure!(
            rig.topo.director.sysctl("net.ipv4.vs.conn_max").is_err(),
            "net.ipv4.vs is still there"
        );
        drop(server);
    }
    // Loading and unloading with nothing done in between.
    for _ in 0..rounds(5) {
        cx.modules.load()?;
        cx.modules.unload()?;
    }
    Ok(())
}
