// SPDX-License-Identifier: GPL-2.0-or-later

//! ipvsadm's options: the one definition that parsing, the man page and completions are made from.

use clap::{Arg, ArgAction, ArgGroup, Command};

/// Options that may or may not stand with a command, in ipvsadm's order; those that only rvs has are last. The order decides which of
/// several complaints is made.
pub(super) const OPTIONS: [&str; 42] = [
    "numeric",
    "connection",
    "service-address",
    "scheduler",
    "persistent",
    "netmask",
    "real-server",
    "forwarding-method",
    "weight",
    "u-threshold",
    "l-threshold",
    "mcast-interface",
    "timeout",
    "daemon",
    "stats",
    "rate",
    "thresholds",
    "persistent-conn",
    "nosort",
    "syncid",
    "exact",
    "ops",
    "pe",
    "sched-flags",
    "mcast-group",
    "mcast-port",
    "mcast-ttl",
    "sync-maxlen",
    "tun-info",
    "tun-type",
    "tun-port",
    "tun-nocsum",
    "tun-csum",
    "tun-remcsum",
    "local-address",
    "ifname",
    "toa",
    "toa-syn",
    "proxy-protocol",
    "local-ports",
    "tun-sources",
    "tun-mss-clamp",
];

/// Long options and commands that need rvs, and that only rvsadm's own name has.
pub(super) const EXTENSIONS: [&str; 12] = [
    "add-laddr",
    "del-laddr",
    "get-laddr",
    "fullnat",
    "local-address",
    "ifname",
    "toa",
    "toa-syn",
    "proxy-protocol",
    "local-ports",
    "tun-sources",
    "tun-mss-clamp",
];

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    AddService,
    EditService,
    DeleteService,
    Clear,
    List,
    AddServer,
    DeleteServer,
    EditServer,
    Set,
    StartDaemon,
    StopDaemon,
    Restore,
    Save,
    Zero,
    AddLocal,
    DeleteLocal,
    ListLocals,
}

impl Verb {
    /// The command behind a long option.
    pub(super) fn of(option: &str) -> Option<Self> {
        Some(match option {
            "add-service" => Self::AddService,
            "edit-service" => Self::EditService,
            "delete-service" => Self::DeleteService,
            "clear" => Self::Clear,
            "list" => Self::List,
            "add-server" => Self::AddServer,
            "delete-server" => Self::DeleteServer,
            "edit-server" => Self::EditServer,
            "set" => Self::Set,
            "start-daemon" => Self::StartDaemon,
            "stop-daemon" => Self::StopDaemon,
            "restore" => Self::Restore,
            "save" => Self::Save,
            "zero" => Self::Zero,
            "add-laddr" => Self::AddLocal,
            "del-laddr" => Self::DeleteLocal,
            "get-laddr" => Self::ListLocals,
            _ => return None,
        })
    }

    /// Its name in complaints.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Clear => "flush",
            Self::List => "list",
            Self::AddServer => "add-server",
            Self::DeleteServer => "delete-server",
            Self::EditServer => "edit-server",
            Self::Set => "set",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::Zero => "zero",
            Self::AddLocal => "add-laddr",
            Self::DeleteLocal => "del-laddr",
            Self::ListLocals => "get-laddr",
        }
    }

    /// What it says to an option.
    pub(super) fn rule(self, option: &str) -> Rule {
        let (needs, one_of, takes): (&[&str], &[&str], &[&str]) = match self {
            Self::AddService | Self::EditService => (
                &["service-address"],
                &[],
                &[
                    "scheduler",
                    "persistent",
                    "netmask",
                    "ops",
                    "pe",
                    "sched-flags",
                    "toa",
                    "toa-syn",
                    "proxy-protocol",
                    "local-ports",
                    "tun-sources",
                    "tun-mss-clamp",
                ],
            ),
            Self::DeleteService => (&["service-address"], &[], &[]),
            Self::List => (
                &[],
                &["connection", "service-address", "timeout", "daemon"],
                &[
                    "numeric",
                    "stats",
                    "rate",
                    "thresholds",
                    "persistent-conn",
                    "nosort",
                    "exact",
                    "syncid",
                    "tun-info",
                ],
            ),
            Self::AddServer | Self::EditServer => (
                &["service-address", "real-server"],
                &[],
                &[
                    "forwarding-method",
                    "weight",
                    "u-threshold",
                    "l-threshold",
                    "tun-type",
                    "tun-port",
                    "tun-nocsum",
                    "tun-csum",
                    "tun-remcsum",
                ],
            ),
            Self::DeleteServer => (&["service-address", "real-server"], &[], &[]),
            Self::StartDaemon => (
                &[],
                &[],
                &[
                    "mcast-interface",
                    "syncid",
                    "mcast-group",
                    "mcast-port",
                    "mcast-ttl",
                    "sync-maxlen",
                ],
            ),
            Self::StopDaemon => (&[], &[], &["syncid"]),
            Self::Save => (&[], &[], &["numeric"]),
            Self::Zero => (&[], &[], &["service-address"]),
            Self::AddLocal | Self::DeleteLocal => {
                (&["service-address", "local-address"], &[], &["ifname"])
            }
            Self::ListLocals => (&[], &[], &["service-address", "numeric"]),
            Self::Clear | Self::Set | Self::Restore => (&[], &[], &[]),
        };
        if needs.contains(&option) {
            Rule::Needed
        } else if one_of.contains(&option) {
            Rule::OneOf
        } else if takes.contains(&option) {
            Rule::Taken
        } else {
            Rule::Refused
        }
    }
}

