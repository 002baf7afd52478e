// SPDX-License-Identifier: GPL-2.0-or-later

//! The files under /proc/net byte for byte: which there are, their modes, their text with nothing
//! and with something in them.
//!
//! Proves checklist items 21 (services with flags: `proc_flags`), 22 (without templates) and 24.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest, dest_full, for_dest, for_svc, svc, svc_full, svc_id, Ipvs};
use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, SYN, TCP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until;

pub const SCENARIO: Scenario = Scenario::new(
    "proc_files",
    "the files under /proc/net byte for byte",
    &[21, 24],
    run,
)
.partly(&[22]);

/// An address as the files show it: upper case digits for IPv4, all eight groups for IPv6.
fn hex(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(a) => format!("{:08X}", a.to_bits()),
        IpAddr::V6(a) => a.segments().map(|s| format!("{s:04x}")).join(":"),
    }
}

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    modes(
        &rig.topo.director,
        &[
            ("ip_vs", 0o444),
            ("ip_vs_conn", 0o444),
            ("ip_vs_stats", 0o444),
            ("ip_vs_stats_percpu", 0o444),
        ],
    )?;
    table(&rig)?;
    conns(&rig)?;
    stats(&rig)
}

fn compare(what: &str, got: &str, want: &str) -> Result<()> {
    ensure!(
        got == want,
        "{what}\ngot:\n{got}expected:\n{want}({got:?}\nand {want:?})"
    );
    Ok(())
}

/// The first three lines.
fn header(size: u32) -> String {
    format!(
        "IP Virtual Server version 1.2.1 (size={size})\nProt LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
    )
}

const VIP6: &str = "[fd00:0100:0000:0000:0000:0000:0000:0001]";

/// A service to make, its line, its family.
pub type Case = (String, String, Family);

/// The services are made one at a time: their order in the file is nobody's business.
pub fn cases(rig: &Rig, cases: &[Case]) -> Result<()> {
    let read = || rig.topo.director.read("/proc/net/ip_vs");
    let dests4 = "  -> 0A080102:1F90      Masq    0      0          0         \n  \
                  -> 0A080101:0050      Masq    65535  0          0         \n";
    let dests6 = "  -> [fd08:0001:0000:0000:0000:0000:0000:0001]:0050      Masq    1      0          0         \n";
    for (command, line, family) in cases {
        let fwmark = command.contains("-f ");
        rig.ipvsadm(command)?;
        let mut want = format!("{}{line}", header(256));
        compare(command, &read()?, &want)?;
        let id: Vec<&str> = command.split_whitespace().skip(1).take(2).collect();
        let mut id = id.join(" ");
        if *family == Family::V4 {
            let port = if fwmark { 0 } else { 80 };
            rig.ipvsadm(&format!("-a {id} -r 10.8.1.1:{port} -m -w 65535"))?;
            rig.ipvsadm(&format!("-a {id} -r 10.8.1.2:8080 -m -w 0"))?;
            want += &if fwmark {
                dests4.replace(":0050", ":0000")
            } else {
                dests4.to_owned()
            };
        } else {
            if fwmark {
                id += " -6";
            }
            rig.ipvsadm(&format!("-a {id} -r [fd08:1::1]:80 -m"))?;
            want += dests6;
        }
        compare(command, &read()?, &want)?;
        rig.ipvsadm("-C")?;
    }
    Ok(())
}

