// SPDX-License-Identifier: GPL-2.0-or-later

//! What only rvs has, administered by rvsadm alone: a FullNAT service by subcommands and by the flags of ipvsadm's forks, traffic through
//! it, what its pool counts, all ways to save and restore it, and the extras of tunnels. With C ip_vs each of these is
//! refused by name, and nothing has changed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::rvsadm::{Terminal, Tool};
use crate::fullnat::{self, is_local, local, number};
use crate::genl::find;
use crate::ipvs::{cmd, for_svc, svc_id, Ipvs};
use crate::pkt::TCP;
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_fullnat",
    "rvsadm administers FullNAT and tunnels' extras, and refuses them where the module hasn't them",
    &[],
    run,
)
.with_rvsadm()
.timeout(120.0);

fn run(cx: &Cx) -> Result<()> {
    let topo = fullnat::topo(2)?;
    let tool = Tool::new(cx, &topo.director)?;
    if cx.peer == Peer::C {
        return refused(&tool);
    }
    // Replies come to local addresses: nothing is forwarded.
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        topo.director.set_sysctl(key, 0)?;
    }
    for family in Family::BOTH {
        service(&topo, &tool, family).with_context(|| format!("{family:?}, a service"))?;
        forks(&topo, &tool, family).with_context(|| format!("{family:?}, flags of forks"))?;
    }
    proxy(&topo, &tool).context("PROXY protocol")?;
    declared(&tool).context("declared states")?;
    mistakes(&tool).context("mistakes")?;
    tunnels(&topo, &tool).context("tunnels")?;
    watch(&topo, &tool).context("watch")
}

fn cleared(tool: &Tool<'_>) -> Result<()> {
    tool.feed("apply -f -", "services: []\n").map(drop)
}

/// Whom a server saw.
fn seen(body: &str) -> Result<(String, SocketAddr)> {
    let (name, peer) = body.split_once(' ').context("no peer")?;
    Ok((name.to_owned(), peer.trim().parse()?))
}

/// As ipvsadm, under its name.
fn as_ipvsadm(tool: &Tool<'_>, args: &[&str]) -> Result<(Option<i32>, String)> {
    tool.ns.run(|| {
        let out = Command::new(tool.path)
            .arg0("ipvsadm")
            .args(args)
            .output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        Ok((out.status.code(), text))
    })
}

