// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first byte is the command, the rest the attributes. Whatever can be read can be written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use netlink_packet_core::Emitable;
use rvs_netlink::{AddressFamily, Message};

fuzz_target!(|data: &[u8]| {
    let Some((command, attributes)) = data.split_first() else {
        return;
    };
    let Ok(message) = Message::decode((*command).into(), attributes) else {
        return;
    };
    let _ = (
        message.service(),
        message.dest(AddressFamily::INET),
        message.daemon(),
    );
    let _ = (
        message.timeouts(),
        message.info(),
        message.local(AddressFamily::INET6),
        message.extension(),
    );
    let _ = (message.conn(), message.event(), message.event_counts());
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    let again = Message::decode(message.command, &bytes).expect("what was written can be read");
    let mut twice = vec![0; again.buffer_len()];
    again.emit(&mut twice);
    assert_eq!(bytes, twice);
});
