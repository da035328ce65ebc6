"""Networks of a sandbox: a switch in a namespace of its own, and each node's four cables to it.

``eth0`` is in the cluster network (bridge ``sw``: state store, migrations, underlay of managed networks), ``guest0`` in the
guests' (bridge ``guest``), for network drivers to put into their bridges, ``mgmt0`` in the management network (bridge
``mgmt``), where the nodes' BMCs are, ``up0`` in the upstream network (bridge ``up``), where the router outside is.  The
machine's own network is not touched.  Every function brings things to the wanted state, from whatever it finds.
"""

import contextlib
import errno
import socket
from collections.abc import Collection, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pvc_core.plugin.process import run
from pvc_core.testkit.lan import entered
from pvc_sandbox.layout import ROUTER_HOST, SWITCH_HOST, Layout

if TYPE_CHECKING:  # it takes 0.1 s to import: a power button must not wait for it to tell whether the power is on
    from pyroute2 import IPRoute

CLUSTER: Final = 0
GUESTS: Final = 1
MANAGEMENT: Final = 2
UPSTREAM: Final = 3
NETWORKS: Final = (CLUSTER, GUESTS, MANAGEMENT, UPSTREAM)
IN_USE: Final = (CLUSTER, GUESTS, UPSTREAM)
"""Without these a node is cut off from everything but the BMCs."""


class _Cable(NamedTuple):
    """What the cables to one network are called."""

    network: str
    bridge: str
    """On the switch."""
    card: str
    """On the node."""
    suffix: str
    """Of the name of a node's port on the switch."""


_CABLES: Final = {
    CLUSTER: _Cable("cluster", "sw", "eth0", ""),
    GUESTS: _Cable("guests", "guest", "guest0", "-guest"),
    MANAGEMENT: _Cable("management", "mgmt", "mgmt0", "-mgmt"),
    UPSTREAM: _Cable("upstream", "up", "up0", "-up"),
}
NAMES: Final = {cable.network: network for network, cable in _CABLES.items()}
"""Every network by its name."""
CARDS: Final = {network: cable.card for network, cable in _CABLES.items()}
ROUTER_CARD: Final = _CABLES[UPSTREAM].card
"""The router's own, in its namespace."""
_ROUTER_PORT: Final = "router"
_NAMED: Final = Path("/run/netns")
"""Where ``ip netns`` keeps named namespaces."""
_SETTINGS: Final = Path("/proc/sys/net")
_IFA_F_NODAD: Final = 0x02
_RTNH_F_ONLINK: Final = 4
_DEADLINE_S: Final = 20.0


@contextlib.contextmanager
def opened(namespace: Path) -> "Iterator[IPRoute]":
    """Give a netlink socket in the network namespace of this file."""
    from pyroute2 import IPRoute

    # ``IPRoute(netns=...)`` would fork to open the socket there, which a process with threads should not do.
    with entered(namespace):
        links = IPRoute()
    with links:
        yield links


def namespace(name: str) -> Path:
    """Return the file of a named network namespace."""
    return _NAMED / name


def namespace_exists(name: str) -> bool:
    """Return whether a named network namespace is there."""
    path = namespace(name)
    # The name is a plain file until the namespace is mounted on it.
    return path.exists() and path.stat().st_dev != _NAMED.stat().st_dev


def make_namespace(name: str) -> None:
    """Make a named network namespace; what is there is kept."""
    if not namespace_exists(name):
        namespace(name).unlink(missing_ok=True)
        run(["ip", "netns", "add", name], deadline_s=_DEADLINE_S).check()


def remove_namespace(name: str) -> None:
    """Remove a named network namespace with its devices; absent is success."""
    if namespace_exists(name):
        run(["ip", "netns", "delete", name], deadline_s=_DEADLINE_S).check()
    else:
        namespace(name).unlink(missing_ok=True)


def _index(links: "IPRoute", name: str) -> int | None:
    found = links.link_lookup(ifname=name)
    return int(found[0]) if found else None


