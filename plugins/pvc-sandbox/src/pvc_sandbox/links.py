"""Networks of a sandbox: a switch in a namespace of its own, and each node's three cables to it.

``eth0`` is in the cluster network (bridge ``sw``: state store, migrations), ``guest0`` in the guests' (bridge
``guest``), for network drivers to put into their bridges, ``mgmt0`` in the management network (bridge ``mgmt``), where
the nodes' BMCs are.  The machine's own network is not touched.  Every function brings things to the wanted state,
from whatever it finds.
"""

import contextlib
import errno
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pvc_core.plugin.process import run
from pvc_core.testkit.lan import entered
from pvc_sandbox.layout import SWITCH_HOST, Layout

if TYPE_CHECKING:  # it takes 0.1 s to import: a power button must not wait for it to tell whether the power is on
    from pyroute2 import IPRoute

CLUSTER: Final = 0
GUESTS: Final = 1
MANAGEMENT: Final = 2
NETWORKS: Final = (CLUSTER, GUESTS, MANAGEMENT)
_BRIDGES: Final = {CLUSTER: "sw", GUESTS: "guest", MANAGEMENT: "mgmt"}
_CARDS: Final = {CLUSTER: "eth0", GUESTS: "guest0", MANAGEMENT: "mgmt0"}
_PORTS: Final = {CLUSTER: "", GUESTS: "-guest", MANAGEMENT: "-mgmt"}
_NAMED: Final = Path("/run/netns")
"""Where ``ip netns`` keeps named namespaces."""
_DEADLINE_S: Final = 20.0


@contextlib.contextmanager
def _open(namespace: Path) -> "Iterator[IPRoute]":
    from pyroute2 import IPRoute

    # ``IPRoute(netns=...)`` would fork to open the socket there, which a process with threads should not do.
    with entered(namespace):
        links = IPRoute()
    with links:
        yield links


def _switch(layout: Layout) -> Path:
    return _NAMED / layout.switch


def _index(links: "IPRoute", name: str) -> int | None:
    found = links.link_lookup(ifname=name)
    return int(found[0]) if found else None


def _up(links: "IPRoute", name: str) -> None:
    links.link("set", index=_index(links, name), state="up")


def _address(links: "IPRoute", name: str, address: str) -> None:
    with _ignoring(errno.EEXIST):
        links.addr("add", index=_index(links, name), address=address, prefixlen=24)


@contextlib.contextmanager
def _ignoring(*codes: int) -> Iterator[None]:
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise


def port(layout: Layout, number: int, network: int) -> str:
    """Return the name of a node's port on the switch."""
    return layout.node_name(number) + _PORTS[network]


def switch_exists(layout: Layout) -> bool:
    """Return whether the switch's namespace is there."""
    path = _switch(layout)
    # The name is a plain file until the namespace is mounted on it.
    return path.exists() and path.stat().st_dev != _NAMED.stat().st_dev


def make_switch(layout: Layout) -> None:
    """Make the switch with its bridges; what is there is kept."""
    if not switch_exists(layout):
        _switch(layout).unlink(missing_ok=True)
        run(["ip", "netns", "add", layout.switch], deadline_s=_DEADLINE_S).check()
    addresses = {
        CLUSTER: layout.cluster_address(SWITCH_HOST),
        GUESTS: layout.guest_address(SWITCH_HOST),
        MANAGEMENT: layout.management_address(SWITCH_HOST),
    }
    with _open(_switch(layout)) as links:
        _up(links, "lo")
        for network, bridge in _BRIDGES.items():
            with _ignoring(errno.EEXIST):
                links.link("add", ifname=bridge, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
            # A bridge without an address of its own takes one of its ports', and another when that one goes: whoever
            # knows it would then send into the void for a while.
            links.link("set", index=_index(links, bridge), address=layout.mac(SWITCH_HOST, network))
            _address(links, bridge, addresses[network])
            _up(links, bridge)


def remove_switch(layout: Layout) -> None:
    """Remove the switch and with it all cables; absent is success."""
    path = _switch(layout)
    if switch_exists(layout):
        run(["ip", "netns", "delete", layout.switch], deadline_s=_DEADLINE_S).check()
    else:
        path.unlink(missing_ok=True)


def connect(layout: Layout, number: int, pid: int, *, pulled: Collection[int] = ()) -> None:
    """Plug a node's cables in, but those of the networks ``pulled``; ``pid`` is a process in its network namespace."""
    with _open(_switch(layout)) as switch, _open(Path(f"/proc/{pid}/ns/net")) as node:
        _up(node, "lo")
        for network, card in _CARDS.items():
            name = port(layout, number, network)
            if _index(node, card) is None:
                # A port without its card belonged to a node that died: the kernel takes it away later.
                _unplug(switch, name)
                peer: dict[str, Any] = {"ifname": card, "net_ns_pid": pid, "address": layout.mac(number, network)}
                switch.link("add", ifname=name, kind="veth", peer=peer)
            state = "down" if network in pulled else "up"
            switch.link("set", index=_index(switch, name), master=_index(switch, _BRIDGES[network]), state=state)
            _up(node, card)
        _address(node, _CARDS[CLUSTER], layout.cluster_address(number))
        _address(node, _CARDS[MANAGEMENT], layout.management_address(number))


def _unplug(switch: "IPRoute", name: str) -> None:
    index = _index(switch, name)
    if index is not None:
        with _ignoring(errno.ENODEV):
            switch.link("del", index=index)


def unplug(layout: Layout, number: int) -> None:
    """Take a node's cables away, as its cards without power are: no FIN, no RST ever leaves it again."""
    if switch_exists(layout):
        with _open(_switch(layout)) as switch:
            for network in _CARDS:
                _unplug(switch, port(layout, number, network))


def set_carriers(layout: Layout, number: int, *, pulled: Collection[int]) -> None:
    """Pull the cables of these networks out of the switch and put the others in: the node's cards notice."""
    with _open(_switch(layout)) as switch:
        for network in _CARDS:
            index = _index(switch, port(layout, number, network))
            if index is not None:
                switch.link("set", index=index, state="down" if network in pulled else "up")


def set_bmc_address(layout: Layout, number: int, *, present: bool) -> None:
    """Let the address of a node's BMC be there, or not: who asks it then waits in vain, as when it has no power."""
    if not switch_exists(layout):
        return
    with _open(_switch(layout)) as switch:
        if present:
            _address(switch, _BRIDGES[MANAGEMENT], layout.bmc_address(number))
        else:
            with _ignoring(errno.EADDRNOTAVAIL, errno.ENODEV):
                bridge = _index(switch, _BRIDGES[MANAGEMENT])
                switch.addr("del", index=bridge, address=layout.bmc_address(number), prefixlen=24)


def carriers(layout: Layout) -> dict[str, bool]:
    """Return for each port of the switch whether it is up."""
    if not switch_exists(layout):
        return {}
    with _open(_switch(layout)) as switch:
        return {
            str(link.get_attr("IFLA_IFNAME")): bool(link["flags"] & 1)
            for link in switch.get_links()
            if link.get_attr("IFLA_IFNAME") not in ("lo", *_BRIDGES.values())
        }
