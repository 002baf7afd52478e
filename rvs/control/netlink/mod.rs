// SPDX-License-Identifier: GPL-2.0-only

//! The generic netlink family `IPVS`: what ipvsadm and keepalived talk to.
//!
//! Commands, attributes, order of checks and error numbers are C's (`ip_vs_genl_set_cmd()`, `ip_vs_genl_get_cmd()`, the
//! dumps); beyond that each refusal has a text.

mod conns;
mod daemon;
pub(crate) mod events;
mod fill;
mod local;
mod parse;

use super::{
    common::Timeouts,
    Control, //
};
use crate::{
    netns::{
        self,
        Netns, //
    },
    os::{
        genl::{
            self,
            Command,
            Dump,
            Group,
            Handler,
            Published,
            Request,
            Strict, //
        },
        net::Net,
        nlattr::{
            Policy,
            Rule, //
        },
        pernet,
        rcu, //
    },
    refusal::Refusal,
    service::{
        extras::TunnelExtras,
        Service, //
    }, //
};
use kernel::{
    prelude::*,
    str::CStr,
    sync::{
        Arc,
        SetOnce, //
    }, //
};
use parse::Parser;
use rvs_core::uapi::{
    attr,
    cmd,
    daemon_state,
    ext,
    info_attr,
    VERSION_CODE, //
};

/// The family; it knows the namespaces as soon as they are there.
pub(crate) struct Family {
    namespaces: SetOnce<Arc<pernet::Registration<Control>>>,
}

/// Rules for the top-level attributes.
static POLICY: Policy<{ attr::MAX as usize + 1 }> = [
    Rule::ANY,
    Rule::NESTED, // SERVICE
    Rule::NESTED, // DEST
    Rule::NESTED, // DAEMON
    Rule::U32,    // TIMEOUT_TCP
    Rule::U32,    // TIMEOUT_TCP_FIN
    Rule::U32,    // TIMEOUT_UDP
    Rule::NESTED, // LADDR
];

/// Rules for the attributes of GET_CONN; an attribute without a rule is refused.
static GET_CONN_POLICY: Policy<{ ext::attr::CONN as usize + 1 }> = {
    let mut policy = [const { Rule::ANY }; ext::attr::CONN as usize + 1];
    policy[attr::SERVICE as usize] = Rule::NESTED;
    policy[ext::attr::CONN as usize] = Rule::NESTED;
    policy
};

/// No attributes at all.
static NO_ATTRS: Policy<1> = [Rule::ANY];

/// Where those find the family who announce something.
static FAMILY: Published = Published::new();

