// SPDX-License-Identifier: GPL-2.0-or-later

//! Pools and options over netlink: what is refused, with what, and that nothing changes then; prefixes and interfaces;
//! method 5; an address that is removed while connections have it; a pool that is shared.

use std::net::SocketAddr;

use anyhow::{ensure, Context, Result};

use crate::fullnat::{
    self, about, add, add_prefix, is_local, laddr, local, locals, number, set, DEL_LADDR,
    GET_LADDR, IFNAME, NEW_LADDR, PREFIX_LEN,
};
use crate::genl::{find, Attrs};
use crate::ipvs::{self, cmd, dest_full, for_dest, for_svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, ICMP, ICMPV6, TCP, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_control",
    "pools of local addresses over netlink",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1);

const EINVAL: i32 = libc::EINVAL;

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        refused(family).with_context(|| format!("{family:?}, refusals"))?;
        options(family).with_context(|| format!("{family:?}, options"))?;
        method5(family).with_context(|| format!("{family:?}, method 5"))?;
        removed(family).with_context(|| format!("{family:?}, removal"))?;
        persistent(family).with_context(|| format!("{family:?}, persistence"))?;
        interfaces(family).with_context(|| format!("{family:?}, interfaces"))?;
    }
    Ok(())
}

fn refused(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, other) = (at(family.vip(), 80), at(family.vip(), 81));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let whole: u8 = if family == Family::V4 { 32 } else { 128 };
    let a = local(family, 256);
    let bad = |text: &str| -> Result<Attrs> { Ok(laddr(text.parse()?)) };
    let mut cases: Vec<(&str, u8, Attrs, i32)> = vec![
        (
            "no service",
            NEW_LADDR,
            about(TCP, other, &laddr(a)),
            libc::ESRCH,
        ),
        (
            "no service nest",
            NEW_LADDR,
            Attrs::new().nest(7, &laddr(a)),
            EINVAL,
        ),
        (
            "no address nest",
            NEW_LADDR,
            for_svc(&svc_id(TCP, vip)),
            EINVAL,
        ),
        (
            "no address",
            NEW_LADDR,
            about(TCP, vip, &Attrs::new()),
            EINVAL,
        ),
        (
            "short address",
            NEW_LADDR,
            about(TCP, vip, &Attrs::new().put(1, &[1, 2])),
            EINVAL,
        ),
        (
            "not there",
            DEL_LADDR,
            about(TCP, vip, &laddr(a)),
            libc::ENOENT,
        ),
        (
            "long prefix",
            NEW_LADDR,
            about(TCP, vip, &laddr(a).u8(PREFIX_LEN, whole + 1)),
            EINVAL,
        ),
        (
            "bits behind",
            NEW_LADDR,
            about(
                TCP,
                vip,
                &laddr(local(family, 257)).u8(PREFIX_LEN, whole - 1),
            ),
            EINVAL,
        ),
        (
            "too many",
            NEW_LADDR,
            about(
                TCP,
                vip,
                &laddr(local(family, 0x800)).u8(PREFIX_LEN, whole - 11),
            ),
            libc::E2BIG,
        ),
        (
            "no such interface",
            NEW_LADDR,
            about(TCP, vip, &laddr(a).text(IFNAME, "eth99")),
            libc::ENODEV,
        ),
        (
            "empty interface",
            NEW_LADDR,
            about(TCP, vip, &laddr(a).text(IFNAME, "")),
            EINVAL,
        ),
        (
            "long interface",
            NEW_LADDR,
            about(TCP, vip, &laddr(a).text(IFNAME, "abcdefghijklmnopq")),
            EINVAL,
        ),
        (
            "short prefix attribute",
            NEW_LADDR,
            about(TCP, vip, &laddr(a).put(PREFIX_LEN, &[])),
            libc::ERANGE,
        ),
    ];
    let not_unicast: &[&str] = match family {
        Family::V4 => &["224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255"],
        Family::V6 => &["ff02::1", "::1", "::", "fe80::1", "::ffff:10.0.0.1"],
    };
    for text in not_unicast {
        cases.push((text, NEW_LADDR, about(TCP, vip, &bad(text)?), EINVAL));
    }
    if family == Family::V4 {
        // Its first four bytes would do.
        let v6 = about(TCP, vip, &bad("2001:db8::1")?);
        cases.push(("an IPv6 address", NEW_LADDR, v6.clone(), EINVAL));
        cases.push(("an IPv6 address", DEL_LADDR, v6, EINVAL));
    } else {
        let v4 = Attrs::new().put(1, &[10, 77, 0, 1]);
        cases.push(("an IPv4 address", NEW_LADDR, about(TCP, vip, &v4), EINVAL));
    }
    for (what, command, attrs, errno) in cases {
        let reply = ipvs.call(command, &attrs)?;
        ensure!(
            reply.errno == errno && reply.text.as_deref().is_some_and(|t| !t.is_empty()),
            "{what}: {} {:?}",
            reply.errno,
            reply.text
        );
        ensure!(locals(&ipvs, TCP, vip)?.is_empty(), "{what} left something");
    }
    // Twice, and a prefix over it.
    add(&ipvs, TCP, vip, a)?;
    for attrs in [laddr(a), laddr(a).u8(PREFIX_LEN, whole - 2)] {
        let reply = ipvs.call(NEW_LADDR, &about(TCP, vip, &attrs))?;
        ensure!(reply.errno == libc::EEXIST, "{reply:?}");
    }
    // A prefix is removed as it was added.
    add_prefix(&ipvs, TCP, vip, local(family, 512), whole - 4)?;
    ensure!(locals(&ipvs, TCP, vip)?.len() == 17);
    let reply = ipvs.call(DEL_LADDR, &about(TCP, vip, &laddr(local(family, 512))))?;
    ensure!(reply.errno == libc::ENOENT, "{reply:?}");
    // Dumps of many come in several parts, each address once.
    for n in [1024, 1280, 1536] {
        add_prefix(&ipvs, TCP, vip, local(family, n), whole - 8)?;
    }
    let pool = locals(&ipvs, TCP, vip)?;
    let all: std::collections::BTreeSet<_> = pool.iter().map(|l| l.addr).collect();
    ensure!(pool.len() == 785 && all.len() == 785, "{}", pool.len());
    ensure!(all.contains(&local(family, 1024)) && all.contains(&local(family, 1791)));
    ensure!(number(&ipvs, TCP, vip, fullnat::LOCALS)? == 785);
    let reply = ipvs.call(
        NEW_LADDR,
        &about(
            TCP,
            vip,
            &laddr(local(family, 2048)).u8(PREFIX_LEN, whole - 8),
        ),
    )?;
    ensure!(reply.errno == libc::E2BIG, "{reply:?}");
    for (n, len) in [
        (512, whole - 4),
        (1024, whole - 8),
        (1280, whole - 8),
        (1536, whole - 8),
    ] {
        ipvs.ok(
            DEL_LADDR,
            &about(TCP, vip, &laddr(local(family, n)).u8(PREFIX_LEN, len)),
        )?;
    }
    ipvs.ok(DEL_LADDR, &about(TCP, vip, &laddr(a)))?;
    ensure!(locals(&ipvs, TCP, vip)?.is_empty());
    // Nobody to list.
    ensure!(ipvs.dump(GET_LADDR, &Attrs::new())?.msgs.is_empty());
    Ok(())
}

