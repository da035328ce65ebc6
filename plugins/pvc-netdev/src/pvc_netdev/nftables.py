"""Whether a table of nftables is there, asked of the kernel itself (pyroute2): ``nft`` takes 10 ms to start."""

import contextlib
from typing import Final

from pyroute2 import NetlinkError
from pyroute2.nftables.main import NFTables

from pvc_core.plugin import DriverError
from pvc_netdev.namespace import entered

_FAMILIES: Final = {"inet": 1, "ip": 2, "bridge": 7, "ip6": 10}
"""NFPROTO_*, ``linux/netfilter.h``."""


def has_table(table: str, namespace: str = "") -> bool:
    """Return whether a table (``family name``) is there, in a named network namespace or in that of the calling thread."""
    family, _, name = table.partition(" ")
    where = f" of namespace {namespace}" if namespace else ""
    with entered(namespace) if namespace else contextlib.nullcontext():
        try:
            with NFTables(nfgen_family=_FAMILIES[family]) as nft:
                return any(found.get_attr("NFTA_TABLE_NAME") == name for found in nft.get_tables())
        except NetlinkError as error:
            raise DriverError(f"looking into nftables{where}: the kernel refused it: {error.args[-1]}") from error
