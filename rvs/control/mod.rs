// SPDX-License-Identifier: GPL-2.0-only

//! What configures and shows: netlink, socket options, `/proc`, sysctls; and the work that a namespace does in the background.
//!
//! C file: `ip_vs_ctl.c`

mod common;
pub(crate) mod netlink;
mod proc;
pub(crate) mod sockopt;
pub(crate) mod sysctl;

use crate::{
    datapath,
    module_parameters,
    netns::Netns,
    os::{
        conntrack::{
            self,
            Expected,
            Expects, //
        },
        memory,
        net::Handle,
        pernet::{
            Id,
            PerNet, //
        },
        rcu::Held,
        work::Job, //
    },
    refusal::Refusal,
    service::{
        lblc,
        trash::SWEEP, //
    },
    sync::{
        Config,
        Daemons, //
    },
    HZ, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    estimate::PERIOD_SECS,
    sched::Kind,
    table::Limits, //
};

static ID: Id = Id::new();

/// A network namespace as configuration sees it.
///
/// The fields are dropped in this order: first what reaches the namespace from outside, then what works in the
/// background, at last the namespace.
pub(crate) struct Control {
    _sysctl: sysctl::Files,
    _proc: KBox<proc::Files>,
    /// Stopped in `pre_exit()`.
    daemons: Arc<Daemons>,
    estimator: Job<Netns>,
    keeper: Job<Netns>,
    reaper: Job<Netns>,
    sweeper: Job<Netns>,
    clearer: Job<Netns>,
    sizer: Arc<Job<Netns>>,
    netns: Contents,
}

impl Control {
    /// The namespace as packets see it.
    pub(crate) fn netns(&self) -> &Arc<Netns> {
        &self.netns.0
    }

    /// The synchronisation daemons.
    fn daemons(&self) -> &Daemons {
        &self.daemons
    }

    /// Starts a daemon, and the work that connections need: see [`Daemons::start()`].
    fn start_daemon(
        &self,
        state: u32,
        config: Config,
        checks_families: bool,
    ) -> Result<(), Refusal> {
        self.daemons.start(state, config, checks_families)?;
        self.sizer.start(1);
        self.keeper.start(1);
        Ok(())
    }

    /// Removes all services.
    fn flush(&self) {
        let netns = self.netns();
        netns.configure(|config| netns.flush(config));
        self.lost_dest();
    }

    /// Starts the work that a namespace with services needs.
    fn has_service(&self) {
        self.sizer.start(1);
        self.estimator.start(HZ.from_secs_u32(PERIOD_SECS));
        self.keeper.start(1);
    }

    /// Starts the work that a service of this scheduler needs.
    fn has_scheduler(&self, kind: Kind) {
        if kind.has_cache() {
            self.clearer.start(lblc::PERIOD);
        }
    }

    /// Starts the work that a new destination needs.
    fn has_dest(&self) {
        self.sizer.start(1);
    }

    /// Starts the work that removed destinations need: their connections end soon, if the namespace wants that (C
    /// `ip_vs_enqueue_expire_nodest_conns()`), and they themselves some time later.
    fn lost_dest(&self) {
        self.sizer.start(1);
        self.sweeper.start(SWEEP);
        if self.netns().sysctl.expire_nodest_conn() {
            self.reaper.start(1);
        }
    }
}

/// How large connection tables may be: module parameter `conn_tab_bits`, and no larger than memory allows.
pub(crate) fn conn_limits() -> Limits {
    let bits = module_parameters::conn_tab_bits.value();
    Limits::connections(bits, memory::total())
}

/// Estimates rates.
fn estimate(netns: &Netns) -> Option<u32> {
    netns.estimation()
}

/// Ends connections in time.
fn keep(netns: &Netns) -> Option<u32> {
    let conns = netns.conns()?;
    let again = conns.tick();
    if conns.is_unfit() {
        netns.needs_fitting();
    }
    Some(again)
}

/// Ends the connections of removed destinations.
fn reap(netns: &Netns) -> Option<u32> {
    if let Some(conns) = netns.conns() {
        conns.flush_nodest();
    }
    None
}

/// Fits the sizes of tables to what they hold, now that it changed.
fn fit(netns: &Netns) -> Option<u32> {
    netns.fit_tables();
    None
}

/// Lets removed destinations go that are idle.
fn sweep(netns: &Netns) -> Option<u32> {
    netns.sweep_trash().then_some(SWEEP)
}

/// Clears the caches of lblc and lblcr.
fn clear(netns: &Netns) -> Option<u32> {
    netns.clear_caches().then_some(lblc::PERIOD)
}

// Not inlined many times into one frame.
#[inline(never)]
fn job(netns: &Arc<Netns>, run: fn(&Netns) -> Option<u32>) -> Result<Job<Netns>> {
    Job::new(netns.clone(), run)
}

impl PerNet for Control {
    fn id() -> &'static Id {
        &ID
    }

    fn init(net: Handle) -> Result<KBox<Self>> {
        let netns = Netns::new(net, conn_limits())?;
        let sizer = Arc::new(job(&netns, fit)?, GFP_KERNEL)?;
        netns.set_sizer(sizer.starter())?;
        // Written where it stays: it is large for a stack.
        let init = try_init!(Self {
            _proc: proc::Files::new(&netns)?,
            _sysctl: sysctl::Files::new(&netns, &sizer)?,
            daemons: Daemons::new(netns.clone())?,
            estimator: job(&netns, estimate)?,
            keeper: job(&netns, keep)?,
            reaper: job(&netns, reap)?,
            sweeper: job(&netns, sweep)?,
            clearer: job(&netns, clear)?,
            sizer,
            netns: Contents(netns),
        }? Error);
        KBox::try_init(init, GFP_KERNEL)
    }

    fn pre_exit(&self) {
        self.netns().stop_hooks();
        self.daemons.stop_all();
    }

    fn device_down(&self, g: &Held) {
        self.netns().forget_routes(g);
    }
}

impl Expects for Control {
    fn expected(&self, flow: &conntrack::Flow, g: &Held) -> Expected {
        match self.netns().conns() {
            Some(conns) => datapath::expected(conns, flow, g),
            None => Expected::Unknown,
        }
    }
}

/// A namespace that is emptied when it goes: C `__ip_vs_service_cleanup()`, `ip_vs_conn_net_cleanup()`.
struct Contents(Arc<Netns>);

impl Drop for Contents {
    fn drop(&mut self) {
        self.0.configure(|config| self.0.flush(config));
        if let Some(conns) = self.0.conns() {
            conns.flush();
        }
    }
}
