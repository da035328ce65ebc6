"""The configuration of a network's dnsmasq (written for 2.90): DHCP, router advertisements and DNS.

Its option names: dnsmasq(8).  Hosts and their names are in files that SIGHUP makes it read again, not in a watched directory:
each of those takes one of the kernel's inotify instances, of which a user has 128, and there may be 500 networks.
"""

import re
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from typing import Final

from msgspec import Struct

from pvc_core.model.errors import InvalidRequest
from pvc_vxlan import names
from pvc_vxlan.gateway.directory import Directory
from pvc_vxlan.gateway.hosts import NAME_SERVER
from pvc_vxlan.network import VxlanNetwork

_LEASES: Final = 20000
"""Most that a network may have: a guest that makes up MAC addresses must not fill the node's memory."""
_CACHED_NAMES: Final = 1000
_ADVERTISED_EVERY_S: Final = 60
_ROUTER_FOR_S: Final = 1800
_MASK6: Final = 64
"""A prefix that is shorter cannot be advertised, nor given out by dnsmasq; one that is longer has no SLAAC (RFC 4862)."""
_OCTET: Final = 8
_WORD: Final = re.compile(r"[^\s,\"'\\#]+")


class Zone(Struct, frozen=True, kw_only=True):
    """What the configuration needs beside the network's own parameters."""

    domain: str
    forwarders: tuple[str, ...]
    """Whom it asks for names of others, IPv4 and IPv6."""
    mtu: int
    static6: bool
    """There are hosts with an IPv6 address of their own."""
    user: str
    """Whose rights it has after its start."""
    script: Path
    """Told of leases."""


def render(network: VxlanNetwork, zone: Zone, files: Directory) -> str:
    """Return the text of the configuration; raises InvalidRequest for a value that cannot stand in it."""
    four, six = network.interface4, network.interface6
    lines = [
        "# Written by pvc-vxlan, which restarts this dnsmasq when it writes another one.",
        "no-hosts",
        "no-resolv",
        f"interface={names.GUEST_SIDE}",
        f"no-dhcp-interface={names.HOST_SIDE}",
        "except-interface=lo",
        f"pid-file={files.pid}",
        f"user={zone.user}",
        "leasefile-ro",
        f"dhcp-script={zone.script}",
        f"dhcp-lease-max={_LEASES}",
        f"dhcp-hostsfile={files.hosts}",
        f"domain={_word(zone.domain)}",
        # VU#598349: a guest of this name would become the proxy of all others.
        "dhcp-name-match=set:wpad,wpad",
        "dhcp-ignore-names=tag:wpad",
        *_dns(network, zone, files, four, six),
        *(_dhcp4(network, zone, four) if four else ()),
        *(_dhcp6(network, zone, six) if six else ()),
    ]
    return "".join(f"{line}\n" for line in lines)


def problems_of(network: VxlanNetwork) -> tuple[str, ...]:
    """Return what a network asks for that dnsmasq cannot do."""
    six = network.interface6
    if six and six.network.prefixlen < _MASK6:
        return (f"{six.network} is shorter than /{_MASK6}: its guests get no IPv6 addresses by DHCP or SLAAC",)
    return ()


