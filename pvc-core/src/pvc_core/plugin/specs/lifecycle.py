"""Life-cycle hooks: role services of the primary, tasks, resources, health, metrics, events."""

import abc
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from pvc_core.model.base import Condition
from pvc_core.model.task import Task
from pvc_core.plugin.markers import hookspec


class RoleService(abc.ABC):
    """Something that only the primary runs: floating addresses, gateways, DHCP, API.

    Returned by ``role_services``.  Services are acquired in ascending ``order`` and relinquished in
    reverse, one after the other, each in the plugin's own thread with a deadline of 30 s.  A failed
    acquire is retried with back-off and is a condition of the node; it does not stop the later ones.
    """

    name: str
    order: int
    """0-99 addresses, 100-199 gateways, 200-299 guest services, 300-399 interfaces for people."""

    @abc.abstractmethod
    def acquire(self, term: int) -> None:
        """Begin the service; idempotent.  ``term`` is a fencing token that grows with each new primary."""

    @abc.abstractmethod
    def relinquish(self) -> None:
        """End the service; idempotent, and possible without the state store."""


class TaskProgress(Protocol):
    """By which a runner tells how far its task is, and learns whether it is to stop."""

    def __call__(self, done: float, /) -> bool:
        """Tell the part that is done, 0.0 to 1.0; when this returns true, raise Cancelled as soon as nothing is half done."""

    def say(self, message: str) -> None:
        """Tell people what it does now, or waits for; empty: nothing that they would not know.  Goes out with the part."""


TaskRunner = Callable[[Task, TaskProgress], dict[str, str | int | float | bool | None]]
"""Runs a task in a thread of its own; returns its result, raises PvcError, or Cancelled when told to stop."""


Query = Callable[[dict[str, Any]], Any]
"""Answers a command that asks a node for what only it can see: arguments by name -> a value that JSON has.

Runs in the plugin's own threads with a deadline of 20 s; raises PvcError.  It changes nothing.
"""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One figure with labels, in base units."""

    name: str
    value: float
    labels: dict[str, str] = {}
    help: str = ""


class CollectHooks:
    """Kind: collect hooks; the answers of all plugins are put together.

    Thread: the plugin's pool.  Deadline 10 s.  An exception costs only that plugin's answer and is
    counted; the node gets a condition that names it.
    """

    @hookspec
    def role_services(self) -> list[RoleService]:
        """Return the services that the primary shall run.  Called once, at start, on coordinators."""
        return []

    @hookspec
    def task_runners(self) -> dict[str, TaskRunner]:
        """Return kind -> runner of the plugin's own tasks.  Called once, at start."""
        return {}

    @hookspec
    def queries(self) -> dict[str, Query]:
        """Return name -> what answers it: ``<plugin>.<what>``, as in ``Client.ask`` of commands.  Called once, at start."""
        return {}

    @hookspec
    def resource_kinds(self) -> list[str]:
        """Return the kinds of documents (``spec/<kind>/<id>``) that ``resource_reconcile`` takes care of."""
        return []

    @hookspec
    def resource_reconcile(self, kind: str, id: str, spec: dict[str, Any] | None) -> dict[str, Any] | None:
        """Make a resource as its spec says, and return its status document; None when it is another node's.

        Deadline 60 s.  Called when the spec changed, after ``Context.wake``, and at each resync; ``spec``
        None: it is gone, undo its effects.
        """

    @hookspec
    def health_checks(self) -> list[Condition]:
        """Return what is right and wrong with this node, one condition per check.  Called every 15 s."""
        return []

    @hookspec
    def metrics(self) -> list[Metric]:
        """Return figures for monitoring."""
        return []


class EventHooks:
    """Kind: event hooks; every plugin is told, in configuration order, each in a boundary of its own.

    Thread: one event thread per node, apart from all work; deadline 10 s.  Results are ignored; an
    exception is logged and counted, and the next plugin is told all the same.  Wrappers are not allowed.
    """

    @hookspec
    def node_starting(self, node: str) -> None:
        """The daemon is about to connect to the state store, and waits for this: bring up what it needs for that."""

    @hookspec
    def node_started(self, node: str) -> None:
        """The daemon has its lease and begins to work."""

    @hookspec
    def node_stopping(self, node: str) -> None:
        """The daemon is about to stop; guests go on."""

    @hookspec
    def node_lost(self, node: str) -> None:
        """A node's lease is gone and was not given up on purpose.  Told on the primary."""

    @hookspec
    def node_fenced(self, node: str, proof: str) -> None:
        """A node is proven dead.  Told on the primary."""

    @hookspec
    def fence_stage(self, node: str, stage: str, message: str) -> None:
        """A node's fencing entered a stage: suspected, fencing, proven, recovered, cancelled, returned.

        Told on the primary, after it was recorded.
        """

    @hookspec
    def primary_changed(self, node: str | None, term: int) -> None:
        """The primary role has a new holder."""

    @hookspec
    def vm_started(self, vm: str, node: str) -> None:
        """A VM's domain was started here."""

    @hookspec
    def vm_stopped(self, vm: str, node: str, reason: str) -> None:
        """A VM's domain ended here; ``reason``: shutdown, destroyed, crashed, failed, unknown."""

    @hookspec
    def vm_migrated(self, vm: str, source: str, target: str) -> None:
        """A VM arrived here by live migration.  Told on the target."""

    @hookspec
    def vm_failed(self, vm: str, node: str, reason: str) -> None:
        """A VM could not be started, or crashed too often."""