impl Handler for Family {
    const NAME: &'static CStr = c"IPVS";
    const VERSION: u32 = 1;
    const RESERVED_FROM: u8 = cmd::GET_LADDR + 1;
    const POLICY: &'static [Rule] = &POLICY;
    const COMMANDS: &'static [Command] = &[
        Command::doing::<Self>(cmd::NEW_SERVICE),
        Command::doing::<Self>(cmd::SET_SERVICE),
        Command::doing::<Self>(cmd::DEL_SERVICE),
        Command::both::<Self>(cmd::GET_SERVICE),
        Command::doing::<Self>(cmd::NEW_DEST),
        Command::doing::<Self>(cmd::SET_DEST),
        Command::doing::<Self>(cmd::DEL_DEST),
        Command::dumping::<Self>(cmd::GET_DEST),
        Command::doing::<Self>(cmd::NEW_DAEMON),
        Command::doing::<Self>(cmd::DEL_DAEMON),
        Command::dumping::<Self>(cmd::GET_DAEMON),
        Command::doing::<Self>(cmd::SET_CONFIG),
        Command::doing::<Self>(cmd::GET_CONFIG),
        Command::doing::<Self>(cmd::GET_INFO),
        Command::doing::<Self>(cmd::ZERO),
        Command::doing::<Self>(cmd::FLUSH),
        Command::doing::<Self>(cmd::NEW_LADDR),
        Command::doing::<Self>(cmd::DEL_LADDR),
        Command::dumping::<Self>(cmd::GET_LADDR),
    ];
    const STRICT: &'static [Strict] = &[
        Strict::dumping::<Self, _>(ext::cmd::GET_CONN, &GET_CONN_POLICY),
        Strict::doing::<Self, _>(ext::cmd::GET_EVENTS, &NO_ATTRS),
    ];
    const GROUPS: &'static [Group] = &[
        Group::new(ext::group::CONFIG), // events::CONFIG
        Group::new(ext::group::CONNS),  // events::CONNS
    ];

    fn published() -> &'static Published {
        &FAMILY
    }

    fn command(&self, request: &Request<'_>) -> Result {
        let control = self.control(request)?;
        match request.number() {
            cmd::NEW_SERVICE | cmd::SET_SERVICE | cmd::DEL_SERVICE => service(control, request),
            cmd::NEW_DEST | cmd::SET_DEST | cmd::DEL_DEST => dest(control, request),
            cmd::GET_SERVICE => get_service(control, request),
            cmd::SET_CONFIG => set_config(control, request),
            cmd::GET_CONFIG => get_config(control, request),
            cmd::GET_INFO => get_info(control, request),
            cmd::ZERO => zero(control, request),
            cmd::FLUSH => {
                control.flush();
                Ok(())
            }
            cmd::NEW_DAEMON | cmd::DEL_DAEMON => daemon::change(control, request),
            ext::cmd::GET_EVENTS => get_events(control, request),
            cmd::NEW_LADDR | cmd::DEL_LADDR => local::change(control, request),
            _ => Err(request.refuse(EINVAL, c"unknown command", None)),
        }
    }

    fn dump(&self, dump: &mut Dump<'_>) -> Result {
        let Some(control) = self.namespaces().and_then(|all| all.get(dump.net())) else {
            return Err(EAGAIN);
        };
        match dump.number() {
            cmd::GET_SERVICE => dump_services(control, dump),
            cmd::GET_DEST => dump_dests(control, dump),
            ext::cmd::GET_CONN => return conns::dump(control.netns(), dump),
            cmd::GET_LADDR => local::dump(control, dump),
            cmd::GET_DAEMON => daemon::dump(control, dump),
            _ => {}
        }
        Ok(())
    }

    fn joins(&self, group: usize, net: &Net) {
        // The owner of another user namespace must not make all namespaces work.
        if genl::is_host_admin() {
            events::joined(group);
        }
        if let Some(control) = self.namespaces().and_then(|all| all.get(net)) {
            control.netns().events.wake(group);
        }
    }
}

impl Family {
    /// Makes a family that does not know the namespaces yet.
    pub(crate) fn new() -> Self {
        Self {
            namespaces: SetOnce::new(),
        }
    }

    /// Makes the namespaces known.
    pub(crate) fn start(&self, namespaces: Arc<pernet::Registration<Control>>) {
        self.namespaces.populate(namespaces);
    }

    fn namespaces(&self) -> Option<&pernet::Registration<Control>> {
        self.namespaces.as_ref().map(|all| &**all)
    }

    /// The namespace that a request is about.
    fn control<'a>(&'a self, request: &Request<'a>) -> Result<&'a Control> {
        self.namespaces()
            .and_then(|all| all.get(request.net()))
            .ok_or_else(|| request.refuse(EAGAIN, c"the module is being loaded", None))
    }
}

/// Explains a refusal to the client.
fn explain(request: &Request<'_>, refusal: Refusal) -> Error {
    request.refuse(refusal.error, refusal.text, None)
}

/// The answer to a request about a service that is not there.
fn no_service(request: &Request<'_>) -> Error {
    request.refuse(ESRCH, c"no such service", request.attr(attr::SERVICE))
}

/// The service that the request names.
#[inline(never)]
fn service_of<'a>(
    netns: &Netns,
    parser: &Parser<'a>,
    request: &Request<'a>,
) -> Result<Arc<Service>> {
    let args = parser.service(request.attr(attr::SERVICE), false)?;
    netns.find(&args.id).ok_or_else(|| no_service(request))
}

