#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Makes docs/benchmarks.md of what the guests have printed.

table.py COMMAND-LINE INSTRUCTIONS [NANOSECONDS]

The last two are files of the guests' output, of which the lines beginning with "@" count. The page goes to standard output, times in
nanoseconds and the verdict to standard error. Exit status: 0 when rvs needs no more instructions than C on every row, 1 when it
does, 2 when there is nothing to compare.
"""

import collections
import statistics
import sys
import time

LABELS = {
    "drop": "dropped at the director",
    "forward": "plain forwarding",
    "flowtable": "nf_flowtable",
    "dnat": "nftables DNAT",
    "c": "C ip_vs",
    "rvs": "rvs",
    "fullnat": "rvs FullNAT",
    "masquerade": "C ip_vs NAT with conntrack=1 and masquerade",
}
FLOWS = {"flows": "established flows", "new": "new connection per packet"}
# Rows by themselves, whose label says it all.
WHOLE = ("fullnat", "masquerade")
METHODS = {"nat": "NAT", "dr": "direct routing", "ipip": "IPIP", "gue": "GUE"}


def label(row):
    family, path, *rest = row.split("-")
    words = ("IPv6: " if family == "6" else "") + LABELS[path]
    if rest:
        flows, method = (rest + ["nat"])[:2]
        words += f", {FLOWS[flows]}" if path in WHOLE else f" {METHODS.get(method, 'NAT')}, {FLOWS[flows]}"
        if method.isdigit():
            words += f", {method} % of the ports taken" if path == "fullnat" else f", as many connections as with {method} %"
    return words


class Results:
    def __init__(self, path):
        self.kernel = None
        self.cost = collections.defaultdict(list)
        self.caches = collections.defaultdict(list)
        self.rest = {}
        if not path:
            return
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                kind, *f = line.split() or [""]
                if kind == "@kernel":
                    self.kernel = f[0]
                elif kind == "@cost":
                    self.cost[f[0]].append(float(f[2]))
                elif kind == "@memory" and f[3] == "cache":
                    self.caches[(f[0], f[1])].append((f[4], int(f[5]), float(f[6]) / int(f[2])))
                elif kind == "@memory" and f[3] == "rest":
                    self.rest[(f[0], f[1])] = int(f[4]) / int(f[2])

    def bytes(self, key):
        return sum(c[2] for c in self.caches[key]) + self.rest[key]


def typical(values):
    return statistics.median(values)


def spread(values):
    return (max(values) - min(values)) / typical(values) * 100


def beside(c, rvs):
    """By how much the second's values differ from the first's of the same pass: the middle, and between what half of them lie."""
    ratios = [(b / a - 1) * 100 for a, b in zip(c, rvs)]
    if len(ratios) < 4:
        return f"{typical(ratios):+.1f} %"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:+.1f} % ({low:+.0f} to {high:+.0f})"


def table(head, rows):
    rows = [head] + rows
    widths = [max(len(r[i]) for r in rows) for i in range(len(head))]
    out = []
    for n, r in enumerate(rows):
        out.append("| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))) + " |")
        if n == 0:
            out.append("| " + " | ".join("-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)) + " |")
    return "\n".join(out)


def base(row):
    return row[0] + "-forward"


def main():
    command, *files = sys.argv[1:]
    counted, timed = Results(files[0]), Results(files[1] if len(files) > 1 else None)
    if not counted.cost:
        print("table.py: no measurements", file=sys.stderr)
        return 2

    print("# Benchmarks\n")
    print("Written by `make bench`; don't edit.\n")
    print(f"- {time.strftime('%Y-%m-%d')}, `{command}`")
    print(f"- instructions, bytes: Linux {counted.kernel}, as Debian ships it, in QEMU with `-icount shift=0` on one processor")
    if timed.kernel:
        print(f"- time: Linux {timed.kernel}, User-Mode Linux without SMP; {max(map(len, timed.cost.values()))} passes, in each the least of four bursts for a row, C and "
              "rvs one after\n  the other and in turn first; beside forwarding, the least of all; rvs beside C, the median of the passes' differences (half "
              "of the\n  passes lie within the brackets), as the machine's speed changes by half between one row and the next")
    print("""- a client, a director and a server, each a network namespace, joined by veth; pktgen sends UDP packets (60 bytes; IPv6 78)
  and the server drops them as they arrive; a row is the cost of the whole chain, the generator and both ends included
