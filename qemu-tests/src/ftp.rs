// SPDX-License-Identifier: GPL-2.0-or-later

//! A small FTP server and client: real sessions with real transfers, by all four ways to open a data connection.
//!
//! Files are patterns of a length: `RETR n` sends n bytes of what [`serve::pattern`] makes, `STOR n` expects them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::sys::socket::{
    bind, connect, setsockopt, socket, sockopt, AddressFamily, SockFlag, SockType, SockaddrStorage,
};

use crate::ns::Ns;
use crate::serve;
use crate::topo::at;
use crate::wait::patience;

/// How an FTP client opens its data connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    Pasv,
    Epsv,
    Port,
    Eprt,
}

/// A server that runs until dropped.
#[derive(Debug)]
pub struct Server {
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

/// Where the data connection of a session is to come from.
enum Place {
    None,
    Wait(TcpListener),
    Connect(SocketAddr),
}

/// One control connection, seen by the server.
struct Session {
    control: TcpStream,
    place: Place,
    name: String,
}

impl Session {
    fn say(&mut self, text: &str) -> Result<()> {
        // One packet for each reply: IPVS sees no more than that.
        Ok(self.control.write_all(format!("{text}\r\n").as_bytes())?)
    }

    fn wait(&mut self) -> Result<u16> {
        let listener = TcpListener::bind(at(self.control.local_addr()?.ip(), 0))?;
        let port = listener.local_addr()?.port();
        self.place = Place::Wait(listener);
        Ok(port)
    }

    /// The data connection. An active one comes from the port before that of the control connection.
    fn data(&mut self) -> Result<TcpStream> {
        let stream = match std::mem::replace(&mut self.place, Place::None) {
            Place::None => anyhow::bail!("no place for data"),
            Place::Wait(listener) => {
                listener.set_nonblocking(true)?;
                let (stream, _) =
                    crate::wait::until("a data connection", 5.0, || Ok(listener.accept().ok()))?;
                stream.set_nonblocking(false)?;
                stream
            }
            Place::Connect(to) => {
                let local = self.control.local_addr()?;
                TcpStream::from(connect_from(at(local.ip(), local.port() - 1), to)?)
            }
        };
        stream.set_read_timeout(Some(patience(5.0)))?;
        stream.set_write_timeout(Some(patience(5.0)))?;
        Ok(stream)
    }

    /// Does what a line says; whether there is more to come.
    fn obey(&mut self, line: &str) -> Result<bool> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word.to_ascii_uppercase().as_str() {
            "USER" => self.say("331 any password")?,
            "PASS" => self.say("230 welcome")?,
            "NAME" => self.say(&format!("200 {}", self.name.clone()))?,
            // What was sent: numbers that are wrong would let it come twice or not at all.
            "ECHO" => self.say(&format!("200 {rest}"))?,
            "SYST" => self.say("215 UNIX Type: L8")?,
            "PWD" => self.say("257 \"/\"")?,
            "TYPE" | "NOOP" | "CWD" => self.say("200 yes")?,
            "SIZE" => self.say(&format!("213 {rest}"))?,
            "PASV" => {
                let port = self.wait()?;
                let IpAddr::V4(ip) = self.control.local_addr()?.ip() else {
                    self.say("522 use EPSV")?;
                    return Ok(true);
                };
                let [a, b, c, d] = ip.octets();
                let [hi, lo] = port.to_be_bytes();
                self.say(&format!(
                    "227 Entering Passive Mode ({a},{b},{c},{d},{hi},{lo})."
                ))?;
            }
            "EPSV" => {
                let port = self.wait()?;
                self.say(&format!("229 Entering Extended Passive Mode (|||{port}|)"))?;
            }
            "PORT" => {
                let n: Vec<u8> = rest
                    .split(',')
                    .map(str::parse)
                    .collect::<Result<_, _>>()
                    .context("PORT")?;
                let [a, b, c, d, hi, lo] = n[..] else {
                    anyhow::bail!("PORT {rest}");
                };
                let ip = Ipv4Addr::new(a, b, c, d).into();
                self.place = Place::Connect(at(ip, u16::from_be_bytes([hi, lo])));
                self.say("200 PORT command successful")?;
            }
            "EPRT" => {
                let parts: Vec<&str> = rest.split('|').collect();
                let [_, _, ip, port, _] = parts[..] else {
                    anyhow::bail!("EPRT {rest}");
                };
                self.place = Place::Connect(at(ip.parse()?, port.parse()?));
                self.say("200 EPRT command successful")?;
            }
            "RETR" => {
                self.say("150 here it comes")?;
                let mut data = self.data()?;
                serve::write_pattern(&mut data, rest.parse()?)?;
                drop(data);
                self.say("226 done")?;
            }
            "STOR" => {
                self.say("150 waiting for it")?;
                let mut data = self.data()?;
                let right = takes_all(&mut data, rest.parse()?).is_ok();
                self.say(if right { "226 right" } else { "550 wrong" })?;
            }
            "QUIT" => {
                self.say("221 bye")?;
                return Ok(false);
            }
            _ => self.say("500 what?")?,
        }
        Ok(true)
    }

