"""Guests as network namespaces: plugged by a cable into a network's bridge on a node, as a tap would be."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from _network_site import Network, Site, now

from pvc_sandbox.waiting import wait_until
from pvc_vxlan import names

KIND: Final = "network namespaces, plugged into the bridges by veth"
_MTU: Final = 1450
_RETRY_MS: Final = 20
"""Between questions of ARP: with Linux's 1000 one lost frame would hide all else."""
_ANSWER: Final = re.compile(rb"^\[(\d+\.\d+)\] \d+ bytes from .*icmp_seq=(\d+)", re.MULTILINE)
_END_S: Final = 10.0


class Guest(NamedTuple):
    """A guest."""

    site: Site
    node: str
    name: str
    address: str

    def make(self, network: Network) -> None:
        """Make it, not plugged in yet."""
        self._ip(
            f"netns add {self.name}", f"link add {self.name} mtu {_MTU} type veth peer name eth0 netns {self.name}"
        )
        self._ip(
            "link set lo up",
            f"link set eth0 mtu {_MTU} up",
            f"addr add {self.address}/24 dev eth0",
            namespace=self.name,
        )
        retry = f"net.ipv4.neigh.eth0.retrans_time_ms={_RETRY_MS}"
        self.run("sysctl", "-q", "-w", retry)
        self._ip(f"link set {self.name} up")
        self._ip(f"route add default via {network.address(1)}", namespace=self.name)

    def plug(self, network: Network) -> None:
        """Plug it in; the network must be on its node."""
        self._ip(f"link set {self.name} master {names.bridge(network.id)}")

    def remove(self) -> None:
        """Remove it; its node may be off."""
        if self.site.sandbox.host(self.node).running:
            self.site.sandbox.exec(self.node, ["ip", "link", "del", self.name])
            self.site.sandbox.exec(self.node, ["ip", "netns", "del", self.name])

    def run(self, *argv: str) -> None:
        """Run a program in it, which must succeed."""
        self.site.sandbox.exec(self.node, ["ip", "netns", "exec", self.name, *argv]).check()

    def _ip(self, *lines: str, namespace: str = "") -> None:
        where = ["-n", namespace] if namespace else []
        host = self.site.sandbox.host(self.node)
        host.exec(["ip", *where, "-batch", "-"], stdin="\n".join([*lines, ""]).encode()).check()


@contextmanager
def guests(site: Site, places: list[tuple[str, Network, int]]) -> Iterator[list[Guest]]:
    """Make guests (node, network, number of the address) and plug them in; remove them at the end."""
    with contextlib.ExitStack() as ending:
        made = []
        for node, network, host in places:
            guest = Guest(site, node, f"bg{network.number}x{host}", network.address(host))
            ending.callback(guest.remove)
            guest.make(network)
            guest.plug(network)
            made.append(guest)
        yield made


class Seen(NamedTuple):
    """What pings saw."""

    answered: int
    lost: int
    """Between the first and the last answer."""
    longest_gap_s: float
    """Between two answers, the pause between two pings included."""


class Pings:
    """Pings that a guest sends every 10 ms while the ``with`` block lasts."""

    def __init__(self, guest: Guest, address: str) -> None:
        self._guest: Final = guest
        self.address: Final = address

    def __enter__(self) -> Self:
        host = self._guest.site.sandbox.host(self._guest.node)
        self._output = tempfile.NamedTemporaryFile()
        argv = ["ip", "netns", "exec", self._guest.name, "ping", "-D", "-n", "-i", "0.01", self.address]
        self._process = subprocess.Popen(
            host.command(argv), stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def answers(self) -> list[tuple[float, int]]:
        """Return when which ping was answered."""
        return [(float(when), int(number)) for when, number in _ANSWER.findall(Path(self._output.name).read_bytes())]

    def first(self, *, deadline_s: float = 120.0) -> float:
        """Wait for the first answer; return when it came."""
        return wait_until(f"{self.address} answers", self.answers, deadline_s=deadline_s)[0][0]

    def flow(self, *, deadline_s: float = 120.0) -> None:
        """Wait until the answer comes to a ping that is sent after this call."""
        since = now()
        wait_until(
            f"{self.address} answers {self._guest.name}",
            lambda: (found := self.answers()) and found[-1][0] > since + 0.5,
            deadline_s=deadline_s,
        )

    def seen(self) -> Seen:
        """Return what was seen so far."""
        found = sorted(self.answers())
        numbers = {number for _, number in found}
        gaps = [after[0] - before[0] for before, after in itertools.pairwise(found)]
        lost = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
        return Seen(len(numbers), lost, max(gaps, default=float("inf")))
