// SPDX-License-Identifier: MIT OR Apache-2.0

//! Whatever is written is read back the same; whatever comes in, nothing panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{Emitable, NetlinkMessage, Nla};
use netlink_packet_generic::GenlMessage;
use proptest::prelude::*;
use rvs_netlink::*;

fn text(max: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>().prop_filter("NUL", |c| *c != '\0'), 0..max)
        .prop_map(String::from_iter)
}

fn unknown(known: u16) -> impl Strategy<Value = Unknown> {
    (
        known + 1..0x4000,
        0..3u16,
        proptest::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(kind, flag, value)| Unknown {
            kind: kind | (flag << 14),
            value,
        })
}

fn stats() -> impl Strategy<Value = Vec<StatsAttribute>> {
    let one = prop_oneof![
        any::<u32>().prop_map(StatsAttribute::Conns),
        any::<u32>().prop_map(StatsAttribute::InPkts),
        any::<u32>().prop_map(StatsAttribute::OutPkts),
        any::<u64>().prop_map(StatsAttribute::InBytes),
        any::<u64>().prop_map(StatsAttribute::OutBytes),
        any::<u32>().prop_map(StatsAttribute::Cps),
        any::<u32>().prop_map(StatsAttribute::InPps),
        any::<u32>().prop_map(StatsAttribute::OutPps),
        any::<u32>().prop_map(StatsAttribute::InBps),
        any::<u32>().prop_map(StatsAttribute::OutBps),
        unknown(10).prop_map(StatsAttribute::Other),
    ];
    proptest::collection::vec(one, 0..12)
}

fn stats64() -> impl Strategy<Value = Vec<Stats64Attribute>> {
    let one = prop_oneof![
        any::<u64>().prop_map(Stats64Attribute::Conns),
        any::<u64>().prop_map(Stats64Attribute::InPkts),
        any::<u64>().prop_map(Stats64Attribute::OutPkts),
        any::<u64>().prop_map(Stats64Attribute::InBytes),
        any::<u64>().prop_map(Stats64Attribute::OutBytes),
        any::<u64>().prop_map(Stats64Attribute::Cps),
        any::<u64>().prop_map(Stats64Attribute::InPps),
        any::<u64>().prop_map(Stats64Attribute::OutPps),
        any::<u64>().prop_map(Stats64Attribute::InBps),
        any::<u64>().prop_map(Stats64Attribute::OutBps),
        unknown(11).prop_map(Stats64Attribute::Other),
    ];
    proptest::collection::vec(one, 0..12)
}

fn service_attribute() -> impl Strategy<Value = ServiceAttribute> {
    prop_oneof![
        any::<u16>().prop_map(ServiceAttribute::Af),
        any::<u16>().prop_map(ServiceAttribute::Protocol),
        any::<[u8; 16]>().prop_map(|a| ServiceAttribute::Addr(Address(a))),
        any::<u16>().prop_map(ServiceAttribute::Port),
        any::<u32>().prop_map(ServiceAttribute::Fwmark),
        text(20).prop_map(ServiceAttribute::SchedName),
        (any::<u32>(), any::<u32>()).prop_map(|(flags, mask)| ServiceAttribute::Flags(Flags {
            flags: ServiceFlags(flags),
            mask
        })),
        any::<u32>().prop_map(ServiceAttribute::Timeout),
        any::<u32>().prop_map(ServiceAttribute::Netmask),
        stats().prop_map(ServiceAttribute::Stats),
        text(20).prop_map(ServiceAttribute::PeName),
        stats64().prop_map(ServiceAttribute::Stats64),
        extension_of_service(),
        unknown(81).prop_map(ServiceAttribute::Other),
    ]
}

fn extension_of_service() -> impl Strategy<Value = ServiceAttribute> {
    use ServiceAttribute as A;
    prop_oneof![
        any::<(Ipv4Addr, u8)>().prop_map(|(addr, len)| A::TunSourcesV4(Sources::new(addr, len))),
        any::<(Ipv6Addr, u8)>().prop_map(|(addr, len)| A::TunSourcesV6(Sources::new(addr, len))),
        any::<u8>().prop_map(A::TunMss),
        any::<u8>().prop_map(A::ToaKind),
        any::<u8>().prop_map(A::ToaSyn),
        any::<u8>().prop_map(A::ProxyVersion),
        any::<u16>().prop_map(A::PortMin),
        any::<u16>().prop_map(A::PortMax),
        any::<u32>().prop_map(A::Locals),
        any::<u64>().prop_map(A::Exhausted),
        any::<u64>().prop_map(A::ToaAdded),
        any::<u64>().prop_map(A::ToaNoRoom),
        any::<u64>().prop_map(A::ToaRemoved),
    ]
}

