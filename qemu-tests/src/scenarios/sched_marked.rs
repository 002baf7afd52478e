// SPDX-License-Identifier: GPL-2.0-or-later

//! A service that is known by a firewall mark, for the schedulers that look at addresses: clients
//! and targets as the scenario likes them.
//!
//! Whatever goes to `10.7.0.0/16` or `fd07::/64` is for the director, and what goes to port N there
//! gets the mark N.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{bail, ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{self, cmd, dest, svc, Ipvs};
use crate::pkt::{octets, Pkt, SYN, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::topo::{at, Family};

/// Flags of a service.
pub const FALLBACK: u32 = 8;
pub const PORT: u32 = 16;

/// Test network, IPVS, and the marks that are in use.
pub struct Marked {
    pub rig: Rig,
    pub ipvs: Ipvs,
}

/// A server as it is configured: address, weight and upper threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    pub host: u8,
    pub weight: i32,
    pub upper: u32,
}

impl Server {
    pub fn new(host: u8, weight: i32) -> Self {
        let upper = 0;
        Self {
            host,
            weight,
            upper,
        }
    }
}

impl Marked {
    pub fn new() -> Result<Self> {
        let rig = Rig::new()?;
        let ipvs = Ipvs::open(&rig.topo.director)?;
        let director = &rig.topo.director;
        director.ip("route add local 10.7.0.0/16 dev lo\nroute add local fd07::/64 dev lo\n")?;
        director.cmd("nft add table inet t")?;
        director.cmd("nft add chain inet t pre { type filter hook prerouting priority -150 ; }")?;
        Ok(Self { rig, ipvs })
    }

    /// A service of mark `mark`; what goes to port `mark` has that mark.
    pub fn service(&self, family: Family, mark: u16, sched: &str, flags: u32) -> Result<Service> {
        self.rig.topo.director.cmd(&format!(
            "nft add rule inet t pre meta l4proto {{ tcp, udp }} th dport {mark} meta mark set {mark}"
        ))?;
        let service = Service { family, mark };
        self.ipvs.ok(
            cmd::NEW_SERVICE,
            &ipvs::for_svc(&service.full(sched, flags)),
        )?;
        Ok(service)
    }

    /// Adds, changes or deletes a server. It listens to port 8000.
    pub fn set(&self, cmd: u8, service: &Service, server: Server) -> Result<()> {
        self.set_at(cmd, service, server, 8000)
    }

    /// The same at another port.
    pub fn set_at(&self, cmd: u8, service: &Service, server: Server, port: u16) -> Result<()> {
        let rs = at(service.family.raw_rs(server.host), port);
        let dest =
            ipvs::dest_full(rs, server.weight).with(dest::U_THRESH, &server.upper.to_ne_bytes());
        self.ipvs
            .ok(cmd, &ipvs::for_dest(&service.id(), &dest))
            .map(drop)
            .with_context(|| format!("{server:?}"))
    }

    pub fn add(&self, service: &Service, host: u8, weight: i32) -> Result<()> {
        self.set(cmd::NEW_DEST, service, Server::new(host, weight))
    }

    pub fn edit(&self, service: &Service, host: u8, weight: i32, upper: u32) -> Result<()> {
        let server = Server {
            upper,
            ..Server::new(host, weight)
        };
        self.set(cmd::SET_DEST, service, server)
    }

    pub fn delete(&self, service: &Service, host: u8) -> Result<()> {
        self.set(cmd::DEL_DEST, service, Server::new(host, 0))
    }

    /// Gives the service another scheduler and other flags; returns the errno.
    pub fn try_change(&self, service: &Service, sched: &str, flags: u32) -> Result<i32> {
        let attrs = ipvs::for_svc(&service.full(sched, flags));
        Ok(self.ipvs.call(cmd::SET_SERVICE, &attrs)?.errno)
    }

    /// The same where it must be taken.
    pub fn change(&self, service: &Service, sched: &str, flags: u32) -> Result<()> {
        let errno = self.try_change(service, sched, flags)?;
        ensure!(errno == 0, "{sched} {flags} is refused by {errno}");
        Ok(())
    }