/// NEW_SERVICE, SET_SERVICE, DEL_SERVICE.
#[inline(never)]
fn service(control: &Control, request: &Request<'_>) -> Result {
    let netns = control.netns();
    let parser = Parser::new(request.explain());
    netns.configure(|config| {
        let full = request.number() != cmd::DEL_SERVICE;
        let args = parser.service(request.attr(attr::SERVICE), full)?;
        let found = netns.find(&args.id);
        match (request.number(), found) {
            (cmd::NEW_SERVICE, None) => {
                let settings = parser.service_settings(&args, 0)?;
                let extras = parser
                    .tunnel_extras(&args, TunnelExtras::default())?
                    .prepare()?;
                let options = local::options(request, &args.id, None)?;
                netns
                    .add_service(config, &args.id, &settings)
                    .map_err(|refusal| explain(request, refusal))?;
                if let Some(service) = netns.find(&args.id) {
                    service.set_tunnel_extras(extras);
                    service.fullnat.set_options(options);
                }
                control.has_service();
                control.has_scheduler(settings.scheduler);
                Ok(())
            }
            (cmd::NEW_SERVICE, Some(_)) => Err(request.refuse(
                EEXIST,
                c"the service is there already",
                request.attr(attr::SERVICE),
            )),
            (_, None) => Err(no_service(request)),
            (cmd::SET_SERVICE, Some(service)) => {
                let settings = parser.service_settings(&args, service.flags())?;
                let extras = rcu::read(|g| service.tunnel_extras(g).copied().unwrap_or_default());
                let extras = parser.tunnel_extras(&args, extras)?.prepare()?;
                let options = local::options(request, &args.id, Some(&service))?;
                netns
                    .edit_service(config, &service, &settings)
                    .map_err(|refusal| explain(request, refusal))?;
                service.set_tunnel_extras(extras);
                service.fullnat.set_options(options);
                control.has_scheduler(settings.scheduler);
                Ok(())
            }
            (_, Some(service)) => {
                netns.remove_service(config, &service);
                control.lost_dest();
                Ok(())
            }
        }
    })
}

/// NEW_DEST, SET_DEST, DEL_DEST.
#[inline(never)]
fn dest(control: &Control, request: &Request<'_>) -> Result {
    let netns = control.netns();
    let parser = Parser::new(request.explain());
    netns.configure(|config| {
        let service = service_of(netns, &parser, request)?;
        let nest = request.attr(attr::DEST);
        let full = request.number() != cmd::DEL_DEST;
        let has_daemon = netns.daemons() != daemon_state::NONE;
        let (id, settings) = parser.whole_dest(nest, full, service.id().family, has_daemon)?;

        let found = service.find(&id);
        let done = match (settings, found) {
            (Some(settings), Some(found)) if request.number() == cmd::SET_DEST => {
                netns.edit_dest(config, &service, found, &settings)
            }
            (Some(settings), None) if request.number() == cmd::NEW_DEST => {
                control.has_dest();
                netns.add_dest(config, &service, &id, &settings)
            }
            (Some(_), Some(_)) => {
                return Err(request.refuse(EEXIST, c"the destination is there already", nest))
            }
            (None, Some(found)) => {
                let done = netns.remove_dest(config, &service, found);
                control.lost_dest();
                done
            }
            (_, None) => return Err(request.refuse(ENOENT, c"no such destination", nest)),
        };
        done.map_err(|refusal| explain(request, refusal))
    })
}

/// ZERO: one service, or everything.
#[inline(never)]
fn zero(control: &Control, request: &Request<'_>) -> Result {
    let netns = control.netns();
    if request.attr(attr::SERVICE).is_none() {
        netns.configure(|config| netns.zero(config));
        return Ok(());
    }
    netns.configure(|_| {
        let service = service_of(netns, &Parser::new(request.explain()), request)?;
        rcu::read(|g| service.zero(g));
        Ok(())
    })
}

/// SET_CONFIG: timeouts; C `ip_vs_set_timeout()`.
#[inline(never)]
fn set_config(control: &Control, request: &Request<'_>) -> Result {
    let read = |number| {
        let Some(attr) = request.attr(number) else {
            return Ok(None);
        };
        Timeouts::parse(attr.u32() as i32)
            .map_err(|_| request.refuse(EINVAL, c"timeout out of range", Some(attr)))
    };
    let timeouts = Timeouts {
        tcp: read(attr::TIMEOUT_TCP)?,
        tcp_fin: read(attr::TIMEOUT_TCP_FIN)?,
        udp: read(attr::TIMEOUT_UDP)?,
    };
    timeouts.set(control.netns());
    Ok(())
}

