// SPDX-License-Identifier: GPL-2.0-only

//! rvs: IPVS, the load balancer of the Linux kernel, in Rust.
//!
//! # Words
//!
//! - *Service*: a virtual address (with protocol and port, or a firewall mark) that clients talk to.
//! - *Destination*, *real server*: what a service passes connections on to.
//! - *Connection*: what is remembered of a client's flow to a service, so that its packets stay together.
//! - *Persistence*: a client's later connections go where its first one went.
//! - *Template*: the entry in the connection table that persistence goes by.
//! - *Scheduler*: what chooses a destination for a new connection.
//!
//! # Where things are
//!
//! ```text
//! control/   netlink, sockopt, /proc ...  conn/      the connection table
//! netns      what a namespace has         datapath/  hooks, and what happens to packets
//! service    virtual services             core/      crate rvs_core: what needs no kernel
//! dest       real servers                 kernel/    safe abstractions over C interfaces
//! fullnat    what it has per namespace
//! sync       what other directors are told, and tell
//! stats      counters and rates           bindings/  those C interfaces
//! ```
//!
//! # Locks
//!
//! Packets take none but those of a chain of the connection table, of a scheduler with a memory, of a destination that crosses a
//! threshold, and of what a master of synchronisation sends. Configuration takes, in this order: the namespace's configuration (a mutex), a scheduler's
//! state, a chain, a destination's load, statistics.

#![crate_name = "rvs"]
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod bindings;
mod conn;
mod control;
mod datapath;
mod dest;
mod fullnat;
mod netns;
#[path = "kernel/mod.rs"]
#[allow(unsafe_code)]
mod os;
mod refusal;
mod service;
mod stats;
mod sync;

use crate::{
    control::{
        netlink,
        sockopt,
        Control, //
    },
    os::{
        conntrack::Expectations,
        genl,
        module,
        notifier::DeviceDown,
        pernet,
        rival,
        slab, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::timeout::Hz;

/// Jiffies per second.
const HZ: Hz = Hz::new(os::time::HZ);

module! {
    type: Rvs,
    name: "rvs",
    authors: ["The rvs authors"],
    description: "IP Virtual Server in Rust",
    license: "GPL",
    alias: [
        "ip_vs",
        "ip_vs_rr",
        "ip_vs_wrr",
        "ip_vs_lc",
        "ip_vs_wlc",
        "ip_vs_fo",
        "ip_vs_ovf",
        "ip_vs_lblc",
        "ip_vs_lblcr",
        "ip_vs_dh",
        "ip_vs_sh",
        "ip_vs_mh",
        "ip_vs_sed",
        "ip_vs_nq",
        "ip_vs_twos",
        "net-pf-16-proto-16-family-IPVS",
    ],
    params: {
        conn_tab_bits: i32 {
            default: 12,
            description: "Maximum size of a connection table, as a power of two",
        },
    },
}

/// The module; the fields are dropped in this order.
struct Rvs {
    // No more commands.
    _sockopt: Pin<KBox<os::sockopt::Registration<sockopt::Options>>>,
    _netlink: Pin<KBox<genl::Registration<netlink::Family>>>,
    _devices: Pin<KBox<DeviceDown<Control>>>,
    // Files, hooks, services and connections of all namespaces; then what netfilter expects for them.
    _netns: Arc<pernet::Registration<Control>>,
    _expectations: Expectations<Control>,
    // What is freed after a grace period is freed.
    _rcu: module::Barrier,
    // The C module may come again.
    _rival: Pin<KBox<rival::Refused>>,
    // The memory that all was in.
    _caches: [slab::Registration; 5],
}

impl kernel::Module for Rvs {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let caches = [
            conn::CACHE.register(c"rvs_conn")?,
            conn::TAILS.register(c"rvs_conn_v6")?,
            service::SERVICES.register(c"rvs_service")?,
            service::SERVERS.register(c"rvs_server")?,
            service::trash::CACHE.register(c"rvs_removed")?,
        ];
        let rcu = module::Barrier::new();
        let rival = KBox::pin_init(rival::Refused::new(c"ip_vs"), GFP_KERNEL)?;
        // First the name, which tells whether the files' names are free: the C module has both or none. Commands that
        // come before the rest is there are told to try again.
        let netlink = KBox::pin_init(genl::Registration::new(netlink::Family::new()), GFP_KERNEL)
            .inspect_err(|err| {
                if *err == EEXIST {
                    pr_err!("cannot load: module ip_vs is loaded and owns the generic netlink family IPVS; rmmod ip_vs first\n");
                }
            })?;
        let netns = Arc::pin_init(pernet::Registration::new(), GFP_KERNEL)?;
        let devices = KBox::pin_init(DeviceDown::new(netns.clone()), GFP_KERNEL)?;
        let expectations = Expectations::new(netns.clone());
        netlink.handler().start(netns.clone());
        // Last: a call could come at once, and nothing may fail then.
        let sockopt = KBox::pin_init(
            os::sockopt::Registration::new(sockopt::Options::new(netns.clone())),
            GFP_KERNEL,
        )?;
        pr_info!(
            "loaded: TCP, UDP, SCTP, AH, ESP; connection tables of up to {} buckets\n",
            control::conn_limits().max_size()
        );
        Ok(Self {
            _sockopt: sockopt,
            _netlink: netlink,
            _devices: devices,
            _netns: netns,
            _expectations: expectations,
            _rcu: rcu,
            _rival: rival,
            _caches: caches,
        })
    }
}
