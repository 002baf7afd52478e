// SPDX-License-Identifier: GPL-2.0-or-later

//! Netfilter's connection tracking beside IPVS: without the sysctl `conntrack` balanced packets are untracked; with it a flow has
//! one entry whose reply is what the real server will send, seen by rules as new and established, and gone with the
//! connection. By every method, for clients elsewhere and on the director, ICMP errors, one-packet scheduling; and old entries
//! under connections that begin anew.
//!
//! Proves checklist items 120 and 121.

use std::net::{IpAddr, SocketAddr};

use anyhow::{bail, ensure, Context, Result};

use crate::ns::Ns;
use crate::pkt::{Pkt, ACK, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::{slow, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "conntrack",
    "connection tracking left alone, or kept informed",
    &[120, 121],
    run,
);

/// An entry of /proc/net/nf_conntrack.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    proto: String,
    state: String,
    orig: (SocketAddr, SocketAddr),
    reply: (SocketAddr, SocketAddr),
    unreplied: bool,
}

fn entries(ns: &Ns) -> Result<Vec<Entry>> {
    let text = ns.read("/proc/net/nf_conntrack")?;
    let mut all = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let values =
            |key: &str| -> Vec<&str> { words.iter().filter_map(|w| w.strip_prefix(key)).collect() };
        let (src, dst) = (values("src="), values("dst="));
        let (sport, dport) = (values("sport="), values("dport="));
        // Others than TCP and UDP have no ports.
        if sport.len() != 2 {
            continue;
        }
        let end = |addr: &str, port: &str| -> Result<SocketAddr> {
            Ok(SocketAddr::new(addr.parse::<IpAddr>()?, port.parse()?))
        };
        let tuple = |n: usize| -> Result<(SocketAddr, SocketAddr)> {
            Ok((end(src[n], sport[n])?, end(dst[n], dport[n])?))
        };
        all.push(Entry {
            proto: (*words.get(2).context("no protocol")?).to_owned(),
            state: (*words.get(5).context("no state")?).to_owned(),
            orig: tuple(0).with_context(|| line.to_owned())?,
            reply: tuple(1).with_context(|| line.to_owned())?,
            unreplied: words.contains(&"[UNREPLIED]"),
        });
    }
    Ok(all)
}

/// The entries of a client's flows.
fn of(ns: &Ns, client: SocketAddr) -> Result<Vec<Entry>> {
    let all = entries(ns)?;
    Ok(all
        .into_iter()
        .filter(|e| {
            [e.orig, e.reply]
                .iter()
                .any(|(src, dst)| *src == client || *dst == client)
        })
        .collect())
}

fn only(ns: &Ns, client: SocketAddr) -> Result<Entry> {
    let mut all = of(ns, client)?;
    ensure!(all.len() == 1, "entries of {client}: {all:#?}");
    all.pop().context("none")
}

/// Rules that see connections turn tracking on.
fn track(ns: &Ns, rules: &str) -> Result<()> {
    ns.cmd_stdin(
        "nft -f -",
        &format!(
            "table inet t {{\n\
             counter fresh {{ }}\n counter known {{ }}\n counter related {{ }}\n counter bare {{ }}\n counter bad {{ }}\n\
             chain post {{ type filter hook postrouting priority 0 ;\n\
             ct state new counter name fresh\n ct state established counter name known\n\
             ct state related counter name related\n\
             meta l4proto != ipv6-icmp ct state untracked counter name bare\n\
             ct state invalid counter name bad\n }}\n\
             {rules}\n}}\n"
        ),
    )
    .map(drop)
}

/// Packets that left the director as new, established, related, untracked (but for ICMPv6, of which neighbour discovery always
/// is) and invalid since the last call.
fn seen(ns: &Ns) -> Result<[u64; 5]> {
    let text = ns.cmd("nft reset counters table inet t")?;
    let mut counts = [0; 5];
    for (name, count) in ["fresh", "known", "related", "bare", "bad"]
        .iter()
        .zip(&mut counts)
    {
        let word = text
            .split_whitespace()
            .skip_while(|w| w != name)
            .nth(3)
            .with_context(|| text.clone())?;
        *count = word.parse().with_context(|| text.clone())?;
    }
    Ok(counts)
}

/// A packet with numbers that netfilter takes, too.
fn tcp(from: SocketAddr, to: SocketAddr, flags: u8, request: bool) -> Pkt {
    let (seq, ack) = if request {
        (0x1001, 0x5001)
    } else {
        (0x5000, 0x1002)
    };
    Pkt::tcp(from, to, flags).with(|p| {
        p.seq = seq + u32::from(flags & SYN == 0);
        p.ack = if flags & ACK == 0 { 0 } else { ack };
    })
}

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        nat(family).with_context(|| format!("NAT, {family:?}"))?;
        // Half of the rest is enough for a slow guest.
        let (v4, v6) = (family == Family::V4, family == Family::V6);
        let all = slow() == 1.0;
        if all || v6 {
            unchanged(family).with_context(|| format!("other methods, {family:?}"))?;
        }
        if all || v4 {
            filtered(family).with_context(|| format!("filter, {family:?}"))?;
            old(family).with_context(|| format!("old entries, {family:?}"))?;
        }
    }
    Ok(())
}

