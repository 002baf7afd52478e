// SPDX-License-Identifier: GPL-2.0-or-later

//! Tunnels, IPIP, GUE and GRE, with and without checksums, within and across families: every byte of
//! the outer headers, the inner packet as it was but for its time to live; lengths with and without
//! pmtu_disc; a local real server.
//!
//! Proves checklist items 103 to 107, and 108 and 109 for tunnels.

use std::net::{IpAddr, SocketAddr};

use anyhow::{ensure, Context, Result};

use crate::ipvs::{cmd, dest, dest_full, for_dest, svc_id, Ipvs};
use crate::pkt::{octets, pseudo, sum, Pkt, ACK, ICMP, ICMPV6, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Io, Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "tunnel",
    "IPIP, GUE and GRE, every byte of the headers",
    &[103, 104, 105, 106, 107],
    run,
)
.partly(&[108, 109]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipip,
    Gue {
        csum: bool,
    },
    /// With the inner checksum left to the receiver, if it is still to be made; otherwise as with `csum`.
    GueRemcsum,
    Gre {
        csum: bool,
    },
}

const KINDS: [Kind; 6] = [
    Kind::Ipip,
    Kind::Gue { csum: false },
    Kind::Gue { csum: true },
    Kind::GueRemcsum,
    Kind::Gre { csum: false },
    Kind::Gre { csum: true },
];

const GUE_PORT: u16 = 6080;

impl Kind {
    fn flags(self) -> String {
        match self {
            Kind::Ipip => "-i".to_owned(),
            Kind::Gue { csum } => format!(
                "-i --tun-type gue --tun-port {GUE_PORT} --tun-{}",
                if csum { "csum" } else { "nocsum" }
            ),
            Kind::GueRemcsum => {
                format!("-i --tun-type gue --tun-port {GUE_PORT} --tun-remcsum")
            }
            Kind::Gre { csum } => format!(
                "-i --tun-type gre --tun-{}",
                if csum { "csum" } else { "nocsum" }
            ),
        }
    }

    fn overhead(self, outer: Family) -> usize {
        let ip = if outer == Family::V4 { 20 } else { 40 };
        ip + match self {
            Kind::Ipip => 0,
            Kind::Gue { .. } | Kind::GueRemcsum => 12,
            Kind::Gre { csum } => 4 + if csum { 4 } else { 0 },
        }
    }
}

fn run(_cx: &Cx) -> Result<()> {
    for inner in Family::BOTH {
        for outer in Family::BOTH {
            let t = Test::new(inner, outer)?;
            for (n, kind) in (1..).zip(KINDS) {
                let what = || format!("{kind:?}, {inner:?} in {outer:?}");
                headers(&t, kind, at(inner.raw_client(n), 4000)).with_context(what)?;
            }
            remcsum(&t).with_context(|| format!("remcsum, {inner:?} in {outer:?}"))?;
        }
        lengths(inner).with_context(|| format!("lengths, {inner:?}"))?;
        local(inner).with_context(|| format!("local, {inner:?}"))?;
    }
    Ok(())
}

struct Test {
    rig: Rig,
    inner: Family,
    outer: Family,
    vip: SocketAddr,
    rs: IpAddr,
}

impl Test {
    fn new(inner: Family, outer: Family) -> Result<Self> {
        let rig = Rig::new()?;
        // Checksums are to be seen, not left to the device.
        rig.topo.director.cmd("ethtool -K s1 tx off")?;
        let vip = at(inner.vip(), 80);
        let rs = outer.raw_rs(1);
        Ok(Self {
            rig,
            inner,
            outer,
            vip,
            rs,
        })
    }

    /// One service, with one real server by such a tunnel.
    fn tunnel(&self, kind: Kind) -> Result<()> {
        let (vip, rs) = (self.vip, at(self.rs, 80));
        let table = format!("-A -t {vip} -s rr\n-a -t {vip} -r {rs} {}\n", kind.flags());
        self.rig.ipvsadm("-C")?;
        self.rig
            .topo
            .director
            .cmd_stdin("ipvsadm -R", &table)
            .map(drop)
    }
}

