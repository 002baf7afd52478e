// SPDX-License-Identifier: GPL-2.0-only

//! What the tunnels of a service have beyond C (docs/tunnel-extras.md).

use super::Service;
use crate::os::rcu::{
    Held,
    RcuBox, //
};
use kernel::prelude::*;
use rvs_core::{
    addr::{
        Addr,
        Family, //
    },
    tunnel::Sources, //
};

/// The extras of a service's tunnels; a service without any has none of these.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TunnelExtras {
    /// The sources of packets over IPv4.
    pub(crate) v4: Option<Sources>,
    /// The sources of packets over IPv6.
    pub(crate) v6: Option<Sources>,
    /// Whether segments are made to fit.
    pub(crate) clamp: bool,
}

impl TunnelExtras {
    /// The source of a flow's packets over a family; `None`: the route's.
    pub(crate) fn source(&self, outer: Family, hash: impl FnOnce() -> u32) -> Option<Addr> {
        let sources = match outer {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        sources.map(|sources| sources.pick(hash()))
    }
}

/// Changed extras, which nothing can fail about any more.
pub(crate) struct Prepared(Option<RcuBox<TunnelExtras>>);

impl TunnelExtras {
    /// Gets ready to give these to a service. May sleep.
    pub(crate) fn prepare(self) -> Result<Prepared> {
        if self == Self::default() {
            return Ok(Prepared(None));
        }
        Ok(Prepared(Some(RcuBox::new(self, GFP_KERNEL)?)))
    }
}

impl Service {
    /// What its tunnels have beyond C, if anything.
    #[inline]
    pub(crate) fn tunnel_extras<'g>(&'g self, g: &'g Held) -> Option<&'g TunnelExtras> {
        self.tunnel.load(g)
    }

    /// Gives its tunnels extras; with the configuration locked.
    pub(crate) fn set_tunnel_extras(&self, prepared: Prepared) {
        self.tunnel.replace(prepared.0);
    }
}