fn options(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, dns) = (at(family.vip(), 80), at(family.vip(), 53));
    let ipvs = Ipvs::open(&rig.topo.director)?;
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-A -u {dns} -s rr"))?;
    let byte = |kind, value| Attrs::new().u8(kind, value);
    for (what, proto, addr, extra) in [
        ("MSS as kind", TCP, vip, byte(fullnat::TOA_KIND, 2)),
        ("TFO as kind", TCP, vip, byte(fullnat::TOA_KIND, 34)),
        ("SYN without kind", TCP, vip, byte(fullnat::TOA_SYN, 1)),
        ("version 3", TCP, vip, byte(fullnat::PROXY, 3)),
        (
            "both",
            TCP,
            vip,
            byte(fullnat::PROXY, 1).u8(fullnat::TOA_KIND, 254),
        ),
        ("option of UDP", UDP, dns, byte(fullnat::TOA_KIND, 254)),
        ("version 1 of UDP", UDP, dns, byte(fullnat::PROXY, 1)),
        ("port 0", TCP, vip, Attrs::new().u16(fullnat::PORT_MIN, 0)),
        (
            "no ports",
            TCP,
            vip,
            Attrs::new()
                .u16(fullnat::PORT_MIN, 9)
                .u16(fullnat::PORT_MAX, 8),
        ),
    ] {
        // Together with another scheduler: neither is taken over.
        let reply = set(&ipvs, proto, addr, "wlc", &extra)?;
        ensure!(
            reply.errno == EINVAL && reply.text.is_some(),
            "{what}: {reply:?}"
        );
        ensure!(ipvs.service(proto, addr)?.sched == "rr", "{what}");
        let shown = number(&ipvs, proto, addr, fullnat::PORT_MIN)?;
        ensure!(shown == 0, "{what} left something");
    }
    let good = byte(fullnat::TOA_KIND, 253)
        .u8(fullnat::TOA_SYN, 1)
        .u16(fullnat::PORT_MIN, 2000)
        .u16(fullnat::PORT_MAX, 3000);
    set(&ipvs, TCP, vip, "rr", &good)?.ok()?;
    // Clients that know nothing of it leave it alone.
    rig.ipvsadm(&format!("-E -t {vip} -s wlc"))?;
    for (kind, want) in [
        (fullnat::TOA_KIND, 253),
        (fullnat::TOA_SYN, 1),
        (fullnat::PROXY, 0),
        (fullnat::PORT_MIN, 2000),
        (fullnat::PORT_MAX, 3000),
    ] {
        ensure!(number(&ipvs, TCP, vip, kind)? == want, "{kind}");
    }
    // A service that comes back begins with nothing.
    add(&ipvs, TCP, vip, local(family, 1))?;
    rig.ipvsadm(&format!("-D -t {vip}"))?;
    let mut service = svc_full(TCP, vip, "rr");
    service.0.extend(byte(fullnat::PROXY, 2).0);
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&service))?;
    ensure!(number(&ipvs, TCP, vip, fullnat::PROXY)? == 2);
    ensure!(number(&ipvs, TCP, vip, fullnat::TOA_KIND)? == 0);
    ensure!(locals(&ipvs, TCP, vip)?.is_empty());
    // One-packet scheduling has no replies to recognise.
    rig.ipvsadm(&format!("-E -u {dns} -s rr -o"))?;
    let reply = ipvs.call(NEW_LADDR, &about(UDP, dns, &laddr(local(family, 1))))?;
    ensure!(reply.errno == EINVAL && reply.text.is_some(), "{reply:?}");
    rig.ipvsadm(&format!("-E -u {dns} -s rr"))?;
    add(&ipvs, UDP, dns, local(family, 1))?;
    let out = rig.topo.try_ipvsadm(&format!("-E -u {dns} -s rr -o"))?;
    ensure!(out.code != Some(0), "{out:?}");
    ensure!(ipvs.service(UDP, dns)?.flags & 4 == 0);
    Ok(())
}

