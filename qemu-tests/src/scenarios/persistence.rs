// SPDX-License-Identifier: GPL-2.0-or-later

//! Persistent services: a client's network keeps its server, by templates of every kind; what ends
//! a template, and how long it lives.
//!
//! Proves checklist items 22 (templates; there are no persistence engines yet), 43 (persistent), 62 (persistent connections; the
//! others: `tcp_states`, `stats`, `sctp`), 68 (deferral; the states' timeouts: `tcp_states`, `udp_timeout`, `sctp`; a connection
//! without state: `schedule_icmp`), 69, 70, 71 and 86 (assurance).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, FIN, SYN, TCP, UDP};
use crate::proc::{self, Conn};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{pass, slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "persistence",
    "clients keep their servers, by templates",
    &[22, 43, 62, 68, 69, 70, 71],
    run,
)
.partly(&[86])
.timeout(90.0);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        let test = |what: &str, f: fn(&Test) -> Result<()>| {
            let rig = Rig::new()?;
            f(&Test { rig, family }).with_context(|| format!("{what}, {family:?}"))
        };
        test("networks", networks)?;
        test("ends of templates", ends)?;
        test("port 0", port_zero)?;
        test("marks", marks)?;
        test("ftp", ftp)?;
        test("lifetime", lifetime)?;
        // It waits for a job that goes through the table once in half a minute: once where all takes long.
        if family == Family::V4 || slow() <= 1.0 {
            test("controlled", controlled)?;
        }
    }
    Ok(())
}

struct Test {
    rig: Rig,
    family: Family,
}

impl Test {
    fn vip(&self, port: u16) -> SocketAddr {
        at(self.family.vip(), port)
    }

    fn rs(&self, host: u8, port: u16) -> SocketAddr {
        at(self.family.raw_rs(host), port)
    }

    fn client(&self, host: u16, port: u16) -> SocketAddr {
        at(self.family.raw_client(host), port)
    }

    /// A SYN from a client; where it went.
    fn syn(&self, from: SocketAddr, to: SocketAddr) -> Result<SocketAddr> {
        Ok(self.rig.forwarded(&Pkt::tcp(from, to, SYN))?.dest())
    }

    /// A SYN from a client that goes nowhere.
    fn refused(&self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let io = self
            .rig
            .exchange(Side::Client, &[Pkt::tcp(from, to, SYN)])?;
        ensure!(io.server.is_empty(), "{io:#?}");
        Ok(())
    }

    fn rows(&self) -> Result<Vec<Conn>> {
        proc::conns(&self.rig.topo.director)
    }

    /// The templates, in no particular order.
    fn templates(&self) -> Result<Vec<Conn>> {
        let mut rows = self.rows()?;
        rows.retain(|c| matches!(c.state.as_str(), "NONE" | "ASSURED"));
        Ok(rows)
    }

    /// The only template.
    fn template(&self) -> Result<Conn> {
        let all = self.templates()?;
        ensure!(all.len() == 1, "{all:#?}");
        Ok(all[0].clone())
    }
}

