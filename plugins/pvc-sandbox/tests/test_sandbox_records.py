"""Records of processes, files and locks between processes."""

import os
import signal
import subprocess
import sys
import threading

import msgspec
import pytest

from pvc_sandbox import records
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.files import Lock, write_atomically
from pvc_sandbox.records import ProcessRecord, is_stopped, kill, living, record, send, write_record
from pvc_sandbox.waiting import wait_until


@pytest.fixture
def child():
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_recorded_process_is_found_again(tmp_path, child):
    write_record(tmp_path / "pid", child.pid)
    assert living(tmp_path / "pid").pid == child.pid


def test_reused_pid_is_not_taken_for_the_recorded_process(tmp_path, child):
    known = record(child.pid)
    for other in ({"start": known.start + 1}, {"boot": "another"}):
        changed = msgspec.structs.replace(known, **other)
        (tmp_path / "pid").write_bytes(msgspec.json.encode(changed))
        assert living(tmp_path / "pid") is None
        send(changed, signal.SIGKILL)
        assert child.poll() is None


def test_zombie_is_dead(tmp_path):
    process = subprocess.Popen(["sleep", "60"])
    write_record(tmp_path / "pid", process.pid)
    kill(record(process.pid))
    assert living(tmp_path / "pid") is None
    process.wait()


def test_no_record_or_half_a_record_is_no_process(tmp_path):
    assert living(tmp_path / "pid") is None
    (tmp_path / "pid").write_text('{"pid": 1')
    assert living(tmp_path / "pid") is None


def test_process_name_with_brackets_and_spaces(tmp_path):
    link = tmp_path / "a ) b (c"
    link.symlink_to("/bin/sleep")
    process = subprocess.Popen([link, "60"])
    try:
        write_record(tmp_path / "pid", process.pid)
        assert living(tmp_path / "pid") is not None
    finally:
        process.kill()
        process.wait()


def test_stopped_process_is_seen(child):
    known = record(child.pid)
    send(known, signal.SIGSTOP)
    wait_until("stopped", lambda: is_stopped(known), deadline_s=5)
    send(known, signal.SIGCONT)
    wait_until("goes on", lambda: not is_stopped(known), deadline_s=5)


def test_process_that_does_not_end_is_told(monkeypatch):
    monkeypatch.setattr(records, "send", lambda *_: None)
    with pytest.raises(SandboxError, match=f"process {os.getpid()} after SIGKILL: not within 0.05 s"):
        kill(record(os.getpid()), deadline_s=0.05)
    assert isinstance(record(os.getpid()), ProcessRecord)


def test_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "d/f"
    write_atomically(path, "old", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_lock_keeps_others_out_until_it_is_given_up(tmp_path):
    order = []

    def other():
        with Lock(tmp_path / "lock"):
            order.append("second")

    with Lock(tmp_path / "lock"):
        thread = threading.Thread(target=other)
        thread.start()
        with pytest.raises(SandboxError, match=r"not within 0\.1 s"), Lock(tmp_path / "lock", 0.1):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_lock_whose_file_its_holder_deleted_is_taken_on_a_new_file(tmp_path):
    with Lock(tmp_path / "d/lock") as held:
        held.delete()
        with Lock(tmp_path / "d/lock"):
            assert (tmp_path / "d/lock").exists()


def test_lock_ends_with_its_holder_however_that_ends(tmp_path):
    program = f"import time\nfrom pathlib import Path\nfrom pvc_sandbox.files import Lock\nwith Lock(Path({str(tmp_path / 'lock')!r})):\n    print('held', flush=True)\n    time.sleep(60)\n"
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    with Lock(tmp_path / "lock", 5):
        pass


def test_child_that_inherits_the_lock_keeps_it(tmp_path):
    with Lock(tmp_path / "lock") as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fileno(),))
    with pytest.raises(SandboxError), Lock(tmp_path / "lock", 0.1):
        pass
    child.kill()
    child.wait()
    with Lock(tmp_path / "lock", 5):
        pass
