// SPDX-License-Identifier: GPL-2.0-or-later

//! The same packets, right and wrong in every way (`wire/gen.rs`), to both modules one after the other: all that leaves the
//! director, on either side, must be the same byte for byte (`wire/compare.rs` says what may differ and why), and so must be
//! the counters and the states of connections.
//!
//! `RVS_PACKETS=10000 make test SCENARIO=wire_diff_nat` sends as many by each way, `RVS_WAY="Nat, V4"` only by those with
//! that in their names, and `RVS_ROUND=3` begins with the packets of that round. With `PEER=c` both runs are C's, which
//! shows that the comparison itself holds.
//!
//! Proves checklist items 88 to 95, 97, 100 to 112 as far as packets show it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest, dest_full, for_dest, svc_id, Ipvs};
use crate::modules;
use crate::ns::Ns;
use crate::pkt::{Pkt, FENCE, TCP, UDP};
use crate::proc;
use crate::rig::{one_cpu, Side};
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::tap::{Tap, ETH_LEN, VNET_LEN};
use crate::topo::{at, mac, Family, Topo};
use crate::wait::{scaled, slow};
use crate::wire::build::SCTP;
use crate::wire::compare::{meant, Masks, Own, Seen};
use crate::wire::gen::{self, batch, Shot, Tunnel, Way, ONE_PACKET, PERSISTENT, PORT};

const fn scenario(
    name: &'static str,
    doc: &'static str,
    items: &'static [u16],
    run: fn(&Cx) -> Result<()>,
) -> Scenario {
    Scenario::new(name, doc, &[], run)
        .partly(items)
        .own_modules()
        .timeout(900.0)
}

pub const NAT: Scenario = scenario(
    "wire_diff_nat",
    "NAT of any packets: on the wire as C does it",
    &[88, 89, 90, 91, 92, 93, 94, 95, 97, 100, 101, 108, 109, 110],
    |cx| run(cx, &[Method::Nat, Method::NatLocal]),
);

pub const DIRECT: Scenario = scenario(
    "wire_diff_direct",
    "direct routing, local node and bypass of any packets: on the wire as C does it",
    &[89, 90, 92, 102, 108, 109, 110, 111, 116],
    |cx| {
        run(
            cx,
            &[
                Method::Direct,
                Method::DirectLocal,
                Method::Local,
                Method::Bypass,
            ],
        )
    },
);

pub const TUNNEL: Scenario = scenario(
    "wire_diff_tunnel",
    "any packets in tunnels: on the wire as C does it",
    &[103, 104, 105, 106, 107, 108, 109, 110],
    |cx| {
        let mut methods = Vec::new();
        for outer in Family::BOTH {
            methods.extend(KINDS.map(|kind| Method::Tunnel(kind, outer)));
        }
        run(cx, &methods)
    },
);

/// How many packets each way gets unless RVS_PACKETS says otherwise.
const PACKETS: usize = 240;
/// How many at most in one life of the director, so that the captures fit into memory.
const AT_ONCE: usize = 2000;
/// Packets between two fences.
const BATCH: usize = 40;

