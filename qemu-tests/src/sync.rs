// SPDX-License-Identifier: GPL-2.0-or-later

//! The synchronisation protocol spelled out, apart from how rvs does it, and a network in which to hear and to speak it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::ns::Ns;
use crate::pkt::{octets, Pkt, ACK, RST, SYN, UDP};
use crate::rig::{Rig, Side};
use crate::tap::Tap;
use crate::topo::{at, Family};
use crate::wait::{patience, until, until_true};

/// Flags of a connection.
pub const INACTIVE: u32 = 0x100;
pub const NOOUTPUT: u32 = 0x80;
pub const SEQ: u32 = 0x600;
pub const NO_CPORT: u32 = 0x800;
pub const TEMPLATE: u32 = 0x1000;
pub const ONE_PACKET: u32 = 0x2000;
/// Forwarding methods.
pub const NAT: u32 = 0;
pub const TUNNEL: u32 = 2;
pub const DIRECT: u32 = 3;

/// States of TCP connections.
pub const ESTABLISHED: u16 = 1;
pub const FIN_WAIT: u16 = 4;
pub const TIME_WAIT: u16 = 5;
pub const CLOSE: u16 = 6;
pub const CLOSE_WAIT: u16 = 7;

/// The default group and port.
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 81);
pub const PORT: u16 = 8848;

/// A connection as a datagram tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub proto: u8,
    pub flags: u32,
    pub state: u16,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub dest: SocketAddr,
    pub fwmark: u32,
    pub timeout: u32,
    /// Type and value, version 1 only.
    pub options: Vec<(u8, Vec<u8>)>,
    /// Sequence data of version 0.
    pub seq0: Option<[u32; 6]>,
}

impl Record {
    pub fn new(
        proto: u8,
        client: SocketAddr,
        vip: SocketAddr,
        dest: SocketAddr,
        flags: u32,
        state: u16,
    ) -> Self {
        Self {
            proto,
            flags,
            state,
            client,
            vip,
            dest,
            fwmark: 0,
            timeout: 0,
            options: Vec::new(),
            seq0: None,
        }
    }

    pub fn with(mut self, f: impl FnOnce(&mut Self)) -> Self {
        f(&mut self);
        self
    }

    /// The bytes of version 1, without padding.
    pub fn v1(&self) -> Vec<u8> {
        let v6 = self.client.is_ipv6();
        let mut b = vec![u8::from(v6), self.proto, 0, 0];
        b.extend(self.flags.to_be_bytes());
        b.extend(self.state.to_be_bytes());
        for a in [self.client, self.vip, self.dest] {
            b.extend(a.port().to_be_bytes());
        }
        b.extend(self.fwmark.to_be_bytes());
        b.extend(self.timeout.to_be_bytes());
        for a in [self.client, self.vip, self.dest] {
            b.extend(octets(a.ip()));
        }
        for (kind, value) in &self.options {
            b.extend([*kind, value.len() as u8]);
            b.extend(value);
        }
        let len = (b.len() as u16).to_be_bytes();
        b[2..4].copy_from_slice(&len);
        b
    }

    /// The bytes of version 0.
    pub fn v0(&self) -> Vec<u8> {
        let mut b = vec![0, self.proto];
        for a in [self.client, self.vip, self.dest] {
            b.extend(a.port().to_be_bytes());
        }
        for a in [self.client, self.vip, self.dest] {
            b.extend(octets(a.ip()));
        }
        b.extend((self.flags as u16).to_be_bytes());
        b.extend(self.state.to_be_bytes());
        for word in self.seq0.iter().flatten() {
            b.extend(word.to_ne_bytes());
        }
        b
    }
}

/// Records, as their bytes, to a datagram of version 1.
pub fn datagram_v1(syncid: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let mut b = vec![0, syncid, 0, 0, records.len() as u8, 1, 0, 0];
    for record in records {
        b.resize(b.len().next_multiple_of(4), 0);
        b.extend(record);
    }
    sized(b)
}

