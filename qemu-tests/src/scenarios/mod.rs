// SPDX-License-Identifier: GPL-2.0-or-later

//! One file per behaviour. A new one is named twice below: as a module and in the table.

use crate::scenario::Scenario;

mod autoload;
mod backup_only;
mod boot;
mod boundary;
mod cache_bypass;
mod checksums;
mod clients;
mod clients_keepalived;
mod clients_ldirectord;
mod clients_node_exporter;
mod clients_pyroute2;
mod conn_dump;
mod conn_max;
mod conn_reuse;
mod conn_tab_bits;
mod conntrack;
mod defense;
mod defrag_v6;
mod detours;
mod direct;
mod edit_method;
mod events;
mod failslab;
mod flush_traffic;
mod forward_icmp;
mod fragments;
mod ftp_module;
mod ftp_packets;
mod ftp_persistent;
mod ftp_sessions;
mod fullnat_again;
mod fullnat_conntrack;
mod fullnat_control;
mod fullnat_icmp;
mod fullnat_local;
mod fullnat_loss;
mod fullnat_numbers;
mod fullnat_ports;
mod fullnat_proxy;
mod fullnat_reader;
mod fullnat_tcp;
mod fullnat_toa;
mod fullnat_udp;
mod hooks;
mod icmp_errors;
mod icmp_tunnels;
mod ignore_tunneled;
mod ipvsadm;
mod local_address;
mod local_client;
mod local_server;
mod lookup;
mod lookup_order;
mod module_conflict;
mod mtu;
mod nat;
mod nat_tcp_v4;
mod nat_tcp_v6;
mod nat_udp_v4;
mod nat_udp_v6;
mod netlink_diff;
mod netlink_dumps;
mod netlink_errors;
mod netlink_family;
mod netlink_fuzz;
mod netlink_layout;
mod netns;
mod nodest;
mod offloads;
mod one_packet;
mod packet_types;
mod persistence;
mod pmtu;
mod port_unreachable;
mod proc_files;
mod proc_flags;
mod proc_status;
mod rates;
mod replies;
mod resize;
mod routes;
mod rvs_netlink;
mod rvs_netlink_examples;
mod rvsadm;
mod rvsadm_classic;
mod rvsadm_events;
mod rvsadm_fullnat;
mod rvsadm_json;
mod rvsadm_names;
mod rvsadm_no_module;
mod rvsadm_realserver;
mod rvsadm_speed;
mod rvsadm_stream;
mod rvsadm_subcommands;
mod rvsadm_terminal;
mod rvsadm_watch;
mod save_restore;
mod scale_conns;
mod scale_dests;
mod scale_services;
mod sched;
mod sched_caches;
mod sched_dh;
mod sched_history;
mod sched_lblc;
mod sched_lblcr;
mod sched_lc;
mod sched_log;
mod sched_marked;
mod sched_mh;
mod sched_rr;
mod sched_sh;
mod sched_twos;
mod sched_wlc;
mod sched_wrr;
mod schedule_icmp;
mod sctp;
mod seen_once;
mod selftest_ipvs;
mod snat_reroute;
mod sockopt_get;
mod sockopt_ipvsadm;
mod sockopt_set;
mod stats;
mod storm;
mod stress;
mod sync_backup;
mod sync_churn;
mod sync_daemon;
mod sync_hostile;
mod sync_master;
mod sync_pair;
mod sync_send;
mod sync_stress;
mod sysctls;
mod tcp_scheduling;
mod tcp_states;
mod thresholds;
mod trash;
mod ttl;
mod tunnel;
mod tunnel_extras;
mod udp_timeout;
mod unload;
mod wire_diff;
mod zero_flush;

