// SPDX-License-Identifier: GPL-2.0-or-later

//! The clients of the crate rvs-netlink, blocking and asynchronous, against the kernel: changes, lists, batches, refusals with
//! the kernel's text, and where there is an extension connections and events.

use anyhow::{bail, ensure, Context, Result};
use rvs_netlink::client::{Client, Error};
use rvs_netlink::{
    Change, ConnFilter, Dest, ForwardMethod, Group, Message, Protocol, Service, ServiceId, Subject,
    Timeouts,
};

use crate::ns::Ns;
use crate::scenario::{Cx, Peer, Scenario};

pub const SCENARIO: Scenario = Scenario::new(
    "rvs_netlink",
    "the clients of rvs-netlink do what they say",
    &[],
    run,
);

fn run(cx: &Cx) -> Result<()> {
    let ns = Ns::new("netlink")?;
    // A socket belongs to the namespace of the thread that opens it.
    ns.run(|| blocking(cx)).context("blocking")?;
    ns.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()?
            .block_on(asynchronous())
    })
    .context("tokio")
}

fn web() -> Result<ServiceId> {
    Ok(ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse()?))
}

fn real(n: u8) -> Dest {
    Dest::new(([10, 0, 0, n], 8080).into(), ForwardMethod::MASQ)
}

fn blocking(cx: &Cx) -> Result<()> {
    let mut client = Client::open()?;
    ensure!(client.info()?.version_parts() == [1, 2, 1]);
    let id = web()?;
    client.add_service(&Service::new(id, "wrr"))?;
    let service = client.service(&id)?;
    ensure!(
        service.scheduler == "wrr" && service.id == id,
        "{service:?}"
    );
    client.add_dest(&id, &real(1))?;
    let mut changed = real(1);
    changed.weight = 7;
    client.set_dest(&id, &changed)?;
    let dests = client.dests(&id)?;
    ensure!(dests.len() == 1 && dests[0].weight == 7, "{dests:?}");

    // A refusal has its errno, and with rvs a text.
    match client.add_service(&Service::new(id, "wrr")) {
        Err(Error::Kernel(e)) => ensure!(
            e.errno == libc::EEXIST && e.text.is_some() == (cx.peer == Peer::Rvs),
            "{e:?}"
        ),
        other => bail!("{other:?}"),
    }
    // A batch: in order, each whether or not those before it were refused.
    let mut messages: Vec<Message> = (2..=200)
        .map(|n| Message::new_dest(&id, &real(n)))
        .collect();
    messages.insert(50, Message::new_dest(&id, &real(1)));
    messages.push(Message::del_dest(&id, real(250).addr));
    let refused: Vec<(usize, i32)> = client
        .batch(&messages)?
        .into_iter()
        .map(|(at, e)| (at, e.errno))
        .collect();
    ensure!(
        refused == [(50, libc::EEXIST), (200, libc::ENOENT)],
        "{refused:?}"
    );
    ensure!(client.dests(&id)?.len() == 200);

    let timeouts = Timeouts {
        tcp: 901,
        tcp_fin: 121,
        udp: 301,
    };
    client.set_timeouts(&timeouts)?;
    ensure!(client.timeouts()? == timeouts);
    client.zero(Some(&id))?;
    ensure!(client.daemons()?.is_empty());

    // What C hasn't is said by name, and nothing else happens to the client.
    if client.offers(rvs_netlink::Command::GetConn) {
        ensure!(Client::open()?
            .conns(&ConnFilter::default())?
            .next()
            .is_none());
        // A filter that makes no sense is refused with a text.
        let nonsense = ConnFilter {
            state: Some(1),
            ..ConnFilter::default()
        };
        match Client::open()?.conns(&nonsense)?.next() {
            Some(Err(Error::Kernel(e))) => {
                ensure!(e.errno == libc::EINVAL && e.text.is_some(), "{e:?}");
            }
            other => bail!("{other:?}"),
        }
        let counts = client.event_counts()?;
        let mut events = Client::open()?.events(&[Group::Config])?;
        events.since(&counts);
        client.del_dest(&id, real(2).addr)?;
        let (event, missed) = events.next().context("no event")??;
        ensure!(
            missed == 0
                && event.change == Change::Deleted
                && event.sequence == counts.config + 1
                && matches!(&event.subject, Subject::Dest(of, dest) if *of == id && dest.addr == real(2).addr),
            "{missed} {event:?}"
        );
        // No more: an error that says so, if asked not to wait.
        events.set_blocking(false)?;
        match events.next() {
            Some(Err(Error::Io(e))) => ensure!(e.kind() == std::io::ErrorKind::WouldBlock, "{e}"),
            other => bail!("{other:?}"),
        }
    } else {
        for error in [
            Client::open()?.conns(&ConnFilter::default()).err(),
            Client::open()?.events(&[Group::Conns]).err(),
            client.event_counts().err(),
        ] {
            ensure!(matches!(error, Some(Error::NoExtension(_))), "{error:?}");
        }
    }
    client.flush()?;
    ensure!(client.services()?.is_empty());
    Ok(())
}

async fn asynchronous() -> Result<()> {
    use rvs_netlink::tokio::Client;

    let mut client = Client::open().await?;
    let id = web()?;
    client
        .request(&Message::new_service(&Service::new(id, "rr")))
        .await?;
    for n in 1..=100 {
        client.request(&Message::new_dest(&id, &real(n))).await?;
    }
    ensure!(client.services().await?.len() == 1);
    ensure!(client.dests(&id).await?.len() == 100);
    match client.request(&Message::new_dest(&id, &real(1))).await {
        Err(Error::Kernel(e)) => ensure!(e.errno == libc::EEXIST, "{e:?}"),
        other => bail!("{other:?}"),
    }
    let listener = Client::open().await?;
    if listener.offers(rvs_netlink::Command::GetEvents) {
        let mut events = listener.events(&[Group::Config, Group::Conns])?;
        client.request(&Message::flush()).await?;
        let (event, _) = events.next().await?;
        ensure!(
            event.change == Change::Deleted && matches!(event.subject, Subject::Service(_)),
            "{event:?}"
        );
    } else {
        let refused = listener.events(&[Group::Config]);
        ensure!(
            matches!(refused, Err(Error::NoExtension("rvs_config"))),
            "{refused:?}"
        );
        client.request(&Message::flush()).await?;
    }
    Ok(())
}
