// SPDX-License-Identifier: GPL-2.0-or-later

//! Nothing is loaded. Whoever asks for C's modules by their names, or by that of the netlink family, gets the module that is
//! installed: rvs answers to all of them where the C module is not. The kernel does so for a client that opens the family, and
//! C for a service whose scheduler is not there yet; an unknown one is refused. The name of FTP's helper loads that and the rest.
//!
//! Proves checklist items 1 (the alias) and 19 (persistence engines: that an unknown one is refused).

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::genl::Genl;
use crate::ipvs::{cmd, for_svc, svc, svc_full, svc_id, Ipvs};
use crate::modules::{self, run as tool, C_MODULES};
use crate::ns::Ns;
use crate::pkt::TCP;
use crate::requests::SCHEDULERS;
use crate::scenario::{Cx, Peer, Scenario};
use crate::sockopt::{set, Service, Sockopt};
use crate::topo::{at, ipvsadm, Family};

pub const SCENARIO: Scenario = Scenario::new(
    "autoload",
    "modules are loaded by the names of C's, and schedulers on demand",
    &[1, 19],
    run,
)
.own_modules();

const FAMILY: &str = "net-pf-16-proto-16-family-IPVS";
/// Where a module folder is put together: the kernel's own programs see it, which a scenario's /run is hidden from.
const BASE: &str = "/tmp/alone";
/// What the kernel calls.
const HELPER: &str = "/proc/sys/kernel/modprobe";

/// A module folder with one of the two peers only, in which the kernel and [`load`] look.
struct Alone {
    helper: String,
}

impl Alone {
    fn new(cx: &Cx) -> Result<Self> {
        let alone = Self {
            helper: fs::read_to_string(HELPER)?,
        };
        let release = tool("uname", &["-r"])?.trim().to_owned();
        let all = format!("/lib/modules/{release}");
        let folder = format!("{BASE}/lib/modules/{release}");
        fs::create_dir_all(&folder)?;
        for file in [
            "modules.order",
            "modules.builtin",
            "modules.builtin.modinfo",
        ] {
            fs::copy(format!("{all}/{file}"), format!("{folder}/{file}")).context(file)?;
        }
        let kernel = format!("{all}/kernel");
        let files = tool("find", &["-L", &kernel, "-type", "f", "-name", "*.ko*"])?;
        let files = files.lines().map(Path::new);
        let others = files.filter(|path| cx.peer == Peer::C || !is_ipvs(path));
        let own = match cx.peer {
            Peer::C => vec![],
            Peer::Rvs => {
                let rvs = cx.modules.rvs.clone().context("no module")?;
                vec![rvs.with_file_name("rvs_ftp.ko"), rvs]
            }
        };
        for path in others.chain(own.iter().map(PathBuf::as_path)) {
            let name = path.file_name().context("no name")?;
            symlink(path, Path::new(&folder).join(name))?;
        }
        tool("depmod", &["-b", BASE, &release])?;
        let program = format!("{BASE}/modprobe");
        fs::write(
            &program,
            format!("#!/bin/sh\nexec modprobe -d {BASE} \"$@\"\n"),
        )?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::write(HELPER, &program)?;
        Ok(alone)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Who needs it next will say so.
        let _ = fs::write(HELPER, &self.helper);
        let _ = fs::remove_dir_all(BASE);
    }
}

/// As `modprobe NAME`, which many a unit file and configuration says.
fn load(name: &str) -> Result<()> {
    tool("modprobe", &["-d", BASE, name]).map(drop)
}

fn is_ipvs(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "ipvs")
}

fn run(cx: &Cx) -> Result<()> {
    let alone = Alone::new(cx)?;
    let outcome = names(cx)
        .and_then(|()| by_the_kernel(cx))
        .and_then(|()| by_ipvsadm(cx));
    cx.modules.unload()?;
    drop(alone);
    outcome
}

/// That the peer is there, and only it.
fn is_there(cx: &Cx, name: &str) -> Result<()> {
    let (yes, no) = match cx.peer {
        Peer::C => (name, "rvs"),
        Peer::Rvs => ("rvs", "ip_vs"),
    };
    ensure!(modules::loaded(yes)?, "{yes} is not loaded");
    ensure!(!modules::loaded(no)?, "{no} is loaded");
    Ok(())
}

