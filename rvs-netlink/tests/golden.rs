// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bytes of the kernel's C module (`golden.txt`), answers and the requests that it carried out: they mean what was configured, and are
//! emitted again byte for byte.

// The bytes are of a little-endian machine.
#![cfg(target_endian = "little")]

use std::collections::BTreeSet;
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
            let (command, hex) = rest.split_once(' ').unwrap_or((rest, ""));
            let command = Command::from(command.parse::<u8>().unwrap());
            let mut bytes = bytes(hex);
            let message = Message::decode(command, &bytes).unwrap();
            if name.starts_with("request_") {
                unflagged(&mut bytes);
            }
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

/// Takes the flag of nests from the outermost attributes: ipvsadm's library sets it, the kernel accepts either and never sets it.
fn unflagged(bytes: &mut [u8]) {
    let mut at = 0;
    while at < bytes.len() {
        bytes[at + 3] &= 0x7f;
        let len = u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        at += usize::from(len).next_multiple_of(4);
    }
}

fn one(name: &str) -> Message {
    let mut all = golden(name);
    assert_eq!(all.len(), 1, "{name}");
    all.remove(0)
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

    // Each says which family it is of, whatever its service's is.
    let mixed = one("dest_mixed").dest(AddressFamily::INET).unwrap();
    assert_eq!(mixed.addr, addr("[2001:db8::4]:80"));
    assert_eq!(mixed.method, ForwardMethod::TUNNEL);
    let gre = one("dest_gre").dest(AddressFamily::INET).unwrap();
    assert_eq!(gre.addr, addr("10.0.0.4:80"));
    assert_eq!(
        (gre.tun_type, gre.tun_port, gre.tun_flags),
        (TunnelType::GRE, 0, 0)
    );
    let mark = one("dest_mark6").dest(AddressFamily::INET6).unwrap();
    assert_eq!(
        (mark.addr, mark.method),
        (addr("[2001:db8::2]:0"), ForwardMethod::ROUTE)
    );
}

/// What ipvsadm asked for is what this crate reads in it, and what this crate asks for has the same meaning.
#[test]
fn requests() {
    let web = ServiceId::address(Protocol::TCP, addr("192.0.2.1:80"));
    let mark = ServiceId::fwmark(AddressFamily::INET6, 7);

    let mut service = Service::new(web, "wrr");
    service.flags = ServiceFlags::PERSISTENT;
    (service.timeout, service.netmask) = (100, 0xffff_ff00);
    same("request_new_service", &Message::new_service(&service));
    let mut service = Service::new(mark, "mh");
    service.flags = ServiceFlags::SCHED2;
    same("request_new_service_mark", &Message::new_service(&service));
    let sip = ServiceId::address(Protocol::UDP, addr("192.0.2.1:5060"));
    let mut service = Service::new(sip, "wlc");
    service.flags = ServiceFlags::PERSISTENT | ServiceFlags::ONE_PACKET;
    (service.timeout, service.pe_name) = (60, Some("sip".to_owned()));
    same("request_new_service_sip", &Message::new_service(&service));
    same(
        "request_set_service",
        &Message::set_service(&Service::new(web, "rr")),
    );

    let dest = |text: &str, method| Dest::new(addr(text), method);
    let mut nat = dest("10.0.0.2:8080", ForwardMethod::MASQ);
    (nat.weight, nat.u_thresh, nat.l_thresh) = (3, 100, 50);
    same("request_new_dest", &Message::new_dest(&web, &nat));
    (nat.weight, nat.u_thresh, nat.l_thresh) = (5, 0, 0);
    same("request_set_dest", &Message::set_dest(&web, &nat));
    let mut gue = dest("10.0.0.3:80", ForwardMethod::TUNNEL);
    gue.tun_type = TunnelType::GUE;
    (gue.tun_port, gue.tun_flags) = (6080, 1);
    same("request_new_dest_gue", &Message::new_dest(&web, &gue));
    let mut gre = dest("10.0.0.4:80", ForwardMethod::TUNNEL);
    gre.tun_type = TunnelType::GRE;
    same("request_new_dest_gre", &Message::new_dest(&web, &gre));
    let mixed = dest("[2001:db8::4]:80", ForwardMethod::TUNNEL);
    same("request_new_dest_mixed", &Message::new_dest(&web, &mixed));
    let v6 = dest("[2001:db8::2]:0", ForwardMethod::ROUTE);
    same("request_new_dest_v6", &Message::new_dest(&mark, &v6));

    // Of these, only what identifies something counts.
    for (name, ours) in [
        ("request_del_service", Message::del_service(&web)),
        ("request_get_service", Message::get_service(&web)),
        ("request_get_dests", Message::get_dests(&web)),
        ("request_zero_service", Message::zero(Some(&web))),
        ("request_del_dest", Message::del_dest(&web, nat.addr)),
    ] {
        let theirs = one(name);
        assert_eq!(theirs.command, ours.command, "{name}");
        assert_eq!(theirs.service_id().unwrap(), web, "{name}");
        assert_eq!(ours.service_id().unwrap(), web, "{name}");
    }
    let theirs = one("request_del_dest").dest(AddressFamily::INET).unwrap();
    assert_eq!(theirs.addr, nat.addr);

    let mut daemon = Daemon::new(DaemonState::MASTER, "d0", 5);
    (daemon.max_len, daemon.port, daemon.ttl) = (Some(1400), Some(9000), Some(3));
    daemon.group = Some("ff02::99".parse().unwrap());
    assert_eq!(one("request_new_daemon").daemon().unwrap(), daemon);
    let mut backup = Daemon::new(DaemonState::BACKUP, "d0", 6);
    backup.group = Some("224.0.0.99".parse().unwrap());
    let theirs = one("request_new_daemon_backup");
    assert_eq!(theirs, Message::new_daemon(&backup));
    let none = Daemon::new(DaemonState::BACKUP, "", 0);
    let theirs = one("request_del_daemon");
    assert_eq!(theirs, Message::del_daemon(&none));

    let timeouts = Timeouts {
        tcp: 901,
        tcp_fin: 121,
        udp: 301,
    };
    assert_eq!(one("request_set_config"), Message::set_config(&timeouts));
    // Those that say nothing but the command.
    for (name, ours) in [
        ("request_get_services", Message::get_services()),
        ("request_get_daemons", Message::get_daemons()),
        ("request_get_config", Message::get_config()),
        ("request_get_info", Message::get_info()),
        ("request_zero", Message::zero(None)),
        ("request_flush", Message::flush()),
    ] {
        assert_eq!(one(name), ours, "{name}");
    }
}

