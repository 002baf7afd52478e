// SPDX-License-Identifier: GPL-2.0-or-later

//! rvsadm's subcommands as a person uses them: services and real servers are added, changed, listed, drained and removed; a
//! declared state is applied; wrong words are refused with what would be right.
//!
//! Proves part of checklist item 20: rvsadm against both modules.

use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::rvsadm::Tool;
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_subcommands",
    "rvsadm's subcommands do what they say",
    &[],
    run,
)
.partly(&[20])
.with_rvsadm();

fn run(cx: &Cx) -> Result<()> {
    let topo = Topo::new(2)?;
    let tool = Tool::new(cx, &topo.director)?;
    services(&tool).context("services")?;
    mistakes(&tool).context("mistakes")?;
    traffic(cx, &topo, &tool).context("traffic")?;
    declared(&tool).context("declared states")?;
    generated(&tool).context("generated files")
}

fn services(tool: &Tool<'_>) -> Result<()> {
    tool.ok("service add tcp 192.0.2.1:80 --scheduler wrr --persistent 300 --netmask 24")?;
    tool.ok("service add udp [2001:db8::1]:53 -s rr --one-packet")?;
    tool.ok("service add fwmark 5")?;
    tool.ok("real add tcp 192.0.2.1:80 10.0.1.2:8080 --weight 3 --upper 100 --lower 50")?;
    tool.ok("real add tcp 192.0.2.1:80 10.0.2.2:80 --method dr")?;
    tool.ok("real add fwmark 5 10.0.1.2:80 --method tunnel --tunnel-type gue --tunnel-port 6080")?;
    let list = tool.ok("service list")?;
    ensure!(
        list == "tcp 192.0.2.1:80 wrr persistent 300 s netmask 255.255.255.0\n\
                 \x20 10.0.1.2:8080 nat    weight 3     0 active, 0 inactive, limit 100 (again below 50)\n\
                 \x20 10.0.2.2:80   dr     weight 1     0 active, 0 inactive\n\
                 udp [2001:db8::1]:53 rr one-packet\n\
                 fwmark 5 wlc\n\
                 \x20 10.0.1.2:80 tunnel weight 1     0 active, 0 inactive\n",
        "{list}"
    );
    // ipvsadm sees the same.
    let theirs = tool.ns.cmd("ipvsadm -S -n")?;
    for line in [
        "-A -t 192.0.2.1:80 -s wrr -p 300 -M 255.255.255.0",
        "-a -t 192.0.2.1:80 -r 10.0.1.2:8080 -m -w 3",
        "-A -u [2001:db8::1]:53 -s rr -o",
        "-a -f 5 -r 10.0.1.2:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum",
    ] {
        ensure!(theirs.contains(line), "{line}\n{theirs}");
    }
    // What isn't given stays.
    tool.ok("service edit tcp 192.0.2.1:80 -s mh --scheduler-flags port,fallback")?;
    tool.ok("real set tcp 192.0.2.1:80 10.0.1.2:8080 --weight 7")?;
    let listed = tool.json(
        "service list tcp 192.0.2.1:80",
        ".services[0] | [.scheduler, .scheduler_flags, .persistent, .real_servers[0].weight, .real_servers[0].upper]",
    )?;
    ensure!(
        listed == r#"["mh",["fallback","port"],300,7,100]"#,
        "{listed}"
    );
    tool.ok("service edit tcp 192.0.2.1:80 --persistent 0")?;
    ensure!(!tool.ok("service list")?.contains("persistent"));
    tool.ok("real del tcp 192.0.2.1:80 10.0.2.2:80")?;
    tool.ok("service del fwmark 5")?;
    tool.ok("service del udp [2001:db8::1]:53")?;
    ensure!(tool.ok("service list")?.lines().count() == 2);
    Ok(())
}

