// SPDX-License-Identifier: GPL-2.0-only

//! From attributes to what they mean: C `ip_vs_genl_parse_service()`, `ip_vs_genl_parse_dest()`.

use super::family;
use crate::{
    control::common,
    dest,
    os::{
        genl::Explain,
        nlattr::{
            Attr,
            Attrs,
            Policy,
            Rule, //
        }, //
    },
    service::{
        self,
        extras::TunnelExtras, //
    },
    HZ, //
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
    proto::IPPROTO_TCP,
    sched::Kind,
    thresholds::Thresholds,
    tunnel::{
        Invalid,
        Sources, //
    },
    uapi::{
        conn_flag,
        dest_attr,
        svc_attr,
        tun_type,
        FwdMethod,
        PENAME_MAXLEN,
        SCHEDNAME_MAXLEN, //
    }, //
};

/// Bytes of `union nf_inet_addr`.
const ADDR_LEN: u16 = 16;
/// Bytes of `struct ip_vs_flags`.
const FLAGS_LEN: u16 = 8;

const SERVICE_ATTRS: usize = svc_attr::MAX as usize + 1;
const DEST_ATTRS: usize = dest_attr::MAX as usize + 1;

static SERVICE_POLICY: Policy<SERVICE_ATTRS> = [
    Rule::ANY,
    Rule::U16,                                 // AF
    Rule::U16,                                 // PROTOCOL
    Rule::binary(ADDR_LEN),                    // ADDR
    Rule::U16,                                 // PORT
    Rule::U32,                                 // FWMARK
    Rule::string(SCHEDNAME_MAXLEN as u16 - 1), // SCHED_NAME
    Rule::binary(FLAGS_LEN),                   // FLAGS
    Rule::U32,                                 // TIMEOUT
    Rule::U32,                                 // NETMASK
    Rule::NESTED,                              // STATS
    Rule::string(PENAME_MAXLEN as u16),        // PE_NAME
    Rule::ANY,                                 // STATS64
];

static DEST_POLICY: Policy<DEST_ATTRS> = [
    Rule::ANY,
    Rule::binary(ADDR_LEN), // ADDR
    Rule::U16,              // PORT
    Rule::U32,              // FWD_METHOD
    Rule::U32,              // WEIGHT
    Rule::U32,              // U_THRESH
    Rule::U32,              // L_THRESH
    Rule::U32,              // ACTIVE_CONNS
    Rule::U32,              // INACT_CONNS
    Rule::U32,              // PERSIST_CONNS
    Rule::NESTED,           // STATS
    Rule::U16,              // ADDR_FAMILY
    Rule::ANY,              // STATS64
    Rule::U8,               // TUN_TYPE
    Rule::U16,              // TUN_PORT
    Rule::U16,              // TUN_FLAGS
];

/// A parsed SERVICE attribute.
pub(super) struct ServiceArgs<'a> {
    /// Which service.
    pub(super) id: service::Id,
    attrs: Attrs<'a, SERVICE_ATTRS>,
    nest: Attr<'a>,
}

/// A parsed DEST attribute.
struct DestArgs<'a> {
    /// Which destination.
    id: dest::Id,
    attrs: Attrs<'a, DEST_ATTRS>,
}

/// Reads attributes and explains what is wrong with them.
pub(super) struct Parser<'a> {
    explain: Explain<'a>,
}

impl<'a> Parser<'a> {
    /// Explains to `explain`.
    pub(super) fn new(explain: Explain<'a>) -> Self {
        Self { explain }
    }

    fn refuse(&self, err: Error, text: &'static CStr, attr: Option<Attr<'_>>) -> Error {
        self.explain.refuse(err, text, attr)
    }

    fn missing(&self, text: &'static CStr, nest: Attr<'_>) -> Error {
        self.refuse(EINVAL, text, Some(nest))
    }

