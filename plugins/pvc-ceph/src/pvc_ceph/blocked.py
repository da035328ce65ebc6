"""Clients that Ceph refuses, as commands show them; and the task that lets a node in again.

``ceph.unblock``: arguments ``node`` (name), ``force``.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.task import Task
from pvc_core.plugin import Progress, TaskRunner

UNBLOCK: Final = "ceph.unblock"


class Blocked(msgspec.Struct, frozen=True, kw_only=True):
    """A client, or all clients of a host, that Ceph refuses."""

    address: str
    """``ip:0/0``: all of a host; else ``ip:port/nonce``, one client."""
    until: str
    """As Ceph writes it: ISO 8601."""
    node: str = ""
    """The node whose address it is."""
    lease: int = 0
    """Generation of the lease that the node lost, where PVC keeps it closed since."""


def unblock_runner(unblock: Callable[[str, bool], list[str]]) -> dict[str, TaskRunner]:
    """Return the task's runner by its kind."""

    def run(task: Task, progress: Progress) -> dict[str, str | int | float | bool | None]:
        node, force = task.arguments.get("node"), task.arguments.get("force")
        if not isinstance(node, str) or not isinstance(force, bool):
            raise InvalidRequest(f"task {task.id} does not name a node")
        opened = unblock(node, force)
        progress(1.0)
        return {"opened": ", ".join(opened)}

    return {UNBLOCK: run}
