// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of netlink requests that were right once: bytes changed, attributes dropped, doubled,
//! cut, of random lengths, on random commands. Whatever the answer, nothing may warn, and the
//! module works as before.
//!
//! Proves checklist items 4 and 143 (configuration).

use anyhow::{ensure, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, SYN};
use crate::requests::Request;
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::topo::{at, Family};
use crate::wait::rounds;

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_fuzz",
    "malformed netlink requests by the thousand",
    &[143],
    run,
)
.partly(&[4])
.timeout(90.0);

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let mut rng = Rng::new(cx.seed);
    let rounds = rounds(20_000);
    let mut tally = std::collections::BTreeMap::new();
    for round in 0..rounds {
        let request = if cx.peer == Peer::Rvs && rng.chance(4) {
            Request::local(&mut rng)
        } else {
            Request::any(&mut rng, false)
        };
        let reply = ipvs
            .genl
            .request_bytes(ipvs.family, request.flags, &request.payload)?;
        *tally.entry(reply.errno).or_insert(0) += 1;
        if round % 200 == 0 {
            // Traffic meets whatever stands there now.
            for family in Family::BOTH {
                for port in 1000..1006 {
                    let client = at(family.raw_client(round as u16), 4000);
                    rig.ctap
                        .send(&Pkt::tcp(client, at(family.vip(), port), SYN))?;
                    rig.ctap
                        .send(&Pkt::udp(client, at(family.vip(), port), b"x"))?;
                }
            }
            rig.finish(crate::rig::Side::Client)?;
            // What is there can be listed, and everything listed can be deleted.
            for service in ipvs.services()? {
                if let Some(vip) = service.vip {
                    ipvs.dests(service.proto as u8, vip).map(drop)?;
                }
            }
        }
    }
    println!("answers by errno: {tally:?}");
    ensure!(
        tally.get(&0).copied().unwrap_or_default() > rounds / 20,
        "hardly any request was right: {tally:?}"
    );

    rig.ipvsadm("-C")?;
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    let vip = at(Family::V4.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r 10.8.1.77:80 -m"))?;
    let came = rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(7777), 1), vip, SYN))?;
    ensure!(came.dst == Family::V4.raw_rs(77), "{came:?}");
    Ok(())
}
