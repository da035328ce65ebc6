"""A sandbox full of boot-sector guests, for the benchmarks."""

import json
import shutil
import sys
from collections.abc import Iterator
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
        if b"pvc_core.node.main" not in words:
            continue
        resident = int(re.search(r"VmRSS:\s+(\d+)", (entry / "status").read_text())[1]) / 1024
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
        threads = len(list((entry / "task").iterdir()))
    except FileNotFoundError:
        continue
    print(resident, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), threads)
"""


class DaemonFigures(NamedTuple):
    """A daemon's process."""

    rss_mib: float
    cpu_s: float
    threads: int


def tell(bench: str, name: str, value: float, **more: Any) -> None:
    """Print one figure as a JSON line."""
    print(json.dumps({"bench": bench, "name": name, "value": round(value, 3), **more}), flush=True)


def note(text: str) -> None:
    """Say what is going on, apart from the figures."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def cluster(name: str, nodes: int, **changes: Any) -> Iterator[Sandbox]:
    """Make a sandbox with an empty pool, and remove it at the end."""
    sandbox = Sandbox(f"bench-{name}")
    sandbox.down()
    try:
        sandbox.up(nodes, report=note, **changes)
        pool = sandbox.shared / POOL
        pool.mkdir()
        sandbox.pvc("storage", "pool", "add", POOL, "-d", "dir", "-p", f"path={pool}")
        yield sandbox
    finally:
        sandbox.down()


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


def daemon_figures(sandbox: Sandbox, node: str) -> DaemonFigures:
    """Return the figures of a node's daemon now."""
    said = sandbox.exec(node, [sys.executable, "-c", _FIGURES]).check().stdout.split()
    return DaemonFigures(float(said[0]), float(said[1]), int(said[2]))


def zookeeper_writes(sandbox: Sandbox, node: str) -> int:
    """Return the number of transactions of this ZooKeeper server's term so far."""
    facts = zookeeper.facts(sandbox.layout, sandbox.layout.node_number(node))
    return int(facts["Zxid"], 16) & 0xFFFFFFFF