fn networks(t: &Test) -> Result<()> {
    let vip = t.vip(80);
    let ipvs = Ipvs::open(&t.rig.topo.director)?;
    // raw_client() counts in the last two bytes: 24 bits, or the first 112, are the same for 0..=255.
    let mask = if t.family == Family::V4 {
        "255.255.255.0"
    } else {
        "120"
    };
    t.rig
        .ipvsadm(&format!("-A -t {vip} -s rr -p 100 -M {mask}"))?;
    t.rig
        .ipvsadm(&format!("-a -t {vip} -r {} -m", t.rs(1, 8080)))?;
    t.rig
        .ipvsadm(&format!("-a -t {vip} -r {} -m", t.rs(2, 8080)))?;
    let (one, two) = (t.rs(1, 8080), t.rs(2, 8080));
    for host in 1..5 {
        let to = t.syn(t.client(host, 4000), vip)?;
        ensure!(to == two, "client {host} went to {to}");
    }
    for host in 257..260 {
        let to = t.syn(t.client(host, 4000), vip)?;
        ensure!(to == one, "client {host} went to {to}");
    }
    ensure!(t.syn(t.client(77, 4001), vip)? == two, "another client");

    let templates = t.templates()?;
    ensure!(templates.len() == 2, "{templates:#?}");
    for row in &templates {
        ensure!(
            row.proto == "TCP"
                && row.vip == vip
                && row.client.port() == 0
                && row.dest.port() == 8080
                && row.state == "NONE"
                && f64::from(100 - row.expires.min(100)) <= 5.0 * slow(),
            "{row:?}"
        );
    }
    let net = |n: u16| at(t.family.raw_client(n), 0).ip();
    ensure!(
        templates
            .iter()
            .any(|r| r.dest == two && r.client.ip() == net(0))
            && templates
                .iter()
                .any(|r| r.dest == one && r.client.ip() == net(256)),
        "{templates:#?}"
    );
    for (rs, conns) in [(two, 5), (one, 3)] {
        let dest = ipvs.dest(TCP, vip, rs)?;
        ensure!(
            (dest.persist, dest.active + dest.inact) == (1, conns),
            "{dest:?}"
        );
    }
    // A connection that gets through assures its template.
    let (client, net0) = (t.client(1, 4000), net(0));
    t.rig.returned(&Pkt::tcp(two, client, SYN | ACK))?;
    t.rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
    for row in t.templates()? {
        let want = if row.client.ip() == net0 {
            "ASSURED"
        } else {
            "NONE"
        };
        ensure!(row.state == want, "{row:?}");
    }
    // Each new connection starts the template's time over.
    pass(2.2);
    ensure!(
        t.templates()?.iter().all(|r| r.expires <= 98),
        "{:#?}",
        t.templates()?
    );
    t.syn(t.client(3, 5000), vip)?;
    for row in t.templates()? {
        let young = f64::from(100 - row.expires.min(100)) <= slow();
        ensure!(
            young || row.client.ip() != net0,
            "{row:?} was not refreshed"
        );
    }
    Ok(())
}

fn ends(t: &Test) -> Result<()> {
    let vip = t.vip(80);
    t.rig.ipvsadm(&format!("-A -t {vip} -s rr -p 100"))?;
    let (one, two) = (t.rs(1, 80), t.rs(2, 80));
    t.rig.ipvsadm(&format!("-a -t {vip} -r {one} -m"))?;
    ensure!(t.syn(t.client(1, 4000), vip)? == one, "the only server");
    t.rig.ipvsadm(&format!("-a -t {vip} -r {two} -m"))?;

    // Weight 0 alone keeps those who have a template.
    t.rig.ipvsadm(&format!("-e -t {vip} -r {one} -m -w 0"))?;
    ensure!(t.syn(t.client(1, 4001), vip)? == one, "a quiescent server");
    ensure!(t.syn(t.client(2, 4000), vip)? == two, "a new client");
    // With the sysctl it ends the template: port ffff, and a new one beside it.
    t.rig
        .topo
        .director
        .set_sysctl("net.ipv4.vs.expire_quiescent_template", 1)?;
    ensure!(t.syn(t.client(1, 4002), vip)? == two, "expired by weight 0");
    let rows = t.templates()?;
    let of = |host: u16| -> Vec<SocketAddr> {
        let ip = t.family.raw_client(host);
        let mut dests: Vec<_> = rows
            .iter()
            .filter(|r| r.client.ip() == ip)
            .map(|r| r.dest)
            .collect();
        dests.sort();
        dests
    };
    ensure!(
        of(1) == [at(one.ip(), 0xffff), two] && of(2) == [two],
        "{rows:#?}"
    );
    // The old connections stay where they are.
    let old = Pkt::tcp(t.client(1, 4001), vip, ACK);
    ensure!(t.rig.forwarded(&old)?.dest() == one, "an old connection");

    // A deleted server ends its templates, too.
    t.rig.ipvsadm(&format!("-e -t {vip} -r {one} -m -w 1"))?;
    t.rig.ipvsadm(&format!("-d -t {vip} -r {two}"))?;
    ensure!(t.syn(t.client(2, 4003), vip)? == one, "expired by deletion");
    // And without any server the client is refused.
    t.rig.ipvsadm(&format!("-d -t {vip} -r {one}"))?;
    t.refused(t.client(2, 4004), vip)?;
    t.refused(t.client(3, 4004), vip)
}

