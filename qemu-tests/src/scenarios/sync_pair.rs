// SPDX-License-Identifier: GPL-2.0-or-later

//! Two directors: the second takes the virtual address over, and what the first had accepted goes on: TCP by NAT and by direct
//! routing, UDP, FTP's control connections, which get their helper there, and templates of persistent services; also if the backup
//! had no service until then. A backup that is only one leaves requests alone.
//!
//! ```text
//!            +-- eth0 -- c0 one s1 -- eth0 --+
//!   client --+           m0                  +-- rs1
//!            |           |                   |
//!            |           eth0                |
//!            +-- eth1 -- c0 two s1 -- eth1 --+
//!            +--------- eth2, eth2 ----------+
//! ```
//!
//! Proves checklist items 137 and, with `backup_only`, 119.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::ftp::{self, Data};
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::{TCP, UDP};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::sync::{join, rows, Row};
use crate::topo::{at, ipvsadm, Family, Topo, CLIENT4, VIP4};
use crate::wait::{until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "sync_pair",
    "a second director takes over what the first had accepted",
    &[137],
    run,
)
.partly(&[119]);

const NAT: u16 = 80;
const DIRECT: u16 = 81;
const STICKY: u16 = 82;
const DATAGRAMS: u16 = 53;
const FTP: u16 = 21;

/// The network, with the virtual address at the first director.
struct Pair {
    topo: Topo,
    two: Ns,
}

impl Pair {
    fn new() -> Result<Self> {
        let topo = Topo::new(1)?;
        let two = Ns::new("two")?;
        let (client, rs) = (&topo.client, &topo.rs[0]);
        for key in ["conf.all.rp_filter", "conf.default.rp_filter"] {
            two.set_sysctl(&format!("net.ipv4.{key}"), 0)?;
        }
        two.set_sysctl("net.ipv4.ip_forward", 1)?;
        join(&topo.director, &two)?;
        two.ip(&format!(
            "addr add {VIP4}/32 dev lo\n\
             link add c0 type veth peer name eth1 netns {}\n\
             link add s1 type veth peer name eth1 netns {}\n\
             link set c0 up\n\
             link set s1 up\n\
             addr add 10.1.0.1/24 dev c0\n\
             addr add 10.1.1.1/24 dev s1\n",
            client.path(),
            rs.path(),
        ))?;
        client.ip(&format!(
            "link add eth2 type veth peer name eth2 netns {}\n\
             link set eth1 up\n\
             link set eth2 up\n\
             addr add 10.1.0.2/24 dev eth1\n\
             addr add 10.2.0.1/24 dev eth2\n",
            rs.path()
        ))?;
        rs.ip("link set eth1 up\n\
             link set eth2 up\n\
             addr add 10.1.1.2/24 dev eth1\n\
             addr add 10.2.0.2/24 dev eth2\n")?;
        // The second director knows client and real server by the addresses that the first does.
        two.ip(&format!(
            "route add {CLIENT4}/32 via 10.1.0.2\n\
             route add {}/32 via 10.1.1.2\n",
            Family::V4.rs(1)
        ))?;
        // The real server has the virtual address for direct routing, and answers that by a way of its own.
        rs.ip(&format!(
            "addr add {VIP4}/32 dev lo\n\
             rule add from {VIP4} lookup 100\n\
             route add default via 10.2.0.1 table 100\n"
        ))?;
        let pair = Self { topo, two };
        pair.at(1)?;
        Ok(pair)
    }

    /// Gives the virtual address, and the real server's way out, to a director.
    fn at(&self, n: u8) -> Result<()> {
        let (client_side, server_side) = match n {
            1 => ("10.0.0.1", "10.0.1.1"),
            _ => ("10.1.0.1", "10.1.1.1"),
        };
        self.topo.client.ip(&format!(
            "route replace {VIP4}/32 via {client_side} src {CLIENT4}\n"
        ))?;
        self.topo.rs[0].ip(&format!("route replace default via {server_side}\n"))
    }

    fn directors(&self) -> [&Ns; 2] {
        [&self.topo.director, &self.two]
    }
}

/// The services; two servers on one host for the persistent one, and a third, that is there for nobody, first.
fn services(ns: &Ns) -> Result<()> {
    let (vip, rs) = (VIP4, Family::V4.rs(1));
    let table = format!(
        "-A -t {nat} -s rr\n-a -t {nat} -r {rs}:8080 -m\n\
         -A -t {direct} -s rr\n-a -t {direct} -r {rs}:{DIRECT} -g\n\
         -A -u {udp} -s rr\n-a -u {udp} -r {rs}:5300 -m\n\
         -A -t {ftp} -s rr\n-a -t {ftp} -r {rs}:{FTP} -m\n\
         -A -t {sticky} -s rr -p 300\n-a -t {sticky} -r {rs}:8081 -m\n-a -t {sticky} -r {rs}:8082 -m\n",
        nat = at(vip, NAT),
        direct = at(vip, DIRECT),
        udp = at(vip, DATAGRAMS),
        ftp = at(vip, FTP),
        sticky = at(vip, STICKY),
    );
    ns.cmd_stdin("ipvsadm -R", &table).map(drop)
}

