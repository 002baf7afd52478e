// SPDX-License-Identifier: GPL-2.0-or-later

//! Subcommands.

mod check;
mod cli;
pub(crate) mod conns;
mod events;
pub(crate) mod model;
pub(crate) mod output;
mod plan;
pub(crate) mod pool;
mod realserver;
pub(crate) mod show;
mod watch;

use std::fs;
use std::io::{self, BufWriter, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use rvs_netlink::client::{Client, Error, KernelError};
use rvs_netlink::{
    Command, Dest, ForwardMethod, LocalAddress, Message, Service, ServiceFlags, ServiceId, Timeouts,
};

use cli::{
    Apply, Cli, Drain, Generate, PoolMember, RealArgs, RealName, RealVerb, ServiceArgs,
    ServiceVerb, Verb, What,
};
use model::{words, ServiceState, State, TunnelState};
use output::{Failure, Paint};

use crate::extension;
use crate::progress::Progress;
use crate::refusals;

const EPERM: i32 = 1;
const ESRCH: i32 = 3;
const ENOENT: i32 = 2;
use output::NOT_ROOT;
const EEXIST: i32 = 17;

/// Runs a subcommand; `args` with the program's name.
pub(crate) fn run(args: &[String]) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are printed, everything else is an error.
            let _ = e.print();
            return u8::try_from(e.exit_code()).unwrap_or(2);
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let result = dispatch(&cli, &mut out).and_then(|code| Ok(out.flush().map(|()| code)?));
    let _ = out.flush();
    match result {
        Ok(code) => code,
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(Failure::Output(e)) => {
            eprintln!("rvsadm: {e}");
            1
        }
        Err(Failure::Failed(text)) => {
            eprintln!("rvsadm: {text}");
            1
        }
        Err(Failure::Usage(text)) => {
            eprintln!("rvsadm: {text}");
            2
        }
    }
}

fn dispatch(cli: &Cli, out: &mut impl Write) -> Result<u8, Failure> {
    match &cli.verb {
        Verb::Service(ServiceVerb::Add(args)) => add_service(args)?,
        Verb::Service(ServiceVerb::Edit(args)) => edit_service(args)?,
        Verb::Service(ServiceVerb::Del(name)) => {
            let id = name.id().map_err(Failure::Usage)?;
            change(&mut Client::open()?, &Message::del_service(&id), &id)?;
        }
        Verb::Service(ServiceVerb::List(listed)) => {
            let id = listed.id().map_err(Failure::Usage)?;
            show::services(id.as_ref(), cli.json, out)?;
        }
        Verb::Real(RealVerb::Add(args)) => add_real(args)?,
        Verb::Real(RealVerb::Set(args)) => set_real(args)?,
        Verb::Real(RealVerb::Del(name)) => {
            let id = name.service.id().map_err(Failure::Usage)?;
            change(
                &mut Client::open()?,
                &Message::del_dest(&id, name.real),
                &id,
            )?;
        }
        Verb::Real(RealVerb::Drain(args)) => drain(args, cli.json, out)?,
        Verb::Pool(verb) => pool::run(verb, cli.json, out)?,
        Verb::Conns(args) => conns::list(args, cli.json, out)?,
        Verb::Events(args) => events::follow(args, cli.json, out)?,
        Verb::Stats(listed) => {
            let id = listed.id().map_err(Failure::Usage)?;
            show::stats(id.as_ref(), cli.json, out)?;
        }
        Verb::Watch(args) => watch::run(args, cli.json, out)?,
        Verb::Save(_) => {
            let mut client = Client::open()?;
            let state = State {
                timeouts: Some(client.timeouts()?.into()),
                services: table(&mut client)?
                    .iter()
                    .map(ServiceState::of_entry)
                    .collect(),
            };
            if cli.json {
                json(&state, out)?;
            } else {
                let text =
                    serde_yaml_ng::to_string(&state).map_err(|e| Failure::Failed(e.to_string()))?;
                out.write_all(text.as_bytes())?;
            }
        }
        Verb::Apply(args) => return apply(args, cli.json, out),
        Verb::Check(args) => return check::check(args, cli.json, out),
        Verb::Realserver(verb) => return realserver::run(verb, cli.json, out),
        Verb::Generate(Generate { what }) => match what {
            What::Man { folder } => {
                fs::create_dir_all(folder)?;
                let mut command = cli::whole().disable_help_subcommand(true);
                command.build();
                man_pages(&command, folder)?;
            }
            What::Completions { shell } => {
                clap_complete::generate(*shell, &mut cli::whole(), "rvsadm", out);
            }
        },
    }
    Ok(0)
}

