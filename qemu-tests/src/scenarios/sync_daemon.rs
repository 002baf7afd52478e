// SPDX-License-Identifier: GPL-2.0-or-later

//! Sync daemons come and go: by netlink, socket options and ipvsadm, errno by errno; what they are configured to, their threads and
//! sockets; and they end with their namespace, and hold the module.
//!
//! Proves checklist items 14, 15 and 16 (as to daemons), 18 (with a daemon), 38 and 39 (with daemons), 131 (how many threads), 132 (sizes).

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, UdpSocket};
use std::path::Path;

use anyhow::{ensure, Context, Result};

use crate::genl::{find, Attrs};
use crate::ipvs::{cmd, dest, dest_full, for_dest, svc_full, svc_id, top, Ipvs};
use crate::matrix::*;
use crate::modules;
use crate::ns::Ns;
use crate::pkt::TCP;
use crate::scenario::{Cx, Peer, Scenario};
use crate::sockopt::{get, name16, set, Sockopt, DAEMON_LEN};
use crate::sync::{begun, join, kthreads, GROUP, LINK4, PORT};
use crate::topo::{at, ipvsadm, Family};
use crate::wait::{rounds, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "sync_daemon",
    "sync daemons are started, configured, listed and stopped by every interface",
    &[14, 15, 16, 18, 38, 39],
    run,
)
.partly(&[131, 132])
.own_modules()
.with_rvsadm();

const MASTER: u32 = 1;
const BACKUP: u32 = 2;

/// Attributes of a daemon.
mod attr {
    pub const STATE: u16 = 1;
    pub const MCAST_IFN: u16 = 2;
    pub const SYNC_ID: u16 = 3;
    pub const SYNC_MAXLEN: u16 = 4;
    pub const MCAST_GROUP: u16 = 5;
    pub const MCAST_GROUP6: u16 = 6;
    pub const MCAST_PORT: u16 = 7;
    pub const MCAST_TTL: u16 = 8;
}

/// A director alone, with an interface m0 to nowhere.
fn director() -> Result<(Ns, Ns)> {
    let (director, peer) = (Ns::new("director")?, Ns::new("peer")?);
    join(&director, &peer)?;
    Ok((director, peer))
}

fn run(cx: &Cx) -> Result<()> {
    cx.modules.load()?;
    let (ns, _peer) = director()?;
    netlink(&ns).context("netlink")?;
    configured(&ns).context("configuration")?;
    mixed(&ns).context("mixed families")?;
    sockopt(&ns).context("socket options")?;
    tool(&ns, "ipvsadm").context("ipvsadm")?;
    let rvsadm = cx.rvsadm.as_deref().and_then(Path::to_str);
    tool(&ns, rvsadm.context("no rvsadm")?).context("rvsadm")?;
    threads(&ns).context("threads")?;
    sockets(&ns).context("sockets")?;
    if cx.peer == Peer::Rvs {
        at_once(&ns).context("at once")?;
    }
    ends(cx).context("the end")?;
    drop(ns);
    cx.modules.unload().context("unloading")
}

/// The attributes of a daemon command.
fn daemon(nest: &Attrs) -> Attrs {
    Attrs::new().nest(top::DAEMON, nest)
}

/// What must be said of a daemon.
fn least(state: u32) -> Attrs {
    Attrs::new()
        .u32(attr::STATE, state)
        .text(attr::MCAST_IFN, "m0")
        .u32(attr::SYNC_ID, 1)
}

fn stop(ipvs: &Ipvs, state: u32) -> Result<()> {
    begun()?;
    let nest = Attrs::new().u32(attr::STATE, state);
    ipvs.ok(cmd::DEL_DAEMON, &daemon(&nest)).map(drop)
}

