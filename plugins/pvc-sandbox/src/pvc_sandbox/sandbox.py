"""A cluster on one machine: the nodes, their cables, and their power.

Every method works from whatever state an earlier process left behind, killed at any moment: ``up`` goes on
where it stopped, ``down`` removes it.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from pvc_core.model.units import format_duration
from pvc_core.plugin.process import Completed
from pvc_sandbox import ceph, cluster, fencing, frr, libvirtd, links, managed, zookeeper
from pvc_sandbox.client import PvcCommand
from pvc_sandbox.cluster import ClusterPlan
from pvc_sandbox.control import NoAnswer
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import Lock, remove_tree
from pvc_sandbox.host import EXEC_DEADLINE_S, Host, PowerLost, last_lines
from pvc_sandbox.layout import (
    RUN_ROOT,
    STATE_ROOT,
    Layout,
    check_name,
    claim_layout,
    find_layout,
    forget_empty_directories,
    load_layout,
)
from pvc_sandbox.node_bmc import NodeBmc
from pvc_sandbox.requirements import check_requirements
from pvc_sandbox.router import Router
from pvc_sandbox.status import SandboxState, status
from pvc_sandbox.waiting import wait_until

DEFAULT_NAME: Final = "default"
READY_DEADLINE_S: Final = 120.0
_AT_ONCE: Final = 4
"""Hosts that are started, or removed, at the same time."""

Report = Callable[[str], None]
T = TypeVar("T")


class Sandbox:
    """The sandbox of this name.  It exists from the first ``up`` until ``down``.

    ``state`` is the directory for everything that lasts; by default ``/var/lib/pvc-sandbox/NAME``.
    """

    def __init__(self, name: str = DEFAULT_NAME, state: Path | None = None) -> None:
        check_name(name)
        self.name = name
        self._state = state
        self._known: Layout | None = None

    @property
    def layout(self) -> Layout:
        """Names, paths and addresses; raises SandboxError when there is no such sandbox."""
        if self._known is None:
            self._known = self._recorded()
        if self._known is None:
            raise SandboxError(f"there is no sandbox named {self.name!r}; make it: pvc sandbox up --name {self.name}")
        return self._known

    @property
    def plan(self) -> ClusterPlan:
        """What the cluster consists of."""
        plan = cluster.load_plan(self.layout)
        if plan is None:
            raise SandboxError(f"sandbox {self.name!r} is not complete; make it: pvc sandbox up --name {self.name}")
        return plan

    @property
    def client_config(self) -> Path:
        """Configuration file with which ``pvc`` reaches the cluster."""
        return self.layout.client_config

    @property
    def shared(self) -> Path:
        """Directory that all nodes see: for pools of image files."""
        return self.layout.shared

    @property
    def pvc(self) -> PvcCommand:
        """The ``pvc`` command, on this cluster."""
        return PvcCommand(self.client_config)

    def up(self, nodes: int | None = None, *, report: Report = lambda _: None, **changes: Any) -> None:
        """Make the cluster, or what is missing of it, and return when every node's daemon works.

        ``nodes``: how many (default: those there are, else 3); hypervisors are added to a cluster that is
        there.  ``changes`` are other fields of ``ClusterPlan``, and ``network`` (see ``make_plan``); a daemon that they concern is started again.
        ``report`` gets a line for each step.  Raises SandboxError.
        """
        check_requirements(ceph=self._is_to_have_ceph(changes), vxlan=self._is_to_have_vxlan(changes))
        begun = time.monotonic()
        with self._lock():
            layout = self._known = claim_layout(self._state or STATE_ROOT / self.name, self.name)
            new = cluster.load_plan(layout) is None
            plan = cluster.make_plan(layout, nodes, **changes)
            cluster.configure(layout, plan)
            links.make_switch(layout)
            report(f"switch {layout.switch}: cluster {layout.cluster_network}, guests {layout.guest_network}")
            if plan.frr:
                self.router.start()
                report(f"router {self.router.namespace}: {self.router.address} in {layout.upstream_network}")
            if plan.has_ceph:  # first: the daemons look for it when they start
                self._make_ceph(plan, report)
            self._power_on(plan, plan.node_numbers(), report)
            bmcs = [NodeBmc(layout, number) for number in plan.node_numbers()]
            if plan.bmc:
                self._each(bmcs, NodeBmc.mend)
            self._wait_for_ensemble(plan, report)
        self._wait_ready(self.nodes(), report, revive=True)
        if plan.has_ceph:
            self._wait_for_ceph(plan, report)
        with self._lock():
            self._set_fencing(plan, bmcs, report, new=new)
        report(f"cluster of {plan.nodes} nodes is up after {format_duration(time.monotonic() - begun)}")

    def down(self, *, report: Report = lambda _: None) -> None:
        """Cut the power of all nodes and remove everything of the sandbox; one that is not there is success."""
        layout = self._recorded()
        if layout is None:
            report(f"there is no sandbox named {self.name!r}")
            return
        self._known = layout
        with self._lock() as lock:
            numbers = [layout.node_number(name) for name in _node_names(layout)]
            self._each([NodeBmc(layout, number) for number in numbers], NodeBmc.remove)  # they could switch nodes on
            hosts = [Host(layout, number) for number in numbers]
            self._each(hosts, Host.destroy)
            Router(layout).stop()
            links.remove_switch(layout)
            remove_tree(Path(layout.state))
            # Last: as long as this is there, a repeated `down` knows what to remove.
            remove_tree(layout.run)
            lock.delete()
        forget_empty_directories()
        self._known = None
        report(f"sandbox {self.name!r} is removed ({len(hosts)} nodes)")

    def status(self) -> SandboxState:
        """Return what there is."""
        return status(self.layout, self.plan)

    def nodes(self) -> list[str]:
        """Return the names of all nodes."""
        return [self.layout.node_name(number) for number in self.plan.node_numbers()]

    def host(self, node: str) -> Host:
        """Return a node's host; raises SandboxError when the sandbox has no such node."""
        number = self.layout.node_number(node)
        if number not in self.plan.node_numbers():
            raise SandboxError(f"sandbox {self.name!r} has no node {node!r}; it has: {', '.join(self.nodes())}")
        return Host(self.layout, number)

    def bmc(self, node: str) -> NodeBmc:
        """Return a node's BMC, to break and mend it; raises SandboxError when there is none."""
        number = self.host(node).number
        if not self.plan.bmc:
            raise SandboxError(
                f"the nodes of sandbox {self.name!r} have no BMC; give them one: pvc sandbox up --bmc --name {self.name}"
            )
        return NodeBmc(self.layout, number)

    @property
    def router(self) -> Router:
        """The router outside the cluster; raises SandboxError when there is none."""
        if not self.plan.frr:
            raise SandboxError(
                f"sandbox {self.name!r} has no router outside: its networks are not managed; "
                f"make one that has: pvc sandbox up --network vxlan"
            )
        return Router(self.layout)

    def power_on(self, node: str, *, report: Report = lambda _: None) -> None:
        """Switch a node on and return when its libvirtd answers; its daemon joins the cluster by itself.

        ``wait_ready`` waits for that too.  On a node that is on, daemons that were stopped are started again.  Its BMC
        has power then too.
        """
        self._power_on(self.plan, [self.host(node).number], report)
        if self.plan.bmc:
            self.bmc(node).power_on()

    def power_cut(self, node: str, *, bmc: bool = False) -> None:
        """Cut a node's power: its guests and daemons end at once, its disks stay.  ``bmc``: that of its BMC too."""
        if bmc:
            self.bmc(node).power_cut()
        self.host(node).power_cut()

    def cut_link(self, node: str, *, management: bool = False, only: Collection[int] = ()) -> None:
        """Pull a node's cables to all networks but that of the BMCs; with ``management`` that one too.

        ``only``: those to these networks instead, such as ``links.UPSTREAM``; what was pulled before stays pulled.

        They stay pulled when the node is booted by its BMC or its watchdog, until ``heal_link``, ``power_on`` or ``up``.
        """
        self.host(node).cut_link(only or (links.NETWORKS if management else links.IN_USE))

    def heal_link(self, node: str) -> None:
        """Put a node's network cables back."""
        self.host(node).heal_link()

    def freeze(self, node: str) -> None:
        """Make a node hang."""
        self.host(node).freeze()

    def thaw(self, node: str) -> None:
        """Let a frozen node go on."""
        self.host(node).thaw()

    def exec(self, node: str, argv: Sequence[str], *, deadline_s: float = EXEC_DEADLINE_S) -> Completed:
        """Run a program on a node to its end."""
        return self.host(node).exec(argv, deadline_s=deadline_s)

    def uri(self, node: str) -> str:
        """Return the libvirt URI with which this machine reaches a node's libvirtd."""
        return libvirtd.uri(self.layout, self.layout.node_number(node))

    def shell_command(self, node: str, command: Sequence[str] = ()) -> list[str]:
        """Return the argument list of ``command`` (empty: an interactive shell) on a node; ``pvc`` works there."""
        host = self.host(node)
        return host.command(
            [
                "env",
                *cluster.shell_environment(self.layout, self.plan, host.number),
                *(command or ("bash", "--norc", "-i")),
            ]
        )

    def logs(self, node: str) -> dict[str, Path]:
        """Return a node's log files by the name of what wrote them."""
        host = self.host(node)
        state, consoles = host.state, libvirtd.console_logs(self.layout, host.number)
        files = {path.stem: path for path in sorted((state / "log").glob("*.log"))}
        guests = {f"console/{path.stem}": path for path in sorted(consoles.glob("*.log"))}
        bmc = NodeBmc(self.layout, host.number).log()
        if bmc.exists():
            files["bmc"] = bmc
        if self.plan.frr:
            files["frr"] = frr.log(self.layout, host.number)
        return files | {"libvirtd": state / "libvirt/log/libvirtd.log"} | guests

    def wait_ready(self, nodes: Iterable[str] | None = None, *, report: Report = lambda _: None) -> None:
        """Return when the daemons of these nodes (default: all) have their lease, and the cluster knows that they run.

        Raises SandboxError when one does not get there, with what it said last.
        """
        self._wait_ready(list(self.nodes() if nodes is None else nodes), report)

    def _wait_ready(self, wanted: Sequence[str], report: Report, *, revive: bool = False) -> None:
        """``revive``: switch nodes on again that are fenced meanwhile, as slow ones are when all start at once."""
        waiting = [self.host(node) for node in wanted]

        def ready() -> bool:
            for host in tuple(waiting):
                if revive and not host.running:
                    report(f"{host.name}: lost its power; it is switched on again")
                    host.boot()
                try:
                    daemon = host.services().get(cluster.DAEMON)
                except NoAnswer:
                    if not revive:
                        raise
                    daemon = None
                if daemon is None:  # the node is booting
                    continue
                if daemon.given_up:
                    log = host.state / "log/pvcnoded.log"
                    raise SandboxError(f"{host.name}: the daemon ended for good: {last_lines(log)}; see {log}")
                if daemon.ready:
                    waiting.remove(host)
                    report(f"{host.name}: is in the cluster")
            return not waiting

        wait_until(
            f"sandbox {self.name!r}: all nodes in the cluster",
            ready,
            deadline_s=READY_DEADLINE_S,
            detail=lambda: "; ".join(self._complaint(host) for host in waiting),
        )
        # A daemon is ready before its first report of itself is written.
        wait_until(
            f"sandbox {self.name!r}: reports of all nodes",
            lambda: {row["name"] for row in self.pvc.rows("node", "list") if row["daemon"] == "running"} >= set(wanted),
            deadline_s=READY_DEADLINE_S,
        )

    def _is_to_have_ceph(self, changes: Mapping[str, Any]) -> bool:
        layout = self._recorded()
        known = cluster.load_plan(layout) if layout else None
        return known.has_ceph if known else changes.get("storage") == "ceph"

    def _is_to_have_vxlan(self, changes: Mapping[str, Any]) -> bool:
        layout = self._recorded()
        known = cluster.load_plan(layout) if layout else None
        return known.frr if known else changes.get("network") == "vxlan" or managed.PLUGIN in changes.get("plugins", {})

    def _recorded(self) -> Layout | None:
        return load_layout(self._state) if self._state else find_layout(self.name)

    def _complaint(self, host: Host) -> str:
        try:
            daemon = host.services().get(cluster.DAEMON)
        except NoAnswer as error:
            return f"{host.name}: {error}"
        said = (daemon.said or daemon.last_exit if daemon else "") or "nothing"
        return f"{host.name}: its daemon said last: {said} (pvc sandbox logs {host.name})"

    def _power_on(self, plan: ClusterPlan, numbers: Iterable[int], report: Report, *, daemon: bool = True) -> None:
        """``daemon=False``: without PVC's own, from now on."""

        def start(host: Host) -> None:
            begun = time.monotonic()
            was_on = host.running
            if was_on and not cluster.node_is_configured(self.layout, plan, host.number):
                host.thaw()
                host.stop_service(cluster.DAEMON)
            services = cluster.node_services(self.layout, plan, host.number)
            equipment = cluster.node_equipment(self.layout, plan, host.number)
            if not daemon:
                services = [service for service in services if service.name != cluster.DAEMON]
            while True:
                try:
                    host.start(services, watchdog=cluster.node_watchdog(plan), equipment=equipment)
                    break
                except PowerLost as error:  # it was being fenced when it came back
                    if time.monotonic() - begun > READY_DEADLINE_S:
                        raise
                    report(f"{error}; once more")
            after = f"on after {format_duration(time.monotonic() - begun)}"
            if daemon:
                report(f"{host.name}: {'is on' if was_on else after} ({host.address})")

        self._each([Host(self.layout, number) for number in numbers], start)

    def _make_ceph(self, plan: ClusterPlan, report: Report) -> None:
        lacking = ceph.unfinished(self.layout, plan.node_numbers())
        if not lacking:
            return
        self._power_on(plan, [number for number in plan.node_numbers() if number not in lacking], report)
        # A node that is not complete cannot be lost, and fenced, in the midst of it.
        self._power_on(plan, lacking, report, daemon=False)
        begun = time.monotonic()
        ceph.bring_up([Host(self.layout, number) for number in lacking], plan.nodes, self._each)
        names = ", ".join(self.layout.node_name(number) for number in lacking)
        report(f"Ceph starts on {names} after {format_duration(time.monotonic() - begun)}")

    def _wait_for_ceph(self, plan: ClusterPlan, report: Report) -> None:
        begun = time.monotonic()
        found = ceph.wait(self.layout, plan.node_numbers())
        report(
            f"Ceph serves ({found.health}; OSDs up: {found.osds}, placement groups: {found.groups}) "
            f"after {format_duration(time.monotonic() - begun)}"
        )

    def _set_fencing(self, plan: ClusterPlan, bmcs: Sequence[NodeBmc], report: Report, *, new: bool) -> None:
        if not plan.bmc and not any(bmc.exists for bmc in bmcs):
            return
        begun = time.monotonic()
        for node in fencing.set_levels(self.pvc, bmcs, wanted=plan.bmc, new=new):
            how = (
                f"fenced through its BMC ({self.bmc(node).address})"
                if plan.bmc
                else "not fenced through a BMC any more"
            )
            report(f"{node}: is {how} after {format_duration(time.monotonic() - begun)}")
        if not plan.bmc:
            self._each(bmcs, NodeBmc.remove)

    def _wait_for_ensemble(self, plan: ClusterPlan, report: Report) -> None:
        begun = time.monotonic()
        names = [self.layout.node_name(number) for number in plan.coordinator_numbers()]
        modes: dict[str, str] = {}

        def serving() -> bool:
            modes.update({name: zookeeper.mode(self.layout, self.layout.node_number(name)) for name in names})
            return all(modes.values())

        wait_until(
            "ZooKeeper serves",
            serving,
            deadline_s=READY_DEADLINE_S,
            detail=lambda: "silent: " + ", ".join(sorted(name for name in names if not modes.get(name))),
        )
        report(f"ZooKeeper serves ({_listed(modes)}) after {format_duration(time.monotonic() - begun)}")

    def _each(self, items: Sequence[T], act: Callable[[T], None]) -> None:
        """Act on several at once; the first error is raised after all have ended."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for result in [pool.submit(act, item) for item in items]:
                result.result()

    def _lock(self) -> Lock:
        # Not in the sandbox's own directory, which `down` removes while it holds the lock.
        return Lock(RUN_ROOT / f"{self.name}.lock")


def _node_names(layout: Layout) -> list[str]:
    """Return the nodes of which anything is left, whatever the plan says."""
    found = {path.name.partition(".")[0] for root in (Path(layout.state), layout.run) for path in root.glob("hv*")}
    return sorted(found)


def _listed(modes: dict[str, str]) -> str:
    return ", ".join(f"{name} {mode}" for name, mode in modes.items())
