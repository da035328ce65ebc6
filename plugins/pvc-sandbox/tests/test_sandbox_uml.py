"""Another kernel on this machine's files."""

import uuid
from pathlib import Path

import pytest

from pvc_sandbox.errors import SandboxError
from pvc_sandbox.uml import load_order, run_in_uml

DEPENDENCIES = """\
kernel/fs/overlayfs/overlay.ko:
kernel/drivers/md/dm-mod.ko:
kernel/drivers/md/dm-bufio.ko: kernel/drivers/md/dm-mod.ko
kernel/drivers/md/dm-snapshot.ko: kernel/drivers/md/dm-bufio.ko kernel/drivers/md/dm-mod.ko
kernel/net/8021q/8021q.ko.xz:
"""


def names(modules):
    return [Path(file).name for file in load_order(DEPENDENCIES, modules)]


def test_modules_are_loaded_after_those_that_they_need():
    assert names(["dm_snapshot", "overlay"]) == ["dm-mod.ko", "dm-bufio.ko", "dm-snapshot.ko", "overlay.ko"]
    assert names(["8021q", "dm-mod", "dm_mod"]) == ["8021q.ko.xz", "dm-mod.ko"]


def test_module_that_is_not_there_is_told():
    with pytest.raises(SandboxError, match="has no module 'zfs'"):
        names(["zfs"])


@pytest.mark.real
def test_program_runs_there_as_it_would_here():
    mark = Path("/var/tmp", uuid.uuid4().hex)
    script = f"echo written > {mark}; cat {mark}; pwd; ls /dev/ubdb /dev/mapper/control; echo wrong >&2; exit 7"
    done = run_in_uml(["sh", "-c", script], deadline_s=60, modules=["dm-mod"], disks_mib=[16])
    assert (done.returncode, done.stderr) == (7, "wrong\n")
    assert done.stdout.splitlines() == ["written", str(Path.cwd()), "/dev/mapper/control", "/dev/ubdb"]
    assert not mark.exists(), "what it writes is forgotten"


@pytest.mark.real
def test_program_that_does_not_end_is_ended():
    with pytest.raises(SandboxError, match="did not end in time; it said last: waiting"):
        run_in_uml(["sh", "-c", "echo waiting >&2; sleep 300"], deadline_s=-10)
