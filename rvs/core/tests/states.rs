// SPDX-License-Identifier: GPL-2.0-only

//! The state tables against the specification, written down a second time as text.
//!
//! `A B->C` means that states A and B become C; what is not listed stays.

use proptest::prelude::*;
use rvs_core::proto::{
    self,
    sctp,
    tcp,
    template,
    udp,
    Direction, //
};

const DIRECTIONS: [(&str, Direction); 3] = [
    ("IN", Direction::Input),
    ("OUT", Direction::Output),
    ("IN-ONLY", Direction::InputOnly),
];

/// Applies `A B->C; D->E` to `next`, which holds what each state becomes.
fn apply(next: &mut [u8], rules: &str, names: &[&str]) {
    let number = |name: &str| {
        let at = names.iter().position(|n| *n == name);
        at.unwrap_or_else(|| panic!("no state {name}"))
    };
    for rule in rules.split(';') {
        let (from, to) = rule.trim().split_once("->").expect("a rule");
        for from in from.split_whitespace() {
            next[number(from)] = number(to) as u8;
        }
    }
}

const TCP: [&str; 11] = [
    "NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA",
];

const TCP_NORMAL: &str = "
    IN      SYN  NO FW TW CL CW LA LI SA->SR; SS->ES
    IN      FIN  NO->CL; ES->CW; SR FW SA->TW
    IN      ACK  NO SR SA->ES; LA->CL
    IN      RST  NO ES SS FW TW CW->CL; SA->SR
    OUT     SYN  NO FW TW CL CW LA->SS; SA->SR
    OUT     FIN  NO SR CW SA->TW; ES->FW
    OUT     ACK  NO SR LI SA->ES
    OUT     RST  NO ES SR FW CW LA LI SA->CL
    IN-ONLY SYN  NO FW TW CL CW LA LI SA->SR; SS->ES
    IN-ONLY FIN  NO->CL; ES->FW; SR SA->TW
    IN-ONLY ACK  NO SR SA->ES; LA->CL
    IN-ONLY RST  NO ES SS FW TW CW SA->CL
";

/// What secure_tcp changes.
const TCP_DOS: &str = "
    IN      SYN  SA->SA
    IN      FIN  SA->SA
    IN      ACK  SR->SR; SA->SA
    IN      RST  SA->CL
    OUT     SYN  SR->SA; SA->SA
    IN-ONLY SYN  NO FW TW CL CW LA LI SA->SA; SR->SR
";

const TCP_EVENTS: [(&str, u8); 4] = [
    ("SYN", tcp::Flags::SYN),
    ("FIN", tcp::Flags::FIN),
    ("ACK", tcp::Flags::ACK),
    ("RST", tcp::Flags::RST),
];

fn rules<'a>(table: &'a str, dir: &'a str, event: &'a str) -> impl Iterator<Item = &'a str> {
    table.lines().filter_map(move |line| {
        let (d, rest) = line.trim().split_once(char::is_whitespace)?;
        let (e, rules) = rest.trim().split_once(char::is_whitespace)?;
        (d == dir && e == event).then_some(rules.trim())
    })
}

#[test]
fn tcp_tables() {
    let mut checked = 0;
    for (table, texts) in [
        (tcp::Table::Normal, &[TCP_NORMAL][..]),
        (tcp::Table::Dos, &[TCP_NORMAL, TCP_DOS][..]),
    ] {
        for (dir_name, dir) in DIRECTIONS {
            for (event_name, flag) in TCP_EVENTS {
                let mut next: Vec<u8> = (0..11).collect();
                for text in texts {
                    for rule in rules(text, dir_name, event_name) {
                        apply(&mut next, rule, &TCP);
                        checked += 1;
                    }
                }
                for (state, want) in (0..).zip(next) {
                    assert_eq!(
                        tcp::transition(table, dir, state, flag),
                        want,
                        "{table:?} {dir_name} {event_name} {}",
                        TCP[usize::from(state)]
                    );
                }
            }
        }
    }
    // Every line was found: the normal ones twice.
    assert_eq!(checked, 12 * 2 + 6);
}