/// A page for a command and each below it.
fn man_pages(command: &clap::Command, folder: &Path) -> io::Result<()> {
    for below in command.get_subcommands() {
        man_pages(below, folder)?;
    }
    // The date of a page is that of the program's version, which isn't known here: the version stands for it.
    let page = clap_mangen::Man::new(command.clone())
        .section("8")
        .date(concat!("rvsadm ", env!("CARGO_PKG_VERSION")))
        .source("rvs")
        .manual("Linux Virtual Server");
    page.generate_to(folder).map(drop)
}

/// Prints a value as JSON with a line end.
pub(crate) fn json(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    out.write_all(b"\n")
}

/// A service with all that it has.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) service: Service,
    pub(crate) dests: Vec<Dest>,
    /// As prefixes, as they were added.
    pub(crate) locals: Vec<LocalAddress>,
}

impl Entry {
    /// Asks for what belongs to a service.
    pub(crate) fn of(client: &mut Client, service: Service) -> Result<Self, Error> {
        let mut dests = client.dests(&service.id)?;
        dests.sort_by_key(|d| d.addr);
        let has = service.fullnat_stats.is_some_and(|s| s.locals > 0);
        let locals = if has {
            extension::prefixes(client.locals(&service.id)?)
        } else {
            Vec::new()
        };
        Ok(Self {
            service,
            dests,
            locals,
        })
    }
}

/// Services and what they have.
pub(crate) type Table = Vec<Entry>;

/// All services with what they have, in the order of addresses.
pub(crate) fn table(client: &mut Client) -> Result<Table, Error> {
    let mut services = client.services()?;
    services.sort_by_key(|s| key(&s.id));
    let mut progress = Progress::new("services read", Some(services.len() as u64));
    services
        .into_iter()
        .map(|service| {
            progress.advance(1);
            Entry::of(client, service)
        })
        .collect()
}

/// Marks come last.
fn key(id: &ServiceId) -> (u32, u16, Option<SocketAddr>) {
    match id {
        ServiceId::Address { protocol, addr } => (0, protocol.0, Some(*addr)),
        ServiceId::Fwmark { family, mark } => (*mark, family.0, None),
        _ => (u32::MAX, 0, None),
    }
}

/// What a refusal means, and what to do about it.
fn explain(message: &Message, id: &ServiceId, e: &KernelError) -> String {
    let name = words(id);
    let command = message.command;
    let advice = match (command, e.errno) {
        (_, EPERM) => Some(format!("service {name}: {NOT_ROOT}")),
        (Command::NewService, EEXIST) => Some(format!(
            "service {name} is there already; `rvsadm service edit` changes it"
        )),
        (Command::NewService | Command::SetService, ENOENT) => {
            let engine = refusals::engine_of(message, e.errno).unwrap_or_default();
            Some(format!(
                "service {name}: the kernel knows no such scheduler or persistence engine: {engine}"
            ))
        }
        (_, ESRCH) => Some(format!(
            "there is no service {name}; `rvsadm service list` lists those that there are"
        )),
        (Command::NewDest, EEXIST) => Some(format!(
            "service {name} has that real server already; `rvsadm real set` changes it"
        )),
        (Command::NewLaddr, EEXIST) => Some(format!(
            "service {name} has that local address already; `rvsadm pool list` lists those that it has"
        )),
        (Command::DelLaddr, ENOENT) => Some(format!(
            "service {name} has no such local address; it is removed as it was added, as `rvsadm pool list` lists it"
        )),
        (Command::SetDest | Command::DelDest, ENOENT) => Some(format!(
            "service {name} has no such real server; `rvsadm service list` lists those that it has"
        )),
        _ => None,
    };
    match (advice, &e.text) {
        (Some(advice), Some(text)) => format!("{advice} (the kernel says: {text})"),
        (Some(advice), None) => advice,
        (None, _) => {
            let about = refusals::about(message).unwrap_or(name);
            format!("{about}: {e}")
        }
    }
}