/// Made, used, looked at, saved, restored.
fn service(topo: &Topo, tool: &Tool<'_>, family: Family) -> Result<()> {
    let vip = at(family.vip(), 80);
    let real = |n| at(family.rs(n), 8080);
    let _servers = [
        Server::tcp(&topo.rs[0], real(1), "rs1")?,
        Server::tcp(&topo.rs[1], real(2), "rs2")?,
    ];
    let prefix = match family {
        Family::V4 => "10.77.0.16/30",
        Family::V6 => "fd77::10/126",
    };
    let one = local(family, 9);
    tool.ok(&format!(
        "service add tcp {vip} -s rr --local-address {prefix},{one}%s1 --local-ports 2000-65000 --toa"
    ))?;
    tool.ok(&format!("real add tcp {vip} {} --fullnat", real(1)))?;
    tool.ok(&format!(
        "real add tcp {vip} {} --method nat --weight 2",
        real(2)
    ))?;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let (name, peer) = seen(&serve::http_get(&topo.client, vip)?)?;
        ensure!(
            is_local(peer.ip()) && (2000..=65000).contains(&peer.port()),
            "{name} saw {peer}"
        );
        names.insert(name);
    }
    ensure!(names.len() == 2, "{names:?}");
    let open = serve::connect(&topo.client, vip)?;
    serve::ask(&open, "hello")?;

    // Lists for people: FullNAT by its name, whichever of the two ways it is configured.
    let list = tool.ok(&format!("service list tcp {vip}"))?;
    let lines: Vec<&str> = list.lines().collect();
    ensure!(
        lines[0] == format!("tcp {vip} rr local-ports 2000-65000 toa 254"),
        "{list}"
    );
    ensure!(
        lines[1].starts_with(&format!("  local {prefix}  "))
            && lines[2].starts_with(&format!("  local {one}%s1")),
        "{list}"
    );
    ensure!(
        lines[3].contains("fullnat weight 1") && lines[4].contains("fullnat weight 2"),
        "{list}"
    );
    // And what the pool counts, of all and of each.
    let pool = tool.ok("pool list")?;
    ensure!(
        pool.starts_with(&format!(
            "tcp {vip} 5 local addresses, ports 2000-65000, toa 254\n  {prefix}"
        )) && pool.contains("  0 connections refused because no local port was free\n")
            && pool.contains(" added, 0 without room, 0 of clients removed"),
        "{pool}"
    );
    let ipvs = Ipvs::open(&topo.director)?;
    until_true("all connections are counted by some address", 20.0, || {
        let all = crate::proc::conns(&topo.director)?;
        let there = all.iter().filter(|c| c.vip == vip).count();
        let sum = tool.json("pool list", "[.pools[0].pool[].connections] | add")?;
        let each = tool.json(
            &format!("pool list tcp {vip} --each"),
            ".pools[0] | [.locals, (.pool | length), (.pool | map(.connections) | add)]",
        )?;
        let (now, text) = (there.to_string(), format!("[5,5,{there}]"));
        Ok(there > 0 && sum == now && each == text)
    })?;
    ensure!(number(&ipvs, TCP, vip, fullnat::TOA_ADDED)? > 0);
    let added = tool.json("pool list", ".pools[0].toa_added > 0")?;
    ensure!(added == "true", "{added}");
    let shown = tool.json(
        &format!("service list tcp {vip}"),
        ".services[0] | [.toa, .local_ports, (.local_addresses | length), .real_servers[0].method, .fullnat.exhausted]",
    )?;
    ensure!(shown == r#"[254,"2000-65000",2,"fullnat",0]"#, "{shown}");

    ensure!(tool.ok("check")? == "nothing is wrong\n");

    // ipvsadm sees NAT, and rvsadm's classic lists are ipvsadm's, under either name; what is saved is ipvsadm's under its name.
    for line in [
        "-Ln",
        "-Ln --stats",
        "-Ln --rate",
        "-Ln --thresholds",
        "-Ln --tun-info",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        // Connections end and rates change meanwhile.
        until_true(line, 20.0, || {
            let theirs = topo.ipvsadm(line)?;
            Ok(tool.ok(line)? == theirs && as_ipvsadm(tool, &args)? == (Some(0), theirs))
        })?;
    }
    ensure!(topo.ipvsadm("-Ln")?.matches("Masq").count() == 2);
    let theirs = topo.ipvsadm("-Sn")?;
    ensure!(as_ipvsadm(tool, &["-Sn"])? == (Some(0), theirs));

    // -S and -R, save and apply: everything is there again.
    let rules = tool.ok("-Sn")?;
    for part in [
        format!("-A -t {vip} -s rr --local-ports 2000-65000 --toa 254\n"),
        format!("-P -t {vip} -z {prefix}\n-P -t {vip} -z {one} -F s1\n"),
        format!("-a -t {vip} -r {} --fullnat -w 1\n", real(1)),
        format!("-a -t {vip} -r {} -m -w 2\n", real(2)),
    ] {
        ensure!(rules.contains(&part), "{part}{rules}");
    }
    let yaml = tool.ok("save")?;
    let json = tool.run("--json save", "")?.stdout;
    for saved in [&yaml, &json] {
        ensure!(tool.feed("apply -f -", saved)? == "nothing to change\n");
    }
    tool.ok("-C")?;
    ensure!(tool.ok("-Sn")?.is_empty());
    tool.feed("-R", &rules)?;
    ensure!(tool.ok("-Sn")? == rules);
    ensure!(tool.ok("save")? == yaml);
    for saved in [&yaml, &json] {
        cleared(tool)?;
        let plan = tool.feed("apply --dry-run -f -", saved)?;
        ensure!(
            plan.contains(&format!("+   local {prefix}\n")) && tool.ok("service list")?.is_empty(),
            "{plan}"
        );
        ensure!(tool.feed("apply -f -", saved)? == plan);
        ensure!(tool.ok("save")? == yaml);
    }
    let (_, peer) = seen(&serve::http_get(&topo.client, vip)?)?;
    ensure!(is_local(peer.ip()), "{peer}");

    // What isn't given stays; what is given replaces.
    tool.ok(&format!("service edit tcp {vip} -s wrr"))?;
    ensure!(number(&ipvs, TCP, vip, fullnat::TOA_KIND)? == 254);
    tool.ok(&format!(
        "service edit tcp {vip} --toa=253 --toa-on-syn --local-address {prefix}"
    ))?;
    ensure!(number(&ipvs, TCP, vip, fullnat::TOA_KIND)? == 253);
    ensure!(number(&ipvs, TCP, vip, fullnat::TOA_SYN)? == 1);
    ensure!(number(&ipvs, TCP, vip, fullnat::PORT_MIN)? == 2000);
    ensure!(number(&ipvs, TCP, vip, fullnat::LOCALS)? == 4);
    tool.ok(&format!(
        "service edit tcp {vip} --toa=off --local-address none --local-ports 1024-65535"
    ))?;
    let text = tool.ok(&format!("service list tcp {vip}"))?;
    ensure!(
        text.starts_with(&format!("tcp {vip} wrr\n  ")) && !text.contains("local"),
        "{text}"
    );
    // The one that is FullNAT by itself now refuses clients, which somebody should be told.
    let out = tool.run("check", "")?;
    ensure!(
        out.code == Some(1)
            && out
                .stdout
                .contains("no local addresses: clients are refused"),
        "{out:?}"
    );
    cleared(tool)
}

