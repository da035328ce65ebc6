"""Carries out what ``plan.vm`` decides for a VM: one action per call."""

import logging
import uuid
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from pvc_core.hypervisor.api import (
    DomainPlan,
    ExitReason,
    HypervisorError,
    HypervisorUnavailable,
    MigrationOptions,
)
from pvc_core.hypervisor.domainxml import newest_common_machine
from pvc_core.model.errors import PvcError
from pvc_core.model.vm import (
    MigrationPhase,
    MigrationRecord,
    MigrationResult,
    VmClaim,
    VmSpec,
    VmStatus,
)
from pvc_core.node.context import NodeContext
from pvc_core.node.lease import LeaseLost
from pvc_core.node.reconcile import resources, vm_disks, vm_nics
from pvc_core.node.reconcile.exclusive import Exclusive
from pvc_core.node.reconcile.standstill import let_go_left
from pvc_core.node.reconcile.vm_devices import Attached, Devices, Writes
from pvc_core.node.reconcile.vm_view import VmDocuments, VmViews
from pvc_core.ops.context import Ops
from pvc_core.ops.vm_remove import vm_forget
from pvc_core.plan import vm as plan
from pvc_core.store import keys
from pvc_core.store.api import Check, Operation
from pvc_core.store.documents import create, read_many

log = logging.getLogger(__name__)

_BUSY_S: Final = 0.5
"""A snapshot of it is being made: look again after this."""


