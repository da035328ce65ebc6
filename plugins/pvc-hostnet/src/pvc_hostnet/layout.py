"""The networks of this node as its section and its number say.  Pure."""

from ipaddress import ip_address, ip_interface

import msgspec

from pvc_core.plugin import ConfigError
from pvc_hostnet.config import HostnetConfig
from pvc_hostnet.rules import address_of, base_of, number_in, own_address, problems


class HostNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network of this node.  Addresses are text in the form in which the kernel tells them."""

    name: str
    """upstream, cluster, storage."""
    same_as: str = ""
    """The network whose device and addresses it has; empty: its own."""
    device: str
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    """Of this node, as ``address/length``."""
    floating: tuple[str, ...] = ()
    """Without a prefix length."""
    gateways: tuple[str, ...] = ()


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """All networks of this node."""

    networks: tuple[HostNetwork, ...] = ()

    @property
    def own(self) -> tuple[HostNetwork, ...]:
        """The networks that have a device of their own: what there is to do."""
        return tuple(network for network in self.networks if not network.same_as)

    @property
    def floating(self) -> tuple[str, ...]:
        """All floating addresses."""
        return tuple(address for network in self.own for address in network.floating)


def layout(config: HostnetConfig, node: str) -> Layout:
    """Return the networks of the node of this name.  Raises ConfigError with everything that is wrong."""
    sections = config.networks()
    number = config.number if config.number is not None else number_in(node)
    if wrong := problems(sections, number):
        raise ConfigError("\n".join(f"plugins.hostnet.{problem}" for problem in wrong))
    found = []
    for name in sections:
        base = base_of(sections, name)
        given = sections[base]
        addresses = []
        for text in given.addresses:
            address = own_address(text, number)
            if address is None:
                raise ConfigError(
                    f"plugins.hostnet.{base}.addresses: {text} means by node number, but the name {node} ends with no "
                    "number: give plugins.hostnet.number"
                )
            addresses.append(str(address))
        found.append(
            HostNetwork(
                name=name,
                same_as=base if base != name else "",
                device=given.device,
                mtu=given.mtu,
                addresses=tuple(addresses),
                floating=tuple(str(address_of(text)) for text in given.floating),
                gateways=tuple(str(address_of(text)) for text in given.gateways),
            )
        )
    return Layout(networks=tuple(found))


def without_floating(wanted: Layout) -> Layout:
    """Return the networks of a node that cannot become the primary: it has no floating addresses, and keeps none."""
    return Layout(networks=tuple(msgspec.structs.replace(network, floating=()) for network in wanted.networks))


def contradiction(wanted: Layout, address: str) -> str:
    """Return how the address that a node tells the cluster (``node.address``) does not fit its networks; empty: it does.

    A host's name, and an address in none of the prefixes, may be right.
    """
    try:
        told = ip_address(address)
    except ValueError:
        return ""
    for network in wanted.own:
        if address in network.floating:
            return f"node.address {address} is a floating address of network {network.name}: give the node's own"
        here = [own for own in map(ip_interface, network.addresses) if told in own.network]
        if here and told not in [own.ip for own in here]:
            given = ", ".join(str(own.ip) for own in here)
            return f"node.address is {address}, but this node is {given} in network {network.name}"
    return ""
