// SPDX-License-Identifier: GPL-2.0-only

//! What a scheduler remembers between two picks: C `sched_data`.
//!
//! Everything here happens under the service's scheduler lock, with bottom halves off: nothing sleeps, what is allocated is
//! small and may fail.

use super::{
    lblc::{
        self,
        Clearance,
        Lblc,
        Lblcr, //
    },
    Backends,
    Flow, //
};
use crate::control::sysctl::Sysctl;
use kernel::prelude::*;
use rvs_core::sched::{
    Change,
    Kind,
    Options,
    Pick,
    State, //
};

/// The memory of a scheduler.
pub(crate) enum Memory {
    /// Of those that remember a place in the list, or nothing.
    State(State),
    /// The cache of lblc.
    Lblc(KBox<Lblc>),
    /// The cache of lblcr.
    Lblcr(KBox<Lblcr>),
}

impl Memory {
    /// For a service without destinations. May sleep.
    pub(crate) fn new(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Lblc => Self::Lblc(KBox::new(Lblc::new()?, GFP_KERNEL)?),
            Kind::Lblcr => Self::Lblcr(KBox::new(Lblcr::new()?, GFP_KERNEL)?),
            _ => Self::State(State::new(kind)),
        })
    }

    /// For these destinations: C `init_service()`. May sleep.
    pub(crate) fn with_pool(kind: Kind, backends: &Backends) -> Result<Self> {
        let mut memory = Self::new(kind)?;
        if let Self::State(state) = &mut memory {
            *state = State::with_pool(kind, backends);
        }
        Ok(memory)
    }

    /// That of a service that is gone.
    pub(crate) const fn none() -> Self {
        Self::State(State::None)
    }

    /// Chooses a destination of those that the memory belongs to.
    pub(crate) fn pick(&mut self, backends: &Backends, flow: &Flow<'_>, options: Options) -> Pick {
        match self {
            Self::State(state) => state.pick(backends, flow, options),
            Self::Lblc(cache) => lblc::lblc(cache, backends, flow),
            Self::Lblcr(cache) => lblc::lblcr(cache, backends, flow),
        }
    }

    /// Takes note of a change, of which `backends` is the outcome.
    pub(crate) fn on_change(&mut self, change: Change, backends: &Backends) {
        match (self, change) {
            (Self::State(state), _) => state.on_change(change, backends),
            (Self::Lblc(cache), Change::Removed(_)) => cache.lost_dest(),
            (Self::Lblcr(cache), Change::Removed(_)) => cache.lost_dest(),
            (Self::Lblc(_) | Self::Lblcr(_), _) => {}
        }
    }

    /// At the end of a period: what is to be cleared; `None` without a cache.
    pub(crate) fn tick(&mut self, sysctl: &Sysctl) -> Option<Clearance> {
        match self {
            Self::State(_) => None,
            Self::Lblc(cache) => Some(cache.tick(sysctl.lblc_expiration())),
            Self::Lblcr(cache) => Some(cache.tick(sysctl.lblcr_expiration())),
        }
    }

    /// Clears one chain of the cache; returns whether there is more to clear.
    pub(crate) fn clear_some(&mut self, clearance: &mut Clearance) -> bool {
        match self {
            Self::State(_) => false,
            Self::Lblc(cache) => cache.clear_some(clearance),
            Self::Lblcr(cache) => cache.clear_some(clearance),
        }
    }
}
