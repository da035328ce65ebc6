"""Clients that have an image open: each keeps a watch on its header, on the OSD that serves it.

An OSD drops the watch of a client that died half a minute after it, and that of a blocked one as soon as it knows.  A
client that died while its watch was being written is the exception: up to Ceph 17 (https://tracker.ceph.com/issues/58120)
that watch stays, and the image counts as open for ever.  The OSD finds it when its placement group peers again.
"""

import time
from collections.abc import Set as AbstractSet
from typing import Final

from pvc_ceph.worker import clients
from pvc_ceph.worker.ceph import Cluster, Image
from pvc_core.plugin import AuthFailed, NotReady

_KNOWS_S: Final = 1.0
"""OSDs drop the watch of a blocked client as soon as they have the new map: fractions of a second."""
_GONE_S: Final = 10.0
_PAUSE_S: Final = 0.05


def addresses(image: Image) -> set[str]:
    """Return all clients that have an image open; we are one of them."""
    return {watcher["addr"] for watcher in image.watchers_list()}


def others(cluster: Cluster, pool: str, image: Image) -> list[str]:
    """Return the clients, beside us, that have an image open and can still use it; blocked ones are got rid of.

    Raises NotReady while that cannot be done.
    """
    found = addresses(image) - {cluster.connection.get_addrs()}
    if not found:
        return []
    dead = found & clients.blocked(cluster)
    forget(cluster, pool, image, dead)
    return sorted(found - dead)


def forget(cluster: Cluster, pool: str, image: Image, blocked: AbstractSet[str]) -> None:
    """Return when the OSD has dropped the watches of blocked clients.  Raises NotReady when it does not."""
    if not blocked:
        return
    if _gone(image, blocked, _KNOWS_S):
        return
    header = f"rbd_header.{image.id()}"
    group = cluster.command("osd map", pool=pool, object=header)["pgid"]
    refused = ""
    try:
        cluster.command("pg repeer", pgid=group)
    except AuthFailed as error:
        refused = f" ({error})"
    if not _gone(image, blocked, _GONE_S):
        left = ", ".join(sorted(addresses(image) & blocked))
        raise NotReady(
            f"volume {image.get_name()!r} of Ceph's pool {pool} is still open by clients that were blocked: {left}; if they "
            f"stay: ceph pg repeer {group}{refused}"
        )


def _gone(image: Image, blocked: AbstractSet[str], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while addresses(image) & blocked:
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True
