// SPDX-License-Identifier: GPL-2.0-or-later

//! Every allocation of a configuration change, and of a new connection, fails once in turn: the
//! change is refused by ENOMEM and nothing is changed, or the packet is dropped; then it works. The
//! kmemleak scan after the boot finds what was not given back.
//!
//! `/proc/self/fail-nth` makes the nth allocation of the calling task fail. A packet's allocations count where it is sent by the task
//! itself: a client on the director.
//!
//! Proves checklist item 143 (allocation failures).

use std::fs;
use std::os::unix::fs::FileExt;

use anyhow::{bail, ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{TCP, UDP};
use crate::proc;
use crate::rig::one_cpu;
use crate::scenario::{Cx, Guest, Scenario};
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

fn run(_cx: &Cx) -> Result<()> {
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
    let topo = Topo::new(1)?;
    topo.director.run(|| -> Result<()> {
        for family in Family::BOTH {
            changes(&topo, family).with_context(|| format!("{family:?}"))?;
            connections(&topo, family).with_context(|| format!("{family:?}"))?;
        }
        Ok(())
    })
}

/// Does one change until it succeeds with nothing failing in it.
fn change(
    ipvs: &Ipvs,
    what: &str,
    cmd: u8,
    attrs: &Attrs,
    check: impl Fn(bool) -> Result<()>,
) -> Result<()> {
    let nth = FailNth::new()?;
    // A request may have been carried out and its acknowledgement lost.
    let mut unknown = false;
    for n in 1..MOST {
        let (reply, failed) = nth.failing(n, || ipvs.call(cmd, attrs))?;
        let reply = match reply {
            Ok(reply) => reply,
            Err(e) if failed => {
                println!("{what}, allocation {n}: {e:#}");
                unknown = true;
                continue;
            }
            Err(e) => return Err(e).with_context(|| what.to_owned()),
        };
        match reply.errno {
            0 => {
                check(true)
                    .with_context(|| format!("{what}, done; allocation {n} failed: {failed}"))?;
                if !failed {
                    println!("{what}: {} allocations", n - 1);
                }
                return Ok(());
            }
            libc::EEXIST | libc::ESRCH | libc::ENOENT if unknown => {
                return check(true).with_context(|| format!("{what}, done before"));
            }
            libc::ENOMEM | libc::ENOBUFS if failed => {
                check(false).with_context(|| format!("{what}, allocation {n} failed"))?;
            }
            e => bail!(
                "{what}, allocation {n} (failed: {failed}): errno {e}, {:?}",
                reply.text
            ),
        }
    }
    bail!("{what} still fails after {MOST} allocations")
}

fn changes(topo: &Topo, family: Family) -> Result<()> {
    let ipvs = Ipvs::open(&topo.director)?;
    for sched in ["rr", "wrr", "lc", "wlc"] {
        for proto in [TCP, UDP] {
            let vip = at(family.vip(), 7000);
            let id = svc_id(proto, vip);
            let there = |want: bool| -> Result<()> {
                let all = ipvs.services()?;
                ensure!(
                    all.iter()
                        .any(|s| s.vip == Some(vip) && s.proto == u16::from(proto))
                        == want,
                    "services {all:?}"
                );
                Ok(())
            };
            let what = |text: &str| format!("{text} ({sched}, protocol {proto})");
            let add = for_svc(&svc_full(proto, vip, sched));
            change(&ipvs, &what("NEW_SERVICE"), cmd::NEW_SERVICE, &add, there)?;
            for host in 1..=3u8 {
                let rs = at(family.raw_rs(host), 80);
                let attrs = for_dest(&id, &dest_full(rs, 1));
                change(&ipvs, &what("NEW_DEST"), cmd::NEW_DEST, &attrs, |done| {
                    let n = ipvs.dests(proto, vip)?.len();
                    ensure!(
                        n == usize::from(host) - usize::from(!done),
                        "{n} destinations"
                    );
                    Ok(())
                })?;
                let attrs = for_dest(&id, &dest_full(rs, 9));
                change(&ipvs, &what("SET_DEST"), cmd::SET_DEST, &attrs, |done| {
                    let weight = ipvs.dest(proto, vip, rs)?.weight;
                    ensure!(weight == if done { 9 } else { 1 }, "weight {weight}");
                    Ok(())
                })?;
            }
            for other in ["wrr", "rr", sched] {
                let attrs = for_svc(&svc_full(proto, vip, other));
                change(
                    &ipvs,
                    &what("SET_SERVICE"),
                    cmd::SET_SERVICE,
                    &attrs,
                    |_| there(true),
                )?;
            }
            change(
                &ipvs,
                "GET_SERVICE",
                cmd::GET_SERVICE,
                &for_svc(&id),
                |_| Ok(()),
            )?;
            change(&ipvs, "GET_INFO", cmd::GET_INFO, &Attrs::new(), |_| Ok(()))?;
            let rs = at(family.raw_rs(2), 80);
            let attrs = for_dest(&id, &dest_full(rs, 1));
            change(&ipvs, &what("DEL_DEST"), cmd::DEL_DEST, &attrs, |done| {
                let n = ipvs.dests(proto, vip)?.len();
                ensure!(n == if done { 2 } else { 3 }, "{n} destinations");
                Ok(())
            })?;
            let nth = FailNth::new()?;
            for n in 1..MOST {
                let (reply, failed) = nth.failing(n, || ipvs.dump(cmd::GET_DEST, &for_svc(&id)))?;
                if !failed {
                    ensure!(reply?.msgs.len() == 2, "a dump after {n} failures");
                    break;
                }
            }
            change(
                &ipvs,
                &what("DEL_SERVICE"),
                cmd::DEL_SERVICE,
                &for_svc(&id),
                |done| there(!done),
            )?;
        }
    }
    change(&ipvs, "FLUSH", cmd::FLUSH, &Attrs::new(), |_| Ok(()))
}

fn connections(topo: &Topo, family: Family) -> Result<()> {
    let vip = at(family.vip(), 53);
    topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
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