class VmReconciler:
    """Reconciles VMs on one node.

    ``parked`` tells whether a VM has to be shut down here because the node drains and no other has room.
    ``new_id`` makes unique ids of migration attempts.  Calls for one VM must not overlap; for different VMs
    they may.
    """

    def __init__(
        self,
        context: NodeContext,
        *,
        parked: Callable[[str], bool] = lambda _: False,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        exclusive: Exclusive | None = None,
    ) -> None:
        self._c = context
        self._views = VmViews(context, parked, self._ended)
        self._new_id = new_id
        self._exclusive = exclusive or Exclusive()
        self._attached: Attached = {}
        writes = Writes(self._commit, self._write_status, self._demand_lease)
        devices = Devices(context, self._views, self._attached, writes)
        self._disks, self._nics = vm_disks.VmDisks(devices), vm_nics.VmNics(devices)

    def reconcile(self, id_: str) -> float | None:
        """Do the next thing for this VM; see ``node.context.Reconciler``."""
        with self._exclusive.if_free(id_) as free:
            return self._step(id_) if free else _BUSY_S

    def _step(self, id_: str) -> float | None:
        lease = self._c.lease.generation()
        if lease is None:
            return None  # the agent looks at everything again when there is a lease
        read = self._views.read(id_)
        try:
            domain = self._c.hypervisor.domain(id_)
        except HypervisorUnavailable as error:
            self._refuse_unseen(id_, lease, read, error)
            raise
        if domain is not None and domain.note:
            claim = read.claim.value if read.claim is not None else None
            if let_go_left(self._c.hypervisor, self._c.name, claim, domain):
                domain = self._c.hypervisor.domain(id_)
        snapshot = self._views.snapshot(id_, lease, read, domain)
        action = plan.decide(snapshot)
        if not isinstance(action, plan.Idle):
            log.debug("vm-action vm=%s action=%s", id_, action)
        return self._do(id_, action, snapshot, read)

    def _ended(self, id_: str) -> None:
        reason = self._c.hypervisor.exit_reason(id_)
        log.info("domain-ended vm=%s reason=%s", id_, reason.value)
        if reason is not ExitReason.MIGRATED:
            self._c.drivers.notify("vm_stopped", vm=id_, node=self._c.name, reason=reason.value)

    # --- acting -------------------------------------------------------------------------------------

    def _do(self, id_: str, action: plan.Action, s: plan.Snapshot, read: VmDocuments) -> float | None:
        match action:
            case plan.Idle():
                return action.again_s
            case plan.SetStatus():
                self._set_status(id_, action, s, read)
            case plan.TakeClaim():
                self._take_claim(id_, action, s, read)
            case plan.RenewClaim():
                self._put_claim(read, lease=s.lease)
            case plan.ReleaseClaim():
                self._put_claim(read, node="", migration=None)
                log.info("claim-released vm=%s", id_)
            case plan.StartDomain():
                self._start(id_, s, read)
            case plan.ShutdownDomain():
                self._c.hypervisor.shutdown(id_)
                self._views.note(id_, shutdown_since=s.memory.shutdown_since or s.now, shutdown_asked=s.now)
                log.info("domain-shutdown-asked vm=%s", id_)
            case plan.DestroyDomain():
                log.warning("domain-destroy vm=%s why=%r", id_, action.why)
                self._c.hypervisor.destroy(id_)
            case plan.Detach():
                self._detach(id_, s)
            case plan.RemoveDocuments():
                self._remove(id_)
            case plan.RevertMove():
                self._revert_move(id_, action, s, read)
            case _ if isinstance(action, vm_disks.ACTIONS):
                self._disks.do(id_, action, s, read)
            case _ if isinstance(action, vm_nics.ACTIONS):
                self._nics.do(id_, action, s, read)
            case _:
                self._migrate(id_, action, s, read)
        return 0.0

    def _commit(self, *operations: Operation) -> None:
        """Commit under our lease: a node that lost it cannot write, however late its request arrives."""
        self._c.store.commit(*operations, *self._c.lease.guard())

    def _put_claim(self, read: VmDocuments, *more: Operation, **changes: object) -> None:
        assert read.claim is not None
        self._commit(read.claim.put(replace(read.claim.value, **changes)), *more)

    def _take_claim(self, id_: str, action: plan.TakeClaim, s: plan.Snapshot, read: VmDocuments) -> None:
        assert read.vm is not None
        # The spec still places it here: checked inside the transaction, not by an earlier read.
        placed = () if action.adopt else (Check(keys.vm_spec(id_).path, read.vm.version),)
        if read.claim is None:
            new = VmClaim(vm=id_, node=s.me, lease=s.lease, epoch=1)
            self._commit(create(keys.claim(id_), new), *placed)
        else:
            self._put_claim(read, *placed, node=s.me, lease=s.lease, epoch=read.claim.value.epoch + 1, migration=None)
        log.info("claim-taken vm=%s adopt=%s", id_, action.adopt)

    def _set_status(self, id_: str, action: plan.SetStatus, s: plan.Snapshot, read: VmDocuments) -> None:
        status = action.status
        source = s.memory.arrived_from if action.forget_arrival else ""
        if source:
            stats = self._c.hypervisor.migration_stats(id_)
            status = replace(
                status,
                last_migration=MigrationResult(
                    source=source,
                    target=s.me,
                    method="live",
                    ok=True,
                    duration_s=(stats.total_ms or 0) / 1000,
                    downtime_ms=stats.downtime_ms,
                    finished=self._c.clock.wall(),
                ),
            )
        self._write_status(id_, status, read)
        if action.backoff_s is not None:
            self._views.note(id_, backoff_until=s.now + action.backoff_s)
        if status.halted and status.halted == status.observed_generation:
            self._c.drivers.notify("vm_failed", vm=id_, node=s.me, reason=status.reason)
        if source:
            self._views.note(id_, arrived_from="")
            self._announce(id_, source, s)

    def _write_status(self, id_: str, status: VmStatus, read: VmDocuments) -> None:
        # The claim as it was read is checked too: the status has one writer at a time.
        guard = [] if read.claim is None else [Check(keys.claim(id_).path, read.claim.version)]
        if read.vm is not None:
            # Nor does it outlive its VM.
            guard.append(Check(keys.vm_spec(id_).path))
        now = self._c.clock.wall()
        dated = tuple(c if c.since else replace(c, since=now) for c in status.conditions)
        status = replace(status, conditions=dated)
        write = create(keys.vm_status(id_), status) if read.status is None else read.status.put(status)
        self._commit(write, *guard)
        log.info("vm-state vm=%s state=%s reason=%r", id_, status.state.value, status.reason)

    def _announce(self, id_: str, source: str, s: plan.Snapshot) -> None:
        assert s.vm is not None
        for network, nic in resources.find(self._c.store, s.vm).networks:
            self._c.drivers.network(network.driver).nic_arrived(network, nic, id_)
        self._c.drivers.notify("vm_migrated", vm=id_, source=source, target=s.me)

    def _start(self, id_: str, s: plan.Snapshot, read: VmDocuments) -> None:
        assert s.vm is not None
        assert s.claim is not None
        needs = resources.find(self._c.store, s.vm)
        self._attached[id_] = needs
        self._views.note(id_, attached=True)
        try:
            if s.status is not None and s.status.crashes:
                # Its emulator may have died without closing its disks: storage then waits for it, as long as it is believed
                # to live.
                needs.detach(self._c.drivers, id_)
            disks, nics = needs.attach(self._c.drivers, id_, s.claim.epoch, incoming=False)
            domain = DomainPlan(
                vm=s.vm,
                disks=disks,
                nics=nics,
                machine=self._machine(s.vm),
                cpu_model=s.vm.cpu_model or read.cluster.cpu_model,
                console_log=self._console_log(id_),
            )
            self._demand_lease(id_, s)
            # The guest begins anew here: an older one of it that somebody still sends must not come any more.
            self._c.hypervisor.dismiss(id_)
            self._c.hypervisor.start(domain)
        except (HypervisorUnavailable, LeaseLost):
            raise  # whether it started, or still should, is unknown: the next call sees
        except PvcError as error:
            log.warning("domain-start-failed vm=%s error=%s", id_, error)
            failed = plan.crashed(s, s.vm, s.status or VmStatus(id=id_), f"it could not be started: {error}")
            self._set_status(id_, failed, s, read)
            return
        log.info("domain-started vm=%s", id_)
        self._c.drivers.notify("vm_started", vm=id_, node=s.me)

    def _demand_lease(self, id_: str, s: plan.Snapshot) -> None:
        """Raise LeaseLost when the lease is over: drivers may have taken so long that this node was fenced meanwhile."""
        if self._c.lease.generation() != s.lease:
            raise LeaseLost(f"nothing is done with VM {id_}: lease {s.lease}, under which that was begun, is lost")

    def _console_log(self, id_: str) -> str:
        return f"{self._c.console_directory}/{id_}.log"

    def _machine(self, vm: VmSpec) -> str:
        """Return a machine type that every node offers that the guest may be moved to."""
        nodes = vm.node_limit or self._c.store.children(f"{keys.SPEC}/node")
        reports = read_many(self._c.store, [keys.node_status(node) for node in nodes])
        offered = [entry.value.machine_types for entry in reports if entry is not None]
        return newest_common_machine(vm.machine, [types for types in offered if types])

    def _detach(self, id_: str, s: plan.Snapshot) -> None:
        held = self._attached.get(id_)
        if held is None and s.vm is not None:
            held = resources.find(self._c.store, s.vm)
            # An earlier daemon may have attached what is not in the spec any more.
            held = held.with_volumes(resources.attachments(self._c.store, self._c.drivers, id_))
        if held is not None:
            held.detach(self._c.drivers, id_)
        self._c.hypervisor.dismiss(id_)
        self._attached.pop(id_, None)
        self._views.note(id_, attached=False, prepared="")

    def _remove(self, id_: str) -> None:
        clock = self._c.clock
        ops = Ops(self._c.store, wall=clock.wall, monotonic=clock.monotonic)
        if vm_forget(ops, id_, self._c.lease.guard()):
            self._views.forget(id_)
            log.info("vm-removed vm=%s", id_)

    def _revert_move(self, id_: str, action: plan.RevertMove, s: plan.Snapshot, read: VmDocuments) -> None:
        assert read.vm is not None
        vm = read.vm.value
        home = None if vm.home == s.me else vm.home
        here = replace(vm, node=s.me, home=home, move_method=None, generation=vm.generation + 1)
        self._commit(read.vm.put(here))
        log.warning("move-given-up vm=%s target=%s why=%r", id_, vm.node, action.why)

    # --- migration ----------------------------------------------------------------------------------

    def _migrate(self, id_: str, action: plan.Action, s: plan.Snapshot, read: VmDocuments) -> None:
        assert s.claim is not None
        record = s.claim.migration
        match action:
            case plan.BeginMigration():
                new = MigrationRecord(target=action.target, attempt=self._new_id(), phase=MigrationPhase.PREPARE)
                self._put_claim(read, Check(keys.lease(action.target).path), migration=new)
                log.info("migration-begun vm=%s target=%s attempt=%s", id_, action.target, new.attempt)
            case plan.PrepareIncoming():
                self._prepare(id_, action, s)
            case plan.Answer() if record is not None:
                self._answer(id_, action, s, read, record)
            case plan.BeginTransfer() if record is not None:
                if not self._views.outgoing.admit(id_, read.cluster.migrations_per_source):
                    return
                transfer = replace(record, phase=MigrationPhase.TRANSFER)
                self._put_claim(read, Check(keys.lease(record.target).path), migration=transfer)
            case plan.AskTarget() if record is not None:
                self._put_claim(read, migration=replace(record, phase=MigrationPhase.UNCERTAIN))
                log.warning("migration-uncertain vm=%s target=%s", id_, record.target)
            case plan.StartTransfer():
                self._start_transfer(id_, action, s)
            case plan.AbortTransfer():
                log.warning("migration-abort vm=%s why=%r", id_, action.why)
                self._views.note(id_, aborted=action.attempt)
                self._c.hypervisor.abort_migration(id_)
            case plan.HandOver() if record is not None:
                self._put_claim(
                    read, node=record.target, lease=record.target_lease, epoch=s.claim.epoch + 1, migration=None
                )
                log.info("claim-handed-over vm=%s target=%s", id_, record.target)
            case plan.EndMigration() if record is not None:
                self._end_migration(id_, action, s, read, record)
            case _:
                raise AssertionError(f"no way to carry out {action}")

    def _prepare(self, id_: str, action: plan.PrepareIncoming, s: plan.Snapshot) -> None:
        assert s.vm is not None
        assert s.claim is not None
        needs = resources.find(self._c.store, s.vm)
        self._attached[id_] = needs
        self._views.note(id_, attached=True)
        needs.attach(self._c.drivers, id_, s.claim.epoch, incoming=True)
        self._views.note(id_, prepared=action.attempt)

    def _answer(
        self, id_: str, action: plan.Answer, s: plan.Snapshot, read: VmDocuments, record: MigrationRecord
    ) -> None:
        assert s.claim is not None
        limit = read.cluster.migrations_per_target
        if action.phase is MigrationPhase.READY and not self._views.incoming.admit(id_, limit):
            return
        answer = replace(
            record, phase=action.phase, target_lease=s.lease, target_address=s.address, message=action.message
        )
        if action.phase is MigrationPhase.READY:
            admission = self._c.hypervisor.admit(id_, record.attempt, self._console_log(id_))
            answer = replace(answer, admission=admission)
        if action.phase is MigrationPhase.ARRIVED:
            self._views.note(id_, arrived_from=s.claim.node)
        self._put_claim(read, migration=answer)
        log.info("migration-answer vm=%s phase=%s message=%r", id_, action.phase.value, action.message)

    def _refuse_unseen(self, id_: str, lease: int, read: VmDocuments, error: HypervisorUnavailable) -> None:
        """Refuse a guest while libvirt here does not answer, so that its holder need not wait for its time limit.

        Safe without knowing what is here: nothing is transferred before READY.
        """
        record = read.claim.value.migration if read.claim is not None else None
        if record is None or record.target != self._c.name or record.phase is not MigrationPhase.PREPARE:
            return
        refusal = replace(record, phase=MigrationPhase.REFUSED, target_lease=lease, message=str(error))
        self._put_claim(read, migration=refusal)
        log.warning("migration-refused vm=%s error=%s", id_, error)

    def _start_transfer(self, id_: str, action: plan.StartTransfer, s: plan.Snapshot) -> None:
        assert s.vm is not None
        assert s.claim is not None
        self._views.note(id_, started_transfer=action.attempt, transfer_error="")
        try:
            needs = resources.find(self._c.store, s.vm)
            # A disk that was added since the guest was started is attached here, too.
            self._attached[id_] = needs
            disks, _ = needs.attach(self._c.drivers, id_, s.claim.epoch, incoming=False)
            self._demand_lease(id_, s)
            self._c.hypervisor.migrate(
                id_,
                MigrationOptions(
                    target_address=action.target_address,
                    admission=action.admission,
                    max_downtime_ms=s.vm.max_downtime_ms,
                    unsafe=any(disk.migrate_unsafe for disk in disks),
                ),
            )
        except (HypervisorUnavailable, LeaseLost):
            raise
        except PvcError as error:
            self._views.note(id_, transfer_error=str(error))
        log.info("migration-started vm=%s address=%s", id_, action.target_address)

    def _end_migration(
        self, id_: str, action: plan.EndMigration, s: plan.Snapshot, read: VmDocuments, record: MigrationRecord
    ) -> None:
        assert s.vm is not None
        writes: list[Operation] = []
        if action.failed and s.status is not None and read.status is not None:
            same = s.status.failed_target == record.target
            failed = (s.status.failed_moves if same else 0) + 1
            result = MigrationResult(
                source=s.me,
                target=record.target,
                method="live",
                ok=False,
                message=action.message,
                finished=self._c.clock.wall(),
            )
            new = replace(s.status, failed_moves=failed, failed_target=record.target, last_migration=result)
            writes.append(read.status.put(new))
            self._views.note(id_, move_not_before=s.now + plan.restart_pause(failed, s.limits))
        self._put_claim(read, *writes, migration=None)
        try:
            self._c.hypervisor.forget_job(id_)
        except HypervisorError as error:
            # Only a record: another migration replaces it.
            log.info("forget-job-failed vm=%s error=%s", id_, error)
        log.warning(
            "migration-ended vm=%s target=%s failed=%s why=%r", id_, record.target, action.failed, action.message
        )