#[test]
fn tcp_event_priority() {
    use tcp::{
        Event,
        Flags, //
    };
    for flags in 0..=u8::MAX {
        let want = if flags & 0x04 != 0 {
            Some(Event::Rst)
        } else if flags & 0x02 != 0 {
            Some(Event::Syn)
        } else if flags & 0x01 != 0 {
            Some(Event::Fin)
        } else if flags & 0x10 != 0 {
            Some(Event::Ack)
        } else {
            None
        };
        assert_eq!(tcp::event(Flags(flags)), want, "{flags:#x}");
    }
}

#[test]
fn tcp_without_event_closes() {
    for (_, dir) in DIRECTIONS {
        for state in 0..tcp::State::LAST {
            // PSH, URG, ECE, CWR, or nothing.
            for flags in [0, 0x08, 0x20, 0x40, 0x80, 0xe8] {
                assert_eq!(
                    tcp::transition(tcp::Table::Normal, dir, state, flags),
                    tcp::State::CLOSE
                );
            }
        }
    }
}

#[test]
fn tcp_handshake_as_seen_in_the_middle() {
    use Direction::{
        Input,
        Output, //
    };
    let walk = |table, steps: &[(Direction, u8)]| {
        steps.iter().fold(tcp::State::NONE, |state, (dir, flags)| {
            tcp::transition(table, *dir, state, *flags)
        })
    };
    let open = [(Input, 0x02), (Output, 0x12), (Input, 0x10)];
    assert_eq!(walk(tcp::Table::Normal, &open), tcp::State::ESTABLISHED);
    let close = [
        (Input, 0x02),
        (Output, 0x12),
        (Input, 0x10),
        (Input, 0x11),
        (Output, 0x11),
        (Input, 0x10),
    ];
    assert_eq!(walk(tcp::Table::Normal, &close), tcp::State::TIME_WAIT);
    // Under attack only the server's word counts.
    assert_eq!(walk(tcp::Table::Dos, &open[..2]), tcp::State::SYNACK);
}

#[test]
fn tcp_facts() {
    assert_eq!(
        tcp::DEFAULT_TIMEOUT_SECS,
        [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120, 2]
    );
    let names: Vec<_> = (0..12).map(tcp::state_name).collect();
    assert_eq!(
        names.join(" "),
        "NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN \
         SYNACK ERR!"
    );
    assert_eq!(tcp::state_name(255), "ERR!");
    let active: Vec<_> = (0..=255).filter(|s| tcp::is_active(*s)).collect();
    assert_eq!(active, [1, 2, 3, 10]);

    let flags = tcp::Flags;
    assert!(flags(0x02).may_schedule(false) && flags(0x12).may_schedule(false));
    assert!(!flags(0x10).may_schedule(false) && flags(0x10).may_schedule(true));
    assert!(!flags(0x06).may_schedule(false) && !flags(0x04).may_schedule(true));
    assert!(flags(0x12).is_new_conn() && !flags(0x10).is_new_conn());

    let reusable: Vec<_> = (0..11)
        .filter(|s| tcp::expects_new_conn(*s, 1, true))
        .collect();
    assert_eq!(reusable, [5, 6]);
    assert!(tcp::expects_new_conn(4, 2, true) && !tcp::expects_new_conn(4, 2, false));
}

#[test]
fn udp_facts() {
    assert_eq!(udp::DEFAULT_TIMEOUT_SECS, [300, 2]);
    assert_eq!(udp::state_name(0), "UDP");
    assert_eq!(udp::state_name(1), "ERR!");
    for (_, dir) in DIRECTIONS {
        assert_eq!(udp::transition(dir, 0), 0);
    }
    assert!(!udp::is_active(0));
}

const SCTP: [&str; 14] = [
    "NO", "I1", "IN", "CS", "CR", "CW", "CO", "CE", "ES", "SS", "SR", "SA", "RJ", "CL",
];

