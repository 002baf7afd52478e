// SPDX-License-Identifier: GPL-2.0-or-later

//! The socket options that change something: lengths, errnos, what they do as netlink and the files
//! show it, who may use them; and thousands of random ones.
//!
//! Proves checklist items 15 (without starting a daemon, which `sync_daemon` does) and 17.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::{ensure, Context, Result};

use crate::genl::Attrs;
use crate::ipvs::{cmd, dest, dest_full, for_dest, for_svc, svc, svc_full, svc_id, Ipvs};
use crate::matrix::*;
use crate::pkt::{Pkt, SYN, TCP, UDP};
use crate::proc;
use crate::rig::Rig;
use crate::scenario::{Cx, Rng, Scenario};
use crate::sockopt::{
    get, set, u32_at, Dest, Service, Sockopt, DAEMON_LEN, SERVICE_LEN, SVCDEST_LEN, TIMEOUT_LEN,
};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "sockopt_set",
    "socket options that change something, errno by errno",
    &[15, 17],
    run,
)
.partly(&[14]);

const SCTP: u8 = 132;

struct Matrix {
    opts: Sockopt,
    tally: Tally,
}

impl Matrix {
    fn case(&mut self, what: &str, number: i32, bytes: &[u8], want: i32) {
        let got = self.opts.set(number, bytes).err().unwrap_or(OK);
        self.tally.note(what, got, None, want);
    }
}

fn v4(addr: SocketAddr) -> Result<SocketAddrV4> {
    match addr {
        SocketAddr::V4(addr) => Ok(addr),
        SocketAddr::V6(_) => anyhow::bail!("{addr} is not IPv4"),
    }
}

fn run(cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let mut m = Matrix {
        opts: Sockopt::open(&rig.topo.director)?,
        tally: Tally::default(),
    };
    let ipvs = Ipvs::open(&rig.topo.director)?;
    lengths(&mut m);
    services(&mut m, &ipvs)?;
    marks(&mut m, &ipvs)?;
    destinations(&mut m, &ipvs)?;
    timeouts(&mut m, &ipvs)?;
    daemons(&mut m);
    m.tally.finish()?;
    zero_and_flush(&rig, &m.opts, &ipvs)?;
    permission(&rig)?;
    random(&rig, &m.opts, cx.seed)
}

/// Which options there are, and that each takes one length and reads that much.
fn lengths(m: &mut Matrix) {
    let sizes = |number| match number {
        set::ADD | set::EDIT | set::DEL | set::ZERO => SERVICE_LEN,
        set::ADDDEST | set::DELDEST | set::EDITDEST => SVCDEST_LEN,
        set::TIMEOUT => TIMEOUT_LEN,
        set::STARTDAEMON | set::STOPDAEMON => DAEMON_LEN,
        _ => 0,
    };
    for number in set::BASE..=set::ZERO {
        let right = sizes(number);
        for len in [0, 1, right.saturating_sub(1), right + 1, 200, 5000] {
            if len != right {
                let what = format!("option {number} with {len} bytes");
                m.case(&what, number, &vec![0; len], EINVAL);
            }
        }
        let want = match number {
            set::FLUSH => OK,
            _ if right != 0 => EFAULT,
            _ => EINVAL,
        };
        // SAFETY: the kernel reads nothing from there.
        let got = unsafe { m.opts.set_raw(number, std::ptr::null(), right as u32) };
        let what = format!("option {number} from nowhere");
        m.tally.note(&what, got.err().unwrap_or(OK), None, want);
    }
    for number in [set::BASE - 1, set::ZERO + 1, set::ZERO + 100] {
        m.case(&format!("option {number}"), number, &[0; 4], ENOPROTOOPT);
    }
}

