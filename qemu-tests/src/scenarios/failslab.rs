// SPDX-License-Identifier: GPL-2.0-or-later

//! Every allocation of a configuration change, and of a new connection, fails once in turn: the
//! change is refused by ENOMEM and nothing is changed, or the packet is dropped; then it works. The
//! kmemleak scan after the boot finds what was not given back.
//!
//! `/proc/self/fail-nth` makes the nth allocation of the calling task fail. A packet's allocations count where it is sent by the task
//! itself: a client on the director. So do those of what an FTP client says and of the first packet of its data connection.
//!
//! Proves checklist item 143 (allocation failures).

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;

use anyhow::{bail, ensure, Context, Result};

use crate::ftp::{Client, Data, Server};
use crate::fullnat;
use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, top, Ipvs};
use crate::pkt::{TCP, UDP};
use crate::proc;
use crate::rig::one_cpu;
use crate::scenario::{Cx, Guest, Peer, Scenario};
use crate::serve;
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "failslab",
    "every allocation of a change and of a new connection fails once",
    &[143],
    run,
)
.only_guests(
    &[Guest::Kasan],
    "it needs failslab, which the kasan guest has",
)
.timeout(120.0);

const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
const MOST: u32 = 500;

/// The calling thread's file. It stays open: opening it allocates.
struct FailNth(fs::File);

impl FailNth {
    fn new() -> Result<Self> {
        let file = fs::File::options().read(true).write(true).open(FAIL_NTH);
        Ok(Self(file.with_context(|| FAIL_NTH.to_owned())?))
    }

    /// Runs `f` with its nth allocation failing; whether there was an nth.
    fn failing<T>(&self, nth: u32, f: impl FnOnce() -> T) -> Result<(T, bool)> {
        let text = nth.to_string();
        self.0
            .write_at(text.as_bytes(), 0)
            .context("setting fail-nth")?;
        let result = f();
        let mut left = [0; 16];
        let n = self.0.read_at(&mut left, 0);
        self.0.write_at(b"0", 0).context("resetting fail-nth")?;
        // It counts down to zero and fails there.
        let left = String::from_utf8_lossy(&left[..n.context("reading fail-nth")?]).into_owned();
        Ok((result, left.trim() == "0"))
    }
}

fn run(cx: &Cx) -> Result<()> {
    let debug = "/sys/kernel/debug/failslab";
    for (file, value) in [
        ("ignore-gfp-wait", "N"),
        ("verbose", "0"),
        ("probability", "0"),
        ("times", "-1"),
    ] {
        fs::write(format!("{debug}/{file}"), value).with_context(|| format!("{debug}/{file}"))?;
    }
    // Quiet, where that is built in as well.
    let _ = fs::write("/sys/kernel/debug/fail_page_alloc/verbose", "0");
    one_cpu()?;
    cx.modules.load_ftp(&[])?;
    let topo = Topo::new(1)?;
    topo.director.run(|| -> Result<()> {
        for family in Family::BOTH {
            changes(&topo, family).with_context(|| format!("{family:?}"))?;
            connections(&topo, family, false).with_context(|| format!("{family:?}"))?;
            ftp(&topo, family).with_context(|| format!("{family:?}, FTP"))?;
            if cx.peer == Peer::Rvs {
                pools(&topo, family).with_context(|| format!("{family:?}, pools"))?;
                connections(&topo, family, true).with_context(|| format!("{family:?}, FullNAT"))?;
            }
        }
        // C does not acknowledge the end of a daemon whose thread has not run yet.
        if cx.peer == Peer::Rvs {
            daemons(&topo).context("daemons")?;
        }
        Ok(())
    })
}

/// A change of configuration.
struct Change<'a> {
    what: String,
    cmd: u8,
    attrs: &'a Attrs,
    /// What takes it back, if it must not be done twice.
    undo: Option<(u8, &'a Attrs)>,
}