    fn run(&mut self) -> Result<()> {
        self.control.set_nodelay(true)?;
        self.say("220 ready")?;
        let mut lines = BufReader::new(self.control.try_clone()?);
        let mut line = String::new();
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match self.obey(line.trim_end()) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) => self.say(&format!("425 {e:#}"))?,
            }
        }
    }
}

/// A connection from an address and port that others of its kind may have, too.
fn connect_from(from: SocketAddr, to: SocketAddr) -> Result<OwnedFd> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::empty(), None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from)).with_context(|| format!("from {from}"))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).with_context(|| format!("to {to}"))?;
    Ok(fd)
}

impl Server {
    /// A server at `addr` in `ns`.
    pub fn new(ns: &Ns, addr: SocketAddr, name: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, name) = (stop.clone(), name.to_owned());
        // A thread that was started in a namespace is in it.
        let thread = ns.run(|| -> Result<_> {
            let listener =
                TcpListener::bind(addr).with_context(|| format!("listening at {addr}"))?;
            listener.set_nonblocking(true)?;
            Ok(std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let Ok((control, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let mut session = Session {
                        control,
                        place: Place::None,
                        name: name.clone(),
                    };
                    std::thread::spawn(move || {
                        if session.control.set_nonblocking(false).is_ok() {
                            // A client that went away is the client's business.
                            let _ = session.run();
                        }
                    });
                }
            }))
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// Reads a file of `n` bytes, and its end.
fn takes_all(data: &mut TcpStream, n: usize) -> Result<()> {
    serve::take_bulk(data, n)?;
    ensure!(data.read(&mut [0])? == 0, "more than {n} bytes");
    Ok(())
}

/// A client's session.
#[derive(Debug)]
pub struct Client<'a> {
    ns: &'a Ns,
    pub control: TcpStream,
    lines: BufReader<TcpStream>,
}

impl<'a> Client<'a> {
    /// Connects and logs in.
    pub fn login(ns: &'a Ns, to: SocketAddr) -> Result<Self> {
        let control = serve::connect(ns, to)?;
        let lines = BufReader::new(control.try_clone()?);
        let mut client = Self { ns, control, lines };
        client.expect("220")?;
        client.command("USER anonymous", "331")?;
        client.command("PASS none", "230")?;
        Ok(client)
    }

    /// Where the client is.
    pub fn here(&self) -> Result<SocketAddr> {
        Ok(self.control.local_addr()?)
    }

    /// Sends a line, in one packet.
    pub fn send(&mut self, line: &str) -> Result<()> {
        self.control
            .write_all(format!("{line}\r\n").as_bytes())
            .with_context(|| line.to_owned())
    }

