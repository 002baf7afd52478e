// SPDX-License-Identifier: GPL-2.0-or-later

//! Packets that are left alone although a service would match: not addressed to this host by their link layer, and those of raw sockets that
//! want no defragmentation.
//!
//! Proves checklist items 36 and 37.

use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{bail, ensure, Result};

use crate::ns::Ns;
use crate::pkt::{octets, Pkt, SYN};
use crate::proc;
use crate::rig::{Rig, Side};
use crate::scenario::{Cx, Scenario};
use crate::tap::Tap;
use crate::topo::{at, mac, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "packet_types",
    "broadcast frames and raw sockets are left alone",
    &[36, 37],
    run,
);

const IP_NODEFRAG: libc::c_int = 22;

/// Sends an IPv4 packet, header and all, from a raw socket in `ns`.
fn send_raw(ns: &Ns, pkt: &Pkt, nodefrag: bool) -> Result<()> {
    ns.run(|| {
        // SAFETY: plain system call; the result is checked before use.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
        if fd < 0 {
            bail!("raw socket: {}", std::io::Error::last_os_error());
        }
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let on = libc::c_int::from(nodefrag);
        // SAFETY: `on` is a c_int and its size is given.
        let rc = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_IP,
                IP_NODEFRAG,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if rc < 0 {
            bail!("IP_NODEFRAG: {}", std::io::Error::last_os_error());
        }
        // SAFETY: sockaddr_in is plain data, zero is a valid value.
        let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        let dst: [u8; 4] = octets(pkt.dst)[..4].try_into()?;
        to.sin_addr.s_addr = u32::from_ne_bytes(dst);
        let bytes = pkt.bytes();
        // SAFETY: buffer and address are live and their sizes are given.
        let rc = unsafe {
            libc::sendto(
                fd.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_in>() as libc::socklen_t,
            )
        };
        if rc < 0 {
            bail!(
                "sending from a raw socket: {}",
                std::io::Error::last_os_error()
            );
        }
        Ok(())
    })
}

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    for family in Family::BOTH {
        let (vip, rs) = (at(family.vip(), 80), at(family.raw_rs(1), 8080));
        for kind in ["t", "u"] {
            rig.ipvsadm(&format!("-A -{kind} {vip} -s rr"))?;
            rig.ipvsadm(&format!("-a -{kind} {vip} -r {rs} -m"))?;
        }
        // To everybody, to a group, to somebody else: no request.
        for to in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [2, 9, 9, 9, 9, 9]] {
            let tap = Tap::open(&rig.topo.client, "eth0", mac(0, 2), to)?;
            let client = at(family.raw_client(1), 4000);
            tap.send(&Pkt::tcp(client, vip, SYN))?;
            tap.send(&Pkt::udp(client, vip, b"x"))?;
            let io = rig.finish(Side::Client)?;
            ensure!(io.server.is_empty(), "sent to {to:x?}: {io:#?}");
        }
        ensure!(
            proc::conns(&rig.topo.director)?.is_empty(),
            "{:?}",
            proc::conns(&rig.topo.director)?
        );
    }
    // Raw sockets of the director itself, to a virtual address that is elsewhere: what was left alone
    // on its way out does not come in again.
    let (vip, rs) = (
        at(Family::V4.raw_rs(200), 80),
        at(Family::V4.raw_rs(1), 8080),
    );
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r {rs} -m"))?;
    for (port, nodefrag, dest) in [(5000, true, vip), (5001, false, rs)] {
        let pkt = Pkt::tcp(at(Family::V4.director_at(1), port), vip, SYN);
        send_raw(&rig.topo.director, &pkt, nodefrag)?;
        let came = rig.finish(Side::Client)?.one_at_server()?;
        ensure!(came.dest() == dest, "IP_NODEFRAG {nodefrag}: {came:?}");
    }
    ensure!(
        proc::conns(&rig.topo.director)?.len() == 1,
        "{:?}",
        proc::conns(&rig.topo.director)?
    );
    Ok(())
}
