"""What the in-memory world knows of hosts and guests: plain mutable records, no behaviour."""

import dataclasses
import heapq
from collections.abc import Callable, Sequence
from typing import Protocol
from xml.etree import ElementTree as ET

from pvc_core.hypervisor.api import (
    DomainDisk,
    DomainPlan,
    DomainState,
    ExitReason,
    HypervisorError,
    MigrationOptions,
    MigrationStats,
)
from pvc_core.hypervisor.console import ConsoleBuffer
from pvc_core.hypervisor.domaininfo import controller_kind, device_key, domain_disks, nic_of
from pvc_core.hypervisor.domainxml import limits_of, render_disks
from pvc_core.hypervisor.fragment import fragment
from pvc_core.hypervisor.nicxml import is_link_up, nic_limits_of, render_nic
from pvc_core.model.disk import NO_LIMITS, DiskLimits, bus_of
from pvc_core.model.vm import NO_NIC_LIMITS, NicLimits


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
        unplug_s: float = 0.5,
    ) -> None:
        """``boot_s``: a younger guest does not react to ACPI; ``shutdown_s``: from the ACPI event to its end.

        ``unplug_s``: until a guest that is asked has let go of a device.

        ``keepalive_s``: after this time a partner without power or without a link is noticed.
        """
        self.boot_s = boot_s
        self.shutdown_s = shutdown_s
        self.migration_s = migration_s
        self.keepalive_s = keepalive_s
        self.downtime_ms = downtime_ms
        self.unplug_s = unplug_s


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
    """Attaching, detaching, resizing and limiting fail with this message."""
    keeps_devices: bool = False
    """Guests do not let go of devices."""
    freeze_error: str = ""
    """Guest agents fail to freeze with this message, after they have frozen some of the file systems."""
    thaw_error: str = ""
    """Guest agents fail to thaw with this message."""


@dataclasses.dataclass(eq=False)
class Device:
    """A device of a guest.  One that is plugged in again is another one."""

    xml: str
    disk: DomainDisk | None = None
    limits: DiskLimits = NO_LIMITS
    controller: str = ""
    mac: str = ""
    """Of a NIC."""
    link_up: bool = True
    nic_limits: NicLimits = NO_NIC_LIMITS


@dataclasses.dataclass(eq=False)
class Body:
    """A guest's memory contents: what a live migration carries over."""

    booted_at: float
    shutting_down: bool = False
    devices: dict[tuple[str, ...], "Device"] = dataclasses.field(default_factory=dict)
    disk_bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    first_controllers: frozenset[str] = frozenset()
    """Kinds of controllers that it was started with."""
    heard: bytearray = dataclasses.field(default_factory=bytearray)
    """What was typed into its console."""
    frozen: bool = False
    """Its agent has frozen its file systems."""

    def disks(self) -> tuple[DomainDisk, ...]:
        """Return its disks, in the order in which it got them."""
        return tuple(device.disk for device in self.devices.values() if device.disk is not None)

    def controllers(self) -> frozenset[str]:
        """Return the kinds of controllers that it has, as far as disks need them."""
        return self.first_controllers | {d.controller for d in self.devices.values() if d.controller}

    def nics(self) -> tuple[str, ...]:
        """Return the MAC addresses of its NICs, in the order in which it got them."""
        return tuple(device.mac for device in self.devices.values() if device.mac)

    def nic(self, name: str, mac: str) -> Device:
        """Return its NIC; raises HypervisorError when the VM of this name has none with this MAC address."""
        found = {device.mac: device for device in self.devices.values() if device.mac}
        if mac not in found:
            raise HypervisorError(f"{name} has no NIC {mac}: it has {', '.join(found) or 'none'}")
        return found[mac]

    def disk(self, name: str, target: str) -> Device:
        """Return its disk of this target; raises HypervisorError when the VM of this name has none."""
        found = {device.disk.target: device for device in self.devices.values() if device.disk is not None}
        if target not in found:
            raise HypervisorError(f"{name} has no disk {target}: it has {', '.join(found) or 'none'}")
        return found[target]


def device_of(xml: str, defined: Sequence[str] = ()) -> tuple[tuple[str, ...], Device]:
    """Return a device from its XML, and what tells it from others; ``defined``: as for ``domain_disks``."""
    element = fragment(xml, "the device")
    disk = domain_disks([element], defined)[0] if element.tag == "disk" else None
    kind = controller_kind(element) if element.tag == "controller" else ""
    device = Device(xml, disk, limits_of(element), kind)
    if element.tag == "interface":
        device.mac = nic_of(element) or ""
        device.link_up, device.nic_limits = is_link_up(element), nic_limits_of(element)
    return device_key(xml) or (xml,), device


def body_of(plan: DomainPlan, booted_at: float) -> Body:
    """Return what a guest is started with."""
    vm = plan.vm
    buses = {bus_of(disk, vm.machine) for disk in vm.disks} | ({"usb"} if vm.vnc else set())
    body = Body(booted_at, first_controllers=frozenset(buses & {"scsi", "usb"}))
    elements = list(render_disks(plan))
    targets = [target.get("dev", "") for element in elements for target in element.iterfind("target")]
    elements += (render_nic(nic, source) for nic, source in zip(vm.nics, plan.nics, strict=True))
    for element in elements:
        key, device = device_of(ET.tostring(element, encoding="unicode"), targets)
        body.devices[key] = device
    return body


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
    paused: bool = False
    """It was told to stand still: not by a migration."""
    note: str = ""
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
