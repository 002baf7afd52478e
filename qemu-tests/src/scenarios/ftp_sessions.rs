// SPDX-License-Identifier: GPL-2.0-or-later

//! FTP by NAT: sessions of real clients and servers, whose data connections are opened by either side, the older way and the newer,
//! many in one session, with and without the sysctl `conntrack`; where the address that takes another's place is longer and where it is
//! shorter. While a session lives: what is shown of its connections, of those that wait, of netfilter's entries and expectations.
//!
//! Proves checklist items 73, 120 (expectations), 122, 123 and 125.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{ensure, Context, Result};

use crate::ftp::{Client, Data, Server};
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::TCP;
use crate::proc::{self, Conn};
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family, Topo};
use crate::wait::{rounds, until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "ftp_sessions",
    "FTP by NAT, passive and active, with what is shown of it",
    &[73, 120, 122, 123, 125],
    run,
)
.timeout(90.0);

fn run(cx: &Cx) -> Result<()> {
    cx.modules.load_ftp(&[])?;
    for family in Family::BOTH {
        for conntrack in [0, 1] {
            sessions(family, conntrack)
                .with_context(|| format!("{family:?}, conntrack {conntrack}"))?;
        }
        shown(family).with_context(|| format!("{family:?}"))?;
    }
    lengths().context("lengths")?;
    for family in Family::BOTH {
        related(family).with_context(|| format!("related, {family:?}"))?;
        here(family).with_context(|| format!("on the director, {family:?}"))?;
    }
    curl().context("curl")
}

/// A network with an FTP service and a server.
fn network(family: Family) -> Result<(Topo, Server, SocketAddr, SocketAddr)> {
    let topo = Topo::new(1)?;
    let (vip, rs) = (at(family.vip(), 21), at(family.rs(1), 21));
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let server = Server::new(&topo.rs[0], rs, "rs1")?;
    Ok((topo, server, vip, rs))
}

fn ways(family: Family) -> &'static [Data] {
    match family {
        Family::V4 => &[Data::Pasv, Data::Epsv, Data::Port, Data::Eprt],
        Family::V6 => &[Data::Epsv, Data::Eprt],
    }
}

fn sessions(family: Family, conntrack: u32) -> Result<()> {
    let (topo, _server, vip, _) = network(family)?;
    topo.director
        .set_sysctl("net.ipv4.vs.conntrack", conntrack)?;
    // All ways in one session, again and again: each reply is shifted by all those before it.
    let mut client = Client::login(&topo.client, vip)?;
    for round in 0..rounds(4) {
        for how in ways(family) {
            for (n, give) in [(1, false), (100_000, false), (50_000, true)] {
                let (_, server) = client
                    .transfer(*how, n, give)
                    .with_context(|| format!("{how:?}, {n} bytes, round {round}"))?;
                ensure!(server.ip() == vip.ip(), "{how:?}: {server}");
                let active = matches!(how, Data::Port | Data::Eprt);
                ensure!(!active || server.port() == 20, "{how:?}: {server}");
                client.echo(&format!("{how:?} {round} {n} {}", "x".repeat(200)))?;
            }
        }
    }
    // More than a packet.
    client.echo(&"z".repeat(20_000))?;
    client.command("QUIT", "221")?;
    // And each in one of its own.
    for how in ways(family) {
        let mut client = Client::login(&topo.client, vip)?;
        client
            .transfer(*how, 10_000, false)
            .with_context(|| format!("{how:?} first"))?;
        client.echo("and on")?;
    }
    Ok(())
}

fn row(ns: &Ns, is: impl Fn(&Conn) -> bool) -> Result<Conn> {
    let rows = proc::conns(ns)?;
    let mut ours = rows.iter().filter(|c| is(c));
    match (ours.next(), ours.next()) {
        (Some(conn), None) => Ok(conn.clone()),
        _ => anyhow::bail!("not one but others of {rows:#?}"),
    }
}

/// What is shown of a session while it lives.
fn shown(family: Family) -> Result<()> {
    let (topo, _server, vip, rs) = network(family)?;
    let ns = &topo.director;
    // Nothing but the service asks for tracking.
    let entries = || -> Result<Vec<String>> {
        let text = ns.read("/proc/net/nf_conntrack")?;
        Ok(text
            .lines()
            .filter(|l| l.contains(" tcp "))
            .map(str::to_owned)
            .collect())
    };
    let mut client = Client::login(&topo.client, vip)?;
    let here = client.here()?;
    let control = row(ns, |c| c.client == here)?;
    ensure!(
        (control.vip, control.dest, control.state.as_str()) == (vip, rs, "ESTABLISHED"),
        "{control:?}"
    );
    let tracked = entries()?;
    ensure!(
        tracked.len() == 1
            && tracked[0].contains("ESTABLISHED")
            && tracked[0].contains(&format!("sport={}", here.port())),
        "{tracked:#?}"
    );
    ensure!(
        apps(ns)? == ["TCP  21      1      ftp              "],
        "{:?}",
        apps(ns)?
    );

    for how in ways(family) {
        if matches!(how, Data::Pasv | Data::Epsv) {
            waits(&topo, &mut client, *how, (vip, rs)).with_context(|| format!("{how:?}"))?;
        } else {
            listens(&topo, &mut client, *how, (vip, rs)).with_context(|| format!("{how:?}"))?;
        }
        client.echo("it goes on")?;
    }
    client.command("QUIT", "221")?;
    drop(client);
    // Its destination has them all; as new connections count those that were scheduled.
    let ipvs = Ipvs::open(ns)?;
    let dest = ipvs.dest(TCP, vip, rs)?;
    let rows = proc::conns(ns)?.len();
    ensure!(
        (dest.active + dest.inact) as usize == rows && rows > 2 && dest.persist == 0,
        "{rows} connections: {dest:?}"
    );
    until_true("they are counted", 5.0, || Ok(proc::totals(ns)?[0] == 1))
}

