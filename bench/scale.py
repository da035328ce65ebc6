"""./dev bench scale: 100 nodes and 5,000 VMs in a real ZooKeeper, and a daemon with 50 idle guests.

Prints one JSON object per line.  Times of commands are those of the whole process, from its start to its
end; each is the median of several runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _cluster
from _cluster import cluster, daemon_figures, start_guests, zookeeper_writes

from pvc_core.model.network import NetworkSpec
from pvc_core.model.node import (
    GuestUsage,
    Lease,
    LeaseGeneration,
    Memory,
    NodeSpec,
    NodeStatus,
    NodeUsage,
    PluginStatus,
)
from pvc_core.model.storage import PoolSpec, VolumeSpec, VolumeState, VolumeStatus
from pvc_core.model.vm import Disk, Nic, Tag, VmClaim, VmSpec, VmState, VmStatus, started_with
from pvc_core.ops.context import Ops
from pvc_core.ops.snapshot import read_cluster
from pvc_core.ops.vm_define import vm_define
from pvc_core.ops.vm_definition import VmDefine
from pvc_core.plan.placement import CORE_POLICY, place
from pvc_core.store import keys, schema
from pvc_core.store.api import Create, Operation, Store
from pvc_core.store.documents import create
from pvc_core.testkit.zookeeper import ZooKeeperEnsemble

PVC = Path(sys.executable).with_name("pvc")
BATCH = 200
GUESTS = 50
IDLE_S = 60.0
"""How long the daemon with idle guests is watched."""


def tell(name: str, value: float, **more: Any) -> None:
    """Print one figure."""
    _cluster.tell("scale", name, value, **more)


# --- filling the tree -------------------------------------------------------------------------------


def documents(nodes: int, vms: int) -> Iterator[Operation]:
    """Yield the documents of a cluster in which every VM runs with one disk and one NIC."""
    pool = PoolSpec(id=str(uuid.uuid4()), name="ssd", driver="dir", parameters={"path": "/srv/pvc"}, node="node001")
    network = NetworkSpec(id=str(uuid.uuid4()), name="lan", driver="bridge")
    yield create(keys.pool_spec(pool.id), pool)
    yield create(keys.network_spec(network.id), network)
    for kind, id_, name in (("pool", pool.id, "ssd"), ("network", network.id, "lan")):
        yield Create(keys.name(kind, name), id_.encode())
        yield Create(keys.ref(kind, id_), b"")
    placed: dict[str, list[str]] = {f"node{n + 1:03}": [] for n in range(nodes)}
    names = sorted(placed)
    for number in range(vms):
        node = names[number % nodes]
        vm = str(uuid.UUID(int=number + 1))
        placed[node].append(vm)
        yield from virtual_machine(vm, number, node, pool, network)
    for number, node in enumerate(names):
        yield from host(node, number, placed[node], coordinator=number < 3)


def virtual_machine(vm: str, number: int, node: str, pool: PoolSpec, network: NetworkSpec) -> Iterator[Operation]:
    """Yield the documents of one VM with its volume."""
    name = f"vm{number:05}"
    spec = VmSpec(
        id=vm,
        name=name,
        memory_mib=2048,
        vcpus=2,
        power="running",
        node=node,
        disks=(Disk(pool="ssd", volume=name),),
        nics=(Nic(network="lan", mac="52:54:00:" + ":".join(f"{number:06x}"[i : i + 2] for i in (0, 2, 4))),),
        tags=(Tag(name="web"), Tag(name="customer-42", protected=True)),
        description="a web server of some customer",
    )
    status = VmStatus(
        id=vm,
        state=VmState.RUNNING,
        node=node,
        observed_generation=1,
        accelerator="kvm",
        **started_with(spec),
    )
    volume = VolumeSpec(id=vm, name=name, pool="ssd", size_bytes=20 << 30, node=node)
    yield create(keys.vm_spec(vm), spec)
    yield create(keys.vm_status(vm), status)
    yield create(keys.claim(vm), VmClaim(vm=vm, node=node, lease=1, epoch=1))
    yield Create(keys.name("vm", name), vm.encode())
    yield Create(f"{keys.ref('network', network.id)}/{vm}", b"")
    yield create(keys.volume_spec(vm), volume)
    yield create(keys.volume_status(vm), VolumeStatus(id=vm, state=VolumeState.READY, name=name, size_bytes=20 << 30))
    yield Create(keys.volume_name("ssd", name), vm.encode())
    yield Create(keys.ref("volume", vm), b"")
    yield Create(keys.volume_holder(vm), vm.encode())
    yield Create(f"{keys.ref('pool', pool.id)}/{vm}", b"")


def host(node: str, number: int, vms: list[str], *, coordinator: bool) -> Iterator[Operation]:
    """Yield the documents of one node."""
    role = "coordinator" if coordinator else "hypervisor"
    yield create(keys.node_spec(node), NodeSpec(id=node, role=role))
    yield create(keys.generation(node), LeaseGeneration(node=node, generation=1))
    yield create(keys.lease(node), Lease(node=node, generation=1, holder=node))
    yield create(
        keys.node_status(node),
        NodeStatus(
            id=node,
            role=role,
            daemon="running",
            lease=1,
            address=f"10.0.{number // 250}.{number % 250 + 1}",
            version="0.1.0",
            kernel="6.1.0",
            architecture="x86_64",
            hypervisor="libvirt 9.0.0",
            cpus=64,
            memory=Memory(total_mib=262144, reserved_mib=4096, free_mib=120000 + number),
            load1=3.5,
            running=tuple(vms),
            allocated_mib=2048 * len(vms),
            allocated_vcpus=2 * len(vms),
            plugins=(
                PluginStatus(name="dir", state="healthy", capabilities=("storage:dir",)),
                PluginStatus(name="bridge", state="healthy", capabilities=("network:bridge",)),
            ),
        ),
    )
    figures = GuestUsage(cpu_percent=12.5, memory_used_mib=1500, disk_read_bytes=1 << 33, net_rx_bytes=1 << 32)
    yield create(keys.usage(node), NodeUsage(id=node, guests=dict.fromkeys(vms, figures)))


def fill(store: Store, nodes: int, vms: int) -> int:
    """Write the whole cluster; returns the number of documents."""
    schema.initialise(store)
    batch: list[Operation] = []
    count = 0
    for operation in documents(nodes, vms):
        batch.append(operation)
        count += 1
        if len(batch) == BATCH:
            store.commit(*batch)
            batch = []
    store.commit(*batch)
    return count


# --- measuring --------------------------------------------------------------------------------------


def median_s(call: Callable[[], object], runs: int) -> float:
    """Return the median duration of a call in seconds."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def command(config: Path, *words: str) -> Callable[[], str]:
    """Return a call of a pvc process that must succeed, and returns its output."""

    def run() -> str:
        done = subprocess.run([PVC, "-c", config, *words], check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"pvc {' '.join(words)} ended with status {done.returncode}: {done.stderr}")
        return done.stdout

    return run


