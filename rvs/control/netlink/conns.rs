// SPDX-License-Identifier: GPL-2.0-only

//! The dump of connections: see `docs/netlink-extensions.md`.

use super::{
    family,
    Parser, //
};
use crate::{
    conn::{
        Conn,
        Shown, //
    },
    netns::Netns,
    os::{
        genl::{
            Dump,
            Explain, //
        },
        nlattr::{
            Attr,
            Attrs,
            Policy,
            Rule, //
        },
        nlmsg::Writer,
        rcu,
        table::{
            Ref,
            Walk, //
        },
        time, //
    },
    service::Service,
    HZ, //
};
use kernel::{
    prelude::*,
    str::CStr,
    sync::Arc, //
};
use rvs_core::{
    addr::{
        Addr,
        Be16,
        Family, //
    },
    uapi::{
        self,
        ext::{
            attr,
            cmd,
            conn_attr, //
        }, //
    }, //
};

const ATTRS: usize = conn_attr::MAX as usize + 1;

/// What a filter may hold.
static POLICY: Policy<ATTRS> = [
    Rule::ANY,
    Rule::U16,        // AF
    Rule::U8,         // PROTOCOL
    Rule::binary(16), // CLIENT_ADDR
    Rule::U16,        // CLIENT_PORT
    Rule::binary(16), // VIRT_ADDR
    Rule::U16,        // VIRT_PORT
    Rule::binary(16), // DEST_ADDR
    Rule::U16,        // DEST_PORT
    Rule::ANY,        // FLAGS
    Rule::U8,         // STATE
    Rule::ANY,        // STATE_NAME
    Rule::ANY,        // EXPIRES
    Rule::ANY,        // TIMEOUT
    Rule::ANY,        // FWMARK
    Rule::ANY,        // SERVICE_FWMARK
    Rule::ANY,        // SERVICE_PORT
    Rule::ANY,        // IN_PKTS
    Rule::ANY,        // IN_BYTES
    Rule::ANY,        // OUT_PKTS
    Rule::ANY,        // OUT_BYTES
    Rule::ANY,        // AGE
    Rule::U8,         // CLIENT_PREFIX
    Rule::ANY,        // PAD
];

/// How many connections are looked at before the RCU section ends.
const BATCH: usize = 256;

/// Which connections are wanted: those that agree with everything that is there.
#[derive(Default)]
struct Filter {
    service: Option<Arc<Service>>,
    family: Option<Family>,
    protocol: Option<u8>,
    /// With how many bits of it count.
    client: Option<(Addr, u32)>,
    client_port: Option<Be16>,
    virt: Option<Addr>,
    virt_port: Option<Be16>,
    dest: Option<(Family, Addr)>,
    dest_port: Option<Be16>,
    state: Option<u8>,
}

impl Filter {
    /// Reads what a request wants.
    #[inline(never)]
    fn parse(netns: &Netns, dump: &Dump<'_>) -> Result<Self> {
        let explain = dump.explain();
        let mut filter = Self::default();
        if let Some(nest) = dump.attr(uapi::attr::SERVICE) {
            let args = Parser::new(explain).service(Some(nest), false)?;
            let service = netns.find(&args.id);
            let service =
                service.ok_or_else(|| explain.refuse(ESRCH, c"no such service", Some(nest)))?;
            filter.service = Some(service);
        }
        if let Some(nest) = dump.attr(attr::CONN) {
            let attrs = Attrs::strictly_inside(nest, &POLICY, explain)?;
            filter.parse_conn(&attrs, explain)?;
        }
        Ok(filter)
    }

