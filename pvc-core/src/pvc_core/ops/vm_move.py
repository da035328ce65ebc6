"""Moving VMs between nodes."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.vm import MigrationMethod, VmSpec
from pvc_core.ops import resolve
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request, View
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_placing import Choice, choose_node
from pvc_core.ops.vm_resources import read_resources
from pvc_core.ops.vm_views import VmView, read_view
from pvc_core.ops.vm_write import VmDocuments, changed, on_node, read_vm

log = logging.getLogger(__name__)


class VmMove(Request, frozen=True, kw_only=True):
    """Place a VM on another node for good."""

    vm: str
    node: str | None = None
    """None: one is chosen."""
    method: MigrationMethod | None = None
    """For this move only; None: the VM's own method."""


class VmMigrate(Request, frozen=True, kw_only=True):
    """Move a VM for a while: ``unmigrate`` and ``node ready`` bring it back."""

    vm: str
    node: str | None = None
    method: MigrationMethod | None = None
    force: bool = False
    """Also a VM that is away from home already; its home stays the same."""


class VmUnmigrate(Request, frozen=True, kw_only=True):
    """Bring a VM back home."""

    vm: str
    method: MigrationMethod | None = None


class VmMoved(View, frozen=True, kw_only=True):
    """Where it goes."""

    vm: VmView
    source: str | None
    target: str
    chosen_by: str = ""
    """Selector that chose the target; empty when it was named."""


class _Goal(NamedTuple):
    wanted: str | None
    home: Callable[[str], str | None]
    """Target -> the home to remember."""


def vm_move(ops: Ops, request: VmMove) -> VmMoved:
    """Move a VM; a move of a migrated one makes its new place its home.

    A VM that does not run is only placed.  Raises NotFound, NoNodeFits, InvalidRequest.
    """

    def goal(vm: VmSpec) -> _Goal:
        if request.node is not None and request.node == vm.node and vm.home is None:
            raise InvalidRequest(f"VM {vm.name!r} is on node {vm.node} already")
        return _Goal(request.node, lambda _: None)

    return _relocate(ops, "move", request.vm, request.method, goal)


def vm_migrate(ops: Ops, request: VmMigrate) -> VmMoved:
    """Move a VM and remember its home.  Raises NotFound, NoNodeFits, InvalidRequest."""

    def goal(vm: VmSpec) -> _Goal:
        if vm.node is None:
            raise InvalidRequest(
                f"VM {vm.name!r} has no node yet, so it has no home: start it, or place it with 'vm move'"
            )
        if vm.home is not None and not request.force:
            raise InvalidRequest(
                f"VM {vm.name!r} is away from its home {vm.home} already: bring it back with 'vm unmigrate', or migrate it "
                "with force, which keeps that home"
            )
        if request.node == vm.node:
            raise InvalidRequest(f"VM {vm.name!r} is on node {vm.node} already")
        home = vm.home or vm.node
        return _Goal(request.node, lambda target: None if target == home else home)

    return _relocate(ops, "migrate", request.vm, request.method, goal)


def vm_unmigrate(ops: Ops, request: VmUnmigrate) -> VmMoved:
    """Bring a VM home.  Raises NotFound, NoNodeFits, InvalidRequest when it is at home."""

    def goal(vm: VmSpec) -> _Goal:
        if vm.home is None:
            raise InvalidRequest(f"VM {vm.name!r} is at home" + (f" on node {vm.node}" if vm.node else ""))
        return _Goal(vm.home, lambda _: None)

    return _relocate(ops, "unmigrate", request.vm, request.method, goal)


def _relocate(
    ops: Ops, what: str, name: str, method: MigrationMethod | None, goal: Callable[[VmSpec], _Goal]
) -> VmMoved:
    def once() -> tuple[VmSpec, str | None, Choice]:
        vm = read_vm(ops, name)
        spec = vm.spec
        wanted, home = goal(spec)
        stays = wanted is not None and wanted == spec.node  # only its home changes
        choice = Choice(wanted) if wanted is not None and stays else _choose(ops, vm, wanted)
        new = changed(spec, node=choice.node, home=home(choice.node), move_method=method)
        ops.store.commit(*vm.write(new), *on_node(choice.node))
        return new, spec.node, choice

    new, source, choice = attempt(f"{what} of VM {name!r} failed", once)
    log.info("vm-%s vm=%s source=%s target=%s home=%s", what, new.id, source, new.node, new.home)
    return VmMoved(vm=read_view(ops, new), source=source, target=choice.node, chosen_by=choice.chosen_by)


def _choose(ops: Ops, vm: VmDocuments, wanted: str | None) -> Choice:
    spec = vm.spec
    if wanted is not None and not vm.holder and spec.power != "running":
        # It only gets another place; whether it fits is seen when it is started.
        resolve.node(ops, wanted)
        if spec.node_limit and wanted not in spec.node_limit:
            raise InvalidRequest(
                f"node {wanted} is not in the node limit of VM {spec.name!r} ({', '.join(spec.node_limit)})"
            )
        return Choice(wanted)
    capabilities = read_resources(ops, spec).capabilities(spec)
    exclude = {spec.node: "it is there now"} if spec.node else {}
    return choose_node(ops, spec, capabilities, wanted=wanted, exclude=exclude)
