// SPDX-License-Identifier: GPL-2.0-or-later

//! ipvsadm without netlink: a seccomp filter takes netlink sockets away from it, so that it falls
//! back to socket options. It must do and show the same.
//!
//! Proves checklist items 15, 16 and 20 (the commands used).

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};

use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::{Pkt, SYN, TCP, UDP};
use crate::rig::Rig;
use crate::scenario::{Cx, Scenario};
use crate::topo::{at, Family};
use crate::wait::until_true;

pub const SCENARIO: Scenario = Scenario::new(
    "sockopt_ipvsadm",
    "ipvsadm over socket options instead of netlink",
    &[],
    run,
)
.partly(&[15, 16, 20]);

/// From now on this process gets no netlink sockets: EAFNOSUPPORT. Only system calls in here, between fork and exec.
fn refuse_netlink() -> std::io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // struct seccomp_data: the number of the call at 0, its first argument at 16.
    let mut filter = [
        op(LOAD_WORD, 0, 0, 0),
        op(JUMP_EQUAL, 0, 3, libc::SYS_socket as u32),
        op(LOAD_WORD, 0, 0, 16),
        op(JUMP_EQUAL, 0, 1, libc::AF_NETLINK as u32),
        op(
            RETURN,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32,
        ),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and what it points to live until the call returns; the kernel copies them.
    let code = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::c_ulong::from(libc::SECCOMP_MODE_FILTER),
            &raw const program,
            0,
            0,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Runs ipvsadm without netlink, whatever comes of it: exit code, output, error output.
fn try_old(ns: &Ns, args: &str, stdin: &str) -> Result<(Option<i32>, String, String)> {
    ns.run(|| {
        let mut command = Command::new("ipvsadm");
        command
            .args(args.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: the function makes a system call and nothing else.
        unsafe { command.pre_exec(refuse_netlink) };
        let mut child = command.spawn().context("starting ipvsadm")?;
        if let Some(mut pipe) = child.stdin.take() {
            use std::io::Write;
            // Who does not read closes the pipe.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let out = child.wait_with_output().context("waiting for ipvsadm")?;
        Ok((
            out.status.code(),
            String::from_utf8_lossy(&out.stdout).into_owned(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        ))
    })
}

fn old(ns: &Ns, args: &str) -> Result<String> {
    old_stdin(ns, args, "")
}

fn old_stdin(ns: &Ns, args: &str, stdin: &str) -> Result<String> {
    match try_old(ns, args, stdin)? {
        (Some(0), out, _) => Ok(out),
        other => bail!("ipvsadm {args} without netlink: {other:?}"),
    }
}

fn run(_cx: &Cx) -> Result<()> {
    let rig = Rig::new()?;
    let ns = &rig.topo.director;
    let same = |args: &str| -> Result<String> {
        let (one, other) = (old(ns, args)?, rig.ipvsadm(args)?);
        ensure!(
            one == other,
            "ipvsadm {args}\nover socket options:\n{one}over netlink:\n{other}"
        );
        Ok(one)
    };
    let vip = at(Family::V4.vip(), 80);
    let dns = at(Family::V4.vip(), 53);
    let (one, two) = (
        at(Family::V4.raw_rs(1), 8080),
        at(Family::V4.raw_rs(2), 8080),
    );
    ensure!(
        same("-Ln")?.starts_with("IP Virtual Server version 1.2.1 (size=0)\n"),
        "no services"
    );
    // That netlink is gone is seen by what only netlink knows.
    let v6 = format!("-A -t {} -s rr", at(Family::V6.vip(), 80));
    let refused = try_old(ns, &v6, "")?;
    ensure!(refused.0 != Some(0), "an IPv6 service: {refused:?}");

    old(ns, &format!("-A -t {vip} -s rr"))?;
    old(ns, &format!("-a -t {vip} -r {one} -m -w 3 -x 100 -y 50"))?;
    old(ns, &format!("-a -t {vip} -r {two} -m"))?;
    old(ns, &format!("-A -u {dns} -s wlc"))?;
    old(ns, "-A -f 77 -s wrr")?;
    old(ns, &format!("-a -f 77 -r {} -m -w 0", one.ip()))?;
    for (args, errno) in [
        (format!("-A -t {vip} -s rr"), "Service already exists"),
        (
            format!("-a -t {vip} -r {one} -m"),
            "Destination already exists",
        ),
        (format!("-D -u {vip}"), "No such service"),
        (format!("-d -t {vip} -r {dns}"), "No such destination"),
        (
            format!("-A -t {dns} -s nosuch"),
            "Scheduler or persistence engine not found",
        ),
    ] {
        let (code, _, text) = try_old(ns, &args, "")?;
        ensure!(
            code.is_some_and(|code| code != 0) && text.contains(errno),
            "{args}: {code:?} {text}"
        );
    }
    let listing = same("-Ln --sort")?;
    ensure!(listing.lines().count() == 3 + 3 + 3, "{listing}");
    same("-Sn --sort")?;
    same("-Ln --thresholds --sort")?;
    same("-Ln --persistent-conn --sort")?;
    same(&format!("-Ln -t {vip}"))?;

    rig.forwarded(&Pkt::tcp(at(Family::V4.raw_client(1), 4000), vip, SYN))?;
    until_true("both count the connection", 6.0, || {
        let counts = |text: &str| {
            let line = text.lines().find(|l| l.contains(&vip.to_string()));
            line.map(|l| {
                l.split_whitespace()
                    .skip(2)
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
        };
        let one = counts(&old(ns, "-Ln --stats --exact --sort")?);
        let other = counts(&rig.ipvsadm("-Ln --stats --exact --sort")?);
        let want: Vec<String> = ["1", "1", "0", "40", "0"].map(str::to_owned).into();
        Ok(one == Some(want.clone()) && other == Some(want))
    })?;
    same("-Ln --stats --exact --sort")?;
    same("-Lnc")?;

    old(ns, &format!("-e -t {vip} -r {one} -m -w 9"))?;
    old(ns, &format!("-E -t {vip} -s wlc"))?;
    let ipvs = Ipvs::open(ns)?;
    ensure!(ipvs.dest(TCP, vip, one)?.weight == 9, "-e");
    ensure!(ipvs.service(TCP, vip)?.sched == "wlc", "-E");
    old(ns, "--set 901 121 301")?;
    ensure!(ipvs.config()? == [901, 121, 301], "{:?}", ipvs.config()?);
    ensure!(
        same("-L --timeout")?.contains("901 121 301"),
        "{}",
        same("-L --timeout")?
    );
    ensure!(same("-L --daemon")?.is_empty(), "a daemon");
    old(ns, &format!("-Z -t {vip}"))?;
    ensure!(ipvs.service(TCP, vip)?.stats.conns == 0, "-Z");
    old(ns, "-Z")?;
    old(ns, &format!("-d -t {vip} -r {two}"))?;
    old(ns, &format!("-D -u {dns}"))?;
    ensure!(ipvs.dests(TCP, vip)?.len() == 1, "-d");
    ensure!(ipvs.service(UDP, dns).is_err(), "-D");
    let methods: [(&str, SocketAddr); 2] = [("-g", at(Family::V4.raw_rs(3), 80)), ("-i", two)];
    for (flag, real) in methods {
        let (code, _, text) = try_old(ns, &format!("-a -t {vip} -r {real} {flag}"), "")?;
        ensure!(code == Some(0), "{flag}: {code:?} {text}");
    }

    let saved = same("-Sn")?;
    old(ns, "-C")?;
    ensure!(ipvs.services()?.is_empty(), "-C");
    old_stdin(ns, "-R", &saved)?;
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    ensure!(sorted(&same("-Sn")?) == sorted(&saved), "saved {saved}");
    Ok(())
}
