// SPDX-License-Identifier: GPL-2.0-or-later

//! Large TCP transfers by every method, with segmentation, reassembly and checksums left to the devices or not: what
//! arrives is what was sent, both ways.
//!
//! `RVS_MEGABYTES=100 make test SCENARIO=offloads` transfers as much each time.
//!
//! Proves checklist item 110, and 109 from end to end.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::rvsadm::Tool;
use crate::ns::Ns;
use crate::scenario::{Cx, Rng, Scenario};
use crate::serve;
use crate::topo::{at, Family, Topo};
use crate::wait::{scaled, slow, until};

pub const SCENARIO: Scenario = Scenario::new(
    "offloads",
    "large transfers arrive intact, whatever devices do for the kernel",
    &[110],
    run,
)
.partly(&[109])
.timeout(600.0)
.with_rvsadm();

const CRC: crc::Crc<u64, crc::Table<16>> = crc::Crc::<u64, crc::Table<16>>::new(&crc::CRC_64_XZ);

/// How `ipvsadm` calls each method.
const METHODS: [(&str, &str); 8] = [
    ("NAT", "-m"),
    ("DR", "-g"),
    ("IPIP", "-i"),
    ("GUE", "-i --tun-type gue --tun-port 6080 --tun-nocsum"),
    ("GUE csum", "-i --tun-type gue --tun-port 6080 --tun-csum"),
    (
        "GUE remcsum",
        "-i --tun-type gue --tun-port 6080 --tun-remcsum",
    ),
    ("GRE", "-i --tun-type gre --tun-nocsum"),
    ("GRE csum", "-i --tun-type gre --tun-csum"),
];

/// What the devices do: at the ends, at the director.
#[derive(Debug, Clone, Copy)]
struct Devices {
    name: &'static str,
    ends: &'static str,
    director: &'static str,
    /// Whether packets longer than the link leave the director.
    large: Option<bool>,
}

const ON: &str = "tx on sg on tso on gso on gro on";
const OFF: &str = "tx off sg off tso off gso off gro off";

const DEVICES: [Devices; 4] = [
    Devices {
        name: "all on",
        ends: ON,
        director: ON,
        large: Some(true),
    },
    // The director segments and sums up itself.
    Devices {
        name: "on at the ends",
        ends: ON,
        director: OFF,
        large: Some(false),
    },
    Devices {
        name: "all off",
        ends: OFF,
        director: OFF,
        large: Some(false),
    },
    // The director puts together what comes in pieces.
    Devices {
        name: "on at the director",
        ends: OFF,
        director: ON,
        large: None,
    },
];

fn run(cx: &Cx) -> Result<()> {
    let bytes = match std::env::var("RVS_MEGABYTES") {
        Ok(n) => n.parse::<usize>().context("RVS_MEGABYTES is no number")? << 20,
        Err(_) => (1 << 19) / if slow() > 1.0 { 4 } else { 1 },
    };
    let topo = Topo::new(1)?;
    // The real server's answers come back through here, in the virtual address's name.
    topo.director
        .set_sysctl("net.ipv4.conf.all.accept_local", 1)?;
    let rs = topo.rs.first().context("no real server")?;
    real_server(cx, rs)?;
    let mut rules = String::new();
    for family in Family::BOTH {
        for (n, (method, flags)) in METHODS.iter().enumerate() {
            let vip = at(family.vip(), port(n));
            let server = at(server(family, method), port(n));
            rules += &format!("-A -t {vip} -s rr\n-a -t {vip} -r {server} {flags}\n");
        }
    }
    topo.director.cmd_stdin("ipvsadm -R", &rules)?;
    let block = Rng::new(cx.seed).bytes(1 << 16);
    // The debug guests look at how, not at how much.
    let debug = slow() > 1.0 && !cx.guest.emulated();
    for devices in DEVICES.iter().take(if debug { 2 } else { DEVICES.len() }) {
        for (ns, dev, what) in [
            (&topo.client, "eth0", devices.ends),
            (&topo.director, "c0", devices.director),
            (&topo.director, "s1", devices.director),
            (rs, "eth0", devices.ends),
        ] {
            ns.cmd(&format!("ethtool -K {dev} {what}"))?;
        }
        for family in Family::BOTH {
            for (n, (method, _)) in METHODS.iter().enumerate() {
                let what = || format!("{method}, {family:?}, {}", devices.name);
                // What a director's device is to finish of such a packet, another kernel's device does not: most of it is sent again and
                // again, through C as well.
                let slowly = method.contains("remcsum") && devices.director == ON;
                let bytes = if slowly { bytes / 64 } else { bytes };
                let before = sent(&topo.director)?;
                let begin = Instant::now();
                transfer(&topo, at(family.vip(), port(n)), bytes, &block).with_context(what)?;
                let after = sent(&topo.director)?;
                let mean = (after.0 - before.0) / (after.1 - before.1).max(1);
                println!(
                    "{}: {bytes} bytes each way in {:.2?}, packets of {mean} bytes",
                    what(),
                    begin.elapsed()
                );
                // No device segments packets whose inner checksum is left to the receiver.
                let large = devices
                    .large
                    .map(|large| large && !method.contains("remcsum"));
                if let Some(large) = large {
                    ensure!(
                        (mean > 1600) == large,
                        "{}: packets of {mean} bytes",
                        what()
                    );
                }
            }
        }
    }
    Ok(())
}