/// GET_CONFIG.
#[inline(never)]
fn get_config(control: &Control, request: &Request<'_>) -> Result {
    let timeouts = Timeouts::of(control.netns());
    request.reply(cmd::SET_CONFIG)?.send(|msg| {
        msg.u32(attr::TIMEOUT_TCP, timeouts.tcp)?;
        msg.u32(attr::TIMEOUT_TCP_FIN, timeouts.tcp_fin)?;
        msg.u32(attr::TIMEOUT_UDP, timeouts.udp)
    })
}

/// GET_INFO.
#[inline(never)]
fn get_info(control: &Control, request: &Request<'_>) -> Result {
    request.reply(cmd::SET_INFO)?.send(|msg| {
        msg.u32(info_attr::VERSION, VERSION_CODE)?;
        msg.u32(info_attr::CONN_TAB_SIZE, control.netns().conn_tab_size())
    })
}

/// GET_SERVICE of one service.
#[inline(never)]
fn get_service(control: &Control, request: &Request<'_>) -> Result {
    let parser = Parser::new(request.explain());
    let service = service_of(control.netns(), &parser, request)?;
    request
        .reply(cmd::NEW_SERVICE)?
        .send(|msg| fill::service(msg, &service))
}

/// GET_SERVICE of all, chain after chain.
///
/// The next call goes on in the chain where this one stopped, or, if the table was resized meanwhile, after as many
/// services as went out before. So changes meanwhile may repeat one or leave one out, as in C.
#[inline(never)]
fn dump_services(control: &Control, dump: &mut Dump<'_>) {
    let [mut sent, first, mut sent_of_chain, chains] = dump.place();
    control.netns().with_stable_services(|services| {
        let now = rcu::read(|g| services.chains(g));
        let same = chains == now;
        let (first, mut skip) = if same {
            (first, sent_of_chain)
        } else {
            (0, sent)
        };
        let mut chain = first;
        sent_of_chain = 0;
        services.each(first, |index, service, _| {
            if index != chain {
                chain = index;
                sent_of_chain = 0;
                if same {
                    skip = 0;
                }
            }
            if skip > 0 {
                skip = skip.wrapping_sub(1);
                sent_of_chain = sent_of_chain.wrapping_add(1);
                return true;
            }
            let written = dump.message(cmd::NEW_SERVICE, |msg| fill::service(msg, service));
            if written.is_ok() {
                sent = sent.wrapping_add(1);
                sent_of_chain = sent_of_chain.wrapping_add(1);
            }
            written.is_ok()
        });
        dump.set_place([sent, chain, sent_of_chain, now]);
    });
}

/// GET_DEST: the destinations of a service; none if the request is wrong or there is no such service, as in C.
#[inline(never)]
fn dump_dests(control: &Control, dump: &mut Dump<'_>) {
    let Ok(attrs) = dump.attrs(&POLICY) else {
        return;
    };
    let Ok(args) = Parser::new(dump.explain()).service(attrs.get(attr::SERVICE), false) else {
        return;
    };
    let Some(service) = control.netns().find(&args.id) else {
        return;
    };
    let [start, ..] = dump.place();
    let mut sent = start;
    rcu::read(|g| {
        let Some(backends) = service.backends(g) else {
            return;
        };
        for dest in backends.dests().iter().skip(start) {
            if dump
                .message(cmd::NEW_DEST, |msg| fill::dest(msg, dest))
                .is_err()
            {
                break;
            }
            sent = sent.saturating_add(1);
        }
    });
    dump.set_place([sent, 0, 0, 0]);
}

/// GET_EVENTS.
#[inline(never)]
fn get_events(control: &Control, request: &Request<'_>) -> Result {
    let numbers = control.netns().events.numbers();
    request.reply(ext::cmd::EVENTS)?.send(|msg| {
        msg.u64(ext::attr::CONFIG_SEQ, numbers.config, ext::attr::PAD)?;
        msg.u64(ext::attr::CONN_SEQ, numbers.conns, ext::attr::PAD)?;
        msg.u64(ext::attr::LOST, numbers.lost, ext::attr::PAD)
    })
}

/// Parses an address family, or says why not.
fn family(
    explain: &crate::os::genl::Explain<'_>,
    attr: crate::os::nlattr::Attr<'_>,
) -> Result<rvs_core::addr::Family> {
    netns::family_of(attr.u16())
        .ok_or_else(|| explain.refuse(EAFNOSUPPORT, c"address family not supported", Some(attr)))
}
