"""Keeps guests from the hosts themselves: one nftables table (nft(8)) on the node that has the gateways.

What guests send outside comes to the host by the cables of the gateways.  It is to go on to routers or to other networks: not to the
host's own services (state store, hypervisor), nor to those of the other nodes.  Errors and pings of ICMP pass, answers pass, and
so do questions to name servers that the gateways are told to ask.
"""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Final

from pvc_core.plugin import Run
from pvc_vxlan.names import gateway_uplink

TABLE: Final = "pvc-hosts"
_UPLINKS: Final = f'"{gateway_uplink("")}*"'
_LIMIT_S: Final = 10.0
_FAMILIES: Final = {4: "ip", 6: "ip6"}


def render(protected: Iterable[str], name_servers: Iterable[str]) -> str:
    """Return what makes the table be so, at once; ``protected``: prefixes of the hosts' networks."""
    dns = [
        f"iifname {_UPLINKS} {family} daddr {{ {', '.join(found)} }} meta l4proto {{ tcp, udp }} th dport 53 accept"
        for family, found in _by_family(name_servers)
    ]
    away = [
        f'iifname {_UPLINKS} {family} daddr {{ {", ".join(found)} }} counter name "to-hosts" drop'
        for family, found in _by_family(protected)
    ]
    passing = [f"iifname != {_UPLINKS} accept", "ct state established,related accept", *dns]
    return "\n".join(
        [
            f"table inet {TABLE}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            "counter to-host { }",
            "counter to-hosts { }",
            "chain input {",
            "type filter hook input priority filter; policy accept;",
            *passing,
            "meta l4proto { icmp, ipv6-icmp } accept",
            'counter name "to-host" drop',
            "}",
            "chain forward {",
            "type filter hook forward priority filter; policy accept;",
            *passing,
            *away,
            "}",
            "}",
            "",
        ]
    )


def _by_family(texts: Iterable[str]) -> list[tuple[str, list[str]]]:
    networks = [ip_network(text, strict=False) for text in texts]
    found = {
        family: sorted({str(one) for one in networks if one.version == version})
        for version, family in _FAMILIES.items()
    }
    return [(family, prefixes) for family, prefixes in found.items() if prefixes]


class HostsGuard:
    """The table of this node; one thread at a time."""

    def __init__(self, run: Run) -> None:
        self._run: Final = run
        self._applied = ""

    def ensure(self, protected: Iterable[str], name_servers: Iterable[str], *, look: bool = False) -> bool:
        """Make the table be so; return whether it was not.  ``look``: see whether it is still there.

        Raises DriverError when nft refuses it.
        """
        wanted = render(protected, name_servers)
        if wanted == self._applied and not (look and not self._is_there()):
            return False
        self._run(["nft", "-f", "-"], deadline_s=_LIMIT_S, stdin=wanted.encode()).check()
        self._applied = wanted
        return True

    def _is_there(self) -> bool:
        return self._run(["nft", "-t", "list", "table", "inet", TABLE], deadline_s=_LIMIT_S).returncode == 0
