"""Keeping a lost node from writing, with a proof, and letting it in again.

A node is blocked by the addresses under which Ceph knows it, which blocks all its clients, present and future, and no
OSD, monitor or manager.  Its own report of them, made while it was healthy, is kept here too: an address that two nodes
have in common is never blocked.

That the monitors have blocked an address is not enough: an OSD that has not heard of it yet still takes writes.  So every
placement group of the pools is asked for something by a client that knows the new map; a group answers such a client
only when it knows that map itself, and refuses what blocked clients ask from then on.

What was asked for is remembered with the lease's generation (the *epoch*), replaced by compare-and-set: a call that comes late
finds a later one there, and changes nothing.
"""

import socket
import time
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from pvc_ceph.blocked import Blocked
from pvc_ceph.worker import clients, disks
from pvc_ceph.worker.ceph import Cluster, Image, ceph_errors, read_omap, read_omap_key, write_omap
from pvc_ceph.worker.placement import one_in_each
from pvc_core.plugin import BlockResult, DriverError, NotReady, ObjectMissing

_NODES: Final = "pvc.nodes"
_FENCES: Final = "pvc.fences"
_APPLICATION: Final = "pvc"
_LOOK_S: Final = 0.02


class Fence(msgspec.Struct, frozen=True, kw_only=True):
    """What was last asked for a node."""

    epoch: int
    open: bool
    addresses: tuple[str, ...]


_NODE: Final = msgspec.json.Decoder(tuple[str, ...])
_FENCE: Final = msgspec.json.Decoder(Fence)


def identity(cluster: Cluster) -> dict[str, str]:
    """Return under which addresses Ceph knows all clients of this node, and remember it.  Raises NotReady, DriverError."""
    ensure_state_pool(cluster)
    seen = clients.own_addresses(cluster)
    used = _source_addresses(cluster)
    if not seen <= used:
        raise DriverError(
            f"Ceph knows this node as {_listed(seen)}, but its own addresses towards Ceph are {_listed(used)}: behind an "
            "address translation it cannot be told from others",
            retryable=False,
        )
    _remember(cluster, cluster.settings.node, used)
    shut = sorted(clients.blocked(cluster).intersection(map(clients.host, used)))
    if shut:
        raise NotReady(
            f"Ceph has blocked this node's address {', '.join(shut)}; PVC opens it when the node is back and clean; by "
            f"hand: pvc storage unblock {cluster.settings.node}"
        )
    return {"fsid": cluster.connection.get_fsid(), "addresses": ",".join(sorted(used))}


def block(
    cluster: Cluster,
    node: str,
    identity: dict[str, str],
    volumes: list[tuple[str, str]],
    epoch: int,
    seconds: float,
) -> BlockResult:
    """Keep all clients of a node from writing, and confirm it within ``seconds``; ``volumes`` are (Ceph's pool, name)."""
    deadline = time.monotonic() + seconds
    addresses = _addresses(cluster, node, identity)
    wanted = Fence(epoch=epoch, open=False, addresses=addresses)
    if refused := _record(cluster, node, wanted):
        return BlockResult(blocked=False, evidence=refused)
    pools = sorted({pool for pool, _ in volumes})
    hosts = [clients.host(address) for address in addresses]
    clients.block(cluster, hosts, clients.HOST_S)
    silent = _silent(cluster, pools, deadline)
    if _recorded(cluster, node) != wanted:
        _settle(cluster, node)
        return BlockResult(blocked=False, evidence=f"node {node} was opened, or lost again, meanwhile")
    missing = sorted({*hosts} - clients.blocked(cluster))
    if missing:
        return BlockResult(blocked=False, evidence=f"Ceph does not list {', '.join(missing)} as blocked")
    if silent:
        return BlockResult(
            blocked=False,
            evidence=f"{', '.join(hosts)} is blocked, but {', '.join(silent)} have not confirmed that they know it",
        )
    _end_clients(cluster, volumes, frozenset(addresses))
    return BlockResult(
        blocked=True,
        evidence=f"Ceph has blocked {', '.join(hosts)}, and every placement group of {', '.join(pools)} knows it",
    )