fn local_attribute() -> impl Strategy<Value = LocalAttribute> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|a| LocalAttribute::Addr(Address(a))),
        any::<u64>().prop_map(LocalAttribute::PortConflict),
        any::<u32>().prop_map(LocalAttribute::ConnCounts),
        any::<u8>().prop_map(LocalAttribute::PrefixLen),
        text(20).prop_map(LocalAttribute::IfName),
        unknown(73).prop_map(LocalAttribute::Other),
    ]
}

fn dest_attribute() -> impl Strategy<Value = DestAttribute> {
    prop_oneof![
        any::<[u8; 16]>().prop_map(|a| DestAttribute::Addr(Address(a))),
        any::<u16>().prop_map(DestAttribute::Port),
        any::<u32>().prop_map(DestAttribute::FwdMethod),
        any::<i32>().prop_map(DestAttribute::Weight),
        any::<u32>().prop_map(DestAttribute::UThresh),
        any::<u32>().prop_map(DestAttribute::LThresh),
        any::<u32>().prop_map(DestAttribute::ActiveConns),
        any::<u32>().prop_map(DestAttribute::InactConns),
        any::<u32>().prop_map(DestAttribute::PersistConns),
        stats().prop_map(DestAttribute::Stats),
        any::<u16>().prop_map(DestAttribute::AddrFamily),
        stats64().prop_map(DestAttribute::Stats64),
        any::<u8>().prop_map(DestAttribute::TunType),
        any::<u16>().prop_map(DestAttribute::TunPort),
        any::<u16>().prop_map(DestAttribute::TunFlags),
        any::<u8>().prop_map(DestAttribute::FullNat),
        unknown(72).prop_map(DestAttribute::Other),
    ]
}

fn daemon_attribute() -> impl Strategy<Value = DaemonAttribute> {
    prop_oneof![
        any::<u32>().prop_map(DaemonAttribute::State),
        text(20).prop_map(DaemonAttribute::McastIfn),
        any::<u32>().prop_map(DaemonAttribute::SyncId),
        any::<u16>().prop_map(DaemonAttribute::SyncMaxlen),
        any::<[u8; 4]>().prop_map(|a| DaemonAttribute::McastGroup(a.into())),
        any::<[u8; 16]>().prop_map(|a| DaemonAttribute::McastGroup6(a.into())),
        any::<u16>().prop_map(DaemonAttribute::McastPort),
        any::<u8>().prop_map(DaemonAttribute::McastTtl),
        unknown(8).prop_map(DaemonAttribute::Other),
    ]
}

fn conn_attribute() -> impl Strategy<Value = ConnAttribute> {
    prop_oneof![
        any::<u16>().prop_map(ConnAttribute::Af),
        any::<u8>().prop_map(ConnAttribute::Protocol),
        any::<IpAddr>().prop_map(ConnAttribute::ClientAddr),
        any::<u16>().prop_map(ConnAttribute::ClientPort),
        any::<IpAddr>().prop_map(ConnAttribute::VirtAddr),
        any::<u16>().prop_map(ConnAttribute::VirtPort),
        any::<IpAddr>().prop_map(ConnAttribute::DestAddr),
        any::<u16>().prop_map(ConnAttribute::DestPort),
        any::<u32>().prop_map(ConnAttribute::Flags),
        any::<u8>().prop_map(ConnAttribute::State),
        text(20).prop_map(ConnAttribute::StateName),
        any::<u64>().prop_map(ConnAttribute::Expires),
        any::<u64>().prop_map(ConnAttribute::Timeout),
        any::<u32>().prop_map(ConnAttribute::Fwmark),
        any::<u32>().prop_map(ConnAttribute::ServiceFwmark),
        any::<u16>().prop_map(ConnAttribute::ServicePort),
        any::<u64>().prop_map(ConnAttribute::InPkts),
        any::<u64>().prop_map(ConnAttribute::InBytes),
        any::<u64>().prop_map(ConnAttribute::OutPkts),
        any::<u64>().prop_map(ConnAttribute::OutBytes),
        any::<u64>().prop_map(ConnAttribute::Age),
        any::<u8>().prop_map(ConnAttribute::ClientPrefix),
        unknown(22).prop_map(ConnAttribute::Other),
    ]
}