    /// Reads which service is meant. `full`: everything that a service has must be there, too.
    #[inline(never)]
    pub(super) fn service(&self, nest: Option<Attr<'a>>, full: bool) -> Result<ServiceArgs<'a>> {
        let nest =
            nest.ok_or_else(|| self.refuse(EINVAL, c"attribute SERVICE is missing", None))?;
        // The parser has said what is wrong; whatever it was, C says EINVAL.
        let attrs = Attrs::inside(nest, &SERVICE_POLICY, self.explain).map_err(|_| EINVAL)?;

        let (af, fwmark) = (attrs.get(svc_attr::AF), attrs.get(svc_attr::FWMARK));
        let address = (
            attrs.get(svc_attr::PROTOCOL),
            attrs.get(svc_attr::ADDR),
            attrs.get(svc_attr::PORT),
        );
        let Some(af) = af else {
            return Err(self.missing(c"attribute AF of the service is missing", nest));
        };
        let id = match (fwmark, address) {
            (Some(fwmark), _) => service::Id {
                family: family(&self.explain, af)?,
                fwmark: fwmark.u32(),
                protocol: IPPROTO_TCP.into(),
                addr: Addr::ZERO,
                port: 0,
            },
            (None, (Some(protocol), Some(addr), Some(port))) => {
                let family = family(&self.explain, af)?;
                service::Id {
                    family,
                    fwmark: 0,
                    protocol: protocol.u16(),
                    addr: address_of(family, addr),
                    port: port.u16(),
                }
            }
            _ => {
                return Err(self.missing(
                    c"the service has neither FWMARK nor all of PROTOCOL, ADDR and PORT",
                    nest,
                ))
            }
        };

        let needed = [
            svc_attr::SCHED_NAME,
            svc_attr::FLAGS,
            svc_attr::TIMEOUT,
            svc_attr::NETMASK,
        ];
        if full && needed.iter().any(|number| attrs.get(*number).is_none()) {
            return Err(self.missing(
                c"the service lacks SCHED_NAME, FLAGS, TIMEOUT or NETMASK",
                nest,
            ));
        }
        Ok(ServiceArgs { id, attrs, nest })
    }

    /// Reads what a service shall be, which had the flags `old` before.
    #[inline(never)]
    pub(super) fn service_settings(
        &self,
        args: &ServiceArgs<'_>,
        old: u32,
    ) -> Result<service::Settings> {
        let number = |number| args.attrs.get(number).map_or(0, |attr| attr.u32());

        let name = args.attrs.get(svc_attr::SCHED_NAME);
        let scheduler = name
            .and_then(|name| Kind::by_name(name.string()))
            .ok_or_else(|| self.refuse(ENOENT, c"unknown scheduler", name))?;
        if let Some(pe) = args.attrs.get(svc_attr::PE_NAME) {
            match pe.string() {
                b"" => {}
                b"sip" => {
                    return Err(self.refuse(
                        EOPNOTSUPP,
                        c"persistence engines are not supported",
                        Some(pe),
                    ))
                }
                _ => return Err(self.refuse(ENOENT, c"unknown persistence engine", Some(pe))),
            }
        }
        let netmask = number(svc_attr::NETMASK);
        if args.id.family == Family::V6 && !(1..=128).contains(&netmask) {
            return Err(self.refuse(
                EINVAL,
                c"prefix length not between 1 and 128",
                args.attrs.get(svc_attr::NETMASK),
            ));
        }

        let given = args.attrs.get(svc_attr::FLAGS);
        let [a, b, c, d, e, f, g, h] = given.map_or([0; 8], |flags| flags.padded());
        let (flags, mask) = (
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
        );
        let flags = (old & !mask) | (flags & mask);
        Ok(service::Settings {
            scheduler,
            flags,
            timeout: HZ.from_secs_u32(number(svc_attr::TIMEOUT)),
            netmask,
        })
    }

    /// Reads what the tunnels of a service shall have beyond C, which had `extras` before: what is not mentioned stays.
    #[inline(never)]
    pub(super) fn tunnel_extras(
        &self,
        args: &ServiceArgs<'_>,
        mut extras: TunnelExtras,
    ) -> Result<TunnelExtras> {
        for (number, family) in [
            (svc_attr::TUN_SOURCES_V4, Family::V4),
            (svc_attr::TUN_SOURCES_V6, Family::V6),
        ] {
            let Some(bytes) = args.nest.find_inside(number) else {
                continue;
            };
            let sources = Sources::parse(family, bytes).map_err(|invalid| {
                let text = match invalid {
                    Invalid::Size => c"tunnel sources: an address, a prefix length, three zeros",
                    Invalid::Length => c"tunnel sources: no such prefix length",
                    Invalid::Address => c"tunnel sources: not a network of hosts",
                };
                self.refuse(EINVAL, text, Some(args.nest))
            })?;
            match family {
                Family::V4 => extras.v4 = sources,
                Family::V6 => extras.v6 = sources,
            }
        }
        match args.nest.find_inside(svc_attr::TUN_MSS) {
            None => {}
            Some([clamp @ (0 | 1)]) => extras.clamp = *clamp != 0,
            Some(_) => {
                let text = c"segments are made to fit (1) or not (0)";
                return Err(self.refuse(EINVAL, text, Some(args.nest)));
            }
        }
        Ok(extras)
    }

    /// Reads which destination is meant, of a service of family `of`. `full`: everything that a destination has must be
    /// there, too.
    #[inline(never)]
    fn dest(&self, nest: Option<Attr<'a>>, full: bool, of: Family) -> Result<DestArgs<'a>> {
        let nest = nest.ok_or_else(|| self.refuse(EINVAL, c"attribute DEST is missing", None))?;
        let attrs = Attrs::inside(nest, &DEST_POLICY, self.explain).map_err(|_| EINVAL)?;
        let (Some(addr), Some(port)) = (attrs.get(dest_attr::ADDR), attrs.get(dest_attr::PORT))
        else {
            return Err(self.missing(c"the destination lacks ADDR or PORT", nest));
        };
        let needed = [
            dest_attr::FWD_METHOD,
            dest_attr::WEIGHT,
            dest_attr::U_THRESH,
            dest_attr::L_THRESH,
        ];
        if full && needed.iter().any(|number| attrs.get(*number).is_none()) {
            return Err(self.missing(
                c"the destination lacks FWD_METHOD, WEIGHT, U_THRESH or L_THRESH",
                nest,
            ));
        }
        let family = match attrs.get(dest_attr::ADDR_FAMILY) {
            Some(af) if af.u16() != 0 => family(&self.explain, af)?,
            _ => of,
        };
        Ok(DestArgs {
            id: dest::Id {
                family,
                addr: address_of(family, addr),
                port: port.u16(),
            },
            attrs,
        })
    }

    /// [`Self::dest()`], and what the destination shall be, if that is to be there.
    #[inline(never)]
    pub(super) fn whole_dest(
        &self,
        nest: Option<Attr<'a>>,
        full: bool,
        of: Family,
        has_daemon: bool,
    ) -> Result<(dest::Id, Option<dest::Settings>)> {
        let args = self.dest(nest, full, of)?;
        let settings = if full {
            self.mixed_families(&args, of, has_daemon)?;
            Some(self.dest_settings(&args)?)
        } else {
            None
        };
        Ok((args.id, settings))
    }

    /// Refuses a destination of another family than its service's, unless packets go there through a tunnel and no daemon runs.
    fn mixed_families(&self, args: &DestArgs<'_>, of: Family, has_daemon: bool) -> Result {
        if args.id.family != of && has_daemon {
            return Err(self.refuse(
                EINVAL,
                c"a synchronisation daemon runs, which cannot tell of destinations of another address family",
                args.attrs.get(dest_attr::ADDR_FAMILY),
            ));
        }
        let method = args.attrs.get(dest_attr::FWD_METHOD);
        let is_tunnel = method
            .is_some_and(|method| FwdMethod::from_flags(method.u32()) == Some(FwdMethod::Tunnel));
        if args.id.family != of && !is_tunnel {
            return Err(self.refuse(
                EINVAL,
                c"a destination of another address family than the service needs a tunnel",
                args.attrs.get(dest_attr::ADDR_FAMILY),
            ));
        }
        Ok(())
    }

    /// Reads what a destination shall be.
    #[inline(never)]
    fn dest_settings(&self, args: &DestArgs<'_>) -> Result<dest::Settings> {
        let number = |number| args.attrs.get(number).map_or(0, |attr| attr.u32());

        let settings = dest::Settings {
            method: number(dest_attr::FWD_METHOD) & conn_flag::FWD_MASK,
            weight: number(dest_attr::WEIGHT) as i32,
            thresholds: Thresholds {
                upper: number(dest_attr::U_THRESH),
                lower: number(dest_attr::L_THRESH),
            },
            tun_type: args
                .attrs
                .get(dest_attr::TUN_TYPE)
                .map_or(tun_type::IPIP, |attr| attr.u8()),
            tun_port: args
                .attrs
                .get(dest_attr::TUN_PORT)
                .map_or(0, |attr| attr.u16()),
            tun_flags: args
                .attrs
                .get(dest_attr::TUN_FLAGS)
                .map_or(0, |attr| attr.u16()),
        };
        common::dest(&settings).map_err(|wrong| {
            let attr = args.attrs.get(wrong.attr);
            self.refuse(wrong.refusal.error, wrong.refusal.text, attr)
        })?;
        Ok(settings)
    }
}

/// An address, zeros where the attribute is short.
fn address_of(family: Family, attr: Attr<'_>) -> Addr {
    let addr = Addr::from_bytes(attr.padded());
    match family {
        Family::V4 => Addr::v4(addr.v4_be()),
        Family::V6 => addr,
    }
}