/// The same command about the same things.
fn same(name: &str, ours: &Message) {
    let theirs = one(name);
    assert_eq!(theirs.command, ours.command, "{name}");
    let read = |message: &Message| {
        let id = message.service_id().unwrap();
        // Requests about destinations have ipvsadm's whole idea of the service, with an empty scheduler.
        let service = message.service().ok();
        let dest = message.dest(id.family()).ok();
        (id, service.filter(|_| dest.is_none()), dest)
    };
    assert_eq!(read(&theirs), read(ours), "{name}");
}

/// Every command and attribute of the family is somewhere in `golden.txt`.
#[test]
fn everything_is_there() {
    let mut commands = BTreeSet::new();
    // By the outermost attribute, or 0 for the outermost themselves.
    let mut seen: Vec<BTreeSet<u16>> = vec![BTreeSet::new(); 70];
    let mut stats = [BTreeSet::new(), BTreeSet::new()];
    for line in include_str!("golden.txt").lines() {
        let mut words = line.split(' ').filter(|_| !line.starts_with('#')).skip(1);
        let Some(command) = words.next() else {
            continue;
        };
        let command: u8 = command.parse().unwrap();
        commands.insert(command);
        let bytes = bytes(words.next().unwrap_or_default());
        for (kind, value) in attributes(&bytes) {
            if command == 14 {
                continue;
            }
            seen[0].insert(kind);
            if !matches!(kind, 1..=3 | 7 | 64) {
                continue;
            }
            for (inner, value) in attributes(value) {
                seen[usize::from(kind)].insert(inner);
                let nest = match (kind, inner) {
                    (1 | 2, 10) => 0,
                    (1 | 2, 12) => 1,
                    _ => continue,
                };
                stats[nest].extend(attributes(value).map(|(kind, _)| kind));
            }
        }
    }
    let all = |ranges: &[std::ops::RangeInclusive<u16>]| -> BTreeSet<u16> {
        ranges.iter().cloned().flatten().collect()
    };
    // The numbers of `include/uapi/linux/ip_vs.h`, and of rvs's extensions after them.
    let want: BTreeSet<u8> = (1..=18).chain([65, 67, 68, 69, 70]).collect();
    assert_eq!(commands, want);
    assert_eq!(seen[0], all(&[1..=7, 64..=69]), "messages");
    assert_eq!(seen[1], all(&[1..=12, 64..=66, 72..=81]), "services");
    assert_eq!(seen[2], all(&[1..=15, 72..=72]), "destinations");
    assert_eq!(seen[3], all(&[1..=8]), "daemons");
    for nest in &stats {
        assert_eq!(*nest, all(&[1..=10]), "counters");
    }
}

/// Types without flags, and values.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else {
            return None;
        };
        let len = usize::from(u16::from_le_bytes([a, b]));
        let value = &bytes[4..len];
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_le_bytes([c, d]) & 0x3fff, value))
    })
}

#[test]
fn the_rest() {
    let daemon = one("daemon").daemon().unwrap();
    assert_eq!(daemon.state, DaemonState::BACKUP);
    assert_eq!((daemon.interface.as_str(), daemon.sync_id), ("lo", 5));
    assert_eq!(daemon.max_len, Some(1400));
    assert_eq!(daemon.group, Some([224, 0, 0, 99].into()));
    assert_eq!((daemon.port, daemon.ttl), (Some(9000), Some(3)));
    let daemon = one("daemon_v6").daemon().unwrap();
    assert_eq!(daemon.state, DaemonState::MASTER);
    assert_eq!(daemon.group, Some("ff02::99".parse().unwrap()));
    // What wasn't asked for has the kernel's defaults in its answer.
    let daemon = one("daemon_defaults").daemon().unwrap();
    assert_eq!(
        (daemon.max_len, daemon.port, daemon.ttl),
        (Some(1472), Some(8848), Some(1))
    );
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
