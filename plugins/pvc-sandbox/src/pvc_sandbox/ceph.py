"""Ceph in the nodes of a sandbox: what is on their disks, and what makes it.

A monitor and a manager on each coordinator, an OSD on the first disk of every node.  They are services that are enabled
on a node one by one (module ``boot``), so that whoever takes one away later does so for good: what is made here is made
once.  Within a node everything is where Debian has it.
"""

import contextlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from pvc_core.plugin.process import run
from pvc_sandbox import boot, ceph_admin, ceph_config
from pvc_sandbox.ceph_records import (
    CephRecord,
    common_directory,
    load_first_osd,
    load_record,
    make_first_osd,
    make_record,
    write_first_osd,
)
from pvc_sandbox.disks import LINK
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.host import Host
from pvc_sandbox.layout import Layout
from pvc_sandbox.units.known import unit

PLUGIN: Final = "ceph"
"""Section of a node's ``plugins`` that makes its daemon use Ceph."""
DEADLINE_S: Final = 120.0
_MKFS_DEADLINE_S: Final = 60.0
_MKFS_LOCK: Final = "/run/ceph-mkfs.lock"
_LABELS_BYTES: Final = 1 << 20
"""At the beginning of a disk: more than the labels of the store and of its file system take."""
_MODULES: Final = Path("/usr/share/ceph/mgr")
_ALWAYS_ON: Final = (
    "balancer",
    "crash",
    "devicehealth",
    "orchestrator",
    "pg_autoscaler",
    "progress",
    "rbd_support",
    "status",
    "telemetry",
    "volumes",
)
"""Modules without which health is HEALTH_ERR.  A manager imports all that it finds: with Debian's whole directory that takes
three times as long, and twice the memory."""
_MODULE_LIBRARIES: Final = ("mgr_module.py", "mgr_util.py")

Each = Callable[[Sequence[Host], Callable[[Host], None]], None]


def client_conf(layout: Layout) -> Path:
    """Return a ceph.conf with which this machine is the cluster's administrator, from the switch's network namespace."""
    return common_directory(layout) / "ceph.conf"


def configure(layout: Layout, coordinators: Sequence[int], nodes: int) -> None:
    """Write what all nodes have in common; ``nodes``: how many there are, if it is new."""
    record = make_record(layout, coordinators, nodes)
    common = common_directory(layout)
    admin = common / "ceph.client.admin.keyring"
    write_atomically(
        admin, ceph_config.keyring(ceph_config.ADMIN, record.admin_key, ceph_config.ADMIN_CAPS), mode=0o600
    )
    parts = [
        ceph_config.keyring("mon.", record.mon_key, ceph_config.MON_CAPS),
        admin.read_text(),
        *(
            ceph_config.keyring(f"mgr.{layout.node_name(number)}", key, ceph_config.MGR_CAPS)
            for number, key in record.mgr_keys.items()
        ),
    ]
    write_atomically(common / "initial.keyring", "".join(parts), mode=0o600)
    conf = _conf(layout, record, keyring_file=str(admin), run_directory=str(layout.run / "ceph"))
    write_atomically(client_conf(layout), conf)
    _link_modules(common / "mgr-modules")
    _make_monmap(layout, record)


def node_binds(layout: Layout, number: int) -> tuple[tuple[str, str], ...]:
    """Return what stands in place of Debian's directories on a node."""
    place = layout.node_state(number) / "ceph"
    return (
        (str(place / "etc"), "/etc/ceph"),
        (str(place / "lib"), "/var/lib/ceph"),
        (str(place / "log"), "/var/log/ceph"),
    )


def configure_node(layout: Layout, number: int) -> None:
    """Write a node's own files, its data excepted."""
    place = layout.node_state(number) / "ceph"
    for kind in ("mon", "mgr", "osd", "crash", "tmp"):
        (place / "lib" / kind).mkdir(parents=True, exist_ok=True)
    (place / "log").mkdir(exist_ok=True)
    record = load_record(layout)
    write_atomically(place / "etc/ceph.conf", _conf(layout, record, logs=str(layout.node_state(number) / "log")))
    admin = "ceph.client.admin.keyring"
    write_atomically(place / "etc" / admin, (common_directory(layout) / admin).read_text(), mode=0o600)


def unfinished(layout: Layout, numbers: Sequence[int]) -> list[int]:
    """Return the nodes that were not given all yet."""
    return [number for number in numbers if not (osd := load_first_osd(layout, number)) or not osd.made]


def bring_up(hosts: Sequence[Host], nodes: int, each: Each) -> None:
    """Make what these nodes lack, and start it; they are on, and so are all coordinators.

    ``nodes``: how many the sandbox has; ``each`` acts on several hosts at once.  Killed at any moment, it goes on when
    it is called again.  Raises SandboxError.
    """
    if not hosts:
        return
    layout = hosts[0].layout
    coordinators = load_record(layout).mgr_keys
    each([host for host in hosts if host.number in coordinators], _make_monitor)
    each(hosts, _make_osd_store)
    _register_osds(layout, [host.number for host in hosts], nodes)
    each(hosts, _make_osd_store)  # of those whose ids the monitors have just chosen
    each(hosts, _start_osd)


