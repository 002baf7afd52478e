// SPDX-License-Identifier: GPL-2.0-or-later

//! The netlink dump of connections (docs/netlink-extensions.md): what it shows agrees with /proc/net/ip_vs_conn, each
//! filter lets through exactly what it says, wrong requests are refused with a text, counters are exact, and no connection is
//! missed while the table is resized.
//!
//! Proves no item of the checklist: C has nothing like it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};
use rvs_core::uapi::ext::{attr, cmd, conn_attr};

use crate::ext::{conns, Conn, Counts, Filter};
use crate::genl::{genl_header, Attrs, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ipvs::{svc, svc_id, top, Ipvs};
use crate::pkt::{Pkt, ACK, SYN, TCP, UDP};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Peer, Scenario};
use crate::topo::{at, Family};
use crate::wait::{slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "conn_dump",
    "the netlink dump of connections: contents, filters, counters, restarts",
    &[],
    run,
)
.only_peer(Peer::Rvs, "C has no such dump")
.timeout(90.0);

const NESTED: u16 = 1 << 15;

/// What /proc/net/ip_vs_conn shows of a connection.
fn row(conn: &Conn) -> (String, SocketAddr, SocketAddr, SocketAddr, String) {
    let proto = match conn.proto {
        TCP => "TCP",
        UDP => "UDP",
        0 => "IP",
        _ => "?",
    };
    (
        proto.to_owned(),
        conn.client,
        conn.vip,
        conn.dest,
        conn.state_name.clone(),
    )
}

fn run(_cx: &Cx) -> Result<()> {
    contents_and_filters()?;
    refusals()?;
    counters()?;
    resized()
}

