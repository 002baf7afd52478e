// SPDX-License-Identifier: GPL-2.0-or-later

//! Each command of ipvsadm, and what it has done as netlink shows it: services of every kind, destinations by every method,
//! listings, counters, timeouts, saving and restoring, daemons.
//!
//! Proves checklist items 20 and 14 (with `sync_daemon`). The same without netlink: `sockopt_ipvsadm`; a thousand services:
//! `save_restore`.

use std::net::SocketAddr;

use anyhow::{bail, ensure, Context, Result};

use crate::genl::{Attrs, Reply};
use crate::ipvs::{cmd, for_svc, svc, svc_id, top, Dest, Ipvs, Service};
use crate::pkt::{Pkt, SYN, TCP, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario =
    Scenario::new("ipvsadm", "ipvsadm, command by command", &[20], run).partly(&[14]);

const SCTP: u8 = 132;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        services(family).with_context(|| format!("services, {family:?}"))?;
        destinations(family).with_context(|| format!("destinations, {family:?}"))?;
    }
    listings()?;
    save_and_restore()?;
    daemons()
}

/// What ipvsadm says when it fails.
fn refused(rig: &Rig, args: &str) -> Result<String> {
    let out = rig.topo.director.try_cmd(&format!("ipvsadm {args}"))?;
    match out.code {
        Some(code) if code > 0 => Ok(out.stderr),
        other => bail!("ipvsadm {args}: {other:?} {}", out.stderr),
    }
}

fn services(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, whole) = (
        at(family.vip(), 80),
        if family == Family::V4 { u32::MAX } else { 128 },
    );
    let is = |proto: u8, sched: &str, flags: u32, timeout: u32, mask: u32| -> Result<()> {
        let s = ipvs.service(proto, vip)?;
        ensure!(
            (s.sched.as_str(), s.flags, s.timeout, s.netmask) == (sched, flags | 2, timeout, mask),
            "{s:?}"
        );
        Ok(())
    };
    for (kind, proto) in [("-t", TCP), ("-u", UDP), ("--sctp-service", SCTP)] {
        rig.ipvsadm(&format!("-A {kind} {vip}"))?;
        is(proto, "wlc", 0, 0, whole)?;
        refused(&rig, &format!("-A {kind} {vip} -s rr"))?;
        rig.ipvsadm(&format!("-E {kind} {vip} -s rr -p"))?;
        is(proto, "rr", 1, 360, whole)?;
        let (given, mask) = match family {
            Family::V4 => ("255.255.0.0", u32::from_ne_bytes([255, 255, 0, 0])),
            Family::V6 => ("64", 64),
        };
        rig.ipvsadm(&format!("-E {kind} {vip} -s wrr -p 77 -M {given}"))?;
        is(proto, "wrr", 1, 77, mask)?;
        rig.ipvsadm(&format!("-E {kind} {vip} -s sh -b sh-fallback,sh-port"))?;
        is(proto, "sh", 0x18, 0, whole)?;
        rig.ipvsadm(&format!("-E {kind} {vip} -s mh -b flag-2,flag-3"))?;
        is(proto, "mh", 0x30, 0, whole)?;
        if proto == UDP {
            rig.ipvsadm(&format!("-E {kind} {vip} -s rr -o"))?;
            is(proto, "rr", 4, 0, whole)?;
        }
    }
    // One went by its protocol, the others stay.
    rig.ipvsadm(&format!("-D -u {vip}"))?;
    ensure!(ipvs.services()?.len() == 2, "{:?}", ipvs.services()?);
    refused(&rig, &format!("-D -u {vip}"))?;
    refused(&rig, &format!("-E -u {vip} -s rr"))?;
    refused(&rig, &format!("-A -u {vip} -s nosuch"))?;

    let six = if family == Family::V6 { " -6" } else { "" };
    rig.ipvsadm(&format!("-A -f 4294967295{six} -s dh"))?;
    let mark = Attrs::new()
        .u16(svc::AF, family.af())
        .u32(svc::FWMARK, u32::MAX);
    let of_mark = || -> Result<Service> {
        let reply = ipvs.ok(cmd::GET_SERVICE, &for_svc(&mark))?;
        Service::parse(&reply.msgs.first().context("no service")?.attrs)
    };
    ensure!(of_mark()?.sched == "dh", "{:?}", of_mark()?);
    rig.ipvsadm(&format!("-E -f 4294967295{six} -s lc"))?;
    ensure!(of_mark()?.sched == "lc", "{:?}", of_mark()?);
    rig.ipvsadm(&format!("-D -f 4294967295{six}"))?;
    ensure!(of_mark().is_err(), "the mark is still there");
    rig.ipvsadm("-C")?;
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    Ok(())
}

