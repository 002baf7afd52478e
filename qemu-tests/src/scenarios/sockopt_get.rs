// SPDX-License-Identifier: GPL-2.0-or-later

//! The socket options that show something: lengths, errnos, the structures field by field against
//! what netlink shows, and lists of thousands.
//!
//! Proves checklist item 16 (while no daemon runs: `sync_daemon`).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest, dest_full, for_dest, for_svc, svc, svc_full, svc_id, Ipvs};
use crate::pkt::{Pkt, ACK, SYN, TCP, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::sockopt::{
    addr_at, get, set, u16_at, u32_at, u64_at, Dest, Service, Sockopt, DEST_ENTRY_LEN,
    SERVICE_ENTRY_LEN,
};
use crate::topo::{at, ipvsadm, Family};
use crate::wait::{slow, until};

pub const SCENARIO: Scenario = Scenario::new(
    "sockopt_get",
    "socket options that show something, byte for byte",
    &[16],
    run,
)
.timeout(90.0);

const ESRCH: i32 = libc::ESRCH;
const EFAULT: i32 = libc::EFAULT;
const EINVAL: i32 = libc::EINVAL;
const ENOPROTOOPT: i32 = libc::ENOPROTOOPT;

fn v4(addr: SocketAddr) -> Result<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Ok(addr),
        SocketAddr::V6(_) => anyhow::bail!("{addr} is not IPv4"),
    }
}

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let opts = Sockopt::open(&rig.topo.director)?;
    empty(&opts)?;
    lengths(&opts)?;
    full(&rig, &opts)?;
    many(&rig, &opts)
}

/// A namespace that has seen nothing.
fn empty(opts: &Sockopt) -> Result<()> {
    ensure!(opts.info() == Ok([0x10201, 0, 0]), "{:?}", opts.info());
    version(opts, 0)?;
    ensure!(opts.services(0) == Ok(vec![]), "{:?}", opts.services(0));
    ensure!(opts.services(3) == Ok(vec![]), "{:?}", opts.services(3));
    let none = Service::new(TCP, v4(at(Family::V4.vip(), 80))?, "");
    ensure!(opts.service(&none) == Err(ESRCH), "a service");
    ensure!(opts.dests(&none, 0) == Err(ESRCH), "destinations");
    let mut timeouts = [0xee; 12];
    let len = opts.get(get::TIMEOUT, &mut timeouts);
    let want: Vec<u8> = [900u32, 120, 300]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect();
    ensure!(
        len == Ok(12) && timeouts[..] == want,
        "{len:?} {timeouts:?}"
    );
    let mut daemons = [0xee; 50];
    let len = opts.get(get::DAEMON, &mut daemons);
    ensure!(
        len == Ok(50) && daemons[..48] == [0; 48] && daemons[48..] == [0xee; 2],
        "{len:?} {daemons:?}"
    );
    Ok(())
}

fn version(opts: &Sockopt, size: u32) -> Result<()> {
    let want = format!("IP Virtual Server version 1.2.1 (size={size})\0");
    for room in [64, 65, 4096] {
        let mut text = vec![0xee; room];
        let len = opts.get(get::VERSION, &mut text);
        ensure!(len == Ok(want.len()), "{len:?} of {want:?}");
        let (text, rest) = text.split_at(want.len());
        ensure!(text == want.as_bytes(), "{text:?} and not {want:?}");
        ensure!(rest.iter().all(|b| *b == 0xee), "more than the text");
    }
    Ok(())
}

