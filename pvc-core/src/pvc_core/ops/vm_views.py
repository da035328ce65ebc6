"""VMs as people and scripts see them: list, info, dump."""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from pvc_core.model.base import Condition
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.model.node import GuestUsage
from pvc_core.model.vm import MigrationResult, Power, VmClaim, VmSpec, VmState, VmStatus
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.snapshot import StatusRow, VmRow, status_row, vm_row
from pvc_core.ops.vm_definition import VmDefine, definition_of
from pvc_core.store import keys
from pvc_core.store.documents import Entry, maybe, read

UNKNOWN: Final = "unknown"
"""State of a VM whose node was running it and is not alive: it may well run there still."""

STATES: Final = (*(state.value for state in VmState), UNKNOWN)
"""What ``VmView.state`` may be."""

_LIVE: Final = frozenset({"starting", "running", "stopping", "migrating", "backoff"})


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
    """List VMs, sorted by name, in two pipelined reads for any number of VMs.

    Raises InvalidRequest for a malformed regular expression or an unknown state.
    """
    name = resolve.pattern(request.name)
    if request.state and request.state not in STATES:
        raise InvalidRequest(
            f"there is no VM state {request.state!r}{did_you_mean(request.state, STATES)}; "
            f"states are {', '.join(sorted(STATES))}"
        )
    ids, leases = ops.store.children_many([f"{keys.SPEC}/vm", keys.LEASE])
    alive = frozenset(leases)
    found = ops.store.get_many(
        [keys.vm_spec(id_).path for id_ in ids] + [keys.vm_status(id_).path for id_ in ids],
    )
    views: list[VmView] = []
    for id_, spec, status in zip(ids, found[: len(ids)], found[len(ids) :], strict=True):
        if spec is None:
            continue  # removed since the listing
        view = row_view(vm_row(id_, spec), status_row(id_, status) if status is not None else None, alive)
        if _matches(view, request, name) != request.negate:
            views.append(view)
    return sorted(views, key=lambda view: (view.name, view.id))


def vm_info(ops: Ops, request: VmQuery) -> VmInfo:
    """Return everything about a VM.  Raises NotFound."""
    return read_info(ops, resolve.vm(ops, request.vm))


def vm_dump(ops: Ops, request: VmQuery) -> VmDefine:
    """Return the definition of a VM, as ``vm_define`` takes it.  Raises NotFound."""
    return definition_of(resolve.vm(ops, request.vm).value)


def read_info(ops: Ops, entry: Entry[VmSpec]) -> VmInfo:
    """Return everything about a VM whose spec was read."""
    spec = entry.value
    status_key, claim_key = keys.vm_status(spec.id), keys.claim(spec.id)
    alive = frozenset(ops.store.children(keys.LEASE))
    found = ops.store.get_many([status_key.path, claim_key.path])
    status, claim = maybe(status_key, found[0]), maybe(claim_key, found[1])
    runs_on = claim.value.node if claim is not None else ""
    usage = read(ops.store, keys.usage(runs_on)) if runs_on else None
    return VmInfo(
        view=spec_view(spec, status.value if status else None, alive),
        spec=spec,
        status=status.value if status else None,
        claim=claim.value if claim is not None and claim.value.node else None,
        usage=usage.value.guests.get(spec.id) if usage else None,
        conditions=status.value.conditions if status else (),
        last_migration=status.value.last_migration if status else None,
    )


def read_view(ops: Ops, spec: VmSpec) -> VmView:
    """Return the row of a VM whose spec was just written."""
    status = read(ops.store, keys.vm_status(spec.id))
    alive = frozenset(ops.store.children(keys.LEASE))
    return spec_view(spec, status.value if status else None, alive)


def spec_view(spec: VmSpec, status: VmStatus | None, alive: Collection[str]) -> VmView:
    """Return the row of a VM from its whole documents."""
    row = msgspec.convert(spec, VmRow, from_attributes=True)
    if status is None:
        return row_view(row, None, alive)
    seen = StatusRow(
        state=status.state.value,
        node=status.node,
        observed_generation=status.observed_generation,
        reason=status.reason,
        halted=status.halted,
    )
    return row_view(row, seen, alive)


def row_view(row: VmRow, status: StatusRow | None, alive: Collection[str]) -> VmView:
    """Return the row of a VM; ``alive`` are the nodes whose lease exists."""
    state, reason = shown_state(row, status, alive)
    live = state in _LIVE and status is not None
    return VmView(
        id=row.id,
        name=row.name,
        generation=row.generation,
        settled=_settled(row, status),
        state=state,
        power=row.power,
        node=row.node,
        running_on=status.node if live and status is not None and state != "starting" else None,
        home=row.home,
        memory_mib=row.memory_mib,
        vcpus=row.vcpus,
        tags=tuple(tag.name for tag in row.tags),
        networks=tuple(dict.fromkeys(nic.network for nic in row.nics)),
        volumes=tuple(f"{disk.pool}/{disk.volume}" for disk in row.disks),
        autostart=row.autostart,
        description=row.description,
        reason=reason,
        deleting=row.deleting,
    )


def shown_state(row: VmRow, status: StatusRow | None, alive: Collection[str]) -> tuple[str, str]:
    """Return a VM's state as one word, and the reason when there is one.

    What its node reported last, except where that node cannot know better: it is not alive, or there is none.
    """
    reported = status.state if status is not None else ""
    live = reported in _LIVE
    if row.deleting:
        return VmState.DELETING.value, status.reason if status is not None else ""
    if status is not None and live and status.node not in alive:
        return UNKNOWN, f"node {status.node} is not alive; it was {reported} there"
    if status is None or (row.node is None and not live):
        if row.power == "running":
            if row.node is None:
                return VmState.WAITING.value, "no node has room for it"
            return VmState.STARTING.value, "" if row.node in alive else f"node {row.node} is not alive"
        return row.power, ""
    if reported in ("stopped", "disabled") and row.power != "running":
        return row.power, status.reason
    if _given_up(row, status):
        return row.power, ""
    return reported, status.reason


def _given_up(row: VmRow, status: StatusRow) -> bool:
    """Return whether it waited for a place, without a guest, and is not to run any more.

    Where its node is dead nobody else says so: the primary only writes why a VM that should run does not.
    """
    return status.state == VmState.WAITING and row.power != "running"


def _settled(row: VmRow, status: StatusRow | None) -> bool:
    if row.node is None:
        return status is None or status.state not in _LIVE
    return status is not None and (status.observed_generation >= row.generation or _given_up(row, status))


def _matches(view: VmView, request: VmList, name: re.Pattern[str]) -> bool:
    return (
        (name.search(view.name) is not None or request.name == view.id)
        and (not request.node or request.node in (view.node, view.running_on))
        and (not request.state or request.state == view.state)
        and (not request.tag or request.tag in view.tags)
    )
