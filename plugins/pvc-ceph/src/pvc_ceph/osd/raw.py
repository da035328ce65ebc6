"""Layout ``raw``: an OSD has a whole disk, and another one for its metadata if wanted; no LVM.

A disk is known again by the label that BlueStore writes at its beginning.  The OSD's directory on the root file system
holds links to its disks and its key, and is made anew from the label and the monitors whenever it is missing.
Source: Ceph documentation, "Manual Deployment" (long form) and ceph-bluestore-tool(8).
"""

import base64
import contextlib
import os
import pwd
import secrets
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import msgspec

from pvc_ceph.osd import devices
from pvc_ceph.osd.layout import NewOsd
from pvc_ceph.osd.monitors import Monitors
from pvc_ceph.osd.tools import Tools
from pvc_ceph.osd.values import Block, Found, Store
from pvc_ceph.osd.verdict import WHOLE
from pvc_core.plugin import DriverError, Unsupported

_DATA: Final = Path("/var/lib/ceph/osd")
_USER: Final = "ceph"
_SIGNATURE: Final = "ceph_bluestore"
_MAIN, _DB = "main", "bluefs db"
"""What a label says of its disk."""
_SYSTEMD: Final = Path("/run/systemd/system")
_DROP_IN: Final = Path("/etc/systemd/system/ceph-osd@.service.d/pvc-raw-disks.conf")
_OWNERSHIP: Final = """\
# Written by PVC: disks without LVM belong to root after a boot, and the OSD runs as user ceph.
[Service]
ExecStartPre=-+/bin/chown --dereference ceph:ceph /var/lib/ceph/osd/ceph-%i/block
ExecStartPre=-+/bin/chown --dereference ceph:ceph /var/lib/ceph/osd/ceph-%i/block.db
"""
_AES: Final = 1
_KEY_BYTES: Final = 16
_KEY_HEADER: Final = struct.Struct("<HIIH")


class _Label(msgspec.Struct, frozen=True):
    """What BlueStore writes on a disk, as far as it matters here."""

    osd_uuid: str = ""
    description: str = ""
    ceph_fsid: str = ""
    whoami: str = ""


