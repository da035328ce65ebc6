"""What a section must not say, as far as it can be told without looking at the node.  Pure.

A node's number may be unknown (None) while its section is decoded: addresses by number are then checked as prefixes only.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
)
from itertools import combinations
from typing import Final

from pvc_hostnet.section import NetworkSection

Interface = IPv4Interface | IPv6Interface
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MTU_IPV6: Final = 1280
"""RFC 8200, section 5: the kernel takes IPv6 from a device with less."""
_DEVICE: Final = re.compile(r"[^\s/:]{1,15}")
_NO_DEVICES: Final = frozenset({".", "..", "lo", "all", "default"})


def number_in(name: str) -> int | None:
    """Return the number at the end of a node's name (of its first part, if it has a domain); None: there is none."""
    found = re.search(r"[0-9]+$", name.partition(".")[0])
    return int(found[0]) if found else None


def by_number(interface: Interface) -> bool:
    """Return whether an address means "by number": its host bits are zero, and there are at least two.

    With one bit (RFC 3021, RFC 6164) or none every address is a host's.
    """
    network = interface.network
    return network.max_prefixlen - network.prefixlen >= 2 and interface.ip == network.network_address


def own_address(text: str, number: int | None) -> Interface | None:
    """Return the address that an entry of ``addresses`` gives to a node; None: it needs a number, and there is none.

    Raises ValueError that says what is wrong.
    """
    interface = _interface(text)
    if not by_number(interface):
        return interface
    if number is None:
        return None
    network = interface.network
    last = int(network.broadcast_address) - (1 if network.version == 4 else 0)
    if not 0 < number <= last - int(network.network_address):
        raise ValueError(f"{text} has no address for node number {number}")
    return ip_interface(f"{network.network_address + number}/{network.prefixlen}")


def address_of(text: str) -> Address:
    """Return the address of an entry of ``floating`` or ``gateways``, with or without the length of its prefix."""
    try:
        return ip_interface(_unscoped(text)).ip if "/" in text else ip_address(_unscoped(text))
    except ValueError:
        raise ValueError(f"{text!r} is no address") from None


def base_of(networks: Mapping[str, NetworkSection], name: str) -> str:
    """Return the network whose device and addresses a network has: itself unless it is ``same_as``.  Raises ValueError."""
    seen = [name]
    while (other := networks[seen[-1]].same_as) is not None:
        if other in seen:
            raise ValueError(f"{' is the same as '.join([*seen, other])}: give one of them a device")
        if other not in networks:
            raise ValueError(f"there is no network {other}")
        seen.append(other)
    return seen[-1]


def problems(networks: Mapping[str, NetworkSection], number: int | None) -> list[str]:
    """Return everything that is wrong, each with its place."""
    found = []
    for name, section in networks.items():
        found += [f"{name}.{problem}" for problem in _of_one(networks, name, section, number)]
    if not found:
        found += _between({name: s for name, s in networks.items() if s.same_as is None})
    return found


def _of_one(
    networks: Mapping[str, NetworkSection], name: str, section: NetworkSection, number: int | None
) -> Iterator[str]:
    if section.same_as is not None:
        try:
            base_of(networks, name)
        except ValueError as error:
            yield f"same_as: {error}"
        if section != NetworkSection(same_as=section.same_as):
            yield f"same_as: {name} has the device and the addresses of {section.same_as}: give nothing else here"
        return
    if not _DEVICE.fullmatch(section.device) or section.device in _NO_DEVICES:
        yield f"device: expected the name of a device such as eth0, found {section.device!r}"
    found = yield from _own(section, number)
    owned = [interface.ip for interface in found if number is not None or not by_number(interface)]
    prefixes = [interface.network for interface in found]
    yield from _floating(section, owned, prefixes)
    yield from _gateways(section, owned, prefixes)
    if section.mtu is not None and section.mtu < MTU_IPV6 and any(prefix.version == 6 for prefix in prefixes):
        yield f"mtu: IPv6 needs {MTU_IPV6} bytes or more, found {section.mtu}"


