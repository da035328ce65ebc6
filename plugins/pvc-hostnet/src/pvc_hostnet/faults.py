"""What is wrong with a node's networks.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from pvc_core.model.base import Condition
from pvc_hostnet.layout import HostNetwork, Layout
from pvc_hostnet.seen import Seen, version_of
from pvc_hostnet.steps import mtu_refusal
from pvc_netdev.links import Link

_UPLINKS: Final = frozenset({"", "bond", "team", "vlan"})
"""Kinds of a bridge's ports that lead to other hosts; a NIC has none."""


class Fault(NamedTuple):
    """One thing that is wrong with a network."""

    network: str
    reason: str
    """One CamelCase word for scripts."""
    message: str


def faults(
    layout: Layout, seen: Seen, *, held: bool, refused: Mapping[str, str], twice: Mapping[str, str]
) -> list[Fault]:
    """Return what is wrong, the worst of each network first.

    ``refused``: network -> what the kernel said to our last change; ``twice``: address -> MAC address of another machine
    that has it too.
    """
    found = []
    for network in layout.own:
        of_network = [Fault(network.name, *fault) for fault in _of(network, seen, held=held, twice=twice)]
        if network.name in refused:
            if of_network:
                first = of_network[0]
                of_network[0] = first._replace(message=f"{first.message} ({refused[network.name]})")
            else:
                of_network.append(Fault(network.name, "Refused", refused[network.name]))
        found += of_network
    return found


def lacking(layout: Layout, seen: Seen, refused: Mapping[str, str]) -> list[str]:
    """Return why floating addresses are not where they have to be, for people; empty: all are."""
    found = []
    for network in layout.own:
        link = seen.links.get(network.device)
        if link is not None:
            wrong = [message for _, message in _addresses(network.floating, link, seen)]
        else:
            wrong = [f"there is no device {network.device}"] if network.floating else []
        if wrong and network.name in refused:
            wrong.append(refused[network.name])
        found += [f"network {network.name}: {message}" for message in wrong]
    return found


def conditions(layout: Layout, found: list[Fault]) -> list[Condition]:
    """Return a condition for each network; one that is the same as another has the other's."""
    made = []
    for network in layout.networks:
        wrong = [fault for fault in found if fault.network == (network.same_as or network.name)]
        made.append(
            Condition(
                type=f"Network/{network.name}",
                ok=not wrong,
                reason=wrong[0].reason if wrong else "",
                message=f"network {network.name}: {'; '.join(fault.message for fault in wrong)}" if wrong else "",
            )
        )
    return made


def _of(network: HostNetwork, seen: Seen, *, held: bool, twice: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    link = seen.links.get(network.device)
    if link is None:
        yield "DeviceMissing", f"there is no device {network.device}: the host's own configuration has to make it"
        return
    if not link.up:
        yield "Down", f"{link.name} is switched off"
    elif not link.carrier:
        yield "NoCarrier", f"{link.name} has no carrier"
    yield from _addresses([*network.addresses, *(network.floating if held else ())], link, seen)
    # One that is not ours is another machine's by right.
    for address in (*(a.partition("/")[0] for a in network.addresses), *(network.floating if held else ())):
        if address in twice:
            yield "DuplicateAddress", f"{address} is also the address of a machine with MAC address {twice[address]}"
    yield from _mtu(network, link, seen)
    for via in network.gateways:
        if not seen.gateways(version_of(via)):
            yield "GatewayMissing", f"there is no default route for IPv{version_of(via)}, {via} should be its gateway"


def _addresses(wanted: Iterable[str], link: Link, seen: Seen) -> Iterator[tuple[str, str]]:
    for address in wanted:
        ip = address.partition("/")[0]
        found = seen.with_address(ip)
        here = [a for a in found if a.device == link.index]
        if any(a.duplicate for a in here):
            yield (
                "DuplicateAddress",
                f"the kernel does not use {ip} on {link.name}: another machine had it when it came up",
            )
        elif "/" in address and here and not any(a.address == address for a in here):
            yield "AddressMissing", f"{link.name} has {here[0].address}, not {address}: correct the host or the section"
        elif found and not here:
            yield "AddressElsewhere", f"{ip} is on {seen.name_of(found[0].device)}, not on {link.name}"
        elif not found:
            yield "AddressMissing", f"{link.name} lacks {address}"


def _mtu(network: HostNetwork, link: Link, seen: Seen) -> Iterator[tuple[str, str]]:
    if network.mtu is None:
        return
    if link.mtu != network.mtu:
        why = mtu_refusal(network, link, seen)
        yield "WrongMtu", f"{link.name} has MTU {link.mtu}, not {network.mtu}" + (f": {why}" if why else "")
    if link.kind == "bridge":
        # Guests' devices may want less; what leads to other hosts may not.
        for port in seen.all_links:
            if port.master != link.index or port.kind not in _UPLINKS or port.mtu >= network.mtu:
                continue
            yield "WrongMtu", f"{port.name}, a port of {link.name}, has MTU {port.mtu}, not {network.mtu}"
