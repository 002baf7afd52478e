// SPDX-License-Identifier: GPL-2.0-or-later

//! Real servers that answer with their name, and real clients.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use crate::ns::Ns;
use crate::wait::{patience, scaled};

/// A server that runs until dropped. Every answer starts with its name.
#[derive(Debug)]
pub struct Server {
    pub addr: SocketAddr,
    pub requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

const POLL: Duration = Duration::from_millis(20);

fn is_timeout(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// One TCP connection: lines are answered by `NAME PEER LINE`, `GET` requests in HTTP, `BULK n` by
/// n bytes.
fn talk(stream: &TcpStream, name: &str, requests: &AtomicU64) -> std::io::Result<()> {
    let peer = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let text = line.trim_end();
        requests.fetch_add(1, Ordering::Relaxed);
        if text.starts_with("GET ") {
            let mut keep = !text.ends_with("HTTP/1.0");
            loop {
                let mut header = String::new();
                if lines.read_line(&mut header)? == 0 || header.trim_end().is_empty() {
                    break;
                }
                keep &= !header.to_ascii_lowercase().starts_with("connection: close");
            }
            let body = format!("{name} {peer}\n");
            let close = if keep { "" } else { "Connection: close\r\n" };
            out.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{body}",
                    body.len()
                )
                .as_bytes(),
            )?;
            if !keep {
                return Ok(());
            }
        } else if let Some(n) = text.strip_prefix("BULK ") {
            write_pattern(&mut out, n.parse().unwrap_or(0))?;
        } else if let Some(n) = text.strip_prefix("TAKE ") {
            let right = read_pattern(&mut lines, n.parse().unwrap_or(0))?.is_none();
            out.write_all(
                format!("{name} {}\n", if right { "right" } else { "wrong" }).as_bytes(),
            )?;
        } else {
            out.write_all(format!("{name} {peer} {text}\n").as_bytes())?;
        }
    }
}

impl Server {
    /// A TCP server at `addr` in `ns`.
    pub fn tcp(ns: &Ns, addr: SocketAddr, name: &str) -> Result<Self> {
        let listener = ns
            .run(|| TcpListener::bind(addr))
            .with_context(|| format!("listening at {addr}"))?;
        listener.set_nonblocking(true)?;
        let (stop, requests) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted, name) = (stop.clone(), requests.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (name, counted) = (name.clone(), counted.clone());
                        std::thread::spawn(move || {
                            // The socket inherits non-blocking mode on no Linux, but be sure.
                            if stream.set_nonblocking(false).is_ok() {
                                // A client that went away is the client's business.
                                let _ = talk(&stream, &name, &counted);
                            }
                        });
                    }
                    Err(e) if is_timeout(&e) => wait_readable(&listener),
                    Err(_) => {}
                }
            }
        });
        Ok(Self {
            addr,
            requests,
            stop,
            thread: Some(thread),
        })
    }

    /// A UDP server at `addr` in `ns`: answers `NAME PEER TEXT`.
    pub fn udp(ns: &Ns, addr: SocketAddr, name: &str) -> Result<Self> {
        let socket = ns
            .run(|| UdpSocket::bind(addr))
            .with_context(|| format!("binding {addr}"))?;
        socket.set_read_timeout(Some(POLL))?;
        let (stop, requests) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (stopped, counted, name) = (stop.clone(), requests.clone(), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut buf = vec![0; 70_000];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((n, peer)) = socket.recv_from(&mut buf) else {
                    continue;
                };
                counted.fetch_add(1, Ordering::Relaxed);
                let mut answer = format!("{name} {peer} ").into_bytes();
                answer.extend(&buf[..n]);
                let _ = socket.send_to(&answer, peer);
            }
        });
        Ok(Self {
            addr,
            requests,
            stop,
            thread: Some(thread),
        })
    }

    pub fn count(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

fn wait_readable(listener: &TcpListener) {
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    // Whatever it says, the caller looks again.
    let _ = poll(&mut fds, PollTimeout::from(20u8));
}

/// A TCP connection from `ns`.
pub fn connect(ns: &Ns, to: SocketAddr) -> Result<TcpStream> {
    let stream = ns
        .run(|| TcpStream::connect_timeout(&to, patience(5.0)))
        .with_context(|| format!("connecting from {} to {to}", ns.name()))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience(5.0)))?;
    stream.set_write_timeout(Some(patience(5.0)))?;
    Ok(stream)
}