def _up(links: "IPRoute", name: str) -> None:
    links.link("set", index=_index(links, name), state="up")


def _address(links: "IPRoute", name: str, address: str) -> None:
    """Give a device an address (``address/length``)."""
    wanted = ip_interface(address)
    arguments: dict[str, Any] = {"address": str(wanted.ip), "prefixlen": wanted.network.prefixlen}
    already = {errno.EEXIST}
    if wanted.version == 6:
        arguments["flags"] = _IFA_F_NODAD  # nobody else can have it, and a daemon that starts now wants to use it
        already |= {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}  # a kernel without IPv6 has the rest of the sandbox
    with _ignoring(*already):
        links.addr("add", index=_index(links, name), **arguments)


def _addresses(layout: Layout, network: int, host: int) -> tuple[str, ...]:
    """Return the addresses of a node, of the switch or of the router in a network."""
    if network == CLUSTER:
        return f"{layout.cluster_address(host)}/24", f"{layout.cluster_address6(host)}/64"
    if network == UPSTREAM:
        return f"{layout.upstream_address(host)}/24", f"{layout.upstream_address6(host)}/64"
    if network == MANAGEMENT:
        return (f"{layout.management_address(host)}/24",)
    # Guests' addresses are not the nodes' business.
    return (f"{layout.guest_address(host)}/24",) if host == SWITCH_HOST else ()


@contextlib.contextmanager
def _ignoring(*codes: int) -> Iterator[None]:
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code not in codes:
            raise


def _without_duplicate_detection(namespace: Path, card: str) -> None:
    """Let a card use the address that it gives itself at once; to be called before it is up."""
    with entered(namespace):
        setting = _SETTINGS / f"ipv6/conf/{card}/accept_dad"
        if setting.exists():
            setting.write_text("0")


def port(layout: Layout, number: int, network: int) -> str:
    """Return the name of a node's port on the switch."""
    return layout.node_name(number) + _CABLES[network].suffix


def switch_exists(layout: Layout) -> bool:
    """Return whether the switch's namespace is there."""
    return namespace_exists(layout.switch)


