// SPDX-License-Identifier: GPL-2.0-or-later

//! The synchronisation daemons as they are configured: every attribute, its default and its limits, by netlink and by socket
//! option; what is refused, and why; which threads there are; what goes on when an interface or a namespace goes away.
//!
//! Proves checklist items 14, 15 and 16 (the daemons), 18 (no mixed families beside a daemon) and 38 (with daemons).

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{ensure, Context, Result};
use libc::{EEXIST, EINVAL, ENODEV, ESRCH};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, svc_full, svc_id, top, Ipvs};
use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, RST, SYN, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::sockopt::{get, name16, set, Sockopt, DAEMON_LEN};
use crate::topo::{at, Family};
use crate::wait::{rounds, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "sync_control",
    "how synchronisation daemons are configured, started and stopped",
    &[14, 15, 16, 18, 38],
    run,
);

const MASTER: u32 = 1;
const BACKUP: u32 = 2;

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let opts = Sockopt::open(&rig.topo.director)?;
    attributes(&rig, &ipvs).context("attributes")?;
    refusals(&ipvs).context("refusals")?;
    options(&ipvs, &opts).context("socket options")?;
    families(&ipvs, &opts).context("families")?;
    threads(&rig, &ipvs).context("threads")?;
    interface(&rig, &ipvs).context("interface")?;
    drop(rig);
    namespaces().context("namespaces")
}

/// What a daemon needs.
fn basic(state: u32, ifname: &str, syncid: u32) -> Attrs {
    Attrs::new().u32(1, state).text(2, ifname).u32(3, syncid)
}

fn new(ipvs: &Ipvs, nest: &Attrs) -> Result<i32> {
    let attrs = Attrs::new().nest(top::DAEMON, nest);
    let errno = ipvs.call(cmd::NEW_DAEMON, &attrs)?.errno;
    settle()?;
    Ok(errno)
}

/// Waits until all threads of daemons sleep: C answers nothing to who stops one that has not begun to run.
fn settle() -> Result<()> {
    until_true("threads that wait", 10.0, || {
        Ok(running()?.iter().all(|(_, sleeps)| *sleeps))
    })
}

fn del(ipvs: &Ipvs, state: u32) -> Result<i32> {
    let attrs = Attrs::new().nest(top::DAEMON, &Attrs::new().u32(1, state));
    Ok(ipvs.call(cmd::DEL_DAEMON, &attrs)?.errno)
}

/// What the daemons say of themselves must be this, in this order.
fn expect(ipvs: &Ipvs, want: &[Attrs]) -> Result<()> {
    let reply = ipvs.dump(cmd::GET_DAEMON, &Attrs::new())?.ok()?;
    let want: Vec<Vec<u8>> = want
        .iter()
        .map(|nest| Attrs::new().nest(top::DAEMON, nest).0)
        .collect();
    let plain = |attrs: &[u8]| {
        // NLA_F_NESTED is a matter of taste.
        let mut attrs = attrs.to_vec();
        if let Some(byte) = attrs.get_mut(3) {
            *byte &= 0x7f;
        }
        attrs
    };
    let got: Vec<Vec<u8>> = reply.msgs.iter().map(|m| plain(&m.attrs)).collect();
    let want: Vec<Vec<u8>> = want.iter().map(|attrs| plain(attrs)).collect();
    ensure!(got == want, "got {got:02x?}, want {want:02x?}");
    ensure!(
        reply.msgs.iter().all(|m| m.cmd == cmd::NEW_DAEMON),
        "{reply:?}"
    );
    Ok(())
}

/// How a daemon shows itself.
struct Shown<'a> {
    state: u32,
    ifname: &'a str,
    syncid: u32,
    maxlen: u16,
    port: u16,
    ttl: u8,
}

impl Shown<'_> {
    fn attrs(&self) -> Attrs {
        basic(self.state, self.ifname, self.syncid)
            .u16(4, self.maxlen)
            .u16(7, self.port)
            .u8(8, self.ttl)
    }

    fn v4(&self, group: Ipv4Addr) -> Attrs {
        self.attrs().put(5, &group.octets())
    }

    fn v6(&self, group: Ipv6Addr) -> Attrs {
        self.attrs().put(6, &group.octets())
    }
}

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);