fn attribute() -> impl Strategy<Value = Attribute> {
    use proptest::collection::vec;
    prop_oneof![
        vec(conn_attribute(), 0..24).prop_map(Attribute::Conn),
        any::<u8>().prop_map(Attribute::Event),
        any::<u64>().prop_map(Attribute::Seq),
        any::<u64>().prop_map(Attribute::Lost),
        any::<u64>().prop_map(Attribute::ConfigSeq),
        any::<u64>().prop_map(Attribute::ConnSeq),
        vec(service_attribute(), 0..14).prop_map(Attribute::Service),
        vec(dest_attribute(), 0..16).prop_map(Attribute::Dest),
        vec(daemon_attribute(), 0..10).prop_map(Attribute::Daemon),
        vec(local_attribute(), 0..7).prop_map(Attribute::Laddr),
        any::<u32>().prop_map(Attribute::TimeoutTcp),
        any::<u32>().prop_map(Attribute::TimeoutTcpFin),
        any::<u32>().prop_map(Attribute::TimeoutUdp),
        unknown(69).prop_map(Attribute::Other),
    ]
}

/// The message in whole netlink bytes.
fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
    let message = NetlinkMessage::<GenlMessage<Message>>::deserialize(bytes)?;
    match message.payload {
        netlink_packet_core::NetlinkPayload::InnerMessage(inner) => Ok(inner.payload),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn messages(command in any::<u8>(), attributes in proptest::collection::vec(attribute(), 0..4)) {
        let command = Command::from(command);
        prop_assume!(command != Command::SetInfo);
        let message = Message::new(command, attributes);
        let bytes = message.encode(0x1c, 9, 0x305).unwrap();
        prop_assert_eq!(bytes.len() % 4, 0);
        prop_assert_eq!(decode(&bytes).unwrap(), message);
    }

    #[test]
    fn objects(
        protocol in any::<u16>(), ip in any::<IpAddr>(), port in any::<u16>(), mark in any::<Option<u32>>(),
        scheduler in "[a-z]{1,15}", flags in any::<u32>(), timeout in any::<u32>(), netmask in any::<u32>(),
        pe in proptest::option::of("[a-z]{1,16}"), weight in any::<i32>(), numbers in any::<[u32; 2]>(),
        tunnel in any::<(u8, u16, u16)>(), method in 0..8u32,
        fullnat in any::<Option<(u8, bool, u8, u16, u16)>>(), sources in any::<Option<(Ipv4Addr, Ipv6Addr, bool)>>(), lens in 1..=128u8,
    ) {
        let id = match mark {
            Some(mark) => ServiceId::fwmark(AddressFamily::of(ip), mark),
            None => ServiceId::address(Protocol(protocol), SocketAddr::new(ip, port)),
        };
        let mut service = Service::new(id, &scheduler);
        service.flags = ServiceFlags(flags);
        service.timeout = timeout;
        service.netmask = netmask;
        service.pe_name = pe;
        service.fullnat = fullnat.map(|(kind, syn, version, min, max)| {
            let mut options = FullNat::default();
            (options.toa_kind, options.toa_on_syn, options.proxy_version) = (kind, syn, version);
            (options.port_min, options.port_max) = (min, max);
            options
        });
        service.tunnels = sources.map(|(v4, v6, clamp)| {
            let mut extras = TunnelExtras::default();
            extras.set_sources(v4.into(), lens);
            if clamp {
                extras.set_sources(v6.into(), lens);
            }
            extras.clamp_mss = clamp;
            extras
        });
        let asks = service.fullnat.is_some() || service.tunnels.is_some();
        prop_assert_eq!(Message::set_service(&service).extension().is_some(), asks);
        let bytes = Message::new_service(&service).encode(28, 1, 5).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap().service().unwrap(), service);

        let mut dest = Dest::new(SocketAddr::new(ip, port), ForwardMethod(method));
        dest.weight = weight;
        [dest.u_thresh, dest.l_thresh] = numbers;
        dest.tun_type = TunnelType(tunnel.0);
        (dest.tun_port, dest.tun_flags) = (tunnel.1, tunnel.2);
        prop_assert_eq!(Message::set_dest(&id, &dest).extension().is_some(), method == 5);
        let bytes = Message::new_dest(&id, &dest).encode(28, 1, 5).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap().dest(AddressFamily::INET).unwrap(), dest);
    }

    #[test]
    fn daemons(
        state in any::<u32>(), interface in "[a-z]{1,15}", sync_id in any::<u32>(), max_len in any::<Option<u16>>(),
        group in any::<Option<IpAddr>>(), port in any::<Option<u16>>(), ttl in any::<Option<u8>>(),
    ) {
        let mut daemon = Daemon::new(DaemonState(state), &interface, sync_id);
        (daemon.max_len, daemon.group, daemon.port, daemon.ttl) = (max_len, group, port, ttl);
        let bytes = Message::new_daemon(&daemon).encode(28, 1, 5).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap().daemon().unwrap(), daemon);
    }

    #[test]
    fn connections(
        protocol in any::<u8>(), ends in any::<[(IpAddr, u16); 3]>(), flags in any::<u32>(), state in any::<u8>(),
        name in "[A-Z_]{1,12}", times in any::<[u32; 3]>(), marks in any::<(u32, Option<u32>, Option<u16>)>(),
        counters in any::<Option<[u64; 4]>>(), change in any::<u8>(), numbers in any::<[u64; 2]>(),
    ) {
        use ConnAttribute as A;
        let [client, virt, dest] = ends.map(SocketAddr::from);
        let mut nest = vec![
            A::Protocol(protocol), A::ClientAddr(client.ip()), A::ClientPort(client.port()), A::VirtAddr(virt.ip()),
            A::VirtPort(virt.port()), A::DestAddr(dest.ip()), A::DestPort(dest.port()), A::Flags(flags), A::State(state),
            A::StateName(name.clone()), A::Expires(times[0].into()), A::Timeout(times[1].into()), A::Fwmark(marks.0),
        ];
        nest.extend(marks.1.map(A::ServiceFwmark));
        nest.extend(marks.2.map(A::ServicePort));
        if let Some([a, b, c, d]) = counters {
            nest.extend([A::InPkts(a), A::InBytes(b), A::OutPkts(c), A::OutBytes(d), A::Age(times[2].into())]);
        }
        let attributes = vec![
            Attribute::Event(change), Attribute::Seq(numbers[0]), Attribute::Lost(numbers[1]), Attribute::Conn(nest),
        ];
        let bytes = Message::new(Command::ConnEvent, attributes).encode(28, 0, 0).unwrap();
        let event = decode(&bytes).unwrap().event().unwrap();
        prop_assert_eq!((u8::from(event.change), event.sequence, event.lost), (change, numbers[0], numbers[1]));
        let Subject::Conn(conn) = event.subject else { panic!("{event:?}") };
        prop_assert_eq!((conn.client, conn.virt, conn.dest), (client, virt, dest));
        prop_assert_eq!((conn.state, conn.state_name.as_str(), conn.flags), (state, name.as_str(), ConnFlags(flags)));
        prop_assert_eq!(conn.expires.as_millis(), u128::from(times[0]));
        prop_assert_eq!((conn.fwmark, conn.service_fwmark, conn.service_port), marks);
        prop_assert_eq!(conn.counters.map(|c| [c.in_pkts, c.in_bytes, c.out_pkts, c.out_bytes]), counters);
    }

    #[test]
    fn locals(ip in any::<IpAddr>(), len in any::<u8>(), interface in proptest::option::of("[a-z]{1,15}"), port in any::<u16>()) {
        let id = ServiceId::address(Protocol::TCP, SocketAddr::new(ip, port));
        let mut local = LocalAddress::prefix(ip, len);
        local.interface = interface;
        for message in [Message::new_local(&id, &local), Message::del_local(&id, &local)] {
            prop_assert!(message.extension().is_some());
            let read = decode(&message.encode(28, 1, 5).unwrap()).unwrap();
            prop_assert_eq!(read.service_id().unwrap(), id);
            prop_assert_eq!(read.local(id.family()).unwrap(), local.clone());
        }
    }

    /// Random bytes, and bytes that are nearly right.
    #[test]
    fn anything_comes_in(command in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(command.into(), &bytes);
    }

    #[test]
    fn damaged_messages(
        attributes in proptest::collection::vec(attribute(), 0..3), at in any::<prop::sample::Index>(),
        with in any::<u8>(), cut in any::<prop::sample::Index>(), command in any::<u8>(),
    ) {
        let message = Message::new(command.into(), attributes);
        let mut bytes = message.encode(28, 1, 5).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = with;
        let cut = cut.index(bytes.len() + 1);
        for part in [bytes.as_slice(), &bytes[..cut]] {
            if let Some(payload) = part.get(20..) {
                // What is understood of it can be written, and means the same then.
                if let Ok(read) = Message::decode(Command::NewService, payload) {
                    let mut again = vec![0xa5; read.buffer_len()];
                    read.emit(&mut again);
                    if read.check().is_ok() && !lossy(&read) {
                        prop_assert_eq!(Message::decode(Command::NewService, &again).unwrap(), read);
                    }
                }
            }
        }
    }
}

