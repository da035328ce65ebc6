"""MAC addresses for NICs that were given none."""

from collections.abc import Iterator
from typing import Final

from pvc_core.model.errors import Conflict
from pvc_core.ops.context import Ops
from pvc_core.store import keys

PREFIX: Final = "52:54:00"
"""The range that QEMU and libvirt use: locally administered, unicast."""

_DRAWS: Final = 8
_ROUNDS: Final = 32


def free_macs(ops: Ops) -> Iterator[str]:
    """Yield different addresses that no VM has now; reads only when one is asked for.

    Another VM may take one before it is written: the transaction that takes it then fails, and the next attempt
    draws another.  Raises Conflict when none is found, which takes millions of VMs or a broken source of chance.
    """
    seen: set[str] = set()
    for _ in range(_ROUNDS):
        drawn = {_draw(ops) for _ in range(_DRAWS)} - seen
        seen |= drawn
        candidates = sorted(drawn)
        nodes = ops.store.get_many([keys.name("mac", mac) for mac in candidates])
        yield from (mac for mac, node in zip(candidates, nodes, strict=True) if node is None)
    raise Conflict(f"no free MAC address found in {PREFIX}:*; give one")


def _draw(ops: Ops) -> str:
    return ":".join([PREFIX, *(f"{byte:02x}" for byte in ops.random_bytes(3))])