/// Records, as their bytes, to a datagram of version 0.
pub fn datagram_v0(syncid: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let mut b = vec![records.len() as u8, syncid, 0, 0];
    b.extend(records.concat());
    sized(b)
}

/// Makes the header say how long the datagram is.
pub fn sized(mut b: Vec<u8>) -> Vec<u8> {
    let len = (b.len() as u16).to_be_bytes();
    b[2..4].copy_from_slice(&len);
    b
}

/// A datagram in which nothing is unusual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub version: u8,
    pub syncid: u8,
    pub records: Vec<Record>,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        ensure!(self.0.len() >= n, "cut off");
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn ip(&mut self, v6: bool) -> Result<IpAddr> {
        Ok(if v6 {
            Ipv6Addr::from(<[u8; 16]>::try_from(self.take(16)?)?).into()
        } else {
            Ipv4Addr::from(<[u8; 4]>::try_from(self.take(4)?)?).into()
        })
    }
}

impl Datagram {
    /// Complains about whatever no master sends.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_inner(bytes).with_context(|| format!("in {}", hex(bytes)))
    }

    fn parse_inner(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader(bytes);
        let (first, syncid, size) = (r.u8()?, r.u8()?, r.u16()?);
        ensure!(usize::from(size) == bytes.len(), "says {size} bytes");
        let v1 = first == 0;
        let count = if v1 {
            let count = r.u8()?;
            ensure!(r.take(3)? == [1, 0, 0], "version or spare bytes");
            count
        } else {
            first
        };
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(if v1 {
                let pad = (bytes.len() - r.0.len()).wrapping_neg() % 4;
                ensure!(r.take(pad)?.iter().all(|b| *b == 0), "padding");
                Self::v1(&mut r)?
            } else {
                Self::v0(&mut r)?
            });
        }
        ensure!(r.0.is_empty(), "{} bytes too many", r.0.len());
        ensure!(!records.is_empty(), "empty");
        Ok(Self {
            version: u8::from(v1),
            syncid,
            records,
        })
    }

    fn v1(r: &mut Reader<'_>) -> Result<Record> {
        let (kind, proto, len) = (r.0[0], r.0[1], u16::from_be_bytes([r.0[2], r.0[3]]));
        ensure!(kind <= 1, "type {kind}");
        let v6 = kind == 1;
        let mut r = Reader(r.take(len.into())?);
        r.take(4)?;
        let (flags, state) = (r.u32()?, r.u16()?);
        let ports = [r.u16()?, r.u16()?, r.u16()?];
        let (fwmark, timeout) = (r.u32()?, r.u32()?);
        let [client, vip, dest] =
            [r.ip(v6)?, r.ip(v6)?, r.ip(v6)?].map(|ip| SocketAddr::new(ip, 0));
        let mut record = Record::new(proto, client, vip, dest, flags, state);
        record.client.set_port(ports[0]);
        record.vip.set_port(ports[1]);
        record.dest.set_port(ports[2]);
        (record.fwmark, record.timeout) = (fwmark, timeout);
        while !r.0.is_empty() {
            let (kind, len) = (r.u8()?, r.u8()?);
            record.options.push((kind, r.take(len.into())?.to_vec()));
        }
        Ok(record)
    }

    fn v0(r: &mut Reader<'_>) -> Result<Record> {
        ensure!(r.u8()? == 0, "reserved byte");
        let proto = r.u8()?;
        let ports = [r.u16()?, r.u16()?, r.u16()?];
        let ips = [r.ip(false)?, r.ip(false)?, r.ip(false)?];
        let [client, vip, dest] = [0, 1, 2].map(|n| SocketAddr::new(ips[n], ports[n]));
        let (flags, state) = (r.u16()?, r.u16()?);
        let mut record = Record::new(proto, client, vip, dest, flags.into(), state);
        if record.flags & SEQ != 0 {
            let mut words = [0; 6];
            for word in &mut words {
                *word = u32::from_ne_bytes(r.take(4)?.try_into()?);
            }
            record.seq0 = Some(words);
        }
        Ok(record)
    }
}

