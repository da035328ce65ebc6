"""The disks of a simulated host: real loop devices."""

import os
import signal
from pathlib import Path

import pytest

from pvc_sandbox import boot, disks
from pvc_sandbox.boot import Equipment
from pvc_sandbox.control import Service
from pvc_sandbox.errors import SandboxError
from pvc_sandbox.host import Host
from pvc_sandbox.waiting import wait_until

MIB = 1 << 20
TWO_DISKS = Equipment(disks=(8 * MIB, 16 * MIB))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("disks")
    yield path
    for number in (1, 2):
        Host(path, number).destroy()
    assert attached(path) == []


@pytest.fixture
def host(directory):
    made = Host(directory, 1)
    made.start(equipment=TWO_DISKS)
    return made


def attached(directory):
    """Return the files below a directory that loop devices of this machine show."""
    files = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    return sorted(file for file in files if file.startswith(str(directory)))


def shell(host, script):
    return host.exec(["sh", "-c", script]).check().stdout.strip()


@pytest.mark.real
def test_host_sees_its_own_disks_and_no_others(host, directory):
    other = Host(directory, 2)
    other.start(equipment=Equipment(disks=(8 * MIB,)))
    assert shell(host, "cd /dev; ls -d pvc-disk*") == "pvc-disk1\npvc-disk2"
    assert shell(other, "cd /dev; ls -d pvc-disk*") == "pvc-disk1"
    assert shell(host, "blockdev --getsize64 /dev/pvc-disk1 /dev/pvc-disk2").split() == [str(8 * MIB), str(16 * MIB)]
    seen = [shell(each, "ls -d /dev/loop[0-9]*").split() for each in (host, other)]
    assert [len(each) for each in seen] == [2, 1]
    assert not {*seen[0]} & {*seen[1]}
    assert shell(host, "readlink -f /dev/pvc-disk2") in seen[0]
    assert len(attached(directory)) == 3
    other.destroy()
    assert attached(directory) == [f"{host.state}/disks/1.img", f"{host.state}/disks/2.img"]


@pytest.mark.real
def test_disk_keeps_what_is_on_it_over_a_power_cut(host, directory):
    shell(host, "printf kept | dd of=/dev/pvc-disk2 seek=1M oflag=seek_bytes conv=notrunc status=none")
    host.power_cut()
    assert attached(directory) == []
    host.boot()
    assert shell(host, "dd if=/dev/pvc-disk2 skip=1M iflag=skip_bytes count=1 status=none | head -c 4") == "kept"
    image = host.state / "disks/2.img"
    assert image.stat().st_blocks * 512 < MIB  # it is sparse


@pytest.mark.real
def test_nothing_is_left_of_a_host_that_ended_by_itself(host, directory):
    os.kill(host.pid, signal.SIGKILL)  # no command of the sandbox has a hand in it
    wait_until("it is off", lambda: not host.running, deadline_s=10)
    assert attached(directory) == []
    host.start(equipment=TWO_DISKS)
    assert len(attached(directory)) == 2


@pytest.mark.real
def test_service_that_was_enabled_comes_up_at_each_boot(host):
    service = Service(name="extra", argv=("sleep", "60"), log=str(host.state / "log/extra.log"))
    boot.enable(host.state, service)
    assert "extra" not in host.services()
    host.power_cut()
    host.boot()
    assert host.services()["extra"].pid
    host.stop_service("extra")
    host.start(equipment=TWO_DISKS)  # what was stopped by hand is started, as it is at a boot
    assert host.services()["extra"].pid
    boot.disable(host.state, "extra")
    host.power_cut()
    host.boot()
    assert "extra" not in host.services()


def test_image_is_made_once(tmp_path):
    image = tmp_path / "disks/1.img"
    disks.make_image(image, 4096)
    image.write_bytes(b"x" * 4096)
    disks.make_image(image, 8192)
    assert image.read_bytes() == b"x" * 4096


def test_machine_without_loop_devices_is_told(tmp_path):
    image = tmp_path / "image"
    image.touch()
    with pytest.raises(SandboxError, match="load the kernel's module `loop`"):
        disks.attach(image, 1, tmp_path)


@pytest.mark.parametrize(("name", "yes"), [("loop0", True), ("loop12", True), ("loop-control", False), ("loop", False)])
def test_loop_devices_are_told_by_their_names(name, yes):
    assert disks.is_loop_device(name) is yes
