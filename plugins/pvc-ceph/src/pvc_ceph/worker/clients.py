"""Clients of Ceph as its OSDs know them: ``ip:port/nonce``, one process; ``ip:0/0`` as a blocked address means all of a host.

Blocking: https://docs.ceph.com/en/pacific/rados/operations/control/ (``osd blocklist``).
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from pvc_ceph.worker.ceph import Cluster
from pvc_core.plugin import DriverError

INSTANCE_S: Final = 30 * 86400.0
"""How long one client stays blocked: longer than a hung process is left alone.  Its nonce does not come again."""
HOST_S: Final = 10 * 365 * 86400.0
"""How long a host stays blocked when nobody opens storage to it again: a proof must not end by itself."""

_ADDRESS: Final = re.compile(r"(?:v[12]:)?(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):(\d+)/(\d+)")


def ip(address: str) -> str:
    """Return the IP address of a client."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise DriverError(f"Ceph names a client {address!r}, which is no address", retryable=False)
    return _plain(match[1] or match[2])


def host(address: str) -> str:
    """Return what to block for all clients of a host, from its IP address."""
    plain = ipaddress.ip_address(address)
    return f"[{plain}]:0/0" if plain.version == 6 else f"{plain}:0/0"


def addresses_in(text: str) -> frozenset[str]:
    """Return the IP addresses in what Ceph writes for one or several addresses (``[v2:10.0.0.1:3300/0,v1:...]``)."""
    return frozenset(_plain(match[1] or match[2]) for match in _ADDRESS.finditer(text))


def own_addresses(cluster: Cluster) -> frozenset[str]:
    """Return under which IP addresses Ceph knows this process."""
    return addresses_in(cluster.connection.get_addrs())


def block(cluster: Cluster, addresses: Iterable[str], seconds: float) -> None:
    """Block clients, and return when we ourselves know of it: what we ask OSDs from now on, they answer knowing it too."""
    for address in addresses:
        cluster.command("osd blocklist", blocklistop="add", addr=address, expire=seconds)
    cluster.connection.wait_for_latest_osdmap()


def unblock(cluster: Cluster, addresses: Iterable[str]) -> None:
    """Let clients in again; one that is not blocked is success."""
    for address in addresses:
        cluster.command("osd blocklist", blocklistop="rm", addr=address)


def blocked(cluster: Cluster) -> frozenset[str]:
    """Return all that is blocked."""
    return frozenset(entry["addr"] for entry in cluster.command("osd blocklist ls"))


def _plain(address: str) -> str:
    return str(ipaddress.ip_address(address))
