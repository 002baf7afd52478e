// SPDX-License-Identifier: GPL-2.0-or-later

//! What FullNAT scenarios share: its netlink attributes, and real servers without a way to the client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{ensure, Context, Result};

use crate::genl::{find, Attrs, Reply};
use crate::ipvs::{self, cmd, for_svc, svc_id, Ipvs};
use crate::ns::Ns;
use crate::pkt::{octets, pseudo, sum, Pkt, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::Peer;
use crate::tap::Frame;
use crate::topo::{at, Family, Topo};

/// Why these scenarios are for one peer only.
pub const ONLY: (Peer, &str) = (Peer::Rvs, "C ip_vs has no FullNAT");

pub const NEW_LADDR: u8 = 18;
pub const DEL_LADDR: u8 = 19;
pub const GET_LADDR: u8 = 20;
pub const LADDR: u16 = 7;

pub const ADDR: u16 = 1;
pub const PORT_CONFLICT: u16 = 2;
pub const CONN_COUNTS: u16 = 3;
pub const PREFIX_LEN: u16 = 72;
pub const IFNAME: u16 = 73;

pub const TOA_KIND: u16 = 72;
pub const TOA_SYN: u16 = 73;
pub const PROXY: u16 = 74;
pub const PORT_MIN: u16 = 75;
pub const PORT_MAX: u16 = 76;
pub const LOCALS: u16 = 77;
pub const EXHAUSTED: u16 = 78;
pub const TOA_ADDED: u16 = 79;
pub const TOA_NO_ROOM: u16 = 80;
pub const TOA_REMOVED: u16 = 81;

/// Address `n` of the network that pools are taken from: 10.77.0.0/16, fd77::/64.
pub fn local(family: Family, n: u16) -> IpAddr {
    match family {
        Family::V4 => {
            let [high, low] = n.to_be_bytes();
            IpAddr::V4(Ipv4Addr::new(10, 77, high, low))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, n)),
    }
}

/// Whether an address is of that network.
pub fn is_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(a) => a.octets()[..2] == [10, 77],
        IpAddr::V6(a) => a.segments()[0] == 0xfd77,
    }
}

/// Client, director and real servers of which none knows a way to the client: only to the network of local addresses.
pub fn topo(servers: u8) -> Result<Topo> {
    let topo = Topo::new(servers)?;
    for (n, rs) in (1..).zip(&topo.rs) {
        blind(rs, n)?;
    }
    // What TCP remembers of peers goes some time after its namespace, and a leak checker takes it for lost.
    for ns in [&topo.client, &topo.director].into_iter().chain(&topo.rs) {
        ns.set_sysctl("net.ipv4.tcp_no_metrics_save", 1)?;
    }
    Ok(topo)
}

/// A TCP service at a port, with one real server at another one and one local address.
pub fn service(
    family: Family,
    port: u16,
    real: u16,
) -> Result<(Topo, Ipvs, SocketAddr, SocketAddr)> {
    let topo = topo(1)?;
    let (vip, rs) = (at(family.vip(), port), at(family.rs(1), real));
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&topo.director)?;
    add(&ipvs, TCP, vip, local(family, 1))?;
    Ok((topo, ipvs, vip, rs))
}

/// Takes the default routes from real server `n`.
pub fn blind(rs: &Ns, n: u8) -> Result<()> {
    rs.ip(&format!(
        "route del default\n\
         route del ::/0\n\
         route add 10.77.0.0/16 via 10.0.{n}.1\n\
         route add fd77::/64 via fd00:0:0:{n}::1\n"
    ))?;
    for (family, client) in [("-4", Family::V4.client()), ("-6", Family::V6.client())] {
        let way = rs.try_cmd(&format!("ip {family} route get {client}"))?;
        ensure!(
            way.code != Some(0),
            "{} knows a way to the client",
            rs.name()
        );
    }
    Ok(())
}

/// An address as netlink has it.
pub fn laddr(addr: IpAddr) -> Attrs {
    let mut bytes = octets(addr);
    bytes.resize(16, 0);
    Attrs::new().put(ADDR, &bytes)
}

/// A command about a service's local address.
pub fn about(proto: u8, vip: SocketAddr, laddr: &Attrs) -> Attrs {
    for_svc(&svc_id(proto, vip)).nest(LADDR, laddr)
}

/// Adds an address to a pool.
pub fn add(ipvs: &Ipvs, proto: u8, vip: SocketAddr, addr: IpAddr) -> Result<Reply> {
    ipvs.ok(NEW_LADDR, &about(proto, vip, &laddr(addr)))
}

/// Adds a prefix.
pub fn add_prefix(ipvs: &Ipvs, proto: u8, vip: SocketAddr, addr: IpAddr, len: u8) -> Result<Reply> {
    ipvs.ok(
        NEW_LADDR,
        &about(proto, vip, &laddr(addr).u8(PREFIX_LEN, len)),
    )
}

/// An address of a pool, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    pub addr: IpAddr,
    pub conflicts: u64,
    pub conns: u32,
    pub prefix: u8,
    pub ifname: Option<String>,
}

