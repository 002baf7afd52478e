// SPDX-License-Identifier: GPL-2.0-or-later

//! The namespaces of a test network.
//!
//! ```text
//!             10.0.0.0/24                      10.0.1.0/24
//!             fd00:0:0:0::/64                  fd00:0:0:1::/64
//!   client .2 ---------------- .1 director .1 ---------------- .2 rs1     (rs2: 10.0.2.0/24, fd00:0:0:2::/64, ...)
//!                                  |
//!                                  VIP 10.0.100.1, fd00:100::1 on lo
//! ```
//!
//! Behind the client lie 10.9.0.0/16 and fd09::/32, behind real server N 10.8.N.0/24 and
//! fd08:N::/32, owned by nobody: packets that pretend to come from there are crafted by
//! [`crate::rig`], and no kernel answers for them. All neighbours are permanent, so no ARP,
//! neighbour discovery or address detection gets between the packets of a test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::ns::{Ns, Output};
use crate::wait::until_true;

/// The virtual addresses, local to the director.
pub const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 100, 1));
pub const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0, 1));
/// The client's own addresses.
pub const CLIENT4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
pub const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));
/// The director on the client's side.
pub const DIRECTOR4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub const DIRECTOR6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

/// An IP version, where a scenario does the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP4,
            Self::V6 => VIP6,
        }
    }

    pub fn client(self) -> IpAddr {
        match self {
            Self::V4 => CLIENT4,
            Self::V6 => CLIENT6,
        }
    }

    /// The director's address on the client's side, the source of the ICMP errors it sends there.
    pub fn director(self) -> IpAddr {
        match self {
            Self::V4 => DIRECTOR4,
            Self::V6 => DIRECTOR6,
        }
    }

    /// The address of real server `n` (from 1), a real host.
    pub fn rs(self, n: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, n, 2)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, n.into(), 0, 0, 0, 2)),
        }
    }

    /// The director's address on the side of real server `n`.
    pub fn director_at(self, n: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 0, n, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, n.into(), 0, 0, 0, 1)),
        }
    }

    /// Crafted server `host` in the network behind real server 1.
    pub fn raw_rs(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 8, 1, host)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd08, 1, 0, 0, 0, 0, 0, host.into())),
        }
    }

    /// Crafted client `host`.
    pub fn raw_client(self, host: u16) -> IpAddr {
        match self {
            Self::V4 => {
                let [hi, lo] = host.to_be_bytes();
                IpAddr::V4(Ipv4Addr::new(10, 9, hi, lo))
            }
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, host)),
        }
    }

    /// AF_INET or AF_INET6.
    pub fn af(self) -> u16 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }

    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Short for a socket address.
pub fn at(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr, port)
}

/// Ethernet addresses: link 0 is the client's, link n real server n's; side 1 is the director.
pub fn mac(link: u8, side: u8) -> [u8; 6] {
    [2, 0, 0, 0, link, side]
}

fn mac_text(link: u8, side: u8) -> String {
    mac(link, side).map(|b| format!("{b:02x}")).join(":")
}

/// One test network.
///
/// The director goes first: a namespace that goes alone takes the director's end of its link with it, and the C module
/// may hold that (docs/differences.md, scenario `local_address`). Who holds sockets in the director must give them up before.
#[derive(Debug)]
pub struct Topo {
    pub director: Ns,
    pub client: Ns,
    pub rs: Vec<Ns>,
}

