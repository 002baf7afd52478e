// SPDX-License-Identifier: GPL-2.0-or-later

//! Scenario tests of rvs: what boots guests and what runs in them.
//!
//! A scenario is one file in [`scenarios`]. It builds namespaces ([`topo`]), configures IPVS by
//! `ipvsadm` or by raw netlink ([`ipvs`]), sends real or crafted traffic ([`serve`], [`rig`]) and
//! checks what comes out. Every scenario is written against the C module first; `PEER=rvs` then
//! runs the very same code.

pub mod ext;
pub mod ftp;
pub mod fullnat;
pub mod genl;
pub mod guest;
pub mod ipvs;
pub mod klog;
pub mod matrix;
pub mod modules;
pub mod ns;
pub mod pkt;
pub mod proc;
pub mod requests;
pub mod rig;
pub mod scenario;
pub mod scenarios;
pub mod serve;
pub mod sockopt;
pub mod sync;
pub mod tap;
pub mod topo;
pub mod wait;
pub mod wire;
