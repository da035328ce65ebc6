"""A sandbox full of boot-sector guests, for the benchmarks."""

import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from pvc_sandbox import zookeeper
from pvc_sandbox.images import boot_sector
from pvc_sandbox.sandbox import Sandbox

POOL = "bench"

_FIGURES = r"""
import os, pathlib, re, sys
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (entry / "cmdline").read_bytes().split(b"\0")
        if (b"-m", sys.argv[1].encode()) not in zip(words, words[1:]):
            continue
        resident = int(re.search(r"VmRSS:\s+(\d+)", (entry / "status").read_text())[1]) / 1024
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        threads = len(list((entry / "task").iterdir()))
    except FileNotFoundError:
        continue
    print(entry.name, resident, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), threads)
"""


class ProcessFigures(NamedTuple):
    """A process."""

    pid: int
    rss_mib: float
    cpu_s: float
    threads: int


def tell(bench: str, name: str, value: float, **more: Any) -> None:
    """Print one figure as a JSON line."""
    print(json.dumps({"bench": bench, "name": name, "value": round(value, 3), **more}), flush=True)


def tell_all(bench: str, name: str, values: Sequence[float], **more: Any) -> None:
    """Print the median of some measurements, their 95th percentile, and how many they are."""
    p95 = statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    tell(bench, name, statistics.median(values), p95=round(p95, 3), runs=len(values), **more)


def note(text: str) -> None:
    """Say what is going on, apart from the figures."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def own_sandbox(name: str, nodes: int, **changes: Any) -> Iterator[Sandbox]:
    """Make a sandbox, and remove it at the end; first what a run that was killed left of it."""
    sandbox = Sandbox(f"bench-{name}")
    sandbox.down()
    try:
        sandbox.up(nodes, report=note, **changes)
        yield sandbox
    finally:
        sandbox.down()


@contextmanager
def cluster(name: str, nodes: int, **changes: Any) -> Iterator[Sandbox]:
    """Make a sandbox with an empty pool of image files, and remove it at the end."""
    with own_sandbox(name, nodes, **changes) as sandbox:
        pool = sandbox.shared / POOL
        pool.mkdir()
        sandbox.pvc("storage", "pool", "add", POOL, "-d", "dir", "-p", f"path={pool}")
        yield sandbox


def start_guests(sandbox: Sandbox, count: int, node: str) -> list[str]:
    """Start that many boot-sector guests on a node, each with a disk of its own, and return their names."""
    names = [f"guest{number:02}" for number in range(count)]
    image = sandbox.shared / "boot.raw"
    shutil.copy(boot_sector(), image)
    sandbox.pvc("storage", "volume", "import", f"{POOL}/golden", str(image))
    definitions = sandbox.shared / "guests.yml"
    for name in names:
        sandbox.pvc("storage", "volume", "clone", f"{POOL}/golden", name)
    definitions.write_text(
        "\n---\n".join(
            json.dumps(
                {
                    "name": name,
                    "memory": 16,
                    "accelerator": "tcg",
                    "node": node,
                    "disks": [{"pool": POOL, "volume": name}],
                    "start": True,
                }
            )
            for name in names
        )
    )
    sandbox.pvc("vm", "define", str(definitions), deadline_s=300.0)
    return names


def process_figures(sandbox: Sandbox, node: str, module: str) -> list[ProcessFigures]:
    """Return the figures now of a node's processes that execute this module."""
    said = sandbox.exec(node, [sys.executable, "-c", _FIGURES, module]).check().stdout
    lines = [line.split() for line in said.splitlines()]
    return [ProcessFigures(int(pid), float(rss), float(cpu), int(threads)) for pid, rss, cpu, threads in lines]


def daemon_figures(sandbox: Sandbox, node: str) -> ProcessFigures:
    """Return the figures of a node's daemon now."""
    (daemon,) = process_figures(sandbox, node, "pvc_core.node.main")
    return daemon


def zookeeper_writes(sandbox: Sandbox, node: str) -> int:
    """Return the number of transactions of this ZooKeeper server's term so far."""
    facts = zookeeper.facts(sandbox.layout, sandbox.layout.node_number(node))
    return int(facts["Zxid"], 16) & 0xFFFFFFFF
