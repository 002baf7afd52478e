// SPDX-License-Identifier: GPL-2.0-or-later

//! `--json` on everything that prints, subcommands and ipvsadm's lists: it is JSON, and its fields have the names that docs/rvsadm.md
//! gives them. Events: `rvsadm_events`; `watch`: `rvsadm_watch`, too.

use std::fs;

use anyhow::{ensure, Context, Result};

use super::rvsadm::{jq, Tool};
use crate::scenario::{Cx, Peer, Scenario};
use crate::serve::{self, Server};
use crate::topo::{at, Family, Topo};

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_json",
    "rvsadm prints JSON with documented fields, whatever it prints",
    &[],
    run,
)
.with_rvsadm();

const STATS: &str = "conns,cps,in_bps,in_bytes,in_pkts,in_pps,out_bps,out_bytes,out_pkts,out_pps";
const SERVICE: &str = "netmask,persistent,real_servers,scheduler,scheduler_flags,service,stats";
const REAL: &str = "address,connections,lower,method,stats,tunnel,upper,weight";

/// Names of fields, in the order of the alphabet.
fn keys(path: &str) -> String {
    format!("{path} | keys | join(\",\")")
}

fn run(cx: &Cx) -> Result<()> {
    let topo = Topo::new(1)?;
    let tool = Tool::new(cx, &topo.director)?;
    let (vip, real) = (at(Family::V4.vip(), 80), at(Family::V4.rs(1), 8080));
    let _server = Server::tcp(&topo.rs[0], real, "rs1")?;
    tool.ok(&format!(
        "service add tcp {vip} -s mh --scheduler-flags port,fallback --persistent 300 --netmask 24"
    ))?;
    tool.ok(&format!(
        "real add tcp {vip} {real} --weight 2 --upper 9 --lower 3"
    ))?;
    tool.ok("service add udp [2001:db8::1]:5060 -s rr --one-packet")?;
    tool.ok("service add fwmark 7 -s wrr")?;
    tool.ok("real add fwmark 7 10.0.1.3:80 --method tunnel --tunnel-type gue --tunnel-port 6080 --upper 9 --lower 3")?;
    let open = serve::connect(&topo.client, vip)?;
    serve::ask(&open, "hello")?;
    lists(&tool, &vip.to_string()).context("lists")?;
    connections(cx, &tool).context("connections")?;
    settings(&tool).context("settings")?;
    states(&tool).context("states")?;
    changes(&tool, &vip.to_string(), &real.to_string()).context("changes")?;
    if cx.peer == Peer::Rvs {
        pools(&tool, &vip.to_string()).context("pools")?;
    }
    Ok(())
}

