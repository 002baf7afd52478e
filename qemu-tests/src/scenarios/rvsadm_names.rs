// SPDX-License-Identifier: GPL-2.0-or-later

//! rvsadm as the system's ipvsadm: a link of that name in /usr/sbin satisfies ldirectord, keepalived's notification
//! scripts, ipvsadm-save and -restore, the init script, and what the systemd unit runs.
//!
//! Proves part of checklist item 20.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use anyhow::{ensure, Context, Result};
use nix::mount::{mount, MsFlags};

use super::clients::{health, health_until, Program, Site};
use super::{clients_keepalived, clients_ldirectord};
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::scenario::{Cx, Scenario};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "rvsadm_names",
    "under the name of ipvsadm, rvsadm serves what calls that",
    &[],
    run,
)
.partly(&[20])
.with_rvsadm();

/// The link lies over the real program, in this scenario's mounts only.
fn replace(rvsadm: &Path) -> Result<()> {
    for dir in ["/run/upper", "/run/work"] {
        fs::create_dir_all(dir)?;
    }
    fs::copy(rvsadm, "/run/upper/rvsadm").context("copying rvsadm")?;
    symlink("rvsadm", "/run/upper/ipvsadm")?;
    mount(
        Some("overlay"),
        "/usr/sbin",
        Some("overlay"),
        MsFlags::empty(),
        Some("lowerdir=/usr/sbin,upperdir=/run/upper,workdir=/run/work"),
    )
    .context("overlay on /usr/sbin")?;
    ensure!(fs::read_link("/usr/sbin/ipvsadm")? == Path::new("rvsadm"));
    Ok(())
}

const RULES: &str =
    "# rules\n-A -t 10.0.100.1:80 -s wrr\n-a -t 10.0.100.1:80 -r 10.0.1.2:8080 -m -w 2\n";

fn script(path: &str, text: &str) -> Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn wrappers() -> Result<()> {
    let ns = Ns::new("wrappers")?;
    ns.ip("link add d0 type veth peer name d1\nlink set d0 up\naddr add 10.0.0.1/8 dev d0\n")?;
    let ipvs = Ipvs::open(&ns)?;
    let services = |want: usize| -> Result<()> {
        let got = ipvs.services()?.len();
        ensure!(got == want, "{got} services");
        Ok(())
    };
    // ipvsadm-restore reads what ipvsadm-save wrote.
    ns.cmd_stdin("ipvsadm-restore", RULES)?;
    services(1)?;
    let saved = ns.cmd("ipvsadm-save -n")?;
    ensure!(saved == RULES.replace("# rules\n", ""), "{saved}");
    ns.cmd("ipvsadm -C")?;
    ns.cmd_stdin("ipvsadm-restore", &saved)?;
    ensure!(ns.cmd("ipvsadm-save -n")? == saved);

    // What the systemd unit's lines run, with its environment file.
    fs::write("/etc/ipvsadm.rules", RULES)?;
    fs::write("/etc/default/ipvsadm", "AUTO=\"true\"\nDAEMON=\"none\"\n")?;
    let unit = fs::read_to_string("/usr/lib/systemd/system/ipvsadm.service")?;
    let with_environment = |line: &str| -> Result<String> {
        script(
            "/run/unit.sh",
            &format!("#!/bin/sh\nset -a\n. /etc/default/ipvsadm\nexec {line}\n"),
        )?;
        ns.cmd("/run/unit.sh")
    };
    let mut ran = 0;
    for (key, after) in [
        ("ExecStartPre=", 1),
        ("ExecStart=", 1),
        ("ExecReload=", 1),
        ("ExecStop=", 1),
        ("ExecStopPost=", 0),
    ] {
        for line in unit.lines().filter_map(|l| l.strip_prefix(key)) {
            with_environment(line).with_context(|| format!("{key}{line}"))?;
            services(after).with_context(|| format!("after {key}{line}"))?;
            ran += 1;
        }
    }
    ensure!(ran == 5, "the unit has {ran} lines that were run:\n{unit}");

    // The init script.
    let init = |what: &str| ns.cmd(&format!("/etc/init.d/ipvsadm {what}"));
    init("load")?;
    services(1)?;
    ensure!(init("status")?.contains("10.0.1.2:8080"));
    ensure!(init("rate")?.contains("CPS"));
    init("save")?;
    ensure!(fs::read_to_string("/etc/ipvsadm.rules")?.contains("-A -t 10.0.100.1:80 -s wrr"));
    ns.cmd("ipvsadm -C")?;
    services(0)
}

/// keepalived's notifications call ipvsadm.
fn keepalived(site: &mut Site) -> Result<()> {
    script(
        "/run/notify",
        "#!/bin/sh\nexec >>/run/notified 2>&1\necho \"$1\"\n/usr/sbin/ipvsadm -Ln --rate && \
         /usr/sbin/ipvsadm -Z && echo fine\n",
    )?;
    let check = "TCP_CHECK {\n      connect_timeout 1\n      retry 1\n      delay_before_retry 0.1\n    }\n    \
                 notify_up \"/run/notify up\"\n    notify_down \"/run/notify down\"";
    let config = clients_keepalived::config(check).replace(
        "router_id test\n",
        "router_id test\n  script_user root\n  enable_script_security\n",
    );
    fs::write("/run/keepalived.conf", config)?;
    let program = Program::start(&site.topo.director, "keepalived", clients_keepalived::LINE)?;
    // Both scripts have ended: the second "fine" is the last that they write.
    health_until(site, program, || {
        until_true("the scripts are called", 20.0, || {
            // Not there before the first.
            let notified = fs::read_to_string("/run/notified").unwrap_or_default();
            Ok(["up\n", "down\n", "InBPS"]
                .iter()
                .all(|t| notified.contains(t))
                && notified.matches("fine\n").count() >= 2)
        })
    })
    .with_context(|| fs::read_to_string("/run/notified").unwrap_or_default())
}

fn run(cx: &Cx) -> Result<()> {
    replace(cx.rvsadm.as_deref().context("no rvsadm was built")?)?;
    wrappers().context("wrappers")?;
    let mut site = Site::new()?;
    fs::write(
        "/run/ldirectord.cf",
        clients_ldirectord::config(false, "\tchecktype=connect\n"),
    )?;
    let line = "ldirectord -d /run/ldirectord.cf start";
    let program = Program::start(&site.topo.director, "ldirectord", line)?;
    health(&mut site, program).context("ldirectord")?;
    keepalived(&mut site).context("keepalived")
}