fn contents_and_filters() -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    ensure!(
        conns(&ipvs, &Filter::default())?.is_empty(),
        "connections before the first service"
    );
    for family in Family::BOTH {
        for (kind, port) in [("t", 80), ("u", 53)] {
            let vip = at(family.vip(), port);
            rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
            for n in 1..=2 {
                let rs = at(family.raw_rs(n), 8000 + port);
                rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
            }
        }
    }
    // A service of all ports with templates, and one by mark.
    let many = at(Family::V4.vip(), 0);
    rig.ipvsadm(&format!("-A -t {many} -s rr -p 600"))?;
    rig.ipvsadm(&format!(
        "-a -t {many} -r {} -m",
        at(Family::V4.raw_rs(3), 0)
    ))?;
    for family in Family::BOTH {
        for n in 0..20 {
            let client = at(family.raw_client(n), 4000 + n);
            let vip = at(family.vip(), 80);
            let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
            if n % 2 == 0 {
                rig.returned(&Pkt::tcp(came.dest(), client, SYN | ACK))?;
                rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
            }
            rig.forwarded(&Pkt::udp(client, at(family.vip(), 53), b"x"))?;
        }
    }
    let client = at(Family::V4.raw_client(3), 5000);
    rig.forwarded(&Pkt::tcp(client, at(Family::V4.vip(), 2222), SYN))?;

    let all = conns(&ipvs, &Filter::default())?;
    let mut mine: Vec<_> = all.iter().map(row).collect();
    let mut theirs: Vec<_> = proc::conns(&rig.topo.director)?
        .into_iter()
        .map(|c| (c.proto, c.client, c.vip, c.dest, c.state))
        .collect();
    mine.sort();
    theirs.sort();
    ensure!(
        mine == theirs,
        "netlink {mine:#?}\n/proc/net/ip_vs_conn {theirs:#?}"
    );
    ensure!(all.len() == 82, "{} connections", all.len());
    for conn in &all {
        ensure!(
            conn.expires <= conn.timeout
                && conn.timeout > 0
                && conn.flags & 0x40 != 0
                && conn.counts.is_none(),
            "{conn:?}"
        );
    }
    let template = all
        .iter()
        .find(|c| c.flags & 0x1000 != 0)
        .context("no template")?;
    ensure!(
        template.client == at(Family::V4.raw_client(3), 0) && template.service_port.is_none(),
        "{template:?}"
    );
    let child = all
        .iter()
        .find(|c| c.client == client)
        .context("no connection of the template")?;
    ensure!(
        child.service_port == Some(0) && child.service_fwmark.is_none(),
        "{child:?}"
    );

    // Each filter against a plain look at all.
    let v4_tcp = svc_id(TCP, at(Family::V4.vip(), 80));
    let rs = at(Family::V6.raw_rs(2), 8053);
    let two = Family::V4.raw_client(2);
    type Want = Box<dyn Fn(&Conn) -> bool>;
    let cases: Vec<(&str, Filter, Want)> = vec![
        (
            "service",
            Filter::service(&v4_tcp),
            Box::new(|c| c.vip == at(Family::V4.vip(), 80)),
        ),
        (
            "service of all ports",
            Filter::service(&svc_id(TCP, many)),
            Box::new(move |c| c.client == client || c.flags & 0x1000 != 0),
        ),
        (
            "family 2",
            Filter::default().af(2),
            Box::new(|c| c.client.is_ipv4()),
        ),
        (
            "family 10",
            Filter::default().af(10),
            Box::new(|c| c.client.is_ipv6()),
        ),
        (
            "protocol",
            Filter::default().u8(conn_attr::PROTOCOL, UDP),
            Box::new(|c| c.proto == UDP),
        ),
        (
            "state",
            Filter::default()
                .u8(conn_attr::PROTOCOL, TCP)
                .u8(conn_attr::STATE, 1),
            Box::new(|c| c.proto == TCP && c.state_name == "ESTABLISHED"),
        ),
        (
            "client",
            Filter::default().addr(conn_attr::CLIENT_ADDR, two),
            Box::new(move |c| c.client.ip() == two),
        ),
        (
            "client port",
            Filter::default().port(conn_attr::CLIENT_PORT, 4007),
            Box::new(|c| c.client.port() == 4007),
        ),
        (
            "virtual address",
            Filter::default().addr(conn_attr::VIRT_ADDR, Family::V6.vip()),
            Box::new(|c| c.vip.ip() == Family::V6.vip()),
        ),
        (
            "virtual port",
            Filter::default().port(conn_attr::VIRT_PORT, 53),
            Box::new(|c| c.vip.port() == 53),
        ),
        (
            "real server",
            Filter::default()
                .addr(conn_attr::DEST_ADDR, rs.ip())
                .port(conn_attr::DEST_PORT, rs.port()),
            Box::new(move |c| c.dest == rs),
        ),
        (
            "everything at once",
            Filter::service(&v4_tcp)
                .af(2)
                .u8(conn_attr::PROTOCOL, TCP)
                .addr(conn_attr::CLIENT_ADDR, two)
                .port(conn_attr::CLIENT_PORT, 4002)
                .addr(conn_attr::VIRT_ADDR, Family::V4.vip())
                .port(conn_attr::VIRT_PORT, 80)
                .port(conn_attr::DEST_PORT, 8080)
                .u8(conn_attr::STATE, 1),
            Box::new(move |c| c.client == at(two, 4002) && c.proto == TCP),
        ),
        (
            "nobody",
            Filter::default().port(conn_attr::CLIENT_PORT, 1),
            Box::new(|_| false),
        ),
    ];
    for (what, filter, want) in &cases {
        let got: BTreeSet<_> = conns(&ipvs, filter)?.iter().map(row).collect();
        let want: BTreeSet<_> = all.iter().filter(|c| want(c)).map(row).collect();
        ensure!(got == want, "{what}: {got:#?}, expected {want:#?}");
        ensure!(what == &"nobody" || !want.is_empty(), "{what}: none");
    }
    // Prefixes of all lengths.
    for family in Family::BOTH {
        let base = family.raw_client(2);
        let most = if base.is_ipv4() { 32 } else { 128 };
        for bits in [
            0, 1, 7, 8, 9, 20, 27, 28, 30, 31, 32, 63, 64, 65, 120, 126, 127, 128,
        ] {
            if bits > most {
                continue;
            }
            let filter = Filter::default()
                .addr(conn_attr::CLIENT_ADDR, base)
                .u8(conn_attr::CLIENT_PREFIX, bits);
            let key = |addr: std::net::IpAddr| {
                let value = match addr {
                    std::net::IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
                    std::net::IpAddr::V6(a) => u128::from(a),
                };
                value.checked_shr(128 - u32::from(bits)).unwrap_or(0)
            };
            let got: BTreeSet<_> = conns(&ipvs, &filter)?.iter().map(row).collect();
            let want: BTreeSet<_> = all
                .iter()
                .filter(|c| c.client.is_ipv4() == base.is_ipv4() && key(c.client.ip()) == key(base))
                .map(row)
                .collect();
            ensure!(got == want, "{base}/{bits}: {got:#?}, expected {want:#?}");
        }
    }
    Ok(())
}

