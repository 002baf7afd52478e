// SPDX-License-Identifier: GPL-2.0-or-later

//! rvs-toa at a real server: unmodified servers get their clients' addresses from getpeername() and accept(), IPv4, IPv6 and
//! IPv4 at sockets for both, with loss too; only within its cgroup, only from the directors it was told of, and only as long
//! as it runs, or as long as its links are pinned. What is missing it says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{ensure, Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::fullnat_proxy::{start, Running};
use crate::fullnat::{self, is_local, local, set};
use crate::genl::Attrs;
use crate::ipvs::Ipvs;
use crate::ns::Ns;
use crate::pkt::TCP;
use crate::scenario::{Cx, Scenario};
use crate::serve;
use crate::topo::{at, Family, Topo};
use crate::wait::{rounds, scaled, until, until_true};

pub const SCENARIO: Scenario = Scenario::new(
    "fullnat_reader",
    "rvs-toa: unmodified real servers see their clients' addresses",
    &[],
    run,
)
.only_peer(fullnat::ONLY.0, fullnat::ONLY.1)
.with_rvs_toa()
.timeout(120.0);

const ROOT: &str = "/sys/fs/cgroup";
const CGROUP: &str = "/sys/fs/cgroup/rvs-toa";
const DIRECTORS: &str = "10.77.0.0/16,fd77::/64";

fn run(cx: &Cx) -> Result<()> {
    let tool = cx.rvs_toa.as_deref().context("no rvs-toa was built")?;
    std::fs::create_dir(CGROUP)?;
    let able = able(cx, tool)?;
    refusals(tool, able)?;
    if !able {
        println!("this kernel keeps no memory with sockets");
        return Ok(std::fs::remove_dir(CGROUP)?);
    }
    for family in Family::BOTH {
        named(tool, family).with_context(|| format!("{family:?}"))?;
        late(tool, family).with_context(|| format!("{family:?}, late"))?;
        pinned(tool, family).with_context(|| format!("{family:?}, pinned"))?;
        nginx(tool, family).with_context(|| format!("{family:?}, nginx"))?;
    }
    // Until the kernel has seen the last process of it go.
    until_true("the cgroup is empty", 5.0, || {
        Ok(std::fs::remove_dir(CGROUP).is_ok())
    })
}

/// Whether the guest's kernel can do it: the stock one can; as User-Mode Linux it can't, unless its slabs are debugged.
fn able(cx: &Cx, tool: &Path) -> Result<bool> {
    if cx.guest.emulated() {
        return Ok(true);
    }
    match Reader::start(tool, &format!("--from {DIRECTORS}")) {
        Ok(reader) => reader.end().map(|_| true),
        Err(_) => Ok(false),
    }
}

