// SPDX-License-Identifier: GPL-2.0-or-later

//! What is announced to the multicast groups (docs/netlink-extensions.md): contents, order and numbers, losses under
//! pressure, other namespaces, who may listen.
//!
//! Proves no item of the checklist: C has nothing like it.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use rvs_core::uapi::ext::{cmd, group};

use crate::ext::{self, event, numbers, Event, Listener};
use crate::genl::{find, Genl};
use crate::ipvs::{self, svc_id, top, Ipvs, Service};
use crate::pkt::{Pkt, ACK, FIN, RST, SYN, TCP};
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::sockopt::{self, set};
use crate::sync::{datagram_v1, Backup, Link, Record, DIRECT, ESTABLISHED, FIN_WAIT};
use crate::topo::{at, Family};
use crate::wait::{slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "events",
    "changes of services, destinations and connections are announced",
    &[],
    run,
)
.only_peer(Peer::Rvs, "C announces nothing")
.timeout(90.0);

fn run(_cx: &Cx) -> Result<()> {
    configuration()?;
    connections()?;
    taken_over()?;
    isolation()?;
    pressure()
}

fn vip_of(event: &Event) -> Result<Option<SocketAddr>> {
    let nest = find(&event.attrs, top::SERVICE).context("no service")?;
    if find(nest, ipvs::svc::FWMARK).is_some() {
        return Ok(None);
    }
    let port = find(nest, ipvs::svc::PORT).context("no port")?;
    let addr = find(nest, ipvs::svc::ADDR).context("no address")?;
    let ip = match ipvs::number(nest, ipvs::svc::AF)? {
        2 => std::net::IpAddr::from(<[u8; 4]>::try_from(&addr[..4])?),
        _ => std::net::IpAddr::from(<[u8; 16]>::try_from(addr)?),
    };
    Ok(Some(SocketAddr::new(
        ip,
        u16::from_be_bytes(port.try_into()?),
    )))
}

/// Each change of the configuration, by whatever interface.
fn configuration() -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    // Nobody listens: nothing is numbered.
    rig.ipvsadm("-A -t 10.9.9.9:1 -s rr")?;
    ensure!(numbers(&ipvs)? == [0, 0, 0], "{:?}", numbers(&ipvs)?);
    rig.ipvsadm("-C")?;

    let listener = Listener::new(ns, group::CONFIG)?;
    let mut seq = 0;
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        let steps: Vec<(String, u8, u8)> = vec![
            (format!("-A -t {vip} -s rr"), cmd::SERVICE_EVENT, event::NEW),
            (
                format!("-E -t {vip} -s wlc"),
                cmd::SERVICE_EVENT,
                event::CHANGED,
            ),
            (
                format!("-a -t {vip} -r {rs} -m -w 3"),
                cmd::DEST_EVENT,
                event::NEW,
            ),
            (
                format!("-e -t {vip} -r {rs} -m -w 4"),
                cmd::DEST_EVENT,
                event::CHANGED,
            ),
            (
                format!("-d -t {vip} -r {rs}"),
                cmd::DEST_EVENT,
                event::DELETED,
            ),
            (format!("-D -t {vip}"), cmd::SERVICE_EVENT, event::DELETED),
        ];
        for (line, command, kind) in steps {
            rig.ipvsadm(&line)?;
            // It is there before the command is acknowledged.
            let (events, _) = listener.all()?;
            let [event] = &events[..] else {
                anyhow::bail!("{line}: {events:?}")
            };
            seq += 1;
            ensure!(
                (event.cmd, event.kind, event.seq) == (command, kind, seq)
                    && vip_of(event)? == Some(vip),
                "{line}: {event:?}"
            );
            if command == cmd::DEST_EVENT {
                let dest = ipvs::Dest::parse(&event.attrs)?;
                let weight = if kind == event::NEW { 3 } else { 4 };
                ensure!(dest.addr == rs && dest.weight == weight, "{line}: {dest:?}");
            } else {
                let service = Service::parse(&event.attrs)?;
                ensure!(
                    service.sched == if kind == event::NEW { "rr" } else { "wlc" },
                    "{line}: {service:?}"
                );
            }
        }
    }
    // Refused requests change nothing and say nothing; what the old interface does is announced, too.
    ensure!(
        rig.topo
            .try_ipvsadm("-D -t 10.9.9.9:99")
            .is_ok_and(|out| out.code != Some(0)),
        "a service that is not there was removed"
    );
    let sock = sockopt::Sockopt::open(ns)?;
    let SocketAddr::V4(vip) = at(Family::V4.vip(), 7) else {
        anyhow::bail!("not IPv4")
    };
    sock.set(set::ADD, &sockopt::Service::new(TCP, vip, "rr").bytes())
        .map_err(std::io::Error::from_raw_os_error)?;
    rig.ipvsadm("-A -f 77 -s rr")?;
    rig.ipvsadm("-A -f 78 -6 -s rr")?;
    let events = listener.exactly(3)?;
    ensure!(
        vip_of(&events[0])? == Some(at(Family::V4.vip(), 7)),
        "{events:?}"
    );
    ensure!(
        vip_of(&events[1])?.is_none() && vip_of(&events[2])?.is_none(),
        "{events:?}"
    );
    rig.ipvsadm(&format!("-a -f 77 -r {} -m", at(Family::V4.raw_rs(1), 0)))?;
    rig.ipvsadm("-C")?;
    // The destination, then each service.
    let events = listener.exactly(4)?;
    ensure!(
        events[1..]
            .iter()
            .all(|e| (e.cmd, e.kind) == (cmd::SERVICE_EVENT, event::DELETED)),
        "{events:?}"
    );
    let last = events.last().map(|e| e.seq);
    ensure!(
        last == Some(seq + 7) && numbers(&ipvs)?[0] == seq + 7,
        "the last number is {last:?}, GET_EVENTS says {:?}",
        numbers(&ipvs)?
    );
    Ok(())
}

