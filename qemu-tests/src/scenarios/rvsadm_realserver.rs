// SPDX-License-Identifier: GPL-2.0-or-later

//! `rvsadm realserver` makes a host a real server for direct routing and for tunnels of every type, checksum and pair of IP
//! versions: clients are served then, `check` says what is missing, `undo` leaves everything as it was, and what the kernel cannot
//! take is refused.

use std::net::IpAddr;

use anyhow::{ensure, Context, Result};

use super::rvsadm::Tool;
use crate::ns::Ns;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_realserver",
    "rvsadm prepares real servers for direct routing and tunnels",
    &[],
    run,
)
.with_rvsadm()
.timeout(180.0);

fn run(cx: &Cx) -> Result<()> {
    for (mode, method) in [("--dr", "dr"), ("--tunnel", "tunnel")] {
        one(cx, mode, method).with_context(|| mode.to_owned())?;
    }
    tunnels(cx)?;
    together(cx)
}

/// What setup may change.
fn state(ns: &Ns) -> Result<String> {
    let mut text = ns.cmd("ip -br link")?;
    text += &ns.cmd("ip -br address show scope global")?;
    text += &ns.cmd("ip fou show")?;
    for key in ["arp_ignore", "arp_announce", "rp_filter"] {
        text += &format!(
            "{key} {}\n",
            ns.sysctl(&format!("net.ipv4.conf.all.{key}"))?
        );
    }
    for device in ["tunl0", "gre0"] {
        let key = format!("net.ipv4.conf.{device}.rp_filter");
        text += &format!("{key} {}\n", ns.sysctl(&key).unwrap_or_default());
    }
    Ok(text)
}

/// The modules whose devices are in every namespace once they are there.
fn load_modules(ns: &Ns) -> Result<()> {
    for module in ["ipip", "sit", "ip6_tunnel", "ip_gre", "ip6_gre", "fou"] {
        ns.cmd(&format!("modprobe {module}"))?;
    }
    Ok(())
}

/// What director and real server are told in the same words.
const TUNNELS: [&str; 6] = [
    "--tunnel-type ipip",
    "--tunnel-type gue --tunnel-port 6080",
    "--tunnel-type gue --tunnel-port 6080 --tunnel-checksum csum",
    "--tunnel-type gue --tunnel-port 6080 --tunnel-checksum remcsum",
    "--tunnel-type gre",
    "--tunnel-type gre --tunnel-checksum csum",
];

fn tunnels(cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let director = Tool::new(cx, &topo.director)?;
    let here = &topo.rs[0];
    let host = Tool::new(cx, here)?;
    topo.director
        .set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    load_modules(here)?;
    // So that setup has something to do about it.
    here.set_sysctl("net.ipv4.conf.all.rp_filter", 1)?;
    let before = state(here)?;
    let mut pairs = Vec::new();
    for inner in Family::BOTH {
        director.ok(&format!("service add tcp {} -s rr", at(inner.vip(), 80)))?;
        for outer in Family::BOTH {
            pairs.extend(TUNNELS.iter().map(|words| (inner, outer, *words)));
        }
    }
    // Each type and each pair of versions, but not all of both.
    let every = if slow() > 1.0 { 5 } else { 1 };
    for (inner, outer, words) in pairs.into_iter().step_by(every) {
        let what = format!("{inner:?} in {outer:?}, {words}");
        let (vip, rs) = (at(inner.vip(), 80), at(outer.rs(1), 80));
        let mut setup = format!("--tunnel {words} {}", vip.ip());
        if inner != outer || words.contains("gre --tunnel-checksum csum") {
            setup += &format!(" --tunnel-address {}", rs.ip());
        }
        director.ok(&format!("real add tcp {vip} {rs} --method tunnel {words}"))?;
        let mut plan = None;
        if inner == outer {
            let out = host.run(&format!("realserver check {setup}"), "")?;
            ensure!(out.code == Some(1), "{what}: {out:?}");
            plan = Some(host.ok(&format!("realserver setup {setup} --dry-run"))?);
            ensure!(
                state(here)? == before,
                "{what}: a dry run has changed something"
            );
        }
        let done = host.ok(&format!("realserver setup {setup}"))?;
        ensure!(
            plan.is_none_or(|plan| plan == done),
            "{what}: not what was announced: {done}"
        );
        let out = host.ok(&format!("realserver check {setup}"))?;
        ensure!(out == "nothing is missing\n", "{what}: {out}");

        let server = Server::tcp(here, vip, "rs1")?;
        let body = serve::http_get(&topo.client, vip).with_context(|| format!("{what}: {done}"))?;
        ensure!(body.starts_with("rs1 "), "{what}: {body}");
        drop(server);

        host.ok(&format!("realserver undo {setup}"))?;
        let after = state(here)?;
        ensure!(after == before, "{what}: before\n{before}after\n{after}");
        director.ok(&format!("real del tcp {vip} {rs}"))?;
    }
    Ok(())
}