/// An unknown attribute with both flag bits: netlink-packet-core writes one of them only.
fn lossy(message: &Message) -> bool {
    format!("{message:?}")
        .split("kind: ")
        .skip(1)
        .filter_map(|rest| rest.split(',').next()?.parse::<u16>().ok())
        .any(|kind| kind >= 0xc000)
}

#[test]
fn too_long_for_an_attribute() {
    let long = "x".repeat(MAX_VALUE_LEN);
    let fits = ServiceAttribute::SchedName("x".repeat(MAX_VALUE_LEN - 1));
    let message = |a| Message::new(Command::NewService, vec![Attribute::Service(vec![a])]);

    // In a nest, the header of the inner attribute has to fit too.
    let inner = ServiceAttribute::SchedName("x".repeat(MAX_VALUE_LEN - 1 - 7));
    message(inner).encode(28, 1, 5).unwrap();
    for (wrong, len) in [
        (ServiceAttribute::SchedName(long.clone()), 65532),
        (fits, 65536),
        (
            ServiceAttribute::Other(Unknown {
                kind: 99,
                value: vec![0; 70000],
            }),
            70000,
        ),
    ] {
        match message(wrong.clone()).encode(28, 1, 5) {
            Err(EncodeError::TooLong { len: found, .. }) => assert_eq!(found, len),
            other => panic!("{other:?}"),
        }
        // The trait can't say no; it must not panic either.
        let message = message(wrong);
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        assert_eq!(
            Message::decode(Command::NewService, &bytes).unwrap(),
            Message::new(Command::NewService, vec![Attribute::Service(vec![])])
        );
    }
    let e = message(ServiceAttribute::SchedName(long))
        .check()
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "service attribute SchedName has 65532 bytes, at most 65531 fit"
    );
    let e = message(ServiceAttribute::PeName("a\0b".to_owned()))
        .check()
        .unwrap_err();
    assert_eq!(
        e.to_string(),
        "service attribute PeName contains a NUL byte"
    );
}

