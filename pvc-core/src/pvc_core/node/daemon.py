"""The daemon: an agent with threads, a real store and a real hypervisor, from start to orderly stop."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from pvc_core.config.schema import NodeConfig
from pvc_core.hypervisor.api import Hypervisor
from pvc_core.model.base import Condition
from pvc_core.model.errors import PvcError
from pvc_core.node.agent import Agent, Identity
from pvc_core.node.assemble import Parts, assemble
from pvc_core.node.bounded import call_with_deadline
from pvc_core.node.clock import SystemClock
from pvc_core.node.host import LinuxHost
from pvc_core.node.notify import ServiceManager
from pvc_core.node.policy import policy_of
from pvc_core.node.publish import MemoryLimits
from pvc_core.node.queries import core_queries
from pvc_core.node.reconcile.upload import UploadSweeper
from pvc_core.node.reconcilers import core
from pvc_core.node.rundir import RunDirectory, Succession
from pvc_core.node.service import NodeService, ServiceParts
from pvc_core.node.uploads import Uploads
from pvc_core.node.watchdog import Watchdog, WatchdogThreads
from pvc_core.node.watchdog_device import open_device
from pvc_core.node.workers import PLACES, Workers
from pvc_core.node.workqueue import WorkQueue
from pvc_core.ops.context import Ops
from pvc_core.plugin.context import NodeInfo
from pvc_core.plugin.specs.lifecycle import RoleService, TaskRunner
from pvc_core.runtime.api import Drivers
from pvc_core.store.api import Store

log = logging.getLogger(__name__)

STOP_S: Final = 10.0
"""An orderly stop takes no longer; guests go on."""

_WORK_S: Final = 2.5
_ROLE_S: Final = 2.5
_TASKS_S: Final = 1.0
_STEP_S: Final = 0.7
_DISARM_S: Final = 0.5
_RETRY_S: Final = 0.2
_SIGN_OF_LIFE_S: Final = 30.0
"""The lease is looked at every second; when that stands still for so long, something is stuck for good."""


class Outside(NamedTuple):
    """What the daemon stands on; made by ``main``, closed by it."""

    store: Store
    hypervisor: Hypervisor
    drivers: Drivers
    machine: str
    """Word of this machine."""
    run_directory: RunDirectory
    succession: Succession
    manager: ServiceManager


class Daemon:
    """One node's daemon.  ``start`` returns at once, ``stop`` within ``STOP_S``."""

    def __init__(self, config: NodeConfig, info: NodeInfo, queue: WorkQueue, outside: Outside) -> None:
        self._config = config
        self._outside = outside
        self._clock = SystemClock()
        self._ready = False
        drivers = outside.drivers
        kinds = tuple(kind for answer in drivers.collect("resource_kinds") for kind in answer)
        self.agent = Agent(
            Identity(
                name=info.name,
                role=info.role,
                address=info.address,
                holder=outside.succession.holder,
                predecessor=outside.succession.predecessor,
                console_directory=config.node.console_directory,
                machine=outside.machine,
            ),
            store=outside.store,
            hypervisor=outside.hypervisor,
            drivers=drivers,
            clock=self._clock,
            timing=config.timing,
            queue=queue,
            resource_kinds=kinds,
        )
        self._watchdog = self._make_watchdog()
        context = self.agent.context
        asked = {name: query for answer in drivers.collect("queries") for name, query in answer.items()}
        self._queries = {**asked, **core_queries(context)}
        ops = Ops(outside.store, policy=policy_of(drivers))
        self._uploads = Uploads(Path(config.node.upload_directory))
        own = core(context, ops, imported=self._uploads.used)
        self.parts: Parts = assemble(
            self.agent,
            ops=ops,
            host=LinuxHost(),
            coordinators=info.coordinators,
            reconcilers=own.reconcilers,
            services=_services(drivers, info.role),
            runners=own.runners | _runners(drivers),
            repeated=own.repeated,
            resource_kinds=kinds,
            limits=MemoryLimits(config.node.memory_mib, config.node.reserved_memory_mib),
            service_port=config.service.port if config.service.token_file else 0,
            emulation_is_bad=config.node.accelerator != "tcg",
        )
        self.agent.register({"upload": UploadSweeper(ops, self._uploads)})
        self.agent.on_lease(lambda _: outside.run_directory.settle(outside.succession.holder))
        self._workers = Workers(queue, self.agent.work)
        self._service: NodeService | None = None

    @property
    def ready(self) -> bool:
        """Whether the lease was taken once, so that the service manager was told."""
        return self._ready

    def start(self) -> None:
        """Begin to work."""
        self.serve()
        if self._watchdog is not None:
            self._watchdog.start()
        self._workers.start()
        self.agent.start()

    def serve(self) -> None:
        """Start the node's service unless it runs or is off; called again after the configuration's files changed."""
        config = self._config
        if self._service is not None or not config.service.token_file:
            return
        parts = ServiceParts(
            node=self.agent.context.name,
            hypervisor=self._outside.hypervisor,
            lease=self.agent.lease,
            state=self.parts.state,
            console_directory=Path(config.node.console_directory),
            token_file=Path(config.service.token_file),
            uploads=self._uploads,
            queries=self._queries,
        )
        try:
            self._service = NodeService(parts, config.node.address, config.service.port)
        except PvcError as error:
            log.error("service-off error=%s", error)
            self.parts.state.set_condition("Service", ok=False, reason="Off", message=str(error))
            return
        self._service.start()
        self.parts.state.set_condition("Service", ok=True)
        log.info("service-on address=%s port=%d", config.node.address, self._service.port)

    def look_after(self) -> None:
        """Tell the service manager how we are; called every second or so by the main thread."""
        manager = self._outside.manager
        silent = self._clock.monotonic() - self.agent.session.looked()
        if silent < _SIGN_OF_LIFE_S:
            manager.alive()
        else:
            log.error("lease-unwatched for_s=%.0f", silent)
        generation = self.agent.lease.generation()
        if generation is not None and not self._ready:
            self._ready = True
            manager.ready(f"node {self.agent.context.name}, lease {generation}")
            log.info("daemon-ready node=%s lease=%d", self.agent.context.name, generation)

    def stop(self) -> None:
        """Give up role and lease in good order; guests keep running."""
        began = time.monotonic()
        context, parts = self.agent.context, self.parts
        self._outside.manager.stopping()
        log.info("daemon-stopping node=%s", context.name)
        context.drivers.notify("node_stopping", node=context.name)
        parts.state.daemon = "stopping"
        self._try("publish", parts.publisher.publish, _STEP_S)
        self._workers.stop(_WORK_S)
        self._try("give up the primary role", parts.election.stop, _ROLE_S)
        self._try("end tasks", lambda: parts.tasks.stop(_TASKS_S), _TASKS_S + _STEP_S)
        parts.state.daemon = "stopped"
        self._try("publish", parts.publisher.publish, _STEP_S)
        released = self._release(began)
        if self._watchdog is not None:
            self._try("disarm the watchdog", partial(self._watchdog.stop, released=released), _DISARM_S)
        if self._service is not None:
            self._try("end the service", self._service.stop, _STEP_S)
        log.info("daemon-stopped node=%s took_s=%.1f", context.name, time.monotonic() - began)

    def _make_watchdog(self) -> WatchdogThreads | None:
        settings, agent = self._config.watchdog, self.agent
        if not settings.device:
            return None

        def tell(condition: Condition) -> None:
            self.parts.state.put_condition(condition)

        arm = partial(open_device, settings.device, settings.timeout)
        threads = WatchdogThreads(Watchdog(agent.lease, self._clock, arm, tell))
        # Registered first: before any other work under a new lease.
        agent.on_lease(threads.taken)
        return threads

    def _release(self, began: float) -> bool:
        """Release the lease; return whether that is on record."""
        until = time.monotonic() + _STEP_S
        if self._watchdog is not None:
            # If this fails, the node is reset with all its guests: all the time that is left goes into it.
            until = max(until, began + STOP_S - _STEP_S - _DISARM_S)
        on_record: list[bool] = []
        while not on_record and (left := until - time.monotonic()) > 0:
            self._try("release the lease", lambda: on_record.append(self.agent.lease.release()), left)
            if not on_record:
                time.sleep(min(_RETRY_S, left))
        return bool(on_record) and on_record[0]

    def _try(self, what: str, step: Callable[[], None], deadline_s: float) -> None:
        try:
            call_with_deadline(what, step, deadline_s)
        except Exception as error:
            # Each step is for others' sake; none may keep the daemon from ending in time.
            log.warning("stop-step-failed step=%r error=%s", what, error)


def _services(drivers: Drivers, role: str) -> tuple[RoleService, ...]:
    if role != "coordinator":
        return ()
    return tuple(service for answer in drivers.collect("role_services") for service in answer)


def _runners(drivers: Drivers) -> dict[str, TaskRunner]:
    return {kind: runner for answer in drivers.collect("task_runners") for kind, runner in answer.items()}


def new_queue() -> WorkQueue:
    """Return the daemon's work queue: with a place for each of the worker threads."""
    return WorkQueue(SystemClock(), places=PLACES)