/// One change, with a good explanation if it is refused.
fn change(client: &mut Client, message: &Message, id: &ServiceId) -> Result<(), Failure> {
    client.request(message).map_err(|e| match e {
        Error::Kernel(e) => Failure::Failed(explain(message, id, &e)),
        other => other.into(),
    })
}

fn the_service(client: &mut Client, id: &ServiceId) -> Result<Service, Failure> {
    client.service(id).map_err(|e| match e {
        Error::Kernel(e) => Failure::Failed(explain(&Message::get_service(id), id, &e)),
        other => other.into(),
    })
}

/// What the options say about a service.
fn fill_service(args: &ServiceArgs, service: &mut Service) -> Result<(), Failure> {
    if let Some(scheduler) = &args.scheduler {
        if scheduler.is_empty() || scheduler.len() > 15 {
            return Err(Failure::Usage(format!(
                "--scheduler {scheduler}: a name of 1 to 15 characters is right, as wlc"
            )));
        }
        service.scheduler.clone_from(scheduler);
    }
    if let Some(flags) = &args.scheduler_flags {
        const ALL: u32 = ServiceFlags::SCHED1.0 | ServiceFlags::SCHED2.0 | ServiceFlags::SCHED3.0;
        service.flags.0 &= !ALL;
        for flag in flags {
            service.flags |= flag.bit();
        }
    }
    match args.persistent {
        Some(0) => {
            service.flags.0 &= !ServiceFlags::PERSISTENT.0;
            service.timeout = 0;
        }
        Some(seconds) => {
            service.flags |= ServiceFlags::PERSISTENT;
            service.timeout = seconds;
        }
        None => {}
    }
    if let Some(mask) = args.netmask {
        service.netmask = mask
            .of(service.id.family())
            .map_err(|e| Failure::Usage(format!("--netmask {mask}: {e}")))?;
    }
    match args.pe.as_deref() {
        Some("none") => service.pe_name = None,
        Some(pe) => service.pe_name = Some(pe.to_owned()),
        None => {}
    }
    match args.one_packet {
        Some(true) => service.flags |= ServiceFlags::ONE_PACKET,
        Some(false) => service.flags.0 &= !ServiceFlags::ONE_PACKET.0,
        None => {}
    }
    service.flags = service.flags.settable();
    fill_extensions(args, service);
    Ok(())
}

/// What the options say that only rvs has. What isn't mentioned isn't sent.
fn fill_extensions(args: &ServiceArgs, service: &mut Service) {
    let was = service.fullnat.unwrap_or_default();
    let mut fullnat = was;
    if let Some((min, max)) = args.local_ports {
        (fullnat.port_min, fullnat.port_max) = (min, max);
    }
    if let Some(kind) = args.toa {
        fullnat.toa_kind = kind;
        fullnat.toa_on_syn &= kind != 0;
    }
    if let Some(on) = args.toa_on_syn {
        fullnat.toa_on_syn = on;
    }
    if let Some(version) = args.proxy_protocol {
        fullnat.proxy_version = version;
    }
    service.fullnat = Some(fullnat).filter(|fullnat| *fullnat != was);
    let was = service.tunnels.unwrap_or_default();
    let mut tunnels = was;
    if let Some(networks) = &args.tunnel_sources {
        extension::set_sources(&mut tunnels, &networks.0);
    }
    if let Some(clamp) = args.tunnel_mss_clamp {
        tunnels.clamp_mss = clamp;
    }
    service.tunnels = Some(tunnels).filter(|tunnels| *tunnels != was);
}

/// Whether it can be, by the rules of files; `before` is the service as it was.
fn check_service(
    service: &Service,
    before: &Service,
    locals: &[LocalAddress],
) -> Result<(), Failure> {
    let mut whole = service.clone();
    whole.fullnat = service.fullnat.or(before.fullnat);
    whole.tunnels = service.tunnels.or(before.tunnels);
    ServiceState::of(&whole, &[], locals)
        .to_kernel()
        .map(drop)
        .map_err(Failure::Usage)
}

/// The local addresses that the options name; `None` if they don't speak of them.
fn local_addresses(args: &ServiceArgs) -> Result<Option<Vec<LocalAddress>>, Failure> {
    let Some(members) = &args.local_address else {
        return Ok(None);
    };
    if let [PoolMember::Nothing] = members.as_slice() {
        return Ok(Some(Vec::new()));
    }
    members
        .iter()
        .map(|member| match member {
            PoolMember::Local(local) => Ok(local.clone()),
            PoolMember::Nothing => Err(Failure::Usage(
                "--local-address: none is right by itself, not beside addresses".to_owned(),
            )),
        })
        .collect::<Result<_, _>>()
        .map(Some)
}

