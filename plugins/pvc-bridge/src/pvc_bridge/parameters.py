"""Parameters of a network, checked without looking at any node."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pvc_core.model.errors import InvalidRequest
from pvc_core.model.names import did_you_mean
from pvc_core.model.network import NetworkSpec

PARAMETERS: Final = ("device", "vlan", "trunk")
VLAN_MAX: Final = 4094
"""0 and 4095 are reserved (IEEE 802.1Q, 9.6)."""
_NO_DEVICE: Final = ("", "none")
_DEVICE: Final = re.compile(r"[^\s/:]{1,15}")
_VLANS: Final = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)
_MTU: Final = (576, 65535)
"""What IPv4 demands of every link, and what a frame can say."""


class BridgeNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network as its parameters want it."""

    device: str | None = None
    """Its NIC on the nodes; empty: none on purpose, None: what the node is set to."""
    vlan: int = 0
    """0: frames without a tag."""
    everything: bool = False
    """``trunk: true``: frames without and with any tag."""
    trunk: tuple[tuple[int, int], ...] = ()
    """VLANs that pass with their tags, as ranges first-last, sorted, apart from each other; no others do."""


def parsed(network: NetworkSpec) -> BridgeNetwork:
    """Return a network's parameters; raises InvalidRequest that names the one that is wrong and what it may be."""
    for name in network.parameters:
        if name not in PARAMETERS:
            raise InvalidRequest(
                f"network {network.name}: driver bridge has no parameter {name!r}{did_you_mean(name, PARAMETERS)}; "
                f"it has {', '.join(PARAMETERS)}"
            )
    device = _device(network)
    vlan = _vlan(network)
    trunk = network.parameters.get("trunk", False)
    ranges = () if isinstance(trunk, bool) else _ranges(network, trunk)
    if vlan and trunk is not False:
        raise InvalidRequest(
            f"network {network.name}: vlan and trunk exclude each other: guests get either the frames of one VLAN, "
            "without tags, or those of several, with them"
        )
    if device == "" and (vlan or trunk is not False):
        raise InvalidRequest(f"network {network.name}: without a device it has no {'vlan' if vlan else 'trunk'}")
    return BridgeNetwork(device=device, vlan=vlan, everything=trunk is True, trunk=ranges)


def validate_network(network: NetworkSpec, others: Sequence[NetworkSpec]) -> tuple[str, ...]:
    """Check a network's parameters and MTU, and that none of the driver's ``others`` has its VLAN.

    Returns what there is to warn of; raises InvalidRequest.
    """
    wanted = parsed(network)
    low, high = _MTU
    if network.mtu is not None and not low <= network.mtu <= high:
        raise InvalidRequest(f"network {network.name}: MTU {network.mtu} is not from {low} to {high} bytes")
    warnings = []
    for other in others:
        if other.id == network.id or not _same_frames(wanted, other):
            continue
        theirs = parsed(other)
        what = f"VLAN {wanted.vlan}" if wanted.vlan else "the frames without a tag"
        if theirs.device == wanted.device and (wanted.device or wanted.vlan):
            where = wanted.device or "the nodes' own device"
            leaving = ", which is being removed: wait until it is gone" if other.deleting else ""
            raise InvalidRequest(f"network {network.name}: {what} of {where} are network {other.name}'s{leaving}")
        warnings.append(
            f"network {other.name} has {what} too: the one that comes second fails on nodes where both have the same "
            "device"
        )
    return tuple(warnings)


def _same_frames(wanted: BridgeNetwork, other: NetworkSpec) -> bool:
    """Return whether another network may be meant for the same frames of the same device."""
    try:
        theirs = parsed(other)
    except InvalidRequest:
        return False  # it was stored by another release, and makes nothing here
    devices = {wanted.device, theirs.device}
    if "" in devices or (len(devices) == 2 and None not in devices):
        return False
    # Several networks may have a trunk of the same VLANs, as several ports of a switch do.
    return not wanted.trunk and not theirs.trunk and wanted.vlan == theirs.vlan


def _device(network: NetworkSpec) -> str | None:
    device = network.parameters.get("device")
    if device is None:
        return None
    if device in _NO_DEVICE:
        return ""
    if not isinstance(device, str) or not _DEVICE.fullmatch(device) or device in {".", "..", "lo", "all", "default"}:
        raise InvalidRequest(f"network {network.name}: device {device!r} is not the name of a NIC, such as eth1")
    return device


def _vlan(network: NetworkSpec) -> int:
    vlan = network.parameters.get("vlan")
    if vlan is None:
        return 0
    if isinstance(vlan, bool) or not isinstance(vlan, int) or not 1 <= vlan <= VLAN_MAX:
        raise InvalidRequest(f"network {network.name}: vlan {vlan!r} is not a number from 1 to {VLAN_MAX}")
    return vlan


def _ranges(network: NetworkSpec, trunk: Any) -> tuple[tuple[int, int], ...]:
    items = trunk if isinstance(trunk, (list, tuple)) else [trunk]
    found = sorted(_range(network, item) for item in items)
    if not found:
        raise InvalidRequest(f"network {network.name}: trunk is an empty list: name VLANs, or say true for all frames")
    merged = [found[0]]
    for first, last in found[1:]:
        if first > merged[-1][1] + 1:
            merged.append((first, last))
        else:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
    return tuple(merged)


def _range(network: NetworkSpec, item: Any) -> tuple[int, int]:
    match = None if isinstance(item, bool) else _VLANS.fullmatch(str(item))
    if match:
        first = int(match[1])
        last = int(match[2] or first)
        if 1 <= first <= last <= VLAN_MAX:
            return first, last
    raise InvalidRequest(
        f"network {network.name}: trunk {item!r} is neither true nor a VLAN (1 to {VLAN_MAX}) or a range of them, such as "
        "100-199"
    )