/// The least room that each takes, rooms of another size, and rooms that are none.
fn lengths(opts: &Sockopt) -> Result<()> {
    let least = [
        (get::VERSION, 64),
        (get::INFO, 12),
        (get::SERVICES, 8),
        (get::SERVICE, SERVICE_ENTRY_LEN),
        (get::DESTS, 24),
        (get::DEST, 0),
        (get::TIMEOUT, 12),
        (get::DAEMON, 48),
    ];
    for (number, least) in least {
        for len in (0..least).step_by(3).chain(least.checked_sub(1)) {
            let got = opts.get(number, &mut vec![0; len]);
            ensure!(got == Err(EINVAL), "{number} with {len} bytes: {got:?}");
        }
        let want = match number {
            get::SERVICE | get::DESTS => Err(ESRCH),
            get::DEST => Err(EINVAL),
            get::VERSION => Ok(41),
            _ => Ok(least),
        };
        let got = opts.get(number, &mut vec![0; least]);
        ensure!(got == want, "{number} with {least} bytes: {got:?}");
        if least == 0 {
            continue;
        }
        // SAFETY: nothing is there to be written.
        let got = unsafe { opts.get_raw(number, std::ptr::null_mut(), least as u32) };
        ensure!(got == Err(EFAULT), "{number} to nowhere: {got:?}");
        // SAFETY: the kernel does not write to what the program cannot write.
        let got = unsafe { opts.get_raw(number, CONSTANT.as_ptr().cast_mut(), least as u32) };
        let want = match number {
            // Nothing is written.
            get::SERVICES => Ok(least),
            get::SERVICE | get::DESTS => Err(ESRCH),
            _ => Err(EFAULT),
        };
        ensure!(got == want, "{number} to constant memory: {got:?}");
        // SAFETY: as above; the kernel knows that there is no such length.
        let got = unsafe { opts.get_raw(number, CONSTANT.as_ptr().cast_mut(), u32::MAX) };
        ensure!(got == Err(EINVAL), "{number} with -1 bytes: {got:?}");
    }
    for number in [get::DAEMON + 1, get::DAEMON + 40, get::VERSION - 1] {
        let got = opts.get(number, &mut [0; 64]);
        ensure!(got == Err(ENOPROTOOPT), "{number}: {got:?}");
    }
    // Lists: exactly as long as the header says.
    for number in [get::SERVICES, get::DESTS] {
        let (head, entry, count) = match number {
            get::SERVICES => (8, SERVICE_ENTRY_LEN, 0),
            _ => (24, DEST_ENTRY_LEN, 16),
        };
        for (n, len) in [
            (0, head + 1),
            (1, head),
            (1, head + entry - 1),
            (1, head + entry + 1),
            (u32::MAX, head + entry),
            // 32 bits would wrap around to the right length.
            (1 << 29, head),
        ] {
            let mut buffer = vec![0; len];
            buffer[count..count + 4].copy_from_slice(&n.to_ne_bytes());
            let got = opts.get(number, &mut buffer);
            ensure!(got == Err(EINVAL), "{number}, {n} in {len} bytes: {got:?}");
        }
    }
    Ok(())
}

/// Memory that nobody can write.
static CONSTANT: [u8; 128] = [0; 128];

/// Fields that both a service's and a destination's entry end in.
fn check_stats(what: &str, entry: &[u8], want: &crate::ipvs::Stats) -> Result<()> {
    let word = |at| u64::from(u32_at(entry, at));
    let got = [
        word(0),
        word(4),
        word(8),
        u64_at(entry, 16),
        u64_at(entry, 24),
    ];
    let want = [
        want.conns,
        want.inpkts,
        want.outpkts,
        want.inbytes,
        want.outbytes,
    ];
    ensure!(got == want, "{what}: {got:?}, netlink has {want:?}");
    ensure!(word(12) == 0 && word(52) == 0, "{what}: padding {entry:?}");
    Ok(())
}