const MARK: u32 = 10;
const GUE_PORT: u16 = 6080;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipip,
    Gue(&'static str),
    Gre(&'static str),
}

const KINDS: [Kind; 6] = [
    Kind::Ipip,
    Kind::Gue("nocsum"),
    Kind::Gue("csum"),
    Kind::Gue("remcsum"),
    Kind::Gre("nocsum"),
    Kind::Gre("csum"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Nat,
    /// To a server on the director.
    NatLocal,
    Direct,
    DirectLocal,
    /// The method of that name, which takes no notice of the destination.
    Local,
    Bypass,
    Tunnel(Kind, Family),
}

/// A method for packets of a family, and what it takes.
struct Lane {
    /// By which its addresses are told from others', and its packets chosen.
    number: u8,
    method: Method,
    way: Way,
    /// The real server as configured.
    server: IpAddr,
}

fn vip(family: Family, n: u8) -> IpAddr {
    match family.vip() {
        IpAddr::V4(a) => {
            let [a, b, c, _] = a.octets();
            Ipv4Addr::new(a, b, c, n).into()
        }
        IpAddr::V6(a) => {
            let mut octets = a.octets();
            octets[15] = n;
            octets.into()
        }
    }
}

impl Lane {
    fn new(method: Method, family: Family, n: u8) -> Self {
        let own = vip(family, n);
        let director = family.director_at(1);
        let crafted = family.raw_rs(n);
        let (vip, answers, server) = match method {
            Method::Nat => (own, Some(crafted), crafted),
            Method::NatLocal | Method::DirectLocal => (own, None, director),
            Method::Direct => (own, Some(own), crafted),
            Method::Local => (own, None, crafted),
            Method::Bypass => (crafted, Some(crafted), crafted),
            Method::Tunnel(_, outer) => (own, Some(own), outer.raw_rs(n)),
        };
        let tunnel = match method {
            Method::Tunnel(kind, outer) => {
                let inner = if family == Family::V4 { 4 } else { 41 };
                let (proto, bytes) = match kind {
                    Kind::Ipip => (inner, Vec::new()),
                    Kind::Gue(_) => {
                        let mut b = crate::wire::build::udp((50_000, GUE_PORT), &[0; 40]);
                        b.truncate(8);
                        b.extend([0, inner, 0, 0]);
                        (UDP, b)
                    }
                    Kind::Gre(csum) => {
                        let [hi, lo] = if inner == 4 { [8, 0] } else { [0x86, 0xdd] };
                        let mut b = vec![0, 0, hi, lo];
                        if csum == "csum" {
                            b[0] = 0x80;
                            b.extend([0; 4]);
                        }
                        (47, b)
                    }
                };
                Some(Tunnel {
                    director: outer.director_at(1),
                    server,
                    proto,
                    bytes,
                })
            }
            _ => None,
        };
        let name = match method {
            Method::Tunnel(kind, outer) => format!("{kind:?}, {family:?} in {outer:?}"),
            _ => format!("{method:?}, {family:?}"),
        };
        let nat = matches!(method, Method::Nat | Method::NatLocal);
        Self {
            number: n,
            method,
            way: Way {
                name,
                family,
                vip,
                server: answers,
                port: if nat { 8080 } else { PORT },
                tunnel,
            },
            server,
        }
    }

    /// What `ipvsadm -R` is to be told.
    fn rules(&self, out: &mut String) -> Result<()> {
        let flags = match self.method {
            // By netlink: ipvsadm has no word for it.
            Method::Local => return Ok(()),
            // One service by mark for the family, without a server.
            Method::Bypass => {
                let six = if self.way.family == Family::V6 {
                    "-6"
                } else {
                    ""
                };
                writeln!(out, "-A -f {MARK} {six} -s rr")?;
                return Ok(());
            }
            Method::Nat | Method::NatLocal => "-m".to_owned(),
            Method::Direct | Method::DirectLocal => "-g".to_owned(),
            Method::Tunnel(Kind::Ipip, _) => "-i".to_owned(),
            Method::Tunnel(Kind::Gue(csum), _) => {
                format!("-i --tun-type gue --tun-port {GUE_PORT} --tun-{csum}")
            }
            Method::Tunnel(Kind::Gre(csum), _) => format!("-i --tun-type gre --tun-{csum}"),
        };
        for (kind, port, more) in [
            ("-t", PORT, ""),
            ("-t", PERSISTENT, "-p 300"),
            ("-u", PORT, ""),
            ("-u", ONE_PACKET, "-o"),
            ("-u", 500, ""),
            ("--sctp-service", PORT, ""),
        ] {
            let vip = at(self.way.vip, port);
            let rport = if port == PORT { self.way.port } else { port };
            writeln!(out, "-A {kind} {vip} -s rr {more}")?;
            writeln!(out, "-a {kind} {vip} -r {} {flags}", at(self.server, rport))?;
        }
        Ok(())
    }

    /// Where the director itself answers.
    fn local_ends(&self) -> Vec<(IpAddr, u16)> {
        match self.method {
            Method::NatLocal => vec![(self.server, self.way.port), (self.server, 500)],
            Method::DirectLocal | Method::Local => vec![(self.way.vip, PORT), (self.way.vip, 500)],
            _ => Vec::new(),
        }
    }
}

/// The network, and what is sent and seen.
struct Stage {
    /// Servers on the director, which send back what they get. They go before it does (see [`Topo`]).
    echoes: Vec<UdpSocket>,
    topo: Topo,
    ctap: Tap,
    stap: Tap,
    fence: u32,
}

/// What came of some packets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Came {
    client: Vec<Seen>,
    server: Vec<Seen>,
    /// Connections, packets and bytes counted so far.
    totals: [u64; 5],
}

/// A stretch of packets by one way.
struct Leg {
    lane: usize,
    settings: String,
    /// To make the packets of each batch again, and what came of them.
    batches: Vec<(Rng, u16, Came)>,
    conns: BTreeSet<String>,
}

impl Stage {
    fn new(lanes: &[Lane]) -> Result<Self> {
        one_cpu()?;
        let topo = Topo::new(1)?;
        let director = &topo.director;
        let mut batch = String::new();
        for lane in lanes.iter().filter(|l| l.method != Method::Bypass) {
            let (len, nodad) = match lane.way.family {
                Family::V4 => (32, ""),
                Family::V6 => (128, "nodad"),
            };
            writeln!(batch, "addr add {}/{len} dev lo {nodad}", lane.way.vip)?;
        }
        // The links carry what is sent, the routes less. Nobody is asked for an Ethernet address: an answer that never comes would make the kernel drop the packet, and say so,
        // seconds later.
        batch += "link set c0 mtu 9000 arp off\nlink set s1 mtu 9000 arp off\n\
                  route change 10.8.1.0/24 via 10.0.1.2 mtu 1400\n\
                  route change fd08:1::/32 via fd00:0:0:1::2 mtu 1400\n\
                  route change 10.9.0.0/16 via 10.0.0.2 mtu 1500\n\
                  route change fd09::/32 via fd00::2 mtu 1500\n";
        for six in ["", "-6 "] {
            director.cmd(&format!("ip {six}rule add fwmark {MARK} lookup 100"))?;
            director.cmd(&format!("ip {six}route add local default dev lo table 100"))?;
        }
        director.ip(&batch)?;
        for (ns, dev) in [(&topo.client, "eth0"), (&topo.rs[0], "eth0")] {
            ns.cmd(&format!("ip link set {dev} mtu 9000"))?;
            // The namespaces at both ends look and don't answer.
            ns.cmd(&format!("tc qdisc add dev {dev} clsact"))?;
            ns.cmd(&format!(
                "tc filter add dev {dev} ingress matchall action drop"
            ))?;
        }
        for (key, value) in [
            ("net.ipv4.ip_default_ttl", gen::OWN_TTL.into()),
            ("net.ipv6.conf.all.hop_limit", gen::OWN_TTL.into()),
            ("net.ipv6.conf.default.hop_limit", gen::OWN_TTL.into()),
            ("net.ipv6.conf.c0.hop_limit", gen::OWN_TTL.into()),
            ("net.ipv6.conf.s1.hop_limit", gen::OWN_TTL.into()),
            // A hash of a random key.
            ("net.ipv6.auto_flowlabels", 0),
            // What the real servers send in the virtual address's name comes back to its owner.
            ("net.ipv4.conf.all.accept_local", 1),
            ("net.ipv4.conf.all.accept_source_route", 1),
            ("net.ipv4.conf.c0.accept_source_route", 1),
            // Sent as often as time allows.
            ("net.ipv4.conf.all.send_redirects", 0),
            ("net.ipv4.conf.c0.send_redirects", 0),
            ("net.ipv4.conf.s1.send_redirects", 0),
            ("net.ipv4.conf.all.accept_redirects", 0),
            ("net.ipv6.conf.all.accept_redirects", 0),
            // Every so often the kernel forgets what it has learned of paths through gateways that are no routers to it.
            ("net.ipv6.route.gc_interval", 3600),
            // Pieces of what never gets whole stay as long as the test.
            ("net.ipv4.ipfrag_time", 3600),
            ("net.ipv6.ip6frag_time", 3600),
            ("net.ipv4.ipfrag_high_thresh", 256 << 20),
            ("net.ipv6.ip6frag_high_thresh", 256 << 20),
            // A table that grows is dumped with gaps: this one stays as small as it is.
            ("net.ipv4.vs.conn_lfactor", 8),
        ] {
            director.set_sysctl(key, value)?;
        }
        let mut rules = String::new();
        for lane in lanes {
            lane.rules(&mut rules)?;
        }
        director.cmd_stdin("ipvsadm -R", &rules)?;
        // After the first IPv6 service, whose defragmentation has its own settings.
        for (key, value) in [
            ("net.netfilter.nf_conntrack_frag6_timeout", 3600),
            ("net.netfilter.nf_conntrack_frag6_high_thresh", 256 << 20),
        ] {
            director.set_sysctl(key, value)?;
        }
        let ipvs = Ipvs::open(director)?;
        for lane in lanes.iter().filter(|l| l.method == Method::Local) {
            local_services(&ipvs, lane)?;
        }
        let mut echoes = Vec::new();
        for (addr, port) in lanes.iter().flat_map(Lane::local_ends) {
            let socket = director.run(|| UdpSocket::bind(at(addr, port)));
            let socket = socket.with_context(|| format!("binding {addr} port {port}"))?;
            socket.set_nonblocking(true)?;
            echoes.push(socket);
        }
        if lanes.iter().any(|l| l.method == Method::Bypass) {
            director.set_sysctl("net.ipv4.vs.cache_bypass", 1)?;
            let mut rules =
                "table inet t {\n chain pre {\n type filter hook prerouting priority -150;\n"
                    .to_owned();
            for lane in lanes.iter().filter(|l| l.method == Method::Bypass) {
                let ip = match lane.way.family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                writeln!(
                    rules,
                    "iif c0 {ip} daddr {} meta mark set {MARK};",
                    lane.way.vip
                )?;
            }
            rules += "}\n}\n";
            director.cmd_stdin("nft -f -", &rules)?;
        }
        if lanes.iter().any(|l| l.way.tunnel.is_some()) {
            marked_errors(director)?;
        }
        // Has connections tracked.
        let rules = "table inet tracked {\n chain pre {\n type filter hook prerouting priority 0; ct state invalid accept;\n}\n}\n";
        director.cmd_stdin("nft -f -", rules)?;
        let ctap = Tap::open(&topo.client, "eth0", mac(0, 2), mac(0, 1))?;
        let stap = Tap::open(&topo.rs[0], "eth0", mac(1, 2), mac(1, 1))?;
        for tap in [&ctap, &stap] {
            tap.received_only()?;
        }
        Ok(Self {
            echoes,
            topo,
            ctap,
            stap,
            fence: 0,
        })
    }

    fn tap(&self, side: Side) -> &Tap {
        match side {
            Side::Client => &self.ctap,
            Side::Server => &self.stap,
        }
    }

    fn send(&self, shot: &Shot) -> Result<()> {
        let tap = self.tap(shot.from);
        let mut vnet = [0; VNET_LEN];
        if let Some(offload) = shot.offload {
            let words = [
                offload.headers + ETH_LEN,
                offload.segment.into(),
                offload.start + ETH_LEN,
                offload.offset,
            ];
            vnet[0] = 1; // VIRTIO_NET_HDR_F_NEEDS_CSUM
            if offload.segment != 0 {
                // VIRTIO_NET_HDR_GSO_TCPV4, _TCPV6
                vnet[1] = if shot.bytes[0] >> 4 == 4 { 1 } else { 4 };
            }
            for (n, word) in words.into_iter().enumerate() {
                if n >= 2 || offload.segment != 0 {
                    vnet[2 + 2 * n..4 + 2 * n].copy_from_slice(&(word as u16).to_ne_bytes());
                }
            }
        }
        let to = match (shot.broadcast, shot.from) {
            (true, _) => [0xff; 6],
            (false, Side::Client) => mac(0, 1),
            (false, Side::Server) => mac(1, 1),
        };
        tap.send_as(vnet, to, &shot.bytes)
    }

    /// All that has arrived on one side when a plain packet from the other one does: everything is done on one
    /// processor, so nothing sent before can come later.
    fn pass(&mut self, from: Side) -> Result<Vec<Seen>> {
        self.fence += 1;
        let (client, server) = (Family::V4.raw_client(0xffff), Family::V4.raw_rs(254));
        let (src, dst, other) = match from {
            Side::Client => (client, server, Side::Server),
            Side::Server => (server, client, Side::Client),
        };
        let fence = Pkt {
            body: self.fence.to_be_bytes().to_vec(),
            ..Pkt::new(src, dst, FENCE)
        };
        self.tap(from).send(&fence)?;
        let mut mark = crate::pkt::octets(src);
        mark.extend(crate::pkt::octets(dst));
        mark.extend(&fence.body);
        let mut seen = Vec::new();
        loop {
            let tap = match other {
                Side::Client => &self.ctap,
                Side::Server => &self.stap,
            };
            let Some(frame) = tap.recv_bytes(scaled(10.0))? else {
                bail!("fence {} from the {from:?} side got lost", self.fence)
            };
            let Some(ip) = frame.get(VNET_LEN + ETH_LEN..) else {
                continue;
            };
            if ip.get(12..24) == Some(&mark) {
                return Ok(seen);
            }
            // The director announces its multicast memberships when it likes.
            let multicast = ip.first().is_some_and(|b| b >> 4 == 6) && ip.get(24) == Some(&0xff);
            let ether = [frame[VNET_LEN + 12], frame[VNET_LEN + 13]];
            if !multicast && (ether == [8, 0] || ether == [0x86, 0xdd]) {
                seen.push(Seen(frame));
            }
        }
    }

    /// Sends what is to be sent and collects what comes of it.
    fn exchange(&mut self, shots: &[Shot]) -> Result<Came> {
        for shot in shots {
            self.send(shot)
                .with_context(|| format!("sending {shot:02x?}"))?;
        }
        let mut came = Came::default();
        let mut again = true;
        while again {
            came.server.extend(self.pass(Side::Client)?);
            came.client.extend(self.pass(Side::Server)?);
            again = false;
            for socket in &self.echoes {
                let mut body = [0; 4096];
                while let Ok((len, from)) = socket.recv_from(&mut body) {
                    again = true;
                    // Who sent from port 0 gets no answer.
                    let _ = socket.send_to(&body[..len], from);
                }
            }
        }
        let own = Own {
            tunnels: (
                Ipv4Addr::new(10, 0, 1, 1),
                Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 1),
            ),
            gue_port: GUE_PORT,
        };
        for frames in [&mut came.client, &mut came.server] {
            let mut masks = Masks::default();
            *frames = frames.drain(..).map(|f| masks.apply(f, own)).collect();
        }
        let text = self.topo.director.read("/proc/net/ip_vs_stats_percpu")?;
        for line in text.lines() {
            let (cpu, row) = line.split_at(line.len().min(3));
            if u32::from_str_radix(cpu.trim(), 16).is_err() {
                continue;
            }
            for (total, n) in came.totals.iter_mut().zip(proc::hex_row(row)?) {
                *total += n;
            }
        }
        Ok(came)
    }

    /// The connections of some clients and their states, but for states that do not last: as soon as they are those
    /// that are `hoped` for.
    fn conns(
        &self,
        family: Family,
        clients: std::ops::Range<u16>,
        hoped: Option<&BTreeSet<String>>,
    ) -> Result<BTreeSet<String>> {
        const SHORT: [&str; 5] = ["NONE", "CLOSE", "INIT1", "REJECTED", "LAST_ACK"];
        let number = |ip: IpAddr| match ip {
            IpAddr::V4(a) => u16::from_be_bytes([a.octets()[2], a.octets()[3]]),
            IpAddr::V6(a) => a.segments()[7],
        };
        let rows = || -> Result<BTreeSet<String>> {
            let conns = proc::conns(&self.topo.director)?;
            let mine = conns.iter().filter(|c| {
                Family::of(c.client.ip()) == family
                    && clients.contains(&number(c.client.ip()))
                    && c.client.port() != 0
                    && !SHORT.contains(&c.state.as_str())
            });
            Ok(mine
                .map(|c| format!("{} {} {} {} {}", c.proto, c.client, c.vip, c.dest, c.state))
                .collect())
        };
        // What is over goes when a timer says so.
        let end = Instant::now() + scaled(3.0);
        let mut last = rows()?;
        loop {
            let now = rows()?;
            let settled = hoped.map_or(now == last, |hoped| now == *hoped);
            if settled || Instant::now() > end {
                return Ok(now);
            }
            last = now;
        }
    }
}

