// SPDX-License-Identifier: GPL-2.0-or-later

//! SCTP by NAT and direct routing: ports and CRC32c, also of what devices are to segment and sum up; every transition of every
//! state in the three directions; what begins an association; and AH and ESP, which follow the ISAKMP connection.
//!
//! The expected states are those of `rvs_core`, whose host tests have them from the specification a second time; with `PEER=c`
//! they are compared with the C module's.
//!
//! Proves checklist items 87, 88 and 89; for SCTP, 62 and 68.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use nix::sys::socket::{bind, connect, listen, setsockopt, sockopt, Backlog, SockaddrStorage};
use nix::sys::time::{TimeVal, TimeValLike};
use rvs_core::proto::sctp::{self, ChunkType, Event};
use rvs_core::proto::Direction;

use crate::ipvs::Ipvs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id};
use crate::modules;
use crate::ns::Ns;
use crate::pkt::{Pkt, ICMP, ICMPV6};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Guest, Peer, Rng, Scenario};
use crate::serve;
use crate::topo::{at, Family, Topo};
use crate::wait::{patience, slow, until};

pub const SCENARIO: Scenario = Scenario::new(
    "sctp",
    "SCTP, and AH and ESP behind ISAKMP",
    &[87, 88, 89],
    run,
)
.partly(&[62, 68])
.timeout(90.0);

const SCTP: u8 = 132;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

fn run(cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        packets(cx.peer, family).with_context(|| format!("packets, {family:?}"))?;
        begins(family).with_context(|| format!("what begins, {family:?}"))?;
        for direct in [false, true] {
            let what = || {
                format!(
                    "states, {family:?}, {}",
                    if direct { "direct" } else { "NAT" }
                )
            };
            states(family, direct, &mut Rng::new(cx.seed)).with_context(what)?;
        }
        ipsec(family).with_context(|| format!("ipsec, {family:?}"))?;
    }
    if cx.guest == Guest::Kasan {
        // kmemleak reports what the kernel's own SCTP keeps.
        return Ok(());
    }
    modules::run("modprobe", &["sctp"])?;
    for family in Family::BOTH {
        associations(family).with_context(|| format!("associations, {family:?}"))?;
    }
    Ok(())
}

/// An SCTP packet of one chunk after another.
fn sctp(src: SocketAddr, dst: SocketAddr, chunks: &[u8]) -> Pkt {
    let mut body = Vec::new();
    body.extend(src.port().to_be_bytes());
    body.extend(dst.port().to_be_bytes());
    body.extend(0x0102_0304u32.to_be_bytes());
    body.extend([0; 4]);
    for kind in chunks {
        body.extend([*kind, 0, 0, 8, 1, 2, 3, 4]);
    }
    let sum = CRC.checksum(&body).to_le_bytes();
    body[8..12].copy_from_slice(&sum);
    Pkt {
        body,
        ..Pkt::new(src.ip(), dst.ip(), SCTP)
    }
}

/// Ports and whether the checksum is right.
fn look(pkt: &Pkt) -> Result<(u16, u16, bool)> {
    ensure!(pkt.proto == SCTP && pkt.body.len() >= 16, "{pkt:?}");
    let mut body = pkt.body.clone();
    let sum = <[u8; 4]>::try_from(&body[8..12])?;
    body[8..12].fill(0);
    let port = |at: usize| u16::from_be_bytes([pkt.body[at], pkt.body[at + 1]]);
    Ok((port(0), port(2), CRC.checksum(&body).to_le_bytes() == sum))
}

fn rig(family: Family, port: u16, method: u32) -> Result<Rig> {
    let rig = Rig::new()?;
    let vip = at(family.vip(), 80);
    let ipvs = Ipvs::open(&rig.topo.director)?;
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(SCTP, vip, "rr")))?;
    let dest = dest_full(at(family.raw_rs(1), port), 1)
        .with(crate::ipvs::dest::FWD_METHOD, &method.to_ne_bytes());
    ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(SCTP, vip), &dest))?;
    Ok(rig)
}