def _make_monitor(host: Host) -> None:
    """Give a coordinator its monitor and its manager, and start them."""
    name, common = host.name, common_directory(host.layout)
    store = _data(host, "mon", name)
    key = load_record(host.layout).mgr_keys[host.number]
    write_atomically(_data(host, "mgr", name) / "keyring", ceph_config.keyring(f"mgr.{name}", key), mode=0o600)
    if not store.exists():
        files = ("--monmap", str(common / "monmap"), "--keyring", str(common / "initial.keyring"))
        _mkfs(host, store, ["ceph-mon", "--mkfs", "-i", name, *files], "--mon-data")
    for kind in ("mon", "mgr"):
        service = unit(host.state, f"ceph-{kind}@{name}").service
        boot.enable(host.state, service)
        host.start_service(service)


def _make_osd_store(host: Host) -> None:
    """Make the store of a node's first OSD, once its id is known."""
    osd = make_first_osd(host.layout, host.number)
    if osd.made or osd.id is None:
        return
    store = _data(host, "osd", str(osd.id))
    if store.exists():
        return
    disk = f"/dev/{LINK}1"
    # An earlier mkfs may have been killed in its midst, and this one would go by what it finds.
    _locked(host, ["blkdiscard", "--zeroout", "--length", str(_LABELS_BYTES), disk])
    # Without what monitors say of the configuration: nobody can ask them yet.
    argv = ["ceph-osd", "--no-mon-config", "--mkfs", "-i", str(osd.id), "--osd-uuid", osd.uuid]
    files = {"keyring": ceph_config.keyring(f"osd.{osd.id}", osd.key)}
    _mkfs(host, store, argv, "--osd-data", files=files, block=disk)


def _register_osds(layout: Layout, numbers: Sequence[int], nodes: int) -> None:
    """Let the monitors know the first OSDs of these nodes, and choose the ids of those that have none."""
    osds = {number: osd for number in numbers if (osd := load_first_osd(layout, number)) and not osd.made}
    new = tuple(ceph_admin.NewOsd(uuid=osd.uuid, key=osd.key, id=osd.id) for osd in osds.values())
    request = ceph_admin.Register(new, ceph_config.pool_defaults(nodes))
    answer = ceph_admin.ask(client_conf(layout), layout.switch, request, ceph_admin.Ids, deadline_s=DEADLINE_S)
    for (number, osd), id_ in zip(osds.items(), answer.ids, strict=True):
        write_first_osd(layout, number, msgspec.structs.replace(osd, id=id_))


def _start_osd(host: Host) -> None:
    """Start a node's first OSD, whose store is there and which the monitors know."""
    osd = load_first_osd(host.layout, host.number)
    if osd is None or osd.made:
        return
    service = unit(host.state, f"ceph-osd@{osd.id}").service
    boot.enable(host.state, service)
    host.start_service(service)
    write_first_osd(host.layout, host.number, msgspec.structs.replace(osd, made=True))


def wait(layout: Layout, numbers: Sequence[int]) -> ceph_admin.Settled:
    """Return when all OSDs that are enabled on these nodes are up, and the cluster serves.  Raises SandboxError."""
    names = [service.name for number in numbers for service in boot.enabled(layout.node_state(number))]
    osds = tuple(sorted(int(name.partition("@")[2]) for name in names if name.startswith("ceph-osd@")))
    request = ceph_admin.Wait(osds)
    return ceph_admin.ask(client_conf(layout), layout.switch, request, ceph_admin.Settled, deadline_s=DEADLINE_S)


def _conf(layout: Layout, record: CephRecord, **places: str) -> str:
    return ceph_config.configuration(
        fsid=record.fsid,
        network=layout.cluster_network,
        monitors=[layout.cluster_address(number) for number in record.mgr_keys],
        mgr_modules=str(common_directory(layout) / "mgr-modules"),
        **places,
    )


def _link_modules(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    for name in (*_ALWAYS_ON, *_MODULE_LIBRARIES):
        with contextlib.suppress(FileExistsError):
            (directory / name).symlink_to(_MODULES / name)


def _make_monmap(layout: Layout, record: CephRecord) -> None:
    path = common_directory(layout) / "monmap"
    if path.exists():
        return
    new = path.with_suffix(".new")
    argv = ["monmaptool", "--create", "--clobber", "--fsid", record.fsid]
    for number in record.mgr_keys:
        argv += ["--addv", layout.node_name(number), ceph_config.mon_address(layout.cluster_address(number))]
    run([*argv, str(new)], deadline_s=_MKFS_DEADLINE_S).check()
    new.replace(path)


def _data(host: Host, kind: str, id_: str) -> Path:
    """Return a daemon's directory as this machine sees it."""
    return host.state / "ceph/lib" / kind / f"ceph-{id_}"


def _mkfs(
    host: Host, store: Path, argv: Sequence[str], option: str, *, files: dict[str, str] | None = None, block: str = ""
) -> None:
    """Make a daemon's data on its host, in a directory that gets its name when it is whole."""
    for other in store.parent.glob(f".{store.name}.*"):
        shutil.rmtree(other, ignore_errors=True)
    new = store.with_name(f".{store.name}.{secrets.token_hex(4)}")
    new.mkdir()
    for name, content in (files or {}).items():
        write_atomically(new / name, content, mode=0o600)
    if block:
        (new / "block").symlink_to(block)
    _locked(host, [*argv, option, str(new)])
    new.rename(store)


def _locked(host: Host, argv: Sequence[str]) -> None:
    """Run a program that writes to a disk, once no other does.

    It goes on when the command that started it is killed, and the next command finds it at work.
    """
    done = host.exec(["flock", _MKFS_LOCK, *argv], deadline_s=_MKFS_DEADLINE_S)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-3:]
        raise SandboxError(f"{host.name}: {argv[0]} ended with status {done.returncode}: {' / '.join(said)}")