fn nat(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    track(director, "")?;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    for kind in ["t", "u"] {
        rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
        rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
    }
    let conntrack = "net.ipv4.vs.conntrack";
    ensure!(director.sysctl(conntrack)? == "0", "it is on by default");

    // Off: nothing is left of any packet, each is untracked from IPVS on.
    let client = at(family.raw_client(1), 4000);
    rig.drain()?;
    seen(director)?;
    rig.forwarded(&tcp(client, vip, SYN, true))?;
    rig.returned(&tcp(rs, client, SYN | ACK, false))?;
    rig.forwarded(&tcp(client, vip, ACK, true))?;
    rig.forwarded(&Pkt::udp(client, vip, b"question"))?;
    rig.returned(&Pkt::udp(rs, client, b"answer"))?;
    ensure!(
        of(director, client)?.is_empty(),
        "{:#?}",
        of(director, client)?
    );
    let [_, _, _, bare, bad] = seen(director)?;
    // A SYN+ACK that answers nothing is invalid before IPVS sees it.
    ensure!((bare, bad) == (4, 1), "untracked {bare}, invalid {bad}");

    // On: connections from here on are tracked, older ones are not.
    director.set_sysctl(conntrack, 1)?;
    rig.forwarded(&tcp(client, vip, ACK, true))?;
    ensure!(
        of(director, client)?.is_empty(),
        "{:#?}",
        of(director, client)?
    );
    let client = at(family.raw_client(2), 4000);
    seen(director)?;
    rig.forwarded(&tcp(client, vip, SYN, true))?;
    let entry = only(director, client)?;
    ensure!(
        entry.orig == (client, vip)
            && entry.reply == (rs, client)
            && entry.unreplied
            && entry.state == "SYN_SENT",
        "{entry:#?}"
    );
    rig.returned(&tcp(rs, client, SYN | ACK, false))?;
    rig.forwarded(&tcp(client, vip, ACK, true))?;
    let entry = only(director, client)?;
    ensure!(
        entry.reply == (rs, client) && !entry.unreplied && entry.state == "ESTABLISHED",
        "{entry:#?}"
    );
    // The fences are tracked as well, so only the packets that belong to somebody are counted.
    let [_, known, _, bare, bad] = seen(director)?;
    ensure!(known >= 2 && (bare, bad) == (0, 0), "{known} {bare} {bad}");

    // An error about each direction is related to it.
    let error = |from, to, inner: &Pkt| {
        let kind = if family == Family::V4 { (3, 1) } else { (1, 0) };
        Pkt::icmp_error(from, to, kind.0, kind.1, 0, &inner.bytes())
    };
    rig.returned(&error(rs.ip(), client.ip(), &Pkt::tcp(client, rs, ACK)))?;
    rig.forwarded(&error(client.ip(), vip.ip(), &Pkt::tcp(vip, client, ACK)))?;
    let [_, _, related, bare, bad] = seen(director)?;
    ensure!((related, bare, bad) == (2, 0, 0), "{related} {bare} {bad}");

    // UDP; and it ends with the connection.
    let client = at(family.raw_client(3), 4000);
    rig.forwarded(&Pkt::udp(client, vip, b"question"))?;
    rig.returned(&Pkt::udp(rs, client, b"answer"))?;
    let entry = only(director, client)?;
    ensure!(
        entry.proto == "udp"
            && entry.orig == (client, vip)
            && entry.reply == (rs, client)
            && !entry.unreplied,
        "{entry:#?}"
    );
    rig.ipvsadm("--set 0 0 1")?;
    rig.forwarded(&Pkt::udp(client, vip, b"question"))?;
    until_true("the connection ends", 8.0, || {
        Ok(proc::conn(director, client)?.is_none())
    })?;
    // Netfilter alone would keep it for half a minute.
    until_true("the entry ends with it", 2.0, || {
        Ok(of(director, client)?.is_empty())
    })?;
    rig.ipvsadm("--set 0 0 300")?;

    // One packet: an entry, but no reply is expected from the server.
    rig.ipvsadm(&format!("-E -u {vip} -s rr -o"))?;
    let client = at(family.raw_client(4), 4000);
    rig.forwarded(&Pkt::udp(client, vip, b"question"))?;
    let entry = only(director, client)?;
    ensure!(entry.reply == (vip, client), "{entry:#?}");

    // Off again: what is tracked stays so, and ends.
    director.set_sysctl(conntrack, 0)?;
    let client = at(family.raw_client(2), 4000);
    rig.returned(&tcp(rs, client, ACK, false))?;
    only(director, client)?;
    let client = at(family.raw_client(5), 4000);
    rig.forwarded(&tcp(client, vip, SYN, true))?;
    ensure!(
        of(director, client)?.is_empty(),
        "{:#?}",
        of(director, client)?
    );
    Ok(())
}