#[test]
fn lengths_are_named() {
    let cases: &[(&[u8], &str)] = &[
        (
            &[9, 0, 1, 0, 5, 0, 4, 0, 1, 0, 0, 0],
            "service attribute Port caused by 1 bytes where 2 are right",
        ),
        (
            &[10, 0, 1, 0, 6, 0, 7, 0, 1, 1, 0, 0],
            "service attribute Flags caused by 2 bytes where 8 are right",
        ),
        (
            &[6, 0, 4, 0, 1, 1, 0, 0],
            "message attribute TimeoutTcp caused by 2 bytes where 4 are right",
        ),
    ];
    for (bytes, text) in cases {
        // Lengths are in the machine's byte order.
        let bytes = if cfg!(target_endian = "big") {
            continue;
        } else {
            bytes
        };
        let e = Message::decode(Command::NewService, bytes).unwrap_err();
        assert!(e.to_string().contains(text), "{e}");
    }
    let mut long = 28u16.to_ne_bytes().to_vec();
    long.extend(1u16.to_ne_bytes());
    long.extend(24u16.to_ne_bytes());
    long.extend(3u16.to_ne_bytes());
    long.extend([0; 20]);
    let e = Message::decode(Command::NewService, &long).unwrap_err();
    assert!(
        e.to_string()
            .contains("service attribute Addr caused by 20 bytes where at most 16 are right"),
        "{e}"
    );
}

