// SPDX-License-Identifier: GPL-2.0-or-later

//! One file per behaviour. The table below is all there is to registering one.

use crate::scenario::Scenario;

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(mod $name;)*

        /// Every scenario, in the order in which they are run.
        pub static ALL: &[&Scenario] = &[$(&$name::SCENARIO),*];
    };
}

mod nat;
mod sched;

scenarios! {
    boot,
    nat_tcp_v4,
    nat_tcp_v6,
    nat_udp_v4,
    nat_udp_v6,
    sched_rr,
    sched_wrr,
    sched_lc,
    sched_wlc,
    thresholds,
    tcp_states,
    tcp_scheduling,
    udp_timeout,
    checksums,
    ttl,
    mtu,
    icmp_errors,
    replies,
    local_client,
    local_server,
    port_unreachable,
    conn_reuse,
    fragments,
    nodest,
    lookup,
    hooks,
    netlink_family,
    netlink_errors,
    netlink_layout,
    netlink_dumps,
    zero_flush,
    stats,
    proc_files,
    proc_flags,
    sysctls,
    netns,
    conn_max,
    resize,
    flush_traffic,
    unload,
    module_conflict,
    storm,
    netlink_fuzz,
    stress,
    failslab,
}

/// The scenario of a name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().find(|s| s.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_items_exist() {
        for (i, s) in ALL.iter().enumerate() {
            assert!(
                ALL[..i].iter().all(|t| t.name != s.name),
                "{} stands twice",
                s.name
            );
            assert!(
                s.items.iter().all(|n| (1..=146).contains(n)),
                "{}: {:?}",
                s.name,
                s.items
            );
            assert!(!s.doc.is_empty());
        }
    }
}