fn attributes(rig: &Rig, ipvs: &Ipvs) -> Result<()> {
    let other: Ipv4Addr = "239.1.2.3".parse()?;
    let six: Ipv6Addr = "ff05::8848".parse()?;
    expect(ipvs, &[])?;
    ensure!(ipvs.info()?.1 == 0, "a table without services");
    let mut shown = Shown {
        state: MASTER,
        ifname: "c0",
        syncid: 0,
        maxlen: 1472,
        port: 8848,
        ttl: 1,
    };
    ensure!(new(ipvs, &basic(MASTER, "c0", 0))? == 0, "a master");
    expect(ipvs, &[shown.v4(GROUP)])?;
    ensure!(ipvs.info()?.1 == 0, "a master has made a table");
    ensure!(new(ipvs, &basic(MASTER, "c0", 0))? == EEXIST, "two masters");
    ensure!(
        new(ipvs, &basic(MASTER, "s1", 9))? == EEXIST,
        "two masters, another interface"
    );
    let all = basic(BACKUP, "s1", 300)
        .u16(4, 2000)
        .put(5, &other.octets())
        .u16(7, 9000)
        .u8(8, 7);
    ensure!(new(ipvs, &all)? == 0, "a backup");
    ensure!(ipvs.info()?.1 > 0, "a backup without a table");
    let backup = Shown {
        state: BACKUP,
        ifname: "s1",
        syncid: 300,
        maxlen: 2000,
        port: 9000,
        ttl: 7,
    };
    expect(ipvs, &[shown.v4(GROUP), backup.v4(other)])?;
    ensure!(new(ipvs, &all)? == EEXIST, "two backups");
    ensure!(del(ipvs, MASTER)? == 0, "the master's end");
    expect(ipvs, &[backup.v4(other)])?;
    ensure!(del(ipvs, MASTER)? == ESRCH, "its end once more");
    ensure!(del(ipvs, BACKUP)? == 0, "the backup's end");
    expect(ipvs, &[])?;

    // Lengths: given, kept within limits, or what fits.
    rig.topo.director.cmd("ip link set dev c0 mtu 9000")?;
    let given = |n: u16| move |nest: Attrs| nest.u16(4, n);
    let plain = |nest: Attrs| nest;
    let in_six = move |nest: Attrs| nest.put(6, &six.octets());
    type Change<'a> = &'a dyn Fn(Attrs) -> Attrs;
    let cases: [(u32, Change<'_>, bool, u16); 11] = [
        (MASTER, &given(1), false, 1),
        (MASTER, &given(0), false, 1472),
        (MASTER, &given(65535), false, 65507),
        (MASTER, &plain, false, 1472),
        (MASTER, &in_six, true, 1452),
        (BACKUP, &given(1), false, 1024),
        (BACKUP, &given(1023), false, 1024),
        (BACKUP, &given(65535), false, 65507),
        (BACKUP, &plain, false, 8972),
        (BACKUP, &in_six, true, 8952),
        (BACKUP, &|nest| given(65535)(in_six(nest)), true, 65487),
    ];
    for (n, (state, change, is_six, maxlen)) in cases.into_iter().enumerate() {
        ensure!(new(ipvs, &change(basic(state, "c0", 0)))? == 0, "case {n}");
        (shown.state, shown.maxlen) = (state, maxlen);
        let want = if is_six {
            shown.v6(six)
        } else {
            shown.v4(GROUP)
        };
        expect(ipvs, &[want]).with_context(|| format!("case {n}"))?;
        ensure!(del(ipvs, state)? == 0, "the end of case {n}");
    }
    rig.topo
        .director
        .cmd("ip link set dev c0 mtu 1500")
        .map(drop)
}

fn refusals(ipvs: &Ipvs) -> Result<()> {
    let unicast: Ipv6Addr = "2001:db8::1".parse()?;
    let cases = [
        ("no interface", basic(MASTER, "nosuch0", 0), ENODEV),
        ("bad state, no interface", basic(7, "nosuch0", 0), ENODEV),
        ("bad state", basic(0, "c0", 0), EINVAL),
        ("both states", basic(3, "c0", 0), EINVAL),
        ("empty name", basic(MASTER, "", 0), ENODEV),
        (
            "IPv4 unicast",
            basic(MASTER, "c0", 0).put(5, &[10, 0, 0, 1]),
            EINVAL,
        ),
        (
            "IPv6 unicast",
            basic(BACKUP, "c0", 0).put(6, &unicast.octets()),
            EINVAL,
        ),
        (
            "half a group",
            basic(BACKUP, "c0", 0).put(6, &unicast.octets()[..8]),
            EINVAL,
        ),
        (
            "a long name",
            basic(MASTER, "abcdefghijklmnop", 0),
            EINVAL,
        ),
        (
            "no state",
            basic(MASTER, "c0", 0).without(1),
            EINVAL,
        ),
    ];
    for (what, nest, errno) in cases {
        let got = new(ipvs, &nest)?;
        ensure!(got == errno, "{what}: {got}, not {errno}");
    }
    // An IPv4 group that is there, too, counts.
    let both = basic(MASTER, "c0", 0)
        .put(5, &GROUP.octets())
        .put(6, &unicast.octets());
    ensure!(new(ipvs, &both)? == 0, "both groups");
    ensure!(del(ipvs, 0)? == EINVAL, "the end of nothing");
    ensure!(del(ipvs, 3)? == EINVAL, "the end of both");
    ensure!(del(ipvs, BACKUP)? == ESRCH, "the end of none");
    ensure!(del(ipvs, MASTER)? == 0, "the end");
    expect(ipvs, &[])
}

/// `struct ip_vs_daemon_user`.
fn user(state: u32, ifname: &str, syncid: i32) -> Vec<u8> {
    let mut bytes = state.to_ne_bytes().to_vec();
    bytes.extend(name16(ifname));
    bytes.extend(syncid.to_ne_bytes());
    bytes
}

fn options(ipvs: &Ipvs, opts: &Sockopt) -> Result<()> {
    let start = |bytes: &[u8]| opts.set(set::STARTDAEMON, bytes);
    let stop = |bytes: &[u8]| {
        settle().map_err(|_| 0)?;
        opts.set(set::STOPDAEMON, bytes)
    };
    let both = || -> Result<Vec<u8>> {
        let mut room = [0xee; 2 * DAEMON_LEN];
        let len = opts.get(get::DAEMON, &mut room);
        ensure!(len == Ok(room.len()), "{len:?}");
        Ok(room.to_vec())
    };
    let none = vec![0; DAEMON_LEN];
    ensure!(start(&user(BACKUP, "c0", -2)) == Ok(()), "a backup");
    let backup = user(BACKUP, "c0", -2);
    ensure!(both()? == [none.clone(), backup.clone()].concat());
    ensure!(start(&user(BACKUP, "c0", 1)) == Err(EEXIST), "two");
    ensure!(start(&user(MASTER, "s1", 258)) == Ok(()), "a master");
    let master = user(MASTER, "s1", 258);
    ensure!(both()? == [master.clone(), backup].concat());
    let shown = |state, ifname, syncid| Shown {
        state,
        ifname,
        syncid,
        maxlen: 1472,
        port: 8848,
        ttl: 1,
    };
    expect(
        ipvs,
        &[
            shown(MASTER, "s1", 258).v4(GROUP),
            shown(BACKUP, "c0", -2i32 as u32).v4(GROUP),
        ],
    )?;
    ensure!(start(&user(9, "c0", 1)) == Err(EINVAL), "bad state");
    // Only the state says which.
    ensure!(stop(&user(BACKUP, "", 0)) == Ok(()), "its end");
    ensure!(both()? == [master, none.clone()].concat());
    ensure!(stop(&user(BACKUP, "", 0)) == Err(ESRCH), "once more");
    ensure!(stop(&user(MASTER, "x", 0)) == Ok(()), "the other's");
    ensure!(both()? == [none.clone(), none].concat());
    expect(ipvs, &[])
}

fn families(ipvs: &Ipvs, opts: &Sockopt) -> Result<()> {
    let vip = at(Family::V4.vip(), 80);
    let real = at(Family::V6.raw_rs(1), 80);
    ipvs.ok(cmd::NEW_SERVICE, &crate::ipvs::for_svc(&svc_full(TCP, vip, "rr")))?;
    let tunnel = dest_full(real, 1)
        .with(3, &2u32.to_ne_bytes())
        .u16(11, Family::V6.af());
    let add = for_dest(&svc_id(TCP, vip), &tunnel);
    for state in [MASTER, BACKUP] {
        ensure!(new(ipvs, &basic(state, "c0", 0))? == 0, "{state}");
        let got = ipvs.call(cmd::NEW_DEST, &add)?.errno;
        ensure!(got == EINVAL, "beside {state}: {got}");
        ensure!(del(ipvs, state)? == 0);
        ipvs.ok(cmd::NEW_DEST, &add)?;
        let got = new(ipvs, &basic(state, "c0", 0))?;
        ensure!(got == EINVAL, "{state} beside it: {got}");
        // That was always so.
        ensure!(
            opts.set(set::STARTDAEMON, &user(state, "c0", 0)) == Ok(()),
            "{state} by socket option"
        );
        settle()?;
        let got = ipvs.call(cmd::SET_DEST, &add)?.errno;
        ensure!(got == EINVAL, "a change beside {state}: {got}");
        // It may go.
        ipvs.ok(cmd::DEL_DEST, &add)?;
        ensure!(del(ipvs, state)? == 0);
        ensure!(new(ipvs, &basic(state, "c0", 0))? == 0, "{state} again");
        ensure!(del(ipvs, state)? == 0);
    }
    ipvs.ok(cmd::NEW_DEST, &add)?;
    ipvs.ok(cmd::DEL_SERVICE, &crate::ipvs::for_svc(&svc_id(TCP, vip)))?;
    ensure!(new(ipvs, &basic(MASTER, "c0", 0))? == 0, "after all");
    ensure!(del(ipvs, MASTER)? == 0);
    Ok(())
}

/// The threads that daemons of all namespaces have: their names, and whether they sleep.
fn running() -> Result<Vec<(String, bool)>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // One may just have ended.
        let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(") "))
        else {
            continue;
        };
        if name.starts_with("ipvs-m:") || name.starts_with("ipvs-b:") {
            threads.push((name.to_owned(), rest.starts_with('S')));
        }
    }
    threads.sort();
    Ok(threads)
}

