// SPDX-License-Identifier: GPL-2.0-or-later

//! FTP by NAT, packet by packet: what is taken for a command or a reply and what is not, numbers that are too large, texts in two
//! packets, the numbers of packets behind a changed one, packets that are dropped; whose first packet a waiting data connection takes.
//!
//! Proves checklist items 73, 124 and 125.

use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Context, Result};
use rvs_core::uapi::ext::group;

use crate::ext::{event, Listener};
use crate::pkt::{Pkt, ACK, FIN, PSH, RST, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "ftp_packets",
    "what FTP's helper reads and writes, and its limits",
    &[73, 124, 125],
    run,
);

fn run(cx: &Cx) -> Result<()> {
    cx.modules.load_ftp(&[])?;
    controls().context("control")?;
    for family in Family::BOTH {
        replies(family).with_context(|| format!("replies, {family:?}"))?;
        ports(family, cx.peer).with_context(|| format!("ports, {family:?}"))?;
        first(family).with_context(|| format!("first packets, {family:?}"))?;
        lost(family).with_context(|| format!("lost packets, {family:?}"))?;
        if cx.peer == Peer::Rvs {
            announced(family).with_context(|| format!("events, {family:?}"))?;
        }
    }
    Ok(())
}

/// A control connection between two that are not there.
struct Talk<'a> {
    rig: &'a Rig,
    client: SocketAddr,
    vip: SocketAddr,
    rs: SocketAddr,
    /// The next numbers of either, each as it is at its end.
    cseq: u32,
    sseq: u32,
    /// By how much the client sees the server's numbers higher.
    shift: u32,
}

impl<'a> Talk<'a> {
    fn begin(rig: &'a Rig, family: Family, host: u16) -> Result<Self> {
        let mut talk = Self {
            rig,
            client: at(family.raw_client(host), 4000),
            vip: at(family.vip(), 21),
            rs: at(family.raw_rs(1), 21),
            cseq: 0x1000,
            sseq: 0x5000,
            shift: 0,
        };
        talk.rig.forwarded(&talk.request(SYN, b""))?;
        talk.cseq += 1;
        talk.rig.returned(&talk.reply(SYN | ACK, b""))?;
        talk.sseq += 1;
        talk.rig.forwarded(&talk.request(ACK, b""))?;
        Ok(talk)
    }

    fn request(&self, flags: u8, body: &[u8]) -> Pkt {
        Pkt::tcp(self.client, self.vip, flags).with(|p| {
            p.seq = self.cseq;
            p.ack = if flags & ACK == 0 {
                0
            } else {
                self.sseq.wrapping_add(self.shift)
            };
            p.body = body.to_vec();
        })
    }

    fn reply(&self, flags: u8, body: &[u8]) -> Pkt {
        Pkt::tcp(self.rs, self.client, flags).with(|p| {
            p.seq = self.sseq;
            p.ack = self.cseq;
            p.body = body.to_vec();
        })
    }

    /// The client says something, which arrives as it is.
    fn says(&mut self, text: &str) -> Result<()> {
        let pkt = self
            .rig
            .forwarded(&self.request(PSH | ACK, text.as_bytes()))?;
        self.cseq += text.len() as u32;
        ensure!(
            pkt.csum_ok
                && pkt.body == text.as_bytes()
                && pkt.ack == self.sseq
                && pkt.dest() == self.rs,
            "{text:?}: {pkt:?}, the server is at {}",
            self.sseq
        );
        Ok(())
    }

    /// The server says something, and this arrives.
    fn hears(&mut self, text: &str, want: &str) -> Result<()> {
        let pkt = self.rig.returned(&self.reply(PSH | ACK, text.as_bytes()))?;
        let came = String::from_utf8_lossy(&pkt.body).into_owned();
        ensure!(came == want, "{text:?} became {came:?}, not {want:?}");
        ensure!(
            pkt.csum_ok
                && pkt.source() == self.vip
                && pkt.seq == self.sseq.wrapping_add(self.shift),
            "{text:?}: {pkt:?}, the server is at {} + {}",
            self.sseq,
            self.shift
        );
        self.sseq += text.len() as u32;
        self.shift = self
            .shift
            .wrapping_add(want.len() as u32)
            .wrapping_sub(text.len() as u32);
        // What the client has got it acknowledges in its own numbers.
        let ack = self.rig.forwarded(&self.request(ACK, b""))?;
        ensure!(
            ack.ack == self.sseq && ack.csum_ok,
            "{ack:?}, the server is at {}",
            self.sseq
        );
        Ok(())
    }