/// Settings that keep a namespace quiet and predictable.
fn settle(ns: &Ns, forward: bool) -> Result<()> {
    let settings: &[(&str, &str)] = &[
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv4.icmp_msgs_per_sec", "1000000"),
        ("net.ipv4.icmp_msgs_burst", "1000000"),
        ("net.ipv6.icmp.ratelimit", "0"),
        ("net.ipv4.ip_forward", if forward { "1" } else { "0" }),
        (
            "net.ipv6.conf.all.forwarding",
            if forward { "1" } else { "0" },
        ),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.dad_transmits", "0"),
        ("net.ipv6.conf.default.router_solicitations", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
    ];
    ns.run(|| {
        for (key, value) in settings {
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            match std::fs::write(&path, value) {
                // Kernels differ in which of the rate limits are per namespace.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.with_context(|| format!("{key}={value} in {}", ns.name()))?,
            }
        }
        Ok(())
    })
}

/// What `ip` is told in the director to get a veth pair to `peer`, of which it holds side 1.
fn director_side(ifname: &str, peer: &Ns, link: u8) -> String {
    let behind = if link == 0 {
        "route add 10.9.0.0/16 via 10.0.0.2\nroute add fd09::/32 via fd00::2\n".to_owned()
    } else {
        format!(
            "route add 10.8.{link}.0/24 via 10.0.{link}.2\n\
             route add fd08:{link}::/32 via fd00:0:0:{link}::2\n"
        )
    };
    format!(
        "link add {ifname} address {m1} type veth peer name eth0 address {m2} netns {path}\n\
         link set {ifname} addrgenmode none\n\
         link set {ifname} up\n\
         addr add 10.0.{link}.1/24 dev {ifname}\n\
         addr add fd00:0:0:{link}::1/64 dev {ifname} nodad\n\
         neigh add 10.0.{link}.2 lladdr {m2} dev {ifname} nud permanent\n\
         neigh add fd00:0:0:{link}::2 lladdr {m2} dev {ifname} nud permanent\n\
         {behind}",
        m1 = mac_text(link, 1),
        m2 = mac_text(link, 2),
        path = peer.path(),
    )
}

/// What `ip` is told at the other end.
fn peer_side(link: u8) -> String {
    format!(
        "link set eth0 addrgenmode none\n\
         link set eth0 up\n\
         addr add 10.0.{link}.2/24 dev eth0\n\
         addr add fd00:0:0:{link}::2/64 dev eth0 nodad\n\
         neigh add 10.0.{link}.1 lladdr {m1} dev eth0 nud permanent\n\
         neigh add fd00:0:0:{link}::1 lladdr {m1} dev eth0 nud permanent\n\
         route add default via 10.0.{link}.1\n\
         route add ::/0 via fd00:0:0:{link}::1\n",
        m1 = mac_text(link, 1),
    )
}

impl Topo {
    /// Client, director and `servers` real servers.
    pub fn new(servers: u8) -> Result<Self> {
        Self::with_director(servers, Ns::new("director")?)
    }

    /// As [`Topo::new`] around a director namespace that exists already.
    pub fn with_director(servers: u8, director: Ns) -> Result<Self> {
        let begin = std::time::Instant::now();
        let client = Ns::new("client")?;
        settle(&client, false)?;
        settle(&director, true)?;
        let mut batch = "addr add 10.0.100.1/32 dev lo\n\
                         addr add fd00:100::1/128 dev lo nodad\n"
            .to_owned();
        batch += &director_side("c0", &client, 0);
        let mut rs = Vec::new();
        for n in 1..=servers {
            let ns = Ns::new(&format!("rs{n}"))?;
            settle(&ns, false)?;
            batch += &director_side(&format!("s{n}"), &ns, n);
            rs.push(ns);
        }
        director.ip(&batch)?;
        for (n, ns) in (0..).zip([&client].into_iter().chain(&rs)) {
            ns.ip(&peer_side(n))?;
        }
        for ns in [&client, &director].into_iter().chain(&rs) {
            until_true("addresses are ready", 5.0, || {
                // The fifth column holds the flags, 0x40 is tentative.
                let text = ns.read("/proc/net/if_inet6")?;
                Ok(text.lines().all(|l| {
                    let flags = l
                        .split_whitespace()
                        .nth(4)
                        .and_then(|f| u32::from_str_radix(f, 16).ok());
                    flags.is_some_and(|f| f & 0x40 == 0)
                }))
            })?;
        }
        // IPv6 routes over a device count from when the kernel's worker has seen its carrier.
        let ways: String = (0..=servers)
            .map(|n| match n {
                0 => "route get fd09::1\n".to_owned(),
                _ => format!("route get fd08:{n}::1\n"),
            })
            .collect();
        until_true("the director's routes count", 5.0, || {
            Ok(director.ip(&ways).is_ok())
        })?;
        for ns in [&client].into_iter().chain(&rs) {
            until_true("the routes to the director count", 5.0, || {
                Ok(ns.ip("route get fd00:100::1\n").is_ok())
            })?;
        }
        println!("network made in {:.2?}", begin.elapsed());
        Ok(Self {
            client,
            director,
            rs,
        })
    }

    /// Runs `ipvsadm ARGS` in the director; it must succeed.
    pub fn ipvsadm(&self, args: &str) -> Result<String> {
        ipvsadm(&self.director, args)
    }

    /// Runs `ipvsadm ARGS` in the director, whatever comes of it.
    pub fn try_ipvsadm(&self, args: &str) -> Result<Output> {
        self.director.try_cmd(&format!("ipvsadm {args}"))
    }
}

/// Runs `ipvsadm ARGS` in a namespace; it must succeed.
pub fn ipvsadm(ns: &Ns, args: &str) -> Result<String> {
    ns.cmd(&format!("ipvsadm {args}"))
}