fn threads(rig: &Rig, ipvs: &Ipvs) -> Result<()> {
    ensure!(running()?.is_empty(), "{:?}", running()?);
    let ports = "net.ipv4.vs.sync_ports";
    rig.topo.director.set_sysctl(ports, 4)?;
    ensure!(new(ipvs, &basic(MASTER, "c0", 0))? == 0);
    // The second daemon has as many as the first, whatever is said now.
    rig.topo.director.set_sysctl(ports, 1)?;
    ensure!(new(ipvs, &basic(BACKUP, "c0", 0))? == 0);
    let names: Vec<String> = running()?.into_iter().map(|(name, _)| name).collect();
    ensure!(names.len() == 8, "{names:?}");
    let generation = names[0].split(':').nth(1).context("a name")?.to_owned();
    let want: Vec<String> = ["b", "m"]
        .iter()
        .flat_map(|kind| {
            let generation = &generation;
            (0..4).map(move |id| format!("ipvs-{kind}:{generation}:{id}"))
        })
        .collect();
    ensure!(names == want, "{names:?}");
    for state in [MASTER, BACKUP] {
        ensure!(del(ipvs, state)? == 0);
    }
    ensure!(running()?.is_empty(), "{:?}", running()?);
    ensure!(new(ipvs, &basic(BACKUP, "c0", 0))? == 0);
    ensure!(running()?.len() == 1, "{:?}", running()?);
    ensure!(del(ipvs, BACKUP)? == 0);
    Ok(())
}