fn port(method: usize) -> u16 {
    80 + method as u16
}

/// The real server's address. A GRE tunnel expects checksums or refuses them, so there is one address for each.
fn server(family: Family, method: &str) -> IpAddr {
    match (family.rs(1), method) {
        (IpAddr::V4(a), "GRE csum") => IpAddr::V4((u32::from(a) + 1).into()),
        (IpAddr::V6(a), "GRE csum") => IpAddr::V6((u128::from(a) + 1).into()),
        (a, _) => a,
    }
}

/// Has a host take what comes by direct routing and in tunnels.
fn real_server(cx: &Cx, ns: &Ns) -> Result<()> {
    let host = Tool::new(cx, ns)?;
    let (v4, v6) = (Family::V4.vip(), Family::V6.vip());
    for words in [
        "--dr",
        "--tunnel",
        "--tunnel --tunnel-type gue --tunnel-port 6080",
        "--tunnel --tunnel-type gre",
    ] {
        host.ok(&format!("realserver setup {words} {v4} {v6}"))?;
    }
    for family in Family::BOTH {
        let own = server(family, "GRE csum");
        let (len, nodad) = match family {
            Family::V4 => (24, ""),
            Family::V6 => (64, "nodad"),
        };
        ns.cmd(&format!("ip addr add {own}/{len} dev eth0 {nodad}"))?;
        host.ok(&format!(
            "realserver setup --tunnel --tunnel-type gre --tunnel-checksum csum --tunnel-address {own} {}",
            family.vip()
        ))?;
    }
    Ok(())
}

/// Bytes and packets that the director has sent to the real server.
pub(super) fn sent(director: &Ns) -> Result<(u64, u64)> {
    let text = director.read("/proc/net/dev")?;
    let row = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("s1:"))
        .context("no s1 in /proc/net/dev")?;
    let numbers: Vec<u64> = row.split_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [_, _, _, _, _, _, _, _, bytes, packets, ..] => Ok((bytes, packets)),
        _ => anyhow::bail!("row {row:?}"),
    }
}

/// Sends `n` bytes that no two places of the stream have alike; returns their digest.
fn pour(mut stream: &TcpStream, n: usize, block: &[u8]) -> Result<u64> {
    let mut digest = CRC.digest();
    let mut done = 0;
    let mut turn = 0;
    while done < n {
        let from = (turn * 7919) % block.len();
        let part = &block[from..];
        let part = &part[..part.len().min(n - done)];
        stream
            .write_all(part)
            .with_context(|| format!("sending, {done} of {n} bytes are sent"))?;
        digest.update(part);
        done += part.len();
        turn += 1;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(digest.finalize())
}

/// Takes all that comes; returns its length and digest.
fn drink(mut stream: &TcpStream) -> Result<(usize, u64)> {
    let mut digest = CRC.digest();
    let mut buf = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        let n = stream
            .read(&mut buf)
            .with_context(|| format!("receiving, {done} bytes are here"))?;
        if n == 0 {
            return Ok((done, digest.finalize()));
        }
        digest.update(&buf[..n]);
        done += n;
    }
}

/// `n` bytes from the client to the real server, then as many back.
fn transfer(topo: &Topo, vip: SocketAddr, n: usize, block: &[u8]) -> Result<()> {
    let rs = topo.rs.first().context("no real server")?;
    let any: IpAddr = match Family::of(vip.ip()) {
        Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let listener = rs.run(|| TcpListener::bind(at(any, vip.port())))?;
    listener.set_nonblocking(true)?;
    let patience = Some(scaled(20.0));
    std::thread::scope(|s| -> Result<()> {
        let server = s.spawn(|| -> Result<((usize, u64), u64)> {
            let stream = until("a connection", 20.0, || match listener.accept() {
                Ok((stream, _)) => Ok(Some(stream)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(None),
                Err(e) => Err(e.into()),
            })?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(patience)?;
            stream.set_write_timeout(patience)?;
            let got = drink(&stream).context("at the server")?;
            Ok((got, pour(&stream, n, block).context("at the server")?))
        });
        let stream = serve::connect(&topo.client, vip)?;
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        let sent = pour(&stream, n, block).context("at the client")?;
        let back = drink(&stream).context("at the client")?;
        let (got, answered) = server
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(got == (n, sent), "sent {n} with {sent:x}, arrived {got:x?}");
        ensure!(
            back == (n, answered),
            "answered {n} with {answered:x}, arrived {back:x?}"
        );
        Ok(())
    })
}