def make_switch(layout: Layout) -> None:
    """Make the switch with its bridges; what is there is kept."""
    make_namespace(layout.switch)
    with opened(namespace(layout.switch)) as links:
        _up(links, "lo")
        for network, cable in _CABLES.items():
            bridge = cable.bridge
            with _ignoring(errno.EEXIST):
                links.link("add", ifname=bridge, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
            # A bridge without an address of its own takes one of its ports', and another when that one goes: whoever
            # knows it would then send into the void for a while.
            links.link("set", index=_index(links, bridge), address=layout.mac(SWITCH_HOST, network))
            for address in _addresses(layout, network, SWITCH_HOST):
                _address(links, bridge, address)
            _up(links, bridge)


def remove_switch(layout: Layout) -> None:
    """Remove the switch and with it all cables; absent is success."""
    remove_namespace(layout.switch)


def connect(layout: Layout, number: int, pid: int, *, pulled: Collection[int] = (), router: bool = False) -> None:
    """Plug a node's cables in, but those of the networks ``pulled``; ``pid`` is a process in its network namespace.

    ``router``: its default routes lead to the router outside.
    """
    there = Path(f"/proc/{pid}/ns/net")
    with opened(namespace(layout.switch)) as switch, opened(there) as node:
        _up(node, "lo")
        for network, cable in _CABLES.items():
            name = port(layout, number, network)
            if _index(node, cable.card) is None:
                _plug(switch, name, {"net_ns_pid": pid}, cable.card, layout.mac(number, network))
            state = "down" if network in pulled else "up"
            switch.link("set", index=_index(switch, name), master=_index(switch, cable.bridge), state=state)
            _without_duplicate_detection(there, cable.card)
            _up(node, cable.card)
            for address in _addresses(layout, network, number):
                _address(node, cable.card, address)
        if router:
            _route_outside(layout, node)


def connect_router(layout: Layout) -> None:
    """Plug the router's cable in, whose namespace is there."""
    bridge, there = _CABLES[UPSTREAM].bridge, namespace(layout.router)
    with opened(namespace(layout.switch)) as switch, opened(there) as router, there.open("rb") as end:
        _up(router, "lo")
        if _index(router, ROUTER_CARD) is None:
            mac = layout.mac(ROUTER_HOST, UPSTREAM)
            _plug(switch, _ROUTER_PORT, {"net_ns_fd": end.fileno()}, ROUTER_CARD, mac)
        switch.link("set", index=_index(switch, _ROUTER_PORT), master=_index(switch, bridge), state="up")
        _without_duplicate_detection(there, ROUTER_CARD)
        _up(router, ROUTER_CARD)
        for address in _addresses(layout, UPSTREAM, ROUTER_HOST):
            _address(router, ROUTER_CARD, address)


def give_address(name: str, device: str, address: str) -> None:
    """Give a device in a named namespace an address (``address/length``)."""
    with opened(namespace(name)) as links:
        _address(links, device, address)


def _plug(switch: "IPRoute", name: str, end: dict[str, int], card: str, mac: str) -> None:
    # A port without its card belonged to one that died: the kernel takes it away later.
    _unplug(switch, name)
    switch.link("add", ifname=name, kind="veth", peer={"ifname": card, "address": mac, **end})


def _route_outside(layout: Layout, node: "IPRoute") -> None:
    ways = (
        (socket.AF_INET, "0.0.0.0/0", layout.upstream_address(ROUTER_HOST)),
        (socket.AF_INET6, "::/0", layout.upstream_address6(ROUTER_HOST)),
    )
    card = _index(node, _CABLES[UPSTREAM].card)
    for family, everything, gateway in ways:
        # On the link, whether its cable is pulled or not.
        node.route("replace", family=family, dst=everything, gateway=gateway, oif=card, flags=_RTNH_F_ONLINK)


def _unplug(switch: "IPRoute", name: str) -> None:
    index = _index(switch, name)
    if index is not None:
        with _ignoring(errno.ENODEV):
            switch.link("del", index=index)


def unplug(layout: Layout, number: int) -> None:
    """Take a node's cables away, as its cards without power are: no FIN, no RST ever leaves it again."""
    if switch_exists(layout):
        with opened(namespace(layout.switch)) as switch:
            for network in NETWORKS:
                _unplug(switch, port(layout, number, network))


def set_carriers(layout: Layout, number: int, *, pulled: Collection[int]) -> None:
    """Pull the cables of these networks out of the switch and put the others in: the node's cards notice."""
    with opened(namespace(layout.switch)) as switch:
        for network in NETWORKS:
            index = _index(switch, port(layout, number, network))
            if index is not None:
                switch.link("set", index=index, state="down" if network in pulled else "up")


def set_bmc_address(layout: Layout, number: int, *, present: bool) -> None:
    """Let the address of a node's BMC be there, or not: who asks it then waits in vain, as when it has no power."""
    if not switch_exists(layout):
        return
    with opened(namespace(layout.switch)) as switch:
        bridge = _CABLES[MANAGEMENT].bridge
        if present:
            _address(switch, bridge, f"{layout.bmc_address(number)}/24")
        else:
            with _ignoring(errno.EADDRNOTAVAIL, errno.ENODEV):
                switch.addr("del", index=_index(switch, bridge), address=layout.bmc_address(number), prefixlen=24)


def carriers(layout: Layout) -> dict[str, bool]:
    """Return for each node's port on the switch whether it is up."""
    if not switch_exists(layout):
        return {}
    others = {"lo", _ROUTER_PORT, *(cable.bridge for cable in _CABLES.values())}
    with opened(namespace(layout.switch)) as switch:
        return {
            name: bool(link["flags"] & 1)
            for link in switch.get_links()
            if (name := str(link.get_attr("IFLA_IFNAME"))) not in others
        }
