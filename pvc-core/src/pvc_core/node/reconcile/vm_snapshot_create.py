"""Making a snapshot of a whole VM: the task ``vm-snapshot.create``.

1. The names that are about to exist are recorded, after it was seen that no volume has such a snapshot.
2. A guest that runs here stands still (``standstill``) while the snapshots of all volumes are made, at the same time.
3. In one transaction the document says that the snapshot is complete; it demands that the claim of the VM is as it was
   before, so that no guest was started, ended or moved meanwhile.

A task that fails deletes what it made, and then the document.  One that is repeated because its daemon died begins by deleting
what was made.
"""

import logging
from functools import partial
from typing import Final, NamedTuple

from msgspec.structs import replace

from pvc_core.hypervisor.api import Domain, DomainState, HypervisorError
from pvc_core.model.errors import AlreadyExists, Conflict, InvalidRequest, NotFound, PvcError
from pvc_core.model.task import Task
from pvc_core.model.vm import VmClaim, VmSpec, kept_disks
from pvc_core.model.vm_snapshot import Consistency, VmSnapshot, VmSnapshotState
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.standstill import STILL_S, Standstill, let_go_left
from pvc_core.node.reconcile.together import Calls, Together
from pvc_core.node.reconcile.vm_snapshot_members import (
    Member,
    Result,
    alone,
    begin,
    check_stop,
    find_members,
    snapshot_of,
    tell,
)
from pvc_core.ops.transaction import attempt
from pvc_core.ops.vm_snapshot_documents import removal_operations
from pvc_core.plugin.errors import DriverError, ObjectMissing
from pvc_core.plugin.specs.storage import Cancelled, Progress
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent, Operation, TransactionFailed
from pvc_core.store.documents import Entry, read

log = logging.getLogger(__name__)

_FREEZE: Final = ("auto", "always", "never")


class _Instant(NamedTuple):
    """What the contents of the disks are."""

    consistency: Consistency
    created: float
    paused_s: float = 0.0
    not_frozen: str = ""


