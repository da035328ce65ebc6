"""Nodes as network namespaces, with a real zebra and bgpd each, VXLAN devices, and guests as namespaces on their
bridges.
"""

import contextlib
import logging
import shutil
import signal
import subprocess
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path

from pyroute2 import IPRoute

from pvc_core.plugin import Completed, run
from pvc_core.testkit.lan import Lan, entered
from pvc_core.testkit.waiting import eventually
from pvc_netdev import namespace as namespaces
from pvc_netdev import sysctl
from pvc_netdev.links import Links
from pvc_vxlan.config import VxlanConfig
from pvc_vxlan.evpn.frr import Frr
from pvc_vxlan.evpn.render import Fabric, Peer, router_id
from pvc_vxlan.evpn.state import macs, sessions, vnis
from pvc_vxlan.evpn.watch import Watch

ASN = 65000
PROGRAMS = Path("/usr/lib/frr")


class Daemons:
    """zebra and bgpd of one node, in its namespace; ``systemctl`` of ``run`` is about them."""

    def __init__(self, directory: Path, namespace: str):
        self.directory = directory
        self._namespace = namespace
        self._children: dict[str, subprocess.Popen] = {}
        directory.mkdir()
        (directory / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        for name in ("frr.conf", "zebra.conf", "bgpd.conf"):
            (directory / name).touch()
        for path in (directory, *directory.iterdir()):
            shutil.chown(path, "frr", "frr")

    def start(self, *, load: bool = True) -> None:
        for name in ("zebra", "bgpd"):
            child = self._children.get(name)
            if child is not None and child.poll() is None:
                continue
            socket = self.directory / f"{name}.vty"
            socket.unlink(missing_ok=True)
            argv = [str(PROGRAMS / name), "-u", "frr", "-g", "frr", "--vty_socket", str(self.directory)]
            argv += ["-z", str(self.directory / "zserv.api"), "-A", "127.0.0.1", "-P", "0"]
            argv += ["-i", str(self.directory / f"{name}.pid"), "-f", str(self.directory / f"{name}.conf")]
            with entered(self._namespace):
                self._children[name] = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            eventually(socket.exists, f"{name} listens")
        if load:
            # As FRR's init script does.
            self._vtysh("-b")

    def kill(self, *names: str) -> None:
        """As a crash of these daemons."""
        for name in names:
            self._children[name].kill()
            self._children[name].wait(timeout=10)

    def signal(self, name: str, number: int) -> None:
        self._children[name].send_signal(number)

    def stop(self) -> None:
        for child in self._children.values():
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
        for child in self._children.values():
            try:
                child.wait(timeout=3)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait(timeout=5)

    def run(self, argv, *, deadline_s: float, stdin: bytes = b"") -> Completed:
        if argv[0] != "systemctl":
            return run(argv, deadline_s=deadline_s, stdin=stdin)
        active = all(child.poll() is None for child in self._children.values())
        status = 0
        match argv[1]:
            case "is-active":
                status = 0 if active else 3
            case "start":
                self.start()
            case "restart":
                self.stop()
                self.start()
        return Completed(argv=tuple(argv), returncode=status, stdout="", stderr="")

    def vtysh(self, *commands: str) -> str:
        """As the operator types them."""
        return self._vtysh(*(word for command in commands for word in ("-c", command)))

    def _vtysh(self, *words: str) -> str:
        argv = ["vtysh", "--config_dir", str(self.directory), "--vty_socket", str(self.directory), *words]
        return run(argv, deadline_s=10).check().stdout


class EvpnNode:
    """A node of the cluster."""

    def __init__(self, site: "EvpnSite", number: int):
        self.site, self.number = site, number
        self.namespace = site.lan.namespace(number)
        self.vtep = site.lan.address(number)
        self.session_address = f"fd77::{number}" if site.version == 6 else self.vtep
        self.daemons = Daemons(site.directory / f"n{number}", self.namespace)
        self.frr = self.make_frr(self.daemons.run)
        self.watch = Watch(self.frr, logging.getLogger("pvc_vxlan"))
        with entered(self.namespace):
            sysctl.no_bridge_netfilter()
            sysctl.write("ipv4/ip_forward", "1")
            sysctl.write("ipv6/conf/all/forwarding", "1")
        self._devices: dict[int, tuple[str, str]] = {}

    def make_frr(self, run) -> Frr:
        return Frr(
            run,
            VxlanConfig(frr_directory=str(self.daemons.directory)),
            state=self.site.directory / f"state{self.number}",
            sockets=str(self.daemons.directory),
        )

    def fabric(self, **changes) -> Fabric:
        known = {
            "asn": ASN, "router_id": router_id(self.session_address), "local": self.session_address,
            "reflectors": self.site.reflectors, "is_reflector": self.number <= 2,
            "listen": ("fd77::/64",) if self.site.version == 6 else ("10.77.0.0/24",),
            "password": self.site.password,
        }  # fmt: skip
        return Fabric(**{**known, **changes})

    def start(self) -> None:
        self.daemons.start()
        self.frr.apply(self.fabric())

    def add_vni(self, vni: int) -> None:
        bridge, tunnel = f"br{vni}", f"vx{vni}"
        with Links(self.namespace) as links:
            links.add_bridge(bridge)
            links.add_vxlan(tunnel, vni, local=self.vtep, port=4789, mtu=1450)
            made = links.get(bridge)
            links.set(links.get(tunnel), "its bridge", master=made.index)
            links.set_port(links.get(tunnel), "not learning", learning=0)
            links.set(made, "up", state="up")
            links.set(links.get(tunnel), "up", state="up")

    def remove_vni(self, vni: int) -> None:
        with Links(self.namespace) as links:
            for name in (f"vx{vni}", f"br{vni}"):
                if found := links.get(name):
                    links.delete(found)

    def remote(self, vni: int) -> tuple[str, ...]:
        """Return the VTEPs to which this node sends the network's broadcasts."""
        return next((found.remote for found in vnis(self.frr.show("show evpn vni json")) if found.vni == vni), ())

    def mac(self, vni: int, mac: str):
        found = macs(self.frr.show("show evpn mac vni all json"))
        return next((entry for entry in found if (entry.vni, entry.mac) == (vni, mac)), None)

    def sends_to(self, vni: int, mac: str) -> str:
        """Return where zebra says that a MAC address is: a port, or a VTEP; empty: unknown."""
        found = self.mac(vni, mac)
        return found.where if found else ""

    def sessions(self) -> dict[str, int]:
        """Return how often each session in the overlay's family came up, of those that are up."""
        found = sessions(self.frr.show("show bgp summary json"))
        return {s.peer: s.established for s in found if s.up and s.family == "l2VpnEvpn"}

    def running(self) -> str:
        return self.frr.view().running

    def condition(self, report, type_: str):
        return next(c for c in report.conditions if c.type == type_)


class Guest:
    """A namespace with one NIC, plugged in the bridge of a network at a node."""

    def __init__(self, site: "EvpnSite", node: EvpnNode, vni: int, last: int, *, mac: str = ""):
        self.name = f"{site.name}-g{uuid.uuid4().hex[:6]}"
        self.node, self.vni = node, vni
        self.address = f"192.168.50.{last}"
        self.port = f"t{uuid.uuid4().hex[:8]}"
        self.mac = mac or f"52:54:00:{vni % 256:02x}:{node.number:02x}:{last:02x}"
        namespaces.create(self.name)
        site.guests.append(self)
        with entered(self.name), IPRoute() as ip:
            ip.link("set", index=1, state="up")
        with Links(node.namespace) as links:
            links.add_veth(self.port, "eth0", peer_namespace=self.name, peer_mac=self.mac)
            links.set(links.get(self.port), "bridge", master=links.get(f"br{vni}").index)
            links.set(links.get(self.port), "mtu", mtu=1450)
            links.set(links.get(self.port), "up", state="up")
        with Links(self.name) as links:
            links.add_address(links.get("eth0"), f"{self.address}/24")
            links.set(links.get("eth0"), "mtu", mtu=1450)
            links.set(links.get("eth0"), "up", state="up")

    def reaches(self, address: str, *, within_s: float = 10) -> None:
        """Wait until a ping is answered."""
        eventually(lambda: self.ping(address), f"{self.name} reaches {address}", within_s=within_s)

    def ping(self, address: str) -> bool:
        argv = ["ip", "netns", "exec", self.name, "ping", "-c1", "-W0.3", address]
        return run(argv, deadline_s=10).returncode == 0

    def plug(self, *, up: bool) -> None:
        with Links(self.node.namespace) as links:
            links.set(links.get(self.port), "state", state="up" if up else "down")

    def close(self) -> None:
        with Links(self.node.namespace) as links:
            if port := links.get(self.port):
                links.delete(port)
        namespaces.remove(self.name)


class EvpnSite:
    """Nodes 1 to ``nodes``, of which 1 and 2 are route reflectors; ``start`` brings up FRR on them."""

    def __init__(self, nodes: int, *, started: int | None = None, version: int = 4, password: str = ""):
        self.name = f"evpn{uuid.uuid4().hex[:6]}"
        self.version, self.password = version, password
        self.guests: list[Guest] = []
        self.nodes: list[EvpnNode] = []
        # Not below pytest's own directory, which FRR's user may not enter.
        self.directory = Path(tempfile.mkdtemp(prefix="evpn"))
        self.lan = Lan(nodes, name=self.name)
        try:
            self.directory.chmod(0o755)
            with entered(self.lan.namespace(0)):
                sysctl.no_bridge_netfilter()
            for host in self.lan.hosts:
                with Links(self.lan.namespace(host)) as links:
                    links.add_address(links.get("eth0"), f"fd77::{host}/64")
            self.nodes = [EvpnNode(self, number) for number in self.lan.hosts]
            with ThreadPoolExecutor() as pool:
                list(pool.map(EvpnNode.start, self.nodes[:started]))
        except BaseException:
            self.close()
            raise

    @property
    def reflectors(self) -> tuple[Peer, ...]:
        return tuple(
            Peer(name=f"n{i}", address=f"fd77::{i}" if self.version == 6 else self.lan.address(i)) for i in (1, 2)
        )

    def network(self, vni: int, *numbers: int) -> list[EvpnNode]:
        """Make a network on nodes, and wait until each knows all others."""
        nodes = [self.nodes[number - 1] for number in numbers]
        for node in nodes:
            node.add_vni(vni)
        for node in nodes:
            others = tuple(sorted(other.vtep for other in nodes if other is not node))
            eventually(lambda node=node, others=others: node.remote(vni) == others, f"{node.namespace} knows all VTEPs")
        return nodes

    def point(self, node: EvpnNode, device: str, mac: str, vtep: str, *, bridge: bool = False) -> None:
        """Have a node's VXLAN device, and with ``bridge`` its bridge, send frames for a MAC address to a VTEP, as
        zebra does.
        """
        argv = ["bridge", "-n", node.namespace, "fdb", "replace", mac, "dev", device]
        run([*argv, "dst", vtep, "self", "extern_learn"], deadline_s=10).check()
        if bridge:
            run([*argv, "master", "extern_learn"], deadline_s=10).check()

    def guest(self, node: EvpnNode, vni: int, last: int, **more) -> Guest:
        return Guest(self, node, vni, last, **more)

    def clear(self) -> None:
        """Remove guests and networks, not the nodes."""
        while self.guests:
            self.guests.pop().close()
        for node in self.nodes:
            with Links(node.namespace) as links:
                numbers = [link.vni for link in links.all() if link.vni]
            for vni in numbers:
                node.remove_vni(vni)

    def close(self) -> None:
        for node in self.nodes:
            node.daemons.stop()
        while self.guests:
            with contextlib.suppress(FileNotFoundError):
                namespaces.remove(self.guests.pop().name)
        self.lan.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Bird:
    """A router outside, BIRD with AS 65100, in the namespace of a host of the site's own network."""

    def __init__(self, site: EvpnSite, *neighbors: str, password: str = ""):
        self.namespace = site.lan.namespace(0)
        self.directory = Path(tempfile.mkdtemp(prefix="bird"))
        self.address = site.lan.address(0)
        self.address6 = "fd77::fe"
        with Links(self.namespace) as links:
            links.add_address(links.get("switch"), f"{self.address6}/64")
        lines = ["router id 10.77.0.254;", "protocol device {}"]
        lines += ["protocol static { ipv4; route 0.0.0.0/0 blackhole; route 198.51.100.0/24 blackhole; }"]
        lines += ["protocol static { ipv6; route ::/0 blackhole; route 2001:db8:ffff::/48 blackhole; }"]
        for index, neighbor in enumerate(neighbors):
            family = f"ipv{ip_address(neighbor).version}"
            own = self.address if family == "ipv4" else self.address6
            secret = f'password "{password}";' if password else ""
            lines.append(
                f"protocol bgp b{index} {{ local {own} as 65100; neighbor {neighbor} as {ASN}; {secret} hold time 3; "
                f"keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1,2; "
                f"{family} {{ import all; export all; }}; }}"
            )
        (self.directory / "bird.conf").write_text("\n".join(lines) + "\n")
        argv = ["bird", "-f", "-c", str(self.directory / "bird.conf"), "-s", str(self.directory / "bird.ctl")]
        with entered(self.namespace):
            self._child = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        eventually((self.directory / "bird.ctl").exists, "BIRD listens")

    def routes(self) -> dict[str, str]:
        """Return prefix -> next hop of what was learned by BGP."""
        argv = ["birdc", "-s", str(self.directory / "bird.ctl"), "show", "route", "where", "source", "=", "RTS_BGP"]
        found, prefix = {}, ""
        for line in run(argv, deadline_s=10).check().stdout.splitlines():
            if "unicast" in line and "/" in line.split()[0]:
                prefix = line.split()[0]
            if line.strip().startswith("via "):
                found[prefix] = line.split()[1]
        return found

    def close(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(timeout=5)
        with Links(self.namespace) as links:
            links.remove_address(links.get("switch"), f"{self.address6}/64")
        shutil.rmtree(self.directory, ignore_errors=True)


def host_route(node: EvpnNode, destination: str, device: str, via: str, protocol: int = 250) -> None:
    """Put a route in a node's kernel as the gateway does."""
    with Links(node.namespace) as links:
        links.set_route(destination, links.get(device), via=via, protocol=protocol)