fn full(rig: &Rig, opts: &Sockopt) -> Result<()> {
    let ipvs = Ipvs::open(&rig.topo.director)?;
    let (vip, other) = (at(Family::V4.vip(), 80), at(Family::V4.vip(), 53));
    let (one, two) = (
        at(Family::V4.raw_rs(1), 8080),
        at(Family::V4.raw_rs(2), 8081),
    );
    let tcp = Service {
        flags: 8,
        timeout: 77,
        netmask: Ipv4Addr::new(255, 255, 255, 0),
        ..Service::new(TCP, v4(vip)?, "rr")
    };
    let udp = Service::new(UDP, v4(other)?, "wlc");
    let marked = Service::marked(UDP, 0xdead_beef, "none");
    for service in [&tcp, &udp, &marked] {
        ensure!(opts.set(set::ADD, &service.bytes()).is_ok(), "{service:?}");
    }
    // What IPv4 has no structures for is not shown.
    let vip6 = at(Family::V6.vip(), 80);
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, vip6, "rr")))?;
    let first = Dest {
        upper: 1000,
        lower: 10,
        ..Dest::new(v4(one)?, 5)
    };
    for dest in [first, Dest::new(v4(two)?, i32::MAX)] {
        ensure!(opts.set(set::ADDDEST, &dest.of(&tcp)).is_ok(), "{dest:?}");
    }
    let foreign =
        dest_full(at(Family::V6.raw_rs(1), 80), 0).with(dest::FWD_METHOD, &2u32.to_ne_bytes());
    let mixed = ipvs.call(cmd::NEW_DEST, &for_dest(&svc_id(TCP, vip), &foreign))?;
    println!("destination of another family: errno {}", mixed.errno);
    let all = 2 + usize::from(mixed.errno == 0);

    let client = at(Family::V4.raw_client(1), 4000);
    let came = rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    rig.returned(&Pkt::tcp(came.dest(), client, SYN | ACK))?;
    rig.forwarded(&Pkt::tcp(client, vip, ACK))?;
    until("netlink has counted", 6.0, || {
        Ok((ipvs.service(TCP, vip)?.stats.inpkts == 2).then_some(()))
    })?;

    version(opts, 256)?;
    ensure!(opts.info() == Ok([0x10201, 256, 3]), "{:?}", opts.info());
    let errno = std::io::Error::from_raw_os_error;
    let list = opts.services(3).map_err(errno)?;
    ensure!(list.len() == 3, "{} services", list.len());
    for service in [&tcp, &udp, &marked] {
        let single = opts.service(service).map_err(errno)?;
        let listed = list
            .iter()
            .find(|e| u32_at(*e, 12) == service.fwmark && u16_at(*e, 0) == service.proto)
            .with_context(|| format!("{service:?} is not listed"))?;
        for (what, e) in [("SERVICE", &single[..]), ("SERVICES", &listed[..])] {
            let name = e[16..32].split(|b| *b == 0).next().unwrap_or_default();
            let want = service.sched.split(|b| *b == 0).next().unwrap_or_default();
            ensure!(
                u16_at(e, 0) == service.proto
                    && addr_at(e, 4, 8) == service.vip
                    && u32_at(e, 12) == service.fwmark
                    && name == want
                    && u32_at(e, 32) == service.flags | 2
                    && u32_at(e, 36) == service.timeout
                    && e[40..44] == service.netmask.octets()
                    && u32_at(e, 44) == if service == &tcp { all as u32 } else { 0 },
                "{what} {service:?}: {e:?}"
            );
            if service.fwmark == 0 {
                let seen = ipvs.service(service.proto as u8, service.vip.into())?;
                check_stats(what, &e[48..], &seen.stats)?;
            }
        }
        // In the list nothing is left of what was in memory before.
        let padding = [&listed[2..4], &listed[10..12]].concat();
        ensure!(padding == [0; 4], "padding {listed:?}");
    }
    // By mark, whatever the protocol.
    let mut asked = marked;
    asked.proto = 47;
    let single = opts.service(&asked).map_err(errno)?;
    ensure!(u16_at(&single, 0) == UDP.into(), "{single:?}");
    // A service of any protocol can be looked for; this one is not there.
    asked.fwmark = 0;
    ensure!(opts.service(&asked) == Err(ESRCH), "{asked:?}");

    // Newest first; conn_flags as connections get them.
    let dests = opts.dests(&tcp, all).map_err(errno)?;
    ensure!(dests.len() == 2, "{} destinations", dests.len());
    for (entry, addr) in dests.iter().zip([two, one]) {
        let seen = ipvs.dest(TCP, vip, addr)?;
        let words: Vec<u32> = (8..36).step_by(4).map(|at| u32_at(entry, at)).collect();
        let want = [
            0x100,
            seen.weight as u32,
            seen.u_thresh,
            seen.l_thresh,
            seen.active,
            seen.inact,
            seen.persist,
        ];
        ensure!(
            SocketAddr::V4(addr_at(entry, 0, 4)) == addr
                && words == want
                && entry[6..8] == [0; 2]
                && entry[36..40] == [0; 4],
            "{entry:?}, netlink has {seen:?}"
        );
        check_stats("DESTS", &entry[40..], &seen.stats)?;
    }
    let active: u32 = dests.iter().map(|e| u32_at(e, 24)).sum();
    ensure!(active == 1, "{active} active connections");

    // Room for fewer: so many, no more. Room for more: the rest stays as it is.
    for n in 0..6 {
        let mut buffer = vec![0xee; 8 + n * SERVICE_ENTRY_LEN];
        buffer[..4].copy_from_slice(&(n as u32).to_ne_bytes());
        let len = opts.get(get::SERVICES, &mut buffer);
        ensure!(len == Ok(buffer.len()), "{n} services: {len:?}");
        ensure!(
            buffer[..4] == (n as u32).to_ne_bytes() && buffer[4..8] == [0xee; 4],
            "the header was changed"
        );
        let (there, rest) = buffer[8..].split_at(n.min(3) * SERVICE_ENTRY_LEN);
        ensure!(
            there.chunks(SERVICE_ENTRY_LEN).all(|e| e[10..12] == [0; 2])
                && rest.iter().all(|b| *b == 0xee),
            "{n} services"
        );
        let mut buffer = tcp.bytes()[..16].to_vec();
        buffer.extend((n as u32).to_ne_bytes());
        buffer.resize(24 + n * DEST_ENTRY_LEN, 0xee);
        let head = buffer[..24].to_vec();
        let len = opts.get(get::DESTS, &mut buffer);
        ensure!(len == Ok(buffer.len()), "{n} destinations: {len:?}");
        ensure!(buffer[..24] == head, "the header was changed");
        let (there, rest) = buffer[24..].split_at(n.min(2) * DEST_ENTRY_LEN);
        ensure!(
            there.chunks(DEST_ENTRY_LEN).all(|e| e[6..8] == [0; 2])
                && rest.iter().all(|b| *b == 0xee),
            "{n} destinations"
        );
    }
    // A list that cannot be written: nothing bad happens.
    let mut asked = [0; 8 + SERVICE_ENTRY_LEN];
    asked[0] = 1;
    let page = Page::new(&asked)?;
    // SAFETY: the page can only be read.
    let got = unsafe { opts.get_raw(get::SERVICES, page.0.cast(), asked.len() as u32) };
    ensure!(got == Err(EFAULT), "a list to constant memory: {got:?}");
    ensure!(opts.set(set::FLUSH, &[]).is_ok(), "FLUSH");
    Ok(())
}

