"""Layout ``lvm``: logical volumes, which Ceph's own ``ceph-volume`` makes OSDs of and starts after a boot.

Each disk has a volume group of its own, with a volume for each OSD on it.  Metadata is on volumes of a group on a fast disk,
which serves many OSDs.  What belongs to an OSD is known by the tags that ``ceph-volume`` gives the volumes, and by their
names before it has.  Source: Ceph documentation, ceph-volume(8); lvm(8), ``--reportformat json``.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from pvc_ceph.osd import devices
from pvc_ceph.osd.layout import NewOsd
from pvc_ceph.osd.monitors import Monitors
from pvc_ceph.osd.tools import Tools
from pvc_ceph.osd.values import Found, Store
from pvc_core.model.errors import InvalidRequest
from pvc_core.model.units import format_bytes
from pvc_core.plugin import DriverError, ObjectMissing

DATA_GROUP: Final = "pvc-osd-"
DB_GROUP: Final = "pvc-db-"
_DATA: Final = Path("/var/lib/ceph/osd")
_BOOTSTRAP: Final = Path("/var/lib/ceph/bootstrap-osd/ceph.keyring")
_DEFAULT_CONF: Final = "/etc/ceph/ceph.conf"
_DATA_TAG: Final = "ceph.type=block"
_START_S: Final = 300.0


class Group(NamedTuple):
    """A volume group."""

    name: str
    free_bytes: int
    extent_bytes: int
    volumes: int


class LvmLayout:
    """See ``Layout``."""

    def __init__(
        self, tools: Tools, monitors: Monitors, conf: str, data: Path = _DATA, bootstrap: Path = _BOOTSTRAP
    ) -> None:
        self._tools: Final = tools
        self._monitors: Final = monitors
        self._data: Final = data
        self._bootstrap: Final = bootstrap
        self._ceph_volume: Final = (*(() if conf == _DEFAULT_CONF else ("env", f"CEPH_CONF={conf}")), "ceph-volume")

    def objection(self, stores: Sequence[Store]) -> str:
        if any(store.db.startswith("/") for store in stores):
            return (
                "osd_layout is lvm on this node: metadata is on a volume group; make one: pvc storage osd create-db-vg"
            )
        return ""

    def db_for(self, wanted: str, size_bytes: int, count: int, freed: AbstractSet[str] = frozenset()) -> str:
        if wanted.startswith("/"):
            raise InvalidRequest(
                f"--db {wanted}: osd_layout is lvm on this node, and metadata is on a volume group; make one of the device: "
                f"pvc storage osd create-db-vg NODE {wanted}, and give --db-size or --db-ratio"
            )
        if not size_bytes:
            raise InvalidRequest("how much of the volume group for metadata? give --db-size or --db-ratio")
        groups = [group for group in self._groups() if group.name.startswith(DB_GROUP)]
        if wanted:
            groups = [group for group in groups if group.name == wanted]
        if not groups:
            what = f"volume group {wanted}" if wanted else "volume group for metadata"
            raise ObjectMissing(
                f"this node has no {what}; make one on an empty fast disk: pvc storage osd create-db-vg NODE DEVICE"
            )
        coming = [volume for volume in self._volumes() if freed & volume_fsids(volume)] if freed else []
        room = {
            group: group.free_bytes
            + sum(_number(volume["lv_size"]) for volume in coming if volume["vg_name"] == group.name)
            for group in groups
        }
        best = max(groups, key=lambda group: room[group])
        need = count * -(-size_bytes // best.extent_bytes) * best.extent_bytes
        if need > room[best]:
            raise InvalidRequest(
                f"volume group {best.name} has {format_bytes(room[best])} free, and {count} x "
                f"{format_bytes(size_bytes)} of metadata need {format_bytes(need)}"
            )
        return best.name

    def found(self) -> list[Found]:
        done = self._tools.read(*self._ceph_volume, "lvm", "list", "--format", "json").check()
        return parse_list(done.stdout)

    def make(self, new: NewOsd) -> int:
        store = new.store
        group = self._data_group(store)
        share = f"{100 // (store.parts - store.part + 1)}%FREE"
        self._lvcreate(group, f"osd-block-{store.fsid}", "--extents", share)
        words = ["--data", f"{group}/osd-block-{store.fsid}"]
        if store.db:
            self._lvcreate(store.db, f"osd-db-{store.fsid}", "--size", f"{store.db_bytes}b")
            words += ["--block.db", f"{store.db}/osd-db-{store.fsid}"]
        if new.id is not None:
            words += ["--osd-id", str(new.id)]
        if new.device_class:
            words += ["--crush-device-class", new.device_class]
        self._write_bootstrap_key()
        self._tools.write(*self._ceph_volume, "lvm", "prepare", "--bluestore", *words, "--osd-fsid", store.fsid)
        row = self._monitors.osds().with_fsid(store.fsid)
        if row is None:
            raise DriverError(f"ceph-volume made an OSD on {store.device} that the monitors do not know")
        return row.id

    def activate(self, osd: Found) -> None:
        if self._runs(osd):
            return
        argv = (*self._ceph_volume, "lvm", "activate", "--bluestore", str(osd.id), osd.fsid)
        self._tools.write(*argv, deadline_s=_START_S)

    def deactivate(self, id_: int, fsid: str) -> None:
        if fsid:
            self._tools.unit("disable", f"ceph-volume@lvm-{id_}-{fsid}")
        self._tools.unit("disable", _unit(id_), "--runtime")
        self._tools.unit("stop", _unit(id_))
        if self._tools.is_active(_unit(id_)):
            raise DriverError(f"{_unit(id_)} still runs after it was stopped")
        directory = self._data / f"ceph-{id_}"
        if directory.is_mount():
            self._tools.write("umount", str(directory))
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()

    def wipe(self, stores: Sequence[Store]) -> None:
        fsids = {store.fsid for store in stores}
        left = set()
        for volume in self._volumes():
            if fsids & volume_fsids(volume):
                if _DATA_TAG in volume["lv_tags"].split(","):
                    left.add(volume["vg_name"])
                name = f"{volume['vg_name']}/{volume['lv_name']}"
                self._tools.write(*self._ceph_volume, "lvm", "zap", name)
                self._tools.write("lvremove", "--yes", name)
        # Groups of disks that hold no OSD any more, be it from a wiping that was cut off.
        empty = {
            group.name
            for group in self._groups()
            if not group.volumes and (group.name.startswith(DATA_GROUP) or group.name in left)
        }
        for group, device in self._members():
            if group in empty:
                # In one step, unlike vgremove and pvremove: the group goes with its only disk.
                self._tools.write("pvremove", "--yes", "--force", "--force", device)

    def make_db_group(self, device: str) -> str:
        return self._make_group(DB_GROUP, device)

    def _data_group(self, store: Store) -> str:
        """Return the group on a store's disk; the first part's making makes it."""
        if store.part > 1:
            real = devices.one_block(self._tools.run, store.device).path
            for group, device in self._members():
                if group.startswith(DATA_GROUP) and Path(device).resolve() == Path(real):
                    return group
            raise DriverError(f"the volume group of the OSD before is not found on {store.device}")
        return self._make_group(DATA_GROUP, store.device, store.fsid)

    def _make_group(self, prefix: str, device: str, word: str = "") -> str:
        taken = {group.name for group in self._groups()}
        numbered = (f"{prefix}{number}" for number in range(1, len(taken) + 2))
        name = f"{prefix}{word[:13]}" if word else next(name for name in numbered if name not in taken)
        self._tools.write("vgcreate", "--yes", name, device)
        return name

    def _lvcreate(self, group: str, name: str, *size: str) -> None:
        self._tools.write("lvcreate", "--yes", "--wipesignatures", "y", *size, "--name", name, group)

    def _runs(self, osd: Found) -> bool:
        try:
            fsid = (self._data / f"ceph-{osd.id}" / "fsid").read_text().strip()
        except OSError:
            return False
        return fsid == osd.fsid and self._tools.is_active(_unit(osd.id))

    def _write_bootstrap_key(self) -> None:
        text = f"[client.bootstrap-osd]\n\tkey = {self._monitors.bootstrap_key()}\n"
        try:
            if self._bootstrap.read_text() == text:
                return
        except FileNotFoundError:
            self._bootstrap.parent.mkdir(parents=True, exist_ok=True)
        new = self._bootstrap.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text)
        new.replace(self._bootstrap)

    def _groups(self) -> list[Group]:
        columns = "vg_name,vg_free,vg_extent_size,lv_count"
        return [
            Group(row["vg_name"], _number(row["vg_free"]), _number(row["vg_extent_size"]), _number(row["lv_count"]))
            for row in self._report("vgs", "vg", columns)
        ]

    def _members(self) -> list[tuple[str, str]]:
        """Return group and disk of each disk in a group."""
        return [(row["vg_name"], row["pv_name"]) for row in self._report("pvs", "pv", "vg_name,pv_name")]

    def _volumes(self) -> list[dict[str, str]]:
        return self._report("lvs", "lv", "vg_name,lv_name,lv_tags,lv_size")

    def _report(self, program: str, kind: str, columns: str) -> list[dict[str, str]]:
        options = ("--reportformat", "json", "--units", "b", "--nosuffix", "--options", columns)
        decoded = msgspec.json.decode(self._tools.read(program, *options).check().stdout)
        rows: list[dict[str, str]] = decoded["report"][0][kind]
        return rows


def parse_list(text: str) -> list[Found]:
    """Return the OSDs in the output of ``ceph-volume lvm list --format json``."""
    found: list[Found] = []
    for id_, volumes in msgspec.json.decode(text, type=dict[str, list[dict[str, Any]]]).items():
        databases = {
            volume["tags"]["ceph.osd_fsid"]: volume
            for volume in volumes
            if volume["type"] == "db" and "ceph.osd_fsid" in volume.get("tags", {})
        }
        for volume in volumes:
            tags = volume.get("tags", {})
            if volume["type"] != "block" or "ceph.osd_fsid" not in tags:
                continue
            db = databases.get(tags["ceph.osd_fsid"], {})
            found.append(
                Found(
                    id=int(id_),
                    fsid=tags["ceph.osd_fsid"],
                    cluster=tags["ceph.cluster_fsid"],
                    device=",".join(volume["devices"]),
                    data=volume["lv_path"],
                    db=db.get("lv_path", ""),
                )
            )
    return found


def volume_fsids(volume: dict[str, str]) -> set[str]:
    """Return the UUIDs of the OSD that a volume belongs to, by its name and by its tags."""
    name = volume["lv_name"]
    named = {name.removeprefix(prefix) for prefix in ("osd-block-", "osd-db-") if name.startswith(prefix)}
    tags = dict(tag.partition("=")[::2] for tag in volume["lv_tags"].split(",") if tag)
    return named | {fsid for key, fsid in tags.items() if key == "ceph.osd_fsid"}


def _number(text: str) -> int:
    return int(float(text.rstrip("B")))


def _unit(id_: int) -> str:
    return f"ceph-osd@{id_}"
