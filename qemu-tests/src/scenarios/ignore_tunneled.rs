// SPDX-License-Identifier: GPL-2.0-or-later

//! A tunnel that ends on the director: what comes out of it is balanced like any packet. `ignore_tunneled` marks what goes in, so
//! that it is not; the kernel's tunnel devices take that mark off again (`skb_scrub_packet()`), IPsec's tunnels (IPComp, whose protocol
//! nobody balances) leave it.
//!
//! Proves checklist item 118: on a kernel with IPComp, that is the stock one (`make test-boot`).

use anyhow::{ensure, Context, Result};

use crate::pkt::{Pkt, RST, SYN};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Guest, Scenario};
use crate::topo::{at, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "ignore_tunneled",
    "what comes out of tunnels is balanced, unless told not to",
    &[118],
    run,
)
.only_guests(NOT_KASAN, WHY);

const NOT_KASAN: &[Guest] = &[Guest::Uml, Guest::Lockdep, Guest::Qemu, Guest::Virtme];
const WHY: &str = "kmemleak reports what the kernel's tunnel modules register";

fn run(_cx: &Cx) -> Result<()> {
    for family in Family::BOTH {
        one(family).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

fn one(family: Family) -> Result<()> {
    let rig = Rig::new()?;
    let director = &rig.topo.director;
    let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    let peer = family.raw_client(7);
    let (device, proto) = match family {
        Family::V4 => ("ipip", 4),
        Family::V6 => ("ip6tnl", 41),
    };
    let mode = if family == Family::V6 {
        " mode ip6ip6"
    } else {
        ""
    };
    let here = family.director();
    let ignore = "net.ipv4.vs.ignore_tunneled";
    ensure!(director.sysctl(ignore)? == "0", "it is on by default");
    let mut port = 4000;
    let mut balanced = |on: i32, expected: bool| -> Result<()> {
        director.set_sysctl(ignore, on)?;
        port += 1;
        let inner = Pkt::tcp(at(family.raw_client(1), port), vip, SYN);
        let outer = Pkt {
            body: inner.bytes(),
            ..Pkt::new(peer, here, proto)
        };
        if expected {
            let came = rig.forwarded(&outer)?;
            ensure!(
                came.dest() == rs && came.source() == inner.source() && came.csum_ok,
                "{came:?}"
            );
        } else {
            // This host's own business: nobody listens here.
            let came = rig.answered(&outer)?;
            ensure!(
                came.flags & RST != 0 && came.source() == vip && came.dest() == inner.source(),
                "{came:?}"
            );
            ensure!(
                proc::conn(director, inner.source())?.is_none(),
                "a connection"
            );
        }
        // What comes without a tunnel is not concerned.
        let plain = Pkt::tcp(at(family.raw_client(2), port), vip, SYN);
        let came = rig.forwarded(&plain)?;
        ensure!(came.dest() == rs, "{came:?}");
        Ok(())
    };
    director.cmd(&format!(
        "ip link add tun9 type {device} local {here} remote {peer}{mode}"
    ))?;
    director.cmd("ip link set tun9 up")?;
    for on in [0, 1] {
        balanced(on, true).with_context(|| format!("a device, {on}"))?;
    }
    director.cmd("ip link del tun9")?;

    // What is too short to gain from compression goes as IP in IP, for which IPComp has a state of its own.
    let state = format!(
        "ip xfrm state add src {peer} dst {here} proto comp spi 0x1234 mode tunnel comp deflate"
    );
    let added = director.try_cmd(&state)?;
    if added.code != Some(0) {
        println!("no IPComp here: {}", added.stderr.trim());
        return Ok(());
    }
    let any = if family == Family::V4 {
        "0.0.0.0/0"
    } else {
        "::/0"
    };
    director.cmd(&format!(
        "ip xfrm policy add src {any} dst {any} dir in tmpl src {peer} dst {here} proto comp mode tunnel level use"
    ))?;
    for on in [0, 1, 0] {
        balanced(on, on == 0).with_context(|| format!("IPComp, {on}"))?;
    }
    Ok(())
}