/// Services by mark, whose every packet is an ICMP error from the real servers' side: with `schedule_icmp` those about tunnels that
/// are not known for such begin connections.
fn marked_errors(director: &Ns) -> Result<()> {
    const MARK: u32 = 20;
    for (family, six) in Family::BOTH.into_iter().zip(["", "-6"]) {
        let rs = at(family.raw_rs(200), 0);
        let table = format!("-A -f {MARK} {six} -s rr\n-a -f {MARK} {six} -r {rs} -m\n");
        director.cmd_stdin("ipvsadm -R", &table)?;
    }
    let rules = format!(
        "table inet errors {{\n chain pre {{\n type filter hook prerouting priority -150;\n\
         iif s1 meta l4proto {{ icmp, ipv6-icmp }} meta mark set {MARK};\n}}\n}}\n"
    );
    director.cmd_stdin("nft -f -", &rules).map(drop)
}

fn local_services(ipvs: &Ipvs, lane: &Lane) -> Result<()> {
    for (proto, port) in [(TCP, PORT), (UDP, PORT), (UDP, 500), (SCTP, PORT)] {
        let vip = at(lane.way.vip, port);
        let service = crate::ipvs::svc_full(proto, vip, "rr");
        ipvs.ok(
            cmd::NEW_SERVICE,
            &Attrs::new().nest(crate::ipvs::top::SERVICE, &service),
        )?;
        let server =
            dest_full(at(lane.server, port), 1).with(dest::FWD_METHOD, &1_u32.to_ne_bytes());
        ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(proto, vip), &server))?;
    }
    Ok(())
}