fn packets(peer: Peer, family: Family) -> Result<()> {
    let vip = at(family.vip(), 80);
    let client = at(family.raw_client(1), 4000);
    for port in [80, 9000] {
        let rig = rig(family, port, 0)?;
        let rs = at(family.raw_rs(1), port);
        let came = rig.forwarded(&sctp(client, vip, &[ChunkType::INIT]))?;
        ensure!(
            came.dst == rs.ip() && look(&came)? == (4000, port, true),
            "{came:?}: {:?}",
            look(&came)?
        );
        let back = rig.returned(&sctp(rs, client, &[ChunkType::INIT_ACK]))?;
        ensure!(
            back.src == vip.ip() && look(&back)? == (80, 4000, true),
            "{back:?}: {:?}",
            look(&back)?
        );
        // Where the port stays, so does the checksum, right or wrong; where it does not, C makes it right.
        let mut bad = sctp(client, vip, &[ChunkType::DATA]);
        bad.body[11] ^= 0x55;
        let came = rig.forwarded(&bad)?;
        ensure!(
            port != 80 || came.body[8..12] == bad.body[8..12],
            "{came:?}"
        );
        let is_right = look(&came)?.2;
        ensure!(
            is_right == (port != 80 && peer == Peer::C),
            "{is_right}: {came:?}"
        );
        // An error about an answer finds the server.
        let answer = sctp(vip, client, &[ChunkType::DATA]);
        let (kind, code) = if family == Family::V4 { (3, 2) } else { (1, 4) };
        let error = Pkt::icmp_error(client.ip(), vip.ip(), kind, code, 0, &answer.bytes());
        let came = rig.forwarded(&error)?;
        ensure!(
            matches!(came.proto, ICMP | ICMPV6) && came.dst == rs.ip() && came.csum_ok,
            "{came:?}"
        );
    }
    // Direct routing leaves all as it is.
    let rig = rig(family, 80, 3)?;
    let sent = sctp(client, vip, &[ChunkType::INIT]);
    let came = rig.forwarded(&sent)?;
    ensure!(came.dst == vip.ip() && came.body == sent.body, "{came:?}");
    let conn = proc::conn(&rig.topo.director, client)?.context("no connection")?;
    ensure!(conn.proto == "SCTP" && conn.state == "INIT1", "{conn:?}");
    Ok(())
}

fn begins(family: Family) -> Result<()> {
    let rig = rig(family, 80, 0)?;
    let vip = at(family.vip(), 80);
    let passes = |port: u16, chunks: &[u8]| -> Result<bool> {
        let client = at(family.raw_client(1), port);
        let io = rig.exchange(Side::Client, &[sctp(client, vip, chunks)])?;
        Ok(io.server.iter().any(|f| f.pkt.proto == SCTP))
    };
    ensure!(passes(1, &[ChunkType::INIT])?, "INIT");
    for kind in [ChunkType::DATA, ChunkType::COOKIE_ECHO, ChunkType::ABORT] {
        ensure!(!passes(10 + u16::from(kind), &[kind])?, "chunk {kind}");
    }
    // Too short for a chunk.
    ensure!(!passes(2, &[])?, "no chunk");
    rig.topo.director.set_sysctl("net.ipv4.vs.sloppy_sctp", 1)?;
    ensure!(passes(3, &[ChunkType::DATA])?, "sloppy DATA");
    ensure!(!passes(4, &[ChunkType::ABORT])?, "sloppy ABORT");
    Ok(())
}

