"""How the cluster of a sandbox fences its nodes: through their BMCs, each a fence level of its node."""

from collections.abc import Iterable
from typing import Any, Final

from pvc_sandbox.client import PvcCommand
from pvc_sandbox.node_bmc import NodeBmc

PLUGIN: Final = "fence-ipmi"
DRIVER: Final = "ipmi"


def set_levels(pvc: PvcCommand, bmcs: Iterable[NodeBmc], *, wanted: bool, new: bool = False) -> list[str]:
    """Let each node have its BMC as a fence level, or not; levels of other devices stay.  Return the nodes changed.

    ``new``: the cluster has none yet.  Raises SandboxError with what ``pvc`` complained.
    """
    known = {} if new else {row["node"]: row["levels"] for row in pvc.json("fence", "level", "list")}
    commands = {bmc.name: _commands(bmc, known.get(bmc.name, []), wanted=wanted) for bmc in bmcs}
    if any(commands.values()):
        pvc.several([command for of_node in commands.values() for command in of_node])
    return [node for node, of_node in commands.items() if of_node]


def _commands(bmc: NodeBmc, levels: list[dict[str, Any]], *, wanted: bool) -> list[list[str]]:
    """Return the commands that bring a node's levels to what is wanted."""
    parameters = bmc.fence_parameters()
    ours = {"driver": DRIVER, "parameters": parameters}
    there = False
    commands: list[list[str]] = []
    # From the last: a level's number is its place, and those behind a removed one move up.
    for number, level in reversed([*enumerate(levels, 1)]):
        if wanted and level["devices"] == [ours]:
            there = True
        elif all(_is_ours(device, parameters["password_file"]) for device in level["devices"]):
            commands.append(["fence", "level", "remove", bmc.name, str(number), "--yes"])
    if wanted and not there:
        words = [f"{key}={value}" for key, value in parameters.items()]
        commands.append(["fence", "level", "add", bmc.name, DRIVER, *words])
    return commands


def _is_ours(device: dict[str, Any], password_file: str) -> bool:
    """Whether an earlier ``up`` made it; its address may have been another then."""
    return bool(device["driver"] == DRIVER and device["parameters"].get("password_file") == password_file)