/// Requests that are wrong, and what they are told.
fn refusals() -> Result<()> {
    let rig = Rig::new()?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let vip = at(Family::V4.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    let inside = |conn: &Attrs| Attrs::new().nest(attr::CONN | NESTED, conn);
    let cases: Vec<(&str, Attrs, i32)> = vec![
        (
            "an unknown attribute",
            Attrs::new().u32(attr::SEQ, 1),
            libc::EINVAL,
        ),
        (
            "an attribute of C's that has no meaning here",
            Attrs::new().nest(top::DEST | NESTED, &Attrs::new()),
            libc::EINVAL,
        ),
        (
            "a nest without the flag",
            Attrs::new().nest(attr::CONN, &Attrs::new().u16(conn_attr::AF, 2)),
            libc::EINVAL,
        ),
        (
            "no such service",
            Attrs::new().nest(
                top::SERVICE | NESTED,
                &svc_id(TCP, at(Family::V4.vip(), 81)),
            ),
            libc::ESRCH,
        ),
        (
            "half a service",
            Attrs::new().nest(top::SERVICE | NESTED, &Attrs::new().u16(svc::AF, 2)),
            libc::EINVAL,
        ),
        (
            "a family that there is not",
            inside(&Attrs::new().u16(conn_attr::AF, 7)),
            libc::EAFNOSUPPORT,
        ),
        (
            "an address of 5 bytes",
            inside(&Attrs::new().put(conn_attr::CLIENT_ADDR, &[1; 5])),
            libc::EINVAL,
        ),
        (
            "an address of 17 bytes",
            inside(&Attrs::new().put(conn_attr::DEST_ADDR, &[1; 17])),
            libc::ERANGE,
        ),
        (
            "addresses of two families",
            inside(
                &Attrs::new()
                    .put(conn_attr::CLIENT_ADDR, &[1; 4])
                    .put(conn_attr::VIRT_ADDR, &[1; 16]),
            ),
            libc::EINVAL,
        ),
        (
            "an address of another family than AF",
            inside(
                &Attrs::new()
                    .u16(conn_attr::AF, 10)
                    .put(conn_attr::VIRT_ADDR, &[1; 4]),
            ),
            libc::EINVAL,
        ),
        (
            "a state without a protocol",
            inside(&Attrs::new().u8(conn_attr::STATE, 1)),
            libc::EINVAL,
        ),
        (
            "a prefix without an address",
            inside(&Attrs::new().u8(conn_attr::CLIENT_PREFIX, 1)),
            libc::EINVAL,
        ),
        (
            "a prefix that is too long",
            inside(
                &Attrs::new()
                    .put(conn_attr::CLIENT_ADDR, &[1; 4])
                    .u8(conn_attr::CLIENT_PREFIX, 33),
            ),
            libc::EINVAL,
        ),
        (
            "what is shown only",
            inside(&Attrs::new().u32(conn_attr::FLAGS, 1)),
            libc::EINVAL,
        ),
    ];
    for (what, attrs, errno) in &cases {
        let reply = ipvs.dump(cmd::GET_CONN, attrs)?;
        ensure!(
            reply.errno == *errno && reply.msgs.is_empty(),
            "{what}: errno {}, expected {errno}",
            reply.errno
        );
        ensure!(
            reply.text.as_ref().is_some_and(|t| !t.is_empty()),
            "{what}: no text"
        );
        println!("{what}: {}", reply.text.unwrap_or_default());
    }
    // Not as a command, and not by others.
    let reply = ipvs.call(cmd::GET_CONN, &Attrs::new())?;
    ensure!(reply.errno == libc::EOPNOTSUPP, "{reply:?}");
    let me = std::env::current_exe()?.display().to_string();
    for (number, flag) in [(cmd::GET_CONN, " --dump"), (cmd::GET_EVENTS, "")] {
        let answer = rig.topo.director.cmd(&format!(
            "unshare --user --map-root-user --net {me} in-guest errno {number}{flag}"
        ))?;
        ensure!(answer.trim() == "1", "command {number}: {answer}");
    }
    Ok(())
}

/// Counters of connections, and their sum beside the destination's.
fn counters() -> Result<()> {
    const KEY: &str = "net.ipv4.vs.rvs_conn_counters";

    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    ensure!(ns.sysctl(KEY)? == "0", "the default of {KEY}");
    for value in ["2", "-1", "x"] {
        let refused = ns.try_set_sysctl(KEY, value);
        ensure!(
            refused
                .as_ref()
                .err()
                .and_then(std::io::Error::raw_os_error)
                == Some(libc::EINVAL),
            "{KEY}={value}: {refused:?}"
        );
    }
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        let before = at(family.raw_client(0), 4000);
        rig.forwarded(&Pkt::tcp(before, vip, SYN))?;
        ns.set_sysctl(KEY, 1)?;
        rig.ipvsadm("-Z")?;

        let mut want = Vec::new();
        for n in 1..10u16 {
            let client = at(family.raw_client(n), 4000);
            let mut counts = Counts::default();
            let there = |flags, len| Pkt {
                body: vec![1; len],
                ..Pkt::tcp(client, vip, flags)
            };
            let back = |flags, len| Pkt {
                body: vec![2; len],
                ..Pkt::tcp(rs, client, flags)
            };
            for (pkt, is_reply) in [
                (there(SYN, 0), false),
                (back(SYN | ACK, 0), true),
                (there(ACK, 0), false),
                (there(ACK, usize::from(n) * 50), false),
                (back(ACK, usize::from(n) * 77), true),
            ] {
                let len = pkt.bytes().len() as u64;
                if is_reply {
                    rig.returned(&pkt)?;
                    counts.out_pkts += 1;
                    counts.out_bytes += len;
                } else {
                    rig.forwarded(&pkt)?;
                    counts.in_pkts += 1;
                    counts.in_bytes += len;
                }
            }
            want.push((client, counts));
        }
        let filter = Filter::service(&svc_id(TCP, vip));
        let shown = conns(&ipvs, &filter)?;
        let mut sum = Counts::default();
        for (client, want) in &want {
            let conn = shown
                .iter()
                .find(|c| c.client == *client)
                .with_context(|| format!("no connection of {client}"))?;
            let got = conn.counts.with_context(|| format!("{conn:?}"))?;
            ensure!(got.age < 60_000, "{conn:?}");
            ensure!(
                Counts { age: 0, ..got } == *want,
                "{conn:?}, expected {want:?}"
            );
            sum.in_pkts += got.in_pkts;
            sum.in_bytes += got.in_bytes;
            sum.out_pkts += got.out_pkts;
            sum.out_bytes += got.out_bytes;
        }
        let stats = ipvs.dest(TCP, vip, rs)?.stats64;
        ensure!(
            (sum.in_pkts, sum.in_bytes, sum.out_pkts, sum.out_bytes)
                == (stats.inpkts, stats.inbytes, stats.outpkts, stats.outbytes),
            "{sum:?}, the destination has {stats:?}"
        );
        // Who was there before has none; who counts goes on when it is off again, and nobody new begins.
        ns.set_sysctl(KEY, 0)?;
        let (old, after) = (want[0].0, at(family.raw_client(99), 4000));
        rig.forwarded(&Pkt::tcp(after, vip, SYN))?;
        rig.forwarded(&Pkt::tcp(old, vip, ACK))?;
        let shown = conns(&ipvs, &filter)?;
        let counts = |client| {
            shown
                .iter()
                .find(|c| c.client == client)
                .map(|c| c.counts.map(|c| c.in_pkts))
        };
        ensure!(
            counts(before) == Some(None)
                && counts(after) == Some(None)
                && counts(old) == Some(Some(4)),
            "{shown:?}"
        );
    }
    Ok(())
}

