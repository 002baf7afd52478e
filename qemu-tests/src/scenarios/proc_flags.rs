// SPDX-License-Identifier: GPL-2.0-or-later

//! Lines of /proc/net/ip_vs for one-packet and persistent services: the words, the timeout in
//! jiffies, the mask as it is stored.
//!
//! Proves checklist item 21 (flags).

use anyhow::Result;

use super::proc_files::{cases, Case};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "proc_flags",
    "one-packet and persistent services in /proc/net/ip_vs",
    &[],
    run,
)
.partly(&[21]);

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let hz = proc::hz()?;
    let (vip4, vip6) = (at(Family::V4.vip(), 80), at(Family::V6.vip(), 0x1f90));
    let name6 = "[fd00:0100:0000:0000:0000:0000:0000:0001]:1F90";
    let all: [Case; 6] = [
        // The word is missing for IPv6.
        (
            format!("-A -u {vip4} -s rr -o"),
            "UDP  0A006401:0050 rr ops  \n".to_owned(),
            Family::V4,
        ),
        (
            format!("-A -u {vip6} -s rr -o"),
            format!("UDP  {name6} rr \n"),
            Family::V6,
        ),
        (
            "-A -f 5 -s rr -o".to_owned(),
            "FWM  00000005 rr ops \n".to_owned(),
            Family::V4,
        ),
        (
            format!("-A -t {vip4} -s rr -p 300 -M 255.255.0.0"),
            format!("TCP  0A006401:0050 rr  persistent {} FFFF0000\n", 300 * hz),
            Family::V4,
        ),
        // A prefix length is shown as if it were a mask in network order.
        (
            format!("-A -t {vip6} -s rr -p 10 -M 64"),
            format!("TCP  {name6} rr persistent {} 40000000\n", 10 * hz),
            Family::V6,
        ),
        (
            "-A -f 7 -s rr -p 1".to_owned(),
            format!("FWM  00000007 rr persistent {hz} FFFFFFFF\n"),
            Family::V4,
        ),
    ];
    cases(&rig, &all)
}
