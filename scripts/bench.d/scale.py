#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes the page's part on scale of what bench.d/scale has printed.

scale.py FILE SERVICES DESTS CONNECTIONS LOOKUPS

Exit status: 0 when rvs needs no more than C on any row, 1 when it does, 2 when there is nothing to compare.
"""

import sys

from table import table


# C frees what was removed a minute or two later, outside of these; rvs at once.
LATER = ("clear", "clear-same")


def read(path):
    values = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            kind, *f = line.split() or [""]
            if kind in ("@scale", "@scalemem"):
                values[(kind, f[0], f[1])] = int(f[2])
    return values


def main():
    path, *sizes = sys.argv[1:]
    services, dests, conns, lookups = (int(n) for n in sizes)
    values = read(path)
    if not values:
        print("scale.py: no measurements", file=sys.stderr)
        return 2
    objects = services * (dests + 1)
    rows = [
        # label, kind, row, per how many, unit
        (f"restore {services:,} services of {dests} destinations", "@scale", "restore", objects, "line"),
        ("list them (`ipvsadm -Ln`)", "@scale", "list", objects, "line"),
        ("save them (`ipvsadm -Sn`)", "@scale", "save", objects, "line"),
        ("read `/proc/net/ip_vs`", "@scale", "proc-list", objects, "line"),
        ("remove them (`ipvsadm -C`)", "@scale", "clear", objects, "object"),
        ("remove them and free them, whenever that is", "@scale", "clear-all", objects, "object"),
        (f"restore {services:,} services, all with the same real server", "@scale", "restore-same", services * 2, "line"),
        ("list them", "@scale", "list-same", services * 2, "line"),
        ("remove them", "@scale", "clear-same", services * 2, "object"),
        (f"read `/proc/net/ip_vs_conn` of {conns:,} connections", "@scale", "conn-proc", conns, "connection"),
        ("dump them by netlink", "@scale", "conn-dump", conns, "connection"),
        ("dump those of one client", "@scale", "conn-filter", conns, "connection"),
        ("end the namespace with them", "@scale", "conn-netns", conns, "connection"),
        ("a new connection, 1 service", "@scale", "lookup-1", 1, "packet"),
        (f"a new connection, each to another of {lookups:,} services", "@scale", "lookup-many", 1, "packet"),
        ("list these services with their rates", "@scale", "list-rates", lookups, "service"),
    ]
    worse, out = [], []
    for label, kind, row, count, unit in rows:
        c, rvs = (values.get((kind, peer, row)) for peer in ("c", "rvs"))
        if c is None and rvs is None:
            continue
        cells = [f"{v / count:,.0f}" if v is not None else "" for v in (c, rvs)]
        ratio = f"{(rvs / c - 1) * 100:+.1f} %" if c and rvs else ""
        out.append([label, *cells, unit, ratio])
        if c and rvs and rvs > c and row not in LATER:
            worse.append(label)
    print("## Scale\n")
    print("""Instructions, of the program and of the kernel for it, for each line or connection; of the last but the namespace's end (which
is time that passes, of which a nanosecond is an instruction) no time spent waiting counts. C lists connections by no other
means than the file. C frees what is removed a minute or two later, rvs at once: the row "whenever that is" counts all that the
machine did in 200 s, less what it does in 200 s anyway. `conn_tab_bits=20` for the rows with connections.
""")
    print(table(["", "C", "rvs", "per", "difference"], out))
    print()
    out = []
    for label, row, count in (
        (f"{services:,} services of {dests} destinations", "configuration", objects),
        (f"{lookups:,} services of 1 destination", "services", lookups * 2),
    ):
        c, rvs = (values.get(("@scalemem", peer, row)) for peer in ("c", "rvs"))
        if c is None or rvs is None:
            continue
        out.append([label, f"{c / count:,.0f}", f"{rvs / count:,.0f}", f"{(rvs / c - 1) * 100:+.1f} %"])
        if rvs > c:
            worse.append(label)
    print(table(["memory, bytes for each service or destination", "C", "rvs", "difference"], out))
    left = []
    for label, row in (
        (f"{services:,} services of {dests} destinations, and {services:,} of one", "configuration-left"),
        (f"{conns:,} connections and their namespace", "connections-left"),
    ):
        c, rvs = (values.get(("@scalemem", peer, row)) for peer in ("c", "rvs"))
        if c is not None and rvs is not None:
            left.append([label, f"{c / 1024:,.0f}", f"{rvs / 1024:,.0f}"])
    if left:
        print()
        print(table(["what is not free again after, KiB", "C", "rvs"], left))
    idle = [values.get(("@scale", peer, "idle")) for peer in ("c", "rvs")]
    if None not in idle:
        print(f"\n100 s with {lookups:,} services and destinations, and nothing going on: C {idle[0]}, rvs {idle[1]} ms of processor time.")
    for label in worse:
        print(f"scale.py: rvs needs more: {label}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
