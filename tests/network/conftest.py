"""A cluster with two managed networks and four small guests, which all modules share: each test leaves them as they were.

``red`` has three guests, one on each node when the session begins: one with an address of DHCP's range, one whose NIC has
addresses of its own, one with a reservation.  ``blue`` has one.
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import yaml

TIMING = {
    "lease": 6.0, "grace": 3.0, "publish": 2.0, "resync": 10.0, "fence_retry": 1.0, "fence_retry_max": 4.0,
}  # fmt: skip
"""Leases are longer than those of the other fencing tests: here every node has guests and FRR too."""
DAEMON = "pvcnoded"
RED = {
    "vni": "1001", "ipv4": "10.101.0.0/24", "ipv6": "fd00:101::/64", "dhcp4": "10.101.0.100-10.101.0.199",
}  # fmt: skip
BLUE = {
    "vni": "1002", "ipv4": "10.102.0.0/24", "ipv6": "fd00:102::/64", "dhcp4": "10.102.0.100-10.102.0.199",
}  # fmt: skip
RED_GATEWAY, RED_GATEWAY6 = "10.101.0.1", "fd00:101::1"
FIXED, FIXED6 = "10.101.0.22", "fd00:101::22"
"""Addresses of the NIC of guest ``fixed``."""
RESERVED, RESERVED_NAME = "10.101.0.33", "pearl"
MACS = {
    "ranged": "52:54:00:10:10:01", "fixed": "52:54:00:10:10:02", "reserved": "52:54:00:10:10:03",
    "bluish": "52:54:00:10:20:01",
}  # fmt: skip
_TICK = re.compile(r"(?m)^tick \d+ [\d.]+\r?\n")
_LOSS = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")
_SLOW_S = 60.0


class Said(NamedTuple):
    """How a command in a guest ended, and what it printed."""

    status: int
    text: str


class Pings:
    """Pings that a guest sends while the ``with`` block lasts: ten in a second, fewer where it is slow."""

    def __init__(self, guest: "Guest", address: str, file: str) -> None:
        self._guest = guest
        self._file = file
        self._begun = time.monotonic()
        self._lasted = 0.0
        self.address = address
        self.asked = self.answered = self.gap = 0
        """How many were sent and answered in all, and the most that were lost in a row; after the block."""

    def answers(self) -> int:
        """Return how many were answered so far."""
        return int(self._guest.run(f"grep -c seq= {self._file}").text or 0)

    def go_on(self, more: int = 5) -> None:
        """Wait until so many more are answered."""
        wanted = self.answers() + more
        self._guest.eventually(f"answers of {self.address}", lambda: self.answers() >= wanted)

    def end(self, pid: str) -> None:
        self._lasted = time.monotonic() - self._begun
        found = self._guest.run(f"kill -INT {pid}; sleep 0.2; grep transmitted {self._file}")
        sums = _LOSS.search(found.text)
        assert sums, found
        self.asked, self.answered = int(sums[1]), int(sums[2])
        gap = self._guest.run(
            "awk -F seq= '/seq=/ { n = $2 + 0; if (n - last - 1 > gap) gap = n - last - 1; last = n } END { print gap + 0 }' "
            + self._file
        )
        self.gap = int(gap.text)

    @property
    def told(self) -> str:
        gap_s = self.gap * self._lasted / self.asked
        lost = f"{self.asked - self.answered} of {self.asked} lost"
        return f"{self.address}: {lost}, {self.gap} in a row (about {gap_s:.1f} s)"


class Guest:
    """A small Linux VM, spoken to by its console."""

    def __init__(self, cluster: Any, name: str, network: str) -> None:
        self.cluster = cluster
        self.name = name
        self.network = network
        self.mac = MACS[name]
        self.id = cluster.id(name)
        self.eventually = cluster.eventually

    @property
    def node(self) -> str:
        """The node on which it runs now."""
        from pvc_core.store import keys
        from pvc_core.store.documents import read

        claim = read(self.cluster.store, keys.claim(self.id))  # a command takes a hundred times longer
        return claim.value.node if claim is not None else ""

    def run(self, command: str, *, within_s: float = _SLOW_S) -> Said:
        """Type a command, and wait for its end."""
        import libvirt

        word, node = uuid.uuid4().hex[:8], self.node
        # Its echo does not have the marks.
        typed = f"echo '@'B{word}; {command}; echo '@'E{word} $?\n"
        end = re.compile(rf"@B{word}\r?\n(.*?)@E{word} (\d+)", re.DOTALL)
        connection = libvirt.open(self.cluster.sandbox.uri(node))
        try:
            stream = connection.newStream(0)
            connection.lookupByUUIDString(self.id).openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
            stream.send(typed.encode())
            found = self.eventually(
                f"the end of {command!r} in {self.name}",
                lambda: end.search(self.cluster.consoles(self.id).get(node, "")),
                within_s=within_s,
            )
            stream.abort()
        finally:
            connection.close()
        return Said(int(found[2]), _TICK.sub("", found[1]).replace("\r", "").strip())

    def leases(self) -> list[str]:
        """Return the addresses that DHCP gave it, boot by boot."""
        return re.findall(r"GUEST-LEASE eth0 (\S+)", self.cluster.console(self.id))

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        found = self.run("ip -4 addr show dev eth0").text
        return re.findall(r"inet (\S+)/", found)[0]

    @property
    def address6(self) -> str:
        """Its IPv6 address, as soon as it has one that it may use."""
        command = "ip -6 addr show dev eth0 scope global | grep -v -e tentative -e deprecated"

        def found() -> str:
            match = re.search(r"inet6 (\S+)/", self.run(command).text)
            return match[1] if match else ""

        return str(self.eventually(f"an IPv6 address of {self.name}", found))

    def reaches(self, address: str) -> bool:
        """Return whether an address answers one of two pings."""
        return self.run(f"ping -c 2 -i 0.3 -W 2 {address}").status == 0

    def will_reach(self, address: str) -> None:
        """Wait until an address answers."""
        self.eventually(f"{self.name} reaches {address}", lambda: self.reaches(address), within_s=_SLOW_S)

    @contextmanager
    def pinging(self, address: str) -> Iterator[Pings]:
        """Ping all the time; begins when there is an answer."""
        file = f"/tmp/ping-{uuid.uuid4().hex[:6]}"
        pid = self.run(f"ping -i 0.1 {address} > {file} 2>&1 & echo PID $!").text.rpartition("PID ")[2].strip()
        pings = Pings(self, address, file)
        pings.go_on(3)
        yield pings
        pings.end(pid)

    def resolve(self, name: str, kind: str) -> str:
        """Return what its resolver says; the text of busybox's nslookup."""
        return self.run(f"nslookup -type={kind} {name}").text

    def to(self, node: str) -> None:
        """Bring it to a node, live."""
        if self.node != node:
            self.cluster.pvc("vm", "move", self.name, "--node", node)