def unblock(cluster: Cluster, node: str, identity: dict[str, str], epoch: int) -> None:
    """Let a node write again, unless it was blocked since with a later epoch."""
    addresses = _reported(identity)
    before = _recorded(cluster, node)
    if _record(cluster, node, Fence(epoch=epoch, open=True, addresses=addresses)):
        return
    every = {*addresses, *(before.addresses if before else ())}
    clients.unblock(cluster, map(clients.host, sorted(every)))
    _settle(cluster, node)


def listed(cluster: Cluster) -> list[Blocked]:
    """Return all that Ceph refuses, with the node that each address is of."""
    ensure_state_pool(cluster)
    nodes = {address: node for node, addresses in _nodes(cluster).items() for address in addresses}
    found = []
    for entry in cluster.command("osd blocklist ls"):
        node = nodes.get(clients.ip(entry["addr"]), "")
        now = _recorded(cluster, node) if node else None
        closed = now is not None and not now.open and entry["addr"] in map(clients.host, now.addresses)
        found.append(
            Blocked(address=entry["addr"], until=entry["until"], node=node, lease=now.epoch if now and closed else 0)
        )
    return sorted(found, key=lambda each: (each.node, each.address))


def release(cluster: Cluster, node: str, force: bool) -> list[str]:
    """Let all clients of a node in again; return what was refused.  Raises DriverError while it is kept closed."""
    ensure_state_pool(cluster)
    nodes = _nodes(cluster)
    addresses = nodes.get(node)
    if addresses is None:
        known = _listed(nodes)
        raise DriverError(
            f"no node {node!r} has ever reached this Ceph cluster; those that have: {known}", retryable=False
        )
    now = _recorded(cluster, node)
    if now is not None and not now.open:
        if not force:
            raise DriverError(
                f"node {node} is kept from writing since it lost lease {now.epoch}: it is let in when it is back and has ended "
                "what it ran; its VMs may run elsewhere",
                retryable=False,
            )
        _record(cluster, node, replace(now, open=True))
    shut = sorted(each for each in clients.blocked(cluster) if clients.ip(each) in addresses)
    clients.unblock(cluster, shut)
    return shut


def ensure_state_pool(cluster: Cluster) -> None:
    """Make the pool for what is remembered of nodes, when there is none."""
    name = cluster.settings.state_pool
    try:
        cluster.pool(name)
    except ObjectMissing:
        cluster.command("osd pool create", pool=name, pool_type="replicated", pg_num=1, autoscale_mode="off")
        cluster.command("osd pool application enable", pool=name, app=_APPLICATION)
        cluster.connection.wait_for_latest_osdmap()


def _source_addresses(cluster: Cluster) -> frozenset[str]:
    """Return the addresses that this node has towards monitors and OSDs: the kernel chooses one for each of them."""
    mons = cluster.command("mon dump")["mons"]
    osds = cluster.command("osd dump")["osds"]
    vectors = [entry["public_addrs"]["addrvec"] for entry in (*mons, *osds)]
    there = {address["addr"].rpartition(":")[0].strip("[]") for vector in vectors for address in vector}
    return frozenset(source for address in there if (source := _source(address)))


def _source(address: str) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 1))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0]).partition("%")[0]


def _addresses(cluster: Cluster, node: str, identity: dict[str, str]) -> tuple[str, ...]:
    """Return the addresses to block; raise DriverError rather than block anybody else."""
    fsid = cluster.connection.get_fsid()
    if identity.get("fsid") != fsid:
        raise DriverError(
            f"node {node} reported the Ceph cluster {identity.get('fsid') or 'none'}; this one is {fsid}",
            retryable=False,
        )
    addresses = _reported(identity)
    if not addresses:
        raise DriverError(f"node {node} did not report under which address Ceph knows it", retryable=False)
    ours = clients.own_addresses(cluster) | _source_addresses(cluster)
    if shared := ours.intersection(addresses):
        raise DriverError(f"{_listed(shared)}, which node {node} reported, is our own address", retryable=False)
    for other, theirs in _nodes(cluster).items():
        if other != node and (shared := theirs.intersection(addresses)):
            raise DriverError(
                f"node {other} has the address {_listed(shared)} of node {node} too: every node needs one of its own towards "
                "Ceph",
                retryable=False,
            )
    return addresses


