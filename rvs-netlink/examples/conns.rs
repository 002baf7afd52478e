// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists connections as they come, however many there are: `cargo run --example conns --features client [CLIENT]`, as root, with
//! rvs loaded. With an address, only those of that client: the kernel does the looking.

use rvs_netlink::client::Client;
use rvs_netlink::ConnFilter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut filter = ConnFilter::default();
    if let Some(client) = std::env::args().nth(1) {
        filter.client = Some(client.parse()?);
    }
    let mut count = 0;
    for conn in Client::open()?.conns(&filter)? {
        let conn = conn?;
        println!(
            "{} {} -> {} -> {} {}",
            conn.protocol, conn.client, conn.virt, conn.dest, conn.state_name
        );
        count += 1;
    }
    println!("{count} connections");
    Ok(())
}