/// Bytes as people read them.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in bytes {
        // Into a string it always succeeds.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The other way round; blanks do not count.
pub fn unhex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).context("no digit"))
        .collect::<Result<_>>()?;
    ensure!(digits.len() % 2 == 0, "odd");
    Ok(digits.chunks(2).map(|d| (d[0] * 16 + d[1]) as u8).collect())
}

/// A datagram that was heard.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Of IP and UDP.
    pub pkt: Pkt,
    pub said: Datagram,
    pub when: Instant,
}

/// A link between a director (m0) and the namespace of another one, which is not there.
#[derive(Debug)]
pub struct Link {
    pub peer: Ns,
    tap: Tap,
}

/// The addresses of the link: the director's, the other's.
pub const LINK4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 7, 0, 1), Ipv4Addr::new(10, 7, 0, 2)];
pub const LINK6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, 2),
];

/// Joins two namespaces: m0 of `director` and eth0 of `peer`.
pub fn join(director: &Ns, peer: &Ns) -> Result<()> {
    director.ip(&format!(
        "link add m0 address 02:00:00:00:c8:01 type veth peer name eth0 address 02:00:00:00:c8:02 netns {}\n\
         link set m0 addrgenmode none\n\
         link set m0 up\n\
         addr add {}/24 dev m0\n\
         addr add {}/64 dev m0 nodad\n",
        peer.path(),
        LINK4[0],
        LINK6[0],
    ))?;
    peer.ip(&format!(
        "link set eth0 addrgenmode none\n\
         link set eth0 up\n\
         addr add {}/24 dev eth0\n\
         addr add {}/64 dev eth0 nodad\n\
         route add 224.0.0.0/4 dev eth0\n",
        LINK4[1], LINK6[1],
    ))
}

impl Link {
    pub fn new(director: &Ns) -> Result<Self> {
        let peer = Ns::new("peer")?;
        join(director, &peer)?;
        let tap = Tap::open(&peer, "eth0", [2, 0, 0, 0, 200, 2], [2, 0, 0, 0, 200, 1])?;
        Ok(Self { peer, tap })
    }

    /// The next datagram to a multicast group, within `wait`.
    pub fn hear(&self, wait: Duration) -> Result<Option<Heard>> {
        let end = Instant::now() + wait;
        while let Some(frame) = self
            .tap
            .recv(end.saturating_duration_since(Instant::now()))?
        {
            if frame.pkt.proto == UDP && frame.pkt.dst.is_multicast() && !frame.outgoing {
                let said = Datagram::parse(&frame.pkt.body)?;
                return Ok(Some(Heard {
                    pkt: frame.pkt,
                    said,
                    when: Instant::now(),
                }));
            }
        }
        Ok(None)
    }

    /// Throws one frame away, whatever it is; whether there was one.
    pub fn hear_raw(&self) -> Result<bool> {
        Ok(self.tap.recv(Duration::ZERO)?.is_some())
    }

    /// What is heard until `enough` of it was, within `seconds` ([`patience`]).
    pub fn hear_until(
        &self,
        what: &str,
        seconds: f64,
        mut enough: impl FnMut(&[Heard]) -> bool,
    ) -> Result<Vec<Heard>> {
        let end = Instant::now() + patience(seconds);
        let mut all = Vec::new();
        while !enough(&all) {
            match self.hear(end.saturating_duration_since(Instant::now()))? {
                Some(heard) => all.push(heard),
                None => bail!("{what} was not heard, only {all:#?}"),
            }
        }
        Ok(all)
    }

    /// A socket that speaks to a group and port on the link.
    pub fn speaker(&self, group: SocketAddr) -> Result<UdpSocket> {
        self.peer.run(|| {
            let any: IpAddr = match group {
                SocketAddr::V4(_) => LINK4[1].into(),
                SocketAddr::V6(_) => LINK6[1].into(),
            };
            let socket = UdpSocket::bind(SocketAddr::new(any, 0)).context("binding the speaker")?;
            socket.connect(group).context("connecting the speaker")?;
            Ok(socket)
        })
    }
}

