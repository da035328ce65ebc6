"""Virtual machines: what is wanted (VmSpec), what is (VmStatus), and who may run it (VmClaim)."""

import enum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from pvc_core.model.base import Condition, Document, Value
from pvc_core.model.disk import Disk

NicModel = Literal["virtio", "e1000", "e1000e", "rtl8139"]
MigrationMethod = Literal["live-or-shutdown", "live", "shutdown"]
RestartPolicy = Literal["always", "on-crash", "never"]
Power = Literal["running", "stopped", "disabled"]

SELECTORS: Final = ("mem", "memprov", "vcpus", "load", "vms")
"""The selectors that core brings; plugins add more (entry points ``pvc.scheduling``)."""


class NicLimits(Value, frozen=True, kw_only=True):
    """Most that a NIC carries, in KiB/s; 0: no limit.  ``in`` is to the guest, ``out`` is from it."""

    in_average: Annotated[int, Meta(ge=0)] = 0
    in_peak: Annotated[int, Meta(ge=0)] = 0
    """For as long as ``in_burst`` lasts."""
    in_burst: Annotated[int, Meta(ge=0)] = 0
    """KiB that may come at the peak's rate."""
    out_average: Annotated[int, Meta(ge=0)] = 0
    out_peak: Annotated[int, Meta(ge=0)] = 0
    out_burst: Annotated[int, Meta(ge=0)] = 0

    def problem(self) -> str:
        """Return what no hypervisor would take, for people; empty: nothing.

        libvirt wants an average wherever there is a peak or a burst (``<bandwidth>`` in its domain format).
        """
        for way in ("in", "out"):
            average, peak, burst = (getattr(self, f"{way}_{what}") for what in ("average", "peak", "burst"))
            for what, value in (("peak", peak), ("burst", burst)):
                if value and not average:
                    return f"limit {way}_{what} needs a limit {way}_average"
            if peak and peak < average:
                return f"limit {way}_peak is {peak}, less than {way}_average, which is {average}"
        return ""


NO_NIC_LIMITS: Final = NicLimits()


class Nic(Value, frozen=True, kw_only=True):
    """A network card.  ``parameters`` are the network driver's own (VF)."""

    network: str
    mac: str
    model: NicModel = "virtio"
    link_up: bool = True
    queues: Annotated[int, Meta(ge=1, le=256)] = 1
    """Pairs of queues, which as many vCPUs can use at the same time; with model virtio."""
    limits: NicLimits = NO_NIC_LIMITS
    addresses: tuple[str, ...] = ()
    """IP addresses (without prefix lengths) that are this NIC's: a managed network gives them to it and to nobody else."""
    removing: bool = False
    """The guest is to let go of it; it stays here until it has."""
    parameters: dict[str, str] = {}

    @property
    def title(self) -> str:
        """What it is called, for people."""
        return f"NIC {self.mac} in network {self.network}"


class DirectKernel(Value, frozen=True, kw_only=True):
    """Boot this kernel instead of a boot loader; paths as the node sees them."""

    kernel: str
    initrd: str = ""
    cmdline: str = ""


class Tag(Value, frozen=True, kw_only=True):
    """A word on a VM to select it by; a protected one is not removed without force."""

    name: str
    protected: bool = False


class Rollback(Value, frozen=True, kw_only=True):
    """The VM's disks are being given the contents of a snapshot: until that is done they are of two times."""

    snapshot: str
    """Id of the VM's snapshot."""
    name: str
    """Its name, for people."""
    task: str
    """The task that does it, or tried last."""
    begun: bool = False
    """Disks may have been changed."""


class VmSpec(Document, frozen=True, kw_only=True):
    """What the operator wants.  Written by operations only, each time with ``generation`` one higher."""

    id: str
    """UUID, also the one the guest sees."""
    name: str
    generation: int = 1
    description: str = ""

    memory_mib: Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)]
    vcpus: Annotated[int, Meta(ge=1, le=4096)]
    machine: str = "q35"
    cpu_model: str = ""
    """Name of a CPU model; empty: the cluster's default, which suits every node."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    firmware: Literal["bios", "uefi"] = "bios"
    direct_kernel: DirectKernel | None = None
    vnc: bool = False
    guest_agent: bool = True
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    overlay_xml: str = ""
    """libvirt domain XML whose elements are laid over the rendered ones: what the structure does not model."""

    power: Power = "stopped"
    stop_forced: bool = False
    """With power stopped: cut the power instead of asking the guest."""
    shutdown_timeout_s: Annotated[int, Meta(ge=1, le=86400)] = 180
    restart_request: int = 0
    """Raised by one for each requested restart; done when the status has the same number."""
    restart: RestartPolicy = "always"
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    """Higher ones get their place first when a node's VMs are placed together.  Default 0."""
    autostart: bool = False
    """Start it whenever its node returns to service, even when it was stopped before."""

    node: str | None = None
    """Where it is placed."""
    home: str | None = None
    """Where ``unmigrate`` and ``node ready`` bring it back to; None when it is at home."""
    node_limit: tuple[str, ...] = ()
    selector: str = ""
    """How a node is chosen; empty: the cluster's default."""
    migration: MigrationMethod = "live-or-shutdown"
    move_method: MigrationMethod | None = None
    """Method of the last move, when it was asked for with another one; every move sets it anew."""
    max_downtime_ms: Annotated[int, Meta(ge=1, le=60000)] = 300
    tags: tuple[Tag, ...] = ()

    rollback: Rollback | None = None
    """While there is one the VM is not started."""
    deleting: bool = False
    delete_volumes: bool = False