/// Sends the SYN of a connection from `ns` and does not wait for it to be answered.
pub fn begin_connect(ns: &Ns, to: SocketAddr) -> Result<OwnedFd> {
    use nix::sys::socket::{connect, socket, AddressFamily, SockFlag, SockType, SockaddrStorage};
    ns.run(|| {
        let family = if to.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(socket),
            Err(e) => Err(e).with_context(|| format!("connecting from {} to {to}", ns.name())),
        }
    })
}

/// Sends a line and returns the line that comes back, without its end.
pub fn ask(mut stream: &TcpStream, line: &str) -> Result<String> {
    stream
        .write_all(format!("{line}\n").as_bytes())
        .context("sending a line")?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).context("waiting for the answer")? == 1 {
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&answer).into_owned());
        }
        answer.push(byte[0]);
    }
    bail!(
        "connection closed after {:?}",
        String::from_utf8_lossy(&answer)
    )
}

/// One HTTP request on a connection of its own; returns the body without its end of line.
pub fn http_get(ns: &Ns, to: SocketAddr) -> Result<String> {
    let mut stream = connect(ns, to)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("reading the answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no HTTP in {answer:?}"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.trim_end().to_owned())
}

/// Has the server send `n` bytes, all of which must arrive.
pub fn fetch(mut stream: &TcpStream, n: usize) -> Result<()> {
    stream.write_all(format!("BULK {n}\n").as_bytes())?;
    take_bulk(stream, n)
}

/// Sends the server `n` bytes, all of which must arrive.
pub fn give(mut stream: &TcpStream, n: usize) -> Result<()> {
    stream.write_all(format!("TAKE {n}\n").as_bytes())?;
    write_pattern(&mut stream, n)?;
    let answer = ask(stream, "")?;
    ensure!(answer.ends_with("right"), "{answer:?}");
    Ok(())
}

/// Reads `n` bytes of the pattern that `BULK` sends.
pub fn take_bulk(mut stream: &TcpStream, n: usize) -> Result<()> {
    match read_pattern(&mut stream, n).context("reading the bulk")? {
        Some((at, byte)) => bail!("byte {at} of {n} is {byte:#x}"),
        None => Ok(()),
    }
}

/// After so many bytes the pattern begins anew.
const PERIOD: usize = 251;

/// The pattern that `TAKE` expects.
pub fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % PERIOD) as u8).collect()
}

/// Some of it, to be used again and again.
fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| pattern(256 * PERIOD))
}

/// Writes `n` bytes of the pattern.
pub fn write_pattern(out: &mut impl Write, mut n: usize) -> std::io::Result<()> {
    while n > 0 {
        let some = &block()[..n.min(block().len())];
        out.write_all(some)?;
        n -= some.len();
    }
    Ok(())
}

/// Reads `n` bytes; where the first is that isn't the pattern's, and what it is.
pub fn read_pattern(input: &mut impl Read, n: usize) -> std::io::Result<Option<(usize, u8)>> {
    let mut wrong = None;
    let mut bytes = vec![0; n.min(block().len())];
    let mut at = 0;
    while at < n {
        let len = bytes.len().min(n - at);
        input.read_exact(&mut bytes[..len])?;
        if wrong.is_none() && bytes[..len] != block()[..len] {
            let first = bytes.iter().zip(block()).position(|(a, b)| a != b);
            wrong = first.map(|i| (at + i, bytes[i]));
        }
        at += len;
    }
    Ok(wrong)
}

/// A UDP socket in `ns`, connected to `to`, from a port that no socket before it had: what IPVS knows
/// of an old one would be found again.
pub fn udp(ns: &Ns, to: SocketAddr) -> Result<UdpSocket> {
    static PORT: AtomicU16 = AtomicU16::new(20_000);
    let ip: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let any = SocketAddr::new(ip, PORT.fetch_add(1, Ordering::Relaxed));
    let socket = ns.run(|| -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    socket.set_read_timeout(Some(scaled(3.0)))?;
    Ok(socket)
}

/// Sends a datagram and returns the answer.
pub fn ask_udp(socket: &UdpSocket, text: &str) -> Result<String> {
    socket.send(text.as_bytes()).context("sending a datagram")?;
    let mut buf = vec![0; 70_000];
    let n = socket.recv(&mut buf).context("waiting for a datagram")?;
    Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
}

/// The first word of an answer: the server's name.
pub fn name(answer: &str) -> &str {
    answer.split(' ').next().unwrap_or_default()
}