/// `all but X->Y` is spelled out by hand.
const SCTP_TABLE: &str = "
    IN      DATA  NO->ES
    OUT     DATA  NO->ES
    IN-ONLY DATA  NO CW->ES
    IN      INIT  NO->I1; I1 RJ CL->IN
    OUT     INIT  NO I1 IN CS CR CW CO CE SS SR SA RJ CL->CW
    IN-ONLY INIT  NO->I1; I1 CS CR CW RJ CL->IN
    IN      INIT-ACK  NO I1 IN->CW; CW->CO
    OUT     INIT-ACK  NO I1 IN->CS
    IN-ONLY INIT-ACK  NO I1 IN CS CR CW->CE
    IN      COOKIE-ECHO  NO CS->CR; I1->IN
    OUT     COOKIE-ECHO  NO I1 IN CS CR CW CO->CE
    IN-ONLY COOKIE-ECHO  NO I1 IN CS CR CW->ES
    IN      COOKIE-ACK  NO CE->ES
    OUT     COOKIE-ACK  NO I1 IN CS CR CW CO CE->ES
    IN-ONLY COOKIE-ACK  NO CS CR CO CE->ES
    IN      SHUTDOWN  NO ES->SR
    OUT     SHUTDOWN  NO I1 IN CS CR CW CO CE ES->SS
    IN-ONLY SHUTDOWN  NO ES->SR
    IN      SHUTDOWN-ACK  NO SS SA->CL; I1->IN
    OUT     SHUTDOWN-ACK  NO I1 IN CS CR SS SR->SA
    IN-ONLY SHUTDOWN-ACK  NO ES SS SA->CL; I1->IN
    IN      SHUTDOWN-COMPLETE  NO I1 IN SA->CL
    OUT     SHUTDOWN-COMPLETE  NO->CL
    IN-ONLY SHUTDOWN-COMPLETE  NO I1 IN CS CR SR SA->CL
    IN      ERROR  NO CE->CL
    OUT     ERROR  NO I1 IN CS CR->CL
    IN-ONLY ERROR  NO->CL
    IN      ABORT  NO I1 IN CS CR CO CE ES SS SR SA RJ->CL; CW->RJ
    OUT     ABORT  NO IN CS CR CW CO CE ES SS SR SA RJ->CL; I1->RJ
    IN-ONLY ABORT  NO I1 IN CS CR CO CE ES SS SR SA RJ->CL; CW->RJ
";

const SCTP_EVENTS: [(&str, sctp::Event, &[u8]); 10] = [
    (
        "DATA",
        sctp::Event::Data,
        &[0, 3, 4, 5, 12, 13, 15, 64, 255],
    ),
    ("INIT", sctp::Event::Init, &[1]),
    ("INIT-ACK", sctp::Event::InitAck, &[2]),
    ("COOKIE-ECHO", sctp::Event::CookieEcho, &[10]),
    ("COOKIE-ACK", sctp::Event::CookieAck, &[11]),
    ("SHUTDOWN", sctp::Event::Shutdown, &[7]),
    ("SHUTDOWN-ACK", sctp::Event::ShutdownAck, &[8]),
    ("SHUTDOWN-COMPLETE", sctp::Event::ShutdownComplete, &[14]),
    ("ERROR", sctp::Event::Error, &[9]),
    ("ABORT", sctp::Event::Abort, &[6]),
];

#[test]
fn sctp_table() {
    let mut checked = 0;
    for (dir_name, dir) in DIRECTIONS {
        for (event_name, event, chunks) in SCTP_EVENTS {
            let mut next: Vec<u8> = (0..14).collect();
            for rule in rules(SCTP_TABLE, dir_name, event_name) {
                apply(&mut next, rule, &SCTP);
                checked += 1;
            }
            for chunk in chunks {
                assert_eq!(sctp::Event::of_chunk(*chunk), event);
            }
            for (state, want) in (0..).zip(next) {
                assert_eq!(
                    sctp::transition(dir, state, event),
                    want,
                    "{dir_name} {event_name} {}",
                    SCTP[usize::from(state)]
                );
            }
        }
    }
    assert_eq!(checked, 30);
}

