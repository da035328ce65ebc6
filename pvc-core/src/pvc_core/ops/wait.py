"""Waiting for the effect of operations.

Built on watches: nothing is read more often than something changes, except for a slow resync that
covers a lost watch.  A wait changes nothing, so interrupting it (KeyboardInterrupt) leaves the job running.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

from pvc_core.model.errors import PvcError
from pvc_core.model.task import Task
from pvc_core.ops.context import Ops
from pvc_core.ops.network import NetworkInfo
from pvc_core.ops.node import NodeInfo
from pvc_core.ops.pool import PoolView
from pvc_core.ops.vm_views import VmInfo
from pvc_core.ops.volume import VolumeView


class Progress(NamedTuple):
    """What is seen while waiting."""

    message: str
    fraction: float | None = None
    """0.0 to 1.0, or None when that is unknown."""


Report = Callable[[Progress], None]
"""Called in the waiting thread each time something changed."""


class WaitFailed(PvcError):
    """What was waited for cannot come any more; the message says why."""


class WaitTimeout(PvcError):
    """It did not come in time; the job goes on."""


class VmGoal(enum.StrEnum):
    """What to wait for."""

    RUNNING = "running"
    """It runs, on the node it is placed on, and restarts asked for are done."""
    STOPPED = "stopped"
    """It is off, and no node holds its claim."""
    SETTLED = "settled"
    """The responsible node has seen the last change, and does nothing more about it."""
    GONE = "gone"


class NodeGoal(enum.StrEnum):
    """What to wait for."""

    DRAINED = "drained"
    READY = "ready"
    """It takes VMs, and those at home there have returned."""
    PRIMARY = "primary"
    SECONDARY = "secondary"


class ObjectGoal(enum.StrEnum):
    """What to wait for, of a volume, pool or network."""

    READY = "ready"
    """Its last change is carried out."""
    GONE = "gone"


def wait_vm(ops: Ops, vm: str, goal: VmGoal, *, timeout_s: float, report: Report | None = None) -> VmInfo | None:
    """Wait for a VM (id); returns it, None when it is gone.  Raises WaitFailed, WaitTimeout."""
    raise NotImplementedError


def wait_task(ops: Ops, task: str, *, timeout_s: float, report: Report | None = None) -> Task:
    """Wait for a task's end and return it.  Raises WaitFailed when it failed or was cancelled, WaitTimeout."""
    raise NotImplementedError


def wait_node(ops: Ops, node: str, goal: NodeGoal, *, timeout_s: float, report: Report | None = None) -> NodeInfo:
    """Wait for a node.  Raises WaitFailed (node gone or dead), WaitTimeout."""
    raise NotImplementedError


def wait_volume(
    ops: Ops, volume: str, goal: ObjectGoal, *, timeout_s: float, report: Report | None = None
) -> VolumeView | None:
    """Wait for a volume (id); returns it, None when it is gone.  Raises WaitFailed, WaitTimeout."""
    raise NotImplementedError


def wait_pool(
    ops: Ops, pool: str, goal: ObjectGoal, *, timeout_s: float, report: Report | None = None
) -> PoolView | None:
    """Wait for a pool (id); returns it, None when it is gone.  Raises WaitFailed, WaitTimeout."""
    raise NotImplementedError


def wait_network(
    ops: Ops, network: str, goal: ObjectGoal, *, timeout_s: float, report: Report | None = None
) -> NetworkInfo | None:
    """Wait until a network (id) is as wanted on every node that is alive, or gone.  Raises WaitFailed, WaitTimeout."""
    raise NotImplementedError