impl Change<'_> {
    /// Does it with one allocation after the other failing, until there is none left to fail. `check`
    /// is told whether it should have been done.
    fn play(&self, ipvs: &Ipvs, check: impl Fn(bool) -> Result<()>) -> Result<()> {
        let what = &self.what;
        let nth = FailNth::new()?;
        for n in 1..MOST {
            let (reply, failed) = nth.failing(n, || ipvs.call(self.cmd, self.attrs))?;
            if !failed {
                ensure!(
                    reply.as_ref().is_ok_and(|r| r.errno == 0),
                    "{what}: {reply:?}"
                );
                println!("{what}: {} allocations", n - 1);
                return check(true).with_context(|| format!("{what}, done"));
            }
            match reply.as_ref().map(|r| r.errno) {
                // It did without what failed.
                Ok(0) => check(true).with_context(|| format!("{what}, done without {n}"))?,
                // The last one is what a socket says for which there is no memory.
                Ok(libc::ENOMEM | libc::ENOBUFS | libc::ENFILE) => {
                    check(false).with_context(|| format!("{what}, allocation {n} failed"))?;
                    continue;
                }
                Ok(e) => bail!("{what}, allocation {n} failed: errno {e}, {reply:?}"),
                // The request did not leave, or its acknowledgement got lost: done or not, nobody knows.
                Err(e) => println!("{what}, allocation {n}: {e:#}"),
            }
            if let Some((cmd, attrs)) = self.undo {
                // Refused where there is nothing to take back.
                ipvs.call(cmd, attrs)?;
                check(false).with_context(|| format!("{what}, taken back after {n}"))?;
            }
        }
        bail!("{what} still fails after {MOST} allocations")
    }
}

fn changes(topo: &Topo, family: Family) -> Result<()> {
    let ipvs = Ipvs::open(&topo.director)?;
    for (sched, proto) in [("rr", TCP), ("wrr", UDP), ("lc", TCP), ("wlc", UDP)] {
        let vip = at(family.vip(), 7000);
        let id = svc_id(proto, vip);
        let by_id = for_svc(&id);
        let play = |cmd: u8,
                    attrs: &Attrs,
                    undo: Option<(u8, &Attrs)>,
                    check: &dyn Fn(bool) -> Result<()>| {
            let what = format!("command {cmd} ({sched}, protocol {proto})");
            Change {
                what,
                cmd,
                attrs,
                undo,
            }
            .play(&ipvs, check)
        };
        let services = |want: usize| -> Result<()> {
            let all = ipvs.services()?;
            ensure!(all.len() == want, "services {all:?}");
            Ok(())
        };
        let dests = |want: usize| -> Result<()> {
            let all = ipvs.dests(proto, vip)?;
            ensure!(
                all.len() == want,
                "{} destinations, expected {want}",
                all.len()
            );
            Ok(())
        };

        let new = for_svc(&svc_full(proto, vip, sched));
        play(
            cmd::NEW_SERVICE,
            &new,
            Some((cmd::DEL_SERVICE, &by_id)),
            &|done| services(usize::from(done)),
        )?;
        for host in 1..=3u8 {
            let rs = at(family.raw_rs(host), 80);
            let attrs = for_dest(&id, &dest_full(rs, 1));
            play(
                cmd::NEW_DEST,
                &attrs,
                Some((cmd::DEL_DEST, &attrs)),
                &|done| dests(usize::from(host) - usize::from(!done)),
            )?;
            let heavy = for_dest(&id, &dest_full(rs, 9));
            play(
                cmd::SET_DEST,
                &heavy,
                Some((cmd::SET_DEST, &attrs)),
                &|done| {
                    let weight = ipvs.dest(proto, vip, rs)?.weight;
                    ensure!(weight == if done { 9 } else { 1 }, "weight {weight}");
                    Ok(())
                },
            )?;
        }
        for other in ["wrr", "rr", sched] {
            let attrs = for_svc(&svc_full(proto, vip, other));
            play(cmd::SET_SERVICE, &attrs, None, &|_| services(1))?;
        }
        play(cmd::GET_SERVICE, &by_id, None, &|_| Ok(()))?;
        play(cmd::GET_INFO, &Attrs::new(), None, &|_| Ok(()))?;
        play(cmd::ZERO, &Attrs::new(), None, &|_| Ok(()))?;
        let rs = at(family.raw_rs(2), 80);
        let attrs = for_dest(&id, &dest_full(rs, 1));
        play(
            cmd::DEL_DEST,
            &attrs,
            Some((cmd::NEW_DEST, &attrs)),
            &|done| dests(if done { 2 } else { 3 }),
        )?;
        let nth = FailNth::new()?;
        for n in 1..MOST {
            // A dump that could not begin stays the socket's running one.
            let ipvs = Ipvs::open(&topo.director)?;
            let (reply, failed) = nth.failing(n, || ipvs.dump(cmd::GET_DEST, &by_id))?;
            if !failed {
                let reply = reply?;
                let (errno, dests) = (reply.errno, reply.msgs.len());
                ensure!(
                    (errno, dests) == (0, 2),
                    "a dump after {n} failures: errno {errno}, {dests} destinations"
                );
                break;
            }
        }
        play(
            cmd::DEL_SERVICE,
            &by_id,
            Some((cmd::NEW_SERVICE, &new)),
            &|done| services(usize::from(!done)),
        )?;
        ipvs.ok(cmd::NEW_SERVICE, &new)?;
        play(
            cmd::FLUSH,
            &Attrs::new(),
            Some((cmd::NEW_SERVICE, &new)),
            &|done| services(usize::from(!done)),
        )?;
    }
    Ok(())
}

