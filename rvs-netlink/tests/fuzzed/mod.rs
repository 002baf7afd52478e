// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the fuzz target (`fuzz/fuzz_targets/message.rs`) and the test `fuzz` do with bytes that come in.

use netlink_packet_core::Emitable;
use rvs_netlink::{AddressFamily, Message};

/// The first byte is the command, the rest the attributes. Nothing panics, and whatever can be read can be written.
pub(crate) fn message(data: &[u8]) {
    let Some((command, attributes)) = data.split_first() else {
        return;
    };
    let Ok(message) = Message::decode((*command).into(), attributes) else {
        return;
    };
    let _ = (
        message.service_id(),
        message.service(),
        message.dest(AddressFamily::INET),
        message.dest(AddressFamily::INET6),
        message.daemon(),
    );
    let _ = (
        message.timeouts(),
        message.info(),
        message.local(AddressFamily::INET),
        message.local(AddressFamily::INET6),
        message.extension(),
    );
    let _ = (message.conn(), message.event(), message.event_counts());
    // What was read is made into a request again, as a client does that restores what it has listed.
    if let Ok(service) = message.service() {
        let _ = Message::new_service(&service).encode(28, 1, 5);
        if let Ok(dest) = message.dest(service.id.family()) {
            let _ = Message::new_dest(&service.id, &dest).encode(28, 1, 5);
        }
        if let Ok(local) = message.local(service.id.family()) {
            let _ = Message::new_local(&service.id, &local).encode(28, 1, 5);
        }
        if let Some(tunnels) = &service.tunnels {
            let _ = tunnels.sources().count();
        }
    }
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    let again = Message::decode(message.command, &bytes).expect("what was written can be read");
    let mut twice = vec![0; again.buffer_len()];
    again.emit(&mut twice);
    assert_eq!(bytes, twice);
}