#[test]
fn members_that_are_missing_are_named() {
    let e = Message::new(Command::NewService, vec![])
        .service()
        .unwrap_err();
    assert_eq!(e.to_string(), "message attribute Service is missing");
    let id = ServiceId::address(Protocol::TCP, (Ipv4Addr::LOCALHOST, 80).into());
    let e = Message::del_service(&id).service().unwrap_err();
    assert_eq!(e.to_string(), "service attribute Netmask is missing");
    let e = Message::del_dest(&id, (Ipv6Addr::LOCALHOST, 80).into())
        .dest(AddressFamily::INET)
        .unwrap_err();
    assert_eq!(e.to_string(), "destination attribute FwdMethod is missing");
}

/// What a filter asks for, with the flag of nests that rvs wants to see and C's requests don't have.
#[test]
fn filters() {
    let filter = ConnFilter {
        service: Some(ServiceId::fwmark(AddressFamily::INET, 7)),
        protocol: Some(6),
        client: Some(Ipv4Addr::new(10, 1, 2, 3).into()),
        client_prefix: Some(24),
        virt_port: Some(443),
        ..ConnFilter::default()
    };
    let message = Message::get_conns(&filter);
    let bytes = message.encode(28, 1, 0x305).unwrap();
    #[cfg(target_endian = "little")]
    assert_eq!(
        bytes[16..],
        [
            64, 1, 0, 0, // GET_CONN, version 1
            20, 0, 1, 0x80, // SERVICE, nested
            6, 0, 1, 0, 2, 0, 0, 0, // AF
            8, 0, 5, 0, 7, 0, 0, 0, // FWMARK
            36, 0, 64, 0x80, // CONN, nested
            5, 0, 2, 0, 6, 0, 0, 0, // PROTOCOL
            8, 0, 3, 0, 10, 1, 2, 3, // CLIENT_ADDR
            6, 0, 6, 0, 1, 187, 0, 0, // VIRT_PORT
            5, 0, 22, 0, 24, 0, 0, 0, // CLIENT_PREFIX
        ]
    );
    assert_eq!(decode(&bytes).unwrap(), message);
    assert_eq!(
        Message::get_conns(&ConnFilter::default()).attributes,
        vec![]
    );
}

/// What a service is asked for beyond C, byte by byte; nothing, if nothing is said.
#[test]
fn extensions() {
    let id = ServiceId::fwmark(AddressFamily::INET, 7);
    let mut service = Service::new(id, "rr");
    assert_eq!(Message::new_service(&service).extension(), None);
    let plain = Message::new_service(&service)
        .encode(28, 1, 5)
        .unwrap()
        .len();
    let mut extras = TunnelExtras::default();
    extras.set_sources(Ipv4Addr::new(10, 77, 0, 0).into(), 22);
    service.tunnels = Some(extras);
    let mut options = FullNat::default();
    options.toa_kind = FullNat::TOA;
    service.fullnat = Some(options);
    let message = Message::new_service(&service);
    assert_eq!(message.extension(), Some("source addresses of tunnels"));
    let bytes = message.encode(28, 1, 5).unwrap();
    #[cfg(target_endian = "little")]
    assert_eq!(
        bytes[plain..],
        [
            12, 0, 64, 0, 10, 77, 0, 0, 22, 0, 0, 0, // sources over IPv4
            24, 0, 65, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, // none over IPv6
            5, 0, 66, 0, 0, 0, 0, 0, // segments as they are
            5, 0, 72, 0, 254, 0, 0, 0, // the option
            5, 0, 73, 0, 0, 0, 0, 0, // not on SYNs
            5, 0, 74, 0, 0, 0, 0, 0, // no PROXY protocol
            6, 0, 75, 0, 0, 4, 0, 0, // from port 1024
            6, 0, 76, 0, 255, 255, 0, 0, // to 65535
        ]
    );
    assert_eq!(decode(&bytes).unwrap().service().unwrap(), service);
    let local = LocalAddress::prefix(Ipv4Addr::new(10, 77, 0, 16).into(), 28);
    let bytes = Message::new_local(&id, &local).encode(28, 1, 5).unwrap();
    #[cfg(target_endian = "little")]
    assert_eq!(
        bytes[16..],
        [
            18, 1, 0, 0, // NEW_LADDR, version 1
            20, 0, 1, 0, // SERVICE
            6, 0, 1, 0, 2, 0, 0, 0, // AF
            8, 0, 5, 0, 7, 0, 0, 0, // FWMARK
            32, 0, 7, 0, // LADDR
            20, 0, 1, 0, 10, 77, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // ADDR
            5, 0, 72, 0, 28, 0, 0, 0, // PREFIX_LEN
        ]
    );
}

