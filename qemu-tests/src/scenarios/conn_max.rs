// SPDX-License-Identifier: GPL-2.0-or-later

//! The limit on connections: what exceeds it is dropped, existing ones go on; each namespace has
//! its own and inherits init_net's.
//!
//! Proves checklist items 29 and 77.

use anyhow::{ensure, Result};

use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario =
    Scenario::new("conn_max", "the limit on connections", &[29, 77], run);

const KEY: &str = "net.ipv4.vs.conn_max";

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let rig = Rig::new()?;
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        for kind in ["t", "u"] {
            rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
        }
        rig.topo.director.set_sysctl(KEY, 10)?;
        let client = |n: u16| at(family.raw_client(1), 4000 + n);
        for n in 0..10 {
            rig.forwarded(&Pkt::tcp(client(n), vip, SYN))?;
        }
        // Full: dropped in silence, not refused.
        rig.dropped(Side::Client, &Pkt::tcp(client(10), vip, SYN))?;
        rig.dropped(Side::Client, &Pkt::udp(client(10), vip, b"x"))?;
        rig.forwarded(&Pkt::tcp(client(3), vip, ACK))?;
        rig.returned(&Pkt::tcp(rs, client(3), ACK))?;
        ensure!(
            proc::conns(&rig.topo.director)?.len() == 10,
            "{}",
            proc::conns(&rig.topo.director)?.len()
        );
        rig.topo.director.set_sysctl(KEY, 12)?;
        rig.forwarded(&Pkt::tcp(client(10), vip, SYN))?;
        rig.forwarded(&Pkt::udp(client(10), vip, b"x"))?;
        rig.dropped(Side::Client, &Pkt::udp(client(11), vip, b"x"))?;
        // Lowered below what is there: nobody is thrown out.
        rig.topo.director.set_sysctl(KEY, 0)?;
        rig.forwarded(&Pkt::tcp(client(0), vip, ACK))?;
        rig.dropped(Side::Client, &Pkt::tcp(client(20), vip, SYN))?;
    }
    // A namespace starts with init_net's limit of that moment.
    let init = Ns::init()?;
    let usual = init.sysctl(KEY)?;
    init.set_sysctl(KEY, 5000)?;
    let young = Ns::new("young")?;
    ensure!(
        young.sysctl(KEY)? == "5000",
        "inherited {}",
        young.sysctl(KEY)?
    );
    init.set_sysctl(KEY, &usual)?;
    ensure!(
        young.sysctl(KEY)? == "5000",
        "changed with init_net: {}",
        young.sysctl(KEY)?
    );
    // The administrator of the machine may exceed it there.
    young.set_sysctl(KEY, 6000)?;
    // The owner of a user namespace may lower it, not raise it above what it was made with.
    init.set_sysctl(KEY, 5000)?;
    let script = "cd /proc/sys/net/ipv4/vs; cat conn_max; echo 4000 >conn_max; cat conn_max; echo 5000 >conn_max; cat conn_max; \
                  echo 5001 >conn_max 2>/dev/null || echo refused; cat conn_max";
    let text = init.cmd_stdin("unshare --user --map-root-user --net sh", script)?;
    init.set_sysctl(KEY, &usual)?;
    ensure!(
        text.split_whitespace()
            .eq(["5000", "4000", "5000", "refused", "5000"]),
        "{text}"
    );
    Ok(())
}
