"""What fate does to a simulated cluster."""

from collections.abc import Callable, Collection
from functools import partial

from pvc_core.ops.cluster import ClusterMaintenance, cluster_maintenance
from pvc_core.ops.node_service import NodeMaintenance, node_maintenance
from pvc_core.store import keys
from pvc_core.testkit.simulator import failures
from pvc_core.testkit.simulator.cluster import Cluster
from pvc_core.testkit.simulator.ensemble import Link
from pvc_core.testkit.simulator.guest_faults import GuestFaults
from pvc_core.testkit.simulator.node import SimNode
from pvc_core.testkit.simulator.power import Mode

_PLACES = (
    "",
    "",
    "",
    f"before Put {keys.CLAIM}",
    f"after Put {keys.CLAIM}",
    f"before Put {keys.FENCE}",
    f"after Put {keys.FENCE}",
    f"before Put {keys.SPEC}",
    "before start",
    "after start",
    "before attach",
    "after attach",
    "after detach",
    "before power-off",
    "after power-off",
    "before closing",
)
"""Where daemons die or are stopped: the effects that this is the beginning of."""

_BAD_MODES = (Mode.SLOW, Mode.STUCK, Mode.UNREACHABLE, Mode.GARBAGE)


class Fate:
    """Faults: each call of ``strike`` lets one befall the cluster, chosen at random."""

    def __init__(self, cluster: Cluster, only: Collection[str] = ()) -> None:
        """``only``: names of faults, when not all of them shall strike."""
        self._c = cluster
        self.struck: dict[str, int] = {}
        """Faults by name."""
        guests = GuestFaults(cluster)
        faults: list[tuple[int, Callable[[SimNode], str]]] = [
            (6, self._daemon_dies_soon),
            (3, self._daemon_killed),
            (2, self._daemon_stopped),
            (6, self._power_cut),
            (2, self._several_power_cuts),
            (1, self._blackout),
            (2, self._reset),
            (3, self._daemon_stops),
            (5, self._daemon_stops_soon),
            (5, self._thread_stalls_soon),
            (2, self._node_hangs),
            (4, self._link),
            (2, self._session),
            (2, self._server),
            (1, self._majority),
            (4, self._fence_device),
            (2, self._password),
            (1, self._storage),
            (2, self._watchdog_starves),
            (2, self._wall_clock),
            (4, self._back_while_fenced),
            (2, self._spared_while_fenced),
            (4, self._fencer_dies_soon),
            (4, self._lost_while_migrating),
            (2, guests.libvirtd),
            (2, guests.guest_crashes),
            (2, guests.guest_shuts_down),
            (2, guests.migration_fault),
            (1, guests.host_link),
            (1, guests.deaf_guest),
        ]
        named = [(weight, fault) for weight, fault in faults if not only or fault.__name__.strip("_") in only]
        self._faults = [fault for weight, fault in named for _ in range(weight)]

    def strike(self) -> None:
        """Let something happen to a node."""
        node = self._c.nodes[self._c.rng.choice(list(self._c.nodes))]
        fault = self._c.rng.choice(self._faults)
        what = fault(node)
        if what:
            name = fault.__name__.strip("_")
            self.struck[name] = self.struck.get(name, 0) + 1
            self._c.note(f"{node.name}: {what}")

    def make_peace(self) -> None:
        """End every lasting fault of links, servers, devices and daemons, and those that wait; power stays as it is."""
        self._c.on_change.clear()
        for controller in self._c.controllers.values():
            if controller.mode is not Mode.DARK:
                controller.mode = Mode.OK
            controller.wrong_password.clear()
        self._c.closing.fails = False
        for node in self._c.nodes.values():
            node.server_down = False
            failures.heal(self._c, node)
            if node.frozen or node.hung:
                failures.thaw(self._c, node)
        self._c.ensemble.look()

    def restore_power(self) -> None:
        """Switch everything on, and let every daemon run."""
        for node in self._c.nodes.values():
            if not node.power.on:
                node.power.restore()
            elif not node.alive:
                self._c.start_daemon(node)

    def _seconds(self, least: float, most: float) -> float:
        return self._c.rng.uniform(least, most)

    def _place(self) -> tuple[int, str]:
        """Return in which effect something happens to a daemon: how many pass before, and which count."""
        where = self._c.rng.choice(_PLACES)
        return self._c.rng.randrange(0, 3 if where else 12), where

    # --- daemons and hosts ----------------------------------------------------------------------------

    def _daemon_dies_soon(self, node: SimNode) -> str:
        if node.daemon is None:
            return ""
        effects, where = self._place()
        node.daemon.die_after(effects, where=where)
        return f"daemon will die in effect {effects} {where}".rstrip()

    def _daemon_killed(self, node: SimNode) -> str:
        if node.daemon is None:
            return ""
        self._c.daemon_gone(node, self._seconds(0.5, 30.0))
        return "daemon is killed"

    def _daemon_stopped(self, node: SimNode) -> str:
        if not node.alive or node.frozen:
            return ""
        self._c.stop_daemon(node, self._seconds(1.0, 60.0))
        return "daemon was stopped in good order"

    def _power_cut(self, node: SimNode) -> str:
        if not node.power.on:
            return ""
        lasting = self._c.rng.random() < 0.4
        failures.power_cut(self._c, node, None if lasting else self._seconds(0.5, 90.0))
        return "mains are cut" + (" for good" if lasting else "")

    def _several_power_cuts(self, node: SimNode) -> str:
        others = self._c.rng.sample([n for n in self._c.nodes.values() if n is not node], k=self._c.rng.randint(1, 2))
        for victim in (node, *others):
            self._c.later(self._seconds(0.0, 0.5), "", partial(self._power_cut, victim))
        return f"mains are cut, also of {', '.join(n.name for n in others)}"

    def _blackout(self, node: SimNode) -> str:
        """The whole site loses its power; it comes back everywhere at once, and hosts start at different speeds."""
        del node
        seconds = self._seconds(1.0, 60.0)
        for victim in self._c.nodes.values():
            if victim.power.on:
                failures.power_cut(self._c, victim, seconds)
        return f"mains are cut at the whole site for {seconds:.1f} s"

    def _reset(self, node: SimNode) -> str:
        if not node.power.on:
            return ""
        self._c.reset(node, "the kernel panicked")
        return "has crashed"

    def _daemon_stops(self, node: SimNode) -> str:
        if not node.alive or node.frozen:
            return ""
        failures.freeze(self._c, node, self._seconds(1.0, 80.0))
        return "daemon is stopped (SIGSTOP)"

    def _daemon_stops_soon(self, node: SimNode) -> str:
        if node.daemon is None:
            return ""
        effects, where = self._place()
        seconds = self._seconds(1.0, 80.0)
        node.daemon.stop_after(effects, lambda: failures.freeze(self._c, node, seconds), where=where)
        return f"daemon will be stopped (SIGSTOP) for {seconds:.1f} s, in effect {effects} {where}".rstrip()

    def _thread_stalls_soon(self, node: SimNode) -> str:
        if node.daemon is None:
            return ""
        effects, where = self._place()
        seconds = self._seconds(1.0, 60.0)
        loses = self._c.rng.random() < 0.5
        node.daemon.stall_after(effects, seconds, where=where, also=lambda: loses and self._c.ensemble.expire(node))
        return f"one thread of the daemon will stand still for {seconds:.1f} s, in effect {effects} {where}".rstrip()

    def _node_hangs(self, node: SimNode) -> str:
        if not node.power.on or node.hung:
            return ""
        failures.freeze(self._c, node, self._seconds(5.0, 120.0), whole=True)
        return "hangs"

    def _fencer_dies_soon(self, node: SimNode) -> str:
        """Whoever writes this node's fence record next dies within its next effects."""
        effects = self._c.rng.randrange(0, 6)

        def die() -> None:
            primary = self._c.primary()
            if primary is not None and primary.daemon is not None:
                primary.daemon.die_after(effects)

        failures.at_fencing(self._c, node, self._c.rng.randrange(0, 4), die)
        return "its fencer will die"

    def _back_while_fenced(self, node: SimNode) -> str:
        """The node's power or link comes back at the worst moment."""

        def back() -> None:
            self._c.note(f"{node.name}: comes back while it is fenced")
            if not node.power.on:
                node.power.restore()
            elif node.frozen:
                failures.thaw(self._c, node)
            else:
                failures.heal(self._c, node)

            primary = self._c.primary()
            if primary is not None and primary.daemon is not None and self._c.rng.random() < 0.5:
                primary.daemon.stall_after(0, self._seconds(1.0, 40.0))

        failures.at_fencing(self._c, node, self._c.rng.randrange(0, 5), back)
        kind = self._c.rng.choice((self._power_cut, self._daemon_stops, self._link))
        return f"{kind(node)}, until it is fenced"

    def _spared_while_fenced(self, node: SimNode) -> str:
        """A person puts the node, or the cluster, into maintenance at the worst moment."""
        whole, for_s = self._c.rng.random() < 0.3, self._seconds(20.0, 60.0)

        def spare() -> None:
            self._c.note(f"maintenance of {'the cluster' if whole else node.name}, while {node.name} is fenced")
            if whole:
                cluster_maintenance(self._c.ops, ClusterMaintenance(maintenance=True, for_s=for_s))
            else:
                node_maintenance(self._c.ops, NodeMaintenance(node=node.name, maintenance=True, for_s=for_s))

        failures.at_fencing(self._c, node, self._c.rng.randrange(0, 3), spare)
        kind = self._c.rng.choice((self._power_cut, self._daemon_stops))
        return f"{kind(node)}, until it is fenced"

    def _lost_while_migrating(self, node: SimNode) -> str:
        """Source or target of a live migration is lost in the middle of it."""
        del node
        source_side, seconds = self._c.rng.random() < 0.7, self._seconds(20.0, 120.0)
        link = self._c.rng.choice((None, Link.CUT, Link.NO_ANSWERS))

        def lose(source: str, target: str) -> None:
            victim = self._c.nodes[source if source_side else target]
            self._c.note(f"{victim.name}: is lost while a guest migrates from {source} to {target}")
            if link is None:
                failures.power_cut(self._c, victim, seconds)
            else:
                failures.set_link(self._c, victim, link, seconds)

        failures.at_migration(self._c, self._c.rng.randrange(0, 6), lose)
        return f"the {'source' if source_side else 'target'} of a migration will be lost"

    # --- the store ------------------------------------------------------------------------------------

    def _link(self, node: SimNode) -> str:
        if node.link is not Link.UP:
            return ""
        link = self._c.rng.choice((Link.CUT, Link.CUT, Link.NO_ANSWERS, Link.NO_REQUESTS, Link.ISOLATED))
        seconds = self._c.rng.choice((self._seconds(1.0, 20.0), self._seconds(10.0, 100.0)))
        if link is Link.ISOLATED:
            seconds = self._seconds(1.0, 8.0)
        failures.set_link(self._c, node, link, seconds)
        return f"link to the ZooKeeper servers: {link}, for {seconds:.1f} s"

    def _session(self, node: SimNode) -> str:
        return "session is dropped by the servers" if self._c.ensemble.expire(node) else ""

    def _server(self, node: SimNode) -> str:
        if not node.coordinator or node.server_down:
            return ""
        failures.server_down(self._c, node, self._seconds(1.0, 60.0))
        return "its ZooKeeper server is down"

    def _majority(self, node: SimNode) -> str:
        del node
        failures.majority_lost(self._c, self._seconds(1.0, 40.0))
        return "most ZooKeeper servers go down"

    # --- fencing --------------------------------------------------------------------------------------

    def _fence_device(self, node: SimNode) -> str:
        devices = [device for name, device in self._c.controllers if name == node.name]
        if not devices:
            return ""
        device, mode = self._c.rng.choice(devices), self._c.rng.choice(_BAD_MODES)
        if self._c.controllers[node.name, device].mode is Mode.DARK:
            return ""
        failures.set_mode(self._c, node, device, mode, self._seconds(20.0, 200.0))
        return f"its {device} is {mode}"

    def _password(self, node: SimNode) -> str:
        devices = [controller for (name, _), controller in self._c.controllers.items() if name == node.name]
        if not devices:
            return ""
        controller = self._c.rng.choice(devices)
        who = self._c.rng.choice([n.name for n in self._c.nodes.values() if n.coordinator])
        controller.wrong_password.add(who)
        self._c.later(self._seconds(20.0, 200.0), "", lambda: controller.wrong_password.discard(who))
        return f"{who} has a wrong password for its {controller.device}"

    def _storage(self, node: SimNode) -> str:
        del node

        def well() -> None:
            self._c.closing.fails = False

        self._c.closing.fails = True
        self._c.later(self._seconds(10.0, 60.0), "the storage can be closed and opened again", well)
        return "the storage cannot be closed or opened"

    def _watchdog_starves(self, node: SimNode) -> str:
        if node.watchdog is None or not node.watchdog.armed:
            return ""
        failures.starve_watchdog(self._c, node)
        return "its watchdog will bite late"

    def _wall_clock(self, node: SimNode) -> str:
        jump = self._c.rng.choice((-86400.0, -30.0, 30.0, 3600.0, 400_000.0))
        node.clock.wall_offset_s += jump
        return f"wall clock jumps by {jump:g} s"
