"""A sandbox with managed networks, changed in bulk, and what its daemons say and use."""

import contextlib
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import _cluster

from pvc_core.client.local import Client
from pvc_core.config.load import load_client
from pvc_core.store.connect import open_store
from pvc_core.testkit.lan import entered
from pvc_sandbox import links
from pvc_sandbox.sandbox import Sandbox
from pvc_sandbox.waiting import wait_until

LONG_S: Final = 600.0
DAEMON: Final = "pvcnoded"
_FIGURES: Final = r"""
import os, pathlib, re
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        line = (entry / "cmdline").read_bytes()
        name = line.partition(b"\0")[0].rpartition(b"/")[2].decode()
        if b"pvc_core.node.main" in line.split(b"\0"):
            name = "pvcnoded"
        if name not in ("pvcnoded", "dnsmasq", "zebra", "bgpd"):
            continue
        resident = int(re.search(r"VmRSS:\s+(\d+)", (entry / "status").read_text())[1])
        share = int(re.search(r"Pss:\s+(\d+)", (entry / "smaps_rollup").read_text())[1])
        words = (entry / "stat").read_text().rpartition(")")[2].split()
    except (OSError, TypeError):
        continue
    own, children = (sum(map(int, words[at : at + 2])) / os.sysconf("SC_CLK_TCK") for at in (11, 13))
    print(name, resident / 1024, share / 1024, own, children)
"""


class Used(NamedTuple):
    """What the processes of one name use on a node."""

    processes: int = 0
    rss_mib: float = 0.0
    pss_mib: float = 0.0
    """With what they share divided among them."""
    cpu_s: float = 0.0
    children_cpu_s: float = 0.0


class Network(NamedTuple):
    """A network of the bench."""

    id: str
    number: int

    @property
    def name(self) -> str:
        """Its name."""
        return f"bench{self.number:03}"

    def address(self, host: int) -> str:
        """Return an address of its prefix; 1 is the gateway's."""
        return f"10.{100 + self.number // 250}.{self.number % 250}.{host}"

    @property
    def gateway(self) -> dict[str, Any]:
        """Parameters that give it a gateway with DHCP."""
        return {"ipv4": f"{self.address(0)}/24", "dhcp4": [f"{self.address(100)}-{self.address(199)}"]}


class Log:
    """What a node's daemon logs from now on."""

    def __init__(self, sandbox: Sandbox, node: str) -> None:
        self.node: Final = node
        self._path: Final = sandbox.logs(node)[DAEMON]
        self._begin: Final = self._path.stat().st_size

    def told(self, event: str) -> dict[str, float]:
        """Return when an event was first told of which network, by the clock of this machine."""
        with self._path.open("rb") as file:
            file.seek(self._begin)
            text = file.read().decode(errors="replace")
        found: dict[str, float] = {}
        for moment, network in re.findall(rf"(?m)^(\S+) \w+ \S+ {event} network=(\S+)", text):
            found.setdefault(network, datetime.fromisoformat(moment).timestamp())
        return found

    def wait(self, event: str, count: int, *, deadline_s: float = LONG_S) -> float:
        """Wait until an event was told of so many networks; return when the last of them was."""
        found: dict[str, float] = {}

        def enough() -> bool:
            nonlocal found
            found = self.told(event)
            return len(found) >= count

        wait_until(
            f"{self.node}: {event} of {count} networks",
            enough,
            deadline_s=deadline_s,
            detail=lambda: f"{len(found)} are",
        )
        return sorted(found.values())[count - 1]


class Site(NamedTuple):
    """The sandbox, and a client of its cluster in this process."""

    sandbox: Sandbox
    client: Client

    @property
    def nodes(self) -> list[str]:
        """All nodes."""
        return self.sandbox.nodes()

    @property
    def primary(self) -> str:
        """The node that has the gateways."""
        return str(self.client.call("primary.info").node)

    @property
    def networks(self) -> list[Network]:
        """The networks that there are."""
        return [
            Network(view.id, int(view.name.removeprefix("bench"))) for view in self.client.call("network.list")
        ]  # fmt: skip

    def add(self, numbers: Sequence[int], *, gateway: bool) -> list[Network]:
        """Add networks, and return when all are asked for."""
        added = []
        for number in numbers:
            network = Network("", number)
            parameters = {"vni": 1000 + number, **(network.gateway if gateway else {})}
            view = self.client.call("network.add", name=network.name, driver="vxlan", parameters=parameters)
            added.append(network._replace(id=view.id))
        return added

    def modify(self, networks: Sequence[Network], **changes: Any) -> None:
        """Change networks in the same way."""
        for network in networks:
            self.client.call("network.modify", network=network.id, **changes)

    def remove(self) -> None:
        """Remove all networks, and wait until they are gone."""
        for network in self.networks:
            self.client.call("network.remove", network=network.id)
        wait_until("all networks are removed", lambda: not self.networks, deadline_s=LONG_S)

    def logs(self) -> list[Log]:
        """Return the logs of all daemons, from now on."""
        return [Log(self.sandbox, node) for node in self.nodes]

    def make_primary(self, node: str) -> None:
        """Move the gateways, and wait for the role."""
        if self.primary != node:
            self.sandbox.pvc("node", "primary", node)
            wait_until(f"{node} is the primary", lambda: self.primary == node, deadline_s=LONG_S)

    def used(self, node: str) -> dict[str, Used]:
        """Return what a node's processes use now."""
        found: dict[str, Used] = {}
        for line in self.sandbox.exec(node, [sys.executable, "-c", _FIGURES]).check().stdout.splitlines():
            name, *values = line.split()
            before = found.get(name, Used())
            found[name] = Used(
                before.processes + 1, *(old + float(new) for old, new in zip(before[1:], values, strict=True))
            )
        return found


@contextmanager
def site(**changes: Any) -> Iterator[Site]:
    """Make the sandbox, and remove it at the end."""
    with _cluster.own_sandbox("network", 3, network="vxlan", **changes) as sandbox, contextlib.ExitStack() as ending:
        config = load_client(str(sandbox.client_config))
        client = Client(
            lambda: open_store(config.cluster, 30.0, wait_s=60.0, patience_s=60.0), service=config.service,
            cluster=config.cluster.name,
        )  # fmt: skip
        ending.callback(client.close)
        # The store's threads stay where they were begun; those of this process must not.
        with entered(Path(links.namespace(sandbox.layout.switch))):
            client.call("network.list")
        yield Site(sandbox, client)


def tell(name: str, value: float, **more: Any) -> None:
    """Print one figure."""
    _cluster.tell("network", name, value, **more)


def now() -> float:
    """Return the time as logs and pings tell it."""
    return time.time()
