// SPDX-License-Identifier: GPL-2.0-or-later

//! Prometheus' node exporter as the client: its ipvs collector reads /proc/net/ip_vs and /proc/net/ip_vs_stats and gives
//! the numbers that netlink gives.
//!
//! Proves checklist items 21 and 24 (that the files parse).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{ensure, Context, Result};

use super::clients::Program;
use crate::ipvs::Ipvs;
use crate::pkt::{Pkt, ACK, SYN, TCP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::{until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "clients_node_exporter",
    "node_exporter's ipvs collector reads the right numbers",
    &[],
    run,
)
.partly(&[21, 24]);

/// The metrics of IPVS by name with labels.
fn metrics(text: &str) -> Result<BTreeMap<String, f64>> {
    text.lines()
        .filter(|l| l.starts_with("node_ipvs_"))
        .map(|l| {
            let (name, value) = l.rsplit_once(' ').context(l.to_owned())?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let page = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9100);
    let program = Program::start(
        ns,
        "node_exporter",
        &format!(
            "prometheus-node-exporter --collector.disable-defaults --collector.ipvs --web.listen-address={page}"
        ),
    )?;
    let get = || -> Result<BTreeMap<String, f64>> {
        metrics(&ns.cmd(&format!("curl -sS --max-time 10 http://{page}/metrics"))?)
    };
    // Before anything is there.
    let begin = std::time::Instant::now();
    let empty = until("the exporter answers", 20.0, || Ok(get().ok()));
    let empty = empty.with_context(|| program.log())?;
    println!("started in {:.2?}", begin.elapsed());
    ensure!(
        empty.len() == 5 && empty.values().all(|v| *v == 0.0),
        "{empty:?}"
    );

    for family in Family::BOTH {
        let vip = at(family.vip(), 80);
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        for host in [1, 2] {
            let real = at(family.raw_rs(host), 8080);
            rig.ipvsadm(&format!("-a -t {vip} -r {real} -m -w {host}"))?;
            let client = at(family.raw_client(host.into()), 4000);
            let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
            rig.returned(&Pkt::tcp(came.dest(), client, SYN | ACK))?;
            if host == 1 {
                rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
            }
        }
    }
    rig.ipvsadm("-A -f 26 -s rr")?;
    rig.ipvsadm(&format!("-a -f 26 -r {} -m -w 7", Family::V4.raw_rs(9)))?;
    until_true("the totals are counted", 6.0, || {
        Ok(proc::totals(ns)?[..3] == [4, 6, 4])
    })?;
    let totals = proc::totals(ns)?;
    let seen = get()?;
    for (name, want) in [
        "connections_total",
        "incoming_packets_total",
        "outgoing_packets_total",
        "incoming_bytes_total",
        "outgoing_bytes_total",
    ]
    .iter()
    .zip(totals)
    {
        let got = seen.get(&format!("node_ipvs_{name}"));
        ensure!(
            got == Some(&(want as f64)),
            "{name}: {got:?} and not {want}"
        );
    }
    let ipvs = Ipvs::open(ns)?;
    let mut backends = 0;
    for family in Family::BOTH {
        let vip = at(family.vip(), 80);
        for dest in ipvs.dests(TCP, vip)? {
            backends += 1;
            for (name, want) in [
                ("active", f64::from(dest.active)),
                ("inactive", f64::from(dest.inact)),
                ("weight", f64::from(dest.weight)),
            ] {
                let name = match name {
                    "weight" => "node_ipvs_backend_weight{".to_owned(),
                    kind => format!("node_ipvs_backend_connections_{kind}{{"),
                };
                let found = seen.iter().find(|(key, _)| {
                    key.starts_with(&name)
                        && key.contains(&format!("local_address=\"{}\"", vip.ip()))
                        && key.contains("local_port=\"80\"")
                        && key.contains(&format!("remote_address=\"{}\"", dest.addr.ip()))
                        && key.contains("remote_port=\"8080\"")
                        && key.contains("proto=\"TCP\"")
                });
                ensure!(
                    found.is_some_and(|(_, value)| *value == want),
                    "{name}{dest:?}: {found:?} in {seen:#?}"
                );
            }
        }
    }
    ensure!(backends == 4, "{backends} destinations");
    let marked = seen.iter().find(|(key, _)| {
        key.starts_with("node_ipvs_backend_weight{") && key.contains("local_mark=\"0000001A\"")
    });
    ensure!(
        marked.is_some_and(|(_, weight)| *weight == 7.0),
        "{marked:?} in {seen:#?}"
    );
    Ok(())
}