class Lab:
    """The cluster, its networks and guests."""

    def __init__(self, cluster: Any, guests: dict[str, Guest]) -> None:
        self.cluster = cluster
        self.sandbox = cluster.sandbox
        self.layout = cluster.sandbox.layout
        self.router = cluster.sandbox.router
        self.pvc = cluster.pvc
        self.eventually = cluster.eventually
        self.guests = guests
        self.ranged, self.fixed, self.reserved, self.bluish = (guests[name] for name in MACS)

    # --- networks -----------------------------------------------------------------------------------

    def network(self, name: str) -> dict[str, Any]:
        return next(row for row in self.pvc.json("network", "list") if row["name"] == name)

    def id(self, network: str) -> str:
        return str(self.network(network)["id"])

    def problems(self, network: str) -> str:
        return "\n".join(self.network(network)["problems"])

    def dhcp(self, network: str) -> dict[str, dict[str, Any]]:
        """Return leases and reservations by MAC address; those whose MAC address is not known by their first address."""
        return {row["mac"] or row["addresses"][0]: row for row in self.pvc.json("network", "dhcp", "list", network)}

    def checked(self, network: str) -> list[dict[str, Any]]:
        """Return what ``pvc network check --problems`` finds."""
        done = self.pvc.run("--format", "json", "network", "check", network, "--problems")
        assert done.returncode in (0, 1), done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        assert bool(found) == bool(done.returncode), done
        return found

    def is_well(self, network: str = "red", *, within_s: float = 90.0) -> None:
        """Wait until no node finds anything wrong with a network; what was mended lately is told for some time."""
        last: list[Any] = []

        def clean() -> bool:
            last[:] = [each for each in self.checked(network) if "was started again" not in str(each)]
            return not last

        try:
            self.eventually(f"nothing is wrong with network {network}", clean, within_s=within_s)
        except Exception as error:
            raise AssertionError(f"{error}: {last}") from error

    @contextmanager
    def rule(self, network: str, *words: str) -> Iterator[str]:
        """Have a rule while the block lasts; gives its id."""
        id_ = self.pvc.json("network", "acl", "add", network, *words)["id"]
        try:
            yield id_
        finally:
            if id_ in self.rules(network):
                self.pvc("network", "acl", "remove", network, id_)

    def rules(self, network: str) -> dict[str, dict[str, Any]]:
        return {row["rule"]["id"]: row for row in self.pvc.json("network", "acl", "list", network)}

    # --- nodes --------------------------------------------------------------------------------------

    def primary(self) -> str:
        return str(self.eventually("a primary", self.cluster.primary))

    def others(self, *nodes: str) -> list[str]:
        return [node for node in self.sandbox.nodes() if node not in nodes]

    def take_over(self, node: str) -> None:
        """Make a node the primary, and wait until the gateways are there."""
        if self.primary() != node:
            self.pvc("node", "primary", node)
        self.eventually(f"{node} has the gateways", lambda: self.gateways(node) == {self.id("red"), self.id("blue")})

    def gateways(self, node: str) -> set[str]:
        """Return the networks whose gateway is on a node."""
        listed = self.node(node, "ip", "netns", "list")
        return set(re.findall(r"^pvc-gw-(\S+)", listed, re.MULTILINE))

    def node(self, node: str, *argv: str) -> str:
        """Run a program on a node that must succeed; return what it printed."""
        return str(self.sandbox.exec(node, list(argv)).check().stdout)

    def condition(self, node: str, type_: str) -> dict[str, Any]:
        conditions = self.cluster.node_info(node)["status"]["conditions"]
        return next((each for each in conditions if each["type"] == type_), {})

    def dnsmasq(self, node: str, network: str) -> str:
        """Return the process id of a network's DHCP and DNS on a node, as the node sees it; empty: none runs.

        The oldest: the other one calls the script for it.
        """
        return str(self.sandbox.exec(node, ["pgrep", "-o", "-f", f"dnsmasq.*{self.id(network)}"]).stdout).strip()

    # --- outside ------------------------------------------------------------------------------------

    def outside_reaches(self, address: str) -> bool:
        """Return whether an address answers the router's pings."""
        return bool(self.router.exec(["ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", address]).returncode == 0)

    @property
    def floating(self) -> tuple[str, ...]:
        """Addresses of the upstream network that are where the primary is."""
        from pvc_sandbox.layout import FLOATING_HOST

        return self.layout.upstream_address(FLOATING_HOST), self.layout.upstream_address6(FLOATING_HOST)

    def next_hops(self, destination: str) -> tuple[str, ...]:
        """Return where the router outside sends packets to a network."""
        found: tuple[str, ...] = self.router.routes().get(destination, ())
        return found

    def upstream(self, node: str) -> set[str]:
        """Return a node's addresses in the upstream network."""
        number = self.layout.node_number(node)
        return {self.layout.upstream_address(number), self.layout.upstream_address6(number)}

    def learned_from(self, node: str, *destinations: str) -> None:
        """Wait until the router sends packets to these networks to this node and no other."""
        self.eventually(
            f"the router sends to {node}",
            lambda: all(
                (hops := self.next_hops(each)) and set(hops) <= self.upstream(node) for each in destinations
            ),
        )  # fmt: skip