fn table(rig: &Rig) -> Result<()> {
    let read = || rig.topo.director.read("/proc/net/ip_vs");
    compare("empty ip_vs", &read()?, &header(0))?;
    let (vip4, vip6) = (at(Family::V4.vip(), 80), at(Family::V6.vip(), 0x1f90));
    let all = [
        (
            format!("-A -t {vip4} -s rr"),
            "TCP  0A006401:0050 rr  \n".to_owned(),
            Family::V4,
        ),
        (
            format!("-A -u {vip4} -s wrr"),
            "UDP  0A006401:0050 wrr  \n".to_owned(),
            Family::V4,
        ),
        (
            format!("-A -t {vip6} -s lc"),
            format!("TCP  {VIP6}:1F90 lc \n"),
            Family::V6,
        ),
        (
            format!("-A -u {vip6} -s wlc"),
            format!("UDP  {VIP6}:1F90 wlc \n"),
            Family::V6,
        ),
        (
            "-A -f 171 -s rr".to_owned(),
            "FWM  000000AB rr \n".to_owned(),
            Family::V4,
        ),
        (
            "-A -f 3735928559 -6 -s rr".to_owned(),
            "FWM  DEADBEEF rr \n".to_owned(),
            Family::V6,
        ),
    ];
    cases(rig, &all)?;
    // A service without a scheduler, which ipvsadm can't make.
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let none = Attrs::new()
        .u16(svc::AF, 2)
        .u32(svc::FWMARK, 1)
        .text(svc::SCHED_NAME, "none")
        .put(svc::FLAGS, &[0; 8])
        .u32(svc::TIMEOUT, 0)
        .u32(svc::NETMASK, u32::MAX);
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&none))?;
    compare(
        "no scheduler",
        &read()?,
        &format!("{}FWM  00000001 none \n", header(256)),
    )?;
    rig.ipvsadm("-C")?;
    methods(rig)?;
    compare("ip_vs after -C", &read()?, &header(256))
}

/// Destinations by every method, also those that have no name, and of the other family.
fn methods(rig: &Rig) -> Result<()> {
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    for family in Family::BOTH {
        let vip = at(family.vip(), 80);
        ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, vip, "rr")))?;
        let first = match family {
            Family::V4 => "TCP  0A006401:0050 rr  \n".to_owned(),
            Family::V6 => format!("TCP  {VIP6}:0050 rr \n"),
        };
        let [v4, v6] = Family::BOTH.map(|f| at(f.raw_rs(1), 80));
        let (own, other) = match family {
            Family::V4 => (v4, v6),
            Family::V6 => (v6, v4),
        };
        let row = |rs: SocketAddr, name: &str, weight: i32| {
            let addr = match rs.ip() {
                IpAddr::V4(_) => format!("{}:{:04X}", hex(rs.ip()), rs.port()),
                IpAddr::V6(_) => format!("[{}]:{:04X}", hex(rs.ip()), rs.port()),
            };
            format!(
                "  -> {addr}      {name:<7} {weight:<6} {:<10} {:<10}\n",
                0, 0
            )
        };
        let id = svc_id(TCP, vip);
        let mut command = cmd::NEW_DEST;
        for (method, name) in [
            (0, "Masq"),
            (1, "Local"),
            (2, "Tunnel"),
            (3, "Route"),
            (4, "Masq"),
            (6, "Masq"),
            (7, "Masq"),
        ] {
            let set = dest_full(own, i32::MAX).with(dest::FWD_METHOD, &u32::to_ne_bytes(method));
            ipvs.ok(command, &for_dest(&id, &set))?;
            command = cmd::SET_DEST;
            let want = format!("{}{first}{}", header(256), row(own, name, i32::MAX));
            let got = ns.read("/proc/net/ip_vs")?;
            compare(&format!("method {method}"), &got, &want)?;
        }
        let set = dest_full(other, 1).with(dest::FWD_METHOD, &2u32.to_ne_bytes());
        ipvs.ok(cmd::NEW_DEST, &for_dest(&id, &set))?;
        let rows = row(other, "Tunnel", 1) + &row(own, "Masq", i32::MAX);
        let want = format!("{}{first}{rows}", header(256));
        compare("both families", &ns.read("/proc/net/ip_vs")?, &want)?;
        rig.ipvsadm("-C")?;
    }
    Ok(())
}