class VmState(enum.StrEnum):
    """What the VM is doing, as one word."""

    STOPPED = "stopped"
    DISABLED = "disabled"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    MIGRATING = "migrating"
    WAITING = "waiting"
    """It should run but has no place: its node is flushed or gone, or no node fits."""
    BACKOFF = "backoff"
    """It ended by itself and is started again after a pause."""
    FAILED = "failed"
    """It could not be started, or crashed too often; ``conditions`` say why."""
    DELETING = "deleting"


class MigrationResult(Value, frozen=True, kw_only=True):
    """How the last move ended."""

    source: str
    target: str
    method: Literal["live", "shutdown"]
    ok: bool
    message: str = ""
    duration_s: float = 0.0
    downtime_ms: int | None = None
    """As libvirt reports it; None for a move by shutdown."""
    finished: float = 0.0


class VmStatus(Document, frozen=True, kw_only=True):
    """What is.  Written by the node that holds the claim, else by the node the VM is placed on."""

    id: str
    state: VmState = VmState.STOPPED
    node: str | None = None
    """The node that wrote this."""
    observed_generation: int = 0
    restart_done: int = 0
    crashes: int = 0
    """Consecutive unwanted ends since it last ran for a while."""
    reason: str = ""
    """One sentence on why it is in this state, when that is not plain."""
    conditions: tuple[Condition, ...] = ()
    last_migration: MigrationResult | None = None
    failed_moves: int = 0
    """Failed attempts at the move that is wanted now."""
    failed_target: str | None = None
    vnc: str = ""
    accelerator: str = ""
    running_hardware: str = ""
    """``hardware`` of the spec that the running guest was started with."""
    running_disks: tuple[str, ...] | None = None
    """All that the running guest may write to, as ``pool/volume``: a disk is here before it is plugged in, and until it is
    confirmed gone.  None: it may write to more than disks, or it is unknown."""
    guest_disks: tuple[Disk, ...] | None = None
    """The disks of the running guest as it was given them, which may differ from what is wanted by now; None: unknown,
    as an earlier version of PVC started it."""
    guest_nics: tuple[Nic, ...] | None = None
    """The same of its NICs: a NIC is here before it is plugged in."""
    unsettled: tuple[str, ...] = ()
    """Disks (``pool/volume``) and NICs (MAC address) whose settings may be others than ``guest_disks`` and ``guest_nics`` say:
    a change was begun."""
    halted: int = 0
    """Generation of the spec at which it ended for good (guest off, gave up): only a newer one starts it again."""


class MigrationPhase(enum.StrEnum):
    """Phases of a live migration, in order; each is entered by one compare-and-set of the claim."""

    PREPARE = "prepare"
    """The holder asks the target to get ready (disks, networks)."""
    READY = "ready"
    """The target is ready and has admitted the guest."""
    REFUSED = "refused"
    """The target cannot; ``message`` says why."""
    TRANSFER = "transfer"
    """libvirt is moving the guest: from here on the target may have a domain of it."""
    UNCERTAIN = "uncertain"
    """The transfer is over, and libvirt on the holder's side does not know how: the target has to say."""
    ARRIVED = "arrived"
    """The target reports that the guest executes there; the holder still has to confirm its own side."""


MAY_EXECUTE_ON_TARGET: Final = frozenset({MigrationPhase.TRANSFER, MigrationPhase.UNCERTAIN, MigrationPhase.ARRIVED})
"""Phases in which the target of a migration may execute the guest."""


class MigrationRecord(Value, frozen=True, kw_only=True):
    """A live migration in progress, part of the claim so that whoever may run the guest is in one document."""

    target: str
    attempt: str
    """Unique per attempt, so that an answer to an older one is not taken for this one's."""
    phase: MigrationPhase
    target_lease: int = 0
    target_address: str = ""
    admission: str = ""
    """What the target's hypervisor has to be given with the guest; it forgets it when it starts anew."""
    message: str = ""