    /// The next line of the server, which begins with `code`; without that and its end.
    pub fn expect(&mut self, code: &str) -> Result<String> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .with_context(|| format!("waiting for {code}"))?;
        let rest = line
            .strip_prefix(code)
            .with_context(|| format!("{line:?} and not {code}"))?;
        let rest = rest.strip_suffix("\r\n").context("no end of line")?;
        Ok(rest.trim_start().to_owned())
    }

    /// Sends a line whose answer begins with `code`.
    pub fn command(&mut self, line: &str, code: &str) -> Result<String> {
        self.send(line)?;
        self.expect(code).with_context(|| line.to_owned())
    }

    /// That nothing is lost, doubled or changed on the control connection, whatever its numbers are.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        let answer = self.command(&format!("ECHO {text}"), "200")?;
        ensure!(answer == text, "{answer:?} and not {text:?}");
        Ok(())
    }

    /// Asks the server to wait; returns where.
    pub fn passive(&mut self, how: Data) -> Result<SocketAddr> {
        if how == Data::Pasv {
            let text = self.command("PASV", "227")?;
            let numbers = text
                .split_once('(')
                .and_then(|(_, t)| t.split_once(')'))
                .with_context(|| text.clone())?
                .0;
            let n: Vec<u8> = numbers
                .split(',')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .with_context(|| text.clone())?;
            let [a, b, c, d, hi, lo] = n[..] else {
                anyhow::bail!("{text}");
            };
            let ip = Ipv4Addr::new(a, b, c, d).into();
            return Ok(at(ip, u16::from_be_bytes([hi, lo])));
        }
        let text = self.command("EPSV", "229")?;
        let port = text
            .split_once("(|||")
            .and_then(|(_, t)| t.split_once("|)"))
            .with_context(|| text.clone())?
            .0;
        Ok(at(self.control.peer_addr()?.ip(), port.parse()?))
    }

    /// Waits for the server to connect; returns what waits.
    pub fn active(&mut self, how: Data) -> Result<TcpListener> {
        let ip = self.here()?.ip();
        let listener = self.ns.run(|| TcpListener::bind(at(ip, 0)))?;
        let port = listener.local_addr()?.port();
        let line = match (how, ip) {
            (Data::Port, IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                let [hi, lo] = port.to_be_bytes();
                format!("PORT {a},{b},{c},{d},{hi},{lo}")
            }
            (_, IpAddr::V4(_)) => format!("EPRT |1|{ip}|{port}|"),
            (_, IpAddr::V6(_)) => format!("EPRT |2|{ip}|{port}|"),
        };
        self.command(&line, "200")?;
        Ok(listener)
    }

    /// Connects to where the server waits.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        serve::connect(self.ns, to)
    }

    /// Gets `n` bytes (or gives them, if `give`), and returns both ends of the data connection.
    pub fn transfer(
        &mut self,
        how: Data,
        n: usize,
        give: bool,
    ) -> Result<(SocketAddr, SocketAddr)> {
        let command = format!("{} {n}", if give { "STOR" } else { "RETR" });
        let mut data = match how {
            Data::Pasv | Data::Epsv => {
                let to = self.passive(how)?;
                let data = self.connect(to)?;
                self.command(&command, "150")?;
                data
            }
            Data::Port | Data::Eprt => {
                let listener = self.active(how)?;
                self.command(&command, "150")?;
                listener.set_nonblocking(true)?;
                let (data, _) =
                    crate::wait::until("the server connects", 5.0, || Ok(listener.accept().ok()))?;
                data.set_nonblocking(false)?;
                data.set_read_timeout(Some(patience(5.0)))?;
                data
            }
        };
        let ends = (data.local_addr()?, data.peer_addr()?);
        if give {
            serve::write_pattern(&mut data, n).context("sending data")?;
            drop(data);
        } else {
            takes_all(&mut data, n).context("reading data")?;
        }
        self.expect("226")?;
        Ok(ends)
    }
}
