// SPDX-License-Identifier: GPL-2.0-or-later

//! ipvsadm's command line, output and exit codes.

mod entry;
mod list;
pub(crate) mod options;
mod popt;
mod restore;
mod texts;

use std::io::{self, Write};
use std::process::Command as Program;

use rvs_netlink::client::{Client, Error};
use rvs_netlink::{Command, Info, Message, ServiceId};

use crate::extension;
use crate::modern;
use crate::names::Names;
use entry::Entry;
use options::Verb;

/// Why a command line ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// With this text and exit code 2.
    Fail(String),
    /// As [`Stop::Fail`], with exit code 1.
    Broken(String),
    /// With this text and exit code 255.
    Popt(String),
    /// With a hint at the help, and exit code 255.
    TryHelp,
    /// With the help.
    Help,
    /// With the version.
    Version,
    /// Whoever reads the output has had enough.
    Output(io::Error),
}

impl Stop {
    fn fail(text: impl Into<String>) -> Self {
        Self::Fail(text.into())
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

/// The kernel's side, asked for as soon as it is needed.
struct Kernel {
    client: Client,
    info: Info,
}

impl Kernel {
    /// Opens it; loads `ip_vs` if there is none, as ipvsadm does.
    fn open() -> Result<Self, Stop> {
        let fail = |e: &Error| {
            Stop::fail(format!(
                "Can't initialize ipvs: {}\nAre you sure that IP Virtual Server is built in the kernel or as module?",
                texts::refusal(None, e)
            ))
        };
        let client = match Client::open() {
            Err(Error::NoFamily) => {
                let loaded = Program::new("/sbin/modprobe")
                    .args(["--", "ip_vs"])
                    .status()
                    .is_ok_and(|status| status.success());
                if !loaded {
                    return Err(Stop::fail(format!(
                        "Can't initialize ipvs: {}",
                        crate::NO_MODULE
                    )));
                }
                Client::open()
            }
            other => other,
        };
        let mut client = client.map_err(|e| fail(&e))?;
        let info = client.info().map_err(|e| fail(&e))?;
        Ok(Self { client, info })
    }
}

/// Runs ipvsadm's command line. `program` is the name that it was called by; `extended`: there is more than ipvsadm has; lists are
/// printed as JSON if `json` says so.
pub(crate) fn run(program: &str, args: &[String], extended: bool, json: bool) -> u8 {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut session = Session {
        names: Names::default(),
        kernel: None,
        command: options::command("rvsadm", extended),
        extended,
        json,
    };
    let result = session
        .run(args, &mut out)
        .and_then(|code| Ok(out.flush().map(|()| code)?));
    let stop = match result {
        Ok(code) => return code,
        Err(stop) => stop,
    };
    // What was printed before it comes first.
    let _ = out.flush();
    match stop {
        Stop::Fail(text) => {
            eprintln!("{text}");
            2
        }
        Stop::Broken(text) => {
            eprintln!("{text}");
            1
        }
        Stop::Popt(text) => {
            eprintln!("{text}");
            255
        }
        Stop::TryHelp => {
            eprintln!("Try `{program} -h' or '{program} --help' for more information.");
            255
        }
        Stop::Help | Stop::Version => {
            let version = texts::version(session.kernel.as_ref().map(|k| &k.info));
            let mut text = version;
            if matches!(stop, Stop::Help) {
                text.push_str(&texts::help(program, extended));
            }
            match io::stdout().write_all(text.as_bytes()) {
                Ok(()) => 0,
                Err(e) => output(&e),
            }
        }
        Stop::Output(e) => output(&e),
    }
}

/// A reader that has gone away is no failure.
fn output(e: &io::Error) -> u8 {
    if e.kind() == io::ErrorKind::BrokenPipe {
        return 0;
    }
    eprintln!("writing the output: {e}");
    1
}

/// What lasts from one line of a restore to the next.
struct Session {
    names: Names,
    kernel: Option<Kernel>,
    command: clap::Command,
    /// Under rvsadm's own name: what only rvs has is there.
    extended: bool,
    json: bool,
}

/// What one command line comes down to.
enum Step {
    /// One request that changes something.
    Change(Message),
    /// Anything else.
    Other(Box<Entry>),
}

impl Session {
    fn kernel(&mut self) -> Result<&mut Kernel, Stop> {
        if self.kernel.is_none() {
            self.kernel = Some(Kernel::open()?);
        }
        self.kernel
            .as_mut()
            .ok_or_else(|| Stop::fail("no connection to the kernel"))
    }

    fn step(&mut self, args: &[String]) -> Result<Step, Stop> {
        let entry = Entry::parse(&self.command, args, &mut self.names)?;
        let id = entry.service.id();
        if !entry.needs_rvs().is_empty() {
            extension::refuse_without_rvs(&self.kernel()?.client, entry.needs_rvs())
                .map_err(Stop::Fail)?;
        }
        Ok(Step::Change(match entry.verb {
            Verb::AddService => entry.extend(Message::new_service(&entry.service.service())),
            Verb::EditService => entry.extend(Message::set_service(&entry.service.service())),
            Verb::AddLocal => Message::new_local(&id, entry.local()?),
            Verb::DeleteLocal => Message::del_local(&id, entry.local()?),
            Verb::DeleteService => Message::del_service(&id),
            Verb::Clear => Message::flush(),
            Verb::AddServer => Message::new_dest(&id, &entry.dest),
            Verb::EditServer => Message::set_dest(&id, &entry.dest),
            Verb::DeleteServer => Message::del_dest(&id, entry.dest.addr),
            Verb::Set => Message::set_config(&entry.timeouts),
            Verb::StartDaemon => Message::new_daemon(&entry.daemon),
            Verb::StopDaemon => Message::del_daemon(&entry.daemon),
            Verb::Zero => Message::zero((!entry.service.is_nothing()).then_some(&id)),
            Verb::List | Verb::ListLocals | Verb::Save | Verb::Restore => {
                return Ok(Step::Other(Box::new(entry)));
            }
        }))
    }

    fn run(&mut self, args: &[String], out: &mut impl Write) -> Result<u8, Stop> {
        if args.is_empty() {
            let format = entry::Format::default();
            if self.json {
                self.json_all(None, out)?;
            } else {
                self.list_all(&format, false, out)?;
            }
            return Ok(0);
        }
        match self.step(args)? {
            Step::Change(message) => {
                let result = self.kernel()?.client.request(&message);
                Ok(report(&message, result.as_ref().err()))
            }
            Step::Other(entry) if entry.verb == Verb::Restore => self.restore(out),
            Step::Other(entry) => {
                self.print(&entry, out)?;
                Ok(0)
            }
        }
    }

    fn print(&mut self, entry: &Entry, out: &mut impl Write) -> Result<(), Stop> {
        if self.json {
            return self.print_json(entry, out);
        }
        if entry.verb == Verb::ListLocals {
            let id = entry.service.id();
            let id = entry.has("service-address").then_some(&id);
            return self.list_locals(id, &entry.format, out);
        }
        if entry.has("connection") {
            self.kernel()?;
            self.list_connections(&entry.format, out)
        } else if entry.has("service-address") {
            self.list_service(&entry.service.id(), &entry.format, out)
        } else if entry.has("timeout") {
            self.list_timeouts(out)
        } else if entry.has("daemon") {
            self.list_daemons(out)
        } else {
            self.list_all(&entry.format, entry.verb == Verb::Save, out)
        }
    }
}

impl Session {
    /// What a list says, for programs.
    fn print_json(&mut self, entry: &Entry, out: &mut impl Write) -> Result<(), Stop> {
        let client = &mut self.kernel()?.client;
        let broken = |e: Error| Stop::Broken(texts::refusal(None, &e));
        if entry.has("connection") {
            return modern::conns::json(out).map_err(|e| match e {
                modern::output::Failure::Output(e) => Stop::Output(e),
                other => Stop::Broken(other.to_string()),
            });
        }
        if entry.verb == Verb::ListLocals {
            let id = entry.service.id();
            let id = entry.has("service-address").then_some(&id);
            return modern::pool::json_of(client, id, out).map_err(|e| match e {
                modern::output::Failure::Output(e) => Stop::Output(e),
                other => Stop::Broken(other.to_string()),
            });
        }
        if entry.has("timeout") {
            let timeouts: modern::model::TimeoutsState = client.timeouts().map_err(broken)?.into();
            return Ok(modern::json(&timeouts, out)?);
        }
        if entry.has("daemon") {
            let daemons: Vec<_> = client
                .daemons()
                .map_err(broken)?
                .iter()
                .map(modern::model::daemon)
                .collect();
            return Ok(modern::json(&daemons, out)?);
        }
        let id = entry.service.id();
        self.json_all(entry.has("service-address").then_some(&id), out)
    }

    /// All services, or one.
    fn json_all(&mut self, id: Option<&ServiceId>, out: &mut impl Write) -> Result<(), Stop> {
        let client = &mut self.kernel()?.client;
        let broken = |e: Error| Stop::Broken(texts::refusal(Some(Command::GetService), &e));
        let entries = match id {
            None => modern::table(client).map_err(broken)?,
            Some(id) => {
                let service = client.service(id).map_err(broken)?;
                vec![modern::Entry::of(client, service).map_err(broken)?]
            }
        };
        Ok(modern::json(&modern::show::listing(&entries), out)?)
    }
}

/// Prints what became of a change, and gives the exit code.
fn report(message: &Message, error: Option<&Error>) -> u8 {
    match error {
        None => 0,
        Some(e) => {
            eprintln!("{}", texts::refusal_of(message, e));
            255
        }
    }
}