def _own(section: NetworkSection, number: int | None) -> Generator[str, None, list[Interface]]:
    """Tell problems of ``addresses``; return those that are right, those by an unknown number as their prefix."""
    found: list[Interface] = []
    for index, text in enumerate(section.addresses):
        try:
            interface = own_address(text, number) or _interface(text)
        except ValueError as error:
            yield f"addresses[{index}]: {error}"
            continue
        for other in found:
            if interface.ip == other.ip:
                yield f"addresses[{index}]: {text} is the address {other} once more"
            elif (
                interface.version == other.version
                and interface.network.overlaps(other.network)
                and (interface.network != other.network)
            ):
                yield f"addresses[{index}]: {text} overlaps {other}"
        found.append(interface)
    return found


def _floating(section: NetworkSection, owned: list[Address], prefixes: list[Network]) -> Iterator[str]:
    seen: set[Address] = set()
    for index, text in enumerate(section.floating):
        at = f"floating[{index}]"
        try:
            address = address_of(text)
        except ValueError as error:
            yield f"{at}: {error}"
            continue
        around = next((prefix for prefix in prefixes if address in prefix), None)
        if around is None:
            yield f"{at}: {address} is in none of the prefixes of addresses"
        elif (given := ip_interface(text).network.prefixlen) not in (around.prefixlen, around.max_prefixlen):
            yield f"{at}: {text} has another prefix length than {around}, given: /{given}"
        elif _not_of_a_host(address, around):
            yield f"{at}: {address} is no address of a host in {around}"
        if address in owned:
            yield f"{at}: {address} is this node's own address"
        if address in seen:
            yield f"{at}: {address} a second time"
        seen.add(address)


def _gateways(section: NetworkSection, owned: list[Address], prefixes: list[Network]) -> Iterator[str]:
    floating = {_quietly(text) for text in section.floating}
    for index, text in enumerate(section.gateways):
        at = f"gateways[{index}]"
        try:
            address = ip_address(_unscoped(text))
        except ValueError:
            yield f"{at}: {text!r} is no address"
            continue
        near = address.version == 6 and address.is_link_local
        if not near and not any(address in prefix for prefix in prefixes):
            yield f"{at}: {address} is in none of the prefixes of addresses"
        if address in owned or address in floating:
            yield f"{at}: {address} is {'a floating address' if address in floating else 'this node itself'}"


def _between(networks: Mapping[str, NetworkSection]) -> Iterator[str]:
    for (one, first), (two, second) in combinations(networks.items(), 2):
        for mine in map(_interface, first.addresses):
            for other in map(_interface, second.addresses):
                if mine.version == other.version and mine.network.overlaps(other.network):
                    yield f"{two}.addresses: {other} overlaps {mine} of {one}; is {two} the same as {one}? Say same_as: {one}"
        if first.device == second.device and None not in (first.mtu, second.mtu) and first.mtu != second.mtu:
            yield f"{two}.mtu: {second.mtu}, but {one} has the same device {second.device} with {first.mtu}"
    given: dict[int, str] = {}
    for name, section in networks.items():
        for index, text in enumerate(section.gateways):
            version = ip_address(text).version
            if version in given:
                yield f"{name}.gateways[{index}]: there is one for IPv{version} already, {given[version]}"
            given.setdefault(version, text)


def _interface(text: str) -> Interface:
    """Return an entry of ``addresses``; raise ValueError unless it can be a host's in a network."""
    try:
        interface = ip_interface(_unscoped(text))
    except ValueError:
        raise ValueError(f"{text!r} is no address with a prefix length, such as 10.0.0.1/24") from None
    if "/" not in text:
        raise ValueError(
            f"{text} needs the length of its prefix, such as {text}/{24 if interface.version == 4 else 64}"
        )
    ip = interface.ip
    if ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_link_local:
        raise ValueError(f"{text} cannot be given to a node")
    if not by_number(interface) and _not_of_a_host(ip, interface.network):
        raise ValueError(f"{text} is the broadcast address of its prefix")
    return interface


def _unscoped(text: str) -> str:
    """Return an address; raise ValueError for one with a scope (fe80::1%eth0): the device is given by its key."""
    if "%" in text:
        raise ValueError(text)
    return text


def _not_of_a_host(address: Address, network: Network) -> bool:
    if network.max_prefixlen - network.prefixlen < 2:
        return False
    return address == network.network_address or (network.version == 4 and address == network.broadcast_address)


def _quietly(text: str) -> Address | None:
    try:
        return address_of(text)
    except ValueError:
        return None  # told where it stands
