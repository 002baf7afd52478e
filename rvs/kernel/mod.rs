// SPDX-License-Identifier: GPL-2.0-only

//! Safe abstractions over the C interfaces that rvs uses: the only place with `unsafe` beside the bindings.
//!
//! Nothing here knows what a service or a connection is. The folder is `rvs/kernel`; the module is called `os` so that
//! `kernel` keeps meaning the `kernel` crate.

pub(crate) mod app;
pub(crate) mod atomic;
pub(crate) mod conntrack;
pub(crate) mod cpu;
pub(crate) mod genl;
pub(crate) mod kthread;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod net;
pub(crate) mod netfilter;
pub(crate) mod nlattr;
pub(crate) mod nlmsg;
pub(crate) mod notifier;
pub(crate) mod once;
pub(crate) mod one_of;
pub(crate) mod percpu;
pub(crate) mod pernet;
pub(crate) mod proc;
pub(crate) mod random;
pub(crate) mod rcu;
pub(crate) mod rival;
pub(crate) mod route;
pub(crate) mod skb;
pub(crate) mod slab;
pub(crate) mod sockopt;
pub(crate) mod stack;
pub(crate) mod sysctl;
pub(crate) mod table;
pub(crate) mod time;
pub(crate) mod tunnel;
pub(crate) mod udp;
pub(crate) mod wheel;
pub(crate) mod work;
