"""What the cluster says of itself, put together from the answers of its monitors."""

from typing import Any

from pvc_ceph.report import (
    Check,
    ClassUse,
    Daemon,
    HostUse,
    NodeReport,
    OsdCounts,
    PoolUse,
    Severity,
    Status,
    Traffic,
    Use,
)
from pvc_ceph.worker.ceph import Cluster
from pvc_ceph.worker.pools import owner_of


def status(cluster: Cluster) -> Status:
    """Return how the cluster is."""
    told, health = cluster.command("status"), cluster.command("health", detail="detail")
    groups, osds = told["pgmap"], told["osdmap"]
    return Status(
        fsid=told["fsid"],
        severity=Severity(health["status"]),
        checks=tuple(_checks(health)),
        monitors=tuple(_monitors(cluster)),
        managers=tuple(_managers(cluster)),
        osds=OsdCounts(total=osds["num_osds"], up=osds["num_up_osds"], in_=osds["num_in_osds"]),
        flags=_flags(cluster),
        groups={each["state_name"]: each["count"] for each in groups.get("pgs_by_state", ())},
        total_bytes=groups.get("bytes_total", 0),
        used_bytes=groups.get("bytes_used", 0),
        traffic=Traffic(
            read_bytes=groups.get("read_bytes_sec", 0),
            write_bytes=groups.get("write_bytes_sec", 0),
            reads=groups.get("read_op_per_sec", 0),
            writes=groups.get("write_op_per_sec", 0),
            recovered_bytes=groups.get("recovering_bytes_per_sec", 0),
        ),
    )


def node(cluster: Cluster, host: str) -> NodeReport:
    """Return how the cluster is, and which OSDs of a host are down."""
    tree = cluster.command("osd tree")["nodes"]
    own = {child for each in tree if each["type"] == "host" and each["name"] == host for child in each["children"]}
    down = tuple(each["name"] for each in tree if each["id"] in own and each.get("status") == "down")
    return NodeReport(status=status(cluster), down=down)


def use(cluster: Cluster) -> Use:
    """Return where the space is."""
    told, tree = cluster.command("df", detail="detail"), cluster.command("osd df", output_method="tree")
    stats = {pool["name"]: pool["stats"] for pool in told["pools"]}
    return Use(
        total_bytes=told["stats"]["total_bytes"],
        used_bytes=told["stats"]["total_used_raw_bytes"],
        classes=tuple(
            ClassUse(name=name, total_bytes=each["total_bytes"], used_bytes=each["total_used_raw_bytes"])
            for name, each in sorted(told["stats_by_class"].items())
        ),
        hosts=tuple(_hosts(tree["nodes"])),
        pools=tuple(
            _pool(pool, stats.get(pool["pool_name"], {})) for pool in cluster.command("osd pool ls", detail="detail")
        ),
    )


def _checks(health: dict[str, Any]) -> list[Check]:
    found = [
        Check(
            code=code,
            severity=Severity(check["severity"]),
            message=check["summary"]["message"],
            muted=bool(check.get("muted")),
        )
        for code, check in health["checks"].items()
    ]
    return sorted(found, key=lambda check: (check.muted, check.severity is not Severity.ERROR, check.code))


def _monitors(cluster: Cluster) -> list[Daemon]:
    quorum = cluster.command("quorum_status")
    metadata = {each["name"]: each for each in cluster.command("mon metadata")}
    return [
        Daemon(
            name=mon["name"],
            host=metadata.get(mon["name"], {}).get("hostname", ""),
            address=mon["public_addr"].partition("/")[0],
            state="leader"
            if mon["name"] == quorum["quorum_leader_name"]
            else "in quorum"
            if mon["name"] in quorum["quorum_names"]
            else "out of quorum",
            version=metadata.get(mon["name"], {}).get("ceph_version_short", ""),
        )
        for mon in quorum["monmap"]["mons"]
    ]


def _managers(cluster: Cluster) -> list[Daemon]:
    told = cluster.command("mgr dump")
    metadata = {each["name"]: each for each in cluster.command("mgr metadata")}
    states = {told["active_name"]: "active"} if told["available"] else {}
    states |= {standby["name"]: "standby" for standby in told["standbys"]}
    return [
        Daemon(
            name=name,
            host=metadata.get(name, {}).get("hostname", ""),
            address=metadata.get(name, {}).get("addr", ""),
            state=state,
            version=metadata.get(name, {}).get("ceph_version_short", ""),
        )
        for name, state in sorted(states.items())
    ]


def _flags(cluster: Cluster) -> tuple[str, ...]:
    # What every cluster has is not worth telling.
    usual = {"sortbitwise", "recovery_deletes", "purged_snapdirs", "pglog_hardlimit"}
    return tuple(sorted({*cluster.command("osd dump")["flags_set"]} - usual))


def _hosts(nodes: list[dict[str, Any]]) -> list[HostUse]:
    osds = {node["id"]: node for node in nodes if node["type"] == "osd"}
    found = []
    for host in nodes:
        if host["type"] == "host":
            own = [osds[child] for child in host["children"] if child in osds]
            found.append(
                HostUse(
                    name=host["name"],
                    osds=len(own),
                    up=sum(osd["status"] == "up" for osd in own),
                    total_bytes=host["kb"] * 1024,
                    used_bytes=host["kb_used"] * 1024,
                )
            )
    return sorted(found, key=lambda host: host.name)


def _pool(pool: dict[str, Any], stats: dict[str, Any]) -> PoolUse:
    return PoolUse(
        name=pool["pool_name"],
        pvc=owner_of(pool),
        copies=pool["size"],
        mincopies=pool["min_size"],
        groups=pool["pg_num"],
        objects=stats.get("objects", 0),
        stored_bytes=stats.get("stored", 0),
        raw_bytes=stats.get("bytes_used", 0),
        free_bytes=stats.get("max_avail", 0),
    )