fn mistakes(tool: &Tool<'_>) -> Result<()> {
    let cases: &[(&str, i32, &[&str])] = &[
        (
            "service add tcp 192.0.2.1",
            2,
            &["`192.0.2.1`", "the port is missing"],
        ),
        (
            "service add tcp 2001:db8::1:80",
            2,
            &["brackets", "[2001:db8::1]:80"],
        ),
        (
            "service add http 192.0.2.1:80",
            2,
            &["http", "tcp", "fwmark"],
        ),
        (
            "service add fwmark 0",
            2,
            &["`0` is no firewall mark", "1 to 4294967295"],
        ),
        (
            "service add tcp 192.0.2.9:80 --persistent 9999999",
            2,
            &["--persistent", "9999999", "2678400"],
        ),
        (
            "service add tcp 192.0.2.9:80 --netmask x",
            2,
            &["--netmask", "255.255.255.0"],
        ),
        (
            "service add tcp 192.0.2.9:80 --one-packet",
            2,
            &["UDP only"],
        ),
        ("service add tcp 192.0.2.9:0", 2, &["persistent"]),
        (
            "service add tcp 192.0.2.9:80 --scheduler nosuch",
            1,
            &["no such scheduler"],
        ),
        (
            "service add tcp 192.0.2.1:80",
            1,
            &["there already", "rvsadm service edit"],
        ),
        (
            "service edit tcp 192.0.2.9:80 -s rr",
            1,
            &["no service tcp 192.0.2.9:80", "service list"],
        ),
        (
            "service del tcp 192.0.2.9:80",
            1,
            &["no service tcp 192.0.2.9:80"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.2:8080",
            1,
            &["already", "real set"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.2:81 --method dr",
            2,
            &["port 81", "only method nat"],
        ),
        ("real add tcp 192.0.2.1:80 [2001:db8::5]:80", 2, &["tunnel"]),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:80 --lower 5",
            2,
            &["--lower 5", "--upper"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:80 --weight -1",
            2,
            &["--weight"],
        ),
        (
            "real set tcp 192.0.2.1:80 10.0.1.9:80 --weight 1",
            1,
            &["no real server 10.0.1.9:80"],
        ),
        ("real frob tcp 192.0.2.1:80 10.0.1.9:80", 2, &["frob"]),
        (
            "service add tcp 192.0.2.9:80 --scheduler nosuch",
            1,
            &["scheduler nosuch", "rr, wrr, lc, wlc", "tcp 192.0.2.9:80"],
        ),
        (
            "service add tcp 192.0.2.9:99999",
            2,
            &["`192.0.2.9:99999`", "0 to 65535"],
        ),
        (
            "service add tcp 192.0.2.9:80 --netmask 33",
            2,
            &["--netmask 33", "1 to 32"],
        ),
        (
            "service add tcp [2001:db8::9]:80 --netmask 255.0.0.0",
            2,
            &["--netmask 255.0.0.0", "1 to 128"],
        ),
        (
            "service add tcp 192.0.2.9:80 --persistent x",
            2,
            &["--persistent", "'x'", "0 to 2678400"],
        ),
        (
            "service add tcp 192.0.2.9:80 --scheduler-flags x",
            2,
            &["--scheduler-flags", "'x'", "fallback, port"],
        ),
        (
            "service add tcp 192.0.2.9:80 --schedular rr",
            2,
            &["--schedular", "'--scheduler'"],
        ),
        ("real add tcp 192.0.2.1:80", 2, &["<REAL>"]),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:80 --method gate",
            2,
            &["--method", "'gate'", "nat, dr, tunnel, fullnat"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:80 --weight 2147483648",
            2,
            &["--weight", "'2147483648'", "0 to 2147483647"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:80 --method tunnel --tunnel-type gue",
            2,
            &["gue", "--tunnel-port"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:80 --method tunnel --tunnel-port 70000",
            2,
            &["--tunnel-port", "'70000'", "1 to 65535"],
        ),
        (
            "real add tcp 192.0.2.1:80 10.0.1.3:99999",
            2,
            &["<REAL>", "10.0.1.3:99999", "0 to 65535"],
        ),
        (
            "real del tcp 192.0.2.1:80 10.0.1.9:80",
            1,
            &["no such real server", "service list"],
        ),
        (
            "real drain tcp 192.0.2.1:80 10.0.1.2:8080 --wait x",
            2,
            &["--wait", "'x'", "0 to 86400"],
        ),
        (
            "conns --state nosuch",
            2,
            &["--state", "'nosuch'", "ESTABLISHED"],
        ),
        ("conns --real x", 2, &["--real", "`x`", "192.0.2.1:80"]),
        ("events --count 0", 2, &["--count", "'0'", "from 1 to"]),
        ("realserver setup 192.0.2.1", 2, &["--dr", "--tunnel"]),
        ("realserver setup --dr x", 2, &["<VIP>", "'x'", "192.0.2.1"]),
        (
            "generate completions tcsh",
            2,
            &["'tcsh'", "bash", "zsh", "fish"],
        ),
        // A file: the line, or the service.
        (
            "apply -f /run/key.yaml",
            2,
            &[
                "--file /run/key.yaml",
                "unknown field `wieght`",
                "`weight`",
                "line 4",
            ],
        ),
        (
            "apply -f /run/value.yaml",
            2,
            &[
                "--file /run/value.yaml",
                "service tcp 192.0.2.9:80",
                "real server 10.0.1.3:80",
                "weight -1",
                "0 or more",
            ],
        ),
        (
            "apply -f /run/rules",
            2,
            &["--file /run/rules", "`-A -t 192.0.2.9:80`", "rvsadm -R"],
        ),
        (
            "check -f /run/ini",
            2,
            &["--file /run/ini", "line 2", "YAML"],
        ),
        // With ipvsadm's flags.
        (
            "-A -t 192.0.2.9:80 -s nosuch",
            255,
            &[
                "Scheduler or persistence engine not found",
                "tcp 192.0.2.9:80",
                "scheduler nosuch",
                "rr, wrr",
            ],
        ),
        (
            "-A -t 192.0.2.9:99999",
            2,
            &["--tcp-service 192.0.2.9:99999", "0 to 65535"],
        ),
        (
            "-A -t 192.0.2.9",
            2,
            &["tcp 192.0.2.9:0", "1 to 65535", "--persistent"],
        ),
        (
            "-A -t 192.0.2.9:80 -p x",
            2,
            &["--persistent", "`x'", "1 to 2678400"],
        ),
        (
            "-A -t [2001:db8::9]:80 -p -M 129",
            2,
            &["--netmask 129", "1 to 128"],
        ),
        (
            "-A -t 192.0.2.9:80 -b x",
            2,
            &["--sched-flags", "`x'", "sh-port"],
        ),
        (
            "-A -f 0",
            2,
            &["--fwmark-service", "`0'", "1 to 4294967295"],
        ),
        ("-A", 2, &["--tcp-service", "--fwmark-service"]),
        ("-A -t", 255, &["-t", "HOST[:PORT]"]),
        ("-A -t 192.0.2.9:80 --bogus", 255, &["--bogus", "-h"]),
        (
            "-A -t 192.0.2.9:80 -w 1",
            2,
            &["--weight", "--add-server, --edit-server"],
        ),
        ("-a -t 192.0.2.1:80", 2, &["--real-server"]),
        (
            "-a -t 192.0.2.1:80 -r 10.0.1.3 -m -w x",
            2,
            &["--weight x", "0 to 2147483647"],
        ),
        (
            "-a -t 192.0.2.1:80 -r 10.0.1.3 -m -g",
            2,
            &["--gatewaying, --ipip or --masquerading"],
        ),
        (
            "-a -t 192.0.2.1:80 -r [2001:db8::5]:80 -m",
            2,
            &["[2001:db8::5]:80", "--ipip"],
        ),
        (
            "-a -t 192.0.2.1:80 -r 10.0.1.3 -i --tun-type vxlan",
            2,
            &["--tun-type vxlan", "ipip, gue and gre"],
        ),
        (
            "-a -t 192.0.2.1:80 -r 10.0.1.3 -m --tun-type gre",
            2,
            &["--tun-type", "--ipip"],
        ),
        (
            "-a -t 192.0.2.1:80 -r 10.0.1.2:8080 -m",
            255,
            &[
                "Destination already exists",
                "10.0.1.2:8080 of tcp 192.0.2.1:80",
                "--edit-server",
            ],
        ),
        (
            "-d -t 192.0.2.1:80 -r 10.0.1.9:80",
            255,
            &[
                "No such destination",
                "10.0.1.9:80 of tcp 192.0.2.1:80",
                "--list",
            ],
        ),
        (
            "-D -t 192.0.2.9:80",
            255,
            &["No such service", "tcp 192.0.2.9:80", "--list"],
        ),
        ("--set 1 2 x", 2, &["--set", "`x'", "0 to 2678400"]),
        (
            "--start-daemon x",
            2,
            &["--start-daemon x", "master and backup"],
        ),
        (
            "--start-daemon backup --syncid 256",
            2,
            &["--syncid 256", "0 to 255"],
        ),
        ("-L --timeout --stats", 2, &["--timeout, --stats"]),
        ("conns --client 10.0.0.0/33", 2, &["--client", "0 to 32"]),
        ("watch --interval 0", 2, &["--interval", "0.1"]),
        ("watch", 2, &["terminal", "rvsadm stats"]),
        (
            "apply -f /run/nosuch.yaml",
            2,
            &["--file /run/nosuch.yaml", "No such file"],
        ),
    ];
    const WRONG: [(&str, &str); 4] = [
        (
            "/run/key.yaml",
            "services:\n- service: tcp 192.0.2.9:80\n  real_servers:\n  - {address: '10.0.1.3:80', wieght: 3}\n",
        ),
        (
            "/run/value.yaml",
            "services:\n- service: tcp 192.0.2.9:80\n  real_servers:\n  - {address: '10.0.1.3:80', weight: -1}\n",
        ),
        ("/run/rules", "# ipvsadm-save\n-A -t 192.0.2.9:80\n"),
        ("/run/ini", "services:\n  vip = 192.0.2.9\n"),
    ];
    for (file, text) in WRONG {
        std::fs::write(file, text)?;
    }
    let before = tool.ok("save")?;
    for (line, code, words) in cases {
        tool.fails(line, *code, words)?;
    }
    let after = tool.ok("save")?;
    ensure!(before == after, "{before}\n{after}");
    Ok(())
}

/// Connections, counters, draining.
fn traffic(cx: &Cx, topo: &Topo, tool: &Tool<'_>) -> Result<()> {
    tool.feed("apply -f -", "services: []\n")?;
    let vip = at(Family::V4.vip(), 80);
    let real = |n| at(Family::V4.rs(n), 8080);
    let _servers = [
        Server::tcp(&topo.rs[0], real(1), "rs1")?,
        Server::tcp(&topo.rs[1], real(2), "rs2")?,
    ];
    tool.ok(&format!("service add tcp {vip} -s rr"))?;
    for n in 1..=2 {
        tool.ok(&format!("real add tcp {vip} {}", real(n)))?;
    }
    let open: Vec<_> = (0..4)
        .map(|_| {
            let stream = serve::connect(&topo.client, vip)?;
            serve::ask(&stream, "hello").map(|_| stream)
        })
        .collect::<Result<_>>()?;

    // The C module has no dump of connections: rvsadm says so, and reads the file.
    let conns = |line: &str| -> Result<String> {
        let out = tool.run(line, "")?;
        ensure!(out.code == Some(0), "{out:?}");
        let noted = out.stderr.contains("reading /proc/net/ip_vs_conn");
        let dump = cx.peer == Peer::Rvs && has_dump(tool)?;
        ensure!(noted != dump, "{out:?}");
        Ok(out.stdout)
    };
    let all = conns("conns")?;
    ensure!(
        all.lines().count() == 5 && all.matches("ESTABLISHED").count() == 4,
        "{all}"
    );
    for (filter, want) in [
        ("--protocol tcp", 4),
        ("--protocol udp", 0),
        ("--client 10.0.0.2", 4),
        ("--client 10.0.0.0/24", 4),
        ("--client 10.0.1.0/24", 0),
        ("--service 10.0.100.1", 4),
        ("--service 10.0.100.1:80 --state established", 4),
        ("--service 10.0.100.1:81", 0),
        ("--real 10.0.1.2:8080", 2),
        ("--real 10.0.1.2", 2),
        ("--state time_wait", 0),
    ] {
        let count = conns(&format!("conns --count {filter}"))?;
        ensure!(count.trim() == want.to_string(), "{filter}: {count}");
    }
    let listed = tool.json(
        "conns --real 10.0.1.2:8080",
        "[length, .[0].service, .[0].real, .[0].state]",
    )?;
    ensure!(
        listed == r#"[2,"10.0.100.1:80","10.0.1.2:8080","ESTABLISHED"]"#,
        "{listed}"
    );

    // C shows counters as they were two seconds ago.
    until_true("four connections are counted", 10.0, || {
        let stats = tool.json(
            &format!("stats tcp {vip}"),
            ".services[0] | [.stats.conns, .real_servers[1].stats.conns, .real_servers[0].connections.active]",
        )?;
        Ok(stats == "[4,2,2]")
    })?;
    let table = tool.ok("stats")?;
    ensure!(table.contains(&format!("tcp {vip}")), "{table}");

    // Draining: no new connections; the command waits until the old ones are over.
    let line = format!("real drain tcp {vip} {} --wait 1", real(1));
    let begin = Instant::now();
    let out = tool.run(&line, "")?;
    ensure!(
        out.code == Some(1)
            && out.stdout.contains("2 active")
            && out.stderr.contains("not drained after 1 s"),
        "{out:?}"
    );
    ensure!(begin.elapsed().as_secs_f64() >= 1.0);
    for _ in 0..3 {
        ensure!(serve::http_get(&topo.client, vip)?.starts_with("rs2"));
    }
    drop(open);

    // One whose connections end soon.
    let udp = at(Family::V4.vip(), 53);
    let dns = Server::udp(&topo.rs[0], at(Family::V4.rs(1), 53), "dns")?;
    tool.ns.cmd("ipvsadm --set 0 0 2")?;
    tool.ok(&format!("service add udp {udp} -s rr"))?;
    tool.ok(&format!("real add udp {udp} {}", dns.addr))?;
    let socket = serve::udp(&topo.client, udp)?;
    ensure!(serve::ask_udp(&socket, "who")?.starts_with("dns"));
    let said = tool.ok(&format!(
        "real drain udp {udp} {} --wait 60 --remove",
        dns.addr
    ))?;
    ensure!(
        said == format!("{} has no connections left (its weight was 1)\n", dns.addr),
        "{said}"
    );
    ensure!(tool.ok(&format!("service list udp {udp}"))?.lines().count() == 1);
    tool.ok(&format!("service del udp {udp}"))?;

    // check: something is wrong, and is said.
    tool.ok(&format!("real del tcp {vip} {}", real(1)))?;
    tool.ok(&format!("real set tcp {vip} {} --weight 0", real(2)))?;
    let out = tool.run("check", "")?;
    ensure!(
        out.code == Some(1) && out.stdout.contains("weight 0"),
        "{out:?}"
    );
    tool.ok(&format!("real set tcp {vip} {} --weight 1", real(2)))?;
    ensure!(tool.ok("check")? == "nothing is wrong\n");
    Ok(())
}

/// Whether the module that is loaded has rvs's dump of connections.
fn has_dump(tool: &Tool<'_>) -> Result<bool> {
    let ipvs = crate::ipvs::Ipvs::open(tool.ns)?;
    let reply = ipvs.dump(64, &crate::genl::Attrs::new())?;
    Ok(reply.errno == 0)
}

const STATE: &str = "
timeouts: {tcp: 901, tcp_fin: 121, udp: 301}
services:
- service: tcp 192.0.2.1:80
  scheduler: sh
  scheduler_flags: [port]
  real_servers:
  - {address: '10.0.0.1:8080', weight: 2}
  - {address: '10.0.0.2:8080', upper: 9, lower: 3}
- service: udp [2001:db8::1]:53
  real_servers:
  - {address: '[2001:db8::2]:53'}
- service: fwmark 9
  persistent: 60
  real_servers:
  - {address: '10.0.0.3:0', method: tunnel, tunnel: {type: gre, checksum: csum}}
";

fn declared(tool: &Tool<'_>) -> Result<()> {
    tool.feed("apply -f -", "services: []\n")?;
    std::fs::write("/run/state.yaml", STATE)?;
    let plan = tool.ok("apply -f /run/state.yaml --dry-run")?;
    ensure!(
        plan.contains("+ service tcp 192.0.2.1:80\n+   scheduler sh\n")
            && tool.ok("service list")?.is_empty(),
        "{plan}"
    );
    ensure!(tool.ok("apply -f /run/state.yaml")? == plan);
    ensure!(tool.ok("apply -f /run/state.yaml")? == "nothing to change\n");
    // What is saved is what was applied, in both formats.
    let yaml = tool.ok("save")?;
    ensure!(tool.feed("apply -f -", &yaml)? == "nothing to change\n");
    let json = tool.run("--json save", "")?.stdout;
    ensure!(tool.feed("apply -f -", &json)? == "nothing to change\n");
    // Two changes, and nothing else.
    let changed = STATE.replace("weight: 2", "weight: 5").replace(
        "- service: udp [2001:db8::1]:53\n  real_servers:\n  - {address: '[2001:db8::2]:53'}\n",
        "",
    );
    let diff = tool.feed("apply -f -", &changed)?;
    ensure!(
        diff == "  service tcp 192.0.2.1:80\n\
                 ~   real 10.0.0.1:8080 weight 2 -> 5\n\
                 - service udp [2001:db8::1]:53\n\
                 -   real [2001:db8::2]:53 nat weight 1\n",
        "{diff}"
    );
    ensure!(tool.ns.cmd("ipvsadm -L --timeout")?.contains("901 121 301"));
    // A file that is wrong anywhere changes nothing.
    let out = tool.run(
        "apply -f -",
        "services: [{service: tcp 10.9.9.9:80}, {service: tcp 10.0.0.2}]\n",
    )?;
    ensure!(
        out.code == Some(2)
            && out.stderr.contains("`10.0.0.2`")
            && !tool.ok("save")?.contains("10.9.9.9"),
        "{out:?}"
    );
    // What the kernel refuses is named, the rest happens.
    let out = tool.run(
        "apply -f -",
        "services: [{service: tcp 10.0.0.1:80, scheduler: nosuch}, {service: tcp 10.0.0.2:80}]\n",
    )?;
    ensure!(
        out.code == Some(1)
            && out.stderr.contains("adding service tcp 10.0.0.1:80")
            && out.stderr.contains("1 of "),
        "{out:?}"
    );
    ensure!(tool.ok("service list")? == "tcp 10.0.0.2:80 wlc\n");
    tool.feed("apply -f -", "services: []\n")?;
    tool.ns.cmd("ipvsadm --set 900 120 300")?;
    Ok(())
}

/// Man pages and completions.
fn generated(tool: &Tool<'_>) -> Result<()> {
    tool.ok("generate man /run/man")?;
    let page = std::fs::read_to_string("/run/man/rvsadm.8")?;
    ensure!(
        page.contains("tcp\\-service") && page.contains("watch"),
        "{page}"
    );
    for entry in std::fs::read_dir("/run/man")? {
        let path = entry?.path();
        let page = std::fs::read_to_string(&path)?;
        ensure!(
            page.contains("\n.TH rvsadm") && page.contains("\n.SH NAME\n"),
            "{}",
            path.display()
        );
    }
    ensure!(std::path::Path::new("/run/man/rvsadm-real-drain.8").exists());
    for shell in ["bash", "zsh", "fish"] {
        let text = tool.ok(&format!("generate completions {shell}"))?;
        ensure!(text.contains("drain"), "{shell}");
        let file = format!("/run/completions.{shell}");
        std::fs::write(&file, text)?;
        // The build root has bash; the others read theirs where they are.
        match std::process::Command::new(shell)
            .args(["-n", &file])
            .output()
        {
            Ok(out) => ensure!(
                out.status.success() && out.stderr.is_empty(),
                "{shell}: {out:?}"
            ),
            Err(e) => ensure!(
                shell != "bash" && e.kind() == std::io::ErrorKind::NotFound,
                "{shell}: {e}"
            ),
        }
    }
    // The shell itself reads them.
    std::fs::write("/run/rvsadm.bash", tool.ok("generate completions bash")?)?;
    let script = ". /run/rvsadm.bash; COMP_WORDS=(rvsadm real dr); COMP_CWORD=2; _rvsadm rvsadm dr real; echo ${COMPREPLY[@]}";
    let out = std::process::Command::new("bash")
        .args(["-c", script])
        .output()?;
    ensure!(
        String::from_utf8_lossy(&out.stdout).trim() == "drain",
        "{out:?}"
    );
    Ok(())
}