fn destinations(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let vip = at(family.vip(), 80);
    let (same, other) = (at(family.raw_rs(1), 80), at(family.raw_rs(2), 8080));
    let foreign = match family {
        Family::V4 => at(Family::V6.raw_rs(3), 80),
        Family::V6 => at(Family::V4.raw_rs(3), 80),
    };
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    let of = |rs: SocketAddr| -> Result<(u32, i32, u32, u32)> {
        let Dest {
            method,
            weight,
            u_thresh,
            l_thresh,
            ..
        } = ipvs.dest(TCP, vip, rs)?;
        Ok((method, weight, u_thresh, l_thresh))
    };
    // Direct routing and weight 1, unless it says otherwise.
    rig.ipvsadm(&format!("-a -t {vip} -r {same}"))?;
    ensure!(of(same)? == (3, 1, 0, 0), "{:?}", of(same)?);
    refused(&rig, &format!("-a -t {vip} -r {same} -m"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {other} -m -w 65535 -x 9 -y 3"))?;
    ensure!(of(other)? == (0, 65535, 9, 3), "{:?}", of(other)?);
    rig.ipvsadm(&format!("-e -t {vip} -r {same} -g -w 0"))?;
    ensure!(of(same)? == (3, 0, 0, 0), "{:?}", of(same)?);
    // Tunnels: type, port and flags.
    let tunnel = |rs: SocketAddr| -> Result<(u64, u64, u64)> {
        let reply = ipvs.dump(cmd::GET_DEST, &for_svc(&svc_id(TCP, vip)))?;
        nest(&reply, rs)
    };
    for (args, want) in [
        ("-i", (0, 0, 0)),
        ("-i --tun-type gue --tun-port 6080", (1, 6080, 0)),
        ("-i --tun-type gue --tun-port 1 --tun-csum", (1, 1, 1)),
        ("-i --tun-type gue --tun-port 1 --tun-remcsum", (1, 1, 2)),
        ("-i --tun-type gre --tun-csum", (2, 0, 1)),
        ("-i --tun-type gre --tun-nocsum", (2, 0, 0)),
        ("-i --tun-type ipip", (0, 0, 0)),
    ] {
        rig.ipvsadm(&format!("-e -t {vip} -r {same} {args} -w 3"))?;
        ensure!(of(same)?.0 == 2, "{args}: {:?}", of(same)?);
        ensure!(tunnel(same)? == want, "{args}: {:?}", tunnel(same)?);
    }
    rig.ipvsadm(&format!("-a -t {vip} -r {foreign} -i"))?;
    ensure!(of(foreign)?.0 == 2, "{:?}", of(foreign)?);
    refused(&rig, &format!("-e -t {vip} -r {foreign} -m"))?;
    for rs in [same, other, foreign] {
        rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
        ensure!(of(rs).is_err(), "{rs} is still there");
        refused(&rig, &format!("-d -t {vip} -r {rs}"))?;
    }
    refused(&rig, &format!("-a -t {} -r {same}", at(vip.ip(), 81)))?;
    ensure!(ipvs.dests(TCP, vip)?.is_empty(), "left");
    Ok(())
}

/// TUN_TYPE, TUN_PORT and TUN_FLAGS of a destination in a dump.
fn nest(reply: &Reply, rs: SocketAddr) -> Result<(u64, u64, u64)> {
    use crate::genl::find;
    use crate::ipvs::{dest, number};
    for msg in &reply.msgs {
        if Dest::parse(&msg.attrs)?.addr == rs {
            let nest = find(&msg.attrs, top::DEST).context("no nest")?;
            let port = find(nest, dest::TUN_PORT).context("no port")?;
            let port = u16::from_be_bytes(port.try_into()?);
            return Ok((
                number(nest, dest::TUN_TYPE)?,
                port.into(),
                number(nest, dest::TUN_FLAGS)?,
            ));
        }
    }
    bail!("{rs} is not there")
}

fn listings() -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, dns) = (at(Family::V4.vip(), 80), at(Family::V6.vip(), 53));
    let (web, name) = (at(Family::V4.raw_rs(1), 8080), at(Family::V6.raw_rs(1), 53));
    rig.ipvsadm(&format!("-A -t {vip} -s rr -p 60"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {web} -m -w 3 -x 20 -y 10"))?;
    rig.ipvsadm(&format!("-A -u {dns} -s wlc"))?;
    rig.ipvsadm(&format!("-a -u {dns} -r {name} -m"))?;
    rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(1), 4000), vip, SYN))?;
    rig.forwarded(&Pkt::udp(at(Family::V6.raw_client(1), 4000), dns, b"x"))?;
    let words = |args: &str, first: &str| -> Result<String> {
        let text = rig.ipvsadm(args)?;
        let line = text.lines().find(|l| l.contains(first));
        let line = line.with_context(|| format!("no {first} in\n{text}"))?;
        Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let web_text = web.to_string();
    for (args, first, want) in [
        ("-Ln", "TCP", format!("TCP {vip} rr persistent 60")),
        ("-Ln", &web_text, format!("-> {web} Masq 3 1 0")),
        ("-Ln", "UDP", format!("UDP {dns} wlc")),
        ("-Ln", "[fd08", format!("-> {name} Masq 1 0 1")),
        ("-Ln --thresholds", &web_text, format!("-> {web} 20 10 1 0")),
        (
            "-Ln --persistent-conn",
            &web_text,
            format!("-> {web} 3 1 1 0"),
        ),
        ("-Ln --rate", "UDP", format!("UDP {dns}")),
    ] {
        let got = words(args, first)?;
        let same = got == want || (args.contains("--rate") && got.starts_with(&want));
        ensure!(same, "{args}: {got}, expected {want}");
    }
    until_true("the packets are counted", 8.0, || {
        Ok(words("-Ln --stats --exact", "UDP")? == format!("UDP {dns} 1 1 0 49 0"))
    })?;
    let one = rig.ipvsadm(&format!("-Ln -t {vip}"))?;
    ensure!(one.lines().count() == 4 && !one.contains("UDP"), "{one}");
    // Two connections, and the template.
    let conns = rig.ipvsadm("-Lnc")?;
    ensure!(conns.lines().count() == 2 + 3, "{conns}");
    let row = words("-Lnc", "SYN_RECV")?;
    let (proto, rest) = row.split_once(' ').context("one word")?;
    let (left, rest) = rest.split_once(' ').context("two words")?;
    ensure!(
        proto == "TCP"
            && (left == "01:00" || left.starts_with("00:"))
            && rest == format!("SYN_RECV 10.9.0.1:4000 {vip} {web}"),
        "{row}"
    );

    rig.ipvsadm(&format!("-Z -t {vip}"))?;
    ensure!(ipvs.service(TCP, vip)?.stats64.inpkts == 0, "-Z -t");
    ensure!(ipvs.service(UDP, dns)?.stats64.inpkts == 1, "-Z of another");
    rig.ipvsadm("-Z")?;
    ensure!(ipvs.service(UDP, dns)?.stats64.inpkts == 0, "-Z");
    rig.ipvsadm("--set 901 0 301")?;
    ensure!(ipvs.config()? == [901, 120, 301], "{:?}", ipvs.config()?);
    let text = rig.ipvsadm("-L --timeout")?;
    ensure!(text == "Timeout (tcp tcpfin udp): 901 120 301\n", "{text}");
    refused(&rig, "--set -1 1 1")?;
    let text = rig.ipvsadm("-L --daemon")?;
    ensure!(text.is_empty(), "{text}");
    Ok(())
}

