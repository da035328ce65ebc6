"""Nodes, guests and an outside for tests of gateways: network namespaces on one machine, with real clients in them."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from pvc_core.model.errors import Unavailable
from pvc_core.model.vm import Nic
from pvc_core.plugin import Context, NetworkNic, NodeInfo, run
from pvc_netdev import namespace, sysctl
from pvc_netdev.namespace import NAMED, entered
from pvc_vxlan import names
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.gateway import process
from pvc_vxlan.gateway.directory import Directory
from pvc_vxlan.gateway.service import Gateways
from pvc_vxlan.network import VxlanNetwork

NAME = "lan"
_UDHCPC = """#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr replace "$ip/$mask" dev "$interface"
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
[ -z "$router" ] || ip route replace default via "$router" dev "$interface"
python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'
"""
_DHCLIENT = """#!/bin/sh
[ -n "$new_ip6_address" ] || exit 0
ip -6 addr replace "$new_ip6_address/128" dev "$interface" nodad
python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'
"""


def until(condition, what: str, limit_s: float = 10.0):
    """Return what a condition says once it is true."""
    end = time.monotonic() + limit_s
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.02)
    return value


class FakeRecords:
    """The cluster's records, shared by nodes; ``down``: the store does not answer."""

    def __init__(self):
        self.all = {}
        self.down = False
        self.writes = 0

    def get(self, name):
        self._ask()
        return self.all.get(name)

    def below(self, name):
        self._ask()
        return {key.rpartition("/")[2]: value for key, value in self.all.items() if key.rpartition("/")[0] == name}

    def put(self, name, value):
        self._ask()
        self.writes += 1
        self.all[name] = json.loads(json.dumps(value))

    def delete(self, name):
        self._ask()
        self.writes += 1
        for key in [key for key in self.all if key == name or key.startswith(f"{name}/")]:
            del self.all[key]

    def _ask(self):
        if self.down:
            raise Unavailable("the store does not answer")


class Namespace:
    """A named namespace of the test's own."""

    def __init__(self, site: "Site", name: str):
        self.name = f"gwt-{site.id}-{name}"
        namespace.create(self.name)
        site.namespaces.append(self.name)
        with self.inside(), IPRoute() as ip:
            ip.link("set", index=1, state="up")
            sysctl.no_bridge_netfilter()
            # Addresses are usable at once.
            for setting in ("addr_gen_mode", "accept_dad", "dad_transmits"):
                sysctl.write(f"ipv6/conf/default/{setting}", "0")

    @contextmanager
    def inside(self):
        with entered(self.name):
            yield

    def ip(self, *words: str, check: bool = True) -> str:
        return self.run("ip", *words, check=check)

    def run(self, *argv: str, check: bool = True) -> str:
        with self.inside():
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout} {done.stderr}"
        return done.stdout

    def pings(self, address: str) -> bool:
        """Return whether an answer comes; the kernel may take a second to say that a new cable carries."""
        end = time.monotonic() + 3
        while not (answered := self._ping(address, "0.2")) and time.monotonic() < end:
            time.sleep(0.05)
        return answered

    def misses(self, address: str) -> bool:
        """Return whether no answer comes within a second."""
        return not self._ping(address, "1")

    def _ping(self, address: str, wait_s: str) -> bool:
        return "time=" in self.run("ping", "-n", "-c", "1", "-W", wait_s, address, check=False)