#[test]
fn sctp_facts() {
    assert_eq!(
        sctp::DEFAULT_TIMEOUT_SECS,
        [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61, 2]
    );
    let names: Vec<_> = (0..15).map(sctp::state_name).collect();
    assert_eq!(
        names.join(" "),
        "NONE INIT1 INIT C-SENT C-REPLIED C-WAIT COOKIE C-ECHOED ESTABLISHED S-SENT S-RECEIVED \
         S-ACK-SENT REJECTED CLOSED ERR!"
    );
    let active: Vec<_> = (0..=255).filter(|s| sctp::is_active(*s)).collect();
    assert_eq!(active, [8]);
    assert!(sctp::may_schedule(1, false) && !sctp::may_schedule(0, false));
    assert!(sctp::may_schedule(0, true) && !sctp::may_schedule(6, true));
    assert!(sctp::expects_new_conn(13) && !sctp::expects_new_conn(12));
}

#[test]
fn sctp_event_of_a_packet() {
    let packet = |chunks: &[u8]| {
        let mut p = vec![0xa5; 12];
        p.extend(chunks);
        p
    };
    let event = |chunks: &[u8]| sctp::event(&packet(chunks)[..], 0);
    assert_eq!(event(&[]), None);
    assert_eq!(event(&[1, 0, 0]), None);
    assert_eq!(event(&[1, 0, 0, 20]), Some(sctp::Event::Init));
    // A cookie chunk of five bytes, padded to eight, then ABORT.
    let cookie = [10, 0, 0, 5, 1, 0, 0, 0];
    let mut bundled = cookie.to_vec();
    assert_eq!(event(&bundled), Some(sctp::Event::CookieEcho));
    bundled.extend([6, 0, 0, 4]);
    assert_eq!(event(&bundled), Some(sctp::Event::Abort));
    bundled[8] = 0;
    assert_eq!(event(&bundled), Some(sctp::Event::CookieEcho));
    // An impossible length hides what follows.
    assert_eq!(
        event(&[11, 0, 0, 3, 6, 0, 0, 4]),
        Some(sctp::Event::CookieAck)
    );
    assert_eq!(event(&[11, 0, 0xff, 0xff, 6]), Some(sctp::Event::CookieAck));
    // Only cookie chunks are looked behind.
    assert_eq!(event(&[0, 0, 0, 4, 6, 0, 0, 4]), Some(sctp::Event::Data));
    // At the end of the address space.
    assert_eq!(sctp::event(&[0_u8; 4][..], usize::MAX), None);
}

#[test]
fn names_of_states() {
    assert_eq!(proto::state_name(6, false, 1), "ESTABLISHED");
    assert_eq!(proto::state_name(17, false, 0), "UDP");
    assert_eq!(proto::state_name(132, false, 13), "CLOSED");
    assert_eq!(proto::state_name(0, false, 0), "NONE");
    // AH has no names.
    assert_eq!(proto::state_name(51, false, 0), "ERR!");
    assert_eq!(proto::state_name(6, true, 1), "ASSURED");
    assert_eq!(proto::state_name(0, true, 0), "NONE");
    assert_eq!(proto::state_name(6, true, 2), "ERR!");
    assert_eq!(template::state_name(1), "ASSURED");
}

proptest! {
    #[test]
    fn tables_never_leave_their_states(state: u8, byte: u8, dir in 0..3_usize, dos: bool) {
        let dir = DIRECTIONS[dir].1;
        let table = if dos { tcp::Table::Dos } else { tcp::Table::Normal };
        prop_assert!(tcp::transition(table, dir, state, byte) < tcp::State::LAST);
        let event = sctp::Event::of_chunk(byte);
        prop_assert!(sctp::transition(dir, state, event) < sctp::State::LAST);
    }

    #[test]
    fn sctp_events_of_anything(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0..70_usize) {
        let event = sctp::event(&bytes[..], at);
        prop_assert_eq!(event.is_some(), bytes.len() >= at + 16);
    }
}
