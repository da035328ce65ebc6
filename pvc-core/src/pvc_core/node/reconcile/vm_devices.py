"""What changing the disks and the NICs of a running guest have in common: trying, remembering, and what is attached here."""

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

from msgspec.structs import replace

from pvc_core.hypervisor.api import HypervisorError, HypervisorUnavailable
from pvc_core.model.vm import VmStatus
from pvc_core.node.context import NodeContext
from pvc_core.node.lease import LeaseLost
from pvc_core.node.reconcile import resources
from pvc_core.node.reconcile.vm_view import VmDocuments, VmViews
from pvc_core.plan import vm as plan
from pvc_core.plugin.errors import DriverError
from pvc_core.store import keys
from pvc_core.store.api import Check, CheckAbsent, Operation

log = logging.getLogger(__name__)

Attached = dict[str, resources.Resources]
"""VM -> what this daemon attached for it."""

What = Literal["plug", "unplug", "adjust", "release"]


class Writes(NamedTuple):
    """How the reconciler of VMs writes, which those of devices share."""

    commit: Callable[..., None]
    """Commits operations under our lease."""
    status: Callable[[str, VmStatus, VmDocuments], None]
    demand_lease: Callable[[str, plan.Snapshot], None]


class Devices:
    """Tries things on the devices of VMs; what fails is remembered, tried again after a pause, and told."""

    def __init__(self, context: NodeContext, views: VmViews, attached: Attached, writes: Writes) -> None:
        self.context = context
        self.attached = attached
        self.writes = writes
        self._views = views

    def attempt(self, id_: str, what: What, key: str, s: plan.Snapshot, call: Callable[[], None]) -> None:
        """Do something to a device, named by its key; a hypervisor that is lost over it, or a lost lease, is raised."""
        try:
            call()
        except HypervisorUnavailable as error:
            self._note(id_, what, key, s, str(error), unsure=True)
            raise
        except LeaseLost:
            raise
        except (HypervisorError, DriverError) as error:
            log.warning("device-%s-failed vm=%s device=%s error=%s", what, id_, key, error)
            self._note(id_, what, key, s, str(error))
        else:
            self.forget(id_, (key,))

    def ask(self, id_: str, key: str, s: plan.Snapshot, xml: str) -> None:
        """Ask the guest to let go of a device; that, and what it says at once, is remembered until it has."""
        error = ""
        try:
            self.context.hypervisor.detach_device(id_, xml)
            log.info("device-unplug-asked vm=%s device=%s", id_, key)
        except HypervisorUnavailable:
            raise
        except HypervisorError as failed:
            error = str(failed)
            log.info("device-unplug-refused vm=%s device=%s error=%s", id_, key, failed)
        self._note(id_, "unplug", key, s, error)

    def plug(self, id_: str, s: plan.Snapshot, xml: str) -> None:
        """Plug a device in, unless the lease is lost by now."""
        self.writes.demand_lease(id_, s)
        self.context.hypervisor.attach_device(id_, xml)

    def _note(self, id_: str, what: What, key: str, s: plan.Snapshot, error: str, *, unsure: bool = False) -> None:
        old = s.memory.tries.get(key)
        if old is None or old.what != what:
            old = plan.DeviceTry(what=what, first=s.now, last=s.now, count=0)
        # What may still be done of an earlier try does not depend on how this one ended.
        tried = replace(old, last=s.now, count=old.count + 1, error=error, unsure=unsure or old.unsure)
        self._views.note(id_, tries=s.memory.tries | {key: tried})

    def forget(self, id_: str, keys_: tuple[str, ...]) -> None:
        """Drop what is remembered of devices."""
        tries = self._views.memory(id_).tries
        if any(key in tries for key in keys_):
            self._views.note(id_, tries={key: tried for key, tried in tries.items() if key not in keys_})

    def held(self, id_: str, s: plan.Snapshot) -> resources.Resources:
        """Return what is attached here for the VM: of a guest that an earlier daemon started, all it may have."""
        assert s.vm is not None
        return self.attached.get(id_) or resources.find(self.context.store, s.vm)


def same_claim(id_: str, read: VmDocuments) -> Operation:
    """Return the check that the claim is as it was read: nobody starts a guest meanwhile, or moves it."""
    path = keys.claim(id_).path
    return CheckAbsent(path) if read.claim is None else Check(path, read.claim.version)
