// SPDX-License-Identifier: GPL-2.0-or-later

//! The IPVS netlink family: its numbers, requests and parsed answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{bail, Context, Result};

use crate::genl::{find, genl_header, Attrs, Genl, Reply, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ns::Ns;
use crate::pkt::octets;

/// Commands.
pub mod cmd {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
}

/// Attributes of a request.
pub mod top {
    pub const SERVICE: u16 = 1;
    pub const DEST: u16 = 2;
    pub const DAEMON: u16 = 3;
    pub const TIMEOUT_TCP: u16 = 4;
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    pub const TIMEOUT_UDP: u16 = 6;
}

/// Attributes of a service.
pub mod svc {
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS: u16 = 10;
    pub const PE_NAME: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// Attributes of a destination.
pub mod dest {
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const PERSIST_CONNS: u16 = 9;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// The address attribute of 16 bytes, zero padded.
pub fn addr16(addr: IpAddr) -> Vec<u8> {
    let mut bytes = octets(addr);
    bytes.resize(16, 0);
    bytes
}

fn af_of(addr: IpAddr) -> u16 {
    if addr.is_ipv4() {
        2
    } else {
        10
    }
}

/// The members that identify a service.
pub fn svc_id(proto: u8, vip: SocketAddr) -> Attrs {
    Attrs::new()
        .u16(svc::AF, af_of(vip.ip()))
        .u16(svc::PROTOCOL, proto.into())
        .put(svc::ADDR, &addr16(vip.ip()))
        .put(svc::PORT, &vip.port().to_be_bytes())
}

/// A complete service.
pub fn svc_full(proto: u8, vip: SocketAddr, sched: &str) -> Attrs {
    let mask: u32 = if vip.is_ipv4() { u32::MAX } else { 128 };
    let mut flags = 0u32.to_ne_bytes().to_vec();
    flags.extend(u32::MAX.to_ne_bytes());
    svc_id(proto, vip)
        .text(svc::SCHED_NAME, sched)
        .put(svc::FLAGS, &flags)
        .u32(svc::TIMEOUT, 0)
        .u32(svc::NETMASK, mask)
}

/// The members that identify a destination.
pub fn dest_id(rs: SocketAddr) -> Attrs {
    Attrs::new()
        .put(dest::ADDR, &addr16(rs.ip()))
        .put(dest::PORT, &rs.port().to_be_bytes())
}

/// A complete destination, forwarded to by NAT.
pub fn dest_full(rs: SocketAddr, weight: i32) -> Attrs {
    dest_id(rs)
        .u32(dest::FWD_METHOD, 0)
        .u32(dest::WEIGHT, weight as u32)
        .u32(dest::U_THRESH, 0)
        .u32(dest::L_THRESH, 0)
        .u16(dest::ADDR_FAMILY, af_of(rs.ip()))
}

/// The attributes of a service command.
pub fn for_svc(service: &Attrs) -> Attrs {
    Attrs::new().nest(top::SERVICE, service)
}

/// The attributes of a destination command.
pub fn for_dest(service: &Attrs, dest: &Attrs) -> Attrs {
    for_svc(service).nest(top::DEST, dest)
}

/// Counters and rates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub conns: u64,
    pub inpkts: u64,
    pub outpkts: u64,
    pub inbytes: u64,
    pub outbytes: u64,
}

impl Stats {
    /// Of a STATS or STATS64 nest: the members are as wide as the attribute says.
    fn parse(nest: &[u8]) -> Result<Self> {
        Ok(Self {
            conns: number(nest, 1)?,
            inpkts: number(nest, 2)?,
            outpkts: number(nest, 3)?,
            inbytes: number(nest, 4)?,
            outbytes: number(nest, 5)?,
        })
    }
}

/// A service as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub af: u16,
    pub proto: u16,
    pub fwmark: u32,
    pub vip: Option<SocketAddr>,
    pub sched: String,
    pub flags: u32,
    pub timeout: u32,
    pub netmask: u32,
    pub stats: Stats,
    pub stats64: Stats,
}

/// A destination as dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dest {
    pub addr: SocketAddr,
    pub method: u32,
    pub weight: i32,
    pub u_thresh: u32,
    pub l_thresh: u32,
    pub active: u32,
    pub inact: u32,
    pub persist: u32,
    pub stats: Stats,
    pub stats64: Stats,
}

/// A number as wide as the attribute is.
pub fn number(nest: &[u8], kind: u16) -> Result<u64> {
    let value = find(nest, kind).with_context(|| format!("attribute {kind} is missing"))?;
    Ok(match *value {
        [a] => a.into(),
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => bail!("attribute {kind} has {} bytes", value.len()),
    })
}

fn small<T: TryFrom<u64>>(nest: &[u8], kind: u16) -> Result<T> {
    T::try_from(number(nest, kind)?)
        .ok()
        .with_context(|| format!("attribute {kind} is out of range"))
}

fn socket_addr(nest: &[u8], af: u16, addr: u16, port: u16) -> Result<SocketAddr> {
    let bytes = find(nest, addr).context("no address")?;
    let ip = match af {
        2 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(
            bytes.get(..4).context("short address")?,
        )?)),
        10 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(
            bytes.get(..16).context("short address")?,
        )?)),
        _ => bail!("address family {af}"),
    };
    let port = find(nest, port).context("no port")?;
    Ok(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
}

