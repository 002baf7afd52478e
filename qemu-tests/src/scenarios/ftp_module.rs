// SPDX-License-Identifier: GPL-2.0-or-later

//! FTP's helper is a module of its own: without it nothing is read or written; its ports, in every namespace, with how many
//! connections use them; it stays while one does, and comes and goes under traffic.
//!
//! Proves checklist items 26 and 31 (FTP's ports).

use std::fs;

use anyhow::{ensure, Context, Result};

use crate::ftp::{Client, Data, Server};
use crate::modules::{loaded, run as tool};
use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, PSH, SYN};
use crate::rig::Rig;
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family, Topo};
use crate::wait::{rounds, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "ftp_module",
    "FTP's helper: its ports, who uses it, loading and unloading",
    &[26],
    run,
)
.partly(&[31, 39])
.own_modules();

const HEADER: &str = "prot port    usecnt name\n";

fn row(port: u16, uses: u32) -> String {
    format!("TCP  {port:<7} {uses:<6} ftp              \n")
}

fn apps(ns: &Ns, want: &[(u16, u32)]) -> Result<()> {
    let text = ns.read("/proc/net/ip_vs_app")?;
    let mut all = HEADER.to_owned();
    all.extend(want.iter().map(|(port, uses)| row(*port, *uses)));
    ensure!(text == all, "{text:?} and not {all:?}");
    Ok(())
}

fn run(cx: &Cx) -> Result<()> {
    let main = if cx.peer == Peer::C { "ip_vs" } else { "rvs" };
    let helper = cx.modules.ftp_name();
    cx.modules.load()?;
    parameters(cx, helper)?;
    users(cx, main, helper)?;
    namespace_ends(cx, helper)?;
    traffic(cx, helper)?;
    cx.modules.unload()?;
    // By its name it brings the rest along.
    if cx.peer == Peer::C {
        cx.modules.load_ftp(&[])?;
        ensure!(loaded(main)?, "{main} is not there");
    }
    cx.modules.unload()
}

fn parameters(cx: &Cx, helper: &str) -> Result<()> {
    let ns = Ns::new("before")?;
    apps(&ns, &[])?;
    for (given, rows, shown) in [
        (&[][..], &[(21, 0)][..], "21"),
        (&["ports=2121"], &[(2121, 0)], "2121"),
        (&["ports=2121,21"], &[(21, 0), (2121, 0)], "2121,21"),
        (&["ports=21,0,2121"], &[(2121, 0), (21, 0)], "21,0,2121"),
        (&["ports=0"], &[], "0"),
        (
            &["ports=1,2,3,4,5,6,7,65535"],
            &[
                (65535, 0),
                (7, 0),
                (6, 0),
                (5, 0),
                (4, 0),
                (3, 0),
                (2, 0),
                (1, 0),
            ],
            "1,2,3,4,5,6,7,65535",
        ),
    ] {
        cx.modules.load_ftp(given)?;
        let after = Ns::new("after")?;
        for ns in [&ns, &after] {
            apps(ns, rows).with_context(|| format!("{given:?}"))?;
        }
        let text = fs::read_to_string(format!("/sys/module/{helper}/parameters/ports"))?;
        ensure!(text.trim() == shown, "{given:?}: {text}");
        tool("rmmod", &[helper])?;
        apps(&ns, &[]).with_context(|| format!("{given:?}, gone"))?;
        apps(&after, &[]).with_context(|| format!("{given:?}, gone"))?;
    }
    for bad in [
        "ports=21,21",
        "ports=1,2,3,4,5,6,7,8,9",
        "ports=65536",
        "ports=x",
    ] {
        ensure!(cx.modules.load_ftp(&[bad]).is_err(), "{bad} was taken");
        ensure!(!loaded(helper)?, "{helper} is there with {bad}");
        apps(&ns, &[]).with_context(|| bad.to_owned())?;
    }
    Ok(())
}

/// FTP services at two ports.
fn network(ports: &[u16]) -> Result<(Topo, Vec<Server>)> {
    let topo = Topo::new(1)?;
    let mut servers = Vec::new();
    for port in ports {
        let (vip, rs) = (at(Family::V4.vip(), *port), at(Family::V4.rs(1), *port));
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        servers.push(Server::new(&topo.rs[0], rs, "rs1")?);
    }
    Ok((topo, servers))
}

