"""The commands of scenario files: what may befall a simulated cluster."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pvc_core.testkit.scenario.requests import REQUESTS
from pvc_core.testkit.scenario.words import Args, Verb
from pvc_core.testkit.simulator import failures
from pvc_core.testkit.simulator.ensemble import Link
from pvc_core.testkit.simulator.node import SimNode
from pvc_core.testkit.simulator.power import BMC, Mode

if TYPE_CHECKING:
    from pvc_core.testkit.scenario.site import Site

_LINKS: Final = {
    "up": Link.UP,
    "cut": Link.CUT,
    "no-answers": Link.NO_ANSWERS,
    "no-requests": Link.NO_REQUESTS,
    "isolated": Link.ISOLATED,
}
_MIGRATION: Final = {"stalls": "migration_stalls", "fails": "migration_error", "unconfirmed": "migration_unconfirmed"}
_CHOICE_OF_MODES: Final = "|".join(Mode)
_CHOICE_OF_LINKS: Final = "|".join(_LINKS)


def _each(call: Callable[["Site", SimNode, Args], None]) -> Callable[["Site", Args], None]:
    """Return a call that is made for each of the nodes."""

    def calls(site: "Site", args: Args) -> None:
        for name in args.nodes:
            call(site, site.node(name), args)

    return calls


def _pass(site: "Site", args: Args, call: Callable[[], None]) -> None:
    if args.for_s is not None:
        site.later(args.for_s, call)


# --- power, daemons --------------------------------------------------------------------------------------


def _power_on(site: "Site", node: SimNode, _args: Args) -> None:
    del site
    node.power.restore()


def _reset(site: "Site", node: SimNode, _args: Args) -> None:
    if node.power.on:
        site.cluster.reset(node, "its kernel panicked")


def _start_daemon(site: "Site", node: SimNode, _args: Args) -> None:
    site.cluster.start_daemon(node)


# --- the state store -------------------------------------------------------------------------------------


def _store_link(site: "Site", node: SimNode, args: Args) -> None:
    failures.set_link(site.cluster, node, _LINKS[args.word], args.for_s)


def _store_server(site: "Site", node: SimNode, args: Args) -> None:
    if args.word == "down":
        failures.server_down(site.cluster, node, args.for_s)
    else:
        node.server_down = False
        site.cluster.ensemble.look()


def _majority(site: "Site", args: Args) -> None:
    if args.word == "lost":
        failures.majority_lost(site.cluster, args.for_s)
        return
    for node in site.cluster.nodes.values():
        node.server_down = False
    site.cluster.ensemble.look()


def _expire(site: "Site", node: SimNode, _args: Args) -> None:
    site.cluster.ensemble.expire(node)


# --- fencing ---------------------------------------------------------------------------------------------


def _mode(site: "Site", node: SimNode, args: Args) -> None:
    failures.set_mode(site.cluster, node, args.device or BMC, Mode(args.word), args.for_s)


def _wrong_password(site: "Site", args: Args) -> None:
    for (node, _), controller in site.cluster.controllers.items():
        if node == args.nodes[0]:
            controller.wrong_password.add(args.other)
            _pass(site, args, partial(controller.wrong_password.discard, args.other))


def _storage(site: "Site", args: Args) -> None:
    closing = site.cluster.closing
    closing.fails = args.word == "fails"
    _pass(site, args, lambda: setattr(closing, "fails", False))


# --- guests ----------------------------------------------------------------------------------------------


def _crash(site: "Site", args: Args) -> None:
    for vm in args.vms:
        for host in site.hosts(vm):
            site.cluster.world.crash(host, site.ids[vm])


def _guest_off(site: "Site", args: Args) -> None:
    for vm in args.vms:
        for host in site.hosts(vm):
            site.cluster.world.guest_shutdown(host, site.ids[vm])


def _deaf(site: "Site", node: SimNode, args: Args) -> None:
    faults = site.cluster.world.faults(node.name)
    faults.ignores_acpi = True
    _pass(site, args, lambda: setattr(faults, "ignores_acpi", False))


def _migrations(site: "Site", node: SimNode, args: Args) -> None:
    faults = site.cluster.world.faults(node.name)

    def well() -> None:
        faults.migration_stalls = faults.migration_unconfirmed = False
        faults.migration_error = ""

    well()
    if args.word != "work":
        setattr(faults, _MIGRATION[args.word], "connection reset" if args.word == "fails" else True)
        _pass(site, args, well)


def _host_link(site: "Site", args: Args) -> None:
    one, other, world = args.nodes[0], args.other, site.cluster.world
    if args.word == "up":
        world.heal_link(one, other)
        return
    world.cut_link(one, other)
    _pass(site, args, lambda: world.heal_link(one, other))


def _libvirtd(site: "Site", node: SimNode, args: Args) -> None:
    world = site.cluster.world
    if args.word == "up":
        world.start_libvirtd(node.name)
        return
    world.stop_libvirtd(node.name)
    _pass(site, args, lambda: world.start_libvirtd(node.name))


def _clock_jump(site: "Site", node: SimNode, args: Args) -> None:
    del site
    node.clock.wall_offset_s += args.seconds


_ALL: Final = (
    Verb(
        "power-cut NODES [for SECONDS]",
        "Their mains are cut; after `for`, somebody puts everything on again.",
        _each(lambda s, node, a: failures.power_cut(s.cluster, node, a.for_s)),
    ),
    Verb("power-on NODES", "Everything is put on again by hand; they boot, which takes 1 to 20 s.", _each(_power_on)),
    Verb("reset NODES", "Their kernel panics: they boot at once.", _each(_reset)),
    Verb(
        "freeze NODES [for SECONDS]",
        "Their daemons are stopped (SIGSTOP); guests go on.",
        _each(lambda s, node, a: failures.freeze(s.cluster, node, a.for_s)),
    ),
    Verb(
        "hang NODES [for SECONDS]",
        "They do nothing any more, as whole hosts; later they go on where they were.",
        _each(lambda s, node, a: failures.freeze(s.cluster, node, a.for_s, whole=True)),
    ),
    Verb("thaw NODES", "What was stopped or hangs goes on.", _each(lambda s, node, _: failures.thaw(s.cluster, node))),
    Verb(
        "kill-daemon NODES [for SECONDS]",
        "Their daemons are killed; started again after `for`.",
        _each(lambda s, node, a: s.cluster.daemon_gone(node, a.for_s)),
    ),
    Verb(
        "stop-daemon NODES [for SECONDS]",
        "Their daemons are stopped in good order; started again after `for`.",
        _each(lambda s, node, a: s.cluster.stop_daemon(node, a.for_s)),
    ),
    Verb("start-daemon NODES", "Their daemons are started.", _each(_start_daemon)),
    Verb(
        f"store-link NODES {_CHOICE_OF_LINKS} [for SECONDS]",
        "Their link to the state store: cut, one-way, or to a server that is cut off itself. A coordinator's own server is "
        "then cut off too.",
        _each(_store_link),
    ),
    Verb("store-server NODES down|up [for SECONDS]", "The ZooKeeper servers on them.", _each(_store_server)),
    Verb("majority lost|back [for SECONDS]", "So many ZooKeeper servers stop that the rest is no majority.", _majority),
    Verb("expire-session NODES", "The servers drop their sessions.", _each(_expire)),
    Verb(f"bmc NODES {_CHOICE_OF_MODES} [for SECONDS]", "How their BMCs behave.", _each(_mode)),
    Verb(f"device NODE DEVICE {_CHOICE_OF_MODES} [for SECONDS]", "The same of any fence device.", _each(_mode)),
    Verb(
        "wrong-password NODE OTHER [for SECONDS]",
        "The second node has a wrong password for the fence devices of the first.",
        _wrong_password,
    ),
    Verb("storage fails|works [for SECONDS]", "Whether shared storage can be closed to a node, and opened.", _storage),
    Verb(
        "starve-watchdog NODES",
        "Their sessions end, and their watchdogs bite as late as they can; links and fence devices are away for 120 s.",
        _each(lambda s, node, _: failures.starve_watchdog(s.cluster, node)),
    ),
    Verb("clock-jump NODES SECONDS", "Their wall clocks jump.", _each(_clock_jump)),
    Verb("guest-crash VM", "Its guest crashes.", _crash),
    Verb("guest-off VM", "Its guest shuts itself down.", _guest_off),
    Verb("deaf NODES [for SECONDS]", "Guests on them do not react to ACPI.", _each(_deaf)),
    Verb(
        "migrations NODES work|stalls|fails|unconfirmed [for SECONDS]",
        "Live migrations from them never end, fail at the end, or end without the source hearing of it.",
        _each(_migrations),
    ),
    Verb("host-link NODE OTHER cut|up [for SECONDS]", "The link for migrations between two nodes.", _host_link),
    Verb("libvirtd NODES down|up [for SECONDS]", "libvirt on them; guests go on.", _each(_libvirtd)),
)

VERBS: Final = {verb.name: verb for verb in (*_ALL, *REQUESTS)}
"""All commands, by name."""
