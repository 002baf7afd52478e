// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists what the kernel balances: `cargo run --example services --features client`, as root, with rvs or ip_vs loaded.

use rvs_netlink::client::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut client = Client::open()?;
    let info = client.info()?;
    let [major, minor, patch] = info.version_parts();
    println!(
        "IPVS {major}.{minor}.{patch}, {} buckets",
        info.conn_tab_size
    );
    for service in client.services()? {
        println!("{} {}", service.id, service.scheduler);
        for dest in client.dests(&service.id)? {
            println!(
                "  {} weight {} active {}",
                dest.addr, dest.weight, dest.active
            );
        }
    }
    Ok(())
}
