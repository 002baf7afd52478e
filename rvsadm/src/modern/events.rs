// SPDX-License-Identifier: GPL-2.0-or-later

//! `events`: what the kernel announces, a line each.

use std::io::Write;
use std::time::SystemTime;

use rvs_netlink::client::Client;
use rvs_netlink::{Change, Event, Group, Subject};

use super::cli::{Events, Topic};
use super::conns::Conn;
use super::model::{words, Method};
use super::output::{Failure, Paint, Tone};
use super::show;

fn verb(change: Change) -> String {
    match change {
        Change::New => "new".to_owned(),
        Change::Changed => "changed".to_owned(),
        Change::Deleted => "deleted".to_owned(),
        other => format!("event-{}", u8::from(other)),
    }
}

/// For people.
fn text(event: &Event) -> String {
    match &event.subject {
        Subject::Service(service) => format!("service {}", show::headline(service)),
        Subject::Dest(id, dest) => format!(
            "real server {} of {}, {}, weight {}",
            dest.addr,
            words(id),
            Method::of_kernel(dest.method),
            dest.weight
        ),
        Subject::Conn(conn) => {
            let conn = Conn::from(conn.clone());
            format!(
                "connection {} {} -> {} -> {} {}",
                conn.protocol, conn.client, conn.service, conn.real, conn.state
            )
        }
        _ => "something this program doesn't know".to_owned(),
    }
}

/// For programs.
fn value(event: &Event, time: &str, missed: u64) -> Result<serde_json::Value, Failure> {
    let mut value = serde_json::json!({
        "time": time,
        "event": verb(event.change),
        "sequence": event.sequence,
    });
    if missed > 0 {
        value["missed_before"] = missed.into();
    }
    match &event.subject {
        Subject::Service(service) => {
            value["service"] = serde_json::to_value(show::full(service, &[], &[]))?;
            // Nothing is said about these.
            if let Some(service) = value["service"].as_object_mut() {
                service.remove("real_servers");
            }
        }
        Subject::Dest(id, dest) => {
            value["service"] = words(id).into();
            value["real_server"] = serde_json::to_value(show::full_real(dest))?;
        }
        Subject::Conn(conn) => {
            value["connection"] = serde_json::to_value(Conn::from(conn.clone()))?;
        }
        _ => {}
    }
    Ok(value)
}

pub(super) fn follow(args: &Events, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let groups: &[Group] = match args.topic {
        Topic::Config => &[Group::Config],
        Topic::Conns => &[Group::Conns],
        Topic::All => &[Group::Config, Group::Conns],
    };
    let mut events = Client::open()?.events(groups)?;
    // What is numbered after this and doesn't come was missed.
    events.since(&Client::open()?.event_counts()?);
    let paint = Paint::stdout();
    for (told, event) in (1u64..).zip(events) {
        let (event, missed) = event?;
        let now = SystemTime::now();
        let time = humantime::format_rfc3339_millis(now).to_string();
        if as_json {
            serde_json::to_writer(&mut *out, &value(&event, &time, missed)?)?;
            out.write_all(b"\n")?;
        } else {
            if missed > 0 {
                let line = format!("{time} {missed} events were missed");
                writeln!(out, "{}", paint.paint(Tone::Bad, &line))?;
            }
            let tone = match event.change {
                Change::New => Tone::Good,
                Change::Deleted => Tone::Bad,
                _ => Tone::Changed,
            };
            let verb = paint.paint(tone, &format!("{:<7}", verb(event.change)));
            writeln!(out, "{time} {verb} {}", text(&event))?;
        }
        out.flush()?;
        if args.count.is_some_and(|count| told >= count) {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rvs_netlink::{Attribute, Command, Dest, ForwardMethod, Message, Protocol, ServiceId};

    use super::*;

    #[test]
    fn lines() {
        let id = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse().unwrap());
        let dest = Dest::new("10.0.0.1:8080".parse().unwrap(), ForwardMethod::MASQ);
        let mut attributes = vec![Attribute::Event(3), Attribute::Seq(7)];
        attributes.extend(Message::new_dest(&id, &dest).attributes);
        let event = Message::new(Command::DestEvent, attributes)
            .event()
            .unwrap();
        assert_eq!(
            format!("{} {}", verb(event.change), text(&event)),
            "deleted real server 10.0.0.1:8080 of tcp 192.0.2.1:80, nat, weight 1"
        );
        let json = value(&event, "now", 2).unwrap();
        assert_eq!(json["missed_before"], 2);
        assert_eq!(json["service"], "tcp 192.0.2.1:80");
        assert_eq!(json["real_server"]["weight"], 1);
    }
}