def lists(nodes: int, vms: int, runs: int) -> None:
    """Measure the commands and operations on the filled tree."""
    with (
        tempfile.TemporaryDirectory(prefix="pvc-bench-") as directory,
        ZooKeeperEnsemble(Path(directory), tick_ms=2000, heap_mib=512) as ensemble,
    ):
        store = ensemble.connect(session_timeout_s=30.0)
        begun = time.perf_counter()
        count = fill(store, nodes, vms)
        tell("filled", time.perf_counter() - begun, unit="s", documents=count, nodes=nodes, vms=vms)
        config = Path(directory) / "pvc.yml"
        address, _, port = ensemble.hosts[0].partition(":")
        config.write_text(
            f"cluster:\n  coordinators:\n    - {{name: node001, address: {address}}}\n  zookeeper: {{port: {port}}}\n"
        )
        figures: list[tuple[str, tuple[str, ...], float | None]] = [
            ("vm_list_s", ("vm", "list", "--format", "json"), 36.8),
            ("node_list_s", ("node", "list", "--format", "json"), 0.82),
            ("cluster_status_s", ("cluster", "status", "--format", "json"), 5.1),
            ("vm_info_s", ("vm", "info", f"vm{vms // 2:05}", "--format", "json"), 1.6),
        ]
        for name, words, before in figures:
            run = command(config, *words)
            size = len(run())
            tell(name, median_s(run, runs), unit="s", bytes=size, predecessor=before)
        if len(json.loads(command(config, "vm", "list", "--format", "json")())) != vms:
            raise SystemExit("the list is not complete")
        ops = Ops(store)
        operations(ops, vms)
        store.close()


