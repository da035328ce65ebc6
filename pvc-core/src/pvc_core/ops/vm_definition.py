"""The definition of a VM as people write it, and its conversion to and from a spec."""

from typing import Annotated, Literal

from msgspec import Meta

from pvc_core.model.base import Value
from pvc_core.model.vm import DirectKernel, Disk, MigrationMethod, NicModel, RestartPolicy, Tag
from pvc_core.ops.message import Request


class NicDefinition(Value, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network card; without ``mac`` it gets one that no other VM of the cluster has."""

    network: str
    mac: str = ""
    model: NicModel = "virtio"
    link_up: bool = True
    parameters: dict[str, str] = {}


class DiskDefinition(Disk, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume as a disk; the volume must exist and belong to no other VM."""


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