/// Methods that change nothing: the entry says what the packets do.
fn unchanged(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    track(director, "")?;
    director.set_sysctl("net.ipv4.vs.conntrack", 1)?;
    for (n, flags) in (0u16..).zip([
        "-g",
        "-i",
        "-i --tun-type gue --tun-port 6080",
        "-i --tun-type gre --tun-csum",
    ]) {
        let vip = at(family.vip(), 80 + n);
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!(
            "-a -t {vip} -r {} {flags}",
            at(family.raw_rs(1), vip.port())
        ))?;
        for on in [0, 1] {
            director.set_sysctl("net.ipv4.vs.conntrack", on)?;
            let client = at(family.raw_client(1 + n), 4000 + on);
            seen(director)?;
            let syn = tcp(client, vip, SYN, true);
            rig.forwarded(&syn).with_context(|| flags.to_owned())?;
            let [_, _, _, bare, bad] = seen(director)?;
            ensure!(bad == 0, "{flags}: {bad} invalid");
            if on == 0 {
                let all = of(director, client)?;
                ensure!(all.is_empty(), "{flags}: {all:#?}");
                // A tunnel's packet is a new one.
                ensure!((bare == 1) == (n == 0), "{flags}: {bare} untracked");
                continue;
            }
            let entry = only(director, client).with_context(|| flags.to_owned())?;
            ensure!(
                entry.orig == (client, vip) && entry.reply == (vip, client) && entry.unreplied,
                "{flags}: {entry:#?}"
            );
            ensure!(bare == 0, "{flags}: {bare} untracked");
            // The second packet finds it confirmed.
            rig.forwarded(&tcp(client, vip, ACK, true))?;
            only(director, client)?;
        }
    }
    Ok(())
}

/// A firewall that lets established connections through, and no others but requests: real clients, remote and local.
fn filtered(family: Family) -> Result<()> {
    let topo = Topo::new(1)?;
    let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
    track(
        &topo.director,
        "chain through { type filter hook forward priority 0 ; policy drop ;\n\
         ct state established accept\n }\n\
         chain incoming { type filter hook input priority 0 ; policy drop ;\n\
         ct state established accept\n iifname lo accept\n tcp dport 80 ct state new accept\n }\n",
    )?;
    let _server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    topo.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    topo.director.set_sysctl("net.ipv4.vs.conntrack", 1)?;
    for ns in [&topo.client, &topo.director] {
        let body = serve::http_get(ns, vip).with_context(|| ns.name().to_owned())?;
        ensure!(serve::name(&body) == "rs1", "{body:?}");
    }
    let all = entries(&topo.director)?;
    let ours: Vec<_> = all.iter().filter(|e| e.orig.1 == vip).collect();
    ensure!(
        ours.len() == 2 && ours.iter().all(|e| e.reply.0 == rs && !e.unreplied),
        "{all:#?}"
    );
    ensure!(seen(&topo.director)?[4] == 0, "invalid packets");
    Ok(())
}

/// A connection that is to begin anew under an entry that leads to the old server: the packet is dropped, both end, and the
/// next one finds its way.
fn old(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    track(director, "")?;
    let vip = at(family.vip(), 80);
    let servers = [at(family.raw_rs(1), 8080), at(family.raw_rs(2), 8080)];
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    for rs in servers {
        rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    }
    director.set_sysctl("net.ipv4.vs.expire_nodest_conn", 1)?;
    for (n, on) in (1u16..).zip([0, 1, 1]) {
        director.set_sysctl("net.ipv4.vs.conntrack", on)?;
        let client = at(family.raw_client(n), 4000);
        let syn = tcp(client, vip, SYN, true);
        let first = rig.forwarded(&syn)?.dest();
        let other = *servers
            .iter()
            .find(|rs| **rs != first)
            .context("no other server")?;
        let removed = n == 3;
        if removed {
            rig.ipvsadm(&format!("-d -t {vip} -r {first}"))?;
        } else {
            rig.ipvsadm(&format!("-e -t {vip} -r {first} -m -w 0"))?;
        }
        if on == 1 && !removed {
            let entry = only(director, client)?;
            ensure!(entry.reply.0 == first, "{entry:#?}");
            rig.dropped(Side::Client, &syn)?;
        }
        if on == 1 {
            // With a removed server a job in the background is at work as well, so the packet may find nothing any more.
            until_true("the entry ends", 5.0, || {
                Ok(of(director, client)?.is_empty())
            })?;
        }
        let came = rig.forwarded(&syn)?;
        ensure!(came.dest() == other, "to {}, from {first}", came.dest());
        match (on, of(director, client)?.as_slice()) {
            (0, []) => {}
            (1, [entry]) if entry.reply == (other, client) => {}
            (_, all) => bail!("{all:#?}"),
        }
        if removed {
            rig.ipvsadm(&format!("-a -t {vip} -r {first} -m"))?;
        } else {
            rig.ipvsadm(&format!("-e -t {vip} -r {first} -m -w 1"))?;
        }
    }
    Ok(())
}
