#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Shows what profile.c has counted.

report.py FILE COUNT ROW... [--module NAME=FILE.ko] [--least N]

FILE holds one run per ROW, each of COUNT packets. Printed: functions of all rows side by side, then for each row with a load
balancer the calls within it, then the source lines of the module's own instructions where FILE.ko has debug information.
"""

import argparse
import collections
import re
import subprocess


class Node:
    def __init__(self, symbol, module, parent):
        self.symbol, self.module, self.parent = symbol, module, parent
        self.calls = self.own = 0
        self.children = []

    def total(self):
        return self.own + sum(c.total() for c in self.children)


def read(path):
    runs = []
    with open(path) as file:
        for line in file:
            kind, *f = line.rstrip("\n").split("\t")
            if kind == "run":
                nodes = {0: Node("", "", None)}
                blocks = []
                runs.append((nodes[0], blocks))
            elif kind == "block":
                blocks.append((int(f[0], 16), int(f[1]), int(f[2])))
            else:
                parent = nodes[int(f[1])]
                node = nodes[int(f[0])] = Node(f[2], f[3], parent)
                node.calls, node.own = int(f[4]), int(f[5])
                parent.children.append(node)
    return runs


def walk(node):
    yield node
    for child in node.children:
        yield from walk(child)


def demangle(names):
    names = sorted(names)
    # The kernel's own suffixes (.cold, .llvm.123) stay.
    out = subprocess.run(["c++filt", "-i"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    plain = {}
    for name, text in zip(names, out.split("\n")):
        text = re.sub(r"\[[0-9a-f]{16}\]", "", text)
        plain[name] = re.sub(r"^_?R?NvX?.*$", text, text) if text == name else text
    return plain


def short(text, width):
    return text if len(text) <= width else text[: width - 1] + "…"


def module_of(row):
    return {"c": "ip_vs", "rvs": "rvs"}.get(row.split("-")[1])


def side_by_side(rows, count, least, plain):
    table = collections.defaultdict(lambda: [[0, 0] for _ in rows])
    for i, (_, (root, _)) in enumerate(rows):
        for node in walk(root):
            cell = table[(node.module, plain[node.symbol])][i]
            cell[0] += node.own
            cell[1] += node.calls
    print("Instructions per packet by function (its own, in brackets how often it was called per packet);")
    print(f"only what differs between the rows by {least} or more, all of the balancer's\n")
    head = "".join(f"{name:>20}" for name, _ in rows)
    print(f"{'function':<60}{head}")
    sums = [sum(cells[i][0] for cells in table.values()) / count for i in range(len(rows))]
    print(f"{'all':<60}" + "".join(f"{s:>12.1f}{'':8}" for s in sums))
    modules = collections.defaultdict(lambda: [0.0] * len(rows))
    for (module, _), cells in table.items():
        for i, cell in enumerate(cells):
            modules[module or "kernel"][i] += cell[0] / count
    for module, values in sorted(modules.items(), key=lambda m: -max(m[1])):
        if max(values) >= 1:
            print(f"{'  in ' + module:<60}" + "".join(f"{v:>12.1f}{'':8}" for v in values))
    print()

    def spread(cells):
        values = [c[0] / count for c in cells]
        return max(values) - min(values)

    for (module, name), cells in sorted(table.items(), key=lambda t: -spread(t[1])):
        if spread(cells) < (0.5 if module in ("ip_vs", "rvs") else least):
            continue
        label = name + (f" [{module}]" if module else "")
        line = "".join(f"{c[0] / count:>12.1f}{'(%.2f)' % (c[1] / count) if c[0] else '':>8}" for c in cells)
        print(f"{short(label, 58):<60}{line}")
    print()


def tree(name, root, module, count, plain):
    """The calls below the module's entries, paths to them left out."""
    entries = {}

    def merge(into, node):
        into["calls"] += node.calls
        into["own"] += node.own
        for child in node.children:
            if child.symbol.startswith("asm_"):
                continue
            key = (child.module, plain[child.symbol])
            merge(into["children"].setdefault(key, {"calls": 0, "own": 0, "children": {}}), child)

    def find(node):
        if node.symbol.startswith("asm_"):
            return
        if node.module == module or node.module.startswith(module + "_"):
            key = (node.module, plain[node.symbol])
            merge(entries.setdefault(key, {"calls": 0, "own": 0, "children": {}}), node)
            return
        for child in node.children:
            find(child)

    def total(item):
        return item["own"] + sum(total(c) for c in item["children"].values())

    def show(items, depth):
        for (mod, text), item in sorted(items.items(), key=lambda i: -total(i[1])):
            everything = total(item) / count
            if everything < 1:
                continue
            label = "  " * depth + text + (f" [{mod}]" if mod else "")
            print(f"{everything:>9.1f}{item['own'] / count:>9.1f}{item['calls'] / count:>7.2f}  {short(label, 120)}")
            show(item["children"], depth + 1)

    find(root)
    whole = sum(total(e) for e in entries.values()) / count
    print(f"{name}: within {module}'s functions, {whole:.1f} instructions per packet\n")
    print(f"{'with all':>9}{'own':>9}{'calls':>7}")
    show(entries, 0)
    print()