def reverse_zones(network: IPv4Interface | IPv6Interface) -> list[str]:
    """Return the zones of a prefix's addresses; none where a zone would hold addresses of others too."""
    prefix = network.network
    step = _OCTET if prefix.version == 4 else 4
    whole = -(-prefix.prefixlen // step) * step
    if whole >= prefix.max_prefixlen or prefix.prefixlen == 0:
        return []
    labels = whole // step
    return [
        ".".join(subnet.network_address.reverse_pointer.split(".")[-labels - 2 :])
        for subnet in prefix.subnets(new_prefix=whole)
    ]


def _dns(
    network: VxlanNetwork, zone: Zone, files: Directory, four: IPv4Interface | None, six: IPv6Interface | None
) -> list[str]:
    if not network.dns:
        return ["port=0"]
    own = [interface for interface in (four, six) if interface]
    name = f"{NAME_SERVER}.{zone.domain}"
    versions = {interface.version for interface in own}
    return [
        f"cache-size={_CACHED_NAMES}",
        "domain-needed",
        f"addn-hosts={files.names}",
        f"host-record={name},{','.join(str(interface.ip) for interface in own)}",
        f"local=/{zone.domain}/",
        *(f"local=/{reverse}/" for interface in own for reverse in reverse_zones(interface)),
        # Whoever asks from outside gets the zones and nothing else: told by the device on which a question arrives, which
        # dnsmasq knows only without bind-interfaces.
        f"auth-server={name},{names.HOST_SIDE}",
        f"auth-zone={zone.domain},{','.join(str(interface.network) for interface in own)}",
        # Without any dnsmasq refuses every transfer; it allows all only with auth-sec-servers.
        *(
            [f"auth-peer={','.join(_address(peer) for peer in network.transfer_peers)}"]
            if network.transfer_peers
            else []
        ),
        # One of a family that the gateway has no address of would never answer.
        *(f"server={server}" for server in zone.forwarders if ip_address(_address(server)).version in versions),
    ]


def _dhcp4(network: VxlanNetwork, zone: Zone, own: IPv4Interface) -> list[str]:
    mask, lease = own.network.netmask, network.lease_s
    ranges = [f"dhcp-range={_range(text)},{mask},{lease}" for text in network.dhcp4]
    boot = f"dhcp-boot={_word(network.boot_file)}" if network.boot_file else ""
    if boot and network.boot_server and ip_address(_address(network.boot_server)).version == 4:
        boot += f",,{network.boot_server}"
    return [
        "dhcp-authoritative",
        # Looking whether somebody has the address already takes 3 s for each new guest.
        "no-ping",
        *(ranges or [f"dhcp-range={own.network.network_address},static,{mask},{lease}"]),
        f"dhcp-option=option:router,{own.ip}",
        _option("option:dns-server", _servers(network, own)),
        f"dhcp-option=option:mtu,{zone.mtu}",
        *_some("option:ntp-server", _of(4, network.ntp_servers)),
        *([boot] if boot else []),
    ]


def _dhcp6(network: VxlanNetwork, zone: Zone, own: IPv6Interface) -> list[str]:
    length, lease = own.network.prefixlen, network.lease_s
    if length < _MASK6:
        return []
    slaac = network.slaac and length == _MASK6
    # ra-names: a guest that has its IPv4 address and name from here gets the name for the address that it made itself too.
    modes = "slaac,ra-names," if slaac else ""
    ranges = [f"dhcp-range={_range(text)},{modes}{length},{lease}" for text in network.dhcp6]
    if not ranges and slaac and not zone.static6:
        ranges = [f"dhcp-range={own.network.network_address},ra-stateless,ra-names,{length},{lease}"]
    servers = [f"[{server}]" for server in _servers(network, own)]
    boot = f"tftp://[{network.boot_server}]/{_word(network.boot_file)}" if network.boot_file else ""
    return [
        "enable-ra",
        f"ra-param={names.GUEST_SIDE},mtu:{zone.mtu},{_ADVERTISED_EVERY_S},{_ROUTER_FOR_S}",
        *(ranges or [f"dhcp-range={own.network.network_address},static,{modes}{length},{lease}"]),
        _option("option6:dns-server", servers),
        f"dhcp-option=option6:domain-search,{zone.domain}",
        *_some("option6:ntp-server", [f"[{server}]" for server in _of(6, network.ntp_servers)]),
        *([f"dhcp-option=option6:bootfile-url,{boot}"] if boot and _of(6, (network.boot_server,)) else []),
    ]


def _servers(network: VxlanNetwork, own: IPv4Interface | IPv6Interface) -> list[str]:
    """Return whom guests shall ask for names."""
    return [str(own.ip)] if network.dns else _of(own.version, network.dns_servers)


def _of(version: int, addresses: tuple[str, ...]) -> list[str]:
    return [address for address in addresses if address and ip_address(_address(address)).version == version]


def _option(name: str, values: list[str]) -> str:
    """Return an option; with no values it keeps dnsmasq from sending its own."""
    return ",".join([f"dhcp-option={name}", *values])


def _some(name: str, values: list[str]) -> list[str]:
    return [_option(name, values)] if values else []


def _range(text: str) -> str:
    first, _, last = text.partition("-")
    return f"{_address(first)},{_address(last or first)}"


def _address(text: str) -> str:
    try:
        return str(ip_address(text.strip()))
    except ValueError as error:
        raise InvalidRequest(f"{text!r} is no IP address") from error


def _word(text: str) -> str:
    # A line of its own would be an option of its own, such as a script that runs as root.
    if not _WORD.fullmatch(text):
        raise InvalidRequest(
            f"{text!r} cannot be told to guests: it is empty, or has spaces, commas, quotes, '\\' or '#'"
        )
    return text