/// Several set-ups share what they need; what can't be is refused.
fn together(cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let here = &topo.rs[0];
    let host = Tool::new(cx, here)?;
    load_modules(here)?;
    // Somebody else's, which stays.
    here.cmd("ip link set tunl0 up")?;
    here.cmd("ip address add 10.0.100.7/32 dev tunl0")?;
    here.set_sysctl("net.ipv4.conf.all.arp_ignore", 2)?;
    let before = state(here)?;
    host.ok("realserver setup --tunnel 10.0.100.1 10.0.100.7")?;
    let first = state(here)?;
    let gue = "--tunnel --tunnel-type gue --tunnel-port 6080 10.0.100.1";
    host.ok(&format!("realserver setup {gue}"))?;
    host.ok(&format!("realserver undo {gue}"))?;
    ensure!(state(here)? == first, "{first}{}", state(here)?);
    host.ok(&format!("realserver setup {gue}"))?;
    host.ok("realserver undo --tunnel 10.0.100.1 10.0.100.7")?;
    host.ok(&format!("realserver check {gue}"))?;
    host.ok(&format!("realserver undo {gue}"))?;
    ensure!(state(here)? == before, "{before}{}", state(here)?);
    ensure!(host.ok(&format!("realserver undo {gue}"))? == "nothing to do\n");

    for (words, code, said) in [
        ("--dr --tunnel-port 6080", 2, &["--tunnel"][..]),
        ("--tunnel --tunnel-type gue", 2, &["gue", "port"]),
        ("--tunnel --tunnel-port 6080", 2, &["6080", "gue"]),
        ("--tunnel --tunnel-checksum csum", 2, &["csum"]),
        (
            "--tunnel --tunnel-type gre --tunnel-checksum remcsum",
            2,
            &["remcsum", "gue"],
        ),
        (
            "--tunnel --tunnel-type gre --tunnel-checksum csum",
            2,
            &["gre0", "--tunnel-address"],
        ),
        ("--tunnel --tunnel-address 224.0.0.1", 2, &["224.0.0.1"]),
        ("--tunnel --tunnel-address here", 2, &["'here'"]),
        (
            "--tunnel --tunnel-address 10.0.1.77",
            1,
            &["10.0.1.77", "no address of this machine"],
        ),
    ] {
        host.fails(&format!("realserver setup {words} 10.0.100.1"), code, said)?;
    }
    // A port or device that something else has.
    here.cmd("ip fou add port 6080 ipproto 4")?;
    host.fails(
        &format!("realserver setup {gue}"),
        1,
        &["6080", "another encapsulation"],
    )?;
    here.cmd("ip fou del port 6080")?;
    let gre = "--tunnel --tunnel-type gre --tunnel-address 10.0.1.2 10.0.100.1";
    host.ok(&format!("realserver setup {gre}"))?;
    host.fails(
        &format!("realserver setup {gre} --tunnel-checksum csum"),
        1,
        &["without checksums", "10.0.1.2"],
    )?;
    host.ok(&format!("realserver undo {gre}"))?;
    here.cmd("ip link add other type gre local 10.0.1.2 remote any")?;
    let out = host.run(&format!("realserver setup {gre}"), "")?;
    ensure!(
        out.code == Some(1)
            && out
                .stderr
                .contains("another device has the tunnels to 10.0.1.2"),
        "{out:?}"
    );
    // What it had done before that.
    host.ok(&format!("realserver undo {gre}"))?;
    here.cmd("ip link del other")?;
    ensure!(state(here)? == before, "{before}{}", state(here)?);
    Ok(())
}

fn one(cx: &Cx, mode: &str, method: &str) -> Result<()> {
    let topo = Topo::new(1)?;
    let director = Tool::new(cx, &topo.director)?;
    let host = Tool::new(cx, &topo.rs[0])?;
    let vip = at(Family::V4.vip(), 80);
    let ip: IpAddr = vip.ip();
    // Answers come straight from the real server; here their way is through the director, which takes them for its own
    // unless it is told otherwise.
    topo.director
        .set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    director.ok(&format!("service add tcp {vip} -s rr"))?;
    director.ok(&format!("real add tcp {vip} 10.0.1.2:80 --method {method}"))?;
    load_modules(&topo.rs[0])?;
    let before = state(&topo.rs[0])?;

    // Not ready yet, and said.
    let out = host.run(&format!("realserver check {mode} {ip}"), "")?;
    ensure!(
        out.code == Some(1)
            && out.stdout.contains("arp_ignore")
            && out.stdout.contains("10.0.100.1/32"),
        "{out:?}"
    );
    let plan = host.ok(&format!("realserver setup {mode} {ip} --dry-run"))?;
    ensure!(plan.contains("arp_announce=2"), "{plan}");
    ensure!(
        state(&topo.rs[0])? == before,
        "a dry run has changed something"
    );

    host.ok(&format!("realserver setup {mode} {ip}"))?;
    host.ok(&format!("realserver check {mode} {ip}"))?;
    let server = Server::tcp(&topo.rs[0], at("0.0.0.0".parse()?, 80), "rs1")?;
    let body = serve::http_get(&topo.client, vip)?;
    ensure!(body.starts_with("rs1 10.0.0.2:"), "{body}");
    let ready = state(&topo.rs[0])?;
    // Once more: there is nothing to do.
    host.ok(&format!("realserver setup {mode} {ip}"))?;
    ensure!(state(&topo.rs[0])? == ready);

    drop(server);
    host.ok(&format!("realserver undo {mode} {ip}"))?;
    let after = state(&topo.rs[0])?;
    ensure!(after == before, "before\n{before}after\n{after}");
    Ok(())
}
