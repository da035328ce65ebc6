"""Pools: made with their CRUSH rule, marked as PVC's, measured, deleted."""

import time
from collections.abc import Iterable
from typing import Any, Final

from pvc_ceph.parameters import PoolParameters
from pvc_ceph.worker import deletion, names
from pvc_ceph.worker.ceph import RBD, Cluster, ceph_errors, make_object
from pvc_core.model.storage import PoolUsage
from pvc_core.plugin import DriverError, NotReady, ObjectBusy, ObjectExists, ObjectMissing

_APPLICATION: Final = "rbd"
_TRASH: Final = "rbd_trash"
_MARK: Final = "pvc"
"""Key in the metadata of the application ``rbd`` of a pool: the id of PVC's pool."""
_MEASURED_S: Final = 15.0
_PAUSE_S: Final = 0.1
_ROOT: Final = "default"
_RULE: Final = "pvc-"
"""Begins the names of CRUSH rules that are made here."""
_FIRST_PGS: Final = 32
"""Ceph's own default; its autoscaler goes on from there."""


def problems(cluster: Cluster) -> list[str]:
    """Return what the monitors say is wrong, worst first."""
    health = cluster.command("health", detail="detail")
    checks = sorted(health["checks"].items(), key=lambda check: check[1]["severity"])
    return [f"{name}: {check['summary']['message']}" for name, check in checks]


def preflight(cluster: Cluster) -> list[str]:
    """Check that the cluster can be used; return the names of rights that the key lacks."""
    cluster.command("fsid")
    missing = []
    try:
        # Nobody is blocked there: TEST-NET-1 of RFC 5737.
        cluster.command("osd blocklist", blocklistop="rm", addr="192.0.2.1:0/0")
    except DriverError:
        missing.append("osd blocklist")
    return missing


def ensure(cluster: Cluster, pool: PoolParameters) -> None:
    """Create a pool, or check the one that is there; make the leftovers of killed calls go away."""
    found = _find(cluster, pool.pool)
    if found is None:
        if pool.adopt:
            raise NotReady(f"pool {pool.name}: Ceph has no pool {pool.pool!r} to adopt")
        _create(cluster, pool)
    else:
        _check(pool, found)
    _mark(cluster, pool, found)
    ioctx = cluster.pool(pool.pool)
    with ceph_errors(f"pool {pool.name}"):
        if not pool.adopt:
            deletion.restore(cluster)
            _adjust(cluster, pool, found or _find(cluster, pool.pool))
            # It asks for rights to change pools, which an adopted one does not need: librbd makes up for it.
            RBD().pool_init(ioctx, force=False)
        # librbd passes each image that is removed through its trash, whose object it could not make any more in a pool
        # that is full: nothing could ever be removed there.
        make_object(ioctx, _TRASH)
    names.clear_leftovers(cluster, pool.pool)
    _wait_until_measured(cluster, pool.pool)


def delete(cluster: Cluster, pool: PoolParameters) -> None:
    """Delete an empty pool; one that is not there, or is another's, is success."""
    found = _find(cluster, pool.pool)
    if found is None or owner_of(found) not in ("", pool.id):
        return
    if owner_of(found) == "" and not pool.adopt:
        return
    ioctx = cluster.pool(pool.pool)
    with ceph_errors(f"pool {pool.name}"):
        volumes = names.volumes(cluster, pool.pool)
        trash = [image["name"] for image in RBD().trash_list(ioctx)]
    if volumes and not pool.adopt:
        raise ObjectBusy(f"pool {pool.name} holds {len(volumes)} volumes, such as {volumes[0]}")
    if trash and not pool.adopt:
        raise ObjectBusy(
            f"pool {pool.name} has {len(trash)} images in its RBD trash; empty it: rbd trash purge {pool.pool}"
        )
    if pool.adopt:
        _unmark(cluster, pool)
        return
    _delete(cluster, pool)


def usage(cluster: Cluster, pool: PoolParameters) -> PoolUsage:
    """Return a pool's bytes, as guests could use them: after copies, and until the fullest disk is full."""
    found = _find(cluster, pool.pool)
    if found is None:
        raise ObjectMissing(f"pool {pool.name}: Ceph has no pool {pool.pool!r} any more")
    if owner_of(found) not in ("", pool.id):
        raise NotReady(f"pool {pool.name}: {_foreign(pool, owner_of(found))}")
    stats = _stats(cluster, pool.pool)
    if stats is None:
        raise NotReady(f"pool {pool.name}: Ceph's manager has not measured it yet")
    used, free = int(stats["stored"]), int(stats["max_avail"])
    return PoolUsage(total_bytes=used + free, used_bytes=used, free_bytes=free)


def marked(cluster: Cluster) -> dict[str, str]:
    """Return the names of Ceph's pools that are PVC's, by the id of PVC's pool."""
    pools = cluster.command("osd pool ls", detail="detail")
    return {found: pool["pool_name"] for pool in pools if (found := owner_of(pool))}


def _stats(cluster: Cluster, name: str) -> dict[str, Any] | None:
    return next((pool["stats"] for pool in cluster.command("df")["pools"] if pool["name"] == name), None)


def _wait_until_measured(cluster: Cluster, name: str) -> None:
    """Give the manager the moment that it needs to know a new pool; whether it does is seen when it is asked."""
    deadline = time.monotonic() + _MEASURED_S
    while _stats(cluster, name) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


