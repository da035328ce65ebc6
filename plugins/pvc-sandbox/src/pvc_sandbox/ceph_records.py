"""What is known of the Ceph of a sandbox before it runs: made once, kept in its state directory and on its nodes' disks."""

import secrets
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from pvc_sandbox import ceph_config
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import write_atomically
from pvc_sandbox.layout import Layout

T = TypeVar("T")


class CephRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What tells a cluster from others; made once, in its state directory."""

    fsid: str
    mon_key: str
    admin_key: str
    mgr_keys: dict[int, str]
    """By the number of the coordinator."""
    founders: int
    """So many nodes were there in the beginning: node N has the OSD N-1."""


class FirstOsd(msgspec.Struct, frozen=True, kw_only=True):
    """The OSD that a node is given; made once, on the node's disk."""

    uuid: str
    key: str
    id: int | None = None
    """None until the monitors have chosen."""
    made: bool = False
    """It was started once: whatever becomes of it is not ours any more."""


def common_directory(layout: Layout) -> Path:
    """Return the directory of what all nodes have in common."""
    return Path(layout.state) / "ceph"


def make_record(layout: Layout, coordinators: Sequence[int], nodes: int) -> CephRecord:
    """Return the cluster's record, made if need be; ``nodes``: how many there are then."""
    record = _read(layout, _record_file(layout), CephRecord)
    if record is None:
        record = CephRecord(
            fsid=str(uuid.uuid4()),
            mon_key=_new_key(),
            admin_key=_new_key(),
            mgr_keys={number: _new_key() for number in coordinators},
            founders=nodes,
        )
        write_atomically(_record_file(layout), msgspec.json.encode(record), mode=0o600)
    return record


def load_record(layout: Layout) -> CephRecord:
    """Return the record of a cluster that was made; raises SandboxError."""
    record = _read(layout, _record_file(layout), CephRecord)
    if record is None:
        raise SandboxError(f"sandbox {layout.name!r} has no Ceph yet; make it: pvc sandbox up --name {layout.name}")
    return record


def make_first_osd(layout: Layout, number: int) -> FirstOsd:
    """Return the record of a node's first OSD, made if need be."""
    osd = load_first_osd(layout, number)
    if osd is None:
        id_ = number - 1 if number <= load_record(layout).founders else None
        osd = FirstOsd(uuid=str(uuid.uuid4()), key=_new_key(), id=id_)
        write_first_osd(layout, number, osd)
    return osd


def load_first_osd(layout: Layout, number: int) -> FirstOsd | None:
    """Return the record of a node's first OSD, None when it has none yet."""
    return _read(layout, _osd_file(layout, number), FirstOsd)


def write_first_osd(layout: Layout, number: int, osd: FirstOsd) -> None:
    """Replace the record of a node's first OSD."""
    write_atomically(_osd_file(layout, number), msgspec.json.encode(osd), mode=0o600)


def _read(layout: Layout, path: Path, type_: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        begin_anew = f"begin anew: pvc sandbox down --name {layout.name}"
        raise SandboxError(f"{path} cannot be read ({error}); {begin_anew}") from error


def _record_file(layout: Layout) -> Path:
    return common_directory(layout) / "record.json"


def _osd_file(layout: Layout, number: int) -> Path:
    return layout.node_state(number) / "ceph/first-osd.json"


def _new_key() -> str:
    return ceph_config.encode_key(secrets.token_bytes(ceph_config.KEY_BYTES), time.time_ns())