fn services(m: &mut Matrix, ipvs: &Ipvs) -> Result<()> {
    let vip = at(Family::V4.vip(), 80);
    let service = Service::new(TCP, v4(vip)?, "rr");
    // The last one is TCP in its low byte only.
    for proto in [0, 1, 2, 50, 51, 58, 255, 0x106] {
        let other = Service { proto, ..service };
        for number in [set::ADD, set::EDIT, set::DEL, set::ZERO] {
            let what = format!("option {number} for protocol {proto}");
            m.case(&what, number, &other.bytes(), EFAULT);
        }
        let dest = Dest::new(v4(at(Family::V4.raw_rs(1), 80))?, 1);
        m.case("ADDDEST", set::ADDDEST, &dest.of(&other), EFAULT);
        let marked = Service { fwmark: 7, ..other };
        m.case("marked", set::ADD, &marked.bytes(), EFAULT);
    }
    let dest = Dest::new(v4(at(Family::V4.raw_rs(1), 80))?, 1);
    for (number, bytes) in [
        (set::EDIT, service.bytes()),
        (set::DEL, service.bytes()),
        (set::ZERO, service.bytes()),
        (set::ADDDEST, dest.of(&service)),
        (set::EDITDEST, dest.of(&service)),
        (set::DELDEST, dest.of(&service)),
    ] {
        let what = format!("option {number} of no service");
        m.case(&what, number, &bytes, ESRCH);
    }
    let unknown = Service::new(TCP, v4(vip)?, "nosuch");
    m.case("ADD, unknown scheduler", set::ADD, &unknown.bytes(), ENOENT);
    let empty = Service::new(TCP, v4(vip)?, "");
    m.case("ADD, empty scheduler", set::ADD, &empty.bytes(), ENOENT);
    let endless = Service {
        sched: *b"rr\x01456789abcdefg",
        ..service
    };
    m.case("ADD, endless scheduler", set::ADD, &endless.bytes(), EINVAL);
    // Asked in this order: the name, the protocol, the service.
    let both = Service {
        proto: 1,
        ..endless
    };
    m.case("ADD, nothing right", set::ADD, &both.bytes(), EINVAL);
    m.case("EDIT, endless name", set::EDIT, &endless.bytes(), EINVAL);
    m.case("DEL, endless name", set::DEL, &endless.bytes(), ESRCH);
    ensure!(
        ipvs.services()?.is_empty(),
        "refused, but {:?}",
        ipvs.services()?
    );

    for proto in [TCP, UDP, SCTP] {
        let service = Service::new(proto, v4(vip)?, "rr");
        m.case("ADD", set::ADD, &service.bytes(), OK);
        m.case("ADD again", set::ADD, &service.bytes(), EEXIST);
        // Before the scheduler is looked for.
        let unknown = Service::new(proto, v4(vip)?, "nosuch");
        m.case("ADD again, unknown", set::ADD, &unknown.bytes(), EEXIST);
        m.case("EDIT, unknown", set::EDIT, &unknown.bytes(), ENOENT);
    }
    let seen = ipvs.service(TCP, vip)?;
    ensure!(
        (seen.sched.as_str(), seen.flags, seen.timeout, seen.netmask) == ("rr", 2, 0, u32::MAX),
        "{seen:?}"
    );
    // All is replaced, flags too; what has no meaning is kept.
    let edited = Service {
        sched: crate::sockopt::name16("wlc"),
        flags: 0x88,
        timeout: 77,
        netmask: Ipv4Addr::new(255, 255, 0, 0),
        ..service
    };
    m.case("EDIT", set::EDIT, &edited.bytes(), OK);
    let seen = ipvs.service(TCP, vip)?;
    let mask = u32::from_ne_bytes([255, 255, 0, 0]);
    ensure!(
        (seen.sched.as_str(), seen.flags, seen.timeout, seen.netmask) == ("wlc", 0x8a, 77, mask),
        "{seen:?}"
    );
    let edited = Service {
        flags: 0x10,
        ..edited
    };
    m.case("EDIT", set::EDIT, &edited.bytes(), OK);
    ensure!(ipvs.service(TCP, vip)?.flags == 0x12, "the old flags stay");
    // One that netlink made, of a protocol that there is no option for.
    let odd = at(Family::V4.vip(), 99);
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(47, odd, "rr")))?;
    let gre = Service {
        proto: 47,
        ..Service::new(TCP, v4(odd)?, "rr")
    };
    m.case("DEL of protocol 47", set::DEL, &gre.bytes(), EFAULT);
    ipvs.ok(cmd::DEL_SERVICE, &for_svc(&svc_id(47, odd)))?;

    m.case("DEL, endless name", set::DEL, &endless.bytes(), OK);
    for proto in [UDP, SCTP] {
        let service = Service::new(proto, v4(vip)?, "");
        m.case("DEL", set::DEL, &service.bytes(), OK);
        m.case("DEL again", set::DEL, &service.bytes(), ESRCH);
    }
    Ok(())
}