class Node(Namespace):
    """A node, with the bridges of networks and a NIC ``eth0`` to the outside."""

    def __init__(self, site: "Site", number: int):
        super().__init__(site, f"node{number}")
        self.site = site
        self.number = number
        self.directory = site.directory / f"node{number}"
        out = f"out{number}"
        self.ip("link", "add", "eth0", "type", "veth", "peer", "name", out, "netns", site.outside.name)
        self.ip("addr", "add", f"198.51.{100 + number}.1/24", "dev", "eth0")
        self.ip("addr", "add", f"2001:db8:{number}::1/64", "dev", "eth0", "nodad")
        self.ip("link", "set", "eth0", "up")
        site.outside.ip("addr", "add", f"198.51.{100 + number}.2/24", "dev", out)
        site.outside.ip("addr", "add", f"2001:db8:{number}::2/64", "dev", out, "nodad")
        site.outside.ip("link", "set", out, "up")
        self.outside4 = f"198.51.{100 + number}.2"
        self.outside6 = f"2001:db8:{number}::2"
        self.gateways = self.daemon()

    def daemon(self, firewall=lambda *_: None, **config) -> Gateways:
        """Return what a daemon that has just begun has."""
        info = NodeInfo(
            name=f"node{self.number}",
            role="coordinator",
            run_directory=str(self.directory / "run"),
            state_directory=str(self.directory / "state"),
        )
        context = Context(
            node=info, log=logging.getLogger("pvc_vxlan"), run=run, wake=lambda *_: None, records=self.site.records
        )
        self.gateways = Gateways(context, VxlanConfig(**config), firewall)
        return self.gateways

    def bridge(self, network_id: str, mtu: int = 1450) -> str:
        name = names.bridge(network_id)
        if not self.run("ip", "-o", "link", "show", "dev", name, check=False):
            self.ip("link", "add", name, "mtu", str(mtu), "type", "bridge", "mcast_snooping", "0", "forward_delay", "0")
            self.ip("link", "set", name, "up")
        return name

    def ensure(self, network_id: str, network: VxlanNetwork, nics=(), *, mtu: int = 1450, name: str = NAME) -> None:
        self.bridge(network_id, mtu)
        with self.inside():
            self.gateways.ensure(network_id, name, network, list(nics), mtu)

    def do(self, what: str, *arguments):
        with self.inside():
            return getattr(self.gateways, what)(*arguments)

    def route_here(self, prefix: str) -> None:
        """Have the outside send what is for a prefix to this node, as it would learn by BGP."""
        via = f"2001:db8:{self.number}::1" if ":" in prefix else f"198.51.{100 + self.number}.1"
        self.site.outside.ip("route", "replace", prefix, "via", via)

    def files(self, network_id: str) -> Directory:
        return Directory(self.directory / "run" / "vxlan" / "gateway" / network_id)

    def dnsmasq(self, network_id: str) -> int:
        """Return the process of a network's dnsmasq."""
        text = self.files(network_id).pid.read_text() if self.files(network_id).pid.exists() else "0"
        return int(text) if process.config_of(self.files(network_id)) else 0


class Guest(Namespace):
    """A guest with one NIC in a network."""

    def __init__(self, site: "Site", node: Node, network_id: str, mac: str):
        super().__init__(site, f"g{len(site.namespaces)}")
        self.mac = mac
        self.site = site
        self._files = site.directory / self.name
        self._files.mkdir()
        port = f"t{len(site.namespaces)}"
        self.ip("link", "add", "eth0", "address", mac, "type", "veth", "peer", "name", port, "netns", node.name)
        node.ip("link", "set", port, "master", node.bridge(network_id), "up")
        self.ip("link", "set", "eth0", "up")

    def dhcp4(self, *, hostname: str = "") -> dict[str, str]:
        """Take a lease as a guest does, and its options."""
        name = ["-x", f"hostname:{hostname}"] if hostname else []
        asked = [word for option in ("mtu", "ntpsrv", "bootfile", "search") for word in ("-O", option)]
        said = self.run(
            "udhcpc", "-i", "eth0", "-s", self._script("udhcpc", _UDHCPC), "-q", "-n", "-f", "-t", "4", "-T", "1",
            *name, *asked, check=False,
        )  # fmt: skip
        return _last(said)

    def take_and_release4(self) -> None:
        """Take a lease, and give it back as a guest that is shut down does."""
        script = self._script("udhcpc", _UDHCPC)
        client = self.site.start(self, "udhcpc", "-i", "eth0", "-s", script, "-f", "-R")
        assert client.stdout.readline().startswith("{")
        client.send_signal(signal.SIGTERM)
        client.wait(5)

    def dhcp6(self) -> dict[str, str]:
        """Take an IPv6 lease; the client is ended without giving it back."""
        leases, pid = self._files / "leases6", self._files / "pid6"
        leases.touch()
        said = self.run(
            "dhclient", "-6", "-1", "-D", "LL", "-sf", self._script("dhclient", _DHCLIENT), "-lf", str(leases),
            "-pf", str(pid), "eth0", check=False,
        )  # fmt: skip
        if pid.exists():
            end(int(until(pid.read_text, "dhclient's pid file")))
            pid.unlink()
        leases.unlink()
        return _last(said)

    def slaac(self, prefix: str) -> str:
        """Return the address that it made for itself."""

        def found() -> str:
            listed = json.loads(self.ip("-j", "-6", "addr", "show", "dev", "eth0"))
            return next((a["local"] for a in listed[0]["addr_info"] if a["local"].startswith(prefix)), "")

        return until(found, f"an address in {prefix}")

    def _script(self, name: str, text: str) -> str:
        path = self._files / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)