/// The director's settings for one stretch.
fn settings(rng: &mut Rng) -> Vec<(&'static str, u32)> {
    vec![
        ("pmtu_disc", 1 - u32::from(rng.chance(3))),
        ("nat_icmp_send", u32::from(rng.chance(3))),
        ("snat_reroute", 1 - u32::from(rng.chance(3))),
        ("sloppy_tcp", u32::from(rng.chance(3))),
        ("sloppy_sctp", u32::from(rng.chance(3))),
        // C leaves the end of the old connection to a timer: which one the next packet finds is a matter of time. The
        // scenario conn_reuse has that.
        ("conn_reuse_mode", 0),
        ("conntrack", u32::from(rng.chance(3))),
        ("schedule_icmp", u32::from(rng.chance(2))),
        ("ignore_tunneled", u32::from(rng.chance(3))),
    ]
}

/// One life of a director: half of the packets with a device that does everything, half with one that does nothing.
fn play(lanes: &[Lane], seed: u64, packets: usize, other: &[Leg]) -> Result<Vec<Leg>> {
    let mut stage = Stage::new(lanes)?;
    let mut legs = Vec::new();
    for plain in [false, true] {
        if plain {
            for dev in ["c0", "s1"] {
                let line = format!("ethtool -K {dev} tx off sg off tso off gso off");
                stage.topo.director.cmd(&line)?;
            }
        }
        for (n, lane) in lanes.iter().enumerate() {
            // The same whichever ways there are besides.
            let number = u16::from(lane.number) * 2 + u16::from(plain);
            let mut rng = Rng::new(seed.wrapping_mul(1000).wrapping_add(number.into()));
            let mut client = number * 500;
            let settings = settings(&mut rng);
            for (key, value) in &settings {
                let key = format!("net.ipv4.vs.{key}");
                stage.topo.director.set_sysctl(&key, value)?;
            }
            let mut leg = Leg {
                lane: n,
                settings: format!("plain device {plain}, {settings:?}"),
                batches: Vec::new(),
                conns: BTreeSet::new(),
            };
            let first = client;
            let mut sent = 0;
            while sent < packets.div_ceil(2) {
                let again = (rng.clone(), client);
                let shots = batch(&mut rng, &lane.way, BATCH, &mut client);
                sent += shots.len();
                let came = stage
                    .exchange(&shots)
                    .with_context(|| lane.way.name.clone())?;
                leg.batches.push((again.0, again.1, came));
            }
            let clients = first..client.saturating_add(1);
            let hoped = other.get(legs.len()).map(|leg| &leg.conns);
            leg.conns = stage.conns(lane.way.family, clients, hoped)?;
            legs.push(leg);
        }
    }
    if modules::loaded("ip_vs")? {
        // C gives up its walk for routes over a device that goes down (`ip_vs_dst_event()`) if the table of services was resized
        // meanwhile; then nobody lets go of the device, which waits for ever. There is no route of a service that is gone.
        stage.topo.ipvsadm("-C")?;
    }
    Ok(legs)
}

