// SPDX-License-Identifier: MIT OR Apache-2.0

//! Makes a service, changes it, and takes it away again: `cargo run --example balance --features client`, as root, in a network
//! namespace where 192.0.2.1:80 is no service (`unshare -n`), with rvs or ip_vs loaded.

use std::net::SocketAddr;

use rvs_netlink::client::{Client, Error};
use rvs_netlink::{Dest, ForwardMethod, FullNat, LocalAddress, Message, Protocol, Service};
use rvs_netlink::{ServiceFlags, ServiceId};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Client::open()?;
    let id = ServiceId::address(Protocol::TCP, "192.0.2.1:80".parse()?);
    let mut web = Service::new(id, "wlc");
    web.flags = ServiceFlags::PERSISTENT;
    web.timeout = 300;
    client.add_service(&web)?;

    // Many requests in few system calls; each is carried out, whatever becomes of the others.
    let reals: [SocketAddr; 2] = ["10.0.0.1:8080".parse()?, "10.0.0.2:8080".parse()?];
    let requests = [reals[0], reals[1], reals[0]].map(|real| {
        let dest = Dest::new(real, ForwardMethod::MASQ);
        Message::new_dest(&id, &dest)
    });
    for (at, e) in client.batch(&requests)? {
        println!("request {at} was refused: {e}");
    }

    // No new connections for one of them.
    let mut dests = client.dests(&id)?;
    dests.sort_by_key(|dest| dest.addr);
    if let Some(dest) = dests.first_mut() {
        dest.weight = 0;
        client.set_dest(&id, dest)?;
    }

    // FullNAT, if the module has it: one that hasn't is not asked at all.
    match client.add_local(&id, &LocalAddress::prefix("10.77.0.16".parse()?, 28)) {
        Ok(()) => {
            let mut options = FullNat::default();
            options.toa_kind = FullNat::TOA;
            web.fullnat = Some(options);
            client.set_service(&web)?;
            println!("{} local addresses", client.locals(&id)?.len());
        }
        Err(Error::NoExtension(what)) => println!("this module has no {what}"),
        Err(e) => return Err(e.into()),
    }

    let service = client.service(&id)?;
    println!("{} {} {} s", service.id, service.scheduler, service.timeout);
    for dest in client.dests(&id)? {
        println!("  {} weight {}", dest.addr, dest.weight);
    }
    client.del_service(&id)?;
    // What the kernel refuses has its errno, and with rvs its reason.
    if let Err(Error::Kernel(e)) = client.service(&id) {
        println!("gone: {e}");
    }
    Ok(())
}
