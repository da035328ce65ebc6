"""Hosts in network namespaces of their own, on one Ethernet segment, for tests on the real kernel."""

import contextlib
import ctypes
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from pvc_core.plugin import Context, NodeInfo, decode, run
from pvc_hostnet.config import HostnetConfig
from pvc_hostnet.hooks import HostNetworks

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _do(what: str, result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


class Namespace:
    """A network namespace that lasts as long as this object, and the threads that were begun inside."""

    def __init__(self):
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            _do("unshare", _libc.unshare(_CLONE_NEWNET))
            self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            try:
                with IPRoute() as ip:
                    ip.link("set", index=1, state="up")
            finally:
                _do("setns", _libc.setns(home.fileno(), _CLONE_NEWNET))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread, and threads and processes that it starts, in the namespace."""
        with Path("/proc/thread-self/ns/net").open("rb") as home:
            _do("setns", _libc.setns(self.descriptor, _CLONE_NEWNET))
            try:
                yield
            finally:
                _do("setns", _libc.setns(home.fileno(), _CLONE_NEWNET))

    def close(self) -> None:
        os.close(self.descriptor)


class Host:
    """A host; its devices are cables to the segment's switch."""

    def __init__(self, segment: "Segment", name: str):
        self.name = name
        self._segment = segment
        self._namespace = Namespace()
        self._hooks: list[HostNetworks] = []

    def inside(self):
        return self._namespace.inside()

    def plug(self, device: str = "eth0", *, up: bool = False) -> None:
        """Make a device of this host, plugged into the switch."""
        self._segment.cable(f"{self.name}-{device}", device, self._namespace.descriptor)
        if up:
            self.set(device, state="up")

    def hooks(self, role: str = "coordinator", **section) -> HostNetworks:
        """Return the plugin of a daemon that starts here; its hooks are to be called inside."""
        context = Context(
            node=NodeInfo(name=self.name, role=role),
            log=logging.getLogger("pvc_hostnet"),
            run=run,
            wake=lambda *_: None,
        )
        made = HostNetworks(context, decode(section, HostnetConfig, "plugins.hostnet"))
        self._hooks.append(made)
        return made

    def start(self, **section) -> HostNetworks:
        """Start a daemon here."""
        made = self.hooks(**section)
        with self.inside():
            made.node_starting(self.name)
        return made

    def link(self, device: str = "eth0"):
        with self.inside(), IPRoute() as ip:
            found = ip.link_lookup(ifname=device)
            return ip.link("get", index=found[0])[0] if found else None

    def mac(self, device: str = "eth0") -> str:
        return self.link(device).get_attr("IFLA_ADDRESS")

    def set(self, device: str, **attributes) -> None:
        with self.inside(), IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname=device)[0], **attributes)

    def add(self, device: str, kind: str, **attributes) -> None:
        with self.inside(), IPRoute() as ip:
            if "link" in attributes:
                attributes["link"] = ip.link_lookup(ifname=attributes["link"])[0]
            ip.link("add", ifname=device, kind=kind, **attributes)

    def remove(self, device: str) -> None:
        with self.inside(), IPRoute() as ip:
            ip.link("del", index=ip.link_lookup(ifname=device)[0])

    def give(self, address: str, device: str = "eth0", **more) -> None:
        """Do as the host's own configuration does."""
        ip_, _, length = address.partition("/")
        if ":" in address:
            more.setdefault("flags", 0x02)
        with self.inside(), IPRoute() as ip:
            index = ip.link_lookup(ifname=device)[0]
            ip.addr("add", index=index, address=ip_, prefixlen=int(length), **more)

    def take(self, address: str, device: str = "eth0") -> None:
        ip_, _, length = address.partition("/")
        with self.inside(), IPRoute() as ip:
            ip.addr("del", index=ip.link_lookup(ifname=device)[0], address=ip_, prefixlen=int(length))

    def route(self, command: str = "add", **attributes) -> None:
        with self.inside(), IPRoute() as ip:
            if "oif" in attributes:
                attributes["oif"] = ip.link_lookup(ifname=attributes["oif"])[0]
            ip.route(command, **attributes)

    def gateways(self) -> list[str]:
        """Return the gateways of all default routes."""
        with self.inside(), IPRoute() as ip:
            routes = [*ip.get_routes(family=2, table=254), *ip.get_routes(family=10, table=254)]
        return sorted(r.get_attr("RTA_GATEWAY") for r in routes if r["dst_len"] == 0 and r.get_attr("RTA_GATEWAY"))

    def addresses(self, device: str = "eth0") -> list[str]:
        """Return all addresses of a device but link-local ones."""
        with self.inside(), IPRoute() as ip:
            index = ip.link_lookup(ifname=device)
            found = ip.get_addr(index=index[0]) if index else []
            return sorted(f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in found if a["scope"] != 253)

    def neighbour(self, address: str, device: str = "eth0") -> str:
        """Return the MAC address that this host knows for an address; empty: none."""
        with self.inside(), IPRoute() as ip:
            index = ip.link_lookup(ifname=device)[0]
            found = ip.get_neighbours(family=10 if ":" in address else 2, ifindex=index)
            return next((n.get_attr("NDA_LLADDR") for n in found if n.get_attr("NDA_DST") == address), "") or ""

    def close(self) -> None:
        for hooks in self._hooks:
            hooks.node_stopping(self.name)
        self._namespace.close()


class Segment:
    """A switch, and the hosts on it."""

    def __init__(self):
        self._switch = Namespace()
        self._hosts: list[Host] = []
        with self._switch.inside(), IPRoute() as ip:
            ip.link("add", ifname="br0", kind="bridge", br_forward_delay=0, br_mcast_snooping=0)
            ip.link("set", index=ip.link_lookup(ifname="br0")[0], state="up")

    def host(self, name: str, *devices: str) -> Host:
        """Return a new host with devices that are plugged in, and off as after a boot."""
        made = Host(self, name)
        self._hosts.append(made)
        for device in devices:
            made.plug(device)
        return made

    def cable(self, port: str, device: str, namespace: int) -> None:
        with self._switch.inside(), IPRoute() as ip:
            ip.link("add", ifname=port, kind="veth", peer={"ifname": device, "net_ns_fd": namespace})
            index = ip.link_lookup(ifname=port)[0]
            ip.link("set", index=index, master=ip.link_lookup(ifname="br0")[0], state="up")

    def port(self, host: Host, device: str = "eth0", *, up: bool) -> None:
        """Plug a cable in or pull it."""
        with self._switch.inside(), IPRoute() as ip:
            index = ip.link_lookup(ifname=f"{host.name}-{device}")[0]
            ip.link("set", index=index, state="up" if up else "down")

    def close(self) -> None:
        with contextlib.ExitStack() as all_:
            all_.callback(self._switch.close)
            for host in self._hosts:
                all_.callback(host.close)


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment()
    yield made
    made.close()


@pytest.fixture
def node(segment) -> Host:
    """A node with the devices eth0 and eth1, which are off."""
    return segment.host("node7", "eth0", "eth1")


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Wait until something is true, and fail with what it was last when that takes too long."""

    def wait(look: Callable[[], object], wanted: object = True, *, deadline_s: float = 8.0) -> None:
        until = time.monotonic() + deadline_s
        while (found := look()) != wanted:
            assert time.monotonic() < until, f"it still is {found!r}, not {wanted!r}"
            time.sleep(0.02)

    return wait