def parameters(given: dict[str, str]) -> list[str]:
    """Return parameters as words of a command."""
    return [word for name, value in given.items() for word in ("-p", f"{name}={value}")]


def _define(cluster: Any, name: str, node: str, network: str, **nic: Any) -> None:
    from pvc_sandbox.images import LINUX_MEMORY_MIB, tiny_linux

    linux = tiny_linux()
    definition = {
        "name": name,
        "memory": LINUX_MEMORY_MIB,
        "direct_kernel": {
            "kernel": str(linux.kernel),
            "initrd": str(linux.initrd),
            "cmdline": linux.command_line(dhcp=1),
        },
        "nics": [{"network": network, "mac": MACS[name], **nic}],
    }
    file = cluster.sandbox.shared / f"{name}.yml"
    file.write_text(yaml.safe_dump(definition, sort_keys=False))
    cluster.pvc("vm", "define", str(file), "--node", node, "--start")


def use_own_address6(guest: Guest) -> None:
    """Have guest ``fixed`` use its NIC's IPv6 address: it speaks no DHCPv6, and may send with no other one."""
    guest.run(
        "echo 0 > /proc/sys/net/ipv6/conf/eth0/autoconf; ip -6 addr flush dev eth0 scope global; "
        f"ip -6 addr add {FIXED6}/64 dev eth0"
    )


