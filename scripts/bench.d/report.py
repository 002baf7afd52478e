#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Shows what profile.c has counted.

report.py FILE COUNT ROW... [--text ADDRESS --ko FILE.ko] [--least N]

FILE holds one run per ROW, each of COUNT packets. Printed: the functions of all rows side by side; for each row with a load
balancer the calls within it; and for rvs, whose .text the guest had at ADDRESS, its own code with inlined functions told apart,
from the debug information in FILE.ko.
"""

import argparse
import bisect
import collections
import re
import subprocess


class Node:
    """A function on one call path."""

    def __init__(self, symbol, module):
        self.symbol, self.module = symbol, module
        self.calls = self.own = 0
        self.children = []


class Item:
    """What several nodes add up to."""

    def __init__(self):
        self.calls = self.own = 0
        self.children = collections.defaultdict(Item)

    def total(self):
        return self.own + sum(c.total() for c in self.children.values())


def read(path):
    runs = []
    with open(path, encoding="ascii") as file:
        for line in file:
            kind, *f = line.rstrip("\n").split("\t")
            if kind == "run":
                nodes = {0: Node("", "")}
                blocks = []
                runs.append((nodes[0], blocks))
            elif kind == "block":
                blocks.append((int(f[0], 16), int(f[1]), int(f[2])))
            else:
                node = nodes[int(f[0])] = Node(f[2], f[3])
                node.calls, node.own = int(f[4]), int(f[5])
                nodes[int(f[1])].children.append(node)
    return runs


def is_interrupt(node):
    return node.symbol.startswith("asm_")


def topmost(node, wanted):
    """The nodes that `wanted` accepts with nothing accepted above them; not what interrupted them."""
    for child in node.children:
        if is_interrupt(child):
            continue
        if wanted(child):
            yield child
        else:
            yield from topmost(child, wanted)


def walk(node):
    yield node
    for child in node.children:
        if not is_interrupt(child):
            yield from walk(child)


def demangle(names):
    names = sorted(names)
    out = subprocess.run(["c++filt", "-i"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return {name: re.sub(r"\[[0-9a-f]{16}\]", "", text) for name, text in zip(names, out.split("\n"))}


def short(text, width):
    return text if len(text) <= width else text[: width - 1] + "…"


def labelled(module, text):
    return text + (f" [{module}]" if module else "")


def balancer(row):
    return {"c": "ip_vs", "rvs": "rvs", "fullnat": "rvs"}.get(row.split("-")[1])


def side_by_side(rows, count, least, plain):
    table = collections.defaultdict(lambda: [[0, 0] for _ in rows])
    modules = collections.defaultdict(lambda: [0.0] * len(rows))
    sums = [0.0] * len(rows)
    for i, (_, (root, _)) in enumerate(rows):
        for start in topmost(root, lambda n: n.symbol == "pktgen_thread_worker"):
            for node in walk(start):
                cell = table[(node.module, plain[node.symbol])][i]
                cell[0] += node.own
                cell[1] += node.calls
                modules[node.module or "kernel"][i] += node.own / count
                sums[i] += node.own / count

    def line(label, values):
        print(f"{short(label, 66):<68}" + "".join(values))

    print("Instructions per packet by function: its own, and how often it was called for a packet. Only what")
    print(f"differs between the rows by {least:g} or more. Interrupts and other tasks are left out.\n")
    line("", [f"{name:>18}" for name, _ in rows])
    line("all", [f"{s:>10.1f}{'':8}" for s in sums])
    for module, values in sorted(modules.items(), key=lambda m: -max(m[1])):
        if max(values) >= least:
            line("  " + module, [f"{v:>10.1f}{'':8}" for v in values])
    print()

    def spread(cells):
        values = [c[0] / count for c in cells]
        return max(values) - min(values) if len(values) > 1 else values[0]

    for (module, name), cells in sorted(table.items(), key=lambda t: -spread(t[1])):
        if spread(cells) >= least:
            line(labelled(module, name),
                 [f"{c[0] / count:>10.1f}{c[1] / count:>7.2f}x" if c[0] else f"{'-':>10}{'':8}" for c in cells])
    print()


def show(items, count, depth=0):
    for (module, text), item in sorted(items.items(), key=lambda i: -i[1].total()):
        total = item.total() / count
        if total < 0.5:
            continue
        calls = f"{item.calls / count:.2f}x" if item.calls else ""
        print(f"{total:>9.1f}{item.own / count:>9.1f}{calls:>8}  {short('  ' * depth + labelled(module, text), 140)}")
        show(item.children, count, depth + 1)


def calls(name, root, module, count, plain):
    entries = collections.defaultdict(Item)

    def merge(into, node):
        into.calls += node.calls
        into.own += node.own
        for child in node.children:
            if not is_interrupt(child):
                merge(into.children[(child.module, plain[child.symbol])], child)

    for start in topmost(root, lambda n: n.symbol == "pktgen_thread_worker"):
        for node in topmost(start, lambda n: n.module == module or n.module.startswith(module + "_")):
            merge(entries[(node.module, plain[node.symbol])], node)
    whole = sum(e.total() for e in entries.values()) / count
    print(f"{name}: from where the packet enters {module}: {whole:.1f} instructions per packet\n")
    print(f"{'with all':>9}{'own':>9}{'called':>8}")
    show(entries, count)
    print()


def symbolize(ko, addresses):
    """For each address its frames, innermost first: (function, file:line)."""
    out = subprocess.run(
        ["llvm-symbolizer", "--obj", ko, "--inlines", "--relativenames", "--output-style=LLVM", "-C"],
        input="".join(f"{a:#x}\n" for a in addresses), capture_output=True, text=True, check=True).stdout
    for record in out.strip("\n").split("\n\n"):
        lines = [re.sub(r"\[[0-9a-f]{16}\]", "", line) for line in record.split("\n")]
        yield list(zip(lines[0::2], lines[1::2]))


def inlined(name, blocks, base, ko, count, least):
    text = subprocess.run(["objdump", "-d", "-j", ".text", "--no-show-raw-insn", ko], capture_output=True, text=True, check=True)
    addresses = [int(m.group(1), 16) for m in re.finditer(r"^\s*([0-9a-f]+):\t", text.stdout, re.M)]
    times_of = collections.Counter()
    for address, n, times in blocks:
        offset = address - base
        if 0 <= offset <= addresses[-1]:
            i = bisect.bisect_left(addresses, offset)
            for a in addresses[i : i + n]:
                times_of[a] += times
    functions = collections.defaultdict(Item)
    lines = collections.Counter()
    sources = re.compile(r"(^|/)(rvs/[a-z0-9_/]+\.(rs|c|h):\d+)")
    library = re.compile(r"(^|/)(library|rust)/")
    for (_, times), frames in zip(times_of.items(), symbolize(ko, times_of)):
        items = functions
        # The standard library's parts count for those who use them.
        for function, _ in reversed([f for f in frames if not library.search(f[1])] or frames[-1:]):
            item = items[("", function)]
            items = item.children
        item.own += times
        where = next((m.group(2) for _, place in frames if (m := sources.search(place))), frames[0][1])
        lines[where] += times
    print(f"{name}: rvs.ko's own instructions per packet, inlined functions below those that they are in\n")
    print(f"{'with all':>9}{'own':>9}")
    show(functions, count)
    print(f"\n{name}: the same by the innermost source line of rvs\n")
    for where, times in lines.most_common():
        if times / count >= least:
            print(f"{times / count:>9.1f}  {where}")
    print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("count", type=int)
    parser.add_argument("row", nargs="+")
    parser.add_argument("--least", type=float, default=2.0)
    parser.add_argument("--text", help="where rvs.ko's .text was in the guest")
    parser.add_argument("--ko")
    args = parser.parse_args()
    runs = read(args.file)
    if len(runs) != len(args.row):
        raise SystemExit(f"report.py: {len(runs)} runs for {len(args.row)} rows")
    rows = list(zip(args.row, runs))
    plain = demangle({n.symbol for _, (root, _) in rows for n in walk(root)})
    side_by_side(rows, args.count, args.least, plain)
    for name, (root, blocks) in rows:
        if balancer(name):
            calls(name, root, balancer(name), args.count, plain)
        if balancer(name) == "rvs" and args.text and args.ko:
            inlined(name, blocks, int(args.text, 16), args.ko, args.count, args.least)


main()