/// A network whose director is a master that sends each record by itself, at once.
pub struct Master {
    pub rig: Rig,
    pub link: Link,
    fences: u16,
}

/// What is sent to this port of the virtual addresses is announced in any case, for [`Master::announced()`].
pub const FENCE_PORT: u16 = 9;

impl Master {
    /// `options` of the daemon beside its interface; a `--sync-maxlen` of 1 is among them.
    pub fn new(options: &str) -> Result<Self> {
        let rig = Rig::new()?;
        let link = Link::new(&rig.topo.director)?;
        let vip = at(Family::V4.vip(), FENCE_PORT);
        rig.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        rig.ipvsadm(&format!(
            "-a -t {vip} -r {} -m",
            at(Family::V4.raw_rs(9), 9)
        ))?;
        rig.ipvsadm(&format!(
            "--start-daemon master --mcast-interface m0 --sync-maxlen 1 {options}"
        ))?;
        Ok(Self {
            rig,
            link,
            fences: 0,
        })
    }

    /// A connection that is announced whatever is configured: its third packet ends it. Returns the client's port.
    fn fence(&mut self) -> Result<u16> {
        self.fences += 1;
        let port = 50_000 + self.fences;
        let client = at(Family::V4.raw_client(0x9999), port);
        let vip = at(Family::V4.vip(), FENCE_PORT);
        self.rig.exchange(
            Side::Client,
            &[SYN, ACK, RST].map(|flags| Pkt::tcp(client, vip, flags)),
        )?;
        Ok(port)
    }

    /// Sends packets and returns the records that this made, in order.
    pub fn announced(&mut self, from: Side, pkts: &[Pkt]) -> Result<Vec<Record>> {
        Ok(self
            .heard(from, pkts)?
            .into_iter()
            .flat_map(|heard| heard.said.records)
            .collect())
    }

    /// As [`Master::announced()`] with the datagrams.
    pub fn heard(&mut self, from: Side, pkts: &[Pkt]) -> Result<Vec<Heard>> {
        self.rig.exchange(from, pkts)?;
        self.since()
    }

    /// The datagrams of what was sent since the last time. What ended a time before is not among them.
    pub fn since(&mut self) -> Result<Vec<Heard>> {
        // A record leaves when the next one needs its room: the second fence pushes the first one out.
        let fence = self.fence()?;
        self.fence()?;
        let is_fence = |heard: &Heard| heard.said.records[0].vip.port() == FENCE_PORT;
        let heard = self.link.hear_until("a fence", 5.0, |all| {
            all.last()
                .is_some_and(|h| is_fence(h) && h.said.records[0].client.port() == fence)
        })?;
        Ok(heard.into_iter().filter(|h| !is_fence(h)).collect())
    }
}

/// A row of /proc/net/ip_vs_conn_sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub proto: String,
    pub client: SocketAddr,
    pub vip: SocketAddr,
    pub dest: SocketAddr,
    pub state: String,
    /// Made by the sync daemon.
    pub synced: bool,
    pub expires: u32,
}

/// The connections of a namespace, with their origin.
pub fn rows(ns: &Ns) -> Result<Vec<Row>> {
    let text = ns.read("/proc/net/ip_vs_conn_sync")?;
    let (mut origins, mut plain) = (Vec::new(), String::new());
    for (n, line) in text.lines().enumerate() {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if n > 0 {
            ensure!(words.len() == 10, "row {line:?}");
            origins.push(match words.remove(8) {
                "SYNC" => true,
                "LOCAL" => false,
                other => bail!("origin {other}"),
            });
        }
        plain += &(words.join(" ") + "\n");
    }
    Ok(crate::proc::conns_of(&plain)?
        .into_iter()
        .zip(origins)
        .map(|(conn, synced)| Row {
            proto: conn.proto,
            client: conn.client,
            vip: conn.vip,
            dest: conn.dest,
            state: conn.state,
            synced,
            expires: conn.expires,
        })
        .collect())
}

