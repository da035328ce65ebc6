"""Parameters of a network and its NICs, checked without looking at any node."""

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import msgspec

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.model.network import NetworkSpec
from pvc_core.model.vm import Nic
from pvc_vxlan.firewall.validate import check_rules
from pvc_vxlan.network import Reservation, VxlanNetwork, typed

PARAMETERS: Final = tuple(field.name for field in msgspec.structs.fields(VxlanNetwork))
NIC_PARAMETERS: Final = ("spoof_check",)
_MTU: Final = (576, 65485)
_MTU_WITH_IPV6: Final = 1280
"""What IPv6 demands of every link (RFC 8200, section 5)."""
_MAC: Final = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DOMAIN: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*")
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NO_SPACE: Final = re.compile(r"[^\s,\"']{1,200}")

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network


def network_of(spec: NetworkSpec) -> VxlanNetwork:
    """Return a network's parameters; raises InvalidRequest that names the one that is wrong."""
    unknown = next((name for name in spec.parameters if name not in PARAMETERS), None)
    if unknown is not None:
        raise InvalidRequest(
            f"network {spec.name}: driver vxlan has no parameter {unknown!r}{did_you_mean(unknown, PARAMETERS)}; it has "
            f"{', '.join(PARAMETERS)}"
        )
    try:
        return typed(spec.parameters)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"network {spec.name}: {_told(str(error))}") from error


def validate_network(spec: NetworkSpec, others: Sequence[NetworkSpec]) -> None:
    """Check a network by itself and against the other managed networks; raises InvalidRequest."""
    network = network_of(spec)
    try:
        prefixes = list(_prefixes(network))
        _check_gateways(network)
        _check_ranges(network)
        _check_names(network)
        _check_servers(network)
        _check_reservations(network)
        _check_mtu(spec, network)
        check_rules(spec.name, network.rules)
        _check_others(network, prefixes, others)
    except _Wrong as wrong:
        raise InvalidRequest(f"network {spec.name}: {wrong}") from None


def validate_nic(spec: NetworkSpec, nic: Nic) -> None:
    """Check a NIC that a VM is to have in a network; raises InvalidRequest."""
    network = network_of(spec)
    unknown = next((name for name in nic.parameters if name not in NIC_PARAMETERS), None)
    what = f"NIC {nic.mac} in network {spec.name}"
    if unknown is not None:
        raise InvalidRequest(
            f"{what}: driver vxlan has no NIC parameter {unknown!r}; it has {', '.join(NIC_PARAMETERS)}"
        )
    if nic.parameters.get("spoof_check", "true") not in ("true", "false"):
        raise InvalidRequest(f"{what}: spoof_check is true or false, not {nic.parameters['spoof_check']!r}")
    seen: set[int] = set()
    for text in nic.addresses:
        try:
            address = _inside(text, "its address", network)
        except _Wrong as wrong:
            raise InvalidRequest(f"{what}: {wrong}") from None
        if address.version in seen:
            raise InvalidRequest(
                f"{what}: it can have one address of IPv{address.version}, and has {', '.join(nic.addresses)}"
            )
        seen.add(address.version)
        holder = next((r for r in network.reservations if text in (r.address, r.address6) and r.mac != nic.mac), None)
        if holder is not None:
            raise InvalidRequest(f"{what}: {address} is reserved for {holder.mac}")


class _Wrong(Exception):
    """A parameter is wrong; the message follows the network's name."""


def _told(said: str) -> str:
    """Return msgspec's words with the path first: ``Expected `int`, got `str` - at `$.vni```."""
    message, _, place = said.partition(" - at `$.")
    return f"{place.rstrip('`')}: {message}" if place else message