/// The flags of ipvsadm's forks.
fn forks(topo: &Topo, tool: &Tool<'_>, family: Family) -> Result<()> {
    let vip = at(family.vip(), 80);
    let real = at(family.rs(1), 8080);
    let _server = Server::tcp(&topo.rs[0], real, "rs1")?;
    let (a, b) = (local(family, 1), local(family, 2));
    // -b is a scheduler's flag with -A, as in ipvsadm; FullNAT with -a and -e, where ipvsadm has none.
    for line in [
        format!("-A -t {vip} -s sh -b sh-port --toa --toa-syn"),
        format!("-P -t {vip} -z {a}"),
        format!("--add-laddr --tcp-service {vip} --laddr {b} -F s1"),
        format!("-a -t {vip} -r {real} -b -w 3"),
    ] {
        tool.ok(&line)?;
    }
    let rules = tool.ok("-Sn")?;
    ensure!(
        rules
            == format!(
                "-A -t {vip} -s sh -b sh-port --toa 254 --toa-syn on\n-P -t {vip} -z {a}\n-P -t {vip} -z {b} -F s1\n\
                 -a -t {vip} -r {real} --fullnat -w 3\n"
            ),
        "{rules}"
    );
    let (_, peer) = seen(&serve::http_get(&topo.client, vip)?)?;
    ensure!(is_local(peer.ip()), "{peer}");
    let list = tool.ok(&format!("-G -t {vip} -n"))?;
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    let (vip_text, a_text, b_text) = (vip.to_string(), a.to_string(), b.to_string());
    ensure!(
        lines.len() == 4
            && lines[0] == ["VIP:VPORT", "TOTAL", "SNAT_IP", "CONFLICTS", "CONNS"]
            && lines[1] == [vip_text.as_str(), "2"]
            && lines[2][..2] == [a_text.as_str(), "0"]
            && lines[3][..2] == [b_text.as_str(), "0"],
        "{list}"
    );
    ensure!(tool.ok("-G -n")? == list);
    let count = tool.json("-G", "[.pools[0].pool[].address] | length")?;
    ensure!(count == "2", "{count}");
    tool.ok(&format!("-Q -t {vip} -z {b}"))?;
    tool.ok(&format!("-e -t {vip} -r {real} -m"))?;
    // -E says what it says and leaves the rest of this, whoever it comes from.
    tool.ok(&format!("-E -t {vip} -s rr --proxy-protocol v2 --toa off"))?;
    topo.ipvsadm(&format!("-E -t {vip} -s wrr"))?;
    ensure!(
        tool.ok("-Sn")?
            == format!(
                "-A -t {vip} -s wrr --proxy-protocol 2\n-P -t {vip} -z {a}\n-a -t {vip} -r {real} -m -w 1\n"
            ),
        "{}",
        tool.ok("-Sn")?
    );
    // Under ipvsadm's name there is none of it.
    let before = tool.ok("-Sn")?;
    let z = b.to_string();
    for args in [
        &["-P", "-t", &vip_text, "-z", &z][..],
        &["-G"],
        &["-E", "-t", &vip_text, "--toa"],
        &["-a", "-t", &vip_text, "-r", &z, "--fullnat"],
        &["-a", "-t", &vip_text, "-r", &z, "-b"],
    ] {
        ensure!(
            as_ipvsadm(tool, args)? == (Some(255), String::new()),
            "{args:?}"
        );
    }
    ensure!(tool.ok("-Sn")? == before);
    cleared(tool)
}