class VmClaim(Document, frozen=True, kw_only=True):
    """The right to run a VM's domain.  Persistent: it never expires by time.

    A released claim stays as a document without holder, so that ``epoch`` never runs backwards.
    """

    vm: str
    node: str
    """The holder; empty: nobody."""
    lease: int
    """Generation of the holder's lease when the claim was last taken or renewed."""
    epoch: int
    """Raised each time the claim gets a new holder; a fencing token for storage."""
    migration: MigrationRecord | None = None

    def may_execute_on(self, node: str) -> bool:
        """Return whether the guest may execute on a node: on its holder, or on where it may have arrived."""
        record = self.migration
        arriving = record is not None and record.target == node and record.phase in MAY_EXECUTE_ON_TARGET
        return self.node == node or arriving


_WRITABLE: Final = frozenset({"disk", "filesystem", "hostdev"})
"""Devices by which a guest writes to more than its disks."""


def disk_names(vm: VmSpec) -> tuple[str, ...]:
    """Return a VM's disks as ``pool/volume``."""
    return tuple(disk.path for disk in vm.disks)


def kept_disks(vm: VmSpec) -> tuple[Disk, ...]:
    """Return the disks that are not to be taken away: those that a guest is started with."""
    return tuple(disk for disk in vm.disks if not disk.removing)


def removed_disks(vm: VmSpec) -> tuple[str, ...]:
    """Return the disks that are to be taken away, as ``pool/volume``."""
    return tuple(disk.path for disk in vm.disks if disk.removing)


def kept_nics(vm: VmSpec) -> tuple[Nic, ...]:
    """Return the NICs that are not to be taken away: those that a guest is started with."""
    return tuple(nic for nic in vm.nics if not nic.removing)


def removed_nics(vm: VmSpec) -> tuple[str, ...]:
    """Return the MAC addresses of the NICs that are to be taken away."""
    return tuple(nic.mac for nic in vm.nics if nic.removing)


def kept_devices(vm: VmSpec) -> VmSpec:
    """Return a VM without the disks and NICs that are to be taken away."""
    return msgspec.structs.replace(vm, disks=kept_disks(vm), nics=kept_nics(vm))


def started_with(vm: VmSpec) -> dict[str, Any]:
    """Return what the status of a guest that is started from this spec remembers of it."""
    disks = kept_disks(vm)
    return {
        "running_hardware": hardware(vm),
        "running_disks": tuple(disk.path for disk in disks) if _only_its_disks(vm) else None,
        "guest_disks": disks,
        "guest_nics": kept_nics(vm),
        "unsettled": (),
    }


def _only_its_disks(vm: VmSpec) -> bool:
    """Return whether a guest of this spec can write to nothing but its disks: its overlay may give it more devices."""
    if not vm.overlay_xml:
        return True
    from xml.etree import ElementTree as ET  # only nodes need it

    try:
        overlay = ET.fromstring(vm.overlay_xml)  # noqa: S314  (was checked when the VM was defined)
    except ET.ParseError:
        return False
    # Elements of another namespace are QEMU's own command line.
    return not any(element.tag in _WRITABLE or element.tag.startswith("{http") for element in overlay.iter())


_HARDWARE: Final = (
    "memory_mib",
    "vcpus",
    "machine",
    "cpu_model",
    "accelerator",
    "firmware",
    "direct_kernel",
    "vnc",
    "guest_agent",
    "overlay_xml",
)
_HARDWARE_AND_NICS: Final = (*_HARDWARE[:9], "nics", *_HARDWARE[9:])
"""What the fingerprint was made of before NICs could be plugged in."""
_HARDWARE_AND_DISKS: Final = (*_HARDWARE[:9], "disks", "nics", *_HARDWARE[9:])
"""The same before disks could."""


def with_hardware(vm: VmSpec, other: VmSpec) -> VmSpec:
    """Return a VM with the hardware, disks and NICs included, of another definition of it."""
    return msgspec.structs.replace(vm, **{field: getattr(other, field) for field in _HARDWARE_AND_DISKS})


def hardware(vm: VmSpec) -> str:
    """Return a fingerprint of all that a running guest takes over only when it is started again, but for disks and NICs."""
    return _fingerprint(vm, _HARDWARE)


def hardware_changed(vm: VmSpec, status: VmStatus) -> bool:
    """Return whether the running guest has other hardware than its spec says, disks and NICs apart where those are known."""
    if not status.running_hardware:
        return False
    fields: tuple[str, ...] = _HARDWARE if status.guest_nics is not None else _HARDWARE_AND_NICS
    if status.guest_disks is None:
        fields = _HARDWARE_AND_DISKS
    return _fingerprint(vm, fields) != status.running_hardware


def _fingerprint(vm: VmSpec, fields: tuple[str, ...]) -> str:
    import hashlib  # only nodes need it, and every command would pay for its import

    parts = msgspec.json.encode([getattr(vm, field) for field in fields])
    return hashlib.sha256(parts).hexdigest()[:16]