def _prefixes(network: VxlanNetwork) -> Iterator[Prefix]:
    for field, kind in (("ipv4", IPv4Network), ("ipv6", IPv6Network)):
        text = getattr(network, field)
        if not text:
            continue
        try:
            prefix = kind(text)
        except ValueError as error:
            raise _Wrong(
                f"{field}: {text!r} is not a prefix such as {'10.1.0.0/24' if kind is IPv4Network else 'fd00:1::/64'} ({error})"
            ) from None
        if prefix.prefixlen > (29 if prefix.version == 4 else 125):
            raise _Wrong(f"{field}: {prefix} has no room for a gateway and guests")
        if prefix.is_multicast or prefix.is_loopback or prefix.is_link_local or prefix.is_unspecified:
            raise _Wrong(f"{field}: {prefix} is not for hosts of a network")
        yield prefix


def _inside(text: str, what: str, network: VxlanNetwork) -> Address:
    """Return an address that a host of the network can have."""
    try:
        address = ip_address(text)
    except ValueError:
        raise _Wrong(f"{what}: {text!r} is not an IP address") from None
    own = network.ipv4 if address.version == 4 else network.ipv6
    if not own:
        raise _Wrong(f"{what}: {address} is of IPv{address.version}, of which the network has no prefix")
    prefix = ip_network(own)
    if address not in prefix:
        raise _Wrong(f"{what}: {address} is not in {prefix}")
    if address == prefix[0] or (address.version == 4 and address == prefix[-1]):
        raise _Wrong(f"{what}: {address} is the first or last of {prefix}, which no host can have")
    if any(face is not None and address == face.ip for face in (network.interface4, network.interface6)):
        raise _Wrong(f"{what}: {address} is the gateway's")
    return address


def _check_gateways(network: VxlanNetwork) -> None:
    for field, own in (("gateway4", network.ipv4), ("gateway6", network.ipv6)):
        text = getattr(network, field)
        if not text:
            continue
        if not own:
            raise _Wrong(f"{field}: {text} is given, but no prefix {field.replace('gateway', 'ipv')}")
        without = msgspec.structs.replace(network, gateway=False)
        address = _inside(text, field, without)
        if f"gateway{address.version}" != field:
            raise _Wrong(f"{field}: {address} is of IPv{address.version}")
    if network.transfer_peers and not (network.dns and network.has_gateway):
        raise _Wrong("transfer_peers: the network has no name server of its own")
    if network.masquerade and network.interface4 is None:
        raise _Wrong("masquerade: the network has no gateway for IPv4")
    if network.rules and not network.has_gateway:
        raise _Wrong("rules: they act at the gateway, which the network does not have")


def range_of(text: str) -> tuple[Address, Address]:
    """Return first and last address of ``first-last``; raises ValueError."""
    first, dash, last = text.partition("-")
    if not dash:
        raise ValueError("it has no dash")
    pair = ip_address(first.strip()), ip_address(last.strip())
    if pair[0].version != pair[1].version or int(pair[0]) > int(pair[1]):
        raise ValueError("its end is before its beginning")
    return pair


def _check_ranges(network: VxlanNetwork) -> None:
    for field, version, face in (("dhcp4", 4, network.interface4), ("dhcp6", 6, network.interface6)):
        seen: list[tuple[int, int]] = []
        for text in getattr(network, field):
            try:
                first, last = range_of(text)
            except ValueError as error:
                raise _Wrong(f"{field}: {text!r} is not a range first-last ({error})") from None
            if face is None:
                raise _Wrong(f"{field}: {text} is given, but the network has no gateway for IPv{version}")
            for address in (first, last):
                if address.version != version:
                    raise _Wrong(f"{field}: {address} is of IPv{address.version}")
                if address not in face.network:
                    raise _Wrong(f"{field}: {address} is not in {face.network}")
            if first == face.network[0] or (version == 4 and last == face.network[-1]):
                raise _Wrong(f"{field}: {text} has the first or last of {face.network}, which no host can have")
            if int(first) <= int(face.ip) <= int(last):
                raise _Wrong(f"{field}: {text} has the gateway's address {face.ip} in it")
            if any(int(first) <= high and low <= int(last) for low, high in seen):
                raise _Wrong(f"{field}: {text} overlaps another range")
            seen.append((int(first), int(last)))
    if network.dhcp6 and network.interface6 is not None and network.interface6.network.prefixlen < 64:
        raise _Wrong(f"dhcp6: a prefix longer than or equal to /64 is needed, {network.ipv6} is shorter")


