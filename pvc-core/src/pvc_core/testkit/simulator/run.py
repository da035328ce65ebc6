"""One seeded run: trouble for a while, then peace, then everything must be as wanted."""

import random
from typing import NamedTuple

from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.invariants import Violation
from pvc_core.testkit.simulator.workload import Fate, Operators

TROUBLE_S = 120.0
"""Virtual time in which requests and faults come."""
PEACE_S = 900.0
"""Virtual time after the last of them in which everything must have become as wanted."""
LOOK_S = 60.0
"""Whether it has is looked at this often."""


class Run(NamedTuple):
    """What happened in a run that kept all invariants."""

    seed: int
    nodes: int
    vms: int
    steps: int
    requests: int
    refused: int
    faults: int
    trace: tuple[str, ...]


class Failed(AssertionError):
    """A run that broke an invariant; the message ends with the trace."""


def _settle(cluster: Cluster) -> int:
    steps = 0
    for _ in range(int(PEACE_S / LOOK_S) - 1):
        steps += cluster.run(LOOK_S)
        try:
            cluster.invariants.check_settled(set(cluster.nodes))
        except Violation:
            continue
        break
    # Settled has to mean that it stays so.
    steps += cluster.run(LOOK_S)
    cluster.invariants.check_settled(set(cluster.nodes))
    return steps


def run(seed: int, *, trouble_s: float = TROUBLE_S) -> Run:
    """Run one seed: 3 to 7 nodes, up to 8 VMs.  Raises Failed with a readable trace."""
    rng = random.Random(seed ^ 0x5EED)  # noqa: S311  (a seeded run, not a secret)
    nodes = rng.randint(3, 7)
    cluster = Cluster(seed, nodes)
    operators = Operators(cluster, vms=rng.randint(2, 8))
    fate = Fate(cluster)

    def next_request() -> None:
        operators.act()
        if cluster.clock.monotonic() < 1000.0 + trouble_s:
            cluster.later(rng.expovariate(1 / 1.5), "", next_request)

    def next_fault() -> None:
        fate.strike()
        if cluster.clock.monotonic() < 1000.0 + trouble_s:
            cluster.later(rng.expovariate(1 / 8.0), "", next_fault)

    cluster.later(12.0, "", next_request)
    cluster.later(15.0, "", next_fault)
    try:
        steps = cluster.run(trouble_s + 100.0)
        cluster.note("all faults have passed; every node is put back into service")
        operators.all_ready()
        steps += _settle(cluster)
    except AssertionError as error:
        lines = "\n".join(cluster.trace)
        raise Failed(f"seed {seed}: {error}\n\ntrace of seed {seed} ({nodes} nodes):\n{lines}") from error
    return Run(
        seed=seed,
        nodes=nodes,
        vms=len(cluster.invariants.vms),
        steps=steps,
        requests=operators.done,
        refused=operators.refused,
        faults=fate.struck,
        trace=tuple(cluster.trace),
    )