fn port_zero(t: &Test) -> Result<()> {
    let zero = t.vip(0);
    t.rig.ipvsadm(&format!("-A -t {zero} -s rr -p 100"))?;
    for host in [1, 2] {
        t.rig
            .ipvsadm(&format!("-a -t {zero} -r {} -m", t.rs(host, 0)))?;
    }
    for port in [80, 443, 8080] {
        let to = t.syn(t.client(1, 4000), t.vip(port))?;
        ensure!(to == t.rs(2, port), "port {port} went to {to}");
        let to = t.syn(t.client(2, 4000), t.vip(port))?;
        ensure!(to == t.rs(1, port), "port {port} went to {to}");
    }
    let rows = t.templates()?;
    ensure!(
        rows.len() == 2
            && rows
                .iter()
                .all(|r| r.vip == zero && r.dest.port() == 0 && r.client.port() == 0),
        "{rows:#?}"
    );
    Ok(())
}

fn marks(t: &Test) -> Result<()> {
    let six = if t.family == Family::V6 { " -6" } else { "" };
    for line in [
        "nft add table inet t",
        "nft add chain inet t pre { type filter hook prerouting priority -150 ; }",
        "nft add rule inet t pre meta l4proto { tcp, udp } th dport 80-99 meta mark set 10",
    ] {
        t.rig.topo.director.cmd(line)?;
    }
    t.rig.ipvsadm(&format!("-A -f 10{six} -s rr -p 100"))?;
    let name = |host| match t.rs(host, 0) {
        SocketAddr::V4(a) => a.to_string(),
        SocketAddr::V6(a) => format!("[{}]:0", a.ip()),
    };
    for host in [1, 2] {
        t.rig
            .ipvsadm(&format!("-a -f 10{six} -r {} -m", name(host)))?;
    }
    // Ports and protocols of one mark are one service.
    ensure!(t.syn(t.client(1, 4000), t.vip(80))? == t.rs(2, 80), "80");
    ensure!(t.syn(t.client(1, 4000), t.vip(99))? == t.rs(2, 99), "99");
    let udp = Pkt::udp(t.client(1, 4000), t.vip(80), b"x");
    ensure!(t.rig.forwarded(&udp)?.dest() == t.rs(2, 80), "udp");
    ensure!(t.syn(t.client(2, 4000), t.vip(80))? == t.rs(1, 80), "2");
    let text = t.rig.topo.director.read("/proc/net/ip_vs_conn")?;
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("IP ")).collect();
    let vip = if t.family == Family::V4 {
        "0000000A 0000".to_owned()
    } else {
        "0000:000a:0000:0000:0000:0000:0000:0000 0000".to_owned()
    };
    ensure!(
        rows.len() == 2 && rows.iter().all(|r| r.contains(&vip)),
        "{text}"
    );
    // A UDP answer assures the template.
    t.rig
        .returned(&Pkt::udp(t.rs(2, 80), t.client(1, 4000), b"y"))?;
    let assured = t
        .templates()?
        .iter()
        .filter(|r| r.state == "ASSURED")
        .count();
    ensure!(assured == 1, "{:#?}", t.templates()?);
    Ok(())
}

fn ftp(t: &Test) -> Result<()> {
    let vip = t.vip(21);
    t.rig.ipvsadm(&format!("-A -t {vip} -s rr -p 100"))?;
    for host in [1, 2] {
        t.rig
            .ipvsadm(&format!("-a -t {vip} -r {} -m", t.rs(host, 21)))?;
    }
    ensure!(t.syn(t.client(1, 4000), vip)? == t.rs(2, 21), "control");
    ensure!(t.syn(t.client(2, 4000), vip)? == t.rs(1, 21), "control");
    // The template is for all ports, so that passive data connections follow.
    let rows = t.templates()?;
    ensure!(
        rows.iter().all(|r| r.vip.port() == 0 && r.dest.port() == 0),
        "{rows:#?}"
    );
    ensure!(
        t.syn(t.client(1, 4001), t.vip(30000))? == t.rs(2, 30000),
        "data"
    );
    ensure!(
        t.syn(t.client(2, 4001), t.vip(30000))? == t.rs(1, 30000),
        "data"
    );
    Ok(())
}

