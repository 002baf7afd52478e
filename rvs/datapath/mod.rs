// SPDX-License-Identifier: GPL-2.0-only

//! The packet path: netfilter hooks in, the network stack out (`ip_vs_core.c`, `ip_vs_xmit.c`).
//!
//! The C module hangs two hooks at LOCAL_IN and LOCAL_OUT, one that looks for replies and one that looks for requests. Here
//! the first of each pair looks a packet up once and deals with it whichever way it goes; the second only schedules what
//! belongs to no connection yet.
//!
//! - [`packet`]: what the network header says
//! - [`hooks`]: the hook functions
//! - [`input`]: from the client: connections found and made
//! - [`output`]: to the client
//! - [`carry`]: how real servers behind FullNAT learn clients' addresses
//! - [`ftp`]: what is said on control connections, and the data connections of that
//! - [`fullnat`]: local ports, and replies to local addresses
//! - [`icmp`]: ICMP errors about either
//! - [`state`]: the protocols' states
//! - [`track`]: netfilter's connection tracking
//! - [`xmit`]: on to the real server, one file for each forwarding method

mod carry;
mod ftp;
mod fullnat;
mod hooks;
mod icmp;
mod input;
mod output;
mod packet;
mod state;
mod track;
mod xmit;

pub(crate) use ftp::expected;
pub(crate) use hooks::Hooks;
