# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists the services and destinations of IPVS with pyroute2's generic netlink, one line each.

The pyroute2 of Debian 13 has no IPVS module yet; the messages are declared here as its own modules declare theirs.
"""

import socket
import sys

from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg, nla
from pyroute2.netlink.generic import GenericNetlinkSocket

GET_SERVICE, GET_DEST, GET_CONFIG, GET_INFO = 4, 8, 13, 15


class Stats(nla):
    prefix = "IPVS_STATS_ATTR_"
    nla_map = tuple(
        (n, "IPVS_STATS_ATTR_" + name, kind)
        for n, (name, kind) in enumerate(
            [
                ("UNSPEC", "none"),
                ("CONNS", "uint32"),
                ("INPKTS", "uint32"),
                ("OUTPKTS", "uint32"),
                ("INBYTES", "uint64"),
                ("OUTBYTES", "uint64"),
                ("CPS", "uint32"),
                ("INPPS", "uint32"),
                ("OUTPPS", "uint32"),
                ("INBPS", "uint32"),
                ("OUTBPS", "uint32"),
            ]
        )
    )


class Stats64(nla):
    nla_map = tuple((n, name, kind.replace("uint32", "uint64")) for n, name, kind in Stats.nla_map)


class Service(nla):
    Stats = Stats
    Stats64 = Stats64
    nla_map = (
        ("UNSPEC", "none"),
        ("AF", "uint16"),
        ("PROTOCOL", "uint16"),
        ("ADDR", "cdata"),
        ("PORT", "be16"),
        ("FWMARK", "uint32"),
        ("SCHED_NAME", "asciiz"),
        ("FLAGS", "cdata"),
        ("TIMEOUT", "uint32"),
        ("NETMASK", "uint32"),
        ("STATS", "Stats"),
        ("PE_NAME", "asciiz"),
        ("STATS64", "Stats64"),
    )


class Dest(nla):
    Stats = Stats
    Stats64 = Stats64
    nla_map = (
        ("UNSPEC", "none"),
        ("ADDR", "cdata"),
        ("PORT", "be16"),
        ("FWD_METHOD", "uint32"),
        ("WEIGHT", "uint32"),
        ("U_THRESH", "uint32"),
        ("L_THRESH", "uint32"),
        ("ACTIVE_CONNS", "uint32"),
        ("INACT_CONNS", "uint32"),
        ("PERSIST_CONNS", "uint32"),
        ("STATS", "Stats"),
        ("ADDR_FAMILY", "uint16"),
        ("STATS64", "Stats64"),
        ("TUN_TYPE", "uint8"),
        ("TUN_PORT", "be16"),
        ("TUN_FLAGS", "uint16"),
    )


class Message(genlmsg):
    Service = Service
    Dest = Dest
    nla_map = (
        ("UNSPEC", "none"),
        ("SERVICE", "Service"),
        ("DEST", "Dest"),
        ("DAEMON", "hex"),
        ("TIMEOUT_TCP", "uint32"),
        ("TIMEOUT_TCP_FIN", "uint32"),
        ("TIMEOUT_UDP", "uint32"),
    )


def address(family, data):
    return socket.inet_ntop(family, bytes(data)[: 4 if family == socket.AF_INET else 16])


def show(stats):
    return " ".join(str(stats.get_attr("IPVS_STATS_ATTR_" + n)) for n in ("CONNS", "INPKTS", "OUTPKTS", "INBYTES"))


def main():
    sock = GenericNetlinkSocket()
    sock.bind("IPVS", Message)

    def ask(cmd, attrs, flags):
        message = Message()
        message["cmd"] = cmd
        message["version"] = 1
        message["attrs"] = attrs
        return sock.nlm_request(message, msg_type=sock.prid, msg_flags=NLM_F_REQUEST | flags)

    config = ask(GET_CONFIG, [], 0)[0]
    print("config", *(config.get_attr(n) for n in ("TIMEOUT_TCP", "TIMEOUT_TCP_FIN", "TIMEOUT_UDP")))
    for message in ask(GET_SERVICE, [], NLM_F_DUMP):
        service = message.get_attr("SERVICE")
        family = service.get_attr("AF")
        mark = service.get_attr("FWMARK")
        if mark is None:
            who = [
                service.get_attr("PROTOCOL"),
                address(family, service.get_attr("ADDR")),
                service.get_attr("PORT"),
            ]
            names = ("AF", "PROTOCOL", "ADDR", "PORT")
        else:
            who, names = ["mark", mark], ("AF", "FWMARK")
        print("service", *who, service.get_attr("SCHED_NAME"), show(service.get_attr("STATS")))
        if show(service.get_attr("STATS")) != show(service.get_attr("STATS64")):
            sys.exit("STATS and STATS64 differ")
        key = {"attrs": [(name, service.get_attr(name)) for name in names]}
        for answer in ask(GET_DEST, [("SERVICE", key)], NLM_F_DUMP):
            dest = answer.get_attr("DEST")
            print(
                "dest",
                address(dest.get_attr("ADDR_FAMILY"), dest.get_attr("ADDR")),
                *(dest.get_attr(n) for n in ("PORT", "FWD_METHOD", "WEIGHT", "ACTIVE_CONNS", "INACT_CONNS")),
                show(dest.get_attr("STATS")),
            )


main()
