// SPDX-License-Identifier: GPL-2.0-or-later

//! Thousands of connections: each is listed once, in one go or in small pieces, in seconds; packets go on meanwhile;
//! their namespace ends soon with all of them, and holds nobody else up.
//!
//! Proves checklist items 22 (long listings), 38 (many connections) and 66 (size) in part.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};

use crate::ext::{conns, Filter};
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::Pkt;
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, ipvsadm, Family};
use crate::wait::{rounds, scaled, until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "scale_conns",
    "many connections are listed, and end with their namespace, without holding anything up",
    &[],
    run,
)
.partly(&[22, 38, 66])
.timeout(120.0);

/// How long a packet may take on its way through a director that lists.
const LONGEST: f64 = 2.0;

/// The clients in a listing.
fn clients(text: &str) -> Vec<&str> {
    let rows = text.lines().skip(1);
    rows.filter_map(|row| row.get(4..17)).collect()
}

/// Reads the listing so many bytes at a time.
fn in_pieces(ns: &Ns, size: usize) -> Result<String> {
    ns.run(|| {
        let mut file = File::open("/proc/thread-self/net/ip_vs_conn")?;
        let (mut text, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(String::from_utf8(text)?),
                n => text.extend(&piece[..n]),
            }
        }
    })
}

/// Objects in use in the cache of connections. What processors keep for themselves would seem used, and so would what KASAN keeps from
/// being used again, for minutes: the cache gives all that back first.
fn objects(peer: Peer) -> Result<usize> {
    let name = match peer {
        Peer::C => "ip_vs_conn",
        Peer::Rvs => "rvs_conn",
    };
    let shrink = format!("/sys/kernel/slab/{name}/shrink");
    std::fs::write(&shrink, "1").context(shrink)?;
    let text = std::fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    let row = text
        .lines()
        .find(|row| row.split_whitespace().next() == Some(name))
        .with_context(|| format!("no cache {name}"))?;
    let used = row.split_whitespace().nth(1).context("no number")?;
    Ok(used.parse()?)
}

fn run(cx: &Cx) -> Result<()> {
    let many = rounds(12_000);
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let (vip, rs) = (at(Family::V4.vip(), 53), at(Family::V4.raw_rs(1), 53));
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    rig.ipvsadm("--set 0 0 1000")?;
    let packets: Vec<Pkt> = (0..many)
        .map(|n| {
            let client = Family::V4.raw_client((n % 250) as u16);
            Pkt::udp(at(client, 1000 + (n / 250) as u16), vip, b"x")
        })
        .collect();
    let began = Instant::now();
    for chunk in packets.chunks(250) {
        let io = rig.exchange(Side::Client, chunk)?;
        ensure!(io.server.len() == chunk.len(), "packets were lost");
    }
    println!("{many} connections made in {:?}", began.elapsed());

    // Each once, as soon as the table has got its size.
    let listing = || -> Result<(usize, usize, Duration)> {
        let began = Instant::now();
        let text = ns.read("/proc/net/ip_vs_conn")?;
        let took = began.elapsed();
        let rows = clients(&text);
        let different: BTreeSet<&str> = rows.iter().copied().collect();
        Ok((rows.len(), different.len(), took))
    };
    let took = until("each connection is listed once", 10.0, || {
        let (rows, different, took) = listing()?;
        Ok((rows == many && different == many).then_some(took))
    })?;
    println!("listed in {took:?}");
    ensure!(took < scaled(5.0), "a listing takes {took:?}");
    for size in [100, 4000] {
        let began = Instant::now();
        let text = in_pieces(ns, size)?;
        let (rows, took) = (clients(&text), began.elapsed());
        let different: BTreeSet<&str> = rows.iter().copied().collect();
        ensure!(
            rows.len() == many && different.len() == many,
            "{} rows, {} of them different, in pieces of {size}",
            rows.len(),
            different.len()
        );
        println!("listed in pieces of {size} in {took:?}");
        ensure!(took < scaled(10.0), "pieces of {size} take {took:?}");
    }
    if cx.peer == Peer::Rvs {
        let ipvs = Ipvs::open(ns)?;
        let began = Instant::now();
        let all = conns(&ipvs, &Filter::default())?;
        let different: BTreeSet<_> = all.iter().map(|conn| conn.client).collect();
        ensure!(
            all.len() == many && different.len() == many,
            "{} dumped",
            all.len()
        );
        println!("dumped in {:?}", began.elapsed());
    }

    // Somebody lists all the time, on the same processor.
    let (stop, listings) = (AtomicBool::new(false), AtomicU32::new(0));
    let slowest = std::thread::scope(|s| -> Result<Duration> {
        let lister = s.spawn(|| -> Result<()> {
            while !stop.load(Ordering::Relaxed) {
                ns.read("/proc/net/ip_vs_conn")?;
                listings.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        let (end, mut slowest) = (Instant::now() + scaled(1.0), Duration::ZERO);
        let mut sent = Ok(());
        while sent.is_ok() && (Instant::now() < end || listings.load(Ordering::Relaxed) == 0) {
            let began = Instant::now();
            sent = rig.forwarded(&packets[0]).map(drop);
            slowest = slowest.max(began.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
        let listed = lister.join();
        sent?;
        listed.map_err(|_| anyhow::anyhow!("the lister panicked"))??;
        Ok(slowest)
    })?;
    println!(
        "the slowest packet took {slowest:?} during {} listings",
        listings.into_inner()
    );
    ensure!(slowest < scaled(LONGEST), "a packet took {slowest:?}");

    // All gone at once, while others begin.
    ensure!(objects(cx.peer)? >= many, "where are the connections?");
    let began = Instant::now();
    drop(rig);
    let other = Ns::new("other")?;
    ipvsadm(&other, "-A -t 192.0.2.1:80 -s rr")?;
    let took = began.elapsed();
    println!("another namespace was there after {took:?}");
    ensure!(
        proc::conns(&other)?.is_empty(),
        "connections of another namespace"
    );
    until_true("the connections are freed", 20.0, || {
        Ok(objects(cx.peer)? <= many / 4 + 500)
    })?;
    println!("freed after {:?}", began.elapsed());
    Ok(())
}