def _find(cluster: Cluster, name: str) -> dict[str, Any] | None:
    pools: Iterable[dict[str, Any]] = cluster.command("osd pool ls", detail="detail")
    return next((pool for pool in pools if pool["pool_name"] == name), None)


def owner_of(found: dict[str, Any]) -> str:
    """Return the id of PVC's pool that a pool in Ceph belongs to."""
    return str(found["application_metadata"].get(_APPLICATION, {}).get(_MARK, ""))


def _foreign(pool: PoolParameters, owner: str) -> str:
    return (
        f"Ceph's pool {pool.pool!r} belongs to another pool of PVC ({owner}); give this one another name: -p pool=NAME"
    )


def _check(pool: PoolParameters, found: dict[str, Any]) -> None:
    owner = owner_of(found)
    if owner not in ("", pool.id):
        raise ObjectExists(f"pool {pool.name}: {_foreign(pool, owner)}")
    if not owner and not pool.adopt and found["application_metadata"]:
        raise ObjectExists(
            f"pool {pool.name}: Ceph has a pool {pool.pool!r} already, used for "
            f"{', '.join(found['application_metadata'])}; to use it as it is: -p adopt=true"
        )
    if found["type"] != 1:
        raise DriverError(f"pool {pool.name}: Ceph's pool {pool.pool!r} is not replicated", retryable=False)
    if owner and not pool.adopt and (found["size"], found["min_size"]) != (pool.copies, pool.mincopies):
        raise DriverError(
            f"pool {pool.name}: copies cannot be changed here: Ceph has {found['size']} copies, of which {found['min_size']} "
            f"must be written, and {pool.copies} and {pool.mincopies} are wanted; change both with ceph osd pool set "
            f"{pool.pool} size and min_size, or set the parameters back",
            retryable=False,
        )


def _create(cluster: Cluster, pool: PoolParameters) -> None:
    rule = _rule(cluster, pool)
    cluster.command(
        "osd pool create",
        pool=pool.pool,
        pool_type="replicated",
        rule=rule,
        size=pool.copies,
        pg_num=pool.pgs or _FIRST_PGS,
        autoscale_mode=pool.autoscale,
    )


def _mark(cluster: Cluster, pool: PoolParameters, found: dict[str, Any] | None) -> None:
    """Bring what follows the creation about, also after a death in between; the mark comes last."""
    if found is not None and owner_of(found) == pool.id:
        return
    if not pool.adopt:
        if pool.copies == 1:
            cluster.command("osd pool set", pool=pool.pool, var="size", val="1", yes_i_really_mean_it=True)
        cluster.command("osd pool set", pool=pool.pool, var="min_size", val=str(pool.mincopies))
    if found is None or _APPLICATION not in found["application_metadata"]:
        cluster.command("osd pool application enable", pool=pool.pool, app=_APPLICATION)
    cluster.command("osd pool application set", pool=pool.pool, app=_APPLICATION, key=_MARK, value=pool.id)


def _adjust(cluster: Cluster, pool: PoolParameters, found: dict[str, Any] | None) -> None:
    """Bring what can be changed in a pool of ours to its parameters."""
    if found is None:
        return  # deleted meanwhile
    rules = {each["rule_id"]: each["rule_name"] for each in cluster.command("osd crush rule dump")}
    rule = rules.get(found["crush_rule"], "")
    changes: dict[str, tuple[object, object]] = {
        # Nobody deletes it by mistake with Ceph's own tools.
        "nodelete": ("nodelete" in found["flags_names"].split(","), True),
        "pg_autoscale_mode": (found["pg_autoscale_mode"], pool.autoscale),
    }
    if pool.pgs and pool.autoscale != "on":
        changes["pg_num"] = found["pg_num_target"], pool.pgs
    if rule.startswith(_RULE) and rule != _rule_name(pool):  # one that an operator made stays
        changes["crush_rule"] = rule, _rule(cluster, pool)
    for name, (now, wanted) in changes.items():
        if now != wanted:
            cluster.command("osd pool set", pool=pool.pool, var=name, val=str(wanted).lower())


def _unmark(cluster: Cluster, pool: PoolParameters) -> None:
    cluster.command("osd pool application rm", pool=pool.pool, app=_APPLICATION, key=_MARK)


def _rule(cluster: Cluster, pool: PoolParameters) -> str:
    """Return the name of the CRUSH rule: every copy on another host, on devices of the tier."""
    if pool.tier:
        classes = cluster.command("osd crush class ls")
        if pool.tier not in classes:
            known = ", ".join(sorted(classes)) or "none"
            raise NotReady(f"pool {pool.name}: no OSD is of tier {pool.tier!r}; there are: {known}")
    name = _rule_name(pool)
    device_class = {"class": pool.tier} if pool.tier else {}
    cluster.command("osd crush rule create-replicated", name=name, root=_ROOT, type="host", **device_class)
    return name


def _rule_name(pool: PoolParameters) -> str:
    return f"{_RULE}{pool.tier or 'all'}"


def _delete(cluster: Cluster, pool: PoolParameters) -> None:
    """Delete it for good: Ceph wants to be told in four ways."""
    cluster.command("osd pool set", pool=pool.pool, var="nodelete", val="false")
    try:
        with deletion.allowed(cluster):
            cluster.command("osd pool delete", pool=pool.pool, pool2=pool.pool, yes_i_really_really_mean_it=True)
    finally:
        cluster.forget_pool(pool.pool)