/// Where the connections of [`Backup::heard()`] lead.
const FENCE_VIP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 250, 0, 2)), 1);

/// A backup, and one who speaks to it.
pub struct Backup<'a> {
    pub director: &'a Ns,
    pub socket: UdpSocket,
    pub syncid: u8,
}

impl<'a> Backup<'a> {
    /// Starts the daemon of `director` on m0, which `link` is at the other end of.
    pub fn start(director: &'a Ns, link: &Link, options: &str) -> Result<Self> {
        crate::topo::ipvsadm(
            director,
            &format!("--start-daemon backup --mcast-interface m0 {options}"),
        )?;
        Self::of(director, link, at(GROUP.into(), PORT))
    }

    /// Of a daemon that runs.
    pub fn of(director: &'a Ns, link: &Link, group: SocketAddr) -> Result<Self> {
        Ok(Self {
            director,
            socket: link.speaker(group)?,
            syncid: 0,
        })
    }

    /// Says something and waits until it was dealt with.
    pub fn say(&self, datagrams: &[Vec<u8>]) -> Result<Vec<Row>> {
        for bytes in datagrams {
            self.socket.send(bytes)?;
        }
        self.settled()
    }

    /// Waits until all that was said before was dealt with. Returns all connections, from a list that is the same twice: one that
    /// is read while the table is resized may lack some.
    pub fn settled(&self) -> Result<Vec<Row>> {
        self.heard()?;
        let mut before = Vec::new();
        until("a list that stays the same", 5.0, || {
            let mut now: Vec<Row> = rows(self.director)?
                .into_iter()
                .filter(|row| row.vip != FENCE_VIP)
                .collect();
            now.sort_by_key(|row| (row.client, row.vip, row.dest, row.proto.clone()));
            let same =
                |(a, b): (&Row, &Row)| (a.client, a.vip, a.dest) == (b.client, b.vip, b.dest);
            let is_same = before.len() == now.len() && before.iter().zip(&now).all(same);
            before = now;
            Ok(is_same.then(|| before.clone()))
        })
    }

    /// Waits until all that was said before was dealt with: a connection that nobody else knows shows up.
    pub fn heard(&self) -> Result<()> {
        // Each has its own, of whatever daemon and network.
        static FENCES: AtomicU16 = AtomicU16::new(1);
        let fence = Record::new(
            UDP,
            SocketAddr::from(([10, 250, 0, 1], FENCES.fetch_add(1, Ordering::Relaxed))),
            FENCE_VIP,
            SocketAddr::from(([10, 250, 0, 3], 1)),
            NAT,
            0,
        )
        .with(|r| r.timeout = 600);
        let bytes = datagram_v1(self.syncid, &[fence.v1()]);
        self.socket.send(&bytes)?;
        let mut sent = Instant::now();
        until("the fence shows in the table", 5.0, || {
            // A socket whose buffer was full took no more.
            if sent.elapsed() > Duration::from_millis(500) {
                self.socket.send(&bytes)?;
                sent = Instant::now();
            }
            let all = rows(self.director)?;
            Ok(all
                .iter()
                .any(|row| row.client == fence.client)
                .then_some(()))
        })
    }
}

/// The kernel threads of daemons: name, and state as a letter.
pub fn kthreads() -> Result<Vec<(String, char)>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        // Processes end meanwhile. "PID (NAME) STATE ..."
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else {
            continue;
        };
        let Some((name, rest)) = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'))
        else {
            continue;
        };
        if name.starts_with("ipvs-m:") || name.starts_with("ipvs-b:") {
            let state = rest.trim().chars().next().context("no state")?;
            threads.push((name.to_owned(), state));
        }
    }
    threads.sort();
    Ok(threads)
}

/// Waits until the threads of daemons have begun. The C module, if it stops one before, answers nothing at all: `EINTR` from
/// `kthread_stop()`, at which netlink forgets the request.
pub fn begun() -> Result<()> {
    until_true("the threads wait for something", 5.0, || {
        Ok(kthreads()?.iter().all(|(_, state)| *state == 'S'))
    })
}