def operations(ops: Ops, vms: int) -> None:
    """Measure one placement and one definition, without process start."""
    views = read_cluster(ops).views()
    wanted = VmSpec(id="new", name="new", memory_mib=2048, vcpus=2)
    needs = frozenset({"storage:dir", "network:bridge"})
    decision = place(wanted, views, CORE_POLICY, needs)
    if decision.node is None or decision.reasons:
        raise SystemExit(f"every node should fit: {decision}")
    tell(
        "placement_ms",
        1000 * median_s(lambda: place(wanted, views, CORE_POLICY, needs), 50),
        unit="ms",
        predecessor=95,
        note="the decision alone, on a snapshot",
    )
    tell("snapshot_ms", 1000 * median_s(lambda: read_cluster(ops), 5), unit="ms", note="reading all nodes and VMs")
    numbers = iter(range(1000))
    define = lambda: vm_define(ops, VmDefine(name=f"new{next(numbers):03}", memory=512))  # noqa: E731
    tell("define_ms", 1000 * median_s(define, 20), unit="ms", vms=vms)


def help_page(runs: int) -> None:
    """Measure `pvc --help`."""
    run = lambda: subprocess.run([PVC, "--help"], check=True, capture_output=True)  # noqa: E731
    run()
    bare = median_s(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), runs)
    tell("cli_help_ms", 1000 * median_s(run, runs), unit="ms", bare_python_ms=round(1000 * bare, 1))
    count = "import sys; sys.argv = ['pvc', '--help']\nfrom pvc_core.cli.main import main\n"
    count += "try: main()\nexcept SystemExit: pass\nprint(len(sys.modules), file=sys.stderr)"
    bare_modules = subprocess.run(
        [sys.executable, "-c", "import sys; print(len(sys.modules))"], check=True, capture_output=True, text=True
    ).stdout
    modules = subprocess.run([sys.executable, "-c", count], check=True, capture_output=True, text=True).stderr
    tell(
        "cli_help_modules", int(modules.split()[-1]) - int(bare_modules), unit="modules", bare_python=int(bare_modules)
    )


# --- the daemon -------------------------------------------------------------------------------------


def daemon(guests: int, idle_s: float) -> None:
    """Measure a daemon with idle guests in a sandbox of one node."""
    with cluster("scale", 1) as sandbox:
        node = sandbox.nodes()[0]
        before_guests = daemon_figures(sandbox, node)
        begun = time.monotonic()
        start_guests(sandbox, guests, node)
        tell("guests_started_s", time.monotonic() - begun, unit="s", guests=guests)
        before, writes = daemon_figures(sandbox, node), zookeeper_writes(sandbox, node)
        begun = time.monotonic()
        time.sleep(idle_s)  # the length of the measurement itself
        after, more = daemon_figures(sandbox, node), zookeeper_writes(sandbox, node)
        spent = time.monotonic() - begun
    tell("daemon_rss_mib", after.rss_mib, unit="MiB", guests=guests, without_guests=round(before_guests.rss_mib, 1))
    tell("daemon_threads", after.threads, unit="threads", guests=guests)
    tell("daemon_cpu_percent", 100 * (after.cpu_s - before.cpu_s) / spent, unit="% of one CPU", guests=guests)
    tell("zk_writes_per_node_per_minute", (more - writes) * 60 / spent, unit="1/min", guests=guests)


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--vms", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--guests", type=int, default=GUESTS, help="0: without the daemon")
    parser.add_argument("--idle", type=float, default=IDLE_S, metavar="SECONDS")
    options = parser.parse_args()
    help_page(4 * options.runs)
    lists(options.nodes, options.vms, options.runs)
    if options.guests:
        daemon(options.guests, options.idle)


if __name__ == "__main__":
    main()