/// Services by mark keep the protocol, address and port that they were given, and are asked for it.
fn marks(m: &mut Matrix, ipvs: &Ipvs) -> Result<()> {
    let udp = Service::marked(UDP, 5, "rr");
    let tcp = Service::marked(TCP, 5, "rr");
    m.case("ADD by mark", set::ADD, &udp.bytes(), OK);
    m.case("ADD by mark again", set::ADD, &tcp.bytes(), EEXIST);
    m.case("EDIT as TCP", set::EDIT, &tcp.bytes(), ESRCH);
    m.case("ZERO as TCP", set::ZERO, &tcp.bytes(), ESRCH);
    m.case("DEL as TCP", set::DEL, &tcp.bytes(), ESRCH);
    let dest = Dest::new(v4(at(Family::V4.raw_rs(1), 0))?, 1);
    m.case("ADDDEST as TCP", set::ADDDEST, &dest.of(&tcp), ESRCH);
    m.case("ADDDEST", set::ADDDEST, &dest.of(&udp), OK);
    m.case("ZERO", set::ZERO, &udp.bytes(), OK);
    // Netlink does not care.
    let marked = for_svc(&Attrs::new().u16(svc::AF, 2).u32(svc::FWMARK, 5));
    ipvs.ok(cmd::GET_SERVICE, &marked)?;
    m.case("DEL", set::DEL, &udp.bytes(), OK);
    // Added again it is another one, whatever is kept of its destination.
    m.case("ADD as TCP", set::ADD, &tcp.bytes(), OK);
    m.case("DEL as UDP", set::DEL, &udp.bytes(), ESRCH);
    let placed = Service {
        vip: v4(at(Family::V4.vip(), 21))?,
        ..tcp
    };
    m.case("DEL with an address", set::DEL, &placed.bytes(), OK);
    m.case("ADD with an address", set::ADD, &placed.bytes(), OK);
    m.case("ADDDEST", set::ADDDEST, &dest.of(&tcp), OK);
    let found = m.opts.service(&tcp);
    ensure!(
        found.is_ok_and(|e| crate::sockopt::addr_at(&e, 4, 8) == placed.vip),
        "{found:?}"
    );
    m.case("DEL without", set::DEL, &tcp.bytes(), OK);
    m.case("ADD without", set::ADD, &tcp.bytes(), OK);
    m.case("DEL without", set::DEL, &tcp.bytes(), OK);
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    Ok(())
}

