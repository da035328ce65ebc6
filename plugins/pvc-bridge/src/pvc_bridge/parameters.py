"""Parameters of a network, checked without looking at any node."""

import re
from typing import Final

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.model.network import NetworkSpec

PARAMETERS: Final = ("device",)
_DEVICE: Final = re.compile(r"[^\s/:]{1,15}")
_MTU: Final = (576, 65535)
"""What IPv4 demands of every link, and what a frame can say."""


def uplink_of(network: NetworkSpec) -> str | None:
    """Return the NIC that a network names; "" for none on purpose, None to take the node's.

    Raises InvalidRequest that names the parameter and what it may be.
    """
    for name in network.parameters:
        if name not in PARAMETERS:
            raise InvalidRequest(
                f"network {network.name}: driver bridge has no parameter {name!r}{did_you_mean(name, PARAMETERS)}; "
                f"it has {', '.join(PARAMETERS)}"
            )
    device = network.parameters.get("device")
    if device is None:
        return None
    if device == "":
        return ""
    if not isinstance(device, str) or not _DEVICE.fullmatch(device) or device in {".", "..", "lo", "all", "default"}:
        raise InvalidRequest(f"network {network.name}: device {device!r} is not the name of a NIC, such as eth1")
    return device


def validate_network(network: NetworkSpec) -> None:
    """Check a network's parameters and MTU; raises InvalidRequest."""
    uplink_of(network)
    low, high = _MTU
    if network.mtu is not None and not low <= network.mtu <= high:
        raise InvalidRequest(f"network {network.name}: MTU {network.mtu} is not from {low} to {high} bytes")