/// The rows of /proc/net/ip_vs_app.
fn apps(ns: &Ns) -> Result<Vec<String>> {
    let text = ns.read("/proc/net/ip_vs_app")?;
    Ok(text.lines().skip(1).map(str::to_owned).collect())
}

/// A passive data connection: first its client's port is not known.
fn waits(
    topo: &Topo,
    client: &mut Client<'_>,
    how: Data,
    (vip, rs): (SocketAddr, SocketAddr),
) -> Result<()> {
    let ns = &topo.director;
    let here = client.here()?;
    let to = client.passive(how)?;
    ensure!(to.ip() == vip.ip(), "{to}");
    let waiting = row(ns, |c| c.vip == to)?;
    ensure!(
        waiting.client == at(here.ip(), 0)
            && waiting.dest == at(rs.ip(), to.port())
            && waiting.state == "LISTEN"
            && waiting.expires <= 120,
        "{waiting:?}"
    );
    let listing = topo.ipvsadm("-Lnc")?;
    let line = listing
        .lines()
        .find(|l| l.contains(&format!(" {to} ")))
        .with_context(|| listing.clone())?;
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(
        words[0] == "TCP"
            && words[2] == "LISTEN"
            && words[3] == at(here.ip(), 0).to_string()
            && words[4] == to.to_string()
            && words[5] == at(rs.ip(), to.port()).to_string(),
        "{line}"
    );
    // Asked again before anybody came, the server waits elsewhere, and both are there.
    let second = client.passive(how)?;
    ensure!(second != to, "{second}");
    row(ns, |c| c.vip == to)?;
    // No other client's: it has no service.
    let data = client.connect(second)?;
    let from = data.local_addr()?;
    let known = row(ns, |c| c.vip == second)?;
    ensure!(
        known.client == from
            && known.dest == at(rs.ip(), second.port())
            && known.state == "ESTABLISHED",
        "{known:?}"
    );
    let text = ns.read("/proc/net/nf_conntrack")?;
    let entry = text
        .lines()
        .find(|l| l.contains(&format!("sport={}", from.port())))
        .with_context(|| text.clone())?;
    ensure!(
        entry.contains("ESTABLISHED")
            && entry.contains(&format!("dport={} src=", second.port()))
            && !entry.contains("UNREPLIED"),
        "{entry}"
    );
    client.command("RETR 3", "150")?;
    drop(data);
    client.expect("226")?;
    Ok(())
}

/// An active data connection: it is known before the server begins it.
fn listens(
    topo: &Topo,
    client: &mut Client<'_>,
    how: Data,
    (vip, rs): (SocketAddr, SocketAddr),
) -> Result<()> {
    let listener = client.active(how)?;
    let here = listener.local_addr()?;
    let row = row(&topo.director, |c| c.client == here)?;
    ensure!(
        (row.vip, row.dest, row.state.as_str()) == (at(vip.ip(), 20), at(rs.ip(), 20), "LISTEN"),
        "{row:?}"
    );
    client.command("RETR 3", "150")?;
    let (data, peer) = listener.accept()?;
    ensure!(peer == at(vip.ip(), 20), "{peer}");
    let state = proc::conn(&topo.director, here)?
        .context("no connection")?
        .state;
    ensure!(state != "LISTEN" && state != "NONE", "{state}");
    drop(data);
    client.expect("226")?;
    Ok(())
}