fn destinations(m: &mut Matrix, ipvs: &Ipvs) -> Result<()> {
    let (vip, real) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 8080));
    let service = Service::new(TCP, v4(vip)?, "rr");
    m.case("ADD", set::ADD, &service.bytes(), OK);
    let dest = Dest::new(v4(real)?, 1);
    for number in [set::EDITDEST, set::DELDEST] {
        m.case("no such destination", number, &dest.of(&service), ENOENT);
    }
    let bad = |f: fn(&mut Dest)| {
        let mut bad = dest;
        f(&mut bad);
        bad.of(&service)
    };
    let wrong: [(&str, Vec<u8>, i32); 5] = [
        ("weight -1", bad(|d| d.weight = -1), ERANGE),
        ("weight least", bad(|d| d.weight = i32::MIN), ERANGE),
        ("crossed thresholds", bad(|d| d.lower = 1), ERANGE),
        (
            "crossed and too high",
            bad(|d| (d.upper, d.lower) = (1 << 31, u32::MAX)),
            ERANGE,
        ),
        ("threshold too high", bad(|d| d.upper = 1 << 31), EINVAL),
    ];
    for (what, bytes, want) in &wrong {
        m.case(what, set::ADDDEST, bytes, *want);
        m.case(what, set::EDITDEST, bytes, *want);
    }
    for ip in [
        [0, 0, 0, 0],
        [255, 255, 255, 255],
        [224, 0, 0, 1],
        [239, 1, 2, 3],
        [10, 0, 1, 255],
    ] {
        let nowhere = Dest::new(SocketAddrV4::new(ip.into(), 80), 1);
        let what = format!("ADDDEST {ip:?}");
        m.case(&what, set::ADDDEST, &nowhere.of(&service), EINVAL);
    }
    ensure!(ipvs.dests(TCP, vip)?.is_empty(), "refused, but there");
    m.case("ADDDEST", set::ADDDEST, &dest.of(&service), OK);
    m.case("ADDDEST again", set::ADDDEST, &dest.of(&service), EEXIST);
    for (what, bytes, want) in &wrong {
        m.case(what, set::ADDDEST, bytes, *want);
        m.case(what, set::EDITDEST, bytes, *want);
    }
    let most = Dest {
        weight: i32::MAX,
        upper: i32::MAX as u32,
        lower: 7,
        ..dest
    };
    m.case("EDITDEST", set::EDITDEST, &most.of(&service), OK);
    let seen = ipvs.dest(TCP, vip, real)?;
    ensure!(
        (seen.method, seen.weight, seen.u_thresh, seen.l_thresh)
            == (0, i32::MAX, i32::MAX as u32, 7),
        "{seen:?}"
    );
    // Of the flags a method and two others count.
    let raw = |m: &Matrix| -> Result<u32> {
        let dests = m.opts.dests(&service, 1).ok().context("DESTS")?;
        let dest = dests.first().context("no destination")?;
        Ok(u32_at(dest, 8))
    };
    let flags = |flags: u32| {
        Dest {
            conn_flags: flags,
            ..dest
        }
        .of(&service)
    };
    m.case("EDITDEST", set::EDITDEST, &flags(0xfffe_dff8), OK);
    ensure!(raw(m)? == 0x100, "flags {:#x}", raw(m)?);
    for (given, shown) in [
        (0x2000, 0x2100),
        (0x1_0000, 0x1_0100),
        (3, 0x183),
        (2, 0x182),
        (1, 0x181),
        (7, 0x187),
    ] {
        let what = format!("EDITDEST with flags {given:#x}");
        m.case(&what, set::EDITDEST, &flags(given), OK);
        ensure!(raw(m)? == shown, "{given:#x}: flags {:#x}", raw(m)?);
    }
    m.case("EDITDEST", set::EDITDEST, &flags(0), OK);
    // The tunnel that netlink gave it is forgotten.
    let tunnel = dest_full(real, 1)
        .u8(dest::TUN_TYPE, 1)
        .put(dest::TUN_PORT, &[0x12, 0x34]);
    ipvs.ok(cmd::SET_DEST, &for_dest(&svc_id(TCP, vip), &tunnel))?;
    m.case("EDITDEST", set::EDITDEST, &flags(0), OK);
    let reply = ipvs
        .dump(cmd::GET_DEST, &for_svc(&svc_id(TCP, vip)))?
        .ok()?;
    let msg = reply.msgs.first().context("no destination")?;
    let nest = crate::genl::find(&msg.attrs, crate::ipvs::top::DEST).context("no nest")?;
    ensure!(
        crate::genl::find(nest, dest::TUN_TYPE) == Some(&[0])
            && crate::genl::find(nest, dest::TUN_PORT) == Some(&[0, 0]),
        "{nest:?}"
    );
    m.case("DELDEST", set::DELDEST, &wrong[0].1, OK);
    m.case("DELDEST again", set::DELDEST, &dest.of(&service), ENOENT);
    m.case("DEL", set::DEL, &service.bytes(), OK);
    Ok(())
}