/// Local addresses of a service come and go.
fn pools(topo: &Topo, family: Family) -> Result<()> {
    let ipvs = Ipvs::open(&topo.director)?;
    let vip = at(family.vip(), 7001);
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(UDP, vip, "rr")))?;
    let whole = if family == Family::V4 { 32 } else { 128 };
    for (n, len) in [(0, whole - 2), (16, whole)] {
        let local = fullnat::laddr(fullnat::local(family, n)).u8(fullnat::PREFIX_LEN, len);
        let attrs = fullnat::about(UDP, vip, &local);
        let before = fullnat::locals(&ipvs, UDP, vip)?.len();
        let all = before + (1 << (whole - len));
        for (cmd, undo, there, not) in [
            (fullnat::NEW_LADDR, fullnat::DEL_LADDR, all, before),
            (fullnat::DEL_LADDR, fullnat::NEW_LADDR, before, all),
            (fullnat::NEW_LADDR, fullnat::DEL_LADDR, all, before),
        ] {
            let change = Change {
                what: format!("command {cmd}, prefix length {len}"),
                cmd,
                attrs: &attrs,
                undo: Some((undo, &attrs)),
            };
            change.play(&ipvs, |done| {
                let now = fullnat::locals(&ipvs, UDP, vip)?.len();
                ensure!(now == if done { there } else { not }, "{now} addresses");
                Ok(())
            })?;
        }
    }
    ipvs.ok(cmd::DEL_SERVICE, &for_svc(&svc_id(UDP, vip)))?;
    Ok(())
}

/// A client's command that makes a data connection, and the packet that begins one. What is lost is said again.
fn ftp(topo: &Topo, family: Family) -> Result<()> {
    let (vip, rs) = (at(family.vip(), 21), at(family.rs(1), 21));
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let server = Server::new(&topo.rs[0], rs, "rs1")?;
    let mut client = Client::login(&topo.director, vip)?;
    let (nth, me) = (FailNth::new()?, client.here()?.ip());
    let number = if family == Family::V4 { 1 } else { 2 };
    for n in 1..MOST {
        let port = 10_000 + n as u16;
        let line = format!("EPRT |{number}|{me}|{port}|");
        let (sent, failed) = nth.failing(n, || client.send(&line))?;
        if sent.is_ok() {
            client.expect("200").with_context(|| format!("after {n}"))?;
            let conn = proc::conn(&topo.director, at(me, port))?;
            ensure!(
                conn.is_some_and(|c| c.state == "LISTEN"),
                "allocation {n} failed: {line}"
            );
        }
        if !failed {
            println!("a command: {} allocations", n - 1);
            break;
        }
    }
    for n in 1..MOST {
        let to = client.passive(Data::Epsv)?;
        let (data, failed) = nth.failing(n, || TcpStream::connect(to))?;
        let data = match data {
            Ok(data) => data,
            // What failed then works now.
            Err(_) => TcpStream::connect(to).with_context(|| format!("after {n}"))?,
        };
        let conn = proc::conn(&topo.director, data.local_addr()?)?;
        ensure!(
            conn.as_ref().is_some_and(|c| c.vip == to),
            "allocation {n} failed: {conn:?}"
        );
        client.command("RETR 1", "150")?;
        client.expect("226")?;
        if !failed {
            println!("a data connection: {} allocations", n - 1);
            break;
        }
    }
    client.echo("all is well")?;
    drop((client, server));
    topo.ipvsadm(&format!("-D -t {vip}")).map(drop)
}