fn add_service(args: &ServiceArgs) -> Result<(), Failure> {
    let id = args.name.id().map_err(Failure::Usage)?;
    let mut service = Service::new(id, "wlc");
    let locals = local_addresses(args)?.unwrap_or_default();
    fill_service(args, &mut service)?;
    check_service(&service, &service, &locals)?;
    let mut client = Client::open()?;
    extension::refuse_without_rvs(&client, &args.needs_rvs()).map_err(Failure::Failed)?;
    let mut steps = vec![(
        Message::new_service(&service),
        Some(Message::del_service(&id)),
    )];
    steps.extend(locals.iter().map(|local| pool::adding(&id, local)));
    all_or_nothing(&mut client, &steps, &id)
}

fn edit_service(args: &ServiceArgs) -> Result<(), Failure> {
    let id = args.name.id().map_err(Failure::Usage)?;
    let wanted = local_addresses(args)?;
    let mut client = Client::open()?;
    extension::refuse_without_rvs(&client, &args.needs_rvs()).map_err(Failure::Failed)?;
    let before = the_service(&mut client, &id)?;
    let entry = Entry::of(&mut client, before.clone())?;
    let mut service = before.clone();
    fill_service(args, &mut service)?;
    let wanted = wanted.unwrap_or_else(|| entry.locals.clone());
    check_service(&service, &before, &wanted)?;
    let change = pool::Change::new(&entry.locals, &wanted);
    let removing = |local| pool::removing(&id, local);
    let mut steps: Vec<_> = change.first.into_iter().map(removing).collect();
    steps.extend(change.add.into_iter().map(|local| pool::adding(&id, local)));
    let back = Message::set_service(&before);
    steps.push((Message::set_service(&service), Some(back)));
    steps.extend(change.last.into_iter().map(removing));
    all_or_nothing(&mut client, &steps, &id)
}

/// Changes one after the other; if one is refused, those before it are taken back, the last one first.
fn all_or_nothing(
    client: &mut Client,
    steps: &[(Message, Option<Message>)],
    id: &ServiceId,
) -> Result<(), Failure> {
    for (at, (message, _)) in steps.iter().enumerate() {
        let Err(refused) = change(client, message, id) else {
            continue;
        };
        for (_, back) in steps.iter().take(at).rev() {
            if let Some(back) = back {
                change(client, back, id)?;
            }
        }
        return Err(refused);
    }
    Ok(())
}

/// What the options say about a real server.
fn fill_real(args: &RealArgs, id: &ServiceId, dest: &mut Dest) -> Result<(), Failure> {
    if let Some(method) = args.method.and_then(model::Method::to_kernel) {
        dest.method = method;
    }
    if args.fullnat {
        dest.method = ForwardMethod::FULLNAT;
    }
    if let Some(weight) = args.weight {
        dest.weight = weight;
    }
    if let Some(upper) = args.upper {
        dest.u_thresh = upper;
    }
    if let Some(lower) = args.lower {
        dest.l_thresh = lower;
    }
    if dest.l_thresh > dest.u_thresh {
        return Err(Failure::Usage(format!(
            "--lower {}: not more than --upper, {}, is right",
            dest.l_thresh, dest.u_thresh
        )));
    }
    let given =
        args.tunnel_type.is_some() || args.tunnel_port.is_some() || args.tunnel_checksum.is_some();
    if given {
        if dest.method != ForwardMethod::TUNNEL {
            return Err(Failure::Usage(
                "--tunnel-type, --tunnel-port and --tunnel-checksum go with --method tunnel"
                    .to_owned(),
            ));
        }
        let was = TunnelState::of(dest).unwrap_or_default();
        let tunnel = TunnelState {
            kind: args.tunnel_type.unwrap_or(was.kind),
            port: args.tunnel_port.or(was.port),
            checksum: args.tunnel_checksum.unwrap_or(was.checksum),
        };
        tunnel.put(dest).map_err(Failure::Usage)?;
    }
    model::fits(id, dest).map_err(Failure::Usage)
}

