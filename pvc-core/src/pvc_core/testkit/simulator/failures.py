"""What may befall a simulated cluster.  Each function lets one thing happen now, and pass by itself later if asked to."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pvc_core.store import keys
from pvc_core.testkit.simulator.ensemble import Link
from pvc_core.testkit.simulator.power import Mode
from pvc_core.testkit.simulator.watchdog import FEEDING

if TYPE_CHECKING:
    from pvc_core.testkit.simulator.cluster import Cluster
    from pvc_core.testkit.simulator.node import SimNode

Later = float | None
"""Seconds until it passes; None: it stays."""


def power_cut(cluster: "Cluster", node: "SimNode", back_after_s: Later) -> None:
    """Cut a node's mains; somebody puts everything on again later."""
    node.power.switch("mains", on=False)
    if back_after_s is not None:
        cluster.later(back_after_s, "", node.power.restore)


def freeze(cluster: "Cluster", node: "SimNode", seconds: Later, *, whole: bool = False) -> None:
    """Stop a daemon (SIGSTOP), or let the whole node hang: it then does nothing, and its guests perhaps neither."""
    if not node.power.on:
        return
    node.frozen, node.hung = node.alive, whole
    others = [name for name in cluster.nodes if name != node.name] if whole else []
    for other in others:
        cluster.world.cut_link(node.name, other)
    cluster.ensemble.look()
    boot, daemon = node.boots, node.daemon

    def go_on() -> None:
        for other in others:
            cluster.world.heal_link(node.name, other)
        if node.boots != boot or not node.power.on:
            return
        node.hung = False
        if node.daemon is None:
            cluster.start_daemon(node)
        elif node.daemon is daemon:
            thaw(cluster, node)

    if seconds is not None:
        cluster.later(seconds, f"{node.name}: {'hangs no longer' if whole else 'daemon goes on (SIGCONT)'}", go_on)


def thaw(cluster: "Cluster", node: "SimNode") -> None:
    """Let a stopped node go on."""
    node.frozen = node.hung = False
    cluster.ensemble.look()
    if node.daemon is not None:
        node.daemon.thaw()


def set_link(cluster: "Cluster", node: "SimNode", link: Link, heal_after_s: Later) -> None:
    """Change a node's link to the ZooKeeper servers."""
    node.link = link
    cluster.ensemble.look()
    if heal_after_s is not None:
        cluster.later(heal_after_s, "", lambda: heal(cluster, node))


def heal(cluster: "Cluster", node: "SimNode") -> None:
    """Mend a node's link to the ZooKeeper servers."""
    if node.link is not Link.UP:
        cluster.note(f"{node.name}: its link is up")
        node.link = Link.UP
        cluster.ensemble.look()


def server_down(cluster: "Cluster", node: "SimNode", seconds: Later) -> None:
    """Stop the ZooKeeper server of a coordinator."""

    def up() -> None:
        node.server_down = False
        cluster.ensemble.look()

    node.server_down = True
    cluster.ensemble.look()
    if seconds is not None:
        cluster.later(seconds, f"{node.name}: its ZooKeeper server is back", up)


def majority_lost(cluster: "Cluster", seconds: Later) -> None:
    """Stop as many ZooKeeper servers as it takes."""
    coordinators = [node for node in cluster.nodes.values() if node.coordinator]
    for node in cluster.rng.sample(coordinators, len(coordinators) // 2 + 1):
        server_down(cluster, node, seconds)


def set_mode(cluster: "Cluster", node: "SimNode", device: str, mode: Mode, seconds: Later) -> None:
    """Let a fence device of a node be in a mode."""
    controller = cluster.controllers[node.name, device]
    if controller.mode is Mode.DARK:
        return  # a mistake of the installation, which nobody repairs
    controller.mode = mode

    def well() -> None:
        controller.mode = Mode.OK

    if seconds is not None:
        cluster.later(seconds, f"{node.name}: its {device} is well again", well)


def at_fencing(cluster: "Cluster", node: "SimNode", times: int, call: Callable[[], None]) -> None:
    """Do something at the very moment in which somebody else writes this node's fence record for the n-th time from now."""
    path = keys.fence(node.name).path

    def writes(by: str, paths: list[str]) -> Callable[[], None] | None:
        return call if by != node.name and path in paths else None

    _at_write(cluster, writes, times)


def at_migration(cluster: "Cluster", times: int, call: Callable[[str, str], None]) -> None:
    """Do something, told source and target, when a claim with a migration in it is written for the n-th time from now."""

    def writes(_: str, paths: list[str]) -> Callable[[], None] | None:
        for path in paths:
            claim = cluster.invariants.claim(path.removeprefix(f"{keys.CLAIM}/"))
            if claim is not None and claim.migration is not None:
                return partial(call, claim.node, claim.migration.target)
        return None

    _at_write(cluster, writes, times)


def _at_write(cluster: "Cluster", wanted: Callable[[str, list[str]], Callable[[], None] | None], times: int) -> None:
    """Do what ``wanted`` returns, of who writes which paths, when it returns something for the n-th time from now."""
    left = times

    def look(by: str, paths: list[str]) -> None:
        nonlocal left
        call = wanted(by, paths)
        if call is None:
            return
        left -= 1
        if left < 0:
            # After the transaction, and before whatever its writer does next.
            cluster.at_once(call)
            cluster.on_change.remove(look)

    cluster.on_change.append(look)


def starve_watchdog(cluster: "Cluster", node: "SimNode") -> None:
    """Cut a node off, and let its watchdog bite as late as it can.

    The daemon is stopped between the last check of the lease and the feeding that follows; when it has fed after all, it
    is killed just before it would bite, for which Linux feeds once more.
    """
    daemon = node.daemon
    if daemon is None or node.watchdog is None or not node.watchdog.armed:
        return
    timeout_s, part = node.watchdog.timeout_s, cluster.rng.uniform(0.8, 1.0)
    set_link(cluster, node, Link.CUT, 150.0)
    for device in (device for name, device in cluster.controllers if name == node.name):
        set_mode(cluster, node, device, Mode.UNREACHABLE, 150.0)

    def kill() -> None:
        if node.daemon is daemon:
            cluster.daemon_gone(node, 60.0)

    def stop() -> None:
        freeze(cluster, node, part * timeout_s)
        cluster.later(2 * part * timeout_s, f"{node.name}: daemon is killed", kill)

    def stop_soon() -> None:
        if daemon.alive:
            daemon.stop_after(0, stop, where=FEEDING)

    cluster.later(cluster.rng.uniform(3.5, 6.0), "", stop_soon)