    /// To which server's port each of these packets went, all of them new connections of host 1.
    pub fn ports(&self, pkts: &[Pkt]) -> Result<Vec<u16>> {
        let io = self.rig.exchange(Side::Client, pkts)?;
        ensure!(
            io.client.is_empty() && io.server.len() == pkts.len(),
            "{io:#?}"
        );
        Ok(io.server.iter().map(|f| f.pkt.dport).collect())
    }

    /// Which server each of these packets, all of them new connections, went to; 0: none, the client
    /// was told so.
    pub fn connect(&self, pkts: &[Pkt]) -> Result<Vec<u8>> {
        let mut hosts = Vec::new();
        for chunk in pkts.chunks(250) {
            let io = self.rig.exchange(Side::Client, chunk)?;
            let mut server = io.server_pkts().into_iter().peekable();
            let mut client = io.client_pkts().into_iter();
            for sent in chunk {
                let came = server.next_if(|p| p.source() == sent.source() && p.proto == sent.proto);
                if let Some(p) = came {
                    let host = octets(p.dst).last().copied().context("address")?;
                    ensure!(
                        p.dest() == at(Family::of(p.dst).raw_rs(host), 8000) && p.csum_ok,
                        "{p:?}"
                    );
                    hosts.push(host);
                } else if client.next().is_some_and(|p| p.icmp_type != 0) {
                    hosts.push(0);
                } else {
                    bail!("{sent:?} made {io:#?}");
                }
            }
            ensure!(
                server.next().is_none() && client.next().is_none(),
                "{io:#?}"
            );
        }
        Ok(hosts)
    }

    /// As [`Marked::connect`], as text with a letter for each server: `a` for host 1, `-` for none.
    pub fn letters(&self, pkts: &[Pkt]) -> Result<String> {
        Ok(self.connect(pkts)?.into_iter().map(letter).collect())
    }
}

/// What stands for a server in a text.
pub fn letter(host: u8) -> char {
    match host {
        0 => '-',
        n => char::from(b'a'.wrapping_add(n - 1)),
    }
}

/// A service of [`Marked`].
#[derive(Debug, Clone, Copy)]
pub struct Service {
    pub family: Family,
    pub mark: u16,
}

impl Service {
    fn id(&self) -> Attrs {
        Attrs::new()
            .u16(svc::AF, self.family.af())
            .u32(svc::FWMARK, self.mark.into())
    }

    fn full(&self, sched: &str, flags: u32) -> Attrs {
        let mask: u32 = if self.family == Family::V4 {
            u32::MAX
        } else {
            128
        };
        let mut bits = flags.to_ne_bytes().to_vec();
        bits.extend(u32::MAX.to_ne_bytes());
        self.id()
            .text(svc::SCHED_NAME, sched)
            .put(svc::FLAGS, &bits)
            .u32(svc::TIMEOUT, 0)
            .u32(svc::NETMASK, mask)
    }

    /// An address that connections can go to.
    pub fn target(&self, n: u16) -> IpAddr {
        let [hi, lo] = n.to_be_bytes();
        match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(10, 7, hi, lo)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, n)),
        }
    }

    /// The first packet of a connection by TCP, which is active from then on.
    pub fn syn(&self, client: u16, port: u16, target: u16) -> Pkt {
        let (client, target) = (self.family.raw_client(client), self.target(target));
        Pkt::tcp(at(client, port), at(target, self.mark), SYN)
    }

    /// The same by UDP: inactive.
    pub fn udp(&self, client: u16, port: u16, target: u16) -> Pkt {
        let (client, target) = (self.family.raw_client(client), self.target(target));
        Pkt::udp(at(client, port), at(target, self.mark), b"x")
    }

    /// That of a protocol, TCP or UDP.
    pub fn first(&self, proto: u8, client: u16, port: u16, target: u16) -> Pkt {
        match proto {
            TCP => self.syn(client, port, target),
            _ => {
                debug_assert_eq!(proto, UDP);
                self.udp(client, port, target)
            }
        }
    }
}

/// An address as one number: its words of 32 bits, summed without carry.
pub fn fold(addr: IpAddr) -> u32 {
    octets(addr).chunks(4).fold(0, |sum, word| {
        word.iter().fold(0, |n, b| (n << 8) | u32::from(*b)) ^ sum
    })
}

/// The hash of dh, sh and the caches: the upper 8 bits of a product.
pub fn hash8(value: u32) -> usize {
    (value.wrapping_mul(0x61c8_8647) >> 24) as usize
}