/// A destination of method 5 is NAT to who looks, and FullNAT or nothing.
fn method5(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let (vip, rs) = (at(family.vip(), 53), at(family.raw_rs(1), 53));
    let ipvs = Ipvs::open(&rig.topo.director)?;
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(UDP, vip, "rr")))?;
    let dest = dest_full(rs, 1).with(ipvs::dest::FWD_METHOD, &5u32.to_ne_bytes());
    ipvs.ok(cmd::NEW_DEST, &for_dest(&svc_id(UDP, vip), &dest))?;
    ensure!(ipvs.dest(UDP, vip, rs)?.method == 0);
    let listing = rig.ipvsadm("-Ln")?;
    ensure!(listing.contains("Masq"), "{listing}");
    let reply = ipvs
        .dump(cmd::GET_DEST, &for_svc(&svc_id(UDP, vip)))?
        .ok()?;
    let nest = find(&reply.msgs[0].attrs, ipvs::top::DEST).context("no destination")?;
    ensure!(find(nest, 72) == Some(&[1]), "{nest:?}");

    let client = at(family.raw_client(1), 4000);
    let answer = rig.answered(&Pkt::udp(client, vip, b"x"))?;
    ensure!([ICMP, ICMPV6].contains(&answer.proto), "{answer:?}");
    ensure!(number(&ipvs, UDP, vip, fullnat::EXHAUSTED)? == 1);
    add(&ipvs, UDP, vip, local(family, 1))?;
    let came = rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
    ensure!(is_local(came.src), "{came:?}");
    // Without a pool a plain one is NAT again.
    ipvs.ok(DEL_LADDR, &about(UDP, vip, &laddr(local(family, 1))))?;
    let plain = dest_full(rs, 1);
    ipvs.ok(cmd::SET_DEST, &for_dest(&svc_id(UDP, vip), &plain))?;
    let client = at(family.raw_client(2), 4000);
    let came = rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
    ensure!(came.source() == client && came.dest() == rs, "{came:?}");
    let back = rig.returned(&Pkt::udp(rs, client, b"y"))?;
    ensure!(back.source() == vip, "{back:?}");
    Ok(())
}