/// A page that can only be read.
struct Page(*mut libc::c_void);

impl Page {
    const LEN: usize = 4096;

    fn new(content: &[u8]) -> Result<Self> {
        // SAFETY: a new mapping, nowhere in particular.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        ensure!(page != libc::MAP_FAILED, "mmap");
        let content = &content[..content.len().min(Self::LEN)];
        // SAFETY: the page was just made for that, and the content is no longer.
        unsafe { std::ptr::copy_nonoverlapping(content.as_ptr(), page.cast(), content.len()) };
        // SAFETY: nobody has a reference into the page.
        let code = unsafe { libc::mprotect(page, Self::LEN, libc::PROT_READ) };
        ensure!(code == 0, "mprotect");
        Ok(Self(page))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the page is this value's own.
        unsafe { libc::munmap(self.0, Self::LEN) };
    }
}

/// Lists longer than anything that is allocated at once.
fn many(rig: &Rig, opts: &Sockopt) -> Result<()> {
    let n: u16 = if slow() > 1.0 { 500 } else { 4000 };
    let errno = std::io::Error::from_raw_os_error;
    for port in 1..=n {
        let vip = SocketAddrV4::new(Ipv4Addr::new(10, 0, 100, 1), port);
        let service = Service::new(TCP, vip, "rr");
        opts.set(set::ADD, &service.bytes()).map_err(errno)?;
    }
    let of = |port| {
        Service::new(
            TCP,
            SocketAddrV4::new(Ipv4Addr::new(10, 0, 100, 1), port),
            "rr",
        )
    };
    for port in 1..=n {
        let dest = Dest::new(SocketAddrV4::new(Ipv4Addr::new(10, 8, 1, 1), port), 1);
        opts.set(set::ADDDEST, &dest.of(&of(7))).map_err(errno)?;
    }
    let info = opts.info().map_err(errno)?;
    ensure!(info[2] == u32::from(n), "{info:?}");
    let all: BTreeSet<u16> = (1..=n).collect();
    for room in [usize::from(n) - 1, n.into(), usize::from(n) + 1] {
        let services = opts.services(room).map_err(errno)?;
        let ports: BTreeSet<u16> = services.iter().map(|e| addr_at(e, 4, 8).port()).collect();
        let want = room.min(n.into());
        ensure!(
            services.len() == want && ports.len() == want && ports.is_subset(&all),
            "{} services, {} of them different, in room for {room}",
            services.len(),
            ports.len()
        );
        let dests = opts.dests(&of(7), room).map_err(errno)?;
        ensure!(dests.len() == want, "{} destinations", dests.len());
        // Newest first.
        let ports = dests.iter().map(|e| addr_at(e, 0, 4).port());
        ensure!(ports.eq((1..=n).rev().take(want)), "order of destinations");
    }
    println!("lists of {n}");
    // While the table changes under the hands of others, no service that stays is missed or doubled.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| -> Result<()> {
        let others = s.spawn(|| -> Result<()> {
            let opts = Sockopt::open(&rig.topo.director)?;
            let mut port = 20_000;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                port = if port == 30_000 { 20_000 } else { port + 1 };
                let number = if port % 1000 < 500 {
                    set::ADD
                } else {
                    set::DEL
                };
                let port = if number == set::DEL { port - 500 } else { port };
                // It may be there already, or not any more.
                let _ = opts.set(number, &of(port).bytes());
                // A debug kernel on one processor needs time for what it frees.
                if port % 100 == 0 {
                    crate::wait::pass(0.002);
                }
            }
            Ok(())
        });
        let mut outcome = Ok(());
        for _ in 0..20 {
            let seen = opts.services(usize::from(n) + 2000).map_err(errno);
            outcome = seen.map_err(Into::into).and_then(|list| {
                let ports: Vec<u16> = list.iter().map(|e| addr_at(e, 4, 8).port()).collect();
                let set: BTreeSet<u16> = ports.iter().copied().collect();
                ensure!(set.len() == ports.len(), "a service is there twice");
                ensure!(set.is_superset(&all), "a service is missed");
                Ok(())
            });
            if outcome.is_err() {
                break;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        match others.join() {
            Ok(others) => others?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        outcome
    })?;
    // By mark through netlink: the same service.
    let ipvs = Ipvs::open(&rig.topo.director)?;
    ipvs.ok(cmd::FLUSH, &Attrs::new())?;
    ensure!(opts.services(1) == Ok(vec![]), "after FLUSH");
    ipvsadm(&rig.topo.director, "-A -f 26 -s rr")?;
    let entry = opts.service(&Service::marked(TCP, 26, "")).map_err(errno)?;
    ensure!(u16_at(&entry, 0) == TCP.into(), "{entry:?}");
    let marked = Attrs::new().u16(svc::AF, 2).u32(svc::FWMARK, 26);
    ipvs.ok(cmd::DEL_SERVICE, &for_svc(&marked))?;
    Ok(())
}
