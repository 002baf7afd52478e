// SPDX-License-Identifier: GPL-2.0-only

//! Local addresses of a service and what belongs to them: FullNAT.
//!
//! Commands and the first attributes have the numbers of Alibaba's fork; what it has not is from 72 on.

use super::{
    no_service,
    parse::Parser,
    Control, //
};
use crate::{
    os::{
        genl::{
            Dump,
            Request, //
        },
        nlattr::Attr,
        nlmsg::Writer,
        rcu, //
    },
    service::{
        self,
        pool::{
            Carry,
            IfName,
            Local,
            Options,
            Prefix,
            Prepared, //
        },
        Service, //
    },
};
use kernel::{
    prelude::*,
    str::CStr, //
};
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    fullnat::{
        ports::Range,
        proxy::Version,
        toa, //
    },
    proto::{
        IPPROTO_TCP,
        IPPROTO_UDP, //
    },
    uapi::{
        attr,
        cmd,
        laddr_attr,
        svc_fullnat, //
    },
};

/// A number of `N` bytes inside an attribute, as it lies in memory.
fn number<const N: usize>(
    request: &Request<'_>,
    nest: Attr<'_>,
    kind: u16,
) -> Result<Option<[u8; N]>> {
    match nest.find_inside(kind) {
        None => Ok(None),
        Some(bytes) => match bytes.first_chunk() {
            Some(value) => Ok(Some(*value)),
            None => {
                Err(request.refuse(ERANGE, c"an attribute of FullNAT is too short", Some(nest)))
            }
        },
    }
}

/// What a request says about a service's FullNAT: `None` if nothing. `service` is the one that is there.
#[inline(never)]
pub(super) fn options(
    request: &Request<'_>,
    id: &service::Id,
    service: Option<&Service>,
) -> Result<Option<Prepared>> {
    let Some(nest) = request.attr(attr::SERVICE) else {
        return Ok(None);
    };
    let old = service.map_or(Options::NONE, |service| service.fullnat.options());
    let refuse = |text: &'static CStr| request.refuse(EINVAL, text, Some(nest));

    let toa = number::<1>(request, nest, svc_fullnat::TOA_KIND)?;
    let syn = number::<1>(request, nest, svc_fullnat::TOA_SYN)?;
    let proxy = number::<1>(request, nest, svc_fullnat::PROXY)?;
    let min = number::<2>(request, nest, svc_fullnat::PORT_MIN)?;
    let max = number::<2>(request, nest, svc_fullnat::PORT_MAX)?;
    if toa.is_none() && syn.is_none() && proxy.is_none() && min.is_none() && max.is_none() {
        return Ok(None);
    }

    let (old_kind, old_syn, old_proxy) = match old.carry {
        Carry::Nothing => (0, false, None),
        Carry::Toa { kind, on_syn } => (kind, on_syn, None),
        Carry::Proxy(version) => (0, false, Some(version)),
    };
    let kind = toa.map_or(old_kind, |[kind]| kind);
    let on_syn = syn.map_or(old_syn, |[on]| on != 0);
    let version = match proxy {
        None => old_proxy,
        Some([0]) => None,
        Some([version]) => Some(
            Version::from_number(version)
                .ok_or_else(|| refuse(c"the PROXY protocol has versions 1 and 2"))?,
        ),
    };
    if kind != 0 && !toa::is_free(kind) {
        return Err(refuse(c"the kind of TCP option means something else"));
    }
    let carry = match (kind, version) {
        (0, None) if on_syn => return Err(refuse(c"an option on SYNs needs its kind")),
        (0, None) => Carry::Nothing,
        (kind, None) => Carry::Toa { kind, on_syn },
        (0, Some(version)) => Carry::Proxy(version),
        (_, Some(_)) => {
            return Err(refuse(
                c"the TCP option and the PROXY protocol exclude each other",
            ))
        }
    };
    if id.fwmark == 0 {
        let proto = id.protocol;
        match carry {
            Carry::Toa { .. } if proto != u16::from(IPPROTO_TCP) => {
                return Err(refuse(c"the option is one of TCP"));
            }
            Carry::Proxy(Version::One) if proto != u16::from(IPPROTO_TCP) => {
                return Err(refuse(c"version 1 of the PROXY protocol is for TCP only"));
            }
            Carry::Proxy(Version::Two)
                if proto != u16::from(IPPROTO_TCP) && proto != u16::from(IPPROTO_UDP) =>
            {
                return Err(refuse(c"the PROXY protocol is for TCP and UDP only"));
            }
            _ => {}
        }
    }
    let min = min.map_or(old.ports.min(), u16::from_ne_bytes);
    let max = max.map_or(old.ports.max(), u16::from_ne_bytes);
    let ports = Range::new(min, max)
        .ok_or_else(|| refuse(c"local ports are 1 to 65535, the lowest before the highest"))?;
    Ok(Some(Options { ports, carry }.prepare()?))
}