class CreateVmSnapshot:
    """The runner.  ``together`` makes the snapshots of the volumes at the same time."""

    def __init__(self, context: NodeContext, exclusive: Exclusive, together: Together) -> None:
        self._c = context
        self._exclusive = exclusive
        self._together = together

    def __call__(self, task: Task, progress: Progress) -> Result:
        """Make the snapshot; see ``TaskRunner``."""
        freeze = task.arguments.get("freeze", "auto")
        if freeze not in _FREEZE:
            raise InvalidRequest(f"task {task.kind} needs the argument 'freeze', one of {', '.join(_FREEZE)}")
        snapshot = snapshot_of(self._c, task).value
        if snapshot.state is VmSnapshotState.COMPLETE:
            return _result(snapshot)  # the daemon died after it had said so
        with alone(self._exclusive, [disk.volume for disk in snapshot.disks], progress):
            try:
                members = self._members(snapshot)
                snapshot = self._prepare(task, snapshot, members, progress)
                instant = self._take(task, snapshot, members, str(freeze), progress)
            except (PvcError, Cancelled) as error:
                left = self._undo(task)
                if not left or isinstance(error, Cancelled):
                    raise
                raise DriverError(f"{error}; what had been made of it is still to be removed ({left})") from error
            tell(self._c, members)
        log.info(
            "vm-snapshot-made vm=%s name=%s consistency=%s paused_s=%.3f",
            snapshot.vm,
            snapshot.name,
            instant.consistency.value,
            instant.paused_s,
        )
        made: Result = {"paused_s": round(instant.paused_s, 3), "not_frozen": instant.not_frozen}
        return _result(replace(snapshot, consistency=instant.consistency)) | made

    # --- before -------------------------------------------------------------------------------------

    def _members(self, snapshot: VmSnapshot) -> list[Member]:
        members, gone = find_members(self._c, snapshot.disks)
        if gone:
            raise NotFound(f"volume {gone[0].path} does not exist any more")
        return members

    def _prepare(self, task: Task, snapshot: VmSnapshot, members: list[Member], progress: Progress) -> VmSnapshot:
        """Make sure that no volume has a snapshot of this name, and record that some are about to have."""
        if snapshot.begun:
            _delete(members, snapshot)
        for member in members:
            check_stop(progress, 0.0)
            if snapshot.name in member.snapshots():
                raise AlreadyExists(f"volume {member.path} has a snapshot {snapshot.name!r} of its own already")
        return begin(self._c, task, snapshot.name)

    # --- the instant --------------------------------------------------------------------------------

    def _take(
        self, task: Task, snapshot: VmSnapshot, members: list[Member], freeze: str, progress: Progress
    ) -> _Instant:
        calls: Calls | None = None
        try:
            with alone(self._exclusive, [snapshot.vm], progress):
                claim, domain = self._look(snapshot)
                calls_of = partial(self._begin_all, snapshot, members)
                if domain is None:
                    calls = calls_of()
                    _demand(calls)
                    instant = _Instant(Consistency.OFFLINE, self._c.clock.wall())
                else:
                    still = Standstill(self._c.hypervisor, snapshot.vm)
                    try:
                        not_frozen = _freeze(still, freeze)
                        check_stop(progress, 0.1)
                        began, created = self._c.clock.monotonic(), self._c.clock.wall()
                        still.pause()
                        calls = calls_of()
                        self._wait(calls, still, progress)
                        paused_s = self._c.clock.monotonic() - began
                    finally:
                        still.end()
                    _demand(calls)
                    frozen = Consistency.CRASH if not_frozen else Consistency.FILESYSTEM
                    instant = _Instant(frozen, created, paused_s, not_frozen)
                self._complete(task, claim, instant)
                return instant
        finally:
            if calls is not None:
                # One that is late must not make its snapshot after what was made has been deleted.
                calls.failures()

    def _begin_all(self, snapshot: VmSnapshot, members: list[Member]) -> Calls:
        return self._together([partial(m.driver.snapshot_create, m.ref, snapshot.name) for m in members])

    def _look(self, snapshot: VmSnapshot) -> tuple[Entry[VmClaim] | None, Domain | None]:
        """Return the claim, and the domain when the guest runs here; raises when the snapshot cannot be made as it is."""
        vm, claim = read(self._c.store, keys.vm_spec(snapshot.vm)), read(self._c.store, keys.claim(snapshot.vm))
        if vm is None or vm.value.deleting:
            raise NotFound(f"VM {snapshot.definition.name!r} was removed")
        name, holder = vm.value.name, claim.value.node if claim is not None else ""
        if _paths(vm.value) != _paths(snapshot.definition):
            raise Conflict(f"the disks of VM {name!r} were changed meanwhile: repeat it")
        if claim is not None and holder and claim.value.migration is not None:
            raise Conflict(f"VM {name!r} is moving to node {claim.value.migration.target}: repeat it when it is there")
        if holder not in ("", self._c.name):
            raise Conflict(f"VM {name!r} runs on node {holder} by now: repeat it")
        domain = self._c.hypervisor.domain(snapshot.vm)
        if domain is not None and domain.note and claim is not None:
            let_go_left(self._c.hypervisor, self._c.name, claim.value, domain)
            domain = self._c.hypervisor.domain(snapshot.vm)
        if domain is not None and (domain.state is not DomainState.RUNNING or not holder):
            raise Conflict(
                f"the guest of VM {name!r} is {domain.state.value}, and not by a snapshot: let it go on, or end it, first"
            )
        return claim, domain

    def _wait(self, calls: Calls, still: Standstill, progress: Progress) -> None:
        if not calls.done_within(STILL_S, lambda: progress(0.5)):
            check_stop(progress, 0.5)
            raise DriverError(
                f"the snapshots of the volumes were not all made within {STILL_S:g} s, longer than which a guest is not kept "
                "standing still: it goes on, and nothing is kept"
            )
        if not still.held():
            raise Conflict("the guest ended, or somebody let it go on, while its disks were being kept: repeat it")

    def _complete(self, task: Task, claim: Entry[VmClaim] | None, instant: _Instant) -> None:
        entry = snapshot_of(self._c, task)
        new = replace(
            entry.value,
            state=VmSnapshotState.COMPLETE,
            begun=False,
            consistency=instant.consistency,
            created=instant.created,
        )
        path = keys.claim(new.vm).path
        same: Operation = CheckAbsent(path) if claim is None else Check(path, claim.version)
        try:
            self._c.store.commit(entry.put(new), same, *self._c.lease.guard())
        except TransactionFailed as error:
            raise Conflict(
                f"VM {new.definition.name!r} was started, stopped or moved while its disks were being kept: repeat it"
            ) from error

    # --- after a failure ----------------------------------------------------------------------------

    def _undo(self, task: Task) -> str:
        """Remove what was made, then the document; return why that could not be, or an empty string."""
        try:
            snapshot = snapshot_of(self._c, task).value
            if snapshot.begun:
                # Nobody else works on it: a task that another node has by now must not lose its snapshots to us.
                self._c.catch_up()
                members, _ = find_members(self._c, snapshot.disks)
                _delete(members, snapshot)
                tell(self._c, members)
            attempt("the document of the snapshot could not be removed", lambda: self._forget(task))
        except NotFound:
            return ""  # it was removed together with the VM, or another task has it
        except PvcError as error:
            log.warning("vm-snapshot-left task=%s error=%s", task.id, error)
            return str(error)
        return ""

    def _forget(self, task: Task) -> None:
        entry = snapshot_of(self._c, task)
        self._c.store.commit(*removal_operations(self._c.store, [entry]), *self._c.lease.guard())


def _freeze(still: Standstill, wanted: str) -> str:
    if wanted == "never":
        return "it was not asked for"
    not_frozen = still.freeze()
    if not_frozen and wanted == "always":
        raise HypervisorError(f"the file systems of the guest could not be frozen: {not_frozen}")
    return not_frozen


def _paths(vm: VmSpec) -> list[str]:
    return [disk.path for disk in kept_disks(vm)]


def _demand(calls: Calls) -> None:
    failures = calls.failures()
    if failures:
        raise failures[0]


def _delete(members: list[Member], snapshot: VmSnapshot) -> None:
    for member in members:
        for name in snapshot.names:
            try:
                member.driver.snapshot_delete(member.ref, name)
            except ObjectMissing:
                continue  # the volume is gone, and its snapshots with it


def _result(snapshot: VmSnapshot) -> Result:
    consistency = snapshot.consistency.value if snapshot.consistency is not None else ""
    return {"snapshot": snapshot.name, "consistency": consistency, "disks": len(snapshot.disks)}