fn users(cx: &Cx, main: &str, helper: &str) -> Result<()> {
    let (topo, servers) = network(&[21, 2121, 8021])?;
    let (ns, vip) = (&topo.director, Family::V4.vip());
    let other = Ns::new("other")?;
    let rs = Family::V4.rs(1);
    // Nobody reads what is said, and netfilter is told nothing.
    let mut early = Client::login(&topo.client, at(vip, 21))?;
    let to = early.passive(Data::Pasv)?;
    ensure!(to.ip() == rs, "{to}");
    let entries = ns.read("/proc/net/nf_conntrack")?;
    ensure!(!entries.contains("dport=21 "), "{entries}");

    cx.modules.load_ftp(&["ports=21,2121"])?;
    ensure!(
        tool("rmmod", &[main]).is_err(),
        "{main} went before {helper}"
    );
    // It is for connections that begin now.
    let to = early.passive(Data::Pasv)?;
    ensure!(to.ip() == rs, "{to}");
    apps(ns, &[(2121, 0), (21, 0)])?;
    let mut one = Client::login(&topo.client, at(vip, 21))?;
    let mut two = Client::login(&topo.client, at(vip, 2121))?;
    let mut three = Client::login(&topo.client, at(vip, 2121))?;
    let mut none = Client::login(&topo.client, at(vip, 8021))?;
    apps(ns, &[(2121, 2), (21, 1)])?;
    apps(&other, &[(2121, 0), (21, 0)])?;
    for client in [&mut one, &mut two, &mut three] {
        client.transfer(Data::Pasv, 3000, false)?;
        client.transfer(Data::Port, 3000, true)?;
    }
    let to = none.passive(Data::Pasv)?;
    ensure!(to.ip() == rs, "{to}");
    // Data connections do not use it.
    apps(ns, &[(2121, 2), (21, 1)])?;
    ensure!(
        tool("rmmod", &[helper]).is_err(),
        "{helper} went with connections"
    );
    one.echo("still there")?;
    one.transfer(Data::Epsv, 3000, false)?;
    // They end with their server, and then it may go.
    ns.set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
    drop((early, one, two, three, none));
    topo.ipvsadm("-C")?;
    until_true("nobody uses it", 10.0, || {
        Ok(apps(ns, &[(2121, 0), (21, 0)]).is_ok())
    })?;
    until_true(&format!("rmmod {helper}"), 5.0, || {
        Ok(tool("rmmod", &[helper]).is_ok())
    })?;
    apps(ns, &[])?;
    drop(servers);
    Ok(())
}

/// What uses it goes with its namespace.
fn namespace_ends(cx: &Cx, helper: &str) -> Result<()> {
    cx.modules.load_ftp(&[])?;
    let (topo, servers) = network(&[21])?;
    let mut client = Client::login(&topo.client, at(Family::V4.vip(), 21))?;
    let waits = client.passive(Data::Pasv)?;
    client.active(Data::Eprt)?;
    apps(&topo.director, &[(21, 1)])?;
    ensure!(waits.ip() == Family::V4.vip(), "{waits}");
    ensure!(tool("rmmod", &[helper]).is_err(), "{helper} went");
    drop((client, servers));
    drop(topo);
    until_true(&format!("rmmod {helper}"), 15.0, || {
        Ok(tool("rmmod", &[helper]).is_ok())
    })
}

/// It comes and goes while control connections begin, speak and end.
fn traffic(cx: &Cx, helper: &str) -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    ns.set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
    for round in 0..rounds(6) as u16 {
        for family in Family::BOTH {
            let (vip, rs) = (at(family.vip(), 21), at(family.raw_rs(1), 21));
            rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        }
        let send = |from: u16| -> Result<()> {
            for i in from..from + 150 {
                for family in Family::BOTH {
                    let (vip, rs, client) = (
                        at(family.vip(), 21),
                        at(family.raw_rs(1), 21),
                        at(family.raw_client(i), 4000),
                    );
                    let say = |from, to, flags, text: &str| {
                        Pkt::tcp(from, to, flags).with(|p| {
                            p.body = text.as_bytes().to_vec();
                            (p.seq, p.ack) = if to == vip {
                                (0x1001, 0x5001)
                            } else {
                                (0x5001, 0x1001)
                            };
                        })
                    };
                    let syn = Pkt::tcp(client, vip, SYN).with(|p| p.seq = 0x1000);
                    rig.ctap.send(&syn)?;
                    let back =
                        Pkt::tcp(rs, client, SYN | ACK).with(|p| (p.seq, p.ack) = (0x5000, 0x1001));
                    rig.stap.send(&back)?;
                    rig.ctap.send(&say(client, vip, PSH | ACK, "EPSV\r\n"))?;
                    let text = format!("229 (~~~{}~)\r\n", 2000 + i % 1000);
                    rig.stap.send(&say(rs, client, PSH | ACK, &text))?;
                }
            }
            Ok(())
        };
        std::thread::scope(|s| -> Result<()> {
            let first = s.spawn(|| send(1000 * (round + 1)));
            cx.modules.load_ftp(&[])?;
            first
                .join()
                .map_err(|_| anyhow::anyhow!("the traffic failed"))??;
            send(1000 * (round + 1) + 300)?;
            rig.ipvsadm("-C")?;
            let second = s.spawn(|| send(1000 * (round + 1) + 600));
            until_true(&format!("rmmod {helper}"), 20.0, || {
                Ok(tool("rmmod", &[helper]).is_ok())
            })?;
            second
                .join()
                .map_err(|_| anyhow::anyhow!("the traffic failed"))?
        })
        .with_context(|| format!("round {round}"))?;
        rig.drain()?;
    }
    Ok(())
}