/// Daemons outlive their interface, and end as always.
fn interface(rig: &Rig, ipvs: &Ipvs) -> Result<()> {
    let director = &rig.topo.director;
    let vip = at(Family::V4.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!(
        "-a -t {vip} -r {} -m",
        at(Family::V4.raw_rs(1), 80)
    ))?;
    for round in 0..rounds(5) as u16 {
        director.ip("link add x0 type veth peer name x1\nlink set x0 up\nlink set x1 up\n")?;
        director.ip("addr add 10.200.0.1/24 dev x0\n")?;
        for state in [MASTER, BACKUP] {
            ensure!(new(ipvs, &basic(state, "x0", 0))? == 0);
        }
        let pkts: Vec<Pkt> = (0..50)
            .flat_map(|n| {
                let client = at(Family::V4.raw_client(50 * round + n), 1000);
                [SYN, ACK, RST].map(|flags| Pkt::tcp(client, vip, flags))
            })
            .collect();
        rig.exchange(Side::Client, &pkts)?;
        director.ip("link del x0\n")?;
        rig.exchange(Side::Client, &pkts)?;
        for state in [MASTER, BACKUP] {
            ensure!(del(ipvs, state)? == 0);
        }
    }
    Ok(())
}

/// Namespaces go with daemons that run.
fn namespaces() -> Result<()> {
    for round in 0..rounds(6) {
        let ns = Ns::new("short-lived")?;
        ns.ip("link add x0 type veth peer name x1\nlink set x0 up\nlink set x1 up\n")?;
        ns.ip("addr add 10.200.0.1/24 dev x0\naddr add 10.200.0.2/24 dev x1\naddr add fd20::1/64 dev x0 nodad\n")?;
        ns.set_sysctl("net.ipv4.vs.sync_ports", 1 << (round % 3))?;
        let ipvs = Ipvs::open(&ns)?;
        if round % 2 == 0 {
            ns.cmd("ipvsadm -A -t 10.1.1.1:80 -s rr")?;
        }
        let six: Ipv6Addr = "ff05::8848".parse()?;
        for state in [MASTER, BACKUP] {
            let nest = basic(state, "x0", 1);
            let nest = if round % 3 == 0 {
                nest.put(6, &six.octets())
            } else {
                nest
            };
            ensure!(new(&ipvs, &nest)? == 0, "round {round}");
        }
        ensure!(!running()?.is_empty());
        drop(ipvs);
        drop(ns);
        until_true("the end of the threads", 10.0, || {
            Ok(running()?.is_empty())
        })?;
    }
    Ok(())
}
