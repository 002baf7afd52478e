// SPDX-License-Identifier: GPL-2.0-only

//! The sysctls under `net.ipv4.vs`: C `vs_vars`.
//!
//! A sysctl is here exactly if what it steers is here. Values, defaults, ranges and errors are C's.

use crate::{
    netns::Netns,
    os::{
        atomic::I32,
        net::Net,
        sysctl::{
            Registration,
            Var,
            Writer, //
        },
        work::Job, //
    },
    HZ, //
};
use kernel::{
    ffi::c_int,
    prelude::*,
    sync::Arc, //
};
use rvs_core::{
    sched::lblc,
    table::{
        CONN_LFACTOR_INIT_NET,
        LFACTOR_MAX,
        LFACTOR_MIN,
        LFACTOR_OTHER_NET,
        SVC_LFACTOR_INIT_NET, //
    }, //
};

/// The most connections there can be: C `IP_VS_CONN_MAX`.
const CONN_MAX: i32 = if usize::BITS == 64 { 1 << 30 } else { 1 << 24 };

/// `conn_max` of the first namespace, which new ones start with.
static FIRST_CONN_MAX: I32 = I32::new(CONN_MAX);

/// The values of one namespace.
pub(crate) struct Sysctl {
    is_first: bool,
    conn_max: I32,
    /// How high who is not the host's administrator may set `conn_max`.
    conn_max_limit: I32,
    snat_reroute: I32,
    expire_nodest_conn: I32,
    sloppy_tcp: I32,
    nat_icmp_send: I32,
    conn_reuse_mode: I32,
    run_estimation: I32,
    conn_lfactor: I32,
    svc_lfactor: I32,
    lblc_expiration: I32,
    lblcr_expiration: I32,
}

impl Sysctl {
    /// The defaults.
    pub(crate) fn new(net: &Net) -> Self {
        let is_first = net.is_init();
        let max = if is_first {
            CONN_MAX
        } else {
            FIRST_CONN_MAX.load()
        };
        let expiration = HZ.from_secs_u32(lblc::EXPIRATION_SECS) as i32;
        let lfactor = |first| if is_first { first } else { LFACTOR_OTHER_NET };
        Self {
            is_first,
            conn_max: I32::new(max),
            conn_max_limit: I32::new(max),
            snat_reroute: I32::new(1),
            expire_nodest_conn: I32::new(0),
            sloppy_tcp: I32::new(0),
            nat_icmp_send: I32::new(0),
            conn_reuse_mode: I32::new(1),
            run_estimation: I32::new(1),
            conn_lfactor: I32::new(lfactor(CONN_LFACTOR_INIT_NET)),
            svc_lfactor: I32::new(lfactor(SVC_LFACTOR_INIT_NET)),
            lblc_expiration: I32::new(expiration),
            lblcr_expiration: I32::new(expiration),
        }
    }

    /// The most connections.
    #[inline]
    pub(crate) fn conn_max(&self) -> i32 {
        self.conn_max.load()
    }

    /// Whether rewritten replies are routed again.
    #[inline]
    pub(crate) fn snat_reroute(&self) -> bool {
        self.snat_reroute.load() != 0
    }

    /// Whether connections end with their destination.
    #[inline]
    pub(crate) fn expire_nodest_conn(&self) -> bool {
        self.expire_nodest_conn.load() != 0
    }

    /// Whether a TCP connection may start without SYN.
    #[inline]
    pub(crate) fn sloppy_tcp(&self) -> bool {
        self.sloppy_tcp.load() != 0
    }

    /// Whether real servers are told that their connection is gone.
    #[inline]
    pub(crate) fn nat_icmp_send(&self) -> bool {
        self.nat_icmp_send.load() != 0
    }

    /// When a client port that comes again starts a new connection: a bit mask.
    #[inline]
    pub(crate) fn conn_reuse_mode(&self) -> u32 {
        self.conn_reuse_mode.load() as u32
    }

    /// Whether rates are estimated.
    pub(crate) fn run_estimation(&self) -> bool {
        self.run_estimation.load() != 0
    }

    /// The load factor of the connection table.
    pub(crate) fn conn_lfactor(&self) -> i32 {
        self.conn_lfactor.load()
    }

    /// The load factor of the service table.
    pub(crate) fn svc_lfactor(&self) -> i32 {
        self.svc_lfactor.load()
    }

    /// How long lblc remembers an address that is not asked for; in jiffies, perhaps negative.
    pub(crate) fn lblc_expiration(&self) -> i32 {
        self.lblc_expiration.load()
    }

    /// The same of lblcr, and how long a set of destinations stays as it is.
    pub(crate) fn lblcr_expiration(&self) -> i32 {
        self.lblcr_expiration.load()
    }
}

