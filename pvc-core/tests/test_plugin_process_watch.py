"""Long child processes that are listened to while they run."""

import sys
import time
from pathlib import Path

import pytest

from pvc_core.plugin.errors import DeadlineExceeded, DriverError
from pvc_core.plugin.process import watch
from pvc_core.testkit.waiting import eventually


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_is_handed_on_while_the_program_runs():
    heard: list[str] = []

    def note(text: str) -> bool:
        heard.append(text)
        return False

    code = "import sys\nprint('begun', flush=True)\nsys.stdin.read()\nimport time\ntime.sleep(0.2)\nprint('end')"
    done = watch(_python(code), deadline_s=30, heard=note, interval_s=0.01)
    assert done is not None
    assert done.returncode == 0
    assert done.stdout == "begun\nend\n"
    assert "begun" in "".join(heard)


def test_a_stopped_program_is_dead_with_its_children():
    pids: list[int] = []

    def stop_when_told(text: str) -> bool:
        pids.extend(int(word) for word in text.split())
        return len(pids) == 2

    code = (
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\n"
        "print(os.getpid(), child.pid, flush=True)\ntime.sleep(60)"
    )
    assert watch(_python(code), deadline_s=30, heard=stop_when_told, interval_s=0.01) is None
    eventually(lambda: not any(_alive(pid) for pid in pids), "both are dead", within_s=10)


def test_a_child_that_ignores_the_polite_signal_and_listens_to_nobody_is_dead_too(tmp_path):
    told = tmp_path / "pid"
    stubborn = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(told)!r} + '.new', 'w').write(str(os.getpid()))\nos.rename({str(told)!r} + '.new', {str(told)!r})\n"
        "time.sleep(60)"
    )
    code = (
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {stubborn!r}],"
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\ntime.sleep(60)"
    )
    assert watch(_python(code), deadline_s=30, heard=lambda _: told.exists(), interval_s=0.01) is None
    eventually(lambda: not _alive(int(told.read_text())), "it is dead", within_s=10)


def test_a_callback_that_raises_ends_the_program():
    def fail(_: str) -> bool:
        raise RuntimeError("stop everything")

    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="stop everything"):
        watch(_python("import time\ntime.sleep(60)"), deadline_s=60, heard=fail, interval_s=0.01)
    assert time.monotonic() - begun < 20


def test_the_deadline_kills_the_program():
    with pytest.raises(DeadlineExceeded, match=r"took longer than 0\.2 s"):
        watch(_python("import time\ntime.sleep(60)"), deadline_s=0.2, heard=lambda _: False, interval_s=0.01)


def test_a_failure_can_be_read_from_both_outputs():
    done = watch(_python("import sys\nsys.exit('no disk')"), deadline_s=30, heard=lambda _: False)
    assert done is not None
    with pytest.raises(DriverError, match="no disk"):
        done.check()


def test_a_program_that_is_not_there_is_said_so():
    with pytest.raises(DriverError, match="cannot run /no/such/program"):
        watch(["/no/such/program"], deadline_s=1, heard=lambda _: False)
