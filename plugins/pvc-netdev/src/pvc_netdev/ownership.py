"""Whose a device is: a plugin's devices say it in their aliases, ``<plugin>:<network id>:<what it is there for>``.

A device is made under an interim name, gets its alias, and then its own name.  So whatever has one of the plugin's names without
its alias is somebody else's, also after a daemon died in between.
"""

from collections.abc import Callable
from typing import Final

from pvc_core.plugin import DriverError
from pvc_netdev.links import Link, Links

_PREFIX: Final = "pvc"
_INTERIM: Final = "pvn"


class Owner:
    """A plugin as the owner of devices, by the first word of their aliases; all names begin with ``pvc``."""

    def __init__(self, plugin: str) -> None:
        self.plugin: Final = plugin

    def alias(self, network_id: str, role: str) -> str:
        """Return the alias of a device of ours."""
        return f"{self.plugin}:{network_id}:{role}"

    def owns(self, link: Link) -> bool:
        """Return whether a device is ours."""
        return self._words(link.alias) is not None

    def network_of(self, link: Link) -> str:
        """Return the id of the network that a device is of; empty: none of ours."""
        words = self._words(link.alias)
        return words[1] if words else ""

    def role_of(self, link: Link) -> str:
        """Return what a device of ours is there for; empty for others."""
        words = self._words(link.alias)
        return words[2] if words else ""

    def networks(self, links: Links) -> list[str]:
        """Return the ids of the networks that have a device of ours, sorted."""
        found = (self._words(alias) for alias in links.aliases().values())
        return sorted({words[1] for words in found if words and words[1]})

    def mine(self, link: Link | None, network_id: str, kind: str) -> Link | None:
        """Return a device that was found by one of our names; raise DriverError when it is not that network's."""
        if link is not None and (link.kind != kind or not self.owns(link) or self.network_of(link) != network_id):
            raise self._in_the_way(link)
        return link

    def make(self, links: Links, name: str, alias: str, add: Callable[[str], None]) -> Link:
        """Make a device and return it, switched off; ``add`` makes it under the name that it is given.

        Another device of ours that has the name is removed right before the new one gets it.
        """
        interim_name = interim(name)
        discard_interim(links, name)
        before = links.get(name)
        if before is not None and not self.owns(before):
            raise self._in_the_way(before)
        add(interim_name)
        made = _there(links, interim_name)
        links.set(made, "the alias", ifalias=alias)
        if before is not None:
            links.delete(before)
        links.set(made, f"naming {name}", ifname=name)
        return _there(links, name)

    def _in_the_way(self, link: Link) -> DriverError:
        what = f"a {link.kind or 'NIC'}" + (f" with alias {link.alias!r}" if link.alias else "")
        return DriverError(
            f"this node has a device {link.name}, {what}, that is not ours: rename or remove it", retryable=False
        )

    def _words(self, alias: str) -> list[str] | None:
        words = alias.split(":", 2)
        return words if words[0] == self.plugin and len(words) == 3 else None


def interim(name: str) -> str:
    """Return the name that a device has while it is made."""
    return _INTERIM + name.removeprefix(_PREFIX)


def discard_interim(links: Links, name: str) -> None:
    """Remove what a daemon left that died while it made a device of this name."""
    left = links.get(interim(name))
    if left is not None:
        links.delete(left)


def _there(links: Links, name: str) -> Link:
    found = links.get(name)
    if found is None:
        raise DriverError(f"device {name} vanished while it was made")
    return found