/// A row for a value that takes any integer.
macro_rules! any {
    ($name:literal, $field:ident) => {
        any!($name, $field, host_only: false)
    };
    ($name:literal, $field:ident, host_only: $host_only:literal) => {
        Var {
            name: $name,
            host_only: $host_only,
            get: |knobs| knobs.netns.sysctl.$field.load(),
            set: |knobs, value, _| {
                knobs.netns.sysctl.$field.store(value);
                Ok(())
            },
            unset: None,
        }
    };
}

/// In the order of C.
static VARS: &[Var<Knobs>] = &[
    Var {
        name: c"conn_max",
        host_only: false,
        get: |knobs| knobs.netns.sysctl.conn_max.load(),
        set: set_conn_max,
        unset: Some(c_int::MIN),
    },
    any!(c"snat_reroute", snat_reroute),
    any!(c"expire_nodest_conn", expire_nodest_conn),
    any!(c"sloppy_tcp", sloppy_tcp),
    any!(c"nat_icmp_send", nat_icmp_send),
    any!(c"conn_reuse_mode", conn_reuse_mode),
    any!(c"run_estimation", run_estimation, host_only: true),
    Var {
        name: c"conn_lfactor",
        host_only: true,
        get: |knobs| knobs.netns.sysctl.conn_lfactor.load(),
        set: set_conn_lfactor,
        unset: None,
    },
    Var {
        name: c"svc_lfactor",
        host_only: true,
        get: |knobs| knobs.netns.sysctl.svc_lfactor.load(),
        set: set_svc_lfactor,
        unset: None,
    },
];

/// A row for a time that is read and written in seconds and kept in jiffies: C `proc_dointvec_jiffies()`.
macro_rules! seconds {
    ($name:literal, $field:ident) => {
        Var {
            name: $name,
            host_only: false,
            get: |knobs| knobs.netns.sysctl.$field.load() / HZ.get() as i32,
            set: |knobs, value, _| {
                let jiffies = value.checked_mul(HZ.get() as i32).ok_or(EINVAL)?;
                knobs.netns.sysctl.$field.store(jiffies);
                Ok(())
            },
            unset: None,
        }
    };
}

/// Those that C registers with its modules `ip_vs_lblc` and `ip_vs_lblcr`; an unprivileged namespace has none of them.
static CACHE_VARS: &[Var<Knobs>] = &[
    seconds!(c"lblc_expiration", lblc_expiration),
    seconds!(c"lblcr_expiration", lblcr_expiration),
];

/// C `proc_do_conn_max()`: the host's administrator moves the limit, others stay below it.
fn set_conn_max(knobs: &Knobs, value: c_int, writer: &Writer) -> Result {
    let netns = &knobs.netns;
    let sysctl = &netns.sysctl;
    let is_host_admin = writer.is_host_admin();
    netns.configure(|_| {
        let max = if is_host_admin {
            CONN_MAX
        } else {
            sysctl.conn_max_limit.load()
        };
        if value < 0 || value > max {
            return Err(EINVAL);
        }
        if is_host_admin {
            sysctl.conn_max_limit.store(value);
        }
        sysctl.conn_max.store(value);
        if sysctl.is_first {
            FIRST_CONN_MAX.store(value);
        }
        Ok(())
    })
}

fn check_lfactor(value: c_int) -> Result {
    if (LFACTOR_MIN..=LFACTOR_MAX).contains(&value) {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// C `ipvs_proc_conn_lfactor()`.
fn set_conn_lfactor(knobs: &Knobs, value: c_int, _: &Writer) -> Result {
    check_lfactor(value)?;
    let netns = &knobs.netns;
    netns.sysctl.conn_lfactor.store(value);
    if let Some(conns) = netns.conns() {
        conns.set_lfactor(value);
    }
    Ok(())
}

/// C `ipvs_proc_svc_lfactor()`.
fn set_svc_lfactor(knobs: &Knobs, value: c_int, _: &Writer) -> Result {
    check_lfactor(value)?;
    knobs.netns.sysctl.svc_lfactor.store(value);
    knobs.sizer.start(0);
    Ok(())
}

/// What the files reach.
pub(crate) struct Knobs {
    netns: Arc<Netns>,
    sizer: Arc<Job<Netns>>,
}

/// The files of a namespace.
pub(crate) struct Files {
    _files: Registration<Knobs>,
    _cache_files: Option<Registration<Knobs>>,
}

impl Files {
    /// Creates them.
    // For its frame, which holds rows of both tables.
    #[inline(never)]
    pub(crate) fn new(netns: &Arc<Netns>, sizer: &Arc<Job<Netns>>) -> Result<Self> {
        let knobs = Knobs {
            netns: netns.clone(),
            sizer: sizer.clone(),
        };
        let knobs = Arc::new(knobs, GFP_KERNEL)?;
        let files = |vars, knobs| Registration::new(netns.net(), c"net/ipv4/vs", vars, knobs);
        Ok(Self {
            _cache_files: if netns.net().is_unprivileged() {
                None
            } else {
                Some(files(CACHE_VARS, knobs.clone())?)
            },
            _files: files(VARS, knobs)?,
        })
    }
}