/// The life of connections.
fn connections() -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    ns.set_sysctl("net.ipv4.vs.rvs_conn_counters", 1)?;
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let listener = Listener::new(ns, group::CONNS)?;
        let before = numbers(&ipvs)?[1];
        let client = at(family.raw_client(1), 4000);
        rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
        rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
        rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
        rig.forwarded(&Pkt::tcp(client, vip, FIN | ACK))?;
        rig.returned(&Pkt::tcp(rs, client, FIN | ACK))?;
        rig.forwarded(&Pkt::tcp(client, vip, RST))?;
        let alive = listener.exactly(6)?;
        // Its server goes, and it with it.
        ns.set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
        rig.ipvsadm(&format!("-d -t {vip} -r {rs}"))?;
        let end = listener.exactly(1)?;
        let events: Vec<_> = alive.iter().chain(&end).collect();
        let told: Vec<_> = events
            .iter()
            .map(|e| Ok((e.kind, e.conn()?.state_name)))
            .collect::<Result<_>>()?;
        let want = [
            (event::NEW, "NONE"),
            (event::CHANGED, "SYN_RECV"),
            (event::CHANGED, "ESTABLISHED"),
            (event::CHANGED, "CLOSE_WAIT"),
            (event::CHANGED, "TIME_WAIT"),
            (event::CHANGED, "CLOSE"),
            (event::DELETED, "CLOSE"),
        ];
        ensure!(
            told.iter()
                .map(|(kind, state)| (*kind, state.as_str()))
                .eq(want),
            "{told:?}, expected {want:?}"
        );
        for (n, event) in events.iter().enumerate() {
            let conn = event.conn()?;
            ensure!(
                event.cmd == cmd::CONN_EVENT
                    && event.seq == before + 1 + n as u64
                    && event.lost()? == 0,
                "{event:?}"
            );
            ensure!(
                (conn.proto, conn.client, conn.vip, conn.dest) == (TCP, client, vip, rs),
                "{conn:?}"
            );
        }
        let last = events[6].conn()?;
        let counts = last.counts.context("no counters")?;
        ensure!(
            (counts.in_pkts, counts.out_pkts) == (4, 2) && last.expires == 0,
            "{last:?}"
        );
        ns.set_sysctl("net.ipv4.vs.expire_nodest_conn", 0)?;
    }
    // Templates are announced; packets of one-packet services are not.
    let listener = Listener::new(ns, group::CONNS)?;
    let vip = at(Family::V4.vip(), 5353);
    rig.ipvsadm(&format!("-A -u {vip} -s rr -o"))?;
    rig.ipvsadm(&format!(
        "-a -u {vip} -r {} -m",
        at(Family::V4.raw_rs(1), 53)
    ))?;
    for n in 0..5 {
        rig.forwarded(&Pkt::udp(at(Family::V4.raw_client(n), 4000), vip, b"x"))?;
    }
    let vip = at(Family::V4.vip(), 443);
    let rs = at(Family::V4.raw_rs(1), 443);
    rig.ipvsadm(&format!("-A -t {vip} -s rr -p"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let client = at(Family::V4.raw_client(1), 4000);
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    rig.returned(&Pkt::tcp(rs, client, SYN | ACK))?;
    rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
    let events = listener.exactly(5)?;
    let told: Vec<_> = events
        .iter()
        .map(|e| Ok((e.kind, e.conn()?.flags & 0x1000 != 0, e.conn()?.state_name)))
        .collect::<Result<_>>()?;
    let want = [
        (event::NEW, true, "NONE"),
        (event::NEW, false, "NONE"),
        (event::CHANGED, false, "SYN_RECV"),
        (event::CHANGED, false, "ESTABLISHED"),
        (event::CHANGED, true, "ASSURED"),
    ];
    ensure!(
        told.iter().map(|(k, t, s)| (*k, *t, s.as_str())).eq(want),
        "{told:?}, expected {want:?}"
    );
    Ok(())
}

/// Connections of another director: one that gets its destination late was there before, and is there afterwards.
fn taken_over() -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let link = Link::new(ns)?;
    let backup = Backup::start(ns, &link, "")?;
    let listener = Listener::new(ns, group::CONNS)?;
    let (vip, client) = (at(Family::V4.vip(), 80), at(Family::V4.raw_client(1), 4000));
    let (one, two) = (
        at(Family::V4.raw_rs(1), 8080),
        at(Family::V4.raw_rs(2), 8080),
    );
    // What else is said is of another service.
    let mut told: Vec<(u8, String, SocketAddr)> = Vec::new();
    let mut say = |dest, method, state, count: usize| -> Result<()> {
        let record = Record::new(TCP, client, vip, dest, method, state);
        backup.say(&[datagram_v1(0, &[record.v1()])])?;
        let before = told.len();
        until_true("events", 10.0, || {
            for event in listener.all()?.0 {
                let conn = event.conn()?;
                if conn.vip == vip {
                    told.push((event.kind, conn.state_name, conn.dest));
                }
            }
            Ok(told.len() >= before + count)
        })
    };
    say(one, DIRECT, ESTABLISHED, 1)?;
    say(one, DIRECT, FIN_WAIT, 1)?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    for dest in [one, two] {
        rig.ipvsadm(&format!("-a -t {vip} -r {dest} -m"))?;
    }
    say(one, DIRECT, FIN_WAIT, 1)?;
    say(one, DIRECT, FIN_WAIT, 0)?;
    say(two, DIRECT, ESTABLISHED, 2)?;
    let want = [
        (event::NEW, "ESTABLISHED", one),
        (event::CHANGED, "FIN_WAIT", one),
        (event::CHANGED, "FIN_WAIT", one),
        (event::DELETED, "FIN_WAIT", one),
        (event::NEW, "ESTABLISHED", two),
    ];
    ensure!(
        told.iter()
            .map(|(kind, state, dest)| (*kind, state.as_str(), *dest))
            .eq(want),
        "{told:?}, expected {want:?}"
    );
    Ok(())
}

