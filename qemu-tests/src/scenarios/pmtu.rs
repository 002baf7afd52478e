// SPDX-License-Identifier: GPL-2.0-or-later

//! Path MTU discovery from end to end, by every method: real transfers both ways over a path that is narrow beyond the client's
//! router, at the director, or beyond the servers' router; and what each end has learnt.
//!
//! ```text
//!   client ---- router ---- director ---- router ---- server
//!          narrow[0]          narrow[1]          narrow[2]
//! ```
//!
//! The narrow link is a route's locked MTU, so that no device is in the way of a larger packet.
//!
//! Proves checklist item 109, with tunnel and mtu.

use std::net::IpAddr;

use anyhow::{ensure, Context, Result};

use super::rvsadm::Tool;
use crate::ns::Ns;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "pmtu",
    "path MTU discovery from end to end by every method",
    &[109],
    run,
)
.timeout(120.0)
.with_rvsadm();

/// Where the path is narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Narrow {
    /// On the way to the client: errors about replies.
    Client,
    /// At the director, which tells clients itself.
    Director,
    /// On the way to the server: errors about what the director sent.
    Server,
}

impl Narrow {
    fn mtu(self) -> usize {
        match self {
            Self::Client => 1310,
            Self::Director => 1400,
            Self::Server => 1390,
        }
    }
}

/// A method: its name, ipvsadm's flags, what the real server is set up for, the length of the tunnel's headers over IPv4.
const METHODS: [(&str, &str, &str, usize); 5] = [
    ("nat", "-m", "", 0),
    ("dr", "-g", "--dr", 0),
    ("ipip", "-i", "--tunnel", 20),
    (
        "gue",
        "-i --tun-type gue --tun-port 6080",
        "--tunnel --tunnel-type gue --tunnel-port 6080",
        32,
    ),
    ("gre", "-i --tun-type gre", "--tunnel --tunnel-type gre", 24),
];

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for method in METHODS {
            // A retransmission later each: too long for a slow guest, where one without and one with a tunnel must do.
            if slow() > 1.0 && !["nat", "gue"].contains(&method.0) {
                continue;
            }
            let path = Path::new(cx, family, method)?;
            for narrow in [Narrow::Client, Narrow::Director, Narrow::Server] {
                // A directly routed server has no router before it; over IPv6 nobody tells what happens to a tunnel.
                let beyond = narrow == Narrow::Server;
                if beyond && (method.0 == "dr" || (family == Family::V6 && method.3 != 0)) {
                    continue;
                }
                let begin = std::time::Instant::now();
                path.transfer(narrow)
                    .with_context(|| format!("{}, {family:?}, {narrow:?}", method.0))?;
                println!(
                    "{}, {family:?}, {narrow:?}: {:.1?}",
                    method.0,
                    begin.elapsed()
                );
            }
        }
    }
    Ok(())
}

struct Path {
    topo: Topo,
    family: Family,
    client: Ns,
    client_addr: IpAddr,
    vip: IpAddr,
    server_addr: IpAddr,
    overhead: usize,
    port: std::cell::Cell<u16>,
    flags: &'static str,
    is_nat: bool,
    server: Ns,
    is_direct: bool,
}

/// Joins a namespace to a router, whose address is .1 or ::1 there.
fn join(router: &Ns, ns: &Ns, family: Family, host: IpAddr, gateway: IpAddr) -> Result<()> {
    for ns in [router, ns] {
        for key in ["all", "default"] {
            ns.set_sysctl(&format!("net.ipv4.conf.{key}.rp_filter"), 0)?;
        }
        ns.set_sysctl("net.ipv6.conf.default.accept_dad", 0)?;
    }
    router.set_sysctl("net.ipv4.ip_forward", 1)?;
    router.set_sysctl("net.ipv6.conf.all.forwarding", 1)?;
    let bits = if family == Family::V4 { 24 } else { 64 };
    let nodad = if family == Family::V4 { "" } else { " nodad" };
    router.ip(&format!(
        "link add far type veth peer name eth0 netns {}\n\
         link set far up\n\
         addr add {gateway}/{bits} dev far{nodad}\n",
        ns.path()
    ))?;
    ns.ip(&format!(
        "link set eth0 up\n\
         addr add {host}/{bits} dev eth0{nodad}\n\
         route add default via {gateway}\n"
    ))
}

