// SPDX-License-Identifier: GPL-2.0-or-later

//! ipvsadm's fixed texts.

use std::io;

use rvs_netlink::client::Error;
use rvs_netlink::{Command, Info, Message};

use crate::refusals;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ESRCH: i32 = 3;
const ENOMEM: i32 = 12;
const EEXIST: i32 = 17;
const EINVAL: i32 = 22;
const EMSGSIZE: i32 = 90;
const ENOPROTOOPT: i32 = 92;
const EOPNOTSUPP: i32 = 95;
const EAFNOSUPPORT: i32 = 97;

/// What the kernel's refusal means for a command, and the reason that the kernel gave.
pub(super) fn refusal(command: Option<Command>, e: &Error) -> String {
    let Error::Kernel(e) = e else {
        return e.to_string();
    };
    use Command::*;
    let known = match (command, e.errno) {
        (Some(NewService), EEXIST) => Some("Service already exists"),
        (Some(NewService | SetService), ENOENT) => {
            Some("Scheduler or persistence engine not found")
        }
        (Some(SetService | DelService | Zero | GetService | GetDest), ESRCH) => {
            Some("No such service")
        }
        (Some(NewDest | SetDest | DelDest), ESRCH) => Some("Service not defined"),
        (Some(NewDest), EEXIST) => Some("Destination already exists"),
        (Some(SetDest | DelDest), ENOENT) => Some("No such destination"),
        (Some(NewLaddr | DelLaddr | GetLaddr), ESRCH) => Some("No such service"),
        (Some(NewLaddr), EEXIST) => Some("Local address already exists"),
        (Some(DelLaddr), ENOENT) => Some("No such local address"),
        (Some(NewDaemon), EEXIST) => Some("Daemon has already run"),
        (Some(DelDaemon), ESRCH) => Some("No daemon is running"),
        (_, EPERM) => Some("Permission denied (you must be root)"),
        (_, EINVAL) => {
            Some("Invalid operation.  Possibly wrong module version, address not unicast, ...")
        }
        (_, ENOPROTOOPT) => Some("Protocol not available"),
        (_, ENOMEM) => Some("Memory allocation problem"),
        (_, EOPNOTSUPP) if e.text.is_none() => Some("Operation not supported with IPv6"),
        (_, EAFNOSUPPORT) => Some("Operation not supported with specified address family"),
        (_, EMSGSIZE) => Some("Module is wrong version"),
        _ => None,
    };
    let text = match known {
        Some(text) => text.to_owned(),
        None => {
            let text = io::Error::from_raw_os_error(e.errno).to_string();
            match text.split_once(" (os error") {
                Some((text, _)) => text.to_owned(),
                None => text,
            }
        }
    };
    match &e.text {
        Some(reason) => format!("{text}: {reason}"),
        None => text,
    }
}

/// As [`refusal`], with what the request was about and what would be right.
pub(super) fn refusal_of(message: &Message, e: &Error) -> String {
    let text = refusal(Some(message.command), e);
    let Error::Kernel(e) = e else {
        return text;
    };
    let list = || Some("--list lists those that there are".to_owned());
    let advice = match (message.command, e.errno) {
        (Command::NewService, EEXIST) => Some("--edit-service changes it".to_owned()),
        (Command::NewDest, EEXIST) => Some("--edit-server changes it".to_owned()),
        (Command::SetDest | Command::DelDest, ENOENT) => list(),
        (Command::NewLaddr | Command::DelLaddr, ENOENT | EEXIST) => {
            Some("--get-laddr lists those that there are".to_owned())
        }
        (_, ESRCH) if message.service_id().is_ok() => list(),
        (_, errno) => refusals::engine_of(message, errno),
    };
    match (refusals::about(message), advice) {
        (Some(about), Some(advice)) => format!("{text}: {about}; {advice}"),
        (Some(about), None) => format!("{text}: {about}"),
        (None, _) => text,
    }
}

/// The line of `-v`.
pub(super) fn version(info: Option<&Info>) -> String {
    // The version that ipvsadm 1.31 was compiled with, not the running one.
    let _ = info;
    "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n".to_owned()
}

/// What `-h` prints below the version; `extended`: with what only rvs has.
pub(super) fn help(program: &str, extended: bool) -> String {
    let more = if extended { HELP_RVS } else { "" };
    format!("{HELP}{more}").replace("%s", program)
}

const HELP: &str = include_str!("help.txt");
const HELP_RVS: &str = include_str!("help-rvs.txt");