/// Listeners hear their namespace only; who may not configure may not listen.
fn isolation() -> Result<()> {
    let (one, two) = (Rig::new()?, Rig::new()?);
    let config = Listener::new(&one.topo.director, group::CONFIG)?;
    let conns = Listener::new(&one.topo.director, group::CONNS)?;
    let vip = at(Family::V4.vip(), 80);
    let rs = at(Family::V4.raw_rs(1), 8080);
    for rig in [&two, &one] {
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(1), 4000), vip, SYN))?;
    }
    ensure!(
        config.exactly(2)?.iter().map(|e| e.seq).eq(1..=2),
        "configuration"
    );
    ensure!(
        conns.exactly(2)?.iter().map(|e| e.seq).eq(1..=2),
        "connections"
    );
    drop((config, conns));

    // Without the capability for the namespace: refused.
    let ns = &one.topo.director;
    let me = std::env::current_exe()?.display().to_string();
    for name in [group::CONFIG, group::CONNS] {
        let answer = ns.cmd(&format!(
            "setpriv --bounding-set -all --inh-caps -all --reuid 65534 --clear-groups {me} in-guest join {name}"
        ))?;
        ensure!(answer.trim() == "1", "{name}: errno {answer}");
        // The owner of another namespace may join there.
        let answer = ns.cmd(&format!(
            "unshare --user --map-root-user --net {me} in-guest join {name}"
        ))?;
        ensure!(answer.trim() == "0", "{name}: errno {answer}");
    }
    // Joining and leaving again and again, and leaving what was never joined, leaves others alone.
    let listener = Listener::new(ns, group::CONFIG)?;
    let genl = Genl::open(ns)?;
    let group = ext::group(&genl, group::CONFIG)?;
    for _ in 0..50 {
        ext::membership(&genl, group, true)?;
        ext::membership(&genl, group, false)?;
        ext::membership(&genl, group, false)?;
    }
    one.ipvsadm(&format!("-E -t {vip} -s wrr"))?;
    listener.exactly(1)?;
    Ok(())
}