/// By name.
fn names(cx: &Cx) -> Result<()> {
    for name in C_MODULES.iter().copied().chain([FAMILY]) {
        cx.modules.unload()?;
        load(name)?;
        is_there(cx, if name == FAMILY { "ip_vs" } else { name }).context(name)?;
        // Again: it is there already.
        load(name)?;
    }
    // FTP's helper is a module of its own, which brings the other along.
    cx.modules.unload()?;
    load("ip_vs_ftp")?;
    is_there(cx, "ip_vs")?;
    ensure!(modules::loaded(cx.modules.ftp_name())?, "no helper");
    load("ip_vs_ftp")?;
    cx.modules.unload()
}

/// The first one to ask for the family; then services with schedulers that nobody has asked for.
fn by_the_kernel(cx: &Cx) -> Result<()> {
    let ns = Ns::new("director")?;
    let genl = Genl::open(&ns)?;
    ensure!(genl.family("IPVS")?.is_ok(), "no family");
    is_there(cx, "ip_vs")?;
    let ipvs = Ipvs::of(genl)?;
    let vip = |n: usize| at(Family::V4.vip(), 1 + n as u16);
    let schedulers = || SCHEDULERS.iter().filter(|name| **name != "none");
    for (n, name) in schedulers().enumerate() {
        if cx.peer == Peer::C {
            ensure!(
                !modules::loaded(&format!("ip_vs_{name}"))?,
                "{name} is there"
            );
        }
        // By a new service, by an old one, and through the older interface.
        match n % 3 {
            0 => drop(ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, vip(n), name)))?),
            1 => {
                ipvs.ok(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, vip(n), "none")))?;
                ipvs.ok(cmd::SET_SERVICE, &for_svc(&svc_full(TCP, vip(n), name)))?;
            }
            _ => {
                let std::net::SocketAddr::V4(vip) = vip(n) else {
                    continue;
                };
                let service = Service::new(TCP, vip, name);
                let set = Sockopt::open(&ns)?.set(set::ADD, &service.bytes());
                ensure!(set.is_ok(), "{name}: {set:?}");
            }
        }
        is_there(cx, &format!("ip_vs_{name}"))?;
        ensure!(ipvs.service(TCP, vip(n))?.sched == *name, "{name}");
    }
    // Names that no module has.
    let odd = vip(100);
    for name in ["nosuch", "", "../rr", "rr rr", "sync", "wlc2"] {
        let reply = ipvs.call(cmd::NEW_SERVICE, &for_svc(&svc_full(TCP, odd, name)))?;
        ensure!(reply.errno == libc::ENOENT, "{name}: errno {}", reply.errno);
        let other = svc_full(TCP, vip(0), name);
        let reply = ipvs.call(cmd::SET_SERVICE, &for_svc(&other))?;
        ensure!(reply.errno == libc::ENOENT, "{name}: errno {}", reply.errno);
    }
    let engine = svc_full(TCP, odd, "rr").text(svc::PE_NAME, "nosuch");
    let reply = ipvs.call(cmd::NEW_SERVICE, &for_svc(&engine))?;
    ensure!(reply.errno == libc::ENOENT, "errno {}", reply.errno);
    ensure!(
        ipvs.call(cmd::GET_SERVICE, &for_svc(&svc_id(TCP, odd)))?
            .errno
            == libc::ESRCH,
        "a refused service is there"
    );
    let first = schedulers().next().context("no scheduler")?;
    ensure!(ipvs.service(TCP, vip(0))?.sched == *first, "{first}");
    ipvsadm(&ns, "-C")?;
    drop(ipvs);
    drop(ns);
    cx.modules.unload()
}

/// ipvsadm is the first.
fn by_ipvsadm(cx: &Cx) -> Result<()> {
    let ns = Ns::new("director")?;
    ipvsadm(&ns, "-A -t 10.1.1.1:80")?;
    is_there(cx, "ip_vs_wlc")?;
    let listing = ipvsadm(&ns, "-Ln")?;
    ensure!(listing.contains("10.1.1.1:80 wlc"), "{listing}");
    ipvsadm(&ns, "-C").map(drop)
}