/// Connections outlive their address in the pool; two services may share one.
fn removed(family: Family) -> Result<()> {
    let topo = fullnat::topo(1)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
    let second = at(family.vip(), 81);
    let ipvs = Ipvs::open(&topo.director)?;
    for vip in [vip, second] {
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
        add(&ipvs, TCP, vip, local(family, 1))?;
    }
    let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    let old = serve::connect(&topo.client, vip)?;
    serve::ask(&old, "one")?;
    let other = serve::connect(&topo.client, second)?;
    serve::ask(&other, "one")?;
    for vip in [vip, second] {
        ensure!(locals(&ipvs, TCP, vip)?[0].conns == 1);
        ipvs.ok(DEL_LADDR, &about(TCP, vip, &laddr(local(family, 1))))?;
        add(&ipvs, TCP, vip, local(family, 2))?;
    }
    let peer = |answer: &str| -> Result<SocketAddr> {
        Ok(answer.split(' ').nth(1).context("no peer")?.parse()?)
    };
    for stream in [&old, &other] {
        let answer = serve::ask(stream, "two")?;
        ensure!(peer(&answer)?.ip() == local(family, 1), "{answer}");
    }
    let new = serve::connect(&topo.client, vip)?;
    let answer = serve::ask(&new, "three")?;
    ensure!(peer(&answer)?.ip() == local(family, 2), "{answer}");
    drop(server);
    Ok(())
}

/// A client stays with its server.
fn persistent(family: Family) -> Result<()> {
    let topo = fullnat::topo(3)?;
    let vip = at(family.vip(), 80);
    let ipvs = Ipvs::open(&topo.director)?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr -p 300"))?;
    let mut servers = Vec::new();
    for (n, ns) in (1..).zip(&topo.rs) {
        let rs = at(family.rs(n), 8080);
        servers.push(Server::tcp(ns, rs, ns.name())?);
        topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    }
    add(&ipvs, TCP, vip, local(family, 1))?;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..6 {
        let body = serve::http_get(&topo.client, vip)?;
        names.insert(serve::name(&body).to_owned());
        ensure!(body.contains(&local(family, 1).to_string()), "{body}");
    }
    ensure!(names.len() == 1, "{names:?}");
    Ok(())
}

/// An address that is for one interface is used for servers there only.
fn interfaces(family: Family) -> Result<()> {
    let topo = fullnat::topo(2)?;
    let vip = at(family.vip(), 53);
    let ipvs = Ipvs::open(&topo.director)?;
    topo.ipvsadm(&format!("-A -u {vip} -s rr"))?;
    for n in 1..=2u16 {
        let attrs = laddr(local(family, n)).text(IFNAME, &format!("s{n}"));
        ipvs.ok(NEW_LADDR, &about(UDP, vip, &attrs))?;
        let rs = at(family.rs(n as u8), 5353);
        topo.ipvsadm(&format!("-a -u {vip} -r {rs} -m"))?;
    }
    let names: Vec<_> = locals(&ipvs, UDP, vip)?
        .into_iter()
        .map(|l| l.ifname)
        .collect();
    ensure!(
        names == [Some("s1".to_owned()), Some("s2".to_owned())],
        "{names:?}"
    );
    let mut servers = Vec::new();
    for (n, ns) in (1..).zip(&topo.rs) {
        servers.push(Server::udp(ns, at(family.rs(n), 5353), &n.to_string())?);
    }
    for _ in 0..10 {
        let socket = serve::udp(&topo.client, vip)?;
        let answer = serve::ask_udp(&socket, "x")?;
        let mut words = answer.split(' ');
        let n: u16 = words.next().context("no name")?.parse()?;
        let peer: SocketAddr = words.next().context("no peer")?.parse()?;
        ensure!(peer.ip() == local(family, n), "{answer}");
    }
    drop(servers);
    Ok(())
}