/// What a packet's chunks mean.
const PACKETS: [(&[u8], Event); 14] = [
    (&[ChunkType::DATA], Event::Data),
    (&[ChunkType::INIT], Event::Init),
    (&[ChunkType::INIT_ACK], Event::InitAck),
    (&[ChunkType::COOKIE_ECHO], Event::CookieEcho),
    (&[ChunkType::COOKIE_ACK], Event::CookieAck),
    (&[ChunkType::SHUTDOWN], Event::Shutdown),
    (&[ChunkType::SHUTDOWN_ACK], Event::ShutdownAck),
    (&[ChunkType::SHUTDOWN_COMPLETE], Event::ShutdownComplete),
    (&[ChunkType::ERROR], Event::Error),
    (&[ChunkType::ABORT], Event::Abort),
    // An ABORT counts behind a cookie, and behind nothing else; what is unknown is data.
    (&[ChunkType::COOKIE_ECHO, ChunkType::ABORT], Event::Abort),
    (&[ChunkType::COOKIE_ACK, ChunkType::ABORT], Event::Abort),
    (&[ChunkType::SACK, ChunkType::ABORT], Event::Data),
    (&[0xc0, ChunkType::COOKIE_ACK], Event::Data),
];

/// A packet of [`PACKETS`], from the client or the server.
type Step = (Side, usize);

/// The shortest way to each state that can be reached from the one that an INIT leads to.
fn ways(direct: bool) -> BTreeMap<u8, Vec<Step>> {
    let first = sctp::transition(direction(Side::Client, direct), 0, Event::Init);
    let mut ways = BTreeMap::from([(first, Vec::new())]);
    let mut next = VecDeque::from([first]);
    while let Some(state) = next.pop_front() {
        for side in sides(direct).iter().copied() {
            for (n, (_, event)) in PACKETS.iter().enumerate() {
                let then = sctp::transition(direction(side, direct), state, *event);
                if !ways.contains_key(&then) {
                    let mut way = ways.get(&state).cloned().unwrap_or_default();
                    way.push((side, n));
                    ways.insert(then, way);
                    next.push_back(then);
                }
            }
        }
    }
    ways
}

fn sides(direct: bool) -> &'static [Side] {
    if direct {
        &[Side::Client]
    } else {
        &[Side::Client, Side::Server]
    }
}

fn direction(side: Side, direct: bool) -> Direction {
    match (side, direct) {
        (Side::Server, _) => Direction::Output,
        (Side::Client, false) => Direction::Input,
        (Side::Client, true) => Direction::InputOnly,
    }
}