impl Path {
    fn new(cx: &Cx, family: Family, method: (&str, &'static str, &str, usize)) -> Result<Self> {
        let topo = Topo::new(1)?;
        let (name, flags, setup, headers) = method;
        let is_direct = name == "dr";
        let client = Ns::new("far client")?;
        let client_addr = family.raw_client(10);
        join(
            &topo.client,
            &client,
            family,
            client_addr,
            family.raw_client(1),
        )?;
        let server = Ns::new("far server")?;
        let server_addr = if is_direct {
            family.rs(1)
        } else {
            let addr = family.raw_rs(10);
            join(&topo.rs[0], &server, family, addr, family.raw_rs(1))?;
            addr
        };
        let vip = family.vip();
        let here = if is_direct { &topo.rs[0] } else { &server };
        if name != "nat" {
            // Its replies pass the director, whose own address they come from.
            topo.director
                .set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
            Tool::new(cx, here)?.ok(&format!("realserver setup {setup} {vip}"))?;
        }
        let headers = match (family, headers) {
            (Family::V6, n) if n != 0 => n + 20,
            (_, n) => n,
        };
        Ok(Self {
            is_nat: name == "nat",
            port: 80.into(),
            overhead: headers,
            topo,
            family,
            client,
            client_addr,
            vip,
            server_addr,
            flags,
            server,
            is_direct,
        })
    }

    /// The MTU that an end has learnt for an address; 1500 if none.
    fn learnt(ns: &Ns, to: IpAddr) -> Result<usize> {
        let route = ns.cmd(&format!("ip route get {to}"))?;
        let mut words = route.split_whitespace().skip_while(|w| *w != "mtu");
        match words.nth(1) {
            None => Ok(1500),
            Some(n) => n.parse().with_context(|| route.clone()),
        }
    }

    fn transfer(&self, narrow: Narrow) -> Result<()> {
        let topo = &self.topo;
        let here = if self.is_direct {
            &topo.rs[0]
        } else {
            &self.server
        };
        // With the metric of the kernel's own, in whose place the new ones are.
        let (six, client_net, server_net, own) = match self.family {
            Family::V4 => ("", "10.9.0.0/24", "10.8.1.0/24", ""),
            Family::V6 => ("-6 ", "fd09::/64", "fd08:1::/64", " metric 256"),
        };
        // Every path as it was, but for one.
        for ns in [&self.client, here, &topo.director] {
            ns.cmd(&format!("ip {six}route flush cache"))?;
        }
        let mtu = |at: Narrow| {
            if at == narrow {
                format!(" mtu lock {}", at.mtu())
            } else {
                // Not locked, so that it can be learnt.
                String::new()
            }
        };
        let route = |ns: &Ns, what: String| ns.cmd(&format!("ip {six}route replace {what}"));
        route(
            &topo.client,
            format!("{client_net} dev far{own}{}", mtu(Narrow::Client)),
        )?;
        if self.is_direct {
            let net = match self.family {
                Family::V4 => "10.0.1.0/24",
                Family::V6 => "fd00:0:0:1::/64",
            };
            route(
                &topo.director,
                format!("{net} dev s1{own}{}", mtu(Narrow::Director)),
            )?;
        } else {
            route(
                &topo.director,
                format!(
                    "{server_net} via {}{}",
                    self.family.rs(1),
                    mtu(Narrow::Director)
                ),
            )?;
            route(
                &topo.rs[0],
                format!("{server_net} dev far{own}{}", mtu(Narrow::Server)),
            )?;
        }
        // A service of its own, whose destination remembers nothing.
        self.port.set(self.port.get() + 1);
        let vip = at(self.vip, self.port.get());
        let rs = at(self.server_addr, vip.port());
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} {}", self.flags))?;
        let _server = Server::tcp(here, if self.is_nat { rs } else { vip }, "far")?;
        let stream = serve::connect(&self.client, vip)?;
        let n = 30_000;
        std::io::Write::write_all(&mut &stream, format!("TAKE {n}\n").as_bytes())?;
        serve::write_pattern(&mut &stream, n)?;
        let answer = serve::ask(&stream, "").context("to the server")?;
        ensure!(answer.ends_with("right"), "{answer:?}");
        let stream = serve::connect(&self.client, vip)?;
        std::io::Write::write_all(&mut &stream, format!("BULK {n}\n").as_bytes())?;
        serve::take_bulk(&stream, n).context("to the client")?;

        let at_client = Self::learnt(&self.client, self.vip)?;
        let at_server = Self::learnt(here, self.client_addr)?;
        // A tunnel always leaves less.
        let want = match narrow {
            Narrow::Client => (1500 - self.overhead, Narrow::Client.mtu()),
            _ => (narrow.mtu() - self.overhead, 1500),
        };
        ensure!(
            (at_client, at_server) == want,
            "client and server have learnt {at_client} and {at_server}, not {want:?}"
        );
        Ok(())
    }
}
