// SPDX-License-Identifier: GPL-2.0-or-later

//! rvs and ip_vs can't be loaded together: the second is refused, rvs says why, and the first goes
//! on working.
//!
//! Proves checklist item 1 (the family's name is taken once).

use anyhow::{ensure, Result};

use crate::klog::Klog;
use crate::modules;
use crate::ns::Ns;
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::ipvsadm;

pub const SCENARIO: Scenario = Scenario::new(
    "module_conflict",
    "rvs and ip_vs exclude each other",
    &[1],
    run,
)
.only_peer(Peer::Rvs, "it is about both modules")
.own_modules();

fn run(cx: &Cx) -> Result<()> {
    modules::load_c()?;
    let ns = Ns::new("director")?;
    ipvsadm(&ns, "-A -t 10.1.1.1:80 -s rr")?;
    let mut log = Klog::new()?;
    let refused = cx.modules.insert_rvs();
    let lines = log.read()?;
    ensure!(refused.is_err(), "rvs was loaded beside ip_vs");
    ensure!(!modules::loaded("rvs")?, "rvs is in the kernel");
    println!("{refused:?}\n{}", lines.join("\n"));
    ensure!(
        lines
            .iter()
            .any(|l| l.contains("rvs") && l.contains("ip_vs")),
        "the log does not say that ip_vs is in the way: {lines:#?}"
    );
    ensure!(
        ipvsadm(&ns, "-Ln")?.contains("10.1.1.1:80 rr"),
        "ip_vs lost its service"
    );
    ipvsadm(&ns, "-C")?;
    drop(ns);
    modules::unload_c()?;

    cx.modules.load()?;
    let ns = Ns::new("director")?;
    ipvsadm(&ns, "-A -t 10.1.1.1:80 -s rr")?;
    ensure!(
        modules::run("modprobe", &["ip_vs"]).is_err(),
        "ip_vs was loaded beside rvs"
    );
    ensure!(!modules::loaded("ip_vs")?, "ip_vs is in the kernel");
    ensure!(
        ipvsadm(&ns, "-Ln")?.contains("10.1.1.1:80 rr"),
        "rvs lost its service"
    );
    // Neither left anything behind: both load again.
    ipvsadm(&ns, "-C")?;
    drop(ns);
    cx.modules.unload()?;
    modules::load_c()?;
    modules::unload_c()
}