impl Service {
    pub fn parse(attrs: &[u8]) -> Result<Self> {
        let nest = find(attrs, top::SERVICE).context("no service in the message")?;
        let af = small(nest, svc::AF)?;
        let fwmark = if find(nest, svc::FWMARK).is_some() {
            small(nest, svc::FWMARK)?
        } else {
            0
        };
        let text = |kind| {
            find(nest, kind)
                .map(|t| String::from_utf8_lossy(t).trim_end_matches('\0').to_owned())
                .unwrap_or_default()
        };
        let flags = find(nest, svc::FLAGS)
            .and_then(|f| f.get(..4))
            .context("no flags")?;
        Ok(Self {
            af,
            proto: if fwmark == 0 {
                small(nest, svc::PROTOCOL)?
            } else {
                0
            },
            fwmark,
            vip: if fwmark == 0 {
                Some(socket_addr(nest, af, svc::ADDR, svc::PORT)?)
            } else {
                None
            },
            sched: text(svc::SCHED_NAME),
            flags: u32::from_ne_bytes(flags.try_into()?),
            timeout: small(nest, svc::TIMEOUT)?,
            netmask: small(nest, svc::NETMASK)?,
            stats: Stats::parse(find(nest, svc::STATS).context("no stats")?)?,
            stats64: Stats::parse(find(nest, svc::STATS64).context("no stats64")?)?,
        })
    }
}

impl Dest {
    pub fn parse(attrs: &[u8]) -> Result<Self> {
        let nest = find(attrs, top::DEST).context("no destination in the message")?;
        let af = small(nest, dest::ADDR_FAMILY)?;
        Ok(Self {
            addr: socket_addr(nest, af, dest::ADDR, dest::PORT)?,
            method: small(nest, dest::FWD_METHOD)?,
            weight: small::<u32>(nest, dest::WEIGHT)? as i32,
            u_thresh: small(nest, dest::U_THRESH)?,
            l_thresh: small(nest, dest::L_THRESH)?,
            active: small(nest, dest::ACTIVE_CONNS)?,
            inact: small(nest, dest::INACT_CONNS)?,
            persist: small(nest, dest::PERSIST_CONNS)?,
            stats: Stats::parse(find(nest, dest::STATS).context("no stats")?)?,
            stats64: Stats::parse(find(nest, dest::STATS64).context("no stats64")?)?,
        })
    }
}

/// A socket that speaks to IPVS in one namespace.
pub struct Ipvs {
    pub genl: Genl,
    pub family: u16,
}

impl Ipvs {
    pub fn open(ns: &Ns) -> Result<Self> {
        Self::of(Genl::open(ns)?)
    }

    /// On a socket that is there already.
    pub fn of(genl: Genl) -> Result<Self> {
        match genl.family("IPVS")? {
            Ok(family) => Ok(Self { genl, family }),
            Err(e) => bail!("family IPVS: {}", std::io::Error::from_raw_os_error(e)),
        }
    }

    /// A command with an acknowledgement.
    pub fn call(&self, cmd: u8, attrs: &Attrs) -> Result<Reply> {
        self.genl.request(
            self.family,
            NLM_F_REQUEST | NLM_F_ACK,
            &genl_header(cmd, 1),
            &attrs.0,
        )
    }

    /// A command that must succeed.
    pub fn ok(&self, cmd: u8, attrs: &Attrs) -> Result<Reply> {
        self.call(cmd, attrs)?
            .ok()
            .with_context(|| format!("command {cmd}"))
    }

    /// A dump.
    pub fn dump(&self, cmd: u8, attrs: &Attrs) -> Result<Reply> {
        self.genl.request(
            self.family,
            NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
            &genl_header(cmd, 1),
            &attrs.0,
        )
    }

    pub fn services(&self) -> Result<Vec<Service>> {
        let reply = self.dump(cmd::GET_SERVICE, &Attrs::new())?.ok()?;
        reply
            .msgs
            .iter()
            .map(|m| Service::parse(&m.attrs))
            .collect()
    }

    /// One service by its identity.
    pub fn service(&self, proto: u8, vip: SocketAddr) -> Result<Service> {
        let reply = self.ok(cmd::GET_SERVICE, &for_svc(&svc_id(proto, vip)))?;
        Service::parse(&reply.msgs.first().context("no service came back")?.attrs)
    }

    pub fn dests(&self, proto: u8, vip: SocketAddr) -> Result<Vec<Dest>> {
        let reply = self
            .dump(cmd::GET_DEST, &for_svc(&svc_id(proto, vip)))?
            .ok()?;
        reply.msgs.iter().map(|m| Dest::parse(&m.attrs)).collect()
    }

    /// One destination of a service.
    pub fn dest(&self, proto: u8, vip: SocketAddr, rs: SocketAddr) -> Result<Dest> {
        self.dests(proto, vip)?
            .into_iter()
            .find(|d| d.addr == rs)
            .with_context(|| format!("{vip} has no destination {rs}"))
    }

    /// Version and number of connection hash buckets.
    pub fn info(&self) -> Result<(u32, u32)> {
        let reply = self.ok(cmd::GET_INFO, &Attrs::new())?;
        let attrs = &reply.msgs.first().context("no answer to GET_INFO")?.attrs;
        Ok((small(attrs, 1)?, small(attrs, 2)?))
    }

    /// Timeouts in seconds: TCP established, TCP FIN_WAIT, UDP.
    pub fn config(&self) -> Result<[u32; 3]> {
        let reply = self.ok(cmd::GET_CONFIG, &Attrs::new())?;
        let attrs = &reply.msgs.first().context("no answer to GET_CONFIG")?.attrs;
        Ok([small(attrs, 4)?, small(attrs, 5)?, small(attrs, 6)?])
    }
}