def _is_complete(cluster: Any) -> bool:
    """Whether networks and guests are there as an earlier session on the same sandbox made them."""
    found = {row["name"]: row["parameters"] for row in cluster.pvc.json("network", "list")}
    rest = {name: value for name, value in found.get("red", {}).items() if name != "reservations"}
    as_made = found.keys() == {"red", "blue"} and _plain(rest) == RED and _plain(found["blue"]) == BLUE
    return as_made and all(
        name in cluster.names() and cluster.place(name)[0] == "running" for name in MACS
    )  # fmt: skip


def _plain(parameters: dict[str, Any]) -> dict[str, str]:
    return {name: value[0] if isinstance(value, list) else str(value) for name, value in parameters.items()}


def _make(cluster: Any) -> None:
    for name in cluster.names() & MACS.keys():
        cluster.pvc("vm", "remove", name, "--force", "--yes")
    for name in {row["name"] for row in cluster.pvc.json("network", "list")}:
        cluster.pvc("network", "remove", name, "--yes")
    cluster.pvc("network", "add", "red", "-d", "vxlan", *parameters(RED))
    cluster.pvc("network", "add", "blue", "-d", "vxlan", *parameters(BLUE))
    cluster.pvc("network", "dhcp", "add", "red", MACS["reserved"], RESERVED, "--name", RESERVED_NAME)
    _define(cluster, "ranged", "hv1", "red")
    _define(cluster, "fixed", "hv2", "red", addresses=[FIXED, FIXED6])
    _define(cluster, "reserved", "hv3", "red")
    _define(cluster, "bluish", "hv2", "blue")


@pytest.fixture(scope="session")
def lab(vxlan_sandbox: Any, view_of: Callable[[Any], Any]) -> Iterator[Lab]:
    """Return the cluster with its networks and guests, all of which run.

    They go with their sandbox; on one that stays up (``--sandbox``) they stay, and are used again.
    """
    if vxlan_sandbox.plan.timing != TIMING:
        for node in vxlan_sandbox.nodes():
            vxlan_sandbox.host(node).stop_service(DAEMON)
        vxlan_sandbox.up(timing=TIMING)
    cluster = view_of(vxlan_sandbox)
    new = not _is_complete(cluster)
    if new:
        _make(cluster)
    made = Lab(cluster, {name: Guest(cluster, name, "blue" if name == "bluish" else "red") for name in MACS})
    for guest in made.guests.values():
        made.eventually(f"{guest.name} has a lease", guest.leases, within_s=120)
    if new:
        use_own_address6(made.fixed)
    for name, node in zip(("ranged", "fixed", "reserved"), vxlan_sandbox.nodes(), strict=True):
        made.guests[name].to(node)
    yield made
    cluster.close()
