"""./dev bench failover: the power of one node after the other is cut, and its VM runs elsewhere.

Prints one JSON object per cut, and the median and maximum of all.  Seconds of a cut:

``detect``   from the cut until the loss of the node's lease is on record
``fence``    from there until its death is proven: the grace time, and the BMC
``recover``  from there until the first sign of life of the guest on another node
``total``    all of it

That the guest never executed twice is checked too, from what it wrote on its disk.
"""

import argparse
import statistics
import sys
import time
from typing import Any

from _cluster import POOL, cluster, note, tell

from pvc_sandbox import zookeeper
from pvc_sandbox.heartbeat import HeartbeatGuest, start_heartbeat_guest
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

VM = "witness"
PROFILES: dict[str, dict[str, float]] = {"default": {}, "fast": {"lease": 4.0, "grace": 2.0}}
STAGES = ("detect", "fence", "recover", "total")
_PATIENCE_S = 120.0
_LOOK_S = 0.01


def roles(sandbox: Sandbox, node: str) -> list[str]:
    """Return what else is lost with a node."""
    primary = any(row["name"] == node and row["primary"] for row in sandbox.pvc.rows("node", "list"))
    leads = zookeeper.mode(sandbox.layout, sandbox.layout.node_number(node)) == "leader"
    return [role for role, is_so in (("primary", primary), ("ZooKeeper leader", leads)) if is_so]


def first_beat(guest: HeartbeatGuest, after: int) -> float:
    """Return when the guest gives its next sign of life, by the wall clock."""
    end = time.monotonic() + _PATIENCE_S
    while not guest.beats(after=after):
        if time.monotonic() > end:
            sys.exit(f"no sign of life of {guest.name} after {_PATIENCE_S:g} s")
        time.sleep(_LOOK_S)
    return time.time()


def fencing(sandbox: Sandbox, node: str, stage: str) -> dict[str, Any]:
    """Wait for a stage of a node's fencing; return the record."""
    found: dict[str, Any] = wait_until(
        f"{node}: {stage}",
        lambda: (record := sandbox.pvc.json("fence", "info", node)["record"])["stage"] == stage and record,
        deadline_s=_PATIENCE_S,
    )
    return found


def cut(sandbox: Sandbox, guest: HeartbeatGuest, node: str) -> dict[str, Any]:
    """Cut a node's power; return the times, and what was lost."""
    lost = roles(sandbox, node)
    sandbox.power_cut(node)
    begun = time.time()
    beat = first_beat(guest, len(guest.beats()))
    record = fencing(sandbox, node, "recovered")
    # All nodes are on this machine, so the times in the record are of the same clock.
    opened, proven = record["opened"], record["proofs"][0]["at"]
    times = {"detect": opened - begun, "fence": proven - opened, "recover": beat - proven, "total": beat - begun}
    return {"node": node, "lost_with_it": lost, **{name: round(value, 3) for name, value in times.items()}}


def restore(sandbox: Sandbox, node: str) -> None:
    """Switch a node on again and put it back into service."""
    sandbox.power_on(node)
    sandbox.wait_ready([node])
    fencing(sandbox, node, "returned")
    sandbox.pvc("node", "ready", node)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--profile", choices=PROFILES, default="default", help="section `timing` of every node")
    options = parser.parse_args()
    cuts = []
    with cluster("failover", 3, bmc=True, timing=PROFILES[options.profile]) as sandbox:
        nodes = sandbox.nodes()
        guest = start_heartbeat_guest(sandbox, POOL, VM, node=nodes[-1])
        for number in range(options.cuts):
            node = nodes[number % len(nodes)]
            sandbox.pvc("vm", "move", VM, "--node", node)
            cuts.append(cut(sandbox, guest, node))
            tell("failover", "cut", cuts[-1]["total"], unit="s", profile=options.profile, **cuts[-1])
            restore(sandbox, node)
            note(f"{node} is back")
        lives = guest.lives()
    for name in STAGES:
        values = [one[name] for one in cuts]
        tell("failover", f"{name}_s", statistics.median(values), unit="s", max=max(values), cuts=len(values))
    tell("failover", "ran_twice", 0, lives=len(lives))


if __name__ == "__main__":
    main()