def lines(name, blocks, base, size, ko, count, least):
    """Instructions by source line of the module, inlined functions under their own file."""
    inside = [(address - base, n, times) for address, n, times in blocks if base <= address < base + size]
    if not inside:
        return
    # Every instruction's address from the disassembly.
    text = subprocess.run(["objdump", "-d", "-j", ".text", "--no-show-raw-insn", ko], capture_output=True, text=True, check=True)
    addresses = [int(m.group(1), 16) for m in re.finditer(r"^\s*([0-9a-f]+):\t", text.stdout, re.M)]
    place = {a: i for i, a in enumerate(addresses)}
    counts = collections.Counter()
    for offset, n, times in inside:
        i = place.get(offset)
        if i is None:
            continue
        for address in addresses[i : i + n]:
            counts[address] += times
    found = subprocess.run(
        ["llvm-symbolizer", "--obj", ko, "--inlines", "--relativenames", "--output-style=GNU", "--functions=linkage", "-C"]
        + [hex(a) for a in counts],
        capture_output=True, text=True, check=True,
    ).stdout.rstrip("\n")
    by_line, by_function = collections.Counter(), collections.Counter()
    records = found.split("\n\n") if "\n\n" in found else []
    if len(records) != len(counts):
        # One record has two lines per frame, without a separator between records: ask one by one.
        records = []
        for address in counts:
            records.append(subprocess.run(
                ["llvm-symbolizer", "--obj", ko, "--inlines", "--relativenames", "--output-style=GNU", "-C", hex(address)],
                capture_output=True, text=True, check=True).stdout.strip())
    for (address, times), record in zip(counts.items(), records):
        frames = record.split("\n")
        pairs = list(zip(frames[0::2], frames[1::2]))
        where = re.sub(r"^.*?/(rvs/|library/|rust/)", r"\1", pairs[0][1]).split(" (")[0]
        by_line[where] += times
        by_function[re.sub(r"\[[0-9a-f]{16}\]", "", pairs[0][0])] += times
    print(f"{name}: the module's own instructions per packet, by function before inlining\n")
    for function, times in by_function.most_common():
        if times / count >= least:
            print(f"{times / count:>9.1f}  {short(function, 120)}")
    print(f"\n{name}: the same by source line\n")
    for where, times in by_line.most_common(80):
        if times / count >= least:
            print(f"{times / count:>9.1f}  {where}")
    print()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("count", type=int)
    parser.add_argument("row", nargs="+")
    parser.add_argument("--least", type=float, default=3.0)
    parser.add_argument("--text", help="start of rvs.ko's .text in the guest")
    parser.add_argument("--ko")
    args = parser.parse_args()
    runs = read(args.file)
    if len(runs) != len(args.row):
        raise SystemExit(f"report.py: {len(runs)} runs for {len(args.row)} rows")
    rows = list(zip(args.row, runs))
    plain = demangle({n.symbol for _, (root, _) in rows for n in walk(root)})
    side_by_side(rows, args.count, args.least, plain)
    for name, (root, blocks) in rows:
        module = module_of(name)
        if not module:
            continue
        tree(name, root, module, args.count, plain)
        if module == "rvs" and args.text and args.ko:
            lines(name, blocks, int(args.text, 16), 1 << 22, args.ko, args.count, 1.0)


main()
