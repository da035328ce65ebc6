"""The plugin's object in the daemon: brings up, looks after and tells of the networks of this node."""

from typing import Any

import msgspec

from pvc_core.model.base import Condition
from pvc_core.plugin import Context, DriverError, Query, RoleService, hookimpl
from pvc_hostnet.config import HostnetConfig
from pvc_hostnet.duplicates import Question, others
from pvc_hostnet.faults import conditions, faults
from pvc_hostnet.floating import FloatingAddresses
from pvc_hostnet.layout import Layout, contradiction, layout, without_floating
from pvc_hostnet.seen import Seen, read
from pvc_hostnet.status import status
from pvc_hostnet.upkeep import Upkeep
from pvc_netdev.links import Links


class HostNetworks:
    """Hooks of the plugin ``hostnet``.

    Raises ConfigError when the section does not fit the node: its number.
    """

    def __init__(self, context: Context, config: HostnetConfig) -> None:
        self._node = context.node.name
        self._address = context.node.address
        self._log = context.log
        wanted = layout(config, self._node)
        self._layout = wanted if context.node.role == "coordinator" else without_floating(wanted)
        self._upkeep = Upkeep(self._layout, context.log)

    @hookimpl
    def node_starting(self, node: str) -> None:
        """Give the node its addresses, before the daemon needs them to reach the state store."""
        del node
        if wrong := contradiction(self._layout, self._address):
            self._log.warning("node-address-elsewhere what=%s", wrong)
        self._upkeep.start()

    @hookimpl
    def node_stopping(self, node: str) -> None:
        """Let everything stay as it is."""
        del node
        self._upkeep.stop()

    @hookimpl
    def role_services(self) -> list[RoleService]:
        """Return the service of the floating addresses, if there are any."""
        return [FloatingAddresses(self._upkeep)] if self._layout.floating else []

    @hookimpl
    def health_checks(self) -> list[Condition]:
        """Return a condition for each network, after making true again what can be."""
        self._upkeep.start()
        found = self._upkeep.look(twice=self._twice())
        return conditions(self._layout, found)

    @hookimpl
    def queries(self) -> dict[str, Query]:
        """Return what answers the command ``pvc node network``."""
        return {"hostnet.status": self._status}

    def _status(self, arguments: dict[str, Any]) -> Any:
        del arguments
        held = self._upkeep.held
        with Links() as links:
            seen = read(links, self._layout, whole=True)
        found = faults(self._layout, seen, held=held, refused={}, twice={})
        return msgspec.to_builtins(status(self._node, self._layout, seen, found, held=held))

    def _twice(self) -> dict[str, str]:
        """Return which of this node's addresses another machine has too: address -> its MAC address."""
        with Links() as links:
            seen = read(links, self._layout)
        try:
            found = others(_questions(self._layout, seen), {link.mac for link in seen.links.values()})
            if not found:
                return {}
            # One of this host that is not in the layout may have answered.
            with Links() as links:
                own = {link.mac for link in links.all()}
            return {address: mac for address, mac in found.items() if mac not in own}
        except DriverError as error:
            # A device that goes down meanwhile: what is wrong with it is told, this could not be looked at.
            self._log.warning("duplicates-unknown error=%s", error)
            return {}


def _questions(layout: Layout, seen: Seen) -> list[Question]:
    """Return what to ask on each device: after those of its addresses that the section gives."""
    wanted = {address.partition("/")[0] for network in layout.own for address in network.addresses} | set(
        layout.floating
    )
    found = []
    for device, link in seen.links.items():
        here = [address.address.partition("/")[0] for address in seen.at(device)]
        asked = tuple(address for address in here if address in wanted)
        if asked and link.carrier and link.mac:
            found.append(Question(device=device, mac=link.mac, addresses=asked))
    return found