/// rvs-toa, running.
struct Reader {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Reader {
    /// Starts it and waits until it reads.
    fn start(tool: &Path, args: &str) -> Result<Self> {
        let child = Command::new(tool)
            .args(args.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting rvs-toa")?;
        Self::of(child)
    }

    fn of(mut child: Child) -> Result<Self> {
        let lines = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut reader = Self { child, lines };
        let line = reader.line()?;
        ensure!(line.starts_with("reading option "), "{line:?}");
        Ok(reader)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// What it has counted: connections, answers, begun without the option, options from strangers, no memory.
    fn counts(&mut self) -> Result<[u64; 5]> {
        self.signal(Signal::SIGUSR1)?;
        counts(&self.line()?)
    }

    /// Ends it as an operator does.
    fn end(mut self) -> Result<[u64; 5]> {
        self.signal(Signal::SIGTERM)?;
        let last = counts(&self.line()?)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(last)
    }
}

fn counts(line: &str) -> Result<[u64; 5]> {
    let numbers: Vec<u64> = line
        .split([' ', ','])
        .filter_map(|word| word.parse().ok())
        .collect();
    numbers.try_into().ok().with_context(|| line.to_owned())
}

/// A server that knows nothing of all this: it says what accept(), getpeername() and getsockname() return.
const SERVER: &str = r#"
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((host, port))
s.listen(64)
while True:
    c, a = s.accept()
    f = c.makefile("rw")
    if f.readline():
        p, n = c.getpeername(), c.getsockname()
        print(a[0], a[1], p[0], p[1], n[0], n[1], file=f, flush=True)
    f.close()
    c.close()
"#;

/// Starts it, in the cgroup or outside.
fn python(ns: &Ns, host: IpAddr, port: u16, cgroup: &str) -> Result<Running> {
    let child = ns.run(|| {
        Command::new("sh")
            .args(["-c", "echo $$ >$0/cgroup.procs && exec python3 -c \"$@\""])
            .args([cgroup, SERVER, &host.to_string(), &port.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .context("starting python3")
    })?;
    let running = Running(child);
    let ends = format!(":{port:04X} ");
    until_true("it listens", 20.0, || {
        let mut text = ns.read("/proc/net/tcp")?;
        text += &ns.read("/proc/net/tcp6")?;
        Ok(text
            .lines()
            .any(|l| l.contains(&ends) && l.contains(" 0A ")))
    })?;
    Ok(running)
}

/// What the server has seen.
#[derive(Debug)]
struct Seen {
    client: SocketAddr,
    accepted: SocketAddr,
    peer: SocketAddr,
    own: SocketAddr,
}

impl Seen {
    fn is_named(&self) -> bool {
        self.accepted == self.client && self.peer == self.client
    }

    fn is_hidden(&self) -> bool {
        is_local(self.accepted.ip()) && self.peer == self.accepted
    }
}

fn ask(topo: &Topo, vip: SocketAddr) -> Result<Seen> {
    let stream = serve::connect(&topo.client, vip)?;
    let client = stream.local_addr()?;
    let answer = serve::ask(&stream, "who am I?")?;
    let words: Vec<&str> = answer.split(' ').collect();
    let end = |at: usize| -> Result<SocketAddr> {
        let [addr, port] = words
            .get(at..at + 2)
            .and_then(|w| w.try_into().ok())
            .with_context(|| answer.clone())?;
        Ok(SocketAddr::new(addr.parse()?, port.parse()?))
    };
    Ok(Seen {
        client,
        accepted: end(0)?,
        peer: end(2)?,
        own: end(4)?,
    })
}

/// A director with a service that names its clients, a real server per port.
fn director(family: Family, kind: u8, servers: &[(u16, u16)]) -> Result<Topo> {
    let topo = fullnat::topo(1)?;
    let ipvs = Ipvs::open(&topo.director)?;
    for &(port, to) in servers {
        let vip = at(family.vip(), port);
        topo.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        topo.ipvsadm(&format!("-a -t {vip} -r {} -m", at(family.rs(1), to)))?;
        fullnat::add(&ipvs, TCP, vip, local(family, 1))?;
        let extra = Attrs::new().u8(fullnat::TOA_KIND, kind);
        set(&ipvs, TCP, vip, "rr", &extra)?.ok()?;
    }
    Ok(topo)
}

/// What is attached to the cgroup.
fn attached() -> Result<String> {
    let out = Command::new("bpftool")
        .args(["cgroup", "show", CGROUP])
        .output()
        .context("starting bpftool")?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn named(tool: &Path, family: Family) -> Result<()> {
    let topo = director(family, 254, &[(80, 8080), (81, 8081), (82, 8082)])?;
    let [vip, outside, both] = [80, 81, 82].map(|port| at(family.vip(), port));
    let rs = &topo.rs[0];
    let _servers = [
        python(rs, family.rs(1), 8080, CGROUP)?,
        python(rs, family.rs(1), 8081, ROOT)?,
        python(rs, Ipv6Addr::UNSPECIFIED.into(), 8082, CGROUP)?,
    ];
    let seen = ask(&topo, vip)?;
    ensure!(seen.is_hidden(), "without it: {seen:?}");

    let mut reader = Reader::start(tool, &format!("--from {DIRECTORS} --cgroup {CGROUP}"))?;
    for _ in 0..rounds(10) {
        let seen = ask(&topo, vip)?;
        ensure!(seen.is_named(), "{seen:?}, {:?}", reader.counts());
        ensure!(seen.own == at(family.rs(1), 8080), "{seen:?}");
    }
    // A socket for both families has IPv4 addresses as mapped ones.
    let seen = ask(&topo, both)?;
    let client = match seen.client.ip() {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().into(),
        addr => addr,
    };
    let client = at(client, seen.client.port());
    ensure!(
        seen.accepted == client && seen.peer == client,
        "at a socket for both: {seen:?}"
    );
    let seen = ask(&topo, outside)?;
    ensure!(seen.is_hidden(), "outside the cgroup: {seen:?}");
    // Who connects from elsewhere is who he is.
    let direct = topo.director.run(|| -> Result<_> {
        let stream = std::net::TcpStream::connect(at(family.rs(1), 8080))?;
        stream.set_read_timeout(Some(scaled(5.0)))?;
        let me = stream.local_addr()?;
        Ok((serve::ask(&stream, "who am I?")?, me))
    })?;
    let me = format!("{} {}", direct.1.ip(), direct.1.port());
    ensure!(direct.0.starts_with(&format!("{me} {me} ")), "{direct:?}");
    let n = rounds(10) as u64 + 1;
    let counted = reader.counts()?;
    ensure!(counted == [n, 2 * n, 0, 0, 0], "{counted:?} after {n}");
    let last = reader.end()?;
    ensure!(last == counted, "{last:?}");
    ensure!(!attached()?.contains("toa_"), "{}", attached()?);
    let seen = ask(&topo, vip)?;
    ensure!(seen.is_hidden(), "after it: {seen:?}");

    // Not from a director that it was told of.
    let mut reader = Reader::start(
        tool,
        &format!("--from 10.78.0.0/16,fd78::/64 --cgroup {CGROUP}"),
    )?;
    let seen = ask(&topo, vip)?;
    ensure!(seen.is_hidden(), "of a stranger: {seen:?}");
    let counted = reader.counts()?;
    ensure!(counted == [0, 0, 0, 1, 0], "{counted:?}");
    // However it dies, it is detached.
    reader.signal(Signal::SIGKILL)?;
    drop(reader);
    until_true("it is detached", 5.0, || Ok(!attached()?.contains("toa_")))?;

    // Another kind of option.
    let reader = Reader::start(
        tool,
        &format!("--from {DIRECTORS} --cgroup {CGROUP} --kind 200"),
    )?;
    let seen = ask(&topo, vip)?;
    ensure!(seen.is_hidden(), "of another kind: {seen:?}");
    let ipvs = Ipvs::open(&topo.director)?;
    let extra = Attrs::new().u8(fullnat::TOA_KIND, 200);
    set(&ipvs, TCP, vip, "rr", &extra)?.ok()?;
    let seen = ask(&topo, vip)?;
    ensure!(seen.is_named(), "of the same kind: {seen:?}");
    let counted = reader.end()?;
    ensure!(counted == [1, 2, 1, 0, 0], "{counted:?}");
    Ok(())
}

/// With its links pinned by bpftool it may end, and another begin, without a connection that has no name.
fn pinned(tool: &Path, family: Family) -> Result<()> {
    let topo = director(family, 254, &[(80, 8080)])?;
    let vip = at(family.vip(), 80);
    let _server = python(&topo.rs[0], family.rs(1), 8080, CGROUP)?;
    let (init, dir) = (Ns::init()?, "/tmp/bpf-pinned");
    std::fs::create_dir_all(dir)?;
    init.cmd(&format!("mount -t bpf bpf {dir}"))?;
    let args = format!("--from {DIRECTORS} --cgroup {CGROUP}");
    let pin = |to: &str| -> Result<()> {
        std::fs::create_dir(format!("{dir}/{to}"))?;
        // As the manual says it.
        init.cmd_stdin(
            "sh -es",
            &format!(
                "for name in toa_read toa_name4 toa_name6; do\n\
                 prog=$(bpftool -j prog show | jq \".[] | select(.name == \\\"$name\\\").id\" | tail -n 1)\n\
                 link=$(bpftool -j link show | jq \".[] | select(.prog_id == $prog).id\")\n\
                 bpftool link pin id $link {dir}/{to}/$name\ndone\n"
            ),
        )?;
        Ok(())
    };
    let named = |what: &str| -> Result<()> {
        let seen = ask(&topo, vip)?;
        ensure!(seen.is_named(), "{what}: {seen:?}");
        Ok(())
    };
    let reader = Reader::start(tool, &args)?;
    pin("one")?;
    reader.signal(Signal::SIGKILL)?;
    drop(reader);
    for _ in 0..3 {
        named("after its end")?;
    }
    // The next one beside it, then instead of it.
    let mut reader = Reader::start(tool, &args)?;
    pin("two")?;
    named("twice")?;
    std::fs::remove_dir_all(format!("{dir}/one"))?;
    named("by the second")?;
    let [connections, ..] = reader.counts()?;
    ensure!(connections == 2, "{connections}");
    reader.end()?;
    named("after the second's end")?;
    // Without pins, without names.
    std::fs::remove_dir_all(format!("{dir}/two"))?;
    until_true("it is detached", 5.0, || Ok(!attached()?.contains("toa_")))?;
    let seen = ask(&topo, vip)?;
    ensure!(seen.is_hidden(), "without pins: {seen:?}");
    init.cmd(&format!("umount {dir}"))?;
    Ok(())
}

/// The segment that ends the handshake has lost the option on its way; the next has it.
fn late(tool: &Path, family: Family) -> Result<()> {
    let topo = director(family, 254, &[(80, 8080)])?;
    let (rs, vip) = (&topo.rs[0], at(family.vip(), 80));
    // With timestamps and nothing else behind the headers, but the option.
    let length = match family {
        Family::V4 => 20 + 20 + 8 + 12,
        Family::V6 => 40 + 20 + 20 + 12,
    };
    rs.cmd_stdin(
        "nft -f -",
        &format!(
            "table inet t {{\nchain c {{ type filter hook prerouting priority 0;\n\
             meta length {length} tcp flags ack reset tcp option 254\n}}\n}}\n"
        ),
    )?;
    let _server = python(rs, family.rs(1), 8080, CGROUP)?;
    let reader = Reader::start(tool, &format!("--from {DIRECTORS} --cgroup {CGROUP}"))?;
    let seen = ask(&topo, vip)?;
    // What accept() returned depends on which was first, it or the second segment.
    ensure!(seen.peer == seen.client, "{seen:?}");
    let counted = reader.end()?;
    ensure!(
        matches!(counted, [1, 1 | 2, 1, 0, 0]),
        "{counted:?}, {seen:?}"
    );
    Ok(())
}

/// nginx without a word about it in its configuration; with loss and reordering, too.
fn nginx(tool: &Path, family: Family) -> Result<()> {
    let topo = director(family, 254, &[(80, 8080)])?;
    let (vip, rs) = (at(family.vip(), 80), at(family.rs(1), 8080));
    let config = format!(
        "daemon off; master_process off; pid /tmp/nginx.pid; error_log /dev/null;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; server {{ listen {rs};\n\
         location / {{ return 200 \"$remote_addr $remote_port\"; }} }} }}\n"
    );
    // In the root cgroup: all of the host's.
    let reader = Reader::start(tool, &format!("--from {DIRECTORS}"))?;
    let running = start(&topo.rs[0], "nginx", &config, rs)?;
    let ask = |what: &str| -> Result<()> {
        let mut stream = serve::connect(&topo.client, vip)?;
        stream.set_read_timeout(Some(scaled(20.0)))?;
        let client = stream.local_addr()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
        ensure!(
            body.trim() == format!("{} {}", client.ip(), client.port()),
            "{what}: {body:?} to {client}"
        );
        Ok(())
    };
    ask("as it is")?;
    topo.director
        .cmd("tc qdisc add dev s1 root netem loss 20% delay 3ms reorder 25% 50%")?;
    for _ in 0..rounds(8) {
        ask("with loss")?;
    }
    drop(running);
    let [connections, ..] = reader.end()?;
    ensure!(connections > rounds(8) as u64, "{connections}");
    Ok(())
}

/// What it says when it cannot work.
fn refusals(tool: &Path, able: bool) -> Result<()> {
    let says = |before: &[&str], args: &str, code: i32, words: &str| -> Result<()> {
        let mut line: Vec<&str> = before.to_vec();
        let path = tool.to_str().context("its path")?;
        line.push(path);
        line.extend(args.split_whitespace());
        let out = Command::new(line[0]).args(&line[1..]).output()?;
        let text = String::from_utf8_lossy(&out.stderr);
        ensure!(
            out.status.code() == Some(code) && text.contains(words),
            "{line:?}, expected {code} and {words:?}: {out:?}"
        );
        Ok(())
    };
    says(&[], "", 2, "--from <PREFIX>")?;
    says(&[], "--from 10.0.0.1/8", 2, "bits behind its prefix")?;
    says(&[], "--from nowhere", 2, "no IP address")?;
    says(&[], "--from 10.0.0.0/8 --kind 1", 2, "1 is not in 2..")?;
    says(
        &[],
        "--from 10.0.0.0/8 --cgroup /sys/fs/cgroup/none",
        1,
        "No such file",
    )?;
    says(
        &[],
        "--from 10.0.0.0/8 --cgroup /proc",
        1,
        "not a cgroup of version 2",
    )?;
    says(
        &["setpriv", "--reuid=65534", "--clear-groups"],
        "--from 10.0.0.0/8",
        1,
        "needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN",
    )?;
    if !able {
        return says(
            &[],
            &format!("--from {DIRECTORS}"),
            1,
            "keep the memory of BPF programs with sockets",
        );
    }

    // These are enough.
    let caps =
        ["--inh-caps", "--ambient-caps"].map(|set| format!("{set}=+bpf,+perfmon,+net_admin"));
    let few = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups"])
        .args(&caps)
        .arg(tool)
        .args(["--from", DIRECTORS, "--cgroup", CGROUP])
        .stdout(Stdio::piped())
        .spawn()
        .context("starting setpriv")?;
    Reader::of(few)?.end()?;
    let help = Command::new(tool).arg("--help").output()?;
    let text = String::from_utf8_lossy(&help.stdout);
    ensure!(
        help.status.success() && text.contains("getpeername()"),
        "{help:?}"
    );

    // Somebody's program that tolerates no other: one of ours, attached as nobody should.
    let dir = "/tmp/bpf";
    std::fs::create_dir_all(dir)?;
    let init = Ns::init()?;
    init.cmd(&format!("mount -t bpf bpf {dir}"))?;
    let reader = Reader::start(tool, &format!("--from {DIRECTORS} --cgroup {CGROUP}"))?;
    init.cmd(&format!("bpftool prog pin name toa_name4 {dir}/other"))?;
    reader.end()?;
    let about = format!("{CGROUP} getpeername4 pinned {dir}/other");
    until("nothing is attached", 5.0, || {
        let out = init.try_cmd(&format!("bpftool cgroup attach {about}"))?;
        Ok((out.code == Some(0)).then_some(()))
    })?;
    says(
        &[],
        &format!("--from {DIRECTORS} --cgroup {CGROUP}"),
        1,
        "allows no other",
    )?;
    init.cmd(&format!("bpftool cgroup detach {about}"))?;
    init.cmd(&format!("umount {dir}"))?;
    Ok(())
}