/// What arrived at the servers, as bytes from the IP header on.
fn one_raw(t: &Test, sent: &Pkt) -> Result<Vec<u8>> {
    let io = t.rig.exchange(Side::Client, std::slice::from_ref(sent))?;
    ensure!(
        io.server.len() == 1 && io.client.is_empty(),
        "sent {sent:?}: {io:#?}"
    );
    Ok(io.server[0].raw.clone())
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

fn headers(t: &Test, kind: Kind, client: SocketAddr) -> Result<()> {
    let (inner, outer) = (t.inner, t.outer);
    t.tunnel(kind)?;
    for (n, (tos, df)) in [(0u8, false), (0xb8, true), (0x29, true), (0x03, false)]
        .into_iter()
        .enumerate()
    {
        let df = df && inner == Family::V4;
        let sent = Pkt {
            ttl: 50 + n as u8,
            tos,
            df,
            body: vec![0x5a; 10 + 7 * n],
            ..Pkt::tcp(client, t.vip, if n == 0 { SYN } else { ACK })
        };
        let ttl = 49 + n as u8;
        let raw = one_raw(t, &sent)?;
        let payload = ip_header(&raw, outer, t, kind, tos, ttl, df)?;
        let payload = &raw[payload..];
        let inside = match kind {
            Kind::Ipip => payload,
            Kind::Gre { csum } => {
                let proto = if inner == Family::V4 { 0x0800 } else { 0x86dd };
                ensure!(
                    be16(payload, 0) == if csum { 0x8000 } else { 0 } && be16(payload, 2) == proto,
                    "GRE header {payload:02x?}"
                );
                if csum {
                    ensure!(
                        sum(payload, 0) % 0xffff == 0 && be16(payload, 6) == 0,
                        "GRE checksum in {payload:02x?}"
                    );
                    &payload[8..]
                } else {
                    &payload[4..]
                }
            }
            Kind::Gue { .. } | Kind::GueRemcsum => {
                udp_header(t, &raw, payload, kind != (Kind::Gue { csum: false }))?;
                ensure!(
                    payload[8..12] == [0, inner_proto(inner), 0, 0],
                    "GUE header {payload:02x?}"
                );
                &payload[12..]
            }
        };
        let want = aged(sent.bytes(), ttl);
        ensure!(
            inside == want,
            "inside: {inside:02x?}\nexpected {want:02x?}"
        );
    }
    // State and listing.
    let conn = proc::conn(&t.rig.topo.director, client)?.context("no connection")?;
    ensure!(
        conn.state == "ESTABLISHED" && conn.dest == at(t.rs, 80),
        "{conn:?}"
    );
    let listing = t.rig.ipvsadm("-Ln")?;
    ensure!(listing.contains(" Tunnel "), "{listing}");
    Ok(())
}

/// A packet with another time to live, and the checksum of IPv4 for it.
fn aged(mut packet: Vec<u8>, ttl: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] = ttl;
        packet[10..12].fill(0);
        let check = !(fold(sum(&packet[..20], 0)));
        packet[10..12].copy_from_slice(&check.to_be_bytes());
    } else {
        packet[7] = ttl;
    }
    packet
}

/// IPv4 or IPv6 in IP.
fn inner_proto(inner: Family) -> u8 {
    if inner == Family::V4 {
        4
    } else {
        41
    }
}

/// Checks the UDP header of a GUE tunnel's packet.
fn udp_header(t: &Test, raw: &[u8], payload: &[u8], csum: bool) -> Result<()> {
    ensure!(
        be16(payload, 0) >= 1024
            && be16(payload, 2) == GUE_PORT
            && usize::from(be16(payload, 4)) == payload.len(),
        "UDP header {payload:02x?}"
    );
    if csum {
        let start = pseudo(outer_source(raw, t.outer), t.rs, UDP, payload.len());
        ensure!(
            sum(payload, start) % 0xffff == 0,
            "UDP checksum {payload:02x?}"
        );
    } else {
        ensure!(be16(payload, 6) == 0, "UDP checksum {payload:02x?}");
    }
    Ok(())
}

