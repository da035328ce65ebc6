"""The kernel's links, through netlink: what this driver reads and changes of them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from pyroute2 import IPRoute, NetlinkError

from pvc_core.plugin import DriverError

_IFF_UP: Final = 1
_IFF_LOWER_UP: Final = 0x10000
_SCOPE_LINK: Final = 253
"""RT_SCOPE_LINK: addresses that a NIC gets by itself."""
_SYSCTL: Final = Path("/proc/sys/net")
_NF_CALL: Final = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A network device."""

    index: int
    name: str
    kind: str
    """Such as bridge, veth, tun; empty: hardware."""
    alias: str
    mtu: int
    up: bool
    carrier: bool
    master: int
    """Index of the bridge it is a port of; 0: none."""


class Links:
    """A netlink socket in the network namespace of the calling thread; opened for one call of a hook."""

    def __init__(self) -> None:
        self._socket: Final = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def all(self) -> list[Link]:
        """Return all devices."""
        return [_link(message) for message in self._socket.get_links()]

    def get(self, name: str) -> Link | None:
        """Return a device, or None."""
        try:
            return _link(self._socket.link("get", ifname=name)[0])
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    def ports(self, bridge: Link) -> list[Link]:
        """Return the ports of a bridge."""
        return [link for link in self.all() if link.master == bridge.index]

    def addresses(self, link: Link) -> list[str]:
        """Return the addresses somebody gave a device."""
        found = self._socket.get_addr(index=link.index)
        return [f"{a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in found if a["scope"] != _SCOPE_LINK]

    def add_bridge(self, name: str) -> None:
        """Make a bridge that forwards at once and learns; VLAN filtering is left alone: not every kernel has it."""
        with _doing(f"making bridge {name}"):
            self._socket.link(
                "add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0
            )  # fmt: skip

    def set(self, link: Link, what: str, **attributes: Any) -> None:
        """Change attributes of a device; ``what`` tells it in an error."""
        with _doing(f"{what} of {link.name}"):
            self._socket.link("set", index=link.index, **attributes)

    def delete(self, link: Link) -> None:
        """Remove a device; gone already is success."""
        with _doing(f"removing {link.name}"):
            try:
                self._socket.link("del", index=link.index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:
                    raise


def no_ipv6(name: str) -> None:
    """Keep the host itself out of the guests' IPv6: a bridge only carries their frames."""
    _write(_SYSCTL / "ipv6" / "conf" / name / "disable_ipv6", "1")


def no_bridge_netfilter() -> None:
    """Keep frames between guests out of the host's firewall; without the module br_netfilter they are anyway."""
    for name in _NF_CALL:
        _write(_SYSCTL / "bridge" / name, "0")


def bridge_netfilter() -> list[str]:
    """Return the names of the settings that send frames between guests through the host's firewall."""
    paths = [_SYSCTL / "bridge" / name for name in _NF_CALL]
    return [path.name for path in paths if path.exists() and path.read_text().strip() != "0"]


def _write(path: Path, value: str) -> None:
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DriverError(f"cannot write {value} to {path}: {error.strerror}") from error


@contextmanager
def _doing(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        retryable = error.code not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.ERANGE)
        raise DriverError(f"{what}: the kernel refused it: {error.args[-1]}", retryable=retryable) from error


def _link(message: Any) -> Link:
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        alias=message.get_attr("IFLA_IFALIAS") or "",
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        carrier=bool(message["flags"] & _IFF_LOWER_UP),
        master=message.get_attr("IFLA_MASTER") or 0,
    )
