"""Which address and name a network's gateway gives to which MAC address: from its NICs and its operator's reservations.

A NIC's own addresses come before reservations, a reservation's name before that of the VM.  What is left over is told.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from msgspec import Struct

from pvc_core.plugin import NetworkNic
from pvc_vxlan.network import Reservation, VxlanNetwork

NAME_SERVER: Final = "ns"
"""The gateway's own name in the network's domain."""
_NOT_IN_LABELS: Final = re.compile(r"[^a-z0-9-]+")
_LABEL_LENGTH: Final = 63

Address = IPv4Address | IPv6Address


class Host(Struct, frozen=True, kw_only=True):
    """What a MAC address gets."""

    mac: str
    addresses: tuple[str, ...] = ()
    """The first IPv4 and all IPv6 ones by DHCP; all of them have the name."""
    name: str = ""
    """Label in the network's domain; empty: what the guest calls itself."""


class Hosts(Struct, frozen=True, kw_only=True):
    """All hosts of a network, by MAC address, and what of them could not be."""

    hosts: tuple[Host, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def static6(self) -> bool:
        """Whether DHCP gives somebody an IPv6 address that is theirs."""
        return any(":" in address for host in self.hosts for address in host.addresses)


def hosts_of(network: VxlanNetwork, nics: Iterable[NetworkNic]) -> Hosts:
    """Return what the hosts of a network get; the same for the same NICs in any order."""
    found = _Finder(network)
    sorted_nics = sorted(nics, key=lambda nic: (nic.vm_name, nic.vm, nic.nic.mac))
    for nic in sorted_nics:
        found.nic(nic)
    for reservation in network.reservations:
        found.reservation(reservation)
    for reservation in network.reservations:
        found.reserved_name(reservation)
    for nic in sorted_nics:
        found.vm_name(nic)
    return found.result()


def label(name: str) -> str:
    """Return a VM's name as a label of a host name (RFC 1123); empty: nothing of it can be."""
    return _NOT_IN_LABELS.sub("-", name.lower())[:_LABEL_LENGTH].strip("-")


def dhcp_lines(hosts: Hosts) -> str:
    """Return dnsmasq's ``dhcp-hostsfile``."""
    lines = []
    for host in hosts.hosts:
        version4 = [address for address in host.addresses if ":" not in address][:1]
        version6 = [f"[{address}]" for address in host.addresses if ":" in address]
        words = [host.mac, *version4, *version6, *([host.name] if host.name else [])]
        if len(words) > 1:
            lines.append(",".join(words))
    return "".join(f"{line}\n" for line in lines)


def name_lines(hosts: Hosts, domain: str) -> str:
    """Return dnsmasq's ``addn-hosts``: these names are known also while their host has no lease."""
    return "".join(
        f"{address} {host.name}.{domain} {host.name}\n"
        for host in hosts.hosts
        if host.name
        for address in host.addresses
    )


class _Finder:
    def __init__(self, network: VxlanNetwork) -> None:
        four, six = network.interface4, network.interface6
        self._networks: Final = [interface.network for interface in (four, six) if interface]
        self._addresses: Final[dict[Address, str]] = {i.ip: "the gateway" for i in (four, six) if i}
        self._names: Final[dict[str, str]] = {NAME_SERVER: "the gateway"}
        self._of: Final[dict[str, list[Address]]] = {}
        self._name_of: Final[dict[str, str]] = {}
        self._vm_of: Final[dict[str, NetworkNic]] = {}
        self._reservation_of: Final[dict[str, Reservation]] = {}
        self._problems: Final[list[str]] = []

    def nic(self, nic: NetworkNic) -> None:
        mac = nic.nic.mac.lower()
        who = f"VM {nic.vm_name} (NIC {mac})"
        other = self._vm_of.setdefault(mac, nic)
        if other is not nic:
            self._problems.append(f"{who} has the MAC address of VM {other.vm_name}: its addresses are not given")
            return
        self._of.setdefault(mac, [])
        for address in nic.nic.addresses:
            self._give(mac, address, who)

    def reservation(self, wanted: Reservation) -> None:
        mac = wanted.mac.lower()
        who = f"the reservation for {mac}"
        if self._reservation_of.setdefault(mac, wanted) is not wanted:
            self._problems.append(f"there are two reservations for {mac}: the first holds")
            return
        own = self._of.setdefault(mac, [])
        for version, address in ((4, wanted.address), (6, wanted.address6)):
            if not address:
                continue
            before = [str(there) for there in own if there.version == version]
            if before and _canonical(address) not in before:
                self._problems.append(f"{who} wants {address}, but its NIC's own address is {before[0]}")
            elif not before:
                self._give(mac, address, who)

    def reserved_name(self, wanted: Reservation) -> None:
        mac = wanted.mac.lower()
        name = wanted.name.lower()
        if not name or self._reservation_of[mac] is not wanted:
            return
        other = self._names.setdefault(name, f"the reservation for {mac}")
        if other == f"the reservation for {mac}":
            self._name_of[mac] = name
        else:
            self._problems.append(f"the reservation for {mac} wants the name {name}, which {other} has")

    def vm_name(self, nic: NetworkNic) -> None:
        mac = nic.nic.mac.lower()
        name = label(nic.vm_name)
        if not name or mac in self._name_of or self._vm_of[mac] is not nic:
            return
        who = f"VM {nic.vm_name}"
        other = self._names.setdefault(name, who)
        if other == who and name not in self._name_of.values():
            self._name_of[mac] = name
        elif other != who and not self._reserved_for(nic.vm, name):
            self._problems.append(f"{who} cannot have the name {name}, which {other} has")

    def result(self) -> Hosts:
        return Hosts(
            hosts=tuple(
                Host(mac=mac, addresses=tuple(str(address) for address in own), name=self._name_of.get(mac, ""))
                for mac, own in sorted(self._of.items())
            ),
            problems=tuple(self._problems),
        )

    def _reserved_for(self, vm: str, name: str) -> bool:
        """Return whether another NIC of the same VM has a name by reservation."""
        return any(self._name_of.get(mac) == name and nic.vm == vm for mac, nic in self._vm_of.items())

    def _give(self, mac: str, text: str, who: str) -> None:
        try:
            address = ip_address(text)
        except ValueError:
            self._problems.append(f"{who} wants {text!r}, which is no IP address")
            return
        if not any(address in network for network in self._networks):
            prefixes = " and ".join(str(network) for network in self._networks) or "no addresses"
            self._problems.append(f"{who} wants {address}, which is not in the network: it has {prefixes}")
            return
        other = self._addresses.setdefault(address, who)
        if other == who:
            self._of[mac].append(address)
        else:
            self._problems.append(f"{who} wants {address}, which {other} has")


def _canonical(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return text
