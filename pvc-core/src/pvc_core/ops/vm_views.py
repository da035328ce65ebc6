"""VMs as people and scripts see them: list, info, dump."""

from pvc_core.model.base import Condition
from pvc_core.model.node import GuestUsage
from pvc_core.model.vm import MigrationResult, Power, VmClaim, VmSpec, VmStatus
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.vm_definition import VmDefine


class VmView(View, frozen=True, kw_only=True):
    """A VM in a list, and what most operations on a VM answer."""

    id: str
    name: str
    generation: int
    """Generation of the spec; the effect is there when the status has observed it."""
    settled: bool
    """The responsible node has seen this generation."""
    state: str
    """A VmState, or ``unknown`` when the node that reported it is not alive."""
    power: Power
    """What is wanted."""
    node: str | None
    """Where it is placed."""
    running_on: str | None = None
    """Where it runs, while it does."""
    home: str | None = None
    memory_mib: int
    vcpus: int
    tags: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    """As ``pool/volume``."""
    autostart: bool = False
    description: str = ""
    reason: str = ""
    deleting: bool = False


class VmInfo(View, frozen=True, kw_only=True):
    """Everything about one VM."""

    view: VmView
    spec: VmSpec
    status: VmStatus | None
    claim: VmClaim | None
    usage: GuestUsage | None
    conditions: tuple[Condition, ...] = ()
    last_migration: MigrationResult | None = None


class VmList(Request, frozen=True, kw_only=True):
    """Which VMs to list; all given conditions must hold."""

    name: str = ""
    """Regular expression found anywhere in the name (anchor it with ^ and $), or an id."""
    node: str = ""
    state: str = ""
    tag: str = ""
    negate: bool = False
    """List the others."""


class VmQuery(Request, frozen=True, kw_only=True):
    """One VM."""

    vm: str
    """Name or id."""


def vm_list(ops: Ops, request: VmList) -> list[VmView]:
    """List VMs, sorted by name, in three round trips for any number of VMs.

    Raises InvalidRequest for a malformed regular expression or an unknown state.
    """
    raise NotImplementedError


def vm_info(ops: Ops, request: VmQuery) -> VmInfo:
    """Return everything about a VM.  Raises NotFound."""
    raise NotImplementedError


def vm_dump(ops: Ops, request: VmQuery) -> VmDefine:
    """Return the definition of a VM, as ``vm_define`` takes it.  Raises NotFound."""
    raise NotImplementedError
