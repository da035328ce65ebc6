"""A guest, a gateway and somebody outside, each in a namespace, for tests of the firewall; not a test."""

import contextlib
import errno
import os
import select
import socket
import struct
import uuid
from pathlib import Path

from msgspec.structs import replace
from pyroute2 import IPRoute

from pvc_core.plugin import run
from pvc_core.testkit.waiting import eventually
from pvc_netdev.links import Links
from pvc_netdev.namespace import create, entered, remove
from pvc_vxlan.firewall import table
from pvc_vxlan.firewall.validate import check_rules
from pvc_vxlan.network import Rule, VxlanNetwork

NETWORK = VxlanNetwork(vni=77, ipv4="10.77.0.0/24", ipv6="fd00:77::/64")
GUEST = {4: "10.77.0.10", 6: "fd00:77::10"}
GATEWAY = {4: "10.77.0.1", 6: "fd00:77::1"}
OUTSIDE = {4: "198.51.100.9", 6: "2001:db8:9::9"}
OTHER = {4: "198.51.100.200", 6: "2001:db8:9::200"}
UPLINK = {4: "198.51.100.1", 6: "2001:db8:9::1"}
SOON_S = 0.3
"""What is not there by then was dropped."""


class Lab:
    """guest eth0 - net0 gateway up0 - eth0 outside."""

    def __init__(self):
        self.network = NETWORK
        self.held = contextlib.ExitStack()
        """Namespaces."""
        self.opened = contextlib.ExitStack()
        """What one test makes."""

    def set_up(self):
        mark = uuid.uuid4().hex[:6]
        self.guest, self.gateway, self.outside = (f"fw{mark}-{name}" for name in ("guest", "gw", "out"))
        for name in (self.guest, self.gateway, self.outside):
            create(name)
            self.held.callback(remove, name)
            with entered(name):
                # Without a pause for duplicate address detection before a link-local address may ask for neighbours.
                Path("/proc/sys/net/ipv6/conf/default/accept_dad").write_text("0")
        self._cable(self.guest, "net0", GUEST, GATEWAY)
        self._cable(self.outside, "up0", OUTSIDE, UPLINK)
        with Links(self.outside) as links:
            for version in (4, 6):
                links.add_address(links.get("eth0"), f"{OTHER[version]}/{24 if version == 4 else 64}", deprecated=True)
        with entered(self.gateway):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
            Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
        for name in (self.guest, self.gateway, self.outside):
            eventually(lambda name=name: self._settled(name), f"IPv6 works in {name}", within_s=5)

    def _cable(self, far, near_device, far_addresses, near_addresses):
        with Links(self.gateway) as links:
            links.add_veth(near_device, "eth0", peer_namespace=far)
        for name, device, addresses in ((self.gateway, near_device, near_addresses), (far, "eth0", far_addresses)):
            with Links(name) as links:
                link = links.get(device)
                for version in (4, 6):
                    links.add_address(link, f"{addresses[version]}/{24 if version == 4 else 64}")
                links.set(link, "state", state="up")
                links.set(links.get("lo"), "state", state="up")
        with entered(far), IPRoute() as routes:
            for via in near_addresses.values():
                routes.route(
                    "add", dst="default", gateway=via, family=socket.AF_INET6 if ":" in via else socket.AF_INET
                )

    def _settled(self, name):
        """The kernel takes up to a second to tell IPv6 that a link is up."""
        with entered(name), IPRoute() as addresses:
            local = [a for a in addresses.get_addr(family=socket.AF_INET6) if a["scope"] == 253]
        return len(local) == (2 if name == self.gateway else 1)

    def begin(self):
        self.network = NETWORK
        with entered(self.gateway):
            run(("nft", "flush", "ruleset"), deadline_s=5).check()

    def end(self):
        self.opened.close()
        with Links(self.gateway) as links:
            links.set(links.get("up0"), "mtu", mtu=1500)
        with entered(self.guest):
            for family in ("-4", "-6"):
                run(("ip", family, "route", "flush", "cache"), deadline_s=5).check()

    def rules(self, *rules, **fields):
        self.network = replace(self.network, rules=rules, **fields)
        check_rules("lab", rules)
        table.ensure(self.gateway, self.network)

    def unbound(self, where, version, kind):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with entered(where):
            made = socket.socket(family, kind)
        self.keep(made)
        made.settimeout(SOON_S)
        return made

    def keep(self, made):
        """Close it after the test: at once, so that nothing of it is sent again in the next one."""
        self.opened.callback(made.close)
        if made.type == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def listen(self, where, port, version=4, kind=socket.SOCK_STREAM):
        made = self.unbound(where, version, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        if kind == socket.SOCK_STREAM:
            made.listen()
        return made

    def connect(self, where, address, port, source=""):
        """Return the connection, or the name of the error: ``timeout``, ``ECONNREFUSED``, ``EHOSTUNREACH``."""
        made = self.unbound(where, 6 if ":" in address else 4, socket.SOCK_STREAM)
        if source:
            made.bind((source, 0))
        try:
            made.connect((address, port))
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode[error.errno]
        return made

    def reached(self, where, address, port, source=""):
        return isinstance(self.connect(where, address, port, source), socket.socket)

    def sent(self, where, receiver, address, port):
        """Whether a datagram comes to a socket."""
        sender = self.unbound(where, 6 if ":" in address else 4, socket.SOCK_DGRAM)
        text = os.urandom(8)
        sender.sendto(text, (address, port))
        try:
            return receiver.recv(100) == text
        except TimeoutError:
            return False

    def pinged(self, where, address, *options):
        with entered(where):
            return run(("ping", "-n", "-c1", "-W", str(SOON_S), *options, address), deadline_s=5).returncode == 0

    def stream(self, client, address, port, listener):
        """Return both ends of a new connection."""
        begun = self.connect(client, address, port)
        assert isinstance(begun, socket.socket), begun
        taken, _ = listener.accept()
        self.keep(taken)
        taken.settimeout(SOON_S)
        return begun, taken


def heard(sender, receiver, within_s=SOON_S):
    """Whether what one end says comes to the other."""
    with contextlib.suppress(OSError):
        while select.select([receiver], [], [], 0)[0] and receiver.recv(1000):
            pass
    text = os.urandom(8)
    try:
        sender.send(text)
        receiver.settimeout(within_s)
        return receiver.recv(100).endswith(text)
    except OSError:
        return False


def rule(id, direction="in", **fields):
    return Rule(id=id, direction=direction, **fields)


def counted(lab, id):
    return table.counters(lab.gateway)[id][0]


@contextlib.contextmanager
def built():
    """Make the namespaces; a link takes a second to be up for IPv6, so that they are for all tests of a module."""
    made = Lab()
    with made.held:
        made.set_up()
        yield made