fn netlink(ns: &Ns) -> Result<()> {
    let ipvs = Ipvs::open(ns)?;
    let mut tally = Tally::default();
    let mut case = |what: &str, cmd: u8, attrs: &Attrs, want: i32| -> Result<()> {
        let reply = ipvs.call(cmd, attrs)?;
        tally.note(what, reply.errno, reply.text.as_deref(), want);
        Ok(())
    };
    let (new, del) = (cmd::NEW_DAEMON, cmd::DEL_DAEMON);
    let nothing = Attrs::new();
    case("new, nothing", new, &nothing, EINVAL)?;
    case("del, nothing", del, &nothing, EINVAL)?;
    case("new, empty", new, &daemon(&nothing), EINVAL)?;
    case("del, empty", del, &daemon(&nothing), EINVAL)?;
    for missing in [attr::STATE, attr::MCAST_IFN, attr::SYNC_ID] {
        let nest = least(MASTER).without(missing);
        case(
            &format!("new without {missing}"),
            new,
            &daemon(&nest),
            EINVAL,
        )?;
    }
    for (what, attrs, want) in [
        ("state 0", least(0), EINVAL),
        ("state 3", least(3), EINVAL),
        ("state 7", least(7), EINVAL),
        (
            "no such interface",
            least(MASTER).with(attr::MCAST_IFN, b"nonesuch\0"),
            ENODEV,
        ),
        (
            "no such interface, state 3",
            least(3).with(attr::MCAST_IFN, b"nonesuch\0"),
            ENODEV,
        ),
        (
            "empty interface",
            least(MASTER).with(attr::MCAST_IFN, b"\0"),
            ENODEV,
        ),
        (
            "interface without end",
            least(MASTER).with(attr::MCAST_IFN, b"m0"),
            EINVAL,
        ),
        (
            "interface of 15",
            least(MASTER).with(attr::MCAST_IFN, b"123456789012345\0"),
            ENODEV,
        ),
        (
            "interface of 17",
            least(MASTER).with(attr::MCAST_IFN, b"12345678901234567\0"),
            EINVAL,
        ),
        (
            "group that is none",
            least(MASTER).put(attr::MCAST_GROUP, &[10, 0, 0, 1]),
            EINVAL,
        ),
        (
            "group 223.255.255.255",
            least(BACKUP).put(attr::MCAST_GROUP, &[223, 255, 255, 255]),
            EINVAL,
        ),
        (
            "IPv6 group that is none",
            least(MASTER).put(attr::MCAST_GROUP6, &Ipv6Addr::LOCALHOST.octets()),
            EINVAL,
        ),
        (
            "short IPv6 group",
            least(MASTER).put(attr::MCAST_GROUP6, &[0xff; 15]),
            EINVAL,
        ),
        (
            "short state",
            least(MASTER).with(attr::STATE, &[1, 0]),
            EINVAL,
        ),
        (
            "short port",
            least(MASTER).put(attr::MCAST_PORT, &[1]),
            EINVAL,
        ),
    ] {
        case(what, new, &daemon(&attrs), want)?;
    }
    for state in [MASTER, BACKUP] {
        let it = daemon(&least(state));
        case(&format!("del {state}, none"), del, &it, ESRCH)?;
        case(&format!("new {state}"), new, &it, OK)?;
        case(&format!("new {state} again"), new, &it, EEXIST)?;
    }
    for (what, state) in [("0", 0), ("3", 3), ("u32::MAX", u32::MAX)] {
        let it = daemon(&Attrs::new().u32(attr::STATE, state));
        case(&format!("del {what}"), del, &it, EINVAL)?;
    }
    begun()?;
    // Of a running one the interface is looked at first.
    let it = daemon(&least(MASTER).with(attr::MCAST_IFN, b"nonesuch\0"));
    case("new again, no such interface", new, &it, ENODEV)?;
    for state in [MASTER, BACKUP] {
        // Only the state counts.
        let it = daemon(&least(state).with(attr::MCAST_IFN, b"nonesuch\0"));
        case(&format!("del {state}"), del, &it, OK)?;
        case(&format!("del {state} again"), del, &it, ESRCH)?;
    }
    tally.finish()
}

/// An attribute: its type and value.
type Attribute = (u16, Vec<u8>);

