#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Dumps the connections of this namespace by rvs's netlink extension and prints how many there were.

conndump.py [CLIENT]: only those of a client's IPv4 address.
"""

import ipaddress
import socket
import struct
import sys

REQUEST, DUMP, NESTED = 1, 0x300, 0x8000


def attr(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def send(sock, kind, flags, cmd, attrs):
    body = struct.pack("BBxx", cmd, 1) + attrs
    sock.send(struct.pack("IHHII", 16 + len(body), kind, REQUEST | flags, 1, 0) + body)


def main():
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    sock.bind((0, 0))
    send(sock, 16, 0, 3, attr(2, b"IPVS\0"))
    reply, at, family = sock.recv(65536), 20, 0
    while at < len(reply):
        length, kind = struct.unpack_from("HH", reply, at)
        if kind == 1:
            (family,) = struct.unpack_from("H", reply, at + 4)
        at += length + -length % 4
    wanted = b""
    if len(sys.argv) > 1:
        wanted = attr(64 | NESTED, attr(3, ipaddress.ip_address(sys.argv[1]).packed))
    send(sock, family, DUMP, 64, wanted)
    count, length = 0, struct.Struct("IH")
    buffer = bytearray(1 << 16)
    while True:
        size, at = sock.recv_into(buffer), 0
        while at < size:
            step, kind = length.unpack_from(buffer, at)
            if kind == 3 or kind == 2:
                print(count)
                return
            count += 1
            at += step + -step % 4


main()
