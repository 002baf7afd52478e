// SPDX-License-Identifier: GPL-2.0-or-later

//! FTP with persistence, which is how it is balanced without NAT: data connections to any port that is not privileged go where the
//! client's control connection went, by one template. With the helper loaded, which only NAT has; by direct routing, and by NAT with
//! real sessions, whose data connections the helper directs before any service is asked.
//!
//! Proves checklist items 45 and 70.

use std::collections::BTreeSet;

use anyhow::{ensure, Context, Result};

use crate::ftp::{Client, Data, Server};
use crate::pkt::{Pkt, ACK, PSH, RST, SYN};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "ftp_persistent",
    "FTP with persistence, by direct routing and by NAT",
    &[45, 70],
    run,
);

fn run(cx: &Cx) -> Result<()> {
    cx.modules.load_ftp(&["ports=21,2121"])?;
    for family in Family::BOTH {
        direct(family).with_context(|| format!("direct routing, {family:?}"))?;
        nat(family).with_context(|| format!("NAT, {family:?}"))?;
    }
    Ok(())
}

fn direct(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (ns, vip) = (&rig.topo.director, at(family.vip(), 21));
    rig.ipvsadm(&format!("-A -t {vip} -s rr -p 100"))?;
    for host in [1, 2] {
        let rs = at(family.raw_rs(host), 21);
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -g"))?;
    }
    let mut servers = BTreeSet::new();
    for host in 1..=4 {
        let client = |port| at(family.raw_client(host), port);
        rig.forwarded(&Pkt::tcp(client(4000), vip, SYN))?;
        rig.forwarded(&Pkt::tcp(client(4000), vip, ACK))?;
        let control = proc::conn(ns, client(4000))?.context("no control connection")?;
        servers.insert(control.dest.ip());
        // The helper does not look at it.
        let pasv = Pkt::tcp(client(4000), vip, PSH | ACK).with(|p| p.body = b"PASV\r\n".to_vec());
        rig.forwarded(&pasv)?;
        for (n, port) in (4001..).zip([1024, 30_000, 65_535, 20]) {
            let came = rig.forwarded(&Pkt::tcp(client(n), at(vip.ip(), port), SYN))?;
            ensure!(came.dest() == at(vip.ip(), port), "{came:?}");
            let data = proc::conn(ns, client(n))?.context("no data connection")?;
            ensure!(
                data.dest.ip() == control.dest.ip() && data.vip.port() == port,
                "{data:?}, {control:?}"
            );
        }
        // Other services' ports are none of it.
        let back = rig.answered(&Pkt::tcp(client(4100), at(vip.ip(), 80), SYN))?;
        ensure!(back.flags & RST != 0, "{back:?}");
    }
    ensure!(servers.len() == 2, "{servers:?}");
    let apps = ns.read("/proc/net/ip_vs_app")?;
    ensure!(apps.contains("TCP  21      0      ftp"), "{apps}");
    // One for each client and all its ports.
    let rows = proc::conns(ns)?;
    let templates: Vec<_> = rows.iter().filter(|c| c.client.port() == 0).collect();
    ensure!(
        templates.len() == 4
            && templates
                .iter()
                .all(|c| c.vip == at(vip.ip(), 0) && c.dest.port() == 0),
        "{rows:#?}"
    );
    // Who has none, and no service for the port, is told by the host itself.
    rig.ipvsadm(&format!("-E -t {vip} -s rr"))?;
    let stranger = at(family.raw_client(9), 4000);
    let back = rig.answered(&Pkt::tcp(stranger, at(vip.ip(), 30_000), SYN))?;
    ensure!(back.flags & RST != 0, "{back:?}");
    Ok(())
}

fn nat(family: Family) -> Result<()> {
    let topo = Topo::new(2)?;
    let vip = at(family.vip(), 21);
    topo.ipvsadm(&format!("-A -t {vip} -s rr -p 100"))?;
    let mut servers = Vec::new();
    for (n, ns) in (1..).zip(&topo.rs) {
        let rs = at(family.rs(n), 21);
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        servers.push(Server::new(ns, rs, &format!("rs{n}"))?);
    }
    let mut names = BTreeSet::new();
    for _ in 0..3 {
        let mut client = Client::login(&topo.client, vip)?;
        names.insert(client.command("NAME", "200")?);
        for how in [Data::Epsv, Data::Eprt] {
            client
                .transfer(how, 5000, false)
                .with_context(|| format!("{how:?}"))?;
        }
        client.command("QUIT", "221")?;
    }
    ensure!(names.len() == 1, "{names:?}");
    let rows = proc::conns(&topo.director)?;
    let templates: Vec<_> = rows
        .iter()
        .filter(|c| c.client.port() == 0 && c.vip.port() == 0)
        .collect();
    // With two data connections and a control connection for each session.
    ensure!(
        templates.len() == 1 && templates[0].state == "ASSURED" && rows.len() == 1 + 3 * 3,
        "{rows:#?}"
    );
    // At another port the template is for that port, and one of the helper's as well.
    let (other, rs) = (at(vip.ip(), 2121), at(family.rs(1), 21));
    topo.ipvsadm(&format!("-A -t {other} -s rr -p 100"))?;
    topo.ipvsadm(&format!("-a -t {other} -r {rs} -m"))?;
    let mut client = Client::login(&topo.client, other)?;
    client.transfer(Data::Epsv, 5000, false)?;
    let apps = topo.director.read("/proc/net/ip_vs_app")?;
    ensure!(apps.contains("TCP  2121    2      ftp"), "{apps}");
    Ok(())
}
