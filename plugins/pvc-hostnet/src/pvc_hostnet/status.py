"""How the networks of a node are, from what the kernel has.  Pure."""

from collections.abc import Iterable

from pvc_hostnet.faults import Fault
from pvc_hostnet.layout import Layout
from pvc_hostnet.report import FloatingAddress, Gateway, NetworkStatus, OwnAddress, Status
from pvc_hostnet.seen import Seen, version_of
from pvc_hostnet.steps import FLOATING, OWN


def status(node: str, layout: Layout, seen: Seen, found: Iterable[Fault], *, held: bool) -> Status:
    """Return the networks as they are."""
    wrong = list(found)
    networks = []
    for network in layout.networks:
        link = seen.links.get(network.device)
        here = seen.at(network.device)
        marks = {address.address: address.protocol for address in here}
        ips = {address.address.partition("/")[0] for address in here}
        networks.append(
            NetworkStatus(
                name=network.name,
                same_as=network.same_as,
                device=network.device,
                exists=link is not None,
                up=link is not None and link.up,
                carrier=link is not None and link.carrier,
                mac=link.mac if link is not None else "",
                mtu=link.mtu if link is not None else 0,
                wanted_mtu=network.mtu,
                addresses=tuple(
                    OwnAddress(address=a, present=a in marks, adopted=a in marks and marks[a] not in (OWN, FLOATING))
                    for a in network.addresses
                ),
                floating=tuple(FloatingAddress(address=a, held=a in ips) for a in network.floating),
                gateways=tuple(
                    Gateway(address=via, used=any(route.via == via for route in seen.gateways(version_of(via))))
                    for via in network.gateways
                ),
                problems=tuple(fault.message for fault in wrong if fault.network == (network.same_as or network.name)),
            )
        )
    return Status(node=node, primary=held, networks=tuple(networks))
