"""Networks on this node.

Every node that has the driver makes every network, and says so in a status document of its own
(``<network>@<node>``).  To delete a network each node removes its part and then its status; whoever then
finds no status of a living node any more removes the documents.  A dead node does not hold that up: its
status goes with the documents, and what is left in its kernel is removed when it is back, because the
drivers list what they made (``network_list``) and nobody wants it any more.
"""

import logging
import threading

from msgspec.structs import replace

from pvc_core.model.base import Condition, with_condition
from pvc_core.model.network import NetworkSpec, NetworkStatus
from pvc_core.node.context import NodeContext
from pvc_core.node.reconcile.problems import not_ready, problem, ready
from pvc_core.ops.context import Ops
from pvc_core.ops.network import network_forget
from pvc_core.plugin.errors import DriverError, NotReady
from pvc_core.plugin.specs.network import NetworkState
from pvc_core.store import keys
from pvc_core.store.api import Check
from pvc_core.store.documents import Entry, create, read

log = logging.getLogger(__name__)

_FORGET_S = 2.0
"""While a network is being deleted it is looked at this often: a node whose lease ends makes no event here."""


class NetworkReconciler:
    """Reconciler of keys ``("network", <id>)``; id "" removes what no network wants any more."""

    def __init__(self, context: NodeContext, ops: Ops) -> None:
        self._c = context
        self._ops = ops
        self._lock = threading.Lock()
        self._swept: float | None = None

    def reconcile(self, id_: str) -> float | None:
        """Do the next thing for this network; see ``node.context.Reconciler``."""
        self._sweep_when_due()
        if not id_:
            return self._c.timing.resync
        spec = read(self._c.store, keys.network_spec(id_))
        status = read(self._c.store, keys.network_status(id_, self._c.name))
        if spec is None:
            return self._without_spec(id_, status)
        if spec.value.deleting:
            return self._remove(spec, status)
        return self._ensure(spec, status)

    # --- making -------------------------------------------------------------------------------------

    def _ensure(self, spec: Entry[NetworkSpec], status: Entry[NetworkStatus] | None) -> float | None:
        network = spec.value
        if network.driver not in self._c.drivers.network_drivers() and status is None:
            return None  # not a network of this node
        try:
            state = self._c.drivers.network(network.driver).network_ensure(network)
        except DriverError as error:
            device = "" if isinstance(error, NotReady) or status is None else status.value.device
            condition = problem(error, self._c.clock.wall())
            self._say(spec, status, NetworkState(device=device, mtu=0), condition, settled=not error.retryable)
            if error.retryable:
                raise
            log.warning("network-refused network=%s name=%s error=%s", network.id, network.name, error)
            return None
        now = self._c.clock.wall()
        wrong = "; ".join(state.problems)
        self._say(spec, status, state, not_ready("Degraded", wrong, now) if wrong else ready(now))
        return None

    def _say(
        self,
        spec: Entry[NetworkSpec],
        status: Entry[NetworkStatus] | None,
        state: NetworkState,
        condition: Condition,
        *,
        settled: bool = True,
    ) -> None:
        network = spec.value
        old = (
            status.value if status is not None else NetworkStatus(id=f"{network.id}@{self._c.name}", node=self._c.name)
        )
        new = replace(
            old,
            observed_generation=network.generation if settled else old.observed_generation,
            device=state.device,
            mtu=state.mtu,
            conditions=with_condition(old.conditions, condition),
        )
        # Not after the network began to be deleted: such a status would stay for ever.
        unchanged = Check(spec.key.path, spec.version)
        if status is None:
            key = keys.network_status(network.id, self._c.name)
            self._c.store.commit(create(key, new), unchanged, *self._c.lease.guard())
        elif new != old:
            self._c.store.commit(status.put(new), unchanged, *self._c.lease.guard())
        else:
            return
        log.info(
            "network-status network=%s name=%s device=%s ok=%s", network.id, network.name, new.device, condition.ok
        )

    # --- removing -----------------------------------------------------------------------------------

    def _remove(self, spec: Entry[NetworkSpec], status: Entry[NetworkStatus] | None) -> float | None:
        network = spec.value
        if status is not None:
            self._undo(spec, status)
            self._c.store.commit(status.delete(), *self._c.lease.guard())
            log.info("network-removed network=%s name=%s", network.id, network.name)
            return 0.0
        if network.driver in self._c.drivers.network_drivers():
            # Made, and the daemon died before it said so.
            self._c.drivers.network(network.driver).network_remove(network)
        return None if network_forget(self._ops, network.id, self._c.lease.guard()) else _FORGET_S

    def _undo(self, spec: Entry[NetworkSpec], status: Entry[NetworkStatus]) -> None:
        network = spec.value
        if network.driver not in self._c.drivers.network_drivers():
            # It cannot be removed now; the driver will find it unwanted when it works again.
            log.warning("network-left network=%s name=%s driver=%s", network.id, network.name, network.driver)
            return
        try:
            self._c.drivers.network(network.driver).network_remove(network)
        except DriverError as error:
            state = NetworkState(device=status.value.device, mtu=status.value.mtu)
            self._say(spec, status, state, problem(error, self._c.clock.wall()))
            raise

    def _without_spec(self, id_: str, status: Entry[NetworkStatus] | None) -> float | None:
        for driver in self._c.drivers.network_drivers():
            if id_ in self._c.drivers.network(driver).network_list():
                self._discard(id_, driver)
        if status is not None:
            self._c.store.commit(status.delete(), *self._c.lease.guard())
        return None

    def _discard(self, id_: str, driver: str) -> None:
        log.info("network-unwanted network=%s driver=%s", id_, driver)
        self._c.drivers.network(driver).network_remove(NetworkSpec(id=id_, name=id_, driver=driver, deleting=True))

    def _sweep_when_due(self) -> None:
        """Once per resync interval, put networks on the queue that are in this node's kernel and in no spec."""
        now = self._c.clock.monotonic()
        with self._lock:
            if self._swept is not None and now - self._swept < self._c.timing.resync:
                return
            self._swept = now
        for driver in self._c.drivers.network_drivers():
            try:
                here = self._c.drivers.network(driver).network_list()
            except DriverError as error:
                log.warning("networks-not-listed driver=%s error=%s", driver, error)
                continue
            wanted = set(self._c.store.children(f"{keys.SPEC}/network"))
            for id_ in here:
                if id_ not in wanted:
                    self._c.wake("network", id_, 0.0)