/// What a later kernel adds behind a prefix length doesn't hide the rest.
#[test]
fn sources_have_a_length() {
    for (bytes, fine) in [
        (&[10, 77, 0, 0, 22, 0, 0, 0][..], true),
        (&[10, 77, 0, 0, 22, 9, 9, 9], true),
        (&[10, 77, 0, 0, 22], false),
        (&[10, 77, 0, 0, 22, 0, 0, 0, 0], false),
        (&[], false),
    ] {
        let mut nest = ((8 + bytes.len()) as u16).to_ne_bytes().to_vec();
        nest.extend(1u16.to_ne_bytes());
        nest.extend(((4 + bytes.len()) as u16).to_ne_bytes());
        nest.extend(64u16.to_ne_bytes());
        nest.extend(bytes);
        let read = Message::decode(Command::NewService, &nest);
        assert_eq!(read.is_ok(), fine, "{bytes:?}: {read:?}");
    }
}

/// The numbers of the whole family, as the kernel's uapi header has them.
#[test]
fn numbers() {
    let zero = Address([0; 16]);
    let flags = Flags {
        flags: ServiceFlags(0),
        mask: 0,
    };
    let services = [
        ServiceAttribute::Af(0),
        ServiceAttribute::Protocol(0),
        ServiceAttribute::Addr(zero),
        ServiceAttribute::Port(0),
        ServiceAttribute::Fwmark(0),
        ServiceAttribute::SchedName(String::new()),
        ServiceAttribute::Flags(flags),
        ServiceAttribute::Timeout(0),
        ServiceAttribute::Netmask(0),
        ServiceAttribute::Stats(vec![]),
        ServiceAttribute::PeName(String::new()),
        ServiceAttribute::Stats64(vec![]),
    ];
    let kinds: Vec<u16> = services.iter().map(Nla::kind).collect();
    assert_eq!(kinds, (1..=12).collect::<Vec<u16>>());
    for number in 0..=u8::MAX {
        assert_eq!(u8::from(Command::from(number)), number);
    }
    assert_eq!(u8::from(Command::Flush), 17);
    assert_eq!(u8::from(Command::GetInfo), 15);
    assert_eq!(u8::from(Command::NewLaddr), 18);
    assert_eq!(u8::from(Command::GetLaddr), 20);
    assert_eq!(Attribute::Laddr(vec![]).kind(), 7);
    let nothing = Sources::new(Ipv4Addr::UNSPECIFIED, 0);
    assert_eq!(ServiceAttribute::TunSourcesV4(nothing).kind(), 64);
    assert_eq!(ServiceAttribute::TunMss(0).kind(), 66);
    assert_eq!(ServiceAttribute::ToaKind(0).kind(), 72);
    assert_eq!(ServiceAttribute::ToaRemoved(0).kind(), 81);
    assert_eq!(DestAttribute::FullNat(0).kind(), 72);
    assert_eq!(LocalAttribute::PrefixLen(0).kind(), 72);
    assert_eq!(u8::from(Command::GetConn), 64);
    assert_eq!(u8::from(Command::ConnEvent), 70);
    assert_eq!(Attribute::Conn(vec![]).kind(), 64);
    assert_eq!(Attribute::ConnSeq(0).kind(), 69);
}