/// Synchronisation daemons come and go, and are told of connections.
fn daemons(topo: &Topo) -> Result<()> {
    let ipvs = Ipvs::open(&topo.director)?;
    let group6: std::net::Ipv6Addr = "ff05::8848".parse()?;
    let running =
        || -> Result<usize> { Ok(ipvs.dump(cmd::GET_DAEMON, &Attrs::new())?.ok()?.msgs.len()) };
    topo.director.set_sysctl("net.ipv4.vs.sync_ports", 2)?;
    for is_six in [false, true] {
        for state in [1, 2] {
            let nest = Attrs::new().u32(1, state).text(2, "c0").u32(3, 1);
            let nest = if is_six {
                nest.put(6, &group6.octets())
            } else {
                nest
            };
            let attrs = Attrs::new().nest(top::DAEMON, &nest);
            for (cmd, undo, there, not) in [
                (cmd::NEW_DAEMON, cmd::DEL_DAEMON, 1, 0),
                (cmd::DEL_DAEMON, cmd::NEW_DAEMON, 0, 1),
            ] {
                let change = Change {
                    what: format!("command {cmd}, state {state}, IPv6 {is_six}"),
                    cmd,
                    attrs: &attrs,
                    undo: Some((undo, &attrs)),
                };
                change.play(&ipvs, |done| {
                    let now = running()?;
                    ensure!(now == if done { there } else { not }, "{now} daemons");
                    Ok(())
                })?;
            }
        }
    }
    // Each packet is announced, or what there is to say is lost.
    topo.director
        .set_sysctl("net.ipv4.vs.sync_threshold", "0 1")?;
    topo.ipvsadm("--start-daemon master --mcast-interface c0")?;
    for family in Family::BOTH {
        connections(topo, family, false).with_context(|| format!("{family:?}"))?;
    }
    topo.ipvsadm("--stop-daemon master")?;
    Ok(())
}

/// A new connection, by NAT or FullNAT.
fn connections(topo: &Topo, family: Family, local: bool) -> Result<()> {
    let vip = at(family.vip(), 53);
    topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    if local {
        let ipvs = Ipvs::open(&topo.director)?;
        fullnat::add(&ipvs, UDP, vip, fullnat::local(family, 1))?;
    }
    topo.ipvsadm(&format!("-a -u {vip} -r {} -m", at(family.raw_rs(1), 53)))?;
    let nth = FailNth::new()?;
    let mut dropped = 0;
    for n in 1..MOST {
        let socket = serve::udp(&topo.director, vip)?;
        let local = socket.local_addr()?;
        let (sent, failed) = nth.failing(n, || socket.send(b"x"))?;
        let conn = proc::conn(&topo.director, local)?;
        if !failed {
            ensure!(
                sent.is_ok() && conn.is_some(),
                "after {n} failures: {sent:?}, {conn:?}"
            );
            println!(
                "a new connection: {} allocations, {dropped} of them drop the packet",
                n - 1
            );
            topo.ipvsadm(&format!("-D -u {vip}"))?;
            return Ok(());
        }
        if conn.is_none() {
            dropped += 1;
            // What failed then works now.
            socket.send(b"again")?;
            ensure!(
                proc::conn(&topo.director, local)?.is_some(),
                "no connection at the second try"
            );
        }
    }
    bail!("a packet still fails after {MOST} allocations")
}