    /// Whether there is a connection that waits at this port of the service, or of the client.
    fn waits(&self, port: u16) -> Result<bool> {
        let rows = proc::conns(&self.rig.topo.director)?;
        Ok(rows.iter().any(|c| {
            let passive = c.vip.port() == port && c.client.port() == 0;
            c.state == "LISTEN" && (passive || c.client.port() == port)
        }))
    }
}

fn network(family: Family) -> Result<Rig> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 21), at(family.raw_rs(1), 21));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    Ok(rig)
}

fn commas(ip: IpAddr, port: u16) -> String {
    format!(
        "{},{},{}",
        ip.to_string().replace('.', ","),
        port >> 8,
        port & 255
    )
}

/// Commands and replies that are some, and others.
fn replies(family: Family) -> Result<()> {
    let rig = network(family)?;
    let mut talk = Talk::begin(&rig, family, 1)?;
    let (vip, rs) = (talk.vip.ip(), talk.rs.ip());
    let mut number = 3000;
    let mut next = || {
        number += 1;
        number
    };
    if family == Family::V4 {
        let there = |port| format!("227 Entering Passive Mode ({}).\r\n", commas(rs, port));
        let here = |port| format!("227 Entering Passive Mode ({}).\r\n", commas(vip, port));
        // Nobody has asked.
        let port = next();
        talk.hears(&there(port), &there(port))?;
        ensure!(!talk.waits(port)?, "{port}");
        for command in ["PASV\r\n", "pasv\r\n", "NOOP\r\nPASV\r\nNOOP\r\n"] {
            let port = next();
            talk.says(command)?;
            talk.hears(&there(port), &here(port))?;
            ensure!(talk.waits(port)?, "{command:?}: nobody waits");
            // Once asked is once answered.
            let other = next();
            talk.hears(&there(other), &there(other))?;
        }
        for command in [
            "PASV\n",
            "PASV \r\n",
            "PAS",
            "V\r\n",
            "EPSV 2\r\n",
            "EPSV ALL\r\n",
        ] {
            talk.says(command)?;
        }
        talk.hears(&there(4000), &there(4000))?;
        talk.hears("229 ok (|||4000|)\r\n", "229 ok (|||4000|)\r\n")?;
        // Asked, but not answered like this.
        talk.says("PASV\r\n")?;
        let c = commas(rs, 4001);
        for text in [
            format!("x227 ({c})\r\n"),
            format!("227-({c})\r\n"),
            format!("150 ok\r\n227 ({c})\r\n"),
            "227 nothing\r\n".to_owned(),
            "227 (10,8,1,1,16,256)\r\n".to_owned(),
            "227 (10,8,1,256,16,1)\r\n".to_owned(),
            "227 (10,8,1,1,16)\r\n".to_owned(),
            format!("227 ({c}"),
            "229 (|||4001|)\r\n".to_owned(),
            // In two packets.
            "227 Entering Passive Mode (10,8,".to_owned(),
            "1,1,15,161).\r\n".to_owned(),
        ] {
            talk.hears(&text, &text)?;
        }
        ensure!(!talk.waits(4001)?, "somebody waits");
        // It still waits for the right one.
        talk.hears(
            &format!("227 {c}\r\n"),
            &format!("227 {}\r\n", commas(vip, 4001)),
        )?;
        // A server that is elsewhere.
        talk.says("PASV\r\n")?;
        talk.hears(
            &format!("227 ({})\r\n", commas(family.raw_rs(9), 4002)),
            &format!("227 ({})\r\n", commas(vip, 4002)),
        )?;
        let row = proc::conns(&rig.topo.director)?;
        ensure!(
            row.iter()
                .any(|c| c.vip.port() == 4002 && c.dest == at(family.raw_rs(9), 4002)),
            "{row:#?}"
        );
        // The later one counts.
        talk.says("EPSV\r\n")?;
        talk.says("PASV\r\n")?;
        talk.hears("229 (|||4003|)\r\n", "229 (|||4003|)\r\n")?;
        talk.hears(&there(4003), &here(4003))?;
    }
    let number = if family == Family::V4 { 1 } else { 2 };
    for command in ["EPSV\r\n".to_owned(), format!("epsv {number}\r\n")] {
        let port = next();
        talk.says(&command)?;
        talk.hears(
            &format!("229 ok (|||{port}|)\r\n"),
            &format!("229 ok (|||{port}|)\r\n"),
        )?;
        ensure!(talk.waits(port)?, "{command:?}: nobody waits");
    }
    talk.says("EPSV\r\n")?;
    for text in [
        "229 (|||65536|)\r\n",
        "229 (|||0|)\r\n",
        "229 (||4004|)\r\n",
        "229 |||4004|\r\n",
        "229 (|||",
        "4004|)\r\n",
        "229 (|||4004",
    ] {
        talk.hears(text, text)?;
    }
    ensure!(!talk.waits(4004)?, "somebody waits");
    talk.hears(
        "229 ok (~~~4005~) and more\r\n",
        "229 ok (|||4005|) and more\r\n",
    )?;
    talk.says("EPSV\r\n")?;
    // With its address, which the client is not told.
    talk.hears(
        &format!("229 ok (|{number}|{rs}|4006|)\r\n"),
        "229 ok (|||4006|)\r\n",
    )?;
    ensure!(talk.waits(4006)?, "nobody waits");
    // A client that ends says no more.
    talk.says("EPSV\r\n")?;
    rig.forwarded(&talk.request(FIN | ACK, b""))?;
    talk.cseq += 1;
    let text = format!("229 ok (|{number}|{rs}|4007|)\r\n");
    talk.hears(&text, &text)
}