class RawLayout:
    """See ``Layout``."""

    def __init__(self, tools: Tools, monitors: Monitors, conf: str, data: Path = _DATA) -> None:
        self._tools: Final = tools
        self._monitors: Final = monitors
        self._conf: Final = conf
        self._data: Final = data

    def objection(self, stores: Sequence[Store]) -> str:
        if any(store.parts > 1 for store in stores):
            return "several OSDs on a device need LVM, and osd_layout is raw on this node"
        return ""

    def db_for(self, wanted: str, size_bytes: int, count: int, freed: AbstractSet[str] = frozenset()) -> str:
        del count, freed
        if size_bytes:
            raise Unsupported(
                "osd_layout is raw on this node: an OSD's metadata takes a whole device; leave its size and ratio out"
            )
        if not wanted.startswith("/"):
            raise Unsupported("osd_layout is raw on this node: name an empty device for the metadata: --db DEVICE")
        return wanted

    def found(self) -> list[Found]:
        mains: dict[str, tuple[Block, _Label]] = {}
        databases: dict[str, Block] = {}
        for block in devices.all_blocks(self._tools.run):
            if block.type not in WHOLE or block.uses:
                continue
            try:
                label = self._label(block.path)
            except DriverError:
                # A disk that is dead, or not ours to read, shows no OSD, and is no reason to see none on the others.
                continue
            if label is not None and label.description == _MAIN and label.whoami.isdigit():
                mains[label.osd_uuid] = block, label
            elif label is not None and label.description == _DB:
                databases[label.osd_uuid] = block
        return [
            Found(
                id=int(label.whoami),
                fsid=fsid,
                cluster=label.ceph_fsid,
                device=block.name,
                data=block.name,
                db=databases[fsid].name if fsid in databases else "",
            )
            for fsid, (block, label) in mains.items()
        ]

    def make(self, new: NewOsd) -> int:
        key = new_key()
        id_ = self._monitors.create(new.store.fsid, key, new.device_class, new.id)
        device, db = self._stable(new.store.device), self._stable(new.store.db)
        for disk in filter(None, (device, db)):
            # An mkfs that was killed in its midst would be gone by.
            self._tools.wipe(disk)
        directory = self._directory(id_)
        with _made_directory(directory) as making:
            (making / "block").symlink_to(device)
            if db:
                (making / "block.db").symlink_to(db)
            self._tools.write(
                *("ceph-osd", "--no-mon-config", "--mkfs", "--conf", self._conf, "--id", str(id_)),
                *("--fsid", self._monitors.osds().fsid, "--osd-uuid", new.store.fsid),
                *("--osd-data", str(making), "--keyfile", "-"),
                stdin=key.encode(),
            )
            _write_keyring(making, id_, key)
        return id_

    def activate(self, osd: Found) -> None:
        directory = self._directory(osd.id)
        if not self._is_whole(directory, osd):
            shutil.rmtree(directory, ignore_errors=True)
            with _made_directory(directory) as making:
                prime = ("ceph-bluestore-tool", "prime-osd-dir", "--no-mon-config", "--dev", osd.data)
                self._tools.write(*prime, "--path", str(making))
                (making / "block").symlink_to(osd.data)
                if osd.db:
                    (making / "block.db").symlink_to(osd.db)
                _write_keyring(making, osd.id, self._monitors.key(osd.id))
        _give_to_ceph(directory)
        self._keep_ownership()
        self._tools.unit("enable", _unit(osd.id))
        self._tools.unit("start", _unit(osd.id))

    def deactivate(self, id_: int, fsid: str) -> None:
        del fsid
        self._tools.unit("disable", _unit(id_))
        self._tools.unit("stop", _unit(id_))
        if self._tools.is_active(_unit(id_)):
            raise DriverError(f"{_unit(id_)} still runs after it was stopped")
        shutil.rmtree(self._directory(id_), ignore_errors=True)

    def wipe(self, stores: Sequence[Store]) -> None:
        for store in stores:
            for device in filter(None, (store.device, store.db)):
                # Only what is its own, which may be gone, or never came: the disk may be used for something else.
                if Path(device).is_block_device() and self._is_of(device, store.fsid):
                    self._tools.wipe(device)

    def make_db_group(self, device: str) -> str:
        raise Unsupported(
            f"{device}: a volume group needs LVM, and osd_layout is raw on this node; give an OSD a whole device for its "
            "metadata instead: pvc storage osd add NODE DEVICE --db DEVICE"
        )

    def _label(self, device: str) -> _Label | None:
        # Disks for data and for metadata carry it alike.
        carries = any(text.startswith(_SIGNATURE) for text in devices.signatures(self._tools.run, device))
        return self._read_label(device) if carries else None

    def _read_label(self, device: str) -> _Label | None:
        done = self._tools.read("ceph-bluestore-tool", "show-label", "--no-mon-config", "--dev", device)
        if done.returncode:
            return None
        (label,) = msgspec.json.decode(done.stdout, type=dict[str, _Label]).values()
        return label

    def _is_of(self, device: str, fsid: str) -> bool:
        label = self._label(device)
        return label is not None and label.osd_uuid == fsid

    def _stable(self, device: str) -> str:
        return devices.one_block(self._tools.run, device).name if device else ""

    def _directory(self, id_: int) -> Path:
        return self._data / f"ceph-{id_}"

    def _is_whole(self, directory: Path, osd: Found) -> bool:
        try:
            fsid = (directory / "fsid").read_text().strip()
            linked = os.path.realpath(directory / "block") == os.path.realpath(osd.data)
        except OSError:
            return False
        return fsid == osd.fsid and linked and (directory / "keyring").exists()

    def _keep_ownership(self) -> None:
        if not _SYSTEMD.is_dir() or _user() is None or _DROP_IN.exists():
            return
        _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
        new = _DROP_IN.with_suffix(".new")
        new.write_text(_OWNERSHIP)
        new.replace(_DROP_IN)
        self._tools.run(["systemctl", "daemon-reload"], deadline_s=30.0).check()


def new_key() -> str:
    """Return a new cephx key, as a keyring has it: ``CryptoKey`` in Ceph's src/auth/Crypto.h."""
    header = _KEY_HEADER.pack(_AES, *divmod(time.time_ns(), 1_000_000_000), _KEY_BYTES)
    return base64.b64encode(header + secrets.token_bytes(_KEY_BYTES)).decode()


@contextlib.contextmanager
def _made_directory(directory: Path) -> Iterator[Path]:
    """Yield a new directory that gets its name when all is in it."""
    making = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    making.mkdir(parents=True)
    yield making
    making.rename(directory)


def _write_keyring(directory: Path, id_: int, key: str) -> None:
    path = directory / "keyring"
    path.touch(mode=0o600)
    path.write_text(f"[osd.{id_}]\nkey = {key}\n", encoding="ascii")


def _give_to_ceph(directory: Path) -> None:
    """Let the daemon's user have the directory and the disks, where it has a user of its own."""
    user = _user()
    if user is None:
        return
    for path in (directory, *directory.iterdir()):
        os.chown(path, user.pw_uid, user.pw_gid)  # of a link: of the disk


def _user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(_USER)
    except KeyError:
        return None


def _unit(id_: int) -> str:
    return f"ceph-osd@{id_}"