def _check_names(network: VxlanNetwork) -> None:
    if network.domain and (len(network.domain) > 200 or not _DOMAIN.fullmatch(network.domain)):
        raise _Wrong(f"domain: {network.domain!r} is not a domain such as net1.example.org, in lower case")
    if network.boot_file and not _NO_SPACE.fullmatch(network.boot_file):
        raise _Wrong(f"boot_file: {network.boot_file!r} has spaces, commas or quotes")
    if network.boot_server and not network.boot_file:
        raise _Wrong("boot_server: it is given without boot_file")


def _check_servers(network: VxlanNetwork) -> None:
    given = [("boot_server", network.boot_server)] if network.boot_server else []
    given += [
        (field, text) for field in ("dns_servers", "ntp_servers", "transfer_peers") for text in getattr(network, field)
    ]
    for field, text in given:
        try:
            ip_address(text)
        except ValueError:
            raise _Wrong(f"{field}: {text!r} is not an IP address") from None


def _check_reservations(network: VxlanNetwork) -> None:
    _check_unique("MAC address", [reservation.mac for reservation in network.reservations])
    _check_unique("address", [a for r in network.reservations for a in (r.address, r.address6) if a])
    _check_unique("name", [reservation.name.lower() for reservation in network.reservations if reservation.name])
    for reservation in network.reservations:
        _check_reservation(reservation, network)
    if network.reservations and not network.has_gateway:
        raise _Wrong("reservations: they are given by the gateway, which the network does not have")


def _check_reservation(reservation: Reservation, network: VxlanNetwork) -> None:
    what = f"reservation of {reservation.mac}"
    if not _MAC.fullmatch(reservation.mac) or int(reservation.mac[:2], 16) & 1:
        raise _Wrong(f"{what}: it is not the MAC address of a NIC, in lower case and with colons")
    for text, version in ((reservation.address, 4), (reservation.address6, 6)):
        if text and _inside(text, what, network).version != version:
            raise _Wrong(f"{what}: {text} is not of IPv{version}")
    if reservation.name and not _HOST.fullmatch(reservation.name):
        raise _Wrong(f"{what}: {reservation.name!r} is not a host name")
    if not (reservation.address or reservation.address6 or reservation.name):
        raise _Wrong(f"{what}: it says neither address nor name")


def _check_unique(what: str, given: Iterable[str]) -> None:
    seen: set[str] = set()
    for text in given:
        if text in seen:
            raise _Wrong(f"reservations: {what} {text} is there twice")
        seen.add(text)


def _check_mtu(spec: NetworkSpec, network: VxlanNetwork) -> None:
    low, high = (_MTU_WITH_IPV6 if network.ipv6 else _MTU[0]), _MTU[1]
    if spec.mtu is not None and not low <= spec.mtu <= high:
        why = ", the least that IPv6 takes" if spec.mtu >= _MTU[0] and low == _MTU_WITH_IPV6 else ""
        raise _Wrong(f"MTU {spec.mtu} is not from {low} to {high} bytes{why}")


def _check_others(network: VxlanNetwork, prefixes: Iterable[Prefix], others: Sequence[NetworkSpec]) -> None:
    wanted = list(prefixes)
    for spec in others:
        try:
            other = network_of(spec)
            theirs = list(_prefixes(other))
        except (InvalidRequest, _Wrong):
            continue  # of an earlier version, or written by hand: it is no reason to refuse this one
        if other.vni == network.vni:
            raise _Wrong(f"VNI {network.vni} is network {spec.name}'s")
        if network.domain and other.domain == network.domain and network.dns and other.dns:
            raise _Wrong(f"domain: {network.domain} is network {spec.name}'s")
        # Also without a gateway: the prefix is what its guests are reached by.
        clash = next(((a, b) for a in wanted for b in theirs if a.version == b.version and a.overlaps(b)), None)
        if clash is not None and network.has_gateway and other.has_gateway:
            raise _Wrong(f"{clash[0]} overlaps {clash[1]} of network {spec.name}: both are routed by their gateways")