/// A server that speaks the PROXY protocol.
fn proxy(topo: &Topo, tool: &Tool<'_>) -> Result<()> {
    let (vip, real) = (at(Family::V4.vip(), 80), at(Family::V4.rs(1), 8080));
    tool.ok(&format!("service add tcp {vip} -s rr --proxy-protocol=1"))?;
    tool.ok(&format!("pool add tcp {vip} 10.77.0.1 10.77.0.2"))?;
    tool.ok(&format!("real add tcp {vip} {real}"))?;
    let listener = topo.rs[0].run(|| TcpListener::bind(real))?;
    let mut stream = serve::connect(&topo.client, vip)?;
    stream.write_all(b"hello\n")?;
    let (accepted, _) = listener.accept()?;
    let mut lines = BufReader::new(&accepted).lines();
    let (head, body) = (
        lines.next().context("no header")??,
        lines.next().context("no line")??,
    );
    let client = stream.local_addr()?;
    let want = format!(
        "PROXY TCP4 {} {} {} 80",
        client.ip(),
        vip.ip(),
        client.port()
    );
    ensure!(head == want && body == "hello", "{head}\n{body}");
    (&accepted).write_all(b"bye\n")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"bye\n");
    let pool = tool.ok("pool list")?;
    ensure!(
        pool.contains("ports 1024-65535, proxy-protocol 1\n"),
        "{pool}"
    );
    tool.ok(&format!("pool del tcp {vip} 10.77.0.2"))?;
    let pool = tool.json("pool list", "[.pools[0].pool[].address]")?;
    ensure!(pool == r#"["10.77.0.1"]"#, "{pool}");
    cleared(tool)
}

const STATE: &str = "
services:
- service: tcp 192.0.2.1:80
  local_addresses: [10.77.0.0/28, 10.77.1.1]
  toa: 254
  real_servers:
  - {address: '10.0.1.2:8080', method: fullnat}
- service: fwmark 5
  tunnel_sources: [10.77.8.0/22, 'fd77::/64']
  tunnel_mss_clamp: true
  real_servers:
  - {address: '10.0.1.2:0', method: tunnel}
";