/// The long names of all commands, of which a command line has one.
pub(crate) const COMMANDS: [&str; 19] = [
    "add-service",
    "edit-service",
    "delete-service",
    "clear",
    "restore",
    "save",
    "add-server",
    "edit-server",
    "delete-server",
    "list",
    "zero",
    "set",
    "start-daemon",
    "stop-daemon",
    "help",
    "version",
    "add-laddr",
    "del-laddr",
    "get-laddr",
];

/// What a command, or a tunnel type, says to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Needed,
    Refused,
    /// Of those only one.
    OneOf,
    Taken,
}

/// The name in [`OPTIONS`] of a long option.
pub(super) fn option_name(long: &str) -> &str {
    match long {
        "tcp-service" | "udp-service" | "sctp-service" | "fwmark-service" => "service-address",
        "masquerading" | "ipip" | "gatewaying" | "fullnat" => "forwarding-method",
        other => other,
    }
}

/// The definition of the command line; `extended`: with what only rvs has.
pub(crate) fn command(name: &'static str, extended: bool) -> Command {
    let flag = |long: &'static str, short: Option<char>, help: &'static str| {
        let arg = Arg::new(long)
            .long(long)
            .action(ArgAction::SetTrue)
            .help(help);
        match short {
            Some(short) => arg.short(short),
            None => arg,
        }
    };
    let value =
        |long: &'static str, short: Option<char>, what: &'static str, help: &'static str| {
            let arg = Arg::new(long)
                .long(long)
                .value_name(what)
                .action(ArgAction::Set)
                .help(help);
            match short {
                Some(short) => arg.short(short),
                None => arg,
            }
        };
    let verbs = [
        flag("add-service", Some('A'), "Add a virtual service"),
        flag("edit-service", Some('E'), "Change a virtual service"),
        flag(
            "delete-service",
            Some('D'),
            "Remove a virtual service and its real servers",
        ),
        flag("clear", Some('C'), "Remove all virtual services"),
        flag(
            "restore",
            Some('R'),
            "Read commands from standard input, one a line",
        ),
        flag(
            "save",
            Some('S'),
            "Print the table as commands that --restore reads",
        ),
        flag("add-server", Some('a'), "Add a real server to a service"),
        flag(
            "edit-server",
            Some('e'),
            "Change a real server of a service",
        ),
        flag(
            "delete-server",
            Some('d'),
            "Remove a real server from a service",
        ),
        flag("list", Some('L'), "List the table, or one service of it").short_alias('l'),
        flag(
            "zero",
            Some('Z'),
            "Zero the counters of a service, or all counters",
        ),
        flag(
            "set",
            None,
            "Set the timeouts of TCP, of TCP after a FIN, and of UDP: three numbers of seconds, 0 leaves one as it is",
        ),
        value(
            "start-daemon",
            None,
            "STATE",
            "Start the synchronisation daemon, master or backup",
        ),
        value(
            "stop-daemon",
            None,
            "STATE",
            "Stop the synchronisation daemon, master or backup",
        ),
        flag("help", Some('h'), "Print ipvsadm's help"),
        flag("version", Some('v'), "Print the version"),
    ];
    Command::new(name)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(verbs)
        .group(ArgGroup::new("command").args(
            COMMANDS
                .iter()
                .filter(|name| extended || !EXTENSIONS.contains(name)),
        ))
        .args([
            value(
                "tcp-service",
                Some('t'),
                "HOST[:PORT]",
                "A service of TCP",
            ),
            value(
                "udp-service",
                Some('u'),
                "HOST[:PORT]",
                "A service of UDP",
            ),
            value("sctp-service", None, "HOST[:PORT]", "A service of SCTP"),
            value(
                "fwmark-service",
                Some('f'),
                "MARK",
                "A service of a firewall mark",
            ),
            flag("ipv6", Some('6'), "The mark of --fwmark-service is of IPv6"),
            value(
                "scheduler",
                Some('s'),
                "SCHEDULER",
                "How real servers are chosen [default: wlc]",
            ),
            value(
                "pe",
                None,
                "ENGINE",
                "Persistence engine: sip",
            ),
            value(
                "persistent",
                Some('p'),
                "SECONDS",
                "Clients come back to the same real server [default: 300 seconds]",
            )
            .num_args(0..=1),
            value(
                "netmask",
                Some('M'),
                "MASK",
                "Clients of the same network count as one for persistence",
            ),
            value(
                "real-server",
                Some('r'),
                "HOST[:PORT]",
                "The real server",
            ),
            flag(
                "gatewaying",
                Some('g'),
                "Forward by direct routing (the default)",
            ),
            flag("ipip", Some('i'), "Forward through a tunnel"),
            flag(
                "masquerading",
                Some('m'),
                "Forward by network address translation",
            ),
            value(
                "tun-type",
                None,
                "TYPE",
                "Tunnel type: ipip, gue or gre [default: ipip]",
            ),
            value("tun-port", None, "PORT", "Tunnel port, for gue"),
            flag("tun-nocsum", None, "Tunnel without checksums"),
            flag("tun-csum", None, "Tunnel with checksums"),
            flag(
                "tun-remcsum",
                None,
                "Tunnel with remote checksum offload, for gue",
            ),
            value(
                "weight",
                Some('w'),
                "WEIGHT",
                "Capacity of the real server; 0 takes no new connections [default: 1]",
            ),
            value(
                "u-threshold",
                Some('x'),
                "N",
                "No new connections from this number on; 0 for no limit",
            ),
            value(
                "l-threshold",
                Some('y'),
                "N",
                "New connections again below this number",
            ),
            flag("connection", Some('c'), "List connections"),
            flag("timeout", None, "List timeouts"),
            flag("daemon", None, "List synchronisation daemons"),
            flag("stats", None, "List counters"),
            flag("rate", None, "List rates"),
            flag("exact", Some('X'), "Print numbers in full"),
            flag("thresholds", None, "List thresholds"),
            flag(
                "persistent-conn",
                None,
                "List persistent connections",
            ),
            flag("tun-info", None, "List tunnels"),
            flag("nosort", None, "List in the kernel's order"),
            flag("sort", None, "Does nothing: sorting is the default"),
            flag("ops", Some('o'), "Schedule each packet anew (UDP)"),
            flag(
                "numeric",
                Some('n'),
                "Print addresses and ports as numbers",
            ),
            value(
                "sched-flags",
                Some('b'),
                "FLAGS",
                "Flags of the scheduler: sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2, flag-3",
            ),
            value(
                "syncid",
                None,
                "ID",
                "Identity of the synchronisation daemon, 0 to 255",
            ),
            value(
                "sync-maxlen",
                None,
                "BYTES",
                "Longest synchronisation message",
            ),
            value(
                "mcast-interface",
                None,
                "INTERFACE",
                "Interface of the synchronisation daemon [default: eth0]",
            ),
            value(
                "mcast-group",
                None,
                "ADDRESS",
                "Multicast group [default: 224.0.0.81]",
            ),
            value("mcast-port", None, "PORT", "UDP port [default: 8848]"),
            value("mcast-ttl", None, "TTL", "Hops [default: 1]"),
        ])
        .args([
            flag(
                "add-laddr",
                Some('P'),
                "Add a local address to a service (FullNAT; needs rvs)",
            ),
            flag(
                "del-laddr",
                Some('Q'),
                "Remove a local address from a service (needs rvs)",
            ),
            flag(
                "get-laddr",
                Some('G'),
                "List local addresses and what they count (needs rvs)",
            ),
            flag(
                "fullnat",
                None,
                "Forward by FullNAT; with --add-server and --edit-server, where ipvsadm has no -b, also -b (needs rvs)",
            ),
            value(
                "local-address",
                Some('z'),
                "ADDRESS[/LENGTH]",
                "The local address, or all of a prefix",
            )
            .visible_alias("laddr"),
            value(
                "ifname",
                Some('F'),
                "INTERFACE",
                "The local address is for real servers behind this interface only",
            ),
            value(
                "toa",
                None,
                "KIND",
                "Tell real servers the client's address in a TCP option [default: 254]; off switches it off (needs rvs)",
            )
            .num_args(0..=1),
            value(
                "toa-syn",
                None,
                "on|off",
                "The option is on SYNs, too (needs rvs) [default: on]",
            )
            .num_args(0..=1),
            value(
                "proxy-protocol",
                None,
                "VERSION",
                "Tell real servers the client's address with the PROXY protocol: 1, 2 or off (needs rvs)",
            ),
            value(
                "local-ports",
                None,
                "MIN-MAX",
                "Ports of local addresses (needs rvs) [default: 1024-65535]",
            ),
            value(
                "tun-sources",
                None,
                "NETWORK[,NETWORK]",
                "Tunnels come from addresses of this network, by the flow: one of IPv4, one of IPv6, or none (needs rvs)",
            ),
            value(
                "tun-mss-clamp",
                None,
                "on|off",
                "Lower the maximum segment size in SYNs to what tunnels carry (needs rvs) [default: on]",
            )
            .num_args(0..=1),
        ].into_iter().filter(|_| extended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition() {
        command("ipvsadm", false).debug_assert();
        command("rvsadm", true).debug_assert();
        let plain = command("ipvsadm", false);
        for arg in command("rvsadm", true).get_arguments() {
            let long = arg.get_long().expect("a long name");
            let in_both = plain.get_arguments().any(|a| a.get_long() == Some(long));
            assert_eq!(in_both, !EXTENSIONS.contains(&long), "{long}");
            assert!(
                Verb::of(long).is_some()
                    || OPTIONS.contains(&option_name(long))
                    || ["help", "version", "sort", "ipv6"].contains(&long),
                "{long}"
            );
        }
    }
}
