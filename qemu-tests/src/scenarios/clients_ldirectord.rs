// SPDX-License-Identifier: GPL-2.0-or-later

//! ldirectord as the client: it speaks to IPVS through ipvsadm and reads its listing, checks by connecting and by HTTP,
//! takes a dead server out (or makes it quiescent) and back in.
//!
//! Proves checklist item 20 (what ldirectord uses of it).

use anyhow::Result;

use super::clients::{health, real, vip, Program, Site};
use crate::scenario::{Cx, Scenario};

pub const SCENARIO: Scenario = Scenario::new(
    "clients_ldirectord",
    "ldirectord takes a dead server out and back in",
    &[],
    run,
)
.partly(&[20]);

pub fn config(quiescent: bool, check: &str) -> String {
    format!(
        "checktimeout=1\nnegotiatetimeout=1\ncheckinterval=1\ncheckcount=1\nautoreload=no\n\
         logfile=\"/run/ldirectord.text\"\nquiescent={}\nvirtual={}\n\treal={} masq 1\n\treal={} masq 2\n\
         \tscheduler=wrr\n\tprotocol=tcp\n{check}",
        if quiescent { "yes" } else { "no" },
        vip(),
        real(1),
        real(2)
    )
}

fn run(_cx: &Cx) -> Result<()> {
    let mut site = Site::new()?;
    for (name, quiescent, check) in [
        ("connect", false, "\tchecktype=connect\n"),
        (
            "negotiate",
            true,
            "\tchecktype=negotiate\n\tservice=http\n\trequest=\"/\"\n\treceive=\"rs\"\n",
        ),
    ] {
        println!("{name}");
        std::fs::write("/run/ldirectord.cf", config(quiescent, check))?;
        let line = "ldirectord -d /run/ldirectord.cf start";
        let program = Program::start(&site.topo.director, name, line)?;
        health(&mut site, program)?;
    }
    Ok(())
}