/// Lists of services: one object, whichever list is asked for.
fn lists(tool: &Tool<'_>, vip: &str) -> Result<()> {
    let full = r#".services[] | select(.service | startswith("tcp"))"#;
    let names = |line: &str| -> Result<()> {
        for (path, want) in [
            (".".to_owned(), "services"),
            (format!("{full} | del(.fullnat)"), SERVICE),
            (format!("{full} | .stats"), STATS),
            (
                format!("{full} | .real_servers[0]"),
                &REAL.replace(",tunnel", ""),
            ),
            (format!("{full} | .real_servers[0].stats"), STATS),
            (
                format!("{full} | .real_servers[0].connections"),
                "active,inactive,persistent",
            ),
        ] {
            let got = tool.json(line, &keys(&path))?;
            ensure!(got == want, "`{line}`, {path}: {got}");
        }
        Ok(())
    };
    for line in [
        "service list",
        "stats",
        "-L",
        "-Ln",
        "-Ln --stats",
        "-Ln --stats --exact",
        "-Ln --rate",
        "-Ln --thresholds",
        "-Ln --persistent-conn",
        "-Ln --tun-info",
        "-Ln --nosort",
        "-S",
        "-Sn",
        "",
    ] {
        if line.is_empty() {
            // Without a command, rvsadm's own name wants a subcommand for --json.
            tool.fails("--json", 2, &["requires a subcommand"])?;
            continue;
        }
        names(line)?;
        let got = tool.json(line, ".services | map(.service) | sort | join(\" \")")?;
        ensure!(
            got == format!("fwmark 7 tcp {vip} udp [2001:db8::1]:5060"),
            "`{line}`: {got}"
        );
    }
    for line in [
        format!("service list tcp {vip}"),
        format!("stats tcp {vip}"),
        format!("-Ln -t {vip}"),
        format!("-Ln -t {vip} --stats"),
    ] {
        names(&line)?;
        ensure!(tool.json(&line, ".services | length")? == "1", "{line}");
    }
    // Where the word may stand.
    for line in [
        "service list --json",
        "-Ln --json",
        "--list --json --numeric",
    ] {
        ensure!(jq(&tool.ok(line)?, ".services | length")? == "3", "{line}");
    }
    let values = tool.json(
        "service list",
        r#".services[] | [.service, .scheduler_flags, .persistent, .netmask, .one_packet,
           (.real_servers[0] | [.method, .weight, .upper, .lower, .tunnel])]"#,
    )?;
    let want = format!(
        "[\"tcp {vip}\",[\"fallback\",\"port\"],300,\"255.255.255.0\",null,[\"nat\",2,9,3,null]]\n\
         [\"udp [2001:db8::1]:5060\",null,null,null,true,[null,null,null,null,null]]\n\
         [\"fwmark 7\",null,null,null,null,[\"tunnel\",1,9,3,{{\"type\":\"gue\",\"port\":6080,\"checksum\":\"none\"}}]]"
    );
    ensure!(values == want, "{values}\nnot\n{want}");
    // A line each time.
    fs::write(
        "/run/watch.sh",
        format!(
            "{} --json watch tcp {vip} --interval 0.1 | head -n 1\n",
            tool.path.display()
        ),
    )?;
    let line = tool.ns.cmd("sh /run/watch.sh")?;
    ensure!(line.lines().count() == 1 && jq(&line, ".services | length")? == "1");
    Ok(())
}

