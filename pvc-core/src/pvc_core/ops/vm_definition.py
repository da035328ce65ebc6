"""The definition of a VM as people write it, and its conversion to and from a spec."""

import uuid
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from pvc_core.model.base import Value
from pvc_core.model.disk import Disk, DiskBus, DiskCache, DiskLimits
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import check_name
from pvc_core.model.units import parse_bytes, parse_mib
from pvc_core.model.vm import (
    DirectKernel,
    MigrationMethod,
    RestartPolicy,
    Tag,
    VmSpec,
    kept_disks,
    kept_nics,
)
from pvc_core.ops.message import Request
from pvc_core.ops.vm_nic_definition import NicDefinition, nic_definition, nics


class LimitsDefinition(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a disk may do per second at most, as ``model.disk.DiskLimits``; bandwidths in bytes, or as ``100M``."""

    iops: int = 0
    read_iops: int = 0
    write_iops: int = 0
    bandwidth: int | str = 0
    read_bandwidth: int | str = 0
    write_bandwidth: int | str = 0
    iops_burst: int = 0
    read_iops_burst: int = 0
    write_iops_burst: int = 0
    bandwidth_burst: int | str = 0
    read_bandwidth_burst: int | str = 0
    write_bandwidth_burst: int | str = 0


class DiskDefinition(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume as a disk; the volume must exist and belong to no other VM."""

    pool: str
    volume: str
    bus: DiskBus = "virtio"
    read_only: bool = False
    cache: DiskCache = "none"
    discard: bool = True
    limits: LimitsDefinition = LimitsDefinition()

    @property
    def path(self) -> str:
        """``pool/volume``."""
        return f"{self.pool}/{self.volume}"


class VmDefine(Request, frozen=True, kw_only=True, omit_defaults=True):
    """A VM as a person writes it (``pvc vm define``), and as ``pvc vm dump`` prints it.

    Fields mean what those of ``model.vm.VmSpec`` mean.
    """

    name: str
    id: str = ""
    """UUID; empty: a new one."""
    description: str = ""
    memory: int | str
    """MiB, or a size such as ``2G``."""
    vcpus: Annotated[int, Meta(ge=1, le=4096)] = 1
    machine: str = "q35"
    cpu_model: str = ""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    firmware: Literal["bios", "uefi"] = "bios"
    direct_kernel: DirectKernel | None = None
    vnc: bool = False
    guest_agent: bool = True
    disks: tuple[DiskDefinition, ...] = ()
    nics: tuple[NicDefinition, ...] = ()
    overlay_xml: str = ""
    shutdown_timeout_s: Annotated[int, Meta(ge=1, le=86400)] = 180
    restart: RestartPolicy = "always"
    priority: Annotated[int, Meta(ge=-1000, le=1000)] = 0
    autostart: bool = False
    node: str | None = None
    """Place it here; None: a node is chosen when it is started."""
    node_limit: tuple[str, ...] = ()
    selector: str = ""
    migration: MigrationMethod = "live-or-shutdown"
    max_downtime_ms: Annotated[int, Meta(ge=1, le=60000)] = 300
    tags: tuple[Tag | str, ...] = ()
    start: bool = False
    """Start it at once."""


_SAME: Final = (
    "description",
    "vcpus",
    "machine",
    "cpu_model",
    "accelerator",
    "firmware",
    "direct_kernel",
    "vnc",
    "guest_agent",
    "overlay_xml",
    "shutdown_timeout_s",
    "restart",
    "priority",
    "autostart",
    "node_limit",
    "selector",
    "migration",
    "max_downtime_ms",
)
"""Fields that a definition and a spec have in common, with the same meaning."""

_DISK: Final = ("pool", "volume", "bus", "read_only", "cache", "discard")
"""The same of disks."""


def spec_fields(definition: VmDefine, macs: Iterator[str]) -> dict[str, Any]:
    """Return the fields of a VmSpec that a definition sets; raises InvalidRequest for malformed values.

    NICs without a MAC address get the next one of ``macs``.
    Not among them: id, node, power, tags.
    """
    fields = {field: getattr(definition, field) for field in _SAME}
    fields["name"] = check_name(definition.name, "VM name")
    fields["memory_mib"] = memory_mib(definition.memory)
    fields["disks"] = disks(definition.disks)
    fields["nics"] = nics(definition.nics, macs)
    return fields


def definition_of(spec: VmSpec) -> VmDefine:
    """Return the definition that makes this VM again."""
    return VmDefine(
        **{field: getattr(spec, field) for field in _SAME},
        name=spec.name,
        id=spec.id,
        memory=spec.memory_mib,
        node=spec.node,
        disks=tuple(disk_definition(disk) for disk in kept_disks(spec)),
        nics=tuple(nic_definition(nic) for nic in kept_nics(spec)),
        tags=tuple(tag if tag.protected else tag.name for tag in spec.tags),
    )


def memory_mib(memory: int | str) -> int:
    """Return a VM's memory in MiB; raises InvalidRequest."""
    size = parse_mib(memory)
    if not 1 <= size <= 64 * 1024 * 1024:
        raise InvalidRequest(f"memory {memory!r} is out of range: from 1 MiB to 64 TiB")
    return size


def disk_definition(disk: Disk) -> DiskDefinition:
    """Return the definition that makes this disk again."""
    fields = {field: getattr(disk, field) for field in _DISK}
    return DiskDefinition(**fields, limits=LimitsDefinition(**asdict(disk.limits)))


def disks(definitions: tuple[DiskDefinition, ...]) -> tuple[Disk, ...]:
    """Return the disks; raises InvalidRequest when a volume is there twice, or its limits contradict each other."""
    seen: set[str] = set()
    for disk in definitions:
        if disk.path in seen:
            raise InvalidRequest(f"volume {disk.path} is given twice: a volume is one disk of one VM")
        seen.add(disk.path)
    return tuple(_disk(definition) for definition in definitions)


def _disk(definition: DiskDefinition) -> Disk:
    limits = disk_limits(asdict(definition.limits), f"disk {definition.path}")
    return Disk(**{field: getattr(definition, field) for field in _DISK}, limits=limits)


def disk_limits(given: Mapping[str, int | str], what: str) -> DiskLimits:
    """Return limits by their names, of which a bandwidth may be written as ``100M``; raises InvalidRequest."""
    rates = {
        name: parse_bytes(rate, f"{what}: limit {name}") if "bandwidth" in name else rate
        for name, rate in given.items()
    }
    try:
        limits = msgspec.convert(rates, DiskLimits)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{what}: limits: {error}") from error
    problem = limits.problem()
    if problem:
        raise InvalidRequest(f"{what}: {problem}")
    return limits


def tags(definitions: tuple[Tag | str, ...]) -> tuple[Tag, ...]:
    """Return tags sorted by name; raises InvalidRequest for a malformed one or one that is there twice."""
    result: dict[str, Tag] = {}
    for item in definitions:
        tag = Tag(name=item) if isinstance(item, str) else item
        check_name(tag.name, "tag")
        if tag.name in result:
            raise InvalidRequest(f"tag {tag.name!r} is given twice")
        result[tag.name] = tag
    return tuple(sorted(result.values(), key=lambda tag: tag.name))


def check_id(id_: str) -> str:
    """Return a UUID in its usual form; raises InvalidRequest."""
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        raise InvalidRequest(
            f"{id_!r} is not a UUID; write it like 123e4567-e89b-42d3-a456-426614174000, or leave it out"
        ) from None
