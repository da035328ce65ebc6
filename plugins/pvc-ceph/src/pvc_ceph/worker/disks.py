"""Volumes as disks of VMs: who holds them, and with which key QEMU opens them."""

import configparser

from pvc_ceph.worker import clients, holdings, snapshots, watchers
from pvc_ceph.worker.ceph import EXCLUSIVE, RBD, Cluster, Image, ceph_errors
from pvc_ceph.worker.pools import marked
from pvc_ceph.worker.volumes import opened, what
from pvc_core.plugin import Attachment, AuthFailed, ObjectBusy, ObjectMissing
from pvc_core.plugin.holding import Holder, Holding, attached, detached, flushed


def attach(cluster: Cluster, pool: str, name: str, holder: Holder) -> None:
    """Note who holds a volume; end what other nodes' clients still have of it, unless they are to have it."""
    new = False

    def take(now: Holding) -> Holding:
        nonlocal new
        new = holder not in now.holders
        return attached(now, name, holder)

    with opened(cluster, pool, name, read_only=True) as image:
        held = holdings.change(cluster, pool, image.id(), take)
        if new:
            _check_whole(cluster, pool, name, image, holder)
        if held.holders == (holder,) and not holder.incoming:
            _end_others(cluster, pool, name, image)


def _check_whole(cluster: Cluster, pool: str, name: str, image: Image, holder: Holder) -> None:
    """Take a holder back, and raise ObjectBusy, when the contents of the volume are half those of a snapshot."""
    snapshot = snapshots.rolled_back_to(image)
    if snapshot:
        holdings.change(cluster, pool, image.id(), lambda now: detached(now, holder.vm, holder.node))
        raise ObjectBusy(
            f"{what(pool, name)} is being rolled back to snapshot {snapshot!r}, or was, but not to its end: wait for that, or "
            "repeat it"
        )


def detach(cluster: Cluster, pool: str, name: str, vm: str, node: str) -> None:
    """Note that a node does not hold a volume any more; one that is gone is success.

    When nobody holds it, no guest here has it open: a client at our address is an emulator that was killed, for whose watch
    the next writer would wait for half a minute.
    """
    ours = clients.own_addresses(cluster)
    try:
        with opened(cluster, pool, name, read_only=True) as image:
            held = holdings.change(cluster, pool, image.id(), lambda now: detached(now, vm, node))
            if not held.holders:
                _end(
                    cluster, pool, name, image, [each for each in watchers.addresses(image) if clients.ip(each) in ours]
                )
    except ObjectMissing:
        return


def flush(cluster: Cluster, pool: str, name: str, vm: str, epoch: int) -> list[str]:
    """Break what still holds a volume for a VM that runs nowhere: its holders, its clients, its lock."""
    with opened(cluster, pool, name, read_only=True) as image:
        # Those that are there before the holders are taken away cannot be of a guest that is attached after it.
        left = sorted(watchers.addresses(image))
        before = holdings.get(cluster, pool, image.id())
        holdings.change(cluster, pool, image.id(), lambda now: flushed(now, name, vm, epoch))
        _end(cluster, pool, name, image, left)
    return [f"node {holder.node} held volume {name!r}" for holder in before.holders] + [
        f"client {address} had volume {name!r} open" for address in left
    ]


def attachments(cluster: Cluster, node: str) -> list[Attachment]:
    """Return all volumes that a node holds, of all pools that are PVC's: two requests for each pool."""
    found = []
    for id_, pool in marked(cluster).items():
        held = {
            image: holder.vm
            for image, holding in holdings.every(cluster, pool).items()
            for holder in holding.holders
            if holder.node == node
        }
        if held:
            with ceph_errors(f"Ceph's pool {pool}"):
                names = {each["id"]: each["name"] for each in RBD().list2(cluster.pool(pool))}
            found += [Attachment(pool=id_, volume=names[image], vm=vm) for image, vm in held.items() if image in names]
    return found


def vm_key(cluster: Cluster, vm_user: str) -> dict[str, str]:
    """Return the key with which QEMU opens volumes, and the cluster that it is for."""
    fsid = cluster.connection.get_fsid()
    if vm_user == cluster.settings.user:
        return {"fsid": fsid, "key": _own_key(cluster)}
    who = f"client.{vm_user}"
    caps = ["mon", "profile rbd", "osd", "profile rbd"]
    found = cluster.command("auth get-or-create", entity=who, caps=caps)
    return {"fsid": fsid, "key": str(found[0]["key"])}


def _own_key(cluster: Cluster) -> str:
    """Return our own key, from the keyring: asking the monitors for it takes more rights than VMs need."""
    who = f"client.{cluster.settings.user}"
    files = (cluster.connection.conf_get("keyring") or "").split(",")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    for file in files:
        parser.read(file.strip())
        if parser.has_option(who, "key"):
            return parser.get(who, "key")
    raise AuthFailed(f"there is no key of {who} in {', '.join(files)}")


def _end_others(cluster: Cluster, pool: str, name: str, image: Image) -> None:
    """Keep clients at other addresses from writing to a volume that is ours now, and do not wait for them.

    The claim's epoch says that the VM is not there any more.  What is left of it is, as a rule, the watch of a QEMU that
    died with its host, for which the first write here would wait for half a minute; but should it live, it must not
    write.  Each is blocked as the one client that it is, not as its whole host.
    """
    ours = clients.own_addresses(cluster)
    _end(
        cluster,
        pool,
        name,
        image,
        [address for address in watchers.addresses(image) if clients.ip(address) not in ours],
    )


def _end(cluster: Cluster, pool: str, name: str, image: Image, addresses: list[str]) -> None:
    """Block these clients for good, break their lock, and return when the volume is rid of them."""
    if not addresses:
        return
    clients.block(cluster, addresses, clients.INSTANCE_S)
    with opened(cluster, pool, name) as writable:
        break_locks(writable, set(addresses))
    watchers.forget(cluster, pool, image, set(addresses))


def break_locks(image: Image, owners: set[str]) -> list[str]:
    """Break the exclusive lock of an image where one of these clients has it; return who had it."""
    broken = [owner["owner"] for owner in image.lock_get_owners() if owner["owner"] in owners]
    for owner in broken:
        image.lock_break(EXCLUSIVE, owner)
    return broken
