// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tells what happens to services and destinations: `cargo run --example events --features tokio`, as root, with rvs loaded. Ends
//! after as many events as its first argument says.

use rvs_netlink::tokio::Client;
use rvs_netlink::{Group, Subject};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => usize::MAX,
    };
    let mut events = Client::open().await?.events(&[Group::Config])?;
    for _ in 0..count {
        let (event, missed) = events.next().await?;
        if missed > 0 {
            println!("{missed} events were missed");
        }
        match event.subject {
            Subject::Service(service) => println!("{:?} {}", event.change, service.id),
            Subject::Dest(id, dest) => println!("{:?} {} of {id}", event.change, dest.addr),
            other => println!("{:?} {other:?}", event.change),
        }
    }
    Ok(())
}
