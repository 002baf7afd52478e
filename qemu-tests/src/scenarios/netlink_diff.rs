// SPDX-License-Identifier: GPL-2.0-or-later

//! The same thousands of netlink requests, right, at the limits and wrong, to both modules one after the other: every
//! reply must be the same, byte for byte.
//!
//! Allowed to differ:
//! - the extended acknowledgements' texts;
//! - what rvs refuses because it does not have it yet ([`MISSING`]): C never sees these requests, so that both keep the
//!   same services;
//! - the order in which services are dumped, which hangs on a random key in both.
//!
//! Proves checklist items 2, 3, 4, 6, 8, 9, 10, 11 and 12 (without connections).

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

use super::netlink_fuzz::request;
use crate::genl::{genl_header, Attrs, Msg, Reply, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::ipvs::{cmd, for_svc, svc, svc_id, Ipvs};
use crate::modules;
use crate::ns::Ns;
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
const MISSING: &[&str] = &[
    "persistence is not supported",
    "one-packet scheduling is not supported",
    "persistence engines are not supported",
    "this forwarding method is not supported, only NAT is",
];

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

fn requests(seed: u64, n: usize) -> Vec<Request> {
    let mut rng = Rng::new(seed);
    let mut out = Vec::new();
    for _ in 0..n {
        let (mut command, attrs) = request(&mut rng);
        if rng.chance(100) {
            // Of the daemons' commands only what does not start any.
            command = [0, 14, 18, 63, 255][rng.below(5)];
        }
        let version = if rng.chance(20) { rng.word() as u8 } else { 1 };
        let mut payload = genl_header(command, version).to_vec();
        payload.extend(&attrs.0);
        if rng.chance(10) && payload.len() > 4 {
            let at = 4 + rng.below(payload.len() - 4);
            payload[at] = rng.word() as u8;
        }
        if rng.chance(30) {
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
        answers.push(Some(Answer::of(&reply, services)));
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

fn run(cx: &Cx) -> Result<()> {
    let n = if slow() > 5.0 { 2_000 } else { 20_000 };
    let requests = requests(cx.seed, n);
    cx.modules.load()?;
    let rvs = play(&requests, None).context("asking rvs")?;
    cx.modules.unload()?;
    modules::load_c()?;
    let c = play(&requests, Some(&rvs)).context("asking ip_vs");
    modules::unload(&["ip_vs_wlc", "ip_vs_lc", "ip_vs_wrr", "ip_vs_rr", "ip_vs"])?;
    let c = c?;

    let mut tally = BTreeMap::new();
    let mut missing = 0;
    let mut wrong = Vec::new();
    for (n, (rvs, c)) in rvs.iter().zip(&c).enumerate() {
        let (Some(rvs), Some(c)) = (rvs, c) else {
            missing += 1;
            continue;
        };
        *tally.entry(c.errno).or_insert(0_usize) += 1;
        if rvs != c {
            let asked = requests.get(n).map(|r| (r.flags, r.payload.clone()));
            wrong.push(format!("request {n} {asked:?}\nrvs {rvs:?}\nC   {c:?}"));
        }
    }
    println!("answers by errno: {tally:?}, not asked of C: {missing}");
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