fn declared(tool: &Tool<'_>) -> Result<()> {
    ensure!(tool.feed("check -f -", STATE)? == "nothing is wrong\n");
    tool.feed("apply -f -", STATE)?;
    ensure!(tool.feed("apply -f -", STATE)? == "nothing to change\n");
    ensure!(tool.feed("apply -f -", &tool.ok("save")?)? == "nothing to change\n");
    // The pool grows over what is there, the option gives way to the protocol, the tunnels lose theirs.
    let changed = STATE
        .replace("10.77.0.0/28, 10.77.1.1", "10.77.0.0/27, 10.77.2.1")
        .replace("  toa: 254\n", "  proxy_protocol: 2\n")
        .replace("  tunnel_sources: [10.77.8.0/22, 'fd77::/64']\n", "")
        .replace("  tunnel_mss_clamp: true\n", "");
    let want = "  service tcp 192.0.2.1:80\n\
                ~   toa 254 -> off\n\
                ~   proxy_protocol off -> 2\n\
                -   local 10.77.0.0/28\n\
                +   local 10.77.0.0/27\n\
                +   local 10.77.2.1\n\
                -   local 10.77.1.1\n\
                \x20 service fwmark 5\n\
                ~   tunnel_sources 10.77.8.0/22,fd77::/64 -> none\n\
                ~   tunnel_mss_clamp true -> false\n";
    let plan = tool.feed("apply -f - --dry-run", &changed)?;
    ensure!(plan == want, "{plan}");
    ensure!(tool.feed("apply -f -", &changed)? == want);
    ensure!(tool.feed("apply -f -", &changed)? == "nothing to change\n");
    // A file without any of it takes it all away.
    tool.feed(
        "apply -f -",
        "services: [{service: tcp 192.0.2.1:80, real_servers: [{address: '10.0.1.2:8080'}]}]\n",
    )?;
    let text = tool.ok("service list")?;
    ensure!(
        text == "tcp 192.0.2.1:80 wlc\n  10.0.1.2:8080 nat    weight 1     0 active, 0 inactive\n",
        "{text}"
    );
    cleared(tool)
}

/// What is wrong is named, and nothing is half done.
fn mistakes(tool: &Tool<'_>) -> Result<()> {
    tool.ok("service add tcp 192.0.2.1:80 --local-address 10.77.0.1 --toa")?;
    tool.ok("service add udp 192.0.2.1:53 --one-packet")?;
    let before = tool.ok("save")?;
    let cases: &[(&str, i32, &[&str])] = &[
        (
            "service add tcp 192.0.2.9:80 --local-address 10.77.0.1/24",
            2,
            &["--local-address", "10.77.0.0/24"],
        ),
        (
            "service add tcp 192.0.2.9:80 --local-address fd77::1",
            2,
            &["fd77::1", "IPv4"],
        ),
        (
            "service add tcp 192.0.2.9:80 --local-ports 9-8",
            2,
            &["--local-ports", "9-8", "1024-65535"],
        ),
        ("service add tcp 192.0.2.9:80 --toa=2", 2, &["--toa", "254"]),
        (
            "service add tcp 192.0.2.9:80 --proxy-protocol=3",
            2,
            &["--proxy-protocol", "1, 2 and off"],
        ),
        (
            "service add tcp 192.0.2.9:80 --proxy-protocol --toa",
            2,
            &["exclude each other", "--toa=off"],
        ),
        (
            "service edit tcp 192.0.2.1:80 --proxy-protocol",
            2,
            &["exclude each other", "--toa=off"],
        ),
        ("service add udp 192.0.2.9:53 --toa", 2, &["TCP"]),
        (
            "service add tcp 192.0.2.9:80 --tunnel-sources 10.0.0.0/7",
            2,
            &["--tunnel-sources", "8 to 32"],
        ),
        // The kernel says no to a part: the rest is taken back.
        (
            "service add tcp 192.0.2.9:80 --local-address 10.77.0.2,10.77.0.3%nosuch0",
            1,
            &["interface"],
        ),
        (
            "service edit tcp 192.0.2.1:80 -s rr --local-address 10.77.0.2,10.77.0.3%nosuch0",
            1,
            &["interface"],
        ),
        (
            "service edit tcp 192.0.2.1:80 -s nosuch --local-address 10.77.0.2",
            1,
            &["no such scheduler"],
        ),
        (
            "pool add tcp 192.0.2.1:80 10.77.0.2 10.77.0.1",
            1,
            &["already", "pool list"],
        ),
        (
            "pool del tcp 192.0.2.1:80 10.77.0.1 10.77.0.9",
            1,
            &["no such local address"],
        ),
        (
            "pool add tcp 192.0.2.9:80 10.77.0.2",
            1,
            &["no service tcp 192.0.2.9:80"],
        ),
        (
            "pool add udp 192.0.2.1:53 10.77.0.2",
            1,
            &["udp 192.0.2.1:53"],
        ),
        ("pool add tcp 192.0.2.1:80", 2, &["ADDRESS"]),
        (
            "real add tcp 192.0.2.1:80 10.0.1.2:80 --fullnat --method dr",
            2,
            &["--fullnat", "--method"],
        ),
        ("-P -t 192.0.2.1:80", 2, &["local-address"]),
        ("-P -t 192.0.2.1:80 -z x", 2, &["`x` is no address"]),
        ("-P -t 192.0.2.1:80 -z fd77::1", 2, &["IPv4"]),
        (
            "-P -t 192.0.2.1:80 -z 10.77.0.1",
            255,
            &["Local address already exists"],
        ),
        (
            "-Q -t 192.0.2.1:80 -z 10.77.0.2",
            255,
            &["No such local address"],
        ),
        ("-P -t 192.0.2.9:80 -z 10.77.0.2", 255, &["No such service"]),
        (
            "-E -t 192.0.2.1:80 --proxy-protocol 2",
            255,
            &["exclude each other"],
        ),
        (
            "-A -t 192.0.2.9:80 -z 10.77.0.2",
            2,
            &["Illegal 'local-address' option"],
        ),
        (
            "-a -t 192.0.2.1:80 -r 10.0.1.2:80 -b -m",
            2,
            &["multiple 'forwarding-method'"],
        ),
    ];
    for (line, code, words) in cases {
        tool.fails(line, *code, words)?;
        let after = tool.ok("save")?;
        ensure!(after == before, "`{line}` left\n{after}of\n{before}");
    }
    cleared(tool)
}