/// Every scenario, in the order in which they are run.
pub static ALL: &[&Scenario] = &[
    &boot::SCENARIO,
    &nat_tcp_v4::SCENARIO,
    &nat_tcp_v6::SCENARIO,
    &nat_udp_v4::SCENARIO,
    &nat_udp_v6::SCENARIO,
    &sched_rr::SCENARIO,
    &sched_wrr::SCENARIO,
    &sched_lc::SCENARIO,
    &sched_wlc::SCENARIO,
    &sched_twos::SCENARIO,
    &sched_dh::SCENARIO,
    &sched_sh::SCENARIO,
    &sched_mh::SCENARIO,
    &sched_lblc::SCENARIO,
    &sched_lblcr::SCENARIO,
    &sched_history::SCENARIO,
    &sched_log::SCENARIO,
    &sched_caches::SCENARIO,
    &thresholds::SCENARIO,
    &direct::SCENARIO,
    &edit_method::SCENARIO,
    &tunnel::SCENARIO,
    &tunnel_extras::SCENARIO,
    &cache_bypass::SCENARIO,
    &sctp::SCENARIO,
    &persistence::SCENARIO,
    &one_packet::SCENARIO,
    &defense::SCENARIO,
    &tcp_states::SCENARIO,
    &tcp_scheduling::SCENARIO,
    &packet_types::SCENARIO,
    &udp_timeout::SCENARIO,
    &checksums::SCENARIO,
    &ttl::SCENARIO,
    &mtu::SCENARIO,
    &pmtu::SCENARIO,
    &routes::SCENARIO,
    &icmp_errors::SCENARIO,
    &icmp_tunnels::SCENARIO,
    &schedule_icmp::SCENARIO,
    &ignore_tunneled::SCENARIO,
    &backup_only::SCENARIO,
    &seen_once::SCENARIO,
    &lookup_order::SCENARIO,
    &boundary::SCENARIO,
    &defrag_v6::SCENARIO,
    &detours::SCENARIO,
    &forward_icmp::SCENARIO,
    &replies::SCENARIO,
    &snat_reroute::SCENARIO,
    &local_address::SCENARIO,
    &local_client::SCENARIO,
    &local_server::SCENARIO,
    &port_unreachable::SCENARIO,
    &conn_reuse::SCENARIO,
    &conn_tab_bits::SCENARIO,
    &conntrack::SCENARIO,
    &fragments::SCENARIO,
    &ftp_sessions::SCENARIO,
    &ftp_packets::SCENARIO,
    &ftp_persistent::SCENARIO,
    &ftp_module::SCENARIO,
    &fullnat_tcp::SCENARIO,
    &fullnat_udp::SCENARIO,
    &fullnat_numbers::SCENARIO,
    &fullnat_ports::SCENARIO,
    &fullnat_again::SCENARIO,
    &fullnat_conntrack::SCENARIO,
    &fullnat_control::SCENARIO,
    &fullnat_icmp::SCENARIO,
    &fullnat_toa::SCENARIO,
    &fullnat_proxy::SCENARIO,
    &fullnat_reader::SCENARIO,
    &fullnat_local::SCENARIO,
    &fullnat_loss::SCENARIO,
    &nodest::SCENARIO,
    &trash::SCENARIO,
    &lookup::SCENARIO,
    &hooks::SCENARIO,
    &netlink_family::SCENARIO,
    &netlink_errors::SCENARIO,
    &netlink_layout::SCENARIO,
    &netlink_dumps::SCENARIO,
    &sockopt_set::SCENARIO,
    &sockopt_get::SCENARIO,
    &sockopt_ipvsadm::SCENARIO,
    &ipvsadm::SCENARIO,
    &save_restore::SCENARIO,
    &scale_conns::SCENARIO,
    &scale_dests::SCENARIO,
    &scale_services::SCENARIO,
    &conn_dump::SCENARIO,
    &events::SCENARIO,
    &zero_flush::SCENARIO,
    &rvs_netlink::SCENARIO,
    &rvs_netlink_examples::SCENARIO,
    &rvsadm_classic::SCENARIO,
    &rvsadm_stream::SCENARIO,
    &rvsadm_subcommands::SCENARIO,
    &rvsadm_watch::SCENARIO,
    &rvsadm_names::SCENARIO,
    &rvsadm_json::SCENARIO,
    &rvsadm_terminal::SCENARIO,
    &rvsadm_events::SCENARIO,
    &rvsadm_fullnat::SCENARIO,
    &rvsadm_realserver::SCENARIO,
    &rvsadm_no_module::SCENARIO,
    &rvsadm_speed::SCENARIO,
    &stats::SCENARIO,
    &rates::SCENARIO,
    &proc_files::SCENARIO,
    &proc_flags::SCENARIO,
    &proc_status::SCENARIO,
    &sysctls::SCENARIO,
    &netns::SCENARIO,
    &sync_daemon::SCENARIO,
    &sync_master::SCENARIO,
    &sync_backup::SCENARIO,
    &sync_send::SCENARIO,
    &sync_pair::SCENARIO,
    &sync_hostile::SCENARIO,
    &sync_stress::SCENARIO,
    &sync_churn::SCENARIO,
    &conn_max::SCENARIO,
    &resize::SCENARIO,
    &flush_traffic::SCENARIO,
    &clients_keepalived::SCENARIO,
    &clients_ldirectord::SCENARIO,
    &clients_node_exporter::SCENARIO,
    &clients_pyroute2::SCENARIO,
    &unload::SCENARIO,
    &module_conflict::SCENARIO,
    &autoload::SCENARIO,
    &storm::SCENARIO,
    &netlink_fuzz::SCENARIO,
    &netlink_diff::SCENARIO,
    &wire_diff::NAT,
    &wire_diff::DIRECT,
    &wire_diff::TUNNEL,
    &offloads::SCENARIO,
    &selftest_ipvs::SCENARIO,
    &stress::SCENARIO,
    &failslab::SCENARIO,
];

/// The scenario of a name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().copied().find(|s| s.name == name)
}