    #[inline(never)]
    fn parse_conn(&mut self, attrs: &Attrs<'_, ATTRS>, explain: Explain<'_>) -> Result {
        let refuse = |text: &'static CStr, attr| Err(explain.refuse(EINVAL, text, Some(attr)));
        if let Some(af) = attrs.get(conn_attr::AF) {
            self.family = Some(family(&explain, af)?);
        }
        self.protocol = attrs.get(conn_attr::PROTOCOL).map(|attr| attr.u8());
        let port = |number| attrs.get(number).map(|attr: Attr<'_>| attr.u16());
        self.client_port = port(conn_attr::CLIENT_PORT);
        self.virt_port = port(conn_attr::VIRT_PORT);
        self.dest_port = port(conn_attr::DEST_PORT);

        if let Some(attr) = attrs.get(conn_attr::CLIENT_ADDR) {
            let addr = self.own_address(attr, explain)?;
            self.client = Some((addr, u32::MAX));
        }
        if let Some(attr) = attrs.get(conn_attr::VIRT_ADDR) {
            self.virt = Some(self.own_address(attr, explain)?);
        }
        if let Some(attr) = attrs.get(conn_attr::DEST_ADDR) {
            self.dest = Some(address(attr, explain)?);
        }
        if let Some(attr) = attrs.get(conn_attr::CLIENT_PREFIX) {
            let most = match self.family {
                Some(Family::V4) => 32,
                _ => 128,
            };
            let bits = u32::from(attr.u8());
            match &mut self.client {
                None => return refuse(c"CLIENT_PREFIX needs CLIENT_ADDR", attr),
                Some(_) if bits > most => return refuse(c"prefix longer than the address", attr),
                Some((addr, prefix)) => {
                    *prefix = bits;
                    *addr = masked(addr, self.family, bits);
                }
            }
        }
        if let Some(attr) = attrs.get(conn_attr::STATE) {
            if self.protocol.is_none() {
                return refuse(c"STATE needs PROTOCOL", attr);
            }
            self.state = Some(attr.u8());
        }
        Ok(())
    }

    /// An address of the connection's own family, which it decides if nothing else did.
    fn own_address(&mut self, attr: Attr<'_>, explain: Explain<'_>) -> Result<Addr> {
        let (family, addr) = address(attr, explain)?;
        if *self.family.get_or_insert(family) != family {
            let text = c"an address of another family than AF or the other address";
            return Err(explain.refuse(EINVAL, text, Some(attr)));
        }
        Ok(addr)
    }

    /// Whether a connection is wanted.
    fn wants(&self, conn: &Conn) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, value: T) -> bool {
            wanted.is_none_or(|wanted| wanted == value)
        }

        is(self.protocol, conn.proto())
            && is(self.family, conn.family())
            && is(self.state, conn.state())
            && is(self.client_port, conn.cport())
            && is(self.virt_port, conn.vport())
            && is(self.dest_port, conn.shown_dport())
            && is(self.virt, conn.vaddr())
            && self
                .client
                .is_none_or(|(addr, bits)| masked(&conn.caddr(), Some(conn.family()), bits) == addr)
            && self.wants_server(conn)
    }

    fn wants_server(&self, conn: &Conn) -> bool {
        if self.service.is_none() && self.dest.is_none() {
            return true;
        }
        let Some(dest) = conn.dest() else {
            return false;
        };
        self.service
            .as_ref()
            .is_none_or(|service| core::ptr::eq(&**service, &**dest.service()))
            && self
                .dest
                .is_none_or(|(family, addr)| dest.family() == family && *dest.addr() == addr)
    }
}

/// The first `bits` bits of an address; `u32::MAX`: all.
fn masked(addr: &Addr, family: Option<Family>, bits: u32) -> Addr {
    match (family, bits) {
        (_, u32::MAX) => *addr,
        (Some(Family::V4), bits) => {
            let mask = u32::MAX
                .checked_shl(32u32.saturating_sub(bits))
                .unwrap_or(0);
            addr.masked(Family::V4, mask.to_be())
        }
        (_, bits) => addr.prefix(bits),
    }
}

/// An address, whose length tells its family.
fn address(attr: Attr<'_>, explain: Explain<'_>) -> Result<(Family, Addr)> {
    let family = match attr.bytes().len() {
        4 => Family::V4,
        16 => Family::V6,
        _ => {
            let text = c"an address has 4 or 16 bytes";
            return Err(explain.refuse(EINVAL, text, Some(attr)));
        }
    };
    Ok((family, Addr::from_bytes(attr.padded())))
}