fn tunnels(topo: &Topo, tool: &Tool<'_>) -> Result<()> {
    let vip = at(Family::V4.vip(), 80);
    let ipvs = Ipvs::open(&topo.director)?;
    let shown = |number: u16| -> Result<Option<Vec<u8>>> {
        let reply = ipvs.ok(cmd::GET_SERVICE, &for_svc(&svc_id(TCP, vip)))?;
        let nest = find(&reply.msgs.first().context("no service")?.attrs, 1).context("no nest")?;
        Ok(find(nest, number).map(<[u8]>::to_vec))
    };
    tool.ok(&format!(
        "service add tcp {vip} --tunnel-sources 10.77.8.0/22,fd77::/64 --tunnel-mss-clamp"
    ))?;
    let four = Some(vec![10, 77, 8, 0, 22, 0, 0, 0]);
    ensure!(shown(64)? == four && shown(65)?.is_some() && shown(66)? == Some(vec![1]));
    let line = tool.ok("service list")?;
    ensure!(
        line == format!("tcp {vip} wlc tunnel-sources 10.77.8.0/22,fd77::/64 tunnel-mss-clamp\n"),
        "{line}"
    );
    tool.ok(&format!("service edit tcp {vip} --tunnel-mss-clamp=false"))?;
    ensure!(shown(64)? == four && shown(66)?.is_none());
    tool.ok(&format!("service edit tcp {vip} --tunnel-sources none"))?;
    ensure!(shown(64)?.is_none() && shown(65)?.is_none());
    tool.ok(&format!(
        "-E -t {vip} --tun-sources 10.77.8.0/22 --tun-mss-clamp"
    ))?;
    let rules = tool.ok("-Sn")?;
    ensure!(
        rules == format!("-A -t {vip} -s wlc --tun-sources 10.77.8.0/22 --tun-mss-clamp on\n"),
        "{rules}"
    );
    tool.ok("-C")?;
    tool.feed("-R", &rules)?;
    ensure!(shown(64)? == four && shown(66)? == Some(vec![1]));
    tool.ok(&format!(
        "-E -t {vip} --tun-sources none --tun-mss-clamp off"
    ))?;
    ensure!(shown(64)?.is_none() && shown(66)?.is_none());
    cleared(tool)
}

