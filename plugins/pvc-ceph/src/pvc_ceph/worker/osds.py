"""OSDs, as the monitors and the manager know them, and what is asked of them.

Commands: https://docs.ceph.com/en/pacific/rados/operations/add-or-rm-osds/ and ``get_command_descriptions`` of Ceph 16.
"""

import json
from typing import Any, Final

from pvc_ceph.osd.flags import CLUSTER_FLAGS
from pvc_ceph.osd.values import DESTROYED, NEW, OsdList, OsdRow, Safety
from pvc_ceph.worker.ceph import Cluster
from pvc_core.plugin import DriverError, ObjectMissing

_ROOT: Final = "default"
_KIB: Final = 1024
_PAUSED: Final = frozenset(("pauserd", "pausewr"))
"""How the map of OSDs writes ``pause``."""
_BOOTSTRAP: Final = "client.bootstrap-osd"


def listed(cluster: Cluster) -> OsdList:
    """Return all OSDs; without their figures while no manager answers, as after the loss of its host."""
    dump = cluster.command("osd dump")
    measured = True
    try:
        figures = {row["id"]: row for row in _figures(cluster)}
    except DriverError as error:
        if not error.retryable:
            raise
        measured, figures = False, {}
    tree = cluster.command("osd tree")
    hosts = {
        child: node["name"] for node in tree["nodes"] if node["type"] == "host" for child in node.get("children", ())
    }
    places = {row["id"]: row for row in cluster.command("osd metadata")}
    rows = (
        _row(osd, figures.get(osd["osd"], {}), places.get(osd["osd"], {}), hosts.get(osd["osd"], ""))
        for osd in dump["osds"]
    )
    return OsdList(
        fsid=dump["fsid"],
        osds=tuple(sorted(rows, key=lambda row: row.id)),
        flags=_flags(dump["flags"].split(",")),
        measured=measured,
        copies=max([pool["size"] for pool in dump["pools"]] or [_default_copies(cluster)]),
    )


def create(cluster: Cluster, fsid: str, key: str, device_class: str, id: int | None) -> int:
    """Let the monitors know an OSD, and return its id; ``id``: one that was destroyed.  The same once more is success."""
    secrets = {"cephx_secret": key} | ({"crush_device_class": device_class} if device_class else {})
    wanted = {} if id is None else {"id": id}
    answer = cluster.command("osd new", json.dumps(secrets).encode(), uuid=fsid, **wanted)
    return int(answer["osdid"])


def place(cluster: Cluster, id: int, weight: float, host: str) -> None:
    """Give an OSD that was never up its weight and its place: its daemon leaves what it finds."""
    cluster.command("osd crush add", id=id, weight=weight, args=[f"root={_ROOT}", f"host={host}"])


def reweight(cluster: Cluster, id: int, weight: float) -> None:
    """Change an OSD's weight in CRUSH's map, and so that of its host."""
    cluster.command("osd crush reweight", name=f"osd.{id}", weight=weight)


def take_in(cluster: Cluster, ids: list[int]) -> None:
    """Let data be placed on OSDs."""
    cluster.command("osd in", ids=[str(id) for id in ids])


def put_out(cluster: Cluster, ids: list[int]) -> None:
    """Let no data be placed on OSDs: what is there moves away."""
    cluster.command("osd out", ids=[str(id) for id in ids])


def safety(cluster: Cluster, id: int) -> Safety:
    """Return whether an OSD's data can be destroyed without the loss of a copy of anything."""
    answer, why = cluster.judgement("osd safe-to-destroy", ids=[str(id)])
    safe = not why and bool(answer) and id in answer["safe_to_destroy"]
    pgs = next((int(row["pgs"]) for row in _figures(cluster) if row["id"] == id), 0)
    if not safe and not why:
        why = "the manager has no figures of it yet" if not pgs else f"{pgs} placement groups rest on it"
    return Safety(safe=safe, pgs=pgs, why=why)


