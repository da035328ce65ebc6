"""What a decision about a VM rests on."""

import enum
from typing import Literal

from pvc_core.model.base import Value
from pvc_core.model.vm import VmClaim, VmSpec, VmStatus


class GuestDisk(Value, frozen=True, kw_only=True):
    """A disk that the domain has."""

    target: str
    bus: str
    volume: str | None
    """``pool/volume``; empty: none of the VM's; None: one of them, it is not known which."""


class DomainView(Value, frozen=True, kw_only=True):
    """The VM's domain on this node."""

    executing: bool
    """Its processors run."""
    incoming: bool = False
    """It is the target half of a transfer."""
    transfer: bool = False
    """A transfer away from here is in progress."""
    transfer_failed: bool = False
    transfer_error: str = ""
    transfer_progress: float = 0.0
    running_for_s: float = 0.0
    vnc: str = ""
    accelerator: str = ""
    disks: tuple[GuestDisk, ...] = ()
    """The first is what it was booted from."""
    controllers: frozenset[str] = frozenset()
    """Of scsi and usb those that it has."""
    nics: tuple[str, ...] = ()
    """MAC addresses of the NICs that it has."""


class Ended(enum.StrEnum):
    """Why the domain is not here any more, as far as is known."""

    SHUTDOWN = "shutdown"
    CRASHED = "crashed"
    DESTROYED = "destroyed"
    MIGRATED = "migrated"
    UNKNOWN = "unknown"


class DeviceTry(Value, frozen=True, kw_only=True):
    """What was tried on a disk or NIC, and has not led to its end."""

    what: Literal["plug", "unplug", "adjust", "release"]
    first: float
    last: float
    """When."""
    count: int = 1
    error: str = ""
    unsure: bool = False
    """The hypervisor was lost over it: what was asked of it may still be done."""


class Memory(Value, frozen=True, kw_only=True):
    """What this daemon remembers of the VM; all of it may be lost at any time."""

    attached: bool = False
    """Disks or NICs may be attached here."""
    prepared: str = ""
    """The attempt that disks and NICs were prepared for."""
    started_transfer: str = ""
    """The attempt whose transfer this daemon started."""
    shutdown_since: float | None = None
    shutdown_asked: float | None = None
    backoff_until: float | None = None
    move_not_before: float | None = None
    phase_since: float | None = None
    """When the migration's current attempt and phase were first seen."""
    transfer_error: str = ""
    """Why starting it failed."""
    aborted: str = ""
    """The attempt that was told to stop."""
    arrived_from: str = ""
    """The source of the migration that brought the guest here."""
    tries: dict[str, DeviceTry] = {}
    """By ``pool/volume`` of a disk, or MAC address of a NIC."""


class Limits(Value, frozen=True, kw_only=True):
    """Durations in seconds, and counts; see the ``timing`` section of the configuration."""

    prepare_s: float = 60.0
    migration_s: float = 600.0
    backoff_s: float = 2.0
    backoff_max_s: float = 300.0
    give_up: int = 6
    stable_s: float = 60.0
    unplug_s: float = 30.0


class Snapshot(Value, frozen=True, kw_only=True):
    """All that the decision rests on."""

    me: str
    lease: int
    """Generation of our lease."""
    address: str = ""
    now: float
    """Monotonic seconds."""
    vm: VmSpec | None
    status: VmStatus | None = None
    claim: VmClaim | None = None
    domain: DomainView | None = None
    ended: Ended = Ended.UNKNOWN
    memory: Memory = Memory()
    limits: Limits = Limits()
    target_alive: bool = False
    """The node that the VM is to move to has its lease."""
    accepting: str = ""
    """Why this node takes no VMs now (draining, maintenance); empty: it does."""
    parked: bool = False
    """This node drains and no other has room: the guest is shut down and waits."""
    no_room: str = ""
    """Why this VM does not fit here now; empty: it does."""
    cannot_run: str = ""
    """Why this node cannot run it at all now (a driver is missing); empty: it can."""
    live_obstacle: str = ""
    """Why it cannot be moved live (a passed-through device); empty: it can."""
    outgoing_free: bool = True
    """This node may begin one more transfer."""
    incoming_free: bool = True