class Sniffer:
    """What a guest's NIC hears from now on."""

    def __init__(self, guest: Guest):
        with guest.inside():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind(("eth0", 0x0003))
        self._socket.settimeout(5)
        guest.site.sniffers.append(self._socket)

    def until(self, wanted) -> bytes:
        """Return the next frame that is wanted; TimeoutError when none comes."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            if wanted(frame := self._socket.recv(65535)):
                return frame
        raise TimeoutError


class Site:
    """All of it; ``close`` leaves nothing."""

    def __init__(self):
        self.id = uuid.uuid4().hex[:6]
        # Not one of pytest's: dnsmasq gives up root's rights, and only root may enter those.
        self.directory = Path(tempfile.mkdtemp(prefix="pvc-gateway-"))
        self.directory.chmod(0o755)
        self.namespaces = []
        self.networks = []
        self.nodes = []
        self.sniffers = []
        self.records = FakeRecords()
        self._processes = []
        self.outside = Namespace(self, "outside")

    until = staticmethod(until)

    def node(self) -> Node:
        self.nodes.append(Node(self, len(self.nodes) + 1))
        return self.nodes[-1]

    def network(self) -> str:
        """Return the id of a new network."""
        self.networks.append(str(uuid.uuid4()))
        return self.networks[-1]

    def guest(self, node: Node, network_id: str, mac: str = "52:54:00:00:00:01") -> Guest:
        return Guest(self, node, network_id, mac)

    def join(self, one: Node, other: Node, network_id: str) -> None:
        """Make the bridges of two nodes one segment, as VXLAN does."""
        name = f"j{network_id[:8]}"
        one.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", other.name)
        for node in (one, other):
            node.ip("link", "set", name, "master", node.bridge(network_id), "up")
        for node in (one, other):
            until(lambda node=node: "state forwarding" in node.ip("-d", "link", "show", name), "the cable carries")

    def start(self, where: Namespace, *argv: str) -> subprocess.Popen:
        """Start a process that is ended at the end."""
        with where.inside():
            made = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._processes.append(made)
        return made

    def close(self) -> None:
        for heard in self.sniffers:
            heard.close()
        for made in self._processes:
            made.kill()
            made.communicate()
        for node in self.nodes:
            process.stop_all(node.directory / "run" / "vxlan" / "gateway")
        for name in [*map(names.gateway_namespace, self.networks), *self.namespaces]:
            if (NAMED / name).exists():
                namespace.remove(name)
        shutil.rmtree(self.directory)


def end(pid: int) -> None:
    """End a process that is not a child of ours."""
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    os.kill(pid, 9)
    process._ended([held], 5.0)
    os.close(held)


def nic(network_id: str, mac: str, *addresses: str, vm: str = "vm1") -> NetworkNic:
    return NetworkNic(vm=f"id-{vm}", vm_name=vm, nic=Nic(network=network_id, mac=mac, addresses=addresses))


def _last(said: str) -> dict[str, str]:
    lines = [line for line in said.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}
