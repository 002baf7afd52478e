// SPDX-License-Identifier: GPL-2.0-or-later

//! Clients on the director itself: their packets are translated on the way out, the replies on the
//! way in; by direct routing and tunnels they leave as those of others do.
//!
//! Proves checklist items 115 and 91 (packets of a local sender, whose checksums are left to the
//! device).

use std::collections::BTreeMap;
use std::net::UdpSocket;

use anyhow::{ensure, Context, Result};

use crate::pkt::Pkt;
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::patience;

pub const SCENARIO: Scenario = Scenario::new(
    "local_client",
    "a client on the director is balanced",
    &[115],
    run,
)
.partly(&[91]);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let topo = Topo::new(2)?;
        let mut servers = Vec::new();
        let vip = at(family.vip(), 80);
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
        for (n, ns) in (1..).zip(&topo.rs) {
            let rs = at(family.rs(n), 8080);
            servers.push(Server::tcp(ns, rs, ns.name())?);
            servers.push(Server::udp(ns, rs, ns.name())?);
            topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
            topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
        }
        for state in ["on", "off"] {
            for n in 1..=2 {
                topo.director.cmd(&format!("ethtool -K s{n} tx {state}"))?;
            }
            let mut seen = BTreeMap::new();
            for _ in 0..10 {
                let body = serve::http_get(&topo.director, vip)?;
                *seen.entry(serve::name(&body).to_owned()).or_insert(0) += 1;
                let socket = serve::udp(&topo.director, vip)?;
                let answer = serve::ask_udp(&socket, "hello")?;
                *seen
                    .entry(format!("udp {}", serve::name(&answer)))
                    .or_insert(0) += 1;
            }
            ensure!(
                seen.len() == 4 && seen.values().all(|&n| n == 5),
                "tx {state}: {seen:?}"
            );
            let stream = serve::connect(&topo.director, vip)?;
            std::io::Write::write_all(&mut &stream, b"BULK 200000\n")?;
            serve::take_bulk(&stream, 200_000)?;
            std::io::Write::write_all(&mut &stream, b"TAKE 200000\n")?;
            serve::write_pattern(&mut &stream, 200_000)?;
            let answer = serve::ask(&stream, "")?;
            ensure!(answer.ends_with("right"), "{answer:?}");
        }
        let conns = proc::conns(&topo.director)?;
        ensure!(
            conns.iter().all(|c| c.vip == vip && c.dest.port() == 8080),
            "{conns:#?}"
        );
        // Remote clients of the same service are not disturbed.
        serve::http_get(&topo.client, vip)?;
        drop(servers);
        drop(topo);
        unchanged(family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// Direct routing and tunnels: the packet as it is, one hop on, and an answer in the virtual address's name.
fn unchanged(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    director.set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    director.set_sysctl("net.ipv4.ip_default_ttl", 70)?;
    director.set_sysctl("net.ipv6.conf.all.hop_limit", 70)?;
    director.set_sysctl("net.ipv6.conf.s1.hop_limit", 70)?;
    director.set_sysctl("net.ipv6.conf.lo.hop_limit", 70)?;
    let here = family.director_at(1);
    for (n, flags) in (0u16..).zip([
        "-g",
        "-i",
        "-i --tun-type gue --tun-port 6080",
        "-i --tun-type gre",
    ]) {
        let (vip, rs) = (at(family.vip(), 53 + n), at(family.raw_rs(1), 53 + n));
        // One at a time: -R knows of all kinds of tunnels.
        let table = format!("-A -u {vip} -s rr\n-a -u {vip} -r {rs} {flags}\n");
        director.cmd_stdin("ipvsadm -R", &table)?;
        let own = at(here, 7000 + n);
        let socket = director.run(|| UdpSocket::bind(own))?;
        socket.connect(vip)?;
        socket.set_read_timeout(Some(patience(3.0)))?;
        rig.drain()?;
        socket.send(b"question")?;
        let frame = rig.stap.expect("the question", 3.0, |f| {
            !f.outgoing && (f.pkt.source() == own || f.pkt.dst == rs.ip())
        })?;
        let inner = if flags == "-g" {
            frame.raw.clone()
        } else {
            ensure!(
                frame.pkt.src == here && frame.pkt.dst == rs.ip() && frame.pkt.ttl == 69,
                "{flags}: {frame:?}"
            );
            // The tunnel's own headers before it.
            let len = Pkt::udp(own, vip, b"question").bytes().len();
            frame.raw[frame.raw.len() - len..].to_vec()
        };
        let question = Pkt::parse(&inner, true)?;
        ensure!(
            question.source() == own
                && question.dest() == vip
                && question.body == b"question"
                && question.ttl == 69,
            "{flags}: {question:?}"
        );
        let conn = proc::conn(director, own)?.context("no connection")?;
        ensure!(conn.vip == vip && conn.dest == rs, "{flags}: {conn:?}");
        rig.stap.send(&Pkt::udp(vip, own, b"answer"))?;
        let mut buf = [0; 100];
        let len = socket.recv(&mut buf).context("the answer")?;
        ensure!(buf[..len] == *b"answer", "{flags}: {:?}", &buf[..len]);
    }
    Ok(())
}
