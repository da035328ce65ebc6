"""Files that are sent to a node, and what becomes of those that nobody goes on with."""

import hashlib
import io
import os
from types import SimpleNamespace

import pytest

from pvc_core.model.errors import NotFound
from pvc_core.model.task import Task, TaskState
from pvc_core.node.reconcile.upload import UploadSweeper
from pvc_core.node.uploads import IDLE_S, KEEP_FREE_BYTES, Damaged, NoRoom, Uploads
from pvc_core.ops.context import Ops
from pvc_core.store import keys
from pvc_core.store.documents import create
from pvc_core.store.memory import MemoryTree
from pvc_core.store.schema import initialise

DATA = b"contents"


@pytest.fixture
def uploads(tmp_path):
    directory = tmp_path / "upload"
    directory.mkdir()
    return Uploads(directory, wall=lambda: 100_000.0)


def write(uploads, path, data, offset=0, checksum=None):
    uploads.write(path.name, offset, io.BytesIO(data), len(data), checksum or hashlib.sha256(data).hexdigest())


def test_a_file_has_its_size_its_holes_and_no_other_reader(uploads):
    path = uploads.begin("web 1/disk.img", 1 << 30, 8)
    write(uploads, path, DATA, (1 << 30) - 8)
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o777) == (1 << 30, 0o600)
    assert found.st_blocks * 512 < 1 << 20
    assert path.name.endswith("-web_1_disk.img")


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/passwd", "x" * 300, "\0\n"])
def test_whatever_a_file_is_called_it_stays_in_its_directory(uploads, tmp_path, name):
    path = uploads.begin(name, 8, 8)
    assert path.parent == tmp_path / "upload"
    write(uploads, path, DATA)
    assert path.read_bytes() == DATA


@pytest.mark.parametrize("id_", ["", "..", "../secret", "a/b", "0" * 32, f"{'0' * 32}-gone"])
def test_what_was_not_begun_is_not_written(uploads, tmp_path, id_):
    (tmp_path / "secret").write_bytes(b"mine")
    with pytest.raises(NotFound):
        uploads.write(id_, 0, io.BytesIO(DATA), 8, hashlib.sha256(DATA).hexdigest())
    assert (tmp_path / "secret").read_bytes() == b"mine"


def test_a_part_that_was_damaged_or_cut_off_is_told_and_may_be_sent_again(uploads):
    path = uploads.begin("disk.img", 8, 8)
    with pytest.raises(Damaged, match=r"8 bytes at 0 of .*-disk.img did not arrive"):
        write(uploads, path, b"c0ntents", checksum=hashlib.sha256(DATA).hexdigest())
    with pytest.raises(Damaged):
        uploads.write(path.name, 0, io.BytesIO(DATA[:4]), 8, hashlib.sha256(DATA[:4]).hexdigest())
    with pytest.raises(ValueError, match="8 bytes at 1 do not lie within the 8 bytes"):
        write(uploads, path, DATA, 1)
    write(uploads, path, DATA)
    assert path.read_bytes() == DATA


def test_some_room_is_kept_and_a_file_that_has_none_is_refused_before_it_is_sent(uploads, monkeypatch):
    path = uploads.begin("disk.img", 1 << 40, 8)
    free = KEEP_FREE_BYTES + 7
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    with pytest.raises(NoRoom, match=r"1 GiB are kept; 8 B do not fit \(see node.upload_directory\)"):
        uploads.begin("disk.img", 1 << 40, 8)
    with pytest.raises(NoRoom):
        write(uploads, path, DATA)
    uploads.begin("disk.img", 1 << 40, 7)


def test_only_what_was_sent_here_is_removed_after_its_task(uploads, tmp_path):
    path = uploads.begin("disk.img", 8, 8)
    other = tmp_path / "disk.img"
    other.write_bytes(DATA)
    stranger = path.with_name("debian.img")
    stranger.write_bytes(DATA)
    for each in (other, stranger):
        uploads.used(str(each))
        assert each.exists()
    uploads.used(str(path))
    uploads.used(str(path))
    assert not path.exists()


def test_what_nobody_goes_on_with_is_removed_but_for_what_a_task_waits_for(uploads):
    tree = MemoryTree()
    store = tree.connect()
    initialise(store)
    new, given_up, queued, ended = (uploads.begin(name, 8, 8) for name in ("new", "given-up", "queued", "ended"))
    stranger = new.with_name("notes.txt")
    stranger.write_text("mine")
    for path in (given_up, queued, ended, stranger):
        os.utime(path, (0, 100_000.0 - IDLE_S - 1))
    os.utime(new, (0, 100_000.0 - IDLE_S + 1))
    for id_, path, state in (("t1", queued, TaskState.QUEUED), ("t2", ended, TaskState.DONE)):
        task = Task(id=id_, kind="volume.import", node="hv1", arguments={"path": str(path)}, state=state)
        store.commit(create(keys.task(id_), task))
    assert UploadSweeper(Ops(store), uploads).reconcile("") > 0
    assert {path.name for path in new.parent.iterdir()} == {new.name, queued.name, "notes.txt"}