def _reported(identity: dict[str, str]) -> tuple[str, ...]:
    return tuple(sorted(filter(None, identity.get("addresses", "").split(","))))


def _nodes(cluster: Cluster) -> dict[str, frozenset[str]]:
    with ceph_errors("what PVC remembers of its nodes"):
        found = read_omap(cluster.pool(cluster.settings.state_pool), _NODES)
    return {node: frozenset(_NODE.decode(body)) for node, body in found.items()}


def _remember(cluster: Cluster, node: str, addresses: frozenset[str]) -> None:
    ioctx = cluster.pool(cluster.settings.state_pool)
    new = msgspec.json.encode(sorted(addresses))
    with ceph_errors("what PVC remembers of its nodes"):
        while (old := read_omap_key(ioctx, _NODES, node)) != new:
            write_omap(ioctx, _NODES, node, old, new)


def _recorded(cluster: Cluster, node: str) -> Fence | None:
    with ceph_errors("what PVC remembers of lost nodes"):
        body = read_omap_key(cluster.pool(cluster.settings.state_pool), _FENCES, node)
    return _FENCE.decode(body) if body else None


def _record(cluster: Cluster, node: str, wanted: Fence) -> str:
    """Write what is asked for; return why it is not to be done any more, or an empty string."""
    ioctx = cluster.pool(cluster.settings.state_pool)
    with ceph_errors("what PVC remembers of lost nodes"):
        while True:
            body = read_omap_key(ioctx, _FENCES, node)
            now = _FENCE.decode(body) if body else None
            if now is not None and now.epoch > wanted.epoch:
                return f"node {node} was lost again since (lease {now.epoch}, this is about {wanted.epoch})"
            if now is not None and now.epoch == wanted.epoch and now.open and not wanted.open:
                return f"node {node} is back since it lost lease {wanted.epoch}, and storage was opened to it"
            if now == wanted or write_omap(ioctx, _FENCES, node, body, msgspec.json.encode(wanted)):
                return ""


def _settle(cluster: Cluster, node: str) -> None:
    """Bring the monitors' list to what is recorded: another call may have come between our record and our command."""
    while True:
        now = _recorded(cluster, node)
        if now is None:
            return
        hosts = [clients.host(address) for address in now.addresses]
        listed = clients.blocked(cluster)
        if now.open and listed.intersection(hosts):
            clients.unblock(cluster, hosts)
        elif not now.open and not listed.issuperset(hosts):
            clients.block(cluster, hosts, clients.HOST_S)
        if _recorded(cluster, node) == now:
            return


def _silent(cluster: Cluster, pools: Iterable[str], deadline: float) -> list[str]:
    """Ask every placement group of these pools for something; return how many of which have not answered in time."""
    details: list[dict[str, Any]] = cluster.command("osd pool ls", detail="detail")
    groups = {each["pool_name"]: int(each["pg_num"]) for each in details}
    waiting = {
        pool: [cluster.pool(pool).aio_stat(name, _nothing) for name in one_in_each(groups[pool])]
        for pool in pools
        if pool in groups
    }
    while any(waiting.values()) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
        waiting = {pool: [each for each in asked if not each.is_complete()] for pool, asked in waiting.items()}
    return [
        f"{len(asked)} of {groups[pool]} placement groups of pool {pool}" for pool, asked in waiting.items() if asked
    ]


def _nothing(*_: Any) -> None:
    """Be told that a request was answered."""


def _end_clients(cluster: Cluster, volumes: Iterable[tuple[str, str]], addresses: frozenset[str]) -> None:
    """Block the clients that write to the volumes one by one too, and break their locks; it is no part of the proof.

    They stay blocked when their node is opened again, and those who take the volumes over need not wait for their locks.
    """
    for pool, name in volumes:
        try:
            with ceph_errors(name), Image(cluster.pool(pool), name) as image:
                left = {each["owner"] for each in image.lock_get_owners() if clients.ip(each["owner"]) in addresses}
                clients.block(cluster, left, clients.INSTANCE_S)
                disks.break_locks(image, left)
        except ObjectMissing:
            continue


def _listed(addresses: Iterable[str]) -> str:
    return ", ".join(sorted(addresses)) or "none"