/// NEW_LADDR, DEL_LADDR.
#[inline(never)]
pub(super) fn change(control: &Control, request: &Request<'_>) -> Result {
    let netns = control.netns();
    let parser = Parser::new(request.explain());
    netns.configure(|config| {
        let args = parser.service(request.attr(attr::SERVICE), false)?;
        let service = netns.find(&args.id).ok_or_else(|| no_service(request))?;
        let nest = request
            .attr(attr::LADDR)
            .ok_or_else(|| request.refuse(EINVAL, c"attribute LADDR is missing", None))?;
        let (prefix, ifname) = parse(request, nest, args.id.family)?;
        let done = if request.number() == cmd::NEW_LADDR {
            netns.add_local(config, &service, &prefix, ifname)
        } else {
            netns.remove_local(config, &service, &prefix)
        };
        done.map_err(|refusal| request.refuse(refusal.error, refusal.text, Some(nest)))
    })
}

/// Reads which local addresses are meant.
fn parse(request: &Request<'_>, nest: Attr<'_>, family: Family) -> Result<(Prefix, IfName)> {
    let refuse = |text: &'static CStr| request.refuse(EINVAL, text, Some(nest));

    let bytes = nest
        .find_inside(laddr_attr::ADDR)
        .ok_or_else(|| refuse(c"the local address lacks ADDR"))?;
    let addr =
        Addr::from_slice(family, bytes).ok_or_else(|| refuse(c"the local address is too short"))?;
    let whole = match family {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    // Clients send `union nf_inet_addr`, whatever the family; what is behind an IPv4 address is 0 in it.
    if family == Family::V4 && bytes.iter().skip(4).any(|b| *b != 0) {
        return Err(refuse(
            c"the service is one of IPv4, the local address is not",
        ));
    }
    let len = number::<1>(request, nest, laddr_attr::PREFIX_LEN)?.map_or(whole, |[len]| len);
    let mut ifname = IfName::default();
    if let Some(text) = nest.find_inside(laddr_attr::IFNAME) {
        let text = text.split(|b| *b == 0).next().unwrap_or_default();
        if text.is_empty() || text.len() >= ifname.len() {
            return Err(refuse(c"the interface's name is empty or too long"));
        }
        for (to, from) in ifname.iter_mut().zip(text) {
            *to = *from;
        }
    }
    let prefix = Prefix { family, addr, len };
    Ok((prefix, ifname))
}

/// GET_LADDR: the local addresses of a service; none if the request is wrong or there is no such service.
#[inline(never)]
pub(super) fn dump(control: &Control, dump: &mut Dump<'_>) {
    let Ok(attrs) = dump.attrs(&super::POLICY) else {
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
        let locals = service
            .fullnat
            .pool(g)
            .map_or(&[][..], |pool| pool.locals());
        for local in locals.iter().skip(start) {
            if dump
                .message(cmd::NEW_LADDR, |msg| fill(msg, local))
                .is_err()
            {
                break;
            }
            sent = sent.saturating_add(1);
        }
    });
    dump.set_place([sent, 0, 0, 0]);
}

fn fill(msg: &Writer<'_>, local: &Local) -> Result {
    msg.nest(attr::LADDR, |msg| {
        msg.bytes(laddr_attr::ADDR, &local.addr().bytes())?;
        msg.u64(
            laddr_attr::PORT_CONFLICT,
            count(local.conflicts.load()),
            laddr_attr::PAD,
        )?;
        msg.u32(laddr_attr::CONN_COUNTS, local.conns.load())?;
        msg.u8(laddr_attr::PREFIX_LEN, local.prefix().len)?;
        if let Some(name) = local.ifname() {
            msg.string(laddr_attr::IFNAME, name)?;
        }
        Ok(())
    })
}

fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Adds what a service has of FullNAT, if it has anything.
pub(super) fn fill_service(msg: &Writer<'_>, service: &Service) -> Result {
    let fullnat = &service.fullnat;
    let (locals, options) = (fullnat.len(), fullnat.options());
    let Some(counts) = fullnat.counts() else {
        return Ok(());
    };
    let exhausted = count(counts.exhausted.load());
    if locals == 0 && options == Options::NONE && exhausted == 0 {
        return Ok(());
    }
    let (kind, on_syn, version) = match options.carry {
        Carry::Nothing => (0, 0, 0),
        Carry::Toa { kind, on_syn } => (kind, u8::from(on_syn), 0),
        Carry::Proxy(Version::One) => (0, 0, 1),
        Carry::Proxy(Version::Two) => (0, 0, 2),
    };
    msg.u8(svc_fullnat::TOA_KIND, kind)?;
    msg.u8(svc_fullnat::TOA_SYN, on_syn)?;
    msg.u8(svc_fullnat::PROXY, version)?;
    msg.u16(svc_fullnat::PORT_MIN, options.ports.min())?;
    msg.u16(svc_fullnat::PORT_MAX, options.ports.max())?;
    msg.u32(
        svc_fullnat::LOCALS,
        u32::try_from(locals).unwrap_or(u32::MAX),
    )?;
    for (kind, value) in [
        (svc_fullnat::EXHAUSTED, exhausted),
        (svc_fullnat::TOA_ADDED, count(counts.toa_added.load())),
        (svc_fullnat::TOA_NO_ROOM, count(counts.toa_no_room.load())),
        (svc_fullnat::TOA_REMOVED, count(counts.toa_removed.load())),
    ] {
        msg.u64(kind, value, svc_fullnat::PAD)?;
    }
    Ok(())
}