/// Dumps that go on while the table grows, shrinks and changes.
fn resized() -> Result<()> {
    let many: u16 = if slow() > 2.0 { 1_000 } else { 4_000 };
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let ipvs = Ipvs::open(ns)?;
    let (vip, rs) = (at(Family::V4.vip(), 53), at(Family::V4.raw_rs(1), 53));
    rig.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    let send = |ports: std::ops::Range<u16>| -> Result<()> {
        let clients: Vec<Pkt> = ports
            .map(|n| Pkt::udp(at(Family::V4.raw_client(n % 251), n), vip, b"x"))
            .collect();
        for chunk in clients.chunks(200) {
            let io = rig.exchange(Side::Client, chunk)?;
            ensure!(io.server.len() == chunk.len(), "packets were lost");
        }
        Ok(())
    };
    send(1000..1000 + many)?;
    let stay: BTreeSet<u16> = (1000..1000 + many).collect();
    // Settled: each once.
    until_true("each connection is dumped once", 10.0, || {
        let ports: Vec<u16> = conns(&ipvs, &Filter::default())?
            .iter()
            .map(|c| c.client.port())
            .collect();
        ensure!(
            ports.iter().copied().collect::<BTreeSet<_>>() == stay,
            "connections are missing"
        );
        Ok(ports.len() == stay.len())
    })?;
    // Between the parts of a dump the table gets another size, twice; others come.
    const LARGEST: u32 = 1 << 12;
    let (mut repeated, mut new) = (0, 20_000);
    for round in 0..8 {
        let seq = ipvs.genl.send(
            ipvs.family,
            NLM_F_REQUEST | NLM_F_DUMP,
            &genl_header(cmd::GET_CONN, 1),
        )?;
        let other = Ipvs::open(ns)?;
        let mut seen = Vec::new();
        for factor in [["4", "-4"], ["-4", "4"]][round % 2] {
            let datagram = ipvs.genl.receive_datagram()?;
            for msg in crate::genl::messages(&datagram)? {
                seen.push(Conn::parse(&msg.attrs)?.client.port());
            }
            ns.set_sysctl("net.ipv4.vs.conn_lfactor", factor)?;
            // With so many connections the one is the greatest size, the other a small one.
            until_true("another size", 5.0, || {
                Ok((other.info()?.1 == LARGEST) == (factor == "-4"))
            })?;
            send(new..new + 20)?;
            new += 20;
        }
        for msg in ipvs.genl.receive(seq)?.ok()?.msgs {
            seen.push(Conn::parse(&msg.attrs)?.client.port());
        }
        let ports: BTreeSet<u16> = seen.iter().copied().collect();
        ensure!(
            ports.is_superset(&stay),
            "round {round}: {} of {many} were missed",
            stay.difference(&ports).count()
        );
        repeated += seen.len() - ports.len();
    }
    println!("{repeated} repeated in 8 dumps of {many} and more");
    // A dump that nobody reads to its end.
    for _ in 0..20 {
        let idle = Ipvs::open(ns)?;
        idle.genl.send(
            idle.family,
            NLM_F_REQUEST | NLM_F_DUMP,
            &genl_header(cmd::GET_CONN, 1),
        )?;
    }
    Ok(())
}
