"""Ceph's protection of all pools: monitors delete none unless they are told that they may.

They are told so for one deletion, and what was set before is kept in their key store meanwhile: whoever finds it there
makes up for a deletion that was killed.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pvc_ceph.worker.ceph import Cluster
from pvc_core.plugin import ObjectMissing

_OPTION: Final = "mon_allow_pool_delete"
_KEPT: Final = "pvc/mon_allow_pool_delete"
_MON: Final = "mon"


@contextmanager
def allowed(cluster: Cluster) -> Iterator[None]:
    """Let pools be deleted."""
    restore(cluster)
    if cluster.command("config get", who=_MON, key=_OPTION) is True:
        yield
        return
    entries = cluster.command("config dump")
    before = [each["value"] for each in entries if (each["section"], each["name"]) == (_MON, _OPTION)]
    cluster.command("config-key set", key=_KEPT, val=json.dumps(before))
    try:
        cluster.command("config set", who=_MON, name=_OPTION, value="true")
        yield
    finally:
        restore(cluster)


def restore(cluster: Cluster) -> None:
    """Make the monitors as strict as they were before a deletion that is over."""
    try:
        before = cluster.command("config-key get", key=_KEPT)
    except ObjectMissing:
        return
    if before:
        cluster.command("config set", who=_MON, name=_OPTION, value=before[0])
    else:
        cluster.command("config rm", who=_MON, name=_OPTION)
    cluster.command("config-key rm", key=_KEPT)
