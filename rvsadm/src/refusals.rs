// SPDX-License-Identifier: GPL-2.0-or-later

//! What a refused request was about, and what would be right, for the kernel says little or nothing: C `ip_vs` an errno only.

use std::net::SocketAddr;

use rvs_netlink::{Attribute, Command, DaemonState, DestAttribute, Message, Service, ServiceId};

/// Those that are known, by the names of ipvsadm; one that is a module of its own is loaded when it is first asked for.
pub(crate) const SCHEDULERS: [&str; 14] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "twos",
];

const ENOENT: i32 = 2;

/// The words of a service.
pub(crate) fn words(id: &ServiceId) -> String {
    match id {
        ServiceId::Fwmark { family, mark } if *family == rvs_netlink::AddressFamily::INET6 => {
            format!("fwmark6 {mark}")
        }
        other => other.to_string(),
    }
}

/// What a request names: a real server of a service, a service, a daemon, timeouts.
pub(crate) fn about(message: &Message) -> Option<String> {
    if let Ok(daemon) = message.daemon() {
        let state = if daemon.state == DaemonState::MASTER {
            "master"
        } else {
            "backup"
        };
        return Some(match daemon.interface.as_str() {
            "" => state.to_owned(),
            interface => format!("{state} on {interface}"),
        });
    }
    if let Ok(timeouts) = message.timeouts() {
        return Some(format!(
            "timeouts {} {} {}",
            timeouts.tcp, timeouts.tcp_fin, timeouts.udp
        ));
    }
    let id = message.service_id().ok()?;
    let service = words(&id);
    Some(
        match (real_server(message, &id), message.local(id.family())) {
            (Some(real), _) => format!("real server {real} of {service}"),
            (None, Ok(local)) => {
                let local = crate::extension::local_text(&local);
                format!("local address {local} of {service}")
            }
            (None, Err(_)) => service,
        },
    )
}

/// The real server that a request is about.
fn real_server(message: &Message, id: &ServiceId) -> Option<SocketAddr> {
    let (mut ip, mut port, mut family) = (None, None, id.family());
    for attribute in &message.attributes {
        let Attribute::Dest(nest) = attribute else {
            continue;
        };
        for attribute in nest {
            match attribute {
                DestAttribute::Addr(v) => ip = Some(*v),
                DestAttribute::Port(v) => port = Some(*v),
                DestAttribute::AddrFamily(v) => family.0 = *v,
                _ => {}
            }
        }
    }
    Some(SocketAddr::new(ip?.to_ip(family)?, port?))
}

/// Which scheduler or persistence engine a service can't have, and what would be right.
pub(crate) fn missing_engine(service: &Service) -> String {
    let name = &service.scheduler;
    let mut text = if SCHEDULERS.contains(&name.as_str()) {
        format!("scheduler {name} isn't loaded: `modprobe ip_vs_{name}` loads that of C ip_vs")
    } else {
        format!("scheduler {name}: {} are right", SCHEDULERS.join(", "))
    };
    match service.pe_name.as_deref() {
        None => {}
        Some("sip") if SCHEDULERS.contains(&name.as_str()) => text.push_str(
            "; or persistence engine sip isn't: `modprobe ip_vs_pe_sip` loads that of C ip_vs",
        ),
        Some("sip") => {}
        // Of two that may be wrong, this one certainly is.
        Some(pe) => {
            let other = if SCHEDULERS.contains(&name.as_str()) {
                String::new()
            } else {
                format!("; {text}")
            };
            text = format!("persistence engine {pe}: sip is right{other}");
        }
    }
    text
}

/// As [`missing_engine`], if that is what the errno means.
pub(crate) fn engine_of(message: &Message, errno: i32) -> Option<String> {
    match (message.command, errno) {
        (Command::NewService | Command::SetService, ENOENT) => {
            message.service().ok().map(|s| missing_engine(&s))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_netlink::{Daemon, Dest, ForwardMethod, LocalAddress, Protocol, Timeouts};

    #[test]
    fn what_it_was_about() {
        let id = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse().unwrap());
        let dest = Dest::new("10.0.0.1:80".parse().unwrap(), ForwardMethod::MASQ);
        let local = LocalAddress::prefix("10.7.0.16".parse().unwrap(), 28);
        let daemon = Daemon::new(DaemonState::MASTER, "eth0", 1);
        for (message, want) in [
            (Message::del_service(&id), Some("tcp 192.0.2.1:80")),
            (
                Message::new_dest(&id, &dest),
                Some("real server 10.0.0.1:80 of tcp 192.0.2.1:80"),
            ),
            (
                Message::del_dest(&id, dest.addr),
                Some("real server 10.0.0.1:80 of tcp 192.0.2.1:80"),
            ),
            (
                Message::del_local(&id, &local),
                Some("local address 10.7.0.16/28 of tcp 192.0.2.1:80"),
            ),
            (Message::new_daemon(&daemon), Some("master on eth0")),
            (
                Message::set_config(&Timeouts {
                    tcp: 1,
                    tcp_fin: 2,
                    udp: 3,
                }),
                Some("timeouts 1 2 3"),
            ),
            (Message::flush(), None),
        ] {
            assert_eq!(about(&message).as_deref(), want);
        }
    }

    #[test]
    fn engines() {
        let id = ServiceId::address(Protocol::UDP, "192.0.2.1:5060".parse().unwrap());
        let text = |scheduler: &str, pe: Option<&str>| {
            let mut service = Service::new(id, scheduler);
            service.pe_name = pe.map(str::to_owned);
            engine_of(&Message::new_service(&service), ENOENT).unwrap()
        };
        assert!(text("mh", None).contains("modprobe ip_vs_mh"));
        assert!(text("maglev", None).starts_with("scheduler maglev: rr, wrr"));
        assert!(text("rr", Some("sip")).contains("modprobe ip_vs_pe_sip"));
        assert!(!text("maglev", Some("sip")).contains("modprobe"));
        assert_eq!(
            text("rr", Some("h323")),
            "persistence engine h323: sip is right"
        );
    }
}
