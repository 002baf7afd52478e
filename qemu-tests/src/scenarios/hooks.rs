// SPDX-License-Identifier: GPL-2.0-or-later

//! The six hooks per family: their places and priorities, there with a family's first service and
//! gone with its last.
//!
//! The kernel lists its hooks over nfnetlink (NFNL_SUBSYS_HOOK). Where that is not built in,
//! behaviour decides: without services nothing of the module touches a packet, not even of
//! connections that are still there.
//!
//! Proves checklist items 32 and 33.

use anyhow::{ensure, Result};

use crate::genl::{find, Attrs, Genl, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::pkt::{Pkt, ACK, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "hooks",
    "hooks with exact priorities come and go with a family's services",
    &[32, 33],
    run,
);

const LOCAL_IN: u8 = 1;
const FORWARD: u8 = 2;
const LOCAL_OUT: u8 = 3;

/// Hook point and priority of every hook that a module of the given name has in a family; none if
/// the kernel can't tell.
fn hooks(genl: &Genl, family: Family, module: &str) -> Result<Option<Vec<(u8, i32)>>> {
    // NFPROTO_IPV4 and NFPROTO_IPV6 are 2 and 10.
    let nfproto = family.af() as u8;
    let mut found = Vec::new();
    for point in 0..=4u8 {
        let attrs = Attrs::new().put(1, &u32::from(point).to_be_bytes()); // NFNLA_HOOK_HOOKNUM
                                                                          // NFNL_SUBSYS_HOOK is 12,
                                                                          // NFNL_MSG_HOOK_GET 0.
        let reply = genl.request(
            12 << 8,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
            &[nfproto, 0, 0, 0],
            &attrs.0,
        )?;
        if reply.errno != 0 {
            return Ok(None);
        }
        for msg in &reply.msgs {
            let text = |kind| {
                find(&msg.attrs, kind)
                    .map(|t| String::from_utf8_lossy(t).trim_end_matches('\0').to_owned())
            };
            // NFNLA_HOOK_PRIORITY 2, NFNLA_HOOK_MODULE_NAME 5.
            let owner = text(5).unwrap_or_default();
            if owner != module {
                continue;
            }
            let priority = find(&msg.attrs, 2)
                .and_then(|p| p.try_into().ok())
                .map_or(0, i32::from_be_bytes);
            found.push((point, priority));
        }
    }
    found.sort_unstable();
    Ok(Some(found))
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let module = if cx.peer == crate::scenario::Peer::C {
        "ip_vs"
    } else {
        "rvs"
    };
    let genl = Genl::open_netfilter(&rig.topo.director)?;
    let six = vec![
        (LOCAL_IN, 98),
        (LOCAL_IN, 99),
        (FORWARD, 99),
        (FORWARD, 100),
        (LOCAL_OUT, -99),
        (LOCAL_OUT, -98),
    ];
    let check = |v4: bool, v6: bool| -> Result<()> {
        for (family, there) in [(Family::V4, v4), (Family::V6, v6)] {
            match hooks(&genl, family, module)? {
                None => println!("this kernel does not list its hooks"),
                Some(found) => {
                    let want = if there { six.clone() } else { Vec::new() };
                    ensure!(
                        found == want,
                        "{family:?}: hooks {found:?}, expected {want:?}"
                    );
                }
            }
        }
        Ok(())
    };

    check(false, false)?;
    let (vip4, vip6) = (at(Family::V4.vip(), 80), at(Family::V6.vip(), 80));
    rig.ipvsadm(&format!("-A -t {vip4} -s rr"))?;
    check(true, false)?;
    rig.ipvsadm(&format!("-A -u {vip4} -s rr"))?;
    rig.ipvsadm(&format!("-A -t {vip6} -s rr"))?;
    check(true, true)?;
    rig.ipvsadm(&format!("-D -u {vip4}"))?;
    check(true, true)?;
    rig.ipvsadm(&format!("-D -t {vip4}"))?;
    check(false, true)?;
    rig.ipvsadm("-C")?;
    check(false, false)?;
    rig.ipvsadm("-A -f 5 -s rr")?;
    check(true, false)?;
    rig.ipvsadm("-A -f 5 -6 -s rr")?;
    check(true, true)?;
    rig.ipvsadm("-D -f 5")?;
    check(false, true)?;
    rig.ipvsadm("-C")?;

    // Behaviour: the last service of a family ends the treatment of its connections, another
    // family's goes on.
    for family in Family::BOTH {
        let (vip, rs, client) = (
            at(family.vip(), 80),
            at(family.raw_rs(1), 8080),
            at(family.raw_client(1), 4000),
        );
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    }
    for family in Family::BOTH {
        let (vip, rs, client) = (
            at(family.vip(), 80),
            at(family.raw_rs(1), 8080),
            at(family.raw_client(1), 4000),
        );
        let back = rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
        ensure!(back.source() == vip, "{back:?}");
        rig.ipvsadm(&format!("-D -t {vip}"))?;
        ensure!(
            proc::conn(&rig.topo.director, client)?.is_some(),
            "the connection went with its service"
        );
        let back = rig.returned(&Pkt::tcp(rs, client, ACK))?;
        ensure!(back.source() == rs, "{back:?}");
        let io = rig.exchange(Side::Client, &[Pkt::tcp(client, vip, ACK)])?;
        // The director's own stack answers, nobody listens there.
        ensure!(io.server.is_empty() && io.client.len() == 1, "{io:#?}");
    }
    Ok(())
}