/// A checksum that is still to be made is left to the receiver, who is told where it begins and goes; that takes eight bytes.
fn remcsum(t: &Test) -> Result<()> {
    const OVERHEAD: usize = 8 + 4 + 8;
    let (inner, kind) = (t.inner, Kind::GueRemcsum);
    t.tunnel(kind)?;
    let client = at(inner.raw_client(50), 4000);
    let start: u16 = if inner == Family::V4 { 20 } else { 40 };
    let partial = |flags: u8, len: usize| {
        let whole = Pkt {
            body: vec![0x5a; len],
            df: inner == Family::V4,
            ..Pkt::tcp(client, t.vip, flags)
        };
        let csum = pseudo(whole.src, whole.dst, TCP, 20 + len) as u16;
        Pkt {
            csum: Some(csum),
            ..whole
        }
    };
    let exchange = |pkt: &Pkt| -> Result<Io> {
        t.rig.ctap.send_partial(&pkt.bytes(), start, 16, 0)?;
        t.rig.finish(Side::Client)
    };
    for (flags, len) in [(SYN, 0), (ACK, 33), (ACK, 1000)] {
        let sent = partial(flags, len);
        let io = exchange(&sent)?;
        ensure!(io.server.len() == 1 && io.client.is_empty(), "{io:#?}");
        let raw = &io.server[0].raw;
        let at = ip_header(raw, t.outer, t, kind, 0, 63, sent.df)?;
        let payload = &raw[at..];
        udp_header(t, raw, payload, true)?;
        let mut gue = vec![2, inner_proto(inner), 0, 1, 0x80, 0, 0, 0];
        gue.extend(start.to_be_bytes());
        gue.extend((start + 16).to_be_bytes());
        ensure!(payload[8..20] == gue, "GUE header {:02x?}", &payload[8..20]);
        ensure!(
            payload[20..] == aged(sent.bytes(), 63),
            "inside: {:02x?}",
            &payload[20..]
        );
    }
    let director = &t.rig.topo.director;
    director.cmd("ip link set s1 mtu 1400")?;
    let ip = if t.outer == Family::V4 { 20 } else { 40 };
    let room = 1400 - ip - OVERHEAD;
    let len = room - usize::from(start) - 20;
    let io = exchange(&partial(ACK, len))?;
    ensure!(
        io.server.len() == 1 && io.server[0].raw.len() == 1400,
        "{io:#?}"
    );
    let told = exchange(&partial(ACK, len + 1))?.one_at_client()?;
    ensure!(
        told.icmp_rest & 0xffff == room as u32 && told.dst == client.ip(),
        "room {room}: {told:?}"
    );
    director.cmd("ip link set s1 mtu 1500").map(drop)
}

fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

fn outer_source(raw: &[u8], outer: Family) -> IpAddr {
    match outer {
        Family::V4 => IpAddr::from(<[u8; 4]>::try_from(&raw[12..16]).unwrap_or_default()),
        Family::V6 => IpAddr::from(<[u8; 16]>::try_from(&raw[8..24]).unwrap_or_default()),
    }
}

/// Checks the outer IP header; where it ends.
fn ip_header(
    raw: &[u8],
    outer: Family,
    t: &Test,
    kind: Kind,
    tos: u8,
    ttl: u8,
    df: bool,
) -> Result<usize> {
    let inner = Family::of(t.vip.ip());
    let proto = match kind {
        Kind::Ipip if inner == Family::V4 => 4,
        Kind::Ipip => 41,
        Kind::Gue { .. } | Kind::GueRemcsum => UDP,
        Kind::Gre { .. } => 47,
    };
    // "Congestion experienced" becomes "capable of it" outside.
    let tos = if tos & 3 == 3 { (tos & !3) | 2 } else { tos };
    let src = outer_source(raw, outer);
    ensure!(src == outer.director_at(1), "from {src}");
    match outer {
        Family::V4 => {
            let frag = if df { 0x4000 } else { 0 };
            ensure!(
                raw[0] == 0x45
                    && raw[1] == tos
                    && usize::from(be16(raw, 2)) == raw.len()
                    && be16(raw, 6) == frag
                    && raw[8] == ttl
                    && raw[9] == proto
                    && raw[16..20] == octets(t.rs)
                    && sum(&raw[..20], 0) % 0xffff == 0,
                "outer header {:02x?}",
                &raw[..20]
            );
            Ok(20)
        }
        Family::V6 => {
            ensure!(
                raw[0] == (0x60 | (tos >> 4))
                    && raw[1] == tos << 4
                    && raw[2..4] == [0, 0]
                    && usize::from(be16(raw, 4)) == raw.len() - 40
                    && raw[6] == proto
                    && raw[7] == ttl
                    && raw[24..40] == octets(t.rs),
                "outer header {:02x?}",
                &raw[..40]
            );
            Ok(40)
        }
    }
}

