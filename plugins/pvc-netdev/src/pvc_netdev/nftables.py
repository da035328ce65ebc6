"""Whether something of nftables is there, asked of the kernel itself: ``nft`` takes 10 ms to start, and reads whole tables.

Source: ``linux/netfilter/nf_tables.h``, ``linux/netfilter/nfnetlink.h``.
"""

import contextlib
import errno
import struct
from typing import Final

from pvc_core.plugin import DriverError
from pvc_netdev.namespace import entered
from pvc_netdev.netlink import NETFILTER, Netlink, attribute

_FAMILIES: Final = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
_HEAD: Final = struct.Struct("=BBH")
_GET_TABLE: Final = (10 << 8) | 1
_GET_OBJECT: Final = (10 << 8) | 19
_COUNTER: Final = attribute(3, struct.pack("!I", 1))


def has_table(table: str, namespace: str = "") -> bool:
    """Return whether a table (``family name``) is there, in a named network namespace or in that of the calling thread."""
    family, _, name = table.partition(" ")
    return _is_there(namespace, family, _GET_TABLE, _name(1, name))


def has_counter(table: str, counter: str, namespace: str = "") -> bool:
    """Return whether a table has a counter of this name."""
    family, _, name = table.partition(" ")
    return _is_there(namespace, family, _GET_OBJECT, _name(1, name) + _name(2, counter) + _COUNTER)


def _is_there(namespace: str, family: str, kind: int, asked: bytes) -> bool:
    with entered(namespace) if namespace else contextlib.nullcontext():
        try:
            with Netlink(NETFILTER) as netlink:
                netlink.get(kind, _HEAD.pack(_FAMILIES[family], 0, 0), asked)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            where = f" of namespace {namespace}" if namespace else ""
            raise DriverError(f"looking into nftables{where}: the kernel refused it: {error.strerror}") from error
    return True


def _name(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")