fn watch(topo: &Topo, tool: &Tool<'_>) -> Result<()> {
    let vip = at(Family::V4.vip(), 80);
    tool.ok(&format!(
        "service add tcp {vip} -s rr --local-address 10.77.0.16/30"
    ))?;
    tool.ok(&format!("real add tcp {vip} 10.0.1.2:8080"))?;
    let program = format!("{} watch --interval 0.2", tool.path.display());
    let terminal = Terminal::new(&topo.director, "pool", 110, 30, &program)?;
    terminal.shows("FullNAT", |screen| {
        screen
            .lines()
            .any(|l| l.contains("10.0.1.2:8080") && l.contains("fullnat"))
    })?;
    terminal.keys("l")?;
    terminal.has(&format!("local addresses of tcp {vip}"))?;
    terminal.has("10.77.0.16/30  0 connections, 0 port conflicts")?;
    let listener = topo.rs[0].run(|| TcpListener::bind("10.0.1.2:8080"))?;
    let stream = serve::connect(&topo.client, vip)?;
    terminal.has("10.77.0.16/30  1 connection, 0 port conflicts")?;
    drop((stream, listener));
    terminal.keys("c")?;
    terminal.has("connections of tcp")?;
    terminal.keys("l l")?;
    terminal.shows("nothing below", |screen| {
        !screen.contains("addresses of") && !screen.contains("connections of")
    })?;
    terminal.keys("q")?;
    terminal.has("ended 0")?;
    drop(terminal);
    cleared(tool)
}

