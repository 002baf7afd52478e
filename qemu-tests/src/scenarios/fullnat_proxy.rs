// SPDX-License-Identifier: GPL-2.0-or-later

//! The PROXY protocol through FullNAT: crafted segments, whose numbers must fit; unmodified nginx and HAProxy, with loss and
//! reordering too; datagrams until the server has answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, local, one, pass, set, Segment};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::{octets, ACK, FIN, PSH, SYN, TCP, UDP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve;
use crate::topo::{at, Family};
use crate::wait::{scaled, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_proxy",
    "clients' addresses by the PROXY protocol through FullNAT: nginx, HAProxy, datagrams",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1)
.timeout(120.0);

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        for version in [1, 2] {
            crafted(family, version).with_context(|| format!("{family:?}, version {version}"))?;
        }
        server_speaks_first(family).with_context(|| format!("{family:?}, server first"))?;
        datagrams(family).with_context(|| format!("{family:?}, datagrams"))?;
        for (program, version) in [("nginx", 1), ("nginx", 2), ("haproxy", 1), ("haproxy", 2)] {
            unmodified(family, program, version)
                .with_context(|| format!("{family:?}, {program}, version {version}"))?;
        }
    }
    Ok(())
}

/// The header of a flow.
fn header(version: u8, udp: bool, client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    if version == 1 {
        let name = if client.is_ipv4() { "TCP4" } else { "TCP6" };
        return format!(
            "PROXY {name} {} {} {} {}\r\n",
            client.ip(),
            vip.ip(),
            client.port(),
            vip.port()
        )
        .into_bytes();
    }
    let mut b = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let family = if client.is_ipv4() { 0x10 } else { 0x20 };
    b.extend([0x21, family | if udp { 2 } else { 1 }]);
    let (from, to) = (octets(client.ip()), octets(vip.ip()));
    b.extend((2 * from.len() as u16 + 4).to_be_bytes());
    b.extend(from);
    b.extend(to);
    b.extend(client.port().to_be_bytes());
    b.extend(vip.port().to_be_bytes());
    b
}

fn proxy_on(ipvs: &Ipvs, proto: u8, vip: SocketAddr, version: u8) -> Result<()> {
    let extra = Attrs::new().u8(fullnat::PROXY, version);
    set(ipvs, proto, vip, "rr", &extra)?.ok().map(drop)
}

fn crafted(family: Family, version: u8) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    let client = at(family.raw_client(1), 4000);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
    proxy_on(&ipvs, TCP, vip, version)?;
    let front = header(version, false, client, vip);
    let n = front.len() as u32;

    let syn = one(&rig, Side::Client, &Segment::new(client, vip, SYN, 100, 0))?;
    let (seat, first) = (syn.from, syn.seq.wrapping_add(1));
    let synack = Segment::new(rs, seat, SYN | ACK, 800, first);
    let back = one(&rig, Side::Server, &synack)?;
    ensure!((back.seq, back.ack) == (800, 101), "{back:?}");

    // The handshake's end becomes the header.
    let ack = Segment::new(client, vip, ACK, 101, 801);
    let came = one(&rig, Side::Client, &ack)?;
    ensure!(
        came.seq == first && came.ack == 801 && came.body == front && came.flags == ACK | PSH,
        "{came:?}"
    );
    // Before data it goes again, as long as nobody has acknowledged it.
    let data = ack.clone().body(b"data");
    for _ in 0..2 {
        let came = pass(&rig, Side::Client, std::slice::from_ref(&data))?;
        ensure!(came.len() == 2, "{came:#?}");
        ensure!(came[0].seq == first && came[0].body == front, "{came:#?}");
        ensure!(
            came[1].seq == first.wrapping_add(n) && came[1].body == b"data",
            "{came:#?}"
        );
    }
    // Later data has it not.
    let more = Segment::new(client, vip, ACK, 105, 801).body(b"more");
    let came = one(&rig, Side::Client, &more)?;
    ensure!(
        came.seq == first.wrapping_add(n + 4) && came.body == b"more",
        "{came:?}"
    );
    // What the server says of the header, of parts of it even, the client does not see.
    for (ack, want) in [(0, 101), (n - 1, 101), (n, 101), (n + 4, 105)] {
        let reply = Segment::new(rs, seat, ACK, 801, first.wrapping_add(ack));
        let back = one(&rig, Side::Server, &reply)?;
        ensure!(back.ack == want, "{ack}: {back:?}");
    }
    let came = one(&rig, Side::Client, &ack)?;
    ensure!(
        came.body.is_empty() && came.seq == first.wrapping_add(n),
        "acknowledged, and again: {came:?}"
    );
    let came = one(
        &rig,
        Side::Client,
        &Segment::new(client, vip, FIN | ACK, 109, 801),
    )?;
    ensure!(came.seq == first.wrapping_add(n + 8), "{came:?}");
    Ok(())
}