/// Every transition of every state.
fn states(family: Family, direct: bool, rng: &mut Rng) -> Result<()> {
    let rig = rig(family, 80, if direct { 3 } else { 0 })?;
    let director = &rig.topo.director;
    // An INIT in CLOSED is to be a packet of the old association; see conn_reuse.
    director.set_sysctl("net.ipv4.vs.conn_reuse_mode", 0)?;
    director.set_sysctl("net.ipv4.vs.schedule_icmp", 1)?;
    let ipvs = Ipvs::open(director)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 80));
    let mut host = 0;
    let send = |client: SocketAddr, (side, n): Step| -> Result<()> {
        let pkt = match side {
            Side::Client => sctp(client, vip, PACKETS[n].0),
            Side::Server => sctp(rs, client, PACKETS[n].0),
        };
        let io = rig.exchange(side, &[pkt])?;
        let came = if side == Side::Client {
            &io.server
        } else {
            &io.client
        };
        ensure!(came.len() == 1, "{:?} from {side:?}: {io:#?}", PACKETS[n]);
        Ok(())
    };
    let mut ways = ways(direct);
    // No state at all: how an ICMP error begins a connection.
    ways.insert(0, Vec::new());
    let (mut tried, mut active) = (0, 0);
    for (state, way) in &ways {
        for side in sides(direct).iter().copied() {
            let mut expected = Vec::new();
            for (n, (_, event)) in PACKETS.iter().enumerate() {
                // Slow guests take a part of them.
                if slow() > 1.0 && !rng.chance(14) {
                    continue;
                }
                host += 1;
                let client = at(family.raw_client(host), 5000);
                if *state == 0 {
                    let about = sctp(vip, client, &[ChunkType::DATA]).bytes();
                    let (kind, code) = if family == Family::V4 { (3, 1) } else { (1, 0) };
                    rig.forwarded(&Pkt::icmp_error(
                        client.ip(),
                        vip.ip(),
                        kind,
                        code,
                        0,
                        &about,
                    ))?;
                } else {
                    send(client, (Side::Client, 1))?;
                }
                for step in way {
                    send(client, *step)?;
                }
                send(client, (side, n))?;
                let then = sctp::transition(direction(side, direct), *state, *event);
                expected.push((client, n, then));
            }
            // The C module's file can miss connections while its table is being resized.
            let conns = until("all connections are listed", 3.0, || {
                let conns = proc::conns(director)?;
                let all = expected
                    .iter()
                    .all(|(client, ..)| conns.iter().any(|c| c.client == *client));
                Ok(all.then_some(conns))
            })?;
            for (client, n, then) in expected {
                let conn = conns.iter().find(|c| c.client == client);
                let conn = conn.context("the connection is gone")?;
                let what = || {
                    format!(
                        "{:?} from the {side:?} side in {}",
                        PACKETS[n],
                        sctp::state_name(*state)
                    )
                };
                ensure!(
                    conn.proto == "SCTP" && conn.state == sctp::state_name(then),
                    "{}: expected {}, it is {conn:?}",
                    what(),
                    sctp::state_name(then)
                );
                let limit = sctp::DEFAULT_TIMEOUT_SECS[usize::from(then)];
                let age = f64::from(limit - conn.expires.min(limit));
                ensure!(
                    conn.expires <= limit && age <= 3.0 * slow(),
                    "{}: {conn:?}, of {limit} seconds",
                    what()
                );
                tried += 1;
                active += u32::from(sctp::is_active(then));
            }
        }
    }
    println!(
        "{family:?}, direct {direct}: {} states, {tried} transitions",
        ways.len()
    );
    let dest = ipvs.dest(SCTP, vip, rs)?;
    ensure!(active > 0 && dest.active == active, "{active}: {dest:?}");
    Ok(())
}

/// A listening socket, or one that is connected, of one address only: SCTP tells the other side of all that it has, and none
/// of them would be the virtual one.
fn socket(ns: &Ns, addr: SocketAddr, to: Option<SocketAddr>) -> Result<OwnedFd> {
    let family = if addr.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    ns.run(|| {
        // SAFETY: plain system call; the result is checked before use.
        let fd = unsafe {
            libc::socket(
                family,
                libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
                libc::IPPROTO_SCTP,
            )
        };
        ensure!(fd >= 0, "a socket: {}", std::io::Error::last_os_error());
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let patience = TimeVal::milliseconds(patience(5.0).as_millis() as i64);
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
        setsockopt(&fd, sockopt::SendTimeout, &patience)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(addr)).context("binding")?;
        match to {
            Some(to) => {
                connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).context("connecting")?;
            }
            None => listen(&fd, Backlog::new(1)?).context("listening")?,
        }
        Ok(fd)
    })
}

/// Sends messages; each must fit into the socket's buffer.
fn pour(stream: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    for message in bytes.chunks(20_000) {
        stream.write_all(message)?;
    }
    Ok(())
}

