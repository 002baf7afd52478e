// SPDX-License-Identifier: GPL-2.0-or-later

//! FullNAT at the director's own: a real server on it, a client on it, and a client that begins anew on the port it had while
//! its server remembers the last connection.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    bind, connect, setsockopt, socket, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage,
};

use crate::fullnat::{self, is_local, local, set};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::pkt::TCP;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};
use crate::wait::{scaled, until};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_local",
    "FullNAT with a real server or a client on the director; a client's port used again",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        here(family).with_context(|| format!("{family:?}, server"))?;
        client_here(family).with_context(|| format!("{family:?}, client"))?;
        again(family).with_context(|| format!("{family:?}, port again"))?;
    }
    Ok(())
}

fn whole(family: Family) -> (u8, &'static str) {
    match family {
        Family::V4 => (32, ""),
        Family::V6 => (128, " nodad"),
    }
}

/// The real server is the director itself, to which the local address must mean something then.
fn here(family: Family) -> Result<()> {
    let topo = fullnat::topo(1)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.director(), 8080));
    let ipvs = Ipvs::open(&topo.director)?;
    let seat = local(family, 1);
    let (len, nodad) = whole(family);
    topo.director
        .ip(&format!("addr add {seat}/{len} dev lo{nodad}"))?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    fullnat::add(&ipvs, TCP, vip, seat)?;
    let server = Server::tcp(&topo.director, rs, "self")?;
    let stream = serve::connect(&topo.client, vip)?;
    let answer = serve::ask(&stream, "hello")?;
    ensure!(answer.contains(&seat.to_string()), "{answer}");
    let n = 300_000;
    serve::fetch(&stream, n)?;
    drop(server);
    Ok(())
}

fn client_here(family: Family) -> Result<()> {
    let (topo, _, vip, rs) = fullnat::service(family, 80, 8080)?;
    let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    let stream = serve::connect(&topo.director, vip)?;
    for i in 0..5 {
        let answer = serve::ask(&stream, &format!("line {i}"))?;
        ensure!(answer.contains(&local(family, 1).to_string()), "{answer}");
    }
    let n = 300_000;
    serve::fetch(&stream, n)?;
    drop(server);
    Ok(())
}

/// The server closes first, so that its end stays in TIME-WAIT; the client comes again from the same port at once.
fn again(family: Family) -> Result<()> {
    let (topo, ipvs, vip, rs) = fullnat::service(family, 80, 8080)?;
    let ports = Attrs::new()
        .u16(fullnat::PORT_MIN, 5000)
        .u16(fullnat::PORT_MAX, 5009);
    set(&ipvs, TCP, vip, "rr", &ports)?.ok()?;
    let listener = topo.rs[0].run(|| TcpListener::bind(rs))?;
    const ROUNDS: usize = 5;
    let server = std::thread::spawn(move || -> Result<Vec<std::net::SocketAddr>> {
        let mut peers = Vec::new();
        for _ in 0..ROUNDS {
            let (mut stream, peer) = listener.accept()?;
            peers.push(peer);
            stream.write_all(b"bye")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest)?;
        }
        Ok(peers)
    });
    for round in 0..ROUNDS {
        // The client's last connection is not over before its FIN is acknowledged.
        let (mut stream, took) = until("the port may be used again", 5.0, || {
            let begin = Instant::now();
            match from_port(&topo.client, at(family.client(), 4321), vip) {
                Ok(stream) => Ok(Some((stream, begin.elapsed()))),
                Err(e) if e.downcast_ref() == Some(&Errno::EADDRNOTAVAIL) => Ok(None),
                Err(e) => Err(e),
            }
        })
        .with_context(|| format!("round {round}"))?;
        // Not the second after which a SYN is sent again, and mostly far less.
        ensure!(
            took < Duration::from_millis(900),
            "{took:?} in round {round}"
        );
        println!("{family:?}: connected in {took:?}");
        stream.set_read_timeout(Some(scaled(5.0)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(text == "bye", "{text:?}");
    }
    let peers = server.join().expect("the server's thread")?;
    let unlike: std::collections::BTreeSet<_> = peers.iter().collect();
    ensure!(
        unlike.len() == ROUNDS && peers.iter().all(|p| is_local(p.ip())),
        "{peers:?}"
    );
    Ok(())
}

/// A connection from a port that may have been used just now.
fn from_port(
    ns: &crate::ns::Ns,
    from: std::net::SocketAddr,
    to: std::net::SocketAddr,
) -> Result<std::net::TcpStream> {
    use std::os::fd::AsRawFd;
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = ns.run(|| socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None))?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(fd.into())
}