/// A server that speaks first gets the header before the client says anything.
fn server_speaks_first(family: Family) -> Result<()> {
    let (topo, ipvs, vip, rs) = fullnat::service(family, 25, 2525)?;
    proxy_on(&ipvs, TCP, vip, 2)?;
    let listener = topo.rs[0].run(|| TcpListener::bind(rs))?;
    let n = if family == Family::V4 { 28 } else { 52 };
    let server = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(scaled(10.0)))?;
        let mut front = vec![0; n];
        stream.read_exact(&mut front)?;
        stream.write_all(b"220 hello\r\n")?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        front.extend(rest);
        Ok(front)
    });
    let mut stream = serve::connect(&topo.client, vip)?;
    let client = stream.local_addr()?;
    let mut hello = [0; 11];
    stream.read_exact(&mut hello).context("the greeting")?;
    ensure!(&hello == b"220 hello\r\n");
    stream.write_all(b"QUIT\r\n")?;
    drop(stream);
    let got = server.join().expect("the server's thread")?;
    let mut want = header(2, false, client, vip);
    want.extend(b"QUIT\r\n");
    ensure!(got == want, "{got:?}, not {want:?}");
    Ok(())
}

fn datagrams(family: Family) -> Result<()> {
    let topo = fullnat::topo(1)?;
    let (vip, rs) = (at(family.vip(), 53), at(family.rs(1), 5353));
    topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    let ipvs = Ipvs::open(&topo.director)?;
    fullnat::add(&ipvs, UDP, vip, local(family, 1))?;
    proxy_on(&ipvs, UDP, vip, 2)?;
    let server = topo.rs[0].run(|| UdpSocket::bind(rs))?;
    server.set_read_timeout(Some(scaled(5.0)))?;
    let socket = topo.client.run(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(at(family.client(), 0))?;
        socket.connect(vip)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(scaled(5.0)))?;
    let front = header(2, true, socket.local_addr()?, vip);
    let mut buf = vec![0; 70_000];
    let mut peer = rs;
    // Of all sizes: the longer ones come in fragments, or become such.
    for n in [0, 1, 1000, 1460, 1472, 9000] {
        let text = vec![n as u8; n];
        socket.send(&text)?;
        let (len, from) = server
            .recv_from(&mut buf)
            .with_context(|| format!("{n} bytes"))?;
        ensure!(
            buf[..front.len()] == front && buf[front.len()..len] == text,
            "{len} bytes came of {n}"
        );
        peer = from;
    }
    server.send_to(b"answer", peer)?;
    let len = socket.recv(&mut buf).context("the answer")?;
    ensure!(&buf[..len] == b"answer");
    socket.send(b"plain")?;
    let (len, _) = server.recv_from(&mut buf)?;
    ensure!(&buf[..len] == b"plain", "{:?}", &buf[..len]);
    Ok(())
}

/// A program that ends with the value.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn start(ns: &Ns, program: &str, config: &str, rs: SocketAddr) -> Result<Running> {
    let path = format!("/tmp/{program}-{}.conf", std::process::id());
    std::fs::write(&path, config)?;
    let args: Vec<&str> = match program {
        "nginx" => vec!["-c", &path],
        _ => vec!["-db", "-f", &path],
    };
    let child = ns.run(|| {
        Command::new(program)
            .args(&args)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {program}"))
    })?;
    let running = Running(child);
    until_true("it listens", 20.0, || {
        let text = ns.read(if rs.is_ipv4() {
            "/proc/net/tcp"
        } else {
            "/proc/net/tcp6"
        })?;
        let port = format!(":{:04X} ", rs.port());
        Ok(text
            .lines()
            .any(|l| l.contains(&port) && l.contains(" 0A ")))
    })?;
    Ok(running)
}

fn unmodified(family: Family, program: &str, version: u8) -> Result<()> {
    let (topo, ipvs, vip, rs) = fullnat::service(family, 80, 8080)?;
    proxy_on(&ipvs, TCP, vip, version)?;
    let config = match program {
        "nginx" => format!(
            "daemon off; master_process off; pid /tmp/nginx.pid; error_log /dev/null;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; server {{ listen {rs} proxy_protocol;\n\
             location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port\"; }} }} }}\n"
        ),
        _ => format!(
            "defaults\n mode http\n timeout client 20s\n timeout connect 20s\n timeout server 20s\n\
             frontend f\n bind {rs} accept-proxy\n\
             http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port]\"\n"
        ),
    };
    let running = start(&topo.rs[0], program, &config, rs)?;
    let ask = |what: &str| -> Result<()> {
        let mut stream = serve::connect(&topo.client, vip)?;
        stream.set_read_timeout(Some(scaled(20.0)))?;
        let client = stream.local_addr()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .with_context(|| format!("the answer, {what}"))?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        ensure!(
            body.trim() == format!("{} {}", client.ip(), client.port()),
            "{what}: {body:?} to {client}"
        );
        Ok(())
    };
    for _ in 0..5 {
        ask("as it is")?;
    }
    // Loss and reordering on the way to the server; the reliable way back keeps the time in bounds.
    topo.director
        .cmd("tc qdisc add dev s1 root netem loss 20% delay 3ms reorder 25% 50%")?;
    for _ in 0..4 {
        ask("with loss")?;
    }
    drop(running);
    Ok(())
}