fn lifetime(t: &Test) -> Result<()> {
    for (port, seconds) in [(53, 1), (54, 3)] {
        let vip = t.vip(port);
        t.rig.ipvsadm(&format!("-A -u {vip} -s rr -p {seconds}"))?;
        t.rig
            .ipvsadm(&format!("-a -u {vip} -r {} -m", t.rs(1, 53)))?;
    }
    let send = |host, port| -> Result<()> {
        let pkt = Pkt::udp(t.client(host, 4000), t.vip(port), b"x");
        t.rig.forwarded(&pkt).map(drop)
    };
    // A template outlives its time as long as it has connections: by a minute at a time.
    send(1, 53)?;
    until_true("the template is put off", 8.0, || {
        Ok(t.template()?.expires > 50)
    })?;
    // Without connections it goes when its time has come.
    t.rig.ipvsadm("--set 0 0 1")?;
    send(2, 54)?;
    ensure!(t.templates()?.len() == 2, "{:#?}", t.templates()?);
    let ipvs = Ipvs::open(&t.rig.topo.director)?;
    let counts = || -> Result<(u32, u32, u32)> {
        let dest = ipvs.dest(UDP, t.vip(54), t.rs(1, 53))?;
        Ok((dest.persist, dest.active, dest.inact))
    };
    ensure!(counts()? == (1, 0, 1), "{:?}", counts()?);
    until_true("the template goes", 12.0, || Ok(t.templates()?.len() == 1))?;
    ensure!(t.template()?.vip == t.vip(53), "{:#?}", t.template()?);
    ensure!(counts()? == (0, 0, 0), "{:?}", counts()?);
    Ok(())
}

/// A connection that is dropped takes its template with it, if it was the last one and the template is not assured.
fn controlled(t: &Test) -> Result<()> {
    const EACH: u16 = 80;
    let vip = t.vip(80);
    let (director, rs) = (&t.rig.topo.director, t.rs(1, 80));
    t.rig.ipvsadm(&format!("-A -t {vip} -s rr -p 1000"))?;
    t.rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    t.rig.ipvsadm("--set 0 1 0")?;
    let fresh: Vec<u16> = (0..EACH).collect();
    let assured: Vec<u16> = (1000..1000 + EACH).collect();
    let there = |hosts: &[u16], port: u16, flags: u8| -> Result<()> {
        let pkt = |host: &u16| Pkt::tcp(t.client(*host, port), vip, flags);
        let pkts: Vec<Pkt> = hosts.iter().map(pkt).collect();
        let io = t.rig.exchange(Side::Client, &pkts)?;
        ensure!(io.server.len() == pkts.len(), "packets were lost");
        Ok(())
    };
    // These have been through a whole connection, which has ended.
    there(&assured, 4000, SYN)?;
    for host in &assured {
        let client = t.client(*host, 4000);
        t.rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    }
    there(&assured, 4000, ACK)?;
    for host in &assured {
        let client = t.client(*host, 4000);
        t.rig.returned(&Pkt::tcp(rs, client, FIN | ACK))?;
    }
    until_true("the connections end", 10.0, || {
        Ok(t.rows()?.len() == usize::from(EACH))
    })?;
    there(&assured, 5000, SYN)?;
    there(&fresh, 5000, SYN)?;
    let hosts = |state: &str| -> Result<BTreeSet<IpAddr>> {
        let rows = t.rows()?;
        let rows = rows.iter().filter(|row| row.state == state);
        Ok(rows.map(|row| row.client.ip()).collect())
    };
    let of = |hosts: &[u16]| -> BTreeSet<IpAddr> {
        hosts.iter().map(|h| t.client(*h, 0).ip()).collect()
    };
    let (fresh, assured) = (of(&fresh), of(&assured));
    until_true("all is listed", 5.0, || {
        Ok(hosts("NONE")? == fresh && hosts("ASSURED")? == assured)
    })?;
    // Half-open connections are dropped, here and there.
    director.set_sysctl("net.ipv4.vs.drop_entry", 3)?;
    until_true("some of both are dropped", 20.0, || {
        let left = hosts("SYN_RECV")?;
        let gone = |of: &BTreeSet<IpAddr>| of.difference(&left).count() >= 5;
        Ok(gone(&fresh) && gone(&assured))
    })?;
    director.set_sysctl("net.ipv4.vs.drop_entry", 0)?;
    until_true("templates follow their connections", 5.0, || {
        let left = hosts("SYN_RECV")?;
        let want: BTreeSet<IpAddr> = fresh.intersection(&left).copied().collect();
        Ok(hosts("NONE")? == want && hosts("ASSURED")? == assured)
    })?;
    let left = hosts("SYN_RECV")?.len();
    ensure!(left > 0, "all were dropped");
    println!("{left} of {} connections are left", 2 * EACH);
    Ok(())
}
