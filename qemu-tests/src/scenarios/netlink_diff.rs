// SPDX-License-Identifier: GPL-2.0-or-later

//! The same thousands of netlink requests, right, at the limits and wrong, to both modules one after the other: every
//! reply must be the same, byte for byte.
//!
//! Allowed to differ (docs/differences.md):
//! - the extended acknowledgements' texts;
//! - a persistence timeout of more than 2^32 jiffies, which C wraps around;
//! - what rvs refuses because it does not have it yet ([`MISSING`]): C never sees these requests, so that both keep the
//!   same services;
//! - the order in which services are dumped, which hangs on a random key in both.
//!
//! Proves checklist items 2, 3, 4, 6, 8, 9, 10, 11 and 12 (without connections).

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

use super::netlink_fuzz::request;
use crate::genl::{genl_header, Attrs, Msg, Reply, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ipvs::{cmd, dest, for_dest, for_svc, svc, svc_id, top, Ipvs};
use crate::modules;
use crate::ns::Ns;
use crate::proc;
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::wait::slow;

pub const SCENARIO: Scenario = Scenario::new(
    "netlink_diff",
    "thousands of netlink requests, answered by both modules alike",
    &[],
    run,
)
.partly(&[2, 3, 4, 6, 8, 9, 10, 11, 12])
.only_peer(Peer::Rvs, "it is about both modules")
.own_modules()
.timeout(120.0);

/// How rvs explains EOPNOTSUPP for what C has.
const MISSING: &[&str] = &["persistence engines are not supported"];

/// A request as it goes out.
struct Request {
    flags: u16,
    payload: Vec<u8>,
}

/// What is compared of a reply.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    errno: i32,
    msgs: Vec<(u16, u8, u8, Vec<u8>)>,
}

impl Answer {
    fn of(reply: &Reply, sort: bool) -> Self {
        let part = |m: &Msg| (m.flags, m.cmd, m.version, m.attrs.clone());
        let mut msgs: Vec<_> = reply.msgs.iter().map(part).collect();
        if sort {
            msgs.sort();
        }
        Self {
            errno: reply.errno,
            msgs,
        }
    }
}

/// One of them.
fn any<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.below(all.len())]
}

/// Half of the time what it was, else one of the others.
fn or<T: Copy>(rng: &mut Rng, usual: T, others: &[T]) -> T {
    if rng.chance(2) {
        any(rng, others)
    } else {
        usual
    }
}

