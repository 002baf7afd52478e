// SPDX-License-Identifier: GPL-2.0-or-later

//! The wire test's packets: what is sent ([`gen`], built by [`build`]), and when what comes out of the director is the
//! same for both modules ([`compare`]).

pub mod build;
pub mod compare;
pub mod gen;