fn lengths(inner: Family) -> Result<()> {
    for outer in Family::BOTH {
        let t = Test::new(inner, outer)?;
        let director = &t.rig.topo.director;
        director.cmd("ip link set s1 mtu 1400")?;
        for (n, kind) in (1..).zip(KINDS) {
            director.set_sysctl("net.ipv4.vs.pmtu_disc", 1)?;
            t.tunnel(kind)?;
            let client = at(inner.raw_client(n), 4000);
            let room = 1400 - kind.overhead(outer);
            let header = if inner == Family::V4 { 40 } else { 60 };
            let of = |total: usize, df: bool| Pkt {
                body: vec![7; total - header],
                df,
                ..Pkt::tcp(client, t.vip, ACK)
            };
            let df = inner == Family::V4;
            one_raw(&t, &Pkt::tcp(client, t.vip, SYN))?;
            let raw = one_raw(&t, &of(room, df))?;
            ensure!(raw.len() == 1400, "{kind:?}: {} bytes", raw.len());
            let answer = t.rig.answered(&of(room + 1, df))?;
            let long = if inner == Family::V4 {
                (ICMP, 3, 4)
            } else {
                (ICMPV6, 2, 0)
            };
            ensure!(
                (answer.proto, answer.icmp_type, answer.icmp_code) == long
                    && answer.icmp_rest & 0xffff == room as u32,
                "{kind:?} in {outer:?}, room {room}: {answer:?}"
            );
            if inner == Family::V6 {
                continue;
            }
            // What may be fragmented is, and so is everything without pmtu_disc.
            let count = |pkt: &Pkt| -> Result<usize> {
                let io = t.rig.exchange(Side::Client, std::slice::from_ref(pkt))?;
                Ok(io.server.len())
            };
            ensure!(count(&of(room + 1, false))? == 2, "{kind:?}: no fragments");
            director.set_sysctl("net.ipv4.vs.pmtu_disc", 0)?;
            ensure!(count(&of(room + 1, true))? == 2, "{kind:?}: no fragments");
            let raw = one_raw(&t, &of(room, true))?;
            ensure!(
                outer == Family::V6 || be16(&raw, 6) == 0,
                "{kind:?}: {:02x?}",
                &raw[..20]
            );
        }
    }
    // Time is up.
    let t = Test::new(inner, Family::V4)?;
    t.tunnel(Kind::Ipip)?;
    let answer = t.rig.answered(&Pkt {
        ttl: 1,
        ..Pkt::tcp(at(inner.raw_client(1), 4000), t.vip, SYN)
    })?;
    let late = if inner == Family::V4 {
        (ICMP, 11, 0)
    } else {
        (ICMPV6, 3, 0)
    };
    ensure!(
        (answer.proto, answer.icmp_type, answer.icmp_code) == late,
        "{answer:?}"
    );
    Ok(())
}

/// A real server on the director needs no tunnel.
fn local(family: Family) -> Result<()> {
    let topo = Topo::new(1)?;
    let vip = at(family.vip(), 80);
    let _server = Server::tcp(&topo.director, vip, "here")?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    let ipvs = Ipvs::open(&topo.director)?;
    let add =
        dest_full(at(family.director_at(1), 80), 1).with(dest::FWD_METHOD, &2u32.to_ne_bytes());
    ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(TCP, vip), &add))?;
    for ns in [&topo.client, &topo.director] {
        let body = serve::http_get(ns, vip)?;
        ensure!(serve::name(&body) == "here", "{body:?}");
    }
    Ok(())
}
