#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Netlink requests that no program of Debian makes, or not that quickly.

requests.py conns [CLIENT]     dump the connections of this namespace, or those of a client's IPv4 address, by rvs's extension;
                               print how many there were
requests.py services COUNT SERVER PORT
                               add COUNT UDP services, 10.9.0.0:9 and on, :10 after the 65,536th and so on, with this real server
"""

import ipaddress
import socket
import struct
import sys

REQUEST, DUMP, NESTED = 1, 0x300, 0x8000
ERROR, DONE = 2, 3
NEW_SERVICE, NEW_DEST, GET_CONN = 1, 5, 64
SERVICE, DEST, CONN = 1, 2, 64


def attr(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind, flags, cmd, attrs):
    body = struct.pack("BBxx", cmd, 1) + attrs
    return struct.pack("IHHII", 16 + len(body), kind, REQUEST | flags, 1, 0) + body


def connect():
    """A socket, and the number of the family IPVS."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    sock.bind((0, 0))
    sock.send(message(16, 0, 3, attr(2, b"IPVS\0")))
    reply, at = sock.recv(65536), 20
    while at < len(reply):
        length, kind = struct.unpack_from("HH", reply, at)
        if kind == 1:
            return sock, struct.unpack_from("H", reply, at + 4)[0]
        at += length + -length % 4
    raise SystemExit("requests.py: no family")


def conns(client=None):
    sock, family = connect()
    wanted = b""
    if client:
        wanted = attr(CONN | NESTED, attr(3, ipaddress.ip_address(client).packed))
    sock.send(message(family, DUMP, GET_CONN, wanted))
    count, header = 0, struct.Struct("IH")
    buffer = bytearray(1 << 16)
    while True:
        size, at = sock.recv_into(buffer), 0
        while at < size:
            step, kind = header.unpack_from(buffer, at)
            if kind in (ERROR, DONE):
                print(count)
                return
            count += 1
            at += step + -step % 4


def services(count, server, port):
    sock, family = connect()
    address = ipaddress.ip_address(server).packed + bytes(12)
    port = struct.pack("!H", int(port))
    settings = attr(6, b"rr\0") + attr(7, bytes(8)) + attr(8, bytes(4)) + attr(9, b"\xff" * 4)
    dest = attr(1, address) + attr(2, port) + attr(3, bytes(4)) + attr(4, struct.pack("I", 1)) + attr(5, bytes(4)) + attr(6, bytes(4))
    dest = attr(DEST, dest)
    batch = []
    for n in range(int(count)):
        number = 0x0A090000 + n % 65536
        ident = attr(1, struct.pack("H", socket.AF_INET)) + attr(2, struct.pack("H", socket.IPPROTO_UDP))
        ident += attr(3, struct.pack("!I", number) + bytes(12)) + attr(4, struct.pack("!H", 9 + n // 65536))
        batch.append(message(family, 0, NEW_SERVICE, attr(SERVICE, ident + settings)))
        batch.append(message(family, 0, NEW_DEST, attr(SERVICE, ident) + dest))
        if len(batch) >= 100:
            sock.send(b"".join(batch))
            batch = []
    if batch:
        sock.send(b"".join(batch))
    try:
        reply = sock.recv(65536, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    raise SystemExit(f"requests.py: refused, error {struct.unpack_from('i', reply, 16)[0]}")


{"conns": conns, "services": services}[sys.argv[1]](*sys.argv[2:])
