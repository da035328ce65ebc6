"""One seeded run: trouble for a while, then peace, then everything must be as wanted."""

import contextlib
import math
import random
from collections.abc import Collection
from typing import NamedTuple

from pvc_core.model.errors import PvcError
from pvc_core.ops.cluster import ClusterSettings, cluster_settings
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.disks import DiskRequests
from pvc_core.testkit.simulator.fate import Fate
from pvc_core.testkit.simulator.invariants import Violation
from pvc_core.testkit.simulator.loss import Figures, Loss
from pvc_core.testkit.simulator.node import NodeSetup
from pvc_core.testkit.simulator.operators import VM_MIB, Operators
from pvc_core.testkit.simulator.quiet import Quiet
from pvc_core.testkit.simulator.settled import check_settled

TROUBLE_S = 120.0
"""Virtual time in which requests and faults come."""
PEACE_S = 900.0
"""Virtual time after the last of them in which everything must have become as wanted."""
LOOK_S = 60.0
"""Whether it has is looked at this often."""
RESERVED_MIB = 1024
"""Of each node, for the host itself."""

_LEVELS = (
    ((("bmc",),), 10),
    ((("bmc",), ("pdu-a",)), 3),
    ((("pdu-a", "pdu-b"),), 2),
    ((("bmc",), ("pdu-a", "pdu-b")), 1),
    ((), 4),
)


class Run(NamedTuple):
    """What happened in a run that kept all invariants."""

    seed: int
    kind: str
    """``storm``: many faults and requests; ``loss``: nodes die at one moment, and their VMs' bound is watched."""
    nodes: int
    vms: int
    steps: int
    virtual_s: float
    requests: int
    refused: int
    faults: dict[str, int]
    proofs: dict[str, int]
    revoked: int
    fence_calls: int
    late_kills: int
    figures: tuple[Figures, ...]
    trace: tuple[str, ...]


class Failed(AssertionError):
    """A run that broke an invariant; the message ends with the trace."""


def run(seed: int, *, only: Collection[str] = (), verbose: bool = False) -> Run:
    """Run one seed.  Raises Failed with a readable trace, with all that the daemons logged; ``verbose``: in any case.

    ``only``: a storm of these faults; without, every third run is a loss.
    """
    try:
        return _run(seed, only, verbose=verbose)
    except Failed as first:
        if verbose:
            raise
        try:
            _run(seed, only, verbose=True)
        except Failed as second:
            if _what(second) == _what(first):
                raise second from None
            raise Failed(f"{first}\n\nIT FAILED IN ANOTHER WAY WHEN IT WAS REPEATED:\n{second}") from None
        raise Failed(f"{first}\n\nIT DID NOT FAIL WHEN IT WAS REPEATED") from None


def _what(failure: Failed) -> str:
    return str(failure).partition("\n")[0]