/// Addresses of all kinds, in 16 bytes.
const ADDRS: &[[u8; 16]] = &[
    [0; 16],
    [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [10, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
    [224, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [240, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1],
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 0x01, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];

/// A request whose attributes are all well formed, many of them at a limit.
fn edge(rng: &mut Rng) -> (u8, Attrs) {
    let af = or(rng, 2, &[0, 1, 2, 10, 10, 10, 11, 0xffff]);
    let mut service = Attrs::new().u16(svc::AF, af);
    if rng.chance(3) {
        service = service.u32(svc::FWMARK, any(rng, &[0, 1, 2, u32::MAX]));
    }
    if !rng.chance(8) {
        let width = or(rng, 16, &[0, 1, 4, 15, 16]);
        service = service
            .u16(svc::PROTOCOL, or(rng, 6, &[0, 17, 132, 255, 256, 0xffff]))
            .put(svc::ADDR, &any(rng, &ADDRS[..4])[..width])
            .u16(svc::PORT, any(rng, &[0, 1, 21u16.to_be(), 0xffff]));
    }
    if !rng.chance(20) {
        let mut flags = any(rng, &[0u32, 1, 2, 4, 0x38, u32::MAX])
            .to_ne_bytes()
            .to_vec();
        flags.extend(any(rng, &[0u32, 1, 5, 0x38, u32::MAX]).to_ne_bytes());
        flags.truncate(or(rng, 8, &[0, 3, 4, 7, 8]));
        let sched = or(
            rng,
            "rr",
            &["", "wrr", "lc", "wlc", "none", "a23456789012345"],
        );
        service = service
            .text(svc::SCHED_NAME, sched)
            .put(svc::FLAGS, &flags)
            .u32(svc::TIMEOUT, any(rng, &[0, 1, 300, 360_000]))
            .u32(svc::NETMASK, any(rng, &[0, 1, 64, 128, 129, u32::MAX]));
    }
    if rng.chance(6) {
        service = service.text(svc::PE_NAME, any(rng, &["", "nosuch", "a234567890123456"]));
    }
    let mut server = Attrs::new();
    if !rng.chance(10) {
        let width = or(rng, 16, &[0, 1, 4, 15, 16]);
        server = server
            .put(dest::ADDR, &any(rng, ADDRS)[..width])
            .u16(dest::PORT, any(rng, &[0, 1, 0xffff]));
    }
    if !rng.chance(10) {
        let limits = [0, 1, 2, i32::MAX as u32, 1 << 31, u32::MAX];
        server = server
            .u32(
                dest::FWD_METHOD,
                or(rng, 0, &[0, 1, 2, 3, 4, 7, 8, u32::MAX << 3]),
            )
            .u32(dest::WEIGHT, any(rng, &limits))
            .u32(dest::U_THRESH, or(rng, 0, &limits))
            .u32(dest::L_THRESH, or(rng, 0, &limits));
    }
    if rng.chance(3) {
        server = server.u16(dest::ADDR_FAMILY, any(rng, &[0, 2, 10, 3, 0xffff]));
    }
    if rng.chance(3) {
        server = server
            .u8(dest::TUN_TYPE, any(rng, &[0, 1, 2, 3, 255]))
            .u16(dest::TUN_PORT, any(rng, &[0, 1, 0xffff]))
            .u16(dest::TUN_FLAGS, any(rng, &[0, 1, 2, 3, 0xffff]));
    }
    let command = any(
        rng,
        &[
            cmd::NEW_SERVICE,
            cmd::NEW_SERVICE,
            cmd::SET_SERVICE,
            cmd::DEL_SERVICE,
            cmd::GET_SERVICE,
            cmd::NEW_DEST,
            cmd::NEW_DEST,
            cmd::SET_DEST,
            cmd::DEL_DEST,
            cmd::GET_DEST,
            cmd::SET_CONFIG,
            cmd::GET_CONFIG,
            cmd::GET_INFO,
            cmd::ZERO,
        ],
    );
    let mut attrs = for_dest(&service, &server);
    if command == cmd::SET_CONFIG {
        // At any tick rate on the same side of the limit.
        let secs = [0, 1, 2_000_000, 1 << 31, u32::MAX, i32::MAX as u32];
        for kind in [top::TIMEOUT_TCP, top::TIMEOUT_TCP_FIN, top::TIMEOUT_UDP] {
            if rng.chance(2) {
                attrs = attrs.u32(kind, any(rng, &secs));
            }
        }
    }
    (command, attrs)
}

fn requests(seed: u64, n: usize) -> Vec<Request> {
    let mut rng = Rng::new(seed);
    let mut out = Vec::new();
    for _ in 0..n {
        let well_formed = rng.chance(2);
        let (mut command, attrs) = if well_formed {
            edge(&mut rng)
        } else {
            request(&mut rng)
        };
        if rng.chance(100) {
            // Of the daemons' commands only what does not start any.
            command = [0, 14, 21, 63, 255][rng.below(5)];
        }
        let version = if rng.chance(20) { rng.word() as u8 } else { 1 };
        let mut payload = genl_header(command, version).to_vec();
        payload.extend(&attrs.0);
        if !well_formed && rng.chance(10) && payload.len() > 4 {
            let at = 4 + rng.below(payload.len() - 4);
            payload[at] = rng.word() as u8;
        }
        if !well_formed && rng.chance(30) {
            payload.truncate(rng.below(payload.len() + 1));
        }
        let wants_dump = [cmd::GET_DEST, cmd::GET_DAEMON].contains(&command);
        let dump = if rng.chance(8) || wants_dump {
            NLM_F_DUMP
        } else {
            0
        };
        out.push(Request {
            flags: NLM_F_REQUEST | NLM_F_ACK | dump,
            payload,
        });
        // What is there now, asked for as a client would.
        if rng.chance(50) {
            out.push(Request {
                flags: NLM_F_REQUEST | NLM_F_ACK | NLM_F_DUMP,
                payload: genl_header(cmd::GET_SERVICE, 1).to_vec(),
            });
        }
    }
    out
}

/// Asks all of it. What rvs does not have is `None`; C is not asked for it.
fn play(requests: &[Request], skip: Option<&[Option<Answer>]>) -> Result<Vec<Option<Answer>>> {
    let ns = Ns::new("director")?;
    let ipvs = Ipvs::open(&ns)?;
    let mut answers = Vec::new();
    for (n, request) in requests.iter().enumerate() {
        if skip.is_some_and(|skip| skip[n].is_none()) {
            answers.push(None);
            continue;
        }
        let reply = ipvs
            .genl
            .request_bytes(ipvs.family, request.flags, &request.payload)?;
        let missing = reply.errno == libc::EOPNOTSUPP
            && reply.text.as_deref().is_some_and(|t| MISSING.contains(&t));
        if missing && skip.is_none() {
            answers.push(None);
            continue;
        }
        let services = request.payload.first() == Some(&cmd::GET_SERVICE)
            && request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let mut answer = Answer::of(&reply, services);
        // Between two datagrams of a dump the table may be resized, which leaves some out or repeats them, in C too.
        let mut settled = !services;
        while !settled {
            let reply = ipvs
                .genl
                .request_bytes(ipvs.family, request.flags, &request.payload)?;
            let again = Answer::of(&reply, true);
            settled = again == answer;
            answer = again;
        }
        answers.push(Some(answer));
    }
    // All that is left, with its destinations.
    let mut services = ipvs.services()?;
    services.sort_by_key(|s| (s.af, s.proto, s.vip, s.fwmark));
    for service in services {
        let id = match service.vip {
            Some(vip) => svc_id(0, vip).with(svc::PROTOCOL, &service.proto.to_ne_bytes()),
            None => Attrs::new()
                .u16(svc::AF, service.af)
                .u32(svc::FWMARK, service.fwmark),
        };
        for (command, dump) in [(cmd::GET_SERVICE, false), (cmd::GET_DEST, true)] {
            let reply = if dump {
                ipvs.dump(command, &for_svc(&id))?
            } else {
                ipvs.call(command, &for_svc(&id))?
            };
            answers.push(Some(Answer::of(&reply, false)));
        }
    }
    Ok(answers)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|b| format!("{b:02x}"));
    digits.collect::<Vec<_>>().concat()
}

/// Puts C's persistence timeouts where rvs has the longest there is. Returns whether there was any.
fn forgive_timeouts(rvs: &mut Answer, c: &Answer, most: [u8; 4]) -> bool {
    let header = [8u16.to_ne_bytes(), svc::TIMEOUT.to_ne_bytes()].concat();
    let want = [&header[..], &most].concat();
    let mut found = false;
    for (one, other) in rvs.msgs.iter_mut().zip(&c.msgs) {
        let at = one.3.windows(want.len()).position(|w| w == want);
        let Some(at) = at.map(|at| at + header.len()) else {
            continue;
        };
        if let (Some(to), Some(from)) = (one.3.get_mut(at..at + 4), other.3.get(at..at + 4)) {
            found |= to != from;
            to.copy_from_slice(from);
        }
    }
    found
}

fn run(cx: &Cx) -> Result<()> {
    let n = if slow() > 5.0 { 2_000 } else { 20_000 };
    let requests = requests(cx.seed, n);
    cx.modules.load()?;
    let mut rvs = play(&requests, None).context("asking rvs")?;
    cx.modules.unload()?;
    modules::load_c()?;
    let c = play(&requests, Some(&rvs)).context("asking ip_vs");
    modules::unload_c()?;
    let c = c?;

    let most = (u32::MAX / proc::hz()?).to_ne_bytes();
    let mut tally = BTreeMap::new();
    let (mut missing, mut wrapped) = (0, 0);
    let mut wrong = Vec::new();
    for (n, (rvs, c)) in rvs.iter_mut().zip(&c).enumerate() {
        let (Some(rvs), Some(c)) = (rvs, c) else {
            missing += 1;
            continue;
        };
        *tally.entry(c.errno).or_insert(0_usize) += 1;
        wrapped += usize::from(rvs != c && forgive_timeouts(rvs, c, most));
        if rvs != c {
            let asked = requests.get(n).map(|r| (r.flags, hex(&r.payload)));
            let only = |one: &Answer, other: &Answer| {
                let mut text = format!("errno {}", one.errno);
                for msg in one.msgs.iter().filter(|m| !other.msgs.contains(m)) {
                    text += &format!(" {:?} {}", (msg.0, msg.1, msg.2), hex(&msg.3));
                }
                text
            };
            wrong.push(format!(
                "request {n} {asked:?}\nrvs alone: {}\nC alone: {}",
                only(rvs, c),
                only(c, rvs)
            ));
        }
    }
    println!(
        "answers by errno: {tally:?}, not asked of C: {missing}, with wrapped timeouts: {wrapped}"
    );
    ensure!(
        wrong.is_empty(),
        "{} of {} answers differ; the first:\n{}",
        wrong.len(),
        c.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    ensure!(
        rvs.len() == c.len() && rvs.len() > requests.len(),
        "{} and {} answers to {} requests and for what is left",
        rvs.len(),
        c.len(),
        requests.len()
    );
    let right = tally.get(&0).copied().unwrap_or_default();
    ensure!(
        right > n / 10 && missing < n / 2,
        "{right} of {n} requests were right, {missing} not there yet"
    );
    Ok(())
}
