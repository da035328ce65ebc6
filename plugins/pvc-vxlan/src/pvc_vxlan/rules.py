"""The firewalls of the gateways here, and what is wrong with them."""

import logging
from typing import Final

from pvc_vxlan import names
from pvc_vxlan.firewall import table
from pvc_vxlan.network import VxlanNetwork


class Rules:
    """Applies networks' rules.  A network's are applied by one thread at a time."""

    def __init__(self, log: logging.Logger) -> None:
        self._log: Final = log
        self._problems: Final[dict[str, str]] = {}
        self._applied: Final[dict[str, str]] = {}
        """Network -> the rules that this daemon has put into force; to look into the table each time would take too long."""

    def apply(self, network_id: str, network: VxlanNetwork) -> None:
        """Have the gateway's table be that of the rules.

        A rule that nft refuses changes nothing where there is a table, and is a problem of the network.  A gateway without one,
        which has just moved here, gets all other rules: guests must not lose it for one rule, and what comes in is dropped
        unless a rule accepts it.
        """
        namespace = names.gateway_namespace(network_id)
        wanted = table.digest(network)
        if self._applied.get(network_id) == wanted and table.present(namespace):
            # Rules that were refused in between are taken back.
            self._problems.pop(network_id, None)
            return
        try:
            table.ensure(namespace, network)
        except table.RuleRefused as refused:
            self._log.warning("rule-refused network=%s rule=%s error=%s", network_id, refused.rule, refused)
            if table.present(namespace):
                self._problems[network_id] = f"{refused}; the rules before that go on"
                return
            if not refused.rule:
                raise
            self.apply(network_id, table.without(network, refused.rule))
            others = self._problems.get(network_id)
            said = f"{refused}; it is left out"
            self._problems[network_id] = f"{others}; {said}" if others else said
        else:
            self._applied[network_id] = wanted
            self._problems.pop(network_id, None)

    def problems(self, network_id: str) -> list[str]:
        """Return what is wrong with a network's rules."""
        found = self._problems.get(network_id)
        return [found] if found else []