/// What the comparison found.
#[derive(Default)]
struct Score {
    sent: BTreeMap<String, usize>,
    out: usize,
    meant: BTreeMap<String, usize>,
    conns: usize,
    wrong: Vec<String>,
}

impl Score {
    fn leg(&mut self, lane: &Lane, ours: &Leg, c: &Leg) -> Result<()> {
        let name = &lane.way.name;
        let before = self.wrong.len();
        let mut counted = [0; 5];
        let mut counted_by_c = [0; 5];
        for (n, ((rng, client, ours), (.., c))) in ours.batches.iter().zip(&c.batches).enumerate() {
            let (mut rng, mut client) = (rng.clone(), *client);
            let shots = batch(&mut rng, &lane.way, BATCH, &mut client);
            *self.sent.entry(name.clone()).or_default() += shots.len();
            let mut found = Vec::new();
            for (side, ours, c) in [
                ("client", &ours.client, &c.client),
                ("server", &ours.server, &c.server),
            ] {
                self.out += ours.len();
                if ours.len() == c.len() {
                    for (ours, c) in ours.iter().zip(c).filter(|(ours, c)| ours != c) {
                        match meant(ours, c) {
                            Some(why) => {
                                *self.meant.entry(format!("{why:?}")).or_default() += 1;
                            }
                            None => found.push(format!("to the {side}\nours {ours:?}\nC's  {c:?}")),
                        }
                    }
                } else {
                    let only = |a: &[Seen], b: &[Seen]| {
                        listed(
                            a.iter()
                                .filter(|s| !b.contains(s))
                                .map(|s| format!("{s:?}")),
                        )
                    };
                    found.push(format!(
                        "to the {side}: {} frames, C {}\nours alone{}\nC's alone{}",
                        ours.len(),
                        c.len(),
                        only(ours, c),
                        only(c, ours)
                    ));
                }
            }
            let step = |now: &[u64; 5], last: &[u64; 5]| {
                let pairs = now.iter().zip(last);
                pairs.map(|(a, b)| a.wrapping_sub(*b)).collect::<Vec<_>>()
            };
            let (a, b) = (step(&ours.totals, &counted), step(&c.totals, &counted_by_c));
            if n > 0 && a != b {
                found.push(format!("counted {a:?}, C {b:?}"));
            }
            (counted, counted_by_c) = (ours.totals, c.totals);
            if !found.is_empty() {
                let mut text = format!("{name}, batch {n}: {}\n", found.join("\n"));
                if self.wrong.len() < 3 {
                    for shot in &shots {
                        let hex = hex(&shot.bytes);
                        writeln!(
                            text,
                            "  sent by {:?} {:?}{} {hex}",
                            shot.from,
                            shot.offload,
                            if shot.broadcast { " to all" } else { "" }
                        )?;
                    }
                }
                self.wrong.push(text);
            }
        }
        self.conns += ours.conns.len();
        if ours.conns != c.conns {
            let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
                listed(a.difference(b).take(10).cloned())
            };
            self.wrong.push(format!(
                "{name}: connections, ours alone{}\nC's alone{}",
                only(&ours.conns, &c.conns),
                only(&c.conns, &ours.conns)
            ));
        }
        if self.wrong.len() > before {
            println!("{name}: with {}", ours.settings);
        }
        Ok(())
    }
}