/// Where a client waits.
fn ports(family: Family, peer: Peer) -> Result<()> {
    let rig = network(family)?;
    let mut talk = Talk::begin(&rig, family, 1)?;
    let me = talk.client.ip();
    let mut good = Vec::new();
    let mut bad = Vec::new();
    if family == Family::V4 {
        good.push((format!("PORT {}\r\n", commas(me, 5001)), 5001));
        good.push((format!("port  {}\r\n", commas(me, 5002)), 5002));
        good.push((format!("EPRT |1|{me}|5003|\r\n"), 5003));
        good.push((format!("eprt !1!{me}!5004!\r\n"), 5004));
        good.push((format!("EPRT |1|{me}|65535|\r\n"), 65535));
        bad.push("PORT 10,9,0,1,300,1\r\n".to_owned());
        bad.push("PORT 10,9,0,1,23\r\n".to_owned());
        bad.push(format!("PORT {}", commas(me, 6000)));
        bad.push(format!("x PORT {}\r\n", commas(me, 6000)));
        bad.push(format!("EPRT |2|{me}|6000|\r\n"));
        bad.push("EPRT |1|10.9.0.256|6000|\r\n".to_owned());
        bad.push(format!("EPRT |1|{me}|6000!\r\n"));
    } else {
        good.push((format!("EPRT |2|{me}|5003|\r\n"), 5003));
        good.push((format!("eprt *2*{me}*5004*\r\n"), 5004));
        bad.push("PORT 10,9,0,1,23,112\r\n".to_owned());
        bad.push(format!("EPRT |1|{me}|6000|\r\n"));
        bad.push("EPRT |2|10.9.0.1|6000|\r\n".to_owned());
        bad.push("EPRT |2|fd09::1::|6000|\r\n".to_owned());
    }
    for text in ["EPRT |1|", "EPRT", "EPRT |||6000|\r\n", "PORT"] {
        bad.push(text.to_owned());
    }
    let number = if family == Family::V4 { 1 } else { 2 };
    bad.push(format!("EPRT |{number}|{me}|65536|\r\n"));
    bad.push(format!("EPRT |{number}|{me}|0|\r\n"));
    bad.push(format!("EPRT |{number}|{me}|6000"));
    let rows = || -> Result<usize> { Ok(proc::conns(&rig.topo.director)?.len()) };
    for text in &bad {
        talk.says(text)?;
        ensure!(
            rows()? == 1,
            "{text:?}: {:#?}",
            proc::conns(&rig.topo.director)?
        );
    }
    for (n, (text, port)) in good.iter().enumerate() {
        talk.says(text)?;
        let row = proc::conn(&rig.topo.director, at(me, *port))?.with_context(|| text.clone())?;
        ensure!(
            rows()? == n + 2
                && row.state == "LISTEN"
                && row.vip == at(talk.vip.ip(), 20)
                && row.dest == at(talk.rs.ip(), 20),
            "{text:?}: {row:?}"
        );
        // Said again it is the same.
        talk.says(text)?;
        ensure!(rows()? == n + 2, "{text:?}");
        // The server comes as the service.
        let syn = Pkt::tcp(at(talk.rs.ip(), 20), at(me, *port), SYN).with(|p| p.ack = 0);
        let came = rig.returned(&syn)?;
        ensure!(came.source() == at(talk.vip.ip(), 20), "{came:?}");
        let answer =
            Pkt::tcp(at(me, *port), at(talk.vip.ip(), 20), SYN | ACK).with(|p| p.ack = syn.seq + 1);
        let there = rig.forwarded(&answer)?;
        ensure!(there.dest() == at(talk.rs.ip(), 20), "{there:?}");
        let row = proc::conn(&rig.topo.director, at(me, *port))?.context("gone")?;
        ensure!(row.state != "LISTEN", "{row:?}");
    }
    if family == Family::V4 {
        // Port 0 passes for one that is not known, and C does not find it again.
        let before = rows()?;
        for _ in 0..3 {
            talk.says(&format!("PORT {}\r\n", commas(me, 0)))?;
        }
        let more = rows()? - before;
        ensure!(more == if peer == Peer::C { 3 } else { 1 }, "{more} more");
    }
    Ok(())
}