/// The daemons as they are dumped: their attributes in order.
fn dumped(ipvs: &Ipvs) -> Result<Vec<Vec<Attribute>>> {
    let reply = ipvs.dump(cmd::GET_DAEMON, &Attrs::new())?.ok()?;
    reply
        .msgs
        .iter()
        .map(|msg| {
            ensure!(msg.cmd == cmd::NEW_DAEMON, "command {}", msg.cmd);
            let nest = find(&msg.attrs, top::DAEMON).context("no daemon")?;
            Ok(crate::genl::parse(nest)?
                .into_iter()
                .map(|(kind, value)| (kind, value.to_vec()))
                .collect())
        })
        .collect()
}

/// What becomes of what is asked for.
fn configured(ns: &Ns) -> Result<()> {
    let ipvs = Ipvs::open(ns)?;
    let v6: Ipv6Addr = "ff05::81".parse()?;
    let group = |octets: [u8; 4]| (attr::MCAST_GROUP, octets.to_vec());
    let group6 = (attr::MCAST_GROUP6, v6.octets().to_vec());
    let usual = group(GROUP.octets());
    ensure!(dumped(&ipvs)?.is_empty(), "daemons");
    // State, more attributes, then what is dumped: sync ID, maxlen, port, TTL, group.
    type Want = (u32, u16, u16, u8, Attribute);
    type Case = (&'static str, u32, Attrs, Want);
    let cases: Vec<Case> = vec![
        (
            "defaults",
            MASTER,
            least(MASTER),
            (1, 1472, PORT, 1, usual.clone()),
        ),
        (
            "defaults",
            BACKUP,
            least(BACKUP),
            (1, 1472, PORT, 1, usual.clone()),
        ),
        (
            "IPv6",
            MASTER,
            least(MASTER).put(group6.0, &group6.1),
            (1, 1452, PORT, 1, group6.clone()),
        ),
        (
            "IPv6",
            BACKUP,
            least(BACKUP).put(group6.0, &group6.1),
            (1, 1452, PORT, 1, group6.clone()),
        ),
        (
            "both groups",
            MASTER,
            least(MASTER)
                .put(group6.0, &group6.1)
                .put(attr::MCAST_GROUP, &[239, 1, 1, 1]),
            (1, 1472, PORT, 1, group([239, 1, 1, 1])),
        ),
        (
            "all",
            BACKUP,
            least(BACKUP)
                .with(attr::SYNC_ID, &255u32.to_ne_bytes())
                .u16(attr::SYNC_MAXLEN, 1400)
                .put(attr::MCAST_GROUP, &[224, 0, 0, 99])
                .u16(attr::MCAST_PORT, 9000)
                .u8(attr::MCAST_TTL, 255),
            (255, 1400, 9000, 255, group([224, 0, 0, 99])),
        ),
        (
            "zeros",
            MASTER,
            least(MASTER)
                .with(attr::SYNC_ID, &[0; 4])
                .u16(attr::SYNC_MAXLEN, 0)
                .u16(attr::MCAST_PORT, 0)
                .u8(attr::MCAST_TTL, 0),
            (0, 1472, PORT, 1, usual.clone()),
        ),
        (
            "sync ID of more than a byte",
            BACKUP,
            least(BACKUP).with(attr::SYNC_ID, &70_000u32.to_ne_bytes()),
            (70_000, 1472, PORT, 1, usual.clone()),
        ),
        (
            "maxlen 1",
            MASTER,
            least(MASTER).u16(attr::SYNC_MAXLEN, 1),
            (1, 1, PORT, 1, usual.clone()),
        ),
        (
            "maxlen 1",
            BACKUP,
            least(BACKUP).u16(attr::SYNC_MAXLEN, 1),
            (1, 1024, PORT, 1, usual.clone()),
        ),
        (
            "maxlen 65535",
            MASTER,
            least(MASTER).u16(attr::SYNC_MAXLEN, 65_535),
            (1, 65_507, PORT, 1, usual.clone()),
        ),
        (
            "maxlen 65535, IPv6",
            BACKUP,
            least(BACKUP)
                .u16(attr::SYNC_MAXLEN, 65_535)
                .put(group6.0, &group6.1),
            (1, 65_487, PORT, 1, group6.clone()),
        ),
    ];
    let check = |what: &str, state: u32, attrs: &Attrs, want: &Want| -> Result<()> {
        ipvs.ok(cmd::NEW_DAEMON, &daemon(attrs))
            .context(what.to_owned())?;
        let got = dumped(&ipvs)?;
        let (id, maxlen, port, ttl, group) = want;
        let want = vec![
            (attr::STATE, state.to_ne_bytes().to_vec()),
            (attr::MCAST_IFN, b"m0\0".to_vec()),
            (attr::SYNC_ID, id.to_ne_bytes().to_vec()),
            (attr::SYNC_MAXLEN, maxlen.to_ne_bytes().to_vec()),
            (attr::MCAST_PORT, port.to_ne_bytes().to_vec()),
            (attr::MCAST_TTL, vec![*ttl]),
            group.clone(),
        ];
        ensure!(
            got == [want.clone()],
            "{what}, {state}: {got:?} instead of {want:?}"
        );
        stop(&ipvs, state)
    };
    for (what, state, attrs, want) in &cases {
        check(what, *state, attrs, want)?;
    }
    // A backup takes what the interface takes.
    ns.ip("link set m0 mtu 9000")?;
    let big = (1, 8972, PORT, 1, usual.clone());
    check("MTU 9000", BACKUP, &least(BACKUP), &big)?;
    let same = (1, 1472, PORT, 1, usual.clone());
    check("MTU 9000", MASTER, &least(MASTER), &same)?;
    ns.ip("link set m0 mtu 1300")?;
    check("MTU 1300", BACKUP, &least(BACKUP), &same)?;
    ns.ip("link set m0 mtu 1500")?;
    // Both: the master first, whichever came first.
    for state in [BACKUP, MASTER] {
        ipvs.ok(cmd::NEW_DAEMON, &daemon(&least(state)))?;
    }
    let states: Vec<Vec<u8>> = dumped(&ipvs)?.iter().map(|d| d[0].1.clone()).collect();
    ensure!(
        states == [MASTER, BACKUP].map(|s| s.to_ne_bytes().to_vec()),
        "{states:?}"
    );
    for state in [MASTER, BACKUP] {
        stop(&ipvs, state)?;
    }
    ensure!(dumped(&ipvs)?.is_empty(), "daemons");
    Ok(())
}

/// Where a service has a destination of the other family, there is no daemon, and the other way round.
fn mixed(ns: &Ns) -> Result<()> {
    let ipvs = Ipvs::open(ns)?;
    let vip = at(Family::V4.vip(), 80);
    let other =
        dest_full(at(Family::V6.raw_rs(1), 80), 1).with(dest::FWD_METHOD, &2u32.to_ne_bytes());
    ipvs.ok(
        cmd::NEW_SERVICE,
        &crate::ipvs::for_svc(&svc_full(TCP, vip, "rr")),
    )?;
    let add = for_dest(&svc_id(TCP, vip), &other);
    for state in [MASTER, BACKUP] {
        ipvs.ok(cmd::NEW_DEST, &add)?;
        let errno = ipvs.call(cmd::NEW_DAEMON, &daemon(&least(state)))?.errno;
        ensure!(errno == EINVAL, "a daemon beside mixed families: {errno}");
        ipvs.ok(cmd::DEL_DEST, &add)?;
        ipvs.ok(cmd::NEW_DAEMON, &daemon(&least(state)))?;
        let errno = ipvs.call(cmd::NEW_DEST, &add)?.errno;
        ensure!(errno == EINVAL, "mixed families beside a daemon: {errno}");
        stop(&ipvs, state)?;
    }
    ipvs.ok(cmd::FLUSH, &Attrs::new()).map(drop)
}

/// `struct ip_vs_daemon_user`.
fn user(state: i32, ifn: &str, syncid: i32) -> Vec<u8> {
    let mut b = state.to_ne_bytes().to_vec();
    b.extend(name16(ifn));
    b.extend(syncid.to_ne_bytes());
    b
}

fn sockopt(ns: &Ns) -> Result<()> {
    let opts = Sockopt::open(ns)?;
    let mut tally = Tally::default();
    let mut case = |what: &str, number: i32, bytes: &[u8], want: i32| {
        let got = opts.set(number, bytes).err().unwrap_or(OK);
        tally.note(what, got, None, want);
    };
    let (start, stop) = (set::STARTDAEMON, set::STOPDAEMON);
    let mut endless = user(1, "", 0);
    endless[4..20].fill(b'x');
    for (what, bytes, want) in [
        ("start nothing", user(0, "m0", 0), EINVAL),
        ("start state 3", user(3, "m0", 0), EINVAL),
        ("start state -1", user(-1, "m0", 0), EINVAL),
        ("start without interface", user(1, "", 0), EINVAL),
        ("start, a name without end", endless, EINVAL),
        ("start, no such interface", user(1, "nonesuch", 0), ENODEV),
        (
            "start state 3, no such interface",
            user(3, "nonesuch", 0),
            ENODEV,
        ),
        (
            "start, a byte too many",
            [user(1, "m0", 0), vec![0]].concat(),
            EINVAL,
        ),
        (
            "start, a byte too few",
            user(1, "m0", 0)[1..].to_vec(),
            EINVAL,
        ),
    ] {
        case(what, start, &bytes, want);
    }
    for state in [1, 2] {
        case(
            &format!("stop {state}, none"),
            stop,
            &user(state, "", 0),
            ESRCH,
        );
        case(
            &format!("start {state}"),
            start,
            &user(state, "m0", 10 + state),
            OK,
        );
        case(
            &format!("start {state} again"),
            start,
            &user(state, "m0", 0),
            EEXIST,
        );
    }
    for state in [0, 3, -1] {
        case(
            &format!("stop {state}"),
            stop,
            &user(state, "m0", 0),
            EINVAL,
        );
    }
    tally.finish()?;
    let list = || -> Result<Vec<u8>> {
        let mut buffer = vec![0xff; 2 * DAEMON_LEN];
        let n = opts
            .get(get::DAEMON, &mut buffer)
            .map_err(|e| anyhow::anyhow!("errno {e}"))?;
        ensure!(n == buffer.len(), "{n} bytes");
        Ok(buffer)
    };
    begun()?;
    let both = [user(1, "m0", 11), user(2, "m0", 12)].concat();
    ensure!(list()? == both, "{:?}", list()?);
    for (left, state) in [(12, 1), (0, 2)] {
        opts.set(stop, &user(state, "", 0))
            .map_err(|e| anyhow::anyhow!("stopping {state}: errno {e}"))?;
        let second = if left == 0 {
            user(0, "", 0)
        } else {
            user(2, "m0", left)
        };
        let want = [user(0, "", 0), second].concat();
        ensure!(list()? == want, "{:?}", list()?);
    }
    Ok(())
}

/// A tool with the flags of ipvsadm.
fn tool(ns: &Ns, name: &str) -> Result<()> {
    let start = |args: &str| ns.cmd(&format!("{name} --start-daemon {args}"));
    ensure!(
        ns.cmd(&format!("{name} -L --daemon"))?.is_empty(),
        "daemons"
    );
    start("master --mcast-interface m0")?;
    start("backup --mcast-interface m0 --syncid 9 --sync-maxlen 1100 --mcast-group ff05::99 --mcast-port 7 --mcast-ttl 30")?;
    let text = ns.cmd(&format!("{name} -L --daemon"))?;
    let want = "\
master sync daemon (mcast=m0, syncid=0, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)
backup sync daemon (mcast=m0, syncid=9, maxlen=1100, group=ff05::99, port=7, ttl=30)
";
    ensure!(text == want, "{text}");
    for state in ["master", "backup"] {
        begun()?;
        ns.cmd(&format!("{name} --stop-daemon {state}"))?;
        let again = ns.try_cmd(&format!("{name} --stop-daemon {state}"))?;
        ensure!(
            again.code == Some(255) && !again.stderr.is_empty(),
            "{again:?}"
        );
    }
    Ok(())
}

/// The names of the daemons' threads.
fn names() -> Result<Vec<String>> {
    Ok(kthreads()?.into_iter().map(|(name, _)| name).collect())
}

/// Threads that were stopped are listed for another moment.
fn none_left() -> Result<()> {
    until_true("the threads are gone", 5.0, || Ok(names()?.is_empty()))
}

/// Stops a daemon by ipvsadm.
fn stopped(ns: &Ns, state: &str) -> Result<()> {
    begun()?;
    ipvsadm(ns, &format!("--stop-daemon {state}")).map(drop)
}

fn threads(ns: &Ns) -> Result<()> {
    none_left()?;
    // The setting, how many threads that are; then one that the second daemon does not see.
    for (ports, count) in [(1, 1), (2, 2), (8, 8), (128, 64)] {
        ns.set_sysctl("net.ipv4.vs.sync_ports", ports)?;
        let (first, second) = if ports == 2 {
            ("backup", "master")
        } else {
            ("master", "backup")
        };
        ipvsadm(ns, &format!("--start-daemon {first} --mcast-interface m0"))?;
        ns.set_sysctl("net.ipv4.vs.sync_ports", if ports == 1 { 4 } else { 1 })?;
        ipvsadm(ns, &format!("--start-daemon {second} --mcast-interface m0"))?;
        let got = names()?;
        let gens: BTreeSet<&str> = got.iter().filter_map(|n| n.split(':').nth(1)).collect();
        let gen = gens.first().context("no thread")?;
        ensure!(
            gens.len() == 1 && gen.parse::<u32>().is_ok(),
            "{ports}: {got:?}"
        );
        let mut want: Vec<String> = (0..count)
            .flat_map(|id| [format!("ipvs-m:{gen}:{id}"), format!("ipvs-b:{gen}:{id}")])
            .collect();
        want.sort();
        ensure!(got == want, "{ports}: {got:?}");
        // A backup listens to as many ports.
        let text = ns.read("/proc/net/udp")?;
        let bound: BTreeSet<u16> = text
            .lines()
            .filter_map(|l| l.split_whitespace().nth(1)?.strip_prefix("510000E0:"))
            .filter_map(|port| u16::from_str_radix(port, 16).ok())
            .collect();
        let want: BTreeSet<u16> = (0..count).map(|id| PORT + id).collect();
        ensure!(bound == want, "{ports}: {bound:?}");
        for state in ["master", "backup"] {
            stopped(ns, state)?;
        }
        none_left()?;
    }
    ns.set_sysctl("net.ipv4.vs.sync_ports", 1)
}

fn sockets(ns: &Ns) -> Result<()> {
    // The sizes of buffers, as ss shows them: twice what was asked for, with limits.
    let buffers = || -> Result<(String, String)> {
        let text = ns.cmd("ss -u -a -n -m")?;
        // A socket has two lines.
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let field = |state: &str, key: &str| -> Result<String> {
            let i = lines
                .iter()
                .position(|l| l.starts_with(state) && l.contains(":8848"))
                .with_context(|| format!("no socket {state} in {text}"))?;
            lines
                .get(i + 1)
                .and_then(|l| l.split(['(', ',', ')']).find_map(|f| f.strip_prefix(key)))
                .map(str::to_owned)
                .with_context(|| format!("no {key} in {text}"))
        };
        Ok((field("ESTAB", "tb")?, field("UNCONN", "rb")?))
    };
    let both = |what: &str, setting: i64| -> Result<(String, String)> {
        ns.set_sysctl("net.ipv4.vs.sync_sock_size", setting)?;
        for state in ["master", "backup"] {
            ipvsadm(ns, &format!("--start-daemon {state} --mcast-interface m0"))?;
        }
        let sizes = buffers().with_context(|| what.to_owned())?;
        for state in ["master", "backup"] {
            stopped(ns, state)?;
        }
        Ok(sizes)
    };
    let usual = both("default", 0)?;
    let small = both("50,000", 50_000)?;
    let least = both("1", 1)?;
    let most = both("1 GB", 1_000_000_000)?;
    println!("buffers: {usual:?}, {small:?}, {least:?}, {most:?}");
    ensure!(small == ("100000".into(), "100000".into()), "{small:?}");
    let max = |key: &str| -> Result<String> {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{key}_max"))?;
        Ok((2 * text.trim().parse::<u64>()?).to_string())
    };
    ensure!(most == (max("wmem")?, max("rmem")?), "{most:?}");
    ensure!(
        least.0.parse::<u32>()? < 10_000 && least.1.parse::<u32>()? < 10_000,
        "{least:?}"
    );
    ns.set_sysctl("net.ipv4.vs.sync_sock_size", 0)?;

    // Another's port: refused, and nothing is left of it.
    let other = ns.run(|| UdpSocket::bind(at(GROUP.into(), PORT + 1)))?;
    ns.set_sysctl("net.ipv4.vs.sync_ports", 4)?;
    let said = ns.try_cmd("ipvsadm --start-daemon backup --mcast-interface m0")?;
    ensure!(said.code != Some(0), "{said:?}");
    none_left()?;
    ensure!(ipvsadm(ns, "-L --daemon")?.is_empty(), "a daemon");
    drop(other);
    ipvsadm(ns, "--start-daemon backup --mcast-interface m0")?;
    stopped(ns, "backup")?;
    ns.set_sysctl("net.ipv4.vs.sync_ports", 1)?;

    // Without an address, and while its interface goes away.
    let (bare, peer) = director()?;
    bare.ip(&format!("addr del {}/24 dev m0", LINK4[0]))?;
    for state in ["master", "backup"] {
        ipvsadm(
            &bare,
            &format!("--start-daemon {state} --mcast-interface m0"),
        )?;
    }
    peer.ip("link del eth0")?;
    let text = ipvsadm(&bare, "-L --daemon")?;
    ensure!(text.lines().count() == 2, "{text}");
    for state in ["master", "backup"] {
        stopped(&bare, state)?;
    }
    Ok(())
}

/// Stopped as soon as it was started; see [`begun()`].
fn at_once(ns: &Ns) -> Result<()> {
    let ipvs = Ipvs::open(ns)?;
    for round in 0..40 {
        let state = [MASTER, BACKUP][round % 2];
        ipvs.ok(cmd::NEW_DAEMON, &daemon(&least(state)))?;
        ipvs.ok(cmd::DEL_DAEMON, &daemon(&least(state)))?;
    }
    none_left()?;
    Ok(())
}

/// Namespaces end with their daemons; as long as there is one, the module stays.
fn ends(cx: &Cx) -> Result<()> {
    for round in 0..rounds(6) {
        let (ns, peer) = director()?;
        if round % 2 == 0 {
            ns.set_sysctl("net.ipv4.vs.sync_ports", 4)?;
        }
        for state in ["master", "backup"] {
            ipvsadm(&ns, &format!("--start-daemon {state} --mcast-interface m0"))?;
        }
        if round % 3 == 0 {
            ipvsadm(&ns, "-A -t 10.7.0.1:80 -s rr")?;
        }
        drop((ns, peer));
    }
    none_left()?;

    let module = match cx.peer {
        Peer::C => "ip_vs",
        Peer::Rvs => "rvs",
    };
    for helper in modules::C_MODULES.iter().filter(|name| **name != "ip_vs") {
        if modules::loaded(helper)? {
            modules::run("rmmod", &[*helper])?;
        }
    }
    for state in ["master", "backup"] {
        let (ns, _peer) = director()?;
        ipvsadm(&ns, &format!("--start-daemon {state} --mcast-interface m0"))?;
        let said = modules::run("rmmod", &[module]);
        ensure!(said.is_err(), "unloaded under a {state}");
        until_true("there is one thread", 5.0, || Ok(names()?.len() == 1))?;
        stopped(&ns, state)?;
    }
    Ok(())
}