/// Associations of the kernel's own SCTP, whose checksums and segmentation are left to devices or not.
fn associations(family: Family) -> Result<()> {
    const BYTES: usize = 300_000;
    let topo = Topo::new(1)?;
    let (director, rs) = (&topo.director, &topo.rs[0]);
    // Replies of direct routing come by in the name of an address that is this host's.
    director.set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    let (bits, nodad) = match family {
        Family::V4 => (32, ""),
        Family::V6 => (128, " nodad"),
    };
    rs.cmd(&format!(
        "ip addr add {}/{bits} dev lo{nodad}",
        family.vip()
    ))?;
    let ipvs = Ipvs::open(director)?;
    let mut port = 80;
    let mut means = [0; 2];
    for (state, total) in ["on", "off"].into_iter().zip(&mut means) {
        for (ns, dev) in [
            (&topo.client, "eth0"),
            (director, "c0"),
            (director, "s1"),
            (rs, "eth0"),
        ] {
            ns.cmd(&format!("ethtool -K {dev} tx {state} gso {state}"))?;
        }
        for (method, other) in [(0u32, false), (0, true), (3, false)] {
            port += 1;
            let what = || format!("offloads {state}, method {method}, another port: {other}");
            let vip = at(family.vip(), port);
            let server = at(family.rs(1), if other { port + 1000 } else { port });
            ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(SCTP, vip, "rr")))?;
            let dest =
                dest_full(server, 1).with(crate::ipvs::dest::FWD_METHOD, &method.to_ne_bytes());
            ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(SCTP, vip), &dest))?;
            let here = if method == 0 { server } else { vip };
            let listener = TcpListener::from(socket(rs, here, None)?);
            let before = super::offloads::sent(director)?;
            std::thread::scope(|s| -> Result<()> {
                let serving = s.spawn(|| -> Result<()> {
                    let (mut stream, peer) = listener.accept().context("accepting")?;
                    ensure!(peer.ip() == family.client(), "from {peer}");
                    let mut got = vec![0; BYTES];
                    stream.read_exact(&mut got).context("at the server")?;
                    ensure!(got == serve::pattern(BYTES), "at the server: other bytes");
                    pour(&mut stream, &got).context("at the server")
                });
                let from = at(family.client(), 30_000 + port);
                let mut stream = TcpStream::from(socket(&topo.client, from, Some(vip))?);
                pour(&mut stream, &serve::pattern(BYTES)).context("at the client")?;
                let mut got = vec![0; BYTES];
                stream.read_exact(&mut got).context("at the client")?;
                ensure!(got == serve::pattern(BYTES), "at the client: other bytes");
                serving
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .with_context(what)?;
            let after = super::offloads::sent(director)?;
            let mean = (after.0 - before.0) / (after.1 - before.1).max(1);
            println!("{family:?}, {}: packets of {mean} bytes", what());
            *total += mean;
        }
    }
    // Beside small ones that acknowledge.
    let [on, off] = means;
    ensure!(
        on * 5 > off * 6,
        "packets are not larger with segmentation left to devices: {on} to {off}"
    );
    Ok(())
}

/// AH and ESP go where UDP from port 500 to port 500 went.
fn ipsec(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 500), at(family.raw_rs(1), 500));
    let client = at(family.raw_client(1), 500);
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    // Bytes that IPv6 can take for a header: 24 of them, the first ones with no meaning here.
    let packet = |src: SocketAddr, dst: SocketAddr, proto: u8| Pkt {
        body: vec![
            59, 4, 0, 0, 9, 9, 9, 9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        ],
        ..Pkt::new(src.ip(), dst.ip(), proto)
    };
    let protos: &[u8] = if family == Family::V4 {
        &[50, 51]
    } else {
        &[50]
    };
    for proto in protos {
        let io = rig.exchange(Side::Client, &[packet(client, vip, *proto)])?;
        ensure!(io.server.is_empty(), "before ISAKMP: {io:#?}");
    }
    rig.forwarded(&Pkt::udp(client, vip, b"isakmp"))?;
    for proto in protos {
        let sent = packet(client, vip, *proto);
        let came = rig.forwarded(&sent)?;
        ensure!(
            came.dst == rs.ip() && came.proto == *proto && came.body == sent.body,
            "{came:?}"
        );
        let back = rig.returned(&packet(rs, client, *proto))?;
        ensure!(back.src == vip.ip() && back.proto == *proto, "{back:?}");
        // Another client's have no connection to follow.
        let other = at(family.raw_client(2), 500);
        let io = rig.exchange(Side::Client, &[packet(other, vip, *proto)])?;
        ensure!(io.server.is_empty(), "another client: {io:#?}");
    }
    let conns = proc::conns(&rig.topo.director)?;
    ensure!(conns.len() == 1 && conns[0].proto == "UDP", "{conns:#?}");
    Ok(())
}
