"""Volumes."""

from pvc_core.model.base import Condition
from pvc_core.model.storage import Snapshot
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View


class VolumeView(View, frozen=True, kw_only=True):
    """A volume."""

    id: str
    name: str
    pool: str
    """The pool's name."""
    generation: int
    settled: bool
    state: str
    """A VolumeState."""
    size_bytes: int
    used_bytes: int = 0
    format: str = ""
    vm: str | None = None
    """Name of the VM it belongs to."""
    source: str = ""
    description: str = ""
    node: str | None = None
    """The node that carries out changes."""
    task: str = ""
    """Task that makes its contents (an import)."""
    snapshots: tuple[Snapshot, ...] = ()
    conditions: tuple[Condition, ...] = ()
    deleting: bool = False


class VolumeAdd(Request, frozen=True, kw_only=True):
    """Add an empty volume."""

    pool: str
    name: str
    size: int | str
    """Bytes, or a size such as ``10G``."""
    format: str = ""
    description: str = ""


class VolumeClone(Request, frozen=True, kw_only=True):
    """Make a volume with the contents of another one of the same pool."""

    pool: str
    source: str
    """``volume`` or ``volume@snapshot``."""
    name: str
    full_copy: bool = False
    description: str = ""


class VolumeQuery(Request, frozen=True, kw_only=True):
    """One volume."""

    volume: str
    """``pool/volume`` or its id."""


class VolumeResize(Request, frozen=True, kw_only=True):
    """Grow a volume."""

    volume: str
    size: int | str


class VolumeRename(Request, frozen=True, kw_only=True):
    """Rename a volume within its pool."""

    volume: str
    name: str


class VolumeList(Request, frozen=True, kw_only=True):
    """Which volumes to list."""

    pool: str = ""
    name: str = ""
    """Regular expression found anywhere in the name."""
    vm: str = ""


def volume_add(ops: Ops, request: VolumeAdd) -> VolumeView:
    """Add a volume.  Raises NotFound (pool), InvalidRequest, AlreadyExists, NoNodeFits (no node with the driver)."""
    raise NotImplementedError


def volume_clone(ops: Ops, request: VolumeClone) -> VolumeView:
    """Clone a volume.  Raises NotFound (pool, source, snapshot), AlreadyExists."""
    raise NotImplementedError


def volume_resize(ops: Ops, request: VolumeResize) -> VolumeView:
    """Grow a volume.  Raises NotFound, InvalidRequest when it would shrink."""
    raise NotImplementedError


def volume_rename(ops: Ops, request: VolumeRename) -> VolumeView:
    """Rename a volume, and in the definition of its VM too.  Raises NotFound, AlreadyExists, InUse while the VM is not stopped."""
    raise NotImplementedError


def volume_remove(ops: Ops, request: VolumeQuery) -> VolumeView:
    """Delete a volume with its contents and snapshots.  Raises NotFound, InUse when it belongs to a VM."""
    raise NotImplementedError


def volume_list(ops: Ops, request: VolumeList) -> list[VolumeView]:
    """List volumes, sorted by pool and name.  Raises NotFound (pool, vm), InvalidRequest."""
    raise NotImplementedError


def volume_info(ops: Ops, request: VolumeQuery) -> VolumeView:
    """Return one volume.  Raises NotFound."""
    raise NotImplementedError


def volume_forget(ops: Ops, volume: str) -> bool:
    """Remove the documents of a volume that is being deleted; called by its node when the backend's volume is gone.

    Returns False when it is not being deleted, True when it is gone.
    """
    raise NotImplementedError


def choose_volume_node(ops: Ops, driver: str) -> str:
    """Return the ready node with a working driver of this name that has the fewest VMs; raises NoNodeFits."""
    raise NotImplementedError