def stoppable(cluster: Cluster, id: int) -> str:
    """Return why an OSD's daemon must not be stopped now, empty when it may be."""
    return cluster.judgement("osd ok-to-stop", ids=[str(id)])[1]


def mark_down(cluster: Cluster, id: int) -> None:
    """Take an OSD whose daemon has ended for down at once."""
    cluster.command("osd down", ids=[str(id)])


def destroy(cluster: Cluster, id: int, force: bool) -> None:
    """Let an OSD that is down never come back, and keep its id; ``force``: whatever is lost by it."""
    cluster.mgr_command("osd destroy", id=id, yes_i_really_mean_it=True, **({"force": True} if force else {}))


def purge(cluster: Cluster, id: int, force: bool) -> None:
    """Remove all that the monitors know of an OSD that is down; one that they do not know is success."""
    try:
        cluster.mgr_command("osd purge", id=id, yes_i_really_mean_it=True, **({"force": True} if force else {}))
    except ObjectMissing:
        return


def purge_new(cluster: Cluster, id: int) -> None:
    """The same, of an OSD that was never up: the monitors refuse it for any other."""
    try:
        cluster.command("osd purge-new", id=id, yes_i_really_mean_it=True)
    except ObjectMissing:
        return


def key(cluster: Cluster, id: int) -> str:
    """Return the key of an OSD's daemon."""
    (found,) = cluster.command("auth get", entity=f"osd.{id}")
    return str(found["key"])


def bootstrap_key(cluster: Cluster) -> str:
    """Return the key with which ``ceph-volume`` makes OSDs, made if need be."""
    (found,) = cluster.command("auth get-or-create", entity=_BOOTSTRAP, caps=["mon", "allow profile bootstrap-osd"])
    return str(found["key"])


def flag(cluster: Cluster, name: str, wanted: bool, ids: list[int]) -> None:
    """Set or unset a flag of the whole cluster, or of single OSDs."""
    verb = "set" if wanted else "unset"
    if ids:
        cluster.command(f"osd {verb}-group", flags=name, who=[f"osd.{id}" for id in ids])
    else:
        cluster.command(f"osd {verb}", key=name)


def _figures(cluster: Cluster) -> list[dict[str, Any]]:
    answer = cluster.mgr_command("osd df")
    return [*answer["nodes"], *answer["stray"]]


def _default_copies(cluster: Cluster) -> int:
    return int(cluster.command("config get", who="osd", key="osd_pool_default_size"))


def _row(osd: dict[str, Any], figures: dict[str, Any], place: dict[str, Any], host: str) -> OsdRow:
    state = next((word for word in (DESTROYED, NEW) if word in osd["state"]), "")
    db = place.get("bluefs_db_devices", "") if place.get("bluefs_dedicated_db") == "1" else ""
    return OsdRow(
        id=osd["osd"],
        fsid="" if state == DESTROYED else osd["uuid"],
        node=host or place.get("hostname", ""),
        # "devices" would name the disk of the metadata too.
        device=_paths(place.get("bluestore_bdev_devices", "")),
        db=_paths(db),
        device_class=figures.get("device_class", ""),
        size_bytes=figures.get("kb", 0) * _KIB,
        disk_bytes=int(place.get("bluestore_bdev_size", 0)),
        used_bytes=figures.get("kb_used", 0) * _KIB,
        used_percent=round(figures.get("utilization", 0.0), 2),
        weight=round(figures.get("crush_weight", 0.0), 5),
        reweight=round(osd["weight"], 5),
        up=bool(osd["up"]),
        inside=bool(osd["in"]),
        pgs=figures.get("pgs", 0),
        state=state,
        flags=_flags(osd["state"]),
    )


def _paths(names: str) -> str:
    return ",".join(f"/dev/{name}" for name in names.split(",") if name)


def _flags(words: list[str]) -> tuple[str, ...]:
    found = set(words)
    if found >= _PAUSED:
        found.add("pause")
    return tuple(sorted(found.intersection(CLUSTER_FLAGS)))
