"""Names and marks of what a network has on a node: the same on every node, 15 characters at most."""

import hashlib
from typing import Final

from pvc_netdev.ownership import Owner

OWNER: Final = Owner("pvc-bridge")
VLAN: Final = "vlan"
"""Role of a network's VLAN device."""
INNER: Final = "inner"
"""Role of the end of a network's cable that is a port of its bridge."""
OUTER: Final = "outer"
"""Role of the other end, a port of the filtering bridge."""


def _short(network_id: str) -> str:
    return network_id.replace("-", "")[:10]


def bridge_name(network_id: str) -> str:
    """Return the name of a network's bridge.  Its role is the name of the NIC in it; empty: none, or a device of ours."""
    return f"pvcbr{_short(network_id)}"


def vlan_name(network_id: str) -> str:
    """Return the name of a network's VLAN device."""
    return f"pvcvl{_short(network_id)}"


def inner_name(network_id: str) -> str:
    """Return the name of the end of a network's cable that is a port of its bridge."""
    return f"pvcci{_short(network_id)}"


def outer_name(network_id: str) -> str:
    """Return the name of the end of a network's cable that is a port of the filtering bridge."""
    return f"pvcco{_short(network_id)}"


def filter_name(device: str) -> str:
    """Return the name of the filtering bridge of a NIC.  It is of no network; its role is the NIC's name."""
    return f"pvcfb{hashlib.sha256(device.encode()).hexdigest()[:10]}"


def tap_name(mac: str) -> str:
    """Return the name of the host's end of a guest's NIC."""
    return f"pvc{mac.replace(':', '').lower()}"
