"""Starting and stopping VMs."""

import logging
from collections.abc import Callable

from pvc_core.model.errors import InUse, InvalidRequest
from pvc_core.model.vm import VmSpec
from pvc_core.ops.context import Ops
from pvc_core.ops.message import Request
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_placing import choose_node
from pvc_core.ops.vm_resources import read_resources
from pvc_core.ops.vm_snapshot_documents import require_no_rollback
from pvc_core.ops.vm_views import VmQuery, VmView, read_view
from pvc_core.ops.vm_write import VmDocuments, changed, on_node, read_vm

log = logging.getLogger(__name__)


class VmStop(Request, frozen=True, kw_only=True):
    """Cut a VM's power."""

    vm: str


class VmDisable(Request, frozen=True, kw_only=True):
    """Switch a VM off on purpose: it is not started by autostart and not counted as unhealthy."""

    vm: str
    force: bool = False
    """Also when its guest runs: the power is cut."""


class VmStart(Request, frozen=True, kw_only=True):
    """Start a VM."""

    vm: str
    node: str | None = None
    """Start it here; refused with the reason when this node cannot take it.  None: where it is placed if that node
    can take it, else a chosen one."""


def vm_start(ops: Ops, request: VmStart) -> VmView:
    """Start a VM; one that runs is left alone, one that waits for a place is given one.

    Raises NotFound, NoNodeFits, InvalidRequest (another node while it runs), InUse (its disks are being rolled back).
    """
    return _write(ops, "start", request.vm, lambda vm: _started(ops, vm, request.node))


def vm_shutdown(ops: Ops, request: VmQuery) -> VmView:
    """Ask the guest to shut down; its power is cut after ``shutdown_timeout_s``.  A disabled VM stays disabled."""
    return _write(ops, "shutdown", request.vm, lambda vm: _off(vm, forced=False))


def vm_stop(ops: Ops, request: VmStop) -> VmView:
    """Cut a VM's power now."""
    return _write(ops, "stop", request.vm, lambda vm: _off(vm, forced=True))


def vm_restart(ops: Ops, request: VmQuery) -> VmView:
    """Shut the guest down in good order and start it again.  Raises InvalidRequest when it should not be running."""
    return _write(ops, "restart", request.vm, _restarted)


def vm_disable(ops: Ops, request: VmDisable) -> VmView:
    """Keep a VM off.  Raises InUse when its guest runs and ``force`` is not given."""
    return _write(ops, "disable", request.vm, lambda vm: _disabled(vm, force=request.force))


def _write(ops: Ops, what: str, name: str, next_: Callable[[VmDocuments], VmSpec | None]) -> VmView:
    def once() -> VmSpec:
        vm = read_vm(ops, name)
        new = next_(vm)
        if new is None:
            return vm.spec
        # A start is what ends the rest of a guest that ended for good; the others leave it off, by ``power``.
        ops.store.commit(*vm.write_start(new), *on_node(new.node if new.node != vm.spec.node else None))
        log.info("vm-%s vm=%s node=%s generation=%d", what, new.id, new.node, new.generation)
        return new

    return read_view(ops, attempt(f"{what} of VM {name!r} failed", once))


def _started(ops: Ops, vm: VmDocuments, wanted: str | None) -> VmSpec | None:
    spec = vm.spec
    require_no_rollback(ops, spec)
    runs = spec.power == "running" and not vm.halted
    if runs and wanted is not None and wanted != spec.node and vm.holder:
        raise InvalidRequest(
            f"VM {spec.name!r} runs on node {vm.holder} already; move it with 'vm move' or 'vm migrate'"
        )
    if runs and vm.holder:
        return None
    capabilities = read_resources(ops, spec).capabilities(spec)
    chosen = choose_node(ops, spec, capabilities, wanted=wanted, preferred=spec.node or vm.holder or None)
    if runs and chosen.node == spec.node:
        return None  # it is on its way there
    home = spec.home
    if wanted is not None:
        home = None
    elif chosen.node != spec.node:
        home = spec.home or spec.node
    return changed(
        spec,
        power="running",
        stop_forced=False,
        node=chosen.node,
        home=None if home == chosen.node else home,
        move_method=None,
    )


def _off(vm: VmDocuments, *, forced: bool) -> VmSpec | None:
    spec = vm.spec
    if spec.power == "disabled" or (spec.power == "stopped" and (spec.stop_forced or not forced or not vm.holder)):
        return None
    return changed(spec, power="stopped", stop_forced=forced)


def _restarted(vm: VmDocuments) -> VmSpec:
    if vm.spec.power != "running":
        raise InvalidRequest(f"VM {vm.spec.name!r} is {vm.spec.power}; start it with 'vm start'")
    return changed(vm.spec, restart_request=vm.spec.restart_request + 1)


def _disabled(vm: VmDocuments, *, force: bool) -> VmSpec | None:
    if vm.spec.power == "disabled":
        return None
    if vm.holder and not force:
        raise InUse(
            f"VM {vm.spec.name!r} runs on node {vm.holder}: shut it down first, or disable it with force, which cuts "
            "its power"
        )
    return changed(vm.spec, power="disabled")
