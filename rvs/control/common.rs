// SPDX-License-Identifier: GPL-2.0-only

//! What netlink and socket options have in common: checks of settings, and timeouts.

use crate::{
    dest,
    netns::Netns,
    refusal::Refusal,
    HZ, //
};
use kernel::{
    prelude::*,
    str::CStr, //
};
use rvs_core::{
    proto::{
        tcp,
        udp, //
    },
    thresholds::Invalid,
    timeout::{
        self,
        OutOfRange, //
    },
    uapi::{
        dest_attr,
        tun_type, //
    }, //
};

/// Why a setting was refused, and which: by the number of its netlink attribute.
pub(super) struct Wrong {
    /// The reason.
    pub(super) refusal: Refusal,
    /// Of `dest_attr`.
    pub(super) attr: u16,
}

impl Wrong {
    const fn new(error: Error, text: &'static CStr, attr: u16) -> Self {
        let refusal = Refusal::new(error, text);
        Self { refusal, attr }
    }
}

/// Checks what a destination shall be, in the order of C `ip_vs_add_dest()` and `ip_vs_edit_dest()`.
pub(super) fn dest(settings: &dest::Settings) -> Result<(), Wrong> {
    if settings.weight < 0 {
        return Err(Wrong::new(ERANGE, c"weight is negative", dest_attr::WEIGHT));
    }
    settings
        .thresholds
        .check()
        .map_err(|invalid| match invalid {
            Invalid::Crossed => Wrong::new(
                ERANGE,
                c"lower threshold is above the upper one",
                dest_attr::L_THRESH,
            ),
            Invalid::TooHigh => {
                Wrong::new(EINVAL, c"upper threshold is too high", dest_attr::U_THRESH)
            }
        })?;
    if settings.tun_type == tun_type::GUE && settings.tun_port == 0 {
        return Err(Wrong::new(
            EINVAL,
            c"a GUE tunnel needs a port",
            dest_attr::TUN_TYPE,
        ));
    }
    Ok(())
}

/// What connections live without packets: of established TCP connections, after a FIN, of UDP.
pub(super) struct Timeouts<T> {
    pub(super) tcp: T,
    pub(super) tcp_fin: T,
    pub(super) udp: T,
}

impl Timeouts<Option<u32>> {
    /// A timeout in jiffies, given in seconds; `None`: stays as it is.
    pub(super) fn parse(secs: i32) -> Result<Option<u32>, OutOfRange> {
        timeout::configured(secs, HZ)
    }

    /// Sets those that are there: C `ip_vs_set_timeout()`.
    pub(super) fn set(&self, netns: &Netns) {
        netns.configure(|_| {
            let timeouts = &netns.timeouts;
            if let Some(jiffies) = self.tcp {
                timeouts.set_tcp(tcp::State::ESTABLISHED, jiffies);
            }
            if let Some(jiffies) = self.tcp_fin {
                timeouts.set_tcp(tcp::State::FIN_WAIT, jiffies);
            }
            if let Some(jiffies) = self.udp {
                timeouts.set_udp(udp::State::NORMAL, jiffies);
            }
        });
    }
}

impl Timeouts<u32> {
    /// Those of a namespace in seconds: C `__ip_vs_get_timeouts()`.
    pub(super) fn of(netns: &Netns) -> Self {
        let timeouts = &netns.timeouts;
        Self {
            tcp: HZ.to_secs_u32(timeouts.tcp(tcp::State::ESTABLISHED)),
            tcp_fin: HZ.to_secs_u32(timeouts.tcp(tcp::State::FIN_WAIT)),
            udp: HZ.to_secs_u32(timeouts.udp(udp::State::NORMAL)),
        }
    }
}
