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

use crate::genl::{Attrs, Msg, Reply};
use crate::ipvs::{cmd, for_svc, svc, svc_id, Ipvs};
use crate::modules;
use crate::ns::Ns;
use crate::proc;
use crate::requests::Request;
use crate::scenario::{Cx, Peer, Rng, Scenario};
use crate::wait::rounds;

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

fn requests(seed: u64, n: usize) -> Vec<Request> {
    let mut rng = Rng::new(seed);
    let mut out = Vec::new();
    for _ in 0..n {
        out.push(Request::any(&mut rng, true));
        // What is there now.
        if rng.chance(50) {
            out.push(Request::services());
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
        let services = request.dumps_services();
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
    let n = rounds(20_000);
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