fn connections(cx: &Cx, tool: &Tool<'_>) -> Result<()> {
    let base = "client,expires,protocol,real,service,state";
    let want = match cx.peer {
        Peer::Rvs => "client,expires,method,protocol,real,service,state,template,timeout",
        Peer::C => base,
    };
    let one = r#".[] | select(.state == "ESTABLISHED")"#;
    for line in ["conns", "-Lnc", "-L -c", "-Lnc --persistent-conn"] {
        let got = tool.json(line, &keys(one))?;
        ensure!(got == want, "`{line}`: {got}");
    }
    let got = tool.json("conns --count --state established", ".")?;
    ensure!(got == r#"{"connections":1}"#, "{got}");
    // None, and still JSON.
    ensure!(tool.json("conns --protocol sctp", ".")? == "[]");
    Ok(())
}

fn settings(tool: &Tool<'_>) -> Result<()> {
    tool.ns.cmd("ipvsadm --set 901 121 301")?;
    let got = tool.json("-L --timeout", ".")?;
    ensure!(got == r#"{"tcp":901,"tcp_fin":121,"udp":301}"#, "{got}");
    ensure!(tool.json("-L --daemon", ".")? == "[]");
    tool.ns
        .cmd("ipvsadm --start-daemon backup --mcast-interface s1 --syncid 5")?;
    let got = tool.json("-L --daemon", ".[0]")?;
    ensure!(
        got == r#"{"group":"224.0.0.81","interface":"s1","max_len":1472,"port":8848,"state":"backup","syncid":5,"ttl":1}"#,
        "{got}"
    );
    tool.ns.cmd("ipvsadm --stop-daemon backup")?;
    Ok(())
}

fn states(tool: &Tool<'_>) -> Result<()> {
    let got = tool.json("save", &keys("."))?;
    ensure!(got == "services,timeouts", "{got}");
    let got = tool.json("save", &keys(".services[0]"))?;
    ensure!(
        got == "netmask,persistent,real_servers,scheduler,scheduler_flags,service",
        "{got}"
    );
    // Somebody wrong is found, with a code that says so.
    for line in ["--json check", "--json check -f /run/found.yaml"] {
        fs::write("/run/found.yaml", "services: [{service: fwmark 9}]\n")?;
        let out = tool.run(line, "")?;
        ensure!(out.code == Some(1), "{out:?}");
        let got = jq(&out.stdout, &keys(".findings[0]"))?;
        ensure!(got == "remedy,what", "{got}");
    }
    fs::write("/run/nothing.yaml", "services: []\n")?;
    ensure!(tool.json("check -f /run/nothing.yaml", ".")? == r#"{"findings":[]}"#);
    for (mode, dry) in [("--dr", true), ("--tunnel", true)] {
        let ip = "198.51.100.9";
        let out = tool.run(&format!("--json realserver check {mode} {ip}"), "")?;
        ensure!(
            out.code == Some(1) && jq(&out.stdout, "keys | join(\",\")")? == "missing",
            "{out:?}"
        );
        for verb in ["setup", "undo"] {
            let got = tool.json(
                &format!("realserver {verb} {mode} {ip} --dry-run"),
                "[keys, .run]",
            )?;
            ensure!(got == r#"[["commands","run"],false]"# && dry, "{got}");
        }
    }
    Ok(())
}

fn changes(tool: &Tool<'_>, vip: &str, real: &str) -> Result<()> {
    let got = tool.json(
        &format!("real drain tcp {vip} {real} --wait 0"),
        "[keys, .real, .weight_before, .drained, .removed]",
    )?;
    ensure!(
        got == format!(
            r#"[["active","drained","inactive","persistent","real","removed","weight_before"],"{real}",2,false,false]"#
        ),
        "{got}"
    );
    for (line, applied) in [
        ("apply -f /run/nothing.yaml --dry-run", false),
        ("apply -f /run/nothing.yaml", true),
    ] {
        let got = tool.json(line, "[keys, .applied, (.changes | length), .refused]")?;
        ensure!(
            got == format!(r#"[["applied","changes","refused"],{applied},3,[]]"#),
            "`{line}`: {got}"
        );
    }
    // What was refused is told, too.
    let state = "services: [{service: tcp 192.0.2.7:80, scheduler: nosuch}]\n";
    let out = tool.run("--json apply -f -", state)?;
    let got = jq(&out.stdout, ".refused[0] | [keys, .change, .errno]")?;
    ensure!(
        out.code == Some(1)
            && got == r#"[["change","errno","text"],"adding service tcp 192.0.2.7:80",2]"#,
        "{got}"
    );
    Ok(())
}

fn pools(tool: &Tool<'_>, vip: &str) -> Result<()> {
    tool.ok(&format!(
        "service add tcp {vip} --local-address 10.77.0.16/31 --toa"
    ))?;
    const POOL: &str =
        "exhausted,local_ports,locals,pool,proxy_protocol,service,toa,toa_added,toa_no_room,toa_on_syn,toa_removed";
    for (line, addresses) in [
        ("pool list", 1),
        ("pool list --each", 2),
        ("-Gn", 2),
        ("-G", 2),
    ] {
        let got = tool.json(line, &keys(".pools[0]"))?;
        ensure!(got == POOL, "`{line}`: {got}");
        let got = tool.json(line, "[.pools[0].pool[0] | keys, length] | flatten")?;
        ensure!(
            got == r#"["address","connections","port_conflicts",3]"#,
            "`{line}`: {got}"
        );
        let got = tool.json(line, ".pools[0].pool | length")?;
        ensure!(got == addresses.to_string(), "`{line}`: {got}");
    }
    for line in ["service list", "stats", "-Ln"] {
        let got = tool.json(line, &keys(".services[0].fullnat"))?;
        ensure!(
            got == "exhausted,locals,pool,toa_added,toa_no_room,toa_removed",
            "`{line}`: {got}"
        );
    }
    Ok(())
}
