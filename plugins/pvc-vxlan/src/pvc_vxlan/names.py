"""Names of what a network has on a node: 15 characters at most, the same on every node, from the network's id."""

from typing import Final

OWNER: Final = "pvc-vxlan"
"""First word of the alias of every device of ours: ``pvc-vxlan:<network id>:<what it is>``."""
GATEWAY_PREFIX: Final = "pvc-gw-"


def _short(network_id: str) -> str:
    return network_id.replace("-", "")[:9]


def bridge(network_id: str) -> str:
    """The bridge that the guests' NICs are ports of."""
    return f"pvcxb{_short(network_id)}"


def tunnel(network_id: str) -> str:
    """The VXLAN device."""
    return f"pvcxt{_short(network_id)}"


def gateway_port(network_id: str) -> str:
    """The gateway's port of the bridge; its other end is ``GUEST_SIDE`` in the gateway's namespace."""
    return f"pvcxg{_short(network_id)}"


def gateway_uplink(network_id: str) -> str:
    """The host's end of the cable to the gateway's namespace; its other end is ``HOST_SIDE`` there."""
    return f"pvcxu{_short(network_id)}"


def gateway_namespace(network_id: str) -> str:
    """The gateway's network namespace."""
    return f"{GATEWAY_PREFIX}{network_id}"


def gateway_mac(network_id: str) -> str:
    """The gateway's MAC address: one per network, wherever its gateway is; locally administered."""
    digits = network_id.replace("-", "")[:10]
    return ":".join(["0e", *(digits[i : i + 2] for i in range(0, 10, 2))])


GUEST_SIDE: Final = "net0"
HOST_SIDE: Final = "up0"
HOST_ADDRESS4: Final = "169.254.0.1"
"""Of the host at its end of every such cable."""
NAMESPACE_ADDRESS4: Final = "169.254.0.2"
HOST_ADDRESS6: Final = "fe80::1"
NAMESPACE_ADDRESS6: Final = "fe80::2"