/// What a file of connections shows of some: its header, and a row with `origin` before the time left.
pub fn rows(rig: &Rig, file: &str, header: &str, origin: &str) -> Result<()> {
    let ns = &rig.topo.director;
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        let client = at(family.raw_client(0x1ff), 0xabc);
        for kind in ["t", "u"] {
            rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
        }
        for (proto, state, timeout, pkt) in [
            ("TCP", "SYN_RECV", 60, Pkt::tcp(client, vip, SYN)),
            ("TCP", "ESTABLISHED", 900, Pkt::tcp(client, vip, ACK)),
            ("UDP", "UDP", 300, Pkt::udp(client, vip, b"")),
        ] {
            // The time left is the one thing that moves: the packet is sent again until a read
            // falls into its first second.
            until(&format!("{proto} {state} is listed"), 5.0, || {
                rig.forwarded(&pkt)?;
                let text = ns.read(&format!("/proc/net/{file}"))?;
                let (first, rest) = text.split_at_checked(header.len()).context("short file")?;
                compare(&format!("header of {file}"), first, header)?;
                for expires in [timeout, timeout - 1] {
                    let mut want = String::new();
                    writeln!(
                        want,
                        "{proto:<3} {} {:04X} {} {:04X} {} {:04X} {state:<11} {origin}{expires:>7}",
                        hex(client.ip()),
                        client.port(),
                        hex(vip.ip()),
                        vip.port(),
                        hex(rs.ip()),
                        rs.port()
                    )?;
                    if rest.lines().any(|l| format!("{l}\n") == want) {
                        return Ok(Some(()));
                    }
                }
                println!("{text}");
                Ok(None)
            })?;
        }
        rig.ipvsadm("-C")?;
    }
    Ok(())
}

/// Checks the modes of files under `/proc/net`.
pub fn modes(ns: &Ns, files: &[(&str, u32)]) -> Result<()> {
    for (file, want) in files {
        let path = format!("/proc/thread-self/net/{file}");
        let mode = ns.run(|| std::fs::metadata(path))?.permissions().mode();
        ensure!(mode & 0o7777 == *want, "{file} has mode {mode:o}");
    }
    Ok(())
}

fn conns(rig: &Rig) -> Result<()> {
    let ns = &rig.topo.director;
    let header =
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n";
    compare(
        "empty ip_vs_conn",
        &ns.read("/proc/net/ip_vs_conn")?,
        header,
    )?;
    rows(rig, "ip_vs_conn", header, "")?;
    let listing = rig.ipvsadm("-Lnc")?;
    ensure!(listing.lines().count() == 2 + 4, "{listing}");
    ensure!(
        listing.contains("10.9.1.255:2748") && listing.contains("[fd09::1ff]:2748"),
        "{listing}"
    );
    Ok(())
}

fn stats(rig: &Rig) -> Result<()> {
    let ns = &rig.topo.director;
    // In a namespace that has seen no packet.
    let fresh = crate::ns::Ns::new("fresh")?;
    let zero = "       0        0        0                0                0\n";
    let rates = " Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n";
    let want = format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   Conns  Packets  Packets            Bytes            \
         Bytes\n{zero}\n{rates}{zero}"
    );
    compare("ip_vs_stats", &fresh.read("/proc/net/ip_vs_stats")?, &want)?;
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let cpus = possible
        .trim()
        .rsplit(['-', ','])
        .next()
        .context("no CPU")?
        .parse::<u32>()?
        + 1;
    let mut want = String::from(
        "       Total Incoming Outgoing         Incoming         Outgoing\n\
         CPU    Conns  Packets  Packets            Bytes            Bytes\n",
    );
    for cpu in 0..cpus {
        write!(want, "{cpu:3X} {zero}")?;
    }
    write!(want, "  ~ {zero}\n    {rates}    {zero}")?;
    compare(
        "ip_vs_stats_percpu",
        &fresh.read("/proc/net/ip_vs_stats_percpu")?,
        &want,
    )?;
    // With something in them the columns are as wide.
    let text = ns.read("/proc/net/ip_vs_stats")?;
    let row = text.lines().nth(2).context("no row")?;
    let n = proc::hex_row(row)?;
    let want = format!(
        "{:8X} {:8X} {:8X} {:16X} {:16X}",
        n[0], n[1], n[2], n[3], n[4]
    );
    compare("row of ip_vs_stats", row, &want)
}
