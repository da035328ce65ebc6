"""Where the tiny Linux guest executed: it counts on its disk and tells each number on its console, which its node keeps.

A guest that is started anew goes on counting where its disk says that it was.  So two copies at the same time would tell
the same numbers, on two nodes.
"""

import re
from itertools import groupby
from typing import Final, NamedTuple

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.sandbox import Sandbox

_TICK: Final = re.compile(r"tick (\d+) [\d.]+\r?$", re.MULTILINE)


class Counted(NamedTuple):
    """Numbers that a guest told on one node, one after the other."""

    node: str
    first: int
    last: int


def counted(sandbox: Sandbox, vm: str) -> list[Counted]:
    """Return where the guest of VM ``vm`` (an id) told which numbers, in order.

    Raises SandboxError when it told a number twice: then it executed twice.
    """
    told: dict[int, str] = {}
    for node in sandbox.nodes():
        log = sandbox.logs(node).get(f"console/{vm}")
        for number in map(int, _TICK.findall(log.read_text(errors="replace"))) if log is not None else ():
            if number in told:
                raise SandboxError(f"VM {vm} ran twice: it counted {number} on {told[number]} and on {node}")
            told[number] = node
    runs = (list(numbers) for _, numbers in groupby(sorted(told), key=lambda number: told[number]))
    return [Counted(told[run[0]], run[0], run[-1]) for run in runs]
