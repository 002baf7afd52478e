// SPDX-License-Identifier: GPL-2.0-or-later

//! 100 MB over one connection through FullNAT, IPv4 and IPv6, on ways that lose, delay and reorder packets, at both sides of the
//! director, with the client's address in options; less with the PROXY protocol. Every byte is checked. Slow guests get 2 MB.

use std::io::{Read, Write};

use anyhow::{ensure, Context, Result};

use crate::fullnat::{self, set};
use crate::genl::Attrs;
use crate::pkt::TCP;
use crate::scenario::{Cx, Guest, Scenario};
use crate::serve::{self, Server};
use crate::topo::Family;
use crate::wait::scaled;

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_loss",
    "100 MB through FullNAT with loss and reordering, v4 and v6",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1)
.timeout(300.0);

fn run(cx: &Cx) -> Result<()> {
    // Debug kernels take long for each packet.
    let n = match cx.guest {
        Guest::Uml => 100_000_000,
        _ => 2_000_000,
    };
    for family in Family::BOTH {
        // One connection with all of it, half each way.
        for (option, proxy, half) in [(254, 0, n / 2), (0, 1, n / 20)] {
            transfer(family, option, proxy, half).with_context(|| format!("{family:?}"))?;
        }
    }
    Ok(())
}

fn transfer(family: Family, option: u8, proxy: u8, n: usize) -> Result<()> {
    let (topo, ipvs, vip, rs) = fullnat::service(family, 80, 8080)?;
    let extra = Attrs::new()
        .u8(fullnat::TOA_KIND, option)
        .u8(fullnat::PROXY, proxy);
    set(&ipvs, TCP, vip, "rr", &extra)?.ok()?;
    for device in ["c0", "s1"] {
        topo.director.cmd(&format!(
            "tc qdisc add dev {device} root netem limit 10000 loss 0.3% delay 1ms reorder 1% 50%"
        ))?;
    }
    let server = Server::tcp(&topo.rs[0], rs, "rs1")?;
    let begin = std::time::Instant::now();
    let stream = serve::connect(&topo.client, vip)?;
    stream.set_read_timeout(Some(scaled(60.0)))?;
    stream.set_write_timeout(Some(scaled(60.0)))?;
    let mut out = stream.try_clone()?;
    if proxy != 0 {
        // The server takes the header for a line, and answers it first.
        let front = serve::ask(&stream, "hello")?;
        let want = format!(
            "PROXY TCP{} {} ",
            if vip.is_ipv4() { 4 } else { 6 },
            family.client()
        );
        ensure!(front.contains(&want), "{front:?}");
        let mut byte = [0];
        while byte != *b"\n" {
            (&stream).read_exact(&mut byte)?;
        }
    }
    out.write_all(format!("BULK {n}\n").as_bytes())?;
    serve::take_bulk(&stream, n).context("from the server")?;
    out.write_all(format!("TAKE {n}\n").as_bytes())?;
    serve::write_pattern(&mut out, n).context("to the server")?;
    let answer = serve::ask(&stream, "")?;
    ensure!(answer.ends_with("right"), "{answer:?}");
    println!("{family:?}: {n} bytes each way in {:.1?}", begin.elapsed());
    drop(server);
    Ok(())
}