/// The pool of a service.
pub fn locals(ipvs: &Ipvs, proto: u8, vip: SocketAddr) -> Result<Vec<Local>> {
    let reply = ipvs.dump(GET_LADDR, &for_svc(&svc_id(proto, vip)))?.ok()?;
    reply
        .msgs
        .iter()
        .map(|msg| {
            ensure!(msg.cmd == NEW_LADDR, "command {}", msg.cmd);
            let nest = find(&msg.attrs, LADDR).context("no local address")?;
            let bytes: [u8; 16] = find(nest, ADDR).context("no address")?.try_into()?;
            let addr = if vip.is_ipv4() {
                IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
            } else {
                IpAddr::from(bytes)
            };
            let word = |kind| find(nest, kind).context("an attribute is missing");
            Ok(Local {
                addr,
                conflicts: u64::from_ne_bytes(word(PORT_CONFLICT)?.try_into()?),
                conns: u32::from_ne_bytes(word(CONN_COUNTS)?.try_into()?),
                prefix: word(PREFIX_LEN)?[0],
                ifname: find(nest, IFNAME)
                    .map(|t| String::from_utf8_lossy(t).trim_end_matches('\0').to_owned()),
            })
        })
        .collect()
}

/// A number among what a service shows, 0 if it is not there.
pub fn number(ipvs: &Ipvs, proto: u8, vip: SocketAddr, kind: u16) -> Result<u64> {
    let reply = ipvs.ok(cmd::GET_SERVICE, &for_svc(&svc_id(proto, vip)))?;
    let msg = reply.msgs.first().context("no service came back")?;
    let nest = find(&msg.attrs, ipvs::top::SERVICE).context("no service in the message")?;
    Ok(match find(nest, kind) {
        None => 0,
        Some([a]) => (*a).into(),
        Some([a, b]) => u16::from_ne_bytes([*a, *b]).into(),
        Some(value) if value.len() == 4 => u32::from_ne_bytes(value.try_into()?).into(),
        Some(value) => u64::from_ne_bytes(value.try_into()?),
    })
}

/// Changes what a service has of FullNAT.
pub fn set(ipvs: &Ipvs, proto: u8, vip: SocketAddr, sched: &str, extra: &Attrs) -> Result<Reply> {
    let mut service = ipvs::svc_full(proto, vip, sched);
    service.0.extend(&extra.0);
    ipvs.call(cmd::SET_SERVICE, &for_svc(&service))
}

/// How many entries connection tracking has in a namespace; 0 if it is not there.
pub fn tracked(ns: &Ns) -> Result<u64> {
    let path = "/proc/sys/net/netfilter/nf_conntrack_count";
    Ok(ns
        .read(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0))
}

/// Makes connection tracking work in a namespace.
pub fn track(ns: &Ns) -> Result<()> {
    ns.cmd_stdin(
        "nft -f -",
        "table inet t { chain c { type filter hook prerouting priority filter; ct state new accept; }; \n\
         chain d { type filter hook output priority filter; ct state new accept; }; }",
    )?;
    Ok(())
}

/// A TCP segment with options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub urgent: u16,
    pub options: Vec<u8>,
    pub body: Vec<u8>,
}

impl Segment {
    pub fn new(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) -> Self {
        Self {
            from,
            to,
            seq,
            ack,
            flags,
            urgent: 0,
            options: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// From the IP header on, with checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let pkt = Pkt::tcp(self.from, self.to, self.flags);
        let mut b = Vec::new();
        b.extend(self.from.port().to_be_bytes());
        b.extend(self.to.port().to_be_bytes());
        b.extend(self.seq.to_be_bytes());
        b.extend(self.ack.to_be_bytes());
        b.push((((20 + self.options.len()) / 4) << 4) as u8);
        b.push(self.flags);
        b.extend([0x20, 0, 0, 0]);
        b.extend(self.urgent.to_be_bytes());
        b.extend(&self.options);
        b.extend(&self.body);
        let sum = !sum(&b, pseudo(self.from.ip(), self.to.ip(), TCP, b.len())) as u16;
        b[16..18].copy_from_slice(&sum.to_be_bytes());
        pkt.around(&b)
    }

    /// What was seen, with right checksums.
    pub fn of(frame: &Frame) -> Result<Self> {
        let pkt = &frame.pkt;
        ensure!(pkt.proto == TCP && pkt.csum_ok, "{pkt:?}");
        let l4 = &frame.raw[if pkt.is_v4() { 20 } else { 40 }..];
        let header = usize::from(l4[12] >> 4) * 4;
        Ok(Self {
            from: pkt.source(),
            to: pkt.dest(),
            seq: pkt.seq,
            ack: pkt.ack,
            flags: pkt.flags,
            urgent: u16::from_be_bytes([l4[18], l4[19]]),
            options: l4[20..header].to_vec(),
            body: pkt.body.clone(),
        })
    }
}

/// Two NOPs and timestamps.
pub fn stamps(value: u32, echo: u32) -> Vec<u8> {
    let mut b = vec![1, 1, 8, 10];
    b.extend(value.to_be_bytes());
    b.extend(echo.to_be_bytes());
    b
}

/// Sends segments from one side and returns those that came out at the other; nothing may come back.
pub fn pass(rig: &Rig, side: Side, segments: &[Segment]) -> Result<Vec<Segment>> {
    let raw: Vec<Vec<u8>> = segments.iter().map(Segment::bytes).collect();
    let io = rig.exchange_raw(side, &raw)?;
    let (there, back) = match side {
        Side::Client => (io.server, io.client),
        Side::Server => (io.client, io.server),
    };
    ensure!(back.is_empty(), "came back: {back:#?}");
    there.iter().map(Segment::of).collect()
}

/// As [`pass`], one for one.
pub fn one(rig: &Rig, side: Side, segment: &Segment) -> Result<Segment> {
    let mut out = pass(rig, side, std::slice::from_ref(segment))?;
    ensure!(out.len() == 1, "of {segment:?} came {out:#?}");
    out.pop().context("nothing came")
}