fn run(cx: &Cx) -> Result<()> {
    cx.modules.load_ftp(&[])?;
    let pair = Pair::new()?;
    let [one, two] = pair.directors();
    let rs = &pair.topo.rs[0];
    let address = |port| at(Family::V4.rs(1), port);
    let _servers = [
        Server::tcp(rs, address(8080), "nat")?,
        Server::tcp(rs, at(VIP4, DIRECT), "direct")?,
        Server::tcp(rs, address(8081), "a")?,
        Server::tcp(rs, address(8082), "b")?,
        Server::udp(rs, address(5300), "udp")?,
    ];
    let _ftp = ftp::Server::new(rs, address(FTP), "ftp")?;
    services(one)?;
    // Each packet is announced, at once as soon as the next one is.
    one.set_sysctl("net.ipv4.vs.sync_threshold", "0 1")?;
    ipvsadm(
        one,
        "--start-daemon master --mcast-interface m0 --syncid 3 --sync-maxlen 1",
    )?;
    ipvsadm(
        two,
        "--start-daemon backup --mcast-interface eth0 --syncid 3",
    )?;

    let client = &pair.topo.client;
    let mut flows = Vec::new();
    for port in [NAT, DIRECT, STICKY] {
        let stream = serve::connect(client, at(VIP4, port)).with_context(|| port.to_string())?;
        let answer = serve::ask(&stream, "before")?;
        flows.push((port, stream, serve::name(&answer).to_owned()));
    }
    let mut session = ftp::Client::login(client, at(VIP4, FTP))?;
    let udp = serve::udp(client, at(VIP4, DATAGRAMS))?;
    ensure!(serve::name(&serve::ask_udp(&udp, "before")?) == "udp");
    let udp_client = udp.local_addr()?;

    // Without a service the backup has them all.
    let find = |rows: &[Row], proto: &str, vip: SocketAddr, client: SocketAddr| {
        rows.iter()
            .find(|r| r.proto == proto && r.vip == vip && r.client == client)
            .cloned()
    };
    let template = at(CLIENT4, 0);
    for (proto, vip, client, state) in flows
        .iter()
        .map(|(port, stream, _)| Ok(("TCP", at(VIP4, *port), stream.local_addr()?, "ESTABLISHED")))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .chain([
            ("UDP", at(VIP4, DATAGRAMS), udp_client, "UDP"),
            ("TCP", at(VIP4, FTP), session.here()?, "ESTABLISHED"),
            ("TCP", at(VIP4, STICKY), template, "ASSURED"),
        ])
    {
        let row = until(&format!("{proto} {vip} {client} is {state}"), 6.0, || {
            let there = rows(two)?;
            Ok(find(&there, proto, vip, client).filter(|row| row.state == state))
        })?;
        ensure!(row.synced, "{row:?}");
        let here = find(&rows(one)?, proto, vip, client).context("not at the master")?;
        ensure!(!here.synced && here.dest == row.dest, "{here:?}, {row:?}");
    }

    // A backup that is nothing else: not even with services does it touch requests.
    services(two)?;
    two.set_sysctl("net.ipv4.vs.backup_only", 1)?;
    pair.at(2)?;
    let (_, stream, _) = &flows[0];
    // It has the address, and no such socket: the client hears of it. Which flow this is does not matter, it is lost.
    let lost = serve::connect(client, at(VIP4, NAT));
    ensure!(lost.is_err(), "a backup accepted: {lost:?}");
    drop(lost);
    pair.at(1)?;
    serve::ask(stream, "still the first")?;
    two.set_sysctl("net.ipv4.vs.backup_only", 0)?;

    // The takeover.
    let conns_before = {
        let ipvs = Ipvs::open(two)?;
        ipvs.service(TCP, at(VIP4, NAT))?.stats64.conns
    };
    pair.at(2)?;
    ipvsadm(two, "--stop-daemon backup")?;
    for (port, stream, server) in &flows {
        for n in 0..3 {
            let answer = serve::ask(stream, &format!("after {n}"))
                .with_context(|| format!("port {port} after the takeover"))?;
            ensure!(serve::name(&answer) == server, "{port}: {answer}");
        }
    }
    ensure!(serve::name(&serve::ask_udp(&udp, "after")?) == "udp");
    let conns = Ipvs::open(two)?.service(TCP, at(VIP4, NAT))?.stats64.conns;
    ensure!(
        conns == conns_before,
        "{} connections were scheduled anew",
        conns - conns_before
    );
    // The helper goes on as well: the real server's own address is told to nobody.
    session.transfer(Data::Pasv, 10_000, false)?;
    session.transfer(Data::Port, 10_000, true)?;
    session.echo("nothing is lost")?;
    // The same client stays where it was.
    let sticky = &flows[2].2;
    for n in 0..4 {
        let stream = serve::connect(client, at(VIP4, STICKY))?;
        let answer = serve::ask(&stream, "new")?;
        ensure!(serve::name(&answer) == sticky, "{n}: {answer}");
    }
    // New ones are accepted, and the former backup is a master now.
    let stream = serve::connect(client, at(VIP4, NAT))?;
    ensure!(serve::name(&serve::ask(&stream, "new")?) == "nat");
    two.set_sysctl("net.ipv4.vs.sync_threshold", "0 1")?;
    ipvsadm(one, "--stop-daemon master")?;
    ipvsadm(one, "--start-daemon backup --mcast-interface m0 --syncid 3")?;
    ipvsadm(
        two,
        "--start-daemon master --mcast-interface eth0 --syncid 3 --sync-maxlen 1",
    )?;
    serve::ask(&stream, "announced")?;
    serve::ask(&stream, "again")?;
    let local = stream.local_addr()?;
    until_true("the new connection is at the first director", 6.0, || {
        Ok(find(&rows(one)?, "TCP", at(VIP4, NAT), local).is_some_and(|row| row.synced))
    })?;
    // And back.
    pair.at(1)?;
    serve::ask(&stream, "home")?;
    for (_, stream, server) in &flows {
        ensure!(serve::name(&serve::ask(stream, "home")?) == server);
    }
    let dest = Ipvs::open(one)?.dest(UDP, at(VIP4, DATAGRAMS), address(5300))?;
    ensure!(dest.active == 0, "{dest:?}");
    Ok(())
}