fn timeouts(m: &mut Matrix, ipvs: &Ipvs) -> Result<()> {
    let bytes = |secs: [i32; 3]| {
        secs.iter()
            .flat_map(|s| s.to_ne_bytes())
            .collect::<Vec<_>>()
    };
    let most = i32::MAX / proc::hz()? as i32;
    m.case("TIMEOUT", set::TIMEOUT, &bytes([1000, 200, 400]), OK);
    for at in 0..3 {
        for secs in [-1, i32::MIN, most + 1, i32::MAX] {
            let mut all = [11, 12, 13];
            all[at] = secs;
            let what = format!("TIMEOUT {all:?}");
            m.case(&what, set::TIMEOUT, &bytes(all), EINVAL);
        }
    }
    ensure!(ipvs.config()? == [1000, 200, 400], "{:?}", ipvs.config()?);
    m.case("TIMEOUT", set::TIMEOUT, &bytes([0, 201, 0]), OK);
    ensure!(ipvs.config()? == [1000, 201, 400], "{:?}", ipvs.config()?);
    m.case("TIMEOUT", set::TIMEOUT, &bytes([0, 0, 0]), OK);
    m.case("TIMEOUT", set::TIMEOUT, &bytes([most, most, most]), OK);
    let most = most as u32;
    ensure!(ipvs.config()? == [most; 3], "{:?}", ipvs.config()?);
    m.case("TIMEOUT", set::TIMEOUT, &bytes([900, 120, 300]), OK);
    Ok(())
}

fn daemons(m: &mut Matrix) {
    let bytes = |state: i32, name: &[u8; 16]| {
        let mut b = state.to_ne_bytes().to_vec();
        b.extend(name);
        b.extend(3i32.to_ne_bytes());
        b
    };
    let nobody = crate::sockopt::name16("nosuch0");
    m.case("no name", set::STARTDAEMON, &bytes(1, &[0; 16]), EINVAL);
    m.case(
        "endless name",
        set::STARTDAEMON,
        &bytes(1, &[b'x'; 16]),
        EINVAL,
    );
    // The state is looked at later.
    for state in [1, 2, 0, 7] {
        m.case(
            "unknown interface",
            set::STARTDAEMON,
            &bytes(state, &nobody),
            ENODEV,
        );
    }
    m.case("no master", set::STOPDAEMON, &bytes(1, &nobody), ESRCH);
    m.case("no backup", set::STOPDAEMON, &bytes(2, &[0; 16]), ESRCH);
    for state in [0, 3, -1] {
        m.case("neither", set::STOPDAEMON, &bytes(state, &nobody), EINVAL);
    }
}

fn zero_and_flush(rig: &Rig, opts: &Sockopt, ipvs: &Ipvs) -> Result<()> {
    let must = |number: i32, bytes: &[u8]| -> Result<()> {
        opts.set(number, bytes)
            .map_err(std::io::Error::from_raw_os_error)
            .with_context(|| format!("option {number}"))
    };
    let (vip, real) = (at(Family::V4.vip(), 80), at(Family::V4.raw_rs(1), 8080));
    let (tcp, udp) = (
        Service::new(TCP, v4(vip)?, "rr"),
        Service::new(UDP, v4(vip)?, "wlc"),
    );
    for service in [&tcp, &udp] {
        must(set::ADD, &service.bytes())?;
        must(set::ADDDEST, &Dest::new(v4(real)?, 3).of(service))?;
    }
    let client = at(Family::V4.raw_client(1), 4000);
    rig.forwarded(&Pkt::tcp(client, vip, SYN))?;
    rig.forwarded(&Pkt::udp(client, vip, b"x"))?;
    let counts = |tcp: u64, udp: u64, total: u64| {
        let what = format!("{tcp}, {udp} and {total} connections are counted");
        until_true(&what, 6.0, || {
            Ok(ipvs.service(TCP, vip)?.stats.conns == tcp
                && ipvs.dest(TCP, vip, real)?.stats.conns == tcp
                && ipvs.service(UDP, vip)?.stats.conns == udp
                && proc::totals(&rig.topo.director)?[0] == total)
        })
    };
    counts(1, 1, 2)?;
    must(set::ZERO, &tcp.bytes())?;
    counts(0, 1, 2)?;
    // No service named: all, whatever the protocol says.
    must(set::ZERO, &[0; SERVICE_LEN])?;
    counts(0, 0, 0)?;
    let real6 = at(Family::V6.vip(), 80);
    ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, real6, "rr")))?;
    must(set::FLUSH, &[])?;
    ensure!(ipvs.services()?.is_empty(), "{:?}", ipvs.services()?);
    must(set::FLUSH, &[])
}

/// What one caller hears: FLUSH and an option that is not there, GET_INFO into 12 bytes.
const CALLER: &str = "\
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def call(f):
    try:
        f()
        return 0
    except OSError as e:
        return e.errno