/// How many packets each way gets.
fn packets() -> Result<usize> {
    match std::env::var("RVS_PACKETS") {
        Ok(n) => n.parse().context("RVS_PACKETS is no number"),
        // The debug guests and the emulated ones get fewer.
        Err(_) => Ok((PACKETS as f64 / slow()) as usize),
    }
}

/// The number of the first round, which with the seed makes the packets.
fn first_round() -> Result<u64> {
    match std::env::var("RVS_ROUND") {
        Ok(n) => n.parse().context("RVS_ROUND is no number"),
        Err(_) => Ok(0),
    }
}

fn run(cx: &Cx, methods: &[Method]) -> Result<()> {
    let only = std::env::var("RVS_WAY").unwrap_or_default();
    let mut lanes = Vec::new();
    for method in methods {
        for family in Family::BOTH {
            let lane = Lane::new(*method, family, 10 + lanes.len() as u8);
            lanes.push(lane);
        }
    }
    lanes.retain(|l| l.way.name.contains(&only));
    let packets = packets()?;
    let mut score = Score::default();
    let mut done = 0;
    let mut round = first_round()?;
    while done < packets && score.wrong.is_empty() {
        let now = AT_ONCE.min(packets - done);
        let seed = cx.seed.wrapping_mul(1000).wrapping_add(round);
        let begin = Instant::now();
        cx.modules.load()?;
        let ours = play(&lanes, seed, now, &[]).context("with our module")?;
        cx.modules.unload()?;
        let half = begin.elapsed();
        modules::load_c()?;
        let c = play(&lanes, seed, now, &ours).context("with C's module");
        modules::unload_c()?;
        let c = c?;
        for (ours, c) in ours.iter().zip(&c) {
            score.leg(&lanes[ours.lane], ours, c)?;
        }
        println!(
            "round {round}: {half:.1?}, C {:.1?}",
            begin.elapsed() - half
        );
        done += now;
        round += 1;
    }
    for (name, sent) in &score.sent {
        println!("{name}: {sent} packets");
    }
    println!(
        "{} packets in, {} out, {} lasting connections; meant to differ: {:?}",
        score.sent.values().sum::<usize>(),
        score.out,
        score.conns,
        score.meant
    );
    ensure!(
        score.wrong.is_empty(),
        "{} batches differ:\n{}",
        score.wrong.len(),
        score.wrong[..score.wrong.len().min(6)].join("\n")
    );
    ensure!(
        score.out > score.sent.values().sum::<usize>() / 3,
        "hardly anything came out"
    );
    // The director is made up of namespaces that end in the background.
    ensure!(
        cx.peer == Peer::Rvs || score.meant.is_empty(),
        "C differs from itself: {:?}",
        score.meant
    );
    Ok(())
}

/// Lines below a heading.
fn listed(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + "\n  " + &line)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
