"""Which objects this node has to look at.

Every node hears of every change, but most concern others: on a cluster of 5,000 VMs a node has 50 of them.
A full scan reads all specs once (at start, after a new session, and now and then as a safety net); between
them a scan lists only names, so that it finds what came or went unheard, and returns what is this node's own.
"""

import logging
import threading
from collections.abc import Iterable
from typing import Final

from pvc_core.hypervisor.api import Hypervisor, HypervisorUnavailable
from pvc_core.model.storage import PoolSpec, VolumeSpec
from pvc_core.model.vm import VmClaim, VmSpec
from pvc_core.node.workqueue import WorkKey
from pvc_core.store import documents, keys
from pvc_core.store.api import Store
from pvc_core.store.documents import Entry

log = logging.getLogger(__name__)

_OWNED: Final = ("pool", "volume")
"""Kinds whose spec names the node that takes care of them."""


class Interest:
    """What this node has to look at.  May be used from any thread; reads the store and the hypervisor."""

    def __init__(self, store: Store, node: str, hypervisor: Hypervisor, resource_kinds: Iterable[str] = ()) -> None:
        self._store = store
        self._node = node
        self._hypervisor = hypervisor
        self._everywhere = ("network", *resource_kinds)
        self._lock = threading.Lock()
        self._known: dict[str, set[str]] = {}
        self._own: dict[str, set[str]] = {}
        self._foreign_tasks: set[str] = set()
        self._domains: frozenset[str] = frozenset()

    def scan(self, *, full: bool) -> list[WorkKey]:
        """Return the keys of all objects to look at; not ``full``: own ones, and those never seen before."""
        found = [*self._scan_vms(full=full), *self._scan_tasks()]
        for kind in _OWNED:
            found += self._scan_owned(kind, full=full)
        for kind in self._everywhere:
            ids = self._store.children(f"{keys.SPEC}/{kind}")
            with self._lock:
                gone = self._known.get(kind, set()) - set(ids)
                self._known[kind] = set(ids)
            found += [(kind, id_) for id_ in (*ids, *sorted(gone))]
        return found

    def concerns_vm(self, vm: str) -> bool:
        """Read who has to do with a VM, and return whether this node has."""
        spec, claim = self._store.get_many([keys.vm_spec(vm).path, keys.claim(vm).path])
        with self._lock:
            domain = vm in self._domains
        concerned = (
            domain
            or (spec is not None and self._places_here(documents.decode(keys.vm_spec(vm), spec).value))
            or (claim is not None and self._claims_here(documents.decode(keys.claim(vm), claim).value))
        )
        with self._lock:
            own = self._own.setdefault("vm", set())
            concerned_before = vm in own
            if concerned:
                own.add(vm)
            else:
                own.discard(vm)
        # One more look after it has left, so that its reconciler can clear up.
        return concerned or concerned_before

    def look_again(self, vm: str) -> None:
        """Do not skip the next look at a VM: its domain appeared here, ended or changed, or the last look failed."""
        with self._lock:
            self._own.setdefault("vm", set()).add(vm)

    def is_foreign_task(self, task: str) -> bool:
        """Return whether a task is known to be another node's, without reading anything."""
        with self._lock:
            return task in self._foreign_tasks

    def foreign_task(self, task: str) -> None:
        """Remember that a task is another node's; a task never changes its node."""
        with self._lock:
            self._foreign_tasks.add(task)

    def size(self) -> int:
        """Return how many objects of the whole cluster were seen: what a full scan reads."""
        with self._lock:
            return sum(len(ids) for ids in self._known.values())

    def own_vms(self) -> frozenset[str]:
        """Return the ids of the VMs this node had to do with when it last looked."""
        with self._lock:
            return frozenset(self._own.get("vm", set()))

    def _places_here(self, spec: VmSpec) -> bool:
        return spec.node == self._node

    def _claims_here(self, claim: VmClaim) -> bool:
        return claim.node == self._node or (claim.migration is not None and claim.migration.target == self._node)

    def _scan_vms(self, *, full: bool) -> list[WorkKey]:
        try:
            domains = frozenset(self._hypervisor.domains())
        except HypervisorUnavailable as error:
            log.debug("scan-without-domains error=%s", error)
            domains = self._domains
        specs = set(self._store.children(f"{keys.SPEC}/vm"))
        claims = set(self._store.children(keys.CLAIM))
        with self._lock:
            self._domains = domains
            known = self._known.get("vm", set())
            own = set(self._own.get("vm", set()))
        unread = (specs | claims) if full else (specs | claims) - known
        for entry in documents.read_all(self._store, [keys.vm_spec(vm) for vm in sorted(unread & specs)]):
            if self._places_here(entry.value):
                own.add(entry.value.id)
        for claim in documents.read_all(self._store, [keys.claim(vm) for vm in sorted(unread & claims)]):
            if self._claims_here(claim.value):
                own.add(claim.value.vm)
        own |= domains
        with self._lock:
            self._known["vm"] = specs | claims
            self._own.setdefault("vm", set()).update(own)
        return [("vm", vm) for vm in sorted(own)]

    def _scan_owned(self, kind: str, *, full: bool) -> list[WorkKey]:
        ids = set(self._store.children(f"{keys.SPEC}/{kind}"))
        with self._lock:
            known = self._known.get(kind, set())
            own = self._own.get(kind, set()) & ids
        unread = ids if full else ids - known
        found: list[Entry[PoolSpec] | Entry[VolumeSpec]] = []
        if kind == "pool":
            found += documents.read_all(self._store, [keys.pool_spec(id_) for id_ in sorted(unread)])
        else:
            found += documents.read_all(self._store, [keys.volume_spec(id_) for id_ in sorted(unread)])
        own = (own - unread) | {entry.value.id for entry in found if entry.value.node == self._node}
        with self._lock:
            self._known[kind] = ids
            self._own[kind] = own
        return [(kind, id_) for id_ in sorted(own)]

    def _scan_tasks(self) -> list[WorkKey]:
        ids = set(self._store.children(keys.TASK))
        with self._lock:
            self._foreign_tasks &= ids
            unread = ids - self._foreign_tasks
        own = []
        for entry in documents.read_all(self._store, [keys.task(id_) for id_ in sorted(unread)]):
            if entry.value.node == self._node:
                own.append(entry.value.id)
            else:
                with self._lock:
                    self._foreign_tasks.add(entry.value.id)
        return [("task", id_) for id_ in own]
