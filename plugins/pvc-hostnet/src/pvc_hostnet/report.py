"""What a node says of its networks: answer of the query ``hostnet.status``."""

import msgspec


class OwnAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address of the node."""

    address: str
    """As ``address/length``."""
    present: bool
    adopted: bool = False
    """The host gave it, not PVC, which therefore never removes it."""


class FloatingAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address of the primary."""

    address: str
    held: bool
    """It is on this node now."""


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway of the section."""

    address: str
    used: bool
    """The default route leads to it; else the host has another one, or none."""


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A network of the node."""

    name: str
    same_as: str = ""
    """Network whose device and addresses it has; empty: its own."""
    device: str
    exists: bool
    up: bool = False
    carrier: bool = False
    mac: str = ""
    mtu: int = 0
    """What the device has, bytes; 0: there is no device."""
    wanted_mtu: int | None = None
    addresses: tuple[OwnAddress, ...] = ()
    floating: tuple[FloatingAddress, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    problems: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """All networks of a node."""

    node: str
    primary: bool
    """It is to have the floating addresses."""
    networks: tuple[NetworkStatus, ...]
