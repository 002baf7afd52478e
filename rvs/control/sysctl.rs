// SPDX-License-Identifier: GPL-2.0-only

//! The sysctls under `net.ipv4.vs`: C `vs_vars`.
//!
//! A sysctl is here exactly if what it steers is here. Values, defaults, ranges and errors are C's.

use crate::{
    conn::defense::Knobs,
    netns::Netns,
    os::{
        self,
        atomic::I32,
        cpu,
        net::Net,
        sysctl::{
            Long,
            Pair,
            Registration,
            Text,
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
    defense,
    sched::lblc,
    table::{
        CONN_LFACTOR_INIT_NET,
        LFACTOR_MAX,
        LFACTOR_MIN,
        LFACTOR_OTHER_NET,
        SVC_LFACTOR_INIT_NET, //
    },
    uapi::conn_flag, //
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
    amemthresh: I32,
    am_droprate: I32,
    drop_entry: I32,
    drop_packet: I32,
    secure_tcp: I32,
    conntrack: I32,
    cache_bypass: I32,
    expire_quiescent_template: I32,
    snat_reroute: I32,
    expire_nodest_conn: I32,
    sloppy_tcp: I32,
    sloppy_sctp: I32,
    nat_icmp_send: I32,
    pmtu_disc: I32,
    conn_reuse_mode: I32,
    schedule_icmp: I32,
    ignore_tunneled: I32,
    backup_only: I32,
    run_estimation: I32,
    est_nice: I32,
    conn_lfactor: I32,
    svc_lfactor: I32,
    lblc_expiration: I32,
    lblcr_expiration: I32,
    conn_counters: I32,
}

impl Sysctl {
    /// `svc_lfactor` of a new namespace.
    pub(crate) fn first_svc_lfactor(net: &Net) -> i32 {
        if net.is_init() {
            SVC_LFACTOR_INIT_NET
        } else {
            LFACTOR_OTHER_NET
        }
    }

    /// The defaults, written where they stay.
    pub(crate) fn init(net: &Net) -> impl Init<Self> {
        let is_first = net.is_init();
        let max = if is_first {
            CONN_MAX
        } else {
            FIRST_CONN_MAX.load()
        };
        let expiration = HZ.from_secs_u32(lblc::EXPIRATION_SECS) as i32;
        let conn_lfactor = if is_first {
            CONN_LFACTOR_INIT_NET
        } else {
            LFACTOR_OTHER_NET
        };
        let svc_lfactor = Self::first_svc_lfactor(net);
        init!(Self {
            is_first,
            conn_max: I32::new(max),
            conn_max_limit: I32::new(max),
            amemthresh: I32::new(1024),
            am_droprate: I32::new(10),
            drop_entry: I32::new(defense::OFF),
            drop_packet: I32::new(defense::OFF),
            secure_tcp: I32::new(defense::OFF),
            conntrack: I32::new(0),
            cache_bypass: I32::new(0),
            expire_quiescent_template: I32::new(0),
            snat_reroute: I32::new(1),
            expire_nodest_conn: I32::new(0),
            sloppy_tcp: I32::new(0),
            sloppy_sctp: I32::new(0),
            nat_icmp_send: I32::new(0),
            pmtu_disc: I32::new(1),
            conn_reuse_mode: I32::new(1),
            schedule_icmp: I32::new(0),
            ignore_tunneled: I32::new(0),
            backup_only: I32::new(0),
            run_estimation: I32::new(1),
            est_nice: I32::new(0),
            conn_lfactor: I32::new(conn_lfactor),
            svc_lfactor: I32::new(svc_lfactor),
            lblc_expiration: I32::new(expiration),
            lblcr_expiration: I32::new(expiration),
            conn_counters: I32::new(0),
        })
    }

    /// The most connections.
    #[inline]
    pub(crate) fn conn_max(&self) -> i32 {
        self.conn_max.load()
    }

    /// What steers the defense against floods.
    pub(crate) fn defense(&self) -> Knobs<'_> {
        Knobs {
            amemthresh: self.amemthresh.load(),
            am_droprate: self.am_droprate.load(),
            drop_entry: &self.drop_entry,
            drop_packet: &self.drop_packet,
            secure_tcp: &self.secure_tcp,
        }
    }

    /// The flags that every new connection has: `NFCT`, if netfilter's connection tracking is to know them.
    #[inline]
    pub(crate) fn conn_flags(&self) -> u32 {
        if self.conntrack.load() != 0 {
            conn_flag::NFCT
        } else {
            0
        }
    }

    /// Whether ICMP errors about packets of no connection begin one.
    pub(crate) fn schedule_icmp(&self) -> bool {
        self.schedule_icmp.load() != 0
    }

    /// Whether tunnels to this host are left alone, and what comes out of them.
    pub(crate) fn ignore_tunneled(&self) -> bool {
        self.ignore_tunneled.load() != 0
    }

    /// Whether a backup leaves all packets alone.
    #[inline]
    pub(crate) fn backup_only(&self) -> bool {
        self.backup_only.load() != 0
    }

    /// Whether services by mark let clients through to where they wanted, if there is no destination.
    #[inline]
    pub(crate) fn cache_bypass(&self) -> bool {
        self.cache_bypass.load() != 0
    }

    /// Whether a destination of weight zero ends its templates.
    #[inline]
    pub(crate) fn expire_quiescent_template(&self) -> bool {
        self.expire_quiescent_template.load() != 0
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

    /// Whether an SCTP association may start without INIT.
    #[inline]
    pub(crate) fn sloppy_sctp(&self) -> bool {
        self.sloppy_sctp.load() != 0
    }

    /// Whether real servers are told that their connection is gone.
    #[inline]
    pub(crate) fn nat_icmp_send(&self) -> bool {
        self.nat_icmp_send.load() != 0
    }

    /// Whether tunnels heed "don't fragment", and pass it on.
    #[inline]
    pub(crate) fn pmtu_disc(&self) -> bool {
        self.pmtu_disc.load() != 0
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

    /// The nice value that rates are estimated with.
    pub(crate) fn est_nice(&self) -> i32 {
        self.est_nice.load()
    }

    /// The load factor of the connection table.
    pub(crate) fn conn_lfactor(&self) -> i32 {
        self.conn_lfactor.load()
    }

    /// The load factor of the service table.
    pub(crate) fn svc_lfactor(&self) -> i32 {
        self.svc_lfactor.load()
    }

    /// Whether new connections count their packets.
    pub(crate) fn conn_counters(&self) -> bool {
        self.conn_counters.load() != 0
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

/// A row for a number of the synchronisation daemons.
macro_rules! sync {
    ($name:literal, $field:ident, $range:expr) => {
        sync!($name, $field, $range, host_only: false)
    };
    ($name:literal, $field:ident, $range:expr, host_only: $host_only:literal) => {
        Var {
            name: $name,
            host_only: $host_only,
            get: |knobs| knobs.netns.sender.settings.$field.load(),
            set: |knobs, value, _| {
                if !$range.contains(&value) {
                    return Err(EINVAL);
                }
                knobs.netns.sender.settings.$field.store(value);
                Ok(())
            },
            unset: None,
        }
    };
}

/// A row for a mode of the defense: C `proc_do_defense_mode()`.
macro_rules! mode {
    ($name:literal, $field:ident) => {
        Var {
            name: $name,
            host_only: false,
            get: |knobs| knobs.netns.sysctl.$field.load(),
            set: |knobs, value, _| set_mode(knobs, &knobs.netns.sysctl.$field, value),
            unset: None,
        }
    };
}

/// In the order of C.
static VARS: &[Var<Reach>] = &[
    any!(c"amemthresh", amemthresh),
    any!(c"am_droprate", am_droprate),
    Var {
        name: c"conn_max",
        host_only: false,
        get: |knobs| knobs.netns.sysctl.conn_max.load(),
        set: set_conn_max,
        unset: Some(c_int::MIN),
    },
    mode!(c"drop_entry", drop_entry),
    mode!(c"drop_packet", drop_packet),
    mode!(c"secure_tcp", secure_tcp),
    any!(c"snat_reroute", snat_reroute),
    sync!(c"sync_version", version, 0..=1),
    Var {
        name: c"sync_ports",
        host_only: false,
        get: |knobs| knobs.netns.sender.settings.ports.load(),
        set: set_sync_ports,
        unset: None,
    },
    sync!(c"sync_persist_mode", persist_mode, c_int::MIN..=c_int::MAX),
    sync!(c"sync_sock_size", sock_size, c_int::MIN..=c_int::MAX, host_only: true),
    Var {
        name: c"sync_refresh_period",
        host_only: false,
        get: |knobs| knobs.netns.sender.settings.refresh_period.load() / HZ.get() as i32,
        set: |knobs, value, _| {
            let jiffies = value.checked_mul(HZ.get() as i32).ok_or(EINVAL)?;
            knobs.netns.sender.settings.refresh_period.store(jiffies);
            Ok(())
        },
        unset: None,
    },
    sync!(c"sync_retries", retries, 0..=3),
    any!(c"cache_bypass", cache_bypass),
    any!(c"expire_nodest_conn", expire_nodest_conn),
    any!(c"sloppy_tcp", sloppy_tcp),
    any!(c"sloppy_sctp", sloppy_sctp),
    any!(c"expire_quiescent_template", expire_quiescent_template),
    any!(c"nat_icmp_send", nat_icmp_send),
    any!(c"pmtu_disc", pmtu_disc),
    any!(c"backup_only", backup_only),
    any!(c"conn_reuse_mode", conn_reuse_mode),
    any!(c"schedule_icmp", schedule_icmp),
    any!(c"ignore_tunneled", ignore_tunneled),
    any!(c"run_estimation", run_estimation, host_only: true),
    Var {
        name: c"est_nice",
        host_only: true,
        get: |knobs| knobs.netns.sysctl.est_nice.load(),
        set: set_est_nice,
        unset: None,
    },
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

/// Those of the synchronisation daemons that are more than one number, or a larger one.
static SYNC_LONGS: &[Long<Reach>] = &[Long {
    name: c"sync_qlen_max",
    host_only: true,
    get: |knobs| knobs.netns.sender.settings.qlen_max.load(),
    set: |knobs, value| knobs.netns.sender.settings.qlen_max.store(value),
}];

static SYNC_PAIRS: &[Pair<Reach>] = &[Pair {
    name: c"sync_threshold",
    get: |knobs| knobs.netns.sender.settings.thresholds(),
    set: |knobs, values| knobs.netns.sender.settings.set_thresholds(values),
}];

/// Those that are text.
static TEXTS: &[Text<Reach>] = &[Text {
    name: c"est_cpulist",
    host_only: true,
    get: |knobs, out| {
        knobs
            .netns
            .with_est_cpus(|cpus| cpu::show(cpus.as_ref(), out))
    },
    set: |knobs, text| {
        let new = cpu::List::parse(text)?;
        knobs.netns.with_est_cpus(|cpus| *cpus = Some(new));
        Ok(())
    },
}];

/// What C does not have.
static EXTRA_VARS: &[Var<Reach>] = &[Var {
    name: c"rvs_conn_counters",
    host_only: false,
    get: |knobs| knobs.netns.sysctl.conn_counters.load(),
    set: set_conn_counters,
    unset: None,
}];

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
static CACHE_VARS: &[Var<Reach>] = &[
    seconds!(c"lblc_expiration", lblc_expiration),
    seconds!(c"lblcr_expiration", lblcr_expiration),
];

/// That of a kernel where connection tracking can be kept informed.
static CONNTRACK_VARS: &[Var<Reach>] = &[any!(c"conntrack", conntrack)];

/// C `proc_do_conn_max()`: the host's administrator moves the limit, others stay below it.
fn set_conn_max(knobs: &Reach, value: c_int, writer: &Writer) -> Result {
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

/// C `proc_do_sync_ports()`.
fn set_sync_ports(knobs: &Reach, value: c_int, _: &Writer) -> Result {
    let ports = &knobs.netns.sender.settings.ports;
    if value != ports.load() && (value < 1 || !value.unsigned_abs().is_power_of_two()) {
        return Err(EINVAL);
    }
    ports.store(value);
    Ok(())
}

fn set_mode(knobs: &Reach, mode: &I32, value: c_int) -> Result {
    if !(defense::OFF..=defense::ALWAYS).contains(&value) {
        return Err(EINVAL);
    }
    mode.store(value);
    let netns = &knobs.netns;
    netns.defense.update(&netns.sysctl.defense());
    knobs.defender.start(HZ.from_secs_u32(1));
    Ok(())
}

/// C `ipvs_proc_est_nice()`.
fn set_est_nice(knobs: &Reach, value: c_int, _: &Writer) -> Result {
    if !(-20..=19).contains(&value) {
        return Err(EINVAL);
    }
    knobs.netns.sysctl.est_nice.store(value);
    Ok(())
}

fn check_lfactor(value: c_int) -> Result {
    if (LFACTOR_MIN..=LFACTOR_MAX).contains(&value) {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// C `ipvs_proc_conn_lfactor()`.
fn set_conn_lfactor(knobs: &Reach, value: c_int, _: &Writer) -> Result {
    check_lfactor(value)?;
    let netns = &knobs.netns;
    netns.sysctl.conn_lfactor.store(value);
    if let Some(conns) = netns.conns() {
        conns.set_lfactor(value);
    }
    Ok(())
}

fn set_conn_counters(knobs: &Reach, value: c_int, _: &Writer) -> Result {
    if !(0..=1).contains(&value) {
        return Err(EINVAL);
    }
    // The table may just be made: not between reading the setting and being found.
    knobs.netns.configure(|_| {
        knobs.netns.sysctl.conn_counters.store(value);
        if let Some(conns) = knobs.netns.conns() {
            conns.set_counting(value != 0);
        }
    });
    Ok(())
}

/// C `ipvs_proc_svc_lfactor()`.
fn set_svc_lfactor(knobs: &Reach, value: c_int, _: &Writer) -> Result {
    check_lfactor(value)?;
    knobs.netns.sysctl.svc_lfactor.store(value);
    knobs.sizer.start(0);
    Ok(())
}

/// Looks after the defense once a second, while anything of it is on.
fn defend(netns: &Netns) -> Option<u32> {
    let knobs = netns.sysctl.defense();
    netns.defense.update(&knobs);
    if let Some(conns) = netns.conns() {
        netns.defense.drop_entries(conns);
    }
    knobs.any().then_some(HZ.from_secs_u32(1))
}

/// What the files reach.
pub(crate) struct Reach {
    netns: Arc<Netns>,
    sizer: Arc<Job<Netns>>,
    defender: Job<Netns>,
}

/// The files of a namespace.
pub(crate) struct Files {
    _files: Registration<Reach>,
    _extra_files: Registration<Reach>,
    _sync_files: Registration<Reach>,
    _cache_files: Option<Registration<Reach>>,
    _conntrack_files: Option<Registration<Reach>>,
}

impl Files {
    /// Creates them.
    // For its frame, which holds rows of both tables.
    #[inline(never)]
    pub(crate) fn new(netns: &Arc<Netns>, sizer: &Arc<Job<Netns>>) -> Result<Self> {
        let knobs = Reach {
            netns: netns.clone(),
            sizer: sizer.clone(),
            defender: Job::new(netns.clone(), defend)?,
        };
        let knobs = Arc::new(knobs, GFP_KERNEL)?;
        let files =
            |vars, texts, knobs| Registration::new(netns.net(), c"net/ipv4/vs", vars, texts, knobs);
        Ok(Self {
            _cache_files: if netns.net().is_unprivileged() {
                None
            } else {
                Some(files(CACHE_VARS, &[], knobs.clone())?)
            },
            _conntrack_files: if os::conntrack::AVAILABLE {
                Some(files(CONNTRACK_VARS, &[], knobs.clone())?)
            } else {
                None
            },
            _extra_files: files(EXTRA_VARS, &[], knobs.clone())?,
            _sync_files: Registration::wide(
                netns.net(),
                c"net/ipv4/vs",
                SYNC_LONGS,
                SYNC_PAIRS,
                knobs.clone(),
            )?,
            _files: files(VARS, TEXTS, knobs)?,
        })
    }
}