/// The first packet of the client that was told decides which port it is.
fn first(family: Family) -> Result<()> {
    let rig = network(family)?;
    let mut talk = Talk::begin(&rig, family, 1)?;
    let (me, vip, rs) = (talk.client.ip(), talk.vip.ip(), talk.rs.ip());
    let ns = &rig.topo.director;
    for port in [3001, 3002, 3003] {
        talk.says("EPSV\r\n")?;
        let text = format!("229 ok (|||{port}|)\r\n");
        talk.hears(&text, &text)?;
        // Another client's is none of it, nor is another port.
        for pkt in [
            Pkt::tcp(at(family.raw_client(2), 4001), at(vip, port), SYN),
            Pkt::tcp(at(me, 4001), at(vip, port + 100), SYN),
        ] {
            let back = rig.answered(&pkt)?;
            ensure!(back.flags & RST != 0, "{back:?}");
        }
        ensure!(talk.waits(port)?, "nobody waits");
        // An ACK would do, too.
        let flags = if port == 3003 { ACK } else { SYN };
        let data = Pkt::tcp(at(me, 4001), at(vip, port), flags);
        let there = rig.forwarded(&data)?;
        ensure!(
            there.dest() == at(rs, port) && there.source() == at(me, 4001) && there.csum_ok,
            "{there:?}"
        );
        ensure!(!talk.waits(port)?, "it waits");
        let rows = proc::conns(ns)?;
        let ours: Vec<_> = rows.iter().filter(|c| c.vip.port() == port).collect();
        ensure!(
            ours.len() == 1 && ours[0].client == at(me, 4001) && ours[0].dest == at(rs, port),
            "{rows:#?}"
        );
        // The same again, its answer; and a second one finds nobody.
        rig.forwarded(&data)?;
        let back = rig.returned(&Pkt::tcp(at(rs, port), at(me, 4001), SYN | ACK))?;
        ensure!(back.source() == at(vip, port), "{back:?}");
        let late = rig.answered(&Pkt::tcp(at(me, 4002), at(vip, port), SYN))?;
        ensure!(late.flags & RST != 0, "{late:?}");
    }
    Ok(())
}

