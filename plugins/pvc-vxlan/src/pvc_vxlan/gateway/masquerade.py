"""Lets guests of some networks reach outside under this node's own address: one nftables table on the host (nft(8)).

Traffic between managed networks stays as it is: it leaves by the cable to another gateway.
"""

from collections.abc import Iterable
from typing import Final

from pvc_core.plugin import Run
from pvc_netdev.nftables import has_table
from pvc_vxlan.names import gateway_uplink

TABLE: Final = "pvc-masquerade"
_UPLINKS: Final = f"{gateway_uplink('')}*"
_LIMIT_S: Final = 10.0


def render(prefixes: Iterable[str]) -> str:
    """Return what makes the table be for these prefixes and no others, at once."""
    elements = ", ".join(sorted(set(prefixes)))
    # Naming it first makes the removal of one that is not there succeed.
    removal = f"table ip {TABLE}\ndelete table ip {TABLE}\n"
    if not elements:
        return removal
    return f"""{removal}table ip {TABLE} {{
    set networks {{
        type ipv4_addr
        flags interval
        auto-merge
        elements = {{ {elements} }}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @networks oifname != "{_UPLINKS}" masquerade
    }}
}}
"""


def apply(run: Run, prefixes: Iterable[str]) -> None:
    """Make the table so.  Raises DriverError when nft refuses it."""
    run(["nft", "-f", "-"], deadline_s=_LIMIT_S, stdin=render(prefixes).encode()).check()


def is_there() -> bool:
    """Return whether the table is there."""
    return has_table(f"ip {TABLE}")