fn add_real(args: &RealArgs) -> Result<(), Failure> {
    let RealName { service, real } = &args.name;
    let id = service.id().map_err(Failure::Usage)?;
    let mut dest = Dest::new(*real, ForwardMethod::MASQ);
    fill_real(args, &id, &mut dest)?;
    let mut client = Client::open()?;
    fullnat_needs_rvs(&client, args)?;
    change(&mut client, &Message::new_dest(&id, &dest), &id)
}

fn fullnat_needs_rvs(client: &Client, args: &RealArgs) -> Result<(), Failure> {
    let asked = match (args.fullnat, args.method) {
        (true, _) => vec!["--fullnat".to_owned()],
        (_, Some(model::Method::FullNat)) => vec!["--method fullnat".to_owned()],
        _ => Vec::new(),
    };
    extension::refuse_without_rvs(client, &asked).map_err(Failure::Failed)
}

/// The real server as it is.
fn the_dest(client: &mut Client, id: &ServiceId, real: SocketAddr) -> Result<Dest, Failure> {
    // An unknown service has no destinations either; this tells the two apart.
    the_service(client, id)?;
    client
        .dests(id)?
        .into_iter()
        .find(|d| d.addr == real)
        .ok_or_else(|| {
            Failure::Failed(format!(
                "service {} has no real server {}; `rvsadm service list` lists those that it has",
                words(id),
                real
            ))
        })
}

fn set_real(args: &RealArgs) -> Result<(), Failure> {
    let id = args.name.service.id().map_err(Failure::Usage)?;
    let mut client = Client::open()?;
    fullnat_needs_rvs(&client, args)?;
    let mut dest = the_dest(&mut client, &id, args.name.real)?;
    fill_real(args, &id, &mut dest)?;
    change(&mut client, &Message::set_dest(&id, &dest), &id)
}

/// Weight 0, then wait.
fn drain(args: &Drain, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let id = args.name.service.id().map_err(Failure::Usage)?;
    let mut client = Client::open()?;
    let mut dest = the_dest(&mut client, &id, args.name.real)?;
    let was = dest.weight;
    if was != 0 {
        dest.weight = 0;
        change(&mut client, &Message::set_dest(&id, &dest), &id)?;
    }
    let end = Instant::now() + Duration::from_secs(args.wait.min(86400));
    let mut progress = Progress::new("seconds waited for connections to end", Some(args.wait));
    let begun = Instant::now();
    let mut waited = 0;
    loop {
        let now = the_dest(&mut client, &id, args.name.real)?;
        let left = u64::from(now.active) + u64::from(now.inactive) + u64::from(now.persistent);
        let over = left == 0;
        if over && args.remove {
            change(&mut client, &Message::del_dest(&id, now.addr), &id)?;
        }
        if over || Instant::now() >= end {
            drop(progress);
            if as_json {
                json(
                    &serde_json::json!({
                        "real": now.addr.to_string(),
                        "weight_before": was,
                        "drained": over,
                        "removed": over && args.remove,
                        "active": now.active,
                        "inactive": now.inactive,
                        "persistent": now.persistent,
                    }),
                    out,
                )?;
            } else if over {
                writeln!(
                    out,
                    "{} has no connections left (its weight was {was})",
                    now.addr
                )?;
            } else {
                writeln!(
                    out,
                    "{} still has {} active, {} inactive and {} persistent connections (its weight was {was})",
                    now.addr, now.active, now.inactive, now.persistent
                )?;
            }
            return if over || args.wait == 0 {
                Ok(())
            } else {
                Err(Failure::Failed(format!(
                    "{} is not drained after {} s",
                    now.addr, args.wait
                )))
            };
        }
        std::thread::sleep(Duration::from_millis(500));
        let now = begun.elapsed().as_secs();
        progress.advance(now - waited);
        waited = now;
    }
}

/// A file, or standard input.
fn read(path: &Path) -> Result<String, Failure> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(path)
    };
    text.map_err(|e| Failure::Usage(format!("--file {}: {e}", path.display())))
}

/// The state of a file.
fn parse_file(path: &Path) -> Result<(State, Table), Failure> {
    let text = read(path)?;
    let state = State::parse(&text);
    state
        .and_then(|state| state.to_kernel().map(|table| (state, table)))
        .map_err(|e| Failure::Usage(format!("--file {}: {e}", path.display())))
}

