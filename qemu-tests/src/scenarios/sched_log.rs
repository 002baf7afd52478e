// SPDX-License-Identifier: GPL-2.0-or-later

//! What schedulers say in the kernel's log when they find no destination: the scheduler, the
//! service, and why. lblcr says nothing of a target that it does not know.
//!
//! Proves checklist item 57 as to what is said.

use anyhow::{ensure, Result};

use super::sched_marked::Marked;
use crate::klog::Klog;
use crate::ns::Ns;
use crate::pkt::{Pkt, SYN};
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "sched_log",
    "the log lines of schedulers that find no destination",
    &[],
    run,
)
.partly(&[57]);

const NOBODY: &str = "no destination available";

fn run(cx: &Cx) -> Result<()> {
    // No limit.
    Ns::init()?.set_sysctl("net.core.message_cost", 0)?;
    let m = Marked::new()?;
    let mut log = Klog::new()?;
    let prefix = match cx.peer {
        Peer::C => "IPVS: ",
        Peer::Rvs => "rvs: ",
    };
    let mut expect = |pkt: Pkt, hosts: &str, want: Option<String>| -> Result<()> {
        let got = m.letters(&[pkt])?;
        ensure!(got == hosts, "went to {got}, expected {hosts}");
        let lines = log.read()?;
        let said: Vec<&str> = lines
            .iter()
            .filter_map(|l| l.split_once(prefix).map(|(_, text)| text))
            .filter(|text| text.contains(NOBODY))
            .collect();
        ensure!(
            said == want.iter().map(String::as_str).collect::<Vec<_>>(),
            "said {said:?}, expected {want:?} in {lines:#?}"
        );
        Ok(())
    };
    let mut mark = 80;
    for sched in [
        "rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "twos", "dh", "sh", "mh", "lblc",
        "lblcr",
    ] {
        for family in Family::BOTH {
            mark += 1;
            let service = m.service(family, mark, sched, 0)?;
            let line = |why: &str| Some(format!("{sched}: FWM {mark} 0x{mark:08X} - {why}"));
            let of_new = line(NOBODY).filter(|_| sched != "lblcr");
            expect(service.syn(1, 1000, 1), "-", of_new.clone())?;
            m.add(&service, 1, 1)?;
            expect(service.syn(1, 1001, 1), "a", None)?;
            // Overloaded.
            m.edit(&service, 1, 1, 1)?;
            let why = match sched {
                "wrr" => "no destination available: all destinations are overloaded",
                _ => NOBODY,
            };
            match sched {
                // What it knows is not looked at again.
                "lblc" => expect(service.syn(1, 1002, 1), "a", None)?,
                _ => expect(service.syn(1, 1002, 1), "-", line(why))?,
            }
            m.edit(&service, 1, 0, 0)?;
            expect(service.syn(1, 1003, 1), "-", line(NOBODY))?;
            expect(service.syn(1, 1004, 2), "-", of_new)?;
        }
    }
    for (family, name) in [
        (Family::V4, "TCP 10.0.100.1:80"),
        (Family::V6, "TCP [fd00:100::1]:80"),
    ] {
        let vip = at(family.vip(), 80);
        m.rig.ipvsadm(&format!("-A -t {vip} -s mh"))?;
        let pkt = Pkt::tcp(at(family.raw_client(1), 1000), vip, SYN);
        expect(pkt, "-", Some(format!("mh: {name} - {NOBODY}")))?;
    }
    Ok(())
}
