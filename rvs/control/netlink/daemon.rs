// SPDX-License-Identifier: GPL-2.0-only

//! Synchronisation daemons: C `ip_vs_genl_set_daemon()`, `ip_vs_genl_dump_daemons()`.

use super::explain;
use crate::{
    control::Control,
    os::{
        genl::{
            Dump,
            Request, //
        },
        nlattr::{
            Attr,
            Attrs,
            Policy,
            Rule, //
        },
        nlmsg::Writer, //
    },
    sync::Config, //
};
use kernel::{
    prelude::*,
    str::CStr, //
};
use rvs_core::{
    addr::{
        Addr,
        Family,
        V6Type, //
    },
    uapi::{
        attr,
        cmd,
        daemon_attr,
        daemon_state, //
    },
};

const ATTRS: usize = daemon_attr::MAX as usize + 1;

static POLICY: Policy<ATTRS> = [
    Rule::ANY,
    Rule::U32,          // STATE
    Rule::string(15),   // MCAST_IFN
    Rule::U32,          // SYNC_ID
    Rule::U16,          // SYNC_MAXLEN
    Rule::U32,          // MCAST_GROUP
    Rule::at_least(16), // MCAST_GROUP6
    Rule::U16,          // MCAST_PORT
    Rule::U8,           // MCAST_TTL
];

/// NEW_DAEMON, DEL_DAEMON.
#[inline(never)]
pub(super) fn change(control: &Control, request: &Request<'_>) -> Result {
    let nest = request
        .attr(attr::DAEMON)
        .ok_or_else(|| request.refuse(EINVAL, c"the attribute DAEMON is missing", None))?;
    // Whatever is wrong with them.
    let attrs = Attrs::inside(nest, &POLICY, request.explain()).map_err(|_| EINVAL)?;
    let missing = |text: &'static CStr| request.refuse(EINVAL, text, Some(nest));
    let state = attrs.get(daemon_attr::STATE);
    if request.number() == cmd::DEL_DAEMON {
        let state = state.ok_or_else(|| missing(c"the daemon lacks STATE"))?;
        return control
            .daemons()
            .stop(state.u32())
            .map_err(|refusal| explain(request, refusal));
    }
    let (Some(state), Some(ifname), Some(syncid)) = (
        state,
        attrs.get(daemon_attr::MCAST_IFN),
        attrs.get(daemon_attr::SYNC_ID),
    ) else {
        return Err(missing(c"the daemon lacks STATE, MCAST_IFN or SYNC_ID"));
    };
    let config = Config {
        ifname: name_of(ifname),
        syncid: syncid.u32(),
        maxlen: attrs
            .get(daemon_attr::SYNC_MAXLEN)
            .map_or(0, |attr| attr.u16()),
        group: group(request, &attrs)?,
        port: attrs
            .get(daemon_attr::MCAST_PORT)
            .map_or(0, |attr| attr.u16()),
        ttl: attrs
            .get(daemon_attr::MCAST_TTL)
            .map_or(0, |attr| attr.u8()),
    };
    control
        .start_daemon(state.u32(), config, true)
        .map_err(|refusal| explain(request, refusal))
}

fn name_of(attr: Attr<'_>) -> [u8; 16] {
    let mut name = [0; 16];
    // The rule left room for the end.
    for (to, from) in name.iter_mut().zip(attr.string()) {
        *to = *from;
    }
    name
}

/// The multicast group, if one is given; one of IPv4 counts.
fn group(request: &Request<'_>, attrs: &Attrs<'_, ATTRS>) -> Result<Option<(Family, Addr)>> {
    let (family, addr, attr, is_multicast) = if let Some(attr) = attrs.get(daemon_attr::MCAST_GROUP)
    {
        let addr = Addr::v4(attr.u32());
        let [first, ..] = addr.v4_be().to_ne_bytes();
        (Family::V4, addr, attr, first & 0xf0 == 0xe0)
    } else if let Some(attr) = attrs.get(daemon_attr::MCAST_GROUP6) {
        let addr = Addr::from_bytes(attr.padded());
        let is_multicast = addr.v6_type().is(V6Type::MULTICAST);
        (Family::V6, addr, attr, is_multicast)
    } else {
        return Ok(None);
    };
    if !is_multicast {
        return Err(request.refuse(EINVAL, c"not a multicast address", Some(attr)));
    }
    if family == Family::V6 && !crate::os::net::has_v6() {
        return Err(request.refuse(EAFNOSUPPORT, c"IPv6 is not supported", Some(attr)));
    }
    Ok(Some((family, addr)))
}

/// GET_DAEMON: first the master, then the backup.
#[inline(never)]
pub(super) fn dump(control: &Control, dump: &mut Dump<'_>) {
    let [mut master, mut backup, ..] = dump.place();
    control.daemons().each(|state, config| {
        let sent = if state == daemon_state::MASTER {
            &mut master
        } else {
            &mut backup
        };
        if *sent == 0
            && dump
                .message(cmd::NEW_DAEMON, |msg| fill(msg, state, config))
                .is_ok()
        {
            *sent = 1;
        }
    });
    dump.set_place([master, backup, 0, 0]);
}

/// C `ip_vs_genl_fill_daemon()`.
fn fill(msg: &Writer<'_>, state: u32, config: &Config) -> Result {
    msg.nest(attr::DAEMON, |msg| {
        msg.u32(daemon_attr::STATE, state)?;
        msg.string(daemon_attr::MCAST_IFN, config.ifname())?;
        msg.u32(daemon_attr::SYNC_ID, config.syncid)?;
        msg.u16(daemon_attr::SYNC_MAXLEN, config.maxlen)?;
        msg.u16(daemon_attr::MCAST_PORT, config.port)?;
        msg.u8(daemon_attr::MCAST_TTL, config.ttl)?;
        match config.group() {
            (Family::V4, addr) => msg.bytes(daemon_attr::MCAST_GROUP, &addr.v4_be().to_ne_bytes()),
            (Family::V6, addr) => msg.bytes(daemon_attr::MCAST_GROUP6, &addr.bytes()),
        }
    })
}