/// A control connection does not end before its data connections.
fn controls() -> Result<()> {
    let rig = network(Family::V4)?;
    let ns = &rig.topo.director;
    let mut talk = Talk::begin(&rig, Family::V4, 1)?;
    let mut other = Talk::begin(&rig, Family::V4, 2)?;
    talk.says("EPSV\r\n")?;
    talk.hears("229 (|||3001|)\r\n", "229 (|||3001|)\r\n")?;
    rig.ipvsadm("--set 0 1 0")?;
    for talk in [&mut talk, &mut other] {
        rig.returned(&talk.reply(FIN | ACK, b""))?;
    }
    until_true("the other one ends", 8.0, || {
        Ok(proc::conn(ns, other.client)?.is_none())
    })?;
    until_true("it is put off", 8.0, || {
        Ok(proc::conn(ns, talk.client)?.is_some_and(|c| c.expires > 40))
    })?;
    ensure!(talk.waits(3001)?, "nobody waits");
    let data = Pkt::tcp(at(talk.client.ip(), 4001), at(talk.vip.ip(), 3001), SYN);
    ensure!(
        rig.forwarded(&data)?.dest() == at(talk.rs.ip(), 3001),
        "data"
    );
    Ok(())
}

/// Those who listen see the connection with the port take the place of the one that waited.
fn announced(family: Family) -> Result<()> {
    let rig = network(family)?;
    let mut talk = Talk::begin(&rig, family, 1)?;
    talk.says("EPSV\r\n")?;
    talk.hears("229 (|||3001|)\r\n", "229 (|||3001|)\r\n")?;
    let listener = Listener::new(&rig.topo.director, group::CONNS)?;
    let client = at(talk.client.ip(), 4001);
    rig.forwarded(&Pkt::tcp(client, at(talk.vip.ip(), 3001), SYN))?;
    let events = listener.exactly(3)?;
    for (event, kind, port) in [
        (&events[0], event::NEW, 4001),
        (&events[1], event::DELETED, 0),
        (&events[2], event::CHANGED, 4001),
    ] {
        let conn = event.conn()?;
        ensure!(
            event.kind == kind && conn.client == at(client.ip(), port),
            "{events:?}"
        );
    }
    Ok(())
}

/// Packets that are not let through.
fn lost(family: Family) -> Result<()> {
    let rig = network(family)?;
    let ns = &rig.topo.director;
    let mut talk = Talk::begin(&rig, family, 1)?;
    // What cannot be trusted.
    let wrong = |pkt: Pkt| pkt.with(|p| p.csum = Some(0x1234));
    rig.dropped(Side::Client, &wrong(talk.request(PSH | ACK, b"NOOP\r\n")))?;
    rig.dropped(Side::Server, &wrong(talk.reply(PSH | ACK, b"200 ok\r\n")))?;
    talk.says("NOOP\r\n")?;
    talk.hears("200 ok\r\n", "200 ok\r\n")?;

    // No more connections.
    let number = if family == Family::V4 { 1 } else { 2 };
    let text = "229 ok (|||3001|)\r\n";
    talk.says("EPSV\r\n")?;
    ns.set_sysctl("net.ipv4.vs.conn_max", 1)?;
    rig.dropped(Side::Server, &talk.reply(PSH | ACK, text.as_bytes()))?;
    let eprt = format!("EPRT |{number}|{}|5001|\r\n", talk.client.ip());
    rig.dropped(Side::Client, &talk.request(PSH | ACK, eprt.as_bytes()))?;
    ensure!(proc::conns(ns)?.len() == 1, "{:#?}", proc::conns(ns)?);
    ns.set_sysctl("net.ipv4.vs.conn_max", 1000)?;
    talk.says(&eprt)?;
    talk.says("EPSV\r\n")?;
    talk.hears(text, text)?;
    ensure!(talk.waits(3001)? && talk.waits(5001)?, "nobody waits");

    // What netfilter does not know it cannot put right: it is dropped once.
    talk.says("EPSV\r\n")?;
    ns.cmd("nft add table inet t")?;
    ns.cmd("nft add chain inet t raw { type filter hook prerouting priority -300 ; }")?;
    ns.cmd("nft add rule inet t raw tcp sport 21 notrack")?;
    let text = "229 ok (~~~3002~)\r\n";
    rig.dropped(Side::Server, &talk.reply(PSH | ACK, text.as_bytes()))?;
    ensure!(talk.waits(3002)?, "nobody waits");
    ns.cmd("nft delete table inet t")?;
    talk.hears(text, text)
}