- *established flows*: 1,000 flows in turn, all there before the count begins; *new connection per packet*: no flow twice
- all rows from one boot, C ip_vs loaded, measured and unloaded before rvs; sysctls and module parameters untouched, but for rows
  with per cent: 58,000 connections want `conn_tab_bits=20`, not the 4,096 buckets that there are at most by default
""")

    print("## Cost of a packet\n")
    rows = []
    for row, values in counted.cost.items():
        forward = counted.cost.get(base(row))
        line = [label(row), f"{typical(values):,.0f}",
                f"{typical(values) - typical(forward):+,.0f}" if forward and row != base(row) else "", f"{spread(values):.2f} %"]
        if timed.kernel:
            times, reference = timed.cost.get(row), timed.cost.get(base(row))
            line.append(f"{min(times) / min(reference):.2f}" if times and reference else "")
        rows.append(line)
    head = ["path", "instructions", "over forwarding", "spread"] + (["time, forwarding = 1"] if timed.kernel else [])
    print(table(head, rows))

    pairs = []
    for row in counted.cost:
        other = row.replace("-rvs-", "-c-")
        if other != row and other in counted.cost:
            pairs.append((row, typical(counted.cost[other]), typical(counted.cost[row])))
    worse = [row for row, c, rvs in pairs if rvs > c]
    if pairs:
        print("\n## rvs beside C ip_vs\n")
        rows = []
        for row, c, rvs in pairs:
            forward = typical(counted.cost[base(row)])
            family, _, flows, method = (row.split("-") + ["nat"])[:4]
            line = [f"{METHODS[method]}, IPv{family}, {FLOWS[flows]}", f"{c:,.0f}", f"{rvs:,.0f}", f"{rvs - c:+,.0f}", f"{(rvs / c - 1) * 100:+.1f} %",
                    f"{((rvs - forward) / (c - forward) - 1) * 100:+.1f} %"]
            if timed.kernel:
                a, b = timed.cost.get(row), timed.cost.get(row.replace("-rvs-", "-c-"))
                line.append(beside(b, a) if a and b else "")
            rows.append(line)
        head = ["instructions", "C", "rvs", "difference", "of the whole chain", "of what forwarding does not cost"] + (["time of the whole chain"] if timed.kernel else [])
        print(table(head, rows))

    fullnat = []
    for row, values in counted.cost.items():
        family, path, flows, *taken = row.split("-") + [""] * 2
        if path != "fullnat" or taken[0]:
            continue
        line = [f"IPv{family}, {FLOWS[flows]}", f"{typical(values):,.0f}"]
        for other in (f"{family}-rvs-{flows}", f"{family}-masquerade-{flows}"):
            than = counted.cost.get(other)
            line += [f"{typical(than):,.0f}", f"{(typical(values) / typical(than) - 1) * 100:+.1f} %"] if than else ["", ""]
        fullnat.append(line)
    if fullnat:
        print("\n## FullNAT beside what others do for it\n")
        print(table(["instructions", "rvs FullNAT", "rvs NAT", "difference", LABELS["masquerade"], "difference"], fullnat))

    if counted.rest:
        print("\n## Memory of a connection\n")
        rows = []
        for (peer, family), rest in counted.rest.items():
            caches = counted.caches[(peer, family)]
            rows.append([f"{'C ip_vs' if peer == 'c' else peer} NAT, IPv{family}",
                         " + ".join(f"{size} ({name})" for name, size, _ in caches),
                         f"{sum(c[2] for c in caches):.1f}", f"{rest:.1f}", f"{counted.bytes((peer, family)):.1f}"])
        print(table(["", "objects, bytes", "their slabs", "hash table and other pages", "bytes per connection"], rows))

    if timed.cost:
        print("\nnanoseconds per packet on this machine (least of all):", file=sys.stderr)
        for row, values in timed.cost.items():
            print(f"  {label(row):<46} {min(values):>8,.0f}   (spread {spread(values):.0f} %)", file=sys.stderr)
    if not pairs:
        print("\nverdict: rvs was not measured", file=sys.stderr)
        return 2
    for row in worse:
        print(f"\nverdict: rvs needs more instructions than C: {label(row)}", file=sys.stderr)
    if not worse:
        print("\nverdict: rvs needs no more instructions than C on any row", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