/// Sends all steps; what was refused, by their numbers.
fn carry_out(client: &mut Client, plan: &plan::Plan) -> Result<Vec<(usize, KernelError)>, Failure> {
    const AT_ONCE: usize = 1024;
    let messages: Vec<Message> = plan.steps.iter().map(|(m, _)| m.clone()).collect();
    for message in &messages {
        // Before the first one is sent.
        message.check().map_err(Error::Encode)?;
    }
    let mut progress = Progress::new("changes made", Some(messages.len() as u64));
    let mut refused = Vec::new();
    for (at, part) in messages.chunks(AT_ONCE).enumerate() {
        let before = at * AT_ONCE;
        let some = client.batch(part)?;
        refused.extend(some.into_iter().map(|(at, e)| (before + at, e)));
        progress.advance(part.len() as u64);
    }
    Ok(refused)
}

/// Why the kernel refused a step.
fn reason(plan: &plan::Plan, at: usize, e: &KernelError) -> String {
    let engine = plan
        .steps
        .get(at)
        .and_then(|(message, _)| refusals::engine_of(message, e.errno));
    match engine {
        Some(engine) => format!("{e}: {engine}"),
        None if e.errno == EPERM => format!("{e}: {NOT_ROOT}"),
        None => e.to_string(),
    }
}

fn apply(args: &Apply, as_json: bool, out: &mut impl Write) -> Result<u8, Failure> {
    let (state, shall) = parse_file(&args.file)?;
    let mut client = Client::open()?;
    let asked: Vec<String> = state
        .services
        .iter()
        .flat_map(|service| {
            let name = &service.service;
            let needs = service.needs_rvs();
            needs
                .into_iter()
                .map(move |what| format!("{what} (service {name})"))
        })
        .collect();
    extension::refuse_without_rvs(&client, &asked)
        .map_err(|e| Failure::Failed(format!("--file {}: {e}", args.file.display())))?;
    let is = table(&mut client)?;
    let mut plan = plan::plan(&is, &shall);
    if let Some(wanted) = state.timeouts {
        let now = client.timeouts()?;
        let wanted = Timeouts {
            tcp: wanted.tcp,
            tcp_fin: wanted.tcp_fin,
            udp: wanted.udp,
        };
        if wanted != now {
            plan.lines.push(plan::Line {
                sign: '~',
                text: format!(
                    "timeouts {} {} {} -> {} {} {}",
                    now.tcp, now.tcp_fin, now.udp, wanted.tcp, wanted.tcp_fin, wanted.udp
                ),
            });
            plan.steps
                .push((Message::set_config(&wanted), "setting timeouts".to_owned()));
        }
    }
    let refused = if args.dry_run {
        Vec::new()
    } else {
        carry_out(&mut client, &plan)?
    };
    if as_json {
        let changes: Vec<String> = plan.steps.iter().map(|(_, what)| what.clone()).collect();
        let refusals: Vec<_> = refused
            .iter()
            .filter_map(|(at, e)| {
                let (_, what) = plan.steps.get(*at)?;
                Some(serde_json::json!({"change": what, "errno": e.errno, "text": reason(&plan, *at, e)}))
            })
            .collect();
        json(
            &serde_json::json!({"applied": !args.dry_run, "changes": changes, "refused": refusals}),
            out,
        )?;
    } else {
        out.write_all(plan.show(Paint::stdout()).as_bytes())?;
        if plan.steps.is_empty() {
            writeln!(out, "nothing to change")?;
        }
    }
    out.flush()?;
    for (at, e) in &refused {
        if let Some((_, what)) = plan.steps.get(*at) {
            eprintln!("rvsadm: {what}: {}", reason(&plan, *at, e));
        }
    }
    if refused.is_empty() {
        Ok(0)
    } else {
        Err(Failure::Failed(format!(
            "{} of {} changes were refused",
            refused.len(),
            plan.steps.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions() {
        Cli::command().debug_assert();
        cli::whole().debug_assert();
    }

    #[test]
    fn completions_know_both_worlds() {
        for shell in [
            clap_complete::Shell::Bash,
            clap_complete::Shell::Zsh,
            clap_complete::Shell::Fish,
        ] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut cli::whole(), "rvsadm", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["drain", "realserver", "tcp-service", "persistent-conn"] {
                assert!(text.contains(word), "{shell}: {word}");
            }
        }
    }
}