/// Addresses whose texts are longer and shorter than those they take the place of.
fn lengths() -> Result<()> {
    for (vip, rs) in [
        (Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(10, 0, 1, 222)),
        (Ipv4Addr::new(10, 200, 100, 111), Ipv4Addr::new(10, 0, 1, 2)),
    ] {
        let topo = Topo::new(1)?;
        topo.director.ip(&format!("addr add {vip}/32 dev lo\n"))?;
        if rs.octets()[3] != 2 {
            topo.rs[0].ip(&format!("addr add {rs}/24 dev eth0\n"))?;
            topo.director.ip(&format!(
                "neigh add {rs} lladdr 02:00:00:00:01:02 dev s1 nud permanent\n"
            ))?;
        }
        let (vip, rs) = (at(IpAddr::V4(vip), 21), at(IpAddr::V4(rs), 21));
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let _server = Server::new(&topo.rs[0], rs, "rs1")?;
        let mut client = Client::login(&topo.client, vip)?;
        for n in 0..rounds(20) {
            let (_, server) = client
                .transfer(Data::Pasv, 1000 + n, n % 2 == 1)
                .with_context(|| format!("{vip} to {rs}, transfer {n}"))?;
            ensure!(server.ip() == vip.ip(), "{server}");
            client.echo(&format!("{n} {}", "y".repeat(100)))?;
        }
        // Several replies in flight, each behind another that was changed.
        for n in 0..20 {
            client.send("PASV")?;
            client.send(&format!("ECHO {n}"))?;
            let text = client.expect("227")?;
            let start = format!("({},", vip.ip().to_string().replace('.', ","));
            ensure!(text.contains(&start), "{text}");
            ensure!(client.expect("200")? == n.to_string(), "{n}");
        }
    }
    Ok(())
}

/// A client on the director, and a server there.
fn here(family: Family) -> Result<()> {
    let (topo, server, vip, _) = network(family)?;
    for (round, how) in (0..).zip([ways(family), ways(family)].concat()) {
        let mut client = Client::login(&topo.director, vip)?;
        client
            .transfer(how, 20_000, round % 2 == 1)
            .with_context(|| format!("a client here, {how:?}"))?;
        client.echo("and on")?;
    }
    drop(server);
    topo.ipvsadm("-C")?;
    let rs = at(family.director_at(1), 21);
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let server = Server::new(&topo.director, rs, "here")?;
    for how in ways(family) {
        let mut client = Client::login(&topo.client, vip)?;
        client
            .transfer(*how, 20_000, false)
            .with_context(|| format!("a server here, {how:?}"))?;
        client.echo("and on")?;
    }
    drop(server);
    Ok(())
}

/// With a helper of netfilter on the control connection, data connections are expected: their entries are related to it.
fn related(family: Family) -> Result<()> {
    let (topo, _server, vip, _) = network(family)?;
    let ns = &topo.director;
    ns.cmd_stdin(
        "nft -f -",
        "table inet t {\n\
         counter related { }\n counter fresh { }\n\
         ct helper help { type \"ftp\" protocol tcp ; }\n\
         chain pre { type filter hook prerouting priority 0 ;\n\
         tcp dport 21 ct helper set \"help\"\n\
         tcp dport != 21 ct state related counter name related\n\
         tcp dport != 21 ct state new counter name fresh\n }\n}\n",
    )?;
    let expected = || ns.read("/proc/net/nf_conntrack_expect");
    let mut client = Client::login(&topo.client, vip)?;
    let to = client.passive(ways(family)[0])?;
    let text = until("it is expected", 2.0, || {
        Ok(Some(expected()?).filter(|t| !t.is_empty()))
    })?;
    let ours: Vec<&str> = text
        .lines()
        .filter(|l| l.contains(&format!("dport={}", to.port())))
        .collect();
    let ends = match family {
        Family::V4 => ["src=10.0.0.2 ", "dst=10.0.100.1 "],
        Family::V6 => [
            "src=fd00:0000:0000:0000:0000:0000:0000:0002 ",
            "dst=fd00:0100:0000:0000:0000:0000:0000:0001 ",
        ],
    };
    ensure!(
        ours.len() == 1
            && ends.iter().all(|end| ours[0].contains(end))
            && ours[0].contains("sport=0"),
        "{text}"
    );
    let data = client.connect(to)?;
    client.command("RETR 5", "150")?;
    drop(data);
    client.expect("226")?;
    until_true("it was expected", 2.0, || {
        let text = ns.cmd("nft list counter inet t related")?;
        Ok(!text.contains("packets 0 "))
    })?;
    let fresh = ns.cmd("nft list counter inet t fresh")?;
    ensure!(fresh.contains("packets 0 "), "{fresh}");
    for how in ways(family) {
        client
            .transfer(*how, 5000, false)
            .with_context(|| format!("{how:?}"))?;
    }
    client.echo("all of it")
}

/// A client that others made.
fn curl() -> Result<()> {
    for family in Family::BOTH {
        let (topo, _server, vip, _) = network(family)?;
        for (what, ways) in [
            ("--ftp-pasv --disable-epsv", family == Family::V4),
            ("--ftp-pasv", true),
            ("--ftp-port - --disable-eprt", family == Family::V4),
            ("--ftp-port -", true),
        ] {
            if !ways {
                continue;
            }
            let host = match vip {
                SocketAddr::V4(a) => a.ip().to_string(),
                SocketAddr::V6(a) => format!("[{}]", a.ip()),
            };
            let text = topo
                .client
                .cmd(&format!("curl -g -sS -m 30 {what} ftp://{host}/20000 -o /dev/null -w %{{size_download}}"))
                .with_context(|| what.to_owned())?;
            ensure!(text.trim() == "20000", "{what}: {text}");
        }
    }
    Ok(())
}