/// More connections than a listener reads, and more than can wait: what is lost is known exactly.
fn pressure() -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    let (vip, rs) = (at(Family::V4.vip(), 53), at(Family::V4.raw_rs(1), 53));
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    let many: u16 = if slow() > 2.0 { 2_000 } else { 8_000 };
    let listener = Listener::new(ns, group::CONNS)?;
    let clients: Vec<Pkt> = (0..many)
        .map(|n| Pkt::udp(at(Family::V4.raw_client(n % 251), 1000 + n), vip, b"x"))
        .collect();
    for chunk in clients.chunks(200) {
        rig.exchange(Side::Client, chunk)?;
    }
    until_true("all events are numbered", 10.0, || {
        Ok(numbers(&ipvs)?[1] == u64::from(many))
    })?;
    // One more, when there is room again: the numbers tell what was missed.
    let mut events = Vec::new();
    let mut overruns = 0;
    let mut n = 0;
    until_true("the listener catches up", 20.0, || {
        let (more, lost) = listener.all()?;
        overruns += lost;
        events.extend(more);
        if events.last().is_some_and(|e| e.seq >= u64::from(many)) {
            return Ok(true);
        }
        n += 1;
        rig.forwarded(&Pkt::udp(at(Family::V4.raw_client(n), 999), vip, b"x"))?;
        Ok(false)
    })?;
    let seqs: Vec<u64> = events.iter().map(|e| e.seq).collect();
    ensure!(seqs.windows(2).all(|w| w[0] < w[1]), "out of order");
    let missed = seqs.last().context("no events")? - seqs.len() as u64;
    let lost = numbers(&ipvs)?[2];
    println!(
        "{many} connections: {} events came, {missed} were missed, {lost} of them in the kernel, {overruns} overruns",
        seqs.len()
    );
    ensure!(missed >= lost, "{missed} missed, {lost} lost");
    ensure!(
        missed == lost || overruns > 0,
        "events are missing and nobody said so"
    );
    // The default receive buffer holds some hundred kilobytes.
    ensure!(
        slow() > 2.0 || overruns > 0,
        "nothing was lost: the scenario sends too little"
    );
    // All can be had by asking.
    let all = ext::conns(&ipvs, &ext::Filter::service(&svc_id(17, vip)))?;
    ensure!(all.len() >= usize::from(many), "{} connections", all.len());
    Ok(())
}