/// A module that has none of it: everything is refused by name before anything is sent.
fn refused(tool: &Tool<'_>) -> Result<()> {
    tool.ok("service add tcp 192.0.2.1:80 -s rr")?;
    tool.ok("real add tcp 192.0.2.1:80 10.0.1.2:80")?;
    let before = (tool.ok("save")?, tool.ok("-Sn")?);
    const SUBCOMMANDS: &[(&str, &str)] = &[
        (
            "service add tcp 192.0.2.9:80 --local-address 10.77.0.1",
            "--local-address",
        ),
        (
            "service add tcp 192.0.2.9:80 --local-ports 2000-3000",
            "--local-ports",
        ),
        ("service add tcp 192.0.2.9:80 --toa", "--toa"),
        (
            "service add tcp 192.0.2.9:80 --toa=253 --toa-on-syn",
            "--toa-on-syn",
        ),
        (
            "service add tcp 192.0.2.9:80 --proxy-protocol",
            "--proxy-protocol",
        ),
        (
            "service add tcp 192.0.2.9:80 --tunnel-sources 10.77.0.0/22",
            "--tunnel-sources",
        ),
        (
            "service add tcp 192.0.2.9:80 --tunnel-mss-clamp",
            "--tunnel-mss-clamp",
        ),
        ("service edit tcp 192.0.2.1:80 -s wrr --toa", "--toa"),
        (
            "service edit tcp 192.0.2.1:80 -s wrr --tunnel-mss-clamp=false",
            "--tunnel-mss-clamp",
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.2.2:80 --fullnat",
            "--fullnat",
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.2.2:80 --method fullnat",
            "--method fullnat",
        ),
        (
            "real set tcp 192.0.2.1:80 10.0.1.2:80 --weight 7 --fullnat",
            "--fullnat",
        ),
        ("pool list", "pool"),
        ("--json pool list", "pool"),
        ("pool add tcp 192.0.2.1:80 10.77.0.1", "pool"),
        ("pool del tcp 192.0.2.1:80 10.77.0.1", "pool"),
    ];
    const FLAGS: &[(&str, &str)] = &[
        ("-A -t 192.0.2.9:80 --toa", "--toa"),
        ("-A -t 192.0.2.9:80 --toa --toa-syn", "--toa-syn"),
        ("-A -t 192.0.2.9:80 --proxy-protocol 1", "--proxy-protocol"),
        (
            "-A -t 192.0.2.9:80 --local-ports 2000-3000",
            "--local-ports",
        ),
        (
            "-A -t 192.0.2.9:80 --tun-sources 10.77.0.0/22",
            "--tun-sources",
        ),
        (
            "-E -t 192.0.2.1:80 -s wrr --tun-mss-clamp",
            "--tun-mss-clamp",
        ),
        ("-P -t 192.0.2.1:80 -z 10.77.0.1", "--add-laddr"),
        ("-Q -t 192.0.2.1:80 -z 10.77.0.1", "--del-laddr"),
        ("-G", "--get-laddr"),
        ("-a -t 192.0.2.1:80 -r 10.0.2.2:80 --fullnat", "--fullnat"),
        ("-a -t 192.0.2.1:80 -r 10.0.2.2:80 -b", "--fullnat"),
        ("-e -t 192.0.2.1:80 -r 10.0.1.2:80 -b", "--fullnat"),
    ];
    for (cases, code) in [(SUBCOMMANDS, 1), (FLAGS, 2)] {
        for (line, flag) in cases {
            let words = [*flag, "only rvs has that", "modprobe rvs"];
            tool.fails(line, code, &words)?;
            let after = (tool.ok("save")?, tool.ok("-Sn")?);
            ensure!(after == before, "`{line}` left {after:?}");
        }
    }
    // A state that has it anywhere is not begun.
    for (what, text) in [
        ("toa (service tcp 192.0.2.9:80)", "services: [{service: tcp 192.0.2.8:80}, {service: tcp 192.0.2.9:80, toa: 254}]\n"),
        ("method: fullnat (service tcp 192.0.2.9:80)", "services: [{service: tcp 192.0.2.9:80, real_servers: [{address: '10.0.1.2:80', method: fullnat}]}]\n"),
        ("tunnel_mss_clamp (service fwmark 5)", "services: [{service: fwmark 5, tunnel_mss_clamp: true}]\n"),
    ] {
        for line in ["apply -f -", "apply -f - --dry-run"] {
            let out = tool.run(line, text)?;
            ensure!(
                out.code == Some(1) && out.stdout.is_empty() && out.stderr.contains(what) && out.stderr.contains("only rvs has that"),
                "{out:?}"
            );
        }
        let after = (tool.ok("save")?, tool.ok("-Sn")?);
        ensure!(after == before, "{what}: {after:?}");
    }
    // A restore ends at such a line, as at any that is wrong.
    let out = tool.run(
        "-R",
        "-P -t 192.0.2.1:80 -z 10.77.0.1\n-A -t 192.0.2.9:80\n",
    )?;
    ensure!(
        out.code == Some(2) && out.stderr.contains("--add-laddr"),
        "{out:?}"
    );
    ensure!(tool.ok("-Sn")? == before.1);
    // Whoever uses the library is told as well.
    tool.ns.run(|| -> Result<()> {
        use rvs_netlink::client::{Client, Error};
        use rvs_netlink::{
            Dest, ForwardMethod, FullNat, LocalAddress, Message, Protocol, Service, ServiceId,
        };
        let mut client = Client::open()?;
        let id = ServiceId::address(Protocol::TCP, "192.0.2.7:80".parse()?);
        let mut service = Service::new(id, "rr");
        service.fullnat = Some(FullNat::default());
        let dest = Dest::new("10.0.1.2:80".parse()?, ForwardMethod::FULLNAT);
        let there = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse()?);
        let plain = Message::new_service(&Service::new(id, "rr"));
        for refused in [
            client.add_service(&service),
            client.add_dest(&there, &dest),
            client.add_local(&there, &LocalAddress::new("10.77.0.1".parse()?)),
            client.locals(&there).map(drop),
            client
                .batch(&[plain, Message::set_service(&service)])
                .map(drop),
        ] {
            ensure!(matches!(refused, Err(Error::NoExtension(_))), "{refused:?}");
        }
        Ok(())
    })?;
    ensure!(tool.ok("-Sn")? == before.1);
    Ok(())
}