fn save_and_restore() -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let (v4, v6) = (at(Family::V4.vip(), 80), at(Family::V6.vip(), 80));
    let (one, two) = (at(Family::V4.raw_rs(1), 80), at(Family::V6.raw_rs(1), 80));
    let lines = format!(
        "-A -t {v4} -s rr -p 60 -M 255.255.255.0\n\
         -a -t {v4} -r {one} -m -w 7\n\
         -A -t {v6} -s mh -b mh-fallback,mh-port\n\
         -a -t {v6} -r {two} -i -w 1 --tun-type gue --tun-port 6080 --tun-csum\n\
         -A -f 9 -s fo\n\
         -a -f 9 -r {}:0 -g -w 1\n",
        one.ip()
    );
    let sorted = |text: &str| -> Vec<String> {
        let mut all: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
        all.sort();
        all
    };
    ns.cmd_stdin("ipvsadm -R", &lines)?;
    let saved = ns.cmd("ipvsadm -Sn")?;
    ensure!(sorted(&saved) == sorted(&lines), "{saved}");
    rig.ipvsadm("-C")?;
    ensure!(ns.cmd("ipvsadm -Sn")?.is_empty(), "-C");
    ns.cmd_stdin("ipvsadm -R", &saved)?;
    let again = ns.cmd("ipvsadm -Sn")?;
    ensure!(sorted(&again) == sorted(&saved), "{again}");
    Ok(())
}

