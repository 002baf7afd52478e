// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bytes of the kernel's C module (`golden.txt`): they mean what was configured, and are emitted again byte for byte.

// The bytes are of a little-endian machine.
#![cfg(target_endian = "little")]

use std::net::SocketAddr;

use netlink_packet_core::Emitable;
use rvs_netlink::*;

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The answers of a name.
fn golden(name: &str) -> Vec<Message> {
    let messages: Vec<Message> = include_str!("golden.txt")
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .map(|rest| {
            let (command, hex) = rest.split_once(' ').unwrap();
            let command = Command::from(command.parse::<u8>().unwrap());
            let bytes = bytes(hex);
            let message = Message::decode(command, &bytes).unwrap();
            let mut again = vec![0xa5; message.buffer_len()];
            message.emit(&mut again);
            assert_eq!(again, bytes, "{name} emitted again");
            assert_eq!(message.unknown().count(), 0);
            message
        })
        .collect();
    assert!(!messages.is_empty(), "no {name} in golden.txt");
    messages
}

fn one(name: &str) -> Message {
    golden(name).remove(0)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn services() {
    let service = one("service_v4_persistent").service().unwrap();
    assert_eq!(
        service.id,
        ServiceId::address(Protocol::TCP, addr("192.0.2.1:80"))
    );
    assert_eq!(service.scheduler, "wrr");
    assert_eq!(
        service.flags,
        ServiceFlags::PERSISTENT | ServiceFlags::HASHED
    );
    assert_eq!(service.timeout, 100);
    assert_eq!(service.netmask, 0xffff_ff00);
    assert_eq!(service.pe_name, None);
    assert_eq!(service.stats, Some(Stats::default()));

    let service = one("service_v6").service().unwrap();
    assert_eq!(
        service.id,
        ServiceId::address(Protocol::UDP, addr("[2001:db8::1]:53"))
    );
    assert_eq!(service.flags.settable(), ServiceFlags::SCHED2);
    assert_eq!(service.netmask, 128);

    let service = one("service_fwmark6").service().unwrap();
    assert_eq!(service.id, ServiceId::fwmark(AddressFamily::INET6, 7));

    let service = one("service_sip").service().unwrap();
    assert_eq!(service.pe_name.as_deref(), Some("sip"));
    assert!(service.flags.contains(ServiceFlags::ONE_PACKET));
}

#[test]
fn destinations() {
    let dests: Vec<Dest> = golden("dest_v4")
        .iter()
        .map(|message| message.dest(AddressFamily::INET).unwrap())
        .collect();
    let [tunnel, nat] = dests.as_slice() else {
        panic!("{dests:?}")
    };
    assert_eq!(tunnel.addr, addr("10.0.0.3:80"));
    assert_eq!(tunnel.method, ForwardMethod::TUNNEL);
    assert_eq!(
        (tunnel.tun_type, tunnel.tun_port, tunnel.tun_flags),
        (TunnelType::GUE, 6080, 1)
    );
    assert_eq!(nat.addr, addr("10.0.0.2:8080"));
    assert_eq!(nat.method, ForwardMethod::MASQ);
    assert_eq!((nat.weight, nat.u_thresh, nat.l_thresh), (3, 100, 50));
    assert_eq!(nat.stats, Some(Stats::default()));

    let v6 = one("dest_v6").dest(AddressFamily::INET6).unwrap();
    assert_eq!(v6.addr, addr("[2001:db8::2]:53"));
}

#[test]
fn the_rest() {
    let daemon = one("daemon").daemon().unwrap();
    assert_eq!(daemon.state, DaemonState::BACKUP);
    assert_eq!((daemon.interface.as_str(), daemon.sync_id), ("lo", 5));
    assert_eq!(daemon.max_len, Some(1400));
    assert_eq!(daemon.group, Some([224, 0, 0, 99].into()));
    assert_eq!((daemon.port, daemon.ttl), (Some(9000), Some(3)));
    assert_eq!(
        one("config").timeouts().unwrap(),
        Timeouts {
            tcp: 901,
            tcp_fin: 121,
            udp: 301
        }
    );
    let info = one("info").info().unwrap();
    assert_eq!(info.version_parts(), [1, 2, 1]);
    assert_eq!(info.conn_tab_size, 256);
}

#[test]
fn events() {
    let id = ServiceId::address(Protocol::UDP, addr("10.0.0.1:53"));
    let event = one("event_service").event().unwrap();
    assert_eq!((event.change, event.sequence), (Change::New, 1));
    assert_eq!(event.group(), Group::Config);
    match event.subject {
        Subject::Service(service) => {
            assert_eq!((service.id, service.scheduler.as_str()), (id, "rr"));
        }
        other => panic!("{other:?}"),
    }
    let event = one("event_dest").event().unwrap();
    assert_eq!((event.change, event.sequence), (Change::New, 2));
    match event.subject {
        Subject::Dest(of, dest) => {
            assert_eq!(
                (of, dest.addr, dest.weight),
                (id, addr("127.0.0.1:5353"), 3)
            );
        }
        other => panic!("{other:?}"),
    }
    let event = one("event_conn").event().unwrap();
    assert_eq!((event.change, event.sequence), (Change::New, 1));
    assert_eq!(event.group(), Group::Conns);
    assert!(matches!(event.subject, Subject::Conn(conn) if conn.service() == id));
    assert_eq!(
        one("event_counts").event_counts().unwrap(),
        EventCounts::default()
    );
}

#[test]
fn connections() {
    let conn = one("conn").conn().unwrap();
    assert_eq!(conn.protocol, Protocol::UDP);
    assert_eq!(conn.client.ip(), addr("10.0.0.1:1").ip());
    assert_eq!(conn.virt, addr("10.0.0.1:53"));
    assert_eq!(conn.dest, addr("127.0.0.1:5353"));
    assert_eq!(conn.flags.method(), ForwardMethod::MASQ);
    assert_eq!(conn.state_name, "UDP");
    assert_eq!(conn.timeout.as_secs(), 300);
    assert_eq!((conn.service_fwmark, conn.service_port), (None, None));
    let counters = conn.counters.unwrap();
    assert_eq!((counters.in_pkts, counters.in_bytes), (1, 34));
}

#[test]
fn fullnat() {
    let service = one("service_fullnat").service().unwrap();
    let options = service.fullnat.unwrap();
    assert_eq!(
        (options.toa_kind, options.toa_on_syn, options.proxy_version),
        (253, true, 0)
    );
    assert_eq!((options.port_min, options.port_max), (2000, 65000));
    let counts = service.fullnat_stats.unwrap();
    assert_eq!(
        (counts.locals, counts.exhausted, counts.toa_added),
        (3, 0, 0)
    );
    let tunnels = service.tunnels.unwrap();
    assert!(tunnels.clamp_mss);
    let sources: Vec<String> = tunnels
        .sources()
        .map(|(ip, len)| format!("{ip}/{len}"))
        .collect();
    assert_eq!(sources, ["10.77.8.0/22", "fd77::/64"]);

    let dest = one("dest_fullnat").dest(AddressFamily::INET).unwrap();
    assert_eq!(dest.addr, addr("10.0.0.2:8080"));
    assert_eq!(dest.method, ForwardMethod::FULLNAT);

    let locals: Vec<LocalAddress> = golden("locals")
        .iter()
        .map(|message| message.local(AddressFamily::INET).unwrap())
        .collect();
    let shown: Vec<(String, u8, Option<&str>)> = locals
        .iter()
        .map(|l| (l.addr.to_string(), l.prefix_len, l.interface.as_deref()))
        .collect();
    assert_eq!(
        shown,
        [
            ("10.77.0.16".to_owned(), 31, None),
            ("10.77.0.17".to_owned(), 31, None),
        ]
    );
    assert!(locals.iter().all(|l| (l.conns, l.conflicts) == (0, 0)));
    // An interface's name ends in a zero.
    let hex = include_str!("golden.txt")
        .lines()
        .find_map(|line| line.strip_prefix("interface 18 "))
        .unwrap();
    let message = Message::decode(Command::NewLaddr, &bytes(hex)).unwrap();
    let local = message.local(AddressFamily::INET).unwrap();
    assert_eq!(
        (
            local.addr.to_string().as_str(),
            local.prefix_len,
            local.interface.as_deref()
        ),
        ("10.77.1.1", 32, Some("lo"))
    );
}
