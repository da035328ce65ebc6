"""What the in-memory world knows of hosts and guests: plain mutable records, no behaviour."""

import dataclasses
import heapq
from collections.abc import Callable
from typing import Protocol

from pvc_core.hypervisor.api import DomainPlan, DomainState, ExitReason, MigrationOptions, MigrationStats
from pvc_core.hypervisor.console import ConsoleBuffer


class Monotonic(Protocol):
    """A clock, virtual or real."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class Pace:
    """How long things take in the world, in seconds of its clock; change the attributes at any time."""

    def __init__(
        self,
        *,
        boot_s: float = 0.0,
        shutdown_s: float = 1.0,
        migration_s: float = 2.0,
        keepalive_s: float = 10.0,
        downtime_ms: int = 50,
    ) -> None:
        """``boot_s``: a younger guest does not react to ACPI; ``shutdown_s``: from the ACPI event to its end.

        ``keepalive_s``: after this time a partner without power or without a link is noticed.
        """
        self.boot_s = boot_s
        self.shutdown_s = shutdown_s
        self.migration_s = migration_s
        self.keepalive_s = keepalive_s
        self.downtime_ms = downtime_ms


@dataclasses.dataclass
class Faults:
    """Switches for one host or one VM; empty and False: no fault."""

    start_error: str = ""
    """Every start fails with this message."""
    ignores_acpi: bool = False
    """Guests do not react to ``shutdown``."""
    migration_stalls: bool = False
    """Migrations that begin now (from this host, of this VM) never finish: only an abort ends them."""
    migration_error: str = ""
    """Migrations fail at the very end with this message; the guest goes on at the source."""
    migration_unconfirmed: bool = False
    """Migrations finish, but the source does not learn it: it keeps a PAUSED domain and a FAILED job."""
    device_error: str = ""
    """Attaching, detaching and resizing fail with this message."""


@dataclasses.dataclass(eq=False)
class Body:
    """A guest's memory contents: what a live migration carries over."""

    booted_at: float
    shutting_down: bool = False
    devices: dict[tuple[str, ...], str] = dataclasses.field(default_factory=dict)
    disk_bytes: dict[int, int] = dataclasses.field(default_factory=dict)
    heard: bytearray = dataclasses.field(default_factory=bytearray)
    """What was typed into its console."""


@dataclasses.dataclass(eq=False)
class Guest:
    """A domain on a host."""

    plan: DomainPlan
    state: DomainState
    since: float
    body: Body
    outgoing: "Migration | None" = None
    incoming: "Migration | None" = None
    stats: MigrationStats = dataclasses.field(default_factory=MigrationStats)
    console: ConsoleBuffer | None = None


@dataclasses.dataclass(eq=False)
class Migration:
    """A live migration in progress."""

    vm: str
    source: "Host"
    target: "Host | None"
    options: MigrationOptions
    begun: float
    duration: float | None
    """None: stalled."""
    end: "Event | None" = None


@dataclasses.dataclass(eq=False)
class Host:
    """A host as it really is."""

    name: str
    address: str
    memory_mib: int
    cpus: int
    accelerators: tuple[str, ...]
    powered: bool = True
    libvirtd: bool = True
    admitted: dict[str, str] = dataclasses.field(default_factory=dict)
    """VM -> the attempt of a migration that may bring it."""
    guests: dict[str, Guest] = dataclasses.field(default_factory=dict)
    faults: Faults = dataclasses.field(default_factory=Faults)
    observers: list["Observer"] = dataclasses.field(default_factory=list)


class Observer(Protocol):
    """A connection to a host's hypervisor: told of what happens there while it is connected."""

    def appeared(self, vm: str) -> None: ...
    def ended(self, vm: str, reason: ExitReason) -> None: ...
    def job_failed(self, vm: str, error: str, progress: float) -> None: ...
    def disconnected(self) -> None: ...
    def changed(self, vm: str) -> None: ...


@dataclasses.dataclass(order=True)
class Event:
    """Something that will happen."""

    due: float
    order: int
    action: Callable[[], None] = dataclasses.field(compare=False)
    cancelled: bool = dataclasses.field(default=False, compare=False)


class Agenda:
    """Events in order of their time; those of one time in the order they were added."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._order = 0

    def add(self, due: float, action: Callable[[], None]) -> Event:
        """Add an event; set its ``cancelled`` to take it back."""
        self._order += 1
        event = Event(due, self._order, action)
        heapq.heappush(self._events, event)
        return event

    def next_time(self) -> float | None:
        """Return when the next event is due."""
        while self._events and self._events[0].cancelled:
            heapq.heappop(self._events)
        return self._events[0].due if self._events else None

    def pop(self, now: float) -> Event | None:
        """Take the next event that is due by ``now``."""
        due = self.next_time()
        return heapq.heappop(self._events) if due is not None and due <= now else None