def _run(seed: int, only: Collection[str], *, verbose: bool) -> Run:
    rng = random.Random(seed ^ 0x5EED)  # noqa: S311  (a seeded run, not a secret)
    vms = rng.choice((10, 10, 20, 20, 20, 20, 30, 40)) if rng.random() < 0.98 else 200
    tight = rng.random() < 0.15
    nodes = _setups(rng, vms if tight else 0)
    cluster = Cluster(seed, nodes, verbose=verbose)
    operators = Operators(cluster, vms, disks=rng.choice((0.0, 0.0, 0.0, 0.7, 1.0)))
    disks = DiskRequests(cluster, operators.pool, seed) if operators.pool is not None else None
    fate, loss = Fate(cluster, only), Loss(cluster, rng, tight=tight)
    kind = "loss" if seed % 3 == 0 and not only else "storm"
    cluster.later(4.0, "", operators.set_levels)
    for _ in range(vms * 3 // 4):
        cluster.later(rng.uniform(5.0, 12.0), "", lambda: _quietly(operators))
    try:
        with cluster.trace.listening():
            steps = _lose(cluster, loss) if kind == "loss" else _storm(cluster, operators, fate, rng, disks)
            cluster.note("everything is repaired, and every node is put back into service")
            fate.make_peace()
            operators.end_maintenance()
            steps += _settle(cluster, fate, operators)
    except AssertionError as error:
        lines = "\n".join(cluster.trace.lines)
        raise Failed(f"seed {seed}: {error}\n\ntrace of seed {seed}:\n{lines}") from error
    finally:
        cluster.close()
    return Run(
        seed=seed,
        kind=kind,
        nodes=len(nodes),
        vms=len(cluster.invariants.vms),
        steps=steps,
        virtual_s=cluster.elapsed,
        requests=operators.done,
        refused=operators.refused,
        faults=fate.struck if kind == "storm" else loss.kinds,
        proofs=cluster.invariants.proofs,
        revoked=cluster.invariants.revoked,
        fence_calls=cluster.truth.fence_calls,
        late_kills=cluster.truth.late_kills,
        figures=tuple(loss.figures),
        trace=tuple(cluster.trace.lines),
    )


def _setups(rng: random.Random, tight: int) -> list[NodeSetup]:
    """Return the nodes of a cluster, 3 to 9; ``tight``: with room for so many VMs, and hardly more."""
    count = rng.choice((3, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9))
    memory_mib = RESERVED_MIB + VM_MIB * math.ceil(1.2 * tight / count) if tight else 65536
    coordinators = 5 if count >= 5 and rng.random() < 0.3 else 3
    levels = [level for level, weight in _LEVELS for _ in range(weight)]
    return [
        NodeSetup(
            name=f"n{number}",
            coordinator=number <= coordinators,
            memory_mib=memory_mib,
            levels=rng.choice(levels),
            bmc_own_power=rng.random() < 0.75,
            watchdog_s=rng.choice((0.0, 0.0, 5.0, 10.0)),
            clock_rate=rng.uniform(0.996, 1.004),
        )
        for number in range(1, count + 1)
    ]


def _quietly(operators: Operators) -> None:
    with contextlib.suppress(PvcError):  # its node was not there yet
        operators.define()


def _storm(cluster: Cluster, operators: Operators, fate: Fate, rng: random.Random, disks: DiskRequests | None) -> int:
    end = cluster.clock.monotonic() + TROUBLE_S
    pause_s = rng.choice((3.0, 6.0, 8.0, 8.0, 15.0))
    settings = ClusterSettings(power_on_after_fence=rng.random() < 0.5, return_after_fence=rng.random() < 0.5)

    def next_request() -> None:
        if cluster.clock.monotonic() < end:
            operators.act()
            cluster.later(rng.expovariate(1 / 1.5), "", next_request)

    def next_disk() -> None:
        if disks is not None and cluster.clock.monotonic() < end:
            disks.act()
            cluster.later(1.0, "", next_disk)

    def next_fault() -> None:
        if cluster.clock.monotonic() < end:
            fate.strike()
            cluster.later(rng.expovariate(1 / pause_s), "", next_fault)

    cluster.later(3.0, "", lambda: cluster_settings(cluster.ops, settings))
    cluster.later(12.0, "", next_request)
    cluster.later(12.5, "", next_disk)
    cluster.later(15.0, "", next_fault)
    steps = cluster.run(TROUBLE_S)
    cluster.note("no more faults; what has no power stays so")
    fate.make_peace()
    operators.end_maintenance()
    quiet = Quiet(cluster)
    steps += cluster.run(quiet.bound_s)
    quiet.check()
    return steps


def _lose(cluster: Cluster, loss: Loss) -> int:
    loss.begin()
    cluster.later(loss.quiet_s - 25.0, "", loss.prepare)
    steps = cluster.run(loss.quiet_s)
    return steps + cluster.run(loss.strike() + 2.0)


def _settle(cluster: Cluster, fate: Fate, operators: Operators) -> int:
    """Let people repair what is left to repair, until everything is as wanted."""
    steps = 0

    room_mib = {name: node.setup.memory_mib - RESERVED_MIB for name, node in cluster.nodes.items()}

    def check() -> None:
        check_settled(cluster.tree.dump(), cluster.world, list(cluster.invariants.vms), room_mib)

    for _ in range(int(PEACE_S / LOOK_S) - 1):
        fate.restore_power()
        operators.all_ready()
        steps += cluster.run(LOOK_S)
        try:
            check()
        except Violation:
            continue
        break
    # Settled has to mean that it stays so.
    steps += cluster.run(LOOK_S)
    check()
    return steps
