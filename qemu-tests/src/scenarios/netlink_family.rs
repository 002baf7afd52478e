// SPDX-License-Identifier: GPL-2.0-or-later

//! The netlink family as the controller describes it, and that only the initial user namespace's
//! administrator may use it.
//!
//! Proves checklist items 1 and 5.

use anyhow::{bail, ensure, Context, Result};

use crate::genl::{find, parse, Genl};
use crate::modules;
use crate::ns::Ns;
use crate::scenario::{Cx, Peer, Scenario};

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_family",
    "name, version, operations and permissions of the netlink family",
    &[1, 5],
    run,
);

fn number(attrs: &[u8], kind: u16) -> Result<u32> {
    let value = find(attrs, kind).with_context(|| format!("attribute {kind}"))?;
    match *value {
        [a, b] => Ok(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => Ok(u32::from_ne_bytes([a, b, c, d])),
        _ => bail!("attribute {kind} is {value:?}"),
    }
}

fn run(cx: &Cx) -> Result<()> {
    let ns = Ns::new("director")?;
    let genl = Genl::open(&ns)?;
    let reply = genl.get_family("IPVS")?.ok()?;
    let attrs = &reply.msgs.first().context("no answer")?.attrs;
    ensure!(
        find(attrs, 2) == Some(b"IPVS\0"),
        "name {:?}",
        find(attrs, 2)
    );
    ensure!(number(attrs, 3)? == 1, "version {}", number(attrs, 3)?);
    ensure!(number(attrs, 4)? == 0, "header size {}", number(attrs, 4)?);
    // FullNAT's local addresses are attribute 7.
    let most = if cx.peer == Peer::Rvs { 7 } else { 6 };
    ensure!(
        number(attrs, 5)? == most,
        "maximal attribute {}",
        number(attrs, 5)?
    );
    let groups = match find(attrs, 7) {
        Some(groups) => parse(groups)?.len(),
        None => 0,
    };
    let extra = cx.peer == Peer::Rvs;
    // See docs/netlink-extensions.md.
    ensure!(
        groups == if extra { 2 } else { 0 },
        "{groups} multicast groups"
    );
    let mut ops = Vec::new();
    for (_, op) in parse(find(attrs, 6).context("no operations")?)? {
        ops.push((number(op, 1)?, number(op, 2)?));
    }
    ops.sort_unstable();
    // Admin 1, do 2, dump 4, has a policy 8.
    let mut want: Vec<(u32, u32)> = (1..=17)
        .filter(|cmd| *cmd != 14)
        .map(|cmd| match cmd {
            4 => (cmd, 0xf),
            8 | 11 => (cmd, 0x5),
            _ => (cmd, 0xb),
        })
        .collect();
    if extra {
        // NEW_LADDR, DEL_LADDR, GET_LADDR; GET_CONN and GET_EVENTS.
        want.extend([(18, 0xb), (19, 0xb), (20, 0x5), (64, 0xd), (66, 0xb)]);
    }
    ensure!(ops == want, "operations {ops:x?}, expected {want:x?}");
    println!("operations {ops:x?}");

    let module = match cx.peer {
        Peer::C => "ip_vs".to_owned(),
        Peer::Rvs => cx
            .modules
            .rvs
            .as_ref()
            .context("no module")?
            .display()
            .to_string(),
    };
    let aliases = modules::run("modinfo", &["-F", "alias", &module])?;
    ensure!(
        aliases
            .lines()
            .any(|a| a == "net-pf-16-proto-16-family-IPVS"),
        "aliases {aliases:?}"
    );

    // Root of a user namespace of its own, owner of the network namespace: refused each command.
    let me = std::env::current_exe()?.display().to_string();
    for (cmd, _) in &want {
        let dump = matches!(cmd, 8 | 11 | 20 | 64);
        let answer = ns.cmd(&format!(
            "unshare --user --map-root-user --net {me} in-guest errno {cmd}{}",
            if dump { " --dump" } else { "" }
        ))?;
        ensure!(
            answer.trim() == "1",
            "command {cmd} in a user namespace: errno {}",
            answer.trim()
        );
    }
    let allowed = ns.cmd(&format!("{me} in-guest errno 13"))?;
    ensure!(
        allowed.trim() == "0",
        "GET_CONFIG as root: errno {}",
        allowed.trim()
    );
    Ok(())
}