/// GET_CONN: as many connections as fit.
///
/// The place is that of the [`Walk`], and whether it has begun or is over.
#[inline(never)]
pub(super) fn dump(netns: &Netns, dump: &mut Dump<'_>) -> Result {
    const BEGUN: usize = 1;
    const OVER: usize = 2;

    let [chain, last, progress, resizes] = dump.place();
    if progress == OVER {
        return Ok(());
    }
    let filter = Filter::parse(netns, dump)?;
    let Some(conns) = netns.conns() else {
        return Ok(());
    };
    let mut walk = Walk {
        chain,
        last,
        resizes,
    };
    let mut progress = BEGUN;
    loop {
        let mut has_room = true;
        let goes_on = rcu::read(|g| {
            let mut left = BATCH;
            conns.walk(&mut walk, g, |conn| {
                let Some(less) = left.checked_sub(1) else {
                    return false;
                };
                left = less;
                if filter.wants(conn.get()) {
                    has_room = write(dump, conn).is_ok();
                }
                has_room
            })
        });
        if !goes_on {
            progress = OVER;
        }
        if !goes_on || !has_room {
            break;
        }
        time::yield_cpu();
    }
    dump.set_place([walk.chain, walk.last, progress, walk.resizes]);
    Ok(())
}

/// Adds the message of a connection to a dump.
fn write(dump: &mut Dump<'_>, conn: Ref<'_, Conn>) -> Result {
    let left = (conn.deadline().wrapping_sub(time::jiffies()) as i32).max(0);
    let shown = Shown::of(conn.get());
    dump.message(cmd::CONN, |msg| fill(msg, &shown, left.unsigned_abs()))
}

/// Adds a connection that expires in so many jiffies.
#[inline(never)]
pub(super) fn fill(msg: &Writer<'_>, conn: &Shown, expires: u32) -> Result {
    let put_addr = |number, family, addr: &Addr| {
        let bytes = addr.bytes();
        let len = match family {
            Family::V4 => 4,
            Family::V6 => 16,
        };
        msg.bytes(number, bytes.get(..len).unwrap_or(&bytes))
    };
    let put_u64 = |number, value| msg.u64(number, value, conn_attr::PAD);

    msg.nest(attr::CONN, |msg| {
        msg.u16(conn_attr::AF, conn.family.af())?;
        msg.u8(conn_attr::PROTOCOL, conn.proto)?;
        put_addr(conn_attr::CLIENT_ADDR, conn.family, &conn.caddr)?;
        msg.u16(conn_attr::CLIENT_PORT, conn.cport)?;
        put_addr(conn_attr::VIRT_ADDR, conn.family, &conn.vaddr)?;
        msg.u16(conn_attr::VIRT_PORT, conn.vport)?;
        put_addr(conn_attr::DEST_ADDR, conn.dest_family, &conn.daddr)?;
        msg.u16(conn_attr::DEST_PORT, conn.dport)?;
        msg.u32(conn_attr::FLAGS, conn.flags)?;
        msg.u8(conn_attr::STATE, conn.state)?;
        msg.string(conn_attr::STATE_NAME, conn.state_name().as_bytes())?;
        put_u64(conn_attr::EXPIRES, HZ.to_ms(expires))?;
        put_u64(conn_attr::TIMEOUT, HZ.to_ms(conn.timeout))?;
        msg.u32(conn_attr::FWMARK, conn.fwmark)?;
        match conn.service {
            Some((0, port)) if port != conn.vport => msg.u16(conn_attr::SERVICE_PORT, port)?,
            Some((fwmark, _)) if fwmark != 0 => msg.u32(conn_attr::SERVICE_FWMARK, fwmark)?,
            _ => {}
        }
        if let Some(counts) = &conn.counts {
            put_u64(conn_attr::IN_PKTS, counts.in_pkts)?;
            put_u64(conn_attr::IN_BYTES, counts.in_bytes)?;
            put_u64(conn_attr::OUT_PKTS, counts.out_pkts)?;
            put_u64(conn_attr::OUT_BYTES, counts.out_bytes)?;
            put_u64(conn_attr::AGE, counts.age)?;
        }
        Ok(())
    })
}