print(call(lambda: s.setsockopt(0, 1157, None, 0)),
      call(lambda: s.setsockopt(0, 1152, None, 0)),
      call(lambda: s.getsockopt(0, 1153, 12)),
      call(lambda: s.getsockopt(0, 1157, 1)),
      call(lambda: s.setsockopt(0, 1168, None, 0)))
";

/// Root of a user namespace may configure the network namespaces that belong to it, no others.
fn permission(rig: &Rig) -> Result<()> {
    let ns = &rig.topo.director;
    let ask = |how: &str| -> Result<Vec<i32>> {
        let text = ns.cmd_stdin(&format!("{how}python3 -"), CALLER)?;
        text.split_whitespace()
            .map(|word| word.parse().context(text.clone()))
            .collect()
    };
    let works = [OK, EINVAL, OK, EINVAL, ENOPROTOOPT];
    let root = ask("")?;
    ensure!(root == works, "root: {root:?}");
    let owner = ask("unshare --user --map-root-user --net ")?;
    ensure!(owner == works, "owner: {owner:?}");
    // Nobody is told more than that.
    let refused = [EPERM, EPERM, EPERM, EPERM, ENOPROTOOPT];
    let guest = ask("unshare --user --map-root-user ")?;
    ensure!(guest == refused, "root of another: {guest:?}");
    let nobody = ask("setpriv --reuid=65534 --clear-groups ")?;
    ensure!(nobody == refused, "nobody: {nobody:?}");
    Ok(())
}

/// Requests that were right once.
fn random(rig: &Rig, opts: &Sockopt, seed: u64) -> Result<()> {
    let mut rng = Rng::new(seed);
    let mut tally = std::collections::BTreeMap::new();
    for _ in 0..5000 {
        let mut service = Service::new(
            [TCP, TCP, UDP, SCTP][rng.below(4)],
            v4(at(Family::V4.vip(), 1000 + rng.below(4) as u16))?,
            ["rr", "wrr", "lc", "wlc", "none"][rng.below(5)],
        );
        if rng.chance(4) {
            service.fwmark = rng.below(3) as u32;
        }
        let server = v4(at(Family::V4.raw_rs(1 + rng.below(4) as u8), 80))?;
        let dest = Dest::new(server, rng.below(4) as i32);
        let mut number = [
            set::ADD,
            set::ADD,
            set::EDIT,
            set::DEL,
            set::ADDDEST,
            set::ADDDEST,
            set::EDITDEST,
            set::DELDEST,
            set::ZERO,
        ][rng.below(9)];
        let mut bytes = match number {
            set::ADDDEST | set::EDITDEST | set::DELDEST => dest.of(&service),
            _ => service.bytes(),
        };
        if rng.chance(3) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.word() as u8;
        }
        if rng.chance(20) {
            number = set::BASE + rng.below(18) as i32;
        }
        // Not the daemons: they start threads.
        if matches!(number, set::STARTDAEMON | set::STOPDAEMON) {
            continue;
        }
        let errno = opts.set(number, &bytes).err().unwrap_or(OK);
        *tally.entry(errno).or_insert(0) += 1;
        if rng.chance(3) {
            let mut buffer = vec![0; 8 + rng.below(400)];
            let len = buffer.len();
            buffer[..16.min(len)].copy_from_slice(&bytes[..16.min(len)]);
            if rng.chance(2) {
                buffer[0] = rng.below(4) as u8;
                buffer[1..4].fill(0);
            }
            let number = get::VERSION + rng.below(9) as i32;
            let errno = opts.get(number, &mut buffer).err().unwrap_or(OK);
            *tally.entry(errno).or_insert(0) += 1;
        }
    }
    println!("answers by errno: {tally:?}");
    ensure!(
        tally.get(&OK).copied().unwrap_or_default() > 500,
        "hardly any was right: {tally:?}"
    );
    ensure!(opts.set(set::FLUSH, &[]).is_ok(), "FLUSH");
    let vip = at(Family::V4.vip(), 80);
    rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
    rig.ipvsadm(&format!("-a -t {vip} -r 10.8.1.77:80 -m"))?;
    let came = rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(7777), 1), vip, SYN))?;
    ensure!(came.dst == Family::V4.raw_rs(77), "{came:?}");
    Ok(())
}