fn daemons() -> Result<()> {
    let rig = Rig::new()?;
    let vip = at(Family::V4.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!(
        "-a -t {vip} -r {} -m",
        at(Family::V4.raw_rs(1), 80)
    ))?;
    let start = "--mcast-interface s1 --syncid 3";
    let more = "--sync-maxlen 1400 --mcast-group 224.0.0.99 --mcast-port 9000 --mcast-ttl 2";
    rig.ipvsadm(&format!("--start-daemon master {start}"))?;
    rig.ipvsadm(&format!("--start-daemon backup {start} {more}"))?;
    for state in ["master", "backup"] {
        refused(&rig, &format!("--start-daemon {state} {start}"))?;
    }
    let text = rig.ipvsadm("-L --daemon")?;
    let want = "master sync daemon (mcast=s1, syncid=3, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n\
                backup sync daemon (mcast=s1, syncid=3, maxlen=1400, group=224.0.0.99, port=9000, ttl=2)\n";
    ensure!(text == want, "{text}");
    for state in ["master", "backup"] {
        rig.ipvsadm(&format!("--stop-daemon {state}"))?;
        refused(&rig, &format!("--stop-daemon {state}"))?;
    }
    let six = "--mcast-group ff05::8848 --mcast-interface s1";
    rig.ipvsadm(&format!("--start-daemon backup {six}"))?;
    let text = rig.ipvsadm("-L --daemon")?;
    ensure!(
        text == "backup sync daemon (mcast=s1, syncid=0, maxlen=1452, group=ff05::8848, port=8848, ttl=1)\n",
        "{text}"
    );
    rig.ipvsadm("--stop-daemon backup")?;
    let text = rig.ipvsadm("-L --daemon")?;
    ensure!(text.is_empty(), "{text}");
    // All else goes on.
    rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(1), 4000), vip, SYN))?;
    let listing = rig.ipvsadm("-Ln")?;
    ensure!(listing.contains(&format!("TCP  {vip} rr")), "{listing}");
    Ok(())
}
